use super::*;
use crate::front::cells::{plain_batch, plain_schema};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array,
    ListArray, StringViewArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::Int32Type;
use std::sync::Arc;

fn answer(columns: Vec<(&str, ArrayRef)>) -> serde_json::Value {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let schema = plain_schema(&batch.schema());
    let mut rows = RowsJson::new(&schema);
    rows.push(&plain_batch(batch, &schema).unwrap());
    let text = rows.document(&v1::QueryStatistics::default(), 7);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[test]
fn every_type_is_written_as_pinot_does() {
    let decimal = Decimal128Array::from(vec![Some(-12_345), None])
        .with_precision_and_scale(10, 2)
        .unwrap();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        Some(vec![]),
    ]);
    let document = answer(vec![
        (
            "long",
            Arc::new(Int64Array::from(vec![Some(i64::MAX), Some(i64::MIN)])),
        ),
        ("unsigned", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        ("float", Arc::new(Float32Array::from(vec![0.1, f32::NAN]))),
        (
            "double",
            Arc::new(Float64Array::from(vec![1e300, f64::NEG_INFINITY])),
        ),
        ("decimal", Arc::new(decimal)),
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        (
            "time",
            Arc::new(TimestampMillisecondArray::from(vec![1_390_176_000_000, -1])),
        ),
        (
            "text",
            Arc::new(StringViewArray::from(vec!["a\"\\\n\u{1}é", ""])),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..], b""])),
        ),
        ("list", Arc::new(list)),
    ]);
    assert_eq!(
        document["resultTable"]["dataSchema"]["columnDataTypes"],
        json!([
            "LONG",
            "LONG",
            "FLOAT",
            "DOUBLE",
            "BIG_DECIMAL",
            "BOOLEAN",
            "TIMESTAMP",
            "STRING",
            "BYTES",
            "INT_ARRAY"
        ])
    );
    assert_eq!(
        document["resultTable"]["rows"],
        json!([
            [
                i64::MAX,
                u64::MAX,
                0.1,
                1e300,
                "-123.45",
                true,
                "2014-01-20 00:00:00.0",
                "a\"\\\n\u{1}é",
                "00ff",
                [1, null]
            ],
            [
                i64::MIN,
                0,
                "NaN",
                "-Infinity",
                null,
                null,
                "1969-12-31 23:59:59.999",
                "",
                "",
                []
            ]
        ])
    );
    assert_eq!(document["numRowsResultSet"], json!(2));
    assert_eq!(document["timeUsedMs"], json!(7));
    assert_eq!(document["exceptions"], json!([]));
}

#[test]
fn a_failure_has_an_exception_and_no_table() {
    let error = Error::not_found("no table flights");
    let text = failure_document(&error, &v1::QueryStatistics::default(), 1);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["exceptions"],
        json!([{ "errorCode": 190, "message": "no table flights" }])
    );
    assert!(document.get("resultTable").is_none());
}
