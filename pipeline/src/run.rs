//! Start and end, and the threads in between.
//!
//! | thread | does |
//! |---|---|
//! | `ledger` | closes frames, syncs, acknowledges, hands frames to the workers |
//! | `timely`… | compute |
//! | `collector` | puts epochs together, hands them to consumers |
//! | `snapshots` | writes state, lets old snapshots go |
//! | `spine` | asks [`crate::decide`] what follows from what happened, and has it done |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use radarflow_connectors::ledger::clock::Timekeeping;
use radarflow_connectors::ledger::intake::{self, Bounds, Intake, Progress};
use radarflow_connectors::ledger::segments::Segments;
use radarflow_connectors::ledger::snapshot::Snapshots;
use radarflow_connectors::ledger::{self, LedgerError};
use radarflow_dataflows::decode::durable_offsets;
use radarflow_dataflows::decode::runs::Staging;
use radarflow_dataflows::decode::shelf::Shelf;
use radarflow_dataflows::keyed::Tick;
use radarflow_dataflows::output::{Merge, WorkerEpoch};
use radarflow_dataflows::sizes::Sizes;
use radarflow_dataflows::upgrade;
use radarflow_dataflows::worker::{Backlog, Start, Workers};
use radarflow_proto::clock::Clock;
use radarflow_proto::disk::Disk;
use radarflow_proto::frame::Frame;
use radarflow_proto::offsets::Offsets;
use radarflow_proto::ports::{Appender, FoundRecord, RecordQuery};
use thiserror::Error;
use tokio::sync::watch;

use crate::collector::Collector;
use crate::consumers::Consumer;
use crate::decide::Event;
use crate::driver::{Driver, End, Outside};
use crate::late::{self, Late};
use crate::snapshots::{HandedIn, Order, Writer};

/// How often consumers are asked how far they are.
const LOOK: Duration = Duration::from_millis(250);
/// How often a full consumer is asked again while the log is read.
const FULL_LOOK: Duration = Duration::from_millis(10);
/// How long consumers have at the end to commit what they have.
const FINISH_WITHIN: Duration = Duration::from_secs(60);
/// How long the workers may take to find records: they answer between epochs.
const FIND_WITHIN: Duration = Duration::from_secs(10);

/// Why a pipeline cannot start.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// State of another build cannot be converted.
    #[error(transparent)]
    Upgrade(#[from] upgrade::UpgradeError),
    /// A thread does not start.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// The log could not be read to its end.
    #[error("the ledger's log was not read to its end")]
    Replay,
}

/// What a pipeline is made of.
pub struct Setup {
    /// Where durable things are.
    pub disk: Arc<dyn Disk>,
    /// What the ledger's clock follows.
    pub clock: Arc<dyn Clock>,
    /// The data directory; the caller holds it.
    pub root: PathBuf,
    /// Worker threads.
    pub workers: usize,
    /// Bytes of large uploads that are kept in memory.
    pub staged_bytes: u64,
    /// Bounds of intake.
    pub bounds: Bounds,
}

/// A data directory that was read: what the consumers need to know before anything flows.
pub struct Opened {
    setup: Setup,
    segments: Segments,
    snapshots: Snapshots,
    begin: Start,
    offsets: BTreeMap<String, Offsets>,
    appender: Arc<dyn Appender>,
    late: Late,
    replay: Arc<Replay>,
}

/// How far a start is.
#[derive(Debug, Default)]
pub struct Replay {
    /// The newest epoch that is complete.
    pub reached: Arc<AtomicU64>,
    /// The last epoch of the log that is read again.
    pub last: u64,
    /// Whether it has been read again.
    pub done: Arc<AtomicBool>,
}

/// What a data directory holds.
pub struct Directory {
    /// The log, its torn tail cut.
    pub segments: Segments,
    /// The snapshots.
    pub snapshots: Snapshots,
    /// The state to start from, in the schemas of this build.
    pub begin: Start,
    /// What that state says is durable of feeds with offsets of their own.
    pub offsets: BTreeMap<String, Offsets>,
}

