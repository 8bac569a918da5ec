//! Where multi-value semantics enter a plan: while SQL becomes expressions, for operators whose types are checked
//! there, and in an analyzer rule before type coercion, for the rest and for GROUP BY.

use super::{ELEMENTS, Test, functions};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue, UnnestOptions, plan_err};
use datafusion::logical_expr::expr::{Between, BinaryExpr, InList, InSubquery, Like};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    Aggregate, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, not,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::BinaryOperator;
use std::sync::Arc;

/// Plans comparisons of multi-value columns while SQL becomes expressions.
#[derive(Debug)]
pub struct MultiValuePlanner;

impl ExprPlanner for MultiValuePlanner {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let op = match expr.op {
            BinaryOperator::Eq => Operator::Eq,
            BinaryOperator::NotEq => Operator::NotEq,
            BinaryOperator::Lt => Operator::Lt,
            BinaryOperator::LtEq => Operator::LtEq,
            BinaryOperator::Gt => Operator::Gt,
            BinaryOperator::GtEq => Operator::GtEq,
            BinaryOperator::PGRegexMatch => Operator::RegexMatch,
            BinaryOperator::PGRegexNotMatch => Operator::RegexNotMatch,
            BinaryOperator::PGRegexIMatch => Operator::RegexIMatch,
            BinaryOperator::PGRegexNotIMatch => Operator::RegexNotIMatch,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        Ok(match any_value(&expr.left, op, &expr.right, schema) {
            Some(planned) => PlannerResult::Planned(planned),
            None => PlannerResult::Original(expr),
        })
    }
}

/// Gives multi-value columns their meaning in predicates and in GROUP BY. Runs before type coercion.
#[derive(Debug)]
pub struct MultiValueRule;

impl AnalyzerRule for MultiValueRule {
    fn name(&self) -> &str {
        "multi_value"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let plan = rewrite_expressions(plan)?;
            let changed = plan.transformed;
            let plan = plan.data;
            match plan {
                LogicalPlan::Aggregate(aggregate) => {
                    let exploded = explode(aggregate)?;
                    Ok(Transformed::new_transformed(
                        exploded.data,
                        changed || exploded.transformed,
                    ))
                }
                other => Ok(Transformed::new_transformed(other, changed)),
            }
        })
        .map(|t| t.data)
    }
}

fn rewrite_expressions(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let mut schema = merge_schema(&plan.inputs());
    if let LogicalPlan::TableScan(scan) = &plan {
        schema.merge(&DFSchema::try_from_qualified_schema(
            scan.table_name.clone(),
            &scan.source.schema(),
        )?);
    }
    // Only plans over lists can change; most plans have none.
    let names = NamePreserver::new(&plan);
    let rewritten = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = expr.transform_up(|e| predicate(e, &schema))?;
        Ok(if expr.transformed {
            expr.update_data(|e| name.restore(e))
        } else {
            expr
        })
    })?;
    if rewritten.transformed {
        rewritten.map_data(LogicalPlan::recompute_schema)
    } else {
        Ok(rewritten)
    }
}

fn predicate(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let planned = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => any_value(left, *op, right, schema),
        Expr::InList(InList {
            expr: tested,
            list,
            negated,
        }) if is_list(tested, schema) => {
            let mut args = vec![tested.as_ref().clone()];
            args.extend(list.iter().cloned());
            Some(call(Test::In, *negated, args))
        }
        Expr::Between(Between {
            expr: tested,
            negated,
            low,
            high,
        }) if is_list(tested, schema) => Some(call(
            Test::Between,
            *negated,
            vec![
                tested.as_ref().clone(),
                low.as_ref().clone(),
                high.as_ref().clone(),
            ],
        )),
        Expr::Like(Like {
            negated,
            expr: tested,
            pattern,
            escape_char,
            case_insensitive,
        }) if is_list(tested, schema) => {
            if escape_char.is_some_and(|c| c != '\\') {
                return plan_err!(
                    "not supported: LIKE with another escape character than a backslash on a multi-value column"
                );
            }
            let test = if *case_insensitive {
                Test::ILike
            } else {
                Test::Like
            };
            Some(call(
                test,
                *negated,
                vec![tested.as_ref().clone(), pattern.as_ref().clone()],
            ))
        }
        Expr::InSubquery(InSubquery { expr: tested, .. }) if is_list(tested, schema) => {
            return plan_err!(
                "not supported: IN (SELECT ...) on the multi-value column {tested}; unnest it first: SELECT ... FROM (SELECT unnest({tested}) AS x ...) WHERE x IN (...)"
            );
        }
        _ => None,
    };
    Ok(planned.map_or_else(|| Transformed::no(expr), Transformed::yes))
}

