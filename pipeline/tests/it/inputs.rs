//! Inputs as friends send them, from one generator of numbers; what strangers send is in [`crate::hostile`].

use std::net::SocketAddr;

use bytes::Bytes;
use radarflow_connectors::sinks::webhook::IN_FLIGHT;
use radarflow_proto::fact::{Actor, DeviceGroup, Fact, OwnCondition, Receiver, ReceiverKind, Role};
use radarflow_proto::frame::Kind;
use radarflow_proto::payload::{AgentPush, ServiceHead, StagedHead};
use radarflow_proto::record::IdKind;
use radarflow_proto::wire::put_sized;
use rand::RngExt;
use rand::rngs::StdRng;

/// One input.
#[derive(Clone, Debug)]
pub struct Input {
    pub kind: Kind,
    pub tenant: &'static str,
    pub peer: Option<SocketAddr>,
    pub body: Bytes,
}

pub const TENANTS: [&str; 2] = ["t", "u"];

/// What has to be known before anything else.
pub fn first() -> Vec<Input> {
    let instance = |tenant: &'static str, kind| {
        let fact = Fact::Instance { tenant: tenant.to_owned(), kind, instance: "main".to_owned(), legacy: true };
        fact_of(tenant, &fact)
    };
    let receivers = RECEIVERS.map(|(tenant, url)| fact_of(tenant, &receiver(tenant, url)));
    let instances =
        TENANTS.iter().flat_map(|tenant| [IdKind::Armis, IdKind::NetBox].map(|kind| instance(tenant, kind)));
    instances.chain(receivers).collect()
}

/// Who is told of alerts: tenant and address.
pub const RECEIVERS: [(&str, &str); 4] =
    [("t", "http://ops.t"), ("t", "http://pager.t"), ("t", "http://third.t"), ("u", WELL)];

/// The receiver that is always well: it must not notice the others.
pub const WELL: &str = "http://ops.u";

fn receiver(tenant: &str, url: &str) -> Fact {
    Fact::Receiver(Receiver {
        tenant: tenant.to_owned(),
        name: url.trim_start_matches("http://").to_owned(),
        url: url.to_owned(),
        kind: ReceiverKind::Alertmanager,
        group_by: vec!["alertname".to_owned()],
        group_wait_ms: 0,
        group_interval_ms: 500,
        repeat_interval_ms: 7_200_000,
        send_resolved: true,
        headers: Default::default(),
        credential: None,
        signing_key: None,
        template: None,
        of_host: true,
    })
}

/// Asks for a snapshot.
pub fn snapshot() -> Input {
    fact_of("t", &Fact::Snapshot)
}

/// A condition of the program itself, that begins or ends.
fn condition(rng: &mut StdRng, tenant: &'static str) -> Input {
    let rule = format!("rule-{}", rng.random_range(0..3));
    holds(tenant, rule, rng.random_range(0..2), rng.random_bool(0.6))
}

fn holds(tenant: &'static str, rule: String, entity: u32, holds: bool) -> Input {
    let condition = OwnCondition {
        tenant: tenant.to_owned(),
        rule,
        entity: format!("e{entity}"),
        severity: "critical".to_owned(),
        title: "something is wrong".to_owned(),
        description: String::new(),
        holds,
    };
    fact_of(tenant, &Fact::Condition(condition))
}

/// So many conditions of one tenant at once that messages to one of its receivers would take all places.
pub fn storm(begins: bool) -> Vec<Input> {
    (0..IN_FLIGHT + 4).map(|n| holds(TENANTS[0], format!("storm-{n}"), 0, begins)).collect()
}

/// A condition that only the receiver is told of that is always well.
pub fn calm(rng: &mut StdRng) -> Input {
    holds(TENANTS[1], format!("calm-{}", rng.random_range(0..1000)), 0, true)
}

fn fact_of(tenant: &'static str, fact: &Fact) -> Input {
    Input { kind: Kind::Fact, tenant, peer: None, body: serde_json::to_vec(fact).unwrap().into() }
}

/// Any input.
pub fn any(rng: &mut StdRng, now_ms: i64) -> Input {
    let tenant = TENANTS[usize::from(rng.random_bool(0.3))];
    match rng.random_range(0..11) {
        0..3 => syslog(rng, tenant),
        3..6 => netflow(rng, tenant),
        6 => group(rng, tenant),
        10 => condition(rng, tenant),
        7 => sweep(rng, tenant, now_ms),
        8 => pushed(tenant, "sync", &items(rng, now_ms)),
        _ => staged(rng, tenant, now_ms),
    }
}

/// Whether who sends it waits for an answer.
pub fn is_acknowledged(input: &Input) -> bool {
    !matches!(input.kind, Kind::Syslog | Kind::NetFlow)
}

/// The feed that an input of a kind comes by.
pub fn feed(kind: Kind) -> &'static str {
    match kind {
        Kind::Syslog => "syslog",
        Kind::NetFlow => "netflow",
        Kind::Fact => "people",
        _ => "agents",
    }
}

fn peer(rng: &mut StdRng) -> Option<SocketAddr> {
    Some(SocketAddr::from(([10, 0, 0, rng.random_range(1..5)], rng.random_range(2000..2003))))
}

