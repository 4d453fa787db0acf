//! Live queries: a snapshot, then exact changes. The sum of what a client received equals a fresh query at that epoch.
//!
//! A query over the rows of one state table is kept by the changes of each epoch alone: the rows that went and the rows
//! that came are filtered like a table of their own, and groups of them are tallied ([`crate::tally`]). Every other query
//! (joins, events, spans of time that slide) is asked again when something it reads has changed, not more often than it
//! can bear, and the difference is sent.
//!
//! A client that does not keep up misses epochs; it is told with a fresh snapshot that says so. One that was cut off says
//! which event it saw last: while the epochs after it are known, a query that is kept row by row goes on from there, and
//! every other begins anew, with a snapshot that says so. What a stream holds is bounded: [`MAX_ROWS`] rows, [`BEHIND`]
//! epochs, [`UNSENT`] events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use datafusion::common::DataFusionError;
use datafusion::prelude::DataFrame;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Nature, StateRow, Table, state_batch};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};

use crate::access::Actor;
use crate::answer::json_rows;
use crate::catalog::STATUS_COLOR;
use crate::engine::{Engine, QueryError, failed};
use crate::groups;
use crate::live::{View, seen_by};
use crate::srql::ast::{Aggregate, Expr, GroupKey, Key, Query, Value as Compared};
use crate::srql::{SrqlError, parse, plan};
use crate::tally::Groups;

/// Rows that a stream may hold.
pub const MAX_ROWS: usize = 10_000;
/// Epochs that a stream may be behind.
pub const BEHIND: usize = 256;
/// Events that may wait for a client.
pub const UNSENT: usize = 64;
/// Streams of one tenant.
pub const STREAMS_TENANT: usize = 64;
/// Rows of one event.
const ROWS_EVENT: usize = 1000;
/// How often a client hears that nothing happened.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Least time between two askings.
const AGAIN: Duration = Duration::from_millis(200);
/// How often a span of time that slides is looked at.
const SLIDE: Duration = Duration::from_secs(5);

/// What a client is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Rows as of an epoch; the last part says so. With `reset`, what was sent before no longer counts.
    Snapshot {
        /// Which epoch.
        epoch: u64,
        /// The rows.
        rows: Vec<Value>,
        /// Whether it is complete.
        last: bool,
        /// Whether it is a new one.
        reset: bool,
    },
    /// Rows that came and went.
    Change {
        /// At which epoch.
        epoch: u64,
        /// Came.
        added: Vec<Value>,
        /// Went.
        removed: Vec<Value>,
    },
    /// Everything up to this epoch was sent.
    Frontier(u64),
    /// It cannot go on.
    Failed(String),
    /// The server ends it.
    End,
}

impl Event {
    /// What a client that is cut off after it may go on from: it has everything up to this epoch.
    pub fn id(&self) -> Option<String> {
        match self {
            Event::Snapshot { epoch, last: true, .. } | Event::Change { epoch, .. } | Event::Frontier(epoch) => {
                Some(epoch.to_string())
            }
            _ => None,
        }
    }

    /// Its name and data, as server-sent events have them.
    pub fn parts(&self) -> (&'static str, Value) {
        match self {
            Event::Snapshot { epoch, rows, last, reset } => {
                ("snapshot", json!({"epoch": epoch, "rows": rows, "last": last, "reset": reset}))
            }
            Event::Change { epoch, added, removed } => {
                ("change", json!({"epoch": epoch, "added": added, "removed": removed}))
            }
            Event::Frontier(epoch) => ("frontier", json!({"epoch": epoch})),
            Event::Failed(detail) => ("error", json!({"detail": detail})),
            Event::End => ("end", json!({})),
        }
    }
}

/// The streams there are.
pub struct Streams {
    running: Mutex<BTreeMap<String, usize>>,
    closing: watch::Sender<bool>,
}

impl Default for Streams {
    fn default() -> Self {
        Streams { running: Mutex::default(), closing: watch::Sender::new(false) }
    }
}

