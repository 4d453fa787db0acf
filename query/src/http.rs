//! The HTTP API. Errors are `application/problem+json` (RFC 9457); for the language they say where.

use std::sync::Arc;

use arrow::json::LineDelimitedWriter;
use arrow_array::RecordBatch;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query as UrlQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response, sse};
use axum::routing::{delete, get, post, put};
use datafusion::parquet::arrow::ArrowWriter;
use radarflow_proto::fact::{Actor as FactActor, AlertStatus, Fact, IpLink, Role, Token};
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::ports::{AppendError, FactSink, FindRecords, InventoryRuns, Outcome};
use radarflow_reconcile::access::{Action, may};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::access::{Actor, Tokens, hash, new_token};
use crate::catalog;
use crate::devices;
use crate::engine::{Answer, Engine, QueryError, json_rows};
use crate::explain;
use crate::groups;
use crate::imported;
use crate::inventories::{self, Mappings};
use crate::links;
use crate::{runs, stream, whatif};

/// Largest request body, bytes.
pub const MAX_BODY: usize = 2 << 20;
const OUTCOME_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// What the API needs.
pub struct Api {
    /// Answers queries.
    pub engine: Arc<Engine>,
    /// Knows who asks.
    pub tokens: Arc<Tokens>,
    /// Takes commands.
    pub sink: Arc<dyn FactSink>,
    /// Tells what became of them.
    pub outcomes: broadcast::Sender<Outcome>,
    /// Finds records, for explanations.
    pub records: Arc<dyn FindRecords>,
    /// Takes inventories.
    pub inventories: Arc<dyn InventoryRuns>,
    /// What the columns of inventories mean, by name.
    pub mappings: Mappings,
    /// How far an address alone links, a tenant.
    pub policy: Arc<dyn Fn(&str) -> IpLink + Send + Sync>,
    /// Whether the ledger is caught up.
    pub ready: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Metrics, as Prometheus reads them.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The API, shared by its requests.
pub type Shared = Arc<Api>;

/// The routes.
fn router(api: Shared) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/catalog", get(catalog_document))
        .route("/api/query", post(query))
        .route("/api/sql", post(sql))
        .route("/api/query/validate", post(validate))
        .route("/api/query/complete", post(complete))
        .route("/api/query/explain", post(explain_query))
        .route("/api/query/stream", get(stream_query))
        .route("/api/tokens", post(make_token))
        .route("/api/snapshot", post(snapshot))
        .route("/api/alerts/{id}/{step}", post(step_alert))
        .route("/api/devices/{uid}", get(imported::device))
        .route("/api/devices/{uid}/explain", get(explain::explain_device))
        .route("/api/devices/{uid}/why-not/{other}", get(explain::why_not))
        .route("/api/devices/{uid}/{act}", post(devices::step_device))
        .route("/api/sources/{kind}/{instance}/runs/{run}/{decision}", post(runs::decide_run))
        .route("/api/device-groups/{name}", put(groups::put_group).delete(groups::remove_group))
        .route("/api/inventories/{name}/{instance}", post(inventories::push).layer(DefaultBodyLimit::disable()))
        .route("/api/links", post(links::make_link))
        .route("/api/links/{id}", delete(links::remove_link))
        .route("/api/identity/ip_link", put(links::set_ip_link))
        .route("/api/identity/imported-uids", post(imported::import_uids).layer(DefaultBodyLimit::disable()))
        .route("/api/identity/what-if", post(whatif::what_if))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path", json!({})) })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(api)
}

/// Serves the API until `stop` completes.
pub async fn serve(
    socket: tokio::net::TcpListener,
    api: Shared,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let engine = api.engine.clone();
    let stop = async move {
        stop.await;
        // Streams are ended, or the server would wait for their clients.
        engine.streams().close();
    };
    axum::serve(socket, router(api)).with_graceful_shutdown(stop).await
}

/// A problem document.
pub(crate) fn problem(status: StatusCode, code: &str, detail: &str, more: Value) -> Response {
    let mut body = json!({"type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": detail});
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn readyz(State(api): State<Shared>) -> Response {
    if (api.ready)() {
        "ready\n".into_response()
    } else {
        problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", "the ledger is being replayed", json!({}))
    }
}

async fn metrics(State(api): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], (api.metrics)())
        .into_response()
}

