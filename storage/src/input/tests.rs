use super::*;
use crate::config::{parse_schema, parse_table};
use ::parquet::arrow::ArrowWriter;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int32Array, Int64Array, ListArray, StringArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{
    DataType as ArrowType, Decimal128Type, Float64Type, Int32Type, Int64Type,
    TimestampMillisecondType,
};
use std::path::PathBuf;
use std::sync::Arc;
use strandline_proto::ErrorKind;

const DAY: i64 = 86_400_000;

fn config() -> TableConfig {
    let schema = r#"{"schemaName": "t",
        "dimensionFieldSpecs": [
            {"name": "name", "dataType": "STRING"}, {"name": "n", "dataType": "INT"},
            {"name": "flag", "dataType": "BOOLEAN", "defaultNullValue": "true"},
            {"name": "raw", "dataType": "BYTES"}, {"name": "doc", "dataType": "JSON"},
            {"name": "list", "dataType": "LONG", "singleValueField": false}],
        "metricFieldSpecs": [{"name": "price", "dataType": "BIG_DECIMAL", "precision": 20, "scale": 2}, {"name": "x", "dataType": "DOUBLE"}],
        "dateTimeFieldSpecs": [
            {"name": "day", "dataType": "INT", "format": "1:DAYS:EPOCH", "granularity": "1:DAYS"},
            {"name": "ts", "dataType": "TIMESTAMP", "format": "TIMESTAMP", "granularity": "1:DAYS"}]}"#;
    let schema = Arc::new(parse_schema(schema, 1).unwrap().0);
    let table = r#"{"tableName": "t", "tableType": "OFFLINE", "segmentsConfig": {"timeColumnName": "day"},
        "ingestionConfig": {"transformConfigs": [
            {"columnName": "day", "transformFunction": "toEpochDays(event_ms)"},
            {"columnName": "ts", "transformFunction": "fromEpochDays(day)"}]}}"#;
    parse_table(table, &schema).unwrap().0
}

fn file(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

fn read_all(path: &Path, batch_rows: usize) -> Result<RecordBatch> {
    let config = config();
    let mut source = open(path, None, &config, batch_rows)?;
    let mut batches = Vec::new();
    while let Some(batch) = source.next_batch()? {
        assert!(batch.num_rows() <= batch_rows);
        batches.push(batch);
    }
    assert_eq!(
        (source.bytes_read(), source.bytes_total()),
        (source.bytes_total(), std::fs::metadata(path).unwrap().len())
    );
    assert!(source.next_batch()?.is_none());
    let schema = config.spec.schema.arrow();
    let plain = batches.iter().map(|batch| {
        let columns = batch.columns().iter().zip(schema.fields());
        let columns = columns.map(|(a, f)| arrow::compute::cast(a, f.data_type()).unwrap());
        RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
    });
    Ok(arrow::compute::concat_batches(&schema, &plain.collect::<Vec<_>>()).unwrap())
}

fn refused(path: &Path, part: &str) {
    let error = read_all(path, 100).expect_err(part);
    assert!(error.message().contains(part), "{part}: {error}");
    assert!(
        error.message().starts_with(&path.display().to_string()),
        "{error}"
    );
}

fn parquet(columns: &[(&str, ArrayRef)]) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(
        columns
            .iter()
            .map(|(name, array)| (*name, Arc::clone(array))),
    )
    .unwrap();
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    out
}

/// The values that every format's file of two rows gives.
fn check(batch: &RecordBatch) {
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(
        batch["name"].as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("é,1"), None]
    );
    assert_eq!(
        batch["n"]
            .as_primitive::<Int32Type>()
            .iter()
            .collect::<Vec<_>>(),
        [Some(-7), None]
    );
    assert_eq!(
        batch["flag"].as_boolean().iter().collect::<Vec<_>>(),
        [Some(false), Some(true)]
    );
    assert_eq!(batch["raw"].as_binary::<i32>().value(0), [0, 255]);
    assert_eq!(batch["doc"].as_string::<i32>().value(0), r#"{"a":1}"#);
    let list = batch["list"].as_list::<i32>();
    assert_eq!(
        list.value(0).as_primitive::<Int64Type>().values(),
        &[1, 1 << 40]
    );
    assert!(list.is_null(1));
    assert_eq!(
        batch["price"].as_primitive::<Decimal128Type>().value(0),
        1_234_567_890_123_456_750
    );
    assert_eq!(batch["x"].as_primitive::<Float64Type>().value(0), 0.5);
    assert_eq!(
        batch["day"].as_primitive::<Int32Type>().values(),
        &[16_092, 16_093]
    );
    let ts = batch["ts"].as_primitive::<TimestampMillisecondType>();
    assert_eq!(ts.values(), &[16_092 * DAY + 1, 16_093 * DAY]);
}

