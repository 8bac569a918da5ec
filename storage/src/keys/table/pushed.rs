//! Pushed segments beside those of the stream: a key's row of the highest rank counts, whichever half it is in.
//!
//! On disk each key has the entries of all pushed segments, of which those count that a set of numbers names. So segments can be
//! added to it, and be gone, without that anything changes that is looked at: a change of the set is *prepared*, while rows come
//! in, as marks of the documents that are to count and of those that are not, and then made in one step, which makes a version.

use super::settle::Origin;
use super::{KeysPin, Live, Segments, TableKeys};
use crate::keys::docs::{Mark, Marks, SegmentDocs};
use crate::keys::entry::{Entry, Key, KeyMap, Known};
use crate::keys::store::Noted;
use crate::segment::SegmentReader;
use hashbrown::{HashMap, HashSet};
use std::sync::Arc;
use strandline_proto::catalog::PushedNames;
use strandline_proto::ids::SegmentName;
use strandline_proto::{Error, Result};

/// The partition of pushed rows: among rows of equal comparison values they rank above those of the stream.
const PUSHED: u32 = u32::MAX;

/// A pushed segment of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedSegment {
    /// Its name.
    pub name: SegmentName,
    /// Of rows of equal comparison values those of the segment of the highest order count.
    pub order: u64,
}

impl PushedSegment {
    /// What stands for an offset: the order, then the name.
    fn offset(&self) -> u64 {
        (self.order << u32::BITS) | u64::from(crc32c::crc32c(self.name.as_str().as_bytes()))
    }
}

/// Marks of documents by the numbers of their segments.
pub(super) type AllMarks = HashMap<u32, Marks>;

/// A set of pushed segments that is to take the place of the one that counts.
pub(super) struct Pending {
    names: PushedNames,
    added: Vec<Arc<SegmentDocs>>,
    /// Those of them whose rows could not be read.
    unread: HashSet<u32>,
    removed: Vec<Arc<SegmentDocs>>,
    /// The numbers of the segments that count now.
    before: Arc<HashSet<u32>>,
    /// The numbers of those that will.
    pub(super) after: Arc<HashSet<u32>>,
    /// Whether all keys of segments that come or go have been looked at.
    is_ready: bool,
}

impl Pending {
    /// Marks what counts otherwise of a key, or takes these marks back.
    fn mark(&self, marks: &mut AllMarks, known: &Known, segments: &Segments, is_set: bool) {
        let place = |numbers| known.counted(numbers).map(|entry| entry.place);
        let (from, to) = (place(&self.before), place(&self.after));
        if from == to {
            return;
        }
        for (place, mark) in [(from, Mark::Superseded), (to, Mark::Counted)] {
            // A row that is about to be somewhere else is marked in both places.
            let places = place.map(|place| [Some(place), segments.before(place)]);
            for place in places.into_iter().flatten().flatten() {
                let of_segment = marks.entry(place.segment).or_default();
                of_segment.set(place.doc, mark, is_set);
            }
        }
    }
}

/// Takes back the marks of a key by its row of the stream before, and marks it by the one after.
pub(super) fn remark(
    pending: &Pending,
    marks: &mut AllMarks,
    (before, after): (Option<Entry>, Option<Entry>),
    pushed: &[Entry],
    segments: &Segments,
) {
    for (stream, is_set) in [(before, false), (after, true)] {
        let known = Known {
            stream,
            pushed: pushed.to_vec(),
        };
        pending.mark(marks, &known, segments, is_set);
    }
}

impl TableKeys {
    /// Whether rows of pushed segments are among the keys.
    pub fn has_pushed(&self) -> bool {
        !self.segments.read().pushed.is_empty()
    }

    /// The pushed segments whose rows count.
    pub fn pushed(&self) -> PushedNames {
        self.pinned.load().pushed
    }

    /// Prepares that the rows of `wanted`, and no other pushed segments', are among the keys. Rows may come in meanwhile. What was
    /// prepared before is given up. `open`: a segment as the table's schema has its rows; of one that is damaged no row is known.
    ///
    /// # Errors
    /// Those of the store, and of reading segments; nothing is prepared then.
    pub fn prepare(
        &self,
        wanted: &[PushedSegment],
        open: impl Fn(&SegmentName) -> Result<Arc<dyn SegmentReader>>,
    ) -> Result<()> {
        let prepared = self.try_prepare(wanted, &open);
        if prepared.is_err() {
            self.give_up();
        }
        prepared
    }

    /// Whether a set of pushed segments, by their names, is what counts, or is prepared.
    pub fn is_prepared(&self, names: PushedNames) -> bool {
        let live = self.live.lock();
        let pending = live.pending.as_ref();
        self.pinned.load().pushed == names
            || pending.is_some_and(|pending| pending.is_ready && pending.names == names)
    }

