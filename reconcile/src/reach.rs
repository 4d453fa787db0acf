//! Who stands behind whom: which devices cannot be seen because another is down.
//!
//! Devices stand behind each other by what is declared, and where nothing is declared of one, by the links that neighbours report:
//! from the devices that agents run on, the nearer stands before the farther. A device that is down stands *behind* the
//! devices before it if there are any, all of them are down and no neighbour of it is up, which would be another way to it; it is
//! not told of, they are. Who is named is the first of
//! them that does not itself stand behind another: the root.
//!
//! What is declared in a circle stands before nothing: from where a chain begins, who is nearer stands before who is farther.
//! All of it is a function of what is known now. In which order it was learnt does not matter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A device.
pub type Uid = Arc<str>;

/// Edges, as often as each is said.
#[derive(Clone, Debug, Default)]
struct Edges(BTreeMap<Uid, BTreeMap<Uid, usize>>);

impl Edges {
    fn is(&self, from: &Uid, to: &Uid) -> bool {
        self.0.get(from).is_some_and(|of| of.contains_key(to))
    }

    /// Says an edge once more or less often.
    fn change(&mut self, from: &Uid, to: &Uid, diff: isize) {
        let of = self.0.entry(from.clone()).or_default();
        let count = of.entry(to.clone()).or_default();
        *count = count.saturating_add_signed(diff);
        if *count == 0 {
            of.remove(to);
            if of.is_empty() {
                self.0.remove(from);
            }
        }
    }

    fn of(&self, uid: &Uid) -> impl Iterator<Item = &Uid> {
        self.0.get(uid).into_iter().flat_map(BTreeMap::keys)
    }

    fn has(&self, uid: &Uid) -> bool {
        self.0.contains_key(uid)
    }
}

/// One change of what is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A device is up, down, or neither is known.
    Seen(Uid, Option<bool>),
    /// An agent runs on it, or does not.
    Agent(Uid, bool),
    /// Two devices are neighbours, once more (1) or less (-1).
    Link(Uid, Uid, isize),
    /// The first stands before the second, likewise.
    Declared(Uid, Uid, isize),
}

/// The devices of one partition.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    down: BTreeSet<Uid>,
    up: BTreeSet<Uid>,
    agents: BTreeSet<Uid>,
    /// Both ways.
    links: Edges,
    /// From who stands before to who stands behind, and back.
    declared: Edges,
    declarers: Edges,
    /// How far each is from where chains begin: an edge leads from the nearer to the farther.
    depth: BTreeMap<Uid, u32>,
    behind: BTreeMap<Uid, Uid>,
}

