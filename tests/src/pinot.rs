//! A drawn table as the documents and messages that a server takes: schema, table configs, stream messages.

use crate::combination::Storage;
use crate::sql::decimal_text;
use crate::star_tree::star_tree_configs;
use crate::table::{Column, Table, TimeColumn, is_metric};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType as ArrowType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMillisecondType,
};
use serde_json::{Map, Value as Json, json};
use strandline_proto::schema::DataType;

/// The schema document of `table` under another name.
pub fn schema_json(table: &Table, name: &str) -> String {
    let mut dimensions = Vec::new();
    let mut metrics = Vec::new();
    let mut times = Vec::new();
    for column in &table.columns {
        let mut spec = json!({"name": column.name, "dataType": column.data_type.pinot_name()});
        if column.name == table.time_column() {
            spec["format"] = json!(table.time.format());
            spec["granularity"] = json!(match table.time {
                TimeColumn::EpochDays | TimeColumn::DayText => "1:DAYS",
                _ => "1:MILLISECONDS",
            });
            times.push(spec);
        } else if column.multi_value {
            spec["singleValueField"] = json!(false);
            dimensions.push(spec);
        } else if is_metric(column) {
            metrics.push(spec);
        } else {
            dimensions.push(spec);
        }
    }
    json!({
        "schemaName": name,
        "enableColumnBasedNullHandling": true,
        "dimensionFieldSpecs": dimensions,
        "metricFieldSpecs": metrics,
        "dateTimeFieldSpecs": times,
    })
    .to_string()
}

fn indexing(table: &Table) -> Map<String, Json> {
    let named = |wanted: fn(Storage) -> bool| -> Json {
        table
            .columns
            .iter()
            .filter(|c| wanted(c.storage))
            .map(|c| Json::from(c.name.as_str()))
            .collect()
    };
    // The first column that ascends leads; the others ascend with it.
    let leader: Vec<&str> = table
        .columns
        .iter()
        .filter(|c| c.storage.is_sorted())
        .map(|c| c.name.as_str())
        .take(1)
        .collect();
    let mut index = Map::new();
    index.insert("loadMode".into(), json!("MMAP"));
    index.insert("nullHandlingEnabled".into(), json!(true));
    index.insert("invertedIndexColumns".into(), named(Storage::has_inverted));
    index.insert("rangeIndexColumns".into(), named(Storage::has_range));
    index.insert("bloomFilterColumns".into(), named(Storage::has_bloom));
    index.insert("noDictionaryColumns".into(), named(Storage::is_raw));
    index.insert("sortedColumn".into(), json!(leader));
    index.insert("starTreeIndexConfigs".into(), star_tree_configs(table));
    index
}

/// Text, FST and timestamp indexes.
fn field_configs(table: &Table) -> Json {
    let is_text = |c: &&Column| matches!(c.data_type, DataType::String | DataType::Json);
    let texts = table.columns.iter().filter(is_text);
    let is_timestamp = |c: &&Column| c.data_type == DataType::Timestamp && !c.multi_value;
    let timestamps = table.columns.iter().filter(is_timestamp).map(|column| {
        let granularities = ["HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"];
        json!({
            "name": column.name,
            "indexTypes": ["TIMESTAMP"],
            "timestampConfig": {"granularities": granularities},
        })
    });
    let config = |column: &Column| {
        let kinds = [
            (column.storage.has_text(), "TEXT"),
            (column.storage.has_fst(), "FST"),
        ];
        let kinds = kinds.iter().filter(|(has, _)| *has);
        let kinds: Vec<&str> = kinds.map(|(_, kind)| *kind).collect();
        json!({"name": column.name, "indexTypes": kinds})
    };
    texts.map(config).chain(timestamps).collect()
}

