//! A writing transaction, which notes what it changes and applies it to the state in memory once it is on disk.
//!
//! One at a time holds the *turn*, from before its first statement until its changes are applied, so changes are
//! applied in the order of their commits. A commit whose outcome was not learned (its caller went away, or the
//! database failed) leaves the state in *doubt*: it is read again before it is next used.

use super::tables::{self, TableRow};
use super::{Connection, Db, SqlMetastore, catalog_version, sql_error};
use crate::meta::{MetaState, Outcome, PartitionRecord, SchemaRecord, TableRecord};
use parking_lot::RwLock;
use sqlx::Transaction;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{CatalogVersion, SegmentName};
use strandline_proto::{Error, Result};
use tokio::sync::{Mutex, MutexGuard};

/// The state in memory.
pub(super) struct Mirror {
    state: RwLock<Arc<MetaState>>,
    doubted: AtomicBool,
    turn: Mutex<()>,
}

impl Mirror {
    pub(super) fn new(state: MetaState) -> Self {
        Self {
            state: RwLock::new(Arc::new(state)),
            doubted: AtomicBool::new(false),
            turn: Mutex::new(()),
        }
    }
}

/// Puts the state in doubt unless the outcome was learned.
struct Doubt<'a>(Option<&'a Mirror>);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(mirror) = self.0 {
            mirror.doubted.store(true, Ordering::Release);
        }
    }
}

/// One thing that a transaction changed.
enum Change {
    Schema(SchemaRecord),
    SchemaGone(String),
    Table(TableRow),
    TableGone(String),
    Segment(String, Arc<SegmentInfo>),
    SegmentGone(String, SegmentName),
    Partition(String, PartitionRecord),
    PartitionsGone(String),
}

/// A writing transaction; without [`Write::commit`] nothing of it stays.
pub(super) struct Write<'a> {
    transaction: Transaction<'static, Db>,
    store: &'a SqlMetastore,
    version: Option<CatalogVersion>,
    changes: Vec<Change>,
    // Given back last.
    turn: MutexGuard<'a, ()>,
}

impl SqlMetastore {
    /// Begins to write, after those that began before.
    pub(super) async fn write(&self) -> Result<Write<'_>> {
        let turn = self.mirror.turn.lock().await;
        self.settle(&turn).await?;
        Ok(Write {
            transaction: begin(&self.writer).await?,
            store: self,
            version: None,
            changes: Vec::new(),
            turn,
        })
    }

    /// What is stored, from memory.
    pub(super) async fn held(&self) -> Result<Arc<MetaState>> {
        if self.mirror.doubted.load(Ordering::Acquire) {
            let turn = self.mirror.turn.lock().await;
            self.settle(&turn).await?;
        }
        Ok(Arc::clone(&self.mirror.state.read()))
    }

    /// Reads everything again when it is in doubt. The writer's connection is asked, because it first ends what is
    /// under way.
    async fn settle(&self, _turn: &MutexGuard<'_, ()>) -> Result<()> {
        if self.mirror.doubted.load(Ordering::Acquire) {
            let mut transaction = begin(&self.writer).await?;
            let state = tables::load(&mut transaction).await?;
            *self.mirror.state.write() = Arc::new(state);
            self.mirror.doubted.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// In debug builds: holds `state` against what is stored.
    async fn check(&self, state: &MetaState) {
        if cfg!(debug_assertions)
            && let Ok(mut transaction) = begin(&self.readers).await
            && let Ok(stored) = tables::load(&mut transaction).await
        {
            if *state == stored {
                return;
            }
            // By their text, because a segment's largest value may be a NaN, which equals nothing.
            let (held, stored) = (format!("{state:#?}"), format!("{stored:#?}"));
            assert!(
                held == stored,
                "in memory is {held}, and stored is {stored}"
            );
        }
    }
}

/// Begins a transaction on a connection of `pool`.
pub(super) async fn begin(pool: &sqlx::Pool<Db>) -> Result<Transaction<'static, Db>> {
    pool.begin().await.map_err(|e| sql_error("begin", &e))
}

