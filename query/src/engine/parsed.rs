//! Statements of SQL that were parsed elsewhere, over the same entities, in the same scope and within the same bounds as
//! those of [`super::sql`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use arrow_schema::{DataType, SchemaRef};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::prelude::DataFrame;
use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast;

use crate::actor::Actor;
use crate::engine::export::Export;
use crate::engine::sql::{named, read_plan, session};
use crate::engine::sql_mistakes::{mistake, refused};
use crate::engine::{Engine, bounds, while_granted};
use crate::error::{QueryError, failed};

/// A statement, and the text that its places are of.
#[derive(Clone)]
pub(crate) struct Statement {
    pub(crate) parsed: ast::Statement,
    pub(crate) text: Arc<str>,
}

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
        statement: Statement,
    ) -> Result<Export, QueryError> {
        let started = Instant::now();
        let begun = async {
            let work = self.admit(&actor.tenant).await?;
            let (engine, asker) = (self.clone(), actor.clone());
            let (frame, epoch) = self.work(&work, async move { engine.frame(&asker, statement).await }).await?;
            self.send(work, frame, epoch)
        };
        let begun = while_granted(actor, begun).await;
        self.count(&begun, started);
        begun.map(|export| export.until(actor))
    }

    /// What a parsed statement gives, without running it.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub(crate) async fn shape(self: &Arc<Self>, actor: &Actor, statement: Statement) -> Result<Shape, QueryError> {
        let shape = async {
            let work = self.admit(&actor.tenant).await?;
            let (engine, asker) = (self.clone(), actor.clone());
            let shape = async move {
                let text = statement.text.clone();
                let (frame, _) = engine.frame(&asker, statement).await?;
                let parameters = frame.logical_plan().get_parameter_types().map_err(|e| mistake(&text, &e))?;
                Ok(Shape { schema: Arc::new(frame.schema().as_arrow().clone()), parameters })
            };
            self.work(&work, shape).await
        };
        while_granted(actor, shape).await
    }

    /// Runs something that is no plan and makes so many bytes at most, as a query of a tenant: it is admitted as one, takes
    /// no longer, and has its memory from theirs, as long as whoever asked keeps it.
    ///
    /// # Errors
    /// There is no room, or it takes too long.
    pub(crate) async fn beside<T: Send + 'static>(
        self: &Arc<Self>,
        actor: &Actor,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, MemoryReservation), QueryError> {
        let started = Instant::now();
        let done = async {
            let place = self.admit(&actor.tenant).await?;
            let held = MemoryConsumer::new("catalogs").register(&self.state.runtime_env().memory_pool);
            held.try_grow(bytes).map_err(failed)?;
            self.work(&place, async move { Ok((work(), held)) }).await
        };
        let done = while_granted(actor, done).await;
        self.count(&done, started);
        done
    }

    async fn frame(&self, actor: &Actor, statement: Statement) -> Result<(DataFrame, u64), QueryError> {
        let Statement { parsed, text } = statement;
        let view = self.live().view();
        let entities = named(&parsed.to_string());
        let parsed = Parsed::Statement(Box::new(parsed));
        bounds::check(&parsed).map_err(|e| refused(&text, e))?;
        let ctx = session(self, &view, actor, &entities)?;
        let plan = read_plan(&ctx, &text, parsed).await?;
        let frame = ctx.execute_logical_plan(plan).await.map_err(|e| mistake(&text, &e))?;
        Ok((frame, view.epoch))
    }
}
