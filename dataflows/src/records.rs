//! Records: of each item the newest version, by (event time, deletion, hash), and nothing else about it.
//!
//! ```text
//! sightings ─► [record machine] ─► versions (Δ)
//!                     └─► assertions ─► [first-seen machine] ─► first seen (Δ), last record (Δ)
//! ```
//! A version that is not newer changes nothing but first-seen. A deletion is a version too: it is kept as a tombstone
//! for one retention, so that an older sighting that arrives late does not bring the item back. Sweeps leave when their
//! time-to-live ends. A heartbeat that says what is known already is no version.
//!
//! First-seen of an identifier is the smallest event time at which it was asserted since the last gap of one retention
//! in which no live record asserted it; it survives the records, so a name does not change when its oldest record goes.

use std::cmp::Ordering;
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::record::{Identifier, Record, SourceKind};
use radarflow_reconcile::identity;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::keyed::{Context, Keyed, Machine, Tick, encode, machine};

/// How long tombstones and forgotten identifiers are remembered, milliseconds: 30 days.
pub const RETENTION_MS: i64 = 30 * 86_400_000;
/// How long a swept address counts after its last sighting, milliseconds.
pub const SWEEP_TTL_MS: i64 = 86_400_000;

/// A stable 128-bit name: SHA-256, cut. Long enough that nobody finds two alike, short enough to join by.
pub type Name128 = u128;

/// The name of anything that encodes.
pub fn name128<T: Serialize>(value: &T) -> Name128 {
    let digest = Sha256::digest(encode(value));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    u128::from_be_bytes(bytes)
}

/// One version of a record, with its names. Compared by names: equal names are equal content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// Names the record.
    pub key: Name128,
    /// Names the content, event time included.
    pub hash: Name128,
    /// The content.
    pub record: Record,
}

impl Version {
    /// Of a record.
    pub fn new(record: Record) -> Self {
        Version { key: name128(&record.key), hash: name128(&record), record }
    }

    fn order(&self) -> (Time, bool, Name128) {
        (self.record.event_time, self.record.deleted, self.hash)
    }
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
        (self.key, self.hash).cmp(&(other.key, other.hash))
    }
}

/// What identity is computed from: live versions, shared.
pub type Live = Arc<Version>;

/// An identifier in its tenant and partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScopedId {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The identifier.
    pub id: Identifier,
}

/// What happens to an identifier.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Assertion {
    /// Some version, live or not, asserted it at this event time.
    Seen(Time),
    /// A live record began (+1) or ceased (-1) to assert it.
    Live(i64, Name128),
}

struct Records;

#[derive(Serialize, Deserialize)]
struct RecordState {
    version: Live,
    /// Live clock of the last sighting, milliseconds.
    sighted_ms: i64,
}

#[derive(Clone)]
enum RecordOut {
    Version(Live, isize),
    Assertion(ScopedId, Assertion),
}

fn assertions(version: &Live, make: impl Fn() -> Assertion, out: &mut Vec<RecordOut>) {
    let record = &version.record;
    for id in &record.ids {
        let scoped =
            ScopedId { tenant: record.key.tenant.clone(), partition: record.partition.clone(), id: id.clone() };
        out.push(RecordOut::Assertion(scoped, make()));
    }
}

fn publish(version: &Live, diff: isize, out: &mut Vec<RecordOut>) {
    if !version.record.deleted {
        assertions(version, || Assertion::Live(diff as i64, version.key), out);
        out.push(RecordOut::Version(version.clone(), diff));
    }
}

/// The same content, whenever it was said.
fn says_the_same(a: &Record, b: &Record) -> bool {
    let mut a = a.clone();
    a.event_time = b.event_time;
    a == *b
}

impl Machine for Records {
    type Key = Name128;
    type Event = Live;
    type State = RecordState;
    type Output = RecordOut;
    const NAME: &'static str = "records";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &Name128,
        state: &mut Option<RecordState>,
        events: Vec<Live>,
        out: &mut Vec<RecordOut>,
    ) {
        if events.is_empty() {
            // The timer: a sweep's time-to-live, or a tombstone's retention.
            if let Some(old) = state.take() {
                publish(&old.version, -1, out);
            }
            return;
        }
        for version in &events {
            if !version.record.deleted {
                let at = version.record.event_time;
                assertions(version, || Assertion::Seen(at), out);
            }
        }
        let newest = events.into_iter().max_by_key(|v| v.order()).expect("there are events");
        match state {
            Some(old) => {
                old.sighted_ms = tick.live_ms;
                let unchanged = old.version.record.key.kind == SourceKind::Agent
                    && says_the_same(&old.version.record, &newest.record);
                if newest.order() > old.version.order() && !unchanged {
                    publish(&old.version, -1, out);
                    publish(&newest, 1, out);
                    old.version = newest;
                }
            }
            None => {
                publish(&newest, 1, out);
                *state = Some(RecordState { version: newest, sighted_ms: tick.live_ms });
            }
        }
    }

    fn due_ms(&self, state: &RecordState) -> Option<i64> {
        if state.version.record.deleted {
            Some(state.sighted_ms + RETENTION_MS)
        } else {
            (state.version.record.key.kind == SourceKind::Sweep).then_some(state.sighted_ms + SWEEP_TTL_MS)
        }
    }

    fn restored(&mut self, _key: &Name128, state: &RecordState, out: &mut Vec<RecordOut>) {
        if !state.version.record.deleted {
            out.push(RecordOut::Version(state.version.clone(), 1));
        }
    }
}

