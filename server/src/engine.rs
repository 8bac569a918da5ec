//! The engine of one server: what its front ends call.
//!
//! Opens a data folder, brings back what it holds, consumes what its tables say, and answers queries. All
//! of it can be had in one process without a network.

mod admin;
mod audit;
mod change;
mod ingestion_audit;
mod open;
mod queries;
mod rebuild;
mod schema;
mod system;

pub(crate) use admin::{EngineStatements, quoted};

use crate::host::Registry;
use crate::host::backup::Backups;
use crate::host::build::Progress;
use crate::host::catalog::Publisher;
use crate::host::consumer::ConsumingBudget;
use crate::host::data_dir::DataDir;
use crate::host::keys::Keys;
use crate::host::load::Loader;
use crate::host::realtime::RealtimeTables;
use crate::host::rewrite::Rewriter;
use crate::host::upkeep::Upkeep;
use crate::leaf::query_log::QueryLog;
use parking_lot::Mutex;
use queries::QueryThreads;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_broker::transport::CatalogSource;
use strandline_broker::{Broker, QueryAnswer, QueryRequest};
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::ids::Half;
use strandline_proto::v1;
use strandline_proto::{Error, Result};
use strandline_storage::config::TableConfig;
use strandline_storage::environment::{Environment, TaskHandle};
use strandline_storage::meta::sql::SqlMetastore;
use strandline_storage::stream::log::{AppendOutcome, EmbeddedLog, LogMessage};
use tokio_util::sync::CancellationToken;

/// What an engine is opened with.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The data folder; made when it is missing.
    pub data_dir: PathBuf,
    /// Folders that `Load` requests may read from; empty: none.
    pub load_roots: Vec<String>,
    /// Where backups go; none: `backups` in the data folder.
    pub backup_root: Option<PathBuf>,
    /// Memory of all queries together, in bytes; consuming segments may take as much again.
    pub memory_bytes_max: usize,
    /// Memory of one query, in bytes.
    pub query_memory_bytes_max: usize,
    /// How long a query may take that names no limit, in milliseconds.
    pub query_timeout_ms_default: u64,
    /// Threads that scan.
    pub scan_threads: usize,
    /// Clock, randomness, tasks, files.
    pub environment: Environment,
}

impl EngineOptions {
    /// The defaults for a data folder: 2 GiB for queries, 1 GiB for one of them, 60 s, a scan thread a processor.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            load_roots: Vec::new(),
            backup_root: None,
            memory_bytes_max: 2 << 30,
            query_memory_bytes_max: 1 << 30,
            query_timeout_ms_default: 60_000,
            scan_threads: std::thread::available_parallelism().map_or(2, usize::from),
            environment: Environment::real(),
        }
    }
}

/// A running engine.
pub struct Engine {
    data_dir: DataDir,
    load_roots: Vec<PathBuf>,
    environment: Environment,
    registry: Arc<Registry>,
    metastore: Arc<SqlMetastore>,
    log: Arc<EmbeddedLog>,
    publisher: Arc<Publisher>,
    budget: Arc<ConsumingBudget>,
    realtime: Arc<RealtimeTables>,
    keys: Arc<Keys>,
    loader: Loader,
    rewriter: Arc<Rewriter>,
    pub(crate) upkeep: Arc<Upkeep>,
    backups: Backups,
    copies: Mutex<Option<TaskHandle>>,
    /// Ends what runs beside queries and consumers.
    stop: CancellationToken,
    broker: Arc<Broker>,
    query_log: Arc<QueryLog>,
    queries: QueryThreads,
    /// One change of tables at a time.
    tables_change: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("data_dir", &self.data_dir.root())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Runs one statement. Errors of planning, and of execution before the first row, come back at once; later ones in
    /// the stream.
    pub async fn query(&self, request: QueryRequest) -> Result<QueryAnswer> {
        self.queries.run(&self.broker, request).await
    }

    /// Memory of consuming segments: what they take and the most they may, in bytes.
    pub fn consuming_memory(&self) -> (usize, usize) {
        (self.budget.used(), self.budget.bytes_max())
    }

    /// The data folder; front ends keep uploads under its `staging`.
    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Stops consumers and commits; what was acknowledged stays. Queries that run end by themselves.
    pub async fn shutdown(&self) {
        self.realtime.stop_all().await;
        self.stop.cancel();
        // The last copy of the metastore is of all that was committed.
        let copies = self.copies.lock().take();
        if let Some(copies) = copies
            && let Err(e) = copies.join().await
        {
            tracing::error!(error = %e, "the metastore was not copied");
        }
        self.metastore.close().await;
    }

