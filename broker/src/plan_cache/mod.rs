//! Plans kept by the shape of their statements and bound when they run.
//!
//! A shape is a query in which literals that are compared in WHERE have become placeholders; its key holds the rest of
//! the text, the literals' types, the options that change a plan, and a fingerprint of the catalog's schemas. While such a
//! query is planned its placeholders may only end in a leaf scan, because nothing else can be planned over them: where
//! one does, the shape is remembered as one to plan anew with its literals each time.
//!
//! A text whose outline was seen before (see [`text`]) is not parsed again.
//!
//! *Invariant*: a kept plan holds no segments, no boundary, and none of the literals that differ between its runs.

mod text;

use self::text::{Known, Outline, Source};
use crate::tables::Tables;
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as PlanResult, ScalarValue};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, Expr, ObjectNamePart, Query, Select,
    TableFactor, TimezoneInfo, TypedString, UnaryOperator, Value, ValueWithSpan, Visit, VisitMut,
    Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Location;
use moka::sync::Cache;
use parking_lot::Mutex;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;
use strandline_proto::ids::CatalogVersion;

/// The number of a shape's first placeholder; a client's own begin at 1.
const FIRST: usize = 1_000_001;
/// Items of the longest IN list whose items become placeholders.
const IN_LIST_MAX: usize = 64;
/// Bytes of the longest key that is kept.
const KEY_BYTES_MAX: usize = 16 << 10;
/// Nodes of which a plan may consist to be kept: those that begin anew after their state is reset.
const NODES: [&str; 15] = [
    "LeafExec",
    "AggregateExec",
    "ProjectionExec",
    "FilterExec",
    "SortExec",
    "SortExec(TopK)",
    "SortPreservingMergeExec",
    "CoalescePartitionsExec",
    "RepartitionExec",
    "GlobalLimitExec",
    "LocalLimitExec",
    "UnionExec",
    "UnnestExec",
    "CooperativeExec",
    "PlaceholderRowExec",
];

/// What is known of a shape.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// Its plan.
    Plan(Arc<dyn ExecutionPlan>),
    /// Its literals reach more than a leaf.
    Unfit,
}

/// Plans by shape.
#[derive(Debug)]
pub(crate) struct PlanCache {
    plans: Cache<String, Kept>,
    /// Outlines of texts whose plans were kept, with what is known of them.
    texts: Cache<String, Arc<Known>>,
    fingerprint: Mutex<(CatalogVersion, u64)>,
}

/// What a plan depends on beside its statement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    /// The tables there are.
    pub(crate) tables: &'a Tables,
    /// Whether work is handed to the leaf.
    pub(crate) use_leaf_pushdown: bool,
}

/// A statement's shape, and the literals taken out of it.
#[derive(Debug)]
pub(crate) struct Shape {
    /// The query with placeholders.
    pub(crate) query: Query,
    /// The literals in the order of their placeholders.
    pub(crate) literals: Vec<ScalarValue>,
    /// Where they stand.
    sources: Vec<Source<Location>>,
    /// What the plan is kept under.
    pub(crate) key: String,
}

impl PlanCache {
    /// A cache of at most `plans_max` plans.
    pub(crate) fn new(plans_max: u64) -> Self {
        Self {
            // Under its shape, and under its text.
            plans: Cache::new(plans_max.saturating_mul(2)),
            texts: Cache::new(plans_max),
            fingerprint: Mutex::new((CatalogVersion(u64::MAX), 0)),
        }
    }

    /// What is known of a shape.
    pub(crate) fn get(&self, shape: &Shape) -> Option<Kept> {
        self.plans.get(&shape.key)
    }

    /// Keeps what was found out of a shape.
    pub(crate) fn keep(&self, shape: &Shape, kept: Kept) {
        self.plans.insert(shape.key.clone(), kept);
    }

    /// Remembers the text of a query whose plan is kept, unless it might be cut otherwise than the parser does.
    pub(crate) fn remember(
        &self,
        sql: &str,
        parameters: &[ScalarValue],
        shape: &Shape,
        plan: &Arc<dyn ExecutionPlan>,
        surroundings: Surroundings<'_>,
    ) {
        let Some(outline) = Outline::of(sql) else {
            return;
        };
        let Some(known) = outline.know(sql, shape, parameters) else {
            return;
        };
        let key = self.text_key(&outline, &known, &shape.literals, surroundings);
        self.texts.insert(outline.text, Arc::new(known));
        self.plans.insert(key, Kept::Plan(Arc::clone(plan)));
    }

