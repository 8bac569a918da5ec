//! Between [`Value`], which travels, and DataFusion's `ScalarValue`, which is computed with.
//!
//! A [`Value`] has fewer types than Arrow. What it lacks travels as the number that Arrow stores, next to the Arrow type:
//! days of a DATE as `Int`, ticks of a TIMESTAMP in another unit than milliseconds or with a time zone as `Long`,
//! the parts of an INTERVAL as a `List`.

use datafusion::arrow::datatypes::{
    DataType, IntervalDayTime, IntervalMonthDayNano, IntervalUnit, TimeUnit,
};
use datafusion::common::ScalarValue;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// The value of a scalar, or none for types that [`scalar_of`] could not give back.
pub fn value_of(scalar: &ScalarValue) -> Option<Value> {
    use ScalarValue as S;
    if scalar.is_null() {
        return is_supported(&scalar.data_type()).then_some(Value::Null);
    }
    Some(match scalar {
        S::Boolean(Some(v)) => Value::Boolean(*v),
        S::Int8(Some(v)) => Value::Int(i32::from(*v)),
        S::Int16(Some(v)) => Value::Int(i32::from(*v)),
        S::Int32(Some(v))
        | S::Date32(Some(v))
        | S::Time32Second(Some(v))
        | S::Time32Millisecond(Some(v))
        | S::IntervalYearMonth(Some(v)) => Value::Int(*v),
        S::UInt8(Some(v)) => Value::Int(i32::from(*v)),
        S::UInt16(Some(v)) => Value::Int(i32::from(*v)),
        S::UInt32(Some(v)) => Value::Long(i64::from(*v)),
        S::UInt64(Some(v)) => match i64::try_from(*v) {
            Ok(v) => Value::Long(v),
            Err(_) => Value::Decimal {
                unscaled: i128::from(*v),
                scale: 0,
            },
        },
        S::Int64(Some(v))
        | S::Date64(Some(v))
        | S::Time64Microsecond(Some(v))
        | S::Time64Nanosecond(Some(v))
        | S::TimestampSecond(Some(v), _)
        | S::TimestampMicrosecond(Some(v), _)
        | S::TimestampNanosecond(Some(v), _)
        | S::TimestampMillisecond(Some(v), Some(_))
        | S::DurationSecond(Some(v))
        | S::DurationMillisecond(Some(v))
        | S::DurationMicrosecond(Some(v))
        | S::DurationNanosecond(Some(v)) => Value::Long(*v),
        S::TimestampMillisecond(Some(v), None) => Value::Timestamp(*v),
        S::Float32(Some(v)) => Value::Float(*v),
        S::Float64(Some(v)) => Value::Double(*v),
        S::Decimal128(Some(v), _, scale) => Value::Decimal {
            unscaled: *v,
            scale: *scale,
        },
        S::Utf8(Some(v)) | S::LargeUtf8(Some(v)) | S::Utf8View(Some(v)) => Value::String(v.clone()),
        S::Binary(Some(v)) | S::LargeBinary(Some(v)) | S::BinaryView(Some(v)) => {
            Value::Bytes(v.clone())
        }
        S::IntervalDayTime(Some(v)) => {
            Value::List(vec![Value::Int(v.days), Value::Int(v.milliseconds)])
        }
        S::IntervalMonthDayNano(Some(v)) => Value::List(vec![
            Value::Int(v.months),
            Value::Int(v.days),
            Value::Long(v.nanoseconds),
        ]),
        S::List(array) => {
            let elements = array.value(0);
            let mut values = Vec::with_capacity(elements.len());
            for i in 0..elements.len() {
                values.push(value_of(&ScalarValue::try_from_array(&elements, i).ok()?)?);
            }
            Value::List(values)
        }
        _ => return None,
    })
}

