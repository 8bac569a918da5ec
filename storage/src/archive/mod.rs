//! The archive: raw messages of streams, kept beside the segments that were made of them.
//!
//! While a consuming segment takes messages, they are written to a [`Spool`] as they were read: also those that were filtered out
//! or became dead letters. Before the metastore commits their offsets the spool is stored, durable, as an *object* of the deep
//! store, so that whatever offset is committed is in the archive:
//!
//! ```text
//! deep/.archive/<table>/<stream>/<topic>/<partition>/<start>-<end>-<crc32c>.raw
//! ```
//!
//! No table's name begins with a dot, and no such file's name is that of a segment, so nothing that goes through segments
//! finds them. Objects never change. Those of one partition may overlap: a process that ends between the two steps reads the same
//! messages again, and cuts them elsewhere. Readers go by offset and pass over what they have had. The archive outlives its table;
//! only people remove it, and what the config of a table that is there gives up because of its age ([`Archive::remove_older`]).
//!
//! An object (all numbers are little endian):
//!
//! ```text
//! file     magic "SLRAW001" | u32 format version | u32 crc32c of those 12 bytes | block* | footer
//!
//! block    0  u32  magic "SLRB"
//!          4  u32  crc32c of the header's bytes after this field
//!          8  u32  stored bytes of the body
//!         12  u32  crc32c of these
//!         16  u32  messages
//!         20  u32  bytes of the body before compression
//!         24  u64  offset of the first message
//!         32  u64  offset behind the last message
//!         40  body: a zstd frame of messages
//! message  u64 offset | i64 timestamp ms | u32 key bytes (u32::MAX: no key) | u32 payload bytes | u32 headers
//!          | key | payload | header*
//! header   u32 name bytes | u32 value bytes | name | value
//!
//! footer   0  u32  magic "SLRF"
//!          4  u32  crc32c of the bytes after this field
//!          8  u64  first offset, as in the name: offsets of the range without a message held none
//!         16  u64  offset behind the last, as in the name
//!         24  u64  messages
//!         32  u64  blocks
//!         40  i64  smallest timestamp, ms (i64::MAX: none is known)
//!         48  i64  largest timestamp, ms (i64::MIN: none is known)
//!         56  u64  position of the footer
//! ```
//!
//! Times of events are not in it: they are what a config makes of messages, and another config may make others of them.

mod format;
mod object;
mod retention;
mod spool;
#[cfg(test)]
mod tests;

pub use object::ObjectReader;
pub use spool::Spool;

use crate::deep_store::DeepStore;
use object_store::path::Path as ObjectPath;
use siphasher::sip::SipHasher13;
use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::Arc;
use strandline_proto::Result;
use strandline_proto::ids::{OffsetRange, StreamPartition};

/// The folder of the deep store that holds it.
pub const FOLDER: &str = ".archive";
/// What the names of its objects end with; those of what is still being written do not.
pub const ENDING: &str = ".raw";
/// Bytes of one part of a path, from which on it is cut.
const PART_BYTES_MAX: usize = 200;

/// One stored object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchiveObject {
    /// All messages at these offsets are in it.
    pub range: (u64, u64),
    /// Its place in the deep store.
    pub(crate) path: ObjectPath,
    /// Its length.
    pub(crate) bytes: u64,
}

impl ArchiveObject {
    /// The offsets whose messages it holds.
    pub fn offsets(&self) -> OffsetRange {
        let (start, end) = self.range;
        OffsetRange { start, end }
    }

    /// Whether `offset` is one of them.
    pub fn covers(&self, offset: u64) -> bool {
        self.range.0 <= offset && offset < self.range.1
    }

    fn parse(path: ObjectPath, bytes: u64) -> Option<Self> {
        let mut parts = path.filename()?.strip_suffix(ENDING)?.split('-');
        let (start, end) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let crc = parts.next()?;
        let is_name = parts.next().is_none() && crc.len() == 8 && start < end;
        is_name.then_some(Self {
            range: (start, end),
            path,
            bytes,
        })
    }
}

