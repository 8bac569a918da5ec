//! Keys of pushed segments: they follow what the metastore names, before that is published.

use super::{MetaState, Publisher, TableRecord};
use crate::host::added::Places;
use crate::host::keys::HostedPlaces;
use std::sync::Arc;
use strandline_proto::catalog::{PushedNames, SegmentInfo};
use strandline_proto::ids::{CatalogVersion, Half, SegmentName};
use strandline_proto::{Error, Result};
use strandline_storage::environment::{blocking, in_background};
use strandline_storage::keys::{PlaceReader, PushedSegment, TableKeys};
use tokio::sync::OwnedMutexGuard;

/// The names of a table's pushed segments.
pub(super) fn pushed_names<'a>(
    segments: impl IntoIterator<Item = &'a Arc<SegmentInfo>>,
) -> PushedNames {
    let pushed = segments.into_iter().filter(|s| s.half == Half::Offline);
    PushedNames::of(pushed.map(|s| &s.name))
}

impl Publisher {
    /// Has the keys of tables know the pushed segments that the metastore names. Where that fails, queries of a table wait for
    /// the next publication. Gives the keys that have changed.
    pub(super) async fn follow_keys(&self, state: &MetaState) -> Vec<Arc<TableKeys>> {
        let mut changed = Vec::new();
        for table in &state.tables {
            let Some(keys) = self.keys_of(&table.name) else {
                continue;
            };
            let names = pushed_names(&table.segments);
            if keys.pushed() == names {
                continue;
            }
            match self.switch(table, &keys, names).await {
                Ok(()) => changed.push(keys),
                Err(e) => {
                    tracing::error!(table = table.name, error = %e, "keys of pushed segments are not known yet; it is tried again");
                }
            }
        }
        changed
    }

    /// The keys of a table's rows where a newer row takes another one's place.
    fn keys_of(&self, table: &str) -> Option<Arc<TableKeys>> {
        let keys = self.registry.table(table).keys();
        keys.filter(|keys| keys.config().supersedes())
    }

    async fn switch(
        &self,
        table: &TableRecord,
        keys: &Arc<TableKeys>,
        names: PushedNames,
    ) -> Result<()> {
        if !keys.is_prepared(names) {
            self.documents(table)?;
            let pushed = table.segments.iter().filter(|s| s.half == Half::Offline);
            self.prepare(&table.name, keys, pushed).await?;
        }
        let keys = Arc::clone(keys);
        let switch = move || keys.switch(names);
        blocking(&self.environment.spawner, "keys of pushed segments", switch).await
    }

    async fn prepare<'a>(
        &self,
        table: &str,
        keys: &Arc<TableKeys>,
        pushed: impl Iterator<Item = &'a Arc<SegmentInfo>>,
    ) -> Result<()> {
        let wanted = pushed.map(|s| PushedSegment {
            name: s.name.clone(),
            order: s.pushed_in,
        });
        let wanted: Vec<_> = wanted.collect();
        let config = self.config(table, Half::Realtime);
        let config = config.ok_or_else(|| Error::not_found(format!("no table {table}")))?;
        let places = HostedPlaces {
            hosted: self.registry.table(table),
            lineage: self.lineage(table),
        };
        let keys = Arc::clone(keys);
        let prepare = move || {
            let open = |name: &SegmentName| places.segment(name, &config.spec.schema);
            in_background(|| keys.prepare(&wanted, open))
        };
        blocking(
            &self.environment.spawner,
            "keys of pushed segments",
            prepare,
        )
        .await
    }
}

/// A change of a table's pushed segments, which its keys are prepared for; no other one is made meanwhile.
pub struct PushedChange {
    places: Places,
    keys: Arc<TableKeys>,
    is_shown: bool,
    _one_at_a_time: OwnedMutexGuard<()>,
}

impl PushedChange {
    /// Prepares, where rows of a table have keys, that its segments are those that `wanted` makes of the catalog's version and of
    /// those that are there. They are held already.
    ///
    /// # Errors
    /// `Unsupported` where a segment is to take the place of another one of its name, and what the store of keys meets.
    pub async fn begin(
        places: &Places,
        table: &str,
        wanted: impl FnOnce(CatalogVersion, &[Arc<SegmentInfo>]) -> Vec<Arc<SegmentInfo>>,
    ) -> Result<Option<Self>> {
        let publisher = &places.publisher;
        let Some(keys) = publisher.keys_of(table) else {
            return Ok(None);
        };
        let one_at_a_time = publisher.registry().table(table).keys_change().await;
        let state = places.metastore.state().await?;
        let there = state.table(table).map_or(&[][..], |t| &t.segments);
        let wanted = wanted(state.version, there);
        for there in there {
            let is_other =
                |s: &&Arc<SegmentInfo>| s.name == there.name && s.checksum != there.checksum;
            if let Some(other) = wanted.iter().find(is_other) {
                return Err(Error::unsupported(format!(
                    "not supported: another segment of the name {} in table {table}, whose rows have keys; give it another name",
                    other.name
                )));
            }
        }
        let change = Self {
            places: places.clone(),
            keys,
            is_shown: false,
            _one_at_a_time: one_at_a_time,
        };
        let pushed = wanted.iter().filter(|s| s.half == Half::Offline);
        publisher.prepare(table, &change.keys, pushed).await?;
        Ok(Some(change))
    }

    /// The change is published.
    pub fn shown(mut self) {
        self.is_shown = true;
    }
}

impl Drop for PushedChange {
    fn drop(&mut self) {
        if self.is_shown || !self.places.environment.spawner.is_running() {
            return;
        }
        let keys = Arc::clone(&self.keys);
        let spawner = Arc::clone(&self.places.environment.spawner);
        let give_up = async move {
            let give_up = move || {
                keys.give_up();
                Ok::<_, Error>(())
            };
            if let Err(e) = blocking(&spawner, "give up keys", give_up).await {
                tracing::warn!(error = %e, "keys of segments that were not pushed are forgotten at the next start");
            }
        };
        let spawner = &self.places.environment.spawner;
        spawner.spawn("give up keys", Box::pin(give_up));
    }
}
