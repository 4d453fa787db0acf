//! From payload to record: which key, which identifiers, which claims each source's items have.
//!
//! | source | key | asserts |
//! |---|---|---|
//! | agent check-in | agent id | `agent`, its own addresses, host name |
//! | Armis | armis device id | `armis`; the first valid global MAC of its list, else the first valid; the others are *shown* |
//! | NetBox | netbox device id, `vm:<id>` | `netbox`, primary IP, name; interface MACs are *shown* |
//! | other integration | integration id | `integration`, MAC, IP, name |
//! | mapper | polled address | the MAC if its kind says so |
//! | sweep | address | nothing but the address |

use std::collections::BTreeMap;
use std::net::IpAddr;

use radarflow_proto::cell::{Tags, Time};
use radarflow_proto::payload::{AgentPush, DeviceUpdate, InterfaceRow, NeighborRow, instant_us};
use radarflow_proto::record::{IdKind, Identifier, Record, RecordKey, SourceKind};
use radarflow_proto::rows::{self, TopologyLink};
use thiserror::Error;

use super::normalise::{self, Mac};

/// The instance of updates that name none.
const DEFAULT_INSTANCE: &str = "main";
/// MACs a record may show; Armis keeps a history of hundreds.
pub const MAX_SHOWN: usize = 200;
/// Addresses a record may claim.
pub const MAX_IPS: usize = 1024;
/// Longest identifier, bytes.
pub const MAX_ID: usize = 512;
/// Longest attribute or metadata value kept, bytes.
pub const MAX_VALUE: usize = 4096;
/// Metadata entries kept.
pub const MAX_METADATA: usize = 128;

/// Why an item is no record.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It has nothing it could be known by.
    #[error("a {0} item without {1}")]
    NoKey(&'static str, &'static str),
    /// A name that cannot be used.
    #[error("invalid {0}: {1:?}")]
    BadName(&'static str, String),
    /// An identifier is too long.
    #[error("{0} of {1} bytes, {MAX_ID} at most")]
    TooLong(&'static str, usize),
}

/// The source instances there are, and which of them bears the bare names (`legacy_uid`): the first configured of each
/// kind. Which one is a fact, so that every worker and every replay knows it alike.
#[derive(Clone, Debug, Default)]
pub struct Instances {
    by_kind: BTreeMap<(String, IdKind), BTreeMap<String, bool>>,
}

impl Instances {
    /// Notes an instance (`<type>.<instance>` for integrations) of a kind.
    pub fn note(&mut self, tenant: &str, kind: IdKind, instance: &str, legacy: bool) {
        self.by_kind.entry((tenant.to_owned(), kind)).or_default().insert(instance.to_owned(), legacy);
    }

    /// Whether the instance is known.
    pub fn knows(&self, tenant: &str, kind: IdKind, instance: &str) -> bool {
        self.of(tenant, kind).is_some_and(|i| i.contains_key(instance))
    }

    /// Whether any instance of the kind is known: the next one is not the first.
    pub fn any(&self, tenant: &str, kind: IdKind) -> bool {
        self.of(tenant, kind).is_some()
    }

    /// The namespace of an instance's identifiers: empty for the marked one.
    pub fn namespace(&self, tenant: &str, kind: IdKind, instance: &str) -> String {
        match self.of(tenant, kind).and_then(|i| i.get(instance)) {
            Some(true) => String::new(),
            _ => instance.to_owned(),
        }
    }

    /// The only instance of a kind: what an unnamed reference by another source means.
    pub fn only(&self, tenant: &str, kind: IdKind) -> Option<&str> {
        self.of(tenant, kind).filter(|i| i.len() == 1)?.keys().next().map(String::as_str)
    }

    fn of(&self, tenant: &str, kind: IdKind) -> Option<&BTreeMap<String, bool>> {
        self.by_kind.get(&(tenant.to_owned(), kind))
    }
}

/// The kind of a device update's source.
pub fn source_kind(source: &str) -> SourceKind {
    match source.trim().to_ascii_lowercase().as_str() {
        "armis" => SourceKind::Armis,
        "netbox" => SourceKind::NetBox,
        "mapper" | "snmp" => SourceKind::Mapper,
        "sweep" => SourceKind::Sweep,
        _ => SourceKind::Integration,
    }
}

/// The instance a device update speaks for, with the kind of identifier it counts: what must be known as a fact before
/// the update is read. `None` for updates that count none.
pub fn update_instance(update: &DeviceUpdate) -> Option<(IdKind, String)> {
    let instance = normalise::instance(instance_name(update))?;
    match source_kind(&update.source) {
        SourceKind::Armis => Some((IdKind::Armis, instance)),
        SourceKind::NetBox => Some((IdKind::NetBox, instance)),
        SourceKind::Integration => Some((IdKind::Integration, format!("{}.{instance}", integration_kind(update)))),
        _ => None,
    }
}

fn instance_name(update: &DeviceUpdate) -> &str {
    match update.sync_meta.sync_service_id.trim() {
        "" => DEFAULT_INSTANCE,
        id => id,
    }
}

fn integration_kind(update: &DeviceUpdate) -> String {
    let named = update.metadata.get("integration_type").map(|t| t.trim().to_ascii_lowercase()).unwrap_or_default();
    if named.is_empty() { update.source.trim().to_ascii_lowercase() } else { named }
}

/// Where an item was received.
#[derive(Clone, Debug)]
pub struct Received<'a> {
    /// Customer.
    pub tenant: &'a str,
    /// The site the connection decides; the item's own counts only where this is `None`.
    pub partition: Option<&'a str>,
    /// Receipt, microseconds since 1970.
    pub at_us: i64,
}