    /// The plan of a text that differs in its literals only from one that was remembered, and the literals.
    pub(crate) fn recall(
        &self,
        sql: &str,
        parameters: &[ScalarValue],
        surroundings: Surroundings<'_>,
    ) -> Option<(Arc<dyn ExecutionPlan>, Vec<ScalarValue>)> {
        let outline = Outline::of(sql)?;
        let known = self.texts.get(&outline.text)?;
        let literals = known.literals(&outline, parameters)?;
        match self
            .plans
            .get(&self.text_key(&outline, &known, &literals, surroundings))?
        {
            Kept::Plan(plan) => Some((plan, literals)),
            Kept::Unfit => None,
        }
    }

    /// Begins otherwise than any query's text.
    fn text_key(
        &self,
        outline: &Outline<'_>,
        known: &Known,
        literals: &[ScalarValue],
        surroundings: Surroundings<'_>,
    ) -> String {
        let mut key = self.key(literals, surroundings);
        key.push('\u{4}');
        known.add_to(&mut key, outline);
        key
    }

    /// The part of a key that is not the statement: all else that a plan depends on.
    fn key(&self, literals: &[ScalarValue], surroundings: Surroundings<'_>) -> String {
        let mut key = format!(
            "{}\n{}\n",
            self.fingerprint(surroundings.tables),
            surroundings.use_leaf_pushdown
        );
        for literal in literals {
            let _ = write!(key, "{},", literal.data_type());
        }
        key.push('\n');
        key
    }

    /// The shape of a query, or none when its plan can't be kept whatever its literals are.
    pub(crate) fn shape(
        &self,
        query: &Query,
        parameters: &[ScalarValue],
        state: &SessionState,
        surroundings: Surroundings<'_>,
    ) -> Option<Shape> {
        let mut fitness = Fitness { state, fits: true };
        let _ = Visit::visit(query, &mut fitness);
        if !fitness.fits {
            return None;
        }
        let mut query = query.clone();
        let mut extractor = Extractor {
            parameters,
            literals: Vec::new(),
            sources: Vec::new(),
        };
        let _ = VisitMut::visit(&mut query, &mut extractor);
        let Extractor {
            literals, sources, ..
        } = extractor;
        let mut own = OwnPlaceholders { found: false };
        let _ = Visit::visit(&query, &mut own);
        if own.found {
            return None;
        }
        let mut key = self.key(&literals, surroundings);
        let _ = write!(key, "{query}");
        (key.len() <= KEY_BYTES_MAX).then_some(Shape {
            query,
            literals,
            sources,
            key,
        })
    }

    /// Changes whenever a table comes, goes or changes its columns; not when segments do.
    fn fingerprint(&self, tables: &Tables) -> u64 {
        let mut known = self.fingerprint.lock();
        if known.0 != tables.snapshot.version {
            let mut hasher = DefaultHasher::new();
            for (name, table) in &tables.snapshot.tables {
                (
                    name,
                    &table.schema.name,
                    table.schema.version,
                    table.has_offline,
                    table.has_realtime,
                    &table.time_column,
                    &table.text,
                )
                    .hash(&mut hasher);
                for column in &table.schema.columns {
                    (
                        &column.name,
                        column.data_type,
                        column.multi_value,
                        column.not_null,
                        format!("{:?} {:?}", column.role, column.default),
                    )
                        .hash(&mut hasher);
                }
            }
            *known = (tables.snapshot.version, hasher.finish());
        }
        known.1
    }
}

