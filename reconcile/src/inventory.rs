//! A device's row from what its records say: per field the value of greatest (source confidence, event time, record
//! key); sets are unions; first seen is the minimum, last seen the maximum. An absent field says nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use radarflow_proto::cell::{Tags, Time};
use radarflow_proto::record::{Record, SourceKind};
use radarflow_proto::rows::Device;
use serde::{Deserialize, Serialize};

use crate::availability::Availability;
use crate::enrich::FIELDS;
use crate::lifecycle::{self, Life};

/// How far a source is trusted about attributes.
pub fn confidence(kind: SourceKind) -> u8 {
    match kind {
        SourceKind::Operator => 11,
        SourceKind::Agent | SourceKind::Mapper => 8,
        SourceKind::Armis | SourceKind::NetBox | SourceKind::Integration => 7,
        SourceKind::Sweep => 5,
    }
}

/// What a device's row is made of.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    /// Its name.
    pub uid: &'a str,
    /// Its records, in any order.
    pub records: Vec<&'a Record>,
    /// The addresses it owns.
    pub owned: BTreeSet<IpAddr>,
    /// What its vantages say; `None` when nobody looked.
    pub availability: Option<Availability>,
    /// What operators made of it.
    pub life: Life,
}

/// A device as its records describe it, before rules add to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Described {
    /// The row.
    pub device: Device,
    /// How far the source of each of the [`FIELDS`] is trusted; 0 where nobody says it.
    pub trust: [u8; 4],
}

/// The description. `None` without records: there is no such device.
pub fn describe(parts: &Parts<'_>) -> Option<Described> {
    let mut records = parts.records.clone();
    records.sort_by(|a, b| rank(b).cmp(&rank(a)));
    let best = *records.first()?;
    let attribute = |name: &str| records.iter().find_map(|r| r.attributes.get(name)).cloned();
    let trust = |field| records.iter().find(|r| r.attributes.contains_key(field)).map_or(0, |r| confidence(r.key.kind));
    let hostname = records.iter().find_map(|r| r.hostname.clone());
    let name = attribute("name");
    let ip = {
        let mut newest = records.clone();
        newest.sort_by_key(|r| std::cmp::Reverse((r.event_time, confidence(r.key.kind))));
        let claimed = newest.iter().flat_map(|r| &r.ips).find(|ip| parts.owned.contains(ip)).copied();
        claimed.or_else(|| parts.owned.first().copied()).map(|ip| ip.to_string())
    };
    let macs: BTreeSet<&String> = records.iter().flat_map(|r| &r.macs).collect();
    let mut metadata = std::collections::BTreeMap::new();
    for record in records.iter().rev() {
        for (key, value) in &record.metadata {
            metadata.insert(key.clone(), value.clone());
        }
    }
    let (deleted_at, deleted_by, deleted_reason) = match &parts.life.deleted {
        Some((at, by, reason)) => (Some(*at), Some(by.clone()), Some(reason.clone())),
        None => (None, None, None),
    };
    let sources: BTreeSet<&str> = records.iter().map(|r| r.key.kind.name()).collect();
    let display_name =
        hostname.clone().or_else(|| name.clone()).or_else(|| ip.clone()).unwrap_or_else(|| parts.uid.to_owned());
    let device = Device {
        tenant_id: best.key.tenant.clone(),
        partition: best.partition.clone(),
        uid: parts.uid.to_owned(),
        display_name,
        hostname,
        name,
        ip,
        ip_addresses: parts.owned.iter().map(ToString::to_string).collect(),
        mac: records.iter().find_map(|r| r.macs.first()).cloned(),
        mac_addresses: macs.into_iter().cloned().collect(),
        r#type: attribute("type"),
        vendor_name: attribute("vendor_name"),
        model: attribute("model"),
        os: attribute("os"),
        agent_id: attribute("agent_id"),
        gateway_id: attribute("gateway_id"),
        discovery_sources: sources.into_iter().map(str::to_owned).collect(),
        is_available: parts.availability.as_ref().and_then(|a| a.state.as_bool()),
        availability: parts.availability.as_ref().map_or("unknown", |a| a.state.name()).to_owned(),
        availability_since: parts.availability.as_ref().map(|a| a.since),
        availability_reason: parts.availability.as_ref().map(|a| a.reason.clone()),
        first_seen_time: records.iter().map(|r| r.event_time).min().unwrap_or_default(),
        last_seen_time: records.iter().map(|r| r.event_time).max().unwrap_or_default(),
        lifecycle: parts.life.stage.unwrap_or_else(|| lifecycle::derived(&records)).name().to_owned(),
        deleted_at,
        deleted_by,
        deleted_reason,
        metadata: Tags(metadata),
        enriched_by: Tags::default(),
        epoch: 0,
    };
    Some(Described { device, trust: FIELDS.map(trust) })
}

fn rank(record: &Record) -> (u8, Time, &radarflow_proto::record::RecordKey) {
    (confidence(record.key.kind), record.event_time, &record.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use radarflow_proto::record::RecordKey;

    fn record(kind: SourceKind, at: i64, hostname: Option<&str>, model: Option<&str>) -> Record {
        Record {
            key: RecordKey { tenant: "t".into(), kind, instance: "i".into(), partition: None, key: "k".into() },
            partition: "default".into(),
            event_time: Time(at),
            deleted: false,
            ids: vec![],
            macs: vec![],
            macs_shown: vec![],
            ips: vec![],
            hostname: hostname.map(str::to_owned),
            attributes: model.map(|m| ("model".to_owned(), m.to_owned())).into_iter().collect(),
            metadata: Default::default(),
            dropped: vec![],
        }
    }

    #[test]
    fn confidence_before_time_and_absence_says_nothing() {
        let agent = record(SourceKind::Agent, 1, Some("from-agent"), None);
        let armis = record(SourceKind::Armis, 9, Some("from-armis"), Some("m1"));
        for records in [vec![&agent, &armis], vec![&armis, &agent]] {
            let Described { device, .. } = describe(&Parts { uid: "sr:x", records, ..Parts::default() }).unwrap();
            assert_eq!((device.hostname.as_deref(), device.model.as_deref()), (Some("from-agent"), Some("m1")));
            assert_eq!((device.first_seen_time, device.last_seen_time), (Time(1), Time(9)));
            assert_eq!((device.is_available, device.availability.as_str()), (None, "unknown"));
        }
    }
}
