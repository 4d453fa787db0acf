//! What the first two stages are computed from, by number: records and what they assert, links, policy; and, beside each
//! key, what the stages last made of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::fact::IpLink;
use radarflow_reconcile::identity::assertions::{Assertions, is_global, mac_name};
use radarflow_reconcile::identity::name::{Name, name};
use radarflow_reconcile::identity::stages::{By, Key, Kind, Linked, MacState, Rec, World};

use super::links::Links;
use super::rings::Rings;
use super::rows::Standing;
use super::sets::{Few, Interned, Marks, Named};
use crate::records::{FirstSeen, Live};

/// A key, who asserts it, and what became of it.
pub(super) struct KeyEntry {
    pub(super) name: Name,
    pub(super) kind: Kind,
    pub(super) asserting: Few,
    /// Records that belong by it.
    pub(super) tops: u32,
    /// What is remembered of it.
    pub(super) seen: Option<Arc<FirstSeen>>,
    /// Stage 1: its record-made links are dropped.
    pub(super) ambiguous: bool,
    /// Stage 1: its component falls apart.
    pub(super) contested: bool,
    /// Stage 1b: too many claim it to link by it.
    pub(super) crowded: bool,
    /// Stage 1b: its group links nobody.
    pub(super) jammed: bool,
    /// Stage 2: how a MAC stands.
    pub(super) state: MacState,
    /// Stage 2: of a label of free MACs, the device they are.
    pub(super) group: Option<(Key, By)>,
    /// What was said of it last.
    pub(super) said: Standing,
}

impl Named for KeyEntry {
    fn name(&self) -> Name {
        self.name
    }
}

/// A record, and where it was put.
pub(super) struct RecEntry {
    pub(super) name: Name,
    pub(super) live: Option<Live>,
    /// Strong identifiers, MACs, addresses, and addresses claimed for long.
    keys: Box<[Key]>,
    /// Where each kind of key ends.
    ends: [u16; 3],
    /// Stage 2: the device that a record without a strong identifier is part of.
    pub(super) attached: Option<(Key, By)>,
    /// What was said of it last.
    pub(super) said: Option<super::rows::Place>,
}

impl Named for RecEntry {
    fn name(&self) -> Name {
        self.name
    }
}

impl RecEntry {
    pub(super) fn ids(&self) -> &[Key] {
        &self.keys[..usize::from(self.ends[0])]
    }

    pub(super) fn macs(&self) -> &[Key] {
        &self.keys[usize::from(self.ends[0])..usize::from(self.ends[1])]
    }

    pub(super) fn addresses(&self) -> &[Key] {
        &self.keys[usize::from(self.ends[1])..usize::from(self.ends[2])]
    }

    pub(super) fn settled(&self) -> &[Key] {
        &self.keys[usize::from(self.ends[2])..]
    }

    fn asserted(&self) -> &[Key] {
        &self.keys[..usize::from(self.ends[2])]
    }
}

/// Facts and values of a site.
pub(super) struct Facts {
    pub(super) scope: Name,
    pub(super) keys: Interned<KeyEntry>,
    pub(super) recs: Interned<RecEntry>,
    spaces: Vec<Name>,
    pub(super) links: Links,
    pub(super) policy: IpLink,
    /// Components of identifiers.
    pub(super) anchors: Rings,
    /// Groups of components.
    pub(super) groups: Rings,
    /// Groups of free MACs.
    pub(super) macs: Rings,
    /// By address: records without a strong identifier that assert global MACs and are polled there.
    polled: BTreeMap<Key, Few>,
    /// By MAC: addresses where what two records have to do with each other hung on it.
    hung: RefCell<Hung>,
}

/// What hangs on MACs, and how much there was when it was last tidied.
#[derive(Default)]
struct Hung {
    by_mac: BTreeMap<Name, (u64, BTreeSet<Key>)>,
    pairs: usize,
    tidied: usize,
}

/// Pairs of MACs and addresses that are not tidied.
const HUNG_UNTIDIED: usize = 1024;

