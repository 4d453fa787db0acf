//! Which records are one device, who owns an address, and what a device is called: section 2 of the identity
//! definition, as relations, a file a stage.
//!
//! | file | stage |
//! |---|---|
//! | [`interface`] | what it reads, and what it gives |
//! | [`links`] | what operators say |
//! | [`anchors`] | 1: strong identifiers and links |
//! | [`cross`] | 1b: devices of sources that do not know each other |
//! | [`macs`] | 2: MACs |
//! | [`gate`], [`clusters`] | the brakes: what of these is published |
//! | [`ownership`] | 3: addresses |
//! | [`lives`] | which device the steps that operators took belong to |
//! | [`inspect`] | reading it, for explanations |
//! | [`imagine`] | what it would be, were something else true |
//! | this one | 4: names and redirects |
//!
//! ```text
//! best(c)     :- least (first seen, priority, namespace, value) among the strong identifiers that c holds, else its MACs
//! uid(c)      :- of best(c) | of the address | of the record
//! redirect(i) :- uid(holder(i)), else uid of the device of the record that asserted i last
//! ```
//! Invariants: nothing crosses a (tenant, partition), because every name is a hash that begins with them; no device
//! holds two values of a namespace unless operators say so; every live record is in exactly one device; each relation is
//! a function of the live records, what is remembered of identifiers and the links alone, so order, batching and worker
//! count cannot matter.
//!
//! Everything is computed on names (hashes) of fixed size; text is looked up where a row is made.

mod anchors;
mod clusters;
mod cross;
mod gate;
pub mod imagine;
mod inspect;
mod interface;
mod links;
mod lives;
mod macs;
mod ownership;
mod relations;

use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::fact::RunDecision;
use radarflow_proto::record::SourceKind;
use radarflow_proto::rows::{DeviceIdentifier, DeviceRedirect, StateRow};
use radarflow_reconcile::identity::name::{Name, record_uid, seed};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::vec::Map;

use crate::collection::Events;
use crate::keyed::Context;
use crate::listings::ListingKey;
use crate::records::{Asserted, FirstSeen};
use gate::GateOut;
pub use gate::RunEvent;
pub use inspect::Inspect;
pub use interface::{Address, AddressOwner, Component, How, Inputs, Outputs, Runs};
pub use lives::{Doomed, Lived, Lives, Watched};
use ownership::Claims;
pub use ownership::Owners;
use relations::{Value, each, join, join_any, lookup, lookup_any, reduce};

/// Why an identifier names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Unresolved {
    /// It would join what must stay apart.
    Ambiguous,
    /// It is in a component that holds what must stay apart.
    Contested,
    /// No live record asserts it.
    Gone,
}

