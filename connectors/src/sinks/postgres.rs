//! Postgres: state tables as they are, health and alert history as it happened.
//!
//! Epochs are taken as net change a key, so that a sink that was away catches up with one row a key, and applied in one
//! transaction: `COPY` into temporary tables, set-based upsert and delete, and the fence: `UPDATE sink_progress SET
//! frontier = new WHERE … AND frontier = old` must touch one row. Whoever finds another generation or frontier there has
//! been replaced, and stops.
//!
//! While it is down the workers do not notice: changes are folded by key, up to a bound. A database that is
//! new, older than what the process starts from, or was away for longer than that is *resynchronised* from what is true
//! now ([`Truth`]): its state tables are filled anew at one epoch, its event tables with the rows it missed, in one
//! transaction. A row that the database refuses is a defect: the sink stops and says so, the process goes on.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use radarflow_proto::ports::{BoxFuture, EpochOutput};
use radarflow_proto::rows::{Nature, StateRow, Table};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection, Executor};
use thiserror::Error;
use tokio::sync::mpsc;

use super::Applied;

/// Epochs that may wait for the sink's task, which folds them at once.
const QUEUE: usize = 256;
/// What a waiting change of a state table takes, about.
const CHANGE_BYTES: usize = 1024;
/// Bytes of COPY text sent at once.
const COPY_BYTES: usize = 4 << 20;
const RETRY: Duration = Duration::from_secs(1);
const PACE: Duration = Duration::from_millis(200);

/// The migrations, compiled in.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Why Postgres cannot be written.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// The database refused or is away.
    #[error("postgres: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[error("postgres migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Another process writes it now.
    #[error("postgres: another radarflow has taken over this database (its frontier is {found:?}, ours {ours})")]
    Replaced {
        /// Generation and frontier found.
        found: Option<(i64, i64)>,
        /// The frontier we stored last.
        ours: u64,
    },
    /// What a resynchronisation reads from cannot be read.
    #[error("postgres: what it missed cannot be read: {0}")]
    Truth(String),
}

impl PostgresError {
    /// Whether a row is at fault (classes 22 and 23 of the SQL standard): trying again changes nothing.
    fn is_defect(&self) -> bool {
        let PostgresError::Database(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    }
}

/// What a database that missed too much is filled from.
pub trait Truth: Send + Sync + 'static {
    /// Every row of every state table, at one epoch.
    fn state(&self) -> (u64, Vec<(Table, RecordBatch)>);

    /// Rows of an event table of the epochs `after < epoch ≤ until`.
    fn events(&self, table: Table, after: u64, until: u64) -> BoxFuture<Result<Vec<RecordBatch>, String>>;
}

/// Brings the schema up to date.
pub async fn migrate(url: &str) -> Result<(), PostgresError> {
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await?;
    pool.execute("CREATE SCHEMA IF NOT EXISTS radarflow").await?;
    MIGRATIONS.run(&pool).await?;
    Ok(())
}

/// Whether the database answers.
pub async fn check(url: &str) -> Result<(), PostgresError> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5)).connect(url).await?;
    pool.execute("SELECT 1").await?;
    Ok(())
}

/// The way in.
pub struct Postgres {
    epochs: mpsc::Sender<Arc<EpochOutput>>,
    applied: Applied,
    waiting: Arc<AtomicUsize>,
}

impl Postgres {
    /// Starts the sink. `start` is the epoch after which the dataflow says every change again. So many bytes of changes
    /// may wait, about; beyond it the database is resynchronised when it is back.
    pub fn start(
        url: &str,
        generation: u64,
        start: u64,
        pending_bytes: usize,
        truth: Arc<dyn Truth>,
    ) -> Result<Postgres, PostgresError> {
        let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(5)).connect_lazy(url)?;
        let applied = Applied::default();
        let (epochs, queue) = mpsc::channel(QUEUE);
        let waiting = Arc::new(AtomicUsize::new(0));
        let sink = Sink {
            pool,
            pending_bytes,
            waiting: waiting.clone(),
            generation: generation as i64,
            start,
            frontier: None,
            state: BTreeMap::new(),
            events: BTreeMap::new(),
            bytes: 0,
            newest: 0,
            resynced: 0,
            applied: applied.clone(),
            resync: false,
            truth,
        };
        tokio::spawn(sink.run(queue));
        Ok(Postgres { epochs, applied, waiting })
    }

    /// Takes an epoch.
    pub fn take(&self, output: &Arc<EpochOutput>) {
        self.apply_blocking(output.clone());
    }

    /// Takes an epoch.
    pub fn apply_blocking(&self, output: Arc<EpochOutput>) {
        let _ = self.epochs.blocking_send(output);
    }

    /// Bytes of changes that wait, about.
    pub fn waiting(&self) -> &Arc<AtomicUsize> {
        &self.waiting
    }

    /// How far it is.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }
}

