//! What operators decide about a listing that the brake holds.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Fact, RunDecision};
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::access::Action;
use serde::Deserialize;
use serde_json::json;

use crate::http::{Shared, body, command_id, problem};
use crate::links::who;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    reason: String,
}

/// `POST /api/sources/{kind}/{instance}/runs/{run}/{decision}`
pub(crate) async fn decide_run(
    State(api): State<Shared>,
    Path((kind, instance, run, decision)): Path<(String, String, String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let actor = match api.allowed(&headers, Action::DecideRun) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    if !actor.partitions.is_empty() {
        let detail = "a source's run is the whole tenant's; this token is bound to partitions";
        return problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({}));
    }
    let kinds = [SourceKind::Armis, SourceKind::NetBox, SourceKind::Integration];
    let (Some(kind), Some(release)) = (
        kinds.into_iter().find(|k| k.name() == kind),
        match decision.as_str() {
            "release" => Some(true),
            "reject" => Some(false),
            _ => None,
        },
    ) else {
        let detail = "a run of armis, netbox or integration is released or rejected: /runs/{run}/release, …/reject";
        return problem(StatusCode::NOT_FOUND, "not_found", detail, json!({}));
    };
    let Why { reason } = match body(request).await {
        Ok(why) => why,
        Err(bad) => return bad,
    };
    let command = command_id();
    let (tenant, actor_name, id) = (actor.tenant.clone(), who(&actor), command.clone());
    let decision = RunDecision { tenant, kind, instance, run, release, actor: actor_name, reason, command_id: id };
    match api.command(&actor, &Fact::RunDecision(decision), &command).await {
        Ok(epoch) => axum::Json(json!({"released": release, "epoch": epoch})).into_response(),
        Err(refused) => refused,
    }
}