#[test]
fn parquet_values_are_converted_to_the_schema() {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), Some(1 << 40)]),
        None,
    ]);
    let bytes = parquet(&[
        ("unused", Arc::new(Int32Array::from(vec![1, 2]))),
        ("x", Arc::new(Float32Array::from(vec![Some(0.5), None]))),
        (
            "price",
            Arc::new(
                Decimal128Array::from(vec![Some(12_345_678_901_234_567_500), None])
                    .with_precision_and_scale(30, 3)
                    .unwrap(),
            ),
        ),
        ("name", Arc::new(StringArray::from(vec![Some("é,1"), None]))),
        ("n", Arc::new(Int64Array::from(vec![Some(-7), None]))),
        (
            "flag",
            Arc::new(BooleanArray::from(vec![Some(false), None])),
        ),
        (
            "raw",
            Arc::new(BinaryArray::from(vec![Some([0, 255].as_slice()), None])),
        ),
        (
            "doc",
            Arc::new(StringArray::from(vec![Some(r#"{"a":1}"#), None])),
        ),
        ("list", Arc::new(list)),
        ("day", Arc::new(Date32Array::from(vec![16_092, 16_093]))),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some((16_092 * DAY + 1) * 1_000 + 999),
                None,
            ])),
        ),
    ]);
    let (_folder, path) = file("a.parquet", &bytes);
    for batch_rows in [1, 100] {
        check(&read_all(&path, batch_rows).unwrap());
    }
}

#[test]
fn parquet_text_stays_keyed_where_all_its_pages_are() {
    let rows = 5_000;
    let few: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..rows).map(|i| format!("name {}", i * 7 % 13)),
    ));
    // Too many for a dictionary page.
    let many: ArrayRef = Arc::new(StringArray::from_iter_values(
        (0..rows).map(|i| format!("{i:0500}")),
    ));
    let days: ArrayRef = Arc::new(Int32Array::from_iter_values(0..rows));
    for (names, is_keyed) in [(few, true), (many, false)] {
        let bytes = parquet(&[("name", names.clone()), ("day", days.clone())]);
        let (_folder, path) = file("a.parquet", &bytes);
        let mut source = open(&path, None, &config(), 1_000).unwrap();
        let batch = source.next_batch().unwrap().unwrap();
        let found = matches!(batch["name"].data_type(), ArrowType::Dictionary(..));
        assert_eq!(found, is_keyed);
        let all = read_all(&path, 1_000).unwrap();
        assert_eq!(&all["name"], &names);
    }
}

