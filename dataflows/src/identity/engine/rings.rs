//! The components of a graph whose edges come and go, kept as rings.
//!
//! Each key has the next of its component, which makes a ring, and the component's label, its least name. [`Rings::regroup`]
//! computes anew what a change can have touched:
//!
//! Let G and H be the graphs before and after, and S the keys incident to an edge that is in one of them only. The search
//! starts from S and adds, for each key it comes to, the ring of the component it was in (G) and its neighbours now (H).
//! What it ends with is a union of components of G and of H. Outside, no edge differs, so components there are the same;
//! inside they are computed from nothing. All is planned before anything is written: a plan reads the old rings.

use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::identity::stages::Key;

use super::sets::Marks;

/// Components as rings; a key that nobody spoke of is one by itself.
#[derive(Default)]
pub(super) struct Rings {
    /// Of each key its label, and the next of its ring.
    of: Vec<[Key; 2]>,
}

/// New components, one after the other.
#[derive(Default)]
pub(super) struct Plan {
    keys: Vec<Key>,
    ends: Vec<usize>,
}

impl Plan {
    /// The members of each.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[Key]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.keys[begin..*end])
    }

    /// All that may have changed.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.keys.iter().copied()
    }
}

impl Rings {
    /// The label of a key's component.
    pub(super) fn label(&self, key: Key) -> Key {
        self.of.get(key as usize).map_or(key, |[label, _]| *label)
    }

    fn next(&self, key: Key) -> Key {
        self.of.get(key as usize).map_or(key, |[_, next]| *next)
    }

    /// Whether a key is a component by itself.
    pub(super) fn is_alone(&self, key: Key) -> bool {
        self.next(key) == key
    }

    /// The keys of a key's component.
    pub(super) fn ring(&self, key: Key) -> impl Iterator<Item = Key> + '_ {
        std::iter::successors(Some(key), move |at| Some(self.next(*at)).filter(|next| *next != key))
    }

    /// Plans the components of what `seeds` can have changed; `seen` is room for work. `neighbours` gives a key's.
    pub(super) fn regroup(
        &self,
        seeds: impl Iterator<Item = Key>,
        seen: &mut Marks,
        mut neighbours: impl FnMut(Key, &mut Vec<Key>),
    ) -> Plan {
        let mut plan = Plan::default();
        let (mut waiting, mut near): (Vec<Key>, Vec<Key>) = (seeds.collect(), Vec::new());
        while let Some(seed) = waiting.pop() {
            if !seen.add(seed) {
                continue;
            }
            let mut at = plan.keys.len();
            plan.keys.push(seed);
            while let Some(key) = plan.keys.get(at).copied() {
                at += 1;
                waiting.extend(self.ring(key).skip(1));
                neighbours(key, &mut near);
                plan.keys.extend(near.drain(..).filter(|next| seen.add(*next)));
            }
            plan.ends.push(at);
        }
        seen.clear();
        plan
    }

    /// Makes the keys one component; tells its label.
    pub(super) fn join(&mut self, group: &[Key], name: impl Fn(Key) -> Name) -> Key {
        let label = group.iter().copied().min_by_key(|key| name(*key)).expect("a component has a key");
        let most = group.iter().copied().max().expect("a component has a key") as usize;
        if group.len() == 1 && most >= self.of.len() {
            return label;
        }
        let known = self.of.len() as Key;
        self.of.extend((known..=most as Key).map(|key| [key, key]));
        for (at, key) in group.iter().enumerate() {
            self.of[*key as usize] = [label, group[(at + 1) % group.len()]];
        }
        label
    }
}
