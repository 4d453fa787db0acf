//! What a site says of an epoch, by whom it is for; and the rows of identity's tables.

use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::record::IdKind;
use radarflow_proto::rows::{DeviceIdentifier, DeviceRedirect, IpOwnership, StateRow};
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::{Name, ip_uid, seed};

use super::rows::Unresolved;
use super::spots::{Decision, Holder};
use crate::identity::gate::GateOut;
use crate::identity::{AddressOwner, Component, How};
use crate::records::{Asserted, FirstSeen, Live};
use crate::steps::AnchorSteps;

/// A record, why it is in its device, and what that is called.
pub type Called = (Live, How, Arc<str>);

/// What is said at one epoch, each row with how its multiplicity changes.
#[derive(Default)]
pub struct Outs {
    /// Which records make which device.
    pub placements: Vec<((Component, Live), isize)>,
    /// What devices are called.
    pub names: Vec<((Component, Arc<str>), isize)>,
    /// Addresses that devices own.
    pub addresses: Vec<((Component, IpAddr), isize)>,
    /// By the name of an address: the device that owns it.
    pub owners: Vec<((Name, Component), isize)>,
    /// Owners of addresses, by which claim.
    pub address_owners: Vec<(AddressOwner, isize)>,
    /// Records that are in another device, or in one that is called otherwise.
    pub audit: Vec<(Called, isize)>,
    /// Records that came, and records that left: they may have left another site.
    pub came: Vec<Called>,
    /// See [`Outs::came`].
    pub left: Vec<Called>,
    /// Rows of `identities`.
    pub identifiers: Vec<(StateRow, isize)>,
    /// Rows of `device_redirects`.
    pub redirects: Vec<(StateRow, isize)>,
    /// Rows of `ip_ownership`.
    pub ownership: Vec<(StateRow, isize)>,
    /// What operators said, by the device it is of.
    pub standing: Vec<((Component, AnchorSteps), isize)>,
    /// Records of such devices.
    pub shown: Vec<((Component, Live), isize)>,
    /// Rows that checks found to be wrong.
    pub faults: usize,
    /// What the gate says, each once.
    pub(in crate::identity) gate: Vec<(GateOut, isize)>,
}

impl Outs {
    /// How many rows are said.
    pub(super) fn len(&self) -> usize {
        let rows = [&self.identifiers, &self.redirects, &self.ownership].map(Vec::len);
        self.placements.len() + self.names.len() + self.addresses.len() + rows.iter().sum::<usize>()
    }

    /// A device holds an identifier, or no longer.
    pub(super) fn holds(&mut self, seen: &FirstSeen, uid: Option<&Arc<str>>, diff: isize) {
        let Some(uid) = uid else { return };
        self.identifiers.push((identifier_row(seen, Ok(uid)), diff));
        self.redirects.extend(redirect_row(seen, uid).map(|row| (row, diff)));
    }

    /// A record is called otherwise, came or left.
    pub(super) fn moved(&mut self, was: Option<Called>, is: Option<Called>) {
        match (was, is) {
            (Some(was), Some(is)) if was.2 != is.2 => self.audit.extend([(was, -1), (is, 1)]),
            (Some(_), Some(_)) | (None, None) => {}
            (Some(was), None) => self.left.push(was),
            (None, Some(is)) => self.came.push(is),
        }
    }

    /// Somebody owns an address, or too many claim it; or no longer.
    pub(super) fn owned(
        &mut self,
        scope: &Arc<Scope>,
        ip: IpAddr,
        of: Decision,
        called: Option<&Arc<str>>,
        diff: isize,
    ) {
        let uid = ip_uid(&scope.partition, ip);
        let shared = of.holder == Holder::Shared;
        let elsewhere = matches!(of.holder, Holder::Device(_) | Holder::At(_));
        if let Some(called) = called.filter(|called| elsewhere && of.alone && ***called != *uid) {
            let row = DeviceRedirect {
                tenant_id: scope.tenant.clone(),
                partition: scope.partition.clone(),
                from_uid: uid.clone(),
                to_uid: called.to_string(),
                identifier: format!("{}:{ip}", IdKind::Ip.name()),
                epoch: 0,
            };
            self.redirects.push((row.into(), diff));
        }
        let row = IpOwnership {
            tenant_id: scope.tenant.clone(),
            partition: scope.partition.clone(),
            ip: ip.to_string(),
            ip_uid: uid,
            device_uid: called.map(ToString::to_string),
            class: if shared { "shared" } else { of.class.name() }.to_owned(),
            valid_from: of.since,
            valid_to: None,
            epoch: 0,
        };
        self.ownership.push((row.into(), diff));
        let class = (!shared).then_some(of.class);
        let owner = AddressOwner { address: (scope.clone(), ip), uid: called.cloned(), class, since: of.since };
        self.address_owners.push((owner, diff));
    }
}

/// The row of an identifier: of the device that holds it, or why nobody does.
pub(super) fn identifier_row(seen: &FirstSeen, holder: Result<&Arc<str>, Unresolved>) -> StateRow {
    let Asserted { scope, id, .. } = &*seen.id;
    let state = match holder {
        Ok(_) => "held",
        Err(Unresolved::Contested) => "contested",
        Err(Unresolved::Ambiguous | Unresolved::Gone) => "ambiguous",
    };
    StateRow::from(DeviceIdentifier {
        tenant_id: scope.tenant.clone(),
        partition: scope.partition.clone(),
        identifier_type: id.kind.name().to_owned(),
        source_instance: id.namespace.clone(),
        identifier_value: id.value.clone(),
        state: state.to_owned(),
        device_uid: holder.ok().map(ToString::to_string),
        first_seen: Some(seen.first),
        epoch: 0,
    })
}

/// Where the name of an identifier leads, if elsewhere.
pub(super) fn redirect_row(seen: &FirstSeen, uid: &Arc<str>) -> Option<StateRow> {
    let Asserted { scope, id, uid: own } = &*seen.id;
    (own != uid).then(|| {
        StateRow::from(DeviceRedirect {
            tenant_id: scope.tenant.clone(),
            partition: scope.partition.clone(),
            from_uid: own.to_string(),
            to_uid: uid.to_string(),
            identifier: seed(id),
            epoch: 0,
        })
    })
}
