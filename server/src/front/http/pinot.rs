//! Pinot's response document for `/query/sql`.
//!
//! The fields are Pinot's; beside them stand ours: `coverage`, `numHiddenRealtimeRows`,
//! `numHiddenOfflineRows`, `catalogVersion`, `planCached`, `timePlanUs` and `timeTotalUs`.

use crate::front::cells::{cell, pinot_type};
use crate::front::json::{write_cell, write_string};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::json;
use strandline_proto::{Error, ErrorKind, v1};

/// An answer's rows as they become JSON.
#[derive(Debug)]
pub struct RowsJson {
    text: String,
    rows: u64,
}

impl RowsJson {
    /// Begins the `resultTable` of an answer with these columns.
    pub fn new(schema: &SchemaRef) -> Self {
        let mut text = String::from("{\"dataSchema\":{\"columnNames\":[");
        for (at, field) in schema.fields().iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            write_string(field.name(), &mut text);
        }
        text.push_str("],\"columnDataTypes\":[");
        for (at, field) in schema.fields().iter().enumerate() {
            if at > 0 {
                text.push(',');
            }
            write_string(&pinot_type(field), &mut text);
        }
        text.push_str("]},\"rows\":[");
        Self { text, rows: 0 }
    }

    /// Appends a batch of plain types.
    pub fn push(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            self.text.push_str(if self.rows > 0 { ",[" } else { "[" });
            for (at, column) in batch.columns().iter().enumerate() {
                if at > 0 {
                    self.text.push(',');
                }
                write_cell(&cell(column.as_ref(), row), &mut self.text);
            }
            self.text.push(']');
            self.rows += 1;
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The whole document.
    pub fn document(mut self, statistics: &v1::QueryStatistics, millis: u128) -> String {
        self.text.push_str("]}");
        document(Some(&self.text), self.rows, None, statistics, millis)
    }
}

/// The document of a statement that failed: an entry in `exceptions` and no table.
pub fn failure_document(error: &Error, statistics: &v1::QueryStatistics, millis: u128) -> String {
    document(None, 0, Some(error), statistics, millis)
}

/// Pinot's number for an error kind (its `QueryErrorCode`).
fn error_code(kind: ErrorKind) -> u32 {
    match kind {
        ErrorKind::InvalidArgument | ErrorKind::Unsupported => 700,
        ErrorKind::NotFound => 190,
        ErrorKind::DeadlineExceeded => 250,
        ErrorKind::Cancelled => 503,
        ErrorKind::ResourceExhausted => 245,
        ErrorKind::Unavailable => 427,
        ErrorKind::SegmentGone => 305,
        ErrorKind::DataLoss | ErrorKind::AlreadyExists | ErrorKind::FailedPrecondition => 200,
        ErrorKind::Internal => 450,
    }
}

fn intervals(list: &[v1::TimeInterval]) -> Vec<serde_json::Value> {
    list.iter()
        .map(|interval| json!({ "startMs": interval.start_ms, "endMs": interval.end_ms }))
        .collect()
}

/// One table's coverage.
pub(super) fn coverage_json(coverage: &v1::TableCoverage) -> serde_json::Value {
    json!({
        "table": coverage.table,
        "intervals": intervals(&coverage.intervals),
        "gaps": intervals(&coverage.gaps),
        "pinned": coverage.pinned,
    })
}

fn document(
    table: Option<&str>,
    rows: u64,
    error: Option<&Error>,
    statistics: &v1::QueryStatistics,
    millis: u128,
) -> String {
    let exceptions: Vec<_> = error
        .iter()
        .map(|error| json!({ "errorCode": error_code(error.kind()), "message": error.message() }))
        .collect();
    // Which of the segments held a match is not counted apart; a query without a match matched none.
    let matched = if statistics.docs_matched == 0 {
        0
    } else {
        statistics.segments_queried
    };
    let fields = json!({
        "requestId": statistics.query_id.to_string(),
        "exceptions": exceptions,
        "partialResult": false,
        "numRowsResultSet": rows,
        "numServersQueried": 1,
        "numServersResponded": u8::from(error.is_none()),
        "numSegmentsQueried": statistics.segments_queried + statistics.segments_pruned,
        "numSegmentsProcessed": statistics.segments_queried,
        "numSegmentsMatched": matched,
        "numSegmentsPrunedByBroker": statistics.segments_pruned,
        "numSegmentsByStarTree": statistics.star_tree_segments,
        "numConsumingSegmentsQueried": statistics.consuming_segments_queried,
        "numDocsScanned": statistics.docs_matched,
        "numEntriesScannedInFilter": statistics.docs_scanned,
        "numGroupsLimitReached": false,
        "totalDocs": statistics.docs_total,
        "timeUsedMs": u64::try_from(millis).unwrap_or(u64::MAX),
        "coverage": statistics.coverage.iter().map(coverage_json).collect::<Vec<_>>(),
        "numHiddenRealtimeRows": statistics.hidden_realtime_rows,
        "numHiddenOfflineRows": statistics.hidden_offline_rows,
        "catalogVersion": statistics.catalog_version,
        "planCached": statistics.plan_cached,
        "timePlanUs": statistics.time_plan_us,
        "timeTotalUs": statistics.time_total_us,
    })
    .to_string();
    // The rows are JSON text already: they are put in as they are instead of being parsed again.
    match (table, fields.strip_prefix('{')) {
        (Some(table), Some(rest)) => format!("{{\"resultTable\":{table},{rest}"),
        _ => fields,
    }
}

#[cfg(test)]
#[path = "pinot_tests.rs"]
mod tests;
