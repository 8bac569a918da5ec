//! From the metastore's state to the published snapshot.

#[cfg(test)]
mod tests;

use super::registry::{Held, Registry};
use super::stored::open_stored;
use parking_lot::RwLock;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use strandline_broker::transport::CatalogSource;
use strandline_proto::catalog::{CatalogSnapshot, SegmentInfo, TableSnapshot, TailStart};
use strandline_proto::ids::{CatalogVersion, Half, SegmentName};
use strandline_proto::schema::{ColumnRole, Schema};
use strandline_proto::v1::ConfigWarning;
use strandline_proto::{Error, Result};
use strandline_storage::config::{self, TableConfig};
use strandline_storage::deep_store::{DeepStore, StoredSegment};
use strandline_storage::environment::Environment;
use strandline_storage::meta::{MetaState, Metastore, TableRecord, coverage};

/// A table's parsed documents; parsed again only when their text changes.
#[derive(Clone)]
struct Documents {
    schema_json: Arc<str>,
    schema: Arc<Schema>,
    halves: BTreeMap<Half, Arc<TableConfig>>,
    warnings: Vec<ConfigWarning>,
}

/// Turns the metastore's state into snapshots, one at a time and never an older one after a newer.
pub struct Publisher {
    registry: Arc<Registry>,
    metastore: Arc<dyn Metastore>,
    deep_store: Arc<DeepStore>,
    environment: Environment,
    documents: RwLock<HashMap<String, Documents>>,
    /// The state that was published last; held while one is.
    published: tokio::sync::Mutex<Option<Arc<MetaState>>>,
}

impl Publisher {
    /// A publisher into `registry`.
    pub fn new(
        registry: Arc<Registry>,
        metastore: Arc<dyn Metastore>,
        deep_store: Arc<DeepStore>,
        environment: Environment,
    ) -> Self {
        Self {
            registry,
            metastore,
            deep_store,
            environment,
            documents: RwLock::default(),
            published: tokio::sync::Mutex::default(),
        }
    }

    /// Where snapshots go.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Publishes what the metastore holds now. Segments that it names must be held already. Tables that are as they were
    /// are taken over from the snapshot before.
    pub async fn publish(&self) -> Result<()> {
        let mut published = self.published.lock().await;
        let state = self.metastore.state().await?;
        if published.as_ref().is_some_and(|p| Arc::ptr_eq(p, &state)) {
            return Ok(());
        }
        let snapshot = self.snapshot(&state, published.as_deref())?;
        self.registry.publish(snapshot);
        *published = Some(state);
        Ok(())
    }

    /// Drops segments that snapshots after `version` do not name, and then their files.
    pub fn retire_segments(
        &self,
        version: CatalogVersion,
        table: &str,
        segments: Vec<SegmentInfo>,
    ) {
        let last_naming = CatalogVersion(version.0.saturating_sub(1));
        for SegmentInfo { name, checksum, .. } in segments {
            let remover = Remover {
                metastore: Arc::clone(&self.metastore),
                deep_store: Arc::clone(&self.deep_store),
                table: table.to_owned(),
                name: name.clone(),
                checksum,
            };
            let spawner = Arc::clone(&self.environment.spawner);
            let remove = move || {
                spawner.spawn("remove segment file", Box::pin(remover.run()));
            };
            self.registry
                .retire_segment(last_naming, table, name, Some(Box::new(remove)));
        }
        self.registry.sweep();
    }

    /// One half's config.
    pub fn config(&self, table: &str, half: Half) -> Option<Arc<TableConfig>> {
        self.documents
            .read()
            .get(table)
            .and_then(|d| d.halves.get(&half).cloned())
    }

    /// A table's schema as it was given.
    pub fn schema_json(&self, table: &str) -> Option<String> {
        self.documents
            .read()
            .get(table)
            .map(|d| d.schema_json.to_string())
    }

    /// What of a table's documents is not honoured.
    pub fn warnings(&self, table: &str) -> Vec<ConfigWarning> {
        self.documents
            .read()
            .get(table)
            .map(|d| d.warnings.clone())
            .unwrap_or_default()
    }

