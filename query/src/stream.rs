//! Live queries: a snapshot, then exact changes. The sum of what a client received equals a fresh query at that epoch.
//!
//! A query over the rows of one state table, and groups of the rows of one table, events in a span that slides among
//! them, are kept by what comes and goes with each epoch ([`crate::kept`]). Every other query (joins, rows of events,
//! percentiles) is asked again when something it reads has changed, and the difference is sent. Neither takes more than a
//! fifth of its time.
//!
//! A client that does not keep up misses epochs; it is told with a fresh snapshot that says so. One that was cut off says
//! which event it saw last: while the epochs after it are known, a query that is kept row by row goes on from there, and
//! every other begins anew, with a snapshot that says so. It ends with the token of whoever asked. What a stream holds is bounded: [`MAX_ROWS`] rows, [`BEHIND`]
//! epochs, [`UNSENT`] events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Nature, Table};
use serde_json::{Value, json};
use tokio::sync::{broadcast, mpsc, watch};

use crate::access::{Actor, OVER};
use crate::answer::json_rows;
use crate::catalog::{Entity, STATUS_COLOR};
use crate::engine::{Engine, QueryError};
use crate::groups;
use crate::kept::{Asked, How, Kept, Rows, Taken, apart, count};
use crate::srql::ast::{Aggregate, Expr, GroupKey, Key, Query, Value as Compared};
use crate::srql::{SrqlError, parse, plan};
use crate::view::View;

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

/// A live query.
struct Stream {
    asked: Asked,
    /// The tables it reads.
    tables: Vec<Table>,
    /// How far its answer is kept, unless more would have to be kept than may be.
    how: Mutex<Option<How>>,
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
    let how = match entities[..] {
        [one] if plain && !relative && by_itself(&query.filter) => how(&query, one),
        _ => None,
    };
    let slides = relative || query.time.is_some() || entities.iter().any(|e| e.time.is_some());
    // What is wrong with it is said at once.
    let view = engine.live().view();
    engine.plan(actor, &query, &view)?;
    let running = Running::admit(engine, &actor.tenant).ok_or(QueryError::Busy)?;
    let (to, events) = mpsc::channel(UNSENT);
    let asked = Asked { engine: engine.clone(), actor: actor.clone(), query, table: tables[0] };
    let stream = Stream { asked, tables, how: how.into(), slides, to, _running: running };
    // Whatever was seen of a stream that is not this server's counts for nothing.
    let seen = seen.map(|id| id.trim().parse().unwrap_or(0));
    tokio::spawn(stream.run(seen));
    Ok(events)
}

/// How far the answer to a query of one entity can be kept, where nothing but its rows and the span they are in changes it.
fn how(query: &Query, entity: &Entity) -> Option<How> {
    let own = |key: &Key| !parse::OBJECTS.contains(&&*key.path[0]);
    match entity.table.nature() {
        Nature::State if query.time.is_some() => None,
        Nature::State if query.stats.is_empty() => {
            let keys_alone = query.sort.iter().map(|s| &s.key).chain(&query.fields).all(own);
            (keys_alone && query.limit.is_none()).then_some(How::Rows)
        }
        Nature::Event if query.stats.is_empty() || query.latest.is_some() => None,
        _ => {
            let keys = query.by.iter().all(|key| match key {
                GroupKey::Field(key, _) | GroupKey::Cidr(key, ..) => own(key),
                GroupKey::Time(..) => entity.time.is_some(),
            });
            let calls =
                |call: &Aggregate| call.field.as_ref().is_none_or(own) && call.only.as_ref().is_none_or(by_itself);
            (keys && query.stats.iter().all(calls)).then_some(How::Groups)
        }
    }
}

