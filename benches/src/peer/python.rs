//! Engines in a Python process each, which answers one statement a line.

use super::Peer;
use crate::load::Loaded;
use crate::rows::Rows;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// An engine that runs in the Python process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Engine {
    /// DuckDB, over a native table in a database file
    Duckdb,
    /// ClickHouse (chdb), over a native table in a data folder
    Clickhouse,
    /// DataFusion, over the Parquet files
    Datafusion,
}

impl Engine {
    fn key(self) -> &'static str {
        match self {
            Self::Duckdb => "duckdb",
            Self::Clickhouse => "clickhouse",
            Self::Datafusion => "datafusion",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Duckdb => "DuckDB",
            Self::Clickhouse => "ClickHouse",
            Self::Datafusion => "DataFusion",
        }
    }
}

/// The running process. Ends with its input, at the latest when this is dropped; its tables go with it.
#[derive(Debug)]
pub struct Python {
    engine: Engine,
    version: String,
    loaded: Option<Loaded>,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    _data: TempDir,
}

impl Python {
    /// Starts `engine` over the Parquet files in `files` with `python`, its tables in a temporary folder.
    pub fn start(engine: Engine, python: &Path, files: &Path, threads: usize) -> io::Result<Self> {
        let data = tempfile::tempdir()?;
        let mut child = Command::new(python)
            .args(["-c", include_str!("../../peers.py")])
            .arg(engine.key())
            .arg(files)
            .arg(data.path())
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
            loaded: None,
            child,
            input,
            output: BufReader::new(output),
            _data: data,
        };
        let ready = peer.line()?;
        let number = |key: &str| ready[key].as_u64();
        peer.version = ready["version"].as_str().unwrap_or("unknown").to_owned();
        peer.loaded = number("bytes").map(|bytes| Loaded {
            rows: number("rows").unwrap_or(0),
            seconds: ready["load_s"].as_f64(),
            bytes,
        });
        match &peer.loaded {
            Some(loaded) => eprintln!("{} loaded {loaded}", peer.title()),
            None => eprintln!("{} reads the files", peer.title()),
        }
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

    fn ask(&mut self, request: &Value) -> io::Result<Value> {
        let Some(input) = &mut self.input else {
            return Err(io::Error::other("the peer has ended"));
        };
        writeln!(input, "{request}")?;
        input.flush()?;
        let answer = self.line()?;
        match answer["error"].as_str() {
            Some(error) => Err(io::Error::other(format!("{}: {error}", self.engine.name()))),
            None => Ok(answer),
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Peer for Python {
    fn key(&self) -> &'static str {
        self.engine.key()
    }

    fn title(&self) -> String {
        format!("{} {}", self.engine.name(), self.version)
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn loaded(&self) -> Option<Loaded> {
        self.loaded
    }

    fn answer(&mut self, sql: &str) -> io::Result<Rows> {
        let answer = self.ask(&json!({"sql": sql}))?;
        let cell = |cell: &Value| cell.as_str().unwrap_or("NULL").to_owned();
        let row = |row: &Value| list(row).iter().map(cell).collect();
        Ok(list(&answer["rows"]).iter().map(row).collect())
    }

    fn times_ms(&mut self, sql: &str, runs: usize) -> io::Result<Vec<f64>> {
        let answer = self.ask(&json!({"sql": sql, "runs": runs}))?;
        let times: Vec<f64> = list(&answer["times_ms"])
            .iter()
            .filter_map(Value::as_f64)
            .collect();
        match times.len() == runs {
            true => Ok(times),
            false => Err(io::Error::other(format!(
                "{} gave {} times of {runs}",
                self.engine.name(),
                times.len()
            ))),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.input.take());
        // The peer ends when its input does; what its end says no longer matters.
        let _ = self.child.wait();
    }
}
