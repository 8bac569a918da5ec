//! Into the deep store, and from it to an open segment.

use super::registry::{Held, HostedTable};
use std::sync::Arc;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::SegmentName;
use strandline_proto::{Error, Result};
use strandline_storage::deep_store::{DeepStore, Finished};
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
    .await
    .map_err(|e| e.at(format_args!("segment {name} of table {table}")))?;
    if segment.info().checksum == checksum {
        Ok(segment)
    } else {
        Err(Error::data_loss(format!(
            "segment {name} of table {table} is not the one that was committed: restore its file from a copy of the deep store"
        )))
    }
}

/// Puts a finished segment file into the deep store, opens it from there, and holds it in `hosted`, so that a
/// snapshot may name it.
///
/// # Errors
/// When the file can't be stored, or comes back other than it was; the segment is then not held.
pub async fn store_and_hold(
    deep_store: &DeepStore,
    environment: &Environment,
    (table, hosted): (&str, &HostedTable),
    info: &SegmentInfo,
    file: Finished<'_>,
) -> Result<()> {
    let (name, checksum) = (&info.name, info.checksum);
    deep_store.put(table, name, checksum, file).await?;
    let opened = open_stored(deep_store, environment, table, name, checksum).await?;
    hosted.hold(name.clone(), checksum, Held::Open(opened));
    Ok(())
}
