//! A time range of a table is made again of the archive: `ALTER TABLE t REBUILD FROM .. TO ..`.
//!
//! All archived messages are decoded by the table's present config, as its consumers do, and the rows of the range become a push
//! that takes the place of what the offline half has of it. So queries see the old rows or the new ones, a push that is given up
//! leaves nothing, and it can be reverted.
//!
//! *Invariant*: at the moment of the push its rows are those of all messages that queries could have seen rows of. Messages are read
//! up to the committed offsets, which are in the archive, in rounds while consumption goes on; for the last round, which is a
//! short one, consumers rest, what they have read is committed, and nothing is read until the push is done. What comes later is hidden, as
//! it is by every push. Committed offsets that the archive lacks are refused, unless the ledger knows of no message of these times among
//! them.
//!
//! In memory are a block of messages, the rows of it, and one segment in the making.

mod reading;

use super::build::{BuiltSegment, SEGMENT_ROWS_DEFAULT};
use super::load::{Loader, Made, PushRequest, StagedFiles};
use super::realtime::RealtimeTables;
use super::tail::Tail;
use reading::{Counts, Reading, Rows};
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::coverage::Interval;
use strandline_proto::ids::{Half, OffsetRange};
use strandline_proto::{Error, Result};
use strandline_storage::archive;
use strandline_storage::config::{PushType, TableConfig};
use strandline_storage::meta::TableRecord;
use strandline_storage::meta::ledger::{EntryKind, PartitionLedger};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// Rounds that are read while consumption goes on, at most.
const ROUNDS_MAX: u32 = 4;
/// A round of fewer messages is followed by the last one.
const ROUND_MESSAGES_MIN: u64 = 20_000;
/// How long a round waits until what was read is committed, and how often the last one looks.
const REST_MAX: Duration = Duration::from_secs(120);
const REST_PERIOD: Duration = Duration::from_millis(10);
/// How often it is tried to publish what became of a push whose answer was lost.
const SHOW_PAUSE: Duration = Duration::from_millis(200);

/// What a rebuilt range was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// The push that it is, by which it can be reverted.
    pub push_id: String,
    /// Archived messages that were read.
    pub messages: u64,
    /// Of their rows, those that the table's filter left out.
    pub filtered: u64,
    /// Of the messages, those that gave no row because they can't be decoded.
    pub failed: u64,
    /// Rows of other times.
    pub outside: u64,
    /// Rows of the range.
    pub rows: u64,
    /// Segments that they are in.
    pub segments: u64,
}

/// Makes ranges again of the archive.
pub struct Rebuilder {
    /// Pushes them.
    pub loader: Loader,
    /// Consumes their tables.
    pub realtime: Arc<RealtimeTables>,
}

/// A table whose range is to be rebuilt, as it was when that began.
struct Plan {
    name: String,
    interval: Interval,
    offline: Arc<TableConfig>,
    realtime: Arc<TableConfig>,
}

/// A table's consumers rest until this goes.
struct Resting<'a> {
    realtime: &'a RealtimeTables,
    table: &'a str,
    /// Whether they were to pause anyway.
    paused: bool,
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.realtime.set_paused(self.table, self.paused);
    }
}

