//! The keys of one table while rows come in: in memory those of consuming segments, on disk those of committed ones.

use super::docs::SegmentDocs;
use super::entry::{Entry, Key, KeyMap, Place};
use super::merge::Merger;
use super::moves::{Kept, Move};
use super::rows::{KeyReader, KeyedRows};
use super::store::{KeyStore, StoredKeys};
use crate::config::{KeyRule, KeysConfig};
use crate::segment::consuming::ConsumingSegment;
use crate::segment::merge::{column_or_default, docs_without};
use crate::segment::{SegmentReader, ValidDocs};
use ::arrow::array::{BooleanArray, RecordBatch};
use ::arrow::compute::filter_record_batch;
use arc_swap::ArcSwap;
use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Weak};
use strandline_index::{DocId, DocSelection};
use strandline_proto::ids::{SegmentName, StreamPartition};
use strandline_proto::schema::Schema;
use strandline_proto::{Error, Result};

/// The segment of a row that was deleted by a statement: no row is there, and older rows of its key do not come back.
const NOWHERE: u32 = u32::MAX;
/// Rows of a committed segment that are put in the order of their keys together.
const SETTLED_ROWS: u32 = 1 << 20;
/// Of these, how many go to disk together, but for the rows of one key: few enough for the store to keep up with merging what is new.
const STORED_ROWS: usize = if cfg!(test) { 16 } else { 1 << 18 };
/// Rows whose columns are read together for that.
const READ_ROWS: u32 = 65_536;

/// What a query pins: the rows of each partition and what of them counts.
#[derive(Debug)]
pub struct KeysPin {
    /// The version of the table's keys.
    pub version: u64,
    /// By partition: the first offset that is not visible at this version.
    pub watermarks: BTreeMap<StreamPartition, u64>,
}

/// What became of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Appended {
    /// Put into the segment.
    pub indexed: u64,
    /// Left out, because their key was there.
    pub left_out: u64,
    /// Which of the rows were put into the segment; none: all.
    pub kept: Option<BooleanArray>,
    /// What they became by rows before them; none: they are as they came.
    pub merged: Option<RecordBatch>,
}

/// Where rows are read that came earlier.
pub trait PlaceReader {
    /// A segment of the table, as `schema` reads it.
    fn segment(&self, name: &SegmentName, schema: &Schema) -> Result<Arc<dyn SegmentReader>>;
}

/// The keys of one table.
pub struct TableKeys {
    config: Arc<KeysConfig>,
    reader: KeyReader,
    stored: StoredKeys,
    segments: RwLock<Segments>,
    live: Mutex<Live>,
    /// Read while a batch comes in; written when keys in memory are let go that are on disk now.
    letting_go: RwLock<()>,
    /// One segment's rows go to disk at a time.
    settling: Mutex<()>,
    pinned: ArcSwap<KeysPin>,
    /// What was pinned, oldest first, as long as somebody looks at it.
    pins: Mutex<VecDeque<(u64, Weak<KeysPin>)>>,
}

/// The table's segments, as far as rows of them are known.
#[derive(Default)]
struct Segments {
    by_name: HashMap<SegmentName, Arc<SegmentDocs>>,
    by_number: HashMap<u32, Arc<SegmentDocs>>,
    next: u32,
    /// Rows that are, or are about to be, in another segment than what is on disk says.
    moves: Vec<Arc<Move>>,
}

impl Segments {
    /// Where a row is by now; none when it is gone.
    fn newest(&self, place: Place) -> Option<Place> {
        if place.segment == NOWHERE {
            return Some(place);
        }
        match self.moves.iter().find_map(|moved| moved.after(place)) {
            Some(moved) => moved,
            None => self.by_number.contains_key(&place.segment).then_some(place),
        }
    }

