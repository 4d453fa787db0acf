//! The computation: every derived fact as a pure function of the input facts, maintained as they change.
//!
//! ```text
//! frame ─► decode ─┬─► listings ─────┐
//!                  ├─► sightings ─► records ─┬─► first seen ─┐
//!                  │                         ├─► identity ◄──┴─► ownership ─► devices ─┬─► rows
//!                  ├─► polls ─► aliases ─────┘       └─► merges       ▲               │
//!                  ├─► probes ─► availability ────────────────────────┘               │
//!                  ├─► commands ─► resources ─► rows, receivers, judgements
//!                  ├─► beats ─► agents ─────────────────────────► conditions ◄────────┘
//!                  ├─► profiles × devices × agents ─► jobs ─► configurations of agents
//!                  ├─► log bursts, trap pairs ──────────────────►     │
//!                  │                                                alerts ─► groups ─► notifications
//!                  └─► batches (flows, logs, traps) ─► attribution ◄─ ownership ─► corrections
//! ```
//! The only clock is the ledger's epoch and the `clock_ms` that came with it. Three kinds of operators:
//!
//! * **relations** ([`aliases`], [`topology`], [`health`]) are differential collections ([`collection`]): facts in, facts
//!   out, with retractions;
//! * **machines** ([`keyed`]) are keyed state with timers, for what remembers more than its live input; [`identity`],
//!   [`inventory`] and the plans of [`jobs`] are operators of their own that take changes of collections and give such;
//! * **streams** ([`decode`], [`telemetry`]) move rows as Arrow batches and never enter a collection.
//!
//! What a machine remembers is snapshotted; what a relation, identity or the inventory remembers is recomputed from its
//! inputs at restart.
//!
//! Every part is a module with a struct `Inputs`, a struct `Outputs` and a function `build` from one to the other;
//! `graph` connects them, [`worker`] runs it, [`output`] gathers what the workers say about one epoch. Modules know only
//! those before them; the order is written down in `tests/it/arrows.rs`.
//!
//! An item of an inventory in, a device out:
//!
//! ```
//! use std::sync::Arc;
//!
//! use radarflow_dataflows::keyed::Restored;
//! use radarflow_dataflows::output::Merge;
//! use radarflow_dataflows::worker::{Start, Workers};
//! use radarflow_proto::fact::Fact;
//! use radarflow_proto::frame::{Entry, Frame, Kind, Origin, Slice};
//! use radarflow_proto::payload::{AgentPush, ServiceHead};
//! use radarflow_proto::record::IdKind;
//! use radarflow_proto::rows::Table;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let main = Fact::Instance { tenant: "acme".into(), kind: IdKind::NetBox, instance: "main".into(), legacy: true };
//! let service = ServiceHead { name: "s".into(), kind: "sync".into(), source: "results".into(), available: true };
//! let push = AgentPush { agent_id: "sync-1".into(), service: Some(service), ..AgentPush::default() };
//! let item = r#"{"source":"netbox","ip":"10.0.0.1/24","hostname":"core-1","metadata":{"netbox_device_id":"7"},
//!                "timestamp":1704067200,"sync_meta":{"sync_service_id":"main"}}"#;
//! let slice = |first_position, kind, body: String| {
//!     let origin = Origin { kind, tenant: "acme".into(), partition: String::new(), feed: "example".into() };
//!     let entry = Entry { peer: None, received_us: 1_704_067_200_000_000, body: body.into() };
//!     Slice { origin, first_position, entries: vec![entry] }
//! };
//! let frame = Frame {
//!     generation: 1,
//!     epoch: 1,
//!     clock_ms: 1_704_067_200_000,
//!     gap_ms: 0,
//!     release_bytes: 1 << 20,
//!     ranges: vec![],
//!     slices: vec![
//!         slice(0, Kind::Fact, serde_json::to_string(&main)?),
//!         slice(1, Kind::Status, format!("{}\n[{item}]", serde_json::to_string(&push)?)),
//!     ],
//! };
//!
//! let (workers, outputs) = Workers::start(1, Start::default());
//! let mut merge = Merge::new(1, &Restored::new());
//! workers.feed(&Arc::new(frame));
//! let output = loop {
//!     let merged = merge.push(outputs.recv()?).map(|merged| merged.output);
//!     if let Some(output) = merged.filter(|output| output.epoch == 1) {
//!         break output;
//!     }
//! };
//! assert!(output.changes.iter().any(|change| change.table == Table::Device));
//! workers.stop();
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

pub mod alerts;
pub mod aliases;
pub mod audit;
pub mod availability;
pub mod collection;
pub mod decode;
pub mod facts;
mod graph;
pub mod health;
pub mod identity;
pub mod inventory;
pub mod jobs;
pub mod keyed;
pub mod layout;
pub mod lifecycle;
pub mod listings;
pub mod loss;
pub mod merges;
pub mod metrics;
pub mod otel;
pub mod output;
pub mod reach;
pub mod records;
pub mod resources;
pub mod rules;
pub mod sizes;
pub mod steps;
pub mod strangers;
pub mod telemetry;
pub mod topology;
pub mod upgrade;
pub mod worker;
