//! Pinot's date-time formats: how a column's values write instants.
//!
//! An instant is a count of milliseconds since the epoch, UTC. A value writes the *start* of its step
//! (the day 16071 is 2014-01-01T00:00), so comparing a column with an instant needs care: the
//! only comparison offered is [`TimeFormat::first_at_or_after`], for which
//! `value >= first_at_or_after(t)` in the column's own order says exactly `to_ms(value) >= t`.

pub mod instant;
pub mod pattern;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::schema::DataType;
use crate::value::Value;
use pattern::TimePattern;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The first instant that a time column may hold: 0001-01-01T00:00:00Z.
pub const TIME_MS_MIN: i64 = -62_135_596_800_000;
/// The last instant that a time column may hold: 9999-12-31T23:59:59.999Z.
pub const TIME_MS_MAX: i64 = 253_402_300_799_999;

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

    /// Pinot's name of the unit.
    pub fn pinot_name(self) -> &'static str {
        match self {
            Self::Milliseconds => "MILLISECONDS",
            Self::Seconds => "SECONDS",
            Self::Minutes => "MINUTES",
            Self::Hours => "HOURS",
            Self::Days => "DAYS",
        }
    }

    /// The unit by Pinot's name, in any case.
    pub fn parse(text: &str) -> Result<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "MILLISECONDS" => Ok(Self::Milliseconds),
            "SECONDS" => Ok(Self::Seconds),
            "MINUTES" => Ok(Self::Minutes),
            "HOURS" => Ok(Self::Hours),
            "DAYS" => Ok(Self::Days),
            "MICROSECONDS" | "NANOSECONDS" => Err(Error::unsupported(format!(
                "not supported: time unit {text}; times are kept to the millisecond"
            ))),
            _ => Err(Error::invalid(format!(
                "unknown time unit '{text}': use MILLISECONDS, SECONDS, MINUTES, HOURS or DAYS"
            ))),
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
    /// Text in a pattern of Java's SimpleDateFormat: `1:DAYS:SIMPLE_DATE_FORMAT:yyyyMMdd`,
    /// `SIMPLE_DATE_FORMAT|yyyy-MM-dd`. The column may be STRING, or INT or LONG for patterns of digits.
    SimpleDate {
        /// The pattern.
        pattern: String,
        /// How far the written clock is ahead of UTC; 0 unless the format names a fixed offset.
        #[serde(default)]
        offset_minutes: i32,
    },
}

