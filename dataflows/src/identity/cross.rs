//! Stage 1b: devices of sources that do not know each other.
//!
//! ```text
//! candidate(c, d) :- components of disjoint namespaces, by one record of each:
//!                    one address, and one host name, or a MAC in common, or three runs of both (policy)
//!                    | one global MAC asserted by both, and one host name
//! edge(c, d)      :- candidate(c, d), and neither has another candidate of a namespace of the other
//! group(c)        :- least component in c's group of edges
//! crowded(g)      :- two members share a namespace, or hold both ends of a cannot-link
//! relabel(c)      :- group(c) unless crowded
//! ```
//! Addresses that more than sixteen components claim, and MACs that more than sixteen assert, link nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::fact::IpLink;
use radarflow_reconcile::identity::MAX_CLAIMANTS;
use radarflow_reconcile::identity::assertions::{Address, is_global, mac_name, same_address, same_mac};
use radarflow_reconcile::identity::name::{Name, name};
use serde::{Deserialize, Serialize};

use super::anchors::{Anchors, Place};
use super::links::{Links, both_ends};
use super::relations::{Rel, Rows, Value, components, distinct, each, join, join_any, lookup, reduce};
use super::{Component, renamed};
use crate::keyed::route;
use crate::records::Live;

/// A component at work, with the namespaces of which it holds a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Side {
    component: Component,
    spaces: Arc<[Name]>,
}

impl Side {
    fn overlaps(&self, other: &Side) -> bool {
        self.spaces.iter().any(|s| other.spaces.contains(s))
    }
}

