//! Schemas, and their changes while the table is used.
//!
//! A change is one transaction of the metastore. Segments that are there are not touched: each is read by what the lineage says
//! of its schema's version. Consumers go on with the new schema from their next batch on.

use super::Engine;
use crate::host::catalog::warning_messages;
use serde_json::{Map, Value as Json, json};
use std::sync::Arc;
use strandline_broker::SchemaChange;
use strandline_broker::transport::CatalogSource;
use strandline_proto::ids::Half;
use strandline_proto::schema::{Column, Schema};
use strandline_proto::v1::ConfigWarning;
use strandline_proto::{Error, Result};
use strandline_storage::config::{self, KeysConfig};
use strandline_storage::meta::{Metastore, SchemaRecord};
use strandline_storage::segment::arrow::physical_type;
use strandline_storage::segment::widened::widens;

/// Where a schema document lists columns.
const LISTS: [&str; 3] = [
    "dimensionFieldSpecs",
    "metricFieldSpecs",
    "dateTimeFieldSpecs",
];

impl Engine {
    /// Stores a schema, or the next version of one; gives its name and what of it is not honoured. Columns may come and go, and
    /// numbers become wider, while the table is used.
    ///
    /// # Errors
    /// `Unsupported` for a change that segments can't be read by, `FailedPrecondition` when a config of the table needs what goes.
    pub async fn put_schema(&self, json: &str) -> Result<(String, Vec<ConfigWarning>)> {
        let _one_at_a_time = self.tables_change.lock().await;
        let (schema, warnings) = config::parse_schema(json, 1).map_err(|e| e.at("schema"))?;
        self.store_schema(&schema.name, json, None).await?;
        Ok((schema.name, warning_messages(warnings)))
    }

    /// Changes one column of a table; gives the new version of its schema.
    pub async fn change_schema(&self, table: &str, change: SchemaChange) -> Result<u32> {
        let _one_at_a_time = self.tables_change.lock().await;
        let name = self.table_snapshot(table)?.name.to_string();
        let json = self.schema_json(&name).await?;
        let mut document: Json = serde_json::from_str(&json)
            .map_err(|e| Error::data_loss(format!("schema {name}: {e}")))?;
        let fields = document
            .as_object_mut()
            .ok_or_else(|| Error::data_loss(format!("schema {name} is no JSON object")))?;
        let renamed = edit(fields, &name, &change)?;
        let json = serde_json::to_string_pretty(&document)
            .map_err(|e| Error::internal(format!("schema {name}: {e}")))?;
        let renamed = renamed
            .as_ref()
            .map(|(from, to)| (from.as_str(), to.as_str()));
        self.store_schema(&name, &json, renamed).await
    }

    /// Stores the next version of a schema, in which one column may have another name.
    async fn store_schema(
        &self,
        name: &str,
        json: &str,
        renamed: Option<(&str, &str)>,
    ) -> Result<u32> {
        let state = self.metastore.state().await?;
        let stored = state.schema(name).cloned();
        let version = stored.as_ref().map_or(0, |s| s.version) + 1;
        let (schema, _) = config::parse_schema(json, version).map_err(|e| e.at("schema"))?;
        let snapshot = self.registry.snapshot();
        let lineage = match (&stored, snapshot.tables.get(name)) {
            // Without a table nothing is stored by it.
            (None, _) | (_, None) => Arc::default(),
            (Some(stored), Some(table)) => {
                let realtime = self.publisher.config(name, Half::Realtime);
                check(
                    &table.schema,
                    &schema,
                    table.time_column.as_deref(),
                    realtime.as_ref().and_then(|config| config.keys.as_deref()),
                    renamed,
                )?;
                self.check_configs(&schema)?;
                let before = |column: &Column| {
                    let old = match renamed {
                        Some((from, to)) if to == column.name => from,
                        _ => column.name.as_str(),
                    };
                    table.schema.column(old).map(|c| c.name.as_str())
                };
                let columns = schema.columns.iter().map(|c| (c.name.as_str(), before(c)));
                Arc::new(stored.lineage.changed(version, columns))
            }
        };
        let stored = self
            .metastore
            .put_schema(SchemaRecord {
                name: name.to_owned(),
                version,
                json: json.to_owned(),
                lineage,
            })
            .await?;
        self.publisher.publish().await?;
        Ok(stored.into_inner())
    }

    /// The table's configs must go with its new schema.
    fn check_configs(&self, schema: &Schema) -> Result<()> {
        let schema = Arc::new(schema.clone());
        for half in [Half::Offline, Half::Realtime] {
            if let Some(config) = self.publisher.config(&schema.name, half) {
                config::parse_table(&config.json, &schema).map_err(|e| {
                    Error::precondition(format!(
                        "the config of {}_{half} does not go with the new schema: {}; give the table another config first",
                        schema.name,
                        e.message()
                    ))
                })?;
            }
        }
        Ok(())
    }
}

