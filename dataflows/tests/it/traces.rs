//! Random traces through the whole dataflow, held against the oracle at every epoch, with several workers, permuted,
//! repeated and in other batches. `RADARFLOW_TRACES` sets how many (of 3,000 hostile ones, and networks in proportion),
//! `RADARFLOW_SEED` replays one.

use std::collections::BTreeSet;

use radarflow_dataflows::identity::imagine::imagine;
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{IpLink, LinkKind};
use radarflow_proto::ports::{FoundRecord, Imagine, Placements, RecordQuery, Supposed};
use radarflow_proto::record::Identifier;
use radarflow_proto::rows::StateRow;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use crate::harness::*;
use crate::oracle::{Answer, MACS, Poll, Saying, Step, World, identifier};

pub(crate) fn answer(tables: &Tables) -> Answer {
    let devices = tables.devices().into_iter().map(|d| {
        // The oracle's addresses are text.
        let ips: BTreeSet<String> = d.ip_addresses.iter().cloned().collect();
        (d.uid.clone(), (ips.into_iter().collect(), d.discovery_sources.clone()))
    });
    let owners = tables.state.values().filter_map(|r| match r {
        StateRow::IpOwnership(o) => Some((o.ip.clone(), o.device_uid.clone())),
        _ => None,
    });
    let identifiers = tables.state.values().filter_map(|r| match r {
        StateRow::DeviceIdentifier(i) => {
            Some((format!("{}:{}", i.identifier_type, i.identifier_value), (i.state.clone(), i.device_uid.clone())))
        }
        _ => None,
    });
    (devices.collect(), owners.collect(), identifiers.collect())
}

