//! Rows that are too old are given up, a whole segment at a time; replaced segments are kept for a time and let go.

use super::{Table, Task, Upkeep};
use crate::host::change;
use std::sync::Arc;
use strandline_proto::Result;
use strandline_proto::ids::Half;
use strandline_storage::meta::{ChangeReason, KeptPush};

/// Segments that go in one step at most.
const SEGMENTS_MAX: usize = 1_000;

impl Upkeep {
    /// Gives up the segments of a table whose rows are all older than its config keeps them. A realtime segment of a hybrid
    /// table waits until offline answers for its times, or, where rows have keys, until none of its rows counts.
    pub(super) async fn expire(&self, table: &Table<'_>) -> Result<Option<String>> {
        let now_ms = self.places.environment.clock.now_ms();
        let mut hiding = table.pushed().minus(&table.record.coverage.moved);
        if !table.is_hybrid() {
            hiding = Default::default();
        }
        let hosted = (self.places.publisher.registry()).table(&table.record.name);
        let mut waiting = 0;
        let mut old = Vec::new();
        for segment in &table.settled {
            let retention = table.config(segment.half).and_then(|c| c.retention_ms);
            let (Some(retention), Some((min, max))) = (retention, segment.time_ms) else {
                continue;
            };
            let before = now_ms.saturating_sub(i64::try_from(retention).unwrap_or(i64::MAX));
            if max >= before {
                continue;
            }
            let is_hidden = match table.has_keys() {
                true => hosted.superseded(&segment.name) == Some(segment.rows),
                false => hiding.contains_range(min, max),
            };
            if segment.half == Half::Realtime && table.is_hybrid() && !is_hidden {
                waiting += 1;
            } else if old.len() < SEGMENTS_MAX {
                old.push(Arc::clone(segment));
            }
        }
        if waiting > 0 {
            self.note(
                &table.record.name,
                Task::Expire,
                match table.has_keys() {
                    true => format!("{waiting} realtime segments are older than they are to be kept, and wait until newer or pushed rows of their keys count instead"),
                    false => format!("{waiting} realtime segments are older than they are to be kept, and wait until offline covers their times"),
                },
            );
        }
        // Where rows have keys, one half at a time.
        if let Some(first) = old.first().map(|s| s.half)
            && table.has_keys()
        {
            old.retain(|s| s.half == first);
        }
        if old.is_empty() {
            return Ok(None);
        }
        let rows: u64 = old.iter().map(|s| s.rows).sum();
        let name = &table.record.name;
        change::apply(
            &self.places,
            name,
            &old,
            Vec::new(),
            ChangeReason::Deleted,
            Some(change::expired),
        )
        .await?;
        Ok(Some(format!(
            "gave up {} segments of {rows} rows that are older than they are to be kept",
            old.len()
        )))
    }

    /// Lets go of what pushes replaced longer ago than it is kept.
    pub(super) async fn let_go(&self, kept: &[KeptPush]) -> Result<bool> {
        let now_ms = self.places.environment.clock.now_ms();
        let publisher = &self.places.publisher;
        for push in kept {
            let config = publisher.config(&push.table, Half::Offline);
            let kept_ms = config.map_or(0, |config| config.kept_ms);
            let until = push
                .pushed_ms
                .saturating_add(i64::try_from(kept_ms).unwrap_or(i64::MAX));
            if now_ms < until {
                continue;
            }
            let metastore = &self.places.metastore;
            let (version, segments) = metastore.release_push(&push.table, &push.push_id).await?;
            publisher.publish().await?;
            publisher.retire_segments(version, &push.table, segments);
            return Ok(true);
        }
        Ok(false)
    }
}
