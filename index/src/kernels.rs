//! Blocks of ids and values against ranges and sets, into [`DocBits`].
//!
//! A block stands for consecutive documents of one chunk, the first of them `start`. Each kernel compares 64
//! values into 64 bytes of 0 and 1, which compiles to vector comparisons, and packs those into a word by
//! eight multiplications. Bits that are set already stay set.

use crate::doc_bits::DocBits;
use crate::fixed::{Fixed, Key, by_type, key_bounds};
use crate::reader::{DictId, Scalar, ValueBuffer};
use std::ops::Range;

/// A lower or upper bound: the value, and whether it is included; none is no bound.
pub type Bound<'a> = Option<(&'a Scalar<'a>, bool)>;

/// 64 bytes of 0 and 1 as a word, the first one lowest.
#[inline(always)]
fn pack(flags: &[u8; 64]) -> u64 {
    let mut word = 0;
    for (i, bytes) in flags.as_chunks::<8>().0.iter().enumerate() {
        // each byte's bit is moved to its place in the highest byte
        let bits = u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word |= bits << (i * 8);
    }
    word
}

/// Sets the bits of the values that `keep` keeps.
#[inline(always)]
fn select<T: Copy>(values: &[T], start: u32, out: &mut DocBits, keep: impl Fn(T) -> bool) {
    let words = out.words_mut();
    let (mut at, shift) = (start as usize / 64, start % 64);
    let mut flags = [0u8; 64];
    for block in values.chunks(64) {
        let flags = &mut flags;
        if block.len() < 64 {
            flags.fill(0);
        }
        for (flag, &value) in flags.iter_mut().zip(block) {
            *flag = u8::from(keep(value));
        }
        let word = pack(flags);
        if let Some(to) = words.get_mut(at) {
            *to |= word << shift;
        }
        if shift != 0
            && let Some(to) = words.get_mut(at + 1)
        {
            *to |= word >> (64 - shift);
        }
        at += 1;
    }
}

/// Sets the documents whose id lies in `range`.
pub fn select_id_range(ids: &[DictId], range: Range<DictId>, start: u32, out: &mut DocBits) {
    let len = range.end.saturating_sub(range.start);
    select(ids, start, out, |id| id.wrapping_sub(range.start) < len);
}

/// Sets the documents whose id is in `set`.
pub fn select_id_set(ids: &[DictId], set: &IdSet, start: u32, out: &mut DocBits) {
    select(ids, start, out, |id| set.contains(id));
}

/// Sets the documents whose value lies between the bounds; floats in total order.
pub fn select_between<T: Fixed>(
    values: &[T],
    low: Bound<'_>,
    high: Bound<'_>,
    start: u32,
    out: &mut DocBits,
) {
    if let Some((low, high)) = key_bounds::<T>(low, high) {
        let span = high.minus(low);
        select(values, start, out, |value| value.key().minus(low) <= span);
    }
}

/// Sets the documents whose value, of any type, lies between the bounds: floats in total order, bytes bytewise.
pub fn select_values_between(
    values: &ValueBuffer,
    low: Bound<'_>,
    high: Bound<'_>,
    start: u32,
    out: &mut DocBits,
) {
    by_type!(values.physical(), T => {
        select_between::<T>(T::slice(values).unwrap_or_default(), low, high, start, out);
    }, bytes => {
        let (Ok(low), Ok(high)) = (text(low), text(high)) else { return };
        for i in 0..values.len() {
            let Some(value) = values.bytes(i) else { return };
            let above = low.is_none_or(|(low, included)| value > low || (included && value == low));
            if above && high.is_none_or(|(high, included)| value < high || (included && value == high)) {
                out.insert((start + i as u32) as u16);
            }
        }
    });
}

/// A bound among texts; an error when its value is not one.
fn text(bound: Bound<'_>) -> Result<Option<(&[u8], bool)>, ()> {
    match bound {
        Some((Scalar::Bytes(value), included)) => Ok(Some((value, included))),
        Some(_) => Err(()),
        None => Ok(None),
    }
}

/// Sets the documents of which any element's flag is set; `ends` are the ends of their elements in `flags`, the first
/// document's elements beginning at `first`.
pub fn select_lists(ends: &[u32], first: u32, flags: &[bool], start: u32, out: &mut DocBits) {
    let mut from = first as usize;
    for (i, &end) in ends.iter().enumerate() {
        if flags
            .get(from..end as usize)
            .is_some_and(|list| list.contains(&true))
        {
            out.insert((start + i as u32) as u16);
        }
        from = end as usize;
    }
}

