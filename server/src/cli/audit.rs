//! `strandline audit`: whether a table's accounts add up to the row.

use super::client::{Connection, ServerArgs, refused};
use super::{Failure, Outcome};
use crate::engine::{Engine, EngineOptions};
use std::io::Write as _;
use std::path::PathBuf;
use strandline_proto::Error;
use strandline_proto::v1::{AuditReport, AuditRequest};

/// Arguments of `strandline audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// The table.
    table: String,
    /// Data folder to open instead of asking a server; no server may run on it.
    #[arg(long = "data", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) async fn run(arguments: AuditArgs) -> Outcome {
    let report = match arguments.data {
        Some(data) if !data.is_dir() => {
            return Err(Failure::Usage(Error::not_found(format!(
                "no folder {}",
                data.display()
            ))));
        }
        Some(data) => {
            let engine = Engine::open(EngineOptions::new(data)).await?;
            let report = engine.audit(&arguments.table).await;
            engine.shutdown().await;
            report?
        }
        None => {
            let mut admin = Connection::open(&arguments.server.server).await?.admin();
            let request = AuditRequest {
                table: arguments.table,
            };
            let answer = admin.audit(request).await;
            answer.map_err(|status| refused(&status))?.into_inner()
        }
    };
    print(&report)?;
    match report.exact {
        true => Ok(()),
        false => Err(Failure::Refused(Error::data_loss(format!(
            "table {} does not add up",
            report.table
        )))),
    }
}

fn print(report: &AuditReport) -> Outcome {
    let mut out = std::io::stdout();
    for p in &report.partitions {
        writeln!(
            out,
            "{}: offsets {} to {} of {}: {} messages read, {} rows unnested, {} filtered, {} deduplicated, {} dead letters, {} offsets lost; {} rows committed, {} consuming, {} moved offline, {} deleted, {} expired, {} compacted",
            p.partition,
            p.first_offset,
            p.next_offset,
            p.stream_end_offset,
            p.messages_read,
            p.rows_unnested,
            p.rows_filtered,
            p.rows_deduplicated,
            p.dead_letters,
            p.offsets_lost,
            p.rows_committed,
            p.rows_consuming,
            p.rows_moved,
            p.rows_deleted,
            p.rows_expired,
            p.rows_compacted
        )?;
    }
    writeln!(out, "offline: {} rows", report.offline_rows)?;
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    writeln!(
        out,
        "{}: {}",
        report.table,
        if report.exact { "exact" } else { "not exact" }
    )?;
    Ok(())
}
