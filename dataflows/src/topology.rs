//! Neighbours that polled devices report.
//!
//! ```text
//! polls ─► link(device, interface, neighbour, first, last)
//! ```
//! The newest poll of a device says which neighbours it has; a poll that says nothing of neighbours changes nothing. After
//! a week without a poll they are not known any more. They say nothing of identity.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::rows::TopologyLink;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::identity::sources::Neighbor;
use serde::{Deserialize, Serialize};

use crate::collection::Events;
use crate::keyed::{Context, Keyed, Machine, Tick, machine};

/// Neighbours of one device.
pub const MAX_NEIGHBORS: usize = 4096;
/// How long after its last poll a device's neighbours are known, milliseconds.
const STALE_MS: i64 = 7 * 86_400_000;

/// What neighbours are read of.
pub struct Inputs<'scope> {
    /// Polls that list neighbours, by the polled address.
    pub polls: Events<'scope, Keyed<Name, Neighbors>>,
}

/// What is known of neighbours.
pub struct Outputs<'scope> {
    /// A neighbour is reported (1), or is not any more (-1).
    pub links: Events<'scope, (Arc<Scope>, TopologyLink, isize)>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    Outputs { links: machine(inputs.polls, cx, Topology) }
}

/// What tells neighbours of a device apart: interface, protocol, chassis, port.
type NeighborKey = (i64, String, String, String);

fn which(link: &TopologyLink) -> NeighborKey {
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

    /// Takes in a neighbour; not if there are too many.
    pub fn take(&mut self, neighbor: Neighbor) -> bool {
        self.at = self.at.max(neighbor.at);
        self.keep(TopologyLink { first_seen: neighbor.at, last_seen: neighbor.at, ..neighbor.link })
    }

    fn keep(&mut self, link: TopologyLink) -> bool {
        let which = which(&link);
        if !self.links.contains_key(&which) && self.links.len() >= MAX_NEIGHBORS {
            return false;
        }
        match self.links.get_mut(&which) {
            // Of what is said twice the newest counts, and of that the greater, so that the order does not.
            Some(known) => {
                let first = known.first_seen.min(link.first_seen);
                if (link.last_seen, &link) > (known.last_seen, known) {
                    *known = link;
                }
                known.first_seen = first;
            }
            None => {
                self.links.insert(which, link);
            }
        }
        true
    }
}

/// The newest poll of a device that lists neighbours.
#[derive(Serialize, Deserialize)]
struct Polled {
    newest: Neighbors,
    polled_ms: i64,
}

/// Remembers who is whose neighbour.
struct Topology;

impl Machine for Topology {
    type Key = Name;
    type Event = Neighbors;
    type State = Polled;
    type Output = (Arc<Scope>, TopologyLink, isize);
    const NAME: &'static str = "topology";

    fn step(
        &mut self,
        tick: &Tick,
        _: &Name,
        state: &mut Option<Polled>,
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
                *state = Some(Polled { newest: poll, polled_ms: tick.live_ms });
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
            for (which, link) in &mut known.newest.links {
                if let Some(seen) = older.links.get(which) {
                    link.first_seen = link.first_seen.min(seen.first_seen);
                }
            }
        }
        let none = BTreeMap::new();
        let after = state.as_ref().map_or(&none, |s| &s.newest.links);
        let gone = before.iter().filter(|(which, link)| after.get(*which) != Some(link));
        out.extend(gone.map(|(_, link)| (scope.clone(), link.clone(), -1)));
        let new = after.iter().filter(|(which, link)| before.get(*which) != Some(link));
        out.extend(new.map(|(_, link)| (scope.clone(), link.clone(), 1)));
    }

    fn due_ms(&self, state: &Polled) -> Option<i64> {
        Some(state.polled_ms + STALE_MS)
    }

    fn restored(&mut self, _: &Name, state: &Polled, out: &mut Vec<(Arc<Scope>, TopologyLink, isize)>) {
        let Neighbors { scope, links, .. } = &state.newest;
        out.extend(links.values().map(|link| (scope.clone(), link.clone(), 1)));
    }
}

/// AttributedLinks as they are told: with the devices that own their addresses now.
#[derive(Default)]
pub struct AttributedLinks {
    known: BTreeMap<LinkKey, LinkState>,
    /// By scope and address.
    at: BTreeMap<(Name, IpAddr), BTreeSet<LinkKey>>,
    touched: BTreeSet<LinkKey>,
}

/// Names a link.
type LinkKey = (Name, IpAddr, NeighborKey);

struct LinkState {
    /// What polls say; changes of one epoch may come in any order, and are summed.
    said: Vec<(TopologyLink, isize)>,
    told: Option<TopologyLink>,
    /// Where it stands in [`AttributedLinks::at`].
    addresses: BTreeSet<IpAddr>,
}

impl AttributedLinks {
    /// Polls say it, or do not any more.
    pub fn hear(&mut self, scope: &Scope, link: TopologyLink, diff: isize) {
        let Ok(local) = link.local_ip.parse::<IpAddr>() else { return };
        let named = (scope.name, local, which(&link));
        let addresses = [Some(local), link.neighbor_ip.as_ref().and_then(|ip| ip.parse().ok())];
        let none = || LinkState { said: Vec::new(), told: None, addresses: BTreeSet::new() };
        let known = self.known.entry(named.clone()).or_insert_with(none);
        for ip in addresses.into_iter().flatten().filter(|ip| known.addresses.insert(*ip)) {
            self.at.entry((scope.name, ip)).or_default().insert(named.clone());
        }
        match known.said.iter_mut().find(|(said, _)| *said == link) {
            Some((_, n)) => *n += diff,
            None => known.said.push((link, diff)),
        }
        known.said.retain(|(_, n)| *n != 0);
        self.touched.insert(named);
    }

    /// An address has another owner.
    pub fn handed(&mut self, scope: &Scope, ip: IpAddr) {
        if let Some(links) = self.at.get(&(scope.name, ip)) {
            self.touched.extend(links.iter().cloned());
        }
    }

    /// What is told otherwise than before, once everything of an epoch was heard.
    pub fn settle<'a>(
        &mut self,
        owner: impl Fn(&TopologyLink, IpAddr) -> Option<&'a Arc<str>>,
    ) -> Vec<(TopologyLink, isize)> {
        let mut changes = Vec::new();
        for named in std::mem::take(&mut self.touched) {
            let Some(known) = self.known.get_mut(&named) else { continue };
            let owner =
                |link: &TopologyLink, ip: Option<IpAddr>| ip.and_then(|ip| owner(link, ip)).map(ToString::to_string);
            let told = known.said.iter().find(|(_, n)| *n > 0).map(|(link, _)| TopologyLink {
                device_uid: owner(link, Some(named.1)),
                neighbor_device_uid: owner(link, link.neighbor_ip.as_ref().and_then(|ip| ip.parse().ok())),
                ..link.clone()
            });
            if told != known.told {
                changes.extend(known.told.take().map(|row| (row, -1)));
                changes.extend(told.clone().map(|row| (row, 1)));
            }
            known.told = told;
            if known.said.is_empty() {
                for ip in std::mem::take(&mut known.addresses) {
                    let at = (named.0, ip);
                    let links = self.at.get_mut(&at).expect("a link stands at its addresses");
                    links.remove(&named);
                    if links.is_empty() {
                        self.at.remove(&at);
                    }
                }
                self.known.remove(&named);
            }
        }
        changes
    }
}
