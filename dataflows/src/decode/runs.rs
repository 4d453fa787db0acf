//! Staged runs: the chunks of large uploads, kept until their run is released, then read a share a frame.
//!
//! A frame says how many bytes of released chunks are read with it ([`Frame::release_bytes`]), so that a sync of a
//! million records delays nobody: intake sets it by the time that epochs take. Within a frame the tenant that was read
//! least comes next; a chunk that fits no budget is still read when it is the first.
//!
//! Every worker keeps all runs and makes the same choice; which worker reads a chunk is a hash of run and number. So
//! the rows, their order and their epochs do not depend on the number of workers.
//!
//! [`Frame::release_bytes`]: radarflow_proto::frame::Frame::release_bytes

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use radarflow_proto::payload::Listing;
use serde::{Deserialize, Serialize};

use crate::keyed::{Context, StateEntry, encode, route};

/// A run that gets no chunk for so long is discarded, milliseconds of live time.
pub const UNFINISHED_MS: i64 = 15 * 60_000;
const RUNS: &str = "runs";
const LISTINGS: &str = "runs_listing";

/// An input's place in the ledger.
pub type Place = (u64, u32);

/// Whose a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Customer.
    pub tenant: String,
    /// Site, where the connection decides it.
    pub partition: String,
    /// The feed it came by.
    pub feed: String,
    /// Who sent it.
    pub peer: Option<SocketAddr>,
    /// Receipt of its newest chunk, microseconds since 1970.
    pub received_us: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    owner: Owner,
    /// When its newest chunk came, live time.
    newest_ms: i64,
    /// Where it was released.
    released: Option<Place>,
    chunks: BTreeMap<u32, (Place, Bytes)>,
}

impl Run {
    fn bytes(&self) -> u64 {
        self.chunks.values().map(|(_, body)| body.len() as u64).sum()
    }
}

/// A chunk whose turn has come.
pub struct Due {
    /// Whose it is.
    pub owner: Owner,
    /// Its place in the ledger.
    pub place: Place,
    /// What it says.
    pub body: Bytes,
    /// Which worker reads it, modulo their number.
    pub route: u64,
    /// The run lists the items of its source.
    pub listing: Option<Arc<Listing>>,
    /// It is the run's last.
    pub last: bool,
}

/// All runs.
#[derive(Default)]
pub struct Runs {
    runs: BTreeMap<String, Run>,
    /// Released runs by tenant, in the order of their release.
    queue: BTreeMap<String, BTreeSet<(Place, String)>>,
    /// Released runs that list the items of their source.
    listings: BTreeMap<String, Arc<Listing>>,
    /// Bytes of chunks that are kept.
    bytes: u64,
    dirty: BTreeSet<String>,
}

impl Runs {
    /// All runs, restored; every worker has them.
    pub fn restore(cx: &Context) -> Self {
        let here = cx.index as u64;
        let mut runs = Runs {
            runs: cx.restore_where(RUNS, |_: &String| here),
            listings: cx.restore_where(LISTINGS, |_: &String| here),
            ..Runs::default()
        };
        for (name, run) in &runs.runs {
            runs.bytes += run.bytes();
            if let Some(place) = run.released {
                runs.queue.entry(run.owner.tenant.clone()).or_default().insert((place, name.clone()));
            }
        }
        runs
    }

    /// Bytes that wait, released or not.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether released runs wait.
    pub fn waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Keeps a chunk.
    pub fn stage(&mut self, name: String, owner: Owner, number: u32, place: Place, body: Bytes, live_ms: i64) {
        self.bytes += body.len() as u64;
        let run = self.runs.entry(name.clone()).or_default();
        run.owner = owner;
        run.newest_ms = live_ms;
        if let Some((_, old)) = run.chunks.insert(number, (place, body)) {
            self.bytes -= old.len() as u64;
        }
        self.dirty.insert(name);
    }

    /// Chunks of a run that are kept.
    pub fn chunks(&self, name: &str) -> usize {
        self.runs.get(name).map_or(0, |run| run.chunks.len())
    }

    /// A run is complete.
    pub fn release(&mut self, name: String, place: Place, listing: Option<Listing>) {
        let Some(run) = self.runs.get_mut(&name).filter(|run| run.released.is_none()) else { return };
        run.released = Some(place);
        if let Some(listing) = listing {
            self.listings.insert(name.clone(), listing.into());
        }
        self.queue.entry(run.owner.tenant.clone()).or_default().insert((place, name.clone()));
        self.dirty.insert(name);
    }

    /// A run will not be complete.
    pub fn discard(&mut self, name: &str) -> Option<Owner> {
        let run = self.runs.remove(name)?;
        self.bytes -= run.bytes();
        self.dirty.insert(name.to_owned());
        Some(run.owner)
    }

    /// Discards what was given up by its sender.
    pub fn expire(&mut self, live_ms: i64) -> Vec<(String, Owner)> {
        let unfinished = |run: &Run| run.released.is_none() && run.newest_ms + UNFINISHED_MS <= live_ms;
        let gone: Vec<String> = self.runs.iter().filter(|(_, r)| unfinished(r)).map(|(n, _)| n.clone()).collect();
        gone.into_iter().filter_map(|name| Some((name.clone(), self.discard(&name)?))).collect()
    }

    /// The chunks that are read at an epoch.
    pub fn take(&mut self, epoch: u64, budget: u64) -> Vec<Due> {
        let mut due = Vec::new();
        let mut read: BTreeMap<String, u64> = BTreeMap::new();
        let mut left = budget;
        // Where all were read alike, who is first changes with the epoch.
        let turn = |tenant: &String| route(&(epoch, tenant));
        while left > 0
            && let Some(tenant) =
                self.queue.keys().min_by_key(|t| (read.get(*t).copied().unwrap_or(0), turn(t))).cloned()
        {
            let Some((place, name)) = self.queue.get(&tenant).and_then(|q| q.first().cloned()) else { break };
            let Some(run) = self.runs.get_mut(&name) else { break };
            let next = run.chunks.first_key_value().map_or(0, |(_, (_, body))| body.len() as u64);
            if next > left && !due.is_empty() {
                break;
            }
            if let Some((number, (chunk_place, body))) = run.chunks.pop_first() {
                left = left.saturating_sub(next);
                self.bytes -= next;
                *read.entry(tenant.clone()).or_default() += next;
                let route = route(&(&name, number));
                let (owner, last) = (run.owner.clone(), run.chunks.is_empty());
                let listing = self.listings.get(&name).cloned();
                due.push(Due { owner, place: chunk_place, body, route, listing, last });
            }
            let finished = run.chunks.is_empty();
            self.dirty.insert(name.clone());
            if finished {
                self.runs.remove(&name);
                self.listings.remove(&name);
                let queue = self.queue.entry(tenant.clone()).or_default();
                queue.remove(&(place, name));
                if queue.is_empty() {
                    self.queue.remove(&tenant);
                }
            }
        }
        due
    }

    /// What changed since the last snapshot, said by the first worker for all.
    pub fn snapshot(&mut self, first: bool) -> Vec<StateEntry> {
        let dirty = std::mem::take(&mut self.dirty);
        let dirty = dirty.into_iter().filter(|_| first);
        dirty
            .flat_map(|name| {
                let (run, listing) = (self.runs.get(&name).map(encode), self.listings.get(&name).map(encode));
                let key = encode(&name);
                let of = |collection, value| StateEntry { collection, key: key.clone(), value };
                [of(RUNS, run), of(LISTINGS, listing)]
            })
            .collect()
    }
}
