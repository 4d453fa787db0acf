//! Who is handed epochs, and in which order: first who must know before others ask, last who takes longest.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_connectors::reach::Reach;
use radarflow_connectors::sealing;
use radarflow_connectors::sources::enrolled::Enrolled;
use radarflow_connectors::sources::grpc::{Commands, Configurations};
use radarflow_connectors::sources::pull::stated::Stated;
use radarflow_pipeline::Replay;
use radarflow_pipeline::consumers::{Consumer, tap};
use radarflow_proto::ports::{EpochOutput, Outcome};
use radarflow_proto::resource::Resource;
use radarflow_query::actor::Principals;
use radarflow_query::http::judgements::Judgements;
use tokio::sync::{broadcast, mpsc};

use super::sinks::Sinks;
use crate::config::Config;
use crate::reap;
use crate::standing::Registry;

/// Outcomes of commands that a listener may be behind.
const OUTCOMES: usize = 1024;

/// What epochs tell the program itself.
pub(super) struct Heard {
    pub(super) principals: Arc<Principals>,
    pub(super) registry: Arc<Registry>,
    pub(super) outcomes: broadcast::Sender<Outcome>,
    pub(super) judgements: Arc<Judgements>,
    /// What agents are told.
    pub(super) configurations: Arc<Configurations>,
    /// What agents are to do at once.
    pub(super) commands: Arc<Commands>,
    /// Inventories that people state.
    pub(super) integrations: Arc<Stated>,
    /// Agents that are enrolled, and what signs their certificates.
    pub(super) enrolled: Arc<Enrolled>,
    /// Epochs that name records to let go.
    pub(super) to_reap: mpsc::Receiver<Arc<EpochOutput>>,
}

/// All of them.
pub(super) fn open(
    sinks: &Sinks,
    config: &Config,
    key: &[u8; 32],
    replay: &Arc<Replay>,
) -> (Heard, Vec<Arc<dyn Consumer>>) {
    let enrolled = Arc::new(Enrolled::new(sinks.keys.clone(), key));
    let integrations = Arc::new(integrations(sinks, config));
    let (principals, registry) = (Arc::new(Principals::default()), Arc::new(Registry::default()));
    let judgements = Arc::new(Judgements::default());
    let configurations = Arc::new(Configurations::default());
    let commands = Arc::new(Commands::default());
    let (outcomes, _) = broadcast::channel(OUTCOMES);
    let (reaped, to_reap) = mpsc::channel(reap::QUEUED);
    let heard = Heard {
        principals: principals.clone(),
        registry: registry.clone(),
        outcomes: outcomes.clone(),
        judgements: judgements.clone(),
        configurations: configurations.clone(),
        commands: commands.clone(),
        integrations: integrations.clone(),
        enrolled: enrolled.clone(),
        to_reap,
    };
    let (live, replay) = (sinks.live.clone(), replay.clone());
    let facts = tap("facts", move |output| {
        principals.learn(&output.resources);
        registry.learn(&output.facts);
        registry.learn_resources(&output.resources);
        integrations.learn(&output.resources);
        enrolled.learn(&output.resources);
    });
    let live = tap("live", move |output| live.apply(output));
    let outcomes = tap("outcomes", move |output| {
        for outcome in &output.outcomes {
            // Nobody may be waiting.
            let _ = outcomes.send(outcome.clone());
        }
        judgements.tell(&output.judgements);
        configurations.learn(&output.configurations);
        commands.learn(&output.commands);
    });
    let reaper = tap("reaper", move |output| {
        if !output.reaped.is_empty() && replay.done.load(Ordering::Acquire) {
            // What finds no room is named again.
            let _ = reaped.try_send(output.clone());
        }
    });
    let mut consumers: Vec<Arc<dyn Consumer>> = vec![facts, live, outcomes, sinks.outbox.clone(), reaper];
    consumers.extend(sinks.postgres.clone().map(|postgres| postgres as Arc<dyn Consumer>));
    consumers.extend(sinks.lake.clone().map(|lake| Arc::new(lake) as Arc<dyn Consumer>));
    (heard, consumers)
}

/// Those that people state, and where they may be.
fn integrations(sinks: &Sinks, config: &Config) -> Stated {
    let keys = sinks.keys.clone();
    let unseal = move |of: &Resource| {
        let sealed = of.secrets.get("credential").map_or("", String::as_str);
        let context = sealing::context(&of.tenant, &of.resource, &of.id, "credential");
        keys.unseal(&context, sealed).map_err(|error| format!("its credential cannot be read: {error}"))
    };
    let configured = config.sources.inventories().map(|of| (of.tenant().to_owned(), of.source())).collect();
    Stated::new(Reach::of(config.private_addresses), configured, Box::new(unseal))
}
