//! The JSON index: which records of a column's documents hold a value at a path.
//!
//! Elements of each array have numbers of their own: all that stand at one path through arrays make a *level*, whose
//! records are numbered in the order of documents. The documents themselves are level 0. Each record of another
//! level names the record of its parent level that holds it. A value belongs to the innermost array around it, so it is
//! held once however many elements other arrays have, and conditions on one element are an intersection within a level.
//!
//! ```text
//! | format u8 = 1, 0 u8, 0 u16 | documents u32 | paths u32 | levels u32 |
//! | bytes of: coverage u64, path dictionary u64, key dictionary u64, inverted index u64 |
//! | coverage | path dictionary | key dictionary | inverted index |
//! | of each path, the level that values there belong to u32 |
//! | of each level but the first: parent level u32, records u32, bytes u64, parent records (a frame) |
//! ```
//!
//! A key is `| path u32, big-endian | kind u8 | value |`, so that the values at a path stand together, in order.
//! The [inverted index](crate::inverted) gives each key's records. What paths are, and the coverage, is up to
//! whoever writes them.
//!
//! ```
//! use strandline_index::json::{DOCUMENTS, JsonIndex, JsonIndexWriter, Kind};
//!
//! // {"tags": ["x", "y"]}
//! let mut writer = JsonIndexWriter::new()?;
//! let (tags, level) = writer.level(b".tags[]", DOCUMENTS)?;
//! for tag in ["x", "y"] {
//!     writer.element(level, 0)?;
//!     writer.add(level, tags, Kind::Value, tag.as_bytes())?;
//!     writer.end_element(level);
//! }
//! writer.end_document()?;
//! let index = JsonIndex::open(writer.finish(b"")?.into(), 1)?;
//! let path = index.path(b".tags[]").expect("it was written");
//! let mut found = index.none(index.level_of(path));
//! index.mark(index.key(path, Kind::Value, b"y").expect("it was written"), &mut found)?;
//! assert_eq!(found.iter().collect::<Vec<_>>(), [1]);
//! # Ok::<(), strandline_index::IndexError>(())
//! ```

mod read;
mod records;
mod write;

use crate::dictionary::ImmutableDictionary;
use crate::frame::Frame;
use crate::inverted::InvertedIndex;
use bytes::Bytes;

pub use records::RecordSet;
pub use write::JsonIndexWriter;

const FORMAT: u8 = 1;
const HEADER: usize = 16 + 4 * 8;
/// Bytes of a key before its value.
const KEY_HEADER: usize = 5;

/// A path's number within an index.
pub type PathId = u32;
/// A level's number within an index.
pub type LevelId = u32;
/// A record's number within its level.
pub type RecordId = u32;

/// The level of the documents.
pub const DOCUMENTS: LevelId = 0;
/// The path of the root.
const ROOT: &[u8] = b"";

/// What a key says of the records that have it. The numbers are part of the file format and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// At the root: documents that hold anything.
    Content = 1,
    /// At the root: texts that are no documents.
    Invalid = 2,
    /// A scalar is there.
    Present = 3,
    /// At the path of an array's elements: the element's place in its array, as decimal digits.
    Place = 4,
    /// A scalar is there whose text is too long to be held.
    Long = 5,
    /// The scalar's text.
    Value = 6,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Content,
        Self::Invalid,
        Self::Present,
        Self::Place,
        Self::Long,
        Self::Value,
    ];
}

/// An index over stored bytes.
#[derive(Clone, Debug)]
pub struct JsonIndex {
    docs: u32,
    coverage: Bytes,
    paths: ImmutableDictionary,
    /// By path.
    path_levels: Vec<LevelId>,
    keys: ImmutableDictionary,
    postings: InvertedIndex,
    /// From level 1 on.
    levels: Vec<Level>,
}

#[derive(Clone, Debug)]
struct Level {
    parent: LevelId,
    /// The parent's record of each.
    parents: Frame,
}

#[cfg(test)]
mod tests;
