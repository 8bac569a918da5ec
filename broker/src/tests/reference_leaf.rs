//! The simplest leaf that is right: rows in memory, every predicate evaluated value by value, every aggregate
//! folded row by row. What the broker does is tested over it.

use crate::bind::compare::compare;
use crate::leaf_expr::physical_expr;
use crate::literal::{scalar_of, value_of};
use crate::transport::{CatalogSource, LeafContext, LeafTransport, Watermark, Watermarks};
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatchOptions;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, UInt32Array, new_empty_array,
};
use datafusion::arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf;
use datafusion::logical_expr::function::AccumulatorArgs;
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use strandline_proto::catalog::{CatalogSnapshot, TableSnapshot};
use strandline_proto::ids::Half;
use strandline_proto::leaf::{
    AggregateFunction, ColumnPredicate, ColumnTest, GroupKey, LeafAggregate, LeafExplanation,
    LeafFilter, LeafOutput, LeafQuery, Operand, SortKey,
};
use strandline_proto::text::{TextMatcher, Words};
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// Rows in memory, by segment and by stream partition, with all columns and the virtual ones.
#[derive(Debug, Default)]
pub(crate) struct ReferenceLeaf {
    pub(crate) snapshot: Mutex<Arc<CatalogSnapshot>>,
    pub(crate) segments: Mutex<HashMap<(Arc<str>, String), RecordBatch>>,
    /// The rows of a table's only partition; row `i` has offset `i`.
    pub(crate) tails: Mutex<HashMap<Arc<str>, RecordBatch>>,
    pub(crate) watermarks: Mutex<Vec<Watermark>>,
    pub(crate) queries: Mutex<Vec<LeafQuery>>,
    /// So many runs from now answer that a segment is gone.
    pub(crate) gone: AtomicUsize,
    /// Never answers.
    pub(crate) stuck: AtomicUsize,
}

#[async_trait]
impl LeafTransport for ReferenceLeaf {
    fn watermarks(&self, _table: &TableSnapshot) -> Result<Watermarks> {
        Ok(Watermarks {
            partitions: self.watermarks.lock().clone(),
            keys: None,
        })
    }

    async fn run(
        &self,
        query: LeafQuery,
        context: LeafContext,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        self.queries.lock().push(query.clone());
        if self.stuck.load(Atomic::Relaxed) > 0 {
            context.cancel.cancelled().await;
            self.stuck.store(0, Atomic::Relaxed);
            return Err(Error::cancelled("stopped"));
        }
        if self.gone.load(Atomic::Relaxed) > 0 {
            self.gone.fetch_sub(1, Atomic::Relaxed);
            return Err(Error::segment_gone("segment x is gone"));
        }
        let rows = self.visible(&query, &context)?;
        let batch = match &query.work.output {
            LeafOutput::Rows {
                project,
                limit,
                order,
            } => {
                let rows = match limit {
                    Some(limit) => top(&rows, order, *limit, &query)?,
                    None => rows,
                };
                let columns = project
                    .iter()
                    .map(|e| evaluate(e, &rows, &query))
                    .collect::<Result<Vec<_>>>()?;
                made(&query.work.schema, columns, rows.num_rows())?
            }
            LeafOutput::Aggregate { group, aggregates } => {
                aggregate(&rows, group, aggregates, &query)?
            }
        };
        // In two batches, as larger answers come.
        let half = batch.num_rows() / 2;
        let parts = vec![
            Ok(batch.slice(0, half)),
            Ok(batch.slice(half, batch.num_rows() - half)),
        ];
        Ok(futures::stream::iter(parts).boxed())
    }

    fn explain(&self, _query: &LeafQuery) -> Result<LeafExplanation> {
        Ok(LeafExplanation {
            lines: vec!["index: none".into()],
        })
    }
}

impl CatalogSource for ReferenceLeaf {
    fn snapshot(&self) -> Arc<CatalogSnapshot> {
        Arc::clone(&self.snapshot.lock())
    }
}

