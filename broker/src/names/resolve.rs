//! The passes over the syntax tree.

use super::{REPEAT_MARK, nearest};
use crate::statement::place;
use crate::tables::{NamedTable, Tables};
use datafusion::common::Column;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, Ident, JoinConstraint, JoinOperator,
    ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableAlias, TableFactor, Value, Visit, VisitMut, Visitor, VisitorMut,
    WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
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

fn key_of(name: &ObjectName) -> Vec<String> {
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
fn unique<'a>(names: &'a BTreeSet<String>, wanted: &str) -> Option<&'a str> {
    let mut same = names.iter().filter(|n| n.eq_ignore_ascii_case(wanted));
    match (same.next(), same.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}

/// All names that the statement itself defines, and the relations it refers to.
#[derive(Default)]
struct Definitions {
    ctes: BTreeSet<String>,
    relations: BTreeSet<String>,
    columns: BTreeSet<String>,
    references: Vec<ObjectName>,
    uses_virtual_columns: bool,
}

impl Definitions {
    fn alias(&mut self, alias: &TableAlias) {
        self.relations.insert(alias.name.value.clone());
        self.columns
            .extend(alias.columns.iter().map(|c| c.name.value.clone()));
    }

    fn name(&mut self, ident: &Ident) {
        self.uses_virtual_columns |= virtual_column(&ident.value).is_some();
    }
}

fn virtual_column(name: &str) -> Option<&'static str> {
    virtual_columns::ALL
        .iter()
        .map(|(n, _)| *n)
        .find(|n| n.eq_ignore_ascii_case(name))
}

