//! The JSON payloads that agents push, and the JSON that travels between our own parts. Go writes nil slices as `null`
//! and leaves out what is empty; every field therefore defaults.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::fact::Receiver;
use crate::record::SourceKind;

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

/// Text that sources write as a string, a number or nothing at all.
fn text_or_number<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(match Option::<serde_json::Value>::deserialize(d)? {
        Some(serde_json::Value::String(s)) => Some(s),
        Some(serde_json::Value::Number(n)) => Some(n.to_string()),
        _ => None,
    })
}

fn strings<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = Option::<BTreeMap<String, serde_json::Value>>::deserialize(d)?.unwrap_or_default();
    Ok(map
        .into_iter()
        .filter_map(|(key, value)| match value {
            serde_json::Value::Null => None,
            serde_json::Value::String(s) => Some((key, s)),
            other => Some((key, other.to_string())),
        })
        .collect())
}

/// One item of a `results/sync` payload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceUpdate {
    /// The sync runner: never an identifier.
    #[serde(deserialize_with = "or_default")]
    pub agent_id: String,
    /// The gateway it came through.
    #[serde(deserialize_with = "or_default")]
    pub gateway_id: String,
    /// Site; empty is `default`. Counts only where the connection does not decide.
    #[serde(deserialize_with = "or_default")]
    pub partition: String,
    /// `<partition>:<ip>`.
    #[serde(deserialize_with = "or_default")]
    pub device_id: String,
    /// Its address, or a list of them.
    #[serde(deserialize_with = "or_default")]
    pub ip: String,
    /// Kind of source: `armis`, `netbox`, `mapper`, …
    #[serde(deserialize_with = "or_default")]
    pub source: String,
    /// RFC 3339 text or a number of s, ms, µs, ns by magnitude.
    pub timestamp: serde_json::Value,
    /// MAC, or a list of them.
    #[serde(deserialize_with = "text_or_number")]
    pub mac: Option<String>,
    /// Host name.
    #[serde(deserialize_with = "text_or_number")]
    pub hostname: Option<String>,
    /// Never read: availability comes from probes alone.
    pub is_available: Option<bool>,
    /// Everything else.
    #[serde(deserialize_with = "strings")]
    pub metadata: BTreeMap<String, String>,
    /// Which run of which sync.
    #[serde(deserialize_with = "or_default")]
    pub sync_meta: SyncMeta,
}

/// Which run of which sync an update belongs to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SyncMeta {
    /// The source instance.
    #[serde(deserialize_with = "or_default")]
    pub sync_service_id: String,
    /// The run.
    #[serde(deserialize_with = "or_default")]
    pub sync_run_id: String,
}

/// One interface of a `results/mapper_interfaces` payload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceRow {
    /// Where the device was polled.
    #[serde(deserialize_with = "or_default")]
    pub device_ip: String,
    /// Site. Counts only where the connection does not decide.
    #[serde(deserialize_with = "or_default")]
    pub partition: String,
    /// The poll; where there is none, its time names it.
    #[serde(deserialize_with = "or_default")]
    pub run_id: String,
    /// When it was polled.
    pub timestamp: serde_json::Value,
    /// Its MAC.
    #[serde(deserialize_with = "or_default")]
    pub if_phys_address: String,
    /// Addresses of the interface.
    #[serde(deserialize_with = "or_default")]
    pub ip_addresses: Vec<String>,
    /// Its number; 0 where nothing is said.
    #[serde(deserialize_with = "or_default")]
    pub if_index: i64,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub if_name: String,
    /// What it is.
    #[serde(deserialize_with = "or_default")]
    pub if_descr: String,
    /// What people call it.
    #[serde(deserialize_with = "or_default")]
    pub if_alias: String,
    /// Bits per second.
    #[serde(alias = "speed_bps", deserialize_with = "or_default")]
    pub if_speed: u64,
    /// Kind of interface, by IANA's number.
    pub if_type: Option<i64>,
    /// What it is meant to be.
    pub if_admin_status: Option<i64>,
    /// What it is.
    pub if_oper_status: Option<i64>,
    /// What can be measured of it.
    pub available_metrics: Option<Box<serde_json::value::RawValue>>,
    /// Everything else.
    #[serde(deserialize_with = "strings")]
    pub metadata: BTreeMap<String, String>,
}

