//! The metastore: what tables there are, which segments answer for them, and how far their streams were read.
//!
//! Invariants: each operation is one transaction, and repeating one whose answer was lost changes nothing; the
//! offset ranges of a partition's committed segments tile it without gap or overlap; the catalog version grows
//! with every change to tables, segments, offsets or coverage, and a set of segments is named by it: a table's
//! segments at version V are those with `added_in <= V < removed_in`.
//!
//! Queries never wait for it: they run on the catalog snapshot that was published last. What is stored is read once, when
//! the store is opened; from then on each transaction applies to the state in memory what it changed, so that a commit
//! costs what it changed, whatever the number of segments.

pub mod coverage;
pub mod ledger;
pub mod minutes;
pub mod sql;
#[cfg(test)]
mod tests;

use crate::config::PushType;
use async_trait::async_trait;
use bytes::Bytes;
use coverage::CoverageFacts;
use ledger::PartitionLedger;
use minutes::MinuteCounts;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use strandline_proto::Result;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::{Coverage, Interval};
use strandline_proto::ids::{CatalogVersion, Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::lineage::Lineage;

/// Payload bytes kept of a dead letter; its full length is kept besides.
pub const DEAD_LETTER_BYTES_MAX: usize = 64 << 10;
/// Dead letters kept per table; the oldest make room. Their counts are kept for ever.
pub const DEAD_LETTERS_MAX: u64 = 100_000;
/// What [`SegmentInfo::stored_as`] is where it is only known that it is not what a config says.
pub const STORED_OTHERWISE: &str = "otherwise";
/// Bytes of a push id at most.
pub const PUSH_ID_BYTES_MAX: usize = 512;

/// Whether an operation changed something or had been done before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was done now.
    Done(T),
    /// The same had been done before; nothing changed.
    AlreadyDone(T),
}

impl<T> Outcome<T> {
    /// What it gave, now or then.
    pub fn into_inner(self) -> T {
        match self {
            Self::Done(value) | Self::AlreadyDone(value) => value,
        }
    }

    /// Whether nothing changed.
    pub fn is_already_done(&self) -> bool {
        matches!(self, Self::AlreadyDone(_))
    }
}

/// A stored schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRecord {
    /// Its name, which is the table's.
    pub name: String,
    /// From 1; each change makes a larger one.
    pub version: u32,
    /// Pinot's JSON document.
    pub json: String,
    /// Under which names segments of earlier versions store its columns.
    pub lineage: Arc<Lineage>,
}

/// One half of a table to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTable {
    /// The table's name without `_OFFLINE` or `_REALTIME`.
    pub name: String,
    /// Which half.
    pub half: Half,
    /// The name of its schema.
    pub schema: String,
    /// Pinot's table config as JSON.
    pub config_json: String,
}

/// How many messages of a partition met which end, from the table's creation on. They add up:
/// `read + unnested = indexed + filtered + deduplicated + dead_lettered`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestCounts {
    /// Messages read.
    pub read: u64,
    /// Rows put into segments.
    pub indexed: u64,
    /// Rows left out by the table's filter.
    pub filtered: u64,
    /// Rows left out because their key was there.
    pub deduplicated: u64,
    /// Messages that became dead letters.
    pub dead_lettered: u64,
    /// Offsets that the stream had dropped before they were read; not part of `read`.
    pub lost: u64,
    /// Of the rows that were put into segments: those that the offline half has taken over.
    #[serde(default)]
    pub moved: u64,
    /// Those that were deleted.
    #[serde(default)]
    pub deleted: u64,
    /// Those that were given up because of their age.
    #[serde(default)]
    pub expired: u64,
    /// Rows beyond the first of messages that gave several.
    #[serde(default)]
    pub unnested: u64,
    /// Of the rows that were put into segments: those that were superseded and left out when their segment was written again.
    #[serde(default)]
    pub compacted: u64,
}

impl IngestCounts {
    /// None at all.
    pub const NONE: Self = Self::of_fields([0; 11]);

