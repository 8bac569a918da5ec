//! Archived messages that are too old are given up, by their streams' configs.

use super::{Table, Upkeep};
use std::time::Duration;
use strandline_proto::Result;
use strandline_storage::archive::Archive;

/// How often a table's archives are looked at: it costs a list of their files.
const PERIOD: Duration = Duration::from_secs(600);

impl Upkeep {
    /// Removes the beginnings of a table's archives whose messages are all older than their streams' configs keep them.
    pub(super) async fn trim_archives(&self, table: &Table<'_>) -> Result<Option<String>> {
        let Some(config) = &table.realtime else {
            return Ok(None);
        };
        let kept = config.streams.iter();
        let kept: Vec<_> = kept.filter(|s| s.archive_retention_ms.is_some()).collect();
        let name = &table.record.name;
        let clock = &self.places.environment.clock;
        let now = clock.monotonic();
        let looked = self.progress.lock().archives.get(name).copied();
        let is_due = looked.is_none_or(|at| now.saturating_sub(at) >= PERIOD);
        if kept.is_empty() || !is_due {
            return Ok(None);
        }
        let mut removed = 0;
        let deep_store = &self.places.deep_store;
        for record in &table.record.partitions {
            let partition = &record.partition;
            let stream = kept.iter().find(|stream| {
                *partition.stream == *stream.stream_id() && *partition.topic == *stream.topic
            });
            let Some(retention_ms) = stream.and_then(|stream| stream.archive_retention_ms) else {
                continue;
            };
            let retention_ms = i64::try_from(retention_ms).unwrap_or(i64::MAX);
            let before_ms = clock.now_ms().saturating_sub(retention_ms);
            let archive = Archive::of_partition(deep_store, name, partition);
            let gone = archive.remove_older(partition.partition, record.next_offset, before_ms);
            removed += gone.await?.len();
        }
        let archives = &mut self.progress.lock().archives;
        archives.insert(name.clone(), now);
        let message = format!(
            "gave up {removed} files of archived messages that are older than they are to be kept"
        );
        Ok((removed > 0).then_some(message))
    }
}