#[test]
fn json_lines_csv_and_avro_give_the_same_rows() {
    let json = "\u{feff}{\"name\": \"\\u00e9,1\", \"n\": -7.0, \"flag\": \"FALSE\", \"raw\": \"00fF\", \"doc\": {\"a\":1}, \"list\": [1, 1099511627776], \
        \"price\": 12345678901234567.50, \"x\": 5e-1, \"event_ms\": 1390348800001, \"ts\": \"2014-01-22T00:00:00.001Z\"}\n\n  \r\n\
        {\"name\": null, \"event_ms\": 1390435200000, \"day\": null}";
    let (_folder, path) = file("a.json", json.as_bytes());
    check(&read_all(&path, 1).unwrap());

    let csv = "name,n,flag,raw,doc,list,price,x,day,ts,other\n\
        \"é,1\",-7,0,00ff,\"{\"\"a\"\":1}\",1;1099511627776,12345678901234567.5,.5,16092,1390348800001,z\n,,,,,,,,16093,,\n";
    let (_folder, path) = file("a.csv", csv.as_bytes());
    check(&read_all(&path, 100).unwrap());

    let schema = apache_avro::Schema::parse_str(
        r#"{"type": "record", "name": "r", "fields": [
        {"name": "name", "type": ["string", "null"]}, {"name": "n", "type": ["null", "int"]}, {"name": "flag", "type": ["null", "boolean"]},
        {"name": "raw", "type": ["null", {"type": "fixed", "name": "two", "size": 2}]},
        {"name": "doc", "type": ["null", {"type": "record", "name": "inner", "fields": [{"name": "a", "type": "int"}]}]},
        {"name": "list", "type": ["null", {"type": "array", "items": "long"}]},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 1}]},
        {"name": "x", "type": ["null", "float"]}, {"name": "event_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "ts", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]}]}"#,
    )
    .unwrap();
    use apache_avro::types::Value;
    let some = |value: Value| Value::Union(1, Box::new(value));
    let none = || Value::Union(0, Box::new(Value::Null));
    let inner = Value::Record(vec![("a".into(), Value::Int(1))]);
    let price = apache_avro::Decimal::from(123_456_789_012_345_675_i64.to_be_bytes());
    let rows = [
        vec![
            Value::Union(0, Box::new(Value::String("é,1".into()))),
            some(Value::Int(-7)),
            some(Value::Boolean(false)),
            some(Value::Fixed(2, vec![0, 255])),
            some(inner),
            some(Value::Array(vec![Value::Long(1), Value::Long(1 << 40)])),
            some(Value::Decimal(price)),
            some(Value::Float(0.5)),
            Value::TimestampMillis(16_092 * DAY + 1),
            some(Value::TimestampMicros((16_092 * DAY + 1) * 1_000)),
        ],
        vec![
            Value::Union(1, Box::new(Value::Null)),
            none(),
            none(),
            none(),
            none(),
            none(),
            none(),
            none(),
            Value::TimestampMillis(16_093 * DAY),
            none(),
        ],
    ];
    let names = [
        "name", "n", "flag", "raw", "doc", "list", "price", "x", "event_ms", "ts",
    ];
    let mut writer = apache_avro::Writer::new(&schema, Vec::new());
    for row in rows {
        writer
            .append(Value::Record(
                names.iter().map(|n| (*n).to_owned()).zip(row).collect(),
            ))
            .unwrap();
    }
    let bytes = writer.into_inner().unwrap();
    let (_folder, path) = file("a.avro", &bytes);
    check(&read_all(&path, 1).unwrap());
    let (_folder, path) = file("cut.avro", &bytes[..bytes.len() - 20]);
    refused(&path, "row 1: the Avro file is cut short or broken");
    let (_folder, path) = file("header.avro", &bytes[..40]);
    refused(&path, "not a complete Avro file");
}

#[test]
fn a_parquet_file_that_is_cut_or_flipped_is_an_error() {
    let rows: Vec<i64> = (0..20_000).map(|i| i * 7_919 % 1_009).collect();
    let bytes = parquet(&[
        ("day", Arc::new(Int64Array::from(vec![16_092; 20_000]))),
        ("n", Arc::new(Int64Array::from(rows))),
    ]);
    for cut in [0, 3, 100, bytes.len() / 2, bytes.len() - 1] {
        let (_folder, path) = file("cut.parquet", &bytes[..cut]);
        refused(&path, "not a complete Parquet file");
    }
    // A broken page gives an error or, when the bytes still decode, rows; never a panic.
    for at in (4..bytes.len()).step_by(97) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x5a;
        let (_folder, path) = file("flipped.parquet", &flipped);
        let _ = read_all(&path, 1_000);
    }
}

