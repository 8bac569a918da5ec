//! The second try at a name that planning did not find.

use datafusion::common::Column;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, VisitMut, VisitorMut};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

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
