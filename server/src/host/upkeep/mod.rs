//! What is done to committed segments in the background, beside rewriting them for another config: rows too old are given up,
//! the offline half takes over what the stream brought, small segments are merged, what pushes replaced is let go, and so are archived
//! messages.
//!
//! What is to be done follows from what the metastore holds, and each step is one transaction, so a process that is killed
//! anywhere goes on where it was. One step at a time is done.

mod archives;
mod expire;
mod merge;
mod take_over;

use super::added::Places;
use super::change::has_changed;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::Result;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::Coverage;
use strandline_proto::ids::{Half, SegmentName};
use strandline_storage::config::TableConfig;
use strandline_storage::meta::{TableRecord, coverage};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often tables are looked at, when nobody says so.
const PERIOD: Duration = Duration::from_secs(10);
/// How long a table is left alone after an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(60);

/// What was done last, or waits, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpkeepNote {
    /// What was done, or why it waits.
    pub message: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// The kinds of upkeep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Rows too old are given up.
    Expire,
    /// The offline half takes rows of the stream over.
    TakeOver,
    /// Small segments are merged.
    Merge,
    /// Archived messages too old are given up.
    TrimArchive,
}

impl Task {
    /// The name, as system tables show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Expire => "EXPIRE",
            Self::TakeOver => "TAKE_OVER",
            Self::Merge => "MERGE",
            Self::TrimArchive => "TRIM_ARCHIVE",
        }
    }
}

#[derive(Default)]
struct Progress {
    notes: BTreeMap<(String, Task), UpkeepNote>,
    /// When tables had an error, on the monotonic clock.
    failed: HashMap<(String, Task), Duration>,
    /// When segments were first seen, on the monotonic clock.
    seen: HashMap<(String, SegmentName, u64), Duration>,
    /// How many rows of segments committed ones superseded when it was looked which of them are needed.
    looked_at: HashMap<(String, SegmentName, u64), u64>,
    /// When tables' archives were looked at, on the monotonic clock.
    archives: HashMap<String, Duration>,
    /// Pairs of a segment's checksum and a period's start where it has no rows.
    empty: std::collections::HashSet<(u64, i64)>,
}

/// Keeps tables in order.
pub struct Upkeep {
    places: Places,
    progress: Mutex<Progress>,
    wake: Notify,
}

/// A table as upkeep sees it.
struct Table<'a> {
    record: &'a TableRecord,
    offline: Option<Arc<TableConfig>>,
    realtime: Option<Arc<TableConfig>>,
    /// Segments whose commit nobody will repeat any more.
    settled: Vec<Arc<SegmentInfo>>,
}

impl Table<'_> {
    fn config(&self, half: Half) -> Option<&Arc<TableConfig>> {
        match half {
            Half::Offline => self.offline.as_ref(),
            Half::Realtime => self.realtime.as_ref(),
        }
    }

    fn has_keys(&self) -> bool {
        let config = self.realtime.as_ref();
        config.is_some_and(|config| config.keys.is_some())
    }

    fn is_hybrid(&self) -> bool {
        self.offline.is_some() && self.realtime.is_some()
    }

    /// The times for which pushes made offline complete.
    fn pushed(&self) -> Coverage {
        let period = self.offline.as_ref().map(|c| c.push_period);
        let largest = super::catalog::largest_pushed(self.record);
        coverage::coverage(&self.record.coverage, largest, period.unwrap_or_default())
    }
}