impl ReferenceLeaf {
    /// The rows that pass coverage and filter.
    fn visible(&self, query: &LeafQuery, context: &LeafContext) -> Result<RecordBatch> {
        let mut parts = Vec::new();
        let segments = self.segments.lock();
        for task in &query.segments {
            let rows = segments
                .get(&(Arc::clone(&query.table), task.name.to_string()))
                .ok_or_else(|| Error::segment_gone("no such segment"))?;
            parts.push((task.half, rows.clone()));
        }
        for task in &query.tails {
            let rows = &self.tails.lock()[&query.table];
            parts.push((
                Half::Realtime,
                rows.slice(
                    task.from_offset as usize,
                    (task.to_offset - task.from_offset) as usize,
                ),
            ));
        }
        let schema = segments
            .iter()
            .find(|((t, _), _)| *t == query.table)
            .map(|(_, b)| b.schema())
            .unwrap();
        let mut kept = Vec::new();
        for (half, rows) in parts {
            context.stats.segments_queried.fetch_add(1, Atomic::Relaxed);
            context
                .stats
                .docs_total
                .fetch_add(rows.num_rows() as u64, Atomic::Relaxed);
            let mut keep = Vec::with_capacity(rows.num_rows());
            for row in 0..rows.num_rows() {
                let covered = match &query.coverage {
                    None => true,
                    Some(coverage) => {
                        let time = cell(&rows, &coverage.column, row);
                        let intervals = match half {
                            Half::Offline => &coverage.offline,
                            Half::Realtime => &coverage.hiding,
                        };
                        let inside = intervals.iter().any(|(s, e)| {
                            compare(&time, s).is_some_and(|o| o != Ordering::Less)
                                && compare(&time, e) == Some(Ordering::Less)
                        });
                        let visible = inside == (half == Half::Offline);
                        if !visible {
                            let hidden = if half == Half::Offline {
                                &context.stats.hidden_offline_rows
                            } else {
                                &context.stats.hidden_realtime_rows
                            };
                            hidden.fetch_add(1, Atomic::Relaxed);
                        }
                        visible
                    }
                };
                keep.push(covered);
            }
            kept.push(filter_record_batch(&rows, &BooleanArray::from(keep)).unwrap());
        }
        let rows = concat_batches(&schema, &kept).unwrap();
        let passes = passing(&query.work.filter, &rows, query)?;
        let rows = filter_record_batch(&rows, &BooleanArray::from(passes)).unwrap();
        context
            .stats
            .docs_matched
            .fetch_add(rows.num_rows() as u64, Atomic::Relaxed);
        Ok(rows)
    }
}

fn made(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
    .map_err(|e| Error::internal(e.to_string()))
}

fn cell(rows: &RecordBatch, column: &str, row: usize) -> Value {
    let array = rows.column_by_name(column).unwrap();
    value_of(&ScalarValue::try_from_array(array, row).unwrap()).unwrap()
}

fn evaluate(
    expr: &strandline_proto::leaf::LeafExpr,
    rows: &RecordBatch,
    query: &LeafQuery,
) -> Result<ArrayRef> {
    let physical = physical_expr(expr, rows.schema_ref(), &query.parameters)?;
    physical
        .evaluate(rows)
        .and_then(|v| v.into_array(rows.num_rows()))
        .map_err(|e| Error::invalid(e.strip_backtrace()))
}

fn passing(filter: &LeafFilter, rows: &RecordBatch, query: &LeafQuery) -> Result<Vec<bool>> {
    let fold = |parts: &[LeafFilter], from: bool| -> Result<Vec<bool>> {
        let mut all = vec![from; rows.num_rows()];
        for part in parts {
            for (a, b) in all.iter_mut().zip(passing(part, rows, query)?) {
                *a = if from { *a && b } else { *a || b };
            }
        }
        Ok(all)
    };
    match filter {
        LeafFilter::And(parts) => fold(parts, true),
        LeafFilter::Or(parts) => fold(parts, false),
        LeafFilter::Column(predicate) => Ok((0..rows.num_rows())
            .map(|row| holds(predicate, &cell(rows, &predicate.column, row), query))
            .collect()),
        LeafFilter::Expr(expr) => Ok(evaluate(expr, rows, query)?
            .as_boolean()
            .iter()
            .map(|v| v == Some(true))
            .collect()),
    }
}