/// Whether segments of `old` can be read by `new`.
fn check(
    old: &Schema,
    new: &Schema,
    time: Option<&str>,
    keys: Option<&KeysConfig>,
    renamed: Option<(&str, &str)>,
) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::unsupported(format!(
            "not supported: {what} of table {} while it exists; add a column and fill it, or drop the table first",
            old.name
        )))
    };
    if old.primary_key != new.primary_key {
        return refuse("changing the primary key".to_owned());
    }
    for column in &old.columns {
        let name = match renamed {
            Some((from, to)) if from == column.name => to,
            _ => column.name.as_str(),
        };
        let is_time = time == Some(column.name.as_str());
        let Some(now) = new.column(name) else {
            if is_time {
                return refuse(format!("dropping the time column {name}"));
            }
            continue;
        };
        if is_time
            && (now.name != column.name
                || now.role != column.role
                || now.data_type != column.data_type)
        {
            return refuse(format!("changing the time column {name}"));
        }
        let is_key = keys.is_some_and(|keys| keys.columns().any(|key| *key == column.name));
        if is_key && (now.name != column.name || now.data_type != column.data_type) {
            return refuse(format!(
                "changing the column {name}, which rows are told apart by,"
            ));
        }
        let types = (
            physical_type(column.data_type),
            physical_type(now.data_type),
        );
        let is_same =
            column.data_type == now.data_type || widens(types.0, types.1) && is_number(now);
        if column.multi_value != now.multi_value || !is_same {
            let shown = |c: &Column| {
                let list = if c.multi_value { " (multi-value)" } else { "" };
                format!("{}{list}", c.data_type.pinot_name())
            };
            return refuse(format!(
                "changing column {name} from {} to {}",
                shown(column),
                shown(now)
            ));
        }
    }
    Ok(())
}

fn is_number(column: &Column) -> bool {
    use strandline_proto::schema::DataType::{Double, Long};
    matches!(column.data_type, Long | Double)
}

/// Makes a change in a schema document; gives the old and the new name of a column that is renamed.
fn edit(
    document: &mut Map<String, Json>,
    table: &str,
    change: &SchemaChange,
) -> Result<Option<(String, String)>> {
    let exists = |document: &Map<String, Json>, name: &str| {
        let specs = LISTS
            .iter()
            .filter_map(|list| document.get(*list)?.as_array());
        specs.flatten().any(|spec| spec["name"] == *name)
    };
    let missing = |name: &str| Error::not_found(format!("table {table} has no column {name}"));
    let taken = |name: &str| Error::already_exists(format!("table {table} has a column {name}"));
    match change {
        SchemaChange::Add {
            column,
            data_type,
            multi_value,
            default,
        } => {
            if exists(document, column) {
                return Err(taken(column));
            }
            let mut spec = json!({"name": column, "dataType": data_type});
            if *multi_value {
                spec["singleValueField"] = json!(false);
            }
            if let Some(default) = default {
                spec["defaultNullValue"] = json!(default);
            }
            let list = document.entry(LISTS[0]).or_insert_with(|| json!([]));
            match list.as_array_mut() {
                Some(list) => list.push(spec),
                None => *list = json!([spec]),
            }
            Ok(None)
        }
        SchemaChange::Drop { column } => {
            if !exists(document, column) {
                return Err(missing(column));
            }
            for list in LISTS {
                if let Some(Json::Array(list)) = document.get_mut(list) {
                    list.retain(|spec| spec["name"] != *column);
                }
            }
            Ok(None)
        }
        SchemaChange::Rename { column, to } => {
            if exists(document, to) {
                return Err(taken(to));
            }
            field(document, column).ok_or_else(|| missing(column))?["name"] = json!(to);
            Ok(Some((column.clone(), to.clone())))
        }
        SchemaChange::Widen { column, data_type } => {
            let spec = field(document, column).ok_or_else(|| missing(column))?;
            spec["dataType"] = json!(data_type);
            Ok(None)
        }
    }
}

/// A column's entry in a schema document.
fn field<'a>(document: &'a mut Map<String, Json>, name: &str) -> Option<&'a mut Json> {
    let list = LISTS.into_iter().find(|list| {
        let specs = document.get(*list).and_then(Json::as_array);
        specs
            .into_iter()
            .flatten()
            .any(|spec| spec["name"] == *name)
    })?;
    let specs = document.get_mut(list)?.as_array_mut()?;
    specs.iter_mut().find(|spec| spec["name"] == *name)
}

#[cfg(test)]
mod tests;
