//! Tables whose rows have a key: which row of a key counts (upsert), and which rows are left out (dedup).
//!
//! Of the rows of a key that of the highest [rank](entry::Entry::rank) counts: of the greatest comparison value, and among equal
//! ones the last of the stream. As ranks do not depend on when rows were read, a segment's rows can be looked at again, and
//! segments in any order: what comes out is the same.
//!
//! ```text
//! rows of consuming segments -> TableKeys: key -> Entry, in memory          superseded documents, each with the version at
//! rows of committed segments -> StoredKeys: key -> Entry, on disk    ->     which it ceased to count: SegmentDocs
//! ```
//!
//! Each batch of rows makes a new *version* of the table: its rows and the documents that they supersede are seen together, by
//! queries that pin this version or a later one. So a query sees each key once, whatever comes in meanwhile.
//!
//! What is on disk is made from segments alone, and follows the metastore: a segment's rows go there after it was committed, in
//! one piece. Where it is behind after a crash, the missing segments' rows are added; where it is lost, all segments' are.
//! Pushed segments, whose rows rank above those of the stream that have the same comparison value, come and go in one step, which
//! makes a version as well: then rows may count again that pushed ones had superseded.
//!
//! A row that a statement deletes goes on to rank: the segment that takes the place of its segment remembers the key, and on disk
//! the entry names a place in that segment where there is no row. So rows that rank below do not count, whenever they come.
//!
//! Rows keep their places when a consuming segment becomes an immutable one, so nothing changes then. When rows of committed
//! segments go into another one, places of the old segments stand for those of the new one until what is on disk names these.

mod docs;
mod entry;
mod merge;
mod moves;
mod rows;
mod store;
mod table;

pub use docs::SegmentDocs;
pub use moves::Kept;
pub use store::KeyStore;
pub use table::{Appended, CommittedSegment, KeysPin, PlaceReader, PushedSegment, TableKeys};

#[cfg(test)]
mod tests;