impl Visitor for Definitions {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|w| &w.cte_tables) {
            self.ctes.insert(cte.alias.name.value.clone());
            self.alias(&cte.alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for item in &select.projection {
            match item {
                SelectItem::ExprWithAlias { alias, .. } => {
                    self.columns.insert(alias.value.clone());
                }
                SelectItem::ExprWithAliases { aliases, .. } => {
                    self.columns.extend(aliases.iter().map(|a| a.value.clone()))
                }
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table {
                name, alias, args, ..
            } => {
                if args.is_none() {
                    self.references.push(name.clone());
                }
                if let Some(alias) = alias {
                    self.alias(alias);
                }
            }
            TableFactor::Derived {
                alias: Some(alias), ..
            }
            | TableFactor::TableFunction {
                alias: Some(alias), ..
            }
            | TableFactor::Function {
                alias: Some(alias), ..
            }
            | TableFactor::UNNEST {
                alias: Some(alias), ..
            }
            | TableFactor::NestedJoin {
                alias: Some(alias), ..
            } => self.alias(alias),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.name(ident),
            Expr::CompoundIdentifier(parts) => parts.iter().for_each(|p| self.name(p)),
            Expr::Value(value) => {
                if let Value::Placeholder(name) = &value.value {
                    self.uses_virtual_columns |= virtual_column(name).is_some();
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

struct Scope {
    relations: BTreeSet<String>,
    columns: BTreeSet<String>,
}

struct Rewriter<'a> {
    scope: &'a Scope,
    renamed: &'a BTreeMap<Vec<String>, (Option<String>, String)>,
    uses_virtual_columns: bool,
    tables: &'a BTreeMap<(Option<String>, String), NamedTable>,
}

fn settle(ident: &mut Ident, names: &BTreeSet<String>) {
    if !names.contains(&ident.value)
        && let Some(found) = unique(names, &ident.value)
    {
        ident.value = found.to_owned();
    }
}

impl Rewriter<'_> {
    fn settle_parts(&self, parts: &mut [Ident]) {
        let Some((last, qualifiers)) = parts.split_last_mut() else {
            return;
        };
        qualifiers
            .iter_mut()
            .for_each(|q| settle(q, &self.scope.relations));
        settle(last, &self.scope.columns);
    }
}

impl Rewriter<'_> {
    /// Spells `*` out over tables of the catalog, which show their virtual columns to this statement and not to `*`.
    /// Left as it is over joins that merge columns.
    fn expand_wildcards(&self, select: &mut Select) {
        let factors: Vec<_> = select
            .from
            .iter()
            .flat_map(|f| std::iter::once(&f.relation).chain(f.joins.iter().map(|j| &j.relation)))
            .collect();
        let merges = select.from.iter().flat_map(|f| &f.joins).any(|j| {
            matches!(
                constraint(&mut j.join_operator.clone()),
                Some(JoinConstraint::Using(_) | JoinConstraint::Natural)
            )
        });
        let Some(expanded) = factors
            .into_iter()
            .map(|f| self.columns_of(f))
            .collect::<Option<Vec<_>>>()
        else {
            return;
        };
        if merges {
            return;
        }
        let items = std::mem::take(&mut select.projection);
        for item in items {
            match &item {
                SelectItem::Wildcard(options)
                    if *options == WildcardAdditionalOptions::default() =>
                {
                    select
                        .projection
                        .extend(expanded.iter().flat_map(|(_, items)| items.iter().cloned()));
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) if *options == WildcardAdditionalOptions::default() => {
                    let wanted = name
                        .0
                        .last()
                        .and_then(ObjectNamePart::as_ident)
                        .map(|i| i.value.as_str())
                        .unwrap_or_default();
                    match expanded
                        .iter()
                        .find(|(q, _)| q.eq_ignore_ascii_case(wanted))
                    {
                        Some((_, items)) => select.projection.extend(items.iter().cloned()),
                        None => select.projection.push(item),
                    }
                }
                _ => select.projection.push(item),
            }
        }
    }

    /// How a table is qualified, and what `*` is over it.
    fn columns_of(&self, factor: &TableFactor) -> Option<(String, Vec<SelectItem>)> {
        let (qualifier, columns) = match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let found = self.renamed.get(&key_of(name))?;
                if alias.as_ref().is_some_and(|a| !a.columns.is_empty()) {
                    return None;
                }
                let qualifier = alias
                    .as_ref()
                    .map_or_else(|| found.1.clone(), |a| a.name.value.clone());
                (qualifier, self.tables.get(found).map(NamedTable::columns))
            }
            TableFactor::Derived {
                alias: Some(alias), ..
            } => (alias.name.value.clone(), None),
            _ => return None,
        };
        let quoted = |value: &str| Ident::with_quote('"', value);
        let items = match columns {
            Some(columns) => columns
                .iter()
                .map(|c| {
                    SelectItem::UnnamedExpr(Expr::CompoundIdentifier(vec![
                        quoted(&qualifier),
                        quoted(c),
                    ]))
                })
                .collect(),
            None => vec![SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(ObjectName::from(vec![quoted(
                    &qualifier,
                )])),
                WildcardAdditionalOptions::default(),
            )],
        };
        Some((qualifier, items))
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if self.uses_virtual_columns {
            self.expand_wildcards(select);
        }
        for item in &mut select.projection {
            match item {
                // The user's own spelling, before names are changed below it.
                SelectItem::UnnamedExpr(expr) if !is_plain(expr, self.uses_virtual_columns) => {
                    let alias = Ident {
                        value: expr.to_string(),
                        quote_style: Some('"'),
                        span: datafusion::sql::sqlparser::tokenizer::Span::empty(),
                    };
                    let expr = expr.clone();
                    *item = SelectItem::ExprWithAlias { expr, alias };
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    _,
                ) => {
                    for part in &mut name.0 {
                        if let ObjectNamePart::Identifier(ident) = part {
                            settle(ident, &self.scope.relations);
                        }
                    }
                }
                _ => {}
            }
        }
        for join in select.from.iter_mut().flat_map(|f| &mut f.joins) {
            if let Some(JoinConstraint::Using(columns)) = constraint(&mut join.join_operator) {
                for part in columns.iter_mut().flat_map(|c| &mut c.0) {
                    if let ObjectNamePart::Identifier(ident) = part {
                        settle(ident, &self.scope.columns);
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        tell_apart(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name, args: None, ..
        } = factor
            && let Some((_, found)) = self.renamed.get(&key_of(name)).cloned()
        {
            let schema = self
                .renamed
                .get(&key_of(name))
                .and_then(|(schema, _)| schema.clone());
            let mut wanted = schema.into_iter().chain([found]);
            for part in &mut name.0 {
                if let (ObjectNamePart::Identifier(ident), Some(value)) = (part, wanted.next()) {
                    ident.value = value;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => settle(ident, &self.scope.columns),
            Expr::CompoundIdentifier(parts) => self.settle_parts(parts),
            Expr::Function(function) => pinot_function(function),
            Expr::Value(value) => {
                if let Value::Placeholder(name) = &value.value
                    && let Some(column) = virtual_column(name)
                {
                    *expr = Expr::Identifier(Ident {
                        value: column.to_owned(),
                        quote_style: Some('"'),
                        span: value.span,
                    });
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Pinot's names of functions that exist under other names.
fn pinot_function(function: &mut Function) {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_mut_slice() else {
        return;
    };
    let renamed = match name.value.to_ascii_lowercase().as_str() {
        "distinctcount" => {
            let FunctionArguments::List(arguments) = &mut function.args else {
                return;
            };
            arguments.duplicate_treatment = Some(DuplicateTreatment::Distinct);
            "count"
        }
        "distinctcounthll" => "approx_distinct",
        "arraylength" => "cardinality",
        "startswith" => "starts_with",
        _ => return,
    };
    name.value = renamed.to_owned();
}

/// Whether a select item is a column by its name alone.
fn is_plain(expr: &Expr, uses_virtual_columns: bool) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Value(value) => {
            matches!(&value.value, Value::Placeholder(name) if uses_virtual_columns && virtual_column(name).is_some())
        }
        _ => false,
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::CrossJoin(c)
        | JoinOperator::Semi(c)
        | JoinOperator::LeftSemi(c)
        | JoinOperator::RightSemi(c)
        | JoinOperator::Anti(c)
        | JoinOperator::LeftAnti(c)
        | JoinOperator::RightAnti(c)
        | JoinOperator::StraightJoin(c) => Some(c),
        _ => None,
    }
}

/// Numbers the later ones of select items with one name, which the planner wants distinct.
fn tell_apart(projection: &mut [SelectItem]) {
    let has_wildcard = projection.iter().any(|i| {
        matches!(
            i,
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
        )
    });
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut repeats = 0;
    for item in projection {
        let (full, name) = match item {
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => {
                (ident.value.clone(), ident.value.clone())
            }
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
                let parts: Vec<_> = parts.iter().map(|p| p.value.clone()).collect();
                (parts.join("."), parts.last().cloned().unwrap_or_default())
            }
            SelectItem::ExprWithAlias { alias, .. } => (alias.value.clone(), alias.value.clone()),
            _ => continue,
        };
        let is_column = matches!(item, SelectItem::UnnamedExpr(_));
        if seen.insert(full) && !(is_column && has_wildcard) {
            continue;
        }
        repeats += 1;
        let alias = Ident {
            value: format!("{name}{REPEAT_MARK}{repeats}"),
            quote_style: Some('"'),
            span: datafusion::sql::sqlparser::tokenizer::Span::empty(),
        };
        *item = match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                SelectItem::ExprWithAlias {
                    expr: expr.clone(),
                    alias,
                }
            }
            _ => continue,
        };
    }
}

/// After planning failed to find `missing`: renames it, where it stands, to the only valid column that equals it apart from case.
pub(crate) fn repair(query: &mut Query, missing: &Column, valid: &[Column]) -> bool {
    let same_relation = |c: &Column| match (&missing.relation, &c.relation) {
        (Some(wanted), Some(found)) => wanted.table().eq_ignore_ascii_case(found.table()),
        (Some(_), None) => false,
        (None, _) => true,
    };
    let same: Vec<_> = valid
        .iter()
        .filter(|c| same_relation(c) && c.name.eq_ignore_ascii_case(&missing.name))
        .collect();
    let distinct: BTreeSet<_> = same
        .iter()
        .map(|c| {
            (
                c.relation.as_ref().map(|r| r.table().to_owned()),
                c.name.clone(),
            )
        })
        .collect();
    let names: BTreeSet<_> = distinct.iter().map(|(_, name)| name).collect();
    let (Some(first), 1) = (distinct.first(), names.len()) else {
        return false;
    };
    if missing.name == first.1 && missing.relation.as_ref().map(|r| r.table()) == first.0.as_deref()
    {
        return false;
    }
    let span = missing
        .spans()
        .first()
        .map(|s| ((s.start.line, s.start.column), (s.end.line, s.end.column)));
    let mut repairer = Repairer {
        missing,
        to: first,
        span,
        changed: false,
    };
    let _ = VisitMut::visit(query, &mut repairer);
    repairer.changed
}

type Spot = ((u64, u64), (u64, u64));

struct Repairer<'a> {
    missing: &'a Column,
    to: &'a (Option<String>, String),
    span: Option<Spot>,
    changed: bool,
}

impl Repairer<'_> {
    fn is_here(&self, ident: &Ident) -> bool {
        let at = (ident.span.start.line, ident.span.start.column);
        self.span
            .is_none_or(|(start, end)| start <= at && at <= end)
    }

    fn rename(&mut self, ident: &mut Ident, to: &str) {
        if ident.value != to {
            ident.value = to.to_owned();
            self.changed = true;
        }
    }
}

impl VisitorMut for Repairer<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let (relation, name) = self.to;
        match expr {
            Expr::Identifier(ident) if ident.value == self.missing.name && self.is_here(ident) => {
                self.rename(ident, name)
            }
            Expr::CompoundIdentifier(parts) => {
                if let [qualifier, column] = parts.as_mut_slice()
                    && column.value == self.missing.name
                    && self
                        .missing
                        .relation
                        .as_ref()
                        .is_some_and(|r| r.table() == qualifier.value)
                    && self.is_here(qualifier)
                {
                    self.rename(column, name);
                    if let Some(relation) = relation {
                        self.rename(qualifier, relation);
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
