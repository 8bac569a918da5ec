//! Offsets, commits and dead letters of the realtime half.

use super::ledger;
use super::segments::{Added, add_segment};
use super::tables::{self, read_partition, read_progress};
use super::write::Write;
use super::{Connection, sql_error, text, to_json, to_sql, unsigned};
use crate::meta::ledger::EntryKind;
use crate::meta::minutes::MinuteCounts;
use crate::meta::{
    CommitRealtime, DEAD_LETTER_BYTES_MAX, DEAD_LETTERS_MAX, DeadLetter, IngestCounts, LeftRows,
    Outcome, PartitionRecord, SkipOffsets,
};
use bytes::Bytes;
use sqlx::Row;
use strandline_proto::ids::{CatalogVersion, Half, OffsetRange, StreamPartition};
use strandline_proto::{Error, Result};

/// How far a partition was committed.
async fn stored(
    connection: &mut Connection,
    table: &str,
    partition: &StreamPartition,
) -> Result<Option<PartitionRecord>> {
    let row = sqlx::query("SELECT * FROM partitions WHERE table_name = $1 AND stream = $2 AND topic = $3 AND partition_number = $4")
        .bind(table)
        .bind(&*partition.stream)
        .bind(&*partition.topic)
        .bind(i64::from(partition.partition))
        .fetch_optional(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    row.as_ref().map(read_progress).transpose()
}

pub(super) async fn start(
    write: &mut Write<'_>,
    table: &str,
    partition: &StreamPartition,
    offset: u64,
) -> Result<Outcome<u64>> {
    write.next_version().await?;
    tables::get(write.connection(), table)
        .await?
        .require(Half::Realtime)?;
    if let Some(record) = stored(write.connection(), table, partition).await? {
        return Ok(Outcome::AlreadyDone(record.next_offset));
    }
    insert(write, table, partition, offset).await?;
    Ok(Outcome::Done(offset))
}

/// Stores that a table begins at `offset` of a partition.
async fn insert(
    write: &mut Write<'_>,
    table: &str,
    partition: &StreamPartition,
    offset: u64,
) -> Result<PartitionRecord> {
    let record = PartitionRecord {
        partition: partition.clone(),
        first_offset: offset,
        next_offset: offset,
        counts: IngestCounts::default(),
        ledger_offset: offset,
    };
    let offset = to_sql(offset, "offset")?;
    sqlx::query(
        "INSERT INTO partitions (table_name, stream, topic, partition_number, first_offset, next_offset, counts_json, ledger_offset)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(table)
    .bind(&*partition.stream)
    .bind(&*partition.topic)
    .bind(i64::from(partition.partition))
    .bind(offset)
    .bind(offset)
    .bind(to_json(&record.counts, "counts")?)
    .bind(offset)
    .execute(write.connection())
    .await
    .map_err(|e| sql_error("write", &e))?;
    write.note_partition(table, record.clone());
    Ok(record)
}

/// Moves a partition from `range.start`, which must be the stored offset, to `range.end`.
async fn advance(
    write: &mut Write<'_>,
    table: &str,
    partition: &StreamPartition,
    range: OffsetRange,
    counts: &MinuteCounts,
) -> Result<()> {
    if range.end < range.start {
        return Err(Error::invalid(format!(
            "table {table}: the offsets {} to {} of {partition} run backwards",
            range.start, range.end
        )));
    }
    let mut record = match stored(write.connection(), table, partition).await? {
        Some(record) if record.next_offset == range.start => record,
        Some(PartitionRecord { next_offset, .. }) => {
            return Err(Error::precondition(format!(
                "table {table}: {partition} is committed up to offset {next_offset}, so offsets from {} can't follow; consume from {next_offset}",
                range.start
            )));
        }
        // The first commit says where the table began.
        None => insert(write, table, partition, range.start).await?,
    };
    record.next_offset = range.end;
    record.counts = record.counts.plus(counts.total());
    store(write, table, record).await?;
    ledger::add(write, table, partition, (range, EntryKind::Read), counts).await
}

/// Notes that rows of a partition have left their half.
pub(super) async fn leave(write: &mut Write<'_>, table: &str, left: &LeftRows) -> Result<()> {
    let LeftRows {
        partition,
        range,
        counts,
    } = left;
    let Some(mut record) = stored(write.connection(), table, partition).await? else {
        return Err(Error::precondition(format!(
            "table {table}: {partition} is not consumed any more"
        )));
    };
    record.counts = record.counts.plus(counts.total());
    store(write, table, record).await?;
    ledger::add(write, table, partition, (*range, EntryKind::Left), counts).await
}

/// Stores how far a partition is.
async fn store(write: &mut Write<'_>, table: &str, record: PartitionRecord) -> Result<()> {
    let partition = &record.partition;
    sqlx::query(
        "UPDATE partitions SET next_offset = $5, counts_json = $6
         WHERE table_name = $1 AND stream = $2 AND topic = $3 AND partition_number = $4",
    )
    .bind(table)
    .bind(&*partition.stream)
    .bind(&*partition.topic)
    .bind(i64::from(partition.partition))
    .bind(to_sql(record.next_offset, "offset")?)
    .bind(to_json(&record.counts, "counts")?)
    .execute(write.connection())
    .await
    .map_err(|e| sql_error("write", &e))?;
    write.note_partition(table, record);
    Ok(())
}

pub(super) async fn commit(
    write: &mut Write<'_>,
    request: &CommitRealtime,
) -> Result<Outcome<CatalogVersion>> {
    let version = write.next_version().await?;
    let mut table = tables::get(write.connection(), &request.table).await?;
    table.require(Half::Realtime)?;
    let segment = &request.segment;
    let Some((partition, range)) = &segment.origin else {
        return Err(Error::invalid(format!(
            "table {}: segment {} names no stream offsets it came from",
            table.name, segment.name
        )));
    };
    if segment.half != Half::Realtime {
        return Err(Error::invalid(format!(
            "table {}: segment {} is of the {} half",
            table.name, segment.name, segment.half
        )));
    }
    match add_segment(write, &table.name, segment, version).await? {
        Added::New => {}
        Added::SameLive(added_in) => return Ok(Outcome::AlreadyDone(added_in)),
        Added::Conflict(why) => return Err(Error::precondition(why)),
    }
    advance(write, &table.name, partition, *range, &request.counts).await?;
    insert_dead_letters(write, &table.name, &request.dead_letters).await?;
    table.set_version = version;
    tables::update(write, &table).await?;
    Ok(Outcome::Done(version))
}

pub(super) async fn skip(
    write: &mut Write<'_>,
    skip: &SkipOffsets,
) -> Result<Outcome<CatalogVersion>> {
    let version = write.next_version().await?;
    tables::get(write.connection(), &skip.table)
        .await?
        .require(Half::Realtime)?;
    let done = stored(write.connection(), &skip.table, &skip.partition).await?;
    if skip.from_offset < skip.to_offset
        && done.is_some_and(|record| record.next_offset == skip.to_offset)
    {
        return Ok(Outcome::AlreadyDone(CatalogVersion(version.0 - 1)));
    }
    let range = OffsetRange {
        start: skip.from_offset,
        end: skip.to_offset,
    };
    advance(write, &skip.table, &skip.partition, range, &skip.counts).await?;
    insert_dead_letters(write, &skip.table, &skip.dead_letters).await?;
    Ok(Outcome::Done(version))
}

pub(super) async fn record_dead_letters(
    write: &mut Write<'_>,
    table: &str,
    letters: &[DeadLetter],
) -> Result<u64> {
    let new = insert_dead_letters(write, table, letters).await?;
    // Read after the write, so that the transaction holds the write lock from its first statement on.
    tables::get(write.connection(), table)
        .await?
        .require(Half::Realtime)?;
    Ok(new)
}

async fn insert_dead_letters(
    write: &mut Write<'_>,
    table: &str,
    letters: &[DeadLetter],
) -> Result<u64> {
    let mut new = 0;
    for letter in letters {
        let kept = letter
            .payload
            .get(..DEAD_LETTER_BYTES_MAX)
            .unwrap_or(&letter.payload);
        let inserted = sqlx::query(
            "INSERT INTO dead_letters (table_name, stream, topic, partition_number, message_offset, reason, payload_hex, payload_bytes, recorded_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
        )
        .bind(table)
        .bind(&*letter.partition.stream)
        .bind(&*letter.partition.topic)
        .bind(i64::from(letter.partition.partition))
        .bind(to_sql(letter.offset, "offset")?)
        .bind(&letter.reason)
        .bind(hex(kept))
        .bind(to_sql(letter.payload_bytes.max(letter.payload.len() as u64), "payload length")?)
        .bind(letter.timestamp_ms)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
        new += inserted.rows_affected();
    }
    if new > 0 {
        make_room(write.connection(), table).await?;
    }
    Ok(new)
}

/// Removes a table's oldest dead letters beyond the limit.
async fn make_room(connection: &mut Connection, table: &str) -> Result<()> {
    let row = sqlx::query("SELECT COUNT(*) AS letters FROM dead_letters WHERE table_name = $1")
        .bind(table)
        .fetch_one(&mut *connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    let excess = unsigned(&row, "letters")?.saturating_sub(DEAD_LETTERS_MAX);
    if excess > 0 {
        sqlx::query(
            "DELETE FROM dead_letters WHERE (table_name, stream, topic, partition_number, message_offset) IN (
               SELECT table_name, stream, topic, partition_number, message_offset FROM dead_letters
               WHERE table_name = $1 ORDER BY recorded_ms, message_offset LIMIT $2)",
        )
        .bind(table)
        .bind(to_sql(excess, "count")?)
        .execute(connection)
        .await
        .map_err(|e| sql_error("write", &e))?;
    }
    Ok(())
}

pub(super) async fn dead_letters(
    connection: &mut Connection,
    table: &str,
    limit: u32,
) -> Result<Vec<DeadLetter>> {
    tables::get(connection, table).await?;
    let rows = sqlx::query("SELECT * FROM dead_letters WHERE table_name = $1 ORDER BY recorded_ms DESC, message_offset DESC LIMIT $2")
        .bind(table)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    let letters = rows.iter().map(|row| {
        Ok(DeadLetter {
            partition: read_partition(row)?,
            offset: unsigned(row, "message_offset")?,
            reason: text(row, "reason")?,
            payload: unhex(&text(row, "payload_hex")?)?,
            payload_bytes: unsigned(row, "payload_bytes")?,
            timestamp_ms: row
                .try_get("recorded_ms")
                .map_err(|e| sql_error("read", &e))?,
        })
    });
    letters.collect()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| {
            [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]
        })
        .collect()
}

pub(super) fn unhex(text: &str) -> Result<Bytes> {
    let digit = |c: u8| char::from(c).to_digit(16).map(|d| d as u8);
    let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.map(Bytes::from).ok_or_else(|| {
        Error::data_loss(
            "metastore: bytes of a dead letter or of the ledger can't be read; restore the data folder from a copy",
        )
    })
}
