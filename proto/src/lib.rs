//! The words that Strandline's parts say to each other: ids, schemas, values, the leaf query, the
//! catalog snapshot, the services' messages, and errors with the one mapping to status codes.
//!
//! Depends on no other part. Everything that both a broker and a server must compute in the same
//! way (time formats, partition hashes, coverage) lives here too.

pub mod catalog;
pub mod coverage;
pub mod error;
pub mod granularity;
pub mod ids;
pub mod json;
pub mod leaf;
pub mod lineage;
pub mod partition;
pub mod schema;
pub mod stats;
pub mod text;
pub mod time_format;
pub mod value;

/// Messages and services of `strandline.v1`, generated from `proto/strandline/v1/*.proto`.
pub mod v1 {
    #![expect(missing_docs, reason = "documented in the .proto files")]
    #![allow(clippy::all, clippy::allow_attributes, reason = "generated code")]
    tonic::include_proto!("strandline.v1");

    /// The services' descriptors, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/strandline.bin"));
}

pub use error::{Error, ErrorKind, Result};
