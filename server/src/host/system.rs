//! The `system` schema: tables, segments, coverage and what ingestion has done, as SQL reads it.

use crate::engine::EngineStatements;
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use std::sync::Arc;
use strandline_broker::SystemTables;
use strandline_proto::{Error, Result};

/// The tables of the `system` schema over an engine.
#[derive(Debug)]
pub struct EngineSystemTables {
    engine: Arc<EngineStatements>,
    tables: Arc<[(String, SchemaRef)]>,
}

impl EngineSystemTables {
    pub(crate) fn new(engine: Arc<EngineStatements>) -> Self {
        let tables = TABLES
            .iter()
            .map(|(name, columns)| ((*name).to_owned(), schema_of(columns)))
            .collect();
        Self { engine, tables }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Long,
    Bool,
    Time,
    Bytes,
}

/// Name and columns of each system table.
const TABLES: [(&str, &[(&str, Kind)]); 9] = [
    (
        "tables",
        &[
            ("table_name", Kind::Text),
            ("has_offline", Kind::Bool),
            ("has_realtime", Kind::Bool),
            ("time_column", Kind::Text),
            ("boundary", Kind::Time),
            ("pinned", Kind::Bool),
            ("segments", Kind::Long),
        ],
    ),
    (
        "segments",
        &[
            ("table_name", Kind::Text),
            ("segment_name", Kind::Text),
            ("rows", Kind::Long),
            ("bytes", Kind::Long),
            ("consuming", Kind::Bool),
            ("min_time", Kind::Time),
            ("max_time", Kind::Time),
            ("partition", Kind::Text),
            ("start_offset", Kind::Long),
            ("end_offset", Kind::Long),
            ("rows_superseded", Kind::Long),
            ("quarantined", Kind::Text),
        ],
    ),
    (
        "coverage",
        &[
            ("table_name", Kind::Text),
            ("kind", Kind::Text),
            ("start_time", Kind::Time),
            ("end_time", Kind::Time),
        ],
    ),
    (
        "ingestion",
        &[
            ("table_name", Kind::Text),
            ("partition", Kind::Text),
            ("first_offset", Kind::Long),
            ("next_offset", Kind::Long),
            ("committed_offset", Kind::Long),
            ("stream_end_offset", Kind::Long),
            ("messages_read", Kind::Long),
            ("rows_committed", Kind::Long),
            ("rows_consuming", Kind::Long),
            ("dead_letters", Kind::Long),
            ("rows_filtered", Kind::Long),
            ("rows_moved", Kind::Long),
            ("rows_deleted", Kind::Long),
            ("rows_expired", Kind::Long),
            ("rows_compacted", Kind::Long),
            ("rows_unnested", Kind::Long),
            ("rows_deduplicated", Kind::Long),
            ("lost_offsets", Kind::Long),
            ("state", Kind::Text),
            ("last_error", Kind::Text),
        ],
    ),
    (
        "ingestion_audit",
        &[
            ("table_name", Kind::Text),
            ("partition", Kind::Text),
            ("event_minute", Kind::Time),
            ("span_ms", Kind::Long),
            ("messages_read", Kind::Long),
            ("rows_unnested", Kind::Long),
            ("rows_indexed", Kind::Long),
            ("rows_filtered", Kind::Long),
            ("rows_deduplicated", Kind::Long),
            ("dead_letters", Kind::Long),
            ("rows_committed", Kind::Long),
            ("rows_consuming", Kind::Long),
            ("rows_moved", Kind::Long),
            ("rows_deleted", Kind::Long),
            ("rows_expired", Kind::Long),
            ("rows_compacted", Kind::Long),
            ("rows_superseded", Kind::Long),
            ("rows_hidden", Kind::Long),
            ("rows_counted", Kind::Long),
            ("lost_offsets", Kind::Long),
            ("not_read", Kind::Long),
        ],
    ),
    (
        "upkeep",
        &[
            ("table_name", Kind::Text),
            ("task", Kind::Text),
            ("at", Kind::Time),
            ("message", Kind::Text),
        ],
    ),
    (
        "columns",
        &[
            ("table_name", Kind::Text),
            ("segment_name", Kind::Text),
            ("column_name", Kind::Text),
            ("distinct_values", Kind::Long),
            ("nulls", Kind::Long),
        ],
    ),
    (
        "queries",
        &[
            ("table_name", Kind::Text),
            ("shape", Kind::Text),
            ("queries", Kind::Long),
            ("total_us", Kind::Long),
            ("max_us", Kind::Long),
            ("docs_scanned", Kind::Long),
            ("docs_matched", Kind::Long),
        ],
    ),
    (
        "dead_letters",
        &[
            ("table_name", Kind::Text),
            ("partition", Kind::Text),
            ("offset", Kind::Long),
            ("at", Kind::Time),
            ("reason", Kind::Text),
            ("payload_bytes", Kind::Long),
            ("payload", Kind::Bytes),
        ],
    ),
];

fn schema_of(columns: &[(&str, Kind)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, kind)| {
        let data_type = match kind {
            Kind::Text => DataType::Utf8,
            Kind::Long => DataType::Int64,
            Kind::Bool => DataType::Boolean,
            Kind::Time => DataType::Timestamp(TimeUnit::Millisecond, None),
            Kind::Bytes => DataType::Binary,
        };
        Field::new(*name, data_type, true)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// One value of a system table.
pub(crate) enum Cell {
    Text(String),
    Long(u64),
    Bool(bool),
    Time(i64),
    Bytes(Vec<u8>),
    Null,
}

#[async_trait]
impl SystemTables for EngineSystemTables {
    fn tables(&self) -> Arc<[(String, SchemaRef)]> {
        Arc::clone(&self.tables)
    }

    async fn rows(&self, table: &str) -> Result<Vec<RecordBatch>> {
        let engine = self.engine.engine()?;
        let Some((_, columns)) = TABLES.iter().find(|(name, _)| *name == table) else {
            return Err(Error::not_found(format!("no table system.{table}")));
        };
        let rows = engine.system_rows(table).await?;
        Ok(vec![batch(columns, &rows)?])
    }
}

fn batch(columns: &[(&str, Kind)], rows: &[Vec<Cell>]) -> Result<RecordBatch> {
    let arrays = columns
        .iter()
        .enumerate()
        .map(|(i, (_, kind))| -> ArrayRef {
            let cells = || rows.iter().map(|row| row.get(i));
            let long = |cell: Option<&Cell>| match cell {
                Some(Cell::Long(v)) => Some(i64::try_from(*v).unwrap_or(i64::MAX)),
                Some(Cell::Time(ms)) => Some(*ms),
                _ => None,
            };
            match kind {
                Kind::Text => Arc::new(
                    cells()
                        .map(|c| {
                            if let Some(Cell::Text(t)) = c {
                                Some(t.as_str())
                            } else {
                                None
                            }
                        })
                        .collect::<StringArray>(),
                ),
                Kind::Bool => Arc::new(
                    cells()
                        .map(|c| {
                            if let Some(Cell::Bool(b)) = c {
                                Some(*b)
                            } else {
                                None
                            }
                        })
                        .collect::<BooleanArray>(),
                ),
                Kind::Bytes => Arc::new(
                    cells()
                        .map(|c| {
                            if let Some(Cell::Bytes(b)) = c {
                                Some(b.as_slice())
                            } else {
                                None
                            }
                        })
                        .collect::<BinaryArray>(),
                ),
                Kind::Long => Arc::new(cells().map(long).collect::<Int64Array>()),
                Kind::Time => Arc::new(cells().map(long).collect::<TimestampMillisecondArray>()),
            }
        });
    RecordBatch::try_new(schema_of(columns), arrays.collect())
        .map_err(|e| Error::internal(format!("system table: {e}")))
}
