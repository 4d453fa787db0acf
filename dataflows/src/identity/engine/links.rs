//! What operators say of identifiers.
//!
//! ```text
//! must(i)   :- least identifier that must-links alone connect to i
//! apart(i)  :- other ends of cannot-links at i, unless must-links connect them: those win
//! linked(i) :- of i in a must-link: the device whose component i is in, if records belong to it; else that component
//! barred(i) :- the devices of the other ends of cannot-links at i
//! ```
//! Operators' links are few: what they amount to is read anew whenever a device changed.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::fact::{Link, LinkKind};
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_reconcile::identity::assertions::{Scope, is_global};
use radarflow_reconcile::identity::stages::{Key, Kind, Linked, World};

use super::facts::Facts;

/// Links, and what they amount to.
#[derive(Default)]
pub(super) struct Links {
    /// By kind and ends, how often it is said.
    said: BTreeMap<(bool, Key, Key), isize>,
    must: BTreeMap<Key, Key>,
    sets: BTreeMap<Key, Vec<Key>>,
    apart: BTreeMap<Key, Vec<Key>>,
    read: Read,
}

/// What links amount to between the stages.
#[derive(Default)]
struct Read {
    linked: BTreeMap<Key, Linked>,
    barred: BTreeMap<Key, Vec<Key>>,
    /// By what stands for a component that no record belongs to: the identifiers linked to it.
    idle: BTreeMap<Key, Vec<Key>>,
}

impl Links {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.said.is_empty() && self.read.linked.is_empty() && self.read.barred.is_empty()
    }

    /// Whether an identifier is in a link, or was until now.
    pub(super) fn knows(&self, key: Key) -> bool {
        !self.is_empty()
            && (self.must.contains_key(&key)
                || self.apart.contains_key(&key)
                || self.said.keys().any(|(_, a, b)| *a == key || *b == key)
                || self.read.linked.contains_key(&key)
                || self.read.barred.contains_key(&key))
    }

    pub(super) fn must(&self, key: Key) -> Key {
        self.must.get(&key).copied().unwrap_or(key)
    }

    /// Whether an identifier is in a must-link.
    pub(super) fn is_linked(&self, key: Key) -> bool {
        self.must.contains_key(&key)
    }

    /// What must-links alone connect to an identifier.
    pub(super) fn set(&self, key: Key) -> Option<&[Key]> {
        self.must.get(&key).and_then(|least| self.sets.get(least)).map(Vec::as_slice)
    }

    pub(super) fn apart(&self, key: Key) -> &[Key] {
        self.apart.get(&key).map_or(&[], Vec::as_slice)
    }

    pub(super) fn any_apart(&self) -> bool {
        !self.apart.is_empty()
    }

    pub(super) fn linked(&self, key: Key) -> Option<Linked> {
        self.read.linked.get(&key).copied()
    }

    pub(super) fn barred(&self, key: Key) -> &[Key] {
        self.read.barred.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Identifiers that are linked to a component that no record belongs to.
    pub(super) fn idle(&self, together: Key) -> &[Key] {
        self.read.idle.get(&together).map_or(&[], Vec::as_slice)
    }

    /// What stands for components that no record belongs to.
    pub(super) fn togethers(&self) -> impl Iterator<Item = Key> + '_ {
        self.read.idle.keys().copied()
    }

    /// All identifiers in links, some perhaps twice.
    pub(super) fn ends(&self) -> impl Iterator<Item = Key> + '_ {
        self.must.keys().chain(self.apart.keys()).copied()
    }

    /// All identifiers in links of which something is said.
    pub(super) fn ids(&self) -> BTreeSet<Key> {
        self.read.linked.keys().chain(self.read.barred.keys()).copied().collect()
    }
}

/// The number of an identifier in a link.
fn end(facts: &mut Facts, scope: &Scope, id: &Identifier) -> Key {
    let named = scope.id(id);
    if id.kind.is_strong() {
        return facts.strong(named.name, named.namespace);
    }
    let mac = u64::from_str_radix(&id.value, 16).ok().filter(|_| id.kind == IdKind::Mac);
    facts.key(named.name, |_| mac.map_or(Kind::Address, |mac| Kind::Mac { global: is_global(mac) }))
}

/// What changes with links: for whom the ends of must-links or cannot-links are others.
pub(super) struct Changed {
    /// Identifiers that must-links connect to others than before.
    pub(super) must: BTreeSet<Key>,
    /// Identifiers that others are to be apart from.
    pub(super) apart: BTreeSet<Key>,
}

