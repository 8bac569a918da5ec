//! What became of a table's messages, commit by commit: the rows of `ledger`.
//!
//! The entries of what was read follow each other from the partition's `ledger_offset` to its `next_offset`. What left later
//! has entries of its own, by the offsets of the segments that it left. With many entries the older ones are *folded*:
//! neighbours become one, so that what was read long ago is told in longer ranges. Ranges that no segment, and nothing that
//! left, has in common with others are folded as wholes, so an audit finds the same in what was folded.

use super::tables::{read_partition, read_progress};
use super::write::Write;
use super::{
    Connection, Db, SqlRow, from_json, sealed, sql_error, text, to_json, to_sql, unsealed, unsigned,
};
use crate::meta::ledger::{EntryKind, LedgerEntry, PartitionLedger, blocks};
use crate::meta::minutes::{BUCKETS_MAX, MinuteCounts};
use crate::meta::{IngestCounts, PartitionRecord};
use futures::TryStreamExt;
use strandline_proto::ids::{Half, OffsetRange, StreamPartition};
use strandline_proto::{Error, Result};

/// Entries of a partition at most.
pub(super) const ENTRIES_MAX: usize = 4_096;

/// A statement about the entries of a partition: what stands before the condition that they are its, and behind.
macro_rules! of_partition {
    ($before:literal, $behind:literal) => {
        concat!(
            $before,
            " FROM ledger WHERE table_name = $1 AND stream = $2 AND topic = $3 AND partition_number = $4 ",
            $behind
        )
    };
}

type Query<'q> = sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments>;

/// A statement with the table and the partition that it is about.
fn about<'q>(statement: &'static str, table: &'q str, partition: &'q StreamPartition) -> Query<'q> {
    sqlx::query(statement)
        .bind(table)
        .bind(&*partition.stream)
        .bind(&*partition.topic)
        .bind(i64::from(partition.partition))
}

/// The same with the entry of these offsets and this kind.
fn about_entry<'q>(
    statement: &'static str,
    (table, partition): (&'q str, &'q StreamPartition),
    (range, kind): (OffsetRange, EntryKind),
) -> Result<Query<'q>> {
    let query = about(statement, table, partition)
        .bind(to_sql(range.start, "offset")?)
        .bind(to_sql(range.end, "offset")?);
    Ok(query.bind(kind.name()))
}

/// An entry whose counts are read.
struct Stored {
    range: OffsetRange,
    kind: EntryKind,
    minutes: MinuteCounts,
}

/// Adds an entry to those of a partition; to the one of its offsets, when there is one.
pub(super) async fn add(
    write: &mut Write<'_>,
    table: &str,
    partition: &StreamPartition,
    (range, kind): (OffsetRange, EntryKind),
    minutes: &MinuteCounts,
) -> Result<()> {
    if range.start == range.end && minutes.is_empty() {
        return Ok(());
    }
    let same = of_partition!(
        "SELECT *",
        "AND start_offset = $5 AND end_offset = $6 AND kind = $7"
    );
    let known = about_entry(same, (table, partition), (range, kind))?
        .fetch_optional(write.connection())
        .await
        .map_err(|e| sql_error("read", &e))?;
    let mut all = minutes.clone();
    if let Some(row) = &known {
        all.merge(&read_minutes(row)?);
        remove(write, table, partition, (range, kind)).await?;
    }
    all.bound(BUCKETS_MAX);
    insert(write, table, partition, (range, kind), &all).await?;
    fold(write, table, partition, ENTRIES_MAX).await
}

async fn insert(
    write: &mut Write<'_>,
    table: &str,
    partition: &StreamPartition,
    entry: (OffsetRange, EntryKind),
    minutes: &MinuteCounts,
) -> Result<()> {
    about_entry(
        "INSERT INTO ledger (table_name, stream, topic, partition_number, start_offset, end_offset, kind, counts_json, minutes_hex)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        (table, partition),
        entry,
    )?
    .bind(to_json(&minutes.total(), "counts")?)
    .bind(sealed(&super::realtime::hex(&minutes.encode())))
    .execute(write.connection())
    .await
    .map_err(|e| sql_error("write", &e))?;
    Ok(())
}

