//! A query as it will run: its text, the version of the tables that it reads, and its plan over what the actor may see.

use std::cell::Cell;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ident, lit};
use datafusion::prelude::{DataFrame, SessionContext};
use radarflow_proto::rows::{Nature, Table};

use crate::actor::Actor;
use crate::engine::cursor::{Cursor, query_hash};
use crate::engine::{Engine, page};
use crate::error::{QueryError, SrqlError};
use crate::srql::plan::{self, Planned};
use crate::srql::time::Range;
use crate::srql::{ast, groups, parse, redirects};
use crate::tables::catalog::Entity;
use crate::tables::past::Moment;
use crate::tables::view::View;

/// A query as it will run.
pub(super) struct Prepared {
    pub(super) query: ast::Query,
    pub(super) entities: Vec<&'static Entity>,
    pub(super) view: Arc<View>,
    pub(super) planned: Planned,
    pub(super) cursor: Option<Cursor>,
    pub(super) hash: String,
    /// Events up to this epoch are looked at.
    pub(super) epoch: u64,
    /// Its clock.
    pub(super) clock_ms: i64,
    pub(super) at: Option<i64>,
    pub(super) now_us: i64,
}

impl Engine {
    /// A query as it will run, over one version of the tables.
    pub(super) fn prepare(
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
        let hash = query_hash(text, &query.paging);
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
        redirects::follow(&mut query, &view, actor);
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
        let planned = tables.allowed(planned)?;
        Ok(Prepared { query, entities, view, planned, cursor, hash, epoch, clock_ms, at, now_us })
    }

    /// The plan of a query over a version of the tables.
    pub(crate) fn plan(&self, actor: &Actor, query: &ast::Query, view: &View) -> Result<Planned, QueryError> {
        let ctx = self.session();
        let tables = Scoped::new(view, &ctx, actor);
        tables.allowed(plan::plan(query, &tables, view.clock_ms * 1000, None))
    }
}

/// Tables as an actor may see them, events up to an epoch.
pub(super) struct Scoped<'a> {
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
    /// A table was asked for that the actor may not read.
    denied: Cell<Option<Table>>,
}

impl<'a> Scoped<'a> {
    /// Everything as a version has it.
    pub(super) fn new(view: &'a View, ctx: &'a SessionContext, actor: &'a Actor) -> Self {
        let (lost, forgotten, denied) = (Cell::new(false), Cell::new(None), Cell::new(None));
        Scoped { view, ctx, actor, epoch: view.epoch, at: None, lost, forgotten, denied }
    }

    /// Events up to an epoch.
    pub(super) fn until(self, epoch: u64) -> Self {
        Scoped { epoch, ..self }
    }

    /// What was planned, unless it reads what the actor may not.
    pub(super) fn allowed<T>(&self, planned: Result<T, SrqlError>) -> Result<T, QueryError> {
        match self.denied.get() {
            Some(table) => Err(QueryError::Forbidden(table.name())),
            None => Ok(planned?),
        }
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
        if !self.actor.reads(table) {
            self.denied.set(Some(table));
            return Err(DataFusionError::Plan(format!("{} are not for everybody", table.name())));
        }
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
