//! What operators ask of a device: the steps of its life cycle.
//!
//! A step is judged in the dataflow, in the order of the ledger; what the API sees first is only said earlier. The step
//! is said of the identifier that names the device best, so it stays with the device whatever it is called later.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Anchor, DeviceAct, DeviceStep, Fact, Stage};
use radarflow_proto::rows::Device;
use radarflow_reconcile::access::Action;
use radarflow_reconcile::lifecycle;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::http::links::who;
use crate::http::{Shared, body, command_id, problem};
use crate::tables::names::named;

/// Longest reason, bytes.
const MAX_REASON: usize = 1000;

/// Why it is asked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// For the audit.
    #[schema(max_length = 1000)]
    pub(crate) reason: String,
}

/// How a device stands now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stands {
    /// The device.
    uid: String,
    /// Its stage.
    lifecycle: Option<String>,
    /// Since when it is deleted.
    deleted_at: Option<String>,
    /// Since when all this holds.
    epoch: u64,
}

/// Takes a device a step on in its life cycle.
#[utoipa::path(
    post, path = "/api/devices/{uid}/{act}", tag = "devices", request_body = Asked,
    params(
        ("uid" = String, Path, description = "Any name of the device."),
        ("act" = String, Path, description = "manage, decommission, delete, restore"),
    ),
    responses((status = 200, description = "How it stands now.", body = Stands))
)]
pub(crate) async fn step_device(
    State(api): State<Shared>,
    Path((uid, act)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::StepDevice)?;
    let acts = [DeviceAct::Manage, DeviceAct::Decommission, DeviceAct::Delete, DeviceAct::Restore];
    let act = acts.into_iter().find(|known| known.name() == act).ok_or_else(|| {
        let detail = "what may be asked of a device is manage, decommission, delete, restore";
        problem(StatusCode::NOT_FOUND, "not_found", detail, json!({}))
    })?;
    let Asked { reason } = body(request).await?;
    if reason.len() > MAX_REASON {
        let detail = format!("a reason has at most {MAX_REASON} bytes");
        return Err(problem(StatusCode::BAD_REQUEST, "bad_request", &detail, json!({})));
    }
    let view = api.engine.live().view();
    let device = api.device(&view, &actor, &uid)?;
    let uid = device.uid;
    let from = Stage::of_name(&device.lifecycle).unwrap_or(Stage::Discovered);
    lifecycle::check(from, device.deleted_at.is_some(), act).map_err(|refused| {
        let allowed: Vec<&str> = refused.allowed.iter().map(|a| a.name()).collect();
        problem(StatusCode::CONFLICT, "refused", &refused.to_string(), json!({"allowed": allowed}))
    })?;
    let id = named(&view, &actor, &device.partition, &uid).ok_or_else(|| {
        let detail = "neither an identifier nor an address names this device; delete its record at its source";
        problem(StatusCode::CONFLICT, "refused", detail, json!({}))
    })?;
    let command = command_id();
    let step = DeviceStep {
        tenant: actor.tenant.clone(),
        partition: device.partition,
        uid: uid.clone(),
        anchor: Anchor::Identifier(id),
        from,
        act,
        actor: who(&actor),
        reason,
        command_id: command.clone(),
    };
    let epoch = api.command(&actor, &Fact::DeviceStep(step), &command).await?;
    let now = api.engine.live().view().rows_where::<Device>(&actor.tenant, "uid", &uid).into_iter().next();
    let deleted_at = now.as_ref().and_then(|d| d.deleted_at).map(|at| at.to_string());
    Ok(axum::Json(Stands { uid, lifecycle: now.map(|d| d.lifecycle), deleted_at, epoch }).into_response())
}
