//! Cells and parameters as the messages of `strandline.v1`.

use super::cells::{Cell, cell};
use arrow::array::RecordBatch;
use strandline_proto::v1::{self, value::Kind};
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// A cell as a typed value.
pub fn typed_value(value: &Cell<'_>) -> v1::Value {
    let kind = match value {
        Cell::Null => Kind::Null(true),
        Cell::Boolean(v) => Kind::Boolean(*v),
        Cell::Int(v) => Kind::Int(*v),
        Cell::Long(v) => Kind::Long(*v),
        // Beyond LONG, the digits: never a wrapped number.
        Cell::UnsignedLong(v) => {
            i64::try_from(*v).map_or_else(|_| Kind::BigDecimal(v.to_string()), Kind::Long)
        }
        Cell::Float(v) => Kind::Float(*v),
        Cell::Double(v) => Kind::Double(*v),
        Cell::Decimal(digits) => Kind::BigDecimal(digits.clone()),
        Cell::Timestamp(nanos) => {
            Kind::TimestampMs(i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(i64::MAX))
        }
        Cell::Text(text) => Kind::String((*text).to_owned()),
        Cell::Other(text) => Kind::String(text.clone()),
        Cell::Bytes(bytes) => Kind::Bytes(bytes::Bytes::copy_from_slice(bytes)),
        Cell::List(elements) => Kind::List(v1::ValueList {
            values: (0..elements.len())
                .map(|row| typed_value(&cell(elements.as_ref(), row)))
                .collect(),
        }),
    };
    v1::Value { kind: Some(kind) }
}

/// A batch of plain types as typed rows.
pub fn typed_rows(batch: &RecordBatch) -> v1::RowPage {
    let row = |at| v1::Row {
        values: batch
            .columns()
            .iter()
            .map(|column| typed_value(&cell(column.as_ref(), at)))
            .collect(),
    };
    v1::RowPage {
        rows: (0..batch.num_rows()).map(row).collect(),
    }
}

/// A statement's parameters; `$1` is the first.
pub fn parameters(values: Vec<v1::Value>) -> Result<Vec<Value>> {
    values
        .into_iter()
        .enumerate()
        .map(|(at, value)| {
            parameter(value).map_err(|error| error.at(format!("parameter ${}", at + 1)))
        })
        .collect()
}

fn parameter(value: v1::Value) -> Result<Value> {
    Ok(match value.kind {
        None => return Err(Error::invalid("has no value; for SQL's null set `null`")),
        Some(Kind::Null(_)) => Value::Null,
        Some(Kind::Boolean(v)) => Value::Boolean(v),
        Some(Kind::Int(v)) => Value::Int(v),
        Some(Kind::Long(v)) => Value::Long(v),
        Some(Kind::Float(v)) => Value::Float(v),
        Some(Kind::Double(v)) => Value::Double(v),
        Some(Kind::BigDecimal(digits)) => decimal(&digits)?,
        Some(Kind::TimestampMs(v)) => Value::Timestamp(v),
        Some(Kind::String(v)) => Value::String(v),
        Some(Kind::Bytes(v)) => Value::Bytes(v.into()),
        Some(Kind::List(list)) => Value::List(
            list.values
                .into_iter()
                .map(parameter)
                .collect::<Result<_>>()?,
        ),
    })
}

/// Reads decimal digits with an optional sign and point; at most 38 digits.
fn decimal(text: &str) -> Result<Value> {
    let wrong = || {
        Error::invalid(format!(
            "\"{}\" is not a BIG_DECIMAL: give at most 38 digits with an optional sign and point",
            text.chars().take(60).collect::<String>()
        ))
    };
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all: String = [whole, fraction].concat();
    let significant = all.trim_start_matches('0').len();
    if all.is_empty()
        || !all.bytes().all(|b| b.is_ascii_digit())
        || significant > 38
        || fraction.len() > 38
    {
        return Err(wrong());
    }
    let magnitude: i128 = all.parse().map_err(|_| wrong())?;
    Ok(Value::Decimal {
        unscaled: if negative { -magnitude } else { magnitude },
        scale: i8::try_from(fraction.len()).map_err(|_| wrong())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_digits_and_scale() {
        assert_eq!(
            decimal("-12.340").unwrap(),
            Value::Decimal {
                unscaled: -12340,
                scale: 3
            }
        );
        assert_eq!(
            decimal("+7").unwrap(),
            Value::Decimal {
                unscaled: 7,
                scale: 0
            }
        );
        for wrong in ["", ".", "1e5", "1.2.3", "--1", "0x10", &"9".repeat(39)] {
            assert!(decimal(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_unset_parameter_is_named_by_its_number() {
        let set = v1::Value {
            kind: Some(Kind::Int(1)),
        };
        let error = parameters(vec![set, v1::Value { kind: None }]).unwrap_err();
        assert!(error.message().starts_with("parameter $2: "), "{error}");
    }
}
