//! One process, from its start to its end or crash: the real parts, wired as the program wires them, each step taken by hand.
//!
//! Threads become parts that have their turns: the ledger, who writes snapshots, the spine. A disk call that takes long
//! takes the time of whose turn it was, and of nobody else: until then that part has no turn, and all others have.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use radarflow_connectors::ledger;
use radarflow_connectors::ledger::clock::Timekeeping;
use radarflow_connectors::ledger::intake::{self, Bounds, Intake, Progress, Stepped};
use radarflow_connectors::sinks::postgres::Postgres;
use radarflow_connectors::sinks::webhook::Outbox;
use radarflow_dataflows::output::{Merge, WorkerEpoch};
use radarflow_dataflows::worker::Workers;
use radarflow_pipeline::collector::Collector;
use radarflow_pipeline::consumers::{Consumer, tap};
use radarflow_pipeline::decide::Event;
use radarflow_pipeline::driver::{Driver, Outside};
use radarflow_pipeline::snapshots::{HandedIn, Order, Writer};
use radarflow_pipeline::{Directory, PipelineError, late, read};
use radarflow_proto::disk::Disk;
use radarflow_proto::frame::{Entry, Frame, Origin};
use radarflow_proto::ports::{AppendError, Appender};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::clock::{BEGIN_MS, SimClock};
use crate::disk::SimDisk;
use crate::inputs::{self, Input};
use crate::invariants::Judge;
use crate::models::database::{self, Known};
use crate::models::follower::Follower;
use crate::models::lake::Lake;
use crate::models::receivers;
use crate::truth::{Live, Truth};

pub const ROOT: &str = "/data";
/// Bytes that may wait for the ledger, of either queue.
pub const QUEUE_BYTES: usize = 256 << 10;
/// Bytes of large uploads that are kept in memory.
pub const STAGED_BYTES: u64 = 1500;

/// The world outside of a process.
#[derive(Clone)]
pub struct Outer {
    pub disk: SimDisk,
    pub clock: Arc<SimClock>,
    pub truth: Arc<Mutex<Truth>>,
    pub database: database::Model,
    pub receivers: receivers::Model,
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

pub struct Process {
    /// Time of everything that waits for the world; it goes when it is told to.
    runtime: Runtime,
    outer: Outer,
    intake: Intake,
    pub stepped: Stepped,
    workers: Arc<Mutex<Option<Workers>>>,
    happened: Arc<Mutex<Vec<Event>>>,
    pub live: Arc<Live>,
    pub lake: Arc<Lake>,
    pub postgres: Arc<Postgres>,
    /// Bytes of changes that may wait for it.
    pub postgres_bytes: usize,
    pub outbox: Arc<Outbox>,
    pub followers: Vec<Follower>,
    judge: Arc<Judge>,
    handed_in: Arc<HandedIn>,
    writer: Writer,
    driver: Driver,
    orders: Receiver<Order>,
    /// What was ordered and not done.
    pub due: Vec<Order>,
    /// What came of it, and when that is known.
    came: Option<(i64, Event)>,
    appending: Vec<Appending>,
    ledger_ms: Arc<AtomicU64>,
    /// Until when the ledger, and who writes snapshots, have no turn.
    ledger_busy_ms: i64,
    writer_busy_ms: i64,
    began_ms: i64,
    /// A fault of the disk has kept uploads in memory.
    pub uploads_stay: bool,
}

/// Frames to the workers, and all that follows until the epoch is with the consumers.
struct Deliver {
    workers: Arc<Mutex<Option<Workers>>>,
    outputs: Receiver<WorkerEpoch>,
    collector: Collector,
    happened: Arc<Mutex<Vec<Event>>>,
    judge: Arc<Judge>,
    disk: SimDisk,
    /// What the ledger's disk calls took before it handed a frame on.
    ledger_ms: Arc<AtomicU64>,
}

impl Deliver {
    fn frame(&mut self, frame: &Arc<Frame>) {
        self.judge.frame(frame);
        let (ms, _) = self.disk.spent();
        self.ledger_ms.fetch_add(ms as u64, Ordering::Relaxed);
        self.workers.lock().unwrap().as_ref().expect("they run").feed(frame);
        self.collect(frame.epoch);
        let (_, calls) = self.disk.spent();
        assert_eq!(calls, 0, "nobody between the ledger and the consumers waits for the disk");
    }

    /// All frames of the log, many at a time.
    fn frames(&mut self, frames: &[Arc<Frame>]) {
        let Some(last) = frames.last() else { return };
        frames.iter().for_each(|frame| self.judge.frame(frame));
        let workers = self.workers.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let workers = workers.lock().unwrap();
                frames.iter().for_each(|frame| workers.as_ref().expect("they run").feed(frame));
            });
            self.collect(last.epoch);
        });
    }

    fn collect(&mut self, through: u64) {
        loop {
            let said = self.outputs.recv().expect("the workers run");
            self.judge.state(said.snapshot.as_deref().unwrap_or_default());
            let events = self.collector.take(said);
            let reached = events.iter().any(|e| matches!(e, Event::Reached(epoch) if *epoch >= through));
            self.happened.lock().unwrap().extend(events);
            if reached {
                return;
            }
        }
    }
}

