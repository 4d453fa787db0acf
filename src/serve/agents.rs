//! The agent inside: the same as `radarflow agent`, over the gateway on this host, with the tenant and partition of its listener.

use std::sync::Arc;

use anyhow::{Result, bail};
use radarflow_connectors::sources::Stop;

use super::Listening;
use crate::agent::{self, Settings, Shows};
use crate::config::Config;

/// Starts it, where it is configured.
pub(super) fn start(config: &Config, listening: &Listening, stop: &Stop) -> Result<()> {
    if !config.agent.enabled {
        return Ok(());
    }
    let gateways = config.grpc.iter().zip(&listening.grpc);
    let Some((gateway, addr)) = gateways.into_iter().find(|(gateway, _)| gateway.is_open()) else {
        bail!("[agent] needs a [[grpc]] listener without certificates, which is on loopback");
    };
    let partition = if gateway.partition.is_empty() { "default" } else { &gateway.partition };
    let settings = Settings {
        gateway: format!("http://{addr}"),
        id: config.agent.id.clone(),
        partition: partition.to_owned(),
        shows: Shows::Nothing,
        data_dir: Some(config.data_dir.join("agent")),
    };
    let stop = stop.clone();
    tokio::spawn(async move {
        if let Err(error) = agent::run(settings, Arc::default(), stop).await {
            tracing::error!(error = format!("{error:#}"), "the agent inside ended");
        }
    });
    Ok(())
}
