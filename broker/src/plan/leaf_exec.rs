//! The scan node: one leaf query over both halves of a table.
//!
//! It claims no order, no uniqueness, and no exact statistics (those get baked into plans as literals). It holds
//! no segments and no boundary: these are bound when it runs, from the [`QueryRun`] in the session's configuration.

use crate::bind::{Halves, QueryRun};
use crate::error::to_datafusion;
use crate::plan::display::Shown;
use crate::plan::filter::{all, keeps_all, to_filter};
use crate::plan::parameter;
use datafusion::arrow::array::RecordBatchOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, Statistics, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{
    Boundedness, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties,
};
use futures::{StreamExt, TryStreamExt};
use std::fmt::{self, Formatter};
use std::sync::Arc;
use std::time::Instant;
use strandline_proto::leaf::{LeafExpr, LeafOutput, LeafWork};
use strandline_proto::schema::Schema;
use strandline_proto::value::Value;

/// Scans one table by a leaf query.
#[derive(Debug)]
pub struct LeafExec {
    table: Arc<str>,
    halves: Halves,
    table_schema: Arc<Schema>,
    work: Arc<LeafWork>,
    /// Further conditions, whose literals are bound when it runs.
    unbound: Vec<LeafExpr>,
    rows_estimate: u64,
    properties: Arc<PlanProperties>,
}

impl LeafExec {
    /// A scan of `table`. `rows_estimate` is the size of the whole table, for the join order.
    pub fn new(
        table: Arc<str>,
        halves: Halves,
        table_schema: Arc<Schema>,
        work: LeafWork,
        rows_estimate: u64,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&work.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self {
            table,
            halves,
            table_schema,
            work: Arc::new(work),
            unbound: Vec::new(),
            rows_estimate,
            properties: Arc::new(properties),
        }
    }

    /// The same scan with other work.
    pub fn with_work(&self, work: LeafWork) -> Self {
        Self::new(
            Arc::clone(&self.table),
            self.halves,
            Arc::clone(&self.table_schema),
            work,
            self.rows_estimate,
        )
        .with_unbound(self.unbound.clone())
    }

    /// The same scan with conditions that are bound when it runs.
    pub fn with_unbound(mut self, unbound: Vec<LeafExpr>) -> Self {
        self.unbound = unbound;
        self
    }

    /// The work with the literals of a run.
    fn bound_work(&self, values: &[Value]) -> strandline_proto::Result<Arc<LeafWork>> {
        if self.unbound.is_empty() {
            return Ok(Arc::clone(&self.work));
        }
        let mut parts = vec![self.work.filter.clone()];
        for expr in &self.unbound {
            parts.push(to_filter(
                parameter::bind(expr, values)?,
                &self.table_schema,
            ));
        }
        Ok(Arc::new(LeafWork {
            filter: all(parts, &self.table_schema),
            output: self.work.output.clone(),
            schema: Arc::clone(&self.work.schema),
        }))
    }

    /// The table's name, without `_OFFLINE` or `_REALTIME`.
    pub fn table(&self) -> &Arc<str> {
        &self.table
    }

    /// Which rows of the table are read.
    pub fn halves(&self) -> Halves {
        self.halves
    }

    /// The table's schema.
    pub fn table_schema(&self) -> &Arc<Schema> {
        &self.table_schema
    }

    /// What the leaf computes.
    pub fn work(&self) -> &Arc<LeafWork> {
        &self.work
    }

    /// The table as a statement names it.
    pub fn shown_table(&self) -> String {
        match self.halves {
            Halves::Covered => self.table.to_string(),
            Halves::Whole(half) => format!("{}_{half}", self.table),
        }
    }
}

impl DisplayAs for LeafExec {
    fn fmt_as(&self, _t: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LeafExec: table={}, {}",
            self.shown_table(),
            Shown(&self.work.output)
        )?;
        if keeps_all(&self.work.filter) {
            Ok(())
        } else {
            write!(f, ", filter={}", Shown(&self.work.filter))
        }
    }
}

impl ExecutionPlan for LeafExec {
    fn name(&self) -> &str {
        "LeafExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !children.is_empty() {
            return internal_err!("a leaf scan has no children");
        }
        Ok(self)
    }

    fn with_new_children(
        self: Arc<Self>,
        _children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("a leaf scan has one partition, not {partition}");
        }
        let Some(run) = context.session_config().get_extension::<QueryRun>() else {
            return internal_err!("a leaf scan runs only within a query of the broker");
        };
        let work = self.bound_work(&run.parameters).map_err(to_datafusion)?;
        let bound = run
            .bind(&self.table, self.halves, &work)
            .map_err(to_datafusion)?;
        let schema = Arc::clone(&self.work.schema);
        let mut leaf_context = run.context();
        match &run.scans {
            Some(scans) => leaf_context.stats = scans.begin(self.node(), &bound),
            None => bound.count_pruned(&leaf_context.stats),
        }
        let mut left = match &self.work.output {
            LeafOutput::Rows {
                limit: Some(limit), ..
            } => *limit,
            _ => usize::MAX,
        };
        let conform_to = Arc::clone(&schema);
        let node = self.node();
        let timed = Arc::clone(&run);
        let started = Instant::now();
        let stream =
            futures::stream::once(
                async move { run.transport.run(bound.query, leaf_context).await },
            )
            .try_flatten()
            .map(move |batch| {
                let batch = conform(&batch.map_err(to_datafusion)?, &conform_to)?;
                let kept = if batch.num_rows() > left {
                    batch.slice(0, left)
                } else {
                    batch
                };
                left -= kept.num_rows();
                if let Some(scans) = &timed.scans {
                    scans.progress(node, kept.num_rows(), started.elapsed());
                }
                Ok(kept)
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }

    fn statistics_from_inputs(
        &self,
        _input_stats: &[Arc<Statistics>],
        _args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        let filtered = if keeps_all(&self.work.filter) {
            self.rows_estimate
        } else {
            self.rows_estimate / 5
        };
        let rows = match &self.work.output {
            LeafOutput::Rows { limit, .. } => {
                limit.map_or(filtered, |limit| filtered.min(limit as u64))
            }
            LeafOutput::Aggregate { group, .. } if group.is_empty() => 1,
            LeafOutput::Aggregate { .. } => filtered / 10,
        };
        statistics.num_rows = Precision::Inexact(usize::try_from(rows).unwrap_or(usize::MAX));
        Ok(Arc::new(statistics))
    }
}

impl LeafExec {
    /// What tells this scan from the others of its plan.
    pub fn node(&self) -> usize {
        Arc::as_ptr(&self.work) as usize
    }
}

/// The batch under the plan's own schema; an error when a leaf answered with other types or with nulls where none may be.
fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch.clone());
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)
        .map_err(|e| {
            to_datafusion(strandline_proto::Error::internal(format!(
                "a leaf answered with other columns than it was asked for: {e}"
            )))
        })
}
