//! Segment sets: what is added, taken out, and put in the place of something else.

use super::tables::{self, TableRow, read_segment};
use super::write::Write;
use super::{Connection, sql_error, text, to_json, to_sql, unsigned};
use crate::meta::{
    ChangeReason, ChangeSegments, Outcome, RemovedSegment, ReplaceSegment, STORED_OTHERWISE,
    SegmentContent,
};
use sqlx::Row;
use std::collections::BTreeMap;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::Coverage;
use strandline_proto::ids::{CatalogVersion, Half, StreamPartition};
use strandline_proto::{Error, Result};

/// What became of a segment that was to be added.
pub(super) enum Added {
    New,
    /// The same content is in use under this name, since that version.
    SameLive(CatalogVersion),
    /// The name stands for something else.
    Conflict(String),
}

pub(super) async fn add_segment(
    write: &mut Write<'_>,
    table: &str,
    segment: &SegmentInfo,
    version: CatalogVersion,
) -> Result<Added> {
    let checksum = format!("{:016x}", segment.checksum);
    let inserted = sqlx::query(
        "INSERT INTO segments (table_name, name, half, checksum, info_json, added_in)
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(table)
    .bind(segment.name.as_str())
    .bind(segment.half.as_str())
    .bind(&checksum)
    .bind(to_json(segment, "segment")?)
    .bind(to_sql(version.0, "catalog version")?)
    .execute(write.connection())
    .await
    .map_err(|e| sql_error("write", &e))?;
    if inserted.rows_affected() == 1 {
        write.note_segment(table, segment);
        return Ok(Added::New);
    }
    let row = sqlx::query(
        "SELECT * FROM segments WHERE table_name = $1 AND name = $2 AND (removed_in IS NULL OR checksum = $3)
         ORDER BY removed_in IS NOT NULL",
    )
    .bind(table)
    .bind(segment.name.as_str())
    .bind(&checksum)
    .fetch_one(write.connection())
    .await
    .map_err(|e| sql_error("read", &e))?;
    let removed_in: Option<i64> = row
        .try_get("removed_in")
        .map_err(|e| sql_error("read", &e))?;
    let stored = text(&row, "checksum")?;
    let same = stored == checksum && text(&row, "half")? == segment.half.as_str();
    Ok(match removed_in {
        None if same => Added::SameLive(CatalogVersion(unsigned(&row, "added_in")?)),
        None => Added::Conflict(format!(
            "table {table}: segment {} exists with checksum {stored}, not {checksum}; a name stands for one content, use another name",
            segment.name
        )),
        Some(_) => Added::Conflict(format!(
            "table {table}: segment {} with this content was removed, and its file is not gone yet; try again later, or use another name",
            segment.name
        )),
    })
}

/// The segments of a half that are there, by name.
pub(super) async fn live(
    connection: &mut Connection,
    table: &str,
    half: Half,
) -> Result<Vec<SegmentInfo>> {
    let rows = sqlx::query("SELECT name, info_json FROM segments WHERE table_name = $1 AND half = $2 AND removed_in IS NULL ORDER BY name")
        .bind(table)
        .bind(half.as_str())
        .fetch_all(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    rows.iter().map(read_segment).collect()
}

/// Takes segments out; `kept_by` is the push that keeps them.
pub(super) async fn remove(
    write: &mut Write<'_>,
    table: &str,
    segments: &[SegmentInfo],
    version: CatalogVersion,
    kept_by: Option<&str>,
) -> Result<()> {
    for segment in segments {
        sqlx::query("UPDATE segments SET removed_in = $3, kept_by = $4 WHERE table_name = $1 AND name = $2 AND removed_in IS NULL")
            .bind(table)
            .bind(segment.name.as_str())
            .bind(to_sql(version.0, "catalog version")?)
            .bind(kept_by)
            .execute(write.connection())
            .await
            .map_err(|e| sql_error("write", &e))?;
        write.note_segment_gone(table, &segment.name);
    }
    Ok(())
}

/// Stores what is known of a live segment anew.
async fn store(write: &mut Write<'_>, table: &str, segment: &SegmentInfo) -> Result<()> {
    sqlx::query("UPDATE segments SET checksum = $3, info_json = $4 WHERE table_name = $1 AND name = $2 AND removed_in IS NULL")
        .bind(table)
        .bind(segment.name.as_str())
        .bind(format!("{:016x}", segment.checksum))
        .bind(to_json(segment, "segment")?)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    write.note_segment(table, segment);
    Ok(())
}

/// Notes of segments of a half whose storage is not known that it is another than any config's; gives how many there were.
pub(super) async fn doubt(write: &mut Write<'_>, table: &str, half: Half) -> Result<u64> {
    let mut segments = live(write.connection(), table, half).await?;
    segments.retain(|segment| segment.stored_as.is_none());
    for segment in &mut segments {
        segment.stored_as = Some(STORED_OTHERWISE.to_owned());
        store(write, table, segment).await?;
    }
    Ok(segments.len() as u64)
}

/// Puts a segment in the place of another one of its name.
pub(super) async fn replace(
    write: &mut Write<'_>,
    replace: &ReplaceSegment,
) -> Result<Outcome<CatalogVersion>> {
    let version = write.next_version().await?;
    let mut table = tables::get(write.connection(), &replace.table).await?;
    let new = &replace.segment;
    let row = sqlx::query("SELECT name, info_json FROM segments WHERE table_name = $1 AND name = $2 AND half = $3 AND removed_in IS NULL")
        .bind(&table.name)
        .bind(new.name.as_str())
        .bind(new.half.as_str())
        .fetch_optional(write.connection())
        .await
        .map_err(|e| sql_error("read", &e))?;
    let Some(old) = row.as_ref().map(read_segment).transpose()? else {
        return Err(Error::precondition(format!(
            "table {}: segment {} is gone, so nothing can take its place",
            table.name, new.name
        )));
    };
    if old.checksum == new.checksum && old.stored_as == new.stored_as {
        return Ok(Outcome::AlreadyDone(CatalogVersion(version.0 - 1)));
    }
    if old.checksum != replace.checksum {
        return Err(Error::precondition(format!(
            "table {}: segment {} has the checksum {:016x}, not {:016x}: another one took its place",
            table.name, new.name, old.checksum, replace.checksum
        )));
    }
    if (old.rows, &old.origin) != (new.rows, &new.origin) {
        return Err(Error::precondition(format!(
            "table {}: segment {} has other rows than the one that is to take its place",
            table.name, new.name
        )));
    }
    store(write, &table.name, new).await?;
    table.set_version = version;
    tables::update(write, &table).await?;
    Ok(Outcome::Done(version))
}

/// Takes out all segments of a half, and those that are kept; gives them.
pub(super) async fn remove_all(
    write: &mut Write<'_>,
    table: &str,
    half: Half,
    version: CatalogVersion,
) -> Result<Vec<SegmentInfo>> {
    let mut segments = live(write.connection(), table, half).await?;
    remove(write, table, &segments, version, None).await?;
    if half == Half::Offline {
        let kept = sqlx::query("SELECT name, info_json FROM segments WHERE table_name = $1 AND kept_by IS NOT NULL ORDER BY name")
            .bind(table)
            .fetch_all(write.connection())
            .await
            .map_err(|e| sql_error("read", &e))?;
        for row in &kept {
            segments.push(read_segment(row)?);
        }
        sqlx::query("UPDATE segments SET kept_by = NULL WHERE table_name = $1")
            .bind(table)
            .execute(write.connection())
            .await
            .map_err(|e| sql_error("write", &e))?;
    }
    Ok(segments)
}

/// Takes `contents` out of the segments that are there.
///
/// # Errors
/// `FailedPrecondition` when one of them is not there.
pub(super) fn take(
    table: &str,
    live: &mut Vec<SegmentInfo>,
    contents: &[SegmentContent],
) -> Result<Vec<SegmentInfo>> {
    let mut taken = Vec::with_capacity(contents.len());
    for (name, checksum) in contents {
        let found = live
            .iter()
            .position(|s| s.name == *name && s.checksum == *checksum);
        let Some(at) = found else {
            return Err(Error::precondition(format!(
                "table {table}: segment {name} has changed meanwhile"
            )));
        };
        taken.push(live.swap_remove(at));
    }
    Ok(taken)
}

/// Puts segments in the place of others.
pub(super) async fn change(
    write: &mut Write<'_>,
    change: &ChangeSegments,
    now_ms: i64,
) -> Result<Outcome<CatalogVersion>> {
    let version = write.next_version().await?;
    let mut table = tables::get(write.connection(), &change.table).await?;
    let mut live_segments = Vec::new();
    for half in [Half::Offline, Half::Realtime] {
        live_segments.extend(live(write.connection(), &table.name, half).await?);
    }
    let is_live = |(name, checksum): &SegmentContent| {
        let same = |s: &SegmentInfo| s.name == *name && s.checksum == *checksum;
        live_segments.iter().any(same)
    };
    let added = || change.added.iter().map(|s| (s.name.clone(), s.checksum));
    // Where nothing is added, segments that are gone may as well have become others.
    let is_done = !change.added.is_empty()
        && !change.removed.iter().any(is_live)
        && added().all(|s| is_live(&s));
    if is_done {
        return Ok(Outcome::AlreadyDone(CatalogVersion(version.0 - 1)));
    }
    let largest_ms = largest_pushed(&live_segments);
    if let ChangeReason::Moved { times, beside } = &change.reason {
        check_moved(&table, times, beside, &live_segments)?;
    }
    let removed = take(&table.name, &mut live_segments, &change.removed)?;
    check_rows(&table.name, change, &removed)?;
    remove(write, &table.name, &removed, version, None).await?;
    for segment in &change.added {
        match add_segment(write, &table.name, segment, version).await? {
            Added::New => {}
            Added::SameLive(_) => {
                return Err(Error::precondition(format!(
                    "table {}: segment {} is there already",
                    table.name, segment.name
                )));
            }
            Added::Conflict(why) => return Err(Error::precondition(why)),
        }
    }
    for left in &change.left {
        super::realtime::leave(write, &table.name, left).await?;
    }
    match &change.reason {
        ChangeReason::Merged | ChangeReason::Compacted => {}
        ChangeReason::Deleted => table.coverage.remember_largest(largest_ms),
        ChangeReason::Uncovered(interval) => {
            table.coverage.remember_largest(largest_ms);
            table.coverage.delete(*interval);
            table.coverage.changed_ms = Some(now_ms);
        }
        ChangeReason::Moved { times, .. } => table.coverage.take_over(times),
    }
    table.set_version = version;
    tables::update(write, &table).await?;
    Ok(Outcome::Done(version))
}

/// The largest time of what pushes brought.
pub(super) fn largest_pushed(live: &[SegmentInfo]) -> Option<i64> {
    let pushed = live.iter().filter(|s| s.moves_boundary());
    pushed.filter_map(|s| Some(s.time_ms?.1)).max()
}

/// Refuses to take over rows of times that pushes cover or have rows of: these would count as well.
fn check_moved(
    table: &TableRow,
    times: &Coverage,
    beside: &[SegmentContent],
    live: &[SegmentInfo],
) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::precondition(format!(
            "table {}: times that are to be taken over {why}",
            table.name
        )))
    };
    let facts = &table.coverage;
    let declared = facts.declared.clone().unwrap_or_default();
    let pushed = declared.union(&facts.replaced).minus(&facts.deleted);
    if pushed.minus(times) != pushed {
        return refuse("were declared complete meanwhile".to_owned());
    }
    let may_have_rows = |s: &&SegmentInfo| {
        let is_known = beside
            .iter()
            .any(|(name, checksum)| s.name == *name && s.checksum == *checksum);
        let reaches = times.intervals().iter().any(|i| s.reaches(*i));
        s.half == Half::Offline && !s.moved && reaches && !is_known
    };
    match live.iter().find(may_have_rows) {
        Some(segment) => refuse(format!(
            "may have rows in the pushed segment {}",
            segment.name
        )),
        None => Ok(()),
    }
}

