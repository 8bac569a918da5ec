//! What is kept: schemas and table configs, segments, streams, the deep store and the metastore.
//!
//! Rows arrive as Arrow record batches in the table's Arrow schema (`Schema::arrow`), whether they
//! were decoded from files or from stream messages, and leave as segments. No part of this crate
//! knows SQL.

pub mod archive;
pub mod backup;
pub mod config;
pub mod convert;
pub mod decode;
pub mod deep_store;
pub mod environment;
pub mod input;
pub mod keys;
pub mod meta;
pub mod segment;
pub mod stream;
pub mod transform;
