//! Device identity: which records describe the same device.
//!
//! [`normalise`] says what is an identifier at all, [`sources`] turns payloads into records, [`assertions`] says what
//! identity reads of a record and what two records have in common, [`stages`] is the definition, unit by unit, [`name`]
//! names devices, [`explain`] says why. What keeps all of it up to date is `dataflows::identity`.

pub mod assertions;
pub mod explain;
pub mod name;
pub mod normalise;
pub mod sources;
pub mod stages;

use radarflow_proto::record::{Identifier, Record, SourceKind};
use serde::{Deserialize, Serialize};

/// More devices than this claiming one address at the deciding class make it *shared*: it has no owner. More
/// components than this claiming an address, or asserting a MAC, link nobody by it.
pub const MAX_CLAIMANTS: usize = 16;
/// A MAC asserted by more records than this names nobody.
pub const MAX_MAC_RECORDS: usize = 64;
/// Distinct runs in which both sides claimed an address before it alone can link them.
pub const SETTLED_RUNS: usize = 3;

/// How strongly a record claims its addresses; the strongest claim owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ClaimClass {
    /// It answered a sweep.
    Sweep,
    /// A confirmed alias: an interface address that SNMP discovery keeps reporting.
    Alias,
    /// SNMP discovery polled it there.
    Mapper,
    /// An agent said so about itself, but not within the last day.
    StaleAgent,
    /// An inventory says so.
    Inventory,
    /// An agent says so about itself.
    Agent,
    /// An operator linked the address.
    Operator,
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
            ClaimClass::Operator => "operator",
            ClaimClass::Agent => "agent",
            ClaimClass::Inventory => "inventory",
            ClaimClass::StaleAgent => "stale_agent",
            ClaimClass::Mapper => "mapper",
            ClaimClass::Alias => "alias",
            ClaimClass::Sweep => "sweep",
        }
    }
}

/// The strong identifier a record belongs by: its own source's, else the one of highest priority. A record without
/// any is *anchorless*.
pub fn top(record: &Record) -> Option<&Identifier> {
    use radarflow_proto::record::IdKind;
    let own = match record.key.kind {
        SourceKind::Agent => Some(IdKind::Agent),
        SourceKind::Armis => Some(IdKind::Armis),
        SourceKind::NetBox => Some(IdKind::NetBox),
        SourceKind::Integration => Some(IdKind::Integration),
        SourceKind::Mapper | SourceKind::Sweep | SourceKind::Operator => None,
    };
    record.ids.iter().find(|id| Some(id.kind) == own).or_else(|| record.ids.iter().min())
}
