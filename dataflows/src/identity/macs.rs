//! Stage 2: what MACs say of records without a strong identifier.
//!
//! ```text
//! state(m)   :- ambiguous, where records of two components or more than 64 records assert global m;
//!               owned(c), where records of the one component c do; free, where only anchorless ones do
//! edge(m, n) :- an anchorless record asserts both, both free
//! edge(m, l) :- must-links put free m, or a local MAC or the polled address of a record that asserts it, into l, where
//!               nobody else is
//! group(r)   :- least MAC in the component of r's first free MAC, else r itself
//! device(g)  :- the one component that owns MACs of g's records, or that must-links put their local MACs or polled
//!               addresses into
//!               | if none does: the one device that claims a polled address of g alone, with something in common
//!               | g itself, if it has free MACs; else its records are known by address only
//! ```

use std::collections::{BTreeMap, BTreeSet};

use radarflow_reconcile::identity::MAX_MAC_RECORDS;
use radarflow_reconcile::identity::assertions::is_global;
use radarflow_reconcile::identity::name::{Name, name};
use serde::{Deserialize, Serialize};

use super::cross::Cross;
use super::links::{Links, both_ends};
use super::relations::{Rel, Value, components, distinct, each, join, join_any, lookup, lookup_any, reduce};
use super::{Component, How, Unresolved, renamed};
use crate::records::Live;

/// How a MAC stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum State {
    Ambiguous,
    Owned(Component),
    Free,
}

/// What the MACs of an anchorless record amount to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Wants {
    live: Live,
    /// Names of those that no component asserts, sorted; of a record that has some, with what they are linked to.
    free: Vec<Name>,
    /// What operators link it to, where nobody else is ([`together`]).
    linked: Vec<Name>,
    owners: BTreeSet<Component>,
}

/// What stage 2 gives.
pub(super) struct Macs<'scope> {
    /// By record: the device it belongs to ([`Value::Settled`]).
    pub(super) placed: Rel<'scope>,
    /// By device: MACs that it holds ([`Value::Seen`]).
    pub(super) held: Rel<'scope>,
    /// By MAC: the device that holds it, as [`holder`] reads it.
    pub(super) holders: [Rel<'scope>; 2],
    /// By what operators link to nobody who has a strong identifier ([`together`]): the device of the MACs that no
    /// component asserts and that are linked to it ([`Value::Name`]).
    pub(super) groups: Rel<'scope>,
    /// MACs that name nobody ([`Value::Loose`]).
    pub(super) loose: Rel<'scope>,
}

/// The device that holds a MAC.
pub(super) fn holder(said: &Value) -> Option<Component> {
    match said {
        Value::Name(device) | Value::State(State::Owned(device)) => Some(*device),
        _ => None,
    }
}

/// Names what must-links put together where nobody with a strong identifier is.
pub(super) fn together(component: Component) -> Name {
    name(&("linked", component))
}

/// Identifiers of anchorless records that say something only where operators link them: local MACs, and the polled address
/// of a record that asserts MACs. By record: who holds them ([`Value::Asserted`]), or what they are linked to
/// ([`Value::Claimant`]).
fn by_link<'scope>(versions: &Rel<'scope>, linked: &Rel<'scope>) -> Rel<'scope> {
    let ids = each(versions, |_, v, out| {
        if let Value::Live(live) = v
            && live.says.top().is_none()
        {
            let local = live.says.macs.iter().filter(|mac| !is_global(mac.value)).map(|mac| mac.name);
            let polled = live.says.address().filter(|_| live.says.global_macs().next().is_some());
            out.extend(local.chain(polled.map(|ip| ip.name)).map(|id| (id, Value::Live(live.clone()))));
        }
    });
    join(&ids, linked, |id, live, link| match (live, link) {
        (Value::Live(live), Value::Must(c)) => Some((live.key, Value::Asserted(id, Some((*c).into()), live.clone()))),
        (Value::Live(live), Value::MustIf(c)) => Some((live.key, Value::Claimant(together(*c), live.clone(), None))),
        _ => None,
    })
}

