//! The definition, unit by unit: what an identifier, a component, a group, a MAC or an address amounts to, as functions of
//! facts and of units of earlier stages. Section 2 of the identity definition, a stage a file.
//!
//! | unit | value | function |
//! |---|---|---|
//! | identifier | whether its record-made links are dropped | [`ambiguous`] |
//! | component | whether it falls apart | [`contested`] |
//! | address, MAC | whether too many claim it to link by it | [`crowded`] |
//! | component | the components it would link to | [`chosen`] |
//! | group of components | whether it links nobody | [`jammed`] |
//! | MAC | who holds it | [`mac_state`] |
//! | record without a strong identifier | what its MACs amount to | [`wants`] |
//! | group of such records | the device it is | [`settle`] |
//! | address | who owns it | [`owner`] |
//!
//! None reads a unit of a later stage, and none counts its own output, so whoever evaluates them in this order has the
//! definition, and whoever evaluates again exactly those whose reads changed has it still. What is read is a [`World`];
//! keys and records are numbers in it. What a function gives never depends on these numbers, nor on the order in which
//! the world tells of records.

mod addresses;
mod anchors;
mod cross;
mod macs;

pub use addresses::{Claim, Owner, owner};
pub use anchors::{ambiguous, collide, contested, neighbours};
pub use cross::{chosen, crowded, evidence, jammed};
pub use macs::{Wants, mac_state, settle, wants};
use radarflow_proto::fact::IpLink;

use super::assertions::Assertions;

/// Something that names: a strong identifier, a MAC or an address; its number in a world.
pub type Key = u32;
/// A live record; its number in a world.
pub type Rec = u32;

/// What puts a record where the first two stages put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A MAC.
    Mac,
    /// The address it is polled at.
    Address,
}

/// How a MAC stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacState {
    /// Nobody asserts it.
    #[default]
    Unheld,
    /// Only records without a strong identifier assert it.
    Free,
    /// The device asserts it, or operators say that it holds it.
    Owned(Key),
    /// Too many assert it.
    Ambiguous,
}

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A strong identifier, of the namespace numbered so: a device has at most one value of it.
    Strong(u32),
    /// A MAC.
    Mac {
        /// It is globally administered.
        global: bool,
    },
    /// An address.
    Address,
    /// Stands for a component where MACs are joined ([`Linked::Idle`]).
    Together,
}

/// What a must-link says of an identifier in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// The device holds it.
    Holds(Key),
    /// A component holds it that no record belongs to by a strong identifier.
    Idle {
        /// The component.
        component: Key,
        /// Stands for it where MACs are joined.
        together: Key,
    },
}

/// What the stages read: facts, and the values of units of stages before.
pub trait World {
    /// Records that assert a strong identifier or a MAC, or claim an address.
    fn asserting(&self, key: Key) -> impl Iterator<Item = Rec> + '_;
    /// How many they are.
    fn asserted_by(&self, key: Key) -> usize;
    /// What a record asserts.
    fn says(&self, rec: Rec) -> &Assertions;
    /// Its strong identifiers, the one that it belongs by first.
    fn ids(&self, rec: Rec) -> &[Key];
    /// The MACs it asserts as identity.
    fn macs(&self, rec: Rec) -> &[Key];
    /// The addresses it claims, the polled or primary one first.
    fn addresses(&self, rec: Rec) -> &[Key];
    /// Whether it has claimed the address for long.
    fn settled(&self, rec: Rec, address: Key) -> bool;
    /// What a key is.
    fn kind(&self, key: Key) -> Kind;
    /// The key of a MAC, if somebody asserts it.
    fn mac(&self, value: u64) -> Option<Key>;
    /// How far an address alone links devices.
    fn policy(&self) -> IpLink;
    /// The least identifier that must-links alone connect to this one; itself without any.
    fn must(&self, key: Key) -> Key;
    /// Identifiers of which operators say that they name another device.
    fn apart(&self, key: Key) -> &[Key];
    /// Whether operators say so of any.
    fn any_apart(&self) -> bool;
    /// Notes that what two records at an address have to do with each other hangs on how busy a MAC is.
    fn hangs_on(&self, mac: u64, address: Key);

    /// Stage 1: [`ambiguous`].
    fn is_ambiguous(&self, key: Key) -> bool;
    /// Stage 1: the component that holds an identifier.
    fn component(&self, key: Key) -> Key;
    /// Stage 1: the identifiers of a component.
    fn members(&self, component: Key) -> impl Iterator<Item = Key> + '_;
    /// Stage 1b: [`crowded`].
    fn is_crowded(&self, key: Key) -> bool;
    /// Stage 1b: the device that a component is part of.
    fn device(&self, component: Key) -> Key;
    /// Between the stages: what a must-link says of an identifier.
    fn linked(&self, key: Key) -> Option<Linked>;
    /// Between the stages: devices of which operators say that they do not hold it.
    fn barred(&self, key: Key) -> &[Key];
    /// Stage 2: [`mac_state`].
    fn state(&self, mac: Key) -> MacState;

    /// The namespace of a strong identifier; MACs and addresses exclude nothing.
    fn space(&self, key: Key) -> Option<u32> {
        match self.kind(key) {
            Kind::Strong(space) => Some(space),
            _ => None,
        }
    }

    /// Whether a key is a MAC that can identify.
    fn is_global_mac(&self, key: Key) -> bool {
        self.kind(key) == Kind::Mac { global: true }
    }

    /// The strong identifier a record belongs by.
    fn top(&self, rec: Rec) -> Option<Key> {
        self.ids(rec).first().copied()
    }

    /// The component a record belongs to.
    fn component_of(&self, rec: Rec) -> Option<Key> {
        self.top(rec).map(|top| self.component(top))
    }

    /// The device of a record with a strong identifier.
    fn device_of(&self, rec: Rec) -> Option<Key> {
        self.component_of(rec).map(|component| self.device(component))
    }

    /// The records of a component.
    fn records(&self, component: Key) -> impl Iterator<Item = Rec> + '_ {
        self.members(component).flat_map(move |id| self.asserting(id).filter(move |rec| self.top(*rec) == Some(id)))
    }

    /// Whether two components have a value of one namespace each.
    fn overlap(&self, a: Key, b: Key) -> bool {
        let spaces = |c| self.members(c).filter_map(|id| self.space(id));
        spaces(a).any(|space| spaces(b).any(|other| other == space))
    }
}
