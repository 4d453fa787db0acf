//! Neighbours and interfaces that polled devices report.
//!
//! ```text
//! polls ─► link(device, interface, neighbour, first, last)
//!       └► interface(device, index, …)
//! ```
//! The newest poll of a device says which neighbours it has; a poll that says nothing of neighbours changes nothing. After
//! a week without a poll they are not known any more. They say nothing of identity.

mod interfaces;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::rows::{Interface, StateRow, TopologyLink};
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::{Name, name};
use radarflow_reconcile::identity::sources::Neighbor;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::collection::Events;
use crate::keyed::{Context, Keyed, Machine, Tick, machine};
pub use interfaces::{Listed, MAX_INTERFACES};

/// Neighbours of one device.
pub const MAX_NEIGHBORS: usize = 4096;
/// How long after its last poll a device's neighbours and interfaces are known, milliseconds.
const STALE_MS: i64 = 7 * 86_400_000;

/// What neighbours are read of.
pub struct Inputs<'scope> {
    /// Polls that list neighbours, by the polled address.
    pub polls: Events<'scope, Keyed<Name, Neighbors>>,
    /// Interfaces that polls list, by the polled device.
    pub interfaces: Events<'scope, Keyed<Name, Listed>>,
}

/// What is known of them.
pub struct Outputs<'scope> {
    /// Something is reported (1), or is not any more (-1).
    pub told: Events<'scope, (Arc<Scope>, Told, isize)>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let links = machine(inputs.polls, cx, Topology).map(|(scope, link, diff)| (scope, Told::Link(link), diff));
    Outputs { told: links.concat(machine(inputs.interfaces, cx, interfaces::Interfaces)) }
}

/// What is reported of a device, and which devices own its addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Told {
    /// A neighbour.
    Link(TopologyLink),
    /// An interface.
    Interface(Interface),
}

/// What tells apart what is reported of one device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ToldKey {
    /// A neighbour.
    Link(NeighborKey),
    /// An interface.
    Interface(i64),
}

impl Told {
    /// What tells it apart.
    pub fn key(&self) -> ToldKey {
        match self {
            Told::Link(link) => ToldKey::Link(neighbor_key(link)),
            Told::Interface(interface) => ToldKey::Interface(interface.if_index),
        }
    }

    /// Whose: customer and site.
    pub fn of(&self) -> (&str, &str) {
        match self {
            Told::Link(link) => (&link.tenant_id, &link.partition),
            Told::Interface(interface) => (&interface.tenant_id, &interface.partition),
        }
    }

    /// The address of the device, and of the other end where it has one.
    pub fn addresses(&self) -> (Option<IpAddr>, Option<IpAddr>) {
        match self {
            Told::Link(link) => (link.local_ip.parse().ok(), link.neighbor_ip.as_ref().and_then(|ip| ip.parse().ok())),
            Told::Interface(interface) => (interface.device_ip.parse().ok(), None),
        }
    }

    /// The same, with the devices that own these addresses.
    #[must_use]
    pub fn owned(self, device: Option<String>, other: Option<String>) -> Self {
        match self {
            Told::Link(link) => Told::Link(TopologyLink { device_uid: device, neighbor_device_uid: other, ..link }),
            Told::Interface(interface) => Told::Interface(Interface { device_uid: device, ..interface }),
        }
    }
}

impl From<Told> for StateRow {
    fn from(told: Told) -> Self {
        match told {
            Told::Link(link) => StateRow::from(link),
            Told::Interface(interface) => StateRow::from(interface),
        }
    }
}

/// What tells neighbours of a device apart: interface, protocol, chassis, port.
pub type NeighborKey = (i64, String, String, String);

/// The neighbour's of a link.
pub fn neighbor_key(link: &TopologyLink) -> NeighborKey {
    let (chassis, port) = (link.neighbor_chassis_id.clone(), link.neighbor_port_id.clone());
    (link.local_if_index, link.protocol.clone(), chassis, port)
}

/// A poll that lists a device's neighbours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbors {
    at: Time,
    run: u32,
    scope: Arc<Scope>,
    links: BTreeMap<NeighborKey, TopologyLink>,
}

