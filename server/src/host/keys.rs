//! The keys of this server's tables: opened with their segments, dropped with their tables.

use super::registry::{HostedTable, Registry};
use std::path::PathBuf;
use std::sync::Arc;
use strandline_proto::ids::{Half, SegmentName, StreamPartition};
use strandline_proto::lineage::Lineage;
use strandline_proto::schema::Schema;
use strandline_proto::{Error, Result};
use strandline_storage::config::TableConfig;
use strandline_storage::environment::{Environment, blocking};
use strandline_storage::keys::{KeyStore, PlaceReader, TableKeys};
use strandline_storage::meta::{Metastore, TableRecord};
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::adapted::adapt;
use tokio::sync::OnceCell;

/// The store of keys; it is made when the first table needs it.
pub struct Keys {
    registry: Arc<Registry>,
    metastore: Arc<dyn Metastore>,
    folder: PathBuf,
    memory_bytes_max: u64,
    environment: Environment,
    store: OnceCell<Arc<KeyStore>>,
}

impl Keys {
    /// Keys in `folder`, of which the store may take so much memory, in bytes.
    pub fn new(
        registry: Arc<Registry>,
        metastore: Arc<dyn Metastore>,
        folder: PathBuf,
        memory_bytes_max: u64,
        environment: Environment,
    ) -> Self {
        Self {
            registry,
            metastore,
            folder,
            memory_bytes_max,
            environment,
            store: OnceCell::new(),
        }
    }

    async fn store(&self) -> Result<Arc<KeyStore>> {
        let open = || async {
            let (folder, memory) = (self.folder.clone(), self.memory_bytes_max);
            let random = &self.environment.random;
            let new = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
            let secret = self.metastore.keys_secret(new.to_le_bytes()).await?;
            let open = move || KeyStore::open(&folder, memory, secret).map(Arc::new);
            blocking(&self.environment.spawner, "open keys", open).await
        };
        self.store.get_or_try_init(open).await.map(Arc::clone)
    }

    /// Forgets tables that are not among `kept`.
    pub async fn drop_others(&self, kept: &[Arc<TableRecord>]) -> Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        let store = self.store().await?;
        let kept: Vec<String> = kept.iter().map(|table| table.name.clone()).collect();
        let drop = move || {
            let tables = store.tables()?;
            let mut gone = tables.iter().filter(|table| !kept.contains(table));
            gone.try_for_each(|table| store.drop_table(table))
        };
        blocking(&self.environment.spawner, "drop keys", drop).await
    }

    /// Opens the keys of a table, if its rows have any, with all of its segments that are held.
    pub async fn open(&self, config: &Arc<TableConfig>, record: &TableRecord) -> Result<()> {
        let Some(keys) = config.keys.clone() else {
            return Ok(());
        };
        let store = self.store().await?;
        let hosted = self.registry.table(&config.name);
        let mut segments = Vec::new();
        for segment in record.segments.iter().filter(|s| s.half == Half::Realtime) {
            let schema = &config.spec.schema;
            let reader = match hosted.open(&segment.name, segment.checksum) {
                Ok(open) => {
                    let lineage = &record.schema.lineage;
                    Some(adapt(open, segment.schema_version, schema, lineage))
                }
                // Queries that need it fail. Of rows that it supersedes is known what is on disk.
                Err(e) => {
                    tracing::error!(table = %config.name, segment = %segment.name, error = %e, "keys without a segment");
                    None
                }
            };
            segments.push((segment.name.clone(), reader));
        }
        let of_config = Arc::clone(config);
        let open = move || {
            let schema = &of_config.spec.schema;
            TableKeys::open(&store, (&of_config.name, schema), &keys, &segments, |p| {
                partition_number(&of_config, p)
            })
        };
        let opened = blocking(&self.environment.spawner, "open keys", open)
            .await
            .map_err(|e| e.at(format_args!("keys of table {}", config.name)))?;
        hosted.set_keys(Some(Arc::new(opened)));
        Ok(())
    }

    /// Forgets a table that was dropped.
    pub async fn drop_table(&self, table: &str) -> Result<()> {
        let hosted = self.registry.table(table);
        if hosted.keys().is_none() {
            return Ok(());
        }
        hosted.set_keys(None);
        let (store, table) = (self.store().await?, table.to_owned());
        let drop = move || store.drop_table(&table);
        blocking(&self.environment.spawner, "drop keys", drop).await
    }
}

/// A number for a stream partition of a table, by which rows of equal comparison values are ordered.
pub(super) fn partition_number(config: &TableConfig, partition: &StreamPartition) -> u32 {
    let id = format!("{}/{}", partition.stream, partition.topic);
    let streams = config.streams.iter();
    let stream = streams.take_while(|stream| stream.id() != id).count() as u32;
    (stream << 24) | (partition.partition & 0x00ff_ffff)
}

/// A table's segments, in memory or not, as rows are merged with theirs.
pub(super) struct HostedPlaces {
    /// The table.
    pub(super) hosted: Arc<HostedTable>,
    /// Under which names its older segments store columns.
    pub(super) lineage: Arc<Lineage>,
}

impl PlaceReader for HostedPlaces {
    fn segment(&self, name: &SegmentName, schema: &Schema) -> Result<Arc<dyn SegmentReader>> {
        let tails = self.hosted.tails();
        let consuming = tails.iter().flat_map(|tail| tail.segments());
        let found: Arc<dyn SegmentReader> = match consuming.into_iter().find(|s| s.name() == name) {
            Some(segment) => segment.view(),
            None => self.hosted.newest(name).ok_or_else(|| {
                Error::segment_gone(format!("segment {name}, whose rows are looked at, is gone"))
            })??,
        };
        let version = found.schema_version();
        Ok(adapt(found, version, schema, &self.lineage))
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
