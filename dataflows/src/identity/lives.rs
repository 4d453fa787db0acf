//! Which device the steps that operators took belong to.
//!
//! ```text
//! standing(d)  :- what was said of an anchor that d holds
//! watched(r)   :- r is a record of a d that has a deletion standing
//! lived(d)     :- the newest of all that stands, less deletions that were followed by a sighting
//! doomed(r)    :- r is a record of a d that is deleted
//! ```
//! What was said of an address holds as long as nothing else names the device: once somebody better claims the address,
//! the device that owns it was never meant.
//!
//! Few devices have any of this, so nothing here is as large as the inventory: the rows of operators are led to devices
//! by relations that identity has arranged anyway.

use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::lifecycle::{Life, life};
use serde::{Deserialize, Serialize};

use super::macs::{holder, together};
use super::relations::{Rel, Value, each, join, lookup, lookup_any, reduce};
use super::{Component, renamed};
use crate::collection;
use crate::records::Live;
use crate::steps::AnchorSteps;

/// What leads an identifier to the device that holds it, where that is not itself.
pub(super) struct Leads<'scope, 'a> {
    /// By identifier that is linked to others: its component ([`Value::Place`]).
    pub(super) places: &'a Rel<'scope>,
    /// By component: what stage 1b made it part of ([`Value::Name`]).
    pub(super) relabel: &'a Rel<'scope>,
    /// By what operators link to nobody who has a strong identifier: the device of free MACs ([`Value::Name`]).
    pub(super) groups: &'a Rel<'scope>,
    /// By MAC: the device that holds it, as [`holder`] reads it.
    pub(super) holders: &'a [Rel<'scope>; 2],
    /// By identifier that the gate keeps where it is: that device, less the one the others lead to ([`Value::Name`]).
    pub(super) kept: Option<&'a Rel<'scope>>,
    /// By device: its records ([`Value::Member`]).
    pub(super) members: &'a Rel<'scope>,
}

/// A record of a deleted device: by it, the deletion's anchor and epoch.
pub type Watched = (Name, (Name, u64));

/// A record of a device that is deleted now, since when; or no longer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Doomed {
    /// The record.
    pub live: Live,
    /// When its device was deleted.
    pub since: Time,
}

/// The lives of devices, as far as operators had a say in them.
pub struct Lives<'scope> {
    /// By device ([`Value::Life`]).
    standing: Rel<'scope>,
    members: Rel<'scope>,
}

/// What becomes of devices.
pub struct Lived<'scope> {
    /// By device.
    pub lives: collection::Rel<'scope, (Component, Arc<Life>)>,
    /// Records of devices that are deleted now.
    pub doomed: collection::Rel<'scope, Doomed>,
}

/// Leads what was said of anchors to the devices that hold them.
pub(super) fn lives<'scope>(said: collection::Rel<'scope, AnchorSteps>, leads: &Leads<'scope, '_>) -> Lives<'scope> {
    let said = said.map(|standing| (standing.anchor, Value::Life(standing.into()))).into();
    let placed = lookup(&said, leads.places, |id, said, place| match place {
        Some(Value::Place(place)) => Some((place.component, said.clone())),
        _ => Some((id, said.clone())),
    });
    let placed = lookup(&placed, leads.relabel, |c, said, group| Some((renamed(c, group), said.clone())));
    let placed = each(&placed, |c, said, out| {
        if let Value::Life(said) = said {
            out.push((together(c), Value::LifeOf(c, said, 0)));
        }
    });
    let placed = lookup(&placed, leads.groups, |_, said, group| match said {
        Value::LifeOf(c, said, _) => Some((renamed(*c, group), Value::Life(said.clone()))),
        _ => None,
    });
    let mut standing = lookup_any(&placed, &leads.holders.each_ref(), |c, said, of_mac| {
        Some((of_mac.and_then(holder).unwrap_or(c), said.clone()))
    });
    if let Some(kept) = leads.kept {
        standing = standing.concat(&join(&said, kept, |_, said, device| match device {
            Value::Name(device) => Some((*device, said.clone())),
            _ => None,
        }));
    }
    Lives { standing, members: leads.members.clone() }
}

impl<'scope> Lives<'scope> {
    /// Records whose sighting ends a deletion.
    pub fn watched(&self) -> collection::Rel<'scope, Watched> {
        let watched = join(&self.standing, &self.members, |_, standing, member| match (standing, member) {
            (Value::Life(standing), Value::Member(live, _)) => {
                let (epoch, _) = standing.steps.deletion()?;
                Some((live.key, Value::Deleted(standing.anchor, epoch)))
            }
            _ => None,
        });
        watched.flat_map(|(record, v)| match v {
            Value::Deleted(anchor, epoch) => Some((record, (anchor, epoch))),
            _ => None,
        })
    }

    /// What becomes of devices, given the newest deletion of an anchor that was followed by a sighting.
    pub fn lived(&self, resighted: collection::Rel<'scope, (Name, u64)>) -> Lived<'scope> {
        let by_anchor = each(&self.standing, |component, v, out| {
            if let Value::Life(standing) = v {
                out.push((standing.anchor, Value::LifeOf(component, standing, 0)));
            }
        });
        let resighted = resighted.map(|(anchor, epoch)| (anchor, Value::Deleted(anchor, epoch))).into();
        let by_device = lookup(&by_anchor, &resighted, |_, of, resighted| match (of, resighted) {
            (Value::LifeOf(c, standing, _), Some(Value::Deleted(_, epoch))) => {
                Some((*c, Value::LifeOf(*c, standing.clone(), *epoch)))
            }
            (Value::LifeOf(c, ..), _) => Some((*c, of.clone())),
            _ => None,
        });
        let lived = reduce(&by_device, "Life", |_, said, out| {
            let said = said.iter().filter_map(|(v, _)| match v {
                Value::LifeOf(_, standing, resighted) => Some((&standing.steps, *resighted)),
                _ => None,
            });
            out.push(Value::Lived(life(said).into()));
        });
        let doomed = join(&lived, &self.members, |record, life, member| match (life, member) {
            (Value::Lived(life), Value::Member(live, _)) => {
                let (since, ..) = life.deleted.as_ref()?;
                Some((record, Value::Doomed(*since, live.clone())))
            }
            _ => None,
        });
        let lives = lived.flat_map(|(device, v)| if let Value::Lived(life) = v { Some((device, life)) } else { None });
        let doomed = doomed.flat_map(|(_, v)| match v {
            Value::Doomed(since, live) => Some(Doomed { live, since }),
            _ => None,
        });
        Lived { lives, doomed }
    }
}
