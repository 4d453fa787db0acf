//! Runs queries: one session a request, shared memory, limits, pages. Plans run on threads of their own, so that a heavy
//! one keeps no socket waiting; one whose asker has left is ended.
//!
//! A page ends where its last row stands in the total order of the result; the next begins after it. The cursor carries
//! that place with a hash of the query, the tenant, the epoch and the span of time, authenticated: it can be neither
//! forged nor used for something else. Events that came after the first page's epoch are left out of the next ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::compute::take_record_batch;
use arrow::json::writer::{JsonArray, WriterBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::DataType;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::{Expr, cast, ident, lit};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use radarflow_proto::rows::{Nature, Source, Table};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, mpsc};
use utoipa::ToSchema;

use crate::access::Actor;
use crate::groups;
use crate::live::{Live, Moment, View};
use crate::segment::is_indexed;
use crate::sql::{CATALOG, SCHEMA};
use crate::srql::complete::{self, Item};
use crate::srql::plan::{self, Planned, series};
use crate::srql::time::Range;
use crate::srql::{SrqlError, ast, parse};
use crate::stream::Streams;

/// Memory of all queries together, bytes.
pub const MEMORY: usize = 2 << 30;
/// Time one query may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Time that all rows of one query may take, where they are taken as they come.
pub const EXPORT_TIME: Duration = Duration::from_secs(600);
/// Versions of the tables that are kept for those who page through them.
pub const PINNED: usize = 32;
/// How long they are kept after somebody asked.
pub const PINNED_FOR: Duration = Duration::from_secs(120);
/// How long rows may wait for whoever asked for them.
pub const STALLED: Duration = Duration::from_secs(60);
/// Stack of the threads that plan and run, bytes: plans are walked by recursion.
const STACK: usize = 32 << 20;
/// Batches that may wait for them.
const EXPORT_AHEAD: usize = 2;
/// Queries at once.
pub const CONCURRENT: usize = 16;
/// Queries of one tenant at once: the others keep room.
pub const CONCURRENT_TENANT: usize = 8;
/// Queries that may wait for room; more are refused.
pub const WAITING: usize = 1024;
/// How long one waits.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Rows of a table from which on the keys of a page are found before its rows are.
const NARROW_FIRST: usize = 20_000;

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

/// Why there is no answer.
#[derive(Debug)]
pub enum QueryError {
    /// The query is wrong.
    Language(SrqlError),
    /// The cursor is not ours, or not this query's.
    Cursor(&'static str),
    /// The version of the tables that it pages through is not known any more.
    Expired,
    /// It took too long.
    TimedOut,
    /// Too many at once.
    Busy,
    /// It needs more memory than there is.
    TooLarge(String),
    /// Something else failed.
    Failed(String),
}

impl From<SrqlError> for QueryError {
    fn from(error: SrqlError) -> Self {
        QueryError::Language(error)
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// Their schema.
    pub schema: arrow_schema::SchemaRef,
    /// Where the next page begins.
    pub next_cursor: Option<String>,
    /// Where the page before it is; `None` on the first.
    pub prev_cursor: Option<String>,
    /// Rows asked for.
    pub limit: Option<usize>,
    /// About the answer.
    pub meta: Meta,
}

/// About an answer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Meta {
    /// Every table was read at this epoch.
    pub epoch: u64,
    /// Its clock.
    pub frontier_time: String,
    /// How far the clock is behind now, milliseconds.
    pub lag_ms: i64,
    /// Time it took, milliseconds.
    pub elapsed_ms: f64,
    /// Rows returned.
    pub rows: usize,
    /// The span looked at.
    pub time_range: Option<[Option<String>; 2]>,
    /// The time asked of, where it is not now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Whether there are more rows than asked for.
    pub truncated: bool,
    /// Share of the data known to have been sent that is there; of sources that lost some, which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completeness: Option<Completeness>,
    /// Changes of meaning a user may not expect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How much of what was sent arrived and was stored.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Completeness {
    /// Of all sources.
    pub share: f64,
    /// Of each source that is below 1.
    pub sources: Vec<(String, f64)>,
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    query: String,
    tenant: String,
    epoch: u64,
    range: Option<(Option<i64>, Option<i64>)>,
    /// The clock of the epoch, milliseconds since 1970.
    clock_ms: i64,
    /// The time asked of.
    at: Option<i64>,
    /// The row that the page lies beyond.
    edge: Vec<Option<String>>,
    /// It lies before it.
    #[serde(default)]
    back: bool,
}

/// Runs queries over live tables.
pub struct Engine {
    live: Arc<Live>,
    runtime: Arc<RuntimeEnv>,
    /// Queries under way, by tenant.
    running: Mutex<BTreeMap<String, usize>>,
    /// Somebody's place is free again.
    freed: Notify,
    /// Queries that wait for a place.
    waiting: AtomicUsize,
    threads: Threads,
    /// What one query may take.
    time: Duration,
    key: [u8; 32],
    metrics: Metrics,
    streams: Streams,
    pins: Mutex<Pins>,
}

/// Versions of the tables that somebody pages through: by epoch, with when they were last asked for. What is let go of
/// is found again in the history of the lake, slower.
#[derive(Default)]
struct Pins(BTreeMap<u64, (Arc<View>, Instant)>);

impl Pins {
    fn keep(&mut self, view: &Arc<View>) {
        self.0.insert(view.epoch, (view.clone(), Instant::now()));
        self.0.retain(|_, (_, asked)| asked.elapsed() < PINNED_FOR);
        while self.0.len() > PINNED {
            let Some(oldest) = self.0.iter().min_by_key(|(_, (_, asked))| *asked).map(|(epoch, _)| *epoch) else {
                return;
            };
            self.0.remove(&oldest);
        }
    }

