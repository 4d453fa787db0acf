//! Interfaces of polled devices as they are shown: each as it was last found. What identity reads of them is
//! [`crate::aliases`].
//!
//! An interface is there as long as it is found; when polls of its device lack it for [`GONE_US`], or nobody polls the device
//! for a week, it is not any more. (One poll may come in pieces that nothing holds together.)

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::rows::Interface;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;
use serde::{Deserialize, Serialize};

use super::{STALE_MS, Told};
use crate::keyed::{Machine, Tick};

/// Interfaces of one device.
pub const MAX_INTERFACES: usize = 4096;
/// How long polls of a device lack an interface before it is gone, microseconds.
const GONE_US: i64 = 86_400_000_000;

/// Interfaces that a poll of a device lists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Where.
    pub scope: Arc<Scope>,
    /// They, by index; `first_seen` and `last_seen` are the poll's.
    pub interfaces: BTreeMap<i64, Interface>,
}

/// The interfaces of a device.
#[derive(Serialize, Deserialize)]
pub(super) struct Found {
    scope: Arc<Scope>,
    interfaces: BTreeMap<i64, Interface>,
    polled_ms: i64,
}

impl Found {
    fn take(&mut self, found: BTreeMap<i64, Interface>) {
        for (index, new) in found {
            let has_room = self.interfaces.len() < MAX_INTERFACES;
            match self.interfaces.get_mut(&index) {
                Some(known) => {
                    let first = known.first_seen.min(new.first_seen);
                    if (new.last_seen, &new) > (known.last_seen, known) {
                        *known = new;
                    }
                    known.first_seen = first;
                }
                None if has_room => {
                    self.interfaces.insert(index, new);
                }
                None => {}
            }
        }
        let newest = self.interfaces.values().map(|i| i.last_seen.0).max().unwrap_or(i64::MIN);
        self.interfaces.retain(|_, i| i.last_seen.0 >= newest.saturating_sub(GONE_US));
    }
}

/// Remembers interfaces.
pub(super) struct Interfaces;

impl Machine for Interfaces {
    type Key = Name;
    type Event = Listed;
    type State = Found;
    type Output = (Arc<Scope>, Told, isize);
    const NAME: &'static str = "interfaces";

    fn step(
        &mut self,
        tick: &Tick,
        _: &Name,
        state: &mut Option<Found>,
        events: Vec<Listed>,
        out: &mut Vec<(Arc<Scope>, Told, isize)>,
    ) {
        let scope = state.as_ref().map(|found| &found.scope).or(events.first().map(|listed| &listed.scope));
        let Some(scope) = scope.cloned() else { return };
        let before = state.as_ref().map(|found| found.interfaces.clone()).unwrap_or_default();
        if events.is_empty() {
            *state = None;
        }
        for Listed { scope, interfaces } in events {
            let found = state.get_or_insert_with(|| Found { scope, interfaces: BTreeMap::new(), polled_ms: 0 });
            found.polled_ms = tick.live_ms;
            found.take(interfaces);
        }
        let none = BTreeMap::new();
        let after = state.as_ref().map_or(&none, |found| &found.interfaces);
        let told = |interface: &Interface, diff| (scope.clone(), Told::Interface(interface.clone()), diff);
        out.extend(before.iter().filter(|(k, i)| after.get(*k) != Some(i)).map(|(_, i)| told(i, -1)));
        out.extend(after.iter().filter(|(k, i)| before.get(*k) != Some(i)).map(|(_, i)| told(i, 1)));
    }

    fn due_ms(&self, state: &Found) -> Option<i64> {
        Some(state.polled_ms + STALE_MS)
    }

    fn restored(&mut self, _: &Name, state: &Found, out: &mut Vec<(Arc<Scope>, Told, isize)>) {
        let told = |interface: &Interface| (state.scope.clone(), Told::Interface(interface.clone()), 1);
        out.extend(state.interfaces.values().map(told));
    }
}
