//! Everything that touches the world: the [`ledger`], the [`sources`] that append to it, the [`sinks`] that carry its
//! consequences out.
//!
//! A source reads, appends, and acknowledges, in this order. A sink receives whole epochs in order and stores its
//! frontier with what it wrote, in one transaction. Neither knows the dataflow.
//!
//! What is appended to the log of frames is read again after a restart:
//!
//! ```
//! use std::sync::Arc;
//!
//! use radarflow_connectors::disk::OsDisk;
//! use radarflow_connectors::ledger::segments::Segments;
//! use radarflow_proto::frame::Frame;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let mut log = Segments::open(Arc::new(OsDisk), dir.path(), 0)?;
//! let (generation, epoch) = (log.generation(), log.next_epoch());
//! log.append(&Frame {
//!     generation,
//!     epoch,
//!     clock_ms: 1_704_067_200_000,
//!     gap_ms: 0,
//!     release_bytes: 1 << 20,
//!     ranges: vec![],
//!     slices: vec![],
//! })?;
//! drop(log);
//! let mut epochs = Vec::new();
//! Segments::open(Arc::new(OsDisk), dir.path(), 0)?.replay(0, |frame| epochs.push(frame.epoch))?;
//! assert_eq!(epochs, [epoch]);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod http;
pub mod ledger;
pub mod library;
pub mod mail;
pub mod reach;
mod retry;
pub mod sealing;
pub mod secret;
pub mod sinks;
pub mod sources;