    /// The sums of both.
    pub fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What is left of this without the other.
    pub fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        let (mut fields, others) = (self.fields(), other.fields());
        for (field, other) in fields.iter_mut().zip(others) {
            *field = of(*field, other);
        }
        Self::of_fields(fields)
    }

    /// Rows that left their half on purpose.
    pub fn left(&self) -> u64 {
        self.moved + self.deleted + self.expired + self.compacted
    }

    /// What messages became: rows in segments, rows that were left out, dead letters. The same as `read + unnested`.
    pub fn ends(&self) -> u64 {
        self.indexed + self.filtered + self.deduplicated + self.dead_lettered
    }

    /// The counts in the order in which they are stored.
    fn fields(&self) -> [u64; 11] {
        let Self {
            read,
            indexed,
            filtered,
            deduplicated,
            dead_lettered,
            lost,
            moved,
            deleted,
            expired,
            unnested,
            compacted,
        } = *self;
        [
            read,
            indexed,
            filtered,
            deduplicated,
            dead_lettered,
            lost,
            moved,
            deleted,
            expired,
            unnested,
            compacted,
        ]
    }

    /// The counts that have these [fields](Self::fields).
    const fn of_fields(fields: [u64; 11]) -> Self {
        let [
            read,
            indexed,
            filtered,
            deduplicated,
            dead_lettered,
            lost,
            moved,
            deleted,
            expired,
            unnested,
            compacted,
        ] = fields;
        Self {
            read,
            indexed,
            filtered,
            deduplicated,
            dead_lettered,
            lost,
            moved,
            deleted,
            expired,
            unnested,
            compacted,
        }
    }
}

/// A message that could not become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it was read.
    pub partition: StreamPartition,
    /// Its offset.
    pub offset: u64,
    /// Why, in one sentence.
    pub reason: String,
    /// Its first [`DEAD_LETTER_BYTES_MAX`] bytes. More may be given; they are cut.
    pub payload: Bytes,
    /// How many bytes it had. Filled in from `payload` when that is longer.
    pub payload_bytes: u64,
    /// When it was met, in milliseconds since the epoch.
    pub timestamp_ms: i64,
}

/// A sealed segment of the realtime half with the offsets it was made from.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitRealtime {
    /// The table.
    pub table: String,
    /// The segment; its origin says partition and offsets, which begin where the last commit ended.
    pub segment: SegmentInfo,
    /// What became of the messages in these offsets, by event time.
    pub counts: MinuteCounts,
    /// Dead letters among them.
    pub dead_letters: Vec<DeadLetter>,
}

/// Offsets from which no row came: read on behind them without a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkipOffsets {
    /// The table.
    pub table: String,
    /// The partition.
    pub partition: StreamPartition,
    /// Where the last commit ended.
    pub from_offset: u64,
    /// The next offset to read.
    pub to_offset: u64,
    /// What became of the messages in these offsets, by event time.
    pub counts: MinuteCounts,
    /// Dead letters among them.
    pub dead_letters: Vec<DeadLetter>,
}

/// Offline segments to add, all or none.
#[derive(Clone, Debug, PartialEq)]
pub struct PushOffline {
    /// The table.
    pub table: String,
    /// Names the push; the same id again changes nothing.
    pub push_id: String,
    /// The segments, loaded and durable before this.
    pub segments: Vec<SegmentInfo>,
    /// Add to the segments that are there, or replace them all and what was declared of them.
    pub mode: PushType,
    /// The interval for which the segments are the complete truth.
    pub declared: Option<Interval>,
    /// What they take the place of, when it is a part of the table.
    pub replaces: Option<Replaces>,
    /// Whether what they take the place of is kept, so that the push can be reverted.
    pub keeps_replaced: bool,
    /// Whether the segments were made again of the archive: then no boundary that is inferred moves.
    pub rebuilt: bool,
    /// What to answer when the push is repeated.
    pub result_json: String,
}