#[test]
fn wrong_values_are_named_by_file_row_and_column() {
    let day = || -> ArrayRef { Arc::new(Int32Array::from(vec![1, 2])) };
    let cases: Vec<(&str, ArrayRef, &str)> = vec![
        (
            "n",
            Arc::new(Int64Array::from(vec![1, 1 << 40])),
            "row 2: column n: 1099511627776 is outside the range of INT",
        ),
        (
            "n",
            Arc::new(StringArray::from(vec!["1", "one"])),
            "row 2: column n: 'one' is not a whole number",
        ),
        (
            "n",
            Arc::new(Float64Array::from(vec![1.0, 2.5])),
            "row 2: column n: 2.5 is not a whole number",
        ),
        (
            "flag",
            Arc::new(Int32Array::from(vec![0, 2])),
            "row 2: column flag: 2 is not a BOOLEAN",
        ),
        (
            "doc",
            Arc::new(StringArray::from(vec!["{}", "{"])),
            "row 2: column doc",
        ),
        (
            "price",
            Arc::new(StringArray::from(vec!["1.25", "1.255"])),
            "row 2: column price: '1.255' does not fit",
        ),
        (
            "price",
            Arc::new(UInt64Array::from(vec![1, u64::MAX])),
            "row 2: column price",
        ),
        (
            "raw",
            Arc::new(StringArray::from(vec!["00", "0g"])),
            "row 2: column raw",
        ),
        (
            "ts",
            Arc::new(Int64Array::from(vec![0, i64::MAX])),
            "row 2: column ts: the time",
        ),
        (
            "list",
            Arc::new(StringArray::from(vec!["5", "x"])),
            "row 2: column list",
        ),
        (
            "name",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
                None,
                Some(vec![Some(1)]),
            ])),
            "row 2: column name: a list of 1",
        ),
    ];
    for (name, array, part) in cases {
        let (_folder, path) = file("w.parquet", &parquet(&[("day", day()), (name, array)]));
        refused(&path, part);
    }
    let (_folder, path) = file(
        "w.parquet",
        &parquet(&[("day", Arc::new(Int32Array::from(vec![Some(1), None])))]),
    );
    refused(&path, "row 2: column day: the time is null");
    let (_folder, path) = file(
        "w.parquet",
        &parquet(&[("day", Arc::new(Int32Array::from(vec![1, 3_000_000])))]),
    );
    refused(&path, "row 2: column ts: the time");
    let (_folder, path) = file(
        "w.parquet",
        &parquet(&[("other", day()), ("columns", day())]),
    );
    refused(
        &path,
        "none of the columns of the table t; it has other, columns",
    );
    let (_folder, path) = file("w.json", b"{\"day\": 1}\n{\"day\": 1,}\n");
    refused(&path, "row 2: not JSON: expected a field name");
    let (_folder, path) = file("w.json", b"{\"day\": 1}\n{\"day\": \"\xff\"}\n");
    refused(&path, "row 2: not UTF-8");
    let (_folder, path) = file("w.csv", b"day,n\n1,1\n2\n");
    refused(&path, "row 2");
    let (_folder, path) = file("w.csv", b"day,day\n1,1\n");
    refused(&path, "names the column day twice");
    let (_folder, path) = file("w.csv", b"a,b\n1,1\n");
    refused(&path, "none of the table's columns");
}

#[test]
fn a_line_without_end_is_an_error_and_not_an_allocation() {
    let mut line = b"{\"day\": 1, \"name\": \"".to_vec();
    line.resize(LINE_BYTES_MAX + 100, b'x');
    let (_folder, path) = file("long.json", &line);
    refused(&path, "row 1: the line is longer than 16777216 bytes");
    let mut quoted = b"day,name\n1,\"".to_vec();
    quoted.resize(LINE_BYTES_MAX * 3, b'x');
    let (_folder, path) = file("long.csv", &quoted);
    refused(&path, "row 1: a row is longer than 16777216 bytes");
}

#[test]
fn a_batch_of_long_lines_ends_by_its_bytes() {
    const LINES: usize = 6;
    let line_bytes = LINE_BYTES_MAX - 1_000;
    let line = format!(
        "{{\"event_ms\": 1400000000000, \"name\": \"{}\"}}\n",
        "x".repeat(line_bytes - 50)
    );
    let (_folder, path) = file("long.json", line.repeat(LINES).as_bytes());
    let mut source = open(&path, None, &config(), 1_000).unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = source.next_batch().unwrap() {
        rows.push(batch.num_rows());
    }
    assert_eq!(rows.iter().sum::<usize>(), LINES);
    let most = BATCH_BYTES_MAX / line.len() + 1;
    assert!(
        rows.len() > 1 && rows.iter().all(|&rows| rows <= most),
        "{rows:?}"
    );
}

