//! Star-trees: aggregations over records that were aggregated ahead, where a segment has a tree that can answer.
//!
//! A tree answers when its dimensions are all that filters and group keys ask for, and its measures all that is aggregated.
//! Its records are then read as a segment's rows are: the tree names those that stand for the rows that pass, and
//! the filter's predicates are asked again only where the tree could not decide them.

use super::column::BoundColumn;
use super::expression::{columns_in, columns_of};
use super::filter::{Compiler, Node, PlannedFilter};
use super::scan::Prepared;
use super::segment::SegmentView;
use arrow::datatypes::DataType as ArrowType;
use std::sync::Arc;
use strandline_index::PhysicalType;
use strandline_index::star_tree::Need;
use strandline_proto::leaf::{
    AggregateFunction, BinaryOp, GroupKey, LeafAggregate, LeafExpr, LeafFilter, LeafQuery,
};
use strandline_proto::schema::{DataType, Schema};
use strandline_proto::{Error, Result};
use strandline_storage::segment::SegmentStarTree;
use strandline_storage::segment::spec::StarMeasure;

/// A tree answers when it has at most this share of the segment's rows to read.
const RECORDS_SHARE_MAX: f64 = 0.5;

/// What an aggregation asks of a star-tree.
pub(super) struct StarQuery {
    /// Columns whose values are asked for: of the filters, group keys and aggregates over dimensions.
    columns: Vec<String>,
    /// For each aggregate what it needs.
    wanted: Vec<Wanted>,
}

/// What an aggregate needs.
#[derive(Debug)]
enum Wanted {
    /// How many rows.
    Rows,
    /// How many values of a column are not null.
    Values(String),
    /// How many elements that are not null a multi-value column's lists have.
    Elements(String),
    /// The sum of a column, or of a multi-value column's elements, and with `mean` how many values it is of.
    Sum { column: String, mean: bool },
    /// The sum of columns of whole numbers, some of them taken away; `narrow`: in arithmetic of 32 bits.
    SumOfSums { terms: Vec<Term>, narrow: bool },
    /// The least or greatest value of a column: by measure, or the column being a dimension.
    Extreme { column: String, max: bool },
    /// The distinct values of a column: by measure, or the column being a dimension.
    Distinct(String),
    /// It is computed from dimensions, however often their values occur.
    Dimensions(Vec<String>),
}

/// A column that is added, or taken away.
#[derive(Debug)]
struct Term {
    column: String,
    negative: bool,
}

/// Measures that stand for an aggregate's argument; none: the argument is computed from dimensions.
pub(super) type Stored = Option<StoredArgument>;

/// Measures that stand for an aggregate's argument.
pub(super) struct StoredArgument {
    /// Sums or extremes, or lists of distinct values. Several, which hold no nulls, are added up, those that are marked taken away.
    pub(super) values: Vec<(Arc<BoundColumn>, bool)>,
    /// How many rows or values a record stands for.
    pub(super) counts: Option<Arc<BoundColumn>>,
}

/// Records that answer for a segment.
pub(super) struct StarAnswer {
    /// The records.
    pub(super) prepared: Prepared,
    /// For each aggregate where its argument comes from.
    pub(super) stored: Vec<Stored>,
    /// How many records.
    pub(super) records: u64,
    /// The tree's dimensions.
    pub(super) tree: Arc<SegmentStarTree>,
}

