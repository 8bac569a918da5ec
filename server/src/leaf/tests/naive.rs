//! The same queries, one row at a time, from the words of the contract.

use super::generate::{Rows, Table};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take};
use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::approx_distinct::approx_distinct_udaf;
use datafusion::logical_expr::EmitTo;
use datafusion::logical_expr::function::AccumulatorArgs;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_broker::leaf_expr::physical_expr;
use strandline_broker::literal::scalar_of;
use strandline_proto::ids::Half;
use strandline_proto::json::JsonFilter;
use strandline_proto::leaf::*;
use strandline_proto::schema::virtual_columns;
use strandline_proto::text::{TextMatcher, Words};
use strandline_proto::value::Value;

/// A number times 10,000 with its place beside zero, or text: what comparison goes by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Null,
    Number(i128, i8),
    Text(Vec<u8>),
}

pub(super) fn rank(value: &Value) -> Rank {
    let float = |v: f64| {
        if v.is_nan() {
            Rank::Number(i128::MAX, 0)
        } else if v.is_infinite() {
            Rank::Number(if v > 0.0 { i128::MAX - 1 } else { i128::MIN }, 0)
        } else {
            Rank::Number((v * 10_000.0) as i128, 0)
        }
    };
    match value {
        Value::Null | Value::List(_) => Rank::Null,
        Value::Boolean(v) => Rank::Number(i128::from(*v), 0),
        Value::Int(v) => Rank::Number(i128::from(*v) * 10_000, 0),
        Value::Long(v) | Value::Timestamp(v) => Rank::Number(i128::from(*v) * 10_000, 0),
        Value::Float(v) => float(f64::from(*v)),
        Value::Double(v) => float(*v),
        Value::Decimal { unscaled, scale } => {
            Rank::Number(unscaled * 10_i128.pow(4 - *scale as u32), 0)
        }
        Value::String(v) => Rank::Text(v.clone().into_bytes()),
        Value::Bytes(v) => Rank::Text(v.clone()),
    }
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|i| like(&text[i..], rest)),
        ['_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        ['\\', c, rest @ ..] | [c, rest @ ..] => text.first() == Some(c) && like(&text[1..], rest),
    }
}

/// A test on one value; none: NULL.
fn test(value: &Value, test: &ColumnTest, parameters: &[Value]) -> Option<bool> {
    if value.is_null() {
        return None;
    }
    let of = |operand: &Operand| match operand {
        Operand::Literal(value) => value.clone(),
        Operand::Parameter(i) => parameters[*i].clone(),
    };
    match test {
        ColumnTest::In(operands) => {
            let operands: Vec<_> = operands.iter().map(of).collect();
            if operands
                .iter()
                .any(|o| !o.is_null() && rank(o) == rank(value))
            {
                return Some(true);
            }
            if operands.iter().any(Value::is_null) {
                None
            } else {
                Some(false)
            }
        }
        ColumnTest::Range { low, high } => {
            let side = |bound: &Option<(Operand, bool)>, order: Ordering| match bound {
                None => Some(true),
                Some((operand, included)) => {
                    let operand = of(operand);
                    if operand.is_null() {
                        return None;
                    }
                    let found = rank(value).cmp(&rank(&operand));
                    Some(found == order || *included && found == Ordering::Equal)
                }
            };
            match (side(low, Ordering::Greater), side(high, Ordering::Less)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            }
        }
        ColumnTest::Like {
            pattern,
            case_insensitive,
        } => {
            let (Value::String(text), Value::String(pattern)) = (value, of(pattern)) else {
                return None;
            };
            let fold = |s: &str| -> Vec<char> {
                if *case_insensitive {
                    s.to_lowercase().chars().collect()
                } else {
                    s.chars().collect()
                }
            };
            Some(like(&fold(text), &fold(&pattern)))
        }
        ColumnTest::JsonMatch { filter } => {
            let (Value::String(text), Value::String(filter)) = (value, of(filter)) else {
                return None;
            };
            Some(JsonFilter::parse(&filter).unwrap().matches(text))
        }
        ColumnTest::Regex { .. } | ColumnTest::TextMatch { .. } | ColumnTest::IsNull => {
            unreachable!("not generated, or handled before")
        }
    }
}

