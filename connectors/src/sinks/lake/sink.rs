//! All tables together: epochs are taken, tables commit when they are due, one chore is under way at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use radarflow_proto::cell::Time;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::EpochOutput;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::super::Applied;
use super::super::checkpoint::{Wanted, days};
use super::super::upkeep::{Chore, Done};
use super::writer::Writer;
use super::{COMPACT_AGE, MERGE_ROOM, OnCommit};

/// What a waiting change of a state table takes, about, bytes.
const CHANGE_BYTES: usize = 1024;

/// What waits for commits, and how much of it may.
pub(super) struct Room {
    pub(super) bound: usize,
    /// Bytes of epochs that the sink has not looked at; bounded by what is under way once intake has stopped.
    pub(super) queued: AtomicUsize,
    /// Bytes of rows that wait for their table's commit.
    pub(super) pending: AtomicUsize,
    pub(super) full: AtomicBool,
    /// Whether upkeep of a table is under way.
    pub(super) upkeep: AtomicBool,
}

impl Room {
    pub(super) fn held(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.pending.load(Ordering::Relaxed)
    }

    /// It is full from its bound on until a quarter of it is free again.
    pub(super) fn is_full(&self) -> bool {
        let bound = if self.full.load(Ordering::Relaxed) { self.bound / 4 * 3 } else { self.bound };
        let full = self.held() >= bound;
        self.full.store(full, Ordering::Relaxed);
        full
    }
}

/// Bytes that an epoch takes while it waits, about.
pub(super) fn weight(output: &EpochOutput) -> usize {
    let rows: usize = output.events.iter().map(|(_, batch)| batch.get_array_memory_size()).sum();
    rows + output.changes.len() * CHANGE_BYTES
}

/// What the sink is told.
pub(super) enum Message {
    Epoch(Arc<EpochOutput>),
    Flush(oneshot::Sender<()>),
}

/// Takes epochs, and sees to it that each table commits in its time.
pub(super) struct Sink {
    pub(super) writers: BTreeMap<LakeTable, Writer>,
    pub(super) start: u64,
    pub(super) room: Arc<Room>,
    pub(super) applied: Applied,
    pub(super) on_commit: OnCommit,
    pub(super) newest: u64,
    /// The day of the newest epoch, and its first epoch that was seen.
    pub(super) day: Option<(String, u64)>,
    /// The one that is under way.
    pub(super) chore: Option<(LakeTable, Done)>,
}

