//! The seam between a broker and the servers that hold rows.

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::memory_pool::MemoryPool;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::time::Instant;
use strandline_proto::Result;
use strandline_proto::catalog::{CatalogSnapshot, TableSnapshot};
use strandline_proto::ids::StreamPartition;
use strandline_proto::leaf::{LeafExplanation, LeafQuery};
use strandline_proto::stats::LeafStats;
use tokio_util::sync::CancellationToken;

/// Where the current catalog snapshot comes from.
pub trait CatalogSource: Send + Sync + std::fmt::Debug {
    /// The newest published snapshot.
    fn snapshot(&self) -> Arc<CatalogSnapshot>;
}

/// What a leaf query runs under.
#[derive(Clone, Debug)]
pub struct LeafContext {
    /// Counters of the whole query.
    pub stats: Arc<LeafStats>,
    /// Fires when the caller is gone or the deadline has passed: the leaf stops within a block.
    pub cancel: CancellationToken,
    /// When the query must be over.
    pub deadline: Option<Instant>,
    /// Memory is taken from here before it is used.
    pub memory: Arc<dyn MemoryPool>,
}

/// The rows of a table's stream partition that are visible now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The partition.
    pub partition: StreamPartition,
    /// The first offset that is not visible yet.
    pub to_offset: u64,
}

/// What is visible of a table's stream partitions, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Watermarks {
    /// By partition.
    pub partitions: Vec<Watermark>,
    /// Where rows have keys: which of them count.
    pub keys: Option<PinnedKeys>,
}

/// A version of a table's keys, at which rows that later ones have superseded since still count.
#[derive(Clone)]
pub struct PinnedKeys {
    /// The version.
    pub version: u64,
    /// Keeps what is known of the version.
    pub held: Arc<dyn Send + Sync>,
}

impl std::fmt::Debug for PinnedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedKeys")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Carries leaf queries to where the rows are, and batches back.
#[async_trait]
pub trait LeafTransport: Send + Sync + std::fmt::Debug {
    /// The watermarks of a table's stream partitions. Pinned once a query, so that a self-join or a
    /// retry sees the same rows. Later calls never give smaller ones. `ErrorKind::SegmentGone` where the snapshot is too old for
    /// what is known of the table's keys.
    fn watermarks(&self, table: &TableSnapshot) -> Result<Watermarks>;

    /// Runs a leaf query. Partial aggregate states arrive whole or not at all: the first error ends the stream.
    /// `ErrorKind::SegmentGone` asks the broker to plan again from a newer snapshot.
    async fn run(
        &self,
        query: LeafQuery,
        context: LeafContext,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>>;

    /// Whether the answer to an aggregation holds each group once, so that nothing is left to merge.
    fn answers_whole(&self) -> bool {
        false
    }

    /// How the leaf would answer `query`, without running it.
    fn explain(&self, query: &LeafQuery) -> Result<LeafExplanation>;
}
