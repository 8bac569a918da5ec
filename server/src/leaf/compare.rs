//! Exact comparison of a column's values with values of any other comparable type.
//!
//! Every fixed-width value is mapped to an integer key of the same order (floats by their total order), and
//! an operand of whatever type to its *place* among a column's keys: at one of them, or between two neighbours.
//! So an INT column against 2.5, a LONG against 10^30 or a FLOAT against 0.1 is never rounded.

use std::cmp::Ordering;
use strandline_index::Scalar;
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// An integer that orders a column's values.
trait Key: Copy + TryFrom<i128> {
    /// The smallest key.
    const MIN: Self;
    /// The largest key.
    const MAX: Self;
    /// The key after this one.
    fn next(self) -> Option<Self>;
    /// The key before this one.
    fn previous(self) -> Option<Self>;
}

macro_rules! keys {
    ($($native:ty),*) => {$(
        impl Key for $native {
            const MIN: Self = <$native>::MIN;
            const MAX: Self = <$native>::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )*};
}
keys!(i32, i64, i128);

/// The key of a float: ascending as `f32::total_cmp` orders, but for -0.0, which is the same value as 0.0.
#[inline]
pub(super) fn f32_key(value: f32) -> i32 {
    // Adding 0.0 changes no other value.
    let bits = (value + 0.0).to_bits() as i32;
    bits ^ (((bits >> 31) as u32) >> 1) as i32
}

/// The float of a key.
#[inline]
pub(super) fn f32_of_key(key: i32) -> f32 {
    f32::from_bits((key ^ (((key >> 31) as u32) >> 1) as i32) as u32)
}

/// The key of a float: ascending as `f64::total_cmp` orders, but for -0.0, which is the same value as 0.0.
#[inline]
pub(super) fn f64_key(value: f64) -> i64 {
    // Adding 0.0 changes no other value.
    let bits = (value + 0.0).to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The float of a key.
#[inline]
pub(super) fn f64_of_key(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// Where a value lies among those that a column can hold, or their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place<K> {
    /// It is one of them.
    At(K),
    /// It lies between the greatest smaller one and the smallest greater one, where there are such.
    Between(Option<K>, Option<K>),
}

impl<K> Place<K> {
    fn map<V>(self, of: impl Fn(K) -> V) -> Place<V> {
        match self {
            Self::At(key) => Place::At(of(key)),
            Self::Between(below, above) => Place::Between(below.map(&of), above.map(&of)),
        }
    }
}

/// The place of `value`, not null, among the values that a column of `column` can hold.
pub(super) fn place(value: &Value, column: DataType) -> Result<Place<Scalar<'static>>> {
    let number = matches!(
        value,
        Value::Int(_) | Value::Long(_) | Value::Float(_) | Value::Double(_) | Value::Decimal { .. }
    );
    Ok(match (column, value) {
        (DataType::Int, _) if number => place_integer(floor_scaled(value, 0)?).map(Scalar::I32),
        (DataType::Long, _) if number => place_integer(floor_scaled(value, 0)?).map(Scalar::I64),
        (DataType::BigDecimal { scale, .. }, _) if number => {
            place_integer(floor_scaled(value, scale)?).map(Scalar::I128)
        }
        (DataType::Double, _) if number => {
            place_f64(value)?.map(|key| Scalar::F64(f64_of_key(key)))
        }
        (DataType::Float, _) if number => place_f32(value)?.map(|key| Scalar::F32(f32_of_key(key))),
        (DataType::Boolean, Value::Boolean(v)) => Place::At(Scalar::I32(i32::from(*v))),
        (DataType::Timestamp, Value::Timestamp(v)) => Place::At(Scalar::I64(*v)),
        (DataType::String | DataType::Json | DataType::Bytes, Value::String(text)) => {
            Place::At(Scalar::Bytes(text.clone().into_bytes().into()))
        }
        (DataType::String | DataType::Json | DataType::Bytes, Value::Bytes(bytes)) => {
            Place::At(Scalar::Bytes(bytes.clone().into()))
        }
        _ => {
            return Err(Error::invalid(format!(
                "a {} column can't be compared with {}",
                column.pinot_name(),
                describe(value)
            )));
        }
    })
}

/// A column's value as it is stored; an error when `value` is not exactly one.
pub(super) fn scalar_of(value: &Value, column: DataType) -> Result<Scalar<'static>> {
    match (place(value, column)?, value) {
        (Place::At(scalar), _) => Ok(scalar),
        // A FLOAT's default may be written in decimals that no float is: the nearest one is meant.
        (_, Value::Double(v)) if column == DataType::Float => Ok(Scalar::F32(*v as f32)),
        _ => Err(Error::invalid(format!(
            "{} is not a value of type {}",
            describe(value),
            column.pinot_name()
        ))),
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(v) => format!("the boolean {v}"),
        Value::Int(v) => format!("the integer {v}"),
        Value::Long(v) => format!("the integer {v}"),
        Value::Float(v) => format!("the float {v}"),
        Value::Double(v) => format!("the double {v}"),
        Value::Decimal { unscaled, scale } => {
            format!("the decimal {unscaled}e{}", -i32::from(*scale))
        }
        Value::Timestamp(v) => format!("the timestamp of {v} ms"),
        Value::String(v) => format!("the text {v:?}"),
        Value::Bytes(v) => format!("{} bytes", v.len()),
        Value::List(_) => "a list".to_owned(),
    }
}

