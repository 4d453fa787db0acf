//! Staged runs: the chunks of large uploads, kept until their run is released, then read a share a frame.
//!
//! A frame says how many bytes of released chunks are read with it ([`Frame::release_bytes`]), so that a sync of a
//! million records delays nobody: intake sets it by the time that epochs take. Within a frame the tenant that was read
//! least comes next; a chunk that fits no budget is still read when it is the first.
//!
//! Every worker knows all runs and makes the same choice; which worker keeps a chunk and reads it is a hash of run and
//! number. So the rows, their order and their epochs do not depend on the number of workers. What is more than a worker
//! keeps in memory waits on disk.
//!
//! [`Frame::release_bytes`]: radarflow_proto::frame::Frame::release_bytes

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use radarflow_proto::disk::Disk;
use radarflow_proto::payload::Listing;
use radarflow_reconcile::identity::name::name;
use serde::{Deserialize, Serialize};

use super::spill::{Spill, Spilled};
use crate::keyed::{Context, StateEntry, encode, route};

/// A run that gets no chunk for so long is discarded, milliseconds of live time.
pub const UNFINISHED_MS: i64 = 15 * 60_000;
/// The folder of a data directory for what memory does not hold.
pub const STAGED: &str = "staged";
const RUNS: &str = "runs";
const CHUNKS: &str = "runs_chunk";
const LISTINGS: &str = "runs_listing";

/// An input's place in the ledger.
pub type LedgerPosition = (u64, u32);

/// Who submits a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submitter {
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

#[derive(Debug, Default, Serialize, Deserialize)]
struct Run {
    submitter: Submitter,
    /// When its newest chunk came, live time.
    newest_ms: i64,
    /// Where it was released.
    released: Option<LedgerPosition>,
    #[serde(skip)]
    chunks: BTreeMap<u32, Chunk>,
}

/// A chunk: every worker knows of it, one keeps it.
#[derive(Debug)]
struct Chunk {
    place: LedgerPosition,
    bytes: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Another worker keeps it.
    Elsewhere,
    Memory(Bytes),
    Disk(Spilled),
}

/// How much of what is staged is kept in memory, and where the rest waits.
#[derive(Clone)]
pub struct Staging {
    /// Bytes that all workers together keep in memory.
    pub memory_bytes: u64,
    /// A data directory for the rest, and its disk; without one, everything is kept in memory.
    pub root: Option<(Arc<dyn Disk>, PathBuf)>,
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.root.as_ref().map(|(_, root)| root);
        f.debug_struct("Staging").field("memory_bytes", &self.memory_bytes).field("root", &root).finish()
    }
}

impl Default for Staging {
    fn default() -> Self {
        Staging { memory_bytes: u64::MAX, root: None }
    }
}

/// A chunk whose turn has come.
pub struct DueChunk {
    /// Whose it is.
    pub submitter: Submitter,
    /// Its place in the ledger.
    pub place: LedgerPosition,
    /// What it says; where this worker reads it.
    pub body: Option<Bytes>,
    /// The run lists the items of its source.
    pub listing: Option<Arc<Listing>>,
    /// It is the run's last.
    pub last: bool,
}

/// All runs.
#[derive(Default)]
pub struct Runs {
    index: usize,
    /// How many workers there are, where there is more than one.
    peers: usize,
    runs: BTreeMap<String, Run>,
    /// Released runs by tenant, in the order of their release.
    queue: BTreeMap<String, BTreeSet<(LedgerPosition, String)>>,
    /// Released runs that list the items of their source.
    listings: BTreeMap<String, Arc<Listing>>,
    /// Bytes of chunks that are kept by anybody.
    bytes: u64,
    /// Bytes that this worker keeps in memory, and may, where it has a file for more.
    in_memory: u64,
    memory_bytes: u64,
    spill: Option<Spill>,
    dirty: BTreeSet<String>,
    /// Chunks that this worker keeps, or kept.
    dirty_chunks: BTreeSet<(String, u32)>,
}