/// All segments' rows in one batch of stored and virtual columns, and which of them count.
pub(super) struct Whole {
    batch: RecordBatch,
    rows: Vec<Vec<(String, Value)>>,
    live: Vec<bool>,
}

impl Whole {
    pub(super) fn new(table: &Table, coverage: Option<&CoverageFilter>) -> Self {
        let mut rows = Vec::new();
        let mut live = Vec::new();
        for segment in &table.segments {
            for (doc, values) in segment.rows.iter().enumerate() {
                let mut row: Vec<_> = table
                    .schema
                    .columns
                    .iter()
                    .map(|c| c.name.clone())
                    .zip(values.iter().cloned())
                    .collect();
                row.push((
                    virtual_columns::SEGMENT.to_owned(),
                    Value::String(segment.name.clone()),
                ));
                row.push((virtual_columns::DOC_ID.to_owned(), Value::Int(doc as i32)));
                let partition = segment
                    .partition
                    .as_ref()
                    .map_or(Value::Null, |p| Value::Int(p.partition as i32));
                row.push((virtual_columns::PARTITION.to_owned(), partition));
                let offset = segment.partition.as_ref().map_or(Value::Null, |_| {
                    Value::Long((segment.start_offset + doc as u64) as i64)
                });
                row.push((virtual_columns::OFFSET.to_owned(), offset));
                live.push(counts(segment, doc, values, coverage));
                rows.push(row);
            }
        }
        let mut fields: Vec<Field> = table
            .schema
            .columns
            .iter()
            .map(|c| c.arrow_field())
            .collect();
        fields.extend(
            virtual_columns::ALL
                .iter()
                .map(|(name, t)| Field::new(*name, t.clone(), true)),
        );
        let arrays: Vec<ArrayRef> = fields
            .iter()
            .enumerate()
            .map(|(i, field)| {
                let scalars: Vec<_> = rows
                    .iter()
                    .map(|row| scalar_of(&row[i].1, field.data_type()).unwrap())
                    .collect();
                match scalars.is_empty() {
                    true => arrow::array::new_empty_array(field.data_type()),
                    false => ScalarValue::iter_to_array(scalars).unwrap(),
                }
            })
            .collect();
        let batch = RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), arrays).unwrap();
        Self { batch, rows, live }
    }

    fn evaluate(&self, expr: &LeafExpr, parameters: &[Value]) -> ArrayRef {
        let physical = physical_expr(expr, &self.batch.schema(), parameters).unwrap();
        physical
            .evaluate(&self.batch)
            .unwrap()
            .into_array(self.rows.len())
            .unwrap()
    }

    fn passes(&self, filter: &LeafFilter, parameters: &[Value]) -> Vec<bool> {
        let all = |of: &mut dyn FnMut(usize) -> bool| -> Vec<bool> {
            (0..self.rows.len()).map(of).collect()
        };
        match filter {
            LeafFilter::And(children) => {
                let children: Vec<_> = children
                    .iter()
                    .map(|c| self.passes(c, parameters))
                    .collect();
                all(&mut |row| children.iter().all(|c| c[row]))
            }
            LeafFilter::Or(children) => {
                let children: Vec<_> = children
                    .iter()
                    .map(|c| self.passes(c, parameters))
                    .collect();
                all(&mut |row| children.iter().any(|c| c[row]))
            }
            LeafFilter::Expr(expr) => {
                let array = self.evaluate(expr, parameters);
                let truth = array.as_boolean();
                all(&mut |row| truth.is_valid(row) && truth.value(row))
            }
            LeafFilter::Column(predicate) => all(&mut |row| {
                let (_, value) = self.rows[row]
                    .iter()
                    .find(|(name, _)| *name == predicate.column)
                    .unwrap();
                column_passes(predicate, value, parameters)
            }),
        }
    }

    /// The answer's rows, each as text; and how many of them are asked for when any of them will do.
    pub(super) fn answer(&self, query: &LeafQuery) -> (Vec<Vec<String>>, Option<usize>) {
        let passes = self.passes(&query.work.filter, &query.parameters);
        let rows: Vec<usize> = (0..self.rows.len())
            .filter(|&row| passes[row] && self.live[row])
            .collect();
        match &query.work.output {
            LeafOutput::Rows {
                project,
                limit,
                order,
            } => {
                let columns: Vec<_> = project
                    .iter()
                    .map(|e| self.evaluate(e, &query.parameters))
                    .collect();
                let _ = order;
                (
                    rows.iter()
                        .map(|&row| columns.iter().map(|c| text(c, row)).collect())
                        .collect(),
                    *limit,
                )
            }
            LeafOutput::Aggregate { group, aggregates } => {
                (self.aggregate(query, &rows, group, aggregates), None)
            }
        }
    }

    /// The sort keys of the rows that a top-k takes, as text, sorted as the order says.
    pub(super) fn top(&self, query: &LeafQuery, order: &[SortKey], limit: usize) -> Vec<usize> {
        let passes = self.passes(&query.work.filter, &query.parameters);
        let rows: Vec<u32> = (0..self.rows.len())
            .filter(|&row| passes[row] && self.live[row])
            .map(|r| r as u32)
            .collect();
        let indices = arrow::array::UInt32Array::from(rows.clone());
        let columns: Vec<_> = order
            .iter()
            .map(|key| SortColumn {
                values: take(&self.evaluate(&key.expr, &query.parameters), &indices, None).unwrap(),
                options: Some(SortOptions {
                    descending: key.descending,
                    nulls_first: key.nulls_first,
                }),
            })
            .collect();
        let sorted = lexsort_to_indices(&columns, Some(limit)).unwrap();
        sorted
            .values()
            .iter()
            .map(|&i| rows[i as usize] as usize)
            .collect()
    }

    /// Values of an expression for some rows, as text.
    pub(super) fn texts(
        &self,
        exprs: &[LeafExpr],
        query: &LeafQuery,
        rows: &[usize],
    ) -> Vec<Vec<String>> {
        let columns: Vec<_> = exprs
            .iter()
            .map(|e| self.evaluate(e, &query.parameters))
            .collect();
        rows.iter()
            .map(|&row| columns.iter().map(|c| text(c, row)).collect())
            .collect()
    }

    fn aggregate(
        &self,
        query: &LeafQuery,
        rows: &[usize],
        group: &[GroupKey],
        aggregates: &[LeafAggregate],
    ) -> Vec<Vec<String>> {
        let keys: Vec<_> = group
            .iter()
            .map(|key| (self.evaluate(&key.expr, &query.parameters), key.explode))
            .collect();
        let mut groups: BTreeMap<Vec<String>, Vec<usize>> = BTreeMap::new();
        if group.is_empty() {
            groups.insert(Vec::new(), Vec::new());
        }
        for &row in rows {
            let mut combinations = vec![Vec::new()];
            for (array, explode) in &keys {
                let values: Vec<String> = match (array.data_type(), explode) {
                    (ArrowType::List(_), true) => {
                        let list = array.as_list::<i32>();
                        match list.is_null(row) || list.value(row).is_empty() {
                            true => vec!["NULL".to_owned()],
                            false => (0..list.value(row).len())
                                .map(|i| text(&list.value(row), i))
                                .collect(),
                        }
                    }
                    _ => vec![text(array, row)],
                };
                combinations = combinations
                    .into_iter()
                    .flat_map(|c: Vec<String>| {
                        values
                            .iter()
                            .map(move |v| [c.clone(), vec![v.clone()]].concat())
                    })
                    .collect();
            }
            for combination in combinations {
                groups.entry(combination).or_default().push(row);
            }
        }
        let prepared: Vec<_> = aggregates
            .iter()
            .map(|a| {
                let filter = a.filter.as_ref().map(|f| self.passes(f, &query.parameters));
                (
                    a.function,
                    a.argument
                        .as_ref()
                        .map(|e| self.evaluate(e, &query.parameters)),
                    filter,
                )
            })
            .collect();
        groups
            .into_iter()
            .map(|(mut out, rows)| {
                for (function, argument, filter) in &prepared {
                    let rows: Vec<usize> = rows
                        .iter()
                        .copied()
                        .filter(|&row| filter.as_ref().is_none_or(|f| f[row]))
                        .collect();
                    out.extend(state(*function, argument.as_ref(), &rows, group.is_empty()));
                }
                out
            })
            .collect()
    }
}

