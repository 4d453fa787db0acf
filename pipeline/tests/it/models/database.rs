//! Postgres: tables and a frontier that transactions change, whole or not at all; and a server that is away, silent, slow,
//! that loses the connection before or after a commit, and that is restored from what it was earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use radarflow_connectors::sinks::postgres::database::{Database, Item, Patience, Progress, Session};
use radarflow_connectors::sinks::postgres::{PostgresError, Truth};
use radarflow_proto::ports::BoxFuture;
use radarflow_proto::rows::{Nature, StateRow, Table, state_batch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

use crate::truth::{self, Live, Tables};

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    Away,
    /// It takes connections and statements, and says nothing.
    Silent,
    Slow(u64),
    /// So many of a hundred calls lose their connection, commits before or after they were made.
    Cuts(u32),
}

pub fn mood(rng: &mut StdRng) -> Mood {
    match rng.random_range(0..6) {
        0 => Mood::Away,
        1 => Mood::Silent,
        2 => Mood::Slow(rng.random_range(10..10_000)),
        3 | 4 => Mood::Cuts(rng.random_range(5..60)),
        _ => Mood::Well,
    }
}

/// What is durable.
#[derive(Clone, Default)]
struct Stored {
    progress: Progress,
    state: Tables,
    events: BTreeSet<(Table, i128)>,
}

struct Inner {
    stored: Stored,
    backup: Stored,
    mood: Mood,
    rng: StdRng,
    /// The session that holds the lock of the frontier.
    locked: Option<u64>,
    sessions: u64,
    /// Sessions before this one are cut.
    cut: u64,
}

/// The server; a clone is the same one.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Mutex<Inner>>,
    unlocked: Arc<Notify>,
}

