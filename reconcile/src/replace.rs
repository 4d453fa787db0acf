//! The inventory of a ServiceRadar that is replaced: its devices as updates of the sources that know them, and its names
//! for them, those of merged devices included.
//!
//! Its rows are read as JSON, so that a column it lacks is nothing, not a mistake.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::payload::DeviceUpdate;
use serde_json::{Value, json};

use crate::mapping::{Whose, belong};

/// The tables it is read from, in this order.
pub const TABLES: [&str; 4] = ["device_identifiers", "device_alias_states", "merge_audit", "ocsf_devices"];
/// Times a merge is followed: longer chains are circles.
const MAX_MERGES: usize = 64;

/// What it keeps.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Devices by the inventory that knows them.
    pub devices: BTreeMap<String, Vec<DeviceUpdate>>,
    /// Names: what the device had, in order of priority, and its site.
    pub names: BTreeMap<String, (String, Vec<String>)>,
}

fn text<'a>(row: &'a Value, column: &str) -> Option<&'a str> {
    row.get(column).and_then(Value::as_str).map(str::trim).filter(|t| !t.is_empty())
}

/// Identifiers as seeds, in order of priority.
fn seed(kind: &str, value: &str) -> Option<(usize, String)> {
    let kinds = [
        ("agent", ["agent_id", "agent"]),
        ("armis", ["armis_device_id", "armis"]),
        ("integration", ["integration_id", "integration"]),
        ("netbox", ["netbox_device_id", "netbox"]),
        ("mac", ["mac", "mac_address"]),
        ("ip", ["ip", "ip_address"]),
    ];
    let at = kinds.iter().position(|(_, names)| names.contains(&kind))?;
    Some((at, format!("{}:{value}", kinds[at].0)))
}

#[derive(Default)]
struct DeviceSeeds {
    partition: Option<String>,
    /// By priority.
    seeds: BTreeSet<(usize, String)>,
}

impl DeviceSeeds {
    fn note(&mut self, kind: &str, value: &str) {
        self.seeds.extend(seed(kind, value));
    }

    fn value(&self, kind: &str) -> Option<&str> {
        self.seeds.iter().find_map(|(_, seed)| seed.strip_prefix(kind)?.strip_prefix(':'))
    }
}

/// What was read so far.
#[derive(Default)]
pub struct Reading {
    known: BTreeMap<String, DeviceSeeds>,
    devices: Vec<(String, Value)>,
    /// Devices that were merged away, and into which.
    led: BTreeMap<String, String>,
}

impl Reading {
    /// Takes in a row of a table.
    pub fn row(&mut self, table: &str, row: &Value) {
        let known = &mut self.known;
        match table {
            "device_identifiers" => {
                if let (Some(device), Some(kind), Some(value)) =
                    (text(row, "device_id"), text(row, "identifier_type"), text(row, "identifier_value"))
                {
                    let of = known.entry(device.to_owned()).or_default();
                    of.note(kind, value);
                    of.partition = of.partition.take().or_else(|| text(row, "partition").map(str::to_owned));
                }
            }
            "device_alias_states" => {
                let confirmed = matches!(text(row, "state"), Some("confirmed" | "updated"));
                if let (Some(device), Some("ip"), Some(value), true) =
                    (text(row, "device_id"), text(row, "alias_type"), text(row, "alias_value"), confirmed)
                {
                    known.entry(device.to_owned()).or_default().note("ip", value);
                }
            }
            "merge_audit" => {
                if let (Some(from), Some(to)) = (text(row, "from_device_id"), text(row, "to_device_id")) {
                    self.led.insert(from.to_owned(), to.to_owned());
                }
            }
            _ => self.devices.extend(device(row, known)),
        }
    }

