//! `strandline sql`: a shell on a terminal, a script without one, or statements given with `-c`.

mod commands;
mod run;
mod statement;

pub(crate) use run::{millis, number, show};

use super::client::{Connection, ServerArgs};
use super::grid::Format;
use super::{Failure, Outcome};
use commands::Command;
use rustyline::error::ReadlineError;
use statement::take_statement;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use strandline_proto::Error;

/// Bytes of the longest statement that is put together from lines.
const STATEMENT_BYTES_MAX: usize = 4 << 20;

/// Arguments of `strandline sql`.
#[derive(Debug, clap::Args)]
pub struct SqlArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Run these statements and end; exit code 1 when one fails. Repeatable.
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    commands: Vec<String>,
    /// How answers are printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Print each statement's time (a terminal's shell does so anyhow).
    #[arg(long)]
    timing: bool,
    /// Time that a statement may take, in milliseconds; 0: the server's default.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    timeout_ms: u32,
}

/// What holds from statement to statement.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    connection: Connection,
    format: Format,
    timing: bool,
    timeout_ms: u32,
    /// What `SET` gave; sent along with each statement.
    options: BTreeMap<String, String>,
}

/// Runs the command.
pub(crate) async fn run(arguments: SqlArgs) -> Outcome {
    let mut session = Session {
        timing: arguments.timing,
        timeout_ms: arguments.timeout_ms,
        ..Session::new(
            Connection::open(&arguments.server.server).await?,
            arguments.format,
        )
    };
    if !arguments.commands.is_empty() {
        for text in &arguments.commands {
            session.script(text).await?;
        }
        return Ok(());
    }
    if std::io::stdin().is_terminal() {
        session.timing = true;
        return session.interactive().await;
    }
    let text = tokio::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()))
        .await
        .map_err(|error| Error::internal(format!("standard input: {error}")))?
        .map_err(|error| Failure::Usage(Error::invalid(format!("standard input: {error}"))))?;
    session.script(&text).await
}

impl Session {
    /// A session without options.
    pub(crate) fn new(connection: Connection, format: Format) -> Self {
        Self {
            connection,
            format,
            timing: false,
            timeout_ms: 0,
            options: BTreeMap::new(),
        }
    }

    /// Runs every statement of `text`; the last needs no `;`.
    async fn script(&mut self, text: &str) -> Outcome {
        let mut rest = text.to_owned();
        while let Some(statement) = take_statement(&mut rest) {
            self.statement(&statement).await?;
        }
        let last = rest.trim();
        if statement::is_blank(last) {
            Ok(())
        } else {
            self.statement(last).await
        }
    }

    async fn statement(&mut self, sql: &str) -> Outcome {
        if statement::is_blank(sql) {
            return Ok(());
        }
        if let Some((name, value)) = statement::set_option(sql) {
            self.options.insert(name, value);
            return Ok(());
        }
        let mut out = std::io::BufWriter::new(std::io::stdout());
        let shown = show(self, sql, &mut out).await?;
        if self.timing {
            writeln!(out, "{}", shown.timing())?;
        }
        out.flush()?;
        Ok(())
    }

    async fn interactive(&mut self) -> Outcome {
        let unusable = |error: ReadlineError| {
            Failure::Usage(Error::unavailable(format!(
                "this terminal can't be used: {error}"
            )))
        };
        let mut editor = rustyline::DefaultEditor::new().map_err(unusable)?;
        let history = history_path();
        if let Some(path) = &history {
            // There is none before the first session.
            let _ = editor.load_history(path);
        }
        println!(
            "strandline {} - SQL ends with ;   \\? for help, \\q to leave",
            env!("CARGO_PKG_VERSION")
        );
        let mut buffer = String::new();
        loop {
            let prompt = if buffer.is_empty() {
                "strandline> "
            } else {
                "        -> "
            };
            let line = match tokio::task::block_in_place(|| editor.readline(prompt)) {
                Ok(line) => line,
                // Ctrl-C throws away what was typed.
                Err(ReadlineError::Interrupted) => {
                    buffer.clear();
                    continue;
                }
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(unusable(error)),
            };
            if buffer.is_empty() && line.trim_start().starts_with('\\') {
                let _ = editor.add_history_entry(line.trim());
                match Command::parse(line.trim()) {
                    Ok(Command::Quit) => break,
                    Ok(command) => report(commands::run(self, command).await)?,
                    Err(error) => eprintln!("error: {error}"),
                }
                continue;
            }
            buffer.push_str(&line);
            buffer.push('\n');
            if buffer.len() > STATEMENT_BYTES_MAX {
                eprintln!(
                    "error: the statement is longer than {STATEMENT_BYTES_MAX} bytes; it was thrown away"
                );
                buffer.clear();
            }
            while let Some(statement) = take_statement(&mut buffer) {
                let _ = editor.add_history_entry(format!("{};", statement.trim()));
                let outcome = tokio::select! {
                    outcome = self.statement(&statement) => outcome,
                    // Dropping the answer cancels the query at the server.
                    _ = tokio::signal::ctrl_c() => Err(Failure::Refused(Error::cancelled("cancelled"))),
                };
                report(outcome)?;
            }
            if statement::is_blank(&buffer) {
                buffer.clear();
            }
        }
        if let Some(path) = &history
            && let Err(error) = editor.save_history(path)
        {
            eprintln!(
                "warning: the history was not saved to {}: {error}",
                path.display()
            );
        }
        Ok(())
    }
}

/// Prints a refusal and goes on; only a terminal that went away ends the shell.
fn report(outcome: Outcome) -> Outcome {
    match outcome {
        Err(Failure::Refused(error) | Failure::Usage(error)) => {
            eprintln!("error: {error}");
            Ok(())
        }
        other => other,
    }
}

fn history_path() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(PathBuf::from(home).join(".strandline_history"))
}
