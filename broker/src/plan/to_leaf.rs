//! From DataFusion's physical expressions to [`LeafExpr`], where a leaf can evaluate them.
//!
//! None means: stays above the leaf. What is converted must mean the same there, so functions must be
//! immutable, and literals of types that travel.

use crate::functions;
use crate::leaf_expr::{binary_op, operator_calls};
use crate::literal::{is_supported, value_of};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::format::DEFAULT_CAST_OPTIONS;
use datafusion::logical_expr::{Operator, Volatility};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr,
    Literal, NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion::physical_plan::PhysicalExpr;
use std::sync::Arc;
use strandline_proto::leaf::LeafExpr;

/// A function of a cached plan that stands for a value bound at execution: its one argument is the parameter's number.
pub const PARAMETER_FUNCTION: &str = "$parameter";

/// What an input column of an expression is, seen from the leaf.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The value of an expression over the leaf's row.
    Expr(LeafExpr),
    /// One element of a multi-value column: the row is repeated for each.
    Element(LeafExpr),
    /// Not known to the leaf.
    Unknown,
}

/// The leaf's form of `expr`, whose columns are `inputs`.
pub fn to_leaf(expr: &Arc<dyn PhysicalExpr>, inputs: &[Input]) -> Option<LeafExpr> {
    let convert = |e: &Arc<dyn PhysicalExpr>| to_leaf(e, inputs);
    let boxed = |e: &Arc<dyn PhysicalExpr>| convert(e).map(Box::new);
    if let Some(column) = expr.downcast_ref::<Column>() {
        return match inputs.get(column.index())? {
            Input::Expr(leaf) => Some(leaf.clone()),
            Input::Element(_) | Input::Unknown => None,
        };
    }
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        return Some(LeafExpr::Literal(
            value_of(literal.value())?,
            literal.value().data_type(),
        ));
    }
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return binary_to_leaf(
            convert(binary.left())?,
            *binary.op(),
            convert(binary.right())?,
        );
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        // Casts to types that don't travel, or with formats of their own, stay above.
        if !is_supported(cast.cast_type()) || *cast.cast_options() != DEFAULT_CAST_OPTIONS {
            return None;
        }
        return Some(LeafExpr::Cast {
            expr: boxed(cast.expr())?,
            to: cast.cast_type().clone(),
            safe: false,
        });
    }
    if let Some(cast) = expr.downcast_ref::<TryCastExpr>() {
        return is_supported(cast.cast_type()).then_some(()).and_then(|()| {
            Some(LeafExpr::Cast {
                expr: boxed(cast.expr())?,
                to: cast.cast_type().clone(),
                safe: true,
            })
        });
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return Some(LeafExpr::Not(boxed(not.arg())?));
    }
    if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
        return Some(LeafExpr::Negative(boxed(negative.arg())?));
    }
    if let Some(is_null) = expr.downcast_ref::<IsNullExpr>() {
        return Some(LeafExpr::IsNull(boxed(is_null.arg())?));
    }
    if let Some(is_not_null) = expr.downcast_ref::<IsNotNullExpr>() {
        return Some(LeafExpr::Not(Box::new(LeafExpr::IsNull(boxed(
            is_not_null.arg(),
        )?))));
    }
    if let Some(like) = expr.downcast_ref::<LikeExpr>() {
        let function = if like.case_insensitive() {
            operator_calls::ILIKE
        } else {
            operator_calls::LIKE
        };
        let call = boolean_call(
            function,
            vec![convert(like.expr())?, convert(like.pattern())?],
        );
        return Some(if like.negated() {
            LeafExpr::Not(Box::new(call))
        } else {
            call
        });
    }
    if let Some(in_list) = expr.downcast_ref::<InListExpr>() {
        let mut args = vec![convert(in_list.expr())?];
        for item in in_list.list() {
            args.push(convert(item)?);
        }
        let call = boolean_call(operator_calls::IN, args);
        return Some(if in_list.negated() {
            LeafExpr::Not(Box::new(call))
        } else {
            call
        });
    }
    if let Some(case) = expr.downcast_ref::<CaseExpr>() {
        let base = match case.expr() {
            Some(base) => Some(boxed(base)?),
            None => None,
        };
        let branches = case
            .when_then_expr()
            .iter()
            .map(|(when, then)| Some((convert(when)?, convert(then)?)))
            .collect::<Option<Vec<_>>>()?;
        let otherwise = match case.else_expr() {
            Some(otherwise) => Some(boxed(otherwise)?),
            None => None,
        };
        return Some(LeafExpr::Case {
            base,
            branches,
            otherwise,
        });
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return call_to_leaf(call, &convert);
    }
    None
}

fn call_to_leaf(
    call: &ScalarFunctionExpr,
    convert: &dyn Fn(&Arc<dyn PhysicalExpr>) -> Option<LeafExpr>,
) -> Option<LeafExpr> {
    if call.name() == PARAMETER_FUNCTION {
        let index = call.args().first()?.downcast_ref::<Literal>()?;
        let datafusion::common::ScalarValue::UInt64(Some(index)) = index.value() else {
            return None;
        };
        return Some(LeafExpr::Parameter(
            usize::try_from(*index).ok()?,
            call.return_type().clone(),
        ));
    }
    let known = functions::scalar(call.name())?;
    if known.as_ref() != call.fun()
        || call.fun().signature().volatility != Volatility::Immutable
        || !is_supported(call.return_type())
    {
        return None;
    }
    let args = call
        .args()
        .iter()
        .map(convert)
        .collect::<Option<Vec<_>>>()?;
    Some(LeafExpr::Call {
        function: call.name().to_owned(),
        args,
        returns: call.return_type().clone(),
    })
}

fn binary_to_leaf(left: LeafExpr, op: Operator, right: LeafExpr) -> Option<LeafExpr> {
    if let Some(op) = binary_op(op) {
        return Some(LeafExpr::Binary {
            op,
            left: Box::new(left),
            right: Box::new(right),
        });
    }
    let (function, negated) = match op {
        Operator::RegexMatch => (operator_calls::REGEX, false),
        Operator::RegexNotMatch => (operator_calls::REGEX, true),
        Operator::RegexIMatch => (operator_calls::REGEX_CASE_INSENSITIVE, false),
        Operator::RegexNotIMatch => (operator_calls::REGEX_CASE_INSENSITIVE, true),
        Operator::LikeMatch => (operator_calls::LIKE, false),
        Operator::NotLikeMatch => (operator_calls::LIKE, true),
        Operator::ILikeMatch => (operator_calls::ILIKE, false),
        Operator::NotILikeMatch => (operator_calls::ILIKE, true),
        _ => return None,
    };
    let call = boolean_call(function, vec![left, right]);
    Some(if negated {
        LeafExpr::Not(Box::new(call))
    } else {
        call
    })
}

fn boolean_call(function: &str, args: Vec<LeafExpr>) -> LeafExpr {
    LeafExpr::Call {
        function: function.to_owned(),
        args,
        returns: DataType::Boolean,
    }
}
