//! Reads one partition of a topic forward.

use super::client::{Reports, Target};
use crate::environment::{Environment, blocking};
use crate::stream::{Message, MessageBatch, PartitionReader};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt};
use rdkafka::Message as _;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::ids::OffsetRange;
use strandline_proto::{Error, Result};

pub(super) struct KafkaReader {
    target: Arc<Target>,
    partition: i32,
    environment: Environment,
    /// Made when first needed, and again after it failed for good.
    consumer: Option<Arc<StreamConsumer<Reports>>>,
    next_offset: u64,
    /// Found lost and not told yet.
    lost: Option<OffsetRange>,
    /// Whether the broker was heard of since the last trouble.
    heard: bool,
    /// Came behind messages that had to be given first.
    waiting: Option<Event>,
    room: Room,
}

/// What messages' bytes are copied to: one piece of memory for many, which is used again once they are gone.
#[derive(Default)]
struct Room(BytesMut);

impl Room {
    /// Makes room for another batch: of the same memory, when no message of earlier ones is left.
    fn begin(&mut self) {
        if self.0.capacity() < ROOM_BYTES / 2 {
            self.0.reserve(ROOM_BYTES);
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> Bytes {
        if self.0.capacity() < bytes.len() {
            self.0.reserve(bytes.len().max(ROOM_BYTES));
        }
        self.0.extend_from_slice(bytes);
        self.0.split().freeze()
    }
}

/// Bytes of messages that share memory: more than twice what a batch has.
const ROOM_BYTES: usize = 3 << 20;

/// What a consumer gives.
enum Event {
    Message(Message),
    /// All that is there was given, up to the offset where that is known.
    End(Option<u64>),
    /// The broker does not have the offset that was asked for.
    OutOfRange,
    Trouble(KafkaError),
}

/// Bytes that a message takes.
fn bytes_of(message: &Message) -> usize {
    let headers = message
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len());
    message.payload.len() + message.key.as_ref().map_or(0, Bytes::len) + headers.sum::<usize>()
}

impl KafkaReader {
    pub(super) fn new(
        target: Arc<Target>,
        partition: i32,
        from_offset: u64,
        environment: Environment,
    ) -> Self {
        Self {
            target,
            partition,
            environment,
            consumer: None,
            next_offset: from_offset,
            lost: None,
            heard: false,
            waiting: None,
            room: Room::default(),
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.target.place(), self.partition)
    }

    /// The consumer, reading from `next_offset`.
    async fn consumer(&mut self) -> Result<Arc<StreamConsumer<Reports>>> {
        if let Some(consumer) = &self.consumer {
            return Ok(consumer.clone());
        }
        let (target, partition, offset) = (self.target.clone(), self.partition, self.next_offset);
        let place = self.place();
        let consumer = blocking(&self.environment.spawner, "kafka consumer", move || {
            let consumer = Arc::new(target.consumer(Reports::new(place))?);
            assign(&target, &consumer, partition, offset)?;
            Ok(consumer)
        })
        .await?;
        self.heard = false;
        self.consumer = Some(consumer.clone());
        Ok(consumer)
    }

    /// Asks for the offsets that are there, and moves `next_offset` behind what was lost.
    async fn check_offsets(&mut self, consumer: &Arc<StreamConsumer<Reports>>) -> Result<()> {
        let (target, asked, partition) = (self.target.clone(), consumer.clone(), self.partition);
        let there = blocking(&self.environment.spawner, "kafka offsets", move || {
            target.offsets_through(&asked, partition)
        })
        .await?;
        if self.next_offset > there.end {
            return Err(Error::precondition(format!(
                "{}: offset {} is past the end {}; the topic is not the one that was read before",
                self.place(),
                self.next_offset,
                there.end
            )));
        }
        if self.next_offset < there.start {
            let start = self.lost.map_or(self.next_offset, |lost| lost.start);
            self.lost = Some(OffsetRange {
                start,
                end: there.start,
            });
            self.next_offset = there.start;
        }
        Ok(())
    }

    /// After the broker refused the offset: finds out why, and goes on where that is right.
    async fn reposition(&mut self, consumer: &Arc<StreamConsumer<Reports>>) -> Result<()> {
        let refused = self.next_offset;
        // Until the consumer was assigned anew it gives nothing more, so a dropped or failed attempt begins again with another one.
        self.consumer = None;
        self.check_offsets(consumer).await?;
        let (target, assigned, partition, offset) = (
            self.target.clone(),
            consumer.clone(),
            self.partition,
            self.next_offset,
        );
        blocking(&self.environment.spawner, "kafka assign", move || {
            assign(&target, &assigned, partition, offset)
        })
        .await?;
        self.consumer = Some(consumer.clone());
        if self.next_offset == refused {
            let reason = consumer.context().reason().map(|r| r.text);
            let reason = reason.unwrap_or_default();
            return Err(Error::unavailable(format!(
                "{}: the broker refused offset {refused}, which it has: {reason}; trying again",
                self.place()
            )));
        }
        Ok(())
    }

    fn empty(&mut self) -> MessageBatch {
        MessageBatch {
            messages: Vec::new(),
            next_offset: self.next_offset,
            lost: self.lost.take(),
            archived: false,
        }
    }

