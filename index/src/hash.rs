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
    let last = match (bytes.last_chunk::<8>(), rest.len()) {
        (_, 0) => 0,
        // What stands before the rest is shifted out.
        (Some(last), len) => u64::from_le_bytes(*last) >> (64 - 8 * len),
        (None, _) => rest
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    hash_u64(state ^ last)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_stored_filters_hold() {
        let hashes = [
            hash_u64(0),
            hash_u64(1),
            hash_u128(1 << 100),
            hash_bytes(b""),
            hash_bytes(b"strandline"),
        ];
        let stored = [
            0x3fcb_9187_9f77_0957,
            0x5a69_cd9f_7854_65d8,
            0xce9a_f53a_656c_f684,
            0,
            0x55d6_2e23_85f4_e393,
        ];
        assert_eq!(hashes, stored);
    }

    #[test]
    fn the_rest_of_a_text_is_padded_with_zeros() {
        let text: Vec<u8> = (1..=40).collect();
        for len in 0..text.len() {
            let text = &text[..len];
            let mut state = SEED ^ (len as u64).wrapping_mul(MULTIPLIER);
            let (words, rest) = text.as_chunks::<8>();
            for word in words {
                state = fold(state ^ u64::from_le_bytes(*word), MULTIPLIER).rotate_left(23);
            }
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            let expected = hash_u64(state ^ u64::from_le_bytes(last));
            assert_eq!(hash_bytes(text), expected, "{len} bytes");
        }
    }

    #[test]
    fn hashes_of_near_values_spread_in_both_halves() {
        let mut low: Vec<u32> = (0..100_000).map(|n| hash_u64(n) as u32).collect();
        let mut high: Vec<u32> = (0..100_000).map(|n| (hash_u64(n) >> 32) as u32).collect();
        for half in [&mut low, &mut high] {
            half.sort_unstable();
            half.dedup();
            assert!(half.len() > 99_900, "{} distinct halves", half.len());
        }
    }
}
