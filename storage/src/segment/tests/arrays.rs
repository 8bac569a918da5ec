//! Arrow's freedoms (slices, values under nulls, any NaN) on the way in.

use super::conformance::check;
use super::rows::{batch, column, files, raw, schema, spec};
use crate::segment::arrow::read_array;
use crate::segment::builder::SegmentBuilder;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::spec::ColumnSpec;
use ::arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int32Array, ListArray, RecordBatch,
    StringArray,
};
use ::arrow::buffer::{NullBuffer, OffsetBuffer};
use ::arrow::compute::cast;
use ::arrow::datatypes::UInt32Type;
use std::sync::Arc;
use strandline_index::DocSelection;
use strandline_proto::ErrorKind;
use strandline_proto::ids::Half;
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;

#[test]
fn what_stands_under_nulls_is_not_stored() {
    let nulls = || Some(NullBuffer::from(vec![true, false, true, false]));
    let text = StringArray::from(vec!["a", "hidden", "b", "c"]);
    let text = StringArray::new(text.offsets().clone(), text.values().clone(), nulls());
    let numbers = Int32Array::new(vec![1, 99, 3, 98].into(), nulls());
    let flags = BooleanArray::new(vec![true, true, false, true].into(), nulls());
    let elements = StringArray::from(vec![
        Some("x"),
        Some("hidden"),
        None,
        Some("y"),
        Some("hidden"),
    ]);
    let field = match column("l", DataType::String, true).arrow_type() {
        ::arrow::datatypes::DataType::List(field) => field,
        other => panic!("{other}"),
    };
    let lists = ListArray::new(
        field,
        OffsetBuffer::new(vec![0, 1, 2, 4, 5].into()),
        Arc::new(elements),
        nulls(),
    );
    let columns = [
        ("t", DataType::String, false),
        ("n", DataType::Int, false),
        ("f", DataType::Boolean, false),
        ("l", DataType::String, true),
    ];
    let string = |text: &str| Value::String(text.into());
    let rows = [
        vec![
            string("a"),
            Value::Int(1),
            Value::Boolean(true),
            Value::List(vec![string("x")]),
        ],
        vec![Value::Null; 4],
        vec![
            string("b"),
            Value::Int(3),
            Value::Boolean(false),
            Value::List(vec![Value::Null, string("y")]),
        ],
        vec![Value::Null; 4],
    ];
    let folder = tempfile::tempdir().unwrap();
    for of_column in [
        ColumnSpec {
            range: true,
            bloom: true,
            ..ColumnSpec::default()
        },
        raw(),
    ] {
        let spec = spec(
            columns
                .iter()
                .map(|c| (column(c.0, c.1, c.2), of_column.clone()))
                .collect(),
            None,
            None,
        );
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(text.clone()),
            Arc::new(numbers.clone()),
            Arc::new(flags.clone()),
            Arc::new(lists.clone()),
        ];
        let whole = RecordBatch::try_new(spec.schema.arrow(), arrays).unwrap();
        for range in [0..4, 1..4, 2..3, 1..2] {
            let path = folder.path().join("s");
            let mut builder = SegmentBuilder::new(spec.clone(), "s", Half::Offline, None).unwrap();
            builder
                .push(&whole.slice(range.start, range.len()))
                .unwrap();
            builder.push(&whole.slice(range.start, 0)).unwrap();
            builder
                .push(&whole.slice(range.start, range.len()))
                .unwrap();
            let info = builder.finish(&files(), &path).unwrap();
            let expected: Vec<_> = rows[range.clone()]
                .iter()
                .chain(&rows[range.clone()])
                .map(|row| (0, row.clone()))
                .collect();
            let segment = ImmutableSegment::open(&path).unwrap();
            check(&*segment, &spec.schema, &expected);
            let hidden = b"hidden";
            assert!(
                !std::fs::read(&path)
                    .unwrap()
                    .windows(hidden.len())
                    .any(|w| w == hidden)
            );
            assert!(info.columns.iter().all(|c| c.max != Value::Int(99)));
        }
    }
}

#[test]
fn all_nans_are_one_value_and_both_zeros_another() {
    let spec = spec(
        vec![(column("d", DataType::Double, false), ColumnSpec::default())],
        None,
        None,
    );
    let nans = [
        f64::NAN,
        -f64::NAN,
        f64::from_bits(0x7ff0_0000_0000_0001),
        1.0,
        -0.0,
        0.0,
    ];
    let batch = RecordBatch::try_new(
        spec.schema.arrow(),
        vec![Arc::new(Float64Array::from(nans.to_vec()))],
    )
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut builder = SegmentBuilder::new(spec.clone(), "s", Half::Offline, None).unwrap();
    builder.push(&batch).unwrap();
    let info = builder.finish(&files(), &folder.path().join("s")).unwrap();
    assert_eq!(info.columns[0].cardinality, Some(3));
    assert!(
        matches!(info.columns[0].min, Value::Double(min) if min.to_bits() == 0.0_f64.to_bits())
    );
    let json = serde_json::to_string(&info).unwrap();
    let back: strandline_proto::catalog::SegmentInfo = serde_json::from_str(&json).unwrap();
    assert!(
        matches!(back.columns[0].max, Value::Double(max) if max.to_bits() == f64::NAN.to_bits())
    );
}