impl Runs {
    /// All runs, restored; every worker has them. Without a file, everything is kept in memory.
    pub fn restore(cx: &Context, staging: &Staging) -> Self {
        let here = cx.index as u64;
        let mut runs = Runs {
            index: cx.index,
            peers: cx.peers,
            runs: cx.restore_where(RUNS, |_: &String| here),
            listings: cx.restore_where(LISTINGS, |_: &String| here),
            memory_bytes: staging.memory_bytes / cx.peers.max(1) as u64,
            ..Runs::default()
        };
        if let Some((disk, root)) = &staging.root {
            if cx.index == 0 {
                // The first release had a file a worker.
                (0..).find(|worker| disk.remove(&root.join(format!("staged-{worker}"))).is_err());
            }
            let folder = root.join(STAGED);
            let opened = Spill::open(disk.clone(), &folder, cx.index, cx.peers);
            let opened =
                opened.inspect_err(|error| tracing::warn!(path = %folder.display(), %error, "uploads stay in memory"));
            runs.spill = opened.ok();
        }
        let chunks: BTreeMap<(String, u32), (LedgerPosition, Bytes)> =
            cx.restore_where(CHUNKS, |_: &(String, u32)| here);
        for ((name, number), (place, body)) in chunks {
            runs.keep(&name, number, place, body);
        }
        for (name, run) in &runs.runs {
            if let Some(place) = run.released {
                runs.queue.entry(run.submitter.tenant.clone()).or_default().insert((place, name.clone()));
            }
        }
        runs
    }

    /// Keeps a chunk of a run that is there, where it is this worker's: in memory, or on disk when that is full.
    fn keep(&mut self, name: &str, number: u32, place: LedgerPosition, body: Bytes) {
        let bytes = body.len() as u64;
        let mine = self.is_mine(name, number);
        let body = match &mut self.spill {
            _ if !mine => Body::Elsewhere,
            Some(spill) if self.in_memory + bytes > self.memory_bytes => match spill.put(&body) {
                Ok(spilled) => Body::Disk(spilled),
                Err(error) => {
                    tracing::warn!(%error, "an upload that should wait on disk stays in memory");
                    Body::Memory(body)
                }
            },
            _ => Body::Memory(body),
        };
        if matches!(body, Body::Memory(_)) {
            self.in_memory += bytes;
        }
        let Some(run) = self.runs.get_mut(name) else { return };
        self.bytes += bytes;
        if let Some(old) = run.chunks.insert(number, Chunk { place, bytes, body }) {
            self.bytes -= old.bytes;
            self.give_up(old);
        }
    }

    /// A chunk is not kept any more.
    fn give_up(&mut self, chunk: Chunk) {
        match chunk.body {
            Body::Elsewhere => {}
            Body::Memory(_) => self.in_memory -= chunk.bytes,
            Body::Disk(spilled) => {
                if let Some(spill) = &mut self.spill {
                    spill.forget(&spilled);
                }
            }
        }
    }

    /// What a chunk says, where this worker keeps it.
    fn body(&self, chunk: &Chunk) -> Option<Bytes> {
        match &chunk.body {
            Body::Elsewhere => None,
            Body::Memory(body) => Some(body.clone()),
            // As with any operator that fails, the process ends: what is staged is in the ledger.
            Body::Disk(spilled) => Some(self.spill.as_ref()?.get(spilled).expect("what was put on disk is read again")),
        }
    }

