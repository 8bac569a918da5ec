//! What this server holds: immutable segments, stream tails, and the catalog snapshot that names them.
//!
//! The order that keeps every answer exact: a segment is loaded here before the metastore names it, the
//! metastore changes in one transaction, the snapshot is published after it, and what the new snapshot
//! does not name any more is dropped only when no query holds an older one.

pub mod added;
#[cfg(test)]
mod archive_tests;
pub mod backup;
pub mod build;
pub mod catalog;
pub mod change;
pub mod commit;
pub mod consumer;
pub mod data_dir;
pub mod keys;
pub mod load;
pub mod moved_keys;
pub mod opening;
pub mod rate;
pub mod realtime;
pub mod rebuild;
pub mod registry;
pub mod rewrite;
pub mod step;
pub mod stored;
pub mod system;
pub mod tail;
pub mod upkeep;

pub use registry::Registry;
