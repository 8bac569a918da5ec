//! Filter and project: rows as Arrow batches, in a stream that reads no further than it is asked.
//!
//! Three stages, each a bounded number of jobs ahead of the next: prepare segments, find documents by morsel,
//! read columns by batch. Nothing blocks a scan thread: a slow reader just leaves the next job unsubmitted.

mod rank;
mod top;

use super::expression::{BoundExpression, Expression};
use super::filter::Scratch;
use super::guard::Budget;
use super::scan::{Prepared, Scan};
use super::segment::SegmentView;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::ops::Range;
use std::sync::Arc;
use strandline_index::{CHUNK_DOCS, DocBits, DocId, DocSelection};
use strandline_proto::leaf::{LeafExpr, SortKey};
use strandline_proto::{Error, Result};

/// A segment whose rows are read.
struct SegmentRows {
    prepared: Prepared,
    columns: Vec<BoundExpression>,
}

/// Documents of a segment that pass.
struct Found {
    segment: Arc<SegmentRows>,
    docs: Documents,
}

/// Documents, or only how many.
enum Documents {
    Listed {
        docs: Vec<DocId>,
        _budget: Budget,
    },
    /// Few, found by their order.
    Sorted(Vec<DocId>),
    Counted(u64),
}

/// One batch to be.
enum Block {
    Listed {
        segment: Arc<SegmentRows>,
        docs: Vec<DocId>,
    },
    Counted(usize),
}

/// What the stages share.
struct Shared {
    scan: Arc<Scan>,
    project: Vec<Arc<Expression>>,
}

/// Streams the rows that pass: at most `limit`, with `order` the first of them in that order (in any order themselves).
pub(super) fn stream(
    scan: Arc<Scan>,
    project: &[LeafExpr],
    limit: Option<usize>,
    order: &[SortKey],
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let prepare =
        |expr| Expression::new(expr, &scan.query.schema, &scan.query.parameters).map(Arc::new);
    let project = project.iter().map(prepare).collect::<Result<Vec<_>>>()?;
    if project.len() != scan.query.work.schema.fields().len() {
        return Err(Error::invalid(format!(
            "{} projected columns for a schema of {}",
            project.len(),
            scan.query.work.schema.fields().len()
        )));
    }
    scan.count_asked();
    let shared = Arc::new(Shared { scan, project });
    let found = match (order, limit) {
        ([], _) => find(&shared, limit),
        (order, Some(limit)) => top::stream(&shared, order, limit)?,
        (_, None) => return Err(Error::invalid("a leaf query with an order needs a limit")),
    };
    Ok(first_rows(batches(shared, found, limit), limit))
}

/// Ends a stream with the row that fills `limit`, without asking for what comes after.
fn first_rows(
    batches: BoxStream<'static, Result<RecordBatch>>,
    limit: Option<usize>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let Some(limit) = limit else { return batches };
    let state = (batches, limit);
    stream::unfold(state, |(mut batches, left)| async move {
        if left == 0 {
            return None;
        }
        let batch = batches.next().await?;
        let rows = batch.as_ref().map_or(left, RecordBatch::num_rows);
        Some((batch, (batches, left.saturating_sub(rows))))
    })
    .boxed()
}

/// Jobs that each stage is ahead.
fn ahead(scan: &Scan) -> usize {
    scan.lane.threads() + 1
}

/// Prepares all segments.
fn segments(shared: &Arc<Shared>) -> BoxStream<'static, Result<Option<Arc<SegmentRows>>>> {
    let segments = shared.scan.segments.clone();
    let ahead = ahead(&shared.scan);
    let shared = Arc::clone(shared);
    stream::iter(segments)
        .map(move |segment| {
            let shared = Arc::clone(&shared);
            async move {
                let lane = shared.scan.lane.clone();
                lane.run(move || start(&shared, &segment)).await
            }
        })
        .buffered(ahead)
        .boxed()
}

fn start(shared: &Shared, segment: &Arc<SegmentView>) -> Result<Option<Arc<SegmentRows>>> {
    let Some(prepared) = shared.scan.prepare(segment)? else {
        return Ok(None);
    };
    let bind = |expression: &Arc<Expression>| BoundExpression::new(Arc::clone(expression), segment);
    let columns = shared.project.iter().map(bind).collect::<Result<_>>()?;
    Ok(Some(Arc::new(SegmentRows { prepared, columns })))
}

/// The morsels of all segments that have documents to give. A small limit is often filled by a first chunk.
fn morsels(
    shared: &Arc<Shared>,
    single_chunks: bool,
) -> BoxStream<'static, Result<(Arc<SegmentRows>, Range<u32>)>> {
    let scan = Arc::clone(&shared.scan);
    segments(shared)
        .flat_map(move |segment| {
            let morsels: Vec<Result<_>> = match segment {
                Err(error) => vec![Err(error)],
                Ok(None) => Vec::new(),
                Ok(Some(segment)) => {
                    let view = &segment.prepared.segment;
                    let ranges = if single_chunks {
                        (0..view.num_chunks()).map(|c| c..c + 1).collect()
                    } else {
                        scan.morsels(view)
                    };
                    ranges
                        .into_iter()
                        .map(|range| Ok((Arc::clone(&segment), range)))
                        .collect()
                }
            };
            stream::iter(morsels)
        })
        .boxed()
}

