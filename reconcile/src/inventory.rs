//! A device's row from what its records say: per field the value of greatest (source confidence, event time, record
//! key); sets are unions; first seen is the minimum, last seen the maximum. An absent field says nothing.
//!
//! A device may have a million records (everything that is known by one address alone). So it is described by
//! [`MAX_DESCRIBING`] of them, those of greatest (source confidence, event time); of the others counts when they were
//! seen, whose they are, and what stage they make it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use radarflow_proto::cell::{Tags, Time};
use radarflow_proto::fact::Stage;
use radarflow_proto::record::{Record, SourceKind};
use radarflow_proto::rows::Device;
use serde::{Deserialize, Serialize};

use crate::availability::Availability;
use crate::enrich::FIELDS;
use crate::lifecycle::{self, Life};

/// Records that describe a device.
pub const MAX_DESCRIBING: usize = 256;

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
    /// The records that describe it, in any order.
    pub records: Vec<&'a Record>,
    /// What is known of all of them.
    pub known: RecordSummary,
    /// The addresses it owns.
    pub owned: BTreeSet<IpAddr>,
    /// What its vantages say; `None` when nobody looked.
    pub availability: Option<Availability>,
    /// What operators made of it.
    pub life: Life,
}

/// What every record adds to its device, whether or not it describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordSummary {
    seen: Option<(Time, Time)>,
    kinds: BTreeSet<SourceKind>,
    identified: bool,
}

impl RecordSummary {
    /// Takes a record in: whose it is, its event time, and whether it asserts an identifier or a MAC.
    pub fn add(&mut self, kind: SourceKind, at: Time, identified: bool) {
        let (first, last) = self.seen.unwrap_or((at, at));
        self.seen = Some((first.min(at), last.max(at)));
        self.kinds.insert(kind);
        self.identified |= identified;
    }

    /// The stage of a device nobody has decided about.
    fn stage(&self) -> Stage {
        lifecycle::derived(self.kinds.contains(&SourceKind::Agent), self.identified)
    }
}

impl<'a> Parts<'a> {
    /// Of a device with these records.
    pub fn of(uid: &'a str, records: Vec<&'a Record>) -> Self {
        let mut known = RecordSummary::default();
        for record in &records {
            known.add(record.key.kind, record.event_time, !record.ids.is_empty() || !record.macs.is_empty());
        }
        Parts { uid, records, known, ..Parts::default() }
    }
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
    let sources: BTreeSet<&str> = parts.known.kinds.iter().map(|kind| kind.name()).collect();
    let (first_seen_time, last_seen_time) = parts.known.seen.unwrap_or_default();
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
        first_seen_time,
        last_seen_time,
        lifecycle: parts.life.stage.unwrap_or_else(|| parts.known.stage()).name().to_owned(),
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
            let Described { device, .. } = describe(&Parts::of("sr:x", records)).unwrap();
            assert_eq!((device.hostname.as_deref(), device.model.as_deref()), (Some("from-agent"), Some("m1")));
            assert_eq!((device.first_seen_time, device.last_seen_time), (Time(1), Time(9)));
            assert_eq!((device.is_available, device.availability.as_str()), (None, "unknown"));
        }
    }
}
