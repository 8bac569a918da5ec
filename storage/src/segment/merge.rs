//! Rows of segments become other segments: joined, without those that are to go, or cut by time.

use super::SegmentReader;
use super::arrow::read_array;
use super::builder::SegmentBuilder;
use super::immutable::ImmutableSegment;
use super::metadata::scalar_value;
use crate::convert::Cell;
use crate::convert::column::ColumnBuffer;
use ::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use ::arrow::compute::{CastOptions, cast_with_options};
use strandline_index::{CHUNK_DOCS, ColumnReader, DocBits, DocId, DocSelection, ValueBuffer};
use strandline_proto::coverage::Interval;
use strandline_proto::lineage::Lineage;
use strandline_proto::schema::{Column, ColumnRole, DataType, Schema};
use strandline_proto::time_format::TimeFormat;
use strandline_proto::{Error, Result};

/// Rows that are read together: few, because a row may hold a long text.
const BLOCK_ROWS: usize = 1_024;

/// A segment whose rows go into another one.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The segment.
    pub segment: &'a ImmutableSegment,
    /// The version of the table's schema that it is of.
    pub version: u32,
    /// Under which names segments of that version store the table's columns.
    pub lineage: &'a Lineage,
}

/// Adds rows of `source` to `builder`: those of `docs` (ascending), or all. They come in the columns of the builder's
/// schema: one that the segment lacks holds its default, one that it holds in a narrower type is widened.
///
/// `schema`: that of the builder. `has_origin`: whether the builder's segment is of a stream partition.
///
/// # Errors
/// `DataLoss` when reading meets damage, `FailedPrecondition` where the segment's values are not of the column's type,
/// and those of the builder.
pub fn add_rows(
    builder: &mut SegmentBuilder,
    schema: &Schema,
    source: Source<'_>,
    docs: Option<&[DocId]>,
    has_origin: bool,
) -> Result<()> {
    let segment = source.segment;
    let in_segment = |e: Error| e.at(format_args!("segment {}", segment.info().name));
    let mut add = |selection: DocSelection<'_>| {
        let rows = block(schema, source, selection.clone())?;
        if !has_origin {
            return builder.push(&rows);
        }
        let mut offsets = Vec::with_capacity(selection.len());
        segment.offsets(selection, &mut offsets);
        let offsets: Result<Vec<u64>, _> = offsets.into_iter().map(u64::try_from).collect();
        let offsets = offsets.map_err(|_| {
            Error::data_loss("a stream offset is negative: restore the segment from the deep store")
        })?;
        builder.push_with_offsets(&rows, &offsets)
    };
    match docs {
        Some(docs) => docs
            .chunks(BLOCK_ROWS)
            .try_for_each(|docs| add(DocSelection::Docs(docs)).map_err(in_segment)),
        None => {
            let mut start = 0;
            while start < segment.num_docs() {
                let end = segment
                    .num_docs()
                    .min(start.saturating_add(BLOCK_ROWS as u32));
                add(DocSelection::Range(start..end)).map_err(in_segment)?;
                start = end;
            }
            Ok(())
        }
    }
}

/// Documents of a segment in the columns of `schema`.
fn block(schema: &Schema, source: Source<'_>, docs: DocSelection<'_>) -> Result<RecordBatch> {
    let rows = docs.len();
    let segment = source.segment;
    let arrays = schema.columns.iter().map(|column| {
        let name = source.lineage.stored_name(&column.name, source.version);
        let stored = name.and_then(|name| segment.schema().column(name));
        let reader = name.and_then(|name| segment.column(name));
        match stored.zip(reader) {
            Some((stored, reader)) => stored_values(column, stored, &*reader, docs.clone()),
            None => defaults(column, rows),
        }
        .map_err(|e| e.at(format_args!("column {}", column.name)))
    });
    let arrays = arrays.collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.arrow(), arrays, &options)
        .map_err(|e| Error::internal(format!("rows of a segment: {e}")))
}

fn stored_values(
    column: &Column,
    stored: &Column,
    reader: &dyn ColumnReader,
    docs: DocSelection<'_>,
) -> Result<ArrayRef> {
    let values = read_array(reader, stored.data_type, stored.multi_value, docs)?;
    if (stored.data_type, stored.multi_value) == (column.data_type, column.multi_value) {
        return Ok(values);
    }
    // What does not fit is an error, not a null.
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(&values, &column.arrow_type(), &options).map_err(|e| {
        Error::precondition(format!(
            "its values are {}, the schema says {}: {e}",
            stored.data_type.pinot_name(),
            column.data_type.pinot_name()
        ))
    })
}

