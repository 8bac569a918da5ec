//! A range index: the values' keys cut into bit slices, so that a test against two bounds is a few word
//! operations for every 64 rows. Exact.
//!
//! ```text
//! | rows u32 | blocks u32 | entry 0 | entry 1 | ... | slices of block 0 | slices of block 1 | ... |
//! entry: | smallest key u128 | largest key minus smallest u128 | offset of the slices u64 |
//! ```
//!
//! A block is a chunk of 65,536 rows (documents, or elements of a multi-value column). Slice `b` of a block
//! holds bit `b` of each row's key minus the block's smallest key, 64 rows to a word, `ceil(rows / 64)` words;
//! a block has as many slices as its largest difference has bits. A key is the dictionary id, or the
//! [key](crate::fixed::Key) of a raw value.

use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::reader::IndexError;
use crate::wire::{corrupt, part, size_at, u32_at};
use bytes::Bytes;

const HEADER: usize = 8;
const ENTRY: usize = 40;
const WORDS: usize = CHUNK_DOCS as usize / 64;

/// Bit slices over stored bytes.
#[derive(Clone, Debug)]
pub struct RangeIndex {
    rows: u32,
    directory: Bytes,
    slices: Bytes,
}

/// One block's keys and place.
struct Entry {
    base: u128,
    span: u128,
    start: usize,
}

impl Entry {
    fn width(&self) -> usize {
        128 - self.span.leading_zeros() as usize
    }
}

impl RangeIndex {
    /// Appends the stored form of `rows` keys, which are asked for by row.
    pub(crate) fn write(rows: u32, key: impl Fn(usize) -> u128, out: &mut Vec<u8>) {
        let mut directory = Vec::new();
        let mut slices = Vec::new();
        let mut keys = Vec::with_capacity(CHUNK_DOCS.min(rows) as usize);
        for start in (0..rows as usize).step_by(CHUNK_DOCS as usize) {
            let end = (start + CHUNK_DOCS as usize).min(rows as usize);
            keys.clear();
            keys.extend((start..end).map(&key));
            let base = keys.iter().copied().min().unwrap_or(0);
            let span = keys.iter().copied().max().unwrap_or(0) - base;
            directory.extend_from_slice(&base.to_le_bytes());
            directory.extend_from_slice(&span.to_le_bytes());
            directory.extend_from_slice(&(slices.len() as u64).to_le_bytes());
            for bit in 0..128 - span.leading_zeros() {
                for rows in keys.chunks(64) {
                    let word = rows.iter().enumerate().fold(0u64, |word, (i, key)| {
                        word | ((((key - base) >> bit) as u64) & 1) << i
                    });
                    slices.extend_from_slice(&word.to_le_bytes());
                }
            }
        }
        out.extend_from_slice(&rows.to_le_bytes());
        out.extend_from_slice(&((directory.len() / ENTRY) as u32).to_le_bytes());
        out.extend_from_slice(&directory);
        out.extend_from_slice(&slices);
    }

    /// An index over its stored bytes.
    ///
    /// # Errors
    /// When the bytes can't be a range index.
    pub fn open(bytes: Bytes) -> Result<Self, IndexError> {
        let rows = u32_at(&bytes, 0)?;
        let blocks = u32_at(&bytes, 4)? as usize;
        if blocks != rows.div_ceil(CHUNK_DOCS) as usize {
            return Err(corrupt(format!(
                "a range index of {rows} rows in {blocks} blocks"
            )));
        }
        let directory = part(&bytes, HEADER, blocks * ENTRY)?;
        let slices = bytes.slice(HEADER + directory.len()..);
        let index = Self {
            rows,
            directory,
            slices,
        };
        let mut expected = 0usize;
        for block in 0..blocks {
            let entry = index.entry(block as u32)?;
            if entry.start != expected || entry.base.checked_add(entry.span).is_none() {
                return Err(corrupt(format!(
                    "block {block} of a range index is misplaced"
                )));
            }
            expected = expected.saturating_add(entry.width() * index.words(block as u32) * 8);
        }
        if expected != index.slices.len() {
            return Err(corrupt(format!(
                "a range index has {} bytes of slices",
                index.slices.len()
            )));
        }
        Ok(index)
    }

    /// How many rows.
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }

    /// Rows of a block.
    fn rows_of(&self, block: u32) -> u32 {
        self.rows
            .saturating_sub(block.saturating_mul(CHUNK_DOCS))
            .min(CHUNK_DOCS)
    }

    fn words(&self, block: u32) -> usize {
        self.rows_of(block).div_ceil(64) as usize
    }

    fn entry(&self, block: u32) -> Result<Entry, IndexError> {
        let at = block as usize * ENTRY;
        let wide = |at: usize| -> Result<u128, IndexError> {
            let low = crate::wire::u64_at(&self.directory, at)?;
            Ok(u128::from(crate::wire::u64_at(&self.directory, at + 8)?) << 64 | u128::from(low))
        };
        Ok(Entry {
            base: wide(at)?,
            span: wide(at + 16)?,
            start: size_at(&self.directory, at + 32)?,
        })
    }

    /// Adds the rows of a block whose keys lie in `low..=high`, numbered within the block.
    pub(crate) fn fill(&self, low: u128, high: u128, block: u32, out: &mut DocBits) {
        let Ok(entry) = self.entry(block) else { return };
        let rows = self.rows_of(block);
        let top = entry.base + entry.span;
        if rows == 0 || low > top || high < entry.base || low > high {
            return;
        }
        let (from, to) = (low.saturating_sub(entry.base), high.min(top) - entry.base);
        if from == 0 && to == entry.span {
            out.insert_range(0, rows);
            return;
        }
        let words = self.words(block);
        let slice_len = words * 8;
        let Some(slices) = self
            .slices
            .get(entry.start..entry.start + entry.width() * slice_len)
        else {
            return;
        };
        let mut at_least = [u64::MAX; WORDS];
        let mut at_most = [u64::MAX; WORDS];
        for (bit, slice) in slices.chunks_exact(slice_len).enumerate() {
            let slice = slice.as_chunks::<8>().0;
            if from != 0 {
                if from >> bit & 1 == 1 {
                    fold(&mut at_least, slice, |kept, word| kept & word);
                } else {
                    fold(&mut at_least, slice, |kept, word| kept | word);
                }
            }
            if to != entry.span {
                if to >> bit & 1 == 1 {
                    fold(&mut at_most, slice, |kept, word| kept | !word);
                } else {
                    fold(&mut at_most, slice, |kept, word| kept & !word);
                }
            }
        }
        let last = u64::MAX >> (words as u32 * 64 - rows);
        at_least[words - 1] &= last;
        for ((to, a), b) in out
            .words_mut()
            .iter_mut()
            .zip(&at_least)
            .zip(&at_most)
            .take(words)
        {
            *to |= a & b;
        }
    }
}

/// One slice folded into what is kept.
#[inline(always)]
fn fold(kept: &mut [u64; WORDS], slice: &[[u8; 8]], step: impl Fn(u64, u64) -> u64) {
    for (kept, word) in kept.iter_mut().zip(slice) {
        *kept = step(*kept, u64::from_le_bytes(*word));
    }
}