impl StarQuery {
    /// What `query` asks for; none when no star-tree of `segments` answers such an aggregation, or none is needed.
    pub(super) fn new(
        query: &LeafQuery,
        group: &[GroupKey],
        aggregates: &[LeafAggregate],
        segments: &[Arc<SegmentView>],
    ) -> Option<Self> {
        if segments.iter().all(|s| s.reader.star_trees().is_empty()) {
            return None;
        }
        let mut columns = Vec::new();
        columns_of_filter(&query.work.filter, &mut columns);
        let only_counts = aggregates.iter().all(|aggregate| {
            aggregate.function == AggregateFunction::Count
                && aggregate.argument.is_none()
                && aggregate.filter.is_none()
        });
        if group.is_empty() && columns.is_empty() && only_counts {
            return None;
        }
        for key in group {
            columns_of(&key.expr, &mut columns);
        }
        let mut wanted = Vec::with_capacity(aggregates.len());
        for aggregate in aggregates {
            if let Some(filter) = &aggregate.filter {
                columns_of_filter(filter, &mut columns);
            }
            let want = want(aggregate, &query.schema)?;
            if let Wanted::Dimensions(of_argument) = &want {
                add(of_argument, &mut columns);
            }
            wanted.push(want);
        }
        Some(Self { columns, wanted })
    }

    /// The records of the tree with fewest to read that stand for the rows of `segment`, all of which count, that pass
    /// `filter`, the query's own; none when rows must be read.
    pub(super) fn answer(
        &self,
        filter: &PlannedFilter,
        segment: &SegmentView,
    ) -> Result<Option<StarAnswer>> {
        if segment.reader.valid_docs().is_some() {
            return Ok(None);
        }
        let mut best: Option<StarAnswer> = None;
        for tree in segment.reader.star_trees() {
            let answer = self.records_of(tree, filter, segment);
            let place = |e: Error| e.at(format_args!("segment {}", segment.reader.name()));
            if let Some(answer) = answer.map_err(place)?
                && best.as_ref().is_none_or(|b| answer.records < b.records)
            {
                best = Some(answer);
            }
        }
        let worth = f64::from(segment.num_docs()) * RECORDS_SHARE_MAX;
        Ok(best.filter(|answer| answer.records as f64 <= worth))
    }

    fn records_of(
        &self,
        tree: &Arc<SegmentStarTree>,
        filter: &PlannedFilter,
        segment: &SegmentView,
    ) -> Result<Option<StarAnswer>> {
        let has = |name: &String| tree.dimensions().any(|dimension| dimension == name);
        if !self.columns.iter().all(has) {
            return Ok(None);
        }
        let records = Arc::new(segment.records_of(tree));
        let Some((stored, more)) = self.stored(tree, segment, &records)? else {
            return Ok(None);
        };
        let mut needs: Vec<Need<'_>> = (tree.dimensions())
            .map(|dimension| {
                let is_needed = |name: &String| name == dimension;
                match self.columns.iter().any(is_needed) || more.iter().any(is_needed) {
                    true => Need::Values,
                    false => Need::Free,
                }
            })
            .collect();
        // Predicates that the tree decides, by their dimension, and the others.
        let (mut decided, mut others) = (Vec::new(), Vec::new());
        for conjunct in filter.conjuncts() {
            match Compiler::new(&records).compile(conjunct)? {
                Node::All => {}
                Node::Ids {
                    column,
                    set,
                    negated: false,
                    nulls_pass: false,
                } => decided.push((column, set)),
                node => others.push(node),
            }
        }
        let nothing = others.iter().any(|node| matches!(node, Node::Nothing));
        for (column, set) in &decided {
            let place = tree.dimensions().position(|name| name == column.name);
            if let Some(need) = place.and_then(|place| needs.get_mut(place))
                && !matches!(need, Need::In(_))
            {
                *need = Need::In(set);
            }
        }
        let selection = if nothing {
            Default::default()
        } else {
            let walked = tree.tree().walk(&needs);
            walked.map_err(|e| Error::data_loss(format!("a star-tree: {e}")))?
        };
        // Of several predicates on one dimension the tree decided the first.
        let decides_all = decided
            .iter()
            .enumerate()
            .all(|(i, (column, _))| decided.iter().take(i).all(|(c, _)| c.name != column.name));
        if selection.unchecked || !decides_all {
            others.extend(decided.into_iter().map(|(column, set)| Node::Ids {
                column,
                set,
                negated: false,
                nulls_pass: false,
            }));
        }
        // What may fail on some value comes last.
        others.sort_by_key(|node| matches!(node, Node::Expression(_)));
        let count = selection.len();
        let mut nodes = vec![Node::Docs(selection.records)];
        nodes.extend(others);
        let filter = match nothing {
            true => Node::Nothing,
            false => Node::And(nodes),
        };
        Ok(Some(StarAnswer {
            prepared: Prepared::of_records(records, filter),
            stored,
            records: count,
            tree: Arc::clone(tree),
        }))
    }

