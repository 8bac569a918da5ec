//! From a [`LeafExpr`] to what evaluates it: DataFusion's own physical expression, so that a leaf and the plan
//! above it mean the same by each operator and function.

use crate::functions;
use crate::literal::scalar_of;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, IsNullExpr, LikeExpr, Literal, NegativeExpr, NotExpr,
    TryCastExpr, in_list,
};
use datafusion::physical_plan::PhysicalExpr;
use std::sync::{Arc, LazyLock};
use strandline_proto::leaf::{BinaryOp, LeafExpr};
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// Operators that [`BinaryOp`] lacks travel as calls of these names, with two arguments
/// unless said otherwise.
pub mod operator_calls {
    /// `LIKE`.
    pub const LIKE: &str = "$like";
    /// `ILIKE`.
    pub const ILIKE: &str = "$ilike";
    /// `~`.
    pub const REGEX: &str = "$regex";
    /// `~*`.
    pub const REGEX_CASE_INSENSITIVE: &str = "$iregex";
    /// `IN`, with the list's items after the tested value.
    pub const IN: &str = "$in";
}

static CONFIG: LazyLock<Arc<ConfigOptions>> = LazyLock::new(|| Arc::new(ConfigOptions::default()));

/// The physical expression of `expr` over batches of `schema` (columns by name; virtual ones must be in it when used).
/// Parameters become literals. Functions are those of [`functions::scalar`].
pub fn physical_expr(
    expr: &LeafExpr,
    schema: &Schema,
    parameters: &[Value],
) -> Result<Arc<dyn PhysicalExpr>> {
    let build = |e: &LeafExpr| physical_expr(e, schema, parameters);
    Ok(match expr {
        LeafExpr::Column(name) => {
            let index = schema.index_of(name).map_err(|_| {
                Error::internal(format!(
                    "a leaf expression names the column {name:?}, which its input lacks"
                ))
            })?;
            Arc::new(Column::new(name, index))
        }
        LeafExpr::Literal(value, data_type) => Arc::new(Literal::new(scalar_of(value, data_type)?)),
        LeafExpr::Parameter(index, data_type) => {
            let value = parameters.get(*index).ok_or_else(|| {
                Error::internal(format!(
                    "a leaf query names parameter {index} and has {}",
                    parameters.len()
                ))
            })?;
            Arc::new(Literal::new(scalar_of(value, data_type)?))
        }
        LeafExpr::Cast {
            expr,
            to,
            safe: false,
        } => Arc::new(CastExpr::new(build(expr)?, to.clone(), None)),
        LeafExpr::Cast {
            expr,
            to,
            safe: true,
        } => Arc::new(TryCastExpr::new(build(expr)?, to.clone())),
        LeafExpr::Binary { op, left, right } => {
            Arc::new(BinaryExpr::new(build(left)?, operator(*op), build(right)?))
        }
        LeafExpr::Not(inner) => Arc::new(NotExpr::new(build(inner)?)),
        LeafExpr::Negative(inner) => Arc::new(NegativeExpr::new(build(inner)?)),
        LeafExpr::IsNull(inner) => Arc::new(IsNullExpr::new(build(inner)?)),
        LeafExpr::Case {
            base,
            branches,
            otherwise,
        } => {
            let base = base.as_deref().map(build).transpose()?;
            let branches = branches
                .iter()
                .map(|(when, then)| Ok((build(when)?, build(then)?)))
                .collect::<Result<Vec<_>>>()?;
            let otherwise = otherwise.as_deref().map(build).transpose()?;
            Arc::new(CaseExpr::try_new(base, branches, otherwise).map_err(internal)?)
        }
        LeafExpr::Call {
            function,
            args,
            returns,
        } => {
            let args = args.iter().map(build).collect::<Result<Vec<_>>>()?;
            call(function, args, returns, schema)?
        }
    })
}