async fn remove(
    write: &mut Write<'_>,
    table: &str,
    partition: &StreamPartition,
    entry: (OffsetRange, EntryKind),
) -> Result<()> {
    let same = of_partition!(
        "DELETE",
        "AND start_offset = $5 AND end_offset = $6 AND kind = $7"
    );
    about_entry(same, (table, partition), entry)?
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    Ok(())
}

/// Folds the older half of a partition's entries when there are more than `entries_max`.
pub(super) async fn fold(
    write: &mut Write<'_>,
    table: &str,
    partition: &StreamPartition,
    entries_max: usize,
) -> Result<()> {
    let number = of_partition!("SELECT COUNT(*) AS entries", "");
    let row = about(number, table, partition)
        .fetch_one(write.connection())
        .await
        .map_err(|e| sql_error("read", &e))?;
    if unsigned(&row, "entries")? <= entries_max as u64 {
        return Ok(());
    }
    let entries = entries(write.connection(), table, partition).await?;
    let segments = super::segments::live(write.connection(), table, Half::Realtime).await?;
    let of_segments = segments.iter().filter_map(|segment| {
        let (of, range) = segment.origin.as_ref()?;
        (of == partition).then_some(*range)
    });
    let mut ranges = blocks(entries.iter().map(|entry| entry.range).chain(of_segments));
    // What came before the ledger has segments, and no entries.
    let mut read = entries.iter().filter(|entry| entry.kind == EntryKind::Read);
    let first = read.next().map_or(u64::MAX, |entry| entry.range.start);
    ranges.retain(|range| range.end > first);
    // Two at least, which become one.
    let older = ranges.len().div_ceil(2).max(2);
    let mut older = ranges.into_iter().take(older).peekable();
    while let Some(first) = older.next() {
        let mut whole = first;
        if let Some(next) = older.next_if(|next| next.start == first.end) {
            whole.end = next.end;
        }
        fold_range(write, table, partition, (whole, &entries)).await?;
    }
    Ok(())
}

/// Makes one entry of all those within a range, if what was read of it is known without a gap and all of it can be read.
async fn fold_range(
    write: &mut Write<'_>,
    table: &str,
    partition: &StreamPartition,
    (range, entries): (OffsetRange, &[LedgerEntry]),
) -> Result<()> {
    let within =
        |entry: &&LedgerEntry| range.start <= entry.range.start && entry.range.end <= range.end;
    let mut end = range.start;
    let read = entries.iter().filter(within);
    for entry in read.filter(|entry| entry.kind == EntryKind::Read) {
        if entry.range.start != end {
            return Ok(());
        }
        end = entry.range.end;
    }
    if end != range.end || entries.iter().filter(within).count() < 2 {
        return Ok(());
    }
    let stored = stored_within(write.connection(), table, partition, range).await?;
    let Some(stored) = stored else {
        return Ok(());
    };
    let mut all = MinuteCounts::default();
    for Stored {
        range: of_entry,
        kind,
        minutes,
    } in &stored
    {
        all.merge(minutes);
        all.bound(BUCKETS_MAX);
        remove(write, table, partition, (*of_entry, *kind)).await?;
    }
    insert(write, table, partition, (range, EntryKind::Read), &all).await
}

