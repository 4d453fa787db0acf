//! What a field is where nothing is said. `deploy/radarflow.example.toml` shows them; a test compares the two.

use std::net::SocketAddr;

use radarflow_connectors::sources::pull::armis;
use radarflow_connectors::sources::subjects;
use radarflow_proto::fact::ReceiverKind;

/// The tenant and the partition of inputs.
pub(super) fn name() -> String {
    "default".to_owned()
}

pub(super) fn yes() -> bool {
    true
}

/// An address that only this host reaches.
pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(super) fn sockets() -> usize {
    1
}

pub(super) fn subjects() -> Vec<String> {
    subjects::DEFAULT.iter().map(|s| (*s).to_owned()).collect()
}

/// The durable name of a NATS consumer, the group of a Kafka consumer.
pub(super) fn consumer() -> String {
    "radarflow".to_owned()
}

pub(super) fn netbox_interval_s() -> u64 {
    300
}

pub(super) fn netbox_full_interval_s() -> u64 {
    86_400
}

pub(super) fn netbox_page() -> usize {
    250
}

pub(super) fn armis_interval_s() -> u64 {
    3600
}

pub(super) fn armis_page() -> usize {
    1000
}

pub(super) fn aql() -> Vec<String> {
    vec![armis::EVERYTHING.to_owned()]
}

pub(super) fn write_back_interval_s() -> u64 {
    60
}

/// The first pause after an inventory could not be read.
pub(super) fn pause_ms() -> u64 {
    1000
}

pub(super) fn receiver_kind() -> ReceiverKind {
    ReceiverKind::Alertmanager
}

pub(super) fn group_by() -> Vec<String> {
    vec!["alertname".to_owned()]
}

pub(super) fn group_wait_ms() -> i64 {
    30_000
}

pub(super) fn group_interval_ms() -> i64 {
    300_000
}

pub(super) fn repeat_interval_ms() -> i64 {
    4 * 3_600_000
}
