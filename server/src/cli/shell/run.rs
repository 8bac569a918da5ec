//! One statement: sent, printed as it arrives, and complete only with its statistics.

use super::Session;
use crate::cli::Failure;
use crate::cli::client::refused;
use crate::cli::grid::Printer;
use crate::front::cells::{plain_batch, plain_schema};
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use std::io::Write;
use std::time::{Duration, Instant};
use strandline_proto::v1::query_response::Part;
use strandline_proto::v1::{QueryRequest, QueryStatistics, ResultFormat};
use strandline_proto::{Error, Result};

/// What is known of an answer after it was printed.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) elapsed: Duration,
    pub(crate) statistics: QueryStatistics,
}

impl Shown {
    /// `Time: 2.1 ms (server 1.3 ms)`.
    pub(super) fn timing(&self) -> String {
        format!(
            "Time: {} ({} at the server, {} of it planning{})",
            millis(self.elapsed),
            millis(Duration::from_micros(self.statistics.time_total_us)),
            millis(Duration::from_micros(self.statistics.time_plan_us)),
            if self.statistics.plan_cached {
                ", plan cached"
            } else {
                ""
            }
        )
    }
}

/// A duration in milliseconds, for reading.
pub(crate) fn millis(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}

/// Runs a statement and prints its answer.
pub(crate) async fn show(
    session: &Session,
    sql: &str,
    out: &mut (dyn Write + Send),
) -> std::result::Result<Shown, Failure> {
    let started = Instant::now();
    let request = QueryRequest {
        sql: sql.to_owned(),
        parameters: Vec::new(),
        options: session.options.clone().into_iter().collect(),
        format: ResultFormat::ArrowIpc.into(),
        timeout_ms: session.timeout_ms,
    };
    let mut parts = session
        .connection
        .queries()
        .query(request)
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    let mut decoder = StreamDecoder::new();
    let mut printer: Option<(Printer, SchemaRef)> = None;
    let mut statistics = None;
    while let Some(response) = parts.message().await.map_err(|status| refused(&status))? {
        match response.part {
            Some(Part::ArrowIpc(bytes)) => {
                let mut buffer = Buffer::from(bytes);
                while !buffer.is_empty() {
                    let batch = decoder
                        .decode(&mut buffer)
                        .map_err(|error| broken(&error))?;
                    if printer.is_none() {
                        printer = decoder.schema().map(|schema| {
                            let plain = plain_schema(&schema);
                            (Printer::new(session.format, &plain), plain)
                        });
                    }
                    if let (Some(batch), Some((printer, plain))) = (batch, &mut printer) {
                        printer.push(&plain_batch(batch, plain)?, out)?;
                    }
                }
            }
            Some(Part::Statistics(last)) => statistics = Some(last),
            Some(Part::Schema(_) | Part::Rows(_)) | None => {}
        }
    }
    let statistics = statistics.ok_or_else(|| incomplete("it ended without its statistics"))?;
    let (mut printer, _) = printer.ok_or_else(|| incomplete("it had no columns"))?;
    printer.finish(out)?;
    Ok(Shown {
        elapsed: started.elapsed(),
        statistics,
    })
}

fn incomplete(why: &str) -> Error {
    Error::unavailable(format!(
        "the answer is not complete: {why}; run the statement again"
    ))
}

fn broken(error: &ArrowError) -> Failure {
    Failure::Refused(incomplete(&error.to_string()))
}

/// A statement whose answer is one number.
pub(crate) async fn number(session: &Session, sql: &str) -> Result<u64, Failure> {
    let mut out = Vec::new();
    let csv = Session {
        format: crate::cli::grid::Format::Csv,
        ..session.clone()
    };
    show(&csv, sql, &mut out).await?;
    let text = String::from_utf8_lossy(&out);
    let value = text
        .lines()
        .nth(1)
        .and_then(|line| line.trim().parse().ok());
    value.ok_or_else(|| {
        Failure::Refused(Error::internal(format!(
            "{sql} gave no number: {}",
            text.trim()
        )))
    })
}