/// The offline half's config.
pub fn offline_json(table: &Table, name: &str) -> String {
    json!({
        "tableName": name,
        "tableType": "OFFLINE",
        "segmentsConfig": {
            "timeColumnName": table.time_column(),
            "segmentPushType": "APPEND",
            "replication": "1",
        },
        "tableIndexConfig": indexing(table),
        "fieldConfigList": field_configs(table),
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

/// The realtime half's config, over a topic of the embedded log, sealing every `flush_rows` rows of a partition.
pub fn realtime_json(
    table: &Table,
    name: &str,
    topic: &str,
    partitions: u32,
    flush_rows: u64,
) -> String {
    realtime_with_stream(table, name, &log_stream(topic, partitions, flush_rows))
}

/// The stream config of a topic of the embedded log that holds JSON, sealing every `flush_rows` rows of a partition.
pub fn log_stream(topic: &str, partitions: u32, flush_rows: u64) -> Json {
    json!({
        "streamType": "log",
        "stream.log.topic.name": topic,
        "stream.log.partitions": partitions.to_string(),
        "stream.log.decoder.class.name": "org.apache.pinot.plugin.inputformat.json.JSONMessageDecoder",
        "stream.log.consumer.prop.auto.offset.reset": "smallest",
        "realtime.segment.flush.threshold.rows": flush_rows.to_string(),
        "realtime.segment.flush.threshold.time": "24h",
    })
}

/// The realtime half's config with this stream config.
pub fn realtime_with_stream(table: &Table, name: &str, stream: &Json) -> String {
    json!({
        "tableName": name,
        "tableType": "REALTIME",
        "segmentsConfig": {
            "timeColumnName": table.time_column(),
            "replication": "1",
        },
        "tableIndexConfig": indexing(table),
        "fieldConfigList": field_configs(table),
        "ingestionConfig": {"streamIngestionConfig": {"streamConfigMaps": [stream]}},
        "tenants": {},
        "metadata": {},
    })
    .to_string()
}

/// Each row as a JSON message; null columns are left out in every other row.
pub fn messages(columns: &[Column], rows: &RecordBatch) -> Vec<Vec<u8>> {
    let arrays: Vec<Vec<Json>> = rows.columns().iter().map(json_values).collect();
    (0..rows.num_rows())
        .map(|row| {
            let object: Map<String, Json> = columns
                .iter()
                .zip(&arrays)
                .map(|(column, values)| (column.name.clone(), values[row].clone()))
                .filter(|(_, value)| !value.is_null() || row % 2 == 0)
                .collect();
            Json::Object(object).to_string().into_bytes()
        })
        .collect()
}

/// JSON has no number for these; they are written as text.
fn not_finite(value: f64) -> Option<Json> {
    if value.is_nan() {
        Some(json!("NaN"))
    } else if value.is_infinite() {
        Some(json!(if value > 0.0 { "Infinity" } else { "-Infinity" }))
    } else {
        None
    }
}

fn json_values(array: &ArrayRef) -> Vec<Json> {
    let values: Vec<Json> = match array.data_type() {
        ArrowType::Int32 => array
            .as_primitive::<Int32Type>()
            .values()
            .iter()
            .map(|v| json!(v))
            .collect(),
        ArrowType::Int64 => array
            .as_primitive::<Int64Type>()
            .values()
            .iter()
            .map(|v| json!(v))
            .collect(),
        ArrowType::Float32 => array
            .as_primitive::<Float32Type>()
            .values()
            .iter()
            .map(|v| not_finite(f64::from(*v)).unwrap_or_else(|| json!(v)))
            .collect(),
        ArrowType::Float64 => array
            .as_primitive::<Float64Type>()
            .values()
            .iter()
            .map(|v| not_finite(*v).unwrap_or_else(|| json!(v)))
            .collect(),
        ArrowType::Decimal128(_, scale) => array
            .as_primitive::<Decimal128Type>()
            .values()
            .iter()
            .map(|v| json!(decimal_text(*v, *scale)))
            .collect(),
        ArrowType::Timestamp(..) => array
            .as_primitive::<TimestampMillisecondType>()
            .values()
            .iter()
            .map(|v| json!(v))
            .collect(),
        ArrowType::Boolean => array
            .as_boolean()
            .iter()
            .map(|v| json!(v.unwrap_or_default()))
            .collect(),
        ArrowType::Utf8 => array
            .as_string::<i32>()
            .iter()
            .map(|v| json!(v.unwrap_or_default()))
            .collect(),
        ArrowType::Binary => array
            .as_binary::<i32>()
            .iter()
            .map(|v| {
                let hex: String = v
                    .unwrap_or_default()
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect();
                json!(hex)
            })
            .collect(),
        ArrowType::List(_) => {
            let lists = array.as_list::<i32>();
            let elements = json_values(lists.values());
            lists
                .value_offsets()
                .windows(2)
                .map(|w| Json::Array(elements[w[0] as usize..w[1] as usize].to_vec()))
                .collect()
        }
        other => panic!("no JSON for {other}"),
    };
    values
        .into_iter()
        .enumerate()
        .map(|(row, value)| {
            if array.is_null(row) {
                Json::Null
            } else {
                value
            }
        })
        .collect()
}
