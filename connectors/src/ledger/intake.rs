//! The way in: sources append, frames are closed, what is durable is acknowledged and handed on.
//!
//! ```text
//! append ─► queue (state, commands, probes) ┐
//!                                           ├─► frame ─► fdatasync ─► acknowledge ─► dataflow
//! offer  ─► queue (telemetry)               ┘
//! ```
//! A frame is closed [`TICK`] after the one before, or as soon as something comes when the ledger was idle for that
//! long: the tick bounds the rate of frames, not the latency of one. An empty frame is written once a second, so that
//! timers move ([`ticker`]). The queue that cannot be answered sheds first: `offer` takes only its share of the room. Who
//! comes first, and how much a tenant may hold, is in [`queue`]; how much of large uploads a frame reads, in [`releases`].
//! As long as released runs wait, the next frame is closed as soon as the dataflow is done with the last.
//!
//! **Memory.** Frames that the dataflow is not done with are bounded in bytes: beyond that no frame is closed, the queues
//! fill, and senders wait or are shed. Where the whole process has too little memory
//! ([`IntakeStats::memory_short`]), telemetry that can wait waits and telemetry that cannot is shed; facts and what agents
//! say of the state of things are taken as ever.
//!
//! When the disk refuses, waiting senders get the error, offered inputs are counted as shed, and the next tick tries
//! again: intake goes on by itself when there is room.

mod queue;
mod releases;
mod stats;
#[cfg(test)]
mod tests;
mod ticker;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use radarflow_proto::frame::{Entry, Frame, Origin, Range};
use radarflow_proto::ports::{AppendError, Appender, BoxFuture, Part};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use self::queue::MAX_SUBMISSION;
use self::queue::{Submission, Tenants, Waiting, can_wait, cost, own, size};
use self::releases::Releases;
pub use self::stats::IntakeStats;
use self::ticker::Ticker;
use super::clock::Timekeeping;
use super::segments::Segments;

/// Least time between two frames with content.
pub const TICK: Duration = Duration::from_millis(100);
/// An idle ledger says so much often that time passes.
pub const IDLE_TICK: Duration = Duration::from_secs(1);
/// Bytes of input a frame takes; what is left waits for the next.
pub const FRAME_BYTES: usize = 8 << 20;
/// Waiting senders look so often whether there is memory again.
const MEMORY_LOOK: Duration = Duration::from_millis(100);
/// Submissions that may wait, of either queue.
const QUEUE_LENGTH: usize = 65_536;

/// Bounds of what intake holds, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Input that may wait, of either queue.
    pub queue: usize,
    /// Frames that the dataflow is not done with; one more is closed all the same.
    pub in_flight: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { queue: 128 << 20, in_flight: 256 << 20 }
    }
}

/// How far the dataflow is, for the pace of frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// The newest complete epoch.
    pub epoch: u64,
    /// Whether released runs wait to be read.
    pub released: bool,
}

/// The way in.
#[derive(Clone)]
pub struct Intake {
    urgent: mpsc::Sender<Submission>,
    telemetry: mpsc::Sender<Submission>,
    room: Arc<Semaphore>,
    tenants: Arc<Tenants>,
    stats: Arc<IntakeStats>,
    bounds: Bounds,
}

/// Ends intake when asked, after what was taken in is durable.
pub struct IntakeThread {
    thread: std::thread::JoinHandle<Segments>,
    stop: Option<oneshot::Sender<()>>,
}

impl IntakeThread {
    /// Closes the last frame and gives the log back.
    pub fn stop(mut self) -> Option<Segments> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.thread.join().ok()
    }
}

/// Starts intake on a thread of its own. `deliver` takes every durable frame in order and may block: that slows intake,
/// which fills the queues, which makes senders wait or be shed. `retire` is asked now and then which epoch is no longer
/// needed.
pub fn start(
    log: Segments,
    progress: watch::Receiver<Progress>,
    deliver: impl FnMut(Arc<Frame>) + Send + 'static,
    retire: impl FnMut() -> Option<u64> + Send + 'static,
    bounds: Bounds,
    time: Timekeeping,
) -> (Intake, IntakeThread) {
    let (intake, Stepped { mut ticker, urgent, telemetry, .. }) = stepped(log, progress, deliver, retire, bounds, time);
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
            runtime.block_on(ticker.run(urgent, telemetry, stopped));
            ticker.log
        })
        .expect("the ledger's thread starts");
    (intake, IntakeThread { thread, stop: Some(stop) })
}

/// Intake without a thread: a frame is closed when its owner says so. What drives time by itself uses it.
pub struct Stepped {
    ticker: Ticker,
    urgent: mpsc::Receiver<Submission>,
    telemetry: mpsc::Receiver<Submission>,
    waiting: Waiting,
}