/// Builds the relations.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let scope = inputs.records.inner.scope();
    let links = links::links(inputs.links, inputs.ip_links);
    let versions = inputs.records.map(|v| (v.key, Value::Live(v))).into();
    let seen = inputs.first_seen.map(|s| (s.name, Value::Seen(s.into()))).into();
    let aliases = inputs.aliases.map(|(record, (ip, at))| match ip {
        IpAddr::V4(v4) => (record, Value::Alias(at, v4.to_ipv6_mapped())),
        IpAddr::V6(v6) => (record, Value::Alias(at, v6)),
    });
    let aliases: relations::Rel<'_> = aliases.into();
    let settled: relations::Rel<'_> =
        inputs.settled.map(|(record, address)| (cross::claimed(record, address), Value::There)).into();
    let of_kind = |strong: bool| {
        each(&seen, move |id, v, out| {
            if let Value::Seen(seen) = &v
                && seen.id.id.kind.is_strong() == strong
            {
                out.push((id, v));
            }
        })
    };
    let anchors = anchors::anchors(&versions, &of_kind(true), &links);
    let cross = cross::cross(&anchors, &links, settled.clone());
    let anchored = lookup(&anchors.members, &cross.relabel, |component, v, group| {
        let (live, linked) = match v {
            Value::Live(live) => (live, false),
            Value::Placed(live, place) => (live, place.linked),
            _ => return None,
        };
        Some(match group {
            Some(Value::Name(group)) => (*group, Value::Member(live.clone(), How::Cross)),
            _ if linked => (component, Value::Member(live.clone(), How::Operator)),
            _ => (component, Value::Member(live.clone(), How::Strong)),
        })
    });
    let held = lookup(&anchors.held, &cross.relabel, |c, seen, group| Some((renamed(c, group), seen.clone())));
    let linked = linked(&links, &anchors, &cross.relabel);

    let macs = macs::macs(&versions, &of_kind(false), &anchored, &linked, &cross, &links);
    let anchorless = each(&versions, |record, v, out| {
        if let Value::Live(live) = &v
            && live.says.top().is_none()
        {
            out.push((record, v));
        }
    });
    let grouped = join(&anchorless, &macs.placed, |_, v, device| match (v, device) {
        (Value::Live(live), Value::Settled(device, how)) => Some((*device, Value::Member(live.clone(), *how))),
        _ => None,
    });
    let rest = lookup(&anchorless, &macs.placed, |record, v, placed| placed.is_none().then(|| (record, v.clone())));
    let held = held.concat(&macs.held);
    let devices = anchored.concat(&grouped);
    let loose = anchors.loose.concat(&macs.loose);

    let gated = inputs.runs.map(|runs| {
        let rows = devices.concat(&rest).concat(&held).concat(&loose);
        gate::gate(&rows, run_events(runs), cx)
    });
    let published = |rel: relations::Rel<'scope>, which: fn(&Value) -> bool| match &gated {
        Some(gated) => rel.concat(&gated.withheld(which).negate()),
        None => rel,
    };
    let devices = published(devices, |v| matches!(v, Value::Member(..)));
    let rest = published(rest, |v| matches!(v, Value::Live(_)));
    let held = published(held, |v| matches!(v, Value::Seen(_)));
    let loose = published(loose, |v| matches!(v, Value::Loose(..)));

    let best = reduce(&held, "Name", |_, held, out| {
        let held = || held.iter().filter_map(|(h, _)| if let Value::Seen(seen) = h { Some(seen) } else { None });
        let strong = held().any(|h| h.id.id.kind.is_strong());
        let best = held()
            .filter(|h| h.id.id.kind.is_strong() == strong)
            .min_by(|a, b| (a.first, &a.id.id).cmp(&(b.first, &b.id.id)));
        out.extend(best.map(|best| Value::Uid(best.id.uid.clone())));
    });
    let with_address = |has: bool| {
        each(&rest, move |record, v, out| {
            if let Value::Live(live) = &v
                && live.says.address().is_some() == has
            {
                out.push((record, v));
            }
        })
    };
    let ownership = ownership::ownership(Claims {
        members: devices.clone(),
        alone: with_address(true),
        aliases: aliases.clone(),
        linked: of_named(&linked, &macs, &best),
        uids: best.clone(),
    });
    let by_themselves = each(&with_address(false), |record, v, out| {
        if let Value::Live(live) = v {
            out.push((record, Value::Member(live, How::Itself)));
        }
    });
    let record_uids = each(&by_themselves, |record, v, out| {
        if let Value::Member(live, _) = v {
            let said = live.record();
            out.push((record, Value::Uid(record_uid(&said.partition, &said.key).into())));
        }
    });
    let members = devices.concat(&ownership.members).concat(&by_themselves);
    let [alone_uids, linked_uids] = &ownership.uids;
    let uids = [&best, alone_uids, linked_uids, &record_uids];

    let placed = join_any(&members, &uids, |_, member, uid| match (member, uid) {
        (Value::Member(live, how), Value::Uid(uid)) => {
            Some((live.key, Value::PlacedIn(live.clone(), *how, uid.clone())))
        }
        _ => None,
    });

    let leads = lives::Leads {
        places: &anchors.places,
        relabel: &cross.relabel,
        groups: &macs.groups,
        holders: &macs.holders,
        kept: gated.as_ref().map(|gated| &gated.kept),
        members: &members,
    };
    let lives = lives::lives(inputs.steps, &leads);

    let holders = join(&held, &best, |device, seen, uid| match (seen, uid) {
        (Value::Seen(seen), Value::Uid(uid)) => Some((device, Value::Called(seen.clone(), uid.clone()))),
        _ => None,
    });
    let gone = each(&loose, |_, v, out| {
        if let Value::Loose(Unresolved::Gone, seen) = v {
            out.extend(seen.last_record.map(|record| (record, Value::Seen(seen))));
        }
    });
    let by_record = each(&members, |device, v, out| {
        if let Value::Member(live, _) = v {
            out.push((live.key, Value::Claimant(device, live, None)));
        }
    });
    let gone = join(&gone, &by_record, |_, seen, member| match (seen, member) {
        // A record that has moved to another partition took nothing with it.
        (Value::Seen(s), Value::Claimant(device, live, _)) if s.id.scope == live.says.scope => {
            Some((*device, seen.clone()))
        }
        _ => None,
    });
    let gone = join_any(&gone, &uids, |_, seen, uid| match (seen, uid) {
        (Value::Seen(seen), Value::Uid(uid)) => Some((seen.name, Value::Called(seen.clone(), uid.clone()))),
        _ => None,
    });
    let redirect = |seen: &FirstSeen, uid: &Arc<str>| {
        (seen.id.uid != *uid).then(|| {
            StateRow::from(DeviceRedirect {
                tenant_id: seen.id.scope.tenant.clone(),
                partition: seen.id.scope.partition.clone(),
                from_uid: seen.id.uid.to_string(),
                to_uid: uid.to_string(),
                identifier: seed(&seen.id.id),
                epoch: 0,
            })
        })
    };
    let held_rows = holders.flat_map(|(_, v)| match v {
        Value::Called(seen, uid) => Some(StateRow::from(DeviceIdentifier {
            device_uid: Some(uid.to_string()),
            first_seen: Some(seen.first),
            ..identifier_row(&seen.id, "held")
        })),
        _ => None,
    });
    let loose_rows = loose.flat_map(|(_, v)| match v {
        Value::Loose(Unresolved::Ambiguous, seen) => Some(StateRow::from(DeviceIdentifier {
            first_seen: Some(seen.first),
            ..identifier_row(&seen.id, "ambiguous")
        })),
        Value::Loose(Unresolved::Contested, seen) => Some(StateRow::from(DeviceIdentifier {
            first_seen: Some(seen.first),
            ..identifier_row(&seen.id, "contested")
        })),
        _ => None,
    });
    let redirects = holders.concat(&gone).flat_map(move |(_, v)| match v {
        Value::Called(seen, uid) => redirect(&seen, &uid),
        _ => None,
    });
    let address_redirects = ownership.named.flat_map(|(_, v)| match v {
        Value::Named(named) => named.1.redirect(&named.0),
        _ => None,
    });
    let ownership_rows = ownership.named.flat_map(|(_, v)| match v {
        Value::Named(named) => Some(named.1.row(Some(&named.0))),
        Value::Decision(shared) => Some(shared.row(None)),
        _ => None,
    });
    let address_owners = ownership.named.flat_map(|(_, v)| match v {
        Value::Named(named) => Some(named.1.owned(Some(&named.0))),
        Value::Decision(shared) => Some(shared.owned(None)),
        _ => None,
    });
    let inspect = Inspect::new(&members, uids, &settled, &aliases);
    let gate_out = gated.map_or_else(|| empty(scope), |gated| gated.said);
    Outputs {
        placements: members.flat_map(|(device, v)| match v {
            Value::Member(live, _) => Some((device, live)),
            _ => None,
        }),
        names: relations::all(uids.into_iter().cloned())
            .flat_map(|(device, v)| if let Value::Uid(uid) = v { Some((device, uid)) } else { None }),
        addresses: ownership.owned.flat_map(|(device, v)| match v {
            Value::Decision(d) => Some((device, d.spot().ip)),
            _ => None,
        }),
        owners: ownership.owners,
        address_owners,
        lives,
        audit: placed.flat_map(|(_, v)| match v {
            Value::PlacedIn(live, how, uid) => Some((live, how, uid)),
            _ => None,
        }),
        identifier_rows: held_rows.concat(loose_rows),
        redirect_rows: redirects.concat(address_redirects),
        ownership_rows,
        conditions: gate_out.clone().flat_map(|out| match out {
            GateOut::Held(key, condition, diff) => Some((key, condition, diff)),
            GateOut::Outcome(_) => None,
        }),
        outcomes: gate_out.flat_map(|out| match out {
            GateOut::Outcome(outcome) => Some(outcome),
            GateOut::Held(..) => None,
        }),
        inspect,
    }
}

