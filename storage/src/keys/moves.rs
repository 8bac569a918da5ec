//! Rows of committed segments that go into another one, in their order and some of them not: for a while a query may look at
//! either.
//!
//! Of a row that does not go along nothing is known any more once the move was made, or else, where rows supersede others, that
//! it was deleted, which `to` remembers: a row that is known of a key is left behind only by a statement that deletes it.

use super::docs::SegmentDocs;
use super::entry::{NO_DOC, Place};
use crate::segment::merge::docs_without;
use hashbrown::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use strandline_index::DocId;

/// What goes into another segment.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The segment's rows.
    pub rows: u32,
    /// Those that are kept, ascending; none: all.
    pub docs: Option<Vec<DocId>>,
}

impl Kept {
    fn len(&self) -> u32 {
        self.docs
            .as_ref()
            .map_or(self.rows, |docs| docs.len() as u32)
    }

    /// How many kept rows are before a row that is kept.
    fn rank(&self, doc: DocId) -> Option<u32> {
        match &self.docs {
            None => (doc < self.rows).then_some(doc),
            Some(docs) => docs.binary_search(&doc).ok().map(|rank| rank as u32),
        }
    }

    fn at(&self, rank: u32) -> Option<DocId> {
        match &self.docs {
            None => (rank < self.rows).then_some(rank),
            Some(docs) => docs.get(rank as usize).copied(),
        }
    }
}

/// Segments whose rows go into another one.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) to: Arc<SegmentDocs>,
    /// In their order, each with the place of its first row.
    from: Vec<(Arc<SegmentDocs>, DocId, Kept)>,
    /// Places in `from` by the segments' numbers.
    numbers: HashMap<u32, usize>,
    /// Whether `to` remembers which keys' rows were left behind.
    remembers: bool,
    is_made: AtomicBool,
}

/// What became of a row that does not stay where it was.
pub(super) enum Moved {
    /// It is in another place.
    To(Place),
    /// It was deleted.
    Deleted(Place),
    /// Nothing is known of it.
    Gone,
}

impl Move {
    /// Rows that do not count in the segments they come from do not count in `to` from here on.
    pub(super) fn new(
        to: Arc<SegmentDocs>,
        from: Vec<(Arc<SegmentDocs>, Kept)>,
        remembers: bool,
    ) -> Self {
        let mut base = 0;
        let from = from.into_iter().map(|(docs, kept)| {
            let first = base;
            base += kept.len();
            to.take_over(&docs, |doc| Some(first + kept.rank(doc)?));
            (docs, first, kept)
        });
        let from: Vec<_> = from.collect();
        let numbers = from.iter().enumerate();
        let numbers = numbers.map(|(at, (docs, ..))| (docs.number, at)).collect();
        Self {
            to,
            from,
            numbers,
            remembers,
            is_made: AtomicBool::new(false),
        }
    }

    /// The segments that rows come from.
    pub(super) fn from(&self) -> impl Iterator<Item = &Arc<SegmentDocs>> {
        self.from.iter().map(|(docs, ..)| docs)
    }

    /// The rows that do not go along and count.
    pub(super) fn left_behind(&self) -> Vec<Place> {
        let of_segments = self.from.iter().filter_map(|(docs, _, kept)| {
            let left = docs.counted(docs_without(kept.rows, kept.docs.as_ref()?));
            Some(left.into_iter().map(|doc| docs.place(doc)))
        });
        of_segments.flatten().collect()
    }

    /// Rows that are not kept are gone from here on.
    pub(super) fn note_made(&self) {
        self.is_made.store(true, Ordering::Release);
    }

    /// What became of a row that was in one of the segments; none for another segment's row, and for one that does not go along
    /// while the move may be given up.
    pub(super) fn after(&self, before: Place) -> Option<Moved> {
        let (_, base, kept) = self.from.get(*self.numbers.get(&before.segment)?)?;
        let at = |doc| Place {
            segment: self.to.number,
            doc,
        };
        if !before.has_row() {
            return Some(Moved::To(at(NO_DOC)));
        }
        match kept.rank(before.doc) {
            Some(rank) => Some(Moved::To(at(base + rank))),
            None if !self.is_made.load(Ordering::Acquire) => None,
            None if self.remembers => Some(Moved::Deleted(at(NO_DOC))),
            None => Some(Moved::Gone),
        }
    }

    /// Where a row of `to` was.
    pub(super) fn before(&self, doc: DocId) -> Option<(&Arc<SegmentDocs>, DocId)> {
        let at = self.from.partition_point(|(_, base, _)| *base <= doc);
        let (docs, base, kept) = self.from.get(at.checked_sub(1)?)?;
        Some((docs, kept.at(doc - base)?))
    }
}