/// A small and hostile universe: few identifiers, many collisions.
pub(crate) fn trace(rng: &mut StdRng) -> Vec<Step> {
    let n = rng.random_range(3..24);
    let mut seconds: Vec<i64> = (0..n).collect();
    seconds.shuffle(rng);
    let links = rng.random_bool(0.4);
    let polls = rng.random_bool(0.4);
    let hosts = ["h1", "h2"];
    seconds
        .into_iter()
        .map(|second| {
            let pick = |rng: &mut StdRng, from: &[&'static str]| from[rng.random_range(0..from.len())];
            let ip = |rng: &mut StdRng| format!("10.0.0.{}", rng.random_range(1..4));
            if links && rng.random_bool(0.2) {
                // Where operators link addresses they often link one to another.
                let addresses = rng.random_bool(0.2);
                let end = |rng: &mut StdRng| match rng.random_range(if addresses { 0..2 } else { 0..8 }) {
                    0 if !addresses || rng.random_bool(0.2) => format!("mac:{}", MACS[rng.random_range(0..4)]),
                    0 | 1 => format!("ip:{}", ip(rng)),
                    2 => format!("agent:{}", rng.random_range(1..3)),
                    3 | 4 => format!("netbox:{}", rng.random_range(1..4)),
                    _ => format!("armis:{}", rng.random_range(1..4)),
                };
                let id = format!("l{}", rng.random_range(0..3));
                return match rng.random_range(0..8) {
                    0 | 1 => Step::Unlink(id),
                    2..=4 => Step::Link(id, LinkKind::Must, end(rng), end(rng)),
                    _ => Step::Link(id, LinkKind::Cannot, end(rng), end(rng)),
                };
            }
            if rng.random_bool(0.03) {
                let policies = [IpLink::Corroborated, IpLink::Immediate, IpLink::Off];
                return Step::Policy(policies[rng.random_range(0..3)]);
            }
            if rng.random_bool(0.1) {
                let ip = ip(rng);
                return Step::Say(Saying {
                    second,
                    deleted: false,
                    source: ("sweep", ip.clone()),
                    carries: BTreeSet::new(),
                    macs: vec![],
                    ips: vec![ip],
                    host: None,
                    run: 0,
                });
            }
            if polls && rng.random_bool(0.4) {
                // One address is nobody's but by alias, and most polls list it.
                let listed = (2..5).filter(|n| rng.random_bool(if *n == 4 { 0.8 } else { 0.3 }));
                let ips: Vec<String> = listed.map(|n| format!("10.0.0.{n}")).collect();
                let macs: BTreeSet<&'static str> = (0..rng.random_range(0..2)).map(|_| pick(rng, &MACS)).collect();
                if !ips.is_empty() || !macs.is_empty() {
                    let device = format!("10.0.0.{}", rng.random_range(1..3));
                    return Step::Poll(Poll { second, device, ips, macs: macs.into_iter().collect() });
                }
            }
            let kind = match polls && rng.random_bool(0.4) {
                true => "mapper",
                false => pick(rng, &["armis", "netbox", "integration", "mapper", "agent"]),
            };
            let ips: BTreeSet<String> = (0..rng.random_range(0..3)).map(|_| ip(rng)).collect();
            let mut ips: Vec<String> = ips.into_iter().collect();
            let key = match kind {
                // A polled address is the record's key, and its first address.
                "mapper" => {
                    let polled = ip(rng);
                    ips = vec![polled.clone()];
                    polled
                }
                _ => pick(rng, &["1", "2", "3"]).to_owned(),
            };
            let mut carries = BTreeSet::new();
            if matches!(kind, "armis" | "netbox" | "integration") {
                for other in ["agent", "armis", "netbox"] {
                    if other != kind && rng.random_bool(0.25) {
                        carries.insert(format!("{other}:{}", pick(rng, &["1", "2"])));
                    }
                }
            }
            let mut macs: Vec<&'static str> = Vec::new();
            for _ in 0..if kind == "agent" { 0 } else { rng.random_range(0..3) } {
                let mac = pick(rng, &MACS);
                if !macs.contains(&mac) {
                    macs.push(mac);
                }
            }
            let host = rng.random_bool(0.4).then(|| pick(rng, &hosts));
            // An agent that says nothing of itself is only a heartbeat.
            let host = if kind == "agent" { host.or(Some("h3")) } else { host };
            Step::Say(Saying {
                second,
                deleted: kind != "agent" && rng.random_bool(0.12),
                source: (kind, key),
                carries,
                macs,
                ips,
                host,
                // Runs of agents are minutes of receipt, all one here.
                run: if kind == "agent" { 99 } else { rng.random_range(0..5) },
            })
        })
        .collect()
}

/// A network as they are: every device has its own name, address and MAC in several inventories, and life goes on: devices
/// swap addresses, move, are renamed, go and come back; docking stations lend their MACs; agents check in; sweeps pass.
fn network(rng: &mut StdRng) -> Vec<Step> {
    // Their names are made up as they are needed, and live as long as the test.
    let kept = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    struct Device {
        mac: &'static str,
        host: &'static str,
        ip: usize,
        dock: Option<usize>,
    }
    let n = rng.random_range(8..30);
    let docks: Vec<&'static str> = (0..3).map(|d| kept(format!("0CD0C000000{d}"))).collect();
    let device = |d: usize| Device {
        mac: kept(format!("0CEA000000{d:02X}")),
        host: kept(format!("host-{d}")),
        ip: d,
        dock: None,
    };
    let mut devices: Vec<Device> = (0..n).map(device).collect();
    let mut renamed = 0;
    let mut steps = Vec::new();
    let mut second = 0;
    let mut say = |rng: &mut StdRng, devices: &[Device], d: usize, kind: &'static str, deleted: bool, run: u32| {
        second += 1;
        let device = &devices[d];
        let ip = format!("10.0.1.{}", device.ip);
        let mut macs: Vec<&'static str> = Vec::new();
        let mut carries = BTreeSet::new();
        match kind {
            "armis" => macs.extend([Some(device.mac), device.dock.map(|dock| docks[dock])].into_iter().flatten()),
            // An inventory that knows what another calls it.
            "netbox" if d.is_multiple_of(3) => drop(carries.insert(format!("armis:{d}"))),
            "netbox" => macs.push(device.mac),
            _ => {}
        }
        if rng.random_bool(0.1) {
            macs.reverse();
        }
        let of_address = matches!(kind, "mapper" | "sweep");
        let key = if of_address { ip.clone() } else { d.to_string() };
        let host = (kind != "sweep").then_some(device.host);
        steps.push(Step::Say(Saying { second, deleted, source: (kind, key), carries, macs, ips: vec![ip], host, run }));
    };
    for run in 0..rng.random_range(2..5u32) {
        for d in 0..n {
            say(rng, &devices, d, "armis", false, run);
            if d % 5 < 3 {
                say(rng, &devices, d, "netbox", false, run);
            }
            if d % 7 == 0 {
                say(rng, &devices, d, "agent", false, 99);
            }
            if d % 4 == 1 {
                say(rng, &devices, d, "mapper", false, run);
            }
            if rng.random_bool(0.3) {
                say(rng, &devices, d, "sweep", false, 0);
            }
        }
        for _ in 0..rng.random_range(0..6) {
            let (a, b) = (rng.random_range(0..n), rng.random_range(0..n));
            match rng.random_range(0..6) {
                0 | 1 => {
                    (devices[a].ip, devices[b].ip) = (devices[b].ip, devices[a].ip);
                    // One inventory hears of it before the others.
                    say(rng, &devices, a, "armis", false, run);
                }
                2 => devices[a].ip = n + rng.random_range(0..10),
                3 => {
                    renamed += 1;
                    devices[a].host = kept(format!("host-{a}-{renamed}"));
                }
                4 => devices[a].dock = rng.random_bool(0.7).then(|| rng.random_range(0..3)),
                _ => {
                    let kind = ["armis", "netbox"][rng.random_range(0..2)];
                    say(rng, &devices, a, kind, true, run);
                }
            }
        }
    }
    steps
}

