//! Running one statement for any front end: cancelled when the caller goes away, measured once.

use super::cells::{pinot_type, plain_batch, plain_schema};
use super::metrics::QueryTimer;
use crate::engine::Engine;
use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use strandline_broker::{QueryRequest, QueryStats};
use strandline_proto::value::Value;
use strandline_proto::{Result, v1};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes of SQL that a statement may have.
const SQL_BYTES_MAX: usize = 4 << 20;
/// Bytes that a piece of an answer should stay under: common gRPC clients refuse messages over 4 MiB.
const PIECE_BYTES_MAX: usize = 2 << 20;

/// A statement as a front end received it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) sql: String,
    pub(crate) parameters: Vec<Value>,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) timeout: Option<Duration>,
    /// `grpc` or `http`, for the metrics.
    pub(crate) front: &'static str,
}

/// An answer on its way. Dropping it stops the query.
pub(crate) struct Answer {
    schema: SchemaRef,
    batches: BoxStream<'static, Result<RecordBatch>>,
    pieces: VecDeque<RecordBatch>,
    statistics: Arc<QueryStats>,
    timer: QueryTimer,
    _stop: DropGuard,
}

impl Answer {
    /// Plans and starts a statement.
    pub(crate) async fn start(engine: &Engine, ask: Ask) -> Result<Self> {
        let mut timer = QueryTimer::start(ask.front);
        if ask.sql.len() > SQL_BYTES_MAX {
            let error = strandline_proto::Error::exhausted(format!(
                "the statement has {} bytes, more than the {SQL_BYTES_MAX} that are allowed; use parameters for long values",
                ask.sql.len()
            ));
            timer.failed(&error);
            return Err(error);
        }
        let cancel = CancellationToken::new();
        let stop = cancel.clone().drop_guard();
        let request = QueryRequest {
            sql: ask.sql,
            parameters: ask.parameters,
            options: ask.options,
            timeout: ask.timeout,
            cancel,
        };
        let answer = engine
            .query(request)
            .await
            .inspect_err(|error| timer.failed(error))?;
        Ok(Self {
            schema: plain_schema(&answer.schema),
            batches: answer.batches,
            pieces: VecDeque::new(),
            statistics: answer.statistics,
            timer,
            _stop: stop,
        })
    }

    /// The columns, in plain types.
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows, in pieces that fit a message; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(Ok(piece));
            }
            let next = self
                .batches
                .next()
                .await
                .map(|batch| plain_batch(batch?, &self.schema));
            match next {
                Some(Ok(batch)) => self.pieces = split(batch).into(),
                Some(Err(error)) => {
                    self.timer.failed(&error);
                    return Some(Err(error));
                }
                None => {
                    self.timer.finished();
                    return None;
                }
            }
        }
    }

    /// What the query touched; complete once [`Answer::next`] has given none.
    pub(crate) fn statistics(&self) -> v1::QueryStatistics {
        self.statistics.finished()
    }
}

/// Slices a batch so that each piece has about [`PIECE_BYTES_MAX`]; empty batches vanish.
fn split(batch: RecordBatch) -> Vec<RecordBatch> {
    let rows = batch.num_rows();
    if rows == 0 {
        return Vec::new();
    }
    let bytes: usize = batch
        .columns()
        .iter()
        .map(|column| {
            column
                .to_data()
                .get_slice_memory_size()
                .unwrap_or_else(|_| column.get_array_memory_size())
        })
        .sum();
    let pieces = bytes.div_ceil(PIECE_BYTES_MAX).clamp(1, rows);
    let step = rows.div_ceil(pieces);
    (0..rows)
        .step_by(step)
        .map(|from| batch.slice(from, step.min(rows - from)))
        .collect()
}

/// The columns of an answer as clients are told them.
pub(crate) fn result_schema(schema: &SchemaRef) -> v1::ResultSchema {
    let column = |field: &Arc<arrow::datatypes::Field>| v1::ResultColumn {
        name: field.name().clone(),
        data_type: pinot_type(field),
        arrow_type: field.data_type().to_string(),
    };
    v1::ResultSchema {
        columns: schema.fields().iter().map(column).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    #[test]
    fn wide_batches_are_cut_and_no_row_is_lost() {
        let rows: Vec<String> = (0..1000).map(|row| format!("{row:010000}")).collect();
        let column: arrow::array::ArrayRef = Arc::new(StringArray::from(rows));
        let pieces = split(RecordBatch::try_from_iter([("text", column)]).unwrap());
        assert!(pieces.len() >= 5);
        assert_eq!(
            pieces.iter().map(RecordBatch::num_rows).sum::<usize>(),
            1000
        );
    }
}
