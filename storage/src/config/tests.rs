use super::*;
use crate::convert::flatten::ArraysToJson;
use crate::segment::json::JsonSpec;
use crate::segment::spec::{Encoding, StarMeasure, StarTreeSpec};
use proptest::prelude::*;
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;
use strandline_proto::{ErrorKind, Result};

const SCHEMA: &str = include_str!("../../tests/data/airlineStats_schema.json");
const OFFLINE: &str = include_str!("../../tests/data/airlineStats_offline_table_config.json");
const REALTIME: &str = include_str!("../../tests/data/airlineStats_realtime_table_config.json");

fn airline() -> Arc<Schema> {
    Arc::new(parse_schema(SCHEMA, 1).unwrap().0)
}

fn paths(warnings: &[ConfigWarning]) -> Vec<&str> {
    warnings.iter().map(|w| w.path.as_str()).collect()
}

fn small_schema() -> Arc<Schema> {
    let json = r#"{"schemaName": "t", "dimensionFieldSpecs": [
        {"name": "a", "dataType": "STRING"}, {"name": "list", "dataType": "INT", "singleValueField": false}],
        "dateTimeFieldSpecs": [
        {"name": "day", "dataType": "STRING", "format": "SIMPLE_DATE_FORMAT|dd-MM-yyyy", "granularity": "1:DAYS"},
        {"name": "ms", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}]}"#;
    Arc::new(parse_schema(json, 3).unwrap().0)
}

fn small_table(rest: &str) -> Result<(TableConfig, Vec<ConfigWarning>)> {
    parse_table(
        &format!(r#"{{"tableName": "t", "tableType": "OFFLINE" {rest} }}"#),
        &small_schema(),
    )
}

fn stream_table(stream: &str) -> Result<(TableConfig, Vec<ConfigWarning>)> {
    let json = format!(
        r#"{{"tableName": "t_REALTIME", "tableType": "REALTIME",
        "ingestionConfig": {{"streamIngestionConfig": {{"streamConfigMaps": [{stream}]}}}}}}"#
    );
    parse_table(&json, &small_schema())
}

#[test]
fn the_airline_schema_is_accepted_as_it_is() {
    let (schema, warnings) = parse_schema(SCHEMA, 7).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        (schema.name.as_str(), schema.version, schema.columns.len()),
        ("airlineStats", 7, 81)
    );
    assert!(schema.column("DivAirports").unwrap().multi_value);
    assert_eq!(
        schema.column("DivTotalGTimes").unwrap().data_type,
        DataType::Long
    );
    let day = schema.column("DaysSinceEpoch").unwrap();
    assert!(
        matches!(&day.role, strandline_proto::schema::ColumnRole::DateTime { format, .. } if format.is_sortable())
    );
    assert_eq!(day.default, Value::Null);
}

#[test]
fn the_airline_offline_config_is_accepted_and_what_is_not_honoured_is_listed() {
    let (config, warnings) = parse_table(OFFLINE, &airline()).unwrap();
    assert_eq!(
        (config.name.as_str(), config.half),
        ("airlineStats", Half::Offline)
    );
    assert_eq!(config.time_column.as_deref(), Some("DaysSinceEpoch"));
    assert_eq!(
        (config.push_period, config.push_type),
        (PushPeriod::Daily, PushType::Append)
    );
    assert!(config.spec.column("ArrTimeBlk").inverted);
    assert_eq!(
        config.spec.column("ArrTimeBlk").encoding,
        Encoding::Dictionary
    );
    assert_eq!(
        config.transforms.columns().collect::<Vec<_>>(),
        ["ts", "tsRaw"]
    );
    assert_eq!(config.spec.star_trees.len(), 2);
    assert!(!config.spec.column("ts").granularities.is_empty());
    assert!(config.streams.is_empty());
    assert_eq!(
        paths(&warnings),
        [
            "segmentsConfig.timeType",
            "tableIndexConfig.enableDynamicStarTreeCreation",
            "tableIndexConfig.tierOverwrites",
            "fieldConfigList[1].tierOverwrites",
            "tierConfigs",
            "tableSamplers",
        ]
    );
}

#[test]
fn the_airline_realtime_config_is_accepted() {
    let (config, warnings) = parse_table(REALTIME, &airline()).unwrap();
    let stream = Arc::clone(&config.streams[0]);
    assert_eq!(
        (stream.kind, stream.topic.as_str()),
        (StreamKind::Kafka, "flights-realtime")
    );
    assert_eq!(stream.brokers, "localhost:19092");
    assert_eq!(
        (stream.flush_rows, stream.flush_age_ms, stream.flush_bytes),
        (50_000, 3_600_000, 200 << 20)
    );
    assert_eq!(stream.start, StartOffset::Earliest);
    assert_eq!(stream.decoder.format, MessageFormat::Json);
    assert_eq!(stream.properties, BTreeMap::new());
    assert_eq!(config.retention_ms, Some(5 * 86_400_000));
    assert_eq!(paths(&warnings), ["routing"]);
}

