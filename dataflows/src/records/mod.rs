//! Records: of each item the newest version, by (event time, deletion, run, hash), and nothing else about it.
//!
//! ```text
//! sightings, withdrawn ─► [record machine] ─► versions (Δ)
//!                               ├─► claimed for long (Δ)
//!                               └─► assertions ─► [identifiers] ─► first seen (Δ), last record (Δ)
//! ```
//! Many inventories set an item's time only when a person edits it, so that two runs say different things under one time: the
//! run that is later in the ledger counts, and only within a run the hash does. A run that has spoken of the item before does
//! not count again when it is delivered again.
//! A version that is not newer changes nothing but first-seen; what a partial source says is made whole first
//! (`reconcile::partial`). A deletion is a version too: it is kept as a tombstone
//! for one retention, so that an older sighting that arrives late does not bring the item back. Sweeps leave when their
//! time-to-live ends. A heartbeat that says what is known already is no version; an agent that has not said anything
//! for a day is *stale*, which is part of its version. What a complete listing of its source lacks is *withdrawn*: nothing is
//! kept of it, so that it comes back with the content it had.

mod first_seen;
mod version;

use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::identity::SETTLED_RUNS;
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::partial::Sayings;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, Machine, Tick, machine};
pub use first_seen::{Asserted, FirstSeen};
use first_seen::{Assertion, Identifiers};
pub use version::{Live, RunName, Version};

/// How long tombstones and forgotten identifiers are remembered, milliseconds: 30 days.
pub const RETENTION_MS: i64 = 30 * 86_400_000;
/// How long a swept address counts after its last sighting, milliseconds.
pub const SWEEP_TTL_MS: i64 = 86_400_000;
/// How long an agent's word about its addresses is the strongest, milliseconds.
pub const AGENT_FRESH_MS: i64 = 86_400_000;
/// Claims a record's runs are remembered for.
pub const MAX_CLAIMS: usize = 64;

/// What records are made of.
pub struct Inputs<'scope> {
    /// Sightings, by record.
    pub sightings: Events<'scope, Keyed<Name, Sighting>>,
    /// Records that a complete listing of their source lacks: they are as if they had never been said.
    pub withdrawn: Events<'scope, Name>,
}

/// What is known of records.
pub struct Outputs<'scope> {
    /// Live versions.
    pub versions: Rel<'scope, Live>,
    /// First-seen and last record of identifiers.
    pub first_seen: Rel<'scope, FirstSeen>,
    /// By site: records, and addresses that they have claimed in enough distinct runs.
    pub settled: Rel<'scope, (Arc<Scope>, (Name, Name))>,
}

/// Builds the relations.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let sightings = inputs.sightings.map(|Keyed { key, position, event }| {
        let event = Arrival::Sighted(event);
        Keyed { key, position, event }
    });
    let withdrawn = inputs.withdrawn.map(|key| Keyed { key, position: 0, event: Arrival::Withdrawn });
    let out = machine(sightings.concat(withdrawn), cx, Records);
    let assertions = out.clone().flat_map(|out| match out {
        RecordOut::Assertion(key, event) => Some(Keyed { key, position: 0, event }),
        RecordOut::Version(..) | RecordOut::Settled(..) => None,
    });
    Outputs {
        versions: collected(out.clone(), |out| match out {
            RecordOut::Version(version, diff) => Some((version, diff)),
            _ => None,
        }),
        first_seen: collected(machine(assertions, cx, Identifiers), Some),
        settled: collected(out, |out| match out {
            RecordOut::Settled(scope, settled, diff) => Some(((scope, settled), diff)),
            _ => None,
        }),
    }
}

/// One arrival of a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sighting {
    /// What was said.
    pub version: Live,
    /// Its source is partial: what it does not say it said before.
    pub partial: bool,
}

/// What happens to a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Arrival {
    Sighted(Sighting),
    Withdrawn,
}

struct Records;

