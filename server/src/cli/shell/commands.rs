//! What the shell does itself: lines that begin with a backslash.

use super::Session;
use crate::cli::Outcome;
use crate::cli::client::refused;
use crate::cli::grid::Format;
use std::io::Write as _;
use strandline_proto::v1::query_response::Part;
use strandline_proto::v1::{GetBoundaryRequest, ListTablesRequest, QueryRequest, ResultFormat};
use strandline_proto::{Error, Result};

const HELP: &str = "\
\\d          list the tables
\\d TABLE    columns of a table, and its time boundary
\\timing     time statements, or stop doing so
\\format F   print answers as table, csv or json
\\q          leave
SET name = value;   an option for the statements that follow";

/// A backslash command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Quit,
    Help,
    Timing,
    Tables,
    Describe(String),
    Format(Format),
}

impl Command {
    pub(super) fn parse(line: &str) -> Result<Self> {
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim().trim_end_matches(';');
        Ok(match (name, argument) {
            ("\\q", _) => Self::Quit,
            ("\\?" | "\\h", _) => Self::Help,
            ("\\timing", _) => Self::Timing,
            ("\\d", "") => Self::Tables,
            ("\\d", table) => Self::Describe(table.trim_matches('"').to_owned()),
            ("\\format", format) => Self::Format(
                <Format as clap::ValueEnum>::from_str(format, true).map_err(|_| {
                    Error::invalid("use \\format table, \\format csv or \\format json")
                })?,
            ),
            _ => return Err(Error::invalid(format!("no command {name}; \\? lists them"))),
        })
    }
}

pub(super) async fn run(session: &mut Session, command: Command) -> Outcome {
    match command {
        Command::Quit => {}
        Command::Help => println!("{HELP}"),
        Command::Timing => {
            session.timing = !session.timing;
            println!("timing is {}", if session.timing { "on" } else { "off" });
        }
        Command::Format(format) => session.format = format,
        Command::Tables => {
            let tables = session
                .connection
                .admin()
                .list_tables(ListTablesRequest {})
                .await;
            for table in tables
                .map_err(|status| refused(&status))?
                .into_inner()
                .tables
            {
                println!("{table}");
            }
        }
        Command::Describe(table) => describe(session, &table).await?,
    }
    Ok(())
}

async fn describe(session: &Session, table: &str) -> Outcome {
    let request = QueryRequest {
        sql: format!("SELECT * FROM \"{}\" LIMIT 0", table.replace('"', "\"\"")),
        format: ResultFormat::Rows.into(),
        ..QueryRequest::default()
    };
    let mut parts = session
        .connection
        .queries()
        .query(request)
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    let mut out = std::io::stdout().lock();
    while let Some(response) = parts.message().await.map_err(|status| refused(&status))? {
        let Some(Part::Schema(schema)) = response.part else {
            continue;
        };
        let width = schema
            .columns
            .iter()
            .map(|column| column.name.chars().count())
            .max()
            .unwrap_or(0);
        for column in schema.columns {
            let padding = " ".repeat(width.saturating_sub(column.name.chars().count()));
            writeln!(out, " {}{padding}  {}", column.name, column.data_type)?;
        }
    }
    // A table with one half has no boundary, which is nothing to complain of.
    if let Ok(boundary) = session
        .connection
        .admin()
        .get_boundary(GetBoundaryRequest {
            table: table.to_owned(),
        })
        .await
    {
        let boundary = boundary.into_inner();
        writeln!(
            out,
            "boundary {}: {} offline rows before it, {} realtime rows from it on; hidden: {} realtime, {} offline",
            boundary.boundary,
            boundary.visible_offline_rows,
            boundary.visible_realtime_rows,
            boundary.hidden_realtime_rows,
            boundary.hidden_offline_rows
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_and_unknown_ones_named() {
        assert_eq!(
            Command::parse("\\d \"airlineStats\";").unwrap(),
            Command::Describe("airlineStats".into())
        );
        assert_eq!(Command::parse("\\d").unwrap(), Command::Tables);
        assert_eq!(
            Command::parse("\\format json").unwrap(),
            Command::Format(Format::Json)
        );
        assert!(Command::parse("\\x").unwrap_err().message().contains("\\x"));
    }
}
