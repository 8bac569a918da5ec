//! One partition's consumer: stream -> decoder -> consuming segment, and a seal when it is time.
//!
//! Rows are visible as soon as their batch is appended; all rows of a message are in one batch. A message that can't be decoded
//! is in the dead-letter table before the offset moves past it; in strict mode the offset stays before it. Where messages are archived,
//! they are in the segment's spool before their rows are in the segment. Whatever fails is tried again with a growing pause and
//! shown in the tail's status; nothing is skipped.

use super::catalog::Publisher;
use super::commit::{CommitQueue, Sealed};
use super::keys::{HostedPlaces, partition_number};
use super::rate::RateLimit;
use super::registry::{ConsumingBytes, Registry};
use super::step::{Side, Step, Steps};
use super::tail::Tail;
use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::ids::{Half, OffsetRange};
use strandline_proto::{Error, ErrorKind, Result};
use strandline_storage::archive::Spool;
use strandline_storage::config::{StreamConfig, TableConfig};
use strandline_storage::decode::registry::SchemaRegistry;
use strandline_storage::decode::{Decoded, Decoder, Rejected, Stopped};
use strandline_storage::environment::{Environment, blocking};
use strandline_storage::keys::Appended;
use strandline_storage::meta::minutes::MinuteCounts;
use strandline_storage::meta::{DeadLetter, IngestCounts, Metastore};
use strandline_storage::segment::consuming::ConsumingSegment;
use strandline_storage::segment::event_time::{EventTime, count_rows};
use strandline_storage::stream::{Message, MessageBatch, Stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Messages decoded and made visible together. More at a time would be slower: what they become on their way into the segment
/// would not stay in the processor's caches.
const BATCH_MESSAGES_MAX: usize = 2_048;
/// Payload bytes decoded and made visible together.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How long a read waits for the first message; bounds how late a seal by age can be.
const READ_WAIT: Duration = Duration::from_millis(250);
/// How often a stream is asked for its end.
const END_PERIOD: Duration = Duration::from_secs(1);
/// The first and the longest pause after a failure.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a consumer that waits for memory looks again.
const PRESSURE_PERIOD: Duration = Duration::from_millis(50);

/// How much memory the consuming segments of this server may take. What they take is asked of the segments
/// themselves, so that it is right whatever became of them.
#[derive(Debug)]
pub struct ConsumingBudget {
    registry: Arc<Registry>,
    bytes_max: usize,
}

/// What a consumer has to do about memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pressure {
    /// Nothing.
    None,
    /// Seal its segment, which is not smaller than most.
    Seal,
    /// Wait until others have given some back.
    Wait,
}

impl ConsumingBudget {
    /// A budget of `bytes_max` for the segments in `registry`.
    pub fn new(registry: Arc<Registry>, bytes_max: usize) -> Self {
        Self {
            registry,
            bytes_max,
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.registry.consuming_bytes().all
    }

    /// The limit.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What the consumer of a segment of `bytes` has to do now. When memory is used up some consumer always seals.
    fn pressure(&self, bytes: usize) -> Pressure {
        let ConsumingBytes {
            all,
            active,
            partitions,
        } = self.registry.consuming_bytes();
        if all < self.bytes_max {
            Pressure::None
        } else if bytes > 0 && bytes.saturating_mul(partitions) >= active {
            Pressure::Seal
        } else {
            Pressure::Wait
        }
    }
}

/// A pause that doubles from failure to failure.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(PAUSE_MIN)
    }

    pub(super) fn reset(&mut self) {
        self.0 = PAUSE_MIN;
    }

    /// Pauses; false when `stop` fired meanwhile.
    pub(super) async fn pause(
        &mut self,
        environment: &Environment,
        stop: &CancellationToken,
    ) -> bool {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSE_MAX);
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = environment.clock.sleep(pause) => true,
        }
    }
}