fn syslog(rng: &mut StdRng, tenant: &'static str) -> Input {
    let text = format!(
        "<{}>1 2024-01-01T00:00:00Z h{} app - - - link {} down",
        rng.random_range(0..192),
        rng.random_range(0..3),
        rng.random_range(0..9)
    );
    let body = if rng.random_bool(0.05) { Bytes::from_static(b"\xff<") } else { text.into() };
    Input { kind: Kind::Syslog, tenant, peer: peer(rng), body }
}

/// A v9 message of template sets and data sets, in any order, of few templates: many wait for theirs, some are empty.
fn netflow(rng: &mut StdRng, tenant: &'static str) -> Input {
    let mut sets = Vec::new();
    for _ in 0..rng.random_range(1..6) {
        let id: u16 = rng.random_range(256..259);
        if rng.random_bool(0.3) {
            // Source and destination address, bytes, packets.
            let fields: [u16; 8] = [8, 4, 12, 4, 1, 4, 2, 4];
            sets.extend([0, 8 + 16, id, 4].iter().chain(&fields).flat_map(|n: &u16| n.to_be_bytes()));
        } else {
            let records = rng.random_range(0..4u16);
            sets.extend([id, 4 + 16 * records].iter().flat_map(|n| n.to_be_bytes()));
            for _ in 0..records {
                let addresses = [10, 0, 1, rng.random_range(0..9), 10, 0, 2, rng.random_range(0..9)];
                sets.extend(addresses);
                sets.extend(rng.random_range(1..1000u32).to_be_bytes());
                sets.extend(1u32.to_be_bytes());
            }
        }
    }
    let body = message(rng.random_range(0..1000), rng.random_range(0..2), &sets);
    Input { kind: Kind::NetFlow, tenant, peer: peer(rng), body }
}

/// A v9 message of a source.
pub fn message(sequence: u32, source: u32, sets: &[u8]) -> Bytes {
    let mut body = [9u16.to_be_bytes(), 1u16.to_be_bytes()].concat();
    body.extend([1000, 1_704_067_200, sequence, source].iter().flat_map(|word: &u32| word.to_be_bytes()));
    body.extend(sets);
    body.into()
}

fn group(rng: &mut StdRng, tenant: &'static str) -> Input {
    let name = format!("g{}", rng.random_range(0..3));
    let condition = Some(format!("hostname:h{}", rng.random_range(0..3)));
    let group = DeviceGroup {
        tenant: tenant.to_owned(),
        name,
        condition,
        members: Vec::new(),
        description: String::new(),
        actor: Actor { name: "sim".to_owned(), role: Role::Operator },
        reason: String::new(),
    };
    fact_of(tenant, &Fact::DeviceGroup(group))
}

fn pushed(tenant: &'static str, kind: &str, message: &str) -> Input {
    let service = ServiceHead { name: kind.into(), kind: kind.into(), source: "results".into(), available: true };
    let push = AgentPush { agent_id: "agent".to_owned(), service: Some(service), ..AgentPush::default() };
    let body = format!("{}\n{message}", serde_json::to_string(&push).unwrap());
    Input { kind: Kind::Status, tenant, peer: None, body: body.into() }
}

fn sweep(rng: &mut StdRng, tenant: &'static str, now_ms: i64) -> Input {
    let host = |rng: &mut StdRng| {
        let (ip, up, at) = (rng.random_range(0..6), rng.random_bool(0.6), now_ms / 1000 - rng.random_range(0..100));
        format!(r#"{{"host":"10.0.1.{ip}","available":{up},"last_seen":{at}}}"#)
    };
    let hosts: Vec<String> = (0..rng.random_range(1..4)).map(|_| host(rng)).collect();
    pushed(tenant, "sweep", &format!(r#"{{"hosts":[{}]}}"#, hosts.join(",")))
}

fn items(rng: &mut StdRng, now_ms: i64) -> String {
    let item = |rng: &mut StdRng| {
        let (source, key) =
            if rng.random_bool(0.5) { ("armis", "armis_device_id") } else { ("netbox", "netbox_device_id") };
        let (id, ip, mac) = (rng.random_range(0..6), rng.random_range(0..6), rng.random_range(0..6));
        let at = now_ms / 1000 - rng.random_range(0..1000);
        format!(
            r#"{{"source":"{source}","ip":"10.0.1.{ip}","mac":"02:00:5e:00:00:0{mac}","hostname":"h{ip}","timestamp":{at},"metadata":{{"{key}":"{id}"}}}}"#
        )
    };
    let items: Vec<String> = (0..rng.random_range(1..5)).map(|_| item(rng)).collect();
    format!("[{}]", items.join(","))
}

/// A chunk of a large upload, its release, or its end without one.
fn staged(rng: &mut StdRng, tenant: &'static str, now_ms: i64) -> Input {
    let run = format!("r{}", rng.random_range(0..3));
    let chunk = rng.random_bool(0.6);
    let release = !chunk && rng.random_bool(0.7);
    let head = StagedHead { run, chunk: rng.random_range(0..3), release, listing: None };
    let mut body: Vec<u8> = format!("{}\n", serde_json::to_string(&head).unwrap()).into();
    if chunk {
        put_sized(&mut body, &pushed(tenant, "sync", &items(rng, now_ms)).body);
    }
    Input { kind: if chunk { Kind::Staged } else { Kind::Release }, tenant, peer: None, body: body.into() }
}