    /// Where a row was that is about to be somewhere else.
    fn before(&self, place: Place) -> Option<Place> {
        let moved = self.moves.iter().find(|m| m.to.number == place.segment)?;
        let (docs, doc) = moved.before(place.doc)?;
        Some(docs.place(doc))
    }

    fn remove(&mut self, name: &SegmentName) -> Option<Arc<SegmentDocs>> {
        let docs = self.by_name.remove(name)?;
        self.by_number.remove(&docs.number);
        Some(docs)
    }

    fn add(&mut self, docs: SegmentDocs) -> Arc<SegmentDocs> {
        let docs = Arc::new(docs);
        self.next = self.next.max(docs.number + 1);
        self.by_name.insert(docs.name.clone(), Arc::clone(&docs));
        self.by_number.insert(docs.number, Arc::clone(&docs));
        docs
    }
}

/// What is known of rows that are not on disk yet.
struct Live {
    entries: KeyMap<Entry>,
    /// The largest time of a row; the smallest where none is forgotten.
    largest_time: i64,
    /// What it was when old keys were looked for.
    forgotten_at: i64,
}

/// What rows change.
#[derive(Debug, Default)]
struct Changes {
    entries: KeyMap<Entry>,
    superseded: Vec<Place>,
}

/// Where rows are that are looked at.
struct Rows<'a> {
    rows: &'a KeyedRows,
    offsets: &'a [u64],
    partition: u32,
    segment: u32,
    /// The place of the first of them.
    base: DocId,
}

impl Rows<'_> {
    /// The entry of a row that is `doc` rows behind the first.
    fn entry(&self, row: usize, doc: usize) -> Entry {
        Entry {
            comparison: self.rows.comparison(row),
            partition: self.partition,
            offset: self.offsets.get(row).copied().unwrap_or_default(),
            place: Place {
                segment: self.segment,
                doc: self.base + doc as u32,
            },
            deleted: self.rows.is_deleted(row),
            time: self.rows.time(row),
        }
    }
}

impl Changes {
    /// Takes in a row, before which its key's was `known`.
    fn take(&mut self, key: Key, entry: Entry, known: Option<Entry>) {
        if outranks(&entry, known.as_ref(), &mut self.superseded) {
            self.entries.insert(key, entry);
        }
    }
}

/// Whether a row takes the place of the one that is known of its key; adds which rows do not count then.
fn outranks(entry: &Entry, known: Option<&Entry>, superseded: &mut Vec<Place>) -> bool {
    if let Some(known) = known {
        if known.outranks(entry) {
            superseded.push(entry.place);
            return false;
        }
        if known.place != entry.place && !known.deleted {
            superseded.push(known.place);
        }
    }
    if entry.deleted {
        superseded.push(entry.place);
    }
    true
}

/// A key with a place in [`Settling::pieces`].
type KeyedRow = (Key, u32);

/// Rows of a segment that go to disk together.
struct Settling {
    /// The rows' keys, ascending.
    keys: Vec<KeyedRow>,
    /// The rows, [`READ_ROWS`] of them in each but the last.
    pieces: Vec<(KeyedRows, Vec<u64>)>,
    partition: u32,
    segment: u32,
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
    fn entry(&self, row: u32) -> Option<Entry> {
        let (rows, offsets) = self.pieces.get((row / READ_ROWS) as usize)?;
        let rows = Rows {
            rows,
            offsets,
            partition: self.partition,
            segment: self.segment,
            base: self.base,
        };
        Some(rows.entry((row % READ_ROWS) as usize, row as usize))
    }
}

