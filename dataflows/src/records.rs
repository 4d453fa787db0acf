//! Records: of each item the newest version, by (event time, deletion, hash), and nothing else about it.
//!
//! ```text
//! arrivals ──► [record machine] ─► versions (Δ)
//!                     ├─► claimed for long (Δ)
//!                     └─► assertions ─► [first-seen machine] ─► first seen (Δ), last record (Δ)
//! ```
//! A version that is not newer changes nothing but first-seen; what a partial source says is made whole first
//! (`reconcile::partial`). A deletion is a version too: it is kept as a tombstone
//! for one retention, so that an older sighting that arrives late does not bring the item back. Sweeps leave when their
//! time-to-live ends. A heartbeat that says what is known already is no version; an agent that has not said anything
//! for a day is *stale*, which is part of its version. What a complete listing of its source lacks is *withdrawn*: nothing is
//! kept of it, so that it comes back with the content it had.
//!
//! First-seen of an identifier is the smallest event time at which it was asserted since the last gap of one retention
//! in which no live record asserted it; it survives the records, so a name does not change when its oldest record goes.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::{Identifier, Record, SourceKind};
use radarflow_reconcile::identity::assertions::{Assertions, Scope, mac_identifier};
use radarflow_reconcile::identity::name::{identifier_uid, name, name_of_bytes};
use radarflow_reconcile::identity::{ClaimClass, SETTLED_RUNS};
use radarflow_reconcile::partial::Sayings;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::keyed::{Context, Keyed, Machine, Tick, encode, machine};

pub use radarflow_reconcile::identity::name::Name;

/// How long tombstones and forgotten identifiers are remembered, milliseconds: 30 days.
pub const RETENTION_MS: i64 = 30 * 86_400_000;
/// How long a swept address counts after its last sighting, milliseconds.
pub const SWEEP_TTL_MS: i64 = 86_400_000;
/// How long an agent's word about its addresses is the strongest, milliseconds.
pub const AGENT_FRESH_MS: i64 = 86_400_000;

/// A run of a source, by names that differ where it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunName {
    /// The source instance.
    pub source: u32,
    /// Its run; of a source without runs, the minute.
    pub run: u32,
}

/// One version of a record: what identity reads of it, and all of it, packed. Compared by names: equal names are equal
/// content.
#[derive(Clone, Debug)]
pub struct Version {
    /// Names the record.
    pub key: Name,
    /// Names the content, event time included.
    pub hash: Name,
    /// An agent's record that was not confirmed for a day.
    pub stale: bool,
    /// Who said so.
    pub by: RunName,
    /// What identity reads.
    pub says: Assertions,
    body: Box<[u8]>,
}

impl Version {
    /// Of a record.
    pub fn new(record: &Record) -> Self {
        let body = encode(record).into_boxed_slice();
        let (key, hash, by) = (name(&record.key), name_of_bytes(&body), RunName::default());
        Version { key, hash, stale: false, by, says: Assertions::of(record), body }
    }

    /// The same, said by a run.
    pub fn said_by(self, by: RunName) -> Self {
        Version { by, ..self }
    }

    /// The same, of an agent that was not confirmed for a day.
    pub fn grown_stale(self) -> Self {
        Version { stale: true, ..self }
    }

    /// The same, of a device whose interfaces have these MACs.
    pub fn showing(&self, macs: &[u64]) -> Self {
        let mut record = self.record();
        let said: Vec<String> = macs.iter().map(|mac| format!("{mac:012X}")).collect();
        let new = said.into_iter().filter(|m| !record.macs.contains(m) && !record.macs_shown.contains(m));
        let new: Vec<String> = new.collect();
        record.macs_shown.extend(new);
        Version { stale: self.stale, by: self.by, ..Version::new(&record) }
    }

    /// The record.
    pub fn record(&self) -> Record {
        postcard::from_bytes(&self.body).expect("a packed record unpacks")
    }

    /// The record's strong identifiers, without unpacking the rest.
    fn ids(&self) -> Vec<Identifier> {
        let (head, _): (Head<'_>, _) = postcard::take_from_bytes(&self.body).expect("a packed record unpacks");
        head.ids
    }

    /// The instance of its source, without unpacking the rest.
    pub fn instance(&self) -> &str {
        let (head, _): (Head<'_>, _) = postcard::take_from_bytes(&self.body).expect("a packed record unpacks");
        head.key.2
    }

    /// How strongly it claims its addresses.
    pub fn class(&self) -> ClaimClass {
        if self.stale { ClaimClass::StaleAgent } else { ClaimClass::of(self.says.kind) }
    }

    fn order(&self) -> (Time, bool, Name) {
        (self.says.at, self.says.deleted, self.hash)
    }
}

/// How a packed record begins.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Head<'a> {
    #[serde(borrow)]
    key: (&'a str, SourceKind, &'a str, Option<&'a str>, &'a str),
    partition: &'a str,
    event_time: Time,
    deleted: bool,
    ids: Vec<Identifier>,
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Version {}
impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.key, self.hash, self.stale).cmp(&(other.key, other.hash, other.stale))
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (self.stale, self.by, &self.body).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (stale, by, body) = <(bool, RunName, Vec<u8>)>::deserialize(from)?;
        let record: Record = postcard::from_bytes(&body).map_err(serde::de::Error::custom)?;
        Ok(Version { stale, by, ..Version::new(&record) })
    }
}