/// The greatest integer that is not above a number, or on which side of all `i128` the number lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Floor {
    Below,
    At { floor: i128, exact: bool },
    Above,
}

fn place_integer<K: Key>(floor: Floor) -> Place<K> {
    match floor {
        Floor::Below => Place::Between(None, Some(K::MIN)),
        Floor::Above => Place::Between(Some(K::MAX), None),
        Floor::At { floor, exact } => match (K::try_from(floor), exact) {
            (Ok(key), true) => Place::At(key),
            (Ok(key), false) => Place::Between(Some(key), key.next()),
            (Err(_), _) if floor < 0 => Place::Between(None, Some(K::MIN)),
            (Err(_), _) => Place::Between(Some(K::MAX), None),
        },
    }
}

/// The floor of `value * 10^scale`.
fn floor_scaled(value: &Value, scale: i8) -> Result<Floor> {
    Ok(match value {
        Value::Int(v) => decimal_floor(i128::from(*v), 0, scale),
        Value::Long(v) => decimal_floor(i128::from(*v), 0, scale),
        Value::Decimal {
            unscaled,
            scale: from,
        } => decimal_floor(*unscaled, *from, scale),
        Value::Float(v) => float_floor(f64::from(*v), scale),
        Value::Double(v) => float_floor(*v, scale),
        _ => return Err(Error::internal("a number was expected")),
    })
}

fn decimal_floor(unscaled: i128, from: i8, to: i8) -> Floor {
    let steps = i32::from(to) - i32::from(from);
    let power = 10_i128.checked_pow(steps.unsigned_abs());
    let beyond = if unscaled < 0 {
        Floor::Below
    } else {
        Floor::Above
    };
    match (steps >= 0, power) {
        _ if unscaled == 0 => Floor::At {
            floor: 0,
            exact: true,
        },
        (true, Some(power)) => unscaled
            .checked_mul(power)
            .map_or(beyond, |floor| Floor::At { floor, exact: true }),
        (true, None) => beyond,
        (false, Some(power)) => Floor::At {
            floor: unscaled.div_euclid(power),
            exact: unscaled.rem_euclid(power) == 0,
        },
        (false, None) => Floor::At {
            floor: if unscaled < 0 { -1 } else { 0 },
            exact: false,
        },
    }
}

/// Exact for every double: the fraction is multiplied by ten digit by digit, in 1,088 bits.
fn float_floor(value: f64, scale: i8) -> Floor {
    let negative = value.is_sign_negative();
    let beyond = if negative { Floor::Below } else { Floor::Above };
    if !value.is_finite() {
        return beyond;
    }
    let whole = value.trunc();
    if whole.abs() >= 2f64.powi(127) {
        return beyond;
    }
    let scale = scale.max(0) as u32;
    let (digits, rest) = fraction_digits((value - whole).abs(), scale);
    let magnitude = 10_i128
        .checked_pow(scale)
        .and_then(|power| (whole.abs() as i128).checked_mul(power))
        .and_then(|magnitude| magnitude.checked_add(digits));
    match magnitude {
        None => beyond,
        Some(magnitude) if negative => Floor::At {
            floor: -magnitude - i128::from(rest),
            exact: !rest,
        },
        Some(magnitude) => Floor::At {
            floor: magnitude,
            exact: !rest,
        },
    }
}

