//! Leaf work in words, for EXPLAIN.

use crate::leaf_expr::{operator, operator_calls};
use std::fmt::{self, Display, Formatter};
use strandline_proto::leaf::{
    AggregateFunction, ColumnPredicate, ColumnTest, GroupKey, LeafAggregate, LeafExpr, LeafFilter,
    LeafOutput, Operand, SortKey,
};
use strandline_proto::value::Value;

/// Shows a part of a leaf query in SQL's words.
pub struct Shown<'a, T>(pub &'a T);

fn list<'a, T: 'a>(
    f: &mut Formatter<'_>,
    items: impl IntoIterator<Item = &'a T>,
    separator: &str,
) -> fmt::Result
where
    Shown<'a, T>: Display,
{
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        Shown(item).fmt(f)?;
    }
    Ok(())
}

impl Display for Shown<'_, Value> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("NULL"),
            Value::Boolean(v) => v.fmt(f),
            Value::Int(v) => v.fmt(f),
            Value::Long(v) => v.fmt(f),
            Value::Float(v) => v.fmt(f),
            Value::Double(v) => v.fmt(f),
            Value::Decimal { unscaled, scale } if *scale <= 0 => write!(
                f,
                "{unscaled}{}",
                "0".repeat(usize::from(scale.unsigned_abs()))
            ),
            Value::Decimal { unscaled, scale } => {
                let digits = format!(
                    "{:0>width$}",
                    unscaled.unsigned_abs(),
                    width = usize::from(scale.unsigned_abs()) + 1
                );
                let (whole, fraction) =
                    digits.split_at(digits.len() - usize::from(scale.unsigned_abs()));
                write!(
                    f,
                    "{}{whole}.{fraction}",
                    if *unscaled < 0 { "-" } else { "" }
                )
            }
            Value::Timestamp(ms) => match chrono::DateTime::from_timestamp_millis(*ms) {
                Some(time) => write!(f, "'{}'", time.format("%Y-%m-%dT%H:%M:%S%.3fZ")),
                None => write!(f, "{ms} ms"),
            },
            Value::String(v) => write!(f, "'{}'", v.replace('\'', "''")),
            Value::Bytes(v) => {
                f.write_str("X'")?;
                for byte in v {
                    write!(f, "{byte:02x}")?;
                }
                f.write_str("'")
            }
            Value::List(values) => {
                f.write_str("[")?;
                list(f, values, ", ")?;
                f.write_str("]")
            }
        }
    }
}

impl Display for Shown<'_, Operand> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Operand::Literal(value) => Shown(value).fmt(f),
            Operand::Parameter(index) => write!(f, "${}", index + 1),
        }
    }
}

impl Display for Shown<'_, ColumnPredicate> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ColumnPredicate {
            column,
            test,
            negated,
        } = self.0;
        let not = if *negated { "NOT " } else { "" };
        match test {
            ColumnTest::In(values) => match values.as_slice() {
                [one] => write!(
                    f,
                    "{column} {} {}",
                    if *negated { "!=" } else { "=" },
                    Shown(one)
                ),
                _ => {
                    write!(f, "{column} {not}IN (")?;
                    list(f, values.iter().take(20), ", ")?;
                    if values.len() > 20 {
                        write!(f, ", ... {} in all", values.len())?;
                    }
                    f.write_str(")")
                }
            },
            ColumnTest::Range { low, high } => {
                let low = low.as_ref().map(|(v, included)| {
                    format!(
                        "{column} {} {}",
                        if *included { ">=" } else { ">" },
                        Shown(v)
                    )
                });
                let high = high.as_ref().map(|(v, included)| {
                    format!(
                        "{column} {} {}",
                        if *included { "<=" } else { "<" },
                        Shown(v)
                    )
                });
                let text = match (low, high) {
                    (Some(low), Some(high)) => format!("{low} AND {high}"),
                    (Some(one), None) | (None, Some(one)) => one,
                    (None, None) => format!("{column} IS NOT NULL"),
                };
                if *negated {
                    write!(f, "NOT ({text})")
                } else {
                    f.write_str(&text)
                }
            }
            ColumnTest::Like {
                pattern,
                case_insensitive,
            } => write!(
                f,
                "{column} {not}{} {}",
                if *case_insensitive { "ILIKE" } else { "LIKE" },
                Shown(pattern)
            ),
            ColumnTest::Regex {
                pattern,
                case_insensitive,
            } => {
                write!(
                    f,
                    "{column} {}~{} {}",
                    if *negated { "!" } else { "" },
                    if *case_insensitive { "*" } else { "" },
                    Shown(pattern)
                )
            }
            ColumnTest::TextMatch { query, .. } => {
                write!(f, "{not}TEXT_MATCH({column}, {})", Shown(query))
            }
            ColumnTest::JsonMatch { filter } => {
                write!(f, "{not}JSON_MATCH({column}, {})", Shown(filter))
            }
            ColumnTest::IsNull => write!(f, "{column} IS {not}NULL"),
        }
    }
}

