//! The physical rule that hands aggregation and top-k to the leaf.
//!
//! Runs after filters are pushed down and before distribution is decided. A partial aggregation over a leaf scan becomes a
//! leaf scan that emits exactly the aggregation's partial-state schema; DataFusion's final aggregation stays above
//! and merges. Where a leaf's answer holds each group once there is nothing to merge: then the scan takes the final
//! aggregation's place as well and emits its schema. What the leaf can't express is left as it is.

use crate::multi_value::ELEMENTS;
use crate::plan::filter::{constant, to_filter};
use crate::plan::leaf_exec::LeafExec;
use crate::plan::to_leaf::{Input, to_leaf};
use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use std::sync::Arc;
use strandline_proto::leaf::{
    AggregateFunction, GroupKey, LeafAggregate, LeafExpr, LeafFilter, LeafOutput, LeafWork, SortKey,
};
use strandline_proto::value::Value;

/// See the module.
#[derive(Debug)]
pub struct LeafPushdown {
    /// See [`LeafTransport::answers_whole`](crate::transport::LeafTransport::answers_whole).
    pub answers_whole: bool,
}

impl PhysicalOptimizerRule for LeafPushdown {
    fn name(&self) -> &str {
        "leaf_pushdown"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if let Some(aggregate) = plan.downcast_ref::<AggregateExec>()
                && let Some(scan) = aggregate_scan(aggregate)
            {
                return Ok(Transformed::yes(Arc::new(scan)));
            }
            if self.answers_whole
                && let Some(aggregate) = plan.downcast_ref::<AggregateExec>()
                && let Some(scan) = final_scan(aggregate)
            {
                return Ok(Transformed::yes(Arc::new(scan)));
            }
            if let Some(sort) = plan.downcast_ref::<SortExec>()
                && let Some(input) = top_scan(sort)?
            {
                let sort = SortExec::new(sort.expr().clone(), input)
                    .with_fetch(sort.fetch())
                    .with_preserve_partitioning(sort.preserve_partitioning());
                return Ok(Transformed::yes(Arc::new(sort)));
            }
            Ok(Transformed::no(plan))
        })
        .data()
    }
}

/// A leaf scan of rows without a limit, and what its consumer's input columns are to it.
struct Source<'a> {
    scan: &'a LeafExec,
    inputs: Vec<Input>,
}

fn source(plan: &Arc<dyn ExecutionPlan>) -> Option<Source<'_>> {
    if let Some(scan) = plan.downcast_ref::<LeafExec>() {
        let LeafOutput::Rows {
            project,
            limit: None,
            ..
        } = &scan.work().output
        else {
            return None;
        };
        return Some(Source {
            scan,
            inputs: project.iter().cloned().map(Input::Expr).collect(),
        });
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let below = source(projection.input())?;
        let inputs = projection
            .expr()
            .iter()
            .map(|p| project(&p.expr, &below.inputs))
            .collect();
        return Some(Source {
            scan: below.scan,
            inputs,
        });
    }
    if let Some(unnest) = plan.downcast_ref::<UnnestExec>() {
        return unnested(unnest);
    }
    None
}

fn project(expr: &Arc<dyn PhysicalExpr>, inputs: &[Input]) -> Input {
    if let Some(column) = expr.downcast_ref::<datafusion::physical_expr::expressions::Column>() {
        return inputs
            .get(column.index())
            .cloned()
            .unwrap_or(Input::Unknown);
    }
    to_leaf(expr, inputs).map_or(Input::Unknown, Input::Expr)
}

/// An unnesting of `mv_elements(column)`, which is how GROUP BY on a multi-value column is planned.
fn unnested(unnest: &UnnestExec) -> Option<Source<'_>> {
    let below = source(unnest.input())?;
    if !unnest.struct_column_indices().is_empty()
        || unnest.schema().fields().len() != below.inputs.len()
    {
        return None;
    }
    let [list] = unnest.list_column_indices() else {
        return None;
    };
    if list.depth != 1 {
        return None;
    }
    let mut inputs = below.inputs;
    let exploded = inputs.get_mut(list.index_in_input_schema)?;
    let Input::Expr(LeafExpr::Call { function, args, .. }) = exploded else {
        return None;
    };
    if function != ELEMENTS {
        return None;
    }
    let column = args
        .first()
        .filter(|a| matches!(a, LeafExpr::Column(_)))?
        .clone();
    *exploded = Input::Element(column);
    Some(Source {
        scan: below.scan,
        inputs,
    })
}

