//! How the parts reach each other without knowing each other: sources and the API append inputs through an [`Appender`];
//! sinks and live tables receive whole epochs as [`EpochOutput`].

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use arrow_array::RecordBatch;
use async_trait::async_trait;
use thiserror::Error;

use crate::cell::Time;
use crate::fact::Fact;
use crate::frame::{Entry, Origin, Range};
use crate::lake::Versions;
use crate::payload::{Brought, DeviceUpdate, DueNotification, SyncMeta};
use crate::record::{Identifier, Record, RecordKey, SourceKind};
use crate::resource::{Judgement, ResourceChange};
use crate::rows::{Change, Table};

/// Why an input was not made durable.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// The disk refused; intake has stopped until it recovers.
    #[error("the ledger cannot be written: {0}")]
    Storage(String),
    /// It does not fit into a frame.
    #[error("{bytes} bytes at once are more than the ledger takes ({most}); send them in parts")]
    TooLarge {
        /// How many it takes.
        bytes: usize,
        /// How many there may be.
        most: usize,
    },
    /// The process is stopping.
    #[error("shutting down")]
    Closed,
}

/// A future that owns what it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Inputs of one origin, in order.
pub type Part = (Arc<Origin>, Vec<Entry>);

/// Where inputs become durable. Returning `Ok(epoch)` means: on disk, in the frame of that epoch.
pub trait Appender: Send + Sync + 'static {
    /// Appends everything into one frame, with the offsets it was read from; waits while the queue is full.
    fn append_all(&self, parts: Vec<Part>, ranges: Vec<Range>) -> BoxFuture<Result<u64, AppendError>>;

    /// The newest epoch that is on disk; nothing as long as that is not known. No write has told a later one.
    fn durable(&self) -> Option<u64>;

    /// Appends inputs of one origin, in order, into one frame; waits while the queue is full.
    fn append(&self, origin: Arc<Origin>, entries: Vec<Entry>) -> BoxFuture<Result<u64, AppendError>> {
        self.append_all(vec![(origin, entries)], Vec::new())
    }

    /// Appends if there is room, without waiting for durability: for senders that cannot be answered. The inputs come
    /// back when there is no room, for the caller to count as shed.
    ///
    /// # Errors
    /// The inputs, where there is no room for them.
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
    /// Standing facts as they came: source instances, links, policies.
    pub facts: Vec<Fact>,
    /// What became of resources: users, tokens, receivers, groups.
    pub resources: Vec<ResourceChange>,
    /// Answers to commands about resources.
    pub judgements: Vec<Judgement>,
    /// Answers to other commands.
    pub outcomes: Vec<Outcome>,
    /// Configurations of agents that are others now.
    pub configurations: Vec<AgentConfiguration>,
    /// What became of commands to agents.
    pub commands: Vec<AgentCommand>,
    /// Records to go, and the site of each: their devices have been deleted for one retention.
    pub reaped: Vec<(RecordKey, String)>,
    /// `changes` as rows of histories; see [`EpochOutput::versions`].
    pub versions: Versions,
}

/// What an agent has to do from an epoch on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentConfiguration {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// Which agent.
    pub agent_id: String,
    /// `config_json` as the agent gets it; none where nothing is known of the agent any more.
    pub content: Option<Arc<str>>,
}

/// What the gateway has to know of a command to an agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentCommand {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// Which agent.
    pub agent_id: String,
    /// The command.
    pub command_id: String,
    /// What becomes of it.
    pub turn: CommandTurn,
}

/// What becomes of a command to an agent. It leaves by one connection, once: whoever holds a connection of the agent asks for it
/// ([`crate::payload::ControlWord::Claimed`]), and the first is given it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CommandTurn {
    /// It waits for a connection of the agent.
    Waits,
    /// It waits no more.
    Withdrawn,
    /// It leaves by this connection.
    Granted {
        /// The connection that asked for it.
        stream: String,
        /// What the agent is told to do.
        command_type: String,
        /// JSON.
        payload: String,
        /// Until when the agent must have begun, milliseconds since 1970.
        until_ms: i64,
    },
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outcome {
    /// The command.
    pub command_id: String,
    /// Refused, and why; `None` when it was applied.
    pub refused: Option<String>,
}

