//! Keys of rows whose segments change: they are told before the metastore, and follow it.

use super::added::Places;
use super::change::{Part, Planned, Take};
use super::keys::{HostedPlaces, partition_number};
use super::registry::HostedTable;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{CatalogVersion, Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::{Error, Result};
use strandline_storage::environment::{blocking, in_background};
use strandline_storage::keys::{Kept, PlaceReader, TableKeys};
use strandline_storage::segment::SegmentReader;
use tokio::sync::OwnedMutexGuard;

/// How long, and how often, a change waits until queries no longer look at what it changed.
const WAIT: Duration = Duration::from_millis(20);
const WAITS_MAX: u32 = 250;

/// What of segments goes into another one.
type From = Vec<(SegmentName, Kept)>;

/// Which rows of a table whose rows have keys go where: to the segment of which offsets.
pub struct Moving(Vec<(Option<(StreamPartition, OffsetRange)>, From)>);

impl Moving {
    /// What `planned` says of a table's rows.
    ///
    /// # Errors
    /// `Internal` where it does not say which rows of a segment.
    pub fn new(planned: &[Planned]) -> Result<Self> {
        let of_stream = planned.iter().filter(|p| p.half == Half::Realtime);
        let moving = of_stream.map(|planned| {
            let from = planned.parts.iter().map(|Part { source, take, .. }| {
                let docs = match take {
                    Take::All => None,
                    Take::Docs(docs) => Some(docs.clone()),
                    Take::Inside(_) | Take::Outside(_) => {
                        return Err(Error::internal("rows that have keys can't be cut by time"));
                    }
                };
                let rows = u32::try_from(source.rows)
                    .map_err(|_| Error::internal("a segment of over 2^32 rows"))?;
                Ok((source.name.clone(), Kept { rows, docs }))
            });
            Ok((planned.origin.clone(), from.collect::<Result<_>>()?))
        });
        Ok(Self(moving.collect::<Result<_>>()?))
    }

    /// The same by the segments that were made.
    fn by_segment(self, made: &[SegmentInfo]) -> Vec<(SegmentName, From)> {
        let moves = self.0.into_iter().filter_map(|(origin, from)| {
            let to = made.iter().find(|made| made.origin == origin)?;
            Some((to.name.clone(), from))
        });
        moves.collect()
    }
}

/// A change of a table's segments, of which its keys know.
pub struct KeysChange<'a> {
    places: &'a Places,
    table: &'a str,
    keys: Arc<TableKeys>,
    hosted: Arc<HostedTable>,
    /// Segments that were made, with what goes into them.
    moves: Vec<(SegmentName, From)>,
    /// Segments whose rows go nowhere.
    gone: Vec<SegmentName>,
    _one_at_a_time: OwnedMutexGuard<()>,
}

impl<'a> KeysChange<'a> {
    /// Tells the table's keys, if it has any, that rows of `removed` are about to be in `made`.
    ///
    /// # Errors
    /// Those of the store of keys, when it has to bring an earlier change to its end first; `SegmentGone` when a segment is
    /// not known any more.
    pub async fn begin(
        places: &'a Places,
        table: &'a str,
        removed: &[Arc<SegmentInfo>],
        (made, moving): (&[SegmentInfo], Option<Moving>),
    ) -> Result<Option<Self>> {
        let hosted = places.publisher.registry().table(table);
        let (Some(keys), Some(moving)) = (hosted.keys(), moving) else {
            return Ok(None);
        };
        let one_at_a_time = hosted.keys_change().await;
        let moves = moving.by_segment(made);
        let is_moved = |name: &SegmentName| {
            let mut from = moves.iter().flat_map(|(_, from)| from);
            from.any(|(moved, _)| moved == name)
        };
        let gone = removed.iter().filter(|s| !is_moved(&s.name));
        let mut names = Vec::new();
        for segment in gone {
            // Pushed rows of their keys would have to count again.
            let superseded = keys.docs(&segment.name).map(|docs| docs.superseded());
            if keys.has_pushed() && superseded.is_some_and(|rows| rows < segment.rows) {
                return Err(Error::precondition(format!(
                    "segment {} of table {table} has rows that count",
                    segment.name
                )));
            }
            names.push(segment.name.clone());
        }
        let gone = names;
        let change = Self {
            places,
            table,
            keys,
            hosted,
            moves,
            gone,
            _one_at_a_time: one_at_a_time,
        };
        change.settle().await?;
        for (at, (to, from)) in change.moves.iter().enumerate() {
            if let Err(e) = change.keys.begin_move(to, from.clone()) {
                for (to, _) in change.moves.iter().take(at) {
                    change.keys.give_up_move(to);
                }
                return Err(e);
            }
        }
        Ok(Some(change))
    }