/// The first `count` decimal digits after the point of `fraction`, in [0, 1), and whether any more follow.
fn fraction_digits(fraction: f64, count: u32) -> (i128, bool) {
    const LIMBS: usize = 17;
    let bits = fraction.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as usize;
    let mantissa = bits & ((1 << 52) - 1) | u64::from(exponent > 0) << 52;
    // The value is mantissa * 2^(max(exponent, 1) - 1075); limbs hold it times 2^1088, lowest first.
    let shift = exponent.max(1) + 13;
    let mut limbs = [0u64; LIMBS + 1];
    let placed = u128::from(mantissa) << (shift % 64);
    limbs[(shift / 64).min(LIMBS)] = placed as u64;
    if let Some(high) = limbs.get_mut(shift / 64 + 1) {
        *high = (placed >> 64) as u64;
    }
    let mut digits = 0i128;
    for _ in 0..count {
        let mut carry = 0u128;
        for limb in &mut limbs[..LIMBS] {
            let product = u128::from(*limb) * 10 + carry;
            *limb = product as u64;
            carry = product >> 64;
        }
        digits = digits * 10 + carry as i128;
    }
    (digits, limbs[..LIMBS].iter().any(|&limb| limb != 0))
}

/// The order of a double and `unscaled * 10^-scale`.
fn compare_f64(float: f64, unscaled: i128, scale: i8) -> Ordering {
    let (unscaled, scale) = if scale < 0 {
        match 10_i128
            .checked_pow(u32::from(scale.unsigned_abs()))
            .and_then(|power| unscaled.checked_mul(power))
        {
            Some(unscaled) => (unscaled, 0),
            // Beyond every i128: compare as doubles, whose rounding can't change the order at this size.
            None => return float.total_cmp(&decimal_as_f64(unscaled, scale)),
        }
    } else {
        (unscaled, scale)
    };
    match float_floor(float, scale) {
        Floor::Below => Ordering::Less,
        Floor::Above => Ordering::Greater,
        Floor::At { floor, exact } => match floor.cmp(&unscaled) {
            Ordering::Equal if exact => Ordering::Equal,
            Ordering::Equal => Ordering::Greater,
            order => order,
        },
    }
}

/// The nearest double.
fn decimal_as_f64(unscaled: i128, scale: i8) -> f64 {
    format!("{unscaled}e{}", -i32::from(scale))
        .parse()
        .unwrap_or(f64::NAN)
}

fn digits_of(value: &Value) -> Result<(i128, i8)> {
    match value {
        Value::Int(v) => Ok((i128::from(*v), 0)),
        Value::Long(v) => Ok((i128::from(*v), 0)),
        Value::Decimal { unscaled, scale } => Ok((*unscaled, *scale)),
        _ => Err(Error::internal("a decimal number was expected")),
    }
}

fn place_f64(value: &Value) -> Result<Place<i64>> {
    Ok(match value {
        Value::Double(v) => Place::At(f64_key(*v)),
        Value::Float(v) => Place::At(f64_key(f64::from(*v))),
        exact => {
            let (unscaled, scale) = digits_of(exact)?;
            let near = decimal_as_f64(unscaled, scale);
            beside(f64_key(near), compare_f64(near, unscaled, scale))
        }
    })
}

fn place_f32(value: &Value) -> Result<Place<i32>> {
    Ok(match value {
        Value::Float(v) => Place::At(f32_key(*v)),
        Value::Double(v) => {
            let near = *v as f32;
            beside(f32_key(near), f64::from(near).total_cmp(v))
        }
        exact => {
            let (unscaled, scale) = digits_of(exact)?;
            let near = decimal_as_f64(unscaled, scale) as f32;
            beside(f32_key(near), compare_f64(f64::from(near), unscaled, scale))
        }
    })
}

/// The place of a value that the nearest key compares to as `near`.
fn beside<K: Key>(key: K, near: Ordering) -> Place<K> {
    match near {
        Ordering::Equal => Place::At(key),
        Ordering::Less => Place::Between(Some(key), key.next()),
        Ordering::Greater => Place::Between(key.previous(), Some(key)),
    }
}

#[cfg(test)]
mod tests;