    /// Bytes of chunks that this worker keeps in memory.
    pub fn in_memory(&self) -> u64 {
        self.in_memory
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
    pub fn stage(
        &mut self,
        name: String,
        submitter: Submitter,
        number: u32,
        place: LedgerPosition,
        body: Bytes,
        live_ms: i64,
    ) {
        let run = self.runs.entry(name.clone()).or_default();
        run.submitter = submitter;
        run.newest_ms = live_ms;
        self.keep(&name, number, place, body);
        self.dirty_chunks.insert((name.clone(), number));
        self.dirty.insert(name);
    }

    /// Chunks of a run that are kept.
    pub fn chunks(&self, name: &str) -> usize {
        self.runs.get(name).map_or(0, |run| run.chunks.len())
    }

    /// A run is complete.
    pub fn release(&mut self, name: String, place: LedgerPosition, listing: Option<Listing>) {
        let Some(run) = self.runs.get_mut(&name).filter(|run| run.released.is_none()) else { return };
        run.released = Some(place);
        if let Some(listing) = listing {
            self.listings.insert(name.clone(), listing.into());
        }
        self.queue.entry(run.submitter.tenant.clone()).or_default().insert((place, name.clone()));
        self.dirty.insert(name);
    }

    /// A run will not be complete.
    pub fn discard(&mut self, name: &str) -> Option<Submitter> {
        let run = self.runs.remove(name)?;
        for (number, chunk) in run.chunks {
            self.bytes -= chunk.bytes;
            self.give_up(chunk);
            self.dirty_chunks.insert((name.to_owned(), number));
        }
        self.dirty.insert(name.to_owned());
        Some(run.submitter)
    }

    /// Discards what was given up by its sender.
    pub fn expire(&mut self, live_ms: i64) -> Vec<(String, Submitter)> {
        let unfinished = |run: &Run| run.released.is_none() && run.newest_ms + UNFINISHED_MS <= live_ms;
        let gone: Vec<String> = self.runs.iter().filter(|(_, r)| unfinished(r)).map(|(n, _)| n.clone()).collect();
        gone.into_iter().filter_map(|name| Some((name.clone(), self.discard(&name)?))).collect()
    }

    /// The chunks that are read at an epoch.
    pub fn take(&mut self, epoch: u64, budget: u64) -> Vec<DueChunk> {
        let mut due = Vec::new();
        let mut read: BTreeMap<String, u64> = BTreeMap::new();
        let mut left = budget;
        // Where all were read alike, who is first changes with the epoch.
        let turn = |tenant: &String| name(&(epoch, tenant)).short();
        while left > 0
            && let Some(tenant) =
                self.queue.keys().min_by_key(|t| (read.get(*t).copied().unwrap_or(0), turn(t))).cloned()
        {
            let Some((place, name)) = self.queue.get(&tenant).and_then(|q| q.first().cloned()) else { break };
            let Some(run) = self.runs.get_mut(&name) else { break };
            let next = run.chunks.first_key_value().map_or(0, |(_, chunk)| chunk.bytes);
            if next > left && !due.is_empty() {
                break;
            }
            let (submitter, taken) = (run.submitter.clone(), run.chunks.pop_first());
            let finished = run.chunks.is_empty();
            if let Some((number, chunk)) = taken {
                left = left.saturating_sub(next);
                self.bytes -= next;
                *read.entry(tenant.clone()).or_default() += next;
                let listing = self.listings.get(&name).cloned();
                due.push(DueChunk { submitter, place: chunk.place, body: self.body(&chunk), listing, last: finished });
                self.give_up(chunk);
                self.dirty_chunks.insert((name.clone(), number));
            }
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

    /// What changed since the last snapshot: of runs the first worker says it for all, of a chunk whoever keeps it.
    pub fn snapshot(&mut self) -> Vec<StateEntry> {
        let (dirty, chunks) = (std::mem::take(&mut self.dirty), std::mem::take(&mut self.dirty_chunks));
        let of_runs = dirty.into_iter().filter(|_| self.index == 0).flat_map(|name| {
            let (run, listing) = (self.runs.get(&name).map(encode), self.listings.get(&name).map(encode));
            let key = encode(&name);
            let of = |collection, value| StateEntry { collection, key: key.clone(), value };
            [of(RUNS, run), of(LISTINGS, listing)]
        });
        let of_chunks = chunks.into_iter().filter_map(|key| {
            if !self.is_mine(&key.0, key.1) {
                return None;
            }
            let chunk = self.runs.get(&key.0).and_then(|run| run.chunks.get(&key.1));
            let value = chunk.and_then(|chunk| Some(encode(&(chunk.place, self.body(chunk)?))));
            Some(StateEntry { collection: CHUNKS, key: encode(&key), value })
        });
        of_runs.chain(of_chunks).collect()
    }

    /// Whether this worker keeps a chunk.
    fn is_mine(&self, name: &str, number: u32) -> bool {
        route(&(name, number)) % self.peers.max(1) as u64 == self.index as u64
    }
}
