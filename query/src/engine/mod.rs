//! Runs queries: one session a request, shared memory, limits. A query is prepared over one version of the tables, in the
//! scope of whoever asks; its rows are given a page at a time, or all as they come.

pub mod admission;
pub mod answer;
pub mod cursor;
mod page;
pub mod parameters;
pub mod sql;
mod sql_mistakes;
pub mod validate;

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{ident, lit};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use radarflow_proto::rows::{Nature, Table};

use crate::actor::Actor;
use crate::engine::admission::{Places, Running, Threads};
use crate::engine::answer::{Answer, Export, Meta, completeness};
use crate::engine::cursor::{Cursor, Pins, Seal, query_hash};
use crate::engine::page::{Executed, NARROW_FIRST};
use crate::engine::sql::{CATALOG, SCHEMA};
use crate::error::SrqlError;
use crate::error::{QueryError, failed};
use crate::live::stream::{SLOW, Streams};
use crate::srql::complete::{self, Item};
use crate::srql::groups;
use crate::srql::plan::{self, Planned, Tallied};
use crate::srql::time::Range;
use crate::srql::{ast, parse};
use crate::tables::catalog::Entity;
use crate::tables::live::Live;
use crate::tables::past::Moment;
use crate::tables::stored::Stored;
use crate::tables::view::View;

/// Memory of all queries together, bytes.
pub const MEMORY: usize = 2 << 30;
/// What part of it is for what is kept of live queries.
const KEPT_SHARE: usize = 4;
/// Said where more was learnt late of addresses than is kept.
const MUCH_LEARNT_LATE: &str =
    "more was learnt late of who had addresses than is kept: old events are of the devices they were stored with";
/// Time one query may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);

/// What queries may take.
#[derive(Clone, Copy, Debug)]
pub struct EngineLimits {
    /// Memory of all of them together, bytes; what can be put on disk goes there beyond it.
    pub memory: usize,
    /// Time of one.
    pub time: Duration,
    /// How long who follows a query may take nothing of what waits for them.
    pub slow: Duration,
}

impl Default for EngineLimits {
    fn default() -> Self {
        EngineLimits { memory: MEMORY, time: TIME_LIMIT, slow: SLOW }
    }
}

/// Runs queries over live tables.
pub struct Engine {
    live: Arc<Live>,
    /// What every session begins with.
    state: SessionState,
    /// Memory for what is kept of live queries.
    kept: Arc<dyn MemoryPool>,
    places: Arc<Places>,
    threads: Threads,
    /// What one query may take.
    time: Duration,
    /// How long whoever follows a query may take nothing.
    slow: Duration,
    seal: Seal,
    metrics: Metrics,
    streams: Streams,
    pins: Mutex<Pins>,
}

/// What queries did.
struct Metrics {
    /// By outcome: `ok`, `refused` (the asker's mistake), `busy`, `timeout`, `failed`.
    queries: Family<[(&'static str, &'static str); 1], Counter>,
    /// Versions of the tables that are kept for those who page.
    pinned: Gauge,
    seconds: Histogram,
}

impl Engine {
    /// An engine whose cursors are authenticated by `key`.
    pub fn new(live: Arc<Live>, key: [u8; 32]) -> Result<Self, QueryError> {
        Self::with_limits(live, key, EngineLimits::default())
    }

    /// Memory that queries hold, bytes.
    pub fn reserved_bytes(&self) -> usize {
        self.state.runtime_env().memory_pool.reserved() + self.kept.reserved()
    }