impl Upkeep {
    /// Upkeep that does nothing until it is run.
    pub fn new(places: Places) -> Self {
        Self {
            places,
            progress: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Says that there may be something to do.
    pub fn wake(&self) {
        self.progress.lock().failed.clear();
        self.wake.notify_one();
    }

    /// What was done last, or waits, by table and task.
    pub fn notes(&self) -> Vec<(String, Task, UpkeepNote)> {
        let progress = self.progress.lock();
        let notes = progress.notes.iter();
        notes
            .map(|((table, task), note)| (table.clone(), *task, note.clone()))
            .collect()
    }

    /// Works until it is stopped, which it is between two steps.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.step().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(e) => tracing::warn!(error = %e, "cannot look for upkeep to do"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = self.places.environment.clock.sleep(PERIOD) => {}
            }
        }
    }

    /// Does the first thing that is to be done; false when there is none.
    async fn step(&self) -> Result<bool> {
        let state = self.places.metastore.state().await?;
        self.see(&state.tables);
        let kept = self.places.metastore.kept_pushes().await?;
        if self.let_go(&kept).await? {
            return Ok(true);
        }
        for record in &state.tables {
            let table = self.table(record);
            for task in [Task::Expire, Task::TakeOver, Task::Merge, Task::TrimArchive] {
                if self.rests(&record.name, task) {
                    continue;
                }
                let done = match task {
                    Task::Expire => self.expire(&table).await,
                    Task::TakeOver => self.take_over(&table).await,
                    Task::Merge => self.merge(&table, &kept).await,
                    Task::TrimArchive => self.trim_archives(&table).await,
                };
                match done {
                    Ok(None) => {}
                    Ok(Some(message)) => {
                        tracing::info!(table = record.name, "{message}");
                        self.note(&record.name, task, message);
                        return Ok(true);
                    }
                    // A push or a statement came between; the next look finds what to do then.
                    Err(e) if has_changed(&e) => {
                        tracing::debug!(table = record.name, error = %e, "upkeep is tried again");
                        self.rest(&record.name, task);
                    }
                    Err(e) => {
                        tracing::warn!(table = record.name, task = task.name(), error = %e, "upkeep failed; it is tried again");
                        self.note(&record.name, task, format!("failed, is tried again: {e}"));
                        self.rest(&record.name, task);
                    }
                }
            }
        }
        Ok(false)
    }

    fn table<'a>(&self, record: &'a TableRecord) -> Table<'a> {
        let publisher = &self.places.publisher;
        let tails = publisher.registry().table(&record.name).tails();
        let is_settled = |segment: &&Arc<SegmentInfo>| match &segment.origin {
            None => true,
            Some((partition, offsets)) => {
                let tail = tails.iter().find(|tail| tail.partition() == partition);
                tail.is_none_or(|tail| *tail.committed().borrow() >= offsets.end)
            }
        };
        Table {
            record,
            offline: publisher.config(&record.name, Half::Offline),
            realtime: publisher.config(&record.name, Half::Realtime),
            settled: record.segments.iter().filter(is_settled).cloned().collect(),
        }
    }

    fn rests(&self, table: &str, task: Task) -> bool {
        let now = self.places.environment.clock.monotonic();
        let failed = &self.progress.lock().failed;
        let at = failed.get(&(table.to_owned(), task));
        at.is_some_and(|at| now.saturating_sub(*at) < PAUSE_AFTER_ERROR)
    }

    fn rest(&self, table: &str, task: Task) {
        let now = self.places.environment.clock.monotonic();
        let failed = &mut self.progress.lock().failed;
        failed.insert((table.to_owned(), task), now);
    }

    fn note(&self, table: &str, task: Task, message: String) {
        let at_ms = self.places.environment.clock.now_ms();
        let note = UpkeepNote { message, at_ms };
        let notes = &mut self.progress.lock().notes;
        notes.insert((table.to_owned(), task), note);
    }

    /// Notes when segments are seen first, and forgets those that are gone.
    fn see(&self, tables: &[Arc<TableRecord>]) {
        let now = self.places.environment.clock.monotonic();
        let mut progress = self.progress.lock();
        let before = std::mem::take(&mut progress.seen);
        for table in tables {
            for segment in &table.segments {
                let key = (table.name.clone(), segment.name.clone(), segment.checksum);
                let first = before.get(&key).copied().unwrap_or(now);
                progress.seen.insert(key, first);
            }
        }
        let Progress {
            seen, looked_at, ..
        } = &mut *progress;
        looked_at.retain(|key, _| seen.contains_key(key));
        let names = |table: &String| tables.iter().any(|t| t.name == *table);
        progress.notes.retain(|(table, _), _| names(table));
        progress.archives.retain(|table, _| names(table));
        if progress.empty.len() > 100_000 {
            progress.empty.clear();
        }
    }
}

#[cfg(test)]
mod tests;