/// Something that may make two things one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Evidence {
    /// Whose policy counts.
    tenant: Name,
    /// What it hangs on.
    hangs_on: HangsOn,
    /// What would be one.
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum HangsOn {
    /// Nothing more.
    Nothing,
    /// That the MAC is not asserted all over the place.
    Mac(Name),
    /// That both records have claimed the address for long, or on the tenant's policy.
    Time { a: Name, b: Name, names_differ: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum What {
    /// Two components.
    Sides(Side, Side),
    /// A group of polled records, and a component.
    Polled(Name, Component),
}

/// What the records of two sides that claim one address are evidence of.
fn evidence(address: Name, a: &Live, b: &Live, what: &What, mut out: impl FnMut(Value)) {
    let tenant = a.says.scope.tenant_name;
    let mut say = |hangs_on: HangsOn| out(Value::Evidence(Evidence { tenant, hangs_on, what: what.clone() }.into()));
    let common = same_address(&a.says, &b.says);
    if common.host {
        return say(HangsOn::Nothing);
    }
    for mac in common.macs {
        say(HangsOn::Mac(mac_name(a.says.scope.name, mac)));
    }
    let (a, b) = (claimed(a.key, address), claimed(b.key, address));
    say(HangsOn::Time { a, b, names_differ: common.names_differ });
}

/// Names that a record claims an address.
pub(super) fn claimed(record: Name, address: Name) -> Name {
    name(&(record, address))
}

/// What decides on evidence.
#[derive(Clone)]
pub(super) struct Weights<'scope> {
    /// MACs asserted all over the place.
    busy: Rel<'scope>,
    /// What has been claimed for long.
    settled: Rel<'scope>,
    /// By (tenant, shard).
    policies: Rel<'scope>,
}

/// Spreads a tenant's work over workers.
const SHARDS: u64 = 64;

impl<'scope> Weights<'scope> {
    fn new(busy: Rel<'scope>, settled: Rel<'scope>, links: &Links<'scope>) -> Self {
        let policies = each(&links.policies, |tenant, policy, out| {
            out.extend((0..SHARDS).map(|shard| (name(&(tenant, shard)), policy.clone())));
        });
        Weights { busy, settled, policies }
    }

    /// The evidence that counts.
    fn weigh(&self, evidence: &Rel<'scope>) -> Rel<'scope> {
        let pick = |by: fn(&Evidence) -> Option<Name>| {
            each(evidence, move |_, e, out| {
                if let Value::Evidence(e) = e
                    && let Some(key) = by(&e)
                {
                    out.push((key, Value::Evidence(e)));
                }
            })
        };
        let rekey = |by: fn(&Evidence) -> Name| {
            move |e: &Value| match e {
                Value::Evidence(found) => Some((by(found), e.clone())),
                _ => None,
            }
        };
        let shard: fn(&Evidence) -> Name = |e| name(&(e.tenant, route(&e.what) % SHARDS));
        let sure = pick(|e| (e.hangs_on == HangsOn::Nothing).then(|| name(&(e.tenant, route(&e.what) % SHARDS))));
        let by_mac = pick(|e| if let HangsOn::Mac(mac) = e.hangs_on { Some(mac) } else { None });
        let by_mac = lookup(&by_mac, &self.busy, move |_, e, busy| match busy {
            None => rekey(shard)(e),
            Some(_) => None,
        });
        let by_time = pick(|e| match e.hangs_on {
            HangsOn::Time { a, names_differ: false, .. } => Some(a),
            _ => None,
        });
        let second: fn(&Evidence) -> Name =
            |e| if let HangsOn::Time { b, .. } = e.hangs_on { b } else { Name::default() };
        let by_time = join(&by_time, &self.settled, move |_, e, _| rekey(second)(e));
        let by_time = join(&by_time, &self.settled, move |_, e, _| rekey(shard)(e));
        let corroborated = lookup(&sure.concat(&by_mac).concat(&by_time), &self.policies, |key, e, policy| {
            (policy != Some(&Value::Policy(IpLink::Off))).then(|| (key, e.clone()))
        });
        let alone = pick(|e| match e.hangs_on {
            HangsOn::Time { .. } => Some(name(&(e.tenant, route(&e.what) % SHARDS))),
            _ => None,
        });
        let at_once = join(&alone, &self.policies, |key, e, policy| {
            (*policy == Value::Policy(IpLink::Immediate)).then(|| (key, e.clone()))
        });
        corroborated.concat(&at_once)
    }
}

/// What stage 1b gives.
pub(super) struct Cross<'scope> {
    /// By component: what it is called after it ([`Value::Name`]).
    pub(super) relabel: Rel<'scope>,
    weights: Weights<'scope>,
    /// By address: who claims it strongly enough to link ([`Value::Claimant`]).
    claims: Rel<'scope>,
}

type Claimant<'a> = (Component, &'a Live, Option<&'a Arc<Place>>);

fn claimants<'a>(values: &[(&'a Value, isize)]) -> Vec<Claimant<'a>> {
    let claimant = |v: &'a Value| match v {
        Value::Claimant(component, live, place) => Some((*component, live, place.as_ref())),
        _ => None,
    };
    values.iter().filter_map(|(v, _)| claimant(v)).collect()
}

/// How many components there are among claimants, which are sorted by component.
fn parties(claimants: &[(&Value, isize)]) -> usize {
    let component = |v: &Value| if let Value::Claimant(c, _, _) = v { Some(*c) } else { None };
    claimants.chunk_by(|(a, _), (b, _)| component(a) == component(b)).count()
}

/// Pairs of claimants that have no namespace in common.
fn pairs(values: &[(&Value, isize)], mut each: impl FnMut(&Live, &Live, What)) {
    let claimants = claimants(values);
    let side = |(component, live, place): &Claimant<'_>| Side {
        component: *component,
        spaces: match place {
            Some(place) => place.spaces.clone(),
            None => live.says.top().map(|id| id.namespace).into_iter().collect(),
        },
    };
    // They are sorted by component, and records of one component have its namespaces.
    let sides: Vec<&[Claimant<'_>]> = claimants.chunk_by(|a, b| a.0 == b.0).collect();
    for (i, of_a) in sides.iter().enumerate() {
        for of_b in &sides[i + 1..] {
            let (side_a, side_b) = (side(&of_a[0]), side(&of_b[0]));
            if side_a.overlaps(&side_b) {
                continue;
            }
            for a in *of_a {
                for b in *of_b {
                    each(a.1, b.1, What::Sides(side_a.clone(), side_b.clone()));
                }
            }
        }
    }
}

