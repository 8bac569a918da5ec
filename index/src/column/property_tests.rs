//! Columns of arbitrary values against their rows.

use super::tests::check_all;
use super::*;
use crate::conformance::{ColumnRows, Row};
use crate::reader::{ColumnReader, DocId, PhysicalType, Scalar};
use proptest::prelude::*;
use std::borrow::Cow;

/// A value of a type from arbitrary bits: small numbers, extremes, and anything.
fn value(physical: PhysicalType) -> BoxedStrategy<Scalar<'static>> {
    let bits = prop_oneof![
        4 => (-6i64..6).prop_map(i128::from),
        1 => prop::sample::select(vec![i128::MIN, i128::MAX, i64::MIN.into(), i64::MAX.into(), i32::MIN.into(), i32::MAX.into()]),
        2 => any::<i128>(),
        1 => any::<i32>().prop_map(i128::from),
    ];
    let float = prop_oneof![
        3 => (-600i32..600).prop_map(|n| f64::from(n) / 100.0),
        1 => prop::sample::select(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE, 1e300]),
        1 => any::<u64>().prop_map(f64::from_bits),
    ];
    match physical {
        PhysicalType::I32 => bits.prop_map(|n| Scalar::I32(n as i32)).boxed(),
        PhysicalType::I64 => bits.prop_map(|n| Scalar::I64(n as i64)).boxed(),
        PhysicalType::I128 => bits.prop_map(Scalar::I128).boxed(),
        PhysicalType::F32 => float.prop_map(|v| Scalar::F32(v as f32)).boxed(),
        PhysicalType::F64 => float.prop_map(Scalar::F64).boxed(),
        PhysicalType::Bytes => prop_oneof![
            30 => prop::collection::vec(0u8..4, 0..4),
            9 => prop::collection::vec(any::<u8>(), 0..40),
            1 => (0usize..90_000).prop_map(|len| vec![b'x'; len]),
        ]
        .prop_map(|bytes| Scalar::Bytes(Cow::Owned(bytes)))
        .boxed(),
    }
}

fn row(physical: PhysicalType, multi_value: bool, nulls: bool) -> BoxedStrategy<Row> {
    let null = u32::from(nulls);
    if multi_value {
        let element = prop_oneof![
            9 => value(physical).prop_map(Some),
            null => Just(None),
        ];
        return prop_oneof![
            9 => prop::collection::vec(element, 0..4).prop_map(Row::List),
            null => Just(Row::Null),
        ]
        .boxed();
    }
    prop_oneof![9 => value(physical).prop_map(Row::Value), null => Just(Row::Null)].boxed()
}

fn columns() -> impl Strategy<Value = (ColumnRows, Vec<Scalar<'static>>)> {
    let types = prop::sample::select(super::tests::TYPES.to_vec());
    (types, any::<bool>(), any::<bool>(), 0usize..160).prop_flat_map(
        |(physical, multi_value, nulls, docs)| {
            let rows = prop::collection::vec(row(physical, multi_value, nulls), docs);
            let repeats = prop_oneof![3 => Just(1usize), 1 => Just(30usize)];
            (rows, repeats, prop::collection::vec(value(physical), 3)).prop_map(
                move |(rows, repeats, mut probes)| {
                    let rows: Vec<Row> = rows
                        .iter()
                        .flat_map(|row| vec![row.clone(); repeats])
                        .collect();
                    probes.extend(rows.iter().take(2).filter_map(|row| match row {
                        Row::Value(value) => Some(value.clone()),
                        _ => None,
                    }));
                    (
                        ColumnRows {
                            physical,
                            multi_value,
                            rows,
                        },
                        probes,
                    )
                },
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_columns_answer_as_their_rows((rows, probes) in columns()) {
        check_all(&rows, &probes, "arbitrary rows");
    }

    #[test]
    fn rewriting_in_order_sorts_the_rows((rows, _) in columns(), dictionary in any::<bool>()) {
        prop_assume!(!rows.multi_value);
        let data = rows.data(0..rows.rows.len());
        let options = ColumnOptions { dictionary, ..ColumnOptions::default() };
        let column = super::tests::open(&write_column(&data.data(), &options).unwrap()).unwrap();
        let order = sorted_order(&column).unwrap();
        let written = rewrite_column(&column, Some(&order), &options).unwrap();
        let sorted = super::tests::open(&written).unwrap();
        let arranged: Vec<Row> = order.iter().map(|&doc| rows.rows[doc as usize].clone()).collect();
        let arranged = ColumnRows { rows: arranged, ..rows.clone() };
        crate::conformance::check(&sorted, &arranged, &[]).map_err(TestCaseError::fail)?;
        prop_assert_eq!(sorted.is_sorted(), !rows.rows.contains(&Row::Null));
        let mut every: Vec<DocId> = order;
        every.sort_unstable();
        prop_assert!(every.into_iter().eq(0..rows.rows.len() as DocId));
    }

    #[test]
    fn lists_are_rewritten_whole_in_any_order((rows, _) in columns(), seed in any::<u64>()) {
        let data = rows.data(0..rows.rows.len());
        let column = super::tests::open(&write_column(&data.data(), &ColumnOptions::default()).unwrap()).unwrap();
        let mut numbers = super::tests::Numbers(seed);
        let mut order: Vec<DocId> = (0..rows.rows.len() as DocId).collect();
        order.sort_by_cached_key(|_| numbers.next());
        let options = ColumnOptions { inverted: true, range: true, ..ColumnOptions::default() };
        let written = super::tests::open(&rewrite_column(&column, Some(&order), &options).unwrap()).unwrap();
        let arranged: Vec<Row> = order.iter().map(|&doc| rows.rows[doc as usize].clone()).collect();
        let arranged = ColumnRows { rows: arranged, ..rows.clone() };
        crate::conformance::check(&written, &arranged, &[]).map_err(TestCaseError::fail)?;
    }
}
