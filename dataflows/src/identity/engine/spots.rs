//! Stage 3: who owns an address, kept up to date.
//!
//! ```text
//! first(a) :- greatest claim of devices' records, of aliases that these report, of operators' links
//!             | the device of the records known by a alone
//! last(a)  :- first(a), unless only sweeps know a, or nobody
//!             | greatest alias that records known by an address alone report: of the device that first gives that address to
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::identity::name::{Name, ip_uid};
use radarflow_reconcile::identity::stages::{Claim, Owner, owner};
use radarflow_reconcile::identity::{ClaimClass, MAX_CLAIMANTS};

use super::outs::Outs;
use super::publish::{Marked, Publishing};
use super::rows::LinkSaid;
use super::sets::{Few, Named};

/// An address, who claims it, and who owns it.
pub(super) struct Spot {
    name: Name,
    pub(super) ip: IpAddr,
    /// Records that claim it.
    pub(super) claims: Few,
    /// Addresses that are given to the device of this one.
    pub(super) owned: Few,
    /// Records known by it alone.
    alone: u32,
    /// Of an address that very many claim.
    crowd: Option<Box<Crowd>>,
    pub(super) decision: Option<Decision>,
    /// What the owner was said to be called.
    called: Option<Arc<str>>,
}

/// What is known of an address that very many claim, so that not all of them are asked whenever one changes: while the
/// witnesses stand and nothing stronger comes, it is shared.
#[derive(Default)]
struct Crowd {
    /// Claims of devices' records by class.
    classes: [u32; CLASSES],
    /// Records of different devices that claim it at the deciding class, one more than may.
    witnesses: Vec<u32>,
}

const CLASSES: usize = ClaimClass::Operator as usize + 1;
/// Claims that make a crowd.
const CROWD: usize = 64;

impl Crowd {
    /// The deciding class of devices' records.
    fn class(&self) -> Option<usize> {
        self.classes.iter().rposition(|n| *n > 0)
    }
}

impl Named for Spot {
    fn name(&self) -> Name {
        self.name
    }
}

impl Spot {
    pub(super) fn new(name: Name, ip: IpAddr) -> Self {
        let (claims, owned) = (Few::default(), Few::default());
        Spot { name, ip, claims, owned, alone: 0, crowd: None, decision: None, called: None }
    }
}

/// Who owns an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) holder: Holder,
    pub(super) class: ClaimClass,
    /// There are records known by the address alone.
    pub(super) alone: bool,
    pub(super) since: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A device.
    Device(u32),
    /// The device that another address names.
    At(u32),
    /// The device of the records known by it alone.
    Itself,
    /// Nobody: too many claim it.
    Shared,
}

impl Decision {
    /// Whether the address names a device.
    fn names(&self) -> bool {
        self.alone && matches!(self.holder, Holder::Itself | Holder::Shared)
    }
}

impl Publishing {
    /// Counts the claims of a record, or no longer.
    pub(super) fn count(&mut self, rec: u32, claims: bool) {
        let placed = &self.recs[rec];
        let Some(live) = &placed.live else { return };
        let change = |n: &mut u32| if claims { *n += 1 } else { *n -= 1 };
        for (nth, spot) in placed.addresses.iter().enumerate() {
            let spot = &mut self.spots[*spot];
            match (placed.device, &mut spot.crowd) {
                (None, _) if nth == 0 => change(&mut spot.alone),
                (Some(_), Some(crowd)) if !placed.addresses[..nth].contains(&placed.addresses[nth]) => {
                    change(&mut crowd.classes[live.class() as usize]);
                }
                _ => {}
            }
        }
    }

    /// Finds who bears witness that an address is shared, where very many claim it.
    fn gather(&mut self, spot: u32) {
        if self.spots[spot].claims.len() < CROWD {
            self.spots[spot].crowd = None;
            return;
        }
        let of = |rec: u32| {
            let placed = &self.recs[rec];
            Some((placed.device?.0, placed.live.as_ref()?.class() as usize))
        };
        let mut crowd = self.spots[spot].crowd.take().unwrap_or_else(|| {
            let mut crowd = Box::<Crowd>::default();
            let claims = self.spots[spot].claims.iter().filter_map(of);
            claims.for_each(|(_, class)| crowd.classes[class] += 1);
            crowd
        });
        let class = crowd.class();
        let differ = |recs: &mut dyn Iterator<Item = u32>| -> Vec<u32> {
            let mut devices: Vec<u32> = Vec::new();
            let witness = |rec: &u32| {
                let device = of(*rec).filter(|(_, of)| Some(*of) == class).map(|(device, _)| device);
                let new = device.filter(|device| !devices.contains(device));
                devices.extend(new);
                new.is_some()
            };
            recs.filter(witness).take(MAX_CLAIMANTS + 1).collect()
        };
        let claims = |rec: &u32| self.recs[*rec].addresses.contains(&spot);
        let mut witnesses = differ(&mut crowd.witnesses.iter().copied().filter(claims));
        if witnesses.len() <= MAX_CLAIMANTS {
            witnesses = differ(&mut self.spots[spot].claims.iter());
        }
        crowd.witnesses = witnesses;
        self.spots[spot].crowd = Some(crowd);
    }