#[derive(Serialize, Deserialize)]
struct RecordState {
    version: Live,
    /// Live clock of the last sighting, milliseconds.
    sighted_ms: i64,
    /// Event time of the newest deletion.
    deleted: Time,
    /// The runs that claimed an address since then, newest first; no more of an address than count.
    runs: Vec<Claimed>,
    /// Of a partial source, what it said so far.
    sayings: Sayings,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Claimed {
    at: Time,
    ip: IpAddr,
    run: u32,
}

#[derive(Clone)]
enum RecordOut {
    Version(Live, isize),
    Settled(Arc<Scope>, (Name, Name), isize),
    Assertion(Name, Assertion),
}

/// The names of what a version asserts: strong identifiers and global MACs.
fn asserted(version: &Version) -> impl Iterator<Item = Name> + '_ {
    let says = &version.says;
    says.ids.iter().map(|id| id.name).chain(says.global_macs().map(|m| m.name))
}

fn publish(version: &Live, diff: isize, out: &mut Vec<RecordOut>) {
    if !version.says.deleted {
        for id in asserted(version) {
            out.push(RecordOut::Assertion(id, Assertion::Held(diff as i64, version.clone())));
        }
        out.push(RecordOut::Version(version.clone(), diff));
    }
}

/// The same content, whenever it was said.
fn says_the_same(a: &Version, b: &Version) -> bool {
    let (mut a, b) = (a.record(), b.record());
    a.event_time = b.event_time;
    a == b
}

/// The version that a sighting makes, with what was said before where its source is partial.
fn whole(sighting: &Sighting, state: &mut Option<RecordState>) -> (Live, Sayings) {
    if !sighting.partial {
        return (sighting.version.clone(), Sayings::default());
    }
    let mut sayings = Sayings::default();
    if let Some(old) = state {
        sayings = std::mem::take(&mut old.sayings);
        if sayings.is_empty() {
            // Its source was not partial before.
            sayings.say(old.version.record());
        }
    }
    let whole = sayings.say(sighting.version.record());
    (Version::new(&whole).said_by(sighting.version.by).into(), sayings)
}

impl RecordState {
    /// Names of the addresses that it has claimed for long, with their site.
    fn settled(&self) -> impl Iterator<Item = (Arc<Scope>, Name)> + '_ {
        let says = &self.version.says;
        let of = |ip: IpAddr| self.runs.iter().filter(|c| c.ip == ip).count();
        says.ips.iter().filter(move |a| !says.deleted && of(a.ip) >= SETTLED_RUNS).map(|a| (says.scope.clone(), a.name))
    }

    /// Whether a version takes the place of the one that is known.
    fn gives_way_to(&self, new: &Version) -> bool {
        let old = &self.version;
        let (ours, theirs) = ((old.says.at, old.says.deleted), (new.says.at, new.says.deleted));
        if ours != theirs {
            return theirs > ours;
        }
        let spoke = |claim: &Claimed| claim.run == new.by.run && claim.at == new.says.at;
        if new.by == old.by { new.hash > old.hash } else { !self.runs.iter().any(spoke) }
    }

    /// Notes what a sighting claims; a deletion forgets what was claimed before it, whichever comes first.
    fn claim(&mut self, sighting: &Sighting) {
        let says = &sighting.version.says;
        if says.deleted {
            self.deleted = self.deleted.max(says.at);
            self.runs.retain(|c| c.at > says.at);
        } else if says.kind != SourceKind::Sweep && says.at > self.deleted {
            for ip in says.ips.iter().map(|a| a.ip) {
                let claim = Claimed { at: says.at, ip, run: sighting.version.by.run };
                match self.runs.iter_mut().find(|c| c.ip == claim.ip && c.run == claim.run) {
                    Some(known) => known.at = known.at.max(claim.at),
                    None => self.runs.push(claim),
                }
                self.runs.sort_unstable_by(|a, b| b.cmp(a));
                let mut of_this = 0;
                self.runs.retain(|c| {
                    of_this += usize::from(c.ip == ip);
                    c.ip != ip || of_this <= SETTLED_RUNS
                });
            }
            self.runs.truncate(MAX_CLAIMS);
        }
    }
}

