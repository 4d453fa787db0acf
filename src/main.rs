//! The `radarflow` program: command line, configuration, wiring. Everything it does is done elsewhere.

mod agent;
mod alerts;
mod api;
mod audit;
mod backup;
mod bounds;
mod capture;
mod caret;
mod check;
mod cli;
mod clock;
mod config;
mod demo;
mod docs;
mod edge;
mod enrichment;
mod explain;
mod follow;
mod import;
mod jobs;
mod memory;
mod metrics;
mod people;
mod query;
mod reap;
mod replay;
mod resources;
mod routing;
mod rules;
mod runs;
mod serve;
mod sparkline;
mod standing;
mod status;
mod sync;
mod table;
mod token;
mod watch;
mod whatif;

use std::process::ExitCode;

/// Rows of all sizes are made by one thread and dropped by another, all day long: what the system's allocator does worst.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One TLS implementation, chosen once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    memory::small_pages();
    cli::run()
}