/// The rows of an interval that a push takes the place of.
#[derive(Clone, Debug, PartialEq)]
pub struct Replaces {
    /// The interval.
    pub interval: Interval,
    /// Whether only rows go that were taken over from the stream.
    pub only_moved: bool,
    /// All segments that hold such rows.
    pub removed: Vec<SegmentContent>,
    /// Segments of what these hold besides.
    pub rest: Vec<SegmentInfo>,
}

/// A segment by its name and its checksum.
pub type SegmentContent = (SegmentName, u64);

/// What a push did.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// The catalog version it made.
    pub version: CatalogVersion,
    /// The result to answer with: that of the first time.
    pub result_json: String,
    /// Segments that nobody needs any more, when it was done now.
    pub removed: Vec<SegmentInfo>,
    /// Segments that it replaced and that are kept.
    pub kept: Vec<SegmentInfo>,
}

/// Segments to put in the place of others, in one step.
#[derive(Clone, Debug, PartialEq)]
pub struct ChangeSegments {
    /// The table.
    pub table: String,
    /// Segments that are there, to be taken out.
    pub removed: Vec<SegmentContent>,
    /// Segments to be added, durable before this.
    pub added: Vec<SegmentInfo>,
    /// What becomes of the rows.
    pub reason: ChangeReason,
    /// Which realtime rows leave their half.
    pub left: Vec<LeftRows>,
}

/// Rows that leave a realtime segment on purpose.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftRows {
    /// The partition.
    pub partition: StreamPartition,
    /// The offsets that the segment is of.
    pub range: OffsetRange,
    /// How many moved, were deleted or expired, by event time.
    pub counts: MinuteCounts,
}

/// Why segments change, which is what becomes of their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeReason {
    /// The same rows are stored in other segments of the same half.
    Merged,
    /// The same realtime rows, but for superseded ones.
    Compacted,
    /// Some rows are gone.
    Deleted,
    /// Offline rows of an interval are gone, and realtime answers there.
    Uncovered(Interval),
    /// The offline half took over rows from the realtime half.
    Moved {
        /// Of these times.
        times: Coverage,
        /// Pushed segments that reach over them and hold no rows of them.
        beside: Vec<SegmentContent>,
    },
}

/// A push that can be undone.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptPush {
    /// The table.
    pub table: String,
    /// Its id.
    pub push_id: String,
    /// When it was done, in milliseconds since the epoch.
    pub pushed_ms: i64,
    /// Names of the segments that it added.
    pub added: Vec<String>,
    /// What it replaced.
    pub segments: Vec<SegmentInfo>,
}

/// A segment to put in the place of another one of its name.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplaceSegment {
    /// The table.
    pub table: String,
    /// The checksum of the segment that is there.
    pub checksum: u64,
    /// The segment that takes its place, of the same name, half, rows and origin, durable before this.
    pub segment: SegmentInfo,
}

/// A segment that no newer snapshot names, until its files are gone.
#[derive(Clone, Debug, PartialEq)]
pub struct RemovedSegment {
    /// The table.
    pub table: String,
    /// The segment.
    pub segment: SegmentInfo,
    /// The first catalog version without it.
    pub removed_in: CatalogVersion,
}

/// One table as stored.
#[derive(Clone, Debug, PartialEq)]
pub struct TableRecord {
    /// The name without `_OFFLINE` or `_REALTIME`.
    pub name: String,
    /// The schema.
    pub schema: Arc<SchemaRecord>,
    /// The offline half's config, when it exists.
    pub offline_json: Option<Arc<str>>,
    /// The realtime half's config, when it exists.
    pub realtime_json: Option<Arc<str>>,
    /// The catalog version that last changed its segments.
    pub set_version: CatalogVersion,
    /// Its segments, by name.
    pub segments: Vec<Arc<SegmentInfo>>,
    /// Per partition, the first offset that no committed segment holds, and the counts up to there.
    pub partitions: Vec<PartitionRecord>,
    /// What its coverage follows from.
    pub coverage: CoverageFacts,
    /// Since when its stream is not read, in milliseconds since the epoch.
    pub paused_ms: Option<i64>,
}

