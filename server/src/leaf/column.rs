//! A column of one segment with its logical type, and blocks of it as Arrow arrays.

use super::filter::Scratch;
use arrow::array::ArrayRef;
use std::sync::Arc;
use strandline_index::{CHUNK_DOCS, ColumnReader, DocBits, DocId, DocSelection};
use strandline_proto::Result;
use strandline_proto::schema::DataType;
use strandline_storage::segment::arrow::read_array;

/// A column as a query sees it in one segment.
pub(super) struct BoundColumn {
    /// The name.
    pub(super) name: String,
    /// The type of a value or element.
    pub(super) data_type: DataType,
    /// Where values come from; for a column that the segment lacks, its default.
    pub(super) reader: Arc<dyn ColumnReader>,
}

impl std::fmt::Debug for BoundColumn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundColumn")
            .field("name", &self.name)
            .field("data_type", &self.data_type)
            .finish_non_exhaustive()
    }
}

impl BoundColumn {
    /// Whether a document holds a list.
    pub(super) fn is_multi_value(&self) -> bool {
        self.reader.is_multi_value()
    }

    /// Values of `docs` as Arrow.
    pub(super) fn array(&self, docs: DocSelection<'_>) -> Result<ArrayRef> {
        read_array(
            self.reader.as_ref(),
            self.data_type,
            self.is_multi_value(),
            docs,
        )
        .map_err(|e| e.at(format_args!("column {:?}", self.name)))
    }

    /// Removes documents of `chunk` that are null from `bits`.
    pub(super) fn strip_nulls(&self, chunk: u32, bits: &mut DocBits, scratch: &mut Scratch) {
        if self.reader.has_nulls() {
            let mut nulls = scratch.take_bits();
            self.reader.null_bits(chunk, &mut nulls);
            bits.and_not(&nulls);
            scratch.give_bits(nulls);
        }
    }

    /// Whether any element of a multi-value column is null.
    pub(super) fn has_null_elements(&self) -> bool {
        if !self.is_multi_value() {
            return false;
        }
        // The reader marks elements only when some element of the column is null, so one element tells.
        let docs = self.reader.num_docs();
        let (mut start, mut step) = (0, 64);
        let mut marks = Vec::new();
        let mut ends = Vec::new();
        while start < docs {
            let end = docs.min(start.saturating_add(step));
            ends.clear();
            let mut values = strandline_index::ValueBuffer::new(self.reader.physical());
            match self.reader.dictionary() {
                Some(_) => self.reader.multi_dict_ids(
                    DocSelection::Range(start..end),
                    &mut ends,
                    &mut Vec::new(),
                ),
                None => self.reader.multi_values(
                    DocSelection::Range(start..end),
                    &mut ends,
                    &mut values,
                ),
            }
            if ends.last().is_some_and(|&elements| elements > 0) {
                self.reader
                    .null_elements(DocSelection::Range(start..end), &mut marks);
                return !marks.is_empty();
            }
            (start, step) = (end, step.saturating_mul(4).min(CHUNK_DOCS));
        }
        false
    }
}

/// The null documents of the chunk that was asked for last.
#[derive(Debug, Default)]
pub(super) struct ChunkNulls {
    /// The chunk and its null documents; none before anything was asked.
    of_chunk: Option<(u32, DocBits)>,
}

impl ChunkNulls {
    /// ANDs `valid` (one flag a document) with whether each of `docs`, which ascend, is not null.
    pub(super) fn clear_nulls(
        &mut self,
        reader: &dyn ColumnReader,
        docs: &DocSelection<'_>,
        valid: &mut [bool],
    ) {
        with_each(docs, valid, |doc, flag| {
            *flag &= !self.contains(reader, doc)
        });
    }

    /// Whether `doc` is null.
    pub(super) fn contains(&mut self, reader: &dyn ColumnReader, doc: DocId) -> bool {
        let chunk = doc / CHUNK_DOCS;
        let (known, bits) = (self.of_chunk).get_or_insert_with(|| (u32::MAX, DocBits::new()));
        if *known != chunk {
            bits.clear();
            reader.null_bits(chunk, bits);
            *known = chunk;
        }
        bits.contains((doc % CHUNK_DOCS) as u16)
    }
}

/// Calls `each` with each document and what stands for it in `items`.
pub(super) fn with_each<T>(
    docs: &DocSelection<'_>,
    items: &mut [T],
    mut each: impl FnMut(DocId, &mut T),
) {
    match docs {
        DocSelection::Range(range) => {
            (range.clone().zip(items)).for_each(|(doc, item)| each(doc, item));
        }
        DocSelection::Docs(docs) => {
            (docs.iter().zip(items)).for_each(|(&doc, item)| each(doc, item));
        }
    }
}

/// Clears the flags of `docs`, all of one chunk, that are not in `bits`.
pub(super) fn keep_where(bits: &DocBits, docs: &DocSelection<'_>, flags: &mut [bool]) {
    with_each(docs, flags, |doc, flag| {
        *flag &= bits.contains((doc % CHUNK_DOCS) as u16);
    });
}
