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
//! * **relations** ([`identity`], [`inventory`], [`enrich`]) are differential collections ([`collection`]): facts in, facts
//!   out, with retractions;
//! * **machines** ([`keyed`]) are keyed state with timers, for what remembers more than its live input;
//! * **streams** ([`decode`], [`telemetry`]) move rows as Arrow batches and never enter a collection.
//!
//! What a machine remembers is snapshotted; what a relation remembers is recomputed from its inputs at restart.
//!
//! Every part is a module with a struct `Inputs`, a struct `Outputs` and a function `build` from one to the other;
//! `graph` connects them, [`worker`] runs it, [`output`] gathers what the workers say about one epoch. Modules know only
//! those before them; the order is written down in `tests/it/arrows.rs`.
#![forbid(unsafe_code)]

pub mod alerts;
pub mod aliases;
pub mod availability;
pub mod collection;
pub mod decode;
pub mod enrich;
pub mod facts;
mod graph;
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
pub mod steps;
pub mod strangers;
pub mod telemetry;
pub mod topology;
pub mod upgrade;
pub mod worker;
