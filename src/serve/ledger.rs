//! The data directory: its secret and its pipeline.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
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

/// A secret of this installation: made at the first start, kept in the data directory for its owner alone.
pub(super) fn secret(dir: &DataDir) -> Result<[u8; 32]> {
    let path = dir.path("secret.key");
    if let Ok(bytes) = std::fs::read(&path) {
        return bytes.try_into().map_err(|_| anyhow::anyhow!("{} is not a secret of this program", path.display()));
    }
    let secret: [u8; 32] = rand::random();
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(&path)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    Ok(secret)
}