impl TimeFormat {
    /// Reads Pinot's notation, old (`1:DAYS:EPOCH`) and new (`EPOCH|DAYS|1`).
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let parsed = if text.starts_with(|c: char| c.is_ascii_digit()) {
            parse_old(text)
        } else {
            parse_new(text)
        };
        parsed.map_err(|e| e.at(format_args!("date-time format '{text}'")))
    }

    /// A format of text in `pattern`, its clock `offset_minutes` ahead of UTC.
    pub fn simple_date(pattern: &str, offset_minutes: i32) -> Result<Self> {
        TimePattern::compile(pattern)?;
        Ok(Self::SimpleDate {
            pattern: pattern.to_owned(),
            offset_minutes,
        })
    }

    /// Whether later instants have larger values in the column's own order, so that the column can be a hybrid table's time column.
    pub fn is_sortable(&self) -> bool {
        match self {
            Self::Epoch { .. } | Self::Timestamp => true,
            Self::SimpleDate { pattern, .. } => {
                TimePattern::compile(pattern).is_ok_and(|p| p.is_sortable())
            }
        }
    }

    /// Like [`TimeFormat::is_sortable`], for a column of `data_type`: numbers written in text are not in the order of their instants.
    pub fn is_sortable_in(&self, data_type: DataType) -> bool {
        self.check_type(data_type).is_ok()
            && match (self, data_type) {
                (_, DataType::Timestamp) => true,
                (Self::Epoch { .. } | Self::Timestamp, other) => {
                    matches!(other, DataType::Int | DataType::Long)
                }
                (Self::SimpleDate { .. }, _) => self.is_sortable(),
            }
    }

    /// Whether a column of `data_type` can write instants in this format; the error says what would do.
    pub fn check_type(&self, data_type: DataType) -> Result<()> {
        let fits = match (self, data_type) {
            (
                Self::Epoch {
                    size: 1,
                    unit: TimeUnit::Milliseconds,
                }
                | Self::Timestamp,
                DataType::Timestamp,
            ) => true,
            (Self::Epoch { .. }, DataType::Int | DataType::Long | DataType::String) => true,
            (Self::Timestamp, DataType::Long) => true,
            (Self::SimpleDate { .. }, DataType::String) => true,
            (Self::SimpleDate { pattern, .. }, DataType::Int) => TimePattern::compile(pattern)?
                .digits()
                .is_some_and(|n| n <= 10),
            (Self::SimpleDate { pattern, .. }, DataType::Long) => TimePattern::compile(pattern)?
                .digits()
                .is_some_and(|n| n <= 18),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let remedy = match self {
            Self::Epoch { .. } => "INT, LONG or STRING (TIMESTAMP for 1:MILLISECONDS:EPOCH)",
            Self::Timestamp => "TIMESTAMP or LONG",
            Self::SimpleDate { .. } => {
                "STRING, or INT or LONG when the pattern writes digits of fixed width only"
            }
        };
        Err(Error::invalid(format!(
            "a column of type {} can't hold times in the format {self}: use {remedy}",
            data_type.pinot_name()
        )))
    }

    /// The instant a value writes, in milliseconds since the epoch: the start of its step. None for null
    /// and for values that write no instant.
    pub fn to_ms(&self, value: &Value) -> Option<i64> {
        if let Value::Timestamp(ms) = value {
            return Some(*ms);
        }
        let number = match value {
            Value::Int(v) => Some(i64::from(*v)),
            Value::Long(v) => Some(*v),
            Value::String(_) => None,
            _ => return None,
        };
        match (self, number, value) {
            (Self::Timestamp, number, _) => number,
            (Self::Epoch { size, unit }, Some(number), _) => {
                number.checked_mul(step_ms(*size, *unit))
            }
            (Self::Epoch { size, unit }, None, Value::String(text)) => text
                .trim()
                .parse::<i64>()
                .ok()?
                .checked_mul(step_ms(*size, *unit)),
            (
                Self::SimpleDate {
                    pattern,
                    offset_minutes,
                },
                number,
                _,
            ) => {
                let pattern = TimePattern::compile(pattern).ok()?;
                let local = match (number, value) {
                    (Some(number), _) => pattern.parse_number(number)?,
                    (None, Value::String(text)) => pattern.parse(text)?,
                    _ => return None,
                };
                local.checked_sub(offset_ms(*offset_minutes))
            }
            _ => None,
        }
    }

    /// The smallest value of a column of `data_type` whose instant is at or after `time_ms`;
    /// for the bounds `i64::MIN` and `i64::MAX`, or ones outside the type, the type's nearest value. For text
    /// that is the empty text and a text above every date.
    pub fn first_at_or_after(&self, time_ms: i64, data_type: DataType) -> Value {
        match (self, data_type) {
            (_, DataType::Timestamp) => Value::Timestamp(time_ms),
            (Self::Epoch { size, unit }, _) => {
                let step = step_ms(*size, *unit);
                let steps = match time_ms {
                    i64::MIN | i64::MAX => time_ms,
                    _ => time_ms.div_euclid(step) + i64::from(time_ms.rem_euclid(step) > 0),
                };
                number_in(steps, data_type)
            }
            (Self::Timestamp, _) => number_in(time_ms, data_type),
            (
                Self::SimpleDate {
                    pattern,
                    offset_minutes,
                },
                _,
            ) => {
                let bound = |above: bool| match (data_type, above) {
                    (DataType::String | DataType::Json, false) => Value::String(String::new()),
                    (DataType::String | DataType::Json, true) => {
                        Value::String(char::MAX.to_string())
                    }
                    (_, false) => number_in(i64::MIN, data_type),
                    (_, true) => number_in(i64::MAX, data_type),
                };
                let Ok(pattern) = TimePattern::compile(pattern) else {
                    return Value::Null;
                };
                let local = time_ms.saturating_add(offset_ms(*offset_minutes));
                if local <= TIME_MS_MIN {
                    return bound(false);
                }
                match pattern.ceil(local).and_then(|ms| pattern.format(ms)) {
                    Some(text) => text_in(text, data_type),
                    None => bound(true),
                }
            }
        }
    }

    /// The value by which a column of `data_type` writes the instant: that of the step it falls in.
    /// Null when the column can't write it.
    pub fn format_ms(&self, time_ms: i64, data_type: DataType) -> Value {
        match (self, data_type) {
            (_, DataType::Timestamp) => Value::Timestamp(time_ms),
            (Self::Epoch { size, unit }, _) => {
                exact_number_in(time_ms.div_euclid(step_ms(*size, *unit)), data_type)
            }
            (Self::Timestamp, _) => exact_number_in(time_ms, data_type),
            (
                Self::SimpleDate {
                    pattern,
                    offset_minutes,
                },
                _,
            ) => TimePattern::compile(pattern)
                .ok()
                .and_then(|p| p.format(time_ms.checked_add(offset_ms(*offset_minutes))?))
                .map_or(Value::Null, |text| text_in(text, data_type)),
        }
    }

    /// [`TimeFormat::format_ms`] as text for people; `null` when the column can't write the instant.
    pub fn display_ms(&self, time_ms: i64, data_type: DataType) -> String {
        match self.format_ms(time_ms, data_type) {
            Value::Int(v) => v.to_string(),
            Value::Long(v) => v.to_string(),
            Value::Timestamp(ms) => instant::format_iso(ms),
            Value::String(text) => text,
            _ => "null".to_owned(),
        }
    }
}

