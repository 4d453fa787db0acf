//! The tick: gathers what sources submit, closes a frame, makes it durable, acknowledges, hands it on.
//!
//! ```text
//! append ─► queue (state, commands, probes) ┐
//!                                           ├─► frame ─► fdatasync ─► acknowledge ─► dataflow
//! offer  ─► queue (telemetry)               ┘
//! ```
//! A frame is closed [`TICK`] after the one before, or as soon as something comes when the ledger was idle for that
//! long: the tick bounds the rate of frames, not the latency of one. An empty frame is written once a second, so that
//! timers move. The queue that cannot be answered sheds first: `offer` takes only its share of the room.
//!
//! **Fairness.** Queues are a class and tenant each. A frame takes commands and facts first, then what agents say, then
//! telemetry, then chunks of large uploads; within a class the tenant that has least in the frame comes next. Of the
//! room for telemetry a tenant may hold as much as is still free, so that one who floods leaves half to the others.
//!
//! **Large uploads** are read by the dataflow in shares ([`Frame::release_bytes`]). A share is given only when none is
//! under way, so that nothing queues behind two of them, and the least one where the dataflow is behind; it grows while
//! epochs with one take less than [`WORK`] and shrinks while they take longer. As long as released runs wait, the next frame is closed as soon as the
//! dataflow is done with the last.
//!
//! **Memory.** Frames that the dataflow is not done with are bounded in bytes: beyond that no frame is closed, the queues
//! fill, and senders wait or are shed. Where the whole process has too little memory
//! ([`IntakeStats::memory_short`]), telemetry that can wait waits and telemetry that cannot is shed; facts and what agents
//! say of the state of things are taken as ever.
//!
//! When the disk refuses, waiting senders get the error, offered inputs are counted as shed, and the next tick tries
//! again: intake goes on by itself when there is room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use radarflow_proto::clock::{LedgerClock, Shown};
use radarflow_proto::frame::{Entry, FRAME_AROUND, Frame, Kind, MAX_FRAME, Origin, Range, Slice};
use radarflow_proto::ports::{AppendError, BoxFuture, FactSink, Part};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::clock::{Timekeeping, Told};
use super::segments::Segments;

/// Least time between two frames with content.
pub const TICK: Duration = Duration::from_millis(100);
/// An idle ledger says so much often that time passes.
pub const IDLE_TICK: Duration = Duration::from_secs(1);
/// Bytes of input a frame takes; what is left waits for the next.
pub const FRAME_BYTES: usize = 8 << 20;
/// Dataflow time that a frame may cost.
pub const WORK: Duration = Duration::from_millis(50);
/// Least and greatest share of released runs a frame, and the first.
const RELEASE_BYTES: (u32, u32, u32) = (64 << 10, 16 << 20, 256 << 10);
/// Waiting senders look so often whether there is memory again.
const MEMORY_LOOK: Duration = Duration::from_millis(100);
/// Submissions that may wait, of either queue.
const QUEUE_LENGTH: usize = 65_536;
/// Largest submission, bytes of a frame: it has one of its own then.
pub const MAX_SUBMISSION: usize = MAX_FRAME - FRAME_AROUND;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD: usize = 64;

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

struct Submission {
    parts: Vec<Part>,
    ranges: Vec<Range>,
    bytes: usize,
    /// What it takes in a frame at most.
    size: usize,
    done: Option<oneshot::Sender<Result<u64, AppendError>>>,
}