impl Process {
    pub fn start(outer: &Outer, rng: &mut StdRng) -> Result<Process, PipelineError> {
        let Outer { disk, clock, truth, .. } = outer.clone();
        let handle: Arc<dyn Disk> = Arc::new(disk.clone());
        let root = Path::new(ROOT);
        let staged_is_sick = disk.is_sick(&root.join("staged"));
        let Directory { segments, snapshots, begin, .. } = read(&handle, root, STAGED_BYTES)?;
        // Small ones: they are begun, and go, often.
        let segments = segments.closing_at(rng.random_range(500..5000));
        let (start, last, generation) = (begin.epoch, segments.next_epoch() - 1, segments.generation());
        let mut frames = Vec::new();
        segments.replay(start, |frame| frames.push(Arc::new(frame)))?;

        // Who was woken from outside goes first, not at every so many polls: a thread that ends late would change the count.
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).global_queue_interval(1).build();
        let runtime = runtime.expect("a runtime starts");
        let entered = runtime.enter();
        let live = Arc::new(Live::default());
        let lake = Arc::new(Lake::new(truth.clone(), rng.random_range(3..12)));
        let known = Arc::new(Known { live: live.clone(), truth: truth.clone() });
        let database = Arc::new(outer.database.clone());
        let postgres_bytes = rng.random_range(2 << 10..64 << 10);
        let postgres = Arc::new(Postgres::start_on(database, generation, start..=last, postgres_bytes, known));
        let (sink, late) = late::pair();
        let receivers = Arc::new(outer.receivers.clone());
        let outbox = Arc::new(Outbox::start_to(receivers, sink, clock.clone(), "http://radarflow".to_owned()));
        let followers = vec![Follower::new(usize::MAX), Follower::new(rng.random_range(2..10))];
        let judge = Arc::new(Judge::new(outer, start, last));

        let workers = rng.random_range(1..3);
        let merge = Merge::new(workers, &begin.state);
        let (workers, outputs) = Workers::start(workers, begin);
        let workers = Arc::new(Mutex::new(Some(workers)));
        let happened = Arc::new(Mutex::new(Vec::new()));
        let handed_in = Arc::new(HandedIn::default());
        let judges = {
            let judge = judge.clone();
            tap("judge", move |output| judge.epoch(output))
        };
        let mut consumers: Vec<Arc<dyn Consumer>> = vec![judges, live.clone(), outbox.clone()];
        consumers.extend(followers.iter().map(Follower::consumer));
        consumers.extend([postgres.clone() as Arc<dyn Consumer>, lake.clone()]);
        let consumers: Arc<[Arc<dyn Consumer>]> = consumers.into();
        let collector = Collector::new(merge, consumers.clone(), handed_in.clone(), last);
        let ledger_ms = Arc::new(AtomicU64::new(0));
        let mut deliver = Deliver {
            workers: workers.clone(),
            outputs,
            collector,
            happened: happened.clone(),
            judge: judge.clone(),
            disk: disk.clone(),
            ledger_ms: ledger_ms.clone(),
        };
        deliver.collect(start);
        deliver.frames(&frames);
        judge.replayed(last);