impl Rebuilder {
    /// Makes a range of a table's times again. Dropping the future gives it up and leaves nothing. `tables_change` is held while a
    /// change of the table, its schema or its configs would be missed.
    ///
    /// # Errors
    /// `FailedPrecondition` where the archive does not have all that was read, where something else is missing for it, or
    /// when the table is changed meanwhile; nothing of it is then in the table.
    pub async fn rebuild(
        &self,
        table: &str,
        interval: Interval,
        tables_change: &Mutex<()>,
    ) -> Result<Rebuilt> {
        let plan = self.plan(table, interval).await?;
        let places = &self.loader.places;
        let staged_files = StagedFiles::new(places, "rebuild")?;
        let run = &places.environment.random.uuid().simple().to_string()[..12];
        let push_id = format!("rebuild-{run}");
        let (made, segments) = unbounded_channel();
        let (end, ended) = oneshot::channel();
        let reading = async {
            let read = self.read(&plan, &staged_files, made, tables_change).await;
            let (read, kept) = match read {
                Ok((counts, kept)) => (Ok(counts), Some(kept)),
                Err(e) => (Err(e), None),
            };
            // Nobody asks any more when the push has failed.
            let _ = end.send(read.as_ref().map(|c| c.filtered).map_err(Clone::clone));
            (read, kept)
        };
        let made = Made::Here {
            segments,
            ended,
            filtered: 0,
        };
        let request = PushRequest::of_rebuilt(push_id.clone(), interval);
        let pushing = self.loader.push(&plan.offline, request, made);
        // Both futures are large.
        let ((read, kept), pushed) = tokio::join!(Box::pin(reading), Box::pin(pushing));
        if pushed.is_err() && kept.is_some() {
            self.show().await;
        }
        // Only now may consumers go on, and the table change.
        drop(kept);
        let pushed = pushed?;
        let counts = read?;
        let rebuilt = Rebuilt {
            push_id,
            messages: counts.messages,
            filtered: counts.filtered,
            failed: counts.failed,
            outside: counts.outside,
            rows: pushed.rows,
            segments: pushed.segments,
        };
        tracing::info!(
            table,
            start_ms = interval.start_ms,
            end_ms = interval.end_ms,
            ?rebuilt,
            "rebuilt"
        );
        Ok(rebuilt)
    }

    /// Publishes what the metastore has: a push may have been made of which only the answer was lost, and rows that come after it would
    /// be seen until it is published, and then not any more.
    async fn show(&self) {
        let places = &self.loader.places;
        let clock = &places.environment.clock;
        let began = clock.monotonic();
        while let Err(e) = places.publisher.publish().await {
            if clock.monotonic().saturating_sub(began) > REST_MAX {
                tracing::warn!(error = %e, "consumption goes on before it is known what became of a rebuilt range");
                return;
            }
            clock.sleep(SHOW_PAUSE).await;
        }
    }

    /// Looks whether the range can be rebuilt at all.
    async fn plan(&self, table: &str, interval: Interval) -> Result<Plan> {
        let refuse = |why: &str| Err(Error::precondition(format!("table {table}: {why}")));
        if interval.start_ms >= interval.end_ms {
            return Err(Error::invalid(
                "the range to rebuild is empty: its end must be after its start",
            ));
        }
        let publisher = &self.loader.places.publisher;
        let Some(realtime) = publisher.config(table, Half::Realtime) else {
            return refuse(
                "it has no REALTIME half, whose config says how archived messages become rows; create it (strandline table create) with stream.T.archive true, and try again",
            );
        };
        let Some(offline) = publisher.config(table, Half::Offline) else {
            return refuse(
                "it has no OFFLINE half, which a rebuilt range goes into; create it (strandline table create) with the same schema and time column, and try again",
            );
        };
        if realtime.keys.is_some() {
            return Err(Error::unsupported(format!(
                "not supported: rebuilding a range of table {table}, whose rows have keys (upsertConfig, dedupConfig); drop its REALTIME half and create it again, which reads all of the archive"
            )));
        }
        if offline.push_type == PushType::Refresh {
            return Err(Error::unsupported(format!(
                "not supported: rebuilding a range of table {table}, whose loads replace all of its OFFLINE half (segmentPushType REFRESH)"
            )));
        }
        if offline.time_column.is_none() {
            return refuse("it has no time column, by which the range could be told");
        }
        if self.realtime.streams(table).is_empty() {
            return refuse("its streams are not consumed; see system.ingestion and the log");
        }
        let plan = Plan {
            name: table.to_owned(),
            interval,
            offline,
            realtime,
        };
        self.record(&plan).await?;
        Ok(plan)
    }