impl Facts {
    pub(super) fn new(scope: Name) -> Self {
        Facts {
            scope,
            keys: Interned::default(),
            recs: Interned::default(),
            spaces: Vec::new(),
            links: Links::default(),
            policy: IpLink::default(),
            anchors: Rings::default(),
            groups: Rings::default(),
            macs: Rings::default(),
            polled: BTreeMap::new(),
            hung: RefCell::default(),
        }
    }

    /// The number of a key, given anew if it has none.
    pub(super) fn key(&mut self, name: Name, kind: impl FnOnce(&mut Vec<Name>) -> Kind) -> Key {
        if let Some(key) = self.keys.find(name) {
            return key;
        }
        let kind = kind(&mut self.spaces);
        self.keys.insert(KeyEntry {
            name,
            kind,
            asserting: Few::default(),
            tops: 0,
            seen: None,
            ambiguous: false,
            contested: false,
            crowded: false,
            jammed: false,
            state: MacState::Unheld,
            group: None,
            said: Standing::Nothing,
        })
    }

    /// The number of a strong identifier.
    pub(super) fn strong(&mut self, id: Name, namespace: Name) -> Key {
        self.key(id, |spaces| {
            let known = spaces.iter().position(|space| *space == namespace);
            let number = known.unwrap_or_else(|| {
                spaces.push(namespace);
                spaces.len() - 1
            });
            Kind::Strong(number as u32)
        })
    }

    pub(super) fn named(&self, key: Key) -> Name {
        self.keys[key].name
    }

    fn intern(&mut self, says: &Assertions) -> (Vec<Key>, [u16; 3]) {
        let mut keys = Vec::with_capacity(says.ids.len() + says.macs.len() + says.ips.len());
        let mut ends = [0; 3];
        let most = usize::from(u16::MAX);
        keys.extend(says.ids.iter().map(|id| self.strong(id.name, id.namespace)));
        ends[0] = keys.len().min(most) as u16;
        let mac = |value| move |_: &mut Vec<Name>| Kind::Mac { global: is_global(value) };
        keys.extend(says.macs.iter().map(|m| self.key(m.name, mac(m.value))));
        ends[1] = keys.len().min(most) as u16;
        for ip in &says.ips {
            let address = self.key(ip.name, |_| Kind::Address);
            if !keys[usize::from(ends[1])..].contains(&address) {
                keys.push(address);
            }
        }
        keys.truncate(most);
        ends[2] = keys.len() as u16;
        (keys, ends)
    }

    /// Puts a version in place of the one before; tells that.
    pub(super) fn put(&mut self, rec: Rec, live: Option<Live>) -> Option<Live> {
        let (keys, ends) = live.as_ref().map_or_else(Default::default, |live| self.intern(&live.says));
        let old = std::mem::take(&mut self.recs[rec].keys);
        let old_ends = std::mem::replace(&mut self.recs[rec].ends, ends);
        let (asserted, settled) = old.split_at(usize::from(old_ends[2]));
        if let Some(polled) = self.recs[rec].live.as_ref().and_then(|live| polled_at(&live.says, asserted, old_ends)) {
            let few = self.polled.entry(polled).or_default();
            few.remove(rec);
            if few.len() == 0 {
                self.polled.remove(&polled);
            }
        }
        if let Some(polled) = live.as_ref().and_then(|live| polled_at(&live.says, &keys, ends)) {
            self.polled.entry(polled).or_default().add(rec);
        }
        for key in asserted.iter().filter(|key| !keys.contains(key)) {
            self.keys[*key].asserting.remove(rec);
        }
        for key in keys.iter().filter(|key| !asserted.contains(key)) {
            self.keys[*key].asserting.add(rec);
        }
        if let Some(top) = asserted[..usize::from(old_ends[0])].first() {
            self.keys[*top].tops -= 1;
        }
        if let Some(top) = keys[..usize::from(ends[0])].first() {
            self.keys[*top].tops += 1;
        }
        let mut keys = keys;
        let of_addresses = usize::from(ends[1])..usize::from(ends[2]);
        keys.extend(settled.iter().copied().filter(|key| keys[of_addresses.clone()].contains(key)).collect::<Vec<_>>());
        self.recs[rec].keys = keys.into_boxed_slice();
        std::mem::replace(&mut self.recs[rec].live, live)
    }

