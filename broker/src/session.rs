//! DataFusion as we set it up: which rules run, which functions exist, and what is off.

use crate::extremes;
use crate::functions;
use crate::functions::text_match::TextSettingsRule;
use crate::multi_value::{MultiValuePlanner, MultiValueRule};
use crate::plan::one_zero::OneZero;
use crate::plan::pushdown::LeafPushdown;
use crate::plan::yielding::YieldingJoins;
use crate::request::BrokerOptions;
use datafusion::common::config::ConfigOptions;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::context::SessionConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::optimizer::analyzer::Analyzer;
use datafusion::optimizer::optimizer::Optimizer;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use std::sync::Arc;
use strandline_proto::{Error, Result};

/// The environment that all queries share: memory and spill space.
pub(crate) fn runtime(options: &BrokerOptions) -> Result<Arc<RuntimeEnv>> {
    let mode = match &options.spill_dir {
        Some(dir) => DiskManagerMode::Directories(vec![dir.clone()]),
        None => DiskManagerMode::Disabled,
    };
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(options.memory_bytes_max)))
        .with_disk_manager_builder(
            DiskManagerBuilder::default()
                .with_mode(mode)
                .with_max_temp_directory_size(options.spill_bytes_max),
        )
        .build_arc()
        .map_err(|e| {
            Error::precondition(format!(
                "the spill directory can't be used: {}",
                e.strip_backtrace()
            ))
        })
}

/// The configuration of every query.
pub(crate) fn config(options: &BrokerOptions) -> SessionConfig {
    let mut config = ConfigOptions::default();
    config.sql_parser.enable_ident_normalization = false;
    config.sql_parser.map_string_types_to_utf8view = false;
    config.sql_parser.collect_spans = true;
    // Filters that are found while a query runs would make its plan unfit to be run again.
    config.optimizer.enable_dynamic_filter_pushdown = false;
    config.optimizer.enable_join_dynamic_filter_pushdown = false;
    config.optimizer.enable_topk_dynamic_filter_pushdown = false;
    config.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // It takes each NaN for a group of its own, and panics when it drops one.
    config.optimizer.enable_topk_aggregation = false;
    config.catalog.information_schema = false;
    SessionConfig::from(config)
        .with_target_partitions(options.partitions.max(2))
        .with_batch_size(options.batch_rows)
}

/// The state that statements are planned with; with or without the rule that hands work to the leaf.
pub(crate) fn state(
    options: &BrokerOptions,
    runtime: &Arc<RuntimeEnv>,
    leaf_pushdown: Option<LeafPushdown>,
) -> SessionState {
    let mut analyzer = Analyzer::new();
    analyzer.rules.insert(0, Arc::new(MultiValueRule));
    analyzer.rules.insert(1, Arc::new(TextSettingsRule));
    let mut optimizer = Optimizer::new();
    // count(DISTINCT x) has partial states of its own; as a GROUP BY it could not stand beside other aggregates in the leaf.
    optimizer
        .rules
        .retain(|rule| rule.name() != "single_distinct_aggregation_to_group_by");
    optimizer.rules.push(Arc::new(OneZero));
    let mut physical = PhysicalOptimizer::new().rules;
    if let Some(rule) = leaf_pushdown {
        let after_filters = physical
            .iter()
            .position(|rule| rule.name() == "FilterPushdown")
            .map_or(0, |at| at + 1);
        let rule: Arc<dyn PhysicalOptimizerRule + Send + Sync> = Arc::new(rule);
        physical.insert(after_filters, rule);
    }
    physical.push(Arc::new(YieldingJoins));
    let mut expr_planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(MultiValuePlanner)];
    expr_planners.extend(SessionStateDefaults::default_expr_planners());
    SessionStateBuilder::new()
        .with_config(config(options))
        .with_runtime_env(Arc::clone(runtime))
        .with_analyzer_rules(analyzer.rules)
        .with_optimizer_rules(optimizer.rules)
        .with_physical_optimizer_rules(physical)
        .with_expr_planners(expr_planners)
        .with_scalar_functions(functions::in_order())
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(
            SessionStateDefaults::default_aggregate_functions()
                .into_iter()
                .map(extremes::corrected)
                .collect(),
        )
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(SessionStateDefaults::default_table_functions())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{AsArray, Float64Array, Int32Array, RecordBatch};
    use datafusion::arrow::datatypes::Float64Type;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn a_nan_is_one_group_also_when_only_the_first_groups_are_wanted() {
        let context = SessionContext::new_with_config(config(&BrokerOptions::default()));
        let keys: Float64Array = (0..64)
            .map(|i| [f64::NAN, f64::from(i)][i as usize % 2])
            .collect();
        let values: Int32Array = (0..64).collect();
        let batch =
            RecordBatch::try_from_iter([("k", Arc::new(keys) as _), ("v", Arc::new(values) as _)])
                .unwrap();
        context.register_batch("t", batch).unwrap();
        let sql = "SELECT k, max(v) FROM t GROUP BY k ORDER BY max(v) DESC LIMIT 3";
        let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
        let keys: Vec<f64> = rows
            .iter()
            .flat_map(|batch| {
                batch
                    .column(0)
                    .as_primitive::<Float64Type>()
                    .values()
                    .to_vec()
            })
            .collect();
        assert!(
            keys[0] == 63.0 && keys[1].is_nan() && keys[2] == 61.0,
            "{keys:?}"
        );
    }
}
