//! Fixed-width bit packing in blocks of 1,024 values.
//!
//! A block is a grid: value `i` lies in row `i / L` of lane `i % L`, with `L` = 32 lanes of 32-bit words, or
//! 16 lanes of 64-bit words for widths above 32. Within a lane the rows follow each other bit by bit, lowest
//! bit first; word `w` of all lanes stands together:
//!
//! ```text
//! | lane 0 word 0 | lane 1 word 0 | ... | lane L-1 word 0 | lane 0 word 1 | ... | lane L-1 word width-1 |
//! ```
//!
//! so that unpacking a row is one shift and one mask over neighbouring words, the same for all lanes, which
//! compiles to vector instructions without any being written. A block of width `w` takes `128 * w` bytes in
//! either grid; the last block is padded with zeros. Words are little-endian, at any alignment.

use crate::reader::{DocSelection, IndexError};
use crate::widest::widest;
use crate::wire::corrupt;
use bytes::Bytes;

/// Values of a block.
pub const BLOCK: usize = 1024;

/// Values of one block that make unpacking it whole cheaper than picking them out, where they are scattered.
const UNPACK_SCATTERED_FROM: usize = 96;
/// Likewise where they stand together.
const UNPACK_RANGE_FROM: usize = 24;

/// Bits that hold any value up to `max`.
pub fn bits_for(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// Bytes of one block.
pub fn block_len(width: u32) -> usize {
    width as usize * (BLOCK / 8)
}

macro_rules! grid {
    ($word:ty, $bytes:literal, $lanes:literal, $pack:ident, $unpack:ident, $rows:ident, $pick:ident) => {
        /// Appends a block of at most 1,024 values below `2^width` to `out`.
        pub fn $pack(values: &[$word], width: u32, out: &mut Vec<u8>) {
            const BITS: u32 = <$word>::BITS;
            let mut words = [0 as $word; BLOCK];
            for (i, &value) in values.iter().take(BLOCK).enumerate() {
                if width == 0 {
                    break;
                }
                let (row, lane) = ((i / $lanes) as u32, i % $lanes);
                let (word, shift) = ((row * width / BITS) as usize, row * width % BITS);
                words[word * $lanes + lane] |= value << shift;
                if shift + width > BITS {
                    words[(word + 1) * $lanes + lane] |= value >> (BITS - shift);
                }
            }
            for word in &words[..width as usize * $lanes] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }

        /// Unpacks a block of `width` bits; zeros where `packed` is too short to be one.
        pub fn $unpack(packed: &[u8], width: u32, out: &mut [$word; BLOCK]) {
            widest(|| $rows(packed, width, out));
        }

        #[inline(always)]
        fn $rows(packed: &[u8], width: u32, out: &mut [$word; BLOCK]) {
            const BITS: u32 = <$word>::BITS;
            let groups = packed.as_chunks::<$bytes>().0.as_chunks::<$lanes>().0;
            if width == 0 || width > BITS || groups.len() < width as usize {
                out.fill(0);
                return;
            }
            let mask = <$word>::MAX >> (BITS - width);
            for (row, values) in out.as_chunks_mut::<$lanes>().0.iter_mut().enumerate() {
                let bit = row as u32 * width;
                let (word, shift) = ((bit / BITS) as usize, bit % BITS);
                let first = &groups[word];
                if shift + width <= BITS {
                    for (value, low) in values.iter_mut().zip(first) {
                        *value = (<$word>::from_le_bytes(*low) >> shift) & mask;
                    }
                } else {
                    let second = &groups[word + 1];
                    for ((value, low), high) in values.iter_mut().zip(first).zip(second) {
                        let low = <$word>::from_le_bytes(*low) >> shift;
                        let high = <$word>::from_le_bytes(*high) << (BITS - shift);
                        *value = (low | high) & mask;
                    }
                }
            }
        }

        /// Value `i` of a block; 0 where `packed` is too short.
        #[inline]
        pub fn $pick(packed: &[u8], width: u32, i: usize) -> $word {
            const BITS: u32 = <$word>::BITS;
            if width == 0 || width > BITS || i >= BLOCK {
                return 0;
            }
            let words = packed.as_chunks::<$bytes>().0;
            let bit = (i / $lanes) as u32 * width;
            let (at, shift) = ((bit / BITS) as usize * $lanes + i % $lanes, bit % BITS);
            let word = |at: usize| words.get(at).map_or(0, |w| <$word>::from_le_bytes(*w));
            let mut value = word(at) >> shift;
            if shift + width > BITS {
                value |= word(at + $lanes) << (BITS - shift);
            }
            value & (<$word>::MAX >> (BITS - width))
        }
    };
}
grid!(u32, 4, 32, pack_u32, unpack_u32, unpack_rows_u32, pick_u32);
grid!(u64, 8, 16, pack_u64, unpack_u64, unpack_rows_u64, pick_u64);

/// Runs of `docs` that lie in one block: the block's number and the positions within `docs`.
fn by_block(docs: &[u32]) -> impl Iterator<Item = (usize, &[u32])> {
    docs.chunk_by(|a, b| a >> 10 == b >> 10)
        .filter_map(|run| Some((*run.first()? as usize >> 10, run)))
}

/// Values in packed blocks, read a block at a time.
pub(crate) trait Blocks {
    /// What is packed.
    type Value: Copy + Default;

    /// How many values.
    fn len(&self) -> usize;

    /// Value `i`; zero past the end.
    fn get(&self, i: usize) -> Self::Value;

    /// Unpacks a whole block; zeros where it has fewer values.
    fn unpack(&self, block: usize, out: &mut [Self::Value; BLOCK]);

    /// Gives the values of `start..end`, block by block.
    fn for_blocks(&self, start: usize, end: usize, mut sink: impl FnMut(&[Self::Value])) {
        let end = end.min(self.len());
        let mut scratch = [Self::Value::default(); BLOCK];
        let mut at = start;
        while at < end {
            let block = at / BLOCK;
            let until = end.min((block + 1) * BLOCK);
            if until - at < UNPACK_RANGE_FROM {
                for (slot, i) in scratch.iter_mut().zip(at..until) {
                    *slot = self.get(i);
                }
                sink(&scratch[..until - at]);
            } else {
                self.unpack(block, &mut scratch);
                sink(&scratch[at - block * BLOCK..until - block * BLOCK]);
            }
            at = until;
        }
    }

    /// Gives the values at ascending positions, at most 1,024 at a time.
    fn for_positions(&self, docs: &[u32], mut sink: impl FnMut(&[Self::Value])) {
        let mut scratch = [Self::Value::default(); BLOCK];
        let mut picked = [Self::Value::default(); BLOCK];
        for (block, run) in by_block(docs) {
            let whole = run.len() >= UNPACK_SCATTERED_FROM;
            if whole {
                self.unpack(block, &mut scratch);
            }
            for part in run.chunks(BLOCK) {
                if whole {
                    for (slot, &doc) in picked.iter_mut().zip(part) {
                        *slot = scratch[doc as usize % BLOCK];
                    }
                } else {
                    for (slot, &doc) in picked.iter_mut().zip(part) {
                        *slot = self.get(doc as usize);
                    }
                }
                sink(&picked[..part.len()]);
            }
        }
    }

    /// Gives the values of a selection, at most 1,024 at a time.
    fn for_each(&self, docs: &DocSelection<'_>, sink: impl FnMut(&[Self::Value])) {
        match docs {
            DocSelection::Range(range) => {
                self.for_blocks(range.start as usize, range.end as usize, sink)
            }
            DocSelection::Docs(docs) => self.for_positions(docs, sink),
        }
    }
}

impl Blocks for PackedIds {
    type Value = u32;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, i: usize) -> u32 {
        pick_u32(self.block(i / BLOCK), self.width, i % BLOCK)
    }

    fn unpack(&self, block: usize, out: &mut [u32; BLOCK]) {
        unpack_u32(self.block(block), self.width, out);
    }
}