fn holds(predicate: &ColumnPredicate, value: &Value, query: &LeafQuery) -> bool {
    if predicate.test == ColumnTest::IsNull {
        return value.is_null() != predicate.negated;
    }
    match value {
        Value::Null => false,
        value if matches!(predicate.test, ColumnTest::TextMatch { .. }) => {
            test(&predicate.test, value, query) != predicate.negated
        }
        Value::List(values) => {
            values
                .iter()
                .any(|v| !v.is_null() && test(&predicate.test, v, query))
                != predicate.negated
        }
        one => test(&predicate.test, one, query) != predicate.negated,
    }
}

fn test(test: &ColumnTest, value: &Value, query: &LeafQuery) -> bool {
    let operand = |o: &Operand| match o {
        Operand::Literal(v) => v.clone(),
        Operand::Parameter(i) => query.parameters[*i].clone(),
    };
    let order = |o: &Operand| {
        compare(value, &operand(o)).unwrap_or_else(|| panic!("{value:?} against {o:?}"))
    };
    let text = |o: &Operand| match operand(o) {
        Value::String(s) => s,
        other => panic!("{other:?} is no pattern"),
    };
    if let ColumnTest::TextMatch { query, settings } = test {
        let values = match value {
            Value::List(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        let texts = values.iter().filter_map(|value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        });
        let matcher = TextMatcher::new(&text(query), settings).unwrap();
        return matcher.matches(texts, &mut Words::default());
    }
    let Value::String(string) = value else {
        return match test {
            ColumnTest::In(values) => values.iter().any(|o| order(o) == Ordering::Equal),
            ColumnTest::Range { low, high } => in_range(order, low, high),
            other => panic!("{other:?} on {value:?}"),
        };
    };
    match test {
        ColumnTest::In(values) => values.iter().any(|o| order(o) == Ordering::Equal),
        ColumnTest::Range { low, high } => in_range(order, low, high),
        ColumnTest::Like {
            pattern,
            case_insensitive,
        } => {
            let flags = if *case_insensitive { "(?si)" } else { "(?s)" };
            regex::Regex::new(&format!("{flags}^{}$", like_as_regex(&text(pattern))))
                .unwrap()
                .is_match(string)
        }
        ColumnTest::Regex {
            pattern,
            case_insensitive,
        } => regex::RegexBuilder::new(&text(pattern))
            .case_insensitive(*case_insensitive)
            .build()
            .unwrap()
            .is_match(string),
        ColumnTest::JsonMatch { filter } => {
            strandline_proto::json::JsonFilter::parse(&text(filter))
                .unwrap()
                .matches(string)
        }
        ColumnTest::TextMatch { .. } | ColumnTest::IsNull => unreachable!(),
    }
}

fn like_as_regex(pattern: &str) -> String {
    let mut regex = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '\\' => regex.push_str(&regex::escape(&letters.next().unwrap_or('\\').to_string())),
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
    }
    regex
}

fn in_range(
    order: impl Fn(&Operand) -> Ordering,
    low: &Option<(Operand, bool)>,
    high: &Option<(Operand, bool)>,
) -> bool {
    low.as_ref().is_none_or(|(o, included)| {
        order(o) == Ordering::Greater || *included && order(o) == Ordering::Equal
    }) && high.as_ref().is_none_or(|(o, included)| {
        order(o) == Ordering::Less || *included && order(o) == Ordering::Equal
    })
}

