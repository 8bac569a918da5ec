//! `strandline table`: schemas and tables, the boundary, and commits.

use super::client::{Connection, ServerArgs, print_warnings, refused};
use super::{Failure, Outcome};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use strandline_proto::Error;
use strandline_proto::v1::{
    BoundaryDescription, CreateTableRequest, DropTableRequest, ForceCommitRequest,
    GetBoundaryRequest, GetTableRequest, ListSegmentsRequest, ListTablesRequest,
    PinBoundaryRequest, PutSchemaRequest, ReleaseBoundaryRequest, ReloadStatus, ReloadTableRequest,
    RevertPushRequest, SetPausedRequest, UpdateTableRequest,
};

/// What to do with tables.
#[derive(Debug, clap::Subcommand)]
pub enum TableCommand {
    /// Create a table's halves from Pinot's JSON documents.
    Create {
        /// Schema; needed unless the server has it.
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
        /// Table config, offline or realtime; repeatable.
        #[arg(long = "config", value_name = "FILE", required = true)]
        configs: Vec<PathBuf>,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Give halves of a table other configs; segments are rewritten by them in the background.
    Update {
        /// Table config, offline or realtime; repeatable.
        #[arg(long = "config", value_name = "FILE", required = true)]
        configs: Vec<PathBuf>,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Rewrite segments that are not known to be stored as the table's config says, too.
    Reload {
        /// The table: T, T_OFFLINE or T_REALTIME.
        table: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Drop a table, or one half of it: T, T_OFFLINE or T_REALTIME.
    Drop {
        /// The table.
        table: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List the tables.
    List {
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show a table's segments, stream partitions and boundary.
    Show {
        /// The table.
        table: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Hold the time boundary at a time (2014-01-22, 2014-01-22T06:00:00 or milliseconds).
    Pin {
        /// The table.
        table: String,
        /// Where: offline answers before it, realtime from it on.
        boundary: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Let the boundary follow the data again.
    Release {
        /// The table.
        table: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// End the reading of the table's stream; what was read is committed.
    Pause {
        /// The table.
        table: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Have the reading of the table's stream go on.
    Resume {
        /// The table.
        table: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Undo a push: what it added goes, what it replaced is there again.
    Revert {
        /// The table.
        table: String,
        /// The push's id.
        push_id: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Seal and commit what the consuming segments hold.
    Commit {
        /// The table.
        table: String,
        /// The server.
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Runs the command.
pub(crate) async fn run(command: TableCommand) -> Outcome {
    let mut out = std::io::stdout();
    match command {
        TableCommand::Create {
            schema,
            configs,
            server,
        } => {
            // Read before anything is created, so that a wrong path creates nothing.
            let schema = schema.as_deref().map(read).transpose()?;
            let configs = configs
                .iter()
                .map(|path| read(path))
                .collect::<Result<Vec<_>, _>>()?;
            let mut admin = Connection::open(&server.server).await?.admin();
            if let Some(schema_json) = schema {
                let answer = admin
                    .put_schema(PutSchemaRequest { schema_json })
                    .await
                    .map_err(|status| refused(&status))?;
                print_warnings(&answer.get_ref().warnings);
                writeln!(out, "schema {}", answer.get_ref().name)?;
            }
            for config_json in configs {
                let answer = admin
                    .create_table(CreateTableRequest { config_json })
                    .await
                    .map_err(|status| refused(&status))?;
                print_warnings(&answer.get_ref().warnings);
                writeln!(out, "table {}", answer.get_ref().table)?;
            }
        }
        TableCommand::Update { configs, server } => {
            let configs = configs
                .iter()
                .map(|path| read(path))
                .collect::<Result<Vec<_>, _>>()?;
            let mut admin = Connection::open(&server.server).await?.admin();
            for config_json in configs {
                let answer = admin
                    .update_table(UpdateTableRequest { config_json })
                    .await
                    .map_err(|status| refused(&status))?;
                print_warnings(&answer.get_ref().warnings);
                writeln!(out, "table {}", answer.get_ref().table)?;
            }
        }
        TableCommand::Reload { table, server } => {
            let mut admin = Connection::open(&server.server).await?.admin();
            let answer = admin
                .reload_table(ReloadTableRequest { table })
                .await
                .map_err(|status| refused(&status))?;
            print_reload(answer.get_ref())?;
        }
        TableCommand::Drop { table, server } => {
            let mut admin = Connection::open(&server.server).await?.admin();
            let request = DropTableRequest {
                table: table.clone(),
            };
            let answer = admin
                .drop_table(request)
                .await
                .map_err(|status| refused(&status))?
                .into_inner();
            writeln!(
                out,
                "dropped {table} and its {} segments",
                answer.segments_dropped
            )?;
        }
        TableCommand::List { server } => {
            let mut admin = Connection::open(&server.server).await?.admin();
            let answer = admin
                .list_tables(ListTablesRequest {})
                .await
                .map_err(|status| refused(&status))?;
            for table in answer.into_inner().tables {
                writeln!(out, "{table}")?;
            }
        }
        TableCommand::Show { table, server } => {
            show(&Connection::open(&server.server).await?, &table).await?
        }
        TableCommand::Pin {
            table,
            boundary,
            server,
        } => {
            let boundary_ms = parse_time(&boundary).map_err(Failure::Usage)?;
            let mut admin = Connection::open(&server.server).await?.admin();
            let request = PinBoundaryRequest { table, boundary_ms };
            let answer = admin
                .pin_boundary(request)
                .await
                .map_err(|status| refused(&status))?;
            writeln!(out, "{}", boundary_text(answer.get_ref()))?;
        }
        TableCommand::Release { table, server } => {
            let mut admin = Connection::open(&server.server).await?.admin();
            let answer = admin
                .release_boundary(ReleaseBoundaryRequest { table })
                .await
                .map_err(|status| refused(&status))?;
            writeln!(out, "{}", boundary_text(answer.get_ref()))?;
        }
        TableCommand::Pause { table, server } => {
            set_paused(&server, table, true).await?;
        }
        TableCommand::Resume { table, server } => {
            set_paused(&server, table, false).await?;
        }
        TableCommand::Revert {
            table,
            push_id,
            server,
        } => {
            let mut admin = Connection::open(&server.server).await?.admin();
            let request = RevertPushRequest { table, push_id };
            let answer = admin.revert_push(request).await;
            let answer = answer.map_err(|status| refused(&status))?.into_inner();
            writeln!(
                out,
                "{} rows went, {} are there again",
                answer.rows_removed, answer.rows_restored
            )?;
        }
        TableCommand::Commit { table, server } => {
            let mut admin = Connection::open(&server.server).await?.admin();
            let request = ForceCommitRequest { table };
            let answer = admin
                .force_commit(request)
                .await
                .map_err(|status| refused(&status))?
                .into_inner();
            writeln!(
                out,
                "committed {} segments with {} rows",
                answer.segments, answer.rows
            )?;
        }
    }
    Ok(())
}

async fn set_paused(server: &ServerArgs, table: String, paused: bool) -> Outcome {
    let mut admin = Connection::open(&server.server).await?.admin();
    let state = if paused { "paused" } else { "resumed" };
    let line = format!("{state} the consumption of {table}");
    let request = SetPausedRequest { table, paused };
    let answer = admin.set_paused(request).await;
    answer.map_err(|status| refused(&status))?;
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

async fn show(connection: &Connection, table: &str) -> Outcome {
    let mut admin = connection.admin();
    let description = admin
        .get_table(GetTableRequest {
            table: table.to_owned(),
        })
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    let segments = admin
        .list_segments(ListSegmentsRequest {
            table: table.to_owned(),
        })
        .await
        .map_err(|status| refused(&status))?
        .into_inner()
        .segments;
    let mut out = std::io::stdout();
    print_warnings(&description.warnings);
    for segment in &segments {
        writeln!(
            out,
            "segment {}  {} rows  {} bytes{}",
            segment.name,
            segment.rows,
            segment.bytes,
            if segment.consuming { "  consuming" } else { "" }
        )?;
    }
    if let Some(reload) = &description.reload {
        print_reload(reload)?;
    }
    for partition in &description.partitions {
        writeln!(
            out,
            "partition {}/{}  {}  next offset {}  committed {}  consuming {} rows{}{}",
            partition.stream,
            partition.partition,
            partition.state,
            partition.next_offset,
            partition.committed_offset,
            partition.consuming_rows,
            if partition.last_error.is_empty() {
                ""
            } else {
                "  last error: "
            },
            partition.last_error
        )?;
    }
    if !description.offline_config_json.is_empty() && !description.realtime_config_json.is_empty() {
        let request = GetBoundaryRequest {
            table: table.to_owned(),
        };
        let boundary = admin
            .get_boundary(request)
            .await
            .map_err(|status| refused(&status))?;
        writeln!(out, "{}", boundary_text(boundary.get_ref()))?;
    }
    Ok(())
}

/// How many segments are stored as the config says, and what is in the way of the others.
fn print_reload(reload: &ReloadStatus) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let done = reload.segments - reload.waiting.min(reload.segments);
    let current = match reload.current.as_str() {
        "" => String::new(),
        segment => format!("; rewriting {segment}"),
    };
    writeln!(
        out,
        "{done} of {} segments are stored as the config says{current}",
        reload.segments
    )?;
    for error in &reload.errors {
        writeln!(out, "not rewritten: {}: {}", error.segment, error.message)?;
    }
    Ok(())
}

/// One line about where the boundary is and what stands on either side.
pub(crate) fn boundary_text(boundary: &BoundaryDescription) -> String {
    let pinned = boundary
        .coverage
        .as_ref()
        .is_some_and(|coverage| coverage.pinned);
    let place = match &boundary.coverage {
        Some(coverage) if !coverage.intervals.is_empty() => time_text(boundary.boundary_ms),
        _ => "none yet".to_owned(),
    };
    format!(
        "boundary {place}{}: {} offline + {} realtime rows; hidden: {} realtime, {} offline",
        if pinned { " (pinned)" } else { "" },
        boundary.visible_offline_rows,
        boundary.visible_realtime_rows,
        boundary.hidden_realtime_rows,
        boundary.hidden_offline_rows,
    )
}

/// A time as text: a date alone when it is a midnight.
pub(crate) fn time_text(ms: i64) -> String {
    match chrono::DateTime::from_timestamp_millis(ms) {
        Some(time) if ms.rem_euclid(86_400_000) == 0 => time.format("%Y-%m-%d").to_string(),
        Some(time) => time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string(),
        None => format!("{ms} ms"),
    }
}

/// Milliseconds since the epoch of a date, a date with a time (UTC), or milliseconds.
pub(crate) fn parse_time(text: &str) -> Result<i64, Error> {
    use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
    let text = text.trim();
    let written = text.trim_end_matches('Z').replace(' ', "T");
    let time = NaiveDateTime::parse_from_str(&written, "%Y-%m-%dT%H:%M:%S%.f").or_else(|_| {
        NaiveDate::parse_from_str(&written, "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN))
    });
    match (time, text.parse::<i64>()) {
        (Ok(time), _) => Ok(time.and_utc().timestamp_millis()),
        (Err(_), Ok(ms)) => Ok(ms),
        (Err(_), Err(_)) => Err(Error::invalid(format!(
            "\"{text}\" is not a time; write 2014-01-22, 2014-01-22T06:00:00 (UTC) or milliseconds since the epoch"
        ))),
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::Usage(Error::invalid(format!("file {}: {error}", path.display())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(parse_time("2014-01-25").unwrap(), 1_390_608_000_000);
        assert_eq!(
            parse_time("2014-01-25T06:00:00Z").unwrap(),
            1_390_629_600_000
        );
        assert_eq!(
            parse_time("2014-01-25 06:00:00.5").unwrap(),
            1_390_629_600_500
        );
        assert_eq!(parse_time("1390608000000").unwrap(), 1_390_608_000_000);
        assert!(parse_time("yesterday").is_err());
        assert_eq!(time_text(1_390_608_000_000), "2014-01-25");
        assert_eq!(time_text(1_390_629_600_500), "2014-01-25T06:00:00.500");
    }
}
