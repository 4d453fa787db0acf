//! Why records are one device, and why others are not: witnesses for what identity decided.
//!
//! Nothing is decided here. Given the records of a device, those elsewhere that share something with them, and how each
//! identifier stands, this says which rule joins what, by the record that says it. The answer is a graph: records and what
//! they assert are its nodes, assertions its edges; `links` are what joins records that assert nothing in common.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::fact::IpLink;
use radarflow_proto::record::{IdKind, Identifier, Record, SourceKind};
use radarflow_proto::rows::Link;
use serde::Serialize;

use super::assertions::{Assertions, is_global};
use super::name::seed;
use super::normalise::short_hostname;
use super::{ClaimClass, top};

/// A record and where identity put it.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The record.
    pub record: Record,
    /// The device it is of.
    pub uid: String,
    /// What put it there, as the audit spells it.
    pub how: &'static str,
}

/// A record, as explanations show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordNode {
    /// `kind/instance/key`.
    pub record: String,
    /// What put it into the device.
    pub how: &'static str,
    /// The source's own time, microseconds since 1970.
    pub event_time_us: i64,
    /// Host name.
    pub hostname: Option<String>,
    /// Strong identifiers, the one it belongs by first.
    pub identifiers: Vec<String>,
    /// MACs asserted.
    pub macs: Vec<String>,
    /// MACs that only corroborate; some of them.
    pub macs_shown: Vec<String>,
    /// Addresses claimed.
    pub addresses: Vec<String>,
}

/// That a record asserts something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edge {
    /// The record.
    pub record: String,
    /// What it asserts, as `type:value`.
    pub asserts: String,
    /// What the assertion may do: `strong_identifier`, `mac`, `address`.
    pub rule: &'static str,
    /// Whether it does.
    pub in_force: bool,
    /// Why not.
    pub why_not: Option<String>,
}

/// What joins records beyond what they assert alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Bond {
    /// `operator`, `cross_source`, `mac`, `ip_alias`; `overruled` for a cannot-link that must-links win over.
    pub rule: &'static str,
    /// What is joined: records, or identifiers where an operator says so.
    pub between: [String; 2],
    /// What they have in common, or who says so.
    pub witness: String,
}

/// An identifier that names no device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// As `type:value`.
    pub identifier: String,
    /// `ambiguous` or `contested`.
    pub state: String,
    /// Who asserts it: record and device.
    pub asserted_by: Vec<(String, String)>,
}

/// Why a device is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Its records.
    pub records: Vec<RecordNode>,
    /// What they assert.
    pub edges: Vec<Edge>,
    /// What else joins them.
    pub links: Vec<Bond>,
    /// What of it names nobody.
    pub dropped: Vec<Dropped>,
}

/// Something that speaks for two devices being one, or against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// The rule, as the definition names it.
    pub rule: &'static str,
    /// One sentence.
    pub says: String,
}

/// Why two devices are two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Apart {
    /// What keeps them apart, the strongest first.
    pub kept_apart_by: Vec<Reason>,
    /// What they have in common, the strongest first.
    pub evidence: Vec<Reason>,
}

/// Names a record.
pub fn label(record: &Record) -> String {
    let key = &record.key;
    let site = key.partition.as_deref().filter(|p| *p != "default").map(|p| format!("{p}/")).unwrap_or_default();
    format!("{}/{}/{site}{}", key.kind.name(), key.instance, key.key)
}

fn macs(record: &Record) -> BTreeSet<&str> {
    record.macs.iter().map(String::as_str).collect()
}

fn all_macs(record: &Record) -> BTreeSet<&str> {
    record.macs.iter().chain(&record.macs_shown).map(String::as_str).collect()
}

fn global(mac: &str) -> bool {
    u64::from_str_radix(mac, 16).is_ok_and(is_global)
}

fn host(record: &Record) -> Option<String> {
    record.hostname.as_deref().map(short_hostname).map(|h| h.to_string())
}

fn same_host(a: &Record, b: &Record) -> Option<String> {
    host(a).filter(|h| host(b).as_ref() == Some(h))
}

fn shared<'a>(a: &'a Record, b: &Record) -> impl Iterator<Item = String> + use<'a> {
    let theirs: BTreeSet<_> = b.ips.iter().copied().collect();
    a.ips.iter().filter(move |ip| theirs.contains(ip)).map(ToString::to_string)
}

fn node(placed: &Placed) -> RecordNode {
    let record = &placed.record;
    let own = top(record);
    let ids = own.into_iter().chain(record.ids.iter().filter(|id| Some(*id) != own));
    RecordNode {
        record: label(record),
        how: placed.how,
        event_time_us: record.event_time.0,
        hostname: record.hostname.clone(),
        identifiers: ids.map(seed).collect(),
        macs: record.macs.clone(),
        macs_shown: record.macs_shown.iter().take(32).cloned().collect(),
        addresses: record.ips.iter().map(ToString::to_string).collect(),
    }
}