/// Names the application of a run that somebody brought: its outcome comes at the epoch in which the last of it is read.
pub fn run_command(tenant: &str, kind: SourceKind, instance: &str, run: &str) -> String {
    format!("run:{tenant}/{}/{instance}/{run}", kind.name())
}

/// A live record and where identity put it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundRecord {
    /// The record.
    pub record: Record,
    /// The device it is of.
    pub uid: String,
    /// What put it there, as the audit spells it.
    pub how: &'static str,
    /// An agent's that was not confirmed for a day.
    pub stale: bool,
    /// Addresses that it has claimed in three runs; where it was asked for.
    pub settled: Vec<IpAddr>,
    /// Confirmed aliases that it reports; where it was asked for.
    pub aliases: Vec<(IpAddr, Time)>,
}

/// Which records are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordQuery {
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
    /// These, with what is remembered of them: `settled` and `aliases`, and nothing else.
    Remembered {
        /// Which.
        records: Vec<Record>,
    },
    /// All of a site.
    Site {
        /// Customer.
        tenant: String,
        /// Site.
        partition: String,
    },
    /// All of a source instance.
    Listed {
        /// Customer.
        tenant: String,
        /// Kind of source.
        kind: SourceKind,
        /// Its instance, as records name it.
        instance: String,
    },
}

/// Records found at most by one worker; whoever gets so many does not have them all.
pub const MAX_FOUND: usize = 2000;

/// Records of a site found at most by one worker.
pub const MAX_OF_SITE: usize = 50_000;

/// Records of a source found at most by one worker.
pub const MAX_LISTED: usize = 200_000;

/// Something else that might be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Supposed {
    /// A link made or taken back, a policy.
    Fact(Fact),
    /// A record that says this.
    Record(Record),
    /// No such record.
    Gone(RecordKey),
}

/// What identity is imagined on: records that share nothing with others, and what is remembered of them.
#[derive(Clone, Debug, Default)]
pub struct Imagine {
    /// The records.
    pub records: Vec<FoundRecord>,
    /// When identifiers were first seen, where it is known.
    pub first_seen: Vec<(Identifier, Time)>,
    /// Links and the policy that hold.
    pub facts: Vec<Fact>,
    /// What would be true instead.
    pub then: Vec<Supposed>,
}

/// By record: what its device is called, and what puts it there.
pub type Placements = BTreeMap<RecordKey, (String, &'static str)>;

/// Where records are, and where they would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imagined {
    /// As it is.
    pub before: Placements,
    /// As it would be.
    pub after: Placements,
}

/// Finds live records for who asks why identity is as it is: a bounded number, in no order, as of the newest epoch.
pub trait FindRecords: Send + Sync + 'static {
    /// Finds them; `None` when the dataflow does not answer in time.
    fn find(&self, wanted: RecordQuery) -> BoxFuture<Option<Vec<FoundRecord>>>;

    /// What identity would make of something else.
    fn imagine(&self, question: Imagine) -> BoxFuture<Option<Imagined>>;
}

/// Whose run it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOf {
    /// Customer.
    pub tenant: String,
    /// Site of items that name none.
    pub partition: String,
    /// Whoever brings it may speak of that site alone, whatever items say.
    pub bound: bool,
    /// Kind of source.
    pub kind: SourceKind,
    /// The inventory: `armis`, `netbox`, or the type of another integration.
    pub name: String,
    /// The instance of it.
    pub instance: String,
    /// Names the run.
    pub run: String,
}

impl RunOf {
    /// The instance as records name it: other integrations' are counted by type.
    pub fn speaker(&self) -> String {
        match self.kind {
            SourceKind::Integration => format!("{}.{}", self.name, self.instance),
            _ => self.instance.clone(),
        }
    }

    /// Its source, as alerts name it: `netbox/main`, `integration/servicenow.main`.
    pub fn source(&self) -> String {
        format!("{}/{}", self.kind.name(), self.speaker())
    }

    /// Names its application.
    pub fn command_id(&self) -> String {
        run_command(&self.tenant, self.kind, &self.speaker(), &self.run)
    }

