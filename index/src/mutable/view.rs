//! A consuming column pinned at a number of documents.

use super::dictionary::DictionaryView;
use super::postings::{self, Pieces};
use super::{PieceList, Shared, Store};
use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::reader::{
    ColumnReader, DictId, Dictionary, DocId, DocSelection, PhysicalType, Postings, ValueBuffer,
};
use std::ops::Range;
use std::sync::Arc;

pub(super) struct MutableView {
    shared: Arc<Shared>,
    docs: u32,
    dictionary: Option<DictionaryView>,
    pieces: Option<Pieces>,
}

impl MutableView {
    /// A view of the first `docs` documents, which are published.
    pub(super) fn new(shared: Arc<Shared>, docs: u32) -> Self {
        let dictionary = match &shared.store {
            Store::Ids { dictionary, .. } => Some(dictionary.view(shared.dictionary_len(docs))),
            Store::Raw(_) => None,
        };
        let pieces = shared.pieces.as_ref().map(PieceList::get);
        Self {
            shared,
            docs,
            dictionary,
            pieces,
        }
    }

    /// Values, or elements, of the view's documents.
    fn values_len(&self) -> u32 {
        self.shared.list_start(self.docs)
    }

    /// Appends for each document the end of its elements, the first element counted `from`, and calls `read` with
    /// the elements' positions.
    fn elements(
        &self,
        docs: DocSelection<'_>,
        from: usize,
        ends: &mut Vec<u32>,
        read: impl FnOnce(DocSelection<'_>),
    ) {
        let Some(list_ends) = &self.shared.list_ends else {
            return;
        };
        match docs {
            DocSelection::Range(range) => {
                let first = self.shared.list_start(range.start);
                let mut last = first;
                for slice in list_ends.slices(range.start as usize..range.end as usize) {
                    ends.extend(slice.iter().map(|&end| (end - first) + from as u32));
                    last = slice.last().copied().unwrap_or(last);
                }
                read(DocSelection::Range(first..last));
            }
            DocSelection::Docs(docs) => {
                let mut positions = Vec::with_capacity(docs.len());
                for &doc in docs {
                    positions.extend(self.shared.list_start(doc)..self.shared.list_start(doc + 1));
                    ends.push((from + positions.len()) as u32);
                }
                read(DocSelection::Docs(&positions));
            }
        }
    }

    fn append_ids(&self, positions: &DocSelection<'_>, out: &mut Vec<DictId>) {
        let Store::Ids { ids, .. } = &self.shared.store else {
            return;
        };
        match positions {
            DocSelection::Range(range) => {
                for slice in ids.slices(range.start as usize..range.end as usize) {
                    out.extend_from_slice(slice);
                }
            }
            DocSelection::Docs(docs) => {
                out.reserve(docs.len());
                ids.for_positions(docs, |id| out.push(id));
            }
        }
    }

    fn append_values(&self, positions: &DocSelection<'_>, out: &mut ValueBuffer) {
        match (&self.shared.store, &self.dictionary) {
            (Store::Raw(values), _) => values.append(positions, out),
            (Store::Ids { ids, .. }, Some(dictionary)) => match positions {
                DocSelection::Range(range) => {
                    for slice in ids.slices(range.start as usize..range.end as usize) {
                        dictionary.gather(slice, out);
                    }
                }
                DocSelection::Docs(docs) => {
                    let mut picked = Vec::with_capacity(docs.len());
                    ids.for_positions(docs, |id| picked.push(id));
                    dictionary.gather(&picked, out);
                }
            },
            _ => {}
        }
    }

    /// Documents after the last piece.
    fn unsealed(&self, pieces: &Pieces) -> Range<DocId> {
        postings::sealed(pieces).min(self.docs)..self.docs
    }
}

impl ColumnReader for MutableView {
    fn physical(&self) -> PhysicalType {
        self.shared.physical
    }

    fn is_multi_value(&self) -> bool {
        self.shared.list_ends.is_some()
    }

    fn num_docs(&self) -> u32 {
        self.docs
    }

    fn dictionary(&self) -> Option<&dyn Dictionary> {
        self.dictionary.as_ref().map(|d| d as &dyn Dictionary)
    }

    fn is_sorted(&self) -> bool {
        false
    }

    fn has_nulls(&self) -> bool {
        self.shared.null_docs.any(self.docs)
    }

    fn null_bits(&self, chunk: u32, out: &mut DocBits) {
        self.shared.null_docs.fill(chunk, self.docs, out);
    }

    fn null_elements(&self, docs: DocSelection<'_>, out: &mut Vec<bool>) {
        let (nulls, len) = (&self.shared.null_elements, self.values_len());
        if !nulls.any(len) {
            return;
        }
        let mut held = None;
        let mut is_null = |position: u32| nulls.contains(position, len, &mut held);
        self.elements(docs, 0, &mut Vec::new(), |positions| match positions {
            DocSelection::Range(range) => out.extend(range.map(&mut is_null)),
            DocSelection::Docs(positions) => out.extend(positions.iter().map(|&p| is_null(p))),
        });
    }

    fn dict_ids(&self, docs: DocSelection<'_>, out: &mut Vec<DictId>) {
        self.append_ids(&docs, out);
    }

    fn values(&self, docs: DocSelection<'_>, out: &mut ValueBuffer) {
        self.append_values(&docs, out);
    }

    fn multi_dict_ids(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, ids: &mut Vec<DictId>) {
        self.elements(docs, ids.len(), ends, |positions| {
            self.append_ids(&positions, ids)
        });
    }

    fn multi_values(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, values: &mut ValueBuffer) {
        self.elements(docs, values.len(), ends, |positions| {
            self.append_values(&positions, values)
        });
    }

    fn inverted(&self) -> Option<&dyn Postings> {
        self.pieces.is_some().then_some(self as &dyn Postings)
    }
}

impl Postings for MutableView {
    fn fill(&self, id: DictId, chunk: u32, out: &mut DocBits) {
        let Some(pieces) = &self.pieces else { return };
        postings::fill(pieces, id, chunk, self.docs, out);
        let rest = self.unsealed(pieces);
        let start = u64::from(chunk) * u64::from(CHUNK_DOCS);
        let end = (start + u64::from(CHUNK_DOCS)).min(rest.end.into()) as u32;
        let from = start.max(rest.start.into()).min(end.into()) as u32;
        if from < end {
            self.shared.scan(id, from..end, out);
        }
    }

    fn count(&self, id: DictId) -> u64 {
        self.pieces.as_ref().map_or(0, |pieces| {
            postings::count(pieces, id) + self.unsealed(pieces).len() as u64
        })
    }
}
