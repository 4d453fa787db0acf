//! The tick: closes a frame of what waits, makes it durable, acknowledges, hands it on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use radarflow_proto::frame::{Frame, Origin, Slice};
use radarflow_proto::ports::AppendError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::super::clock::{FrameTime, Timekeeping};
use super::super::segments::Segments;
use super::queue::{Submission, Tenants, Waiting, class};
use super::releases::Releases;
use super::{Bounds, FRAME_BYTES, IDLE_TICK, IntakeStats, Progress, TICK};

/// Closes frames.
pub(super) struct Ticker {
    pub(super) log: Segments,
    pub(super) clock_ms: i64,
    pub(super) time: Timekeeping,
    /// When the last frame was closed.
    pub(super) last: Option<Instant>,
    pub(super) deliver: Box<dyn FnMut(Arc<Frame>) + Send>,
    pub(super) retire: Box<dyn FnMut() -> Option<u64> + Send>,
    pub(super) stats: Arc<IntakeStats>,
    pub(super) room: Arc<Semaphore>,
    pub(super) tenants: Arc<Tenants>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) releases: Releases,
    pub(super) bounds: Bounds,
    /// Frames that the dataflow is not done with, and their bytes.
    pub(super) in_flight: VecDeque<(u64, usize)>,
}

impl Ticker {
    pub(super) async fn run(
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

    /// Sets the share of released runs by the time that the last one took.
    fn adapt(&mut self) {
        let epoch = self.progress.borrow().epoch;
        self.releases.adapt(epoch, self.time.monotonic());
        self.stats.release_bytes.store(self.releases.bytes().into(), Ordering::Relaxed);
    }

    /// Tells whether the clock follows the wall.
    fn note_clock(&self, told: FrameTime) {
        let held = u64::from(told.held_by_ms != 0);
        self.stats.clock_held_by_ms.store(told.held_by_ms, Ordering::Relaxed);
        let was_held = self.stats.clock_held.swap(held, Ordering::Relaxed);
        let FrameTime { clock_ms, held_by_ms, .. } = told;
        if held > was_held {
            tracing::error!(clock_ms, held_by_ms, "the wall clock is off by more than a minute; not following it");
        } else if held < was_held {
            tracing::info!(clock_ms, "following the wall clock again");
        }
    }

    /// Makes a frame of what waits, writes it, acknowledges, hands it on.
    pub(super) fn close(&mut self, waiting: Vec<Submission>) -> bool {
        let now = Instant::now();
        let accepted_ms = self.stats.clock_accepted_ms.swap(0, Ordering::Relaxed);
        if accepted_ms != 0 {
            self.time.accept(accepted_ms);
        }
        let (follower, told) = self.time.next(self.clock_ms);
        let FrameTime { clock_ms, mut gap_ms, .. } = told;
        // Whom nothing is taken of nobody could have heard: no time passes for them.
        if self.stats.disk_short.load(Ordering::Relaxed) || self.stats.record_full.load(Ordering::Relaxed) {
            gap_ms = gap_ms.max(clock_ms - self.clock_ms);
        }
        let mut slices: Vec<Slice> = Vec::new();
        let mut by_origin: BTreeMap<Arc<Origin>, usize> = BTreeMap::new();
        let mut ranges = Vec::new();
        let mut answers = Vec::new();
        let (mut bytes, mut entries, mut unanswered) = (0usize, 0u64, 0u64);
        for submission in waiting {
            // Who waited for it has left, was told nothing, and says it again: it is not said twice.
            if submission.done.as_ref().is_some_and(oneshot::Sender::is_closed) {
                self.room.add_permits(submission.bytes);
                self.stats.awaited_bytes.fetch_sub(submission.bytes, Ordering::Relaxed);
                self.stats.given_up.fetch_add(1, Ordering::Relaxed);
                continue;
            }
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
        let (released, wants_more) = (self.progress.borrow().released, self.wants_more());
        let release_bytes = self.releases.share(released, wants_more);
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
                    self.releases.given(epoch, self.time.monotonic());
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