impl TableRecord {
    /// Whether it has a segment of this name and checksum.
    pub fn has(&self, name: &SegmentName, checksum: u64) -> bool {
        let at = self.segments.binary_search_by(|s| s.name.cmp(name));
        let found = at.ok().and_then(|at| self.segments.get(at));
        found.is_some_and(|s| s.checksum == checksum)
    }
}

/// How far a partition was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRecord {
    /// The partition.
    pub partition: StreamPartition,
    /// The offset that the table began at.
    pub first_offset: u64,
    /// The first offset that no committed segment holds.
    pub next_offset: u64,
    /// What became of the messages before `next_offset`.
    pub counts: IngestCounts,
    /// The first offset that the ledger tells of; behind `first_offset` where an earlier version read before it.
    pub ledger_offset: u64,
}

/// All that is stored, at one version. Records that two states have in common are shared, so a table that is the same
/// allocation in both has not changed in between.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetaState {
    /// The catalog version.
    pub version: CatalogVersion,
    /// Schemas by name.
    pub schemas: Vec<Arc<SchemaRecord>>,
    /// Tables by name.
    pub tables: Vec<Arc<TableRecord>>,
}

impl MetaState {
    /// A table by its name.
    pub fn table(&self, name: &str) -> Option<&Arc<TableRecord>> {
        let at = self.tables.binary_search_by(|t| t.name.as_str().cmp(name));
        self.tables.get(at.ok()?)
    }

    /// A schema by its name.
    pub fn schema(&self, name: &str) -> Option<&Arc<SchemaRecord>> {
        let at = self.schemas.binary_search_by(|s| s.name.as_str().cmp(name));
        self.schemas.get(at.ok()?)
    }
}

/// The store. Every method is one transaction.
///
/// Errors of all methods: `NotFound` for tables and schemas that are not there, `ResourceExhausted` on a full
/// disk, `Unavailable` when the store can't be reached, `DataLoss` when it is damaged.
#[async_trait]
pub trait Metastore: Send + Sync {
    /// Everything, at one version, as it is held in memory: cheap.
    async fn state(&self) -> Result<Arc<MetaState>>;

    /// Stores a schema as the given version, the one after the stored one. The same document again keeps what is stored, an
    /// other version is refused with `FailedPrecondition`. Whether old segments can be read with it is for the caller to see
    /// before.
    async fn put_schema(&self, schema: SchemaRecord) -> Result<Outcome<u32>>;
    /// Removes a schema; `FailedPrecondition` while a table uses it.
    async fn delete_schema(&self, name: &str) -> Result<()>;

    /// Creates one half of a table. The same config again is a no-op, another one `AlreadyExists`.
    async fn create_table(&self, table: NewTable) -> Result<Outcome<CatalogVersion>>;
    /// Gives a half that exists another config; the same config again is a no-op. Segments of the half of which is not known
    /// how they are stored are noted as stored otherwise than any config says.
    async fn update_table(&self, table: NewTable) -> Result<Outcome<CatalogVersion>>;
    /// Notes the same of such segments of both halves, of a half, or of none.
    async fn doubt_segments(&self, table: &str, half: Option<Half>) -> Result<u64>;
    /// Drops a half, or all of a table (`None`); gives the segments that went with it. Their files
    /// are to be removed when no query reads them any more, see [`Self::removed_segments`].
    async fn drop_table(&self, name: &str, half: Option<Half>) -> Result<Vec<SegmentInfo>>;

    /// The offset to consume a partition from: the stored one, or else `offset`, which is stored
    /// and stays, whatever the stream's earliest and latest offsets become.
    async fn start_partition(
        &self,
        table: &str,
        partition: &StreamPartition,
        offset: u64,
    ) -> Result<u64>;
    /// Adds a realtime segment and moves its partition's offset to the segment's end. `FailedPrecondition`
    /// when the stored offset is not the segment's start, or the name stands for another content.
    async fn commit_realtime(&self, commit: CommitRealtime) -> Result<Outcome<CatalogVersion>>;
    /// Moves a partition's offset without a segment. `FailedPrecondition` when the stored one is not `from_offset`.
    async fn skip_offsets(&self, skip: SkipOffsets) -> Result<Outcome<CatalogVersion>>;

