//! The server that is measured: one that runs, or one that is started for the measurement.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use strandline_proto::v1::{ListSegmentsRequest, LoadOptions};
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;
use strandline_tests::process::Process;

/// Where the server comes from.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// A running server's gRPC, as in http://127.0.0.1:8098
    #[arg(long)]
    pub server: Option<String>,
    /// The strandline program, started over a data folder of its own for the measurement
    #[arg(long)]
    pub program: Option<PathBuf>,
}

/// A server to measure.
pub struct Target {
    /// The connection.
    pub client: Client,
    url: String,
    process: Option<Process>,
    _data: Option<tempfile::TempDir>,
}

/// What a load took.
#[derive(Clone, Copy, Debug)]
pub struct Loaded {
    /// Rows.
    pub rows: u64,
    /// How long.
    pub elapsed: Duration,
    /// Bytes of the segments.
    pub segment_bytes: u64,
}

impl Target {
    /// Connects to the server, or starts one.
    pub async fn open(source: &Source) -> Result<Self, Box<dyn Error>> {
        if let Some(url) = &source.server {
            return Ok(Self {
                client: Client::connect(url).await?,
                url: url.clone(),
                process: None,
                _data: None,
            });
        }
        let program = source
            .program
            .as_ref()
            .ok_or("neither a server nor a program")?;
        let data = tempfile::tempdir()?;
        let process = Process::start(&program.to_string_lossy(), data.path(), None)?;
        Ok(Self {
            client: Client::connect(&process.grpc).await?,
            url: process.grpc.clone(),
            process: Some(process),
            _data: Some(data),
        })
    }

    /// Another connection.
    pub async fn connect(&self) -> Result<Client, Box<dyn Error>> {
        Ok(Client::connect(&self.url).await?)
    }

    /// The largest memory the started server has held so far, in bytes.
    pub fn peak_bytes(&self) -> Option<u64> {
        let id = self.process.as_ref()?.id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// The rows of a table; none when there is no such table.
    pub async fn rows(&mut self, table: &str) -> Option<i128> {
        let (answer, _) = self
            .client
            .ask(&format!("SELECT count(*) FROM {table}"))
            .await
            .ok()?;
        match answer.rows.first()?.first()? {
            Cell::Number(rows, 0) => Some(*rows),
            _ => None,
        }
    }

    /// Makes an offline table and uploads files into it.
    pub async fn load(
        &mut self,
        table: &str,
        schema: &str,
        config: &str,
        files: &[PathBuf],
    ) -> Result<Loaded, Box<dyn Error>> {
        self.client.create(schema, config).await?;
        let started = Instant::now();
        let mut rows = 0;
        for file in files {
            let options = LoadOptions {
                push_id: name_of(file),
                ..LoadOptions::default()
            };
            rows += self.client.upload(table, file, options).await?.rows;
        }
        let elapsed = started.elapsed();
        let request = ListSegmentsRequest {
            table: table.to_owned(),
        };
        let segments = self.client.admin.list_segments(request).await?.into_inner();
        Ok(Loaded {
            rows,
            elapsed,
            segment_bytes: segments.segments.iter().map(|s| s.bytes).sum(),
        })
    }
}

fn name_of(file: &Path) -> String {
    file.file_name()
        .map_or(String::new(), |name| name.to_string_lossy().into_owned())
}

/// The `.parquet` files of a folder, by name.
pub fn parquet_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    Ok(files)
}
