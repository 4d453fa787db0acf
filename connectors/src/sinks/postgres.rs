//! Postgres: state tables as they are, health and alert history as it happened.
//!
//! ```text
//! take(epoch) ─► waiting: net change a key, in memory ─► writer: one transaction a batch ─► Postgres
//!                   │ beyond the bound                        ▲
//!                   └─► let go ─────────► Truth ──────────────┘ resynchronise
//! ```
//! Epochs are taken as net change a key, so that a database that was away catches up with one row a key. [`Postgres::take`]
//! folds them under a lock that nobody holds for longer than that takes: it waits for no answer of the database. The
//! writer applies what waits in one transaction: it locks its row of `sink_progress`, `COPY` into temporary tables,
//! set-based upsert and delete, and the new frontier in that row. Whoever finds another generation or frontier there than
//! it left has been replaced, and stops.
//!
//! Nothing is waited for without end: not for a connection, a lock, a statement, a transaction, nor for a server that says
//! nothing at all ([`Limits`]). What took too long is given up with its connection, merged with what came since, and tried
//! again. A transaction whose end was not heard of is settled by the frontier that the next one finds.
//!
//! A database that is new, older than what the process starts from, or was away while more came than may wait is
//! *resynchronised* from what is true now ([`Truth`]): everything is staged in temporary tables, and one transaction removes
//! what is gone, and writes what differs; its readers notice nothing of that, and it does not wait for them. Event tables
//! get the rows they missed. A row that the database refuses is a defect: the sink stops and says so, the process goes on.

pub mod database;
mod migrations;
mod server;
mod sql;
#[cfg(test)]
mod tests;
mod waiting;
mod writer;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arrow::array::RecordBatch;
use radarflow_proto::ports::{BoxFuture, EpochOutput};
use radarflow_proto::rows::Table;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};
use thiserror::Error;

use self::database::{Database, Patience};
use self::server::{Server, connect};
use self::waiting::Waiting;
use self::writer::Writer;
use super::Applied;

/// How long [`check`] waits.
const CHECK: Duration = Duration::from_secs(5);
/// How long migrations may take.
const MIGRATE: Duration = Duration::from_secs(600);
/// How long migrations wait for a lock: of a reader, or of another process that migrates.
const MIGRATE_LOCK: Duration = Duration::from_secs(30);

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// A connection, until it can be used.
    connect: Duration,
    /// A lock.
    lock: Duration,
    /// A transaction, or a step of a resynchronisation, and a second more for so many bytes as [`Limits::SLOWEST`] says.
    write: Duration,
    /// What a resynchronisation is made from, of one table.
    truth: Duration,
    /// Pauses after a failure: the first, and the longest.
    retry: (Duration, Duration),
}

impl Limits {
    const DEFAULT: Limits = Limits {
        connect: Duration::from_secs(10),
        lock: Duration::from_secs(5),
        write: Duration::from_secs(30),
        truth: Duration::from_secs(300),
        retry: (Duration::from_secs(1), Duration::from_secs(10)),
    };
    /// A database that takes less than so many bytes a second is as good as none.
    const SLOWEST: usize = 512 << 10;

    fn of(&self, bytes: usize) -> Duration {
        self.write + Duration::from_secs((bytes / Self::SLOWEST) as u64)
    }
}

/// Why Postgres cannot be written.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// The database refused or is away.
    #[error("postgres: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[error("postgres migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// It said nothing for too long.
    #[error(
        "postgres: {what} took longer than {limit:?} and was given up; see whether the server and the network answer"
    )]
    Silent {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// Another process writes it now.
    #[error(
        "postgres: another radarflow has taken over this database (generation and frontier {found:?}, ours {ours:?})"
    )]
    Replaced {
        /// Generation and frontier found.
        found: Option<(i64, i64)>,
        /// The generation and the frontier we stored last.
        ours: (i64, Option<u64>),
    },
    /// The schema that it writes is not there.
    #[error("the database has no schema of radarflow")]
    NoSchema,
    /// The schema lacks what this program writes.
    #[error("the schema radarflow is of an older version ({found} of {wanted} migrations)")]
    OldSchema {
        /// Migrations that were applied.
        found: i64,
        /// Those there are.
        wanted: i64,
    },
    /// What a resynchronisation reads from cannot be read.
    #[error("postgres: what it missed cannot be read: {0}")]
    Truth(String),
}

impl PostgresError {
    fn code(&self) -> Option<String> {
        let PostgresError::Database(sqlx::Error::Database(error)) = self else { return None };
        error.code().map(Into::into)
    }

    /// Whether a row is at fault (classes 21, 22, 23 and 54 of SQLSTATE): trying again changes nothing.
    fn is_defect(&self) -> bool {
        self.code().is_some_and(|code| ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class)))
    }

    /// What whoever runs it may do.
    pub fn advice(&self) -> &'static str {
        match (self, self.code().as_deref()) {
            (PostgresError::Replaced { .. }, _) => {
                "stop the other radarflow or give each a database of its own, then start this one again"
            }
            (_, Some("55P03")) => {
                "another session holds a lock on a table of the schema radarflow: find it in pg_locks and end it"
            }
            (_, Some("57014")) => "a statement took too long: see what the server is busy with in pg_stat_activity",
            (PostgresError::NoSchema | PostgresError::OldSchema { .. }, _) | (_, Some("42P01" | "42703" | "3F000")) => {
                "run `radarflow migrate`, or start with `radarflow serve --migrate`; what is missed is written then"
            }
            (_, Some("28P01" | "28000")) => "the database refuses the user or the password: see [sinks.postgres] url",
            (_, Some("3D000")) => "there is no such database: create it, or see [sinks.postgres] url",
            _ if self.is_defect() => {
                "the database refuses a row: the server's log says which; make the schema again what the migrations made \
                 (`radarflow migrate`) or report it, then start radarflow again: what was missed is written then"
            }
            _ => "it is tried again",
        }
    }
}

