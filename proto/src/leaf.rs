//! The leaf query: what a broker asks of a server about one table.
//!
//! It says *what* to compute (filter, then rows, top rows or partial aggregate states) over *which*
//! rows (segments by name and checksum, stream tails by offset range, coverage). Work is split in
//! two so that a plan can be kept and bound again: [`LeafWork`] holds nothing that changes between
//! two runs of one statement's shape; [`LeafQuery`] adds what is bound at execution.
//!
//! Semantics are SQL's three-valued logic: a filter keeps the rows for which it is TRUE.

use crate::ids::{Half, SegmentName, StreamPartition};
use crate::lineage::Lineage;
use crate::schema::Schema;
use crate::text::TextSettings;
use crate::value::Value;
use arrow_schema::{DataType as ArrowType, SchemaRef};
use std::sync::Arc;

/// The version of this structure that this build writes; a server refuses a newer one.
pub const LEAF_QUERY_VERSION: u16 = 7;

/// The part of a leaf query that a cached plan keeps.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafWork {
    /// Rows to keep. `LeafFilter::And(vec![])` keeps all.
    pub filter: LeafFilter,
    /// What to make of them.
    pub output: LeafOutput,
    /// The Arrow schema of the answer: the projected columns, or exactly the partial-state schema of
    /// the aggregation that this replaces (names, positions, types, nullability).
    pub schema: SchemaRef,
}

/// What a leaf makes of the rows that pass.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafOutput {
    /// The rows themselves, one column an expression.
    Rows {
        /// Output columns in order; may be empty (only the number of rows matters).
        project: Vec<LeafExpr>,
        /// Stop after so many rows; with `order`, keep the first so many in that order.
        limit: Option<usize>,
        /// Sort keys of a top-k over the *input* row; empty: any order. Only together with `limit`.
        order: Vec<SortKey>,
    },
    /// Aggregate states, one row a group.
    Aggregate {
        /// Group keys; empty: one row for all, also when no row passes.
        group: Vec<GroupKey>,
        /// Aggregates in order.
        aggregates: Vec<LeafAggregate>,
    },
}

/// One key of a GROUP BY.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupKey {
    /// What is grouped by.
    pub expr: LeafExpr,
    /// For a multi-value column: a row counts once per element, and once as NULL when its list is empty or null.
    pub explode: bool,
}

/// One key of a top-k.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// What is sorted by.
    pub expr: LeafExpr,
    /// Largest first.
    pub descending: bool,
    /// Where nulls go.
    pub nulls_first: bool,
}

/// One aggregate whose partial state the leaf gives.
#[derive(Clone, Debug, PartialEq)]
pub struct LeafAggregate {
    /// The function.
    pub function: AggregateFunction,
    /// Its argument; none for `count(*)`. Already cast to the type the function works in.
    pub argument: Option<LeafExpr>,
    /// `FILTER (WHERE ...)`.
    pub filter: Option<LeafFilter>,
}

/// Aggregates the leaf knows, with the state columns it emits (DataFusion's own).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// `[count: Int64]`
    Count,
    /// `[List<T>]`: the distinct non-null values.
    CountDistinct,
    /// `[sketch: Binary]`: about how many distinct non-null values, by a HyperLogLog of 16,384 registers in DataFusion's form: a
    /// byte a register, or (of at most 256 values of a group that is one of several) their hashes.
    ApproxDistinct,
    /// `[sum: T]`, T one of Int64, UInt64, Float64, Decimal128; null without a non-null row.
    Sum,
    /// `[min: T]`
    Min,
    /// `[max: T]`
    Max,
    /// `[count: UInt64, sum: Float64 | Decimal128]`
    Avg,
    /// `[count: Int64]`: how many distinct non-null values. No state: the answer is merged with no other.
    FinalCountDistinct,
    /// `[mean: Float64]`; null without a non-null row. No state: the answer is merged with no other.
    FinalAvg,
}

/// A literal, or a parameter bound at execution.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A value fixed in the plan.
    Literal(Value),
    /// Index into [`LeafQuery::parameters`].
    Parameter(usize),
}