/// What intake did so far; read by metrics.
#[derive(Debug, Default)]
pub struct IntakeStats {
    /// Frames written.
    pub frames: AtomicU64,
    /// Inputs written.
    pub entries: AtomicU64,
    /// Bytes of input written.
    pub bytes: AtomicU64,
    /// Inputs given up because the disk refused.
    pub shed: AtomicU64,
    /// Microseconds spent writing and syncing.
    pub write_us: AtomicU64,
    /// The newest durable epoch.
    pub epoch: AtomicU64,
    /// Its clock, milliseconds since 1970.
    pub clock_ms: AtomicU64,
    /// Bytes that wait, telemetry.
    pub queued_bytes: AtomicUsize,
    /// Bytes that wait, of senders who wait with them.
    pub awaited_bytes: AtomicUsize,
    /// Bytes of frames that the dataflow is not done with.
    pub in_flight_bytes: AtomicUsize,
    /// Bytes of segments on disk.
    pub disk_bytes: AtomicU64,
    /// Whether the wall clock is too far off to follow.
    pub clock_held: AtomicU64,
    /// How far the wall is ahead of the clock while it is, milliseconds.
    pub clock_held_by_ms: AtomicI64,
    /// What the wall showed that an operator accepts, milliseconds since 1970, until the clock hears of it; else 0.
    clock_accepted_ms: AtomicI64,
    /// Bytes of released runs that a frame reads now.
    pub release_bytes: AtomicU64,
    /// Whether the disk is nearly full: only what people and the program itself say is taken, from the rest of it.
    pub disk_short: AtomicBool,
    /// Whether the record, the lake, has no room for more: only what people and the program itself say is taken.
    pub record_full: AtomicBool,
    /// Whether the process has too little memory: no more telemetry is taken.
    pub memory_short: AtomicBool,
}

impl LedgerClock for IntakeStats {
    fn shown(&self) -> Shown {
        Shown {
            clock_ms: self.clock_ms.load(Ordering::Relaxed) as i64,
            held_by_ms: self.clock_held_by_ms.load(Ordering::Relaxed),
        }
    }

    fn accept(&self, wall_ms: i64) {
        self.clock_accepted_ms.store(wall_ms, Ordering::Relaxed);
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

/// Bytes of telemetry that wait, by tenant, and how many may.
struct Tenants {
    waiting: Mutex<BTreeMap<String, usize>>,
    bound: usize,
}

impl Tenants {
    fn new(bound: usize) -> Self {
        Tenants { waiting: Mutex::default(), bound }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a tenant if there is some for it.
    fn take(&self, tenant: &str, bytes: usize) -> bool {
        let mut waiting = self.lock();
        let free = self.bound.saturating_sub(waiting.values().sum());
        let held = waiting.get(tenant).copied().unwrap_or(0);
        if held + bytes > free {
            return false;
        }
        waiting.insert(tenant.to_owned(), held + bytes);
        true
    }

    fn give_back(&self, tenant: &str, bytes: usize) {
        let mut waiting = self.lock();
        if let Some(held) = waiting.get_mut(tenant) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                waiting.remove(tenant);
            }
        }
    }
}

/// Ends intake when asked, after what was taken in is durable.
pub struct Running {
    thread: std::thread::JoinHandle<Segments>,
    stop: Option<oneshot::Sender<()>>,
}

impl Running {
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
) -> (Intake, Running) {
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
    (intake, Running { thread, stop: Some(stop) })
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
        shared: None,
        release_bytes: RELEASE_BYTES.2,
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

/// Whether an origin's inputs can wait while memory is short: telemetry and large uploads.
fn can_wait(origin: &Origin) -> bool {
    class(origin.kind) >= class(Kind::Syslog)
}

/// Whether an origin speaks of the system, not of the network.
fn own(origin: &Origin) -> bool {
    origin.kind == Kind::Fact
}

/// What parts take in a frame at most, bytes.
fn size(parts: &[Part], ranges: &[Range]) -> usize {
    let parts = parts.iter().map(|(origin, entries)| origin.most_bytes(entries)).sum::<usize>();
    parts + ranges.iter().map(Range::most_bytes).sum::<usize>()
}

impl FactSink for Intake {
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
            stats.awaited_bytes.fetch_add(bytes, Ordering::Relaxed);
            urgent.send(submission).await.map_err(|_| AppendError::Closed)?;
            permit.forget();
            answer.await.map_err(|_| AppendError::Closed)?
        })
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

fn cost(entries: &[Entry]) -> usize {
    entries.iter().map(|e| e.body.len() + ENTRY_OVERHEAD).sum()
}

struct Ticker {
    log: Segments,
    clock_ms: i64,
    time: Timekeeping,
    /// When the last frame was closed.
    last: Option<Instant>,
    deliver: Box<dyn FnMut(Arc<Frame>) + Send>,
    retire: Box<dyn FnMut() -> Option<u64> + Send>,
    stats: Arc<IntakeStats>,
    room: Arc<Semaphore>,
    tenants: Arc<Tenants>,
    progress: watch::Receiver<Progress>,
    /// The epoch that has a share of released runs and is not complete, and when it was closed.
    shared: Option<(u64, Instant)>,
    release_bytes: u32,
    bounds: Bounds,
    /// Frames that the dataflow is not done with, and their bytes.
    in_flight: VecDeque<(u64, usize)>,
}

/// Submissions that wait, a queue a class and tenant.
#[derive(Default)]
struct Waiting {
    queues: BTreeMap<(u8, String), VecDeque<Submission>>,
    bytes: usize,
}

/// Who comes first.
fn class(kind: Kind) -> u8 {
    match kind {
        Kind::Fact | Kind::Release | Kind::Counters => 0,
        Kind::Status => 1,
        Kind::Staged => 3,
        _ => 2,
    }
}

impl Waiting {
    fn push(&mut self, submission: Submission) {
        self.bytes += submission.bytes;
        let (class, tenant) = match submission.parts.first() {
            Some((origin, _)) => (class(origin.kind), origin.tenant.clone()),
            None => (0, String::new()),
        };
        self.queues.entry((class, tenant)).or_default().push_back(submission);
    }

    fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// A frame's worth: classes in order; within one, the tenant that has least so far. What does not fit into it any more
    /// waits for the next.
    fn take(&mut self, limit: usize) -> Vec<Submission> {
        let (mut taken, mut bytes, mut size) = (Vec::new(), 0, 0);
        let mut has: BTreeMap<String, usize> = BTreeMap::new();
        while bytes < limit
            && let Some((class, _)) = self.queues.keys().next().cloned()
        {
            let of_class = self.queues.keys().take_while(|(c, _)| *c == class);
            let Some(key) = of_class.min_by_key(|(_, t)| has.get(t).copied().unwrap_or(0)).cloned() else { break };
            let Some(queue) = self.queues.get_mut(&key) else { break };
            if queue.front().is_some_and(|next| size + next.size > MAX_SUBMISSION) {
                break;
            }
            if let Some(submission) = queue.pop_front() {
                size += submission.size;
                bytes += submission.bytes;
                *has.entry(key.1.clone()).or_default() += submission.bytes;
                taken.push(submission);
            }
            if queue.is_empty() {
                self.queues.remove(&key);
            }
        }
        self.bytes -= bytes;
        taken
    }
}

impl Ticker {
    async fn run(
        &mut self,
        mut urgent: mpsc::Receiver<Submission>,
        mut telemetry: mpsc::Receiver<Submission>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut waiting = Waiting::default();
        let mut next_retire = Instant::now() + IDLE_TICK;
        let mut stopping = false;
        loop {
            let idle_at = self.last.map_or_else(Instant::now, |at| at + IDLE_TICK);
            while waiting.is_empty() && !stopping && !self.wants_more() {
                tokio::select! {
                    biased;
                    _ = &mut stopped => stopping = true,
                    Some(first) = urgent.recv() => waiting.push(first),
                    Some(first) = telemetry.recv() => waiting.push(first),
                    Ok(()) = self.progress.changed() => self.adapt(),
                    () = tokio::time::sleep_until(idle_at.into()) => break,
                }
            }
            // Company is welcome until the tick is over, or the dataflow asks for more.
            let close_at = self.last.map_or_else(Instant::now, |at| at + TICK);
            while !waiting.is_empty() && !stopping && waiting.bytes < FRAME_BYTES && !self.wants_more() {
                tokio::select! {
                    biased;
                    Some(more) = urgent.recv() => waiting.push(more),
                    Some(more) = telemetry.recv() => waiting.push(more),
                    Ok(()) = self.progress.changed() => self.adapt(),
                    () = tokio::time::sleep_until(close_at.into()) => break,
                    _ = &mut stopped => stopping = true,
                }
            }
            // What came meanwhile is put in order before it is taken.
            while waiting.bytes < self.bounds.queue
                && let Ok(more) = urgent.try_recv().or_else(|_| telemetry.try_recv())
            {
                waiting.push(more);
            }
            if stopping {
                urgent.close();
                telemetry.close();
                while let Ok(more) = urgent.try_recv() {
                    waiting.push(more);
                }
                while let Ok(more) = telemetry.try_recv() {
                    waiting.push(more);
                }
            }
            self.await_room().await;
            if !self.close(waiting.take(FRAME_BYTES)) {
                tokio::time::sleep(IDLE_TICK).await;
            }
            if stopping && waiting.is_empty() {
                self.time.keep();
                return;
            }
            if Instant::now() >= next_retire {
                next_retire = Instant::now() + IDLE_TICK;
                self.stats.disk_bytes.store(self.log.bytes(), Ordering::Relaxed);
                if let Some(epoch) = (self.retire)()
                    && let Err(error) = self.log.trim(epoch)
                {
                    tracing::warn!(%error, "old ledger segments could not be removed");
                }
            }
        }
    }