/// What a database that missed too much is filled from.
pub trait Truth: Send + Sync + 'static {
    /// Every row of every state table, at one epoch.
    fn state(&self) -> (u64, Vec<(Table, RecordBatch)>);

    /// Rows of an event table of the epochs `after < epoch ≤ until`.
    fn events(&self, table: Table, after: u64, until: u64) -> BoxFuture<Result<Vec<RecordBatch>, String>>;
}

/// Gives up what takes too long. What it used must not be used again: it may be in the middle of something.
async fn within<T, E: Into<PostgresError>>(
    limit: Duration,
    what: &'static str,
    done: impl Future<Output = Result<T, E>>,
) -> Result<T, PostgresError> {
    match tokio::time::timeout(limit, done).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(PostgresError::Silent { what, limit }),
    }
}

/// Brings the schema up to date.
///
/// # Errors
/// [`PostgresError`] where the URL is none, the database does not answer in time, or a migration fails or was changed.
pub async fn migrate(url: &str) -> Result<(), PostgresError> {
    let options: PgConnectOptions = url.parse()?;
    let patience = Patience { statement: MIGRATE, lock: MIGRATE_LOCK };
    let mut connection = within(Limits::DEFAULT.connect, "a connection", connect(&options, patience)).await?;
    within(MIGRATE, "a migration", async {
        connection.execute("CREATE SCHEMA IF NOT EXISTS radarflow").await?;
        migrations::migrator().run_direct(None, &mut connection, false).await?;
        Ok::<_, PostgresError>(())
    })
    .await
}

/// Whether the database answers and has the schema that is written.
///
/// # Errors
/// [`PostgresError`] where the URL is none, the database does not answer in time, or its schema is missing or older.
pub async fn check(url: &str) -> Result<(), PostgresError> {
    let options: PgConnectOptions = url.parse()?;
    within(CHECK, "an answer", async {
        let mut connection = PgConnection::connect_with(&options).await?;
        schema(&mut connection).await
    })
    .await
}

/// Whether the schema is there, and of this program or a newer one.
async fn schema(connection: &mut PgConnection) -> Result<(), PostgresError> {
    let there: (bool, bool) = sqlx::query_as(sql::SCHEMA).fetch_one(&mut *connection).await?;
    match there {
        (false, _) => Err(PostgresError::NoSchema),
        // Migrated by other means: what is missing is found when it is written.
        (true, false) => Ok(()),
        (true, true) => {
            let wanted = migrations::migrator().iter().map(|migration| migration.version).max().unwrap_or_default();
            let found: i64 = sqlx::query_scalar(sql::MIGRATED).fetch_one(connection).await?;
            if found < wanted { Err(PostgresError::OldSchema { found, wanted }) } else { Ok(()) }
        }
    }
}

/// The way in.
pub struct Postgres {
    waiting: Arc<Waiting>,
}

impl Postgres {
    /// Starts the sink. `here` begins with the epoch after which the dataflow says every change again, and ends with the last
    /// of the ledger as it is now: a database that is further than that is of a ledger that was put back, and is put back
    /// likewise. So many bytes of changes may wait; beyond it the database is resynchronised when it is back.
    ///
    /// # Errors
    /// [`PostgresError`] where the URL is none. A database that is away is no error: it is waited for.
    pub fn start(
        url: &str,
        generation: u64,
        here: RangeInclusive<u64>,
        pending_bytes: usize,
        truth: Arc<dyn Truth>,
    ) -> Result<Postgres, PostgresError> {
        Ok(Self::start_on(Arc::new(Server(url.parse()?)), generation, here, pending_bytes, truth))
    }

    /// The same on any database.
    pub fn start_on(
        database: Arc<dyn Database>,
        generation: u64,
        here: RangeInclusive<u64>,
        pending_bytes: usize,
        truth: Arc<dyn Truth>,
    ) -> Postgres {
        Self::start_within(Limits::DEFAULT, database, generation, here, pending_bytes, truth)
    }

    fn start_within(
        limits: Limits,
        database: Arc<dyn Database>,
        generation: u64,
        here: RangeInclusive<u64>,
        pending_bytes: usize,
        truth: Arc<dyn Truth>,
    ) -> Postgres {
        let waiting = Arc::new(Waiting::new(pending_bytes));
        let writer = Writer::new(limits, database, generation, here, waiting.clone(), truth);
        tokio::spawn(writer.run());
        Postgres { waiting }
    }

    /// Takes an epoch. It folds it into what waits, and never waits for the database.
    pub fn take(&self, output: &Arc<EpochOutput>) {
        self.waiting.take(output);
    }

    /// Bytes of changes that wait.
    pub fn waiting(&self) -> &Arc<AtomicUsize> {
        self.waiting.bytes()
    }

    /// How far it is.
    pub fn applied(&self) -> &Applied {
        self.waiting.applied()
    }
}

impl Drop for Postgres {
    /// What waits is tried once more; nobody waits for it.
    fn drop(&mut self) {
        self.waiting.close();
    }
}
