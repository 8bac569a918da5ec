//! Keys against a model: what counts of the rows that are visible at each version that is looked at.

use super::{CommittedSegment, Kept, KeyStore, KeysPin, PlaceReader, PushedSegment, TableKeys};
use crate::config::{TableConfig, parse_schema, parse_table};
use crate::environment::Environment;
use crate::segment::arrow::read_array;
use crate::segment::builder::SegmentBuilder;
use crate::segment::consuming::ConsumingSegment;
use crate::segment::immutable::ImmutableSegment;
use crate::segment::merge::{Source, add_rows};
use crate::segment::{DeletedKey, SegmentReader};
use ::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, RecordBatch, StringArray,
};
use ::arrow::datatypes::{Int64Type, Schema as ArrowSchema};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use strandline_index::{CHUNK_DOCS, DocBits, DocId, DocSelection};
use strandline_proto::catalog::PushedNames;
use strandline_proto::ids::{Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::lineage::Lineage;
use strandline_proto::schema::Schema;
use strandline_proto::{Error, Result};

const SCHEMA: &str = r#"{"schemaName": "t", "primaryKeyColumns": ["k", "name"],
    "dimensionFieldSpecs": [{"name": "k", "dataType": "LONG"}, {"name": "name", "dataType": "STRING"},
        {"name": "gone", "dataType": "BOOLEAN"}, {"name": "tags", "dataType": "LONG", "singleValueField": false},
        {"name": "kind", "dataType": "LONG"}],
    "metricFieldSpecs": [{"name": "n", "dataType": "LONG"}, {"name": "least", "dataType": "LONG"},
        {"name": "most", "dataType": "LONG"}],
    "dateTimeFieldSpecs": [{"name": "at", "dataType": "LONG", "format": "EPOCH|MILLISECONDS|1", "granularity": "1:SECONDS"}]}"#;

fn config(keys: &str) -> Arc<TableConfig> {
    let (schema, _) = parse_schema(SCHEMA, 1).unwrap();
    let json = format!(
        r#"{{"tableName": "t", "tableType": "REALTIME", "segmentsConfig": {{"timeColumnName": "at"}}, {keys},
        "ingestionConfig": {{"streamIngestionConfig": {{"streamConfigMaps": [{{"streamType": "log", "stream.log.topic.name": "t"}}]}}}}}}"#
    );
    Arc::new(parse_table(&json, &Arc::new(schema)).unwrap().0)
}

/// A row; absent values are null.
#[derive(Clone, Debug, Default)]
struct Row {
    k: i64,
    at: Option<i64>,
    gone: Option<bool>,
    n: Option<i64>,
    kind: Option<i64>,
    tags: Option<Vec<i64>>,
}

fn batch(schema: &Schema, rows: &[Row]) -> RecordBatch {
    let longs = |of: &dyn Fn(&Row) -> Option<i64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Int64Array>())
    };
    let arrays = schema
        .columns
        .iter()
        .map(|column| match column.name.as_str() {
            "k" => longs(&|row| Some(row.k)),
            "name" => {
                let names = rows.iter().map(|row| Some(format!("name {}", row.k)));
                Arc::new(names.collect::<StringArray>()) as ArrayRef
            }
            "gone" => Arc::new(rows.iter().map(|row| row.gone).collect::<BooleanArray>()),
            "tags" => {
                let lists = rows.iter().map(|row| {
                    let tags = row.tags.as_ref()?;
                    Some(tags.iter().map(|tag| Some(*tag)).collect::<Vec<_>>())
                });
                Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
            }
            "kind" => longs(&|row| row.kind),
            "n" | "least" | "most" => longs(&|row| row.n),
            _ => longs(&|row| row.at),
        });
    let fields: Arc<ArrowSchema> = schema.arrow();
    RecordBatch::try_new(fields, arrays.collect()).unwrap()
}

/// A table whose rows have keys, with its stream.
struct Table {
    folder: tempfile::TempDir,
    config: Arc<TableConfig>,
    keys: Option<(Arc<KeyStore>, TableKeys)>,
    /// By partition: the messages of the stream, each of some rows.
    stream: Vec<Vec<Vec<Row>>>,
    /// By partition: the segment that takes rows, and what is sealed and not committed.
    consuming: Vec<Arc<ConsumingSegment>>,
    committed: Vec<(usize, Arc<ImmutableSegment>)>,
    /// By partition: the first offset that is not committed.
    next: BTreeMap<usize, u64>,
    segments: u64,
    /// Rows of a key up to this rank are gone, and do not count when they come.
    deleted: BTreeMap<i64, Rank>,
    /// All segments that were ever pushed, in this order.
    pushed: Vec<Pushed>,
    /// The places in `pushed` of those that are there.
    there: Vec<usize>,
    /// The same of sets that were there.
    sets: Vec<(PushedNames, Vec<usize>)>,
}

/// A pushed segment with its rows.
struct Pushed {
    of: PushedSegment,
    rows: Vec<Row>,
    segment: Arc<ImmutableSegment>,
}

/// Stands for the partition of pushed rows, which rank above others of equal comparison values.
const PUSHED: usize = usize::MAX;

/// Comparison value, partition, offset, place in the message.
type Rank = (Option<i64>, usize, usize, usize);

struct Places<'a>(&'a Table);

impl PlaceReader for Places<'_> {
    fn segment(&self, name: &SegmentName, _: &Schema) -> Result<Arc<dyn SegmentReader>> {
        let found = self
            .0
            .readers()
            .into_iter()
            .find(|(_, s)| s.name() == name.as_str());
        found
            .map(|(_, segment)| segment)
            .ok_or_else(|| Error::segment_gone("gone"))
    }
}

