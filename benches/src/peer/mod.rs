//! Other engines that answer the same statements: in a Python process beside the benchmark, or behind a URL.

mod pinot;
mod python;

use crate::load::Loaded;
use crate::rows::Rows;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

pub use pinot::{Pinot, PinotOptions};
pub use python::{Engine, Python};

/// An engine to compare with.
pub trait Peer {
    /// Its name in commands and results.
    fn key(&self) -> &'static str;
    /// Its name and version in tables.
    fn title(&self) -> String;
    /// Its version.
    fn version(&self) -> &str;
    /// What it cost to load the rows into its own tables; none when it holds none of its own.
    fn loaded(&self) -> Option<Loaded>;
    /// The answer to a statement over the table `lineorder`.
    fn answer(&mut self, sql: &str) -> io::Result<Rows>;
    /// The times of `runs` answers in milliseconds, after one that is not timed.
    fn times_ms(&mut self, sql: &str, runs: usize) -> io::Result<Vec<f64>>;
}

/// The engines to compare with.
#[derive(Clone, Debug, clap::Args)]
pub struct PeerOptions {
    /// The engines to compare with; nothing after it: none of them
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0.., default_values_t = [Engine::Duckdb])]
    peers: Vec<Engine>,
    /// A Python that has the peers: duckdb, chdb, datafusion
    #[arg(long, default_value = "python3")]
    python: PathBuf,
}

impl PeerOptions {
    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Starts the peers over the Parquet files in `files`, each of which must hold `rows` rows.
    pub fn start(&self, files: &Path, rows: u64) -> Result<Vec<Box<dyn Peer>>, Box<dyn Error>> {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let mut peers: Vec<Box<dyn Peer>> = Vec::new();
        for &engine in &self.peers {
            peers.push(Box::new(Python::start(
                engine,
                &self.python,
                files,
                threads,
            )?));
        }
        for peer in &mut peers {
            count(peer.as_mut(), rows)?;
        }
        Ok(peers)
    }
}

/// An error when a peer does not hold so many rows.
fn count(peer: &mut dyn Peer, rows: u64) -> Result<(), Box<dyn Error>> {
    let theirs = peer.answer("SELECT count(*) FROM lineorder")?;
    match theirs == [[rows.to_string()]] {
        true => Ok(()),
        false => Err(format!("{} holds {theirs:?} rows, not {rows}", peer.title()).into()),
    }
}
