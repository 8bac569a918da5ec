//! A value as a file or a message holds it, before the schema's type is put on it.

use std::borrow::Cow;
use std::fmt;
use strandline_proto::time_format::instant;

/// One loosely typed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Absent or null.
    Null,
    /// A truth value.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A binary float of 32 bits.
    Float(f32),
    /// A binary float of 64 bits.
    Double(f64),
    /// `unscaled * 10^-scale`.
    Decimal {
        /// The digits.
        unscaled: i128,
        /// Digits after the point.
        scale: i8,
    },
    /// A JSON number as it was written, so that no digit is lost.
    Number(&'a str),
    /// Milliseconds since the epoch.
    Timestamp(i64),
    /// Days since the epoch.
    Date(i32),
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A JSON object as text.
    Document(Cow<'a, str>),
    /// A JSON array as text, not yet read.
    JsonArray(&'a str),
    /// Values in order.
    List(Vec<Cell<'a>>),
}

/// Characters of a value that an error shows.
const SHOWN_CHARS_MAX: usize = 64;

impl Cell<'_> {
    /// Whether this is one value, neither null nor nested.
    pub(crate) fn is_scalar(&self) -> bool {
        !matches!(
            self,
            Self::Null | Self::Document(_) | Self::JsonArray(_) | Self::List(_)
        )
    }

    /// Whether nothing is here.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

/// As an error shows it: cut, text in quotes.
impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Boolean(v) => v.fmt(f),
            Self::Integer(v) => v.fmt(f),
            Self::Float(v) => write!(f, "{v:?}"),
            Self::Double(v) => write!(f, "{v:?}"),
            Self::Decimal { unscaled, scale } => {
                f.write_str(&super::decimal::to_text(*unscaled, *scale))
            }
            Self::Number(text) => shown(text, f),
            Self::Timestamp(v) => f.write_str(&instant::format_iso(*v)),
            Self::Date(v) => write!(f, "day {v}"),
            Self::Text(text) => {
                f.write_str("'")?;
                shown(text, f)?;
                f.write_str("'")
            }
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Document(text) => shown(text, f),
            Self::JsonArray(text) => shown(text, f),
            Self::List(list) => write!(f, "a list of {} values", list.len()),
        }
    }
}

fn shown(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => write!(
            f,
            "{}...",
            text.get(..end).unwrap_or_default().escape_debug()
        ),
        None => write!(f, "{}", text.escape_debug()),
    }
}
