//! The `radarflow` program: command line, configuration, wiring. Everything it does is done elsewhere.

mod cli;
mod config;
mod demo;
mod metrics;
mod serve;
mod table;
mod tools;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    // One TLS implementation, chosen once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    cli::run()
}
