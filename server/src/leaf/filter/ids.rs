//! Sets of dictionary ids: what a test on a column's values becomes in a segment with a dictionary.

use super::operand::{BytesSet, KeySet, Test};
use crate::leaf::compare::{Key, f32_key, f32_of_key, f64_key, f64_of_key};
use crate::leaf::values::string_array;
use std::ops::Range;
use strandline_index::{DictId, Dictionary, PhysicalType, Scalar, ValueBuffer};
use strandline_proto::{Error, Result};

/// Values that a dictionary gives at once.
const GATHER: u32 = 8_192;
/// Sets of more ranges are looked up in a bitmap.
const RANGES_COMPARED: usize = 4;

/// Ids in ranges, ascending and not touching, with a bitmap where there are many.
#[derive(Clone, Debug, Default)]
pub(in crate::leaf) struct IdSet {
    ranges: Vec<Range<DictId>>,
    table: Option<Vec<u64>>,
}

impl IdSet {
    /// The ids of `ranges`, in any order.
    pub(super) fn new(mut ranges: Vec<Range<DictId>>) -> Self {
        ranges.retain(|r| r.start < r.end);
        ranges.sort_unstable_by_key(|r| r.start);
        let mut merged: Vec<Range<DictId>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        let table = (merged.len() > RANGES_COMPARED).then(|| {
            let end = merged.last().map_or(0, |r| r.end) as usize;
            let mut table = vec![0u64; end.div_ceil(64)];
            for id in merged.iter().flat_map(Clone::clone) {
                table[id as usize / 64] |= 1 << (id % 64);
            }
            table
        });
        Self {
            ranges: merged,
            table,
        }
    }

    /// The ids for which `flags` is set.
    pub(super) fn of_flags(flags: impl Iterator<Item = bool>) -> Self {
        let mut ranges: Vec<Range<DictId>> = Vec::new();
        for (id, _) in flags.enumerate().filter(|(_, flag)| *flag) {
            let id = id as DictId;
            match ranges.last_mut() {
                Some(last) if last.end == id => last.end += 1,
                _ => ranges.push(id..id + 1),
            }
        }
        Self::new(ranges)
    }

    /// The ids below `len` that are not in.
    pub(super) fn complement(&self, len: u32) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        let mut start = 0;
        for range in &self.ranges {
            ranges.push(start..range.start.min(len));
            start = range.end;
        }
        ranges.push(start..len);
        Self::new(ranges)
    }

    /// The ids in ranges.
    pub(super) fn ranges(&self) -> &[Range<DictId>] {
        &self.ranges
    }

    /// How many ids.
    pub(super) fn len(&self) -> u64 {
        self.ranges.iter().map(|r| u64::from(r.end - r.start)).sum()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether all ids below `len` are in.
    pub(super) fn is_all(&self, len: u32) -> bool {
        len == 0
            || self
                .ranges
                .first()
                .is_some_and(|r| r.start == 0 && r.end >= len)
    }

    /// The bitmap, when there is one: bit `id % 64` of word `id / 64`, absent words are empty.
    pub(super) fn table(&self) -> Option<&[u64]> {
        self.table.as_deref()
    }

    /// Whether `id` is in.
    #[inline]
    pub(super) fn contains(&self, id: DictId) -> bool {
        match &self.table {
            Some(table) => table
                .get(id as usize / 64)
                .is_some_and(|word| word >> (id % 64) & 1 == 1),
            None => self
                .ranges
                .iter()
                .any(|r| id.wrapping_sub(r.start) < r.end - r.start),
        }
    }
}

