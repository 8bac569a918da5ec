//! One cell to one value of a type. Errors are the reason alone; the caller adds column and place.

use super::cell::Cell;
use super::{decimal, json};
use std::borrow::Cow;
use std::fmt::Write as _;
use strandline_proto::schema::DataType;
use strandline_proto::time_format::{TIME_MS_MAX, TIME_MS_MIN, instant};
use strandline_proto::value::Value;

/// Why a cell is no value of the type.
pub(crate) type Reason = String;

fn refused(cell: &Cell<'_>, wanted: &str) -> Reason {
    format!("{cell} is not {wanted}")
}

/// A whole number, or the reason why it is none. Out of range of i64 is said so.
pub(crate) fn integer(cell: &Cell<'_>) -> Result<i64, Reason> {
    match cell {
        Cell::Integer(v) | Cell::Timestamp(v) => Ok(*v),
        Cell::Date(v) => Ok(i64::from(*v)),
        Cell::Boolean(v) => Ok(i64::from(*v)),
        Cell::Float(v) => integer(&Cell::Double(f64::from(*v))),
        Cell::Double(v) => {
            // -2^63 is a float; 2^63 is the first float that does not fit.
            if v.fract() != 0.0 || !v.is_finite() {
                Err(refused(cell, "a whole number"))
            } else if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(v) {
                Ok(*v as i64)
            } else {
                Err(format!("{cell} is outside the range of 64-bit integers"))
            }
        }
        Cell::Decimal { unscaled, scale } => whole(*unscaled, i32::from(*scale), cell),
        Cell::Number(text) => integer_text(text, cell),
        Cell::Text(text) => integer_text(text.trim(), cell),
        _ => Err(refused(cell, "a whole number")),
    }
}

fn integer_text(text: &str, cell: &Cell<'_>) -> Result<i64, Reason> {
    if let Ok(v) = text.parse() {
        return Ok(v);
    }
    let (unscaled, scale) = decimal::parse(text).ok_or_else(|| refused(cell, "a whole number"))?;
    whole(unscaled, scale, cell)
}

fn whole(unscaled: i128, scale: i32, cell: &Cell<'_>) -> Result<i64, Reason> {
    if scale > 0 && decimal::rescale(unscaled, scale, 0).is_none() {
        return Err(refused(cell, "a whole number"));
    }
    decimal::rescale(unscaled, scale, 0)
        .and_then(|v| i64::try_from(v).ok())
        .ok_or_else(|| format!("{cell} is outside the range of 64-bit integers"))
}

/// A 32-bit whole number.
pub(crate) fn int(cell: &Cell<'_>) -> Result<i32, Reason> {
    if let Cell::Number(text) = cell
        && let Ok(v) = text.parse()
    {
        return Ok(v);
    }
    if matches!(cell, Cell::Timestamp(_)) {
        return Err(refused(cell, "an INT"));
    }
    i32::try_from(integer(cell)?)
        .map_err(|_| format!("{cell} is outside the range of INT (-2147483648 to 2147483647)"))
}

