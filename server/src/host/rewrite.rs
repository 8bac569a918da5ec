//! Segments that are stored otherwise than their table's config says are rewritten, one at a time, in the background.
//!
//! What is to be done follows from what the metastore holds: each segment names the storage it was built with, and the config
//! the one it should have. So a process that is killed anywhere goes on where it was: a file that was not named yet is removed
//! at the next start, and the segment is rewritten again.
//!
//! A rewritten segment has the old one's name and rows and another checksum. It is held before it is named, one transaction
//! puts it in the old one's place, and the old one goes when no query can name it any more: every query reads one of the two.

use super::catalog::Publisher;
use super::stored::store_and_hold;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strandline_broker::transport::CatalogSource;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::Half;
use strandline_proto::{Error, Result};
use strandline_storage::deep_store::{DeepStore, Finished};
use strandline_storage::environment::{Environment, blocking, in_background};
use strandline_storage::meta::{Metastore, ReplaceSegment};
use strandline_storage::segment::rewrite::rewrite_segment;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often the metastore is asked whether there is anything to do, when nobody says so.
const PERIOD: Duration = Duration::from_secs(30);
/// How long a segment that could not be rewritten is left alone.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(300);

/// How far a table's segments are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewriteStatus {
    /// Committed segments.
    pub segments: u64,
    /// Those of them that are still stored as an earlier config said.
    pub waiting: u64,
    /// The one that is being rewritten; empty: none of this table.
    pub current: String,
    /// Segments that could not be rewritten, with the reasons; they are tried again.
    pub errors: Vec<(String, String)>,
}

/// A segment as it is named: by its table, its name and its checksum.
type Key = (String, String, u64);

#[derive(Default)]
struct Progress {
    current: Option<Key>,
    /// When it was, on the monotonic clock, and why.
    failed: HashMap<Key, (Duration, Error)>,
}

/// Rewrites segments.
pub struct Rewriter {
    /// Where segments are named.
    pub metastore: Arc<dyn Metastore>,
    /// Where they are kept.
    pub deep_store: Arc<DeepStore>,
    /// Knows the configs, and makes what was rewritten visible.
    pub publisher: Arc<Publisher>,
    /// Where files are made.
    pub staging: PathBuf,
    /// Time, tasks, files.
    pub environment: Environment,
    progress: Mutex<Progress>,
    wake: Notify,
}

/// What is to be done next.
struct Job {
    table: String,
    segment: Arc<SegmentInfo>,
    stored_as: String,
}

impl Job {
    fn key(&self) -> Key {
        (
            self.table.clone(),
            self.segment.name.to_string(),
            self.segment.checksum,
        )
    }
}

