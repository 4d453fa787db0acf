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

pub mod actor;
pub mod engine;
pub mod error;
pub mod http;
pub mod live;
pub mod srql;
pub mod tables;
