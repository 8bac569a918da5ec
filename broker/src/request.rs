//! What a front end asks of a broker, and what it gets back.

use crate::tables::Tables;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use strandline_proto::Result;
use strandline_proto::stats::LeafStats;
use strandline_proto::v1;
use strandline_proto::value::Value;
use tokio_util::sync::CancellationToken;

/// One statement to run.
#[derive(Clone, Debug, Default)]
pub struct QueryRequest {
    /// The statement; `SET name = value;` may stand before it.
    pub sql: String,
    /// Values of `$1`, `$2`, ... .
    pub parameters: Vec<Value>,
    /// Options by name, as `SET` would set them; a `SET` in the statement comes after them.
    pub options: BTreeMap<String, String>,
    /// After this time the query ends with [`DeadlineExceeded`](strandline_proto::ErrorKind::DeadlineExceeded); none: the broker's default.
    pub timeout: Option<Duration>,
    /// Ends the query when it fires.
    pub cancel: CancellationToken,
}

impl QueryRequest {
    /// A request for a statement without parameters or options.
    pub fn new(sql: impl Into<String>) -> Self {
        Self {
            sql: sql.into(),
            ..Self::default()
        }
    }
}

/// An answer that is being computed. Dropping the stream stops the work.
pub struct QueryAnswer {
    /// The columns. Names may occur twice.
    pub schema: SchemaRef,
    /// The rows; the first error ends the stream, and rows before it are no answer.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
    /// Counters; see [`QueryStats::finished`].
    pub statistics: Arc<QueryStats>,
}

impl std::fmt::Debug for QueryAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryAnswer")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// Limits and defaults of a broker.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Bytes that all queries together may hold.
    pub memory_bytes_max: usize,
    /// Bytes that one query may hold.
    pub query_memory_bytes_max: usize,
    /// How long a query may take that names no limit.
    pub query_timeout: Duration,
    /// Where sorts and joins that outgrow their memory write; none: they fail instead.
    pub spill_dir: Option<PathBuf>,
    /// Bytes that all queries together may spill.
    pub spill_bytes_max: u64,
    /// How many partitions DataFusion works on at once above the leaf; at least 2.
    pub partitions: usize,
    /// Rows of the largest batch.
    pub batch_rows: usize,
    /// Statement shapes whose plans are kept; 0: none.
    pub plans_max: u64,
    /// How often a query is planned again because a segment was replaced under it.
    pub replans_max: u32,
}

impl Default for BrokerOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 2 << 30,
            query_memory_bytes_max: 1 << 30,
            query_timeout: Duration::from_secs(60),
            spill_dir: None,
            spill_bytes_max: 20 << 30,
            partitions: std::thread::available_parallelism()
                .map_or(2, usize::from)
                .max(2),
            batch_rows: 8192,
            plans_max: 1_024,
            replans_max: 5,
        }
    }
}

/// What one query touched and how long it took.
#[derive(Debug)]
pub struct QueryStats {
    /// The query's number within this broker's life.
    pub query_id: u64,
    /// Counted by the leaves, and by the broker for segments it prunes.
    pub leaf: Arc<LeafStats>,
    pub(crate) rows_returned: AtomicU64,
    pub(crate) plan_us: AtomicU64,
    pub(crate) total_us: AtomicU64,
    pub(crate) catalog_version: AtomicU64,
    pub(crate) plan_cached: AtomicBool,
    pub(crate) coverage: Mutex<BTreeMap<String, v1::TableCoverage>>,
    pub(crate) started: Instant,
}

impl QueryStats {
    pub(crate) fn new(query_id: u64) -> Self {
        Self {
            query_id,
            leaf: Arc::default(),
            rows_returned: AtomicU64::new(0),
            plan_us: AtomicU64::new(0),
            total_us: AtomicU64::new(0),
            catalog_version: AtomicU64::new(0),
            plan_cached: AtomicBool::new(false),
            coverage: Mutex::default(),
            started: Instant::now(),
        }
    }

    pub(crate) fn elapsed_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Notes what the query was planned for, and how long that took.
    pub(crate) fn planned(&self, tables: &Tables, took: Duration) {
        self.catalog_version
            .store(tables.snapshot.version.0, Ordering::Relaxed);
        self.plan_us.store(
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }

    /// The statistics as they are sent. Complete once the stream of batches has ended.
    pub fn finished(&self) -> v1::QueryStatistics {
        let counts = self.leaf.counts();
        let total_us = match self.total_us.load(Ordering::Relaxed) {
            0 => self.elapsed_us(),
            us => us,
        };
        v1::QueryStatistics {
            query_id: self.query_id,
            rows_returned: self.rows_returned.load(Ordering::Relaxed),
            segments_queried: counts.segments_queried,
            segments_pruned: counts.segments_pruned,
            consuming_segments_queried: counts.consuming_queried,
            docs_matched: counts.docs_matched,
            docs_scanned: counts.docs_scanned,
            docs_total: counts.docs_total,
            hidden_realtime_rows: counts.hidden_realtime_rows,
            hidden_offline_rows: counts.hidden_offline_rows,
            coverage: self.coverage.lock().values().cloned().collect(),
            catalog_version: self.catalog_version.load(Ordering::Relaxed),
            time_plan_us: self.plan_us.load(Ordering::Relaxed),
            time_total_us: total_us,
            star_tree_segments: counts.star_tree_segments,
            plan_cached: self.plan_cached.load(Ordering::Relaxed),
        }
    }
}
