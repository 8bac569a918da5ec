//! Literals that are bound when a kept plan runs: as a function while it is planned, as values when it is bound.

use crate::leaf_expr::physical_expr;
use crate::literal::value_of;
use crate::plan::to_leaf::PARAMETER_FUNCTION;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::{Result as PlanResult, ScalarValue, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use std::sync::Arc;
use strandline_proto::leaf::LeafExpr;
use strandline_proto::value::Value;
use strandline_proto::{Error, Result};

/// The value of the parameter `index`, of a type, in an expression that is on its way to a leaf.
pub(crate) fn call(index: usize, data_type: DataType) -> Expr {
    ScalarUDF::from(Parameter {
        data_type,
        signature: Signature::any(1, Volatility::Immutable),
    })
    .call(vec![lit(index as u64)])
}

/// Stands for a value that is not known yet, and so can't be computed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Parameter {
    data_type: DataType,
    signature: Signature,
}

impl ScalarUDFImpl for Parameter {
    fn name(&self) -> &str {
        PARAMETER_FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> PlanResult<DataType> {
        Ok(self.data_type.clone())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        internal_err!("a parameter is computed before it is bound")
    }
}

/// Whether an expression holds parameters.
pub(crate) fn has_parameters(expr: &LeafExpr) -> bool {
    let mut found = matches!(expr, LeafExpr::Parameter(..));
    expr.for_each_part(&mut |part| found |= has_parameters(part));
    found
}

/// The expression with its parameters' values, and casts of those computed.
pub(crate) fn bind(expr: &LeafExpr, values: &[Value]) -> Result<LeafExpr> {
    let boxed = |e: &LeafExpr| bind(e, values).map(Box::new);
    Ok(match expr {
        LeafExpr::Parameter(index, data_type) => {
            let value = values.get(*index).ok_or_else(|| {
                Error::internal(format!(
                    "a plan names literal {index} and {} are bound",
                    values.len()
                ))
            })?;
            LeafExpr::Literal(value.clone(), data_type.clone())
        }
        LeafExpr::Column(_) | LeafExpr::Literal(..) => expr.clone(),
        LeafExpr::Cast { expr, to, safe } => {
            let cast = LeafExpr::Cast {
                expr: boxed(expr)?,
                to: to.clone(),
                safe: *safe,
            };
            match &cast {
                LeafExpr::Cast { expr, .. } if matches!(expr.as_ref(), LeafExpr::Literal(..)) => {
                    computed(&cast)?
                }
                _ => cast,
            }
        }
        LeafExpr::Binary { op, left, right } => LeafExpr::Binary {
            op: *op,
            left: boxed(left)?,
            right: boxed(right)?,
        },
        LeafExpr::Not(inner) => LeafExpr::Not(boxed(inner)?),
        LeafExpr::Negative(inner) => LeafExpr::Negative(boxed(inner)?),
        LeafExpr::IsNull(inner) => LeafExpr::IsNull(boxed(inner)?),
        LeafExpr::Case {
            base,
            branches,
            otherwise,
        } => LeafExpr::Case {
            base: base.as_deref().map(boxed).transpose()?,
            branches: branches
                .iter()
                .map(|(when, then)| Ok((bind(when, values)?, bind(then, values)?)))
                .collect::<Result<_>>()?,
            otherwise: otherwise.as_deref().map(boxed).transpose()?,
        },
        LeafExpr::Call {
            function,
            args,
            returns,
        } => LeafExpr::Call {
            function: function.clone(),
            args: args
                .iter()
                .map(|a| bind(a, values))
                .collect::<Result<_>>()?,
            returns: returns.clone(),
        },
    })
}

/// The value of an expression without columns.
fn computed(expr: &LeafExpr) -> Result<LeafExpr> {
    let schema = Arc::new(Schema::empty());
    let invalid = |e: datafusion::error::DataFusionError| crate::error::from_datafusion(&e);
    let row = RecordBatch::try_new_with_options(
        Arc::clone(&schema),
        vec![],
        &RecordBatchOptions::new().with_row_count(Some(1)),
    )
    .map_err(|e| Error::internal(e.to_string()))?;
    let array = physical_expr(expr, &schema, &[])?
        .evaluate(&row)
        .and_then(|v| v.into_array(1))
        .map_err(invalid)?;
    let scalar = ScalarValue::try_from_array(&array, 0).map_err(invalid)?;
    let value = value_of(&scalar).ok_or_else(|| {
        Error::internal(format!(
            "a literal became a {}, which does not travel",
            scalar.data_type()
        ))
    })?;
    Ok(LeafExpr::Literal(value, scalar.data_type()))
}
