//! Stage 3: who owns an address, and where the records known by it alone belong.
//!
//! ```text
//! claim(ip)  :- every address of every record of a device with a strong identifier or a MAC, by its source's class;
//!               confirmed aliases that its polled records report; addresses in its must-links
//! linked(c)  :- addresses that operators link to each other and to nothing else that is there are a device, if records
//!               are known by one of them alone; it is called by the least of these
//! owner(ip)  :- greatest claim by (class, event time, uid), unless more than sixteen devices claim at that class
//!               | the device of the records known by ip alone, unless only sweeps
//!               | greatest confirmed alias that those records report
//!               | the device of the sweeps
//! member(r)  :- owner(address(r)) | the device named by the address
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::{IdKind, SourceKind};
use radarflow_proto::rows::{DeviceRedirect, IpOwnership, StateRow};
use radarflow_reconcile::identity::assertions::{Scope, ip_name};
use radarflow_reconcile::identity::name::{Name, ip_uid};
use radarflow_reconcile::identity::{ClaimClass, MAX_CLAIMANTS};
use serde::{Deserialize, Serialize};

use super::relations::{Rel, Value, each, join, join_any, lookup_any, reduce};
use super::{AddressOwner, Component, How};
use crate::collection;
use crate::layout::{Arrangement, Batcher};

/// An address and where it is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Spot {
    pub(super) scope: Arc<Scope>,
    pub(super) ip: IpAddr,
}

impl Spot {
    fn uid(&self) -> Arc<str> {
        ip_uid(&self.scope.partition, self.ip).into()
    }
}

/// Who owns an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Decision {
    owner: Owner,
    /// The device, where one owns it.
    component: Component,
    class: ClaimClass,
    /// There are records known by the address alone.
    alone: bool,
    since: Time,
    spot: Spot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Owner {
    /// A device.
    Device,
    /// The device of the records known by it alone.
    Itself,
    /// Nobody: too many claim it.
    Shared,
}

/// What stage 3 reads of the stages before it.
pub(super) struct Claims<'scope> {
    /// By device: records of devices with a strong identifier or a MAC ([`Value::Member`]).
    pub(super) members: Rel<'scope>,
    /// Records known by an address alone ([`Value::Live`]).
    pub(super) alone: Rel<'scope>,
    /// By record: confirmed aliases that it reports ([`Value::Alias`]).
    pub(super) aliases: Rel<'scope>,
    /// By identifier: what operators say of it ([`Value::Must`], [`Value::MustIf`], [`Value::Barred`]).
    pub(super) linked: Rel<'scope>,
    /// By device: what those of the stages before are called ([`Value::Uid`]).
    pub(super) uids: Rel<'scope>,
}

/// What stage 3 gives.
pub(super) struct Ownership<'scope> {
    /// By device: records known by an address alone ([`Value::Member`]).
    pub(super) members: Rel<'scope>,
    /// By device: what those known by an address alone are called, and by several ([`Value::Uid`]).
    pub(super) uids: [Rel<'scope>; 2],
    /// By address: who owns it.
    pub(super) owners: Owners<'scope>,
    /// By device: addresses it owns ([`Value::Decision`]).
    pub(super) owned: Rel<'scope>,
    /// By address: who owns it and what they are called ([`Value::Named`]); and shared ones ([`Value::Decision`]).
    pub(super) named: Rel<'scope>,
}

/// A claim, ready to be weighed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    class: ClaimClass,
    at: Time,
    component: Component,
}

/// The address as everybody writes it.
fn canonical(ip: Ipv6Addr) -> IpAddr {
    IpAddr::V6(ip).to_canonical()
}