fn partition(number: usize) -> StreamPartition {
    StreamPartition {
        stream: Arc::from("log"),
        topic: Arc::from("t"),
        partition: number as u32,
    }
}

impl Table {
    fn new(keys: &str, partitions: usize) -> Self {
        let mut table = Self {
            folder: tempfile::tempdir().unwrap(),
            config: config(keys),
            keys: None,
            stream: vec![Vec::new(); partitions],
            consuming: Vec::new(),
            committed: Vec::new(),
            next: BTreeMap::new(),
            segments: 0,
            deleted: BTreeMap::new(),
            pushed: Vec::new(),
            there: Vec::new(),
            sets: vec![(PushedNames::default(), Vec::new())],
        };
        table.open();
        table
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    fn new_segment(&mut self, of: usize, start: u64) -> Arc<ConsumingSegment> {
        self.segments += 1;
        let name = format!("s{}", self.segments);
        let spec = Arc::clone(&self.config.spec);
        Arc::new(ConsumingSegment::new(&name, spec, partition(of), start).unwrap())
    }

    /// Opens the table as after a crash: what was not committed is gone.
    fn open(&mut self) {
        self.open_without(0);
    }

    /// The same when the last `unreadable` committed segments can't be read.
    fn open_without(&mut self, unreadable: usize) {
        self.keys = None;
        self.consuming.clear();
        let store = Arc::new(KeyStore::open(&self.store(), 8 << 20, [7; 16]).unwrap());
        let readable = self.committed.len() - unreadable;
        let committed = self.committed.iter().enumerate();
        let segments = committed.map(|(at, (_, s))| {
            let reader = Arc::clone(s) as Arc<dyn SegmentReader>;
            (
                SegmentName::new(s.name()),
                Some(reader).filter(|_| at < readable),
            )
        });
        let segments: Vec<CommittedSegment> = segments.collect();
        let config = self.config.keys.as_ref().unwrap();
        let schema = &self.config.spec.schema;
        let keys = TableKeys::open(&store, ("t", schema), config, &segments, |p| p.partition);
        let keys = keys.unwrap();
        for of in 0..self.stream.len() {
            let start = self.next.get(&of).copied().unwrap_or(0);
            let segment = self.new_segment(of, start);
            self.consuming.push(segment);
            keys.begin(&partition(of), start);
        }
        self.keys = Some((store, keys));
    }

    /// Opens the table as after a crash, and has its keys follow what is pushed. `lost`: the store is.
    fn open_with_pushed(&mut self, lost: bool) {
        self.keys = None;
        if lost {
            std::fs::remove_dir_all(self.store()).unwrap();
        }
        self.open();
        self.follow();
    }

    fn follow(&self) {
        let names = self.names(&self.there);
        if !self.keys().is_prepared(names) {
            self.prepare(&self.there, 0);
        }
        self.keys().switch(names).unwrap();
        self.keys().let_go();
    }

    fn keys(&self) -> &TableKeys {
        &self.keys.as_ref().unwrap().1
    }

    /// Puts messages into the stream, and has some of those that were not read appended.
    fn append(&mut self, of: usize, messages: Vec<Vec<Row>>, most: usize) {
        self.stream[of].extend(messages);
        self.take(of, most);
    }

    /// Has some messages appended that were not read.
    fn take(&self, of: usize, most: usize) {
        let segment = Arc::clone(&self.consuming[of]);
        let start = segment.next_offset() as usize;
        let end = self.stream[of].len().min(start + most);
        let of_messages = (start..end).flat_map(|o| self.stream[of][o].iter().map(move |r| (o, r)));
        let (offsets, rows): (Vec<u64>, Vec<Row>) =
            of_messages.map(|(o, row)| (o as u64, row.clone())).unzip();
        let rows = batch(&self.config.spec.schema, &rows);
        let appended = self.keys().append(
            &segment,
            of as u32,
            (&rows, &offsets, end as u64),
            &Places(self),
        );
        let appended = appended.unwrap();
        assert_eq!(appended.indexed + appended.left_out, rows.num_rows() as u64);
    }

    fn commit(&mut self, of: usize, settle: bool) {
        let segment = Arc::clone(&self.consuming[of]);
        if segment.rows() == 0 {
            return;
        }
        let path = self.folder.path().join(segment.name().as_str());
        let files = Environment::real().files;
        segment.build(&files, &path).unwrap();
        let built = ImmutableSegment::open(&path).unwrap();
        let next = self.new_segment(of, segment.next_offset());
        self.consuming[of] = next;
        self.committed.push((of, Arc::clone(&built)));
        self.next.insert(of, segment.next_offset());
        if settle {
            self.keys()
                .settle(segment.name(), &*built, of as u32)
                .unwrap();
        }
    }

    fn readers(&self) -> Vec<(usize, Arc<dyn SegmentReader>)> {
        let committed = self.committed.iter().map(|(p, s)| (*p, Arc::clone(s) as _));
        let consuming = self.consuming.iter().enumerate();
        committed
            .chain(consuming.map(|(p, s)| (p, s.view())))
            .collect()
    }

    /// The rows that count at `pin`, by partition and offset: their keys, times and numbers.
    fn visible(&self, pin: &KeysPin) -> Vec<(i64, Option<i64>, Option<i64>)> {
        let mut readers = self.readers();
        let (_, set) = self.sets.iter().find(|(n, _)| *n == pin.pushed).unwrap();
        let pushed = set.iter().map(|at| &self.pushed[*at].segment);
        readers.extend(pushed.map(|segment| (PUSHED, Arc::clone(segment) as _)));
        self.visible_of(&readers, pin)
    }

    /// Builds segments of rows, to be pushed; gives their places in `pushed`.
    fn build_pushed(&mut self, segments: Vec<Vec<Row>>) -> Vec<usize> {
        let order = self.pushed.len() as u64;
        let built = segments.into_iter().map(|rows| {
            self.segments += 1;
            let name = format!("p{}", self.segments);
            let spec = Arc::clone(&self.config.spec);
            let path = self.folder.path().join(&name);
            let mut builder = SegmentBuilder::new(spec, &name, Half::Offline, None).unwrap();
            builder
                .push(&batch(&self.config.spec.schema, &rows))
                .unwrap();
            builder.finish(&Environment::real().files, &path).unwrap();
            let name = SegmentName::new(&name);
            self.pushed.push(Pushed {
                of: PushedSegment { name, order },
                rows,
                segment: ImmutableSegment::open(&path).unwrap(),
            });
            self.pushed.len() - 1
        });
        built.collect()
    }

    /// Prepares a set of pushed segments; meanwhile messages are taken that were not read.
    fn prepare(&self, set: &[usize], most: usize) {
        let wanted: Vec<_> = set.iter().map(|at| self.pushed[*at].of.clone()).collect();
        let open = |name: &SegmentName| {
            self.take(0, most);
            self.take(1, most);
            let found = self.pushed.iter().find(|pushed| pushed.of.name == *name);
            Ok(Arc::clone(&found.unwrap().segment) as Arc<dyn SegmentReader>)
        };
        self.keys().prepare(&wanted, open).unwrap();
        assert!(self.keys().is_prepared(self.names(set)));
    }

    fn names(&self, set: &[usize]) -> PushedNames {
        PushedNames::of(set.iter().map(|at| &self.pushed[*at].of.name))
    }

    /// The metastore has another set of pushed segments.
    fn note_set(&mut self, set: &[usize]) {
        self.sets.push((self.names(set), set.to_vec()));
        self.there = set.to_vec();
    }

    fn visible_of(
        &self,
        readers: &[(usize, Arc<dyn SegmentReader>)],
        pin: &KeysPin,
    ) -> Vec<(i64, Option<i64>, Option<i64>)> {
        let mut rows = Vec::new();
        for (of, segment) in readers {
            let of = *of;
            if segment.num_docs() == 0 {
                continue;
            }
            let name = SegmentName::new(segment.name());
            let valid = self.keys().valid_docs(&name, pin.version).unwrap();
            let mut offsets = Vec::new();
            let all = DocSelection::Range(0..segment.num_docs());
            let to = match of {
                PUSHED => {
                    offsets.resize(segment.num_docs() as usize, 0);
                    i64::MAX
                }
                of => {
                    segment.offsets(all.clone(), &mut offsets);
                    pin.watermarks[&partition(of)] as i64
                }
            };
            let mut bits = DocBits::new();
            bits.insert_range(0, segment.num_docs().min(CHUNK_DOCS));
            if let Some(valid) = valid {
                valid.retain(0, &mut bits);
            }
            let column = |name: &str| {
                let column = self.config.spec.schema.column(name).unwrap();
                let reader = segment.column(name).unwrap();
                read_array(&*reader, column.data_type, false, all.clone()).unwrap()
            };
            let (k, at, n) = (column("k"), column("at"), column("n"));
            let value = |array: &ArrayRef, doc: usize| {
                let array = array.as_primitive::<Int64Type>();
                array.is_valid(doc).then(|| array.value(doc))
            };
            for (doc, offset) in offsets.iter().enumerate() {
                if bits.contains(doc as u16) && *offset < to {
                    rows.push((value(&k, doc).unwrap(), value(&at, doc), value(&n, doc)));
                }
            }
        }
        rows.sort_unstable();
        rows
    }

    /// What the model says of the same.
    fn expected(&self, pin: &KeysPin) -> Vec<(i64, Option<i64>, Option<i64>)> {
        let rows = self.winners(pin).into_values().map(|(_, row)| row);
        let rows = rows.filter(|row| row.gone != Some(true));
        let mut rows: Vec<_> = rows.map(|row| (row.k, row.at, row.n)).collect();
        rows.sort_unstable();
        rows
    }

    /// By key: the row of the highest rank that has not been deleted.
    fn winners(&self, pin: &KeysPin) -> BTreeMap<i64, (Rank, &Row)> {
        let mut winners: BTreeMap<i64, (Rank, &Row)> = BTreeMap::new();
        for (of, messages) in self.stream.iter().enumerate() {
            let to = pin.watermarks[&partition(of)] as usize;
            for (offset, message) in messages.iter().take(to).enumerate() {
                for (place, row) in message.iter().enumerate() {
                    let rank = (row.at, of, offset, place);
                    if let Some(deleted) = self.deleted.get(&row.k)
                        && rank <= *deleted
                    {
                        continue;
                    }
                    let winner = winners.entry(row.k).or_insert((rank, row));
                    if rank > winner.0 {
                        *winner = (rank, row);
                    }
                }
            }
        }
        let (_, set) = self.sets.iter().find(|(n, _)| *n == pin.pushed).unwrap();
        for at in set {
            // Segments of one push: by their names.
            let Pushed { of, rows, .. } = &self.pushed[*at];
            let offset =
                ((of.order as usize) << 32) | crc32c::crc32c(of.name.as_str().as_bytes()) as usize;
            for (place, row) in rows.iter().enumerate() {
                let rank = (row.at, PUSHED, offset, place);
                let winner = winners.entry(row.k).or_insert((rank, row));
                if rank > winner.0 {
                    *winner = (rank, row);
                }
            }
        }
        winners
    }

    /// Makes a segment of rows of committed ones of a partition, which follow each other from `first` on.
    fn build(
        &mut self,
        of: usize,
        from: &[Arc<ImmutableSegment>],
        kept: &[Vec<DocId>],
        deleted: &[DocId],
    ) -> Option<Arc<ImmutableSegment>> {
        self.segments += 1;
        let name = format!("m{}", self.segments);
        let range = OffsetRange {
            start: from[0].origin().unwrap().1.start,
            end: from[from.len() - 1].origin().unwrap().1.end,
        };
        let origin = Some((partition(of), range));
        let spec = Arc::clone(&self.config.spec);
        let mut builder = SegmentBuilder::new(spec, &name, Half::Realtime, origin).unwrap();
        let mut is_empty = true;
        for (segment, kept) in from.iter().zip(kept) {
            let of = SegmentName::new(segment.name());
            let remembered = self.keys().remembered(&of, &**segment, deleted).unwrap();
            is_empty &= remembered.is_empty() && kept.is_empty();
            builder.remember(remembered);
            let source = Source {
                segment,
                version: 1,
                lineage: &Lineage::default(),
            };
            let schema = &self.config.spec.schema;
            add_rows(&mut builder, schema, source, Some(kept), true).unwrap();
        }
        let path = self.folder.path().join(&name);
        builder.finish(&Environment::real().files, &path).unwrap();
        (!is_empty).then(|| ImmutableSegment::open(&path).unwrap())
    }

    /// Has committed segments of a partition that follow each other become one, with what is needed of them. `crash`: after which
    /// step; `between`: done while both are looked at.
    fn compact(
        &mut self,
        (of, first, count): (usize, usize, usize),
        crash: Option<u32>,
        more: Vec<Vec<Row>>,
        between: impl FnOnce(&mut Self, &[(usize, Arc<dyn SegmentReader>)]),
    ) {
        let of_partition: Vec<usize> = (0..self.committed.len())
            .filter(|at| self.committed[*at].0 == of)
            .skip(first)
            .take(count)
            .collect();
        let from: Vec<_> = (of_partition.iter())
            .map(|at| Arc::clone(&self.committed[*at].1))
            .collect();
        if from.is_empty() {
            return;
        }
        let mut kept = Vec::new();
        for segment in &from {
            let name = SegmentName::new(segment.name());
            match self.keys().needed(&name, &**segment).unwrap() {
                Some(docs) => kept.push(docs),
                None => return,
            }
        }
        let Some(to) = self.build(of, &from, &kept, &[]) else {
            return;
        };
        let name = SegmentName::new(to.name());
        let moved = from.iter().zip(&kept).map(|(segment, docs)| {
            let kept = Kept {
                rows: segment.num_docs(),
                docs: (docs.len() < segment.num_docs() as usize).then(|| docs.clone()),
            };
            (SegmentName::new(segment.name()), kept)
        });
        self.keys().begin_move(&name, moved.collect()).unwrap();
        match crash {
            Some(0) => return self.open(),
            Some(1) => {
                // What is committed meanwhile supersedes rows of the old segments for good.
                let other = 1 - of;
                self.append(other, more, 20);
                self.commit(other, true);
                self.keys().give_up_move(&name);
                return;
            }
            _ => {}
        }
        let before: Vec<_> = (from.iter().map(|s| (of, Arc::clone(s) as _))).collect();
        for at in of_partition.iter().rev() {
            self.committed.remove(*at);
        }
        self.committed
            .insert(of_partition[0], (of, Arc::clone(&to)));
        self.keys().note_moved(std::slice::from_ref(&name));
        between(self, &before);
        match crash {
            Some(_) => self.open(),
            None => self.finish(&name, &to, of),
        }
    }

    fn finish(&self, name: &SegmentName, to: &Arc<ImmutableSegment>, of: usize) {
        self.keys().settle(name, &**to, of as u32).unwrap();
        self.keys().end_move(name).unwrap();
    }

    /// Deletes the rows of keys that count, as a statement does, while messages are taken that were not read.
    fn delete(&mut self, keys: &[i64], most: usize, end: End) {
        for of in 0..self.stream.len() {
            self.commit(of, true);
        }
        for (of, segment) in &self.committed {
            let name = SegmentName::new(segment.name());
            if !self.keys().is_settled(&name).unwrap() {
                self.keys().settle(&name, &**segment, *of as u32).unwrap();
            }
        }
        let pin = self.keys().pin().unwrap();
        let mut ranks = BTreeMap::new();
        for (k, (rank, row)) in self.winners(&pin) {
            if keys.contains(&k) && row.gone != Some(true) {
                ranks.insert(k, rank);
            }
        }
        let segments: Vec<_> = self.committed.clone();
        let docs_of = |segment: &ImmutableSegment| -> Vec<DocId> {
            let name = SegmentName::new(segment.name());
            let mut bits = DocBits::new();
            bits.insert_range(0, segment.num_docs());
            if let Some(valid) = self.keys().valid_docs(&name, pin.version).unwrap() {
                valid.retain(0, &mut bits);
            }
            let column = segment.column("k").unwrap();
            let all = DocSelection::Range(0..segment.num_docs());
            let long = strandline_proto::schema::DataType::Long;
            let k = read_array(&*column, long, false, all).unwrap();
            let k = k.as_primitive::<Int64Type>().values();
            let docs = bits.iter().map(DocId::from);
            docs.filter(|doc| ranks.contains_key(&k[*doc as usize]))
                .collect()
        };
        let gone: Vec<Vec<DocId>> = segments.iter().map(|(_, s)| docs_of(s)).collect();
        assert_eq!(gone.iter().map(Vec::len).sum::<usize>(), ranks.len());
        let deleted: Vec<(Arc<dyn SegmentReader>, Vec<DocId>)> = (segments.iter().zip(&gone))
            .map(|((_, s), docs)| (Arc::clone(s) as _, docs.clone()))
            .collect();
        let names: Vec<_> = segments
            .iter()
            .map(|(_, s)| SegmentName::new(s.name()))
            .collect();
        let all: Vec<(SegmentName, Arc<dyn SegmentReader>)> = (names.iter().zip(&segments))
            .map(|(n, (_, s))| (n.clone(), Arc::clone(s) as _))
            .collect();
        let older = self.keys().older_rows(&deleted, &all).unwrap();
        for (at, (of, segment)) in segments.iter().enumerate() {
            let mut dropped = [&gone[at][..], &older[at][..]].concat();
            dropped.sort_unstable();
            if dropped.is_empty() {
                continue;
            }
            let kept: Vec<DocId> = (0..segment.num_docs())
                .filter(|d| !dropped.contains(d))
                .collect();
            let place = self
                .committed
                .iter()
                .position(|(_, s)| s.name() == segment.name())
                .unwrap();
            let name = &names[at];
            let from = [Arc::clone(segment)];
            let to = self.build(*of, &from, std::slice::from_ref(&kept), &gone[at]);
            let Some(to) = to else {
                self.committed.remove(place);
                self.keys().forget([name].into_iter()).unwrap();
                continue;
            };
            let new = SegmentName::new(to.name());
            let of_segment = Kept {
                rows: segment.num_docs(),
                docs: Some(kept),
            };
            self.keys()
                .begin_move(&new, vec![(name.clone(), of_segment)])
                .unwrap();
            self.take(*of, most);
            if end == End::GivenUp {
                self.take(1 - *of, most);
                self.keys().give_up_move(&new);
                return;
            }
            self.committed[place] = (*of, Arc::clone(&to));
            self.keys().note_moved(std::slice::from_ref(&new));
            self.take(1 - *of, most);
            if end == End::Finished {
                self.finish(&new, &to, *of);
            }
        }
        for (k, rank) in ranks {
            self.deleted.insert(k, rank);
        }
        if end == End::Killed {
            self.open();
        }
    }
}

/// How a statement that deletes ends.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Finished,
    /// With the process, before the keys on disk follow.
    Killed,
    /// Before the metastore knows of it.
    GivenUp,
}