#[test]
fn what_becomes_of_segments_is_read() {
    let schema = airline();
    let config = |segments: &str, task: &str| {
        let json = format!(
            r#"{{"tableName": "airlineStats", "tableType": "REALTIME", "segmentsConfig": {{{segments}}}, "task": {{"taskTypeConfigsMap": {{{task}}}}},
                "ingestionConfig": {{"streamIngestionConfig": {{"streamConfigMaps": [{{"streamType": "log"}}]}}}}}}"#
        );
        parse_table(&json, &schema)
    };
    const DAY: u64 = 86_400_000;
    for (segments, expected) in [
        ("", (None, 7 * DAY)),
        (
            r#""retentionTimeUnit": "", "retentionTimeValue": """#,
            (None, 7 * DAY),
        ),
        (
            r#""retentionTimeUnit": "HOURS", "retentionTimeValue": "36""#,
            (Some(36 * 3_600_000), 7 * DAY),
        ),
        (
            r#""retentionTimeValue": 3, "deletedSegmentsRetentionPeriod": "0d""#,
            (Some(3 * DAY), 0),
        ),
        (
            r#""deletedSegmentsRetentionPeriod": "1d12h""#,
            (None, DAY + DAY / 2),
        ),
    ] {
        let (config, warnings) = config(segments, "").unwrap();
        assert_eq!(
            (config.retention_ms, config.kept_ms),
            expected,
            "{segments}"
        );
        assert_eq!(warnings, []);
    }
    for (segments, place) in [
        (
            r#""retentionTimeUnit": "YEARS", "retentionTimeValue": "1""#,
            "segmentsConfig.retentionTimeUnit",
        ),
        (
            r#""retentionTimeValue": "0""#,
            "segmentsConfig.retentionTimeValue",
        ),
        (
            r#""retentionTimeValue": "9999999999999""#,
            "segmentsConfig.retentionTimeValue",
        ),
        (
            r#""deletedSegmentsRetentionPeriod": "soon""#,
            "segmentsConfig.deletedSegmentsRetentionPeriod",
        ),
    ] {
        let error = config(segments, "").unwrap_err();
        assert!(error.message().contains(place), "{error}");
    }
    let (taken, _) = config(
        "",
        r#""RealtimeToOfflineSegmentsTask": {"bucketTimePeriod": "1h"}"#,
    )
    .unwrap();
    let expected = TakeOver {
        period_ms: 3_600_000,
        buffer_ms: 2 * DAY as i64,
    };
    assert_eq!(taken.take_over, Some(expected));
    let (_, warnings) = config("", r#""MergeRollupTask": {}, "Purge": {}"#).unwrap();
    assert_eq!(warnings.len(), 2);
    let rolled = config(
        "",
        r#""RealtimeToOfflineSegmentsTask": {"mergeType": "rollup"}"#,
    )
    .unwrap_err();
    assert_eq!(rolled.kind(), ErrorKind::Unsupported);
}