    /// Waits until the dataflow is done with so much that another frame may be closed.
    async fn await_room(&mut self) {
        loop {
            let done = self.progress.borrow_and_update().epoch;
            while self.in_flight.front().is_some_and(|(epoch, _)| *epoch <= done) {
                self.in_flight.pop_front();
            }
            let bytes = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
            self.stats.in_flight_bytes.store(bytes, Ordering::Relaxed);
            // Where nobody tells of progress any more, nothing is waited for.
            if bytes <= self.bounds.in_flight || self.progress.changed().await.is_err() {
                return;
            }
            self.adapt();
        }
    }

    /// Whether released runs wait for a frame and the dataflow is done with the last.
    fn wants_more(&self) -> bool {
        let progress = *self.progress.borrow();
        progress.released && progress.epoch + 1 >= self.log.next_epoch()
    }

    /// Bytes of released runs that the next frame reads.
    fn share(&self) -> u32 {
        match (self.shared, self.wants_more()) {
            (Some(_), _) => 0,
            (None, true) => self.release_bytes,
            // Under a load that never lets it catch up, uploads still come to their end.
            (None, false) if self.progress.borrow().released => RELEASE_BYTES.0,
            (None, false) => 0,
        }
    }

    /// Sets the share of released runs by the time that the last one took.
    fn adapt(&mut self) {
        let progress = *self.progress.borrow();
        let Some((_, since)) = self.shared.take_if(|(epoch, _)| progress.epoch >= *epoch) else { return };
        let took = since.elapsed();
        if took > WORK {
            self.release_bytes = (self.release_bytes / 2).max(RELEASE_BYTES.0);
        } else if took < WORK * 2 / 3 {
            self.release_bytes = (self.release_bytes / 4 * 5).min(RELEASE_BYTES.1);
        }
        self.stats.release_bytes.store(self.release_bytes.into(), Ordering::Relaxed);
    }

    /// Tells whether the clock follows the wall.
    fn note_clock(&self, told: Told) {
        let held = u64::from(told.held_by_ms != 0);
        self.stats.clock_held_by_ms.store(told.held_by_ms, Ordering::Relaxed);
        let was_held = self.stats.clock_held.swap(held, Ordering::Relaxed);
        let Told { clock_ms, held_by_ms, .. } = told;
        if held > was_held {
            tracing::error!(clock_ms, held_by_ms, "the wall clock is off by more than a minute; not following it");
        } else if held < was_held {
            tracing::info!(clock_ms, "following the wall clock again");
        }
    }