    /// Whether `new` can stand beside the half that is there.
    ///
    /// # Errors
    /// `InvalidArgument` when the two would have no common time boundary.
    pub fn check_hybrid(&self, new: &TableConfig) -> Result<()> {
        let other = match new.half {
            Half::Offline => Half::Realtime,
            Half::Realtime => Half::Offline,
        };
        let Some(other) = self.config(&new.name, other) else {
            return Ok(());
        };
        if new.time_column.is_none() || new.time_column != other.time_column {
            return Err(Error::invalid(format!(
                "table {}: both halves of a hybrid table need the same time column (segmentsConfig.timeColumnName); {} has {}, {} has {}",
                new.name,
                new.half,
                new.time_column.as_deref().unwrap_or("none"),
                other.half,
                other.time_column.as_deref().unwrap_or("none"),
            )));
        }
        let column = new
            .time_column
            .as_deref()
            .and_then(|c| new.spec.schema.column(c));
        match column.map(|c| &c.role) {
            Some(ColumnRole::DateTime { format, .. }) if format.is_sortable() => Ok(()),
            _ => Err(Error::invalid(format!(
                "table {}: time column {} can't be the boundary of a hybrid table: it must be a dateTimeFieldSpec in a format whose values sort by time",
                new.name,
                new.time_column.as_deref().unwrap_or("none")
            ))),
        }
    }

    /// Opens every segment that the metastore names. One that fails its checks is quarantined, and the rest serve.
    pub async fn hold_all(&self) -> Result<()> {
        let state = self.metastore.state().await?;
        for table in &state.tables {
            let hosted = self.registry.table(&table.name);
            for info in &table.segments {
                let held = match open_stored(
                    &self.deep_store,
                    &self.environment,
                    &table.name,
                    &info.name,
                    info.checksum,
                )
                .await
                {
                    Ok(segment) => Held::Open(segment),
                    Err(e) => {
                        tracing::error!(table = %table.name, segment = %info.name, error = %e, "segment quarantined");
                        Held::Quarantined(e)
                    }
                };
                hosted.hold(info.name.clone(), held);
            }
        }
        Ok(())
    }

    /// Removes files of the deep store that no table names: what a stopped load or commit left, and what was
    /// replaced or dropped before the last stop.
    pub async fn remove_orphans(&self) -> Result<()> {
        let mut removed: BTreeMap<String, Vec<SegmentName>> = BTreeMap::new();
        for segment in self.metastore.removed_segments().await? {
            let names = removed.entry(segment.table).or_default();
            names.push(segment.segment.name);
        }
        for (table, names) in removed {
            self.metastore.forget_segments(&table, &names).await?;
        }
        let state = self.metastore.state().await?;
        let named: HashSet<(&str, &SegmentName, u64)> = state
            .tables
            .iter()
            .flat_map(|t| {
                t.segments
                    .iter()
                    .map(|s| (t.name.as_str(), &s.name, s.checksum))
            })
            .collect();
        for (table, stored) in self.deep_store.list_all().await? {
            let StoredSegment { name, checksum, .. } = stored;
            if !named.contains(&(table.as_str(), &name, checksum)) {
                tracing::info!(table, segment = %name, "removing a segment file that no table names");
                self.deep_store.delete(&table, &name, checksum).await?;
            }
        }
        Ok(())
    }

    fn documents(&self, table: &TableRecord) -> Result<Documents> {
        let known = self.documents.read().get(&table.name).cloned();
        let configs = [
            (Half::Offline, &table.offline_json),
            (Half::Realtime, &table.realtime_json),
        ];
        if let Some(known) = known
            && *known.schema_json == *table.schema.json
            && configs.iter().all(|(half, json)| {
                known.halves.get(half).map(|c| c.json.as_str()) == json.as_deref()
            })
        {
            return Ok(known);
        }
        let (schema, warnings) = config::parse_schema(&table.schema.json, table.schema.version)?;
        let mut warnings = warning_messages(warnings);
        let schema = Arc::new(schema);
        let mut halves = BTreeMap::new();
        for (half, json) in configs {
            if let Some(json) = json {
                let (parsed, more) = config::parse_table(json, &schema)?;
                halves.insert(half, Arc::new(parsed));
                warnings.extend(warning_messages(more));
            }
        }
        let documents = Documents {
            schema_json: Arc::from(table.schema.json.as_str()),
            schema,
            halves,
            warnings,
        };
        self.documents
            .write()
            .insert(table.name.clone(), documents.clone());
        Ok(documents)
    }

