//! Streams: where a realtime half's messages come from.
//!
//! A stream is one topic with numbered partitions. Each partition is a sequence of messages with
//! ascending offsets, not necessarily without holes: transactions and compaction leave some. A
//! consumer keeps its own offset (in the metastore, with the segments) and opens a reader there;
//! nothing is committed to the stream.
//!
//! Invariant of every reader: each message at or after the offset it was opened at comes exactly
//! once and in order, unless the batch that jumps over some says so in [`MessageBatch::lost`].

pub mod archived;
pub mod contract;
pub mod kafka;
pub mod log;

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::Result;
use strandline_proto::ids::OffsetRange;

/// One message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place in the partition.
    pub offset: u64,
    /// The key, when the producer gave one.
    pub key: Option<Bytes>,
    /// The bytes to decode. Empty for a tombstone.
    pub payload: Bytes,
    /// When the producer wrote it, in milliseconds since the epoch; 0 when unknown.
    pub timestamp_ms: i64,
    /// Name and value of its headers, where the stream has them and was asked for them.
    pub headers: Vec<(Box<str>, Bytes)>,
}

impl Message {
    /// When the producer wrote it, if that is known.
    pub fn time_ms(&self) -> Option<i64> {
        (self.timestamp_ms > 0).then_some(self.timestamp_ms)
    }
}

/// What one read gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageBatch {
    /// The messages, by ascending offset; empty when the wait ended without any.
    pub messages: Vec<Message>,
    /// Where to go on: at least one past the last message, and also past offsets that hold none
    /// (transaction markers, aborted transactions, compaction). Never goes back.
    pub next_offset: u64,
    /// Offsets that are gone because retention overtook the reader. They lie before all of
    /// `messages`, and reading went on after them.
    pub lost: Option<OffsetRange>,
    /// Whether the messages are read from an archive, and need not go there again.
    pub archived: bool,
}

/// A topic that can be read by partition and offset.
#[async_trait]
pub trait Stream: Send + Sync {
    /// Which stream this is, as in `StreamPartition::stream`: `kafka:broker1:9092`, or `log`.
    fn id(&self) -> Arc<str>;
    /// The topic.
    fn topic(&self) -> Arc<str>;
    /// How many partitions there are now. Their number may grow.
    ///
    /// Errors: `Unavailable` while the stream can't be reached, `NotFound` without such a topic.
    async fn partitions(&self) -> Result<u32>;
    /// From the first offset still held to the one after the last.
    async fn offsets(&self, partition: u32) -> Result<OffsetRange>;
    /// The first offset whose message was written at `timestamp_ms` or later; the end when there is none.
    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<u64>;
    /// A reader whose first message is the first one at or after `from_offset`.
    ///
    /// An offset past the end is an error on the first read (`FailedPrecondition`): the stream is
    /// not the one that was read before, and going on anywhere else would lose or repeat messages.
    async fn open(&self, partition: u32, from_offset: u64) -> Result<Box<dyn PartitionReader>>;
}

/// Reads one partition forward.
#[async_trait]
pub trait PartitionReader: Send {
    /// The next messages: at most `messages_max`, and no more after `bytes_max` payload bytes were
    /// reached (at least one message, whatever its size). Waits up to `wait` for the first and then
    /// takes what is there; an empty batch when none came.
    ///
    /// Dropping the future loses no message. After `Unavailable` the reader stays usable: call again, with a backoff.
    async fn next(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<MessageBatch>;
}
