//! Postgres: state tables as they are, health and alert history as it happened.
//!
//! Epochs are taken as net change a key, so that a sink that was away catches up with one row a key, and applied in one
//! transaction: `COPY` into temporary tables, set-based upsert and delete, and the fence: `UPDATE sink_progress SET
//! frontier = new WHERE … AND frontier = old` must touch one row. Whoever finds another generation or frontier there has
//! been replaced, and stops.
//!
//! A database that is new, or older than what the process starts from, is *resynchronised*: its state tables are emptied
//! and filled from what the dataflow says at its start. While it is down the workers do not notice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{Nature, Row, StateRow, Table};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection, Executor};
use thiserror::Error;
use tokio::sync::mpsc;

use super::Applied;

/// Epochs that may wait for the sink's task, which folds them at once.
const QUEUE: usize = 256;
/// Keys whose net change may wait; beyond it the database is resynchronised when it is back.
pub const MAX_PENDING: usize = 4_000_000;
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
}

impl Postgres {
    /// Starts the sink. `start` is the epoch that the dataflow says everything again at.
    pub fn start(url: &str, generation: u64, start: u64) -> Result<Postgres, PostgresError> {
        let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(5)).connect_lazy(url)?;
        let applied = Applied::default();
        let (epochs, queue) = mpsc::channel(QUEUE);
        let sink = Sink {
            pool,
            generation: generation as i64,
            start,
            frontier: None,
            state: BTreeMap::new(),
            events: BTreeMap::new(),
            newest: 0,
            applied: applied.clone(),
            resync: false,
        };
        tokio::spawn(sink.run(queue));
        Ok(Postgres { epochs, applied })
    }

    /// Takes an epoch.
    pub fn apply_blocking(&self, output: Arc<EpochOutput>) {
        let _ = self.epochs.blocking_send(output);
    }

    /// How far it is.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }
}

struct Sink {
    pool: PgPool,
    generation: i64,
    start: u64,
    /// What the database has; `None` until it was asked.
    frontier: Option<u64>,
    /// Net change by table and key.
    state: BTreeMap<(Table, String), Option<StateRow>>,
    /// Rows of event tables as COPY lines, with their epoch.
    events: BTreeMap<Table, Vec<(u64, String)>>,
    newest: u64,
    applied: Applied,
    resync: bool,
}

impl Sink {
    async fn run(mut self, mut queue: mpsc::Receiver<Arc<EpochOutput>>) {
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
                match self.write().await {
                    Ok(()) => break,
                    Err(error @ PostgresError::Replaced { .. }) => {
                        tracing::error!(%error, "the Postgres sink stops");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the Postgres sink waits");
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
            tokio::time::sleep(PACE).await;
        }
    }

    fn take(&mut self, output: &EpochOutput) {
        self.newest = output.epoch;
        for change in &output.changes {
            self.state.insert((change.table(), change.key()), change.after.clone());
        }
        for (table, batch) in &output.events {
            if table.postgres().is_empty() {
                continue;
            }
            let lines = self.events.entry(*table).or_default();
            for row in 0..batch.num_rows() {
                let mut line = String::new();
                copy_event(*table, batch, row, &mut line);
                lines.push((output.epoch, line));
            }
        }
        if self.state.len() > MAX_PENDING {
            tracing::error!("Postgres has been away for too long; restart with it reachable to resynchronise");
        }
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
                self.resync = true;
                0
            }
        };
        self.frontier = Some(frontier);
        Ok(frontier)
    }

    async fn write(&mut self) -> Result<(), PostgresError> {
        let old = self.frontier().await?;
        if self.newest <= old && !self.resync {
            self.state.clear();
            self.events.clear();
            self.applied.set(self.newest);
            return Ok(());
        }
        let mut connection = self.pool.acquire().await?;
        let mut tx = connection.begin().await?;
        if self.resync {
            for table in Table::ALL.iter().filter(|t| t.nature() == Nature::State) {
                sqlx::query(sqlx::AssertSqlSafe(format!("TRUNCATE radarflow.{}", table.postgres())))
                    .execute(&mut *tx)
                    .await?;
            }
        }
        for table in Table::ALL.iter().copied().filter(|t| !t.postgres().is_empty()) {
            let (mut upserts, mut deletes) = (String::new(), String::new());
            if table.nature() == Nature::State {
                let range = (table, String::new())..;
                for ((t, key), row) in self.state.range(range).take_while(|((t, _), _)| *t == table) {
                    debug_assert_eq!(*t, table);
                    match row {
                        Some(row) => row.copy(&mut upserts),
                        None => delete_line(key, &mut deletes),
                    }
                }
            } else if let Some(lines) = self.events.get(&table) {
                lines
                    .iter()
                    .filter(|(epoch, _)| *epoch > old || self.resync)
                    .for_each(|(_, line)| upserts.push_str(line));
            }
            if !deletes.is_empty() {
                copy_in(&mut tx, &stage_sql(table, true), &format!("gone_{}", table.postgres()), deletes).await?;
                tx.execute(sqlx::AssertSqlSafe(delete_sql(table))).await?;
            }
            if !upserts.is_empty() {
                copy_in(&mut tx, &stage_sql(table, false), &format!("new_{}", table.postgres()), upserts).await?;
                tx.execute(sqlx::AssertSqlSafe(upsert_sql(table))).await?;
            }
        }
        let new = self.newest.max(old);
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
        self.resync = false;
        self.state.clear();
        self.events.clear();
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

async fn copy_in(
    tx: &mut sqlx::PgTransaction<'_>,
    stage: &str,
    into: &str,
    lines: String,
) -> Result<(), PostgresError> {
    tx.execute(sqlx::AssertSqlSafe(stage.to_owned())).await?;
    let mut copy = tx.copy_in_raw(&format!("COPY {into} FROM STDIN")).await?;
    copy.send(lines.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

fn copy_event(table: Table, batch: &arrow::array::RecordBatch, row: usize, out: &mut String) {
    use radarflow_proto::rows::{AlertHistory, HealthEvent, Notification};
    match table {
        Table::HealthEvent => HealthEvent::read(batch, row).copy(out),
        Table::AlertHistory => AlertHistory::read(batch, row).copy(out),
        Table::Notification => Notification::read(batch, row).copy(out),
        _ => {}
    }
}