    /// A first message and those that are there behind it.
    fn drain(
        &mut self,
        consumer: &StreamConsumer<Reports>,
        first: Message,
        messages_max: usize,
        bytes_max: usize,
    ) -> MessageBatch {
        let mut batch = MessageBatch {
            messages: Vec::new(),
            next_offset: self.next_offset,
            lost: self.lost.take(),
            archived: false,
        };
        let (mut bytes, mut next, mut stream) = (0_usize, Some(first), consumer.stream());
        let with_headers = self.target.with_headers;
        while let Some(message) = next.take() {
            bytes += bytes_of(&message);
            if message.offset >= self.next_offset {
                self.next_offset = message.offset.saturating_add(1);
                batch.messages.push(message);
            }
            while next.is_none() && batch.messages.len() < messages_max && bytes < bytes_max {
                match stream.next().now_or_never().flatten().map(|event| {
                    Event::from(event, consumer.context(), with_headers, &mut self.room)
                }) {
                    Some(Event::Message(message)) => next = Some(message),
                    Some(Event::End(end)) => {
                        self.next_offset = self.next_offset.max(end.unwrap_or_default())
                    }
                    other => {
                        self.waiting = other;
                        break;
                    }
                }
            }
        }
        batch.next_offset = self.next_offset;
        batch
    }
}

/// Blocks shortly.
fn assign(
    target: &Target,
    consumer: &StreamConsumer<Reports>,
    partition: i32,
    offset: u64,
) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
    assignment
        .add_partition_offset(&target.topic, partition, offset)
        .and_then(|()| consumer.assign(&assignment))
        .map_err(|e| target.error(&e, None))
}

impl Event {
    fn from(
        event: Result<BorrowedMessage<'_>, KafkaError>,
        reports: &Reports,
        with_headers: bool,
        room: &mut Room,
    ) -> Self {
        match event {
            Ok(message) => match u64::try_from(message.offset()) {
                Ok(offset) => Self::Message(Message {
                    offset,
                    key: message.key().map(|key| room.keep(key)),
                    payload: message
                        .payload()
                        .map_or_else(Bytes::new, |payload| room.keep(payload)),
                    timestamp_ms: message
                        .timestamp()
                        .to_millis()
                        .filter(|ms| *ms > 0)
                        .unwrap_or(0),
                    // Asking for them parses them.
                    headers: match with_headers.then(|| message.headers()).flatten() {
                        Some(headers) => (headers.iter())
                            .filter_map(|h| Some((h.key.into(), Bytes::copy_from_slice(h.value?))))
                            .collect(),
                        None => Vec::new(),
                    },
                }),
                Err(_) => {
                    Self::Trouble(KafkaError::MessageConsumption(RDKafkaErrorCode::BadMessage))
                }
            },
            Err(KafkaError::PartitionEOF(_)) => Self::End(reports.take_end()),
            Err(error) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    Self::OutOfRange
                }
                _ => Self::Trouble(error),
            },
        }
    }
}

#[async_trait]
impl PartitionReader for KafkaReader {
    async fn next(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<MessageBatch> {
        self.room.begin();
        let clock = self.environment.clock.clone();
        let deadline = clock.monotonic().saturating_add(wait);
        loop {
            let consumer = self.consumer().await?;
            let event = match self.waiting.take() {
                Some(event) => Some(event),
                None => {
                    let mut stream = consumer.stream();
                    let mut sleep = clock.sleep(deadline.saturating_sub(clock.monotonic()));
                    tokio::select! {
                        biased;
                        event = stream.next() => event.map(|event| Event::from(event, consumer.context(), self.target.with_headers, &mut self.room)),
                        () = &mut sleep => None,
                    }
                }
            };
            match event {
                Some(Event::Message(message)) => {
                    self.heard = true;
                    consumer.context().recovered();
                    let batch = self.drain(&consumer, message, messages_max, bytes_max);
                    if !batch.messages.is_empty() {
                        return Ok(batch);
                    }
                    self.lost = batch.lost;
                }
                Some(Event::End(end)) => {
                    self.heard = true;
                    consumer.context().recovered();
                    self.next_offset = self.next_offset.max(end.unwrap_or_default());
                }
                Some(Event::OutOfRange) => {
                    self.reposition(&consumer).await?;
                    self.heard = true;
                }
                Some(Event::Trouble(error)) => {
                    self.heard = false;
                    let passing = error.rdkafka_error_code()
                        == Some(RDKafkaErrorCode::BrokerTransportFailure);
                    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
                        self.consumer = None;
                    }
                    if !passing {
                        return Err(self
                            .target
                            .error(&error, consumer.context().reason().as_ref())
                            .at(format!("partition {}", self.partition)));
                    }
                }
                None if self.heard => return Ok(self.empty()),
                None => {
                    // Silence may mean that nothing is produced, or that nobody answers.
                    self.check_offsets(&consumer).await?;
                    self.heard = true;
                    consumer.context().recovered();
                    return Ok(self.empty());
                }
            }
        }
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // Closing a consumer waits for its threads.
        if let Some(consumer) = self.consumer.take()
            && self.environment.spawner.is_running()
        {
            self.environment
                .spawner
                .spawn_blocking("close kafka consumer", Box::new(move || drop(consumer)));
        }
    }
}
