//! The commit of sealed segments, one partition after its offsets: archive -> build -> upload -> commit -> swap -> keys.
//!
//! What is committed is in the archive before, where the table's messages are kept there.
//! Runs beside consumption. Every step may fail and is tried again; every step may be the process's last,
//! and then the stream is read again from the committed offset.

use super::catalog::Publisher;
use super::consumer::Backoff;
use super::step::{Side, Step, Steps};
use super::stored::store_and_hold;
use super::tail::Tail;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{CatalogVersion, OffsetRange};
use strandline_proto::{Error, Result};
use strandline_storage::deep_store::{DeepStore, Finished};
use strandline_storage::environment::{Environment, blocking, in_background};
use strandline_storage::meta::{CommitRealtime, Metastore, SkipOffsets};
use strandline_storage::segment::consuming::ConsumingSegment;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Sealed segments of one partition that may wait for their commit; then consumption waits too.
const SEALED_MAX: usize = 2;

/// A segment that takes no more rows.
pub struct Sealed {
    /// The segment.
    pub segment: Arc<ConsumingSegment>,
}

/// The consumer's end of the queue to its committer.
#[derive(Clone)]
pub struct CommitQueue(mpsc::Sender<Sealed>);

impl CommitQueue {
    /// A queue and its other end.
    pub fn new() -> (Self, mpsc::Receiver<Sealed>) {
        let (send, receive) = mpsc::channel(SEALED_MAX);
        (Self(send), receive)
    }

    /// A free place, waiting for one.
    pub async fn reserve(&self) -> Result<mpsc::Permit<'_, Sealed>> {
        self.0
            .reserve()
            .await
            .map_err(|_| Error::cancelled("the committer has stopped"))
    }
}

/// One partition's committer.
pub struct Committer {
    /// The table.
    pub table: Arc<str>,
    /// The partition's tail.
    pub tail: Arc<Tail>,
    /// What orders rows of equal comparison values, where rows have keys.
    pub partition_number: u32,
    /// Segments that were sealed before the committer began, oldest first.
    pub backlog: Vec<Arc<ConsumingSegment>>,
    /// Sealed segments, oldest first.
    pub queue: mpsc::Receiver<Sealed>,
    /// Where files are made.
    pub staging: PathBuf,
    /// Where they are kept.
    pub deep_store: Arc<DeepStore>,
    /// Where they are named.
    pub metastore: Arc<dyn Metastore>,
    /// Makes what was committed visible.
    pub publisher: Arc<Publisher>,
    /// Told of every step.
    pub steps: Arc<Steps>,
    /// Time, tasks, files.
    pub environment: Environment,
    /// Ends the committer between two steps.
    pub stop: CancellationToken,
}

impl Committer {
    /// Commits what comes until it is stopped.
    pub async fn run(mut self) {
        let mut backlog = std::mem::take(&mut self.backlog).into_iter();
        loop {
            let next = async {
                match backlog.next() {
                    Some(segment) => Some(segment),
                    None => self.queue.recv().await.map(|sealed| sealed.segment),
                }
            };
            let segment = tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                segment = next => segment,
            };
            let Some(segment) = segment else {
                return;
            };
            let mut backoff = Backoff::new();
            while let Err(e) = self.commit(&segment).await {
                tracing::warn!(table = %self.table, partition = %self.tail.partition(), segment = %segment.name(), error = %e,
                    "commit failed; it is tried again");
                self.tail.update_status(|s| {
                    s.commit_error = format!("commit of {}: {e}", segment.name())
                });
                if !backoff.pause(&self.environment, &self.stop).await {
                    return;
                }
            }
            self.tail.update_status(|s| s.commit_error.clear());
        }
    }

    async fn commit(&self, segment: &Arc<ConsumingSegment>) -> Result<()> {
        let offsets = OffsetRange {
            start: segment.start_offset(),
            end: segment.next_offset(),
        };
        self.archive(offsets.start).await?;
        if segment.rows() == 0 {
            return self.skip(offsets).await;
        }
        let name = segment.name().clone();
        let path = self.staging.join(format!("{name}.seg"));

        self.steps.reach(Step::Build, Side::Before);
        let (source, target) = (Arc::clone(segment), path.clone());
        let files = Arc::clone(&self.environment.files);
        let info = blocking(&self.environment.spawner, "build segment", move || {
            in_background(|| source.build(&files, &target))
        })
        .await?;
        self.steps.reach(Step::Build, Side::After);

        self.steps.reach(Step::Upload, Side::Before);
        let hosted = self.publisher.registry().table(&self.table);
        store_and_hold(
            &self.deep_store,
            &self.environment,
            (&self.table, &hosted),
            &info,
            Finished::Ours(&path),
        )
        .await?;
        let _ = self.environment.files.remove(&path);
        self.steps.reach(Step::Upload, Side::After);

        self.steps.reach(Step::Commit, Side::Before);
        let commit = CommitRealtime {
            table: self.table.to_string(),
            segment: SegmentInfo {
                stored_as: Some(segment.spec().fingerprint()),
                ..info.clone()
            },
            counts: self.tail.counts(offsets.start),
            dead_letters: Vec::new(),
        };
        let version = self.metastore.commit_realtime(commit).await?.into_inner();
        self.steps.reach(Step::Commit, Side::After);

        self.steps.reach(Step::Swap, Side::Before);
        self.swap(offsets, version).await?;
        self.steps.reach(Step::Swap, Side::After);

        if let Some(keys) = hosted.keys() {
            self.steps.reach(Step::Keys, Side::Before);
            let (source, partition) = (segment.view(), self.partition_number);
            let name = name.clone();
            blocking(&self.environment.spawner, "keep keys", move || {
                in_background(|| keys.settle(&name, &*source, partition))
            })
            .await?;
            self.steps.reach(Step::Keys, Side::After);
        }
        tracing::info!(table = %self.table, segment = %name, rows = info.rows, bytes = info.bytes, start = offsets.start, end = offsets.end, "committed");
        Ok(())
    }

    /// Stores the messages of the segment that begins at `start_offset`, as far as they were spooled.
    async fn archive(&self, start_offset: u64) -> Result<()> {
        let spools = self.tail.spools(start_offset);
        if spools.is_empty() {
            return Ok(());
        }
        self.steps.reach(Step::Archive, Side::Before);
        let place = (&*self.table, self.tail.partition());
        for spool in spools {
            spool
                .store(&self.deep_store, place, &self.environment)
                .await?;
        }
        self.steps.reach(Step::Archive, Side::After);
        Ok(())
    }

    /// Moves the offset past messages that gave no row.
    async fn skip(&self, offsets: OffsetRange) -> Result<()> {
        let skip = SkipOffsets {
            table: self.table.to_string(),
            partition: self.tail.partition().clone(),
            from_offset: offsets.start,
            to_offset: offsets.end,
            counts: self.tail.counts(offsets.start),
            dead_letters: Vec::new(),
        };
        let version = self.metastore.skip_offsets(skip).await?.into_inner();
        self.swap(offsets, version).await
    }

    /// Publishes what `version` says, and lets the consuming segment go once no query can name it.
    async fn swap(&self, offsets: OffsetRange, version: CatalogVersion) -> Result<()> {
        self.publisher.publish().await?;
        self.tail.set_committed(offsets.end);
        let registry = self.publisher.registry();
        registry.retire_consuming(
            CatalogVersion(version.0.saturating_sub(1)),
            &self.tail,
            offsets.start,
        );
        registry.sweep();
        Ok(())
    }
}
