//! What polls report of devices, as rows: with the devices that own their addresses now. Where something is reported and where
//! its addresses change hands, its row is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;

use crate::topology::{Told, ToldKey};

/// What is reported, as rows.
#[derive(Default)]
pub(super) struct AttributedLinks {
    known: BTreeMap<Key, LinkState>,
    /// By scope and address.
    at: BTreeMap<(Name, IpAddr), BTreeSet<Key>>,
    touched: BTreeSet<Key>,
}

/// Names it.
type Key = (Name, IpAddr, ToldKey);

struct LinkState {
    /// What polls say; changes of one epoch may come in any order, and are summed.
    reported: Vec<(Told, isize)>,
    /// The row as it is.
    row: Option<Told>,
    /// Where it stands in [`AttributedLinks::at`].
    addresses: BTreeSet<IpAddr>,
}

impl AttributedLinks {
    /// Polls report it, or do not any more.
    pub(super) fn report(&mut self, scope: &Scope, told: Told, diff: isize) {
        let (Some(local), other) = told.addresses() else { return };
        let key = (scope.name, local, told.key());
        let addresses = [Some(local), other];
        let none = || LinkState { reported: Vec::new(), row: None, addresses: BTreeSet::new() };
        let known = self.known.entry(key.clone()).or_insert_with(none);
        for ip in addresses.into_iter().flatten().filter(|ip| known.addresses.insert(*ip)) {
            self.at.entry((scope.name, ip)).or_default().insert(key.clone());
        }
        match known.reported.iter_mut().find(|(reported, _)| *reported == told) {
            Some((_, n)) => *n += diff,
            None => known.reported.push((told, diff)),
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
    pub(super) fn settle<'a>(&mut self, owner: impl Fn(&Told, IpAddr) -> Option<&'a Arc<str>>) -> Vec<(Told, isize)> {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.touched) {
            let Some(known) = self.known.get_mut(&key) else { continue };
            let owner = |told: &Told, ip: Option<IpAddr>| ip.and_then(|ip| owner(told, ip)).map(ToString::to_string);
            let row = known.reported.iter().find(|(_, n)| *n > 0).map(|(told, _)| {
                let (device, other) = told.addresses();
                told.clone().owned(owner(told, device), owner(told, other))
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