/// Whether a change leaves the rows that its reason leaves.
fn check_rows(table: &str, change: &ChangeSegments, removed: &[SegmentInfo]) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::internal(format!(
            "table {table}: segments can't take the place of others: {why}"
        )))
    };
    let rows = |segments: &[SegmentInfo], half: Half| -> u64 {
        let of_half = segments.iter().filter(|s| s.half == half);
        of_half.map(|s| s.rows).sum()
    };
    let before = [Half::Offline, Half::Realtime].map(|half| rows(removed, half));
    let after = [Half::Offline, Half::Realtime].map(|half| rows(&change.added, half));
    let holds = match &change.reason {
        ChangeReason::Merged => before == after && ranges(removed) == ranges(&change.added),
        ChangeReason::Compacted => before[0] == 0 && after[0] == 0 && after[1] <= before[1],
        ChangeReason::Deleted => (0..2).all(|half| after[half] <= before[half]),
        ChangeReason::Uncovered(_) => after[0] <= before[0] && before[1] == 0 && after[1] == 0,
        ChangeReason::Moved { .. } => {
            // Rolled up, they may become fewer.
            before[0] == 0 && after[1] <= before[1] && after[0] <= before[1] - after[1]
        }
    };
    match holds {
        true => Ok(()),
        false => refuse("the numbers of rows, or their offsets, do not fit"),
    }
}

