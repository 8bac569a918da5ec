//! Arithmetic on integer and float columns, block by block, as DataFusion computes it: integers wrap at their width.
//!
//! Only what can't fail is here: `+ - *`, float division, casts that widen, and CASE over comparisons of whole numbers where
//! no value is null. The rest is evaluated as expressions.

use super::state::Values;
use crate::leaf::column::BoundColumn;
use crate::leaf::expression::columns_in;
use crate::leaf::segment::SegmentView;
use arrow::datatypes::DataType as ArrowType;
use std::sync::Arc;
use strandline_index::{DocSelection, ValueBuffer};
use strandline_proto::leaf::{BinaryOp, LeafExpr};
use strandline_proto::schema::DataType;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// The width and kind in which a node computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    I32,
    I64,
    F32,
    F64,
    /// A timestamp, which is compared only.
    Time,
}

#[derive(Debug)]
enum Node {
    Column(Arc<BoundColumn>),
    Constant(Number),
    Cast(Box<Node>, Type),
    Binary(BinaryOp, Box<Node>, Box<Node>),
    /// What belongs to the first test that is true, or the last.
    Case(Vec<(Test, Node)>, Box<Node>),
}

/// What is true or false of each document.
#[derive(Debug)]
enum Test {
    Compare(BinaryOp, Node, Node),
    And(Box<Test>, Box<Test>),
    Or(Box<Test>, Box<Test>),
    Not(Box<Test>),
}

#[derive(Clone, Copy, Debug)]
enum Number {
    I32(i32),
    I64(i64),
    F32(f32),
    F64(f64),
}

/// An arithmetic expression over a segment's columns.
#[derive(Debug)]
pub(super) struct Numeric {
    root: Node,
    columns: Vec<Arc<BoundColumn>>,
}

impl Numeric {
    /// The arithmetic of `expr`; none when it holds anything else.
    pub(super) fn compile(
        expr: &LeafExpr,
        parameters: &[Value],
        segment: &SegmentView,
    ) -> Result<Option<Self>> {
        let mut columns = Vec::new();
        // Alone, a timestamp or boolean is just its number; arithmetic on them has other rules.
        if let LeafExpr::Column(name) = expr {
            let column = segment.column(name)?;
            let plain = !column.is_multi_value()
                && matches!(
                    column.data_type,
                    DataType::Int
                        | DataType::Long
                        | DataType::Float
                        | DataType::Double
                        | DataType::Timestamp
                        | DataType::Boolean
                );
            return Ok(plain.then(|| Self {
                root: Node::Column(Arc::clone(&column)),
                columns: vec![column],
            }));
        }
        let Some((root, t)) = node(expr, parameters, segment, &mut columns)? else {
            return Ok(None);
        };
        Ok((t != Type::Time).then_some(Self { root, columns }))
    }

    /// The columns it reads, each once.
    pub(super) fn columns(&self) -> &[Arc<BoundColumn>] {
        &self.columns
    }

    /// Values of `docs`, as `I64` or `F64`.
    pub(super) fn evaluate(&self, docs: &DocSelection<'_>) -> Result<Values> {
        Ok(match evaluate(&self.root, docs)? {
            ValueBuffer::I32(values) => Values::I64(values.iter().map(|&v| i64::from(v)).collect()),
            ValueBuffer::I64(values) => Values::I64(values),
            ValueBuffer::F32(values) => Values::F64(values.iter().map(|&v| f64::from(v)).collect()),
            ValueBuffer::F64(values) => Values::F64(values),
            ValueBuffer::I128(_) | ValueBuffer::Bytes { .. } => {
                return Err(Error::internal("arithmetic on values that are no numbers"));
            }
        })
    }
}

fn type_of(data_type: &ArrowType) -> Option<Type> {
    match data_type {
        ArrowType::Int32 => Some(Type::I32),
        ArrowType::Int64 => Some(Type::I64),
        ArrowType::Float32 => Some(Type::F32),
        ArrowType::Float64 => Some(Type::F64),
        ArrowType::Timestamp(..) => Some(Type::Time),
        _ => None,
    }
}

