//! One live query, from its first event to its last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use radarflow_proto::rows::Table;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::engine::encode::json_rows;
use crate::error::QueryError;
use crate::live::answer::Answer;
use crate::live::events::Event;
use crate::live::kept::{Asked, How, MAX_ROWS, Rows, count};
use crate::live::waiting::{Room, Running};
use crate::tables::recent::Next;
use crate::tables::view::View;

/// How long a client may take nothing while something waits for it.
pub const SLOW: Duration = Duration::from_secs(30);
/// Rows of one event.
const ROWS_EVENT: usize = 1000;
/// How often a client hears that nothing happened.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Least time between two askings.
pub(super) const AGAIN: Duration = Duration::from_millis(200);
/// How often a span of time that slides is looked at.
const SLIDE: Duration = Duration::from_secs(5);

/// A live query.
pub(super) struct Stream {
    pub(super) asked: Asked,
    /// The tables it reads.
    pub(super) tables: Vec<Table>,
    /// How far its answer is kept, unless more would have to be kept than may be.
    pub(super) how: Mutex<Option<How>>,
    /// Whether the clock alone changes its answer.
    pub(super) slides: bool,
    pub(super) to: mpsc::Sender<(Event, Room)>,
    /// The last epoch that its client was told everything of; 0 for none.
    pub(super) told: AtomicU64,
    /// What its client hears when it has taken everything else.
    pub(super) last: Arc<Mutex<Option<Event>>>,
    pub(super) running: Running,
    /// How long its client may take nothing.
    pub(super) slow: Duration,
}

/// Why a stream ends.
pub(super) enum Ended {
    /// The client left, or the server stops.
    Quietly,
    /// The client takes nothing.
    Slow,
    /// It has to be said.
    Failed(QueryError),
}

impl From<QueryError> for Ended {
    fn from(error: QueryError) -> Self {
        Ended::Failed(error)
    }
}