    /// Forgets what was prepared.
    pub fn give_up(&self) {
        self.settling.lock().clear();
        let pending = {
            let mut live = self.live.lock();
            live.marks.clear();
            live.pending.take()
        };
        for docs in pending.iter().flat_map(|pending| &pending.added) {
            if let Err(e) = self.stored.forget(&docs.name, docs.number) {
                tracing::warn!(segment = %docs.name, error = %e, "keys of a segment that was not added stay on disk until the next start");
            }
        }
    }

    /// Has the set of pushed segments that was prepared, named by `names`, count from a new version on. Who pinned a version by the
    /// names of before may do so until [`Self::let_go`].
    ///
    /// # Errors
    /// `FailedPrecondition` where it was not prepared; those of the store, and nothing has changed then.
    pub fn switch(&self, names: PushedNames) -> Result<()> {
        let mut on_disk = self.settling.lock();
        if self.pinned.load().pushed == names {
            return Ok(());
        }
        let (added, removed) = {
            let live = self.live.lock();
            let pending = live.pending.as_ref();
            let pending = pending.filter(|pending| pending.is_ready && pending.names == names);
            let pending = pending.ok_or_else(|| {
                Error::precondition("keys of the segments that were pushed are not prepared")
            })?;
            let read = pending.added.iter();
            let read = read.filter(|docs| !pending.unread.contains(&docs.number));
            let read: Vec<_> = read.cloned().collect();
            (read, pending.removed.clone())
        };
        self.stored.switch(&added, &removed, &on_disk)?;
        on_disk.clear();
        let mut live = self.live.lock();
        let Some(pending) = live.pending.take() else {
            return Ok(());
        };
        let all_marks = std::mem::take(&mut live.marks);
        let before = self.pinned.load_full();
        let version = before.version + 1;
        let oldest = self.oldest_pinned(version);
        {
            let mut segments = self.segments.write();
            for docs in &pending.removed {
                segments.remove(&docs.name);
                segments.leaving.push((version, Arc::clone(docs)));
            }
            for docs in &pending.added {
                segments.insert(docs);
            }
            segments.pushed = Arc::clone(&pending.after);
            for (number, marks) in &all_marks {
                if let Some(docs) = segments.by_number.get(number) {
                    docs.switch(version, oldest, marks);
                }
            }
        }
        *self.previous.lock() = Some(Arc::clone(&before));
        self.pin_next(KeysPin {
            version,
            watermarks: before.watermarks.clone(),
            pushed: names,
        });
        Ok(())
    }

    /// Nobody comes any more who goes by the pushed segments of before the last [`Self::switch`].
    pub fn let_go(&self) {
        *self.previous.lock() = None;
    }

    /// What a query pins that goes by these pushed segments; none where all rows count.
    ///
    /// # Errors
    /// `SegmentGone` where others count by now, or these do not yet.
    pub fn pin_of(&self, names: PushedNames) -> Result<Option<Arc<KeysPin>>> {
        let Some(pin) = self.pin() else {
            return Ok(None);
        };
        if pin.pushed == names {
            return Ok(Some(pin));
        }
        let previous = self.previous.lock().clone();
        match previous.filter(|pin| pin.pushed == names) {
            Some(pin) => Ok(Some(pin)),
            None => Err(Error::segment_gone(
                "the table's pushed segments are not those that its keys are known of",
            )),
        }
    }