impl Rewriter {
    /// A rewriter that does nothing until it is run.
    pub fn new(
        metastore: Arc<dyn Metastore>,
        deep_store: Arc<DeepStore>,
        publisher: Arc<Publisher>,
        staging: PathBuf,
        environment: Environment,
    ) -> Self {
        Self {
            metastore,
            deep_store,
            publisher,
            staging,
            environment,
            progress: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Says that there may be something to do; what failed before is tried again at once.
    pub fn wake(&self) {
        self.progress.lock().failed.clear();
        self.wake.notify_one();
    }

    /// Works until it is stopped, which it is between two segments.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            match self.next().await {
                Ok(Some(job)) if !stop.is_cancelled() => {
                    let key = job.key();
                    self.progress.lock().current = Some(key.clone());
                    let outcome = self.rewrite(&job).await;
                    let mut progress = self.progress.lock();
                    progress.current = None;
                    if let Err(e) = outcome {
                        tracing::warn!(table = job.table, segment = %job.segment.name, error = %e,
                            "cannot rewrite the segment as its table's config says; queries go on with it as it is");
                        let now = self.environment.clock.monotonic();
                        progress.failed.insert(key, (now, e));
                    }
                    continue;
                }
                Ok(_) => {}
                Err(e) => tracing::warn!(error = %e, "cannot look for segments to rewrite"),
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = self.environment.clock.sleep(PERIOD) => {}
            }
        }
    }

    /// A segment that is not stored as it should be.
    async fn next(&self) -> Result<Option<Job>> {
        let state = self.metastore.state().await?;
        let now = self.environment.clock.monotonic();
        for table in &state.tables {
            for half in [Half::Offline, Half::Realtime] {
                let Some(wanted) = self.wanted(&table.name, half) else {
                    continue;
                };
                for segment in table.segments.iter().filter(|s| s.half == half) {
                    let job = Job {
                        table: table.name.clone(),
                        segment: Arc::clone(segment),
                        stored_as: wanted.clone(),
                    };
                    let failed = self.progress.lock().failed.get(&job.key()).map(|f| f.0);
                    let rests = failed.is_some_and(|at| now.saturating_sub(at) < PAUSE_AFTER_ERROR);
                    if is_stale(segment, &wanted) && !rests && self.is_settled(&job) {
                        return Ok(Some(job));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The storage that segments of a half should have.
    fn wanted(&self, table: &str, half: Half) -> Option<String> {
        Some(self.publisher.config(table, half)?.spec.fingerprint())
    }

    /// Whether whoever committed the segment knows that it did: a commit may be repeated until then, and names the segment as
    /// it was.
    fn is_settled(&self, job: &Job) -> bool {
        let Some((partition, offsets)) = &job.segment.origin else {
            return true;
        };
        let tails = self.publisher.registry().table(&job.table).tails();
        let tail = tails.iter().find(|tail| tail.partition() == partition);
        tail.is_none_or(|tail| *tail.committed().borrow() >= offsets.end)
    }

    async fn rewrite(&self, job: &Job) -> Result<()> {
        let Job {
            table,
            segment,
            stored_as,
        } = job;
        let config = self.publisher.config(table, segment.half);
        // The config may have changed since, or gone: the next look finds what to do then.
        let Some(config) = config.filter(|c| c.spec.fingerprint() == *stored_as) else {
            return Ok(());
        };
        let hosted = self.publisher.registry().table(table);
        let source = hosted.open(&segment.name, segment.checksum)?;
        let path = self.staging.join(format!("{}.rewrite", segment.name));
        let (files, target) = (Arc::clone(&self.environment.files), path.clone());
        let built = blocking(&self.environment.spawner, "rewrite segment", move || {
            in_background(|| rewrite_segment(&source, &config.spec, &files, &target))
        })
        .await?;
        let new = SegmentInfo {
            stored_as: Some(stored_as.clone()),
            moved: segment.moved,
            pushed_in: segment.pushed_in,
            rebuilt: segment.rebuilt,
            schema_version: segment.schema_version,
            ..built
        };
        let is_other = new.checksum != segment.checksum;
        if is_other {
            if self.publisher.is_retiring(table, &new.name, new.checksum) {
                let _ = self.environment.files.remove(&path);
                return Err(Error::unavailable(
                    "queries still read the segment as it was before, which it is to become again; it is tried again",
                ));
            }
            store_and_hold(
                &self.deep_store,
                &self.environment,
                (table, &hosted),
                &new,
                Finished::Ours(&path),
            )
            .await?;
        }
        let _ = self.environment.files.remove(&path);
        let replaced = self
            .metastore
            .replace_segment(ReplaceSegment {
                table: table.clone(),
                checksum: segment.checksum,
                segment: new.clone(),
            })
            .await;
        let version = match replaced {
            Ok(outcome) => outcome.into_inner(),
            Err(e) => {
                if is_other {
                    self.discard(job, &new).await;
                }
                return Err(e);
            }
        };
        self.publisher.publish().await?;
        if is_other {
            let old = (**segment).clone();
            self.publisher.retire_segments(version, table, vec![old]);
        }
        tracing::info!(table, segment = %new.name, rows = new.rows, bytes_before = segment.bytes, bytes = new.bytes,
            "segment rewritten as the table's config says");
        Ok(())
    }

    /// Removes a rewritten segment that the metastore does not name. Whether it does is asked, because a replacement
    /// whose answer was lost may have happened.
    async fn discard(&self, job: &Job, new: &SegmentInfo) {
        let state = match self.metastore.state().await {
            Ok(state) => state,
            Err(e) => {
                tracing::warn!(table = job.table, error = %e, "a rewritten segment stays until the next start");
                return;
            }
        };
        let named = state.table(&job.table).is_some_and(|table| {
            let same = |s: &Arc<SegmentInfo>| s.name == new.name && s.checksum == new.checksum;
            table.segments.iter().any(same)
        });
        if named {
            return;
        }
        let hosted = self.publisher.registry().table(&job.table);
        hosted.forget(&new.name, new.checksum);
        if let Err(e) = self
            .deep_store
            .delete(&job.table, &new.name, new.checksum)
            .await
        {
            tracing::warn!(segment = %new.name, error = %e, "cannot remove an unused segment file; the next start does");
        }
    }

    /// How far a table is, by what was published last.
    pub fn status(&self, table: &str, half: Option<Half>) -> RewriteStatus {
        let snapshot = self.publisher.registry().snapshot();
        let Some(found) = snapshot.tables.get(table) else {
            return RewriteStatus::default();
        };
        let mut status = RewriteStatus::default();
        for each in [Half::Offline, Half::Realtime] {
            let Some(wanted) = self
                .wanted(table, each)
                .filter(|_| half.is_none_or(|h| h == each))
            else {
                continue;
            };
            let of_half = found.segments.iter().filter(|s| s.half == each);
            status.segments += of_half.clone().count() as u64;
            status.waiting += of_half.filter(|s| is_stale(s, &wanted)).count() as u64;
        }
        let progress = self.progress.lock();
        if let Some((of, name, _)) = &progress.current
            && of == table
        {
            status.current.clone_from(name);
        }
        let failed = progress.failed.iter().filter(|((of, ..), _)| of == table);
        status.errors = failed
            .map(|((_, name, _), (_, e))| (name.clone(), e.message().to_owned()))
            .collect();
        status.errors.sort();
        status
    }
}

/// Whether a segment is known to be stored otherwise than `wanted`.
fn is_stale(segment: &SegmentInfo, wanted: &str) -> bool {
    segment.stored_as.as_deref().is_some_and(|is| is != wanted)
}
