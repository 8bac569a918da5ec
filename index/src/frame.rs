//! Integers by frame of reference: each block of 1,024 is its smallest value and bit-packed differences.
//!
//! ```text
//! | count u64 | block 0: base i64, place u64 | block 1: ... | packed blocks |
//! ```
//!
//! `place` is the width in bits (low byte, 0 to 64) and the block's offset within the packed blocks
//! (the rest). Widths up to 32 use the grid of 32-bit words, larger ones that of 64-bit words.

use crate::bitpack::{
    BLOCK, Blocks, bits_for, block_len, pack_u32, pack_u64, pick_u32, pick_u64, unpack_u32,
    unpack_u64,
};
use crate::reader::IndexError;
use crate::wire::{corrupt, part, size_at};
use bytes::Bytes;

const HEADER: usize = 8;
const ENTRY: usize = 16;

/// Integers of up to 64 bits.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    directory: Bytes,
    packed: Bytes,
    len: usize,
}

impl Frame {
    /// Appends the stored form of `count` values, which are asked for by block.
    pub(crate) fn write(count: usize, mut value: impl FnMut(usize) -> i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&(count as u64).to_le_bytes());
        let mut directory = Vec::new();
        let mut packed = Vec::new();
        let mut values = Vec::with_capacity(BLOCK);
        for start in (0..count).step_by(BLOCK) {
            values.clear();
            values.extend((start..count.min(start + BLOCK)).map(&mut value));
            let base = values.iter().copied().min().unwrap_or(0);
            let max = values.iter().copied().max().unwrap_or(0);
            let width = bits_for(max.wrapping_sub(base) as u64);
            directory.extend_from_slice(&base.to_le_bytes());
            directory
                .extend_from_slice(&((packed.len() as u64) << 8 | u64::from(width)).to_le_bytes());
            if width <= 32 {
                let deltas: Vec<u32> = values.iter().map(|v| v.wrapping_sub(base) as u32).collect();
                pack_u32(&deltas, width, &mut packed);
            } else {
                let deltas: Vec<u64> = values.iter().map(|v| v.wrapping_sub(base) as u64).collect();
                pack_u64(&deltas, width, &mut packed);
            }
        }
        out.extend_from_slice(&directory);
        out.extend_from_slice(&packed);
    }

    pub(crate) fn open(bytes: Bytes) -> Result<Self, IndexError> {
        let len = size_at(&bytes, 0)?;
        let blocks = len.div_ceil(BLOCK);
        let directory_len = blocks
            .checked_mul(ENTRY)
            .ok_or_else(|| corrupt("a count of integers too large"))?;
        let directory = part(&bytes, HEADER, directory_len)?;
        let packed = bytes.slice(HEADER + directory_len..);
        let frame = Self {
            directory,
            packed,
            len,
        };
        let mut expected = 0usize;
        for block in 0..blocks {
            let (_, width, start) = frame.entry(block);
            if width > 64 || start != expected {
                return Err(corrupt(format!(
                    "block {block} of packed integers is misplaced"
                )));
            }
            expected += block_len(width);
        }
        if expected != frame.packed.len() {
            return Err(corrupt(format!(
                "{} bytes of packed integers, {expected} were expected",
                frame.packed.len()
            )));
        }
        Ok(frame)
    }

    /// Base, width and offset of a block.
    fn entry(&self, block: usize) -> (i64, u32, usize) {
        match self.directory.as_chunks::<ENTRY>().0.get(block) {
            Some([b0, b1, b2, b3, b4, b5, b6, b7, place @ ..]) => {
                let place = u64::from_le_bytes(*place);
                let base = i64::from_le_bytes([*b0, *b1, *b2, *b3, *b4, *b5, *b6, *b7]);
                (base, (place & 0xff) as u32, (place >> 8) as usize)
            }
            None => (0, 0, 0),
        }
    }

    fn packed(&self, start: usize, width: u32) -> &[u8] {
        self.packed
            .get(start..start + block_len(width))
            .unwrap_or_default()
    }

    /// The last value, 0 without values; none when they don't ascend from 0 or a later number.
    pub(crate) fn last_if_ascending(&self) -> Option<i64> {
        let (mut previous, mut ascending) = (0, true);
        self.for_blocks(0, self.len, |block| {
            ascending &= block.first().is_none_or(|&first| first >= previous) && block.is_sorted();
            previous = block.last().copied().unwrap_or(previous);
        });
        ascending.then_some(previous)
    }
}

impl Blocks for Frame {
    type Value = i64;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, i: usize) -> i64 {
        let (base, width, start) = self.entry(i / BLOCK);
        let packed = self.packed(start, width);
        let delta = if width <= 32 {
            u64::from(pick_u32(packed, width, i % BLOCK))
        } else {
            pick_u64(packed, width, i % BLOCK)
        };
        base.wrapping_add(delta as i64)
    }

    fn unpack(&self, block: usize, out: &mut [i64; BLOCK]) {
        let (base, width, start) = self.entry(block);
        let packed = self.packed(start, width);
        if width <= 32 {
            let mut deltas = [0u32; BLOCK];
            unpack_u32(packed, width, &mut deltas);
            for (value, delta) in out.iter_mut().zip(&deltas) {
                *value = base.wrapping_add(i64::from(*delta));
            }
        } else {
            let mut deltas = [0u64; BLOCK];
            unpack_u64(packed, width, &mut deltas);
            for (value, delta) in out.iter_mut().zip(&deltas) {
                *value = base.wrapping_add(*delta as i64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::DocSelection;

    #[test]
    fn extremes_and_narrow_blocks_come_back() {
        let mut values: Vec<i64> = vec![i64::MIN, i64::MAX, 0, -1];
        values.extend((0..3000).map(|i| 1_700_000_000_000 + i * 250));
        values.extend([7; 2000]);
        values.extend((0..700).map(|i| i64::from(i % 3) << 40));
        let mut bytes = Vec::new();
        Frame::write(values.len(), |i| values[i], &mut bytes);
        let frame = Frame::open(Bytes::from(bytes)).unwrap();
        let mut all = Vec::new();
        frame.for_blocks(0, values.len(), |block| all.extend_from_slice(block));
        assert_eq!(all, values);
        assert!((0..values.len()).all(|i| frame.get(i) == values[i]));
        let docs: Vec<u32> = (0..values.len() as u32)
            .filter(|d| d % 5 == 0 || *d < 1300)
            .collect();
        let mut picked = Vec::new();
        frame.for_each(&DocSelection::Docs(&docs), |block| {
            picked.extend_from_slice(block)
        });
        assert!(
            picked
                .iter()
                .zip(&docs)
                .all(|(v, &d)| *v == values[d as usize])
                && picked.len() == docs.len()
        );
        assert_eq!(frame.last_if_ascending(), None);
    }
}
