//! The keys of one table while rows come in: in memory those of consuming segments, on disk those of committed ones.

use super::docs::SegmentDocs;
use super::entry::{Entry, Key, KeyMap, Place};
use super::merge::Merger;
use super::rows::{KeyReader, KeyedRows};
use super::store::{KeyStore, StoredKeys};
use crate::config::{KeyRule, KeysConfig};
use crate::segment::consuming::ConsumingSegment;
use crate::segment::merge::column_or_default;
use crate::segment::{SegmentReader, ValidDocs};
use ::arrow::array::{BooleanArray, RecordBatch};
use ::arrow::compute::filter_record_batch;
use arc_swap::ArcSwap;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use strandline_index::{DocId, DocSelection};
use strandline_proto::ids::{SegmentName, StreamPartition};
use strandline_proto::schema::Schema;
use strandline_proto::{Error, Result};

/// Rows of a committed segment that go to disk together.
const STORED_ROWS: u32 = 65_536;

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
}

impl Segments {
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
pub(super) struct Changes {
    pub(super) entries: KeyMap<Entry>,
    pub(super) superseded: Vec<Place>,
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
        if let Some(known) = known {
            if known.outranks(&entry) {
                self.superseded.push(entry.place);
                return;
            }
            if known.place != entry.place && !known.deleted {
                self.superseded.push(known.place);
            }
        }
        if entry.deleted {
            self.superseded.push(entry.place);
        }
        self.entries.insert(key, entry);
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
            let docs = {
                let mut segments = self.segments.write();
                let docs = segments.by_name.remove(name);
                if let Some(docs) = &docs {
                    segments.by_number.remove(&docs.number);
                }
                docs
            };
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
        let mut offsets = Vec::new();
        while start < segment.num_docs() {
            let end = segment.num_docs().min(start.saturating_add(STORED_ROWS));
            let selection = DocSelection::Range(start..end);
            let arrays = self.reader.columns().iter().map(|column| {
                column_or_default(segment, column, selection.clone())
                    .map_err(|e| e.at(format_args!("segment {name}: column {}", column.name)))
            });
            let rows = self.reader.read(&arrays.collect::<Result<Vec<_>>>()?)?;
            offsets.clear();
            segment.offsets(selection, &mut offsets);
            let of_rows: Vec<u64> = offsets.iter().map(|offset| *offset as u64).collect();
            let place = Rows {
                rows: &rows,
                offsets: &of_rows,
                partition: partition_number,
                segment: docs.number,
                base: start,
            };
            let mut changes = Changes::default();
            for (row, key) in rows.keys.iter().enumerate() {
                let entry = place.entry(row, row);
                let known = match changes.entries.get(key) {
                    Some(known) => Some(known.clone()),
                    None => self.stored.get(key)?.filter(|known| self.is_there(known)),
                };
                let known = known.filter(|known| self.remembers(known, &entry));
                // The first row of a key is not taken the place of.
                if self.config.supersedes() || known.is_none() {
                    changes.take(*key, entry, known);
                }
            }
            let mut live = self.live.lock();
            self.note_times(&mut live, &rows);
            drop(live);
            self.stored.add(changes)?;
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
        let missing: Vec<&Key> = {
            let live = self.live.lock();
            keys.iter()
                .filter(|key| !live.entries.contains_key(*key))
                .collect()
        };
        let mut found = KeyMap::default();
        for key in missing {
            if let Some(entry) = self.stored.get(key)? {
                found.insert(*key, entry);
            }
        }
        Ok(found)
    }

    /// What is known of the key of `entry` by now, if its row is still there and not forgotten.
    fn known(
        &self,
        key: &Key,
        entry: &Entry,
        (changes, live, stored): (&Changes, &Live, &KeyMap<Entry>),
    ) -> Option<Entry> {
        let known = match changes.entries.get(key) {
            Some(known) => known,
            None => {
                let known = live.entries.get(key).or_else(|| stored.get(key));
                known.filter(|known| self.is_there(known))?
            }
        };
        self.remembers(known, entry).then(|| known.clone())
    }

    /// Whether the row that is known of a key is not so much older than another one that the key was forgotten meanwhile.
    fn remembers(&self, known: &Entry, entry: &Entry) -> bool {
        let kept = self.config.kept_of(known.deleted);
        kept.is_none_or(|kept| known.time >= entry.time.saturating_sub(kept))
    }

    fn is_there(&self, entry: &Entry) -> bool {
        let segments = self.segments.read();
        segments.by_number.contains_key(&entry.place.segment)
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
