//! What is published, taken in: rows of the first two stages, aliases, and what links say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_reconcile::identity::assertions::ip_name;
use radarflow_reconcile::identity::name::Name;

use super::outs::{Outs, identifier_row, redirect_row};
use super::publish::{Lost, Marked, Placed, Publishing};
use super::rows::{LinkSaid, Row, Said, Unresolved};
use crate::identity::How;
use crate::records::{FirstSeen, Live};

impl Publishing {
    /// Puts a record, or nothing, in place of what was published of it.
    fn put(&mut self, rec: u32, live: Option<Live>, device: Option<(u32, How)>, marked: &mut Marked) {
        marked.recs.add(rec);
        self.count(rec, false);
        if let Some((old, _)) = self.recs[rec].device {
            self.devices[old].members.remove(rec);
            marked.devices.add(old);
        }
        let addresses: Box<[u32]> = match &live {
            Some(live) => live.says.ips.iter().map(|a| self.spot(a.name, a.ip)).collect(),
            None => Box::default(),
        };
        for (at, spot) in self.recs[rec].addresses.iter().enumerate() {
            if !addresses.contains(spot) && !self.recs[rec].addresses[..at].contains(spot) {
                self.spots[*spot].claims.remove(rec);
            }
            marked.spots.add(*spot);
        }
        for (at, spot) in addresses.iter().enumerate() {
            if !self.recs[rec].addresses.contains(spot) && !addresses[..at].contains(spot) {
                self.spots[*spot].claims.add(rec);
            }
            marked.spots.add(*spot);
        }
        if let Some((new, _)) = device {
            self.devices[new].members.add(rec);
            marked.devices.add(new);
        }
        let entry = &mut self.recs[rec];
        (entry.live, entry.device, entry.addresses) = (live, device, addresses);
        self.count(rec, true);
        self.mark_aliases(rec, marked);
    }

    /// Takes in rows; tells which identifiers devices hold anew.
    pub(super) fn take_rows(
        &mut self,
        rows: Vec<(Row, isize)>,
        marked: &mut Marked,
        lost: &mut BTreeSet<Name>,
        out: &mut Outs,
    ) -> BTreeSet<(u32, Name)> {
        let mut added = BTreeSet::new();
        // What goes, then what comes: of each there is one at most.
        for ((name, said), _) in rows.iter().filter(|(_, diff)| *diff < 0) {
            match said {
                Said::Rest(live) | Said::Member(live, _) => {
                    if let Some(rec) = self.recs.find(live.key) {
                        self.put(rec, None, None, marked);
                    }
                }
                Said::Held(seen) => {
                    if let Some(device) = self.devices.find(*name) {
                        let uid = self.devices[device].best.clone();
                        out.holds(seen, uid.as_ref(), -1);
                        self.devices[device].held.retain(|held| held.name != seen.name);
                        marked.devices.add(device);
                    }
                }
                Said::Loose(Unresolved::Gone, seen) => {
                    lost.insert(seen.name);
                    if let Some(gone) = self.lost.get_mut(&seen.name) {
                        let said = gone.said.take();
                        out.redirects.extend(said.and_then(|uid| redirect_row(seen, &uid)).map(|row| (row, -1)));
                    }
                    self.lose(seen, false);
                }
                Said::Loose(why, seen) => out.identifiers.push((identifier_row(seen, Err(*why)), -1)),
            }
        }
        for ((name, said), _) in rows.into_iter().filter(|(_, diff)| *diff > 0) {
            match said {
                Said::Rest(live) => {
                    let rec = self.new_rec(live.key);
                    self.put(rec, Some(live), None, marked);
                }
                Said::Member(live, how) => {
                    let (rec, device) = (self.new_rec(live.key), self.device(name));
                    self.put(rec, Some(live), Some((device, how)), marked);
                }
                Said::Held(seen) => {
                    let device = self.device(name);
                    added.insert((device, seen.name));
                    self.devices[device].held.push(seen);
                    marked.devices.add(device);
                }
                Said::Loose(Unresolved::Gone, seen) => {
                    lost.insert(seen.name);
                    self.lose(&seen, true);
                }
                Said::Loose(why, seen) => out.identifiers.push((identifier_row(&seen, Err(why)), 1)),
            }
        }
        added
    }

    fn new_rec(&mut self, name: Name) -> u32 {
        self.recs.find(name).unwrap_or_else(|| {
            self.recs.insert(Placed { name, live: None, device: None, addresses: Box::default(), said: None })
        })
    }

    /// Remembers an identifier with the record that asserted it last, or forgets it.
    fn lose(&mut self, seen: &Arc<FirstSeen>, lost: bool) {
        let Some(record) = seen.last_record else { return };
        let with = self.lost_with.entry(record).or_default();
        if lost {
            with.insert(seen.name);
            self.lost.insert(seen.name, Lost { seen: seen.clone(), said: None });
        } else {
            with.remove(&seen.name);
            self.lost.remove(&seen.name);
        }
        if with.is_empty() {
            self.lost_with.remove(&record);
        }
    }

    pub(super) fn take_aliases(&mut self, aliases: Vec<((Name, (IpAddr, Time)), isize)>, marked: &mut Marked) {
        let mut changes: BTreeMap<(Name, (IpAddr, Time)), isize> = BTreeMap::new();
        for (alias, diff) in aliases {
            *changes.entry(alias).or_default() += diff;
        }
        for ((record, (ip, at)), diff) in changes {
            let spot = self.spot(ip_name(self.scope.name, ip), ip);
            let reported = self.reported.entry(spot).or_default();
            let of_record = self.aliases.entry(record).or_default();
            match diff {
                0 => {}
                1.. => {
                    reported.insert((record, at));
                    of_record.insert((ip, at));
                }
                _ => {
                    reported.remove(&(record, at));
                    of_record.remove(&(ip, at));
                }
            }
            if reported.is_empty() {
                self.reported.remove(&spot);
            }
            if of_record.is_empty() {
                self.aliases.remove(&record);
            }
            marked.spots.add(spot);
        }
    }

    pub(super) fn take_links(&mut self, said: Vec<(Name, LinkSaid)>, marked: &mut Marked) {
        let mut links: BTreeMap<Name, Vec<LinkSaid>> = BTreeMap::new();
        let mut linked: BTreeMap<Name, BTreeSet<Name>> = BTreeMap::new();
        for (address, said) in said {
            let (LinkSaid::Holds(device) | LinkSaid::Bars(device)) = said;
            linked.entry(device).or_default().insert(address);
            links.entry(address).or_default().push(said);
        }
        let was = std::mem::replace(&mut self.links, links);
        let differs = |address: &&Name| was.get(*address) != self.links.get(*address);
        let spots = was.keys().chain(self.links.keys()).filter(differs).filter_map(|address| self.spots.find(*address));
        marked.spots.extend(spots.collect::<Vec<_>>());
        self.linked = linked;
    }
}
