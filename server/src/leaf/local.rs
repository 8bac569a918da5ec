//! The transport within one process: leaf queries run on this server's own segments.

use super::expression::truncated_columns;
use super::filter::{Compiler, Cut, Node, PlannedCoverage, PlannedFilter, describe_filter};
use super::guard::Guard;
use super::pool::{ScanPool, contained};
use super::query_log::QueryLog;
use super::scan::Scan;
use super::segment::SegmentView;
use super::star_tree::StarQuery;
use super::{SegmentHost, aggregate, rows};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::sync::Arc;
use std::time::Instant;
use strandline_broker::transport::{LeafContext, LeafTransport, Watermarks};
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::ids::Half;
use strandline_proto::leaf::{
    LEAF_QUERY_VERSION, LeafExplanation, LeafExpr, LeafFilter, LeafOutput, LeafQuery,
};
use strandline_proto::stats::LeafCounts;
use strandline_proto::{Error, Result};
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::adapted::adapt;
use tokio_util::sync::DropGuard;

/// Executes leaf queries over the segments of a [`SegmentHost`], on a [`ScanPool`].
#[derive(Debug)]
pub struct LocalLeaf {
    host: Arc<dyn SegmentHost>,
    pool: ScanPool,
    log: Arc<QueryLog>,
}

impl LocalLeaf {
    /// A leaf over `host`'s segments.
    pub fn new(host: Arc<dyn SegmentHost>, pool: ScanPool) -> Self {
        Self {
            host,
            pool,
            log: Arc::default(),
        }
    }

    /// What has been asked of it.
    pub fn log(&self) -> Arc<QueryLog> {
        Arc::clone(&self.log)
    }

    /// The segments and tails that a query names, all of them or an error.
    fn segments(&self, query: &LeafQuery) -> Result<Vec<Arc<SegmentView>>> {
        let mut views = Vec::with_capacity(query.segments.len() + query.tails.len());
        for task in &query.segments {
            let reader = self.host.segment(&query.table, task, query.keys_version)?;
            let reader = by_schema(query, reader, task.schema_version)?;
            let schema = Arc::clone(&query.schema);
            views.push(SegmentView::new(reader, task.half, false, schema));
        }
        for task in &query.tails {
            for reader in self.host.tail(&query.table, task, query.keys_version)? {
                let version = reader.schema_version();
                let reader = by_schema(query, reader, version)?;
                let schema = Arc::clone(&query.schema);
                views.push(SegmentView::new(reader, Half::Realtime, true, schema));
            }
        }
        Ok(views.into_iter().map(Arc::new).collect())
    }
}

fn check_version(query: &LeafQuery) -> Result<()> {
    if query.version > LEAF_QUERY_VERSION {
        return Err(Error::unsupported(format!(
            "not supported: a leaf query of version {}, this server knows {LEAF_QUERY_VERSION}: upgrade servers before brokers",
            query.version
        )));
    }
    Ok(())
}

/// Fires the query's own cancellation when its stream goes, and notes what it came to.
struct Held<S> {
    stream: S,
    _cancel: DropGuard,
    _noted: Noted,
}

/// A query that is noted in the log when this goes.
struct Noted {
    log: Arc<QueryLog>,
    scan: Arc<Scan>,
    begun: Instant,
    /// What the statement's other scans had counted when this one began.
    before: LeafCounts,
}

impl Drop for Noted {
    fn drop(&mut self) {
        let counts = self.scan.stats.counts();
        self.log.add(
            &self.scan.query,
            self.begun.elapsed(),
            counts.docs_scanned.saturating_sub(self.before.docs_scanned),
            counts.docs_matched.saturating_sub(self.before.docs_matched),
        );
    }
}

#[async_trait]
impl LeafTransport for LocalLeaf {
    fn watermarks(&self, table: &TableSnapshot) -> Result<Watermarks> {
        self.host.watermarks(table)
    }

    async fn run(
        &self,
        query: LeafQuery,
        context: LeafContext,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        check_version(&query)?;
        let (begun, before) = (Instant::now(), context.stats.counts());
        let segments = self.segments(&query)?;
        let cancel = context.cancel.child_token();
        let guard = Guard::new(&context, cancel.clone());
        let held = cancel.drop_guard();
        let work = Arc::clone(&query.work);
        let scan = Arc::new(Scan::new(
            query,
            segments,
            guard,
            context.stats,
            context.memory,
            self.pool.lane(),
        ));
        let noted = Noted {
            log: Arc::clone(&self.log),
            scan: Arc::clone(&scan),
            begun,
            before,
        };
        let stream = match &work.output {
            LeafOutput::Rows {
                project,
                limit,
                order,
            } => rows::stream(scan, project, *limit, order)?,
            LeafOutput::Aggregate { group, aggregates } => {
                let batches = aggregate::run(scan, group, aggregates).await?;
                stream::iter(batches.into_iter().map(Ok)).boxed()
            }
        };
        let held = Held {
            stream,
            _cancel: held,
            _noted: noted,
        };
        Ok(stream::unfold(held, |mut held| async move {
            held.stream.next().await.map(|batch| (batch, held))
        })
        .boxed())
    }

    fn answers_whole(&self) -> bool {
        true
    }

