//! Builds an immutable segment from batches of rows.

use super::growing::GrowingRows;
use super::spec::SegmentSpec;
use super::write::{RowsToWrite, SegmentIdentity, write_segment};
use super::{DeletedKey, DeletedKeys};
use crate::environment::Files;
use ::arrow::array::RecordBatch;
use std::path::Path;
use std::sync::Arc;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::{Error, Result};

/// Takes rows in any order and writes them as one segment file.
///
/// All rows are held, encoded, until [`SegmentBuilder::finish`]; the caller bounds memory by cutting segments at
/// so many [`SegmentBuilder::rows`] or at a [`SegmentBuilder::bytes_estimate`]. Finishing needs about the
/// size of the largest column on top, for each thread.
pub struct SegmentBuilder {
    identity: SegmentIdentity,
    rows: GrowingRows,
    deleted_keys: Vec<DeletedKey>,
    threads: usize,
}

impl SegmentBuilder {
    /// A builder of the segment `name`. `origin`: the stream partition and offsets that the rows come from.
    ///
    /// # Errors
    /// `InvalidArgument` when the spec asks for what can't be stored.
    pub fn new(
        spec: Arc<SegmentSpec>,
        name: &str,
        half: Half,
        origin: Option<(StreamPartition, OffsetRange)>,
    ) -> Result<Self> {
        let rows = GrowingRows::new(spec, origin.is_some(), false)?;
        Ok(Self {
            identity: SegmentIdentity {
                name: SegmentName::new(name),
                half,
                origin,
                deleted_keys: DeletedKeys::default(),
            },
            rows,
            deleted_keys: Vec::new(),
            threads: 1,
        })
    }

    /// Takes rows into so many columns at a time, and makes as many ready when the segment is written.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Adds rows, in the layout of `Schema::arrow`, to a segment without an origin.
    ///
    /// # Errors
    /// `InvalidArgument` for rows of another layout, `ResourceExhausted` when the segment is full; none was added then.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows.append(batch, None, self.threads)
    }

    /// Adds rows with the stream offset of each to a segment with an origin.
    ///
    /// # Errors
    /// As [`SegmentBuilder::push`], and `InvalidArgument` for offsets outside the origin's range.
    pub fn push_with_offsets(&mut self, batch: &RecordBatch, offsets: &[u64]) -> Result<()> {
        if let Some((partition, range)) = &self.identity.origin
            && let Some(offset) = offsets
                .iter()
                .find(|&&offset| offset < range.start || offset >= range.end)
        {
            return Err(Error::invalid(format!(
                "offset {offset} of {partition} is outside the segment's range {}..{}",
                range.start, range.end
            )));
        }
        self.rows.append(batch, Some(offsets), self.threads)
    }

    /// Has the segment remember keys whose rows were deleted.
    pub fn remember(&mut self, deleted: impl IntoIterator<Item = DeletedKey>) {
        self.deleted_keys.extend(deleted);
    }

    /// Rows added.
    pub fn rows(&self) -> u64 {
        u64::from(self.rows.rows())
    }

    /// Memory that the rows take now, which is also an upper estimate of the file's size before indexes.
    pub fn bytes_estimate(&self) -> usize {
        self.rows.bytes()
    }

    /// Sorts the rows as the spec says and writes them to `path`: the file is there completely or not at all, and
    /// not yet durable.
    ///
    /// # Errors
    /// When writing fails; nothing is left behind then.
    pub fn finish(self, files: &Arc<dyn Files>, path: &Path) -> Result<SegmentInfo> {
        let rows = self.rows.rows();
        let rows = RowsToWrite {
            spec: self.rows.spec().clone(),
            rows,
            columns: self.rows.columns(rows),
            offsets: self.rows.offsets(rows),
            threads: self.threads,
        };
        // Columns are let go one by one as they are written, which takes that nothing else holds them.
        drop(self.rows);
        let identity = SegmentIdentity {
            deleted_keys: DeletedKeys::of(self.deleted_keys),
            ..self.identity
        };
        write_segment(files, path, identity, rows)
    }
}