struct FirstSeen;

#[derive(Clone, Serialize, Deserialize)]
struct FirstSeenState {
    first: Time,
    live: i64,
    gone_ms: Option<i64>,
    last_record: Name128,
}

/// What is known about an identifier beyond the records alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seen {
    /// The identifier.
    pub id: ScopedId,
    /// First seen.
    pub first: Time,
    /// The record that asserted it last, once no live one does.
    pub last_record: Option<Name128>,
}

impl FirstSeenState {
    fn seen(&self, id: &ScopedId) -> Seen {
        Seen { id: id.clone(), first: self.first, last_record: (self.live == 0).then_some(self.last_record) }
    }
}

impl Machine for FirstSeen {
    type Key = ScopedId;
    type Event = Assertion;
    type State = FirstSeenState;
    type Output = (Seen, isize);
    const NAME: &'static str = "first_seen";

    fn step(
        &mut self,
        tick: &Tick,
        key: &ScopedId,
        state: &mut Option<FirstSeenState>,
        events: Vec<Assertion>,
        out: &mut Vec<(Seen, isize)>,
    ) {
        let before = state.as_ref().map(|s| s.seen(key));
        if state.as_ref().is_some_and(|s| self.due_ms(s).is_some_and(|due| due <= tick.live_ms)) {
            *state = None;
        }
        for event in events {
            let at = match event {
                Assertion::Seen(at) => at,
                Assertion::Live(..) => Time(i64::MAX),
            };
            let s =
                state.get_or_insert(FirstSeenState { first: at, live: 0, gone_ms: Some(tick.live_ms), last_record: 0 });
            match event {
                Assertion::Seen(at) => s.first = s.first.min(at),
                Assertion::Live(diff, record) => {
                    s.live += diff;
                    // Of the records that leave at once the greatest counts, so that their order does not.
                    if diff < 0 {
                        s.last_record =
                            if s.gone_ms == Some(tick.live_ms) { s.last_record.max(record) } else { record };
                    }
                    s.gone_ms = (s.live <= 0).then_some(tick.live_ms);
                }
            }
        }
        let after = state.as_ref().map(|s| s.seen(key));
        if before != after {
            out.extend(before.map(|b| (b, -1)));
            out.extend(after.map(|a| (a, 1)));
        }
    }

    fn due_ms(&self, state: &FirstSeenState) -> Option<i64> {
        state.gone_ms.map(|at| at + RETENTION_MS)
    }

    fn restored(&mut self, key: &ScopedId, state: &FirstSeenState, out: &mut Vec<(Seen, isize)>) {
        out.push((state.seen(key), 1));
    }
}

/// The live versions and what is known about identifiers, as streams of (row, epoch, change).
pub struct RecordStreams<'scope> {
    /// Live versions.
    pub versions: Stream<'scope, u64, Vec<(Live, u64, isize)>>,
    /// First-seen and last record of identifiers.
    pub seen: Stream<'scope, u64, Vec<(Seen, u64, isize)>>,
}

/// Builds the relation.
pub fn records<'scope>(
    sightings: Stream<'scope, u64, Vec<Keyed<Name128, Live>>>,
    cx: &Context,
) -> RecordStreams<'scope> {
    let out = machine(sightings, cx, Records);
    let versions = stamped(out.clone(), |out| match out {
        RecordOut::Version(version, diff) => Some((version, diff)),
        RecordOut::Assertion(..) => None,
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
    RecordStreams { versions, seen }
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

/// The strong identifier a version belongs by, scoped.
pub fn top(version: &Version) -> Option<ScopedId> {
    let record = &version.record;
    identity::top(record).map(|id| ScopedId {
        tenant: record.key.tenant.clone(),
        partition: record.partition.clone(),
        id: id.clone(),
    })
}