fn counts(segment: &Rows, doc: usize, values: &[Value], coverage: Option<&CoverageFilter>) -> bool {
    let within = |intervals: &[(Value, Value)]| {
        let time = &values[0];
        let mut intervals = intervals.iter();
        !time.is_null()
            && intervals.any(|(start, end)| rank(start) <= rank(time) && rank(time) < rank(end))
    };
    let answers = match (coverage, segment.half) {
        (None, _) => true,
        (Some(coverage), Half::Offline) => within(&coverage.offline),
        (Some(coverage), Half::Realtime) => !within(&coverage.hiding),
    };
    answers && !segment.invalid.contains(&(doc as u32))
}

fn column_passes(predicate: &ColumnPredicate, value: &Value, parameters: &[Value]) -> bool {
    if predicate.test == ColumnTest::IsNull {
        return value.is_null() != predicate.negated;
    }
    if let (ColumnTest::TextMatch { query, settings }, false) = (&predicate.test, value.is_null()) {
        let (Operand::Literal(Value::String(query)), values) = (
            query,
            match value {
                Value::List(elements) => elements.as_slice(),
                single => std::slice::from_ref(single),
            },
        ) else {
            unreachable!("not generated");
        };
        let texts = values.iter().filter_map(|value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        });
        let matcher = TextMatcher::new(query, settings).unwrap();
        return matcher.matches(texts, &mut Words::default()) != predicate.negated;
    }
    match value {
        Value::Null => false,
        Value::List(elements) => {
            // A NULL operand makes the predicate NULL.
            if never(&predicate.test, predicate.negated, parameters) {
                return false;
            }
            let found: Vec<_> = elements
                .iter()
                .filter(|e| !e.is_null())
                .map(|e| test(e, &predicate.test, parameters))
                .collect();
            match predicate.negated {
                true => found.iter().all(|t| *t == Some(false)),
                false => found.contains(&Some(true)),
            }
        }
        single => test(single, &predicate.test, parameters).is_some_and(|t| t != predicate.negated),
    }
}

