//! The workers: one OS thread each, fed with frames, never polling.
//!
//! A worker takes every frame that waits (at most [`FRAMES_AHEAD`]), reads its share into the inputs, and steps until
//! the epoch is complete everywhere; while others work for it, it is parked and they wake it. With nothing to do it
//! sleeps on its channel. A panic in an operator ends the process: a half-dead set of workers must not linger.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use radarflow_proto::fact::Fact;
use radarflow_proto::frame::Frame;
use radarflow_proto::ports::{FoundRecord, RecordQuery};
use timely::dataflow::ProbeHandle;

use crate::decode::Decoder;
use crate::decode::runs::Staging;
use crate::decode::shelf::Shelf;
use crate::facts::{FrameFacts, standing_facts};
use crate::graph::{self, Handles};
use crate::keyed::{Context, Restored, Tick};
use crate::output::WorkerEpoch;
use crate::sizes::{Marks, Sizes};

/// Frames a worker's channel holds.
pub const FRAMES_QUEUED: usize = 16;
/// Frames a worker takes before it steps.
const FRAMES_AHEAD: usize = 16;
/// Epochs of output that wait for the merger.
const OUTPUTS_QUEUED: usize = 256;
/// State is asked for every so many epochs.
pub const SNAPSHOT_EPOCHS: u64 = 600;

/// What the computation starts from.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Epoch of the snapshot; 0 for none.
    pub epoch: u64,
    /// Time the process was down before it, all told, milliseconds.
    pub gap_ms: i64,
    /// Its state.
    pub state: Restored,
    /// How much of large uploads is kept in memory.
    pub staging: Staging,
    /// Where files are that facts name.
    pub shelf: Arc<Shelf>,
}

/// The running workers.
pub struct Workers {
    channels: Vec<SyncSender<Message>>,
    threads: Vec<JoinHandle<()>>,
    backlog: Arc<Backlog>,
    sizes: Arc<Sizes>,
}

/// What a worker is told.
enum Message {
    /// A frame and its facts.
    Frame(Arc<Frame>, Arc<FrameFacts>),
    /// Find records; the answer is this worker's share.
    Find(Arc<RecordQuery>, SyncSender<Vec<FoundRecord>>),
}

/// What waits in staged runs, for those who make it grow.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: AtomicU64,
    in_memory: AtomicU64,
    released: AtomicBool,
}

impl Backlog {
    /// Bytes of staged runs, released or not.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of them that are kept in memory.
    pub fn in_memory(&self) -> u64 {
        self.in_memory.load(Ordering::Relaxed)
    }

    /// Whether released runs wait to be read.
    pub fn released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }
}

