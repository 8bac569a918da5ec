//! One value of a column, a parameter or a bound.

use serde::{Deserialize, Serialize};

/// A value with its type. Lists hold elements of one type.
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
    Float(f32),
    /// DOUBLE.
    Double(f64),
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