    fn try_prepare(
        &self,
        wanted: &[PushedSegment],
        open: &impl Fn(&SegmentName) -> Result<Arc<dyn SegmentReader>>,
    ) -> Result<()> {
        self.give_up();
        let names = PushedNames::of(wanted.iter().map(|w| &w.name));
        if self.pinned.load().pushed == names {
            return Ok(());
        }
        let mut on_disk = self.settling.lock();
        let mut added = Vec::new();
        let (before, removed) = {
            let mut segments = self.segments.write();
            let before = Arc::clone(&segments.pushed);
            let there = |name: &SegmentName| {
                let docs = segments.by_name.get(name);
                docs.is_some_and(|docs| before.contains(&docs.number))
            };
            let new: Vec<_> = wanted.iter().filter(|w| !there(&w.name)).collect();
            let gone = segments.by_name.values();
            let gone = gone.filter(|docs| before.contains(&docs.number));
            let gone = gone.filter(|docs| wanted.iter().all(|w| w.name != docs.name));
            let removed: Vec<_> = gone.cloned().collect();
            for wanted in new {
                let number = segments.next;
                segments.next += 1;
                let docs = Arc::new(SegmentDocs::new(wanted.name.clone(), number));
                added.push((wanted, docs, None));
            }
            (before, removed)
        };
        let mut after: HashSet<u32> = before.iter().copied().collect();
        after.extend(added.iter().map(|(_, docs, _)| docs.number));
        for docs in &removed {
            after.remove(&docs.number);
        }
        let mut pending = Pending {
            names,
            added: added.iter().map(|(_, docs, _)| Arc::clone(docs)).collect(),
            unread: HashSet::new(),
            removed,
            before,
            after: Arc::new(after),
            is_ready: false,
        };
        let mut marks = AllMarks::new();
        for (wanted, docs, reader) in &mut added {
            match open(&wanted.name) {
                Ok(segment) => {
                    self.add_pushed(docs, wanted.offset(), &*segment, &pending.after)?;
                    for marks in [&mut marks, &mut *on_disk] {
                        let all = Marks::all_superseded(segment.num_docs());
                        marks.insert(docs.number, all);
                    }
                    *reader = Some(segment);
                }
                Err(e) => {
                    tracing::error!(segment = %wanted.name, error = %e, "a pushed segment without its keys");
                    pending.unread.insert(docs.number);
                }
            }
        }
        let removed = pending.removed.clone();
        {
            // Batches that come in from here on find the entries of the segments that are added.
            let _alone = self.letting_go.write();
            let mut live = self.live.lock();
            live.pending = Some(pending);
            live.marks = marks;
        }
        for (_, _, reader) in &added {
            if let Some(segment) = reader {
                self.mark_keys_of(&**segment, &mut on_disk)?;
            }
        }
        let mut unread = HashSet::new();
        for docs in &removed {
            match open(&docs.name) {
                Ok(segment) => self.mark_keys_of(&*segment, &mut on_disk)?,
                Err(_) => {
                    unread.insert(docs.number);
                }
            }
        }
        if !unread.is_empty() {
            self.stored
                .keys_of(&unread, |known| self.mark_keys(known, &mut on_disk))?;
        }
        if let Some(pending) = &mut self.live.lock().pending {
            pending.is_ready = true;
        }
        Ok(())
    }

    /// Adds the entries of a pushed segment to disk, where they do not count yet.
    fn add_pushed(
        &self,
        docs: &SegmentDocs,
        offset: u64,
        segment: &dyn SegmentReader,
        after: &HashSet<u32>,
    ) -> Result<()> {
        let largest_time = self.live.lock().largest_time;
        let next = self.segments.read().next;
        self.stored.note(docs, Noted::Begun, (next, largest_time))?;
        let before = Arc::clone(&self.segments.read().pushed);
        let lives = |entry: &Entry| {
            before.contains(&entry.place.segment) || after.contains(&entry.place.segment)
        };
        let origin = Origin {
            segment: docs.number,
            partition: PUSHED,
            offset: Some(offset),
        };
        self.in_pieces(segment, origin, |rows, together| {
            self.stored.take(together.len(), |stored| {
                for of_key in together.chunk_by(|a, b| a.0 == b.0) {
                    let Some((key, _)) = of_key.first() else {
                        continue;
                    };
                    let mut known = stored.get(key)?;
                    let entries = of_key.iter().filter_map(|(_, row)| rows.entry(*row));
                    let own = |entry: &Entry| entry.place.segment == docs.number;
                    let earlier = known.pushed.iter().find(|entry| own(entry)).cloned();
                    let entries = earlier.into_iter().chain(entries);
                    let Some(highest) = entries.reduce(|a, b| if b.outranks(&a) { b } else { a })
                    else {
                        continue;
                    };
                    known.pushed.retain(|entry| lives(entry) && !own(entry));
                    known.pushed.push(highest);
                    stored.insert(key, &known)?;
                }
                Ok(())
            })
        })
    }

    /// Marks what counts otherwise of the keys of a segment that comes or goes.
    fn mark_keys_of(&self, segment: &dyn SegmentReader, on_disk: &mut AllMarks) -> Result<()> {
        let origin = Origin {
            segment: 0,
            partition: PUSHED,
            offset: Some(0),
        };
        self.in_pieces(segment, origin, |_, together| {
            let mut keys: Vec<&Key> = together.iter().map(|(key, _)| key).collect();
            keys.dedup();
            let known = self.stored.entries(&keys)?;
            self.mark_keys(&known, on_disk);
            Ok(())
        })
    }

    fn mark_keys(&self, known: &KeyMap<Known>, on_disk: &mut AllMarks) {
        let mut live = self.live.lock();
        let Live {
            pending: Some(pending),
            marks,
            entries,
            ..
        } = &mut *live
        else {
            return;
        };
        let segments = self.segments.read();
        for (key, known) in known {
            let located = |entry: &Entry| segments.located(entry);
            let mut known = Known {
                stream: known.stream.as_ref().and_then(located),
                pushed: known.pushed.clone(),
            };
            pending.mark(on_disk, &known, &segments, true);
            if let Some(newer) = entries.get(key) {
                known.stream = located(newer);
            }
            pending.mark(marks, &known, &segments, true);
        }
    }
}