/// Properties (d) and (f): a device holds one value of a namespace unless operators say otherwise; names are unique;
/// every redirect is one hop and ends at a device that is there, as do identifiers and owned addresses.
pub(crate) fn sound(tables: &Tables, operated: bool) {
    let devices: BTreeSet<String> = tables.uids().into_iter().collect();
    assert_eq!(devices.len(), tables.devices().len(), "names are unique");
    let mut held: BTreeSet<(String, String, String)> = BTreeSet::new();
    for row in tables.state.values() {
        match row {
            StateRow::DeviceRedirect(r) => {
                assert!(devices.contains(&r.to_uid), "{r:?} ends nowhere");
                assert!(!devices.contains(&r.from_uid), "{r:?} is the name of a device");
            }
            StateRow::DeviceIdentifier(i) => {
                let Some(uid) = &i.device_uid else { continue };
                assert!(devices.contains(uid), "{i:?} is held by nobody");
                let one = held.insert((uid.clone(), i.identifier_type.clone(), i.source_instance.clone()));
                assert!(one || operated || i.identifier_type == "mac", "{i:?} is the second of its namespace");
            }
            StateRow::IpOwnership(o) => {
                assert!(o.device_uid.as_ref().is_none_or(|uid| devices.contains(uid)), "{o:?} is owned by nobody");
            }
            _ => {}
        }
    }
}

/// Traces that share a dataflow, each the only one of its tenant: what one does must not show in another.
const TOGETHER: [&str; 12] = ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9", "t10", "t11"];

/// Makes traces.
type Universe = fn(&mut StdRng) -> Vec<Step>;

/// A trace on its way through a dataflow.
struct Play {
    tenant: &'static str,
    seed: u64,
    rng: StdRng,
    world: World,
    taken: Vec<Step>,
    rest: Vec<Step>,
}

impl Play {
    fn new(tenant: &'static str, seed: u64, universe: Universe) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut rest = universe(&mut rng);
        rest.reverse();
        Play { tenant, seed, rng, world: World::default(), taken: Vec::new(), rest }
    }

    /// Takes some steps more.
    fn inputs(&mut self) -> Vec<Input> {
        let most = 4.max(self.rest.len() / 12);
        let n = self.rng.random_range(1..=most).min(self.rest.len());
        let now: Vec<Step> = (0..n).filter_map(|_| self.rest.pop()).collect();
        now.iter().for_each(|step| self.world.take(step));
        let inputs = now.iter().map(|step| Input { tenant: self.tenant, ..step.input(self.tenant) }).collect();
        self.taken.extend(now);
        inputs
    }

    /// What sources said in another order, some of it twice, in other batches.
    fn permuted(&mut self) -> Vec<Vec<Input>> {
        let (mut sayings, facts): (Vec<Step>, Vec<Step>) =
            self.taken.iter().cloned().partition(|s| matches!(s, Step::Say(_) | Step::Poll(_)));
        let again = sayings.iter().filter(|_| self.rng.random_bool(0.3)).cloned().collect::<Vec<_>>();
        sayings.extend(again);
        sayings.shuffle(&mut self.rng);
        let batch = self.rng.random_range(1..=sayings.len().max(1));
        let (before, after) = facts.split_at(facts.len() / 2);
        let batches = [before].into_iter().chain(sayings.chunks(batch)).chain([after]);
        let input = |step: &Step| Input { tenant: self.tenant, ..step.input(self.tenant) };
        batches.map(|steps| steps.iter().map(input).collect()).collect()
    }
}

