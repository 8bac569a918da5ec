//! Pinot's schema document.

use super::document::{self, Node, Object};
use super::{ConfigWarning, names};
use crate::convert::{Cell, scalar};
use serde_json::Value as Json;
use strandline_proto::schema::{
    Column, ColumnRole, DECIMAL_PRECISION_DEFAULT, DECIMAL_SCALE_DEFAULT, DataType, Schema,
};
use strandline_proto::time_format::{TimeFormat, TimeUnit};
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// Columns of a schema.
const COLUMNS_MAX: usize = 10_000;

pub(super) fn parse(json: &str, version: u32) -> Result<(Schema, Vec<ConfigWarning>)> {
    let document = document::parse(json)?;
    let mut root = Node::root(&document).object()?;
    let mut warnings = Vec::new();
    let name_node = root.require("schemaName")?;
    let name = name_node.text()?;
    names::check_table(&name_node, name)?;
    if name.ends_with("_OFFLINE") || name.ends_with("_REALTIME") {
        return Err(name_node.wrong(format_args!(
            "the name '{name}' ends as a half's name does; leave out _OFFLINE or _REALTIME"
        )));
    }
    let mut found: Vec<(Node<'_>, Column)> = Vec::new();
    for (key, kind) in [
        ("dimensionFieldSpecs", Kind::Dimension),
        ("metricFieldSpecs", Kind::Metric),
        ("dateTimeFieldSpecs", Kind::DateTime),
    ] {
        for node in root
            .take(key)
            .map(|list| list.list())
            .transpose()?
            .unwrap_or_default()
        {
            let column = column(&node, kind, &mut warnings)?;
            found.push((node, column));
        }
    }
    if let Some(node) = root.take("timeFieldSpec") {
        found.push((node.clone(), time_field(&node, &mut warnings)?));
    }
    if let Some(node) = root.take("complexFieldSpecs")
        && !node.is_blank()
    {
        return Err(node.unsupported(
            "MAP, LIST and STRUCT columns; use a JSON column, or multi-value columns",
        ));
    }
    if found.is_empty() {
        return Err(Error::invalid(
            "the schema has no columns: name them in dimensionFieldSpecs, metricFieldSpecs and dateTimeFieldSpecs",
        ));
    }
    if found.len() > COLUMNS_MAX {
        return Err(Error::invalid(format!(
            "the schema has more than {COLUMNS_MAX} columns"
        )));
    }
    let mut seen = std::collections::HashMap::new();
    for (node, column) in &found {
        if let Some(first) = seen.insert(column.name.as_str(), node.path().to_owned()) {
            return Err(node.wrong(format_args!(
                "the column {} is there twice, first at {first}",
                column.name
            )));
        }
    }
    let columns: Vec<Column> = found.into_iter().map(|(_, column)| column).collect();
    let primary_key = primary_key(&mut root, &columns)?;
    // Nulls are SQL nulls in every table, whatever this says.
    root.ignore(&[
        "enableColumnBasedNullHandling",
        "description",
        "tags",
        "updateTimestampMs",
    ]);
    root.finish(&mut warnings);
    Ok((
        Schema {
            name: name.to_owned(),
            version,
            columns,
            primary_key,
        },
        warnings,
    ))
}

fn primary_key(root: &mut Object<'_>, columns: &[Column]) -> Result<Vec<String>> {
    let Some(node) = root.take("primaryKeyColumns") else {
        return Ok(Vec::new());
    };
    let mut key = Vec::new();
    for (node, name) in node.texts()? {
        match columns.iter().find(|c| c.name == name) {
            None => return Err(node.wrong(format_args!("no column {name} in the schema"))),
            Some(column) if column.multi_value => {
                return Err(node.wrong(format_args!(
                    "the multi-value column {name} can't be part of a primary key"
                )));
            }
            Some(_) if key.iter().any(|k| k == name) => {
                return Err(node.wrong(format_args!("the column {name} is there twice")));
            }
            Some(_) => key.push(name.to_owned()),
        }
    }
    Ok(key)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dimension,
    Metric,
    DateTime,
}

fn column(node: &Node<'_>, kind: Kind, warnings: &mut Vec<ConfigWarning>) -> Result<Column> {
    let mut spec = node.object()?;
    let name_node = spec.require("name")?;
    let name = name_node.text()?;
    names::check_column(&name_node, name)?;
    let type_node = spec.require("dataType")?;
    let data_type = data_type(&type_node, &mut spec)?;
    let single_node = spec.take("singleValueField");
    let multi_value = !single_node
        .as_ref()
        .map(Node::boolean)
        .transpose()?
        .unwrap_or(true);
    if multi_value {
        let at = single_node.as_ref().unwrap_or(node);
        match (kind, data_type) {
            (Kind::Metric, _) => {
                return Err(at.wrong("a metric holds a single value: make it a dimension"));
            }
            (Kind::DateTime, _) => {
                return Err(
                    at.wrong("a date-time column holds a single value: make it a dimension")
                );
            }
            (_, DataType::Json) => {
                return Err(
                    at.unsupported("multi-value JSON; a JSON column holds arrays by itself")
                );
            }
            _ => {}
        }
    }
    let role = match kind {
        Kind::Dimension => ColumnRole::Dimension,
        Kind::Metric => ColumnRole::Metric,
        Kind::DateTime => {
            let format_node = spec.require("format")?;
            let format =
                TimeFormat::parse(format_node.text()?).map_err(|e| e.at(format_node.path()))?;
            format
                .check_type(data_type)
                .map_err(|e| e.at(format_node.path()))?;
            let granularity = spec
                .take("granularity")
                .map(|g| g.scalar_text())
                .transpose()?
                .unwrap_or_default();
            ColumnRole::DateTime {
                format,
                granularity,
            }
        }
    };
    let default = default_value(&mut spec, data_type, multi_value)?;
    let not_null = spec
        .take("notNull")
        .map(|n| n.boolean())
        .transpose()?
        .unwrap_or(false);
    spec.warn(
        "maxLength",
        "text is kept whole, whatever its length",
        warnings,
    );
    spec.warn(
        "maxLengthExceedStrategy",
        "text is kept whole, whatever its length",
        warnings,
    );
    spec.refuse(
        "transformFunction",
        "a transform in the schema; write it in the table's ingestionConfig.transformConfigs",
    )?;
    spec.refuse(
        "virtualColumnProvider",
        "virtual columns of classes; leave the column out",
    )?;
    spec.ignore(&[
        "fieldType",
        "allowTrailingZeros",
        "description",
        "tags",
        "sampleValue",
        "singleValueField",
    ]);
    spec.finish(warnings);
    Ok(Column {
        name: name.to_owned(),
        data_type,
        multi_value,
        role,
        default,
        not_null,
    })
}

fn data_type(node: &Node<'_>, spec: &mut Object<'_>) -> Result<DataType> {
    let data_type = match node.word()?.as_str() {
        "INT" => DataType::Int,
        "LONG" => DataType::Long,
        "FLOAT" => DataType::Float,
        "DOUBLE" => DataType::Double,
        "BIG_DECIMAL" => return decimal_type(spec),
        "BOOLEAN" => DataType::Boolean,
        "TIMESTAMP" => DataType::Timestamp,
        "STRING" => DataType::String,
        "JSON" => DataType::Json,
        "BYTES" => DataType::Bytes,
        "MAP" | "LIST" | "STRUCT" | "OPEN_STRUCT" => {
            return Err(
                node.unsupported("nested types; use a JSON column, or a multi-value column")
            );
        }
        other => {
            return Err(node.wrong(format_args!(
                "unknown type {other}: use INT, LONG, FLOAT, DOUBLE, BIG_DECIMAL, BOOLEAN, TIMESTAMP, STRING, JSON or BYTES"
            )));
        }
    };
    Ok(data_type)
}

/// BIG_DECIMAL with our own keys `precision` and `scale`.
fn decimal_type(spec: &mut Object<'_>) -> Result<DataType> {
    let number = |node: &Node<'_>, least: u8, most: u8| -> Result<u8> {
        let value = node
            .scalar_text()?
            .parse::<u8>()
            .ok()
            .filter(|v| (least..=most).contains(v));
        value.ok_or_else(|| {
            node.wrong(format_args!(
                "expected a whole number from {least} to {most}"
            ))
        })
    };
    let precision = match spec.take("precision") {
        Some(node) => number(&node, 1, DECIMAL_PRECISION_DEFAULT)?,
        None => DECIMAL_PRECISION_DEFAULT,
    };
    let scale = match spec.take("scale") {
        Some(node) => number(&node, 0, precision)? as i8,
        None => DECIMAL_SCALE_DEFAULT.min(precision as i8),
    };
    Ok(DataType::BigDecimal { precision, scale })
}