fn top(
    rows: &RecordBatch,
    order: &[SortKey],
    limit: usize,
    query: &LeafQuery,
) -> Result<RecordBatch> {
    let mut keys = Vec::new();
    for key in order {
        keys.push((evaluate(&key.expr, rows, query)?, key));
    }
    let mut picked: Vec<u32> = (0..rows.num_rows() as u32).collect();
    picked.sort_by(|a, b| {
        for (array, key) in &keys {
            let (a, b) = (
                ScalarValue::try_from_array(array, *a as usize).unwrap(),
                ScalarValue::try_from_array(array, *b as usize).unwrap(),
            );
            let ordering = match (a.is_null(), b.is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) => {
                    if key.nulls_first {
                        Ordering::Less
                    } else {
                        Ordering::Greater
                    }
                }
                (false, true) => {
                    if key.nulls_first {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    }
                }
                (false, false) => {
                    let ordering = compare(&value_of(&a).unwrap(), &value_of(&b).unwrap()).unwrap();
                    if key.descending {
                        ordering.reverse()
                    } else {
                        ordering
                    }
                }
            };
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
        Ordering::Equal
    });
    picked.truncate(limit);
    Ok(take_record_batch(rows, &UInt32Array::from(picked)).unwrap())
}

fn aggregate(
    rows: &RecordBatch,
    group: &[GroupKey],
    aggregates: &[LeafAggregate],
    query: &LeafQuery,
) -> Result<RecordBatch> {
    let scalar = |array: &ArrayRef, row: usize| ScalarValue::try_from_array(array, row).unwrap();
    let keys = group
        .iter()
        .map(|k| evaluate(&k.expr, rows, query))
        .collect::<Result<Vec<_>>>()?;
    let mut order: Vec<Vec<ScalarValue>> = Vec::new();
    let mut members: HashMap<Vec<ScalarValue>, Vec<usize>> = HashMap::new();
    for row in 0..rows.num_rows() {
        let mut combinations = vec![Vec::new()];
        for (key, array) in group.iter().zip(&keys) {
            let values = if key.explode {
                let list = array.as_list::<i32>();
                let ArrowType::List(field) = list.data_type() else {
                    unreachable!()
                };
                let elements = list.value(row);
                if list.is_null(row) || elements.is_empty() {
                    vec![ScalarValue::try_from(field.data_type()).unwrap()]
                } else {
                    (0..elements.len()).map(|i| scalar(&elements, i)).collect()
                }
            } else {
                vec![scalar(array, row)]
            };
            combinations = combinations
                .into_iter()
                .flat_map(|c: Vec<ScalarValue>| {
                    values
                        .iter()
                        .map(move |v| [c.clone(), vec![v.clone()]].concat())
                })
                .collect();
        }
        for key in combinations {
            members
                .entry(key.clone())
                .or_insert_with(|| {
                    order.push(key);
                    Vec::new()
                })
                .push(row);
        }
    }
    if group.is_empty() && order.is_empty() {
        order.push(Vec::new());
        members.insert(Vec::new(), Vec::new());
    }
    let mut columns: Vec<Vec<ScalarValue>> = (0..group.len())
        .map(|i| order.iter().map(|k| k[i].clone()).collect())
        .collect();
    for aggregate in aggregates {
        let argument = aggregate
            .argument
            .as_ref()
            .map(|a| evaluate(a, rows, query))
            .transpose()?;
        let passes = aggregate
            .filter
            .as_ref()
            .map(|f| passing(f, rows, query))
            .transpose()?;
        let first = columns.len();
        let width = if aggregate.function == AggregateFunction::Avg {
            2
        } else {
            1
        };
        columns.extend((0..width).map(|_| Vec::new()));
        for key in &order {
            let values: Vec<ScalarValue> = members[key]
                .iter()
                .filter(|row| passes.as_ref().is_none_or(|p| p[**row]))
                .map(|row| {
                    argument
                        .as_ref()
                        .map_or(ScalarValue::Boolean(Some(true)), |a| scalar(a, *row))
                })
                .filter(|v| !v.is_null())
                .collect();
            let types: Vec<_> = (first..first + width)
                .map(|c| query.work.schema.field(c).data_type())
                .collect();
            for (i, state) in states(aggregate.function, values, &types)?
                .into_iter()
                .enumerate()
            {
                columns[first + i].push(state);
            }
        }
    }
    let arrays = columns
        .into_iter()
        .enumerate()
        .map(|(i, values)| {
            let data_type = query.work.schema.field(i).data_type();
            if values.is_empty() {
                new_empty_array(data_type)
            } else {
                ScalarValue::iter_to_array(values).unwrap()
            }
        })
        .collect();
    made(&query.work.schema, arrays, order.len())
}

