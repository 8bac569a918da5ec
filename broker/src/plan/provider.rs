//! Tables as DataFusion plans over them.

use crate::bind::Halves;
use crate::error::to_datafusion;
use crate::functions::text_match::with_settings;
use crate::plan::filter::{all, to_filter};
use crate::plan::leaf_exec::LeafExec;
use crate::plan::parameter;
use crate::plan::to_leaf::{Input, to_leaf};
use crate::plan_cache::literal_index;
use crate::server_side::SystemTables;
use crate::tables::NamedTable;
use async_trait::async_trait;
use datafusion::arrow::datatypes::{Field, Schema as ArrowSchema, SchemaRef};
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::create_physical_expr;
use datafusion::physical_plan::ExecutionPlan;
use std::fmt;
use std::sync::Arc;
use strandline_proto::Error;
use strandline_proto::catalog::TableSnapshot;
use strandline_proto::leaf::{LeafExpr, LeafOutput, LeafWork};
use strandline_proto::schema::{Schema, virtual_columns};

/// A table whose rows a leaf reads.
#[derive(Debug)]
pub struct LeafTable {
    name: Arc<str>,
    halves: Halves,
    table_schema: Arc<Schema>,
    arrow_schema: SchemaRef,
    rows_estimate: u64,
    /// Whether filters go to the leaf.
    use_leaf_pushdown: bool,
}

impl LeafTable {
    /// A table, with its virtual columns behind the others when the statement names any.
    pub fn new(
        table: &TableSnapshot,
        halves: Halves,
        with_virtual_columns: bool,
        use_leaf_pushdown: bool,
    ) -> Self {
        let mut fields: Vec<Field> = table
            .schema
            .columns
            .iter()
            .map(|c| with_settings(c.arrow_field(), table.text.get(&c.name)))
            .collect();
        if with_virtual_columns {
            fields.extend(
                virtual_columns::ALL
                    .iter()
                    .map(|(name, data_type)| Field::new(*name, data_type.clone(), true)),
            );
        }
        let rows_estimate = table
            .segments
            .iter()
            .filter(|s| halves == Halves::Covered || halves == Halves::Whole(s.half))
            .map(|s| s.rows)
            .sum();
        Self {
            name: Arc::clone(&table.name),
            halves,
            table_schema: Arc::clone(&table.schema),
            arrow_schema: Arc::new(ArrowSchema::new(fields)),
            rows_estimate,
            use_leaf_pushdown,
        }
    }

    /// The filter that a leaf can apply, or none when it stays above.
    fn filter(&self, expr: &Expr) -> Option<LeafExpr> {
        if !self.use_leaf_pushdown {
            return None;
        }
        let unqualified = expr
            .clone()
            .transform(|e| match e {
                Expr::Column(c) if c.relation.is_some() => Ok(Transformed::yes(Expr::Column(
                    Column::new_unqualified(c.name),
                ))),
                Expr::Placeholder(Placeholder {
                    id,
                    field: Some(field),
                }) => match literal_index(&id) {
                    Some(index) => Ok(Transformed::yes(parameter::call(
                        index,
                        field.data_type().clone(),
                    ))),
                    None => Ok(Transformed::no(Expr::Placeholder(Placeholder {
                        id,
                        field: Some(field),
                    }))),
                },
                other => Ok(Transformed::no(other)),
            })
            .data()
            .ok()?;
        let schema = DFSchema::try_from(Arc::clone(&self.arrow_schema)).ok()?;
        let physical = create_physical_expr(
            &unqualified,
            &schema,
            &ExecutionProps::new(),
            &PhysicalPlanningContext::default(),
        )
        .ok()?;
        to_leaf(&physical, &self.inputs())
    }

    fn inputs(&self) -> Vec<Input> {
        self.arrow_schema
            .fields()
            .iter()
            .map(|f| Input::Expr(LeafExpr::Column(f.name().clone())))
            .collect()
    }
}

#[async_trait]
impl TableProvider for LeafTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.arrow_schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|f| match self.filter(f) {
                Some(_) => TableProviderFilterPushDown::Exact,
                None => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.arrow_schema.project(columns)?),
            None => Arc::clone(&self.arrow_schema),
        };
        let mut parts = Vec::with_capacity(filters.len());
        let mut unbound = Vec::new();
        for filter in filters {
            let expr = self.filter(filter).ok_or_else(|| {
                to_datafusion(Error::internal(format!(
                    "the leaf took the filter {filter} and can't apply it"
                )))
            })?;
            if parameter::has_parameters(&expr) {
                unbound.push(expr)
            } else {
                parts.push(to_filter(expr, &self.table_schema))
            }
        }
        let project = schema
            .fields()
            .iter()
            .map(|f| LeafExpr::Column(f.name().clone()))
            .collect();
        let work = LeafWork {
            filter: all(parts, &self.table_schema),
            output: LeafOutput::Rows {
                project,
                limit,
                order: Vec::new(),
            },
            schema,
        };
        let scan = LeafExec::new(
            Arc::clone(&self.name),
            self.halves,
            Arc::clone(&self.table_schema),
            work,
            self.rows_estimate,
        );
        Ok(Arc::new(scan.with_unbound(unbound)))
    }
}

/// A table of the `system` schema, whose rows are read when the statement is planned.
pub struct SystemTable {
    name: String,
    schema: SchemaRef,
    rows: Arc<dyn SystemTables>,
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTable")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.rows.rows(&self.name).await.map_err(to_datafusion)?;
        MemTable::try_new(Arc::clone(&self.schema), vec![rows])?
            .scan(state, projection, filters, limit)
            .await
    }
}

/// The provider of a table that a statement names.
pub(crate) fn provider(
    table: &NamedTable,
    system: &Arc<dyn SystemTables>,
    with_virtual_columns: bool,
    use_leaf_pushdown: bool,
) -> Arc<dyn TableProvider> {
    match table {
        NamedTable::Leaf { table, halves } => Arc::new(LeafTable::new(
            table,
            *halves,
            with_virtual_columns,
            use_leaf_pushdown,
        )),
        NamedTable::System { name, schema } => Arc::new(SystemTable {
            name: name.clone(),
            schema: Arc::clone(schema),
            rows: Arc::clone(system),
        }),
    }
}
