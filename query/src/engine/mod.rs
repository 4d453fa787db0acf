//! Runs queries: one session a request, shared memory, limits. A query is prepared over one version of the tables, in the
//! scope of whoever asks; its rows are given a page at a time, or all as they come.
//!
//! | file | says |
//! |---|---|
//! | [`admission`], [`threads`] | who may ask now, and on what threads |
//! | [`prepare`], [`page`], [`cursor`] | what a query becomes, how a page of it is found, where the next begins |
//! | [`ask`], [`answer`], [`export`], [`encode`] | how it is answered, what the answer is, and as which bytes |
//! | [`sql`], [`parsed`], [`bounds`] | SQL over the same, as text or parsed, and how large a statement may be |
//! | [`pieces`] | how many groups are gathered |
//! | [`cancel`] | how the work of a query ends when nobody waits for it |
//! | [`made`], [`widths`], [`bytes`], [`conditions`] | how much a plan and an answer may hold |
//! | [`parameters`], [`sql_mistakes`] | values that are bound to a statement; where a mistake in one is |
//! | [`validate`] | every mistake of a query, without running it |
//! | [`scanned`] | how much was read |
//! | [`follow`] | what a live query asks for |

pub mod admission;
pub mod answer;
mod ask;
pub mod bounds;
pub(crate) mod bytes;
pub(crate) mod cancel;
mod conditions;
pub mod cursor;
pub(crate) mod encode;
pub mod export;
mod follow;
mod made;
mod page;
pub mod parameters;
pub(crate) mod parsed;
mod pieces;
mod prepare;
pub(crate) mod rehearse;
mod scanned;
pub mod sql;
mod sql_mistakes;
mod threads;
pub mod validate;
mod widths;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::common::ScalarValue;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::actor::Actor;
use crate::engine::admission::Places;
use crate::engine::cancel::{Planner, Wanted, Work};
use crate::engine::conditions::Conditions;
use crate::engine::cursor::{Pins, Seal};
use crate::engine::made::Bound;
use crate::engine::pieces::InPieces;
use crate::engine::sql::{CATALOG, SCHEMA};
use crate::engine::threads::Threads;
use crate::error::QueryError;
use crate::tables::live::Live;
use crate::tables::stored::Stored;

/// Memory of all queries together, bytes.
pub const MEMORY: usize = 2 << 30;
/// What part of it is for what is kept of live queries.
const KEPT_SHARE: usize = 4;
/// Time one query may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What queries may take.
#[derive(Clone, Copy, Debug)]
pub struct EngineLimits {
    /// Memory of all of them together, bytes; what can be put on disk goes there beyond it.
    pub memory: usize,
    /// Time of one.
    pub time: Duration,
}

impl Default for EngineLimits {
    fn default() -> Self {
        EngineLimits { memory: MEMORY, time: TIME_LIMIT }
    }
}

/// Runs queries over live tables.
pub struct Engine {
    live: Arc<Live>,
    /// What every session begins with.
    state: SessionState,
    /// Memory for what is kept of live queries.
    kept: Arc<dyn MemoryPool>,
    places: Places,
    threads: Threads,
    /// What one query may take.
    time: Duration,
    seal: Seal,
    metrics: Metrics,
    pins: Mutex<Pins>,
}

/// What queries did.
struct Metrics {
    /// By outcome: `ok`, `refused` (the asker's mistake), `too_large`, `busy`, `timeout`, `failed`.
    queries: Family<[(&'static str, &'static str); 1], Counter>,
    /// Versions of the tables that are kept for those who page.
    pinned: Gauge,
    seconds: Histogram,
}

impl Engine {
    /// An engine whose cursors are authenticated by `key`.
    ///
    /// # Errors
    /// Its threads cannot be started.
    pub fn new(live: Arc<Live>, key: [u8; 32]) -> Result<Self, QueryError> {
        Self::with_limits(live, key, EngineLimits::default())
    }

    /// Memory that queries hold, bytes.
    pub fn reserved_bytes(&self) -> usize {
        self.state.runtime_env().memory_pool.reserved() + self.kept.reserved()
    }

