//! Encodings, indexes and kernels: pure data structures over bytes.
//!
//! Nothing here knows of tables, files, Arrow or async. A column, whether it stands in an immutable
//! segment's mapped bytes or grows in a consuming one, is read through one contract, [`ColumnReader`];
//! filters meet in [`DocBits`], one bit per document of a chunk of 65,536.
//!
//! - [`column`]: immutable columns: [`column::write_column`], [`column::rewrite_column`],
//!   [`column::ImmutableColumn`];
//! - [`mutable`]: consuming columns: [`mutable::MutableColumn`];
//! - [`json`]: values in documents, by path;
//! - [`star_tree`]: rows aggregated ahead, and the tree that finds them;
//! - [`text`]: documents by the words of their texts;
//! - [`kernels`]: blocks of ids and values against ranges and sets, into bits;
//! - [`conformance`]: what every reader must answer, held against rows.
//!
//! *Invariant*: all `unsafe` of the project but the memory map, a thread's priority and one call of the allocator lives in
//! this crate.

pub mod bitpack;
pub mod bloom;
pub mod column;
pub mod conformance;
pub mod dictionary;
pub mod doc_bits;
mod doc_set;
pub mod fixed;
mod forward;
mod frame;
pub mod fst;
mod hash;
pub mod inverted;
pub mod json;
pub mod kernels;
pub mod mutable;
mod portable;
pub mod range;
pub mod reader;
mod sorted;
pub mod star_tree;
pub mod text;
mod text_blocks;
mod uuids;
mod widest;
mod wire;

pub use doc_bits::{CHUNK_DOCS, DocBits, append_ones};
pub use doc_set::DocSet;
pub use reader::{
    ColumnReader, DictId, Dictionary, DistinctValues, DocId, DocSelection, Index, IndexError,
    PhysicalType, Postings, Scalar, ValueBuffer, null_docs,
};
