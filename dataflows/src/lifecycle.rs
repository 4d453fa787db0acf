//! Deletions of devices: sightings undo them; what nobody sights goes after one retention.
//!
//! ```text
//! life, deleted ⋈ members ─► watched records (Δ) ┐
//! sightings ─────────────────────────────────────┴► [resighted: by anchor] (Δ) ─► life
//! life, deleted and not resighted ⋈ members ─► [reaper] ─► records to go
//! ```
//! What was watched does not depend on what was resighted, so there is no cycle. A record that the reaper names goes by
//! a fact, which comes back through the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::record::{RecordKey, SourceKind};
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::lifecycle::Life;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, changes, collected};
use crate::identity::{Component, Doomed, Lives, Watched};
use crate::keyed::{Clock, Context, Keyed, Machine, Tick, machine, route};
use crate::records::{RETENTION_MS, Sighting};

/// A named record may stay this long before it is named again, milliseconds.
const AGAIN_MS: i64 = 3_600_000;

/// What ends and undoes deletions.
pub struct Inputs<'scope> {
    /// Sightings, by record.
    pub sightings: Events<'scope, Keyed<Name, Sighting>>,
    /// What operators said of devices.
    pub lives: Lives<'scope>,
}

/// What comes of them.
pub struct Outputs<'scope> {
    /// What becomes of devices.
    pub lives: Rel<'scope, (Component, Arc<Life>)>,
    /// Records to go, and the site of each.
    pub reaped: Events<'scope, (RecordKey, String)>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let resighted = machine(resighted(inputs.sightings, inputs.lives.watched()), cx, Resighted);
    let lived = inputs.lives.lived(collected(resighted, Some));
    let doomed =
        changes(lived.doomed, |doomed, diff| Keyed { key: doomed.live.key, position: 0, event: (doomed, diff as i64) });
    Outputs { lives: lived.lives, reaped: machine(doomed, cx, Reaper) }
}

/// Sightings of watched records, after the deletion, by its anchor; sweeps do not count.
fn resighted<'scope>(
    sightings: Events<'scope, Keyed<Name, Sighting>>,
    watched: Rel<'scope, Watched>,
) -> Events<'scope, Keyed<Name, u64>> {
    let sightings = sightings.flat_map(|Keyed { key, event, .. }| {
        let says = &event.version.says;
        (says.kind != SourceKind::Sweep && !says.deleted).then_some(key)
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
            let complete: BTreeSet<u64> =
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
struct Resighted;

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

/// Names the records of devices that have been deleted for one retention.
struct Reaper;

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
