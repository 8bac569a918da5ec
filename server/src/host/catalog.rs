//! From the metastore's state to the published snapshot.

mod pushed_keys;
#[cfg(test)]
mod tests;

pub use pushed_keys::PushedChange;

use super::registry::{Held, Registry};
use super::stored::open_stored;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use strandline_broker::transport::CatalogSource;
use strandline_proto::catalog::{CatalogSnapshot, SegmentInfo, TableSnapshot, TailStart};
use strandline_proto::ids::{CatalogVersion, Half, SegmentName};
use strandline_proto::lineage::Lineage;
use strandline_proto::schema::{ColumnRole, Schema};
use strandline_proto::text::TextSettings;
use strandline_proto::v1::ConfigWarning;
use strandline_proto::{Error, Result};
use strandline_storage::config::{self, TableConfig};
use strandline_storage::deep_store::{DeepStore, StoredSegment};
use strandline_storage::environment::Environment;
use strandline_storage::meta::{
    MetaState, Metastore, RemovedSegment, SegmentContent, TableRecord, coverage,
};
use strandline_storage::segment::adapted::adapt_info;
use tokio::sync::watch;

/// A table's parsed documents; parsed again only when their text changes.
#[derive(Clone)]
struct Documents {
    schema_json: Arc<str>,
    schema: Arc<Schema>,
    lineage: Arc<Lineage>,
    halves: BTreeMap<Half, Arc<TableConfig>>,
    warnings: Vec<ConfigWarning>,
}

/// A segment's content: its table, name and checksum.
type Content = (String, SegmentName, u64);