/// Finds documents in the order of segments and documents, up to `limit`.
fn find(shared: &Arc<Shared>, limit: Option<usize>) -> BoxStream<'static, Result<Found>> {
    let scan = Arc::clone(&shared.scan);
    let ahead = ahead(&scan);
    let counted = shared.project.is_empty();
    morsels(shared, limit.is_some())
        .map(move |morsel| {
            let scan = Arc::clone(&scan);
            async move {
                let (segment, chunks) = morsel?;
                let lane = scan.lane.clone();
                lane.run(move || {
                    let docs = documents(
                        &scan,
                        &segment.prepared,
                        chunks,
                        counted,
                        limit.unwrap_or(usize::MAX),
                    )?;
                    Ok(Found { segment, docs })
                })
                .await
            }
        })
        .buffered(ahead)
        .boxed()
}

/// The documents of some chunks that pass, at most `limit`.
fn documents(
    scan: &Scan,
    prepared: &Prepared,
    chunks: Range<u32>,
    counted: bool,
    limit: usize,
) -> Result<Documents> {
    let budget = Budget::new(&scan.memory, "document numbers");
    let (mut bits, mut scratch) = (DocBits::new(), Scratch::default());
    let (mut docs, mut count) = (Vec::new(), 0u64);
    for chunk in chunks {
        scan.select(prepared, chunk, &mut bits, &mut scratch)?;
        count += u64::from(bits.count());
        if !counted {
            budget.reserve(count as usize * 4)?;
            bits.append_docs(chunk * CHUNK_DOCS, &mut docs);
        }
        if count >= limit as u64 {
            count = limit as u64;
            docs.truncate(limit);
            break;
        }
    }
    prepared.segment.check_faults()?;
    scan.count_matched(count);
    Ok(if counted {
        Documents::Counted(count)
    } else {
        Documents::Listed {
            docs,
            _budget: budget,
        }
    })
}

/// Cuts what was found into batches and reads their columns.
fn batches(
    shared: Arc<Shared>,
    found: BoxStream<'static, Result<Found>>,
    limit: Option<usize>,
) -> BoxStream<'static, Result<RecordBatch>> {
    let rows_max = shared.scan.query.batch_rows_max.max(1);
    let ahead = ahead(&shared.scan);
    let mut left = limit.unwrap_or(usize::MAX);
    found
        .flat_map(move |found| {
            let blocks: Vec<Result<Block>> = match found {
                Err(error) => vec![Err(error)],
                Ok(Found { segment, docs }) => cut(segment, docs, rows_max, &mut left)
                    .into_iter()
                    .map(Ok)
                    .collect(),
            };
            stream::iter(blocks)
        })
        .map(move |block| {
            let shared = Arc::clone(&shared);
            async move {
                let block = block?;
                let lane = shared.scan.lane.clone();
                // The reservation ends when the batch is handed on.
                lane.run(move || read(&shared.scan, block))
                    .await
                    .map(|(batch, _budget)| batch)
            }
        })
        .buffered(ahead)
        .boxed()
}

/// Batches of at most `rows_max` rows; `left` of all are still wanted.
fn cut(
    segment: Arc<SegmentRows>,
    docs: Documents,
    rows_max: usize,
    left: &mut usize,
) -> Vec<Block> {
    match docs {
        Documents::Counted(count) => {
            let mut count = usize::try_from(count).unwrap_or(usize::MAX).min(*left);
            *left -= count;
            let mut blocks = Vec::with_capacity(count.div_ceil(rows_max));
            while count > 0 {
                let rows = count.min(rows_max);
                blocks.push(Block::Counted(rows));
                count -= rows;
            }
            blocks
        }
        Documents::Listed { mut docs, .. } | Documents::Sorted(mut docs) => {
            docs.truncate(*left);
            *left -= docs.len();
            docs.chunks(rows_max)
                .map(|block| Block::Listed {
                    segment: Arc::clone(&segment),
                    docs: block.to_vec(),
                })
                .collect()
        }
    }
}

fn read(scan: &Scan, block: Block) -> Result<(RecordBatch, Budget)> {
    scan.guard.check()?;
    let budget = Budget::new(&scan.memory, "a batch of rows");
    let schema = Arc::clone(&scan.query.work.schema);
    let (rows, arrays) = match &block {
        Block::Counted(rows) => (*rows, Vec::new()),
        Block::Listed { segment, docs } => {
            let mut arrays = Vec::with_capacity(segment.columns.len());
            let mut bytes = 0;
            for (column, field) in segment.columns.iter().zip(schema.fields()) {
                let mut array = column.evaluate(selection(docs))?;
                if array.data_type() != field.data_type() {
                    array = cast(&array, field.data_type()).map_err(|e| {
                        Error::internal(format!(
                            "column {:?} of the answer can't be given as {}: {e}",
                            field.name(),
                            field.data_type()
                        ))
                    })?;
                }
                bytes += array.get_array_memory_size();
                budget.reserve(bytes)?;
                arrays.push(array);
            }
            segment.prepared.segment.check_faults()?;
            (docs.len(), arrays)
        }
    };
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema, arrays, &options)
        .map_err(|e| Error::internal(format!("rows are not what was planned: {e}")))?;
    Ok((batch, budget))
}

/// Documents as a range where they are one.
fn selection(docs: &[DocId]) -> DocSelection<'_> {
    match (docs.first(), docs.last()) {
        (Some(&first), Some(&last)) if (last - first) as usize + 1 == docs.len() => {
            DocSelection::Range(first..last + 1)
        }
        _ => DocSelection::Docs(docs),
    }
}