    /// Brings to its end what an earlier change left, or what is left of one that was not made.
    async fn settle(&self) -> Result<()> {
        let moved = self.keys.moved();
        if moved.is_empty() {
            return Ok(());
        }
        let state = self.places.metastore.state().await?;
        let named = state.table(self.table).map(|table| &table.segments);
        for name in moved {
            match named.is_some_and(|named| named.iter().any(|s| s.name == name)) {
                true => {
                    self.settle_move(&name).await?;
                    self.keys.end_move(&name)?;
                }
                false => self.keys.give_up_move(&name),
            }
        }
        Ok(())
    }

    /// The change was not made, unless the metastore says that it was.
    pub async fn give_up(self) {
        if let Err(e) = self.settle().await {
            tracing::warn!(table = self.table, error = %e, "the keys of rows that were to be moved are looked at later");
        }
    }

    /// The change was made.
    pub fn note_made(&self) {
        let made: Vec<_> = self.moves.iter().map(|(to, _)| to.clone()).collect();
        self.keys.note_moved(&made);
    }

    /// The change was made at `version`, and is shown. What can't be done now is done before the next change, or at the next start.
    pub async fn finish(self, version: CatalogVersion) {
        if let Err(e) = self.try_finish(version).await {
            tracing::warn!(table = self.table, error = %e, "the keys of rows that were moved are brought to disk later");
        }
    }

    async fn try_finish(&self, version: CatalogVersion) -> Result<()> {
        let environment = &self.places.environment;
        for (to, _) in &self.moves {
            self.settle_move(to).await?;
        }
        // Queries of before look at the old segments; those that take longer look again.
        let registry = self.places.publisher.registry();
        for _ in 0..WAITS_MAX {
            if registry
                .oldest_in_use()
                .is_none_or(|oldest| oldest >= version)
            {
                break;
            }
            environment.clock.sleep(WAIT).await;
        }
        let keys = Arc::clone(&self.keys);
        let ended: Vec<_> = self.moves.iter().map(|(to, _)| to.clone()).collect();
        let gone = self.gone.clone();
        blocking(&environment.spawner, "forget keys", move || {
            ended.iter().try_for_each(|to| keys.end_move(to))?;
            keys.forget(gone.iter())
        })
        .await
    }

    /// Has the keys on disk name a segment that has taken the place of others.
    async fn settle_move(&self, to: &SegmentName) -> Result<()> {
        let config = self.places.publisher.config(self.table, Half::Realtime);
        let config = config.ok_or_else(|| Error::not_found("the table is gone"))?;
        let reader = self.reader(to)?;
        let number = reader
            .origin()
            .map_or(0, |(p, _)| partition_number(&config, p));
        let (keys, to) = (Arc::clone(&self.keys), to.clone());
        let spawner = &self.places.environment.spawner;
        blocking(spawner, "move keys", move || {
            in_background(|| keys.settle(&to, &*reader, number))
        })
        .await
    }

    /// A segment as the table's schema has its rows.
    fn reader(&self, name: &SegmentName) -> Result<Arc<dyn SegmentReader>> {
        reader(self.places, self.table, &self.hosted, name)
    }
}

/// A segment of a table as its schema has its rows.
///
/// # Errors
/// `SegmentGone` when it is not held any more, and why it is quarantined.
pub fn reader(
    places: &Places,
    table: &str,
    hosted: &Arc<HostedTable>,
    name: &SegmentName,
) -> Result<Arc<dyn SegmentReader>> {
    let config = places.publisher.config(table, Half::Realtime);
    let config = config.ok_or_else(|| Error::not_found(format!("no table {table}")))?;
    let places = HostedPlaces {
        hosted: Arc::clone(hosted),
        lineage: places.publisher.lineage(table),
    };
    places.segment(name, &config.spec.schema)
}
