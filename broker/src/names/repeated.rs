//! Result columns of one name: the planner wants them distinct, the user sees the name.

use datafusion::sql::sqlparser::ast::{Expr, Ident, SelectItem};
use datafusion::sql::sqlparser::tokenizer::Span;
use std::collections::BTreeSet;

/// Stands between a result column's name and the number that tells it from another of the same name.
const REPEAT_MARK: char = '\u{1f}';

/// A result column's name as the user sees it.
pub(crate) fn shown(name: &str) -> &str {
    name.split(REPEAT_MARK).next().unwrap_or(name)
}

/// A text that may hold result columns' names, as the user sees it.
pub(crate) fn shown_text(text: &str) -> String {
    text.chars().filter(|c| *c != REPEAT_MARK).collect()
}

/// Numbers the later ones of select items with one name, which the planner wants distinct.
pub(super) fn tell_apart(projection: &mut [SelectItem]) {
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
            span: Span::empty(),
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