impl fmt::Display for TimeFormat {
    /// Pinot's new notation, which [`TimeFormat::parse`] reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch { size, unit } => write!(f, "EPOCH|{}|{size}", unit.pinot_name()),
            Self::Timestamp => f.write_str("TIMESTAMP"),
            Self::SimpleDate {
                pattern,
                offset_minutes: 0,
            } => write!(f, "SIMPLE_DATE_FORMAT|{pattern}"),
            Self::SimpleDate {
                pattern,
                offset_minutes,
            } => {
                let sign = if *offset_minutes < 0 { '-' } else { '+' };
                let ahead = offset_minutes.unsigned_abs();
                write!(
                    f,
                    "SIMPLE_DATE_FORMAT|{pattern}|{sign}{:02}:{:02}",
                    ahead / 60,
                    ahead % 60
                )
            }
        }
    }
}

fn step_ms(size: u32, unit: TimeUnit) -> i64 {
    i64::from(size.max(1)) * unit.millis()
}

fn offset_ms(minutes: i32) -> i64 {
    i64::from(minutes) * 60_000
}

/// A number in a column's type, the nearest one when it does not fit.
fn number_in(number: i64, data_type: DataType) -> Value {
    match data_type {
        DataType::Int => Value::Int(number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32),
        DataType::Long => Value::Long(number),
        DataType::String | DataType::Json => Value::String(number.to_string()),
        DataType::Float | DataType::Double => Value::Double(number as f64),
        _ => Value::Null,
    }
}

fn exact_number_in(number: i64, data_type: DataType) -> Value {
    match data_type {
        DataType::Int if i32::try_from(number).is_err() => Value::Null,
        _ => number_in(number, data_type),
    }
}

fn text_in(text: String, data_type: DataType) -> Value {
    match data_type {
        DataType::String | DataType::Json => Value::String(text),
        _ => text
            .parse()
            .map_or(Value::Null, |number| number_in(number, data_type)),
    }
}

