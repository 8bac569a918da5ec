//! The metastore in SQL, on SQLite: one file in write-ahead mode, synced at every commit, one writer.
//!
//! Statements keep to what SQLite and PostgreSQL share (`$1` parameters, `ON CONFLICT DO NOTHING`, no dialect's own
//! functions), so that a second dialect is another [`Db`] and not another implementation.

mod ledger;
mod migrations;
mod push;
mod realtime;
mod segments;
mod tables;
mod write;

use super::ledger::PartitionLedger;
use super::minutes::MinuteCounts;
use super::{
    ChangeSegments, CommitRealtime, DeadLetter, KeptPush, MetaState, Metastore, NewTable, Outcome,
    PartitionRecord, PushOffline, Pushed, RemovedSegment, ReplaceSegment, SchemaRecord,
    SegmentContent, SkipOffsets,
};
use crate::environment::Clock;
use async_trait::async_trait;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Pool, Row, Sqlite, Transaction};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{CatalogVersion, Half, OffsetRange, StreamPartition};
use strandline_proto::{Error, ErrorKind, Result};
use write::{Mirror, begin};

/// The dialect.
pub(super) type Db = Sqlite;
type Connection = <Db as sqlx::Database>::Connection;
type SqlRow = <Db as sqlx::Database>::Row;

const READERS_MAX: u32 = 2;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The metastore in a SQL database.
pub struct SqlMetastore {
    writer: Pool<Db>,
    readers: Pool<Db>,
    mirror: Mirror,
    clock: Arc<dyn Clock>,
}

impl SqlMetastore {
    /// Opens, creates or migrates the store in the file at `path`.
    ///
    /// Errors: `FailedPrecondition` when a newer version of Strandline wrote it, `DataLoss` when it is no SQLite file or damaged.
    pub async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let place = |error: Error| error.at(path.display());
        let pool = |connections| {
            PoolOptions::<Db>::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                // On a full disk SQLite ends a transaction by itself, and the driver goes on to believe in it: what is begun
                // then would be a part of it, and be committed with it only. Such a connection is not used again.
                .before_acquire(|connection, _| {
                    Box::pin(async move { Ok(!sqlx::Connection::is_in_transaction(connection)) })
                })
        };
        let writer = pool(1)
            .connect_with(options.clone())
            .await
            .map_err(|e| place(sql_error("open", &e)))?;
        {
            let mut connection = writer
                .acquire()
                .await
                .map_err(|e| place(sql_error("open", &e)))?;
            check_names(&mut connection).await.map_err(place)?;
            migrations::migrate(&mut connection, clock.now_ms())
                .await
                .map_err(place)?;
        }
        let readers = pool(READERS_MAX)
            .connect_with(options)
            .await
            .map_err(|e| place(sql_error("open", &e)))?;
        let mut read = begin(&readers).await.map_err(place)?;
        let state = tables::load(&mut read).await.map_err(place)?;
        commit(read).await.map_err(place)?;
        Ok(Self {
            writer,
            readers,
            mirror: Mirror::new(state),
            clock,
        })
    }

    /// Writes a copy of the store, as it is at one version, to a file that is not there yet.
    ///
    /// # Errors
    /// When it can't be written; what was of it is for the caller to remove.
    pub async fn copy_to(&self, path: &Path) -> Result<()> {
        let Some(name) = path.to_str() else {
            return Err(Error::invalid(format!(
                "{} is no path in UTF-8",
                path.display()
            )));
        };
        sqlx::query("VACUUM INTO $1")
            .bind(name)
            .execute(&self.readers)
            .await
            .map_err(|e| sql_error("copy", &e).at(path.display()))?;
        Ok(())
    }

    /// Closes all connections; what was answered is on disk with or without this.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn read(&self) -> Result<Transaction<'static, Db>> {
        begin(&self.readers).await
    }
}

async fn commit(transaction: Transaction<'static, Db>) -> Result<()> {
    transaction
        .commit()
        .await
        .map_err(|e| sql_error("commit", &e))
}

