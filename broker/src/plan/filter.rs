//! From a boolean [`LeafExpr`] to a [`LeafFilter`]: what indexes may answer becomes a [`ColumnPredicate`],
//! anything else is evaluated row by row.
//!
//! A filter keeps the rows for which it is TRUE, so FALSE and NULL need not be told apart, and a negation is
//! carried inward by De Morgan's laws, which hold in three-valued logic.

use crate::functions;
use crate::functions::text_match::{TEXT_MATCH, settings_of};
use crate::leaf_expr::operator_calls;
use crate::multi_value::Test;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use strandline_proto::leaf::{
    BinaryOp, ColumnPredicate, ColumnTest, LeafExpr, LeafFilter, Operand,
};
use strandline_proto::schema::{Schema, virtual_columns};
use strandline_proto::value::Value;

/// The filter that keeps the rows for which `expr` is TRUE.
pub fn to_filter(expr: LeafExpr, schema: &Schema) -> LeafFilter {
    filter(expr, false, schema)
}

fn filter(expr: LeafExpr, negated: bool, schema: &Schema) -> LeafFilter {
    match expr {
        LeafExpr::Not(inner) => filter(*inner, !negated, schema),
        LeafExpr::Binary {
            op: op @ (BinaryOp::And | BinaryOp::Or),
            left,
            right,
        } => {
            let sides = [
                filter(*left, negated, schema),
                filter(*right, negated, schema),
            ];
            if (op == BinaryOp::And) != negated {
                all(sides, schema)
            } else {
                any(sides)
            }
        }
        LeafExpr::Literal(Value::Boolean(value), _) => constant(value != negated),
        LeafExpr::Literal(Value::Null, _) => constant(false),
        other => match predicate(&other, negated, schema) {
            Some(found) => found,
            None if negated => LeafFilter::Expr(LeafExpr::Not(Box::new(other))),
            None => LeafFilter::Expr(other),
        },
    }
}

/// A filter that is always, or never, true.
pub fn constant(value: bool) -> LeafFilter {
    if value {
        LeafFilter::And(Vec::new())
    } else {
        LeafFilter::Or(Vec::new())
    }
}

/// The conjunction, flat, with the two bounds of a single-value column joined into one range. The bounds on a
/// multi-value column stay apart: one element may pass the lower, another the upper.
pub fn all(parts: impl IntoIterator<Item = LeafFilter>, schema: &Schema) -> LeafFilter {
    let mut flat: Vec<LeafFilter> = Vec::new();
    for part in parts {
        match part {
            LeafFilter::And(inner) => inner
                .into_iter()
                .for_each(|f| push_conjunct(&mut flat, f, schema)),
            other => push_conjunct(&mut flat, other, schema),
        }
    }
    match flat.len() {
        1 => flat.remove(0),
        _ => LeafFilter::And(flat),
    }
}

fn push_conjunct(flat: &mut Vec<LeafFilter>, part: LeafFilter, schema: &Schema) {
    if let LeafFilter::Column(ColumnPredicate {
        column,
        test: ColumnTest::Range { low, high },
        negated: false,
    }) = &part
        && schema.column(column).is_none_or(|c| !c.multi_value)
    {
        for earlier in flat.iter_mut() {
            let LeafFilter::Column(ColumnPredicate {
                column: other,
                test:
                    ColumnTest::Range {
                        low: other_low,
                        high: other_high,
                    },
                negated: false,
            }) = earlier
            else {
                continue;
            };
            if other == column && other_low.is_none() && high.is_none() {
                other_low.clone_from(low);
                return;
            }
            if other == column && other_high.is_none() && low.is_none() {
                other_high.clone_from(high);
                return;
            }
        }
    }
    flat.push(part);
}

/// The disjunction, flat, with equalities of one column joined into one IN.
pub fn any(parts: impl IntoIterator<Item = LeafFilter>) -> LeafFilter {
    let mut flat: Vec<LeafFilter> = Vec::new();
    for part in parts {
        match part {
            LeafFilter::Or(inner) => inner.into_iter().for_each(|f| push_disjunct(&mut flat, f)),
            other => push_disjunct(&mut flat, other),
        }
    }
    match flat.len() {
        1 => flat.remove(0),
        _ => LeafFilter::Or(flat),
    }
}