    /// What it all amounts to.
    pub fn finish(self) -> Inventory {
        let Reading { known, devices, led } = self;
        let mut inventory = Inventory::default();
        for (uid, row) in devices {
            let Some((name, update)) = known.get(&uid).and_then(|known| update(&row, known)) else { continue };
            inventory.devices.entry(name.to_owned()).or_default().push(update);
        }
        // A device that was merged away is the one it was merged into.
        let mut names: BTreeSet<&String> = known.keys().collect();
        names.extend(led.keys());
        for uid in names {
            let mut last = uid;
            for _ in 0..MAX_MERGES {
                match led.get(last) {
                    Some(next) => last = next,
                    None => break,
                }
            }
            let mut seeds = BTreeSet::new();
            let mut partition = None;
            for known in [last, uid].into_iter().filter_map(|uid| known.get(uid)) {
                seeds.extend(known.seeds.iter().cloned());
                partition = partition.or_else(|| known.partition.clone());
            }
            if !seeds.is_empty() {
                let seeds = seeds.into_iter().map(|(_, seed)| seed).collect();
                inventory.names.insert(uid.clone(), (partition.unwrap_or_default(), seeds));
            }
        }
        inventory
    }
}

/// A device's row, with what it says of its identifiers noted.
fn device(row: &Value, known: &mut BTreeMap<String, DeviceSeeds>) -> Option<(String, Value)> {
    let uid = text(row, "uid")?.to_owned();
    let of = known.entry(uid.clone()).or_default();
    let metadata = row.get("metadata").cloned().unwrap_or_default();
    for kind in ["armis_device_id", "netbox_device_id", "integration_id"] {
        if let Some(value) = metadata.get(kind).and_then(Value::as_str).map(str::trim).filter(|v| !v.is_empty()) {
            of.note(kind, value);
        }
    }
    for kind in ["mac", "ip"] {
        if let Some(value) = text(row, kind) {
            of.note(kind, value);
        }
    }
    // `agent_id` names who reported it, unless the device is the agent's own.
    if let Some(agent) = text(row, "agent_id").filter(|agent| is_agent(row, agent)) {
        of.note("agent_id", agent);
    }
    of.partition = of.partition.take().or_else(|| metadata.get("partition").and_then(Value::as_str).map(str::to_owned));
    (row.get("deleted_at").is_none_or(Value::is_null)).then(|| (uid, row.clone()))
}

fn is_agent(row: &Value, agent: &str) -> bool {
    let sources = row.get("discovery_sources").and_then(Value::as_array);
    let by_agent = sources.is_some_and(|s| s.iter().any(|s| s.as_str() == Some("agent")));
    by_agent || text(row, "hostname") == Some(agent)
}

/// A device as its source would say it, and which that is; `None` for what comes back by itself: agents check in, polled
/// and swept addresses are polled and swept.
fn update(row: &Value, known: &DeviceSeeds) -> Option<(&'static str, DeviceUpdate)> {
    let (name, key, id) = ["armis", "netbox"]
        .into_iter()
        .find_map(|name| Some((name, format!("{name}_device_id"), known.value(name)?.to_owned())))?;
    let mut metadata: BTreeMap<String, String> = BTreeMap::new();
    if let Some(said) = row.get("metadata").and_then(Value::as_object) {
        metadata.extend(said.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))));
    }
    // There it names who reported the device; here it would say that the device is that agent's.
    metadata.remove("agent_id");
    for (field, column) in [("name", "name"), ("type", "type"), ("vendor_name", "vendor_name"), ("model", "model")] {
        metadata.extend(text(row, column).map(|value| (field.to_owned(), value.to_owned())));
    }
    let os = row.get("os").and_then(|os| os.as_str().or_else(|| os.get("name")?.as_str()));
    metadata.extend(os.map(|os| ("os".to_owned(), os.to_owned())));
    if name == "armis" {
        metadata.extend(known.value("netbox").map(|id| ("netbox_device_id".to_owned(), id.to_owned())));
    }
    metadata.insert(key, id);
    let mut update = DeviceUpdate {
        partition: known.partition.clone().unwrap_or_default(),
        ip: text(row, "ip").unwrap_or_default().to_owned(),
        timestamp: row.get("last_seen_time").cloned().unwrap_or(json!(null)),
        mac: text(row, "mac").map(str::to_owned),
        hostname: text(row, "hostname").map(str::to_owned),
        metadata,
        ..DeviceUpdate::default()
    };
    belong(&mut update, &Whose::named(name));
    Some((name, update))
}
