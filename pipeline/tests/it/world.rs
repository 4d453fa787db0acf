//! The spine in one thread, on a simulated disk: real intake, ledger, workers, collector, snapshots and decisions; senders,
//! faults, crashes and power failures from one seed.
//!
//! ```sh
//! cargo test --workspace --test it simulate                     # seeds that differ from day to day do not help: 0, 1, 2, …
//! RADARFLOW_SEED=17 RADARFLOW_SEEDS=1 cargo test …              # one of them
//! RADARFLOW_SEEDS=100000 cargo test --release …                 # many
//! ```
//! What must hold, at every step and at the end:
//! - an input that was acknowledged is in the ledger from then on, once;
//! - a start finds a snapshot and all frames after it, whatever happened before;
//! - the tables are those that an undisturbed run of the same frames makes, and so are the rows that the lake has, each
//!   once under its `row_id`;
//! - the clock of frames never goes back;
//! - what was let go was needed by nobody, and what nobody needs is let go.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use radarflow_connectors::ledger::clock::Timekeeping;
use radarflow_connectors::ledger::intake::{self, Bounds, Intake, Progress, Stepped};
use radarflow_connectors::ledger::{self, LedgerError};
use radarflow_dataflows::decode::runs::Staging;
use radarflow_dataflows::output::{Merge, WorkerEpoch};
use radarflow_dataflows::upgrade;
use radarflow_dataflows::worker::{Start, Workers};
use radarflow_pipeline::collector::Collector;
use radarflow_pipeline::consumers::Consumer;
use radarflow_pipeline::decide::{Action, Event, Spine};
use radarflow_pipeline::snapshots::{HandedIn, Writer};
use radarflow_proto::clock::Clock;
use radarflow_proto::disk::Disk;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Entry, Frame, Kind, Origin};
use radarflow_proto::ports::{AppendError, Appender, EpochOutput};
use radarflow_proto::rows::{StateRow, Table};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;

use crate::disk::SimDisk;
use crate::inputs::{self, Input};

const ROOT: &str = "/data";

/// What became true, and must stay so, whatever process says it.
#[derive(Default)]
struct Truth {
    /// Frames that were handed to the workers.
    frames: BTreeMap<u64, Arc<Frame>>,
    /// Rows that the lake has, and the epoch of its newest commit.
    lake: BTreeMap<(Table, i128), u64>,
    committed: u64,
}

/// The clocks of a machine that somebody sets, and that reboots.
#[derive(Default)]
struct SimClock(Mutex<(i64, i64, u64)>);

impl SimClock {
    fn pass(&self, ms: i64) {
        let mut clock = self.0.lock().unwrap();
        clock.0 += ms;
        clock.1 += ms;
    }

    /// Somebody sets the wall.
    fn step(&self, ms: i64) {
        self.0.lock().unwrap().0 += ms;
    }

    fn down(&self, ms: i64, reboot: bool) {
        self.pass(ms);
        if reboot {
            let mut clock = self.0.lock().unwrap();
            (clock.1, clock.2) = (0, clock.2 + 1);
        }
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> i64 {
        1_704_067_200_000 + self.0.lock().unwrap().0
    }

    fn monotonic_ms(&self) -> i64 {
        self.0.lock().unwrap().1
    }

    fn boot_id(&self) -> Option<String> {
        Some(self.0.lock().unwrap().2.to_string())
    }
}

/// State tables, as outputs make them.
type Tables = BTreeMap<(Table, String), StateRow>;

fn apply(tables: &mut Tables, output: &EpochOutput) {
    for change in &output.changes {
        let key = (change.table, change.key.to_string());
        match &change.after {
            Some(after) => tables.insert(key, after.clone().at(0)),
            None => tables.remove(&key),
        };
    }
}

fn row_ids(output: &EpochOutput) -> impl Iterator<Item = (Table, i128)> + '_ {
    output.events.iter().flat_map(|(table, batch)| {
        let ids = batch.column_by_name("row_id").expect("every event has one");
        let ids = ids.as_primitive::<Decimal128Type>().clone();
        (0..batch.num_rows()).map(move |row| (*table, ids.value(row)))
    })
}

