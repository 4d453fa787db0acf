//! The HTTP API. Errors are `application/problem+json` (RFC 9457); for the language they say where.

mod administer;
mod ask;
mod devices;
pub mod door;
mod explain;
mod flight;
mod groups;
pub mod imported;
pub mod inventories;
mod lines;
mod links;
mod listen;
mod openapi;
pub mod plans;
mod render;
mod runs;
pub mod whatif;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::Stream;
use futures::future::BoxFuture;
use radarflow_proto::cell::Time;
use radarflow_proto::clock::LedgerClock;
use radarflow_proto::fact::{Fact, IpLink};
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::ports::{AppendError, Appender, AskedInventories, FindRecords, InventoryRuns, Outcome};
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::access::{Action, may};
use radarflow_reconcile::identity::sources::Instances;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::actor::{Actor, OVER, Tokens, now_ms};
use crate::engine::Engine;
use crate::error::QueryError;
use crate::http::door::Door;
use crate::http::inventories::Mappings;
use crate::http::plans::Plans;

/// The protocols that a connection with TLS may agree upon.
pub const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// Largest request body, bytes.
pub const MAX_BODY: usize = 2 << 20;
const OUTCOME_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
/// Epochs that may be on their way to the tables.
const MAX_AHEAD: u64 = 1000;

/// What the API needs.
pub struct Api {
    /// Answers queries.
    pub engine: Arc<Engine>,
    /// Knows who asks.
    pub tokens: Arc<Tokens>,
    /// Takes commands.
    pub sink: Arc<dyn Appender>,
    /// Tells what became of them.
    pub outcomes: broadcast::Sender<Outcome>,
    /// Finds records, for explanations.
    pub records: Arc<dyn FindRecords>,
    /// Takes inventories.
    pub inventories: Arc<dyn InventoryRuns>,
    /// Asks those of the configuration.
    pub asked: Arc<dyn AskedInventories>,
    /// The source instances there are.
    pub instances: Arc<dyn Fn() -> Instances + Send + Sync>,
    /// Runs that wait for somebody to look at what they would change.
    pub plans: Arc<Plans>,
    /// What the columns of inventories mean, by name.
    pub mappings: Mappings,
    /// Whether a source of a tenant, by kind and instance, says only what it knows.
    pub partial: Arc<dyn Fn(&str, SourceKind, &str) -> bool + Send + Sync>,
    /// How far an address alone links, a tenant.
    pub policy: Arc<dyn Fn(&str) -> IpLink + Send + Sync>,
    /// Whether everything is as it should be, or why not: nothing is taken while the disk is short.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// The ledger's clock.
    pub clock: Arc<dyn LedgerClock>,
    /// Metrics, as Prometheus reads them.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The API, shared by its requests.
pub type Shared = Arc<Api>;

/// What was done is visible from an epoch on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Done {
    pub(crate) epoch: u64,
}

/// The routes and what is said of them.
fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(openapi::Document::begin())
        .routes(routes!(administer::healthz))
        .routes(routes!(administer::readyz))
        .routes(routes!(administer::metrics))
        .routes(routes!(ask::catalog_document))
        .routes(routes!(ask::query))
        .routes(routes!(ask::sql))
        .routes(routes!(ask::validate))
        .routes(routes!(ask::complete))
        .routes(routes!(ask::explain_query))
        .routes(routes!(ask::stream_query))
        .routes(routes!(administer::list_tokens, administer::make_token))
        .routes(routes!(administer::revoke_token))
        .routes(routes!(administer::snapshot))
        .routes(routes!(administer::clock))
        .routes(routes!(administer::accept_clock))
        .routes(routes!(administer::step_alert))
        .routes(routes!(imported::device))
        .routes(routes!(explain::explain_device))
        .routes(routes!(explain::why_not))
        .routes(routes!(devices::step_device))
        .routes(routes!(runs::decide_run))
        .routes(routes!(groups::put_group, groups::remove_group))
        .routes(routes!(inventories::push))
        .routes(routes!(plans::plan_inventory))
        .routes(routes!(plans::apply_plan))
        .routes(routes!(plans::forget_plan))
        .routes(routes!(links::make_link))
        .routes(routes!(links::remove_link))
        .routes(routes!(links::set_ip_link))
        .routes(routes!(links::set_brakes))
        .routes(routes!(imported::import_uids))
        .routes(routes!(whatif::what_if))
}

