//! The whole system: the real program, real sockets, real services, killed for real.

#[allow(unreachable_pub, missing_docs)]
mod server;

mod api;
mod book;
mod brokers;
mod checkpoints;
mod clients;
mod clock;
mod collect;
mod crash;
mod damage;
mod deploy;
mod devices;
mod disk;
mod explain;
mod hour;
mod jobs;
mod late;
mod links;
mod live;
mod matrix;
mod memory;
mod mtls;
mod notify;
mod pipeline;
mod pull;
mod push;
mod ready;
mod replace;
mod resources;
mod rules;
mod signin;
mod sinks;
mod tokens;
mod tools;
