//! The forward index of a sorted column, which is its sorted and its inverted index as well.
//!
//! With few ids, each standing in many documents, it is the end of each id's documents: a [frame](crate::frame)
//! of one integer for each id, ascending; id `i` stands in documents `end[i - 1]..end[i]`. With many ids it is
//! the [packed ids](crate::bitpack) themselves, which ascend, and document ranges are found by bisection.

use crate::bitpack::{Blocks, PackedIds};
use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::frame::Frame;
use crate::reader::{DictId, DocId, DocSelection, IndexError, Postings};
use crate::wire::corrupt;
use std::ops::Range;

/// Document ranges by id.
#[derive(Clone, Debug)]
pub(crate) struct SortedRuns {
    /// One end for each id.
    ends: Frame,
}

impl SortedRuns {
    /// Appends the stored form of ascending `ids`, each below `cardinality`.
    pub(crate) fn write(ids: &[DictId], cardinality: u32, out: &mut Vec<u8>) {
        let mut ends = vec![0i64; cardinality as usize];
        for &id in ids {
            if let Some(end) = ends.get_mut(id as usize) {
                *end += 1;
            }
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        Frame::write(ends.len(), |i| ends.get(i).copied().unwrap_or(0), out);
    }

    pub(crate) fn open(bytes: bytes::Bytes, docs: u32) -> Result<Self, IndexError> {
        let ends = Frame::open(bytes)?;
        if ends.last_if_ascending() != Some(i64::from(docs)) {
            return Err(corrupt(
                "a sorted column's document ranges don't follow each other",
            ));
        }
        Ok(Self { ends })
    }

    pub(crate) fn ids(&self) -> usize {
        self.ends.len()
    }

    /// Where the documents of `id` begin; for ids past the last one, where all end.
    fn start_of(&self, id: DictId) -> DocId {
        match (id as usize).min(self.ids()).checked_sub(1) {
            None => 0,
            Some(before) => self.ends.get(before) as DocId,
        }
    }

    /// The documents of a range of ids.
    pub(crate) fn docs(&self, ids: Range<DictId>) -> Range<DocId> {
        if ids.start >= ids.end {
            return 0..0;
        }
        self.start_of(ids.start)..self.start_of(ids.end)
    }

    /// The id that `doc` holds, at or after `from`.
    fn id_at(&self, doc: DocId, from: usize) -> usize {
        let (mut low, mut high) = (from, self.ids());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.ends.get(middle) <= i64::from(doc) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Gives the ids of a selection, at most 1,024 at a time.
    pub(crate) fn for_each(&self, docs: &DocSelection<'_>, mut sink: impl FnMut(&[DictId])) {
        let mut block = [0; crate::bitpack::BLOCK];
        match docs {
            DocSelection::Range(range) => {
                let mut doc = range.start;
                let mut id = self.id_at(doc, 0);
                let mut end = self.start_of(id as DictId + 1);
                while doc < range.end && id < self.ids() {
                    let until = range.end.min(doc.saturating_add(block.len() as u32));
                    let mut filled = 0;
                    while doc < until && id < self.ids() {
                        let run = end.min(until).saturating_sub(doc) as usize;
                        block[filled..filled + run].fill(id as DictId);
                        filled += run;
                        doc += run as u32;
                        if end <= doc {
                            id += 1;
                            end = self.start_of(id as DictId + 1);
                        }
                    }
                    sink(&block[..filled]);
                }
            }
            DocSelection::Docs(docs) => {
                let mut id = 0;
                let mut end = self.start_of(1);
                for part in docs.chunks(block.len()) {
                    for (slot, &doc) in block.iter_mut().zip(part) {
                        if doc >= end {
                            let next = self.start_of(id as DictId + 2);
                            id = if doc < next {
                                id + 1
                            } else {
                                self.id_at(doc, id + 1)
                            };
                            end = self.start_of(id as DictId + 1);
                        }
                        *slot = id as DictId;
                    }
                    sink(&block[..part.len()]);
                }
            }
        }
    }
}

/// Adds the part of `docs` that lies in `chunk`.
fn fill_range(docs: Range<DocId>, chunk: u32, out: &mut DocBits) {
    let first = u64::from(chunk) * u64::from(CHUNK_DOCS);
    let within = |doc: u32| {
        u64::from(doc)
            .saturating_sub(first)
            .min(u64::from(CHUNK_DOCS)) as u32
    };
    out.insert_range(within(docs.start), within(docs.end));
}

impl Postings for SortedRuns {
    fn fill(&self, id: DictId, chunk: u32, out: &mut DocBits) {
        fill_range(self.docs(id..id.saturating_add(1)), chunk, out);
    }

    fn count(&self, id: DictId) -> u64 {
        self.docs(id..id.saturating_add(1)).len() as u64
    }
}

/// Packed ids that ascend.
#[derive(Clone, Debug)]
pub(crate) struct SortedIds(pub(crate) PackedIds);

impl SortedIds {
    /// The documents of a range of ids.
    pub(crate) fn docs(&self, ids: Range<DictId>) -> Range<DocId> {
        if ids.start >= ids.end {
            return 0..0;
        }
        self.0.first_not_below(ids.start)..self.0.first_not_below(ids.end)
    }
}

impl Postings for SortedIds {
    fn fill(&self, id: DictId, chunk: u32, out: &mut DocBits) {
        fill_range(self.docs(id..id.saturating_add(1)), chunk, out);
    }

    fn count(&self, id: DictId) -> u64 {
        self.docs(id..id.saturating_add(1)).len() as u64
    }
}