fn float_text(text: &str, cell: &Cell<'_>) -> Result<f64, Reason> {
    match text {
        "NaN" => return Ok(f64::NAN),
        "Infinity" | "+Infinity" => return Ok(f64::INFINITY),
        "-Infinity" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    // Rust reads `inf`, `nan` and their like as well; data must not.
    if !text
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
    {
        return Err(refused(cell, "a number"));
    }
    let value: f64 = text.parse().map_err(|_| refused(cell, "a number"))?;
    if value.is_finite() {
        Ok(value)
    } else {
        Err(format!("{cell} is outside the range of DOUBLE"))
    }
}

/// A double, rounded to the nearest.
pub(crate) fn double(cell: &Cell<'_>) -> Result<f64, Reason> {
    match cell {
        Cell::Double(v) => Ok(*v),
        Cell::Float(v) => Ok(f64::from(*v)),
        Cell::Integer(v) => Ok(*v as f64),
        Cell::Boolean(v) => Ok(f64::from(u8::from(*v))),
        Cell::Decimal { unscaled, scale } => float_text(&decimal::to_text(*unscaled, *scale), cell),
        Cell::Number(text) => float_text(text, cell),
        Cell::Text(text) => float_text(text.trim(), cell),
        _ => Err(refused(cell, "a number")),
    }
}

/// A float, rounded to the nearest; from text in one step, so that it is not rounded twice.
pub(crate) fn float(cell: &Cell<'_>) -> Result<f32, Reason> {
    let wide = double(cell)?;
    let narrow = match cell {
        Cell::Number(text) => text.parse().unwrap_or(wide as f32),
        Cell::Text(text) if wide.is_finite() => text.trim().parse().unwrap_or(wide as f32),
        Cell::Float(v) => *v,
        Cell::Integer(v) => *v as f32,
        _ => wide as f32,
    };
    if narrow.is_infinite() && wide.is_finite() {
        return Err(format!("{cell} is outside the range of FLOAT"));
    }
    Ok(narrow)
}

/// A decimal's digits at a scale, exact.
pub(crate) fn decimal(cell: &Cell<'_>, precision: u8, scale: i8) -> Result<i128, Reason> {
    let from_text = |text: &str| {
        decimal::parse(text).ok_or_else(|| refused(cell, "a decimal number of at most 38 digits"))
    };
    let (unscaled, from) = match cell {
        Cell::Integer(v) => (i128::from(*v), 0),
        Cell::Boolean(v) => (i128::from(*v), 0),
        Cell::Decimal { unscaled, scale } => (*unscaled, i32::from(*scale)),
        Cell::Float(v) if v.is_finite() => from_text(&format!("{v:?}"))?,
        Cell::Double(v) if v.is_finite() => from_text(&format!("{v:?}"))?,
        Cell::Number(text) => from_text(text)?,
        Cell::Text(text) => from_text(text.trim())?,
        _ => return Err(refused(cell, "a decimal number")),
    };
    let digits = decimal::rescale(unscaled, from, i32::from(scale)).ok_or_else(|| {
        format!("{cell} does not fit a decimal of {precision} digits, {scale} after the point")
    })?;
    if !decimal::fits(digits, precision) {
        return Err(format!(
            "{cell} does not fit a decimal of {precision} digits, {scale} after the point"
        ));
    }
    Ok(digits)
}

/// A truth value: true, false (text in any case), 1 or 0.
pub(crate) fn boolean(cell: &Cell<'_>) -> Result<bool, Reason> {
    let text = match cell {
        Cell::Boolean(v) => return Ok(*v),
        Cell::Integer(0) => return Ok(false),
        Cell::Integer(1) => return Ok(true),
        Cell::Number(text) => text,
        Cell::Text(text) => text.trim(),
        _ => return Err(refused(cell, "a BOOLEAN (true, false, 1 or 0)")),
    };
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(refused(cell, "a BOOLEAN (true, false, 1 or 0)")),
    }
}

/// Milliseconds since the epoch: a number of them, or ISO 8601 text.
pub(crate) fn timestamp(cell: &Cell<'_>) -> Result<i64, Reason> {
    let ms = match cell {
        Cell::Date(day) => i64::from(*day) * 86_400_000,
        Cell::Text(text) => {
            let text = text.trim();
            let ms = instant::parse_iso(text).or_else(|| text.parse().ok());
            ms.ok_or_else(|| {
                refused(
                    cell,
                    "a TIMESTAMP (milliseconds since the epoch, or as 2014-01-22T10:00:00Z)",
                )
            })?
        }
        Cell::Boolean(_) => return Err(refused(cell, "a TIMESTAMP")),
        _ => integer(cell).map_err(|_| {
            refused(
                cell,
                "a TIMESTAMP (milliseconds since the epoch, or as 2014-01-22T10:00:00Z)",
            )
        })?,
    };
    if !(TIME_MS_MIN..=TIME_MS_MAX).contains(&ms) {
        return Err(format!("the time {cell} is outside the years 1 to 9999"));
    }
    Ok(ms)
}

/// Appends a STRING: text as it is, numbers and times in their usual text, bytes in hex, objects as JSON.
pub(crate) fn write_text(cell: &Cell<'_>, out: &mut String) -> Result<(), Reason> {
    match cell {
        Cell::Text(text) => out.push_str(text),
        Cell::Document(text) => out.push_str(text),
        Cell::Number(text) => out.push_str(text),
        Cell::Bytes(bytes) => bytes.iter().for_each(|byte| {
            let _ = write!(out, "{byte:02x}");
        }),
        Cell::Integer(v) => {
            let _ = write!(out, "{v}");
        }
        Cell::Boolean(v) => out.push_str(if *v { "true" } else { "false" }),
        Cell::Float(v) if v.is_finite() => {
            let _ = write!(out, "{v:?}");
        }
        Cell::Float(v) => out.push_str(&double_text(f64::from(*v))),
        Cell::Double(v) => out.push_str(&double_text(*v)),
        Cell::Decimal { unscaled, scale } => out.push_str(&decimal::to_text(*unscaled, *scale)),
        Cell::Timestamp(ms) => out.push_str(&instant::format_iso(*ms)),
        Cell::Date(day) => {
            let text = instant::format_iso(i64::from(*day) * 86_400_000);
            out.push_str(text.split('T').next().unwrap_or(&text));
        }
        Cell::Null | Cell::JsonArray(_) | Cell::List(_) => {
            return Err(refused(cell, "a single value"));
        }
    }
    Ok(())
}

