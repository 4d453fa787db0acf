//! What is asked of the records that devices are made of: why they are one device, what identity would make of a change,
//! what a run of an inventory would change.
//!
//! Records are the dataflow's; they are found by asking it ([`Finder`]). Everything else is read in the live tables, which may
//! be an epoch apart: an answer is of a moment, and says of which. Nothing is changed but by a plan that is applied.
//!
//! | file | says |
//! |---|---|
//! | [`explain`] | why a device is one, and why two devices are two |
//! | [`whatif`] | what another link, policy or record would make of devices |
//! | [`plans`], [`plan`], [`notes`] | which plans wait, what a plan is, what is noted for it |
//! | [`inventory`] | what pushed items are, and whose |
//! | [`held`] | which runs wait for somebody |
//! | [`imported`] | names that devices had in a system that was replaced |
//! | [`end`] | how requests name an identifier |

pub(crate) mod end;
pub(crate) mod explain;
pub(crate) mod held;
pub(crate) mod imported;
pub mod inventory;
pub(crate) mod notes;
pub(crate) mod plan;
pub mod plans;
pub(crate) mod whatif;

use radarflow_proto::fact::IpLink;
use radarflow_proto::ports::{AppendError, FindRecords, FoundRecord, MAX_LISTED, RecordQuery};
use radarflow_proto::room::NoRoom;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::error::{OVER, QueryError};
use crate::records::held::HeldRun;
use crate::records::plan::Plan;
use crate::records::plans::KEPT;
use crate::records::whatif::MAX_LOOKED_AT;
use crate::tables::names::BadName;
use crate::tables::view::View;

/// Why it is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// What is asked is wrong, by a code of its own.
    #[error("{1}")]
    Bad(&'static str, String),
    /// An identifier is none.
    #[error(transparent)]
    Name(#[from] BadName),
    /// It is not there, or not the actor's to see.
    #[error("{0}")]
    NotFound(String),
    /// It is not the actor's to do.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The token of whoever asks was revoked meanwhile, or is over.
    #[error("{OVER}")]
    Ended,
    /// The dataflow does not answer in time.
    #[error("the dataflow is busy; ask again later")]
    CatchingUp,
    /// What is asked reaches too far.
    #[error("this reaches more than {MAX_LOOKED_AT} records; ask about something narrower")]
    TooFar,
    /// There is too much to plan; what has it.
    #[error("{0} {MAX_LISTED} items or more: too many to plan")]
    TooMany(&'static str),
    /// There is no room to note it: other plans of the tenant hold it, or other tenants'.
    #[error(
        "there is no memory left to plan so much; apply or forget plans that wait (they are forgotten after {} s), or plan \
         less at once",
        KEPT.as_secs()
    )]
    NoRoom,
    /// What stands has changed since it was planned: another plan waits.
    #[error("what stands has changed since; what would change now is plan {}", .0.digest)]
    Outdated(Box<Plan>),
    /// An earlier run of the source is held, and with it what this one would change of the same devices.
    #[error(
        "run {} of {} is held ({}), and what it touches stays as it is: release or reject it first \
         (`radarflow runs release {} {}`), then plan again", .0.run, .0.source, .0.why, .0.source, .0.run
    )]
    Held(HeldRun),
    /// There is no memory for what is asked.
    #[error(transparent)]
    Room(#[from] NoRoom),
    /// It was not made durable.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It is not the asker's turn.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl Refused {
    /// What is asked is wrong.
    fn bad(detail: impl Into<String>) -> Self {
        Refused::Bad("bad_request", detail.into())
    }
}

/// Finds records in the dataflow.
pub(crate) struct Finder<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) records: &'a dyn FindRecords,
}

impl Finder<'_> {
    /// Finds some. That reads every device: it counts among the questions a tenant may ask at once.
    pub(crate) async fn find(&self, tenant: &str, wanted: RecordQuery) -> Result<Vec<FoundRecord>, Refused> {
        let _running = self.engine.admit(tenant).await?;
        self.records.find(wanted).await.ok_or(Refused::CatchingUp)
    }
}

/// What an answer is made of: records, and one version of the live tables as an actor sees them.
pub(crate) struct Sight<'a> {
    pub(crate) finder: Finder<'a>,
    pub(crate) view: &'a View,
    pub(crate) actor: &'a Actor,
    /// How far an address alone links.
    pub(crate) policy: IpLink,
}
