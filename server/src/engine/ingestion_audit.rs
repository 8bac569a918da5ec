//! `system.ingestion_audit`: what became of each table's messages, by partition and minute of event time.
//!
//! What was read comes from the ledger, and for what is not committed from memory; what is there comes from queries. So in each
//! row the one is a check of the other. Both are of one moment: of each partition only rows before an offset are looked at,
//! up to which messages were counted, and what changes otherwise in between makes it begin again.

use super::{Engine, quoted};
use crate::host::system::Cell;
use crate::host::tail::TailAccount;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Int64Type, TimeUnit};
use futures::TryStreamExt;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;
use strandline_broker::QueryRequest;
use strandline_proto::ids::Half;
use strandline_proto::schema::DataType;
use strandline_proto::time_format::TimeFormat;
use strandline_proto::{Error, Result};
use strandline_storage::meta::minutes::{Bucket, MinuteCounts, SPANS_MS};
use strandline_storage::meta::{IngestCounts, Metastore, PartitionRecord, TableRecord};
use strandline_storage::segment::event_time::EventTime;

/// How often a table is looked at again while segments change under it.
const ATTEMPTS_MAX: u32 = 50;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Rows of one table, about: with more, its minutes are shown as hours, days or thousands of days.
const BUCKETS_MAX: usize = 100_000;
/// Rows of one partition that are shown in any case, about.
const BUCKETS_MIN: usize = 4_000;

/// One row: the counts of one bucket.
#[derive(Clone, Copy, Default)]
struct Row {
    counts: IngestCounts,
    /// Rows in committed and in consuming segments.
    committed: u64,
    consuming: u64,
    /// Those of them that no newer row of their key has superseded.
    current: u64,
    /// Those of them that a query of the table counts.
    counted: u64,
}

/// The rows of one partition.
struct Partition {
    record: PartitionRecord,
    tail: Option<TailAccount>,
    not_read: u64,
    /// What became of its messages.
    minutes: MinuteCounts,
    rows: BTreeMap<Option<Bucket>, Row>,
}

impl Partition {
    /// The row that counts what is of a minute; none: of no time.
    fn row(&mut self, minute_ms: Option<i64>) -> &mut Row {
        let minute = |start_ms| Bucket {
            start_ms,
            span_ms: SPANS_MS[0],
        };
        let is_full = self.rows.len() > self.minutes.len() + BUCKETS_MIN;
        let bucket = minute_ms.and_then(|ms| {
            let known = self.minutes.bucket_of(ms);
            // What the ledger does not know is wrong, and must not take all memory.
            known.or_else(|| (!is_full).then(|| minute(ms)))
        });
        self.rows.entry(bucket).or_default()
    }
}

/// Where a segment's rows are counted.
#[derive(Clone, Copy)]
struct Place {
    partition: usize,
    committed: bool,
    /// Whether the ledger tells minutes of its offsets.
    has_minutes: bool,
}

impl Engine {
    /// The rows of the system table, of all tables that have a stream.
    pub(super) async fn system_ingestion_audit(&self) -> Result<Vec<Vec<Cell>>> {
        let mut cells = Vec::new();
        let state = self.metastore.state().await?;
        for table in state.tables.iter().filter(|t| t.realtime_json.is_some()) {
            let name = &table.name;
            let partitions = self.audit_minutes(name).await;
            for partition in partitions.map_err(|e| e.at(format_args!("table {name}")))? {
                let rows = partition.rows.iter();
                cells.extend(rows.map(|(bucket, row)| show(name, &partition, *bucket, row)));
            }
        }
        Ok(cells)
    }