/// Members of components, by each of what `keys` says of a record.
fn by<'scope>(members: &Rel<'scope>, keys: fn(&Live) -> Vec<Name>) -> Rel<'scope> {
    each(members, move |component, v, out: &mut Rows| {
        let (live, place) = match v {
            Value::Live(live) => (live, None),
            Value::Placed(live, place) => (live, Some(place)),
            _ => return,
        };
        let claimant = |key| (key, Value::Claimant(component, live.clone(), place.clone()));
        out.extend(keys(&live).into_iter().map(claimant));
    })
}

/// Stage 1b. `settled` is what records have claimed for long.
pub(super) fn cross<'scope>(anchors: &Anchors<'scope>, links: &Links<'scope>, settled: Rel<'scope>) -> Cross<'scope> {
    let claims = by(&anchors.members, |live| {
        let links = live.says.claims_for_links();
        live.says.ips.iter().filter(|_| links).map(|a| a.name).collect()
    });
    let macs = by(&anchors.members, |live| live.says.macs.iter().map(|m| m.name).collect());
    let by_address = reduce(&claims, "SameAddress", |address, claimants, out| {
        if claimants.len() > 1 && (2..=MAX_CLAIMANTS).contains(&parties(claimants)) {
            pairs(claimants, |a, b, what| evidence(address, a, b, &what, |found| out.push(found)));
        }
    });
    let of_mac = reduce(&macs, "SameMac", |mac, claimants, out| {
        if claimants.len() < 2 {
            return;
        }
        match parties(claimants) {
            0 | 1 => {}
            2..=MAX_CLAIMANTS => pairs(claimants, |a, b, what| {
                let global = a.says.global_macs().any(|m| m.name == mac && is_global(m.value));
                if global && same_mac(&a.says, &b.says) {
                    let tenant = a.says.scope.tenant_name;
                    out.push(Value::Evidence(Evidence { tenant, hangs_on: HangsOn::Nothing, what }.into()));
                }
            }),
            _ => out.push(Value::There),
        }
    });
    let busy = each(&of_mac, |mac, v, out| {
        if v == Value::There {
            out.push((mac, v));
        }
    });
    let by_mac = each(&of_mac, |mac, v, out| {
        if v != Value::There {
            out.push((mac, v));
        }
    });
    let weights = Weights::new(busy, settled, links);
    let candidates = each(&weights.weigh(&by_address.concat(&by_mac)), |_, e, out| {
        if let Value::Evidence(e) = e
            && let What::Sides(a, b) = &e.what
        {
            out.push((a.component, Value::Partners((a.clone(), b.clone()).into())));
            out.push((b.component, Value::Partners((b.clone(), a.clone()).into())));
        }
    });
    let chosen = reduce(&candidates, "Partners", |_, partners, out| {
        let partners = || partners.iter().filter_map(|(p, _)| if let Value::Partners(p) = p { Some(p) } else { None });
        // By namespace: a candidate that has it, and whether another one has it, too.
        let mut rivals: BTreeMap<Name, (Component, bool)> = BTreeMap::new();
        for p in partners() {
            for space in p.1.spaces.iter() {
                let (first, more) = rivals.entry(*space).or_insert((p.1.component, false));
                *more |= *first != p.1.component;
            }
        }
        let alone = |p: &&Arc<(Side, Side)>| p.1.spaces.iter().all(|space| !rivals[space].1);
        out.extend(partners().filter(alone).cloned().map(Value::Partners));
    });
    let chosen = each(&chosen, |_, p, out| {
        if let Value::Partners(p) = p {
            let p = if p.0 < p.1 { p } else { (p.1.clone(), p.0.clone()).into() };
            out.push((p.0.component, Value::Partners(p)));
        }
    });
    // Both have to choose each other.
    let edges = reduce(&chosen, "Agreed", |_, pairs, out| {
        out.extend(pairs.iter().filter(|(_, ends)| *ends == 2).map(|(p, _)| (*p).clone()));
    });
    let groups = components(&each(&edges, |a, p, out| {
        if let Value::Partners(p) = p {
            out.push((a, Value::Name(p.1.component)));
        }
    }));
    let sides = each(&edges, |_, p, out| {
        if let Value::Partners(p) = p {
            out.extend([&p.0, &p.1].map(|side| (side.component, Value::Side(side.clone()))));
        }
    });
    let grouped = |what: Value, group: &Value| match group {
        Value::Name(group) => Some((*group, what)),
        _ => None,
    };
    let members = join(&distinct(&sides), &groups, move |_, side, group| grouped(side.clone(), group));
    let strong_ends = lookup(&links.ends, &anchors.places, |id, token, place| match place {
        Some(Value::Place(place)) => Some((place.component, token.clone())),
        _ => Some((id, token.clone())),
    });
    let weak_ends = join_any(&links.ends, &[&macs, &claims], |_, token, claimant| match claimant {
        Value::Claimant(component, _, _) => Some((*component, token.clone())),
        _ => None,
    });
    let ends = join(&distinct(&strong_ends.concat(&weak_ends)), &groups, move |component, token, group| match token {
        Value::End(token) => grouped(Value::EndOf(component, *token), group),
        _ => None,
    });
    let relabel = reduce(&members.concat(&ends), "Crowded", |_, inside, out| {
        let mut taken = BTreeSet::new();
        let sides = || inside.iter().filter_map(|(i, _)| if let Value::Side(side) = i { Some(side) } else { None });
        let shared = sides().flat_map(|s| s.spaces.iter()).any(|space| !taken.insert(*space));
        let ends = inside.iter().filter_map(|(i, _)| if let Value::EndOf(c, t) = i { Some((*c, *t)) } else { None });
        if !shared && !both_ends(ends) {
            out.extend(sides().cloned().map(Value::Side));
        }
    });
    let relabel = each(&relabel, |group, side, out| {
        if let Value::Side(side) = side {
            out.push((side.component, Value::Name(group)));
        }
    });
    Cross { relabel, weights, claims }
}

