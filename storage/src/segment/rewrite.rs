//! A segment that is there becomes another one with the same rows: how indexes come to existing segments, and go.

use super::SegmentReader;
use super::growing::check_spec;
use super::immutable::ImmutableSegment;
use super::spec::{SegmentSpec, StarMeasure};
use super::write::{RowsToWrite, SegmentIdentity, write_segment};
use crate::environment::Files;
use std::path::Path;
use std::sync::Arc;
use strandline_index::ColumnReader;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::{Error, Result};

/// Writes the rows of `segment` to `path`, stored as `spec` says. The new segment has the name, the origin and the
/// schema of the old one: what `spec` says of columns that it lacks is left out.
///
/// Needs about the size of the largest column in memory.
///
/// # Errors
/// When reading meets damage or writing fails; nothing is left behind then.
pub fn rewrite_segment(
    segment: &ImmutableSegment,
    spec: &SegmentSpec,
    files: &Arc<dyn Files>,
    path: &Path,
) -> Result<SegmentInfo> {
    let info = segment.info();
    let spec = Arc::new(spec_for(segment, spec));
    check_spec(&spec)?;
    let columns = spec.schema.columns.iter().map(|column| {
        segment.column(&column.name).ok_or_else(|| {
            Error::internal(format!(
                "segment {} lacks its column {}",
                info.name, column.name
            ))
        })
    });
    let rows = RowsToWrite {
        rows: segment.num_docs(),
        columns: columns.collect::<Result<Vec<Arc<dyn ColumnReader>>>>()?,
        offsets: segment.offsets_reader(),
        spec,
        threads: 1,
    };
    let identity = SegmentIdentity {
        name: info.name.clone(),
        half: info.half,
        origin: info.origin.clone(),
        deleted_keys: segment.deleted_keys(),
    };
    write_segment(files, path, identity, rows)
}

/// What of `spec` can be done with the columns that a segment has.
fn spec_for(segment: &ImmutableSegment, spec: &SegmentSpec) -> SegmentSpec {
    let schema = segment.schema();
    let same = |name: &str| {
        let (built, wanted) = (schema.column(name), spec.schema.column(name));
        built.zip(wanted).is_some_and(|(built, wanted)| {
            (built.data_type, built.multi_value) == (wanted.data_type, wanted.multi_value)
        })
    };
    let of_columns = spec.columns.iter().filter(|(name, _)| same(name));
    let trees = spec.star_trees.iter().filter(|tree| {
        let measured = tree.measures.iter().filter_map(StarMeasure::column);
        tree.dimensions
            .iter()
            .map(String::as_str)
            .chain(measured)
            .all(same)
    });
    SegmentSpec {
        schema: Arc::clone(schema),
        columns: of_columns
            .map(|(name, of)| (name.clone(), of.clone()))
            .collect(),
        sorted_column: spec.sorted_column.clone().filter(|name| same(name)),
        time_column: spec.time_column.clone().filter(|name| same(name)),
        star_trees: trees.cloned().collect(),
    }
}

#[cfg(test)]
mod tests;