    /// Where each aggregate's argument comes from, and which further dimensions they need; none when the tree lacks one.
    fn stored(
        &self,
        tree: &SegmentStarTree,
        segment: &SegmentView,
        records: &SegmentView,
    ) -> Result<Option<(Vec<Stored>, Vec<String>)>> {
        let (mut stored, mut more) = (Vec::with_capacity(self.wanted.len()), Vec::new());
        let column = |measure: &StarMeasure| {
            let reader = tree.measure(measure)?;
            let data_type = match reader.physical() {
                PhysicalType::I64 => DataType::Long,
                PhysicalType::F64 => DataType::Double,
                _ => return None,
            };
            Some(records.add_column(format!("${measure:?}"), data_type, reader))
        };
        let values = |name: &String| -> Result<Option<Arc<BoundColumn>>> {
            if let Some(column) = column(&StarMeasure::Values(name.clone())) {
                return Ok(Some(column));
            }
            // Where no value is null, they are as many as the rows.
            let has_nulls = segment.column(name)?.reader.has_nulls();
            Ok(column(&StarMeasure::Count).filter(|_| !has_nulls))
        };
        let counts = |counts: Option<Arc<BoundColumn>>| {
            counts.map(|counts| StoredArgument {
                values: Vec::new(),
                counts: Some(counts),
            })
        };
        let is_dimension = |name: &String| tree.dimensions().any(|dimension| dimension == name);
        for wanted in &self.wanted {
            let argument = match wanted {
                Wanted::Elements(name) => {
                    let elements = column(&StarMeasure::Values(name.clone()));
                    elements.map(|elements| StoredArgument {
                        values: vec![(elements, false)],
                        counts: None,
                    })
                }
                Wanted::Rows => counts(column(&StarMeasure::Count)),
                Wanted::Values(name) => counts(values(name)?),
                Wanted::Sum { column: name, mean } => {
                    let sums = column(&StarMeasure::Sum(name.clone()));
                    match (sums, mean) {
                        (Some(sums), false) => Some(StoredArgument {
                            values: vec![(sums, false)],
                            counts: None,
                        }),
                        (Some(sums), true) if !may_wrap(segment, name)? => {
                            values(name)?.map(|counts| StoredArgument {
                                values: vec![(sums, false)],
                                counts: Some(counts),
                            })
                        }
                        _ => None,
                    }
                }
                Wanted::SumOfSums { terms, narrow } => {
                    if *narrow && may_wrap_narrow(segment, terms) {
                        return Ok(None);
                    }
                    let mut values = Vec::with_capacity(terms.len());
                    for term in terms {
                        // A null makes the row's sum null, and the other columns' values count no more.
                        let has_nulls = segment.column(&term.column)?.reader.has_nulls();
                        let sums = column(&StarMeasure::Sum(term.column.clone()));
                        let Some(sums) = sums.filter(|_| !has_nulls) else {
                            return Ok(None);
                        };
                        values.push((sums, term.negative));
                    }
                    Some(StoredArgument {
                        values,
                        counts: None,
                    })
                }
                Wanted::Extreme { column: name, max } => {
                    let of = if *max {
                        StarMeasure::Max
                    } else {
                        StarMeasure::Min
                    };
                    match column(&of(name.clone())) {
                        Some(extremes) => Some(StoredArgument {
                            values: vec![(extremes, false)],
                            counts: None,
                        }),
                        None if is_dimension(name) => {
                            more.push(name.clone());
                            stored.push(None);
                            continue;
                        }
                        None => None,
                    }
                }
                // What is among the dimensions anyhow needs no lists.
                Wanted::Distinct(name) if self.columns.contains(name) => {
                    stored.push(None);
                    continue;
                }
                Wanted::Distinct(name) => {
                    let measure = StarMeasure::Distinct(name.clone());
                    match tree.measure(&measure) {
                        Some(reader) => {
                            let data_type = segment.column(name)?.data_type;
                            let lists = format!("${measure:?}");
                            let lists = records.add_column(lists, data_type, reader);
                            Some(StoredArgument {
                                values: vec![(lists, false)],
                                counts: None,
                            })
                        }
                        None if is_dimension(name) => {
                            more.push(name.clone());
                            stored.push(None);
                            continue;
                        }
                        None => None,
                    }
                }
                Wanted::Dimensions(_) => {
                    stored.push(None);
                    continue;
                }
            };
            let Some(argument) = argument else {
                return Ok(None);
            };
            stored.push(Some(argument));
        }
        Ok(Some((stored, more)))
    }
}

