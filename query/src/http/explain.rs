//! Why a device is one, and why two devices are two.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_reconcile::access::Action;
use serde_json::json;

use crate::http::Shared;
use crate::http::problem::problem;

/// Tells why a device is one: its records, what links them, what was dropped and why.
#[utoipa::path(
    get, path = "/api/devices/{uid}/explain", tag = "identity",
    params(("uid" = String, Path, description = "Any name of the device.")),
    responses((status = 200, description = "Records, links with their witnesses, what was dropped, names, addresses.", body = serde_json::Map<String, serde_json::Value>))
)]
pub(crate) async fn explain_device(
    State(api): State<Shared>,
    Path(uid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let view = api.engine.live().view();
    let device = api.device(&view, &actor, &uid)?;
    Ok(axum::Json(api.sight(&view, &actor).explained(&device).await?).into_response())
}

/// Tells why two devices are two: the strongest evidence between them, and the rule that keeps them apart.
#[utoipa::path(
    get, path = "/api/devices/{uid}/why-not/{other}", tag = "identity",
    params(
        ("uid" = String, Path, description = "Any name of one device."),
        ("other" = String, Path, description = "Any name of the other."),
    ),
    responses((status = 200, description = "What keeps them apart, and the evidence.", body = serde_json::Map<String, serde_json::Value>))
)]
pub(crate) async fn why_not(
    State(api): State<Shared>,
    Path((uid, other)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let view = api.engine.live().view();
    let (a, b) = (api.device(&view, &actor, &uid)?, api.device(&view, &actor, &other)?);
    if a.uid == b.uid {
        let detail = format!("both are {}; ask for its explanation", a.uid);
        return Err(problem(StatusCode::CONFLICT, "one_device", &detail, json!({"uid": a.uid})));
    }
    Ok(axum::Json(api.sight(&view, &actor).why_not(&a, &b).await?).into_response())
}
