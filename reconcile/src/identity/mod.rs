//! Device identity: which records describe the same device.
//!
//! [`normalise`] says what is an identifier at all, [`sources`] turns payloads into records, [`name`] names devices.
//! The stages themselves (anchors, ownership, names) are relations and live in `dataflows::identity`; here are the
//! decisions they are made of: what a record asserts, what it claims and how strongly.

pub mod name;
pub mod normalise;
pub mod sources;

use std::net::IpAddr;

use radarflow_proto::record::{Identifier, Record, SourceKind};
use serde::{Deserialize, Serialize};

/// More devices than this claiming one address at the deciding class make it *shared*: it has no owner.
pub const MAX_CLAIMANTS: usize = 16;

/// How strongly a record claims its addresses; the strongest claim owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClaimClass {
    /// It answered a sweep.
    Sweep,
    /// A source without a class of its own.
    Other,
    /// SNMP discovery polled it there.
    Mapper,
    /// An inventory says so.
    Inventory,
    /// An agent says so about itself.
    Agent,
}

impl ClaimClass {
    /// The class of a source's claims.
    pub fn of(kind: SourceKind) -> Self {
        match kind {
            SourceKind::Agent => ClaimClass::Agent,
            SourceKind::Armis | SourceKind::NetBox | SourceKind::Integration | SourceKind::Operator => {
                ClaimClass::Inventory
            }
            SourceKind::Mapper => ClaimClass::Mapper,
            SourceKind::Sweep => ClaimClass::Sweep,
        }
    }

    /// As rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            ClaimClass::Agent => "agent",
            ClaimClass::Inventory => "inventory",
            ClaimClass::Mapper => "mapper",
            ClaimClass::Other => "other",
            ClaimClass::Sweep => "sweep",
        }
    }
}

/// The strong identifier a record belongs by: its own source's, else the one of highest priority. A record without
/// any is *anchorless*.
pub fn top(record: &Record) -> Option<&Identifier> {
    let own = match record.key.kind {
        SourceKind::Agent => Some(radarflow_proto::record::IdKind::Agent),
        SourceKind::Armis => Some(radarflow_proto::record::IdKind::Armis),
        SourceKind::NetBox => Some(radarflow_proto::record::IdKind::NetBox),
        SourceKind::Integration => Some(radarflow_proto::record::IdKind::Integration),
        SourceKind::Mapper | SourceKind::Sweep | SourceKind::Operator => None,
    };
    record.ids.iter().find(|id| Some(id.kind) == own).or_else(|| record.ids.iter().min())
}

/// The address of an IP-only record: the polled one, else the first.
pub fn address(record: &Record) -> Option<IpAddr> {
    record.ips.first().copied()
}
