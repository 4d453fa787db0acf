//! Stages 1 to 2 of a site, kept up to date: takes in what changed of the facts, and says what changed of records' devices
//! and identifiers' holders.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::fact::{IpLink, Link};
use radarflow_reconcile::identity::assertions::{Scope, is_global};
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::identity::stages::{By, Key, Kind, MacState, Rec, World};

use super::facts::Facts;
use super::rows::{LinkSaid, Place, Row, Said, Standing, Unresolved};
use super::sets::{Marks, Rounds};
use super::{anchors, cross, links, macs};
use crate::identity::How;
use crate::records::{FirstSeen, Live};

/// What changed at one epoch.
#[derive(Default)]
pub struct Changes {
    /// Versions of records.
    pub records: Vec<(Live, isize)>,
    /// Records, and addresses that they have claimed for long.
    pub settled: Vec<((Name, Name), isize)>,
    /// What is remembered of identifiers.
    pub seen: Vec<(FirstSeen, isize)>,
    /// Operators' links.
    pub links: Vec<(Link, isize)>,
    /// The tenant's policy, if it is another.
    pub policy: Option<IpLink>,
}

/// Units whose reads changed. See the table in [`super`].
#[derive(Default)]
pub(super) struct Marked {
    /// Records that changed.
    pub(super) touched: Vec<Rec>,
    /// Identifiers whose links changed.
    pub(super) ids: Marks,
    /// Components that changed: their members, their records, or what these say.
    pub(super) components: Marks,
    /// Components whose members changed.
    pub(super) recomposed: Marks,
    /// Addresses and MACs of which claims changed.
    pub(super) spots: Marks,
    /// Components whose candidates may have changed.
    pub(super) around: Marks,
    /// Components that changed or whose device did.
    pub(super) moved: Marks,
    /// MACs whose state may have changed.
    pub(super) macs: Marks,
    /// Records without a strong identifier whose device may have changed.
    pub(super) loose: Marks,
    /// Free MACs, and those that were, whose group may have changed.
    pub(super) free: Marks,
    /// Records of which something else may be to say.
    pub(super) recs: Marks,
    /// Identifiers of which something else may be to say.
    pub(super) named: Marks,
    /// Keys that lost a claim.
    pub(super) left: Marks,
    /// Room for work.
    pub(super) work: Marks,
    pub(super) work2: Marks,
}

impl Marked {
    fn clear(&mut self) {
        self.touched.clear();
        for marks in [
            &mut self.ids,
            &mut self.components,
            &mut self.recomposed,
            &mut self.spots,
            &mut self.around,
            &mut self.moved,
            &mut self.macs,
            &mut self.loose,
            &mut self.free,
            &mut self.recs,
            &mut self.named,
            &mut self.left,
            &mut self.work,
            &mut self.work2,
        ] {
            marks.clear();
        }
    }
}

/// The first two stages of a site.
pub struct Deciding {
    pub(super) facts: Facts,
    marked: Marked,
    /// Identifiers of which something may have changed at the last epoch.
    named: Vec<Name>,
    /// Whether links came or went at the last epoch.
    relinked: bool,
    checked_keys: Rounds,
    checked_recs: Rounds,
}

/// What records said before this epoch, and what was remembered of identifiers.
#[derive(Default)]
struct Before {
    lives: BTreeMap<Rec, Option<Live>>,
    seen: BTreeMap<Key, Option<Arc<FirstSeen>>>,
}

/// What is left of rows that come and go at once, by what they are about: the newest, and whether there was one before.
fn net<D: Ord, N: Ord + Copy>(mut rows: Vec<(D, isize)>, about: impl Fn(&D) -> N) -> Vec<(N, Option<D>)> {
    rows.sort_unstable_by(|a, b| about(&a.0).cmp(&about(&b.0)).then_with(|| a.0.cmp(&b.0)));
    let mut out: Vec<(N, Option<D>)> = Vec::new();
    let mut rows = rows.into_iter().peekable();
    while let Some((row, mut n)) = rows.next() {
        while let Some((_, more)) = rows.next_if(|(next, _)| *next == row) {
            n += more;
        }
        let subject = about(&row);
        let slot = out.last_mut().filter(|(last, _)| *last == subject);
        match (n, slot) {
            (0, _) => {}
            (1.., Some((_, slot))) => *slot = Some(row),
            (1.., None) => out.push((subject, Some(row))),
            (_, Some(_)) => {}
            (_, None) => out.push((subject, None)),
        }
    }
    out
}

impl Deciding {
    /// Of a site where nothing is known.
    pub fn new(scope: Name) -> Self {
        Deciding {
            facts: Facts::new(scope),
            marked: Marked::default(),
            named: Vec::new(),
            relinked: false,
            checked_keys: Rounds::default(),
            checked_recs: Rounds::default(),
        }
    }

