//! Random schemas and rows, through consuming and immutable segments.

use super::conformance::check;
use super::rows::{Row, TYPES, batch, column, files, partition, spec, stored_order};
use crate::segment::SegmentReader;
use crate::segment::builder::SegmentBuilder;
use crate::segment::consuming::ConsumingSegment;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::spec::{ColumnSpec, Encoding, SegmentSpec};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;
use strandline_proto::ids::{Half, OffsetRange};
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;

/// A value of the type; few distinct ones when `narrow`.
fn single(data_type: DataType, narrow: bool) -> BoxedStrategy<Value> {
    let small = -3..4_i64;
    let long = if narrow {
        small.boxed()
    } else {
        prop_oneof![3 => any::<i64>(), 1 => Just(i64::MIN), 1 => Just(i64::MAX), 2 => small].boxed()
    };
    let float = if narrow {
        (-2..3_i32).prop_map(f64::from).boxed()
    } else {
        any::<f64>().boxed()
    };
    let text = if narrow {
        "[abü]{0,2}".boxed()
    } else {
        prop_oneof![4 => "\\PC{0,20}", 1 => "[a-c]{60,90}"].boxed()
    };
    match data_type {
        DataType::Int => long.prop_map(|v| Value::Int(v as i32)).boxed(),
        DataType::Long => long.prop_map(Value::Long).boxed(),
        DataType::Float => float
            .prop_map(|v| Value::Float(if v.is_nan() { f32::NAN } else { v as f32 + 0.0 }))
            .boxed(),
        DataType::Double => float
            .prop_map(|v| Value::Double(if v.is_nan() { f64::NAN } else { v + 0.0 }))
            .boxed(),
        DataType::BigDecimal { scale, .. } => (
            long,
            if narrow {
                1..2_i128
            } else {
                1..10_i128.pow(19)
            },
        )
            .prop_map(move |(v, by)| Value::Decimal {
                unscaled: i128::from(v) * by,
                scale,
            })
            .boxed(),
        DataType::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        DataType::Timestamp => long.prop_map(Value::Timestamp).boxed(),
        DataType::String | DataType::Json => text.prop_map(Value::String).boxed(),
        DataType::Bytes => vec(
            if narrow {
                (0..2_u8).boxed()
            } else {
                any::<u8>().boxed()
            },
            0..if narrow { 3 } else { 80 },
        )
        .prop_map(Value::Bytes)
        .boxed(),
    }
}

fn value(
    data_type: DataType,
    multi_value: bool,
    narrow: bool,
    nulls: bool,
) -> BoxedStrategy<Value> {
    let or_null = move |strategy: BoxedStrategy<Value>| {
        if nulls {
            prop_oneof![4 => strategy, 1 => Just(Value::Null)].boxed()
        } else {
            strategy
        }
    };
    let one = or_null(single(data_type, narrow));
    if multi_value {
        or_null(vec(one, 0..5).prop_map(Value::List).boxed())
    } else {
        one
    }
}

fn column_strategy(
    number: usize,
) -> impl Strategy<Value = (DataType, bool, bool, bool, ColumnSpec, usize)> {
    let of_column = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(raw, inverted, range, bloom)| ColumnSpec {
            encoding: if raw {
                Encoding::Raw
            } else {
                Encoding::Dictionary
            },
            inverted: inverted && !raw,
            range,
            bloom,
            ..ColumnSpec::default()
        },
    );
    (
        prop::sample::select(&TYPES[..]),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        of_column,
        Just(number),
    )
}

#[derive(Debug)]
struct Case {
    spec: Arc<SegmentSpec>,
    batches: Vec<Vec<Row>>,
}

