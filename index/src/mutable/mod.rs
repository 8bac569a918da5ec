//! A consuming column: append-only, one writer at a time, readers that never wait.
//!
//! Values and ids are appended to storage that never moves; the number of rows is published last, so a
//! reader that takes the number first sees everything below it. [`MutableColumn::view`] pins a view at a
//! number of rows; it reads the same rows for as long as it is held, whatever is appended meanwhile.
//!
//! ```
//! use strandline_index::column::ColumnData;
//! use strandline_index::mutable::{MutableColumn, MutableOptions};
//! use strandline_index::{ColumnReader, DocSelection, PhysicalType, ValueBuffer};
//!
//! let column = MutableColumn::new(PhysicalType::I32, false, MutableOptions { dictionary: true, inverted: true })?;
//! column.append(&ColumnData::single(&ValueBuffer::I32(vec![5, 9])))?;
//! let view = column.view(2);
//! column.append(&ColumnData::single(&ValueBuffer::I32(vec![5])))?;
//! let mut values = ValueBuffer::new(PhysicalType::I32);
//! view.values(DocSelection::Range(0..view.num_docs()), &mut values);
//! assert_eq!(values, ValueBuffer::I32(vec![5, 9]));
//! # Ok::<(), strandline_index::IndexError>(())
//! ```

mod append_vec;
mod dictionary;
mod null_bits;
mod postings;
mod value_log;
mod view;

use crate::column::ColumnData;
use crate::doc_bits::{CHUNK_DOCS, DocBits};
use crate::kernels::select_id_range;
use crate::reader::{ColumnReader, DictId, DocId, IndexError, PhysicalType, ValueBuffer};
use crate::wire::corrupt;
use append_vec::{AppendVec, AppendWriter};
pub(crate) use dictionary::DictionaryWriter;
pub(crate) use dictionary::MutableDictionary;
use null_bits::NullBits;
use postings::{Piece, PieceList};
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use value_log::{ValueLog, ValueLogWriter};
use view::MutableView;

/// Documents after which the dictionary's length is noted again.
const CHECKPOINT_DOCS: u32 = 1024;

/// How a consuming column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MutableOptions {
    /// A dictionary and ids; otherwise raw values.
    pub dictionary: bool,
    /// An inverted index; needs a dictionary.
    pub inverted: bool,
}

impl Default for MutableOptions {
    /// A dictionary and no inverted index.
    fn default() -> Self {
        Self {
            dictionary: true,
            inverted: false,
        }
    }
}

/// Documents of a single-value text column, none null, whose texts stand apart, each once.
#[derive(Clone, Copy, Debug)]
pub struct KeyedTexts<'a> {
    /// The texts; not all of them need be held by a document.
    pub texts: &'a ValueBuffer,
    /// For each document the text that it holds.
    pub keys: &'a [u32],
}

/// A column that grows.
pub struct MutableColumn {
    shared: Arc<Shared>,
    /// Appends take turns; readers don't come here.
    writer: Mutex<Writer>,
}

/// What a document or an element holds.
enum Store {
    Ids {
        ids: Arc<AppendVec<DictId>>,
        dictionary: Arc<MutableDictionary>,
    },
    Raw(ValueLog),
}

/// What readers see.
struct Shared {
    physical: PhysicalType,
    store: Store,
    /// Multi-value: for each document the end of its elements.
    list_ends: Option<Arc<AppendVec<u32>>>,
    null_docs: NullBits,
    null_elements: NullBits,
    pieces: Option<PieceList>,
    /// Documents and the dictionary's length after them, now and then.
    checkpoints: Arc<AppendVec<[u32; 2]>>,
    bounds: Bounds,
    /// Published last.
    docs: AtomicU32,
}

/// The least and the greatest whole number of a single-value column, nulls apart; widened before the documents that need
/// it are published.
struct Bounds {
    min: AtomicI64,
    max: AtomicI64,
}

impl Bounds {
    fn new() -> Self {
        Self {
            min: AtomicI64::new(i64::MAX),
            max: AtomicI64::new(i64::MIN),
        }
    }

    fn widen(&self, data: &ColumnData<'_>) {
        if data.list_ends.is_some() {
            return;
        }
        match data.values {
            ValueBuffer::I32(values) => self.widen_by(values, data.null_docs),
            ValueBuffer::I64(values) => self.widen_by(values, data.null_docs),
            _ => {}
        }
    }

