//! Rows of committed segments that go into another one, in their order and some of them not: for a while a query may look at
//! either.

use super::docs::SegmentDocs;
use super::entry::Place;
use hashbrown::HashMap;
use std::sync::Arc;
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
}

impl Move {
    /// Rows that do not count in the segments they come from do not count in `to` from here on.
    pub(super) fn new(to: Arc<SegmentDocs>, from: Vec<(Arc<SegmentDocs>, Kept)>) -> Self {
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
        Self { to, from, numbers }
    }

    /// The segments that rows come from.
    pub(super) fn from(&self) -> impl Iterator<Item = &Arc<SegmentDocs>> {
        self.from.iter().map(|(docs, ..)| docs)
    }

    /// Where a row is that was in one of the segments, or that it is not kept; none for another segment's row.
    pub(super) fn after(&self, before: Place) -> Option<Option<Place>> {
        let (_, base, kept) = self.from.get(*self.numbers.get(&before.segment)?)?;
        Some(kept.rank(before.doc).map(|rank| Place {
            segment: self.to.number,
            doc: base + rank,
        }))
    }

    /// Where a row of `to` was.
    pub(super) fn before(&self, doc: DocId) -> Option<(&Arc<SegmentDocs>, DocId)> {
        let at = self.from.partition_point(|(_, base, _)| *base <= doc);
        let (docs, base, kept) = self.from.get(at.checked_sub(1)?)?;
        Some((docs, kept.at(doc - base)?))
    }
}