    async fn audit_minutes(&self, table: &str) -> Result<Vec<Partition>> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(partitions) = self.try_audit_minutes(table).await? {
                return Ok(partitions);
            }
            self.environment.clock.sleep(PAUSE).await;
        }
        Err(Error::unavailable(
            "its segments changed all the while, so its minutes could not be read at one moment; ask again",
        ))
    }

    /// None when something changed in between.
    async fn try_audit_minutes(&self, table: &str) -> Result<Option<Vec<Partition>>> {
        let state = self.metastore.state().await?;
        let Some(record) = state.table(table) else {
            return Ok(Some(Vec::new()));
        };
        let Some((mut partitions, places)) = self.audit_ledger(record).await? else {
            return Ok(None);
        };
        let state = self.metastore.state().await?;
        if state
            .table(table)
            .is_none_or(|now| now.partitions != record.partitions)
        {
            return Ok(None);
        }
        self.audit_segments(record, &mut partitions, &places)
            .await?;
        let state = self.metastore.state().await?;
        let tails = self.registry.table(table).tails();
        let in_memory = tails.iter().flat_map(|tail| tail.segments());
        let in_memory: HashSet<_> = in_memory.map(|s| s.name().clone()).collect();
        let is_there = |now: &TableRecord| {
            let mut realtime = record.segments.iter().filter(|s| s.origin.is_some());
            // What was in memory may have been committed meanwhile, and be another segment already.
            let tails = partitions.iter().filter_map(|p| p.tail.as_ref());
            let mut consuming = tails
                .flat_map(|tail| &tail.segments)
                .filter(|(_, _, counts)| counts.total().indexed > 0);
            realtime.all(|s| now.has(&s.name, s.checksum))
                && consuming.all(|(name, ..)| {
                    now.segments.iter().any(|s| s.name == *name) || in_memory.contains(name)
                })
        };
        let is_same = state.table(table).is_some_and(|now| is_there(now));
        Ok(is_same.then_some(partitions))
    }

    /// What became of a table's messages, and where rows of its segments are to be counted.
    async fn audit_ledger(
        &self,
        table: &TableRecord,
    ) -> Result<Option<(Vec<Partition>, HashMap<String, Place>)>> {
        let hosted = self.registry.table(&table.name);
        let ledgers = self.metastore.ledger(&table.name).await?;
        let buckets_max = (BUCKETS_MAX / table.partitions.len().max(1)).max(BUCKETS_MIN);
        let mut partitions = Vec::new();
        let mut places = HashMap::new();
        for (at, record) in table.partitions.iter().enumerate() {
            let ledger = ledgers.iter().find(|l| l.record == *record);
            let Some(ledger) = ledger else {
                return Ok(None);
            };
            let of_partition = table.segments.iter().filter_map(|segment| {
                let (of, range) = segment.origin.as_ref()?;
                (*of == record.partition).then_some((&segment.name, *range))
            });
            let before_end = ledger.before_end(of_partition.clone().map(|(_, range)| range));
            let read = self
                .metastore
                .ledger_minutes(&table.name, &record.partition, before_end, buckets_max)
                .await?;
            let (of_minutes, mut minutes) = read;
            if of_minutes != *record {
                return Ok(None);
            }
            minutes.add(None, ledger.rest());
            for (name, range) in of_partition {
                let place = Place {
                    partition: at,
                    committed: true,
                    has_minutes: range.start >= before_end,
                };
                places.insert(name.to_string(), place);
            }
            let tails = hosted.tails();
            let tail = tails.iter().find(|t| *t.partition() == record.partition);
            let account = tail.map(|tail| tail.account(record.next_offset));
            for (name, _, counts) in account.iter().flat_map(|account| &account.segments) {
                minutes.merge(counts);
                let place = Place {
                    partition: at,
                    committed: false,
                    has_minutes: true,
                };
                places.insert(name.to_string(), place);
            }
            minutes.bound(buckets_max);
            let counted_to = account
                .as_ref()
                .map_or(record.next_offset, |a| a.counted_to);
            let stream_end = tail.map_or(0, |tail| tail.status().stream_end);
            let timeless = Row {
                counts: minutes.timeless(),
                ..Row::default()
            };
            let of_bucket = |(bucket, counts): (Bucket, &IngestCounts)| {
                let counts = *counts;
                let row = Row {
                    counts,
                    ..Row::default()
                };
                (Some(bucket), row)
            };
            let rows = minutes.buckets().map(of_bucket);
            partitions.push(Partition {
                record: record.clone(),
                tail: account,
                not_read: stream_end.saturating_sub(counted_to),
                rows: rows.chain([(None, timeless)]).collect(),
                minutes,
            });
        }
        Ok(Some((partitions, places)))
    }

    /// Counts the rows that are there.
    async fn audit_segments(
        &self,
        table: &TableRecord,
        partitions: &mut [Partition],
        places: &HashMap<String, Place>,
    ) -> Result<()> {
        let config = self.publisher.config(&table.name, Half::Realtime);
        let Some(config) = config else {
            return Ok(());
        };
        let time = EventTime::of(&config.spec.schema, config.time_column.as_deref());
        let has_keys = config.keys.is_some();
        let is_hybrid = table.offline_json.is_some();
        let realtime = quoted(&format!("{}_{}", table.name, Half::Realtime));
        let known = known_rows(partitions);
        let select = |rows: &str, table: &str| {
            let minute = minute_sql(time.as_ref());
            format!(
                "SELECT '{rows}' AS what, \"$segment\" AS segment, {minute} AS minute, count(*) AS n FROM {table} WHERE \"$partition\" IS NOT NULL{known} GROUP BY \"$segment\", {minute}"
            )
        };
        let there = select("there", &realtime);
        let mut statements = vec![match has_keys {
            true => format!("SET skipUpsert = true; {there}"),
            false => there,
        }];
        // Of one snapshot: what is superseded, and what is hidden, changes while rows come.
        let mut same = Vec::new();
        if has_keys {
            same.push(select("current", &realtime));
        }
        if is_hybrid {
            same.push(select("counted", &quoted(&table.name)));
        }
        if !same.is_empty() {
            statements.push(same.join(" UNION ALL "));
        }
        for sql in statements {
            let answer = self.broker.query(QueryRequest::new(sql)).await?;
            let mut batches = answer.batches;
            while let Some(batch) = batches.try_next().await? {
                let wrong = |_| Error::internal("minutes and segments came in another form");
                let column = |at: usize, data_type: &ArrowType| {
                    cast(batch.column(at), data_type).map_err(wrong)
                };
                let (what, names) = (column(0, &ArrowType::Utf8)?, column(1, &ArrowType::Utf8)?);
                let numbers = column(3, &ArrowType::Int64)?;
                let minutes = minutes_of(time.as_ref(), batch.column(2))?;
                let (what, names) = (what.as_string::<i32>(), names.as_string::<i32>());
                let numbers = numbers.as_primitive::<Int64Type>();
                for (row, minute) in minutes.into_iter().enumerate() {
                    // Segments that are not known came later.
                    let Some(place) = places.get(names.value(row)) else {
                        continue;
                    };
                    let Some(partition) = partitions.get_mut(place.partition) else {
                        continue;
                    };
                    let rows = numbers.value(row).unsigned_abs();
                    let into = partition.row(minute.filter(|_| place.has_minutes));
                    match (what.value(row), place.committed) {
                        ("there", true) => into.committed += rows,
                        ("there", false) => into.consuming += rows,
                        ("current", _) => into.current += rows,
                        _ => into.counted += rows,
                    }
                }
            }
        }
        for row in partitions.iter_mut().flat_map(|p| p.rows.values_mut()) {
            if !has_keys {
                row.current = row.committed + row.consuming;
            }
            if !is_hybrid {
                row.counted = row.current;
            }
        }
        Ok(())
    }
}