struct Sink {
    pool: PgPool,
    pending_bytes: usize,
    waiting: Arc<AtomicUsize>,
    generation: i64,
    start: u64,
    /// What the database has; `None` until it was asked.
    frontier: Option<u64>,
    /// Net change by table and key.
    state: BTreeMap<(Table, Arc<str>), Option<StateRow>>,
    /// Rows of event tables as COPY lines, with their epoch.
    events: BTreeMap<Table, Vec<(u64, String)>>,
    bytes: usize,
    newest: u64,
    /// Changes at or before this epoch were in a resynchronisation.
    resynced: u64,
    applied: Applied,
    resync: bool,
    truth: Arc<dyn Truth>,
}

impl Sink {
    async fn run(mut self, mut queue: mpsc::Receiver<Arc<EpochOutput>>) {
        // What the database has need not wait for it; if it does not answer, it is asked again.
        let _ = self.frontier().await;
        let mut open = true;
        while open {
            let mut taken = Vec::new();
            if queue.recv_many(&mut taken, QUEUE).await == 0 {
                open = false;
            }
            for output in taken {
                self.take(&output);
            }
            loop {
                self.waiting.store(self.bytes, Ordering::Relaxed);
                match self.write().await {
                    Ok(()) => {
                        self.applied.is_up(true);
                        break;
                    }
                    Err(error) if matches!(error, PostgresError::Replaced { .. }) || error.is_defect() => {
                        tracing::error!(%error, "the Postgres sink stops; mend the cause and start again");
                        self.applied.is_up(false);
                        self.let_go();
                        // What comes must not wait for a sink that is no more.
                        while let Some(output) = queue.recv().await {
                            self.applied.set(output.epoch);
                        }
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the Postgres sink waits");
                        self.applied.is_up(false);
                        self.frontier = None;
                        // What comes meanwhile is folded into what waits.
                        let more = tokio::time::timeout(RETRY, queue.recv()).await;
                        match more {
                            Ok(Some(output)) => self.take(&output),
                            Ok(None) => return,
                            Err(_) => {}
                        }
                    }
                }
            }
            self.waiting.store(self.bytes, Ordering::Relaxed);
            tokio::time::sleep(PACE).await;
        }
    }

    fn take(&mut self, output: &EpochOutput) {
        self.newest = output.epoch;
        if self.resync {
            // All of it is in the truth.
            return self.applied.set(output.epoch);
        }
        if output.epoch <= self.resynced.max(self.frontier.unwrap_or(0)) {
            return;
        }
        for change in &output.changes {
            if self.state.insert((change.table, change.key.clone()), change.after.clone()).is_none() {
                self.bytes += CHANGE_BYTES;
            }
        }
        for (table, batch) in &output.events {
            if table.postgres().is_empty() {
                continue;
            }
            let lines = self.events.entry(*table).or_default();
            for row in 0..batch.num_rows() {
                let mut line = String::new();
                table.copy_row(batch, row, &mut line);
                self.bytes += line.len();
                lines.push((output.epoch, line));
            }
        }
        if self.bytes > self.pending_bytes {
            tracing::warn!("Postgres has missed much; it is resynchronised when it is back");
            self.let_go();
        }
    }

    /// Gives up what waits: the truth has it.
    fn let_go(&mut self) {
        self.resync = true;
        self.forget();
        self.applied.set(self.newest);
    }

    fn forget(&mut self) {
        self.state.clear();
        self.events.clear();
        self.bytes = 0;
    }

