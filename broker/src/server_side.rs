//! What the server lends to the broker: rows of the `system` schema, and statements that change tables.

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use std::sync::Arc;
use strandline_proto::v1::BoundaryDescription;
use strandline_proto::{Error, Result};

/// The tables of the `system` schema.
#[async_trait]
pub trait SystemTables: Send + Sync + std::fmt::Debug {
    /// Names and columns of the tables, without the schema's name.
    fn tables(&self) -> Arc<[(String, SchemaRef)]>;

    /// The present rows of a table that [`SystemTables::tables`] names.
    async fn rows(&self, table: &str) -> Result<Vec<RecordBatch>>;
}

/// A change of one column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaChange {
    /// A new one. Rows that are there hold its default.
    Add {
        /// Its name.
        column: String,
        /// Its type, by the name that schema documents use.
        data_type: String,
        /// Whether rows hold lists.
        multi_value: bool,
        /// What rows without a value hold, as text.
        default: Option<String>,
    },
    /// One that goes, with its values.
    Drop {
        /// Its name.
        column: String,
    },
    /// Another name.
    Rename {
        /// The name it has.
        column: String,
        /// The name it gets.
        to: String,
    },
    /// A wider type of number.
    Widen {
        /// Its name.
        column: String,
        /// The type, by the name that schema documents use.
        data_type: String,
    },
}

/// Times of a table that were made again of archived messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltRange {
    /// The push that they are, by which they can be reverted.
    pub push_id: String,
    /// Archived messages that were read.
    pub messages_read: u64,
    /// Rows that the table's filter left out.
    pub rows_filtered: u64,
    /// Messages that gave no row.
    pub messages_failed: u64,
    /// Rows of other times.
    pub rows_outside: u64,
    /// Rows that took the place of the old ones.
    pub rows_rebuilt: u64,
    /// Segments that they are in.
    pub segments: u64,
}

/// Statements that change tables: `DROP TABLE [IF EXISTS] t`, `DELETE FROM t WHERE ...`, and `ALTER TABLE t` with
/// `PIN BOUNDARY '2014-01-22'`, `RELEASE BOUNDARY`, `FORCE COMMIT`, `PAUSE CONSUMPTION`, `RESUME CONSUMPTION`,
/// `REVERT PUSH 'id'`, `DROP OFFLINE FROM '2014-01-21' TO '2014-01-22'`, `REBUILD FROM '2014-01-21' TO '2014-01-22'`,
/// `ADD COLUMN c INT DEFAULT 0`, `DROP COLUMN c`, `RENAME COLUMN c TO d`, `ALTER COLUMN c TYPE LONG`.
#[async_trait]
pub trait AdminStatements: Send + Sync + std::fmt::Debug {
    /// Drops `T`, `T_OFFLINE` or `T_REALTIME`; gives the number of segments that went.
    async fn drop_table(&self, name: &str) -> Result<u64>;

    /// Holds a table's boundary at a time in milliseconds since the epoch.
    async fn pin_boundary(&self, table: &str, boundary_ms: i64) -> Result<BoundaryDescription>;

    /// Lets a table's boundary follow its data again.
    async fn release_boundary(&self, table: &str) -> Result<BoundaryDescription>;

    /// Seals and commits what the table's consuming segments hold; gives segments and rows.
    async fn force_commit(&self, table: &str) -> Result<(u64, u64)>;

    /// Pauses or resumes the reading of a table's stream; holds over restarts.
    async fn set_paused(&self, table: &str, paused: bool) -> Result<()>;

    /// Undoes a push; gives the rows that went, and those that are there again.
    async fn revert_push(&self, table: &str, push_id: &str) -> Result<(u64, u64)>;

    /// Drops the offline rows of times from `from_ms` up to `to_ms`, for which realtime answers then; gives their number.
    async fn drop_offline(&self, table: &str, from_ms: i64, to_ms: i64) -> Result<u64>;

    /// Makes the rows of times from `from_ms` up to `to_ms` again of archived messages, in the place of those that are there.
    async fn rebuild(&self, table: &str, from_ms: i64, to_ms: i64) -> Result<RebuiltRange>;

    /// Deletes the rows of `T`, `T_OFFLINE` or `T_REALTIME` for which a predicate is true; gives their number.
    async fn delete_rows(&self, table: &str, predicate: Option<&str>) -> Result<u64>;

    /// Changes a table's schema while it is used; gives its new version.
    async fn change_schema(&self, table: &str, change: SchemaChange) -> Result<u32>;
}

/// No system tables and no statements that change tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnly;

#[async_trait]
impl SystemTables for ReadOnly {
    fn tables(&self) -> Arc<[(String, SchemaRef)]> {
        Arc::default()
    }

    async fn rows(&self, table: &str) -> Result<Vec<RecordBatch>> {
        Err(Error::not_found(format!("no table system.{table}")))
    }
}

fn refused() -> Error {
    Error::unsupported("not supported: this server only answers queries")
}

#[async_trait]
impl AdminStatements for ReadOnly {
    async fn drop_table(&self, _name: &str) -> Result<u64> {
        Err(refused())
    }

    async fn pin_boundary(&self, _table: &str, _boundary_ms: i64) -> Result<BoundaryDescription> {
        Err(refused())
    }

    async fn release_boundary(&self, _table: &str) -> Result<BoundaryDescription> {
        Err(refused())
    }

    async fn force_commit(&self, _table: &str) -> Result<(u64, u64)> {
        Err(refused())
    }

    async fn set_paused(&self, _table: &str, _paused: bool) -> Result<()> {
        Err(refused())
    }

    async fn revert_push(&self, _table: &str, _push_id: &str) -> Result<(u64, u64)> {
        Err(refused())
    }

    async fn drop_offline(&self, _table: &str, _from_ms: i64, _to_ms: i64) -> Result<u64> {
        Err(refused())
    }

    async fn rebuild(&self, _table: &str, _from_ms: i64, _to_ms: i64) -> Result<RebuiltRange> {
        Err(refused())
    }

    async fn delete_rows(&self, _table: &str, _predicate: Option<&str>) -> Result<u64> {
        Err(refused())
    }

    async fn change_schema(&self, _table: &str, _change: SchemaChange) -> Result<u32> {
        Err(refused())
    }
}