fn push_disjunct(flat: &mut Vec<LeafFilter>, part: LeafFilter) {
    if let LeafFilter::Column(ColumnPredicate {
        column,
        test: ColumnTest::In(values),
        negated: false,
    }) = &part
    {
        for earlier in flat.iter_mut() {
            if let LeafFilter::Column(ColumnPredicate {
                column: other,
                test: ColumnTest::In(others),
                negated: false,
            }) = earlier
                && other == column
            {
                others.extend(values.iter().cloned());
                return;
            }
        }
    }
    flat.push(part);
}

fn column_filter(column: &str, test: ColumnTest, negated: bool) -> LeafFilter {
    LeafFilter::Column(ColumnPredicate {
        column: column.to_owned(),
        test,
        negated,
    })
}

fn predicate(expr: &LeafExpr, negated: bool, schema: &Schema) -> Option<LeafFilter> {
    match expr {
        LeafExpr::Column(name) => {
            let column = schema.column(name)?;
            (!column.multi_value).then(|| {
                column_filter(
                    name,
                    ColumnTest::In(vec![Operand::Literal(Value::Boolean(true))]),
                    negated,
                )
            })
        }
        LeafExpr::IsNull(inner) => match inner.as_ref() {
            LeafExpr::Column(name) => Some(column_filter(name, ColumnTest::IsNull, negated)),
            _ => None,
        },
        LeafExpr::Binary { op, left, right } => comparison(*op, left, right, negated, schema)
            .or_else(|| comparison(swapped(*op)?, right, left, negated, schema)),
        LeafExpr::Call { function, args, .. } => call(function, args, negated, schema),
        _ => None,
    }
}

fn swapped(op: BinaryOp) -> Option<BinaryOp> {
    Some(match op {
        BinaryOp::Lt => BinaryOp::Gt,
        BinaryOp::LtEq => BinaryOp::GtEq,
        BinaryOp::Gt => BinaryOp::Lt,
        BinaryOp::GtEq => BinaryOp::LtEq,
        BinaryOp::Eq | BinaryOp::NotEq => op,
        _ => return None,
    })
}

fn comparison(
    op: BinaryOp,
    left: &LeafExpr,
    right: &LeafExpr,
    negated: bool,
    schema: &Schema,
) -> Option<LeafFilter> {
    let subject = Subject::of(left, schema)?;
    if subject.multi_value {
        return None;
    }
    let test = match op {
        BinaryOp::Eq | BinaryOp::NotEq => ColumnTest::In(vec![subject.exact_operand(right)?]),
        BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::Gt | BinaryOp::GtEq => {
            subject.bound(op, right)?
        }
        _ => return None,
    };
    Some(column_filter(
        subject.column,
        test,
        negated != (op == BinaryOp::NotEq),
    ))
}

fn call(function: &str, args: &[LeafExpr], negated: bool, schema: &Schema) -> Option<LeafFilter> {
    let (first, rest) = args.split_first()?;
    let subject = Subject::of(first, schema)?;
    if function == TEXT_MATCH {
        let test = subject.text_match(rest)?;
        return Some(column_filter(subject.column, test, negated));
    }
    let multi_value_test = Test::of_function(function);
    if subject.multi_value != multi_value_test.is_some() {
        return None;
    }
    let test = match (function, multi_value_test) {
        (operator_calls::IN, _) | (_, Some(Test::Eq | Test::In)) => {
            let has_null = rest
                .iter()
                .any(|e| matches!(e, LeafExpr::Literal(Value::Null, _)));
            if has_null && negated {
                return Some(constant(false));
            }
            let values = rest
                .iter()
                .filter(|e| !matches!(e, LeafExpr::Literal(Value::Null, _)));
            ColumnTest::In(
                values
                    .map(|e| subject.exact_operand(e))
                    .collect::<Option<Vec<_>>>()?,
            )
        }
        (operator_calls::LIKE | operator_calls::ILIKE, _) | (_, Some(Test::Like | Test::ILike)) => {
            ColumnTest::Like {
                pattern: subject.text_operand(rest.first()?)?,
                case_insensitive: function == operator_calls::ILIKE
                    || multi_value_test == Some(Test::ILike),
            }
        }
        (operator_calls::REGEX | operator_calls::REGEX_CASE_INSENSITIVE, _)
        | (_, Some(Test::Regex | Test::IRegex)) => ColumnTest::Regex {
            pattern: subject.text_operand(rest.first()?)?,
            case_insensitive: function == operator_calls::REGEX_CASE_INSENSITIVE
                || multi_value_test == Some(Test::IRegex),
        },
        (functions::JSON_MATCH, _) => ColumnTest::JsonMatch {
            filter: subject.text_operand(rest.first()?)?,
        },
        (_, Some(Test::Lt)) => subject.bound(BinaryOp::Lt, rest.first()?)?,
        (_, Some(Test::LtEq)) => subject.bound(BinaryOp::LtEq, rest.first()?)?,
        (_, Some(Test::Gt)) => subject.bound(BinaryOp::Gt, rest.first()?)?,
        (_, Some(Test::GtEq)) => subject.bound(BinaryOp::GtEq, rest.first()?)?,
        (_, Some(Test::Between)) => {
            let [low, high] = rest else { return None };
            let (ColumnTest::Range { low, .. }, ColumnTest::Range { high, .. }) = (
                subject.bound(BinaryOp::GtEq, low)?,
                subject.bound(BinaryOp::LtEq, high)?,
            ) else {
                return None;
            };
            ColumnTest::Range { low, high }
        }
        _ => return None,
    };
    Some(column_filter(subject.column, test, negated))
}

