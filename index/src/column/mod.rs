//! An immutable column: written once from values in document order, read over mapped bytes.
//!
//! A column is a handful of byte sections ([`SectionKind`]); whoever stores them (the segment file) gives them
//! back as slices of one owner, and [`ImmutableColumn`] reads them where they lie. Opening checks everything that
//! reading relies on, so damaged bytes give an [`IndexError`], never a panic.
//!
//! ```
//! use strandline_index::column::{ColumnData, ColumnOptions, ImmutableColumn, write_column};
//! use strandline_index::{ColumnReader, DocSelection, ValueBuffer};
//!
//! let values = ValueBuffer::I64(vec![7, 3, 7]);
//! let written = write_column(&ColumnData::single(&values), &ColumnOptions::default())?;
//! let sections = written.sections.into_iter().map(|(kind, bytes)| (kind.code(), bytes.into()));
//! let column = ImmutableColumn::open(sections)?;
//! let mut ids = Vec::new();
//! column.dict_ids(DocSelection::Range(0..3), &mut ids);
//! assert_eq!(ids, [1, 0, 1]);
//! # Ok::<(), strandline_index::IndexError>(())
//! ```

mod open;
mod order;
mod read;
mod rewrite;
mod section;
mod write;

use crate::bloom::BloomFilter;
use crate::dictionary::ImmutableDictionary;
use crate::forward::Forward;
use crate::frame::Frame;
use crate::fst::FstIndex;
use crate::inverted::InvertedIndex;
use crate::json::JsonIndex;
use crate::range::RangeIndex;
use crate::reader::IndexError;
use crate::sorted::SortedIds;
use bytes::Bytes;
use section::Description;
use std::sync::OnceLock;

pub use crate::text_blocks::Compression;
pub use order::distinct;
pub use rewrite::{
    Gathered, gather_column, gathered_ids, rewrite_column, sorted_order, write_lists,
};
pub use section::SectionKind;
pub use write::{ColumnData, ColumnOptions, ColumnStats, WrittenColumn, write_column};

/// A column over stored bytes; implements [`crate::ColumnReader`].
#[derive(Debug)]
pub struct ImmutableColumn {
    description: Description,
    dictionary: Option<ImmutableDictionary>,
    forward: Forward,
    list_ends: Option<Frame>,
    null_docs: Option<Bytes>,
    null_elements: Option<Bytes>,
    inverted: Option<InvertedIndex>,
    /// The postings of a sorted column whose forward index is packed ids.
    sorted_ids: Option<SortedIds>,
    range: Option<RangeIndex>,
    range_dictionary: Option<ImmutableDictionary>,
    bloom: Option<BloomFilter>,
    fst: Option<FstIndex>,
    json: Option<JsonIndex>,
    fault: OnceLock<IndexError>,
}

#[cfg(test)]
mod corruption_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
