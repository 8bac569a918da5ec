//! Pushes into the offline half: done once, and undone.

use super::segments::{Added, add_segment, largest_pushed, live, remove, take};
use super::tables::{self, TableRow, read_segment};
use super::write::Write;
use super::{Connection, from_json, sealed, sql_error, text, to_json, to_sql, unsealed, unsigned};
use crate::config::PushType;
use crate::meta::coverage::CoverageFacts;
use crate::meta::{KeptPush, Outcome, PUSH_ID_BYTES_MAX, PushOffline, Pushed, Replaces};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{CatalogVersion, Half};
use strandline_proto::{Error, Result};

/// What a push did to its table, so that it can be undone.
#[derive(Serialize, Deserialize)]
struct PushChange {
    /// Names of the segments that it added.
    added: Vec<String>,
    /// How many it took out.
    removed: usize,
    /// The interval whose coverage it changed; none: that of all times.
    interval: Option<Interval>,
    /// Coverage before it.
    before: CoverageFacts,
}

/// A push as it was noted.
struct NotedPush {
    version: CatalogVersion,
    result_json: String,
    reverted_in: Option<i64>,
    /// None for one of an earlier version of the store.
    change: Option<PushChange>,
}

async fn noted(
    connection: &mut Connection,
    table: &str,
    push_id: &str,
) -> Result<Option<NotedPush>> {
    let row = sqlx::query("SELECT * FROM pushes WHERE table_name = $1 AND push_id = $2")
        .bind(table)
        .bind(push_id)
        .fetch_optional(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    row.map(|row| {
        let change: Option<String> = row
            .try_get("change_json")
            .map_err(|e| sql_error("read", &e))?;
        let what = format!("push {push_id}");
        let change = change.map(|json| from_json(&json, &what));
        let result_json = text(&row, "result_json")?;
        Ok(NotedPush {
            version: CatalogVersion(unsigned(&row, "version")?),
            result_json: unsealed(&result_json, &what)?.to_owned(),
            reverted_in: row
                .try_get("reverted_in")
                .map_err(|e| sql_error("read", &e))?,
            change: change.transpose()?,
        })
    })
    .transpose()
}

/// The result of a push that was done.
///
/// # Errors
/// `FailedPrecondition` when it was reverted since.
pub(super) async fn pushed(
    connection: &mut Connection,
    table: &str,
    push_id: &str,
) -> Result<Option<(CatalogVersion, String)>> {
    match noted(connection, table, push_id).await? {
        Some(push) if push.reverted_in.is_some() => Err(Error::precondition(format!(
            "table {table}: push {push_id} was done and reverted; to do it again, give it another push id"
        ))),
        push => Ok(push.map(|push| (push.version, push.result_json))),
    }
}

fn check(table: &TableRow, push: &PushOffline) -> Result<()> {
    table.require(Half::Offline)?;
    let name = &table.name;
    if push.push_id.is_empty() || push.push_id.len() > PUSH_ID_BYTES_MAX {
        return Err(Error::invalid(format!(
            "table {name}: a push id has 1 to {PUSH_ID_BYTES_MAX} bytes"
        )));
    }
    let empty = |i: &Interval| i.start_ms >= i.end_ms;
    if let Some(empty) = push.declared.filter(empty) {
        return Err(Error::invalid(format!(
            "table {name}: the declared coverage [{}, {}) is empty; its end lies after its start",
            empty.start_ms, empty.end_ms
        )));
    }
    if let Some(replaces) = &push.replaces
        && (empty(&replaces.interval) || push.mode == PushType::Refresh)
    {
        return Err(Error::invalid(format!(
            "table {name}: a push replaces all of the table, or a part of it that is not empty"
        )));
    }
    let mut names = BTreeSet::new();
    let rest = push.replaces.iter().flat_map(|r| &r.rest);
    for segment in push.segments.iter().chain(rest) {
        if segment.half != Half::Offline || segment.origin.is_some() {
            return Err(Error::invalid(format!(
                "table {name}: segment {} is not one of the OFFLINE half",
                segment.name
            )));
        }
        if !names.insert(&segment.name) {
            return Err(Error::invalid(format!(
                "table {name}: the push holds segment {} twice",
                segment.name
            )));
        }
    }
    Ok(())
}

/// Takes out what a push takes the place of.
fn take_replaced(
    table: &TableRow,
    replaces: &Replaces,
    live: &mut Vec<SegmentInfo>,
) -> Result<Vec<SegmentInfo>> {
    let removed = take(&table.name, live, &replaces.removed)?;
    let left = |s: &&SegmentInfo| (s.moved || !replaces.only_moved) && s.reaches(replaces.interval);
    if let Some(left) = live.iter().find(left) {
        return Err(Error::precondition(format!(
            "table {}: segment {} of the replaced times has come meanwhile",
            table.name, left.name
        )));
    }
    Ok(removed)
}

pub(super) async fn push(
    write: &mut Write<'_>,
    push: &PushOffline,
    now_ms: i64,
) -> Result<Outcome<Pushed>> {
    let version = write.next_version().await?;
    let mut table = tables::get(write.connection(), &push.table).await?;
    check(&table, push)?;
    if let Some((version, result_json)) =
        pushed(write.connection(), &table.name, &push.push_id).await?
    {
        return Ok(Outcome::AlreadyDone(Pushed {
            version,
            result_json,
            removed: Vec::new(),
            kept: Vec::new(),
        }));
    }
    let before = table.coverage.clone();
    let mut present = live(write.connection(), &table.name, Half::Offline).await?;
    if push.rebuilt {
        table.coverage.remember_largest(largest_pushed(&present));
    }
    let replaced = match (push.mode, &push.replaces) {
        (PushType::Refresh, _) => {
            // A segment that is pushed again unchanged stays.
            let again: BTreeSet<_> = (push.segments.iter())
                .map(|segment| (&segment.name, segment.checksum))
                .collect();
            let is_again = |s: &SegmentInfo| again.contains(&(&s.name, s.checksum));
            table.coverage.replace_all();
            let all = std::mem::take(&mut present);
            all.into_iter().filter(|s| !is_again(s)).collect()
        }
        (PushType::Append, Some(replaces)) => take_replaced(&table, replaces, &mut present)?,
        (PushType::Append, None) => Vec::new(),
    };
    // Rows that were taken over since the push looked would count beside its own.
    let left = |s: &&SegmentInfo| s.moved && push.declared.is_some_and(|d| s.reaches(d));
    if let Some(left) = present.iter().find(left) {
        return Err(Error::precondition(format!(
            "table {}: segment {} was taken over from the stream meanwhile, of the declared times",
            table.name, left.name
        )));
    }
    let kept_by = push.keeps_replaced.then_some(push.push_id.as_str());
    remove(write, &table.name, &replaced, version, kept_by).await?;
    let rest = push.replaces.iter().flat_map(|r| &r.rest);
    let mut added = Vec::new();
    for segment in push.segments.iter().chain(rest) {
        match add_segment(write, &table.name, segment, version).await? {
            Added::New => added.push(segment.name.to_string()),
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
    let interval = match (&push.replaces, push.declared) {
        (Some(replaces), Some(declared)) => Some(Interval {
            start_ms: replaces.interval.start_ms.min(declared.start_ms),
            end_ms: replaces.interval.end_ms.max(declared.end_ms),
        }),
        (Some(replaces), None) => Some(replaces.interval),
        (None, Some(declared)) => Some(declared),
        (None, None) => Some(Interval {
            start_ms: 0,
            end_ms: 0,
        }),
    };
    if let Some(replaces) = push.replaces.as_ref().filter(|r| !r.only_moved) {
        table.coverage.replace(replaces.interval);
    }
    if let Some(declared) = push.declared {
        table.coverage.declare(declared);
    }
    check_beside_moved(&table, push)?;
    let gone = release_replaced(write, &table.name, &replaced).await?;
    if !push.rebuilt {
        table.coverage.changed_ms = Some(now_ms);
    }
    table.set_version = version;
    tables::update(write, &table).await?;
    let change = PushChange {
        added,
        removed: replaced.len(),
        interval: interval.filter(|_| push.mode == PushType::Append),
        before,
    };
    sqlx::query("INSERT INTO pushes (table_name, push_id, version, result_json, pushed_ms, change_json) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(&table.name)
        .bind(&push.push_id)
        .bind(to_sql(version.0, "catalog version")?)
        .bind(sealed(&push.result_json))
        .bind(now_ms)
        .bind(to_json(&change, "push")?)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    let (kept, mut removed) = match push.keeps_replaced {
        true => (replaced, Vec::new()),
        false => (Vec::new(), replaced),
    };
    removed.extend(gone);
    Ok(Outcome::Done(Pushed {
        version,
        result_json: push.result_json.clone(),
        removed,
        kept,
    }))
}

/// Refuses rows of times that were taken over from the stream: they would be counted twice.
fn check_beside_moved(table: &TableRow, push: &PushOffline) -> Result<()> {
    for moved in table.coverage.moved.intervals() {
        if let Some(segment) = push.segments.iter().find(|s| s.reaches(*moved)) {
            return Err(Error::precondition(format!(
                "table {}: segment {} has rows of times whose rows were taken over from the stream, and both would count; push them as what replaces these times, or declare the coverage of their times",
                table.name, segment.name
            )));
        }
    }
    Ok(())
}

/// Keeps no longer what pushes replaced whose own segments are being replaced; gives it.
async fn release_replaced(
    write: &mut Write<'_>,
    table: &str,
    replaced: &[SegmentInfo],
) -> Result<Vec<SegmentInfo>> {
    if replaced.is_empty() {
        return Ok(Vec::new());
    }
    let replaced: BTreeSet<&str> = replaced.iter().map(|s| s.name.as_str()).collect();
    let rows = sqlx::query("SELECT push_id, change_json FROM pushes WHERE table_name = $1 AND push_id IN (SELECT kept_by FROM segments WHERE table_name = $1 AND kept_by IS NOT NULL)")
        .bind(table)
        .fetch_all(write.connection())
        .await
        .map_err(|e| sql_error("read", &e))?;
    let mut gone = Vec::new();
    for row in &rows {
        let push_id = text(row, "push_id")?;
        let change: PushChange = from_json(&text(row, "change_json")?, &format!("push {push_id}"))?;
        if change
            .added
            .iter()
            .any(|name| replaced.contains(name.as_str()))
        {
            gone.extend(let_go(write, table, &push_id).await?);
        }
    }
    Ok(gone)
}

async fn kept_by(
    connection: &mut Connection,
    table: &str,
    push_id: &str,
) -> Result<Vec<SegmentInfo>> {
    let rows = sqlx::query(
        "SELECT name, info_json FROM segments WHERE table_name = $1 AND kept_by = $2 ORDER BY name",
    )
    .bind(table)
    .bind(push_id)
    .fetch_all(connection)
    .await
    .map_err(|e| sql_error("read", &e))?;
    rows.iter().map(read_segment).collect()
}

async fn let_go(write: &mut Write<'_>, table: &str, push_id: &str) -> Result<Vec<SegmentInfo>> {
    let kept = kept_by(write.connection(), table, push_id).await?;
    sqlx::query("UPDATE segments SET kept_by = NULL WHERE table_name = $1 AND kept_by = $2")
        .bind(table)
        .bind(push_id)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    Ok(kept)
}

/// Keeps no longer what a push replaced.
pub(super) async fn release(
    write: &mut Write<'_>,
    table: &str,
    push_id: &str,
) -> Result<(CatalogVersion, Vec<SegmentInfo>)> {
    let version = write.next_version().await?;
    Ok((version, let_go(write, table, push_id).await?))
}

/// All pushes whose replaced segments are kept.
pub(super) async fn kept(connection: &mut Connection) -> Result<Vec<KeptPush>> {
    let rows = sqlx::query(
        "SELECT s.table_name AS table_name, s.kept_by AS push_id, p.pushed_ms AS pushed_ms, p.change_json AS change_json, s.name AS name, s.info_json AS info_json
         FROM segments s JOIN pushes p ON p.table_name = s.table_name AND p.push_id = s.kept_by
         ORDER BY s.table_name, s.kept_by, s.name",
    )
    .fetch_all(connection)
    .await
    .map_err(|e| sql_error("read", &e))?;
    let mut pushes: BTreeMap<(String, String), KeptPush> = BTreeMap::new();
    for row in &rows {
        let (table, push_id) = (text(row, "table_name")?, text(row, "push_id")?);
        let pushed_ms = row
            .try_get("pushed_ms")
            .map_err(|e| sql_error("read", &e))?;
        let push = match pushes.entry((table.clone(), push_id.clone())) {
            Entry::Occupied(push) => push.into_mut(),
            Entry::Vacant(place) => {
                let change: PushChange =
                    from_json(&text(row, "change_json")?, &format!("push {push_id}"))?;
                place.insert(KeptPush {
                    table,
                    push_id,
                    pushed_ms,
                    added: change.added,
                    segments: Vec::new(),
                })
            }
        };
        push.segments.push(read_segment(row)?);
    }
    Ok(pushes.into_values().collect())
}

/// Undoes a push.
pub(super) async fn revert(
    write: &mut Write<'_>,
    table: &str,
    push_id: &str,
    now_ms: i64,
) -> Result<Outcome<Pushed>> {
    let version = write.next_version().await?;
    let mut table = tables::get(write.connection(), table).await?;
    let Some(push) = noted(write.connection(), &table.name, push_id).await? else {
        return Err(Error::not_found(format!(
            "table {}: no push {push_id}",
            table.name
        )));
    };
    if let Some(reverted_in) = push.reverted_in {
        return Ok(Outcome::AlreadyDone(Pushed {
            version: CatalogVersion(u64::try_from(reverted_in).unwrap_or_default()),
            result_json: push.result_json,
            removed: Vec::new(),
            kept: Vec::new(),
        }));
    }
    let refuse = |why: String| {
        Error::precondition(format!(
            "table {}: push {push_id} can't be reverted: {why}; push the rows as they should be",
            table.name
        ))
    };
    let Some(change) = push.change else {
        return Err(refuse("an earlier version of Strandline did it".to_owned()));
    };
    let kept = kept_by(write.connection(), &table.name, push_id).await?;
    if kept.len() != change.removed {
        return Err(refuse(
            "what it replaced is not kept any more (segmentsConfig.deletedSegmentsRetentionPeriod)"
                .to_owned(),
        ));
    }
    let present = live(write.connection(), &table.name, Half::Offline).await?;
    let mut undone = Vec::with_capacity(change.added.len());
    for name in &change.added {
        match present.iter().find(|s| s.name.as_str() == name) {
            Some(segment) => undone.push(segment.clone()),
            None => {
                return Err(refuse(format!(
                    "its segment {name} was replaced or merged since"
                )));
            }
        }
    }
    if change.interval.is_none() {
        let later = sqlx::query("SELECT push_id FROM pushes WHERE table_name = $1 AND version > $2 AND reverted_in IS NULL ORDER BY version")
            .bind(&table.name)
            .bind(to_sql(push.version.0, "catalog version")?)
            .fetch_optional(write.connection())
            .await
            .map_err(|e| sql_error("read", &e))?;
        if let Some(later) = later {
            return Err(refuse(format!(
                "it replaced the whole table, and push {} came after it",
                text(&later, "push_id")?
            )));
        }
    }
    remove(write, &table.name, &undone, version, None).await?;
    for segment in &kept {
        put_back(write, &table.name, segment, version).await?;
    }
    match change.interval {
        Some(interval) => table.coverage.restore(interval, &change.before),
        None => {
            let pinned_at_ms = table.coverage.pinned_at_ms;
            table.coverage = CoverageFacts {
                pinned_at_ms,
                ..change.before
            };
        }
    }
    table.coverage.changed_ms = Some(now_ms);
    table.set_version = version;
    tables::update(write, &table).await?;
    sqlx::query("UPDATE pushes SET reverted_in = $3 WHERE table_name = $1 AND push_id = $2")
        .bind(&table.name)
        .bind(push_id)
        .bind(to_sql(version.0, "catalog version")?)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    Ok(Outcome::Done(Pushed {
        version,
        result_json: push.result_json,
        removed: undone,
        kept: Vec::new(),
    }))
}

/// Puts a kept segment back among those that are there.
async fn put_back(
    write: &mut Write<'_>,
    table: &str,
    segment: &SegmentInfo,
    version: CatalogVersion,
) -> Result<()> {
    sqlx::query("UPDATE segments SET removed_in = NULL, kept_by = NULL, added_in = $4 WHERE table_name = $1 AND name = $2 AND checksum = $3")
        .bind(table)
        .bind(segment.name.as_str())
        .bind(format!("{:016x}", segment.checksum))
        .bind(to_sql(version.0, "catalog version")?)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    write.note_segment(table, segment);
    Ok(())
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