/// Who owns an address: one decision, or several that only names can tell apart.
fn rule(claims: &[(&Value, isize)]) -> Vec<Value> {
    let mut barred: BTreeSet<Component> = BTreeSet::new();
    let mut spot: Option<Spot> = None;
    let mut alone: Option<(bool, ClaimClass, Time)> = None;
    let mut weights: Vec<Weight> = Vec::with_capacity(claims.len());
    for (claim, _) in claims {
        match claim {
            Value::Barred(c) => {
                barred.insert(*c);
            }
            Value::Must(component) => {
                weights.push(Weight { class: ClaimClass::Operator, at: Time::default(), component: *component });
            }
            Value::Claim(class, nth, at, component, live) => {
                let ip = live.says.ips[usize::from(*nth)].ip;
                spot.get_or_insert_with(|| Spot { scope: live.says.scope.clone(), ip });
                weights.push(Weight { class: *class, at: *at, component: *component });
            }
            Value::AliasClaim(at, component, reported) => {
                spot.get_or_insert_with(|| (**reported).clone());
                weights.push(Weight { class: ClaimClass::Alias, at: *at, component: *component });
            }
            Value::Alone(class, at, scope, ip) => {
                spot.get_or_insert_with(|| Spot { scope: scope.clone(), ip: canonical(*ip) });
                alone = alone.max(Some((*class != ClaimClass::Sweep, *class, *at)));
            }
            _ => {}
        }
    }
    // Without any record that speaks of the address there is nothing to decide.
    let Some(spot) = spot else { return vec![] };
    weights.retain(|w| !barred.contains(&w.component));
    let Some(best) = weights.iter().max().copied() else {
        let itself = |(_, class, since)| Decision {
            owner: Owner::Itself,
            component: Component::default(),
            class,
            alone: true,
            since,
            spot,
        };
        return alone.map(|a| Value::Decision(itself(a).into())).into_iter().collect();
    };
    let alone = alone.is_some();
    let (class, since) = (best.class, best.at);
    // A million devices may claim one address: that there are too many is enough to know.
    let mut parties: BTreeSet<Component> = BTreeSet::new();
    let of_class = weights.iter().filter(|w| w.class == class);
    if of_class.map(|w| parties.insert(w.component)).filter(|new| *new).nth(MAX_CLAIMANTS).is_some() {
        let (owner, component, since) = (Owner::Shared, Component::default(), Time::default());
        return vec![Value::Decision(Decision { owner, component, class, alone, since, spot }.into())];
    }
    let equals: BTreeSet<Component> =
        weights.iter().filter(|w| (w.class, w.at) == (class, since)).map(|w| w.component).collect();
    let device = |component| Decision { owner: Owner::Device, component, class, alone, since, spot: spot.clone() };
    match equals.len() {
        1 => equals.into_iter().map(|c| Value::Decision(device(c).into())).collect(),
        _ => equals.into_iter().map(|c| Value::Tied(device(c).into())).collect(),
    }
}

/// Decisions by address: what one rule gives, ties included, and what names decide of these.
struct Decided<'scope> {
    ruled: Rel<'scope>,
    untied: Rel<'scope>,
}

impl<'scope> Decided<'scope> {
    /// Both, to join with: rows that are no [`Value::Decision`] have to be passed over.
    fn parts(&self) -> [&Rel<'scope>; 2] {
        [&self.ruled, &self.untied]
    }

    /// The decisions.
    fn all(&self) -> Rel<'scope> {
        let settled = each(&self.ruled, |address, v, out| {
            if let Value::Decision(_) = v {
                out.push((address, v));
            }
        });
        settled.concat(&self.untied)
    }
}

/// Decides who owns addresses, where claims are equal by the greatest uid.
fn decide<'scope>(claims: &Rel<'scope>, stage: &str, uids: &[&Rel<'scope>]) -> Decided<'scope> {
    let ruled = reduce(claims, stage, |_, claims, out| out.extend(rule(claims)));
    let tied = each(&ruled, |_, v, out| {
        if let Value::Tied(d) = &v {
            out.push((d.component, v));
        }
    });
    let named = join_any(&tied, uids, |_, tied, uid| match (tied, uid) {
        (Value::Tied(d), Value::Uid(uid)) => {
            let address = ip_name(d.spot.scope.name, d.spot.ip);
            Some((address, Value::Named((uid.clone(), d.clone()).into())))
        }
        _ => None,
    });
    let untied = reduce(&named, "Tied", |_, named, out| {
        if let Some((Value::Named(best), _)) = named.last() {
            out.push(Value::Decision(best.1.clone()));
        }
    });
    Decided { ruled, untied }
}

/// The device that a decision gives an address to.
fn device(address: Name, decision: &Decision) -> Component {
    match decision.owner {
        Owner::Device => decision.component,
        Owner::Itself | Owner::Shared => address,
    }
}

/// What devices known by an address alone are called.
fn own_uids<'scope>(decided: &Rel<'scope>) -> Rel<'scope> {
    each(decided, |address, d, out| {
        if let Value::Decision(d) = d
            && d.alone
            && d.owner != Owner::Device
        {
            out.push((address, Value::Uid(d.spot.uid())));
        }
    })
}

/// Records known by an address alone, by it.
fn by_address<'scope>(alone: &Rel<'scope>) -> Rel<'scope> {
    each(alone, |_, v, out| {
        if let Value::Live(live) = v
            && let Some(address) = live.says.address()
        {
            out.push((address.name, Value::Live(live)));
        }
    })
}