impl TableKeys {
    /// The keys of a table whose committed segments are `segments`, each as `schema` reads it. What of them is not on disk
    /// is brought there first.
    ///
    /// `partition_number`: of a stream partition, one that orders rows of the same rank.
    ///
    /// # Errors
    /// When segments can't be read, or the store.
    pub fn open(
        store: &Arc<KeyStore>,
        (table, schema): (&str, &Schema),
        config: &Arc<KeysConfig>,
        segments: &[(SegmentName, Arc<dyn SegmentReader>)],
        partition_number: impl Fn(&StreamPartition) -> u32,
    ) -> Result<Self> {
        let keys = Self {
            config: Arc::clone(config),
            reader: KeyReader::new(config, schema, store.secret())?,
            stored: store.table(table, config)?,
            segments: RwLock::default(),
            live: Mutex::new(Live {
                entries: KeyMap::default(),
                largest_time: i64::MIN,
                forgotten_at: i64::MIN,
            }),
            letting_go: RwLock::default(),
            settling: Mutex::default(),
            pinned: ArcSwap::from_pointee(KeysPin {
                version: 0,
                watermarks: BTreeMap::new(),
            }),
            pins: Mutex::default(),
        };
        let first = Arc::downgrade(&keys.pinned.load_full());
        keys.pins.lock().push_back((0, first));
        let known = keys.stored.segments()?;
        keys.live.lock().largest_time = known.largest_time;
        let mut missing = Vec::new();
        {
            let mut all = keys.segments.write();
            all.next = known.next;
            for (name, reader) in segments {
                match known.segments.get(name) {
                    Some((number, whole)) => {
                        all.add(SegmentDocs::new(name.clone(), *number));
                        if !whole {
                            missing.push((name, reader));
                        }
                    }
                    None => missing.push((name, reader)),
                }
            }
        }
        for (name, (number, _)) in &known.segments {
            if !keys.segments.read().by_name.contains_key(name) {
                keys.stored.forget(name, *number)?;
            }
        }
        for (name, reader) in missing {
            let partition = reader.origin().map_or(0, |(p, _)| partition_number(p));
            keys.settle(name, &**reader, partition)?;
        }
        for docs in keys.segments.read().by_name.values() {
            keys.stored.restore(docs)?;
        }
        Ok(keys)
    }

    /// How rows are told apart.
    pub fn config(&self) -> &Arc<KeysConfig> {
        &self.config
    }

