//! The server: sources → pipeline → sinks and queries, in one process. How an epoch goes from the ledger to everyone is
//! the pipeline's (`pipeline/`); here its neighbours are opened, connected to it, and ended, a file a part:
//!
//! | file | opens |
//! |---|---|
//! | `http` | the door, before anything else is ready; what the API needs |
//! | `agents` | the agent inside |
//! | `clients` | the listener for clients of Postgres |
//! | `ledger` | the data directory's pipeline |
//! | `sinks` | the lake, Postgres, the outbox, the live tables |
//! | `consumers` | who is handed epochs, in which order |
//! | `snmp` | our SNMP engine, and who may speak to it |
//! | `sources` | sockets, gateways, brokers, inventories |
//! | `records` | the way to ask the dataflow for records |
//! | `tokens` | the first token, and those that are made here |
//!
//! Start: take the data directory, open the pipeline, hand it its consumers, append what the configuration says, then let
//! the world in. End: stop the sources, ask for a last snapshot, end the pipeline.

mod agents;
mod clients;
mod consumers;
mod http;
mod ledger;
mod records;
mod sinks;
mod snmp;
mod sources;
pub(crate) mod tokens;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use radarflow_connectors::disk;
use radarflow_connectors::ledger::{DataDir, key};
use radarflow_connectors::library::Library;
use radarflow_connectors::sources::Stop;
use radarflow_connectors::sources::tls::Tls;
use radarflow_pipeline::Pipeline;
use radarflow_proto::fact::{Fact, Role};
use radarflow_proto::flow::tables::ADDRESS_FILES;
use radarflow_proto::ports::Appender;
use radarflow_query::http::Api;
use radarflow_query::http::door::Door;
use radarflow_query::http::edge;
use radarflow_query::postgres;
use radarflow_query::tables::live::Live;

use self::clients::Clients;
use self::http::Connected;
use self::snmp::Speakers;
use self::sources::Feeds;
pub(crate) use self::sources::Listening;
use crate::config::Config;
use crate::memory::Budget;
use crate::reap;
use crate::standing::{Registry, append, settle, told};
use crate::watch::Watch;

const A_DAY: Duration = Duration::from_secs(86_400);
/// How long requests under way may take once everything else has ended.
const ANSWERED: Duration = Duration::from_secs(1);

/// A running server.
pub(crate) struct Server {
    /// The API's address.
    pub(crate) http: SocketAddr,
    /// Where the API is.
    pub(crate) url: String,
    /// Where the other listeners are.
    pub(crate) listening: Listening,
    /// The administrator's token, where this start made the first.
    pub(crate) first_token: Option<String>,
    stop: tokio::sync::watch::Sender<bool>,
    feeds: Feeds,
    pipeline: Pipeline,
    live: Arc<Live>,
    registry: Arc<Registry>,
    certificates: Vec<Arc<Tls>>,
    speakers: Speakers,
    library: Library,
    door: Arc<Door>,
    answering: tokio::task::JoinHandle<()>,
    clients: Option<Arc<postgres::Server>>,
    _dir: DataDir,
}

