//! Sets of a level's records, one bit each.

use crate::doc_bits::ones;
use crate::reader::DocId;

/// Records of one level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSet {
    words: Vec<u64>,
    len: u32,
    level: super::LevelId,
}

impl RecordSet {
    /// None of `len` records.
    pub(super) fn none(level: super::LevelId, len: u32) -> Self {
        Self {
            words: vec![0; (len as usize).div_ceil(64)],
            len,
            level,
        }
    }

    /// The level that the records are of.
    pub fn level(&self) -> super::LevelId {
        self.level
    }

    /// How many records the level has.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether no record is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many are.
    pub fn count(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Whether a record is in the set.
    pub fn contains(&self, record: u32) -> bool {
        self.words
            .get(record as usize / 64)
            .is_some_and(|word| word >> (record % 64) & 1 == 1)
    }

    /// Adds a record; nothing happens beyond the level's end.
    pub(super) fn insert(&mut self, record: u32) {
        if record < self.len
            && let Some(word) = self.words.get_mut(record as usize / 64)
        {
            *word |= 1 << (record % 64);
        }
    }

    /// Adds bits of whole words from record `first` on, a multiple of 64. False when one is beyond the end.
    pub(super) fn insert_words(&mut self, first: u32, words: &[u64]) -> bool {
        let start = first as usize / 64;
        let mut within = true;
        for (i, &word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
            let last = first as u64 + i as u64 * 64 + u64::from(63 - word.leading_zeros());
            match self.words.get_mut(start + i) {
                Some(held) if last < u64::from(self.len) => *held |= word,
                _ => within = false,
            }
        }
        within
    }

    /// Keeps those that `other`, of the same level, has too.
    pub fn and(&mut self, other: &Self) {
        self.words
            .iter_mut()
            .zip(&other.words)
            .for_each(|(a, b)| *a &= b);
    }

    /// Adds those of `other`, of the same level.
    pub fn or(&mut self, other: &Self) {
        self.words
            .iter_mut()
            .zip(&other.words)
            .for_each(|(a, b)| *a |= b);
    }

    /// Takes away those of `other`, of the same level.
    pub fn and_not(&mut self, other: &Self) {
        self.words
            .iter_mut()
            .zip(&other.words)
            .for_each(|(a, b)| *a &= !b);
    }

    /// Makes it the level's other records.
    pub fn complement(&mut self) {
        self.words.iter_mut().for_each(|word| *word = !*word);
        if let Some(last) = self.words.last_mut()
            && !self.len.is_multiple_of(64)
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }

    /// The bits, the first record's lowest in the first word.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The records, ascending.
    pub fn iter(&self) -> impl Iterator<Item = DocId> + '_ {
        ones(&self.words)
    }
}
