//! The dataflow as a whole: real frames in, whole epochs out.

mod arrows;
mod attribution;
mod brakes;
mod collectors;
mod engine;
mod enrich;
mod explain;
mod facts;
mod flow_tables;
#[allow(unreachable_pub, missing_docs)]
mod harness;
mod health;
mod identity;
mod interfaces;
mod life;
mod lifecycle;
mod listings;
mod oracle;
mod replay;
mod runs;
mod sizes;
mod spill;
mod strangers;
mod topology;
mod traces;
mod upgrade;