#[test]
fn names_and_halves_are_read_before_the_schema() {
    assert_eq!(
        table_name_and_half(OFFLINE).unwrap(),
        ("airlineStats".to_owned(), Half::Offline)
    );
    let suffixed = r#"{"tableName": "t_REALTIME", "tableType": "realtime"}"#;
    assert_eq!(
        table_name_and_half(suffixed).unwrap(),
        ("t".to_owned(), Half::Realtime)
    );
    for wrong in [
        r#"{"tableName": "t_OFFLINE", "tableType": "REALTIME"}"#,
        r#"{"tableName": "../t", "tableType": "OFFLINE"}"#,
        r#"{"tableName": "", "tableType": "OFFLINE"}"#,
        r#"{"tableName": "t", "tableType": "HYBRID"}"#,
        r#"{"tableType": "OFFLINE"}"#,
        "[]",
        "{",
    ] {
        assert!(table_name_and_half(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn wrong_schemas_are_refused_by_their_path() {
    let with = |dimensions: &str| {
        format!(r#"{{"schemaName": "t", "dimensionFieldSpecs": [{dimensions}]}}"#)
    };
    let cases = [
        (with(r#"{"name": "a", "dataType": "INT"}, {"name": "a", "dataType": "LONG"}"#), "dimensionFieldSpecs[1]: the column a is there twice"),
        (with(r#"{"name": "", "dataType": "INT"}"#), "dimensionFieldSpecs[0].name: the name is empty"),
        (with(r#"{"name": "../../etc/x", "dataType": "INT"}"#), "dimensionFieldSpecs[0].name: the name '../../etc/x'"),
        (with(r#"{"name": "$docId", "dataType": "INT"}"#), "dimensionFieldSpecs[0].name"),
        (with(r#"{"name": "a\u0007", "dataType": "INT"}"#), "dimensionFieldSpecs[0].name"),
        (with(r#"{"name": "a", "dataType": "NUMBER"}"#), "dimensionFieldSpecs[0].dataType: unknown type NUMBER"),
        (with(r#"{"name": "a", "dataType": "MAP"}"#), "not supported: dimensionFieldSpecs[0].dataType"),
        (with(r#"{"name": "a"}"#), "dimensionFieldSpecs[0]: the key dataType is missing"),
        (with(r#"{"name": "a", "dataType": "INT", "defaultNullValue": "x"}"#), "dimensionFieldSpecs[0].defaultNullValue: 'x'"),
        (with(r#"{"name": "a", "dataType": "BIG_DECIMAL", "precision": 39}"#), "dimensionFieldSpecs[0].precision"),
        (with(""), "no columns"),
        (r#"{"schemaName": "a/b", "dimensionFieldSpecs": []}"#.to_owned(), "schemaName: the name 'a/b'"),
        (r#"{"schemaName": "t_OFFLINE", "dimensionFieldSpecs": []}"#.to_owned(), "schemaName"),
        (
            r#"{"schemaName": "t", "metricFieldSpecs": [{"name": "m", "dataType": "INT", "singleValueField": "false"}]}"#.to_owned(),
            "metricFieldSpecs[0].singleValueField",
        ),
        (
            r#"{"schemaName": "t", "dateTimeFieldSpecs": [{"name": "m", "dataType": "INT", "format": "X", "granularity": "1:DAYS"}]}"#.to_owned(),
            "dateTimeFieldSpecs[0].format",
        ),
        (
            r#"{"schemaName": "t", "dimensionFieldSpecs": [{"name": "m", "dataType": "INT"}], "primaryKeyColumns": ["n"]}"#.to_owned(),
            "primaryKeyColumns[0]: no column n",
        ),
    ];
    for (json, part) in cases {
        let error = parse_schema(&json, 1).expect_err(&json);
        assert!(error.message().contains(part), "{json}: {error}");
    }
}

#[test]
fn defaults_have_their_columns_type() {
    let json = r#"{"schemaName": "t", "dimensionFieldSpecs": [
        {"name": "i", "dataType": "INT", "defaultNullValue": "-1"},
        {"name": "l", "dataType": "LONG", "defaultNullValue": 9007199254740993},
        {"name": "d", "dataType": "BIG_DECIMAL", "precision": 12, "scale": 2, "defaultNullValue": "1.50"},
        {"name": "b", "dataType": "BYTES", "defaultNullValue": "00ff"},
        {"name": "m", "dataType": "STRING", "singleValueField": false, "defaultNullValue": "none"},
        {"name": "n", "dataType": "STRING", "maxLength": 10, "notNull": true}],
        "timeFieldSpec": {"incomingGranularitySpec": {"name": "day", "dataType": "INT", "timeType": "DAYS"}}}"#;
    let (schema, warnings) = parse_schema(json, 1).unwrap();
    let default = |name: &str| schema.column(name).unwrap().default.clone();
    assert_eq!(default("i"), Value::Int(-1));
    assert_eq!(default("l"), Value::Long(9_007_199_254_740_993));
    assert_eq!(
        default("d"),
        Value::Decimal {
            unscaled: 150,
            scale: 2
        }
    );
    assert_eq!(default("b"), Value::Bytes(vec![0, 255]));
    assert_eq!(
        default("m"),
        Value::List(vec![Value::String("none".into())])
    );
    assert!(schema.column("n").unwrap().not_null);
    assert_eq!(paths(&warnings), ["dimensionFieldSpecs[5].maxLength"]);
    assert_eq!(schema.columns.last().unwrap().name, "day");
}

#[test]
fn what_would_make_answers_wrong_is_an_error() {
    for (rest, part) in [
        (r#", "upsertConfig": {"mode": "FULL"}"#, "upsertConfig"),
        (r#", "dedupConfig": {"dedupEnabled": true}"#, "dedupConfig"),
        (
            r#", "ingestionConfig": {"filterConfig": {"filterFunction": "Groovy({x > 1}, x)"}}"#,
            "ingestionConfig.filterConfig.filterFunction: Groovy",
        ),
        (
            r#", "tableIndexConfig": {"aggregateMetrics": true}"#,
            "tableIndexConfig.aggregateMetrics",
        ),
        (
            r#", "ingestionConfig": {"transformConfigs": [{"columnName": "a", "transformFunction": "Groovy({x}, x)"}]}"#,
            "ingestionConfig.transformConfigs[0].transformFunction",
        ),
        (
            r#", "ingestionConfig": {"transformConfigs": [{"columnName": "a", "transformFunction": "now()"}]}"#,
            "now",
        ),
        (
            r#", "segmentsConfig": {"timeColumnName": "day"}"#,
            "segmentsConfig.timeColumnName",
        ),
    ] {
        let error = small_table(rest).expect_err(rest);
        assert!(error.message().contains(part), "{rest}: {error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{rest}: {error}");
        assert!(
            error.message().contains("not supported: "),
            "{rest}: {error}"
        );
    }
    for rest in [
        r#", "upsertConfig": {"mode": "NONE"}, "dedupConfig": {"dedupEnabled": "false"}"#,
        r#", "ingestionConfig": {"filterConfig": null, "complexTypeConfig": {}}, "tableIndexConfig": {"aggregateMetrics": "false"}"#,
    ] {
        assert_eq!(small_table(rest).unwrap().1, [], "{rest}");
    }
}

#[test]
fn wrong_columns_and_keys_are_named_by_their_path() {
    for (rest, part) in [
        (
            r#", "tableIndexConfig": {"invertedIndexColumns": ["a", "b"]}"#,
            "tableIndexConfig.invertedIndexColumns[1]: no column 'b'",
        ),
        (
            r#", "tableIndexConfig": {"sortedColumn": "list"}"#,
            "tableIndexConfig.sortedColumn: the multi-value column list",
        ),
        (
            r#", "tableIndexConfig": {"invertedIndexColumns": ["a"], "noDictionaryColumns": ["a"]}"#,
            "tableIndexConfig.invertedIndexColumns[0]",
        ),
        (
            r#", "segmentsConfig": {"timeColumnName": "a"}"#,
            "segmentsConfig.timeColumnName: the column a has no time format",
        ),
        (
            r#", "segmentsConfig": {"segmentPushType": "SOMETIMES"}"#,
            "segmentsConfig.segmentPushType",
        ),
        (
            r#", "fieldConfigList": [{"name": "x"}]"#,
            "fieldConfigList[0].name: no column 'x'",
        ),
        (
            r#", "fieldConfigList": [{"name": "a", "indexTypes": ["MAGIC"]}]"#,
            "fieldConfigList[0].indexTypes[0]",
        ),
        (
            r#", "tableIndexConfig": []"#,
            "tableIndexConfig: expected an object, found an array",
        ),
        (
            r#", "ingestionConfig": {"transformConfigs": [{"columnName": "zz", "transformFunction": "upper(a)"}]}"#,
            "ingestionConfig.transformConfigs[0].columnName: no column 'zz'",
        ),
        (
            r#", "ingestionConfig": {"transformConfigs": [{"columnName": "a", "transformFunction": "upper(a"}]}"#,
            "ingestionConfig.transformConfigs[0].transformFunction: in 'upper(a'",
        ),
    ] {
        let error = small_table(rest).expect_err(rest);
        assert!(error.message().contains(part), "{rest}: {error}");
    }
    let (_, warnings) =
        small_table(r#", "tableIndexConfig": {"invertedIndexColums": ["a"]}, "sgmentsConfig": {}"#)
            .unwrap();
    assert_eq!(
        paths(&warnings),
        ["tableIndexConfig.invertedIndexColums", "sgmentsConfig"]
    );
}

#[test]
fn storage_of_columns_is_read_from_both_places() {
    let (config, warnings) = small_table(
        r#", "segmentsConfig": {"timeColumnName": "ms", "replication": 3, "segmentPushType": "REFRESH", "segmentPushFrequency": "hourly"},
        "tableIndexConfig": {"rangeIndexColumns": ["ms"], "bloomFilterColumns": ["a"], "noDictionaryColumns": ["ms"],
            "sortedColumn": ["a"], "nullHandlingEnabled": "false", "loadMode": "MMAP"},
        "fieldConfigList": [{"name": "list", "encodingType": "DICTIONARY", "indexes": {"inverted": {"enabled": "true"}, "range": {"enabled": "false"},
            "vector": {}, "bloom": {"fpp": 0.01}}}]"#,
    )
    .unwrap();
    assert_eq!(
        (config.push_type, config.push_period),
        (PushType::Refresh, PushPeriod::Hourly)
    );
    let (ms, list, a) = (
        config.spec.column("ms"),
        config.spec.column("list"),
        config.spec.column("a"),
    );
    assert!(ms.range && ms.encoding == Encoding::Raw && !ms.inverted);
    assert!(list.inverted && !list.range && list.bloom && a.bloom);
    assert_eq!(config.spec.sorted_column.as_deref(), Some("a"));
    assert_eq!(
        paths(&warnings),
        [
            "segmentsConfig.replication",
            "tableIndexConfig.nullHandlingEnabled",
            "fieldConfigList[0].indexes.bloom.fpp",
            "fieldConfigList[0].indexes.vector",
        ]
    );
}

#[test]
fn streams_are_read_with_their_thresholds_and_properties() {
    let (config, warnings) = stream_table(
        r#"{"streamType": "kafka", "stream.kafka.topic.name": "x", "stream.kafka.broker.list": "b1:9092,b2:9092",
        "stream.kafka.consumer.prop.auto.offset.reset": "largest", "stream.kafka.consumer.prop.fetch.min.bytes": "10",
        "security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"u\" password='p w';",
        "ssl.endpoint.identification.algorithm": "",
        "realtime.segment.flush.threshold.rows": "0", "realtime.segment.flush.threshold.segment.size": "150M",
        "realtime.segment.flush.threshold.time": "1d12h", "made.up": 1}"#,
    )
    .unwrap();
    let stream = Arc::clone(&config.streams[0]);
    assert_eq!(
        (stream.flush_rows, stream.flush_bytes, stream.flush_age_ms),
        (5_000_000, 150 << 20, 36 * 3_600_000)
    );
    assert_eq!(stream.start, StartOffset::Latest);
    let properties: Vec<_> = stream
        .properties
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(
        properties,
        [
            ("fetch.min.bytes", "10"),
            ("sasl.mechanisms", "PLAIN"),
            ("sasl.password", "p w"),
            ("sasl.username", "u"),
            ("security.protocol", "SASL_SSL"),
            ("ssl.endpoint.identification.algorithm", "none")
        ]
    );
    assert_eq!(
        paths(&warnings),
        ["ingestionConfig.streamIngestionConfig.streamConfigMaps[0].made.up"]
    );

    let (config, _) =
        stream_table(r#"{"streamType": "log", "stream.log.partitions": "4"}"#).unwrap();
    let stream = Arc::clone(&config.streams[0]);
    assert_eq!(
        (stream.kind, stream.topic.as_str(), stream.partitions),
        (StreamKind::Log, "t", 4)
    );
    assert_eq!(stream.start, StartOffset::Earliest);
}

#[test]
fn positions_limits_and_several_streams_are_read() {
    let parse = |rest: &str| {
        let json = format!(r#"{{"streamType": "log" {rest}}}"#);
        Arc::clone(&stream_table(&json).unwrap().0.streams[0])
    };
    let reset = |text: &str| {
        let rest = format!(r#", "stream.log.consumer.prop.auto.offset.reset": {text}"#);
        parse(&rest).start
    };
    let day = 86_400_000;
    let at = StartOffset::At(16_092 * day);
    assert_eq!(reset(r#""2014-01-22T00:00:00Z""#), at);
    assert_eq!(reset(r#""1390348800000""#), at);
    assert_eq!(reset("1390348800000"), at);
    assert_eq!(reset(r#""2d""#), StartOffset::Back(2 * day as u64));
    assert_eq!(reset(r#""SMALLEST""#), StartOffset::Earliest);
    let stream = parse(
        r#", "stream.log.start.offsets": "0:15, 3:0", "topic.consumption.rate.limit": "0.5", "stream.log.strict": "true",
            "stream.log.archive": true, "stream.log.archive.retention": "90d12h""#,
    );
    assert_eq!(stream.start_offsets, BTreeMap::from([(0, 15), (3, 0)]));
    assert_eq!((stream.rate_limit, stream.strict), (Some(500), true));
    let plain = parse(r#", "topic.consumption.rate.limit": 0"#);
    assert_eq!((plain.rate_limit, plain.strict), (None, false));
    assert_eq!((stream.archive, plain.archive), (true, false));
    let kept = 90 * day as u64 + 43_200_000;
    assert_eq!(stream.archive_retention_ms, Some(kept));
    assert_eq!(plain.archive_retention_ms, None);
    for wrong in ["0", "soon", "9223372036854775808"] {
        let json = format!(r#"{{"streamType": "log", "stream.log.archive.retention": "{wrong}"}}"#);
        assert!(stream_table(&json).is_err(), "{wrong}");
    }

    let two = r#"{"streamType": "log"}, {"streamType": "log", "stream.log.topic.name": "other"}"#;
    let (config, _) = stream_table(two).unwrap();
    let topics: Vec<&str> = config.streams.iter().map(|s| s.topic.as_str()).collect();
    assert_eq!(topics, ["t", "other"]);
    let error = stream_table(r#"{"streamType": "log"}, {"streamType": "log"}"#).unwrap_err();
    assert!(
        error.message().contains("the topic t is there twice"),
        "{error}"
    );
}

#[test]
fn fields_of_messages_may_be_columns_by_their_names_only() {
    for (name, good) in [
        ("__key", true),
        ("__header$x", true),
        ("__metadata$offset", true),
        ("__metadata$size", false),
        ("__header$", false),
        ("a$b", false),
    ] {
        let json = format!(
            r#"{{"schemaName": "t", "dimensionFieldSpecs": [{{"name": "{name}", "dataType": "STRING"}}]}}"#
        );
        assert_eq!(parse_schema(&json, 1).is_ok(), good, "{name}");
    }
}

#[test]
fn complex_types_are_read() {
    let (config, warnings) = small_table(
        r#", "ingestionConfig": {"complexTypeConfig": {"fieldsToUnnest": ["b.c", "b"], "delimiter": "/",
            "collectionNotUnnestedToJson": "all", "prefixesToRename": {"x/": ""}}}"#,
    )
    .unwrap();
    assert_eq!(warnings, []);
    let complex = config.complex_types.unwrap();
    assert_eq!(complex.delimiter, "/");
    assert_eq!(complex.unnest, ["b", "b.c"]);
    assert_eq!(complex.to_json, ArraysToJson::All);
    for wrong in [
        r#"{"delimiter": ""}"#,
        r#"{"fieldsToUnnest": ["a", "a"]}"#,
        r#"{"collectionNotUnnestedToJson": "SOME"}"#,
        r#"{"prefixesToRename": {"": "x"}}"#,
    ] {
        let rest = format!(r#", "ingestionConfig": {{"complexTypeConfig": {wrong}}}"#);
        let error = small_table(&rest).expect_err(wrong);
        assert!(
            error
                .message()
                .contains("ingestionConfig.complexTypeConfig"),
            "{error}"
        );
    }
}

#[test]
fn wrong_streams_are_refused() {
    let kafka = |rest: &str| {
        format!(
            r#"{{"streamType": "kafka", "stream.kafka.topic.name": "x", "stream.kafka.broker.list": "b" {rest}}}"#
        )
    };
    for (json, part) in [
        (r#"{"streamType": "kinesis"}"#.to_owned(), "not supported"),
        (
            r#"{"streamType": "kafka", "stream.kafka.topic.name": "x"}"#.to_owned(),
            "stream.kafka.broker.list is missing",
        ),
        (
            r#"{"streamType": "log", "stream.log.topic.name": "../x"}"#.to_owned(),
            "stream.log.topic.name",
        ),
        (
            r#"{"streamType": "log", "stream.log.partitions": 0}"#.to_owned(),
            "from 1 to 1024",
        ),
        (
            kafka(
                r#", "stream.kafka.decoder.class.name": "a.b.KafkaConfluentSchemaRegistryAvroMessageDecoder""#,
            ),
            "schema.registry.rest.url (where the registry is) is missing",
        ),
        (
            kafka(
                r#", "stream.kafka.decoder.class.name": "KafkaConfluentSchemaRegistryAvroMessageDecoder", "stream.kafka.decoder.prop.schema.registry.rest.url": "https://r""#,
            ),
            "a schema registry over https",
        ),
        (
            kafka(r#", "stream.kafka.decoder.class.name": "a.b.ProtoBufMessageDecoder""#),
            "protoClassName",
        ),
        (
            kafka(
                r#", "stream.kafka.decoder.class.name": "ProtoBufMessageDecoder", "stream.kafka.decoder.prop.protoClassName": "x", "stream.kafka.decoder.prop.descriptorSet": "//8=""#,
            ),
            "not a descriptor set",
        ),
        (
            kafka(
                r#", "stream.kafka.decoder.class.name": "CSVMessageDecoder", "stream.kafka.decoder.prop.header": "a,b,a""#,
            ),
            "the field 'a' is empty or there twice",
        ),
        (
            kafka(
                r#", "stream.kafka.decoder.class.name": "CSVMessageDecoder", "stream.kafka.decoder.prop.delimiter": "\"" "#,
            ),
            "are not different characters",
        ),
        (
            kafka(r#", "stream.kafka.decoder.prop.compression": "brotli""#),
            "the compression 'brotli'",
        ),
        (
            kafka(r#", "stream.kafka.start.offsets": "0:1,0:2""#),
            "the partition 0 is there twice",
        ),
        (
            kafka(r#", "stream.kafka.start.offsets": "0-1""#),
            "partitions with their first offsets",
        ),
        (
            kafka(r#", "topic.consumption.rate.limit": "fast""#),
            "a number of messages a second",
        ),
        (
            kafka(r#", "stream.kafka.decoder.class.name": "a.b.SimpleAvroMessageDecoder""#),
            "decoder.prop.schema",
        ),
        (
            kafka(r#", "realtime.segment.flush.threshold.time": "soon""#),
            "threshold.time",
        ),
        (
            kafka(r#", "realtime.segment.flush.threshold.segment.size": "12Q""#),
            "segment.size",
        ),
        (
            kafka(r#", "stream.kafka.consumer.prop.auto.offset.reset": "yesterday""#),
            "not supported",
        ),
        (
            kafka(r#", "ssl.truststore.location": "/x.jks""#),
            "ssl.ca.location",
        ),
    ] {
        let error = stream_table(&json).expect_err(&json);
        assert!(error.message().contains(part), "{json}: {error}");
    }
    let error = small_table("")
        .map(|_| ())
        .and(parse_table(
            r#"{"tableName": "t", "tableType": "REALTIME"}"#,
            &small_schema(),
        ))
        .unwrap_err();
    assert!(error.message().contains("needs a stream"), "{error}");
}

proptest! {
    #[test]
    fn no_document_makes_the_readers_panic(cut in 0_usize..3000, text in "\\PC{0,40}", at in 0_usize..3000) {
        let schema = small_schema();
        for document in [SCHEMA, OFFLINE, REALTIME] {
            let mut broken = document.to_owned();
            if broken.is_char_boundary(cut.min(broken.len())) {
                broken.truncate(cut.min(broken.len()));
            }
            let _ = parse_table(&broken, &schema);
            let mut odd = document.to_owned();
            odd.insert_str(at.min(odd.len()), &text);
            let _ = parse_schema(&odd, 1);
            let _ = parse_table(&odd, &schema);
        }
    }
}

#[test]
fn star_trees_are_read_and_what_they_cannot_hold_is_named() {
    let schema = r#"{"schemaName": "t", "dimensionFieldSpecs": [
        {"name": "a", "dataType": "STRING"}, {"name": "b", "dataType": "INT"},
        {"name": "list", "dataType": "INT", "singleValueField": false}],
        "metricFieldSpecs": [{"name": "m", "dataType": "LONG"}, {"name": "d", "dataType": "BIG_DECIMAL"}]}"#;
    let schema = Arc::new(parse_schema(schema, 1).unwrap().0);
    let parse = |trees: &str| {
        let json = format!(
            r#"{{"tableName": "t", "tableType": "OFFLINE", "tableIndexConfig": {{"starTreeIndexConfigs": [{trees}]}}}}"#
        );
        parse_table(&json, &schema)
    };
    let (config, warnings) = parse(
        r#"{"dimensionsSplitOrder": ["b", "a"], "skipStarNodeCreationForDimensions": ["a"],
            "functionColumnPairs": ["COUNT__*", "SUM__m", "avg__m", "minMaxRange__b", "DISTINCTCOUNTHLL__a", "SUM__d"], "maxLeafRecords": "7"},
           {"dimensionsSplitOrder": ["a"], "aggregationConfigs": [{"columnName": "m", "aggregationFunction": "MAX", "compressionCodec": "LZ4"}]},
           {"dimensionsSplitOrder": ["list"], "functionColumnPairs": ["COUNT__*"]}"#,
    )
    .unwrap();
    let path = |rest: &str| format!("tableIndexConfig.starTreeIndexConfigs{rest}");
    assert_eq!(
        paths(&warnings),
        [
            path("[0].functionColumnPairs[5]"),
            path("[1].aggregationConfigs[0].compressionCodec"),
            path("[2].dimensionsSplitOrder[0]"),
        ]
    );
    let of = |measure: fn(String) -> StarMeasure, column: &str| measure(column.to_owned());
    assert_eq!(
        config.spec.star_trees,
        [
            StarTreeSpec {
                dimensions: vec!["b".into(), "a".into()],
                skip_star: vec!["a".into()],
                measures: vec![
                    of(StarMeasure::Values, "m"),
                    of(StarMeasure::Sum, "m"),
                    of(StarMeasure::Min, "b"),
                    of(StarMeasure::Max, "b"),
                    of(StarMeasure::Distinct, "a"),
                ],
                leaf_records_max: 7,
            },
            StarTreeSpec {
                dimensions: vec!["a".into()],
                skip_star: Vec::new(),
                measures: vec![of(StarMeasure::Max, "m")],
                leaf_records_max: 10_000,
            },
        ]
    );
    for (tree, part) in [
        (r#"{"dimensionsSplitOrder": []}"#, "1 to 1024 dimensions"),
        (
            r#"{"functionColumnPairs": ["COUNT__*"]}"#,
            "dimensionsSplitOrder",
        ),
        (
            r#"{"dimensionsSplitOrder": ["x"]}"#,
            "[0].dimensionsSplitOrder[0]: no column 'x'",
        ),
        (
            r#"{"dimensionsSplitOrder": ["a", "a"]}"#,
            "[0].dimensionsSplitOrder[1]: the dimension a is there twice",
        ),
        (
            r#"{"dimensionsSplitOrder": ["a"], "skipStarNodeCreationForDimensions": ["b"]}"#,
            "b is no dimension",
        ),
        (
            r#"{"dimensionsSplitOrder": ["a"], "functionColumnPairs": ["SUM m"]}"#,
            "no pair of a function and a column",
        ),
        (
            r#"{"dimensionsSplitOrder": ["a"], "functionColumnPairs": ["SUM__x"]}"#,
            "no column 'x'",
        ),
        (
            r#"{"dimensionsSplitOrder": ["a"], "maxLeafRecords": -1}"#,
            "maxLeafRecords: a number of records",
        ),
    ] {
        let error = parse(tree).expect_err(tree);
        assert!(error.message().contains(part), "{tree}: {error}");
    }
}

#[test]
fn json_indexes_are_read_wherever_they_stand() {
    let everywhere = [
        r#", "tableIndexConfig": {"jsonIndexColumns": ["a"]}"#,
        r#", "tableIndexConfig": {"jsonIndexConfigs": {"a": {}}}"#,
        r#", "fieldConfigList": [{"name": "a", "indexTypes": ["JSON"]}]"#,
        r#", "fieldConfigList": [{"name": "a", "indexes": {"json": {"maxLevels": -1, "includePaths": null}}}]"#,
    ];
    for rest in everywhere {
        let (config, warnings) = small_table(rest).unwrap();
        assert_eq!(
            config.spec.column("a").json,
            Some(JsonSpec::default()),
            "{rest}"
        );
        assert_eq!(warnings, [], "{rest}");
    }
    let (config, warnings) = small_table(
        r#", "fieldConfigList": [{"name": "a", "indexes": {"json": {"maxLevels": 2, "excludeArray": true, "includePaths": ["$.a.b", "$.c[*]"],
        "excludeFields": ["d"], "indexPaths": ["*.*"], "maxValueLength": 9, "disableCrossArrayUnnest": true, "skipInvalidJson": true, "what": 1}}}]"#,
    )
    .unwrap();
    let texts = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        config.spec.column("a").json,
        Some(JsonSpec {
            levels_max: Some(2),
            exclude_array: true,
            include_paths: texts(&["$.a.b", "$.c[*]"]),
            exclude_paths: Vec::new(),
            exclude_fields: texts(&["d"]),
            index_paths: texts(&["*.*"]),
            value_chars_max: Some(9),
        })
    );
    assert_eq!(
        paths(&warnings),
        [
            "fieldConfigList[0].indexes.json.disableCrossArrayUnnest",
            "fieldConfigList[0].indexes.json.what"
        ]
    );
    let (config, _) = small_table(
        r#", "fieldConfigList": [{"name": "a", "indexes": {"json": {"disabled": true, "maxLevels": "x"}}}]"#,
    )
    .unwrap();
    assert_eq!(config.spec.column("a").json, None);
    for (rest, part) in [
        (
            r#", "tableIndexConfig": {"jsonIndexColumns": ["list"]}"#,
            "tableIndexConfig.jsonIndexColumns[0]: a JSON index needs",
        ),
        (
            r#", "fieldConfigList": [{"name": "ms", "indexTypes": ["JSON"]}]"#,
            "fieldConfigList[0].indexTypes[0]: a JSON index needs",
        ),
        (
            r#", "tableIndexConfig": {"jsonIndexConfigs": {"a": {"includePaths": ["$.a[0]"]}}}"#,
            "jsonIndexConfigs.a.includePaths[0]",
        ),
        (
            r#", "tableIndexConfig": {"jsonIndexConfigs": {"a": {"excludePaths": ["$..a"]}}}"#,
            "jsonIndexConfigs.a.excludePaths[0]",
        ),
        (
            r#", "tableIndexConfig": {"jsonIndexConfigs": {"a": {"maxLevels": "many"}}}"#,
            "jsonIndexConfigs.a.maxLevels",
        ),
        (
            r#", "tableIndexConfig": {"jsonIndexConfigs": {"a": {"includePaths": ["$.a"], "excludePaths": ["$.b"]}}}"#,
            "exclude each other",
        ),
    ] {
        let error = small_table(rest).unwrap_err().to_string();
        assert!(error.contains(part), "{rest}: {error}");
    }
}

fn keyed_table(schema: &str, rest: &str) -> Result<(TableConfig, Vec<ConfigWarning>)> {
    let (schema, _) = parse_schema(
        &format!(
            r#"{{"schemaName": "t", {schema}"dimensionFieldSpecs": [{{"name": "k", "dataType": "STRING"}},
                {{"name": "gone", "dataType": "BOOLEAN"}}, {{"name": "tags", "dataType": "INT", "singleValueField": false}}],
            "metricFieldSpecs": [{{"name": "n", "dataType": "LONG"}}, {{"name": "f", "dataType": "FLOAT"}}],
            "dateTimeFieldSpecs": [{{"name": "at", "dataType": "LONG", "format": "1:MILLISECONDS:EPOCH", "granularity": "1:DAYS"}}]}}"#
        ),
        1,
    )?;
    let json = format!(
        r#"{{"tableName": "t", "tableType": "REALTIME", "segmentsConfig": {{"timeColumnName": "at"}}, {rest},
        "ingestionConfig": {{"streamIngestionConfig": {{"streamConfigMaps": [{{"streamType": "log", "stream.log.topic.name": "t"}}]}}}}}}"#
    );
    parse_table(&json, &Arc::new(schema))
}

const KEY: &str = r#""primaryKeyColumns": ["k"], "#;

#[test]
fn keys_and_what_becomes_of_their_rows_are_read() {
    let (table, warnings) = keyed_table(
        KEY,
        r#""upsertConfig": {"mode": "PARTIAL", "comparisonColumns": ["n"], "deleteRecordColumn": "gone", "metadataTTL": 60000,
            "deletedKeysTTL": "5.5", "hashFunction": "MURMUR3", "defaultPartialUpsertStrategy": "IGNORE",
            "partialUpsertStrategies": {"tags": "UNION", "f": "INCREMENT", "at": "max"}}"#,
    )
    .unwrap();
    assert_eq!(paths(&warnings), ["upsertConfig.hashFunction"]);
    let keys = table.keys.unwrap();
    assert_eq!(
        (
            keys.key.as_slice(),
            keys.comparison.as_deref(),
            keys.deleted.as_deref()
        ),
        (&["k".to_owned()][..], Some("n"), Some("gone"))
    );
    assert_eq!((keys.kept, keys.deleted_kept), (Some(60_000), Some(6)));
    let KeyRule::Merged(merging) = &keys.rule else {
        panic!("{:?}", keys.rule)
    };
    let of = ["tags", "f", "at", "gone"].map(|column| merging.of(column));
    assert_eq!(
        of,
        [
            MergeStrategy::Union,
            MergeStrategy::Increment,
            MergeStrategy::Max,
            MergeStrategy::Ignore
        ]
    );
    let full = r#""upsertConfig": {"mode": "full"}"#;
    let keys = keyed_table(KEY, full).unwrap().0.keys.unwrap();
    assert_eq!(
        (keys.comparison.as_deref(), &keys.rule),
        (Some("at"), &KeyRule::Newest)
    );
    let dedup = r#""dedupConfig": {"dedupEnabled": true, "metadataTTL": 10}, "upsertConfig": {"mode": "NONE"}"#;
    let keys = keyed_table(KEY, dedup).unwrap().0.keys.unwrap();
    assert_eq!(
        (keys.comparison.as_deref(), &keys.rule, keys.kept),
        (Some("at"), &KeyRule::First, Some(10))
    );
}

#[test]
fn keys_that_make_no_sense_are_refused_with_their_path() {
    for (schema, rest, part) in [
        (
            "",
            r#""upsertConfig": {"mode": "FULL"}"#,
            "primaryKeyColumns",
        ),
        (
            KEY,
            r#""upsertConfig": {}, "dedupConfig": {"dedupEnabled": true}, "upsertConfig": {"mode": "FULL"}"#,
            "take upsertConfig or dedupConfig out",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "MAYBE"}"#,
            "upsertConfig.mode",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "FULL", "comparisonColumns": ["n", "at"]}"#,
            "more than one comparison column",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "FULL", "comparisonColumns": ["tags"]}"#,
            "upsertConfig.comparisonColumns[0]",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "FULL", "deleteRecordColumn": "n"}"#,
            "BOOLEAN",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "FULL", "comparisonColumns": ["f"], "metadataTTL": 5}"#,
            "upsertConfig.metadataTTL",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "PARTIAL", "partialUpsertStrategies": {"k": "IGNORE"}}"#,
            "part of the key",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "PARTIAL", "partialUpsertStrategies": {"n": "APPEND"}}"#,
            "multi-value",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "PARTIAL", "partialUpsertStrategies": {"tags": "INCREMENT"}}"#,
            "INCREMENT",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "PARTIAL", "defaultPartialUpsertStrategy": "UNION"}"#,
            "columns of all types",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "FULL", "outOfOrderRecordColumn": "gone"}"#,
            "upsertConfig.outOfOrderRecordColumn",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "FULL"}, "tableIndexConfig": {"sortedColumn": ["n"]}"#,
            "tableIndexConfig.sortedColumn",
        ),
        (
            KEY,
            r#""upsertConfig": {"mode": "FULL"}, "task": {"taskTypeConfigsMap": {"RealtimeToOfflineSegmentsTask": {}}}"#,
            "RealtimeToOfflineSegmentsTask",
        ),
    ] {
        let error = keyed_table(schema, rest).expect_err(rest);
        assert!(error.message().contains(part), "{rest}: {error}");
    }
}