/// Values of a column of a segment, or what its rows hold in a column that was added after them.
pub(crate) fn column_or_default(
    segment: &dyn SegmentReader,
    column: &Column,
    docs: DocSelection<'_>,
) -> Result<ArrayRef> {
    match segment.column(&column.name) {
        Some(reader) => read_array(&*reader, column.data_type, column.multi_value, docs),
        None => defaults(column, docs.len()),
    }
}

/// The documents below `end` that are not among `docs`, which ascend.
pub fn docs_without(end: DocId, docs: &[DocId]) -> Vec<DocId> {
    let mut gone = docs.iter().copied().peekable();
    let mut stays = |doc: &DocId| gone.next_if_eq(doc).is_none();
    (0..end).filter(|doc| stays(doc)).collect()
}

/// What rows hold in a column that was added after them.
fn defaults(column: &Column, rows: usize) -> Result<ArrayRef> {
    if column.default.is_null() {
        return Ok(new_null_array(&column.arrow_type(), rows));
    }
    let mut buffer = ColumnBuffer::new(column);
    for _ in 0..rows {
        buffer.push(&Cell::Null).map_err(Error::internal)?;
    }
    buffer.finish()
}

/// The documents whose time lies within any of `intervals`, or, with `outside`, those whose time does not; ascending.
///
/// # Errors
/// `FailedPrecondition` when the segment does not hold the time column as the schema says.
pub fn docs_by_time(
    segment: &ImmutableSegment,
    time: &Column,
    intervals: &[Interval],
    outside: bool,
) -> Result<Vec<DocId>> {
    let ColumnRole::DateTime { format, .. } = &time.role else {
        return Err(Error::precondition(format!(
            "column {} is no dateTime field of the schema",
            time.name
        )));
    };
    let stored = segment.schema().column(&time.name);
    let (Some(stored), Some(reader)) = (stored, segment.column(&time.name)) else {
        return Err(Error::precondition(format!(
            "segment {} lacks the time column {}",
            segment.info().name,
            time.name
        )));
    };
    let inside = Inside {
        format,
        data_type: stored.data_type,
        intervals,
    };
    inside.docs(&*reader, outside)
}

/// A test of times.
struct Inside<'a> {
    format: &'a TimeFormat,
    data_type: DataType,
    intervals: &'a [Interval],
}

impl Inside<'_> {
    fn holds(&self, value: &strandline_index::Scalar<'_>) -> bool {
        let ms = self.format.to_ms(&scalar_value(value, self.data_type));
        ms.is_some_and(|ms| {
            let mut intervals = self.intervals.iter();
            intervals.any(|i| i.start_ms <= ms && ms < i.end_ms)
        })
    }

    fn docs(&self, reader: &dyn ColumnReader, outside: bool) -> Result<Vec<DocId>> {
        let of_ids: Option<Vec<bool>> = reader.dictionary().map(|dictionary| {
            let ids = 0..dictionary.len();
            ids.map(|id| self.holds(&dictionary.value(id))).collect()
        });
        let mut docs = Vec::new();
        let mut nulls = DocBits::new();
        let mut ids = Vec::new();
        let mut values = ValueBuffer::new(reader.physical());
        for chunk in 0..reader.num_docs().div_ceil(CHUNK_DOCS) {
            let start = chunk * CHUNK_DOCS;
            let range = start..reader.num_docs().min(start.saturating_add(CHUNK_DOCS));
            nulls.clear();
            reader.null_bits(chunk, &mut nulls);
            let holds: Vec<bool> = match &of_ids {
                Some(of_ids) => {
                    ids.clear();
                    reader.dict_ids(DocSelection::Range(range), &mut ids);
                    let holds = |id: u32| of_ids.get(id as usize).copied().unwrap_or(false);
                    (0..ids.len())
                        .map(|i| ids.get(i).is_some_and(|id| holds(*id)))
                        .collect()
                }
                None => {
                    values.clear();
                    reader.values(DocSelection::Range(range), &mut values);
                    let holds = |i| values.get(i).is_some_and(|value| self.holds(&value));
                    (0..values.len()).map(holds).collect()
                }
            };
            let wanted = (0_u32..).zip(&holds).filter(|(i, holds)| {
                let inside = **holds && !nulls.contains(*i as u16);
                inside != outside
            });
            docs.extend(wanted.map(|(i, _)| start + i));
        }
        match reader.fault() {
            Some(fault) => Err(Error::data_loss(format!(
                "stored times are damaged ({fault}): restore the segment from the deep store"
            ))),
            None => Ok(docs),
        }
    }
}

#[cfg(test)]
mod tests;