    /// The table as it is stored, when it is still what the plan is for.
    async fn record(&self, plan: &Plan) -> Result<Arc<TableRecord>> {
        let Plan { name, .. } = plan;
        let changed = || {
            Error::precondition(format!(
                "table {name}: it, its schema or its config was changed while the range was rebuilt; nothing of that was kept, run the statement again"
            ))
        };
        let publisher = &self.loader.places.publisher;
        for planned in [&plan.offline, &plan.realtime] {
            let now = publisher.config(name, planned.half).ok_or_else(changed)?;
            let version = |config: &TableConfig| config.spec.schema.version;
            if now.json != planned.json || version(&now) != version(planned) {
                return Err(changed());
            }
        }
        let state = self.loader.places.metastore.state().await?;
        let record = state.table(name).ok_or_else(changed)?;
        if record.coverage.pinned_at_ms.is_some() {
            return Err(Error::precondition(format!(
                "table {name}: its boundary is pinned, which decides whose rows of the range count; release it (ALTER TABLE {name} RELEASE BOUNDARY), and try again"
            )));
        }
        Ok(Arc::clone(record))
    }

    /// Makes segments of the range, up to a moment that lasts as long as what is given beside the counts.
    async fn read<'a>(
        &'a self,
        plan: &'a Plan,
        staged_files: &StagedFiles,
        made: UnboundedSender<BuiltSegment>,
        tables_change: &'a Mutex<()>,
    ) -> Result<(Counts, (Resting<'a>, tokio::sync::MutexGuard<'a, ()>))> {
        let places = &self.loader.places;
        let mut readings = Vec::new();
        let mut rows = Rows::new(
            (&plan.offline, SEGMENT_ROWS_DEFAULT, staged_files.dir()),
            plan.interval,
            &places.environment,
        )?;
        for _ in 0..ROUNDS_MAX {
            self.commit(plan).await?;
            let record = self.record(plan).await?;
            let before = rows.counts().messages;
            rows = self
                .read_round(plan, &record, &mut readings, (rows, &made))
                .await?;
            if rows.counts().messages - before < ROUND_MESSAGES_MIN {
                break;
            }
        }
        let unchanged = tables_change.lock().await;
        let record = self.record(plan).await?;
        let resting = self.rest(plan, &record).await?;
        let record = self.record(plan).await?;
        rows = self
            .read_round(plan, &record, &mut readings, (rows, &made))
            .await?;
        let counts = rows.finish(&places.environment, &made).await?;
        Ok((counts, (resting, unchanged)))
    }

    /// Reads on in each partition up to its committed offset.
    async fn read_round(
        &self,
        plan: &Plan,
        record: &TableRecord,
        readings: &mut Vec<Reading>,
        (mut rows, made): (Rows, &UnboundedSender<BuiltSegment>),
    ) -> Result<Rows> {
        let places = &self.loader.places;
        let ledgers = places.metastore.ledger(&plan.name).await?;
        let streams = self.realtime.streams(&plan.name);
        let mut ends = Vec::new();
        // What is missing is told before much is read.
        for partition in &record.partitions {
            let id = &partition.partition;
            let at = readings.iter().position(|r| r.partition() == id);
            let at = match at {
                Some(at) => at,
                None => {
                    let mut consumed = streams.iter();
                    let stream = consumed.find(|s| (&s.id, &s.topic) == (&id.stream, &id.topic));
                    let Some(stream) = stream else {
                        if partition.next_offset == partition.first_offset {
                            continue;
                        }
                        return Err(Error::precondition(format!(
                            "table {}: {id} was read by an earlier config, and by the present one nobody knows what rows its messages are; add its stream to streamConfigMaps again, and try again",
                            plan.name
                        )));
                    };
                    let reading = Reading::new(places, &plan.realtime, (id, stream)).await?;
                    readings.push(reading);
                    readings.len() - 1
                }
            };
            let Some(reading) = readings.get_mut(at) else {
                continue;
            };
            let committed = OffsetRange {
                start: partition.first_offset,
                end: partition.next_offset,
            };
            reading.look().await?;
            let missing = archive::missing(reading.objects(), committed);
            let ledger = ledgers.iter().find(|l| l.record.partition == *id);
            let missing = ledger.map_or(missing.clone(), |l| unexplained(l, &missing));
            for range in missing {
                // What an earlier version read has no minutes.
                let is_known = partition.ledger_offset <= range.start;
                let minutes = places
                    .metastore
                    .ledger_minutes_of(&plan.name, id, range)
                    .await?;
                if !is_known || minutes.reaches(plan.interval) {
                    return Err(not_archived(&plan.name, reading, range));
                }
            }
            ends.push((at, committed));
        }
        for (at, committed) in ends {
            if let Some(reading) = readings.get_mut(at) {
                rows = reading
                    .read_to(committed, &places.environment, (rows, made))
                    .await?;
            }
        }
        Ok(rows)
    }

    /// Has the table's consumers read nothing more, and waits until all that they have read is committed.
    async fn rest<'a>(&'a self, plan: &'a Plan, record: &TableRecord) -> Result<Resting<'a>> {
        let resting = Resting {
            realtime: &self.realtime,
            table: &plan.name,
            paused: record.paused_ms.is_some(),
        };
        self.realtime.set_paused(&plan.name, true);
        let places = &self.loader.places;
        let clock = &places.environment.clock;
        let hosted = places.publisher.registry().table(&plan.name);
        let began = clock.monotonic();
        for tail in hosted.tails() {
            tail.request_seal();
        }
        loop {
            let tails = hosted.tails();
            let awaited = tails
                .iter()
                .find(|tail| tail.is_reading() || *tail.committed().borrow() < tail.watermark());
            let Some(awaited) = awaited else {
                return Ok(resting);
            };
            if clock.monotonic().saturating_sub(began) > REST_MAX {
                return Err(not_committed(&plan.name, Some(awaited)));
            }
            clock.sleep(REST_PERIOD).await;
        }
    }

    /// Waits until what is read now is committed.
    async fn commit(&self, plan: &Plan) -> Result<()> {
        let places = &self.loader.places;
        tokio::select! {
            biased;
            committed = self.realtime.commit(&plan.name) => {
                if committed.is_err() {
                    // Consumers that were stopped were so for a change, which says more.
                    self.record(plan).await?;
                }
                committed
            }
            () = places.environment.clock.sleep(REST_MAX) => {
                let tails = places.publisher.registry().table(&plan.name).tails();
                let mut tails = tails.iter();
                let awaited = tails.find(|tail| *tail.committed().borrow() < tail.watermark());
                Err(not_committed(&plan.name, awaited))
            }
        }
    }
}

