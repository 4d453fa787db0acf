//! What a live query asks of the engine: parts of its answer, planned and run as those of any other.

use arrow_array::RecordBatch;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

use crate::actor::Actor;
use crate::engine::prepare::Scoped;
use crate::engine::{Engine, page};
use crate::error::QueryError;
use crate::srql::ast;
use crate::srql::plan::{self, Planned, Tallied};
use crate::srql::time::Range;
use crate::tables::view::View;

impl Engine {
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
        let tables = Scoped::new(view, &ctx, actor).until(epoch);
        tables.allowed(plan::tallied(query, &tables, view.clock_ms * 1000, part))
    }

    /// All rows of a query, if they are no more than `most`.
    pub(crate) async fn whole(
        &self,
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
    pub(crate) async fn ranked(&self, planned: Planned) -> Result<Vec<RecordBatch>, QueryError> {
        Ok(self.on_threads(async move { page::execute(planned, None, 0).await }).await?.batches)
    }

    /// The columns that a plan shows, in no order.
    pub(crate) async fn columns(&self, planned: Planned) -> Result<Vec<RecordBatch>, QueryError> {
        let planned = Planned { order: Vec::new(), pages: false, limit: None, fill: None, ..planned };
        Ok(self.on_threads(async move { page::execute(planned, None, 0).await }).await?.batches)
    }

    /// Memory for what is kept of live queries, none of it yet.
    pub(crate) fn reservation(&self) -> MemoryReservation {
        MemoryConsumer::new("live query").register(&self.kept)
    }
}
