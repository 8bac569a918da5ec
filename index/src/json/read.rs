//! Opening and reading a JSON index.

use super::{
    DOCUMENTS, FORMAT, HEADER, JsonIndex, KEY_HEADER, Kind, Level, LevelId, PathId, ROOT, RecordSet,
};
use crate::bitpack::Blocks;
use crate::dictionary::ImmutableDictionary;
use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::frame::Frame;
use crate::inverted::InvertedIndex;
use crate::reader::{DictId, Dictionary, IndexError, PhysicalType, Postings, Scalar};
use crate::wire::{corrupt, part, size_at, u8_at, u32_at};
use bytes::Bytes;
use std::borrow::Cow;
use std::ops::Range;

/// Where fewer than one in so many records is in a set, their parents are looked up singly.
const SPARSE: u64 = 16;

impl JsonIndex {
    /// An index of `docs` documents over its stored bytes.
    ///
    /// # Errors
    /// When the bytes can't be what a writer made.
    pub fn open(bytes: Bytes, docs: u32) -> Result<Self, IndexError> {
        let format = u8_at(&bytes, 0)?;
        if format != FORMAT {
            return Err(corrupt(format!(
                "JSON index format {format} is not known: a later version may have written it"
            )));
        }
        let (path_count, level_count) = (u32_at(&bytes, 8)?, u32_at(&bytes, 12)?);
        if u32_at(&bytes, 4)? != docs || level_count == 0 || bytes.get(1..4) != Some(&[0, 0, 0][..])
        {
            return Err(damaged("its header"));
        }
        let mut at = HEADER;
        let mut take = |len: usize| {
            let taken = part(&bytes, at, len);
            at = at.saturating_add(len);
            taken
        };
        let coverage = take(size_at(&bytes, 16)?)?;
        let paths = bytes_dictionary(take(size_at(&bytes, 24)?)?)?;
        let keys = bytes_dictionary(take(size_at(&bytes, 32)?)?)?;
        let postings = take(size_at(&bytes, 40)?)?;
        if paths.len() != path_count {
            return Err(damaged("its number of paths"));
        }
        let path_levels = take((path_count as usize).saturating_mul(4))?;
        let path_levels: Vec<LevelId> = path_levels
            .as_chunks::<4>()
            .0
            .iter()
            .map(|level| u32::from_le_bytes(*level))
            .collect();
        if path_levels.iter().any(|&level| level >= level_count) {
            return Err(damaged("the levels of its paths"));
        }
        let mut levels: Vec<Level> = Vec::new();
        let mut records_max = docs;
        for number in 1..level_count {
            let head = take(16)?;
            let (parent, records) = (u32_at(&head, 0)?, u32_at(&head, 4)?);
            let parents = Frame::open(take(size_at(&head, 8)?)?)?;
            let parent_records = match parent.checked_sub(1) {
                None => Some(docs as usize),
                Some(before) => levels.get(before as usize).map(|level| level.parents.len()),
            };
            let last = parents.last_if_ascending();
            let within = parent_records.zip(last).is_some_and(|(of_parent, last)| {
                records == 0 || usize::try_from(last).is_ok_and(|last| last < of_parent)
            });
            if !within || parents.len() != records as usize {
                return Err(damaged(&format!("the parents of level {number}")));
            }
            records_max = records_max.max(records);
            levels.push(Level { parent, parents });
        }
        if at != bytes.len() {
            return Err(damaged("its length"));
        }
        let index = Self {
            docs,
            coverage,
            paths,
            path_levels,
            keys,
            postings: InvertedIndex::open(postings, records_max)?,
            levels,
        };
        index.check_keys()?;
        Ok(index)
    }

    fn check_keys(&self) -> Result<(), IndexError> {
        if self.postings.ids() != self.keys.len() || self.path(ROOT).is_none() {
            return Err(damaged("its number of keys"));
        }
        for id in 0..self.keys.len() {
            let key = self.bytes_of(id);
            let known = match (key.first_chunk::<4>(), key.get(4)) {
                (Some(path), Some(kind)) => {
                    u32::from_be_bytes(*path) < self.paths.len()
                        && Kind::ALL.iter().any(|k| *k as u8 == *kind)
                }
                _ => false,
            };
            if !known {
                return Err(damaged(&format!("its key {id}")));
            }
        }
        Ok(())
    }

