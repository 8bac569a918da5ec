//! The offline half takes over what the stream brought, a period at a time, some time after its end.
//!
//! Which rows were taken over is told by their stream offsets, not by their times: they leave the realtime half in the
//! transaction that adds them to the offline one and moves the boundary, and a row of that period that comes later is
//! answered by the realtime half, until the period is taken over again. Times that a push covers are left alone: their
//! realtime rows are hidden.

use super::{Table, Task, Upkeep};
use crate::host::change::{self, Part, Planned, Take};
use std::sync::Arc;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::coverage::{Coverage, Interval};
use strandline_proto::ids::Half;
use strandline_proto::{Error, Result};
use strandline_storage::config::{TableConfig, TakeOver};
use strandline_storage::environment::blocking;
use strandline_storage::meta::{ChangeReason, SegmentContent};
use strandline_storage::segment::merge::docs_by_time;

impl Upkeep {
    /// Takes over the first period of a table that has rows of its own and whose time has come.
    pub(super) async fn take_over(&self, table: &Table<'_>) -> Result<Option<String>> {
        let Some((config, wanted)) = table
            .realtime
            .as_ref()
            .and_then(|config| Some((config, config.take_over?)))
        else {
            return Ok(None);
        };
        let name = &table.record.name;
        if table.offline.is_none() {
            let message = "waits for an OFFLINE half of the table, which it is to fill".to_owned();
            self.note(name, Task::TakeOver, message);
            return Ok(None);
        }
        if table.record.coverage.pinned_at_ms.is_some() {
            let message = "waits for the boundary to be released, which it is to move".to_owned();
            self.note(name, Task::TakeOver, message);
            return Ok(None);
        }
        let pushed = table.pushed();
        let now_ms = self.places.environment.clock.now_ms();
        let realtime: Vec<_> = table
            .settled
            .iter()
            .filter(|s| s.half == Half::Realtime)
            .filter(|s| s.time_ms.is_some())
            .collect();
        for period in periods(&realtime, wanted, now_ms) {
            let times = Coverage::new([period]).minus(&pushed);
            if times.is_empty() {
                continue;
            }
            let removed = self
                .with_rows(config, name, &realtime, period, &times)
                .await?;
            if removed.is_empty() {
                continue;
            }
            let is_beside = |s: &&Arc<SegmentInfo>| {
                let mut intervals = times.intervals().iter();
                s.half == Half::Offline && !s.moved && intervals.any(|i| s.reaches(*i))
            };
            let beside: Vec<_> = table.record.segments.iter().filter(is_beside).collect();
            // Pushed rows of these times are hidden now, and would count with what is taken over.
            let hidden = self
                .with_rows(config, name, &beside, period, &times)
                .await?;
            if let Some(hidden) = hidden.first() {
                let message = format!(
                    "the period from {} waits: segment {} has pushed rows of it that coverage hides; declare their coverage, replace the period, or delete them",
                    show_ms(period.start_ms),
                    hidden.name
                );
                self.note(name, Task::TakeOver, message);
                continue;
            }
            let beside = beside.iter().map(|s| (s.name.clone(), s.checksum));
            let beside = beside.collect();
            return self.take(name, &removed, times, beside).await.map(Some);
        }
        Ok(None)
    }

    /// Those of `segments` that have rows of `times`, which are those of `period`.
    async fn with_rows(
        &self,
        config: &Arc<TableConfig>,
        table: &str,
        segments: &[&Arc<SegmentInfo>],
        period: Interval,
        times: &Coverage,
    ) -> Result<Vec<Arc<SegmentInfo>>> {
        let hosted = self.places.publisher.registry().table(table);
        let column = config
            .time_column
            .as_deref()
            .and_then(|time| config.spec.schema.column(time))
            .ok_or_else(|| Error::precondition(format!("table {table} has no time column")))?;
        let mut found = Vec::new();
        for segment in segments {
            let Some((min, max)) = segment.time_ms else {
                continue;
            };
            let key = (segment.checksum, period.start_ms);
            if !times.overlaps_range(min, max) || self.progress.lock().empty.contains(&key) {
                continue;
            }
            let has_rows = async |intervals: Vec<Interval>| {
                let held = hosted.open(&segment.name, segment.checksum)?;
                let column = column.clone();
                let spawner = &self.places.environment.spawner;
                let docs = blocking(spawner, "look at times", move || {
                    docs_by_time(&held, &column, &intervals, false)
                });
                Ok::<_, Error>(!docs.await?.is_empty())
            };
            if times.contains_range(min, max) || has_rows(times.intervals().to_vec()).await? {
                found.push(Arc::clone(segment));
            } else if !has_rows(vec![period]).await? {
                // What of the period is covered may change; that the segment has no rows of it does not.
                self.progress.lock().empty.insert(key);
            }
        }
        Ok(found)
    }

    async fn take(
        &self,
        table: &str,
        removed: &[Arc<SegmentInfo>],
        times: Coverage,
        beside: Vec<SegmentContent>,
    ) -> Result<String> {
        let intervals = times.intervals().to_vec();
        let taken = removed.iter().map(|source| Part {
            source: Arc::clone(source),
            take: Take::Inside(intervals.clone()),
            deleted: Vec::new(),
        });
        let mut planned = vec![Planned {
            half: Half::Offline,
            origin: None,
            moved: true,
            rebuilt: false,
            parts: taken.collect(),
        }];
        let reaches_out = |s: &&Arc<SegmentInfo>| {
            let within = |(min, max)| times.contains_range(min, max);
            !s.time_ms.is_some_and(within)
        };
        let left = removed.iter().filter(reaches_out);
        planned.extend(left.map(|s| Planned::part_of(s, Take::Outside(intervals.clone()))));
        let boundary = times.boundary_ms().unwrap_or_default();
        let reason = ChangeReason::Moved { times, beside };
        let left = Some(change::moved as change::Left);
        let made = change::apply(&self.places, table, removed, planned, reason, left).await?;
        let stay = made.iter().filter(|s| s.half == Half::Realtime);
        let rows = removed.iter().map(|s| s.rows).sum::<u64>() - stay.map(|s| s.rows).sum::<u64>();
        Ok(format!(
            "took over {rows} rows of {} realtime segments, of times up to {}",
            removed.len(),
            show_ms(boundary)
        ))
    }
}

fn show_ms(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms);
    time.map_or_else(|| ms.to_string(), |time| time.to_rfc3339())
}

/// The periods, ascending, that segments may have rows of and whose time has come.
fn periods(segments: &[&Arc<SegmentInfo>], wanted: TakeOver, now_ms: i64) -> Vec<Interval> {
    let TakeOver {
        period_ms,
        buffer_ms,
    } = wanted;
    let mut starts = std::collections::BTreeSet::new();
    for (min, max) in segments.iter().filter_map(|s| s.time_ms) {
        let latest = now_ms.saturating_sub(buffer_ms).saturating_sub(period_ms);
        let mut start = min.div_euclid(period_ms).saturating_mul(period_ms);
        // A segment of a wild range is looked at in as many periods as a person would.
        let mut looks = 0;
        while start <= max.min(latest) && looks < 10_000 {
            starts.insert(start);
            start = start.saturating_add(period_ms);
            looks += 1;
        }
    }
    let period = |start_ms: i64| Interval {
        start_ms,
        end_ms: start_ms.saturating_add(period_ms),
    };
    starts.into_iter().map(period).collect()
}
