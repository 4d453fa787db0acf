//! What administrators and operators ask of the program itself: tokens, snapshots, steps of alerts, how it does.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::clock::Shown;
use radarflow_proto::fact::{AlertStatus, Fact, Role, Token};
use radarflow_proto::rows::Alert;
use radarflow_reconcile::access::{Action, sees};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::actor::{OVER, TOKENS_TENANT, hash, manages, new_token};
use crate::http::door::not_ready;
use crate::http::links::{Why, who};
use crate::http::openapi;
use crate::http::{Done, Shared, body, command_id, denied, optional_body, problem};

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Who will use it.
    name: String,
    /// One's own.
    #[serde(default)]
    tenant: Option<String>,
    /// `viewer`, `operator`, `admin`.
    #[schema(value_type = String, example = "viewer")]
    role: Role,
    /// The only partitions it may see; none for all.
    #[serde(default)]
    partitions: Vec<String>,
    /// When it ends, milliseconds since 1970.
    #[serde(default)]
    expires_ms: Option<i64>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct Made {
    /// Names it in the audit.
    id: String,
    /// The token; it is shown once.
    token: String,
    /// When it became visible.
    epoch: u64,
}

/// Makes a token, of the tenant of the token that makes it. Who is let in by it is told what their role and partitions allow,
/// until it expires or is revoked. A tenant has 10,000 at most, expired ones among them.
#[utoipa::path(
    post, path = "/api/tokens", tag = "administration", request_body = NewToken,
    responses((status = 201, description = "The token.", body = Made))
)]
pub(crate) async fn make_token(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::ManageTokens)?;
    let new: NewToken = body(request).await?;
    let tenant = new.tenant.unwrap_or_else(|| actor.tenant.clone());
    if tenant != actor.tenant || !actor.partitions.is_empty() {
        let detail = "an unbound administrator makes tokens of their own tenant";
        return Err(problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({})));
    }
    let _turn = api.tokens.turns.take(&tenant).await;
    if api.tokens.all(Some(&tenant)).len() >= TOKENS_TENANT {
        let detail = format!("there are {TOKENS_TENANT} tokens already; revoke some that nobody uses");
        return Err(problem(StatusCode::CONFLICT, "too_many_tokens", &detail, json!({})));
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
    let epoch = api.append(&actor, &Fact::Token(token)).await?;
    api.engine.live().reach(epoch).await;
    Ok((StatusCode::CREATED, axum::Json(Made { id, token: text, epoch })).into_response())
}

/// A token, as far as it is told.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenTold {
    /// Names it.
    id: String,
    /// Who uses it.
    name: String,
    /// `viewer`, `operator`, `admin`.
    #[schema(value_type = String, example = "viewer")]
    role: Role,
    /// The only partitions it may see; none for all.
    partitions: Vec<String>,
    /// When it ends, milliseconds since 1970.
    expires_ms: Option<i64>,
}

/// The tokens of a tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokensTold {
    /// By name.
    tokens: Vec<TokenTold>,
}

/// Lists the tokens of the tenant, expired ones among them; never what lets anybody in.
#[utoipa::path(
    get, path = "/api/tokens", tag = "administration",
    responses((status = 200, description = "The tokens.", body = TokensTold))
)]
pub(crate) async fn list_tokens(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::ManageTokens)?;
    actor.whole("the list of tokens")?;
    let told =
        |Token { id, name, role, partitions, expires_ms, .. }| TokenTold { id, name, role, partitions, expires_ms };
    let tokens = api.tokens.all(Some(&actor.tenant)).into_iter().map(told).collect();
    Ok(axum::Json(TokensTold { tokens }).into_response())
}

/// How a token is revoked.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Revocation {
    /// For the audit.
    reason: String,
    /// Also where it is the last that could make or revoke others. After it that is done on the server's host alone.
    force: bool,
}

