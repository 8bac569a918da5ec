//! Segments of which rows go into others, or go.

use super::{KeysPin, READ_ROWS, STORED_ROWS, TableKeys};
use crate::keys::docs::SegmentDocs;
use crate::keys::entry::{Key, NO_DOC, Place};
use crate::keys::moves::{Kept, Move};
use crate::keys::rows::KeyedRows;
use crate::segment::merge::{column_or_default, docs_without};
use crate::segment::{DeletedKey, SegmentReader};
use hashbrown::HashSet;
use std::sync::Arc;
use strandline_index::{DocId, DocSelection};
use strandline_proto::ids::SegmentName;
use strandline_proto::{Error, Result};

impl TableKeys {
    /// The rows of a committed segment that are needed: those that count, by what is committed, those by which a key is
    /// deleted, and those that would count but for pushed rows, which may go; ascending. None where not all of the segment's rows are on disk yet.
    ///
    /// # Errors
    /// Those of the store, and of reading the segment.
    pub fn needed(
        &self,
        name: &SegmentName,
        segment: &dyn SegmentReader,
    ) -> Result<Option<Vec<DocId>>> {
        let Some(docs) = self.docs(name).filter(|_| self.config.supersedes()) else {
            return Ok(self
                .is_settled(name)?
                .then(|| (0..segment.num_docs()).collect()));
        };
        if !self.is_settled(name)? {
            return Ok(None);
        }
        let mut unneeded = self.docs_on_disk(&docs)?.all_superseded();
        let has_pushed = self.has_pushed();
        if has_pushed || self.config.deleted.is_some() {
            let mut kept = HashSet::new();
            for superseded in unneeded.chunks(READ_ROWS as usize) {
                let rows = self.rows_at(segment, superseded)?;
                let keyed = rows.keys.iter().zip(superseded).enumerate();
                let asked = keyed.filter(|(row, _)| has_pushed || rows.is_deleted(*row));
                let mut asked: Vec<(&Key, DocId)> =
                    asked.map(|(_, (key, doc))| (key, *doc)).collect();
                asked.sort_unstable();
                let keys: Vec<&Key> = asked.iter().map(|(key, _)| *key).collect();
                let known = self.stored.entries(&keys)?;
                let is_known = |(key, doc): &&(&Key, DocId)| {
                    let known = known.get(*key).and_then(|known| known.stream.as_ref());
                    let known = known.and_then(|known| self.located(known));
                    known.is_some_and(|known| known.place == docs.place(*doc))
                };
                kept.extend(asked.iter().filter(is_known).map(|(_, doc)| *doc));
            }
            unneeded.retain(|doc| !kept.contains(doc));
        }
        Ok(Some(docs_without(segment.num_docs(), &unneeded)))
    }

    /// How many rows of a committed segment committed or pushed rows supersede; none where not all of its rows are on disk yet.
    ///
    /// # Errors
    /// Those of the store.
    pub fn superseded_by_committed(&self, name: &SegmentName) -> Result<Option<u64>> {
        let Some(docs) = self.docs(name) else {
            return Ok(None);
        };
        if !self.is_settled(name)? {
            return Ok(None);
        }
        Ok(Some(self.docs_on_disk(&docs)?.superseded()))
    }

    /// Whether all rows of a committed segment are on disk.
    pub fn is_settled(&self, name: &SegmentName) -> Result<bool> {
        self.stored.is_whole(name)
    }

    /// Has rows of committed segments be rows of another one as well, in the order in which they are given. Until
    /// [`Self::end_move`] or [`Self::give_up_move`] what is superseded is superseded in both. One change of a table's segments
    /// is made at a time.
    pub fn begin_move(&self, to: &SegmentName, from: Vec<(SegmentName, Kept)>) -> Result<()> {
        let nothing_comes = self.live.lock();
        if nothing_comes.pending.is_some() {
            return Err(Error::precondition(
                "pushed segments are about to come and go; try again",
            ));
        }
        let to = self.docs_of(to);
        let mut segments = self.segments.write();
        let from = from.into_iter().map(|(name, kept)| {
            let docs = segments.by_name.get(&name).cloned();
            let gone = || Error::segment_gone(format!("segment {name} is not among the keys"));
            Ok((docs.ok_or_else(gone)?, kept))
        });
        let from = from.collect::<Result<Vec<_>>>();
        match from {
            Ok(from) => {
                let remembers = self.config.supersedes();
                segments
                    .moves
                    .push(Arc::new(Move::new(to, from, remembers)));
                Ok(())
            }
            Err(e) => {
                segments.remove(&to.name);
                Err(e)
            }
        }
    }

    /// The metastore names the segments that rows were to go into: those that did not go along are gone. Who looks at the
    /// segments that they were in does not see them from here on, as rows that come now do not supersede them.
    pub fn note_moved(&self, to: &[SegmentName]) {
        let moves = self.segments.read().moves.clone();
        let made = moves.iter().filter(|moved| to.contains(&moved.to.name));
        let left: Vec<Place> = made.clone().flat_map(|m| m.left_behind()).collect();
        let _nothing_comes = self.live.lock();
        if self.config.supersedes() && !left.is_empty() {
            let before = self.pinned.load_full();
            let version = before.version + 1;
            self.supersede(&left, version);
            self.pin_next(KeysPin {
                version,
                watermarks: before.watermarks.clone(),
                pushed: before.pushed,
            });
        }
        made.for_each(|moved| moved.note_made());
    }

    /// Forgets a segment that rows were to go into.
    pub fn give_up_move(&self, to: &SegmentName) {
        let mut segments = self.segments.write();
        segments.moves.retain(|moved| moved.to.name != *to);
        segments.remove(to);
    }

