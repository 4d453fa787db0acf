//! Live queries: a snapshot, then exact changes. The sum of what a client received equals a fresh query at that epoch.
//!
//! A query over the rows of one state table, and groups of the rows of one table, events in a span that slides among
//! them, are kept by what comes and goes with each epoch ([`crate::live::kept`]). Every other query (joins, rows of events,
//! percentiles) is asked again when something it reads has changed, and the difference is sent. Neither takes more than a
//! fifth of its time.
//!
//! A client that does not keep up misses epochs; it is told with a fresh snapshot that says so. One that takes nothing at
//! all for a while ([`SLOW`]) is let go, and told with the last event how to go on. One that was cut off says which event it
//! saw last: while the epochs after it are known, a query that is kept row by row goes on from there, and every other begins
//! anew, with a snapshot that says so. It ends with the token of whoever asked.
//!
//! What a stream holds is bounded: [`MAX_ROWS`] rows, [`UNSENT`] events, [`STREAM_BYTES`] of them, [`TENANT_BYTES`] of all of a
//! tenant (one event in any case), and one epoch while it takes it in. Other epochs are held by nobody but [`Live`], for all.
//!
//! [`Live`]: crate::tables::live::Live

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Nature, Table};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};

use crate::actor::{Actor, OVER};
use crate::engine::Engine;
use crate::engine::answer::json_rows;
use crate::error::QueryError;
use crate::error::SrqlError;
use crate::live::kept::{Asked, How, Kept, Rows, Taken, apart, count};
use crate::srql::ast::{Aggregate, Expr, GroupKey, Key, Query, Value as Compared};
use crate::srql::{groups, parse, plan, redirects};
use crate::tables::catalog::{Entity, STATUS_COLOR};
use crate::tables::live::Next;
use crate::tables::view::View;

/// Rows that a stream may hold.
pub const MAX_ROWS: usize = 10_000;
/// Events that may wait for a client.
pub const UNSENT: usize = 64;
/// Bytes of events that may wait for a client, about.
pub const STREAM_BYTES: usize = 4 << 20;
/// Bytes of events that may wait for all clients of a tenant, about.
pub const TENANT_BYTES: usize = 64 << 20;
/// How long a client may take nothing while something waits for it.
pub const SLOW: Duration = Duration::from_secs(30);
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
    /// The client takes nothing: the server lets it go. Up to this epoch it was told everything.
    TooSlow(Option<u64>),
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
            Event::TooSlow(seen) => {
                let detail = "the client took nothing for too long; ask again, with Last-Event-ID, to go on";
                (
                    "end",
                    json!({"reason": "too_slow", "last_event_id": seen.map(|seen| seen.to_string()), "detail": detail}),
                )
            }
            Event::End => ("end", json!({})),
        }
    }
}

/// The streams there are.
pub struct Streams {
    running: Arc<Tenants>,
    closing: watch::Sender<bool>,
}

impl Default for Streams {
    fn default() -> Self {
        Streams { running: Arc::default(), closing: watch::Sender::new(false) }
    }
}

impl Streams {
    /// Ends all of them.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// How many there are.
    pub fn running(&self) -> usize {
        self.running.lock().values().map(|of| of.streams).sum()
    }

    /// Bytes of events that wait for their clients, about.
    pub fn bytes(&self) -> usize {
        self.running.lock().values().map(|of| of.bytes).sum()
    }
}

/// What tenants have of streams.
#[derive(Default)]
struct Tenants {
    by_tenant: Mutex<BTreeMap<String, OfTenant>>,
    /// A client took something.
    freed: Notify,
}

#[derive(Default)]
struct OfTenant {
    streams: usize,
    bytes: usize,
}