fn aggregate_scan(aggregate: &AggregateExec) -> Option<LeafExec> {
    if *aggregate.mode() != AggregateMode::Partial || aggregate.group_expr().has_grouping_set() {
        return None;
    }
    let source = source(aggregate.input())?;
    let schema = aggregate.input().schema();
    let mut elements = 0;
    let mut group = Vec::with_capacity(aggregate.group_expr().expr().len());
    for (expr, _) in aggregate.group_expr().expr() {
        let key = match project(expr, &source.inputs) {
            Input::Expr(expr) => GroupKey {
                expr,
                explode: false,
            },
            Input::Element(expr) => {
                elements += 1;
                GroupKey {
                    expr,
                    explode: true,
                }
            }
            Input::Unknown => return None,
        };
        if !is_leaf_type(&expr.data_type(&schema).ok()?) {
            return None;
        }
        group.push(key);
    }
    // A row is repeated for each element that is grouped by, and only then.
    if elements
        != source
            .inputs
            .iter()
            .filter(|i| matches!(i, Input::Element(_)))
            .count()
    {
        return None;
    }
    let mut aggregates = Vec::with_capacity(aggregate.aggr_expr().len());
    for (function, filter) in aggregate.aggr_expr().iter().zip(aggregate.filter_expr()) {
        let filter = match filter {
            Some(filter) => Some(to_filter(
                to_leaf(filter, &source.inputs)?,
                source.scan.table_schema(),
            )),
            None => None,
        };
        aggregates.push(leaf_aggregate(function, filter, &source.inputs, &schema)?);
    }
    let work = LeafWork {
        filter: source.scan.work().filter.clone(),
        output: LeafOutput::Aggregate { group, aggregates },
        schema: aggregate.schema(),
    };
    Some(source.scan.with_work(work))
}

/// The scan that gives what a final aggregation makes of a leaf's states.
fn final_scan(aggregate: &AggregateExec) -> Option<LeafExec> {
    if !matches!(
        aggregate.mode(),
        AggregateMode::Final | AggregateMode::FinalPartitioned
    ) {
        return None;
    }
    let scan = aggregate.input().downcast_ref::<LeafExec>()?;
    let LeafOutput::Aggregate { group, aggregates } = &scan.work().output else {
        return None;
    };
    let keys = aggregate.group_expr().expr();
    let keys_in_place = keys.iter().enumerate().all(|(place, (expr, _))| {
        expr.downcast_ref::<datafusion::physical_expr::expressions::Column>()
            .is_some_and(|column| column.index() == place)
    });
    let schema = aggregate.schema();
    if keys.len() != group.len()
        || !keys_in_place
        || schema.fields().len() != group.len() + aggregates.len()
    {
        return None;
    }
    let mut states = scan.work().schema.fields().iter().skip(group.len());
    let mut finals = schema.fields().iter().skip(group.len());
    let mut finished = Vec::with_capacity(aggregates.len());
    for aggregate in aggregates {
        let (state, value) = (states.next()?.data_type(), finals.next()?.data_type());
        let function = match (aggregate.function, value) {
            (AggregateFunction::CountDistinct, DataType::Int64) => {
                AggregateFunction::FinalCountDistinct
            }
            (AggregateFunction::Avg, DataType::Float64)
                if *states.next()?.data_type() == DataType::Float64 =>
            {
                AggregateFunction::FinalAvg
            }
            (
                AggregateFunction::Count
                | AggregateFunction::Sum
                | AggregateFunction::Min
                | AggregateFunction::Max,
                value,
            ) if state == value => aggregate.function,
            _ => return None,
        };
        finished.push(LeafAggregate {
            function,
            ..aggregate.clone()
        });
    }
    let work = LeafWork {
        filter: scan.work().filter.clone(),
        output: LeafOutput::Aggregate {
            group: group.clone(),
            aggregates: finished,
        },
        schema,
    };
    Some(scan.with_work(work))
}

/// Types that a leaf groups by and keeps states of: those of columns.
fn is_leaf_type(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Boolean
            | DataType::Timestamp(TimeUnit::Millisecond, None)
            | DataType::Utf8
            | DataType::Binary
    )
}

/// Types of whose values a leaf makes DataFusion's sketches, in groups in their short form.
fn has_sketch(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int32
            | DataType::Int64
            | DataType::Timestamp(..)
            | DataType::Utf8
            | DataType::Binary
    )
}