    /// Asks the database how far it is, and makes its row if it has none.
    async fn frontier(&mut self) -> Result<u64, PostgresError> {
        if let Some(frontier) = self.frontier {
            return Ok(frontier);
        }
        let row: Option<(i64, i64)> =
            sqlx::query_as("SELECT generation, frontier FROM radarflow.sink_progress WHERE sink = 'postgres'")
                .fetch_optional(&self.pool)
                .await?;
        let frontier = match row {
            Some((generation, frontier)) if generation == self.generation && frontier as u64 >= self.start => {
                frontier as u64
            }
            _ => {
                // New, of another history, or behind what we can say again one by one: everything is said anew.
                sqlx::query(
                    "INSERT INTO radarflow.sink_progress (sink, generation, frontier) VALUES ('postgres', $1, 0)
                     ON CONFLICT (sink) DO UPDATE SET generation = $1, frontier = 0",
                )
                .bind(self.generation)
                .execute(&self.pool)
                .await?;
                self.let_go();
                0
            }
        };
        self.frontier = Some(frontier);
        Ok(frontier)
    }

    async fn write(&mut self) -> Result<(), PostgresError> {
        let old = self.frontier().await?;
        if self.resync {
            return self.resynchronise(old).await;
        }
        if self.newest <= old {
            self.forget();
            self.applied.set(self.newest);
            return Ok(());
        }
        let mut connection = self.pool.acquire().await?;
        let mut tx = connection.begin().await?;
        for table in Table::ALL.iter().copied().filter(|t| !t.postgres().is_empty()) {
            let (mut upserts, mut deletes) = (String::new(), String::new());
            if table.nature() == Nature::State {
                let range = (table, Arc::from(""))..;
                for ((t, key), row) in self.state.range(range).take_while(|((t, _), _)| *t == table) {
                    debug_assert_eq!(*t, table);
                    match row {
                        Some(row) => row.copy(&mut upserts),
                        None => delete_line(key, &mut deletes),
                    }
                }
            } else if let Some(lines) = self.events.get(&table) {
                lines.iter().filter(|(epoch, _)| *epoch > old).for_each(|(_, line)| upserts.push_str(line));
            }
            if !deletes.is_empty() {
                tx.execute(sqlx::AssertSqlSafe(stage_sql(table, true))).await?;
                copy_in(&mut tx, &format!("gone_{}", table.postgres()), deletes).await?;
                tx.execute(sqlx::AssertSqlSafe(delete_sql(table))).await?;
            }
            if !upserts.is_empty() {
                tx.execute(sqlx::AssertSqlSafe(stage_sql(table, false))).await?;
                copy_in(&mut tx, &format!("new_{}", table.postgres()), upserts).await?;
                tx.execute(sqlx::AssertSqlSafe(upsert_sql(table))).await?;
            }
        }
        self.commit(tx, old, self.newest.max(old)).await?;
        self.forget();
        Ok(())
    }

    /// Fills the database from what is true now.
    async fn resynchronise(&mut self, old: u64) -> Result<(), PostgresError> {
        let (epoch, state) = self.truth.state();
        tracing::info!(from = old, to = epoch, "resynchronising Postgres");
        let mut connection = self.pool.acquire().await?;
        let mut tx = connection.begin().await?;
        for table in Table::ALL.iter().copied().filter(|t| !t.postgres().is_empty()) {
            let name = table.postgres();
            if table.nature() == Nature::State {
                tx.execute(sqlx::AssertSqlSafe(format!("TRUNCATE radarflow.{name}"))).await?;
                let into = format!("radarflow.{name} ({})", columns(table).join(", "));
                for (_, batch) in state.iter().filter(|(t, _)| *t == table) {
                    copy_batch(&mut tx, &into, table, batch).await?;
                }
            } else {
                let rows = self.truth.events(table, old, epoch).await.map_err(PostgresError::Truth)?;
                if rows.iter().any(|batch| batch.num_rows() > 0) {
                    tx.execute(sqlx::AssertSqlSafe(stage_sql(table, false))).await?;
                    for batch in &rows {
                        copy_batch(&mut tx, &format!("new_{name}"), table, batch).await?;
                    }
                    tx.execute(sqlx::AssertSqlSafe(upsert_sql(table))).await?;
                }
            }
        }
        self.commit(tx, old, epoch).await?;
        self.resync = false;
        self.resynced = epoch;
        self.newest = self.newest.max(epoch);
        Ok(())
    }

