//! Statements that are not queries: SHOW TABLES, DESCRIBE, and those that change tables.

use crate::names::nearest;
use crate::server_side::AdminStatements;
use crate::statement::AdminStatement;
use crate::tables::{NamedTable, Tables};
use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, UInt64Array};
use datafusion::arrow::record_batch::RecordBatch;
use std::sync::Arc;
use strandline_proto::schema::ColumnRole;
use strandline_proto::v1::BoundaryDescription;
use strandline_proto::{Error, ErrorKind, Result};

fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .map_err(|e| Error::internal(e.to_string()))
}

fn texts(values: impl IntoIterator<Item = impl AsRef<str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// SHOW TABLES.
pub(crate) fn show_tables(tables: &Tables) -> Result<RecordBatch> {
    let leaf = tables.snapshot.tables.values().map(|t| {
        let kind = match (t.has_offline, t.has_realtime) {
            (true, true) => "HYBRID",
            (true, false) => "OFFLINE",
            (false, true) => "REALTIME",
            (false, false) => "EMPTY",
        };
        (t.name.to_string(), kind)
    });
    let system = tables
        .system
        .iter()
        .map(|(name, _)| (format!("{}.{name}", crate::tables::SYSTEM_SCHEMA), "SYSTEM"));
    let (names, kinds): (Vec<_>, Vec<_>) = leaf.chain(system).unzip();
    batch([("table", texts(names)), ("type", texts(kinds))])
}

/// DESCRIBE.
pub(crate) fn describe(name: &str, tables: &Tables) -> Result<RecordBatch> {
    match find(name, tables)?.1 {
        NamedTable::Leaf { table, .. } => {
            let columns = &table.schema.columns;
            let types = columns.iter().map(|c| {
                format!(
                    "{}{}",
                    c.data_type.pinot_name(),
                    if c.multi_value { "_ARRAY" } else { "" }
                )
            });
            let roles = columns.iter().map(|c| match &c.role {
                ColumnRole::Dimension => "DIMENSION",
                ColumnRole::Metric => "METRIC",
                ColumnRole::DateTime { .. } => "DATE_TIME",
            });
            let is_time = columns
                .iter()
                .map(|c| Some(table.time_column.as_deref() == Some(c.name.as_str())));
            batch([
                ("column", texts(columns.iter().map(|c| &c.name))),
                ("type", texts(types)),
                ("role", texts(roles)),
                ("timeColumn", Arc::new(BooleanArray::from_iter(is_time))),
            ])
        }
        NamedTable::System { schema, .. } => batch([
            ("column", texts(schema.fields().iter().map(|f| f.name()))),
            (
                "type",
                texts(schema.fields().iter().map(|f| f.data_type().to_string())),
            ),
            ("role", texts(schema.fields().iter().map(|_| "DIMENSION"))),
            (
                "timeColumn",
                Arc::new(BooleanArray::from(vec![false; schema.fields().len()])),
            ),
        ]),
    }
}

/// The table a statement names, exactly or else uniquely without regard to case.
fn find(name: &str, tables: &Tables) -> Result<(String, NamedTable)> {
    let names = tables.names();
    let spelled: Vec<_> = names
        .iter()
        .map(|(schema, name)| schema.map_or_else(|| name.clone(), |s| format!("{s}.{name}")))
        .collect();
    let mut same: Vec<_> = spelled
        .iter()
        .enumerate()
        .filter(|(_, s)| *s == name)
        .collect();
    if same.is_empty() {
        same = spelled
            .iter()
            .enumerate()
            .filter(|(_, s)| s.eq_ignore_ascii_case(name))
            .collect();
    }
    match same.as_slice() {
        [(at, spelled)] => {
            let (schema, name) = &names[*at];
            let table = tables.get(*schema, name).ok_or_else(|| {
                Error::internal(format!("the table {name} is listed and not there"))
            })?;
            Ok(((*spelled).clone(), table))
        }
        [] => Err(Error::not_found(format!(
            "no table {name}{}",
            nearest(name, &spelled)
        ))),
        _ => Err(Error::invalid(format!(
            "the table name {name} could mean several: write it in its own case"
        ))),
    }
}

/// Runs a statement that changes a table.
pub(crate) async fn execute(
    statement: &AdminStatement,
    tables: &Tables,
    admin: &dyn AdminStatements,
) -> Result<RecordBatch> {
    let named = |name: &str| match find(name, tables)? {
        (name, NamedTable::Leaf { .. }) => Ok(name),
        (name, NamedTable::System { .. }) => {
            Err(Error::invalid(format!("{name} can't be changed")))
        }
    };
    match statement {
        AdminStatement::DropTable { table, if_exists } => {
            // A table without segments may not be published yet: the server knows.
            let name = named(table).unwrap_or_else(|_| table.clone());
            let dropped = match admin.drop_table(&name).await {
                Err(error) if *if_exists && error.kind() == ErrorKind::NotFound => 0,
                other => other?,
            };
            batch([
                ("table", texts([name])),
                (
                    "segmentsDropped",
                    Arc::new(UInt64Array::from(vec![dropped])),
                ),
            ])
        }
        AdminStatement::PinBoundary { table, boundary } => boundary_batch(
            &admin
                .pin_boundary(&named(table)?, parse_time_ms(boundary)?)
                .await?,
        ),
        AdminStatement::ReleaseBoundary { table } => {
            boundary_batch(&admin.release_boundary(&named(table)?).await?)
        }
        AdminStatement::ForceCommit { table } => {
            let name = named(table)?;
            let (segments, rows) = admin.force_commit(&name).await?;
            batch([
                ("table", texts([name])),
                ("segments", count(segments)),
                ("rows", count(rows)),
            ])
        }
        AdminStatement::SetPaused { table, paused } => {
            let name = named(table)?;
            admin.set_paused(&name, *paused).await?;
            let state = if *paused { "PAUSED" } else { "CONSUMING" };
            batch([("table", texts([name])), ("state", texts([state]))])
        }
        AdminStatement::RevertPush { table, push_id } => {
            let name = named(table)?;
            let (gone, back) = admin.revert_push(&name, push_id).await?;
            batch([
                ("table", texts([name])),
                ("rowsRemoved", count(gone)),
                ("rowsRestored", count(back)),
            ])
        }
        AdminStatement::DropOffline { table, from, to } => {
            let name = named(table)?;
            let (from_ms, to_ms) = (parse_time_ms(from)?, parse_time_ms(to)?);
            let rows = admin.drop_offline(&name, from_ms, to_ms).await?;
            batch([("table", texts([name])), ("rowsRemoved", count(rows))])
        }
        AdminStatement::Rebuild { table, from, to } => {
            let name = named(table)?;
            let (from_ms, to_ms) = (parse_time_ms(from)?, parse_time_ms(to)?);
            let rebuilt = admin.rebuild(&name, from_ms, to_ms).await?;
            batch([
                ("table", texts([name])),
                ("pushId", texts([&rebuilt.push_id])),
                ("messagesRead", count(rebuilt.messages_read)),
                ("messagesFailed", count(rebuilt.messages_failed)),
                ("rowsFiltered", count(rebuilt.rows_filtered)),
                ("rowsOutside", count(rebuilt.rows_outside)),
                ("rowsRebuilt", count(rebuilt.rows_rebuilt)),
                ("segments", count(rebuilt.segments)),
            ])
        }
        AdminStatement::ChangeSchema { table, change } => {
            let name = named(table)?;
            let version = admin.change_schema(&name, change.clone()).await?;
            batch([
                ("table", texts([name])),
                ("schemaVersion", count(u64::from(version))),
            ])
        }
        AdminStatement::Delete { table, predicate } => {
            let name = named(table)?;
            let rows = admin.delete_rows(&name, predicate.as_deref()).await?;
            batch([("table", texts([name])), ("rowsDeleted", count(rows))])
        }
    }
}

fn count(n: u64) -> ArrayRef {
    Arc::new(UInt64Array::from(vec![n]))
}

fn boundary_batch(boundary: &BoundaryDescription) -> Result<RecordBatch> {
    let coverage = boundary.coverage.clone().unwrap_or_default();
    batch([
        ("table", texts([coverage.table])),
        ("boundary", texts([&boundary.boundary])),
        (
            "boundaryMs",
            Arc::new(Int64Array::from(vec![boundary.boundary_ms])),
        ),
        (
            "pinned",
            Arc::new(BooleanArray::from(vec![coverage.pinned])),
        ),
        ("visibleOfflineRows", count(boundary.visible_offline_rows)),
        ("visibleRealtimeRows", count(boundary.visible_realtime_rows)),
        ("hiddenOfflineRows", count(boundary.hidden_offline_rows)),
        ("hiddenRealtimeRows", count(boundary.hidden_realtime_rows)),
    ])
}

/// A time as a statement writes it, UTC: `2014-01-22`, `2014-01-22 13:00:00`, RFC 3339, or milliseconds since the epoch.
fn parse_time_ms(text: &str) -> Result<i64> {
    use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
    let text = text.trim();
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(date.and_time(NaiveTime::MIN).and_utc().timestamp_millis());
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.timestamp_millis());
    }
    for format in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"] {
        if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(time.and_utc().timestamp_millis());
        }
    }
    text.parse()
        .map_err(|_| Error::invalid(format!("{text:?} is no time: write '2014-01-22', '2014-01-22 13:00:00', or milliseconds since 1970-01-01T00:00:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_read_in_each_notation() {
        for text in [
            "2014-01-22",
            "2014-01-22 00:00:00",
            "2014-01-22T00:00:00Z",
            "2014-01-22T01:00:00+01:00",
            "1390348800000",
        ] {
            assert_eq!(parse_time_ms(text).unwrap(), 1_390_348_800_000, "{text}");
        }
        assert!(parse_time_ms("yesterday").is_err());
    }
}
