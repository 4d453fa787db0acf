//! Read-only SQL over the same entities and the same scope: whoever asks sees a table an entity, with the rows that are
//! theirs to see, as of one epoch. Deleted devices are among them: `deleted_at` says so.
//!
//! One statement that reads, or tells the plan of one. What defines, changes or sets anything is refused before it is
//! planned to run, and no file can be named.

use std::sync::Arc;
use std::time::Instant;

use arrow_schema::{Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{DataFrame, SessionContext};

use crate::actor::Actor;
use crate::engine::answer::{Answer, Export};
use crate::engine::parameters::{self, Bound};
use crate::engine::sql_mistakes::{mistake, refused};
use crate::engine::{Engine, while_granted};
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

/// The entities a statement names.
fn named(sql: &str) -> Vec<&'static Entity> {
    let words = sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).map(str::to_ascii_lowercase);
    let words: std::collections::BTreeSet<String> = words.collect();
    ENTITIES.iter().filter(|e| words.contains(e.name)).collect()
}

fn session(
    engine: &Engine,
    view: &View,
    actor: &Actor,
    entities: &[&'static Entity],
) -> Result<SessionContext, QueryError> {
    let ctx = engine.session_with_catalog();
    // Whoever plans says where in the text a mistake is.
    ctx.state_ref().write().config_mut().options_mut().sql_parser.collect_spans = true;
    for entity in entities {
        let rows = view.table(&ctx, actor, entity.table).map_err(failed)?;
        ctx.register_table(entity.name, rows.into_view()).map_err(failed)?;
    }
    Ok(ctx)
}

/// A statement, planned over one version of the tables.
struct Statement {
    frame: DataFrame,
    view: Arc<View>,
    entities: Vec<&'static Entity>,
}

impl Engine {
    /// Answers a statement with `limit` rows at most.
    pub async fn sql(self: &Arc<Self>, actor: &Actor, sql: &str, limit: Option<usize>) -> Result<Answer, QueryError> {
        let limit = limit.unwrap_or(MAX_LIMIT);
        if limit == 0 || limit > MAX_LIMIT {
            return Err(refused(sql, format!("a page has from 1 to {MAX_LIMIT} rows; aggregate, or page by a key")));
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
    pub async fn export_sql(self: &Arc<Self>, actor: &Actor, sql: &str) -> Result<Export, QueryError> {
        self.export_bound(actor, &Bound { statement: sql.to_owned(), values: Vec::new() }).await
    }

    /// The same, with values in place of its parameters.
    pub async fn export_bound(self: &Arc<Self>, actor: &Actor, bound: &Bound) -> Result<Export, QueryError> {
        let started = Instant::now();
        let begun = async {
            let running = self.admit(&actor.tenant).await?;
            let (engine, actor, bound) = (self.clone(), actor.clone(), bound.clone());
            let statement = async move { engine.statement(&actor, &bound.statement, Some(&bound.values)).await };
            let statement = self.on_threads(statement).await?;
            self.send(running, statement.frame, statement.view.epoch)
        };
        let begun = while_granted(actor, begun).await;
        self.count(&begun, started);
        begun.map(|export| export.until(actor))
    }

    /// The columns a statement gives, and what its parameters are to hold.
    pub async fn sql_schema(self: &Arc<Self>, actor: &Actor, sql: &str) -> Result<(SchemaRef, Schema), QueryError> {
        let _running = self.admit(&actor.tenant).await?;
        let (engine, actor, sql) = (self.clone(), actor.clone(), sql.to_owned());
        self.on_threads(async move {
            let statement = engine.statement(&actor, &sql, None).await?;
            let wanted = parameters::schema(statement.frame.logical_plan()).map_err(|e| refused(&sql, e))?;
            Ok((Arc::new(statement.frame.schema().as_arrow().clone()), wanted))
        })
        .await
    }

    /// Plans a statement, with values in place of its parameters if it is to run.
    async fn statement(
        &self,
        actor: &Actor,
        sql: &str,
        values: Option<&[ScalarValue]>,
    ) -> Result<Statement, QueryError> {
        if sql.len() > MAX_SQL {
            return Err(refused(sql, format!("a statement has {MAX_SQL} bytes at most")));
        }
        let view = self.live().view();
        let entities = named(sql);
        let ctx = session(self, &view, actor, &entities)?;
        let state = ctx.state();
        let dialect = state.config_options().sql_parser.dialect;
        let mut parsed = state.sql_to_statement(sql, &dialect).map_err(|e| mistake(sql, &e))?;
        parameters::number(&mut parsed).map_err(|e| refused(sql, e))?;
        let mut plan = state.statement_to_plan(parsed).await.map_err(|e| mistake(sql, &e))?;
        let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reads.verify_plan(&plan).map_err(|e| mistake(sql, &e))?;
        if let Some(values) = values {
            plan = parameters::bind(plan, values).map_err(|e| refused(sql, e))?;
        }
        let frame = ctx.execute_logical_plan(plan).await.map_err(|e| mistake(sql, &e))?;
        Ok(Statement { frame, view, entities })
    }

    async fn read(&self, actor: &Actor, sql: &str, limit: usize) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let Statement { frame, view, entities } = self.statement(actor, sql, Some(&[])).await?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        // A plan that is told stands alone, and is a few rows.
        let told = matches!(
            frame.logical_plan(),
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)
        );
        let frame = if told { Ok(frame) } else { frame.limit(0, Some(limit + 1)) };
        let frame = frame.map_err(|e| mistake(sql, &e))?;
        let mut batches = frame.collect().await.map_err(|e| mistake(sql, &e))?;
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
