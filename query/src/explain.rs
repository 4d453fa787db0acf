//! Why a device is one, and why two devices are two: answers with witnesses, from the live records themselves.
//!
//! The records come from the dataflow's arrangements, everything else from the live tables, which may be an epoch apart:
//! an explanation is of a moment, and says of which.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::ports::{FoundRecord, RecordQuery};
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_proto::rows::{Device, DeviceIdentifier, DeviceRedirect, IpOwnership, Link};
use radarflow_reconcile::access::{Action, sees};
use radarflow_reconcile::identity::explain::{IdentityContext, Placed, apart, explain};
use radarflow_reconcile::identity::name::seed;
use serde_json::json;

use crate::access::Actor;
use crate::http::{Api, Shared, problem, refuse};
use crate::names::{leads_to, named};
use crate::view::View;

/// Identifiers whose other holders are looked for.
const MAX_SHARED: usize = 500;

fn placed(found: FoundRecord) -> Placed {
    Placed { record: found.record, uid: found.uid, how: found.how }
}

/// Everything a record asserts, shows or claims.
fn names(records: &[Placed]) -> Vec<Identifier> {
    let weak = |kind, value: String| Identifier { kind, namespace: String::new(), value };
    let mut names = BTreeSet::new();
    for placed in records {
        let record = &placed.record;
        names.extend(record.ids.iter().cloned());
        names.extend(record.macs.iter().chain(&record.macs_shown).map(|m| weak(IdKind::Mac, m.clone())));
        names.extend(record.ips.iter().map(|ip| weak(IdKind::Ip, ip.to_string())));
    }
    names.into_iter().take(MAX_SHARED).collect()
}

/// What the live tables know of these identifiers.
fn known(api: &Api, view: &View, actor: &Actor, partition: &str, names: &[Identifier]) -> IdentityContext {
    let mut known = IdentityContext { policy: (api.policy)(&actor.tenant), ..IdentityContext::default() };
    known.links = view.rows::<Link>(&actor.tenant).into_iter().filter(|l| l.partition == partition).collect();
    let values: BTreeSet<&str> = names.iter().map(|id| id.value.as_str()).collect();
    for owned in view.rows_where_any::<IpOwnership>(&actor.tenant, "ip", &values) {
        if owned.partition == partition {
            known.owners.extend(owned.device_uid.map(|uid| (owned.ip, uid)));
        }
    }
    for row in view.rows_where_any::<DeviceIdentifier>(&actor.tenant, "identifier_value", &values) {
        let is = |id: &&Identifier| {
            id.kind.name() == row.identifier_type
                && id.namespace == row.source_instance
                && id.value == row.identifier_value
        };
        if row.partition == partition && row.state != "held" {
            known.loose.extend(names.iter().find(is).map(|id| (seed(id), row.state.clone())));
        }
    }
    known
}

impl Api {
    /// The device that a uid leads to, if the actor may see it.
    #[allow(clippy::result_large_err)]
    pub(crate) fn device(&self, view: &View, actor: &Actor, uid: &str) -> Result<Device, Response> {
        let uid = leads_to(view, actor, uid);
        let found = view.rows_where::<Device>(&actor.tenant, "uid", &uid);
        found
            .into_iter()
            .find(|d| sees(&actor.partitions, &d.partition))
            .ok_or_else(|| problem(StatusCode::NOT_FOUND, "not_found", &format!("there is no device {uid}"), json!({})))
    }

    /// Finding reads every device: it counts among the questions a tenant may ask at once.
    async fn find(&self, tenant: &str, wanted: RecordQuery) -> Result<Vec<Placed>, Response> {
        let _running = self.engine.admit(tenant).await.map_err(|e| refuse(&e, ""))?;
        let found = self.records.find(wanted).await.ok_or_else(|| {
            problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", "the dataflow is busy; ask again later", json!({}))
        })?;
        Ok(found.into_iter().map(placed).collect())
    }
}

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
    let tenant = actor.tenant.clone();
    let own =
        api.find(&tenant, RecordQuery::Devices { tenant: tenant.clone(), uids: vec![device.uid.clone()] }).await?;
    let names = names(&own);
    let sharing = RecordQuery::Sharing {
        tenant: tenant.clone(),
        partition: device.partition.clone(),
        identifiers: names.clone(),
    };
    let mut near = api.find(&tenant, sharing).await?;
    near.retain(|p| p.uid != device.uid);
    let known = known(&api, &view, &actor, &device.partition, &names);
    let explanation = explain(&own, &near, &known);

    let redirects = view.rows_where::<DeviceRedirect>(&tenant, "to_uid", &device.uid);
    let redirects: Vec<_> =
        redirects.iter().map(|r| json!({"from_uid": r.from_uid, "identifier": r.identifier})).collect();
    let mut claims: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    for placed in own.iter().chain(&near) {
        for ip in &placed.record.ips {
            let claim = json!({
                "record": radarflow_reconcile::identity::explain::label(&placed.record),
                "uid": placed.uid, "event_time": placed.record.event_time.to_string(),
            });
            claims.entry(ip.to_string()).or_default().push(claim);
        }
    }
    let owned = view.rows_where::<IpOwnership>(&tenant, "device_uid", &device.uid);
    let addresses: Vec<_> = owned
        .iter()
        .map(|o| {
            let claimed_by = claims.get(&o.ip).cloned().unwrap_or_default();
            json!({"ip": o.ip, "class": o.class, "valid_from": o.valid_from.to_string(), "claimed_by": claimed_by})
        })
        .collect();
    let best = named(&view, &actor, &device.partition, &device.uid).map(|id| seed(&id));
    let mut answer = serde_json::to_value(&explanation).unwrap_or_default();
    if let Some(answer) = answer.as_object_mut() {
        let more = json!({
            "uid": device.uid, "partition": device.partition, "display_name": device.display_name,
            "lifecycle": device.lifecycle, "named_by": best, "redirects": redirects, "addresses": addresses,
            "epoch": view.epoch,
        });
        answer.extend(more.as_object().cloned().unwrap_or_default());
    }
    Ok(axum::Json(answer).into_response())
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
    let tenant = actor.tenant.clone();
    let wanted = RecordQuery::Devices { tenant: tenant.clone(), uids: vec![a.uid.clone(), b.uid.clone()] };
    let found = api.find(&tenant, wanted).await?;
    let (of_a, of_b): (Vec<Placed>, Vec<Placed>) = found.into_iter().partition(|p| p.uid == a.uid);
    let names: Vec<Identifier> = names(&of_a).into_iter().chain(names(&of_b)).collect();
    let known = known(&api, &view, &actor, &a.partition, &names);
    let apart = apart(&of_a, &of_b, &known);
    let shown = |d: &Device| json!({"uid": d.uid, "display_name": d.display_name, "partition": d.partition});
    let answer = json!({
        "a": shown(&a), "b": shown(&b), "kept_apart_by": apart.kept_apart_by, "evidence": apart.evidence,
        "epoch": view.epoch,
    });
    Ok(axum::Json(answer).into_response())
}
