//! What the first two stages say, as rows: of each record the device it is in, of each identifier who holds it or why
//! nobody does.

use std::sync::Arc;

use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::identity::stages::Key;
use serde::{Deserialize, Serialize};

use crate::identity::How;
use crate::records::{FirstSeen, Live};

/// Why an identifier names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Unresolved {
    /// It would join what must stay apart.
    Ambiguous,
    /// It is in a component that holds what must stay apart.
    Contested,
    /// No live record asserts it.
    Gone,
}

/// What is said under a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Said {
    /// Of a record: one that no device takes in, by a strong identifier or a MAC.
    Rest(Live),
    /// Of a device: a record of it, and why.
    Member(Live, How),
    /// Of a device: an identifier that it holds.
    Held(Arc<FirstSeen>),
    /// Of an identifier: that nobody holds it, and why.
    Loose(Unresolved, Arc<FirstSeen>),
}

/// A row: of whom, and what.
pub type Row = (Name, Said);

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a device.
    In(Key, How),
    /// In none.
    Rest,
}

/// How an identifier stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing is said of it.
    #[default]
    Nothing,
    /// A device holds it.
    Held(Key),
    /// Nobody does.
    Loose(Unresolved),
}

/// What operators say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkSaid {
    /// The device holds it.
    Holds(Name),
    /// The device does not.
    Bars(Name),
}
