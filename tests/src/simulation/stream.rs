//! A stream that lives elsewhere: it survives the server, gives its messages in batches as it likes, leaves holes between
//! offsets, grows partitions, drops what is old, and fails to answer.

use super::machine::Machine;
use super::metastore::give_way;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, Result};
use strandline_server::host::realtime::{ServerStreams, Streams};
use strandline_storage::config::StreamConfig;
use strandline_storage::environment::Clock;
use strandline_storage::stream::{Message, MessageBatch, PartitionReader, Stream};
use tokio::sync::watch;

#[derive(Default)]
struct Partition {
    start: u64,
    end: u64,
    messages: BTreeMap<u64, Bytes>,
}

/// The topic, which no life of the server ends.
pub(super) struct Topic {
    partitions: Mutex<Vec<Partition>>,
    changed: watch::Sender<u64>,
}

impl Topic {
    pub(super) fn new(partitions: u32) -> Arc<Self> {
        Arc::new(Self {
            partitions: Mutex::new((0..partitions).map(|_| Partition::default()).collect()),
            changed: watch::Sender::new(0),
        })
    }

    /// Appends a message behind `hole` offsets that hold none; gives its offset.
    pub(super) fn append(&self, partition: u32, hole: u64, payload: Bytes) -> u64 {
        let mut partitions = self.partitions.lock();
        let partition = &mut partitions[partition as usize];
        let offset = partition.end + hole;
        partition.messages.insert(offset, payload);
        partition.end = offset + 1;
        drop(partitions);
        self.changed.send_modify(|count| *count += 1);
        offset
    }

    pub(super) fn add_partition(&self) {
        self.partitions.lock().push(Partition::default());
    }

    /// Drops messages before an offset.
    pub(super) fn trim(&self, partition: u32, before: u64) {
        let mut partitions = self.partitions.lock();
        let partition = &mut partitions[partition as usize];
        partition.start = partition.start.max(before.min(partition.end));
        partition.messages = partition.messages.split_off(&partition.start);
    }
}

/// Streams as one life of a server finds them.
pub(super) struct SimulatedStreams {
    pub(super) log: ServerStreams,
    pub(super) topic: Option<Arc<Topic>>,
    pub(super) machine: Arc<Machine>,
    pub(super) clock: Arc<dyn Clock>,
}

#[async_trait]
impl Streams for SimulatedStreams {
    async fn open(&self, config: &StreamConfig) -> Result<Arc<dyn Stream>> {
        match &self.topic {
            None => self.log.open(config).await,
            Some(topic) => Ok(Arc::new(Remote {
                topic: Arc::clone(topic),
                machine: Arc::clone(&self.machine),
                clock: Arc::clone(&self.clock),
            })),
        }
    }
}

#[derive(Clone)]
struct Remote {
    topic: Arc<Topic>,
    machine: Arc<Machine>,
    clock: Arc<dyn Clock>,
}

impl Remote {
    async fn answers(&self) -> Result<()> {
        give_way(&self.machine).await;
        if self.machine.once_in(self.machine.faults().stream) {
            self.machine
                .note(format_args!("the stream does not answer"));
            return Err(Error::unavailable("the simulated stream does not answer"));
        }
        Ok(())
    }

    fn with<T>(&self, partition: u32, ask: impl FnOnce(&Partition) -> T) -> Result<T> {
        let partitions = self.topic.partitions.lock();
        let found = partitions.get(partition as usize);
        let found = found.ok_or_else(|| Error::not_found(format!("no partition {partition}")))?;
        Ok(ask(found))
    }
}

#[async_trait]
impl Stream for Remote {
    fn id(&self) -> Arc<str> {
        Arc::from("kafka:elsewhere:9092")
    }

    fn topic(&self) -> Arc<str> {
        Arc::from("t")
    }

    async fn partitions(&self) -> Result<u32> {
        self.answers().await?;
        Ok(self.topic.partitions.lock().len() as u32)
    }

    async fn offsets(&self, partition: u32) -> Result<OffsetRange> {
        self.answers().await?;
        self.with(partition, |p| OffsetRange {
            start: p.start,
            end: p.end,
        })
    }

    async fn offset_at(&self, partition: u32, _timestamp_ms: i64) -> Result<u64> {
        self.answers().await?;
        self.with(partition, |p| p.end)
    }

    async fn open(&self, partition: u32, from_offset: u64) -> Result<Box<dyn PartitionReader>> {
        self.answers().await?;
        Ok(Box::new(Reader {
            remote: self.clone(),
            partition,
            next_offset: from_offset,
        }))
    }
}

struct Reader {
    remote: Remote,
    partition: u32,
    next_offset: u64,
}

#[async_trait]
impl PartitionReader for Reader {
    async fn next(
        &mut self,
        messages_max: usize,
        _bytes_max: usize,
        wait: Duration,
    ) -> Result<MessageBatch> {
        let remote = self.remote.clone();
        let mut changed = remote.topic.changed.subscribe();
        remote.answers().await?;
        let end = remote.with(self.partition, |p| p.end)?;
        if self.next_offset > end {
            return Err(Error::precondition(format!(
                "offset {} is past the end {end}",
                self.next_offset
            )));
        }
        if self.next_offset == end {
            tokio::select! {
                biased;
                _ = changed.changed() => {}
                () = remote.clock.sleep(wait) => {}
            }
        }
        let some = 1 + remote.machine.below(messages_max.min(40) as u64) as usize;
        let from = self.next_offset;
        let batch = remote.with(self.partition, |p| {
            let first = from.max(p.start);
            let held = p.messages.range(first..).take(some);
            let messages: Vec<Message> = held
                .map(|(offset, payload)| Message {
                    offset: *offset,
                    key: None,
                    payload: payload.clone(),
                    timestamp_ms: 0,
                    headers: Vec::new(),
                })
                .collect();
            let behind = messages.last().map_or(first, |m| m.offset + 1);
            let is_all = p.messages.range(behind..).next().is_none();
            MessageBatch {
                messages,
                next_offset: if is_all { p.end.max(behind) } else { behind },
                lost: (first > from).then_some(OffsetRange {
                    start: from,
                    end: first,
                }),
                archived: false,
            }
        })?;
        self.next_offset = batch.next_offset;
        Ok(batch)
    }
}
