//! Pinot's date-time formats: how a column's values write instants.

use crate::error::{Error, Result};
use crate::schema::DataType;
use crate::value::Value;
use serde::{Deserialize, Serialize};

/// Units of epoch formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each name is its unit")]
pub enum TimeUnit {
    Milliseconds,
    Seconds,
    Minutes,
    Hours,
    Days,
}

impl TimeUnit {
    /// Milliseconds in one.
    pub fn millis(self) -> i64 {
        match self {
            Self::Milliseconds => 1,
            Self::Seconds => 1_000,
            Self::Minutes => 60_000,
            Self::Hours => 3_600_000,
            Self::Days => 86_400_000,
        }
    }
}

/// How a date-time column writes instants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeFormat {
    /// A count of `size` units since the epoch: `1:DAYS:EPOCH`, `EPOCH|SECONDS|10`.
    Epoch {
        /// Units in one step, at least 1.
        size: u32,
        /// The unit.
        unit: TimeUnit,
    },
    /// A TIMESTAMP: `1:MILLISECONDS:TIMESTAMP`, `TIMESTAMP`.
    Timestamp,
    /// Text in a pattern of Java's SimpleDateFormat, UTC: `1:DAYS:SIMPLE_DATE_FORMAT:yyyyMMdd`,
    /// `SIMPLE_DATE_FORMAT|yyyy-MM-dd`. The column may be STRING, or INT or LONG for patterns of digits.
    SimpleDate {
        /// The pattern.
        pattern: String,
    },
}

impl TimeFormat {
    /// Reads Pinot's notation, old (`1:DAYS:EPOCH`) and new (`EPOCH|DAYS|1`).
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        Err(Error::unsupported("not supported: this date-time format"))
    }

    /// Whether later instants have larger values in the column's own order, so that the column can be a hybrid table's time column.
    pub fn is_sortable(&self) -> bool {
        match self {
            Self::Epoch { .. } | Self::Timestamp => true,
            Self::SimpleDate { .. } => false,
        }
    }

    /// The instant a value writes, in milliseconds since the epoch: the start of its step. None for null
    /// and for values that write no instant.
    pub fn to_ms(&self, value: &Value) -> Option<i64> {
        let _ = value;
        None
    }

    /// The smallest value of a column of `data_type` whose instant is at or after `time_ms`;
    /// for the bounds `i64::MIN` and `i64::MAX`, or ones outside the type, the type's nearest value.
    pub fn first_at_or_after(&self, time_ms: i64, data_type: DataType) -> Value {
        let _ = (time_ms, data_type);
        Value::Null
    }
}