/// All that the gate is told of runs.
fn run_events(runs: Runs<'_>) -> Events<'_, (ListingKey, RunEvent)> {
    let decisions = runs.decisions.map(|(decision, refused)| {
        let RunDecision { tenant, kind, instance, .. } = decision.clone();
        (ListingKey { tenant, kind, instance }, RunEvent::Decide(decision, refused))
    });
    let brakes = runs.brakes.map(|(tenant, brakes)| {
        let of = ListingKey { tenant, kind: SourceKind::Operator, instance: String::new() };
        (of, RunEvent::Brakes(brakes))
    });
    runs.events.concat(decisions).concat(brakes)
}

/// What a name has become part of, if it has.
fn renamed(name: Name, part_of: Option<&Value>) -> Name {
    match part_of {
        Some(Value::Name(whole)) => *whole,
        _ => name,
    }
}

/// What operators say of identifiers in links: that a device holds one ([`Value::Must`]), being the component of the
/// other end of a must-link; that it does not ([`Value::Barred`]), being that of a cannot-link.
fn linked<'scope>(
    links: &links::Links<'scope>,
    anchors: &anchors::Anchors<'scope>,
    relabel: &relations::Rel<'scope>,
) -> relations::Rel<'scope> {
    let musts = each(&links.must, |_, v, out| {
        if let Value::Edge(e) = v {
            out.extend(e.ends().map(|id| (id, Value::Name(id))));
        }
    });
    let ends = each(&links.ends, |id, v, out| {
        if let Value::End(token) = v {
            out.push((token.name(), Value::Name(id)));
        }
    });
    let other_ends = each(&links.ends, |id, v, out| {
        if let Value::End(token) = v {
            out.push((token.other().name(), Value::Name(id)));
        }
    });
    // By one end, that the other is not its.
    let barred = join(&ends, &other_ends, |_, end, other| match (end, other) {
        (Value::Name(end), Value::Name(other)) => Some((*end, Value::Barred(*other))),
        _ => None,
    });
    let components = lookup(&musts.concat(&barred), &anchors.places, |id, what, place| match place {
        Some(Value::Place(place)) => Some((place.component, what.clone())),
        _ => Some((id, what.clone())),
    });
    let components = lookup(&components, &anchors.peopled, |component, what, peopled| match (what, peopled) {
        (Value::Name(id), None) => Some((component, Value::MustIf(*id))),
        (Value::Name(id), Some(_)) => Some((component, Value::Must(*id))),
        (what, _) => Some((component, what.clone())),
    });
    lookup(&components, relabel, |component, what, group| {
        let device = renamed(component, group);
        match what {
            Value::MustIf(id) => Some((*id, Value::MustIf(device))),
            Value::Must(id) => Some((*id, Value::Must(device))),
            Value::Barred(id) => Some((*id, Value::Barred(device))),
            _ => None,
        }
    })
}