/// Whether values of an Arrow type can travel.
pub fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null
        | DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::Date32
        | DataType::Date64
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Timestamp(..)
        | DataType::Duration(_)
        | DataType::Interval(_) => true,
        DataType::List(field) => is_supported(field.data_type()),
        _ => false,
    }
}

/// The scalar of an Arrow type that `value` stands for; an error when it is not a value of that type.
pub fn scalar_of(value: &Value, data_type: &DataType) -> Result<ScalarValue> {
    use DataType as T;
    use ScalarValue as S;
    let mismatch = || Error::invalid(format!("the value {value:?} is not a {data_type}"));
    let long = || match value {
        Value::Int(v) => Ok(i64::from(*v)),
        Value::Long(v) | Value::Timestamp(v) => Ok(*v),
        _ => Err(mismatch()),
    };
    macro_rules! integer {
        ($variant:ident, $native:ty) => {
            S::$variant(Some(<$native>::try_from(long()?).map_err(|_| mismatch())?))
        };
    }
    if value.is_null() {
        return ScalarValue::try_from(data_type).map_err(|e| Error::invalid(e.to_string()));
    }
    Ok(match (data_type, value) {
        (T::Boolean, Value::Boolean(v)) => S::Boolean(Some(*v)),
        (T::Int8, _) => integer!(Int8, i8),
        (T::Int16, _) => integer!(Int16, i16),
        (T::Int32, _) => integer!(Int32, i32),
        (T::Int64, _) => S::Int64(Some(long()?)),
        (T::UInt8, _) => integer!(UInt8, u8),
        (T::UInt16, _) => integer!(UInt16, u16),
        (T::UInt32, _) => integer!(UInt32, u32),
        (T::UInt64, Value::Decimal { unscaled, scale: 0 }) => {
            S::UInt64(Some(u64::try_from(*unscaled).map_err(|_| mismatch())?))
        }
        (T::UInt64, _) => integer!(UInt64, u64),
        (T::Float32, Value::Float(v)) => S::Float32(Some(*v)),
        (T::Float64, Value::Double(v)) => S::Float64(Some(*v)),
        (T::Float64, Value::Float(v)) => S::Float64(Some(f64::from(*v))),
        (
            T::Decimal128(precision, scale),
            Value::Decimal {
                unscaled,
                scale: given,
            },
        ) if scale == given => S::Decimal128(Some(*unscaled), *precision, *scale),
        (T::Utf8, Value::String(v)) => S::Utf8(Some(v.clone())),
        (T::LargeUtf8, Value::String(v)) => S::LargeUtf8(Some(v.clone())),
        (T::Utf8View, Value::String(v)) => S::Utf8View(Some(v.clone())),
        (T::Binary, Value::Bytes(v)) => S::Binary(Some(v.clone())),
        (T::LargeBinary, Value::Bytes(v)) => S::LargeBinary(Some(v.clone())),
        (T::BinaryView, Value::Bytes(v)) => S::BinaryView(Some(v.clone())),
        (T::Date32, _) => integer!(Date32, i32),
        (T::Date64, _) => S::Date64(Some(long()?)),
        (T::Time32(TimeUnit::Second), _) => integer!(Time32Second, i32),
        (T::Time32(_), _) => integer!(Time32Millisecond, i32),
        (T::Time64(TimeUnit::Microsecond), _) => S::Time64Microsecond(Some(long()?)),
        (T::Time64(_), _) => S::Time64Nanosecond(Some(long()?)),
        (T::Timestamp(unit, zone), _) => {
            let (ticks, zone) = (Some(long()?), zone.clone());
            match unit {
                TimeUnit::Second => S::TimestampSecond(ticks, zone),
                TimeUnit::Millisecond => S::TimestampMillisecond(ticks, zone),
                TimeUnit::Microsecond => S::TimestampMicrosecond(ticks, zone),
                TimeUnit::Nanosecond => S::TimestampNanosecond(ticks, zone),
            }
        }
        (T::Duration(unit), _) => {
            let ticks = Some(long()?);
            match unit {
                TimeUnit::Second => S::DurationSecond(ticks),
                TimeUnit::Millisecond => S::DurationMillisecond(ticks),
                TimeUnit::Microsecond => S::DurationMicrosecond(ticks),
                TimeUnit::Nanosecond => S::DurationNanosecond(ticks),
            }
        }
        (T::Interval(IntervalUnit::YearMonth), _) => integer!(IntervalYearMonth, i32),
        (T::Interval(IntervalUnit::DayTime), Value::List(parts)) => match parts.as_slice() {
            [Value::Int(days), Value::Int(milliseconds)] => {
                S::IntervalDayTime(Some(IntervalDayTime::new(*days, *milliseconds)))
            }
            _ => return Err(mismatch()),
        },
        (T::Interval(IntervalUnit::MonthDayNano), Value::List(parts)) => match parts.as_slice() {
            [
                Value::Int(months),
                Value::Int(days),
                Value::Long(nanoseconds),
            ] => S::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(
                *months,
                *days,
                *nanoseconds,
            ))),
            _ => return Err(mismatch()),
        },
        (T::List(field), Value::List(values)) => {
            let scalars = values
                .iter()
                .map(|v| scalar_of(v, field.data_type()))
                .collect::<Result<Vec<_>>>()?;
            S::List(ScalarValue::new_list(&scalars, field.data_type(), true))
        }
        _ => return Err(mismatch()),
    })
}

