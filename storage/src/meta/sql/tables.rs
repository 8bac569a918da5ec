//! Schemas and tables, and loading everything.

use super::realtime::{hex, unhex};
use super::write::Write;
use super::{
    Connection, SqlRow, catalog_version, from_json, sealed, sql_error, text, to_json, to_sql,
    unsealed, unsigned,
};
use crate::meta::coverage::CoverageFacts;
use crate::meta::{MetaState, NewTable, Outcome, PartitionRecord, SchemaRecord, TableRecord};
use sqlx::Row;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_proto::catalog::SegmentInfo;
use strandline_proto::ids::{CatalogVersion, Half, StreamPartition};
use strandline_proto::{Error, Result};

/// A row of `tables`.
#[derive(Clone)]
pub(super) struct TableRow {
    pub(super) name: String,
    pub(super) schema: String,
    pub(super) offline_json: Option<Arc<str>>,
    pub(super) realtime_json: Option<Arc<str>>,
    pub(super) set_version: CatalogVersion,
    pub(super) coverage: CoverageFacts,
    pub(super) paused_ms: Option<i64>,
}

impl TableRow {
    fn read(row: &SqlRow) -> Result<Self> {
        let name = text(row, "name")?;
        let optional = |column| {
            let text: Option<String> = row.try_get(column).map_err(|e| sql_error("read", &e))?;
            let what = format!("a config of table {name}");
            let text = text.as_deref().map(|text| unsealed(text, &what));
            Ok(text.transpose()?.map(Arc::from))
        };
        Ok(Self {
            schema: text(row, "schema_name")?,
            offline_json: optional("offline_json")?,
            realtime_json: optional("realtime_json")?,
            set_version: CatalogVersion(unsigned(row, "set_version")?),
            coverage: from_json(
                &text(row, "coverage_json")?,
                &format!("the coverage of table {name}"),
            )?,
            paused_ms: row
                .try_get("paused_ms")
                .map_err(|e| sql_error("read", &e))?,
            name,
        })
    }

    pub(super) fn has(&self, half: Half) -> bool {
        match half {
            Half::Offline => self.offline_json.is_some(),
            Half::Realtime => self.realtime_json.is_some(),
        }
    }

    /// The table with what other rows say of it.
    pub(super) fn into_record(
        self,
        schema: Arc<SchemaRecord>,
        segments: Vec<Arc<SegmentInfo>>,
        partitions: Vec<PartitionRecord>,
    ) -> TableRecord {
        TableRecord {
            name: self.name,
            schema,
            offline_json: self.offline_json,
            realtime_json: self.realtime_json,
            set_version: self.set_version,
            segments,
            partitions,
            coverage: self.coverage,
            paused_ms: self.paused_ms,
        }
    }

    /// An error unless the half exists.
    pub(super) fn require(&self, half: Half) -> Result<()> {
        if self.has(half) {
            Ok(())
        } else {
            Err(Error::precondition(format!(
                "table {} has no {half} half; create {}_{half} first",
                self.name, self.name
            )))
        }
    }
}

