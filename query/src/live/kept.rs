//! Answers of live queries that are kept by what comes and goes, instead of being asked for again.
//!
//! ```text
//! rows      :- the rows of one state table that went and came with an epoch, filtered like a table of their own
//! groups    :- tallies ([`crate::live::tally`]) of rows that went and came
//! of state  :- those of the changes of an epoch
//! of events :- came: those of an epoch that are dated within the span; went: those that its beginning has passed
//! ```
//! Groups of events that speak of devices hold what these are called today. Where that changes, or whose an address was is
//! learnt late, they are counted anew. How a span slides: [`crate::live::window`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Nature, StateRow, Table, state_batch};
use serde_json::Value;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::engine::bytes::collect;
use crate::engine::encode::json_rows;
use crate::error::{QueryError, failed};
use crate::live::tally::{Groups, Key};
use crate::live::window::Window;
use crate::srql::ast::Query;
use crate::srql::plan;
use crate::srql::time::Range;
use crate::tables::led::NAMES;
use crate::tables::live::tenant_of;
use crate::tables::view::{View, seen_by};

/// Rows that a stream may hold.
pub(crate) const MAX_ROWS: usize = 10_000;

/// Rows, each as often as it is there.
pub(crate) type Rows = BTreeMap<String, i64>;

pub(crate) fn count(rows: &[Value], into: &mut Rows, sign: i64) {
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
pub(crate) fn apart(net: &Rows) -> (Vec<Value>, Vec<Value>) {
    let rows = |sign: i64| {
        let wanted = net.iter().filter(move |(_, n)| n.signum() == sign);
        wanted.flat_map(|(row, n)| {
            let row: Value = serde_json::from_str(row).unwrap_or_default();
            std::iter::repeat_n(row, n.unsigned_abs() as usize)
        })
    };
    (rows(1).collect(), rows(-1).collect())
}

/// Some rows in place of a table: a query that is kept reads no other.
struct These(DataFrame);

impl plan::Tables for These {
    fn rows(&self, _: Table) -> Result<DataFrame, DataFusionError> {
        Ok(self.0.clone())
    }

    fn intervals(&self) -> Result<Option<DataFrame>, DataFusionError> {
        Ok(None)
    }
}

/// Who asks what.
pub(crate) struct Asked {
    pub(crate) engine: Arc<Engine>,
    pub(crate) actor: Actor,
    pub(crate) query: Query,
    /// The table it reads rows of.
    pub(crate) table: Table,
}

/// How far an answer can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The rows of an epoch can be judged by themselves.
    Rows,
    /// The same of rows that are counted in groups.
    Groups,
}

/// What became of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is taken in.
    In,
    /// What is kept does not hold any more: it has to be counted anew.
    Stale,
    /// More would have to be kept than may be.
    TooLarge,
}

/// What is kept of an answer.
pub(crate) struct Kept {
    groups: Option<Box<Counted>>,
    /// What changed since it was told; of groups, what was told of those that changed.
    news: Rows,
}

/// Groups, and what they are made of.
struct Counted {
    groups: Groups,
    /// Groups that have changed since it was told.
    touched: BTreeSet<Key>,
    /// Of the first so many groups any may be one: what was told.
    ranked: Option<Rows>,
    window: Option<Window>,
    memory: MemoryReservation,
}

#[allow(clippy::needless_pass_by_value, reason = "errors are mapped by it")]
pub(super) fn broken(error: ArrowError) -> QueryError {
    QueryError::Failed(error.to_string())
}

