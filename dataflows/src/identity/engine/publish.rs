//! Stages 3 and 4 of a site, kept up to date: takes in rows of the first two stages as they are published, and says who
//! owns addresses, where records known by an address alone belong, and what devices are called.
//!
//! ```text
//! best(d)     :- least (first seen, priority, namespace, value) among the strong identifiers that d holds, else its MACs
//! several(d)  :- addresses that operators link to d, which has no such identifier, are a device, if records are known by
//!                one of them alone; it is called by the least of these
//! uid(d)      :- of best(d) | of several(d) | of the address | of the record
//! redirect(i) :- uid(holder(i)), else uid of the device of the record that asserted i last
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_reconcile::identity::ClaimClass;
use radarflow_reconcile::identity::assertions::{Scope, ip_name};
use radarflow_reconcile::identity::name::{Name, ip_uid, record_uid};

use super::outs::{Outs, redirect_row};
use super::rows::{LinkSaid, Row};
use super::sets::{Few, Interned, Marks, Named, Rounds};
use super::spots::{Decision, Holder, Spot};
use crate::identity::How;
use crate::records::{FirstSeen, Live};

/// A device with a strong identifier or a MAC, or one that operators' links make.
pub(super) struct Device {
    pub(super) name: Name,
    /// What its identifiers call it.
    pub(super) best: Option<Arc<str>>,
    /// What it is called as several addresses that operators link.
    pub(super) several: Option<Arc<str>>,
    pub(super) held: Vec<Arc<FirstSeen>>,
    /// Its records, but those known by an address alone.
    pub(super) members: Few,
    /// Addresses it owns.
    pub(super) owned: Few,
}

impl Named for Device {
    fn name(&self) -> Name {
        self.name
    }
}

impl Device {
    pub(super) fn uid(&self) -> Option<&Arc<str>> {
        self.best.as_ref().or(self.several.as_ref())
    }
}

/// A record, as it is published.
pub(super) struct Placed {
    pub(super) name: Name,
    pub(super) live: Option<Live>,
    /// The device that the stages before put it into, and why.
    pub(super) device: Option<(u32, How)>,
    /// Addresses it claims.
    pub(super) addresses: Box<[u32]>,
    /// What was said of it last.
    pub(super) said: Option<Placement>,
}

impl Named for Placed {
    fn name(&self) -> Name {
        self.name
    }
}

/// Where a record is, as it is said.
#[derive(Clone, PartialEq)]
pub(super) struct Placement {
    device: Name,
    live: Live,
    how: How,
    uid: Option<Arc<str>>,
}

/// An identifier that no live record asserts, and the device that was said to be its.
pub(super) struct Lost {
    pub(super) seen: Arc<FirstSeen>,
    pub(super) said: Option<Arc<str>>,
}

/// What changed at one epoch.
#[derive(Default)]
pub struct Published {
    /// Rows of the first two stages: of each at most one that goes and one that comes.
    pub rows: Vec<(Row, isize)>,
    /// Confirmed aliases, by the record that reports them.
    pub aliases: Vec<((Name, (IpAddr, Time)), isize)>,
    /// All that links say of addresses, if it may be something else.
    pub links: Option<Vec<(Name, LinkSaid)>>,
}

/// Stages 3 and 4 of a site.
pub struct Publishing {
    pub(super) scope: Arc<Scope>,
    pub(super) devices: Interned<Device>,
    pub(super) recs: Interned<Placed>,
    pub(super) spots: Interned<Spot>,
    /// What links say, by address.
    pub(super) links: BTreeMap<Name, Vec<LinkSaid>>,
    /// Addresses that links give to a device, or keep from it.
    pub(super) linked: BTreeMap<Name, BTreeSet<Name>>,
    /// Confirmed aliases, by reporting record, and by address.
    pub(super) aliases: BTreeMap<Name, BTreeSet<(IpAddr, Time)>>,
    pub(super) reported: BTreeMap<u32, BTreeSet<(Name, Time)>>,
    /// First decisions, where the last is another.
    pub(super) firsts: BTreeMap<u32, Option<Decision>>,
    /// Devices that are called as several addresses.
    several: BTreeSet<u32>,
    pub(super) lost: BTreeMap<Name, Lost>,
    pub(super) lost_with: BTreeMap<Name, BTreeSet<Name>>,
    marked: Marked,
    /// Records, addresses and devices that were checked.
    checked: (Rounds, Rounds, Rounds),
}

