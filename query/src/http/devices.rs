//! Devices: where a name leads, and the steps of their life cycle.
//!
//! A step is judged in the dataflow, in the order of the ledger; what the API sees first is only said earlier. The step
//! is said of the identifier that names the device best, so it stays with the device whatever it is called later.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Anchor, DeviceAct, DeviceStep, Fact, Stage};
use radarflow_proto::rows::{Device, StateRow, Table, state_batch};
use radarflow_reconcile::access::Action;
use radarflow_reconcile::lifecycle;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::engine::encode::json_rows;
use crate::http::Shared;
use crate::http::commands::command_id;
use crate::http::problem::{bad, not_found, problem};
use crate::http::request::{Asked, body};
use crate::tables::names::{self, Leads, named};

/// Longest reason, bytes.
const MAX_REASON: usize = 1000;

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
        not_found(detail)
    })?;
    let Asked { reason } = body(request).await?;
    if reason.len() > MAX_REASON {
        return Err(bad(&format!("a reason has at most {MAX_REASON} bytes")));
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
        actor: actor.as_fact(),
        reason,
        command_id: command.clone(),
    };
    let epoch = api.command(&actor, &Fact::DeviceStep(step), &command).await?;
    let now = api.engine.live().view().rows_where::<Device>(&actor.tenant, "uid", &uid).into_iter().next();
    let deleted_at = now.as_ref().and_then(|d| d.deleted_at).map(|at| at.to_string());
    Ok(axum::Json(Stands { uid, lifecycle: now.map(|d| d.lifecycle), deleted_at, epoch }).into_response())
}

/// Finds the device that a name leads to: its own, a former one, one of a system that was replaced.
#[utoipa::path(
    get, path = "/api/devices/{uid}", tag = "devices",
    params(("uid" = String, Path, description = "Any name of the device.")),
    responses((status = 200, description = "What was asked, its name now, the device.", body = serde_json::Map<String, Value>))
)]
pub(crate) async fn device(
    State(api): State<Shared>,
    Path(uid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let view = api.engine.live().view();
    match names::leads(&view, &actor, &uid) {
        Leads::To(device) => {
            let found = device.uid.clone();
            let batch = state_batch(Table::Device, [&StateRow::from(*device)]);
            let rows: Vec<Value> = serde_json::from_slice(&json_rows(&[batch]).unwrap_or_default()).unwrap_or_default();
            let answer = json!({"asked": uid, "uid": found, "device": rows.first(), "epoch": view.epoch});
            Ok(axum::Json(answer).into_response())
        }
        Leads::Contested(ip) => {
            let detail = format!("{ip} is claimed by too many devices to be any one's");
            Err(problem(StatusCode::CONFLICT, "contested", &detail, json!({"ip": ip})))
        }
        Leads::Gone(identifiers) => {
            let detail = format!("{uid} was imported, and nothing holds its identifiers now");
            Err(problem(StatusCode::GONE, "gone", &detail, json!({"identifiers": identifiers})))
        }
        Leads::Nowhere => Err(not_found(&format!("there is no device {uid}"))),
    }
}
