//! Questions over HTTP: SRQL and SQL, their plans, their mistakes, what could stand at the cursor.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_reconcile::access::Action;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::engine::answer::Meta;
use crate::engine::encode::json_rows;
use crate::error::SrqlError;
use crate::http::Shared;
use crate::http::problem::refuse;
use crate::http::render::{self, Format};
use crate::http::request::body;
use crate::srql::complete::Item;
use crate::tables::catalog;

/// A question in SRQL.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// The query.
    #[schema(example = "in:devices vendor_name:Cisco sort:last_seen:desc")]
    query: String,
    /// Rows of a page; `limit:` of the query otherwise.
    #[schema(maximum = 10_000)]
    limit: Option<usize>,
    /// Where the page begins, from the answer before.
    cursor: Option<String>,
    /// `json` (a page), `ndjson`, `csv`, `arrow`, `parquet` (rows alone, all of them where no limit is said); what is
    /// accepted otherwise.
    format: Option<String>,
    /// Not before this epoch is visible.
    min_epoch: Option<u64>,
}

/// A query that is looked at, not run.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LookedAt {
    /// The query.
    #[schema(example = "in:devices vendor_name:Cisco sort:last_seen:desc")]
    query: String,
}

/// A question in SQL.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskSql {
    /// One statement that reads.
    #[schema(example = "SELECT vendor_name, count(*) AS n FROM devices GROUP BY 1 ORDER BY n DESC")]
    sql: String,
    /// Rows of a page.
    #[schema(maximum = 10_000)]
    limit: Option<usize>,
    /// As of `/api/query`.
    format: Option<String>,
}

/// A page of an answer.
#[derive(ToSchema)]
#[allow(dead_code, reason = "its rows are written as they are; this says what they are beside")]
pub(crate) struct Page {
    /// The rows.
    results: Vec<serde_json::Map<String, Value>>,
    /// Where it goes on.
    pagination: Pagination,
    /// The columns of these rows, and how they could be drawn.
    viz: serde_json::Map<String, Value>,
    /// About the answer.
    meta: Meta,
    /// Always null: what goes wrong is a problem document.
    error: Option<Value>,
}

/// Where an answer goes on.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it says what is written elsewhere")]
pub(crate) struct Pagination {
    /// Of the next page.
    next_cursor: Option<String>,
    /// Of the page before.
    prev_cursor: Option<String>,
    /// Rows of a page.
    limit: Option<usize>,
}

/// Answers a query.
#[utoipa::path(
    post, path = "/api/query", tag = "query", request_body = Ask,
    responses((status = 200, description = "The rows.", content(
        (Page = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        (String = "application/vnd.apache.arrow.stream"), (String = "application/vnd.apache.parquet"),
    )))
)]
pub(crate) async fn query(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let ask: Ask = body(request).await?;
    let format = Format::asked(ask.format.as_deref(), &headers)?;
    if let Some(epoch) = ask.min_epoch {
        api.visible(epoch).await?;
    }
    let (text, cursor) = (&ask.query, ask.cursor.as_deref());
    match format {
        Format::Json => {
            let answer = api.engine.query(&actor, text, cursor, ask.limit).await.map_err(|e| refuse(&e, text))?;
            render::page(&answer).map_err(|e| refuse(&e, text))
        }
        Format::Rows(rows) => {
            let export = api.engine.export(&actor, text, cursor, ask.limit).await.map_err(|e| refuse(&e, text))?;
            Ok(render::rows(export, rows, text).await)
        }
    }
}

/// Answers a statement of SQL over the same entities and in the same scope.
#[utoipa::path(
    post, path = "/api/sql", tag = "query", request_body = AskSql,
    responses((status = 200, description = "The rows.", content(
        (Page = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
        (String = "application/vnd.apache.arrow.stream"), (String = "application/vnd.apache.parquet"),
    )))
)]
pub(crate) async fn sql(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let ask: AskSql = body(request).await?;
    let page = |limit| api.engine.sql(&actor, &ask.sql, limit);
    match (Format::asked(ask.format.as_deref(), &headers)?, ask.limit) {
        (Format::Json, limit) => {
            let answer = page(limit).await.map_err(|e| refuse(&e, &ask.sql))?;
            render::page(&answer).map_err(|e| refuse(&e, &ask.sql))
        }
        (Format::Rows(rows), Some(limit)) => {
            let answer = page(Some(limit)).await.map_err(|e| refuse(&e, &ask.sql))?;
            Ok(render::rows(answer.into(), rows, &ask.sql).await)
        }
        (Format::Rows(rows), None) => {
            let export = api.engine.export_sql(&actor, &ask.sql).await.map_err(|e| refuse(&e, &ask.sql))?;
            Ok(render::rows(export, rows, &ask.sql).await)
        }
    }
}

/// A query as far as it is typed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Typed {
    /// The query.
    #[schema(example = "in:devices vendor")]
    query: String,
    /// Where the cursor stands: so many characters are before it.
    cursor_offset: usize,
}

