//! Rows that go, and pushes that are undone.

use super::{Engine, quoted};
use crate::host::catalog::PushedChange;
use crate::host::change::{self, Planned, Take, has_changed};
use crate::host::load::show_pushed;
use crate::host::moved_keys::reader;
use crate::host::registry::Held;
use crate::host::stored::open_stored;
use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use futures::TryStreamExt;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{Half, SegmentName};
use strandline_proto::{Error, Result};
use strandline_storage::backup::Manifest;
use strandline_storage::environment::blocking;
use strandline_storage::meta::{ChangeReason, Metastore, TableRecord};
use strandline_storage::segment::merge::docs_without;

/// Documents by segment.
type DocsBySegment = BTreeMap<SegmentName, Vec<u32>>;

/// How often a change looks again at its segments, when these change under it.
const ATTEMPTS_MAX: u32 = 20;
/// How long, and how often, a change waits for keys of committed rows.
const KEYS_WAIT: Duration = Duration::from_millis(20);
const KEYS_WAITS_MAX: u32 = 1_500;

impl Engine {
    /// Makes a backup of everything under a name; gives its folder and what it holds.
    pub async fn backup(&self, name: &str) -> Result<(PathBuf, Manifest)> {
        self.backups.make(name).await
    }

    /// Pauses or resumes the reading of a table's stream; what was read is committed meanwhile. Holds over restarts.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<()> {
        let _one_at_a_time = self.tables_change.lock().await;
        let (table, _) = self.table_and_half(name)?;
        self.metastore.set_paused(&table.name, paused).await?;
        self.realtime.set_paused(&table.name, paused);
        Ok(())
    }

    /// Undoes a push; gives the rows that went, and those that are there again.
    pub async fn revert_push(&self, name: &str, push_id: &str) -> Result<(u64, u64)> {
        let _one_at_a_time = self.tables_change.lock().await;
        let (table, _) = self.table_and_half(name)?;
        let name = &*table.name;
        let kept = self.metastore.kept_pushes().await?;
        let kept = kept
            .into_iter()
            .filter(|p| p.table == name && p.push_id == push_id);
        let (mut added, mut segments) = (Vec::new(), Vec::new());
        for push in kept {
            added.extend(push.added);
            segments.extend(push.segments);
        }
        let kept: Vec<SegmentInfo> = segments;
        let hosted = self.registry.table(name);
        for segment in &kept {
            self.registry
                .keep_segment(name, &segment.name, segment.checksum);
            let places = &self.loader.places;
            let opened = open_stored(
                &places.deep_store,
                &places.environment,
                name,
                &segment.name,
                segment.checksum,
            )
            .await?;
            hosted.hold(segment.name.clone(), segment.checksum, Held::Open(opened));
        }
        let keys = PushedChange::begin(&self.loader.places, name, |_, there| {
            let stays = |s: &&Arc<SegmentInfo>| !added.iter().any(|a| s.name.as_str() == a);
            let stay = there.iter().filter(stays).cloned();
            stay.chain(kept.iter().cloned().map(Arc::new)).collect()
        });
        let (keys, reverted) = match keys.await {
            Ok(keys) => (keys, self.metastore.revert_push(name, push_id).await),
            Err(e) => (None, Err(e)),
        };
        if reverted.is_err()
            && let Ok(state) = self.metastore.state().await
        {
            // They stay what is kept and not open, unless only the answer was lost.
            let table = state.table(name);
            for old in &kept {
                if !table.is_some_and(|table| table.has(&old.name, old.checksum)) {
                    hosted.forget(&old.name, old.checksum);
                }
            }
        }
        let reverted = reverted?;
        if reverted.is_already_done() {
            return Ok((0, 0));
        }
        let reverted = reverted.into_inner();
        let gone = reverted.removed.iter().map(|s| s.rows).sum();
        let back = kept.iter().map(|s| s.rows).sum();
        show_pushed(&self.publisher, name, reverted).await?;
        if let Some(keys) = keys {
            keys.shown();
        }
        Ok((gone, back))
    }

    /// Drops the offline rows of an interval, for which realtime answers then; gives their number.
    pub async fn drop_offline(&self, name: &str, start_ms: i64, end_ms: i64) -> Result<u64> {
        if start_ms >= end_ms {
            return Err(Error::invalid(
                "the interval is empty: its end must be after its start",
            ));
        }
        let (table, _) = self.table_and_half(name)?;
        if !table.has_offline || table.time_column.is_none() {
            return Err(Error::precondition(format!(
                "table {} has no offline half with a time column",
                table.name
            )));
        }
        let interval = Interval { start_ms, end_ms };
        let mut attempt = 1;
        loop {
            match self.try_drop_offline(&table.name, interval).await {
                Err(e) if attempt < ATTEMPTS_MAX && has_changed(&e) => attempt += 1,
                dropped => return dropped,
            }
        }
    }

    async fn try_drop_offline(&self, table: &str, interval: Interval) -> Result<u64> {
        let state = self.metastore.state().await?;
        let record = state
            .table(table)
            .ok_or_else(|| Error::not_found(format!("no table {table}")))?;
        if !record.coverage.moved.within(interval).is_empty() {
            return Err(Error::unsupported(format!(
                "not supported: dropping offline rows that were taken over from the stream of table {table}, which does not have them any more; to be rid of them, DELETE FROM {table} WHERE ..."
            )));
        }
        let reaches = |s: &&Arc<SegmentInfo>| s.half == Half::Offline && s.reaches(interval);
        let removed: Vec<_> = record.segments.iter().filter(reaches).cloned().collect();
        let planned = change::outside(&removed, interval);
        let places = &self.loader.places;
        let reason = ChangeReason::Uncovered(interval);
        let left = change::apply(places, table, &removed, planned, reason, None).await?;
        Ok(rows(removed.iter().map(|s| s.rows)) - rows(left.iter().map(|s| s.rows)))
    }

    /// Deletes the rows of `T`, `T_OFFLINE` or `T_REALTIME`, hidden ones included, for which `predicate` is true, or all; gives
    /// their number. Rows that come from the stream while this runs may stay; where rows have keys, those that rank below a deleted
    /// one of their key do not count, whenever they come.
    pub async fn delete_rows(&self, name: &str, predicate: Option<&str>) -> Result<u64> {
        let (table, half) = self.table_and_half(name)?;
        if table.pushed.is_some() && table.has_offline {
            return Err(Error::unsupported(format!(
                "not supported: DELETE FROM {name}, whose rows have keys, beside an OFFLINE half; delete keys by rows of the stream (upsertConfig.deleteRecordColumn), or pushed rows by replacing their times",
            )));
        }
        // It stands in a statement of ours, which it must not go on behind.
        if let Some(predicate) = predicate {
            strandline_broker::check_predicate(predicate)?;
        }
        // Of what is in memory a segment is made first, which can be put in another one's place.
        if table.has_realtime && half != Some(Half::Offline) {
            self.force_commit(&table.name).await?;
        }
        let exists = |h: Half| match h {
            Half::Offline => table.has_offline,
            Half::Realtime => table.has_realtime,
        };
        let halves = [Half::Offline, Half::Realtime]
            .into_iter()
            .filter(|h| exists(*h) && half.is_none_or(|half| half == *h));
        let halves: Vec<Half> = halves.collect();
        let mut attempt = 1;
        loop {
            match self.try_delete(&table.name, &halves, predicate).await {
                Err(e) if attempt < ATTEMPTS_MAX && has_changed(&e) => attempt += 1,
                deleted => return deleted,
            }
        }
    }

    /// Waits until the keys of all rows of a table's segments are on disk: of those of others it would not be known that they
    /// are deleted.
    ///
    /// # Errors
    /// `FailedPrecondition` when its segments change meanwhile, `Unavailable` when it takes too long.
    async fn wait_for_keys(&self, record: &TableRecord) -> Result<()> {
        let table = &record.name;
        let Some(keys) = self.registry.table(table).keys() else {
            return Ok(());
        };
        let realtime = record.segments.iter().filter(|s| s.half == Half::Realtime);
        let mut waited_for: Vec<Arc<SegmentInfo>> = realtime.cloned().collect();
        for _ in 0..KEYS_WAITS_MAX {
            let (keys, segments) = (Arc::clone(&keys), waited_for);
            let spawner = &self.environment.spawner;
            let not_settled = blocking(spawner, "look for keys", move || {
                let mut left = Vec::new();
                for segment in segments {
                    if !keys.is_settled(&segment.name)? {
                        left.push(segment);
                    }
                }
                Ok(left)
            });
            waited_for = not_settled.await?;
            if waited_for.is_empty() {
                return Ok(());
            }
            let state = self.metastore.state().await?;
            let now = state.table(table);
            let has = |s: &Arc<SegmentInfo>| now.is_some_and(|now| now.has(&s.name, s.checksum));
            if let Some(gone) = waited_for.iter().find(|segment| !has(segment)) {
                return Err(has_changed_meanwhile(table, gone));
            }
            self.environment.clock.sleep(KEYS_WAIT).await;
        }
        Err(Error::unavailable(format!(
            "the keys of table {table} are not on disk yet; see system.ingestion, and try again"
        )))
    }

    async fn try_delete(
        &self,
        table: &str,
        halves: &[Half],
        predicate: Option<&str>,
    ) -> Result<u64> {
        let missing = || Error::not_found(format!("no table {table}"));
        let state = self.metastore.state().await?;
        let record = state.table(table).ok_or_else(missing)?;
        self.wait_for_keys(record).await?;
        // The query sees these segments or newer ones, and these are still there after it: what it found is of these, or of
        // rows that have come since.
        self.publisher.publish().await?;
        let mut docs: HashMap<String, Vec<u32>> = HashMap::new();
        for half in halves {
            self.matching(&format!("{table}_{half}"), predicate, &mut docs)
                .await?;
        }
        let later = self.metastore.state().await?;
        let now = later.table(table).ok_or_else(missing)?;
        let of_halves = || record.segments.iter().filter(|s| halves.contains(&s.half));
        if let Some(gone) = of_halves().find(|s| !now.has(&s.name, s.checksum)) {
            return Err(has_changed_meanwhile(table, gone));
        }
        let mut removed = Vec::new();
        let mut planned = Vec::new();
        let deleted = of_halves().filter_map(|segment| {
            let mut docs = docs.remove(segment.name.as_str())?;
            docs.sort_unstable();
            docs.dedup();
            Some((segment.name.clone(), docs))
        });
        let mut deleted: DocsBySegment = deleted.collect();
        let number = rows(deleted.values().map(|docs| docs.len() as u64));
        let mut going = self.older_rows(table, record, &deleted).await?;
        for (name, docs) in &deleted {
            going.entry(name.clone()).or_default().extend(docs);
        }
        let has_keys = self.registry.table(table).keys().is_some();
        for segment in of_halves() {
            let Some(mut docs) = going.remove(&segment.name) else {
                continue;
            };
            docs.sort_unstable();
            let rows = u32::try_from(segment.rows)
                .map_err(|_| Error::internal("a segment of over 2^32 rows"))?;
            if docs.is_empty() {
                continue;
            }
            // Where rows have keys, one without rows may remember which were deleted.
            if (docs.len() as u64) < segment.rows || has_keys {
                let left = Take::Docs(docs_without(rows, &docs));
                let deleted = deleted.remove(&segment.name).unwrap_or_default();
                planned.push(Planned::deleting(segment, left, deleted));
            }
            removed.push(Arc::clone(segment));
        }
        if removed.is_empty() {
            return Ok(0);
        }
        let places = &self.loader.places;
        let reason = ChangeReason::Deleted;
        let left = Some(change::deleted as change::Left);
        change::apply(places, table, &removed, planned, reason, left).await?;
        Ok(number)
    }

    /// Rows that would count again without rows that are deleted, by segment.
    async fn older_rows(
        &self,
        table: &str,
        record: &TableRecord,
        deleted: &DocsBySegment,
    ) -> Result<DocsBySegment> {
        let hosted = self.registry.table(table);
        let keys = hosted.keys().filter(|keys| keys.config().supersedes());
        let Some(keys) = keys.filter(|_| !deleted.is_empty()) else {
            return Ok(DocsBySegment::new());
        };
        let open = |name: &SegmentName| reader(&self.loader.places, table, &hosted, name);
        let realtime = record.segments.iter().filter(|s| s.half == Half::Realtime);
        let all = realtime.map(|s| Ok((s.name.clone(), open(&s.name)?)));
        let all = all.collect::<Result<Vec<_>>>()?;
        let of = deleted
            .iter()
            .map(|(name, docs)| Ok((open(name)?, docs.clone())));
        let of = of.collect::<Result<Vec<_>>>()?;
        let spawner = &self.environment.spawner;
        blocking(spawner, "look for older rows", move || {
            let older = keys.older_rows(&of, &all)?;
            let names = all.into_iter().map(|(name, _)| name);
            Ok(names.zip(older).collect())
        })
        .await
    }

    /// Adds the documents, by segment, for which a predicate is true.
    async fn matching(
        &self,
        table: &str,
        predicate: Option<&str>,
        docs: &mut HashMap<String, Vec<u32>>,
    ) -> Result<()> {
        let filter = predicate.map_or_else(String::new, |p| format!(" WHERE {p}"));
        let sql = format!(
            "SELECT \"$segment\", \"$docId\" FROM {}{filter}",
            quoted(table)
        );
        let answer = self.broker.query(QueryRequest::new(sql)).await?;
        let mut batches = answer.batches;
        while let Some(batch) = batches.try_next().await? {
            let wrong = || Error::internal("segments and documents came in another form");
            let names = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8);
            let names = names.map_err(|_| wrong())?;
            let names = names.as_string_opt::<i32>().ok_or_else(wrong)?;
            let ids = batch
                .column(1)
                .as_primitive_opt::<Int32Type>()
                .ok_or_else(wrong)?;
            let mut row = 0;
            while row < batch.num_rows() {
                // Rows of one segment come in runs.
                let name = names.value(row);
                let end = (row..batch.num_rows()).find(|&at| names.value(at) != name);
                let end = end.unwrap_or(batch.num_rows());
                let of_segment = docs.entry(name.to_owned()).or_default();
                let run = ids.values().get(row..end).ok_or_else(wrong)?;
                of_segment.extend(run.iter().map(|id| id.unsigned_abs()));
                row = end;
            }
        }
        Ok(())
    }
}

fn rows(each: impl Iterator<Item = u64>) -> u64 {
    each.sum()
}

fn has_changed_meanwhile(table: &str, gone: &SegmentInfo) -> Error {
    Error::precondition(format!(
        "table {table}: segment {} has changed meanwhile",
        gone.name
    ))
}
