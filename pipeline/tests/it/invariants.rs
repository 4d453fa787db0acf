//! What must hold at every step, whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use radarflow_connectors::ledger::clock::{MAX_GAP_MS, MAX_STEP_MS, SLEW};
use radarflow_connectors::sinks::webhook::{ALL_BYTES, RECEIVER_BYTES};
use radarflow_dataflows::keyed::StateEntry;
use radarflow_proto::clock::Clock;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Frame, Kind};
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{StateRow, Table};

use crate::clock::SimClock;
use crate::hostile::{self, Said};
use crate::inputs::{RECEIVERS, WELL};
use crate::models::receivers;
use crate::process::{Outer, Process, QUEUE_BYTES, STAGED_BYTES};
use crate::truth::{Truth, row_ids};

/// Whoever is well and is not attacked has a message after so long, milliseconds.
const TOLD_WITHIN_MS: i64 = 1000;
/// What an exporter may leave behind beside twice what it sent, bytes.
const LEFT_BEHIND: u64 = 128 << 10;

/// Sees what one process does.
pub struct Judge {
    truth: Arc<Mutex<Truth>>,
    clock: Arc<SimClock>,
    receivers: receivers::Model,
    /// The epoch of the state that it began with, which it says again, and the last of the log that it reads again.
    start: u64,
    last: u64,
    /// The true time of its last frame.
    before: Mutex<Option<i64>>,
    /// The wall was behind when it began: setting it right is followed.
    wall_was_behind: bool,
    /// Messages to the receiver that is always well, and since when they are due.
    waited_for: Mutex<BTreeMap<String, i64>>,
}

impl Judge {
    pub fn new(outer: &Outer, start: u64, last: u64) -> Judge {
        let Outer { truth, clock, receivers, .. } = outer.clone();
        let newest_ms = truth.lock().unwrap().frames.values().next_back().map_or(0, |frame| frame.clock_ms);
        let wall_was_behind = clock.wall_ms() < newest_ms - MAX_STEP_MS;
        let (before, waited_for) = (Mutex::default(), Mutex::default());
        Judge { truth, clock, receivers, start, last, before, wall_was_behind, waited_for }
    }

    /// A frame is durable.
    pub fn frame(&self, frame: &Arc<Frame>) {
        let epoch = frame.epoch;
        let mut truth = self.truth.lock().unwrap();
        if let Some(known) = truth.frames.get(&epoch) {
            assert_eq!(known, frame, "epoch {epoch} is not what it was");
            return;
        }
        let before = truth.frames.last_key_value().map(|(epoch, frame)| (*epoch, frame.clock_ms));
        assert!(before.is_none_or(|(e, ms)| e + 1 == epoch && ms <= frame.clock_ms), "{epoch} after {before:?}");
        self.time(before.map(|(_, ms)| ms), frame);
        truth.note(frame);
    }

    /// The clock of frames goes no faster than time, whatever somebody sets the wall to. How long a process was down the
    /// wall may say, within a bound.
    fn time(&self, last_ms: Option<i64>, frame: &Frame) {
        let true_ms = self.clock.true_ms();
        // One that the process before wrote, and was not told so.
        if frame.epoch <= self.last {
            return;
        }
        let before = self.before.lock().unwrap().replace(true_ms);
        let Some(last_ms) = last_ms else { return };
        let most = match before {
            Some(then_ms) => {
                let passed = true_ms - then_ms;
                passed + passed / SLEW + 1 + if self.wall_was_behind { MAX_GAP_MS } else { 0 }
            }
            None => true_ms + true_ms / SLEW + MAX_GAP_MS,
        };
        let advanced = frame.clock_ms - last_ms;
        assert!(advanced <= most, "the clock went {advanced} ms, of {most}, at epoch {}", frame.epoch);
    }

    /// State is handed in for a snapshot.
    pub fn state(&self, entries: &[StateEntry]) {
        let most = LEFT_BEHIND + 2 * self.truth.lock().unwrap().most_sent();
        for entry in entries.iter().filter(|entry| entry.collection == "exporters") {
            let bytes = entry.value.as_ref().map_or(0, Vec::len) as u64;
            assert!(bytes <= most, "an exporter left {bytes} bytes behind, of {most} at most");
        }
    }

