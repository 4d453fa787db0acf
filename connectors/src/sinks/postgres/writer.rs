//! Writes what waits, and fills what missed too much. Every attempt has an end; what failed leaves its session.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use radarflow_proto::rows::{Nature, Table};

use super::database::{Database, Item, Patience, Progress, Session};
use super::waiting::{Batch, Waiting, Work};
use super::{Limits, PostgresError, Truth, within};
use crate::retry::{self, Pauses};

/// Time between two transactions: what comes in it is written together.
const PACE: Duration = Duration::from_millis(200);
/// How often it is told that the database still fails in the same way.
const REMIND: Duration = Duration::from_secs(300);
/// How often it is looked whether the truth has come as far as it must.
const LOOK: Duration = Duration::from_millis(50);

/// What this process knows of the database's frontier.
#[derive(Clone, Copy, Default, Debug)]
struct Frontier {
    /// Stored by it, or found at its start.
    frontier: Option<u64>,
    /// Where a transaction would have moved it whose end was not heard of.
    doubtful: Option<u64>,
}

/// What a frontier that is found means.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// It follows from here.
    Follow(u64),
    /// It is to be filled; of events it has those up to here.
    Fill(u64),
    /// It has epochs that this ledger does not: the ledger is one that was put back. They go, and it is filled.
    Back(u64),
    /// Somebody else writes it.
    Replaced,
}

/// `here`: the epochs of the ledger at the start of this process, from where they can be said again one by one. `anew`: the
/// connection is new, so that the database may be another than before.
fn judge(found: Progress, generation: i64, here: &RangeInclusive<u64>, known: Frontier, anew: bool) -> Found {
    let own = found.filter(|(of, _)| *of == generation).map(|(_, frontier)| frontier as u64);
    match (known.frontier, own) {
        (None, Some(at)) if here.contains(&at) => Found::Follow(at),
        (None, Some(at)) if at > *here.end() => Found::Back(*here.end()),
        // Behind what can be said again one by one.
        (None, Some(at)) => Found::Fill(at),
        // New, or of another history.
        (None, None) => Found::Fill(0),
        (Some(_), _) if found.is_none() && anew => Found::Fill(0),
        (Some(ours), Some(at)) if at == ours || known.doubtful == Some(at) => Found::Follow(at),
        // Restored from what it was earlier.
        (Some(ours), Some(at)) if at < ours && anew => Found::Fill(at),
        (Some(_), _) => Found::Replaced,
    }
}

pub(super) struct Writer {
    limits: Limits,
    database: Arc<dyn Database>,
    generation: i64,
    here: RangeInclusive<u64>,
    waiting: Arc<Waiting>,
    truth: Arc<dyn Truth>,
    session: Option<Box<dyn Session>>,
    known: Frontier,
}

/// What became of a batch.
enum Wrote {
    /// It is in the database, which has everything up to here.
    UpTo(u64),
    /// The database is to be filled.
    Nothing,
}

impl Writer {
    pub(super) fn new(
        limits: Limits,
        database: Arc<dyn Database>,
        generation: u64,
        here: RangeInclusive<u64>,
        waiting: Arc<Waiting>,
        truth: Arc<dyn Truth>,
    ) -> Writer {
        let known = Frontier::default();
        Writer { limits, database, generation: generation as i64, here, waiting, truth, session: None, known }
    }

    pub(super) async fn run(mut self) {
        // What was taken out and is not written.
        let mut held = Batch::default();
        let (first, longest) = self.limits.retry;
        // What the pauses are follows from where this start begins, so that a simulated life is the same each time.
        // What it fails with, since when, and when that was told.
        let mut failing: Option<(String, Instant, Instant)> = None;
        let mut pauses = Pauses::new(retry::endless(first, longest).with_jitter_seed(*self.here.start()));
        while let Some(work) = self.waiting.work(held.newest > 0).await {
            let done = match work {
                Work::Write(later) => {
                    held.merge(later);
                    self.write(&mut held).await
                }
                Work::Resync => {
                    held = Batch::default();
                    self.resynchronise().await
                }
            };
            let Err(error) = done else {
                if let Some((_, since, _)) = failing.take() {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!(seconds, "the Postgres sink goes on; what it missed is made good");
                }
                self.waiting.applied().is_up(true);
                pauses.reset();
                tokio::time::sleep(PACE).await;
                continue;
            };
            self.session = None;
            let (advice, said) = (error.advice(), error.to_string());
            self.waiting.applied().failed(format!("{said}; {advice}"));
            if matches!(error, PostgresError::Replaced { .. }) || error.is_defect() {
                tracing::error!(%error, advice, "the Postgres sink stops, everything else goes on");
                return self.waiting.stop();
            }
            // Said when it begins or becomes another, and now and then while it lasts.
            let new = failing.as_ref().is_none_or(|(was, ..)| *was != said);
            let since = failing.as_ref().map_or_else(Instant::now, |(_, since, _)| *since);
            if new || failing.as_ref().is_some_and(|(.., told)| told.elapsed() >= REMIND) {
                tracing::warn!(%error, advice, "the Postgres sink waits");
                failing = Some((said, since, Instant::now()));
            }
            if self.waiting.is_closed() {
                return;
            }
            tokio::time::sleep(pauses.next()).await;
        }
    }

