//! The inverted index of an immutable column: a document set for each dictionary id.
//!
//! ```text
//! | ids u32 | narrow u8, 0 u8, 0 u16 | sets' bytes u64 | offset of each set, and their end | sets |
//! set: | kind u8 = 0 | documents u16... |    1: documents u32... |    2: a portable roaring bitmap |
//! ```
//!
//! Offsets are u32 when `narrow`, else u64. Sets of few documents are plain lists, ascending; the others are
//! read [where they lie](crate::portable). Null documents and null elements are in no set.

use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::portable::{self, PortableSet};
use crate::reader::{DictId, DocId, IndexError, Postings};
use crate::wire::{corrupt, part, size_at, u8_at, u32_at};
use bytes::Bytes;

const HEADER: usize = 16;
const LIST_U16: u8 = 0;
const LIST_U32: u8 = 1;
const PORTABLE: u8 = 2;
/// Longest plain list.
const LIST_MAX: usize = 16;

/// Postings over stored bytes.
#[derive(Clone, Debug)]
pub struct InvertedIndex {
    ids: u32,
    narrow: bool,
    offsets: Bytes,
    sets: Bytes,
}

/// Documents by id, as they are collected: a counting sort of (id, document) pairs.
pub(crate) struct PostingLists {
    starts: Vec<u32>,
    docs: Vec<DocId>,
}

impl PostingLists {
    /// Groups pairs that come in document order; an id repeated in one document counts once.
    pub(crate) fn group(
        cardinality: u32,
        pairs: impl Fn(&mut dyn FnMut(&[DictId], DocId)),
    ) -> Self {
        let ids = cardinality as usize;
        let mut last = vec![u32::MAX; ids];
        let mut starts = vec![0u32; ids + 1];
        pairs(&mut |list, doc| {
            for &id in list {
                if let (Some(last), Some(count)) =
                    (last.get_mut(id as usize), starts.get_mut(id as usize + 1))
                    && *last != doc
                {
                    *last = doc;
                    *count += 1;
                }
            }
        });
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut docs = vec![0; sum as usize];
        let mut next: Vec<u32> = starts.clone();
        last.fill(u32::MAX);
        pairs(&mut |list, doc| {
            for &id in list {
                if let (Some(last), Some(next)) =
                    (last.get_mut(id as usize), next.get_mut(id as usize))
                    && *last != doc
                {
                    *last = doc;
                    if let Some(slot) = docs.get_mut(*next as usize) {
                        *slot = doc;
                    }
                    *next += 1;
                }
            }
        });
        Self { starts, docs }
    }

    fn lists(&self) -> impl Iterator<Item = &[DocId]> {
        self.starts.windows(2).map(|w| {
            self.docs
                .get(w[0] as usize..w[1] as usize)
                .unwrap_or_default()
        })
    }
}

impl InvertedIndex {
    /// Appends the stored form of `lists`.
    pub(crate) fn write(lists: &PostingLists, out: &mut Vec<u8>) {
        let mut sets = Vec::new();
        let mut offsets = vec![0usize];
        for docs in lists.lists() {
            if docs.len() > LIST_MAX {
                sets.push(PORTABLE);
                portable::write(docs, &mut sets);
            } else if docs.last().is_none_or(|&last| last < CHUNK_DOCS) {
                sets.push(LIST_U16);
                docs.iter()
                    .for_each(|&doc| sets.extend_from_slice(&(doc as u16).to_le_bytes()));
            } else {
                sets.push(LIST_U32);
                docs.iter()
                    .for_each(|&doc| sets.extend_from_slice(&doc.to_le_bytes()));
            }
            offsets.push(sets.len());
        }
        let narrow = u32::try_from(sets.len()).is_ok();
        out.extend_from_slice(&(offsets.len() as u32 - 1).to_le_bytes());
        out.extend_from_slice(&[u8::from(narrow), 0, 0, 0]);
        out.extend_from_slice(&(sets.len() as u64).to_le_bytes());
        for offset in offsets {
            if narrow {
                out.extend_from_slice(&(offset as u32).to_le_bytes());
            } else {
                out.extend_from_slice(&(offset as u64).to_le_bytes());
            }
        }
        out.extend_from_slice(&sets);
    }

