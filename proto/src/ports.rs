//! How the parts reach each other without knowing each other: sources and the API append inputs through [`FactSink`];
//! sinks and live tables receive whole epochs as [`EpochOutput`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arrow_array::RecordBatch;
use thiserror::Error;

use crate::fact::Fact;
use crate::frame::{Entry, Origin, Range};
use crate::payload::DueNotification;
use crate::record::{Identifier, Record, RecordKey};
use crate::rows::{Change, Table};

/// Why an input was not made durable.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// The queue before the ledger is full; try again later.
    #[error("the ledger's queue is full; try again later")]
    Full,
    /// The disk refused; intake has stopped until it recovers.
    #[error("the ledger cannot be written: {0}")]
    Storage(String),
    /// The process is stopping.
    #[error("shutting down")]
    Closed,
}

/// A future that owns what it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Inputs of one origin, in order.
pub type Part = (Arc<Origin>, Vec<Entry>);

/// Where inputs become durable. Returning `Ok(epoch)` means: on disk, in the frame of that epoch.
pub trait FactSink: Send + Sync + 'static {
    /// Appends everything into one frame, with the offsets it was read from; waits while the queue is full.
    fn append_all(&self, parts: Vec<Part>, ranges: Vec<Range>) -> BoxFuture<Result<u64, AppendError>>;

    /// Appends inputs of one origin, in order, into one frame; waits while the queue is full.
    fn append(&self, origin: Arc<Origin>, entries: Vec<Entry>) -> BoxFuture<Result<u64, AppendError>> {
        self.append_all(vec![(origin, entries)], Vec::new())
    }

    /// Appends if there is room, without waiting for durability: for senders that cannot be answered. The inputs come
    /// back when there is no room, for the caller to count as shed.
    fn offer(&self, origin: Arc<Origin>, entries: Vec<Entry>) -> Result<(), Vec<Entry>>;
}

/// Everything one epoch changed, complete: no more will come for it.
#[derive(Clone, Debug, Default)]
pub struct EpochOutput {
    /// Which epoch.
    pub epoch: u64,
    /// Its clock, milliseconds since 1970.
    pub clock_ms: i64,
    /// Net changes of state tables: one a key.
    pub changes: Vec<Change>,
    /// New rows of event tables, each batch within one tenant.
    pub events: Vec<(Table, RecordBatch)>,
    /// Notifications that became due, in order.
    pub due: Vec<DueNotification>,
    /// Notifications that were delivered or are dead.
    pub settled: Vec<String>,
    /// Standing facts as they came: tokens, receivers, source instances.
    pub facts: Vec<Fact>,
    /// Answers to commands.
    pub outcomes: Vec<Outcome>,
    /// Records to go, and the site of each: their devices have been deleted for one retention.
    pub reaped: Vec<(RecordKey, String)>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// The command.
    pub command_id: String,
    /// Refused, and why; `None` when it was applied.
    pub refused: Option<String>,
}

/// A live record and where identity put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    /// The record.
    pub record: Record,
    /// The device it is of.
    pub uid: String,
    /// What put it there, as the audit spells it.
    pub how: &'static str,
}

/// Which records are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of devices.
    Devices {
        /// Customer.
        tenant: String,
        /// Their uids.
        uids: Vec<String>,
    },
    /// Those that assert, show or claim any of these.
    Sharing {
        /// Customer.
        tenant: String,
        /// Site.
        partition: String,
        /// Identifiers, MACs, addresses.
        identifiers: Vec<Identifier>,
    },
}

/// Finds live records for who asks why identity is as it is: a bounded number, in no order, as of the newest epoch.
pub trait FindRecords: Send + Sync + 'static {
    /// Finds them; `None` when the dataflow does not answer in time.
    fn find(&self, wanted: Wanted) -> BoxFuture<Option<Vec<FoundRecord>>>;
}

/// Receives epochs in order. A sink that cannot keep up buffers within its own bound; it never blocks the caller for
/// another sink's sake.
pub trait EpochSink: Send {
    /// Takes one epoch.
    fn apply(&mut self, output: &Arc<EpochOutput>);
}

/// Which facts must be in the ledger before a sync payload can be read: instances that nobody spoke for yet.
pub trait NewInstances: Send + Sync + 'static {
    /// The facts that `payload`, a JSON array of device updates of `tenant`, needs and the ledger lacks.
    fn facts(&self, tenant: &str, payload: &[u8]) -> Vec<Fact>;
}