impl Asked {
    /// Begins to keep an answer, as of a version; nothing where that cannot be, or is too much.
    pub(crate) async fn keep(&self, how: How, view: &View) -> Result<Option<Kept>, QueryError> {
        let news = Rows::new();
        if how == How::Rows {
            return Ok(Some(Kept { groups: None, news }));
        }
        let now_us = view.clock_ms * 1000;
        let range = match self.table.nature() {
            Nature::State => None,
            Nature::Event => Some(plan::span(&self.query, now_us)?.unwrap_or_default()),
        };
        // What has an end leaves rows behind at both sides, or has no rows to come. What a span leaves is read again:
        // somebody has to have it.
        let kept = |range: Range| range.to.is_none() && self.engine.live().has_events_since(range.from, now_us);
        if range.is_some_and(|range| !kept(range)) {
            return Ok(None);
        }
        let Some(tallied) = self.engine.tallied(&self.actor, &self.query, view, view.epoch, range)? else {
            return Ok(None);
        };
        let names = NAMES.iter().any(|name| tallied.reads.contains(*name)).then(|| view.names(&self.actor.tenant));
        let mut groups = Groups::new(&tallied).map_err(broken)?;
        let (memory, held) = (self.engine.reservation(), self.engine.reservation());
        let counting = async move {
            let mut rows = tallied.alike()?.execute_stream().await.map_err(failed)?;
            while let Some(batch) = rows.next().await {
                groups.take_alike(&batch.map_err(failed)?).map_err(broken)?;
                if groups.is_too_large() || held.try_resize(groups.bytes()).is_err() {
                    return Ok(None);
                }
            }
            Ok(Some(groups))
        };
        let Some(groups) = self.engine.on_threads(counting).await? else { return Ok(None) };
        let window = range.map(|range| Window::new(range.from, view, names));
        let ranked = self.query.limit.map(|_| Rows::new());
        let mut counted = Counted { groups, touched: BTreeSet::new(), ranked, window, memory };
        if counted.is_too_large() {
            return Ok(None);
        }
        if counted.ranked.is_some() {
            let rows = counted.told(self, &counted.groups.all(), false).await?;
            counted.ranked.iter_mut().for_each(|ranked| count(&rows, ranked, 1));
        }
        Ok(Some(Kept { groups: Some(Box::new(counted)), news }))
    }

    /// The rows that came (1) and went (-1) with an epoch.
    fn moved(&self, output: &EpochOutput) -> Result<Vec<(These, i64)>, QueryError> {
        let table = self.table;
        let ours = |row: &&StateRow| row.table() == table && row.tenant() == self.actor.tenant;
        let before: Vec<&StateRow> = output.changes.iter().filter_map(|c| c.before.as_ref()).filter(ours).collect();
        let after: Vec<&StateRow> = output.changes.iter().filter_map(|c| c.after.as_ref()).filter(ours).collect();
        let changes = [(before, -1), (after, 1)].into_iter().filter(|(rows, _)| !rows.is_empty());
        changes.map(|(rows, sign)| Ok((self.these(state_batch(table, rows.iter().copied()), None)?, sign))).collect()
    }

    /// Some rows, as the actor may see them; events name devices as a version does.
    fn these(&self, rows: RecordBatch, named: Option<&View>) -> Result<These, QueryError> {
        let mut frame = self.engine.session().read_batch(rows).map_err(failed)?;
        if let Some(view) = named {
            frame = view.as_known(frame, &self.actor.tenant, self.table).map_err(failed)?;
        }
        Ok(These(seen_by(frame, &self.actor).map_err(failed)?))
    }

    /// What is counted of some rows.
    async fn counted(&self, these: &These, now_us: i64, range: Option<Range>) -> Result<Vec<RecordBatch>, QueryError> {
        let Some(tallied) = plan::tallied(&self.query, these, now_us, range)? else { return Ok(Vec::new()) };
        self.engine.on_threads(async move { collect(tallied.frame).await }).await
    }
}

impl Kept {
    /// Takes in an epoch.
    pub(crate) async fn take(&mut self, asked: &Asked, output: &EpochOutput) -> Result<Taken, QueryError> {
        let now_us = output.clock_ms * 1000;
        let Some(counted) = &mut self.groups else {
            for (these, sign) in asked.moved(output)? {
                let planned = plan::plan(&asked.query, &these, now_us, None)?;
                let batches = asked.engine.columns(planned).await?;
                let rows: Vec<Value> = serde_json::from_slice(&json_rows(&batches)?).unwrap_or_default();
                count(&rows, &mut self.news, sign);
            }
            return Ok(Taken::In);
        };
        let mut moved = Vec::new();
        if let Some(window) = &mut counted.window {
            // All of it is read as one version names it, which is how it was counted. It may be newer than the epoch.
            let view = asked.engine.live().view();
            if window.names.as_ref().is_some_and(|names| *names != view.names(&asked.actor.tenant)) {
                return Ok(Taken::Stale);
            }
            if !window.slide(asked, &view, now_us, &mut moved).await? {
                return Ok(Taken::TooLarge);
            }
            let new =
                output.events.iter().filter(|(t, rows)| *t == asked.table && tenant_of(rows) == asked.actor.tenant);
            for (_, rows) in new {
                let range = Range { from: window.from, to: None };
                for batch in asked.counted(&asked.these(rows.clone(), Some(&view))?, now_us, Some(range)).await? {
                    window.late(&batch).map_err(broken)?;
                    moved.push((batch, 1));
                }
            }
            window.epoch = output.epoch;
        } else {
            for (these, sign) in asked.moved(output)? {
                moved.extend(asked.counted(&these, now_us, None).await?.into_iter().map(|batch| (batch, sign)));
            }
        }
        counted.take(asked, &moved, &mut self.news).await?;
        Ok(if counted.is_too_large() { Taken::TooLarge } else { Taken::In })
    }