    /// Notes that a record has claimed an address for long, or no longer.
    pub(super) fn settle(&mut self, rec: Rec, address: Name, settled: bool) {
        let Some(key) = self.keys.find(address) else { return };
        let entry = &mut self.recs[rec];
        if !entry.addresses().contains(&key) {
            return;
        }
        let end = usize::from(entry.ends[2]);
        let mut keys = std::mem::take(&mut entry.keys).into_vec();
        let known = keys[end..].iter().position(|k| *k == key);
        match (settled, known) {
            (true, None) => keys.push(key),
            (false, Some(at)) => drop(keys.remove(end + at)),
            _ => {}
        }
        entry.keys = keys.into_boxed_slice();
    }

    /// A record that has not been heard of.
    pub(super) fn new_rec(&mut self, name: Name) -> Rec {
        let keys = Box::default();
        self.recs.insert(RecEntry { name, live: None, keys, ends: [0; 3], attached: None, said: None })
    }

    /// Records without a strong identifier that assert global MACs and are polled at an address.
    pub(super) fn polled(&self, address: Key) -> impl Iterator<Item = Rec> + '_ {
        self.polled.get(&address).into_iter().flat_map(Few::iter)
    }

    /// Whether there is any such record.
    pub(super) fn any_polled(&self) -> bool {
        !self.polled.is_empty()
    }

    /// All of those.
    pub(super) fn all_polled(&self) -> impl Iterator<Item = Rec> + '_ {
        self.polled.values().flat_map(Few::iter)
    }

    /// Addresses where something hangs on a MAC.
    pub(super) fn hanging_on(&self, mac: Key) -> Vec<Key> {
        let hung = self.hung.borrow();
        hung.by_mac.get(&self.keys[mac].name).map(|(_, at)| at.iter().copied().collect()).unwrap_or_default()
    }

    /// Forgets what hangs on MACs where nobody meets any more, once there is much of it.
    pub(super) fn tidy(&mut self) {
        let hung = self.hung.get_mut();
        if hung.pairs < 2 * hung.tidied + HUNG_UNTIDIED {
            return;
        }
        let (keys, recs) = (&self.keys, &self.recs);
        let meets = |mac: u64, address: &Key| {
            let shows = |says: &Assertions| says.macs.iter().any(|m| m.value == mac) || says.shown.contains(&mac);
            let there = |rec: &Rec| recs[*rec].live.as_ref().is_some_and(|live| shows(&live.says));
            keys[*address].kind == Kind::Address && keys[*address].asserting.iter().filter(there).take(2).count() == 2
        };
        hung.by_mac.retain(|_, (mac, addresses)| {
            addresses.retain(|address| meets(*mac, address));
            !addresses.is_empty()
        });
        hung.pairs = hung.by_mac.values().map(|(_, addresses)| addresses.len()).sum();
        hung.tidied = hung.pairs;
    }

    /// Lets go of a key that nobody speaks of any more.
    pub(super) fn forget(&mut self, key: Key) {
        let entry = &self.keys[key];
        let idle = entry.asserting.len() == 0
            && entry.seen.is_none()
            && entry.said == Standing::Nothing
            && !self.links.knows(key)
            && [&self.anchors, &self.groups, &self.macs].iter().all(|rings| rings.is_alone(key))
            && entry.kind != Kind::Together;
        if idle {
            self.keys.remove(key);
        }
    }

    /// The device that holds a MAC.
    pub(super) fn holder(&self, mac: Key) -> Option<Key> {
        match self.keys[mac].state {
            MacState::Owned(device) => Some(device),
            MacState::Free => self.group(mac),
            MacState::Unheld | MacState::Ambiguous => None,
        }
    }

    /// The device of a group of free MACs, by any of them.
    pub(super) fn group(&self, mac: Key) -> Option<Key> {
        self.keys[self.macs.label(mac)].group.map(|(device, _)| device)
    }

    /// Whether records of a component are in one device with those of others.
    pub(super) fn is_grouped(&self, component: Key) -> bool {
        !self.groups.is_alone(component) && !self.keys[component].jammed
    }

    /// All that the records of a component assert of a kind, marked.
    pub(super) fn mark(&self, component: Key, of: fn(&RecEntry) -> &[Key], marks: &mut Marks) {
        for rec in self.records(component) {
            marks.extend(of(&self.recs[rec]).iter().copied());
        }
    }

    /// Keys that a record asserts.
    pub(super) fn asserts(&self, rec: Rec) -> &[Key] {
        self.recs[rec].asserted()
    }

    /// The key that stands for a component where MACs are joined.
    pub(super) fn together(&mut self, component: Key) -> Key {
        let name = name(&("linked", self.keys[component].name));
        self.key(name, |_| Kind::Together)
    }
}

