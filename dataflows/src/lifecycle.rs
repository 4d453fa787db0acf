//! The life of devices: steps that operators take, and deletions that sightings undo.
//!
//! ```text
//! steps (facts) ─► [what was said of each anchor] ─► standing (Δ) ─► identity: life by device
//! life, deleted ⋈ members ─► watched records (Δ) ┐
//! sightings ─────────────────────────────────────┴► [resighted: by anchor] (Δ) ─► life
//! life, deleted and not resighted ⋈ members ─► [reaper] ─► records to go
//! ```
//! What was watched does not depend on what was resighted, so there is no cycle. A record that the reaper names goes by
//! a fact, which comes back through the ledger.

use std::collections::BTreeMap;

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Anchor, DeviceStep};
use radarflow_proto::ports::Outcome;
use radarflow_proto::record::{RecordKey, SourceKind};
use radarflow_reconcile::identity::assertions::Scope;
use radarflow_reconcile::identity::name::name;
use radarflow_reconcile::lifecycle::Steps;
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::identity::Rel;
use crate::keyed::{Clock, Keyed, Machine, Tick, route};
use crate::records::{Arrival, Live, Name, RETENTION_MS};

/// A named record may stay this long before it is named again, milliseconds.
const AGAIN_MS: i64 = 3_600_000;

/// Names what a step is said of.
pub fn anchor(step: &DeviceStep) -> Name {
    match &step.anchor {
        Anchor::Identifier(id) => Scope::of(&step.tenant, &step.partition).id(id).name,
        Anchor::Record(key) => name(key),
    }
}

/// What was said of an anchor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Standing {
    /// Names it.
    pub anchor: Name,
    /// What was said.
    pub steps: Steps,
}

/// What the machine of steps says.
#[derive(Clone, Debug)]
pub enum StepOut {
    /// What is said of an anchor, or no longer.
    Standing(Standing, isize),
    /// What became of a command.
    Outcome(Outcome),
}

/// Remembers what operators said of devices.
pub struct Stepping;

impl Machine for Stepping {
    type Key = Name;
    type Event = (u64, DeviceStep);
    type State = Steps;
    type Output = StepOut;
    const NAME: &'static str = "device_steps";

    fn step(
        &mut self,
        tick: &Tick,
        key: &Name,
        state: &mut Option<Steps>,
        events: Vec<(u64, DeviceStep)>,
        out: &mut Vec<StepOut>,
    ) {
        let before = state.clone();
        let mut steps = before.clone().unwrap_or_default();
        for (position, step) in events {
            let taken = steps.take(&step, (tick.epoch, position), Time::from_ms(tick.clock_ms));
            let refused = taken.err().map(|refused| refused.to_string());
            out.push(StepOut::Outcome(Outcome { command_id: step.command_id, refused }));
        }
        if before.as_ref() != Some(&steps) && steps != Steps::default() {
            out.extend(before.map(|steps| StepOut::Standing(Standing { anchor: *key, steps }, -1)));
            out.push(StepOut::Standing(Standing { anchor: *key, steps: steps.clone() }, 1));
            *state = Some(steps);
        }
    }

    fn due_ms(&self, _: &Steps) -> Option<i64> {
        None
    }

    fn restored(&mut self, key: &Name, state: &Steps, out: &mut Vec<StepOut>) {
        out.push(StepOut::Standing(Standing { anchor: *key, steps: state.clone() }, 1));
    }
}

/// A record of a deleted device: by it, the deletion's anchor and epoch.
pub type Watched = (Name, (Name, u64));

