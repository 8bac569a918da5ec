//! From a block of values to bits: the loops that scans consist of.
//!
//! Comparisons go into 64 flag bytes, which the compiler vectorizes, and eight multiplications make a word of them.

use super::ids::IdSet;
use super::operand::{BytesSet, KeySet};
use crate::leaf::compare::Key;
use strandline_index::DictId;

/// Sets bit `i` of `words` for every value `i` that passes; `words` are zero and reach over `values`.
#[inline]
pub(super) fn pack<T: Copy>(values: &[T], words: &mut [u64], passes: impl Fn(T) -> bool) {
    let mut flags = [0u8; 64];
    for (block, word) in values.chunks(64).zip(words) {
        if block.len() < 64 {
            flags = [0; 64];
        }
        for (flag, &value) in flags.iter_mut().zip(block) {
            *flag = u8::from(passes(value));
        }
        *word = pack_flags(&flags);
    }
}

#[inline]
fn pack_flags(flags: &[u8; 64]) -> u64 {
    let mut word = 0;
    for (i, eight) in flags.chunks_exact(8).enumerate() {
        let bytes = u64::from_le_bytes(eight.try_into().unwrap_or([0; 8]));
        word |= (bytes.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * i);
    }
    word
}

/// [`pack`] for ids.
pub(super) fn pack_ids(ids: &[DictId], words: &mut [u64], set: &IdSet) {
    match (set.table(), set.ranges()) {
        (Some(table), _) => {
            pack(ids, words, |id| {
                table
                    .get(id as usize / 64)
                    .is_some_and(|word| word >> (id % 64) & 1 == 1)
            });
        }
        (None, [only]) => {
            let (start, len) = (only.start, only.end - only.start);
            pack(ids, words, |id| id.wrapping_sub(start) < len);
        }
        (None, [first, second]) => {
            let (a, a_len) = (first.start, first.end - first.start);
            let (b, b_len) = (second.start, second.end - second.start);
            pack(ids, words, |id| {
                (id.wrapping_sub(a) < a_len) | (id.wrapping_sub(b) < b_len)
            });
        }
        (None, _) => pack(ids, words, |id| set.contains(id)),
    }
}

/// [`pack`] for keys.
pub(super) fn pack_keys<T: Copy, K: Key>(
    values: &[T],
    words: &mut [u64],
    set: &KeySet<K>,
    key: impl Fn(T) -> K,
) {
    match set.ranges.as_slice() {
        [] => {}
        [(low, high)] => {
            let (low, high) = (*low, *high);
            pack(values, words, |value| {
                let key = key(value);
                (low <= key) & (key <= high)
            });
        }
        _ => pack(values, words, |value| set.contains(key(value))),
    }
}

/// [`pack`] for text or bytes.
pub(super) fn pack_bytes(offsets: &[i32], data: &[u8], words: &mut [u64], set: &BytesSet) {
    for (i, (&start, &end)) in offsets.iter().zip(offsets.iter().skip(1)).enumerate() {
        let value = data.get(start as usize..end as usize).unwrap_or_default();
        if let Some(word) = words.get_mut(i / 64) {
            *word |= u64::from(set.contains(value)) << (i % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_stand_where_values_pass() {
        for len in [0usize, 1, 63, 64, 65, 200] {
            let values: Vec<u32> = (0..len as u32).map(|i| i * 7919 % 10).collect();
            for set in [
                IdSet::new(std::iter::once(3..6).collect()),
                IdSet::new(vec![0..1, 9..10]),
                IdSet::new(vec![0..1, 2..3, 4..5, 6..7, 8..9]),
            ] {
                let mut words = vec![0; len.div_ceil(64)];
                pack_ids(&values, &mut words, &set);
                for (i, &value) in values.iter().enumerate() {
                    assert_eq!(
                        words[i / 64] >> (i % 64) & 1 == 1,
                        set.contains(value),
                        "{i} of {len}"
                    );
                }
            }
        }
    }
}
