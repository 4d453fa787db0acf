//! What identity is computed from, and what it gives: all that the rest of the dataflow knows of it.

use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{IpLink, Link, RunDecision};
use radarflow_proto::ports::Outcome;
use radarflow_proto::rows::StateRow;
use radarflow_reconcile::brakes::Brakes;
use radarflow_reconcile::identity::ClaimClass;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Serialize};

use super::gate::RunEvent;
use super::inspect::Inspect;
use super::lives::Lives;
use crate::alerts::Conditions;
use crate::collection::{Events, Rel};
use crate::layout::{Arrangement, Batcher};
use crate::listings::ListingKey;
use crate::records::{FirstSeen, Live};
use crate::steps::AnchorSteps;

/// Names a device while the dataflow computes: its component's least identifier, its address, or its record.
pub type Component = Name;

/// What identity is computed from.
pub struct Inputs<'scope> {
    /// Records: live versions. At an upsert the one before goes and the new one comes, at one epoch.
    pub records: Rel<'scope, Live>,
    /// When identifiers were first seen.
    pub first_seen: Rel<'scope, FirstSeen>,
    /// By site: records, and addresses that they have claimed for long.
    pub settled: Rel<'scope, (Arc<Scope>, (Name, Name))>,
    /// By site: confirmed aliases, by the record that reports them.
    pub aliases: Rel<'scope, (Arc<Scope>, (Name, (IpAddr, Time)))>,
    /// Operators' links.
    pub links: Rel<'scope, Link>,
    /// Policy, by tenant: how far an address alone links devices.
    pub ip_links: Rel<'scope, (String, IpLink)>,
    /// What operators said of devices.
    pub steps: Rel<'scope, AnchorSteps>,
    /// What is known of runs, where they are braked.
    pub runs: Option<Runs<'scope>>,
}

/// What is known of runs.
pub struct Runs<'scope> {
    /// That they began, and that they have listed everything.
    pub events: Events<'scope, (ListingKey, RunEvent)>,
    /// What operators decided about them. If the brake on listings does not hold one: the one that that holds.
    pub decisions: Events<'scope, (RunDecision, Result<(), Option<String>>)>,
    /// By tenant: how far they may go.
    pub brakes: Events<'scope, (String, Brakes)>,
}

/// What identity gives.
pub struct Outputs<'scope> {
    /// Placements: which records make which device.
    pub placements: Rel<'scope, (Component, Live)>,
    /// Names: what devices are called.
    pub names: Rel<'scope, (Component, Arc<str>)>,
    /// Addresses that devices own.
    pub addresses: Rel<'scope, (Component, IpAddr)>,
    /// Owners of addresses, to be asked for.
    pub owners: Owners<'scope>,
    /// Owners of addresses, by which claim.
    pub address_owners: Rel<'scope, AddressOwner>,
    /// What operators made of devices.
    pub lives: Lives<'scope>,
    /// Audit: by record, why it is in its device, and what that is called.
    pub audit: Rel<'scope, (Live, How, Arc<str>)>,
    /// Rows of `identities`.
    pub identifier_rows: Rel<'scope, StateRow>,
    /// Redirects: rows of `device_redirects`.
    pub redirect_rows: Rel<'scope, StateRow>,
    /// Rows of `ip_ownership`.
    pub ownership_rows: Rel<'scope, StateRow>,
    /// Runs that are held.
    pub conditions: Conditions<'scope>,
    /// What became of decisions about runs.
    pub outcomes: Events<'scope, Outcome>,
    /// For who asks why.
    pub inspect: Inspect,
}

/// Owners of addresses, by the names of these.
pub struct Owners<'scope>(pub(super) Rel<'scope, (Name, Component)>);

impl<'scope> Owners<'scope> {
    /// What is said of addresses, by the devices that own them.
    pub fn by_device<T: differential_dataflow::ExchangeData>(
        self,
        said: Rel<'scope, (Name, T)>,
    ) -> Rel<'scope, (Component, T)> {
        let said = said.arrange_named::<_, Arrangement<_, _>>("OfAddress", Batcher::new);
        let owners = self.0.arrange_named::<_, Arrangement<_, _>>("Owners", Batcher::new);
        said.join_core(owners, |_, said, device| Some((*device, said.clone())))
    }
}

/// An address in its scope.
pub type Address = (Arc<Scope>, IpAddr);

/// Who owns an address, by which claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AddressOwner {
    /// What is owned.
    pub address: Address,
    /// By which device; none where too many claim it.
    pub uid: Option<Arc<str>>,
    /// What decided; none where too many claim it.
    pub class: Option<ClaimClass>,
    /// Event time of the claim.
    pub since: Time,
}

/// What puts a record into its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum How {
    /// A strong identifier.
    Strong,
    /// An operator's link.
    Operator,
    /// Stage 1b.
    Cross,
    /// A MAC.
    Mac,
    /// The owner of its address.
    Ip,
    /// Nothing but itself.
    Itself,
}

impl How {
    /// As the audit spells it.
    pub fn name(self) -> &'static str {
        match self {
            How::Strong => "strong_identifier",
            How::Operator => "operator",
            How::Cross => "cross_source",
            How::Mac => "mac",
            How::Ip => "ip_alias",
            How::Itself => "retraction",
        }
    }
}
