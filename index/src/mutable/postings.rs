//! Postings of a consuming column.
//!
//! Rows are grouped into pieces: 8,192 at first, and once a chunk of 65,536 is complete its pieces are replaced by
//! one. A piece never changes; rows after the last piece are few and are found by scanning their ids. So appending
//! touches no posting list, and a reader needs no lock: it holds the pieces that there were when it was made.
//!
//! A piece holds its distinct ids, ascending, and their documents as roaring containers do: as numbers within the
//! chunk when there are at most 4,096 of them, otherwise as bits.

use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::reader::{DictId, DocId};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

/// Rows of a piece of an incomplete chunk.
pub(crate) const PIECE_DOCS: u32 = 8192;
/// Documents from which on bits take less room than numbers.
const ARRAY_MAX: usize = 4096;
/// Of a place: that the documents are bits.
const IN_BITS: u32 = 1 << 31;

/// Postings of a range of documents within one chunk.
pub(crate) struct Piece {
    docs: Range<DocId>,
    /// Distinct ids, ascending, of those that are lists.
    ids: Box<[DictId]>,
    /// End of each id's documents in `lists`.
    ends: Box<[u32]>,
    lists: Box<[u16]>,
    dense: HashMap<DictId, DocBits>,
}

impl Piece {
    /// Groups pairs of id (high half) and document (low half), which come by document; an id repeated in one document counts
    /// once.
    pub(crate) fn new(docs: Range<DocId>, pairs: Vec<u64>) -> Self {
        let mut sorted = by_id(pairs);
        sorted.dedup();
        let (mut ids, mut ends, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        let mut dense = HashMap::new();
        for run in sorted.chunk_by(|a, b| a >> 32 == b >> 32) {
            let id = run.first().map_or(0, |pair| (pair >> 32) as DictId);
            if run.len() > ARRAY_MAX {
                let mut bits = DocBits::new();
                run.iter().for_each(|&pair| bits.insert(pair as u16));
                dense.insert(id, bits);
            } else {
                ids.push(id);
                lists.extend(run.iter().map(|&pair| pair as u16));
                ends.push(lists.len() as u32);
            }
        }
        Self {
            docs,
            ids: ids.into(),
            ends: ends.into(),
            lists: lists.into(),
            dense,
        }
    }

    /// The same of documents that hold one id each, all of the ids being below `len`; by counting, without a pair to each.
    pub(crate) fn counted(docs: Range<DocId>, held: &[&[DictId]], len: usize) -> Self {
        // By id: how many documents, then where the next one goes, or the number of its bits.
        let mut places = vec![0_u32; len];
        for &id in held.iter().copied().flatten() {
            if let Some(place) = places.get_mut(id as usize) {
                *place += 1;
            }
        }
        let (mut ids, mut ends, mut listed) = (Vec::new(), Vec::new(), 0);
        let mut dense: Vec<(DictId, DocBits)> = Vec::new();
        for (id, place) in (0..).zip(&mut places) {
            let count = *place;
            if count as usize > ARRAY_MAX {
                *place = IN_BITS | dense.len() as u32;
                dense.push((id, DocBits::new()));
            } else if count > 0 {
                *place = listed;
                listed += count;
                ids.push(id);
                ends.push(listed);
            }
        }
        let mut lists = vec![0; listed as usize];
        for (doc, &id) in docs.clone().zip(held.iter().copied().flatten()) {
            let Some(place) = places.get_mut(id as usize) else {
                continue;
            };
            if *place & IN_BITS != 0 {
                if let Some((_, bits)) = dense.get_mut((*place & !IN_BITS) as usize) {
                    bits.insert(doc as u16);
                }
            } else if let Some(to) = lists.get_mut(*place as usize) {
                *to = doc as u16;
                *place += 1;
            }
        }
        Self {
            docs,
            ids: ids.into(),
            ends: ends.into(),
            lists: lists.into(),
            dense: dense.into_iter().collect(),
        }
    }

    fn list(&self, id: DictId) -> &[u16] {
        let Ok(i) = self.ids.binary_search(&id) else {
            return &[];
        };
        let end = |i: usize| self.ends.get(i).map_or(0, |&end| end as usize);
        self.lists
            .get(i.checked_sub(1).map_or(0, end)..end(i))
            .unwrap_or_default()
    }

    fn fill(&self, id: DictId, docs: u32, out: &mut DocBits) {
        let chunk_start = self.docs.start / CHUNK_DOCS * CHUNK_DOCS;
        let within = docs.saturating_sub(chunk_start).min(CHUNK_DOCS);
        for &doc in self
            .list(id)
            .iter()
            .take_while(|&&doc| u32::from(doc) < within)
        {
            out.insert(doc);
        }
        if let Some(bits) = self.dense.get(&id) {
            let words = out
                .words_mut()
                .iter_mut()
                .zip(bits.words())
                .take(within.div_ceil(64) as usize);
            for (i, (to, from)) in words.enumerate() {
                let left = within - i as u32 * 64;
                *to |= from
                    & if left >= 64 {
                        u64::MAX
                    } else {
                        (1 << left) - 1
                    };
            }
        }
    }

    fn count(&self, id: DictId) -> u64 {
        self.list(id).len() as u64
            + self
                .dense
                .get(&id)
                .map_or(0, |bits| u64::from(bits.count()))
    }

    fn bytes(&self) -> usize {
        let lists = size_of_val(&*self.ids) + size_of_val(&*self.ends) + size_of_val(&*self.lists);
        size_of::<Self>() + lists + self.dense.len() * (CHUNK_DOCS as usize / 8)
    }
}

/// Sorts pairs of id and document that come by document: where ids are few, they are counted instead of compared.
fn by_id(mut pairs: Vec<u64>) -> Vec<u64> {
    let id = |pair: &u64| (pair >> 32) as usize;
    let ids = pairs.iter().map(id).max().map_or(0, |most| most + 1);
    if ids > pairs.len() {
        pairs.sort_unstable();
        return pairs;
    }
    let mut places = vec![0_u32; ids];
    for pair in &pairs {
        if let Some(place) = places.get_mut(id(pair)) {
            *place += 1;
        }
    }
    let mut start = 0;
    for place in &mut places {
        start += std::mem::replace(place, start);
    }
    let mut sorted = vec![0; pairs.len()];
    for pair in &pairs {
        if let Some(place) = places.get_mut(id(pair))
            && let Some(to) = sorted.get_mut(*place as usize)
        {
            *to = *pair;
            *place += 1;
        }
    }
    sorted
}

/// The pieces of a view, in document order, without gaps.
pub(crate) type Pieces = Arc<Vec<Arc<Piece>>>;

/// The pieces so far.
#[derive(Default)]
pub(crate) struct PieceList {
    /// Locked only for as long as it takes to copy or replace the pointer.
    pieces: RwLock<Pieces>,
}

impl PieceList {
    pub(crate) fn get(&self) -> Pieces {
        self.pieces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes pieces of all whole runs of documents up to `docs`; only the column's writer calls this.
    pub(crate) fn seal(&self, docs: u32, make: impl Fn(Range<DocId>) -> Piece) {
        let mut pieces = self.get().to_vec();
        let mut end = sealed(&pieces);
        if docs - end < PIECE_DOCS {
            return;
        }
        while docs - end >= PIECE_DOCS {
            let chunk_start = end / CHUNK_DOCS * CHUNK_DOCS;
            if docs - chunk_start >= CHUNK_DOCS {
                while pieces
                    .last()
                    .is_some_and(|piece| piece.docs.start >= chunk_start)
                {
                    pieces.pop();
                }
                pieces.push(Arc::new(make(chunk_start..chunk_start + CHUNK_DOCS)));
            } else {
                pieces.push(Arc::new(make(end..end + PIECE_DOCS)));
            }
            end = sealed(&pieces);
        }
        *self.pieces.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pieces);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.get().iter().map(|piece| piece.bytes()).sum()
    }
}

/// Documents that pieces cover.
pub(crate) fn sealed(pieces: &[Arc<Piece>]) -> u32 {
    pieces.last().map_or(0, |piece| piece.docs.end)
}

/// Adds the documents of `id` in `chunk` that are below `docs` and in pieces.
pub(crate) fn fill(pieces: &[Arc<Piece>], id: DictId, chunk: u32, docs: u32, out: &mut DocBits) {
    let first = pieces.partition_point(|piece| piece.docs.start / CHUNK_DOCS < chunk);
    for piece in pieces
        .iter()
        .skip(first)
        .take_while(|piece| piece.docs.start / CHUNK_DOCS == chunk)
    {
        piece.fill(id, docs, out);
    }
}

/// How many documents of `id` pieces hold, those beyond a view's end included.
pub(crate) fn count(pieces: &[Arc<Piece>], id: DictId) -> u64 {
    pieces.iter().map(|piece| piece.count(id)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counted_pieces_hold_what_pairs_say(
            start in prop::sample::select(&[0_u32, 8_192, 65_536][..]),
            ids in prop::collection::vec(0_u32..40, 1..200),
            times in prop::sample::select(&[1_usize, 300][..]),
            cut in 0..200_usize,
        ) {
            // The first id is dense where all come many times.
            let ids: Vec<DictId> = (0..times).flat_map(|_| ids.iter().map(|&id| id / 7 * (id % 3))).collect();
            let ids = &ids[..ids.len().min(CHUNK_DOCS as usize / 2)];
            let docs = start..start + ids.len() as u32;
            let pairs = ids.iter().zip(docs.clone()).map(|(&id, doc)| u64::from(id) << 32 | u64::from(doc));
            let expected = Piece::new(docs.clone(), pairs.collect());
            let (first, second) = ids.split_at(cut.min(ids.len()));
            let counted = Piece::counted(docs, &[first, second], 40);
            prop_assert_eq!(counted.docs, expected.docs);
            prop_assert_eq!(counted.ids, expected.ids);
            prop_assert_eq!(counted.ends, expected.ends);
            prop_assert_eq!(counted.lists, expected.lists);
            prop_assert_eq!(counted.dense, expected.dense);
        }
    }
}