impl Streams {
    /// Ends all of them.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// How many there are.
    pub fn running(&self) -> usize {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// One stream, for as long as it runs.
struct Running(Arc<Engine>, String);

impl Running {
    fn admit(engine: &Arc<Engine>, tenant: &str) -> Option<Running> {
        let mut running = engine.streams().running.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = running.entry(tenant.to_owned()).or_default();
        if *of_tenant >= STREAMS_TENANT {
            return None;
        }
        *of_tenant += 1;
        Some(Running(engine.clone(), tenant.to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.0.streams().running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = running.get_mut(&self.1) {
            *n -= 1;
            if *n == 0 {
                running.remove(&self.1);
            }
        }
    }
}

/// Some rows in place of a table: a query that is kept row by row reads no other.
struct These(DataFrame);

impl plan::Tables for These {
    fn rows(&self, _: Table) -> Result<DataFrame, DataFusionError> {
        Ok(self.0.clone())
    }

    fn intervals(&self) -> Result<Option<DataFrame>, DataFusionError> {
        Ok(None)
    }
}

/// A live query.
struct Stream {
    engine: Arc<Engine>,
    actor: Actor,
    query: Query,
    /// The tables it reads.
    tables: Vec<Table>,
    /// Whether the rows of an epoch can be judged by themselves.
    by_row: bool,
    /// The same of rows that are counted in groups, unless more would have to be kept than may be.
    by_group: AtomicBool,
    /// Whether the clock alone changes its answer.
    slides: bool,
    to: mpsc::Sender<Event>,
    _running: Running,
}

/// Why a stream ends.
enum Ended {
    /// The client left, or the server stops.
    Quietly,
    /// It has to be said.
    Failed(QueryError),
}

impl From<QueryError> for Ended {
    fn from(error: QueryError) -> Self {
        Ended::Failed(error)
    }
}

/// Whether an expression's comparisons can be made with a row alone.
fn by_itself(expr: &Expr) -> bool {
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter().all(by_itself),
        Expr::Not(inner) => by_itself(inner),
        Expr::Filter(key, value) => !matches!(value, Compared::Sub(..)) && !parse::OBJECTS.contains(&&*key.path[0]),
        Expr::Text(_) => true,
    }
}

/// The tables of subqueries, and of devices where keys speak of them.
fn tables_below(expr: &Expr, tables: &mut Vec<Table>) -> Result<(), SrqlError> {
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter().try_for_each(|e| tables_below(e, tables)),
        Expr::Not(inner) => tables_below(inner, tables),
        Expr::Filter(_, Compared::Sub(query, _)) => {
            tables.extend(plan::entities(query)?.iter().map(|e| e.table));
            tables_below(&query.filter, tables)
        }
        Expr::Filter(..) | Expr::Text(_) => Ok(()),
    }
}

/// Begins a live query; its events come out of the receiver. `seen` is the id of the last event that the client had before
/// it was cut off.
pub fn start(
    engine: &Arc<Engine>,
    actor: &Actor,
    text: &str,
    seen: Option<&str>,
) -> Result<mpsc::Receiver<Event>, QueryError> {
    let mut query = parse::parse(text)?;
    let entities = plan::entities(&query)?;
    if query.cursor.is_some() || query.explain || query.at.is_some() {
        let detail = "cursor:, at: and explain: are not for streams";
        return Err(SrqlError::new("clause_conflict", (0, text.len()), detail).into());
    }
    query.stream = None;
    groups::expand(&mut query, &engine.live().view(), actor)?;
    let mut tables: Vec<Table> = entities.iter().map(|e| e.table).collect();
    tables_below(&query.filter, &mut tables)?;
    tables.push(Table::Device);
    let plain = query.bucket.is_none() && query.rollup.is_none();
    let clocked = ["now", "today", STATUS_COLOR];
    let relative = clocked.iter().any(|word| text.to_ascii_lowercase().contains(word));
    let keys_alone =
        query.sort.iter().map(|s| &s.key).chain(&query.fields).all(|k| !parse::OBJECTS.contains(&&*k.path[0]));
    let state = matches!(entities[..], [one] if one.table.nature() == Nature::State);
    let alone = state && plain && !relative && query.time.is_none() && by_itself(&query.filter);
    let by_row = alone && keys_alone && query.stats.is_empty() && query.limit.is_none();
    let by_group = alone && !query.stats.is_empty() && groups_alone(&query);
    let slides = relative || query.time.is_some() || entities.iter().any(|e| e.time.is_some());
    // What is wrong with it is said at once.
    let view = engine.live().view();
    engine.plan(actor, &query, &view)?;
    let running = Running::admit(engine, &actor.tenant).ok_or(QueryError::Busy)?;
    let (to, events) = mpsc::channel(UNSENT);
    let stream = Stream {
        engine: engine.clone(),
        actor: actor.clone(),
        query,
        tables,
        by_row,
        by_group: by_group.into(),
        slides,
        to,
        _running: running,
    };
    // Whatever was seen of a stream that is not this server's counts for nothing.
    let seen = seen.map(|id| id.trim().parse().unwrap_or(0));
    tokio::spawn(stream.run(seen));
    Ok(events)
}

/// Whether groups are of a row's own fields, and so is what they count.
fn groups_alone(query: &Query) -> bool {
    let own = |key: &Key| !parse::OBJECTS.contains(&&*key.path[0]);
    let keys = query.by.iter().all(|key| match key {
        GroupKey::Field(key, _) | GroupKey::Cidr(key, ..) => own(key),
        GroupKey::Time(..) => false,
    });
    let calls = |call: &Aggregate| call.field.as_ref().is_none_or(own) && call.only.as_ref().is_none_or(by_itself);
    keys && query.stats.iter().all(calls)
}

type Rows = BTreeMap<String, i64>;

fn count(rows: &[Value], into: &mut Rows, sign: i64) {
    for row in rows {
        let key = row.to_string();
        let n = into.entry(key.clone()).or_default();
        *n += sign;
        if *n == 0 {
            into.remove(&key);
        }
    }
}

/// Rows that were counted up and down, as those that came and those that went.
fn apart(net: &Rows) -> (Vec<Value>, Vec<Value>) {
    let rows = |sign: i64| {
        let wanted = net.iter().filter(move |(_, n)| n.signum() == sign);
        wanted.flat_map(|(row, n)| {
            let row: Value = serde_json::from_str(row).unwrap_or_default();
            std::iter::repeat_n(row, n.unsigned_abs() as usize)
        })
    };
    (rows(1).collect(), rows(-1).collect())
}

impl Stream {
    async fn run(self, seen: Option<u64>) {
        let mut closing = self.engine.streams().closing.subscribe();
        let ended = tokio::select! {
            ended = self.follow(seen) => ended,
            _ = closing.wait_for(|closing| *closing) => Ended::Quietly,
            () = self.to.closed() => return,
        };
        let last = match ended {
            Ended::Quietly => Event::End,
            Ended::Failed(error) => Event::Failed(match error {
                QueryError::Language(e) => e.to_string(),
                QueryError::TooLarge(detail) | QueryError::Failed(detail) => detail,
                other => format!("{other:?}"),
            }),
        };
        let _ = self.to.send(last).await;
    }

    async fn follow(&self, mut seen: Option<u64>) -> Ended {
        let mut reset = seen.is_some();
        loop {
            // First the ear, then the eye: nothing can happen between.
            let epochs = self.engine.live().epochs();
            match self.keep_told(epochs, reset, seen.take()).await {
                // It fell behind. Until its client has taken something nothing is kept for it.
                Ok(()) => reset = true,
                Err(ended) => return ended,
            }
            if self.to.reserve_many(UNSENT / 2).await.is_err() {
                return Ended::Quietly;
            }
        }
    }

    async fn send(&self, event: Event) -> Result<(), Ended> {
        self.to.send(event).await.map_err(|_| Ended::Quietly)
    }

    /// Sends if there is room, which there is unless the client has stalled.
    fn offer(&self, event: Event) -> Result<bool, Ended> {
        match self.to.try_send(event) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Ended::Quietly),
        }
    }

