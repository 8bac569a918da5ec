//! The metastore in SQL, on a file of its own outside of the simulated disk: each transaction happens as a whole or not at all,
//! and what was committed stays, however a life ends. An answer can be lost on its way, and a request as well.
//!
//! What SQLite itself writes and syncs is not simulated.

use super::machine::{Machine, Point};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{CatalogVersion, Half, OffsetRange, StreamPartition};
use strandline_proto::{Error, Result};
use strandline_storage::meta::ledger::PartitionLedger;
use strandline_storage::meta::minutes::MinuteCounts;
use strandline_storage::meta::sql::SqlMetastore;
use strandline_storage::meta::{
    ChangeSegments, CommitRealtime, DeadLetter, KeptPush, MetaState, Metastore, NewTable, Outcome,
    PartitionRecord, PushOffline, Pushed, RemovedSegment, ReplaceSegment, SchemaRecord,
    SegmentContent, SkipOffsets,
};
use tokio::runtime::Runtime;

/// The offsets of each partition that were committed, in the order in which they were: each range begins where the one
/// before it ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    pub(super) ranges: BTreeMap<u32, Vec<OffsetRange>>,
    /// What did not fit.
    pub(super) wrong: Vec<String>,
}

impl Ledger {
    fn add(&mut self, partition: &StreamPartition, range: OffsetRange) {
        let ranges = self.ranges.entry(partition.partition).or_default();
        let end = ranges.last().map_or(0, |last| last.end);
        if range.start != end || range.end <= range.start {
            self.wrong.push(format!(
                "{partition}: the offsets {} to {} were committed after {end}",
                range.start, range.end
            ));
        }
        ranges.push(range);
    }

    /// The first offset of a partition that is not committed.
    pub(super) fn next_offset(&self, partition: u32) -> u64 {
        let ranges = self.ranges.get(&partition);
        ranges.and_then(|r| r.last()).map_or(0, |last| last.end)
    }
}

/// The metastore as one life of a server sees it.
pub(super) struct SimulatedMetastore {
    pub(super) sql: SqlMetastore,
    pub(super) runtime: Arc<Runtime>,
    pub(super) machine: Arc<Machine>,
    pub(super) life: u64,
    pub(super) ledger: Arc<Mutex<Ledger>>,
}