/// What identity knows beside the records.
#[derive(Clone, Debug, Default)]
pub struct IdentityContext {
    /// How identifiers stand that do not name a device: by `type:value`, `ambiguous` or `contested`.
    pub loose: BTreeMap<String, String>,
    /// What operators say.
    pub links: Vec<Link>,
    /// Who owns addresses: the device.
    pub owners: BTreeMap<String, String>,
    /// How far an address alone links.
    pub policy: IpLink,
}

/// The identifiers that a device is known by: strong ones and MACs that its records assert, addresses that it owns.
fn known_by(records: &[&Placed], known: &IdentityContext) -> BTreeSet<String> {
    let of = |p: &&Placed| {
        let owned = p.record.ips.iter().map(ToString::to_string);
        let owned = owned.filter(|ip| known.owners.get(ip) == Some(&p.uid)).map(|ip| format!("ip:{ip}"));
        let asserted = p.record.ids.iter().map(seed).chain(p.record.macs.iter().map(|mac| format!("mac:{mac}")));
        asserted.chain(owned).collect::<Vec<_>>()
    };
    records.iter().flat_map(of).collect()
}

/// What operators say of identifiers that a device is known by.
fn said(names: &BTreeSet<String>, known: &IdentityContext) -> Vec<Bond> {
    let of_kind = |kind: &'static str| known.links.iter().filter(move |l| l.kind == kind);
    let mut linked: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for link in of_kind("must") {
        linked.entry(&link.a).or_default().push(&link.b);
        linked.entry(&link.b).or_default().push(&link.a);
    }
    let bond = |rule, link: &Link, said: &str| {
        let witness = format!("{} said {said}: {}", link.actor, link.reason);
        Bond { rule, between: [link.a.clone(), link.b.clone()], witness }
    };
    let ours = |link: &&Link| names.contains(&link.a) || names.contains(&link.b);
    let overruled = |link: &&Link| {
        let (mut reached, mut next) = (BTreeSet::from([&*link.a]), vec![&*link.a]);
        while let Some(end) = next.pop() {
            next.extend(linked.get(end).into_iter().flatten().copied().filter(|other| reached.insert(*other)));
        }
        reached.contains(&*link.b)
    };
    let must = of_kind("must").filter(ours).map(|link| bond("operator", link, "so"));
    let cannot = of_kind("cannot").filter(ours).filter(overruled);
    must.chain(cannot.map(|link| bond("overruled", link, "that they are two, but must-links connect them"))).collect()
}

fn strong_component(records: &[&Placed], known: &IdentityContext) -> Vec<usize> {
    // Joins records by identifiers in force, then by operators' links between those.
    let mut group: Vec<usize> = (0..records.len()).collect();
    let mut by_id: BTreeMap<String, usize> = BTreeMap::new();
    let join = |group: &mut Vec<usize>, a: usize, b: usize| {
        let (from, to) = (group[a].max(group[b]), group[a].min(group[b]));
        group.iter_mut().filter(|g| **g == from).for_each(|g| *g = to);
    };
    for (i, placed) in records.iter().enumerate() {
        for id in placed.record.ids.iter().map(seed).filter(|id| !known.loose.contains_key(id)) {
            match by_id.get(&id) {
                Some(first) => join(&mut group, *first, i),
                None => {
                    by_id.insert(id, i);
                }
            }
        }
    }
    for link in known.links.iter().filter(|l| l.kind == "must") {
        if let (Some(a), Some(b)) = (by_id.get(&link.a), by_id.get(&link.b)) {
            join(&mut group, *a, *b);
        }
    }
    group
}

/// What two records of different sources have in common that can link them.
fn cross(a: &Record, b: &Record, policy: IpLink) -> Option<String> {
    for ip in shared(a, b) {
        if let Some(host) = same_host(a, b) {
            return Some(format!("both claim {ip} and are called {host}"));
        }
        if let Some(mac) = all_macs(a).intersection(&all_macs(b)).next() {
            return Some(format!("both claim {ip} and know the MAC {mac}"));
        }
        if policy == IpLink::Immediate {
            return Some(format!("both claim {ip}, and the tenant's policy is that this suffices"));
        }
        if host(a).is_none() || host(b).is_none() {
            return Some(format!("both have claimed {ip} in three runs"));
        }
    }
    let mac = macs(a).intersection(&macs(b)).find(|m| global(m)).copied()?;
    same_host(a, b).map(|host| format!("both assert the MAC {mac} and are called {host}"))
}

