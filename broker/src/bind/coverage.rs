//! Coverage as a leaf sees it: in the time column's own domain.

use std::borrow::Cow;
use strandline_proto::catalog::{SegmentInfo, TableSnapshot};
use strandline_proto::coverage::Coverage;
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
    let in_column = |coverage: &Coverage| {
        let ends = coverage.intervals().iter().map(|i| {
            let at = |ms| format.first_at_or_after(ms, column.data_type);
            (at(i.start_ms), at(i.end_ms))
        });
        let intervals: Vec<_> = ends.collect();
        if intervals
            .iter()
            .any(|(start, end)| start.is_null() || end.is_null())
        {
            return Err(Error::internal(format!(
                "the coverage of {} can't be written in its time column {}",
                table.name, column.name
            )));
        }
        Ok(intervals)
    };
    Ok(CoverageFilter {
        column: column.name.clone(),
        offline: in_column(&table.coverage)?,
        hiding: in_column(&hiding(table))?,
    })
}

/// Times at which realtime rows do not count.
fn hiding(table: &TableSnapshot) -> Cow<'_, Coverage> {
    match table.shared.is_empty() {
        true => Cow::Borrowed(&table.coverage),
        false => Cow::Owned(table.coverage.minus(&table.shared)),
    }
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
            times_are_known && hiding(table).contains_range(min, max)
        }
    }
}