impl Received<'_> {
    fn partition(&self, said: &str) -> Result<String, RecordError> {
        match self.partition {
            Some(partition) => Ok(partition.to_owned()),
            None => normalise::partition(said).ok_or_else(|| RecordError::BadName("partition", said.to_owned())),
        }
    }

    /// The source's own time, not later than receipt; receipt where it gives none.
    fn event_time(&self, said: Option<i64>) -> Time {
        Time(said.unwrap_or(self.at_us).min(self.at_us))
    }
}

fn bounded_id(what: &'static str, text: &str) -> Result<Option<String>, RecordError> {
    if text.len() > MAX_ID {
        return Err(RecordError::TooLong(what, text.len()));
    }
    Ok(normalise::id(text))
}

/// The record of a device update of a sync or a mapper.
///
/// # Errors
/// [`RecordError`] where nothing names the device, or a part is too long or none.
pub fn device_update(update: &DeviceUpdate, at: &Received<'_>, instances: &Instances) -> Result<Record, RecordError> {
    let partition = at.partition(&update.partition)?;
    let meta = |key: &str| update.metadata.get(key).map(String::as_str).unwrap_or_default();
    let raw_instance = instance_name(update);
    let instance = normalise::instance(raw_instance)
        .ok_or_else(|| RecordError::BadName("source instance", raw_instance.to_owned()))?;
    let armis = bounded_id("armis_device_id", meta("armis_device_id"))?;
    let netbox = bounded_id("netbox_device_id", meta("netbox_device_id"))?;
    let integration = bounded_id("integration_id", meta("integration_id"))?;
    let mut ips = normalise::ips(&update.ip);
    let too_many = ips.len().saturating_sub(MAX_IPS);
    ips.truncate(MAX_IPS);
    let (macs, bad_macs) = update.mac.as_deref().map(normalise::macs).unwrap_or_default();
    let hostname = update.hostname.as_deref().and_then(normalise::hostname);

    let kind = source_kind(&update.source);
    let integration_kind = integration_kind(update);
    if kind == SourceKind::Integration && (integration_kind.contains(['.', ':', '/']) || integration_kind.is_empty()) {
        return Err(RecordError::BadName("integration type", integration_kind));
    }
    let qualified = format!("{integration_kind}.{instance}");
    // Items of two types may bear one id.
    let speaker = if kind == SourceKind::Integration { qualified.clone() } else { instance.clone() };
    let key = match kind {
        SourceKind::Armis => armis.clone().ok_or(RecordError::NoKey("armis", "armis_device_id"))?,
        SourceKind::NetBox => netbox.clone().ok_or(RecordError::NoKey("netbox", "netbox_device_id"))?,
        SourceKind::Mapper | SourceKind::Sweep => {
            ips.first().map(ToString::to_string).ok_or(RecordError::NoKey("polled", "a usable address"))?
        }
        _ => integration
            .clone()
            .or_else(|| bounded_id("serial", meta("serial")).ok().flatten().map(|s| format!("{integration_kind}:{s}")))
            .or_else(|| macs.first().map(|m| format!("{integration_kind}:{}", m.hex)))
            .or_else(|| hostname.as_ref().map(|h| format!("{integration_kind}:{h}")))
            .or_else(|| ips.first().map(|ip| format!("{integration_kind}:{ip}")))
            .ok_or(RecordError::NoKey("integration", "integration_id, serial, MAC, host name or address"))?,
    };

    let mut ids = Vec::new();
    let mut own = |kind: IdKind, instance: &str, value: String| {
        let namespace = instances.namespace(at.tenant, kind, instance);
        ids.push(Identifier { kind, namespace, value });
    };
    match kind {
        SourceKind::Armis => own(IdKind::Armis, &instance, key.clone()),
        SourceKind::NetBox => own(IdKind::NetBox, &instance, key.clone()),
        SourceKind::Integration => {
            if let Some(value) = integration {
                own(IdKind::Integration, &qualified, value);
            }
        }
        _ => {}
    }
    // Identifiers of other sources: each with its instance, or the only one there is, or not at all.
    if matches!(kind, SourceKind::Armis | SourceKind::NetBox | SourceKind::Integration) {
        let mut carried = |kind: IdKind, named: &str, value: Option<String>| {
            let Some(value) = value else { return };
            let instance = normalise::id(named).or_else(|| instances.only(at.tenant, kind).map(str::to_owned));
            if let Some(instance) = instance {
                let namespace = instances.namespace(at.tenant, kind, &instance);
                ids.push(Identifier { kind, namespace, value });
            }
        };
        if kind != SourceKind::Armis {
            carried(IdKind::Armis, meta("armis_instance"), armis);
        }
        if kind != SourceKind::NetBox {
            carried(IdKind::NetBox, meta("netbox_instance"), netbox);
        }
        if let Some(value) = bounded_id("agent_id", meta("agent_id"))?.as_deref().and_then(normalise::agent_id) {
            ids.push(Identifier { kind: IdKind::Agent, namespace: String::new(), value });
        }
    }

    let (asserted, shown) = split_macs(kind, &macs, meta("identity_mac_kind"));
    let mut attributes = BTreeMap::new();
    for (field, names) in [
        ("name", &["name", "device_name"][..]),
        ("type", &["device_type", "type", "category"]),
        ("vendor_name", &["vendor", "vendor_name", "manufacturer"]),
        ("model", &["model"]),
        ("os", &["os", "operating_system"]),
    ] {
        if let Some(value) = names.iter().map(|n| meta(n).trim()).find(|v| !v.is_empty()) {
            attributes.insert(field.to_owned(), cut(value));
        }
    }
    if !update.gateway_id.trim().is_empty() {
        attributes.insert("gateway_id".to_owned(), cut(update.gateway_id.trim()));
    }
    let mut metadata: BTreeMap<String, String> = update
        .metadata
        .iter()
        .filter(|(k, _)| !k.starts_with('_'))
        .take(MAX_METADATA)
        .map(|(k, v)| (cut(k), cut(v)))
        .collect();
    metadata.remove("_deleted");
    let deleted = matches!(meta("_deleted"), "true" | "1" | "True");
    Ok(Record {
        key: RecordKey {
            tenant: at.tenant.to_owned(),
            kind,
            instance: speaker,
            partition: matches!(kind, SourceKind::Mapper | SourceKind::Sweep).then(|| partition.clone()),
            key,
        },
        partition,
        event_time: at.event_time(instant_us(&update.timestamp)),
        deleted,
        ids,
        macs: asserted,
        macs_shown: shown,
        ips,
        hostname,
        attributes,
        metadata,
        dropped: bad_macs
            .into_iter()
            .map(|r| r.name().to_owned())
            .take(MAX_METADATA)
            .chain((too_many > 0).then(|| format!("{too_many} addresses beyond {MAX_IPS}")))
            .collect(),
    })
}