/// Reads a data directory. State of an older build is converted, on disk too. Large uploads take so many bytes of memory.
///
/// # Errors
/// The directory is damaged, of a newer build, or cannot be read; it was not changed.
pub fn read(disk: &Arc<dyn Disk>, root: &Path, staged_bytes: u64) -> Result<Directory, PipelineError> {
    let ledger::Opened { segments, mut snapshots, start } = ledger::open(disk, root, &upgrade::versions())?;
    let staging = Staging { memory_bytes: staged_bytes, root: Some((disk.clone(), root.to_owned())) };
    let shelf = Arc::new(Shelf::of(disk.clone(), root));
    let Some((manifest, state)) = start else {
        let begin = Start { staging, shelf, ..Start::default() };
        return Ok(Directory { segments, snapshots, begin, offsets: BTreeMap::new() });
    };
    let state = if snapshots.is_current(&manifest) {
        state
    } else {
        tracing::info!(epoch = manifest.epoch, "state of an older build is converted");
        let (epoch, clock_ms) = (manifest.epoch, manifest.clock_ms);
        let tick = Tick { epoch, clock_ms, live_ms: clock_ms - manifest.gap_ms };
        let state = upgrade::upgrade(state, &manifest.collections, &tick)?;
        snapshots.rebase(&manifest, &state)?;
        state
    };
    let offsets = durable_offsets(&state);
    let begin = Start { epoch: manifest.epoch, gap_ms: manifest.gap_ms, state, staging, shelf };
    Ok(Directory { segments, snapshots, begin, offsets })
}

/// Reads the data directory of a pipeline.
///
/// # Errors
/// As [`read`].
pub fn open(setup: Setup) -> Result<Opened, PipelineError> {
    let Directory { segments, snapshots, begin, offsets } = read(&setup.disk, &setup.root, setup.staged_bytes)?;
    let (appender, late) = late::pair();
    let replay = Replay { last: segments.next_epoch() - 1, ..Replay::default() };
    Ok(Opened { setup, segments, snapshots, begin, offsets, appender, late, replay: Arc::new(replay) })
}

/// A running pipeline.
pub struct Pipeline {
    intake: Intake,
    running: intake::IntakeThread,
    workers: Arc<Mutex<Option<Workers>>>,
    backlog: Arc<Backlog>,
    sizes: Arc<Sizes>,
    replay: Arc<Replay>,
    snapshots_fail: Arc<AtomicBool>,
    offsets: BTreeMap<String, Offsets>,
    events: Sender<Event>,
    collector: JoinHandle<()>,
    spine: JoinHandle<()>,
}

/// Asks the workers for records.
#[derive(Clone)]
pub struct Finder(Arc<Mutex<Option<Workers>>>);