fn random_rows(random: &mut StdRng) -> Vec<Vec<Row>> {
    let messages = random.random_range(0..12);
    let row = |random: &mut StdRng| Row {
        k: random.random_range(0..25),
        at: random.random_bool(0.95).then(|| random.random_range(0..30)),
        gone: random.random_bool(0.3).then(|| random.random_bool(0.4)),
        n: Some(random.random_range(0..1_000_000)),
        ..Row::default()
    };
    (0..messages)
        .map(|_| {
            let rows = if random.random_bool(0.1) { 3 } else { 1 };
            (0..rows).map(|_| row(random)).collect()
        })
        .collect()
}

#[test]
fn each_version_has_the_newest_row_of_each_key_whatever_comes_and_crashes() {
    let seeds = std::env::var("STRANDLINE_KEYS_SEEDS").map_or(12, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let mut table = Table::new(
            r#""upsertConfig": {"mode": "FULL", "deleteRecordColumn": "gone"}"#,
            2,
        );
        let mut pins: Vec<Arc<KeysPin>> = Vec::new();
        for step in 0..60 {
            let of = random.random_range(0..2);
            match random.random_range(0..26) {
                0..12 => {
                    let (rows, most) = (random_rows(&mut random), random.random_range(1..20));
                    table.append(of, rows, most);
                }
                12..16 => table.commit(of, random.random_bool(0.8)),
                16..18 => pins.retain(|_| random.random_bool(0.5)),
                18 => {
                    pins.clear();
                    table.open();
                }
                19 => {
                    pins.clear();
                    table.keys = None;
                    if random.random_bool(0.5) {
                        std::fs::remove_dir_all(table.store()).unwrap();
                    }
                    table.open();
                }
                20 => {
                    // Nobody looks at older versions: their rows are gone.
                    pins.clear();
                    let gone: Vec<i64> = (0..3).map(|_| random.random_range(0..25)).collect();
                    for of in 0..2 {
                        table.stream[of].extend(random_rows(&mut random));
                        let of_gone = gone.iter().map(|k| Row {
                            k: *k,
                            at: Some(random.random_range(0..30)),
                            n: Some(random.random_range(0..1_000_000)),
                            ..Row::default()
                        });
                        let of_gone: Vec<_> = of_gone.map(|row| vec![row]).collect();
                        table.stream[of].extend(of_gone);
                    }
                    let most = [0, 3, 100][random.random_range(0..3)];
                    let end = match random.random_range(0..10) {
                        0..2 => End::Killed,
                        2..4 => End::GivenUp,
                        _ => End::Finished,
                    };
                    table.delete(&gone, most, end);
                }
                _ => {
                    let which = (of, random.random_range(0..3), random.random_range(1..4));
                    let crash = random.random_bool(0.3).then(|| random.random_range(0..3));
                    let (rows, most) = (random_rows(&mut random), random.random_range(1..20));
                    let looked_at = pins.clone();
                    let more = random_rows(&mut random);
                    table.compact(which, crash, more, |table, before| {
                        // What comes meanwhile supersedes rows in both.
                        table.append(of, rows, most);
                        let pin = table.keys().pin().unwrap();
                        let after = table.readers();
                        let mut old = after.clone();
                        let moved = before.iter().filter_map(|(_, s)| s.origin());
                        let moved: Vec<OffsetRange> = moved.map(|(_, range)| range).collect();
                        old.retain(|(p, s)| {
                            let range = s.origin().unwrap().1;
                            *p != of
                                || !moved
                                    .iter()
                                    .any(|m| m.start >= range.start && m.end <= range.end)
                                || s.name().starts_with('s')
                                    && !before.iter().any(|(_, b)| b.name() == s.name())
                        });
                        old.extend(before.iter().cloned());
                        let seen = table.visible_of(&after, &pin);
                        assert_eq!(seen, table.expected(&pin), "seed {seed}, step {step}");
                        for pin in looked_at.iter().chain([&pin]) {
                            let (seen, expected) =
                                (table.visible_of(&old, pin), table.expected(pin));
                            assert_eq!(seen, expected, "seed {seed}, step {step}, before");
                        }
                    });
                    // Who looks at an older version looks at the old segments, which are gone now.
                    pins.clear();
                }
            }
            pins.push(table.keys().pin().unwrap());
            for pin in &pins {
                let (seen, expected) = (table.visible(pin), table.expected(pin));
                assert_eq!(seen, expected, "seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn pushed_segments_come_and_go_and_each_version_has_the_highest_row_of_each_key() {
    let seeds = std::env::var("STRANDLINE_KEYS_SEEDS").map_or(5, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let mut random = StdRng::seed_from_u64(1_000_000 + seed);
        let mut table = Table::new(
            r#""upsertConfig": {"mode": "FULL", "deleteRecordColumn": "gone"}"#,
            2,
        );
        let mut pins: Vec<Arc<KeysPin>> = Vec::new();
        for step in 0..50 {
            let of = random.random_range(0..2);
            match random.random_range(0..24) {
                0..10 => {
                    let (rows, most) = (random_rows(&mut random), random.random_range(1..20));
                    table.append(of, rows, most);
                }
                10..13 => table.commit(of, random.random_bool(0.8)),
                13 => pins.retain(|_| random.random_bool(0.5)),
                14 => {
                    pins.clear();
                    table.open_with_pushed(random.random_bool(0.3));
                }
                15..17 => {
                    let which = (of, random.random_range(0..3), random.random_range(1..4));
                    let crash = random.random_bool(0.3).then(|| random.random_range(0..3));
                    let more = random_rows(&mut random);
                    pins.clear();
                    table.compact(which, crash, more, |_, _| {});
                    table.follow();
                }
                _ => {
                    let segments = random.random_range(0..3);
                    let rows = (0..segments).map(|_| random_rows(&mut random).concat());
                    let rows: Vec<_> = rows.filter(|rows| !rows.is_empty()).collect();
                    let mut set = table.there.clone();
                    set.retain(|_| random.random_bool(0.6));
                    // One that was there before may come again.
                    let earlier = random.random_range(0..=table.pushed.len());
                    if earlier < table.pushed.len() && !set.contains(&earlier) {
                        set.push(earlier);
                    }
                    set.extend(table.build_pushed(rows));
                    let before = table.names(&table.there);
                    for of in 0..2 {
                        let rows = random_rows(&mut random);
                        table.stream[of].extend(rows);
                    }
                    table.prepare(&set, random.random_range(1..4));
                    // Rows come, and are committed, while the change is on its way.
                    for _ in 0..random.random_range(0..4) {
                        let rows = random_rows(&mut random);
                        table.append(random.random_range(0..2), rows, 9);
                        table.commit(random.random_range(0..2), random.random_bool(0.7));
                    }
                    pins.push(table.keys().pin().unwrap());
                    for pin in &pins {
                        let (seen, expected) = (table.visible(pin), table.expected(pin));
                        assert_eq!(seen, expected, "seed {seed}, step {step}, before");
                    }
                    match random.random_range(0..8) {
                        0 => table.keys().give_up(),
                        1 => {
                            pins.clear();
                            table.open_with_pushed(false);
                        }
                        2 => {
                            pins.clear();
                            table.note_set(&set);
                            table.open_with_pushed(random.random_bool(0.2));
                        }
                        3 => {
                            // Only the metastore knows that it is done.
                            pins.clear();
                            table.note_set(&set);
                            table.keys().switch(table.names(&set)).unwrap();
                            table.open_with_pushed(false);
                        }
                        _ => {
                            table.note_set(&set);
                            let names = table.names(&set);
                            table.keys().switch(names).unwrap();
                            let old = table.keys().pin_of(before).unwrap().unwrap();
                            assert_eq!(old.pushed, before);
                            pins.push(old);
                            table.keys().let_go();
                            let now = table.keys().pin_of(names).unwrap().unwrap();
                            assert_eq!(now.pushed, names);
                            let gone = table.keys().pin_of(before);
                            assert!(before == names || gone.is_err());
                        }
                    }
                }
            }
            pins.push(table.keys().pin().unwrap());
            for pin in &pins {
                let (seen, expected) = (table.visible(pin), table.expected(pin));
                assert_eq!(seen, expected, "seed {seed}, step {step}");
            }
        }
    }
}

#[test]
fn the_first_row_of_a_key_is_kept_within_a_window() {
    let mut table = Table::new(
        r#""dedupConfig": {"dedupEnabled": true, "metadataTTL": 100}"#,
        2,
    );
    assert!(table.keys().pin().is_none());
    let row = |k, at, n| {
        vec![Row {
            k,
            at: Some(at),
            n: Some(n),
            ..Row::default()
        }]
    };
    let rows = |table: &Table| {
        let mut all = Vec::new();
        for (_, segment) in table.readers() {
            if segment.num_docs() > 0 {
                let reader = segment.column("n").unwrap();
                let docs = DocSelection::Range(0..segment.num_docs());
                let long = strandline_proto::schema::DataType::Long;
                let values = read_array(&*reader, long, false, docs).unwrap();
                all.extend(values.as_primitive::<Int64Type>().values().iter().copied());
            }
        }
        all.sort_unstable();
        all
    };
    table.append(0, vec![row(1, 10, 1), row(2, 10, 2), row(1, 11, 3)], 9);
    table.append(1, vec![row(2, 12, 4), row(3, 12, 5)], 9);
    assert_eq!(rows(&table), [1, 2, 5]);
    table.commit(0, true);
    table.append(0, vec![row(1, 50, 6), row(3, 50, 7), row(4, 60, 8)], 9);
    assert_eq!(rows(&table), [1, 2, 5, 8]);
    // After a crash, what was not committed is read again, in another order.
    table.open();
    assert_eq!(rows(&table), [1, 2]);
    table.append(0, vec![], 9);
    table.append(1, vec![], 9);
    assert_eq!(rows(&table), [1, 2, 7, 8]);
    // The window has passed: the key is new again.
    table.append(0, vec![row(9, 200, 9), row(1, 201, 10), row(1, 202, 11)], 9);
    assert_eq!(rows(&table), [1, 2, 7, 8, 9, 10]);
    table.commit(0, true);
    table.open();
    // Late rows of keys that were forgotten on disk are new.
    table.append(0, vec![row(1, 203, 12)], 9);
    table.append(1, vec![], 9);
    assert_eq!(rows(&table), [1, 2, 4, 5, 7, 8, 9, 10]);
}

#[test]
fn rows_are_laid_onto_those_before_them_wherever_these_are() {
    let mut table = Table::new(
        r#""upsertConfig": {"mode": "PARTIAL", "deleteRecordColumn": "gone", "partialUpsertStrategies":
            {"n": "INCREMENT", "least": "MIN", "most": "MAX", "tags": "UNION", "kind": "IGNORE"}}"#,
        1,
    );
    let row = |at, n, tags: &[i64], kind: Option<i64>| {
        vec![Row {
            k: 1,
            at: Some(at),
            n,
            kind,
            tags: (!tags.is_empty()).then(|| tags.to_vec()),
            gone: None,
        }]
    };
    let values = |table: &Table| -> HashMap<String, Vec<i64>> {
        let pin = table.keys().pin().unwrap();
        let mut found = HashMap::new();
        for (_, segment) in table.readers().iter().filter(|(_, s)| s.num_docs() > 0) {
            let name = SegmentName::new(segment.name());
            let mut bits = DocBits::new();
            bits.insert_range(0, segment.num_docs());
            if let Some(valid) = table.keys().valid_docs(&name, pin.version).unwrap() {
                valid.retain(0, &mut bits);
            }
            for doc in bits.iter() {
                for column in &table.config.spec.schema.columns {
                    let docs = DocSelection::Range(u32::from(doc)..u32::from(doc) + 1);
                    let reader = segment.column(&column.name).unwrap();
                    let is_list = column.multi_value;
                    let array = read_array(&*reader, column.data_type, is_list, docs).unwrap();
                    let values = match array.as_list_opt::<i32>() {
                        Some(list) if list.is_valid(0) => list.value(0),
                        Some(_) => continue,
                        None => array,
                    };
                    if let Some(longs) = values.as_primitive_opt::<Int64Type>() {
                        let longs = longs.iter().flatten().collect();
                        let before = found.insert(column.name.clone(), longs);
                        assert!(before.is_none(), "one row counts");
                    }
                }
            }
        }
        found
    };
    let of = |values: &HashMap<String, Vec<i64>>| {
        ["n", "least", "most", "tags", "kind", "at"].map(|name| values[name].clone())
    };
    // Two in one batch, then one onto a row in memory, then one onto a committed row.
    table.append(
        0,
        vec![
            row(1, Some(5), &[1, 2], None),
            row(2, Some(3), &[2, 3], Some(7)),
        ],
        9,
    );
    let expected = [vec![8], vec![3], vec![5], vec![1, 2, 3], vec![7], vec![2]];
    assert_eq!(of(&values(&table)), expected);
    table.append(0, vec![row(3, None, &[], Some(8))], 9);
    let expected = [vec![8], vec![3], vec![5], vec![1, 2, 3], vec![7], vec![3]];
    assert_eq!(of(&values(&table)), expected);
    table.commit(0, true);
    table.open();
    // A late row changes nothing; the next one goes on from where the key was.
    table.append(
        0,
        vec![row(1, Some(100), &[9], None), row(4, Some(10), &[4], None)],
        9,
    );
    let expected = [
        vec![18],
        vec![3],
        vec![10],
        vec![1, 2, 3, 4],
        vec![7],
        vec![4],
    ];
    assert_eq!(of(&values(&table)), expected);
    // Nothing is left of a deleted key.
    let mut deleted = row(5, None, &[], None);
    deleted[0].gone = Some(true);
    table.append(0, vec![deleted], 9);
    assert!(values(&table).is_empty());
    table.append(0, vec![row(6, Some(1), &[1], Some(1))], 9);
    let expected = [vec![1], vec![1], vec![1], vec![1], vec![1], vec![6]];
    assert_eq!(of(&values(&table)), expected);
}

/// A message with a row of one key, and nothing between such rows but `n`.
fn of_one_key(n: i64) -> Vec<Vec<Row>> {
    vec![vec![Row {
        k: 1,
        at: Some(1),
        n: Some(n),
        ..Row::default()
    }]]
}

#[test]
fn a_version_that_nobody_looks_at_is_gone() {
    let mut table = Table::new(r#""upsertConfig": {"mode": "FULL"}"#, 1);
    table.append(0, of_one_key(1), 9);
    let version = table.keys().pin().unwrap().version;
    table.append(0, of_one_key(2), 9);
    table.append(0, of_one_key(3), 9);
    let name = table.consuming[0].name().clone();
    let error = table.keys().valid_docs(&name, version).err().unwrap();
    assert_eq!(error.kind(), strandline_proto::ErrorKind::SegmentGone);
    let docs = table.keys().docs(&name).unwrap();
    assert_eq!(docs.superseded(), 2);
    // A key whose segment has gone is new when it comes again.
    table.commit(0, true);
    let gone = SegmentName::new(table.committed.remove(0).1.name());
    table.keys().forget([&gone].into_iter()).unwrap();
    table.append(0, of_one_key(4), 9);
    let pin = table.keys().pin().unwrap();
    assert_eq!(table.visible(&pin), [(1, Some(1), Some(4))]);
}

#[test]
fn what_segments_remember_of_deleted_keys_is_read_by_later_versions() {
    let mut table = Table::new(r#""upsertConfig": {"mode": "FULL"}"#, 1);
    table.append(0, of_one_key(1), 9);
    table.commit(0, true);
    let segment = Arc::clone(&table.committed[0].1);
    let name = SegmentName::new(segment.name());
    let remembered = table.keys().remembered(&name, &*segment, &[0]).unwrap();
    // They are in segments for good: other bytes for the same values would have late rows count.
    let expected = DeletedKey {
        key: 0x7c78220b9cf492540868df70da9e8bc0_u128.to_le_bytes(),
        comparison: [1, 128, 0, 0, 0, 0, 0, 0, 1].into_iter().collect(),
        offset: 0,
        time: 0,
    };
    assert_eq!(remembered, [expected]);
}

#[test]
fn a_row_that_is_about_to_be_deleted_is_there_until_it_is() {
    for is_made in [false, true] {
        let mut table = Table::new(r#""upsertConfig": {"mode": "FULL"}"#, 1);
        table.append(0, of_one_key(1), 9);
        table.commit(0, true);
        let segment = Arc::clone(&table.committed[0].1);
        let to = table.build(0, &[Arc::clone(&segment)], &[vec![]], &[0]);
        let to = SegmentName::new(to.unwrap().name());
        let none = Kept {
            rows: 1,
            docs: Some(Vec::new()),
        };
        let from = vec![(SegmentName::new(segment.name()), none)];
        table.keys().begin_move(&to, from).unwrap();
        if is_made {
            table.keys().note_moved(std::slice::from_ref(&to));
        }
        table.append(0, of_one_key(2), 9);
        let pin = table.keys().pin().unwrap();
        // Of who looks at the segment that it was in.
        assert_eq!(table.visible(&pin), [(1, Some(1), Some(2))]);
        table.keys().give_up_move(&to);
    }
}

#[test]
fn what_a_segment_that_cannot_be_read_supersedes_does_not_count() {
    let of = |at: i64| {
        let mut messages = of_one_key(at);
        messages[0][0].at = Some(at);
        messages
    };
    let mut table = Table::new(r#""upsertConfig": {"mode": "FULL"}"#, 1);
    table.append(0, of(1), 9);
    table.commit(0, true);
    table.append(0, of(5), 9);
    table.commit(0, true);
    table.open_without(1);
    table.append(0, of(4), 9);
    table.commit(0, true);
    for (_, segment) in [&table.committed[0], &table.committed[2]] {
        let docs = table.keys().docs(&SegmentName::new(segment.name()));
        assert_eq!(docs.unwrap().superseded(), 1);
    }
    table.open();
    let pin = table.keys().pin().unwrap();
    assert_eq!(table.visible(&pin), [(1, Some(5), Some(5))]);
}

#[test]
fn keys_that_were_hashed_with_another_secret_are_made_again() {
    let mut table = Table::new(r#""upsertConfig": {"mode": "FULL"}"#, 1);
    table.append(0, of_one_key(1), 9);
    table.commit(0, true);
    table.keys = None;
    drop(KeyStore::open(&table.store(), 8 << 20, [8; 16]).unwrap());
    table.open();
    table.append(0, of_one_key(2), 9);
    let pin = table.keys().pin().unwrap();
    assert_eq!(table.visible(&pin), [(1, Some(1), Some(2))]);
}

#[test]
fn a_store_that_failed_is_opened_again_and_has_what_it_took() {
    let mut table = Table::new(r#""upsertConfig": {"mode": "FULL"}"#, 1);
    table.append(0, of_one_key(1), 9);
    table.commit(0, true);
    let store = Arc::clone(&table.keys.as_ref().unwrap().0);
    store.open_again();
    table.append(0, of_one_key(2), 9);
    let pin = table.keys().pin().unwrap();
    assert_eq!(table.visible(&pin), [(1, Some(1), Some(2))]);
    // While it can't be opened, rows wait.
    let moved = table.store().with_extension("away");
    std::fs::rename(table.store(), &moved).unwrap();
    std::fs::write(table.store(), "in the way").unwrap();
    store.open_again();
    let segment = Arc::clone(&table.consuming[0]);
    let new = batch(
        &table.config.spec.schema,
        &[Row {
            k: 2,
            ..Row::default()
        }],
    );
    let append = |table: &Table| {
        let rows = (&new, &[2_u64][..], 3);
        table.keys().append(&segment, 0, rows, &Places(table))
    };
    assert!(append(&table).is_err());
    std::fs::remove_file(table.store()).unwrap();
    std::fs::rename(&moved, table.store()).unwrap();
    assert!(append(&table).is_err());
    append(&table).unwrap();
    assert_eq!(table.visible(&table.keys().pin().unwrap()).len(), 2);
}