#[test]
fn keyed_text_is_stored_as_text_is() {
    let spec = spec(
        vec![
            (column("t", DataType::String, false), ColumnSpec::default()),
            (column("b", DataType::Bytes, false), ColumnSpec::default()),
            (column("r", DataType::String, false), raw()),
        ],
        None,
        None,
    );
    let of = |rows: &[Option<&str>]| {
        let text: DictionaryArray<UInt32Type> = rows.iter().copied().collect();
        let text: ArrayRef = Arc::new(text);
        let binary = ::arrow::datatypes::DataType::Binary;
        let keyed_binary = ::arrow::datatypes::DataType::Dictionary(
            Box::new(::arrow::datatypes::DataType::UInt32),
            Box::new(binary),
        );
        let bytes = cast(&text, &keyed_binary).unwrap();
        let columns = [("t", text.clone()), ("b", bytes), ("r", text)];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let with_null = of(&[Some("c"), None, Some("d")]);
    // All but the first of these batches share their texts.
    let long = of(&[Some("unused"), Some("b"), Some("a"), Some("b"), Some("")]);
    let batches = [
        with_null,
        long.slice(1, 2),
        long.slice(3, 2),
        long.slice(2, 1),
    ];
    let folder = tempfile::tempdir().unwrap();
    let finish = |name: &str, plain: bool| {
        let mut builder = SegmentBuilder::new(spec.clone(), "s", Half::Offline, None).unwrap();
        for batch in &batches {
            let columns = batch.columns().iter().zip(&spec.schema.columns);
            let columns = columns.map(|(array, column)| match plain {
                true => cast(array, &column.arrow_type()).unwrap(),
                false => array.clone(),
            });
            let named = ["t", "b", "r"].into_iter().zip(columns);
            builder
                .push(&RecordBatch::try_from_iter(named).unwrap())
                .unwrap();
        }
        let path = folder.path().join(name);
        let info = builder.finish(&files(), &path).unwrap();
        assert_eq!((info.rows, info.columns[0].cardinality), (8, Some(5)));
        std::fs::read(path).unwrap()
    };
    assert_eq!(finish("keyed", false), finish("plain", true));
}

#[test]
fn a_column_read_as_another_type_is_an_error() {
    let spec = spec(
        vec![(column("n", DataType::Int, false), ColumnSpec::default())],
        None,
        None,
    );
    let folder = tempfile::tempdir().unwrap();
    let mut builder = SegmentBuilder::new(spec.clone(), "s", Half::Offline, None).unwrap();
    builder
        .push(&batch(&spec.schema, &[vec![Value::Int(1)]]))
        .unwrap();
    builder.finish(&files(), &folder.path().join("s")).unwrap();
    let segment = ImmutableSegment::open(&folder.path().join("s")).unwrap();
    let reader = crate::segment::SegmentReader::column(&*segment, "n").unwrap();
    for (data_type, multi_value) in [
        (DataType::Long, false),
        (DataType::Int, true),
        (DataType::String, false),
    ] {
        let error =
            read_array(&*reader, data_type, multi_value, DocSelection::Range(0..1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    }
}

#[test]
fn a_builder_tells_what_it_holds() {
    let table = schema(vec![
        column("t", DataType::String, false),
        column("r", DataType::String, false),
    ]);
    let spec = spec(
        vec![
            (table.columns[0].clone(), ColumnSpec::default()),
            (table.columns[1].clone(), raw()),
        ],
        None,
        None,
    );
    let mut builder = SegmentBuilder::new(spec.clone(), "s", Half::Offline, None).unwrap();
    let rows: Vec<_> = (0..20_000)
        .map(|i| {
            vec![
                Value::String(format!("v{}", i % 10)),
                Value::String(format!("{i:0100}")),
            ]
        })
        .collect();
    builder.push(&batch(&spec.schema, &rows)).unwrap();
    // ids and offsets take four bytes each, the raw texts a hundred
    let least = 20_000 * (4 + 4 + 100);
    assert!(
        (least..least * 3).contains(&builder.bytes_estimate()),
        "{}",
        builder.bytes_estimate()
    );
}
