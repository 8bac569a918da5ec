//! Sets of dictionary ids.

use super::mark;
use crate::reader::DictId;
use crate::widest::widest;
use std::ops::Range;

/// Sets of more ranges are looked up in a bitmap.
const RANGES_COMPARED: usize = 4;

/// Ids in ranges, ascending and not touching, with a bitmap where there are many.
#[derive(Clone, Debug, Default)]
pub struct IdSet {
    ranges: Vec<Range<DictId>>,
    table: Option<Vec<u64>>,
}

impl IdSet {
    /// The ids of `ranges`, in any order.
    pub fn new(mut ranges: Vec<Range<DictId>>) -> Self {
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
    pub fn of_flags(flags: impl Iterator<Item = bool>) -> Self {
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
    pub fn complement(&self, len: u32) -> Self {
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
    pub fn ranges(&self) -> &[Range<DictId>] {
        &self.ranges
    }

    /// How many ids.
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|r| u64::from(r.end - r.start)).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether all ids below `len` are in.
    pub fn is_all(&self, len: u32) -> bool {
        let first = self.ranges.first();
        len == 0 || first.is_some_and(|r| r.start == 0 && r.end >= len)
    }

    /// Whether `id` is in.
    #[inline]
    pub fn contains(&self, id: DictId) -> bool {
        match &self.table {
            Some(table) => is_in(table, id),
            None => self
                .ranges
                .iter()
                .any(|r| id.wrapping_sub(r.start) < r.end - r.start),
        }
    }

    /// Sets bit `i` of `words` if the id at `i` is in, and clears it if it is not.
    pub fn mark(&self, ids: &[DictId], words: &mut [u64]) {
        widest(|| self.mark_all(ids, words));
    }

    #[inline(always)]
    fn mark_all(&self, ids: &[DictId], words: &mut [u64]) {
        let test = |range: &Range<DictId>| (range.start, range.end - range.start);
        match (&self.table, self.ranges.as_slice()) {
            (Some(table), _) => mark(ids, words, |id| is_in(table, id)),
            (None, []) => mark(ids, words, |_| false),
            (None, [only]) => {
                let (start, len) = test(only);
                mark(ids, words, |id| id.wrapping_sub(start) < len);
            }
            (None, [first, second]) => {
                let ((a, a_len), (b, b_len)) = (test(first), test(second));
                mark(ids, words, |id| {
                    (id.wrapping_sub(a) < a_len) | (id.wrapping_sub(b) < b_len)
                });
            }
            (None, [first, others @ ..]) => {
                // One more test of the first range changes nothing.
                let mut tests = [test(first); RANGES_COMPARED];
                for (to, range) in tests.iter_mut().skip(1).zip(others) {
                    *to = test(range);
                }
                mark(ids, words, |id| {
                    tests.iter().fold(false, |any, &(start, len)| {
                        any | (id.wrapping_sub(start) < len)
                    })
                });
            }
        }
    }
}

#[inline(always)]
fn is_in(table: &[u64], id: DictId) -> bool {
    table
        .get(id as usize / 64)
        .is_some_and(|word| word >> (id % 64) & 1 == 1)
}