pub(super) async fn find(connection: &mut Connection, name: &str) -> Result<Option<TableRow>> {
    let row = sqlx::query("SELECT * FROM tables WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    row.as_ref().map(TableRow::read).transpose()
}

pub(super) async fn get(connection: &mut Connection, name: &str) -> Result<TableRow> {
    find(connection, name)
        .await?
        .ok_or_else(|| Error::not_found(format!("no table {name}")))
}

/// Stores a table's halves, set version and coverage facts.
pub(super) async fn update(write: &mut Write<'_>, table: &TableRow) -> Result<()> {
    sqlx::query("UPDATE tables SET offline_json = $2, realtime_json = $3, set_version = $4, coverage_json = $5, paused_ms = $6 WHERE name = $1")
        .bind(&table.name)
        .bind(table.offline_json.as_deref().map(sealed))
        .bind(table.realtime_json.as_deref().map(sealed))
        .bind(to_sql(table.set_version.0, "catalog version")?)
        .bind(to_json(&table.coverage, "coverage")?)
        .bind(table.paused_ms)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    write.note_table(table);
    Ok(())
}

async fn find_schema(connection: &mut Connection, name: &str) -> Result<Option<SchemaRecord>> {
    let row = sqlx::query("SELECT * FROM schemas WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
        .map_err(|e| sql_error("read", &e))?;
    row.as_ref().map(read_schema).transpose()
}

fn read_schema(row: &SqlRow) -> Result<SchemaRecord> {
    let (name, version) = (text(row, "name")?, unsigned(row, "version")?);
    let version = u32::try_from(version)
        .map_err(|_| Error::data_loss(format!("metastore: schema {name} has version {version}")))?;
    let lineage: Option<String> = row
        .try_get("lineage_json")
        .map_err(|e| sql_error("read", &e))?;
    let lineage = lineage.map(|json| from_json(&json, &format!("the lineage of schema {name}")));
    let json = text(row, "json")?;
    let json = unsealed(&json, &format!("schema {name}"))?.to_owned();
    Ok(SchemaRecord {
        name,
        version,
        json,
        lineage: Arc::new(lineage.transpose()?.unwrap_or_default()),
    })
}

pub(super) async fn put_schema(
    write: &mut Write<'_>,
    schema: SchemaRecord,
) -> Result<Outcome<u32>> {
    write.next_version().await?;
    let stored = find_schema(write.connection(), &schema.name).await?;
    if let Some(same) = stored.as_ref().filter(|stored| stored.json == schema.json) {
        return Ok(Outcome::AlreadyDone(same.version));
    }
    let next = stored.map_or(0, |stored| stored.version) + 1;
    if schema.version != next {
        return Err(Error::precondition(format!(
            "schema {} was changed meanwhile: its next version is {next}, not {}; try again",
            schema.name, schema.version
        )));
    }
    sqlx::query(
        "INSERT INTO schemas (name, version, json, lineage_json) VALUES ($1, $2, $3, $4) ON CONFLICT (name)
         DO UPDATE SET version = excluded.version, json = excluded.json, lineage_json = excluded.lineage_json",
    )
    .bind(&schema.name)
    .bind(i64::from(schema.version))
    .bind(sealed(&schema.json))
    .bind(to_json(&*schema.lineage, "lineage")?)
    .execute(write.connection())
    .await
    .map_err(|e| sql_error("write", &e))?;
    let version = schema.version;
    write.note_schema(schema);
    Ok(Outcome::Done(version))
}

pub(super) async fn delete_schema(write: &mut Write<'_>, name: &str) -> Result<()> {
    write.next_version().await?;
    if find_schema(write.connection(), name).await?.is_none() {
        return Err(Error::not_found(format!("no schema {name}")));
    }
    let user = sqlx::query("SELECT name FROM tables WHERE schema_name = $1 ORDER BY name")
        .bind(name)
        .fetch_optional(write.connection())
        .await
        .map_err(|e| sql_error("read", &e))?;
    if let Some(user) = user {
        return Err(Error::precondition(format!(
            "schema {name} is used by table {}; drop the table first",
            text(&user, "name")?
        )));
    }
    sqlx::query("DELETE FROM schemas WHERE name = $1")
        .bind(name)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    write.note_schema_gone(name);
    Ok(())
}

pub(super) async fn create(
    write: &mut Write<'_>,
    new: &NewTable,
) -> Result<Outcome<CatalogVersion>> {
    let version = write.next_version().await?;
    if find_schema(write.connection(), &new.schema)
        .await?
        .is_none()
    {
        return Err(Error::precondition(format!(
            "table {}: there is no schema {}; store it first",
            new.name, new.schema
        )));
    }
    let mut table = match find(write.connection(), &new.name).await? {
        Some(table) if table.schema != new.schema => {
            return Err(Error::precondition(format!(
                "table {}: its other half has the schema {}, not {}; both halves share one",
                new.name, table.schema, new.schema
            )));
        }
        Some(table) => table,
        None => {
            let coverage = CoverageFacts::default();
            sqlx::query("INSERT INTO tables (name, schema_name, set_version, coverage_json) VALUES ($1, $2, $3, $4)")
                .bind(&new.name)
                .bind(&new.schema)
                .bind(to_sql(version.0, "catalog version")?)
                .bind(to_json(&coverage, "coverage")?)
                .execute(write.connection())
                .await
                .map_err(|e| sql_error("write", &e))?;
            TableRow {
                name: new.name.clone(),
                schema: new.schema.clone(),
                offline_json: None,
                realtime_json: None,
                set_version: version,
                coverage,
                paused_ms: None,
            }
        }
    };
    let config = match new.half {
        Half::Offline => &mut table.offline_json,
        Half::Realtime => &mut table.realtime_json,
    };
    match config {
        Some(stored) if **stored == *new.config_json => {
            return Ok(Outcome::AlreadyDone(CatalogVersion(version.0 - 1)));
        }
        Some(_) => {
            return Err(Error::already_exists(format!(
                "table {}_{} exists with another config; drop it first",
                new.name, new.half
            )));
        }
        None => *config = Some(Arc::from(new.config_json.as_str())),
    }
    update(write, &table).await?;
    Ok(Outcome::Done(version))
}

/// Gives a half another config.
pub(super) async fn change(
    write: &mut Write<'_>,
    new: &NewTable,
) -> Result<Outcome<CatalogVersion>> {
    let version = write.next_version().await?;
    let mut table = get(write.connection(), &new.name).await?;
    let config = match new.half {
        Half::Offline => &mut table.offline_json,
        Half::Realtime => &mut table.realtime_json,
    };
    match config {
        None => {
            return Err(Error::not_found(format!(
                "no table {}_{}",
                new.name, new.half
            )));
        }
        Some(stored) if **stored == *new.config_json => {
            return Ok(Outcome::AlreadyDone(CatalogVersion(version.0 - 1)));
        }
        Some(stored) => *stored = Arc::from(new.config_json.as_str()),
    }
    super::segments::doubt(write, &new.name, new.half).await?;
    update(write, &table).await?;
    Ok(Outcome::Done(version))
}

/// Notes since when a table's stream is not read, or that it is.
pub(super) async fn pause(
    write: &mut Write<'_>,
    name: &str,
    paused_ms: Option<i64>,
) -> Result<Outcome<CatalogVersion>> {
    let version = write.next_version().await?;
    let mut table = get(write.connection(), name).await?;
    table.require(Half::Realtime)?;
    if table.paused_ms.is_some() == paused_ms.is_some() {
        return Ok(Outcome::AlreadyDone(CatalogVersion(version.0 - 1)));
    }
    table.paused_ms = paused_ms;
    update(write, &table).await?;
    Ok(Outcome::Done(version))
}

pub(super) async fn drop(
    write: &mut Write<'_>,
    name: &str,
    half: Option<Half>,
) -> Result<Vec<SegmentInfo>> {
    let version = write.next_version().await?;
    let mut table = get(write.connection(), name).await?;
    if let Some(half) = half.filter(|half| !table.has(*half)) {
        return Err(Error::not_found(format!("no table {name}_{half}")));
    }
    let mut removed = Vec::new();
    for gone in [Half::Offline, Half::Realtime] {
        if !table.has(gone) || half.is_some_and(|half| half != gone) {
            continue;
        }
        removed.extend(super::segments::remove_all(write, name, gone, version).await?);
        match gone {
            Half::Offline => {
                table.offline_json = None;
                table.coverage = CoverageFacts::default();
                delete_rows(write, "DELETE FROM pushes WHERE table_name = $1", name).await?;
            }
            Half::Realtime => {
                table.realtime_json = None;
                table.paused_ms = None;
                delete_rows(write, "DELETE FROM partitions WHERE table_name = $1", name).await?;
                delete_rows(write, "DELETE FROM ledger WHERE table_name = $1", name).await?;
                write.note_partitions_gone(name);
                delete_rows(
                    write,
                    "DELETE FROM dead_letters WHERE table_name = $1",
                    name,
                )
                .await?;
            }
        }
    }
    if table.offline_json.is_none() && table.realtime_json.is_none() {
        delete_rows(write, "DELETE FROM tables WHERE name = $1", name).await?;
        write.note_table_gone(name);
    } else {
        table.set_version = version;
        update(write, &table).await?;
    }
    Ok(removed)
}

async fn delete_rows(write: &mut Write<'_>, statement: &'static str, table: &str) -> Result<()> {
    sqlx::query(statement)
        .bind(table)
        .execute(write.connection())
        .await
        .map_err(|e| sql_error("write", &e))?;
    Ok(())
}

/// The partition that a row of `partitions` or `dead_letters` names.
pub(super) fn read_partition(row: &SqlRow) -> Result<StreamPartition> {
    let number = unsigned(row, "partition_number")?;
    Ok(StreamPartition {
        stream: Arc::from(text(row, "stream")?),
        topic: Arc::from(text(row, "topic")?),
        partition: u32::try_from(number)
            .map_err(|_| Error::data_loss(format!("metastore: partition number {number}")))?,
    })
}

/// How far a partition was committed, from its row of `partitions`.
pub(super) fn read_progress(row: &SqlRow) -> Result<PartitionRecord> {
    let partition = read_partition(row)?;
    Ok(PartitionRecord {
        first_offset: unsigned(row, "first_offset")?,
        next_offset: unsigned(row, "next_offset")?,
        counts: from_json(
            &text(row, "counts_json")?,
            &format!("the counts of {partition}"),
        )?,
        ledger_offset: unsigned(row, "ledger_offset")?,
        partition,
    })
}

pub(super) fn read_segment(row: &SqlRow) -> Result<SegmentInfo> {
    from_json(
        &text(row, "info_json")?,
        &format!("segment {}", text(row, "name")?),
    )
}

/// What keys are hashed with; `new` from now on where there was nothing.
pub(super) async fn keys_secret(write: &mut Write<'_>, new: [u8; 16]) -> Result<Outcome<[u8; 16]>> {
    let row = sqlx::query("SELECT keys_secret FROM catalog WHERE id = 1")
        .fetch_one(write.connection())
        .await
        .map_err(|e| sql_error("read", &e))?;
    let stored: Option<String> = row
        .try_get("keys_secret")
        .map_err(|e| sql_error("read", &e))?;
    let Some(stored) = stored else {
        sqlx::query("UPDATE catalog SET keys_secret = $1 WHERE id = 1")
            .bind(sealed(&hex(&new)))
            .execute(write.connection())
            .await
            .map_err(|e| sql_error("write", &e))?;
        return Ok(Outcome::Done(new));
    };
    let secret = unhex(unsealed(&stored, "the keys' secret")?)?;
    let secret = <[u8; 16]>::try_from(&secret[..]).map_err(|_| {
        Error::data_loss("metastore: the keys' secret can't be read; restore a backup")
    })?;
    Ok(Outcome::AlreadyDone(secret))
}

/// Everything; records in the order of their names, bytewise.
pub(super) async fn load(connection: &mut Connection) -> Result<MetaState> {
    let sql = |e: sqlx::Error| sql_error("read", &e);
    let version = catalog_version(connection).await?;
    let rows = sqlx::query("SELECT * FROM schemas ORDER BY name")
        .fetch_all(&mut *connection)
        .await
        .map_err(sql)?;
    let schemas = rows.iter().map(|row| Ok(Arc::new(read_schema(row)?)));
    let schemas: Vec<Arc<SchemaRecord>> = schemas.collect::<Result<_>>()?;

    let mut segments: BTreeMap<String, Vec<Arc<SegmentInfo>>> = BTreeMap::new();
    let rows = sqlx::query("SELECT table_name, name, info_json FROM segments WHERE removed_in IS NULL ORDER BY table_name, name")
        .fetch_all(&mut *connection)
        .await
        .map_err(sql)?;
    for row in &rows {
        segments
            .entry(text(row, "table_name")?)
            .or_default()
            .push(Arc::new(read_segment(row)?));
    }

    let mut partitions: BTreeMap<String, Vec<PartitionRecord>> = BTreeMap::new();
    let rows = sqlx::query(
        "SELECT * FROM partitions ORDER BY table_name, stream, topic, partition_number",
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(sql)?;
    for row in &rows {
        partitions
            .entry(text(row, "table_name")?)
            .or_default()
            .push(read_progress(row)?);
    }

    let rows = sqlx::query("SELECT * FROM tables ORDER BY name")
        .fetch_all(&mut *connection)
        .await
        .map_err(sql)?;
    let tables = rows.iter().map(|row| {
        let table = TableRow::read(row)?;
        let schema = schemas
            .iter()
            .find(|schema| schema.name == table.schema)
            .cloned();
        let schema = schema.ok_or_else(|| {
            Error::data_loss(format!(
                "metastore: table {} has no schema {}",
                table.name, table.schema
            ))
        })?;
        let segments = segments.remove(&table.name).unwrap_or_default();
        let partitions = partitions.remove(&table.name).unwrap_or_default();
        Ok(Arc::new(table.into_record(schema, segments, partitions)))
    });
    let tables = tables.collect::<Result<Vec<_>>>()?;
    Ok(MetaState {
        version,
        schemas,
        tables,
    })
}
