//! Stage 2: MACs, and groups of free ones, kept up to date.

use radarflow_reconcile::identity::stages::{By, Key, Kind, MacState, Rec, World, mac_state, settle, wants};

use super::decide::Marked;
use super::facts::Facts;

/// Computes marked MACs, the groups of free ones that these can have touched, and the devices of records in none.
pub(super) fn compute(facts: &mut Facts, marked: &mut Marked) {
    for component in marked.moved.iter() {
        if facts.component(component) != component {
            continue;
        }
        marked.named.extend(facts.members(component));
        for rec in facts.records(component) {
            marked.recs.add(rec);
            marked.macs.extend(facts.macs(rec).iter().copied());
            if facts.any_polled() {
                marked.loose.extend(facts.addresses(rec).iter().flat_map(|address| facts.polled(*address)));
            }
        }
    }
    for spot in marked.spots.iter() {
        marked.loose.extend(facts.polled(spot));
    }
    marked.loose.extend(marked.touched.iter().copied());
    for mac in marked.macs.iter() {
        let (was, is) = (facts.state(mac), mac_state(facts, mac));
        facts.keys[mac].state = is;
        marked.named.add(mac);
        if was == MacState::Free || is == MacState::Free {
            marked.free.add(mac);
        }
        if was != is {
            marked.loose.extend(weak(facts, mac));
        }
    }
    for rec in marked.loose.iter() {
        if is_weak(facts, rec) {
            marked.free.extend(facts.macs(rec).iter().copied().filter(|mac| facts.state(*mac) == MacState::Free));
        }
    }
    let this = &*facts;
    let plan = this.macs.regroup(marked.free.iter(), &mut marked.work, |key, near| neighbours(this, key, near));
    let decided: Vec<(Vec<Rec>, Option<(Key, By)>)> = plan
        .groups()
        .map(|group| {
            let free = group.iter().filter(|key| this.state(**key) == MacState::Free);
            let mut records: Vec<Rec> = free.flat_map(|mac| weak(this, *mac)).collect();
            records.sort_unstable();
            records.dedup();
            let label = group.iter().copied().min_by_key(|key| this.named(*key));
            let device = if records.is_empty() { None } else { settle(this, &records, group, label) };
            (records, device)
        })
        .collect();
    for (group, (records, device)) in plan.groups().zip(decided) {
        for key in group {
            facts.keys[*key].group = None;
            marked.named.add(*key);
        }
        let keys = &facts.keys;
        let label = facts.macs.join(group, |key| keys[key].name);
        facts.keys[label].group = device;
        for rec in records {
            facts.recs[rec].attached = device;
            marked.recs.add(rec);
            marked.work2.add(rec);
        }
    }
    for rec in marked.loose.iter() {
        if is_weak(facts, rec) && !marked.work2.has(rec) {
            facts.recs[rec].attached = settle(facts, &[rec], &[], None);
            marked.recs.add(rec);
        }
    }
    marked.work2.clear();
}

/// Whether it is a live record without a strong identifier.
fn is_weak(facts: &Facts, rec: Rec) -> bool {
    facts.recs[rec].live.is_some() && facts.ids(rec).is_empty()
}

/// Records without a strong identifier that assert a MAC. Others may assert a free one, where operators say that it is not
/// theirs.
pub(super) fn weak(facts: &Facts, mac: Key) -> impl Iterator<Item = Rec> + '_ {
    facts.asserting(mac).filter(|rec| facts.ids(*rec).is_empty())
}

/// What records, or operators, join to a free MAC or to what stands for a component without records.
fn neighbours(facts: &Facts, key: Key, near: &mut Vec<Key>) {
    use radarflow_reconcile::identity::stages::Linked;
    let joined = |rec: Rec| wants(facts, rec).free;
    match facts.kind(key) {
        Kind::Mac { .. } if facts.state(key) == MacState::Free => {
            near.extend(weak(facts, key).flat_map(joined).filter(|other| *other != key));
            if let Some(Linked::Idle { together, .. }) = facts.linked(key) {
                near.push(together);
            }
        }
        Kind::Together => {
            for id in facts.links.idle(key) {
                let free = |rec: &Rec| wants(facts, *rec).free.contains(&key);
                match facts.kind(*id) {
                    Kind::Mac { global: true } if facts.state(*id) == MacState::Free => near.push(*id),
                    Kind::Mac { global: false } => near.extend(weak(facts, *id).filter(free).flat_map(joined)),
                    Kind::Address => near.extend(facts.polled(*id).filter(free).flat_map(joined)),
                    _ => {}
                }
            }
            near.retain(|other| *other != key);
        }
        _ => {}
    }
}