impl Sink {
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Message>) {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                message = queue.recv() => match message {
                    Some(Message::Epoch(output)) => {
                        self.take(&output);
                        self.weigh();
                        self.room.queued.fetch_sub(weight(&output), Ordering::Relaxed);
                    }
                    Some(Message::Flush(done)) => {
                        self.commit_all().await;
                        let _ = done.send(());
                    }
                    None => break,
                },
                _ = tick.tick() => {}
                // What has piled up goes in several commits; between them others have their turn.
                () = std::future::ready(()), if self.has_due() => {}
            }
            let largest = self.largest();
            self.commit(|writer| writer.is_due() || Some(writer.table) == largest).await;
            self.end_chore().await;
            self.begin_chore();
            self.room.upkeep.store(self.chore.is_some(), Ordering::Relaxed);
            self.report();
        }
        self.commit_all().await;
        self.report();
    }

    /// Whether something is to be committed now.
    fn has_due(&self) -> bool {
        self.writers.values().any(|writer| writer.is_due() && writer.may_commit()) || self.largest().is_some()
    }

    /// Commits everything that waits; what is refused waits on.
    async fn commit_all(&mut self) {
        while self.writers.values().any(Writer::may_commit) {
            self.commit(|_| true).await;
        }
    }

    fn take(&mut self, output: &EpochOutput) {
        self.newest = output.epoch;
        let day = Time::from_ms(output.clock_ms).date();
        if output.clock_ms > 0 && self.day.as_ref().is_none_or(|(known, _)| *known < day) {
            self.day = Some((day, output.epoch));
        }
        for (table, batch) in &output.events {
            if let Some(writer) = self.writers.get_mut(&LakeTable::Events(*table)) {
                writer.take(output.epoch, batch.clone());
            }
        }
        for (table, batch) in output.versions() {
            // What is said again at a start is no new version, unless this lake has never heard of it.
            let writer = self.writers.get_mut(table);
            if let Some(writer) = writer.filter(|w| output.epoch > self.start || w.committed == 0) {
                writer.take(output.epoch, batch.clone());
            }
        }
    }

    fn weigh(&self) {
        self.room.pending.store(self.writers.values().map(|w| w.bytes).sum(), Ordering::Relaxed);
    }

    /// The table that makes room, where there is little.
    fn largest(&self) -> Option<LakeTable> {
        let little = self.room.held() >= self.room.bound / 2;
        let able = self.writers.values().filter(|writer| little && writer.may_commit());
        able.max_by_key(|writer| writer.bytes).map(|writer| writer.table)
    }

    async fn commit(&mut self, due: impl Fn(&Writer) -> bool) {
        for writer in self.writers.values_mut().filter(|w| due(w) && w.may_commit()) {
            match writer.commit().await {
                Ok(()) => (self.on_commit)(writer.table, writer.committed).await,
                Err(error) => tracing::error!(%error, "the lake refused a commit; trying again"),
            }
        }
        self.applied.is_up(self.writers.values().all(|w| w.doubtful.is_none()));
    }

    /// Begins what is to be done for one table beside its commits, if nothing is under way.
    fn begin_chore(&mut self) {
        if self.chore.is_some() {
            return;
        }
        let due = match self.checkpoint() {
            Some((table, wanted)) => self.writers.get_mut(&table).map(|writer| (writer, Chore::Checkpoint(wanted))),
            None => self.writers.values_mut().find_map(|writer| writer.chore().map(|chore| (writer, chore))),
        };
        let Some((writer, mut chore)) = due else { return };
        let table = writer.table;
        if let Chore::Keep(_, oldest) = &mut chore {
            let checkpoints = LakeTable::checkpoints_of(table.table()).and_then(|of| self.writers.get(&of));
            *oldest = checkpoints.and_then(|writer| days(&writer.delta).ok()?.into_keys().next());
        }
        let Some(writer) = self.writers.get(&table) else { return };
        match chore.begin(writer.table, writer.delta.clone()) {
            Ok(done) => self.chore = Some((writer.table, done)),
            Err(error) => tracing::warn!(%error, "no thread for the upkeep of the lake"),
        }
    }

    /// A checkpoint of yesterday that is worth it, of a history that has everything up to its end in the lake; each is
    /// thought of once a day, and again where that came to nothing.
    fn checkpoint(&mut self) -> Option<(LakeTable, Wanted)> {
        let (today, first) = self.day.clone()?;
        let yesterday = day_before(&today)?;
        let tables: Vec<LakeTable> =
            self.writers.keys().copied().filter(|table| matches!(table, LakeTable::Checkpoint(_))).collect();
        for of in tables {
            let (writer, history) = (&self.writers[&of], &self.writers[&LakeTable::History(of.table())]);
            let thought = writer.thought.as_ref().is_some_and(|(of, again)| *of == today && *again > Instant::now());
            if thought || history.applied.get() + 1 < first {
                continue;
            }
            let wanted = Wanted::worth(&writer.delta, &history.delta, yesterday.clone(), first.saturating_sub(1));
            let has_room = |bytes: u64| writer.disk.room(&writer.folder).is_none_or(|free| free > bytes * MERGE_ROOM);
            // What there is little room for is left to rows that come.
            let wanted = wanted.map(|wanted| wanted.filter(|wanted| has_room(wanted.bytes)));
            let thought = (today.clone(), Instant::now() + COMPACT_AGE);
            self.writers.entry(of).and_modify(|writer| writer.thought = Some(thought));
            match wanted {
                Ok(Some(wanted)) => return Some((of, wanted)),
                Ok(None) => {}
                Err(error) => tracing::warn!(table = of.name(), %error, "the lake's files cannot be looked at"),
            }
        }
        None
    }

    async fn end_chore(&mut self) {
        let Some((table, done)) = &mut self.chore else { return };
        let done = match done.try_recv() {
            Ok(done) => done,
            Err(oneshot::error::TryRecvError::Empty) => return,
            Err(oneshot::error::TryRecvError::Closed) => {
                Err(deltalake::DeltaTableError::Generic("it ended without a word".to_owned()))
            }
        };
        let writer = self.writers.get_mut(table).expect("every table has its writer");
        self.chore = None;
        if let Err(error) = done {
            tracing::warn!(table = writer.table.name(), %error, "upkeep of the lake failed; it is tried again later");
            writer.was_looked_at();
        }
        // A part of it may have been done, and its readers must not hold on to a version whose files are gone.
        if let Err(error) = writer.settle().await {
            tracing::warn!(%error, "the lake's table cannot be read again");
            return;
        }
        (self.on_commit)(writer.table, writer.committed).await;
    }

    fn report(&self) {
        self.weigh();
        for writer in self.writers.values() {
            writer.applied.set(writer.first_epoch.map_or(self.newest, |first| first - 1));
        }
        self.applied.set(self.writers.values().map(|w| w.applied.get()).min().unwrap_or(self.newest));
    }
}

/// The day before one.
fn day_before(day: &str) -> Option<String> {
    Some(chrono::NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?.pred_opt()?.to_string())
}
