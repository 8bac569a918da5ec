//! Tables, segments and the boundary: what operators ask of an engine.

use super::{Engine, coverage_message};
use crate::host::catalog::warning_messages;
use crate::host::rebuild::Rebuilt;
use async_trait::async_trait;
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use strandline_broker::transport::CatalogSource;
use strandline_broker::{AdminStatements, QueryRequest, RebuiltRange, SchemaChange};
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::ids::Half;
use strandline_proto::schema::ColumnRole;
use strandline_proto::v1::{
    self, BoundaryDescription, ConfigWarning, PartitionStatus, SegmentDescription, TableDescription,
};
use strandline_proto::{Error, Result};
use strandline_storage::config::{self, DescriptorSet, MessageFormat, TableConfig};
use strandline_storage::meta::{Metastore, NewTable};

/// A name as SQL takes it whatever its letters are.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Engine {
    /// Removes a schema that no table uses.
    pub async fn delete_schema(&self, name: &str) -> Result<()> {
        let _one_at_a_time = self.tables_change.lock().await;
        self.metastore.delete_schema(name).await?;
        self.publisher.publish().await
    }

    /// A stored schema's JSON document.
    pub async fn schema_json(&self, name: &str) -> Result<String> {
        self.stored_schema(name)
            .await?
            .ok_or_else(|| Error::not_found(format!("no schema {name}")))
    }

    pub(super) async fn stored_schema(&self, name: &str) -> Result<Option<String>> {
        let state = self.metastore.state().await?;
        Ok(state.schema(name).map(|s| s.json.clone()))
    }

    /// Creates one half of a table; gives its name with `_OFFLINE` or `_REALTIME`, and what of the config is not honoured.
    pub async fn create_table(&self, json: &str) -> Result<(String, Vec<ConfigWarning>)> {
        let _one_at_a_time = self.tables_change.lock().await;
        let (name, half) = config::table_name_and_half(json).map_err(|e| e.at("table config"))?;
        let schema_json = self.stored_schema(&name).await?.ok_or_else(|| {
            Error::precondition(format!("table {name} has no schema: store a schema named {name} first (POST /schemas, or AdminService.PutSchema)"))
        })?;
        let (schema, _) = config::parse_schema(&schema_json, 1)?;
        let (table, warnings) = config::parse_table(json, &Arc::new(schema))
            .map_err(|e| e.at(format!("table config of {name}_{half}")))?;
        let table = Arc::new(table);
        self.publisher.check_hybrid(&table)?;
        self.check_streams(&table).await?;
        self.metastore
            .create_table(NewTable {
                name: name.clone(),
                half,
                schema: name.clone(),
                config_json: json.to_owned(),
            })
            .await?;
        let started = match half {
            Half::Realtime => self.start(table).await,
            Half::Offline => self.publisher.publish().await,
        };
        if let Err(e) = started {
            self.keys.drop_table(&name).await?;
            self.metastore.drop_table(&name, Some(half)).await?;
            self.publisher.publish().await?;
            return Err(e);
        }
        Ok((format!("{name}_{half}"), warning_messages(warnings)))
    }

    /// Has a new realtime half consume.
    async fn start(&self, table: Arc<TableConfig>) -> Result<()> {
        let state = self.metastore.state().await?;
        if let Some(record) = state.table(&table.name) {
            self.keys.open(&table, record).await?;
        }
        // Of rows that are there already those are shown that count by their keys.
        self.publisher.publish().await?;
        self.realtime.start(table).await
    }

    /// Whether the streams of a realtime half can be read by its config: descriptor sets are files of the server, of which only
    /// those may be read that its operator allowed.
    async fn check_streams(&self, table: &Arc<TableConfig>) -> Result<()> {
        for stream in &table.streams {
            if let MessageFormat::Protobuf {
                descriptors: DescriptorSet::File(path),
                ..
            } = &stream.decoder.format
            {
                self.allowed(&path.display().to_string()).map_err(|e| {
                    Error::new(
                        e.kind(),
                        format!(
                            "decoder.prop.descriptorFile: {}; or put the descriptor set itself, in base64, into decoder.prop.descriptorSet",
                            e.message()
                        ),
                    )
                })?;
            }
        }
        self.realtime.check(table).await
    }

    /// Gives one half of a table another config; segments are rewritten by it in the background. Gives the half's name, and what
    /// of the config is not honoured.
    pub async fn update_table(&self, json: &str) -> Result<(String, Vec<ConfigWarning>)> {
        let _one_at_a_time = self.tables_change.lock().await;
        let (name, half) = config::table_name_and_half(json).map_err(|e| e.at("table config"))?;
        let full = format!("{name}_{half}");
        let schema_json = self
            .stored_schema(&name)
            .await?
            .ok_or_else(|| Error::not_found(format!("no table {full}")))?;
        let (schema, _) = config::parse_schema(&schema_json, 1)?;
        let (table, warnings) = config::parse_table(json, &Arc::new(schema))
            .map_err(|e| e.at(format!("table config of {full}")))?;
        self.publisher.check_change(&table)?;
        self.publisher.check_hybrid(&table)?;
        let table = Arc::new(table);
        self.check_streams(&table).await?;
        let old = self.publisher.config(&name, half);
        let takes_rows_otherwise = old.is_some_and(|old| old.takes_rows_otherwise(&table));
        let config_json = json.to_owned();
        self.metastore
            .update_table(NewTable {
                name: name.clone(),
                half,
                schema: name,
                config_json,
            })
            .await?;
        self.publisher.publish().await?;
        if half == Half::Realtime && takes_rows_otherwise {
            self.realtime.restart(table).await?;
        }
        self.rewriter.wake();
        self.upkeep.wake();
        Ok((full, warning_messages(warnings)))
    }

    /// Has those segments of a table, or of one half, rewritten that are not known to be stored as the config says; gives
    /// how far that is.
    pub async fn reload(&self, name: &str) -> Result<v1::ReloadStatus> {
        let (table, half) = self.table_and_half(name)?;
        self.metastore.doubt_segments(&table.name, half).await?;
        self.publisher.publish().await?;
        self.rewriter.wake();
        self.reload_status(name)
    }

    /// How many segments of a table, or of one half, are stored as the config says.
    pub fn reload_status(&self, name: &str) -> Result<v1::ReloadStatus> {
        let (table, half) = self.table_and_half(name)?;
        let status = self.rewriter.status(&table.name, half);
        let error = |(segment, message): (String, String)| v1::ReloadError { segment, message };
        Ok(v1::ReloadStatus {
            table: name.to_owned(),
            segments: status.segments,
            waiting: status.waiting,
            current: status.current,
            errors: status.errors.into_iter().map(error).collect(),
        })
    }

    /// Drops a table or one half of it, with its segments; gives the number of segments that went.
    pub async fn drop_table(&self, name: &str) -> Result<u64> {
        let _one_at_a_time = self.tables_change.lock().await;
        let (table, half) = self.table_and_half(name)?;
        if half == Some(Half::Realtime) && table.has_offline && table.pushed.is_some() {
            return Err(Error::precondition(format!(
                "table {0}_REALTIME says which row of a key counts, also of those of table {0}_OFFLINE: drop {0}_OFFLINE first, or {0} as a whole",
                table.name
            )));
        }
        // First in the metastore: a drop that fails leaves consumers as they are, and a commit after it is refused.
        let dropped = self.metastore.drop_table(&table.name, half).await?;
        if half != Some(Half::Offline) {
            self.realtime.stop(&table.name).await;
        }
        self.publisher.publish().await?;
        if half != Some(Half::Offline) {
            self.registry.table(&table.name).clear_tails();
            self.keys.drop_table(&table.name).await?;
        }
        let count = dropped.len() as u64;
        let version = self.registry.snapshot().version;
        self.publisher
            .retire_segments(version, &table.name, dropped);
        Ok(count)
    }

    /// The tables' names, without `_OFFLINE` and `_REALTIME`.
    pub fn tables(&self) -> Vec<String> {
        self.registry.snapshot().tables.keys().cloned().collect()
    }

    /// A table with its configs and its partitions.
    pub fn table(&self, name: &str) -> Result<TableDescription> {
        let table = self.table_snapshot(name)?;
        let json = |half| {
            self.publisher
                .config(&table.name, half)
                .map(|c| c.json.clone())
                .unwrap_or_default()
        };
        let mut partitions: Vec<PartitionStatus> = self
            .registry
            .table(&table.name)
            .tails()
            .iter()
            .map(|tail| {
                let status = tail.status();
                let committed = *tail.committed().borrow();
                PartitionStatus {
                    stream: format!("{}/{}", tail.partition().stream, tail.partition().topic),
                    partition: tail.partition().partition,
                    next_offset: tail.watermark(),
                    committed_offset: committed,
                    consuming_rows: tail.rows_from(committed),
                    state: status.state.to_owned(),
                    last_error: status.error().to_owned(),
                }
            })
            .collect();
        if let Some(status) = self
            .realtime
            .status(&table.name)
            .filter(|s| !s.last_error.is_empty())
        {
            partitions.push(PartitionStatus {
                state: "RETRYING".to_owned(),
                last_error: status.last_error,
                ..PartitionStatus::default()
            });
        }
        Ok(TableDescription {
            table: table.name.to_string(),
            schema_json: self.publisher.schema_json(&table.name).unwrap_or_default(),
            offline_config_json: json(Half::Offline),
            realtime_config_json: json(Half::Realtime),
            warnings: self.publisher.warnings(&table.name),
            partitions,
            reload: Some(self.reload_status(&table.name)?),
        })
    }

    /// The table's segments: committed ones, then consuming ones. `T_OFFLINE` and `T_REALTIME` give one half's.
    pub fn segments(&self, name: &str) -> Result<Vec<SegmentDescription>> {
        let (table, half) = self.table_and_half(name)?;
        let wanted = |h: Half| half.is_none_or(|half| half == h);
        let mut all: Vec<SegmentDescription> = table
            .segments
            .iter()
            .filter(|s| wanted(s.half))
            .map(|s| SegmentDescription {
                name: s.name.to_string(),
                table: format!("{}_{}", table.name, s.half),
                rows: s.rows,
                bytes: s.bytes,
                checksum: format!("{:016x}", s.checksum),
                min_time_ms: s.time_ms.map_or(0, |t| t.0),
                max_time_ms: s.time_ms.map_or(0, |t| t.1),
                consuming: false,
                partition: s
                    .origin
                    .as_ref()
                    .map(|o| o.0.to_string())
                    .unwrap_or_default(),
                start_offset: s.origin.as_ref().map_or(0, |o| o.1.start),
                end_offset: s.origin.as_ref().map_or(0, |o| o.1.end),
            })
            .collect();
        if wanted(Half::Realtime) {
            for tail in self.registry.table(&table.name).tails() {
                let committed = *tail.committed().borrow();
                all.extend(
                    tail.segments()
                        .iter()
                        .filter(|s| s.start_offset() >= committed)
                        .map(|s| SegmentDescription {
                            name: s.name().to_string(),
                            table: format!("{}_{}", table.name, Half::Realtime),
                            rows: s.rows(),
                            bytes: s.bytes() as u64,
                            consuming: true,
                            partition: tail.partition().to_string(),
                            start_offset: s.start_offset(),
                            end_offset: s.next_offset(),
                            ..SegmentDescription::default()
                        }),
                );
            }
        }
        Ok(all)
    }

    pub(super) fn table_and_half(&self, name: &str) -> Result<(Arc<TableSnapshot>, Option<Half>)> {
        match self.table_snapshot(name) {
            Ok(table) => Ok((table, None)),
            Err(e) => {
                for half in [Half::Offline, Half::Realtime] {
                    if let Some(raw) = name
                        .strip_suffix(half.as_str())
                        .and_then(|n| n.strip_suffix('_'))
                    {
                        return Ok((self.table_snapshot(raw)?, Some(half)));
                    }
                }
                Err(e)
            }
        }
    }

    /// The table's time boundary, with the rows on both sides of it.
    pub async fn boundary(&self, name: &str) -> Result<BoundaryDescription> {
        let table = self.table_snapshot(name)?;
        check_boundary(&table)?;
        let boundary_ms = table.coverage.boundary_ms();
        let shown = match (
            boundary_ms,
            table
                .time_column
                .as_deref()
                .and_then(|c| table.schema.column(c)),
        ) {
            (Some(ms), Some(column)) => match &column.role {
                ColumnRole::DateTime { format, .. } => format.display_ms(ms, column.data_type),
                _ => ms.to_string(),
            },
            _ => "none".to_owned(),
        };
        let name = &table.name;
        let (offline_rows, _) = self.count(&quoted(&format!("{name}_OFFLINE"))).await?;
        let (_, hidden) = self.count(&quoted(name)).await?;
        let (realtime_rows, _) = self.count(&quoted(&format!("{name}_REALTIME"))).await?;
        Ok(BoundaryDescription {
            coverage: Some(coverage_message(&table)),
            boundary_ms: boundary_ms.unwrap_or_default(),
            boundary: shown,
            offline_rows,
            realtime_rows,
            visible_offline_rows: offline_rows.saturating_sub(hidden.hidden_offline_rows),
            visible_realtime_rows: realtime_rows.saturating_sub(hidden.hidden_realtime_rows),
            hidden_offline_rows: hidden.hidden_offline_rows,
            hidden_realtime_rows: hidden.hidden_realtime_rows,
        })
    }

    pub(super) async fn count(&self, table: &str) -> Result<(u64, v1::QueryStatistics)> {
        let answer = self
            .broker
            .query(QueryRequest::new(format!("SELECT count(*) FROM {table}")))
            .await?;
        let batches: Vec<_> = answer.batches.try_collect().await?;
        let count = batches
            .iter()
            .find(|b| b.num_rows() > 0)
            .and_then(|b| {
                b.column(0)
                    .as_any()
                    .downcast_ref::<arrow::array::Int64Array>()
                    .map(|a| a.value(0))
            })
            .ok_or_else(|| Error::internal("count(*) gave no row"))?;
        Ok((
            u64::try_from(count).unwrap_or(0),
            answer.statistics.finished(),
        ))
    }

    /// Holds the boundary at a time until it is released.
    pub async fn pin_boundary(&self, name: &str, boundary_ms: i64) -> Result<BoundaryDescription> {
        self.change_pin(name, Some(boundary_ms)).await
    }

    /// Lets the boundary follow the data again.
    pub async fn release_boundary(&self, name: &str) -> Result<BoundaryDescription> {
        self.change_pin(name, None).await
    }

    async fn change_pin(&self, name: &str, pin: Option<i64>) -> Result<BoundaryDescription> {
        let table = self.table_snapshot(name)?;
        check_boundary(&table)?;
        match pin {
            Some(ms) => self.metastore.pin_boundary(&table.name, ms).await?,
            None => self.metastore.release_boundary(&table.name).await?,
        };
        self.publisher.publish().await?;
        self.boundary(&table.name).await
    }

    /// Seals what the consuming segments hold now and waits until it is committed; gives segments and rows.
    pub async fn force_commit(&self, name: &str) -> Result<(u64, u64)> {
        let (table, _) = self.table_and_half(name)?;
        if !table.has_realtime {
            return Err(Error::precondition(format!(
                "table {} has no realtime half",
                table.name
            )));
        }
        let before: BTreeMap<_, _> = table
            .segments
            .iter()
            .map(|s| (s.name.clone(), ()))
            .collect();
        self.realtime.commit(&table.name).await?;
        let after = self.table_snapshot(&table.name)?;
        let new: Vec<_> = after
            .segments
            .iter()
            .filter(|s| s.half == Half::Realtime && !before.contains_key(&s.name))
            .collect();
        Ok((new.len() as u64, new.iter().map(|s| s.rows).sum()))
    }
}