fn never(test: &ColumnTest, negated: bool, parameters: &[Value]) -> bool {
    let null = |operand: &Operand| match operand {
        Operand::Literal(value) => value.is_null(),
        Operand::Parameter(i) => parameters[*i].is_null(),
    };
    match test {
        ColumnTest::In(operands) => negated && operands.iter().any(null),
        ColumnTest::Range { low, high } => {
            let bounds: Vec<bool> = low
                .iter()
                .chain(high)
                .map(|(operand, _)| null(operand))
                .collect();
            bounds.contains(&true) && (!negated || bounds.iter().all(|&n| n))
        }
        ColumnTest::JsonMatch { filter } => null(filter),
        _ => false,
    }
}

/// One value as text; the zeros of sums are not told apart.
pub(super) fn text(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    match array.data_type() {
        ArrowType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            let parts: Vec<_> = (0..elements.len()).map(|i| text(&elements, i)).collect();
            format!("[{}]", parts.join(", "))
        }
        _ => match ScalarValue::try_from_array(array, row).unwrap() {
            // A NaN of either sign is a value of its own, here as in Arrow's order.
            ScalarValue::Float64(Some(v)) if v.is_nan() && v.is_sign_negative() => {
                "Float64(-NaN)".to_owned()
            }
            ScalarValue::Float32(Some(v)) if v.is_nan() && v.is_sign_negative() => {
                "Float32(-NaN)".to_owned()
            }
            scalar => scalar_text(&scalar),
        },
    }
}