#[test]
fn formats_are_known_by_ending_then_by_first_bytes() {
    let (_folder, path) = file("part-0", br#"{"day": 1}"#);
    assert_eq!(read_all(&path, 10).unwrap().num_rows(), 1);
    let (_folder, path) = file(
        "part-0",
        &parquet(&[("day", Arc::new(Int32Array::from(vec![1])))]),
    );
    assert_eq!(read_all(&path, 10).unwrap().num_rows(), 1);
    let (_folder, path) = file("part-0", b"who knows");
    refused(&path, "the format is not known");
    let (folder, path) = file("empty.json", b"");
    assert_eq!(read_all(&path, 10).unwrap().num_rows(), 0);
    assert_eq!(
        read_all(&folder.path().join("none.csv"), 1)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    refused(folder.path(), "not a file");
    assert!(InputFormat::parse("PARQUET").is_ok() && InputFormat::parse("orc").is_err());
}

#[test]
fn directories_become_their_files_and_loops_end() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    std::fs::create_dir_all(root.join("b/_temporary")).unwrap();
    for name in [
        "b/2.json",
        "a.csv",
        "b/_temporary/3.json",
        "_SUCCESS",
        ".hidden.csv",
        "b/readme.txt",
        "c.PARQUET",
    ] {
        std::fs::write(root.join(name), "").unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
    let files = expand(&[root.to_owned()]).unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|f| f.strip_prefix(root).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["a.csv", "b/2.json", "c.PARQUET"]);
    assert_eq!(expand(&[root.join("b/readme.txt")]).unwrap().len(), 1);
    assert_eq!(
        expand(&[root.join("none")]).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(expand(&[root.join("b/_temporary/..")]).is_ok());
    std::fs::create_dir(root.join("empty")).unwrap();
    assert_eq!(
        expand(&[root.join("empty")]).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

/// Rows that the filter leaves out, by whatever format they come, and what is then left.
#[test]
fn the_filter_leaves_out_the_same_rows_of_every_format() {
    let json = config().json.replace(
        r#""ingestionConfig": {"#,
        r#""ingestionConfig": {"filterConfig": {"filterFunction": "n < 10 OR name IS NULL OR day = 3"}, "#,
    );
    let config = parse_table(&json, &config().spec.schema).unwrap().0;
    // 9 as a text is more than 10; the last row's 'x' fits no INT, and is left out by name before that is looked at.
    let rows = [
        (Some("a"), Some("9"), 1),
        (Some("b"), Some("10"), 1),
        (None, Some("11"), 1),
        (Some("c"), None, 2),
        (Some("d"), Some("12"), 3),
        (Some("e"), Some("-0"), 3),
    ];
    let text = |v: Option<&str>| v.map_or("null".to_owned(), |v| format!("\"{v}\""));
    let lines: String = (rows.iter())
        .map(|(name, n, day)| {
            let (name, n, ms) = (text(*name), text(*n), day * DAY);
            format!("{{\"name\": {name}, \"n\": {n}, \"event_ms\": {ms}}}\n")
        })
        .collect();
    let csv: String = std::iter::once("name,n,event_ms\n".to_owned())
        .chain(rows.iter().map(|(name, n, day)| {
            let (name, n) = (name.unwrap_or_default(), n.unwrap_or_default());
            format!("{name},{n},{}\n", day * DAY)
        }))
        .collect();
    let columns: [(&str, ArrayRef); 3] = [
        (
            "name",
            Arc::new(rows.iter().map(|r| r.0).collect::<StringArray>()),
        ),
        (
            "n",
            Arc::new(rows.iter().map(|r| r.1).collect::<StringArray>()),
        ),
        (
            "event_ms",
            Arc::new(rows.iter().map(|r| Some(r.2 * DAY)).collect::<Int64Array>()),
        ),
    ];
    let files = [
        file("a.json", lines.as_bytes()),
        file("a.csv", csv.as_bytes()),
        file("a.parquet", &parquet(&columns)),
    ];
    for (_folder, path) in &files {
        for batch_rows in [1, 2, 100] {
            let mut source = open(path, None, &config, batch_rows).unwrap();
            let (mut names, mut days) = (Vec::new(), Vec::<i32>::new());
            while let Some(batch) = source.next_batch().unwrap() {
                let texts = arrow::compute::cast(&batch["name"], &ArrowType::Utf8).unwrap();
                names.extend(
                    texts
                        .as_string::<i32>()
                        .iter()
                        .map(|v| v.map(str::to_owned)),
                );
                days.extend(batch["day"].as_primitive::<Int32Type>().values());
            }
            let shown = path.display();
            assert_eq!(
                names,
                [Some("b".to_owned()), Some("c".to_owned())],
                "{shown}"
            );
            assert_eq!(days, [1, 2], "{shown}");
            assert_eq!(source.filtered(), 4, "{shown}");
        }
    }
}

#[test]
fn nested_records_of_files_become_rows() {
    let json = config().json.replace(
        r#""ingestionConfig": {"#,
        r#""ingestionConfig": {"complexTypeConfig": {"fieldsToUnnest": ["items"], "prefixesToRename": {"items.": ""}}, "#,
    );
    let config = parse_table(&json, &config().spec.schema).unwrap().0;
    let lines = br#"{"event_ms": 86400000, "items": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}
{"event_ms": 172800000, "items": []}
{"event_ms": 259200000, "items": [{"name": "c", "n": 3}]}"#;
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let items = arrow::array::StructArray::try_from(vec![("name", names), ("n", numbers)]).unwrap();
    let list = ListArray::new(
        Arc::new(arrow::datatypes::Field::new_list_field(
            items.data_type().clone(),
            true,
        )),
        arrow::buffer::OffsetBuffer::from_lengths([2, 0, 1]),
        Arc::new(items),
        None,
    );
    let times: ArrayRef = Arc::new(Int64Array::from(vec![DAY, 2 * DAY, 3 * DAY]));
    let parquet = parquet(&[("event_ms", times), ("items", Arc::new(list))]);
    for (_folder, path) in [&file("a.json", lines), &file("a.parquet", &parquet)] {
        for batch_rows in [1, 2, 100] {
            let mut source = open(path, None, &config, batch_rows).unwrap();
            let mut rows = Vec::new();
            while let Some(batch) = source.next_batch().unwrap() {
                let names = batch["name"].as_string::<i32>();
                let n = batch["n"].as_primitive::<Int32Type>();
                let day = batch["day"].as_primitive::<Int32Type>();
                rows.extend((0..batch.num_rows()).map(|row| {
                    let name = names.is_valid(row).then(|| names.value(row).to_owned());
                    let n = n.is_valid(row).then(|| n.value(row));
                    (name, n, day.value(row))
                }));
            }
            let row = |name: &str, n, day| (Some(name.to_owned()), Some(n), day);
            let expected = [
                row("a", 1, 1),
                row("b", 2, 1),
                (None, None, 2),
                row("c", 3, 3),
            ];
            assert_eq!(rows, expected, "{}", path.display());
            assert_eq!(source.bytes_read(), source.bytes_total());
        }
    }
    let bad = file(
        "a.json",
        br#"{"event_ms": 1, "items": [{"n": 1}, {"n": "x"}]}"#,
    );
    let mut source = open(&bad.1, None, &config, 100).unwrap();
    let error = source.next_batch().unwrap_err();
    assert!(
        error.message().contains("a.json: row 1: column n: 'x'"),
        "{error}"
    );
}

#[test]
fn a_filter_that_fails_names_file_and_row_and_what_it_leaves_out_need_not_fit() {
    let with = |filter: &str| {
        let json = config().json.replace(
            r#""ingestionConfig": {"#,
            &format!(r#""ingestionConfig": {{"filterConfig": {{"filterFunction": "{filter}"}}, "#),
        );
        parse_table(&json, &config().spec.schema).unwrap().0
    };
    let day: ArrayRef = Arc::new(Int64Array::from(vec![DAY, DAY, DAY]));
    let kind: ArrayRef = Arc::new(StringArray::from(vec!["keep", "skip", "keep"]));
    let n: ArrayRef = Arc::new(StringArray::from(vec!["1", "x", "y"]));
    let parquet = parquet(&[("event_ms", day), ("kind", kind), ("n", n)]);
    let lines = br#"{"event_ms": 1, "kind": "keep", "n": 1}
{"event_ms": 1, "kind": "skip", "n": "x"}
{"event_ms": 1, "kind": "keep", "n": "y"}"#;
    for (_folder, path) in [&file("a.parquet", &parquet), &file("a.json", lines)] {
        let read = |filter: &str| {
            let mut source = open(path, None, &with(filter), 100)?;
            source.next_batch()
        };
        // Row 2 is left out, whatever it holds; row 3 is not.
        let error = read("kind = 'skip'").unwrap_err();
        assert!(
            error.message().contains("row 3: column n: 'y' is not"),
            "{error}"
        );
        let error = read("n > 5").unwrap_err();
        assert!(
            error
                .message()
                .contains("row 2: the filter function: n: 'x' is not a whole number"),
            "{error}"
        );
        let batch = read("kind = 'skip' OR kind LIKE 'k%' AND CAST(kind = 'keep' AS INT) = 1");
        assert_eq!(batch.unwrap().map_or(0, |b| b.num_rows()), 0);
    }
}