/// Packed dictionary ids, one width for all blocks.
#[derive(Clone, Debug)]
pub(crate) struct PackedIds {
    bytes: Bytes,
    width: u32,
    len: usize,
}

impl PackedIds {
    /// Packs `ids`, each below `2^width`.
    pub(crate) fn write(ids: &[u32], width: u32, out: &mut Vec<u8>) {
        out.reserve(ids.len().div_ceil(BLOCK) * block_len(width));
        for block in ids.chunks(BLOCK) {
            pack_u32(block, width, out);
        }
    }

    pub(crate) fn open(bytes: Bytes, width: u32, len: usize) -> Result<Self, IndexError> {
        if width > 32 {
            return Err(corrupt(format!("packed ids of {width} bits")));
        }
        let expected = len.div_ceil(BLOCK).checked_mul(block_len(width));
        if expected != Some(bytes.len()) {
            return Err(corrupt(format!(
                "{len} ids of {width} bits in {} bytes",
                bytes.len()
            )));
        }
        Ok(Self { bytes, width, len })
    }

    fn block(&self, block: usize) -> &[u8] {
        let len = block_len(self.width);
        block
            .checked_mul(len)
            .and_then(|at| self.bytes.get(at..at + len))
            .unwrap_or_default()
    }

    /// The largest id; none when there are no ids.
    pub(crate) fn max(&self) -> Option<u32> {
        let mut max = None;
        self.for_blocks(0, self.len, |ids| max = max.max(ids.iter().copied().max()));
        max
    }