/// What could stand at the cursor.
#[derive(Serialize, ToSchema)]
pub(crate) struct Completions {
    /// The characters that an item replaces, from and to.
    replaces: [usize; 2],
    /// The items, best first.
    items: Vec<Item>,
}

/// Offers what could stand at the cursor: what the catalog knows, and values of the data.
#[utoipa::path(
    post, path = "/api/query/complete", tag = "query", request_body = Typed,
    responses((status = 200, description = "What could stand there.", body = Completions))
)]
pub(crate) async fn complete(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let typed: Typed = body(request).await?;
    let text = &typed.query;
    let offset = text.char_indices().nth(typed.cursor_offset).map_or(text.len(), |(at, _)| at);
    let (replaces, items) = api.engine.complete(&actor, text, offset).await.map_err(|e| refuse(&e, text))?;
    let characters = |bytes: usize| text.get(..bytes).map_or(0, |before| before.chars().count());
    let replaces = [characters(replaces.start), characters(replaces.end)];
    Ok(axum::Json(Completions { replaces, items }).into_response())
}

/// The plan of a query.
#[derive(Serialize, ToSchema)]
pub(crate) struct Plans {
    /// Its logical and its physical plan.
    plans: Value,
    /// About the answer.
    meta: Meta,
}

/// Tells how a query would run.
#[utoipa::path(
    post, path = "/api/query/explain", tag = "query", request_body = LookedAt,
    responses((status = 200, description = "The plan.", body = Plans))
)]
pub(crate) async fn explain_query(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let ask: LookedAt = body(request).await?;
    let explained = api.engine.query(&actor, &format!("{} explain:true", ask.query), None, None).await;
    let answer = explained.map_err(|e| refuse(&e, &ask.query))?;
    let plans = json_rows(&answer.batches).map_err(|e| refuse(&e, &ask.query))?;
    let plans = serde_json::from_slice(&plans).unwrap_or_default();
    Ok(axum::Json(Plans { plans, meta: answer.meta }).into_response())
}

/// Whether a query is one.
#[derive(Serialize, ToSchema)]
pub(crate) struct Validity {
    /// Whether it is.
    valid: bool,
    /// What is wrong with it: all of it, in the order of its text.
    diagnostics: Vec<Diagnostic>,
    /// What it may not mean.
    warnings: Vec<String>,
}

/// A mistake in a query, and where: lines and columns from 1, offsets from 0, all in characters.
#[derive(Serialize, ToSchema)]
pub(crate) struct Diagnostic {
    /// Names the kind of mistake.
    code: &'static str,
    /// What is wrong, in words.
    detail: String,
    /// The line it begins in.
    line: usize,
    /// The column there.
    column: usize,
    /// Its first character.
    start: usize,
    /// The character after its last.
    end: usize,
    /// What stands there.
    token: String,
    /// What could stand there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    expected: Vec<String>,
    /// What may have been meant there.
    #[serde(skip_serializing_if = "Option::is_none")]
    did_you_mean: Option<String>,
}

impl Diagnostic {
    fn new(error: SrqlError, query: &str) -> Self {
        let (line, column) = error.position(query);
        let characters = |bytes: usize| query.get(..bytes).map_or(0, |before| before.chars().count());
        Diagnostic {
            line,
            column,
            start: characters(error.start),
            end: characters(error.end),
            token: query.get(error.start..error.end).unwrap_or("").to_owned(),
            code: error.code,
            detail: error.detail,
            expected: error.expected,
            did_you_mean: error.did_you_mean,
        }
    }
}

/// Tells what is wrong with a query, without running it.
#[utoipa::path(
    post, path = "/api/query/validate", tag = "query", request_body = LookedAt,
    responses((status = 200, description = "Whether it is a query.", body = Validity))
)]
pub(crate) async fn validate(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let ask: LookedAt = body(request).await?;
    let text = &ask.query;
    let checked = api.engine.validate(&actor, text).await.map_err(|e| refuse(&e, text))?;
    let diagnostics: Vec<Diagnostic> = checked.mistakes.into_iter().map(|e| Diagnostic::new(e, text)).collect();
    let valid = diagnostics.is_empty();
    Ok(axum::Json(Validity { valid, diagnostics, warnings: checked.warnings }).into_response())
}

/// Lists entities and fields.
#[utoipa::path(
    get, path = "/api/catalog", tag = "query",
    responses((status = 200, description = "Entities with their fields.", body = serde_json::Map<String, Value>))
)]
pub(crate) async fn catalog_document(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Response> {
    api.allowed(&headers, Action::Query)?;
    let entities: Vec<Value> = catalog::ENTITIES
        .iter()
        .map(|e| {
            let fields: Vec<Value> =
                e.fields.iter().map(|f| json!({"name": f.name, "type": f.kind.name(), "doc": f.doc})).collect();
            json!({"name": e.name, "doc": e.table.doc(), "time": e.time, "fields": fields})
        })
        .collect();
    Ok(axum::Json(json!({"entities": entities})).into_response())
}