/// What a consumer works with.
pub struct Consumer {
    /// The table.
    pub table: Arc<str>,
    /// The realtime half's config.
    pub config: Arc<TableConfig>,
    /// Knows how segments that begin now are to be stored.
    pub publisher: Arc<Publisher>,
    /// Which of the table's streams it is, from 0, and its config.
    pub stream_config: (usize, Arc<StreamConfig>),
    /// The stream.
    pub stream: Arc<dyn Stream>,
    /// Where schemas of its messages are asked for.
    pub schemas: Option<Arc<SchemaRegistry>>,
    /// Messages that the stream's consumers may read.
    pub rate: Option<Arc<RateLimit>>,
    /// The partition's tail; its active segment starts at the offset to read from.
    pub tail: Arc<Tail>,
    /// Where dead letters go.
    pub metastore: Arc<dyn Metastore>,
    /// Where sealed segments go.
    pub commits: CommitQueue,
    /// Where messages are spooled on their way into the archive.
    pub staging: PathBuf,
    /// Memory shared with the other consumers.
    pub budget: Arc<ConsumingBudget>,
    /// Told of the seals.
    pub steps: Arc<Steps>,
    /// Time, tasks.
    pub environment: Environment,
    /// Whether nothing is to be read now.
    pub paused: watch::Receiver<bool>,
    /// Ends the consumer.
    pub stop: CancellationToken,
}

/// The answer to a question; for ever none where none is asked.
async fn answer<T>(question: &mut Option<BoxFuture<'_, T>>) -> T {
    match question {
        Some(asked) => {
            let answer = asked.await;
            *question = None;
            answer
        }
        None => std::future::pending().await,
    }
}

