//! The engine of a site after any epochs says what a fresh one says of the same facts: a read that marks forget is found
//! here. `RADARFLOW_WORLDS` and `RADARFLOW_SEED` say how many and which.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use radarflow_dataflows::identity::engine::{Changes, Deciding, Outs, Published, Publishing};
use radarflow_dataflows::records::{Asserted, FirstSeen, Live, Version};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Actor, IpLink, Link, LinkKind, Role};
use radarflow_proto::record::{IdKind, Identifier, Record, RecordKey, SourceKind};
use radarflow_reconcile::identity::assertions::{Scope, is_global, mac_identifier};
use radarflow_reconcile::identity::name::{Name, identifier_uid};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Shared by all, the last two local.
const MACS: [&str; 5] = ["0C0000000001", "0C0000000002", "0C0000000003", "0E0000000001", "0E0000000002"];

/// How a world is made.
#[derive(Clone, Copy)]
struct Size {
    /// Values of a kind.
    wide: u32,
    /// Addresses.
    addresses: u32,
    /// Changes of an epoch, at most.
    batch: u32,
    links: bool,
    aliases: bool,
}

fn id(kind: IdKind, namespace: &str, value: u32) -> Identifier {
    Identifier { kind, namespace: namespace.into(), value: value.to_string() }
}

fn ip(rng: &mut StdRng, wide: u32) -> IpAddr {
    IpAddr::from([10, 0, 0, rng.random_range(1..=wide) as u8])
}

fn pick<T: Clone>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())].clone()
}

/// A record, the addresses that it has claimed for long, and whether it is an agent's that is stale.
fn record(rng: &mut StdRng, at: i64, size: Size) -> (Live, BTreeSet<IpAddr>) {
    use SourceKind::{Agent, Armis, Integration, Mapper, NetBox, Sweep};
    let kind = pick(rng, &[Armis, NetBox, Integration, Mapper, Mapper, Agent, Sweep]);
    let n = rng.random_range(1..=size.wide);
    let ips: BTreeSet<IpAddr> = (0..rng.random_range(0..3)).map(|_| ip(rng, size.addresses)).collect();
    let mut ips: Vec<IpAddr> = ips.into_iter().collect();
    let (mut ids, mut key) = (Vec::new(), n.to_string());
    match kind {
        Armis => ids.push(id(IdKind::Armis, "", n)),
        NetBox => ids.push(id(IdKind::NetBox, "", n)),
        Agent => ids.push(id(IdKind::Agent, "", n)),
        Integration if rng.random_bool(0.6) => ids.push(id(IdKind::Integration, "snow.main", n)),
        Integration => key = format!("serial:{n}"),
        _ => {
            ips = vec![ip(rng, size.addresses)];
            // Where there are many records there are several at an address.
            key = if size.addresses < size.wide { format!("{}-{n}", ips[0]) } else { ips[0].to_string() };
        }
    }
    if matches!(kind, Armis | NetBox | Integration) {
        for other in [IdKind::Agent, IdKind::Armis, IdKind::NetBox] {
            let carried = id(other, "", rng.random_range(1..=size.wide.min(3)));
            if rng.random_bool(0.2) && !ids.contains(&carried) {
                ids.push(carried);
            }
        }
    }
    let (mut macs, mut macs_shown) = (Vec::new(), Vec::new());
    for _ in 0..if matches!(kind, Sweep | Agent) { 0 } else { rng.random_range(0..3) } {
        let own = size.wide > 6 && rng.random_bool(if size.wide == 40 { 0.2 } else { 0.7 });
        let mac =
            if own { format!("0C00000001{:02X}", rng.random_range(0..size.wide)) } else { pick(rng, &MACS).to_owned() };
        if !macs.contains(&mac) && !macs_shown.contains(&mac) {
            (if kind == NetBox || rng.random_bool(0.3) { &mut macs_shown } else { &mut macs }).push(mac);
        }
    }
    let named = kind != Sweep && rng.random_bool(0.5);
    let hostname = named.then(|| format!("h{}", rng.random_range(1..=size.wide.min(8))));
    let for_long = kind != Sweep && rng.random_bool(0.3);
    let partition = matches!(kind, Mapper | Sweep).then(|| "default".to_owned());
    let record = Record {
        key: RecordKey { tenant: "t".into(), kind, instance: "main".into(), partition, key },
        partition: "default".into(),
        event_time: Time(at),
        ids,
        macs,
        macs_shown,
        hostname,
        ips: ips.clone(),
        ..Record::default()
    };
    let version = Version::new(&record);
    let version = if kind == Agent && rng.random_bool(0.4) { version.grown_stale() } else { version };
    (version.into(), if for_long { ips.into_iter().collect() } else { BTreeSet::new() })
}