    /// `null_docs` are ascending; what stands in their place is no value.
    fn widen_by<T: Copy + Ord + Into<i64>>(&self, values: &[T], null_docs: &[DocId]) {
        let mut start = 0;
        for end in null_docs
            .iter()
            .map(|&doc| doc as usize)
            .chain([values.len()])
        {
            let run = values.get(start..end).unwrap_or_default();
            if let (Some(&min), Some(&max)) = (run.iter().min(), run.iter().max()) {
                self.min.fetch_min(min.into(), Ordering::Relaxed);
                self.max.fetch_max(max.into(), Ordering::Relaxed);
            }
            start = end + 1;
        }
    }

    fn get(&self) -> Option<(i64, i64)> {
        let bounds = (
            self.min.load(Ordering::Relaxed),
            self.max.load(Ordering::Relaxed),
        );
        (bounds.0 <= bounds.1).then_some(bounds)
    }
}

enum StoreWriter {
    Ids {
        ids: AppendWriter<DictId>,
        dictionary: DictionaryWriter,
    },
    Raw(ValueLogWriter),
}

struct Writer {
    store: StoreWriter,
    list_ends: Option<AppendWriter<u32>>,
    checkpoints: AppendWriter<[u32; 2]>,
    checkpoint_docs: u32,
    /// Values or elements so far.
    values: u32,
    /// Ids of the batch at hand.
    batch: Vec<DictId>,
}