    /// Takes in what changed; adds what is said no longer, and what is said now, to `rows`.
    pub fn step(&mut self, changes: Changes, rows: &mut Vec<(Row, isize)>) {
        let mut marked = std::mem::take(&mut self.marked);
        self.relinked = !changes.links.is_empty();
        self.named.clear();
        let before = self.take(changes, &mut marked);
        self.compute(&before, marked, rows);
    }

    /// Computes a sample of units again, though nothing they read is known to have changed; tells how many rows were wrong.
    /// They are right then, and so is what follows.
    pub fn check(&mut self, rows: &mut Vec<(Row, isize)>) -> usize {
        let mut marked = std::mem::take(&mut self.marked);
        let facts = &self.facts;
        for key in self.checked_keys.next(facts.keys.numbers()) {
            if facts.keys.find(facts.named(key)) != Some(key) {
                continue;
            }
            marked.named.add(key);
            match facts.kind(key) {
                Kind::Strong(_) => {
                    marked.ids.add(key);
                    marked.components.add(facts.component(key));
                }
                Kind::Mac { .. } => {
                    marked.macs.add(key);
                    marked.spots.add(key);
                    if facts.state(key) == MacState::Free {
                        marked.free.add(key);
                    }
                }
                Kind::Address => drop(marked.spots.add(key)),
                Kind::Together => {}
            }
        }
        for rec in self.checked_recs.next(facts.recs.numbers()) {
            if facts.recs.find(facts.recs[rec].name) == Some(rec) {
                mark_claims(facts, rec, &mut marked);
                marked.recs.add(rec);
            }
        }
        let begin = rows.len();
        self.compute(&Before::default(), marked, rows);
        rows.len() - begin
    }

    /// Computes what is marked, and says what that changes.
    fn compute(&mut self, before: &Before, mut marked: Marked, rows: &mut Vec<(Row, isize)>) {
        anchors::compute(&mut self.facts, &mut marked);
        cross::compute(&mut self.facts, &mut marked);
        // What links say reads the components and devices of identifiers in them.
        let moved = |id| marked.moved.has(self.facts.component(id));
        if self.relinked || self.facts.links.ends().any(moved) {
            self.read_links(&mut marked);
        }
        macs::compute(&mut self.facts, &mut marked);
        self.say(before, &mut marked, rows);
        for rec in marked.touched.drain(..) {
            if self.facts.recs[rec].live.is_none() {
                self.facts.recs.remove(rec);
            }
        }
        self.named.extend(marked.named.iter().map(|key| self.facts.named(key)));
        for key in marked.left.iter() {
            self.facts.forget(key);
        }
        self.facts.tidy();
        marked.clear();
        self.marked = marked;
    }

    fn take(&mut self, changes: Changes, marked: &mut Marked) -> Before {
        let mut before = Before::default();
        let facts = &mut self.facts;
        if !changes.links.is_empty() {
            let components = &mut marked.components;
            let changed = links::take(facts, &changes.links, |facts, ids| {
                components.extend(ids.iter().map(|id| facts.component(*id)));
            });
            anchors::relinked(facts, &changed, marked);
        }
        if let Some(policy) = changes.policy.filter(|policy| *policy != facts.policy) {
            facts.policy = policy;
            for key in facts.keys.numbers() {
                if facts.keys[key].tops > 0 {
                    marked.components.add(facts.component(key));
                }
            }
            marked.loose.extend(facts.all_polled());
        }
        for (name, live) in net(changes.records, |live| live.key) {
            let rec = match facts.recs.find(name) {
                Some(rec) => rec,
                None if live.is_none() => continue,
                None => facts.new_rec(name),
            };
            mark_claims(facts, rec, marked);
            let ids: Vec<Key> = facts.recs[rec].ids().to_vec();
            let had: Vec<Key> = facts.asserts(rec).to_vec();
            let old = facts.put(rec, live);
            before.lives.insert(rec, old);
            let entry = &mut facts.recs[rec];
            if entry.live.is_none() || !entry.ids().is_empty() {
                entry.attached = None;
            }
            if *facts.recs[rec].ids() != *ids {
                for id in ids.into_iter().chain(facts.recs[rec].ids().iter().copied()) {
                    marked.ids.add(id);
                    marked.named.add(id);
                }
            }
            marked.left.extend(had);
            mark_claims(facts, rec, marked);
            marked.touched.push(rec);
            marked.recs.add(rec);
        }
        for ((record, address), diff) in changes.settled {
            if let Some(rec) = facts.recs.find(record).filter(|rec| facts.recs[*rec].live.is_some()) {
                facts.settle(rec, address, diff > 0);
                mark_claims(facts, rec, marked);
            }
        }
        for (name, seen) in net(changes.seen, |seen| seen.name) {
            let key = match (&seen, facts.keys.find(name)) {
                (_, Some(key)) => key,
                (None, None) => continue,
                (Some(seen), None) => {
                    let id = &seen.id.id;
                    if id.kind.is_strong() {
                        let scope = &seen.id.scope;
                        facts.strong(name, Scope::id(scope, id).namespace)
                    } else {
                        let global = u64::from_str_radix(&id.value, 16).is_ok_and(is_global);
                        facts.key(name, |_| Kind::Mac { global })
                    }
                }
            };
            let old = std::mem::replace(&mut facts.keys[key].seen, seen.map(Arc::new));
            before.seen.entry(key).or_insert(old);
            marked.named.add(key);
            marked.left.add(key);
        }
        before
    }