impl Stream {
    async fn run(self, seen: Option<u64>) {
        let mut closing = self.asked.engine.streams().closing.subscribe();
        let ended = tokio::select! {
            ended = self.follow(seen) => ended,
            _ = closing.wait_for(|closing| *closing) => Ended::Quietly,
            () = self.asked.actor.grant.ended() => Ended::Failed(QueryError::Ended),
            () = self.to.closed() => return,
        };
        let last = match ended {
            Ended::Quietly => Event::End,
            Ended::Failed(error) => Event::Failed(match error {
                QueryError::Language(e) => e.to_string(),
                QueryError::TooLarge(detail) | QueryError::Failed(detail) => detail,
                QueryError::Ended => OVER.to_owned(),
                other => format!("{other:?}"),
            }),
        };
        let _ = self.to.send(last).await;
    }

    async fn follow(&self, mut seen: Option<u64>) -> Ended {
        let mut reset = seen.is_some();
        loop {
            // First the ear, then the eye: nothing can happen between.
            let epochs = self.asked.engine.live().epochs();
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
        let mut answer = self.answer(reset, seen).await?;
        let (mut told, mut told_at, mut looked_at) = (answer.at, Instant::now(), Instant::now());
        loop {
            let wait = if answer.waits() { answer.pause.saturating_sub(looked_at.elapsed()) } else { HEARTBEAT };
            match tokio::time::timeout(wait.min(HEARTBEAT), epochs.recv()).await {
                Ok(Ok(output)) if output.epoch > answer.at => answer.take(&output).await?,
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(broadcast::error::RecvError::Lagged(_))) => return Ok(()),
                Ok(Err(broadcast::error::RecvError::Closed)) => return Err(Ended::Quietly),
            }
            if looked_at.elapsed() >= answer.pause {
                let began = Instant::now();
                if let Some((added, removed)) = answer.look(looked_at.elapsed() >= SLIDE).await? {
                    if !added.is_empty() || !removed.is_empty() {
                        if !self.offer(Event::Change { epoch: answer.at, added, removed })? {
                            return Ok(());
                        }
                        (told, told_at) = (answer.at, Instant::now());
                    }
                    // Answering takes a fifth of the time at most.
                    looked_at = Instant::now();
                    answer.pause = answer.pause.max(began.elapsed() * 4);
                }
            }
            if answer.is_too_large {
                self.ask_from_now_on();
                return Ok(());
            }
            // What was not looked at yet is not promised.
            if !answer.waits() && answer.at > told && told_at.elapsed() >= HEARTBEAT {
                // Where there is no room for it, a client has enough to read.
                self.offer(Event::Frontier(answer.at))?;
                (told, told_at) = (answer.at, Instant::now());
            }
        }
    }

    /// Its answer cannot be kept, or is too much to be.
    fn ask_from_now_on(&self) {
        *self.how.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Begins an answer: tells all of it, or what its client has missed.
    async fn answer(&self, reset: bool, seen: Option<u64>) -> Result<Answer<'_>, Ended> {
        let live = self.asked.engine.live();
        let view = live.view();
        let how = *self.how.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match how {
            Some(how) => self.asked.keep(how, &view).await?.map(|kept| (how, kept)),
            None => None,
        };
        if kept.is_none() {
            self.ask_from_now_on();
        }
        let missed = seen.filter(|_| how == Some(How::Rows)).and_then(|seen| Some((seen, live.since(seen)?)));
        let mut answer = Answer {
            stream: self,
            pause: if kept.is_some() { Duration::ZERO } else { AGAIN },
            kept,
            known: Rows::new(),
            at: view.epoch,
            view,
            unseen: false,
            is_stale: false,
            is_too_large: false,
        };
        if let Some((seen, missed)) = missed {
            answer.at = seen;
            for output in missed {
                answer.take(&output).await?;
                let (added, removed) = answer.look(false).await?.unwrap_or_default();
                if !added.is_empty() || !removed.is_empty() {
                    self.send(Event::Change { epoch: answer.at, added, removed }).await?;
                }
            }
            return Ok(answer);
        }
        let all = match &answer.kept {
            Some((_, kept)) => kept.all(&self.asked).await?,
            None => None,
        };
        let rows = match all {
            Some(rows) => rows,
            None => self.ask(&answer.view).await?,
        };
        if answer.kept.is_none() {
            count(&rows, &mut answer.known, 1);
        }
        self.snapshot(&answer.view, &rows, reset).await?;
        Ok(answer)
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
        let batches = self.asked.engine.whole(&self.asked.actor, &self.asked.query, view, MAX_ROWS).await?;
        Ok(serde_json::from_slice(&json_rows(&batches)).unwrap_or_default())
    }
}