    /// Whether anything may have changed since it was told.
    pub(crate) fn has_news(&self) -> bool {
        !self.news.is_empty() || self.groups.as_ref().is_some_and(|counted| !counted.touched.is_empty())
    }

    /// What came and what went since it was told.
    pub(crate) async fn news(&mut self, asked: &Asked) -> Result<(Vec<Value>, Vec<Value>), QueryError> {
        let mut net = std::mem::take(&mut self.news);
        if let Some(counted) = &mut self.groups {
            let touched = std::mem::take(&mut counted.touched);
            counted.groups.settle(&touched);
            if counted.ranked.is_some() {
                let rows = counted.told(asked, &counted.groups.all(), false).await?;
                if let Some(before) = &mut counted.ranked {
                    net.extend(before.iter().map(|(row, n)| (row.clone(), -n)));
                    before.clear();
                    count(&rows, before, 1);
                }
                count(&rows, &mut net, 1);
            } else {
                if counted.groups.len() > MAX_ROWS {
                    let detail = format!("more than {MAX_ROWS} groups; narrow the query, or say limit:");
                    return Err(QueryError::TooLarge(detail));
                }
                count(&counted.told(asked, &touched, false).await?, &mut net, 1);
            }
        }
        Ok(apart(&net))
    }

    /// Everything that it shows now, in order; nothing where it does not have its rows.
    pub(crate) async fn all(&self, asked: &Asked) -> Result<Option<Vec<Value>>, QueryError> {
        let Some(counted) = &self.groups else { return Ok(None) };
        if counted.ranked.is_none() && counted.groups.len() > MAX_ROWS {
            return Err(QueryError::TooLarge(format!("more than {MAX_ROWS} groups; narrow the query, or say limit:")));
        }
        counted.told(asked, &counted.groups.all(), true).await.map(Some)
    }
}

impl Counted {
    /// Takes in rows; notes what was told of the groups that they change.
    async fn take(&mut self, asked: &Asked, moved: &[(RecordBatch, i64)], news: &mut Rows) -> Result<(), QueryError> {
        let mut new = BTreeSet::new();
        for (batch, _) in moved {
            new.extend(self.groups.of(batch).map_err(broken)?);
        }
        new.retain(|key| !self.touched.contains(key));
        if self.ranked.is_none() && !new.is_empty() {
            count(&self.told(asked, &new, false).await?, news, -1);
        }
        self.touched.append(&mut new);
        for (batch, sign) in moved {
            self.groups.take(batch, *sign).map_err(broken)?;
        }
        Ok(())
    }

    /// What the query shows of some groups.
    async fn told(&self, asked: &Asked, wanted: &BTreeSet<Key>, ordered: bool) -> Result<Vec<Value>, QueryError> {
        let told = self.groups.told(wanted).map_err(broken)?;
        let frame = asked.engine.session().read_batch(told).map_err(failed)?;
        let mut planned = plan::of_groups(&asked.query, frame, self.groups.keys())?;
        planned.limit = planned.limit.or(ordered.then_some(MAX_ROWS));
        let batches = match planned.limit {
            Some(_) => asked.engine.ranked(planned).await?,
            None => asked.engine.columns(planned).await?,
        };
        Ok(serde_json::from_slice(&json_rows(&batches)?).unwrap_or_default())
    }

    fn is_too_large(&self) -> bool {
        let leaving = self.window.as_ref().and_then(Window::leaving);
        let bytes = self.groups.bytes() + leaving.map_or(0, RecordBatch::get_array_memory_size);
        self.groups.is_too_large() || self.memory.try_resize(bytes).is_err()
    }
}