impl Tenants {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OfTenant>> {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what a stream had.
    fn give_back(&self, tenant: &str, streams: usize, bytes: usize) {
        let mut by_tenant = self.lock();
        if let Some(of) = by_tenant.get_mut(tenant) {
            of.streams = of.streams.saturating_sub(streams);
            of.bytes = of.bytes.saturating_sub(bytes);
            if of.streams == 0 && of.bytes == 0 {
                by_tenant.remove(tenant);
            }
        }
    }
}

/// One stream, for as long as it runs.
struct Running {
    tenants: Arc<Tenants>,
    tenant: String,
    /// Bytes of events that wait for its client.
    waiting: Arc<AtomicUsize>,
}

impl Running {
    fn admit(tenants: &Arc<Tenants>, tenant: &str) -> Option<Running> {
        let mut by_tenant = tenants.lock();
        let of = by_tenant.entry(tenant.to_owned()).or_default();
        if of.streams >= STREAMS_TENANT {
            return None;
        }
        of.streams += 1;
        drop(by_tenant);
        Some(Running { tenants: tenants.clone(), tenant: tenant.to_owned(), waiting: Arc::default() })
    }

    /// Room for an event to wait in. Where nothing else waits there is room for any.
    fn room(&self, bytes: usize) -> Option<Room> {
        let mut by_tenant = self.tenants.lock();
        let of = by_tenant.entry(self.tenant.clone()).or_default();
        let fits = |held: usize, most: usize| held == 0 || held + bytes <= most;
        if !fits(self.waiting.load(Ordering::Relaxed), STREAM_BYTES) || !fits(of.bytes, TENANT_BYTES) {
            return None;
        }
        of.bytes += bytes;
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        drop(by_tenant);
        let (tenants, tenant, waiting) = (self.tenants.clone(), self.tenant.clone(), self.waiting.clone());
        Some(Room { tenants, tenant, waiting, bytes })
    }

    /// Waits for it.
    async fn wait_for_room(&self, bytes: usize) -> Room {
        loop {
            let freed = self.tenants.freed.notified();
            tokio::pin!(freed);
            // From here on nothing that is taken is missed.
            freed.as_mut().enable();
            if let Some(room) = self.room(bytes) {
                return room;
            }
            freed.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tenants.give_back(&self.tenant, 1, 0);
    }
}

/// What an event takes while it waits.
struct Room {
    tenants: Arc<Tenants>,
    tenant: String,
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
        self.tenants.give_back(&self.tenant, 0, self.bytes);
        self.tenants.freed.notify_waiters();
    }
}

/// A value takes so many bytes, about.
fn weight(value: &Value) -> usize {
    let more = match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(weight).sum(),
        Value::Object(all) => all.iter().map(|(key, value)| key.len() + 32 + weight(value)).sum(),
        _ => 0,
    };
    32 + more
}

impl Event {
    fn weight(&self) -> usize {
        let rows = |rows: &[Value]| rows.iter().map(weight).sum::<usize>();
        match self {
            Event::Snapshot { rows: all, .. } => 64 + rows(all),
            Event::Change { added, removed, .. } => 64 + rows(added) + rows(removed),
            _ => 64,
        }
    }
}

/// The events of a stream, as its client takes them.
pub struct Events {
    queue: mpsc::Receiver<(Event, Room)>,
    last: Arc<Mutex<Option<Event>>>,
}