/// An interface that SNMP discovery found on a device.
#[derive(Clone, Debug)]
pub struct Interface {
    /// The record of the polled device.
    pub device: RecordKey,
    /// Site.
    pub partition: String,
    /// When it was polled.
    pub at: Time,
    /// Addresses of the interface.
    pub ips: Vec<IpAddr>,
    /// Its MAC: the device shows it.
    pub mac: Option<u64>,
}

/// Reads a row of a poll's interfaces.
///
/// # Errors
/// [`RecordError`] where nothing names the polled device, or a part is too long or none.
pub fn interface(row: &InterfaceRow, at: &Received<'_>) -> Result<Interface, RecordError> {
    let partition = at.partition(&row.partition)?;
    let polled = normalise::ip(&row.device_ip).ok_or(RecordError::NoKey("polled", "a usable device_ip"))?;
    Ok(Interface {
        device: RecordKey {
            tenant: at.tenant.to_owned(),
            kind: SourceKind::Mapper,
            instance: DEFAULT_INSTANCE.to_owned(),
            partition: Some(partition.clone()),
            key: polled.to_string(),
        },
        partition,
        at: at.event_time(instant_us(&row.timestamp)),
        // The address it is polled at needs no alias.
        ips: row.ip_addresses.iter().filter_map(|ip| normalise::ip(ip)).filter(|ip| *ip != polled).collect(),
        mac: normalise::mac(&row.if_phys_address).ok().and_then(|mac| u64::from_str_radix(&mac.hex, 16).ok()),
    })
}

