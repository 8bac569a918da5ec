//! Whether a table's accounts add up to the row, from the stream to the answer.

use super::{Engine, quoted};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use strandline_broker::transport::CatalogSource;
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::ids::{Half, OffsetRange, SegmentName};
use strandline_proto::v1::{AuditReport, PartitionAudit};
use strandline_proto::{Error, ErrorKind, Result};
use strandline_storage::meta::ledger::{PartitionLedger, Problem};
use strandline_storage::meta::minutes::BUCKETS_MAX;
use strandline_storage::meta::{IngestCounts, Metastore, PartitionRecord, TableRecord};

/// How often the accounts are read again while rows come in between.
const ATTEMPTS_MAX: u32 = 50;
/// Between two readings.
const PAUSE: Duration = Duration::from_millis(20);

/// What one partition holds.
struct Held {
    committed_rows: u64,
    consuming_rows: u64,
    /// Offsets of each committed and consuming segment, ascending, with what is wrong with it, if anything.
    ranges: Vec<(u64, u64, Option<String>)>,
    /// Offsets and rows of the committed ones.
    committed: Vec<(OffsetRange, u64)>,
    watermark: u64,
    stream_end: u64,
}

impl Engine {
    /// Holds against each other what a table's partitions have read and what became of it, the segments that the metastore names
    /// and the files that are open, and what queries count.
    pub async fn audit(&self, name: &str) -> Result<AuditReport> {
        let name = self.table_snapshot(name)?.name.to_string();
        for _ in 0..ATTEMPTS_MAX {
            let before = self.accounts(&name).await?;
            let counted = self.counted_rows(&name).await?;
            let after = self.accounts(&name).await?;
            // What came in between belongs to no one moment.
            if let Some(mut accounts) = after.filter(|after| before.as_ref() == Some(after)) {
                self.read_ledger(&name, &mut accounts).await?;
                return self.judge(&name, accounts, counted);
            }
            self.environment.clock.sleep(PAUSE).await;
        }
        Err(Error::unavailable(format!(
            "table {name}: rows came in all the while, so its accounts could not be read at one moment; pause its consumption (ALTER TABLE {name} PAUSE CONSUMPTION) and ask again"
        )))
    }

    async fn counted_rows(&self, name: &str) -> Result<Counted> {
        let snapshot = self.table_snapshot(name)?;
        let mut counted = Counted::default();
        if snapshot.has_realtime {
            let table = quoted(&format!("{name}_{}", Half::Realtime));
            counted.realtime = self.count(&table).await?.0;
            counted.superseded = self.superseded_rows(&snapshot, Half::Realtime);
        }
        if snapshot.has_offline {
            let table = quoted(&format!("{name}_{}", Half::Offline));
            counted.offline = self.count(&table).await?.0;
            counted.superseded_offline = self.superseded_rows(&snapshot, Half::Offline);
        }
        Ok(counted)
    }

    /// Rows of a table's half that others of their keys have superseded.
    fn superseded_rows(&self, table: &TableSnapshot, half: Half) -> u64 {
        let hosted = self.registry.table(&table.name);
        let of_half = table.segments.iter().filter(|s| s.half == half);
        let mut names: BTreeSet<SegmentName> = of_half.map(|s| s.name.clone()).collect();
        let tails = hosted.tails().into_iter();
        for tail in tails.filter(|_| half == Half::Realtime) {
            names.extend(tail.segments().iter().map(|s| s.name().clone()));
        }
        names
            .iter()
            .filter_map(|name| hosted.superseded(name))
            .sum()
    }