    /// Segments that rows have gone into, and whose keys on disk name the old ones still.
    pub fn moved(&self) -> Vec<SegmentName> {
        let segments = self.segments.read();
        segments.moves.iter().map(|m| m.to.name.clone()).collect()
    }

    /// Forgets the segments that rows have gone from into another one, whose rows are [settled](Self::settle). Called when no
    /// query looks at the old ones any more, or may look again. May be repeated.
    ///
    /// # Errors
    /// Those of the store.
    pub fn end_move(&self, to: &SegmentName) -> Result<()> {
        let moves = self.segments.read().moves.clone();
        let Some(moved) = moves.iter().find(|m| m.to.name == *to) else {
            return Ok(());
        };
        {
            // No batch that is coming in knows a row by its old place then.
            let _alone = self.letting_go.write();
            let mut segments = self.segments.write();
            segments.moves.retain(|m| m.to.name != *to);
            for docs in moved.from() {
                segments.remove(&docs.name);
            }
        }
        moved
            .from()
            .try_for_each(|docs| self.stored.forget(&docs.name, docs.number))
    }

    /// Superseded rows of the keys of some committed rows, which are given by segment, ascending in each.
    ///
    /// # Errors
    /// Those of the store, and of reading segments.
    pub fn older_rows(
        &self,
        of: &[(Arc<dyn SegmentReader>, Vec<DocId>)],
        segments: &[(SegmentName, Arc<dyn SegmentReader>)],
    ) -> Result<Vec<Vec<DocId>>> {
        let mut keys: HashSet<Key> = HashSet::new();
        for (segment, docs) in of {
            for docs in docs.chunks(READ_ROWS as usize) {
                keys.extend(self.rows_at(&**segment, docs)?.keys);
            }
        }
        let older = segments.iter().map(|(name, segment)| {
            let mut older = Vec::new();
            let Some(docs) = self.docs(name) else {
                return Ok(older);
            };
            for superseded in self
                .docs_on_disk(&docs)?
                .all_superseded()
                .chunks(READ_ROWS as usize)
            {
                let rows = self.rows_at(&**segment, superseded)?;
                let of_keys = superseded.iter().zip(&rows.keys);
                let of_keys = of_keys.filter(|(_, key)| keys.contains(*key));
                older.extend(of_keys.map(|(doc, _)| *doc));
            }
            Ok(older)
        });
        older.collect()
    }

    /// What a segment that takes the place of a committed one has to remember: the keys of rows that are deleted, and those that
    /// this one remembers and of which no row has come since. Without rows that supersede others there is nothing to remember.
    ///
    /// # Errors
    /// Those of the store, and of reading the segment.
    pub fn remembered(
        &self,
        name: &SegmentName,
        segment: &dyn SegmentReader,
        deleted: &[DocId],
    ) -> Result<Vec<DeletedKey>> {
        if !self.config.supersedes() {
            return Ok(Vec::new());
        }
        let mut remembered = self.still_deleted(name, segment)?;
        let mut offsets = Vec::new();
        for docs in deleted.chunks(READ_ROWS as usize) {
            let rows = self.rows_at(segment, docs)?;
            offsets.clear();
            segment.offsets(DocSelection::Docs(docs), &mut offsets);
            let of_keys = rows.keys.iter().zip(&offsets).enumerate();
            remembered.extend(of_keys.map(|(row, (key, offset))| DeletedKey {
                key: *key,
                comparison: rows.comparison(row),
                offset: *offset as u64,
                time: rows.time(row),
            }));
        }
        Ok(remembered)
    }

    /// The keys that a committed segment remembers and of which no row has come since.
    fn still_deleted(
        &self,
        name: &SegmentName,
        segment: &dyn SegmentReader,
    ) -> Result<Vec<DeletedKey>> {
        let deleted = segment.deleted_keys();
        let docs = self.docs(name);
        let Some(docs) = docs.filter(|_| !deleted.is_empty()) else {
            return Ok(deleted.iter().collect());
        };
        if !self.is_settled(name)? {
            return Ok(deleted.iter().collect());
        }
        let place = docs.place(NO_DOC);
        let mut still = Vec::new();
        for piece in deleted.pieces(STORED_ROWS) {
            let keys: Vec<&Key> = piece.iter().map(|deleted| &deleted.key).collect();
            let known = self.stored.entries(&keys)?;
            let is_known = |deleted: &DeletedKey| {
                let known = known.get(&deleted.key)?.stream.as_ref()?;
                Some(self.located(known)?.place == place)
            };
            still.extend(piece.into_iter().filter(|d| is_known(d) == Some(true)));
        }
        Ok(still)
    }

    /// The documents of a segment as they are by what is on disk.
    fn docs_on_disk(&self, docs: &SegmentDocs) -> Result<SegmentDocs> {
        let on_disk = SegmentDocs::new(docs.name.clone(), docs.number);
        self.stored.restore(&on_disk)?;
        Ok(on_disk)
    }

    /// Keys and ranks of some rows of a segment, which ascend.
    fn rows_at(&self, segment: &dyn SegmentReader, docs: &[DocId]) -> Result<KeyedRows> {
        let arrays = self.reader.columns().iter().map(|column| {
            let array = column_or_default(segment, column, DocSelection::Docs(docs));
            array.map_err(|e| {
                e.at(format_args!(
                    "segment {}: column {}",
                    segment.name(),
                    column.name
                ))
            })
        });
        self.reader.read(&arrays.collect::<Result<Vec<_>>>()?)
    }
}
