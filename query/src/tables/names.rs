//! How requests name devices and identifiers, and where a name leads.

use std::net::IpAddr;

use axum::http::StatusCode;
use axum::response::Response;
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_proto::rows::{self, DeviceIdentifier, DeviceRedirect, IpOwnership};
use radarflow_reconcile::access::sees;
use radarflow_reconcile::identity::normalise;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::http::imported::imported;
use crate::http::{Api, problem};
use crate::tables::view::View;

/// Longest identifier, bytes.
const MAX_VALUE: usize = 512;

fn bad(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_request", detail, json!({}))
}

/// What a request says that a link is between: a device, which stands for the identifier that names it best, or an
/// identifier.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, deny_unknown_fields)]
pub(crate) enum End {
    /// A device.
    Device {
        /// Any of its names.
        uid: String,
    },
    /// An identifier.
    Identifier {
        /// agent, armis, integration, netbox, mac, ip
        r#type: String,
        /// Which source's; of agents, MACs and addresses none.
        #[serde(default)]
        source_instance: String,
        /// The identifier.
        value: String,
    },
}

/// An identifier as identity writes it.
#[allow(clippy::result_large_err)]
pub(crate) fn identifier(kind: &str, source_instance: &str, value: &str) -> Result<Identifier, Response> {
    if value.len() > MAX_VALUE {
        return Err(bad(&format!("an identifier has at most {MAX_VALUE} bytes")));
    }
    let none = |what: &str| bad(&format!("{value:?} is no {what}"));
    let (kind, value) = match kind {
        "agent" => (IdKind::Agent, normalise::agent_id(value).ok_or_else(|| none("agent id"))?),
        "armis" => (IdKind::Armis, normalise::id(value).ok_or_else(|| none("armis id"))?),
        "integration" => (IdKind::Integration, normalise::id(value).ok_or_else(|| none("integration id"))?),
        "netbox" => (IdKind::NetBox, normalise::id(value).ok_or_else(|| none("netbox id"))?),
        "mac" => (IdKind::Mac, normalise::mac(value).map_err(|reason| none(reason.name()))?.hex),
        "ip" => (IdKind::Ip, normalise::ip(value).ok_or_else(|| none("address of a device"))?.to_string()),
        other => {
            return Err(bad(&format!("type {other:?}: agent, armis, integration, netbox, mac or ip")));
        }
    };
    let namespace = if kind.is_strong() && kind != IdKind::Agent { source_instance.trim() } else { "" };
    Ok(Identifier { kind, namespace: namespace.to_owned(), value })
}

/// An identifier as seeds write it.
#[allow(clippy::result_large_err)]
pub(crate) fn read_seed(text: &str) -> Result<Identifier, Response> {
    let Some((kind, value)) = text.split_once(':') else {
        return Err(bad(&format!("{text:?} is no identifier: type:value, or type@instance:value")));
    };
    let (kind, instance) = kind.split_once('@').unwrap_or((kind, ""));
    identifier(kind, instance, value)
}

impl End {
    #[allow(clippy::result_large_err)]
    pub(crate) fn resolve(&self, api: &Api, actor: &Actor, partition: &str) -> Result<Identifier, Response> {
        match self {
            End::Identifier { r#type, source_instance, value } => identifier(r#type, source_instance, value),
            End::Device { uid } => {
                let view = api.engine.live().view();
                named(&view, actor, partition, &leads_to(&view, actor, uid)).ok_or_else(|| {
                    let detail = format!("no device {uid} in partition {partition}, or none that an identifier names");
                    problem(StatusCode::NOT_FOUND, "not_found", &detail, json!({}))
                })
            }
        }
    }
}

/// The device that a uid leads to: itself, or one hop on; of an imported one, whoever holds its identifiers.
pub(crate) fn leads_to(view: &View, actor: &Actor, uid: &str) -> String {
    let redirects = view.rows_where::<DeviceRedirect>(&actor.tenant, "from_uid", uid);
    let seen = redirects.into_iter().find(|r| sees(&actor.partitions, &r.partition));
    if let Some(redirect) = seen {
        return redirect.to_uid;
    }
    let there = || !view.rows_where::<rows::Device>(&actor.tenant, "uid", uid).is_empty();
    let imported = if there() { None } else { imported(view, actor, uid) };
    imported.unwrap_or_else(|| uid.to_owned())
}

/// The identifier that names a device best; its address, if nothing else does.
pub(crate) fn named(view: &View, actor: &Actor, partition: &str, uid: &str) -> Option<Identifier> {
    let mut held = view.rows_where::<DeviceIdentifier>(&actor.tenant, "device_uid", uid);
    held.retain(|i| i.partition == partition);
    let id = |i: &DeviceIdentifier| identifier(&i.identifier_type, &i.source_instance, &i.identifier_value).ok();
    let best = held.iter().filter_map(|i| Some((i.first_seen, id(i)?))).min();
    best.map(|(_, id)| id).or_else(|| {
        let owned = view.rows_where::<IpOwnership>(&actor.tenant, "ip_uid", uid);
        let ip: IpAddr = owned.iter().find(|o| o.partition == partition)?.ip.parse().ok()?;
        identifier("ip", "", &ip.to_string()).ok()
    })
}

#[cfg(test)]
mod tests {
    use radarflow_reconcile::identity::name::seed;

    use super::*;

    #[test]
    fn seeds_are_read_back() {
        for text in ["armis:1", "netbox@emea:vm:7", "mac:0CEA1432D278", "ip:2001:db8::1", "integration@snow.main:x"] {
            assert_eq!(seed(&read_seed(text).unwrap()), text);
        }
        assert!(read_seed("armis").is_err() && read_seed("colour:red").is_err());
    }

    #[test]
    fn identifiers_are_written_as_identity_writes_them() {
        let shown = |kind, instance, value| identifier(kind, instance, value).map(|id| seed(&id)).ok();
        assert_eq!(shown("mac", "x", "0c:ea:14:32:d2:78").as_deref(), Some("mac:0CEA1432D278"));
        assert_eq!(shown("ip", "", "::ffff:10.0.0.1").as_deref(), Some("ip:10.0.0.1"));
        assert_eq!(shown("agent", "ignored", "agent-agent-dusk").as_deref(), Some("agent:agent-dusk"));
        assert_eq!(shown("armis", "second", " 42 ").as_deref(), Some("armis@second:42"));
        for (kind, value) in [("mac", "FF:FF:FF:FF:FF:FF"), ("ip", "127.0.0.1"), ("netbox", " "), ("hostname", "h")] {
            assert_eq!(shown(kind, "", value), None, "{kind} {value}");
        }
        assert!(identifier("armis", "", &"x".repeat(1 << 20)).is_err());
    }
}
