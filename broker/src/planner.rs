//! From a parsed query to a physical plan.

use crate::error::from_datafusion;
use crate::names::{self, Resolved, nearest};
use crate::options::QueryOptions;
use crate::plan::context::PlanningContext;
use crate::plan::provider::provider;
use crate::plan_cache;
use crate::server_side::SystemTables;
use crate::statement::place;
use crate::tables::Tables;
use datafusion::common::{ParamValues, ScalarValue, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as PlannerStatement;
use datafusion::sql::planner::{NullOrdering, ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::sync::Arc;
use strandline_proto::{Error, Result};

/// How many names one statement may have that only planning can settle.
const REPAIRS_MAX: usize = 64;

/// What planning needs beside the query.
pub(crate) struct Planner<'a> {
    /// Rules and functions; a copy for this statement, because it holds the time of `now()`.
    pub(crate) state: SessionState,
    /// The catalog.
    pub(crate) tables: &'a Tables,
    /// Rows of the `system` schema.
    pub(crate) system: &'a Arc<dyn SystemTables>,
    /// Options of the statement.
    pub(crate) options: &'a QueryOptions,
    /// The statement's text, for places in errors.
    pub(crate) sql: &'a str,
}

impl Planner<'_> {
    /// The physical plan of a query, with `$1`, `$2`, ... replaced by `parameters`.
    pub(crate) async fn plan(
        &self,
        query: Query,
        parameters: &[ScalarValue],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let logical = self.logical(query)?;
        let logical = match parameters {
            [] => logical,
            _ => logical
                .with_param_values(ParamValues::from(parameters.to_vec()))
                .map_err(|e| self.explained(&e))?,
        };
        self.physical(&logical).await
    }

    /// The plan of a shape, over placeholders for its literals; an error when they end anywhere else than in a leaf.
    pub(crate) async fn plan_shape(
        &self,
        query: Query,
        literals: &[ScalarValue],
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let logical =
            plan_cache::typed(self.logical(query)?, literals).map_err(|e| self.explained(&e))?;
        self.physical(&logical).await
    }

    /// The optimized physical plan of a logical one.
    async fn physical(&self, logical: &LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        self.state
            .create_physical_plan(logical)
            .await
            .map_err(|e| self.explained(&e))
    }

    /// The logical plan of a query, with its names resolved.
    fn logical(&self, mut query: Query) -> Result<LogicalPlan> {
        let resolved = names::resolve(&mut query, self.tables)?;
        let context = self.context(&resolved);
        for _ in 0..REPAIRS_MAX {
            let statement =
                PlannerStatement::Statement(Box::new(SqlStatement::Query(Box::new(query.clone()))));
            let planned = SqlToRel::new_with_options(&context, self.parser_options())
                .statement_to_plan(statement);
            match planned {
                Ok(plan) => {
                    SQLOptions::new()
                        .with_allow_ddl(false)
                        .with_allow_dml(false)
                        .with_allow_statements(false)
                        .verify_plan(&plan)
                        .map_err(|e| {
                            Error::unsupported(format!("not supported: {}", from_datafusion(&e)))
                        })?;
                    return Ok(plan);
                }
                Err(error) => {
                    let DataFusionError::SchemaError(schema_error, _) = error.find_root() else {
                        return Err(self.explained(&error));
                    };
                    let SchemaError::FieldNotFound {
                        field,
                        valid_fields,
                    } = schema_error.as_ref()
                    else {
                        return Err(self.explained(&error));
                    };
                    if !names::repair(&mut query, field, valid_fields) {
                        return Err(self.explained(&error));
                    }
                }
            }
        }
        Err(Error::invalid(format!(
            "more than {REPAIRS_MAX} names need their own case: write them as the schema does"
        )))
    }

    fn context(&self, resolved: &Resolved) -> PlanningContext<'_> {
        let tables = resolved
            .tables
            .iter()
            .map(|(name, table)| {
                (
                    name.clone(),
                    provider(
                        table,
                        self.system,
                        resolved.uses_virtual_columns,
                        self.options.use_leaf_pushdown,
                    ),
                )
            })
            .collect();
        PlanningContext {
            state: &self.state,
            tables,
        }
    }

    fn parser_options(&self) -> ParserOptions {
        ParserOptions {
            parse_float_as_decimal: false,
            enable_ident_normalization: false,
            support_varchar_with_length: true,
            enable_options_value_normalization: false,
            collect_spans: true,
            map_string_types_to_utf8view: false,
            default_null_ordering: NullOrdering::NullsMax,
        }
    }

    /// An error of planning, with the place in the statement and the nearest names where that helps.
    fn explained(&self, error: &DataFusionError) -> Error {
        if let DataFusionError::SchemaError(schema_error, _) = error.find_root() {
            match schema_error.as_ref() {
                SchemaError::FieldNotFound {
                    field,
                    valid_fields,
                } => {
                    let at = field
                        .spans()
                        .first()
                        .map(|s| format!("line {}, column {}: ", s.start.line, s.start.column));
                    let at = at
                        .or_else(|| self.place_of(&field.name))
                        .unwrap_or_default();
                    let near = nearest(
                        &field.name,
                        valid_fields.iter().map(|c| names::shown(&c.name)),
                    );
                    return Error::invalid(format!("{at}no column {}{near}", field.flat_name()));
                }
                SchemaError::AmbiguousReference { field } => {
                    let at = self.place_of(&field.name).unwrap_or_default();
                    return Error::invalid(format!(
                        "{at}the column {} is ambiguous: write the table's name before it",
                        field.name
                    ));
                }
                _ => {}
            }
        }
        let told = from_datafusion(error);
        if let Some(function) = told
            .message()
            .strip_prefix("invalid function '")
            .and_then(|rest| rest.split('\'').next())
        {
            let at = self.place_of(function).unwrap_or_default();
            let known = self
                .state
                .scalar_functions()
                .keys()
                .chain(self.state.aggregate_functions().keys())
                .chain(self.state.window_functions().keys());
            return Error::invalid(format!(
                "{at}no function {function}{}",
                nearest(function, known)
            ));
        }
        told
    }

    /// Where a name first stands in the statement.
    fn place_of(&self, name: &str) -> Option<String> {
        let tokens = Tokenizer::new(&GenericDialect {}, self.sql)
            .tokenize_with_location()
            .ok()?;
        let found = tokens
            .iter()
            .find(|t| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(name)))?;
        Some(format!("{}: ", place(found.span.start)))
    }
}
