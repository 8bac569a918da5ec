//! What is asked of tables: leaf queries by their shape, how often each came and what it cost.
//!
//! A shape says which columns a query filters, groups by and aggregates, and not by which values. The log is of this process,
//! bounded, and emptied with it.

use super::expression::columns_in;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use strandline_proto::leaf::{
    AggregateFunction, ColumnTest, LeafAggregate, LeafExpr, LeafFilter, LeafOutput, LeafQuery,
    LeafWork,
};

/// Shapes that are kept; those that took least time go first.
const SHAPES_MAX: usize = 1_000;

/// Which columns a query asks for, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Held against one or several values.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub equal: BTreeSet<String>,
    /// Held against bounds.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub range: BTreeSet<String>,
    /// Held against LIKE patterns, regular expressions and text queries.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub pattern: BTreeSet<String>,
    /// Asked whether they are null.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub null: BTreeSet<String>,
    /// In other expressions that rows must pass.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub expression: BTreeSet<String>,
    /// Grouped by, also within expressions.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub group: BTreeSet<String>,
    /// What is aggregated; none: rows are asked for.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub aggregates: BTreeSet<Aggregated>,
}

/// An aggregate of a [`Shape`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Aggregated {
    /// COUNT, COUNT DISTINCT, SUM, MIN, MAX or AVG.
    pub function: String,
    /// The columns of its argument.
    pub columns: BTreeSet<String>,
    /// Whether the argument is such a column and nothing else.
    pub plain: bool,
}

/// What queries of a shape have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub queries: u64,
    /// Their time in the leaf, in microseconds.
    pub micros: u64,
    /// The longest of them.
    pub micros_max: u64,
    /// Documents that were compared one by one.
    pub docs_scanned: u64,
    /// Documents, or records of star-trees, that passed.
    pub docs_matched: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.queries += other.queries;
        self.micros += other.micros;
        self.micros_max = self.micros_max.max(other.micros_max);
        self.docs_scanned += other.docs_scanned;
        self.docs_matched += other.docs_matched;
    }
}

/// The log.
#[derive(Debug, Default)]
pub struct QueryLog {
    shapes: Mutex<HashMap<(Arc<str>, Shape), Totals>>,
}

impl QueryLog {
    /// Counts a query that took `elapsed`.
    pub(super) fn add(
        &self,
        query: &LeafQuery,
        elapsed: Duration,
        docs_scanned: u64,
        docs_matched: u64,
    ) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let totals = Totals {
            queries: 1,
            micros,
            micros_max: micros,
            docs_scanned,
            docs_matched,
        };
        let key = (Arc::clone(&query.table), Shape::of(&query.work));
        let mut shapes = self.shapes.lock();
        shapes.entry(key).or_default().add(&totals);
        if shapes.len() > SHAPES_MAX {
            let mut times: Vec<u64> = shapes.values().map(|totals| totals.micros).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            let least = times.get(SHAPES_MAX / 2).copied().unwrap_or(0);
            shapes.retain(|_, totals| totals.micros > least);
        }
    }

    /// All shapes by table, those that took most time first.
    pub fn shapes(&self) -> Vec<(Arc<str>, Shape, Totals)> {
        let mut shapes: Vec<_> = (self.shapes.lock().iter())
            .map(|((table, shape), totals)| (Arc::clone(table), shape.clone(), *totals))
            .collect();
        shapes.sort_by(|(a_table, a, a_totals), (b_table, b, b_totals)| {
            let by_time = b_totals.micros.cmp(&a_totals.micros);
            by_time.then_with(|| (a_table, a).cmp(&(b_table, b)))
        });
        shapes
    }
}

impl Shape {
    /// The shape of `work`.
    fn of(work: &LeafWork) -> Self {
        let mut shape = Self::default();
        shape.add_filter(&work.filter);
        match &work.output {
            LeafOutput::Rows { .. } => {}
            LeafOutput::Aggregate { group, aggregates } => {
                for key in group {
                    shape.group.extend(columns_in(&key.expr));
                }
                for aggregate in aggregates {
                    shape.add_aggregate(aggregate);
                }
            }
        }
        shape
    }