    /// Reads what links amount to, and marks what reads that.
    fn read_links(&mut self, marked: &mut Marked) {
        let (changed, idle) = links::read(&mut self.facts);
        let facts = &self.facts;
        marked.free.extend(idle.iter().copied());
        for id in changed {
            marked.named.add(id);
            match facts.kind(id) {
                Kind::Mac { .. } => {
                    marked.macs.add(id);
                    marked.free.add(id);
                    marked.loose.extend(macs::weak(facts, id));
                }
                Kind::Address => marked.loose.extend(facts.polled(id)),
                Kind::Strong(_) | Kind::Together => {}
            }
        }
    }

    fn place(&self, rec: Rec) -> Option<Place> {
        let facts = &self.facts;
        let entry = &facts.recs[rec];
        entry.live.as_ref()?;
        let Some(top) = facts.top(rec) else {
            return Some(match entry.attached {
                Some((device, By::Mac)) => Place::In(device, How::Mac),
                Some((device, By::Address)) => Place::In(device, How::Cross),
                None => Place::Rest,
            });
        };
        let component = facts.component(top);
        let how = match facts.is_grouped(component) {
            true => How::Cross,
            false if facts.links.is_linked(top) => How::Operator,
            false => How::Strong,
        };
        Some(Place::In(facts.device(component), how))
    }

    fn standing(&self, key: Key) -> Standing {
        let facts = &self.facts;
        let entry = &facts.keys[key];
        let Some(seen) = &entry.seen else { return Standing::Nothing };
        let held = || Standing::Held(facts.device(facts.component(key)));
        let unheld = match seen.last_record {
            Some(_) => Unresolved::Gone,
            // Asserted by somebody, but what asserts it is ambiguous, if it is not itself.
            None => Unresolved::Ambiguous,
        };
        match entry.kind {
            Kind::Strong(_) if entry.tops > 0 => held(),
            // What operators link to nobody who is there, nobody holds.
            Kind::Strong(_) if facts.links.is_linked(key) => match facts.records(facts.component(key)).next() {
                Some(_) => held(),
                None => Standing::Loose(unheld),
            },
            Kind::Strong(_) if facts.anchors.is_alone(key) => Standing::Loose(unheld),
            Kind::Strong(_) if entry.contested => Standing::Loose(Unresolved::Contested),
            Kind::Strong(_) => held(),
            Kind::Mac { .. } => match (entry.state, facts.holder(key)) {
                (MacState::Ambiguous, _) => Standing::Loose(Unresolved::Ambiguous),
                (_, Some(device)) => Standing::Held(device),
                // An operator's link holds a MAC that nobody asserts any more.
                (_, None) if seen.last_record.is_some() => Standing::Loose(Unresolved::Gone),
                (_, None) => Standing::Nothing,
            },
            Kind::Address | Kind::Together => Standing::Nothing,
        }
    }

    /// What is said of an identifier.
    fn row(&self, standing: Standing, seen: Arc<FirstSeen>) -> Option<Row> {
        match standing {
            Standing::Held(device) => Some((self.facts.named(device), Said::Held(seen))),
            Standing::Loose(why) => Some((seen.name, Said::Loose(why, seen))),
            Standing::Nothing => None,
        }
    }

