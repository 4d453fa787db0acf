//! How a query is answered: with a page, with all of its rows as they come, with what could stand in it.

use std::ops;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch, StringArray};
use arrow_schema::SchemaRef;
use datafusion::prelude::DataFrame;
use radarflow_proto::cell::Time;

use crate::actor::Actor;
use crate::engine::answer::{Answer, Meta, completeness};
use crate::engine::bytes::collect;
use crate::engine::cancel::Work;
use crate::engine::cursor::Cursor;
use crate::engine::export::Export;
use crate::engine::page::{self, Executed, NARROW_FIRST};
use crate::engine::prepare::Prepared;
use crate::engine::scanned::Scanned;
use crate::engine::{Engine, while_granted};
use crate::error::{QueryError, failed};
use crate::srql::complete::{self, Item};
use crate::srql::plan::{self, Planned};
use crate::tables::catalog::Entity;
use crate::tables::past::Moment;
use crate::tables::view::View;

/// Said where more was learnt late of addresses than is kept.
const MUCH_LEARNT_LATE: &str =
    "more was learnt late of who had addresses than is kept: old events are of the devices they were stored with";

impl Engine {
    /// Answers a query.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub async fn query(
        self: &Arc<Self>,
        actor: &Actor,
        text: &str,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let answer = while_granted(actor, async {
            let work = self.admit(&actor.tenant).await?;
            self.bounded(&work, actor, text, cursor, limit).await
        });
        let answer = answer.await;
        self.count(&answer, started);
        answer
    }

    /// Answers a query with its rows alone, as they come; without `limit:` with all of them.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
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
        let work = self.admit(&actor.tenant).await?;
        match self.all_rows(&work, actor, text).await? {
            Some((frame, epoch)) => self.send(work, frame, epoch).map(Some),
            None => Ok(None),
        }
    }

    async fn all_rows(
        self: &Arc<Self>,
        work: &Arc<Work>,
        actor: &Actor,
        text: &str,
    ) -> Result<Option<(DataFrame, u64)>, QueryError> {
        let (engine, actor, text) = (self.clone(), actor.clone(), text.to_owned());
        let shaped = async move {
            let Prepared { planned, query, cursor, view, .. } = engine.prepare(&actor, &text, None, None)?;
            if query.limit.is_some() || cursor.is_some() || query.explain || planned.fill.is_some() {
                return Ok(None);
            }
            let all = Planned { limit: None, pages: false, ..planned };
            Ok(Some((page::shape(all, None)?.frame, view.epoch)))
        };
        self.work(work, shaped).await
    }

    /// The columns that an export of a query has.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub async fn srql_schema(self: &Arc<Self>, actor: &Actor, text: &str) -> Result<SchemaRef, QueryError> {
        let work = self.admit(&actor.tenant).await?;
        match self.all_rows(&work, actor, text).await? {
            Some((frame, _)) => Ok(Arc::new(frame.schema().as_arrow().clone())),
            None => {
                drop(work);
                Ok(self.query(actor, text, None, None).await?.schema)
            }
        }
    }

    /// Runs a plan for whoever takes its rows.
    pub(crate) fn send(&self, work: Arc<Work>, frame: DataFrame, epoch: u64) -> Result<Export, QueryError> {
        Export::start(&self.threads, work, frame, epoch).ok_or(QueryError::Busy)
    }

    async fn bounded(
        self: &Arc<Self>,
        work: &Arc<Work>,
        actor: &Actor,
        text: &str,
        cursor: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Answer, QueryError> {
        let (engine, actor, text, cursor) = (self.clone(), actor.clone(), text.to_owned(), cursor.map(str::to_owned));
        self.work(work, async move { engine.run(&actor, &text, cursor.as_deref(), limit).await }).await
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
            let (planned, found) = match entities[..] {
                [one]
                    if at.is_none()
                        && view.epoch == epoch
                        && query.time.is_none()
                        && page::narrows(&query)
                        && view.len(&actor.tenant, one.table) >= NARROW_FIRST =>
                {
                    page::narrowed(planned, one.table, cursor.as_ref()).await?
                }
                _ => (planned, Scanned::default()),
            };
            let mut answer = page::execute(planned, cursor.as_ref(), now_us).await?;
            answer.scanned += found;
            answer
        };
        let Executed { batches, schema, edges, limit, range, warnings, truncated, units, scanned } = answer;
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
        let instant = |us: i64| Time(us).to_string();
        let mut meta = self.meta(&view, actor, &entities, started, &batches, truncated);
        (meta.rows_scanned, meta.bytes_scanned) = (scanned.rows, scanned.bytes);
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
        Ok(Answer { batches, schema, next_cursor: next, prev_cursor: prev, limit, units, meta })
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
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Meta {
            epoch: view.epoch,
            frontier_time: Time::from_ms(view.clock_ms).to_string(),
            lag_ms: (now_ms - view.clock_ms).max(0),
            elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
            rows: batches.iter().map(RecordBatch::num_rows).sum(),
            rows_scanned: 0,
            bytes_scanned: 0,
            time_range: None,
            at: None,
            truncated,
            completeness: completeness(view, actor, entities),
            warnings: Vec::new(),
        }
    }

    /// What could stand at a place of a query: what the catalog knows, and the most frequent values of the data that the
    /// actor may see. Of events those of the last minutes are looked at.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub async fn complete(
        self: &Arc<Self>,
        actor: &Actor,
        text: &str,
        offset: usize,
    ) -> Result<(ops::Range<usize>, Vec<Item>), QueryError> {
        let done = complete::complete(text, offset);
        let mut items = done.items;
        if let Some(wanted) = done.values {
            let work = self.admit(&actor.tenant).await?;
            let view = self.live.view();
            let ctx = self.session();
            let rows = view.table(&ctx, actor, wanted.entity.table).map_err(failed)?;
            let plan = plan::values(&wanted, rows, view.clock_ms * 1000)?;
            let batches = self.work(&work, collect(plan)).await?;
            for batch in &batches {
                let values: &StringArray = batch.column(0).as_string();
                let counts = batch.column(1).as_primitive::<Int64Type>();
                items.extend((0..batch.num_rows()).filter(|row| values.is_valid(*row)).map(|row| Item {
                    text: complete::written(values.value(row), &wanted),
                    kind: "value",
                    detail: format!("{} times", counts.value(row)),
                }));
            }
        }
        Ok((done.replaces, items))
    }
}
