//! The computation: every derived fact as a pure function of the input facts, maintained as they change.
//!
//! ```text
//! frame ─► decode ─┬─► listings ─────┐
//!                  ├─► sightings ─► records ─┬─► first seen ─┐
//!                  │                         ├─► identity ◄──┴─► ownership ─► devices ─┬─► rows
//!                  ├─► polls ─► aliases ─────┘       └─► merges       ▲               │
//!                  ├─► probes ─► availability ────────────────────────┘               │
//!                  ├─► beats ─► agents ─────────────────────────► conditions ◄────────┘
//!                  ├─► log bursts, trap pairs ──────────────────►     │
//!                  │                                                alerts ─► groups ─► notifications
//!                  └─► batches (flows, logs, traps) ─► attribution ◄─ ownership ─► corrections
//! ```
//! The only clock is the ledger's epoch and the `clock_ms` that came with it. Three kinds of operators:
//!
//! * **relations** ([`identity`], [`inventory`], [`enrich`]) are differential collections: facts in, facts out, with retractions;
//! * **machines** ([`keyed`]: [`records`], [`aliases`], [`listings`], [`merges`], [`corrections`], [`lifecycle`], [`health`], [`alerts`], [`loss`], [`topology`]) are
//!   keyed state with timers, for what remembers more than its live input;
//! * **streams** ([`decode`], [`attribution`]) move rows as Arrow batches and never enter a collection.
//!
//! What a machine remembers is snapshotted; what a relation remembers is recomputed from its inputs at restart.
//! [`worker`] runs it all; [`layout`] is how arrangements lie in memory; [`output`] merges what the workers say about one epoch; [`strangers`] says whom we keep in mind for how long; [`sizes`] tells how much is kept.
#![forbid(unsafe_code)]

pub mod alerts;
pub mod aliases;
pub mod attribution;
pub mod corrections;
pub mod decode;
pub mod enrich;
pub mod health;
pub mod identity;
pub mod inventory;
pub mod keyed;
pub mod layout;
pub mod lifecycle;
pub mod listings;
pub mod loss;
pub mod merges;
pub mod output;
pub mod records;
pub mod sizes;
pub mod strangers;
pub mod topology;
pub mod upgrade;
pub mod worker;