impl Display for Shown<'_, LeafFilter> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            LeafFilter::And(parts) if parts.is_empty() => f.write_str("true"),
            LeafFilter::Or(parts) if parts.is_empty() => f.write_str("false"),
            LeafFilter::And(parts) => list(f, parts, " AND "),
            LeafFilter::Or(parts) => {
                f.write_str("(")?;
                list(f, parts, " OR ")?;
                f.write_str(")")
            }
            LeafFilter::Column(predicate) => Shown(predicate).fmt(f),
            LeafFilter::Expr(expr) => Shown(expr).fmt(f),
        }
    }
}

impl Display for Shown<'_, LeafExpr> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            LeafExpr::Column(name) => f.write_str(name),
            LeafExpr::Literal(value, _) => Shown(value).fmt(f),
            LeafExpr::Parameter(index, _) => write!(f, "${}", index + 1),
            LeafExpr::Cast { expr, to, safe } => write!(
                f,
                "{}({} AS {to})",
                if *safe { "TRY_CAST" } else { "CAST" },
                Shown(expr.as_ref())
            ),
            LeafExpr::Binary { op, left, right } => write!(
                f,
                "({} {} {})",
                Shown(left.as_ref()),
                operator(*op),
                Shown(right.as_ref())
            ),
            LeafExpr::Not(inner) => write!(f, "NOT {}", Shown(inner.as_ref())),
            LeafExpr::Negative(inner) => write!(f, "-{}", Shown(inner.as_ref())),
            LeafExpr::IsNull(inner) => write!(f, "{} IS NULL", Shown(inner.as_ref())),
            LeafExpr::Case {
                base,
                branches,
                otherwise,
            } => {
                f.write_str("CASE")?;
                if let Some(base) = base {
                    write!(f, " {}", Shown(base.as_ref()))?;
                }
                for (when, then) in branches {
                    write!(f, " WHEN {} THEN {}", Shown(when), Shown(then))?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {}", Shown(otherwise.as_ref()))?;
                }
                f.write_str(" END")
            }
            LeafExpr::Call { function, args, .. } => {
                let infix = match function.as_str() {
                    operator_calls::LIKE => Some("LIKE"),
                    operator_calls::ILIKE => Some("ILIKE"),
                    operator_calls::REGEX => Some("~"),
                    operator_calls::REGEX_CASE_INSENSITIVE => Some("~*"),
                    operator_calls::IN => Some("IN"),
                    _ => None,
                };
                match (infix, args.split_first()) {
                    (Some(infix), Some((first, rest))) => {
                        write!(f, "({} {infix} ", Shown(first))?;
                        list(f, rest, ", ")?;
                    }
                    _ => {
                        write!(f, "{function}(")?;
                        list(f, args, ", ")?;
                    }
                }
                f.write_str(")")
            }
        }
    }
}

impl Display for Shown<'_, GroupKey> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.explode {
            write!(f, "each of {}", Shown(&self.0.expr))
        } else {
            Shown(&self.0.expr).fmt(f)
        }
    }
}

impl Display for Shown<'_, SortKey> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let SortKey {
            expr,
            descending,
            nulls_first,
        } = self.0;
        write!(
            f,
            "{} {} NULLS {}",
            Shown(expr),
            if *descending { "DESC" } else { "ASC" },
            if *nulls_first { "FIRST" } else { "LAST" }
        )
    }
}

impl Display for Shown<'_, LeafAggregate> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (name, distinct) = match self.0.function {
            AggregateFunction::Count => ("count", ""),
            AggregateFunction::CountDistinct | AggregateFunction::FinalCountDistinct => {
                ("count", "DISTINCT ")
            }
            AggregateFunction::ApproxDistinct => ("approx_distinct", ""),
            AggregateFunction::Sum => ("sum", ""),
            AggregateFunction::Min => ("min", ""),
            AggregateFunction::Max => ("max", ""),
            AggregateFunction::Avg | AggregateFunction::FinalAvg => ("avg", ""),
        };
        match &self.0.argument {
            Some(argument) => write!(f, "{name}({distinct}{})", Shown(argument))?,
            None => write!(f, "{name}(*)")?,
        }
        match &self.0.filter {
            Some(filter) => write!(f, " FILTER ({})", Shown(filter)),
            None => Ok(()),
        }
    }
}

impl Display for Shown<'_, LeafOutput> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            LeafOutput::Rows {
                project,
                limit,
                order,
            } => {
                f.write_str("rows=[")?;
                list(f, project, ", ")?;
                f.write_str("]")?;
                if !order.is_empty() {
                    f.write_str(", top by [")?;
                    list(f, order, ", ")?;
                    f.write_str("]")?;
                }
                limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
            }
            LeafOutput::Aggregate { group, aggregates } => {
                f.write_str("group by=[")?;
                list(f, group, ", ")?;
                f.write_str("], aggregates=[")?;
                list(f, aggregates, ", ")?;
                f.write_str("]")
            }
        }
    }
}