fn default_value(spec: &mut Object<'_>, data_type: DataType, multi_value: bool) -> Result<Value> {
    let Some(node) = spec.take("defaultNullValue") else {
        return Ok(Value::Null);
    };
    let number;
    let cell = match node.value() {
        Json::Bool(value) => Cell::Boolean(*value),
        Json::String(text) => Cell::Text(text.as_str().into()),
        Json::Number(n) => {
            number = n.to_string();
            Cell::Number(&number)
        }
        other => Cell::Document(other.to_string().into()),
    };
    let value = scalar::value(&cell, data_type).map_err(|reason| node.wrong(reason))?;
    Ok(if multi_value {
        Value::List(vec![value])
    } else {
        value
    })
}

/// The time column of old schemas: `{"incomingGranularitySpec": {"name", "dataType", "timeType", "timeUnitSize", "timeFormat"}}`.
fn time_field(node: &Node<'_>, warnings: &mut Vec<ConfigWarning>) -> Result<Column> {
    let mut spec = node.object()?;
    let incoming = spec.require("incomingGranularitySpec")?;
    if let Some(outgoing) = spec.take("outgoingGranularitySpec")
        && outgoing.value() != incoming.value()
    {
        return Err(outgoing.unsupported(
            "another outgoing than incoming time; use a dateTimeFieldSpec and a transform",
        ));
    }
    let mut granularity = incoming.object()?;
    let name_node = granularity.require("name")?;
    let name = name_node.text()?;
    names::check_column(&name_node, name)?;
    let type_node = granularity.require("dataType")?;
    let data_type = data_type(&type_node, &mut granularity)?;
    let unit_node = granularity.require("timeType")?;
    let unit = unit_node.word()?;
    let size = granularity
        .take("timeUnitSize")
        .map(|n| n.scalar_text())
        .transpose()?
        .unwrap_or_else(|| "1".to_owned());
    let time_format = granularity
        .take("timeFormat")
        .map(|n| n.scalar_text())
        .transpose()?;
    let format = match time_format.as_deref() {
        None | Some("EPOCH") => {
            TimeUnit::parse(&unit).map_err(|e| e.at(unit_node.path()))?;
            TimeFormat::parse(&format!("{size}:{unit}:EPOCH"))
        }
        Some(other) => TimeFormat::parse(&format!("{size}:{unit}:{other}")),
    }
    .and_then(|format| format.check_type(data_type).map(|()| format))
    .map_err(|e| e.at(incoming.path()))?;
    granularity.finish(warnings);
    let default = default_value(&mut spec, data_type, false)?;
    spec.ignore(&["name", "dataType", "singleValueField", "fieldType"]);
    spec.finish(warnings);
    let role = ColumnRole::DateTime {
        format,
        granularity: format!("{size}:{unit}"),
    };
    Ok(Column {
        name: name.to_owned(),
        data_type,
        multi_value: false,
        role,
        default,
        not_null: false,
    })
}