/// Turns the metastore's state into snapshots, one at a time and never an older one after a newer.
pub struct Publisher {
    registry: Arc<Registry>,
    metastore: Arc<dyn Metastore>,
    deep_store: Arc<DeepStore>,
    environment: Environment,
    /// Contents that are going: their files are about to be removed.
    retiring: Arc<Mutex<HashSet<Content>>>,
    documents: RwLock<HashMap<String, Documents>>,
    /// The version of the newest copy of the metastore beside the segments, where copies are made.
    copied: OnceLock<watch::Receiver<CatalogVersion>>,
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
            retiring: Arc::default(),
            documents: RwLock::default(),
            copied: OnceLock::new(),
            published: tokio::sync::Mutex::default(),
        }
    }

    /// Has files of segments wait, before they are removed, for a copy of the metastore that does not name them.
    pub fn wait_for_copies(&self, copied: watch::Receiver<CatalogVersion>) {
        let _ = self.copied.set(copied);
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
        let keys = self.follow_keys(&state).await;
        let done = self.publish_state(state, &mut published);
        keys.iter().for_each(|keys| keys.let_go());
        done
    }

    fn publish_state(
        &self,
        state: Arc<MetaState>,
        published: &mut Option<Arc<MetaState>>,
    ) -> Result<()> {
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
            let content = (table.to_owned(), name.clone(), checksum);
            self.retiring.lock().insert(content.clone());
            let remover = Remover {
                metastore: Arc::clone(&self.metastore),
                deep_store: Arc::clone(&self.deep_store),
                retiring: Arc::clone(&self.retiring),
                content,
                version,
                copied: self.copied.get().cloned(),
                environment: self.environment.clone(),
            };
            let spawner = Arc::clone(&self.environment.spawner);
            let remove = move || {
                spawner.spawn("remove segment file", Box::pin(remover.run()));
            };
            self.registry.retire_segment(
                last_naming,
                table,
                (name, checksum),
                Some(Box::new(remove)),
            );
        }
        self.registry.sweep();
    }

    /// Lets go of segments that snapshots from `version` on do not name; their files stay.
    pub fn close_segments(&self, version: CatalogVersion, table: &str, segments: Vec<SegmentInfo>) {
        let last_naming = CatalogVersion(version.0.saturating_sub(1));
        for SegmentInfo { name, checksum, .. } in segments {
            self.registry
                .retire_segment(last_naming, table, (name, checksum), None);
        }
        self.registry.sweep();
    }

    /// Whether a content that was replaced is still on its way out: its file must not be stored again before it is gone.
    pub fn is_retiring(&self, table: &str, name: &SegmentName, checksum: u64) -> bool {
        let content = (table.to_owned(), name.clone(), checksum);
        self.retiring.lock().contains(&content)
    }

    /// One half's config.
    pub fn config(&self, table: &str, half: Half) -> Option<Arc<TableConfig>> {
        self.documents
            .read()
            .get(table)
            .and_then(|d| d.halves.get(&half).cloned())
    }

    /// Under which names a table's older segments store its columns.
    pub fn lineage(&self, table: &str) -> Arc<Lineage> {
        let documents = self.documents.read();
        documents
            .get(table)
            .map(|d| Arc::clone(&d.lineage))
            .unwrap_or_default()
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

    /// Whether the half that is there can be given the config `new`. Rows that are there stay as they are; their time and the
    /// offsets that they came from must mean the same.
    ///
    /// # Errors
    /// `NotFound` without the half, `Unsupported` naming what can't change.
    pub fn check_change(&self, new: &TableConfig) -> Result<()> {
        let full = format!("{}_{}", new.name, new.half);
        let old = self
            .config(&new.name, new.half)
            .ok_or_else(|| Error::not_found(format!("no table {full}")))?;
        if old.time_column != new.time_column {
            return Err(Error::unsupported(format!(
                "not supported: changing segmentsConfig.timeColumnName of table {full} while it exists; drop the half and create it again"
            )));
        }
        if old.keys != new.keys {
            return Err(Error::unsupported(format!(
                "not supported: changing upsertConfig or dedupConfig of table {full} while it exists; drop the half and create it again"
            )));
        }
        let goes = old.streams.iter().find(|stream| {
            let id = stream.id();
            !new.streams.iter().any(|other| other.id() == id)
        });
        match goes {
            None => Ok(()),
            Some(stream) => Err(Error::unsupported(format!(
                "not supported: taking the stream {} from table {full}: rows of it that are not committed would be lost; streams can be \
                 added, and their other properties changed; or drop the half and create it again",
                stream.id()
            ))),
        }
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
        if let Some(keys) = new.keys.as_ref().or(other.keys.as_ref()) {
            let refused = |what: &str, remedy: &str| {
                Err(Error::unsupported(format!(
                    "not supported: {what} of table {}, which has an OFFLINE half; {remedy}",
                    new.name
                )))
            };
            if !keys.supersedes() {
                return refused(
                    "dedupConfig",
                    "use upsertConfig, or send all rows through the stream",
                );
            }
            if keys.forgets() {
                return refused(
                    "metadataTTL and deletedKeysTTL",
                    "take them out: keys are on disk",
                );
            }
            let sorted = [new, &other]
                .into_iter()
                .find_map(|c| c.spec.sorted_column.as_deref());
            if let Some(column) = sorted {
                return refused(
                    &format!("tableIndexConfig.sortedColumn: {column}"),
                    "rows that have keys stay in the order in which they came; give the column an inverted or a range index",
                );
            }
        }
        for (name, spec) in &new.spec.columns {
            let theirs = other.spec.column(name).text;
            if spec.text.is_some() && theirs.is_some() && spec.text != theirs {
                return Err(Error::invalid(format!(
                    "table {}: both halves need the same settings of the text index of column {name}: a query asks both for the same words; to change them, take the index out of one half first",
                    new.name
                )));
            }
        }
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
                hosted.hold(info.name.clone(), info.checksum, held);
            }
        }
        Ok(())
    }

    /// Removes files of the deep store that no table names: what a stopped load or commit left, and what was
    /// replaced or dropped before the last stop.
    pub async fn remove_orphans(&self) -> Result<()> {
        let mut removed: BTreeMap<String, Vec<SegmentContent>> = BTreeMap::new();
        for RemovedSegment { table, segment, .. } in self.metastore.removed_segments().await? {
            let contents = removed.entry(table).or_default();
            contents.push((segment.name, segment.checksum));
        }
        for (table, contents) in removed {
            self.metastore.forget_segments(&table, &contents).await?;
        }
        let state = self.metastore.state().await?;
        let kept = self.metastore.kept_pushes().await?;
        let in_use = state.tables.iter().flat_map(|t| {
            let contents = t.segments.iter().map(|s| (&s.name, s.checksum));
            contents.map(|(name, checksum)| (t.name.as_str(), name, checksum))
        });
        let kept = kept.iter().flat_map(|push| {
            let contents = push.segments.iter().map(|s| (&s.name, s.checksum));
            contents.map(|(name, checksum)| (push.table.as_str(), name, checksum))
        });
        let named: HashSet<(&str, &SegmentName, u64)> = in_use.chain(kept).collect();
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
            && known.schema.version == table.schema.version
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
            lineage: Arc::clone(&table.schema.lineage),
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
        let times = |of: &dyn Fn(&SegmentInfo) -> bool| {
            let known = table.segments.iter().filter(|s| of(s));
            let known = known.filter_map(|s| s.time_ms);
            known.reduce(|(min, max), (a, b)| (min.min(a), max.max(b)))
        };
        let offline_ms = times(&|s| s.half == Half::Offline);
        let realtime_ms = times(&|s| s.half == Half::Realtime);
        let covered = coverage::covered(
            &table.coverage,
            largest_pushed(table),
            offline.map(|c| c.push_period).unwrap_or_default(),
        );
        let segments = match documents.lineage.is_plain() {
            true => table.segments.clone(),
            false => {
                let adapted = |s| adapt_info(s, &documents.schema, &documents.lineage);
                table.segments.iter().map(adapted).collect()
            }
        };
        let keys = documents.halves.get(&Half::Realtime);
        let keys = keys.and_then(|config| config.keys.as_ref());
        let has_keys = keys.is_some_and(|keys| keys.supersedes());
        let gaps = coverage::gaps(&covered.offline, offline_ms, realtime_ms.map(|t| t.0));
        TableSnapshot {
            name: Arc::from(table.name.as_str()),
            schema: Arc::clone(&documents.schema),
            lineage: Arc::clone(&documents.lineage),
            time_column,
            has_offline: offline.is_some(),
            has_realtime: documents.halves.contains_key(&Half::Realtime),
            segments,
            tails: table
                .partitions
                .iter()
                .map(|p| TailStart {
                    partition: p.partition.clone(),
                    from_offset: p.next_offset,
                })
                .collect(),
            coverage: covered.offline,
            shared: covered.shared,
            gaps,
            pinned: table.coverage.pinned_at_ms.is_some(),
            text: text_settings(documents.halves.values()),
            pushed: has_keys.then(|| pushed_keys::pushed_names(&table.segments)),
        }
    }
}

