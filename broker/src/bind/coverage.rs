//! Coverage as a leaf sees it: in the time column's own domain.

use strandline_proto::catalog::{SegmentInfo, TableSnapshot};
use strandline_proto::ids::Half;
use strandline_proto::leaf::CoverageFilter;
use strandline_proto::schema::ColumnRole;
use strandline_proto::{Error, Result};

/// The coverage of a hybrid table as a predicate on its time column.
pub(super) fn filter_of(table: &TableSnapshot) -> Result<CoverageFilter> {
    let column = table
        .time_column
        .as_deref()
        .and_then(|name| table.schema.column(name))
        .ok_or_else(|| Error::precondition(format!("the table {} has two halves and no time column to tell them apart; query {0}_OFFLINE or {0}_REALTIME", table.name)))?;
    let ColumnRole::DateTime { format, .. } = &column.role else {
        return Err(Error::precondition(format!(
            "the time column {} of {} is not a date-time column; query {1}_OFFLINE or {1}_REALTIME",
            column.name, table.name
        )));
    };
    let intervals = table
        .coverage
        .intervals()
        .iter()
        .map(|i| {
            (
                format.first_at_or_after(i.start_ms, column.data_type),
                format.first_at_or_after(i.end_ms, column.data_type),
            )
        })
        .collect::<Vec<_>>();
    if intervals
        .iter()
        .any(|(start, end)| start.is_null() || end.is_null())
    {
        return Err(Error::internal(format!(
            "the coverage of {} can't be written in its time column {}",
            table.name, column.name
        )));
    }
    Ok(CoverageFilter {
        column: column.name.clone(),
        intervals,
    })
}

/// Whether coverage hides every row of a segment of a hybrid table.
pub(super) fn hides(table: &TableSnapshot, segment: &SegmentInfo) -> bool {
    match (segment.half, segment.time_ms) {
        (Half::Offline, None) => true,
        (Half::Offline, Some((min, max))) => !table.coverage.overlaps_range(min, max),
        (Half::Realtime, None) => false,
        (Half::Realtime, Some((min, max))) => {
            let times_are_known = segment
                .columns
                .iter()
                .find(|c| Some(c.name.as_str()) == table.time_column.as_deref())
                .is_some_and(|c| c.nulls == 0);
            times_are_known && table.coverage.contains_range(min, max)
        }
    }
}
