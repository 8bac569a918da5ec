//! Cells as JSON, in Pinot's manner: numbers exact, BIG_DECIMAL and TIMESTAMP as text, BYTES in hex.

use super::cells::{Cell, cell, write_timestamp};
use std::fmt::Write as _;

/// Appends `text` as a JSON string.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        // Every byte matched above is ASCII, so both ends of the slice are character boundaries.
        out.push_str(text.get(plain_from..at).unwrap_or_default());
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        plain_from = at + 1;
    }
    out.push_str(text.get(plain_from..).unwrap_or_default());
    out.push('"');
}

fn write_float(finite: Option<String>, nan: bool, positive: bool, out: &mut String) {
    match finite {
        Some(digits) => out.push_str(&digits),
        None if nan => out.push_str("\"NaN\""),
        None if positive => out.push_str("\"Infinity\""),
        None => out.push_str("\"-Infinity\""),
    }
}

/// Appends a cell as a JSON value.
pub fn write_cell(value: &Cell<'_>, out: &mut String) {
    match value {
        Cell::Null => out.push_str("null"),
        Cell::Boolean(v) => out.push_str(if *v { "true" } else { "false" }),
        Cell::Int(v) => {
            let _ = write!(out, "{v}");
        }
        Cell::Long(v) => {
            let _ = write!(out, "{v}");
        }
        Cell::UnsignedLong(v) => {
            let _ = write!(out, "{v}");
        }
        // `{:?}` gives the shortest digits that read back as the same number, with a point or an exponent.
        Cell::Float(v) => write_float(
            v.is_finite().then(|| format!("{v:?}")),
            v.is_nan(),
            *v > 0.0,
            out,
        ),
        Cell::Double(v) => write_float(
            v.is_finite().then(|| format!("{v:?}")),
            v.is_nan(),
            *v > 0.0,
            out,
        ),
        Cell::Decimal(digits) => write_string(digits, out),
        Cell::Timestamp(nanos) => {
            out.push('"');
            write_timestamp(*nanos, out);
            out.push('"');
        }
        Cell::Text(text) => write_string(text, out),
        Cell::Other(text) => write_string(text, out),
        Cell::Bytes(bytes) => {
            out.push('"');
            out.push_str(&hex::encode(bytes));
            out.push('"');
        }
        Cell::List(elements) => {
            out.push('[');
            for row in 0..elements.len() {
                if row > 0 {
                    out.push(',');
                }
                write_cell(&cell(elements.as_ref(), row), out);
            }
            out.push(']');
        }
    }
}