    fn get(&mut self, epoch: u64) -> Option<Arc<View>> {
        let (view, asked) = self.0.get_mut(&epoch)?;
        *asked = Instant::now();
        Some(view.clone())
    }
}

/// What queries did.
struct Metrics {
    /// By outcome: `ok`, `refused` (the asker's mistake), `busy`, `timeout`, `failed`.
    queries: Family<[(&'static str, &'static str); 1], Counter>,
    running: Gauge,
    /// Versions of the tables that are kept for those who page.
    pinned: Gauge,
    seconds: Histogram,
}

/// The threads that plans run on.
struct Threads(Option<tokio::runtime::Runtime>);

impl Threads {
    fn start() -> std::io::Result<Self> {
        // Plans give way now and then, not always soon: with a thread for each of their parts none waits for another, and
        // the system shares the processors.
        let parts = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONCURRENT * (parts + 1))
            .thread_name("query")
            .thread_stack_size(STACK)
            .enable_all()
            .build()?;
        Ok(Threads(Some(runtime)))
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Option<Ended<T>> {
        Some(Ended(self.0.as_ref()?.spawn(task)))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // It may be dropped where nothing may block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that ends when nobody waits for it.
struct Ended<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A query that is under way, however it ends.
pub(crate) struct Running(Arc<Engine>, String);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.metrics.running.dec();
        let mut running = self.0.running();
        if let Some(n) = running.get_mut(&self.1) {
            *n -= 1;
            if *n == 0 {
                running.remove(&self.1);
            }
        }
        drop(running);
        self.0.freed.notify_waiters();
    }
}

/// A query that waits for a place.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Rows as they come: all of them, however many, of which a few wait for whoever reads them. It ends when it is dropped.
pub struct Export {
    /// Their schema.
    pub schema: arrow_schema::SchemaRef,
    /// The epoch they were read at.
    pub epoch: u64,
    /// Where the next page begins, where it is one.
    pub next_cursor: Option<String>,
    rows: mpsc::Receiver<Result<RecordBatch, QueryError>>,
    _task: Option<Ended<()>>,
}

impl Export {
    /// The next rows.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        self.rows.recv().await
    }
}

impl From<Answer> for Export {
    /// Rows that are there already.
    fn from(answer: Answer) -> Export {
        let (to, rows) = mpsc::channel(answer.batches.len().max(1));
        for batch in answer.batches {
            // There is room for all of them.
            let _ = to.try_send(Ok(batch));
        }
        let (schema, epoch, next_cursor) = (answer.schema, answer.meta.epoch, answer.next_cursor);
        Export { schema, epoch, next_cursor, rows, _task: None }
    }
}

impl Engine {
    /// An engine whose cursors are authenticated by `key`.
    pub fn new(live: Arc<Live>, key: [u8; 32]) -> Result<Self, QueryError> {
        Self::with_limits(live, key, EngineLimits::default())
    }