/// Units whose reads changed. See the table in [`super`].
#[derive(Default)]
pub(super) struct Marked {
    pub(super) recs: Marks,
    pub(super) devices: Marks,
    renamed: Marks,
    pub(super) spots: Marks,
    /// Addresses whose aliases changed.
    pub(super) aliased: Marks,
}

impl Publishing {
    /// Of a site where nothing is known.
    pub fn new(scope: Arc<Scope>) -> Self {
        Publishing {
            scope,
            devices: Interned::default(),
            recs: Interned::default(),
            spots: Interned::default(),
            links: BTreeMap::new(),
            linked: BTreeMap::new(),
            aliases: BTreeMap::new(),
            reported: BTreeMap::new(),
            firsts: BTreeMap::new(),
            several: BTreeSet::new(),
            lost: BTreeMap::new(),
            lost_with: BTreeMap::new(),
            marked: Marked::default(),
            checked: Default::default(),
        }
    }

    /// Takes in what changed, and says what follows.
    pub fn step(&mut self, published: Published, out: &mut Outs) {
        let mut marked = std::mem::take(&mut self.marked);
        let mut lost: BTreeSet<Name> = BTreeSet::new();
        let added = self.take_rows(published.rows, &mut marked, &mut lost, out);
        self.take_aliases(published.aliases, &mut marked);
        if let Some(links) = published.links {
            self.take_links(links, &mut marked);
        }
        self.compute(&added, marked, lost, out);
    }

    /// Computes a sample of units again, though nothing they read is known to have changed; tells how many rows were wrong.
    /// They are right then.
    pub fn check(&mut self, out: &mut Outs) -> usize {
        let mut marked = std::mem::take(&mut self.marked);
        let there = |rec: &u32| self.recs.find(self.recs[*rec].name) == Some(*rec);
        marked.recs.extend(self.checked.0.next(self.recs.numbers()).filter(there));
        let there = |spot: &u32| self.spots.find(self.spots[*spot].name()) == Some(*spot);
        marked.spots.extend(self.checked.1.next(self.spots.numbers()).filter(there));
        let there = |device: &u32| self.devices.find(self.devices[*device].name) == Some(*device);
        marked.devices.extend(self.checked.2.next(self.devices.numbers()).filter(there));
        let begin = out.len();
        self.compute(&BTreeSet::new(), marked, BTreeSet::new(), out);
        out.len() - begin
    }

    /// Computes what is marked, and says what that changes.
    fn compute(&mut self, added: &BTreeSet<(u32, Name)>, mut marked: Marked, mut lost: BTreeSet<Name>, out: &mut Outs) {
        let mut was = Names::new();
        self.name_devices(added, &mut marked, &mut was, out);
        if !self.linked.is_empty() || !self.several.is_empty() {
            self.name_several(&mut marked, &mut was);
        }
        for (device, was) in was {
            let is = self.devices[device].uid().cloned();
            if was != is {
                let name = self.devices[device].name;
                out.names.extend(was.map(|uid| ((name, uid), -1)));
                out.names.extend(is.map(|uid| ((name, uid), 1)));
            }
            self.mark_of(device, &mut marked);
        }
        self.decide(&mut marked, out);
        for rec in marked.recs.iter() {
            self.place(rec, &mut lost, out);
        }
        for id in lost {
            self.redirect(id, out);
        }
        for rec in marked.recs.iter() {
            if self.recs[rec].live.is_none() && self.recs[rec].said.is_none() {
                self.recs.remove(rec);
            }
        }
        for device in marked.devices.iter().chain(marked.renamed.iter()).collect::<BTreeSet<_>>() {
            self.forget_device(device);
        }
        for spot in marked.spots.iter().chain(marked.aliased.iter()).collect::<BTreeSet<_>>() {
            self.forget_spot(spot);
        }
        for marks in
            [&mut marked.recs, &mut marked.devices, &mut marked.renamed, &mut marked.spots, &mut marked.aliased]
        {
            marks.clear();
        }
        self.marked = marked;
    }

    /// The number of a device.
    pub(super) fn device(&mut self, name: Name) -> u32 {
        self.devices.find(name).unwrap_or_else(|| {
            let (held, members, owned) = (vec![], Few::default(), Few::default());
            self.devices.insert(Device { name, best: None, several: None, held, members, owned })
        })
    }

