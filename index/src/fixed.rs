//! Values of fixed width: how each type is stored, ordered, hashed and found in buffers.
//!
//! Each maps to an unsigned key in the order of the values (floats in total order), so that a test
//! against bounds is one subtraction and one comparison of integers, whatever the type.

use crate::hash::{hash_u64, hash_u128};
use crate::reader::{PhysicalType, Scalar, ValueBuffer};

/// An unsigned integer in the order of the values it stands for.
pub trait Key: Copy + Ord + Send + Sync + std::fmt::Debug + 'static {
    /// The smallest.
    const LOWEST: Self;
    /// The largest.
    const HIGHEST: Self;
    /// `self - other`, wrapping.
    fn minus(self, other: Self) -> Self;
    /// The next larger.
    fn next(self) -> Option<Self>;
    /// The next smaller.
    fn previous(self) -> Option<Self>;
    /// As 128 bits.
    fn wide(self) -> u128;
}

macro_rules! key {
    ($($t:ty),*) => {$(
        impl Key for $t {
            const LOWEST: Self = 0;
            const HIGHEST: Self = <$t>::MAX;
            #[inline(always)]
            fn minus(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }
            fn wide(self) -> u128 {
                u128::from(self)
            }
        }
    )*};
}
key!(u32, u64, u128);

/// A type of fixed width.
pub trait Fixed: Copy + Default + Send + Sync + std::fmt::Debug + 'static {
    /// The type's name.
    const PHYSICAL: PhysicalType;
    /// Bytes of a stored value.
    const WIDTH: usize;
    /// A stored value: `WIDTH` bytes, little-endian.
    type Le: Copy;
    /// What values are ordered by.
    type Key: Key;
    /// From stored bytes.
    fn of_le(le: Self::Le) -> Self;
    /// The whole values in stored bytes.
    fn table(bytes: &[u8]) -> &[Self::Le];
    /// Appends the value's stored bytes.
    fn put(self, out: &mut Vec<u8>);
    /// The key.
    fn key(self) -> Self::Key;
    /// The value of a key.
    fn of_key(key: Self::Key) -> Self;
    /// The stable hash.
    fn hash(self) -> u64;
    /// As a scalar.
    fn scalar(self) -> Scalar<'static>;
    /// From a scalar of this type.
    fn from_scalar(value: &Scalar<'_>) -> Option<Self>;
    /// The values of a buffer of this type.
    fn slice(buffer: &ValueBuffer) -> Option<&[Self]>;
    /// A buffer of this type.
    fn buffer(buffer: &mut ValueBuffer) -> Option<&mut Vec<Self>>;
}

macro_rules! fixed {
    ($t:ty, $variant:ident, $width:literal, $key:ty, $to_key:expr, $of_key:expr, $hash:expr) => {
        impl Fixed for $t {
            const PHYSICAL: PhysicalType = PhysicalType::$variant;
            const WIDTH: usize = $width;
            type Le = [u8; $width];
            type Key = $key;
            #[inline(always)]
            fn of_le(le: Self::Le) -> Self {
                <$t>::from_le_bytes(le)
            }
            fn table(bytes: &[u8]) -> &[Self::Le] {
                bytes.as_chunks::<$width>().0
            }
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            #[inline(always)]
            fn key(self) -> Self::Key {
                ($to_key)(self)
            }
            fn of_key(key: Self::Key) -> Self {
                ($of_key)(key)
            }
            #[inline]
            fn hash(self) -> u64 {
                ($hash)(self)
            }
            fn scalar(self) -> Scalar<'static> {
                Scalar::$variant(self)
            }
            fn from_scalar(value: &Scalar<'_>) -> Option<Self> {
                match value {
                    Scalar::$variant(v) => Some(*v),
                    _ => None,
                }
            }
            fn slice(buffer: &ValueBuffer) -> Option<&[Self]> {
                match buffer {
                    ValueBuffer::$variant(v) => Some(v),
                    _ => None,
                }
            }
            fn buffer(buffer: &mut ValueBuffer) -> Option<&mut Vec<Self>> {
                match buffer {
                    ValueBuffer::$variant(v) => Some(v),
                    _ => None,
                }
            }
        }
    };
}

fixed!(
    i32,
    I32,
    4,
    u32,
    |v: i32| v as u32 ^ 1 << 31,
    |key: u32| (key ^ 1 << 31) as i32,
    |v: i32| hash_u64(u64::from(v as u32))
);
fixed!(
    i64,
    I64,
    8,
    u64,
    |v: i64| v as u64 ^ 1 << 63,
    |key: u64| (key ^ 1 << 63) as i64,
    |v: i64| hash_u64(v as u64)
);
fixed!(
    i128,
    I128,
    16,
    u128,
    |v: i128| v as u128 ^ 1 << 127,
    |key: u128| (key ^ 1 << 127) as i128,
    |v: i128| hash_u128(v as u128)
);
fixed!(
    f32,
    F32,
    4,
    u32,
    |v: f32| {
        let bits = v.to_bits();
        bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
    },
    |key: u32| f32::from_bits(key ^ (!(key as i32 >> 31) as u32 | 1 << 31)),
    |v: f32| hash_u64(u64::from(v.to_bits()))
);
fixed!(
    f64,
    F64,
    8,
    u64,
    |v: f64| {
        let bits = v.to_bits();
        bits ^ ((bits as i64 >> 63) as u64 | 1 << 63)
    },
    |key: u64| f64::from_bits(key ^ (!(key as i64 >> 63) as u64 | 1 << 63)),
    |v: f64| hash_u64(v.to_bits())
);

/// Runs `$fixed` with `$t` bound to the type that a [`PhysicalType`] names, or `$bytes`.
macro_rules! by_type {
    ($physical:expr, $t:ident => $fixed:expr, bytes => $bytes:expr) => {
        match $physical {
            $crate::reader::PhysicalType::I32 => {
                type $t = i32;
                $fixed
            }
            $crate::reader::PhysicalType::I64 => {
                type $t = i64;
                $fixed
            }
            $crate::reader::PhysicalType::F32 => {
                type $t = f32;
                $fixed
            }
            $crate::reader::PhysicalType::F64 => {
                type $t = f64;
                $fixed
            }
            $crate::reader::PhysicalType::I128 => {
                type $t = i128;
                $fixed
            }
            $crate::reader::PhysicalType::Bytes => $bytes,
        }
    };
}
pub(crate) use by_type;

/// The keys, both included, of values between two bounds (value, included); none when there can be none.
pub fn key_bounds<T: Fixed>(
    low: Option<(&Scalar<'_>, bool)>,
    high: Option<(&Scalar<'_>, bool)>,
) -> Option<(T::Key, T::Key)> {
    let low = match low {
        None => T::Key::LOWEST,
        Some((value, true)) => T::from_scalar(value)?.key(),
        Some((value, false)) => T::from_scalar(value)?.key().next()?,
    };
    let high = match high {
        None => T::Key::HIGHEST,
        Some((value, true)) => T::from_scalar(value)?.key(),
        Some((value, false)) => T::from_scalar(value)?.key().previous()?,
    };
    (low <= high).then_some((low, high))
}