/// An end of a link.
fn end(rng: &mut StdRng, size: Size) -> Identifier {
    let few = size.wide.min(4);
    match rng.random_range(0..6) {
        0 => id(IdKind::Armis, "", rng.random_range(1..=few)),
        1 => id(IdKind::NetBox, "", rng.random_range(1..=few)),
        2 => id(IdKind::Agent, "", rng.random_range(1..=few)),
        3 => Identifier { kind: IdKind::Mac, namespace: String::new(), value: pick(rng, &MACS).into() },
        _ => Identifier { kind: IdKind::Ip, namespace: String::new(), value: ip(rng, few).to_string() },
    }
}

/// All facts of a site.
#[derive(Clone, Default)]
struct World {
    records: BTreeMap<RecordKey, (Live, BTreeSet<IpAddr>)>,
    aliases: BTreeSet<(Name, (IpAddr, Time))>,
    links: BTreeMap<u32, Link>,
    policy: IpLink,
    /// With how many live records assert each.
    seen: BTreeMap<Name, (FirstSeen, i32)>,
}

/// What changes from one set to the other.
fn changes<T: Ord + Clone>(was: &BTreeSet<T>, is: &BTreeSet<T>) -> Vec<(T, isize)> {
    let gone = was.difference(is).map(|row| (row.clone(), -1));
    gone.chain(is.difference(was).map(|row| (row.clone(), 1))).collect()
}

impl World {
    fn lives(&self) -> BTreeSet<Live> {
        self.records.values().map(|(live, _)| live.clone()).collect()
    }

    fn settled(&self) -> BTreeSet<(Name, Name)> {
        let of = |(live, settled): &(Live, BTreeSet<IpAddr>)| -> Vec<(Name, Name)> {
            live.says.ips.iter().filter(|a| settled.contains(&a.ip)).map(|a| (live.key, a.name)).collect()
        };
        self.records.values().flat_map(of).collect()
    }

    fn remembered(&self) -> BTreeSet<FirstSeen> {
        self.seen.values().map(|(seen, _)| seen.clone()).collect()
    }

    /// Notes that a record asserts its identifiers, or no longer.
    fn assert(&mut self, live: &Live, diff: i32) {
        let (record, scope) = (live.record(), Scope::of("t", "default"));
        let mac = |mac: &String| u64::from_str_radix(mac, 16).ok().filter(|m| is_global(*m)).map(mac_identifier);
        for id in record.ids.iter().cloned().chain(record.macs.iter().filter_map(mac)) {
            let name = scope.id(&id).name;
            let uid = identifier_uid("default", &id).into();
            let new = || {
                let id = Asserted { scope: scope.clone(), uid, id }.into();
                (FirstSeen { name, first: Time(i64::MAX), id, last_record: None }, 0)
            };
            let (seen, live_ones) = self.seen.entry(name).or_insert_with(new);
            seen.first = seen.first.min(record.event_time);
            *live_ones += diff;
            seen.last_record = (*live_ones == 0).then_some(live.key);
        }
    }