    /// Makes a frame of what waits, writes it, acknowledges, hands it on.
    fn close(&mut self, waiting: Vec<Submission>) -> bool {
        let now = Instant::now();
        let accepted_ms = self.stats.clock_accepted_ms.swap(0, Ordering::Relaxed);
        if accepted_ms != 0 {
            self.time.accept(accepted_ms);
        }
        let (follower, told) = self.time.next(self.clock_ms);
        let Told { clock_ms, gap_ms, .. } = told;
        let mut slices: Vec<Slice> = Vec::new();
        let mut by_origin: BTreeMap<Arc<Origin>, usize> = BTreeMap::new();
        let mut ranges = Vec::new();
        let mut answers = Vec::new();
        let (mut bytes, mut entries, mut unanswered) = (0usize, 0u64, 0u64);
        for submission in waiting {
            bytes += submission.bytes;
            let count = submission.parts.iter().map(|(_, entries)| entries.len() as u64).sum::<u64>();
            entries += count;
            ranges.extend(submission.ranges);
            match submission.done {
                Some(done) => {
                    self.room.add_permits(submission.bytes);
                    self.stats.awaited_bytes.fetch_sub(submission.bytes, Ordering::Relaxed);
                    answers.push(done);
                }
                None => {
                    self.stats.queued_bytes.fetch_sub(submission.bytes, Ordering::Relaxed);
                    if let Some((origin, _)) = submission.parts.first() {
                        self.tenants.give_back(&origin.tenant, submission.bytes);
                    }
                    unanswered += count;
                }
            }
            for (origin, entries) in submission.parts {
                let slot = *by_origin.entry(origin.clone()).or_insert_with(|| {
                    slices.push(Slice { origin: (*origin).clone(), first_position: 0, entries: Vec::new() });
                    slices.len() - 1
                });
                slices[slot].entries.extend(entries);
            }
        }
        // State and commands before telemetry; positions are fixed here.
        slices.sort_by_key(|s| class(s.origin.kind));
        let mut position = 0u32;
        for slice in &mut slices {
            slice.first_position = position;
            position += slice.entries.len() as u32;
        }
        let epoch = self.log.next_epoch();
        self.adapt();
        let release_bytes = self.share();
        let frame = Frame { generation: self.log.generation(), epoch, clock_ms, gap_ms, release_bytes, ranges, slices };
        let result = self.log.append(&frame);
        self.stats.write_us.fetch_add(now.elapsed().as_micros() as u64, Ordering::Relaxed);
        match result {
            Ok(()) => {
                self.clock_ms = clock_ms;
                self.time.told(follower);
                self.note_clock(told);
                self.last = Some(now);
                if release_bytes > 0 {
                    self.shared = Some((epoch, Instant::now()));
                }
                self.in_flight.push_back((epoch, bytes));
                self.stats.frames.fetch_add(1, Ordering::Relaxed);
                self.stats.entries.fetch_add(entries, Ordering::Relaxed);
                self.stats.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                self.stats.epoch.store(epoch, Ordering::Relaxed);
                self.stats.clock_ms.store(clock_ms as u64, Ordering::Relaxed);
                for answer in answers {
                    let _ = answer.send(Ok(epoch));
                }
                (self.deliver)(Arc::new(frame));
                true
            }
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be written; intake stops until it can");
                self.stats.shed.fetch_add(unanswered, Ordering::Relaxed);
                let refused = AppendError::Storage(error.to_string());
                for answer in answers {
                    let _ = answer.send(Err(refused.clone()));
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Reading;
    use super::super::clock::tests::Hands;
    use super::*;
    use crate::clock::SystemClock;
    use bytes::Bytes;

    fn entry(text: &str) -> Entry {
        Entry { peer: None, received_us: 1, body: Bytes::copy_from_slice(text.as_bytes()) }
    }

    #[test]
    fn commands_go_first_and_who_floods_leaves_room() {
        let mut waiting = Waiting::default();
        let submit = |waiting: &mut Waiting, kind, tenant: &str, n: usize| {
            for _ in 0..n {
                let feed = "f".to_owned();
                let origin = Arc::new(Origin { kind, tenant: tenant.to_owned(), partition: "p".to_owned(), feed });
                let parts = vec![(origin, vec![])];
                waiting.push(Submission { parts, ranges: vec![], bytes: 1000, size: 1000, done: None });
            }
        };
        submit(&mut waiting, Kind::Staged, "a", 5);
        submit(&mut waiting, Kind::Syslog, "a", 90);
        submit(&mut waiting, Kind::Syslog, "b", 10);
        submit(&mut waiting, Kind::Fact, "b", 1);
        let taken = waiting.take(21_000);
        let of = |kind, tenant: &str| {
            let is = |s: &&Submission| s.parts[0].0.kind == kind && s.parts[0].0.tenant == tenant;
            taken.iter().filter(is).count()
        };
        assert_eq!(taken[0].parts[0].0.kind, Kind::Fact);
        // The command counts: b has one syslog message less.
        assert_eq!((of(Kind::Syslog, "a"), of(Kind::Syslog, "b"), of(Kind::Staged, "a")), (11, 9, 0));
        assert_eq!(waiting.take(usize::MAX).len(), 106 - 21);
        assert!(waiting.is_empty() && waiting.bytes == 0);

        let queue = 128 << 20;
        let tenants = Tenants::new(queue);
        let flood = (0..).take_while(|_| tenants.take("a", 1 << 20)).count();
        assert_eq!(flood, (queue / 2) >> 20);
        assert!(tenants.take("b", queue / 4));
        assert!(!tenants.take("a", 1));
        tenants.give_back("a", queue / 2);
        assert!(tenants.take("a", 1 << 20));
    }

    #[test]
    fn what_does_not_fit_into_a_frame_waits_for_the_next() {
        let mut waiting = Waiting::default();
        let submit = |waiting: &mut Waiting, kind, bytes, size| {
            waiting.push(Submission { parts: vec![(origin(kind), vec![])], ranges: vec![], bytes, size, done: None });
        };
        // A small queue counts what is large only as far as it reaches.
        for size in [MAX_SUBMISSION / 2, MAX_SUBMISSION / 3, MAX_SUBMISSION / 3, MAX_SUBMISSION] {
            submit(&mut waiting, Kind::Status, 1000, size);
        }
        submit(&mut waiting, Kind::Fact, 10, 10);
        let frames: Vec<usize> = std::iter::from_fn(|| {
            let taken = waiting.take(FRAME_BYTES);
            assert!(taken.iter().map(|s| s.size).sum::<usize>() <= MAX_SUBMISSION);
            (!taken.is_empty()).then_some(taken.len())
        })
        .collect();
        assert_eq!((frames, waiting.bytes), (vec![3, 1, 1], 0));
    }

    #[tokio::test]
    async fn what_no_frame_can_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (_progress, paced) = watch::channel(Progress::default());
        let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
        let (intake, running) = start(log, paced, |_| {}, || None, Bounds::default(), time(&dir));
        // The same megabytes, again and again: they are not copied before they are looked at.
        let part = Entry { peer: None, received_us: 1, body: Bytes::from(vec![b'x'; 16 << 20]) };
        let parts = vec![part; MAX_FRAME >> 24];
        let refused = intake.append(origin(Kind::Status), parts.clone()).await.unwrap_err();
        assert!(matches!(refused, AppendError::TooLarge { bytes, most } if bytes > most), "{refused}");
        assert!(refused.to_string().contains("in parts"), "{refused}");
        assert_eq!(intake.offer(origin(Kind::Syslog), parts).unwrap_err().len(), MAX_FRAME >> 24);
        // It takes no place of what follows.
        intake.append(origin(Kind::Status), vec![entry("next")]).await.unwrap();
        drop(intake);
        tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_acknowledged_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
        let (seen, frames) = std::sync::mpsc::channel();
        let (_progress, paced) = watch::channel(Progress::default());
        let (intake, running) =
            start(log, paced, move |f| seen.send(f).unwrap(), || None, Bounds::default(), time(&dir));
        let origin =
            Arc::new(Origin { kind: Kind::Syslog, tenant: "t".into(), partition: "p".into(), feed: "f".into() });
        let appended =
            futures::future::join_all((0..50).map(|i| intake.append(origin.clone(), vec![entry(&i.to_string())])))
                .await;
        let last = appended.into_iter().map(|r| r.unwrap()).max().unwrap();
        let mut on_disk = 0;
        Segments::open(crate::disk::os(), dir.path(), 0).unwrap().replay(0, |f| on_disk += f.entries()).unwrap();
        assert_eq!(on_disk, 50);
        intake.offer(origin.clone(), vec![entry("late")]).unwrap();
        drop(intake);
        let log = tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
        let delivered: Vec<_> = frames.iter().collect();
        assert_eq!(delivered.iter().map(|f| f.entries()).sum::<usize>(), 51);
        assert!(delivered.windows(2).all(|w| w[0].epoch + 1 == w[1].epoch && w[0].clock_ms <= w[1].clock_ms));
        assert!(last <= delivered.last().unwrap().epoch && log.next_epoch() == delivered.last().unwrap().epoch + 1);
    }

    fn time(dir: &tempfile::TempDir) -> Timekeeping {
        Timekeeping::new(crate::disk::os(), Arc::new(SystemClock), dir.path().join("clock"))
    }

    fn origin(kind: Kind) -> Arc<Origin> {
        Arc::new(Origin { kind, tenant: "t".into(), partition: "p".into(), feed: "f".into() })
    }

    #[tokio::test]
    async fn no_more_frames_are_closed_than_the_dataflow_may_be_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (seen, mut frames) = mpsc::unbounded_channel();
        let (progress, paced) = watch::channel(Progress::default());
        let bounds = Bounds { in_flight: 0, ..Bounds::default() };
        let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
        let (intake, running) = start(log, paced, move |f| seen.send(f).unwrap(), || None, bounds, time(&dir));
        for n in 0..2 {
            intake.offer(origin(Kind::Syslog), vec![entry(&n.to_string())]).unwrap();
            let frame: Arc<Frame> = loop {
                let frame: Arc<Frame> = frames.recv().await.unwrap();
                progress.send_replace(Progress { epoch: frame.epoch.saturating_sub(1), released: false });
                if frame.entries() > 0 {
                    break frame;
                }
                progress.send_replace(Progress { epoch: frame.epoch, released: false });
            };
            // It is not done with this one: even time stands still.
            let more = tokio::time::timeout(IDLE_TICK * 2, frames.recv()).await;
            assert!(more.is_err() && intake.stats().in_flight_bytes.load(Ordering::Relaxed) > 0);
            progress.send_replace(Progress { epoch: frame.epoch, released: false });
        }
        drop(progress);
        tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_leap_of_the_wall_is_told_and_followed_once_it_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let (t0, year) = (1_767_225_600_000, 365 * 86_400_000);
        let hands = Arc::new(Hands(Mutex::new(Reading { wall_ms: t0, monotonic_ms: 0 })));
        let time = Timekeeping::new(crate::disk::os(), hands.clone(), dir.path().join("clock"));
        let (seen, mut frames) = mpsc::unbounded_channel();
        let (_progress, paced) = watch::channel(Progress::default());
        let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
        let (intake, running) = start(log, paced, move |f| seen.send(f).unwrap(), || None, Bounds::default(), time);
        let at = |wall_ms, monotonic_ms| *hands.0.lock().unwrap() = Reading { wall_ms, monotonic_ms };
        // A frame that was closed after the clocks were set: the one after the next.
        let mut frame = async || {
            frames.recv().await;
            let frame: Arc<Frame> = frames.recv().await.unwrap();
            (frame.clock_ms, frame.gap_ms)
        };
        assert_eq!(frame().await, (t0, 0));
        at(t0 + year, 1000);
        assert_eq!(frame().await, (t0 + 1000, 0));
        assert_eq!(intake.stats().shown(), Shown { clock_ms: t0 + 1000, held_by_ms: year - 1000 });
        intake.stats().accept(t0 + year);
        let mut leapt = frame().await;
        while leapt.0 == t0 + 1000 {
            leapt = frame().await;
        }
        assert_eq!((leapt.0, intake.stats().shown().held_by_ms), (t0 + year, 0));
        drop(intake);
        let log = tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
        let mut gaps = Vec::new();
        log.replay(0, |frame| gaps.extend((frame.gap_ms > 0).then_some(frame.gap_ms))).unwrap();
        assert_eq!(gaps, [year - 1000], "nobody could have heard anything in that year");
    }

    #[tokio::test]
    async fn short_of_memory_telemetry_is_shed_or_waits_and_facts_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let (_progress, paced) = watch::channel(Progress::default());
        let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
        let (intake, running) = start(log, paced, |_| {}, || None, Bounds::default(), time(&dir));
        intake.stats().memory_short.store(true, Ordering::Relaxed);
        assert_eq!(intake.offer(origin(Kind::Syslog), vec![entry("datagram")]).unwrap_err().len(), 1);
        let waits = tokio::spawn(intake.append(origin(Kind::Syslog), vec![entry("acknowledged")]));
        let fact = intake.append(origin(Kind::Fact), vec![entry("{}")]).await.unwrap();
        let state = intake.append(origin(Kind::Status), vec![entry("{}")]).await.unwrap();
        assert!(state >= fact && !waits.is_finished());
        intake.stats().memory_short.store(false, Ordering::Relaxed);
        assert!(waits.await.unwrap().unwrap() > state);
        intake.offer(origin(Kind::Syslog), vec![entry("datagram")]).unwrap();
        drop(intake);
        tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
    }
}
