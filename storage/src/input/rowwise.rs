//! Batches of files that are read row by row.

use super::lines::Count;
use super::{BATCH_BYTES_MAX, RowSource, Source};
use crate::convert::RowBuilder;
use arrow::record_batch::RecordBatch;
use strandline_proto::Result;

/// A format whose reader gives one row after the other.
pub(super) trait ReadRow: Send {
    /// Reads the next row, if it is one, into `builder`; false at the end of the file.
    fn read_row(&mut self, source: &Source, builder: &mut RowBuilder) -> Result<bool>;
}

/// The batches of `R`'s rows.
pub(super) struct Rowwise<R> {
    source: Source,
    builder: RowBuilder,
    rows: R,
    count: Count,
    /// Bytes taken before the batch at hand.
    bytes_before: u64,
    ended: bool,
    /// Whether a row was read into the batch at hand, if only to be left out.
    has_read: bool,
}

impl<R> Rowwise<R> {
    /// `count` is of the bytes that `rows` takes.
    pub(super) fn new(source: Source, builder: RowBuilder, rows: R, count: Count) -> Self {
        Self {
            source,
            builder,
            rows,
            count,
            bytes_before: 0,
            ended: false,
            has_read: false,
        }
    }

    fn is_full(&self, swelled: bool) -> bool {
        let rows = self.builder.rows();
        // Rows that are left out are not counted, but a file of nothing else must be cut all the same.
        // Many rows may have few bytes in the file (packed, or from transforms), and few rows many. The builder's are
        // only counted now and then.
        rows >= self.source.batch_rows
            || (self.has_read && self.count.get() - self.bytes_before >= BATCH_BYTES_MAX as u64)
            || ((swelled || rows % 64 == 63) && self.builder.bytes() >= BATCH_BYTES_MAX)
    }
}

impl<R: ReadRow> RowSource for Rowwise<R> {
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        self.bytes_before = self.count.get();
        self.has_read = false;
        let (always, mut swelled) = (self.builder.may_swell(), false);
        while !self.ended && !self.is_full(swelled) {
            let before = self.builder.rows();
            self.ended = !self.rows.read_row(&self.source, &mut self.builder)?;
            self.has_read = true;
            swelled = always || self.builder.rows() > before + 1;
        }
        if self.ended && self.builder.rows() == 0 {
            return Ok(None);
        }
        self.builder.finish().map(Some)
    }

    fn filtered(&self) -> u64 {
        self.builder.filtered()
    }

    fn bytes_read(&self) -> u64 {
        self.count.get()
    }

    fn bytes_total(&self) -> u64 {
        self.source.bytes_total
    }
}
