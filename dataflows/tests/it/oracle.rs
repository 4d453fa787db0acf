//! Identity evaluated from scratch: the definition's text on sets and maps, with nothing in common with the relations. What
//! it is held against is `traces.rs`.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::fact::{Actor, Fact, IpLink, Link, LinkKind, Role};
use radarflow_proto::payload::AgentPush;
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_reconcile::identity::name::uid;

use crate::harness::*;

/// The class of a confirmed alias's claim, between those of [`Saying::class`].
const ALIAS: u8 = 1;

/// What a source said of one item: the oracle's own form of it. Identifiers are seeds: `armis:1`, `mac:…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Saying {
    pub(super) second: i64,
    pub(super) deleted: bool,
    /// (kind, key) of the record.
    pub(super) source: (&'static str, String),
    /// Strong identifiers beside the source's own.
    pub(super) carries: BTreeSet<String>,
    pub(super) macs: Vec<&'static str>,
    pub(super) ips: Vec<String>,
    pub(super) host: Option<&'static str>,
    pub(super) run: u32,
}

/// What discovery found on a polled device's interfaces, in a run of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Poll {
    pub(super) second: i64,
    /// The polled address.
    pub(super) device: String,
    pub(super) ips: Vec<String>,
    pub(super) macs: Vec<&'static str>,
}

impl Poll {
    fn input(&self) -> Input {
        let at = T0 / 1000 - 86_400 + self.second;
        let row = |field: &str, value: String| {
            format!(r#"{{"device_ip":"{}","timestamp":{at},"{field}":{value}}}"#, self.device)
        };
        let ips = self.ips.iter().map(|ip| row("ip_addresses", format!("[\"{ip}\"]")));
        let macs = self.macs.iter().map(|mac| row("if_phys_address", format!("\"{mac}\"")));
        let rows: Vec<String> = ips.chain(macs).collect();
        status("discovery", "mapper_interfaces", "", &format!("[{}]", rows.join(",")))
    }
}

/// One step of a trace.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Say(Saying),
    Poll(Poll),
    Link(String, LinkKind, String, String),
    Unlink(String),
    Policy(IpLink),
}

pub(super) const MACS: [&str; 5] = ["0C0000000001", "0C0000000002", "0C0000000003", "0E0000000001", "0E0000000002"];

pub(super) fn is_global(mac: &str) -> bool {
    mac.starts_with("0C")
}

impl Saying {
    fn own(&self) -> Option<String> {
        match self.source.0 {
            "sweep" | "mapper" => None,
            kind => Some(format!("{kind}:{}", self.source.1)),
        }
    }

    fn ids(&self) -> BTreeSet<String> {
        self.own().into_iter().chain(self.carries.iter().cloned()).collect()
    }

