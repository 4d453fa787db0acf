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
//! When the disk refuses, waiting senders get the error, offered inputs are counted as shed, and the next tick tries
//! again: intake goes on by itself when there is room.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use radarflow_proto::frame::{Entry, Frame, Kind, Origin, Range, Slice};
use radarflow_proto::ports::{AppendError, BoxFuture, FactSink};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::clock;
use super::segments::Segments;

/// Least time between two frames with content.
pub const TICK: Duration = Duration::from_millis(100);
/// An idle ledger says so much often that time passes.
pub const IDLE_TICK: Duration = Duration::from_secs(1);
/// Bytes of input a frame takes; what is left waits for the next.
pub const FRAME_BYTES: usize = 8 << 20;
/// Bytes of input that may wait, of either queue.
pub const QUEUE_BYTES: usize = 128 << 20;
/// Submissions that may wait, of either queue.
const QUEUE_LENGTH: usize = 65_536;
/// What an entry costs beside its bytes.
const ENTRY_OVERHEAD: usize = 64;

struct Submission {
    origin: Arc<Origin>,
    entries: Vec<Entry>,
    range: Option<Range>,
    bytes: usize,
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
    /// Whether the wall clock is too far off to follow.
    pub clock_held: AtomicU64,
}

/// The way in.
#[derive(Clone)]
pub struct Intake {
    urgent: mpsc::Sender<Submission>,
    telemetry: mpsc::Sender<Submission>,
    room: Arc<Semaphore>,
    stats: Arc<IntakeStats>,
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
    deliver: impl FnMut(Arc<Frame>) + Send + 'static,
    retire: impl FnMut() -> Option<u64> + Send + 'static,
) -> (Intake, Running) {
    let (urgent, urgent_queue) = mpsc::channel(QUEUE_LENGTH);
    let (telemetry, telemetry_queue) = mpsc::channel(QUEUE_LENGTH);
    let room = Arc::new(Semaphore::new(QUEUE_BYTES));
    let stats = Arc::new(IntakeStats::default());
    let (stop, stopped) = oneshot::channel();
    let mut ticker = Ticker {
        clock_ms: log.last_clock_ms(),
        log,
        last: None,
        deliver: Box::new(deliver),
        retire: Box::new(retire),
        stats: stats.clone(),
        room: room.clone(),
    };
    let thread = std::thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
            runtime.block_on(ticker.run(urgent_queue, telemetry_queue, stopped));
            ticker.log
        })
        .expect("the ledger's thread starts");
    (Intake { urgent, telemetry, room, stats }, Running { thread, stop: Some(stop) })
}

impl Intake {
    /// What it did so far.
    pub fn stats(&self) -> &Arc<IntakeStats> {
        &self.stats
    }

    /// Appends what was read from a feed with offsets of its own; they are durable with it.
    pub fn append_range(
        &self,
        origin: Arc<Origin>,
        entries: Vec<Entry>,
        range: Option<Range>,
    ) -> BoxFuture<Result<u64, AppendError>> {
        let (urgent, room) = (self.urgent.clone(), self.room.clone());
        Box::pin(async move {
            let bytes = cost(&entries).min(QUEUE_BYTES);
            let permit = room.acquire_many(bytes as u32).await.map_err(|_| AppendError::Closed)?;
            let (done, answer) = oneshot::channel();
            let submission = Submission { origin, entries, range, bytes, done: Some(done) };
            urgent.send(submission).await.map_err(|_| AppendError::Closed)?;
            permit.forget();
            answer.await.map_err(|_| AppendError::Closed)?
        })
    }
}

impl FactSink for Intake {
    fn append(&self, origin: Arc<Origin>, entries: Vec<Entry>) -> BoxFuture<Result<u64, AppendError>> {
        self.append_range(origin, entries, None)
    }