    /// A snapshot, and changes until the stream falls behind.
    async fn keep_told(
        &self,
        mut epochs: broadcast::Receiver<Arc<EpochOutput>>,
        reset: bool,
        seen: Option<u64>,
    ) -> Result<(), Ended> {
        let mut view = self.engine.live().view();
        let mut known = Rows::new();
        let mut groups = match self.by_group.load(Ordering::Relaxed) {
            true => self.engine.groups(&self.actor, &self.query, &view).await?,
            false => None,
        };
        let kept = self.by_row || groups.is_some();
        let missed = seen.filter(|_| self.by_row).and_then(|seen| Some((seen, self.engine.live().since(seen)?)));
        let mut at = match missed {
            Some((seen, missed)) => {
                let mut at = seen;
                for output in missed {
                    at = output.epoch;
                    let (added, removed) = self.changed(&output).await?;
                    if !added.is_empty() || !removed.is_empty() {
                        self.send(Event::Change { epoch: at, added, removed }).await?;
                    }
                }
                at
            }
            None => {
                let rows = self.ask(&view).await?;
                if !self.by_row {
                    count(&rows, &mut known, 1);
                }
                self.snapshot(&view, &rows, reset).await?;
                view.epoch
            }
        };
        let (mut told, mut told_at, mut asked_at) = (at, Instant::now(), Instant::now());
        let mut pause = AGAIN;
        loop {
            match tokio::time::timeout(HEARTBEAT, epochs.recv()).await {
                Ok(Ok(output)) if output.epoch > at => {
                    at = output.epoch;
                    if kept {
                        let (added, removed) = match &mut groups {
                            Some(groups) => self.regrouped(&output, groups, &mut known).await?,
                            None => self.changed(&output).await?,
                        };
                        if groups.as_ref().is_some_and(Groups::is_too_large) {
                            self.by_group.store(false, Ordering::Relaxed);
                            return Ok(());
                        }
                        if !added.is_empty() || !removed.is_empty() {
                            if !self.offer(Event::Change { epoch: at, added, removed })? {
                                return Ok(());
                            }
                            (told, told_at) = (at, Instant::now());
                        }
                    }
                }
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => return Ok(()),
                Ok(Err(broadcast::error::RecvError::Closed)) => return Err(Ended::Quietly),
            }
            if !kept && asked_at.elapsed() >= pause {
                let now = self.engine.live().view();
                let moved = !now.same(&view, &self.actor.tenant, &self.tables);
                if moved || (self.slides && asked_at.elapsed() >= SLIDE) {
                    let began = Instant::now();
                    let rows = self.ask(&now).await?;
                    let mut net: Rows = known.iter().map(|(row, n)| (row.clone(), -n)).collect();
                    count(&rows, &mut net, 1);
                    known.clear();
                    count(&rows, &mut known, 1);
                    let (added, removed) = apart(&net);
                    at = now.epoch;
                    if !net.is_empty() {
                        if !self.offer(Event::Change { epoch: at, added, removed })? {
                            return Ok(());
                        }
                        (told, told_at) = (at, Instant::now());
                    }
                    asked_at = Instant::now();
                    // Asking takes a fifth of the time at most.
                    pause = AGAIN.max(began.elapsed() * 4);
                    view = now;
                } else if !moved {
                    view = now;
                    at = at.max(view.epoch);
                }
            }
            // What was not looked at yet is not promised.
            let until = if kept { at } else { view.epoch };
            if until > told && told_at.elapsed() >= HEARTBEAT {
                // Where there is no room for it, a client has enough to read.
                self.offer(Event::Frontier(until))?;
                (told, told_at) = (until, Instant::now());
            }
        }
    }

