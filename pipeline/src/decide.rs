//! What follows from what happened, as a pure function: [`Spine::happened`] takes an [`Event`] and tells the [`Action`]s.
//!
//! ```text
//! reached    ≤ durable            an epoch is complete after it is on disk
//! applied(c) ≤ reached            a consumer has committed what it was handed
//! usable(s)  ⇔ s ≤ applied(c) for every consumer c that keeps something
//! let go     ≤ the older of the two newest usable snapshots
//! ```
//! Nothing here waits, writes or reads a clock; who calls it does what it says and tells what came of it.
//!
//! A snapshot that could not be written is tried again, with what came meanwhile, after [`RETRY_MS`]. Intake is held back
//! for a consumer that is the record and has no room, and for nobody else.

use std::collections::BTreeMap;

/// How long a snapshot that failed is left alone, milliseconds.
pub const RETRY_MS: i64 = 10_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An epoch is complete and was handed to every consumer.
    Reached(u64),
    /// How a consumer is.
    Consumer {
        /// Which.
        name: &'static str,
        /// Up to which epoch it has nothing uncommitted.
        applied: u64,
        /// It is the record, and what waits for it has no more room.
        full: bool,
    },
    /// State of an epoch was handed in for a snapshot.
    StateHandedIn(u64),
    /// A snapshot is durable.
    SnapshotWritten(u64),
    /// All that was handed in was in a snapshot before.
    NothingToWrite,
    /// A snapshot could not be written.
    SnapshotFailed,
    /// Old snapshots are gone; frames at or before this epoch are not needed.
    Retired(Option<u64>),
    /// So late it is, by the monotonic clock.
    Time(i64),
    /// The ledger is closed: its last epoch. What it has is to be finished.
    Closed(u64),
    /// Every consumer was told to finish, and has, or could not in time.
    Finished,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a snapshot of all that was handed in.
    WriteSnapshot,
    /// Take snapshots up to this epoch for usable, and let older ones go.
    Retire(u64),
    /// Let frames at or before this epoch go.
    TrimLedger(u64),
    /// Take in nothing but facts: this consumer has no room.
    PauseIntake(&'static str),
    /// Take in everything again.
    ResumeIntake(&'static str),
    /// Tell that snapshots fail, or that they no longer do.
    SnapshotsFail(bool),
    /// Have every consumer commit what it has.
    Finish,
    /// All is done that can be done.
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Consumer {
    applied: u64,
    full: bool,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Ending {
    #[default]
    No,
    /// The last epoch is not complete.
    Closed(u64),
    /// Consumers are finishing.
    Finishing,
    /// The last snapshot is not written, or old ones are not let go.
    Finished,
    Ended,
}

/// What is known of the way of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spine {
    reached: u64,
    consumers: BTreeMap<&'static str, Consumer>,
    /// State was handed in that no snapshot has.
    handed_in: bool,
    writing: bool,
    failing: bool,
    /// When a snapshot that failed is tried again.
    retry_ms: Option<i64>,
    now_ms: i64,
    /// Durable snapshots that somebody has not everything of yet, oldest first.
    written: Vec<u64>,
    retiring: bool,
    ending: Ending,
}

impl Spine {
    /// Begins at an epoch, with consumers that keep something.
    pub fn new(start: u64, consumers: impl IntoIterator<Item = &'static str>) -> Spine {
        let consumers = consumers.into_iter().map(|name| (name, Consumer::default())).collect();
        Spine { reached: start, consumers, ..Spine::default() }
    }

    /// The newest epoch that is complete and handed to every consumer.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// The newest epoch at or before which nobody has anything uncommitted.
    pub fn applied(&self) -> u64 {
        let applied = self.consumers.values().map(|c| c.applied).min();
        applied.unwrap_or(self.reached).min(self.reached)
    }

    /// Takes in what happened; tells what is to be done, in order.
    pub fn happened(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Reached(epoch) => self.reached = self.reached.max(epoch),
            Event::Consumer { name, applied, full } => {
                let Some(consumer) = self.consumers.get_mut(name) else { return actions };
                consumer.applied = consumer.applied.max(applied);
                if std::mem::replace(&mut consumer.full, full) != full {
                    actions.push(if full { Action::PauseIntake(name) } else { Action::ResumeIntake(name) });
                }
            }
            Event::StateHandedIn(_) => self.handed_in = true,
            Event::SnapshotWritten(epoch) => {
                self.writing = false;
                self.written.push(epoch);
                if std::mem::take(&mut self.failing) {
                    actions.push(Action::SnapshotsFail(false));
                }
            }
            Event::NothingToWrite => self.writing = false,
            Event::SnapshotFailed => {
                self.writing = false;
                self.handed_in = true;
                self.retry_ms = Some(self.now_ms + RETRY_MS);
                if !std::mem::replace(&mut self.failing, true) {
                    actions.push(Action::SnapshotsFail(true));
                }
            }
            Event::Retired(oldest) => {
                self.retiring = false;
                actions.extend(oldest.map(Action::TrimLedger));
            }
            Event::Time(now_ms) => {
                self.now_ms = self.now_ms.max(now_ms);
                if self.retry_ms.is_some_and(|at| at <= self.now_ms) {
                    self.retry_ms = None;
                }
            }
            Event::Closed(last) => {
                if self.ending == Ending::No {
                    self.ending = Ending::Closed(last);
                }
            }
            Event::Finished => {
                if self.ending == Ending::Finishing {
                    self.ending = Ending::Finished;
                }
            }
        }
        self.follow(&mut actions);
        actions
    }

    /// What is to be done next, whatever happened last.
    fn follow(&mut self, actions: &mut Vec<Action>) {
        if self.ending == Ending::Ended {
            return;
        }
        if self.handed_in && !self.writing && self.retry_ms.is_none() {
            (self.handed_in, self.writing) = (false, true);
            actions.push(Action::WriteSnapshot);
        }
        if let Ending::Closed(last) = self.ending
            && self.reached >= last
        {
            self.ending = Ending::Finishing;
            actions.push(Action::Finish);
        }
        let applied = self.applied();
        if !self.retiring && self.written.first().is_some_and(|first| *first <= applied) {
            self.retiring = true;
            self.written.retain(|epoch| *epoch > applied);
            actions.push(Action::Retire(applied));
        }
        // At the end a snapshot that fails is not waited for: the ledger has what it lacks.
        if self.ending == Ending::Finished && !self.writing && !self.retiring {
            self.ending = Ending::Ended;
            actions.push(Action::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A small world that does what it is told, in every order, failing where it may.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct World {
        spine: Spine,
        durable: u64,
        complete: u64,
        applied: [u64; 2],
        full: bool,
        paused: bool,
        /// Epochs of state that was handed in and is in no snapshot.
        handed_in: Vec<u64>,
        /// The snapshot being written: up to which epoch.
        writing: Option<u64>,
        snapshots: Vec<u64>,
        retiring: Option<u64>,
        trimmed: u64,
        closed: bool,
        finishing: bool,
        ended: bool,
        failures: u8,
        late: u8,
    }

    const NAMES: [&str; 2] = ["lake", "postgres"];
    const EPOCHS: u64 = 3;

    impl World {
        fn new() -> World {
            World {
                spine: Spine::new(0, NAMES),
                durable: 0,
                complete: 0,
                applied: [0, 0],
                full: false,
                paused: false,
                handed_in: Vec::new(),
                writing: None,
                snapshots: Vec::new(),
                retiring: None,
                trimmed: 0,
                closed: false,
                finishing: false,
                ended: false,
                failures: 0,
                late: 0,
            }
        }

        fn tell(&mut self, event: Event) {
            for action in self.spine.happened(event) {
                assert!(!self.ended, "nothing is asked after the end");
                match action {
                    Action::WriteSnapshot => {
                        assert_eq!(self.writing, None, "one at a time");
                        self.writing = self.handed_in.iter().max().copied();
                        assert!(self.writing.is_some(), "there is something to write");
                    }
                    Action::Retire(applied) => {
                        assert_eq!(self.retiring.replace(applied), None, "one at a time");
                        assert!(applied <= self.applied[0] && applied <= self.applied[1]);
                    }
                    Action::TrimLedger(epoch) => {
                        // What a start needs is there: a snapshot that everybody has, and all frames after it.
                        assert!(self.snapshots.contains(&epoch), "frames go only where a snapshot stands for them");
                        assert!(epoch <= self.applied[0] && epoch <= self.applied[1]);
                        self.trimmed = self.trimmed.max(epoch);
                    }
                    Action::PauseIntake(_) => assert!(!std::mem::replace(&mut self.paused, true)),
                    Action::ResumeIntake(_) => assert!(std::mem::replace(&mut self.paused, false)),
                    Action::SnapshotsFail(_) => {}
                    Action::Finish => {
                        assert!(self.closed && self.complete == self.durable);
                        self.finishing = true;
                    }
                    Action::End => {
                        assert!(self.closed && self.complete == self.durable);
                        assert!(self.writing.is_none() && self.retiring.is_none());
                        self.ended = true;
                    }
                }
            }
        }

        /// Everything that may happen next.
        fn next(&self) -> Vec<World> {
            let mut all = Vec::new();
            let mut may = |happens: &dyn Fn(&mut World)| {
                let mut world = self.clone();
                happens(&mut world);
                all.push(world);
            };
            if self.ended {
                return all;
            }
            if !self.closed && !self.paused && self.durable < EPOCHS {
                may(&|w| w.durable += 1);
            }
            if self.complete < self.durable {
                may(&|w| {
                    w.complete += 1;
                    // Every epoch asks for state here.
                    w.handed_in.push(w.complete);
                    w.tell(Event::Reached(w.complete));
                    w.tell(Event::StateHandedIn(w.complete));
                });
            }
            for (i, name) in NAMES.into_iter().enumerate() {
                if self.applied[i] < self.complete {
                    may(&|w| {
                        w.applied[i] += 1;
                        let full = i == 0 && w.full;
                        w.tell(Event::Consumer { name, applied: w.applied[i], full });
                    });
                }
            }
            if self.full || self.complete > self.applied[0] {
                may(&|w| {
                    w.full = !w.full;
                    w.tell(Event::Consumer { name: "lake", applied: w.applied[0], full: w.full });
                });
            }
            if let Some(epoch) = self.writing {
                may(&|w| {
                    w.writing = None;
                    w.handed_in.retain(|at| *at > epoch);
                    w.snapshots.push(epoch);
                    w.tell(Event::SnapshotWritten(epoch));
                });
                if self.failures < 2 {
                    may(&|w| {
                        w.writing = None;
                        w.failures += 1;
                        w.tell(Event::SnapshotFailed);
                    });
                }
            }
            if let Some(applied) = self.retiring {
                may(&|w| {
                    w.retiring = None;
                    let newest = w.snapshots.iter().rposition(|s| *s <= applied);
                    if let Some(newest) = newest {
                        w.snapshots.drain(..newest.saturating_sub(1));
                    }
                    let oldest = newest.and(w.snapshots.first().copied());
                    w.tell(Event::Retired(oldest));
                });
            }
            if self.late < self.failures {
                may(&|w| {
                    w.late += 1;
                    w.tell(Event::Time(RETRY_MS * i64::from(w.late) * 2));
                });
            }
            if !self.closed {
                may(&|w| {
                    w.closed = true;
                    w.tell(Event::Closed(w.durable));
                });
            }
            if self.finishing {
                may(&|w| {
                    w.finishing = false;
                    w.tell(Event::Finished);
                });
            }
            all
        }
    }

    #[test]
    fn whatever_the_order_nothing_needed_goes_and_the_end_is_reached() {
        let mut seen = BTreeSet::from([World::new()]);
        let mut open: Vec<World> = seen.iter().cloned().collect();
        let mut ends = 0;
        while let Some(world) = open.pop() {
            let next = world.next();
            if next.is_empty() {
                assert!(world.ended, "it is stuck: {world:?}");
                ends += 1;
                let all = world.applied.iter().all(|a| *a == world.complete);
                let whole = world.handed_in.is_empty() && world.snapshots.last() == Some(&world.complete);
                if all && whole && world.complete > 0 {
                    assert!(world.trimmed > 0 || world.snapshots.len() > 1, "a usable snapshot lets the ledger go");
                }
            }
            for world in next {
                if seen.insert(world.clone()) {
                    open.push(world);
                }
            }
        }
        assert!(ends > 100 && seen.len() > 5_000, "{ends} ends, {} states", seen.len());
    }

    #[test]
    fn a_snapshot_that_failed_is_tried_again_after_a_while_and_told_of_once() {
        let mut spine = Spine::new(0, ["lake"]);
        assert_eq!(spine.happened(Event::StateHandedIn(1)), [Action::WriteSnapshot]);
        assert_eq!(spine.happened(Event::SnapshotFailed), [Action::SnapshotsFail(true)]);
        assert_eq!(spine.happened(Event::StateHandedIn(2)), []);
        assert_eq!(spine.happened(Event::Time(RETRY_MS - 1)), []);
        assert_eq!(spine.happened(Event::Time(RETRY_MS)), [Action::WriteSnapshot]);
        assert_eq!(spine.happened(Event::SnapshotFailed), []);
        assert_eq!(spine.happened(Event::Time(2 * RETRY_MS)), [Action::WriteSnapshot]);
        assert_eq!(spine.happened(Event::SnapshotWritten(2)), [Action::SnapshotsFail(false)]);
    }
}