/// Stage 2. `versions` are records, `seen` MACs; `members` are records with a strong identifier by device; `linked` says
/// of identifiers in links which device operators say holds them ([`Value::Must`]) or does not ([`Value::Barred`]).
pub(super) fn macs<'scope>(
    versions: &Rel<'scope>,
    seen: &Rel<'scope>,
    members: &Rel<'scope>,
    linked: &Rel<'scope>,
    cross: &Cross<'scope>,
    links: &Links<'scope>,
) -> Macs<'scope> {
    let of_components = each(members, |component, v, out| {
        if let Value::Member(live, _) = v {
            out.extend(live.says.global_macs().map(|m| (m.name, Value::Asserts(component, live.key))));
        }
    });
    let of_others = each(versions, |_, v, out| {
        if let Value::Live(live) = v
            && live.says.top().is_none()
        {
            out.extend(live.says.global_macs().map(|m| (m.name, Value::Live(live.clone()))));
        }
    });
    let of_mac = reduce(&of_components.concat(&of_others).concat(linked), "Mac", |_, asserting, out| {
        let barred = |(a, _): &(&Value, isize)| if let Value::Barred(c) = a { Some(*c) } else { None };
        let barred: BTreeSet<Component> = asserting.iter().filter_map(barred).collect();
        // A million records may assert one MAC: that there is more than one holder is enough to know.
        let (mut holders, mut records, mut must) = (BTreeSet::new(), 0, None);
        for (a, _) in asserting {
            match a {
                Value::Asserts(c, _) if !barred.contains(c) => {
                    if holders.len() < 2 {
                        holders.insert(*c);
                    }
                    records += 1;
                }
                Value::Live(_) => records += 1,
                Value::Must(c) => must = must.max(Some(*c)),
                _ => {}
            }
        }
        let state = match (must, holders.first()) {
            (Some(c), _) => State::Owned(c),
            (None, _) if holders.len() > 1 || records > MAX_MAC_RECORDS => State::Ambiguous,
            (None, Some(c)) => State::Owned(*c),
            (None, None) if records > 0 => State::Free,
            (None, None) => return,
        };
        out.push(Value::State(state));
        let owner = match state {
            State::Ambiguous => return,
            State::Owned(c) => Some(c),
            State::Free => None,
        };
        for (a, _) in asserting {
            if let Value::Live(live) = a {
                out.push(Value::Says(live.clone(), owner));
            }
        }
    });
    let state = |of: fn(State) -> Option<Value>| {
        each(&of_mac, move |mac, v, out| {
            if let Value::State(s) = v {
                out.extend(of(s).map(|v| (mac, v)));
            }
        })
    };
    let says = each(&of_mac, |mac, v, out| {
        if let Value::Says(live, owner) = v {
            let key = live.key;
            // By record, the MAC in place of it.
            out.push((key, Value::Asserted(mac, owner.map(Into::into), live)));
        }
    });
    let wants = reduce(&says.concat(&by_link(versions, linked)), "Wants", |_, says, out| {
        let mut wants: Option<Wants> = None;
        for (said, _) in says {
            let (Value::Asserted(_, _, live) | Value::Claimant(_, live, _)) = said else { continue };
            // A record has one version at a time.
            let new = || Wants { live: live.clone(), free: vec![], linked: vec![], owners: BTreeSet::new() };
            let wants = wants.get_or_insert_with(new);
            match said {
                Value::Asserted(_, Some(c), _) => drop(wants.owners.insert(**c)),
                Value::Asserted(mac, None, _) => wants.free.push(*mac),
                Value::Claimant(linked, ..) => wants.linked.push(*linked),
                _ => {}
            }
        }
        out.extend(wants.map(|mut w| {
            if w.free.is_empty() {
                w.linked.clear();
            }
            w.free.extend_from_slice(&w.linked);
            w.free.sort_unstable();
            w.free.dedup();
            Value::Wants(w.into())
        }));
    });
    let free = state(|s| (s == State::Free).then_some(Value::There));
    let edges = each(&wants, |_, w, out| {
        if let Value::Wants(w) = w {
            out.extend(w.free.iter().skip(1).map(|mac| (w.free[0], Value::Name(*mac))));
        }
    });
    // MACs that operators link to what nobody else asserts are one group.
    let linked_free = join(&free, linked, |mac, _, link| match link {
        Value::MustIf(component) => Some((mac, Value::Name(together(*component)))),
        _ => None,
    });
    let labels = components(&edges.concat(&linked_free));
    let of_links = each(&linked_free, |_, v, out| {
        if let Value::Name(linked) = v {
            out.push((linked, Value::There));
        }
    });
    let of_records = each(&wants, |_, w, out| {
        if let Value::Wants(w) = w {
            out.extend(w.linked.iter().map(|linked| (*linked, Value::There)));
        }
    });
    let links_there = distinct(&of_links.concat(&of_records));
    let links_there =
        lookup(&links_there, &labels, |linked, _, label| Some((renamed(linked, label), Value::Name(linked))));
    let with_free = each(&wants, |_, w, out| {
        if let Value::Wants(w) = w {
            out.extend(w.free.first().copied().map(|mac| (mac, Value::Wants(w))));
        }
    });
    let with_free = lookup(&with_free, &labels, |mac, w, label| Some((renamed(mac, label), w.clone())));
    let without = each(&wants, |record, w, out| {
        if let Value::Wants(w) = w
            && w.free.is_empty()
        {
            out.push((record, Value::Wants(w)));
        }
    });
    let polled = cross.polled(&each(&with_free, |group, w, out| {
        if let Value::Wants(w) = w {
            out.push((group, Value::Live(w.live.clone())));
        }
    }));
    let free = lookup(&free, &labels, |mac, _, label| Some((mac, Value::Name(renamed(mac, label)))));
    let to_group = |what: &Value, group: &Value| match group {
        Value::Name(group) => Some((*group, what.clone())),
        _ => None,
    };
    let ends = join(&links.ends, &free, move |mac, token, group| match token {
        Value::End(token) => to_group(&Value::EndOf(mac, *token), group),
        _ => None,
    });
    let barred = join(linked, &free, move |_, link, group| match link {
        Value::Barred(_) => to_group(link, group),
        _ => None,
    });
    let inside =
        with_free.concat(&without).concat(&polled.claimants).concat(&polled.supported).concat(&ends).concat(&barred);
    let decided = reduce(&inside, "MacGroup", |group, inside, out| {
        let Some((device, how)) = settle(group, inside) else { return };
        out.push(Value::Settled(device, how));
        for (i, _) in inside {
            if let Value::Wants(w) = i {
                out.push(Value::Asserted(device, None, w.live.clone()));
            }
        }
    });
    let devices = each(&decided, |group, v, out| {
        if let Value::Settled(..) = v {
            out.push((group, v));
        }
    });
    let placed = join(&decided, &devices, |_, record, device| match record {
        Value::Asserted(_, _, live) => Some((live.key, device.clone())),
        _ => None,
    });
    let by_group = each(&free, |mac, group, out| {
        if let Value::Name(group) = group {
            out.push((group, Value::Name(mac)));
        }
    });
    let by_group = join(&by_group, &devices, |_, mac, device| match (mac, device) {
        (Value::Name(mac), Value::Settled(device, _)) => Some((*mac, Value::Name(*device))),
        _ => None,
    });
    let groups = join(&links_there, &devices, |_, linked, device| match (linked, device) {
        (Value::Name(linked), Value::Settled(device, _)) => Some((*linked, Value::Name(*device))),
        _ => None,
    });
    let holders = [of_mac, by_group];
    let resolved = join_any(seen, &holders.each_ref(), |mac, seen, said| match (seen, said) {
        (Value::Seen(seen), Value::State(State::Ambiguous)) => {
            Some((mac, Value::Loose(Unresolved::Ambiguous, seen.clone())))
        }
        (seen, said) => holder(said).map(|device| (device, seen.clone())),
    });
    let of_kind = |loose: bool| {
        each(&resolved, move |name, v, out| {
            if matches!(v, Value::Loose(..)) == loose {
                out.push((name, v));
            }
        })
    };
    let (held, ambiguous) = (of_kind(false), of_kind(true));
    let gone = each(seen, |mac, seen, out| {
        if let Value::Seen(seen) = seen
            && seen.last_record.is_some()
        {
            out.push((mac, Value::Loose(Unresolved::Gone, seen)));
        }
    });
    // An operator's link holds a MAC that nobody asserts any more.
    let gone = lookup_any(&gone, &holders.each_ref(), |mac, seen, said| {
        said.and_then(holder).is_none().then(|| (mac, seen.clone()))
    });
    Macs { placed, held, holders, groups, loose: ambiguous.concat(&gone) }
}

