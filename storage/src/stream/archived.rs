//! A stream that begins where its archive does: what it does not hold any more comes from there. Who has begun in the archive goes on
//! in it as far as it goes without a gap, so that little is read from the stream that would be archived again.

use super::{Message, MessageBatch, PartitionReader, Stream};
use crate::archive::{Archive, ArchiveObject, ObjectReader, covering, next_start};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::Result;
use strandline_proto::ids::OffsetRange;

/// A stream with the archive of its messages. Offsets that the stream has dropped are read from the archive where that has them,
/// and are lost where neither has.
pub struct ArchivedStream {
    stream: Arc<dyn Stream>,
    archive: Archive,
    /// The first offset of partitions' archives, once there is one: nothing comes before it any more. With how many objects had
    /// been removed then: another one may be the first when more have been since.
    first: Mutex<HashMap<u32, (u64, u64)>>,
}

impl ArchivedStream {
    /// `stream` in front of `archive`.
    pub fn new(stream: Arc<dyn Stream>, archive: Archive) -> Self {
        Self {
            stream,
            archive,
            first: Mutex::default(),
        }
    }

    /// The archive's first offset.
    pub(crate) async fn first(&self, partition: u32) -> Result<Option<u64>> {
        // Before they are listed: what is removed from here on is seen when it is asked again.
        let removals = self.archive.removals();
        if let Some((first, at)) = self.first.lock().get(&partition)
            && *at == removals
        {
            return Ok(Some(*first));
        }
        let objects = self.archive.objects(partition).await?;
        let first = objects.first().map(|object| object.offsets().start);
        if let Some(first) = first {
            self.first.lock().insert(partition, (first, removals));
        }
        Ok(first)
    }
}

#[async_trait]
impl Stream for ArchivedStream {
    fn id(&self) -> Arc<str> {
        self.stream.id()
    }

    fn topic(&self) -> Arc<str> {
        self.stream.topic()
    }

    async fn partitions(&self) -> Result<u32> {
        self.stream.partitions().await
    }

    async fn offsets(&self, partition: u32) -> Result<OffsetRange> {
        let OffsetRange { start, end } = self.stream.offsets(partition).await?;
        let first = self.first(partition).await?.unwrap_or(start);
        Ok(OffsetRange {
            start: start.min(first),
            end,
        })
    }

    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<u64> {
        let held = self.stream.offsets(partition).await?;
        let mut found: Option<u64> = None;
        for object in self.archive.objects(partition).await? {
            let OffsetRange { start, .. } = object.offsets();
            if start >= found.unwrap_or(held.start) {
                break;
            }
            let mut reader = self.archive.open(&object, start).await?;
            if (reader.timestamps_ms()).is_none_or(|(_, largest)| largest < timestamp_ms) {
                continue;
            }
            while let Some(messages) = reader.next_block().await? {
                let first = messages.iter().find(|m| m.timestamp_ms >= timestamp_ms);
                if let Some(message) = first {
                    found = Some(found.unwrap_or(u64::MAX).min(message.offset));
                    break;
                }
            }
        }
        match found.filter(|offset| *offset < held.start) {
            Some(offset) => Ok(offset),
            None => self.stream.offset_at(partition, timestamp_ms).await,
        }
    }

    async fn open(&self, partition: u32, from_offset: u64) -> Result<Box<dyn PartitionReader>> {
        // What is wrong with the partition is told here, as the stream does.
        let held = self.stream.offsets(partition).await?;
        let mut reader = Reader {
            stream: Arc::clone(&self.stream),
            archive: self.archive.clone(),
            partition,
            next_offset: from_offset,
            held_from: held.start,
            follows: false,
            objects: Vec::new(),
            source: Source::Undecided,
        };
        if from_offset >= held.start {
            reader.source = Source::Stream {
                reader: self.stream.open(partition, from_offset).await?,
                gap: None,
            };
        }
        Ok(Box::new(reader))
    }
}

/// Whether any of `objects` has any of the offsets that the stream has dropped.
fn is_archived(objects: &[ArchiveObject], lost: OffsetRange) -> bool {
    let mut archived = objects.iter().map(ArchiveObject::offsets);
    archived.any(|has| has.start < lost.end && lost.start < has.end)
}

