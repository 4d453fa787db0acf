//! What becomes of devices, as far as operators had a say in it.
//!
//! ```text
//! standing(d)  :- what was said of an anchor that d holds (`engine::site`)
//! watched(r)   :- r is a record of a d that has a deletion standing
//! lived(d)     :- the newest of all that stands, less deletions that were followed by a sighting
//! doomed(r)    :- r is a record of a d that is deleted
//! ```
//! Few devices have any of this, and only their records come here.

use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::lifecycle::{Life, life};
use serde::{Deserialize, Serialize};

use super::Component;
use crate::collection::Rel;
use crate::records::Live;
use crate::steps::AnchorSteps;

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
    /// By device: what was said of it.
    pub(super) standing: Rel<'scope, (Component, AnchorSteps)>,
    /// The records of these devices.
    pub(super) members: Rel<'scope, (Component, Live)>,
}

/// What becomes of devices.
pub struct Lived<'scope> {
    /// By device.
    pub lives: Rel<'scope, (Component, Arc<Life>)>,
    /// Records of devices that are deleted now.
    pub doomed: Rel<'scope, Doomed>,
}

impl<'scope> Lives<'scope> {
    /// Records whose sighting ends a deletion.
    pub fn watched(&self) -> Rel<'scope, Watched> {
        let deleted = self.standing.clone().flat_map(|(device, said)| {
            let (epoch, _) = said.steps.deletion()?;
            Some((device, (said.anchor, epoch)))
        });
        deleted.join_map(self.members.clone(), |_, deletion, live| (live.key, *deletion))
    }

    /// What becomes of devices, given the newest deletion of an anchor that was followed by a sighting.
    pub fn lived(&self, resighted: Rel<'scope, (Name, u64)>) -> Lived<'scope> {
        let by_anchor = self.standing.clone().map(|(device, said)| (said.anchor, (device, Some(said), 0)));
        let resighted = resighted.map(|(anchor, epoch)| (anchor, (Component::default(), None, epoch)));
        let by_device = by_anchor.concat(resighted).reduce_named("Resighted", |_, said, out| {
            let resighted = said.iter().filter(|((_, said, _), _)| said.is_none()).map(|((.., epoch), _)| *epoch).max();
            for ((device, said, _), _) in said {
                out.extend(said.clone().map(|said| ((*device, said, resighted.unwrap_or(0)), 1)));
            }
        });
        let by_device = by_device.map(|(_, (device, said, resighted))| (device, (said.steps, resighted)));
        let lives = by_device.reduce_named("Life", |_, said, out| {
            out.push((Arc::new(life(said.iter().map(|((steps, resighted), _)| (steps, *resighted)))), 1));
        });
        let doomed = lives.clone().join_map(self.members.clone(), |_, life, live| {
            life.deleted.as_ref().map(|(since, ..)| Doomed { live: live.clone(), since: *since })
        });
        Lived { lives, doomed: doomed.flat_map(|doomed| doomed) }
    }
}