/// Which device a group of anchorless records is.
fn settle(group: Name, inside: &[(&Value, isize)]) -> Option<(Component, How)> {
    let mut barred = BTreeSet::new();
    let (mut owners, mut has_free, mut records) = (BTreeSet::new(), false, false);
    let mut claimants: BTreeMap<Name, BTreeSet<Component>> = BTreeMap::new();
    let mut supported = BTreeSet::new();
    let mut ends = Vec::new();
    for (i, _) in inside {
        match i {
            Value::Wants(w) => {
                records = true;
                has_free |= !w.free.is_empty();
                owners.extend(w.owners.iter().copied());
            }
            Value::ClaimedBy(address, c) => {
                claimants.entry(*address).or_default().insert(*c);
            }
            Value::Name(c) => {
                supported.insert(*c);
            }
            Value::Barred(c) => {
                barred.insert(*c);
            }
            Value::EndOf(mac, token) => ends.push((*mac, *token)),
            _ => {}
        }
    }
    // A group that holds both ends of a cannot-link is none: its records are known by address only.
    if !records || both_ends(ends.into_iter()) {
        return None;
    }
    let own = has_free.then_some((group, How::Mac));
    owners.retain(|c| !barred.contains(c));
    match owners.len() {
        1 => owners.first().map(|c| (*c, How::Mac)),
        0 => {
            let alone: BTreeSet<Component> = claimants
                .values()
                .filter(|c| c.len() == 1)
                .filter_map(|c| c.first().copied())
                .filter(|c| supported.contains(c) && !barred.contains(c))
                .collect();
            match alone.len() {
                1 => alone.first().map(|c| (*c, How::Cross)),
                _ => own,
            }
        }
        _ => own,
    }
}