/// The ids of a dictionary whose values pass `test`. `may_contain` leaves out single values that no document holds.
pub(super) fn ids_of(
    test: &Test,
    dictionary: &dyn Dictionary,
    may_contain: impl Fn(&Scalar<'_>) -> bool,
) -> Result<IdSet> {
    let float = matches!(dictionary.physical(), PhysicalType::F32 | PhysicalType::F64);
    match test {
        Test::K32(set) => {
            let scalar = |key| {
                if float {
                    Scalar::F32(f32_of_key(key))
                } else {
                    Scalar::I32(key)
                }
            };
            keys(
                set,
                dictionary,
                scalar,
                may_contain,
                |values| match values {
                    ValueBuffer::I32(values) => {
                        Some(values.iter().map(|&v| set.contains(v)).collect())
                    }
                    ValueBuffer::F32(values) => {
                        Some(values.iter().map(|&v| set.contains(f32_key(v))).collect())
                    }
                    _ => None,
                },
            )
        }
        Test::K64(set) => {
            let scalar = |key| {
                if float {
                    Scalar::F64(f64_of_key(key))
                } else {
                    Scalar::I64(key)
                }
            };
            keys(
                set,
                dictionary,
                scalar,
                may_contain,
                |values| match values {
                    ValueBuffer::I64(values) => {
                        Some(values.iter().map(|&v| set.contains(v)).collect())
                    }
                    ValueBuffer::F64(values) => {
                        Some(values.iter().map(|&v| set.contains(f64_key(v))).collect())
                    }
                    _ => None,
                },
            )
        }
        Test::K128(set) => keys(
            set,
            dictionary,
            Scalar::I128,
            may_contain,
            |values| match values {
                ValueBuffer::I128(values) => {
                    Some(values.iter().map(|&v| set.contains(v)).collect())
                }
                _ => None,
            },
        ),
        Test::Bytes(set) => bytes(set, dictionary, may_contain),
        Test::Text(test) => {
            let candidates = match test.prefix() {
                Some((prefix, all)) if dictionary.is_sorted() => {
                    let range = prefix_range(prefix.as_bytes(), dictionary);
                    if all {
                        return Ok(IdSet::new(vec![range]));
                    }
                    range
                }
                _ => 0..dictionary.len(),
            };
            evaluate(dictionary, candidates, |values| {
                let matches = test.matches(&string_array(values, None)?)?;
                Ok(matches.iter().map(|m| m == Some(true)).collect())
            })
        }
    }
}

/// The ids of values that begin with `prefix`.
fn prefix_range(prefix: &[u8], dictionary: &dyn Dictionary) -> Range<DictId> {
    let low = Scalar::Bytes(prefix.into());
    // The first text after all that begin with the prefix: its last byte below 0xff, plus one.
    let mut after = prefix.to_vec();
    while after.last() == Some(&0xff) {
        after.pop();
    }
    match after.last_mut() {
        Some(last) => {
            *last += 1;
            dictionary.range(
                Some((&low, true)),
                Some((&Scalar::Bytes(after.into()), false)),
            )
        }
        None => dictionary.range(Some((&low, true)), None),
    }
}

fn keys<K: Key>(
    set: &KeySet<K>,
    dictionary: &dyn Dictionary,
    scalar: impl Fn(K) -> Scalar<'static>,
    may_contain: impl Fn(&Scalar<'_>) -> bool,
    flags: impl Fn(&ValueBuffer) -> Option<Vec<bool>>,
) -> Result<IdSet> {
    let points = set.ranges.iter().all(|(low, high)| low == high);
    let few = points && set.ranges.len() as u64 <= u64::from(dictionary.len());
    if !(dictionary.is_sorted() || few) {
        return evaluate(dictionary, 0..dictionary.len(), |values| {
            flags(&values).ok_or_else(|| {
                Error::data_loss("a dictionary gives values of another type than its column's")
            })
        });
    }
    let mut ranges = Vec::with_capacity(set.ranges.len());
    for &(low, high) in &set.ranges {
        if low == high {
            let value = scalar(low);
            if may_contain(&value) {
                ranges.extend(dictionary.id_of(&value).map(|id| id..id + 1));
            }
        } else {
            ranges.push(dictionary.range(Some((&scalar(low), true)), Some((&scalar(high), true))));
        }
    }
    Ok(IdSet::new(ranges))
}

fn bytes(
    set: &BytesSet,
    dictionary: &dyn Dictionary,
    may_contain: impl Fn(&Scalar<'_>) -> bool,
) -> Result<IdSet> {
    if !dictionary.is_sorted() && !set.ranges.is_empty() {
        return evaluate(dictionary, 0..dictionary.len(), |values| match values {
            ValueBuffer::Bytes { offsets, data } => Ok(offsets
                .windows(2)
                .map(|pair| {
                    set.contains(
                        data.get(pair[0] as usize..pair[1] as usize)
                            .unwrap_or_default(),
                    )
                })
                .collect()),
            _ => Err(Error::data_loss(
                "a dictionary gives values of another type than its column's",
            )),
        });
    }
    let mut ranges = Vec::with_capacity(set.points.len() + set.ranges.len());
    for point in &set.points {
        let value = Scalar::Bytes(point.as_slice().into());
        if may_contain(&value) {
            ranges.extend(dictionary.id_of(&value).map(|id| id..id + 1));
        }
    }
    for (low, high) in &set.ranges {
        let low = low
            .as_ref()
            .map(|(value, included)| (Scalar::Bytes(value.as_slice().into()), *included));
        let high = high
            .as_ref()
            .map(|(value, included)| (Scalar::Bytes(value.as_slice().into()), *included));
        ranges.push(dictionary.range(
            low.as_ref().map(|(v, i)| (v, *i)),
            high.as_ref().map(|(v, i)| (v, *i)),
        ));
    }
    Ok(IdSet::new(ranges))
}

/// The ids of `candidates` whose values pass, each evaluated.
fn evaluate(
    dictionary: &dyn Dictionary,
    candidates: Range<DictId>,
    passes: impl Fn(ValueBuffer) -> Result<Vec<bool>>,
) -> Result<IdSet> {
    let mut flags = vec![false; candidates.start as usize];
    let mut start = candidates.start;
    while start < candidates.end {
        let end = candidates.end.min(start.saturating_add(GATHER));
        let ids: Vec<DictId> = (start..end).collect();
        let mut values = ValueBuffer::new(dictionary.physical());
        dictionary.gather(&ids, &mut values);
        flags.extend(passes(values)?);
        start = end;
    }
    Ok(IdSet::of_flags(flags.into_iter()))
}