/// The answer of a stream, from epoch to epoch.
struct Answer<'a> {
    stream: &'a Stream,
    /// What is kept of it, if it is not asked for again.
    kept: Option<(How, Kept)>,
    /// What was told of one that is asked for again, and of which version.
    known: Rows,
    view: Arc<View>,
    /// The epoch that it is as of.
    at: u64,
    /// There is a version that was not looked at.
    unseen: bool,
    /// What is kept does not hold any more: it has to be counted anew.
    is_stale: bool,
    /// More would have to be kept than may be.
    is_too_large: bool,
    /// How long not to look at it again.
    pause: Duration,
}

/// Rows that came, and rows that went.
type Changes = (Vec<Value>, Vec<Value>);

impl Answer<'_> {
    /// Takes in an epoch.
    async fn take(&mut self, output: &EpochOutput) -> Result<(), QueryError> {
        let Some((_, kept)) = &mut self.kept else {
            self.unseen = true;
            return Ok(());
        };
        if self.is_stale {
            return Ok(());
        }
        match kept.take(&self.stream.asked, output).await? {
            Taken::In => self.at = output.epoch,
            Taken::Stale => self.is_stale = true,
            Taken::TooLarge => self.is_too_large = true,
        }
        Ok(())
    }

    /// Whether there is something to be looked at.
    fn waits(&self) -> bool {
        self.unseen || self.is_stale || self.kept.as_ref().is_some_and(|(_, kept)| kept.has_news())
    }

    /// What changed since it was last looked at, if anything can have. `overdue` says that the clock alone may have.
    async fn look(&mut self, overdue: bool) -> Result<Option<Changes>, QueryError> {
        let asked = &self.stream.asked;
        let live = asked.engine.live();
        match &mut self.kept {
            Some((_, kept)) if kept.has_news() => {
                self.pause = Duration::ZERO;
                kept.news(asked).await.map(Some)
            }
            Some((how, kept)) if self.is_stale => {
                let view = live.view();
                let Some(anew) = asked.keep(*how, &view).await? else {
                    self.is_too_large = true;
                    return Ok(None);
                };
                let mut net = Rows::new();
                for (answer, sign) in [(&*kept, -1), (&anew, 1)] {
                    count(&answer.all(asked).await?.unwrap_or_default(), &mut net, sign);
                }
                (*kept, self.at, self.is_stale, self.pause) = (anew, view.epoch, false, AGAIN);
                Ok(Some(apart(&net)))
            }
            Some(_) => Ok(None),
            None => {
                let now = live.view();
                let moved = !now.same(&self.view, &asked.actor.tenant, &self.stream.tables);
                let looks = moved || (self.stream.slides && overdue);
                let mut net = Rows::new();
                if looks {
                    let rows = self.stream.ask(&now).await?;
                    net.extend(self.known.iter().map(|(row, n)| (row.clone(), -n)));
                    self.known.clear();
                    count(&rows, &mut self.known, 1);
                    count(&rows, &mut net, 1);
                    self.pause = AGAIN;
                }
                self.unseen = false;
                // What the clock may have changed is as of when it was asked for.
                if looks || !self.stream.slides {
                    (self.at, self.view) = (now.epoch, now);
                }
                Ok(looks.then(|| apart(&net)))
            }
        }
    }
}
