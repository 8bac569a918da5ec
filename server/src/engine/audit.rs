//! Whether a table's accounts add up to the row, from the stream to the answer.

use super::{Engine, quoted};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use strandline_broker::transport::CatalogSource;
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::ids::{Half, SegmentName};
use strandline_proto::v1::{AuditReport, PartitionAudit};
use strandline_proto::{Error, Result};
use strandline_storage::meta::{IngestCounts, Metastore, PartitionRecord, TableRecord};

/// How often the accounts are read again while rows come in between.
const ATTEMPTS_MAX: u32 = 50;
/// Between two readings.
const PAUSE: Duration = Duration::from_millis(20);

/// What one partition holds.
struct Held {
    committed_rows: u64,
    consuming_rows: u64,
    /// Offsets of each committed and consuming segment, ascending, with what is wrong with its file, if anything.
    ranges: Vec<(u64, u64, Option<String>)>,
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
            if before == after {
                return self.judge(&name, after, counted);
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
            counted.superseded = self.superseded_rows(&snapshot);
        }
        if snapshot.has_offline {
            let table = quoted(&format!("{name}_{}", Half::Offline));
            counted.offline = self.count(&table).await?.0;
        }
        Ok(counted)
    }

    /// Rows of a table that others of their keys have superseded.
    fn superseded_rows(&self, table: &TableSnapshot) -> u64 {
        let hosted = self.registry.table(&table.name);
        let Some(keys) = hosted.keys() else { return 0 };
        let committed = table.segments.iter().map(|s| s.name.clone());
        let mut names: BTreeSet<SegmentName> = committed.collect();
        for tail in hosted.tails() {
            names.extend(tail.segments().iter().map(|s| s.name().clone()));
        }
        let docs = names.iter().filter_map(|name| keys.docs(name));
        docs.map(|docs| docs.superseded()).sum()
    }

    async fn accounts(&self, name: &str) -> Result<AuditReport> {
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
        for partition in &record.partitions {
            let held = self.held(record, partition);
            report
                .partitions
                .push(audit(partition, &self.tail_counts(name, partition), held));
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
        Ok(report)
    }

    /// What became of the messages that no committed segment holds.
    fn tail_counts(&self, table: &str, record: &PartitionRecord) -> IngestCounts {
        let tails = self.registry.table(table).tails();
        let tail = tails.iter().find(|t| *t.partition() == record.partition);
        tail.map_or_else(IngestCounts::default, |t| t.counts_from(record.next_offset))
    }

    fn held(&self, table: &TableRecord, record: &PartitionRecord) -> Held {
        let hosted = self.registry.table(&table.name);
        let mut held = Held {
            committed_rows: 0,
            consuming_rows: 0,
            ranges: Vec::new(),
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
            let in_memory = tail.segments();
            for segment in in_memory
                .iter()
                .filter(|s| s.start_offset() >= record.next_offset)
            {
                held.consuming_rows += segment.rows();
                if segment.next_offset() > segment.start_offset() {
                    held.ranges
                        .push((segment.start_offset(), segment.next_offset(), None));
                }
            }
        }
        held.ranges.sort();
        held
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
        if counted.offline != report.offline_rows {
            report.problems.push(format!(
                "{name}_{}: its segments hold {} rows, and a query counts {}",
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
}

/// One partition's accounts, and the first that does not add up.
fn audit(record: &PartitionRecord, tail: &IngestCounts, held: Held) -> PartitionAudit {
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
        offsets_lost: counts.lost,
        problem: String::new(),
    };
    audit.problem = first_problem(record, &counts, &held).unwrap_or_default();
    audit
}

fn first_problem(record: &PartitionRecord, counts: &IngestCounts, held: &Held) -> Option<String> {
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
    let gone = counts.moved + counts.deleted + counts.expired;
    let rows = held.committed_rows + held.consuming_rows + gone;
    if rows != counts.indexed {
        // Where no row has left, a hole between segments must have been without rows.
        return Some(format!(
            "offsets {} to {}: {} rows were put into segments, and {rows} are there or left on purpose ({} moved, {} deleted, {} expired)",
            record.first_offset,
            held.watermark,
            counts.indexed,
            counts.moved,
            counts.deleted,
            counts.expired
        ));
    }
    let ends = counts.indexed + counts.filtered + counts.deduplicated + counts.dead_lettered;
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

    fn record(read: u64, indexed: u64, dead_lettered: u64) -> PartitionRecord {
        PartitionRecord {
            partition: StreamPartition {
                stream: "log".into(),
                topic: "t".into(),
                partition: 0,
            },
            first_offset: 10,
            next_offset: 30,
            counts: IngestCounts {
                read,
                indexed,
                dead_lettered,
                ..IngestCounts::default()
            },
            ledger_offset: 30,
        }
    }

    fn held(committed_rows: u64, ranges: &[(u64, u64)]) -> Held {
        Held {
            committed_rows,
            consuming_rows: 0,
            ranges: ranges.iter().map(|(a, b)| (*a, *b, None)).collect(),
            watermark: 30,
            stream_end: 0,
        }
    }

    #[test]
    fn what_does_not_add_up_is_named() {
        let problem = |record: &PartitionRecord, held: Held| {
            audit(record, &IngestCounts::default(), held).problem
        };
        assert_eq!(
            problem(&record(20, 18, 2), held(18, &[(10, 20), (20, 30)])),
            ""
        );
        for (record, held, expected) in [
            (
                record(20, 18, 2),
                held(18, &[(10, 21), (20, 30)]),
                "offsets 20 to 21 are in two segments",
            ),
            (
                record(20, 18, 2),
                held(18, &[(9, 20), (20, 30)]),
                "hold offsets 9 to 30",
            ),
            (
                record(20, 18, 2),
                held(17, &[(10, 20), (20, 30)]),
                "18 rows were put into segments, and 17 are there",
            ),
            (
                record(20, 18, 1),
                held(18, &[(10, 30)]),
                "19 rows and letters",
            ),
            (record(21, 19, 2), held(19, &[(10, 30)]), "21 were read"),
        ] {
            let found = problem(&record, held);
            assert!(found.contains(expected), "{found:?}, not {expected:?}");
        }
        let mut moved = record(20, 18, 2);
        moved.counts.moved = 10;
        assert_eq!(problem(&moved, held(8, &[(10, 20)])), "");
        let mut damaged = held(18, &[(10, 20), (20, 30)]);
        damaged.ranges[1].2 = Some("damaged".to_owned());
        assert_eq!(
            problem(&record(20, 18, 2), damaged),
            "offsets 20 to 30: damaged"
        );
    }
}
