//! The rows of the `system` schema, from what an engine knows.

use super::Engine;
use crate::host::system::Cell;
use crate::host::upkeep::{Task, UpkeepNote};
use std::collections::HashMap;
use std::sync::Arc;
use strandline_broker::transport::CatalogSource;
use strandline_proto::catalog::{ColumnStats, SegmentInfo, TableSnapshot};
use strandline_proto::ids::SegmentName;
use strandline_proto::{Error, Result};
use strandline_storage::meta::Metastore;

/// Dead letters that one read of `system.dead_letters` gives at most, the newest ones.
const DEAD_LETTERS_MAX: u32 = 100_000;

fn text(value: impl ToString) -> Cell {
    Cell::Text(value.to_string())
}

fn text_or_null(value: &str) -> Cell {
    if value.is_empty() {
        Cell::Null
    } else {
        text(value)
    }
}

fn time_or_null(ms: Option<i64>) -> Cell {
    // The ends of open intervals are no times.
    ms.filter(|&ms| ms != i64::MIN && ms != i64::MAX)
        .map_or(Cell::Null, Cell::Time)
}

impl Engine {
    /// The rows of one system table, cells in the order of its columns.
    pub(crate) async fn system_rows(&self, table: &str) -> Result<Vec<Vec<Cell>>> {
        match table {
            "tables" => Ok(self.system_tables()),
            "segments" => self.system_segments(),
            "coverage" => Ok(self.system_coverage()),
            "ingestion" => self.system_ingestion().await,
            "ingestion_audit" => self.system_ingestion_audit().await,
            "queries" => self.system_queries(),
            "columns" => Ok(self.system_columns()),
            "upkeep" => Ok(self.system_upkeep()),
            _ => self.system_dead_letters().await,
        }
    }

    fn system_tables(&self) -> Vec<Vec<Cell>> {
        let snapshot = self.registry.snapshot();
        let row = |t: &Arc<TableSnapshot>| {
            let boundary = t.has_boundary().then(|| t.coverage.boundary_ms()).flatten();
            vec![
                text(&t.name),
                Cell::Bool(t.has_offline),
                Cell::Bool(t.has_realtime),
                t.time_column.as_ref().map_or(Cell::Null, text),
                time_or_null(boundary),
                Cell::Bool(t.pinned),
                Cell::Long(t.segments.len() as u64),
            ]
        };
        snapshot.tables.values().map(row).collect()
    }

    fn system_segments(&self) -> Result<Vec<Vec<Cell>>> {
        let mut rows = Vec::new();
        for name in self.tables() {
            let quarantined: HashMap<_, _> = self
                .registry
                .table(&name)
                .quarantined()
                .into_iter()
                .map(|(n, e)| (n.to_string(), e))
                .collect();
            let known = self.registry.snapshot().tables.get(&name).cloned();
            let hosted = self.registry.table(&name);
            let superseded = |segment: &str| {
                let rows = hosted.superseded(&SegmentName::new(segment));
                rows.map_or(Cell::Null, Cell::Long)
            };
            for s in self.segments(&name)? {
                let times = known
                    .as_ref()
                    .and_then(|t| t.segments.iter().find(|i| i.name.as_str() == s.name))
                    .and_then(|i| i.time_ms);
                let realtime = !s.partition.is_empty();
                rows.push(vec![
                    text(&s.table),
                    text(&s.name),
                    Cell::Long(s.rows),
                    Cell::Long(s.bytes),
                    Cell::Bool(s.consuming),
                    time_or_null(times.map(|t| t.0)),
                    time_or_null(times.map(|t| t.1)),
                    text_or_null(&s.partition),
                    if realtime {
                        Cell::Long(s.start_offset)
                    } else {
                        Cell::Null
                    },
                    if realtime {
                        Cell::Long(s.end_offset)
                    } else {
                        Cell::Null
                    },
                    superseded(&s.name),
                    quarantined.get(&s.name).map_or(Cell::Null, text),
                ]);
            }
        }
        Ok(rows)
    }

    fn system_upkeep(&self) -> Vec<Vec<Cell>> {
        let notes = self.upkeep.notes().into_iter();
        let row = |(table, task, note): (String, Task, UpkeepNote)| {
            vec![
                text(table),
                text(task.name()),
                Cell::Time(note.at_ms),
                text(note.message),
            ]
        };
        notes.map(row).collect()
    }

