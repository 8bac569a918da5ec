//! Schemas and table configs: Pinot's JSON documents into what the rest of the database works with.
//!
//! Nothing in a document is passed over in silence. A key that is known and not honoured, or not known at
//! all, is listed by its JSON path as a [`ConfigWarning`] when answers stay right without it, and is an
//! error when they would not (filters, rollups).

mod complex_types;
mod decoder;
mod document;
mod fields;
mod json_index;
mod keys;
mod names;
mod schema;
mod star_tree;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod upkeep;

use crate::convert::flatten::ComplexTypes;
use crate::decode::compression::Compression;
use crate::decode::csv_record::CsvRecordFormat;
use crate::decode::registry::RegistryUrl;
use crate::segment::spec::SegmentSpec;
use crate::stream::kafka;
use crate::stream::log::LOG_STREAM_ID;
use crate::transform::Transforms;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use strandline_proto::Result;
use strandline_proto::ids::Half;
use strandline_proto::schema::Schema;

/// A part of a document that is not honoured, and what happens instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The JSON path, `tableIndexConfig.starTreeIndexConfigs[0]`.
    pub path: String,
    /// What happens instead.
    pub message: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// How often offline data is pushed: what an inferred boundary is floored to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushPeriod {
    /// Once a day.
    #[default]
    Daily,
    /// Once an hour.
    Hourly,
}

impl PushPeriod {
    /// Milliseconds of one period.
    pub fn millis(self) -> i64 {
        match self {
            Self::Daily => 86_400_000,
            Self::Hourly => 3_600_000,
        }
    }
}

/// What a load into the offline half does to the rows that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PushType {
    /// Adds to them.
    #[default]
    Append,
    /// Takes their place.
    Refresh,
}

/// One half of a table, as its config describes it.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// The table's name, without `_OFFLINE` or `_REALTIME`.
    pub name: String,
    /// Which half this is.
    pub half: Half,
    /// The time column, whose format is sortable.
    pub time_column: Option<String>,
    /// How often offline data is pushed.
    pub push_period: PushPeriod,
    /// What a load does to the rows that are there.
    pub push_type: PushType,
    /// How long rows are kept, by their times, in milliseconds; none: for ever.
    pub retention_ms: Option<u64>,
    /// How long what a push replaced is kept, so that the push can be reverted, in milliseconds.
    pub kept_ms: u64,
    /// When the offline half takes over rows of a realtime half.
    pub take_over: Option<TakeOver>,
    /// The schema and how its columns are stored.
    pub spec: Arc<SegmentSpec>,
    /// Columns computed while rows come in, and which rows are left out.
    pub transforms: Transforms,
    /// How nested records become rows.
    pub complex_types: Option<ComplexTypes>,
    /// What rows are told apart by, where they have a key.
    pub keys: Option<Arc<KeysConfig>>,
    /// The streams of a realtime half, at least one.
    pub streams: Vec<Arc<StreamConfig>>,
    /// The document, as it was given.
    pub json: String,
}

/// What rows are told apart by, and which row of a key counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysConfig {
    /// The columns of the key.
    pub key: Vec<String>,
    /// The column whose greatest value is that of the newest row; none: rows are ordered as they came.
    pub comparison: Option<String>,
    /// The column that is true in a row that deletes its key.
    pub deleted: Option<String>,
    /// Which row counts.
    pub rule: KeyRule,
    /// How much smaller than that of a row the comparison value of its key may be; where it is smaller still, the key was
    /// forgotten, and the row counts beside the one that was there.
    pub kept: Option<i64>,
    /// The same for keys that were deleted.
    pub deleted_kept: Option<i64>,
}

impl KeysConfig {
    /// The columns that it names: those of the key, the comparison column, that of deletions.
    pub fn columns(&self) -> impl Iterator<Item = &String> {
        self.key.iter().chain(&self.comparison).chain(&self.deleted)
    }

    /// Whether keys are forgotten.
    pub fn forgets(&self) -> bool {
        self.kept.is_some() || self.deleted_kept.is_some()
    }

    /// How long a key is kept, deleted or not.
    pub fn kept_of(&self, deleted: bool) -> Option<i64> {
        match deleted {
            true => self.deleted_kept.or(self.kept),
            false => self.kept,
        }
    }

    /// Whether rows can cease to count.
    pub fn supersedes(&self) -> bool {
        self.rule != KeyRule::First
    }
}

/// Which row of a key counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// The newest, as it is.
    Newest,
    /// The newest, laid onto the one before it.
    Merged(Merging),
    /// The first; others are left out.
    First,
}

/// How a row is laid onto the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merging {
    /// By column.
    pub columns: BTreeMap<String, MergeStrategy>,
    /// Of all other columns.
    pub otherwise: MergeStrategy,
}

impl Merging {
    /// A column's strategy.
    pub fn of(&self, column: &str) -> MergeStrategy {
        self.columns.get(column).copied().unwrap_or(self.otherwise)
    }
}