    /// Moves the frontier, if nobody else did, and commits.
    async fn commit(&mut self, mut tx: sqlx::PgTransaction<'_>, old: u64, new: u64) -> Result<(), PostgresError> {
        let fenced = sqlx::query(
            "UPDATE radarflow.sink_progress SET frontier = $1, updated_at = now()
             WHERE sink = 'postgres' AND generation = $2 AND frontier = $3",
        )
        .bind(new as i64)
        .bind(self.generation)
        .bind(old as i64)
        .execute(&mut *tx)
        .await?
        .rows_affected();
        if fenced != 1 {
            drop(tx);
            let found: Option<(i64, i64)> =
                sqlx::query_as("SELECT generation, frontier FROM radarflow.sink_progress WHERE sink = 'postgres'")
                    .fetch_optional(&self.pool)
                    .await?;
            return Err(PostgresError::Replaced { found, ours: old });
        }
        // A COMMIT whose answer is lost is settled by reading the frontier again: see `run`.
        tx.commit().await?;
        self.frontier = Some(new);
        self.applied.set(new);
        Ok(())
    }
}

fn columns(table: Table) -> Vec<String> {
    table.columns().iter().map(|c| format!("\"{}\"", c.name)).collect()
}

fn keys(table: Table) -> Vec<String> {
    table.key().iter().map(|k| format!("\"{k}\"")).collect()
}

/// Makes the temporary table that COPY fills.
fn stage_sql(table: Table, gone: bool) -> String {
    let name = table.postgres();
    if gone {
        format!(
            "CREATE TEMP TABLE gone_{name} ON COMMIT DROP AS SELECT {} FROM radarflow.{name} WITH NO DATA",
            keys(table).join(", ")
        )
    } else {
        format!(
            "CREATE TEMP TABLE new_{name} ON COMMIT DROP AS SELECT {} FROM radarflow.{name} WITH NO DATA",
            columns(table).join(", ")
        )
    }
}

fn upsert_sql(table: Table) -> String {
    let (name, columns, keys) = (table.postgres(), columns(table).join(", "), keys(table));
    let sets: Vec<String> = table
        .columns()
        .iter()
        .map(|c| format!("\"{}\"", c.name))
        .filter(|c| !keys.contains(c))
        .map(|c| format!("{c} = excluded.{c}"))
        .collect();
    let action =
        if table.nature() == Nature::Event { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
    format!(
        "INSERT INTO radarflow.{name} ({columns}) SELECT {columns} FROM new_{name} ON CONFLICT ({}) DO {action}",
        keys.join(", ")
    )
}

fn delete_sql(table: Table) -> String {
    let name = table.postgres();
    let join: Vec<String> = keys(table).iter().map(|k| format!("t.{k} = g.{k}")).collect();
    format!("DELETE FROM radarflow.{name} t USING gone_{name} g WHERE {}", join.join(" AND "))
}

/// A key's COPY line: its parts are escaped already.
fn delete_line(key: &str, out: &mut String) {
    let parts: Vec<&str> = key.trim_end_matches('\u{1f}').split('\u{1f}').collect();
    let _ = writeln!(out, "{}", parts.join("\t"));
}

async fn copy_in(tx: &mut sqlx::PgTransaction<'_>, into: &str, lines: String) -> Result<(), PostgresError> {
    let mut copy = tx.copy_in_raw(&format!("COPY {into} FROM STDIN")).await?;
    copy.send(lines.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// Copies a batch in pieces.
async fn copy_batch(
    tx: &mut sqlx::PgTransaction<'_>,
    into: &str,
    table: Table,
    batch: &RecordBatch,
) -> Result<(), PostgresError> {
    let mut copy = tx.copy_in_raw(&format!("COPY {into} FROM STDIN")).await?;
    let mut piece = String::new();
    for row in 0..batch.num_rows() {
        table.copy_row(batch, row, &mut piece);
        if piece.len() >= COPY_BYTES || row + 1 == batch.num_rows() {
            copy.send(std::mem::take(&mut piece).into_bytes()).await?;
        }
    }
    copy.finish().await?;
    Ok(())
}
