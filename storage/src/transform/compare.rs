//! How two values that are there follow each other, whatever the source wrote them as.
//!
//! The kinder type decides how the other one is read: a truth value, a time, bytes, a number; two texts are compared
//! by their characters. Numbers are compared exactly, and as 64-bit floats where one of them is a float. NaN equals
//! itself and comes after all other numbers, as in PostgreSQL.

use crate::convert::{Cell, decimal, scalar};
use std::cmp::Ordering;

/// The order of two values, neither of which is null.
pub(super) fn order(left: &Cell<'_>, right: &Cell<'_>) -> Result<Ordering, String> {
    use Cell as C;
    let nested = |cell: &Cell<'_>| matches!(cell, C::Document(_) | C::JsonArray(_) | C::List(_));
    if nested(left) || nested(right) {
        return Err(format!("{left} can't be compared with {right}"));
    }
    match (left, right) {
        (C::Boolean(_), _) | (_, C::Boolean(_)) => {
            Ok(scalar::boolean(left)?.cmp(&scalar::boolean(right)?))
        }
        (C::Bytes(_), _) | (_, C::Bytes(_)) => Ok(bytes(left)?.cmp(&bytes(right)?)),
        (C::Text(left), C::Text(right)) => Ok(left.as_bytes().cmp(right.as_bytes())),
        (C::Timestamp(_), C::Date(_) | C::Text(_) | C::Timestamp(_))
        | (C::Date(_), C::Timestamp(_) | C::Text(_) | C::Date(_))
        | (C::Text(_), C::Timestamp(_) | C::Date(_)) => {
            Ok(scalar::timestamp(left)?.cmp(&scalar::timestamp(right)?))
        }
        _ => Ok(numbers(&Number::of(left)?, &Number::of(right)?)),
    }
}

fn bytes(cell: &Cell<'_>) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    scalar::write_bytes(cell, &mut out)?;
    Ok(out)
}

enum Number {
    /// Digits and how many of them are after the point.
    Exact(i128, i32),
    Float(f64),
}

impl Number {
    fn of(cell: &Cell<'_>) -> Result<Self, String> {
        let from_text = |text: &str| match decimal::parse(text) {
            Some((unscaled, scale)) => Ok(Self::Exact(unscaled, scale)),
            None => scalar::double(cell).map(Self::Float),
        };
        match cell {
            Cell::Integer(v) | Cell::Timestamp(v) => Ok(Self::Exact(i128::from(*v), 0)),
            Cell::Date(v) => Ok(Self::Exact(i128::from(*v), 0)),
            Cell::Decimal { unscaled, scale } => Ok(Self::Exact(*unscaled, i32::from(*scale))),
            Cell::Number(text) => from_text(text),
            Cell::Text(text) => from_text(text.trim()),
            _ => scalar::double(cell).map(Self::Float),
        }
    }

    fn float(&self) -> f64 {
        match self {
            Self::Float(v) => *v,
            Self::Exact(unscaled, 0) => *unscaled as f64,
            // Reading a text rounds once; dividing would round twice.
            Self::Exact(unscaled, scale) => {
                let text = format!("{unscaled}e{}", -i64::from(*scale));
                text.parse().unwrap_or(f64::NAN)
            }
        }
    }
}

fn numbers(left: &Number, right: &Number) -> Ordering {
    let (Number::Exact(a, a_scale), Number::Exact(b, b_scale)) = (left, right) else {
        let (a, b) = (left.float(), right.float());
        return a
            .partial_cmp(&b)
            .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
    };
    let scale = (*a_scale).max(*b_scale);
    // Only the one with fewer digits after the point grows, so one that grows out of 128 bits is the larger by far.
    let sign_of = |v: i128| v.cmp(&0);
    match (
        decimal::rescale(*a, *a_scale, scale),
        decimal::rescale(*b, *b_scale, scale),
    ) {
        (Some(a), Some(b)) => a.cmp(&b),
        (None, _) => sign_of(*a),
        (_, None) => sign_of(*b).reverse(),
    }
}
