//! Star-trees of drawn tables, and aggregations that they answer.

use crate::combination::operators;
use crate::pool::Domain;
use crate::predicate::Draw;
use crate::query::Query;
use crate::sql::Sql;
use crate::table::{Column, Table};
use serde_json::{Value as Json, json};
use strandline_proto::schema::DataType;

/// A table's tree: dimensions of few values, and what its records have measures of.
pub struct StarTree<'a> {
    /// The dimensions, in the order in which nodes are split.
    pub dimensions: Vec<&'a Column>,
    /// Columns with every measure that they can have.
    pub measured: Vec<&'a Column>,
}

/// The trees of `table`: of every type a dimension is in one of them. None where it lacks columns of few values.
pub fn star_trees(table: &Table) -> Vec<StarTree<'_>> {
    let is_small = |c: &&Column| !c.multi_value && c.domain == Domain::Small;
    let small: Vec<&Column> = table.columns.iter().filter(is_small).collect();
    let is_measured = |c: &&Column| {
        !c.multi_value
            && c.domain != Domain::Edge
            && matches!(
                c.data_type,
                DataType::Int | DataType::Long | DataType::Float | DataType::Double
            )
    };
    let measured: Vec<&Column> = table.columns.iter().filter(is_measured).collect();
    let (even, odd) = (small.iter().step_by(2), small.iter().skip(1).step_by(2));
    [even.copied().collect(), odd.copied().collect()]
        .into_iter()
        .filter(|dimensions: &Vec<&Column>| dimensions.len() >= 3 && !measured.is_empty())
        .map(|dimensions| StarTree {
            dimensions: dimensions.into_iter().take(5).collect(),
            measured: measured.clone(),
        })
        .collect()
}

/// The trees of `table` in its config.
pub fn star_tree_configs(table: &Table) -> Json {
    let config = |tree: &StarTree<'_>| {
        let functions = ["SUM", "AVG", "MIN", "MAX", "COUNT", "DISTINCTCOUNTHLL"];
        let pairs = tree.measured.iter().flat_map(|column| {
            functions.map(|function| Json::from(format!("{function}__{}", column.name)))
        });
        let names = |columns: &[&Column]| -> Json {
            let names = columns.iter().map(|c| c.name.as_str());
            names.collect()
        };
        json!({
            "dimensionsSplitOrder": names(&tree.dimensions),
            "skipStarNodeCreationForDimensions": names(&tree.dimensions[tree.dimensions.len() - 1..]),
            "functionColumnPairs": pairs.chain([json!("COUNT__*")]).collect::<Json>(),
            "maxLeafRecords": 3,
        })
    };
    star_trees(table).iter().map(config).collect()
}

impl Draw<'_> {
    /// An aggregation over the dimensions and measures of a star-tree.
    pub(crate) fn star_tree(&mut self) -> Query {
        let trees = star_trees(self.t);
        let Some(tree) = trees.get(self.below(trees.len().max(1))) else {
            return Query::of(Sql::same("SELECT count(*) FROM {t}"), Vec::new());
        };
        let mut keys: Vec<Sql> = Vec::new();
        for _ in 0..self.below(3) {
            let dimension = tree.dimensions[self.below(tree.dimensions.len())];
            let key = self.named(dimension);
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        let mut columns = keys.clone();
        for _ in 0..1 + self.below(4) {
            let aggregate = self.of_star_tree(tree);
            if !columns.contains(&aggregate) {
                columns.push(aggregate);
            }
        }
        let mut filters = Vec::new();
        for _ in 0..self.below(3) {
            let one = self.on_dimension(tree);
            filters.push(if self.chance(25) {
                let other = self.on_dimension(tree);
                Sql::fill("(@ OR @)", &[&one, &other])
            } else {
                one
            });
        }
        let select = Sql::join(&columns, ", ");
        let mut body = Sql::fill("SELECT @ FROM {t}", &[&select]);
        if !filters.is_empty() {
            let filters = Sql::join(&filters, " AND ");
            body = Sql::fill("@ WHERE @", &[&body, &filters]);
        }
        if !keys.is_empty() {
            let keys = Sql::join(&keys, ", ");
            body = Sql::fill("@ GROUP BY @", &[&body, &keys]);
        }
        self.ordered(body, columns.len(), 40, 20)
    }

    fn on_dimension(&mut self, tree: &StarTree<'_>) -> Sql {
        let column = tree.dimensions[self.below(tree.dimensions.len())];
        let operator = self.one_of(&operators(column.data_type, false));
        self.single(column, operator)
    }

    fn of_star_tree(&mut self, tree: &StarTree<'_>) -> Sql {
        let measured = tree.measured[self.below(tree.measured.len())];
        let measured = self.named(measured);
        let call = match self.below(11) {
            10 => Sql::fill("count(DISTINCT @)", &[&measured]),
            0 | 1 => Sql::same("count(*)"),
            2 => {
                let dimension = tree.dimensions[self.below(tree.dimensions.len())];
                let dimension = self.named(dimension);
                Sql::fill("count(DISTINCT @)", &[&dimension])
            }
            3 => {
                let whole = |c: &&&Column| matches!(c.data_type, DataType::Int | DataType::Long);
                let whole: Vec<&Column> = tree.measured.iter().filter(whole).copied().collect();
                let (a, b) = (self.one_of(&whole), self.one_of(&whole));
                let sum = self.one_of(&["sum(@ - @)", "sum(@ + @)"]);
                Sql::fill(sum, &[&self.named(a), &self.named(b)])
            }
            number => {
                let number = number.min(8) - 1;
                let function = ["sum", "avg", "min", "max", "count"][number - 3];
                Sql::fill(&format!("{function}(@)"), &[&measured])
            }
        };
        if self.chance(15) {
            let filter = self.on_dimension(tree);
            Sql::fill("@ FILTER (WHERE @)", &[&call, &filter])
        } else {
            call
        }
    }
}
