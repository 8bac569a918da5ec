//! Compiles a filter for one segment.

use super::access::{Access, access_in, single};
use super::node::Node;
use super::operand::{Resolved, Test, resolve};
use super::words;
use crate::leaf::expression::{BoundExpression, Expression, columns_in, truths};
use crate::leaf::segment::{SegmentView, column_type};
use std::sync::Arc;
use strandline_index::kernels::IdSet;
use strandline_proto::Result;
use strandline_proto::leaf::{
    ColumnPredicate, ColumnTest, LeafExpr, LeafFilter, LeafQuery, Operand,
};
use strandline_proto::value::Value;

/// Expressions of a dictionary column are evaluated on its values where a document holds one in so many.
const DICTIONARY_SHARE: u32 = 2;

/// A filter made ready for all segments of a query: operands are values of the columns' own types, expressions are prepared.
#[derive(Debug)]
pub(in crate::leaf) enum PlannedFilter {
    /// All of these.
    And(Vec<PlannedFilter>),
    /// Any of these.
    Or(Vec<PlannedFilter>),
    /// A test of a column's values.
    Column {
        /// The column's name.
        column: String,
        /// The test.
        resolved: Resolved,
        /// The predicate as EXPLAIN shows it.
        text: Option<String>,
    },
    /// An expression that must be true.
    Expr {
        /// The expression.
        expression: Arc<Expression>,
        /// The expression as EXPLAIN shows it.
        text: Option<String>,
    },
}

impl PlannedFilter {
    /// Plans `filter` of `query`; with `explain` predicates are shown by what answers them.
    pub(in crate::leaf) fn new(
        filter: &LeafFilter,
        query: &LeafQuery,
        explain: bool,
    ) -> Result<Self> {
        let plan_all = |children: &[LeafFilter]| -> Result<Vec<Self>> {
            let plan = |child| Self::new(child, query, explain);
            children.iter().map(plan).collect()
        };
        Ok(match filter {
            LeafFilter::And(children) => Self::And(plan_all(children)?),
            LeafFilter::Or(children) => Self::Or(plan_all(children)?),
            LeafFilter::Column(predicate) => {
                let (data_type, _) = column_type(&query.schema, &predicate.column)?;
                Self::Column {
                    column: predicate.column.clone(),
                    resolved: resolve(predicate, data_type, &query.parameters)?,
                    text: explain.then(|| describe_predicate(predicate, &query.parameters)),
                }
            }
            LeafFilter::Expr(expr) => Self::Expr {
                expression: Arc::new(Expression::new(expr, &query.schema, &query.parameters)?),
                text: explain.then(|| describe_expr(expr)),
            },
        })
    }

    /// Whether compiling it takes no look at each value of a dictionary.
    pub(in crate::leaf) fn is_cheap(&self) -> bool {
        match self {
            Self::And(children) | Self::Or(children) => children.iter().all(Self::is_cheap),
            Self::Column { resolved, .. } => match resolved {
                Resolved::Never | Resolved::IsNull { .. } => true,
                Resolved::Test { test, .. } => matches!(**test, Test::Values(_)),
                Resolved::Words { .. } => false,
            },
            Self::Expr { expression, .. } => expression.is_of_several_columns(),
        }
    }

    /// What must all be true.
    pub(in crate::leaf) fn conjuncts(&self) -> Vec<&Self> {
        match self {
            Self::And(children) => children.iter().flat_map(Self::conjuncts).collect(),
            other => vec![other],
        }
    }
}

/// Compiles filters of one query for one segment.
pub(in crate::leaf) struct Compiler<'a> {
    /// The segment.
    pub(in crate::leaf) segment: &'a SegmentView,
    /// How each explained predicate is answered, in the order of the filter: its text and what answers it.
    pub(in crate::leaf) paths: Vec<(String, &'static str)>,
}

impl<'a> Compiler<'a> {
    /// A compiler for `segment`.
    pub(in crate::leaf) fn new(segment: &'a SegmentView) -> Self {
        Self {
            segment,
            paths: Vec::new(),
        }
    }

    /// The node of `filter`.
    pub(in crate::leaf) fn compile(&mut self, filter: &PlannedFilter) -> Result<Node> {
        Ok(self.access(filter)?.node)
    }