    /// MACs asserted, as the table of section 1 says.
    fn asserted(&self) -> Vec<&'static str> {
        match self.source.0 {
            "armis" => {
                let first = self.macs.iter().find(|m| is_global(m)).or(self.macs.first());
                first.into_iter().copied().collect()
            }
            "integration" | "mapper" => self.macs.clone(),
            _ => vec![],
        }
    }

    fn global_macs(&self) -> Vec<&'static str> {
        self.asserted().into_iter().filter(|m| is_global(m)).collect()
    }

    /// Strong enough to link by address.
    fn claims(&self, ip: &str) -> bool {
        !matches!(self.source.0, "sweep" | "mapper") && self.ips.iter().any(|i| i == ip)
    }

    fn class(&self) -> u8 {
        match self.source.0 {
            "agent" => 4,
            "mapper" => 2,
            "sweep" => 0,
            _ => 3,
        }
    }

    pub(super) fn input(&self) -> Input {
        let (kind, key) = &self.source;
        match *kind {
            "sweep" => return sweep("v", "", self.second, &[(key, true)]),
            "agent" => {
                let push = AgentPush {
                    agent_id: key.clone(),
                    source_ip: self.ips.join(","),
                    hostname: self.host.unwrap_or_default().to_owned(),
                    // Content of its own: an agent that says what it said before says nothing.
                    os: self.second.to_string(),
                    timestamp_us: (T0 / 1000 - 86_400 + self.second) * 1_000_000,
                    ..AgentPush::default()
                };
                return pushed(&push, "", "");
            }
            _ => {}
        }
        let mut meta = Vec::new();
        match *kind {
            "mapper" => meta.push(r#""identity_mac_kind":"primary""#.to_owned()),
            kind => meta.push(format!(r#""{}":"{key}""#, field(kind))),
        }
        if *kind == "integration" {
            meta.push(r#""integration_type":"snow""#.to_owned());
        }
        meta.extend(self.carries.iter().map(|seed| {
            let (kind, value) = seed.split_once(':').unwrap();
            format!(r#""{}":"{value}""#, field(kind))
        }));
        if self.deleted {
            meta.push(r#""_deleted":"true""#.to_owned());
        }
        let source = if *kind == "integration" { "snow" } else { kind };
        let at = T0 / 1000 - 86_400 + self.second;
        let host = self.host.map(|h| format!(r#""hostname":"{h}","#)).unwrap_or_default();
        sync(&[format!(
            r#"{{"source":"{source}","ip":"{}","mac":"{}",{host}"timestamp":{at},"metadata":{{{}}},"sync_meta":{{"sync_run_id":"r{}"}}}}"#,
            self.ips.join(","),
            self.macs.join(","),
            meta.join(","),
            self.run,
        )])
    }
}

impl Step {
    pub(super) fn input(&self, tenant: &str) -> Input {
        match self {
            Step::Say(saying) => saying.input(),
            Step::Poll(poll) => poll.input(),
            step => fact(&step.fact(tenant).unwrap()),
        }
    }

    pub(super) fn fact(&self, tenant: &str) -> Option<Fact> {
        let actor = Actor { name: "oracle".into(), role: Role::Operator };
        let (tenant, reason) = (tenant.to_owned(), "test".to_owned());
        Some(match self {
            Step::Say(_) | Step::Poll(_) => return None,
            Step::Link(id, kind, a, b) => Fact::Link(Link {
                tenant,
                partition: "default".into(),
                id: id.clone(),
                kind: *kind,
                a: identifier(a),
                b: identifier(b),
                actor,
                reason,
            }),
            Step::Unlink(id) => Fact::LinkGone { tenant, id: id.clone(), actor, reason },
            Step::Policy(policy) => Fact::IpLink { tenant, policy: *policy, actor, reason },
        })
    }
}

pub(super) fn identifier(seed: &str) -> Identifier {
    let (kind, value) = seed.split_once(':').unwrap();
    let kind = match kind {
        "agent" => IdKind::Agent,
        "armis" => IdKind::Armis,
        "integration" => IdKind::Integration,
        "netbox" => IdKind::NetBox,
        "mac" => IdKind::Mac,
        _ => IdKind::Ip,
    };
    Identifier { kind, namespace: String::new(), value: value.to_owned() }
}

pub(super) fn field(kind: &str) -> &str {
    match kind {
        "armis" => "armis_device_id",
        "netbox" => "netbox_device_id",
        "agent" => "agent_id",
        _ => "integration_id",
    }
}

pub(super) fn kind(seed: &str) -> &str {
    seed.split(':').next().unwrap()
}

/// In order of priority.
pub(super) fn priority(seed: &str) -> usize {
    ["agent", "armis", "integration", "netbox", "mac", "ip"].iter().position(|k| *k == kind(seed)).unwrap()
}

/// What a set of identifiers is one of at most: MACs and addresses do not exclude each other.
pub(super) fn namespace(seed: &str) -> &str {
    if priority(seed) < 4 { kind(seed) } else { seed }
}

/// Sets that are joined pair by pair: each element to the least of its set.
#[derive(Clone, Default)]
pub(super) struct Sets(BTreeMap<String, String>);

impl Sets {
    fn of(&self, x: &str) -> String {
        self.0.get(x).cloned().unwrap_or_else(|| x.to_owned())
    }

    fn join(&mut self, a: &str, b: &str) {
        let (x, y) = (self.of(a), self.of(b));
        self.0.insert(a.to_owned(), x.clone());
        self.0.insert(b.to_owned(), y.clone());
        let least = x.clone().min(y.clone());
        for root in self.0.values_mut() {
            if *root == x || *root == y {
                root.clone_from(&least);
            }
        }
    }

    fn members(&self, root: &str) -> BTreeSet<String> {
        let joined = self.0.iter().filter(|(_, r)| *r == root).map(|(x, _)| x.clone());
        joined.chain([root.to_owned()]).filter(|x| self.of(x) == root).collect()
    }
}

/// Devices by uid: their addresses and kinds of sources; owners by address; identifiers by seed: state and uid.
pub(super) type Answer = (
    BTreeMap<String, (Vec<String>, Vec<String>)>,
    BTreeMap<String, Option<String>>,
    BTreeMap<String, (String, Option<String>)>,
);

#[derive(Clone, Default)]
pub(super) struct World {
    said: Vec<Saying>,
    polls: BTreeSet<Poll>,
    pub(super) links: BTreeMap<String, (LinkKind, String, String)>,
    policy: IpLink,
}

impl World {
    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Say(saying) => self.said.push(saying.clone()),
            Step::Poll(poll) => {
                self.polls.insert(poll.clone());
            }
            Step::Link(id, kind, a, b) => {
                self.links.insert(id.clone(), (*kind, a.clone(), b.clone()));
            }
            Step::Unlink(id) => {
                self.links.remove(id);
            }
            Step::Policy(policy) => self.policy = *policy,
        }
    }

    /// The definition, evaluated on everything said so far.
    pub(super) fn answer(&self) -> Answer {
        // Section 1: the newest version of each record, first-seen, runs.
        let mut newest: BTreeMap<&(&str, String), &Saying> = BTreeMap::new();
        let mut first_seen: BTreeMap<String, i64> = BTreeMap::new();
        for s in &self.said {
            let slot = newest.entry(&s.source).or_insert(s);
            if (s.second, s.deleted) > (slot.second, slot.deleted) {
                *slot = s;
            }
            if !s.deleted {
                for id in s.ids().into_iter().chain(s.global_macs().iter().map(|m| format!("mac:{m}"))) {
                    let first = first_seen.entry(id).or_insert(s.second);
                    *first = (*first).min(s.second);
                }
            }
        }
        let live: Vec<&Saying> = newest.into_values().filter(|s| !s.deleted).collect();
        // What the polls of a device's interfaces report, newest first: its aliases, each with the first and the last of the
        // polls in a row that list it, and its MACs.
        let polls = |device: &str| {
            let mut polls: Vec<&Poll> = self.polls.iter().filter(|p| p.device == device).collect();
            polls.sort_by_key(|p| std::cmp::Reverse(p.second));
            polls
        };
        let swept =
            |ip: &str, since: i64| live.iter().any(|s| s.source == ("sweep", ip.to_owned()) && s.second >= since);
        let confirmed = |device: &str| -> Vec<(String, i64)> {
            let polls = polls(device);
            let Some(newest) = polls.first() else { return vec![] };
            let in_a_row = |ip: &String| polls.iter().take_while(|p| p.ips.contains(ip)).collect::<Vec<_>>();
            let counts = |ip: &&String| {
                let listed = in_a_row(ip);
                listed.len() >= 3 || swept(ip, listed[listed.len() - 1].second)
            };
            newest.ips.iter().filter(counts).map(|ip| (ip.clone(), newest.second)).collect()
        };
        let shown = |s: &Saying| -> BTreeSet<&'static str> {
            let of_interfaces = match s.source.0 {
                "mapper" => polls(&s.source.1).first().map(|p| p.macs.clone()).unwrap_or_default(),
                _ => vec![],
            };
            s.macs.iter().copied().chain(of_interfaces).collect()
        };
        let for_long = |r: &Saying, ip: &str| {
            let of = || self.said.iter().filter(|s| s.source == r.source);
            let deleted = of().filter(|s| s.deleted).map(|s| s.second).max().unwrap_or(i64::MIN);
            let claims = of().filter(|s| !s.deleted && s.second > deleted && s.ips.iter().any(|i| i == ip));
            claims.map(|s| s.run).collect::<BTreeSet<_>>().len() >= 3
        };
        let of_kind = |kind| self.links.values().filter(move |(k, a, b)| *k == kind && a != b);
        let mut must = Sets::default();
        for (_, a, b) in of_kind(LinkKind::Must) {
            must.join(a, b);
        }
        let is_linked = |id: &str| must.0.contains_key(id);
        // Must-links win.
        let cannot = of_kind(LinkKind::Cannot).map(|(_, a, b)| (a, b));
        let apart: Vec<(&String, &String)> = cannot.filter(|(a, b)| must.of(a) != must.of(b)).collect();
        let collide = |ids: &BTreeSet<String>| {
            ids.iter().any(|a| ids.iter().any(|b| namespace(a) == namespace(b) && must.of(a) != must.of(b)))
        };

        // Stage 1.
        let mut links: BTreeSet<(String, String)> = BTreeSet::new();
        for s in &live {
            if let Some(top) = s.own() {
                links.extend(s.carries.iter().filter(|c| **c != top).map(|c| (top.clone(), c.clone())));
            }
        }
        let ids: BTreeSet<String> = live.iter().flat_map(|s| s.ids()).collect();
        let near = |id: &String| -> BTreeSet<String> {
            let ends = links.iter().filter(|(a, b)| a == id || b == id);
            ends.flat_map(|(a, b)| [a.clone(), b.clone()]).chain([id.clone()]).collect()
        };
        let ambiguous: BTreeSet<String> = ids.iter().filter(|id| collide(&near(id))).cloned().collect();
        let mut joined = must.clone();
        for (a, b) in &links {
            if !ambiguous.contains(a) && !ambiguous.contains(b) {
                joined.join(a, b);
            }
        }
        let everyone: BTreeSet<String> = ids.iter().chain(must.0.keys()).cloned().collect();
        let contested: BTreeSet<String> = everyone
            .iter()
            .filter(|id| {
                let together = joined.members(&joined.of(id));
                let parted = |(a, b): &(&String, &String)| together.contains(*a) && together.contains(*b);
                collide(&together) || apart.iter().any(parted)
            })
            .cloned()
            .collect();
        let component = |id: &str| if contested.contains(id) { must.of(id) } else { joined.of(id) };
        let tops: BTreeSet<String> = live.iter().filter_map(|s| s.own()).collect();
        // A contested or ambiguous identifier that is nobody's own names nobody.
        let names =
            |id: &String| tops.contains(id) || is_linked(id) || !(ambiguous.contains(id) || contested.contains(id));
        let of_component = |c: &str| -> BTreeSet<String> {
            everyone.iter().filter(|id| component(id) == c && names(id)).cloned().collect()
        };

        // Stage 1b.
        let anchored: Vec<(&Saying, String)> = live.iter().filter_map(|s| Some((*s, component(&s.own()?)))).collect();
        let parties = |of: &dyn Fn(&Saying) -> bool| -> BTreeSet<String> {
            anchored.iter().filter(|(s, _)| of(s)).map(|(_, c)| c.clone()).collect()
        };
        let busy_mac = |mac: &str| parties(&|s| s.asserted().contains(&mac)).len() > 16;
        let busy_ip = |ip: &str| parties(&|s| s.claims(ip)).len() > 16;
        let corroborate = |a: &Saying, b: &Saying, ip: &str| {
            let same_name = a.host.is_some() && a.host == b.host;
            let share = shown(a).intersection(&shown(b)).any(|m| !busy_mac(m));
            let differ = a.host.is_some() && b.host.is_some() && !same_name;
            let long = for_long(a, ip) && for_long(b, ip) && !differ;
            match self.policy {
                IpLink::Off => false,
                IpLink::Immediate => true,
                IpLink::Corroborated => same_name || share || long,
            }
        };
        let same_mac = |a: &Saying, b: &Saying| {
            let mac = |m: &&str| b.global_macs().contains(m) && !busy_mac(m);
            self.policy != IpLink::Off && a.host.is_some() && a.host == b.host && a.global_macs().iter().any(mac)
        };
        let spaces =
            |c: &str| -> BTreeSet<String> { of_component(c).iter().map(|id| namespace(id).to_owned()).collect() };
        let mut candidates: BTreeSet<(String, String)> = BTreeSet::new();
        for (a, x) in &anchored {
            for (b, y) in &anchored {
                if x == y || !spaces(x).is_disjoint(&spaces(y)) {
                    continue;
                }
                let ips = a.ips.iter().filter(|ip| a.claims(ip) && b.claims(ip) && !busy_ip(ip));
                if ips.into_iter().any(|ip| corroborate(a, b, ip)) || same_mac(a, b) {
                    candidates.insert((x.clone(), y.clone()));
                }
            }
        }
        let rivals = |x: &String, y: &String| {
            let others = candidates.iter().filter(|(a, b)| a == x && b != y);
            others.into_iter().any(|(_, b)| !spaces(b).is_disjoint(&spaces(y)))
        };
        let mut groups = Sets::default();
        for (x, y) in &candidates {
            if !rivals(x, y) && !rivals(y, x) {
                groups.join(x, y);
            }
        }
        // Who holds the end of a cannot-link: by strong identifier or must-link, or by asserting or claiming it.
        let holders = |end: &String| -> BTreeSet<String> {
            let place = if everyone.contains(end) { component(end) } else { end.clone() };
            let value = end.split_once(':').unwrap().1;
            let by_record = match kind(end) {
                "mac" => parties(&|s| s.asserted().contains(&value)),
                "ip" => parties(&|s| s.claims(value)),
                _ => BTreeSet::new(),
            };
            by_record.into_iter().chain([place]).collect()
        };
        let crowded = |g: &str| {
            let members = groups.members(g);
            let crowd = members.iter().any(|x| members.iter().any(|y| x != y && !spaces(x).is_disjoint(&spaces(y))));
            crowd
                || apart.iter().any(|(a, b)| {
                    holders(a)
                        .iter()
                        .any(|x| holders(b).iter().any(|y| x != y && members.contains(x) && members.contains(y)))
                })
        };
        let device = |c: &str| -> String {
            let group = groups.of(c);
            if crowded(&group) { c.to_owned() } else { group }
        };

        // Stage 2.
        let device_of_id = |id: &str| device(&if everyone.contains(id) { component(id) } else { id.to_owned() });
        let peopled = |d: &str| anchored.iter().any(|(_, c)| device(c) == d);
        let barred = |d: &str, end: &str| {
            let other = apart.iter().filter_map(|(a, b)| if *a == end { Some(*b) } else { (*b == end).then_some(*a) });
            other.into_iter().any(|id| device_of_id(id) == d)
        };
        #[derive(Clone, PartialEq, Debug)]
        enum State {
            Ambiguous,
            Owned(String),
            Free,
        }
        let state = |mac: &str| -> Option<State> {
            let seed = format!("mac:{mac}");
            let loose = live.iter().filter(|s| s.own().is_none() && s.global_macs().contains(&mac)).count();
            // What operators link to nobody who is there is held as if they had not.
            let to = device_of_id(&seed);
            if is_linked(&seed) && peopled(&to) {
                return Some(State::Owned(to));
            }
            let held = |s: &Saying, c: &str| s.global_macs().contains(&mac) && !barred(&device(c), &seed);
            let owners: BTreeSet<String> =
                anchored.iter().filter(|(s, c)| held(s, c)).map(|(_, c)| device(c)).collect();
            match owners.len() {
                0 => (loose > 0).then_some(State::Free),
                1 => owners.into_iter().next().map(State::Owned),
                _ => Some(State::Ambiguous),
            }
        };
        let macs: BTreeSet<&str> = MACS.into_iter().chain(live.iter().flat_map(|s| s.macs.iter().copied())).collect();
        let states: BTreeMap<&str, State> = macs.into_iter().filter_map(|m| Some((m, state(m)?))).collect();
        let anchorless: Vec<&Saying> = live.iter().filter(|s| s.own().is_none()).copied().collect();
        let free = |s: &Saying| -> Vec<&'static str> {
            s.global_macs().into_iter().filter(|m| states.get(m) == Some(&State::Free)).collect()
        };
        let mut of_macs = Sets::default();
        for s in &anchorless {
            for mac in free(s) {
                of_macs.join(&format!("mac:{mac}"), &format!("mac:{}", free(s)[0]));
            }
        }
        // Free MACs that operators link to each other are one group; what they link of a record counts where it says
        // nothing otherwise: its local MACs, and its polled address if it has MACs.
        let all_free = || states.iter().filter(|(_, s)| **s == State::Free).map(|(m, _)| format!("mac:{m}"));
        let together = |id: &str| format!("linked:{}", must.of(id));
        for a in all_free().filter(|a| is_linked(a)) {
            of_macs.join(&a, &together(&a));
        }
        let by_link = |s: &Saying| -> Vec<String> {
            let local = s.asserted().into_iter().filter(|m| !is_global(m)).map(|m| format!("mac:{m}"));
            let polled = s.ips.first().filter(|_| !s.global_macs().is_empty()).map(|ip| format!("ip:{ip}"));
            local.chain(polled).filter(|id| is_linked(id)).collect()
        };
        for s in anchorless.iter().filter(|s| !free(s).is_empty()) {
            for id in by_link(s).iter().filter(|id| !peopled(&device_of_id(id))) {
                of_macs.join(&format!("mac:{}", free(s)[0]), &together(id));
            }
        }
        let record = |s: &Saying| format!("record:{}:{}", s.source.0, s.source.1);
        let group = |s: &Saying| free(s).first().map_or_else(|| record(s), |m| of_macs.of(&format!("mac:{m}")));
        let mut placed: BTreeMap<String, String> = BTreeMap::new();
        let mut group_device: BTreeMap<String, String> = BTreeMap::new();
        for g in anchorless.iter().map(|s| group(s)).collect::<BTreeSet<_>>() {
            let members: Vec<&&Saying> = anchorless.iter().filter(|s| group(s) == g).collect();
            let held = of_macs.members(&g);
            if apart.iter().any(|(a, b)| held.contains(*a) && held.contains(*b)) {
                continue;
            }
            let has_free = members.iter().any(|s| !free(s).is_empty());
            let refused = |d: &String| held.iter().any(|mac| barred(d, mac));
            let owners: BTreeSet<String> = members
                .iter()
                .flat_map(|s| s.global_macs())
                .filter_map(|m| if let Some(State::Owned(d)) = states.get(m) { Some(d.clone()) } else { None })
                .chain(members.iter().flat_map(|s| by_link(s)).map(|id| device_of_id(&id)).filter(|d| peopled(d)))
                .filter(|d| !refused(d))
                .collect();
            let supported = || {
                let mut alone = BTreeSet::new();
                for s in members.iter().filter(|s| !free(s).is_empty()) {
                    let Some(ip) = s.ips.first() else { continue };
                    let claimants: BTreeSet<String> = parties(&|s| s.claims(ip)).iter().map(|c| device(c)).collect();
                    if claimants.len() == 1 {
                        alone.extend(claimants);
                    }
                }
                let common = |d: &String| {
                    members.iter().filter(|s| !free(s).is_empty()).any(|s| {
                        let Some(ip) = s.ips.first() else { return false };
                        anchored.iter().any(|(a, c)| device(c) == *d && a.claims(ip) && corroborate(a, s, ip))
                    })
                };
                alone.into_iter().filter(|d| common(d) && !refused(d)).collect::<BTreeSet<_>>()
            };
            let own = has_free.then(|| g.clone());
            let device = match owners.len() {
                1 => owners.into_iter().next(),
                0 if has_free => {
                    let alone = supported();
                    if alone.len() == 1 { alone.into_iter().next() } else { own }
                }
                _ => own,
            };
            if let Some(device) = device {
                for s in members {
                    placed.insert(record(s), device.clone());
                }
                group_device.insert(g.clone(), device);
            }
        }

        // Stage 4: what devices with strong identifiers or MACs are called.
        let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let is_held =
            |id: &&String| names(id) && priority(id) < 4 && first_seen.contains_key(*id) && peopled(&device_of_id(id));
        for id in everyone.iter().filter(is_held) {
            held.entry(device_of_id(id)).or_default().insert(id.clone());
        }
        for (mac, state) in &states {
            let seed = format!("mac:{mac}");
            let device = match state {
                State::Owned(d) => Some(d.clone()),
                State::Free => group_device.get(&of_macs.of(&seed)).cloned(),
                State::Ambiguous => None,
            };
            if let Some(device) = device.filter(|_| first_seen.contains_key(&seed)) {
                held.entry(device).or_default().insert(seed);
            }
        }
        let name: BTreeMap<String, String> = held
            .iter()
            .map(|(device, ids)| {
                let strong = ids.iter().any(|id| priority(id) < 4);
                let best = ids.iter().filter(|id| !strong || priority(id) < 4);
                let best = best.min_by_key(|id| (first_seen[*id], priority(id), (*id).clone())).unwrap();
                (device.clone(), uid("default", best))
            })
            .collect();

        // Stage 3: addresses.
        let of_devices: Vec<(&Saying, String)> = live
            .iter()
            .filter_map(|s| match s.own() {
                Some(own) => Some((*s, device_of_id(&own))),
                None => placed.get(&record(s)).map(|d| (*s, d.clone())),
            })
            .collect();
        let alone: Vec<&Saying> =
            live.iter().filter(|s| s.own().is_none() && !placed.contains_key(&record(s))).copied().collect();
        let mut devices: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
        let mut place = |uid: &String, s: &Saying| {
            devices.entry(uid.clone()).or_default().1.insert(s.source.0.to_owned());
        };
        for (s, device) in &of_devices {
            place(&name[device], s);
        }
        // A MAC in a cannot-link stands for the device that holds it.
        let barred = |d: &str, end: &str| {
            let other = apart.iter().filter_map(|(a, b)| if *a == end { Some(*b) } else { (*b == end).then_some(*a) });
            other.into_iter().any(|id| match held.iter().find(|(_, ids)| ids.contains(id)) {
                Some((device, _)) if kind(id) == "mac" => device == d,
                _ => device_of_id(id) == d,
            })
        };
        let mut owners: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut ips_of: Vec<(String, String)> = Vec::new();
        // Aliases that devices report, and those that records known by an address alone do.
        let reporters = |s: &&Saying| s.source.0 == "mapper";
        let of_polled: Vec<(String, i64, String)> = of_devices
            .iter()
            .filter(|(s, _)| reporters(s))
            .flat_map(|(s, d)| confirmed(&s.source.1).into_iter().map(|(ip, at)| (ip, at, d.clone())))
            .collect();
        let of_alone: Vec<(String, i64, String)> = alone
            .iter()
            .filter(|s| reporters(s))
            .flat_map(|s| confirmed(&s.source.1).into_iter().map(|(ip, at)| (ip, at, s.source.1.clone())))
            .collect();
        let mut only_swept: BTreeSet<String> = BTreeSet::new();
        let mut homes: BTreeMap<String, String> = BTreeMap::new();
        let ips: BTreeSet<String> =
            live.iter().flat_map(|s| s.ips.clone()).chain(of_polled.iter().map(|(ip, ..)| ip.clone())).collect();
        for ip in ips {
            let seed = format!("ip:{ip}");
            let mut claims: Vec<(u8, i64, String, String)> = of_devices
                .iter()
                .filter(|(s, d)| s.ips.contains(&ip) && !barred(d, &seed))
                .map(|(s, d)| (s.class(), s.second, name[d].clone(), d.clone()))
                .collect();
            let of_aliases = of_polled.iter().filter(|(alias, _, d)| *alias == ip && !barred(d, &seed));
            claims.extend(of_aliases.map(|(_, at, d)| (ALIAS, *at, name[d].clone(), d.clone())));
            let known_by = || alone.iter().filter(|s| s.ips.first() == Some(&ip));
            let reported = of_polled.iter().any(|(alias, ..)| *alias == ip);
            let spoken = reported || of_devices.iter().any(|(s, _)| s.ips.contains(&ip)) || known_by().next().is_some();
            if is_linked(&seed) && spoken {
                let d = device_of_id(&seed);
                // Where nobody is there, the device of the free MACs that are linked to it.
                let group = group_device.get(&of_macs.of(&together(&seed))).cloned();
                let d = if peopled(&d) { d } else { group.unwrap_or(d) };
                match name.get(&d) {
                    Some(uid) if !barred(&d, &seed) => claims.push((9, i64::MIN, uid.clone(), d)),
                    Some(_) => {}
                    // Nothing else is there: the addresses themselves are a device, if any record is known by one alone.
                    None => {
                        let known = alone.iter().filter_map(|s| s.ips.first()).map(|ip| format!("ip:{ip}"));
                        let least = known.filter(|other| is_linked(other) && must.of(other) == must.of(&seed)).min();
                        claims.extend(least.map(|least| (9, i64::MIN, uid("default", &least), must.of(&seed))));
                    }
                }
            }
            let own = uid("default", &seed);
            let home = match claims.iter().max() {
                Some((class, _, uid, _)) => {
                    let parties: BTreeSet<&String> = claims.iter().filter(|c| c.0 == *class).map(|c| &c.3).collect();
                    if parties.len() > 16 {
                        owners.insert(ip.clone(), None);
                        own
                    } else {
                        owners.insert(ip.clone(), Some(uid.clone()));
                        ips_of.push((uid.clone(), ip.clone()));
                        uid.clone()
                    }
                }
                None => {
                    if known_by().all(|s| s.source.0 == "sweep") {
                        only_swept.insert(ip.clone());
                    }
                    if known_by().next().is_some() {
                        owners.insert(ip.clone(), Some(own.clone()));
                        ips_of.push((own.clone(), ip.clone()));
                    }
                    own
                }
            };
            homes.insert(ip, home);
        }
        // What records known by an address alone report belongs to whoever that address is, where at most sweeps know it.
        let reported: BTreeSet<&String> = of_alone.iter().map(|(ip, ..)| ip).collect();
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for ip in reported.into_iter().filter(|ip| !owners.contains_key(*ip) || only_swept.contains(*ip)) {
            let claims = of_alone.iter().filter(|(alias, ..)| alias == ip);
            let best = claims.map(|(_, at, polled)| (*at, homes[polled].clone())).max();
            given.extend(best.map(|(_, uid)| (ip.clone(), uid)));
        }
        for (ip, uid) in given {
            ips_of.retain(|(_, owned)| *owned != ip);
            ips_of.push((uid.clone(), ip.clone()));
            owners.insert(ip.clone(), Some(uid.clone()));
            homes.insert(ip, uid);
        }
        for s in alone.iter().filter(|s| !s.ips.is_empty()) {
            place(&homes[&s.ips[0]], s);
        }
        for s in alone.iter().filter(|s| s.ips.is_empty()) {
            place(&uid("default", &format!("record:{}/main/{}", s.source.0, s.source.1)), s);
        }
        for (uid, ip) in ips_of {
            if let Some(device) = devices.get_mut(&uid) {
                device.0.insert(ip);
            }
        }
        let mut standing: BTreeMap<String, (String, Option<String>)> = BTreeMap::new();
        for (device, ids) in &held {
            for id in ids {
                standing.insert(id.clone(), ("held".to_owned(), Some(name[device].clone())));
            }
        }
        for id in ids.iter().filter(|id| !is_held(id)) {
            let state = if contested.contains(id) && !is_linked(id) { "contested" } else { "ambiguous" };
            standing.insert(id.clone(), (state.to_owned(), None));
        }
        for (mac, state) in &states {
            if *state == State::Ambiguous {
                standing.insert(format!("mac:{mac}"), ("ambiguous".to_owned(), None));
            }
        }
        let devices = devices
            .into_iter()
            .map(|(uid, (ips, sources))| (uid, (ips.into_iter().collect(), sources.into_iter().collect())));
        (devices.collect(), owners, standing)
    }
}