impl MutableColumn {
    /// An empty column.
    ///
    /// # Errors
    /// When an inverted index is asked for without a dictionary.
    pub fn new(
        physical: PhysicalType,
        multi_value: bool,
        options: MutableOptions,
    ) -> Result<Self, IndexError> {
        if options.inverted && !options.dictionary {
            return Err(corrupt(
                "not supported: an inverted index on a column without a dictionary",
            ));
        }
        let (store_writer, store) = if options.dictionary {
            let (id_writer, ids) = AppendVec::new();
            let (writer, dictionary) = MutableDictionary::new(physical);
            (
                StoreWriter::Ids {
                    ids: id_writer,
                    dictionary: writer,
                },
                Store::Ids { ids, dictionary },
            )
        } else {
            let (writer, values) = ValueLog::new(physical);
            (StoreWriter::Raw(writer), Store::Raw(values))
        };
        let (end_writer, list_ends) = multi_value.then(AppendVec::new).unzip();
        let (checkpoint_writer, checkpoints) = AppendVec::new();
        let shared = Shared {
            physical,
            store,
            list_ends,
            null_docs: NullBits::default(),
            null_elements: NullBits::default(),
            pieces: options.inverted.then(PieceList::default),
            checkpoints,
            bounds: Bounds::new(),
            docs: AtomicU32::new(0),
        };
        let writer = Writer {
            store: store_writer,
            list_ends: end_writer,
            checkpoints: checkpoint_writer,
            checkpoint_docs: 0,
            values: 0,
            batch: Vec::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            writer: Mutex::new(writer),
        })
    }

    /// Checks that `data` can be appended: its parts fit each other and the column, and there is room.
    ///
    /// A segment checks all of its columns before it appends to the first, so that they stay of one length.
    ///
    /// # Errors
    /// When it can't.
    pub fn check(&self, data: &ColumnData<'_>) -> Result<(), IndexError> {
        data.check()?;
        if data.values.physical() != self.shared.physical {
            let (values, column) = (data.values.physical(), self.shared.physical);
            return Err(corrupt(format!(
                "values of type {values:?} for a column of type {column:?}"
            )));
        }
        if data.list_ends.is_some() != self.shared.list_ends.is_some() {
            return Err(corrupt(
                "lists for a single-value column, or single values for a multi-value one",
            ));
        }
        self.check_room(data.values.len(), data.num_docs())
    }

    /// As [`MutableColumn::check`], for keyed texts, which the column must have a dictionary for.
    ///
    /// # Errors
    /// When they can't be appended.
    pub fn check_keyed(&self, data: &KeyedTexts<'_>) -> Result<(), IndexError> {
        let has_dictionary = matches!(self.shared.store, Store::Ids { .. });
        let is_text = self.shared.physical == PhysicalType::Bytes
            && data.texts.physical() == PhysicalType::Bytes;
        if !has_dictionary || !is_text || self.shared.list_ends.is_some() {
            return Err(corrupt(
                "keyed texts are for single-value text columns with a dictionary",
            ));
        }
        if let Some(key) = data
            .keys
            .iter()
            .find(|&&key| key as usize >= data.texts.len())
        {
            return Err(corrupt(format!("key {key} of {} texts", data.texts.len())));
        }
        self.check_room(data.keys.len(), data.keys.len())
    }

    fn check_room(&self, values: usize, docs: usize) -> Result<(), IndexError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let values = u64::from(writer.values) + values as u64;
        let docs = u64::from(self.num_docs()) + docs as u64;
        if values >= u64::from(u32::MAX) || docs >= u64::from(u32::MAX) {
            return Err(corrupt(
                "more than 4 billion values in one segment; seal segments earlier",
            ));
        }
        Ok(())
    }

    /// Appends documents and publishes them.
    ///
    /// # Errors
    /// When [`MutableColumn::check`] fails; nothing is appended then.
    pub fn append(&self, data: &ColumnData<'_>) -> Result<(), IndexError> {
        self.check(data)?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = &mut *writer;
        let shared = &*self.shared;
        let base = shared.docs.load(Ordering::Relaxed);
        match &mut writer.store {
            StoreWriter::Ids { ids, dictionary } => {
                writer.batch.clear();
                dictionary.intern(data.values, &mut writer.batch)?;
                ids.extend(&writer.batch);
            }
            StoreWriter::Raw(values) => values.extend(data.values),
        }
        shared.bounds.widen(data);
        shared.null_docs.insert(base, data.null_docs);
        shared
            .null_elements
            .insert(writer.values, data.null_elements);
        if let (Some(list_ends), Some(ends)) = (&mut writer.list_ends, data.list_ends) {
            let ends: Vec<u32> = ends.iter().map(|end| end + writer.values).collect();
            list_ends.extend(&ends);
        }
        shared.publish(
            writer,
            data.values.len() as u32,
            base + data.num_docs() as u32,
        );
        Ok(())
    }

    /// Appends documents by keys and publishes them. `known` is for the column's own use: empty at first, and whenever
    /// `data.texts` are others than the last time.
    ///
    /// # Errors
    /// When [`MutableColumn::check_keyed`] fails; nothing is appended then.
    pub fn append_keyed(
        &self,
        data: &KeyedTexts<'_>,
        known: &mut Vec<DictId>,
    ) -> Result<(), IndexError> {
        self.check_keyed(data)?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = &mut *writer;
        let docs = data.keys.len() as u32;
        let base = self.shared.docs.load(Ordering::Relaxed);
        if let StoreWriter::Ids { ids, dictionary } = &mut writer.store {
            writer.batch.clear();
            dictionary.intern_keyed(data.texts, data.keys, known, &mut writer.batch)?;
            ids.extend(&writer.batch);
        }
        self.shared.publish(writer, docs, base + docs);
        Ok(())
    }

    /// Whether values are held once each, by ids.
    pub fn has_dictionary(&self) -> bool {
        matches!(self.shared.store, Store::Ids { .. })
    }

    /// Documents that are published.
    pub fn num_docs(&self) -> u32 {
        self.shared.docs.load(Ordering::Acquire)
    }

    /// A view of the first `docs` documents, or of all that are published when these are fewer.
    pub fn view(&self, docs: u32) -> Arc<dyn ColumnReader> {
        let docs = docs.min(self.num_docs());
        Arc::new(MutableView::new(self.shared.clone(), docs))
    }

    /// Bounds of the values, nulls apart, of a single-value column of whole numbers: those of all published documents lie
    /// within. Rows of a batch under way may have widened them already.
    pub fn bounds(&self) -> Option<(i64, i64)> {
        self.shared.bounds.get()
    }

    /// Bytes of memory that values, dictionary, nulls and postings take.
    pub fn bytes(&self) -> usize {
        let shared = &self.shared;
        let store = match &shared.store {
            Store::Ids { ids, dictionary } => ids.bytes() + dictionary.bytes(),
            Store::Raw(values) => values.bytes(),
        };
        let lists = shared.list_ends.as_ref().map_or(0, |ends| ends.bytes());
        let pieces = shared.pieces.as_ref().map_or(0, PieceList::bytes);
        store
            + lists
            + pieces
            + shared.null_docs.bytes()
            + shared.null_elements.bytes()
            + shared.checkpoints.bytes()
    }
}