fn case() -> impl Strategy<Value = Case> {
    (1..6_usize)
        .prop_flat_map(|columns| (0..columns).map(column_strategy).collect::<Vec<_>>())
        .prop_flat_map(|columns| {
            let row: Vec<_> = columns.iter().map(|c| value(c.0, c.1, c.2, c.3)).collect();
            let sorted = prop::option::of(0..columns.len());
            (Just(columns), vec(vec(row, 0..40), 0..5), sorted)
        })
        .prop_map(|(columns, batches, sorted)| {
            let sorted = sorted.filter(|&i| !columns[i].1).map(|i| format!("c{i}"));
            let columns =
                columns
                    .into_iter()
                    .map(|(data_type, multi_value, _, _, of_column, number)| {
                        (
                            column(&format!("c{number}"), data_type, multi_value),
                            of_column,
                        )
                    });
            Case {
                spec: spec(columns.collect(), sorted.as_deref(), None),
                batches,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out_of_both_kinds(case in case()) {
        let Case { spec, batches } = case;
        let folder = tempfile::tempdir().unwrap();
        let total: u64 = batches.iter().map(|rows| rows.len() as u64).sum();
        let range = OffsetRange { start: 10, end: 10 + total * 2 };
        let consuming = ConsumingSegment::new("s", spec.clone(), partition(), range.start).unwrap();
        let builder = SegmentBuilder::new(spec.clone(), "s", Half::Realtime, Some((partition(), range))).unwrap();
        // A consuming segment makes its columns ready one at a time.
        let mut builder = builder.with_threads(3);
        let mut offline = SegmentBuilder::new(spec.clone(), "s", Half::Offline, None).unwrap();
        let mut rows: Vec<(u64, Row)> = Vec::new();
        let mut earlier = Vec::new();
        for of_batch in &batches {
            let arrow = batch(&spec.schema, of_batch);
            // every second offset is that of a rejected message
            let offsets: Vec<u64> = (0..of_batch.len()).map(|i| range.start + (rows.len() + i) as u64 * 2).collect();
            earlier.push((consuming.view(), rows.clone()));
            rows.extend(offsets.iter().copied().zip(of_batch.iter().cloned()));
            consuming.append(&arrow, &offsets, range.start + rows.len() as u64 * 2).unwrap();
            builder.push_with_offsets(&arrow, &offsets).unwrap();
            offline.push(&arrow).unwrap();
        }
        check(&*consuming.view(), &spec.schema, &rows);
        for (view, rows) in &earlier {
            check(&**view, &spec.schema, rows);
        }

        let stored = stored_order(&spec, &rows);
        let (a, b, c) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
        let info = consuming.build(&files(), &a).unwrap();
        prop_assert_eq!(&builder.finish(&files(), &b).unwrap(), &info);
        prop_assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        let segment = ImmutableSegment::open(&a).unwrap();
        prop_assert_eq!(segment.info(), &info);
        prop_assert_eq!(segment.origin(), Some((&partition(), range)));
        check(&*segment, &spec.schema, &stored);
        check_stats(&info.columns, &rows);

        offline.finish(&files(), &c).unwrap();
        let segment = ImmutableSegment::open(&c).unwrap();
        prop_assert!(segment.origin().is_none());
        check(&*segment, &spec.schema, &stored);
    }
}

fn check_stats(columns: &[strandline_proto::catalog::ColumnStats], rows: &[(u64, Row)]) {
    for (number, stats) in columns.iter().enumerate() {
        let values: Vec<&Value> = rows.iter().map(|row| &row.1[number]).collect();
        assert_eq!(
            stats.nulls,
            values.iter().filter(|v| v.is_null()).count() as u64
        );
        let elements = values.iter().flat_map(|v| match v {
            Value::List(elements) => elements.as_slice(),
            single => std::slice::from_ref(*single),
        });
        let mut elements: Vec<&Value> = elements.filter(|v| !v.is_null()).collect();
        elements.sort_by(|a, b| super::rows::value_cmp(a, b));
        elements.dedup_by(|a, b| super::rows::value_cmp(a, b).is_eq());
        assert!(
            stats.cardinality.is_none_or(|c| c == elements.len() as u64),
            "{stats:?} {elements:?}"
        );
        match (elements.first(), elements.last()) {
            (Some(min), Some(max)) => {
                assert!(
                    super::rows::value_cmp(&stats.min, min).is_le(),
                    "{stats:?} {min:?}"
                );
                assert!(
                    stats.max.is_null() || super::rows::value_cmp(&stats.max, max).is_ge(),
                    "{stats:?} {max:?}"
                );
                assert!(!stats.min.is_null());
            }
            _ => assert!(stats.min.is_null() && stats.max.is_null()),
        }
    }
}