    /// The same, with limits of one's own.
    pub fn with_limits(live: Arc<Live>, key: [u8; 32], limits: EngineLimits) -> Result<Self, QueryError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory)))
            .build_arc()
            .map_err(|e| QueryError::Failed(e.to_string()))?;
        // From one to four thousand milliseconds, doubling.
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 13));
        let metrics =
            Metrics { queries: Family::default(), running: Gauge::default(), pinned: Gauge::default(), seconds };
        let threads = Threads::start().map_err(|e| QueryError::Failed(e.to_string()))?;
        let streams = Streams::default();
        let time = limits.time;
        Ok(Engine {
            live,
            runtime,
            running: Mutex::default(),
            freed: Notify::new(),
            waiting: AtomicUsize::new(0),
            threads,
            time,
            key,
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
        let answer = match self.admitted(&actor.tenant).await {
            Ok(_running) => self.bounded(actor, text, cursor, limit).await,
            Err(busy) => Err(busy),
        };
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
        let begun = self.begin_export(actor, text).await;
        match begun {
            // It is a page after all.
            Ok(None) => return Ok(Export::from(self.query(actor, text, None, None).await?)),
            Ok(Some(export)) => {
                self.count(&Ok(()), started);
                Ok(export)
            }
            Err(error) => {
                let refused = Err(error);
                self.count(&refused, started);
                refused
            }
        }
    }

    async fn begin_export(self: &Arc<Self>, actor: &Actor, text: &str) -> Result<Option<Export>, QueryError> {
        let running = self.admitted(&actor.tenant).await?;
        let (engine, actor, text) = (self.clone(), actor.clone(), text.to_owned());
        let shaped = async move {
            let prepared = engine.prepare(&actor, &text, None, None)?;
            let Prepared { mut planned, query, view, .. } = prepared;
            if query.limit.is_some() || query.explain || planned.fill.is_some() {
                return Ok(None);
            }
            planned.limit = None;
            planned.pages = false;
            Ok(Some((shape(planned, None)?.frame, view.epoch)))
        };
        let Some((frame, epoch)) = self.on_threads(shaped).await? else { return Ok(None) };
        self.send(running, frame, epoch).map(Some)
    }

    /// The columns that an export of a query has.
    pub async fn srql_schema(
        self: &Arc<Self>,
        actor: &Actor,
        text: &str,
    ) -> Result<arrow_schema::SchemaRef, QueryError> {
        let _running = self.admit(&actor.tenant).ok_or(QueryError::Busy)?;
        let (engine, actor, text) = (self.clone(), actor.clone(), text.to_owned());
        let shaped = async move {
            let planned = engine.prepare(&actor, &text, None, None)?.planned;
            shape(Planned { pages: false, ..planned }, None)
        };
        let frame = self.on_threads(shaped).await?.frame;
        Ok(Arc::new(frame.schema().as_arrow().clone()))
    }

    /// Runs a plan for whoever takes its rows.
    pub(crate) fn send(&self, running: Running, frame: DataFrame, epoch: u64) -> Result<Export, QueryError> {
        let schema: arrow_schema::SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let (to, rows) = mpsc::channel(EXPORT_AHEAD);
        let task = self.threads.spawn(async move {
            let _running = running;
            let all = async {
                let mut batches = frame.execute_stream().await.map_err(failed)?;
                while let Some(batch) = batches.next().await {
                    let batch = batch.map_err(failed)?;
                    if batch.num_rows() > 0 {
                        match tokio::time::timeout(STALLED, to.send(Ok(batch))).await {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) => return Ok(()),
                            Err(_) => return Err(QueryError::TimedOut),
                        }
                    }
                }
                Ok(())
            };
            let ended = tokio::time::timeout(EXPORT_TIME, all).await.unwrap_or(Err(QueryError::TimedOut));
            if let Err(error) = ended {
                let _ = tokio::time::timeout(STALLED, to.send(Err(error))).await;
            }
        });
        let task = task.ok_or(QueryError::Busy)?;
        Ok(Export { schema, epoch, next_cursor: None, rows, _task: Some(task) })
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
        registry.register("queries_running", "Queries under way", self.metrics.running.clone());
        let pinned = self.metrics.pinned.clone();
        registry.register("pinned_versions", "Versions of the tables kept for those who page through them", pinned);
        let seconds = self.metrics.seconds.clone();
        registry.register_with_unit("query_duration", "Time a query took", Unit::Seconds, seconds);
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, waiting for room as long as is decent.
    pub(crate) async fn admitted(self: &Arc<Self>, tenant: &str) -> Result<Running, QueryError> {
        let waits = Waits(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            return Err(QueryError::Busy);
        }
        let turn = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // From here on nobody's leaving is missed.
                freed.as_mut().enable();
                if let Some(running) = self.admit(tenant) {
                    return running;
                }
                freed.await;
            }
        };
        let running = tokio::time::timeout(PATIENCE, turn).await.map_err(|_| QueryError::Busy);
        drop(waits);
        running
    }

    /// How many queries are under way.
    pub fn queries_running(&self) -> usize {
        self.running().values().sum()
    }

    /// Room for one more of a tenant's questions, kept until it is dropped.
    pub(crate) fn admit(self: &Arc<Self>, tenant: &str) -> Option<Running> {
        let mut running = self.running();
        let of_tenant = running.get(tenant).copied().unwrap_or(0);
        if of_tenant >= CONCURRENT_TENANT || running.values().sum::<usize>() >= CONCURRENT {
            return None;
        }
        running.insert(tenant.to_owned(), of_tenant + 1);
        drop(running);
        self.metrics.running.inc();
        Some(Running(self.clone(), tenant.to_owned()))
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
        let cursor = cursor_text.map(|c| self.open_cursor(&c, actor, &hash)).transpose()?;
        if let Some(limit) = limit {
            query.limit = Some(limit);
        }
        // Who comes with a cursor goes on in the version where they began.
        let pins = || self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let pinned_view = cursor.as_ref().and_then(|c| pins().get(c.epoch));
        let history = cursor.is_some() && pinned_view.is_none();
        let view = pinned_view.unwrap_or_else(|| self.live.view());
        groups::expand(&mut query, &view, actor)?;
        let ctx = self.session();
        let (epoch, clock_ms) = cursor.as_ref().map_or((view.epoch, view.clock_ms), |c| (c.epoch, c.clock_ms));
        let clock_us = clock_ms * 1000;
        let at = plan::at(&query, clock_us)?.map(|at| cursor.as_ref().and_then(|c| c.at).unwrap_or(at));
        if let Some(said) = query.at.as_ref().filter(|_| !view.history) {
            let detail = "what was before is kept in the lake, which is switched off";
            return Err(SrqlError::new("no_history", said.span, detail).into());
        }
        if history && !view.history && entities.iter().any(|e| e.table.nature() == Nature::State) {
            return Err(QueryError::Expired);
        }
        let moment = at.map(Moment::Time).or(history.then_some(Moment::Epoch(epoch)));
        let tables = Scoped { view: &view, ctx: &ctx, actor, epoch, at: moment };
        let now_us = at.unwrap_or(clock_us);
        let pinned = cursor.as_ref().and_then(|c| c.range).map(|(from, to)| Range { from, to });
        let planned = plan::plan(&query, &tables, now_us, pinned)?;
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
            explain(planned).await?
        } else {
            let planned = match entities[..] {
                [one]
                    if at.is_none()
                        && view.epoch == epoch
                        && !finds(&query.filter)
                        && view.len(&actor.tenant, one.table) >= NARROW_FIRST =>
                {
                    narrowed(planned, one.table, cursor.as_ref()).await?
                }
                _ => planned,
            };
            execute(planned, cursor.as_ref(), now_us).await?
        };
        let Executed { batches, schema, edges, limit, range, warnings, truncated } = answer;
        let back = cursor.as_ref().is_some_and(|c| c.back);
        let seal = |edge: &Vec<Option<String>>, back| {
            let (query, tenant, range) = (hash.clone(), actor.tenant.clone(), range.map(|r| (r.from, r.to)));
            self.seal(&Cursor { query, tenant, epoch, clock_ms, range, at, edge: edge.clone(), back })
        };
        // Whoever came from somewhere may go back there.
        let (more_before, more_after) = if back { (truncated, true) } else { (cursor.is_some(), truncated) };
        let next = edges.as_ref().filter(|_| more_after).map(|(_, last)| seal(last, false));
        let prev = edges.as_ref().filter(|_| more_before).map(|(first, _)| seal(first, true));
        if (next.is_some() || prev.is_some()) && view.epoch == epoch {
            let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
            pins.keep(&view);
            self.metrics.pinned.set(pins.0.len() as i64);
        }
        let instant = |us: i64| radarflow_proto::cell::Time(us).to_string();
        let mut meta = self.meta(&view, actor, &entities, started, &batches, truncated);
        meta.time_range = range.map(|r| [r.from.map(instant), r.to.map(instant)]);
        meta.at = at.map(instant);
        meta.warnings = warnings;
        Ok(Answer { batches, schema, next_cursor: next, prev_cursor: prev, limit, meta })
    }

    /// What is told beside an answer.
    pub(crate) fn meta(
        &self,
        view: &View,
        actor: &Actor,
        entities: &[&crate::catalog::Entity],
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
            let _running = self.admitted(&actor.tenant).await?;
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

    /// The live queries.
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// The plan of a query over a version of the tables.
    pub(crate) fn plan(&self, actor: &Actor, query: &ast::Query, view: &View) -> Result<Planned, QueryError> {
        let ctx = self.session();
        let tables = Scoped { view, ctx: &ctx, actor, epoch: view.epoch, at: None };
        Ok(plan::plan(query, &tables, view.clock_ms * 1000, None)?)
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
        let answer = self.on_threads(async move { execute(planned, None, now_us).await }).await?;
        if answer.truncated && asked.is_none() {
            return Err(QueryError::TooLarge(format!("more than {most} rows; narrow the query, or say limit:")));
        }
        Ok(answer.batches)
    }

    /// The columns that a plan shows, in no order.
    pub(crate) async fn columns(self: &Arc<Self>, planned: Planned) -> Result<Vec<RecordBatch>, QueryError> {
        let planned = Planned { order: Vec::new(), pages: false, limit: None, fill: None, ..planned };
        Ok(self.on_threads(async move { execute(planned, None, 0).await }).await?.batches)
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

    pub(crate) fn session(&self) -> SessionContext {
        let config = SessionConfig::new()
            .with_information_schema(false)
            .with_default_catalog_and_schema(CATALOG, SCHEMA)
            // Columns are text as the tables have it; views would be copied.
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
            .set_bool("datafusion.execution.parquet.pushdown_filters", true);
        SessionContext::new_with_config_rt(config, self.runtime.clone())
    }

    fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length is a key");
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    fn seal(&self, cursor: &Cursor) -> String {
        let mut bytes = serde_json::to_vec(cursor).unwrap_or_default();
        let mac = self.mac(&bytes);
        bytes.extend(mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn open_cursor(&self, text: &str, actor: &Actor, hash: &str) -> Result<Cursor, QueryError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| QueryError::Cursor("the cursor is not one of ours"))?;
        let split = bytes.len().checked_sub(32).ok_or(QueryError::Cursor("the cursor is not one of ours"))?;
        let (body, mac) = bytes.split_at(split);
        let mut check = Hmac::<Sha256>::new_from_slice(&self.key).expect("any length is a key");
        check.update(body);
        check.verify_slice(mac).map_err(|_| QueryError::Cursor("the cursor is not one of ours"))?;
        let cursor: Cursor =
            serde_json::from_slice(body).map_err(|_| QueryError::Cursor("the cursor is of another version"))?;
        if cursor.tenant != actor.tenant || cursor.query != hash {
            return Err(QueryError::Cursor("the cursor belongs to another query"));
        }
        Ok(cursor)
    }
}

/// Tables as an actor may see them, events up to an epoch.
struct Scoped<'a> {
    view: &'a View,
    ctx: &'a SessionContext,
    actor: &'a Actor,
    epoch: u64,
    /// State as it was then, where it is not what the view has.
    at: Option<Moment>,
}

