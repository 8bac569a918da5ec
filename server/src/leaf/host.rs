//! Where the leaf engine finds segments and tails.

use std::fmt::Debug;
use std::sync::Arc;
use strandline_broker::transport::Watermarks;
use strandline_proto::Result;
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::leaf::{SegmentTask, TailTask};
use strandline_storage::segment::SegmentReader;

/// Holds the segments and stream tails that leaf queries name.
pub trait SegmentHost: Send + Sync + Debug {
    /// The segment of a task, by name and checksum; `ErrorKind::SegmentGone` when it is not here (any more).
    /// `keys_version`: the version of the table's keys by which its documents count; none: all do.
    fn segment(
        &self,
        table: &str,
        task: &SegmentTask,
        keys_version: Option<u64>,
    ) -> Result<Arc<dyn SegmentReader>>;

    /// Views of consuming (and not yet published) segments that together hold exactly the offsets of the task;
    /// `ErrorKind::SegmentGone` when these rows are no longer a tail here.
    fn tail(
        &self,
        table: &str,
        task: &TailTask,
        keys_version: Option<u64>,
    ) -> Result<Vec<Arc<dyn SegmentReader>>>;

    /// The offsets up to which rows of a table's stream partitions are visible.
    fn watermarks(&self, table: &TableSnapshot) -> Result<Watermarks>;
}
