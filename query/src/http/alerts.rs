//! What operators do with alerts: the steps of their life.

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{AlertStatus, Fact};
use radarflow_proto::rows::Alert;
use radarflow_reconcile::access::{Action, sees};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::Shared;
use crate::http::commands::command_id;
use crate::http::problem::not_found;
use crate::http::request::{Why, optional_body};

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
        actor: actor.as_fact(),
        reason: why.reason,
        command_id: command.clone(),
    };
    let epoch = api.command(&actor, &fact, &command).await?;
    Ok(axum::Json(Stepped { status: to.name(), epoch }).into_response())
}
