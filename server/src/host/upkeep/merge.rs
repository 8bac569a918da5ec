//! Small segments become larger ones, so that a query visits few.
//!
//! Only neighbours are merged: offline segments in the order of their times, realtime ones that follow each other in their
//! partition. A row is merged again only into a segment of at least twice the size, so it is written few times, and a
//! segment rests for a while before it is touched, so that a load or an operator finds what it just saw. Rows that are superseded by
//! committed ones are left out; where they are many, a segment is written again by itself.

use super::{Table, Upkeep};
use crate::host::change::{self, Part, Planned, Take};
use crate::host::moved_keys::reader;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use strandline_index::DocId;
use strandline_proto::Result;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{Half, OffsetRange};
use strandline_storage::environment::{blocking, in_background};
use strandline_storage::meta::{ChangeReason, KeptPush};

/// Rows that a merged segment is to have at most.
const ROWS_WANTED: u64 = 1_000_000;
/// Bytes of the segments that become one, at most.
const BYTES_WANTED: u64 = 256 << 20;
/// Fewer are left as they are.
const SEGMENTS_MIN: usize = 4;
/// More are merged in several steps.
const SEGMENTS_MAX: usize = 256;
/// Of so many rows of a segment one must be superseded for it to be written again without them.
const UNNEEDED_SHARE: u64 = 3;
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
        for half in [Half::Offline, Half::Realtime] {
            let Some(config) = table.config(half) else {
                continue;
            };
            // Where rows have keys, those of other pushes rank otherwise.
            if half == Half::Offline && table.has_keys() {
                continue;
            }
            let wanted = config.spec.fingerprint();
            let may_merge = |segment: &&Arc<SegmentInfo>| {
                segment.half == half
                    && segment.rows < ROWS_WANTED / 2
                    && !kept.contains(segment.name.as_str())
                    && self.has_rested(name, segment, &wanted)
            };
            let mut candidates: Vec<_> = table.settled.iter().filter(may_merge).cloned().collect();
            sort(&mut candidates);
            let (group, superseded) = match group(&candidates) {
                Some(group) => (group.to_vec(), None),
                None => match self.superseded(table, half).await? {
                    Some((segment, rows)) => (vec![segment], Some(rows)),
                    None => continue,
                },
            };
            if let Some(done) = self.merge_group(table, half, &group, superseded).await? {
                return Ok(Some(done));
            }
        }
        Ok(None)
    }

    /// Makes one segment of a group, or one again of which so many rows are superseded.
    async fn merge_group(
        &self,
        table: &Table<'_>,
        half: Half,
        group: &[Arc<SegmentInfo>],
        superseded: Option<u64>,
    ) -> Result<Option<String>> {
        let name = &table.record.name;
        let Some(first) = group.first() else {
            return Ok(None);
        };
        let origin = first.origin.as_ref().map(|(partition, range)| {
            let end = group.last().and_then(|s| s.origin.as_ref());
            let range = OffsetRange {
                start: range.start,
                end: end.map_or(range.end, |(_, last)| last.end),
            };
            (partition.clone(), range)
        });
        let mut parts = Vec::with_capacity(group.len());
        let (mut rows, mut unneeded) = (0, 0);
        for source in group {
            let Some(needed) = self.needed(name, source).await? else {
                return Ok(None);
            };
            rows += source.rows;
            unneeded += needed
                .as_ref()
                .map_or(0, |docs| source.rows - docs.len() as u64);
            parts.push(Part {
                source: Arc::clone(source),
                take: needed.map_or(Take::All, Take::Docs),
                deleted: Vec::new(),
            });
        }
        if let Some(superseded) = superseded {
            let mut progress = self.progress.lock();
            let key = (name.clone(), first.name.clone(), first.checksum);
            progress.looked_at.insert(key, superseded);
            if unneeded == 0 || unneeded * UNNEEDED_SHARE < rows {
                return Ok(None);
            }
        }
        let planned = Planned {
            half,
            origin,
            moved: first.moved,
            rebuilt: first.rebuilt,
            parts,
        };
        let (reason, left) = match unneeded {
            0 => (ChangeReason::Merged, None),
            _ => (
                ChangeReason::Compacted,
                Some(change::compacted as change::Left),
            ),
        };
        let new = change::apply(&self.places, name, group, vec![planned], reason, left).await?;
        let kept: u64 = new.iter().map(|s| s.rows).sum();
        let without = match unneeded {
            0 => String::new(),
            unneeded => format!(", without {unneeded} that were superseded"),
        };
        Ok(Some(format!(
            "merged {} {half} segments into {} of {kept} rows{without}",
            group.len(),
            new.len()
        )))
    }

    /// Whether a segment is not new any more, and is stored as `wanted` says.
    fn has_rested(&self, table: &str, segment: &SegmentInfo, wanted: &str) -> bool {
        let key = (table.to_owned(), segment.name.clone(), segment.checksum);
        let seen = self.progress.lock().seen.get(&key).copied();
        let now = self.places.environment.clock.monotonic();
        segment.stored_as.as_ref().is_none_or(|is| is == wanted)
            && seen.is_some_and(|seen| now.saturating_sub(seen) >= REST)
    }

    /// A segment of which many rows are superseded by committed ones, and how many; none that was looked at since about as many
    /// were.
    async fn superseded(
        &self,
        table: &Table<'_>,
        half: Half,
    ) -> Result<Option<(Arc<SegmentInfo>, u64)>> {
        let name = &table.record.name;
        let hosted = self.places.publisher.registry().table(name);
        let supersedes = table
            .config(half)
            .filter(|config| config.keys.as_ref().is_some_and(|keys| keys.supersedes()));
        let (Some(config), Some(keys)) = (supersedes, hosted.keys()) else {
            return Ok(None);
        };
        let wanted = config.spec.fingerprint();
        let is_worth_it = |superseded: u64, rows: u64| superseded * UNNEEDED_SHARE >= rows;
        let mut candidates = Vec::new();
        for segment in table.settled.iter().filter(|s| s.half == half) {
            let key = (name.clone(), segment.name.clone(), segment.checksum);
            let looked_at = self.progress.lock().looked_at.get(&key).copied();
            let looked_at = looked_at.unwrap_or(0);
            let superseded = hosted.superseded(&segment.name).unwrap_or(0);
            if superseded > looked_at
                && is_worth_it(superseded, segment.rows)
                && self.has_rested(name, segment, &wanted)
            {
                candidates.push((Arc::clone(segment), looked_at));
            }
        }
        // Rows that only rows in memory supersede are needed until those are committed.
        let spawner = &self.places.environment.spawner;
        blocking(spawner, "look for superseded rows", move || {
            for (segment, looked_at) in candidates {
                let committed = keys.superseded_by_committed(&segment.name)?;
                if let Some(superseded) = committed
                    && is_worth_it(superseded, segment.rows)
                    && superseded > looked_at + looked_at / 10
                {
                    return Ok(Some((segment, superseded)));
                }
            }
            Ok(None)
        })
        .await
    }

    /// The rows of a segment that are needed, or all of them; none while it is not known which.
    async fn needed(
        &self,
        table: &str,
        segment: &SegmentInfo,
    ) -> Result<Option<Option<Vec<DocId>>>> {
        let hosted = self.places.publisher.registry().table(table);
        let Some(keys) = hosted.keys() else {
            return Ok(Some(None));
        };
        let reader = reader(&self.places, table, &hosted, &segment.name)?;
        let (name, rows) = (segment.name.clone(), segment.rows);
        let spawner = &self.places.environment.spawner;
        let needed = blocking(spawner, "look for superseded rows", move || {
            in_background(|| keys.needed(&name, &*reader))
        });
        let needed = needed.await?;
        Ok(needed.map(|docs| Some(docs).filter(|docs| (docs.len() as u64) < rows)))
    }
}

