//! Everything that touches the world: the [`ledger`], the [`sources`] that append to it, the [`sinks`] that carry its
//! consequences out.
//!
//! A source reads, appends, and acknowledges, in this order. A sink receives whole epochs in order and stores its
//! frontier with what it wrote, in one transaction. Neither knows the dataflow.
#![forbid(unsafe_code)]

pub mod clock;
pub mod disk;
pub mod http;
pub mod ledger;
mod retry;
pub mod secret;
pub mod sinks;
pub mod sources;