/// Starts everything; returns when the ledger is caught up and the listeners are open.
pub(crate) async fn start(config: &Config, migrate: bool) -> Result<Server> {
    let memory = Arc::new(Budget::new(config.memory_limit_mib)?);
    let dir = DataDir::take(&config.data_dir)?;
    let rooms = memory.rooms();
    let slots = rooms.slots();
    let [of_http, of_grpc, of_syslog, of_ipfix, of_postgres, of_otlp] = slots.clone();
    let http = http::open(&config.http, of_http).await?;
    let clients = match &config.postgres {
        Some(postgres) => Some(Clients::open(postgres).await?),
        None => None,
    };
    let disk = disk::os();
    let key = key::secret(&*disk, &dir.path("secret.key"))?;
    let mut opened = ledger::open(config, &disk, &dir, &memory)?;

    let public_url = config.http.public_url.as_deref().unwrap_or(&http.url);
    let sinks = sinks::open(config, &disk, &dir, &mut opened, &memory, public_url, migrate).await?;
    let (replay, first_epoch) = (opened.replay().clone(), opened.first_epoch());
    http.door.replaying(opened.start_epoch(), replay.reached.clone(), replay.last);
    let (heard, consumers) = consumers::open(&sinks, config, &key, &replay);
    let mut pipeline = opened.start(consumers).await?;
    let appender: Arc<dyn Appender> = Arc::new(pipeline.intake().clone());
    let library = Library::new(disk.clone(), dir.path(ADDRESS_FILES));
    let facts = heard.registry.changes(config, &|bytes| library.keep(bytes))?;
    settle(&*appender, &sinks.live, "default", "configuration", &facts).await?;
    library.sweep(&heard.registry.files(), replay.last, first_epoch)?;

    let (tell, stop) = Stop::new();
    let offsets = pipeline.take_offsets();
    let world = sources::World {
        appender: appender.clone(),
        registry: heard.registry.clone(),
        configurations: heard.configurations.clone(),
        commands: heard.commands.clone(),
        integrations: heard.integrations.clone(),
        enrolled: heard.enrolled.clone(),
        backlog: pipeline.backlog().clone(),
        room: rooms.feeds.clone(),
        stop: stop.clone(),
    };
    let speakers = Speakers::open(config, &*disk, &dir, &key)?;
    let slots_of_sources = [of_grpc, of_syslog, of_ipfix, of_otlp];
    let mut sources = sources::open(config, &world, offsets, &speakers, slots_of_sources).await?;
    sinks.write_back(config, &disk, &heard.registry, &replay, &sources.runs, &stop)?;
    agents::start(config, &sources.listening, &stop)?;
    let mut certificates: Vec<Arc<Tls>> = http.tls.iter().cloned().collect();
    certificates.extend(sources.certificates);
    certificates.extend(clients.iter().filter_map(|clients| clients.tls.clone()));
    sources.listening.postgres.extend(clients.iter().map(|clients| clients.addr));

    let connected = Connected {
        config,
        key,
        memory: &memory,
        rooms: &rooms,
        pipeline: &pipeline,
        replay: &replay,
        sinks: &sinks,
        heard: &heard,
        appender: &appender,
        runs: sources.runs,
        stop: &stop,
        clients: clients.as_ref(),
        gateways: &sources.listening.grpc,
    };
    let (api, serving) = connected.api(&slots)?;
    if let (Some(clients), Some(server)) = (clients, &serving) {
        clients.serve(server.clone(), of_postgres);
    }
    let watch = Watch {
        intake: pipeline.intake().stats().clone(),
        sinks: sinks.applied(),
        appender: appender.clone(),
        outbox: sinks.outbox.clone(),
        disks: std::iter::once(config.data_dir.clone()).chain(sinks.lake_path().cloned()).collect(),
        reserve: config.disk_reserve_mib << 20,
        memory,
        snapshots_fail: pipeline.snapshots_fail().clone(),
        certificates: certificates.iter().filter_map(|tls| Some(tls.files()?.certificate.clone())).collect(),
        pace: config.sinks.lake.keep().quiet,
    };
    tokio::spawn(watch.run(heard.registry.conditions(), stop.clone()));
    tokio::spawn(reap::run(heard.to_reap, appender));
    let api = Arc::new(api);
    let tenants: BTreeSet<String> =
        config.grpc.iter().filter(|gateway| !gateway.names.is_empty()).map(|gateway| gateway.tenant.clone()).collect();
    if !tenants.is_empty() {
        authorities(&api, &tenants).await;
        tokio::spawn(keep_authorities(api.clone(), tenants, stop.clone()));
    }
    // Every listener is open: who reads the token can use it.
    let first_token = tokens::first(config, &api, &sinks.live).await?;
    http.door.open(api);
    Ok(Server {
        http: http.addr,
        url: http.url,
        listening: sources.listening,
        first_token,
        stop: tell,
        feeds: sources.feeds,
        pipeline,
        live: sinks.live,
        registry: heard.registry,
        certificates,
        speakers,
        library,
        door: http.door,
        answering: http.answering,
        clients: serving,
        _dir: dir,
    })
}

/// Makes the authorities of tenants that listen for enrolled agents, where they have none that lasts.
async fn authorities(api: &Arc<Api>, tenants: &BTreeSet<String>) {
    if let Err(why) = edge::authorities(api, tenants.iter().map(String::as_str)).await {
        tracing::warn!(why, "a gateway for enrolled agents has no certificate authority that lasts");
    }
}

/// The same every day.
async fn keep_authorities(api: Arc<Api>, tenants: BTreeSet<String>, mut stop: Stop) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(A_DAY) => authorities(&api, &tenants).await,
            () = stop.told() => return,
        }
    }
}

impl Server {
    /// Compares the configuration with the standing facts and appends the difference, and reads certificates again; tells
    /// what is otherwise. Listeners, paths, sources that are asked and limits are as they were at the start.
    pub(crate) async fn reload(&self, config: &Config) -> Result<Vec<String>> {
        let facts = self.registry.changes(config, &|bytes| self.library.keep(bytes))?;
        let read = self.certificates.iter().map(|tls| tls.again());
        let read = read.collect::<Result<Vec<_>, _>>()?;
        let users = self.speakers.again(config)?;
        settle(self.pipeline.intake(), &self.live, "default", "configuration", &facts).await?;
        let mut changes: Vec<String> = facts.iter().map(told).collect();
        for (tls, exchange) in self.certificates.iter().zip(read) {
            if let Some(exchange) = exchange {
                let file = tls.files().map(|files| files.certificate.display().to_string()).unwrap_or_default();
                changes.push(format!("certificate {file}"));
                tls.exchange(exchange);
            }
        }
        changes.extend(users.into_iter().map(|exchange| exchange.done()));
        Ok(changes)
    }

    /// Makes a token; it works when this returns.
    pub(crate) async fn make_token(&self, name: &str, tenant: &str, role: Role) -> Result<String> {
        tokens::make(self.pipeline.intake(), &self.live, name, tenant, role).await
    }

    /// Ends everything in order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.door.stopping();
        self.clients.iter().for_each(|clients| clients.stop());
        let _ = self.stop.send(true);
        self.feeds.join().await?;
        if let Err(error) = append(self.pipeline.intake(), "default", "shutdown", &[Fact::Snapshot]).await {
            tracing::warn!(%error, "no snapshot at the end");
        }
        self.pipeline.stop().await?;
        self.door.shut();
        let _ = tokio::time::timeout(ANSWERED, self.answering).await;
        Ok(())
    }
}
