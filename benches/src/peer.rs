//! Other engines as peers: a Python process each beside the benchmark, which answers one statement a line.

use crate::rows::Rows;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// An engine that runs in the Python process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// DuckDB, over a native table.
    Duckdb,
    /// ClickHouse (chdb), over a native table.
    Clickhouse,
    /// DataFusion, over the Parquet files.
    Datafusion,
}

impl Engine {
    /// Its name in commands and results.
    pub fn key(self) -> &'static str {
        match self {
            Self::Duckdb => "duckdb",
            Self::Clickhouse => "clickhouse",
            Self::Datafusion => "datafusion",
        }
    }

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Duckdb => "DuckDB",
            Self::Clickhouse => "ClickHouse",
            Self::Datafusion => "DataFusion",
        }
    }
}

/// The running peer. Ends with its input, at the latest when this is dropped.
pub struct Peer {
    /// What it is.
    pub engine: Engine,
    /// Its version.
    pub version: String,
    /// Seconds that loading took; for DataFusion, looking at the files.
    pub load_s: f64,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// What the peer says about one statement.
#[derive(Clone, Debug)]
pub struct PeerAnswer {
    /// Each timed run, in milliseconds.
    pub times_ms: Vec<f64>,
    /// The rows.
    pub rows: Rows,
}

impl Peer {
    /// Starts `engine` over `files` with `python`.
    pub fn start(engine: Engine, python: &Path, files: &Path, threads: usize) -> io::Result<Self> {
        let mut child = Command::new(python)
            .args(["-c", include_str!("../peers.py")])
            .arg(engine.key())
            .arg(files)
            .arg(threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", python.display())))?;
        let input = child.stdin.take();
        let output = child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("the peer has no output"))?;
        let mut peer = Self {
            engine,
            version: String::new(),
            load_s: f64::NAN,
            child,
            input,
            output: BufReader::new(output),
        };
        let ready = peer.line()?;
        peer.version = ready["version"].as_str().unwrap_or("unknown").to_owned();
        peer.load_s = ready["load_s"].as_f64().unwrap_or(f64::NAN);
        eprintln!(
            "{} {} holds {} rows after {:.1} s",
            engine.name(),
            peer.version,
            ready["rows"],
            peer.load_s
        );
        Ok(peer)
    }

    fn line(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(io::Error::other(format!(
                "{} ended; see its messages above",
                self.engine.name()
            )));
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Runs `sql` once to warm up and `runs` times timed.
    pub fn ask(&mut self, sql: &str, runs: usize) -> io::Result<PeerAnswer> {
        let Some(input) = &mut self.input else {
            return Err(io::Error::other("the peer has ended"));
        };
        writeln!(input, "{}", json!({"sql": sql, "runs": runs}))?;
        input.flush()?;
        let answer = self.line()?;
        if let Some(error) = answer["error"].as_str() {
            return Err(io::Error::other(format!("{}: {error}", self.engine.name())));
        }
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        Ok(PeerAnswer {
            times_ms: list(&answer["times_ms"])
                .iter()
                .filter_map(Value::as_f64)
                .collect(),
            rows: list(&answer["rows"])
                .iter()
                .map(|row| {
                    list(row)
                        .iter()
                        .map(|cell| cell.as_str().unwrap_or("NULL").to_owned())
                        .collect()
                })
                .collect(),
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.input.take());
        // The peer ends when its input does; what its end says no longer matters.
        let _ = self.child.wait();
    }
}
