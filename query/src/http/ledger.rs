//! What administrators ask of the ledger: a snapshot of the state, and which clock is right.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::clock::Shown;
use radarflow_proto::fact::Fact;
use radarflow_reconcile::access::Action;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::http::Shared;
use crate::http::commands::Done;
use crate::http::problem::problem;
use crate::http::request::body;

/// How long the lake may take to commit what waits, and how often it is asked.
const FLUSH_WAIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);
/// What an administrator looked at and what is now may differ by this much, milliseconds.
const SAME_CLOCK_MS: i64 = 60_000;

/// Takes a snapshot of the state.
#[utoipa::path(
    post, path = "/api/snapshot", tag = "administration",
    responses((status = 200, description = "The epoch it is of.", body = Done))
)]
pub(crate) async fn snapshot(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Maintain)?;
    api.done(&actor, &Fact::Snapshot).await
}

/// Commits what waits for the lake.
#[utoipa::path(
    post, path = "/api/flush", tag = "administration",
    responses((status = 200, description = "The epoch up to which the lake has everything.", body = Done))
)]
pub(crate) async fn flush(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Response> {
    api.allowed(&headers, Action::Maintain)?;
    let wanted = api.engine.live().view().epoch;
    let committed = async {
        loop {
            match (api.flush)().await {
                Some(epoch) if epoch < wanted => {}
                flushed => return flushed,
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    match tokio::time::timeout(FLUSH_WAIT, committed).await {
        Ok(Some(epoch)) => Ok(axum::Json(Done { epoch }).into_response()),
        Ok(None) => Err(problem(StatusCode::CONFLICT, "refused", "no lake is configured", json!({}))),
        Err(_) => {
            let detail = "the lake does not take what waits; the log says why";
            Err(problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", detail, json!({"epoch": wanted})))
        }
    }
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
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
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
    let (tenant, who, reason) = (actor.tenant.clone(), actor.as_fact(), right.reason);
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