/// One neighbour of a `results/mapper_topology` payload, as LLDP, CDP and their like tell it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NeighborRow {
    /// Where the device was polled.
    #[serde(alias = "device_ip", deserialize_with = "or_default")]
    pub local_device_ip: String,
    /// Site. Counts only where the connection does not decide.
    #[serde(deserialize_with = "or_default")]
    pub partition: String,
    /// The poll; where there is none, its time names it.
    #[serde(deserialize_with = "or_default")]
    pub run_id: String,
    /// When it was polled.
    pub timestamp: serde_json::Value,
    /// The interface that the neighbour is behind.
    #[serde(alias = "local_ifindex", deserialize_with = "or_default")]
    pub local_if_index: i64,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub local_if_name: String,
    /// Who told: `lldp`, `cdp`, …
    #[serde(alias = "protocol_type", deserialize_with = "or_default")]
    pub protocol: String,
    /// What the neighbour calls itself: often a MAC.
    #[serde(deserialize_with = "or_default")]
    pub neighbor_chassis_id: String,
    /// What it calls its port.
    #[serde(deserialize_with = "or_default")]
    pub neighbor_port_id: String,
    /// What its port is.
    #[serde(alias = "neighbor_port_description", deserialize_with = "or_default")]
    pub neighbor_port_descr: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub neighbor_system_name: String,
    /// Where it is managed.
    #[serde(
        alias = "neighbor_management_addr",
        alias = "neighbor_management_address",
        deserialize_with = "or_default"
    )]
    pub neighbor_mgmt_addr: String,
}

/// A `results/sweep` payload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sweep {
    /// The hosts looked at.
    #[serde(deserialize_with = "or_default")]
    pub hosts: Vec<SweepHost>,
    /// Seconds since 1970.
    pub last_sweep: serde_json::Value,
    /// Which execution.
    #[serde(deserialize_with = "or_default")]
    pub execution_id: String,
    /// The group that was swept, as the configuration named it.
    #[serde(deserialize_with = "or_default")]
    pub sweep_group_id: String,
}

/// One host of a sweep.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SweepHost {
    /// Its address.
    #[serde(deserialize_with = "or_default")]
    pub host: String,
    /// Whether anything answered.
    #[serde(deserialize_with = "or_default")]
    pub available: bool,
    /// When it was looked at.
    pub last_seen: serde_json::Value,
    /// Nanoseconds.
    #[serde(deserialize_with = "or_default")]
    pub response_time: i64,
}

/// A `results/icmp` payload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IcmpResults {
    /// One a check.
    #[serde(deserialize_with = "or_default")]
    pub results: Vec<IcmpResult>,
}

/// One ICMP check.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IcmpResult {
    /// The check.
    #[serde(deserialize_with = "or_default")]
    pub check_id: String,
    /// Its target.
    #[serde(deserialize_with = "or_default")]
    pub target: String,
    /// Whether it answered.
    #[serde(deserialize_with = "or_default")]
    pub available: bool,
    /// Nanoseconds since 1970.
    pub timestamp: serde_json::Value,
    /// What went wrong.
    #[serde(deserialize_with = "or_default")]
    pub error: String,
}

/// A `results/probes` payload: what our own agent found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeResults {
    /// One a look.
    #[serde(deserialize_with = "at_most")]
    pub results: Vec<ProbeFound>,
    /// Results that the agent had no room for since it told last.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Results of probes in one message.
pub const MAX_PROBES: usize = 5000;

/// So many results and no more: each takes many times its bytes.
fn at_most<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<ProbeFound>, D::Error> {
    struct Results;
    impl<'de> serde::de::Visitor<'de> for Results {
        type Value = Vec<ProbeFound>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MAX_PROBES} results")
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
            let mut found = Vec::new();
            while let Some(one) = all.next_element()? {
                if found.len() == MAX_PROBES {
                    return Err(serde::de::Error::invalid_length(MAX_PROBES + 1, &self));
                }
                found.push(one);
            }
            Ok(found)
        }
    }
    from.deserialize_seq(Results)
}

