//! The command line: the server, the shell, and the jobs around them.
//!
//! Exit codes: 0 done; 1 the server or the statement said no; 2 wrong usage, or no server to talk to.

pub mod advise;
pub mod append;
pub mod audit;
pub mod backup;
pub mod build;
pub mod client;
pub mod config;
pub mod grid;
pub mod load;
pub mod logging;
pub mod push;
pub mod quickstart;
pub mod serve;
pub mod shell;
pub mod signals;
pub mod table;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use strandline_proto::Error;

#[derive(Debug, Parser)]
#[command(
    name = "strandline",
    version,
    about = "A columnar OLAP database with hybrid offline and realtime tables."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::ServeArgs),
    /// Query a server with SQL: a shell, or one statement with -c.
    Sql(shell::SqlArgs),
    /// Load files (Parquet, Avro, JSON lines, CSV) into an offline table, all or nothing.
    Load(load::LoadArgs),
    /// Make segment files on this machine, to be handed over with `push`.
    Build(build::BuildArgs),
    /// Hand over segment files that `build` made.
    Push(push::PushArgs),
    /// Create, drop and list tables.
    #[command(subcommand)]
    Table(table::TableCommand),
    /// Suggest indexes and a star-tree for a table from what it is asked.
    Advise(advise::AdviseArgs),
    /// Append lines from standard input to a topic of the embedded log.
    Append(append::AppendArgs),
    /// Tell whether a table's accounts add up to the row: read, filtered, dead, committed, moved, counted.
    Audit(audit::AuditArgs),
    /// Make a backup of everything while the server goes on.
    Backup(backup::BackupArgs),
    /// Make a data folder of a backup.
    Restore(backup::RestoreArgs),
    /// Make a lost metastore again of its copy beside the segments.
    Rebuild(backup::RebuildArgs),
    /// See a hybrid table at work: real flights, five queries, a server to play with.
    Quickstart(quickstart::QuickstartArgs),
}

/// Why a command ends without having done its work.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1.
    Refused(Error),
    /// Exit code 2.
    Usage(Error),
    /// Standard output can't be written; silent when its reader has gone (`| head`).
    Output(std::io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

/// What a command comes to.
pub type Outcome = std::result::Result<(), Failure>;

/// Runs the process's command line.
pub fn main() -> ExitCode {
    crate::allocator::allow_huge_pages(false);
    ExitCode::from(run(std::env::args_os()))
}

/// Runs a command line (the first argument is the program's name) and gives its exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("network")
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return report(&Failure::Usage(Error::unavailable(format!(
                "no threads: {error}"
            ))));
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Sql(arguments) => shell::run(arguments).await,
            Command::Load(arguments) => load::run(arguments).await,
            Command::Build(arguments) => build::run(arguments).await,
            Command::Push(arguments) => push::run(arguments).await,
            Command::Table(command) => table::run(command).await,
            Command::Advise(arguments) => advise::run(arguments).await,
            Command::Append(arguments) => append::run(arguments).await,
            Command::Audit(arguments) => audit::run(arguments).await,
            Command::Backup(arguments) => backup::backup(arguments).await,
            Command::Restore(arguments) => backup::restore(arguments).await,
            Command::Rebuild(arguments) => backup::rebuild(arguments).await,
            Command::Quickstart(arguments) => quickstart::run(arguments).await,
        }
    });
    // A blocking read of standard input must not hold the process back.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => 0,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> u8 {
    let mut out = std::io::stderr().lock();
    match failure {
        Failure::Refused(error) => {
            let _ = writeln!(out, "error: {error}");
            1
        }
        Failure::Usage(error) => {
            let _ = writeln!(out, "error: {error}");
            2
        }
        Failure::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Failure::Output(error) => {
            let _ = writeln!(out, "error: the output can't be written: {error}");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_is_exit_code_2_and_help_is_0() {
        let run = |words: &[&str]| super::run(words.iter().map(Into::into));
        assert_eq!(run(&["strandline", "sqll"]), 2);
        assert_eq!(run(&["strandline", "--version"]), 0);
    }
}
