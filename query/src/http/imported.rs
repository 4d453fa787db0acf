//! Names that devices had in a system that was replaced: they lead to whoever holds the identifiers they had there.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Fact, ImportedUid};
use radarflow_proto::record::Identifier;
use radarflow_proto::rows::{self, Device, DeviceIdentifier, IpOwnership, StateRow, Table, state_batch};
use radarflow_reconcile::access::{Action, sees};
use radarflow_reconcile::identity::normalise;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::engine::answer::json_rows;
use crate::http::lines::{BadLine, Lines};
use crate::http::{Api, Shared, problem};
use crate::tables::names::{leads_to, read_seed};
use crate::tables::view::View;

/// Longest line, bytes.
const MAX_LINE: usize = 64 << 10;
/// Identifiers of one name at most.
const MAX_IDENTIFIERS: usize = 256;
/// Names made durable at once.
const AT_ONCE: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    uid: String,
    #[serde(default)]
    partition: String,
    /// `type:value`, or `type@instance:value`.
    identifiers: Vec<String>,
}

fn bad(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_request", detail, json!({}))
}

impl Line {
    #[allow(clippy::result_large_err)]
    fn fact(self, actor: &Actor) -> Result<Fact, Response> {
        let partition = normalise::partition(&self.partition).ok_or_else(|| bad("a partition has no : and no /"))?;
        if self.uid.trim().is_empty() || self.uid.len() > 255 || self.uid.contains(char::is_control) {
            return Err(bad("a name has 1 to 255 bytes"));
        }
        if self.identifiers.len() > MAX_IDENTIFIERS {
            return Err(bad(&format!("{}: a name has {MAX_IDENTIFIERS} identifiers at most", self.uid)));
        }
        // What no source would count as an identifier leads nowhere: it is left out.
        let read = self.identifiers.iter().filter_map(|seed| read_seed(seed).ok());
        let mut identifiers: Vec<Identifier> = read.collect();
        identifiers.sort();
        identifiers.dedup();
        Ok(Fact::ImportedUid(ImportedUid { tenant: actor.tenant.clone(), partition, uid: self.uid, identifiers }))
    }
}

/// What was taken.
#[derive(Serialize, ToSchema)]
pub(crate) struct Taken {
    /// So many names.
    items: usize,
    /// Since when they lead somewhere.
    epoch: Option<u64>,
}

/// Takes names that devices had in a system that was replaced, a JSON object a line:
/// `{"uid": …, "partition": …, "identifiers": ["type:value", …]}`.
#[utoipa::path(
    post, path = "/api/identity/imported-uids", tag = "inventories",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, description = "What was taken.", body = Taken))
)]
pub(crate) async fn import_uids(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Import)?;
    actor.whole("an imported name")?;
    let (items, epoch) = take(&api, &actor, request.into_body()).await?;
    if items == 0 {
        return Err(bad("there is no name in the request: send a JSON object a line"));
    }
    if let Some(epoch) = epoch {
        api.engine.live().reach(epoch).await;
    }
    Ok(axum::Json(Taken { items, epoch }).into_response())
}

async fn take(api: &Api, actor: &Actor, body: axum::body::Body) -> Result<(usize, Option<u64>), Response> {
    let mut lines = Lines::new(body, MAX_LINE);
    let (mut facts, mut items, mut epoch) = (Vec::new(), 0, None);
    loop {
        let line = lines.next().await.map_err(|error| match error {
            BadLine::Broken => bad("the request broke off; send it again: what was taken is the same"),
            BadLine::TooLong(n) => bad(&format!("line {n} has more than {MAX_LINE} bytes")),
        })?;
        let ended = line.is_none();
        if let Some((_, line)) = line {
            items += 1;
            let line: Line = serde_json::from_slice(line).map_err(|e| bad(&format!("name {items}: {e}")))?;
            facts.push(line.fact(actor)?);
        }
        if facts.len() >= AT_ONCE || (ended && !facts.is_empty()) {
            epoch = Some(api.append_facts(actor, &std::mem::take(&mut facts)).await?);
        }
        if ended {
            return Ok((items, epoch));
        }
    }
}

/// The device that an imported name leads to.
pub(crate) fn imported(view: &View, actor: &Actor, uid: &str) -> Option<String> {
    let known = view.rows_where::<rows::ImportedUid>(&actor.tenant, "uid", uid);
    let known = known.into_iter().find(|i| sees(&actor.partitions, &i.partition))?;
    known.identifiers.iter().find_map(|seed| {
        let id = read_seed(seed).ok()?;
        let held = view.rows_where::<DeviceIdentifier>(&actor.tenant, "identifier_value", &id.value);
        let is = |i: &&DeviceIdentifier| {
            i.partition == known.partition && i.identifier_type == id.kind.name() && i.source_instance == id.namespace
        };
        let owned = || {
            let owned = view.rows_where::<IpOwnership>(&actor.tenant, "ip", &id.value);
            owned.into_iter().find(|o| o.partition == known.partition)?.device_uid
        };
        if id.kind.is_strong() || id.kind == radarflow_proto::record::IdKind::Mac {
            held.iter().find(is)?.device_uid.clone()
        } else {
            owned()
        }
    })
}

/// Finds the device that a name leads to: its own, a former one, one of a system that was replaced.
#[utoipa::path(
    get, path = "/api/devices/{uid}", tag = "devices",
    params(("uid" = String, Path, description = "Any name of the device.")),
    responses((status = 200, description = "What was asked, its name now, the device.", body = serde_json::Map<String, serde_json::Value>))
)]
pub(crate) async fn device(
    State(api): State<Shared>,
    Path(uid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let view = api.engine.live().view();
    let found = leads_to(&view, &actor, &uid);
    let devices = view.rows_where::<Device>(&actor.tenant, "uid", &found);
    if let Some(device) = devices.into_iter().find(|d| sees(&actor.partitions, &d.partition)) {
        let found = device.uid.clone();
        let batch = state_batch(Table::Device, [&StateRow::from(device)]);
        let rows: Vec<serde_json::Value> =
            serde_json::from_slice(&json_rows(&[batch]).unwrap_or_default()).unwrap_or_default();
        let answer = json!({"asked": uid, "uid": found, "device": rows.first(), "epoch": view.epoch});
        return Ok(axum::Json(answer).into_response());
    }
    // A name that leads nowhere says why not.
    let owned = view.rows_where::<IpOwnership>(&actor.tenant, "ip_uid", &uid);
    let shared = owned.into_iter().find(|o| o.device_uid.is_none() && sees(&actor.partitions, &o.partition));
    if let Some(shared) = shared {
        let detail = format!("{} is claimed by too many devices to be any one's", shared.ip);
        return Err(problem(StatusCode::CONFLICT, "contested", &detail, json!({"ip": shared.ip})));
    }
    let known = view.rows_where::<rows::ImportedUid>(&actor.tenant, "uid", &uid);
    if let Some(known) = known.into_iter().find(|i| sees(&actor.partitions, &i.partition)) {
        let detail = format!("{uid} was imported, and nothing holds its identifiers now");
        return Err(problem(StatusCode::GONE, "gone", &detail, json!({"identifiers": known.identifiers})));
    }
    Err(problem(StatusCode::NOT_FOUND, "not_found", &format!("there is no device {uid}"), json!({})))
}
