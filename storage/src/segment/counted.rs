//! A segment of which not all documents count.

use super::{SegmentReader, SegmentStarTree, ValidDocs};
use std::sync::Arc;
use strandline_index::text::TextPostings;
use strandline_index::{ColumnReader, DocSelection};
use strandline_proto::ids::{OffsetRange, StreamPartition};

struct Counted {
    inner: Arc<dyn SegmentReader>,
    valid: Arc<dyn ValidDocs>,
}

/// `segment`, of which those documents count that `valid` says; none: all do.
pub fn counted(
    segment: Arc<dyn SegmentReader>,
    valid: Option<Arc<dyn ValidDocs>>,
) -> Arc<dyn SegmentReader> {
    match valid {
        Some(valid) => Arc::new(Counted {
            inner: segment,
            valid,
        }),
        None => segment,
    }
}

impl SegmentReader for Counted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn num_docs(&self) -> u32 {
        self.inner.num_docs()
    }

    fn schema_version(&self) -> u32 {
        self.inner.schema_version()
    }

    fn column(&self, name: &str) -> Option<Arc<dyn ColumnReader>> {
        self.inner.column(name)
    }

    fn origin(&self) -> Option<(&StreamPartition, OffsetRange)> {
        self.inner.origin()
    }

    fn offsets(&self, docs: DocSelection<'_>, out: &mut Vec<i64>) {
        self.inner.offsets(docs, out);
    }

    fn bounds(&self, column: &str) -> Option<(i64, i64)> {
        self.inner.bounds(column)
    }

    fn text(&self, column: &str) -> Option<Arc<dyn TextPostings>> {
        self.inner.text(column)
    }

    fn star_trees(&self) -> &[Arc<SegmentStarTree>] {
        self.inner.star_trees()
    }

    fn valid_docs(&self) -> Option<Arc<dyn ValidDocs>> {
        Some(Arc::clone(&self.valid))
    }
}
