//! Stage 1b: devices of sources that do not know each other.

use radarflow_proto::fact::IpLink;

use super::{Key, Kind, Rec, World};
use crate::identity::MAX_CLAIMANTS;
use crate::identity::assertions::{same_address, same_mac};

/// Whether a record's claim of a key can link: that of an address at inventory class or above, that of a MAC always; of
/// records with a strong identifier.
fn claims<W: World>(world: &W, key: Key) -> impl Iterator<Item = (Key, Rec)> + '_ {
    let is_address = world.kind(key) == Kind::Address;
    world.asserting(key).filter_map(move |rec| {
        let component = world.component_of(rec)?;
        let links = world.says(rec).claims_for_links() || !is_address;
        links.then_some((component, rec))
    })
}

/// Whether more components claim an address, or assert a MAC, than link by it.
pub fn crowded(world: &impl World, key: Key) -> bool {
    if world.asserted_by(key) <= MAX_CLAIMANTS {
        return false;
    }
    let mut parties: Vec<Key> = Vec::new();
    claims(world, key).any(|(component, _)| {
        let new = !parties.contains(&component);
        if new {
            parties.push(component);
        }
        parties.len() > MAX_CLAIMANTS
    })
}

/// Whether two records that claim an address are one device for it: equal short host names, or a MAC in common that is not
/// all over the place, or that both have claimed it for long and not both have names that differ; or by policy.
pub fn evidence(world: &impl World, address: Key, a: Rec, b: Rec) -> bool {
    if world.policy() == IpLink::Off {
        return false;
    }
    let common = same_address(world.says(a), world.says(b));
    let for_long = || !common.names_differ && world.settled(a, address) && world.settled(b, address);
    if common.host || world.policy() == IpLink::Immediate || for_long() {
        return true;
    }
    common.macs.iter().any(|mac| {
        world.hangs_on(*mac, address);
        !world.mac(*mac).is_some_and(|mac| world.is_crowded(mac))
    })
}

/// The components of other namespaces that one record each of them and of this one makes one with it.
fn candidates(world: &impl World, component: Key) -> Vec<Key> {
    let mut found: Vec<Key> = Vec::new();
    if world.policy() == IpLink::Off {
        return found;
    }
    let mut meet = |key: Key, judge: &dyn Fn(Rec) -> bool| {
        if world.asserted_by(key) < 2 || world.is_crowded(key) {
            return;
        }
        for (other, rec) in claims(world, key) {
            if other != component && !found.contains(&other) && !world.overlap(component, other) && judge(rec) {
                found.push(other);
            }
        }
    };
    for rec in world.records(component) {
        if world.says(rec).claims_for_links() {
            for address in world.addresses(rec) {
                meet(*address, &|other| evidence(world, *address, rec, other));
            }
        }
        for mac in world.macs(rec).iter().filter(|mac| world.is_global_mac(**mac)) {
            meet(*mac, &|other| same_mac(world.says(rec), world.says(other)));
        }
    }
    found
}

/// The candidates of a component that have no rival: no other of its candidates has a value of a namespace of theirs.
/// Two components are one when each chooses the other.
pub fn chosen(world: &impl World, component: Key) -> Vec<Key> {
    let all = candidates(world, component);
    if all.len() < 2 {
        return all;
    }
    let alone = |c: &&Key| all.iter().all(|other| other == *c || !world.overlap(**c, *other));
    all.iter().filter(alone).copied().collect()
}

/// What a component holds of what operators say is to be apart: its identifiers, and what its records assert and claim.
fn parted(world: &impl World, component: Key) -> Vec<Key> {
    let mut ends: Vec<Key> = world.members(component).collect();
    for rec in world.records(component) {
        ends.extend(world.macs(rec));
        if world.says(rec).claims_for_links() {
            ends.extend(world.addresses(rec));
        }
    }
    ends.retain(|id| !world.apart(*id).is_empty());
    ends
}

/// Whether a group of components links nobody: two of them share a namespace, or hold both ends of a cannot-link.
pub fn jammed(world: &impl World, group: &[Key]) -> bool {
    if group.len() < 2 {
        return false;
    }
    let pairs = || group.iter().enumerate().flat_map(|(n, a)| group[n + 1..].iter().map(move |b| (*a, *b)));
    if pairs().any(|(a, b)| world.overlap(a, b)) {
        return true;
    }
    if !world.any_apart() {
        return false;
    }
    let ends: Vec<Vec<Key>> = group.iter().map(|component| parted(world, *component)).collect();
    let apart = |a: &[Key], b: &[Key]| a.iter().any(|id| world.apart(*id).iter().any(|other| b.contains(other)));
    ends.iter().enumerate().any(|(n, a)| ends[n + 1..].iter().any(|b| apart(a, b)))
}