/// Appends for each id whether it lies in `range`.
pub fn flag_id_range(ids: &[DictId], range: Range<DictId>, flags: &mut Vec<bool>) {
    let len = range.end.saturating_sub(range.start);
    flags.extend(ids.iter().map(|id| id.wrapping_sub(range.start) < len));
}

/// Appends for each id whether it is in `set`.
pub fn flag_id_set(ids: &[DictId], set: &IdSet, flags: &mut Vec<bool>) {
    flags.extend(ids.iter().map(|&id| set.contains(id)));
}

/// Appends for each value whether it lies between the bounds.
pub fn flag_between<T: Fixed>(
    values: &[T],
    low: Bound<'_>,
    high: Bound<'_>,
    flags: &mut Vec<bool>,
) {
    match key_bounds::<T>(low, high) {
        Some((low, high)) => {
            let span = high.minus(low);
            flags.extend(values.iter().map(|value| value.key().minus(low) <= span));
        }
        None => flags.resize(flags.len() + values.len(), false),
    }
}

/// The documents of a sorted list of documents within one chunk that `bits`, set by position in the list, keeps.
pub fn keep_positions(docs: &[u32], bits: &DocBits, out: &mut Vec<u32>) {
    out.extend(bits.iter().map_while(|i| docs.get(usize::from(i)).copied()));
}

/// Dictionary ids as bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdSet {
    words: Vec<u64>,
    len: u32,
}

impl IdSet {
    /// An empty set of ids below `cardinality`.
    pub fn new(cardinality: u32) -> Self {
        Self {
            words: vec![0; cardinality.div_ceil(64) as usize],
            len: 0,
        }
    }

    /// Adds `id`; ids from the cardinality on are left out.
    pub fn insert(&mut self, id: DictId) {
        if let Some(word) = self.words.get_mut(id as usize / 64) {
            let bit = 1 << (id % 64);
            self.len += u32::from(*word & bit == 0);
            *word |= bit;
        }
    }

    /// Whether `id` is in.
    #[inline(always)]
    pub fn contains(&self, id: DictId) -> bool {
        self.words
            .get(id as usize / 64)
            .is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    /// How many ids.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ids, ascending.
    pub fn iter(&self) -> impl Iterator<Item = DictId> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| i as u32 * 64 + bit)
        })
    }
}

impl FromIterator<DictId> for IdSet {
    fn from_iter<I: IntoIterator<Item = DictId>>(ids: I) -> Self {
        let ids: Vec<DictId> = ids.into_iter().collect();
        let mut set = Self::new(ids.iter().max().map_or(0, |max| max.saturating_add(1)));
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_length_and_start_set_what_a_loop_would_set() {
        for (start, len) in [
            (0, 0),
            (0, 64),
            (0, 1000),
            (5, 64),
            (63, 130),
            (65_000, 536),
            (64, 1),
        ] {
            let ids: Vec<u32> = (0..len as u32)
                .map(|i| i.wrapping_mul(2_654_435_761) % 10)
                .collect();
            let set: IdSet = [1, 4, 9].into_iter().collect();
            let (mut by_range, mut by_set) = (DocBits::new(), DocBits::new());
            select_id_range(&ids, 3..7, start, &mut by_range);
            select_id_set(&ids, &set, start, &mut by_set);
            for (i, id) in ids.iter().enumerate() {
                let doc = (start + i as u32) as u16;
                assert_eq!(by_range.contains(doc), (3..7).contains(id));
                assert_eq!(by_set.contains(doc), [1, 4, 9].contains(id));
            }
            assert_eq!(
                by_range.count() as usize,
                ids.iter().filter(|id| (3..7).contains(*id)).count()
            );
        }
    }

    #[test]
    fn floats_are_tested_in_total_order() {
        let values = [
            f64::NEG_INFINITY,
            -1.0,
            -0.0,
            0.0,
            1.5,
            f64::INFINITY,
            f64::NAN,
            -f64::NAN,
        ];
        for low in values {
            for included in [false, true] {
                let mut bits = DocBits::new();
                let bound = Scalar::F64(low);
                select_between(&values, Some((&bound, included)), None, 0, &mut bits);
                for (i, value) in values.iter().enumerate() {
                    let order = value.total_cmp(&low);
                    assert_eq!(
                        bits.contains(i as u16),
                        order.is_gt() || (included && order.is_eq()),
                        "{value} {low}"
                    );
                }
            }
        }
    }
}