    /// A row a column of an immutable segment.
    fn system_columns(&self) -> Vec<Vec<Cell>> {
        let snapshot = self.registry.snapshot();
        let of_table = |table: &Arc<TableSnapshot>| {
            let columns = (table.segments.iter())
                .flat_map(|segment| segment.columns.iter().map(move |column| (segment, column)));
            let row = |(segment, column): (&Arc<SegmentInfo>, &ColumnStats)| {
                vec![
                    text(&table.name),
                    text(&segment.name),
                    text(&column.name),
                    column.cardinality.map_or(Cell::Null, Cell::Long),
                    Cell::Long(column.nulls),
                ]
            };
            columns.map(row).collect::<Vec<_>>()
        };
        snapshot.tables.values().flat_map(of_table).collect()
    }

    fn system_queries(&self) -> Result<Vec<Vec<Cell>>> {
        let shapes = self.query_log.shapes().into_iter();
        shapes
            .map(|(table, shape, totals)| {
                let shape = serde_json::to_string(&shape)
                    .map_err(|e| Error::internal(format!("the shape of a query: {e}")))?;
                Ok(vec![
                    text(table),
                    text(shape),
                    Cell::Long(totals.queries),
                    Cell::Long(totals.micros),
                    Cell::Long(totals.micros_max),
                    Cell::Long(totals.docs_scanned),
                    Cell::Long(totals.docs_matched),
                ])
            })
            .collect()
    }

    fn system_coverage(&self) -> Vec<Vec<Cell>> {
        let snapshot = self.registry.snapshot();
        let hybrids = snapshot.tables.values().filter(|t| t.has_boundary());
        hybrids
            .flat_map(|t| {
                let covered = t.coverage.intervals().iter().map(|i| ("covered", i));
                let gaps = t.gaps.iter().map(|i| ("gap", i));
                covered.chain(gaps).map(|(kind, i)| {
                    vec![
                        text(&t.name),
                        text(kind),
                        time_or_null(Some(i.start_ms)),
                        time_or_null(Some(i.end_ms)),
                    ]
                })
            })
            .collect()
    }

    /// One row a partition. `messages_read + rows_unnested` is the sum of `rows_committed`, `rows_consuming`, of what has left the
    /// realtime half since (`rows_moved`, `rows_deleted`, `rows_expired`, `rows_compacted`), `rows_filtered`, `rows_deduplicated` and `dead_letters`; `messages_read` with
    /// `lost_offsets` are all offsets from `first_offset` to `next_offset`, for a stream without empty ones.
    async fn system_ingestion(&self) -> Result<Vec<Vec<Cell>>> {
        let state = self.metastore.state().await?;
        let mut rows = Vec::new();
        for table in state.tables.iter().filter(|t| t.realtime_json.is_some()) {
            for tail in self.registry.table(&table.name).tails() {
                let partition = tail.partition();
                let record = table.partitions.iter().find(|p| p.partition == *partition);
                let (first, from) = record.map_or((0, 0), |r| (r.first_offset, r.next_offset));
                let counts = record
                    .map(|r| r.counts)
                    .unwrap_or_default()
                    .plus(tail.counts_from(from));
                let consuming = tail.rows_from(from);
                let left = counts.left();
                let status = tail.status();
                rows.push(vec![
                    text(&table.name),
                    text(partition),
                    Cell::Long(first),
                    Cell::Long(tail.watermark()),
                    Cell::Long(from),
                    Cell::Long(status.stream_end.max(tail.watermark())),
                    Cell::Long(counts.read),
                    Cell::Long(counts.indexed.saturating_sub(consuming + left)),
                    Cell::Long(consuming),
                    Cell::Long(counts.dead_lettered),
                    Cell::Long(counts.filtered),
                    Cell::Long(counts.moved),
                    Cell::Long(counts.deleted),
                    Cell::Long(counts.expired),
                    Cell::Long(counts.compacted),
                    Cell::Long(counts.unnested),
                    Cell::Long(counts.deduplicated),
                    Cell::Long(counts.lost),
                    text(status.state),
                    text_or_null(status.error()),
                ]);
            }
            if let Some(status) = self
                .realtime
                .status(&table.name)
                .filter(|s| !s.last_error.is_empty())
            {
                let mut row = vec![text(&table.name)];
                row.extend((0..17).map(|_| Cell::Null));
                row.extend([text("RETRYING"), text(&status.last_error)]);
                rows.push(row);
            }
        }
        Ok(rows)
    }

    async fn system_dead_letters(&self) -> Result<Vec<Vec<Cell>>> {
        let mut rows = Vec::new();
        for table in self.tables() {
            for letter in self
                .metastore
                .dead_letters(&table, DEAD_LETTERS_MAX)
                .await?
            {
                rows.push(vec![
                    text(&table),
                    text(&letter.partition),
                    Cell::Long(letter.offset),
                    Cell::Time(letter.timestamp_ms),
                    text(&letter.reason),
                    Cell::Long(letter.payload_bytes),
                    Cell::Bytes(letter.payload.to_vec()),
                ]);
            }
        }
        Ok(rows)
    }
}
