//! The whole system: the real program, real sockets, real services, killed for real.

#[allow(unreachable_pub, missing_docs)]
mod server;

mod crash;
mod pipeline;
mod sinks;
