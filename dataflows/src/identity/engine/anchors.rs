//! Stage 1: components of identifiers, kept up to date.

use radarflow_reconcile::identity::stages::{Kind, World, ambiguous, contested, neighbours};

use super::decide::Marked;
use super::facts::Facts;
use super::links::Changed;

/// Marks what reads links that changed.
pub(super) fn relinked(facts: &Facts, changed: &Changed, marked: &mut Marked) {
    for id in &changed.must {
        marked.ids.add(*id);
        marked.ids.extend(neighbours(facts, *id));
        marked.named.add(*id);
        marked.left.add(*id);
    }
    for id in &changed.apart {
        // Whoever holds an end, by whatever claim.
        marked.ids.add(*id);
        marked.components.add(facts.component(*id));
        marked.left.add(*id);
        if facts.space(*id).is_none() {
            marked.components.extend(facts.asserting(*id).filter_map(|rec| facts.component_of(rec)));
        }
        if matches!(facts.kind(*id), Kind::Mac { .. }) {
            marked.free.add(*id);
        }
    }
}

/// Computes marked identifiers, and the components of what these can have touched; marks components that changed.
pub(super) fn compute(facts: &mut Facts, marked: &mut Marked) {
    for id in marked.ids.iter() {
        facts.keys[id].ambiguous = ambiguous(facts, id);
    }
    let this = &*facts;
    let plan = this.anchors.regroup(marked.ids.iter(), &mut marked.work, |id, near| {
        near.extend(this.links.set(id).into_iter().flatten());
        if !this.is_ambiguous(id) {
            near.extend(neighbours(this, id).filter(|other| !this.is_ambiguous(*other)));
        }
    });
    marked.components.extend(plan.keys().map(|id| this.component(id)));
    for group in plan.groups() {
        let contested = group.len() > 1 && contested(facts, group);
        let keys = &facts.keys;
        facts.anchors.join(group, |key| keys[key].name);
        for id in group {
            facts.keys[*id].contested = contested;
        }
    }
    for id in plan.keys() {
        let component = facts.component(id);
        marked.components.add(component);
        marked.recomposed.add(component);
        marked.named.add(id);
    }
}