    fn add_aggregate(&mut self, aggregate: &LeafAggregate) {
        if let Some(filter) = &aggregate.filter {
            self.add_filter(filter);
        }
        let function = match aggregate.function {
            AggregateFunction::Count => "COUNT",
            AggregateFunction::CountDistinct
            | AggregateFunction::FinalCountDistinct
            | AggregateFunction::ApproxDistinct => "COUNT DISTINCT",
            AggregateFunction::Sum => "SUM",
            AggregateFunction::Min => "MIN",
            AggregateFunction::Max => "MAX",
            AggregateFunction::Avg | AggregateFunction::FinalAvg => "AVG",
        };
        let argument = aggregate.argument.as_ref();
        // A sum of whole numbers is one of them widened.
        let inner = argument.map(|argument| match argument {
            LeafExpr::Cast { expr, .. } => expr,
            other => other,
        });
        self.aggregates.insert(Aggregated {
            function: function.to_owned(),
            columns: argument.into_iter().flat_map(columns_in).collect(),
            plain: matches!(inner, Some(LeafExpr::Column(_))),
        });
    }

    fn add_filter(&mut self, filter: &LeafFilter) {
        match filter {
            LeafFilter::And(children) | LeafFilter::Or(children) => {
                children.iter().for_each(|child| self.add_filter(child));
            }
            LeafFilter::Column(predicate) => {
                let columns = match predicate.test {
                    ColumnTest::In(_) => &mut self.equal,
                    ColumnTest::Range { .. } => &mut self.range,
                    ColumnTest::Like { .. }
                    | ColumnTest::Regex { .. }
                    | ColumnTest::TextMatch { .. } => &mut self.pattern,
                    ColumnTest::IsNull => &mut self.null,
                    ColumnTest::JsonMatch { .. } => &mut self.expression,
                };
                columns.insert(predicate.column.clone());
            }
            LeafFilter::Expr(expr) => self.expression.extend(columns_in(expr)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Schema as ArrowSchema;
    use strandline_proto::leaf::{ColumnPredicate, GroupKey, LEAF_QUERY_VERSION, Operand};
    use strandline_proto::schema::Schema;
    use strandline_proto::value::Value;

    fn query(column: &str, value: i32, group: &str) -> LeafQuery {
        let work = LeafWork {
            filter: LeafFilter::And(vec![LeafFilter::Column(ColumnPredicate {
                column: column.to_owned(),
                test: ColumnTest::In(vec![Operand::Literal(Value::Int(value))]),
                negated: false,
            })]),
            output: LeafOutput::Aggregate {
                group: vec![GroupKey {
                    expr: LeafExpr::Column(group.to_owned()),
                    explode: false,
                }],
                aggregates: vec![LeafAggregate {
                    function: AggregateFunction::Count,
                    argument: None,
                    filter: None,
                }],
            },
            schema: Arc::new(ArrowSchema::empty()),
        };
        LeafQuery {
            version: LEAF_QUERY_VERSION,
            query_id: 1,
            lineage: Default::default(),
            table: "t".into(),
            schema: Arc::new(Schema {
                name: "t".to_owned(),
                version: 1,
                columns: Vec::new(),
                primary_key: Vec::new(),
            }),
            work: Arc::new(work),
            parameters: Vec::new(),
            segments: Vec::new(),
            tails: Vec::new(),
            coverage: None,
            keys_version: None,
            batch_rows_max: 1,
        }
    }

    #[test]
    fn queries_that_differ_in_values_are_of_one_shape() {
        let log = QueryLog::default();
        for (i, micros) in (0..1_000).zip((1..=100).cycle()) {
            log.add(&query("a", i, "b"), Duration::from_micros(micros), 2, 3);
        }
        let kept = query("b", 1, "a");
        log.add(&kept, Duration::from_micros(60_000), 0, 0);
        log.add(&kept, Duration::from_micros(1), 0, 0);
        let [(_, first, dear), (_, second, cheap)] = &log.shapes()[..] else {
            panic!("two shapes");
        };
        assert_eq!(
            (dear.queries, dear.micros, dear.micros_max),
            (2, 60_001, 60_000)
        );
        assert_eq!(first.group, ["a".to_owned()].into());
        assert_eq!((cheap.queries, cheap.micros), (1_000, 50_500));
        assert_eq!((cheap.docs_scanned, cheap.docs_matched), (2_000, 3_000));
        assert_eq!(second.equal, ["a".to_owned()].into());
        let json = serde_json::to_string(second).unwrap();
        assert_eq!(serde_json::from_str::<Shape>(&json).unwrap(), *second);
    }

    #[test]
    fn shapes_are_bounded_and_the_dear_ones_stay() {
        let log = QueryLog::default();
        for i in 0..5_000u64 {
            let column = format!("c{i}");
            log.add(&query(&column, 1, "g"), Duration::from_micros(i), 0, 0);
        }
        let shapes = log.shapes();
        assert!(shapes.len() <= SHAPES_MAX, "{}", shapes.len());
        assert_eq!(shapes[0].2.micros, 4_999);
    }
}