    /// Appends messages to the embedded log; they are on disk when this answers.
    pub async fn append(&self, request: v1::AppendRequest) -> Result<v1::AppendResponse> {
        let v1::AppendRequest {
            topic,
            partition,
            messages,
            producer_id,
            first_sequence,
        } = request;
        let messages = messages
            .into_iter()
            .map(|m| LogMessage {
                key: (!m.key.is_empty()).then_some(m.key),
                payload: m.payload,
                timestamp_ms: m.timestamp_ms,
            })
            .collect();
        let AppendOutcome {
            partition,
            first_offset,
            next_offset,
            duplicates,
        } = self
            .log
            .append(&topic, partition, messages, &producer_id, first_sequence)
            .await?;
        Ok(v1::AppendResponse {
            partition,
            first_offset,
            next_offset,
            duplicates,
        })
    }

    /// Loads files that the operator allowed to be read.
    ///
    /// # Errors
    /// `InvalidArgument` for a path outside the allowed folders.
    pub async fn load(
        &self,
        request: v1::LoadRequest,
        progress: impl Fn(v1::LoadCount) + Send + Sync + 'static,
    ) -> Result<v1::LoadResult> {
        let files = request
            .uris
            .iter()
            .map(|uri| self.allowed(uri))
            .collect::<Result<Vec<_>>>()?;
        self.load_local(
            &request.table,
            files,
            request.options.unwrap_or_default(),
            progress,
        )
        .await
    }

    /// Loads files whose paths are trusted.
    pub async fn load_local(
        &self,
        table: &str,
        files: Vec<PathBuf>,
        options: v1::LoadOptions,
        progress: impl Fn(v1::LoadCount) + Send + Sync + 'static,
    ) -> Result<v1::LoadResult> {
        let config = self.offline_config(table)?;
        let progress: Progress = Arc::new(progress);
        let mut result = self
            .loader
            .load(&config, files, options, progress)
            .await
            .map_err(|e| e.at(format!("load into {table}")))?;
        result.coverage = self.coverage_message(&config.name);
        Ok(result)
    }

    /// Takes segment files that `strandline build` made; they stay where they are.
    pub async fn push_segments(
        &self,
        table: &str,
        files: Vec<PathBuf>,
        options: v1::LoadOptions,
    ) -> Result<v1::LoadResult> {
        let config = self.offline_config(table)?;
        let mut result = self
            .loader
            .push_files(&config, files, options)
            .await
            .map_err(|e| e.at(format!("push into {table}")))?;
        result.coverage = self.coverage_message(&config.name);
        Ok(result)
    }

    fn offline_config(&self, table: &str) -> Result<Arc<TableConfig>> {
        let name = table.strip_suffix("_OFFLINE").unwrap_or(table);
        let snapshot = self.table_snapshot(name)?;
        self.publisher.config(&snapshot.name, Half::Offline).ok_or_else(|| {
            Error::precondition(format!("table {name} has no offline half: create it with a table config of tableType OFFLINE, then load"))
        })
    }

    /// A table by its name: exactly, else by the one name that is the same without regard to case.
    fn table_snapshot(&self, name: &str) -> Result<Arc<TableSnapshot>> {
        let snapshot = self.registry.snapshot();
        if let Some(table) = snapshot.tables.get(name) {
            return Ok(Arc::clone(table));
        }
        let mut alike = snapshot
            .tables
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        match (alike.next(), alike.next()) {
            (Some((_, table)), None) => Ok(Arc::clone(table)),
            _ => Err(Error::not_found(format!(
                "no table {name}; there are: {}",
                join_or_none(snapshot.tables.keys().map(String::as_str))
            ))),
        }
    }

    fn allowed(&self, uri: &str) -> Result<PathBuf> {
        let path = uri.strip_prefix("file://").unwrap_or(uri);
        if path.contains("://") {
            return Err(Error::unsupported(format!(
                "not supported: loading from {uri}; only files of the server's own file system can be loaded, or uploaded with `strandline load --server`"
            )));
        }
        if self.load_roots.is_empty() {
            return Err(Error::invalid(format!(
                "the server may not read {path}: its operator allowed no folder (load_roots in the config, or --load-root); upload the file instead"
            )));
        }
        let real = std::fs::canonicalize(path)
            .map_err(|e| Error::not_found(format!("cannot read {path} on the server: {e}")))?;
        if self.load_roots.iter().any(|root| real.starts_with(root)) {
            Ok(real)
        } else {
            Err(Error::invalid(format!(
                "the server may not read {path}: it is not under a folder that its operator allowed (load_roots)"
            )))
        }
    }

    fn coverage_message(&self, table: &str) -> Option<v1::TableCoverage> {
        let snapshot = self.registry.snapshot();
        let table = snapshot.tables.get(table)?;
        table.has_boundary().then(|| coverage_message(table))
    }
}

/// A table's coverage as messages say it.
pub(crate) fn coverage_message(table: &TableSnapshot) -> v1::TableCoverage {
    let message = |i: &strandline_proto::coverage::Interval| v1::TimeInterval {
        start_ms: i.start_ms,
        end_ms: i.end_ms,
    };
    v1::TableCoverage {
        table: table.name.to_string(),
        intervals: table.coverage.intervals().iter().map(message).collect(),
        gaps: table.gaps.iter().map(message).collect(),
        pinned: table.pinned,
    }
}

fn join_or_none<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