impl Api {
    #[allow(clippy::result_large_err)]
    fn actor(&self, headers: &HeaderMap) -> Result<Actor, Response> {
        let denied = |detail: &str| {
            let mut response = problem(StatusCode::UNAUTHORIZED, "unauthorized", detail, json!({}));
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        };
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "))
            .ok_or_else(|| denied("send Authorization: Bearer rf_…"))?;
        self.tokens
            .actor(token.trim(), self.engine.live().view().clock_ms)
            .ok_or_else(|| denied("the token is unknown, revoked or expired"))
    }

    #[allow(clippy::result_large_err)]
    pub(crate) fn allowed(&self, headers: &HeaderMap, action: Action) -> Result<Actor, Response> {
        let actor = self.actor(headers)?;
        if may(actor.role, action) {
            return Ok(actor);
        }
        Err(problem(StatusCode::FORBIDDEN, "forbidden", "the token's role does not allow this", json!({})))
    }

    pub(crate) async fn append(&self, actor: &Actor, fact: &Fact) -> Result<u64, Response> {
        self.append_facts(actor, std::slice::from_ref(fact)).await
    }

    /// Makes facts durable, all in one frame.
    pub(crate) async fn append_facts(&self, actor: &Actor, facts: &[Fact]) -> Result<u64, Response> {
        let origin = Arc::new(Origin {
            kind: Kind::Fact,
            tenant: actor.tenant.clone(),
            partition: String::new(),
            feed: format!("api:{}", actor.name),
        });
        let now_us =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        let body = |fact| serde_json::to_vec(fact).unwrap_or_default().into();
        let entries = facts.iter().map(|fact| Entry { peer: None, received_us: now_us, body: body(fact) }).collect();
        self.sink.append(origin, entries).await.map_err(|error| {
            let status = match error {
                AppendError::Full => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, "not_durable", &error.to_string(), json!({}))
        })
    }