impl Reach {
    /// Takes in what changed; tells of each device for which that matters whom it stood behind and whom it stands behind now.
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>) -> BTreeMap<Uid, (Option<Uid>, Option<Uid>)> {
        let (mut touched, mut moved) = (BTreeSet::new(), false);
        let (mut links, mut declared): (BTreeMap<(Uid, Uid), bool>, BTreeMap<(Uid, Uid), bool>) = Default::default();
        for change in changes {
            match change {
                Change::Seen(uid, seen) => {
                    let down = if seen == Some(false) { self.down.insert(uid.clone()) } else { self.down.remove(&uid) };
                    let up = if seen == Some(true) { self.up.insert(uid.clone()) } else { self.up.remove(&uid) };
                    if up {
                        touched.extend(self.links.of(&uid).cloned());
                    }
                    if up || down {
                        touched.insert(uid);
                    }
                }
                Change::Agent(uid, true) => moved |= self.agents.insert(uid),
                Change::Agent(uid, false) => moved |= self.agents.remove(&uid),
                Change::Link(a, b, diff) if a != b => {
                    links.entry((a.clone(), b.clone())).or_insert_with(|| self.links.is(&a, &b));
                    self.links.change(&a, &b, diff);
                    self.links.change(&b, &a, diff);
                }
                Change::Declared(parent, child, diff) if parent != child => {
                    let known = || self.declared.is(&parent, &child);
                    declared.entry((parent.clone(), child.clone())).or_insert_with(known);
                    self.declared.change(&parent, &child, diff);
                    self.declarers.change(&child, &parent, diff);
                }
                Change::Link(..) | Change::Declared(..) => {}
            }
        }
        // A link that goes and comes, as it does whenever it is seen again, is no change.
        moved |= links.into_iter().any(|((a, b), was)| self.links.is(&a, &b) != was);
        moved |= declared.into_iter().any(|((a, b), was)| self.declared.is(&a, &b) != was);
        if moved {
            self.measure();
            touched.extend(self.down.iter().chain(self.behind.keys()).cloned());
        }
        // The nearer is decided before the farther, so that each is decided once.
        let place = |reach: &Reach, uid: &Uid| (reach.depth.get(uid).copied().unwrap_or(0), uid.clone());
        let mut queue: BTreeSet<(u32, Uid)> = touched.iter().map(|uid| place(self, uid)).collect();
        let mut moved = BTreeMap::new();
        while let Some((_, uid)) = queue.pop_first() {
            let (was, is) = (self.behind.get(&uid).cloned(), self.root(&uid));
            if was != is || touched.contains(&uid) {
                let next = self.children(&uid).filter(|child| self.down.contains(*child));
                queue.extend(next.map(|child| place(self, child)).collect::<Vec<_>>());
            }
            if was != is {
                match &is {
                    Some(root) => drop(self.behind.insert(uid.clone(), root.clone())),
                    None => drop(self.behind.remove(&uid)),
                }
                moved.insert(uid, (was, is));
            }
        }
        moved
    }

    /// Whom a device stands behind.
    pub fn behind(&self, uid: &str) -> Option<&Uid> {
        self.behind.get(uid)
    }

    /// Every device that stands behind another, and that.
    pub fn all(&self) -> impl Iterator<Item = (&Uid, &Uid)> {
        self.behind.iter()
    }

    /// Whether others may stand behind it.
    pub fn is_root(&self, uid: &Uid) -> bool {
        self.down.contains(uid) && !self.behind.contains_key(uid)
    }

    /// Measures how far each is from the agents; of what they do not reach, from where declared chains begin.
    fn measure(&mut self) {
        let mut depth: BTreeMap<Uid, u32> = BTreeMap::new();
        let begins = self.declared.0.keys().filter(|uid| !self.declarers.has(uid));
        for begin in [self.agents.iter().collect::<Vec<_>>(), begins.collect()] {
            let unreached = begin.into_iter().filter(|uid| !depth.contains_key(*uid)).cloned();
            let mut queue: VecDeque<(Uid, u32)> = unreached.map(|uid| (uid, 0)).collect();
            while let Some((uid, far)) = queue.pop_front() {
                if depth.contains_key(&uid) {
                    continue;
                }
                depth.insert(uid.clone(), far);
                queue.extend(self.next(&uid).filter(|to| !depth.contains_key(*to)).map(|to| (to.clone(), far + 1)));
            }
        }
        self.depth = depth;
    }

    /// Those that an edge leads to. To whom something is declared to stand before no link leads.
    fn next<'a>(&'a self, uid: &'a Uid) -> impl Iterator<Item = &'a Uid> {
        self.declared.of(uid).chain(self.links.of(uid).filter(|to| !self.declarers.has(to)))
    }

    fn is_nearer(&self, a: &Uid, b: &Uid) -> bool {
        matches!((self.depth.get(a), self.depth.get(b)), (Some(a), Some(b)) if a < b)
    }

    fn children<'a>(&'a self, uid: &'a Uid) -> impl Iterator<Item = &'a Uid> {
        self.next(uid).filter(move |child| self.is_nearer(uid, child))
    }

    fn parents(&self, uid: &Uid) -> Vec<&Uid> {
        let from = if self.declarers.has(uid) { &self.declarers } else { &self.links };
        from.of(uid).filter(|parent| self.is_nearer(parent, uid)).collect()
    }

    /// Whom a device stands behind, where it is decided of those before it.
    fn root(&self, uid: &Uid) -> Option<Uid> {
        if !self.down.contains(uid) {
            return None;
        }
        let parents = self.parents(uid);
        if parents.is_empty() || !parents.iter().all(|parent| self.down.contains(*parent)) {
            return None;
        }
        // Another way to it is open: what is declared says so wherever it stands, of links each neighbour that is up.
        let open = match self.declarers.has(uid) {
            true => self.declarers.of(uid).any(|parent| !self.down.contains(parent)),
            false => self.links.of(uid).any(|neighbour| self.up.contains(neighbour)),
        };
        if open {
            return None;
        }
        parents.into_iter().map(|parent| self.behind.get(parent).unwrap_or(parent)).min().cloned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uid(n: usize) -> Uid {
        format!("d{n}").into()
    }

    fn behind(reach: &Reach) -> BTreeMap<String, String> {
        reach.behind.iter().map(|(uid, root)| (uid.to_string(), root.to_string())).collect()
    }

    fn of(pairs: &[(usize, usize)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(a, b)| (uid(*a).to_string(), uid(*b).to_string())).collect()
    }

    #[test]
    fn what_is_farther_from_the_agent_stands_behind_what_is_nearer() {
        // An agent on d0, a ring d1 d2 behind it, d3 behind both, d4 behind d3.
        let mut reach = Reach::default();
        reach.take([Change::Agent(uid(0), true)]);
        reach.take([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)].map(|(a, b)| Change::Link(uid(a), uid(b), 1)));
        reach.take([Change::Seen(uid(4), Some(false))]);
        assert_eq!(behind(&reach), of(&[]), "nothing before it is down");
        reach.take([Change::Seen(uid(1), Some(false)), Change::Seen(uid(3), Some(false))]);
        assert_eq!(behind(&reach), of(&[(4, 3)]), "d3 could be reached by d2");
        let told = reach.take([Change::Seen(uid(2), Some(false))]);
        assert_eq!(behind(&reach), of(&[(3, 1), (4, 1)]));
        assert_eq!(told.len(), 2, "{told:?}");
        reach.take([Change::Seen(uid(2), Some(true))]);
        assert_eq!(behind(&reach), of(&[(4, 3)]));
        // A link that was not there: d4 has another way.
        reach.take([Change::Link(uid(2), uid(4), 1)]);
        assert_eq!(behind(&reach), of(&[]));
    }

    #[test]
    fn what_is_declared_counts_where_it_is_declared_and_circles_do_not() {
        let mut reach = Reach::default();
        reach.take([Change::Agent(uid(0), true), Change::Link(uid(0), uid(1), 1), Change::Link(uid(1), uid(2), 1)]);
        reach.take([
            Change::Declared(uid(9), uid(2), 1),
            Change::Seen(uid(1), Some(false)),
            Change::Seen(uid(2), Some(false)),
        ]);
        assert_eq!(behind(&reach), of(&[]), "d2 stands behind d9, whatever links say");
        reach.take([Change::Seen(uid(9), Some(false))]);
        assert_eq!(behind(&reach), of(&[(2, 9)]));
        let mut circle = Reach::default();
        circle.take([(5, 6), (6, 7), (7, 5)].map(|(a, b)| Change::Declared(uid(a), uid(b), 1)));
        circle.take((5..8).map(|n| Change::Seen(uid(n), Some(false))));
        assert_eq!(behind(&circle), of(&[]), "each of them is told of");
        circle.take([Change::Declared(uid(4), uid(5), 1), Change::Seen(uid(4), Some(false))]);
        assert_eq!(behind(&circle), of(&[(5, 4), (6, 4), (7, 4)]), "the circle hangs on d4");
    }

    fn change() -> impl Strategy<Value = Change> {
        let pair = || (0usize..9, 0usize..9);
        prop_oneof![
            4 => (0usize..9, any::<Option<bool>>()).prop_map(|(n, seen)| Change::Seen(uid(n), seen)),
            1 => (0usize..3, any::<bool>()).prop_map(|(n, runs)| Change::Agent(uid(n), runs)),
            3 => (pair(), prop_oneof![2 => Just(1), 1 => Just(-1)]).prop_map(|((a, b), d)| Change::Link(uid(a), uid(b), d)),
            2 => (pair(), prop_oneof![2 => Just(1), 1 => Just(-1)]).prop_map(|((a, b), d)| Change::Declared(uid(a), uid(b), d)),
        ]
    }

    proptest! {
        /// Whatever happened in whatever order and grouping, the end is that of what is known at the end; and what is told adds up.
        #[test]
        fn only_what_is_known_matters(changes in prop::collection::vec(change(), 0..60), at_once in 1usize..7) {
            let mut reach = Reach::default();
            let mut told: BTreeMap<Uid, Uid> = BTreeMap::new();
            let mut links: BTreeMap<Change, isize> = BTreeMap::new();
            let mut kept = Vec::new();
            for change in changes {
                // Nothing is taken back that was not said.
                if let Change::Link(a, b, diff) | Change::Declared(a, b, diff) = &change {
                    let said = match &change {
                        Change::Link(..) => Change::Link(a.min(b).clone(), a.max(b).clone(), 0),
                        _ => Change::Declared(a.clone(), b.clone(), 0),
                    };
                    let count = links.entry(said).or_default();
                    if *count + diff < 0 {
                        continue;
                    }
                    *count += diff;
                }
                kept.push(change);
            }
            for changes in kept.chunks(at_once) {
                for (uid, (was, is)) in reach.take(changes.to_vec()) {
                    prop_assert_eq!(told.remove(&uid), was);
                    told.extend(is.map(|root| (uid, root)));
                }
            }
            prop_assert_eq!(&told, &reach.behind);
            let mut fresh = Reach::default();
            let edges = links.iter().filter(|(_, n)| **n > 0).map(|(edge, n)| match edge {
                Change::Link(a, b, _) => Change::Link(a.clone(), b.clone(), *n),
                Change::Declared(a, b, _) => Change::Declared(a.clone(), b.clone(), *n),
                other => other.clone(),
            });
            let nodes = reach.agents.iter().map(|uid| Change::Agent(uid.clone(), true));
            let down = reach.down.iter().map(|uid| Change::Seen(uid.clone(), Some(false)));
            let up = reach.up.iter().map(|uid| Change::Seen(uid.clone(), Some(true)));
            fresh.take(down.chain(up).chain(nodes).chain(edges).collect::<Vec<_>>());
            prop_assert_eq!(&fresh.behind, &reach.behind);
            // By its definition: who is named is down, stands behind nobody, and whoever is behind is down.
            for (uid, root) in &reach.behind {
                prop_assert!(reach.down.contains(uid) && reach.down.contains(root) && !reach.behind.contains_key(root));
            }
        }
    }
}
