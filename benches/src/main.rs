//! `strandline-bench`: generates data and measures.

use clap::{Parser, Subcommand};
use std::error::Error;
use std::path::PathBuf;
use strandline_benches::ssb_run::Options;
use strandline_benches::target::Source;
use strandline_benches::{load, scorecard, ssb_run};

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
    /// Runs the statements on Strandline and its peers, checks the answers, writes ratios
    Run(Options),
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
    /// Loads a generated file and prints rows/s, the server's largest memory and the segments' size
    Run {
        #[command(flatten)]
        source: Source,
        /// The file that `load generate` wrote
        #[arg(long)]
        file: PathBuf,
    },
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

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().command {
        Command::Ssb {
            action: Ssb::Generate { scale, out, seed },
        } => {
            let (files, rows) = strandline_benches::ssb::generate(&out, scale, seed)?;
            println!(
                "{rows} rows in {} files under {}",
                files.len(),
                out.display()
            );
        }
        Command::Ssb {
            action: Ssb::Run(options),
        } => ssb_run::run(&options).await?,
        Command::Scorecard(options) => scorecard::run::run(&options).await?,
        Command::Load {
            action: Load::Run { source, file },
        } => load::run(&source, &file).await?,
        Command::Load {
            action: Load::Generate { rows, out, seed },
        } => {
            strandline_benches::wide::generate(&out, rows, seed)?;
            println!("{rows} rows in {}", out.display());
        }
    }
    Ok(())
}