impl Workers {
    /// Starts `n` workers. What they say comes out of the receiver, one [`WorkerEpoch`] a worker and epoch.
    pub fn start(n: usize, start: Start) -> (Workers, Receiver<WorkerEpoch>) {
        let n = n.max(1);
        let (to_merge, outputs) = sync_channel(OUTPUTS_QUEUED);
        let (channels, receivers): (Vec<_>, Vec<_>) = (0..n).map(|_| sync_channel(FRAMES_QUEUED)).unzip();
        let receivers = Arc::new(Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>()));
        let standing = Arc::new(standing_facts(&start.state));
        let start = Arc::new(start);
        let backlog = Arc::new(Backlog::default());
        let sizes = Arc::new(Sizes::default());
        let shared = (backlog.clone(), sizes.clone());
        let thread = std::thread::Builder::new()
            .name("dataflow".to_owned())
            .spawn(move || {
                let config = if n == 1 { timely::Config::thread() } else { timely::Config::process(n) };
                let guards = timely::execute(config, move |worker| {
                    let index = worker.index();
                    let messages =
                        receivers.lock().expect("no worker panics here")[index].take().expect("one channel a worker");
                    run(worker, &messages, &start, &standing, to_merge.clone(), &shared.0, &shared.1);
                })
                .expect("worker threads start");
                for guard in guards.join() {
                    if let Err(panic) = guard {
                        tracing::error!(%panic, "a dataflow worker failed; the process ends");
                        std::process::abort();
                    }
                }
            })
            .expect("the dataflow's thread starts");
        (Workers { channels, threads: vec![thread], backlog, sizes }, outputs)
    }

    /// What waits in staged runs.
    pub fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// How much they keep.
    pub fn sizes(&self) -> &Arc<Sizes> {
        &self.sizes
    }

    /// Hands a frame to every worker; waits while their channels are full.
    pub fn feed(&self, frame: &Arc<Frame>) {
        let facts = Arc::new(FrameFacts::decode(frame));
        for channel in &self.channels {
            // A worker that is gone has ended the process.
            let _ = channel.send(Message::Frame(frame.clone(), facts.clone()));
        }
    }

    /// Asks for records, as of the last frame before; as many answers come as there are workers.
    pub fn find(&self, wanted: RecordQuery) -> (usize, Receiver<Vec<FoundRecord>>) {
        let (to, answers) = sync_channel(self.channels.len());
        let wanted = Arc::new(wanted);
        for channel in &self.channels {
            let _ = channel.send(Message::Find(wanted.clone(), to.clone()));
        }
        (self.channels.len(), answers)
    }

    /// Ends the workers once all frames they were given are complete.
    pub fn stop(self) {
        drop(self.channels);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// One worker: takes frames, steps until their epochs are complete, answers.
fn run(
    worker: &mut timely::worker::Worker,
    messages: &Receiver<Message>,
    start: &Start,
    standing: &[Fact],
    outputs: SyncSender<WorkerEpoch>,
    backlog: &Backlog,
    sizes: &Arc<Sizes>,
) {
    let cx = Context::new(worker.index(), worker.peers(), start.epoch, start.state.clone()).telling(sizes.clone());
    let mut decoder = Decoder::new(&cx, standing, &start.staging, &start.shelf);
    let mut inputs = Handles::new();
    let probe = ProbeHandle::new();
    let marks = Marks::listen(worker, sizes.clone());
    let inspect = worker.dataflow(|scope| graph::build(scope, &mut inputs, &cx, &marks, &probe, outputs));
    inputs.advance(start.epoch + 1);
    let mut gap_ms = start.gap_ms;
    worker.step_or_park_while(None, || probe.less_than(&(start.epoch + 1)));
    let (mut done, mut in_memory) = (start.epoch, 0);
    while let Ok(first) = messages.recv() {
        let mut asked = Vec::new();
        let waiting =
            std::iter::once(first).chain(std::iter::from_fn(|| messages.try_recv().ok()).take(FRAMES_AHEAD - 1));
        for message in waiting {
            let (frame, facts) = match message {
                Message::Frame(frame, facts) => (frame, facts),
                Message::Find(wanted, to) => {
                    asked.push((wanted, to));
                    continue;
                }
            };
            done = frame.epoch;
            gap_ms += frame.gap_ms;
            let tick = Tick { epoch: frame.epoch, clock_ms: frame.clock_ms, live_ms: frame.clock_ms - gap_ms };
            let snapshot = frame.epoch % SNAPSHOT_EPOCHS == 0 || facts.asks_for_snapshot();
            cx.announce(tick, snapshot);
            let decoded = decoder.read(&frame, &facts, &tick);
            let runs = decoder.runs();
            if worker.index() == 0 {
                backlog.bytes.store(runs.bytes(), Ordering::Relaxed);
                backlog.released.store(runs.waiting(), Ordering::Relaxed);
            }
            backlog.in_memory.fetch_add(runs.in_memory(), Ordering::Relaxed);
            backlog.in_memory.fetch_sub(std::mem::replace(&mut in_memory, runs.in_memory()), Ordering::Relaxed);
            if snapshot {
                cx.save(frame.epoch, decoder.snapshot());
            }
            inputs.send(decoded);
            inputs.advance(frame.epoch + 1);
        }
        worker.step_or_park_while(None, || probe.less_than(&(done + 1)));
        cx.retire(done + 1);
        for (wanted, to) in asked {
            // Whoever asked may have given up.
            let _ = to.send(inspect.find(&wanted));
        }
    }
}