/// In the order of their labels: nobody found them in any.
fn sorted(records: &[Placed]) -> Vec<&Placed> {
    let mut records: Vec<&Placed> = records.iter().collect();
    records.sort_by_cached_key(|p| label(&p.record));
    records
}

/// Explains a device: `own` are its records, `near` others that share something with them.
pub fn explain(own: &[Placed], near: &[Placed], known: &IdentityContext) -> Explanation {
    let own = sorted(own);
    let mut edges = BTreeSet::new();
    let mut bonds = BTreeSet::new();
    let mut loose: BTreeSet<String> = BTreeSet::new();
    for placed in &own {
        let record = &placed.record;
        let by_mac = record.macs.iter().map(|m| (IdKind::Mac, format!("mac:{m}")));
        for (kind, asserts) in record.ids.iter().map(|id| (id.kind, seed(id))).chain(by_mac) {
            let state = known.loose.get(&asserts);
            let local = kind == IdKind::Mac && !global(asserts.trim_start_matches("mac:"));
            let why_not = match state {
                Some(state) => Some(state.clone()),
                None if local => Some("locally administered: it corroborates, but identifies nobody".to_owned()),
                None => None,
            };
            loose.extend(state.map(|_| asserts.clone()));
            let rule = if kind == IdKind::Mac { "mac" } else { "strong_identifier" };
            edges.insert(Edge { record: label(record), asserts, rule, in_force: why_not.is_none(), why_not });
        }
        for ip in record.ips.iter().map(ToString::to_string) {
            let owner = known.owners.get(&ip);
            let owned = owner == Some(&placed.uid);
            let why_not = match owner {
                _ if owned => None,
                Some(owner) => Some(format!("{owner} owns it")),
                None => Some("nobody owns it: too many claim it".to_owned()),
            };
            let asserts = format!("ip:{ip}");
            edges.insert(Edge { record: label(record), asserts, rule: "address", in_force: owned, why_not });
        }
    }
    bonds.extend(said(&known_by(&own, known), known));
    let group = strong_component(&own, known);
    for (i, a) in own.iter().enumerate() {
        for (j, b) in own.iter().enumerate().skip(i + 1) {
            let between = [label(&a.record), label(&b.record)];
            let anchored = |p: &Placed| top(&p.record).is_some();
            match (anchored(a), anchored(b)) {
                (true, true) if group[i] != group[j] => {
                    let witness = cross(&a.record, &b.record, known.policy);
                    bonds.extend(witness.map(|witness| Bond { rule: "cross_source", between, witness }));
                }
                (true, true) => {}
                (one, other) => bonds.extend(weak(a, b, one || other, between)),
            }
        }
    }
    let dropped = loose.into_iter().map(|identifier| {
        let asserts = |p: &&Placed| {
            p.record.ids.iter().any(|id| seed(id) == identifier)
                || p.record.macs.iter().any(|m| format!("mac:{m}") == identifier)
        };
        let by: BTreeSet<(String, String)> =
            own.iter().copied().chain(near).filter(asserts).map(|p| (label(&p.record), p.uid.clone())).collect();
        let state = known.loose.get(&identifier).cloned().unwrap_or_default();
        Dropped { identifier, state, asserted_by: by.into_iter().collect() }
    });
    Explanation {
        records: own.iter().map(|p| node(p)).collect(),
        edges: edges.into_iter().collect(),
        links: bonds.into_iter().collect(),
        dropped: dropped.collect(),
    }
}

/// What joins a record without a strong identifier to another.
fn weak(a: &Placed, b: &Placed, anchored: bool, between: [String; 2]) -> Option<Bond> {
    let (ra, rb) = (&a.record, &b.record);
    let how = if top(ra).is_none() { a.how } else { b.how };
    if let Some(mac) = macs(ra).intersection(&macs(rb)).find(|m| global(m)) {
        return Some(Bond { rule: "mac", between, witness: format!("both assert the MAC {mac}") });
    }
    let ip = shared(ra, rb).next()?;
    if how == "cross_source" && anchored {
        let witness = cross(ra, rb, IpLink::default())?;
        return Some(Bond { rule: "cross_source", between, witness });
    }
    Some(Bond { rule: "ip_alias", between, witness: format!("both are at {ip}") })
}