fn leaf_aggregate(
    call: &AggregateFunctionExpr,
    filter: Option<LeafFilter>,
    inputs: &[Input],
    schema: &Schema,
) -> Option<LeafAggregate> {
    if !call.order_bys().is_empty() || call.ignore_nulls() || call.is_reversed() {
        return None;
    }
    let arguments = call.expressions();
    let [argument] = arguments.as_slice() else {
        return None;
    };
    let argument_type = argument.data_type(schema).ok()?;
    let leaf_argument = to_leaf(argument, inputs)?;
    let states = call.state_fields().ok()?;
    let state_types: Vec<&DataType> = states.iter().map(|f| f.data_type()).collect();
    if let LeafExpr::Literal(value, _) = &leaf_argument
        && call.fun().name() == "count"
        && !call.is_distinct()
    {
        // count(*) arrives as a count of a constant.
        return Some(match value {
            Value::Null => LeafAggregate {
                function: AggregateFunction::Count,
                argument: None,
                filter: Some(constant(false)),
            },
            _ => LeafAggregate {
                function: AggregateFunction::Count,
                argument: None,
                filter,
            },
        });
    }
    if !is_leaf_type(&argument_type) {
        return None;
    }
    let function = match (
        call.fun().name(),
        call.is_distinct(),
        state_types.as_slice(),
    ) {
        ("count", false, [DataType::Int64]) => AggregateFunction::Count,
        ("count", true, [DataType::List(field)]) if *field.data_type() == argument_type => {
            AggregateFunction::CountDistinct
        }
        ("approx_distinct", _, [DataType::Binary]) if has_sketch(&argument_type) => {
            AggregateFunction::ApproxDistinct
        }
        ("sum", false, [DataType::Int64]) if argument_type == DataType::Int64 => {
            AggregateFunction::Sum
        }
        ("sum", false, [DataType::Float64]) if argument_type == DataType::Float64 => {
            AggregateFunction::Sum
        }
        ("sum", false, [DataType::Decimal128(_, state_scale)]) if matches!(argument_type, DataType::Decimal128(_, s) if s == *state_scale) => {
            AggregateFunction::Sum
        }
        ("min", _, [state]) if **state == argument_type => AggregateFunction::Min,
        ("max", _, [state]) if **state == argument_type => AggregateFunction::Max,
        ("avg", false, [DataType::UInt64, DataType::Float64])
            if argument_type == DataType::Float64 =>
        {
            AggregateFunction::Avg
        }
        ("avg", false, [DataType::UInt64, DataType::Decimal128(_, state_scale)]) if matches!(argument_type, DataType::Decimal128(_, s) if s == *state_scale) => {
            AggregateFunction::Avg
        }
        _ => return None,
    };
    Some(LeafAggregate {
        function,
        argument: Some(leaf_argument),
        filter,
    })
}

/// The input of a sort of which only the first rows are wanted, with a leaf scan that keeps only those.
fn top_scan(sort: &SortExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(limit) = sort.fetch() else {
        return Ok(None);
    };
    let Some(source) = source(sort.input()) else {
        return Ok(None);
    };
    let LeafOutput::Rows { project, .. } = &source.scan.work().output else {
        return Ok(None);
    };
    if source.inputs.iter().any(|i| matches!(i, Input::Element(_))) {
        return Ok(None);
    }
    let schema = sort.input().schema();
    let mut order = Vec::with_capacity(sort.expr().len());
    for key in sort.expr() {
        let Some(expr) = to_leaf(&key.expr, &source.inputs) else {
            return Ok(None);
        };
        match key.expr.data_type(&schema) {
            Ok(data_type) if is_leaf_type(&data_type) => {}
            _ => return Ok(None),
        }
        order.push(SortKey {
            expr,
            descending: key.options.descending,
            nulls_first: key.options.nulls_first,
        });
    }
    let work = LeafWork {
        filter: source.scan.work().filter.clone(),
        output: LeafOutput::Rows {
            project: project.clone(),
            limit: Some(limit),
            order,
        },
        schema: Arc::clone(&source.scan.work().schema),
    };
    let scan: Arc<dyn ExecutionPlan> = Arc::new(source.scan.with_work(work));
    Arc::clone(sort.input())
        .transform_up(|plan| {
            Ok(if plan.downcast_ref::<LeafExec>().is_some() {
                Transformed::yes(Arc::clone(&scan))
            } else {
                Transformed::no(plan)
            })
        })
        .data()
        .map(Some)
}