/// The archive of a table's stream.
#[derive(Clone)]
pub struct Archive {
    deep_store: Arc<DeepStore>,
    parts: [String; 4],
}

impl Archive {
    /// Of `table`'s messages of the topic of a stream.
    pub fn new(deep_store: Arc<DeepStore>, table: &str, stream: &str, topic: &str) -> Self {
        Self {
            deep_store,
            parts: [FOLDER.to_owned(), part(table), part(stream), part(topic)],
        }
    }

    /// Of `table`'s messages of a partition's topic.
    pub fn of_partition(
        deep_store: &Arc<DeepStore>,
        table: &str,
        partition: &StreamPartition,
    ) -> Self {
        let StreamPartition { stream, topic, .. } = partition;
        Self::new(Arc::clone(deep_store), table, stream, topic)
    }

    fn folder(&self, partition: u32) -> ObjectPath {
        let parts = self.parts.iter().cloned();
        parts.chain([partition.to_string()]).collect()
    }

    /// A partition's objects, by their first offset.
    ///
    /// # Errors
    /// While the deep store can't be read.
    pub async fn objects(&self, partition: u32) -> Result<Vec<ArchiveObject>> {
        let found = self
            .deep_store
            .list_objects(&self.folder(partition))
            .await?
            .into_iter();
        let mut objects: Vec<_> = found
            .filter_map(|(path, bytes)| ArchiveObject::parse(path, bytes))
            .collect();
        objects.sort_unstable();
        Ok(objects)
    }

    /// Begins to read an object at its first message at or after `from`.
    ///
    /// # Errors
    /// `DataLoss`, with the file, when it is damaged.
    pub async fn open(&self, object: &ArchiveObject, from: u64) -> Result<ObjectReader> {
        ObjectReader::open(Arc::clone(&self.deep_store), object.clone(), from).await
    }
}

/// Which of `objects` holds `offset`, and reaches farthest.
pub fn covering(objects: &[ArchiveObject], offset: u64) -> Option<&ArchiveObject> {
    let covering = objects.iter().filter(|o| o.covers(offset));
    covering.max_by_key(|o| o.range.1)
}

/// Where the first of `objects` begins that begins behind `offset`.
pub fn next_start(objects: &[ArchiveObject], offset: u64) -> Option<u64> {
    let starts = objects.iter().map(|object| object.range.0);
    starts.filter(|start| *start > offset).min()
}

/// The offsets of `wanted` that no object holds, in order.
pub fn missing(objects: &[ArchiveObject], wanted: OffsetRange) -> Vec<OffsetRange> {
    let mut missing = Vec::new();
    let mut next = wanted.start;
    let mut by_start: Vec<_> = objects.iter().map(ArchiveObject::offsets).collect();
    by_start.sort_unstable_by_key(|range| range.start);
    for OffsetRange { start, end } in by_start {
        if start >= wanted.end {
            break;
        }
        if start > next {
            missing.push(OffsetRange {
                start: next,
                end: start,
            });
        }
        next = next.max(end);
    }
    if next < wanted.end {
        missing.push(OffsetRange {
            start: next,
            end: wanted.end,
        });
    }
    missing
}

/// A name as one part of a path: what is not a letter, digit, `.`, `_` or `-` becomes `=XX`; of a very long one the end becomes
/// its hash.
fn part(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    for (place, byte) in name.bytes().enumerate() {
        match byte {
            b'.' if place == 0 => part.push_str("=2E"),
            b'.' | b'_' | b'-' => part.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => part.push(char::from(byte)),
            _ => {
                // Writing to a text does not fail.
                let _ = write!(part, "={byte:02X}");
            }
        }
    }
    if part.is_empty() {
        part.push('=');
    }
    if part.len() > PART_BYTES_MAX {
        let mut hasher = SipHasher13::new();
        hasher.write(name.as_bytes());
        part.truncate(PART_BYTES_MAX - 17);
        let _ = write!(part, "={:016x}", hasher.finish());
    }
    part
}
