//! What would help the queries of a log: rules over their shapes and the columns' numbers of values.

use crate::leaf::query_log::Shape;
use std::collections::{BTreeMap, BTreeSet};
use strandline_proto::schema::{DataType, Schema, virtual_columns};
use strandline_storage::segment::spec::{Encoding, SegmentSpec};

/// A column below this share of the queries' time is not worth an index.
const SHARE_MIN: f64 = 0.02;
/// Dimensions of the largest tree.
const DIMENSIONS_MAX: usize = 10;
/// A dimension of more values than this share of the rows aggregates nothing.
const DISTINCT_SHARE_MAX: f64 = 0.1;

/// Queries of one shape.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) shape: Shape,
    pub(super) queries: u64,
    pub(super) total_us: u64,
    /// Documents that were looked at.
    pub(super) docs: u64,
}

/// What is known of the table.
pub(super) struct Facts<'a> {
    pub(super) schema: &'a Schema,
    pub(super) spec: &'a SegmentSpec,
    /// Rows of its largest segment.
    pub(super) rows: u64,
    /// Distinct values in that segment, where they are known.
    pub(super) distinct: BTreeMap<String, u64>,
}

/// An index that a column lacks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IndexAdvice {
    /// The key of `tableIndexConfig`.
    pub(super) key: &'static str,
    pub(super) column: String,
    /// Share of the time that went to queries which would use it.
    pub(super) share: f64,
    pub(super) why: String,
}

/// A star-tree.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TreeAdvice {
    pub(super) dimensions: Vec<String>,
    /// As in `functionColumnPairs`.
    pub(super) pairs: BTreeSet<String>,
    /// The shapes that it answers, as numbers of those given.
    pub(super) answers: Vec<usize>,
}

