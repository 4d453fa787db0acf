//! What operators ask of a device: the steps of its life cycle.
//!
//! A step is judged in the dataflow, in the order of the ledger; what the API sees first is only said earlier. The step
//! is said of the identifier that names the device best, so it stays with the device whatever it is called later.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Anchor, DeviceAct, DeviceStep, Fact, Stage};
use radarflow_proto::rows::Device;
use radarflow_reconcile::access::{Action, sees};
use radarflow_reconcile::lifecycle;
use serde::Deserialize;
use serde_json::json;

use crate::http::{Shared, body, command_id, problem};
use crate::links::who;
use crate::names::{leads_to, named};

/// Longest reason, bytes.
const MAX_REASON: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    reason: String,
}

/// `POST /api/devices/{uid}/{act}`
pub(crate) async fn step_device(
    State(api): State<Shared>,
    Path((uid, act)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let actor = match api.allowed(&headers, Action::StepDevice) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let Some(act) = [DeviceAct::Manage, DeviceAct::Decommission, DeviceAct::Delete, DeviceAct::Restore]
        .into_iter()
        .find(|known| known.name() == act)
    else {
        let detail = "what may be asked of a device is manage, decommission, delete, restore";
        return problem(StatusCode::NOT_FOUND, "not_found", detail, json!({}));
    };
    let Asked { reason } = match body(request).await {
        Ok(asked) => asked,
        Err(bad) => return bad,
    };
    if reason.len() > MAX_REASON {
        let detail = format!("a reason has at most {MAX_REASON} bytes");
        return problem(StatusCode::BAD_REQUEST, "bad_request", &detail, json!({}));
    }
    let view = api.engine.live().view();
    let uid = leads_to(&view, &actor, &uid);
    let found = view.rows_where::<Device>(&actor.tenant, "uid", &uid);
    let Some(device) = found.iter().find(|d| sees(&actor.partitions, &d.partition)) else {
        return problem(StatusCode::NOT_FOUND, "not_found", "there is no such device", json!({}));
    };
    let from = Stage::of_name(&device.lifecycle).unwrap_or(Stage::Discovered);
    let deleted = device.deleted_at.is_some();
    if let Err(refused) = lifecycle::check(from, deleted, act) {
        return refusal(&refused.to_string(), &refused.allowed);
    }
    let Some(id) = named(&view, &actor, &device.partition, &uid) else {
        let detail = "neither an identifier nor an address names this device; delete its record at its source";
        return problem(StatusCode::CONFLICT, "refused", detail, json!({}));
    };
    let command = command_id();
    let step = DeviceStep {
        tenant: actor.tenant.clone(),
        partition: device.partition.clone(),
        uid: uid.clone(),
        anchor: Anchor::Identifier(id),
        from,
        act,
        actor: who(&actor),
        reason,
        command_id: command.clone(),
    };
    match api.command(&actor, &Fact::DeviceStep(step), &command).await {
        Ok(epoch) => {
            let now = api.engine.live().view().rows_where::<Device>(&actor.tenant, "uid", &uid);
            let now = now.first();
            let deleted_at = now.and_then(|d| d.deleted_at).map(|at| at.to_string());
            let answer = json!({
                "uid": uid, "lifecycle": now.map(|d| &d.lifecycle), "deleted_at": deleted_at, "epoch": epoch,
            });
            axum::Json(answer).into_response()
        }
        Err(refused) => refused,
    }
}

fn refusal(detail: &str, allowed: &[DeviceAct]) -> Response {
    let allowed: Vec<&str> = allowed.iter().map(|a| a.name()).collect();
    problem(StatusCode::CONFLICT, "refused", detail, json!({"allowed": allowed}))
}