    /// An epoch is complete.
    pub fn epoch(&self, output: &Arc<EpochOutput>) {
        let mut truth = self.truth.lock().unwrap();
        for change in output.changes.iter().filter(|change| change.table == Table::Source) {
            if let Some(StateRow::Source(source)) = &change.after {
                let ends = source.stored + source.rejected + source.shed;
                assert_eq!(source.received, ends, "the ledger of {}/{}", source.source, source.exporter);
            }
        }
        if let Some(expected) = truth.expected.get(&output.epoch).filter(|_| output.epoch > self.start) {
            let has: BTreeSet<i128> = row_ids(output).map(|(_, id)| id).collect();
            for (friend, id) in expected {
                assert!(has.contains(id), "flow {id} of exporter {friend} is not there at epoch {}", output.epoch);
            }
        }
        truth.events.entry(output.epoch).or_insert_with(|| output.events.clone());
        let now_ms = self.clock.true_ms();
        for due in &output.due {
            truth.due.insert(due.id.clone(), due.receiver.url.clone());
            if due.receiver.url == WELL {
                self.waited_for.lock().unwrap().insert(due.id.clone(), now_ms);
            }
        }
        for id in &output.settled {
            self.waited_for.lock().unwrap().remove(id);
        }
    }

    /// The log has been read again.
    pub fn replayed(&self, last: u64) {
        let known = self.truth.lock().unwrap().frames.last_key_value().map_or(self.last, |(epoch, _)| *epoch);
        assert_eq!(last, known, "the log ends where it ended");
        let now_ms = self.clock.true_ms();
        self.waited_for.lock().unwrap().values_mut().for_each(|since| *since = now_ms);
    }

    /// Time has passed.
    pub fn passed(&self) {
        let now_ms = self.clock.true_ms();
        let mut waited_for = self.waited_for.lock().unwrap();
        waited_for.retain(|id, since_ms| {
            let has = self.receivers.has(id);
            let late = now_ms - *since_ms;
            assert!(has || late <= TOLD_WITHIN_MS, "{id} is due for {late} ms, and its receiver is well");
            !has
        });
    }
}

impl Truth {
    /// What a new frame makes true.
    fn note(&mut self, frame: &Arc<Frame>) {
        let epoch = frame.epoch;
        for slice in &frame.slices {
            for (position, entry) in (slice.first_position..).zip(&slice.entries) {
                match slice.origin.kind {
                    Kind::NetFlow => {
                        if let Some(peer) = entry.peer {
                            *self.sent.entry(peer.ip()).or_default() += entry.body.len() as u64;
                        }
                        match hostile::friend(&slice.origin.tenant, entry.peer, &entry.body) {
                            Some((friend, Said::Template)) => drop(self.told.insert(friend)),
                            // Who was understood before is understood at once.
                            Some((friend, Said::Flows(flows))) if self.told.contains(&friend) => {
                                let names = hostile::names(epoch, position, flows).map(|id| (friend, id));
                                self.expected.entry(epoch).or_default().extend(names);
                            }
                            _ => {}
                        }
                    }
                    Kind::Fact => {
                        if let Ok(Fact::Delivery { notification_id, delivered, .. }) =
                            serde_json::from_slice(&entry.body)
                        {
                            self.settled.insert(notification_id, delivered);
                        }
                    }
                    _ => {}
                }
            }
        }
        self.frames.insert(epoch, frame.clone());
    }

    /// Bytes that the one who sent most has sent.
    fn most_sent(&self) -> u64 {
        self.sent.values().copied().max().unwrap_or(0)
    }
}

/// What is kept is bounded, each by its name.
pub fn memory(process: &Process) {
    let stats = process.intake().stats();
    let (queued, awaited) = (stats.queued_bytes.load(Ordering::Relaxed), stats.awaited_bytes.load(Ordering::Relaxed));
    assert!(queued <= QUEUE_BYTES && awaited <= QUEUE_BYTES, "{queued} and {awaited} bytes wait for the ledger");
    let staged = process.staged_in_memory();
    assert!(process.uploads_stay || staged <= STAGED_BYTES, "{staged} bytes of uploads are in memory");
    let postgres = process.postgres.waiting().load(Ordering::Relaxed);
    assert!(postgres <= process.postgres_bytes, "{postgres} bytes wait for Postgres");
    let outbox = process.outbox.waiting_bytes();
    assert!(outbox <= ALL_BYTES.min(RECEIVERS.len() * RECEIVER_BYTES), "{outbox} bytes wait for receivers");
    for follower in &process.followers[1..] {
        assert!(follower.waiting() <= 10, "{} epochs wait for a follower", follower.waiting());
    }
}