impl plan::Tables for Scoped<'_> {
    fn rows(&self, table: Table) -> Result<DataFrame, DataFusionError> {
        if let Some(at) = self.at.filter(|_| table.nature() == Nature::State) {
            let held = self.view.table_at(self.ctx, self.actor, table, at)?;
            return held.ok_or_else(|| DataFusionError::Plan(format!("{} keeps no history", table.name())));
        }
        let rows = self.view.table(self.ctx, self.actor, table)?;
        match table.nature() {
            Nature::Event => rows.filter(ident("epoch").lt_eq(lit(i64::try_from(self.epoch).unwrap_or(i64::MAX)))),
            Nature::State => Ok(rows),
        }
    }
}

/// Rows as a JSON array.
pub(crate) fn json_rows(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    let refs: Vec<&RecordBatch> = batches.iter().collect();
    // Every type a table has can be written as JSON.
    if writer.write_batches(&refs).and_then(|()| writer.finish()).is_err() {
        return b"[]".to_vec();
    }
    let out = writer.into_inner();
    if out.is_empty() { b"[]".to_vec() } else { out }
}

/// Names a query apart from its cursor.
fn query_hash(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().filter(|w| !w.to_ascii_lowercase().starts_with("cursor:")).collect();
    hex::encode(&Sha256::digest(words.join(" "))[..8])
}