/// Revokes a token of the tenant. When this answers it lets nobody in any more, and whatever it let in has ended: queries,
/// exports, live queries, uploads. It cannot be taken back. The last token that could make others is refused (409,
/// `last_admin`) without `force`.
#[utoipa::path(
    delete, path = "/api/tokens/{id}", tag = "administration", request_body(content = Option<Revocation>),
    params(("id" = String, Path, description = "The token, by its id.")),
    responses((status = 200, description = "It is revoked.", body = Done))
)]
pub(crate) async fn revoke_token(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::ManageTokens)?;
    actor.whole("a token")?;
    let Revocation { reason, force } = optional_body(request).await?;
    // One after another: the last two administrators do not revoke each other.
    let _turn = api.tokens.turns.take(&actor.tenant).await;
    if actor.grant.has_ended() {
        return Err(denied(OVER));
    }
    let tokens = api.tokens.all(Some(&actor.tenant));
    let Some(token) = tokens.iter().find(|token| token.id == id) else {
        return Err(problem(StatusCode::NOT_FOUND, "not_found", "there is no such token", json!({})));
    };
    let manages = |token: &Token| manages(token, api.now_ms());
    if !force && manages(token) && !tokens.iter().any(|other| other.id != id && manages(other)) {
        let detail = "it is the last token that can make or revoke others: make another first, or say force; after that \
                      only `radarflow token create` on the server's host makes one";
        return Err(problem(StatusCode::CONFLICT, "last_admin", detail, json!({})));
    }
    let (tenant, name) = (actor.tenant.clone(), token.name.clone());
    let epoch = api.append(&actor, &Fact::TokenRevoked { tenant, id, name, actor: who(&actor), reason }).await?;
    api.engine.live().reach(epoch).await;
    Ok(axum::Json(Done { epoch }).into_response())
}

/// Takes a snapshot of the state.
#[utoipa::path(
    post, path = "/api/snapshot", tag = "administration",
    responses((status = 200, description = "The epoch it is of.", body = Done))
)]
pub(crate) async fn snapshot(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Maintain)?;
    let epoch = api.append(&actor, &Fact::Snapshot).await?;
    api.engine.live().reach(epoch).await;
    Ok(axum::Json(Done { epoch }).into_response())
}

/// The ledger's clock, and the wall's.
#[derive(Serialize, ToSchema)]
pub(crate) struct Clock {
    /// What the ledger's clock shows, milliseconds since 1970.
    clock_ms: i64,
    /// What the wall clock shows, milliseconds since 1970.
    wall_ms: i64,
    /// Whether the wall is too far off to follow.
    held: bool,
    /// How far the wall is ahead where it is, milliseconds; else 0.
    held_by_ms: i64,
}

impl Clock {
    fn of(api: &Shared) -> Self {
        let Shown { clock_ms, held_by_ms } = api.clock.shown();
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let wall_ms = since.map_or(0, |d| d.as_millis() as i64);
        Clock { clock_ms, wall_ms, held: held_by_ms != 0, held_by_ms }
    }
}

/// Says what the ledger's clock shows and whether it follows the wall.
#[utoipa::path(
    get, path = "/api/clock", tag = "administration",
    responses((status = 200, description = "The clocks.", body = Clock))
)]
pub(crate) async fn clock(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Response> {
    api.allowed(&headers, Action::Query)?;
    Ok(axum::Json(Clock::of(&api)).into_response())
}

/// That the wall clock is right.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClockIsRight {
    /// How far the wall was ahead when somebody looked at it, milliseconds: what they accept.
    held_by_ms: i64,
    /// For the audit.
    reason: String,
}

/// What an administrator looked at and what is now may differ by this much, milliseconds.
const SAME_CLOCK_MS: i64 = 60_000;