/// Whether a sum of the column's whole numbers might not fit 64 bits. A mean adds up floats, which don't wrap.
fn may_wrap(segment: &SegmentView, name: &str) -> Result<bool> {
    let column = segment.column(name)?;
    // As many 32-bit numbers as a segment has documents always fit.
    let fits = [DataType::Int, DataType::Float, DataType::Double];
    if fits.contains(&column.data_type) {
        return Ok(false);
    }
    let largest = (segment.reader.bounds(name))
        .map(|(min, max)| i128::from(min).abs().max(i128::from(max).abs()));
    Ok(largest
        .is_none_or(|largest| largest * i128::from(segment.num_docs()) > i128::from(i64::MAX)))
}

/// Whether adding up and taking away values of the columns might not fit 32 bits.
fn may_wrap_narrow(segment: &SegmentView, terms: &[Term]) -> bool {
    let largest = terms.iter().map(|term| {
        let bounds = segment.reader.bounds(&term.column);
        bounds.map(|(min, max)| min.unsigned_abs().max(max.unsigned_abs()))
    });
    let sum = largest.sum::<Option<u64>>();
    sum.is_none_or(|sum| sum > i32::MAX as u64)
}

fn add(names: &[String], to: &mut Vec<String>) {
    for name in names {
        if !to.contains(name) {
            to.push(name.clone());
        }
    }
}

/// Appends the columns that `filter` names to `out`, each once.
fn columns_of_filter(filter: &LeafFilter, out: &mut Vec<String>) {
    match filter {
        LeafFilter::And(children) | LeafFilter::Or(children) => {
            for child in children {
                columns_of_filter(child, out);
            }
        }
        LeafFilter::Column(predicate) => add(std::slice::from_ref(&predicate.column), out),
        LeafFilter::Expr(expr) => columns_of(expr, out),
    }
}

