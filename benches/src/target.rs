//! The server that is measured: one that runs, or one that is started for the measurement.

use crate::load::Loaded;
use crate::ssb;
use crate::ssb::table::Indexing;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use strandline_proto::v1::{
    CreateTableRequest, DropTableRequest, ListSegmentsRequest, LoadOptions, PutSchemaRequest,
    SegmentDescription,
};
use strandline_tests::answer::Cell;
use strandline_tests::client::Client;
use strandline_tests::process::Process;

/// Where the server comes from.
#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// A running server's gRPC, as in http://127.0.0.1:8098; its table lineorder is taken as it is, or made and left there
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
    program: String,
    data: Option<tempfile::TempDir>,
}

/// How often it is asked whether rows have arrived.
const ARRIVAL_EVERY: Duration = Duration::from_millis(50);

impl Target {
    /// Connects to the server, or starts one.
    pub async fn open(source: &Source) -> Result<Self, Box<dyn Error>> {
        if let Some(url) = &source.server {
            let uri: ureq::http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
            if uri.scheme_str() != Some("http") || uri.host().is_none() {
                return Err(format!("{url} is not like http://127.0.0.1:8098").into());
            }
            return Ok(Self {
                client: connect(url).await?,
                url: url.clone(),
                process: None,
                program: String::new(),
                data: None,
            });
        }
        let program = source
            .program
            .as_ref()
            .ok_or("neither a server nor a program")?;
        let data = tempfile::tempdir()?;
        let program = program.to_string_lossy().into_owned();
        let process = Process::start(&program, data.path(), None)?;
        Ok(Self {
            client: connect(&process.grpc).await?,
            url: process.grpc.clone(),
            process: Some(process),
            program,
            data: Some(data),
        })
    }

    /// Another connection.
    pub async fn connect(&self) -> Result<Client, Box<dyn Error>> {
        connect(&self.url).await
    }

    /// Kills the started server and starts it again over its data; false: it was not started here.
    pub async fn restart(&mut self) -> Result<bool, Box<dyn Error>> {
        let (Some(process), Some(data)) = (&mut self.process, &self.data) else {
            return Ok(false);
        };
        process.kill();
        *process = Process::start(&self.program, data.path(), None)?;
        self.url = process.grpc.clone();
        self.client = connect(&self.url).await?;
        Ok(true)
    }

    /// The largest memory the started server has held so far, in bytes.
    pub fn peak_bytes(&self) -> Option<u64> {
        peak_bytes(self.process.as_ref()?.id())
    }

    /// The rows of a table; none when there is no such table.
    pub async fn rows(&mut self, table: &str) -> Option<u64> {
        let (answer, _) = self
            .client
            .ask(&format!("SELECT count(*) FROM {table}"))
            .await
            .ok()?;
        match answer.rows.first()?.first()? {
            Cell::Number(rows, 0) => u64::try_from(*rows).ok(),
            _ => None,
        }
    }

    /// Makes a half of a table. What of its config the server does not honour is an error: it would not be measured.
    pub async fn create(&mut self, schema: &str, config: &str) -> Result<(), Box<dyn Error>> {
        let request = PutSchemaRequest {
            schema_json: schema.to_owned(),
        };
        let mut warnings = self.client.admin.put_schema(request).await?;
        let request = CreateTableRequest {
            config_json: config.to_owned(),
        };
        let created = self.client.admin.create_table(request).await?.into_inner();
        let warnings = warnings.get_mut().warnings.iter().chain(&created.warnings);
        let unheeded: Vec<String> = warnings
            .map(|w| format!("{}: {}", w.path, w.message))
            .collect();
        if unheeded.is_empty() {
            return Ok(());
        }
        self.drop_table(&created.table).await?;
        Err(format!("the server does not honour {}", unheeded.join("; ")).into())
    }

    /// Drops a table.
    pub async fn drop_table(&mut self, table: &str) -> Result<(), Box<dyn Error>> {
        let request = DropTableRequest {
            table: table.to_owned(),
        };
        self.client.admin.drop_table(request).await?;
        Ok(())
    }