    /// An index of `docs` documents over its stored bytes; every set is checked to lie within them.
    ///
    /// # Errors
    /// When the bytes can't be an inverted index.
    pub fn open(bytes: Bytes, docs: u32) -> Result<Self, IndexError> {
        let ids = u32_at(&bytes, 0)?;
        let narrow = u8_at(&bytes, 4)? != 0;
        let sets_len = size_at(&bytes, 8)?;
        let offsets_len = (ids as usize + 1).saturating_mul(if narrow { 4 } else { 8 });
        let offsets = part(&bytes, HEADER, offsets_len)?;
        let sets = bytes.slice(HEADER + offsets_len..);
        let index = Self {
            ids,
            narrow,
            offsets,
            sets,
        };
        if index.sets.len() != sets_len
            || index.offset(ids as usize) != sets_len
            || index.offset(0) != 0
        {
            return Err(corrupt(format!(
                "an inverted index has {} bytes of sets",
                index.sets.len()
            )));
        }
        for id in 0..ids {
            let damaged = || {
                corrupt(format!(
                    "the inverted index's documents of id {id} are damaged"
                ))
            };
            let ascending = |mut all: &mut dyn Iterator<Item = u32>| {
                let mut previous = None;
                (&mut all).all(|doc| doc < docs && previous.replace(doc) < Some(doc))
            };
            let valid = match index.set(id).ok_or_else(damaged)? {
                Set::Narrow(list) => {
                    ascending(&mut list.iter().map(|d| u32::from(u16::from_le_bytes(*d))))
                }
                Set::Wide(list) => ascending(&mut list.iter().map(|d| u32::from_le_bytes(*d))),
                Set::Portable(bytes) => PortableSet::validate(bytes, docs).is_ok(),
            };
            if !valid {
                return Err(damaged());
            }
        }
        Ok(index)
    }

    /// How many ids have sets.
    pub(crate) fn ids(&self) -> u32 {
        self.ids
    }

    fn offset(&self, i: usize) -> usize {
        if self.narrow {
            self.offsets
                .as_chunks::<4>()
                .0
                .get(i)
                .map_or(0, |o| u32::from_le_bytes(*o) as usize)
        } else {
            self.offsets
                .as_chunks::<8>()
                .0
                .get(i)
                .map_or(0, |o| u64::from_le_bytes(*o) as usize)
        }
    }

    fn set(&self, id: DictId) -> Option<Set<'_>> {
        let (kind, rest) = self
            .sets
            .get(self.offset(id as usize)..self.offset(id as usize + 1))?
            .split_first()?;
        match *kind {
            LIST_U16 => Some(Set::Narrow(whole::<2>(rest)?)),
            LIST_U32 => Some(Set::Wide(whole::<4>(rest)?)),
            PORTABLE => Some(Set::Portable(rest)),
            _ => None,
        }
    }
}

/// One id's documents.
enum Set<'a> {
    Narrow(&'a [[u8; 2]]),
    Wide(&'a [[u8; 4]]),
    Portable(&'a [u8]),
}

fn whole<const N: usize>(bytes: &[u8]) -> Option<&[[u8; N]]> {
    let (items, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then_some(items)
}

impl Postings for InvertedIndex {
    fn fill(&self, id: DictId, chunk: u32, out: &mut DocBits) {
        if id >= self.ids {
            return;
        }
        match self.set(id) {
            Some(Set::Narrow(list)) if chunk == 0 => {
                list.iter().for_each(|d| out.insert(u16::from_le_bytes(*d)))
            }
            Some(Set::Wide(list)) => {
                for doc in list
                    .iter()
                    .map(|d| u32::from_le_bytes(*d))
                    .filter(|d| d >> 16 == chunk)
                {
                    out.insert(doc as u16);
                }
            }
            Some(Set::Portable(bytes)) => {
                if let Some(set) = PortableSet::new(bytes) {
                    set.fill(chunk, out);
                }
            }
            _ => {}
        }
    }

    fn append_docs(&self, id: DictId, out: &mut Vec<DocId>) -> bool {
        if id >= self.ids {
            return true;
        }
        match self.set(id) {
            Some(Set::Narrow(list)) => {
                out.extend(list.iter().map(|d| u32::from(u16::from_le_bytes(*d))));
            }
            Some(Set::Wide(list)) => out.extend(list.iter().map(|d| u32::from_le_bytes(*d))),
            Some(Set::Portable(bytes)) => {
                if let Some(set) = PortableSet::new(bytes) {
                    set.append_docs(out);
                }
            }
            None => {}
        }
        true
    }

    fn count(&self, id: DictId) -> u64 {
        if id >= self.ids {
            return 0;
        }
        match self.set(id) {
            Some(Set::Narrow(list)) => list.len() as u64,
            Some(Set::Wide(list)) => list.len() as u64,
            Some(Set::Portable(bytes)) => PortableSet::new(bytes).map_or(0, |set| set.count()),
            None => 0,
        }
    }
}
