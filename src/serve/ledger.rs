//! The data directory's pipeline.

use std::sync::Arc;

use anyhow::Result;
use radarflow_connectors::clock::SystemClock;
use radarflow_connectors::ledger::DataDir;
use radarflow_pipeline::{Opened, Setup};
use radarflow_proto::disk::Disk;

use crate::config::Config;
use crate::memory::Budget;

/// Reads what the directory holds. State of an older build is converted.
pub(super) fn open(config: &Config, disk: &Arc<dyn Disk>, dir: &DataDir, memory: &Budget) -> Result<Opened> {
    let setup = Setup {
        disk: disk.clone(),
        clock: Arc::new(SystemClock),
        root: dir.root().to_owned(),
        workers: config.workers,
        staged_bytes: memory.staged(),
        bounds: memory.intake(),
    };
    Ok(tokio::task::block_in_place(|| radarflow_pipeline::open(setup))?)
}