/// What identity is computed from: live versions, shared.
pub type Live = Arc<Version>;

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
pub enum Arrival {
    /// It was sighted.
    Sighted(Sighting),
    /// A complete listing of its source lacks it: it is as if it had never been said.
    Withdrawn,
}

/// An identifier that some record asserted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Known {
    /// Where.
    pub scope: Arc<Scope>,
    /// The identifier.
    pub id: Identifier,
    /// The uid it bears.
    pub uid: Arc<str>,
}

/// What happens to an identifier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Assertion {
    /// Some version, live or not, asserted it.
    Seen(Live),
    /// A live record began (+1) or ceased (-1) to assert it.
    Live(i64, Live),
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

/// Claims a record's runs are remembered for.
pub const MAX_CLAIMS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Claimed {
    at: Time,
    ip: IpAddr,
    run: u32,
}

#[derive(Clone)]
enum RecordOut {
    Version(Live, isize),
    Settled(Name, Name, isize),
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
            out.push(RecordOut::Assertion(id, Assertion::Live(diff as i64, version.clone())));
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
    /// Names of the addresses that it has claimed for long.
    fn settled(&self) -> impl Iterator<Item = Name> + '_ {
        let says = &self.version.says;
        let of = |ip: IpAddr| self.runs.iter().filter(|c| c.ip == ip).count();
        says.ips.iter().filter(move |a| !says.deleted && of(a.ip) >= SETTLED_RUNS).map(|a| a.name)
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
        let settled_before: Vec<Name> = state.iter().flat_map(RecordState::settled).collect();
        if events.is_empty() {
            // The timer: a sweep's time-to-live, a tombstone's retention, an agent's silence.
            if let Some(mut old) = state.take() {
                publish(&old.version, -1, out);
                if old.version.says.kind == SourceKind::Agent && !old.version.says.deleted {
                    old.version = (*old.version).clone().grown_stale().into();
                    publish(&old.version, 1, out);
                    *state = Some(old);
                } else {
                    out.extend(settled_before.into_iter().map(|ip| RecordOut::Settled(*key, ip, -1)));
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
                    let newer = if sighting.partial { !known } else { version.order() > old.version.order() };
                    let repeated = version.says.kind == SourceKind::Agent && says_the_same(&old.version, &version);
                    old.claim(&sighting);
                    let changed = newer && !repeated;
                    let revived = repeated && old.version.stale;
                    // What becomes live is seen by that; what is live already was seen when it did.
                    // Of what a partial source says only a part may.
                    let said = &sighting.version;
                    if !said.says.deleted && (sighting.partial || (!known && !changed)) {
                        let seen = |id| RecordOut::Assertion(id, Assertion::Seen(said.clone()));
                        out.extend(asserted(said).map(seen));
                    }
                    if changed || revived {
                        publish(&old.version, -1, out);
                        old.version =
                            if newer { version } else { Version { stale: false, ..(*old.version).clone() }.into() };
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
        let settled: Vec<Name> = state.iter().flat_map(RecordState::settled).collect();
        let gone = settled_before.iter().filter(|ip| !settled.contains(ip));
        out.extend(gone.map(|ip| RecordOut::Settled(*key, *ip, -1)));
        let new = settled.iter().filter(|ip| !settled_before.contains(ip));
        out.extend(new.map(|ip| RecordOut::Settled(*key, *ip, 1)));
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
        out.extend(state.settled().map(|ip| RecordOut::Settled(*key, ip, 1)));
    }
}

struct FirstSeen;

#[derive(Clone, Serialize, Deserialize)]
struct FirstSeenState {
    id: Arc<Known>,
    first: Time,
    live: i64,
    gone_ms: Option<i64>,
    last_record: Name,
}

/// What is known about an identifier beyond the records alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seen {
    /// Names the identifier.
    pub name: Name,
    /// First seen.
    pub first: Time,
    /// The identifier.
    pub id: Arc<Known>,
    /// The record that asserted it last, once no live one does.
    pub last_record: Option<Name>,
}

impl FirstSeenState {
    fn seen(&self, name: Name) -> Seen {
        let last_record = (self.live == 0).then_some(self.last_record);
        Seen { name, id: self.id.clone(), first: self.first, last_record }
    }
}

/// The identifier of that name, of those a version asserts.
fn known(version: &Version, name: Name) -> Known {
    let scope = &version.says.scope;
    let strong = version.ids().into_iter().find(|id| scope.id(id).name == name);
    let id = strong.or_else(|| version.says.global_macs().find(|m| m.name == name).map(|m| mac_identifier(m.value)));
    let id = id.expect("an assertion names what its version asserts");
    Known { scope: scope.clone(), uid: identifier_uid(&scope.partition, &id).into(), id }
}

impl Machine for FirstSeen {
    type Key = Name;
    type Event = Assertion;
    type State = FirstSeenState;
    type Output = (Seen, isize);
    const NAME: &'static str = "first_seen";

    fn step(
        &mut self,
        tick: &Tick,
        key: &Name,
        state: &mut Option<FirstSeenState>,
        events: Vec<Assertion>,
        out: &mut Vec<(Seen, isize)>,
    ) {
        let before = state.as_ref().map(|s| s.seen(*key));
        if state.as_ref().is_some_and(|s| self.due_ms(s).is_some_and(|due| due <= tick.live_ms)) {
            *state = None;
        }
        for event in events {
            let version = match &event {
                Assertion::Seen(version) | Assertion::Live(_, version) => version,
            };
            let s = state.get_or_insert_with(|| FirstSeenState {
                id: known(version, *key).into(),
                first: Time(i64::MAX),
                live: 0,
                gone_ms: Some(tick.live_ms),
                last_record: Name::default(),
            });
            match event {
                Assertion::Seen(version) => s.first = s.first.min(version.says.at),
                Assertion::Live(diff, version) => {
                    s.live += diff;
                    s.first = s.first.min(version.says.at);
                    // Of the records that leave at once the greatest counts, so that their order does not.
                    if diff < 0 {
                        let record = version.key;
                        s.last_record =
                            if s.gone_ms == Some(tick.live_ms) { s.last_record.max(record) } else { record };
                    }
                    s.gone_ms = (s.live <= 0).then_some(tick.live_ms);
                }
            }
        }
        let after = state.as_ref().map(|s| s.seen(*key));
        if before != after {
            out.extend(before.map(|b| (b, -1)));
            out.extend(after.map(|a| (a, 1)));
        }
    }

    fn due_ms(&self, state: &FirstSeenState) -> Option<i64> {
        state.gone_ms.map(|at| at + RETENTION_MS)
    }

    fn restored(&mut self, key: &Name, state: &FirstSeenState, out: &mut Vec<(Seen, isize)>) {
        out.push((state.seen(*key), 1));
    }
}

/// The live versions and what is known about identifiers, as streams of (row, epoch, change).
pub struct RecordStreams<'scope> {
    /// Live versions.
    pub versions: Stream<'scope, u64, Vec<(Live, u64, isize)>>,
    /// First-seen and last record of identifiers.
    pub seen: Stream<'scope, u64, Vec<(Seen, u64, isize)>>,
    /// Addresses that a record has claimed in enough distinct runs.
    pub settled: Stream<'scope, u64, Vec<((Name, Name), u64, isize)>>,
}

/// Builds the relation.
pub fn records<'scope>(
    arrivals: Stream<'scope, u64, Vec<Keyed<Name, Arrival>>>,
    cx: &Context,
) -> RecordStreams<'scope> {
    let out = machine(arrivals, cx, Records);
    let versions = stamped(out.clone(), |out| match out {
        RecordOut::Version(version, diff) => Some((version, diff)),
        _ => None,
    });
    let settled = stamped(out.clone(), |out| match out {
        RecordOut::Settled(record, ip, diff) => Some(((record, ip), diff)),
        _ => None,
    });
    let asserted = out.unary(Pipeline, "Assertions", |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let mut session = output.session(&time);
                for item in data.drain(..) {
                    if let RecordOut::Assertion(key, event) = item {
                        session.give(Keyed { key, position: 0, event });
                    }
                }
            });
        }
    });
    let seen = stamped(machine(asserted, cx, FirstSeen), Some);
    RecordStreams { versions, seen, settled }
}