    /// Memory of the keys that are not on disk, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.live.lock().entries.capacity() * (size_of::<(Key, Entry)>() + 1)
    }

    /// What a query pins now; none where all rows count.
    pub fn pin(&self) -> Option<Arc<KeysPin>> {
        self.config.supersedes().then(|| self.pinned.load_full())
    }

    /// Which documents of a segment count at a version; none: all do.
    ///
    /// # Errors
    /// `SegmentGone` when nobody looks at the version any more, or the segment is not known.
    pub fn valid_docs(
        &self,
        segment: &SegmentName,
        version: u64,
    ) -> Result<Option<Arc<dyn ValidDocs>>> {
        let pin = {
            let pins = self.pins.lock();
            let at = pins.partition_point(|(of, _)| *of < version);
            pins.get(at).and_then(|(_, pin)| pin.upgrade())
        };
        let docs = self.docs(segment);
        match (pin, docs) {
            (Some(pin), Some(docs)) if pin.version == version => Ok(docs.at(version, pin)),
            _ => Err(Error::segment_gone(format!(
                "segment {segment} is not known at version {version} of the table's keys"
            ))),
        }
    }

    /// A segment's superseded documents.
    pub fn docs(&self, segment: &SegmentName) -> Option<Arc<SegmentDocs>> {
        self.segments.read().by_name.get(segment).cloned()
    }

    /// Says where a partition begins: a partition that is not known has no visible rows.
    pub fn begin(&self, partition: &StreamPartition, offset: u64) {
        let _live = self.live.lock();
        let known = self.pinned.load().watermarks.get(partition).copied();
        if known.is_none() {
            self.publish(partition, offset);
        }
    }

    /// Forgets segments that are gone: a key whose row was in one of them is new when it comes again.
    pub fn forget<'a>(&self, names: impl Iterator<Item = &'a SegmentName>) -> Result<()> {
        for name in names {
            let docs = self.segments.write().remove(name);
            if let Some(docs) = docs {
                self.stored.forget(name, docs.number)?;
            }
        }
        Ok(())
    }

    /// The rows of a committed segment that are needed: those that count, by what is committed, and those by which a key is
    /// deleted; ascending. None where not all of the segment's rows are on disk yet.
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
        let mut unneeded = self.superseded_on_disk(&docs)?;
        if self.config.deleted.is_some() {
            let mut kept = HashSet::new();
            for superseded in unneeded.chunks(READ_ROWS as usize) {
                let rows = self.rows_at(segment, superseded)?;
                let keyed = rows.keys.iter().zip(superseded).enumerate();
                let deleting = keyed.filter(|(row, _)| rows.is_deleted(*row));
                let mut deleting: Vec<(&Key, DocId)> =
                    deleting.map(|(_, (key, doc))| (key, *doc)).collect();
                deleting.sort_unstable();
                let keys: Vec<&Key> = deleting.iter().map(|(key, _)| *key).collect();
                let known = self.stored.entries(&keys)?;
                let is_known = |(key, doc): &&(&Key, DocId)| {
                    let known = known.get(*key).and_then(|known| self.located(known));
                    known.is_some_and(|known| known.place == docs.place(*doc))
                };
                kept.extend(deleting.iter().filter(is_known).map(|(_, doc)| *doc));
            }
            unneeded.retain(|doc| !kept.contains(doc));
        }
        Ok(Some(docs_without(segment.num_docs(), &unneeded)))
    }

    /// Whether all rows of a committed segment are on disk.
    pub fn is_settled(&self, name: &SegmentName) -> Result<bool> {
        self.stored.is_whole(name)
    }

    /// Has rows of committed segments be rows of another one as well, in the order in which they are given. Until
    /// [`Self::end_move`] or [`Self::give_up_move`] what is superseded is superseded in both. One change of a table's segments
    /// is made at a time.
    pub fn begin_move(&self, to: &SegmentName, from: Vec<(SegmentName, Kept)>) -> Result<()> {
        let _nothing_comes = self.live.lock();
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
                segments.moves.push(Arc::new(Move::new(to, from)));
                Ok(())
            }
            Err(e) => {
                segments.remove(&to.name);
                Err(e)
            }
        }
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
            for superseded in self.superseded_on_disk(&docs)?.chunks(READ_ROWS as usize) {
                let rows = self.rows_at(&**segment, superseded)?;
                let of_keys = superseded.iter().zip(&rows.keys);
                let of_keys = of_keys.filter(|(_, key)| keys.contains(*key));
                older.extend(of_keys.map(|(doc, _)| *doc));
            }
            Ok(older)
        });
        older.collect()
    }

    /// Has keys be known as deleted whose rows a statement has deleted, so that rows that rank below these do not count. Called
    /// before the segment that has the other rows is settled, or the old one is forgotten.
    ///
    /// # Errors
    /// Those of the store, and of reading the segment.
    pub fn delete(
        &self,
        name: &SegmentName,
        segment: &dyn SegmentReader,
        deleted: &[DocId],
    ) -> Result<()> {
        let Some(docs) = self.docs(name).filter(|_| self.config.supersedes()) else {
            return Ok(());
        };
        let _one_at_a_time = self.settling.lock();
        for deleted in deleted.chunks(READ_ROWS as usize) {
            let rows = self.rows_at(segment, deleted)?;
            let mut keys: Vec<(&Key, DocId)> =
                rows.keys.iter().zip(deleted.iter().copied()).collect();
            keys.sort_unstable();
            self.stored.take(keys.len(), |stored| {
                for (key, doc) in keys {
                    // By its place on disk: it has no other one any more.
                    let known = stored.get(key)?;
                    let Some(known) = known.filter(|known| known.place == docs.place(doc)) else {
                        continue;
                    };
                    let gone = Entry {
                        place: Place {
                            segment: NOWHERE,
                            doc,
                        },
                        deleted: true,
                        ..known
                    };
                    stored.insert(key, &gone)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The rows of a segment that do not count by what is on disk.
    fn superseded_on_disk(&self, docs: &SegmentDocs) -> Result<Vec<DocId>> {
        let on_disk = SegmentDocs::new(docs.name.clone(), docs.number);
        self.stored.restore(&on_disk)?;
        Ok(on_disk.all_superseded())
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

    /// Appends rows to a consuming segment, as [`ConsumingSegment::append`] does, and makes them visible together with what
    /// they supersede.
    ///
    /// # Errors
    /// Those of the segment and of the store; nothing has changed then, unless the segment takes no more rows.
    pub fn append(
        &self,
        segment: &ConsumingSegment,
        partition_number: u32,
        (batch, offsets, next_offset): (&RecordBatch, &[u64], u64),
        places: &dyn PlaceReader,
    ) -> Result<Appended> {
        let arrays = self.reader.columns().iter().map(|column| {
            let array = batch.column_by_name(&column.name).cloned();
            array.ok_or_else(|| Error::internal(format!("rows without column {}", column.name)))
        });
        let rows = self.reader.read(&arrays.collect::<Result<Vec<_>>>()?)?;
        let docs = self.docs_of(segment.name());
        let _held = self.letting_go.read();
        let stored = self.stored_entries(&rows.keys)?;
        let base = segment.rows() as u32;
        let place = Rows {
            rows: &rows,
            offsets,
            partition: partition_number,
            segment: docs.number,
            base,
        };
        let mut appended = Appended {
            indexed: offsets.len() as u64,
            ..Appended::default()
        };
        let mut live;
        let mut changes = Changes::default();
        match &self.config.rule {
            KeyRule::Newest => {
                // Nobody sees the rows before they are pinned.
                segment.append(batch, offsets, next_offset)?;
                live = self.live.lock();
                self.note_times(&mut live, &rows);
                for (row, key) in rows.keys.iter().enumerate() {
                    let entry = place.entry(row, row);
                    let known = self.known(key, &entry, (&changes, &live, &stored));
                    changes.take(*key, entry, known);
                }
            }
            KeyRule::First => {
                live = self.live.lock();
                self.note_times(&mut live, &rows);
                let mut kept = Vec::with_capacity(offsets.len());
                let mut docs = 0;
                for (row, key) in rows.keys.iter().enumerate() {
                    let entry = place.entry(row, docs);
                    let known = self.known(key, &entry, (&changes, &live, &stored));
                    kept.push(known.is_none());
                    if known.is_none() {
                        changes.entries.insert(*key, entry);
                        docs += 1;
                    }
                }
                if docs == offsets.len() {
                    segment.append(batch, offsets, next_offset)?;
                } else {
                    let with_place = offsets.iter().zip(&kept);
                    let offsets: Vec<u64> = with_place
                        .filter(|(_, kept)| **kept)
                        .map(|(o, _)| *o)
                        .collect();
                    appended.left_out = appended.indexed - docs as u64;
                    appended.indexed = docs as u64;
                    let kept = BooleanArray::from(kept);
                    let batch = filter_record_batch(batch, &kept)
                        .map_err(|e| Error::internal(format!("rows without repeated ones: {e}")))?;
                    segment.append(&batch, &offsets, next_offset)?;
                    appended.kept = Some(kept);
                }
            }
            KeyRule::Merged(merging) => {
                live = self.live.lock();
                self.note_times(&mut live, &rows);
                let mut merger = Merger::new(batch, merging, &self.config);
                for (row, key) in rows.keys.iter().enumerate() {
                    let entry = place.entry(row, row);
                    let known = self.known(key, &entry, (&changes, &live, &stored));
                    let before = known.as_ref().filter(|known| {
                        !known.deleted && !entry.deleted && !known.outranks(&entry)
                    });
                    match before {
                        Some(before)
                            if before.place.segment == docs.number && before.place.doc >= base =>
                        {
                            merger.onto_row((before.place.doc - base) as usize);
                        }
                        Some(before) => merger.onto_place(before.place),
                        None => merger.alone(),
                    }
                    changes.take(*key, entry, known);
                }
                let schema = &segment.spec().schema;
                let merged = merger.finish(schema, |number| {
                    let docs = self.segments.read().by_number.get(&number).cloned();
                    let docs = docs.ok_or_else(|| Error::internal("a row's segment is gone"))?;
                    places.segment(&docs.name, schema)
                })?;
                segment.append(&merged, offsets, next_offset)?;
                appended.merged = Some(merged);
            }
        }
        let version = self.pinned.load().version + 1;
        if self.config.supersedes() {
            self.supersede(&changes.superseded, version);
        }
        live.entries.extend(changes.entries);
        self.publish(segment.partition(), next_offset);
        Ok(appended)
    }

    /// Brings the rows of a committed segment to disk. May be repeated.
    pub fn settle(
        &self,
        name: &SegmentName,
        segment: &dyn SegmentReader,
        partition_number: u32,
    ) -> Result<()> {
        let _one_at_a_time = self.settling.lock();
        let docs = self.docs_of(name);
        let (next, largest_time) = (self.segments.read().next, self.live.lock().largest_time);
        self.stored.note(&docs, false, (next, largest_time))?;
        let mut start = 0;
        while start < segment.num_docs() {
            let end = segment.num_docs().min(start.saturating_add(SETTLED_ROWS));
            let rows = self.settling(segment, start..end, (docs.number, partition_number))?;
            let mut left = rows.keys.as_slice();
            while !left.is_empty() {
                let (together, rest) = whole_keys(left);
                self.store(&rows, together)?;
                left = rest;
            }
            start = end;
        }
        let largest_time = self.live.lock().largest_time;
        self.stored.note(&docs, true, (next, largest_time))?;
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

    /// Brings some rows to disk, whose keys ascend.
    fn store(&self, rows: &Settling, keys: &[KeyedRow]) -> Result<()> {
        self.stored.take(keys.len(), |stored| {
            for of_key in keys.chunk_by(|a, b| a.0 == b.0) {
                let Some((key, _)) = of_key.first() else {
                    continue;
                };
                let mut known = stored.get(key)?.and_then(|known| self.located(&known));
                let mut is_new = false;
                for entry in of_key.iter().filter_map(|(_, row)| rows.entry(*row)) {
                    known = known.filter(|known| self.remembers(known, &entry));
                    // The first row of a key is not taken the place of, but may have moved.
                    let is_moved = known.as_ref().is_some_and(|k| k.place == entry.place);
                    if (self.config.supersedes() || known.is_none() || is_moved)
                        && outranks(&entry, known.as_ref(), stored.superseded)
                    {
                        known = Some(entry);
                        is_new = true;
                    }
                }
                if let Some(entry) = known.filter(|_| is_new) {
                    stored.insert(key, &entry)?;
                }
            }
            // Where rows were, too: their move may be given up.
            let segments = self.segments.read();
            let before = stored.superseded.iter();
            let before: Vec<Place> = before.filter_map(|place| segments.before(*place)).collect();
            stored.superseded.extend(before);
            Ok(())
        })
    }

    /// Reads rows of a segment, and has their times noted.
    fn settling(
        &self,
        segment: &dyn SegmentReader,
        docs: Range<DocId>,
        (number, partition): (u32, u32),
    ) -> Result<Settling> {
        let mut settling = Settling {
            keys: Vec::with_capacity(docs.len()),
            pieces: Vec::with_capacity(docs.len().div_ceil(READ_ROWS as usize)),
            partition,
            segment: number,
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
            segment.offsets(selection, &mut offsets);
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

    fn docs_of(&self, name: &SegmentName) -> Arc<SegmentDocs> {
        if let Some(docs) = self.docs(name) {
            return docs;
        }
        let mut segments = self.segments.write();
        match segments.by_name.get(name) {
            Some(docs) => Arc::clone(docs),
            None => {
                let number = segments.next;
                segments.add(SegmentDocs::new(name.clone(), number))
            }
        }
    }

    /// The entries on disk of keys that are not in memory.
    fn stored_entries(&self, keys: &[Key]) -> Result<KeyMap<Entry>> {
        let mut missing: Vec<&Key> = {
            let live = self.live.lock();
            keys.iter()
                .filter(|key| !live.entries.contains_key(*key))
                .collect()
        };
        // Neighbours are found faster.
        missing.sort_unstable();
        self.stored.entries(&missing)
    }

    /// What is known of the key of `entry` by now, if its row is still there and not forgotten.
    fn known(
        &self,
        key: &Key,
        entry: &Entry,
        (changes, live, stored): (&Changes, &Live, &KeyMap<Entry>),
    ) -> Option<Entry> {
        let known = match changes.entries.get(key) {
            Some(known) => known.clone(),
            None => {
                let known = live.entries.get(key).or_else(|| stored.get(key))?;
                self.located(known)?
            }
        };
        self.remembers(&known, entry).then_some(known)
    }

    /// Whether the row that is known of a key is not so much older than another one that the key was forgotten meanwhile.
    fn remembers(&self, known: &Entry, entry: &Entry) -> bool {
        let kept = self.config.kept_of(known.deleted);
        kept.is_none_or(|kept| known.time >= entry.time.saturating_sub(kept))
    }

    /// What is known of a key, with the place where the row is by now; none when it is gone.
    fn located(&self, entry: &Entry) -> Option<Entry> {
        let place = self.segments.read().newest(entry.place)?;
        Some(Entry {
            place,
            ..entry.clone()
        })
    }

    fn note_times(&self, live: &mut Live, rows: &KeyedRows) {
        if self.config.forgets() {
            let times = (0..rows.keys.len()).map(|row| rows.time(row));
            live.largest_time = times.fold(live.largest_time, i64::max);
        }
    }

    /// Has documents not count from `version` on.
    fn supersede(&self, superseded: &[Place], version: u64) {
        let oldest = {
            let mut pins = self.pins.lock();
            pins.retain(|(_, pin)| pin.strong_count() > 0);
            pins.front().map_or(version, |(oldest, _)| *oldest)
        };
        let mut superseded = superseded.to_vec();
        superseded.sort_unstable_by_key(|place| place.segment);
        for places in superseded.chunk_by(|a, b| a.segment == b.segment) {
            let number = places.first().map(|place| place.segment);
            let segments = self.segments.read();
            if let Some(docs) = number.and_then(|n| segments.by_number.get(&n)) {
                let gone: Vec<DocId> = places.iter().map(|place| place.doc).collect();
                docs.supersede(version, oldest, &gone);
                // Queries of before the move look there.
                let moved = segments.moves.iter().filter(|m| m.to.number == docs.number);
                for (before, doc) in moved.flat_map(|m| gone.iter().filter_map(|d| m.before(*d))) {
                    before.supersede(version, oldest, &[doc]);
                }
            }
        }
    }

    /// Makes a new version visible. Called with the lock of what is live.
    fn publish(&self, partition: &StreamPartition, next_offset: u64) {
        let before = self.pinned.load_full();
        let mut watermarks = before.watermarks.clone();
        watermarks.insert(partition.clone(), next_offset);
        let pin = Arc::new(KeysPin {
            version: before.version + 1,
            watermarks,
        });
        let looked_at = (pin.version, Arc::downgrade(&pin));
        self.pins.lock().push_back(looked_at);
        self.pinned.store(pin);
    }
}
