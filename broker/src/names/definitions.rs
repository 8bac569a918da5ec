//! What a statement itself defines, and the relations that it refers to.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, TableAlias, TableFactor, Value, Visitor,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use strandline_proto::schema::virtual_columns;

/// All names that the statement itself defines, and the relations it refers to.
#[derive(Default)]
pub(super) struct Definitions {
    pub(super) ctes: BTreeSet<String>,
    pub(super) relations: BTreeSet<String>,
    pub(super) columns: BTreeSet<String>,
    pub(super) references: Vec<ObjectName>,
    pub(super) uses_virtual_columns: bool,
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

/// The virtual column that a name stands for, in any case.
pub(super) fn virtual_column(name: &str) -> Option<&'static str> {
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
