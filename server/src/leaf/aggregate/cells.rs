//! What states consist of: sums, extremes and distinct pairs by group, updated by the rows of a block.

use crate::leaf::values::mix;
use hashbrown::HashTable;

/// The rows of a block: the group of each (none: all of group 0), which value is each's, and whether it counts.
pub(super) struct Rows<'a> {
    pub(super) len: usize,
    pub(super) groups: Option<&'a [u32]>,
    /// Where rows are elements of documents: the document of each.
    pub(super) documents: Option<&'a [u32]>,
    /// By document; none: all count.
    pub(super) valid: Option<&'a [bool]>,
}

impl Rows<'_> {
    /// Calls `f` with group and value index of each row that counts.
    #[inline]
    pub(super) fn each(&self, mut f: impl FnMut(usize, usize)) {
        match (self.groups, self.documents, self.valid) {
            (Some(groups), None, None) => groups
                .iter()
                .enumerate()
                .for_each(|(row, &group)| f(group as usize, row)),
            (Some(groups), None, Some(valid)) => {
                for (row, (&group, &valid)) in groups.iter().zip(valid).enumerate() {
                    if valid {
                        f(group as usize, row);
                    }
                }
            }
            (None, None, None) => (0..self.len).for_each(|row| f(0, row)),
            (None, None, Some(valid)) => valid
                .iter()
                .enumerate()
                .filter(|(_, valid)| **valid)
                .for_each(|(row, _)| f(0, row)),
            (groups, Some(documents), valid) => {
                for (row, &document) in documents.iter().enumerate() {
                    if valid.is_none_or(|valid| valid[document as usize]) {
                        f(
                            groups.map_or(0, |groups| groups[row] as usize),
                            document as usize,
                        );
                    }
                }
            }
        }
    }
}

/// Sums with how many values each holds; without counts every group holds some.
#[derive(Debug, Default)]
pub(super) struct Sums<T> {
    pub(super) sums: Vec<T>,
    pub(super) counts: Vec<u64>,
    counted: bool,
}

impl<T: Copy + Default> Sums<T> {
    pub(super) fn new(counted: bool) -> Self {
        Self {
            sums: Vec::new(),
            counts: Vec::new(),
            counted,
        }
    }

    pub(super) fn resize(&mut self, groups: usize) {
        self.sums.resize(groups, T::default());
        if self.counted {
            self.counts.resize(groups, 0);
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.sums.capacity() * size_of::<T>() + self.counts.capacity() * 8
    }

    #[inline]
    pub(super) fn update<V: Copy>(
        &mut self,
        rows: &Rows<'_>,
        values: &[V],
        add: impl Fn(T, V) -> T,
    ) {
        let sums = &mut self.sums;
        if !self.counted {
            return rows.each(|group, row| sums[group] = add(sums[group], values[row]));
        }
        let counts = &mut self.counts;
        // Without groups the compiler keeps one sum in a register.
        if let (
            Rows {
                groups: None,
                documents: None,
                valid: None,
                len,
            },
            Some(sum),
            Some(count),
        ) = (rows, sums.first_mut(), counts.first_mut())
        {
            *sum = values
                .iter()
                .take(*len)
                .fold(*sum, |sum, &value| add(sum, value));
            *count += *len as u64;
            return;
        }
        rows.each(|group, row| {
            sums[group] = add(sums[group], values[row]);
            counts[group] += 1;
        });
    }

    pub(super) fn merge(&mut self, other: &Self, map: &[u32], add: impl Fn(T, T) -> T) {
        for (group, &to) in map.iter().enumerate() {
            let count = if other.counted {
                other.counts[group]
            } else {
                1
            };
            if count > 0 {
                let to = to as usize;
                self.sums[to] = add(self.sums[to], other.sums[group]);
                self.counts[to] += count;
            }
        }
    }
}

impl Sums<f64> {
    /// Adds a sum of `count` values.
    pub(super) fn add(&mut self, group: usize, sum: f64, count: u64) {
        self.sums[group] += sum;
        self.counts[group] += count;
    }
}

/// The greatest or least values, where there is one.
#[derive(Debug)]
pub(super) struct Extremes<T> {
    pub(super) values: Vec<T>,
    pub(super) seen: Vec<bool>,
    max: bool,
}

impl<T: Copy + Ord + Default> Extremes<T> {
    pub(super) fn new(max: bool) -> Self {
        Self {
            values: Vec::new(),
            seen: Vec::new(),
            max,
        }
    }

    pub(super) fn resize(&mut self, groups: usize) {
        self.values.resize(groups, T::default());
        self.seen.resize(groups, false);
    }

    #[inline]
    pub(super) fn offer(&mut self, group: usize, value: T) {
        let held = self.values[group];
        let better = if self.max { value > held } else { value < held };
        if better || !self.seen[group] {
            self.values[group] = value;
            self.seen[group] = true;
        }
    }

    pub(super) fn update<V: Copy>(&mut self, rows: &Rows<'_>, values: &[V], key: impl Fn(V) -> T) {
        rows.each(|group, row| self.offer(group, key(values[row])));
    }