/// An error of the database as a user meets it.
pub(super) fn sql_error(action: &str, error: &sqlx::Error) -> Error {
    let code = error
        .as_database_error()
        .and_then(|e| e.code())
        .and_then(|code| code.parse::<i32>().ok());
    // SQLite's primary result codes are the lowest byte of its extended ones.
    let (kind, remedy) = match code.map(|code| code & 0xff) {
        Some(5 | 6) => (ErrorKind::Unavailable, "; another process uses it"),
        Some(8 | 14 | 23) => (
            ErrorKind::FailedPrecondition,
            "; check the data folder and its permissions",
        ),
        Some(11 | 26) => (ErrorKind::DataLoss, "; restore the data folder from a copy"),
        Some(13) => (
            ErrorKind::ResourceExhausted,
            "; free disk space and try again",
        ),
        Some(10) => (ErrorKind::Unavailable, ""),
        _ => match error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => (ErrorKind::Unavailable, ""),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                (ErrorKind::DataLoss, "; restore the data folder from a copy")
            }
            _ => (ErrorKind::Internal, ""),
        },
    };
    Error::new(kind, format!("metastore: can't {action}: {error}{remedy}"))
}

/// An unsigned number as the database holds it.
fn to_sql(number: u64, what: &str) -> Result<i64> {
    i64::try_from(number)
        .map_err(|_| Error::invalid(format!("{what} {number} is larger than {}", i64::MAX)))
}

/// An unsigned number of a row.
fn unsigned(row: &SqlRow, column: &str) -> Result<u64> {
    let number: i64 = row.try_get(column).map_err(|e| sql_error("read", &e))?;
    u64::try_from(number).map_err(|_| {
        Error::data_loss(format!(
            "metastore: {column} is {number}; restore the data folder from a copy"
        ))
    })
}

/// A text of a row.
fn text(row: &SqlRow, column: &str) -> Result<String> {
    row.try_get(column).map_err(|e| sql_error("read", &e))
}

/// A document with its checksum before it, eight hexadecimal digits and a space: the database has none of its own.
fn sealed(document: &str) -> String {
    format!("{:08x} {document}", crc32c::crc32c(document.as_bytes()))
}

/// The document that was [sealed]; one that was stored before documents were is as it is.
fn unsealed<'a>(stored: &'a str, what: &str) -> Result<&'a str> {
    let digits = |text: &&str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((sum, document)) = stored.split_once(' ').filter(|(sum, _)| digits(sum)) else {
        return Ok(stored);
    };
    match u32::from_str_radix(sum, 16) == Ok(crc32c::crc32c(document.as_bytes())) {
        true => Ok(document),
        false => Err(Error::data_loss(format!(
            "metastore: {what} is not what was written: move meta.sqlite away and make it again with `strandline rebuild`, or restore a backup"
        ))),
    }
}

fn from_json<T: serde::de::DeserializeOwned>(stored: &str, what: &str) -> Result<T> {
    serde_json::from_str(unsealed(stored, what)?).map_err(|e| {
        Error::data_loss(format!(
            "metastore: {what} can't be read: {e}; restore the data folder from a copy"
        ))
    })
}

fn to_json<T: serde::Serialize>(value: &T, what: &str) -> Result<String> {
    serde_json::to_string(value)
        .map(|json| sealed(&json))
        .map_err(|e| Error::internal(format!("metastore: {what} can't be written: {e}")))
}

/// Refuses a file in which the definitions of tables are no text: the driver ends by a panic where it reads them.
async fn check_names(connection: &mut Connection) -> Result<()> {
    let definitions: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT CAST(COALESCE(name, '') || COALESCE(sql, '') AS BLOB) FROM sqlite_master",
    )
    .fetch_all(connection)
    .await
    .map_err(|e| sql_error("read", &e))?;
    match definitions
        .iter()
        .all(|text| std::str::from_utf8(text).is_ok())
    {
        true => Ok(()),
        false => Err(Error::data_loss(
            "the metastore is damaged: move the file away, and make it again with `strandline rebuild`, or restore a backup",
        )),
    }
}