/// The stream offsets that segments are of, joined where they follow each other.
fn ranges(segments: &[SegmentInfo]) -> BTreeMap<StreamPartition, Vec<(u64, u64)>> {
    let mut sorted: Vec<_> = segments.iter().filter_map(|s| s.origin.as_ref()).collect();
    sorted.sort_by(|a, b| (&a.0, a.1.start).cmp(&(&b.0, b.1.start)));
    let mut joined: BTreeMap<_, Vec<(u64, u64)>> = BTreeMap::new();
    for (partition, range) in sorted {
        let of_partition = joined.entry(partition.clone()).or_default();
        match of_partition.last_mut() {
            Some(last) if last.1 == range.start => last.1 = range.end,
            _ => of_partition.push((range.start, range.end)),
        }
    }
    joined
}

pub(super) async fn removed(connection: &mut Connection) -> Result<Vec<RemovedSegment>> {
    let rows = sqlx::query(
        "SELECT * FROM segments WHERE removed_in IS NOT NULL AND kept_by IS NULL ORDER BY removed_in, table_name, name",
    )
    .fetch_all(connection)
    .await
    .map_err(|e| sql_error("read", &e))?;
    let removed = rows.iter().map(|row| {
        Ok(RemovedSegment {
            table: text(row, "table_name")?,
            segment: read_segment(row)?,
            removed_in: CatalogVersion(unsigned(row, "removed_in")?),
        })
    });
    removed.collect()
}

pub(super) async fn forget(
    write: &mut Write<'_>,
    table: &str,
    contents: &[SegmentContent],
) -> Result<()> {
    for (name, checksum) in contents {
        sqlx::query(
            "DELETE FROM segments WHERE table_name = $1 AND name = $2 AND checksum = $3 AND removed_in IS NOT NULL AND kept_by IS NULL",
        )
        .bind(table)
        .bind(name.as_str())
        .bind(format!("{checksum:016x}"))
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    }
    Ok(())
}