    /// The snapshot of `state`, of which `published` is current now.
    fn snapshot(
        &self,
        state: &MetaState,
        published: Option<&MetaState>,
    ) -> Result<CatalogSnapshot> {
        let current = self.registry.snapshot();
        let unchanged = |table: &Arc<TableRecord>| {
            let before = published?.table(&table.name)?;
            let snapshot = current.tables.get(&table.name)?;
            Arc::ptr_eq(before, table).then(|| Arc::clone(snapshot))
        };
        let mut tables = BTreeMap::new();
        for table in &state.tables {
            let snapshot = match unchanged(table) {
                Some(snapshot) => snapshot,
                None => {
                    let documents = self
                        .documents(table)
                        .map_err(|e| e.at(format!("stored table {}", table.name)))?;
                    Arc::new(self.table_snapshot(table, &documents))
                }
            };
            tables.insert(table.name.clone(), snapshot);
        }
        self.documents
            .write()
            .retain(|name, _| tables.contains_key(name));
        Ok(CatalogSnapshot {
            version: state.version,
            tables,
        })
    }

    fn table_snapshot(&self, table: &TableRecord, documents: &Documents) -> TableSnapshot {
        let offline = documents.halves.get(&Half::Offline);
        let time_column = documents
            .halves
            .values()
            .find_map(|c| c.time_column.clone());
        let times = |half: Half| {
            let known = table
                .segments
                .iter()
                .filter(move |s| s.half == half)
                .filter_map(|s| s.time_ms);
            known.reduce(|(min, max), (a, b)| (min.min(a), max.max(b)))
        };
        let (offline_ms, realtime_ms) = (times(Half::Offline), times(Half::Realtime));
        let covered = coverage::coverage(
            &table.coverage,
            offline_ms.map(|t| t.1),
            offline.map(|c| c.push_period).unwrap_or_default(),
        );
        let gaps = coverage::gaps(&covered, offline_ms, realtime_ms.map(|t| t.0));
        TableSnapshot {
            name: Arc::from(table.name.as_str()),
            schema: Arc::clone(&documents.schema),
            time_column,
            has_offline: offline.is_some(),
            has_realtime: documents.halves.contains_key(&Half::Realtime),
            segments: table.segments.clone(),
            tails: table
                .partitions
                .iter()
                .map(|p| TailStart {
                    partition: p.partition.clone(),
                    from_offset: p.next_offset,
                })
                .collect(),
            coverage: covered,
            gaps,
            pinned: table.coverage.pinned_at_ms.is_some(),
        }
    }
}

/// Warnings as messages say them.
pub(crate) fn warning_messages(warnings: Vec<config::ConfigWarning>) -> Vec<ConfigWarning> {
    warnings
        .into_iter()
        .map(|w| ConfigWarning {
            path: w.path,
            message: w.message,
        })
        .collect()
}

/// Forgets a segment and removes its file; what fails is done at the next start.
struct Remover {
    metastore: Arc<dyn Metastore>,
    deep_store: Arc<DeepStore>,
    table: String,
    name: SegmentName,
    checksum: u64,
}

impl Remover {
    async fn run(self) {
        let removed = match self
            .metastore
            .forget_segments(&self.table, std::slice::from_ref(&self.name))
            .await
        {
            Ok(()) => {
                self.deep_store
                    .delete(&self.table, &self.name, self.checksum)
                    .await
            }
            Err(e) => Err(e),
        };
        if let Err(e) = removed {
            tracing::warn!(segment = %self.name, error = %e, "cannot remove a replaced segment's file; the next start does");
        }
    }
}