/// The live tables: what a process says.
#[derive(Default)]
struct Live(Mutex<Tables>);

impl Consumer for Live {
    fn name(&self) -> &'static str {
        "live"
    }

    fn take(&self, output: &Arc<EpochOutput>) {
        apply(&mut self.0.lock().unwrap(), output);
    }
}

/// The lake: rows wait, and are committed with the epoch of the newest; what was committed before is dropped.
struct Lake {
    truth: Arc<Mutex<Truth>>,
    waiting: Mutex<Vec<Arc<EpochOutput>>>,
    applied: AtomicU64,
    newest: AtomicU64,
    bound: usize,
}

impl Consumer for Lake {
    fn name(&self) -> &'static str {
        "lake"
    }

    fn take(&self, output: &Arc<EpochOutput>) {
        self.newest.store(output.epoch, Ordering::Relaxed);
        if output.epoch > self.truth.lock().unwrap().committed {
            self.waiting.lock().unwrap().push(output.clone());
        }
        self.report();
    }

    fn applied(&self) -> Option<u64> {
        Some(self.applied.load(Ordering::Relaxed))
    }

    fn is_full(&self) -> bool {
        self.waiting.lock().unwrap().len() >= self.bound
    }
}

impl Lake {
    fn report(&self) {
        let first = self.waiting.lock().unwrap().first().map(|o| o.epoch - 1);
        self.applied.fetch_max(first.unwrap_or(self.newest.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    fn commit(&self, epochs: usize) {
        let mut truth = self.truth.lock().unwrap();
        let mut waiting = self.waiting.lock().unwrap();
        let taken = epochs.min(waiting.len());
        for output in waiting.drain(..taken).collect::<Vec<_>>() {
            for id in row_ids(&output) {
                let before = truth.lake.insert(id, output.epoch);
                assert_eq!(before, None, "row {id:?} is there twice: of epochs {before:?} and {}", output.epoch);
            }
            truth.committed = output.epoch;
        }
        drop((truth, waiting));
        self.report();
    }
}

/// An append that waits for its answer.
struct Appending {
    input: Input,
    answer: Pin<Box<dyn Future<Output = Result<u64, AppendError>> + Send>>,
}

fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T> + Send>>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// One process, from its start to its end or crash.
struct Process {
    intake: Intake,
    stepped: Stepped,
    workers: Arc<Mutex<Option<Workers>>>,
    happened: Arc<Mutex<Vec<Event>>>,
    live: Arc<Live>,
    lake: Arc<Lake>,
    handed_in: Arc<HandedIn>,
    writer: Writer,
    spine: Spine,
    trim: Arc<AtomicU64>,
    /// What the spine asked for and was not done yet.
    due: Vec<Action>,
    appending: Vec<Appending>,
    now_ms: i64,
}

/// Frames to the workers, and all that follows until the epoch is with the consumers.
struct Deliver {
    workers: Arc<Mutex<Option<Workers>>>,
    outputs: std::sync::mpsc::Receiver<WorkerEpoch>,
    collector: Collector,
    happened: Arc<Mutex<Vec<Event>>>,
    truth: Arc<Mutex<Truth>>,
}

impl Deliver {
    fn frame(&mut self, frame: &Arc<Frame>) {
        let epoch = frame.epoch;
        {
            let mut truth = self.truth.lock().unwrap();
            match truth.frames.get(&epoch) {
                Some(known) => assert_eq!(known, frame, "epoch {epoch} is not what it was"),
                None => {
                    let before = truth.frames.last_key_value();
                    assert!(before.is_none_or(|(e, f)| *e + 1 == epoch && f.clock_ms <= frame.clock_ms));
                    truth.frames.insert(epoch, frame.clone());
                }
            }
        }
        self.workers.lock().unwrap().as_ref().expect("they run").feed(frame);
        self.collect(epoch);
    }

    fn collect(&mut self, through: u64) {
        loop {
            let events = self.collector.take(self.outputs.recv().expect("the workers run"));
            let reached = events.iter().any(|e| matches!(e, Event::Reached(epoch) if *epoch >= through));
            self.happened.lock().unwrap().extend(events);
            if reached {
                return;
            }
        }
    }
}

impl Process {
    fn start(
        disk: &SimDisk,
        clock: &Arc<SimClock>,
        truth: &Arc<Mutex<Truth>>,
        rng: &mut StdRng,
    ) -> Result<Process, LedgerError> {
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let ledger::Opened { segments, snapshots, start } =
            ledger::open(&handle, Path::new(ROOT), &upgrade::versions())?;
        // Small ones: they are begun, and go, often.
        let segments = segments.closing_at(rng.random_range(500..5000));
        let staging = Staging { memory_bytes: 1 << 20, folder: None };
        let begin = match start {
            Some((manifest, state)) => Start { epoch: manifest.epoch, gap_ms: manifest.gap_ms, state, staging },
            None => Start { staging, ..Start::default() },
        };
        let start = begin.epoch;
        let workers = rng.random_range(1..3);
        let live = Arc::new(Live::default());
        let lake = Arc::new(Lake {
            truth: truth.clone(),
            waiting: Mutex::default(),
            applied: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            bound: rng.random_range(3..12),
        });
        let handed_in = Arc::new(HandedIn::default());
        let merge = Merge::new(workers, &begin.state);
        let (workers, outputs) = Workers::start(workers, begin);
        let workers = Arc::new(Mutex::new(Some(workers)));
        let happened = Arc::new(Mutex::new(Vec::new()));
        let consumers: Vec<Arc<dyn Consumer>> = vec![live.clone(), lake.clone()];
        let last = segments.next_epoch() - 1;
        let collector = Collector::new(merge, consumers.into(), handed_in.clone(), last);
        let mut deliver =
            Deliver { workers: workers.clone(), outputs, collector, happened: happened.clone(), truth: truth.clone() };
        deliver.collect(start);
        let mut frames = Vec::new();
        let replayed = segments.replay(start, |frame| frames.push(Arc::new(frame)));
        if let Err(error) = replayed {
            let workers = workers.lock().unwrap().take();
            workers.into_iter().for_each(Workers::stop);
            return Err(error);
        }
        frames.iter().for_each(|frame| deliver.frame(frame));
        // Everything that was ever told to be durable is.
        let known = truth.lock().unwrap().frames.last_key_value().map_or(0, |(epoch, _)| *epoch);
        assert_eq!(last, known, "the log ends where it ended");
        let (_, progress) = watch::channel(Progress::default());
        let trim = Arc::new(AtomicU64::new(0));
        let retire = {
            let trim = trim.clone();
            move || Some(trim.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0)
        };
        let time = Timekeeping::new(handle, clock.clone(), Path::new(ROOT).join(ledger::CLOCK));
        let deliver = move |frame: Arc<Frame>| deliver.frame(&frame);
        let (intake, stepped) = intake::stepped(segments, progress, deliver, retire, Bounds::default(), time);
        Ok(Process {
            intake,
            stepped,
            workers,
            happened,
            live,
            lake,
            handed_in,
            writer: Writer::new(snapshots),
            spine: Spine::new(start, ["lake"]),
            trim,
            due: Vec::new(),
            appending: Vec::new(),
            now_ms: 0,
        })
    }

    /// Sends an input, as its kind is sent.
    fn send(&mut self, input: Input) {
        let origin = Arc::new(Origin {
            kind: input.kind,
            tenant: input.tenant.to_owned(),
            partition: String::new(),
            feed: "sim".to_owned(),
        });
        let entry = Entry { peer: input.peer, received_us: 1_704_067_200_000_000, body: input.body.clone() };
        if inputs::is_acknowledged(&input) {
            let mut answer = self.intake.append(origin, vec![entry]);
            match poll(&mut answer) {
                Some(refused) => assert!(refused.is_err(), "nothing is durable before a frame is closed"),
                None => self.appending.push(Appending { input, answer }),
            }
        } else {
            // What is not taken is the sender's to count.
            let _ = self.intake.offer(origin, vec![entry]);
        }
    }

    /// Closes a frame; adds the appends that were acknowledged, and tells whether the disk took it.
    fn close(&mut self, acknowledged: &mut Vec<(u64, Input)>) -> bool {
        let taken = self.stepped.close();
        for mut appending in std::mem::take(&mut self.appending) {
            match poll(&mut appending.answer) {
                Some(Ok(epoch)) => acknowledged.push((epoch, appending.input)),
                Some(Err(_)) => {}
                None => self.appending.push(appending),
            }
        }
        let events = std::mem::take(&mut *self.happened.lock().unwrap());
        events.into_iter().for_each(|event| self.tell(event));
        taken
    }

    fn tell(&mut self, event: Event) {
        for action in self.spine.happened(event) {
            match action {
                Action::PauseIntake(_) => self.intake.stats().record_full.store(true, Ordering::Relaxed),
                Action::ResumeIntake(_) => self.intake.stats().record_full.store(false, Ordering::Relaxed),
                Action::TrimLedger(epoch) => {
                    self.trim.fetch_max(epoch, Ordering::Relaxed);
                }
                Action::SnapshotsFail(_) | Action::Finish | Action::End => {}
                Action::WriteSnapshot | Action::Retire(_) => self.due.push(action),
            }
        }
    }

    /// Does one thing that was asked for, if any was.
    fn work(&mut self) {
        if self.due.is_empty() {
            return;
        }
        let event = match self.due.remove(0) {
            Action::WriteSnapshot => match self.writer.write(&self.handed_in) {
                Ok(Some(epoch)) => Event::SnapshotWritten(epoch),
                Ok(None) => Event::NothingToWrite,
                Err(_) => Event::SnapshotFailed,
            },
            Action::Retire(applied) => Event::Retired(self.writer.retire(applied).unwrap_or(None)),
            other => unreachable!("{other:?} is done at once"),
        };
        self.tell(event);
    }

    fn look(&mut self) {
        self.now_ms += 1000;
        self.tell(Event::Time(self.now_ms));
        let (applied, full) = (self.lake.applied().unwrap_or(0), self.lake.is_full());
        self.tell(Event::Consumer { name: "lake", applied, full });
    }

    fn stop(self) -> Tables {
        let workers = self.workers.lock().unwrap().take();
        workers.into_iter().for_each(Workers::stop);
        self.live.0.lock().unwrap().clone()
    }
}

/// The tables and rows that an undisturbed run of these frames makes.
fn undisturbed(frames: &BTreeMap<u64, Arc<Frame>>) -> (Tables, BTreeSet<(Table, i128)>) {
    let start = Start { staging: Staging { memory_bytes: 1 << 20, folder: None }, ..Start::default() };
    let mut merge = Merge::new(1, &start.state);
    let (workers, outputs) = Workers::start(1, start);
    let (mut tables, mut rows) = (Tables::new(), BTreeSet::new());
    let mut next = 0;
    for frame in frames.values() {
        workers.feed(frame);
        while next <= frame.epoch {
            let Some(merged) = merge.push(outputs.recv().unwrap()) else { continue };
            next = merged.output.epoch + 1;
            apply(&mut tables, &merged.output);
            for id in row_ids(&merged.output) {
                assert!(rows.insert(id), "row {id:?} is there twice");
            }
        }
    }
    workers.stop();
    (tables, rows)
}

fn ask_for_snapshot() -> Input {
    let body = serde_json::to_vec(&Fact::Snapshot).unwrap().into();
    Input { kind: Kind::Fact, tenant: "t", peer: None, body }
}

/// One life of a data directory.
fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut disk = SimDisk::new(seed);
    let clock = Arc::new(SimClock::default());
    let truth = Arc::new(Mutex::new(Truth::default()));
    let mut acknowledged: Vec<(u64, Input)> = Vec::new();
    let mut process = Process::start(&disk, &clock, &truth, &mut rng).expect("an empty disk is fine");
    inputs::first().into_iter().for_each(|input| process.send(input));
    let trouble = rng.random_range(0..4) > 0;
    for _ in 0..rng.random_range(20..80) {
        match rng.random_range(0..100) {
            0..45 => {
                for _ in 0..rng.random_range(1..4) {
                    process.send(inputs::any(&mut rng, 1_704_067_200_000));
                }
            }
            45..70 => {
                clock.pass(rng.random_range(0..2000));
                let _ = process.close(&mut acknowledged);
            }
            70..75 => process.send(ask_for_snapshot()),
            75..83 => process.work(),
            83..88 => process.lake.commit(rng.random_range(1..5)),
            88..91 => process.look(),
            91 => clock.step(rng.random_range(-7_200_000..100_000_000)),
            92..94 => {
                let _ = process.stepped.trim();
            }
            94..96 if trouble => disk.failing(if rng.random_bool(0.5) { 0 } else { rng.random_range(0..400) }),
            96 if trouble => disk.room_left(rng.random_range(0..4000)),
            97 if trouble => {
                disk.room_left(u64::MAX);
                disk.failing(0);
            }
            98.. => {
                let power = rng.random_bool(0.6);
                process.stop();
                disk = disk.crash(power);
                clock.down(rng.random_range(0..100_000), power);
                process = Process::start(&disk, &clock, &truth, &mut rng)
                    .unwrap_or_else(|error| panic!("it does not start again: {error}"));
            }
            _ => {}
        }
    }
    // The world is well again: what waits is finished, by this process and by the one after it.
    for power in [false, true] {
        disk.failing(0);
        disk.room_left(u64::MAX);
        process.send(ask_for_snapshot());
        for _ in 0..20 {
            assert!(process.close(&mut acknowledged), "the ledger goes on once the disk is well");
            process.look();
            process.work();
            process.lake.commit(usize::MAX);
            process.stepped.trim().expect("the disk is well");
        }
        assert!(process.appending.is_empty() && process.due.is_empty(), "everybody has an answer");
        process.stop();
        disk = disk.crash(power);
        process = Process::start(&disk, &clock, &truth, &mut rng)
            .unwrap_or_else(|error| panic!("it does not start again: {error}"));
    }
    let tables = process.stop();
    let truth = truth.lock().unwrap();
    for (epoch, input) in &acknowledged {
        let frame = &truth.frames[epoch];
        let mut entries = frame.slices.iter().filter(|s| s.origin.kind == input.kind).flat_map(|s| &s.entries);
        assert!(entries.any(|entry| entry.body == input.body), "epoch {epoch} has what was acknowledged");
    }
    let (expected, rows) = undisturbed(&truth.frames);
    assert_eq!(tables, expected, "the tables are those of an undisturbed run");
    let lake: BTreeSet<(Table, i128)> = truth.lake.keys().copied().collect();
    assert_eq!(lake, rows, "the lake has every row once");
    assert!(disk_is_small(&disk), "what nobody needs is let go");
}

/// What a data directory of so few inputs may hold once all is committed.
fn disk_is_small(disk: &SimDisk) -> bool {
    let found = disk.list(&PathBuf::from(ROOT).join(ledger::SNAPSHOTS)).unwrap();
    let segments = disk.list(&PathBuf::from(ROOT).join(ledger::LOG)).unwrap();
    found.len() <= 4 + 2 * radarflow_connectors::ledger::snapshot::MAX_RUNS && segments.len() <= 12
}

#[test]
fn simulate() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let first: u64 = number("RADARFLOW_SEED").unwrap_or(0);
    let seeds: u64 = number("RADARFLOW_SEEDS").unwrap_or(60);
    for seed in first..first + seeds {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}: RADARFLOW_SEED={seed} RADARFLOW_SEEDS=1 shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}
