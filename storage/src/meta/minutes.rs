//! Counts of ingestion by the minute of the events that they are of.
//!
//! A *bucket* is a span of event time with its counts: a minute, or, where a partition's events are of very many minutes, an
//! hour, a day or a thousand days. Buckets never overlap: what falls into a wider bucket is counted there. What has no event
//! time is counted beside them. As bytes, numbers being LEB128 and signed ones zigzag first:
//!
//! ```text
//! format       1
//! counts       of what has no event time
//! 4 times, from minutes to thousands of days:
//!   buckets    their number
//!   each:      start / span less that of the one before; counts
//! counts:      a number whose bits say which of the fields are not 0, and these, in the order of IngestCounts
//! ```

use super::IngestCounts;
use std::collections::BTreeMap;
use std::ops::Range;
use strandline_proto::coverage::Interval;
use strandline_proto::time_format::{TIME_MS_MAX, TIME_MS_MIN};

/// Milliseconds of the buckets, ascending; each is a multiple of the one before.
pub const SPANS_MS: [i64; 4] = [60_000, 3_600_000, 86_400_000, 86_400_000_000];
/// Buckets of one entry of the ledger and of one consuming segment at most; with more, the narrowest become wider ones.
pub const BUCKETS_MAX: usize = 10_000;
/// What the bytes begin with.
const FORMAT: u8 = 1;

/// A span of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Its first instant, in milliseconds since the epoch.
    pub start_ms: i64,
    /// Its length in milliseconds, one of [`SPANS_MS`].
    pub span_ms: i64,
}

/// Counts by event time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MinuteCounts {
    total: IngestCounts,
    timeless: IngestCounts,
    /// For each of [`SPANS_MS`], the counts by the bucket's start.
    levels: [BTreeMap<i64, IngestCounts>; 4],
}

/// Counts without an event time.
impl From<IngestCounts> for MinuteCounts {
    fn from(timeless: IngestCounts) -> Self {
        Self {
            total: timeless,
            timeless,
            ..Self::default()
        }
    }
}

/// The start of the span that an instant is in.
fn floor(ms: i64, span_ms: i64) -> i64 {
    ms.saturating_sub(ms.rem_euclid(span_ms))
}

/// An instant that may be an event's; none for those outside the years 1 to 9999, which no time column writes.
fn of_event(ms: i64) -> Option<i64> {
    (TIME_MS_MIN..=TIME_MS_MAX).contains(&ms).then_some(ms)
}

impl MinuteCounts {
    /// The sum of all.
    pub fn total(&self) -> IngestCounts {
        self.total
    }

    /// What has no event time.
    pub fn timeless(&self) -> IngestCounts {
        self.timeless
    }

    /// The number of buckets.
    pub fn len(&self) -> usize {
        self.levels.iter().map(BTreeMap::len).sum()
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.total == IngestCounts::default()
    }

    /// The buckets, by span and start.
    pub fn buckets(&self) -> impl Iterator<Item = (Bucket, &IngestCounts)> {
        let levels = SPANS_MS.iter().zip(&self.levels);
        levels.flat_map(|(&span_ms, level)| {
            let bucket = move |start_ms| Bucket { start_ms, span_ms };
            level
                .iter()
                .map(move |(start, counts)| (bucket(*start), counts))
        })
    }

    /// Whether anything may be counted at times of an interval: buckets may reach out of it.
    pub fn reaches(&self, interval: Interval) -> bool {
        self.buckets().any(|(bucket, counts)| {
            let end_ms = bucket.start_ms.saturating_add(bucket.span_ms);
            bucket.start_ms < interval.end_ms
                && interval.start_ms < end_ms
                && *counts != IngestCounts::NONE
        })
    }

    /// The bucket that an instant is counted in, if it is a wider one or there is one of its minute.
    pub fn bucket_of(&self, ms: i64) -> Option<Bucket> {
        let ms = of_event(ms)?;
        let levels = SPANS_MS.iter().zip(&self.levels);
        let mut wide_first = levels.rev().map(|(&span_ms, level)| {
            let start_ms = floor(ms, span_ms);
            (level.contains_key(&start_ms)).then_some(Bucket { start_ms, span_ms })
        });
        wide_first.find_map(|bucket| bucket)
    }

    /// Counts at an instant, in milliseconds since the epoch, or at none.
    pub fn add(&mut self, ms: Option<i64>, counts: IngestCounts) {
        match ms.and_then(of_event) {
            Some(ms) => self.add_to(0, ms, counts),
            None => {
                self.total = self.total.plus(counts);
                self.timeless = self.timeless.plus(counts);
            }
        }
    }

    /// Adds all of `more`.
    pub fn merge(&mut self, more: &Self) {
        self.add(None, more.timeless);
        for (level, buckets) in more.levels.iter().enumerate() {
            for (start, counts) in buckets {
                self.add_to(level, *start, *counts);
            }
        }
    }

    /// Makes the narrowest buckets wider until there are at most `buckets_max`. The years 1 to 9999 have 3,653 of the widest:
    /// for fewer there may be more of these.
    pub fn bound(&mut self, buckets_max: usize) {
        for level in 0..SPANS_MS.len() - 1 {
            if self.len() <= buckets_max {
                return;
            }
            let narrow = self.levels.get_mut(level).map(std::mem::take);
            for (start, counts) in narrow.into_iter().flatten() {
                self.put(level + 1, start, counts);
            }
        }
    }

    fn add_to(&mut self, level: usize, ms: i64, counts: IngestCounts) {
        self.total = self.total.plus(counts);
        self.put(level, ms, counts);
    }