/// What one look found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeFound {
    /// The job, as the configuration named it.
    pub job: String,
    /// The profile it was for.
    pub profile: String,
    /// What was done: `ping`, `tcp`, `http`, `dns`, `tls`.
    pub kind: String,
    /// What was looked at, as the configuration said.
    pub target: String,
    /// The address that was looked at; none where the name has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<std::net::IpAddr>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether it is as it should be; none where the agent could not look.
    pub ok: Option<bool>,
    /// When the look ended, microseconds since 1970.
    pub at_us: i64,
    /// Until the answer, microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Echoes or attempts.
    pub sent: u32,
    /// Those that nobody answered.
    pub lost: u32,
    /// The status code of `http`, the response code of `dns`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Days until the certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_days: Option<i64>,
    /// What was wrong, or why the agent could not look.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// What our own agent is told to do, as JSON in its configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentJob {
    /// Names it in results.
    pub job: String,
    /// The profile.
    pub profile: String,
    /// What is done: `ping`, `tcp`, `http`, `dns`, `tls`.
    pub kind: String,
    /// When it is done.
    #[serde(flatten)]
    pub timetable: Timetable,
    /// A look ends without an answer after so long, milliseconds.
    pub timeout_ms: u64,
    /// How often is asked before nobody answers.
    pub count: u32,
    /// Ports, each a look of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// What `http` asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpLook>,
    /// What `dns` asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsLook>,
    /// What is looked at.
    pub targets: Vec<String>,
}

/// When something is done, again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Timetable {
    /// Seconds from one time to the next.
    pub interval_s: u64,
    /// A cron expression, in place of the interval.
    pub cron: Option<String>,
    /// The time zone of the expression; empty is UTC.
    pub time_zone: String,
    /// Periods in which it is not done, as time intervals write them.
    pub pauses: Vec<String>,
}

/// What our own agent is told by the command `radarflow.run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunJob {
    /// The job, as its configuration names it.
    pub job: String,
    /// Of its targets these; all where none is named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
}

/// What the gateway says of an agent's control stream, or the agent by it. Agents cannot write it themselves: what they push has no
/// place for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlWord {
    /// A stream was opened.
    Opened {
        /// Names the life of the agent: what it was told in another is told no result of.
        life: String,
    },
    /// It ended, and with it the life.
    Cut {
        /// The life.
        life: String,
    },
    /// A stream asks for a command that waits.
    Claimed {
        /// The command.
        command_id: String,
        /// The stream.
        stream: String,
        /// The life of its agent.
        life: String,
    },
    /// The agent speaks of a command.
    Said(CommandSaid),
}

/// What an agent says of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandSaid {
    /// The command.
    pub command_id: String,
    /// What is said of it.
    pub what: Said,
    /// In words.
    pub message: String,
    /// Of progress: percent.
    pub percent: i32,
    /// Of a result: what came of it.
    pub payload: Option<String>,
}

/// What is said of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// It was received.
    #[default]
    Acknowledged,
    /// It is under way.
    Progress,
    /// It is done.
    Done,
    /// It is not done.
    Failed,
}

/// What a look by HTTP asks and expects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpLook {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The path.
    pub path: String,
    /// Status codes that are right, each from one to another.
    pub expected: Vec<(u16, u16)>,
    /// What must be found in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_pattern: Option<String>,
    /// Redirects that are followed.
    pub redirects: u32,
}

/// What a look by DNS asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsLook {
    /// The name.
    pub name: String,
    /// The type of record.
    pub record_type: String,
}

/// Who pushed a status, and when: the head of a [`crate::frame::Kind::Status`] entry. The entry is this head as one
/// line of JSON, a line feed, then the status message's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentPush {
    /// The agent.
    pub agent_id: String,
    /// Its gateway.
    pub gateway_id: String,
    /// The agent's time, microseconds since 1970.
    pub timestamp_us: i64,
    /// Address the agent says it has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source_ip: String,
    /// Version it runs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Host name it reports.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Operating system.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub os: String,
    /// Architecture.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub arch: String,
    /// What it can do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// The status pushed; none for a hello.
    pub service: Option<ServiceHead>,
    /// What the gateway says of the agent's control stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Box<ControlWord>>,
}

impl AgentPush {
    /// With the message of its service, as the ledger keeps it: one line of JSON, a line feed, the message.
    pub fn with(&self, message: &[u8]) -> Vec<u8> {
        let mut out = serde_json::to_vec(self).unwrap_or_default();
        out.push(b'\n');
        out.extend_from_slice(message);
        out
    }
}

/// A service status less its message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceHead {
    /// Its name.
    pub name: String,
    /// Its type: `sync`, `sweep`, `icmp`, …
    pub kind: String,
    /// `results`, `status`, …
    pub source: String,
    /// As the agent says.
    pub available: bool,
}

