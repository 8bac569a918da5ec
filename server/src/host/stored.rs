//! From the deep store to an open segment.

use std::sync::Arc;
use strandline_proto::ids::SegmentName;
use strandline_proto::{Error, Result};
use strandline_storage::deep_store::DeepStore;
use strandline_storage::environment::{Environment, blocking};
use strandline_storage::segment::immutable::ImmutableSegment;

/// Opens a stored segment where it lies, after all its checks.
///
/// # Errors
/// `NotFound` without its file, `DataLoss` when the file is not what was committed.
pub async fn open_stored(
    deep_store: &DeepStore,
    environment: &Environment,
    table: &str,
    name: &SegmentName,
    checksum: u64,
) -> Result<Arc<ImmutableSegment>> {
    let path = deep_store.local_path(table, name, checksum).await?.ok_or_else(|| {
        Error::not_found(format!(
            "segment {name} of table {table} is not in the deep store: restore its file from a copy, or drop the table and load it again"
        ))
    })?;
    let segment = blocking(&environment.spawner, "open segment", move || {
        ImmutableSegment::open(&path)
    })
    .await?;
    if segment.info().checksum == checksum {
        Ok(segment)
    } else {
        Err(Error::data_loss(format!(
            "segment {name} of table {table} is not the one that was committed: restore its file from a copy of the deep store"
        )))
    }
}
