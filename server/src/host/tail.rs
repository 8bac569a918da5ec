//! A stream partition's rows that no committed segment holds: consuming segments, oldest first.
//!
//! The last one takes rows; those before it are sealed and on their way to the deep store. Rows are never
//! in two of them, and their offset ranges follow each other without a gap.

use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use strandline_proto::ids::{OffsetRange, SegmentName, StreamPartition};
use strandline_proto::leaf::TailTask;
use strandline_proto::{Error, Result};
use strandline_storage::archive::Spool;
use strandline_storage::meta::IngestCounts;
use strandline_storage::meta::minutes::{BUCKETS_MAX, MinuteCounts};
use strandline_storage::segment::SegmentReader;
use strandline_storage::segment::consuming::ConsumingSegment;
use tokio::sync::{Notify, watch};

/// What a consumer is doing, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailStatus {
    /// `STARTING`, `CONSUMING`, `RETRYING`, `HALTED` (before a wrong message of a strict stream), `PAUSED`, `STOPPED`.
    pub state: &'static str,
    /// Why it is retrying; empty otherwise.
    pub last_error: String,
    /// Why a sealed segment is not committed yet; empty otherwise. Consumption goes on meanwhile, and clears nothing here.
    pub commit_error: String,
    /// The stream's end when it was last seen, for lag.
    pub stream_end: u64,
    /// When the newest visible row was produced, in milliseconds since the epoch; 0 before the first.
    pub newest_timestamp_ms: i64,
    /// Offset ranges that the stream had dropped before they could be read.
    pub lost: Vec<strandline_proto::ids::OffsetRange>,
}

impl TailStatus {
    /// What is wrong, if anything: with consuming, or else with committing.
    pub fn error(&self) -> &str {
        if self.last_error.is_empty() {
            &self.commit_error
        } else {
            &self.last_error
        }
    }
}

/// What became of messages.
struct Counts {
    /// Those of each segment, by its start offset.
    by_segment: BTreeMap<u64, MinuteCounts>,
    /// Those before this offset are counted, and no other.
    counted_to: u64,
}

/// What a tail held at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct TailAccount {
    /// Messages before this offset were dealt with, and are counted; rows from it on may be visible already.
    pub counted_to: u64,
    /// What became of the messages of each segment, with the segment, oldest first.
    pub segments: Vec<(SegmentName, OffsetRange, MinuteCounts)>,
}