    /// Whether the ids ascend.
    pub(crate) fn is_ascending(&self) -> bool {
        let (mut previous, mut ascending) = (0, true);
        self.for_blocks(0, self.len, |ids| {
            ascending &= ids.first().is_none_or(|&first| previous <= first) && ids.is_sorted();
            previous = ids.last().copied().unwrap_or(previous);
        });
        ascending
    }

    /// In ascending ids: the position of the first that is not below `id`.
    pub(crate) fn first_not_below(&self, id: u32) -> u32 {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle) < id {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_gives_back_what_was_packed() {
        for width in 0..=64u32 {
            let mask = if width == 0 {
                0
            } else {
                u64::MAX >> (64 - width)
            };
            for count in [1usize, 31, 512, 1023, 1024] {
                let value = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask;
                let values: Vec<u64> = (0..count).map(value).collect();
                let mut packed = Vec::new();
                pack_u64(&values, width, &mut packed);
                assert_eq!(packed.len(), block_len(width));
                let mut out = [1; BLOCK];
                unpack_u64(&packed, width, &mut out);
                assert_eq!(out[..count], values);
                assert!((0..count).all(|i| pick_u64(&packed, width, i) == values[i]));
                if width <= 32 {
                    let values: Vec<u32> = values.iter().map(|&v| v as u32).collect();
                    packed.clear();
                    pack_u32(&values, width, &mut packed);
                    assert_eq!(packed.len(), block_len(width));
                    let mut out = [1; BLOCK];
                    unpack_u32(&packed, width, &mut out);
                    assert_eq!(out[..count], values);
                    assert!((0..count).all(|i| pick_u32(&packed, width, i) == values[i]));
                }
            }
        }
    }

    #[test]
    fn bytes_too_short_for_a_block_give_zeros() {
        let mut out = [1; BLOCK];
        unpack_u32(&[0xff; 100], 9, &mut out);
        assert_eq!(out, [0; BLOCK]);
        assert_eq!(pick_u32(&[0xff; 3], 9, 1000), 0);
        assert_eq!(pick_u64(&[], 64, 0), 0);
        assert!(PackedIds::open(Bytes::from_static(&[0; 100]), 9, 500).is_err());
        assert!(PackedIds::open(Bytes::new(), 33, 0).is_err());
    }
}
