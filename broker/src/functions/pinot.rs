//! Pinot's functions of time, on milliseconds since the epoch as LONG: `fromEpochDays`, `toEpochHours`, `dateTrunc` and so on.
//!
//! Function names are compared in lower case, so `fromEpochDays` is registered as `fromepochdays`.

use datafusion::arrow::array::{AsArray, Int64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::functions::datetime::date_trunc;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use std::sync::Arc;

const UNITS: [(&str, &str, i64); 4] = [
    ("fromepochseconds", "toepochseconds", 1_000),
    ("fromepochminutes", "toepochminutes", 60_000),
    ("fromepochhours", "toepochhours", 3_600_000),
    ("fromepochdays", "toepochdays", 86_400_000),
];

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    let mut all = vec![Arc::new(ScalarUDF::from(DateTrunc {
        signature: signature(),
    }))];
    for (from, to, ms) in UNITS {
        all.push(Arc::new(ScalarUDF::from(Epoch {
            name: from,
            ms,
            is_from: true,
            signature: signature(),
        })));
        all.push(Arc::new(ScalarUDF::from(Epoch {
            name: to,
            ms,
            is_from: false,
            signature: signature(),
        })));
    }
    all
}

/// Between a count of units and milliseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Epoch {
    name: &'static str,
    ms: i64,
    is_from: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Epoch {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [t] if t.is_integer() || t.is_null() => Ok(vec![DataType::Int64]),
            [DataType::Timestamp(..)] if !self.is_from => {
                Ok(vec![DataType::Timestamp(TimeUnit::Millisecond, None)])
            }
            _ => plan_err!(
                "{} takes one whole number{}",
                self.name,
                if self.is_from {
                    ""
                } else {
                    " of milliseconds, or a timestamp"
                }
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(value) = args.args.into_iter().next() else {
            return plan_err!("{} takes one argument", self.name);
        };
        let values = cast(&value.into_array(args.number_rows)?, &DataType::Int64)?;
        let values = values.as_primitive::<Int64Type>();
        let answer: Int64Array = if self.is_from {
            let Ok(ms) = values.try_unary(|v| v.checked_mul(self.ms).ok_or(())) else {
                return exec_err!(
                    "{} of a number that is too large for milliseconds in a LONG",
                    self.name
                );
            };
            ms
        } else {
            values.unary(|v| v.div_euclid(self.ms))
        };
        Ok(ColumnarValue::Array(Arc::new(answer)))
    }
}

/// `dateTrunc('day', time)`: of milliseconds gives milliseconds, of a timestamp a timestamp.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    signature: Signature,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        "datetrunc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [_, time] => Ok(time.clone()),
            _ => plan_err!("dateTrunc takes a unit and a time"),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [_, time] if time.is_integer() => Ok(vec![DataType::Utf8, DataType::Int64]),
            [_, time @ DataType::Timestamp(..)] => Ok(vec![DataType::Utf8, time.clone()]),
            [
                _,
                DataType::Date32 | DataType::Date64 | DataType::Null | DataType::Utf8,
            ] => Ok(vec![
                DataType::Utf8,
                DataType::Timestamp(TimeUnit::Millisecond, None),
            ]),
            _ => plan_err!("dateTrunc takes a unit, and a time as milliseconds or as a timestamp"),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let trunc = date_trunc();
        let [_, time] = args.args.as_mut_slice() else {
            return plan_err!("dateTrunc takes a unit and a time");
        };
        let is_number = time.data_type() == DataType::Int64;
        if is_number {
            *time = time.cast_to(&DataType::Timestamp(TimeUnit::Millisecond, None), None)?;
            args.arg_fields[1] = Arc::new(
                args.arg_fields[1]
                    .as_ref()
                    .clone()
                    .with_data_type(time.data_type()),
            );
            args.return_field = trunc.return_field_from_args(ReturnFieldArgs {
                arg_fields: &args.arg_fields,
                scalar_arguments: &[None, None],
            })?;
        }
        let answer = trunc.invoke_with_args(args)?;
        if is_number {
            answer.cast_to(&DataType::Int64, None)
        } else {
            Ok(answer)
        }
    }
}
