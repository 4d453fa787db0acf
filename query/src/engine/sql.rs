//! Read-only SQL over the same entities and the same scope: whoever asks sees a table an entity, with the rows that are
//! theirs to see, as of one epoch. Deleted devices are among them: `deleted_at` says so.
//!
//! One statement that reads. What defines, changes or sets anything is refused before it is planned to run, and no file
//! can be named.

use std::sync::Arc;
use std::time::Instant;

use arrow_schema::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SessionContext};

use crate::actor::Actor;
use crate::engine::answer::Answer;
use crate::engine::export::Export;
use crate::engine::{Engine, while_granted};
use crate::error::SrqlError;
use crate::error::{QueryError, failed};
use crate::srql::plan::MAX_LIMIT;
use crate::tables::catalog::{ENTITIES, Entity};
use crate::tables::view::View;

/// What the entities are in, as SQL calls it.
pub(crate) const CATALOG: &str = "radarflow";
/// What they are in there.
pub(crate) const SCHEMA: &str = "public";
/// Longest statement, bytes.
const MAX_SQL: usize = 64 << 10;

fn refused(detail: impl Into<String>) -> QueryError {
    QueryError::Language(SrqlError::new("bad_sql", (0, 0), detail))
}

pub(super) fn mistake(error: &DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => failed(error),
        _ => refused(error.strip_backtrace()),
    }
}

/// The entities a statement names.
pub(super) fn named(sql: &str) -> Vec<&'static Entity> {
    let words = sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_ascii_lowercase);
    let words: std::collections::BTreeSet<String> = words.collect();
    ENTITIES.iter().filter(|e| words.contains(e.name)).collect()
}

pub(super) fn session(
    engine: &Engine,
    view: &View,
    actor: &Actor,
    entities: &[&'static Entity],
) -> Result<SessionContext, QueryError> {
    let ctx = engine.session_with_catalog();
    for entity in entities {
        let rows = view.table(&ctx, actor, entity.table).map_err(failed)?;
        ctx.register_table(entity.name, rows.into_view()).map_err(failed)?;
    }
    Ok(ctx)
}

/// A plan that only reads, to be run.
pub(super) async fn checked(ctx: &SessionContext, plan: LogicalPlan) -> Result<DataFrame, QueryError> {
    let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    reads.verify_plan(&plan).map_err(|e| mistake(&e))?;
    ctx.execute_logical_plan(plan).await.map_err(|e| mistake(&e))
}

/// A statement, planned over one version of the tables.
struct Statement {
    frame: DataFrame,
    view: Arc<View>,
    entities: Vec<&'static Entity>,
}

impl Engine {
    /// Answers a statement with `limit` rows at most.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub async fn sql(self: &Arc<Self>, actor: &Actor, sql: &str, limit: Option<usize>) -> Result<Answer, QueryError> {
        let limit = limit.unwrap_or(MAX_LIMIT);
        if limit > MAX_LIMIT {
            return Err(refused(format!("a page has {MAX_LIMIT} rows at most; aggregate, or page by a key")));
        }
        let started = Instant::now();
        let answer = while_granted(actor, async {
            let _running = self.admit(&actor.tenant).await?;
            let (engine, actor, sql) = (self.clone(), actor.clone(), sql.to_owned());
            self.on_threads(async move { engine.read(&actor, &sql, limit).await }).await
        });
        let answer = answer.await;
        self.count(&answer, started);
        answer
    }

    /// Answers a statement with all its rows, as they come.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub async fn export_sql(self: &Arc<Self>, actor: &Actor, sql: &str) -> Result<Export, QueryError> {
        let started = Instant::now();
        let begun = async {
            let running = self.admit(&actor.tenant).await?;
            let (engine, actor, sql) = (self.clone(), actor.clone(), sql.to_owned());
            let statement = self.on_threads(async move { engine.statement(&actor, &sql).await }).await?;
            self.send(running, statement.frame, statement.view.epoch)
        };
        let begun = while_granted(actor, begun).await;
        self.count(&begun, started);
        begun.map(|export| export.until(actor))
    }

    /// The columns a statement gives.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub async fn sql_schema(self: &Arc<Self>, actor: &Actor, sql: &str) -> Result<SchemaRef, QueryError> {
        let _running = self.admit(&actor.tenant).await?;
        let (engine, actor, sql) = (self.clone(), actor.clone(), sql.to_owned());
        let statement = self.on_threads(async move { engine.statement(&actor, &sql).await }).await?;
        Ok(Arc::new(statement.frame.schema().as_arrow().clone()))
    }

    async fn statement(&self, actor: &Actor, sql: &str) -> Result<Statement, QueryError> {
        if sql.len() > MAX_SQL {
            return Err(refused(format!("a statement has {MAX_SQL} bytes at most")));
        }
        let view = self.live().view();
        let entities = named(sql);
        let ctx = session(self, &view, actor, &entities)?;
        let plan = ctx.state().create_logical_plan(sql).await.map_err(|e| mistake(&e))?;
        let frame = checked(&ctx, plan).await?;
        Ok(Statement { frame, view, entities })
    }

    async fn read(&self, actor: &Actor, sql: &str, limit: usize) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let Statement { frame, view, entities } = self.statement(actor, sql).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let frame = frame.limit(0, Some(limit + 1)).map_err(|e| mistake(&e))?;
        let mut batches = frame.collect().await.map_err(|e| mistake(&e))?;
        let mut left = limit;
        let mut truncated = false;
        for batch in &mut batches {
            truncated |= batch.num_rows() > left;
            *batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
        }
        let meta = self.meta(&view, actor, &entities, started, &batches, truncated);
        Ok(Answer { batches, schema, next_cursor: None, prev_cursor: None, limit: Some(limit), meta })
    }
}