        let (_, progress) = watch::channel(Progress::default());
        let trim = Arc::new(AtomicU64::new(0));
        let retire = {
            let trim = trim.clone();
            move || Some(trim.load(Ordering::Relaxed)).filter(|epoch| *epoch > 0)
        };
        let time = Timekeeping::new(handle, clock.clone(), root.join(ledger::CLOCK));
        let bounds = Bounds { queue: QUEUE_BYTES, ..Bounds::default() };
        let deliver = move |frame: Arc<Frame>| deliver.frame(&frame);
        let (intake, stepped) = intake::stepped(segments, progress, deliver, retire, bounds, time);
        late.set(Arc::new(intake.clone()));
        let (to_writer, orders) = channel();
        let stats = intake.stats().clone();
        let outside = Outside { stats, trim, snapshots_fail: Arc::default(), orders: to_writer };
        drop(entered);
        // What the start took is nobody's.
        disk.spent();
        let now_ms = clock.true_ms();
        Ok(Process {
            runtime,
            outer: outer.clone(),
            intake,
            stepped,
            workers,
            happened,
            live,
            lake,
            postgres,
            postgres_bytes,
            outbox,
            followers,
            judge,
            handed_in,
            writer: Writer::new(snapshots),
            driver: Driver::new(start, consumers, outside),
            orders,
            due: Vec::new(),
            came: None,
            appending: Vec::new(),
            ledger_ms,
            ledger_busy_ms: now_ms,
            writer_busy_ms: now_ms,
            began_ms: now_ms,
            uploads_stay: staged_is_sick,
        })
    }

    fn now_ms(&self) -> i64 {
        self.outer.clock.true_ms()
    }

    /// Sends an input, as its kind is sent. Tells whether it was taken, as far as that is known at once.
    pub fn send(&mut self, input: Input) -> bool {
        let _entered = self.runtime.enter();
        let origin = Arc::new(Origin {
            kind: input.kind,
            tenant: input.tenant.to_owned(),
            partition: String::new(),
            feed: inputs::feed(input.kind).to_owned(),
        });
        let entry = Entry { peer: input.peer, received_us: BEGIN_MS * 1000, body: input.body.clone() };
        if !inputs::is_acknowledged(&input) {
            // What is not taken is the sender's to count.
            return self.intake.offer(origin, vec![entry]).is_ok();
        }
        let mut answer = self.intake.append(origin, vec![entry]);
        match poll(&mut answer) {
            Some(refused) => {
                assert!(refused.is_err(), "nothing is durable before a frame is closed");
                false
            }
            None => {
                self.appending.push(Appending { input, answer });
                true
            }
        }
    }

    /// The ledger's turn, if it has one: closes a frame, adds the appends that were acknowledged, and tells whether the disk
    /// took it.
    pub fn close(&mut self, acknowledged: &mut Vec<(u64, Input)>) -> Option<bool> {
        if self.now_ms() < self.ledger_busy_ms {
            return None;
        }
        self.outer.disk.spent();
        let entered = self.runtime.enter();
        let taken = self.stepped.close();
        drop(entered);
        for mut appending in std::mem::take(&mut self.appending) {
            match poll(&mut appending.answer) {
                Some(Ok(epoch)) => acknowledged.push((epoch, appending.input)),
                Some(Err(_)) => assert!(!taken, "what a frame has is acknowledged"),
                None => self.appending.push(appending),
            }
        }
        // Whoever waited when the frame was begun has an answer: there is room for all in one.
        assert!(self.appending.is_empty(), "{} inputs wait on", self.appending.len());
        self.after_ledger();
        let events = std::mem::take(&mut *self.happened.lock().unwrap());
        events.into_iter().for_each(|event| self.tell(event));
        Some(taken)
    }

    /// Lets segments go, in the ledger's turn.
    pub fn trim(&mut self) -> bool {
        if self.now_ms() < self.ledger_busy_ms {
            return false;
        }
        let trimmed = self.stepped.trim().is_ok();
        self.after_ledger();
        trimmed
    }

    fn after_ledger(&mut self) {
        let ms = self.outer.disk.spent().0 + self.ledger_took();
        self.ledger_busy_ms = self.now_ms() + ms;
    }

    fn ledger_took(&self) -> i64 {
        self.ledger_ms.swap(0, Ordering::Relaxed) as i64
    }

    fn tell(&mut self, event: Event) {
        let ends = self.driver.happened(event);
        assert!(ends.is_empty(), "nobody asked for an end");
        self.due.extend(self.orders.try_iter());
    }

    /// The turn of who writes snapshots.
    pub fn work(&mut self) {
        if self.now_ms() < self.writer_busy_ms {
            return;
        }
        if let Some((_, event)) = self.came.take() {
            self.tell(event);
        }
        if self.due.is_empty() {
            return;
        }
        self.outer.disk.spent();
        let event = self.writer.obey(self.due.remove(0), &self.handed_in);
        self.writer_busy_ms = self.now_ms() + self.outer.disk.spent().0;
        self.came = Some((self.writer_busy_ms, event));
        if self.writer_busy_ms == self.now_ms() {
            self.work();
        }
    }

    /// The spine's look.
    pub fn look(&mut self) {
        let ends = self.driver.look(self.now_ms() - self.began_ms);
        let stopped = self.intake.stats().record_full.load(Ordering::Relaxed);
        assert_eq!(stopped, self.lake.is_full(), "intake stops for the record, and for nobody else");
        assert!(ends.is_empty(), "nobody asked for an end");
        self.due.extend(self.orders.try_iter());
    }

    /// Time passes: whoever waits for the world goes on.
    pub fn pass(&mut self, ms: i64) {
        self.outer.clock.pass(ms);
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(ms as u64)).await });
        self.judge.passed();
    }

    /// Whether nothing is under way that takes turns.
    pub fn is_idle(&self) -> bool {
        self.due.is_empty() && self.came.is_none() && self.appending.is_empty()
    }

    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Bytes of large uploads that workers keep in memory.
    pub fn staged_in_memory(&self) -> u64 {
        self.workers.lock().unwrap().as_ref().expect("they run").backlog().in_memory()
    }

    /// Exporters that the decoders remember.
    pub fn exporters(&self) -> i64 {
        let sizes = self.workers.lock().unwrap().as_ref().expect("they run").sizes().clone();
        sizes.machines().into_iter().find(|(name, _)| *name == "exporters").map_or(0, |(_, keys)| keys)
    }

    /// It dies.
    pub fn stop(self) {
        let workers = self.workers.lock().unwrap().take();
        workers.into_iter().for_each(Workers::stop);
        // With it goes what waited for the world, in the middle of whatever it did.
        self.runtime.shutdown_background();
    }
}
