//! How devices and identifiers are named, and where a name leads: to whoever bears it, or bore it, or holds the identifiers
//! that a device of that name had in a system that was replaced.

use std::net::IpAddr;

use radarflow_proto::record::{IdKind, Identifier};
use radarflow_proto::rows::{self, Device, DeviceIdentifier, DeviceRedirect, IpOwnership};
use radarflow_reconcile::access::sees;
use radarflow_reconcile::identity::normalise;

use crate::actor::Actor;
use crate::tables::view::View;

/// Longest identifier, bytes.
const MAX_VALUE: usize = 512;

/// What is no identifier, and why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadName(String);

/// An identifier as identity writes it.
pub(crate) fn identifier(kind: &str, source_instance: &str, value: &str) -> Result<Identifier, BadName> {
    if value.len() > MAX_VALUE {
        return Err(BadName(format!("an identifier has at most {MAX_VALUE} bytes")));
    }
    let none = |what: &str| BadName(format!("{value:?} is no {what}"));
    let (kind, value) = match kind {
        "agent" => (IdKind::Agent, normalise::agent_id(value).ok_or_else(|| none("agent id"))?),
        "armis" => (IdKind::Armis, normalise::id(value).ok_or_else(|| none("armis id"))?),
        "integration" => (IdKind::Integration, normalise::id(value).ok_or_else(|| none("integration id"))?),
        "netbox" => (IdKind::NetBox, normalise::id(value).ok_or_else(|| none("netbox id"))?),
        "mac" => (IdKind::Mac, normalise::mac(value).map_err(|reason| none(reason.name()))?.hex),
        "ip" => (IdKind::Ip, normalise::ip(value).ok_or_else(|| none("address of a device"))?.to_string()),
        other => {
            return Err(BadName(format!("type {other:?}: agent, armis, integration, netbox, mac or ip")));
        }
    };
    let namespace = if kind.is_strong() && kind != IdKind::Agent { source_instance.trim() } else { "" };
    Ok(Identifier { kind, namespace: namespace.to_owned(), value })
}

/// An identifier as seeds write it.
pub(crate) fn read_seed(text: &str) -> Result<Identifier, BadName> {
    let Some((kind, value)) = text.split_once(':') else {
        return Err(BadName(format!("{text:?} is no identifier: type:value, or type@instance:value")));
    };
    let (kind, instance) = kind.split_once('@').unwrap_or((kind, ""));
    identifier(kind, instance, value)
}

/// The device that a uid leads to: itself, or one hop on; of an imported one, whoever holds its identifiers.
pub(crate) fn leads_to(view: &View, actor: &Actor, uid: &str) -> String {
    let redirects = view.rows_where::<DeviceRedirect>(&actor.tenant, "from_uid", uid);
    let seen = redirects.into_iter().find(|r| sees(&actor.partitions, &r.partition));
    if let Some(redirect) = seen {
        return redirect.to_uid;
    }
    let there = || !view.rows_where::<Device>(&actor.tenant, "uid", uid).is_empty();
    let imported = if there() { None } else { imported(view, actor, uid) };
    imported.unwrap_or_else(|| uid.to_owned())
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
        if id.kind.is_strong() || id.kind == IdKind::Mac { held.iter().find(is)?.device_uid.clone() } else { owned() }
    })
}

/// The device that a name leads to, if the actor may see it.
pub(crate) fn device(view: &View, actor: &Actor, uid: &str) -> Option<Device> {
    let found = view.rows_where::<Device>(&actor.tenant, "uid", &leads_to(view, actor, uid));
    found.into_iter().find(|d| sees(&actor.partitions, &d.partition))
}

/// Where a name leads.
pub(crate) enum Leads {
    /// To a device.
    To(Box<Device>),
    /// It is of an address that is claimed by too many devices to be any one's.
    Contested(String),
    /// It was imported, and nothing holds its identifiers now.
    Gone(Vec<String>),
    /// Nowhere.
    Nowhere,
}

/// Where a name leads, as an actor may see it.
pub(crate) fn leads(view: &View, actor: &Actor, uid: &str) -> Leads {
    if let Some(device) = device(view, actor, uid) {
        return Leads::To(Box::new(device));
    }
    let owned = view.rows_where::<IpOwnership>(&actor.tenant, "ip_uid", uid);
    let shared = owned.into_iter().find(|o| o.device_uid.is_none() && sees(&actor.partitions, &o.partition));
    if let Some(shared) = shared {
        return Leads::Contested(shared.ip);
    }
    let known = view.rows_where::<rows::ImportedUid>(&actor.tenant, "uid", uid);
    let known = known.into_iter().find(|i| sees(&actor.partitions, &i.partition));
    known.map_or(Leads::Nowhere, |known| Leads::Gone(known.identifiers))
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
