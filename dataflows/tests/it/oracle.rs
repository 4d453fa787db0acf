//! Identity against a plain evaluation of its definition, from scratch, at every epoch, over random traces in a small
//! and hostile universe: few identifiers, many collisions.
//!
//! `RADARFLOW_TRACES` sets how many traces, `RADARFLOW_SEED` replays one.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::rows::StateRow;
use radarflow_reconcile::identity::name::uid;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::harness::*;

/// What a source said of one item: the oracle's own form of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Saying {
    second: i64,
    deleted: bool,
    /// (kind, key) of the record.
    source: (&'static str, String),
    /// Strong identifiers beside the source's own, as seeds.
    carries: BTreeSet<String>,
    ips: Vec<String>,
}

impl Saying {
    fn own(&self) -> Option<String> {
        (self.source.0 != "sweep").then(|| format!("{}:{}", self.source.0, self.source.1))
    }

    fn ids(&self) -> BTreeSet<String> {
        self.own().into_iter().chain(self.carries.iter().cloned()).collect()
    }

    fn input(&self) -> Input {
        let (kind, key) = &self.source;
        if *kind == "sweep" {
            return sweep("v", "", self.second, &[(key, true)]);
        }
        let mut meta = vec![format!(r#""{}":"{key}""#, field(kind))];
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
        sync(&[item(source, &meta.join(","), &self.ips.join(","), self.second)])
    }
}

fn field(kind: &str) -> &str {
    match kind {
        "armis" => "armis_device_id",
        "netbox" => "netbox_device_id",
        "agent" => "agent_id",
        _ => "integration_id",
    }
}

fn kind(seed: &str) -> &str {
    seed.split(':').next().unwrap()
}

/// In order of priority.
fn priority(seed: &str) -> usize {
    ["agent", "armis", "integration", "netbox"].iter().position(|k| *k == kind(seed)).unwrap()
}

fn collides<'a>(seeds: impl Iterator<Item = &'a String>) -> bool {
    let mut by_kind: BTreeMap<&str, &str> = BTreeMap::new();
    seeds.into_iter().any(|s| *by_kind.entry(kind(s)).or_insert(s) != s)
}

/// Devices by uid: their addresses and sources; and owners by address.
type Answer = (BTreeMap<String, (Vec<String>, Vec<String>)>, BTreeMap<String, Option<String>>);

/// The definition, evaluated on everything said so far.
fn oracle(said: &[Saying]) -> Answer {
    let mut newest: BTreeMap<&(&str, String), &Saying> = BTreeMap::new();
    let mut first_seen: BTreeMap<String, i64> = BTreeMap::new();
    for s in said {
        let slot = newest.entry(&s.source).or_insert(s);
        if (s.second, s.deleted) > (slot.second, slot.deleted) {
            *slot = s;
        }
        if !s.deleted {
            for id in s.ids() {
                let first = first_seen.entry(id).or_insert(s.second);
                *first = (*first).min(s.second);
            }
        }
    }
    let live: Vec<&Saying> = newest.into_values().filter(|s| !s.deleted).collect();

    // Stage 1: links from each record's top to its other identifiers.
    let mut links: BTreeSet<(String, String)> = BTreeSet::new();
    for s in &live {
        if let Some(top) = s.own() {
            links.extend(s.carries.iter().filter(|c| **c != top).map(|c| (top.clone(), c.clone())));
        }
    }
    let neighbours = |id: &String| -> BTreeSet<String> {
        let other = |(a, b): &(String, String)| {
            if a == id { Some(b.clone()) } else { (b == id).then(|| a.clone()) }
        };
        links.iter().filter_map(other).chain([id.clone()]).collect()
    };
    let ids: BTreeSet<String> = live.iter().flat_map(|s| s.ids()).collect();
    let ambiguous: BTreeSet<&String> = ids.iter().filter(|id| collides(neighbours(id).iter())).collect();
    let clean: Vec<_> = links.iter().filter(|(a, b)| !ambiguous.contains(a) && !ambiguous.contains(b)).collect();
    let mut component: BTreeMap<String, String> = ids.iter().map(|id| (id.clone(), id.clone())).collect();
    for (a, b) in clean {
        let (a, b) = (component[a].clone(), component[b].clone());
        for c in component.values_mut().filter(|c| **c == a) {
            c.clone_from(&b);
        }
    }
    let members = |component: &BTreeMap<String, String>, c: &String| -> Vec<String> {
        component.iter().filter(|(_, x)| *x == c).map(|(id, _)| id.clone()).collect()
    };
    let contested: Vec<String> =
        component.values().filter(|c| collides(members(&component, c).iter())).cloned().collect();
    let loners: Vec<String> =
        component.iter().filter(|(_, c)| contested.contains(c)).map(|(id, _)| id.clone()).collect();
    for id in &loners {
        component.insert(id.clone(), id.clone());
    }
    let tops: BTreeSet<String> = live.iter().filter_map(|s| s.own()).collect();
    let nameless = |id: &String| (ambiguous.contains(id) || loners.contains(id)) && !tops.contains(id);

    // Stage 4: names of anchored devices.
    let mut name: BTreeMap<String, String> = BTreeMap::new();
    for c in component.values() {
        let held = members(&component, c).into_iter().filter(|id| !nameless(id));
        if let Some(best) = held.min_by_key(|id| (first_seen[id], priority(id), id.clone())) {
            name.insert(c.clone(), uid("default", &best));
        }
    }

    // Stage 3: addresses.
    let ips: BTreeSet<String> = live.iter().flat_map(|s| s.ips.clone()).collect();
    let mut devices: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for s in &live {
        if let Some(own) = s.own() {
            devices.entry(name[&component[&own]].clone()).or_default().1.insert(s.source.0.to_owned());
        }
    }
    let mut owners = BTreeMap::new();
    for ip in ips {
        let claims = live
            .iter()
            .filter(|s| s.ips.contains(&ip))
            .filter_map(|s| Some((s.second, name[&component[&s.own()?]].clone())));
        let owner = claims.max().map(|(_, uid)| uid);
        let swept = live.iter().any(|s| s.source == ("sweep", ip.clone()));
        let home = owner.clone().unwrap_or_else(|| uid("default", &format!("ip:{ip}")));
        if swept {
            devices.entry(home.clone()).or_default().1.insert("sweep".to_owned());
        }
        if owner.is_some() || swept {
            devices.entry(home.clone()).or_default().0.insert(ip.clone());
            owners.insert(ip, Some(home));
        }
    }
    let devices = devices
        .into_iter()
        .map(|(uid, (ips, sources))| (uid, (ips.into_iter().collect(), sources.into_iter().collect())));
    (devices.collect(), owners)
}

fn answer(tables: &Tables) -> Answer {
    let devices =
        tables.devices().into_iter().map(|d| (d.uid.clone(), (d.ip_addresses.clone(), d.discovery_sources.clone())));
    let owners = tables.state.values().filter_map(|r| match r {
        StateRow::IpOwnership(o) => Some((o.ip.clone(), o.device_uid.clone())),
        _ => None,
    });
    (devices.collect(), owners.collect())
}

fn trace(rng: &mut StdRng) -> Vec<Saying> {
    let n = rng.random_range(3..24);
    let mut seconds: Vec<i64> = (0..n).collect();
    seconds.shuffle(rng);
    let pick = |rng: &mut StdRng, from: &[&str]| from[rng.random_range(0..from.len())].to_owned();
    seconds
        .into_iter()
        .map(|second| {
            let ip = |rng: &mut StdRng| format!("10.0.0.{}", rng.random_range(1..4));
            if rng.random_bool(0.2) {
                let ip = ip(rng);
                return Saying {
                    second,
                    deleted: false,
                    source: ("sweep", ip.clone()),
                    carries: BTreeSet::new(),
                    ips: vec![ip],
                };
            }
            let kind = ["armis", "netbox", "integration"][rng.random_range(0..3)];
            let source = (kind, pick(rng, &["1", "2", "3"]));
            let mut carries = BTreeSet::new();
            for other in ["agent", "armis", "netbox"] {
                if other != kind && rng.random_bool(0.35) {
                    carries.insert(format!("{other}:{}", pick(rng, &["1", "2"])));
                }
            }
            let ips: BTreeSet<String> = (0..rng.random_range(0..3)).map(|_| ip(rng)).collect();
            Saying { second, deleted: rng.random_bool(0.15), source, carries, ips: ips.into_iter().collect() }
        })
        .collect()
}

fn check(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let trace = trace(&mut rng);
    let workers = [1, 2, 4][rng.random_range(0..3)];
    let mut run = Run::new(workers);
    run.tick(instances());
    let mut said = Vec::new();
    let mut rest = &trace[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.random_range(1..=rest.len().min(4)));
        said.extend_from_slice(now);
        run.tick(now.iter().map(Saying::input).collect());
        assert_eq!(answer(&run.tables), oracle(&said), "seed {seed}, {workers} workers, after {said:#?}");
        rest = later;
    }
    // The same facts in another order, some of them twice, in other batches, on other workers: the same devices.
    let mut again = said.clone();
    again.extend(said.iter().filter(|_| rng.random_bool(0.3)).cloned().collect::<Vec<_>>());
    again.shuffle(&mut rng);
    let mut other = Run::new(3 - workers.min(2));
    other.tick(instances());
    for batch in again.chunks(rng.random_range(1..=again.len())) {
        other.tick(batch.iter().map(Saying::input).collect());
    }
    assert_eq!(answer(&other.tables), answer(&run.tables), "seed {seed}, permuted");
}

#[test]
fn incremental_equals_from_scratch_at_every_epoch() {
    let traces = std::env::var("RADARFLOW_TRACES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let seeds: Vec<u64> = match std::env::var("RADARFLOW_SEED").ok().and_then(|n| n.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..traces).collect(),
    };
    for seed in seeds {
        check(seed);
    }
}