async fn catalog_version(connection: &mut Connection) -> Result<CatalogVersion> {
    let row = sqlx::query("SELECT version FROM catalog WHERE id = 1")
        .fetch_one(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    Ok(CatalogVersion(unsigned(&row, "version")?))
}

#[async_trait]
impl Metastore for SqlMetastore {
    async fn state(&self) -> Result<Arc<MetaState>> {
        self.held().await
    }

    async fn put_schema(&self, schema: SchemaRecord) -> Result<Outcome<u32>> {
        let mut write = self.write().await?;
        let outcome = tables::put_schema(&mut write, schema).await?;
        write.finish(outcome).await
    }

    async fn delete_schema(&self, name: &str) -> Result<()> {
        let mut write = self.write().await?;
        tables::delete_schema(&mut write, name).await?;
        write.commit().await
    }

    async fn create_table(&self, table: NewTable) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let outcome = tables::create(&mut write, &table).await?;
        write.finish(outcome).await
    }

    async fn update_table(&self, table: NewTable) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let outcome = tables::change(&mut write, &table).await?;
        write.finish(outcome).await
    }

    async fn doubt_segments(&self, table: &str, half: Option<Half>) -> Result<u64> {
        let mut write = self.write().await?;
        write.next_version().await?;
        let mut count = 0;
        for each in [Half::Offline, Half::Realtime] {
            if half.is_none_or(|half| half == each) {
                count += segments::doubt(&mut write, table, each).await?;
            }
        }
        let outcome = match count {
            0 => Outcome::AlreadyDone(0),
            count => Outcome::Done(count),
        };
        write.finish(outcome).await.map(Outcome::into_inner)
    }

    async fn replace_segment(&self, replace: ReplaceSegment) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let outcome = segments::replace(&mut write, &replace).await?;
        write.finish(outcome).await
    }

    async fn drop_table(&self, name: &str, half: Option<Half>) -> Result<Vec<SegmentInfo>> {
        let mut write = self.write().await?;
        let removed = tables::drop(&mut write, name, half).await?;
        write.commit().await?;
        Ok(removed)
    }

    async fn start_partition(
        &self,
        table: &str,
        partition: &StreamPartition,
        offset: u64,
    ) -> Result<u64> {
        let mut write = self.write().await?;
        let outcome = realtime::start(&mut write, table, partition, offset).await?;
        Ok(write.finish(outcome).await?.into_inner())
    }

    async fn commit_realtime(&self, request: CommitRealtime) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let outcome = realtime::commit(&mut write, &request).await?;
        write.finish(outcome).await
    }

    async fn skip_offsets(&self, skip: SkipOffsets) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let outcome = realtime::skip(&mut write, &skip).await?;
        write.finish(outcome).await
    }

    async fn push_offline(&self, push: PushOffline) -> Result<Outcome<Pushed>> {
        let mut write = self.write().await?;
        let outcome = push::push(&mut write, &push, self.clock.now_ms()).await?;
        write.finish(outcome).await
    }

    async fn push_result(&self, table: &str, push_id: &str) -> Result<Option<String>> {
        let mut read = self.read().await?;
        let result = push::pushed(&mut read, table, push_id).await?;
        commit(read).await?;
        Ok(result.map(|(_, json)| json))
    }

    async fn revert_push(&self, table: &str, push_id: &str) -> Result<Outcome<Pushed>> {
        let mut write = self.write().await?;
        let outcome = push::revert(&mut write, table, push_id, self.clock.now_ms()).await?;
        write.finish(outcome).await
    }

    async fn kept_pushes(&self) -> Result<Vec<KeptPush>> {
        let mut read = self.read().await?;
        let kept = push::kept(&mut read).await?;
        commit(read).await?;
        Ok(kept)
    }

    async fn release_push(
        &self,
        table: &str,
        push_id: &str,
    ) -> Result<(CatalogVersion, Vec<SegmentInfo>)> {
        let mut write = self.write().await?;
        let released = push::release(&mut write, table, push_id).await?;
        write.commit().await?;
        Ok(released)
    }

    async fn change_segments(&self, change: ChangeSegments) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let outcome = segments::change(&mut write, &change, self.clock.now_ms()).await?;
        write.finish(outcome).await
    }

    async fn pin_boundary(&self, table: &str, boundary_ms: i64) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let outcome = push::pin(&mut write, table, Some(boundary_ms)).await?;
        write.finish(outcome).await
    }

    async fn release_boundary(&self, table: &str) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let outcome = push::pin(&mut write, table, None).await?;
        write.finish(outcome).await
    }

    async fn set_paused(&self, table: &str, paused: bool) -> Result<Outcome<CatalogVersion>> {
        let mut write = self.write().await?;
        let paused_ms = paused.then(|| self.clock.now_ms());
        let outcome = tables::pause(&mut write, table, paused_ms).await?;
        write.finish(outcome).await
    }

    async fn record_dead_letters(&self, table: &str, letters: &[DeadLetter]) -> Result<u64> {
        let mut write = self.write().await?;
        let new = realtime::record_dead_letters(&mut write, table, letters).await?;
        write.commit().await?;
        Ok(new)
    }

    async fn dead_letters(&self, table: &str, limit: u32) -> Result<Vec<DeadLetter>> {
        let mut read = self.read().await?;
        let letters = realtime::dead_letters(&mut read, table, limit).await?;
        commit(read).await?;
        Ok(letters)
    }

    async fn ledger(&self, table: &str) -> Result<Vec<PartitionLedger>> {
        let mut read = self.read().await?;
        let all = ledger::read(&mut read, table).await?;
        commit(read).await?;
        Ok(all)
    }

    async fn ledger_minutes(
        &self,
        table: &str,
        partition: &StreamPartition,
        from_offset: u64,
        buckets_max: usize,
    ) -> Result<(PartitionRecord, MinuteCounts)> {
        let mut read = self.read().await?;
        let minutes =
            ledger::minutes(&mut read, table, partition, (from_offset, buckets_max)).await?;
        commit(read).await?;
        Ok(minutes)
    }

    async fn ledger_minutes_of(
        &self,
        table: &str,
        partition: &StreamPartition,
        range: OffsetRange,
    ) -> Result<MinuteCounts> {
        let mut read = self.read().await?;
        let minutes = ledger::minutes_of(&mut read, table, partition, range).await?;
        commit(read).await?;
        Ok(minutes)
    }

    async fn keys_secret(&self, new: [u8; 16]) -> Result<[u8; 16]> {
        let mut write = self.write().await?;
        let secret = tables::keys_secret(&mut write, new).await?;
        write.finish(secret).await.map(Outcome::into_inner)
    }

    async fn removed_segments(&self) -> Result<Vec<RemovedSegment>> {
        let mut read = self.read().await?;
        let removed = segments::removed(&mut read).await?;
        commit(read).await?;
        Ok(removed)
    }

    async fn forget_segments(&self, table: &str, contents: &[SegmentContent]) -> Result<()> {
        let mut write = self.write().await?;
        segments::forget(&mut write, table, contents).await?;
        write.commit().await
    }
}

#[cfg(test)]
impl SqlMetastore {
    /// Gives up a transaction in which `statement` was executed.
    pub(super) async fn end_transaction_for_test(&self, statement: &'static str) {
        let mut transaction = begin(&self.writer).await.unwrap();
        let executed = sqlx::query(statement).execute(&mut *transaction).await;
        executed.unwrap();
    }

    /// Folds a partition's entries of the ledger as if they might only be so many.
    pub(super) async fn fold_for_test(&self, table: &str, of: &StreamPartition, max: usize) {
        let mut write = self.write().await.unwrap();
        ledger::fold(&mut write, table, of, max).await.unwrap();
        write.commit().await.unwrap();
    }

    /// Executes a statement behind the store's back.
    pub(super) async fn execute_for_test(&self, statement: &'static str) {
        let executed = sqlx::query(statement).execute(&self.writer).await;
        executed.unwrap();
    }

    /// Makes the file look as if a newer version had written it.
    pub(super) async fn raise_version_for_test(&self, version: i64) {
        sqlx::query("INSERT INTO migrations (version, applied_ms) VALUES ($1, 0)")
            .bind(version)
            .execute(&self.writer)
            .await
            .unwrap();
    }
}
