//! A rule over the past: its rows out of memory and the lake, a slice of time after another, through the groups that the dataflow
//! keeps.

use std::sync::Arc;

use radarflow_reconcile::rules::Rule;
use radarflow_reconcile::rules::past::{Found, Past};
use tokio::time::timeout;

use crate::actor::Actor;
use crate::engine::export::{EXPORT_TIME, Export};
use crate::engine::{Engine, page, while_granted};
use crate::error::QueryError;
use crate::srql::ast::{Key, Literal, Query, Sort};
use crate::srql::plan::Planned;

/// Slices that the past is cut into, so that no more than one is in order at once.
const SLICES: i64 = 168;
/// The shortest of them, microseconds.
const LEAST_US: i64 = 3_600_000_000;

/// What there would have been.
#[derive(Clone, Debug)]
pub(crate) struct Rehearsed {
    /// The alerts, in the order in which they would have begun.
    pub(crate) found: Vec<Found>,
    /// How many in all.
    pub(crate) alerts: usize,
    /// Groups that found no room, as often as they were met.
    pub(crate) refused: u64,
    /// Rows that are like the rule's filter.
    pub(crate) rows: u64,
}

fn key(name: &str) -> Key {
    Key { path: vec![name.to_owned()], span: (0, 0) }
}

impl Engine {
    /// Tells when a rule over events would have held from one time to another, microseconds since 1970, of the rows that the actor may
    /// see. `asks` is its query.
    ///
    /// # Errors
    /// The actor may not read them, or there is no room or time for it.
    pub(crate) async fn rehearse(
        self: &Arc<Self>,
        actor: &Actor,
        rule: Rule,
        asks: &Query,
        (from_us, to_us): (i64, i64),
    ) -> Result<Rehearsed, QueryError> {
        let time = rule.entity.time.unwrap_or("time");
        let columns: Vec<Key> = rule.columns().into_iter().map(key).collect();
        let width = ((to_us - from_us) / SLICES + 1).max(LEAST_US);
        let mut past = Past::new(rule, from_us.div_euclid(1000));
        let mut rows = 0;
        let all = async move {
            let mut at = from_us;
            while at < to_us {
                let until = (at + width).min(to_us);
                let mut query = rows_of(asks, &columns, time);
                query.time = Some(between(at, until));
                let mut export = self.slice(actor, query).await?;
                while let Some(batch) = export.next().await {
                    let batch = batch?;
                    rows += batch.num_rows() as u64;
                    past = self.aside(past, move |past| past.rows(&batch)).await?;
                }
                at = until;
            }
            Ok((past, rows))
        };
        let (past, rows) = timeout(EXPORT_TIME, all).await.unwrap_or(Err(QueryError::TimedOut))?;
        let end = async move {
            let (found, alerts, refused) = past.end(to_us.div_euclid(1000));
            Ok(Rehearsed { found, alerts, refused, rows })
        };
        self.on_threads(end).await
    }

    /// Goes on with the past on the threads of queries, where it keeps nobody else from being answered.
    async fn aside(&self, past: Past, work: impl FnOnce(&mut Past) + Send + 'static) -> Result<Past, QueryError> {
        let mut past = past;
        let past = self.on_threads(async move {
            work(&mut past);
            Ok(past)
        });
        let past = past.await?;
        match past.is_too_much() {
            true => Err(QueryError::TooLarge(
                "the rule has too many groups to be tried on so long a past; shorten since, or narrow its filter"
                    .to_owned(),
            )),
            false => Ok(past),
        }
    }

    async fn slice(self: &Arc<Self>, actor: &Actor, query: Query) -> Result<Export, QueryError> {
        let begun = async {
            let work = self.admit(&actor.tenant).await?;
            let (engine, asker) = (self.clone(), actor.clone());
            let shaped = async move {
                let view = engine.live.view();
                let planned = engine.plan(&asker, &query, &view)?;
                let all = Planned { limit: None, pages: false, ..planned };
                Ok((page::shape(all, None)?.frame, view.epoch))
            };
            let (frame, epoch) = self.work(&work, shaped).await?;
            self.send(work, frame, epoch)
        };
        while_granted(actor, begun).await.map(|export| export.until(actor))
    }
}

/// The rows that a query groups, oldest first.
fn rows_of(asks: &Query, columns: &[Key], time: &str) -> Query {
    let mut query = asks.clone();
    (query.stats, query.by, query.having) = (Vec::new(), Vec::new(), None);
    query.fields = columns.to_vec();
    query.sort = vec![Sort { key: key(time), ascending: true }];
    query
}

fn between(from_us: i64, to_us: i64) -> Literal {
    let instant = |us: i64| radarflow_proto::cell::Time(us).to_string();
    let text = format!("[{},{}]", instant(from_us), instant(to_us));
    Literal { text, quoted: true, verbatim: true, span: (0, 0) }
}
