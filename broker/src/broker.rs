//! The broker: one statement in, one answer out.

use crate::admin;
use crate::answer::{self, Limits, Output};
use crate::bind::{QueryRun, ScanCounts};
use crate::error::from_datafusion;
use crate::explain;
use crate::literal::{parameter_scalar, value_of};
use crate::memory::QueryMemory;
use crate::options::QueryOptions;
use crate::plan::pushdown::LeafPushdown;
use crate::plan_cache::{Kept, PlanCache, Surroundings, can_be_kept};
use crate::planner::Planner;
use crate::request::{BrokerOptions, QueryAnswer, QueryRequest, QueryStats};
use crate::server_side::{AdminStatements, SystemTables};
use crate::session;
use crate::statement::{AdminStatement, Statement, parse, parse_query};
use crate::tables::Tables;
use crate::transport::{CatalogSource, LeafTransport};
use datafusion::common::ScalarValue;
use datafusion::execution::TaskContext;
use datafusion::execution::context::SessionConfig;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::sql::sqlparser::ast::Query;
use futures::{FutureExt, StreamExt};
use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use strandline_proto::value::Value;
use strandline_proto::{Error, ErrorKind, Result};

/// How long REBUILD may take where no limit is named: it reads all of an archive, so a query's limit is no measure.
const REBUILD_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// The error of a statement at which the planner panicked.
fn gave_up(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    Error::internal(format!(
        "the statement can't be planned: the planner gave up ({}); write it otherwise",
        text.unwrap_or("without a word")
    ))
}

/// Answers SQL from the tables of one catalog.
pub struct Broker {
    catalog: Arc<dyn CatalogSource>,
    transport: Arc<dyn LeafTransport>,
    system: Arc<dyn SystemTables>,
    admin: Arc<dyn AdminStatements>,
    options: BrokerOptions,
    /// Memory and spill space of all queries; an error when the spill directory can't be used.
    runtime: Result<Arc<RuntimeEnv>>,
    /// What plans run with.
    config: SessionConfig,
    /// Planning without the leaf's rules, and with them.
    states: [SessionState; 2],
    plans: PlanCache,
    next_query_id: AtomicU64,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What holds for all tries of one query.
struct RunningQuery {
    sql: String,
    options: QueryOptions,
    parameters: Vec<ScalarValue>,
    stats: Arc<QueryStats>,
    limits: Limits,
}

/// What a request asks for.
enum Asked {
    /// A query that is known by its text.
    Recalled(Recalled),
    Statement(Statement),
}

/// A kept plan, what it is to be bound to, and the tables it was found for.
struct Recalled {
    plan: Arc<dyn ExecutionPlan>,
    values: Vec<Value>,
    tables: Tables,
}

/// A plan and what it was bound to.
struct Planned {
    plan: Arc<dyn ExecutionPlan>,
    run: Arc<QueryRun>,
    task: Arc<TaskContext>,
}

impl Broker {
    /// A broker over a catalog, and what reaches its rows.
    pub fn new(
        catalog: Arc<dyn CatalogSource>,
        transport: Arc<dyn LeafTransport>,
        system: Arc<dyn SystemTables>,
        admin: Arc<dyn AdminStatements>,
        options: BrokerOptions,
    ) -> Self {
        let runtime = session::runtime(&options);
        let shared = runtime.clone().unwrap_or_default();
        let plans = PlanCache::new(options.plans_max);
        let states = [
            session::state(&options, &shared, None),
            session::state(
                &options,
                &shared,
                Some(LeafPushdown {
                    answers_whole: transport.answers_whole(),
                }),
            ),
        ];
        Self {
            config: session::config(&options),
            catalog,
            transport,
            system,
            admin,
            options,
            runtime,
            states,
            next_query_id: AtomicU64::new(1),
            plans,
        }
    }

    /// Runs one statement. Errors of planning, and of execution before the first row, come back at once; later ones in the stream.
    pub async fn query(&self, request: QueryRequest) -> Result<QueryAnswer> {
        let stats = Arc::new(QueryStats::new(
            self.next_query_id.fetch_add(1, Ordering::Relaxed),
        ));
        let mut options = QueryOptions::new(&self.options);
        options.set_all(&request.options)?;
        let parameters = request
            .parameters
            .iter()
            .map(parameter_scalar)
            .collect::<Result<Vec<_>>>()?;
        let asked = match self.recall(&request.sql, &options, &parameters, &stats) {
            Some(recalled) => Asked::Recalled(recalled),
            None => {
                let parsed = parse(&request.sql)?;
                for (name, value) in &parsed.settings {
                    options.set(name, value)?;
                }
                Asked::Statement(parsed.statement)
            }
        };
        let is_long = matches!(
            &asked,
            Asked::Statement(Statement::Admin(AdminStatement::Rebuild { .. }))
        );
        let timeout = options
            .timeout
            .or(request.timeout)
            .unwrap_or(match is_long {
                true => REBUILD_TIMEOUT,
                false => self.options.query_timeout,
            });
        let cancel = request.cancel.child_token();
        // Fires when the caller drops this future; the answer's stream has a guard of its own.
        let guard = cancel.clone().drop_guard();
        let limits = Limits {
            cancel,
            deadline: Instant::now() + timeout,
            timeout,
        };
        let query = RunningQuery {
            sql: request.sql,
            options,
            parameters,
            stats,
            limits,
        };
        // A statement at which the planner panics is one that it can't plan, and no more.
        let answering = AssertUnwindSafe(self.answer(&query, asked)).catch_unwind();
        let answered = query.limits.hold(answering).await?;
        let answer = answered.map_err(|panic| gave_up(&*panic))??;
        guard.disarm();
        Ok(answer)
    }