/// What leaves out rows that are visible and not counted yet.
fn known_rows(partitions: &[Partition]) -> String {
    let conditions = partitions.iter().filter_map(|partition| {
        let account = partition.tail.as_ref()?;
        let (active, _, _) = account.segments.last()?;
        let name = active.as_str().replace('\'', "''");
        Some(format!(
            " AND NOT (\"$segment\" = '{name}' AND \"$offset\" >= {})",
            account.counted_to
        ))
    });
    conditions.collect()
}

/// Milliseconds of a step of a column of numbers.
fn step_ms(time: &EventTime) -> Option<i64> {
    match (time.column().data_type, time.format()) {
        (DataType::Int | DataType::Long, TimeFormat::Epoch { size, unit }) => {
            Some(i64::from(*size) * unit.millis())
        }
        (DataType::Int | DataType::Long, TimeFormat::Timestamp) => Some(1),
        _ => None,
    }
}

/// The steps that a minute has, where they are several.
fn steps_of_minute(time: &EventTime) -> Option<i64> {
    let step_ms = step_ms(time)?;
    (step_ms < SPANS_MS[0] && SPANS_MS[0] % step_ms == 0).then(|| SPANS_MS[0] / step_ms)
}

/// An expression of which there is one value a minute, where the column can be brought to minutes; else the column.
fn minute_sql(time: Option<&EventTime>) -> String {
    let Some(time) = time else {
        return "CAST(NULL AS BIGINT)".to_owned();
    };
    let column = quoted(&time.column().name);
    match (time.column().data_type, steps_of_minute(time)) {
        (DataType::Timestamp, _) => format!("date_trunc('minute', {column})"),
        (_, Some(steps)) => {
            let below = steps - 1;
            format!(
                "CASE WHEN {column} >= 0 THEN {column} / {steps} ELSE ({column} - {below}) / {steps} END"
            )
        }
        _ => column,
    }
}