impl Shared {
    /// Shows readers what was written: `values` more, `docs` documents now.
    fn publish(&self, writer: &mut Writer, values: u32, docs: u32) {
        writer.values += values;
        if let StoreWriter::Ids { dictionary, .. } = &writer.store
            && docs - writer.checkpoint_docs >= CHECKPOINT_DOCS
        {
            writer.checkpoints.extend(&[[docs, dictionary.len()]]);
            writer.checkpoint_docs = docs;
        }
        if let Some(pieces) = &self.pieces {
            pieces.seal(docs, |docs| self.piece(docs));
        }
        self.docs.store(docs, Ordering::Release);
    }

    /// Where the elements of `doc` begin; in a single-value column documents are their own elements.
    fn list_start(&self, doc: DocId) -> u32 {
        match (&self.list_ends, (doc as usize).checked_sub(1)) {
            (None, _) => doc,
            (Some(_), None) => 0,
            (Some(ends), Some(before)) => ends.get(before).unwrap_or(0),
        }
    }

    /// Calls `sink` with every id of `docs` that is not null, and its document.
    fn for_pairs(&self, docs: Range<DocId>, mut sink: impl FnMut(DictId, DocId)) {
        let Store::Ids { ids, .. } = &self.store else {
            return;
        };
        let values = self.list_start(docs.start)..self.list_start(docs.end);
        let nulls = if self.list_ends.is_some() {
            &self.null_elements
        } else {
            &self.null_docs
        };
        let any_null = nulls.any(values.end);
        let mut null_bits = None;
        let mut doc = docs.start;
        let mut end = self.list_start(doc + 1);
        let mut position = values.start;
        for slice in ids.slices(values.start as usize..values.end as usize) {
            for &id in slice {
                while position >= end && doc + 1 < docs.end {
                    doc += 1;
                    end = self.list_start(doc + 1);
                }
                if !any_null || !nulls.contains(position, values.end, &mut null_bits) {
                    sink(id, doc);
                }
                position += 1;
            }
        }
    }

    /// Adds the documents of `docs`, which lie in one chunk, that hold `id`.
    fn scan(&self, id: DictId, docs: Range<DocId>, out: &mut DocBits) {
        let (Store::Ids { ids, .. }, None) = (&self.store, &self.list_ends) else {
            return self.for_pairs(docs, |found, doc| {
                if found == id {
                    out.insert(doc as u16);
                }
            });
        };
        let mut start = docs.start % CHUNK_DOCS;
        for slice in ids.slices(docs.start as usize..docs.end as usize) {
            select_id_range(slice, id..id.saturating_add(1), start, out);
            start += slice.len() as u32;
        }
    }

    fn piece(&self, docs: Range<DocId>) -> Piece {
        if let (Store::Ids { ids, .. }, None) = (&self.store, &self.list_ends)
            && !self.null_docs.any(docs.end)
        {
            let held: Vec<_> = ids.slices(docs.start as usize..docs.end as usize).collect();
            let largest = held.iter().filter_map(|ids| ids.iter().max()).max();
            let len = largest.map_or(0, |&id| id as usize + 1);
            if len <= docs.len() {
                return Piece::counted(docs, &held, len);
            }
        }
        let mut pairs = Vec::with_capacity(docs.len());
        self.for_pairs(docs.clone(), |id, doc| {
            pairs.push(u64::from(id) << 32 | u64::from(doc))
        });
        Piece::new(docs, pairs)
    }

    /// How long the dictionary was after the first `docs` documents: ids are given in the order of documents, so
    /// it is one more than the largest id among them.
    fn dictionary_len(&self, docs: u32) -> u32 {
        let Store::Ids { ids, .. } = &self.store else {
            return 0;
        };
        let (mut low, mut high) = (0, self.checkpoints.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.checkpoints.get(middle) {
                Some([at, _]) if at <= docs => low = middle + 1,
                _ => high = middle,
            }
        }
        let [from, len] = low
            .checked_sub(1)
            .and_then(|i| self.checkpoints.get(i))
            .unwrap_or([0, 0]);
        let rest = self.list_start(from) as usize..self.list_start(docs) as usize;
        let largest = ids
            .slices(rest)
            .filter_map(|slice| slice.iter().copied().max())
            .max();
        largest.map_or(len, |id| len.max(id + 1))
    }
}

#[cfg(test)]
mod tests;