/// Says what keeps two devices apart: their records, and how identifiers stand.
pub fn apart(a: &[Placed], b: &[Placed], known: &IdentityContext) -> Apart {
    let mut apart = Apart::default();
    let (a, b) = (sorted(a), sorted(b));
    let pairs = || a.iter().flat_map(|x| b.iter().map(move |y| (&x.record, &y.record)));
    let mut against = |rule, says: String| apart.kept_apart_by.push(Reason { rule, says });
    if let Some((x, y)) = pairs().find(|(x, y)| x.partition != y.partition) {
        against("partition", format!("one is in {}, the other in {}: nothing crosses that", x.partition, y.partition));
    }
    let ids = |of: &[&Placed]| {
        let strong = of.iter().flat_map(|p| p.record.ids.iter().cloned());
        let weak = of.iter().flat_map(|p| p.record.macs.iter()).map(|m| Identifier {
            kind: IdKind::Mac,
            namespace: String::new(),
            value: m.clone(),
        });
        strong.chain(weak).collect::<BTreeSet<Identifier>>()
    };
    let (ids_a, ids_b) = (ids(&a), ids(&b));
    let (names_a, names_b) = (known_by(&a, known), known_by(&b, known));
    for link in known.links.iter().filter(|l| l.kind == "cannot") {
        let forth = names_a.contains(&link.a) && names_b.contains(&link.b);
        if forth || (names_a.contains(&link.b) && names_b.contains(&link.a)) {
            let said = format!("{} said that {} and {} are two", link.actor, link.a, link.b);
            against("operator", format!("{said}: {}", link.reason));
        }
    }
    for x in ids_a.iter().filter(|id| id.kind.is_strong()) {
        let other = ids_b.iter().find(|y| y.kind == x.kind && y.namespace == x.namespace && y.value != x.value);
        if let Some(y) = other.filter(|_| !ids_b.contains(x)) {
            let says = format!("one holds {}, the other {}: a device has one value of a namespace", seed(x), seed(y));
            against("exclusive", says);
        }
    }
    let mut evidence = Vec::new();
    let mut found = |rule, says: String| evidence.push(Reason { rule, says });
    for id in ids_a.intersection(&ids_b) {
        let name = seed(id);
        match (id.kind, known.loose.get(&name)) {
            (IdKind::Mac, _) if !global(&id.value) => {
                found(
                    "mac",
                    format!("both assert the MAC {}, which is locally administered: it identifies nobody", id.value),
                );
            }
            (IdKind::Mac, state) => {
                let state = state.map_or("held by one of them", String::as_str);
                found("mac", format!("both assert the MAC {}, which is {state}: two devices assert it", id.value));
            }
            (_, state) => {
                let state = state.map_or("held by one of them", String::as_str);
                let says =
                    format!("both assert {name}, which is {state}: all links that records make at it are dropped");
                found("strong_identifier", says);
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (x, y) in pairs() {
        for ip in shared(x, y) {
            let says = address(x, y, &ip, known.policy);
            if seen.insert(says.clone()) {
                found("address", says);
            }
        }
        let shown: Vec<&str> = all_macs(x).intersection(&all_macs(y)).copied().collect();
        for mac in shown.into_iter().filter(|m| !(macs(x).contains(m) && macs(y).contains(m))) {
            let says = format!("both know the MAC {mac}, but one only shows it: it corroborates an address, no more");
            if seen.insert(says.clone()) {
                found("mac", says);
            }
        }
        if let Some(host) = same_host(x, y) {
            let says = format!("both are called {host}: a host name corroborates, it never identifies");
            if seen.insert(says.clone()) {
                found("hostname", says);
            }
        }
    }
    let order = ["strong_identifier", "mac", "address", "hostname"];
    evidence.sort_by_key(|r| order.iter().position(|o| *o == r.rule));
    apart.evidence = evidence;
    if apart.kept_apart_by.is_empty() {
        let says = match apart.evidence.first() {
            None => "they have nothing in common".to_owned(),
            Some(strongest) => format!("what they have in common does not suffice: {}", strongest.says),
        };
        apart.kept_apart_by.push(Reason { rule: "evidence", says });
    }
    apart
}

/// Why an address that two records claim does not link them.
fn address(x: &Record, y: &Record, ip: &str, policy: IpLink) -> String {
    let class = |r: &Record| ClaimClass::of(r.key.kind);
    let links = |r: &Record| Assertions::of(r).claims_for_links();
    if let Some(weak) = [x, y].into_iter().find(|r| !links(r) && r.key.kind != SourceKind::Mapper) {
        return format!("both claim {ip}, one of them as {}: such claims link nothing", class(weak).name());
    }
    match (host(x), host(y)) {
        _ if policy == IpLink::Off => format!("both claim {ip}: the tenant's policy is that no address links"),
        (Some(a), Some(b)) if a != b => format!("both claim {ip}, but one is called {a}, the other {b}"),
        (Some(a), Some(_)) => {
            format!(
                "both claim {ip} and are called {a}: that links, unless one has two such partners of one namespace, or \
                 more than sixteen devices claim the address"
            )
        }
        _ => format!("both claim {ip}, but have not both claimed it in three runs, and nothing else corroborates"),
    }
}