/// An interface as it is shown; its device is left out.
pub fn interface_row(row: &InterfaceRow, of: &Interface, agent_id: &str) -> rows::Interface {
    let some = |text: &str| Some(cut(text.trim())).filter(|text| !text.is_empty());
    let metrics = row.available_metrics.as_ref().map(|metrics| metrics.get());
    rows::Interface {
        tenant_id: of.device.tenant.clone(),
        partition: of.partition.clone(),
        device_ip: of.device.key.clone(),
        if_index: row.if_index,
        interface_uid: format!("ifindex:{}", row.if_index),
        agent_id: agent_id.to_owned(),
        if_name: some(&row.if_name),
        if_descr: some(&row.if_descr),
        if_alias: some(&row.if_alias),
        if_speed_bps: i64::try_from(row.if_speed).ok().filter(|bps| *bps > 0),
        if_type: row.if_type,
        if_mac: of.mac.map(|mac| format!("{mac:012X}")),
        ip_addresses: row
            .ip_addresses
            .iter()
            .filter_map(|ip| normalise::ip(ip))
            .take(MAX_IPS)
            .map(|ip| ip.to_string())
            .collect(),
        if_admin_status: row.if_admin_status,
        if_oper_status: row.if_oper_status,
        available_metrics: metrics.filter(|json| json.len() <= MAX_VALUE && *json != "null").map(str::to_owned),
        metadata: Tags(row.metadata.iter().take(MAX_SHOWN).map(|(k, v)| (cut_at(k, MAX_ID), cut(v))).collect()),
        first_seen: of.at,
        last_seen: of.at,
        device_uid: None,
        epoch: 0,
    }
}

/// A neighbour that a polled device reports.
pub struct Neighbor {
    /// Site.
    pub partition: String,
    /// Where the device is polled.
    pub polled: IpAddr,
    /// When.
    pub at: Time,
    /// What is said of it; its times and devices are left out.
    pub link: TopologyLink,
}

