//! Writing a JSON index: values come document by document; all that is held of them is a number each, and each
//! distinct key once.

use super::{DOCUMENTS, FORMAT, KEY_HEADER, Kind, LevelId, PathId, ROOT, RecordId};
use crate::dictionary;
use crate::frame::Frame;
use crate::inverted::{InvertedIndex, PostingLists};
use crate::mutable::{DictionaryWriter, MutableDictionary};
use crate::reader::{DictId, Dictionary, IndexError, PhysicalType, Scalar, ValueBuffer};
use crate::wire::corrupt;
use std::collections::HashMap;
use std::sync::Arc;

/// Collects the values of documents.
pub struct JsonIndexWriter {
    paths: HashMap<Box<[u8]>, PathId>,
    path_levels: Vec<LevelId>,
    /// The level of the elements at a path.
    element_levels: HashMap<PathId, LevelId>,
    key: Vec<u8>,
    key_writer: DictionaryWriter,
    keys: Arc<MutableDictionary>,
    levels: Vec<Growing>,
}

/// A level's records: the parent and the keys of each.
#[derive(Default)]
struct Growing {
    parent: LevelId,
    parents: Vec<RecordId>,
    /// Of all records, in their order.
    keys: Vec<DictId>,
    /// Where those of each record end.
    ends: Vec<u32>,
}

impl Growing {
    fn end_record(&mut self) {
        self.ends.push(self.keys.len() as u32);
    }
}

impl JsonIndexWriter {
    /// An index of no documents.
    ///
    /// # Errors
    /// Never, in fact: the root's path is the first.
    pub fn new() -> Result<Self, IndexError> {
        let (key_writer, keys) = MutableDictionary::new(PhysicalType::Bytes);
        let mut writer = Self {
            paths: HashMap::new(),
            path_levels: Vec::new(),
            element_levels: HashMap::new(),
            key: Vec::new(),
            key_writer,
            keys,
            levels: vec![Growing::default()],
        };
        writer.path(ROOT, DOCUMENTS)?;
        Ok(writer)
    }

    /// The number of a path, whose values belong to `level`: the level of the innermost array on it.
    ///
    /// # Errors
    /// When there are 2^32 of them.
    pub fn path(&mut self, path: &[u8], level: LevelId) -> Result<PathId, IndexError> {
        if let Some(&id) = self.paths.get(path) {
            return Ok(id);
        }
        let id = u32::try_from(self.paths.len()).map_err(|_| too_many("paths"))?;
        self.paths.insert(path.into(), id);
        self.path_levels.push(level);
        Ok(id)
    }

    /// The level of an array's elements by their path, which is within `parent`; and the path's number.
    ///
    /// # Errors
    /// When there are 2^32 of them.
    pub fn level(&mut self, path: &[u8], parent: LevelId) -> Result<(PathId, LevelId), IndexError> {
        if let Some(&id) = self.paths.get(path)
            && let Some(&level) = self.element_levels.get(&id)
        {
            return Ok((id, level));
        }
        let level = u32::try_from(self.levels.len()).map_err(|_| too_many("levels"))?;
        let id = self.path(path, level)?;
        self.element_levels.insert(id, level);
        self.levels.push(Growing {
            parent,
            ..Growing::default()
        });
        Ok((id, level))
    }

    /// Begins an element of `level` within the parent level's record `parent`; what is added to the level belongs to it
    /// until it ends.
    ///
    /// # Errors
    /// When there are 2^32 of them.
    pub fn element(&mut self, level: LevelId, parent: RecordId) -> Result<RecordId, IndexError> {
        let level = self
            .levels
            .get_mut(level as usize)
            .ok_or_else(|| corrupt("no such level"))?;
        let record = u32::try_from(level.parents.len())
            .ok()
            .filter(|&record| record < u32::MAX)
            .ok_or_else(|| too_many("array elements"))?;
        level.parents.push(parent);
        Ok(record)
    }

    /// Ends the element that was begun last in `level`.
    pub fn end_element(&mut self, level: LevelId) {
        if let Some(level) = self.levels.get_mut(level as usize) {
            level.end_record();
        }
    }

    /// Ends a document.
    ///
    /// # Errors
    /// When there are too many values.
    pub fn end_document(&mut self) -> Result<(), IndexError> {
        if let Some(documents) = self.levels.first_mut() {
            documents.end_record();
        }
        match self
            .levels
            .iter()
            .all(|level| u32::try_from(level.keys.len()).is_ok())
        {
            true => Ok(()),
            false => Err(too_many("values")),
        }
    }

    /// The number of the document, or of the element of `level`, that is being written.
    pub fn record(&self, level: LevelId) -> RecordId {
        self.levels
            .get(level as usize)
            .map_or(0, |level| level.ends.len() as u32)
    }

    /// Gives the record of `level` that is being written a key.
    ///
    /// # Errors
    /// When there are too many distinct keys.
    pub fn add(
        &mut self,
        level: LevelId,
        path: PathId,
        kind: Kind,
        value: &[u8],
    ) -> Result<(), IndexError> {
        self.key.clear();
        self.key.extend_from_slice(&path.to_be_bytes());
        self.key.push(kind as u8);
        self.key.extend_from_slice(value);
        let id = self.key_writer.intern_text(&self.key)?;
        if let Some(level) = self.levels.get_mut(level as usize) {
            level.keys.push(id);
        }
        Ok(())
    }

    /// Marks the document that is being written as one that holds something.
    ///
    /// # Errors
    /// As [`JsonIndexWriter::add`].
    pub fn add_content(&mut self) -> Result<(), IndexError> {
        self.add(DOCUMENTS, 0, Kind::Content, &[])
    }