fn call(
    function: &str,
    args: Vec<Arc<dyn PhysicalExpr>>,
    returns: &DataType,
    schema: &Schema,
) -> Result<Arc<dyn PhysicalExpr>> {
    if function == operator_calls::IN {
        let mut args = args.into_iter();
        let tested = args
            .next()
            .ok_or_else(|| Error::internal("$in takes arguments"))?;
        return in_list(tested, args.collect(), &false, schema).map_err(internal);
    }
    if function.starts_with('$') {
        let [left, right]: [_; 2] = args
            .try_into()
            .map_err(|_| Error::internal(format!("{function} takes two arguments")))?;
        return Ok(match function {
            operator_calls::LIKE => Arc::new(LikeExpr::new(false, false, left, right)),
            operator_calls::ILIKE => Arc::new(LikeExpr::new(false, true, left, right)),
            operator_calls::REGEX => Arc::new(BinaryExpr::new(left, Operator::RegexMatch, right)),
            operator_calls::REGEX_CASE_INSENSITIVE => {
                Arc::new(BinaryExpr::new(left, Operator::RegexIMatch, right))
            }
            _ => return Err(unknown_function(function)),
        });
    }
    let udf = functions::scalar(function).ok_or_else(|| unknown_function(function))?;
    let call =
        ScalarFunctionExpr::try_new(udf, args, schema, Arc::clone(&CONFIG)).map_err(internal)?;
    if call.return_type() != returns {
        return Err(Error::internal(format!(
            "{function} gives {} here and {returns} where the query was planned",
            call.return_type()
        )));
    }
    Ok(Arc::new(call))
}

fn unknown_function(function: &str) -> Error {
    Error::unsupported(format!(
        "not supported: the function {function:?} in a leaf query; server and broker may be of different versions"
    ))
}

fn internal(error: datafusion::error::DataFusionError) -> Error {
    Error::internal(error.strip_backtrace())
}

/// DataFusion's operator.
pub fn operator(op: BinaryOp) -> Operator {
    match op {
        BinaryOp::Plus => Operator::Plus,
        BinaryOp::Minus => Operator::Minus,
        BinaryOp::Multiply => Operator::Multiply,
        BinaryOp::Divide => Operator::Divide,
        BinaryOp::Modulo => Operator::Modulo,
        BinaryOp::Eq => Operator::Eq,
        BinaryOp::NotEq => Operator::NotEq,
        BinaryOp::Lt => Operator::Lt,
        BinaryOp::LtEq => Operator::LtEq,
        BinaryOp::Gt => Operator::Gt,
        BinaryOp::GtEq => Operator::GtEq,
        BinaryOp::And => Operator::And,
        BinaryOp::Or => Operator::Or,
        BinaryOp::IsDistinctFrom => Operator::IsDistinctFrom,
        BinaryOp::IsNotDistinctFrom => Operator::IsNotDistinctFrom,
        BinaryOp::StringConcat => Operator::StringConcat,
    }
}

/// Our name of an operator, or none when there is none.
pub fn binary_op(op: Operator) -> Option<BinaryOp> {
    Some(match op {
        Operator::Plus => BinaryOp::Plus,
        Operator::Minus => BinaryOp::Minus,
        Operator::Multiply => BinaryOp::Multiply,
        Operator::Divide => BinaryOp::Divide,
        Operator::Modulo => BinaryOp::Modulo,
        Operator::Eq => BinaryOp::Eq,
        Operator::NotEq => BinaryOp::NotEq,
        Operator::Lt => BinaryOp::Lt,
        Operator::LtEq => BinaryOp::LtEq,
        Operator::Gt => BinaryOp::Gt,
        Operator::GtEq => BinaryOp::GtEq,
        Operator::And => BinaryOp::And,
        Operator::Or => BinaryOp::Or,
        Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
        Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
        Operator::StringConcat => BinaryOp::StringConcat,
        _ => return None,
    })
}
