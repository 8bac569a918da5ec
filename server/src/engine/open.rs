//! Opening an engine: from a data folder to a server that answers.

use super::admin::EngineStatements;
use super::queries::QueryThreads;
use super::{Engine, EngineOptions};
use crate::host::backup::{Backups, MetastoreCopies};
use crate::host::data_dir::DataDir;
use crate::host::opening::{Host, HostOptions};
use crate::host::realtime::ServerStreams;
use crate::host::step::{KillPoint, Steps};
use crate::host::system::EngineSystemTables;
use crate::leaf::{LocalLeaf, ScanPool};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strandline_broker::transport::CatalogSource;
use strandline_broker::{Broker, BrokerOptions};
use strandline_proto::{Error, Result};
use strandline_storage::deep_store::DeepStore;
use strandline_storage::meta::Metastore;
use strandline_storage::meta::sql::SqlMetastore;
use strandline_storage::stream::log::EmbeddedLog;
use tokio_util::sync::CancellationToken;

/// Names a commit step at which the process aborts, for tests of recovery: `build.before:2`.
const KILL_AT: &str = "STRANDLINE_KILL_AT";

impl Engine {
    /// Takes the data folder, opens its segments and starts its consumers.
    ///
    /// # Errors
    /// `FailedPrecondition` when another process holds the folder or a newer version wrote it.
    pub async fn open(options: EngineOptions) -> Result<Arc<Self>> {
        let EngineOptions {
            data_dir,
            load_roots,
            backup_root,
            memory_bytes_max,
            query_memory_bytes_max,
            query_timeout_ms_default,
            scan_threads,
            environment,
        } = options;
        let load_roots = load_roots
            .iter()
            .map(|root| {
                std::fs::canonicalize(root)
                    .map_err(|e| Error::invalid(format!("load root {root}: {e}")))
            })
            .collect::<Result<Vec<PathBuf>>>()?;
        let data_dir = DataDir::open(&data_dir)?;
        let steps = Arc::new(Steps::new(
            std::env::var(KILL_AT)
                .ok()
                .map(|text| text.parse::<KillPoint>())
                .transpose()?,
        ));

        let deep_store = Arc::new(DeepStore::local(&data_dir.deep(), environment.clone()).await?);
        // With an empty metastore every segment would be one that no table names, and go.
        if !data_dir.metastore().exists() && !deep_store.list_all().await?.is_empty() {
            return Err(Error::precondition(format!(
                "data folder {0}: meta.sqlite is gone, and segments are there: make it again with `strandline rebuild --data {0}`, restore a backup, or move the folder deep away",
                data_dir.root().display()
            )));
        }
        let sql = Arc::new(
            SqlMetastore::open(&data_dir.metastore(), Arc::clone(&environment.clock)).await?,
        );
        let metastore: Arc<dyn Metastore> = Arc::clone(&sql) as Arc<dyn Metastore>;
        let log = EmbeddedLog::open(&data_dir.log(), environment.clone()).await?;
        let host = Host::open(HostOptions {
            metastore,
            deep_store: Arc::clone(&deep_store),
            streams: Arc::new(ServerStreams {
                log: Arc::clone(&log),
                environment: environment.clone(),
            }),
            staging: data_dir.staging(),
            keys: data_dir.keys(),
            memory_bytes_max,
            steps,
            environment: environment.clone(),
        })
        .await?;
        let registry = Arc::clone(&host.registry);
        let copies = Arc::new(MetastoreCopies::new(
            Arc::clone(&sql),
            &data_dir.deep(),
            environment.clone(),
        ));
        host.publisher.wait_for_copies(copies.copied());
        let backups = Backups {
            metastore: Arc::clone(&sql),
            registry: Arc::clone(&registry),
            deep_store: Arc::clone(&deep_store),
            deep: data_dir.deep(),
            log: data_dir.log(),
            root: backup_root.unwrap_or_else(|| data_dir.root().join("backups")),
            environment: environment.clone(),
        };
        let stop = CancellationToken::new();
        let leaf = LocalLeaf::new(
            Arc::clone(&registry) as Arc<dyn crate::leaf::SegmentHost>,
            ScanPool::new(scan_threads),
        );
        let query_log = leaf.log();
        let statements = Arc::new(EngineStatements::default());
        let broker = Arc::new(Broker::new(
            Arc::clone(&registry) as Arc<dyn CatalogSource>,
            Arc::new(leaf),
            Arc::new(EngineSystemTables::new(Arc::clone(&statements))),
            Arc::clone(&statements) as Arc<dyn strandline_broker::AdminStatements>,
            BrokerOptions {
                memory_bytes_max,
                query_memory_bytes_max,
                query_timeout: Duration::from_millis(query_timeout_ms_default),
                spill_dir: Some(data_dir.spill()),
                ..BrokerOptions::default()
            },
        ));
        let engine = Arc::new(Self {
            data_dir,
            load_roots,
            environment: environment.clone(),
            registry: Arc::clone(&registry),
            metastore: sql,
            log,
            publisher: Arc::clone(&host.publisher),
            budget: Arc::clone(&host.budget),
            realtime: Arc::clone(&host.realtime),
            keys: Arc::clone(&host.keys),
            loader: host.loader.clone(),
            rewriter: Arc::clone(&host.rewriter),
            upkeep: Arc::clone(&host.upkeep),
            backups,
            copies: Mutex::default(),
            stop: stop.clone(),
            broker,
            query_log,
            queries: QueryThreads::new()?,
            tables_change: tokio::sync::Mutex::new(()),
        });
        if statements.0.set(Arc::downgrade(&engine)).is_err() {
            return Err(Error::internal("an engine was opened twice"));
        }
        host.start(&stop).await;
        let copying = environment
            .spawner
            .spawn("copy metastore", Box::pin(copies.run(stop)));
        *engine.copies.lock() = Some(copying);
        Ok(engine)
    }
}
