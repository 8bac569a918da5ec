//! Binding a scan at execution: one catalog snapshot, one watermark per stream partition, and from them the
//! segments, tails and coverage of each leaf query.
//!
//! *Invariant*: all scans of one run see the same snapshot and the same watermarks, so a table that is joined
//! with itself, or a scan that is run again, gives the same rows.

pub mod compare;
mod coverage;
pub mod prune;

use crate::request::QueryStats;
use crate::transport::{LeafContext, LeafTransport, Watermark, Watermarks};
use datafusion::execution::memory_pool::MemoryPool;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use strandline_proto::catalog::{CatalogSnapshot, SegmentInfo, TableSnapshot};
use strandline_proto::ids::Half;
use strandline_proto::leaf::{
    CoverageFilter, LEAF_QUERY_VERSION, LeafQuery, LeafWork, SegmentTask, TailTask,
};
use strandline_proto::stats::LeafStats;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result, v1};
use tokio_util::sync::CancellationToken;

/// Which rows of a table a scan reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Halves {
    /// The table under its own name: coverage decides which half answers.
    Covered,
    /// One whole half, without coverage.
    Whole(Half),
}

/// One scan's leaf query, and what was left out of it.
#[derive(Debug)]
pub struct BoundScan {
    /// What travels.
    pub query: LeafQuery,
    /// Segments that were left out, each with the reason.
    pub pruned: Vec<(Arc<SegmentInfo>, String)>,
    /// Rows of pruned segments that coverage hides: offline, realtime.
    pub hidden: (u64, u64),
    /// Rows of pruned segments.
    pub pruned_rows: u64,
}

/// What one run of a plan is bound to. Travels to the scans as an extension of the session's configuration.
#[derive(Debug)]
pub struct QueryRun {
    /// The pinned snapshot.
    pub snapshot: Arc<CatalogSnapshot>,
    /// Carries the leaf queries.
    pub transport: Arc<dyn LeafTransport>,
    /// Counters of the query.
    pub stats: Arc<QueryStats>,
    /// Ends all work.
    pub cancel: CancellationToken,
    /// When all work must have ended.
    pub deadline: Option<Instant>,
    /// The query's memory.
    pub memory: Arc<dyn MemoryPool>,
    /// Values of the literals that a kept plan is bound to.
    pub parameters: Vec<Value>,
    /// Rows of the largest batch.
    pub batch_rows: usize,
    /// Watermarks by table, read once.
    pub watermarks: Mutex<HashMap<Arc<str>, Arc<Watermarks>>>,
    /// Whether rows count that others have superseded.
    pub skip_upsert: bool,
    /// For EXPLAIN ANALYZE: what each scan did.
    pub scans: Option<ScanCounts>,
}

/// What each scan of a run did, by [`LeafExec::node`](crate::plan::leaf_exec::LeafExec::node).
#[derive(Debug, Default)]
pub struct ScanCounts(Mutex<HashMap<usize, ScanCount>>);

/// What one scan did.
#[derive(Clone, Debug, Default)]
pub struct ScanCount {
    /// Counted by the leaf.
    pub stats: Arc<LeafStats>,
    /// Rows it gave.
    pub rows: u64,
    /// From its start to its last batch.
    pub elapsed: Duration,
}

impl ScanCounts {
    /// Counters for a scan that begins.
    pub fn begin(&self, node: usize, bound: &BoundScan) -> Arc<LeafStats> {
        let stats = Arc::clone(&self.0.lock().entry(node).or_default().stats);
        bound.count_pruned(&stats);
        stats
    }

    /// Notes a batch of a scan.
    pub fn progress(&self, node: usize, rows: usize, elapsed: Duration) {
        let mut counts = self.0.lock();
        let count = counts.entry(node).or_default();
        count.rows += rows as u64;
        count.elapsed = elapsed;
    }

    /// What a scan did so far.
    pub fn get(&self, node: usize) -> Option<ScanCount> {
        self.0.lock().get(&node).cloned()
    }

    /// All scans' counters together.
    pub fn total(&self) -> LeafStats {
        let total = LeafStats::default();
        self.0
            .lock()
            .values()
            .for_each(|c| total.add(&c.stats.counts()));
        total
    }
}

impl QueryRun {
    /// What a leaf query of this run runs under.
    pub fn context(&self) -> LeafContext {
        LeafContext {
            stats: Arc::clone(&self.stats.leaf),
            cancel: self.cancel.clone(),
            deadline: self.deadline,
            memory: Arc::clone(&self.memory),
        }
    }

    fn watermarks(&self, table: &TableSnapshot) -> Result<Arc<Watermarks>> {
        let mut pinned = self.watermarks.lock();
        if let Some(found) = pinned.get(&table.name) {
            return Ok(Arc::clone(found));
        }
        let read = Arc::new(self.transport.watermarks(table)?);
        pinned.insert(Arc::clone(&table.name), Arc::clone(&read));
        Ok(read)
    }