/// The API's description, OpenAPI 3.1.
pub fn description() -> String {
    let mut document = routes().into_openapi();
    openapi::finish(&mut document);
    document.to_pretty_json().unwrap_or_default()
}

/// The routes.
pub(crate) fn router(api: Shared) -> Router {
    let document: Bytes = description().into();
    let document = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    let (router, _) = routes().split_for_parts();
    router
        .route("/api/openapi.json", get(document))
        .method_not_allowed_fallback(|| async {
            let detail = "this path has other methods: see the header Allow";
            problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail, json!({}))
        })
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path", json!({})) })
        .with_state(api.clone())
        .layer(axum::middleware::from_fn_with_state(listen::PATIENCE, listen::unstalled))
        .merge(flight::router(api))
}

/// Serves connections at a door until it is shut and requests under way are answered.
pub async fn serve<C>(connections: impl Stream<Item = std::io::Result<C>> + Send + 'static, door: Arc<Door>)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shut = door.until_shut();
    let answer = move |request: Request| -> BoxFuture<'static, Response> { Box::pin(door.clone().answer(request)) };
    let router = Router::new().fallback(answer);
    listen::serve(connections, router, listen::PATIENCE, shut).await;
}

/// A problem document.
pub(crate) fn problem(status: StatusCode, code: &str, detail: &str, more: Value) -> Response {
    let mut body = json!({"type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "code": code, "detail": detail});
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

/// Nobody is let in so.
pub(crate) fn denied(detail: &str) -> Response {
    let mut response = problem(StatusCode::UNAUTHORIZED, "unauthorized", detail, json!({}));
    response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    response
}

impl Api {
    #[allow(clippy::result_large_err)]
    pub(crate) fn actor(&self, headers: &HeaderMap) -> Result<Actor, Response> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.strip_prefix("Bearer "))
            .ok_or_else(|| denied("send Authorization: Bearer rf_…"))?;
        self.tokens.actor(token.trim(), self.now_ms()).ok_or_else(|| denied("the token is unknown, revoked or expired"))
    }

    /// Now, milliseconds since 1970: the ledger's clock stands still while nothing can be written, and tokens end all the same.
    pub(crate) fn now_ms(&self) -> i64 {
        now_ms().max(self.engine.live().view().clock_ms)
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
        self.sink.append(origin, entries).await.map_err(|error| not_durable(&error))
    }

    /// Waits until an epoch is visible.
    pub(crate) async fn visible(&self, epoch: u64) -> Result<(), Response> {
        let live = self.engine.live();
        let newest = live.view().epoch;
        if epoch > newest.saturating_add(MAX_AHEAD) {
            let detail = format!("no write has returned that epoch; the newest is {newest}");
            return Err(problem(StatusCode::BAD_REQUEST, "no_such_epoch", &detail, json!({"epoch": newest})));
        }
        tokio::time::timeout(OUTCOME_WAIT, live.reach(epoch)).await.map_err(|_| {
            let detail = "that epoch is not visible yet; ask again later";
            problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", detail, json!({"epoch": live.view().epoch}))
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

/// What somebody said was not made durable.
pub(crate) fn not_durable(error: &AppendError) -> Response {
    let (status, code) = match error {
        AppendError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        AppendError::Storage(_) | AppendError::Closed => (StatusCode::SERVICE_UNAVAILABLE, "not_durable"),
    };
    problem(status, code, &error.to_string(), json!({}))
}

/// What is wrong with what stands behind the `?` of a path.
pub(crate) fn bad_query(error: &QueryRejection) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_request", &error.body_text(), json!({}))
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
        QueryError::Expired => problem(
            StatusCode::GONE,
            "cursor_expired",
            "what this cursor pages through is not kept any more; start again without a cursor",
            json!({}),
        ),
        QueryError::Forgotten(since) => problem(
            StatusCode::GONE,
            "before_retention",
            &format!("what held then is not kept; what held since {} is", Time(*since)),
            json!({"since": Time(*since).to_string()}),
        ),
        QueryError::TimedOut => problem(
            StatusCode::REQUEST_TIMEOUT,
            "time_limit",
            "the query took too long; narrow its time or its filters",
            json!({}),
        ),
        QueryError::Ended => denied(OVER),
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