impl Stream {
    /// Follows the query until its client leaves, its token ends, or the server does.
    pub(super) async fn run(self, seen: Option<u64>, mut closing: watch::Receiver<bool>) {
        let ended = tokio::select! {
            ended = self.follow(seen) => ended,
            _ = closing.wait_for(|closing| *closing) => Ended::Quietly,
            () = self.asked.actor.grant.ended() => Ended::Failed(QueryError::Ended),
            () = self.to.closed() => return,
        };
        let last = match ended {
            Ended::Quietly => Event::End,
            Ended::Slow => Event::TooSlow(Some(self.told.load(Ordering::Relaxed)).filter(|told| *told > 0)),
            Ended::Failed(error) => Event::Failed(error.to_string()),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    async fn follow(&self, mut seen: Option<u64>) -> Ended {
        let mut reset = seen.is_some();
        loop {
            match self.keep_told(reset, seen.take()).await {
                // It fell behind, or cannot be kept as it was.
                Ok(()) => reset = true,
                Err(ended) => return ended,
            }
        }
    }

    /// Sends an event once there is room for it; who takes nothing meanwhile is too slow.
    pub(super) async fn send(&self, event: Event) -> Result<(), Ended> {
        let (bytes, told) = (event.weight(), event.id().and_then(|id| id.parse().ok()));
        let sent = async {
            let room = self.running.wait_for_room(bytes).await;
            self.to.send((event, room)).await
        };
        match tokio::time::timeout(self.slow, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(Ended::Quietly),
            Err(_) => return Err(Ended::Slow),
        }
        told.into_iter().for_each(|told| self.told.store(told, Ordering::Relaxed));
        Ok(())
    }

    /// Says how far it is, if there is room. Where there is none, a client has enough to read.
    fn offer_frontier(&self, epoch: u64) -> Result<(), Ended> {
        let event = Event::Frontier(epoch);
        let Some(room) = self.running.room(event.weight()) else { return Ok(()) };
        match self.to.try_send((event, room)) {
            Ok(()) => self.told.store(epoch, Ordering::Relaxed),
            Err(mpsc::error::TrySendError::Full(_)) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Ended::Quietly),
        }
        Ok(())
    }

    /// A snapshot, and changes until the stream falls behind.
    async fn keep_told(&self, reset: bool, seen: Option<u64>) -> Result<(), Ended> {
        let live = self.asked.engine.live();
        let mut answer = self.answer(reset, seen).await?;
        let (mut told, mut told_at, mut looked_at, mut heard) = (answer.at, Instant::now(), Instant::now(), answer.at);
        loop {
            let wait = if answer.waits() { answer.pause.saturating_sub(looked_at.elapsed()) } else { HEARTBEAT };
            match tokio::time::timeout(wait.min(HEARTBEAT), live.next(heard)).await {
                Ok(Next::Epoch(output)) => {
                    heard = output.epoch;
                    if output.epoch > answer.at {
                        answer.take(&output).await?;
                    }
                }
                Ok(Next::Missed) if answer.kept.is_some() => return Ok(()),
                // What is asked for again needs none of them.
                Ok(Next::Missed) => (heard, answer.unseen) = (live.view().epoch, true),
                Err(_) => {}
            }
            if looked_at.elapsed() >= answer.pause {
                let began = Instant::now();
                if let Some((added, removed)) = answer.look(looked_at.elapsed() >= SLIDE).await? {
                    // Answering takes a fifth of the time at most.
                    answer.pause = answer.pause.max(began.elapsed() * 4);
                    if !added.is_empty() || !removed.is_empty() {
                        self.send(Event::Change { epoch: answer.at, added, removed }).await?;
                        (told, told_at) = (answer.at, Instant::now());
                    }
                    looked_at = Instant::now();
                }
            }
            if answer.is_too_large {
                self.ask_from_now_on();
                return Ok(());
            }
            // What was not looked at yet is not promised.
            if !answer.waits() && answer.at > told && told_at.elapsed() >= HEARTBEAT {
                self.offer_frontier(answer.at)?;
                (told, told_at) = (answer.at, Instant::now());
            }
        }
    }

    /// Its answer cannot be kept, or is too much to be.
    fn ask_from_now_on(&self) {
        *self.how.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Begins an answer: tells all of it, or what its client has missed.
    async fn answer(&self, reset: bool, seen: Option<u64>) -> Result<Answer<'_>, Ended> {
        let live = self.asked.engine.live();
        let view = live.view();
        let how = *self.how.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match how {
            Some(how) => self.asked.keep(how, &view).await?.map(|kept| (how, kept)),
            None => None,
        };
        if kept.is_none() {
            self.ask_from_now_on();
        }
        let seen = seen.filter(|seen| how == Some(How::Rows) && live.knows(*seen));
        let mut answer = Answer {
            stream: self,
            pause: if kept.is_some() { Duration::ZERO } else { AGAIN },
            kept,
            known: Rows::new(),
            at: view.epoch,
            view,
            unseen: false,
            is_stale: false,
            is_too_large: false,
        };
        if let Some(seen) = seen
            && answer.catch_up(seen).await?
        {
            return Ok(answer);
        }
        let all = match &answer.kept {
            Some((_, kept)) => kept.all(&self.asked).await?,
            None => None,
        };
        let rows = match all {
            Some(rows) => rows,
            None => self.ask(&answer.view).await?,
        };
        if answer.kept.is_none() {
            count(&rows, &mut answer.known, 1);
        }
        self.snapshot(&answer.view, &rows, reset).await?;
        Ok(answer)
    }

    async fn snapshot(&self, view: &View, rows: &[Value], reset: bool) -> Result<(), Ended> {
        let mut parts = rows.chunks(ROWS_EVENT).peekable();
        loop {
            let rows = parts.next().unwrap_or_default().to_vec();
            let last = parts.peek().is_none();
            self.send(Event::Snapshot { epoch: view.epoch, rows, last, reset }).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// The whole answer.
    pub(super) async fn ask(&self, view: &View) -> Result<Vec<Value>, QueryError> {
        let batches = self.asked.engine.whole(&self.asked.actor, &self.asked.query, view, MAX_ROWS).await?;
        Ok(serde_json::from_slice(&json_rows(&batches)?).unwrap_or_default())
    }
}
