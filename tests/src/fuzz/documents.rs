//! Schemas and table configs, and with them expressions, time formats and the documents of indexes.

use super::{SCHEMA, UNNESTED};
use std::cell::OnceCell;
use std::sync::Arc;
use strandline_proto::schema::Schema;
use strandline_storage::config::{parse_schema, parse_table, table_name_and_half};

thread_local! {
    static KNOWN: OnceCell<Arc<Schema>> = const { OnceCell::new() };
}

/// A document as a schema, as a table config over a schema that is known, and as one over itself.
pub fn documents(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else {
        return false;
    };
    let known = KNOWN.with(|known| {
        let made = || Arc::new(parse_schema(SCHEMA, 1).expect("the schema is right").0);
        Arc::clone(known.get_or_init(made))
    });
    let _ = table_name_and_half(text);
    let mut is_taken = false;
    if let Ok((schema, _)) = parse_schema(text, 1) {
        // What was taken can be stored.
        let again = serde_json::to_string(&schema).expect("a schema is written");
        let read: Schema = serde_json::from_str(&again).expect("a schema is read");
        assert_eq!(schema, read);
        is_taken = true;
    }
    if let Ok((config, _)) = parse_table(text, &known) {
        let again = parse_table(&config.json, &known).expect("what was taken once is taken again");
        assert_eq!(config.spec.fingerprint(), again.0.spec.fingerprint());
        is_taken = true;
    }
    is_taken
}

/// Documents of all kinds.
pub fn seeds_of_documents() -> Vec<Vec<u8>> {
    let offline = r#"{"tableName": "t", "tableType": "OFFLINE", "segmentsConfig": {"timeColumnName": "day", "retentionTimeUnit": "DAYS",
        "retentionTimeValue": "10", "deletedSegmentsRetentionPeriod": "3d", "segmentPushType": "APPEND", "segmentPushFrequency": "HOURLY"},
        "tableIndexConfig": {"sortedColumn": ["n"], "invertedIndexColumns": ["name", "n"], "noDictionaryColumns": ["ratio"], "rangeIndexColumns": ["n"],
            "bloomFilterColumns": ["name"], "jsonIndexColumns": ["doc"],
            "starTreeIndexConfigs": [{"dimensionsSplitOrder": ["name", "n"], "skipStarNodeCreationForDimensions": ["n"],
                "functionColumnPairs": ["SUM__ratio", "COUNT__*", "DISTINCTCOUNT__name"], "maxLeafRecords": 10}]},
        "fieldConfigList": [{"name": "name", "encodingType": "DICTIONARY", "indexTypes": ["TEXT", "FST"], "properties": {"stopWordsInclude": "a,b"}},
            {"name": "ts", "encodingType": "DICTIONARY", "timestampConfig": {"granularities": ["DAY", "MONTH"]}},
            {"name": "doc", "indexes": {"json": {"maxLevels": 2, "includePaths": ["$.a"], "excludeArray": false}}}],
        "ingestionConfig": {"transformConfigs": [{"columnName": "ts", "transformFunction": "fromEpochDays(day)"},
            {"columnName": "name", "transformFunction": "CASE WHEN n > 3 THEN upper(date) ELSE concat(date, '-', jsonPathString(doc, '$.a[0].b')) END"}],
            "filterConfig": {"filterFunction": "NOT (n BETWEEN 1 AND 5) OR name IN ('a', 'b') OR date IS NULL OR name LIKE '%x_'"}},
        "tenants": {}, "metadata": {}}"#;
    let realtime = format!(
        r#"{{"tableName": "t", "tableType": "REALTIME", "segmentsConfig": {{"timeColumnName": "day"}},
            "task": {{"taskTypeConfigsMap": {{"RealtimeToOfflineSegmentsTask": {{"bucketTimePeriod": "1d", "bufferTimePeriod": "12h30m"}}}}}},
            "ingestionConfig": {{"streamIngestionConfig": {{"streamConfigMaps": [{{"streamType": "kafka", "stream.kafka.topic.name": "x",
                "stream.kafka.broker.list": "a:9092,b:9092", "stream.kafka.decoder.class.name": "x.CSVMessageDecoder", "stream.kafka.decoder.prop.header": "n,name",
                "stream.kafka.decoder.prop.delimiter": ";", "realtime.segment.flush.threshold.rows": "1000", "realtime.segment.flush.threshold.time": "1d6h",
                "realtime.segment.flush.threshold.segment.size": "150M", "stream.kafka.consumer.prop.auto.offset.reset": "2026-05-01T00:00:00Z",
                "stream.kafka.start.offsets": "0:15,1:0", "topic.consumption.rate.limit": "12.5", "stream.kafka.metadata.populate": "true"}},
                {{"streamType": "log", "stream.log.topic.name": "y", "stream.log.partitions": "3", "stream.log.decoder.class.name": "SimpleAvroMessageDecoder",
                "stream.log.decoder.prop.schema": {{"type": "record", "name": "r", "fields": [{{"name": "n", "type": ["null", "int"]}}]}}}}]}} {UNNESTED}}}}}"#
    );
    let defaults = r#"{"schemaName": "s", "primaryKeyColumns": ["a"], "dimensionFieldSpecs": [{"name": "a", "dataType": "INT", "defaultNullValue": -3},
        {"name": "b", "dataType": "STRING", "maxLength": 12, "defaultNullValue": "x", "notNull": true}, {"name": "c", "dataType": "BYTES", "defaultNullValue": "00ff"}],
        "complexFieldSpecs": [], "metricFieldSpecs": [{"name": "m", "dataType": "BIG_DECIMAL", "defaultNullValue": "1.5"}],
        "dateTimeFieldSpecs": [{"name": "d", "dataType": "STRING", "format": "SIMPLE_DATE_FORMAT|yyyy-MM-dd'T'HH:mm:ss.SSS|UTC", "granularity": "15:MINUTES"},
        {"name": "e", "dataType": "LONG", "format": "EPOCH|SECONDS|10", "granularity": "MINUTES|5"}]}"#;
    [SCHEMA, offline, &realtime, defaults]
        .map(|text| text.as_bytes().to_vec())
        .into()
}