/// A double in its shortest exact text, `1.0` rather than `1`, with Java's names for what is not finite.
pub(crate) fn double_text(v: f64) -> String {
    if v.is_infinite() {
        return if v > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    format!("{v:?}")
}

/// The text of a cell, borrowed when it is text already.
pub(crate) fn text<'c>(cell: &'c Cell<'_>) -> Result<Cow<'c, str>, Reason> {
    if let Cell::Text(text) = cell {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::new();
    write_text(cell, &mut out)?;
    Ok(Cow::Owned(out))
}

/// Appends a JSON document: objects and arrays as they were written, text that is one itself, other values as JSON.
pub(crate) fn write_document(cell: &Cell<'_>, out: &mut String) -> Result<(), Reason> {
    match cell {
        Cell::JsonArray(text) => out.push_str(text),
        Cell::Text(text) => {
            json::check(text)
                .map_err(|reason| format!("{cell} is not a JSON document: {reason}"))?;
            out.push_str(text);
        }
        _ => write_json(cell, out),
    }
    Ok(())
}

/// Appends any cell as a JSON value.
pub(crate) fn write_json(cell: &Cell<'_>, out: &mut String) {
    match cell {
        Cell::Null => out.push_str("null"),
        Cell::JsonArray(text) => out.push_str(text),
        Cell::Document(text) => out.push_str(text),
        Cell::List(list) => {
            out.push('[');
            for (i, element) in list.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(element, out);
            }
            out.push(']');
        }
        Cell::Text(text) => json::write_string(text, out),
        Cell::Float(v) if !v.is_finite() => json::write_string(&double_text(f64::from(*v)), out),
        Cell::Double(v) if !v.is_finite() => json::write_string(&double_text(*v), out),
        Cell::Bytes(_) | Cell::Timestamp(_) | Cell::Date(_) => {
            let mut plain = String::new();
            // Only lists and nulls have no text.
            let _ = write_text(cell, &mut plain);
            json::write_string(&plain, out);
        }
        _ => {
            let _ = write_text(cell, out);
        }
    }
}

/// Appends BYTES: bytes as they are, text as hex digits.
pub(crate) fn write_bytes(cell: &Cell<'_>, out: &mut Vec<u8>) -> Result<(), Reason> {
    match cell {
        Cell::Bytes(bytes) => out.extend_from_slice(bytes),
        Cell::Text(text) => {
            let digits = text.as_bytes();
            if digits.len() % 2 != 0 {
                return Err(format!(
                    "{cell} is not BYTES: it has an odd number of hex digits"
                ));
            }
            let start = out.len();
            for pair in digits.chunks_exact(2) {
                match (
                    char::from(pair[0]).to_digit(16),
                    char::from(pair[1]).to_digit(16),
                ) {
                    (Some(high), Some(low)) => out.push((high * 16 + low) as u8),
                    _ => {
                        out.truncate(start);
                        return Err(format!("{cell} is not BYTES: write them as hex digits"));
                    }
                }
            }
        }
        _ => return Err(refused(cell, "BYTES (hex digits)")),
    }
    Ok(())
}

/// A single value of `data_type`; null stays null.
pub(crate) fn value(cell: &Cell<'_>, data_type: DataType) -> Result<Value, Reason> {
    if cell.is_null() {
        return Ok(Value::Null);
    }
    Ok(match data_type {
        DataType::Int => Value::Int(int(cell)?),
        DataType::Long => Value::Long(integer(cell)?),
        DataType::Float => Value::Float(float(cell)?),
        DataType::Double => Value::Double(double(cell)?),
        DataType::BigDecimal { precision, scale } => Value::Decimal {
            unscaled: decimal(cell, precision, scale)?,
            scale,
        },
        DataType::Boolean => Value::Boolean(boolean(cell)?),
        DataType::Timestamp => Value::Timestamp(timestamp(cell)?),
        DataType::String => {
            let mut out = String::new();
            write_text(cell, &mut out)?;
            Value::String(out)
        }
        DataType::Json => {
            let mut out = String::new();
            write_document(cell, &mut out)?;
            Value::String(out)
        }
        DataType::Bytes => {
            let mut out = Vec::new();
            write_bytes(cell, &mut out)?;
            Value::Bytes(out)
        }
    })
}