    pub(super) fn spot(&mut self, name: Name, ip: IpAddr) -> u32 {
        self.spots.find(name).unwrap_or_else(|| self.spots.insert(Spot::new(name, ip)))
    }

    /// Marks addresses of aliases that a record reports.
    pub(super) fn mark_aliases(&self, rec: u32, marked: &mut Marked) {
        if let Some(aliases) = self.aliases.get(&self.recs[rec].name) {
            let spot = |ip: &IpAddr| self.spots.find(ip_name(self.scope.name, *ip));
            marked.spots.extend(aliases.iter().filter_map(|(ip, _)| spot(ip)));
        }
    }

    /// The same, for the second round: of records known by an address alone.
    pub(super) fn mark_second(&self, rec: u32, marks: &mut Marks) {
        if let Some(aliases) = self.aliases.get(&self.recs[rec].name) {
            let spot = |ip: &IpAddr| self.spots.find(ip_name(self.scope.name, *ip));
            marks.extend(aliases.iter().filter_map(|(ip, _)| spot(ip)));
        }
    }

    pub(super) fn any_aliases(&self) -> bool {
        !self.aliases.is_empty()
    }

    pub(super) fn rec(&self, name: Name) -> Option<&Placed> {
        self.recs.find(name).map(|rec| &self.recs[rec]).filter(|placed| placed.live.is_some())
    }

    /// Finds the best identifiers of devices whose identifiers changed.
    fn name_devices(&mut self, added: &BTreeSet<(u32, Name)>, marked: &mut Marked, was: &mut Names, out: &mut Outs) {
        for device in marked.devices.iter() {
            let Device { held, best: old, .. } = &self.devices[device];
            let strong = held.iter().any(|seen| seen.id.id.kind.is_strong());
            let best = held
                .iter()
                .filter(|seen| seen.id.id.kind.is_strong() == strong)
                .min_by(|a, b| (a.first, &a.id.id).cmp(&(b.first, &b.id.id)))
                .map(|best| best.id.uid.clone());
            let renamed = *old != best;
            for seen in held {
                let new = !added.is_empty() && added.contains(&(device, seen.name));
                if renamed && !new {
                    out.holds(seen, old.as_ref(), -1);
                }
                if renamed || new {
                    out.holds(seen, best.as_ref(), 1);
                }
            }
            if renamed {
                was.entry(device).or_insert_with(|| self.devices[device].uid().cloned());
                self.devices[device].best = best;
                marked.renamed.add(device);
            }
        }
    }

    /// Finds what several addresses are called that operators link.
    fn name_several(&mut self, marked: &mut Marked, was: &mut Names) {
        let mut several: BTreeMap<u32, Arc<str>> = BTreeMap::new();
        for (name, addresses) in self.linked.clone() {
            let device = self.device(name);
            marked.devices.add(device);
            let holds = |address: &&Name| self.links[*address].contains(&LinkSaid::Holds(name));
            let known = addresses.iter().filter(holds).filter_map(|address| self.spots.find(*address));
            let least =
                known.filter(|spot| self.alone_at(*spot).next().is_some()).map(|spot| self.spots[spot].ip).min();
            if let (None, Some(ip)) = (&self.devices[device].best, least) {
                several.insert(device, ip_uid(&self.scope.partition, ip).into());
            }
        }
        let known: BTreeSet<u32> = self.several.iter().chain(several.keys()).copied().collect();
        for device in known {
            let is = several.get(&device).cloned();
            if self.devices[device].several != is {
                was.entry(device).or_insert_with(|| self.devices[device].uid().cloned());
                self.devices[device].several = is;
                marked.renamed.add(device);
            }
        }
        self.several = several.into_keys().collect();
    }

    /// Marks what reads the name of a device.
    fn mark_of(&self, device: u32, marked: &mut Marked) {
        let Device { name, members, owned, .. } = &self.devices[device];
        for rec in members.iter() {
            marked.recs.add(rec);
            marked.spots.extend(self.recs[rec].addresses.iter().copied());
            self.mark_aliases(rec, marked);
        }
        marked.spots.extend(owned.iter());
        let linked = self.linked.get(name).into_iter().flatten();
        marked.spots.extend(linked.filter_map(|address| self.spots.find(*address)));
    }