/// Whether a plan can be run more than once, with its states reset in between.
pub(crate) fn can_be_kept(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let mut fits = true;
    let _ = plan.apply(|node| {
        fits &= NODES.contains(&node.name());
        // Its bounds would be those of an earlier run.
        fits &= node
            .downcast_ref::<AggregateExec>()
            .is_none_or(|a| a.dynamic_expressions_produced().is_empty());
        Ok(if fits {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    });
    fits
}

/// The index of a shape's placeholder by its name.
pub(crate) fn literal_index(placeholder: &str) -> Option<usize> {
    placeholder
        .strip_prefix('$')?
        .parse::<usize>()
        .ok()?
        .checked_sub(FIRST)
}

/// Gives a shape's placeholders the types of their literals, in place of what the planner guessed from their surroundings.
pub(crate) fn typed(plan: LogicalPlan, literals: &[ScalarValue]) -> PlanResult<LogicalPlan> {
    plan.transform_up_with_subqueries(|plan| {
        plan.map_expressions(|expr| {
            expr.transform_up(|e| match e {
                PlanExpr::Placeholder(Placeholder { id, field }) => {
                    let literal = literal_index(&id).and_then(|i| literals.get(i));
                    let typed =
                        literal.map(|l| Arc::new(Field::new("literal", l.data_type(), false)));
                    Ok(Transformed::yes(PlanExpr::Placeholder(Placeholder {
                        id,
                        field: typed.or(field),
                    })))
                }
                other => Ok(Transformed::no(other)),
            })
        })
    })
    .data()
}

/// Finds what makes a plan unfit to be kept: functions that change from run to run, and tables that are read while planning.
struct Fitness<'a> {
    state: &'a SessionState,
    fits: bool,
}

impl Visitor for Fitness<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.fits &= match factor {
            TableFactor::Table { name, args, .. } => args.is_none() && name.0.len() == 1,
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => true,
            _ => false,
        };
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            let name = function
                .name
                .0
                .last()
                .and_then(ObjectNamePart::as_ident)
                .map(|i| i.value.to_ascii_lowercase())
                .unwrap_or_default();
            self.fits &= self
                .state
                .scalar_functions()
                .get(&name)
                .is_none_or(|udf| udf.signature().volatility == Volatility::Immutable);
        }
        ControlFlow::Continue(())
    }
}

/// Finds placeholders of the client that are left.
struct OwnPlaceholders {
    found: bool,
}

impl Visitor for OwnPlaceholders {
    type Break = ();

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        if let Value::Placeholder(name) = &value.value {
            // Those that are no numbers name virtual columns.
            self.found |= name.starts_with("$")
                && name[1..].parse::<usize>().is_ok_and(|n| n < FIRST)
                || name == "?";
        }
        ControlFlow::Continue(())
    }
}

/// Takes literals that are compared in WHERE out of a query.
struct Extractor<'a> {
    parameters: &'a [ScalarValue],
    literals: Vec<ScalarValue>,
    sources: Vec<Source<Location>>,
}

impl VisitorMut for Extractor<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let Some(filter) = &mut select.selection {
            self.filter(filter);
        }
        ControlFlow::Continue(())
    }
}