    fn say(&mut self, before: &Before, marked: &mut Marked, rows: &mut Vec<(Row, isize)>) {
        for rec in marked.recs.iter() {
            let (was, is) = (self.facts.recs[rec].said, self.place(rec));
            let live = self.facts.recs[rec].live.clone();
            let touched = before.lives.get(&rec);
            if was == is && touched.is_none_or(|old| *old == live) {
                continue;
            }
            let row = |place: Place, live: Live| match place {
                Place::In(device, how) => (self.facts.named(device), Said::Member(live, how)),
                Place::Rest => (live.key, Said::Rest(live)),
            };
            let old = touched.cloned().unwrap_or_else(|| live.clone());
            rows.extend(was.zip(old).map(|(place, old)| (row(place, old), -1)));
            rows.extend(is.zip(live).map(|(place, live)| (row(place, live), 1)));
            self.facts.recs[rec].said = is;
        }
        for key in marked.named.iter() {
            let (was, is) = (self.facts.keys[key].said, self.standing(key));
            let seen = self.facts.keys[key].seen.clone();
            let touched = before.seen.get(&key);
            if was == is && touched.is_none_or(|old| *old == seen) {
                continue;
            }
            let old = touched.cloned().unwrap_or_else(|| seen.clone());
            rows.extend(old.and_then(|old| self.row(was, old)).map(|row| (row, -1)));
            rows.extend(seen.and_then(|seen| self.row(is, seen)).map(|row| (row, 1)));
            self.facts.keys[key].said = is;
        }
    }

    /// Identifiers of which something may have changed at the last epoch, and those in links.
    pub fn named(&self) -> impl Iterator<Item = Name> + '_ {
        let linked = self.facts.links.ids();
        self.named.iter().copied().chain(linked.into_iter().map(|key| self.facts.named(key)))
    }

    /// Says of an identifier that nobody holds it, as one that forgot a read might; for tests.
    pub fn plant_fault(&mut self, id: Name, rows: &mut Vec<(Row, isize)>) {
        let Some(key) = self.facts.keys.find(id) else { return };
        let wrong = Standing::Loose(Unresolved::Contested);
        let was = std::mem::replace(&mut self.facts.keys[key].said, wrong);
        let row = |standing| self.row(standing, self.facts.keys[key].seen.clone()?);
        rows.extend(row(was).map(|row| (row, -1)));
        rows.extend(row(wrong).map(|row| (row, 1)));
    }

    /// Whether an identifier is known.
    pub fn knows(&self, id: Name) -> bool {
        self.facts.keys.find(id).is_some()
    }

    /// Whether there are links, or were at the last epoch.
    pub fn any_links(&self) -> bool {
        self.relinked || !self.facts.links.is_empty()
    }

    /// Addresses that a record has claimed for long.
    pub fn settled(&self, record: Name) -> Vec<Name> {
        let facts = &self.facts;
        let rec = facts.recs.find(record);
        rec.into_iter().flat_map(|rec| facts.recs[rec].settled()).map(|key| facts.named(*key)).collect()
    }

    /// How many records and keys there are.
    pub fn sizes(&self) -> (usize, usize) {
        (self.facts.recs.len(), self.facts.keys.len())
    }

    /// The device that holds an identifier, or would; itself, if that is nobody else.
    pub fn lead(&self, anchor: Name) -> Name {
        let facts = &self.facts;
        let Some(key) = facts.keys.find(anchor) else { return anchor };
        let component = facts.component(key);
        let device = facts.device(component);
        let together =
            facts.links.togethers().find(|t| facts.links.idle(*t).iter().any(|id| facts.component(*id) == device));
        let device = together.and_then(|together| self.of_together(together)).unwrap_or(device);
        facts.named(facts.holder(device).unwrap_or(device))
    }

    /// The device of free MACs that are linked to what no record belongs to.
    fn of_together(&self, together: Key) -> Option<Key> {
        let facts = &self.facts;
        if facts.macs.is_alone(together) { None } else { facts.group(together) }
    }

    /// What links say of addresses.
    pub fn link_said(&self) -> Vec<(Name, LinkSaid)> {
        use radarflow_reconcile::identity::stages::Linked;
        let facts = &self.facts;
        let mut said = Vec::new();
        for id in facts.links.ids() {
            if facts.kind(id) != Kind::Address {
                continue;
            }
            let name = facts.named(id);
            let holds = facts.linked(id).map(|linked| match linked {
                Linked::Holds(device) => device,
                Linked::Idle { component, together } => self.of_together(together).unwrap_or(component),
            });
            said.extend(holds.map(|device| (name, LinkSaid::Holds(facts.named(device)))));
            for device in facts.barred(id) {
                let device = facts.holder(*device).unwrap_or(*device);
                said.push((name, LinkSaid::Bars(facts.named(device))));
            }
        }
        said.sort_unstable();
        said.dedup();
        said
    }
}

/// Marks what a record claims, and the component it is of.
fn mark_claims(facts: &Facts, rec: Rec, marked: &mut Marked) {
    if facts.recs[rec].live.is_none() {
        return;
    }
    match facts.component_of(rec) {
        Some(component) => drop(marked.components.add(component)),
        None => drop(marked.loose.add(rec)),
    }
    marked.macs.extend(facts.macs(rec).iter().copied());
    marked.spots.extend(facts.macs(rec).iter().copied());
    marked.spots.extend(facts.addresses(rec).iter().copied());
}