/// Which rows pass. TRUE keeps; FALSE and NULL drop.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafFilter {
    /// All are true; empty: true.
    And(Vec<LeafFilter>),
    /// Any is true; empty: false.
    Or(Vec<LeafFilter>),
    /// A predicate on one column that indexes may answer.
    Column(ColumnPredicate),
    /// Any boolean expression, evaluated in blocks over the rows that are left.
    Expr(LeafExpr),
}

/// `column test`, or its negation, on a stored or virtual column.
///
/// Single-value: TRUE when the value is not null and `test(value) != negated`.
/// Multi-value: TRUE when the list is not null and `any(test(element)) != negated`; null elements match nothing.
/// [`ColumnTest::IsNull`] is never NULL itself: `negated` gives IS NOT NULL.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnPredicate {
    /// The column's name.
    pub column: String,
    /// The test on a value.
    pub test: ColumnTest,
    /// Whether the test must fail.
    pub negated: bool,
}

/// A test on one value. Operands are compared exactly, in a domain that holds both sides (an INT
/// column against the DOUBLE 2.5 is never truncated); NULL operands make the predicate NULL.
/// Floats compare in Arrow's total order, as DataFusion compares them.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnTest {
    /// Equal to one of these.
    In(Vec<Operand>),
    /// Within bounds.
    Range {
        /// The lower bound and whether it is itself included.
        low: Option<(Operand, bool)>,
        /// The upper bound and whether it is itself included.
        high: Option<(Operand, bool)>,
    },
    /// SQL LIKE (`%`, `_`, backslash escape) on text.
    Like {
        /// The pattern.
        pattern: Operand,
        /// ILIKE.
        case_insensitive: bool,
    },
    /// A regular expression (the `regex` crate's syntax) found anywhere in the text.
    Regex {
        /// The pattern.
        pattern: Operand,
        /// `~*`.
        case_insensitive: bool,
    },
    /// A JSON document for which a filter of [JSON_MATCH](crate::json) holds.
    JsonMatch {
        /// The filter's text.
        filter: Operand,
    },
    /// A [text query](crate::text) of the words of all of a row's values: of a multi-value column, too, it is asked of the row as a
    /// whole, not of each element.
    TextMatch {
        /// The query.
        query: Operand,
        /// How text becomes words.
        settings: TextSettings,
    },
    /// Null.
    IsNull,
}

/// A scalar expression over a row, with DataFusion's semantics for each operator and function.
#[derive(Clone, Debug, PartialEq)]
pub enum LeafExpr {
    /// A stored or virtual column.
    Column(String),
    /// A typed constant.
    Literal(Value, ArrowType),
    /// A parameter of a type.
    Parameter(usize, ArrowType),
    /// `CAST`, or `TRY_CAST` when `safe`.
    Cast {
        /// What is cast.
        expr: Box<LeafExpr>,
        /// To which Arrow type.
        to: ArrowType,
        /// Null instead of an error.
        safe: bool,
    },
    /// An operator by its SQL text: `+ - * / % = != < <= > >= AND OR IS DISTINCT FROM` and so on.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// The left side.
        left: Box<LeafExpr>,
        /// The right side.
        right: Box<LeafExpr>,
    },
    /// Boolean NOT.
    Not(Box<LeafExpr>),
    /// Arithmetic minus.
    Negative(Box<LeafExpr>),
    /// IS NULL.
    IsNull(Box<LeafExpr>),
    /// CASE.
    Case {
        /// `CASE x WHEN`; none: `CASE WHEN condition`.
        base: Option<Box<LeafExpr>>,
        /// WHEN and THEN.
        branches: Vec<(LeafExpr, LeafExpr)>,
        /// ELSE.
        otherwise: Option<Box<LeafExpr>>,
    },
    /// A deterministic scalar function by the name DataFusion knows it by.
    Call {
        /// The name.
        function: String,
        /// Arguments.
        args: Vec<LeafExpr>,
        /// The type of the result.
        returns: ArrowType,
    },
}