    fn access(&mut self, filter: &PlannedFilter) -> Result<Access> {
        let (access, text) = match filter {
            PlannedFilter::And(children) => {
                let mut parts = Vec::with_capacity(children.len());
                for child in children {
                    let part = self.access(child)?;
                    // EXPLAIN looks at every predicate; otherwise one that no document passes settles it.
                    let settled = matches!(part.node, Node::Nothing) && self.paths.is_empty();
                    parts.push(part);
                    if settled {
                        break;
                    }
                }
                return Ok(all_of(parts));
            }
            PlannedFilter::Or(children) => {
                let mut parts = Vec::with_capacity(children.len());
                for child in children {
                    parts.push(self.access(child)?);
                }
                return Ok(any_of(parts));
            }
            PlannedFilter::Column {
                column,
                resolved,
                text,
            } => (self.predicate(column, resolved)?, text),
            PlannedFilter::Expr { expression, text } => (self.expression(expression)?, text),
        };
        if let Some(text) = text {
            self.paths.push((text.clone(), access.by));
        }
        Ok(access)
    }

    fn predicate(&self, column: &str, resolved: &Resolved) -> Result<Access> {
        let column = self.segment.column(column)?;
        match resolved {
            Resolved::Never => Ok(Access::new(Node::Nothing, "metadata", 0.0, 0.0)),
            Resolved::IsNull { negated } if !column.reader.has_nulls() => {
                let node = if *negated { Node::All } else { Node::Nothing };
                Ok(Access::new(
                    node,
                    "metadata",
                    0.0,
                    if *negated { 1.0 } else { 0.0 },
                ))
            }
            Resolved::IsNull { negated } => Ok(Access::new(
                Node::Null {
                    column,
                    negated: *negated,
                },
                "null bitmap",
                1.0,
                if *negated { 0.9 } else { 0.1 },
            )),
            Resolved::Words {
                matcher,
                key,
                negated,
            } => words::access(self.segment, column, matcher, key, *negated),
            Resolved::Test { test, negated } => access_in(self.segment, column, test, *negated),
        }
    }

    fn expression(&self, expression: &Arc<Expression>) -> Result<Access> {
        let bound = BoundExpression::new(Arc::clone(expression), self.segment)?;
        let docs = self.segment.num_docs();
        // An error on some value (a division by zero) must not fail rows that other predicates take away:
        // then documents are evaluated.
        if let Some((column, len)) = bound.dictionary_column()
            && u64::from(len) * u64::from(DICTIONARY_SHARE) <= u64::from(docs)
            && let Ok(values) = bound.evaluate_dictionary()
        {
            let passes = truths(&values)?;
            let truth = |i: usize| passes.value(i);
            let set = IdSet::of_flags((0..len as usize).map(truth));
            return Ok(single(
                Arc::clone(column),
                set,
                len,
                false,
                truth(len as usize),
            ));
        }
        Ok(Access::new(
            Node::Expression(bound),
            "expression scan",
            5_000.0,
            0.3,
        ))
    }
}

fn all_of(parts: Vec<Access>) -> Access {
    let mut flat: Vec<Access> = Vec::with_capacity(parts.len());
    for part in parts {
        match part.node {
            Node::All => {}
            Node::Nothing => return Access::new(Node::Nothing, "metadata", 0.0, 0.0),
            _ => flat.push(part),
        }
    }
    // The classic order: what costs least for each document that it takes away comes first.
    let rank = |part: &Access| part.cost / (1.0 - part.share).max(0.001);
    flat.sort_by(|a, b| rank(a).total_cmp(&rank(b)));
    let (mut cost, mut share) = (0.0, 1.0);
    for part in &flat {
        cost += part.cost * share;
        share *= part.share;
    }
    match flat.len() {
        0 => Access::new(Node::All, "metadata", 0.0, 1.0),
        1 => flat.remove(0),
        _ => Access::new(
            Node::And(flat.into_iter().map(|p| p.node).collect()),
            "and",
            cost,
            share,
        ),
    }
}

