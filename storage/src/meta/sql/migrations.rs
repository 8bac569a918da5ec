//! The SQL schema, as numbered steps. A step that was released is never changed; a new one follows it.
//!
//! Only types and clauses that SQLite and PostgreSQL share: TEXT, BIGINT, and hexadecimal TEXT for bytes.

use super::{Db, sql_error};
use sqlx::{Connection, Row};
use strandline_proto::{Error, Result};

/// Every step, in order; the first has version 1.
const STEPS: &[&[&str]] = &[
    &[
    "CREATE TABLE catalog (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)",
    "INSERT INTO catalog (id, version) VALUES (1, 1)",
    "CREATE TABLE schemas (name TEXT PRIMARY KEY, version BIGINT NOT NULL, json TEXT NOT NULL)",
    "CREATE TABLE tables (
        name TEXT PRIMARY KEY,
        schema_name TEXT NOT NULL REFERENCES schemas (name),
        offline_json TEXT,
        realtime_json TEXT,
        set_version BIGINT NOT NULL,
        coverage_json TEXT NOT NULL)",
    // A name stands for one content for all time, so rows stay when a segment is removed, until its files are gone.
    "CREATE TABLE segments (
        table_name TEXT NOT NULL,
        name TEXT NOT NULL,
        half TEXT NOT NULL,
        checksum TEXT NOT NULL,
        info_json TEXT NOT NULL,
        added_in BIGINT NOT NULL,
        removed_in BIGINT,
        PRIMARY KEY (table_name, name))",
    "CREATE TABLE partitions (
        table_name TEXT NOT NULL,
        stream TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition_number BIGINT NOT NULL,
        first_offset BIGINT NOT NULL,
        next_offset BIGINT NOT NULL,
        counts_json TEXT NOT NULL,
        PRIMARY KEY (table_name, stream, topic, partition_number))",
    "CREATE TABLE pushes (
        table_name TEXT NOT NULL,
        push_id TEXT NOT NULL,
        version BIGINT NOT NULL,
        result_json TEXT NOT NULL,
        pushed_ms BIGINT NOT NULL,
        PRIMARY KEY (table_name, push_id))",
    "CREATE TABLE dead_letters (
        table_name TEXT NOT NULL,
        stream TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition_number BIGINT NOT NULL,
        message_offset BIGINT NOT NULL,
        reason TEXT NOT NULL,
        payload_hex TEXT NOT NULL,
        payload_bytes BIGINT NOT NULL,
        recorded_ms BIGINT NOT NULL,
        PRIMARY KEY (table_name, stream, topic, partition_number, message_offset))",
    "CREATE INDEX dead_letters_by_time ON dead_letters (table_name, recorded_ms)",
],
    // A name may stand for one content after another, for one at a time. What a push replaced may be kept, so that the
    // push can be reverted.
    &[
        "CREATE TABLE segments_by_content (
        table_name TEXT NOT NULL,
        name TEXT NOT NULL,
        half TEXT NOT NULL,
        checksum TEXT NOT NULL,
        info_json TEXT NOT NULL,
        added_in BIGINT NOT NULL,
        removed_in BIGINT,
        kept_by TEXT,
        PRIMARY KEY (table_name, name, checksum))",
        "INSERT INTO segments_by_content (table_name, name, half, checksum, info_json, added_in, removed_in)
         SELECT table_name, name, half, checksum, info_json, added_in, removed_in FROM segments",
        "DROP TABLE segments",
        "ALTER TABLE segments_by_content RENAME TO segments",
        "CREATE UNIQUE INDEX segments_in_use ON segments (table_name, name) WHERE removed_in IS NULL",
        "ALTER TABLE pushes ADD COLUMN change_json TEXT",
        "ALTER TABLE pushes ADD COLUMN reverted_in BIGINT",
        "ALTER TABLE tables ADD COLUMN paused_ms BIGINT",
        "ALTER TABLE schemas ADD COLUMN lineage_json TEXT",
    ],
    // What became of messages, commit by commit, from an offset on.
    &[
        "CREATE TABLE ledger (
        table_name TEXT NOT NULL,
        stream TEXT NOT NULL,
        topic TEXT NOT NULL,
        partition_number BIGINT NOT NULL,
        start_offset BIGINT NOT NULL,
        end_offset BIGINT NOT NULL,
        kind TEXT NOT NULL,
        counts_json TEXT NOT NULL,
        minutes_hex TEXT NOT NULL,
        PRIMARY KEY (table_name, stream, topic, partition_number, start_offset, end_offset, kind))",
        "ALTER TABLE partitions ADD COLUMN ledger_offset BIGINT NOT NULL DEFAULT 0",
        "UPDATE partitions SET ledger_offset = next_offset",
    ],
    // Segments remember deleted keys by their hashes.
    &["ALTER TABLE catalog ADD COLUMN keys_secret TEXT"],
];

/// Brings the store to the newest version, or says that a newer Strandline wrote it.
pub(super) async fn migrate(
    connection: &mut <Db as sqlx::Database>::Connection,
    now_ms: i64,
) -> Result<()> {
    let sql = |e| sql_error("migrate", &e);
    sqlx::query("CREATE TABLE IF NOT EXISTS migrations (version BIGINT PRIMARY KEY, applied_ms BIGINT NOT NULL)")
        .execute(&mut *connection)
        .await
        .map_err(sql)?;
    let stored: i64 = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM migrations")
        .fetch_one(&mut *connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(sql)?;
    let known = STEPS.len() as i64;
    if stored > known {
        return Err(Error::precondition(format!(
            "the data folder was written by a newer version of Strandline (metastore version {stored}, this one knows up to {known}): upgrade, or use another data folder"
        )));
    }
    for (version, statements) in (1_i64..)
        .zip(STEPS)
        .filter(|(version, _)| *version > stored)
    {
        let mut step = connection.begin().await.map_err(sql)?;
        for statement in *statements {
            sqlx::query(*statement)
                .execute(&mut *step)
                .await
                .map_err(sql)?;
        }
        sqlx::query("INSERT INTO migrations (version, applied_ms) VALUES ($1, $2)")
            .bind(version)
            .bind(now_ms)
            .execute(&mut *step)
            .await
            .map_err(sql)?;
        step.commit().await.map_err(sql)?;
    }
    Ok(())
}
