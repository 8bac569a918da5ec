//! The embedded log: a durable stream for one machine, without a broker.
//!
//! Invariant: what [`EmbeddedLog::append`] acknowledged is on disk (fsynced) and is read back whole,
//! in order and once, whatever moment the process or the machine died at; stored bytes that fail
//! their check are an error naming file and position, never skipped.
//!
//! ```text
//! <root>/<topic>/topic.json                      {"version":1,"partitions":N}
//! <root>/<topic>/<partition>/<base offset>.log   message batches, see `format`
//! <root>/<topic>/<partition>/acknowledged        how far the last file is known to be on disk
//! ```
//!
//! Appends to one partition that arrive together share one write and one fsync. A producer that names
//! itself and numbers its messages may repeat any request: what is stored already is acknowledged
//! again and not stored twice, also after a restart.

#[cfg(test)]
mod fault_tests;
mod format;
#[cfg(test)]
mod kill_tests;
mod partition;
mod producers;
mod reader;
mod recovery;
#[cfg(test)]
mod tests;

use crate::environment::{Environment, blocking, file_error};
use crate::stream::{PartitionReader, Stream};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use partition::{Append, PartitionLog, Place};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use strandline_proto::ids::OffsetRange;
use strandline_proto::partition::partition_of;
use strandline_proto::{Error, Result};
use tokio::sync::OnceCell;

/// The id of every stream of an embedded log.
pub const LOG_STREAM_ID: &str = "log";
/// Bytes of key and payload that one message holds at most.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes that the messages of one append hold at most.
pub const APPEND_BYTES_MAX: usize = 32 << 20;
/// Messages of one append at most.
pub const APPEND_MESSAGES_MAX: usize = 1 << 20;
/// Partitions of a topic at most.
pub const PARTITIONS_MAX: u32 = 1024;
/// Bytes of a topic's name at most.
pub const TOPIC_BYTES_MAX: usize = 249;
/// Bytes of a producer id at most.
pub const PRODUCER_ID_BYTES_MAX: usize = 256;

/// A message to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogMessage {
    /// The key.
    pub key: Option<Bytes>,
    /// The bytes.
    pub payload: Bytes,
    /// Milliseconds since the epoch; 0: the time of arrival.
    pub timestamp_ms: i64,
}

/// Where an append's messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    /// The partition.
    pub partition: u32,
    /// The offset of the request's first message. For a repeated message so old that its offset is no
    /// longer remembered: an offset that it certainly lies before.
    pub first_offset: u64,
    /// The offset after the request's last message, likewise. Messages of others may lie between.
    pub next_offset: u64,
    /// Messages of the request that were stored before and not stored again.
    pub duplicates: u64,
}

/// Sizes that tests make small.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// A file that reached this many bytes is closed and the next one begun.
    pub file_bytes_max: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            file_bytes_max: 256 << 20,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct TopicFile {
    version: u32,
    partitions: u32,
}

const TOPIC_FILE_VERSION: u32 = 1;
const TOPIC_FILE: &str = "topic.json";

struct Topic {
    name: Arc<str>,
    dir: PathBuf,
    /// Opened, and read through to the end, when first used.
    partitions: Vec<OnceCell<Arc<PartitionLog>>>,
    rotation: AtomicU64,
}

/// All topics under one folder. One process may have it open; the owner of the data folder sees to that.
pub struct EmbeddedLog {
    root: PathBuf,
    environment: Environment,
    options: LogOptions,
    topics: RwLock<BTreeMap<Arc<str>, Arc<Topic>>>,
    creating: tokio::sync::Mutex<()>,
}

/// Checks that `topic` can name a folder: 1 to 249 letters, digits, `.`, `_` or `-`, not beginning with a point.
pub fn validate_topic(topic: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty()
        || topic.len() > TOPIC_BYTES_MAX
        || topic.starts_with('.')
        || !topic.chars().all(allowed)
    {
        return Err(Error::invalid(format!(
            "topic name {topic:?} is not allowed: use 1 to {TOPIC_BYTES_MAX} letters, digits, '.', '_' or '-', not beginning with '.'"
        )));
    }
    Ok(())
}