/// The same, of devices that are there, the rest as [`Value::MustIf`]; a MAC in a cannot-link stands for the device that
/// holds it, and a component without records is the device of the free MACs that are linked to it.
fn of_named<'scope>(
    linked: &relations::Rel<'scope>,
    macs: &macs::Macs<'scope>,
    uids: &relations::Rel<'scope>,
) -> relations::Rel<'scope> {
    let by_device = each(linked, |id, v, out| match v {
        Value::Must(device) => out.push((device, Value::Name(id))),
        Value::Barred(device) => out.push((device, Value::Barred(id))),
        _ => {}
    });
    let by_component = each(linked, |id, v, out| {
        if let Value::MustIf(component) = v {
            out.push((macs::together(component), Value::ClaimedBy(id, component)));
        }
    });
    let by_group = lookup(&by_component, &macs.groups, |_, of, group| match of {
        Value::ClaimedBy(id, component) => Some((renamed(*component, group), Value::Name(*id))),
        _ => None,
    });
    let by_device = by_device.concat(&by_group);
    let by_device =
        lookup_any(&by_device, &macs.holders.each_ref(), |device, v, said| match (v, said.and_then(macs::holder)) {
            (Value::Barred(_), Some(holder)) => Some((holder, v.clone())),
            _ => Some((device, v.clone())),
        });
    lookup(&by_device, uids, |device, v, uid| match (v, uid) {
        (Value::Name(id), Some(_)) => Some((*id, Value::Must(device))),
        (Value::Name(id), None) => Some((*id, Value::MustIf(device))),
        (Value::Barred(id), Some(_)) => Some((*id, Value::Barred(device))),
        _ => None,
    })
}

fn identifier_row(id: &Asserted, state: &str) -> DeviceIdentifier {
    DeviceIdentifier {
        tenant_id: id.scope.tenant.clone(),
        partition: id.scope.partition.clone(),
        identifier_type: id.id.kind.name().to_owned(),
        source_instance: id.id.namespace.clone(),
        identifier_value: id.id.value.clone(),
        state: state.to_owned(),
        device_uid: None,
        first_seen: None,
        epoch: 0,
    }
}
