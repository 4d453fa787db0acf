//! The spine: what carries an epoch from the ledger to everyone.
//!
//! ```text
//!  sources ──► intake ──► ledger ──► workers ──► collector ──► live tables, lake, Postgres, outbox, …   (consumers)
//!                ▲          │                        │
//!                │          ▼                        ▼
//!          pause, resume   trim ◄── decide ◄── state handed in ──► snapshots
//! ```
//! [`open`] reads what a data directory holds: the state to start from, in the schemas of this build, and the log.
//! [`Opened::start`] starts the workers, reads the log again, and lets frames flow; [`Pipeline::stop`] ends it all in order.
//! What follows from what happened is decided in one place, by a pure function ([`decide`]); the rest of the crate does
//! what it says:
//!
//! - [`driver`]: does what is decided, and tells the others;
//! - [`collector`]: merges what workers say, hands whole epochs to consumers, state to the snapshots;
//! - [`consumers`]: who receives epochs, and what each promises;
//! - [`snapshots`]: writes state on a thread of its own.
//!
//! Guaranteed: nobody who receives epochs keeps another from receiving them; what was handed in for a snapshot is kept
//! until a snapshot has it; frames go only where two usable snapshots, or the only one, stand for them. Not guaranteed:
//! that a consumer is as far as another.
//!
//! Decisions need no disk and no clock:
//!
//! ```
//! use radarflow_pipeline::decide::{Action, Event, Spine};
//!
//! let mut spine = Spine::new(0, ["lake"]);
//! assert_eq!(spine.happened(Event::StateHandedIn(1)), [Action::WriteSnapshot]);
//! // It is tried again after a while, and the operator is told.
//! assert_eq!(spine.happened(Event::SnapshotFailed), [Action::SnapshotsFail(true)]);
//! ```
#![forbid(unsafe_code)]

pub mod collector;
pub mod consumers;
pub mod decide;
pub mod driver;
pub mod late;
mod run;
pub mod snapshots;

pub use run::{Directory, Finder, Opened, Pipeline, PipelineError, Replay, Setup, open, read};
