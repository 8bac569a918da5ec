//! Segments on their way into a table: made, stored and held, but not named yet.

use super::catalog::Publisher;
use super::registry::{Claim, HostedTable};
use super::stored::store_and_hold;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::{Error, Result};
use strandline_storage::deep_store::{DeepStore, Finished};
use strandline_storage::environment::Environment;
use strandline_storage::meta::{Metastore, SegmentContent};

/// Where segments are made, kept, named and shown.
#[derive(Clone)]
pub struct Places {
    /// Where they are named.
    pub metastore: Arc<dyn Metastore>,
    /// Where they are kept.
    pub deep_store: Arc<DeepStore>,
    /// Makes visible what is named.
    pub publisher: Arc<Publisher>,
    /// Where files are made.
    pub staging: PathBuf,
    /// Time, randomness, tasks, files.
    pub environment: Environment,
}

impl Places {
    /// Removes segments that were added and that the metastore never named. Whether it did is asked, because a transaction
    /// whose answer was lost may have happened; when it can't be asked, the next start removes what is not named.
    pub async fn discard(&self, table: &str, added: Vec<SegmentContent>) {
        let unused = match self.never_named(table, added).await {
            Ok(unused) => unused,
            Err(e) => {
                tracing::warn!(table, error = %e, "segments that were not used stay until the next start");
                return;
            }
        };
        for (name, checksum) in &unused {
            let hosted = self.publisher.registry().table(table);
            hosted.forget(name, *checksum);
            if let Err(e) = self.deep_store.delete(table, name, *checksum).await {
                tracing::warn!(segment = %name, error = %e, "cannot remove an unused segment file; the next start does");
            }
        }
    }

    /// Those of `added` that neither are named now nor were: what another change took the place of since may be kept, or be
    /// read by a query. Asked in the order in which a segment goes.
    async fn never_named(
        &self,
        table: &str,
        mut added: Vec<SegmentContent>,
    ) -> Result<Vec<SegmentContent>> {
        if added.is_empty() {
            return Ok(added);
        }
        let state = self.metastore.state().await?;
        let is = |segment: &SegmentInfo, (name, checksum): &SegmentContent| {
            segment.name == *name && segment.checksum == *checksum
        };
        if let Some(record) = state.table(table) {
            added.retain(|content| !record.segments.iter().any(|s| is(s, content)));
        }
        if added.is_empty() {
            return Ok(added);
        }
        for push in self.metastore.kept_pushes().await? {
            if push.table == table {
                added.retain(|content| !push.segments.iter().any(|s| is(s, content)));
            }
        }
        for removed in self.metastore.removed_segments().await? {
            if removed.table == table {
                added.retain(|content| !is(&removed.segment, content));
            }
        }
        Ok(added)
    }
}

/// What was added so far. It is removed when the work is given up before all of it is there.
pub struct Added {
    places: Places,
    name: String,
    table: Arc<HostedTable>,
    claims: Vec<Claim>,
    contents: Vec<SegmentContent>,
}

impl Drop for Added {
    fn drop(&mut self) {
        let (contents, claims) = (
            std::mem::take(&mut self.contents),
            std::mem::take(&mut self.claims),
        );
        // When the process ends, the next start removes them.
        if contents.is_empty() || !self.places.environment.spawner.is_running() {
            return;
        }
        let (places, name) = (self.places.clone(), self.name.clone());
        let discard = async move {
            places.discard(&name, contents).await;
            drop(claims);
        };
        let spawner = &self.places.environment.spawner;
        spawner.spawn("discard segments", Box::pin(discard));
    }
}

impl Added {
    /// Nothing yet, of the table `name`.
    pub fn new(places: &Places, name: &str) -> Self {
        Self {
            places: places.clone(),
            name: name.to_owned(),
            table: places.publisher.registry().table(name),
            claims: Vec::new(),
            contents: Vec::new(),
        }
    }

    /// Stores a finished file and holds its segment.
    ///
    /// # Errors
    /// `AlreadyExists` when this content is there or on its way in another push: it must neither be overwritten here nor
    /// removed when this fails. `Unavailable` while it is on its way out.
    pub async fn add(&mut self, info: &SegmentInfo, file: Finished<'_>) -> Result<()> {
        let SegmentInfo { name, checksum, .. } = info;
        let claim = self.table.claim(name, *checksum).ok_or_else(|| {
            Error::already_exists(format!(
                "table {}: segment {name} is there already, or on its way in another push; to repeat a push, give it the same push id and wait for the first to end",
                self.name
            ))
        })?;
        if (self.places.publisher).is_retiring(&self.name, name, *checksum) {
            return Err(Error::unavailable(format!(
                "table {}: segment {name} with this content was replaced and is still on its way out; try again",
                self.name
            )));
        }
        self.claims.push(claim);
        self.contents.push((name.clone(), *checksum));
        let Places {
            deep_store,
            environment,
            ..
        } = &self.places;
        store_and_hold(
            deep_store,
            environment,
            (&self.name, &self.table),
            info,
            file,
        )
        .await
    }

    /// From here on only the metastore knows whether they are to go: not when this is given up, but at the next start.
    pub fn hand_over(&mut self) -> Vec<SegmentContent> {
        std::mem::take(&mut self.contents)
    }

    /// The outcome is known: what is not named is to go.
    pub fn take_back(&mut self, contents: Vec<SegmentContent>) {
        self.contents.extend(contents);
    }

    /// Removes what was added, unless it is named.
    pub async fn discard(mut self) {
        let contents = std::mem::take(&mut self.contents);
        self.places.discard(&self.name, contents).await;
    }
}