    fn bytes_of(&self, id: DictId) -> Cow<'_, [u8]> {
        match self.keys.value(id) {
            Scalar::Bytes(key) => key,
            _ => Cow::Borrowed(&[]),
        }
    }

    /// What the writer said of the paths that it left out.
    pub fn coverage(&self) -> &[u8] {
        &self.coverage
    }

    /// Documents.
    pub fn docs(&self) -> u32 {
        self.docs
    }

    /// The number of a path; none: no document has it.
    pub fn path(&self, path: &[u8]) -> Option<PathId> {
        self.paths.id_of(&Scalar::Bytes(path.into()))
    }

    /// The level that values at a path belong to.
    pub fn level_of(&self, path: PathId) -> LevelId {
        self.path_levels
            .get(path as usize)
            .copied()
            .unwrap_or(DOCUMENTS)
    }

    /// The level that a level's records are within.
    pub fn parent(&self, level: LevelId) -> Option<LevelId> {
        let number = level.checked_sub(1)?;
        self.levels.get(number as usize).map(|level| level.parent)
    }

    fn records(&self, level: LevelId) -> u32 {
        match level.checked_sub(1) {
            None => self.docs,
            Some(before) => self
                .levels
                .get(before as usize)
                .map_or(0, |level| level.parents.len() as u32),
        }
    }

    /// No record of a level.
    pub fn none(&self, level: LevelId) -> RecordSet {
        RecordSet::none(level, self.records(level))
    }

    /// All records of a level.
    pub fn all(&self, level: LevelId) -> RecordSet {
        let mut all = self.none(level);
        all.complement();
        all
    }

    /// The documents that hold anything.
    ///
    /// # Errors
    /// As [`JsonIndex::mark`].
    pub fn content(&self) -> Result<RecordSet, IndexError> {
        self.at_root(Kind::Content)
    }

    /// The texts that are no documents.
    ///
    /// # Errors
    /// As [`JsonIndex::mark`].
    pub fn invalid(&self) -> Result<RecordSet, IndexError> {
        self.at_root(Kind::Invalid)
    }

    fn at_root(&self, kind: Kind) -> Result<RecordSet, IndexError> {
        let mut found = self.none(DOCUMENTS);
        if let Some(key) = self.path(ROOT).and_then(|root| self.key(root, kind, &[])) {
            self.mark(key, &mut found)?;
        }
        Ok(found)
    }

    /// The key of a value; none: no record has it.
    pub fn key(&self, path: PathId, kind: Kind, value: &[u8]) -> Option<DictId> {
        let key = [&path.to_be_bytes(), &[kind as u8] as &[u8], value].concat();
        self.keys.id_of(&Scalar::Bytes(key.into()))
    }

    /// The keys of a kind at a path, in the order of their values, from `low` on to `high`, each with whether it is
    /// itself included.
    pub fn keys(
        &self,
        path: PathId,
        kind: Kind,
        low: Option<(&[u8], bool)>,
        high: Option<(&[u8], bool)>,
    ) -> Range<DictId> {
        let bound = |kind: u8, value: &[u8]| {
            Scalar::Bytes(
                [&path.to_be_bytes(), &[kind] as &[u8], value]
                    .concat()
                    .into(),
            )
        };
        let low = low.unwrap_or((&[], true));
        let low = (bound(kind as u8, low.0), low.1);
        let high = match high {
            Some((value, included)) => (bound(kind as u8, value), included),
            None => (bound(kind as u8 + 1, &[]), false),
        };
        self.keys
            .range(Some((&low.0, low.1)), Some((&high.0, high.1)))
    }

    /// The value of a key.
    pub fn value(&self, key: DictId) -> Cow<'_, [u8]> {
        match self.bytes_of(key) {
            Cow::Borrowed(key) => Cow::Borrowed(key.get(KEY_HEADER..).unwrap_or_default()),
            Cow::Owned(key) => Cow::Owned(key.get(KEY_HEADER..).unwrap_or_default().to_vec()),
        }
    }

    /// Adds the records that have a key to `out`, which is of the level of the key's path.
    ///
    /// # Errors
    /// When the stored records are not of that level.
    pub fn mark(&self, key: DictId, out: &mut RecordSet) -> Result<(), IndexError> {
        let mut left = self.postings.count(key);
        let mut bits = DocBits::new();
        // The sets of other levels may reach further.
        for chunk in 0..out.len().div_ceil(CHUNK_DOCS) {
            if left == 0 {
                break;
            }
            bits.clear();
            self.postings.fill(key, chunk, &mut bits);
            left = left.saturating_sub(u64::from(bits.count()));
            if !out.insert_words(chunk * CHUNK_DOCS, bits.words()) {
                return Err(damaged(&format!("the records of its key {key}")));
            }
        }
        match left {
            0 => Ok(()),
            _ => Err(damaged(&format!("the records of its key {key}"))),
        }
    }

    /// The records of the parent level that hold any of `records`; none for the documents.
    pub fn parents(&self, records: &RecordSet) -> Option<RecordSet> {
        let level = self.levels.get(records.level().checked_sub(1)? as usize)?;
        let mut parents = self.none(level.parent);
        if records.count() * SPARSE < u64::from(records.len()) {
            for record in records.iter() {
                parents.insert(level.parents.get(record as usize) as u32);
            }
        } else {
            let mut record = 0;
            level.parents.for_blocks(0, level.parents.len(), |block| {
                for &parent in block {
                    if records.contains(record) {
                        parents.insert(parent as u32);
                    }
                    record += 1;
                }
            });
        }
        Some(parents)
    }

    /// The records of `level` whose parents are in `parents`.
    pub fn children(&self, level: LevelId, parents: &RecordSet) -> RecordSet {
        let mut children = self.none(level);
        let Some(level) = level
            .checked_sub(1)
            .and_then(|l| self.levels.get(l as usize))
        else {
            return children;
        };
        let mut record = 0;
        level.parents.for_blocks(0, level.parents.len(), |block| {
            for &parent in block {
                if parents.contains(parent as u32) {
                    children.insert(record);
                }
                record += 1;
            }
        });
        children
    }
}

fn bytes_dictionary(bytes: Bytes) -> Result<ImmutableDictionary, IndexError> {
    let dictionary = ImmutableDictionary::open(bytes)?;
    match dictionary.physical() {
        PhysicalType::Bytes => Ok(dictionary),
        _ => Err(damaged("the type of its keys")),
    }
}

fn damaged(what: &str) -> IndexError {
    corrupt(format!("a JSON index is damaged: {what}"))
}