impl Neighbors {
    /// A poll that lists nothing yet.
    pub fn new(scope: Arc<Scope>, run: u32) -> Self {
        Neighbors { at: Time(i64::MIN), run, scope, links: BTreeMap::new() }
    }

    /// Names a poll that has no run by its newest time.
    pub fn name_by_time(&mut self) {
        self.run = name(&self.at.0).short() as u32;
    }

    /// Takes in a neighbour; not if there are too many.
    pub fn take(&mut self, neighbor: Neighbor) -> bool {
        self.at = self.at.max(neighbor.at);
        self.keep(TopologyLink { first_seen: neighbor.at, last_seen: neighbor.at, ..neighbor.link })
    }

    fn keep(&mut self, link: TopologyLink) -> bool {
        let key = neighbor_key(&link);
        if !self.links.contains_key(&key) && self.links.len() >= MAX_NEIGHBORS {
            return false;
        }
        match self.links.get_mut(&key) {
            // Of what is said twice the newest counts, and of that the greater, so that the order does not.
            Some(known) => {
                let first = known.first_seen.min(link.first_seen);
                if (link.last_seen, &link) > (known.last_seen, known) {
                    *known = link;
                }
                known.first_seen = first;
            }
            None => {
                self.links.insert(key, link);
            }
        }
        true
    }
}

/// The newest poll of a device that lists neighbours.
#[derive(Serialize, Deserialize)]
struct NeighborState {
    newest: Neighbors,
    polled_ms: i64,
}

/// Remembers who is whose neighbour.
struct Topology;

impl Machine for Topology {
    type Key = Name;
    type Event = Neighbors;
    type State = NeighborState;
    type Output = (Arc<Scope>, TopologyLink, isize);
    const NAME: &'static str = "topology";

    fn step(
        &mut self,
        tick: &Tick,
        _: &Name,
        state: &mut Option<NeighborState>,
        events: Vec<Neighbors>,
        out: &mut Vec<(Arc<Scope>, TopologyLink, isize)>,
    ) {
        let known = state.as_ref().map(|s| &s.newest).or(events.first());
        let Some(scope) = known.map(|known| known.scope.clone()) else { return };
        let before = state.as_ref().map(|s| s.newest.links.clone()).unwrap_or_default();
        if events.is_empty() {
            *state = None;
        }
        for poll in events {
            let Some(known) = state else {
                *state = Some(NeighborState { newest: poll, polled_ms: tick.live_ms });
                continue;
            };
            known.polled_ms = tick.live_ms;
            if poll.run == known.newest.run {
                // One poll may come in several pieces.
                known.newest.at = known.newest.at.max(poll.at);
                for link in poll.links.into_values() {
                    known.newest.keep(link);
                }
                continue;
            }
            let mut older = poll;
            if (older.at, older.run) > (known.newest.at, known.newest.run) {
                std::mem::swap(&mut older, &mut known.newest);
            }
            for (key, link) in &mut known.newest.links {
                if let Some(seen) = older.links.get(key) {
                    link.first_seen = link.first_seen.min(seen.first_seen);
                }
            }
        }
        let none = BTreeMap::new();
        let after = state.as_ref().map_or(&none, |s| &s.newest.links);
        let gone = before.iter().filter(|(key, link)| after.get(*key) != Some(link));
        out.extend(gone.map(|(_, link)| (scope.clone(), link.clone(), -1)));
        let new = after.iter().filter(|(key, link)| before.get(*key) != Some(link));
        out.extend(new.map(|(_, link)| (scope.clone(), link.clone(), 1)));
    }

    fn due_ms(&self, state: &NeighborState) -> Option<i64> {
        Some(state.polled_ms + STALE_MS)
    }

    fn restored(&mut self, _: &Name, state: &NeighborState, out: &mut Vec<(Arc<Scope>, TopologyLink, isize)>) {
        let Neighbors { scope, links, .. } = &state.newest;
        out.extend(links.values().map(|link| (scope.clone(), link.clone(), 1)));
    }
}
