mod protobuf;
mod registry;

use super::*;
use crate::config::{parse_schema, parse_table};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type, TimestampMillisecondType};
use std::sync::Arc;

fn config(decoder: &str) -> TableConfig {
    let schema = r#"{"schemaName": "t",
        "dimensionFieldSpecs": [{"name": "name", "dataType": "STRING"}, {"name": "n", "dataType": "INT"},
            {"name": "tags", "dataType": "STRING", "singleValueField": false}, {"name": "doc", "dataType": "JSON"}],
        "metricFieldSpecs": [{"name": "price", "dataType": "BIG_DECIMAL", "precision": 38, "scale": 6}],
        "dateTimeFieldSpecs": [
            {"name": "day", "dataType": "INT", "format": "1:DAYS:EPOCH", "granularity": "1:DAYS"},
            {"name": "ts", "dataType": "TIMESTAMP", "format": "TIMESTAMP", "granularity": "1:DAYS"}]}"#;
    let schema = Arc::new(parse_schema(schema, 1).unwrap().0);
    let table = format!(
        r#"{{"tableName": "t", "tableType": "REALTIME", "segmentsConfig": {{"timeColumnName": "day"}},
        "ingestionConfig": {{"streamIngestionConfig": {{"streamConfigMaps": [{{"streamType": "log" {decoder}}}]}},
        "transformConfigs": [{{"columnName": "ts", "transformFunction": "fromEpochDays(day)"}}]}}}}"#
    );
    parse_table(&table, &schema).unwrap().0
}

fn message(offset: u64, payload: impl Into<Bytes>) -> Message {
    Message {
        offset,
        key: None,
        payload: payload.into(),
        timestamp_ms: 0,
        headers: Vec::new(),
    }
}

fn decoder_of(config: &TableConfig) -> Decoder {
    Decoder::new(config, &config.streams[0], 3, None).unwrap()
}

