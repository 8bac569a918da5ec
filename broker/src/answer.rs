//! The stream of an answer: counted, ended by its deadline or its caller, and stopped when it is dropped.

use crate::error::from_datafusion;
use crate::names;
use crate::request::{QueryAnswer, QueryStats};
use datafusion::arrow::array::RecordBatchOptions;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use strandline_proto::{Error, ErrorKind, Result};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The caller is gone.
pub(crate) fn cancelled() -> Error {
    Error::cancelled("the query was cancelled by its caller")
}

/// The deadline has passed.
pub(crate) fn late(timeout: Duration) -> Error {
    Error::deadline(format!(
        "the query took longer than its limit of {} ms: narrow it, or raise the limit with SET timeoutMs = n",
        timeout.as_millis()
    ))
}

/// When work must end.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) cancel: CancellationToken,
    pub(crate) deadline: Instant,
    pub(crate) timeout: Duration,
}

impl Limits {
    /// Waits for `work` within the limits.
    pub(crate) async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(cancelled()),
            () = tokio::time::sleep_until(self.deadline.into()) => Err(late(self.timeout)),
            done = work => Ok(done),
        }
    }

    /// An error of work that may have been stopped by the limits: theirs, then.
    fn blamed(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Cancelled | ErrorKind::DeadlineExceeded
                if Instant::now() >= self.deadline =>
            {
                late(self.timeout)
            }
            _ => error,
        }
    }
}

/// The schema of result columns as the user sees them.
pub(crate) fn shown_schema(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|f| {
                Field::new(
                    names::shown(f.name()),
                    f.data_type().clone(),
                    f.is_nullable(),
                )
            })
            .collect::<Vec<_>>(),
    ))
}

/// A plan's output, from its first batch on.
pub(crate) struct Output {
    inner: SendableRecordBatchStream,
    first: Option<Option<std::result::Result<RecordBatch, DataFusionError>>>,
}

impl Output {
    /// Waits for the first batch with rows, or the end. An error there comes back at once, while the query can still be run again.
    pub(crate) async fn start(
        mut inner: SendableRecordBatchStream,
        limits: &Limits,
    ) -> Result<Self> {
        loop {
            match limits.hold(inner.next()).await? {
                Some(Err(error)) => return Err(limits.blamed(from_datafusion(&error))),
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                first => {
                    return Ok(Self {
                        inner,
                        first: Some(first),
                    });
                }
            }
        }
    }
}

struct Sending {
    output: Option<Output>,
    schema: SchemaRef,
    limits: Limits,
    stats: Arc<QueryStats>,
    _guard: DropGuard,
}

impl Sending {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            let output = self.output.as_mut()?;
            let next = match output.first.take() {
                Some(first) => Ok(first),
                None => self.limits.hold(output.inner.next()).await,
            };
            let answer = match next {
                Ok(Some(Ok(batch))) if batch.num_rows() == 0 => continue,
                Ok(Some(Ok(batch))) => renamed(&batch, &self.schema),
                Ok(Some(Err(error))) => Err(self
                    .limits
                    .blamed(late_segment_loss(from_datafusion(&error)))),
                Ok(None) => {
                    self.end();
                    return None;
                }
                Err(error) => Err(error),
            };
            match &answer {
                Ok(batch) => {
                    self.stats
                        .rows_returned
                        .fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                }
                Err(_) => self.end(),
            }
            return Some(answer);
        }
    }

    /// Stops all work, so that the counters are final.
    fn end(&mut self) {
        self.output = None;
        self.stats
            .total_us
            .store(self.stats.elapsed_us().max(1), Ordering::Relaxed);
    }
}

fn late_segment_loss(error: Error) -> Error {
    match error.kind() {
        ErrorKind::SegmentGone => Error::unavailable(format!(
            "{}; part of the answer was sent already: run the query again",
            error.message()
        )),
        _ => error,
    }
}

fn renamed(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|e| {
            Error::internal(format!(
                "a batch of the answer does not fit its columns: {e}"
            ))
        })
}

/// The answer of a plan that has begun.
pub(crate) fn of_output(output: Output, limits: Limits, stats: Arc<QueryStats>) -> QueryAnswer {
    let schema = shown_schema(&output.inner.schema());
    let guard = limits.cancel.clone().drop_guard();
    let sending = Sending {
        output: Some(output),
        schema: Arc::clone(&schema),
        limits,
        stats: Arc::clone(&stats),
        _guard: guard,
    };
    let batches: BoxStream<'static, Result<RecordBatch>> =
        futures::stream::unfold(sending, |mut sending| async move {
            sending.next().await.map(|item| (item, sending))
        })
        .boxed();
    QueryAnswer {
        schema,
        batches,
        statistics: stats,
    }
}

/// An answer that is there already.
pub(crate) fn of_batch(batch: RecordBatch, stats: Arc<QueryStats>) -> QueryAnswer {
    stats
        .rows_returned
        .store(batch.num_rows() as u64, Ordering::Relaxed);
    stats
        .total_us
        .store(stats.elapsed_us().max(1), Ordering::Relaxed);
    QueryAnswer {
        schema: batch.schema(),
        batches: futures::stream::once(async move { Ok(batch) }).boxed(),
        statistics: stats,
    }
}
