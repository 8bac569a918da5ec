//! Rows of committed segments go to disk.

use super::pushed::{AllMarks, remark};
use super::{READ_ROWS, Rows, SETTLED_ROWS, STORED_ROWS, TableKeys, outranks, stand_beside};
use crate::keys::entry::{Entry, Key, Known, NO_DOC, Place};
use crate::keys::rows::KeyedRows;
use crate::keys::store::Noted;
use crate::segment::merge::column_or_default;
use crate::segment::{DeletedKeys, SegmentReader};
use std::ops::Range;
use std::sync::Arc;
use strandline_index::{DocId, DocSelection};
use strandline_proto::Result;
use strandline_proto::ids::SegmentName;

/// A key with a place in [`Settling::pieces`].
pub(super) type KeyedRow = (Key, u32);

/// What entries of a segment's rows name.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    /// The segment's number.
    pub(super) segment: u32,
    pub(super) partition: u32,
    /// One for all of them; none: their own.
    pub(super) offset: Option<u64>,
}

/// Rows of a segment that go to disk together.
pub(super) struct Settling {
    /// The rows' keys, ascending.
    keys: Vec<KeyedRow>,
    /// The rows, [`READ_ROWS`] of them in each but the last.
    pieces: Vec<(KeyedRows, Vec<u64>)>,
    origin: Origin,
    /// The place of the first of them.
    base: DocId,
}

/// The first [`STORED_ROWS`] of `keys`, and what has the key of the last of them; the rest.
fn whole_keys(keys: &[KeyedRow]) -> (&[KeyedRow], &[KeyedRow]) {
    let (first, rest) = keys.split_at(keys.len().min(STORED_ROWS));
    let last = first.last().map(|(key, _)| *key);
    let same = rest.iter().take_while(|(key, _)| Some(*key) == last);
    keys.split_at(first.len() + same.count())
}

impl Settling {
    pub(super) fn entry(&self, row: u32) -> Option<Entry> {
        let (rows, offsets) = self.pieces.get((row / READ_ROWS) as usize)?;
        let rows = Rows {
            rows,
            offsets,
            partition: self.origin.partition,
            segment: self.origin.segment,
            base: self.base,
        };
        Some(rows.entry((row % READ_ROWS) as usize, row as usize))
    }
}

impl TableKeys {
    /// Brings the rows of a committed segment to disk. May be repeated.
    pub fn settle(
        &self,
        name: &SegmentName,
        segment: &dyn SegmentReader,
        partition_number: u32,
    ) -> Result<()> {
        let mut marks = self.settling.lock();
        let docs = self.docs_of(name);
        let largest_time = self.live.lock().largest_time;
        let next = self.segments.read().next;
        self.stored
            .note(&docs, Noted::Begun, (next, largest_time))?;
        let origin = Origin {
            segment: docs.number,
            partition: partition_number,
            offset: None,
        };
        self.in_pieces(segment, origin, |rows, together| {
            self.store(|row| rows.entry(row), together, &mut marks)
        })?;
        self.settle_deleted(&segment.deleted_keys(), origin, &mut marks)?;
        let largest_time = self.live.lock().largest_time;
        self.stored
            .note(&docs, Noted::Whole, (next, largest_time))?;
        {
            let _alone = self.letting_go.write();
            let mut live = self.live.lock();
            live.entries
                .retain(|_, entry| entry.place.segment != docs.number);
            if live.entries.len() * 4 < live.entries.capacity() {
                live.entries.shrink_to_fit();
            }
        }
        self.forget_old(largest_time)
    }

    /// Gives the rows of a segment in pieces, in each of which the keys ascend.
    pub(super) fn in_pieces(
        &self,
        segment: &dyn SegmentReader,
        origin: Origin,
        mut take: impl FnMut(&Settling, &[KeyedRow]) -> Result<()>,
    ) -> Result<()> {
        let mut start = 0;
        while start < segment.num_docs() {
            let end = segment.num_docs().min(start.saturating_add(SETTLED_ROWS));
            let rows = self.settling(segment, start..end, origin)?;
            let mut left = rows.keys.as_slice();
            while !left.is_empty() {
                let (together, rest) = whole_keys(left);
                take(&rows, together)?;
                left = rest;
            }
            start = end;
        }
        Ok(())
    }

    /// Brings the keys to disk whose rows were deleted.
    fn settle_deleted(
        &self,
        deleted: &DeletedKeys,
        origin: Origin,
        marks: &mut AllMarks,
    ) -> Result<()> {
        let place = Place {
            segment: origin.segment,
            doc: NO_DOC,
        };
        for piece in deleted.pieces(STORED_ROWS) {
            if self.config.forgets() {
                let times = piece.iter().map(|deleted| deleted.time);
                let mut live = self.live.lock();
                live.largest_time = times.fold(live.largest_time, i64::max);
            }
            let keys: Vec<KeyedRow> = (piece.iter().map(|deleted| deleted.key).zip(0..)).collect();
            let entry = |row: u32| {
                let deleted = piece.get(row as usize)?;
                Some(Entry {
                    comparison: deleted.comparison.clone(),
                    partition: origin.partition,
                    offset: deleted.offset,
                    place,
                    deleted: true,
                    time: deleted.time,
                })
            };
            self.store(entry, &keys, marks)?;
        }
        Ok(())
    }

