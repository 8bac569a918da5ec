//! Times of a table that are made again of the archive.

use super::Engine;
use crate::host::rebuild::{Rebuilder, Rebuilt};
use std::sync::Arc;
use strandline_proto::Result;
use strandline_proto::coverage::Interval;

impl Engine {
    /// Makes a table's rows of times from `start_ms` up to `end_ms` again of the archived messages, by its present config; they take
    /// the place of what it has of these times.
    pub async fn rebuild(&self, name: &str, start_ms: i64, end_ms: i64) -> Result<Rebuilt> {
        let (table, _) = self.table_and_half(name)?;
        let rebuilder = Rebuilder {
            loader: self.loader.clone(),
            realtime: Arc::clone(&self.realtime),
        };
        let interval = Interval { start_ms, end_ms };
        rebuilder
            .rebuild(&table.name, interval, &self.tables_change)
            .await
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