impl Consumer {
    /// Consumes until it is stopped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        let mut opened = self.environment.clock.monotonic();
        while !self.stop.is_cancelled() {
            let consumed = match self.wait_while_paused(&mut opened).await {
                Ok(()) => self.consume(&mut backoff, &mut opened).await,
                Err(e) => Err(e),
            };
            let Err(mut e) = consumed else {
                continue;
            };
            // A stream that does not answer holds up no seal.
            if let Err(unsealed) = self.seal_when_due(&mut opened).await {
                e = unsealed;
            }
            tracing::warn!(table = %self.table, partition = %self.tail.partition(), error = %e, "consumer failed; it tries again");
            let halts = self.stream_config.1.strict && e.kind() == ErrorKind::FailedPrecondition;
            self.tail.update_status(|s| {
                s.state = if halts { "HALTED" } else { "RETRYING" };
                s.last_error = e.message().to_owned();
            });
            let go_on = tokio::select! {
                biased;
                go_on = backoff.pause(&self.environment, &self.stop) => go_on,
                () = self.tail.seal_requested() => true,
            };
            if !go_on {
                break;
            }
        }
        self.tail.set_reading(false);
        self.tail.update_status(|s| s.state = "STOPPED");
    }

    /// While nothing is to be read, what has been is sealed, so that it is committed.
    async fn wait_while_paused(&mut self, opened: &mut Duration) -> Result<()> {
        loop {
            // Before it is looked whether to read: who has it pause, and sees then that it rests, knows that nothing is read.
            self.tail.set_reading(true);
            if !*self.paused.borrow_and_update() || self.stop.is_cancelled() {
                self.tail.update_status(|s| {
                    if s.state == "PAUSED" {
                        s.state = "CONSUMING";
                    }
                });
                return Ok(());
            }
            let active = self.tail.active();
            if active.next_offset() > active.start_offset() {
                self.seal(&active).await?;
                *opened = self.environment.clock.monotonic();
            }
            self.tail.update_status(|s| {
                s.state = "PAUSED";
                s.last_error.clear();
            });
            self.tail.set_reading(false);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                changed = self.paused.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = self.tail.seal_requested() => {
                    self.tail.take_seal_request();
                }
            }
        }
    }

    /// Reads until it is to stop or to pause.
    async fn consume(&mut self, backoff: &mut Backoff, opened: &mut Duration) -> Result<()> {
        let flush_rows = self.stream_config.1.flush_rows;
        let partition = self.tail.partition().partition;
        let mut reader = self.stream.open(partition, self.tail.watermark()).await?;
        let mut config = self.newest_config();
        let mut decoder = self.decoder(&config, partition).await?;
        // Asked beside the reading: another broker than the one that is read from may be asked, and not answer for long.
        let stream = Arc::clone(&self.stream);
        let mut end_asked = self.environment.clock.monotonic();
        let mut end: Option<BoxFuture<'_, Result<OffsetRange>>> = None;
        loop {
            if self.stop.is_cancelled() || *self.paused.borrow() {
                return Ok(());
            }
            let active = self.tail.active();
            let left =
                usize::try_from(flush_rows.saturating_sub(active.rows())).unwrap_or(usize::MAX);
            let wanted = match self.budget.pressure(active.bytes()) {
                Pressure::Wait => 0,
                _ => self.allowed(left.clamp(1, BATCH_MESSAGES_MAX)),
            };
            let batch = if wanted == 0 {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(()),
                    () = self.tail.seal_requested() => None,
                    () = self.environment.clock.sleep(PRESSURE_PERIOD) => None,
                }
            } else {
                let next = reader.next(wanted, BATCH_BYTES_MAX, READ_WAIT);
                let batch = tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Ok(()),
                    () = self.tail.seal_requested() => None,
                    range = answer(&mut end) => {
                        if let Ok(range) = range {
                            self.tail.update_status(|s| s.stream_end = range.end);
                        }
                        None
                    }
                    batch = next => Some(batch),
                };
                if let Some(rate) = &self.rate {
                    let read = batch.iter().flatten().map(|b| b.messages.len()).sum();
                    rate.give_back(wanted.saturating_sub(read));
                }
                batch.transpose()?
            };
            if let Some(batch) = batch {
                // What was sent after a change of the schema is decoded by it, also when it came in while the change was made.
                let newest = self.newest_config();
                if newest.spec.schema.version != config.spec.schema.version {
                    // Rows of two schemas do not share a segment.
                    self.seal(&active).await?;
                    decoder = self.decoder(&newest, partition).await?;
                    config = newest;
                }
                let active = self.tail.active();
                if active.next_offset() == active.start_offset() {
                    *opened = self.environment.clock.monotonic();
                }
                decoder = self.index(decoder, &active, batch).await?;
                backoff.reset();
            }
            let now = self.environment.clock.monotonic();
            if end.is_none() && now.saturating_sub(end_asked) > END_PERIOD {
                end_asked = now;
                end = Some(stream.offsets(partition));
            }
            self.seal_when_due(opened).await?;
        }
    }

    /// How many of `wanted` messages may be read now.
    fn allowed(&self, wanted: usize) -> usize {
        match &self.rate {
            Some(rate) => rate.take(self.environment.clock.monotonic(), wanted),
            None => wanted,
        }
    }

    async fn decoder(&self, config: &Arc<TableConfig>, partition: u32) -> Result<Decoder> {
        let (config, stream) = (Arc::clone(config), Arc::clone(&self.stream_config.1));
        let schemas = self.schemas.clone();
        blocking(&self.environment.spawner, "make decoder", move || {
            Decoder::new(&config, &stream, partition, schemas)
        })
        .await
    }

    /// Seals the active segment, which has had rows since `opened`, when it is full or old, when memory is short, or when
    /// somebody asked for it.
    async fn seal_when_due(&self, opened: &mut Duration) -> Result<()> {
        let limits = &self.stream_config.1;
        let active = self.tail.active();
        let asked = self.tail.take_seal_request();
        let age = (self.environment.clock.monotonic()).saturating_sub(*opened);
        let full = active.rows() >= limits.flush_rows
            || active.bytes() as u64 >= limits.flush_bytes
            || age >= Duration::from_millis(limits.flush_age_ms)
            || self.budget.pressure(active.bytes()) == Pressure::Seal;
        // Offsets without a row (dead letters) are committed as well, so that they are not read for ever.
        if active.next_offset() > active.start_offset() && (asked || full) {
            self.seal(&active).await?;
            *opened = self.environment.clock.monotonic();
        }
        Ok(())
    }

    /// Decodes a batch off the network threads, keeps its dead letters, and makes its rows visible.
    async fn index(
        &self,
        mut decoder: Decoder,
        active: &Arc<ConsumingSegment>,
        batch: MessageBatch,
    ) -> Result<Decoder> {
        let MessageBatch {
            messages,
            next_offset,
            lost,
            archived,
        } = batch;
        if let Some(range) = lost {
            tracing::error!(table = %self.table, partition = %self.tail.partition(), start = range.start, end = range.end,
                "the stream dropped offsets before they were read");
            self.tail.update_status(|s| s.lost.push(range));
        }
        let newest = messages.last().map_or(0, |m| m.timestamp_ms);
        if !messages.is_empty() || next_offset > active.next_offset() {
            decoder.forget_failures();
            decoder = self
                .index_messages(decoder, active, (messages, archived), (lost, next_offset))
                .await?;
        }
        self.tail.update_status(|s| {
            s.state = "CONSUMING";
            s.last_error.clear();
            s.stream_end = s.stream_end.max(next_offset);
            if newest > 0 {
                s.newest_timestamp_ms = newest;
            }
        });
        Ok(decoder)
    }

    /// Decodes messages in as many parts as their rows need, each made visible as a whole.
    async fn index_messages(
        &self,
        mut decoder: Decoder,
        active: &Arc<ConsumingSegment>,
        (messages, archived): (Vec<Message>, bool),
        (lost, next_offset): (Option<OffsetRange>, u64),
    ) -> Result<Decoder> {
        let messages: Arc<[Message]> = messages.into();
        let mut done = 0;
        let held_from = lost.map_or(0, |range| range.end);
        let mut lost = lost.map_or(0, |range| range.end.saturating_sub(range.start));
        loop {
            let rest = Arc::clone(&messages);
            let (back, decoded) = blocking(&self.environment.spawner, "decode", move || {
                let decoded = decoder.decode(rest.get(done..).unwrap_or_default());
                Ok((decoder, decoded))
            })
            .await?;
            decoder = back;
            let part = done..done + decoded.read;
            done = part.end;
            let next = messages.get(done).map_or(next_offset, |m| m.offset);
            if self.stream_config.1.archive && !archived {
                let offsets = OffsetRange {
                    start: active.next_offset().max(held_from),
                    end: next,
                };
                self.spool(active, (&messages, part), offsets).await?;
            }
            let stopped = decoded.stopped.clone();
            self.take(active, decoded, (std::mem::take(&mut lost), next))
                .await?;
            match stopped {
                Some(Stopped::Schema(id)) => self.fetch_schema(id).await?,
                Some(Stopped::Wrong(wrong)) => {
                    return Err(Error::precondition(format!(
                        "{}: offset {}: {}; the stream is strict, so consumption waits here: mend the table's config or schema, or set \
                         strict to false, which makes the message a dead letter",
                        self.tail.partition(),
                        wrong.offset,
                        wrong.reason
                    )));
                }
                None if done >= messages.len() => return Ok(decoder),
                None => {}
            }
        }
    }

    /// Writes a part of `messages`, all that there are at `offsets`, where they wait for the archive.
    async fn spool(
        &self,
        active: &Arc<ConsumingSegment>,
        (messages, part): (&Arc<[Message]>, Range<usize>),
        offsets: OffsetRange,
    ) -> Result<()> {
        if offsets.start >= offsets.end {
            return Ok(());
        }
        let (tail, segment) = (Arc::clone(&self.tail), active.start_offset());
        let files = Arc::clone(&self.environment.files);
        let name = format!("{}.{}.raw", active.name(), offsets.start);
        let (path, messages) = (self.staging.join(name), Arc::clone(messages));
        blocking(&self.environment.spawner, "spool", move || {
            let messages = messages.get(part).unwrap_or_default();
            if let Some(newest) = tail.spools(segment).pop()
                && newest.append(messages, offsets)?
            {
                return Ok(());
            }
            // The first one, or offsets before these are not to be archived.
            let spool = Spool::new(path, files, offsets.start);
            spool.append(messages, offsets)?;
            tail.add_spool(segment, Arc::new(spool));
            Ok(())
        })
        .await
    }

    async fn fetch_schema(&self, id: u32) -> Result<()> {
        let Some(schemas) = &self.schemas else {
            return Err(Error::internal("a message's schema without a registry"));
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Error::cancelled("the consumer is to stop")),
            fetched = schemas.fetch(id) => fetched,
        }
    }

    /// Keeps the dead letters of decoded messages and makes their rows visible; offsets below `next_offset`, of which the stream
    /// had dropped `lost`, are then dealt with.
    async fn take(
        &self,
        active: &Arc<ConsumingSegment>,
        decoded: Decoded,
        (lost, next_offset): (u64, u64),
    ) -> Result<()> {
        let Decoded {
            batch,
            offsets,
            read,
            filtered,
            unnested,
            rejected,
            without_rows,
            stopped: _,
        } = decoded;
        if !rejected.is_empty() {
            let timestamp_ms = self.environment.clock.now_ms();
            let letter = |r: Rejected| DeadLetter {
                partition: self.tail.partition().clone(),
                offset: r.offset,
                reason: r.reason,
                payload_bytes: r.payload.len() as u64,
                payload: r.payload,
                timestamp_ms,
            };
            let letters: Vec<_> = rejected.into_iter().map(letter).collect();
            self.metastore
                .record_dead_letters(&self.table, &letters)
                .await?;
        }
        let mut counts = match self.append(active, (batch, offsets, next_offset)).await {
            Ok(counts) => counts,
            Err(e) => {
                // A batch that stopped halfway left a segment that takes no more rows: the rows before it are whole, and
                // the batch is read again into the next segment.
                self.seal(active).await?;
                return Err(e);
            }
        };
        counts.merge(&without_rows);
        let lost = IngestCounts {
            lost,
            ..IngestCounts::NONE
        };
        counts.add(None, lost);
        let all = counts.total();
        debug_assert_eq!(
            (all.read, all.filtered, all.unnested),
            (read as u64, filtered, unnested)
        );
        self.tail.count(active.start_offset(), &counts, next_offset);
        Ok(())
    }

    /// Makes rows visible; gives what became of them.
    async fn append(
        &self,
        active: &Arc<ConsumingSegment>,
        (batch, offsets, next_offset): (RecordBatch, Vec<u64>, u64),
    ) -> Result<MinuteCounts> {
        let hosted = self.publisher.registry().table(&self.table);
        let keys = hosted.keys();
        if self.config.keys.is_some() && keys.is_none() {
            return Err(Error::internal("the table's keys are not open"));
        }
        let segment = Arc::clone(active);
        let number = partition_number(&self.config, self.tail.partition());
        let places = HostedPlaces {
            hosted,
            lineage: self.publisher.lineage(&self.table),
        };
        blocking(&self.environment.spawner, "index", move || {
            let rows = (&batch, &offsets[..], next_offset);
            let appended = match keys {
                Some(keys) => keys.append(&segment, number, rows, &places)?,
                None => {
                    segment.append(&batch, &offsets, next_offset)?;
                    Appended::default()
                }
            };
            let spec = segment.spec();
            let time = EventTime::of(&spec.schema, spec.time_column.as_deref());
            let batch = appended.merged.as_ref().unwrap_or(&batch);
            let kept = appended.kept.as_ref();
            Ok(count_rows(time.as_ref(), batch, &offsets, kept))
        })
        .await
    }

    /// Puts a new consuming segment behind the active one, and hands that one to the committer. One that deals with no
    /// offset is replaced.
    async fn seal(&self, active: &Arc<ConsumingSegment>) -> Result<()> {
        if active.next_offset() == active.start_offset() {
            self.tail
                .replace_empty(Arc::new(self.segment_at(active.start_offset())?));
            return Ok(());
        }
        // A place in the queue first: with none free, consumption waits here and memory stays bounded.
        let place = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Ok(()),
            place = self.commits.reserve() => place?,
        };
        self.steps.reach(Step::Seal, Side::Before);
        let next = self.segment_at(active.next_offset())?;
        self.tail.seal(Arc::new(next));
        self.steps.reach(Step::Seal, Side::After);
        place.send(Sealed {
            segment: Arc::clone(active),
        });
        Ok(())
    }

    /// The table's config: its storage and its schema may have changed since the consumer began.
    fn newest_config(&self) -> Arc<TableConfig> {
        let config = self.publisher.config(&self.table, Half::Realtime);
        config.unwrap_or_else(|| Arc::clone(&self.config))
    }

    fn segment_at(&self, start_offset: u64) -> Result<ConsumingSegment> {
        let partition = self.tail.partition();
        let name = segment_name(
            &self.table,
            (self.stream_config.0, partition.partition),
            start_offset,
            &self.environment,
        );
        let config = self.newest_config();
        ConsumingSegment::new(
            &name,
            Arc::clone(&config.spec),
            partition.clone(),
            start_offset,
        )
    }
}

/// The name of the segment that begins at `start_offset` of a partition of one of the table's streams. The last part makes it
/// unique for all time: after a crash the same offsets may be cut at another end.
pub(super) fn segment_name(
    table: &str,
    (stream, partition): (usize, u32),
    start_offset: u64,
    environment: &Environment,
) -> String {
    // Most tables have one stream, whose partitions need no more than their number.
    let stream = match stream {
        0 => String::new(),
        stream => format!("{stream}_"),
    };
    format!(
        "{table}__{stream}{partition}__{start_offset}__{:08x}",
        environment.random.next_u64() >> 32
    )
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
