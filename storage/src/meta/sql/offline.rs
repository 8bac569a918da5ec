//! Segment sets, pushes and the boundary.

use super::tables::{self, read_segment};
use super::write::Write;
use super::{Connection, sql_error, text, to_json, to_sql, unsigned};
use crate::config::PushType;
use crate::meta::{
    Outcome, PUSH_ID_BYTES_MAX, PushOffline, Pushed, RemovedSegment, ReplaceSegment,
    STORED_OTHERWISE,
};
use sqlx::Row;
use std::collections::BTreeSet;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{CatalogVersion, Half, SegmentName};
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
    let row = sqlx::query("SELECT * FROM segments WHERE table_name = $1 AND name = $2")
        .bind(table)
        .bind(segment.name.as_str())
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
            "table {table}: segment {} was removed and its name can't be used again yet; use another name",
            segment.name
        )),
    })
}

async fn live(connection: &mut Connection, table: &str, half: Half) -> Result<Vec<SegmentInfo>> {
    let rows = sqlx::query("SELECT name, info_json FROM segments WHERE table_name = $1 AND half = $2 AND removed_in IS NULL ORDER BY name")
        .bind(table)
        .bind(half.as_str())
        .fetch_all(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    rows.iter().map(read_segment).collect()
}

async fn remove(
    write: &mut Write<'_>,
    table: &str,
    segments: &[SegmentInfo],
    version: CatalogVersion,
) -> Result<()> {
    for segment in segments {
        sqlx::query("UPDATE segments SET removed_in = $3 WHERE table_name = $1 AND name = $2 AND removed_in IS NULL")
            .bind(table)
            .bind(segment.name.as_str())
            .bind(to_sql(version.0, "catalog version")?)
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

/// Takes out all segments of a half; gives them.
pub(super) async fn remove_all(
    write: &mut Write<'_>,
    table: &str,
    half: Half,
    version: CatalogVersion,
) -> Result<Vec<SegmentInfo>> {
    let segments = live(write.connection(), table, half).await?;
    remove(write, table, &segments, version).await?;
    Ok(segments)
}

/// The version and result of a push that was done.
pub(super) async fn pushed(
    connection: &mut Connection,
    table: &str,
    push_id: &str,
) -> Result<Option<(CatalogVersion, String)>> {
    let row = sqlx::query(
        "SELECT version, result_json FROM pushes WHERE table_name = $1 AND push_id = $2",
    )
    .bind(table)
    .bind(push_id)
    .fetch_optional(connection)
    .await
    .map_err(|e| sql_error("read", &e))?;
    row.map(|row| {
        Ok((
            CatalogVersion(unsigned(&row, "version")?),
            text(&row, "result_json")?,
        ))
    })
    .transpose()
}

pub(super) async fn push(
    write: &mut Write<'_>,
    push: &PushOffline,
    now_ms: i64,
) -> Result<Outcome<Pushed>> {
    let version = write.next_version().await?;
    let mut table = tables::get(write.connection(), &push.table).await?;
    table.require(Half::Offline)?;
    if push.push_id.is_empty() || push.push_id.len() > PUSH_ID_BYTES_MAX {
        return Err(Error::invalid(format!(
            "table {}: a push id has 1 to {PUSH_ID_BYTES_MAX} bytes",
            table.name
        )));
    }
    if let Some((version, result_json)) =
        pushed(write.connection(), &table.name, &push.push_id).await?
    {
        return Ok(Outcome::AlreadyDone(Pushed {
            version,
            result_json,
            removed: Vec::new(),
        }));
    }
    if let Some(empty) = push
        .declared
        .filter(|declared| declared.start_ms >= declared.end_ms)
    {
        return Err(Error::invalid(format!(
            "table {}: the declared coverage [{}, {}) is empty; its end lies after its start",
            table.name, empty.start_ms, empty.end_ms
        )));
    }
    let removed = match push.mode {
        PushType::Append => Vec::new(),
        PushType::Refresh => {
            // A segment that is pushed again unchanged stays.
            let kept: BTreeSet<_> = push
                .segments
                .iter()
                .map(|segment| (&segment.name, segment.checksum))
                .collect();
            let mut removed = live(write.connection(), &table.name, Half::Offline).await?;
            removed.retain(|segment| !kept.contains(&(&segment.name, segment.checksum)));
            remove(write, &table.name, &removed, version).await?;
            table.coverage.replace_all();
            removed
        }
    };
    let mut names = BTreeSet::new();
    for segment in &push.segments {
        if segment.half != Half::Offline || segment.origin.is_some() {
            return Err(Error::invalid(format!(
                "table {}: segment {} is not one of the OFFLINE half",
                table.name, segment.name
            )));
        }
        if !names.insert(&segment.name) {
            return Err(Error::invalid(format!(
                "table {}: the push holds segment {} twice",
                table.name, segment.name
            )));
        }
        match add_segment(write, &table.name, segment, version).await? {
            Added::New => {}
            Added::SameLive(_) if push.mode == PushType::Refresh => {}
            Added::SameLive(_) => {
                return Err(Error::already_exists(format!(
                    "table {}: segment {} is there already, with the same content; to repeat a push, give it the same push id",
                    table.name, segment.name
                )));
            }
            Added::Conflict(why) => return Err(Error::already_exists(why)),
        }
    }
    if let Some(declared) = push.declared {
        table.coverage.declare(declared);
    }
    table.coverage.changed_ms = Some(now_ms);
    table.set_version = version;
    tables::update(write, &table).await?;
    sqlx::query("INSERT INTO pushes (table_name, push_id, version, result_json, pushed_ms) VALUES ($1, $2, $3, $4, $5)")
        .bind(&table.name)
        .bind(&push.push_id)
        .bind(to_sql(version.0, "catalog version")?)
        .bind(&push.result_json)
        .bind(now_ms)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    Ok(Outcome::Done(Pushed {
        version,
        result_json: push.result_json.clone(),
        removed,
    }))
}

pub(super) async fn delete(
    write: &mut Write<'_>,
    table: &str,
    names: &[SegmentName],
    deleted: Option<Interval>,
    now_ms: i64,
) -> Result<Vec<SegmentInfo>> {
    let version = write.next_version().await?;
    let mut table = tables::get(write.connection(), table).await?;
    table.require(Half::Offline)?;
    let wanted: BTreeSet<_> = names.iter().collect();
    let mut removed = live(write.connection(), &table.name, Half::Offline).await?;
    removed.retain(|segment| wanted.contains(&segment.name));
    remove(write, &table.name, &removed, version).await?;
    if let Some(interval) = deleted {
        table.coverage.delete(interval);
    }
    table.coverage.changed_ms = Some(now_ms);
    table.set_version = version;
    tables::update(write, &table).await?;
    Ok(removed)
}

pub(super) async fn pin(
    write: &mut Write<'_>,
    table: &str,
    boundary_ms: Option<i64>,
) -> Result<Outcome<CatalogVersion>> {
    let version = write.next_version().await?;
    let mut table = tables::get(write.connection(), table).await?;
    if table.coverage.pinned_at_ms == boundary_ms {
        return Ok(Outcome::AlreadyDone(CatalogVersion(version.0 - 1)));
    }
    table.coverage.pinned_at_ms = boundary_ms;
    tables::update(write, &table).await?;
    Ok(Outcome::Done(version))
}

pub(super) async fn removed(connection: &mut Connection) -> Result<Vec<RemovedSegment>> {
    let rows = sqlx::query(
        "SELECT * FROM segments WHERE removed_in IS NOT NULL ORDER BY removed_in, table_name, name",
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
    names: &[SegmentName],
) -> Result<()> {
    for name in names {
        sqlx::query(
            "DELETE FROM segments WHERE table_name = $1 AND name = $2 AND removed_in IS NOT NULL",
        )
        .bind(table)
        .bind(name.as_str())
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    }
    Ok(())
}
