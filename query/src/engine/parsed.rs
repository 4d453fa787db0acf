//! Statements of SQL that were parsed elsewhere, over the same entities and in the same scope as [`super::sql`]'s.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow_schema::{DataType, SchemaRef};
use datafusion::prelude::DataFrame;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast;

use crate::actor::Actor;
use crate::engine::export::Export;
use crate::engine::sql::{checked, mistake, named, session};
use crate::engine::{Engine, while_granted};
use crate::error::QueryError;

/// What a statement gives: its columns, and what types its parameters have to have, as far as that is known.
pub(crate) struct Shape {
    pub(crate) schema: SchemaRef,
    pub(crate) parameters: HashMap<String, Option<DataType>>,
}

impl Engine {
    /// Answers a parsed statement with all its rows, as they come.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub(crate) async fn export_parsed(
        self: &Arc<Self>,
        actor: &Actor,
        statement: ast::Statement,
    ) -> Result<Export, QueryError> {
        let started = Instant::now();
        let begun = async {
            let running = self.admit(&actor.tenant).await?;
            let (engine, asker) = (self.clone(), actor.clone());
            let (frame, epoch) = self.on_threads(async move { engine.frame(&asker, statement).await }).await?;
            self.send(running, frame, epoch)
        };
        let begun = while_granted(actor, begun).await;
        self.count(&begun, started);
        begun.map(|export| export.until(actor))
    }

    /// What a parsed statement gives, without running it.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub(crate) async fn shape(self: &Arc<Self>, actor: &Actor, statement: ast::Statement) -> Result<Shape, QueryError> {
        let shape = async {
            let _running = self.admit(&actor.tenant).await?;
            let (engine, asker) = (self.clone(), actor.clone());
            let shape = async move {
                let (frame, _) = engine.frame(&asker, statement).await?;
                let parameters = frame.logical_plan().get_parameter_types().map_err(|e| mistake(&e))?;
                Ok(Shape { schema: Arc::new(frame.schema().as_arrow().clone()), parameters })
            };
            self.on_threads(shape).await
        };
        while_granted(actor, shape).await
    }

    /// Runs something small that is no plan, as a query of a tenant: it is admitted as one, and takes no longer.
    ///
    /// # Errors
    /// There is no room, or it takes too long.
    pub(crate) async fn beside<T: Send + 'static>(
        self: &Arc<Self>,
        actor: &Actor,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, QueryError> {
        let started = Instant::now();
        let done = async {
            let _running = self.admit(&actor.tenant).await?;
            self.on_threads(async move { Ok(work()) }).await
        };
        let done = while_granted(actor, done).await;
        self.count(&done, started);
        done
    }

    async fn frame(&self, actor: &Actor, statement: ast::Statement) -> Result<(DataFrame, u64), QueryError> {
        let view = self.live().view();
        let entities = named(&statement.to_string());
        let ctx = session(self, &view, actor, &entities)?;
        let plan = ctx.state().statement_to_plan(Parsed::Statement(Box::new(statement))).await;
        let frame = checked(&ctx, plan.map_err(|e| mistake(&e))?).await?;
        Ok((frame, view.epoch))
    }
}
