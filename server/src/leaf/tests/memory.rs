//! Segments of plain vectors: each index the slow and obvious way, placeholders of nulls included.

use crate::leaf::SegmentHost;
use crate::leaf::compare::scalar_of;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use strandline_broker::transport::Watermarks;
use strandline_index::*;
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::ids::{Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::leaf::{SegmentTask, TailTask};
use strandline_proto::schema::Column;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};
use strandline_storage::segment::arrow::physical_type;
use strandline_storage::segment::{SegmentReader, ValidDocs};

/// How a column is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage {
    pub(super) dictionary: bool,
    pub(super) sorted_dictionary: bool,
    pub(super) inverted: bool,
    pub(super) range: bool,
    pub(super) bloom: bool,
    /// Stored segments only, of single-value text.
    pub(super) json: bool,
    /// A text index, and an FST index of a dictionary.
    pub(super) text: bool,
}

pub(super) struct MemoryColumn {
    physical: PhysicalType,
    multi_value: bool,
    /// Documents are in the order of their values.
    sorted: bool,
    storage: Storage,
    /// Elements of each document; none: null.
    docs: Vec<Option<Vec<Option<Scalar<'static>>>>>,
    dictionary: Option<MemoryDictionary>,
}

struct MemoryDictionary {
    physical: PhysicalType,
    sorted: bool,
    values: Vec<Scalar<'static>>,
    postings: Vec<Vec<DocId>>,
}

impl MemoryColumn {
    pub(super) fn new(column: &Column, values: &[Value], storage: Storage) -> Self {
        let physical = physical_type(column.data_type);
        let scalar = |v: &Value| (!v.is_null()).then(|| scalar_of(v, column.data_type).unwrap());
        let docs: Vec<_> = values
            .iter()
            .map(|value| match value {
                Value::Null => None,
                Value::List(elements) => Some(elements.iter().map(scalar).collect()),
                single => Some(vec![scalar(single)]),
            })
            .collect();
        let mut this = Self {
            physical,
            multi_value: column.multi_value,
            sorted: false,
            storage,
            docs,
            dictionary: None,
        };
        if storage.dictionary {
            let mut values: Vec<Scalar<'static>> = Vec::new();
            for doc in 0..this.docs.len() {
                for value in this.stored(doc as DocId) {
                    if !values.iter().any(|v| v.total_cmp(&value).is_eq()) {
                        values.push(value);
                    }
                }
            }
            if storage.sorted_dictionary {
                values.sort_by(|a, b| a.total_cmp(b));
            }
            let mut postings = vec![Vec::new(); values.len()];
            for doc in 0..this.docs.len() as DocId {
                for value in this.stored(doc) {
                    let id = values
                        .iter()
                        .position(|v| v.total_cmp(&value).is_eq())
                        .unwrap();
                    if postings[id].last() != Some(&doc) {
                        postings[id].push(doc);
                    }
                }
            }
            this.dictionary = Some(MemoryDictionary {
                physical,
                sorted: storage.sorted_dictionary,
                values,
                postings,
            });
        }
        let nulls = this.docs.iter().any(Option::is_none);
        this.sorted = !column.multi_value
            && !nulls
            && storage.sorted_dictionary
            && storage.dictionary
            && (1..this.docs.len()).all(|d| {
                this.stored(d as u32 - 1)[0]
                    .total_cmp(&this.stored(d as u32)[0])
                    .is_le()
            });
        this
    }

    /// What the forward index holds for a document.
    fn stored(&self, doc: DocId) -> Vec<Scalar<'static>> {
        let zero = || Scalar::placeholder(self.physical);
        match &self.docs[doc as usize] {
            None if self.multi_value => Vec::new(),
            None => vec![zero()],
            Some(elements) => elements
                .iter()
                .map(|e| e.clone().unwrap_or_else(zero))
                .collect(),
        }
    }

    fn id(&self, value: &Scalar<'_>) -> DictId {
        self.dictionary.as_ref().unwrap().id_of(value).unwrap()
    }
}

fn each(docs: &DocSelection<'_>, mut f: impl FnMut(DocId)) {
    match docs {
        DocSelection::Range(range) => range.clone().for_each(&mut f),
        DocSelection::Docs(docs) => docs.iter().for_each(|&d| f(d)),
    }
}