/// `1:DAYS:EPOCH`, `1:MILLISECONDS:TIMESTAMP`, `1:DAYS:SIMPLE_DATE_FORMAT:yyyyMMdd tz(UTC)`.
fn parse_old(text: &str) -> Result<TimeFormat> {
    let mut parts = text.splitn(4, ':');
    let (size, unit, kind) = match (parts.next(), parts.next(), parts.next()) {
        (Some(size), Some(unit), Some(kind)) => (size, unit, kind),
        _ => {
            return Err(Error::invalid(
                "write it as size:unit:EPOCH, or in the new notation, EPOCH|unit|size",
            ));
        }
    };
    let pattern = parts.next();
    match (kind, pattern) {
        ("EPOCH", None) => Ok(TimeFormat::Epoch {
            size: parse_size(size)?,
            unit: TimeUnit::parse(unit)?,
        }),
        ("TIMESTAMP", None) => Ok(TimeFormat::Timestamp),
        ("SIMPLE_DATE_FORMAT", Some(pattern)) => {
            parse_size(size)?;
            let (pattern, zone) = match pattern.rfind("tz(") {
                Some(at) => {
                    let zone = pattern[at + 3..].trim_end().strip_suffix(')');
                    let zone = zone
                        .ok_or_else(|| Error::invalid("the zone is not closed: write tz(UTC)"))?;
                    (pattern[..at].trim_end(), Some(zone))
                }
                None => (pattern, None),
            };
            TimeFormat::simple_date(pattern, zone.map_or(Ok(0), parse_zone)?)
        }
        _ => Err(unknown_kind(kind, pattern)),
    }
}

/// `EPOCH|DAYS|1`, `TIMESTAMP`, `SIMPLE_DATE_FORMAT|yyyyMMdd|UTC`.
fn parse_new(text: &str) -> Result<TimeFormat> {
    let mut parts = text.split('|');
    let kind = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    match (kind, rest.as_slice()) {
        ("EPOCH", [unit]) => Ok(TimeFormat::Epoch {
            size: 1,
            unit: TimeUnit::parse(unit)?,
        }),
        ("EPOCH", [unit, size]) => Ok(TimeFormat::Epoch {
            size: parse_size(size)?,
            unit: TimeUnit::parse(unit)?,
        }),
        ("TIMESTAMP", []) => Ok(TimeFormat::Timestamp),
        ("SIMPLE_DATE_FORMAT", [pattern]) => TimeFormat::simple_date(pattern, 0),
        ("SIMPLE_DATE_FORMAT", [pattern, zone]) => {
            TimeFormat::simple_date(pattern, parse_zone(zone)?)
        }
        _ => Err(unknown_kind(kind, rest.first().copied())),
    }
}

fn unknown_kind(kind: &str, pattern: Option<&str>) -> Error {
    match (kind, pattern) {
        ("SIMPLE_DATE_FORMAT", None) => {
            Error::invalid("the pattern is missing: write SIMPLE_DATE_FORMAT|yyyy-MM-dd")
        }
        ("EPOCH", None) => Error::invalid("the unit is missing: write EPOCH|DAYS"),
        ("EPOCH" | "TIMESTAMP" | "SIMPLE_DATE_FORMAT", _) => Error::invalid("too many parts"),
        _ => Error::invalid(
            "use EPOCH, TIMESTAMP or SIMPLE_DATE_FORMAT, as in EPOCH|DAYS|1 or 1:DAYS:EPOCH",
        ),
    }
}

fn parse_size(text: &str) -> Result<u32> {
    match text.trim().parse::<u32>() {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(Error::invalid(format!(
            "the size '{text}' is not a whole number from 1 to {}",
            u32::MAX
        ))),
    }
}

/// Minutes ahead of UTC of a zone's name; zones whose offset changes over the year are refused.
fn parse_zone(zone: &str) -> Result<i32> {
    let zone = zone.trim();
    if matches!(
        zone.to_ascii_uppercase().as_str(),
        "UTC" | "GMT" | "Z" | "UT" | "ETC/UTC" | "ETC/GMT" | "ZULU"
    ) {
        return Ok(0);
    }
    let offset = zone
        .strip_prefix("UTC")
        .or_else(|| zone.strip_prefix("GMT"))
        .unwrap_or(zone);
    instant::parse_offset_minutes(offset).ok_or_else(|| {
        Error::unsupported(format!(
            "not supported: time zone '{zone}'; only UTC and fixed offsets such as +05:30 give every value one instant"
        ))
    })
}