impl EmbeddedLog {
    /// Opens the log under `root` (created when absent) with the topics it has.
    pub async fn open(root: &Path, environment: Environment) -> Result<Arc<Self>> {
        Self::open_with(root, environment, LogOptions::default()).await
    }

    /// [`Self::open`] with other sizes.
    pub async fn open_with(
        root: &Path,
        environment: Environment,
        options: LogOptions,
    ) -> Result<Arc<Self>> {
        let (files, dir) = (environment.files.clone(), root.to_owned());
        let topics = blocking(&environment.spawner, "open log", move || {
            files
                .create_dir(&dir)
                .map_err(|e| file_error("create", &dir, &e))?;
            let mut topics = BTreeMap::new();
            for path in files.list(&dir).map_err(|e| file_error("list", &dir, &e))? {
                let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                    continue;
                };
                if !path.is_dir() || validate_topic(name).is_err() {
                    continue;
                }
                let file = path.join(TOPIC_FILE);
                if !file.exists() {
                    // Its creation was never acknowledged; creating it again completes it.
                    continue;
                }
                let bytes = files
                    .read(&file)
                    .map_err(|e| file_error("read", &file, &e))?;
                topics.insert(
                    Arc::from(name),
                    Arc::new(Topic::new(name, &path, parse_topic(&file, &bytes)?)),
                );
            }
            Ok(topics)
        })
        .await?;
        Ok(Arc::new(Self {
            root: root.to_owned(),
            environment,
            options,
            topics: RwLock::new(topics),
            creating: tokio::sync::Mutex::new(()),
        }))
    }

    /// Creates a topic. Repeating it is a no-op; the same name with another number of partitions is `AlreadyExists`.
    pub async fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        validate_topic(topic)?;
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(Error::invalid(format!(
                "topic {topic}: {partitions} partitions; a topic has 1 to {PARTITIONS_MAX}"
            )));
        }
        let _one_at_a_time = self.creating.lock().await;
        if let Some(existing) = self.topics.read().get(topic) {
            let has = existing.partitions.len();
            return if has == partitions as usize {
                Ok(())
            } else {
                Err(Error::already_exists(format!(
                    "topic {topic} exists with {has} partitions, not {partitions}"
                )))
            };
        }
        let (files, dir) = (self.environment.files.clone(), self.root.join(topic));
        let created = dir.clone();
        blocking(&self.environment.spawner, "create topic", move || {
            let json = serde_json::to_vec(&TopicFile {
                version: TOPIC_FILE_VERSION,
                partitions,
            })
            .map_err(|e| Error::internal(format!("topic file: {e}")))?;
            files
                .create_dir(&created)
                .map_err(|e| file_error("create", &created, &e))?;
            let file = created.join(TOPIC_FILE);
            files
                .write_durable(&file, &json)
                .map_err(|e| file_error("write", &file, &e))
        })
        .await?;
        self.topics.write().insert(
            Arc::from(topic),
            Arc::new(Topic::new(topic, &dir, partitions)),
        );
        Ok(())
    }

    /// The topics with their numbers of partitions, by name.
    pub fn topics(&self) -> Vec<(Arc<str>, u32)> {
        self.topics
            .read()
            .values()
            .map(|t| (t.name.clone(), t.partitions.len() as u32))
            .collect()
    }

    /// A topic as a stream to read.
    pub fn stream(self: &Arc<Self>, topic: &str) -> Result<Arc<dyn Stream>> {
        Ok(Arc::new(LogStream {
            topic: self.topic(topic)?,
            log: self.clone(),
        }))
    }

    /// Appends `messages`, in order, to one partition and answers when they are on disk.
    ///
    /// Without `partition` it is that of the messages' keys (by Kafka's hash, see
    /// [`strandline_proto::partition`]); without keys that of the producer id; without one, the partitions take turns.
    /// With a `producer_id` (empty: none) `first_sequence` numbers the first message, 0 for a producer's first on
    /// this partition, and the rest follow; messages stored before are counted as duplicates and not stored again.
    /// A producer sends its next request for a partition after the answer to the last.
    ///
    /// Errors: `InvalidArgument` for wrong names and sizes; `FailedPrecondition` for a gap in the sequence;
    /// `ResourceExhausted` on a full disk; `DataLoss` when stored bytes fail their check. After an error nothing,
    /// or all, of the request is stored; repeating it with the same sequence is safe.
    pub async fn append(
        &self,
        topic: &str,
        partition: Option<u32>,
        messages: Vec<LogMessage>,
        producer_id: &str,
        first_sequence: u64,
    ) -> Result<AppendOutcome> {
        let topic = self.topic(topic)?;
        check_sizes(&topic.name, &messages)?;
        if producer_id.len() > PRODUCER_ID_BYTES_MAX {
            return Err(Error::invalid(format!(
                "topic {}: the producer id has {} bytes, at most {PRODUCER_ID_BYTES_MAX} are allowed",
                topic.name,
                producer_id.len()
            )));
        }
        let partition = match partition {
            Some(partition) => partition,
            None => topic.choose(&messages, producer_id)?,
        };
        let producer = (!producer_id.is_empty()).then(|| Arc::from(producer_id));
        self.partition(&topic, partition)
            .await?
            .append(Append {
                messages,
                producer,
                first_sequence,
            })
            .await
    }

    /// Splits messages by the partition that their keys choose, in the order of partitions; messages without key take turns as one group.
    pub fn route(
        &self,
        topic: &str,
        messages: Vec<LogMessage>,
    ) -> Result<Vec<(u32, Vec<LogMessage>)>> {
        let topic = self.topic(topic)?;
        let partitions = topic.partitions.len() as u32;
        let mut turn = None;
        let mut routed: BTreeMap<u32, Vec<LogMessage>> = BTreeMap::new();
        for message in messages {
            let partition = match &message.key {
                Some(key) => partition_of(key, partitions),
                None => *turn.get_or_insert_with(|| topic.next_turn()),
            };
            routed.entry(partition).or_default().push(message);
        }
        Ok(routed.into_iter().collect())
    }

    /// Removes files that hold only messages before `offset`; gives the first offset still held.
    ///
    /// For a partition whose consumers have all committed up to `offset`. The last file always stays.
    pub async fn trim_before(&self, topic: &str, partition: u32, offset: u64) -> Result<u64> {
        let topic = self.topic(topic)?;
        let log = self.partition(&topic, partition).await?;
        blocking(&self.environment.spawner, "trim log", move || {
            log.trim_before(offset)
        })
        .await
    }

    fn topic(&self, topic: &str) -> Result<Arc<Topic>> {
        self.topics.read().get(topic).cloned().ok_or_else(|| {
            Error::not_found(format!("no topic {topic:?} in the embedded log; create it, or a realtime table that reads it, first"))
        })
    }

    async fn partition(&self, topic: &Arc<Topic>, partition: u32) -> Result<Arc<PartitionLog>> {
        let Some(cell) = topic.partitions.get(partition as usize) else {
            return Err(Error::invalid(format!(
                "topic {} has {} partitions, 0 to {}; there is no partition {partition}",
                topic.name,
                topic.partitions.len(),
                topic.partitions.len().saturating_sub(1)
            )));
        };
        let open = || async {
            let (environment, options) = (self.environment.clone(), self.options);
            let place = Place {
                topic: topic.name.clone(),
                partition,
                dir: topic.dir.join(partition.to_string()),
            };
            blocking(&self.environment.spawner, "open log partition", move || {
                PartitionLog::open(place, environment, options)
            })
            .await
        };
        cell.get_or_try_init(open).await.cloned()
    }
}