impl Finder {
    /// Finds records, as of the newest epoch; `None` where the workers do not answer in time. Blocks.
    pub fn find(&self, wanted: RecordQuery) -> Option<Vec<FoundRecord>> {
        let asked = lock(&self.0).as_ref().map(|workers| workers.find(wanted));
        let (workers, answers) = asked?;
        let until = Instant::now() + FIND_WITHIN;
        let mut found = Vec::new();
        for _ in 0..workers {
            found.extend(answers.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?);
        }
        Some(found)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Opened {
    /// The first epoch that the log has.
    pub fn first_epoch(&self) -> u64 {
        self.segments.first_epoch()
    }

    /// The epoch of the state that it starts from; 0 for none. It is said again at that epoch.
    pub fn start_epoch(&self) -> u64 {
        self.begin.epoch
    }

    /// Has the ledger go on after an epoch that a consumer has already. It ends before that where its end was lost, or where it
    /// was put back to what it was before.
    ///
    /// # Errors
    /// They are too many, or the disk refuses.
    pub fn go_on_after(&mut self, epoch: u64) -> Result<(), PipelineError> {
        let missing = self.segments.reserve(epoch)?;
        if missing > 0 {
            tracing::warn!(
                missing,
                epoch,
                "the lake has epochs that the ledger has not: what came in them is in the lake and in nothing else; the ledger \
                 goes on after them"
            );
            self.replay = Arc::new(Replay { last: epoch, ..Replay::default() });
        }
        Ok(())
    }

    /// Names the history.
    pub fn generation(&self) -> u64 {
        self.segments.generation()
    }

    /// The way in, for who needs it early: what is appended waits until the log has been read again.
    pub fn appender(&self) -> &Arc<dyn Appender> {
        &self.appender
    }

    /// How far the start is.
    pub fn replay(&self) -> &Arc<Replay> {
        &self.replay
    }

    /// Starts the workers, reads the log again, and takes inputs. Consumers are handed epochs in the order they are named.
    ///
    /// # Errors
    /// The log cannot be read to its end, or threads cannot be started.
    pub async fn start(self, consumers: Vec<Arc<dyn Consumer>>) -> Result<Pipeline, PipelineError> {
        let Opened { setup, segments, snapshots, begin, mut offsets, late, replay, .. } = self;
        let consumers: Arc<[Arc<dyn Consumer>]> = consumers.into();
        let (start, last) = (begin.epoch, replay.last);
        let merge = Merge::new(setup.workers.max(1), &begin.state);
        let (workers, outputs) = Workers::start(setup.workers, begin);
        let (backlog, sizes) = (workers.backlog().clone(), workers.sizes().clone());
        let workers = Arc::new(Mutex::new(Some(workers)));
        let (events, happened) = channel();
        let (pace, progress) = watch::channel(Progress::default());
        let handed_in = Arc::new(HandedIn::default());
        let collector = {
            let collector = Collector::new(merge, consumers.clone(), handed_in.clone(), last);
            let collected =
                Collected { replay: replay.clone(), backlog: backlog.clone(), pace, events: events.clone() };
            std::thread::Builder::new()
                .name("collector".to_owned())
                .spawn(move || collected.run(collector, &outputs))?
        };

        let deliver = {
            let workers = workers.clone();
            move |frame: Arc<Frame>| {
                if let Some(workers) = &*lock(&workers) {
                    workers.feed(&frame);
                }
            }
        };
        let replayed = {
            let (deliver, consumers) = (deliver.clone(), consumers.clone());
            tokio::task::spawn_blocking(move || {
                let result = segments.replay(start, |frame| {
                    // Nothing is taken in yet that could be held back: the log is read no faster than the record takes it.
                    while consumers.iter().any(|consumer| consumer.is_full()) {
                        std::thread::sleep(FULL_LOOK);
                    }
                    for range in &frame.ranges {
                        offsets.entry(range.feed.clone()).or_default().insert(range.from, range.to);
                    }
                    deliver(Arc::new(frame));
                });
                (segments, offsets, result)
            })
        };
        let (segments, offsets, result) = replayed.await.map_err(|_| PipelineError::Replay)?;
        result?;

        let trim = Arc::new(AtomicU64::new(0));
        let retire = {
            let trim = trim.clone();
            move || Some(trim.load(Ordering::Acquire)).filter(|epoch| *epoch > 0)
        };
        let time = Timekeeping::new(setup.disk, setup.clock, setup.root.join(ledger::CLOCK));
        let (intake, running) = intake::start(segments, progress, deliver, retire, setup.bounds, time);
        let snapshots_fail = Arc::new(AtomicBool::new(false));
        let spine = {
            let orders = write_snapshots(Writer::new(snapshots), handed_in, events.clone())?;
            let outside =
                Outside { stats: intake.stats().clone(), trim, snapshots_fail: snapshots_fail.clone(), orders };
            let driver = Driven {
                driver: Driver::new(start, consumers.clone(), outside),
                consumers,
                runtime: tokio::runtime::Handle::current(),
                events: events.clone(),
                began: Instant::now(),
            };
            std::thread::Builder::new().name("spine".to_owned()).spawn(move || driver.run(&happened))?
        };
        late.set(Arc::new(intake.clone()));
        while replay.reached.load(Ordering::Acquire) < last {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        replay.done.store(true, Ordering::Release);
        Ok(Pipeline {
            intake,
            running,
            workers,
            backlog,
            sizes,
            replay,
            snapshots_fail,
            offsets,
            events,
            collector,
            spine,
        })
    }
}

impl Pipeline {
    /// The way in.
    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// Who finds records in the dataflow.
    pub fn finder(&self) -> Finder {
        Finder(self.workers.clone())
    }

    /// What waits in staged runs.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// How much the dataflow keeps.
    pub fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    /// How far it is.
    pub fn progress(&self) -> &Arc<Replay> {
        &self.replay
    }

    /// Whether the newest snapshot could not be written: the ledger grows until one can.
    pub fn snapshots_fail(&self) -> &Arc<AtomicBool> {
        &self.snapshots_fail
    }

    /// What was durable, at the start, of feeds with offsets of their own.
    pub fn take_offsets(&mut self) -> BTreeMap<String, Offsets> {
        std::mem::take(&mut self.offsets)
    }

    /// Ends it: the last frame is closed, every consumer commits what it has, a snapshot that was asked for is written.
    /// Nobody may append any more, but for who does not mind being refused.
    ///
    /// # Errors
    /// The ledger's thread failed.
    pub async fn stop(self) -> Result<(), PipelineError> {
        let Pipeline { intake, running, workers, events, collector, spine, .. } = self;
        drop(intake);
        let ended = tokio::task::spawn_blocking(move || {
            let log = running.stop().ok_or(PipelineError::Replay)?;
            let _ = events.send(Event::Closed(log.next_epoch() - 1));
            // What it has to do it has done when it ends.
            let _ = spine.join();
            let workers = lock(&workers).take();
            if let Some(workers) = workers {
                workers.stop();
            }
            let _ = collector.join();
            Ok(())
        });
        ended.await.map_err(|_| PipelineError::Replay)?
    }
}

/// What the collector's thread tells others.
struct Collected {
    replay: Arc<Replay>,
    backlog: Arc<Backlog>,
    pace: watch::Sender<Progress>,
    events: Sender<Event>,
}

impl Collected {
    fn run(self, mut collector: Collector, outputs: &Receiver<WorkerEpoch>) {
        while let Ok(said) = outputs.recv() {
            for event in collector.take(said) {
                if let Event::Reached(epoch) = event {
                    self.replay.reached.store(epoch, Ordering::Release);
                    self.pace.send_replace(Progress { epoch, released: self.backlog.released() });
                }
                // Nobody may be there to be told, at the end.
                let _ = self.events.send(event);
            }
        }
    }
}

/// Starts the thread that writes snapshots. It ends when nobody can tell it anything.
fn write_snapshots(
    mut writer: Writer,
    handed_in: Arc<HandedIn>,
    events: Sender<Event>,
) -> Result<Sender<Order>, PipelineError> {
    let (orders, told) = channel();
    let run = move || {
        while let Ok(order) = told.recv() {
            if events.send(writer.obey(order, &handed_in)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("snapshots".to_owned()).spawn(run)?;
    Ok(orders)
}

/// The thread of the spine.
struct Driven {
    driver: Driver,
    consumers: Arc<[Arc<dyn Consumer>]>,
    runtime: tokio::runtime::Handle,
    events: Sender<Event>,
    began: Instant,
}

impl Driven {
    fn run(mut self, happened: &Receiver<Event>) {
        let mut look = Instant::now();
        loop {
            let event = match happened.recv_timeout(look.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // How consumers are is known before anything is decided on it.
            let mut ends = Vec::new();
            if event.is_none() || matches!(event, Some(Event::Finished)) {
                look = Instant::now() + LOOK;
                ends.extend(self.driver.look(self.began.elapsed().as_millis() as i64));
            }
            ends.extend(event.map(|event| self.driver.happened(event)).unwrap_or_default());
            for end in ends {
                match end {
                    End::Finish => self.finish(),
                    End::End => return,
                }
            }
        }
    }

    fn finish(&self) {
        let finishing: Vec<_> = self.consumers.iter().map(|consumer| consumer.finish()).collect();
        let events = self.events.clone();
        self.runtime.spawn(async move {
            let all = async {
                for finishing in finishing {
                    finishing.await;
                }
            };
            if tokio::time::timeout(FINISH_WITHIN, all).await.is_err() {
                tracing::warn!("not everything could be committed in time; it is made good at the next start");
            }
            let _ = events.send(Event::Finished);
        });
    }
}