fn node(
    expr: &LeafExpr,
    parameters: &[Value],
    segment: &SegmentView,
    columns: &mut Vec<Arc<BoundColumn>>,
) -> Result<Option<(Node, Type)>> {
    Ok(match expr {
        LeafExpr::Column(name) => {
            let column = match columns.iter().find(|c| c.name == *name) {
                Some(column) => Arc::clone(column),
                None => segment.column(name)?,
            };
            let Some(t) = type_of(&column.data_type.arrow()).filter(|_| !column.is_multi_value())
            else {
                return Ok(None);
            };
            if !columns.iter().any(|c| c.name == *name) {
                columns.push(Arc::clone(&column));
            }
            Some((Node::Column(column), t))
        }
        LeafExpr::Literal(value, data_type) => constant(value, data_type),
        LeafExpr::Parameter(index, data_type) => parameters
            .get(*index)
            .and_then(|value| constant(value, data_type)),
        LeafExpr::Cast { expr, to, .. } => {
            let (Some(to), Some((inner, from))) =
                (type_of(to), node(expr, parameters, segment, columns)?)
            else {
                return Ok(None);
            };
            match (from, to) {
                // Their units may differ.
                (Type::Time, _) | (_, Type::Time) => None,
                _ if from == to => Some((inner, to)),
                (Type::I32, Type::I64 | Type::F64) | (Type::I64 | Type::F32, Type::F64) => {
                    Some((Node::Cast(Box::new(inner), to), to))
                }
                _ => None,
            }
        }
        LeafExpr::Binary { op, left, right } => {
            let Some((left, t)) = node(left, parameters, segment, columns)? else {
                return Ok(None);
            };
            let Some((right, other)) = node(right, parameters, segment, columns)? else {
                return Ok(None);
            };
            let known = match op {
                BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply => t != Type::Time,
                BinaryOp::Divide => matches!(t, Type::F32 | Type::F64),
                _ => false,
            };
            (known && t == other).then(|| (Node::Binary(*op, Box::new(left), Box::new(right)), t))
        }
        LeafExpr::Case {
            base: None,
            branches,
            otherwise: Some(otherwise),
        } => {
            // Null in a test or in a branch that is not taken makes no null.
            for name in columns_in(expr) {
                if segment.column(&name)?.reader.has_nulls() {
                    return Ok(None);
                }
            }
            case(branches, otherwise, parameters, segment, columns)?
        }
        _ => None,
    })
}

fn case(
    branches: &[(LeafExpr, LeafExpr)],
    otherwise: &LeafExpr,
    parameters: &[Value],
    segment: &SegmentView,
    columns: &mut Vec<Arc<BoundColumn>>,
) -> Result<Option<(Node, Type)>> {
    let Some((last, t)) = node(otherwise, parameters, segment, columns)? else {
        return Ok(None);
    };
    let mut parts = Vec::with_capacity(branches.len());
    for (when, then) in branches {
        let Some(when) = test(when, parameters, segment, columns)? else {
            return Ok(None);
        };
        match node(then, parameters, segment, columns)? {
            Some((then, other)) if other == t => parts.push((when, then)),
            _ => return Ok(None),
        }
    }
    Ok((t != Type::Time).then(|| (Node::Case(parts, Box::new(last)), t)))
}