fn is_list(expr: &Expr, schema: &DFSchema) -> bool {
    matches!(expr.get_type(schema), Ok(DataType::List(_)))
}

/// `left op right` when exactly one side is a list.
fn any_value(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    let (list, op, scalar) = match (is_list(left, schema), is_list(right, schema)) {
        (true, false) => (left, op, right),
        (false, true) => (right, op.swap()?, left),
        _ => return None,
    };
    // A bare NULL compares as it does anywhere.
    let (test, negated) = match op {
        Operator::Eq => (Test::Eq, false),
        Operator::NotEq => (Test::Eq, true),
        Operator::Lt => (Test::Lt, false),
        Operator::LtEq => (Test::LtEq, false),
        Operator::Gt => (Test::Gt, false),
        Operator::GtEq => (Test::GtEq, false),
        Operator::RegexMatch => (Test::Regex, false),
        Operator::RegexNotMatch => (Test::Regex, true),
        Operator::RegexIMatch => (Test::IRegex, false),
        Operator::RegexNotIMatch => (Test::IRegex, true),
        _ => return None,
    };
    let scalar = narrowed(scalar, list, schema).unwrap_or_else(|| scalar.clone());
    Some(call(test, negated, vec![list.clone(), scalar]))
}

/// A literal in the type of the list's elements, when it is the same number there, so that the column needs no cast.
fn narrowed(scalar: &Expr, list: &Expr, schema: &DFSchema) -> Option<Expr> {
    let Expr::Literal(value, metadata) = scalar else {
        return None;
    };
    let Ok(DataType::List(field)) = list.get_type(schema) else {
        return None;
    };
    if !value.data_type().is_integer() || !field.data_type().is_integer() {
        return None;
    }
    let narrow: ScalarValue = value.cast_to(field.data_type()).ok()?;
    (!narrow.is_null()).then(|| Expr::Literal(narrow, metadata.clone()))
}

fn call(test: Test, negated: bool, args: Vec<Expr>) -> Expr {
    let call = test.function().call(args);
    if negated { not(call) } else { call }
}

/// GROUP BY on a multi-value column: one row for each value.
fn explode(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let input_schema = Arc::clone(aggregate.input.schema());
    let lists: Vec<usize> = (0..aggregate.group_expr.len())
        .filter(|i| {
            matches!(&aggregate.group_expr[*i], Expr::Column(_))
                && is_list(&aggregate.group_expr[*i], &input_schema)
        })
        .collect();
    if lists.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let Some(elements) = functions().iter().find(|f| f.name() == ELEMENTS) else {
        return plan_err!("{ELEMENTS} is not registered");
    };
    let before = Arc::clone(&aggregate.schema);
    let mut input = LogicalPlanBuilder::from(aggregate.input.as_ref().clone());
    let mut group_expr = aggregate.group_expr.clone();
    for i in lists {
        let name = format!("$element{i}");
        let mut project: Vec<Expr> = input
            .schema()
            .columns()
            .into_iter()
            .map(Expr::Column)
            .collect();
        project.push(elements.call(vec![group_expr[i].clone()]).alias(&name));
        let column = Column::new_unqualified(&name);
        input = input
            .project(project)?
            .unnest_column_with_options(column.clone(), UnnestOptions::default())?;
        group_expr[i] = Expr::Column(column);
    }
    let exploded = LogicalPlan::Aggregate(Aggregate::try_new(
        Arc::new(input.build()?),
        group_expr,
        aggregate.aggr_expr,
    )?);
    // The columns keep their names; those of the exploded ones are now of the element's type.
    let renamed = before
        .iter()
        .zip(exploded.schema().columns())
        .map(|((qualifier, field), column)| {
            let same = column.relation.as_ref() == qualifier && column.name == *field.name();
            let expr = Expr::Column(column);
            if same {
                expr
            } else {
                expr.alias_qualified(qualifier.cloned(), field.name())
            }
        })
        .collect::<Vec<_>>();
    Ok(Transformed::yes(
        LogicalPlanBuilder::from(exploded)
            .project(renamed)?
            .build()?,
    ))
}