#[test]
fn good_rows_of_a_batch_are_kept_and_bad_ones_come_back_with_their_reason() {
    let mut decoder = decoder_of(&config(""));
    let good = r#"{"name": "a\"b", "n": 1, "day": 16092, "price": 12345678901234567890.123456, "tags": ["x", null, "y"], "extra": {"deep": [1, {"a": 2}]}}"#;
    let other = r#"{"day": "16093", "tags": "solo", "n": null, "doc": {"k": [1, 2]}, "name": 7}"#;
    let bad = [
        ("not json", "not JSON"),
        ("", "the message is empty"),
        (
            r#"{"name": "half", "n": 99999999999, "day": 1}"#,
            "column n: 99999999999 is outside the range of INT",
        ),
        (
            r#"{"name": ["a"], "day": 1}"#,
            "column name: [\\\"a\\\"] is a list",
        ),
        (r#"{"name": "no time"}"#, "column day: the time is null"),
        (r#"{"day": 99999999}"#, "column ts: the time"),
        (r#"{"day": 1} {"day": 2}"#, "unexpected text"),
        (r#"{"day": 1, "doc": "no document"}"#, "column doc"),
        (r#"{"day": 01}"#, "leading zero"),
        (r#"[{"day": 1}]"#, "expected a JSON object"),
        (r#"{"day": 1, "price": 0.0000001}"#, "column price"),
        (r#"{"day": 1, "skipped": [tru]}"#, "not JSON"),
    ];
    let mut messages = vec![message(10, good)];
    messages.extend(
        bad.iter()
            .enumerate()
            .map(|(i, (text, _))| message(11 + i as u64, *text)),
    );
    messages.push(message(100, other));
    messages.push(message(101, Bytes::from_static(b"{\"name\": \"\xff\"}")));
    let decoded = decoder.decode(&messages);
    assert_eq!(decoded.offsets, [10, 100]);
    assert_eq!(decoded.rejected.len(), bad.len() + 1);
    for (rejected, (text, part)) in decoded.rejected.iter().zip(&bad) {
        assert!(
            rejected.reason.contains(part),
            "{text}: {}",
            rejected.reason
        );
        assert_eq!(rejected.payload, text.as_bytes());
    }
    let batch = &decoded.batch;
    assert_eq!(batch.num_rows(), 2);
    let names = batch["name"].as_string::<i32>();
    assert_eq!((names.value(0), names.value(1)), ("a\"b", "7"));
    let prices = batch["price"].as_primitive::<Decimal128Type>();
    assert_eq!(prices.value(0), 12_345_678_901_234_567_890_123_456);
    assert!(prices.is_null(1));
    let tags = batch["tags"].as_list::<i32>();
    assert_eq!(
        (
            tags.value(0).len(),
            tags.value(0).null_count(),
            tags.value(1).len()
        ),
        (3, 1, 1)
    );
    assert_eq!(
        batch["ts"]
            .as_primitive::<TimestampMillisecondType>()
            .value(1),
        16_093 * 86_400_000
    );
    assert_eq!(batch["doc"].as_string::<i32>().value(1), r#"{"k": [1, 2]}"#);
    assert_eq!(batch["n"].as_primitive::<Int32Type>().null_count(), 1);

    let again = decoder.decode(&[message(200, other)]);
    assert_eq!((again.batch.num_rows(), again.offsets), (1, vec![200]));
}

#[test]
fn a_message_above_the_limit_is_rejected_unread() {
    let mut decoder = decoder_of(&config(r#", "stream.log.message.bytes.max": 2048"#));
    let decoded = decoder.decode(&[message(1, vec![b' '; 50 << 20])]);
    assert!(
        decoded.rejected[0]
            .reason
            .contains("longer than the limit of 2048"),
        "{}",
        decoded.rejected[0].reason
    );
    let deep = format!(
        r#"{{"day": 1, "x": {}1{}}}"#,
        "[".repeat(1_000),
        "]".repeat(1_000)
    );
    let mut decoder = decoder_of(&config(""));
    assert!(
        decoder.decode(&[message(1, deep)]).rejected[0]
            .reason
            .contains("nested")
    );
}

#[test]
fn avro_messages_are_decoded_by_the_schema_in_the_config() {
    let schema = r#"{"type": "record", "name": "r", "fields": [
        {"name": "unused", "type": "double"},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "n", "type": ["null", "long"]},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}},
        {"name": "tags", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "doc", "type": {"type": "map", "values": "int"}}]}"#;
    let escaped = serde_json::to_string(schema).unwrap();
    let config = config(&format!(
        r#", "stream.log.decoder.class.name": "x.SimpleAvroMessageDecoder", "stream.log.decoder.prop.schema": {escaped}"#
    ));
    let avro = AvroSchema::parse_str(schema).unwrap();
    use apache_avro::types::Value;
    let datum = |n: i64| {
        let record = Value::Record(vec![
            ("unused".into(), Value::Double(0.5)),
            ("day".into(), Value::Date(16_092)),
            ("n".into(), Value::Union(1, Box::new(Value::Long(n)))),
            (
                "price".into(),
                Value::Decimal(apache_avro::Decimal::from([0xff, 0x38])),
            ),
            (
                "tags".into(),
                Value::Array(vec![
                    Value::Union(1, Box::new(Value::String("x".into()))),
                    Value::Union(0, Box::new(Value::Null)),
                ]),
            ),
            (
                "doc".into(),
                Value::Map(
                    [
                        ("b".to_owned(), Value::Int(2)),
                        ("a".to_owned(), Value::Int(1)),
                    ]
                    .into(),
                ),
            ),
        ]);
        apache_avro::to_avro_datum(&avro, record).unwrap()
    };
    let mut long = datum(2);
    long.push(0);
    let mut decoder = decoder_of(&config);
    let decoded = decoder.decode(&[
        message(1, datum(7)),
        message(2, datum(1 << 40)),
        message(3, long),
        message(4, vec![0xff; 40]),
    ]);
    assert_eq!(decoded.offsets, [1]);
    assert_eq!(
        decoded
            .rejected
            .iter()
            .map(|r| r.offset)
            .collect::<Vec<_>>(),
        [2, 3, 4]
    );
    let batch = decoded.batch;
    assert_eq!(batch["day"].as_primitive::<Int32Type>().value(0), 16_092);
    assert_eq!(
        batch["price"].as_primitive::<Decimal128Type>().value(0),
        -200_000
    );
    assert_eq!(batch["doc"].as_string::<i32>().value(0), r#"{"a":1,"b":2}"#);
    assert_eq!(batch["tags"].as_list::<i32>().value(0).null_count(), 1);
    assert!(
        batch
            .column_by_name("n")
            .unwrap()
            .as_primitive_opt::<Int64Type>()
            .is_none()
    );
}

#[test]
fn an_avro_schema_that_contains_itself_is_refused() {
    let recursive = r#"{"type": "record", "name": "node", "fields": [{"name": "next", "type": ["null", "node"]}]}"#;
    assert!(
        check_avro_schema(recursive)
            .unwrap_err()
            .contains("contains itself")
    );
    assert!(check_avro_schema("{").is_err());
    assert!(check_avro_schema("\"int\"").is_err());
}

#[test]
fn rows_that_the_filter_leaves_out_are_counted_and_what_it_fails_on_is_rejected() {
    let table = config("");
    let json = table.json.replace(
        r#""ingestionConfig": {"#,
        r#""ingestionConfig": {"filterConfig": {"filterFunction": "n > 5 AND kind <> 'kept'"}, "#,
    );
    let table = parse_table(&json, &table.spec.schema).unwrap().0;
    let mut decoder = decoder_of(&table);
    let decoded = decoder.decode(&[
        message(1, r#"{"day": 1, "n": 6, "kind": "x"}"#),
        message(2, r#"{"day": 1, "n": 6, "kind": "kept"}"#),
        message(3, r#"{"day": 1, "n": 6}"#),
        message(4, r#"{"day": 1, "n": "many", "kind": "x"}"#),
        message(5, r#"{"n": 6, "kind": "x"}"#),
    ]);
    // The last one has no time, but is left out before that matters.
    assert_eq!(
        (decoded.offsets, decoded.read, decoded.filtered),
        (vec![2, 3], 5, 2)
    );
    assert_eq!((decoded.batch.num_rows(), decoded.unnested), (2, 0));
    assert_eq!(decoded.rejected.len(), 1);
    assert!(
        decoded.rejected[0]
            .reason
            .contains("the filter function: n: 'many'"),
        "{:?}",
        decoded.rejected
    );
}

fn with(stream: &str, ingestion: &str) -> TableConfig {
    let table = config(stream);
    let json = table.json.replace(
        r#""ingestionConfig": {"#,
        &format!(r#""ingestionConfig": {{{ingestion} "#),
    );
    parse_table(&json, &table.spec.schema).unwrap().0
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch[column].as_string::<i32>();
    column.iter().map(|v| v.map(str::to_owned)).collect()
}

#[test]
fn all_rows_of_a_message_are_in_or_it_is_rejected() {
    let table = with(
        "",
        r#""complexTypeConfig": {"fieldsToUnnest": ["items"], "prefixesToRename": {"items.": ""}},
           "filterConfig": {"filterFunction": "name = 'skip'"},"#,
    );
    let mut decoder = decoder_of(&table);
    let decoded = decoder.decode(&[
        message(
            1,
            r#"{"day": 1, "items": [{"name": "a", "n": 1}, {"name": "b", "n": 2}, {"name": "skip"}]}"#,
        ),
        message(
            2,
            r#"{"day": 1, "items": [{"name": "c"}, {"name": "skip"}, {"name": "d", "n": "many"}]}"#,
        ),
        message(3, r#"{"day": 1, "items": []}"#),
        message(
            4,
            r#"{"day": 1, "items": [{"name": "skip"}, {"name": "skip"}]}"#,
        ),
        message(5, r#"{"day": 1, "name": "e"}"#),
    ]);
    let name = |v: &str| Some(v.to_owned());
    assert_eq!(
        texts(&decoded.batch, "name"),
        [name("a"), name("b"), None, name("e")]
    );
    assert_eq!(decoded.offsets, [1, 1, 3, 5]);
    // read + unnested = rows + filtered + rejected
    assert_eq!(
        (decoded.read, decoded.unnested, decoded.filtered),
        (5, 3, 3)
    );
    assert_eq!(decoded.rejected.len(), 1);
    assert_eq!(decoded.rejected[0].offset, 2);
    assert!(decoded.rejected[0].reason.contains("column n: 'many'"));
    assert_eq!(decoded.stopped, None);
}

#[test]
fn a_message_of_too_many_rows_is_rejected_and_many_of_large_ones_are_decoded_in_parts() {
    let table = with(
        "",
        r#""complexTypeConfig": {"fieldsToUnnest": ["a", "b"]},"#,
    );
    let mut decoder = decoder_of(&table);
    let ones = |count| vec!["1"; count].join(",");
    let product = format!(r#"{{"day": 1, "a": [{0}], "b": [{0}]}}"#, ones(300));
    let decoded = decoder.decode(&[message(1, product)]);
    let reason = &decoded.rejected[0].reason;
    assert!(reason.contains("more than 65536 rows"), "{reason}");
    let long = "x".repeat(100_000);
    let wide = |rows| format!(r#"{{"day": 1, "name": "{long}", "a": [{}]}}"#, ones(rows));
    let decoded = decoder.decode(&[message(1, wide(1_000))]);
    let reason = &decoded.rejected[0].reason;
    assert!(
        reason.contains("rows of more than 67108864 bytes"),
        "{reason}"
    );
    assert_eq!(decoded.batch.num_rows(), 0);
    let messages: Vec<Message> = (0..5).map(|at| message(at, wide(300))).collect();
    let (mut done, mut rows, mut parts) = (0, 0, 0);
    while done < messages.len() {
        let decoded = decoder.decode(&messages[done..]);
        assert!(decoded.read > 0 && decoded.rejected.is_empty());
        done += decoded.read;
        rows += decoded.batch.num_rows();
        parts += 1;
    }
    assert_eq!((rows, parts), (1_500, 2));
}

#[test]
fn a_strict_stream_stops_before_the_first_wrong_message() {
    let mut decoder = decoder_of(&config(r#", "stream.log.strict": "true""#));
    let messages = [
        message(1, r#"{"day": 1}"#),
        message(2, "rubbish"),
        message(3, r#"{"day": 1}"#),
    ];
    let decoded = decoder.decode(&messages);
    assert_eq!((decoded.offsets, decoded.read), (vec![1], 1));
    assert!(decoded.rejected.is_empty());
    let Some(Stopped::Wrong(wrong)) = decoded.stopped else {
        panic!("{:?}", decoded.stopped);
    };
    assert_eq!((wrong.offset, &*wrong.payload), (2, &b"rubbish"[..]));
    assert!(wrong.reason.contains("not JSON"));
    // It stays there.
    let again = decoder.decode(&messages[1..]);
    assert_eq!((again.read, again.batch.num_rows()), (0, 0));
}

#[test]
fn what_a_message_says_of_itself_are_fields() {
    let schema = r#"{"schemaName": "t", "dimensionFieldSpecs": [
        {"name": "__key", "dataType": "STRING"}, {"name": "__header$trace", "dataType": "BYTES"},
        {"name": "__metadata$offset", "dataType": "LONG"}, {"name": "__metadata$partition", "dataType": "INT"},
        {"name": "__metadata$recordTimestamp", "dataType": "TIMESTAMP"}, {"name": "source", "dataType": "STRING"}]}"#;
    let schema = Arc::new(parse_schema(schema, 1).unwrap().0);
    let table = |populate: bool| {
        let json = format!(
            r#"{{"tableName": "t", "tableType": "REALTIME", "ingestionConfig": {{
            "streamIngestionConfig": {{"streamConfigMaps": [{{"streamType": "log", "stream.log.metadata.populate": "{populate}"}}]}},
            "transformConfigs": [{{"columnName": "source", "transformFunction": "\"__header$app\" || '/' || __key"}}]}}}}"#
        );
        parse_table(&json, &schema).unwrap()
    };
    let (config, warnings) = table(true);
    assert_eq!(warnings, []);
    let full = Message {
        key: Some(Bytes::from_static(b"k")),
        timestamp_ms: 7,
        headers: vec![
            ("app".into(), Bytes::from_static(b"old")),
            ("trace".into(), Bytes::from_static(b"\xff\x00")),
            ("app".into(), Bytes::from_static(b"new")),
        ],
        ..message(5, r#"{"__key": "forged", "__metadata$offset": 99}"#)
    };
    let bad = Message {
        key: Some(Bytes::from_static(b"\xff")),
        ..message(6, "{}")
    };
    let mut decoder = decoder_of(&config);
    let decoded = decoder.decode(&[full.clone(), bad, message(7, "{}")]);
    let batch = decoded.batch;
    assert_eq!(texts(&batch, "__key"), [Some("k".to_owned()), None]);
    assert_eq!(texts(&batch, "source"), [Some("new/k".to_owned()), None]);
    let trace = batch["__header$trace"].as_binary::<i32>();
    assert_eq!(trace.value(0), b"\xff\x00");
    let offsets = batch["__metadata$offset"].as_primitive::<Int64Type>();
    assert_eq!(offsets.values(), &[5, 7]);
    let partitions = batch["__metadata$partition"].as_primitive::<Int32Type>();
    assert_eq!(partitions.values(), &[3, 3]);
    let times = batch["__metadata$recordTimestamp"].as_primitive::<TimestampMillisecondType>();
    assert_eq!((times.value(0), times.is_null(1)), (7, true));
    let reason = &decoded.rejected[0].reason;
    assert!(
        reason.contains("the message's key is not UTF-8"),
        "{reason}"
    );

    let (config, warnings) = table(false);
    assert!(
        warnings.iter().any(|w| w.path == "schema.__key"),
        "{warnings:?}"
    );
    let batch = decoder_of(&config).decode(&[full]).batch;
    // Then they are fields as any other.
    assert_eq!(texts(&batch, "__key"), [Some("forged".to_owned())]);
}

#[test]
fn csv_messages_are_rows() {
    let mut decoder = decoder_of(&config(
        r#", "stream.log.decoder.class.name": "x.CSVMessageDecoder", "stream.log.decoder.prop.header": "day|name|tags|n",
        "stream.log.decoder.prop.delimiter": "|", "stream.log.decoder.prop.multiValueDelimiter": "+", "stream.log.decoder.prop.nullStringValue": "-""#,
    ));
    let decoded = decoder.decode(&[
        message(1, "1|\"a|b\"|x+y|7"),
        message(2, "1|-||"),
        message(3, "1|a"),
        message(4, "1|a||x"),
    ]);
    assert_eq!(decoded.offsets, [1, 2]);
    let names = texts(&decoded.batch, "name");
    assert_eq!(names, [Some("a|b".to_owned()), None]);
    let tags = decoded.batch["tags"].as_list::<i32>();
    assert_eq!((tags.value(0).len(), tags.is_null(1)), (2, true));
    let reasons: Vec<&str> = (decoded.rejected.iter())
        .map(|r| r.reason.as_str())
        .collect();
    assert!(
        reasons[0].contains("has 2 fields, the header 4"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("column n: 'x'"), "{reasons:?}");
}

#[test]
fn compressed_messages_are_decompressed_up_to_the_limit() {
    let mut decoder = decoder_of(&config(
        r#", "stream.log.decoder.prop.compression": "zstd", "stream.log.message.bytes.max": 2048"#,
    ));
    let pack = |name: &str| {
        let text = format!(r#"{{"day": 1, "name": "{name}"}}"#);
        zstd::encode_all(text.as_bytes(), 1).unwrap()
    };
    let decoded = decoder.decode(&[
        message(1, pack("a")),
        message(2, pack(&"x".repeat(1 << 20))),
        message(3, r#"{"day": 1, "name": "plain"}"#),
    ]);
    assert_eq!(decoded.offsets, [1]);
    let reasons: Vec<&str> = (decoded.rejected.iter())
        .map(|r| r.reason.as_str())
        .collect();
    assert!(
        reasons[0].contains("longer than the limit of 2048 when it is decompressed"),
        "{reasons:?}"
    );
    assert!(reasons[1].contains("not zstd"), "{reasons:?}");
}

#[test]
fn no_bytes_make_a_decoder_panic_and_each_message_is_accounted_for() {
    use proptest::prelude::*;
    let avro = r#"{"type": "record", "name": "r", "fields": [{"name": "day", "type": "int"}, {"name": "tags", "type": {"type": "array", "items": "string"}}]}"#;
    let avro = format!(
        r#", "stream.log.decoder.class.name": "SimpleAvroMessageDecoder", "stream.log.decoder.prop.schema": {}"#,
        serde_json::to_string(avro).unwrap()
    );
    let unnest = r#""complexTypeConfig": {"fieldsToUnnest": ["tags", "doc"]},"#;
    let decoders: Vec<Decoder> = [
        "",
        r#", "stream.log.decoder.class.name": "CSVMessageDecoder""#,
        avro.as_str(),
        r#", "stream.log.decoder.prop.compression": "gzip""#,
        r#", "stream.log.decoder.prop.compression": "zstd""#,
        r#", "stream.log.decoder.prop.compression": "lz4""#,
        r#", "stream.log.decoder.prop.compression": "snappy""#,
    ]
    .iter()
    .flat_map(|stream| {
        [
            decoder_of(&config(stream)),
            decoder_of(&with(stream, unnest)),
        ]
    })
    .collect();
    let decoders = std::cell::RefCell::new(decoders);
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "[{}\\[\\]\":,a-d0-9 \\\\]{0,40}".prop_map(String::into_bytes),
        r#"\{"day": [0-9]{1,3}, "(tags|doc|n)": [\[\]{}0-9a,"]{0,20}\}"#
            .prop_map(String::into_bytes),
    ];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(500));
    runner
        .run(&prop::collection::vec(bytes, 1..4), |payloads| {
            let messages: Vec<Message> =
                (0..).zip(payloads).map(|(at, p)| message(at, p)).collect();
            for decoder in decoders.borrow_mut().iter_mut() {
                let decoded = decoder.decode(&messages);
                prop_assert_eq!(decoded.read, messages.len());
                let rows = decoded.batch.num_rows() as u64
                    + decoded.filtered
                    + decoded.rejected.len() as u64;
                prop_assert_eq!(decoded.read as u64 + decoded.unnested, rows);
                prop_assert_eq!(decoded.offsets.len(), decoded.batch.num_rows());
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_apaches_parser_panics_at_is_no_avro_schema() {
    let refused = check_avro_schema(r#"{"type": "record", "name": "", "fields": []}"#);
    assert!(refused.unwrap_err().contains("not an Avro schema"));
}