/// The head of a staged chunk, or of the marker that ends a run: one line of JSON, a line feed, then for chunks an
/// encoded list of status entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedHead {
    /// The run.
    pub run: String,
    /// Chunk number from 0; on the marker of a listing: how many there were.
    pub chunk: u32,
    /// On the marker: whether the run is released, or discarded.
    pub release: bool,
    /// On the marker of a run of a source that lists its items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<Listing>,
}

/// A run of a source that lists its items, so that what is not listed is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Kind of source.
    pub kind: SourceKind,
    /// Its instance.
    pub instance: String,
    /// The run, as its items name it.
    pub run: String,
    /// Whether everything was listed. If not, nothing is withdrawn.
    pub complete: bool,
    /// Somebody has looked at what it lacks and said yes.
    #[serde(default)]
    pub approved: bool,
    /// Who brought it about, if not the program by its configuration: for the audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Brought>,
}

/// Who brought a run about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// A token's name.
    pub actor: String,
    /// The digest of the plan that they applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
}

/// What a feed received, shed or lost before the ledger, since it last said so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedCounters {
    /// Inputs given up because a queue was full.
    pub shed: u64,
    /// Inputs the kernel dropped.
    pub kernel_drops: u64,
}

/// A notification that should be sent until it is delivered or dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueNotification {
    /// Names the message: equal for every attempt, the idempotency key.
    pub id: String,
    /// Customer.
    pub tenant: String,
    /// Whom to tell.
    pub receiver: Receiver,
    /// The group it is about.
    pub group_key: String,
    /// Labels that make the group.
    pub group_labels: BTreeMap<String, String>,
    /// The alerts.
    pub alerts: Vec<NotifiedAlert>,
    /// Why now.
    pub reason: String,
    /// When it was made, milliseconds since 1970.
    pub at_ms: i64,
}

impl DueNotification {
    /// Whether anything in it still burns.
    pub fn firing(&self) -> bool {
        self.alerts.iter().any(|a| a.ends_at_ms.is_none())
    }
}

/// An alert as a notification tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NotifiedAlert {
    /// The alert.
    pub id: String,
    /// Names its condition.
    pub fingerprint: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Began, milliseconds since 1970.
    pub starts_at_ms: i64,
    /// Ended; none while it burns.
    pub ends_at_ms: Option<i64>,
}

/// Microseconds since 1970 from RFC 3339 text or from a number of s, ms, µs or ns by its magnitude.
pub fn instant_us(value: &serde_json::Value) -> Option<i64> {
    match value {
        serde_json::Value::Number(n) => n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).and_then(magnitude_us),
        serde_json::Value::String(s) => match s.parse::<i64>() {
            Ok(n) => magnitude_us(n),
            Err(_) => chrono::DateTime::parse_from_rfc3339(s).ok().map(|t| t.timestamp_micros()),
        },
        _ => None,
    }
    .filter(|us| *us > 0)
}

/// Microseconds since 1970 from a number of s, ms, µs or ns, told apart by magnitude.
pub fn magnitude_us(n: i64) -> Option<i64> {
    match n {
        ..=0 => None,
        1..100_000_000_000 => n.checked_mul(1_000_000),
        100_000_000_000..100_000_000_000_000 => n.checked_mul(1_000),
        100_000_000_000_000..100_000_000_000_000_000 => Some(n),
        _ => Some(n / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_nulls_and_numbers_are_understood() {
        let update: DeviceUpdate = serde_json::from_str(
            r#"{"ip":null,"source":"armis","timestamp":1700000000,"hostname":7,"metadata":{"armis_device_id":42,"x":null},"sync_meta":null}"#,
        )
        .unwrap();
        assert_eq!(update.ip, "");
        assert_eq!(update.hostname.as_deref(), Some("7"));
        assert_eq!(update.metadata.get("armis_device_id").map(String::as_str), Some("42"));
        assert!(!update.metadata.contains_key("x"));
    }

    #[test]
    fn instants_by_magnitude() {
        let us = 1_700_000_000_000_000;
        for text in
            ["1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "\"2023-11-14T22:13:20Z\""]
        {
            assert_eq!(instant_us(&serde_json::from_str(text).unwrap()), Some(us), "{text}");
        }
        assert_eq!(instant_us(&serde_json::Value::Null), None);
    }
}