/// What becomes of a column where a row is laid onto the one before it. But for the first, a null stands for what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeStrategy {
    /// The new value, null or not.
    ForceOverwrite,
    /// The new value.
    Overwrite,
    /// The old value.
    Ignore,
    /// Their sum; beyond what the type holds, the nearest value that it does.
    Increment,
    /// The old elements, then the new ones.
    Append,
    /// The same, each element once.
    Union,
    /// The greater one.
    Max,
    /// The smaller one.
    Min,
}

/// When rows of the stream become rows of the offline half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeOver {
    /// Milliseconds of the periods that are taken over, one after the other.
    pub period_ms: i64,
    /// Milliseconds that pass after a period's end before it is.
    pub buffer_ms: i64,
}

impl TableConfig {
    /// Whether rows that come in would be others by `new`.
    pub fn takes_rows_otherwise(&self, new: &Self) -> bool {
        self.transforms != new.transforms
            || self.complex_types != new.complex_types
            || self.streams != new.streams
    }
}

/// The kind of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Apache Kafka.
    Kafka,
    /// The embedded durable log of this server.
    Log,
}

/// Where a partition without a committed offset begins. One that is added to a stream that is consumed begins at its oldest
/// message, wherever the others did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOffset {
    /// At the oldest message kept.
    Earliest,
    /// At the next message to come.
    Latest,
    /// At the first message written at this time or later, in milliseconds since the epoch.
    At(i64),
    /// The same, so many milliseconds before the table's creation.
    Back(u64),
}

/// How a message's bytes become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageFormat {
    /// One JSON object.
    Json,
    /// One Avro datum in binary, without header.
    Avro {
        /// The writer's schema, in Avro's JSON.
        schema: String,
    },
    /// One Avro datum behind the id of its schema, in Confluent's wire format.
    RegisteredAvro {
        /// Where the schema is asked for.
        registry: RegistryUrl,
    },
    /// One CSV record.
    Csv(CsvRecordFormat),
    /// One Protobuf message.
    Protobuf {
        /// What its types are.
        descriptors: DescriptorSet,
        /// Its type.
        message: String,
    },
}

/// A descriptor set of Protobuf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescriptorSet {
    /// A file of the server.
    File(PathBuf),
    /// Its bytes.
    Given(Vec<u8>),
}

/// How messages are decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecoderConfig {
    /// The format.
    pub format: MessageFormat,
    /// How messages are compressed as a whole.
    pub compression: Compression,
    /// Whether key, headers, offset and time of a message are fields of its row.
    pub metadata: bool,
    /// A message that is longer, compressed or decompressed, is rejected.
    pub message_bytes_max: usize,
}

/// The stream of a realtime half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// The kind.
    pub kind: StreamKind,
    /// The topic.
    pub topic: String,
    /// Partitions of an embedded log's topic; Kafka's are asked of the broker.
    pub partitions: u32,
    /// Kafka's bootstrap servers, separated by commas; empty for the log.
    pub brokers: String,
    /// Properties for librdkafka.
    pub properties: BTreeMap<String, String>,
    /// Where a partition without a committed offset begins.
    pub start: StartOffset,
    /// The same for single partitions, by their first offset.
    pub start_offsets: BTreeMap<u32, u64>,
    /// Messages of all its partitions in 1,000 seconds, at most.
    pub rate_limit: Option<u64>,
    /// Whether consumption of a partition stops at a message that is wrong, instead of making it a dead letter.
    pub strict: bool,
    /// Whether raw messages are kept in the archive.
    pub archive: bool,
    /// How long they are kept there, by their timestamps, in milliseconds; none: for ever.
    pub archive_retention_ms: Option<u64>,
    /// How messages are decoded.
    pub decoder: DecoderConfig,
    /// Rows at which a consuming segment is sealed.
    pub flush_rows: u64,
    /// Bytes at which it is sealed.
    pub flush_bytes: u64,
    /// Milliseconds after its first row at which it is sealed.
    pub flush_age_ms: u64,
}

impl StreamConfig {
    /// Which stream it is, whatever else is said of it: that which offsets belong to.
    pub fn id(&self) -> String {
        format!("{}/{}", self.stream_id(), self.topic)
    }

    /// What its partitions name it by, beside their topic: [`Stream::id`](crate::stream::Stream::id).
    pub fn stream_id(&self) -> String {
        match self.kind {
            StreamKind::Kafka => kafka::stream_id(&self.brokers),
            StreamKind::Log => LOG_STREAM_ID.to_owned(),
        }
    }
}

/// Reads a schema document; the schema gets `version`.
pub fn parse_schema(json: &str, version: u32) -> Result<(Schema, Vec<ConfigWarning>)> {
    schema::parse(json, version)
}

/// Reads a table config document against the table's schema.
pub fn parse_table(json: &str, schema: &Arc<Schema>) -> Result<(TableConfig, Vec<ConfigWarning>)> {
    table::parse(json, schema)
}

/// The name (without suffix) and half of a table config document, before its schema is known.
pub fn table_name_and_half(json: &str) -> Result<(String, Half)> {
    let document = document::parse(json)?;
    let mut root = document::Node::root(&document).object()?;
    table::name_and_half(&mut root)
}