    async fn answer(&self, query: &RunningQuery, asked: Asked) -> Result<QueryAnswer> {
        let stats = Arc::clone(&query.stats);
        let statement = match asked {
            Asked::Recalled(recalled) => return self.run(query, None, Some(recalled)).await,
            Asked::Statement(statement) => statement,
        };
        match statement {
            Statement::Query(ast) => self.run(query, Some(ast), None).await,
            Statement::Explain {
                analyze,
                query: ast,
            } => {
                let text = self.explain(query, &ast, analyze).await?;
                Ok(answer::of_batch(explain::batch(&text)?, stats))
            }
            Statement::ShowTables => {
                Ok(answer::of_batch(admin::show_tables(&self.tables())?, stats))
            }
            Statement::Describe(name) => Ok(answer::of_batch(
                admin::describe(&name, &self.tables())?,
                stats,
            )),
            Statement::Admin(statement) => Ok(answer::of_batch(
                admin::execute(&statement, &self.tables(), self.admin.as_ref()).await?,
                stats,
            )),
        }
    }

    fn tables(&self) -> Tables {
        Tables {
            snapshot: self.catalog.snapshot(),
            system: self.system.tables(),
        }
    }

    /// Runs a query, again from a newer snapshot when a segment was replaced under it before anything was answered.
    async fn run(
        &self,
        query: &RunningQuery,
        ast: Option<Box<Query>>,
        mut recalled: Option<Recalled>,
    ) -> Result<QueryAnswer> {
        let mut tries = 0;
        loop {
            let started = async {
                let planned = match recalled.take() {
                    Some(Recalled {
                        plan,
                        values,
                        tables,
                    }) => self.bind(query, plan, values, tables, false)?,
                    None => self.plan(query, ast.as_deref()).await?,
                };
                let stream =
                    execute_stream(planned.plan, planned.task).map_err(|e| from_datafusion(&e))?;
                Output::start(stream, &query.limits).await
            };
            match started.await {
                Ok(output) => {
                    return Ok(answer::of_output(
                        output,
                        query.limits.clone(),
                        Arc::clone(&query.stats),
                    ));
                }
                Err(error)
                    if error.kind() == ErrorKind::SegmentGone
                        && tries < self.options.replans_max =>
                {
                    tracing::debug!(query_id = query.stats.query_id, "planning again: {error}");
                    query.stats.leaf.reset();
                    // The new snapshot is published within moments of the old one's end.
                    tokio::time::sleep(Duration::from_millis(5 << tries)).await;
                    tries += 1;
                }
                Err(error) if error.kind() == ErrorKind::SegmentGone => {
                    return Err(Error::unavailable(format!(
                        "{error}; the table's segments changed {tries} times while the query ran: try again"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The kept plan of a statement that is known by its text.
    fn recall(
        &self,
        sql: &str,
        options: &QueryOptions,
        parameters: &[ScalarValue],
        stats: &QueryStats,
    ) -> Option<Recalled> {
        if !options.use_plan_cache || self.options.plans_max == 0 {
            return None;
        }
        let begun = Instant::now();
        let tables = self.tables();
        let surroundings = Surroundings {
            tables: &tables,
            use_leaf_pushdown: options.use_leaf_pushdown,
        };
        let (plan, literals) = self.plans.recall(sql, parameters, surroundings)?;
        let recalled = Recalled {
            plan: reset_plan_states(plan).ok()?,
            values: literals.iter().map(value_of).collect::<Option<Vec<_>>>()?,
            tables,
        };
        stats.plan_cached.store(true, Ordering::Relaxed);
        stats.planned(&recalled.tables, begun.elapsed());
        Some(recalled)
    }

    /// Whether a statement's plan is found by its text.
    #[cfg(test)]
    pub(crate) fn recalls(&self, sql: &str) -> bool {
        let options = QueryOptions::new(&self.options);
        self.recall(sql, &options, &[], &QueryStats::new(0))
            .is_some()
    }

    async fn plan(&self, query: &RunningQuery, ast: Option<&Query>) -> Result<Planned> {
        let begun = Instant::now();
        let parsed;
        let ast = match ast {
            Some(ast) => ast,
            None => {
                parsed = parse_query(&query.sql)?;
                &parsed
            }
        };
        let tables = self.tables();
        let (plan, literals) = self.plan_or_kept(query, ast, &tables).await?;
        query.stats.planned(&tables, begun.elapsed());
        self.bind(query, plan, literals, tables, false)
    }

    /// What statements with these options are planned with.
    fn state(&self, options: &QueryOptions) -> &SessionState {
        &self.states[usize::from(options.use_leaf_pushdown)]
    }

    fn planner<'a>(&'a self, query: &'a RunningQuery, tables: &'a Tables) -> Planner<'a> {
        let mut state = self.state(&query.options).clone();
        state.mark_start_execution();
        Planner {
            state,
            tables,
            system: &self.system,
            options: &query.options,
            sql: &query.sql,
        }
    }

    /// A plan and the literals it is to be bound to: a kept one, or a new one.
    async fn plan_or_kept(
        &self,
        query: &RunningQuery,
        ast: &Query,
        tables: &Tables,
    ) -> Result<(Arc<dyn ExecutionPlan>, Vec<Value>)> {
        let surroundings = Surroundings {
            tables,
            use_leaf_pushdown: query.options.use_leaf_pushdown,
        };
        let shape = match query.options.use_plan_cache && self.options.plans_max > 0 {
            true => self.plans.shape(
                ast,
                &query.parameters,
                self.state(&query.options),
                surroundings,
            ),
            false => None,
        };
        let values = shape
            .as_ref()
            .and_then(|s| s.literals.iter().map(value_of).collect::<Option<Vec<_>>>());
        let (Some(shape), Some(values)) = (shape, values) else {
            return Ok((
                self.planner(query, tables)
                    .plan(ast.clone(), &query.parameters)
                    .await?,
                Vec::new(),
            ));
        };
        match self.plans.get(&shape) {
            Some(Kept::Plan(plan)) => {
                self.plans
                    .remember(&query.sql, &query.parameters, &shape, &plan, surroundings);
                query.stats.plan_cached.store(true, Ordering::Relaxed);
                return Ok((
                    reset_plan_states(plan).map_err(|e| from_datafusion(&e))?,
                    values,
                ));
            }
            Some(Kept::Unfit) => {}
            None => {
                if let Ok(plan) = self
                    .planner(query, tables)
                    .plan_shape(shape.query.clone(), &shape.literals)
                    .await
                    && can_be_kept(&plan)
                {
                    self.plans.keep(&shape, Kept::Plan(Arc::clone(&plan)));
                    self.plans
                        .remember(&query.sql, &query.parameters, &shape, &plan, surroundings);
                    return Ok((
                        reset_plan_states(plan).map_err(|e| from_datafusion(&e))?,
                        values,
                    ));
                }
                self.plans.keep(&shape, Kept::Unfit);
            }
        }
        Ok((
            self.planner(query, tables)
                .plan(ast.clone(), &query.parameters)
                .await?,
            Vec::new(),
        ))
    }

    fn bind(
        &self,
        query: &RunningQuery,
        plan: Arc<dyn ExecutionPlan>,
        parameters: Vec<Value>,
        tables: Tables,
        analyze: bool,
    ) -> Result<Planned> {
        let runtime = self.runtime.clone()?;
        let memory: Arc<dyn datafusion::execution::memory_pool::MemoryPool> =
            Arc::new(QueryMemory::new(
                Arc::clone(&runtime.memory_pool),
                query.options.memory_bytes_max,
            ));
        let run = Arc::new(QueryRun {
            snapshot: tables.snapshot,
            transport: Arc::clone(&self.transport),
            stats: Arc::clone(&query.stats),
            cancel: query.limits.cancel.clone(),
            deadline: Some(query.limits.deadline),
            memory: Arc::clone(&memory),
            parameters,
            batch_rows: self.options.batch_rows,
            watermarks: Default::default(),
            skip_upsert: query.options.skip_upsert,
            scans: analyze.then(ScanCounts::default),
        });
        let environment = RuntimeEnv {
            memory_pool: memory,
            ..runtime.as_ref().clone()
        };
        // Plans hold their functions; none is looked up by name when they run.
        let task = TaskContext::new(
            None,
            String::new(),
            self.config.clone().with_extension(Arc::clone(&run)),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::new(environment),
        );
        Ok(Planned {
            plan,
            run,
            task: Arc::new(task),
        })
    }

    async fn explain(
        &self,
        query: &RunningQuery,
        ast: &Query,
        analyze: bool,
    ) -> Result<Vec<String>> {
        let tables = self.tables();
        let begun = Instant::now();
        let planner = self.planner(query, &tables);
        let plan = planner.plan(ast.clone(), &query.parameters).await?;
        query.stats.planned(&tables, begun.elapsed());
        let planned = self.bind(query, plan, Vec::new(), tables, analyze)?;
        if analyze {
            let mut stream = execute_stream(Arc::clone(&planned.plan), Arc::clone(&planned.task))
                .map_err(|e| from_datafusion(&e))?;
            let mut rows = 0;
            while let Some(batch) = stream.next().await {
                rows += batch.map_err(|e| from_datafusion(&e))?.num_rows() as u64;
            }
            drop(stream);
            if let Some(scans) = &planned.run.scans {
                query.stats.leaf.add(&scans.total().counts());
            }
            return explain::analyzed(planned.plan.as_ref(), &planned.run, rows);
        }
        explain::planned(planned.plan.as_ref(), &planned.run)
    }
}
