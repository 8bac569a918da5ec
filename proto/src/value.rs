//! One value of a column, a parameter or a bound.

use serde::{Deserialize, Serialize};

/// A value with its type. Lists hold elements of one type.
///
/// Written as text (JSON), floats are strings in Rust's shortest notation that reads back to the
/// same value, `NaN` and `inf` included: JSON numbers hold neither, and not every reader keeps the last bit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// SQL's null.
    Null,
    /// BOOLEAN.
    Boolean(bool),
    /// INT.
    Int(i32),
    /// LONG.
    Long(i64),
    /// FLOAT.
    Float(#[serde(with = "float_text")] f32),
    /// DOUBLE.
    Double(#[serde(with = "float_text")] f64),
    /// BIG_DECIMAL: `unscaled * 10^-scale`.
    Decimal {
        /// The digits.
        unscaled: i128,
        /// Digits after the point.
        scale: i8,
    },
    /// TIMESTAMP: milliseconds since the epoch, UTC.
    Timestamp(i64),
    /// STRING and JSON.
    String(String),
    /// BYTES.
    Bytes(Vec<u8>),
    /// A multi-value column's values.
    List(Vec<Value>),
}

impl Value {
    /// Whether this is SQL's null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// Floats as text that reads back bit by bit (NaN without its payload).
mod float_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::fmt::Debug;
    use std::str::FromStr;

    pub(super) fn serialize<F: Debug, S: Serializer>(
        float: &F,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{float:?}"))
    }

    pub(super) fn deserialize<'de, F: FromStr, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<F, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse()
            .map_err(|_| de::Error::custom(format_args!("{text:?} is not a float")))
    }
}

#[cfg(test)]
mod tests {
    use super::Value;

    #[test]
    fn floats_come_back_from_json_as_they_were() {
        for float in [
            0.1 + 0.2,
            -0.0,
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            5e-324,
        ] {
            let json = serde_json::to_string(&Value::Double(float)).unwrap();
            let Value::Double(back) = serde_json::from_str(&json).unwrap() else {
                panic!("{json}")
            };
            assert_eq!(back.to_bits(), float.to_bits(), "{json}");
        }
        let json =
            serde_json::to_string(&vec![Value::Double(f64::NAN), Value::Float(16_777_217.0)])
                .unwrap();
        let back: Vec<Value> = serde_json::from_str(&json).unwrap();
        assert!(
            matches!(back[..], [Value::Double(nan), Value::Float(16_777_216.0)] if nan.is_nan())
        );
    }

    #[test]
    fn decimals_of_38_digits_come_back_from_json() {
        let value = Value::Decimal {
            unscaled: -99_999_999_999_999_999_999_999_999_999_999_999_999,
            scale: 10,
        };
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    }
}
