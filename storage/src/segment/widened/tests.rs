use super::{WidenedColumn, narrow, widen};
use proptest::prelude::*;
use std::sync::Arc;
use strandline_index::conformance::{ColumnRows, Row, check};
use strandline_index::mutable::{MutableColumn, MutableOptions};
use strandline_index::{ColumnReader, PhysicalType, Scalar};

fn stored(rows: &ColumnRows, dictionary: bool) -> Arc<dyn ColumnReader> {
    let options = MutableOptions {
        dictionary,
        inverted: dictionary,
    };
    let column = MutableColumn::new(rows.physical, rows.multi_value, options).unwrap();
    column
        .append(&rows.data(0..rows.rows.len()).data())
        .unwrap();
    column.view(u32::MAX)
}

proptest! {
    #[test]
    fn a_widened_column_reads_as_one_that_was_stored_wide(
        values in prop::collection::vec(prop::option::weighted(0.9, any::<i32>()), 0..300),
        lists in any::<bool>(),
        dictionary in any::<bool>(),
        to_double in any::<bool>(),
    ) {
        let to = if to_double { PhysicalType::F64 } else { PhysicalType::I64 };
        let row = |value: &Option<i32>, wide: bool| {
            let scalar = value.map(|v| {
                let v = Scalar::I32(v % 50);
                if wide { widen(&v, to) } else { v }
            });
            match (scalar, lists) {
                (None, _) => Row::Null,
                (Some(v), true) => Row::List(vec![Some(v.clone()), None, Some(v)]),
                (Some(v), false) => Row::Value(v),
            }
        };
        let rows = |physical, wide| ColumnRows {
            physical,
            multi_value: lists,
            rows: values.iter().map(|v| row(v, wide)).collect(),
        };
        let narrow_rows = rows(PhysicalType::I32, false);
        let column = WidenedColumn::new(stored(&narrow_rows, dictionary), to);
        let probes = match to {
            PhysicalType::I64 => vec![Scalar::I64(i64::MAX), Scalar::I64(i64::MIN), Scalar::I64(7), Scalar::I64(1 << 40)],
            _ => vec![Scalar::F64(0.5), Scalar::F64(f64::NAN), Scalar::F64(-0.0), Scalar::F64(7.0), Scalar::F64(1e300)],
        };
        check(&column, &rows(to, true), &probes).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn narrowing_undoes_widening_and_refuses_the_rest(int in any::<i32>(), float in any::<f32>(), long in any::<i64>(), double in any::<f64>()) {
        for to in [PhysicalType::I64, PhysicalType::F64] {
            prop_assert_eq!(narrow(&widen(&Scalar::I32(int), to), PhysicalType::I32), Some(Scalar::I32(int)));
        }
        let back = narrow(&widen(&Scalar::F32(float), PhysicalType::F64), PhysicalType::F32);
        prop_assert!(float.is_nan() || back == Some(Scalar::F32(float)));
        prop_assert_eq!(narrow(&Scalar::I64(long), PhysicalType::I32).is_some(), i32::try_from(long).is_ok());
        if let Some(Scalar::I32(int)) = narrow(&Scalar::F64(double), PhysicalType::I32) {
            prop_assert!(f64::from(int) == double);
        }
    }
}