    /// Something happens; tells what.
    fn happen(&mut self, rng: &mut StdRng, at: i64, size: Size) -> String {
        match rng.random_range(0..100) {
            0..20 if !self.records.is_empty() => {
                let nth = rng.random_range(0..self.records.len());
                let key = self.records.keys().nth(nth).cloned().expect("there are as many");
                let (old, _) = self.records.remove(&key).expect("it is there");
                self.assert(&old, -1);
                format!("{key:?} goes")
            }
            20..28 if size.links => {
                let n = rng.random_range(0..6);
                if self.links.remove(&n).is_some() {
                    return format!("link {n} goes");
                }
                let link = Link {
                    tenant: "t".into(),
                    partition: "default".into(),
                    id: n.to_string(),
                    kind: pick(rng, &[LinkKind::Must, LinkKind::Cannot]),
                    a: end(rng, size),
                    b: end(rng, size),
                    actor: Actor { name: "test".into(), role: Role::Operator },
                    reason: String::new(),
                };
                self.links.insert(n, link.clone());
                format!("link {n}: {:?} {:?} {:?}", link.kind, link.a, link.b)
            }
            28..30 => {
                self.policy = pick(rng, &[IpLink::Corroborated, IpLink::Corroborated, IpLink::Immediate, IpLink::Off]);
                format!("policy {:?}", self.policy)
            }
            30..33 if !self.seen.is_empty() => {
                let nth = rng.random_range(0..self.seen.len());
                let (name, live) = self.seen.iter().nth(nth).map(|(n, (_, live))| (*n, *live)).expect("as many");
                if live == 0 {
                    self.seen.remove(&name);
                }
                format!("{name:?} is forgotten, if nobody asserts it")
            }
            33..40 if size.aliases => {
                let polled = self.records.values().filter(|(live, _)| live.says.kind == SourceKind::Mapper);
                let polled: Vec<Name> = polled.map(|(live, _)| live.key).collect();
                if polled.is_empty() {
                    return String::new();
                }
                let alias = (pick(rng, &polled), (ip(rng, size.addresses), Time(rng.random_range(1..4))));
                if !self.aliases.remove(&alias) {
                    self.aliases.insert(alias);
                }
                format!("{alias:?} comes or goes")
            }
            _ => {
                // Equal times happen.
                let (live, settled) = record(rng, 1000 + at / 2, size);
                self.assert(&live, 1);
                let record = live.record();
                let said = format!("{record:?}, for long at {settled:?}");
                if let Some((old, _)) = self.records.insert(record.key, (live, settled)) {
                    self.assert(&old, -1);
                }
                said
            }
        }
    }
}

/// An engine, and all that it says.
struct Site {
    deciding: Deciding,
    publishing: Publishing,
    said: BTreeMap<String, isize>,
    /// By record: what its device is called, by what is said of moves.
    moved: BTreeMap<Name, String>,
}

impl Site {
    fn new() -> Self {
        let scope = Scope::of("t", "default");
        let (deciding, publishing) = (Deciding::new(scope.name), Publishing::new(scope));
        Site { deciding, publishing, said: BTreeMap::new(), moved: BTreeMap::new() }
    }