    /// Brings some rows to disk, whose keys ascend. `entry`: of each.
    fn store(
        &self,
        entry: impl Fn(u32) -> Option<Entry>,
        keys: &[KeyedRow],
        marks: &mut AllMarks,
    ) -> Result<()> {
        let numbers = Arc::clone(&self.segments.read().pushed);
        let after = {
            let live = self.live.lock();
            live.pending
                .as_ref()
                .map(|pending| Arc::clone(&pending.after))
        };
        let lives = |entry: &Entry| {
            let number = entry.place.segment;
            numbers.contains(&number) || after.as_ref().is_some_and(|a| a.contains(&number))
        };
        // Where pushed segments are about to come and go: rows of keys before and after.
        let mut changed = Vec::new();
        self.stored.take(keys.len(), |stored| {
            for of_key in keys.chunk_by(|a, b| a.0 == b.0) {
                let Some((key, _)) = of_key.first() else {
                    continue;
                };
                let mut known = stored.get(key)?;
                let before = known.stream.take().and_then(|known| self.located(&known));
                let mut newest = before.clone();
                let mut is_new = false;
                for entry in of_key.iter().filter_map(|(_, row)| entry(*row)) {
                    newest = newest.filter(|known| self.remembers(known, &entry));
                    // The first row of a key is not taken the place of, but may have moved.
                    let is_moved = newest.as_ref().is_some_and(|k| k.place == entry.place);
                    if (self.config.supersedes() || newest.is_none() || is_moved)
                        && outranks(&entry, newest.as_ref(), stored.superseded)
                    {
                        newest = Some(entry);
                        is_new = true;
                    }
                }
                let Some(newest) = newest.filter(|_| is_new) else {
                    continue;
                };
                stand_beside(&newest, known.highest_pushed(&numbers), stored.superseded);
                known.pushed.retain(lives);
                known.stream = Some(newest);
                stored.insert(key, &known)?;
                if after.is_some() {
                    changed.push((before, known));
                }
            }
            stored.superseded.retain(Place::has_row);
            // Where rows were, too: their move may be given up.
            let segments = self.segments.read();
            let before = stored.superseded.iter();
            let before: Vec<Place> = before.filter_map(|place| segments.before(*place)).collect();
            stored.superseded.extend(before);
            Ok(())
        })?;
        let live = self.live.lock();
        if let Some(pending) = &live.pending {
            let segments = self.segments.read();
            for (before, Known { stream, pushed }) in changed {
                remark(pending, marks, (before, stream), &pushed, &segments);
            }
        }
        Ok(())
    }

    /// Reads rows of a segment, and has their times noted.
    fn settling(
        &self,
        segment: &dyn SegmentReader,
        docs: Range<DocId>,
        origin: Origin,
    ) -> Result<Settling> {
        let mut settling = Settling {
            keys: Vec::with_capacity(docs.len()),
            pieces: Vec::with_capacity(docs.len().div_ceil(READ_ROWS as usize)),
            origin,
            base: docs.start,
        };
        let mut start = docs.start;
        let mut offsets = Vec::new();
        while start < docs.end {
            let end = docs.end.min(start.saturating_add(READ_ROWS));
            let selection = DocSelection::Range(start..end);
            let arrays = self.reader.columns().iter().map(|column| {
                let array = column_or_default(segment, column, selection.clone());
                array.map_err(|e| {
                    e.at(format_args!(
                        "segment {}: column {}",
                        segment.name(),
                        column.name
                    ))
                })
            });
            let mut rows = self.reader.read(&arrays.collect::<Result<Vec<_>>>()?)?;
            self.note_times(&mut self.live.lock(), &rows);
            offsets.clear();
            match origin.offset {
                Some(offset) => offsets.resize((end - start) as usize, offset as i64),
                None => segment.offsets(selection, &mut offsets),
            }
            let numbered = std::mem::take(&mut rows.keys).into_iter();
            settling
                .keys
                .extend(numbered.zip(start - docs.start..end - docs.start));
            let offsets = offsets.iter().map(|offset| *offset as u64).collect();
            settling.pieces.push((rows, offsets));
            start = end;
        }
        settling.keys.sort_unstable();
        Ok(settling)
    }

    /// Removes keys from disk that no row will be remembered by, now and then.
    fn forget_old(&self, largest_time: i64) -> Result<()> {
        let kept = [self.config.kept, self.config.deleted_kept];
        let Some(period) = kept.into_iter().flatten().min() else {
            return Ok(());
        };
        {
            let mut live = self.live.lock();
            if largest_time < live.forgotten_at.saturating_add(period) {
                return Ok(());
            }
            live.forgotten_at = largest_time;
        }
        self.stored.remove_if(|entry| {
            let kept = self.config.kept_of(entry.deleted);
            kept.is_some_and(|kept| entry.time < largest_time.saturating_sub(kept))
        })
    }
}