    /// Counts in a bucket of a level, or in the wider one that holds it. A new one takes in the narrower ones that it holds.
    fn put(&mut self, level: usize, ms: i64, counts: IngestCounts) {
        let mut levels = SPANS_MS.iter().zip(&mut self.levels).enumerate().rev();
        let known = levels.find_map(|(at, (&span_ms, buckets))| {
            (at >= level)
                .then(|| buckets.get_mut(&floor(ms, span_ms)))
                .flatten()
        });
        if let Some(known) = known {
            *known = known.plus(counts);
            return;
        }
        let Some(&span_ms) = SPANS_MS.get(level) else {
            return;
        };
        let start = floor(ms, span_ms);
        let held = start..start.saturating_add(span_ms);
        let narrower = self.levels.iter_mut().take(level);
        let sum = narrower.fold(counts, |sum, buckets| sum.plus(take_range(buckets, &held)));
        if let Some(buckets) = self.levels.get_mut(level) {
            buckets.insert(start, sum);
        }
    }

    /// As bytes, see the module.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        write_counts(&mut bytes, &self.timeless);
        for (span_ms, buckets) in SPANS_MS.iter().zip(&self.levels) {
            write_number(&mut bytes, buckets.len() as u64);
            let mut last = 0;
            for (start, counts) in buckets {
                let place = start.div_euclid(*span_ms);
                let step = place.wrapping_sub(last);
                last = place;
                write_number(&mut bytes, ((step << 1) ^ (step >> 63)).cast_unsigned());
                write_counts(&mut bytes, counts);
            }
        }
        bytes
    }

    /// What was [encoded](Self::encode); none where the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[FORMAT])?;
        let rest = &mut rest;
        let mut minutes = Self::from(read_counts(rest)?);
        for (level, span_ms) in SPANS_MS.iter().enumerate() {
            let buckets = read_number(rest)?;
            let mut place = 0_i64;
            for _ in 0..buckets {
                let step = read_number(rest)?;
                let step = (step >> 1).cast_signed() ^ -((step & 1).cast_signed());
                place = place.wrapping_add(step);
                let start = place.checked_mul(*span_ms)?;
                minutes.add_to(level, start, read_counts(rest)?);
            }
        }
        rest.is_empty().then_some(minutes)
    }
}

/// Takes out the buckets that begin in a range; gives their sum.
fn take_range(buckets: &mut BTreeMap<i64, IngestCounts>, range: &Range<i64>) -> IngestCounts {
    let inside: Vec<i64> = buckets
        .range(range.clone())
        .map(|(start, _)| *start)
        .collect();
    let taken = inside.iter().filter_map(|start| buckets.remove(start));
    taken.fold(IngestCounts::default(), IngestCounts::plus)
}

fn write_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number as u8) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn write_counts(bytes: &mut Vec<u8>, counts: &IngestCounts) {
    let fields = counts.fields();
    let bits = (0..).zip(fields).filter(|(_, count)| *count > 0);
    write_number(bytes, bits.fold(0, |bits, (at, _)| bits | 1 << at));
    for count in fields.into_iter().filter(|count| *count > 0) {
        write_number(bytes, count);
    }
}

fn read_counts(rest: &mut &[u8]) -> Option<IngestCounts> {
    let bits = read_number(rest)?;
    let mut fields = IngestCounts::default().fields();
    if bits >> fields.len() != 0 {
        return None;
    }
    for (at, field) in fields.iter_mut().enumerate() {
        if bits >> at & 1 == 1 {
            *field = read_number(rest)?;
        }
    }
    Some(IngestCounts::of_fields(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn indexed(rows: u64) -> IngestCounts {
        IngestCounts {
            indexed: rows,
            ..IngestCounts::default()
        }
    }

    proptest! {
        #[test]
        fn bounds_and_bytes_keep_every_sum(
            // Of the widest buckets there are 41 at most.
            events in proptest::collection::vec((proptest::option::of(-1_700_000_000_000_i64..1_700_000_000_000), 1_u64..9), 0..200),
            near in 0_i64..1_000_000_000,
            buckets_max in 43_usize..100,
        ) {
            let mut all = MinuteCounts::default();
            let mut bounded = MinuteCounts::default();
            for (at, (ms, rows)) in events.iter().enumerate() {
                let ms = ms.map(|ms| if at % 2 == 0 { ms } else { ms % near.max(1) });
                all.add(ms, indexed(*rows));
                bounded.add(ms, indexed(*rows));
                bounded.bound(buckets_max);
            }
            let rows: u64 = events.iter().map(|(_, rows)| rows).sum();
            prop_assert_eq!(all.total(), indexed(rows));
            prop_assert_eq!(bounded.total(), all.total());
            prop_assert_eq!(bounded.timeless(), all.timeless());
            prop_assert!(bounded.len() <= buckets_max);
            for (bucket, counts) in bounded.buckets() {
                let inside = |b: &Bucket| (bucket.start_ms..bucket.start_ms + bucket.span_ms).contains(&b.start_ms);
                let of_minutes = all.buckets().filter(|(b, _)| inside(b)).map(|(_, c)| c.indexed);
                prop_assert_eq!(of_minutes.sum::<u64>(), counts.indexed);
                prop_assert_eq!(bounded.bucket_of(bucket.start_ms), Some(bucket));
            }
            let decoded = MinuteCounts::decode(&bounded.encode());
            prop_assert_eq!(decoded.as_ref(), Some(&bounded));
            let mut both = all.clone();
            both.merge(&bounded);
            prop_assert_eq!(both.total().indexed, 2 * rows);
            prop_assert_eq!(both.buckets().map(|(_, c)| c.indexed).sum::<u64>() + both.timeless().indexed, 2 * rows);
        }

        #[test]
        fn other_bytes_are_told(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(read) = MinuteCounts::decode(&bytes) {
                prop_assert_eq!(MinuteCounts::decode(&read.encode()), Some(read));
            }
        }
    }
}
