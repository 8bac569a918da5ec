//! The 64-bit hash of a value's canonical bytes: stable, because bloom filters store its outcome.
//!
//! Integers and floats hash their bit pattern (so `0.0` and `-0.0` differ, as they do in total order), bytes
//! are taken eight at a time, little-endian, the rest padded with zeros; the length is mixed in.

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
const SEED: u64 = 0x5851_f42d_4c95_7f2d;

/// High and low half of a product folded together.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of a bit pattern of at most 64 bits.
pub(crate) fn hash_u64(bits: u64) -> u64 {
    let x = fold(bits ^ SEED, MULTIPLIER);
    (x ^ (x >> 32)).wrapping_mul(MULTIPLIER | 1) ^ (x >> 29)
}

/// The hash of a bit pattern of 128 bits.
pub(crate) fn hash_u128(bits: u128) -> u64 {
    hash_u64(hash_u64(bits as u64) ^ ((bits >> 64) as u64).rotate_left(31))
}

/// The hash of bytes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut state = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), MULTIPLIER).rotate_left(23);
    }
    let mut last = [0u8; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    hash_u64(state ^ u64::from_le_bytes(last))
}

/// The hash of any value.
pub(crate) fn hash_scalar(value: &crate::reader::Scalar<'_>) -> u64 {
    use crate::fixed::Fixed;
    use crate::reader::Scalar;
    match value {
        Scalar::I32(v) => v.hash(),
        Scalar::I64(v) => v.hash(),
        Scalar::F32(v) => v.hash(),
        Scalar::F64(v) => v.hash(),
        Scalar::I128(v) => v.hash(),
        Scalar::Bytes(v) => hash_bytes(v),
    }
}