impl Machine for Records {
    type Key = Name;
    type Event = Arrival;
    type State = RecordState;
    type Output = RecordOut;
    const NAME: &'static str = "records";

    fn step(
        &mut self,
        tick: &Tick,
        key: &Name,
        state: &mut Option<RecordState>,
        events: Vec<Arrival>,
        out: &mut Vec<RecordOut>,
    ) {
        let settled_before: Vec<(Arc<Scope>, Name)> = state.iter().flat_map(RecordState::settled).collect();
        if events.is_empty() {
            // The timer: a sweep's time-to-live, a tombstone's retention, an agent's silence.
            if let Some(mut old) = state.take() {
                publish(&old.version, -1, out);
                if old.version.says.kind == SourceKind::Agent && !old.version.says.deleted {
                    old.version = (*old.version).clone().grown_stale().into();
                    publish(&old.version, 1, out);
                    *state = Some(old);
                } else {
                    out.extend(settled_before.into_iter().map(|(scope, ip)| RecordOut::Settled(scope, (*key, ip), -1)));
                }
            }
            return;
        }
        for arrival in events {
            let Arrival::Sighted(sighting) = arrival else {
                if let Some(old) = state.take_if(|s| !s.version.says.deleted) {
                    publish(&old.version, -1, out);
                }
                continue;
            };
            let (version, sayings) = whole(&sighting, state);
            match state {
                Some(old) => {
                    let known = version.hash == old.version.hash;
                    old.sighted_ms = tick.live_ms;
                    old.sayings = sayings;
                    let newer = if sighting.partial { !known } else { !known && old.gives_way_to(&version) };
                    let repeated = version.says.kind == SourceKind::Agent && says_the_same(&old.version, &version);
                    old.claim(&sighting);
                    let changed = newer && !repeated;
                    let revived = repeated && old.version.stale;
                    // What becomes live is seen by that; what is live already was seen when it did.
                    // Of what a partial source says only a part may.
                    let said = &sighting.version;
                    if !said.says.deleted && (sighting.partial || (!known && !changed)) {
                        let seen = |id| RecordOut::Assertion(id, Assertion::Sighted(said.clone()));
                        out.extend(asserted(said).map(seen));
                    }
                    if changed || revived {
                        publish(&old.version, -1, out);
                        old.version = if newer { version } else { (*old.version).clone().confirmed().into() };
                        publish(&old.version, 1, out);
                    }
                }
                None => {
                    publish(&version, 1, out);
                    let (deleted, runs) = (Time(i64::MIN), Vec::new());
                    let new = state.insert(RecordState { version, sighted_ms: tick.live_ms, deleted, runs, sayings });
                    new.claim(&sighting);
                }
            }
        }
        let settled: Vec<(Arc<Scope>, Name)> = state.iter().flat_map(RecordState::settled).collect();
        let gone = settled_before.iter().filter(|ip| !settled.contains(ip));
        out.extend(gone.map(|(scope, ip)| RecordOut::Settled(scope.clone(), (*key, *ip), -1)));
        let new = settled.iter().filter(|ip| !settled_before.contains(ip));
        out.extend(new.map(|(scope, ip)| RecordOut::Settled(scope.clone(), (*key, *ip), 1)));
    }

    fn due_ms(&self, state: &RecordState) -> Option<i64> {
        if state.version.says.deleted {
            return Some(state.sighted_ms + RETENTION_MS);
        }
        match state.version.says.kind {
            SourceKind::Sweep => Some(state.sighted_ms + SWEEP_TTL_MS),
            SourceKind::Agent if !state.version.stale => Some(state.sighted_ms + AGENT_FRESH_MS),
            _ => None,
        }
    }

    fn restored(&mut self, key: &Name, state: &RecordState, out: &mut Vec<RecordOut>) {
        if !state.version.says.deleted {
            out.push(RecordOut::Version(state.version.clone(), 1));
        }
        out.extend(state.settled().map(|(scope, ip)| RecordOut::Settled(scope, (*key, ip), 1)));
    }
}
