//! The consuming segment: rows of one stream partition, appended by one writer and read at once.
//!
//! A batch is appended to every column first and then published by one store of the new row count, so that a
//! reader sees whole batches or nothing of them, and waits for nobody. A view is pinned at the count it was made
//! with: whatever is appended later, it answers the same.
//!
//! *Invariant*: offsets never fall from row to row, so that the rows below an offset are a prefix. Rows of one message share its
//! offset and come in one batch: a view up to an offset has all of them or none.

use super::growing::GrowingRows;
use super::spec::SegmentSpec;
use super::write::{RowsToWrite, SegmentIdentity, write_segment};
use super::{DeletedKeys, SegmentReader};
use crate::environment::Files;
use ::arrow::array::RecordBatch;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use strandline_index::text::TextPostings;
use strandline_index::{ColumnReader, DocSelection, ValueBuffer};
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::{Error, Result};

/// A segment that takes rows from a stream partition while it is read.
pub struct ConsumingSegment {
    source: Arc<Source>,
    growing: Arc<GrowingRows>,
    published: ArcSwap<Published>,
    /// Held while a batch is appended.
    writer: Mutex<()>,
}

/// Where the rows come from.
struct Source {
    name: SegmentName,
    partition: StreamPartition,
    start_offset: u64,
}

/// What readers may see.
#[derive(Clone, Copy)]
struct Published {
    rows: u32,
    next_offset: u64,
    /// Memory that they take; summed up once for each batch, because it is asked for far more often.
    bytes: usize,
}

impl ConsumingSegment {
    /// An empty segment whose first row's offset will be `start_offset` or later.
    ///
    /// # Errors
    /// `InvalidArgument` when the spec asks for what can't be stored.
    pub fn new(
        name: &str,
        spec: Arc<SegmentSpec>,
        partition: StreamPartition,
        start_offset: u64,
    ) -> Result<Self> {
        let growing = GrowingRows::new(spec, true, true)?;
        let bytes = growing.bytes();
        Ok(Self {
            source: Arc::new(Source {
                name: SegmentName::new(name),
                partition,
                start_offset,
            }),
            growing: Arc::new(growing),
            published: ArcSwap::from_pointee(Published {
                rows: 0,
                next_offset: start_offset,
                bytes,
            }),
            writer: Mutex::new(()),
        })
    }

    /// Appends and publishes rows, in the layout of `Schema::arrow`, with the stream offset of each. `next_offset`
    /// is the first offset that is not dealt with yet: rows that were rejected have an offset and no row here.
    ///
    /// # Errors
    /// `InvalidArgument` for rows of another layout or offsets that do not follow the earlier ones, `ResourceExhausted`
    /// when the segment is full; nothing was appended then.
    pub fn append(&self, batch: &RecordBatch, offsets: &[u64], next_offset: u64) -> Result<()> {
        let _writer = self.writer.lock();
        let published = **self.published.load();
        let follows = offsets
            .first()
            .is_none_or(|&first| first >= published.next_offset)
            && offsets.is_sorted()
            && offsets.last().is_none_or(|&last| last < next_offset)
            && published.next_offset <= next_offset;
        if !follows {
            return Err(Error::invalid(format!(
                "offsets {:?}..{next_offset} of {} do not follow {}, up to which segment {} has the stream",
                offsets.first(),
                self.source.partition,
                published.next_offset,
                self.source.name
            )));
        }
        self.growing
            .append(batch, Some(offsets), 1)
            .map_err(|e| e.at(format_args!("segment {}", self.source.name)))?;
        self.published.store(Arc::new(Published {
            rows: self.growing.rows(),
            next_offset,
            bytes: self.growing.bytes(),
        }));
        Ok(())
    }

    /// All rows published by now.
    pub fn view(&self) -> Arc<dyn SegmentReader> {
        let published = **self.published.load();
        self.view_of(published.rows, published.next_offset)
    }

    /// The rows published by now whose offset is below `to_offset`.
    ///
    /// Whoever needs all of them first checks that [`ConsumingSegment::next_offset`] is not below `to_offset`.
    pub fn view_until(&self, to_offset: u64) -> Arc<dyn SegmentReader> {
        let published = **self.published.load();
        if to_offset >= published.next_offset {
            return self.view_of(published.rows, published.next_offset);
        }
        let rows = match self.growing.offsets(published.rows) {
            Some(offsets) => rows_below(&*offsets, to_offset),
            None => 0,
        };
        self.view_of(rows, to_offset.max(self.source.start_offset))
    }