/// Has the ledger's clock follow the wall, which it holds for wrong. Forward it leaps; back it waits for the wall.
#[utoipa::path(
    post, path = "/api/clock/accept", tag = "administration", request_body = ClockIsRight,
    responses((status = 200, description = "The epoch of the decision; the next frame follows the wall.", body = Done))
)]
pub(crate) async fn accept_clock(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Maintain)?;
    let right: ClockIsRight = body(request).await?;
    let Clock { clock_ms, wall_ms, held, held_by_ms } = Clock::of(&api);
    let refused = |detail: &str| {
        let more = json!({"clock_ms": clock_ms, "wall_ms": wall_ms, "held_by_ms": held_by_ms});
        problem(StatusCode::CONFLICT, "refused", detail, more)
    };
    if !held {
        return Err(refused("the ledger's clock follows the wall; there is nothing to accept"));
    }
    if (held_by_ms - right.held_by_ms).abs() > SAME_CLOCK_MS {
        return Err(refused("the wall clock was set since; look again"));
    }
    let (tenant, who, reason) = (actor.tenant.clone(), who(&actor), right.reason);
    let epoch = api.append(&actor, &Fact::ClockAccepted { tenant, clock_ms, wall_ms, actor: who, reason }).await?;
    // It may have been set while the decision became durable.
    let Clock { wall_ms, held_by_ms: now_held_by_ms, .. } = Clock::of(&api);
    if (now_held_by_ms - held_by_ms).abs() > SAME_CLOCK_MS {
        return Err(refused("the wall clock was set meanwhile; look again"));
    }
    api.clock.accept(wall_ms);
    api.engine.live().reach(epoch).await;
    Ok(axum::Json(Done { epoch }).into_response())
}

/// Where an alert is now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stepped {
    /// Its status.
    status: &'static str,
    /// Since when.
    epoch: u64,
}

/// Takes an alert a step on.
#[utoipa::path(
    post, path = "/api/alerts/{id}/{step}", tag = "alerts", request_body(content = Option<Why>),
    params(
        ("id" = String, Path, description = "The alert."),
        ("step" = String, Path, description = "acknowledge, escalate, resolve, suppress, reopen"),
    ),
    responses((status = 200, description = "Where it is now.", body = Stepped))
)]
pub(crate) async fn step_alert(
    State(api): State<Shared>,
    Path((id, step)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::StepAlert)?;
    let not_found = |detail| problem(StatusCode::NOT_FOUND, "not_found", detail, json!({}));
    let to = match step.as_str() {
        "acknowledge" => AlertStatus::Acknowledged,
        "resolve" => AlertStatus::Resolved,
        "escalate" => AlertStatus::Escalated,
        "suppress" => AlertStatus::Suppressed,
        "reopen" => AlertStatus::Pending,
        _ => return Err(not_found("steps are acknowledge, escalate, resolve, suppress, reopen")),
    };
    let why: Why = optional_body(request).await?;
    // An actor bound to partitions sees no other's alerts, and moves none.
    let alerts = api.engine.live().view().rows_where::<Alert>(&actor.tenant, "id", &id);
    if !alerts.iter().any(|a| sees(&actor.partitions, &a.partition)) {
        return Err(not_found("there is no such alert"));
    }
    let command = command_id();
    let fact = Fact::AlertStep {
        tenant: actor.tenant.clone(),
        alert_id: id,
        to,
        actor: who(&actor),
        reason: why.reason,
        command_id: command.clone(),
    };
    let epoch = api.command(&actor, &fact, &command).await?;
    Ok(axum::Json(Stepped { status: to.name(), epoch }).into_response())
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "process", security(()), responses((status = 200, description = "It does.", body = String)))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether everything is answered and taken. It is not (503, `not_ready`, with the reason) while the ledger is opened and
/// replayed, while the disk is short, and while the process stops.
#[utoipa::path(get, path = "/readyz", tag = "process", security(()), responses((status = 200, description = "It is.", body = String)))]
pub(crate) async fn readyz(State(api): State<Shared>) -> Result<&'static str, Response> {
    match (api.ready)() {
        Ok(()) => Ok("ready\n"),
        Err(why) => Err(not_ready(&why)),
    }
}

/// Metrics, as Prometheus reads them.
#[utoipa::path(
    get, path = "/metrics", tag = "process", security(()),
    responses((status = 200, description = "OpenMetrics.", body = String, content_type = "application/openmetrics-text"))
)]
pub(crate) async fn metrics(State(api): State<Shared>) -> Response {
    openapi::metrics((api.metrics)())
}