fn not_committed(table: &str, awaited: Option<&Arc<Tail>>) -> Error {
    let why = awaited.map_or_else(String::new, |tail| {
        let status = tail.status();
        let error = match status.error() {
            "" => String::new(),
            error => format!(": {error}"),
        };
        format!(" ({} is {}{error})", tail.partition(), status.state)
    });
    Error::unavailable(format!(
        "table {table}: what was read of its streams is not committed after {} s{why}; nothing was rebuilt, try again when system.ingestion shows no error",
        REST_MAX.as_secs()
    ))
}

/// Those of offsets that the archive lacks whose partition has not lost as many when it read them: these have no message anywhere.
fn unexplained(ledger: &PartitionLedger, missing: &[OffsetRange]) -> Vec<OffsetRange> {
    let common = |a: &OffsetRange, b: &OffsetRange| {
        let (start, end) = (a.start.max(b.start), a.end.min(b.end));
        (start < end).then_some(OffsetRange { start, end })
    };
    let read = ledger.entries.iter().filter(|e| e.kind == EntryKind::Read);
    let mut next = ledger.record.first_offset;
    let mut found: Vec<OffsetRange> = Vec::new();
    let mut note = |range: OffsetRange, lost: u64| {
        let within: Vec<_> = missing.iter().filter_map(|m| common(m, &range)).collect();
        let offsets: u64 = within.iter().map(|r| r.end - r.start).sum();
        if offsets > lost {
            found.extend(within);
        }
    };
    for entry in read {
        let before = OffsetRange {
            start: next,
            end: entry.range.start,
        };
        note(before, 0);
        note(entry.range, entry.counts.as_ref().map_or(0, |c| c.lost));
        next = next.max(entry.range.end);
    }
    let behind = OffsetRange {
        start: next,
        end: ledger.record.next_offset,
    };
    note(behind, 0);
    let mut joined: Vec<OffsetRange> = Vec::new();
    for range in found {
        match joined.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

fn not_archived(table: &str, reading: &Reading, first: OffsetRange) -> Error {
    let kind = reading.stream_kind();
    let what = format!(
        "table {table}: {}: offsets {} to {} were read and are not in the archive, and rows of the range were or may be in their messages",
        reading.partition(),
        first.start,
        first.end
    );
    let remedy = match reading.archives() {
        true => format!(
            "choose times that came later, put their files back into the archive's folder from a backup, or drop {table}_REALTIME and create it again while the topic still has them, which archives them"
        ),
        false => format!(
            "set stream.{kind}.archive to true and choose times that come later, or drop {table}_REALTIME and create it again while the topic still has them, which archives them"
        ),
    };
    Error::precondition(format!("{what}: {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_proto::ids::StreamPartition;
    use strandline_storage::meta::ledger::LedgerEntry;
    use strandline_storage::meta::{IngestCounts, PartitionRecord};

    fn range(start: u64, end: u64) -> OffsetRange {
        OffsetRange { start, end }
    }

    #[test]
    fn only_what_was_lost_may_be_missing() {
        let entry = |start, end, lost| LedgerEntry {
            range: range(start, end),
            kind: EntryKind::Read,
            counts: Ok(IngestCounts {
                lost,
                ..IngestCounts::NONE
            }),
        };
        let partition = StreamPartition {
            stream: "log".into(),
            topic: "t".into(),
            partition: 0,
        };
        // What an earlier version read has no entry.
        let ledger = PartitionLedger {
            record: PartitionRecord {
                partition,
                first_offset: 5,
                next_offset: 50,
                counts: IngestCounts::NONE,
                ledger_offset: 10,
            },
            entries: vec![entry(10, 20, 0), entry(20, 30, 4), entry(30, 50, 3)],
        };
        let unexplained_of = |missing: &[(u64, u64)]| {
            let missing: Vec<_> = missing.iter().map(|(s, e)| range(*s, *e)).collect();
            let found = unexplained(&ledger, &missing);
            found.iter().map(|r| (r.start, r.end)).collect::<Vec<_>>()
        };
        assert_eq!(unexplained_of(&[]), []);
        assert_eq!(unexplained_of(&[(20, 24)]), []);
        assert_eq!(unexplained_of(&[(26, 33)]), []);
        assert_eq!(unexplained_of(&[(26, 34)]), [(30, 34)]);
        assert_eq!(unexplained_of(&[(21, 22), (23, 28)]), [(21, 22), (23, 28)]);
        assert_eq!(unexplained_of(&[(6, 8), (21, 22)]), [(6, 8)]);
        assert_eq!(unexplained_of(&[(9, 12)]), [(9, 12)]);
        assert_eq!(unexplained_of(&[(19, 24)]), [(19, 20)]);
        assert_eq!(unexplained_of(&[(15, 28)]), [(15, 28)]);
    }
}