    /// The table of a scan in the pinned snapshot.
    pub fn table(&self, name: &str) -> Result<&Arc<TableSnapshot>> {
        self.snapshot.tables.get(name).ok_or_else(|| {
            Error::not_found(format!(
                "the table {name} is gone: it was dropped after the query was planned"
            ))
        })
    }

    /// Binds a scan's work to rows.
    pub fn bind(&self, name: &str, halves: Halves, work: &Arc<LeafWork>) -> Result<BoundScan> {
        let table = self.table(name)?;
        let coverage = match halves {
            Halves::Covered if table.has_boundary() => Some(coverage::filter_of(table)?),
            _ => None,
        };
        if coverage.is_some() {
            self.report_coverage(table);
        }
        let mut bound = BoundScan {
            query: LeafQuery {
                version: LEAF_QUERY_VERSION,
                query_id: self.stats.query_id,
                table: Arc::clone(&table.name),
                schema: Arc::clone(&table.schema),
                lineage: Arc::clone(&table.lineage),
                work: Arc::clone(work),
                parameters: Vec::new(),
                segments: Vec::new(),
                tails: Vec::new(),
                coverage: None,
                keys_version: None,
                batch_rows_max: self.batch_rows,
            },
            pruned: Vec::new(),
            hidden: (0, 0),
            pruned_rows: 0,
        };
        for segment in &table.segments {
            if halves != Halves::Covered && halves != Halves::Whole(segment.half) {
                continue;
            }
            bound.add_segment(table, segment, coverage.as_ref(), work);
        }
        let has_tails = table.has_realtime && halves != Halves::Whole(Half::Offline);
        if has_tails || table.pushed.is_some() {
            let watermarks = self.watermarks(table)?;
            if has_tails {
                bound.query.tails = tails(table, &watermarks.partitions);
            }
            let keys = watermarks.keys.as_ref().filter(|_| !self.skip_upsert);
            bound.query.keys_version = keys.map(|keys| keys.version);
        }
        bound.query.coverage = coverage;
        Ok(bound)
    }

    fn report_coverage(&self, table: &TableSnapshot) {
        let interval = |i: &strandline_proto::coverage::Interval| v1::TimeInterval {
            start_ms: i.start_ms,
            end_ms: i.end_ms,
        };
        self.stats.coverage.lock().insert(
            table.name.to_string(),
            v1::TableCoverage {
                table: table.name.to_string(),
                intervals: table.coverage.intervals().iter().map(interval).collect(),
                gaps: table.gaps.iter().map(interval).collect(),
                pinned: table.pinned,
            },
        );
    }
}

impl BoundScan {
    /// Adds what this scan leaves out to counters.
    pub fn count_pruned(&self, counters: &LeafStats) {
        counters
            .segments_pruned
            .fetch_add(self.pruned.len() as u64, Ordering::Relaxed);
        counters
            .docs_total
            .fetch_add(self.pruned_rows, Ordering::Relaxed);
        counters
            .hidden_offline_rows
            .fetch_add(self.hidden.0, Ordering::Relaxed);
        counters
            .hidden_realtime_rows
            .fetch_add(self.hidden.1, Ordering::Relaxed);
    }

    fn add_segment(
        &mut self,
        table: &TableSnapshot,
        segment: &Arc<SegmentInfo>,
        coverage: Option<&CoverageFilter>,
        work: &LeafWork,
    ) {
        let hidden = coverage.is_some() && coverage::hides(table, segment);
        let reason = if hidden {
            match segment.half {
                Half::Offline => self.hidden.0 += segment.rows,
                Half::Realtime => self.hidden.1 += segment.rows,
            }
            Some(match segment.half {
                Half::Offline => "outside coverage".to_owned(),
                Half::Realtime => "inside coverage".to_owned(),
            })
        } else {
            prune::excluded_by(&work.filter, &[], segment)
        };
        match reason {
            Some(reason) => {
                self.pruned_rows += segment.rows;
                self.pruned.push((Arc::clone(segment), reason));
            }
            None => self.query.segments.push(SegmentTask {
                name: segment.name.clone(),
                checksum: segment.checksum,
                half: segment.half,
                schema_version: segment.schema_version,
            }),
        }
    }
}

/// The tails behind the committed offsets, up to the watermarks. A partition without a watermark shows no rows yet.
fn tails(table: &TableSnapshot, watermarks: &[Watermark]) -> Vec<TailTask> {
    table
        .tails
        .iter()
        .filter_map(|tail| {
            let to_offset = watermarks
                .iter()
                .find(|w| w.partition == tail.partition)?
                .to_offset;
            (to_offset > tail.from_offset).then(|| TailTask {
                partition: tail.partition.clone(),
                from_offset: tail.from_offset,
                to_offset,
            })
        })
        .collect()
}
