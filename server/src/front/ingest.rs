//! What every way in shares: counting for the metrics.

use super::metrics::status_name;
use crate::engine::Engine;
use strandline_proto::v1::{AppendRequest, AppendResponse, LoadResult};
use strandline_proto::{Error, Result};

fn failed(operation: &'static str, error: &Error) {
    metrics::counter!("strandline_ingest_errors_total", "operation" => operation, "status" => status_name(error.kind()))
        .increment(1);
}

/// Appends to the embedded log; answers when the messages are on disk.
pub(crate) async fn append(engine: &Engine, request: AppendRequest) -> Result<AppendResponse> {
    let topic = request.topic.clone();
    let messages = request.messages.len() as u64;
    let response = engine
        .append(request)
        .await
        .inspect_err(|error| failed("append", error))?;
    metrics::counter!("strandline_log_messages_total", "topic" => topic)
        .increment(messages.saturating_sub(response.duplicates));
    Ok(response)
}

/// Counts a load's or push's outcome and gives it on.
pub(crate) fn counted(table: &str, outcome: Result<LoadResult>) -> Result<LoadResult> {
    match &outcome {
        Ok(result) => {
            if !result.already_done {
                metrics::counter!("strandline_loaded_rows_total", "table" => table.to_owned())
                    .increment(result.rows);
            }
            tracing::info!(
                table,
                push_id = result.push_id,
                rows = result.rows,
                segments = result.segments,
                already_done = result.already_done,
                "loaded"
            );
        }
        Err(error) => {
            failed("load", error);
            tracing::warn!(table, "load failed: {error}");
        }
    }
    outcome
}
