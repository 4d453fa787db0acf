//! Read-only SQL over the same entities and the same scope: whoever asks sees a table an entity, with the rows that are
//! theirs to see, as of one epoch. Deleted devices are among them: `deleted_at` says so.
//!
//! One statement that reads, or tells the plan of one. What defines, changes or sets anything is refused before it is
//! planned to run, and no file can be named.

use std::sync::Arc;
use std::time::Instant;

use arrow_schema::{DataType, Schema, SchemaRef};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::logical_expr::{Expr, LogicalPlan, cast};
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::sql::parser::Statement as Parsed;

use crate::actor::Actor;
use crate::engine::answer::Answer;
use crate::engine::export::Export;
use crate::engine::parameters::{self, Bound};
use crate::engine::scanned::collect;
use crate::engine::sql_mistakes::{mistake, refused};
use crate::engine::{Engine, bounds, while_granted};
use crate::error::{QueryError, failed};
use crate::srql::plan::MAX_LIMIT;
use crate::tables::catalog::{ENTITIES, Entity, unit};
use crate::tables::view::View;

/// What the entities are in, as SQL calls it.
pub(crate) const CATALOG: &str = "radarflow";
/// What they are in there.
pub(crate) const SCHEMA: &str = "public";
/// Longest statement, bytes.
const MAX_SQL: usize = 64 << 10;

/// What a format has no shape for is told as text: spans of time, and what is not told at all, is refused.
fn tellable(frame: DataFrame) -> Result<DataFrame, DataFusionError> {
    let kinds: Vec<DataType> = frame.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    if let Some(kind) = kinds.iter().find(|kind| !told(kind) && !is_span(kind)) {
        return Err(DataFusionError::Plan(format!("no format of an answer has a shape for {kind}: cast it")));
    }
    if !kinds.iter().any(is_span) {
        return Ok(frame);
    }
    let columns = frame.schema().iter().map(|(table, field)| {
        let column = Expr::Column(Column::new(table.cloned(), field.name()));
        match is_span(field.data_type()) {
            true => cast(column, DataType::Utf8).alias(field.name()),
            false => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    frame.select(columns)
}

fn is_span(kind: &DataType) -> bool {
    matches!(kind, DataType::Interval(_) | DataType::Duration(_))
}

/// Whether every format has a shape for values of a type.
fn told(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => told(item.data_type()),
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| told(field.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair[0].data_type() == &DataType::Utf8 && told(pair[1].data_type()),
            _ => false,
        },
        DataType::Null | DataType::Boolean => true,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => true,
        kind => kind.is_primitive() && !is_span(kind),
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
    // Whoever plans says where in the text a mistake is.
    ctx.state_ref().write().config_mut().options_mut().sql_parser.collect_spans = true;
    for entity in entities.iter().filter(|entity| actor.reads(entity.table)) {
        let rows = view.table(&ctx, actor, entity.table).map_err(failed)?;
        ctx.register_table(entity.name, rows.into_view()).map_err(failed)?;
    }
    Ok(ctx)
}

/// The plan of a statement that only reads.
pub(super) async fn read_plan(ctx: &SessionContext, sql: &str, parsed: Parsed) -> Result<LogicalPlan, QueryError> {
    let plan = ctx.state().statement_to_plan(parsed).await.map_err(|e| mistake(sql, &e))?;
    let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    reads.verify_plan(&plan).map_err(|e| mistake(sql, &e))?;
    Ok(plan)
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
        if limit == 0 || limit > MAX_LIMIT {
            return Err(refused(sql, format!("a page has from 1 to {MAX_LIMIT} rows; aggregate, or page by a key")));
        }
        let started = Instant::now();
        let answer = while_granted(actor, async {
            let work = self.admit(&actor.tenant).await?;
            let (engine, actor, sql) = (self.clone(), actor.clone(), sql.to_owned());
            self.work(&work, async move { engine.read(&actor, &sql, limit).await }).await
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
        self.export_bound(actor, &Bound { statement: sql.to_owned(), values: Vec::new() }).await
    }

    /// The same, with values in place of its parameters.
    ///
    /// # Errors
    /// As for [`Engine::export_sql`].
    pub async fn export_bound(self: &Arc<Self>, actor: &Actor, bound: &Bound) -> Result<Export, QueryError> {
        let started = Instant::now();
        let begun = async {
            let work = self.admit(&actor.tenant).await?;
            let (engine, actor, bound) = (self.clone(), actor.clone(), bound.clone());
            let statement = async move { engine.statement(&actor, &bound.statement, Some(&bound.values)).await };
            let statement = self.work(&work, statement).await?;
            self.send(work, statement.frame, statement.view.epoch)
        };
        let begun = while_granted(actor, begun).await;
        self.count(&begun, started);
        begun.map(|export| export.until(actor))
    }

    /// The columns a statement gives, and what its parameters are to hold.
    ///
    /// # Errors
    /// The query is wrong, it is refused, or it fails: each has its [`QueryError`].
    pub async fn sql_schema(self: &Arc<Self>, actor: &Actor, sql: &str) -> Result<(SchemaRef, Schema), QueryError> {
        let work = self.admit(&actor.tenant).await?;
        let (engine, actor, sql) = (self.clone(), actor.clone(), sql.to_owned());
        let told = async move {
            let statement = engine.statement(&actor, &sql, None).await?;
            let wanted = parameters::schema(statement.frame.logical_plan()).map_err(|e| refused(&sql, e))?;
            Ok((Arc::new(statement.frame.schema().as_arrow().clone()), wanted))
        };
        self.work(&work, told).await
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
        bounds::check(&parsed).map_err(|e| refused(sql, e))?;
        parameters::number(&mut parsed).map_err(|e| refused(sql, e))?;
        let mut plan = read_plan(&ctx, sql, parsed).await?;
        if let Some(values) = values {
            plan = parameters::bind(plan, values).map_err(|e| refused(sql, e))?;
        }
        let frame = ctx.execute_logical_plan(plan).await.map_err(|e| mistake(sql, &e))?;
        let frame = tellable(frame).map_err(|e| mistake(sql, &e))?;
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
        let (mut batches, scanned) = collect(frame).await?;
        let mut left = limit;
        let mut truncated = false;
        for batch in &mut batches {
            truncated |= batch.num_rows() > left;
            *batch = batch.slice(0, batch.num_rows().min(left));
            left -= batch.num_rows();
        }
        let mut meta = self.meta(&view, actor, &entities, started, &batches, truncated);
        (meta.rows_scanned, meta.bytes_scanned) = (scanned.rows, scanned.bytes);
        let units = schema.fields().iter().filter_map(|f| Some((f.name().clone(), unit(f.name())?))).collect();
        Ok(Answer { batches, schema, next_cursor: None, prev_cursor: None, limit: Some(limit), units, meta })
    }
}