    /// Adds offline segments. `AlreadyExists` when a segment's name stands for another content.
    async fn push_offline(&self, push: PushOffline) -> Result<Outcome<Pushed>>;
    /// The result of a push that was done.
    async fn push_result(&self, table: &str, push_id: &str) -> Result<Option<String>>;
    /// Undoes a push: what it added goes, what it replaced is there again, and coverage is as it was before it.
    /// `NotFound` for a push that is not known, `FailedPrecondition` when it can't be undone any more.
    async fn revert_push(&self, table: &str, push_id: &str) -> Result<Outcome<Pushed>>;
    /// Pushes whose replaced segments are kept, of all tables.
    async fn kept_pushes(&self) -> Result<Vec<KeptPush>>;
    /// Keeps no longer what a push replaced; gives the catalog version from which on nobody needs it.
    async fn release_push(
        &self,
        table: &str,
        push_id: &str,
    ) -> Result<(CatalogVersion, Vec<SegmentInfo>)>;

    /// Puts segments in the place of others. `FailedPrecondition` when those are not all there, with their checksums, when
    /// the new ones hold other rows than the reason allows, or when rows of times are to be taken over that pushes cover, or
    /// of which they hold rows: both would count.
    async fn change_segments(&self, change: ChangeSegments) -> Result<Outcome<CatalogVersion>>;

    /// Puts a segment in the place of another one with the same rows, in one step. `FailedPrecondition` when the one that is
    /// there has another checksum, or other rows.
    async fn replace_segment(&self, replace: ReplaceSegment) -> Result<Outcome<CatalogVersion>>;

    /// Holds the boundary.
    async fn pin_boundary(&self, table: &str, boundary_ms: i64) -> Result<Outcome<CatalogVersion>>;
    /// Lets it go.
    async fn release_boundary(&self, table: &str) -> Result<Outcome<CatalogVersion>>;

    /// Notes that a table's stream is not to be read, or that it is again.
    async fn set_paused(&self, table: &str, paused: bool) -> Result<Outcome<CatalogVersion>>;

    /// Stores dead letters; those that are there already (by partition and offset) stay as they are. Gives how many were new.
    async fn record_dead_letters(&self, table: &str, letters: &[DeadLetter]) -> Result<u64>;
    /// The latest dead letters of a table, newest first.
    async fn dead_letters(&self, table: &str, limit: u32) -> Result<Vec<DeadLetter>>;

    /// What became of a table's messages by ranges of offsets, partition by partition.
    async fn ledger(&self, table: &str) -> Result<Vec<PartitionLedger>>;
    /// What became of a partition's messages by event time, in about `buckets_max` buckets, and how far it was committed then. Ranges of
    /// offsets that begin before `from_offset` count as without event time. `DataLoss` names the range that can't be read.
    async fn ledger_minutes(
        &self,
        table: &str,
        partition: &StreamPartition,
        from_offset: u64,
        buckets_max: usize,
    ) -> Result<(PartitionRecord, MinuteCounts)>;

    /// What became, by event time, of the messages of those entries of a partition's ledger that have offsets of `range`; that may be
    /// more than the range's. `DataLoss` names the entry that can't be read.
    async fn ledger_minutes_of(
        &self,
        table: &str,
        partition: &StreamPartition,
        range: OffsetRange,
    ) -> Result<MinuteCounts>;

    /// What keys of rows are hashed with, for as long as there are segments: `new`, unless there is one already.
    async fn keys_secret(&self, new: [u8; 16]) -> Result<[u8; 16]>;

    /// Segments that were replaced or dropped and not forgotten yet, without those that are kept.
    async fn removed_segments(&self) -> Result<Vec<RemovedSegment>>;
    /// Forgets removed segments, before their files are deleted. Ones that are in use or kept are left alone.
    async fn forget_segments(&self, table: &str, contents: &[SegmentContent]) -> Result<()>;
}