impl Dictionary for MemoryDictionary {
    fn len(&self) -> u32 {
        self.values.len() as u32
    }
    fn physical(&self) -> PhysicalType {
        self.physical
    }
    fn is_sorted(&self) -> bool {
        self.sorted
    }
    fn id_of(&self, value: &Scalar<'_>) -> Option<DictId> {
        self.values
            .iter()
            .position(|v| v.total_cmp(value).is_eq())
            .map(|id| id as DictId)
    }
    fn value(&self, id: DictId) -> Scalar<'_> {
        self.values[id as usize].clone()
    }
    fn gather(&self, ids: &[DictId], out: &mut ValueBuffer) {
        ids.iter().for_each(|&id| {
            out.push(&self.values[id as usize]);
        });
    }
    fn range(
        &self,
        low: Option<(&Scalar<'_>, bool)>,
        high: Option<(&Scalar<'_>, bool)>,
    ) -> Range<DictId> {
        assert!(self.sorted, "only sorted dictionaries have ranges");
        let ids: Vec<_> = (0..self.len())
            .filter(|&id| between(&self.values[id as usize], low, high))
            .collect();
        ids.first()
            .map_or(0..0, |&first| first..ids[ids.len() - 1] + 1)
    }
}

fn between(
    value: &Scalar<'_>,
    low: Option<(&Scalar<'_>, bool)>,
    high: Option<(&Scalar<'_>, bool)>,
) -> bool {
    let above = low.is_none_or(|(l, included)| {
        value.total_cmp(l).is_gt() || included && value.total_cmp(l).is_eq()
    });
    above
        && high.is_none_or(|(h, included)| {
            value.total_cmp(h).is_lt() || included && value.total_cmp(h).is_eq()
        })
}

impl Postings for MemoryDictionary {
    fn fill(&self, id: DictId, chunk: u32, out: &mut DocBits) {
        for &doc in self.postings[id as usize]
            .iter()
            .filter(|&&d| d / CHUNK_DOCS == chunk)
        {
            out.insert((doc % CHUNK_DOCS) as u16);
        }
    }
    fn count(&self, id: DictId) -> u64 {
        self.postings[id as usize].len() as u64
    }
}

impl ColumnReader for MemoryColumn {
    fn physical(&self) -> PhysicalType {
        self.physical
    }
    fn is_multi_value(&self) -> bool {
        self.multi_value
    }
    fn num_docs(&self) -> u32 {
        self.docs.len() as u32
    }
    fn dictionary(&self) -> Option<&dyn Dictionary> {
        self.dictionary.as_ref().map(|d| d as &dyn Dictionary)
    }
    fn is_sorted(&self) -> bool {
        self.sorted
    }
    fn has_nulls(&self) -> bool {
        self.docs.iter().any(Option::is_none)
    }
    fn null_bits(&self, chunk: u32, out: &mut DocBits) {
        for (doc, _) in self
            .docs
            .iter()
            .enumerate()
            .filter(|(d, v)| v.is_none() && *d as u32 / CHUNK_DOCS == chunk)
        {
            out.insert((doc as u32 % CHUNK_DOCS) as u16);
        }
    }
    fn null_elements(&self, docs: DocSelection<'_>, out: &mut Vec<bool>) {
        if self.docs.iter().flatten().flatten().any(Option::is_none) {
            each(&docs, |doc| {
                out.extend(
                    self.docs[doc as usize]
                        .iter()
                        .flatten()
                        .map(Option::is_none),
                )
            });
        }
    }
    fn dict_ids(&self, docs: DocSelection<'_>, out: &mut Vec<DictId>) {
        each(&docs, |doc| out.push(self.id(&self.stored(doc)[0])));
    }
    fn values(&self, docs: DocSelection<'_>, out: &mut ValueBuffer) {
        each(&docs, |doc| {
            out.push(&self.stored(doc)[0]);
        });
    }
    fn multi_dict_ids(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, ids: &mut Vec<DictId>) {
        each(&docs, |doc| {
            ids.extend(self.stored(doc).iter().map(|v| self.id(v)));
            ends.push(ids.len() as u32);
        });
    }
    fn multi_values(&self, docs: DocSelection<'_>, ends: &mut Vec<u32>, values: &mut ValueBuffer) {
        each(&docs, |doc| {
            self.stored(doc).iter().for_each(|v| {
                values.push(v);
            });
            ends.push(values.len() as u32);
        });
    }
    fn sorted_docs(&self, ids: Range<DictId>) -> Option<Range<DocId>> {
        self.sorted.then(|| {
            let docs: Vec<_> = (0..self.num_docs())
                .filter(|&d| ids.contains(&self.id(&self.stored(d)[0])))
                .collect();
            docs.first()
                .map_or(0..0, |&first| first..docs[docs.len() - 1] + 1)
        })
    }
    fn inverted(&self) -> Option<&dyn Postings> {
        self.dictionary
            .as_ref()
            .filter(|_| self.storage.inverted)
            .map(|d| d as &dyn Postings)
    }
    fn range_fill(
        &self,
        low: Option<(&Scalar<'_>, bool)>,
        high: Option<(&Scalar<'_>, bool)>,
        chunk: u32,
        out: &mut DocBits,
    ) -> bool {
        if self.storage.range {
            for doc in (0..self.num_docs()).filter(|d| d / CHUNK_DOCS == chunk) {
                if self.stored(doc).iter().any(|v| between(v, low, high)) {
                    out.insert((doc % CHUNK_DOCS) as u16);
                }
            }
        }
        self.storage.range
    }
    fn has_range_index(&self) -> bool {
        self.storage.range
    }
    fn may_contain(&self, value: &Scalar<'_>) -> bool {
        !self.storage.bloom
            || (0..self.num_docs())
                .any(|d| self.stored(d).iter().any(|v| v.total_cmp(value).is_eq()))
    }
}

pub(super) struct MemorySegment {
    pub(super) name: String,
    pub(super) docs: u32,
    pub(super) columns: HashMap<String, Arc<dyn ColumnReader>>,
    pub(super) origin: Option<(StreamPartition, OffsetRange)>,
    pub(super) invalid: Option<Vec<DocId>>,
}

impl SegmentReader for MemorySegment {
    fn name(&self) -> &str {
        &self.name
    }
    fn num_docs(&self) -> u32 {
        self.docs
    }
    fn column(&self, name: &str) -> Option<Arc<dyn ColumnReader>> {
        self.columns.get(name).cloned()
    }
    fn origin(&self) -> Option<(&StreamPartition, OffsetRange)> {
        self.origin
            .as_ref()
            .map(|(partition, range)| (partition, *range))
    }
    fn offsets(&self, docs: DocSelection<'_>, out: &mut Vec<i64>) {
        if let Some((_, range)) = &self.origin {
            each(&docs, |doc| out.push((range.start + u64::from(doc)) as i64));
        }
    }
    fn valid_docs(&self) -> Option<Arc<dyn ValidDocs>> {
        self.invalid
            .clone()
            .map(|docs| Arc::new(Invalid(docs)) as Arc<dyn ValidDocs>)
    }
}

struct Invalid(Vec<DocId>);

impl ValidDocs for Invalid {
    fn retain(&self, chunk: u32, bits: &mut DocBits) {
        let mut gone = DocBits::new();
        self.0
            .iter()
            .filter(|&&d| d / CHUNK_DOCS == chunk)
            .for_each(|&d| gone.insert((d % CHUNK_DOCS) as u16));
        bits.and_not(&gone);
    }
}

/// Segments by name, and one tail that is all segments of the realtime half without a name in the tasks.
#[derive(Default)]
pub(super) struct MemoryHost {
    pub(super) segments: Vec<(Half, Arc<dyn SegmentReader>)>,
    pub(super) tails: Vec<Arc<dyn SegmentReader>>,
}

impl std::fmt::Debug for MemoryHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryHost")
    }
}

impl MemoryHost {
    pub(super) fn tasks(&self) -> Vec<SegmentTask> {
        let task = |(half, segment): &(Half, Arc<dyn SegmentReader>)| SegmentTask {
            name: SegmentName::new(segment.name()),
            checksum: 1,
            half: *half,
            schema_version: 1,
        };
        self.segments.iter().map(task).collect()
    }

    pub(super) fn tail_tasks(&self) -> Vec<TailTask> {
        let partition = StreamPartition {
            stream: "log".into(),
            topic: "t".into(),
            partition: 3,
        };
        if self.tails.is_empty() {
            Vec::new()
        } else {
            vec![TailTask {
                partition,
                from_offset: 0,
                to_offset: 1 << 40,
            }]
        }
    }
}

impl SegmentHost for MemoryHost {
    fn segment(
        &self,
        _: &str,
        task: &SegmentTask,
        _: Option<u64>,
    ) -> Result<Arc<dyn SegmentReader>> {
        let found = self
            .segments
            .iter()
            .find(|(_, s)| s.name() == task.name.as_str() && task.checksum == 1);
        found
            .map(|(_, s)| Arc::clone(s))
            .ok_or_else(|| Error::segment_gone(format!("no segment {}", task.name)))
    }
    fn tail(&self, _: &str, _: &TailTask, _: Option<u64>) -> Result<Vec<Arc<dyn SegmentReader>>> {
        Ok(self.tails.clone())
    }
    fn watermarks(&self, _: &TableSnapshot) -> Result<Watermarks> {
        Ok(Watermarks::default())
    }
}