    /// Makes an item one of the run.
    pub fn own(&self, update: &mut DeviceUpdate) {
        let (sync_service_id, sync_run_id) = (self.instance.clone(), self.run.clone());
        update.sync_meta = SyncMeta { sync_service_id, sync_run_id };
        if update.partition.is_empty() || self.bound {
            update.partition.clone_from(&self.partition);
        }
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It lists a part of what there is.
    Part,
    /// It lists everything: what it lacks is withdrawn, unless that is so much that somebody must be asked.
    Whole,
    /// The same, and somebody was asked.
    Approved,
}

/// Takes inventories.
pub trait InventoryRuns: Send + Sync + 'static {
    /// Begins a run.
    fn begin(&self, of: RunOf) -> Box<dyn InventoryRun>;
}

/// A run of an inventory. What was given of it is applied when it ends, or not at all.
#[async_trait]
pub trait InventoryRun: Send {
    /// Makes items durable; waits while there is no room.
    async fn page(&mut self, items: Vec<DeviceUpdate>) -> Result<(), AppendError>;
    /// Ends it, for somebody or by itself. Gives the epoch.
    async fn end(self: Box<Self>, ending: Ending, by: Option<Brought>) -> Result<u64, AppendError>;
    /// Forgets it.
    async fn discard(self: Box<Self>) -> Result<u64, AppendError>;
}

/// Why an inventory was not read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// It cannot be asked, or does not answer as it should.
    #[error("{0}")]
    Source(String),
    /// What it said was not made durable.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// The inventories of the configuration, which are asked.
#[async_trait]
pub trait AskedInventories: Send + Sync + 'static {
    /// A run of everything that an inventory (`armis`, `main`) lists now; `None` where there is none of that name.
    fn run_of(&self, tenant: &str, name: &str, instance: &str) -> Option<RunOf>;
    /// Reads everything it lists into a run, and does not end it.
    async fn read(&self, of: &RunOf, into: &mut dyn InventoryRun) -> Result<(), ReadError>;
}

/// A certificate that was made for an agent. It may hold a key: it is not for logs.
#[derive(Clone)]
pub struct Certified {
    /// PEM.
    pub certificate: String,
    /// Its key, PEM, where it was made with it.
    pub key: Option<String>,
    /// The authorities that are believed, PEM.
    pub authorities: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of it as DER, hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of its public key, hexadecimal.
    pub of_key: String,
    /// When it ends, microseconds since 1970.
    pub not_after_us: i64,
}

/// An authority that was made.
pub struct NewAuthority {
    /// PEM.
    pub certificate: String,
    /// Its key, PEM, sealed.
    pub sealed_key: String,
    /// SHA-256 of the certificate as DER, hexadecimal.
    pub fingerprint: String,
    /// When it ends, microseconds since 1970.
    pub not_after_us: i64,
}

/// What agents are enrolled with: authorities of tenants, certificates that these sign, and packages that stand.
pub trait Authorities: Send + Sync + 'static {
    /// Whether a tenant has an authority that lasts long enough.
    fn has(&self, tenant: &str) -> bool;

    /// An authority of that id for a tenant, which has none until it is stated.
    ///
    /// # Errors
    /// Why it cannot be made.
    fn make(&self, tenant: &str, id: &str) -> Result<NewAuthority, String>;

    /// A certificate for an agent: of the key that asks for it (PKCS #10, PEM), or of one that is made with it. It lets nobody in
    /// until its hash stands in a package.
    ///
    /// # Errors
    /// Why there is none: the request is none, or the tenant has no authority whose key can be read.
    fn certify(&self, tenant: &str, agent_id: &str, site: &str, request: Option<&str>) -> Result<Certified, String>;

    /// The package of that id, and its tenant with it.
    fn package(&self, id: &str) -> Option<Arc<crate::resource::Resource>>;

    /// A signature (Ed25519) that tells tokens of this server from others.
    fn sign(&self, text: &[u8]) -> Vec<u8>;

    /// What such signatures are verified with.
    fn public_key(&self) -> Vec<u8>;
}

/// What must be in the ledger before a sync payload can be read: the source instances that it speaks for.
pub trait NewInstances: Send + Sync + 'static {
    /// Makes durable what `payloads`, JSON arrays of device updates of the origin's tenant, need and the ledger lacks. An
    /// instance counts as known once its fact is durable, and not before; which is the first of its kind is decided once.
    fn announce(
        &self,
        appender: &Arc<dyn Appender>,
        origin: &Origin,
        payloads: &[&[u8]],
    ) -> BoxFuture<Result<(), AppendError>>;
}