/// The entries within a range; none when one of them can't be read.
async fn stored_within(
    connection: &mut Connection,
    table: &str,
    partition: &StreamPartition,
    range: OffsetRange,
) -> Result<Option<Vec<Stored>>> {
    let within = of_partition!("SELECT *", "AND start_offset >= $5 AND end_offset <= $6");
    let rows = about(within, table, partition)
        .bind(to_sql(range.start, "offset")?)
        .bind(to_sql(range.end, "offset")?)
        .fetch_all(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    let mut stored = Vec::with_capacity(rows.len());
    for row in &rows {
        let (Ok((range, kind)), Ok(minutes)) = (read_place(row), read_minutes(row)) else {
            return Ok(None);
        };
        stored.push(Stored {
            range,
            kind,
            minutes,
        });
    }
    Ok(Some(stored))
}

fn read_place(row: &SqlRow) -> Result<(OffsetRange, EntryKind)> {
    let range = OffsetRange {
        start: unsigned(row, "start_offset")?,
        end: unsigned(row, "end_offset")?,
    };
    let kind = text(row, "kind")?;
    let kind = EntryKind::of_name(&kind).ok_or_else(|| {
        Error::data_loss(format!(
            "metastore: a ledger's entry is of the kind {kind}, which is none"
        ))
    })?;
    Ok((range, kind))
}

/// The counts of an entry by event time, which add up to those beside them.
fn read_minutes(row: &SqlRow) -> Result<MinuteCounts> {
    let (range, _) = read_place(row)?;
    let what = format!(
        "the ledger's entry of {}, offsets {} to {}",
        read_partition(row)?,
        range.start,
        range.end
    );
    let total: IngestCounts = from_json(&text(row, "counts_json")?, &what)?;
    let stored = text(row, "minutes_hex")?;
    let bytes = super::realtime::unhex(unsealed(&stored, &what)?)?;
    let minutes = MinuteCounts::decode(&bytes).filter(|minutes| minutes.total() == total);
    minutes.ok_or_else(|| {
        Error::data_loss(format!(
            "metastore: {what}: its minutes do not add up to its counts"
        ))
    })
}

/// The entries of a partition, by their offsets.
async fn entries(
    connection: &mut Connection,
    table: &str,
    partition: &StreamPartition,
) -> Result<Vec<LedgerEntry>> {
    let sums = of_partition!(
        "SELECT start_offset, end_offset, kind, counts_json",
        "ORDER BY start_offset, end_offset, kind"
    );
    let rows = about(sums, table, partition)
        .fetch_all(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    let entries = rows.iter().map(|row| {
        let (range, kind) = read_place(row)?;
        let counts = from_json(&text(row, "counts_json")?, "the ledger's entry");
        Ok(LedgerEntry {
            range,
            kind,
            counts: counts.map_err(|e| e.message().to_owned()),
        })
    });
    entries.collect()
}

async fn partitions(connection: &mut Connection, table: &str) -> Result<Vec<PartitionRecord>> {
    let rows = sqlx::query(
        "SELECT * FROM partitions WHERE table_name = $1 ORDER BY stream, topic, partition_number",
    )
    .bind(table)
    .fetch_all(connection)
    .await
    .map_err(|e| sql_error("read", &e))?;
    rows.iter().map(read_progress).collect()
}

/// The ledger of a table's partitions.
pub(super) async fn read(connection: &mut Connection, table: &str) -> Result<Vec<PartitionLedger>> {
    let mut all = Vec::new();
    for record in partitions(connection, table).await? {
        let entries = entries(connection, table, &record.partition).await?;
        all.push(PartitionLedger { record, entries });
    }
    Ok(all)
}

/// The counts of a partition's entries by event time, in about `buckets_max` buckets; of entries that begin before
/// `from_offset` without event time.
pub(super) async fn minutes(
    connection: &mut Connection,
    table: &str,
    partition: &StreamPartition,
    (from_offset, buckets_max): (u64, usize),
) -> Result<(PartitionRecord, MinuteCounts)> {
    let records = partitions(connection, table).await?;
    let record = records.into_iter().find(|r| r.partition == *partition);
    let record = record.ok_or_else(|| {
        Error::not_found(format!(
            "table {table}: {partition} is not consumed any more"
        ))
    })?;
    let mut all = MinuteCounts::default();
    // One at a time: together they may be larger than what is made of them.
    let each = of_partition!("SELECT *", "ORDER BY start_offset, end_offset");
    let mut rows = about(each, table, partition).fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(|e| sql_error("read", &e))? {
        let minutes = read_minutes(&row)?;
        match read_place(&row)?.0.start < from_offset {
            true => all.merge(&minutes.total().into()),
            false => all.merge(&minutes),
        }
        all.bound(buckets_max);
    }
    Ok((record, all))
}

/// The counts by event time of those entries of a partition that have offsets of a range.
pub(super) async fn minutes_of(
    connection: &mut Connection,
    table: &str,
    partition: &StreamPartition,
    range: OffsetRange,
) -> Result<MinuteCounts> {
    let common = of_partition!("SELECT *", "AND start_offset < $6 AND end_offset > $5");
    let query = about(common, table, partition)
        .bind(to_sql(range.start, "offset")?)
        .bind(to_sql(range.end, "offset")?);
    let mut all = MinuteCounts::default();
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(|e| sql_error("read", &e))? {
        all.merge(&read_minutes(&row)?);
        all.bound(BUCKETS_MAX);
    }
    Ok(all)
}
