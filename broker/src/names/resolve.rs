//! A statement's names against the catalog.

use super::definitions::Definitions;
use super::nearest;
use super::rewrite::{Rewriter, Scope};
use crate::statement::place;
use crate::tables::{NamedTable, Tables};
use datafusion::sql::sqlparser::ast::{Ident, ObjectName, ObjectNamePart, Query, Visit, VisitMut};
use datafusion::sql::sqlparser::tokenizer::Location;
use std::collections::{BTreeMap, BTreeSet};
use strandline_proto::schema::virtual_columns;
use strandline_proto::{Error, Result};

/// What a statement names, and whether it names virtual columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// The tables of the catalog that the statement reads, by schema and name.
    pub(crate) tables: BTreeMap<(Option<String>, String), NamedTable>,
    /// Whether any virtual column is named.
    pub(crate) uses_virtual_columns: bool,
}

/// Matches a query's names against the catalog, in place, and gives its result columns their names.
pub(crate) fn resolve(query: &mut Query, tables: &Tables) -> Result<Resolved> {
    let mut definitions = Definitions::default();
    let _ = Visit::visit(&*query, &mut definitions);
    let mut resolved = Resolved {
        uses_virtual_columns: definitions.uses_virtual_columns,
        ..Resolved::default()
    };
    let mut scope = Scope {
        relations: definitions.relations,
        columns: definitions.columns,
    };
    let mut renamed = BTreeMap::new();
    for name in definitions.references {
        let (found, table) = find_table(&name, &definitions.ctes, tables)?;
        if let Some(table) = table {
            scope.relations.insert(found.1.clone());
            scope.columns.extend(table.columns());
            resolved.tables.insert(found.clone(), table);
        }
        renamed.insert(key_of(&name), found);
    }
    if resolved.uses_virtual_columns {
        scope.columns.extend(
            virtual_columns::ALL
                .iter()
                .map(|(name, _)| (*name).to_owned()),
        );
    }
    let _ = VisitMut::visit(
        query,
        &mut Rewriter {
            scope: &scope,
            renamed: &renamed,
            uses_virtual_columns: resolved.uses_virtual_columns,
            tables: &resolved.tables,
        },
    );
    Ok(resolved)
}

fn idents(name: &ObjectName) -> Vec<&Ident> {
    name.0.iter().filter_map(ObjectNamePart::as_ident).collect()
}

/// The parts of a name.
pub(super) fn key_of(name: &ObjectName) -> Vec<String> {
    idents(name).into_iter().map(|i| i.value.clone()).collect()
}

/// The name that a relation's name stands for, and its table unless a WITH defines it.
#[expect(
    clippy::type_complexity,
    reason = "schema and name, as in the map of tables"
)]
fn find_table(
    name: &ObjectName,
    ctes: &BTreeSet<String>,
    tables: &Tables,
) -> Result<((Option<String>, String), Option<NamedTable>)> {
    let parts = idents(name);
    let at = parts.first().map_or(Location::empty(), |i| i.span.start);
    let (schema, table) = match parts.as_slice() {
        [table] => (None, table.value.as_str()),
        [schema, table] => (Some(schema.value.as_str()), table.value.as_str()),
        _ => {
            return Err(Error::not_found(format!(
                "{}: no table {name}; a table is named by one word, or as system.name",
                place(at)
            )));
        }
    };
    if schema.is_none() && ctes.contains(table) {
        return Ok(((None, table.to_owned()), None));
    }
    if let Some(found) = tables.get(schema, table) {
        return Ok(((schema.map(str::to_owned), table.to_owned()), Some(found)));
    }
    if schema.is_none()
        && let Some(cte) = unique(ctes, table)
    {
        return Ok(((None, cte.to_owned()), None));
    }
    let names = tables.names();
    let same: Vec<_> = names
        .iter()
        .filter(|(s, n)| {
            n.eq_ignore_ascii_case(table)
                && s.is_some() == schema.is_some()
                && s.zip(schema).is_none_or(|(a, b)| a.eq_ignore_ascii_case(b))
        })
        .collect();
    match same.as_slice() {
        [(found_schema, found)] => {
            let table = tables.get(*found_schema, found);
            Ok(((found_schema.map(str::to_owned), found.clone()), table))
        }
        [] => {
            let spelled = names
                .iter()
                .map(|(s, n)| s.map_or_else(|| n.clone(), |s| format!("{s}.{n}")))
                .chain(ctes.iter().cloned());
            Err(Error::not_found(format!(
                "{}: no table {name}{}",
                place(at),
                nearest(&key_of(name).join("."), spelled)
            )))
        }
        several => {
            let several = several
                .iter()
                .map(|(_, n)| n.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            Err(Error::invalid(format!(
                "{}: the table name {name} could mean {several}: write it in its own case",
                place(at)
            )))
        }
    }
}

/// The only name that equals `wanted` apart from case.
pub(super) fn unique<'a>(names: &'a BTreeSet<String>, wanted: &str) -> Option<&'a str> {
    let mut same = names.iter().filter(|n| n.eq_ignore_ascii_case(wanted));
    match (same.next(), same.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}