/// What `aggregate` needs; none when no tree can give it.
fn want(aggregate: &LeafAggregate, schema: &Schema) -> Option<Wanted> {
    let Some(argument) = &aggregate.argument else {
        return (aggregate.function == AggregateFunction::Count).then_some(Wanted::Rows);
    };
    if let Some((function, column)) = of_lists(argument, schema) {
        let column = column.to_owned();
        return match (aggregate.function, function) {
            (AggregateFunction::Sum, "mv_count") => Some(Wanted::Elements(column)),
            (AggregateFunction::Sum, "mv_sum") => Some(Wanted::Sum {
                column,
                mean: false,
            }),
            (AggregateFunction::Min, "mv_min") => Some(Wanted::Extreme { column, max: false }),
            (AggregateFunction::Max, "mv_max") => Some(Wanted::Extreme { column, max: true }),
            _ => None,
        };
    }
    Some(match aggregate.function {
        AggregateFunction::Count => match argument {
            // Of a multi-value column the tree has how many elements, and it is lists that are counted.
            LeafExpr::Column(column) if !schema.column(column)?.multi_value => {
                Wanted::Values(column.clone())
            }
            _ => return None,
        },
        AggregateFunction::Sum | AggregateFunction::Avg | AggregateFunction::FinalAvg => {
            let mean = aggregate.function != AggregateFunction::Sum;
            match summed_column(argument, mean, schema) {
                Some(column) => Wanted::Sum {
                    column: column.to_owned(),
                    mean,
                },
                None if mean => return None,
                None => {
                    let (inner, narrow) = match argument {
                        LeafExpr::Cast {
                            expr,
                            to: ArrowType::Int64,
                            ..
                        } => (&**expr, true),
                        wide => (wide, false),
                    };
                    let mut terms = Vec::new();
                    add_terms(inner, false, narrow, schema, &mut terms)?;
                    Wanted::SumOfSums { terms, narrow }
                }
            }
        }
        AggregateFunction::Min | AggregateFunction::Max => match argument {
            LeafExpr::Column(column) => Wanted::Extreme {
                column: column.clone(),
                max: aggregate.function == AggregateFunction::Max,
            },
            other => Wanted::Dimensions(columns_in(other)),
        },
        AggregateFunction::CountDistinct
        | AggregateFunction::FinalCountDistinct
        | AggregateFunction::ApproxDistinct => match argument {
            LeafExpr::Column(column) => Wanted::Distinct(column.clone()),
            other => Wanted::Dimensions(columns_in(other)),
        },
    })
}

/// The function that `expr` is of a multi-value column's lists, and the column.
fn of_lists<'a>(expr: &'a LeafExpr, schema: &Schema) -> Option<(&'a str, &'a str)> {
    let LeafExpr::Call { function, args, .. } = expr else {
        return None;
    };
    let [LeafExpr::Column(column)] = args.as_slice() else {
        return None;
    };
    let is_list = schema.column(column)?.multi_value;
    is_list.then_some((function.as_str(), column.as_str()))
}

/// The column that a sum or `mean` adds up, where a tree's sum of it is the same: whole numbers as whole numbers, which
/// only a mean may take for floats.
fn summed_column<'a>(expr: &'a LeafExpr, mean: bool, schema: &Schema) -> Option<&'a str> {
    let (inner, to) = match expr {
        LeafExpr::Cast { expr, to, .. } => (&**expr, Some(to)),
        other => (other, None),
    };
    let LeafExpr::Column(name) = inner else {
        return None;
    };
    let fits = match (schema.column(name)?.data_type, to) {
        (DataType::Int, Some(ArrowType::Int64)) | (DataType::Long, None) => !mean,
        (DataType::Int | DataType::Long, Some(ArrowType::Float64)) => mean,
        (DataType::Float, Some(ArrowType::Float64)) | (DataType::Double, None) => true,
        _ => false,
    };
    fits.then_some(name)
}

/// Appends the columns of whole numbers that `expr` adds up and takes away in arithmetic of 64 or (`narrow`) 32 bits; none
/// when it does anything else. Arithmetic of 64 bits wraps as sums do, so it may be done on sums as on values.
fn add_terms(
    expr: &LeafExpr,
    negative: bool,
    narrow: bool,
    schema: &Schema,
    terms: &mut Vec<Term>,
) -> Option<()> {
    match expr {
        LeafExpr::Binary {
            op: op @ (BinaryOp::Plus | BinaryOp::Minus),
            left,
            right,
        } => {
            add_terms(left, negative, narrow, schema, terms)?;
            let negative = negative ^ (*op == BinaryOp::Minus);
            add_terms(right, negative, narrow, schema, terms)
        }
        other => {
            let (column, fits) = match other {
                LeafExpr::Column(name) if narrow => (
                    name.as_str(),
                    schema.column(name)?.data_type == DataType::Int,
                ),
                wide => {
                    let name = summed_column(wide, false, schema)?;
                    let data_type = schema.column(name)?.data_type;
                    let whole = matches!(data_type, DataType::Int | DataType::Long);
                    (name, whole && !narrow)
                }
            };
            fits.then(|| {
                terms.push(Term {
                    column: column.to_owned(),
                    negative,
                });
            })
        }
    }
}
