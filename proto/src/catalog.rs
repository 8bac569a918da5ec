//! The catalog snapshot: everything a broker plans and binds from, at one version.
//!
//! Published by the controller as a whole and swapped atomically; never changed in place.

use crate::coverage::{Coverage, Interval};
use crate::ids::{CatalogVersion, Half, OffsetRange, SegmentName, StreamPartition};
use crate::lineage::Lineage;
use crate::schema::Schema;
use crate::text::TextSettings;
use crate::value::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// All tables at one version.
#[derive(Clone, Debug, Default)]
pub struct CatalogSnapshot {
    /// The version; grows with every change.
    pub version: CatalogVersion,
    /// Tables by their name without `_OFFLINE` or `_REALTIME`.
    pub tables: BTreeMap<String, Arc<TableSnapshot>>,
}

/// One table at one version.
#[derive(Clone, Debug)]
pub struct TableSnapshot {
    /// The name without `_OFFLINE` or `_REALTIME`.
    pub name: Arc<str>,
    /// The schema.
    pub schema: Arc<Schema>,
    /// Under which names segments of earlier versions of it store its columns.
    pub lineage: Arc<Lineage>,
    /// The time column; both halves need one for the table to be hybrid.
    pub time_column: Option<String>,
    /// Whether the offline half exists.
    pub has_offline: bool,
    /// Whether the realtime half exists.
    pub has_realtime: bool,
    /// Committed segments of both halves.
    pub segments: Vec<Arc<SegmentInfo>>,
    /// Stream partitions with the first offset that no committed segment holds.
    pub tails: Vec<TailStart>,
    /// Times at which offline rows count, with the pin applied. Only used when both halves exist.
    pub coverage: Coverage,
    /// Those of them at which realtime rows count, too: the database took over what had come by then, and realtime holds
    /// what came later.
    pub shared: Coverage,
    /// Times that neither half is known to hold completely.
    pub gaps: Vec<Interval>,
    /// Whether an operator holds the boundary.
    pub pinned: bool,
    /// How columns are searched for words, where a table config says so.
    pub text: BTreeMap<String, TextSettings>,
    /// Where of the rows of a key only one counts: the offline segments, whose rows are among the keys.
    pub pushed: Option<PushedNames>,
}

impl TableSnapshot {
    /// Whether one query on the table's name reads both halves.
    pub fn is_hybrid(&self) -> bool {
        self.has_offline && self.has_realtime
    }

    /// Whether coverage says which half's rows count at which times. Where rows have keys, these say it.
    pub fn has_boundary(&self) -> bool {
        self.is_hybrid() && self.pushed.is_none()
    }
}

/// Names a set of pushed segments by their names, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushedNames(u64, u64);

impl PushedNames {
    /// Of segments with these names.
    pub fn of<'a>(names: impl Iterator<Item = &'a SegmentName>) -> Self {
        names.fold(Self::default(), |Self(count, sum), name| {
            let mut hasher = DefaultHasher::new();
            name.as_str().hash(&mut hasher);
            Self(count + 1, sum.wrapping_add(hasher.finish()))
        })
    }
}

/// A partition's first offset that is not in a committed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailStart {
    /// The partition.
    pub partition: StreamPartition,
    /// The offset.
    pub from_offset: u64,
}

/// What is known of a committed segment without opening it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// The name.
    pub name: SegmentName,
    /// Over the whole file; names the content.
    pub checksum: u64,
    /// The half it belongs to.
    pub half: Half,
    /// Documents.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The schema version it was built with.
    pub schema_version: u32,
    /// The smallest and largest time in milliseconds; none without a time column or without a non-null time.
    pub time_ms: Option<(i64, i64)>,
    /// Per stored column, in schema order.
    pub columns: Vec<ColumnStats>,
    /// Where its rows came from, for a realtime segment.
    pub origin: Option<(StreamPartition, OffsetRange)>,
    /// What names the storage and the indexes it was built with; none: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_as: Option<String>,
    /// Whether an offline segment holds rows that the database itself took over from the stream: they stand for what was
    /// read up to some offsets, not for all there is of their times.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
    /// The version of the catalog after which an offline segment, or what it was made of, was pushed; 0 where that is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pushed_in: u64,
    /// Whether an offline segment holds rows that were made again of the archive: they are all there is of the times that they
    /// took the place of, and tell nothing of other times.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rebuilt: bool,
}

fn is_zero(version: &u64) -> bool {
    *version == 0
}

impl SegmentInfo {
    /// Whether a boundary that is inferred goes by its largest time: whether a push brought it.
    pub fn moves_boundary(&self) -> bool {
        self.half == Half::Offline && !self.moved && !self.rebuilt
    }

    /// Whether, by its smallest and largest time, it may hold rows of an interval.
    pub fn reaches(&self, interval: Interval) -> bool {
        let within = |(min, max)| min < interval.end_ms && interval.start_ms <= max;
        self.time_ms.is_some_and(within)
    }
}

/// What is known of one column of a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnStats {
    /// The column.
    pub name: String,
    /// The smallest non-null value or element; `Null` when there is none. Text and bytes longer than
    /// 64 bytes are cut (a prefix is never larger than the value).
    pub min: Value,
    /// The largest, likewise; cut text is rounded up, or `Null` when it can't be.
    pub max: Value,
    /// Distinct non-null values, when known.
    pub cardinality: Option<u64>,
    /// Rows whose value is null.
    pub nulls: u64,
}