/// What anchored devices have to do with groups of polled records.
pub(super) struct Polled<'scope> {
    /// By group: the devices that claim an address of it ([`Value::ClaimedBy`]).
    pub(super) claimants: Rel<'scope>,
    /// By group: those with which it has something else in common ([`Value::Name`]).
    pub(super) supported: Rel<'scope>,
}

/// An anchored component claims an address of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Met {
    pub(super) group: Name,
    pub(super) address: Name,
    polled: Live,
    anchored: Live,
}

impl<'scope> Cross<'scope> {
    /// `groups` are records ([`Value::Live`]) by group.
    pub(super) fn polled(&self, groups: &Rel<'scope>) -> Polled<'scope> {
        let by_address = each(groups, |group, live, out| {
            if let Value::Live(live) = live
                && let Some(Address { name, .. }) = live.says.address()
            {
                out.push((name, Value::Claimant(group, live, None)));
            }
        });
        let met = join(&by_address, &self.claims, |address, polled, claimant| match (polled, claimant) {
            (Value::Claimant(group, polled, _), Value::Claimant(component, anchored, _)) => {
                let (polled, anchored) = (polled.clone(), anchored.clone());
                Some((*component, Value::Met(Met { group: *group, address, polled, anchored }.into())))
            }
            _ => None,
        });
        let found = each(&met, |component, met, out| {
            if let Value::Met(met) = met {
                let what = What::Polled(met.group, component);
                evidence(met.address, &met.anchored, &met.polled, &what, |e| out.push((component, e)));
            }
        });
        let supported = each(&self.weights.weigh(&found), |_, e, out| {
            if let Value::Evidence(e) = e
                && let What::Polled(group, component) = e.what
            {
                out.push((component, Value::Name(group)));
            }
        });
        Polled {
            claimants: lookup(&met, &self.relabel, |component, met, relabelled| match met {
                Value::Met(met) => Some((met.group, Value::ClaimedBy(met.address, renamed(component, relabelled)))),
                _ => None,
            }),
            supported: lookup(&supported, &self.relabel, |component, group, relabelled| match group {
                Value::Name(group) => Some((*group, Value::Name(renamed(component, relabelled)))),
                _ => None,
            }),
        }
    }
}