impl LeafExpr {
    /// Calls `each` with the expressions that this one is made of, not with those that they are made of.
    pub fn for_each_part<'a>(&'a self, each: &mut dyn FnMut(&'a LeafExpr)) {
        match self {
            Self::Column(_) | Self::Literal(..) | Self::Parameter(..) => {}
            Self::Cast { expr, .. }
            | Self::Not(expr)
            | Self::Negative(expr)
            | Self::IsNull(expr) => {
                each(expr);
            }
            Self::Binary { left, right, .. } => {
                each(left);
                each(right);
            }
            Self::Case {
                base,
                branches,
                otherwise,
            } => {
                base.iter().for_each(|base| each(base));
                for (when, then) in branches {
                    each(when);
                    each(then);
                }
                otherwise.iter().for_each(|otherwise| each(otherwise));
            }
            Self::Call { args, .. } => args.iter().for_each(each),
        }
    }

    /// The same to change them.
    pub fn for_each_part_mut(&mut self, each: &mut dyn FnMut(&mut LeafExpr)) {
        match self {
            Self::Column(_) | Self::Literal(..) | Self::Parameter(..) => {}
            Self::Cast { expr, .. }
            | Self::Not(expr)
            | Self::Negative(expr)
            | Self::IsNull(expr) => {
                each(expr);
            }
            Self::Binary { left, right, .. } => {
                each(left);
                each(right);
            }
            Self::Case {
                base,
                branches,
                otherwise,
            } => {
                base.iter_mut().for_each(|base| each(base));
                for (when, then) in branches {
                    each(when);
                    each(then);
                }
                otherwise.iter_mut().for_each(|otherwise| each(otherwise));
            }
            Self::Call { args, .. } => args.iter_mut().for_each(each),
        }
    }
}

/// Operators of [`LeafExpr::Binary`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name is its operator")]
pub enum BinaryOp {
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    And,
    Or,
    IsDistinctFrom,
    IsNotDistinctFrom,
    StringConcat,
}

/// A bound leaf query: the work, over named rows.
#[derive(Clone, Debug)]
pub struct LeafQuery {
    /// See [`LEAF_QUERY_VERSION`].
    pub version: u16,
    /// The query this is part of, for logs and cancellation.
    pub query_id: u64,
    /// The table's name, without `_OFFLINE` or `_REALTIME`.
    pub table: Arc<str>,
    /// The schema to read segments by: columns a segment lacks answer with their default.
    pub schema: Arc<Schema>,
    /// Under which names segments of earlier versions of it store its columns.
    pub lineage: Arc<Lineage>,
    /// What to compute.
    pub work: Arc<LeafWork>,
    /// Values of the work's parameters.
    pub parameters: Vec<Value>,
    /// Immutable segments to read.
    pub segments: Vec<SegmentTask>,
    /// Stream tails to read.
    pub tails: Vec<TailTask>,
    /// Which rows of which half count; none: all rows of the named segments and tails.
    pub coverage: Option<CoverageFilter>,
    /// The version of the table's keys at which rows count, where rows have keys; none: all rows count.
    pub keys_version: Option<u64>,
    /// Rows of the largest batch to give.
    pub batch_rows_max: usize,
}

/// One immutable segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentTask {
    /// Its name.
    pub name: SegmentName,
    /// Its checksum: the file with another one is another segment.
    pub checksum: u64,
    /// The half it belongs to.
    pub half: Half,
    /// The version of the schema that its columns are of.
    pub schema_version: u32,
}

/// The rows of one stream partition from `from_offset` on that are in no committed segment, up to the
/// watermark that was pinned for the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailTask {
    /// The partition.
    pub partition: StreamPartition,
    /// The first offset.
    pub from_offset: u64,
    /// The first offset that does not count any more.
    pub to_offset: u64,
}

/// Coverage in the time column's own domain, as disjoint, ascending, half-open intervals. A null time is outside.
#[derive(Clone, Debug, PartialEq)]
pub struct CoverageFilter {
    /// The time column.
    pub column: String,
    /// Inside these offline rows count.
    pub offline: Vec<(Value, Value)>,
    /// Outside these realtime rows count. Where both count, they are different rows.
    pub hiding: Vec<(Value, Value)>,
}

/// How a leaf would answer a query, for EXPLAIN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafExplanation {
    /// Lines to show under the scan, each `name: text`, e.g. `index: Carrier = 'AA' by inverted (12 of 12 segments)`.
    pub lines: Vec<String>,
}