    fn offer(&self, origin: Arc<Origin>, entries: Vec<Entry>) -> Result<(), Vec<Entry>> {
        let bytes = cost(&entries);
        if self.stats.queued_bytes.load(Ordering::Relaxed) + bytes > QUEUE_BYTES {
            return Err(entries);
        }
        let submission = Submission { origin, entries, range: None, bytes, done: None };
        match self.telemetry.try_send(submission) {
            Ok(()) => {
                self.stats.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(s) | mpsc::error::TrySendError::Closed(s)) => Err(s.entries),
        }
    }
}

fn cost(entries: &[Entry]) -> usize {
    entries.iter().map(|e| e.body.len() + ENTRY_OVERHEAD).sum()
}

struct Ticker {
    log: Segments,
    clock_ms: i64,
    /// When the last frame was closed.
    last: Option<Instant>,
    deliver: Box<dyn FnMut(Arc<Frame>) + Send>,
    retire: Box<dyn FnMut() -> Option<u64> + Send>,
    stats: Arc<IntakeStats>,
    room: Arc<Semaphore>,
}

impl Ticker {
    async fn run(
        &mut self,
        mut urgent: mpsc::Receiver<Submission>,
        mut telemetry: mpsc::Receiver<Submission>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut waiting: Vec<Submission> = Vec::new();
        let mut next_retire = Instant::now() + IDLE_TICK;
        let mut stopping = false;
        loop {
            let idle_at = self.last.map_or_else(Instant::now, |at| at + IDLE_TICK);
            tokio::select! {
                biased;
                _ = &mut stopped, if !stopping => stopping = true,
                Some(first) = urgent.recv() => waiting.push(first),
                Some(first) = telemetry.recv() => waiting.push(first),
                () = tokio::time::sleep_until(idle_at.into()) => {}
            }
            if !waiting.is_empty() && !stopping {
                // Company is welcome until the tick is over.
                let close_at = self.last.map_or_else(Instant::now, |at| at + TICK);
                let mut bytes: usize = waiting.iter().map(|s| s.bytes).sum();
                while bytes < FRAME_BYTES {
                    let more = tokio::select! {
                        biased;
                        Some(more) = urgent.recv() => Some(more),
                        Some(more) = telemetry.recv() => Some(more),
                        () = tokio::time::sleep_until(close_at.into()) => None,
                        _ = &mut stopped, if !stopping => { stopping = true; None }
                    };
                    let Some(more) = more else { break };
                    bytes += more.bytes;
                    waiting.push(more);
                }
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
            self.close(std::mem::take(&mut waiting)).await;
            if stopping {
                return;
            }
            if Instant::now() >= next_retire {
                next_retire = Instant::now() + IDLE_TICK;
                if let Some(epoch) = (self.retire)()
                    && let Err(error) = self.log.trim(epoch)
                {
                    tracing::warn!(%error, "old ledger segments could not be removed");
                }
            }
        }
    }

    /// Makes a frame of what waits, writes it, acknowledges, hands it on.
    async fn close(&mut self, waiting: Vec<Submission>) {
        let now = Instant::now();
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        let (clock_ms, gap_ms) = match self.last {
            None => clock::resume(self.clock_ms, wall_ms),
            Some(last) => {
                let (clock_ms, held) =
                    clock::advance(self.clock_ms, now.duration_since(last).as_millis() as i64, wall_ms);
                if held && self.stats.clock_held.swap(1, Ordering::Relaxed) == 0 {
                    tracing::error!(
                        clock_ms,
                        wall_ms,
                        "the wall clock stepped by more than a minute; not following it"
                    );
                } else if !held {
                    self.stats.clock_held.store(0, Ordering::Relaxed);
                }
                (clock_ms, 0)
            }
        };
        let mut slices: Vec<Slice> = Vec::new();
        let mut by_origin: BTreeMap<Arc<Origin>, usize> = BTreeMap::new();
        let mut ranges = Vec::new();
        let mut answers = Vec::new();
        let (mut bytes, mut entries, mut unanswered) = (0, 0u64, 0u64);
        for submission in waiting {
            bytes += submission.bytes;
            entries += submission.entries.len() as u64;
            ranges.extend(submission.range);
            match submission.done {
                Some(done) => {
                    self.room.add_permits(submission.bytes);
                    answers.push(done);
                }
                None => {
                    self.stats.queued_bytes.fetch_sub(submission.bytes, Ordering::Relaxed);
                    unanswered += submission.entries.len() as u64;
                }
            }
            let slot = *by_origin.entry(submission.origin.clone()).or_insert_with(|| {
                slices.push(Slice { origin: (*submission.origin).clone(), first_position: 0, entries: Vec::new() });
                slices.len() - 1
            });
            slices[slot].entries.extend(submission.entries);
        }
        // State and commands before telemetry; positions are fixed here.
        slices.sort_by_key(|s| !matches!(s.origin.kind, Kind::Fact | Kind::Status | Kind::Staged | Kind::Release));
        let mut position = 0u32;
        for slice in &mut slices {
            slice.first_position = position;
            position += slice.entries.len() as u32;
        }
        let epoch = self.log.next_epoch();
        let frame = Frame { generation: self.log.generation(), epoch, clock_ms, gap_ms, ranges, slices };
        let result = self.log.append(&frame);
        self.stats.write_us.fetch_add(now.elapsed().as_micros() as u64, Ordering::Relaxed);
        match result {
            Ok(()) => {
                self.clock_ms = clock_ms;
                self.last = Some(now);
                self.stats.frames.fetch_add(1, Ordering::Relaxed);
                self.stats.entries.fetch_add(entries, Ordering::Relaxed);
                self.stats.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                self.stats.epoch.store(epoch, Ordering::Relaxed);
                self.stats.clock_ms.store(clock_ms as u64, Ordering::Relaxed);
                for answer in answers {
                    let _ = answer.send(Ok(epoch));
                }
                (self.deliver)(Arc::new(frame));
            }
            Err(error) => {
                tracing::error!(%error, "the ledger cannot be written; intake stops until it can");
                self.stats.shed.fetch_add(unanswered, Ordering::Relaxed);
                let refused = AppendError::Storage(error.to_string());
                for answer in answers {
                    let _ = answer.send(Err(refused.clone()));
                }
                tokio::time::sleep(IDLE_TICK).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(text: &str) -> Entry {
        Entry { peer: None, received_us: 1, body: Bytes::copy_from_slice(text.as_bytes()) }
    }

    #[tokio::test]
    async fn what_is_acknowledged_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let log = Segments::open(dir.path()).unwrap();
        let (seen, frames) = std::sync::mpsc::channel();
        let (intake, running) = start(log, move |f| seen.send(f).unwrap(), || None);
        let origin =
            Arc::new(Origin { kind: Kind::Syslog, tenant: "t".into(), partition: "p".into(), feed: "f".into() });
        let appended =
            futures::future::join_all((0..50).map(|i| intake.append(origin.clone(), vec![entry(&i.to_string())])))
                .await;
        let last = appended.into_iter().map(|r| r.unwrap()).max().unwrap();
        let mut on_disk = 0;
        Segments::open(dir.path()).unwrap().replay(0, |f| on_disk += f.entries()).unwrap();
        assert_eq!(on_disk, 50);
        intake.offer(origin.clone(), vec![entry("late")]).unwrap();
        drop(intake);
        let log = tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
        let delivered: Vec<_> = frames.iter().collect();
        assert_eq!(delivered.iter().map(|f| f.entries()).sum::<usize>(), 51);
        assert!(delivered.windows(2).all(|w| w[0].epoch + 1 == w[1].epoch && w[0].clock_ms <= w[1].clock_ms));
        assert!(last <= delivered.last().unwrap().epoch && log.next_epoch() == delivered.last().unwrap().epoch + 1);
    }
}