/// The address at which a record without a strong identifier that asserts global MACs is polled.
fn polled_at(says: &Assertions, keys: &[Key], ends: [u16; 3]) -> Option<Key> {
    let weak = says.ids.is_empty() && says.global_macs().next().is_some();
    keys[usize::from(ends[1])..usize::from(ends[2])].first().copied().filter(|_| weak)
}

impl World for Facts {
    fn asserting(&self, key: Key) -> impl Iterator<Item = Rec> + '_ {
        self.keys[key].asserting.iter()
    }

    fn asserted_by(&self, key: Key) -> usize {
        self.keys[key].asserting.len()
    }

    fn says(&self, rec: Rec) -> &Assertions {
        &self.recs[rec].live.as_ref().expect("records that are asked for are live").says
    }

    fn ids(&self, rec: Rec) -> &[Key] {
        self.recs[rec].ids()
    }

    fn macs(&self, rec: Rec) -> &[Key] {
        self.recs[rec].macs()
    }

    fn addresses(&self, rec: Rec) -> &[Key] {
        self.recs[rec].addresses()
    }

    fn settled(&self, rec: Rec, address: Key) -> bool {
        self.recs[rec].settled().contains(&address)
    }

    fn kind(&self, key: Key) -> Kind {
        self.keys[key].kind
    }

    fn mac(&self, value: u64) -> Option<Key> {
        self.keys.find(mac_name(self.scope, value))
    }

    fn policy(&self) -> IpLink {
        self.policy
    }

    fn must(&self, key: Key) -> Key {
        self.links.must(key)
    }

    fn apart(&self, key: Key) -> &[Key] {
        self.links.apart(key)
    }

    fn any_apart(&self) -> bool {
        self.links.any_apart()
    }

    fn hangs_on(&self, mac: u64, address: Key) {
        let mut hung = self.hung.borrow_mut();
        let of_mac = hung.by_mac.entry(mac_name(self.scope, mac)).or_insert_with(|| (mac, BTreeSet::new()));
        let new = of_mac.1.insert(address);
        hung.pairs += usize::from(new);
    }

    fn is_ambiguous(&self, key: Key) -> bool {
        self.keys[key].ambiguous
    }

    fn component(&self, key: Key) -> Key {
        if self.keys[key].contested { self.must(key) } else { self.anchors.label(key) }
    }

    fn members(&self, component: Key) -> impl Iterator<Item = Key> + '_ {
        // What must-links alone connect, of a component that falls apart; else all of it.
        let contested = self.keys[component].contested;
        let parts = contested.then(|| self.links.set(component)).flatten();
        let alone = contested && parts.is_none();
        let ring = (!contested).then(|| self.anchors.ring(component));
        let parts = parts.into_iter().flatten().copied();
        parts.chain(ring.into_iter().flatten()).chain(alone.then_some(component))
    }

    fn is_crowded(&self, key: Key) -> bool {
        self.keys[key].crowded
    }

    fn device(&self, component: Key) -> Key {
        if self.keys[component].jammed { component } else { self.groups.label(component) }
    }

    fn linked(&self, key: Key) -> Option<Linked> {
        self.links.linked(key)
    }

    fn barred(&self, key: Key) -> &[Key] {
        self.links.barred(key)
    }

    fn state(&self, mac: Key) -> MacState {
        self.keys[mac].state
    }
}