    /// The same, with limits of one's own.
    ///
    /// # Errors
    /// Its threads cannot be started.
    pub fn with_limits(live: Arc<Live>, key: [u8; 32], limits: EngineLimits) -> Result<Self, QueryError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory - limits.memory / KEPT_SHARE)))
            .build_arc()
            .map_err(|e| QueryError::Failed(e.to_string()))?;
        // From one to four thousand milliseconds, doubling.
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 13));
        let metrics = Metrics { queries: Family::default(), pinned: Gauge::default(), seconds };
        let threads = Threads::start().map_err(|e| QueryError::Failed(e.to_string()))?;
        Ok(Engine {
            live,
            state: state(runtime),
            kept: Arc::new(GreedyMemoryPool::new(limits.memory / KEPT_SHARE)),
            places: Places::default(),
            threads,
            time: limits.time,
            seal: Seal::new(key),
            metrics,
            pins: Mutex::default(),
        })
    }

    /// The tables it reads.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub(crate) fn count<T>(&self, answer: &Result<T, QueryError>, started: Instant) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(QueryError::Busy) => "busy",
            Err(QueryError::TimedOut) => "timeout",
            Err(QueryError::Failed(_)) => "failed",
            Err(QueryError::TooLarge(_)) => "too_large",
            Err(_) => "refused",
        };
        self.metrics.queries.get_or_create(&[("outcome", outcome)]).inc();
        self.metrics.seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Makes its metrics known.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("queries", "Queries answered, by outcome", self.metrics.queries.clone());
        registry.register("queries_running", "Queries under way", self.places.running.clone());
        registry.register("queries_waiting", "Queries that wait for a place", self.places.waiting.clone());
        let pinned = self.metrics.pinned.clone();
        registry.register("pinned_versions", "Versions of the tables kept for those who page through them", pinned);
        let seconds = self.metrics.seconds.clone();
        registry.register_with_unit("query_duration", "Time a query took", Unit::Seconds, seconds);
    }

    /// How many queries are under way.
    pub fn queries_running(&self) -> usize {
        self.places.taken()
    }

    /// Work that has a place among the questions of a tenant; it is waited for as long as is decent.
    pub(crate) async fn admit(&self, tenant: &str) -> Result<Arc<Work>, QueryError> {
        self.places.admit(tenant).await.map(|running| Arc::new(running.into()))
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a part of a live query, which has no place among the others, on their threads.
    pub(crate) async fn on_threads<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        self.work(&Arc::default(), task).await
    }

    /// Runs a part of a query on the threads of queries, within their time; it ends when this is dropped.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: &Arc<Work>,
        task: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let Some(mut task) = self.threads.spawn(work.clone(), task) else { return Err(QueryError::Busy) };
        match tokio::time::timeout(self.time, &mut task.handle).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(QueryError::Failed(error.to_string())),
            Err(_) => Err(QueryError::TimedOut),
        }
    }

    /// A session that registers nothing: what all of them know is made once.
    pub(crate) fn session(&self) -> SessionContext {
        SessionContext::new_with_state(self.state.clone())
    }

    /// The same for what an index finds: it is so little that planning is most of the work.
    fn session_for_few(&self) -> SessionContext {
        let mut state = self.state.clone();
        let options = state.config_mut().options_mut();
        (options.execution.target_partitions, options.optimizer.max_passes) = (1, 1);
        SessionContext::new_with_state(state)
    }

    /// A session with a catalog of its own.
    pub(crate) fn session_with_catalog(&self) -> SessionContext {
        SessionContext::new_with_state(state(self.state.runtime_env().clone()))
    }
}

fn state(runtime: Arc<RuntimeEnv>) -> SessionState {
    let config = SessionConfig::new()
        .with_information_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        // Planners differ on whether `x IS TRUE` may be null, which it is not.
        .set_bool("datafusion.execution.skip_physical_aggregate_schema_check", true)
        // Columns are text as the tables have it; views would be copied.
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true)
        // Where every other row is a group of its own, to gather them before they are parted gains nothing.
        .set("datafusion.execution.skip_partial_aggregation_probe_ratio_threshold", &ScalarValue::from(0.5));
    let mut builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
    let functions = builder.scalar_functions().take().unwrap_or_default();
    let mut analyzer: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![Arc::new(Conditions)];
    analyzer.extend(Analyzer::new().rules);
    let mut optimizer = Optimizer::new().rules;
    optimizer.push(Arc::new(Stored));
    let mut physical = PhysicalOptimizer::new().rules;
    physical.push(Arc::new(InPieces { least: pieces::LEAST, most: pieces::MOST }));
    // Before each rule it is asked whether the plan is still wanted.
    let wanted = || Arc::new(Wanted);
    let mut state = builder
        .with_scalar_functions(functions.into_iter().map(made::bounded).collect())
        // Functions of functions have no bounds.
        .with_higher_order_functions(Vec::new())
        .with_analyzer_rules(analyzer.into_iter().flat_map(|rule| [wanted() as Arc<_>, rule]).collect())
        .with_optimizer_rules(optimizer.into_iter().flat_map(|rule| [wanted() as Arc<_>, rule]).collect())
        .with_physical_optimizer_rules(physical.into_iter().flat_map(|rule| [wanted() as Arc<_>, rule]).collect())
        .with_query_planner(Arc::new(Planner))
        .build();
    // It cannot fail: it adds to a list.
    let _ = state.register_function_rewrite(Arc::new(Bound));
    state
}

/// What is answered only as long as the token of whoever asks holds.
pub(crate) async fn while_granted<T>(
    actor: &Actor,
    answer: impl Future<Output = Result<T, QueryError>>,
) -> Result<T, QueryError> {
    tokio::select! {
        biased;
        () = actor.grant.ended() => Err(QueryError::Ended),
        answer = answer => answer,
    }
}