    fn view_of(&self, rows: u32, end_offset: u64) -> Arc<dyn SegmentReader> {
        Arc::new(ConsumingView {
            source: self.source.clone(),
            growing: self.growing.clone(),
            offsets: self.growing.offsets(rows),
            rows,
            end_offset,
        })
    }

    /// The segment's name.
    pub fn name(&self) -> &SegmentName {
        &self.source.name
    }

    /// The partition that the rows come from.
    pub fn partition(&self) -> &StreamPartition {
        &self.source.partition
    }

    /// Published rows.
    pub fn rows(&self) -> u64 {
        u64::from(self.published.load().rows)
    }

    /// How the rows will be stored.
    pub fn spec(&self) -> &Arc<SegmentSpec> {
        self.growing.spec()
    }

    /// Memory that the published rows take.
    pub fn bytes(&self) -> usize {
        self.published.load().bytes
    }

    /// The first offset that the segment does not deal with yet.
    pub fn next_offset(&self) -> u64 {
        self.published.load().next_offset
    }

    /// The first offset of the segment.
    pub fn start_offset(&self) -> u64 {
        self.source.start_offset
    }

    /// Writes all rows published by now as an immutable segment file, sorted as the spec says. Reading and
    /// appending go on; the file's origin ends at the offset up to which its rows go.
    ///
    /// # Errors
    /// When writing fails; nothing is left behind then.
    pub fn build(&self, files: &Arc<dyn Files>, path: &Path) -> Result<SegmentInfo> {
        let published = **self.published.load();
        let range = OffsetRange {
            start: self.source.start_offset,
            end: published.next_offset,
        };
        let identity = SegmentIdentity {
            name: self.source.name.clone(),
            half: Half::Realtime,
            origin: Some((self.source.partition.clone(), range)),
            deleted_keys: DeletedKeys::default(),
        };
        let rows = RowsToWrite {
            spec: self.growing.spec().clone(),
            rows: published.rows,
            columns: self.growing.columns(published.rows),
            offsets: self.growing.offsets(published.rows),
            // The other cores are for queries and other partitions.
            threads: 1,
        };
        write_segment(files, path, identity, rows)
    }
}

/// How many of the ascending `offsets` are below `to_offset`.
fn rows_below(offsets: &dyn ColumnReader, to_offset: u64) -> u32 {
    let (mut low, mut high) = (0, offsets.num_docs());
    let mut value = ValueBuffer::I64(Vec::with_capacity(1));
    while low < high {
        let middle = low + (high - low) / 2;
        value.clear();
        offsets.values(DocSelection::Range(middle..middle + 1), &mut value);
        // Offsets were taken from u64 values below 2^63.
        let below = matches!(&value, ValueBuffer::I64(v) if v.first().is_some_and(|&offset| (offset as u64) < to_offset));
        if below {
            low = middle + 1
        } else {
            high = middle
        }
    }
    low
}

/// A consuming segment pinned at a number of rows.
struct ConsumingView {
    source: Arc<Source>,
    growing: Arc<GrowingRows>,
    offsets: Option<Arc<dyn ColumnReader>>,
    rows: u32,
    end_offset: u64,
}

impl SegmentReader for ConsumingView {
    fn name(&self) -> &str {
        self.source.name.as_str()
    }

    fn num_docs(&self) -> u32 {
        self.rows
    }

    fn column(&self, name: &str) -> Option<Arc<dyn ColumnReader>> {
        self.growing.column(name, self.rows)
    }

    fn schema_version(&self) -> u32 {
        self.growing.spec().schema.version
    }

    fn bounds(&self, column: &str) -> Option<(i64, i64)> {
        // Rows behind the view's may have widened them: whatever holds between them holds for its rows.
        self.growing.bounds(column)
    }

    fn text(&self, column: &str) -> Option<Arc<dyn TextPostings>> {
        self.growing.text(column, self.rows)
    }

    fn origin(&self) -> Option<(&StreamPartition, OffsetRange)> {
        Some((
            &self.source.partition,
            OffsetRange {
                start: self.source.start_offset,
                end: self.end_offset,
            },
        ))
    }

    fn offsets(&self, docs: DocSelection<'_>, out: &mut Vec<i64>) {
        if let Some(offsets) = &self.offsets {
            append_i64(&**offsets, docs, out);
        }
    }
}

/// Appends a column's 64-bit values.
pub(super) fn append_i64(column: &dyn ColumnReader, docs: DocSelection<'_>, out: &mut Vec<i64>) {
    let mut values = ValueBuffer::I64(std::mem::take(out));
    column.values(docs, &mut values);
    if let ValueBuffer::I64(values) = values {
        *out = values;
    }
}
