//! Predicates: every operator on every type, single- and multi-value, and AND, OR and NOT over them.

use crate::combination::{Combination, column_type, operators};
use crate::pool::Domain;
use crate::sql::{Sql, literal_in};
use crate::table::{Column, Table};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;

/// One use of an operator on a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// What was used.
    pub combination: Combination,
    /// Whether the column has nulls.
    pub nullable: bool,
}

/// The state of drawing one query: what is drawn from, and what was used.
///
/// The statement's shape and its literals come from two sources, so that the same shape can be drawn again with other literals.
pub struct Draw<'a> {
    /// The main table.
    pub t: &'a Table,
    /// The joined table.
    pub u: &'a Table,
    /// Decides everything but literals.
    pub shape: StdRng,
    /// Decides literals.
    pub literals: StdRng,
    /// What was used.
    pub uses: Vec<Use>,
    /// Put before column names (`t.`), or empty.
    pub qualifier: &'static str,
}

impl<'a> Draw<'a> {
    /// A draw whose shape and literals follow from the two seeds.
    pub fn new(t: &'a Table, u: &'a Table, shape: u64, literals: u64) -> Self {
        Self {
            t,
            u,
            shape: StdRng::seed_from_u64(shape),
            literals: StdRng::seed_from_u64(literals),
            uses: Vec::new(),
            qualifier: "",
        }
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.shape.random_range(0..100) < percent
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        self.shape.random_range(0..count)
    }

    /// One of `items`.
    pub fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// A column of the main table that `wanted` accepts.
    pub fn column_where(&mut self, wanted: impl Fn(&Column) -> bool) -> &'a Column {
        let t = self.t;
        let fitting: Vec<&Column> = t.columns.iter().filter(|c| wanted(c)).collect();
        fitting[self.below(fitting.len())]
    }

    /// A column's name as an expression.
    pub fn named(&self, column: &Column) -> Sql {
        let name = Sql::same(format!("{}{}", self.qualifier, column.name));
        let float = matches!(column.data_type, DataType::Float | DataType::Double);
        if float && column.domain == Domain::Edge {
            // DuckDB takes -0.0 and 0.0 for the same value.
            name.not_in_duck()
        } else {
            name
        }
    }

    /// A value of `column`, sometimes one that does not occur in it.
    pub fn value(&mut self, column: &Column) -> Value {
        let i = self.literals.random_range(0..column.pool.len());
        let value = column.pool[i].clone();
        if self.literals.random_range(0..25) > 0 || column.domain == Domain::Edge {
            return value;
        }
        match value {
            Value::Int(v) => Value::Int(v + 1),
            Value::Long(v) => Value::Long(v - 1),
            Value::Float(v) => Value::Float(v + 0.125),
            Value::Double(v) => Value::Double(v - 0.25),
            Value::Decimal { unscaled, scale } => Value::Decimal {
                unscaled: unscaled + 1,
                scale,
            },
            Value::Timestamp(v) => Value::Timestamp(v + 1),
            Value::String(v) if column.data_type == DataType::String => {
                Value::String(format!("{v}~"))
            }
            other => other,
        }
    }

    /// A literal of `column`'s type.
    pub fn literal_of(&mut self, column: &Column) -> Sql {
        let value = self.value(column);
        literal_in(column, &value)
    }

    /// Notes that `operator` was used on `column`.
    pub fn note(&mut self, operator: &'static str, column: &Column) {
        self.uses.push(Use {
            combination: Combination {
                operator,
                data_type: column_type(column.data_type, column.multi_value),
                storage: column.storage,
            },
            nullable: column.nulls_percent > 0,
        });
    }

    /// A predicate: one column's, or AND, OR and NOT over others, `depth` deep at most.
    pub fn predicate(&mut self, depth: usize) -> Sql {
        if depth == 0 || self.chance(45) {
            return self.leaf_predicate();
        }
        match self.below(5) {
            0 | 1 => {
                let (a, b) = (self.predicate(depth - 1), self.predicate(depth - 1));
                Sql::fill("(@ OR @)", &[&a, &b])
            }
            2 => {
                let inner = self.predicate(depth - 1);
                Sql::fill("NOT (@)", &[&inner])
            }
            3 => {
                let (a, b) = (self.predicate(depth - 1), self.predicate(depth - 1));
                Sql::fill("(@ AND @)", &[&a, &b])
            }
            _ => {
                let (a, b, c) = (
                    self.predicate(depth - 1),
                    self.leaf_predicate(),
                    self.leaf_predicate(),
                );
                Sql::fill("(@ OR (@ AND NOT @))", &[&a, &b, &c])
            }
        }
    }

    /// A predicate on one column (now and then on two, or on an expression).
    pub fn leaf_predicate(&mut self) -> Sql {
        match self.below(100) {
            0..=19 => {
                let column = self.column_where(|c| c.multi_value);
                let operator = self.one_of(&operators(column.data_type, true));
                self.multi(column, operator)
            }
            20..=21 => self.two_columns(),
            _ => {
                let column = self.column_where(|c| !c.multi_value);
                let operator = self.one_of(&operators(column.data_type, false));
                self.single(column, operator)
            }
        }
    }

    /// One column against another.
    fn two_columns(&mut self) -> Sql {
        let numeric = |c: &Column| {
            !c.multi_value
                && matches!(
                    c.data_type,
                    DataType::Int | DataType::Long | DataType::Float | DataType::Double
                )
        };
        let (a, b) = (self.column_where(numeric), self.column_where(numeric));
        let operator = self.one_of(&["<", ">", "=", "!="]);
        let sql = Sql::fill(
            &format!("@ {operator} @"),
            &[&self.named(a), &self.named(b)],
        );
        // Whole numbers beyond 2^53 are rounded to floats in different ways.
        if a.domain == Domain::Edge || b.domain == Domain::Edge {
            sql.not_in_duck()
        } else {
            sql
        }
    }
}
