//! Prints one line a figure: what was measured, on what, how much. Compare figures of one run only; machines are noisy.
//!
//! `radarflow-bench [case…]`, cases: `decode`, `identity`, `junk`, `ingest`, `postgres`, `query`, `resources`, `rules`,
//! `stalls`. Sizes by environment:
//! `RADARFLOW_BENCH_RECORDS` (default 200,000), `RADARFLOW_BENCH_FLOWS` (default 2,000,000), `RADARFLOW_BENCH_DEVICES`
//! (default 1,000,000), `RADARFLOW_BENCH_LAKE_FLOWS` (default 20,000,000),
//! `RADARFLOW_BENCH_RULES` (default 10,000), `RADARFLOW_BENCH_LINES` (default 400,000). `ingest`, `resources` and
//! `stalls` run the `radarflow` program that lies beside this one, and before it the one that `RADARFLOW_BENCH_BESIDE` names.
#![forbid(unsafe_code)]

mod cases;

use std::io::Write;
use std::time::Duration;

/// The program's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    // As the program.
    nix::sys::prctl::set_thp_disable(true)?;
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let wants = |case: &str| asked.is_empty() || asked.iter().any(|a| a == case);
    if wants("decode") {
        cases::decode::run()?;
    }
    if wants("identity") {
        cases::identity::run()?;
    }
    if wants("junk") {
        cases::junk::run()?;
    }
    if wants("ingest") {
        cases::ingest::run()?;
    }
    if wants("postgres") {
        cases::postgres::run()?;
    }
    if wants("query") {
        cases::query::run()?;
    }
    if wants("resources") {
        cases::resources::run()?;
    }
    if wants("rules") {
        cases::rules::run()?;
    }
    if wants("stalls") {
        cases::stalls::run()?;
    }
    Ok(())
}

/// Prints a rate.
fn rate(what: &str, n: usize, took: Duration) -> anyhow::Result<()> {
    let per_second = n as f64 / took.as_secs_f64();
    figure(what, &format!("{per_second:.0} /s ({n} in {:.3} s)", took.as_secs_f64()))
}

/// Prints a figure.
fn figure(what: &str, value: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{what}: {value}")?;
    Ok(())
}

/// A size from the environment.
fn size(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