fn test(
    expr: &LeafExpr,
    parameters: &[Value],
    segment: &SegmentView,
    columns: &mut Vec<Arc<BoundColumn>>,
) -> Result<Option<Test>> {
    let (op, left, right) = match expr {
        LeafExpr::Not(inner) => {
            let inner = test(inner, parameters, segment, columns)?;
            return Ok(inner.map(|inner| Test::Not(Box::new(inner))));
        }
        LeafExpr::Binary { op, left, right } => (*op, left, right),
        _ => return Ok(None),
    };
    Ok(match op {
        BinaryOp::And | BinaryOp::Or => {
            let left = test(left, parameters, segment, columns)?;
            let right = test(right, parameters, segment, columns)?;
            let both = left.zip(right);
            both.map(|(left, right)| match op {
                BinaryOp::And => Test::And(Box::new(left), Box::new(right)),
                _ => Test::Or(Box::new(left), Box::new(right)),
            })
        }
        BinaryOp::Eq
        | BinaryOp::NotEq
        | BinaryOp::Lt
        | BinaryOp::LtEq
        | BinaryOp::Gt
        | BinaryOp::GtEq => {
            let left = node(left, parameters, segment, columns)?;
            let right = node(right, parameters, segment, columns)?;
            match left.zip(right) {
                // Floats have an order of their own there.
                Some(((left, t), (right, other)))
                    if t == other && matches!(t, Type::I32 | Type::I64 | Type::Time) =>
                {
                    Some(Test::Compare(op, left, right))
                }
                _ => None,
            }
        }
        _ => None,
    })
}

fn constant(value: &Value, data_type: &ArrowType) -> Option<(Node, Type)> {
    Some(match (value, type_of(data_type)?) {
        (Value::Int(v), Type::I32) => (Node::Constant(Number::I32(*v)), Type::I32),
        (Value::Long(v), Type::I64) => (Node::Constant(Number::I64(*v)), Type::I64),
        (Value::Float(v), Type::F32) => (Node::Constant(Number::F32(*v)), Type::F32),
        (Value::Double(v), Type::F64) => (Node::Constant(Number::F64(*v)), Type::F64),
        _ => return None,
    })
}

fn evaluate(node: &Node, docs: &DocSelection<'_>) -> Result<ValueBuffer> {
    Ok(match node {
        Node::Column(column) => {
            let mut values = ValueBuffer::new(column.reader.physical());
            column.reader.values(docs.clone(), &mut values);
            values
        }
        Node::Constant(number) => {
            let rows = docs.len();
            match *number {
                Number::I32(v) => ValueBuffer::I32(vec![v; rows]),
                Number::I64(v) => ValueBuffer::I64(vec![v; rows]),
                Number::F32(v) => ValueBuffer::F32(vec![v; rows]),
                Number::F64(v) => ValueBuffer::F64(vec![v; rows]),
            }
        }
        Node::Cast(inner, to) => match (evaluate(inner, docs)?, to) {
            (ValueBuffer::I32(values), Type::I64) => {
                ValueBuffer::I64(values.into_iter().map(i64::from).collect())
            }
            (ValueBuffer::I32(values), Type::F64) => {
                ValueBuffer::F64(values.into_iter().map(f64::from).collect())
            }
            (ValueBuffer::I64(values), Type::F64) => {
                ValueBuffer::F64(values.into_iter().map(|v| v as f64).collect())
            }
            (ValueBuffer::F32(values), Type::F64) => {
                ValueBuffer::F64(values.into_iter().map(f64::from).collect())
            }
            _ => return Err(mismatch()),
        },
        Node::Binary(op, left, right) => match (evaluate(left, docs)?, evaluate(right, docs)?) {
            (ValueBuffer::I32(l), ValueBuffer::I32(r)) => ValueBuffer::I32(match op {
                BinaryOp::Plus => zip(l, &r, i32::wrapping_add),
                BinaryOp::Minus => zip(l, &r, i32::wrapping_sub),
                BinaryOp::Multiply => zip(l, &r, i32::wrapping_mul),
                _ => return Err(mismatch()),
            }),
            (ValueBuffer::I64(l), ValueBuffer::I64(r)) => ValueBuffer::I64(match op {
                BinaryOp::Plus => zip(l, &r, i64::wrapping_add),
                BinaryOp::Minus => zip(l, &r, i64::wrapping_sub),
                BinaryOp::Multiply => zip(l, &r, i64::wrapping_mul),
                _ => return Err(mismatch()),
            }),
            (ValueBuffer::F32(l), ValueBuffer::F32(r)) => ValueBuffer::F32(match op {
                BinaryOp::Plus => zip(l, &r, |a, b| a + b),
                BinaryOp::Minus => zip(l, &r, |a, b| a - b),
                BinaryOp::Multiply => zip(l, &r, |a, b| a * b),
                BinaryOp::Divide => zip(l, &r, |a, b| a / b),
                _ => return Err(mismatch()),
            }),
            (ValueBuffer::F64(l), ValueBuffer::F64(r)) => ValueBuffer::F64(match op {
                BinaryOp::Plus => zip(l, &r, |a, b| a + b),
                BinaryOp::Minus => zip(l, &r, |a, b| a - b),
                BinaryOp::Multiply => zip(l, &r, |a, b| a * b),
                BinaryOp::Divide => zip(l, &r, |a, b| a / b),
                _ => return Err(mismatch()),
            }),
            _ => return Err(mismatch()),
        },
        Node::Case(branches, otherwise) => {
            let mut values = evaluate(otherwise, docs)?;
            for (when, then) in branches.iter().rev() {
                let is_taken = truths(when, docs)?;
                match (&mut values, evaluate(then, docs)?) {
                    (ValueBuffer::I32(to), ValueBuffer::I32(from)) => take(&is_taken, &from, to),
                    (ValueBuffer::I64(to), ValueBuffer::I64(from)) => take(&is_taken, &from, to),
                    (ValueBuffer::F32(to), ValueBuffer::F32(from)) => take(&is_taken, &from, to),
                    (ValueBuffer::F64(to), ValueBuffer::F64(from)) => take(&is_taken, &from, to),
                    _ => return Err(mismatch()),
                }
            }
            values
        }
    })
}

