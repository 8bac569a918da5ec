//! `*` spelled out, for statements that name virtual columns.

use super::resolve::key_of;
use super::rewrite::{Rewriter, constraint};
use crate::tables::NamedTable;
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, ObjectName, ObjectNamePart, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, WildcardAdditionalOptions,
};

impl Rewriter<'_> {
    /// Spells `*` out over tables of the catalog, which show their virtual columns to this statement and not to `*`.
    /// Left as it is over joins that merge columns.
    pub(super) fn expand_wildcards(&self, select: &mut Select) {
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
