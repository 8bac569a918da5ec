//! A split-block bloom filter over the distinct values of a column.
//!
//! ```text
//! | blocks u32 | 0 u32 | block 0: eight words u32 | block 1 | ... |
//! ```
//!
//! A value's [hash](crate::hash) chooses a block by its high half, and by its low half one bit in each of the
//! block's eight words. At twelve bits a value about one absent value in two hundred is not told apart.

use crate::hash::hash_scalar;
use crate::reader::{IndexError, Scalar};
use crate::wire::{corrupt, u32_at};
use bytes::Bytes;

const HEADER: usize = 8;
const BLOCK: usize = 32;
const BITS_PER_VALUE: u64 = 12;
/// Odd multipliers, one for each word of a block.
const ODD: [u32; 8] = [
    0x9e37_79b1,
    0x85eb_ca77,
    0xc2b2_ae3d,
    0x27d4_eb2f,
    0x1656_67b1,
    0xd3a2_646d,
    0xfd70_46c5,
    0xb55a_4f09,
];

/// A filter over stored bytes.
#[derive(Clone, Debug)]
pub struct BloomFilter {
    blocks: u32,
    bits: Bytes,
}

/// The block of a hash and the bit in each word.
fn place(hash: u64, blocks: u32) -> (usize, [u32; 8]) {
    let block = (((hash >> 32) * u64::from(blocks)) >> 32) as usize;
    (
        block,
        ODD.map(|odd| 1 << ((hash as u32).wrapping_mul(odd) >> 27)),
    )
}

impl BloomFilter {
    /// Appends the stored form of a filter for the values of `hashes`, `count` in all.
    pub(crate) fn write(count: u64, hashes: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
        let blocks = (count * BITS_PER_VALUE)
            .div_ceil(BLOCK as u64 * 8)
            .clamp(1, 1 << 26) as u32;
        let mut words = vec![[0u32; 8]; blocks as usize];
        for hash in hashes {
            let (block, bits) = place(hash, blocks);
            for (word, bit) in words[block].iter_mut().zip(bits) {
                *word |= bit;
            }
        }
        out.extend_from_slice(&blocks.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        words
            .iter()
            .flatten()
            .for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    /// A filter over its stored bytes.
    ///
    /// # Errors
    /// When the bytes can't be a filter.
    pub fn open(bytes: Bytes) -> Result<Self, IndexError> {
        let blocks = u32_at(&bytes, 0)?;
        let expected = (blocks as usize)
            .saturating_mul(BLOCK)
            .saturating_add(HEADER);
        if blocks == 0 || bytes.len() != expected {
            return Err(corrupt(format!(
                "a bloom filter of {blocks} blocks in {} bytes",
                bytes.len()
            )));
        }
        Ok(Self {
            blocks,
            bits: bytes.slice(HEADER..),
        })
    }

    /// False when the filter was not made with `value`.
    pub fn may_contain(&self, value: &Scalar<'_>) -> bool {
        let (block, bits) = place(hash_scalar(value), self.blocks);
        match self.bits.as_chunks::<4>().0.as_chunks::<8>().0.get(block) {
            Some(words) => words
                .iter()
                .zip(bits)
                .all(|(word, bit)| u32::from_le_bytes(*word) & bit != 0),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_absent_values_pass_and_all_present_ones_do() {
        let hash = |n: i64| hash_scalar(&Scalar::I64(n));
        let mut bytes = Vec::new();
        BloomFilter::write(10_000, (0..10_000).map(|n| hash(n * 2)), &mut bytes);
        let filter = BloomFilter::open(Bytes::from(bytes)).unwrap();
        assert!((0..10_000).all(|n| filter.may_contain(&Scalar::I64(n * 2))));
        let passed = (0..10_000)
            .filter(|n| filter.may_contain(&Scalar::I64(n * 2 + 1)))
            .count();
        assert!(passed < 150, "{passed} of 10,000 absent values pass");
    }
}