/// The largest time that pushes brought to the offline half.
pub(crate) fn largest_pushed(table: &TableRecord) -> Option<i64> {
    let pushed = table.segments.iter().filter(|s| s.moves_boundary());
    pushed.filter_map(|s| Some(s.time_ms?.1)).max()
}

/// How columns are searched for words; both halves of a hybrid table agree where both say it.
fn text_settings<'a>(
    halves: impl Iterator<Item = &'a Arc<TableConfig>>,
) -> BTreeMap<String, TextSettings> {
    let columns = halves.flat_map(|config| &config.spec.columns);
    let of_text = columns.filter_map(|(name, spec)| Some((name.clone(), spec.text.clone()?)));
    of_text.collect()
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
    retiring: Arc<Mutex<HashSet<Content>>>,
    content: Content,
    /// The first catalog version that does not name it.
    version: CatalogVersion,
    copied: Option<watch::Receiver<CatalogVersion>>,
    environment: Environment,
}

/// How long a file that is to be removed waits for a copy of the metastore: a full disk may need its room to make one.
const COPY_WAIT_MAX: Duration = Duration::from_secs(60);

impl Remover {
    async fn run(mut self) {
        if let Some(copied) = &mut self.copied {
            tokio::select! {
                biased;
                _ = copied.wait_for(|copied| *copied >= self.version) => {}
                () = self.environment.clock.sleep(COPY_WAIT_MAX) => {}
            }
        }
        let (table, name, checksum) = &self.content;
        let content = (name.clone(), *checksum);
        let removed = match self
            .metastore
            .forget_segments(table, std::slice::from_ref(&content))
            .await
        {
            Ok(()) => self.deep_store.delete(table, name, *checksum).await,
            Err(e) => Err(e),
        };
        self.retiring.lock().remove(&self.content);
        if let Err(e) = removed {
            tracing::warn!(segment = %name, error = %e, "cannot remove a replaced segment's file; the next start does");
        }
    }
}
