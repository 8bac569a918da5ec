//! The rule that gives IN lists one zero.
//!
//! Columns hold one zero, and comparisons take -0.0 for it. DataFusion's IN lists compare bits, so that a list of -0.0
//! would miss the zeros of a column where the list is evaluated above the leaf.

use datafusion::common::Result;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// See the module.
#[derive(Debug)]
pub(crate) struct OneZero;

impl OptimizerRule for OneZero {
    fn name(&self) -> &str {
        "one_zero"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr
                .transform_up(one_zero)?
                .update_data(|expr| name.restore(expr)))
        })
    }
}

fn one_zero(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::InList(mut list) = expr else {
        return Ok(Transformed::no(expr));
    };
    let mut changed = false;
    for item in &mut list.list {
        match item {
            // The pattern 0.0 takes in -0.0.
            Expr::Literal(ScalarValue::Float32(Some(v @ 0.0)), _) => {
                changed |= v.is_sign_negative();
                *v = 0.0;
            }
            Expr::Literal(ScalarValue::Float64(Some(v @ 0.0)), _) => {
                changed |= v.is_sign_negative();
                *v = 0.0;
            }
            _ => {}
        }
    }
    Ok(Transformed::new_transformed(Expr::InList(list), changed))
}
