//! The order of values across numeric types, exactly: nothing is rounded to compare it.

use std::cmp::Ordering;
use strandline_proto::value::Value;

/// How `a` compares with `b`; none when they are of types that don't compare, or one is null or a list.
/// Floats are in total order, but for `-0.0`, which equals zero.
pub fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    use Value as V;
    Some(match (a, b) {
        (V::Boolean(a), V::Boolean(b)) => a.cmp(b),
        (V::String(a), V::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (V::Bytes(a), V::Bytes(b)) => a.cmp(b),
        (V::Timestamp(a), V::Timestamp(b)) => a.cmp(b),
        _ => match (number(a)?, number(b)?) {
            (Number::Integer(a), Number::Integer(b)) => a.cmp(&b),
            (Number::Float(a), Number::Float(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
            (Number::Decimal(a, a_scale), Number::Decimal(b, b_scale)) => {
                compare_decimals(a, a_scale, b, b_scale)?
            }
            (Number::Integer(a), Number::Decimal(b, scale)) => compare_decimals(a, 0, b, scale)?,
            (Number::Decimal(a, scale), Number::Integer(b)) => compare_decimals(a, scale, b, 0)?,
            (Number::Integer(a), Number::Float(b)) => compare_integer_float(a, b),
            (Number::Float(a), Number::Integer(b)) => compare_integer_float(b, a).reverse(),
            (Number::Decimal(..), Number::Float(_)) | (Number::Float(_), Number::Decimal(..)) => {
                return None;
            }
        },
    })
}

enum Number {
    Integer(i128),
    Float(f64),
    Decimal(i128, i8),
}

fn number(value: &Value) -> Option<Number> {
    Some(match value {
        Value::Int(v) => Number::Integer(i128::from(*v)),
        Value::Long(v) => Number::Integer(i128::from(*v)),
        Value::Float(v) => Number::Float(f64::from(*v)),
        Value::Double(v) => Number::Float(*v),
        Value::Decimal { unscaled, scale } => Number::Decimal(*unscaled, *scale),
        _ => return None,
    })
}

fn compare_decimals(a: i128, a_scale: i8, b: i128, b_scale: i8) -> Option<Ordering> {
    let difference = i32::from(a_scale) - i32::from(b_scale);
    let factor = 10_i128.checked_pow(difference.unsigned_abs())?;
    // A product that doesn't fit is larger in magnitude than any value of the other side.
    let overflow = |scaled: i128| {
        if scaled > 0 {
            Ordering::Greater
        } else {
            Ordering::Less
        }
    };
    Some(if difference >= 0 {
        b.checked_mul(factor)
            .map_or_else(|| overflow(b).reverse(), |b| a.cmp(&b))
    } else {
        a.checked_mul(factor)
            .map_or_else(|| overflow(a), |a| a.cmp(&b))
    })
}

fn compare_integer_float(integer: i128, float: f64) -> Ordering {
    if float.is_nan() {
        return if float.is_sign_positive() {
            Ordering::Less
        } else {
            Ordering::Greater
        };
    }
    if float >= 2f64.powi(127) {
        return Ordering::Less;
    }
    if float < -2f64.powi(127) {
        return Ordering::Greater;
    }
    let whole = float.trunc();
    let by_whole = integer.cmp(&(whole as i128));
    if by_whole != Ordering::Equal {
        return by_whole;
    }
    match (float - whole).partial_cmp(&0.0) {
        Some(Ordering::Greater) => Ordering::Less,
        Some(Ordering::Less) => Ordering::Greater,
        _ => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_exactly_across_types() {
        let less = [
            (Value::Long(i64::MAX), Value::Double(9.3e18)),
            (
                Value::Long((1 << 53) + 1),
                Value::Double(9_007_199_254_740_994.0),
            ),
            (
                Value::Double(9_007_199_254_740_992.0),
                Value::Long((1 << 53) + 1),
            ),
            (Value::Int(2), Value::Double(2.5)),
            (Value::Double(-2.5), Value::Int(-2)),
            (Value::Double(f64::INFINITY), Value::Double(f64::NAN)),
            (Value::Int(7), Value::Double(f64::NAN)),
            (
                Value::Decimal {
                    unscaled: 15,
                    scale: 1,
                },
                Value::Int(2),
            ),
            (
                Value::Decimal {
                    unscaled: 149,
                    scale: 2,
                },
                Value::Decimal {
                    unscaled: 15,
                    scale: 1,
                },
            ),
            (
                Value::Decimal {
                    unscaled: 1,
                    scale: 38,
                },
                Value::Decimal {
                    unscaled: i128::MAX,
                    scale: 0,
                },
            ),
        ];
        for (a, b) in less {
            assert_eq!(compare(&a, &b), Some(Ordering::Less), "{a:?} {b:?}");
            assert_eq!(compare(&b, &a), Some(Ordering::Greater), "{b:?} {a:?}");
        }
        for (a, b) in [
            (Value::Int(3), Value::Float(3.0)),
            (Value::Double(-0.0), Value::Int(0)),
            (Value::Double(-0.0), Value::Float(0.0)),
        ] {
            assert_eq!(compare(&a, &b), Some(Ordering::Equal), "{a:?} {b:?}");
        }
        assert_eq!(compare(&Value::Int(3), &Value::String("3".into())), None);
    }
}