/// Plays traces; tells in how many epochs an alias owned an address.
fn check(seeds: &[u64], universe: Universe) -> usize {
    let mut plays: Vec<Play> =
        TOGETHER.iter().zip(seeds).map(|(tenant, seed)| Play::new(tenant, *seed, universe)).collect();
    let workers = [1, 2, 4][(seeds[0] / TOGETHER.len() as u64 % 3) as usize];
    let instances = || -> Vec<Input> { TOGETHER.iter().flat_map(|tenant| instances_of(tenant)).collect() };
    let mut run = Run::new(workers);
    run.tick(instances());
    let mut aliased = 0;
    let is_alias = |row: &StateRow| matches!(row, StateRow::IpOwnership(o) if o.class == "alias");
    while plays.iter().any(|p| !p.rest.is_empty()) {
        run.tick(plays.iter_mut().flat_map(Play::inputs).collect());
        for play in &plays {
            let (seed, taken) = (play.seed, &play.taken);
            let tables = run.tables.of_tenant(play.tenant);
            assert_eq!(answer(&tables), play.world.answer(), "seed {seed}, {workers} workers, after {taken:#?}");
            sound(&tables, !play.world.links.is_empty());
            aliased += usize::from(tables.state.values().any(is_alias));
        }
    }
    // On other workers: the same devices.
    let mut other = Run::new(3 - workers.min(2));
    other.tick(instances());
    let mut batches: Vec<_> = plays.iter_mut().map(|p| p.permuted().into_iter()).collect();
    loop {
        let now: Vec<Vec<Input>> = batches.iter_mut().filter_map(Iterator::next).collect();
        if now.is_empty() {
            break;
        }
        other.tick(now.into_iter().flatten().collect());
    }
    for play in &plays {
        let (a, b) = (other.tables.of_tenant(play.tenant), run.tables.of_tenant(play.tenant));
        assert_eq!(answer(&a), answer(&b), "seed {}, permuted", play.seed);
    }
    aliased
}

/// What is imagined of the next steps is what they then do: to each trace its last link, policy or record.
#[test]
fn what_is_imagined_is_what_happens() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut steps = trace(&mut rng);
        let Some(last) = steps.pop() else { continue };
        // A sighting that is no newest version, or a sweep of what an agent said, is none of what is asked about.
        let mut run = Run::new(1 + (seed % 2) as usize);
        run.tick(instances());
        run.tick(steps.iter().map(|step| step.input("t")).collect());
        let records = everything(&run);
        let first_seen = first_seen(&run.tables);
        let links = steps.iter().filter_map(|step| step.fact("t")).collect();
        let then = match &last {
            Step::Say(said) if said.deleted => {
                let key =
                    |f: &&FoundRecord| f.record.key.kind.name() == said.source.0 && f.record.key.key == said.source.1;
                records.iter().find(key).map(|f| Supposed::Gone(f.record.key.clone()))
            }
            Step::Say(_) => None,
            step => step.fact("t").map(Supposed::Fact),
        };
        let Some(then) = then else { continue };
        // The newest word is the last one's: a deletion counts whatever its time.
        let last = match last {
            Step::Say(said) => Step::Say(Saying { second: 1000, ..said }),
            last => last,
        };
        let imagined = imagine(&Imagine { records, first_seen, facts: links, then: vec![then] });
        assert_eq!(imagined.before, places(&run), "seed {seed}, before");
        run.tick(vec![last.input("t")]);
        assert_eq!(imagined.after, places(&run), "seed {seed}, after {last:?}");
    }
}

fn everything(run: &Run) -> Vec<FoundRecord> {
    let mut found = run.find(RecordQuery::Site { tenant: "t".into(), partition: "default".into() });
    let records = found.iter().map(|f| f.record.clone()).collect();
    for share in run.find(RecordQuery::Remembered { records }) {
        let known = found.iter_mut().find(|f| f.record.key == share.record.key).unwrap();
        known.settled.extend(share.settled);
        known.aliases.extend(share.aliases);
    }
    found
}

fn places(run: &Run) -> Placements {
    everything(run).into_iter().map(|f| (f.record.key, (f.uid, f.how))).collect()
}

fn first_seen(tables: &Tables) -> Vec<(Identifier, Time)> {
    let row = |row: &StateRow| match row {
        StateRow::DeviceIdentifier(i) => {
            Some((identifier(&format!("{}:{}", i.identifier_type, i.identifier_value)), i.first_seen?))
        }
        _ => None,
    };
    tables.state.values().filter_map(row).collect()
}

/// Checks so many traces; tells in how many epochs an alias owned an address.
fn check_all(traces: u64, universe: Universe) -> usize {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seeds: Vec<u64> = match number("RADARFLOW_SEED") {
        Some(seed) => vec![seed],
        None => (0..traces).collect(),
    };
    let check = |seeds: &[u64]| {
        // Shown when the test fails.
        eprintln!("RADARFLOW_SEED={}..", seeds[0]);
        check(seeds, universe)
    };
    seeds.chunks(TOGETHER.len()).map(check).sum()
}

/// How many traces, of so many in the suite.
fn traces(usual: u64) -> u64 {
    let asked: Option<u64> = std::env::var("RADARFLOW_TRACES").ok().and_then(|n| n.parse().ok());
    asked.map_or(usual, |asked| asked * usual / 3000)
}

#[test]
fn incremental_equals_from_scratch_at_every_epoch() {
    let traces = traces(3000);
    let aliased = check_all(traces, trace);
    assert!(aliased as u64 >= traces / 10, "{aliased} epochs with aliases in {traces} traces");
}

#[test]
fn networks_as_they_are_are_what_they_are_from_scratch() {
    check_all(traces(24), network);
}