    fn explain(&self, query: &LeafQuery) -> Result<LeafExplanation> {
        check_version(query)?;
        contained(|| self.explain_segments(query))
    }
}

/// The columns of timestamp indexes that a query could use, each once.
fn truncated_columns_of(query: &LeafQuery) -> Vec<String> {
    let mut exprs = Vec::new();
    exprs_of_filter(&query.work.filter, &mut exprs);
    match &query.work.output {
        LeafOutput::Rows { project, order, .. } => {
            exprs.extend(project);
            exprs.extend(order.iter().map(|key| &key.expr));
        }
        LeafOutput::Aggregate { group, aggregates } => {
            exprs.extend(group.iter().map(|key| &key.expr));
            for aggregate in aggregates {
                exprs.extend(&aggregate.argument);
                if let Some(filter) = &aggregate.filter {
                    exprs_of_filter(filter, &mut exprs);
                }
            }
        }
    }
    let mut columns = Vec::new();
    for expr in exprs {
        truncated_columns(expr, &query.schema, &query.parameters, &mut columns);
    }
    columns.sort_unstable();
    columns.dedup();
    columns
}

fn exprs_of_filter<'a>(filter: &'a LeafFilter, out: &mut Vec<&'a LeafExpr>) {
    match filter {
        LeafFilter::And(children) | LeafFilter::Or(children) => {
            children
                .iter()
                .for_each(|child| exprs_of_filter(child, out));
        }
        LeafFilter::Column(_) => {}
        LeafFilter::Expr(expr) => out.push(expr),
    }
}

/// A segment of a version of the schema, as the query's version reads it.
fn by_schema(
    query: &LeafQuery,
    reader: Arc<dyn SegmentReader>,
    version: u32,
) -> Result<Arc<dyn SegmentReader>> {
    if version > query.schema.version {
        return Err(Error::segment_gone(format!(
            "segment {} is of a newer schema of table {} than the query",
            reader.name(),
            query.table
        )));
    }
    Ok(adapt(reader, version, &query.schema, &query.lineage))
}

impl LocalLeaf {
    fn explain_segments(&self, query: &LeafQuery) -> Result<LeafExplanation> {
        let segments = self.segments(query)?;
        let all = segments.len();
        let (mut uncovered, mut cut, mut excluded) = (0usize, 0usize, 0usize);
        let mut paths: Vec<((String, &'static str), usize)> = Vec::new();
        let coverage = query.coverage.as_ref();
        let coverage = coverage
            .map(|coverage| PlannedCoverage::new(coverage, &query.schema))
            .transpose()?;
        let star = match &query.work.output {
            LeafOutput::Aggregate { group, aggregates } => {
                StarQuery::new(query, group, aggregates, &segments)
            }
            LeafOutput::Rows { .. } => None,
        };
        let mut trees: Vec<(String, usize, u64)> = Vec::new();
        let planned = PlannedFilter::new(&query.work.filter, query, true)?;
        for segment in &segments {
            let cuts = Cut::new(segment, coverage.as_ref())?;
            match &cuts {
                Cut::Nothing => {
                    uncovered += 1;
                    continue;
                }
                Cut::All => {}
                Cut::Inside(_) | Cut::Outside(_) => cut += 1,
            }
            if matches!(cuts, Cut::All)
                && let Some(star) = &star
                && let Some(answer) = star.answer(&planned, segment)?
            {
                let name = answer.tree.dimensions().collect::<Vec<_>>().join(", ");
                match trees.iter_mut().find(|(known, ..)| *known == name) {
                    Some((_, count, records)) => {
                        *count += 1;
                        *records += answer.records;
                    }
                    None => trees.push((name, 1, answer.records)),
                }
                continue;
            }
            let mut compiler = Compiler::new(segment);
            excluded += usize::from(matches!(compiler.compile(&planned)?, Node::Nothing));
            for path in compiler.paths {
                match paths.iter_mut().find(|(known, _)| *known == path) {
                    Some((_, count)) => *count += 1,
                    None => paths.push((path, 1)),
                }
            }
        }
        let mut lines = Vec::new();
        let filter = describe_filter(&query.work.filter, &query.parameters);
        if filter != "true" {
            lines.push(format!("filter: {filter}"));
        }
        for (dimensions, count, records) in trees {
            lines.push(format!(
                "star-tree: ({dimensions}) by {records} records ({count} of {all} segments)"
            ));
        }
        for ((predicate, by), count) in paths {
            lines.push(format!(
                "index: {predicate} by {by} ({count} of {all} segments)"
            ));
        }
        for column in truncated_columns_of(query) {
            let count = segments.iter().filter(|s| s.has(&column)).count();
            if count > 0 {
                lines.push(format!(
                    "timestamp index: {column} ({count} of {all} segments)"
                ));
            }
        }
        if let Some(coverage) = &query.coverage {
            lines.push(format!(
                "coverage: by {} leaves out {uncovered} and cuts {cut} of {all} segments",
                coverage.column
            ));
        }
        if excluded > 0 {
            lines.push(format!(
                "pruned: {excluded} of {all} segments by dictionary, bloom filter or metadata"
            ));
        }
        Ok(LeafExplanation { lines })
    }
}