/// Stamps what a machine said with its epoch, as an update of a collection.
pub fn stamped<'scope, O: Clone + 'static, D: Clone + 'static>(
    stream: Stream<'scope, u64, Vec<O>>,
    mut select: impl FnMut(O) -> Option<(D, isize)> + 'static,
) -> Stream<'scope, u64, Vec<(D, u64, isize)>> {
    stream.unary(Pipeline, "Stamp", move |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                let epoch = *time.least().expect("a machine's output has an epoch");
                let mut session = output.session(&time);
                for item in data.drain(..) {
                    if let Some((row, diff)) = select(item) {
                        session.give((row, epoch, diff));
                    }
                }
            });
        }
    })
}

/// The changes of a collection as a stream of events. A collection's batches are stamped with a time at or before
/// those of the updates in them; events are stamped with the epoch they happen at.
pub fn changes<'scope, D: Clone + 'static, O: Clone + 'static>(
    collection: crate::identity::Rel<'scope, D>,
    mut event: impl FnMut(D, isize) -> O + 'static,
) -> Stream<'scope, u64, Vec<O>> {
    collection.inner.unary(Pipeline, "Changes", move |_, _| {
        move |input, output| {
            input.for_each(|time, data| {
                data.sort_by_key(|(_, epoch, _)| *epoch);
                let mut updates = data.drain(..).peekable();
                while let Some((_, epoch, _)) = updates.peek() {
                    let epoch = *epoch;
                    let capability = time.delayed(&epoch, 0);
                    let mut session = output.session(&capability);
                    while let Some((row, _, diff)) = updates.next_if(|(_, e, _)| *e == epoch) {
                        session.give(event(row, diff));
                    }
                }
            });
        }
    })
}
