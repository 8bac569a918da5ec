//! The keys of one table while rows come in: in memory those of consuming segments, on disk those of committed ones.

mod changes;
mod pushed;
mod settle;

pub use pushed::PushedSegment;

use super::docs::SegmentDocs;
use super::entry::{Entry, Key, KeyMap, Known, Place, higher};
use super::merge::Merger;
use super::moves::{Move, Moved};
use super::rows::{KeyReader, KeyedRows};
use super::store::{KeyStore, Noted, StoredKeys};
use crate::config::{KeyRule, KeysConfig};
use crate::segment::consuming::ConsumingSegment;
use crate::segment::{SegmentReader, ValidDocs};
use ::arrow::array::{BooleanArray, RecordBatch};
use ::arrow::compute::filter_record_batch;
use arc_swap::ArcSwap;
use hashbrown::{HashMap, HashSet};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use strandline_index::DocId;
use strandline_proto::catalog::PushedNames;
use strandline_proto::ids::{SegmentName, StreamPartition};
use strandline_proto::schema::Schema;
use strandline_proto::{Error, Result};

use pushed::{AllMarks, Pending, remark};

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
    /// The pushed segments whose rows are among them.
    pub pushed: PushedNames,
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

/// A committed segment of a table; of one that can't be read is known what is on disk.
pub type CommittedSegment = (SegmentName, Option<Arc<dyn SegmentReader>>);

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
    /// One segment's rows go to disk at a time. Marks of what is pending, by the rows that are on disk.
    settling: Mutex<AllMarks>,
    pinned: ArcSwap<KeysPin>,
    /// The last one before the pushed segments changed, while it may be asked for.
    previous: Mutex<Option<Arc<KeysPin>>>,
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
    /// The numbers of the pushed segments whose rows are among the keys.
    pushed: Arc<HashSet<u32>>,
    /// Pushed segments that went at a version, while older ones are looked at.
    leaving: Vec<(u64, Arc<SegmentDocs>)>,
}

impl Segments {
    /// Where a row was that is about to be somewhere else.
    fn before(&self, place: Place) -> Option<Place> {
        let moved = self.moves.iter().find(|m| m.to.number == place.segment)?;
        let (docs, doc) = moved.before(place.doc)?;
        Some(docs.place(doc))
    }

    /// What is known of a key, with the place where the row is by now; none when it is gone.
    fn located(&self, entry: &Entry) -> Option<Entry> {
        let before = entry.place;
        let moved = self.moves.iter().find_map(|moved| moved.after(before));
        let (place, deleted) = match moved {
            Some(Moved::To(place)) => (place, entry.deleted),
            Some(Moved::Deleted(place)) => (place, true),
            None if self.by_number.contains_key(&before.segment) => (before, entry.deleted),
            Some(Moved::Gone) | None => return None,
        };
        Some(Entry {
            place,
            deleted,
            ..entry.clone()
        })
    }

    fn remove(&mut self, name: &SegmentName) -> Option<Arc<SegmentDocs>> {
        let docs = self.by_name.remove(name)?;
        self.by_number.remove(&docs.number);
        Some(docs)
    }

    fn add(&mut self, docs: SegmentDocs) -> Arc<SegmentDocs> {
        let docs = Arc::new(docs);
        self.insert(&docs);
        docs
    }

    fn insert(&mut self, docs: &Arc<SegmentDocs>) {
        self.next = self.next.max(docs.number + 1);
        self.by_name.insert(docs.name.clone(), Arc::clone(docs));
        self.by_number.insert(docs.number, Arc::clone(docs));
    }
}

/// What is known of rows that are not on disk yet.
struct Live {
    entries: KeyMap<Entry>,
    /// The largest time of a row; the smallest where none is forgotten.
    largest_time: i64,
    /// What it was when old keys were looked for.
    forgotten_at: i64,
    /// Pushed segments that are about to come and go.
    pending: Option<Pending>,
    /// Marks of these by the rows that are there.
    marks: AllMarks,
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
    /// Takes in a row, before which its key's was `known` of those of the stream, and `pushed` of the others.
    fn take(&mut self, key: Key, entry: Entry, known: Option<Entry>, pushed: Option<&Entry>) {
        if outranks(&entry, known.as_ref(), &mut self.superseded) {
            stand_beside(&entry, pushed, &mut self.superseded);
            self.entries.insert(key, entry);
        }
    }
}

