//! The ledger of a stream partition: what became of its messages, by ranges of their offsets.

use super::{IngestCounts, PartitionRecord};
use strandline_proto::ids::OffsetRange;

/// What an entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// What became of the messages of these offsets when they were read, and, where it was folded, later.
    Read,
    /// Which rows left segments of these offsets later.
    Left,
}

impl EntryKind {
    /// Its name in the metastore.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Left => "LEFT",
        }
    }

    /// The kind of a name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        [Self::Read, Self::Left]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// An entry without what it says of event times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// The offsets.
    pub range: OffsetRange,
    /// What it tells.
    pub kind: EntryKind,
    /// The sums of its counts, or why they can't be read.
    pub counts: Result<IngestCounts, String>,
}

/// What is known of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLedger {
    /// How far it was committed when the entries were read.
    pub record: PartitionRecord,
    /// By their offsets. Those of [`EntryKind::Read`] follow each other from the record's `ledger_offset` to its
    /// `next_offset`, when nothing is wrong.
    pub entries: Vec<LedgerEntry>,
}

/// Offsets whose counts do not add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The offsets.
    pub range: OffsetRange,
    /// What is wrong with them.
    pub wrong: String,
}

impl PartitionLedger {
    /// The offsets that an earlier version read, without a ledger; none where there are none.
    pub fn before(&self) -> Option<OffsetRange> {
        let range = OffsetRange {
            start: self.record.first_offset,
            end: self.record.ledger_offset,
        };
        (range.start < range.end).then_some(range)
    }

    /// The end of the offsets of which the ledger can't tell minutes: those that an earlier version read, and with them those of
    /// segments that hold rows of both.
    ///
    /// `segments`: the offsets of the partition's segments.
    pub fn before_end(&self, segments: impl Iterator<Item = OffsetRange>) -> u64 {
        let Some(before) = self.before() else {
            return 0;
        };
        let blocks = self.blocks(segments);
        let reached = blocks.iter().filter(|block| block.start < before.end);
        reached.map(|block| block.end).max().unwrap_or(before.end)
    }

    /// Ranges that have nothing in common with each other, of the entries, of segments, and of what came before the ledger.
    fn blocks(&self, segments: impl Iterator<Item = OffsetRange>) -> Vec<OffsetRange> {
        let entries = self.entries.iter().map(|entry| entry.range);
        blocks(entries.chain(self.before()).chain(segments))
    }

    /// The first offsets that do not add up: that have no entry or two, whose messages became more or fewer rows and dead letters
    /// than they are, or of which segments hold other rows than the ledger says.
    ///
    /// `segments`: offsets and rows of the partition's committed segments.
    pub fn first_problem(&self, segments: &[(OffsetRange, u64)]) -> Option<Problem> {
        let mut problems = Vec::new();
        self.check_entries(&mut problems);
        self.check_segments(segments, &mut problems);
        if problems.is_empty() {
            self.check_total(&mut problems);
        }
        problems
            .into_iter()
            .min_by_key(|problem| (problem.range.start, problem.range.end))
    }

    /// Each entry by itself, and whether what was read is told from beginning to end.
    fn check_entries(&self, problems: &mut Vec<Problem>) {
        let mut problem = |start, end, wrong: String| {
            let range = OffsetRange { start, end };
            problems.push(Problem { range, wrong });
        };
        let mut last = self.record.ledger_offset;
        for LedgerEntry {
            range: OffsetRange { start, end },
            kind,
            counts,
        } in &self.entries
        {
            if *kind == EntryKind::Read {
                if last < *start {
                    problem(last, *start, "the ledger has no entry of them".to_owned());
                } else if *start < last {
                    let end = last.min(*end);
                    problem(*start, end, "the ledger has two entries of them".to_owned());
                }
                last = last.max(*end);
            }
            match counts {
                Err(wrong) => problem(*start, *end, wrong.clone()),
                Ok(counts) if counts.read + counts.unnested != counts.ends() => {
                    let wrong = format!(
                        "{} messages gave {} rows more than one each, and {} rows and letters came of them",
                        counts.read,
                        counts.unnested,
                        counts.ends()
                    );
                    problem(*start, *end, wrong);
                }
                Ok(counts) if counts.read + counts.lost > end.saturating_sub(*start) => {
                    let wrong = format!(
                        "they are {}, and {} were read and {} lost",
                        end.saturating_sub(*start),
                        counts.read,
                        counts.lost
                    );
                    problem(*start, *end, wrong);
                }
                Ok(_) => {}
            }
        }
        let next = self.record.next_offset;
        if last < next {
            problem(last, next, "the ledger has no entry of them".to_owned());
        } else if next < last {
            let wrong = "the ledger has an entry of them, and they were not committed".to_owned();
            problem(next, last, wrong);
        }
    }

    /// Whether segments hold the rows that the entries of their offsets say.
    fn check_segments(&self, segments: &[(OffsetRange, u64)], problems: &mut Vec<Problem>) {
        let within = |block: &OffsetRange, range: &OffsetRange| {
            block.start <= range.start && range.end <= block.end
        };
        for block in self.blocks(segments.iter().map(|(range, _)| *range)) {
            let of_block = self.entries.iter().filter(|e| within(&block, &e.range));
            let mut counts = of_block
                .filter_map(|entry| entry.counts.as_ref().ok())
                .fold(IngestCounts::NONE, |sum, counts| sum.plus(*counts));
            if self.before().is_some_and(|before| within(&block, &before)) {
                counts = counts.plus(self.rest());
            }
            let segments = segments.iter().filter(|(range, _)| within(&block, range));
            let rows: u64 = segments.map(|(_, rows)| rows).sum();
            if rows + counts.left() != counts.indexed {
                let wrong = format!(
                    "{} rows were put into segments, {} of them left on purpose ({} moved, {} deleted, {} expired, {} compacted), and {rows} are there",
                    counts.indexed,
                    counts.left(),
                    counts.moved,
                    counts.deleted,
                    counts.expired,
                    counts.compacted
                );
                problems.push(Problem {
                    range: block,
                    wrong,
                });
            }
        }
    }

    /// Whether the entries are all of the partition's counts, or no more than them.
    fn check_total(&self, problems: &mut Vec<Problem>) {
        let (sum, total) = (self.sum(), self.record.counts);
        let is_whole = match self.before() {
            Some(_) => sum.minus(total) == IngestCounts::NONE,
            None => sum == total,
        };
        if !is_whole {
            problems.push(Problem {
                range: OffsetRange {
                    start: self.record.first_offset,
                    end: self.record.next_offset,
                },
                wrong: format!("the ledger's entries add up to {sum:?}, and the partition's counts are {total:?}"),
            });
        }
    }

    /// The sums of the entries that can be read.
    fn sum(&self) -> IngestCounts {
        let counts = self.entries.iter().filter_map(|e| e.counts.as_ref().ok());
        counts.fold(IngestCounts::NONE, |sum, counts| sum.plus(*counts))
    }

    /// What became of messages that no entry tells of: of those that were read before there was a ledger.
    pub fn rest(&self) -> IngestCounts {
        self.record.counts.minus(self.sum())
    }
}

/// Ranges joined where they overlap, ascending: no end of a block lies inside of any range. Empty ranges are left out.
pub fn blocks(ranges: impl Iterator<Item = OffsetRange>) -> Vec<OffsetRange> {
    let mut sorted: Vec<OffsetRange> = ranges.filter(|range| range.start < range.end).collect();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut blocks: Vec<OffsetRange> = Vec::new();
    for range in sorted {
        match blocks.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => blocks.push(range),
        }
    }
    blocks
}