/// Both zeros are one value.
fn scalar_text(scalar: &ScalarValue) -> String {
    match scalar {
        ScalarValue::Float64(Some(0.0)) => "Float64(0)".to_owned(),
        ScalarValue::Float32(Some(0.0)) => "Float32(0)".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What DataFusion's own accumulators make of values.
pub(in crate::leaf) fn sketch(values: &ArrayRef, one: bool) -> ScalarValue {
    let field = Arc::new(Field::new("value", values.data_type().clone(), true));
    let schema = ArrowSchema::new(vec![Arc::clone(&field)]);
    let function = approx_distinct_udaf();
    let arguments = AccumulatorArgs {
        return_field: Arc::new(Field::new("count", ArrowType::UInt64, true)),
        schema: &schema,
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name: "approx_distinct",
        is_distinct: false,
        exprs: &[],
        expr_fields: &[field],
    };
    if one {
        let mut accumulator = function.accumulator(arguments).unwrap();
        accumulator.update_batch(&[Arc::clone(values)]).unwrap();
        return accumulator.state().unwrap().remove(0);
    }
    let mut accumulator = function.create_groups_accumulator(arguments).unwrap();
    let groups = vec![0; values.len()];
    accumulator
        .update_batch(&[Arc::clone(values)], &groups, None, 1)
        .unwrap();
    let states = accumulator.state(EmitTo::All).unwrap();
    ScalarValue::try_from_array(&states[0], 0).unwrap()
}

/// `one`: the rows are all there are, not those of a group.
fn state(
    function: AggregateFunction,
    argument: Option<&ArrayRef>,
    rows: &[usize],
    one: bool,
) -> Vec<String> {
    let Some(array) = argument else {
        return vec![format!("Int64({})", rows.len())];
    };
    let rows: Vec<usize> = rows
        .iter()
        .copied()
        .filter(|&row| array.is_valid(row))
        .collect();
    let scalar = |row: usize| ScalarValue::try_from_array(array, row).unwrap();
    match function {
        AggregateFunction::Count => vec![format!("Int64({})", rows.len())],
        AggregateFunction::CountDistinct => {
            let mut values: Vec<_> = rows.iter().map(|&row| text(array, row)).collect();
            values.sort();
            values.dedup();
            vec![format!("[{}]", values.join(", "))]
        }
        AggregateFunction::FinalCountDistinct => {
            let values: std::collections::HashSet<_> =
                rows.iter().map(|&row| text(array, row)).collect();
            vec![format!("Int64({})", values.len())]
        }
        AggregateFunction::ApproxDistinct => {
            let indices: UInt32Array = rows.iter().map(|&row| Some(row as u32)).collect();
            let values = take(array, &indices, None).unwrap();
            vec![format!("{:?}", sketch(&values, one))]
        }
        AggregateFunction::FinalAvg => {
            let values = array.as_primitive::<arrow::datatypes::Float64Type>();
            let sum = rows.iter().map(|&row| values.value(row)).sum::<f64>() + 0.0;
            let mean = ScalarValue::Float64(Some(sum / rows.len() as f64));
            vec![if rows.is_empty() {
                "NULL".to_owned()
            } else {
                format!("{mean:?}")
            }]
        }
        AggregateFunction::Sum => vec![sum(array, &rows)],
        AggregateFunction::Avg if rows.is_empty() => vec!["NULL".to_owned(), "NULL".to_owned()],
        AggregateFunction::Avg => vec![format!("UInt64({})", rows.len()), sum(array, &rows)],
        AggregateFunction::Min | AggregateFunction::Max => {
            let order = |a: &ScalarValue, b: &ScalarValue| match (a, b) {
                (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => a.total_cmp(b),
                (ScalarValue::Float32(Some(a)), ScalarValue::Float32(Some(b))) => a.total_cmp(b),
                _ => a.partial_cmp(b).unwrap(),
            };
            let values = rows.iter().map(|&row| scalar(row));
            let found = if function == AggregateFunction::Min {
                values.min_by(order)
            } else {
                values.max_by(order)
            };
            vec![found.map_or("NULL".to_owned(), |v| scalar_text(&v))]
        }
    }
}

fn sum(array: &ArrayRef, rows: &[usize]) -> String {
    use arrow::datatypes::{Decimal128Type, Float64Type, Int64Type};
    if rows.is_empty() {
        return "NULL".to_owned();
    }
    let scalar = match array.data_type() {
        ArrowType::Int64 => ScalarValue::Int64(Some(rows.iter().fold(0i64, |sum, &row| {
            sum.wrapping_add(array.as_primitive::<Int64Type>().value(row))
        }))),
        ArrowType::Float64 => ScalarValue::Float64(Some(
            rows.iter()
                .map(|&row| array.as_primitive::<Float64Type>().value(row))
                .sum::<f64>()
                + 0.0,
        )),
        _ => ScalarValue::Decimal128(
            Some(
                rows.iter()
                    .map(|&row| array.as_primitive::<Decimal128Type>().value(row))
                    .sum(),
            ),
            30,
            2,
        ),
    };
    format!("{scalar:?}")
}