/// Lets others go first, as often as is drawn.
pub(super) async fn give_way(machine: &Machine) {
    for _ in 0..machine.below(3) {
        let mut waited = false;
        std::future::poll_fn(|context| match waited {
            true => Poll::Ready(()),
            false => {
                waited = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await;
    }
}

fn away() -> Error {
    Error::unavailable("the simulated metastore does not answer")
}

impl SimulatedMetastore {
    fn is_lost(&self) -> bool {
        self.machine.once_in(self.machine.faults().metastore)
    }

    /// One transaction, whose request or answer may be lost.
    async fn transact<T>(
        &self,
        name: &str,
        run: impl AsyncFnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        give_way(&self.machine).await;
        if self.machine.is_over(self.life) || !self.machine.passes(Point::Transaction) {
            return Err(away());
        }
        if self.is_lost() {
            self.machine
                .note(format_args!("{name}: the request is lost"));
            return Err(away());
        }
        let done = self.runtime.block_on(run());
        let outcome = match &done {
            Ok(_) => "done",
            Err(e) => e.message(),
        };
        self.machine.note(format_args!("{name}: {outcome}"));
        if !self.machine.passes(Point::Transaction) {
            return Err(away());
        }
        if done.is_ok() && self.is_lost() {
            self.machine
                .note(format_args!("{name}: the answer is lost"));
            return Err(away());
        }
        give_way(&self.machine).await;
        done
    }

    /// A question, whose answer may be lost.
    async fn ask<T>(&self, name: &str, run: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
        if self.machine.is_over(self.life) || self.is_lost() {
            self.machine.note(format_args!("{name}: no answer"));
            return Err(away());
        }
        self.runtime.block_on(run())
    }

    /// Which half answers for which times is worth a line.
    async fn note_coverage(&self) {
        if let Ok(state) = self.sql.state().await {
            for table in &state.tables {
                self.machine.note(format_args!("{:?}", table.coverage));
            }
        }
    }

    pub(super) fn close(&self) {
        self.runtime.block_on(self.sql.close());
    }
}

#[async_trait]
impl Metastore for SimulatedMetastore {
    async fn state(&self) -> Result<Arc<MetaState>> {
        // From memory, and asked all the time.
        if self.machine.is_over(self.life) {
            return Err(away());
        }
        self.runtime.block_on(self.sql.state())
    }

    async fn put_schema(&self, schema: SchemaRecord) -> Result<Outcome<u32>> {
        self.transact("put schema", async || self.sql.put_schema(schema).await)
            .await
    }

    async fn delete_schema(&self, name: &str) -> Result<()> {
        self.transact("delete schema", async || self.sql.delete_schema(name).await)
            .await
    }

    async fn create_table(&self, table: NewTable) -> Result<Outcome<CatalogVersion>> {
        self.transact("create table", async || self.sql.create_table(table).await)
            .await
    }

    async fn update_table(&self, table: NewTable) -> Result<Outcome<CatalogVersion>> {
        self.transact("update table", async || self.sql.update_table(table).await)
            .await
    }

    async fn doubt_segments(&self, table: &str, half: Option<Half>) -> Result<u64> {
        self.transact("doubt segments", async || {
            self.sql.doubt_segments(table, half).await
        })
        .await
    }

    async fn drop_table(&self, name: &str, half: Option<Half>) -> Result<Vec<SegmentInfo>> {
        self.transact("drop table", async || self.sql.drop_table(name, half).await)
            .await
    }

    async fn start_partition(
        &self,
        table: &str,
        partition: &StreamPartition,
        offset: u64,
    ) -> Result<u64> {
        self.transact("start partition", async || {
            self.sql.start_partition(table, partition, offset).await
        })
        .await
    }

    async fn commit_realtime(&self, commit: CommitRealtime) -> Result<Outcome<CatalogVersion>> {
        let origin = commit.segment.origin.clone();
        self.transact("commit", async || {
            let outcome = self.sql.commit_realtime(commit).await?;
            if let (Outcome::Done(_), Some((partition, range))) = (&outcome, &origin) {
                self.ledger.lock().add(partition, *range);
            }
            Ok(outcome)
        })
        .await
    }

    async fn skip_offsets(&self, skip: SkipOffsets) -> Result<Outcome<CatalogVersion>> {
        let partition = skip.partition.clone();
        let range = OffsetRange {
            start: skip.from_offset,
            end: skip.to_offset,
        };
        self.transact("skip", async || {
            let outcome = self.sql.skip_offsets(skip).await?;
            if let Outcome::Done(_) = &outcome {
                self.ledger.lock().add(&partition, range);
            }
            Ok(outcome)
        })
        .await
    }

    async fn push_offline(&self, push: PushOffline) -> Result<Outcome<Pushed>> {
        self.transact("push", async || {
            let outcome = self.sql.push_offline(push).await?;
            self.note_coverage().await;
            Ok(outcome)
        })
        .await
    }

    async fn push_result(&self, table: &str, push_id: &str) -> Result<Option<String>> {
        self.ask("push result", async || {
            self.sql.push_result(table, push_id).await
        })
        .await
    }

    async fn revert_push(&self, table: &str, push_id: &str) -> Result<Outcome<Pushed>> {
        self.transact("revert", async || {
            self.sql.revert_push(table, push_id).await
        })
        .await
    }

    async fn keys_secret(&self, new: [u8; 16]) -> Result<[u8; 16]> {
        self.transact("keys' secret", async || self.sql.keys_secret(new).await)
            .await
    }

    async fn kept_pushes(&self) -> Result<Vec<KeptPush>> {
        self.ask("kept pushes", async || self.sql.kept_pushes().await)
            .await
    }

    async fn release_push(
        &self,
        table: &str,
        push_id: &str,
    ) -> Result<(CatalogVersion, Vec<SegmentInfo>)> {
        self.transact("release push", async || {
            self.sql.release_push(table, push_id).await
        })
        .await
    }

    async fn change_segments(&self, change: ChangeSegments) -> Result<Outcome<CatalogVersion>> {
        let name = format!(
            "change {:?}, {} for {}",
            change.reason,
            change.added.len(),
            change.removed.len()
        );
        self.transact(&name, async || {
            let outcome = self.sql.change_segments(change).await?;
            self.note_coverage().await;
            Ok(outcome)
        })
        .await
    }

    async fn replace_segment(&self, replace: ReplaceSegment) -> Result<Outcome<CatalogVersion>> {
        self.transact("replace segment", async || {
            self.sql.replace_segment(replace).await
        })
        .await
    }

    async fn pin_boundary(&self, table: &str, boundary_ms: i64) -> Result<Outcome<CatalogVersion>> {
        self.transact("pin", async || {
            self.sql.pin_boundary(table, boundary_ms).await
        })
        .await
    }

    async fn release_boundary(&self, table: &str) -> Result<Outcome<CatalogVersion>> {
        self.transact("release", async || self.sql.release_boundary(table).await)
            .await
    }

    async fn set_paused(&self, table: &str, paused: bool) -> Result<Outcome<CatalogVersion>> {
        self.transact("pause", async || self.sql.set_paused(table, paused).await)
            .await
    }

    async fn record_dead_letters(&self, table: &str, letters: &[DeadLetter]) -> Result<u64> {
        self.transact("dead letters", async || {
            self.sql.record_dead_letters(table, letters).await
        })
        .await
    }

    async fn dead_letters(&self, table: &str, limit: u32) -> Result<Vec<DeadLetter>> {
        self.ask("dead letters", async || {
            self.sql.dead_letters(table, limit).await
        })
        .await
    }

    async fn ledger(&self, table: &str) -> Result<Vec<PartitionLedger>> {
        self.ask("ledger", async || self.sql.ledger(table).await)
            .await
    }

    async fn ledger_minutes(
        &self,
        table: &str,
        partition: &StreamPartition,
        from_offset: u64,
        buckets_max: usize,
    ) -> Result<(PartitionRecord, MinuteCounts)> {
        self.ask("ledger minutes", async || {
            self.sql
                .ledger_minutes(table, partition, from_offset, buckets_max)
                .await
        })
        .await
    }

    async fn ledger_minutes_of(
        &self,
        table: &str,
        partition: &StreamPartition,
        range: OffsetRange,
    ) -> Result<MinuteCounts> {
        self.ask("ledger minutes", async || {
            self.sql.ledger_minutes_of(table, partition, range).await
        })
        .await
    }

    async fn removed_segments(&self) -> Result<Vec<RemovedSegment>> {
        self.ask("removed segments", async || {
            self.sql.removed_segments().await
        })
        .await
    }

    async fn forget_segments(&self, table: &str, contents: &[SegmentContent]) -> Result<()> {
        self.transact("forget", async || {
            self.sql.forget_segments(table, contents).await
        })
        .await
    }
}