fn any_of(parts: Vec<Access>) -> Access {
    let mut flat: Vec<Access> = Vec::with_capacity(parts.len());
    for part in parts {
        match part.node {
            Node::Nothing => {}
            Node::All => return Access::new(Node::All, "metadata", 0.0, 1.0),
            _ => flat.push(part),
        }
    }
    flat.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    let cost = flat.iter().map(|p| p.cost).sum();
    let share = 1.0 - flat.iter().map(|p| 1.0 - p.share).product::<f32>();
    match flat.len() {
        0 => Access::new(Node::Nothing, "metadata", 0.0, 0.0),
        1 => flat.remove(0),
        _ => Access::new(
            Node::Or(flat.into_iter().map(|p| p.node).collect()),
            "or",
            cost,
            share,
        ),
    }
}

/// A filter as text, for EXPLAIN.
pub(in crate::leaf) fn describe_filter(filter: &LeafFilter, parameters: &[Value]) -> String {
    let joined = |children: &[LeafFilter], word: &str, empty: &str| match children {
        [] => empty.to_owned(),
        [only] => describe_filter(only, parameters),
        _ => {
            let parts: Vec<_> = children
                .iter()
                .map(|c| describe_filter(c, parameters))
                .collect();
            format!("({})", parts.join(word))
        }
    };
    match filter {
        LeafFilter::And(children) => joined(children, " AND ", "true"),
        LeafFilter::Or(children) => joined(children, " OR ", "false"),
        LeafFilter::Column(predicate) => describe_predicate(predicate, parameters),
        LeafFilter::Expr(expr) => describe_expr(expr),
    }
}

fn describe_predicate(predicate: &ColumnPredicate, parameters: &[Value]) -> String {
    let column = &predicate.column;
    let operand = |operand: &Operand| match super::operand::value_of(operand, parameters) {
        Ok(value) => describe_value(value),
        Err(_) => "?".to_owned(),
    };
    let not = if predicate.negated { "NOT " } else { "" };
    match &predicate.test {
        ColumnTest::In(operands) if operands.len() == 1 => {
            format!(
                "{column} {} {}",
                if predicate.negated { "!=" } else { "=" },
                operands.first().map(operand).unwrap_or_default()
            )
        }
        ColumnTest::In(operands) => {
            let shown: Vec<_> = operands.iter().take(8).map(operand).collect();
            let more = if operands.len() > 8 {
                format!(", ... {} in all", operands.len())
            } else {
                String::new()
            };
            format!("{column} {not}IN ({}{more})", shown.join(", "))
        }
        ColumnTest::Range { low, high } => {
            let low = low.as_ref().map(|(v, included)| {
                format!(
                    "{column} {} {}",
                    if *included { ">=" } else { ">" },
                    operand(v)
                )
            });
            let high = high.as_ref().map(|(v, included)| {
                format!(
                    "{column} {} {}",
                    if *included { "<=" } else { "<" },
                    operand(v)
                )
            });
            let both: Vec<_> = low.into_iter().chain(high).collect();
            if predicate.negated {
                format!("NOT ({})", both.join(" AND "))
            } else {
                both.join(" AND ")
            }
        }
        ColumnTest::Like {
            pattern,
            case_insensitive,
        } => {
            format!(
                "{column} {not}{} {}",
                if *case_insensitive { "ILIKE" } else { "LIKE" },
                operand(pattern)
            )
        }
        ColumnTest::Regex {
            pattern,
            case_insensitive,
        } => {
            let bang = if predicate.negated { "!" } else { "" };
            format!(
                "{column} {bang}~{} {}",
                if *case_insensitive { "*" } else { "" },
                operand(pattern)
            )
        }
        ColumnTest::JsonMatch { filter } => {
            format!("{not}JSON_MATCH({column}, {})", operand(filter))
        }
        ColumnTest::TextMatch { query, .. } => {
            format!("{not}TEXT_MATCH({column}, {})", operand(query))
        }
        ColumnTest::IsNull => format!("{column} IS {not}NULL"),
    }
}

fn describe_value(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Boolean(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Long(v) | Value::Timestamp(v) => v.to_string(),
        Value::Float(v) => v.to_string(),
        Value::Double(v) => v.to_string(),
        Value::Decimal { unscaled, scale } => format!("{unscaled}e{}", -i32::from(*scale)),
        Value::String(v) => format!("'{}'", v.replace('\'', "''")),
        Value::Bytes(v) => format!("x'{}'", hex::encode(v)),
        Value::List(_) => "(list)".to_owned(),
    }
}

fn describe_expr(expr: &LeafExpr) -> String {
    format!("expression over ({})", columns_in(expr).join(", "))
}
