//! What the sink needs of a database: the server's sessions ([`super::server`]), or those of a model in a test.
//!
//! What is decided (what waits, what a frontier means, when all is filled anew, what was in doubt) is the writer's; here is
//! only what is done. Each call may take for ever: the writer gives up, and the session with it.

use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use radarflow_proto::rows::{StateRow, Table};

use super::PostgresError;

/// Generation and frontier, as a database has them; `None` where it has none.
pub type Progress = Option<(i64, i64)>;

/// Something that a table is given.
#[derive(Clone, Copy, Debug)]
pub enum Item<'a> {
    /// The key of a row that is gone.
    Key(&'a str),
    /// A row of state.
    Row(&'a StateRow),
    /// Rows that happened, or rows of state that are staged.
    Batch(&'a RecordBatch),
}

/// How long a session waits at most, by its own settings.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a statement.
    pub statement: Duration,
    /// For a lock.
    pub lock: Duration,
}

/// A database.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// Opens a session.
    ///
    /// # Errors
    /// It is away, or refuses.
    async fn connect(&self, patience: Patience) -> Result<Box<dyn Session>, PostgresError>;
}

/// A session. One on which a call failed or was given up is not used again; a transaction under way ends with it, without
/// a trace.
///
/// # Errors
/// Every call fails with what the database says, or because it is away.
#[async_trait]
pub trait Session: Send {
    /// Begins a transaction that may take so long in all.
    async fn begin(&mut self, limit: Duration) -> Result<(), PostgresError>;

    /// Generation and frontier, locked until the end of the transaction, if one is under way.
    async fn progress(&mut self) -> Result<Progress, PostgresError>;

    /// Writes rows of a table, and removes those that are gone.
    async fn write(&mut self, table: Table, gone: &[Item<'_>], there: &[Item<'_>]) -> Result<(), PostgresError>;

    /// Keeps rows of a table for [`Session::exchange`], for as long as the session lives; nobody else sees them. Outside of
    /// a transaction.
    async fn stage(&mut self, table: Table, limit: Duration, rows: &[RecordBatch]) -> Result<(), PostgresError>;

    /// Makes a table of state what is staged, and adds what is staged to one of events.
    async fn exchange(&mut self, table: Table) -> Result<(), PostgresError>;

    /// Removes what a table of events has of epochs after one, in the transaction.
    async fn forget(&mut self, table: Table, after: u64) -> Result<(), PostgresError>;

    /// Moves the frontier, in the transaction.
    async fn move_to(&mut self, generation: i64, frontier: u64) -> Result<(), PostgresError>;

    /// Ends the transaction: all of it is there, or, where this fails, all or nothing.
    async fn commit(&mut self) -> Result<(), PostgresError>;

    /// Ends the transaction as if it had not been.
    async fn rollback(&mut self) -> Result<(), PostgresError>;
}