    async fn snapshot(&self, view: &View, rows: &[Value], reset: bool) -> Result<(), Ended> {
        let mut parts = rows.chunks(ROWS_EVENT).peekable();
        loop {
            let rows = parts.next().unwrap_or_default().to_vec();
            let last = parts.peek().is_none();
            self.send(Event::Snapshot { epoch: view.epoch, rows, last, reset }).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// The whole answer.
    async fn ask(&self, view: &View) -> Result<Vec<Value>, QueryError> {
        let batches = self.engine.whole(&self.actor, &self.query, view, MAX_ROWS).await?;
        Ok(serde_json::from_slice(&json_rows(&batches)).unwrap_or_default())
    }

    /// The rows of the table that came (1) and went (-1) with an epoch.
    fn moved(&self, output: &EpochOutput) -> Result<Vec<(These, i64)>, QueryError> {
        let table = self.tables[0];
        let ours = |row: &&StateRow| row.table() == table && row.tenant() == self.actor.tenant;
        let before: Vec<&StateRow> = output.changes.iter().filter_map(|c| c.before.as_ref()).filter(ours).collect();
        let after: Vec<&StateRow> = output.changes.iter().filter_map(|c| c.after.as_ref()).filter(ours).collect();
        let these = |(rows, sign): (Vec<&StateRow>, i64)| {
            let ctx = self.engine.session();
            let frame = ctx.read_batch(state_batch(table, rows.iter().copied())).map_err(failed)?;
            Ok((These(seen_by(frame, &self.actor).map_err(failed)?), sign))
        };
        [(before, -1), (after, 1)].into_iter().filter(|(rows, _)| !rows.is_empty()).map(these).collect()
    }

    /// The rows that came and went with an epoch.
    async fn changed(&self, output: &EpochOutput) -> Result<(Vec<Value>, Vec<Value>), QueryError> {
        let mut net = Rows::new();
        for (these, sign) in self.moved(output)? {
            let planned = plan::plan(&self.query, &these, output.clock_ms * 1000, None)?;
            let batches = self.engine.columns(planned).await?;
            let rows: Vec<Value> = serde_json::from_slice(&json_rows(&batches)).unwrap_or_default();
            count(&rows, &mut net, sign);
        }
        Ok(apart(&net))
    }

    /// What an epoch changed of groups. Of the first so many groups any may be one, so that all are looked at.
    async fn regrouped(
        &self,
        output: &EpochOutput,
        groups: &mut Groups,
        known: &mut Rows,
    ) -> Result<(Vec<Value>, Vec<Value>), QueryError> {
        let defect = |e: arrow_schema::ArrowError| QueryError::Failed(e.to_string());
        let (mut moved, mut touched) = (Vec::new(), BTreeSet::new());
        for (these, sign) in self.moved(output)? {
            let Some(tallied) = plan::tallied(&self.query, &these, output.clock_ms * 1000)? else { continue };
            let counted = async move { tallied.frame.collect().await.map_err(failed) };
            for batch in self.engine.on_threads(counted).await? {
                touched.extend(groups.of(&batch).map_err(defect)?);
                moved.push((batch, sign));
            }
        }
        if touched.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let ranked = self.query.limit.is_some();
        let mut net = Rows::new();
        if ranked {
            net.extend(known.iter().map(|(row, n)| (row.clone(), -n)));
        } else {
            count(&self.told(groups, &touched).await?, &mut net, -1);
        }
        for (batch, sign) in &moved {
            groups.take(batch, *sign).map_err(defect)?;
        }
        groups.settle(&touched);
        if groups.len() > MAX_ROWS && !ranked {
            return Err(QueryError::TooLarge(format!("more than {MAX_ROWS} groups; narrow the query, or say limit:")));
        }
        if ranked {
            let rows = self.told(groups, &groups.all()).await?;
            known.clear();
            count(&rows, known, 1);
            count(&rows, &mut net, 1);
        } else {
            count(&self.told(groups, &touched).await?, &mut net, 1);
        }
        Ok(apart(&net))
    }

    /// What the query shows of some groups.
    async fn told(&self, groups: &Groups, wanted: &BTreeSet<crate::tally::Key>) -> Result<Vec<Value>, QueryError> {
        let told = groups.told(wanted).map_err(|e| QueryError::Failed(e.to_string()))?;
        let frame = self.engine.session().read_batch(told).map_err(failed)?;
        let planned = plan::of_groups(&self.query, frame, groups.keys())?;
        let batches = match self.query.limit {
            Some(_) => self.engine.ranked(planned).await?,
            None => self.engine.columns(planned).await?,
        };
        Ok(serde_json::from_slice(&json_rows(&batches)).unwrap_or_default())
    }
}