/// A column that a predicate is about, perhaps seen through a cast that changes no comparison.
struct Subject<'a> {
    column: &'a str,
    multi_value: bool,
    /// The type of the column's values.
    stored: DataType,
    /// The type it is compared in.
    compared: DataType,
}

impl<'a> Subject<'a> {
    fn of(expr: &'a LeafExpr, schema: &Schema) -> Option<Self> {
        let (name, cast) = match expr {
            LeafExpr::Column(name) => (name, None),
            LeafExpr::Cast {
                expr,
                to,
                safe: false,
            } => match expr.as_ref() {
                LeafExpr::Column(name) => (name, Some(to)),
                _ => return None,
            },
            _ => return None,
        };
        let (stored, multi_value) = match schema.column(name) {
            Some(column) => (column.data_type.arrow(), column.multi_value),
            None => (
                virtual_columns::ALL
                    .iter()
                    .find(|(n, _)| n == name)?
                    .1
                    .clone(),
                false,
            ),
        };
        let compared = match cast {
            None => stored.clone(),
            Some(DataType::List(field)) if multi_value => field.data_type().clone(),
            Some(_) if multi_value => return None,
            Some(to) => to.clone(),
        };
        (stored == compared || widens(&stored, &compared)).then_some(Self {
            column: name,
            multi_value,
            stored,
            compared,
        })
    }

    /// The operand for an exact comparison; none when the cast makes it inexact.
    fn exact_operand(&self, expr: &LeafExpr) -> Option<Operand> {
        match (self.operand(expr)?, &self.compared) {
            // A tick between two milliseconds equals none.
            (Operand::Literal(Value::Long(ticks)), DataType::Timestamp(unit, None)) => {
                let (ms, rest) = to_ms(ticks, *unit)?;
                (rest == 0).then_some(Operand::Literal(Value::Timestamp(ms)))
            }
            (Operand::Parameter(_), DataType::Timestamp(unit, None))
                if *unit != TimeUnit::Millisecond =>
            {
                None
            }
            (operand, _) => Some(operand),
        }
    }

    fn text_operand(&self, expr: &LeafExpr) -> Option<Operand> {
        if !matches!(self.stored, DataType::Utf8) {
            return None;
        }
        match self.operand(expr)? {
            literal @ Operand::Literal(Value::String(_)) => Some(literal),
            parameter @ Operand::Parameter(_) => Some(parameter),
            Operand::Literal(_) => None,
        }
    }

    /// A text query, if how it is asked is fixed.
    fn text_match(&self, rest: &[LeafExpr]) -> Option<ColumnTest> {
        let (query, options) = rest.split_first()?;
        let options = match options {
            [] => None,
            [LeafExpr::Literal(Value::String(options), _)] => Some(options.as_str()),
            _ => return None,
        };
        Some(ColumnTest::TextMatch {
            query: self.text_operand(query)?,
            settings: settings_of(options).ok()?,
        })
    }