fn states(
    function: AggregateFunction,
    values: Vec<ScalarValue>,
    types: &[&ArrowType],
) -> Result<Vec<ScalarValue>> {
    let null = |t: &ArrowType| ScalarValue::try_from(t).unwrap();
    let better = |wanted: Ordering| {
        let mut best: Option<ScalarValue> = None;
        for v in &values {
            let replaces = best.as_ref().is_none_or(|b| {
                compare(&value_of(v).unwrap(), &value_of(b).unwrap()) == Some(wanted)
            });
            if replaces {
                best = Some(v.clone());
            }
        }
        best.unwrap_or_else(|| null(types[0]))
    };
    Ok(match function {
        AggregateFunction::Count => vec![ScalarValue::Int64(Some(values.len() as i64))],
        AggregateFunction::CountDistinct => {
            let ArrowType::List(field) = types[0] else {
                panic!("{types:?}")
            };
            let distinct: HashSet<ScalarValue> = values.into_iter().collect();
            vec![ScalarValue::List(ScalarValue::new_list(
                &distinct.into_iter().collect::<Vec<_>>(),
                field.data_type(),
                true,
            ))]
        }
        AggregateFunction::ApproxDistinct => {
            vec![sketch(&values)]
        }
        AggregateFunction::Min => vec![better(Ordering::Less)],
        AggregateFunction::Max => vec![better(Ordering::Greater)],
        AggregateFunction::Sum => vec![sum(&values, types[0])?],
        AggregateFunction::FinalCountDistinct | AggregateFunction::FinalAvg => {
            panic!("this leaf does not say that it answers whole")
        }
        AggregateFunction::Avg => vec![
            ScalarValue::UInt64((!values.is_empty()).then_some(values.len() as u64)),
            sum(&values, types[1])?,
        ],
    })
}

/// The registers that DataFusion makes of values.
fn sketch(values: &[ScalarValue]) -> ScalarValue {
    let data_type = values
        .first()
        .map_or(ArrowType::Int64, ScalarValue::data_type);
    let field = Arc::new(Field::new("value", data_type, true));
    let schema = Schema::new(vec![Arc::clone(&field)]);
    let mut accumulator = approx_distinct_udaf()
        .accumulator(AccumulatorArgs {
            return_field: Arc::new(Field::new("count", ArrowType::UInt64, true)),
            schema: &schema,
            ignore_nulls: false,
            order_bys: &[],
            is_reversed: false,
            name: "approx_distinct",
            is_distinct: false,
            exprs: &[],
            expr_fields: &[field],
        })
        .unwrap();
    if !values.is_empty() {
        let values = ScalarValue::iter_to_array(values.iter().cloned()).unwrap();
        accumulator.update_batch(&[values]).unwrap();
    }
    accumulator.state().unwrap().remove(0)
}

fn sum(values: &[ScalarValue], data_type: &ArrowType) -> Result<ScalarValue> {
    if values.is_empty() {
        return Ok(ScalarValue::try_from(data_type).unwrap());
    }
    let values = values.iter().map(|v| value_of(v).unwrap());
    let total = match data_type {
        ArrowType::Int64 => Value::Long(values.fold(0, |sum, v| match v {
            Value::Long(v) => sum + v,
            other => panic!("{other:?}"),
        })),
        ArrowType::Float64 => Value::Double(values.fold(0.0, |sum, v| match v {
            Value::Double(v) => sum + v,
            other => panic!("{other:?}"),
        })),
        ArrowType::Decimal128(_, scale) => Value::Decimal {
            unscaled: values.fold(0, |sum, v| match v {
                Value::Decimal { unscaled, .. } => sum + unscaled,
                other => panic!("{other:?}"),
            }),
            scale: *scale,
        },
        other => panic!("{other}"),
    };
    scalar_of(&total, data_type)
}