impl Topic {
    fn new(name: &str, dir: &Path, partitions: u32) -> Self {
        Self {
            name: Arc::from(name),
            dir: dir.to_owned(),
            partitions: (0..partitions).map(|_| OnceCell::new()).collect(),
            rotation: AtomicU64::new(0),
        }
    }

    fn next_turn(&self) -> u32 {
        (self.rotation.fetch_add(1, Ordering::Relaxed) % (self.partitions.len() as u64).max(1))
            as u32
    }

    fn choose(&self, messages: &[LogMessage], producer_id: &str) -> Result<u32> {
        let partitions = self.partitions.len() as u32;
        let mut keyed = messages.iter().map(|message| {
            message
                .key
                .as_ref()
                .map(|key| partition_of(key, partitions))
        });
        match keyed.next().flatten() {
            _ if partitions == 1 => Ok(0),
            Some(first) if keyed.all(|other| other == Some(first)) => Ok(first),
            None if keyed.all(|other| other.is_none()) => Ok(match producer_id {
                "" => self.next_turn(),
                id => partition_of(id.as_bytes(), partitions),
            }),
            _ => Err(Error::invalid(format!(
                "topic {}: the messages' keys belong to different partitions; name the partition, or send one request per partition",
                self.name
            ))),
        }
    }
}