/// A client's parameter as a scalar of its natural type; a null has no type yet.
pub fn parameter_scalar(value: &Value) -> Result<ScalarValue> {
    let data_type = match value {
        Value::Null => return Ok(ScalarValue::Null),
        Value::Boolean(_) => DataType::Boolean,
        Value::Int(_) => DataType::Int32,
        Value::Long(_) => DataType::Int64,
        Value::Float(_) => DataType::Float32,
        Value::Double(_) => DataType::Float64,
        Value::Decimal { scale, .. } => DataType::Decimal128(38, *scale),
        Value::Timestamp(_) => DataType::Timestamp(TimeUnit::Millisecond, None),
        Value::String(_) => DataType::Utf8,
        Value::Bytes(_) => DataType::Binary,
        Value::List(values) => {
            let first = match values.iter().find(|v| !v.is_null()) {
                Some(first) => parameter_scalar(first)?.data_type(),
                None => DataType::Null,
            };
            let scalars = values
                .iter()
                .map(|v| scalar_of(v, &first))
                .collect::<Result<Vec<_>>>()?;
            return Ok(ScalarValue::List(ScalarValue::new_list(
                &scalars, &first, true,
            )));
        }
    };
    scalar_of(value, &data_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_supported_scalar_comes_back_as_it_was() {
        let scalars = [
            ScalarValue::Boolean(Some(true)),
            ScalarValue::Int8(Some(-3)),
            ScalarValue::UInt64(Some(u64::MAX)),
            ScalarValue::Int64(Some(i64::MIN)),
            ScalarValue::Float64(Some(-0.0)),
            ScalarValue::Decimal128(Some(-12345), 38, 10),
            ScalarValue::Date32(Some(16_000)),
            ScalarValue::TimestampMillisecond(Some(5), None),
            ScalarValue::TimestampNanosecond(Some(5), Some("UTC".into())),
            ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(1, 2, 3))),
            ScalarValue::Utf8View(Some("é".to_owned())),
            ScalarValue::Int32(None),
        ];
        for scalar in scalars {
            let value = value_of(&scalar).unwrap();
            assert_eq!(scalar_of(&value, &scalar.data_type()).unwrap(), scalar);
        }
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        assert!(scalar_of(&Value::Long(300), &DataType::Int8).is_err());
        assert!(scalar_of(&Value::String("1".into()), &DataType::Int64).is_err());
    }
}