/// One partition's tail.
pub struct Tail {
    partition: StreamPartition,
    segments: RwLock<Vec<Arc<ConsumingSegment>>>,
    counts: Mutex<Counts>,
    /// What of each segment's messages is on its way into the archive, by its start offset.
    spools: Mutex<BTreeMap<u64, Vec<Arc<Spool>>>>,
    status: Mutex<TailStatus>,
    committed: watch::Sender<u64>,
    seal_now: AtomicBool,
    reading: AtomicBool,
    wake: Notify,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl Tail {
    /// A tail that begins with `first`, an empty consuming segment.
    pub fn new(partition: StreamPartition, first: Arc<ConsumingSegment>) -> Self {
        let committed = watch::Sender::new(first.start_offset());
        let counts = Counts {
            by_segment: BTreeMap::new(),
            counted_to: first.start_offset(),
        };
        Self {
            partition,
            segments: RwLock::new(vec![first]),
            counts: Mutex::new(counts),
            spools: Mutex::default(),
            status: Mutex::new(TailStatus {
                state: "STARTING",
                ..TailStatus::default()
            }),
            committed,
            seal_now: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// The partition.
    pub fn partition(&self) -> &StreamPartition {
        &self.partition
    }

    /// The segment that takes rows.
    pub fn active(&self) -> Arc<ConsumingSegment> {
        let segments = self.segments.read();
        Arc::clone(
            segments
                .last()
                .unwrap_or_else(|| unreachable!("a tail always has an active segment")),
        )
    }

    /// All of the tail's segments, oldest first.
    pub fn segments(&self) -> Vec<Arc<ConsumingSegment>> {
        self.segments.read().clone()
    }

    /// Seals the active segment by putting `next` behind it.
    pub fn seal(&self, next: Arc<ConsumingSegment>) {
        self.segments.write().push(next);
    }

    /// Puts `next` in the place of an active segment that deals with no offset.
    pub fn replace_empty(&self, next: Arc<ConsumingSegment>) {
        let mut segments = self.segments.write();
        if let Some(active) = segments.last_mut()
            && active.next_offset() == active.start_offset()
            && active.start_offset() == next.start_offset()
        {
            *active = next;
        }
    }

    /// Drops the segment that begins at `start_offset`; the active one stays.
    pub fn retire(&self, start_offset: u64) {
        let mut segments = self.segments.write();
        let keep_from = segments.len() - 1;
        let mut place = 0;
        segments.retain(|s| {
            place += 1;
            place > keep_from || s.start_offset() != start_offset
        });
        self.counts.lock().by_segment.remove(&start_offset);
        self.spools.lock().remove(&start_offset);
    }

    /// The spools with messages of the segment that begins at `start_offset`, oldest first.
    pub fn spools(&self, start_offset: u64) -> Vec<Arc<Spool>> {
        let spools = self.spools.lock();
        spools.get(&start_offset).cloned().unwrap_or_default()
    }

    /// Puts a spool behind the others of a segment.
    pub fn add_spool(&self, start_offset: u64, spool: Arc<Spool>) {
        let mut spools = self.spools.lock();
        spools.entry(start_offset).or_default().push(spool);
    }

    /// Adds to what became of the messages of the segment that begins at `start_offset`, which are those before `next_offset`.
    pub fn count(&self, start_offset: u64, more: &MinuteCounts, next_offset: u64) {
        let mut counts = self.counts.lock();
        let known = counts.by_segment.entry(start_offset).or_default();
        known.merge(more);
        known.bound(BUCKETS_MAX);
        counts.counted_to = next_offset;
    }

    /// What became of the messages of the segment that begins at `start_offset`.
    pub fn counts(&self, start_offset: u64) -> MinuteCounts {
        let counts = self.counts.lock();
        let of_segment = counts.by_segment.get(&start_offset);
        of_segment.cloned().unwrap_or_default()
    }

    /// What the segments at or after `offset` held at one moment.
    pub fn account(&self, offset: u64) -> TailAccount {
        let (counted_to, mut of_segments) = {
            let counts = self.counts.lock();
            let of_segments = counts.by_segment.range(offset..);
            let of_segments = of_segments.map(|(start, counts)| (*start, counts.clone()));
            (counts.counted_to, of_segments.collect::<BTreeMap<_, _>>())
        };
        let segments = self.segments();
        let held = segments.iter().filter(|s| s.start_offset() >= offset);
        let account = held.map(|s| {
            let start = s.start_offset();
            let range = OffsetRange {
                start,
                end: s.next_offset().min(counted_to).max(start),
            };
            let of_segment = of_segments.remove(&start);
            (s.name().clone(), range, of_segment.unwrap_or_default())
        });
        TailAccount {
            counted_to,
            segments: account.collect(),
        }
    }

    /// What became of the messages at or after `offset`'s segment.
    pub fn counts_from(&self, offset: u64) -> IngestCounts {
        let counts = self.counts.lock();
        let after = counts.by_segment.range(offset..);
        after.fold(IngestCounts::default(), |sum, (_, more)| {
            sum.plus(more.total())
        })
    }

    /// The first offset that is not visible yet.
    pub fn watermark(&self) -> u64 {
        self.active().next_offset()
    }

    /// Rows in memory at or after `offset`'s segment.
    pub fn rows_from(&self, offset: u64) -> u64 {
        self.segments
            .read()
            .iter()
            .filter(|s| s.start_offset() >= offset)
            .map(|s| s.rows())
            .sum()
    }

    /// Memory of all segments.
    pub fn bytes(&self) -> usize {
        self.segments.read().iter().map(|s| s.bytes()).sum()
    }

    /// Views that hold exactly the rows with offsets in the task's range.
    ///
    /// # Errors
    /// `SegmentGone` when rows of the range have left memory (they are committed: a newer snapshot names their segment).
    pub fn views(&self, task: &TailTask) -> Result<Vec<Arc<dyn SegmentReader>>> {
        let segments = self.segments.read();
        let wanted = || {
            segments.iter().filter(|s| {
                s.start_offset() >= task.from_offset && s.start_offset() < task.to_offset
            })
        };
        if task.from_offset < task.to_offset
            && wanted()
                .next()
                .is_none_or(|s| s.start_offset() != task.from_offset)
        {
            return Err(Error::segment_gone(format!(
                "{}: offset {} is not in memory any more",
                self.partition, task.from_offset
            )));
        }
        Ok(wanted().map(|s| s.view_until(task.to_offset)).collect())
    }

    /// What the consumer is doing.
    pub fn status(&self) -> TailStatus {
        self.status.lock().clone()
    }

    /// Changes what is shown of the consumer.
    pub fn update_status(&self, change: impl FnOnce(&mut TailStatus)) {
        change(&mut self.status.lock());
    }

    /// Says that all offsets below `offset` are in committed segments.
    pub fn set_committed(&self, offset: u64) {
        self.committed.send_replace(offset);
    }

    /// The first offset that is in no committed segment; changes can be waited for.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// Says whether rows may come from here on. A consumer that rests looks whether it is to pause, after it said that it reads and
    /// before it does.
    pub fn set_reading(&self, reading: bool) {
        self.reading.store(reading, Ordering::SeqCst);
    }

    /// Whether rows may come: where consumers were told to pause before this is asked and the answer is no, none come until
    /// they are told to go on.
    pub fn is_reading(&self) -> bool {
        self.reading.load(Ordering::SeqCst)
    }

    /// Asks the consumer to seal what it has as soon as it can.
    pub fn request_seal(&self) {
        self.seal_now.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Whether a seal was asked for; asking again afterwards is a new request.
    pub fn take_seal_request(&self) -> bool {
        self.seal_now.swap(false, Ordering::AcqRel)
    }

    /// Waits until a seal is asked for.
    pub async fn seal_requested(&self) {
        self.wake.notified().await;
    }
}