/// Takes in links that came and went. `before` is told, ahead of it, of identifiers that will be connected to others.
pub(super) fn take(facts: &mut Facts, links: &[(Link, isize)], before: impl FnOnce(&Facts, &BTreeSet<Key>)) -> Changed {
    for (link, diff) in links {
        let scope = Scope::of(&link.tenant, &link.partition);
        let (a, b) = (end(facts, &scope, &link.a), end(facts, &scope, &link.b));
        if a != b {
            let said = facts.links.said.entry((link.kind == LinkKind::Must, a.min(b), a.max(b))).or_default();
            *said += diff;
        }
    }
    facts.links.said.retain(|_, n| *n != 0);
    let of_kind = |must: bool| {
        let said = facts.links.said.keys().filter(move |(m, ..)| *m == must);
        said.map(|(_, a, b)| (*a, *b)).collect::<Vec<_>>()
    };
    let mut set_of: BTreeMap<Key, usize> = BTreeMap::new();
    let mut sets: Vec<Vec<Key>> = Vec::new();
    for (a, b) in of_kind(true) {
        let [a, b] = [a, b].map(|end| {
            *set_of.entry(end).or_insert_with(|| {
                sets.push(vec![end]);
                sets.len() - 1
            })
        });
        if a != b {
            // The smaller is made part of the larger.
            let (from, into) = if sets[a].len() < sets[b].len() { (a, b) } else { (b, a) };
            let moved = std::mem::take(&mut sets[from]);
            set_of.extend(moved.iter().map(|end| (*end, into)));
            sets[into].extend(moved);
        }
    }
    let (mut must, mut by_least): (BTreeMap<Key, Key>, BTreeMap<Key, Vec<Key>>) = Default::default();
    for mut set in sets.into_iter().filter(|set| !set.is_empty()) {
        set.sort_unstable();
        let least = set.iter().copied().min_by_key(|key| facts.named(*key)).expect("a set has a key");
        must.extend(set.iter().map(|key| (*key, least)));
        by_least.insert(least, set);
    }
    let mut apart: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
    for (a, b) in of_kind(false) {
        if must.get(&a).unwrap_or(&a) != must.get(&b).unwrap_or(&b) {
            apart.entry(a).or_default().push(b);
            apart.entry(b).or_default().push(a);
        }
    }
    let was = &facts.links;
    let differing = |a: &BTreeMap<Key, Vec<Key>>, b: &BTreeMap<Key, Vec<Key>>| -> Vec<(Key, Vec<Key>)> {
        let differs = |(key, value): &(&Key, &Vec<Key>)| b.get(*key) != Some(*value);
        a.iter().filter(differs).map(|(key, value)| (*key, value.clone())).collect()
    };
    let sets = differing(&was.sets, &by_least).into_iter().chain(differing(&by_least, &was.sets));
    let ends = differing(&was.apart, &apart).into_iter().chain(differing(&apart, &was.apart));
    let changed = Changed {
        must: sets.flat_map(|(_, set)| set).collect(),
        apart: ends.flat_map(|(key, others)| others.into_iter().chain([key])).collect(),
    };
    before(facts, &changed.must);
    let links = &mut facts.links;
    (links.must, links.sets, links.apart) = (must, by_least, apart);
    changed
}

/// Reads what links amount to, now that devices with strong identifiers are known; tells identifiers of which it is another,
/// and what stands for components where MACs are joined, if that did or does.
pub(super) fn read(facts: &mut Facts) -> (BTreeSet<Key>, BTreeSet<Key>) {
    let mut read = Read::default();
    let ids: Vec<Key> = facts.links.must.keys().copied().collect();
    for id in ids {
        let component = facts.component(id);
        let linked = if facts.records(component).next().is_some() {
            Linked::Holds(facts.device(component))
        } else {
            let together = facts.together(component);
            read.idle.entry(together).or_default().push(id);
            Linked::Idle { component, together }
        };
        read.linked.insert(id, linked);
    }
    for (id, others) in &facts.links.apart {
        let mut barred: Vec<Key> = others.iter().map(|other| facts.device(facts.component(*other))).collect();
        barred.sort_unstable();
        barred.dedup();
        read.barred.insert(*id, barred);
    }
    let was = std::mem::replace(&mut facts.links.read, read);
    let is = &facts.links.read;
    let linked = was.linked.keys().chain(is.linked.keys()).filter(|id| was.linked.get(id) != is.linked.get(id));
    let barred = was.barred.keys().chain(is.barred.keys()).filter(|id| was.barred.get(id) != is.barred.get(id));
    let changed: BTreeSet<Key> = linked.chain(barred).copied().collect();
    let idle = was.idle.keys().chain(is.idle.keys()).filter(|key| was.idle.get(key) != is.idle.get(key));
    (changed, idle.copied().collect())
}