/// The minutes that values of [`minute_sql`] are, by their first instants in milliseconds since the epoch.
fn minutes_of(time: Option<&EventTime>, values: &ArrayRef) -> Result<Vec<Option<i64>>> {
    let wrong = |_| Error::internal("minutes came in another form");
    let Some(time) = time else {
        return Ok(vec![None; values.len()]);
    };
    if steps_of_minute(time).is_some() {
        let minutes = cast(values, &ArrowType::Int64).map_err(wrong)?;
        let minutes = minutes.as_primitive::<Int64Type>();
        return Ok(minutes.iter().map(|m| Some(m? * SPANS_MS[0])).collect());
    }
    let data_type = match time.column().data_type {
        DataType::Timestamp => ArrowType::Timestamp(TimeUnit::Millisecond, None),
        _ => time.column().arrow_type(),
    };
    let values = cast(values, &data_type).map_err(wrong)?;
    let mut minutes = vec![None; values.len()];
    time.runs(&values, |minute, run| {
        for of_row in minutes.get_mut(run).into_iter().flatten() {
            *of_row = minute;
        }
    });
    Ok(minutes)
}

/// The cells of a row, in the order of the table's columns.
fn show(table: &str, partition: &Partition, bucket: Option<Bucket>, row: &Row) -> Vec<Cell> {
    let Row {
        counts,
        committed,
        consuming,
        current,
        counted,
    } = *row;
    let there = committed + consuming;
    let not_read = match bucket {
        Some(_) => 0,
        None => partition.not_read,
    };
    let mut cells = vec![
        Cell::Text(table.to_owned()),
        Cell::Text(partition.record.partition.to_string()),
        bucket.map_or(Cell::Null, |bucket| Cell::Time(bucket.start_ms)),
        bucket.map_or(Cell::Null, |bucket| {
            Cell::Long(bucket.span_ms.unsigned_abs())
        }),
    ];
    let numbers = [
        counts.read,
        counts.unnested,
        counts.indexed,
        counts.filtered,
        counts.deduplicated,
        counts.dead_lettered,
        committed,
        consuming,
        counts.moved,
        counts.deleted,
        counts.expired,
        counts.compacted,
        there.saturating_sub(current),
        current.saturating_sub(counted),
        counted,
        counts.lost,
        not_read,
    ];
    cells.extend(numbers.map(Cell::Long));
    cells
}

#[cfg(test)]
mod tests;