impl Extractor<'_> {
    fn filter(&mut self, expr: &mut Expr) {
        match expr {
            Expr::Nested(inner)
            | Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr: inner,
            } => self.filter(inner),
            Expr::BinaryOp {
                left,
                op: BinaryOperator::And | BinaryOperator::Or,
                right,
            } => {
                self.filter(left);
                self.filter(right);
            }
            Expr::BinaryOp {
                left,
                op:
                    BinaryOperator::Eq
                    | BinaryOperator::NotEq
                    | BinaryOperator::Lt
                    | BinaryOperator::LtEq
                    | BinaryOperator::Gt
                    | BinaryOperator::GtEq,
                right,
            } => match (names_a_column(left), names_a_column(right)) {
                (true, false) => self.take(right),
                (false, true) => self.take(left),
                _ => {}
            },
            Expr::Between {
                expr: tested,
                low,
                high,
                ..
            } if names_a_column(tested) => {
                self.take(low);
                self.take(high);
            }
            Expr::InList {
                expr: tested, list, ..
            } if names_a_column(tested) && list.len() <= IN_LIST_MAX => {
                list.iter_mut().for_each(|item| self.take(item))
            }
            _ => {}
        }
    }

    fn take(&mut self, expr: &mut Expr) {
        if let Some((literal, source)) = self.literal(expr) {
            *expr = Expr::value(Value::Placeholder(format!(
                "${}",
                FIRST + self.literals.len()
            )));
            self.literals.push(literal);
            self.sources.push(source);
        }
    }

    /// The literal as the planner would read it, and where it stands; none for those that stay in the key.
    fn literal(&self, expr: &Expr) -> Option<(ScalarValue, Source<Location>)> {
        match expr {
            Expr::Value(ValueWithSpan { value, span }) => {
                let at = span.start;
                match value {
                    Value::Number(digits, _) => {
                        let negated = false;
                        Some((number(digits)?, Source::Number { at, negated }))
                    }
                    Value::SingleQuotedString(text) => {
                        Some((ScalarValue::from(text.as_str()), Source::Text { at }))
                    }
                    Value::Placeholder(name) => {
                        let index = name
                            .strip_prefix('$')?
                            .parse::<usize>()
                            .ok()?
                            .checked_sub(1)?;
                        Some((parameter(self.parameters, index)?, Source::Parameter(index)))
                    }
                    _ => None,
                }
            }
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => match expr.as_ref() {
                Expr::Value(ValueWithSpan {
                    value: Value::Number(digits, _),
                    span,
                }) => {
                    let (at, negated) = (span.start, true);
                    let literal = number(digits)?.arithmetic_negate().ok()?;
                    Some((literal, Source::Number { at, negated }))
                }
                _ => None,
            },
            // The same cast that the planner makes of them.
            Expr::TypedString(TypedString {
                data_type, value, ..
            }) => moment_at(value, data_type),
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr,
                data_type,
                array: false,
                format: None,
            } => match expr.as_ref() {
                Expr::Value(value) => moment_at(value, data_type),
                _ => None,
            },
            _ => None,
        }
    }
}

/// A parameter that can take a placeholder's place.
fn parameter(parameters: &[ScalarValue], index: usize) -> Option<ScalarValue> {
    let value = parameters.get(index)?;
    (!value.is_null() && !value.data_type().is_nested()).then(|| value.clone())
}

fn moment_at(
    value: &ValueWithSpan,
    data_type: &SqlType,
) -> Option<(ScalarValue, Source<Location>)> {
    let source = Source::Moment {
        at: value.span.start,
        data_type: data_type.clone(),
    };
    Some((moment(&value.value, data_type)?, source))
}

/// A date or a timestamp without a time zone, as the planner reads it. None for those that it compares otherwise when it knows
/// them: what it can't read, what is no timestamp in nanoseconds, and parts of a millisecond, which it cuts off.
fn moment(value: &Value, data_type: &SqlType) -> Option<ScalarValue> {
    let Value::SingleQuotedString(text) = value else {
        return None;
    };
    let target = match data_type {
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            let unit = match precision {
                Some(0) => TimeUnit::Second,
                Some(3) => TimeUnit::Millisecond,
                Some(6) => TimeUnit::Microsecond,
                None | Some(9) => TimeUnit::Nanosecond,
                Some(_) => return None,
            };
            DataType::Timestamp(unit, None)
        }
        _ => return None,
    };
    let moment = ScalarValue::Utf8(Some(text.clone()))
        .cast_to(&target)
        .ok()
        .filter(|moment| !moment.is_null())?;
    let timestamp = |unit| DataType::Timestamp(unit, None);
    let exact = moment.cast_to(&timestamp(TimeUnit::Nanosecond)).ok()?;
    let whole = exact.cast_to(&timestamp(TimeUnit::Millisecond)).ok()?;
    let again = whole.cast_to(&timestamp(TimeUnit::Nanosecond)).ok()?;
    (!exact.is_null() && exact == again).then_some(moment)
}

fn number(digits: &str) -> Option<ScalarValue> {
    if let Ok(whole) = digits.parse::<i64>() {
        return Some(ScalarValue::Int64(Some(whole)));
    }
    // Whole numbers that don't fit have types of their own.
    digits
        .contains(['.', 'e', 'E'])
        .then(|| digits.parse::<f64>().ok())
        .flatten()
        .map(|v| ScalarValue::Float64(Some(v)))
}

fn names_a_column(expr: &Expr) -> bool {
    struct Names(bool);
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 |= matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
            ControlFlow::Continue(())
        }
    }
    let mut names = Names(false);
    let _ = expr.visit(&mut names);
    names.0
}