impl Shape {
    /// Columns whose values decide which rows pass.
    pub(super) fn filtered(&self) -> BTreeSet<&String> {
        [
            &self.equal,
            &self.range,
            &self.pattern,
            &self.null,
            &self.expression,
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The shape in words.
    pub(super) fn words(&self) -> String {
        let list = |columns: &BTreeSet<String>, form: &str| {
            columns
                .iter()
                .map(|column| format!("{column}{form}"))
                .collect::<Vec<_>>()
        };
        let mut filters = list(&self.equal, " =");
        filters.extend(list(&self.range, " range"));
        filters.extend(list(&self.pattern, " pattern"));
        filters.extend(list(&self.null, " null"));
        filters.extend(list(&self.expression, " (expression)"));
        let aggregates = self.aggregates.iter().map(|aggregate| {
            let columns: Vec<&str> = aggregate.columns.iter().map(String::as_str).collect();
            match columns.is_empty() {
                true => aggregate.function.clone(),
                false => format!("{}({})", aggregate.function, columns.join(", ")),
            }
        });
        let mut words = aggregates.collect::<Vec<_>>().join(", ");
        if words.is_empty() {
            words.push_str("rows");
        }
        if !filters.is_empty() {
            words = format!("{words} where {}", filters.join(", "));
        }
        if !self.group.is_empty() {
            words = format!("{words} by {}", list(&self.group, "").join(", "));
        }
        words
    }
}

/// The share of the time of all that `asked` hold.
pub(super) fn share(total_us: u64, asked: &[Asked]) -> f64 {
    let all: u64 = asked.iter().map(|a| a.total_us).sum();
    total_us as f64 / (all.max(1)) as f64
}

/// The time of the queries that `is_of` picks, by each column that it names.
fn time_by_column(
    asked: &[Asked],
    columns_of: impl Fn(&Shape) -> Vec<&String>,
) -> BTreeMap<&String, u64> {
    let mut times = BTreeMap::new();
    for of_shape in asked {
        for column in columns_of(&of_shape.shape) {
            *times.entry(column).or_insert(0) += of_shape.total_us;
        }
    }
    times
}

/// Indexes that the table lacks, the most wanted first.
pub(super) fn indexes(asked: &[Asked], facts: &Facts<'_>) -> Vec<IndexAdvice> {
    let mut found = Vec::new();
    let is_sorted = |column: &str| facts.spec.sorted_column.as_deref() == Some(column);
    let known = |column: &str| facts.schema.column(column);
    let mut advise = |key, column: &str, time: u64, why: String| {
        let share = share(time, asked);
        if share >= SHARE_MIN {
            found.push(IndexAdvice {
                key,
                column: column.to_owned(),
                share,
                why,
            });
        }
    };
    for (column, time) in time_by_column(asked, |shape| shape.equal.iter().collect()) {
        let stored = facts.spec.column(column);
        let distinct = facts.distinct.get(column).copied();
        if known(column).is_none() || is_sorted(column) || distinct.is_some_and(|d| d < 2) {
            continue;
        }
        let values = distinct.map_or("values".to_owned(), |d| format!("one of {d} values"));
        match stored.encoding {
            Encoding::Dictionary if !stored.inverted => {
                advise(
                    "invertedIndexColumns",
                    column,
                    time,
                    format!("held against {values}"),
                );
            }
            Encoding::Raw if !stored.bloom && !stored.range => {
                let why = format!(
                    "held against {values}, and has no dictionary: segments without the value are left out"
                );
                advise("bloomFilterColumns", column, time, why);
            }
            _ => {}
        }
    }
    for (column, time) in time_by_column(asked, |shape| shape.range.iter().collect()) {
        let stored = facts.spec.column(column);
        let is_raw = stored.encoding == Encoding::Raw;
        if known(column).is_some() && is_raw && !stored.range && !is_sorted(column) {
            let why = "held against bounds, and has no dictionary".to_owned();
            advise("rangeIndexColumns", column, time, why);
        }
    }
    if facts.spec.sorted_column.is_none() {
        let by_column = time_by_column(asked, |shape| {
            let columns = shape.equal.union(&shape.range);
            columns
                .filter(|c| known(c).is_some_and(|c| !c.multi_value))
                .collect()
        });
        if let Some((column, time)) = by_column.into_iter().max_by_key(|(_, time)| *time) {
            let why = "filtered by most; rows that pass then lie together".to_owned();
            advise("sortedColumn", column, time, why);
        }
    }
    found.sort_by(|a, b| b.share.total_cmp(&a.share));
    found
}

/// A tree for the aggregations that took most time; none when no tree can answer any, or the table has one.
pub(super) fn star_tree(asked: &[Asked], facts: &Facts<'_>) -> Option<TreeAdvice> {
    if !facts.spec.star_trees.is_empty() {
        return None;
    }
    let mut dimensions: BTreeSet<&String> = BTreeSet::new();
    let mut pairs = BTreeSet::new();
    let mut answers = Vec::new();
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(asked[i].total_us));
    for i in order {
        let Some((of_shape, pairs_of_shape)) = wanted(&asked[i].shape, facts) else {
            continue;
        };
        let more: BTreeSet<&String> = dimensions.union(&of_shape).copied().collect();
        if more.len() <= DIMENSIONS_MAX {
            dimensions = more;
            pairs.extend(pairs_of_shape);
            answers.push(i);
        }
    }
    if dimensions.is_empty() {
        return None;
    }
    // What queries filter by stands first, then what has fewest values, so that star nodes save most.
    let times = time_by_column(asked, |shape| shape.filtered().into_iter().collect());
    let mut dimensions: Vec<String> = dimensions.into_iter().cloned().collect();
    dimensions.sort_by_key(|column| {
        let often = times
            .get(column)
            .is_some_and(|&time| share(time, asked) >= SHARE_MIN);
        (!often, facts.distinct.get(column).copied(), column.clone())
    });
    Some(TreeAdvice {
        dimensions,
        pairs,
        answers,
    })
}

/// The dimensions and pairs with which a tree answers `shape`; none when none does.
fn wanted<'a>(shape: &'a Shape, facts: &Facts<'_>) -> Option<(BTreeSet<&'a String>, Vec<String>)> {
    let mut dimensions = shape.filtered();
    dimensions.extend(&shape.group);
    if dimensions.is_empty() || shape.aggregates.is_empty() {
        return None;
    }
    let mut pairs = vec!["COUNT__*".to_owned()];
    for aggregate in &shape.aggregates {
        let column = aggregate.columns.first();
        match (aggregate.function.as_str(), column) {
            ("COUNT", None) => {}
            ("COUNT DISTINCT", _) => dimensions.extend(&aggregate.columns),
            ("SUM" | "MIN" | "MAX" | "AVG" | "COUNT", Some(column)) if aggregate.plain => {
                let column = facts.schema.column(column)?;
                let is_number = matches!(
                    column.data_type,
                    DataType::Int | DataType::Long | DataType::Float | DataType::Double
                );
                if !is_number || column.multi_value {
                    return None;
                }
                pairs.push(format!("{}__{}", aggregate.function, column.name));
            }
            _ => return None,
        }
    }
    let most = (facts.rows as f64 * DISTINCT_SHARE_MAX) as u64;
    let fits = |column: &&String| {
        let known = facts.schema.column(column);
        known.is_some_and(|column| !column.multi_value)
            && facts.distinct.get(*column).is_some_and(|&d| d <= most)
    };
    dimensions.iter().all(fits).then_some((dimensions, pairs))
}

/// Whether the queries of a shape are those of this command.
pub(super) fn is_own(shape: &Shape) -> bool {
    shape.equal.contains(virtual_columns::SEGMENT)
}