    /// Reads what the ledger says of minutes: an entry of which that can't be read is wrong.
    async fn read_ledger(&self, name: &str, report: &mut AuditReport) -> Result<()> {
        let state = self.metastore.state().await?;
        let Some(record) = state.table(name) else {
            return Ok(());
        };
        for partition in &record.partitions {
            let of = &partition.partition;
            let shown = of.to_string();
            let mut audits = report.partitions.iter_mut();
            let audit = audits.find(|a| a.partition == shown && a.problem.is_empty());
            let read = self.metastore.ledger_minutes(name, of, 0, BUCKETS_MAX);
            match (audit, read.await) {
                (Some(audit), Err(e)) if e.kind() == ErrorKind::DataLoss => {
                    audit.problem = e.message().to_owned();
                }
                (Some(_), Err(e)) => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// The accounts as they are; none while something is written to them.
    async fn accounts(&self, name: &str) -> Result<Option<AuditReport>> {
        let state = self.metastore.state().await?;
        let record = state
            .table(name)
            .ok_or_else(|| Error::not_found(format!("no table {name}")))?;
        let offline = record.segments.iter().filter(|s| s.half == Half::Offline);
        let mut report = AuditReport {
            table: name.to_owned(),
            offline_rows: offline.map(|s| s.rows).sum(),
            ..AuditReport::default()
        };
        let ledgers = self.metastore.ledger(name).await?;
        for partition in &record.partitions {
            let ledger = ledgers.iter().find(|l| l.record == *partition);
            let (Some(ledger), Some(held)) = (ledger, self.held(record, partition)) else {
                return Ok(None);
            };
            let tail = self.tail_counts(name, partition);
            report.partitions.push(audit(ledger, &tail, held));
        }
        // Segments of partitions that are not known would be counted by nobody.
        let mut unknown: BTreeMap<String, u64> = BTreeMap::new();
        for segment in &record.segments {
            if let Some((partition, _)) = &segment.origin
                && !record.partitions.iter().any(|p| p.partition == *partition)
            {
                *unknown.entry(partition.to_string()).or_default() += segment.rows;
            }
        }
        for (partition, rows) in unknown {
            report.problems.push(format!(
                "{partition}: {rows} rows of segments of a partition that is not consumed"
            ));
        }
        Ok(Some(report))
    }

    /// What became of the messages that no committed segment holds.
    fn tail_counts(&self, table: &str, record: &PartitionRecord) -> IngestCounts {
        let tails = self.registry.table(table).tails();
        let tail = tails.iter().find(|t| *t.partition() == record.partition);
        tail.map_or_else(IngestCounts::default, |t| t.counts_from(record.next_offset))
    }

    /// What a partition holds; none while a batch is made visible and not counted yet.
    fn held(&self, table: &TableRecord, record: &PartitionRecord) -> Option<Held> {
        let hosted = self.registry.table(&table.name);
        let mut held = Held {
            committed_rows: 0,
            consuming_rows: 0,
            ranges: Vec::new(),
            committed: Vec::new(),
            watermark: record.next_offset,
            stream_end: 0,
        };
        for segment in &table.segments {
            let Some((partition, range)) = &segment.origin else {
                continue;
            };
            if *partition != record.partition {
                continue;
            }
            held.committed_rows += segment.rows;
            held.committed.push((*range, segment.rows));
            let wrong = match hosted.open(&segment.name, segment.checksum) {
                Ok(open) if open.info().rows == segment.rows => None,
                Ok(open) => Some(format!(
                    "segment {} holds {} rows, and {} were committed",
                    segment.name,
                    open.info().rows,
                    segment.rows
                )),
                Err(e) => Some(e.message().to_owned()),
            };
            held.ranges.push((range.start, range.end, wrong));
        }
        let tails = hosted.tails();
        if let Some(tail) = tails.iter().find(|t| *t.partition() == record.partition) {
            held.watermark = tail.watermark();
            held.stream_end = tail.status().stream_end;
            let account = tail.account(record.next_offset);
            if account.counted_to != held.watermark {
                return None;
            }
            let in_memory = tail.segments();
            for segment in in_memory
                .iter()
                .filter(|s| s.start_offset() >= record.next_offset)
            {
                let (start, end) = (segment.start_offset(), segment.next_offset());
                let rows = segment.rows();
                held.consuming_rows += rows;
                let mut counts = account.segments.iter();
                let counts = counts.find(|(name, ..)| name == segment.name());
                let indexed = counts.map_or(0, |(_, _, counts)| counts.total().indexed);
                let wrong = (indexed != rows).then(|| {
                    format!(
                        "{indexed} rows were put into the segment in memory, and {rows} are there"
                    )
                });
                if end > start {
                    held.ranges.push((start, end, wrong));
                }
            }
        }
        held.ranges.sort();
        Some(held)
    }

    /// The verdict.
    fn judge(&self, name: &str, mut report: AuditReport, counted: Counted) -> Result<AuditReport> {
        let sum =
            |of: fn(&PartitionAudit) -> u64| -> u64 { report.partitions.iter().map(of).sum() };
        let held = sum(|p| p.rows_committed) + sum(|p| p.rows_consuming);
        if counted.realtime + counted.superseded != held {
            report.problems.push(format!(
                "{name}_{}: its partitions hold {held} rows, and a query counts {}; {} are superseded",
                Half::Realtime,
                counted.realtime,
                counted.superseded
            ));
        }
        if counted.offline + counted.superseded_offline != report.offline_rows {
            let superseded = match counted.superseded_offline {
                0 => String::new(),
                rows => format!("; {rows} are superseded"),
            };
            report.problems.push(format!(
                "{name}_{}: its segments hold {} rows, and a query counts {}{superseded}",
                Half::Offline,
                report.offline_rows,
                counted.offline
            ));
        }
        let problems = report.partitions.iter().filter(|p| !p.problem.is_empty());
        let problems = problems.map(|p| format!("{}: {}", p.partition, p.problem));
        report.problems.extend(problems.collect::<Vec<_>>());
        report.exact = report.problems.is_empty();
        let snapshot = self.registry.snapshot();
        if let Some(table) = snapshot.tables.get(name) {
            let quarantined = self.registry.table(name).quarantined();
            let is_named = |n: &_| table.segments.iter().any(|s| s.name == *n);
            for (segment, error) in quarantined.iter().filter(|(n, _)| is_named(n)) {
                report.exact = false;
                report.problems.push(format!("segment {segment}: {error}"));
            }
        }
        Ok(report)
    }
}

/// Rows that queries count.
#[derive(Default)]
struct Counted {
    realtime: u64,
    offline: u64,
    /// Rows of the realtime half that do not count, because they are superseded.
    superseded: u64,
    /// The same of the offline half.
    superseded_offline: u64,
}

/// One partition's accounts, and the first that does not add up.
fn audit(ledger: &PartitionLedger, tail: &IngestCounts, held: Held) -> PartitionAudit {
    let record = &ledger.record;
    let counts = record.counts.plus(*tail);
    let mut audit = PartitionAudit {
        partition: record.partition.to_string(),
        first_offset: record.first_offset,
        next_offset: held.watermark,
        stream_end_offset: held.stream_end.max(held.watermark),
        messages_read: counts.read,
        rows_unnested: counts.unnested,
        rows_filtered: counts.filtered,
        rows_deduplicated: counts.deduplicated,
        dead_letters: counts.dead_lettered,
        rows_committed: held.committed_rows,
        rows_consuming: held.consuming_rows,
        rows_moved: counts.moved,
        rows_deleted: counts.deleted,
        rows_expired: counts.expired,
        rows_compacted: counts.compacted,
        offsets_lost: counts.lost,
        problem: String::new(),
    };
    audit.problem = first_problem(ledger, &counts, &held).unwrap_or_default();
    audit
}

fn first_problem(ledger: &PartitionLedger, counts: &IngestCounts, held: &Held) -> Option<String> {
    let record = &ledger.record;
    if let Some((start, end, wrong)) = held.ranges.iter().find(|(_, _, wrong)| wrong.is_some()) {
        return wrong
            .as_ref()
            .map(|wrong| format!("offsets {start} to {end}: {wrong}"));
    }
    for pair in held.ranges.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Some(format!(
                "offsets {} to {} are in two segments",
                pair[1].0,
                pair[0].1.min(pair[1].1)
            ));
        }
    }
    let first = held.ranges.first().map_or(held.watermark, |r| r.0);
    let last = held.ranges.last().map_or(record.first_offset, |r| r.1);
    if first < record.first_offset || last > held.watermark {
        return Some(format!(
            "segments hold offsets {first} to {last}, and {} to {} were read",
            record.first_offset, held.watermark
        ));
    }
    if let Some(Problem { range, wrong }) = ledger.first_problem(&held.committed) {
        return Some(format!("offsets {} to {}: {wrong}", range.start, range.end));
    }
    let rows = held.committed_rows + held.consuming_rows + counts.left();
    if rows != counts.indexed {
        // Where no row has left, a hole between segments must have been without rows.
        return Some(format!(
            "offsets {} to {}: {} rows were put into segments, and {rows} are there or left on purpose ({} moved, {} deleted, {} expired, {} compacted)",
            record.first_offset,
            held.watermark,
            counts.indexed,
            counts.moved,
            counts.deleted,
            counts.expired,
            counts.compacted
        ));
    }
    let ends = counts.ends();
    if counts.read + counts.unnested != ends {
        return Some(format!(
            "offsets {} to {}: {} messages gave {} rows more than one each, and {ends} rows and letters came of them",
            record.first_offset, held.watermark, counts.read, counts.unnested
        ));
    }
    let offsets = held.watermark.saturating_sub(record.first_offset);
    if counts.read + counts.lost > offsets {
        return Some(format!(
            "offsets {} to {} are {offsets}, and {} were read and {} lost",
            record.first_offset, held.watermark, counts.read, counts.lost
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_proto::ids::StreamPartition;
    use strandline_storage::meta::ledger::{EntryKind, LedgerEntry};

    fn counts(read: u64, indexed: u64, dead_lettered: u64) -> IngestCounts {
        IngestCounts {
            read,
            indexed,
            dead_lettered,
            ..IngestCounts::default()
        }
    }

    fn entry(start: u64, end: u64, kind: EntryKind, counts: IngestCounts) -> LedgerEntry {
        LedgerEntry {
            range: OffsetRange { start, end },
            kind,
            counts: Ok(counts),
        }
    }

    /// Two commits of ten offsets each, of which each has a dead letter.
    fn ledger() -> PartitionLedger {
        let commit = |start| entry(start, start + 10, EntryKind::Read, counts(10, 9, 1));
        PartitionLedger {
            record: PartitionRecord {
                partition: StreamPartition {
                    stream: "log".into(),
                    topic: "t".into(),
                    partition: 0,
                },
                first_offset: 10,
                next_offset: 30,
                counts: counts(20, 18, 2),
                ledger_offset: 10,
            },
            entries: vec![commit(10), commit(20)],
        }
    }

    /// Segments of offsets and rows.
    fn held(segments: &[(u64, u64, u64)]) -> Held {
        Held {
            committed_rows: segments.iter().map(|(_, _, rows)| rows).sum(),
            consuming_rows: 0,
            ranges: segments.iter().map(|(a, b, _)| (*a, *b, None)).collect(),
            committed: segments
                .iter()
                .map(|(start, end, rows)| {
                    let (start, end) = (*start, *end);
                    (OffsetRange { start, end }, *rows)
                })
                .collect(),
            watermark: 30,
            stream_end: 0,
        }
    }

    fn problem(ledger: &PartitionLedger, held: Held) -> String {
        audit(ledger, &IngestCounts::default(), held).problem
    }

    #[test]
    fn the_first_offsets_that_do_not_add_up_are_named() {
        let whole = || held(&[(10, 20, 9), (20, 30, 9)]);
        assert_eq!(problem(&ledger(), whole()), "");
        assert_eq!(problem(&ledger(), held(&[(10, 30, 18)])), "");
        for (held, expected) in [
            (
                held(&[(10, 21, 9), (20, 30, 9)]),
                "offsets 20 to 21 are in two segments",
            ),
            (held(&[(9, 20, 9), (20, 30, 9)]), "hold offsets 9 to 30"),
            (
                held(&[(10, 20, 9), (20, 30, 8)]),
                "offsets 20 to 30: 9 rows were put into segments, 0 of them left on purpose (0 moved, 0 deleted, 0 expired, 0 compacted), and 8 are there",
            ),
            (held(&[(10, 20, 9)]), "offsets 20 to 30: 9 rows were put"),
            // Merged segments are told as wholes.
            (held(&[(10, 30, 17)]), "offsets 10 to 30: 18 rows were put"),
        ] {
            let found = problem(&ledger(), held);
            assert!(found.contains(expected), "{found:?}, not {expected:?}");
        }
        type Damage = fn(&mut PartitionLedger);
        let damaged: [(Damage, &str); 7] = [
            (
                |ledger| drop(ledger.entries.remove(0)),
                "offsets 10 to 20: the ledger has no entry of them",
            ),
            (
                |ledger| drop(ledger.entries.pop()),
                "offsets 20 to 30: the ledger has no entry of them",
            ),
            (
                |ledger| ledger.entries[0].range.end = 22,
                "offsets 20 to 22: the ledger has two entries of them",
            ),
            (
                |ledger| ledger.entries[1].counts = Ok(counts(10, 9, 0)),
                "offsets 20 to 30: 10 messages gave 0 rows more than one each, and 9 rows and letters",
            ),
            (
                |ledger| ledger.entries[0].counts = Ok(counts(11, 9, 2)),
                "offsets 10 to 20: they are 10, and 11 were read",
            ),
            (
                |ledger| ledger.entries[0].counts = Err("not what was written".to_owned()),
                "offsets 10 to 20: not what was written",
            ),
            (
                |ledger| ledger.record.counts = counts(21, 18, 3),
                "offsets 10 to 30: the ledger's entries add up to",
            ),
        ];
        for (damage, expected) in damaged {
            let mut ledger = ledger();
            damage(&mut ledger);
            let found = problem(&ledger, whole());
            assert!(found.contains(expected), "{found:?}, not {expected:?}");
        }
        let mut damaged = whole();
        damaged.ranges[1].2 = Some("damaged".to_owned());
        assert_eq!(problem(&ledger(), damaged), "offsets 20 to 30: damaged");
    }

    #[test]
    fn rows_that_left_are_held_against_the_segments_that_they_left() {
        let mut moved = ledger();
        let left = IngestCounts {
            moved: 9,
            ..IngestCounts::default()
        };
        moved.record.counts = moved.record.counts.plus(left);
        moved
            .entries
            .insert(1, entry(20, 30, EntryKind::Left, left));
        assert_eq!(problem(&moved, held(&[(10, 20, 9)])), "");
        let found = problem(&moved, held(&[(20, 30, 9)]));
        assert!(found.starts_with("offsets 10 to 20: 9 rows"), "{found}");
        moved
            .entries
            .insert(1, entry(10, 30, EntryKind::Left, counts(0, 0, 0)));
        assert_eq!(problem(&moved, held(&[(10, 30, 9)])), "");
    }

    #[test]
    fn what_came_before_the_ledger_is_no_problem() {
        let mut old = ledger();
        old.record.ledger_offset = 20;
        old.entries.remove(0);
        assert_eq!(problem(&old, held(&[(10, 20, 9), (20, 30, 9)])), "");
        assert_eq!(problem(&old, held(&[(10, 30, 18)])), "");
        assert_eq!(
            old.before_end([OffsetRange { start: 10, end: 20 }].into_iter()),
            20
        );
        assert_eq!(
            old.before_end([OffsetRange { start: 10, end: 30 }].into_iter()),
            30
        );
        let found = problem(&old, held(&[(10, 20, 8), (20, 30, 9)]));
        assert!(found.starts_with("offsets 10 to 20: 9 rows"), "{found}");
        // All of it left since.
        let left = IngestCounts {
            expired: 9,
            ..IngestCounts::default()
        };
        old.record.counts = old.record.counts.plus(left);
        old.entries.insert(0, entry(10, 20, EntryKind::Left, left));
        assert_eq!(problem(&old, held(&[(20, 30, 9)])), "");
    }
}
