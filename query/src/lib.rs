//! Asking: SRQL, the catalog that drives it, the live tables it reads, and the HTTP API.
//!
//! ```text
//! text ─► srql::parse (AST with spans) ─► srql::plan (names, types, against the catalog) ─► engine: DataFusion plan, rows
//!                                                    ▲
//! epochs ─► tables::live: one version a epoch ───────┤ every table of one request at one epoch
//! lake (epoch ≤ cut) ────────────────────────────────┘
//! ```
//! The crate has rooms. One uses those before it and knows nothing of those after it; `tests/it/rooms.rs` holds them to
//! that.
//!
//! | room | says |
//! |---|---|
//! | [`error`] | why there is no answer |
//! | [`actor`] | who asks, and for how long |
//! | [`tables`] | what there is to be asked of |
//! | [`srql`] | what a question means |
//! | [`engine`] | how it is answered |
//! | [`live`] | how it is answered for as long as somebody follows |
//! | [`records`] | what is asked of the records that devices are made of |
//! | [`postgres`] | how SQL is asked over the protocol of Postgres |
//! | [`http`] | how all of this is asked over HTTP |
//!
//! The tenant, and the partitions an actor is bound to, are enforced where a table is handed to the plan, never by
//! editing query text. There is no SQL text but what an asker brings.
//!
//! A text is read without any data; a mistake knows where it is, and what may have been meant:
//!
//! ```
//! use radarflow_query::srql::{parse::parse, plan::entities};
//!
//! let query = parse("in:devices type:router is_available:false sort:last_seen:desc limit:20")?;
//! assert_eq!(entities(&query)?[0].name, "devices");
//!
//! let mistake = entities(&parse("in:devics type:router")?).unwrap_err();
//! assert_eq!(mistake.did_you_mean.as_deref(), Some("devices"));
//! # Ok::<(), radarflow_query::error::SrqlError>(())
//! ```
#![forbid(unsafe_code)]

pub mod actor;
pub mod engine;
pub mod error;
pub mod http;
pub mod live;
pub mod postgres;
pub mod records;
pub mod srql;
pub mod tables;
