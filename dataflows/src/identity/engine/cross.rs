//! Stage 1b: groups of components, kept up to date.

use std::collections::BTreeMap;

use radarflow_reconcile::identity::stages::{Key, World, chosen, crowded, jammed};

use super::decide::Marked;
use super::facts::{Facts, RecEntry};

/// What components choose, as far as it was asked for: most choose nobody.
struct Choices<'a> {
    facts: &'a Facts,
    asked: super::sets::Marks,
    chosen: BTreeMap<Key, Vec<Key>>,
}

impl Choices<'_> {
    fn of(&mut self, component: Key) -> &[Key] {
        if self.asked.add(component) && self.facts.component(component) == component {
            let chosen = chosen(self.facts, component);
            if !chosen.is_empty() {
                self.chosen.insert(component, chosen);
            }
        }
        self.chosen.get(&component).map_or(&[], Vec::as_slice)
    }
}

/// Computes how crowded marked addresses and MACs are, and the groups of components that claims at these can have touched;
/// marks components that moved.
pub(super) fn compute(facts: &mut Facts, marked: &mut Marked) {
    for rec in &marked.touched {
        if facts.recs[*rec].live.is_some() {
            marked.components.extend(facts.component_of(*rec));
        }
    }
    for component in marked.recomposed.iter() {
        facts.mark(component, RecEntry::macs, &mut marked.spots);
        facts.mark(component, RecEntry::addresses, &mut marked.spots);
    }
    marked.around.extend(marked.components.iter());
    let mut hanging: Vec<Key> = Vec::new();
    for spot in marked.spots.iter() {
        let (was, is) = (facts.is_crowded(spot), crowded(facts, spot));
        if was != is {
            facts.keys[spot].crowded = is;
            hanging.extend(facts.hanging_on(spot));
        }
        // Where too many claim something, claims of it say nothing, whoever comes and goes.
        if !(was && is) {
            marked.around.extend(facts.asserting(spot).filter_map(|rec| facts.component_of(rec)));
        }
    }
    for spot in hanging {
        if marked.spots.add(spot) {
            marked.around.extend(facts.asserting(spot).filter_map(|rec| facts.component_of(rec)));
        }
    }
    let this = &*facts;
    let mut choices = Choices { facts: this, asked: std::mem::take(&mut marked.work2), chosen: BTreeMap::new() };
    let plan = this.groups.regroup(marked.around.iter(), &mut marked.work, |component, near| {
        near.extend_from_slice(choices.of(component));
        near.retain(|other| choices.of(*other).contains(&component));
    });
    marked.work2 = choices.asked;
    marked.work2.clear();
    let of = |facts: &Facts, component| (facts.device(component), facts.is_grouped(component));
    let before: Vec<(Key, (Key, bool))> = plan.keys().map(|component| (component, of(this, component))).collect();
    for group in plan.groups() {
        let jammed = jammed(facts, group);
        let keys = &facts.keys;
        facts.groups.join(group, |key| keys[key].name);
        for component in group {
            facts.keys[*component].jammed = jammed;
        }
    }
    for (component, was) in before {
        if was != of(facts, component) || marked.components.has(component) {
            marked.moved.add(component);
        }
    }
}