pub(crate) fn failed(error: impl std::borrow::Borrow<datafusion::error::DataFusionError>) -> QueryError {
    use datafusion::error::DataFusionError as E;
    let error = error.borrow();
    match error.find_root() {
        E::ResourcesExhausted(detail) => QueryError::TooLarge(detail.clone()),
        E::Plan(_) | E::SchemaError(..) => {
            QueryError::Language(SrqlError::new("cannot_plan", (0, 0), error.strip_backtrace()))
        }
        _ => QueryError::Failed(error.strip_backtrace()),
    }
}

struct Executed {
    batches: Vec<RecordBatch>,
    schema: arrow_schema::SchemaRef,
    /// What the first and the last row are sorted by.
    edges: Option<(Vec<Option<String>>, Vec<Option<String>>)>,
    limit: Option<usize>,
    range: Option<Range>,
    warnings: Vec<String>,
    truncated: bool,
}

/// How a sort column travels in a cursor: as text that casts back.
fn carried(name: &str, data_type: &DataType) -> Expr {
    match data_type {
        DataType::Timestamp(..) => cast(cast(ident(name), DataType::Int64), DataType::Utf8),
        _ => cast(ident(name), DataType::Utf8),
    }
}

fn carried_back(text: &str, data_type: &DataType) -> Expr {
    match data_type {
        DataType::Timestamp(..) => cast(cast(lit(text), DataType::Int64), data_type.clone()),
        _ => cast(lit(text), data_type.clone()),
    }
}

