//! Rows that have a key: `upsertConfig` and `dedupConfig`.

use super::document::{Node, Object};
use super::fields;
use super::{ConfigWarning, KeyRule, KeysConfig, MergeStrategy, Merging};
use std::collections::BTreeMap;
use strandline_proto::Result;
use strandline_proto::ids::Half;
use strandline_proto::schema::{Column, DataType, Schema};

/// Reads what the table's rows are told apart by.
pub(super) fn read(
    root: &mut Object<'_>,
    (schema, half): (&Schema, Half),
    time_column: Option<&str>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<KeysConfig>> {
    let upsert = match root.take("upsertConfig") {
        Some(node) if !node.is_blank() => {
            read_upsert(&node, schema, time_column, warnings)?.map(|config| (node, config))
        }
        _ => None,
    };
    let dedup = match root.take("dedupConfig") {
        Some(node) if !node.is_blank() => {
            read_dedup(&node, schema, time_column, warnings)?.map(|config| (node, config))
        }
        _ => None,
    };
    let (node, config) = match (upsert, dedup) {
        (None, None) => return Ok(None),
        (Some(_), Some((node, _))) => {
            return Err(node.wrong(
                "rows are either upserted or deduplicated: take upsertConfig or dedupConfig out",
            ));
        }
        (Some(found), None) | (None, Some(found)) => found,
    };
    if half == Half::Offline {
        return Err(node.unsupported(
            "keys of rows of an OFFLINE table; only those of a stream are told apart by their keys",
        ));
    }
    if config.key.is_empty() {
        return Err(
            node.wrong("the rows need a key: name its columns in primaryKeyColumns of the schema")
        );
    }
    Ok(Some(config))
}

fn read_upsert(
    node: &Node<'_>,
    schema: &Schema,
    time_column: Option<&str>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<KeysConfig>> {
    let mut config = node.object()?;
    let mode = config.require("mode")?;
    let is_partial = match mode.word()?.as_str() {
        "NONE" => return Ok(None),
        "FULL" => false,
        "PARTIAL" => true,
        other => {
            return Err(mode.wrong(format_args!(
                "unknown mode {other}: use FULL, PARTIAL or NONE"
            )));
        }
    };
    let comparison = match config
        .take("comparisonColumns")
        .or(config.take("comparisonColumn"))
    {
        None => time_column.map(str::to_owned),
        Some(node) => {
            let columns = node.texts()?;
            match columns.as_slice() {
                [] => time_column.map(str::to_owned),
                [(node, _)] => Some(single(node, schema)?.name.clone()),
                _ => return Err(node.unsupported("more than one comparison column")),
            }
        }
    };
    let deleted = match config.take("deleteRecordColumn").filter(|n| !n.is_blank()) {
        None => None,
        Some(node) => {
            let column = single(&node, schema)?;
            if column.data_type != DataType::Boolean {
                return Err(node.wrong(format_args!(
                    "the column {} is {}; it must be BOOLEAN: true deletes the key",
                    column.name,
                    column.data_type.pinot_name()
                )));
            }
            Some(column.name.clone())
        }
    };
    if is_partial {
        check_defaults(&mode, schema)?;
    }
    let merging = Merging {
        columns: strategies(&mut config, schema)?,
        otherwise: match config.take("defaultPartialUpsertStrategy") {
            Some(node) => strategy(&node)?,
            None => MergeStrategy::Overwrite,
        },
    };
    if !matches!(
        merging.otherwise,
        MergeStrategy::Overwrite | MergeStrategy::Ignore | MergeStrategy::ForceOverwrite
    ) {
        return Err(mode.wrong(
            "defaultPartialUpsertStrategy is for columns of all types: use OVERWRITE, FORCE_OVERWRITE or IGNORE",
        ));
    }
    let kept = ttl(&mut config, "metadataTTL", comparison.as_deref(), schema)?;
    let deleted_kept = ttl(&mut config, "deletedKeysTTL", comparison.as_deref(), schema)?;
    for (key, what) in [
        (
            "outOfOrderRecordColumn",
            "to mark rows that come late; they are kept and not counted",
        ),
        (
            "partialUpserterClass",
            "a class that merges rows; use partialUpsertStrategies",
        ),
        (
            "metadataManagerClass",
            "a class that keeps keys; they are kept by the database",
        ),
    ] {
        config.refuse(key, what)?;
    }
    for (key, message) in [
        ("hashFunction", "keys are kept as keyed 128-bit hashes"),
        ("enableSnapshot", "keys are always kept on disk"),
        ("snapshot", "keys are always kept on disk"),
        ("enablePreload", "keys need not be loaded"),
        ("preload", "keys need not be loaded"),
        ("consistencyMode", "a query always sees each key once"),
        (
            "upsertViewRefreshIntervalMs",
            "a query sees the newest rows",
        ),
        ("newSegmentTrackingTimeMs", "a query sees the newest rows"),
        (
            "dropOutOfOrderRecord",
            "rows that come late are kept and not counted",
        ),
        (
            "enableDeletedKeysCompactionConsistency",
            "a deleted key does not come back",
        ),
        (
            "allowPartialUpsertConsumptionDuringCommit",
            "it is always so",
        ),
    ] {
        config.warn(key, message, warnings);
    }
    config.finish(warnings);
    Ok(Some(KeysConfig {
        key: schema.primary_key.clone(),
        comparison,
        deleted,
        rule: match is_partial {
            true => KeyRule::Merged(merging),
            false => KeyRule::Newest,
        },
        kept,
        deleted_kept,
    }))
}

fn read_dedup(
    node: &Node<'_>,
    schema: &Schema,
    time_column: Option<&str>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<KeysConfig>> {
    let mut config = node.object()?;
    let enabled = config
        .take("dedupEnabled")
        .map(|n| n.boolean())
        .transpose()?;
    if enabled != Some(true) {
        return Ok(None);
    }
    let time = match config.take("dedupTimeColumn").filter(|n| !n.is_blank()) {
        Some(node) => Some(single(&node, schema)?.name.clone()),
        None => time_column.map(str::to_owned),
    };
    let kept = ttl(&mut config, "metadataTTL", time.as_deref(), schema)?;
    config.refuse(
        "metadataManagerClass",
        "a class that keeps keys; they are kept by the database",
    )?;
    for (key, message) in [
        ("hashFunction", "keys are kept as keyed 128-bit hashes"),
        ("enablePreload", "keys need not be loaded"),
        ("preload", "keys need not be loaded"),
        ("ignoreNonDefaultTiers", "there are no tiers"),
        ("allowDedupConsumptionDuringCommit", "it is always so"),
    ] {
        config.warn(key, message, warnings);
    }
    config.finish(warnings);
    Ok(Some(KeysConfig {
        key: schema.primary_key.clone(),
        // Only a window needs times.
        comparison: kept.and(time),
        deleted: None,
        rule: KeyRule::First,
        kept,
        deleted_kept: None,
    }))
}

/// In rows that say only what has changed, an absent field is a null.
fn check_defaults(mode: &Node<'_>, schema: &Schema) -> Result<()> {
    let has_default =
        |column: &&Column| !column.default.is_null() && !schema.primary_key.contains(&column.name);
    match schema.columns.iter().find(has_default) {
        Some(column) => Err(mode.unsupported(format_args!(
            "PARTIAL with the column {}, whose defaultNullValue would overwrite what was there; take the default out of the schema",
            column.name
        ))),
        None => Ok(()),
    }
}

/// A single-value column by its name.
fn single<'s>(node: &Node<'_>, schema: &'s Schema) -> Result<&'s Column> {
    let name = fields::known_column(node, schema)?;
    match schema.column(name) {
        Some(column) if !column.multi_value => Ok(column),
        _ => Err(node.wrong(format_args!(
            "the column {name} holds lists; it must hold one value"
        ))),
    }
}

/// How much smaller than the largest a key's comparison value may become before the key is forgotten.
fn ttl(
    config: &mut Object<'_>,
    key: &str,
    comparison: Option<&str>,
    schema: &Schema,
) -> Result<Option<i64>> {
    let Some(node) = config.take(key).filter(|n| !n.is_blank()) else {
        return Ok(None);
    };
    let column = comparison.and_then(|name| schema.column(name));
    let is_number = column.is_some_and(|column| {
        matches!(
            column.data_type,
            DataType::Int | DataType::Long | DataType::Timestamp
        )
    });
    if !is_number {
        return Err(node.wrong(
            "keys are forgotten by the times of their rows: the comparison column (or the time column) must be INT, LONG or TIMESTAMP",
        ));
    }
    let text = node.scalar_text()?;
    let number = text.trim().parse::<f64>().ok();
    match number.filter(|n| *n > 0.0 && *n <= 9e18) {
        // In units of the column.
        Some(number) => Ok(Some(number.ceil() as i64)),
        None => Err(node.wrong("expected a number above zero, in units of the comparison column")),
    }
}

fn strategies(config: &mut Object<'_>, schema: &Schema) -> Result<BTreeMap<String, MergeStrategy>> {
    let mut strategies = BTreeMap::new();
    let Some(node) = config.take("partialUpsertStrategies") else {
        return Ok(strategies);
    };
    for (name, node) in node.object()?.take_rest() {
        let Some(column) = schema.column(name) else {
            return Err(node.wrong(format_args!("no column {name} in the schema")));
        };
        if schema.primary_key.iter().any(|key| key == name) {
            return Err(node.wrong(format_args!(
                "the column {name} is part of the key, which rows are not merged in"
            )));
        }
        let strategy = strategy(&node)?;
        let is_number = matches!(
            column.data_type,
            DataType::Int
                | DataType::Long
                | DataType::Float
                | DataType::Double
                | DataType::BigDecimal { .. }
        );
        match strategy {
            MergeStrategy::Increment if column.multi_value || !is_number => {
                return Err(node.wrong(format_args!(
                    "INCREMENT is for single-value columns of numbers, and {name} is none"
                )));
            }
            MergeStrategy::Append | MergeStrategy::Union if !column.multi_value => {
                return Err(node.wrong(format_args!(
                    "APPEND and UNION are for multi-value columns, and {name} is none"
                )));
            }
            MergeStrategy::Min | MergeStrategy::Max if column.multi_value => {
                return Err(node.wrong(format_args!(
                    "MIN and MAX are for single-value columns, and {name} is none"
                )));
            }
            _ => {}
        }
        strategies.insert(name.to_owned(), strategy);
    }
    Ok(strategies)
}

fn strategy(node: &Node<'_>) -> Result<MergeStrategy> {
    Ok(match node.word()?.as_str() {
        "OVERWRITE" => MergeStrategy::Overwrite,
        "FORCE_OVERWRITE" => MergeStrategy::ForceOverwrite,
        "IGNORE" => MergeStrategy::Ignore,
        "INCREMENT" => MergeStrategy::Increment,
        "APPEND" => MergeStrategy::Append,
        "UNION" => MergeStrategy::Union,
        "MAX" => MergeStrategy::Max,
        "MIN" => MergeStrategy::Min,
        other => {
            return Err(node.wrong(format_args!(
                "unknown strategy {other}: use OVERWRITE, FORCE_OVERWRITE, IGNORE, INCREMENT, APPEND, UNION, MAX or MIN"
            )));
        }
    })
}
