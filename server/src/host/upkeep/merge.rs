//! Small segments become larger ones, so that a query visits few.
//!
//! Only neighbours are merged: offline segments in the order of their times, realtime ones that follow each other in their
//! partition. A row is merged again only into a segment of at least twice the size, so it is written few times, and a
//! segment rests for a while before it is touched, so that a load or an operator finds what it just saw.

use super::{Table, Upkeep};
use crate::host::change::{self, Part, Planned, Take};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::Result;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{Half, OffsetRange};
use strandline_storage::meta::{ChangeReason, KeptPush};

/// Rows that a merged segment is to have at most.
const ROWS_WANTED: u64 = 1_000_000;
/// Bytes of the segments that become one, at most.
const BYTES_WANTED: u64 = 256 << 20;
/// Fewer are left as they are.
const SEGMENTS_MIN: usize = 4;
/// More are merged in several steps.
const SEGMENTS_MAX: usize = 256;
/// How long a segment is left alone after it has come.
const REST: Duration = Duration::from_secs(60);

impl Upkeep {
    /// Merges some segments of a table, if there are small ones beside each other. Those of pushes that can still be reverted
    /// stay as they are.
    pub(super) async fn merge(
        &self,
        table: &Table<'_>,
        kept: &[KeptPush],
    ) -> Result<Option<String>> {
        let name = &table.record.name;
        let kept = kept.iter().filter(|push| push.table == *name);
        let kept: HashSet<&str> = kept.flat_map(|p| &p.added).map(String::as_str).collect();
        let now = self.places.environment.clock.monotonic();
        for half in [Half::Offline, Half::Realtime] {
            let Some(config) = table.config(half) else {
                continue;
            };
            // Keys know rows by their places.
            if config.keys.is_some() {
                continue;
            }
            let wanted = config.spec.fingerprint();
            let may_merge = |segment: &&Arc<SegmentInfo>| {
                let key = (name.clone(), segment.name.clone(), segment.checksum);
                let seen = self.progress.lock().seen.get(&key).copied();
                segment.half == half
                    && segment.rows < ROWS_WANTED / 2
                    && segment.stored_as.as_ref().is_none_or(|is| *is == wanted)
                    && !kept.contains(segment.name.as_str())
                    && seen.is_some_and(|seen| now.saturating_sub(seen) >= REST)
            };
            let mut candidates: Vec<_> = table.settled.iter().filter(may_merge).cloned().collect();
            sort(&mut candidates);
            let Some(group) = group(&candidates) else {
                continue;
            };
            let first = &group[0];
            let origin = first.origin.as_ref().map(|(partition, range)| {
                let end = group.last().and_then(|s| s.origin.as_ref());
                let range = OffsetRange {
                    start: range.start,
                    end: end.map_or(range.end, |(_, last)| last.end),
                };
                (partition.clone(), range)
            });
            let whole = |source: &Arc<SegmentInfo>| Part {
                source: Arc::clone(source),
                take: Take::All,
            };
            let planned = Planned {
                half,
                origin,
                moved: first.moved,
                parts: group.iter().map(whole).collect(),
            };
            let reason = ChangeReason::Merged;
            let new = change::apply(&self.places, name, group, vec![planned], reason, None);
            let new = new.await?;
            let rows: u64 = new.iter().map(|s| s.rows).sum();
            return Ok(Some(format!(
                "merged {} {half} segments of {rows} rows into {}",
                group.len(),
                new.len()
            )));
        }
        Ok(None)
    }
}

/// Puts neighbours beside each other.
fn sort(segments: &mut [Arc<SegmentInfo>]) {
    segments.sort_by(|a, b| {
        let offsets = |s: &SegmentInfo| s.origin.clone().map(|(p, range)| (p, range.start));
        let place = |s: &SegmentInfo| (s.moved, offsets(s), s.time_ms);
        place(a).cmp(&place(b)).then_with(|| a.name.cmp(&b.name))
    });
}

/// Whether `next` may be in one segment with its neighbour.
fn follows(last: &SegmentInfo, next: &SegmentInfo) -> bool {
    last.moved == next.moved
        && match (&last.origin, &next.origin) {
            (None, None) => true,
            (Some((of, range)), Some((partition, next))) => {
                of == partition && range.end == next.start
            }
            _ => false,
        }
}

/// The first neighbours that are worth to be merged.
fn group(sorted: &[Arc<SegmentInfo>]) -> Option<&[Arc<SegmentInfo>]> {
    let mut start = 0;
    while start < sorted.len() {
        let (mut rows, mut bytes, mut largest, mut end) = (0, 0, 0, start);
        while let Some(next) = sorted.get(end) {
            let fits = rows + next.rows <= ROWS_WANTED && bytes + next.bytes <= BYTES_WANTED;
            let is_neighbour = end == start || follows(&sorted[end - 1], next);
            if !(fits && is_neighbour) || end - start == SEGMENTS_MAX {
                break;
            }
            rows += next.rows;
            bytes += next.bytes;
            largest = largest.max(next.rows);
            end += 1;
        }
        if end - start >= SEGMENTS_MIN && largest <= rows / 2 {
            return sorted.get(start..end);
        }
        start += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_proto::ids::{SegmentName, StreamPartition};

    fn segment(rows: u64, offsets: Option<(u32, u64, u64)>) -> Arc<SegmentInfo> {
        let origin = offsets.map(|(number, start, end)| {
            let partition = StreamPartition {
                stream: "log".into(),
                topic: "t".into(),
                partition: number,
            };
            (partition, OffsetRange { start, end })
        });
        Arc::new(SegmentInfo {
            name: SegmentName::new("s"),
            checksum: 1,
            half: if origin.is_some() {
                Half::Realtime
            } else {
                Half::Offline
            },
            rows,
            bytes: rows,
            schema_version: 1,
            time_ms: None,
            columns: Vec::new(),
            origin,
            stored_as: None,
            moved: false,
        })
    }

    fn of_rows(rows: &[u64]) -> Vec<Arc<SegmentInfo>> {
        rows.iter().map(|rows| segment(*rows, None)).collect()
    }

    #[test]
    fn a_group_has_many_and_no_row_is_written_for_little() {
        let len = |rows: &[u64]| group(&of_rows(rows)).map(<[_]>::len);
        assert_eq!(len(&[10, 10, 10]), None);
        assert_eq!(len(&[10, 10, 10, 10]), Some(4));
        assert_eq!(len(&[1_000, 10, 10, 10]), None);
        assert_eq!(len(&[1_000, 10, 10, 10, 10]), Some(4));
        assert_eq!(len(&[300_000; 5]), None);
        assert_eq!(len(&[250_000; 5]), Some(4));
        assert_eq!(len(&vec![1; 1_000]), Some(SEGMENTS_MAX));
    }

    #[test]
    fn realtime_segments_are_merged_only_along_their_partition() {
        let mut segments: Vec<_> = (0..4)
            .flat_map(|n| {
                [
                    segment(5, Some((0, n * 5, n * 5 + 5))),
                    segment(5, Some((1, n * 5, n * 5 + 5))),
                ]
            })
            .collect();
        sort(&mut segments);
        let first = group(&segments).unwrap();
        assert_eq!(first.len(), 4);
        assert!(first.windows(2).all(|pair| follows(&pair[0], &pair[1])));
        // A hole where another segment is too large, or new.
        segments.remove(1);
        let second = group(&segments).unwrap();
        assert_eq!(second[0].origin.as_ref().unwrap().0.partition, 1);
    }
}