/// Devices that are known by several addresses alone, because operators link these.
struct Several<'scope> {
    /// By address ([`Value::Must`]).
    claims: Rel<'scope>,
    /// By device ([`Value::Uid`]).
    uids: Rel<'scope>,
}

/// `known` are addresses that records are known by alone ([`Value::Alone`]); `linked` says which components operators put
/// identifiers into ([`Value::MustIf`]).
fn several<'scope>(known: &Rel<'scope>, linked: &Rel<'scope>) -> Several<'scope> {
    let known = join(known, linked, |_, alone, link| match link {
        Value::MustIf(component) => Some((*component, alone.clone())),
        _ => None,
    });
    let uids = reduce(&known, "Several", |_, known, out| {
        let spots = known.iter().filter_map(|(v, _)| match v {
            Value::Alone(_, _, scope, ip) => Some(Spot { scope: scope.clone(), ip: canonical(*ip) }),
            _ => None,
        });
        out.extend(spots.min_by_key(|spot| spot.ip).map(|spot| Value::Uid(spot.uid())));
    });
    let ends = each(linked, |id, v, out| {
        if let Value::MustIf(component) = v {
            out.push((component, Value::Name(id)));
        }
    });
    let claims = join(&ends, &uids, |component, id, _| match id {
        Value::Name(id) => Some((*id, Value::Must(component))),
        _ => None,
    });
    Several { claims, uids }
}

/// Stage 3.
pub(super) fn ownership<'scope>(claims: Claims<'scope>) -> Ownership<'scope> {
    let Claims { members, alone, aliases, linked, uids } = claims;
    let of_devices = each(&members, |component, v, out| {
        if let Value::Member(live, _) = v {
            let claim = |nth: usize| Value::Claim(live.class(), nth as u16, live.says.at, component, live.clone());
            out.extend(live.says.ips.iter().enumerate().map(|(nth, address)| (address.name, claim(nth))));
        }
    });
    // Aliases that devices report by the records polled on them.
    let reporters = each(&members, |component, v, out| {
        if let Value::Member(live, _) = v
            && live.says.kind == SourceKind::Mapper
        {
            out.push((live.key, Value::Claimant(component, live, None)));
        }
    });
    let of_polled = join(&reporters, &aliases, |_, reporter, alias| match (reporter, alias) {
        (Value::Claimant(component, live, _), Value::Alias(at, ip)) => {
            Some(alias_claim(*at, *component, &live.says.scope, *ip))
        }
        _ => None,
    });
    let alone = by_address(&alone);
    let by_themselves = each(&alone, |address, v, out| {
        if let Value::Live(live) = v
            && let Some(known_by) = live.says.address()
        {
            let ip = match known_by.ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            out.push((address, Value::Alone(live.class(), live.says.at, live.says.scope.clone(), ip)));
        }
    });
    let several = several(&by_themselves, &linked);
    let claims = of_devices.concat(&of_polled).concat(&by_themselves).concat(&linked).concat(&several.claims);
    let first = decide(&claims, "Owner", &[&uids]);

    // Aliases that records known by an address report, where no device and no other record has the address.
    let reporters = each(&alone, |address, v, out| {
        if let Value::Live(live) = v
            && live.says.kind == SourceKind::Mapper
        {
            out.push((live.key, Value::Claimant(address, live, None)));
        }
    });
    let reports = join(&reporters, &aliases, |_, reporter, alias| match (reporter, alias) {
        (Value::Claimant(polled, live, _), Value::Alias(at, ip)) => {
            Some((*polled, alias_claim(*at, *polled, &live.says.scope, *ip).1))
        }
        _ => None,
    });
    let reports = join_any(&reports, &first.parts(), |polled, alias, decision| match (alias, decision) {
        (Value::AliasClaim(at, _, spot), Value::Decision(d)) => {
            let address = ip_name(spot.scope.name, spot.ip);
            Some((address, Value::AliasClaim(*at, device(polled, d), spot.clone())))
        }
        _ => None,
    });
    let aliased = decide(&reports, "AliasOwner", &[&uids, &own_uids(&first.all()), &several.uids]).all();
    let given = lookup_any(&aliased, &first.parts(), |address, alias, was| match (alias, was) {
        (alias, None | Some(Value::Tied(_))) => Some((address, alias.clone())),
        (Value::Decision(alias), Some(Value::Decision(was))) if only_swept(was) => {
            Some((address, Value::Decision(Decision { alone: true, ..(**alias).clone() }.into())))
        }
        _ => None,
    });
    let taken = join_any(&aliased, &first.parts(), |address, _, was| match was {
        Value::Decision(d) if only_swept(d) => Some((address, was.clone())),
        _ => None,
    });
    let taken = taken.negate();
    let decided = first.all().concat(&given).concat(&taken);
    let parts = [&first.ruled, &first.untied, &given, &taken];

    let members = join_any(&alone, &parts, |address, live, d| match (live, d) {
        (Value::Live(live), Value::Decision(d)) => {
            let how = match d.owner {
                Owner::Device if d.class == ClaimClass::Operator => How::Operator,
                Owner::Device => How::Ip,
                Owner::Itself | Owner::Shared => How::Itself,
            };
            Some((device(address, d), Value::Member(live.clone(), how)))
        }
        _ => None,
    });
    let own_uids = own_uids(&decided);
    let owned = each(&decided, |address, v, out| {
        if let Value::Decision(d) = v
            && d.owner != Owner::Shared
        {
            out.push((device(address, &d), Value::Decision(d)));
        }
    });
    let owners = Owners(parts.into_iter().cloned().collect());
    let named = join_any(&owned, &[&uids, &own_uids, &several.uids], |_, d, uid| match (d, uid) {
        (Value::Decision(d), Value::Uid(uid)) => {
            let address = ip_name(d.spot.scope.name, d.spot.ip);
            Some((address, Value::Named((uid.clone(), d.clone()).into())))
        }
        _ => None,
    });
    let shared = each(&decided, |address, v, out| {
        if let Value::Decision(d) = &v
            && d.owner == Owner::Shared
        {
            out.push((address, v));
        }
    });
    Ownership { members, uids: [own_uids, several.uids], owners, owned, named: named.concat(&shared) }
}

