//! The leaf engine: executes one table's [`LeafQuery`](strandline_proto::leaf::LeafQuery) over segments and stream tails.
//!
//! ```text
//! LocalLeaf::run ─ segments from the SegmentHost ─ SegmentView (columns by name; absent and virtual ones included)
//!   per segment, on the ScanPool:  filter::compile ─ coverage cut ─ access path of each predicate
//!   per chunk of 65,536 documents: coverage ─ valid docs ─ filter, into DocBits
//!   per block of 4,096 documents:  rows (Arrow) | top rows | aggregate states over dictionary ids
//! ```
//!
//! *Invariant*: work goes by chunk and block; no virtual call, allocation or string hash happens for each row where a
//! dictionary allows otherwise. A scan holds no lock while it reads, and stops within a block when its query is cancelled.

mod aggregate;
mod column;
mod compare;
mod constant;
mod expression;
mod filter;
mod guard;
mod host;
mod local;
mod pool;
pub(crate) mod query_log;
mod rows;
mod scan;
mod segment;
mod star_tree;
mod values;

#[cfg(test)]
mod tests;

pub use host::SegmentHost;
pub use local::LocalLeaf;
pub use pool::ScanPool;
