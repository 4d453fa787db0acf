//! What operators decide about runs that the brakes hold.

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Fact, RunDecision};
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::access::Action;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::Shared;
use crate::http::commands::command_id;
use crate::http::problem::not_found;
use crate::http::request::{Asked, body};

/// What was decided of a run.
#[derive(Serialize, ToSchema)]
pub(crate) struct Decided {
    /// Released, or rejected.
    released: bool,
    /// Since when.
    epoch: u64,
}

/// Releases a run that the brake holds, or rejects it.
#[utoipa::path(
    post, path = "/api/sources/{kind}/{instance}/runs/{run}/{decision}", tag = "inventories",
    request_body = Asked,
    params(
        ("kind" = String, Path, description = "agent, armis, netbox, mapper, or the type of another integration."),
        ("instance" = String, Path, description = "Its instance."),
        ("run" = String, Path, description = "The run; of a source without runs, the minute."),
        ("decision" = String, Path, description = "release, reject"),
    ),
    responses((status = 200, description = "What was decided.", body = Decided))
)]
pub(crate) async fn decide_run(
    State(api): State<Shared>,
    Path((kind, instance, run, decision)): Path<(String, String, String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::DecideRun)?;
    actor.whole("a source's run")?;
    // Integrations by their own name too, as imports call them: `servicenow/main`.
    let (kind, instance) = match SourceKind::named(&kind) {
        Some(known) => (known, instance),
        None => (SourceKind::Integration, format!("{kind}.{instance}")),
    };
    let release = match decision.as_str() {
        "release" => true,
        "reject" => false,
        _ => {
            let detail = "a run of a source is released or rejected: /api/sources/{kind}/{instance}/runs/{run}/release, …/reject";
            return Err(not_found(detail));
        }
    };
    let Asked { reason } = body(request).await?;
    let command = command_id();
    let (tenant, actor_name, id) = (actor.tenant.clone(), actor.as_fact(), command.clone());
    let decision = RunDecision { tenant, kind, instance, run, release, actor: actor_name, reason, command_id: id };
    let epoch = api.command(&actor, &Fact::RunDecision(decision), &command).await?;
    Ok(axum::Json(Decided { released: release, epoch }).into_response())
}