/// Rows beyond a row in the order: after it, or before it. Missing values come last either way.
fn beyond(order: &[(String, bool)], edge: &[Option<String>], types: &[DataType], back: bool) -> Expr {
    let mut any = lit(false);
    let mut equal = lit(true);
    for (((name, ascending), value), data_type) in order.iter().zip(edge).zip(types) {
        let column = ident(name);
        match value {
            Some(value) => {
                let value = carried_back(value, data_type);
                let greater = *ascending != back;
                let one = if greater { column.clone().gt(value.clone()) } else { column.clone().lt(value.clone()) };
                let mut one = one.is_true();
                if !back {
                    one = one.or(column.clone().is_null());
                }
                any = any.or(equal.clone().and(one));
                equal = equal.and(column.eq(value).is_true());
            }
            None => {
                if back {
                    any = any.or(equal.clone().and(column.clone().is_not_null()));
                }
                equal = equal.and(column.is_null());
            }
        }
    }
    any
}

/// Rows in the opposite order.
fn reversed(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, arrow_schema::ArrowError> {
    let reverse = |batch: &RecordBatch| {
        let rows: UInt64Array = (0..batch.num_rows() as u64).rev().collect();
        take_record_batch(batch, &rows)
    };
    batches.iter().rev().map(reverse).collect()
}

/// A query as it will run.
struct Prepared {
    query: ast::Query,
    entities: Vec<&'static crate::catalog::Entity>,
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

/// A plan in its final shape: what is beyond the cursor, in order, as many as are asked for and one more.
struct Shaped {
    frame: DataFrame,
    /// Columns that are shown; behind them stand the keys of the order, where pages can follow.
    shown: usize,
}

fn shape(planned: Planned, cursor: Option<&Cursor>) -> Result<Shaped, QueryError> {
    let Planned { mut frame, columns, order, limit, pages, .. } = planned;
    let types: Vec<DataType> = order
        .iter()
        .map(|(name, _)| frame.schema().field_with_unqualified_name(name).map(|f| f.data_type().clone()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if let Some(cursor) = cursor {
        if cursor.edge.len() != order.len() || !pages {
            return Err(QueryError::Cursor("the cursor belongs to another query"));
        }
        frame = frame.filter(beyond(&order, &cursor.edge, &types, cursor.back)).map_err(failed)?;
    }
    // The page before is the last rows of those before: the first ones backwards.
    let back = cursor.is_some_and(|c| c.back);
    if !order.is_empty() {
        let sort = order.iter().map(|(name, ascending)| ident(name).sort(*ascending != back, back)).collect();
        frame = frame.sort(sort).map_err(failed)?;
    }
    if let Some(limit) = limit {
        frame = frame.limit(0, Some(limit + 1)).map_err(failed)?;
    }
    let mut select: Vec<Expr> = Vec::new();
    for name in &columns {
        let field = frame.schema().field_with_unqualified_name(name).map_err(failed)?;
        select.push(match field.data_type() {
            DataType::Decimal128(..) => cast(ident(name), DataType::Utf8).alias(name),
            _ => ident(name),
        });
    }
    let shown = select.len();
    if pages {
        select.extend(
            order.iter().zip(&types).enumerate().map(|(i, ((name, _), t))| carried(name, t).alias(format!("__k{i}"))),
        );
    }
    let frame = frame.select(select).map_err(failed)?;
    Ok(Shaped { frame, shown })
}

/// Whether a filter names one value of a column that is indexed.
fn finds(filter: &ast::Expr) -> bool {
    match filter {
        ast::Expr::And(all) => all.iter().any(finds),
        ast::Expr::Filter(key, ast::Value::Is(value)) => {
            matches!(&key.path[..], [name] if is_indexed(name)) && !value.text.contains(['*', '?', '%', '/', '-'])
        }
        _ => false,
    }
}

/// A page of a large table: what sorts first is found by the columns that it takes, and only then are its rows read, by
/// their keys. The page is the same: whatever else has one of these keys sorts behind it.
async fn narrowed(planned: Planned, table: Table, cursor: Option<&Cursor>) -> Result<Planned, QueryError> {
    let key = table.key().iter().find(|key| is_indexed(key));
    let (Some(key), Some(_), true) = (key, planned.limit, planned.pages) else { return Ok(planned) };
    if !planned.order.iter().any(|(column, _)| column == key) {
        return Ok(planned);
    }
    let narrow = Planned { columns: vec![(*key).to_owned()], ..planned.clone() };
    let found = shape(narrow, cursor)?.frame.collect().await.map_err(failed)?;
    let keys = found.iter().flat_map(|batch| {
        let keys: &StringArray = batch.column(0).as_string();
        keys.iter().flatten().map(|key| lit(key.to_owned())).collect::<Vec<_>>()
    });
    let frame = planned.frame.clone().filter(ident(*key).in_list(keys.collect(), false)).map_err(failed)?;
    Ok(Planned { frame, ..planned })
}

async fn execute(planned: Planned, cursor: Option<&Cursor>, now_us: i64) -> Result<Executed, QueryError> {
    let (limit, pages, range, fill) = (planned.limit, planned.pages, planned.range, planned.fill);
    let (warnings, newest) = (planned.warnings.clone(), matches!(planned.order.first(), Some((_, false))));
    let back = cursor.is_some_and(|c| c.back);
    let Shaped { frame, shown } = shape(planned, cursor)?;
    let full: arrow_schema::SchemaRef = Arc::new(frame.schema().as_arrow().clone());
    let schema =
        Arc::new(full.project(&(0..shown).collect::<Vec<_>>()).map_err(|e| QueryError::Failed(e.to_string()))?);
    let mut batches = frame.collect().await.map_err(failed)?;
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let truncated = limit.is_some_and(|limit| total > limit);
    if truncated {
        let mut over = total - limit.unwrap_or(total);
        while over > 0 {
            let Some(last) = batches.pop() else { break };
            let keep = last.num_rows().saturating_sub(over);
            over -= last.num_rows() - keep;
            if keep > 0 {
                batches.push(last.slice(0, keep));
            }
        }
    }
    if back {
        batches = reversed(&batches).map_err(|e| QueryError::Failed(e.to_string()))?;
    }
    batches.retain(|b| b.num_rows() > 0);
    let keys = |batch: &RecordBatch, row: usize| {
        let key = |c: usize| {
            let column: &StringArray = batch.column(c).as_string();
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        (shown..batch.num_columns()).map(key).collect::<Vec<_>>()
    };
    let edges = match (batches.first(), batches.last()) {
        (Some(first), Some(last)) if pages => Some((keys(first, 0), keys(last, last.num_rows() - 1))),
        _ => None,
    };
    let batches = batches
        .iter()
        .map(|b| b.project(&(0..shown).collect::<Vec<_>>()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| QueryError::Failed(e.to_string()))?;
    if let Some((fill, width_us)) = fill.filter(|_| total > 0) {
        let span = Range { from: range.and_then(|r| r.from), to: range.and_then(|r| r.to).or(Some(now_us)) };
        let filled = series::fill(&batches, fill, width_us, span)
            .map_err(|detail| QueryError::Language(SrqlError::new("too_many_buckets", (0, 0), detail)))?;
        let filled =
            if newest { newest_first(&filled).map_err(|e| QueryError::Failed(e.to_string()))? } else { filled };
        let (schema, batches) = (filled.schema(), vec![filled]);
        return Ok(Executed { batches, schema, edges: None, limit, range, warnings, truncated });
    }
    Ok(Executed { batches, schema, edges, limit, range, warnings, truncated })
}

fn newest_first(batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    let order: arrow_array::UInt64Array = (0..batch.num_rows() as u64).rev().collect();
    arrow::compute::take_record_batch(batch, &order)
}

/// The plan of a query, instead of its rows.
async fn explain(planned: Planned) -> Result<Executed, QueryError> {
    let Planned { frame, columns, order, limit, range, warnings, .. } = planned;
    let sort = order.iter().map(|(name, ascending)| ident(name).sort(*ascending, false)).collect();
    let mut frame = if order.is_empty() { frame } else { frame.sort(sort).map_err(failed)? };
    if let Some(limit) = limit {
        frame = frame.limit(0, Some(limit + 1)).map_err(failed)?;
    }
    let frame = frame.select(columns.iter().map(ident).collect::<Vec<_>>()).map_err(failed)?;
    let explained = frame.explain(false, false).map_err(failed)?;
    let schema: arrow_schema::SchemaRef = Arc::new(explained.schema().as_arrow().clone());
    let batches = explained.collect().await.map_err(failed)?;
    Ok(Executed { batches, schema, edges: None, limit: None, range, warnings, truncated: false })
}

/// The loss ledgers of the feeds that bring an entity.
fn completeness(view: &View, actor: &Actor, entities: &[&crate::catalog::Entity]) -> Option<Completeness> {
    let feeds_of = |entity: &&crate::catalog::Entity| -> &[&str] {
        match entity.name {
            "flows" => &["netflow:", "sflow:", "nats:flows", "kafka:flows"],
            "logs" => &["syslog:", "nats:logs.syslog", "kafka:logs.syslog"],
            "traps" => &["traps:", "nats:logs.snmp", "kafka:logs.snmp"],
            _ => &[],
        }
    };
    let feeds: Vec<&str> = entities.iter().flat_map(feeds_of).copied().collect();
    let (mut there, mut sent) = (0.0, 0.0);
    let mut sources = Vec::new();
    for source in view.rows::<Source>(&actor.tenant) {
        let seen = radarflow_reconcile::access::sees(&actor.partitions, &source.partition);
        if !seen || !feeds.iter().any(|f| source.source.starts_with(f)) {
            continue;
        }
        let stored = source.stored as f64;
        let known = stored + (source.rejected + source.shed + source.lost) as f64;
        there += stored;
        sent += known;
        if stored < known {
            sources.push((format!("{} {}", source.source, source.exporter).trim().to_owned(), stored / known));
        }
    }
    (sent > 0.0).then(|| Completeness { share: there / sent, sources })
}

/// The AST of a query, for tools.
pub fn check(text: &str) -> Result<ast::Query, SrqlError> {
    let query = parse::parse(text)?;
    plan::entities(&query)?;
    Ok(query)
}