/// Sightings of watched records, after the deletion, by its anchor; sweeps do not count.
pub fn resighted<'scope>(
    arrivals: Stream<'scope, u64, Vec<Keyed<Name, Arrival>>>,
    watched: Rel<'scope, Watched>,
) -> Stream<'scope, u64, Vec<Keyed<Name, u64>>> {
    let sightings = arrivals.unary(timely::dataflow::channels::pact::Pipeline, "Sighted", |_, _| {
        |input, output| {
            input.for_each(|time, data| {
                let sighted = data.drain(..).filter_map(|arrival| match arrival.event {
                    Arrival::Sighted(s) if s.version.says.kind != SourceKind::Sweep && !s.version.says.deleted => {
                        Some(arrival.key)
                    }
                    _ => None,
                });
                output.session(&time).give_iterator(sighted);
            });
        }
    });
    let by_record = Exchange::new(|record: &Name| route(record));
    let by_watched = Exchange::new(|((record, _), _, _): &(Watched, u64, isize)| route(record));
    sightings.binary_frontier(watched.inner, by_record, by_watched, "Resighted", |capability, _| {
        let mut capability = Some(capability);
        let mut watched: BTreeMap<Name, BTreeMap<(Name, u64), isize>> = BTreeMap::new();
        let mut sighted: BTreeMap<u64, Vec<Name>> = BTreeMap::new();
        let mut changes: BTreeMap<u64, Vec<(Watched, isize)>> = BTreeMap::new();
        move |(sightings, sighted_until), (watching, watched_until), output| {
            sightings.for_each(|time, data| {
                let epoch = *time.least().expect("sightings are stamped with an epoch");
                sighted.entry(epoch).or_default().append(data);
            });
            watching.for_each(|_, data| {
                for (row, epoch, diff) in data.drain(..) {
                    changes.entry(epoch).or_default().push((row, diff));
                }
            });
            let until = |frontier: &[u64]| frontier.first().copied().unwrap_or(u64::MAX);
            let upper = until(&sighted_until.frontier()).min(until(&watched_until.frontier()));
            let Some(held) = capability.as_mut() else { return };
            let complete: std::collections::BTreeSet<u64> =
                sighted.keys().chain(changes.keys()).copied().filter(|epoch| *epoch < upper).collect();
            for epoch in complete {
                for ((record, deletion), diff) in changes.remove(&epoch).unwrap_or_default() {
                    let of_record = watched.entry(record).or_default();
                    let count = of_record.entry(deletion).or_default();
                    *count += diff;
                    if *count == 0 {
                        of_record.remove(&deletion);
                    }
                    if of_record.is_empty() {
                        watched.remove(&record);
                    }
                }
                held.downgrade(&epoch);
                let mut session = output.session(held);
                for record in sighted.remove(&epoch).unwrap_or_default() {
                    for (anchor, deleted) in watched.get(&record).into_iter().flat_map(BTreeMap::keys) {
                        if epoch > *deleted {
                            session.give(Keyed { key: *anchor, position: 0, event: *deleted });
                        }
                    }
                }
            }
            if upper == u64::MAX {
                capability = None;
            } else {
                held.downgrade(&upper);
            }
        }
    })
}

/// Remembers the newest deletion of an anchor that a sighting undid.
pub struct Resighted;

impl Machine for Resighted {
    type Key = Name;
    type Event = u64;
    type State = u64;
    type Output = ((Name, u64), isize);
    const NAME: &'static str = "resighted";

    fn step(
        &mut self,
        _: &Tick,
        key: &Name,
        state: &mut Option<u64>,
        events: Vec<u64>,
        out: &mut Vec<((Name, u64), isize)>,
    ) {
        let newest = events.into_iter().max();
        if newest > *state {
            out.extend(state.map(|old| ((*key, old), -1)));
            *state = newest;
            out.extend(newest.map(|new| ((*key, new), 1)));
        }
    }

    fn due_ms(&self, _: &u64) -> Option<i64> {
        None
    }

    fn restored(&mut self, key: &Name, state: &u64, out: &mut Vec<((Name, u64), isize)>) {
        out.push(((*key, *state), 1));
    }
}

/// A record of a device that is deleted now, since when; or no longer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Doomed {
    /// The record.
    pub live: Live,
    /// When its device was deleted.
    pub since: Time,
}

/// Names the records of devices that have been deleted for one retention.
pub struct Reaper;

impl Machine for Reaper {
    type Key = Name;
    type Event = (Doomed, i64);
    type State = (Doomed, i64);
    type Output = (RecordKey, String);
    const NAME: &'static str = "reaper";
    const CLOCK: Clock = Clock::Wall;

    fn step(
        &mut self,
        tick: &Tick,
        _: &Name,
        state: &mut Option<(Doomed, i64)>,
        events: Vec<(Doomed, i64)>,
        out: &mut Vec<(RecordKey, String)>,
    ) {
        let mut net: BTreeMap<Doomed, i64> = BTreeMap::new();
        for (doomed, diff) in events {
            *net.entry(doomed).or_default() += diff;
        }
        for (doomed, diff) in &net {
            if *diff < 0 && state.as_ref().is_some_and(|(known, _)| known == doomed) {
                *state = None;
            }
        }
        if let Some((doomed, _)) = net.into_iter().rfind(|(_, diff)| *diff > 0) {
            let due = doomed.since.ms() + RETENTION_MS;
            *state = Some((doomed, due));
        }
        if let Some((doomed, due)) = state
            && *due <= tick.clock_ms
        {
            let record = doomed.live.record();
            out.push((record.key, record.partition));
            *due = tick.clock_ms + AGAIN_MS;
        }
    }

    fn due_ms(&self, (_, due): &(Doomed, i64)) -> Option<i64> {
        Some(*due)
    }

    fn restored(&mut self, _: &Name, _: &(Doomed, i64), _: &mut Vec<(RecordKey, String)>) {}
}