impl Events {
    /// The next one; after the last nothing.
    pub async fn recv(&mut self) -> Option<Event> {
        match self.queue.recv().await {
            Some((event, _room)) => Some(event),
            // It ends without waiting for its client to take what is left.
            None => self.last.lock().unwrap_or_else(PoisonError::into_inner).take(),
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
    to: mpsc::Sender<(Event, Room)>,
    /// The last epoch that its client was told everything of; 0 for none.
    told: AtomicU64,
    /// What its client hears when it has taken everything else.
    last: Arc<Mutex<Option<Event>>>,
    running: Running,
}

/// Why a stream ends.
enum Ended {
    /// The client left, or the server stops.
    Quietly,
    /// The client takes nothing.
    Slow,
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
        Expr::Filter(key, value) => is_own(key) && value_by_itself(value),
        Expr::Text(_) => true,
    }
}

/// Whether a key names a field of the row itself.
fn is_own(key: &Key) -> bool {
    !parse::OBJECTS.contains(&&*key.path[0].to_ascii_lowercase())
}

fn value_by_itself(value: &Compared) -> bool {
    match value {
        Compared::Sub(..) => false,
        Compared::Field(_, key) => is_own(key),
        Compared::Any(all) | Compared::All(all) => all.iter().all(value_by_itself),
        _ => true,
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
pub fn start(engine: &Arc<Engine>, actor: &Actor, text: &str, seen: Option<&str>) -> Result<Events, QueryError> {
    let mut query = parse::parse(text)?;
    let entities = plan::entities(&query)?;
    if query.cursor.is_some() || query.explain || query.at.is_some() {
        let detail = "cursor:, at: and explain: are not for streams";
        return Err(SrqlError::new("clause_conflict", (0, text.len()), detail).into());
    }
    query.stream = None;
    redirects::follow(&mut query, &engine.live().view(), actor);
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
    let running = Running::admit(&engine.streams().running, &actor.tenant).ok_or(QueryError::Busy)?;
    let (to, events) = mpsc::channel(UNSENT);
    let asked = Asked { engine: engine.clone(), actor: actor.clone(), query, table: tables[0] };
    let last = Arc::default();
    let events = Events { queue: events, last: Arc::clone(&last) };
    let stream = Stream { asked, tables, how: how.into(), slides, to, told: AtomicU64::new(0), last, running };
    // Whatever was seen of a stream that is not this server's counts for nothing.
    let seen = seen.map(|id| id.trim().parse().unwrap_or(0));
    tokio::spawn(stream.run(seen));
    Ok(events)
}

/// How far the answer to a query of one entity can be kept, where nothing but its rows and the span they are in changes it.
fn how(query: &Query, entity: &Entity) -> Option<How> {
    let own = is_own;
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
            Ended::Slow => Event::TooSlow(Some(self.told.load(Ordering::Relaxed)).filter(|told| *told > 0)),
            Ended::Failed(error) => Event::Failed(match error {
                QueryError::Language(e) => e.to_string(),
                QueryError::TooLarge(detail) | QueryError::Failed(detail) => detail,
                QueryError::Ended => OVER.to_owned(),
                other => format!("{other:?}"),
            }),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    async fn follow(&self, mut seen: Option<u64>) -> Ended {
        let mut reset = seen.is_some();
        loop {
            match self.keep_told(reset, seen.take()).await {
                // It fell behind, or cannot be kept as it was.
                Ok(()) => reset = true,
                Err(ended) => return ended,
            }
        }
    }

    /// Sends an event once there is room for it; who takes nothing meanwhile is too slow.
    async fn send(&self, event: Event) -> Result<(), Ended> {
        let (bytes, told) = (event.weight(), event.id().and_then(|id| id.parse().ok()));
        let sent = async {
            let room = self.running.wait_for_room(bytes).await;
            self.to.send((event, room)).await
        };
        match tokio::time::timeout(self.asked.engine.slow(), sent).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Ended::Quietly),
            Err(_) => return Err(Ended::Slow),
        }
        told.into_iter().for_each(|told| self.told.store(told, Ordering::Relaxed));
        Ok(())
    }

    /// Says how far it is, if there is room. Where there is none, a client has enough to read.
    fn offer_frontier(&self, epoch: u64) -> Result<(), Ended> {
        let event = Event::Frontier(epoch);
        let Some(room) = self.running.room(event.weight()) else { return Ok(()) };
        match self.to.try_send((event, room)) {
            Ok(()) => self.told.store(epoch, Ordering::Relaxed),
            Err(mpsc::error::TrySendError::Full(_)) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Ended::Quietly),
        }
        Ok(())
    }