/// The engine as the broker's statements reach it; set once the engine is open.
#[derive(Debug, Default)]
pub(crate) struct EngineStatements(pub(crate) OnceLock<Weak<Engine>>);

impl EngineStatements {
    pub(crate) fn engine(&self) -> Result<Arc<Engine>> {
        self.0
            .get()
            .and_then(Weak::upgrade)
            .ok_or_else(|| Error::unavailable("the server is starting or stopping; try again"))
    }
}

#[async_trait]
impl AdminStatements for EngineStatements {
    async fn drop_table(&self, name: &str) -> Result<u64> {
        self.engine()?.drop_table(name).await
    }

    async fn pin_boundary(&self, table: &str, boundary_ms: i64) -> Result<BoundaryDescription> {
        self.engine()?.pin_boundary(table, boundary_ms).await
    }

    async fn release_boundary(&self, table: &str) -> Result<BoundaryDescription> {
        self.engine()?.release_boundary(table).await
    }

    async fn force_commit(&self, table: &str) -> Result<(u64, u64)> {
        self.engine()?.force_commit(table).await
    }

    async fn set_paused(&self, table: &str, paused: bool) -> Result<()> {
        self.engine()?.set_paused(table, paused).await
    }

    async fn revert_push(&self, table: &str, push_id: &str) -> Result<(u64, u64)> {
        self.engine()?.revert_push(table, push_id).await
    }