/// Puts neighbours beside each other.
fn sort(segments: &mut [Arc<SegmentInfo>]) {
    segments.sort_by(|a, b| {
        let offsets = |s: &SegmentInfo| s.origin.clone().map(|(p, range)| (p, range.start));
        let place = |s: &SegmentInfo| (s.moved, s.rebuilt, offsets(s), s.time_ms);
        place(a).cmp(&place(b)).then_with(|| a.name.cmp(&b.name))
    });
}

/// Whether `next` may be in one segment with its neighbour.
fn follows(last: &SegmentInfo, next: &SegmentInfo) -> bool {
    (last.moved, last.rebuilt) == (next.moved, next.rebuilt)
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
            pushed_in: 0,
            rebuilt: false,
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
    fn rows_of_a_rebuilt_range_are_not_merged_with_pushed_ones() {
        let mut segments = of_rows(&[10, 10, 10, 10, 10, 10]);
        for segment in segments.iter_mut().skip(3) {
            Arc::make_mut(segment).rebuilt = true;
        }
        sort(&mut segments);
        assert_eq!(group(&segments), None);
        let all = segments.iter().map(|s| {
            Arc::new(SegmentInfo {
                rebuilt: true,
                ..SegmentInfo::clone(s)
            })
        });
        assert_eq!(group(&all.collect::<Vec<_>>()).map(<[_]>::len), Some(6));
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