fn truths(test: &Test, docs: &DocSelection<'_>) -> Result<Vec<bool>> {
    Ok(match test {
        Test::Compare(op, left, right) => match (evaluate(left, docs)?, evaluate(right, docs)?) {
            (ValueBuffer::I32(l), ValueBuffer::I32(r)) => compare(*op, &l, &r)?,
            (ValueBuffer::I64(l), ValueBuffer::I64(r)) => compare(*op, &l, &r)?,
            _ => return Err(mismatch()),
        },
        Test::And(left, right) => zip(truths(left, docs)?, &truths(right, docs)?, |a, b| a & b),
        Test::Or(left, right) => zip(truths(left, docs)?, &truths(right, docs)?, |a, b| a | b),
        Test::Not(inner) => {
            let mut truths = truths(inner, docs)?;
            truths.iter_mut().for_each(|truth| *truth = !*truth);
            truths
        }
    })
}

fn compare<T: Copy + Ord>(op: BinaryOp, left: &[T], right: &[T]) -> Result<Vec<bool>> {
    #[inline]
    fn each<T: Copy>(left: &[T], right: &[T], is: impl Fn(T, T) -> bool) -> Vec<bool> {
        left.iter().zip(right).map(|(&l, &r)| is(l, r)).collect()
    }
    Ok(match op {
        BinaryOp::Eq => each(left, right, |l, r| l == r),
        BinaryOp::NotEq => each(left, right, |l, r| l != r),
        BinaryOp::Lt => each(left, right, |l, r| l < r),
        BinaryOp::LtEq => each(left, right, |l, r| l <= r),
        BinaryOp::Gt => each(left, right, |l, r| l > r),
        BinaryOp::GtEq => each(left, right, |l, r| l >= r),
        _ => return Err(mismatch()),
    })
}

/// Puts the values of `from` that are taken in place of those in `to`.
#[inline]
fn take<T: Copy>(is_taken: &[bool], from: &[T], to: &mut [T]) {
    for ((to, &from), &taken) in to.iter_mut().zip(from).zip(is_taken) {
        *to = if taken { from } else { *to };
    }
}

fn mismatch() -> Error {
    Error::data_loss("a column gives values of another type than its own")
}

#[inline]
fn zip<T: Copy>(mut left: Vec<T>, right: &[T], f: impl Fn(T, T) -> T) -> Vec<T> {
    for (l, &r) in left.iter_mut().zip(right) {
        *l = f(*l, r);
    }
    left
}