    /// The class at which too many claim an address, if witnesses say so and nothing else can be stronger.
    fn witnessed(&self, spot: u32) -> Option<ClaimClass> {
        let entry = &self.spots[spot];
        let crowd = entry.crowd.as_ref().filter(|crowd| crowd.witnesses.len() > MAX_CLAIMANTS)?;
        let witness = &self.recs[*crowd.witnesses.first()?];
        let class = witness.live.as_ref()?.class();
        let others = self.links.contains_key(&entry.name) || self.reported.contains_key(&spot);
        (!others || (class > ClaimClass::Alias && !self.links.contains_key(&entry.name))).then_some(class)
    }

    /// Records known by an address alone.
    pub(super) fn alone_at(&self, spot: u32) -> impl Iterator<Item = u32> + '_ {
        let claims = (self.spots[spot].alone > 0).then(|| self.spots[spot].claims.iter());
        claims.into_iter().flatten().filter(move |rec| {
            let placed = &self.recs[*rec];
            placed.device.is_none() && placed.addresses.first() == Some(&spot)
        })
    }

    /// The device that owns an address, and what it is called.
    pub(super) fn owner(&self, spot: &Spot, holder: Holder) -> (Name, Option<Arc<str>>) {
        let itself = |spot: &Spot| (spot.name, Some(ip_uid(&self.scope.partition, spot.ip).into()));
        match holder {
            Holder::Device(device) => (self.devices[device].name, self.devices[device].uid().cloned()),
            Holder::At(other) => itself(&self.spots[other]),
            Holder::Itself | Holder::Shared => itself(spot),
        }
    }

    /// Decides marked addresses, and says what changed; marks records known by these alone.
    pub(super) fn decide(&mut self, marked: &mut Marked, out: &mut Outs) {
        let aliased = self.any_aliases() || !self.firsts.is_empty();
        if aliased {
            for spot in marked.spots.iter() {
                self.gather(spot);
                let first = self.first(spot);
                self.firsts.insert(spot, first);
                marked.aliased.add(spot);
                for rec in self.alone_at(spot) {
                    self.mark_second(rec, &mut marked.aliased);
                }
            }
        }
        let spots = if aliased { &marked.aliased } else { &marked.spots };
        for spot in spots.iter() {
            if !aliased {
                self.gather(spot);
            }
            let last = if aliased { self.last(spot) } else { self.first(spot) };
            if aliased && self.firsts.get(&spot) == Some(&last) {
                self.firsts.remove(&spot);
            } else if aliased && self.spots[spot].decision != last && !self.firsts.contains_key(&spot) {
                // It was the first, until now.
                self.firsts.insert(spot, self.spots[spot].decision);
            }
            let called = last.and_then(|last| match last.holder {
                Holder::Shared => None,
                holder => self.owner(&self.spots[spot], holder).1,
            });
            let entry = &self.spots[spot];
            if entry.decision == last && entry.called == called {
                continue;
            }
            if let Some(was) = entry.decision {
                self.say(entry, was, entry.called.as_ref(), -1, out);
            }
            if let Some(is) = last {
                self.say(entry, is, called.as_ref(), 1, out);
            }
            let was = self.spots[spot].decision;
            self.own(spot, was.map(|was| was.holder), last.map(|is| is.holder));
            let entry = &mut self.spots[spot];
            (entry.decision, entry.called) = (last, called);
            marked.recs.extend(self.alone_at(spot).collect::<Vec<_>>());
        }
    }

    /// Notes which addresses a device has.
    fn own(&mut self, spot: u32, was: Option<Holder>, is: Option<Holder>) {
        if was == is {
            return;
        }
        match was {
            Some(Holder::Device(device)) => self.devices[device].owned.remove(spot),
            Some(Holder::At(other)) => self.spots[other].owned.remove(spot),
            _ => {}
        }
        match is {
            Some(Holder::Device(device)) => self.devices[device].owned.add(spot),
            Some(Holder::At(other)) => self.spots[other].owned.add(spot),
            _ => {}
        }
    }

    fn say(&self, spot: &Spot, decision: Decision, called: Option<&Arc<str>>, diff: isize, out: &mut Outs) {
        let name = (self.scope.partition.as_str(), spot.ip);
        if decision.holder != Holder::Shared {
            let (device, _) = self.owner(spot, decision.holder);
            out.addresses.push(((device, spot.ip), diff));
            out.owners.push(((spot.name, device), diff));
        }
        if decision.names() {
            out.names.push(((spot.name, ip_uid(name.0, name.1).into()), diff));
        }
        if called.is_some() || decision.holder == Holder::Shared {
            out.owned(&self.scope, spot.ip, decision, called, diff);
        }
    }

    /// Who owns an address by the first round.
    fn first(&self, spot: u32) -> Option<Decision> {
        let entry = &self.spots[spot];
        if let Some(class) = self.witnessed(spot) {
            let (holder, since) = (Holder::Shared, Time::default());
            return Some(Decision { holder, class, alone: entry.alone > 0, since });
        }
        let of_records = entry.claims.iter().filter_map(|rec| {
            let placed = &self.recs[rec];
            let (device, _) = placed.device?;
            let live = placed.live.as_ref()?;
            Some(Claim { class: live.class(), at: live.says.at, device })
        });
        let of_aliases = self.reported.get(&spot).into_iter().flatten().filter_map(|(record, at)| {
            let placed = self.rec(*record)?;
            let (device, _) = placed.device?;
            let polled = placed.live.as_ref()?.says.kind == SourceKind::Mapper;
            polled.then_some(Claim { class: ClaimClass::Alias, at: *at, device })
        });
        let links = if self.links.is_empty() { None } else { self.links.get(&entry.name) };
        let links = links.into_iter().flatten();
        let barred: Vec<u32> = links
            .clone()
            .filter_map(|said| match said {
                LinkSaid::Bars(name) => self.devices.find(*name).filter(|d| self.devices[*d].best.is_some()),
                LinkSaid::Holds(_) => None,
            })
            .collect();
        let of_links = links.filter_map(|said| match said {
            LinkSaid::Holds(name) => {
                let device = self.devices.find(*name).filter(|d| self.devices[*d].uid().is_some())?;
                Some(Claim { class: ClaimClass::Operator, at: Time::default(), device })
            }
            LinkSaid::Bars(_) => None,
        });
        let said_alone = || self.alone_at(spot).filter_map(|rec| self.recs[rec].live.as_ref());
        let alone = || said_alone().map(|live| (live.class(), live.says.at));
        let spoken = of_records.clone().next().is_some() || of_aliases.clone().next().is_some();
        let any_alone = alone().next().is_some();
        // Without any record that speaks of the address there is nothing to decide.
        if !spoken && !any_alone {
            return None;
        }
        let claims = of_records.chain(of_aliases).chain(of_links).filter(|claim| !barred.contains(&claim.device));
        match owner(claims, alone()) {
            Owner::Nobody => None,
            Owner::Devices { equal, class, since } => {
                let named = |device: &u32| self.devices[*device].best.as_ref();
                let device = self.greatest(&equal, named)?;
                Some(Decision { holder: Holder::Device(device), class, alone: any_alone, since })
            }
            Owner::Itself { class, since } => Some(Decision { holder: Holder::Itself, class, alone: true, since }),
            Owner::Shared(class) => {
                Some(Decision { holder: Holder::Shared, class, alone: any_alone, since: Time::default() })
            }
        }
    }

    /// Of claimants that are equal, the one with the greatest name.
    fn greatest<'a, D: Copy>(&self, equal: &'a [D], name: impl Fn(&'a D) -> Option<&'a Arc<str>>) -> Option<D> {
        match equal {
            [one] => Some(*one),
            _ => equal.iter().filter_map(|d| Some((name(d)?, *d))).max_by(|a, b| a.0.cmp(b.0)).map(|(_, d)| d),
        }
    }

    /// Who owns an address by the first round, whether or not it is marked.
    fn first_of(&self, spot: u32) -> Option<Decision> {
        self.firsts.get(&spot).copied().unwrap_or(self.spots[spot].decision)
    }

    /// Who owns an address in the end.
    fn last(&self, spot: u32) -> Option<Decision> {
        let first = self.first_of(spot);
        let swept = first.is_some_and(|d| d.holder == Holder::Itself && d.class == ClaimClass::Sweep);
        if first.is_some() && !swept {
            return first;
        }
        let claims = self.reported.get(&spot).into_iter().flatten().filter_map(|(record, at)| {
            let placed = self.rec(*record)?;
            let polled = *placed.addresses.first()?;
            if placed.device.is_some() || placed.live.as_ref()?.says.kind != SourceKind::Mapper {
                return None;
            }
            let device = match self.first_of(polled)?.holder {
                Holder::Itself | Holder::Shared => Holder::At(polled),
                holder => holder,
            };
            Some(Claim { class: ClaimClass::Alias, at: *at, device })
        });
        let second = match owner(claims, std::iter::empty()) {
            Owner::Devices { equal, class, since } => {
                let entry = &self.spots[spot];
                let named: Vec<(Option<Arc<str>>, Holder)> =
                    equal.iter().map(|holder| (self.owner(entry, *holder).1, *holder)).collect();
                let holder = self.greatest(&named.iter().collect::<Vec<_>>(), |(name, _)| name.as_ref());
                holder.map(|(_, holder)| Decision { holder: *holder, class, alone: swept, since })
            }
            Owner::Shared(class) => {
                Some(Decision { holder: Holder::Shared, class, alone: swept, since: Time::default() })
            }
            Owner::Nobody | Owner::Itself { .. } => None,
        };
        second.or(first)
    }

    /// Lets go of an address of which nothing is left.
    pub(super) fn forget_spot(&mut self, spot: u32) {
        let entry = &self.spots[spot];
        let empty = entry.claims.len() == 0 && entry.owned.len() == 0 && entry.decision.is_none();
        if empty && !self.reported.contains_key(&spot) && !self.firsts.contains_key(&spot) {
            self.spots.remove(spot);
        }
    }
}