    fn bound(&self, op: BinaryOp, expr: &LeafExpr) -> Option<ColumnTest> {
        let mut operand = self.operand(expr)?;
        let mut included = matches!(op, BinaryOp::LtEq | BinaryOp::GtEq);
        let is_low = matches!(op, BinaryOp::Gt | BinaryOp::GtEq);
        if let DataType::Timestamp(unit, None) = &self.compared
            && *unit != TimeUnit::Millisecond
        {
            let Operand::Literal(Value::Long(ticks)) = operand else {
                return None;
            };
            let (ms, rest) = to_ms(ticks, *unit)?;
            // Between two milliseconds: at most the floor, or more than it.
            if rest != 0 {
                included = !is_low;
            }
            operand = Operand::Literal(Value::Timestamp(ms));
        }
        let bound = Some((operand, included));
        Some(if is_low {
            ColumnTest::Range {
                low: bound,
                high: None,
            }
        } else {
            ColumnTest::Range {
                low: None,
                high: bound,
            }
        })
    }

    fn operand(&self, expr: &LeafExpr) -> Option<Operand> {
        match expr {
            LeafExpr::Literal(value, data_type)
                if *data_type == self.compared && !value.is_null() =>
            {
                self.literal_compares_exactly(value)
                    .then(|| Operand::Literal(value.clone()))
            }
            LeafExpr::Parameter(index, data_type) if *data_type == self.compared => self
                .any_value_compares_exactly()
                .then_some(Operand::Parameter(*index)),
            _ => None,
        }
    }

    /// Whether comparing the stored value exactly with any value of the compared type gives what the cast gives.
    fn any_value_compares_exactly(&self) -> bool {
        self.stored == self.compared || !self.compared.is_floating() || self.stored.is_floating()
    }

    fn literal_compares_exactly(&self, value: &Value) -> bool {
        let number = match value {
            Value::Double(v) => *v,
            Value::Float(v) => f64::from(*v),
            _ => return true,
        };
        let exact_below = if self.compared == DataType::Float32 {
            f64::from(1 << 24)
        } else {
            2f64.powi(53)
        };
        self.any_value_compares_exactly()
            || (number.abs() < exact_below && !(number == 0.0 && number.is_sign_negative()))
    }
}

/// Whether a cast keeps every value and its order, apart from large integers that become floats.
fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    match (from, to) {
        (T::Int32, T::Int64 | T::Float64 | T::Float32)
        | (T::Int64, T::Float64)
        | (T::Float32, T::Float64) => true,
        (T::Int32, T::Decimal128(precision, scale)) => {
            i16::from(*precision) - i16::from(*scale) >= 10
        }
        (T::Int64, T::Decimal128(precision, scale)) => {
            i16::from(*precision) - i16::from(*scale) >= 19
        }
        (T::Decimal128(p1, s1), T::Decimal128(p2, s2)) => {
            s2 >= s1 && i16::from(*p2) - i16::from(*s2) >= i16::from(*p1) - i16::from(*s1)
        }
        (T::Utf8, T::Utf8View | T::LargeUtf8) | (T::Binary, T::BinaryView | T::LargeBinary) => true,
        (
            T::Timestamp(TimeUnit::Millisecond, None),
            T::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, None),
        ) => true,
        _ => false,
    }
}

fn to_ms(ticks: i64, unit: TimeUnit) -> Option<(i64, i64)> {
    let per_ms = match unit {
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1_000_000,
        TimeUnit::Second | TimeUnit::Millisecond => return None,
    };
    Some((ticks.div_euclid(per_ms), ticks.rem_euclid(per_ms)))
}

/// Whether a filter keeps every row.
pub fn keeps_all(filter: &LeafFilter) -> bool {
    matches!(filter, LeafFilter::And(parts) if parts.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_proto::schema::{Column, DataType as Type};

    fn bound(column: &str, low: bool) -> LeafFilter {
        let operand = Some((Operand::Literal(Value::Int(5)), false));
        let test = if low {
            ColumnTest::Range {
                low: operand,
                high: None,
            }
        } else {
            ColumnTest::Range {
                low: None,
                high: operand,
            }
        };
        column_filter(column, test, false)
    }

    #[test]
    fn bounds_on_a_multi_value_column_may_be_passed_by_different_elements() {
        let columns = [("one", false), ("many", true)].map(|(name, multi_value)| Column {
            multi_value,
            ..Column::dimension(name, Type::Int)
        });
        let schema = Schema {
            name: "t".to_owned(),
            version: 1,
            columns: columns.into(),
            primary_key: Vec::new(),
        };
        let joined = all([bound("one", true), bound("one", false)], &schema);
        assert!(matches!(joined, LeafFilter::Column(_)));
        let apart = all([bound("many", true), bound("many", false)], &schema);
        assert!(matches!(apart, LeafFilter::And(parts) if parts.len() == 2));
    }
}
