//! Links between devices as rows: with the devices that own their addresses now. Where a link is reported and where its
//! addresses change hands, its row is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::rows::TopologyLink;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;

use crate::topology::{NeighborKey, neighbor_key};

/// Links as rows.
#[derive(Default)]
pub(super) struct AttributedLinks {
    known: BTreeMap<LinkKey, LinkState>,
    /// By scope and address.
    at: BTreeMap<(Name, IpAddr), BTreeSet<LinkKey>>,
    touched: BTreeSet<LinkKey>,
}

/// Names a link.
type LinkKey = (Name, IpAddr, NeighborKey);

struct LinkState {
    /// What polls say; changes of one epoch may come in any order, and are summed.
    reported: Vec<(TopologyLink, isize)>,
    /// The row as it is.
    row: Option<TopologyLink>,
    /// Where it stands in [`AttributedLinks::at`].
    addresses: BTreeSet<IpAddr>,
}

impl AttributedLinks {
    /// Polls report it, or do not any more.
    pub(super) fn report(&mut self, scope: &Scope, link: TopologyLink, diff: isize) {
        let Ok(local) = link.local_ip.parse::<IpAddr>() else { return };
        let key = (scope.name, local, neighbor_key(&link));
        let addresses = [Some(local), link.neighbor_ip.as_ref().and_then(|ip| ip.parse().ok())];
        let none = || LinkState { reported: Vec::new(), row: None, addresses: BTreeSet::new() };
        let known = self.known.entry(key.clone()).or_insert_with(none);
        for ip in addresses.into_iter().flatten().filter(|ip| known.addresses.insert(*ip)) {
            self.at.entry((scope.name, ip)).or_default().insert(key.clone());
        }
        match known.reported.iter_mut().find(|(reported, _)| *reported == link) {
            Some((_, n)) => *n += diff,
            None => known.reported.push((link, diff)),
        }
        known.reported.retain(|(_, n)| *n != 0);
        self.touched.insert(key);
    }

    /// An address has another owner.
    pub(super) fn handed(&mut self, scope: &Scope, ip: IpAddr) {
        if let Some(links) = self.at.get(&(scope.name, ip)) {
            self.touched.extend(links.iter().cloned());
        }
    }

    /// Changes of rows, once everything of an epoch is known.
    pub(super) fn settle<'a>(
        &mut self,
        owner: impl Fn(&TopologyLink, IpAddr) -> Option<&'a Arc<str>>,
    ) -> Vec<(TopologyLink, isize)> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let Some(known) = self.known.get_mut(&key) else { continue };
            let owner =
                |link: &TopologyLink, ip: Option<IpAddr>| ip.and_then(|ip| owner(link, ip)).map(ToString::to_string);
            let row = known.reported.iter().find(|(_, n)| *n > 0).map(|(link, _)| TopologyLink {
                device_uid: owner(link, Some(key.1)),
                neighbor_device_uid: owner(link, link.neighbor_ip.as_ref().and_then(|ip| ip.parse().ok())),
                ..link.clone()
            });
            if row != known.row {
                changes.extend(known.row.take().map(|old| (old, -1)));
                changes.extend(row.clone().map(|new| (new, 1)));
            }
            known.row = row;
            if known.reported.is_empty() {
                for ip in std::mem::take(&mut known.addresses) {
                    let at = (key.0, ip);
                    let links = self.at.get_mut(&at).expect("a link stands at its addresses");
                    links.remove(&key);
                    if links.is_empty() {
                        self.at.remove(&at);
                    }
                }
                self.known.remove(&key);
            }
        }
        changes
    }
}