    fn step(&mut self, was: &World, is: &World) {
        let links = |of: &World, other: &World, diff: isize| -> Vec<(Link, isize)> {
            of.links
                .iter()
                .filter(|(n, link)| other.links.get(n) != Some(link))
                .map(|(_, l)| (l.clone(), diff))
                .collect()
        };
        let (mut gone, new) = (links(was, is, -1), links(is, was, 1));
        gone.extend(new);
        let facts = Changes {
            records: changes(&was.lives(), &is.lives()),
            settled: changes(&was.settled(), &is.settled()),
            seen: changes(&was.remembered(), &is.remembered()),
            links: gone,
            policy: Some(is.policy),
        };
        let (mut rows, mut out) = (Vec::new(), Outs::default());
        self.deciding.step(facts, &mut rows);
        let aliases = changes(&was.aliases, &is.aliases);
        self.publishing.step(Published { rows, aliases, links: Some(self.deciding.link_said()) }, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Outs) {
        let mut say = |row: String, diff: isize| *self.said.entry(row).or_default() += diff;
        out.placements.into_iter().for_each(|((device, live), n)| say(format!("{device:?} {:?}", live.record()), n));
        out.names.into_iter().for_each(|(row, n)| say(format!("named {row:?}"), n));
        out.addresses.into_iter().for_each(|(row, n)| say(format!("owns {row:?}"), n));
        out.owners.into_iter().for_each(|(row, n)| say(format!("owned {row:?}"), n));
        out.address_owners.into_iter().for_each(|(row, n)| say(format!("{row:?}"), n));
        let rows = out.identifiers.into_iter().chain(out.redirects).chain(out.ownership);
        rows.for_each(|(row, n)| say(format!("{row:?}"), n));
        self.said.retain(|_, n| *n != 0);
        for (live, ..) in out.left {
            self.moved.remove(&live.key);
        }
        let arrived = out.audit.into_iter().filter(|(_, n)| *n > 0).map(|(is, _)| is);
        for (live, _, uid) in out.came.into_iter().chain(arrived) {
            self.moved.insert(live.key, uid.to_string());
        }
    }

    /// All that it says, each once.
    fn all(&self) -> BTreeSet<String> {
        assert!(self.said.values().all(|n| *n == 1), "what is said is said once: {:#?}", self.said);
        let placed = self.publishing.placed().map(|(live, how, uid)| {
            assert_eq!(self.moved[&live.key], **uid, "moves lead to where records are");
            format!("{:?} is in {uid} by {how:?}", live.record().key)
        });
        self.said.keys().cloned().chain(placed).collect()
    }
}

/// Plays a world; tells how many epochs it had.
fn play(seed: u64) -> u32 {
    let mut rng = StdRng::seed_from_u64(seed);
    // Where many share few addresses, more claim one than may.
    let crowded = seed.is_multiple_of(8);
    let wide = if crowded { 40 } else { pick(&mut rng, &[3, 5, 8, 14, 30]) };
    let (addresses, batch) = if crowded { (4, 40) } else { (wide, 12) };
    let size = Size { wide, addresses, batch, links: rng.random_bool(0.6), aliases: rng.random_bool(0.5) };
    let epochs = rng.random_range(2..60);
    let (mut site, mut world, mut at) = (Site::new(), World::default(), 0);
    for epoch in 0..epochs {
        let was = world.clone();
        let n = if rng.random_bool(0.5) { 1 } else { rng.random_range(1..size.batch) };
        let mut happened = Vec::new();
        for _ in 0..n {
            at += 1;
            happened.push(world.happen(&mut rng, at, size));
        }
        site.step(&was, &world);
        let mut fresh = Site::new();
        fresh.step(&World::default(), &world);
        let (kept, anew) = (site.all(), fresh.all());
        if kept != anew {
            let facts: Vec<Record> = world.lives().iter().map(|live| live.record()).collect();
            let (only_kept, only_anew) = (kept.difference(&anew), anew.difference(&kept));
            panic!(
                "seed {seed}, epoch {epoch}\nhappened {happened:#?}\nrecords {facts:#?}\nlinks {:#?}\nonly kept {:#?}\n\
                 only anew {:#?}",
                world.links,
                only_kept.collect::<Vec<_>>(),
                only_anew.collect::<Vec<_>>(),
            );
        }
    }
    epochs
}

#[test]
fn after_any_epochs_it_says_what_a_fresh_one_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seeds = match number("RADARFLOW_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RADARFLOW_WORLDS").unwrap_or(200),
    };
    let epochs: u32 = seeds.map(play).sum();
    eprintln!("{epochs} epochs");
}

#[test]
fn what_is_kept_wrongly_is_found_and_mended() {
    let mut rng = StdRng::seed_from_u64(1);
    let size = Size { wide: 30, addresses: 30, batch: 12, links: false, aliases: false };
    let (mut site, mut world) = (Site::new(), World::default());
    (0..60).for_each(|at| drop(world.happen(&mut rng, at, size)));
    site.step(&World::default(), &world);
    let right = site.all();
    let check = |site: &mut Site| -> usize {
        let mut wrong = 0;
        // Each takes some units; all are taken in turn.
        for _ in 0..200 {
            let (mut rows, mut out) = (Vec::new(), Outs::default());
            wrong += site.deciding.check(&mut rows);
            site.publishing.step(Published { rows, ..Published::default() }, &mut out);
            wrong += site.publishing.check(&mut out);
            site.take(out);
        }
        wrong
    };
    assert_eq!(check(&mut site), 0);
    let held = world.seen.values().find(|(_, live)| *live > 0).map(|(seen, _)| seen.name).expect("somebody is known");
    let (mut rows, mut out) = (Vec::new(), Outs::default());
    site.deciding.plant_fault(held, &mut rows);
    site.publishing.step(Published { rows, ..Published::default() }, &mut out);
    site.take(out);
    assert_ne!(site.all(), right);
    assert!(check(&mut site) > 0);
    assert_eq!(site.all(), right);
    assert_eq!(check(&mut site), 0);
}