impl Model {
    pub fn new(seed: u64) -> Model {
        let inner = Inner {
            stored: Stored::default(),
            backup: Stored::default(),
            mood: Mood::Well,
            rng: StdRng::seed_from_u64(seed),
            locked: None,
            sessions: 0,
            cut: 0,
        };
        Model { inner: Arc::new(Mutex::new(inner)), unlocked: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn is(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    pub fn back_up(&self) {
        let mut inner = self.lock();
        inner.backup = inner.stored.clone();
    }

    /// It is what it was when it was backed up, and all sessions are gone.
    pub fn restore(&self) {
        let mut inner = self.lock();
        inner.stored = inner.backup.clone();
        (inner.cut, inner.locked) = (inner.sessions + 1, None);
        drop(inner);
        self.unlocked.notify_waiters();
    }

    pub fn tables(&self) -> Tables {
        self.lock().stored.state.clone()
    }

    pub fn events(&self) -> BTreeSet<(Table, i128)> {
        self.lock().stored.events.clone()
    }

    /// Up to which epoch it has everything.
    pub fn frontier(&self) -> Option<u64> {
        self.lock().stored.progress.map(|(_, frontier)| frontier as u64)
    }

    /// How an answer comes; an error is a connection that is lost.
    async fn answer(&self, session: u64) -> Result<(), PostgresError> {
        let mood = {
            let inner = self.lock();
            if session < inner.cut { Mood::Away } else { inner.mood }
        };
        match mood {
            Mood::Well => {}
            Mood::Away => return Err(lost()),
            Mood::Silent => std::future::pending().await,
            Mood::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Mood::Cuts(of_hundred) => {
                if self.lock().rng.random_range(0..100) < of_hundred {
                    return Err(lost());
                }
            }
        }
        if session < self.lock().cut { Err(lost()) } else { Ok(()) }
    }
}

fn lost() -> PostgresError {
    PostgresError::Database(sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()))
}

#[async_trait]
impl Database for Model {
    async fn connect(&self, _: Patience) -> Result<Box<dyn Session>, PostgresError> {
        let number = {
            let mut inner = self.lock();
            inner.sessions += 1;
            inner.sessions
        };
        self.answer(number).await?;
        Ok(Box::new(Connection { server: self.clone(), number, under_way: None, staged: BTreeMap::new() }))
    }
}

struct Connection {
    server: Model,
    number: u64,
    /// What the transaction has made of what is stored.
    under_way: Option<Stored>,
    staged: BTreeMap<Table, Vec<RecordBatch>>,
}

impl Connection {
    fn stored(&mut self) -> Result<&mut Stored, PostgresError> {
        self.under_way.as_mut().ok_or_else(|| PostgresError::Truth("no transaction is under way".to_owned()))
    }

    fn make(&mut self) {
        if let Some(stored) = self.under_way.take() {
            self.server.lock().stored = stored;
        }
    }

    fn unlock(&mut self) {
        let mut inner = self.server.lock();
        if inner.locked == Some(self.number) {
            inner.locked = None;
        }
        drop(inner);
        self.server.unlocked.notify_waiters();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.unlock();
    }
}

fn add(stored: &mut Stored, table: Table, rows: &RecordBatch) {
    match table.nature() {
        Nature::Event => stored.events.extend(truth::ids(table, rows)),
        Nature::State => {
            let read = |n| StateRow::read(table, rows, n).expect("a row of state");
            let rows = (0..rows.num_rows()).map(read);
            stored.state.extend(rows.map(|row| ((table, row.key()), row.at(0))));
        }
    }
}

#[async_trait]
impl Session for Connection {
    async fn begin(&mut self, _: Duration) -> Result<(), PostgresError> {
        self.server.answer(self.number).await?;
        self.under_way = Some(self.server.lock().stored.clone());
        Ok(())
    }

    async fn progress(&mut self) -> Result<Progress, PostgresError> {
        self.server.answer(self.number).await?;
        loop {
            let waits = self.server.unlocked.clone();
            let unlocked = waits.notified();
            {
                let mut inner = self.server.lock();
                let free = inner.locked.is_none_or(|by| by == self.number);
                if free {
                    if let Some(under_way) = &mut self.under_way {
                        inner.locked = Some(self.number);
                        // What others committed while it waited for the lock is seen.
                        *under_way = inner.stored.clone();
                    }
                    return Ok(inner.stored.progress);
                }
            }
            unlocked.await;
        }
    }

    async fn write(&mut self, table: Table, gone: &[Item<'_>], there: &[Item<'_>]) -> Result<(), PostgresError> {
        if gone.is_empty() && there.is_empty() {
            return Ok(());
        }
        self.server.answer(self.number).await?;
        let stored = self.stored()?;
        for item in gone.iter().chain(there) {
            match item {
                Item::Key(key) => drop(stored.state.remove(&(table, (*key).to_owned()))),
                Item::Row(row) => drop(stored.state.insert((table, row.key()), (*row).clone().at(0))),
                Item::Batch(rows) => add(stored, table, rows),
            }
        }
        Ok(())
    }

    async fn stage(&mut self, table: Table, _: Duration, rows: &[RecordBatch]) -> Result<(), PostgresError> {
        self.server.answer(self.number).await?;
        self.staged.insert(table, rows.to_vec());
        Ok(())
    }

    async fn exchange(&mut self, table: Table) -> Result<(), PostgresError> {
        self.server.answer(self.number).await?;
        let staged = self.staged.get(&table).cloned().unwrap_or_default();
        let stored = self.stored()?;
        stored.state.retain(|(of, _), _| *of != table);
        staged.iter().for_each(|rows| add(stored, table, rows));
        Ok(())
    }

    async fn forget(&mut self, table: Table, after: u64) -> Result<(), PostgresError> {
        self.server.answer(self.number).await?;
        // A row's name begins with its epoch.
        self.stored()?.events.retain(|(of, id)| *of != table || (*id >> 64) <= i128::from(after));
        Ok(())
    }

    async fn move_to(&mut self, generation: i64, frontier: u64) -> Result<(), PostgresError> {
        self.server.answer(self.number).await?;
        self.stored()?.progress = Some((generation, frontier as i64));
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), PostgresError> {
        // Where the answer does not come, it may have been made.
        let (mood, lucky) = {
            let mut inner = self.server.lock();
            let alive = self.number >= inner.cut && inner.mood != Mood::Away;
            (inner.mood, alive && inner.rng.random_bool(0.5))
        };
        let made_unheard = matches!(mood, Mood::Silent | Mood::Cuts(_)) && lucky;
        if made_unheard {
            self.make();
        }
        let answer = self.server.answer(self.number).await;
        if answer.is_ok() {
            self.make();
        }
        self.unlock();
        answer
    }

    async fn rollback(&mut self) -> Result<(), PostgresError> {
        self.under_way = None;
        self.unlock();
        self.server.answer(self.number).await
    }
}

/// What is true, for a database that missed too much.
pub struct Known {
    pub live: Arc<Live>,
    pub truth: Arc<Mutex<truth::Truth>>,
}

impl Truth for Known {
    fn state(&self) -> (u64, Vec<(Table, RecordBatch)>) {
        let (epoch, tables) = self.live.state();
        let batch = |table: Table| {
            let rows = tables.iter().filter(|((of, _), _)| *of == table).map(|(_, row)| row);
            (table, state_batch(table, rows))
        };
        let of_state = Table::ALL.iter().copied().filter(|table| table.nature() == Nature::State);
        (epoch, of_state.map(batch).collect())
    }

    fn events(&self, table: Table, after: u64, until: u64) -> BoxFuture<Result<Vec<RecordBatch>, String>> {
        assert!(after <= until, "it has epochs that are not complete: {after}, of {until}");
        let truth = self.truth.lock().unwrap();
        if after == until {
            return Box::pin(async { Ok(Vec::new()) });
        }
        let outputs = truth.events.range(after + 1..=until).flat_map(|(_, events)| events);
        let rows: Vec<RecordBatch> = outputs.filter(|(of, _)| *of == table).map(|(_, rows)| rows.clone()).collect();
        Box::pin(async move { Ok(rows) })
    }
}