enum Source {
    /// To be chosen by `next_offset`.
    Undecided,
    Stream {
        reader: Box<dyn PartitionReader>,
        /// A batch that jumps over offsets, which the archive may have.
        gap: Option<MessageBatch>,
    },
    Archive {
        reader: ObjectReader,
        /// Behind all that the object can give.
        end: u64,
        ready: VecDeque<Message>,
    },
}

struct Reader {
    stream: Arc<dyn Stream>,
    archive: Archive,
    partition: u32,
    next_offset: u64,
    /// The stream holds nothing before this offset. It may have dropped more since.
    held_from: u64,
    /// Whether what is before `next_offset` was read from the archive.
    follows: bool,
    /// The archive as it was when an offset was last looked for in vain.
    objects: Vec<ArchiveObject>,
    source: Source,
}

#[async_trait]
impl PartitionReader for Reader {
    async fn next(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<MessageBatch> {
        loop {
            match &mut self.source {
                Source::Undecided => {
                    if let Some(lost) = self.choose().await? {
                        return Ok(MessageBatch {
                            next_offset: lost.end,
                            lost: Some(lost),
                            ..MessageBatch::default()
                        });
                    }
                }
                Source::Stream {
                    reader,
                    gap: gap @ None,
                } => {
                    let batch = reader.next(messages_max, bytes_max, wait).await?;
                    if batch.lost.is_none() {
                        self.next_offset = batch.next_offset;
                        return Ok(batch);
                    }
                    *gap = Some(batch);
                }
                Source::Stream { gap, .. } => {
                    self.objects = self.archive.objects(self.partition).await?;
                    let lost = gap.as_ref().and_then(|batch| batch.lost);
                    match (gap.take(), lost) {
                        // The batch is read again, behind what the archive has of these.
                        (_, Some(lost)) if is_archived(&self.objects, lost) => {
                            self.held_from = lost.end;
                            self.follows = false;
                            self.source = Source::Undecided;
                        }
                        (Some(batch), _) => {
                            self.next_offset = batch.next_offset;
                            return Ok(batch);
                        }
                        (None, _) => {}
                    }
                }
                Source::Archive { reader, end, ready } => {
                    if ready.is_empty() {
                        match reader.next_block().await? {
                            Some(messages) => ready.extend(messages),
                            None => {
                                self.next_offset = self.next_offset.max(*end);
                                self.follows = true;
                                self.source = Source::Undecided;
                                continue;
                            }
                        }
                    }
                    let mut batch = MessageBatch {
                        archived: true,
                        ..MessageBatch::default()
                    };
                    let mut bytes = 0_usize;
                    while batch.messages.is_empty()
                        || (batch.messages.len() < messages_max && bytes < bytes_max)
                    {
                        let Some(message) = ready.pop_front() else {
                            break;
                        };
                        bytes += message.payload.len();
                        self.next_offset = message.offset + 1;
                        batch.messages.push(message);
                    }
                    batch.next_offset = self.next_offset;
                    return Ok(batch);
                }
            }
        }
    }
}

impl Reader {
    /// Chooses what to read `next_offset` from, or says which offsets neither has, and goes behind them.
    async fn choose(&mut self) -> Result<Option<OffsetRange>> {
        let next = self.next_offset;
        let goes_on = self.follows && covering(&self.objects, next).is_some();
        if next >= self.held_from && !goes_on {
            let reader = self.stream.open(self.partition, next).await?;
            self.source = Source::Stream { reader, gap: None };
            return Ok(None);
        }
        if covering(&self.objects, next).is_none() {
            self.objects = self.archive.objects(self.partition).await?;
        }
        if let Some(object) = covering(&self.objects, next) {
            let end = object.offsets().end;
            let reader = self.archive.open(object, next).await?;
            self.source = Source::Archive {
                reader,
                end,
                ready: VecDeque::new(),
            };
            return Ok(None);
        }
        let later = next_start(&self.objects, next);
        let end = later.map_or(self.held_from, |start| start.min(self.held_from));
        self.next_offset = end;
        Ok(Some(OffsetRange { start: next, end }))
    }
}