/// Who owns addresses, as it is arranged.
pub struct Owners<'scope>(Vec<Rel<'scope>>);

impl<'scope> Owners<'scope> {
    /// What is said of addresses, by the devices that own them.
    pub fn by_device<T: differential_dataflow::ExchangeData>(
        &self,
        said: collection::Rel<'scope, (Name, T)>,
    ) -> collection::Rel<'scope, (Component, T)> {
        let said = said.arrange_named::<_, Arrangement<_, _>>("OfAddress", Batcher::new);
        let of = |part: &Rel<'scope>| {
            said.clone().join_core(part.index(), |address, said, decision| match decision {
                Value::Decision(d) if d.owner != Owner::Shared => Some((device(*address, d), said.clone())),
                _ => None,
            })
        };
        self.0.iter().map(of).reduce(|all, part| all.concat(part)).expect("there are parts")
    }
}

fn only_swept(decision: &Decision) -> bool {
    decision.owner == Owner::Itself && decision.class == ClaimClass::Sweep
}

fn alias_claim(at: Time, component: Component, scope: &Arc<Scope>, ip: Ipv6Addr) -> (Name, Value) {
    let spot = Spot { scope: scope.clone(), ip: canonical(ip) };
    (ip_name(spot.scope.name, spot.ip), Value::AliasClaim(at, component, spot.into()))
}

impl Decision {
    /// The address.
    pub(super) fn spot(&self) -> &Spot {
        &self.spot
    }

    /// Who owns the address.
    pub(super) fn owned(&self, owner: Option<&Arc<str>>) -> AddressOwner {
        let Spot { scope, ip } = &self.spot;
        let class = (self.owner != Owner::Shared).then_some(self.class);
        AddressOwner { address: (scope.clone(), *ip), uid: owner.cloned(), class, since: self.since }
    }

    /// Its row of `ip_ownership`.
    pub(super) fn row(&self, owner: Option<&Arc<str>>) -> StateRow {
        let Spot { scope, ip } = &self.spot;
        let class = if self.owner == Owner::Shared { "shared" } else { self.class.name() };
        StateRow::from(IpOwnership {
            tenant_id: scope.tenant.clone(),
            partition: scope.partition.clone(),
            ip: ip.to_string(),
            ip_uid: self.spot.uid().to_string(),
            device_uid: owner.map(ToString::to_string),
            class: class.to_owned(),
            valid_from: self.since,
            valid_to: None,
            epoch: 0,
        })
    }

    /// Its row of `device_redirects`, where records known by it alone went elsewhere.
    pub(super) fn redirect(&self, owner: &Arc<str>) -> Option<StateRow> {
        let Spot { scope, ip } = &self.spot;
        let uid = self.spot.uid();
        (self.owner == Owner::Device && self.alone && *owner != uid).then(|| {
            StateRow::from(DeviceRedirect {
                tenant_id: scope.tenant.clone(),
                partition: scope.partition.clone(),
                from_uid: uid.to_string(),
                to_uid: owner.to_string(),
                identifier: format!("{}:{ip}", IdKind::Ip.name()),
                epoch: 0,
            })
        })
    }
}