    /// The same, with limits of one's own.
    pub fn with_limits(live: Arc<Live>, key: [u8; 32], limits: EngineLimits) -> Result<Self, QueryError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory - limits.memory / KEPT_SHARE)))
            .build_arc()
            .map_err(|e| QueryError::Failed(e.to_string()))?;
        // From one to four thousand milliseconds, doubling.
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 13));
        let metrics = Metrics { queries: Family::default(), pinned: Gauge::default(), seconds };
        let threads = Threads::start().map_err(|e| QueryError::Failed(e.to_string()))?;
        let streams = Streams::default();
        let (time, slow) = (limits.time, limits.slow);
        Ok(Engine {
            live,
            state: state(runtime),
            kept: Arc::new(GreedyMemoryPool::new(limits.memory / KEPT_SHARE)),
            places: Arc::default(),
            threads,
            time,
            slow,
            seal: Seal::new(key),
            metrics,
            streams,
            pins: Mutex::default(),
        })
    }

    /// The tables it reads.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Answers a query.
    pub async fn query(
        self: &Arc<Self>,
        actor: &Actor,
        text: &str,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let answer = while_granted(actor, async {
            let _running = self.admit(&actor.tenant).await?;
            self.bounded(actor, text, cursor, limit).await
        });
        let answer = answer.await;
        self.count(&answer, started);
        answer
    }

    /// Answers a query with its rows alone, as they come; without `limit:` with all of them.
    pub async fn export(
        self: &Arc<Self>,
        actor: &Actor,
        text: &str,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Export, QueryError> {
        if cursor.is_some() || limit.is_some() {
            return Ok(Export::from(self.query(actor, text, cursor, limit).await?));
        }
        let started = Instant::now();
        let begun = while_granted(actor, self.begin_export(actor, text)).await;
        match begun {
            // It is a page after all.
            Ok(None) => return Ok(Export::from(self.query(actor, text, None, None).await?)),
            Ok(Some(export)) => {
                self.count(&Ok(()), started);
                Ok(export.until(actor))
            }
            Err(error) => {
                let refused = Err(error);
                self.count(&refused, started);
                refused
            }
        }
    }

    /// Begins to give all rows; `None` where the query asks for a page, or for what is made of a whole answer.
    async fn begin_export(self: &Arc<Self>, actor: &Actor, text: &str) -> Result<Option<Export>, QueryError> {
        let running = self.admit(&actor.tenant).await?;
        match self.all_rows(actor, text).await? {
            Some((frame, epoch)) => self.send(running, frame, epoch).map(Some),
            None => Ok(None),
        }
    }

    async fn all_rows(self: &Arc<Self>, actor: &Actor, text: &str) -> Result<Option<(DataFrame, u64)>, QueryError> {
        let (engine, actor, text) = (self.clone(), actor.clone(), text.to_owned());
        let shaped = async move {
            let Prepared { planned, query, cursor, view, .. } = engine.prepare(&actor, &text, None, None)?;
            if query.limit.is_some() || cursor.is_some() || query.explain || planned.fill.is_some() {
                return Ok(None);
            }
            let all = Planned { limit: None, pages: false, ..planned };
            Ok(Some((page::shape(all, None)?.frame, view.epoch)))
        };
        self.on_threads(shaped).await
    }

    /// The columns that an export of a query has.
    pub async fn srql_schema(self: &Arc<Self>, actor: &Actor, text: &str) -> Result<SchemaRef, QueryError> {
        let running = self.admit(&actor.tenant).await?;
        match self.all_rows(actor, text).await? {
            Some((frame, _)) => Ok(Arc::new(frame.schema().as_arrow().clone())),
            None => {
                drop(running);
                Ok(self.query(actor, text, None, None).await?.schema)
            }
        }
    }

    /// Runs a plan for whoever takes its rows.
    pub(crate) fn send(&self, running: Running, frame: DataFrame, epoch: u64) -> Result<Export, QueryError> {
        Export::start(&self.threads, running, frame, epoch).ok_or(QueryError::Busy)
    }

    pub(crate) fn count<T>(&self, answer: &Result<T, QueryError>, started: Instant) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(QueryError::Busy) => "busy",
            Err(QueryError::TimedOut) => "timeout",
            Err(QueryError::Failed(_)) => "failed",
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

    /// A place among the questions of a tenant, until it is dropped; it is waited for as long as is decent.
    pub(crate) async fn admit(&self, tenant: &str) -> Result<Running, QueryError> {
        self.places.admit(tenant).await
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn bounded(
        self: &Arc<Self>,
        actor: &Actor,
        text: &str,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Answer, QueryError> {
        let (engine, actor, text, cursor) = (self.clone(), actor.clone(), text.to_owned(), cursor.map(str::to_owned));
        self.on_threads(async move { engine.run(&actor, &text, cursor.as_deref(), limit).await }).await
    }

    /// A query as it will run, over one version of the tables.
    fn prepare(
        &self,
        actor: &Actor,
        text: &str,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Prepared, QueryError> {
        let mut query = parse::parse(text)?;
        let entities = plan::entities(&query)?;
        if let Some(span) = query.stream {
            let detail = "a live query is asked at /api/query/stream";
            return Err(SrqlError::new("stream_elsewhere", span, detail).into());
        }
        let cursor_text = cursor.map(str::to_owned).or_else(|| query.cursor.take().map(|c| parse::plain(&c.text)));
        query.cursor = None;
        let hash = query_hash(text);
        let cursor = cursor_text.map(|c| self.seal.open(&c, actor, &hash)).transpose()?;
        if limit == Some(0) {
            return Err(SrqlError::new("bad_limit", (0, 0), "limit: takes a whole number from 1 on").into());
        }
        if let Some(limit) = limit {
            query.limit = Some(limit);
        }
        // Who comes with a cursor goes on in the version where they began.
        let pinned_view = cursor.as_ref().and_then(|c| self.pins().get(c.epoch));
        let history = cursor.is_some() && pinned_view.is_none();
        let view = pinned_view.unwrap_or_else(|| self.live.view());
        groups::expand(&mut query, &view, actor)?;
        let ctx = match entities[..] {
            [one] if one.table.nature() == Nature::State && page::finds(&query.filter) => self.session_for_few(),
            _ => self.session(),
        };
        let (epoch, clock_ms) = cursor.as_ref().map_or((view.epoch, view.clock_ms), |c| (c.epoch, c.clock_ms));
        let clock_us = clock_ms * 1000;
        let at = plan::at(&query, clock_us)?.map(|at| cursor.as_ref().and_then(|c| c.at).unwrap_or(at));
        if let Some(said) = query.at.as_ref().filter(|_| !view.history) {
            let detail = "what was before is kept in the lake, which is switched off";
            return Err(SrqlError::new("no_history", said.span, detail).into());
        }
        let moment = at.map(Moment::Time).or(history.then_some(Moment::Epoch(epoch)));
        let tables = Scoped { epoch, at: moment, ..Scoped::new(&view, &ctx, actor) };
        let now_us = at.unwrap_or(clock_us);
        let pinned = cursor.as_ref().and_then(|c| c.range).map(|(from, to)| Range { from, to });
        let planned = plan::plan(&query, &tables, now_us, pinned);
        if history && tables.lost.get() {
            return Err(QueryError::Expired);
        }
        if let Some(since) = tables.forgotten.get() {
            return Err(QueryError::Forgotten(since));
        }
        let planned = planned?;
        Ok(Prepared { query, entities, view, planned, cursor, hash, epoch, clock_ms, at, now_us })
    }

    async fn run(
        &self,
        actor: &Actor,
        text: &str,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let prepared = self.prepare(actor, text, cursor, limit)?;
        let Prepared { query, entities, view, planned, cursor, hash, epoch, clock_ms, at, now_us } = prepared;
        let answer = if query.explain {
            page::explain(planned).await?
        } else {
            let planned = match entities[..] {
                [one]
                    if at.is_none()
                        && view.epoch == epoch
                        && query.time.is_none()
                        && page::narrows(&query)
                        && view.len(&actor.tenant, one.table) >= NARROW_FIRST =>
                {
                    page::narrowed(planned, one.table, cursor.as_ref()).await?
                }
                _ => planned,
            };
            page::execute(planned, cursor.as_ref(), now_us).await?
        };
        let Executed { batches, schema, edges, limit, range, warnings, truncated } = answer;
        let back = cursor.as_ref().is_some_and(|c| c.back);
        let seal = |edge: &Vec<Option<String>>, back| {
            let (query, tenant, range) = (hash.clone(), actor.tenant.clone(), range.map(|r| (r.from, r.to)));
            self.seal.close(&Cursor { query, tenant, epoch, clock_ms, range, at, edge: edge.clone(), back })
        };
        // Whoever came from somewhere may go back there.
        let (more_before, more_after) = if back { (truncated, true) } else { (cursor.is_some(), truncated) };
        let next = edges.as_ref().filter(|_| more_after).map(|(_, last)| seal(last, false));
        let prev = edges.as_ref().filter(|_| more_before).map(|(first, _)| seal(first, true));
        if (next.is_some() || prev.is_some()) && view.epoch == epoch {
            let mut pins = self.pins();
            pins.keep(&view);
            self.metrics.pinned.set(pins.len() as i64);
        }
        let instant = |us: i64| radarflow_proto::cell::Time(us).to_string();
        let mut meta = self.meta(&view, actor, &entities, started, &batches, truncated);
        (meta.epoch, meta.frontier_time) = (epoch, instant(clock_ms * 1000));
        meta.lag_ms += view.clock_ms - clock_ms;
        meta.time_range = range.map(|r| [r.from.map(instant), r.to.map(instant)]);
        meta.at = at.map(instant);
        meta.warnings = warnings;
        let attributed = entities.iter().any(|e| !e.table.attributed().is_empty());
        if attributed && view.lacks_corrections(&actor.tenant, range.and_then(|r| r.from)) {
            meta.warnings.push(MUCH_LEARNT_LATE.to_owned());
        }
        let lasting = entities.iter().find(|e| e.lasts.is_some() && query.time.is_some());
        let from = Moment::Time(range.and_then(|r| r.from).unwrap_or(i64::MIN));
        if let Some(since) = lasting.and_then(|e| view.forgotten(e.table, from)) {
            meta.warnings.push(format!("what was over by {} is not kept: it is not among the rows", instant(since)));
        }
        Ok(Answer { batches, schema, next_cursor: next, prev_cursor: prev, limit, meta })
    }

    /// What is told beside an answer.
    pub(crate) fn meta(
        &self,
        view: &View,
        actor: &Actor,
        entities: &[&Entity],
        started: Instant,
        batches: &[RecordBatch],
        truncated: bool,
    ) -> Meta {
        let now_ms =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Meta {
            epoch: view.epoch,
            frontier_time: radarflow_proto::cell::Time::from_ms(view.clock_ms).to_string(),
            lag_ms: (now_ms - view.clock_ms).max(0),
            elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
            rows: batches.iter().map(RecordBatch::num_rows).sum(),
            time_range: None,
            at: None,
            truncated,
            completeness: completeness(view, actor, entities),
            warnings: Vec::new(),
        }
    }

    /// What could stand at a place of a query: what the catalog knows, and the most frequent values of the data that the
    /// actor may see. Of events those of the last minutes are looked at.
    pub async fn complete(
        self: &Arc<Self>,
        actor: &Actor,
        text: &str,
        offset: usize,
    ) -> Result<(std::ops::Range<usize>, Vec<Item>), QueryError> {
        let done = complete::complete(text, offset);
        let mut items = done.items;
        if let Some(wanted) = done.values {
            let _running = self.admit(&actor.tenant).await?;
            let view = self.live.view();
            let ctx = self.session();
            let rows = view.table(&ctx, actor, wanted.entity.table).map_err(failed)?;
            let plan = plan::values(&wanted, rows, view.clock_ms * 1000)?;
            let batches = self.on_threads(async move { plan.collect().await.map_err(failed) }).await?;
            for batch in &batches {
                let values: &StringArray = batch.column(0).as_string();
                let counts = batch.column(1).as_primitive::<arrow_array::types::Int64Type>();
                items.extend((0..batch.num_rows()).filter(|row| values.is_valid(*row)).map(|row| Item {
                    text: complete::written(values.value(row), &wanted),
                    kind: "value",
                    detail: format!("{} times", counts.value(row)),
                }));
            }
        }
        Ok((done.replaces, items))
    }

    /// How long whoever follows a query may take nothing.
    pub(crate) fn slow(&self) -> Duration {
        self.slow
    }

    /// The live queries.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// The plan of a query over a version of the tables.
    pub(crate) fn plan(&self, actor: &Actor, query: &ast::Query, view: &View) -> Result<Planned, QueryError> {
        let ctx = self.session();
        let tables = Scoped::new(view, &ctx, actor);
        Ok(plan::plan(query, &tables, view.clock_ms * 1000, None)?)
    }

    /// The rows that a query of groups counts, if these can be kept: of a version, of epochs up to one, of a part of its span.
    pub(crate) fn tallied(
        &self,
        actor: &Actor,
        query: &ast::Query,
        view: &View,
        epoch: u64,
        part: Option<Range>,
    ) -> Result<Option<Tallied>, QueryError> {
        let ctx = self.session();
        let tables = Scoped { epoch, ..Scoped::new(view, &ctx, actor) };
        Ok(plan::tallied(query, &tables, view.clock_ms * 1000, part)?)
    }

    /// Memory for what is kept of live queries, none of it yet.
    pub(crate) fn reservation(&self) -> MemoryReservation {
        MemoryConsumer::new("live query").register(&self.kept)
    }

    /// All rows of a query, if they are no more than `most`.
    pub(crate) async fn whole(
        self: &Arc<Self>,
        actor: &Actor,
        query: &ast::Query,
        view: &View,
        most: usize,
    ) -> Result<Vec<RecordBatch>, QueryError> {
        let mut planned = self.plan(actor, query, view)?;
        let asked = query.limit;
        planned.limit = Some(asked.unwrap_or(most));
        let now_us = view.clock_ms * 1000;
        let answer = self.on_threads(async move { page::execute(planned, None, now_us).await }).await?;
        if answer.truncated && asked.is_none() {
            return Err(QueryError::TooLarge(format!("more than {most} rows; narrow the query, or say limit:")));
        }
        Ok(answer.batches)
    }

    /// The columns that a plan shows of its first rows.
    pub(crate) async fn ranked(self: &Arc<Self>, planned: Planned) -> Result<Vec<RecordBatch>, QueryError> {
        Ok(self.on_threads(async move { page::execute(planned, None, 0).await }).await?.batches)
    }

    /// The columns that a plan shows, in no order.
    pub(crate) async fn columns(self: &Arc<Self>, planned: Planned) -> Result<Vec<RecordBatch>, QueryError> {
        let planned = Planned { order: Vec::new(), pages: false, limit: None, fill: None, ..planned };
        Ok(self.on_threads(async move { page::execute(planned, None, 0).await }).await?.batches)
    }

    /// Runs a part of a query on the threads of queries, within their time.
    pub(crate) async fn on_threads<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, QueryError>> + Send + 'static,
    ) -> Result<T, QueryError> {
        let Some(mut task) = self.threads.spawn(task) else { return Err(QueryError::Busy) };
        match tokio::time::timeout(self.time, &mut task.0).await {
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
        // Columns are text as the tables have it; views would be copied.
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_bool("datafusion.execution.parquet.pushdown_filters", true);
    let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime);
    builder.with_default_features().with_optimizer_rule(Arc::new(Stored)).build()
}

/// Tables as an actor may see them, events up to an epoch.
struct Scoped<'a> {
    view: &'a View,
    ctx: &'a SessionContext,
    actor: &'a Actor,
    epoch: u64,
    /// State as it was then, where it is not what the view has.
    at: Option<Moment>,
    /// A table was asked for that does not tell of that time.
    lost: Cell<bool>,
    /// A table was asked for of which it is known what it held only since then, microseconds since 1970.
    forgotten: Cell<Option<i64>>,
}

impl<'a> Scoped<'a> {
    /// Everything as a version has it.
    fn new(view: &'a View, ctx: &'a SessionContext, actor: &'a Actor) -> Self {
        let (lost, forgotten) = (Cell::new(false), Cell::new(None));
        Scoped { view, ctx, actor, epoch: view.epoch, at: None, lost, forgotten }
    }

    /// Refuses to tell of what is not kept.
    fn remembers(&self, table: Table, at: Moment) -> Result<(), DataFusionError> {
        let Some(since) = self.view.forgotten(table, at) else { return Ok(()) };
        self.forgotten.set(Some(since));
        self.lost.set(true);
        Err(DataFusionError::Plan(format!("{} of that time are not kept", table.name())))
    }
}

impl plan::Tables for Scoped<'_> {
    fn intervals(&self) -> Result<Option<DataFrame>, DataFusionError> {
        // What pages go on in is a version that the view has.
        let until = self.at.unwrap_or(Moment::Epoch(self.epoch));
        self.remembers(Table::IpOwnership, until)?;
        self.view.intervals(self.ctx, self.actor, Some(until))
    }

    fn rows(&self, table: Table) -> Result<DataFrame, DataFusionError> {
        if let Some(at) = self.at.filter(|_| table.nature() == Nature::State) {
            self.remembers(table, at)?;
            let held = self.view.table_at(self.ctx, self.actor, table, at)?;
            self.lost.set(self.lost.get() || held.is_none());
            return held.ok_or_else(|| DataFusionError::Plan(format!("{} keeps no history", table.name())));
        }
        let rows = self.view.table(self.ctx, self.actor, table)?;
        match table.nature() {
            Nature::Event => rows.filter(ident("epoch").lt_eq(lit(i64::try_from(self.epoch).unwrap_or(i64::MAX)))),
            Nature::State => Ok(rows),
        }
    }
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

/// A query as it will run.
struct Prepared {
    query: ast::Query,
    entities: Vec<&'static Entity>,
    view: Arc<View>,
    planned: Planned,
    cursor: Option<Cursor>,
    hash: String,
    /// Events up to this epoch are looked at.
    epoch: u64,
    /// Its clock.
    clock_ms: i64,
    at: Option<i64>,
    now_us: i64,
}