    /// Makes a command durable and waits for what becomes of it: the epoch, which is visible then, or a refusal.
    pub(crate) async fn command(&self, actor: &Actor, fact: &Fact, command_id: &str) -> Result<u64, Response> {
        let mut outcomes = self.outcomes.subscribe();
        let epoch = self.append(actor, fact).await?;
        let outcome = tokio::time::timeout(OUTCOME_WAIT, async {
            loop {
                match outcomes.recv().await {
                    Ok(outcome) if outcome.command_id == command_id => return Some(outcome),
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        match outcome.await {
            Ok(Some(Outcome { refused: None, .. })) => {
                self.engine.live().reach(epoch).await;
                Ok(epoch)
            }
            Ok(Some(Outcome { refused: Some(reason), .. })) => {
                Err(problem(StatusCode::CONFLICT, "refused", &reason, json!({"epoch": epoch})))
            }
            _ => {
                let detail = "the command is durable; its outcome is not known yet";
                Err(problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", detail, json!({"epoch": epoch})))
            }
        }
    }
}

/// Names a command.
pub(crate) fn command_id() -> String {
    hex::encode(rand::random::<[u8; 16]>())
}

async fn catalog_document(State(api): State<Shared>, headers: HeaderMap) -> Response {
    if let Err(denied) = api.allowed(&headers, Action::Query) {
        return denied;
    }
    let entities: Vec<Value> = catalog::ENTITIES
        .iter()
        .map(|e| {
            let fields: Vec<Value> =
                e.fields.iter().map(|f| json!({"name": f.name, "type": f.kind.name(), "doc": f.doc})).collect();
            json!({"name": e.name, "doc": e.table.doc(), "time": e.time, "fields": fields})
        })
        .collect();
    axum::Json(json!({"entities": entities})).into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    query: String,
    limit: Option<usize>,
    cursor: Option<String>,
    format: Option<String>,
    min_epoch: Option<u64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
    Parquet,
}

fn format(asked: Option<&str>, headers: &HeaderMap) -> Option<Format> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    match asked {
        Some("json") => Some(Format::Json),
        Some("ndjson") => Some(Format::Ndjson),
        Some("csv") => Some(Format::Csv),
        Some("arrow") => Some(Format::Arrow),
        Some("parquet") => Some(Format::Parquet),
        Some(_) => None,
        None if accept.contains("application/x-ndjson") => Some(Format::Ndjson),
        None if accept.contains("text/csv") => Some(Format::Csv),
        None if accept.contains("application/vnd.apache.arrow.stream") => Some(Format::Arrow),
        None if accept.contains("application/vnd.apache.parquet") => Some(Format::Parquet),
        None => Some(Format::Json),
    }
}

pub(crate) async fn body<T: serde::de::DeserializeOwned>(request: Request) -> Result<T, Response> {
    let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY).await.map_err(|_| {
        problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            &format!("a request has at most {MAX_BODY} bytes"),
            json!({}),
        )
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|e| problem(StatusCode::BAD_REQUEST, "bad_request", &e.to_string(), json!({})))
}

/// The same, where there may be none.
pub(crate) async fn optional_body<T: serde::de::DeserializeOwned + Default>(request: Request) -> Result<T, Response> {
    let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY).await.unwrap_or_default();
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|e| problem(StatusCode::BAD_REQUEST, "bad_request", &e.to_string(), json!({})))
}

async fn query(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Response {
    let actor = match api.allowed(&headers, Action::Query) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let ask: Ask = match body(request).await {
        Ok(ask) => ask,
        Err(bad) => return bad,
    };
    let Some(format) = format(ask.format.as_deref(), &headers) else {
        return bad_format();
    };
    if let Some(epoch) = ask.min_epoch
        && tokio::time::timeout(OUTCOME_WAIT, api.engine.live().reach(epoch)).await.is_err()
    {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", "that epoch is not visible yet", json!({}));
    }
    match api.engine.query(&actor, &ask.query, ask.cursor.as_deref(), ask.limit).await {
        Ok(answer) => render(&answer, format),
        Err(error) => refuse(&error, &ask.query),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskSql {
    sql: String,
    limit: Option<usize>,
    format: Option<String>,
}

/// `POST /api/sql`
async fn sql(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let ask: AskSql = body(request).await?;
    let format = format(ask.format.as_deref(), &headers).ok_or_else(bad_format)?;
    let answer = api.engine.sql(&actor, &ask.sql, ask.limit).await.map_err(|error| refuse(&error, &ask.sql))?;
    Ok(render(&answer, format))
}

fn bad_format() -> Response {
    let detail = "format is json, ndjson, csv, arrow or parquet";
    problem(StatusCode::BAD_REQUEST, "bad_format", detail, json!({}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    query: String,
    cursor_offset: usize,
}

/// `POST /api/query/complete`; offsets are bytes.
async fn complete(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Response {
    let actor = match api.allowed(&headers, Action::Query) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let typed: Typed = match body(request).await {
        Ok(typed) => typed,
        Err(bad) => return bad,
    };
    match api.engine.complete(&actor, &typed.query, typed.cursor_offset).await {
        Ok((replaces, items)) => {
            axum::Json(json!({"replaces": [replaces.start, replaces.end], "items": items})).into_response()
        }
        Err(error) => refuse(&error, &typed.query),
    }
}

/// `POST /api/query/explain`: the plan of a query.
async fn explain_query(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Response {
    let actor = match api.allowed(&headers, Action::Query) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let ask: Ask = match body(request).await {
        Ok(ask) => ask,
        Err(bad) => return bad,
    };
    match api.engine.query(&actor, &format!("{} explain:true", ask.query), None, ask.limit).await {
        Ok(answer) => {
            let rows: Value = serde_json::from_slice(&json_rows(&answer.batches)).unwrap_or_default();
            axum::Json(json!({"plans": rows, "meta": answer.meta})).into_response()
        }
        Err(error) => refuse(&error, &ask.query),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Watch {
    q: String,
}

/// `GET /api/query/stream?q=…`: server-sent events.
async fn stream_query(State(api): State<Shared>, headers: HeaderMap, UrlQuery(watch): UrlQuery<Watch>) -> Response {
    let actor = match api.allowed(&headers, Action::Query) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let events = match stream::start(&api.engine, &actor, &watch.q) {
        Ok(events) => events,
        Err(error) => return refuse(&error, &watch.q),
    };
    let events = futures::stream::unfold((events, api, headers), |(mut events, api, headers)| async move {
        let event = events.recv().await?;
        // A token that was revoked meanwhile hears no more.
        let allowed = api.allowed(&headers, Action::Query).is_ok();
        let event = if allowed { event } else { stream::Event::End };
        if !allowed {
            events.close();
        }
        let (name, data) = event.parts();
        let epoch = data["epoch"].as_u64().map(|e| e.to_string());
        let sent = sse::Event::default().event(name).data(data.to_string());
        let sent = epoch.into_iter().fold(sent, sse::Event::id);
        Some((Ok::<_, std::convert::Infallible>(sent), (events, api, headers)))
    });
    sse::Sse::new(events).keep_alive(sse::KeepAlive::default()).into_response()
}

async fn validate(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Response {
    if let Err(denied) = api.allowed(&headers, Action::Query) {
        return denied;
    }
    let ask: Ask = match body(request).await {
        Ok(ask) => ask,
        Err(bad) => return bad,
    };
    match crate::engine::check(&ask.query) {
        Ok(_) => axum::Json(json!({"valid": true, "diagnostics": []})).into_response(),
        Err(error) => axum::Json(json!({"valid": false, "diagnostics": [error]})).into_response(),
    }
}

pub(crate) fn refuse(error: &QueryError, query: &str) -> Response {
    match error {
        QueryError::Language(e) => {
            let (line, column) = e.position(query);
            let token = query.get(e.start..e.end).unwrap_or("");
            let more = json!({"line": line, "column": column, "token": token, "expected": e.expected, "did_you_mean": e.did_you_mean});
            problem(StatusCode::BAD_REQUEST, e.code, &e.to_string(), more)
        }
        QueryError::Cursor(detail) => problem(
            StatusCode::BAD_REQUEST,
            "bad_cursor",
            &format!("{detail}; start again without a cursor"),
            json!({}),
        ),
        QueryError::TimedOut => problem(
            StatusCode::REQUEST_TIMEOUT,
            "time_limit",
            "the query took too long; narrow its time or its filters",
            json!({}),
        ),
        QueryError::TooLarge(detail) => problem(StatusCode::PAYLOAD_TOO_LARGE, "memory_limit", detail, json!({})),
        QueryError::Busy => {
            let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "busy", "too many queries at once", json!({}));
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
            response
        }
        QueryError::Failed(detail) => {
            tracing::error!(detail, query, "a query failed");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail, json!({}))
        }
    }
}

fn semantic(name: &str, data_type: &arrow_schema::DataType) -> &'static str {
    use arrow_schema::DataType;
    match data_type {
        DataType::Timestamp(..) => "time",
        _ if name == "series" => "series",
        _ if name == "uid" || name == "id" || name.ends_with("_id") || name.ends_with("_uid") => "id",
        t if t.is_numeric() => "value",
        _ => "label",
    }
}

fn render(answer: &Answer, format: Format) -> Response {
    let content =
        |kind: &'static str, bytes: Vec<u8>| ([(header::CONTENT_TYPE, kind)], Body::from(bytes)).into_response();
    match format {
        Format::Json => {
            let columns: Vec<Value> = answer
                .schema
                .fields()
                .iter()
                .map(|f| json!({"name": f.name(), "type": f.data_type().to_string(), "semantic": semantic(f.name(), f.data_type())}))
                .collect();
            let semantics: Vec<&str> = columns.iter().filter_map(|c| c["semantic"].as_str()).collect();
            let suggestion = if semantics.contains(&"time") && semantics.contains(&"value") && columns.len() <= 4 {
                "timeseries"
            } else if columns.len() <= 4 && semantics.contains(&"value") {
                "top"
            } else {
                "table"
            };
            let tail = json!({
                "pagination": {"next_cursor": answer.next_cursor, "prev_cursor": answer.prev_cursor, "limit": answer.limit},
                "viz": {"columns": columns, "suggestions": [suggestion]},
                "meta": answer.meta,
                "error": null,
            });
            // The rows are JSON already; they are not parsed again.
            let mut out = b"{\"results\":".to_vec();
            out.extend(json_rows(&answer.batches));
            out.push(b',');
            out.extend(&tail.to_string().as_bytes()[1..]);
            content("application/json", out)
        }
        Format::Ndjson => {
            let mut writer = LineDelimitedWriter::new(Vec::new());
            let refs: Vec<&RecordBatch> = answer.batches.iter().collect();
            let _ = writer.write_batches(&refs).and_then(|()| writer.finish());
            content("application/x-ndjson", writer.into_inner())
        }
        Format::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(true).build(Vec::new());
            for batch in &answer.batches {
                if let Err(error) = flat(batch).and_then(|b| writer.write(&b)) {
                    return problem(StatusCode::BAD_REQUEST, "not_csv", &error.to_string(), json!({}));
                }
            }
            content("text/csv", writer.into_inner())
        }
        Format::Arrow => {
            let written = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &answer.schema).and_then(|mut w| {
                answer.batches.iter().try_for_each(|b| w.write(b))?;
                w.into_inner()
            });
            match written {
                Ok(bytes) => content("application/vnd.apache.arrow.stream", bytes),
                Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "failed", &error.to_string(), json!({})),
            }
        }
        Format::Parquet => {
            let written = ArrowWriter::try_new(Vec::new(), answer.schema.clone(), None).and_then(|mut w| {
                answer.batches.iter().try_for_each(|b| w.write(b))?;
                w.into_inner()
            });
            match written {
                Ok(bytes) => content("application/vnd.apache.parquet", bytes),
                Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, "failed", &error.to_string(), json!({})),
            }
        }
    }
}

/// Lists and maps as JSON text: CSV has no shape for them.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
    use arrow_schema::{DataType, Field, Schema};
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (i, field) in batch.schema().fields().iter().enumerate() {
        let nested = matches!(field.data_type(), DataType::List(_) | DataType::Map(..));
        if !nested {
            fields.push(field.as_ref().clone());
            columns.push(batch.column(i).clone());
            continue;
        }
        let one = batch.project(&[i])?;
        let rows: Value = serde_json::from_slice(&json_rows(&[one])).unwrap_or_default();
        let texts: arrow_array::StringArray =
            rows.as_array().into_iter().flatten().map(|r| Some(r[field.name()].to_string())).collect();
        fields.push(Field::new(field.name(), DataType::Utf8, true));
        columns.push(Arc::new(texts));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    name: String,
    #[serde(default)]
    tenant: Option<String>,
    role: Role,
    #[serde(default)]
    partitions: Vec<String>,
    #[serde(default)]
    expires_ms: Option<i64>,
}

async fn make_token(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Response {
    let actor = match api.allowed(&headers, Action::ManageTokens) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let new: NewToken = match body(request).await {
        Ok(new) => new,
        Err(bad) => return bad,
    };
    let tenant = new.tenant.unwrap_or_else(|| actor.tenant.clone());
    if tenant != actor.tenant || !actor.partitions.is_empty() {
        return problem(
            StatusCode::FORBIDDEN,
            "forbidden",
            "an unbound administrator makes tokens of their own tenant",
            json!({}),
        );
    }
    let text = new_token();
    let sha256 = hash(&text);
    let token = Token {
        id: sha256[..16].to_owned(),
        name: new.name,
        sha256,
        tenant,
        role: new.role,
        partitions: new.partitions,
        expires_ms: new.expires_ms,
    };
    let id = token.id.clone();
    match api.append(&actor, &Fact::Token(token)).await {
        Ok(epoch) => {
            api.engine.live().reach(epoch).await;
            (StatusCode::CREATED, axum::Json(json!({"id": id, "token": text, "epoch": epoch}))).into_response()
        }
        Err(refused) => refused,
    }
}

async fn snapshot(State(api): State<Shared>, headers: HeaderMap) -> Response {
    let actor = match api.allowed(&headers, Action::Maintain) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    match api.append(&actor, &Fact::Snapshot).await {
        Ok(epoch) => {
            api.engine.live().reach(epoch).await;
            axum::Json(json!({"epoch": epoch})).into_response()
        }
        Err(refused) => refused,
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Step {
    reason: String,
}

async fn step_alert(
    State(api): State<Shared>,
    Path((id, step)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let actor = match api.allowed(&headers, Action::StepAlert) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let to = match step.as_str() {
        "acknowledge" => AlertStatus::Acknowledged,
        "resolve" => AlertStatus::Resolved,
        "escalate" => AlertStatus::Escalated,
        "suppress" => AlertStatus::Suppressed,
        "reopen" => AlertStatus::Pending,
        _ => {
            return problem(
                StatusCode::NOT_FOUND,
                "not_found",
                "steps are acknowledge, escalate, resolve, suppress, reopen",
                json!({}),
            );
        }
    };
    let step: Step = match optional_body(request).await {
        Ok(step) => step,
        Err(bad) => return bad,
    };
    // An actor bound to partitions sees no other's alerts, and moves none.
    let alerts = api.engine.live().view().rows::<radarflow_proto::rows::Alert>(&actor.tenant);
    let seen = alerts.iter().any(|a| a.id == id && radarflow_reconcile::access::sees(&actor.partitions, &a.partition));
    if !seen {
        return problem(StatusCode::NOT_FOUND, "not_found", "there is no such alert", json!({}));
    }
    let command = command_id();
    let fact = Fact::AlertStep {
        tenant: actor.tenant.clone(),
        alert_id: id,
        to,
        actor: FactActor { name: actor.name.clone(), role: actor.role },
        reason: step.reason,
        command_id: command.clone(),
    };
    match api.command(&actor, &fact, &command).await {
        Ok(epoch) => axum::Json(json!({"status": to.name(), "epoch": epoch})).into_response(),
        Err(refused) => refused,
    }
}