/// A neighbour, as a row of a topology payload tells it.
///
/// # Errors
/// [`RecordError`] where nothing names the polled device, or a part is too long or none.
pub fn neighbor(row: &NeighborRow, at: &Received<'_>) -> Result<Neighbor, RecordError> {
    let partition = at.partition(&row.partition)?;
    let polled = normalise::ip(&row.local_device_ip).ok_or(RecordError::NoKey("polled", "a usable local_device_ip"))?;
    let some = |text: &str| Some(cut(text.trim())).filter(|text| !text.is_empty());
    // What tells neighbours apart is a key, which databases bound.
    let key = |text: &str| cut_at(text.trim(), MAX_ID);
    let (chassis, name) = (some(&row.neighbor_chassis_id), some(&row.neighbor_system_name));
    let ip = normalise::ip(&row.neighbor_mgmt_addr);
    // Some call themselves by a name or an address alone.
    let called = chassis.clone().or(name.clone()).or(ip.map(|ip| ip.to_string())).map(|called| key(&called));
    let called = called.ok_or(RecordError::NoKey("neighbour", "a chassis id, a name or an address"))?;
    let link = TopologyLink {
        tenant_id: at.tenant.to_owned(),
        partition: partition.clone(),
        local_ip: polled.to_string(),
        local_if_index: row.local_if_index,
        local_if_name: some(&row.local_if_name),
        protocol: key(&row.protocol).to_lowercase(),
        neighbor_chassis_id: called,
        neighbor_port_id: key(&row.neighbor_port_id),
        neighbor_port_descr: some(&row.neighbor_port_descr),
        neighbor_system_name: name,
        neighbor_mac: chassis.and_then(|id| normalise::mac(&id).ok()).map(|mac| mac.hex),
        neighbor_ip: ip.map(|ip| ip.to_string()),
        first_seen: Time(0),
        last_seen: Time(0),
        device_uid: None,
        neighbor_device_uid: None,
        epoch: 0,
    };
    Ok(Neighbor { partition, polled, at: at.event_time(instant_us(&row.timestamp)), link })
}

/// Which MACs a source asserts as identity, and which it only shows.
fn split_macs(kind: SourceKind, macs: &[Mac], identity_kind: &str) -> (Vec<String>, Vec<String>) {
    let hex = |m: &Mac| m.hex.clone();
    match kind {
        SourceKind::Armis => {
            let asserted = macs.iter().find(|m| !m.local).or_else(|| macs.first());
            let shown = macs.iter().filter(|m| Some(*m) != asserted).take(MAX_SHOWN).map(hex).collect();
            (asserted.map(hex).into_iter().collect(), shown)
        }
        SourceKind::NetBox => (Vec::new(), macs.iter().take(MAX_SHOWN).map(hex).collect()),
        SourceKind::Mapper if !matches!(identity_kind, "primary" | "management" | "chassis") => {
            (Vec::new(), macs.iter().take(MAX_SHOWN).map(hex).collect())
        }
        _ => (macs.iter().take(MAX_SHOWN).map(hex).collect(), Vec::new()),
    }
}

fn cut(text: &str) -> String {
    cut_at(text, MAX_VALUE)
}

fn cut_at(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "\u{fffd}")
}

/// The record of a swept or checked address that answered.
///
/// # Errors
/// [`RecordError`] where the address or the partition is none.
pub fn sweep(ip: &str, at: &Received<'_>, said_partition: &str, seen_us: Option<i64>) -> Result<Record, RecordError> {
    let partition = at.partition(said_partition)?;
    let address = normalise::ip(ip).ok_or(RecordError::NoKey("swept", "a usable address"))?;
    Ok(Record {
        key: RecordKey {
            tenant: at.tenant.to_owned(),
            kind: SourceKind::Sweep,
            instance: String::new(),
            partition: Some(partition.clone()),
            key: address.to_string(),
        },
        partition,
        event_time: at.event_time(seen_us),
        deleted: false,
        ids: Vec::new(),
        macs: Vec::new(),
        macs_shown: Vec::new(),
        ips: vec![address],
        hostname: None,
        attributes: BTreeMap::new(),
        metadata: BTreeMap::new(),
        dropped: Vec::new(),
    })
}

/// That an item is gone, as of that moment.
pub fn gone(key: &RecordKey, partition: &str, at_us: i64) -> Record {
    Record {
        key: key.clone(),
        partition: partition.to_owned(),
        event_time: Time(at_us),
        deleted: true,
        ids: vec![],
        macs: vec![],
        macs_shown: vec![],
        ips: vec![],
        hostname: None,
        attributes: BTreeMap::new(),
        metadata: BTreeMap::new(),
        dropped: vec![],
    }
}

