//! The live queries there are: which queries can be followed, how far their answers can be kept, and how many there are.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use radarflow_proto::rows::{Nature, Table};
use tokio::sync::{mpsc, watch};

use crate::actor::Actor;
use crate::engine::Engine;
use crate::error::{QueryError, SrqlError};
use crate::live::events::{Events, UNSENT};
use crate::live::kept::{Asked, How};
use crate::live::stream::{SLOW, Stream};
use crate::live::waiting::{ALL_BYTES, Running, Tenants};
use crate::srql::ast::{Aggregate, Expr, GroupKey, Key, Query, Value};
use crate::srql::{groups, parse, plan, redirects};
use crate::tables::catalog::{Entity, STATUS_COLOR};

/// The streams there are.
pub struct Streams {
    engine: Arc<Engine>,
    /// How long whoever follows a query may take nothing of what waits for them.
    slow: Duration,
    running: Arc<Tenants>,
    closing: watch::Sender<bool>,
}

impl Streams {
    /// None yet, of an engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Streams::with_patience(engine, SLOW)
    }

    /// The same, whose clients may take nothing for so long.
    pub fn with_patience(engine: Arc<Engine>, slow: Duration) -> Self {
        Streams { engine, slow, running: Tenants::of(ALL_BYTES), closing: watch::Sender::new(false) }
    }

    /// The same, for all of whose clients so many bytes of events may wait.
    pub fn within(self, bytes: usize) -> Self {
        Streams { running: Tenants::of(bytes), ..self }
    }

    /// Begins a live query; its events come out of the receiver. `seen` is the id of the last event that the client had before
    /// it was cut off.
    ///
    /// # Errors
    /// The query is wrong, or cannot be followed; or its tenant follows as many as may be.
    pub fn start(&self, actor: &Actor, text: &str, seen: Option<&str>) -> Result<Events, QueryError> {
        let engine = &self.engine;
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
        let running = Running::admit(&self.running, &actor.tenant).ok_or(QueryError::Busy)?;
        let (to, events) = mpsc::channel(UNSENT);
        let asked = Asked { engine: engine.clone(), actor: actor.clone(), query, table: tables[0] };
        let last = Arc::default();
        let events = Events { queue: events, last: Arc::clone(&last) };
        let (how, told, slow) = (how.into(), AtomicU64::new(0), self.slow);
        let stream = Stream { asked, tables, how, slides, to, told, last, running, slow };
        // Whatever was seen of a stream that is not this server's counts for nothing.
        let seen = seen.map(|id| id.trim().parse().unwrap_or(0));
        tokio::spawn(stream.run(seen, self.closing.subscribe()));
        Ok(events)
    }

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

fn value_by_itself(value: &Value) -> bool {
    match value {
        Value::Sub(..) => false,
        Value::Field(_, key) => is_own(key),
        Value::Any(all) | Value::All(all) => all.iter().all(value_by_itself),
        _ => true,
    }
}

/// The tables of subqueries, and of devices where keys speak of them.
fn tables_below(expr: &Expr, tables: &mut Vec<Table>) -> Result<(), SrqlError> {
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter().try_for_each(|e| tables_below(e, tables)),
        Expr::Not(inner) => tables_below(inner, tables),
        Expr::Filter(_, Value::Sub(query, _)) => {
            tables.extend(plan::entities(query)?.iter().map(|e| e.table));
            tables_below(&query.filter, tables)
        }
        Expr::Filter(..) | Expr::Text(_) => Ok(()),
    }
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
                GroupKey::Each(..) => false,
                GroupKey::Time(..) => entity.time.is_some(),
            });
            let calls =
                |call: &Aggregate| call.field.as_ref().is_none_or(own) && call.only.as_ref().is_none_or(by_itself);
            (keys && query.stats.iter().all(calls)).then_some(How::Groups)
        }
    }
}
