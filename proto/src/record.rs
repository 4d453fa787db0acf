//! What a source says about one item, normalised: the input of identity. How a payload becomes a record is told by
//! `reconcile::identity`; here are only the shapes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::cell::Time;

/// The kinds of identifier, in order of priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IdKind {
    /// An agent's id.
    Agent,
    /// An Armis device id.
    Armis,
    /// Another integration's id.
    Integration,
    /// A NetBox device id.
    NetBox,
    /// A MAC address.
    Mac,
    /// An address.
    Ip,
}

impl IdKind {
    /// As seeds, redirects and rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            IdKind::Agent => "agent",
            IdKind::Armis => "armis",
            IdKind::Integration => "integration",
            IdKind::NetBox => "netbox",
            IdKind::Mac => "mac",
            IdKind::Ip => "ip",
        }
    }

    /// Strong identifiers are exclusive: a device has at most one value a namespace.
    pub fn is_strong(self) -> bool {
        self <= IdKind::NetBox
    }
}

/// A typed, namespaced value that names a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identifier {
    /// Its kind.
    pub kind: IdKind,
    /// Its namespace: the source instance (`<type>.<instance>` for integrations), empty for the one marked
    /// `legacy_uid`, for agents, MACs and addresses.
    pub namespace: String,
    /// Its value.
    pub value: String,
}

/// Who says it, which decides precedence and what it may claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SourceKind {
    /// An agent about itself.
    Agent,
    /// Armis sync.
    Armis,
    /// NetBox sync.
    NetBox,
    /// Any other integration.
    #[default]
    Integration,
    /// SNMP discovery.
    Mapper,
    /// Sweep and checks: an address that answered.
    Sweep,
    /// A person.
    Operator,
}

impl SourceKind {
    /// As in `discovery_sources`.
    pub fn name(self) -> &'static str {
        match self {
            SourceKind::Agent => "agent",
            SourceKind::Armis => "armis",
            SourceKind::NetBox => "netbox",
            SourceKind::Integration => "integration",
            SourceKind::Mapper => "mapper",
            SourceKind::Sweep => "sweep",
            SourceKind::Operator => "operator",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        use SourceKind::*;
        [Agent, Armis, NetBox, Integration, Mapper, Sweep, Operator].into_iter().find(|kind| kind.name() == name)
    }
}

/// Which item of which feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordKey {
    /// Customer.
    pub tenant: String,
    /// Kind of source.
    pub kind: SourceKind,
    /// Source instance.
    pub instance: String,
    /// For polled and swept addresses the site is part of the key; elsewhere it is a field that may change.
    pub partition: Option<String>,
    /// The item's own key.
    pub key: String,
}

/// The newest version of one item, normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Which item.
    pub key: RecordKey,
    /// Site or address space; never empty.
    pub partition: String,
    /// The source's own time of this content.
    pub event_time: Time,
    /// The source says it is gone.
    pub deleted: bool,
    /// Strong identifiers asserted; the source's own first.
    pub ids: Vec<Identifier>,
    /// MACs asserted as identity, twelve hex digits.
    pub macs: Vec<String>,
    /// MACs that only corroborate.
    pub macs_shown: Vec<String>,
    /// Addresses claimed, the polled or primary one first.
    pub ips: Vec<IpAddr>,
    /// Host name, lower case.
    pub hostname: Option<String>,
    /// Attributes by field name: `name`, `type`, `vendor_name`, `model`, `os`, `agent_id`, `gateway_id`.
    pub attributes: BTreeMap<String, String>,
    /// What else it says.
    pub metadata: BTreeMap<String, String>,
    /// Fields the normaliser had to leave out, and why.
    pub dropped: Vec<String>,
}