/// The record of an agent's check-in about itself.
///
/// # Errors
/// [`RecordError`] where nothing names the agent, or a part is too long.
pub fn agent(push: &AgentPush, at: &Received<'_>) -> Result<Record, RecordError> {
    if push.agent_id.len() > MAX_ID {
        return Err(RecordError::TooLong("agent_id", push.agent_id.len()));
    }
    let partition = at.partition("")?;
    let id = normalise::agent_id(&push.agent_id).ok_or(RecordError::NoKey("agent", "agent_id"))?;
    let mut attributes = BTreeMap::from([("agent_id".to_owned(), id.clone())]);
    for (field, value) in [("os", &push.os), ("gateway_id", &push.gateway_id)] {
        if !value.trim().is_empty() {
            attributes.insert(field.to_owned(), cut(value.trim()));
        }
    }
    Ok(Record {
        key: RecordKey {
            tenant: at.tenant.to_owned(),
            kind: SourceKind::Agent,
            instance: String::new(),
            partition: None,
            key: id.clone(),
        },
        partition,
        event_time: at.event_time((push.timestamp_us > 0).then_some(push.timestamp_us)),
        deleted: false,
        ids: vec![Identifier { kind: IdKind::Agent, namespace: String::new(), value: id }],
        macs: Vec::new(),
        macs_shown: Vec::new(),
        ips: normalise::ips(&push.source_ip).into_iter().take(MAX_IPS).collect(),
        hostname: normalise::hostname(&push.hostname),
        attributes,
        metadata: BTreeMap::new(),
        dropped: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Received<'static> = Received { tenant: "t", partition: None, at_us: 2_000_000_000_000_000 };

    fn update(json: &str) -> Result<Record, RecordError> {
        device_update(&serde_json::from_str(json).unwrap(), &AT, &Instances::default())
    }

    #[test]
    fn the_runner_of_an_armis_sync_is_no_identifier() {
        let record = update(
            r#"{"agent_id":"runner","source":"armis","ip":"10.0.0.1","mac":"0E:EA:14:32:D2:78,0C:EA:14:32:D2:78",
                "timestamp":1700000000,"metadata":{"armis_device_id":"7"},"sync_meta":{"sync_service_id":"a1"}}"#,
        )
        .unwrap();
        assert_eq!(record.ids.len(), 1);
        assert_eq!(
            (record.macs, record.macs_shown),
            (vec!["0CEA1432D278".to_owned()], vec!["0EEA1432D278".to_owned()])
        );
        assert_eq!(record.partition, "default");
    }

    #[test]
    fn a_mapper_names_its_scanner_not_its_target() {
        let record =
            update(r#"{"agent_id":"agent-dusk","source":"mapper","ip":"192.168.10.1","mac":"0EEA1432D278"}"#).unwrap();
        assert!(record.ids.is_empty() && record.macs.is_empty());
        assert_eq!(record.key.key, "192.168.10.1");
    }

    #[test]
    fn an_event_time_after_receipt_is_clamped() {
        let record =
            update(r#"{"source":"armis","timestamp":"2999-01-01T00:00:00Z","metadata":{"armis_device_id":"7"}}"#)
                .unwrap();
        assert_eq!(record.event_time, Time(AT.at_us));
    }

    #[test]
    fn a_record_has_bounds() {
        let ips: Vec<String> = (0..70_000).map(|n| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255)).collect();
        let macs: Vec<String> = (0..10_000).map(|n| format!("0C{n:010X}")).collect();
        let (ips, macs) = (ips.join(","), macs.join(","));
        let record = update(&format!(
            r#"{{"source":"armis","ip":"{ips}","mac":"{macs}","metadata":{{"armis_device_id":"7"}}}}"#
        ))
        .unwrap();
        assert_eq!((record.ips.len(), record.macs.len(), record.macs_shown.len()), (MAX_IPS, 1, MAX_SHOWN));
        assert_eq!(record.dropped, ["68976 addresses beyond 1024"]);
    }

    #[test]
    fn what_cannot_be_known_is_refused_alone() {
        assert_eq!(update(r#"{"source":"armis"}"#), Err(RecordError::NoKey("armis", "armis_device_id")));
        let long = format!(r#"{{"source":"armis","metadata":{{"armis_device_id":"{}"}}}}"#, "x".repeat(1 << 20));
        assert!(matches!(update(&long), Err(RecordError::TooLong(..))));
    }
}
