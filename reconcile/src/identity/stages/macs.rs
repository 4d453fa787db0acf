//! Stage 2: what MACs say of records without a strong identifier.

use super::{By, Key, Linked, MacState, Rec, World, evidence};
use crate::identity::MAX_MAC_RECORDS;

/// How a MAC stands: held by whom operators say; ambiguous, where records of two devices or more than 64 records assert
/// it; else that of the device whose records do, or free. A local MAC is held by operators' word alone.
pub fn mac_state(world: &impl World, mac: Key) -> MacState {
    if let Some(Linked::Holds(device)) = world.linked(mac) {
        return MacState::Owned(device);
    }
    if !world.is_global_mac(mac) {
        return MacState::Unheld;
    }
    let barred = world.barred(mac);
    if barred.is_empty() && world.asserted_by(mac) > MAX_MAC_RECORDS {
        return MacState::Ambiguous;
    }
    let (mut holder, mut records) = (None, 0);
    for rec in world.asserting(mac) {
        if let Some(device) = world.device_of(rec) {
            if barred.contains(&device) {
                continue;
            }
            if holder.is_some_and(|known| known != device) {
                return MacState::Ambiguous;
            }
            holder = Some(device);
        }
        records += 1;
        if records > MAX_MAC_RECORDS {
            return MacState::Ambiguous;
        }
    }
    match holder {
        Some(device) => MacState::Owned(device),
        None if records > 0 => MacState::Free,
        None => MacState::Unheld,
    }
}

/// What the MACs of a record without a strong identifier amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// Devices that hold some of them, or what operators link the record to.
    pub owners: Vec<Key>,
    /// Those that no device holds; of a record that has some, with what operators link it to where nobody else is.
    pub free: Vec<Key>,
}

impl Wants {
    fn owned(&mut self, device: Key) {
        if !self.owners.contains(&device) {
            self.owners.push(device);
        }
    }
}

/// What the MACs of a record amount to. A local MAC, and the polled address of a record that asserts global MACs, count
/// where operators link them.
pub fn wants(world: &impl World, rec: Rec) -> Wants {
    let (mut wants, mut has_global, mut idle) = (Wants::default(), false, Vec::new());
    let mut by_link = |wants: &mut Wants, id: Key| match world.linked(id) {
        Some(Linked::Holds(device)) => wants.owned(device),
        Some(Linked::Idle { together, .. }) => idle.push(together),
        None => {}
    };
    for mac in world.macs(rec).iter().copied() {
        if !world.is_global_mac(mac) {
            by_link(&mut wants, mac);
            continue;
        }
        has_global = true;
        match world.state(mac) {
            MacState::Owned(device) => wants.owned(device),
            MacState::Free => wants.free.push(mac),
            MacState::Ambiguous | MacState::Unheld => {}
        }
    }
    if let Some(polled) = world.addresses(rec).first().filter(|_| has_global) {
        by_link(&mut wants, *polled);
    }
    if !wants.free.is_empty() {
        wants.free.append(&mut idle);
    }
    wants
}

/// The device that a group of records without strong identifiers is part of, if any: the one that holds MACs of theirs;
/// where none does, the only one that claims an address they are polled at, if something corroborates. If there is none, the
/// group is a device of its own, if it has free MACs (`macs`); if these hold both ends of a cannot-link, it is none.
pub fn settle(world: &impl World, records: &[Rec], macs: &[Key], own: Option<Key>) -> Option<(Key, By)> {
    let parted = |mac: &Key| world.apart(*mac).iter().any(|other| macs.contains(other));
    if world.any_apart() && macs.iter().any(parted) {
        return None;
    }
    let barred = |device: &Key| macs.iter().any(|mac| world.barred(*mac).contains(device));
    let mut owners: Vec<Key> = Vec::new();
    for rec in records {
        for device in wants(world, *rec).owners {
            if !owners.contains(&device) && !barred(&device) {
                owners.push(device);
            }
        }
    }
    let own = own.map(|label| (label, By::Mac));
    match owners[..] {
        [device] => return Some((device, By::Mac)),
        [] if own.is_some() => {}
        _ => return own,
    }
    let claims = |rec: Rec| {
        let polled = world.addresses(rec).first().copied();
        polled.into_iter().flat_map(move |address| {
            let linking = world.asserting(address).filter(|other| world.says(*other).claims_for_links());
            linking.filter_map(move |other| Some((world.device_of(other)?, address, other)))
        })
    };
    let mut alone: Vec<Key> = Vec::new();
    for rec in records {
        let mut devices = claims(*rec).map(|(device, ..)| device);
        let Some(first) = devices.next() else { continue };
        if devices.all(|device| device == first) && !alone.contains(&first) && !barred(&first) {
            alone.push(first);
        }
    }
    let supported = |device: &Key| {
        let of = |rec: Rec| claims(rec).filter(|(claimant, ..)| claimant == device);
        records.iter().any(|rec| of(*rec).any(|(_, address, other)| evidence(world, address, other, *rec)))
    };
    alone.retain(supported);
    match alone[..] {
        [device] => Some((device, By::Address)),
        _ => own,
    }
}
