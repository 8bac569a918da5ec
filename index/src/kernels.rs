//! Blocks of ids and values held against ranges and sets, into bits: the loops that scans consist of.
//!
//! Each compares 64 values into 64 bytes of 0 and 1, which compiles to vector comparisons, and packs those into
//! a word by eight multiplications.

mod id_set;
#[cfg(test)]
mod tests;
mod value_set;

pub use id_set::IdSet;
pub use value_set::ValueSet;

use crate::doc_bits::DocBits;
use crate::reader::{DictId, Scalar};
use std::ops::Range;

/// A lower or upper bound: the value, and whether it is included; none is no bound.
pub type Bound<'a> = Option<(&'a Scalar<'a>, bool)>;
/// A bound that owns its value.
pub type OwnedBound = Option<(Scalar<'static>, bool)>;

/// Sets bit `i` of `words` for every value `i` that passes, and clears it for every other one. `words` reach
/// over `values`.
#[inline(always)]
pub fn mark<T: Copy>(values: &[T], words: &mut [u64], passes: impl Fn(T) -> bool) {
    let (blocks, rest) = values.as_chunks::<64>();
    let (whole, last) = words.split_at_mut(blocks.len().min(words.len()));
    for (block, word) in blocks.iter().zip(whole) {
        *word = word_of(block, &passes);
    }
    if let Some(word) = last.first_mut().filter(|_| !rest.is_empty()) {
        *word = word_of_rest(rest, &passes);
    }
}

/// Adds the documents of a chunk whose id lies in `range`; the ids are those of `start` and the documents after it.
pub fn select_id_range(ids: &[DictId], range: Range<DictId>, start: u32, out: &mut DocBits) {
    let len = range.end.saturating_sub(range.start);
    let passes = |id: DictId| id.wrapping_sub(range.start) < len;
    let words = out.words_mut();
    let (mut at, shift) = (start as usize / 64, start % 64);
    let mut put = |word: u64| {
        if let Some(to) = words.get_mut(at) {
            *to |= word << shift;
        }
        at += 1;
        if shift != 0
            && let Some(to) = words.get_mut(at)
        {
            *to |= word >> (64 - shift);
        }
    };
    let (blocks, rest) = ids.as_chunks::<64>();
    for block in blocks {
        put(word_of(block, &passes));
    }
    put(word_of_rest(rest, &passes));
}

/// One bit for each of 64 values.
#[inline(always)]
fn word_of<T: Copy>(values: &[T; 64], passes: &impl Fn(T) -> bool) -> u64 {
    let mut flags = [0u8; 64];
    for (flag, &value) in flags.iter_mut().zip(values) {
        *flag = u8::from(passes(value));
    }
    let mut word = 0;
    for (i, bytes) in flags.as_chunks::<8>().0.iter().enumerate() {
        // each byte's bit is moved to its place in the highest byte
        let bits = u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= bits << (i * 8);
    }
    word
}

/// One bit for each of fewer than 64 values.
#[inline(always)]
fn word_of_rest<T: Copy>(values: &[T], passes: &impl Fn(T) -> bool) -> u64 {
    let bits = values.iter().zip(0u32..64);
    bits.fold(0, |word, (&value, bit)| {
        word | u64::from(passes(value)) << bit
    })
}
