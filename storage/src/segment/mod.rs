//! Segments: the immutable file and the consuming segment, behind one reader.

pub mod adapted;
pub mod arrow;
pub mod builder;
pub mod consuming;
pub mod counted;
mod deleted;
pub mod event_time;
mod file;
mod growing;
pub mod immutable;
pub mod json;
pub mod merge;
mod metadata;
pub mod rewrite;
pub mod spec;
mod star_tree;
mod text;
mod time_range;
mod truncated;
mod values;
pub mod widened;
mod write;

pub use deleted::{DeletedKey, DeletedKeys};
pub use file::{FORMAT_VERSION, TEMPORARY_SUFFIX};
pub use growing::SEGMENT_ROWS_MAX;
pub use metadata::scalar_value;
pub use star_tree::SegmentStarTree;
pub(crate) use star_tree::{COLUMNS_MAX as STAR_TREE_COLUMNS_MAX, TREES_MAX as STAR_TREES_MAX};

use std::sync::Arc;
use strandline_index::ColumnReader;
use strandline_index::text::TextPostings;
use strandline_proto::ids::{OffsetRange, StreamPartition};

/// A segment as a query reads it: a fixed number of documents, column by column.
pub trait SegmentReader: Send + Sync {
    /// The segment's name.
    fn name(&self) -> &str;
    /// Documents in this view.
    fn num_docs(&self) -> u32;
    /// A stored column; none when the segment was built before the column was added (every row
    /// then holds the column's default).
    fn column(&self, name: &str) -> Option<Arc<dyn ColumnReader>>;
    /// The version of the schema that its columns are of.
    fn schema_version(&self) -> u32 {
        1
    }
    /// The stream partition and offsets the rows came from; none for offline segments.
    fn origin(&self) -> Option<(&StreamPartition, OffsetRange)>;
    /// Appends the stream offset of each of `docs` (ascending) to `out`; nothing for offline segments.
    fn offsets(&self, docs: strandline_index::DocSelection<'_>, out: &mut Vec<i64>);
    /// Bounds between which all values, nulls apart, of a stored single-value column of whole numbers lie; none when they
    /// are not known. Those of a consuming segment may be wider than its rows need.
    fn bounds(&self, _column: &str) -> Option<(i64, i64)> {
        None
    }
    /// The text index of a stored column. That of a consuming segment may end before its documents do.
    fn text(&self, _column: &str) -> Option<Arc<dyn TextPostings>> {
        None
    }
    /// Its star-trees.
    fn star_trees(&self) -> &[Arc<SegmentStarTree>] {
        &[]
    }
    /// Keys whose rows were deleted from it, or from segments whose rows went into it.
    fn deleted_keys(&self) -> DeletedKeys {
        DeletedKeys::default()
    }
    /// Documents that count (upsert, delete); none: all do.
    fn valid_docs(&self) -> Option<Arc<dyn ValidDocs>> {
        None
    }
}

/// Which documents of a segment count.
pub trait ValidDocs: Send + Sync {
    /// Removes the documents of `chunk` that do not count from `bits`.
    fn retain(&self, chunk: u32, bits: &mut strandline_index::DocBits);
}

#[cfg(test)]
mod tests;
