//! Numbers of a row's list as one: `mv_count`, `mv_sum`, `mv_min` and `mv_max`, which Pinot's aggregates of multi-value columns
//! (`SUMMV` and so on) aggregate further.
//!
//! Null elements are passed over. Of a null list, and of one without elements, all but the count are null.

use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, PrimitiveArray,
};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Int32Type, Int64Type};
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::Arc;

/// What is made of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fold {
    Count,
    Sum,
    Min,
    Max,
}

/// The functions of this module.
pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    let all = [
        (Fold::Count, "mv_count"),
        (Fold::Sum, "mv_sum"),
        (Fold::Min, "mv_min"),
        (Fold::Max, "mv_max"),
    ];
    all.into_iter().map(|(fold, name)| {
        Arc::new(ScalarUDF::from(Folded {
            fold,
            name,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Folded {
    fold: Fold,
    name: &'static str,
    signature: Signature,
}

/// The type of a list's elements.
fn element(list: &DataType) -> Option<&DataType> {
    match list {
        DataType::List(field) => Some(field.data_type()),
        _ => None,
    }
}

impl ScalarUDFImpl for Folded {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let element = match arg_types {
            [list] => element(list),
            _ => None,
        };
        match (self.fold, element) {
            (Fold::Count, Some(_)) => Ok(DataType::Int64),
            (Fold::Sum, Some(DataType::Int32 | DataType::Int64)) => Ok(DataType::Int64),
            (Fold::Sum, Some(DataType::Float32 | DataType::Float64)) => Ok(DataType::Float64),
            (
                Fold::Min | Fold::Max,
                Some(
                    number @ (DataType::Int32
                    | DataType::Int64
                    | DataType::Float32
                    | DataType::Float64),
                ),
            ) => Ok(number.clone()),
            (Fold::Count, None) => plan_err!("it takes a multi-value column"),
            _ => plan_err!("it takes a multi-value column of type INT, LONG, FLOAT or DOUBLE"),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(arg_types).map(|_| arg_types.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [list] = ColumnarValue::values_to_arrays(&args.args)?
            .try_into()
            .or_else(|_: Vec<ArrayRef>| internal_err!("{} takes one argument", self.name))?;
        let list: &ListArray = list.as_list();
        Ok(ColumnarValue::Array(self.apply(list)?))
    }
}

impl Folded {
    fn apply(&self, list: &ListArray) -> Result<ArrayRef> {
        macro_rules! extreme {
            ($type:ty, $cmp:expr) => {{
                let fold = |held: Option<_>, value| match held {
                    Some(held) if $cmp(&held, &value) == (self.fold == Fold::Max) => held,
                    _ => value,
                };
                Arc::new(folded::<$type, $type>(list, fold)) as ArrayRef
            }};
        }
        macro_rules! sum {
            ($type:ty, $wide:ty, $to:ty, $add:expr) => {
                Arc::new(folded::<$type, $wide>(list, |sum, value| {
                    $add(sum.unwrap_or_default(), <$to>::from(value))
                })) as ArrayRef
            };
        }
        let plus = |a: f64, b: f64| a + b;
        Ok(match (self.fold, list.value_type()) {
            (Fold::Count, _) => {
                let counts = (0..list.len()).map(|row| {
                    let elements = (!list.is_null(row)).then(|| list.value(row))?;
                    Some((elements.len() - elements.null_count()) as i64)
                });
                Arc::new(counts.collect::<PrimitiveArray<Int64Type>>())
            }
            (Fold::Sum, DataType::Int32) => sum!(Int32Type, Int64Type, i64, i64::wrapping_add),
            (Fold::Sum, DataType::Int64) => sum!(Int64Type, Int64Type, i64, i64::wrapping_add),
            (Fold::Sum, DataType::Float32) => sum!(Float32Type, Float64Type, f64, plus),
            (Fold::Sum, DataType::Float64) => sum!(Float64Type, Float64Type, f64, plus),
            (_, DataType::Int32) => extreme!(Int32Type, |a: &i32, b: &i32| a >= b),
            (_, DataType::Int64) => extreme!(Int64Type, |a: &i64, b: &i64| a >= b),
            (_, DataType::Float32) => {
                extreme!(Float32Type, |a: &f32, b: &f32| a.total_cmp(b).is_ge())
            }
            (_, DataType::Float64) => {
                extreme!(Float64Type, |a: &f64, b: &f64| a.total_cmp(b).is_ge())
            }
            (_, other) => return internal_err!("{} of {other}", self.name),
        })
    }
}

/// Each list's elements that are not null, folded; null without any.
fn folded<T: ArrowPrimitiveType, R: ArrowPrimitiveType>(
    list: &ListArray,
    fold: impl Fn(Option<R::Native>, T::Native) -> R::Native,
) -> PrimitiveArray<R> {
    let values = list.values().as_primitive::<T>();
    let one = |row: usize| {
        if list.is_null(row) {
            return None;
        }
        let elements = list.offsets()[row] as usize..list.offsets()[row + 1] as usize;
        elements
            .filter(|&at| values.is_valid(at))
            .fold(None, |held, at| Some(fold(held, values.value(at))))
    };
    (0..list.len()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Float64Array, Int32Array, Int64Array};

    #[test]
    fn null_elements_are_passed_over_and_empty_lists_have_no_sum() {
        let lists = [
            Some(vec![Some(3), None, Some(-5), Some(4)]),
            Some(vec![]),
            None,
            Some(vec![None]),
            Some(vec![Some(i32::MAX), Some(i32::MAX)]),
        ];
        let ints = ListArray::from_iter_primitive::<Int32Type, _, _>(lists.clone());
        let floats = ListArray::from_iter_primitive::<Float64Type, _, _>(lists.map(|list| {
            list.map(|l| {
                l.into_iter()
                    .map(|v| v.map(|v| f64::from(v) / 2.0))
                    .collect::<Vec<_>>()
            })
        }));
        let apply = |fold, list: &ListArray| {
            let signature = Signature::user_defined(Volatility::Immutable);
            let name = "it";
            let function = Folded {
                fold,
                name,
                signature,
            };
            function.apply(list).unwrap()
        };
        let counts = Int64Array::from(vec![Some(3), Some(0), None, Some(0), Some(2)]);
        assert_eq!(
            apply(Fold::Count, &ints).as_primitive::<Int64Type>(),
            &counts
        );
        let sums = Int64Array::from(vec![
            Some(2),
            None,
            None,
            None,
            Some(2 * i64::from(i32::MAX)),
        ]);
        assert_eq!(apply(Fold::Sum, &ints).as_primitive::<Int64Type>(), &sums);
        let least = Int32Array::from(vec![Some(-5), None, None, None, Some(i32::MAX)]);
        assert_eq!(apply(Fold::Min, &ints).as_primitive::<Int32Type>(), &least);
        let greatest = Int32Array::from(vec![Some(4), None, None, None, Some(i32::MAX)]);
        assert_eq!(
            apply(Fold::Max, &ints).as_primitive::<Int32Type>(),
            &greatest
        );
        let max = f64::from(i32::MAX);
        for (fold, expected) in [
            (Fold::Sum, [1.0, max]),
            (Fold::Min, [-2.5, max / 2.0]),
            (Fold::Max, [2.0, max / 2.0]),
        ] {
            let expected = vec![Some(expected[0]), None, None, None, Some(expected[1])];
            let found = apply(fold, &floats);
            assert_eq!(
                found.as_primitive::<Float64Type>(),
                &Float64Array::from(expected)
            );
        }
    }
}