    pub(super) fn merge(&mut self, other: &Self, map: &[u32]) {
        for (group, &to) in map
            .iter()
            .enumerate()
            .filter(|(group, _)| other.seen[*group])
        {
            self.offer(to as usize, other.values[group]);
        }
    }
}

/// Distinct (group, value number) pairs.
#[derive(Debug)]
pub(super) enum Pairs {
    /// One group: a bit for each value.
    Bits(Vec<u64>),
    /// A bit for each value, by group, as long as few of them are in vain.
    Grid(Grid),
    /// Pairs packed as `group << 32 | value`.
    Hash(HashTable<u64>),
}

/// Words of bits that a grid may have whatever is in it.
const WORDS_FREE: usize = 4_096;
/// And more for each pair: a table of them takes as much.
const WORDS_PER_PAIR: usize = 2;
/// What a group takes besides, in words.
const WORDS_PER_GROUP: usize = size_of::<Vec<u64>>() / size_of::<u64>();

/// Bits of values by group.
#[derive(Debug, Default)]
pub(super) struct Grid {
    groups: Vec<Vec<u64>>,
    words: usize,
    pairs: usize,
}

impl Grid {
    /// Adds a pair; false where that would take too many bits.
    #[inline]
    fn insert(&mut self, group: usize, value: u32) -> bool {
        let word = value as usize / 64;
        if self.groups.get(group).is_none_or(|bits| word >= bits.len()) && !self.grow(group, word) {
            return false;
        }
        let word = &mut self.groups[group][word];
        let bit = 1 << (value % 64);
        self.pairs += usize::from(*word & bit == 0);
        *word |= bit;
        true
    }

    #[cold]
    fn grow(&mut self, group: usize, word: usize) -> bool {
        let len = (word + 1).next_power_of_two();
        let groups = (group + 1).saturating_sub(self.groups.len());
        let there = self.groups.get(group).map_or(0, Vec::len);
        let words = self.words + groups * WORDS_PER_GROUP + len - there;
        if words > WORDS_FREE + self.pairs * WORDS_PER_PAIR {
            return false;
        }
        self.groups
            .resize_with(self.groups.len() + groups, Vec::new);
        self.groups[group].resize(len, 0);
        self.words = words;
        true
    }

    fn for_each(&self, mut f: impl FnMut(u32, u32)) {
        for (group, bits) in (0..).zip(&self.groups) {
            each_bit(bits, |value| f(group, value));
        }
    }
}

/// Calls `f` with the number of each bit that is set.
fn each_bit(words: &[u64], mut f: impl FnMut(u32)) {
    for (i, &word) in words.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            f(i as u32 * 64 + rest.trailing_zeros());
            rest &= rest - 1;
        }
    }
}

impl Pairs {
    /// None yet. `one`: of one group only.
    pub(super) fn new(one: bool) -> Self {
        match one {
            true => Self::Bits(Vec::new()),
            false => Self::Grid(Grid::default()),
        }
    }

    #[inline]
    pub(super) fn insert(&mut self, group: usize, value: u32) {
        if let Self::Grid(grid) = self {
            if grid.insert(group, value) {
                return;
            }
            let mut table = Self::Hash(HashTable::with_capacity(2 * grid.pairs));
            grid.for_each(|group, value| table.insert(group as usize, value));
            *self = table;
        }
        match self {
            Self::Grid(_) => {}
            Self::Bits(words) => {
                let word = value as usize / 64;
                if word >= words.len() {
                    words.resize((word + 1).next_power_of_two(), 0);
                }
                words[word] |= 1 << (value % 64);
            }
            Self::Hash(table) => {
                let pair = (group as u64) << 32 | u64::from(value);
                table
                    .entry(mix(pair), |&other| other == pair, |&other| mix(other))
                    .or_insert(pair);
            }
        }
    }

    pub(super) fn for_each(&self, mut f: impl FnMut(u32, u32)) {
        match self {
            Self::Bits(words) => each_bit(words, |value| f(0, value)),
            Self::Grid(grid) => grid.for_each(f),
            Self::Hash(table) => table
                .iter()
                .for_each(|&pair| f((pair >> 32) as u32, pair as u32)),
        }
    }

    /// How many pairs.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Bits(words) => words.iter().map(|word| word.count_ones() as usize).sum(),
            Self::Grid(grid) => grid.pairs,
            Self::Hash(table) => table.len(),
        }
    }

    pub(super) fn memory(&self) -> usize {
        match self {
            Self::Bits(words) => words.capacity() * 8,
            Self::Grid(grid) => grid.words * 8,
            Self::Hash(table) => table.capacity() * 10,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeSet;

    #[test]
    fn pairs_are_kept_once_whatever_holds_them() {
        let mut rng = StdRng::seed_from_u64(5);
        // Few values of few groups, many, and so few of so many that bits would be in vain.
        for (groups, values, inserted, is_grid) in [
            (1, 300, 1_000, None),
            (4, 700, 20_000, Some(true)),
            (50, 3_000, 60_000, Some(true)),
            (3, u32::MAX, 100, Some(false)),
            (100_000, 1_000, 50_000, Some(false)),
        ] {
            let mut pairs = Pairs::new(is_grid.is_none());
            let mut expected = BTreeSet::new();
            for _ in 0..inserted {
                let pair = (rng.random_range(0..groups), rng.random_range(0..values));
                pairs.insert(pair.0 as usize, pair.1);
                expected.insert(pair);
            }
            let mut found = Vec::new();
            pairs.for_each(|group, value| found.push((group, value)));
            found.sort_unstable();
            assert_eq!(pairs.len(), expected.len());
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
            if let Some(is_grid) = is_grid {
                assert_eq!(matches!(pairs, Pairs::Grid(_)), is_grid, "{groups} groups");
                assert!(
                    pairs.memory()
                        <= 8 * (WORDS_FREE + WORDS_PER_PAIR * found.len()) + 40 * found.len()
                );
            }
        }
    }
}