fn parse_topic(path: &Path, bytes: &[u8]) -> Result<u32> {
    let file: TopicFile = serde_json::from_slice(bytes)
        .map_err(|e| Error::data_loss(format!("{}: {e}", path.display())))?;
    if file.version > TOPIC_FILE_VERSION {
        return Err(Error::precondition(format!(
            "{} was written by a newer version of Strandline (format {}, this one reads up to {TOPIC_FILE_VERSION}): upgrade",
            path.display(),
            file.version
        )));
    }
    if !(1..=PARTITIONS_MAX).contains(&file.partitions) {
        return Err(Error::data_loss(format!(
            "{}: {} partitions",
            path.display(),
            file.partitions
        )));
    }
    Ok(file.partitions)
}

fn check_sizes(topic: &str, messages: &[LogMessage]) -> Result<()> {
    if messages.is_empty() || messages.len() > APPEND_MESSAGES_MAX {
        return Err(Error::invalid(format!(
            "topic {topic}: {} messages in one append; 1 to {APPEND_MESSAGES_MAX} are allowed",
            messages.len()
        )));
    }
    let mut total = 0;
    for (i, message) in messages.iter().enumerate() {
        let bytes = message.payload.len() + message.key.as_ref().map_or(0, Bytes::len);
        if bytes > MESSAGE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "topic {topic}: message {i} of the request has {bytes} bytes; at most {MESSAGE_BYTES_MAX} are allowed"
            )));
        }
        total += bytes;
    }
    if total > APPEND_BYTES_MAX {
        return Err(Error::invalid(format!(
            "topic {topic}: the request's messages have {total} bytes; at most {APPEND_BYTES_MAX} are allowed, send several requests"
        )));
    }
    Ok(())
}

/// One topic of the embedded log, as a stream.
struct LogStream {
    log: Arc<EmbeddedLog>,
    topic: Arc<Topic>,
}

#[async_trait]
impl Stream for LogStream {
    fn id(&self) -> Arc<str> {
        Arc::from(LOG_STREAM_ID)
    }

    fn topic(&self) -> Arc<str> {
        self.topic.name.clone()
    }

    async fn partitions(&self) -> Result<u32> {
        Ok(self.topic.partitions.len() as u32)
    }

    async fn offsets(&self, partition: u32) -> Result<OffsetRange> {
        Ok(self.log.partition(&self.topic, partition).await?.offsets())
    }

    async fn offset_at(&self, partition: u32, timestamp_ms: i64) -> Result<u64> {
        let partition = self.log.partition(&self.topic, partition).await?;
        let spawner = partition.environment.spawner.clone();
        blocking(&spawner, "search log", move || {
            reader::offset_at(&partition, timestamp_ms)
        })
        .await
    }

    async fn open(&self, partition: u32, from_offset: u64) -> Result<Box<dyn PartitionReader>> {
        let partition = self.log.partition(&self.topic, partition).await?;
        Ok(Box::new(reader::LogReader::new(partition, from_offset)))
    }
}