/// Makes intake that is driven by hand; the rest is as in [`start`].
pub fn stepped(
    log: Segments,
    progress: watch::Receiver<Progress>,
    deliver: impl FnMut(Arc<Frame>) + Send + 'static,
    retire: impl FnMut() -> Option<u64> + Send + 'static,
    bounds: Bounds,
    time: Timekeeping,
) -> (Intake, Stepped) {
    let (urgent, urgent_queue) = mpsc::channel(QUEUE_LENGTH);
    let (telemetry, telemetry_queue) = mpsc::channel(QUEUE_LENGTH);
    let room = Arc::new(Semaphore::new(bounds.queue));
    let stats = Arc::new(IntakeStats::default());
    stats.epoch.store(log.next_epoch().saturating_sub(1), Ordering::Relaxed);
    let tenants = Arc::new(Tenants::new(bounds.queue));
    let ticker = Ticker {
        clock_ms: log.last_clock_ms(),
        time,
        log,
        last: None,
        deliver: Box::new(deliver),
        retire: Box::new(retire),
        stats: stats.clone(),
        room: room.clone(),
        tenants: tenants.clone(),
        progress,
        releases: Releases::default(),
        bounds,
        in_flight: VecDeque::new(),
    };
    let intake = Intake { urgent, telemetry, room, tenants, stats, bounds };
    (intake, Stepped { ticker, urgent: urgent_queue, telemetry: telemetry_queue, waiting: Waiting::default() })
}

impl Stepped {
    /// Closes a frame of what waits, even of nothing. Tells whether the disk took it.
    pub fn close(&mut self) -> bool {
        while let Ok(more) = self.urgent.try_recv().or_else(|_| self.telemetry.try_recv()) {
            self.waiting.push(more);
        }
        let taken = self.waiting.take(FRAME_BYTES);
        self.ticker.close(taken)
    }

    /// Lets segments go that nobody needs, as far as `retire` tells.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn trim(&mut self) -> Result<(), super::LedgerError> {
        (self.ticker.retire)().map_or(Ok(()), |epoch| self.ticker.log.trim(epoch))
    }

    /// The log.
    pub fn log(&self) -> &Segments {
        &self.ticker.log
    }
}

impl Intake {
    /// What it did so far.
    pub fn stats(&self) -> &Arc<IntakeStats> {
        &self.stats
    }

    /// Why nothing but facts is taken, where that is so.
    fn stopped(&self) -> Option<&'static str> {
        if self.stats.disk_short.load(Ordering::Relaxed) {
            return Some("the disk is nearly full; intake goes on when there is room");
        }
        let full = self.stats.record_full.load(Ordering::Relaxed);
        full.then_some("the lake does not take what it is given; intake goes on when it does")
    }
}

impl Appender for Intake {
    fn append_all(&self, parts: Vec<Part>, ranges: Vec<Range>) -> BoxFuture<Result<u64, AppendError>> {
        let size = size(&parts, &ranges);
        if size > MAX_SUBMISSION {
            return Box::pin(async move { Err(AppendError::TooLarge { bytes: size, most: MAX_SUBMISSION }) });
        }
        if let Some(why) = self.stopped()
            && !parts.iter().all(|(origin, _)| own(origin))
        {
            return Box::pin(async move { Err(AppendError::Storage(why.to_owned())) });
        }
        let (urgent, room, stats, bound) =
            (self.urgent.clone(), self.room.clone(), self.stats.clone(), self.bounds.queue);
        Box::pin(async move {
            let waits = parts.iter().any(|(origin, _)| can_wait(origin));
            while waits && stats.memory_short.load(Ordering::Relaxed) {
                if urgent.is_closed() {
                    return Err(AppendError::Closed);
                }
                tokio::time::sleep(MEMORY_LOOK).await;
            }
            let bytes = parts.iter().map(|(_, entries)| cost(entries)).sum::<usize>().min(bound);
            let permit = room.acquire_many(bytes as u32).await.map_err(|_| AppendError::Closed)?;
            let (done, answer) = oneshot::channel();
            let submission = Submission { parts, ranges, bytes, size, done: Some(done) };
            // Whoever leaves from here on has taken all of it with them, or nothing.
            let place = urgent.reserve().await.map_err(|_| AppendError::Closed)?;
            stats.awaited_bytes.fetch_add(bytes, Ordering::Relaxed);
            place.send(submission);
            permit.forget();
            answer.await.map_err(|_| AppendError::Closed)?
        })
    }

    fn durable(&self) -> Option<u64> {
        Some(self.stats.epoch.load(Ordering::Relaxed))
    }

    fn offer(&self, origin: Arc<Origin>, entries: Vec<Entry>) -> Result<(), Vec<Entry>> {
        let bytes = cost(&entries);
        let short = self.stopped().is_some() && !own(&origin)
            || self.stats.memory_short.load(Ordering::Relaxed) && can_wait(&origin);
        let size = origin.most_bytes(&entries);
        if short || size > MAX_SUBMISSION || !self.tenants.take(&origin.tenant, bytes) {
            return Err(entries);
        }
        let tenant = origin.clone();
        let submission = Submission { parts: vec![(origin, entries)], ranges: Vec::new(), bytes, size, done: None };
        match self.telemetry.try_send(submission) {
            Ok(()) => {
                self.stats.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(s) | mpsc::error::TrySendError::Closed(s)) => {
                self.tenants.give_back(&tenant.tenant, bytes);
                Err(s.parts.into_iter().flat_map(|(_, entries)| entries).collect())
            }
        }
    }
}
