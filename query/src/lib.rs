//! Asking: SRQL, the catalog that drives it, the live tables it reads, and the HTTP API.
//!
//! ```text
//! text ─► srql::parse (AST with spans) ─► srql::plan (names, types, against the catalog) ─► DataFusion plan
//!                                                    ▲
//! epochs ─► live: one version a epoch, published ────┤ every table of one request at one epoch
//! lake (epoch ≤ cut) ────────────────────────────────┘
//! ```
//! The tenant, and the partitions an actor is bound to, are enforced where a table is handed to the plan, never by
//! editing query text. There is no SQL text but what an asker brings.
#![forbid(unsafe_code)]

pub mod access;
mod administer;
pub mod admission;
pub mod answer;
mod ask;
mod availability;
pub mod catalog;
pub mod codes;
mod corrections;
pub mod cursor;
mod devices;
pub mod docs;
pub mod door;
pub mod engine;
mod explain;
mod flight;
mod fresh;
pub mod functions;
pub mod groups;
pub mod http;
pub mod imported;
mod intervals;
pub mod inventories;
mod kept;
mod led;
mod lines;
mod links;
mod listen;
pub mod live;
mod names;
mod openapi;
mod page;
pub mod past;
pub mod plans;
mod render;
mod runs;
mod segment;
pub mod sql;
pub mod srql;
mod stored;
pub mod stream;
mod tally;
pub mod turns;
pub mod view;
pub mod whatif;