    /// Marks the document that is being written as a text that is none.
    ///
    /// # Errors
    /// As [`JsonIndexWriter::add`].
    pub fn add_invalid(&mut self) -> Result<(), IndexError> {
        self.add(DOCUMENTS, 0, Kind::Invalid, &[])
    }

    /// The stored form.
    ///
    /// # Errors
    /// When the keys take 2 GiB or more.
    pub fn finish(self, coverage: &[u8]) -> Result<Vec<u8>, IndexError> {
        let mut by_name: Vec<(Box<[u8]>, PathId)> = self.paths.into_iter().collect();
        by_name.sort_unstable();
        let mut path_ranks = vec![0u32; by_name.len()];
        let mut paths = ValueBuffer::new(PhysicalType::Bytes);
        let mut path_levels = Vec::with_capacity(by_name.len());
        fits(by_name.iter().map(|(path, _)| path.len()).sum())?;
        for (rank, (path, id)) in by_name.iter().enumerate() {
            if let Some(slot) = path_ranks.get_mut(*id as usize) {
                *slot = rank as u32;
            }
            paths.push_bytes(path);
            path_levels.push(self.path_levels.get(*id as usize).copied().unwrap_or(0));
        }
        let (key_ranks, keys) = sorted_keys(&self.keys, self.key_writer.len(), &path_ranks)?;
        let levels = &self.levels;
        let lists = PostingLists::group(keys.len() as u32, |sink| {
            let mut ranked = Vec::new();
            for level in levels {
                let mut start = 0;
                for (record, &end) in level.ends.iter().enumerate() {
                    let of_record = level.keys.get(start..end as usize).unwrap_or_default();
                    ranked.clear();
                    ranked.extend(
                        of_record
                            .iter()
                            .map(|&id| key_ranks.get(id as usize).copied().unwrap_or(0)),
                    );
                    sink(&ranked, record as u32);
                    start = end as usize;
                }
            }
        });
        let [mut path_bytes, mut key_bytes, mut postings] = [const { Vec::new() }; 3];
        dictionary::write(&paths, &mut path_bytes);
        dictionary::write(&keys, &mut key_bytes);
        InvertedIndex::write(&lists, &mut postings);
        drop(lists);
        let mut out = vec![FORMAT, 0, 0, 0];
        let documents = levels.first().map_or(0, |level| level.ends.len());
        for count in [documents, path_levels.len(), levels.len()] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        for len in [
            coverage.len(),
            path_bytes.len(),
            key_bytes.len(),
            postings.len(),
        ] {
            out.extend_from_slice(&(len as u64).to_le_bytes());
        }
        for bytes in [coverage, &path_bytes, &key_bytes, &postings] {
            out.extend_from_slice(bytes);
        }
        for level in path_levels {
            out.extend_from_slice(&level.to_le_bytes());
        }
        for level in levels.iter().skip(1) {
            let mut frame = Vec::new();
            let parents = &level.parents;
            Frame::write(
                parents.len(),
                |i| parents.get(i).copied().unwrap_or(0).into(),
                &mut frame,
            );
            out.extend_from_slice(&level.parent.to_le_bytes());
            out.extend_from_slice(&(parents.len() as u32).to_le_bytes());
            out.extend_from_slice(&(frame.len() as u64).to_le_bytes());
            out.extend_from_slice(&frame);
        }
        Ok(out)
    }
}

/// For each key its rank, and the keys in order, both with the paths' ranks in place of their numbers.
fn sorted_keys(
    keys: &Arc<MutableDictionary>,
    len: u32,
    path_ranks: &[u32],
) -> Result<(Vec<DictId>, ValueBuffer), IndexError> {
    let view = keys.view(len);
    let parts = |id: DictId| match view.value(id) {
        Scalar::Bytes(key) => {
            let path = key
                .first_chunk::<4>()
                .map_or(0, |path| u32::from_be_bytes(*path));
            let rank = path_ranks.get(path as usize).copied().unwrap_or(0);
            (rank, key)
        }
        _ => (0, (&[] as &[u8]).into()),
    };
    let mut order: Vec<DictId> = (0..len).collect();
    order.sort_unstable_by(|&a, &b| {
        let ((rank_a, a), (rank_b, b)) = (parts(a), parts(b));
        (rank_a, a.get(4..)).cmp(&(rank_b, b.get(4..)))
    });
    fits((0..len).map(|id| parts(id).1.len()).sum())?;
    let mut ranks = vec![0; order.len()];
    let mut sorted = ValueBuffer::new(PhysicalType::Bytes);
    let mut ranked = Vec::new();
    for (rank, &id) in order.iter().enumerate() {
        if let Some(slot) = ranks.get_mut(id as usize) {
            *slot = rank as DictId;
        }
        let (path, key) = parts(id);
        debug_assert!(key.len() >= KEY_HEADER);
        ranked.clear();
        ranked.extend_from_slice(&path.to_be_bytes());
        ranked.extend_from_slice(key.get(4..).unwrap_or_default());
        sorted.push_bytes(&ranked);
    }
    Ok((ranks, sorted))
}

fn fits(bytes: usize) -> Result<(), IndexError> {
    match i32::try_from(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(corrupt(
            "a JSON index with keys of 2 GiB or more; index fewer paths (indexPaths, excludePaths) or seal segments earlier",
        )),
    }
}

fn too_many(what: &str) -> IndexError {
    corrupt(format!(
        "a JSON index of more than 4 billion {what}; seal segments earlier"
    ))
}