    /// Drops those of these tables that there are.
    pub async fn drop_tables<'a>(
        &mut self,
        tables: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), Box<dyn Error>> {
        for table in tables {
            if self.rows(table).await.is_some() {
                self.drop_table(table).await?;
            }
        }
        Ok(())
    }

    /// A table's segments.
    pub async fn segments(
        &mut self,
        table: &str,
    ) -> Result<Vec<SegmentDescription>, Box<dyn Error>> {
        let request = ListSegmentsRequest {
            table: table.to_owned(),
        };
        let listed = self.client.admin.list_segments(request).await?;
        Ok(listed.into_inner().segments)
    }

    /// Makes an offline table and uploads files into it, in segments of so many rows (0: the server's default); there is no
    /// such table when that fails.
    pub async fn load(
        &mut self,
        table: &str,
        schema: &str,
        config: &str,
        files: &[PathBuf],
        segment_rows: u64,
    ) -> Result<Loaded, Box<dyn Error>> {
        self.create(schema, config).await?;
        let loaded = self.upload(table, files, segment_rows).await;
        if loaded.is_err() {
            self.drop_table(table).await?;
        }
        loaded
    }

    async fn upload(
        &mut self,
        table: &str,
        files: &[PathBuf],
        segment_rows: u64,
    ) -> Result<Loaded, Box<dyn Error>> {
        let started = Instant::now();
        let mut rows = 0;
        for file in files {
            let options = LoadOptions {
                push_id: name_of(file),
                segment_rows_max: segment_rows,
                ..LoadOptions::default()
            };
            rows += self.client.upload(table, file, options).await?.rows;
        }
        let seconds = Some(started.elapsed().as_secs_f64());
        let bytes = self.segments(table).await?.iter().map(|s| s.bytes).sum();
        Ok(Loaded {
            rows,
            seconds,
            bytes,
        })
    }

    /// The table of the Star Schema Benchmark: loaded from `folder`, or as it is there.
    pub async fn star_schema(
        &mut self,
        folder: &Path,
        indexing: &Indexing,
    ) -> Result<Loaded, Box<dyn Error>> {
        let files = parquet_files(folder)?;
        let mut wanted = 0;
        for file in &files {
            wanted += crate::load::rows_of(file)?;
        }
        let loaded = match self.rows(ssb::TABLE).await {
            Some(rows) => {
                eprintln!("the table {} is there: measured as it is", ssb::TABLE);
                let segments = self.segments(ssb::TABLE).await?;
                Loaded {
                    rows,
                    seconds: None,
                    bytes: segments.iter().map(|s| s.bytes).sum(),
                }
            }
            None => {
                let schema = ssb::table::schema_json(ssb::TABLE);
                let config = ssb::table::offline_json(ssb::TABLE, indexing);
                let rows = indexing.segment_rows;
                self.load(ssb::TABLE, &schema, &config, &files, rows)
                    .await?
            }
        };
        eprintln!("Strandline holds {loaded}");
        match self.rows(ssb::TABLE).await {
            Some(rows) if rows == wanted => Ok(loaded),
            rows => Err(format!(
                "{} has {rows:?} rows, the files in {} have {wanted}",
                ssb::TABLE,
                folder.display()
            )
            .into()),
        }
    }

    /// The offsets up to which each partition of a table's stream can be queried.
    pub async fn consumed(client: &mut Client, table: &str) -> Result<Vec<u64>, String> {
        let sql = format!(
            "SELECT next_offset FROM system.ingestion WHERE table_name = '{table}' ORDER BY partition"
        );
        let (answer, _) = client.ask(&sql).await?;
        let offset = |row: &Vec<Cell>| match row.first() {
            Some(Cell::Number(offset, 0)) => u64::try_from(*offset).unwrap_or(0),
            _ => 0,
        };
        Ok(answer.rows.iter().map(offset).collect())
    }

    /// Waits until so many rows of a table's stream can be queried.
    pub async fn arrived(client: &mut Client, table: &str, rows: u64) -> Result<(), String> {
        while Self::consumed(client, table).await?.iter().sum::<u64>() < rows {
            tokio::time::sleep(ARRIVAL_EVERY).await;
        }
        Ok(())
    }
}

async fn connect(url: &str) -> Result<Client, Box<dyn Error>> {
    let connected = Client::connect(url).await;
    connected.map_err(|e| format!("cannot connect to {url}: {e}").into())
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
    match files.is_empty() {
        true => Err(std::io::Error::other(format!(
            "{} has no Parquet files",
            folder.display()
        ))),
        false => Ok(files),
    }
}

/// The largest memory that a process has held so far, in bytes.
pub fn peak_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Bytes of files together.
pub fn files_bytes<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> std::io::Result<u64> {
    let size = |file: P| std::fs::metadata(file.as_ref()).map(|m| m.len());
    files.into_iter().map(size).sum()
}
