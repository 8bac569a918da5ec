//! `strandline-bench`: generates data and measures.

use clap::{Parser, Subcommand};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use strandline_benches::serving::{closed, fair};
use strandline_benches::ssb::data;
use strandline_benches::{consuming, growth, ingest, keys, load, scorecard, ssb, upsert, wide};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "strandline-bench", about = "Benchmarks of Strandline", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The Star Schema Benchmark over one flat table
    Ssb {
        #[command(subcommand)]
        action: Ssb,
    },
    /// The benchmark's statements at several scale factors
    Growth(growth::Options),
    /// Point aggregations and small GROUP BYs over the benchmark's table, on many connections at once
    Closed(closed::Options),
    /// Point aggregations alone, then beside a full scan that is asked over and over
    Fair(fair::Options),
    /// The benchmark's statements on a consuming segment and on an immutable one of the same rows
    Consuming(consuming::Options),
    /// Rows that wait in a Kafka topic until they can be queried, then single rows
    Ingest(ingest::Options),
    /// Rows of so many keys that wait in a Kafka topic until they are taken in, then a restart
    Upsert(upsert::Options),
    /// Rows of so many keys into the keys of a table, without a server, then opened again
    Keys(keys::Options),
    /// Pages of nine statements each for one carrier, while rows stream in
    Scorecard(scorecard::run::Options),
    /// What loading costs
    Load {
        #[command(subcommand)]
        action: Load,
    },
}

#[derive(Subcommand)]
enum Ssb {
    /// Runs the statements on Strandline and its peers, checks the answers, writes ratios, sizes and rates of the loads
    Run(Box<ssb::run::Options>),
    /// Writes the table as Parquet files, sorted by order date
    Generate {
        /// Scale factor: about 6 million rows at 1
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        /// The folder to write to
        #[arg(long)]
        out: PathBuf,
        /// Rows follow from scale and seed alone
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

#[derive(Subcommand)]
enum Load {
    /// Loads a generated file: rows/s, the server's largest memory, the segments' size
    Run(load::Options),
    /// Writes a Parquet file of 20 columns
    Generate {
        /// Rows to write
        #[arg(long, default_value_t = 1_000_000)]
        rows: u64,
        /// The file to write
        #[arg(long)]
        out: PathBuf,
        /// Rows follow from the seed alone
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

async fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Ssb {
            action: Ssb::Generate { scale, out, seed },
        } => {
            let (files, rows) = data::generate(&out, scale, seed)?;
            println!(
                "{rows} rows in {} files under {}",
                files.len(),
                out.display()
            );
        }
        Command::Ssb {
            action: Ssb::Run(options),
        } => ssb::run::run(&options).await?,
        Command::Growth(options) => growth::run(&options).await?,
        Command::Closed(options) => closed::run(&options).await?,
        Command::Ingest(options) => ingest::run(&options).await?,
        Command::Upsert(options) => upsert::run(&options).await?,
        Command::Keys(options) => {
            tokio::task::spawn_blocking(move || keys::run(&options).map_err(|e| e.to_string()))
                .await??
        }
        Command::Fair(options) => fair::run(&options).await?,
        Command::Consuming(options) => consuming::run(&options).await?,
        Command::Scorecard(options) => scorecard::run::run(&options).await?,
        Command::Load {
            action: Load::Run(options),
        } => load::run(&options).await?,
        Command::Load {
            action: Load::Generate { rows, out, seed },
        } => {
            wide::generate(&out, rows, seed)?;
            println!("{rows} rows in {}", out.display());
        }
    }
    Ok(())
}

/// Waits for Ctrl-C, or for the wish of who started this that it ends; both are listened for from now on.
fn asked_to_end() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn run_until_asked_to_end(command: Command) -> Result<(), Box<dyn Error>> {
    let asked = asked_to_end()?;
    // Whichever ends first, the other is dropped, and with it the servers and folders of the measurement.
    tokio::select! {
        outcome = run(command) => outcome,
        () = asked => Err("interrupted; nothing is written".into()),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run_until_asked_to_end(Arguments::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
