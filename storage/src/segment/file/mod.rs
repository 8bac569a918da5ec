//! The segment file: sections of bytes behind checksums, written once and then only mapped.
//!
//! All integers are little-endian. Format version 1:
//!
//! ```text
//! 0        header, 64 bytes
//!            0   8  magic "STRNDSEG"
//!            8   4  format version
//!           12   4  version of the schema that the segment was built with
//!           16  44  zero
//!           60   4  CRC32C of bytes 0..60
//! 64       sections, each at a multiple of 64, zeros between them
//! d        directory, at a multiple of 64: one entry of 32 bytes a section, in the order of the file
//!            0   8  offset of the section in the file
//!            8   8  length in bytes
//!           16   4  column: its number in the segment's schema, 0xffff_ffff: the whole segment,
//!                   0xffff_fffe: the stream offsets, one a document,
//!                   0x4000_0000 + i: column i of timestamp indexes, by the order of the metadata,
//!                   0x8000_0000 + t * 0x1_0000 + i: column i of star-tree t, 0xffff for i: its nodes
//!           20   2  kind, see below
//!           22   2  zero
//!           24   4  CRC32C of the section
//!           28   4  zero
//! end-32   footer, 32 bytes
//!            0   8  offset of the directory (d)
//!            8   4  length of the directory in bytes
//!           12   4  CRC32C of the directory
//!           16   4  zero
//!           20   4  CRC32C of bytes 0..20
//!           24   8  magic "STRNDEND"
//! ```
//!
//! Kinds of the whole segment: 1 metadata (JSON, `segment/metadata.rs`), 2 deleted keys (`segment/deleted.rs`). Kinds of a column, that of the
//! offsets and of star-trees included: `strandline_index::column::SectionKind`, from 1; that of nodes: 1. A reader passes over kinds it does
//! not know, so that indexes can be added without a new version.
//!
//! *Invariant*: every byte of the file is covered by a checksum or known to be zero, so that no
//! change of a single byte goes unnoticed at [`SegmentFile::open`]. The place of magic, version and header
//! checksum never changes, so that every later version can say that it is one.

mod mapping;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use reader::{SegmentFile, damage};
pub(crate) use writer::SegmentFileWriter;
pub use writer::TEMPORARY_SUFFIX;

/// The newest format version that this build reads, and the one that it writes.
pub const FORMAT_VERSION: u32 = 2;

const HEADER_MAGIC: [u8; 8] = *b"STRNDSEG";
const FOOTER_MAGIC: [u8; 8] = *b"STRNDEND";
const HEADER_BYTES: usize = 64;
const FOOTER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 32;
const ALIGNMENT: usize = 64;

/// The column of sections that belong to the whole segment.
pub(crate) const WHOLE_SEGMENT: u32 = u32::MAX;
/// The column of the stream offsets.
pub(crate) const OFFSETS_COLUMN: u32 = u32::MAX - 1;
/// The first of the columns of timestamp indexes.
pub(crate) const TRUNCATED_COLUMNS: u32 = 1 << 30;
/// The kind of the metadata section.
pub(crate) const METADATA_KIND: u16 = 1;
/// The kind of the section of deleted keys.
pub(crate) const DELETED_KEYS_KIND: u16 = 2;

/// What a section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SectionId {
    pub(crate) column: u32,
    pub(crate) kind: u16,
}

/// Identifies a file's content: FNV-1a of its header and directory, which hold the checksum and length of everything else.
fn content_checksum(header: &[u8], directory: &[u8]) -> u64 {
    header
        .iter()
        .chain(directory)
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}