    /// A snapshot, and changes until the stream falls behind.
    async fn keep_told(&self, reset: bool, seen: Option<u64>) -> Result<(), Ended> {
        let live = self.asked.engine.live();
        let mut answer = self.answer(reset, seen).await?;
        let (mut told, mut told_at, mut looked_at, mut heard) = (answer.at, Instant::now(), Instant::now(), answer.at);
        loop {
            let wait = if answer.waits() { answer.pause.saturating_sub(looked_at.elapsed()) } else { HEARTBEAT };
            match tokio::time::timeout(wait.min(HEARTBEAT), live.next(heard)).await {
                Ok(Next::Epoch(output)) => {
                    heard = output.epoch;
                    if output.epoch > answer.at {
                        answer.take(&output).await?;
                    }
                }
                Ok(Next::Missed) if answer.kept.is_some() => return Ok(()),
                // What is asked for again needs none of them.
                Ok(Next::Missed) => (heard, answer.unseen) = (live.view().epoch, true),
                Err(_) => {}
            }
            if looked_at.elapsed() >= answer.pause {
                let began = Instant::now();
                if let Some((added, removed)) = answer.look(looked_at.elapsed() >= SLIDE).await? {
                    // Answering takes a fifth of the time at most.
                    answer.pause = answer.pause.max(began.elapsed() * 4);
                    if !added.is_empty() || !removed.is_empty() {
                        self.send(Event::Change { epoch: answer.at, added, removed }).await?;
                        (told, told_at) = (answer.at, Instant::now());
                    }
                    looked_at = Instant::now();
                }
            }
            if answer.is_too_large {
                self.ask_from_now_on();
                return Ok(());
            }
            // What was not looked at yet is not promised.
            if !answer.waits() && answer.at > told && told_at.elapsed() >= HEARTBEAT {
                self.offer_frontier(answer.at)?;
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
        let seen = seen.filter(|seen| how == Some(How::Rows) && live.knows(*seen));
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
        if let Some(seen) = seen
            && answer.catch_up(seen).await?
        {
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
        Ok(serde_json::from_slice(&json_rows(&batches)?).unwrap_or_default())
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
    /// Tells what came after an epoch until the version that it began with; false where that is not known any more.
    async fn catch_up(&mut self, seen: u64) -> Result<bool, Ended> {
        let until = self.at.max(seen);
        self.at = seen;
        while self.at < until {
            let Next::Epoch(output) = self.stream.asked.engine.live().next(self.at).await else {
                self.at = until;
                return Ok(false);
            };
            self.take(&output).await?;
            // However long its client takes, it is not kept for that.
            drop(output);
            let (added, removed) = self.look(false).await?.unwrap_or_default();
            if !added.is_empty() || !removed.is_empty() {
                self.stream.send(Event::Change { epoch: self.at, added, removed }).await?;
            }
        }
        Ok(true)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_for_a_stream_and_a_tenant_and_others_have_their_own() {
        let tenants = Arc::new(Tenants::default());
        let running = |tenant: &str| Running::admit(&tenants, tenant).unwrap();
        let one = running("t");
        let (part, most) = (STREAM_BYTES / 4, STREAM_BYTES);
        let mut waits: Vec<Room> = (0..4).map(|_| one.room(part).unwrap()).collect();
        assert!(one.room(1).is_none());
        assert!(running("t").room(2 * most).is_some(), "what is larger waits alone");
        // What is taken makes room, at once for whoever waits for it.
        let waiting = async { one.wait_for_room(part).await };
        let taken = async {
            tokio::task::yield_now().await;
            waits.pop();
        };
        let (room, ()) =
            tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(waiting, taken) }).await.unwrap();
        waits.push(room);
        // All streams of the tenant together have so much, and another tenant's have as much.
        let more: Vec<Running> = (1..STREAMS_TENANT).map(|_| running("t")).collect();
        waits.extend(more.iter().filter_map(|stream| stream.room(most)));
        let held: usize = tenants.lock()["t"].bytes;
        assert!(held <= TENANT_BYTES && held + most > TENANT_BYTES, "{held}");
        let other = running("u");
        assert!(other.room(most).is_some());
        // Nothing is left of those that are gone.
        drop((one, more, other));
        assert_eq!(tenants.lock().len(), 1);
        drop(waits);
        assert!(tenants.lock().is_empty());
    }

    #[test]
    fn events_are_weighed_by_what_they_hold() {
        let row = |n: usize| json!({"hostname": "x".repeat(n)});
        let change = |rows| Event::Change { epoch: 1, added: rows, removed: vec![] };
        assert!(change(vec![row(10_000)]).weight() > 10_000);
        assert!(change(vec![row(0); 100]).weight() > 100 * "hostname".len());
        assert!(Event::Frontier(1).weight() > 0);
    }
}