    async fn connect(&mut self, statement: Duration) -> Result<Box<dyn Session>, PostgresError> {
        let patience = Patience { statement, lock: self.limits.lock };
        within(self.limits.connect, "a connection", self.database.connect(patience)).await
    }

    /// Writes a batch, if the database follows.
    async fn write(&mut self, held: &mut Batch) -> Result<(), PostgresError> {
        let limit = self.limits.of(held.bytes);
        let (mut session, anew) = match self.session.take() {
            Some(session) => (session, false),
            None => (self.connect(limit).await?, true),
        };
        let wrote = within(limit, "a transaction", self.transaction(&mut *session, anew, limit, held)).await?;
        self.session = Some(session);
        *held = Batch::default();
        match wrote {
            Wrote::UpTo(epoch) => {
                self.waiting.written(epoch);
                Ok(())
            }
            Wrote::Nothing => {
                self.waiting.let_go();
                self.resynchronise().await
            }
        }
    }

    async fn transaction(
        &mut self,
        session: &mut dyn Session,
        anew: bool,
        limit: Duration,
        held: &Batch,
    ) -> Result<Wrote, PostgresError> {
        session.begin(limit).await?;
        let old = match self.found(session, anew).await? {
            Found::Follow(old) => old,
            Found::Fill(_) | Found::Back(_) => {
                session.rollback().await?;
                return Ok(Wrote::Nothing);
            }
            Found::Replaced => unreachable!("`found` makes it an error"),
        };
        self.known = Frontier { frontier: Some(old), doubtful: None };
        if held.newest <= old {
            session.rollback().await?;
            return Ok(Wrote::UpTo(old));
        }
        for table in kept() {
            let (gone, there) = said(table, held, old);
            session.write(table, &gone, &there).await?;
        }
        session.move_to(self.generation, held.newest).await?;
        self.commit(session, held.newest).await?;
        Ok(Wrote::UpTo(held.newest))
    }

    /// Locks the frontier until the end of the transaction, and tells what it means.
    async fn found(&mut self, session: &mut dyn Session, anew: bool) -> Result<Found, PostgresError> {
        let found = session.progress().await?;
        match judge(found, self.generation, &self.here, self.known, anew) {
            Found::Replaced => Err(PostgresError::Replaced { found, ours: (self.generation, self.known.frontier) }),
            found => Ok(found),
        }
    }

    /// Until its end is heard of it is in doubt; the next transaction finds out.
    async fn commit(&mut self, session: &mut dyn Session, epoch: u64) -> Result<(), PostgresError> {
        self.known.doubtful = Some(epoch);
        session.commit().await?;
        self.known = Frontier { frontier: Some(epoch), doubtful: None };
        Ok(())
    }

    /// Fills the database from what is true now.
    async fn resynchronise(&mut self) -> Result<(), PostgresError> {
        let filled = self.fill().await;
        match &filled {
            Ok(epoch) => self.waiting.written(*epoch),
            // What came meanwhile will be in the truth of the next attempt.
            Err(_) => self.waiting.let_go(),
        }
        filled.map(drop)
    }

    /// What it stages is its session's: readers and writers of the tables do not notice it before the one transaction at
    /// the end, which holds no lock that a reader waits for.
    async fn fill(&mut self) -> Result<u64, PostgresError> {
        self.session = None;
        let limits = self.limits;
        let mut session = self.connect(limits.write).await?;
        let found = within(limits.write, "the frontier", self.found(&mut *session, true)).await?;
        let is_newer = matches!(found, Found::Back(_));
        let after = match found {
            Found::Follow(after) => {
                self.known = Frontier { frontier: Some(after), doubtful: None };
                after
            }
            // It is as at a start.
            Found::Fill(after) | Found::Back(after) => {
                self.known = Frontier::default();
                after
            }
            Found::Replaced => unreachable!("`found` makes it an error"),
        };
        let (epoch, state) = self.truth_since(self.waiting.begin_resync()).await?;
        if is_newer {
            tracing::warn!(after, "Postgres has epochs that the ledger has not: what it has of them goes");
        }
        tracing::info!(after, until = epoch, "resynchronising Postgres");
        let mut bytes = 0;
        let mut staged = Vec::new();
        for table in kept() {
            let rows = match table.nature() {
                Nature::State => state.iter().filter(|(t, _)| *t == table).map(|(_, batch)| batch.clone()).collect(),
                Nature::Event => {
                    let rows = self.truth.events(table, after, epoch);
                    let rows = tokio::time::timeout(limits.truth, rows).await;
                    rows.unwrap_or_else(|_| Err("the lake took too long".to_owned())).map_err(PostgresError::Truth)?
                }
            };
            if table.nature() == Nature::Event && rows.iter().all(|batch: &RecordBatch| batch.num_rows() == 0) {
                continue;
            }
            let size: usize = rows.iter().map(RecordBatch::get_array_memory_size).sum();
            let limit = limits.of(size);
            within(limit, "staging a table", session.stage(table, limit, &rows)).await?;
            bytes += size;
            staged.push(table);
        }
        drop(state);
        let limit = limits.of(bytes);
        let newer = is_newer.then_some(after);
        let exchanged =
            within(limit, "a resynchronisation", self.exchange(&mut *session, limit, &staged, newer, epoch));
        exchanged.await?;
        // What is staged goes with the session.
        Ok(epoch)
    }