/// Adds which of two rows does not count: the newest of the stream or the highest that was pushed.
fn stand_beside(entry: &Entry, pushed: Option<&Entry>, superseded: &mut Vec<Place>) {
    match pushed {
        Some(pushed) if pushed.outranks(entry) => superseded.push(entry.place),
        Some(pushed) if !pushed.deleted => superseded.push(pushed.place),
        _ => {}
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
        segments: &[CommittedSegment],
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
                pending: None,
                marks: AllMarks::new(),
            }),
            letting_go: RwLock::default(),
            settling: Mutex::default(),
            pinned: ArcSwap::from_pointee(KeysPin {
                version: 0,
                watermarks: BTreeMap::new(),
                pushed: PushedNames::default(),
            }),
            previous: Mutex::default(),
            pins: Mutex::default(),
        };
        let known = keys.stored.segments()?;
        keys.live.lock().largest_time = known.largest_time;
        let mut missing = Vec::new();
        {
            let mut all = keys.segments.write();
            all.next = known.next;
            for (name, reader) in segments {
                let noted = known.segments.get(name);
                let is_whole = noted.is_some_and(|(_, noted)| *noted == Noted::Whole);
                if let Some((number, _)) = noted
                    && (is_whole || reader.is_some())
                {
                    all.add(SegmentDocs::new(name.clone(), *number));
                }
                missing.extend(reader.iter().filter(|_| !is_whole).map(|r| (name, r)));
            }
        }
        let mut pushed = HashSet::new();
        let mut names = Vec::new();
        for (name, (number, noted)) in &known.segments {
            let mut all = keys.segments.write();
            if all.by_name.contains_key(name) {
                continue;
            }
            if *noted == Noted::Pushed {
                all.add(SegmentDocs::new(name.clone(), *number));
                pushed.insert(*number);
                names.push(name);
            } else {
                keys.stored.forget(name, *number)?;
            }
        }
        keys.segments.write().pushed = Arc::new(pushed);
        keys.pin_next(KeysPin {
            version: 0,
            watermarks: BTreeMap::new(),
            pushed: PushedNames::of(names.into_iter()),
        });
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
        let docs = {
            let segments = self.segments.read();
            let mut leaving = segments.leaving.iter();
            let left = leaving.find(|(left, docs)| docs.name == *segment && version < *left);
            let docs = left.map(|(_, docs)| docs).or(segments.by_name.get(segment));
            docs.cloned()
        };
        match (pin, docs) {
            (Some(pin), Some(docs)) if pin.version == version => Ok(docs.at(version, pin)),
            _ => Err(Error::segment_gone(format!(
                "segment {segment} is not known at version {version} of the table's keys"
            ))),
        }
    }

    /// A segment's documents that do not count.
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
        let pushed = |key: &Key| {
            let known = stored.get(key).filter(|known| !known.pushed.is_empty())?;
            known.highest_pushed(&self.segments.read().pushed)
        };
        match &self.config.rule {
            KeyRule::Newest => {
                // Nobody sees the rows before they are pinned.
                segment.append(batch, offsets, next_offset)?;
                live = self.live.lock();
                self.note_times(&mut live, &rows);
                for (row, key) in rows.keys.iter().enumerate() {
                    let entry = place.entry(row, row);
                    let known = self.known(key, &entry, (&changes, &live, &stored));
                    changes.take(*key, entry, known, pushed(key));
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
                    let pushed = pushed(key);
                    let before = higher(known.as_ref(), pushed).filter(|known| {
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
                    changes.take(*key, entry, known, pushed);
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
        let Live {
            pending,
            marks,
            entries,
            ..
        } = &mut *live;
        if let Some(pending) = pending {
            let segments = self.segments.read();
            for (key, entry) in &changes.entries {
                let stored = stored.get(key);
                let before = entries.get(key);
                let before = before.or(stored.and_then(|known| known.stream.as_ref()));
                let before = before.and_then(|before| segments.located(before));
                let pushed = stored.map_or(&[][..], |known| &known.pushed);
                let of_stream = (before, Some(entry.clone()));
                remark(pending, marks, of_stream, pushed, &segments);
            }
        }
        entries.extend(changes.entries);
        self.publish(segment.partition(), next_offset);
        Ok(appended)
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

    /// What is known on disk of keys, where that is not known in memory.
    fn stored_entries(&self, keys: &[Key]) -> Result<KeyMap<Known>> {
        let mut missing: Vec<&Key> = {
            let live = self.live.lock();
            let has_pushed = live.pending.is_some() || self.has_pushed();
            let is_missing = |key: &&Key| has_pushed || !live.entries.contains_key(*key);
            keys.iter().filter(is_missing).collect()
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
        (changes, live, stored): (&Changes, &Live, &KeyMap<Known>),
    ) -> Option<Entry> {
        let known = match changes.entries.get(key) {
            Some(known) => known.clone(),
            None => {
                let stored = || stored.get(key)?.stream.as_ref();
                self.located(live.entries.get(key).or_else(stored)?)?
            }
        };
        self.remembers(&known, entry).then_some(known)
    }

    /// Whether the row that is known of a key is not so much older than another one that the key was forgotten meanwhile.
    fn remembers(&self, known: &Entry, entry: &Entry) -> bool {
        let kept = self.config.kept_of(known.deleted);
        kept.is_none_or(|kept| known.time >= entry.time.saturating_sub(kept))
    }

    fn located(&self, entry: &Entry) -> Option<Entry> {
        self.segments.read().located(entry)
    }

    fn note_times(&self, live: &mut Live, rows: &KeyedRows) {
        if self.config.forgets() {
            let times = (0..rows.keys.len()).map(|row| rows.time(row));
            live.largest_time = times.fold(live.largest_time, i64::max);
        }
    }

    /// Has documents not count from `version` on.
    fn supersede(&self, superseded: &[Place], version: u64) {
        let oldest = self.oldest_pinned(version);
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
        self.pin_next(KeysPin {
            version: before.version + 1,
            watermarks,
            pushed: before.pushed,
        });
    }

    fn pin_next(&self, pin: KeysPin) {
        let pin = Arc::new(pin);
        let looked_at = (pin.version, Arc::downgrade(&pin));
        self.pins.lock().push_back(looked_at);
        self.pinned.store(pin);
    }

    /// The oldest version that is looked at, `version` being about to come.
    fn oldest_pinned(&self, version: u64) -> u64 {
        let mut pins = self.pins.lock();
        pins.retain(|(_, pin)| pin.strong_count() > 0);
        let oldest = pins.front().map_or(version, |(oldest, _)| *oldest);
        drop(pins);
        let has_left = !self.segments.read().leaving.is_empty();
        if has_left {
            let leaving = &mut self.segments.write().leaving;
            leaving.retain(|(left, _)| oldest < *left);
        }
        oldest
    }
}