impl Write<'_> {
    /// The connection, to read by and for statements whose effect is no part of [`MetaState`].
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.transaction
    }

    /// Makes the next catalog version. First in each changing transaction, so that it also takes the write lock.
    pub(super) async fn next_version(&mut self) -> Result<CatalogVersion> {
        sqlx::query("UPDATE catalog SET version = version + 1 WHERE id = 1")
            .execute(self.connection())
            .await
            .map_err(|e| sql_error("write", &e))?;
        let version = catalog_version(self.connection()).await?;
        self.version = Some(version);
        Ok(version)
    }

    pub(super) fn note_schema(&mut self, schema: SchemaRecord) {
        self.changes.push(Change::Schema(schema));
    }

    pub(super) fn note_schema_gone(&mut self, name: &str) {
        self.changes.push(Change::SchemaGone(name.to_owned()));
    }

    pub(super) fn note_table(&mut self, table: &TableRow) {
        self.changes.push(Change::Table(table.clone()));
    }

    pub(super) fn note_table_gone(&mut self, name: &str) {
        self.changes.push(Change::TableGone(name.to_owned()));
    }

    pub(super) fn note_segment(&mut self, table: &str, segment: &SegmentInfo) {
        let segment = Arc::new(segment.clone());
        self.changes
            .push(Change::Segment(table.to_owned(), segment));
    }

    pub(super) fn note_segment_gone(&mut self, table: &str, name: &SegmentName) {
        self.changes
            .push(Change::SegmentGone(table.to_owned(), name.clone()));
    }

    pub(super) fn note_partition(&mut self, table: &str, partition: PartitionRecord) {
        self.changes
            .push(Change::Partition(table.to_owned(), partition));
    }

    pub(super) fn note_partitions_gone(&mut self, table: &str) {
        self.changes.push(Change::PartitionsGone(table.to_owned()));
    }

    /// Makes it durable, and then what the next readers are given.
    pub(super) async fn commit(self) -> Result<()> {
        let Self {
            transaction,
            store,
            version,
            changes,
            turn,
        } = self;
        let mirror = &store.mirror;
        // Dropped before the turn is.
        let mut doubt = Doubt(Some(mirror));
        transaction
            .commit()
            .await
            .map_err(|e| sql_error("commit", &e))?;
        let before = Arc::clone(&mirror.state.read());
        match after(before, version, changes) {
            Ok(state) => {
                store.check(&state).await;
                *mirror.state.write() = state;
                doubt.0 = None;
            }
            // It is on disk, which is what was asked for.
            Err(e) => tracing::error!(error = %e, "the metastore is read again"),
        }
        drop(doubt);
        drop(turn);
        Ok(())
    }

    /// Commits what was done; what had been done before leaves no trace.
    pub(super) async fn finish<T>(self, outcome: Outcome<T>) -> Result<Outcome<T>> {
        match outcome {
            Outcome::Done(_) => self.commit().await?,
            Outcome::AlreadyDone(_) => self
                .transaction
                .rollback()
                .await
                .map_err(|e| sql_error("roll back", &e))?,
        }
        Ok(outcome)
    }
}

/// The state that `changes` make of `state`.
fn after(
    mut state: Arc<MetaState>,
    version: Option<CatalogVersion>,
    changes: Vec<Change>,
) -> Result<Arc<MetaState>> {
    if version.is_some() || !changes.is_empty() {
        let next = Arc::make_mut(&mut state);
        next.version = version.unwrap_or(next.version);
        for change in changes {
            apply(next, change)?;
        }
    }
    Ok(state)
}

/// Where a record stands, or where it would, in records ordered by `key`.
fn place<T, K: Ord + ?Sized>(
    records: &[T],
    key: &K,
    of: impl Fn(&T) -> &K,
) -> Result<usize, usize> {
    records.binary_search_by(|record| of(record).cmp(key))
}

/// Puts a record into its place, instead of the one that is there.
fn put<T, K: Ord + ?Sized>(records: &mut Vec<T>, record: T, of: impl Fn(&T) -> &K) {
    match place(records, of(&record), &of) {
        Ok(at) => records[at] = record,
        Err(at) => records.insert(at, record),
    }
}

/// Makes `change` in `state`.
///
/// # Errors
/// When it is of a record that is not there; what was stored is then to be read again.
fn apply(state: &mut MetaState, change: Change) -> Result<()> {
    let missing = |what: &str| Error::internal(format!("metastore: {what} is not held in memory"));
    match change {
        Change::Schema(schema) => {
            let schema = Arc::new(schema);
            for table in &mut state.tables {
                if table.schema.name == schema.name {
                    Arc::make_mut(table).schema = Arc::clone(&schema);
                }
            }
            put(&mut state.schemas, schema, |s| s.name.as_str());
        }
        Change::SchemaGone(name) => state.schemas.retain(|s| s.name != name),
        Change::Table(row) => {
            let schema = state.schema(&row.schema).cloned();
            let schema = schema.ok_or_else(|| missing(&row.schema))?;
            let (segments, partitions) = match state.table(&row.name) {
                Some(table) => (table.segments.clone(), table.partitions.clone()),
                None => Default::default(),
            };
            let table = row.into_record(schema, segments, partitions);
            put(&mut state.tables, Arc::new(table), |t| t.name.as_str());
        }
        Change::TableGone(name) => state.tables.retain(|t| t.name != name),
        Change::Segment(table, segment) => {
            let table = table_mut(state, &table).ok_or_else(|| missing(&table))?;
            put(&mut table.segments, segment, |s| &s.name);
        }
        Change::SegmentGone(table, name) => {
            let table = table_mut(state, &table).ok_or_else(|| missing(&table))?;
            if let Ok(at) = place(&table.segments, &name, |s| &s.name) {
                table.segments.remove(at);
            }
        }
        Change::Partition(table, partition) => {
            let table = table_mut(state, &table).ok_or_else(|| missing(&table))?;
            put(&mut table.partitions, partition, |p: &PartitionRecord| {
                &p.partition
            });
        }
        Change::PartitionsGone(table) => {
            let table = table_mut(state, &table).ok_or_else(|| missing(&table))?;
            table.partitions.clear();
        }
    }
    Ok(())
}

fn table_mut<'a>(state: &'a mut MetaState, name: &str) -> Option<&'a mut TableRecord> {
    let at = place(&state.tables, name, |t| t.name.as_str()).ok()?;
    state.tables.get_mut(at).map(Arc::make_mut)
}