    /// What is true at an epoch or later.
    async fn truth_since(&mut self, epoch: u64) -> Result<(u64, Vec<(Table, RecordBatch)>), PostgresError> {
        let reached = async {
            loop {
                let truth = self.truth.clone();
                let state = tokio::task::spawn_blocking(move || truth.state()).await;
                let state = state.map_err(|error| PostgresError::Truth(error.to_string()))?;
                if state.0 >= epoch {
                    return Ok::<_, PostgresError>(state);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        within(self.limits.truth, "what is true now", reached).await
    }

    /// Makes the tables what is staged; what happened after an epoch that is no more goes.
    async fn exchange(
        &mut self,
        session: &mut dyn Session,
        limit: Duration,
        staged: &[Table],
        newer: Option<u64>,
        epoch: u64,
    ) -> Result<(), PostgresError> {
        session.begin(limit).await?;
        // Whoever took over since must not be undone.
        self.found(session, false).await?;
        if let Some(after) = newer {
            for table in kept().into_iter().filter(|table| table.nature() == Nature::Event) {
                session.forget(table, after).await?;
            }
        }
        for table in staged {
            session.exchange(*table).await?;
        }
        session.move_to(self.generation, epoch).await?;
        self.commit(session, epoch).await
    }
}

/// The tables that Postgres has.
fn kept() -> Vec<Table> {
    Table::ALL.iter().copied().filter(|table| !table.postgres().is_empty()).collect()
}

/// What a batch says of a table after an epoch: what is gone, and what is there.
fn said(table: Table, held: &Batch, after: u64) -> (Vec<Item<'_>>, Vec<Item<'_>>) {
    if table.nature() == Nature::Event {
        let of = held.events.iter().filter(|(epoch, of, _)| *of == table && *epoch > after);
        return (Vec::new(), of.map(|(.., batch)| Item::Batch(batch)).collect());
    }
    let of = held.state.range((table, Arc::from(""))..).take_while(|((of, _), _)| *of == table);
    let changes = of.filter(|(_, (epoch, _))| *epoch > after).map(|((_, key), (_, row))| match row {
        Some(row) => Item::Row(row),
        None => Item::Key(key),
    });
    changes.partition(|item| matches!(item, Item::Key(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontier_is_ours_new_restored_or_of_somebody_else() {
        let none = Frontier::default();
        let at = |frontier: u64, doubtful: Option<u64>| Frontier { frontier: Some(frontier), doubtful };
        // At the start.
        assert_eq!(judge(None, 1, &(0..=20), none, true), Found::Fill(0));
        assert_eq!(judge(Some((2, 9)), 1, &(0..=20), none, true), Found::Fill(0));
        assert_eq!(judge(Some((1, 9)), 1, &(10..=20), none, true), Found::Fill(9));
        assert_eq!(judge(Some((1, 10)), 1, &(10..=20), none, true), Found::Follow(10));
        assert_eq!(judge(Some((1, 20)), 1, &(10..=20), none, true), Found::Follow(20));
        assert_eq!(judge(Some((1, 21)), 1, &(10..=20), none, true), Found::Back(20));
        // Later.
        for anew in [true, false] {
            assert_eq!(judge(Some((1, 10)), 1, &(0..=20), at(10, None), anew), Found::Follow(10));
            assert_eq!(judge(Some((1, 12)), 1, &(0..=20), at(10, Some(12)), anew), Found::Follow(12));
            assert_eq!(judge(Some((1, 10)), 1, &(0..=20), at(10, Some(12)), anew), Found::Follow(10));
            assert_eq!(judge(Some((1, 11)), 1, &(0..=20), at(10, Some(12)), anew), Found::Replaced);
            assert_eq!(judge(Some((2, 10)), 1, &(0..=20), at(10, None), anew), Found::Replaced);
        }
        assert_eq!(judge(Some((1, 5)), 1, &(0..=20), at(10, None), true), Found::Fill(5));
        assert_eq!(judge(Some((1, 5)), 1, &(0..=20), at(10, None), false), Found::Replaced);
        assert_eq!(judge(None, 1, &(0..=20), at(10, None), true), Found::Fill(0));
        assert_eq!(judge(None, 1, &(0..=20), at(10, None), false), Found::Replaced);
    }
}