    async fn drop_offline(&self, table: &str, from_ms: i64, to_ms: i64) -> Result<u64> {
        self.engine()?.drop_offline(table, from_ms, to_ms).await
    }

    async fn rebuild(&self, table: &str, from_ms: i64, to_ms: i64) -> Result<RebuiltRange> {
        let Rebuilt {
            push_id,
            messages,
            filtered,
            failed,
            outside,
            rows,
            segments,
        } = self.engine()?.rebuild(table, from_ms, to_ms).await?;
        Ok(RebuiltRange {
            push_id,
            messages_read: messages,
            rows_filtered: filtered,
            messages_failed: failed,
            rows_outside: outside,
            rows_rebuilt: rows,
            segments,
        })
    }

    async fn delete_rows(&self, table: &str, predicate: Option<&str>) -> Result<u64> {
        self.engine()?.delete_rows(table, predicate).await
    }

    async fn change_schema(&self, table: &str, change: SchemaChange) -> Result<u32> {
        self.engine()?.change_schema(table, change).await
    }
}

fn check_boundary(table: &TableSnapshot) -> Result<()> {
    let why = match (table.is_hybrid(), table.pushed) {
        (true, None) => return Ok(()),
        (true, Some(_)) => "rows that have keys, of which the newest counts in either half",
        (false, _) => "one half",
    };
    Err(Error::precondition(format!(
        "table {} has {why}, so it has no time boundary",
        table.name
    )))
}