    /// Where a record is.
    fn placement(&self, rec: u32) -> Option<Placement> {
        let entry = &self.recs[rec];
        let live = entry.live.clone()?;
        if let Some((device, how)) = entry.device {
            let Device { name, .. } = self.devices[device];
            return Some(Placement { device: name, live, how, uid: self.devices[device].uid().cloned() });
        }
        let Some(spot) = entry.addresses.first() else {
            let record = live.record();
            let uid = record_uid(&record.partition, &record.key).into();
            return Some(Placement { device: entry.name, live, how: How::Itself, uid: Some(uid) });
        };
        let spot = &self.spots[*spot];
        let decision = spot.decision?;
        let how = match decision.holder {
            Holder::Itself | Holder::Shared => How::Itself,
            Holder::Device(_) | Holder::At(_) if decision.class == ClaimClass::Operator => How::Operator,
            Holder::Device(_) | Holder::At(_) => How::Ip,
        };
        let (device, uid) = self.owner(spot, decision.holder);
        Some(Placement { device, live, how, uid })
    }

    /// Says where a record is, if that is another place.
    fn place(&mut self, rec: u32, lost: &mut BTreeSet<Name>, out: &mut Outs) {
        let is = self.placement(rec);
        if self.recs[rec].said == is {
            return;
        }
        if let Some(with) = self.lost_with.get(&self.recs[rec].name) {
            lost.extend(with);
        }
        let was = std::mem::replace(&mut self.recs[rec].said, is.clone());
        let called = |p: &Option<Placement>| p.as_ref().and_then(|p| Some((p.live.clone(), p.how, p.uid.clone()?)));
        out.moved(called(&was), called(&is));
        let there = |p: Placement| (p.device, p.live);
        let (was, is) = (was.map(there), is.map(there));
        if was != is {
            out.placements.extend(was.map(|row| (row, -1)));
            out.placements.extend(is.map(|row| (row, 1)));
        }
    }

    /// Says where the name of an identifier leads that no live record asserts, if it is elsewhere.
    fn redirect(&mut self, id: Name, out: &mut Outs) {
        let Some(Lost { seen, said }) = self.lost.get(&id) else { return };
        let record = seen.last_record.and_then(|record| self.rec(record));
        let is = record.and_then(|placed| placed.said.as_ref()?.uid.clone());
        if *said == is {
            return;
        }
        let row = |uid: &Arc<str>| redirect_row(seen, uid);
        out.redirects.extend(said.as_ref().and_then(row).map(|row| (row, -1)));
        out.redirects.extend(is.as_ref().and_then(row).map(|row| (row, 1)));
        if let Some(lost) = self.lost.get_mut(&id) {
            lost.said = is;
        }
    }

    /// Lets go of a device of which nothing is left.
    fn forget_device(&mut self, device: u32) {
        let Device { held, members, owned, .. } = &self.devices[device];
        let empty = held.is_empty() && members.len() == 0 && owned.len() == 0;
        if empty && self.devices[device].uid().is_none() {
            self.devices.remove(device);
        }
    }

    /// The records of a device, by any name of it.
    pub fn members(&self, device: Name) -> Vec<&Live> {
        let mut recs: BTreeSet<u32> = BTreeSet::new();
        let mut spots: BTreeSet<u32> = self.spots.find(device).into_iter().collect();
        if let Some(device) = self.devices.find(device) {
            recs.extend(self.devices[device].members.iter());
            spots.extend(self.devices[device].owned.iter());
        }
        for spot in self.spots.find(device).into_iter().flat_map(|spot| self.spots[spot].owned.iter()) {
            spots.insert(spot);
        }
        recs.extend(spots.iter().flat_map(|spot| self.alone_at(*spot)));
        recs.extend(self.recs.find(device));
        let there = |rec: u32| self.recs[rec].said.as_ref().filter(|said| said.device == device).map(|said| &said.live);
        recs.into_iter().filter_map(there).collect()
    }

    /// Every record with what its device is called, and why it is there.
    pub fn placed(&self) -> impl Iterator<Item = (&Live, How, &Arc<str>)> {
        self.recs.iter().filter_map(|placed| {
            placed.live.as_ref()?;
            let said = placed.said.as_ref()?;
            Some((&said.live, said.how, said.uid.as_ref()?))
        })
    }

    /// Confirmed aliases that a record reports.
    pub fn aliases_of(&self, record: Name) -> impl Iterator<Item = (IpAddr, Time)> + '_ {
        self.aliases.get(&record).into_iter().flatten().copied()
    }
}

/// What devices were called that are called otherwise now.
type Names = BTreeMap<u32, Option<Arc<str>>>;
