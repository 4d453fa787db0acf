//! Wiring: sources → pipeline → sinks and queries, in one process. How an epoch goes from the ledger to everyone is the
//! pipeline's (`pipeline/`); here is who is connected to it.
//!
//! Start: take the data directory, open the pipeline, hand it its consumers, then let the world in. End: stop the sources,
//! ask for a last snapshot, end the pipeline.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use arrow_array::RecordBatch;
use radarflow_connectors::clock::SystemClock;
use radarflow_connectors::disk;
use radarflow_connectors::ledger::DataDir;
use radarflow_connectors::sinks::lake::Lake;
use radarflow_connectors::sinks::postgres::{self, Postgres};
use radarflow_connectors::sinks::webhook::Outbox;
use radarflow_connectors::sinks::{Applied, armis};
use radarflow_connectors::sources::accept::{self, Places};
use radarflow_connectors::sources::tls::Tls;
use radarflow_connectors::sources::udp::Datagrams;
use radarflow_connectors::sources::{
    Durable, Listener, Stop, entry, grpc, inventory, kafka, nats, pull, stage, tcp, udp,
};
use radarflow_dataflows::identity::imagine::imagine;
use radarflow_pipeline::consumers::{Consumer, tap};
use radarflow_pipeline::{Finder, Pipeline, Setup};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Fact, Role, Token};
use radarflow_proto::frame::{Kind, Origin};
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::{BoxFuture, FactSink, FindRecords, FoundRecord, Imagine, Imagined, Wanted};
use radarflow_proto::record::{IdKind, RecordKey, SourceKind};
use radarflow_proto::rows::Table;
use radarflow_query::actor::{Tokens, hash, new_token};
use radarflow_query::engine::{Engine, EngineLimits};
use radarflow_query::http::door::Door;
use radarflow_query::http::{self, Api};
use radarflow_query::live::streams::Streams;
use radarflow_query::records::plans::Plans;
use radarflow_query::tables::live::Live;
use tokio::sync::broadcast;

use crate::config::{Armis, Config};
use crate::memory::{Budget, Pool};
use crate::metrics;
use crate::reap;
use crate::standing::{Registry, told};
use crate::watch::{self, Watch};

/// A running server.
pub(crate) struct Server {
    /// The API's address.
    pub(crate) http: SocketAddr,
    /// Where the API is.
    pub(crate) url: String,
    /// Addresses that the other listeners got, in the order of the configuration.
    pub(crate) netflow: Vec<SocketAddr>,
    pub(crate) sflow: Vec<SocketAddr>,
    pub(crate) syslog: Vec<SocketAddr>,
    pub(crate) syslog_tcp: Vec<SocketAddr>,
    pub(crate) syslog_tls: Vec<SocketAddr>,
    pub(crate) ipfix_tcp: Vec<SocketAddr>,
    pub(crate) traps: Vec<SocketAddr>,
    pub(crate) grpc: Vec<SocketAddr>,
    /// The administrator's token, where this start made the first.
    pub(crate) first_token: Option<String>,
    parts: Parts,
}

struct Parts {
    tell: tokio::sync::watch::Sender<bool>,
    udp: Vec<udp::Running>,
    nats: Vec<nats::Running>,
    kafka: Vec<kafka::Running>,
    pipeline: Pipeline,
    live: Arc<Live>,
    registry: Arc<Registry>,
    certificates: Vec<Arc<Tls>>,
    door: Arc<Door>,
    http: tokio::task::JoinHandle<()>,
    _dir: DataDir,
}

/// How long requests under way may take once everything else has ended.
const ANSWERED: Duration = Duration::from_secs(1);

/// Finds records in the dataflow, for who does not wait on a thread.
struct Records(Finder);

impl FindRecords for Records {
    fn find(&self, wanted: Wanted) -> BoxFuture<Option<Vec<FoundRecord>>> {
        let finder = self.0.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || finder.find(wanted)).await.ok().flatten() })
    }

    fn imagine(&self, mut question: Imagine) -> BoxFuture<Option<Imagined>> {
        let records = question.records.iter().map(|found| found.record.clone()).collect();
        let remembered = self.find(Wanted::Remembered { records });
        Box::pin(async move {
            // Every worker tells its share of each record.
            let remembered = remembered.await?;
            let mut by_key: BTreeMap<RecordKey, (Vec<IpAddr>, Vec<(IpAddr, Time)>)> = BTreeMap::new();
            for share in remembered {
                let (settled, aliases) = by_key.entry(share.record.key).or_default();
                settled.extend(share.settled);
                aliases.extend(share.aliases);
            }
            for found in &mut question.records {
                (found.settled, found.aliases) = by_key.remove(&found.record.key).unwrap_or_default();
            }
            tokio::task::spawn_blocking(move || imagine(&question)).await.ok()
        })
    }
}

/// The live tables, as what is true.
struct LiveTruth(Arc<Live>);

impl postgres::Truth for LiveTruth {
    fn state(&self) -> (u64, Vec<(Table, RecordBatch)>) {
        let view = self.0.view();
        (view.epoch, view.state_batches())
    }

    fn events(&self, table: Table, after: u64, until: u64) -> BoxFuture<Result<Vec<RecordBatch>, String>> {
        let view = self.0.view();
        Box::pin(async move { view.events_between(table, after, until).await.map_err(|e| e.to_string()) })
    }
}

/// A secret of this installation: made at the first start, kept in the data directory for its owner alone.
fn secret(path: &PathBuf) -> Result<[u8; 32]> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Ok(bytes) = std::fs::read(path) {
        return bytes.try_into().map_err(|_| anyhow::anyhow!("{} is not a secret of this program", path.display()));
    }
    let secret: [u8; 32] = rand::random();
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    Ok(secret)
}

/// Starts everything; returns when the ledger is caught up and the listeners are open.
pub(crate) async fn start(config: &Config, migrate: bool) -> Result<Server> {
    let runtime = tokio::runtime::Handle::current();
    let memory = Arc::new(Budget::new(config.memory_limit_mib)?);
    let dir = DataDir::take(&config.data_dir)?;
    let http_socket = tokio::net::TcpListener::bind(config.http.addr).await.with_context(|| {
        format!("HTTP cannot listen on {}; change [http] addr, or stop what uses it", config.http.addr)
    })?;
    let http_addr = http_socket.local_addr()?;
    let http_tls = config.http.tls.as_ref().map(|files| Tls::read(files.clone(), http::PROTOCOLS)).transpose()?;
    let scheme = if http_tls.is_some() { "https" } else { "http" };
    if http_tls.is_none() && !http_addr.ip().is_loopback() {
        tracing::warn!(addr = %http_addr, "HTTP is not encrypted: tokens can be read on their way; configure [http.tls], or let a proxy do it");
    }
    let url = format!("{scheme}://{http_addr}");
    let places = ["http", "grpc", "syslog", "ipfix"].map(Places::new);
    let [of_http, of_grpc, of_syslog, of_ipfix] = places.clone();
    let door = Arc::new(Door::default());
    let http_task =
        tokio::spawn(http::serve(accept::connections(http_socket, http_tls.clone(), of_http), door.clone()));
    let key = secret(&dir.path("secret.key"))?;
    let disk = disk::os();
    let setup = Setup {
        disk: disk.clone(),
        clock: Arc::new(SystemClock),
        root: dir.root().to_owned(),
        workers: config.workers,
        staged_bytes: memory.staged(),
        bounds: memory.intake(),
    };
    let opened = tokio::task::block_in_place(|| radarflow_pipeline::open(setup))?;
    let start_epoch = opened.start_epoch();
    let ready = opened.replay().clone();

    // Sinks and queries.
    let lake_path = config.sinks.lake.path.clone().unwrap_or_else(|| dir.path("lake"));
    let live = Live::new(config.sinks.lake.enabled.then(|| lake_path.clone()), start_epoch);
    let live = Arc::new(live.keeping(config.sinks.lake.keep().events));
    let lake = if config.sinks.lake.enabled {
        let live = live.clone();
        let on_commit = Arc::new(move |table: LakeTable, epoch| -> radarflow_proto::ports::BoxFuture<()> {
            let live = live.clone();
            Box::pin(async move {
                if let Err(error) = live.committed(table, epoch).await {
                    tracing::error!(%error, table = table.name(), "the lake's new version cannot be read");
                }
            })
        });
        let (keep, bound) = (config.sinks.lake.keep(), memory.of(Pool::Fresh));
        Some(Lake::start(&disk, &lake_path, start_epoch, keep, bound, on_commit).await?)
    } else {
        None
    };
    let postgres = match &config.sinks.postgres {
        Some(p) => {
            if migrate {
                postgres::migrate(&p.url).await?;
            }
            let truth = Arc::new(LiveTruth(live.clone()));
            let (generation, bound) = (opened.generation(), memory.postgres());
            Some(Arc::new(Postgres::start(&p.url, generation, start_epoch, bound, truth)?))
        }
        None => None,
    };
    let sinks: Vec<(&'static str, Applied)> = lake
        .iter()
        .map(|l| ("lake", l.applied().clone()))
        .chain(postgres.iter().map(|p| ("postgres", p.applied().clone())))
        .collect();
    let waiting = postgres.as_ref().map(|p| p.waiting().clone()).unwrap_or_default();

    // The dataflow, and who receives what it says.
    let tokens = Arc::new(Tokens::default());
    let registry = Arc::new(Registry::default());
    let (outcomes, _) = broadcast::channel(1024);
    door.replaying(start_epoch, ready.reached.clone(), ready.last);
    let (reaped, to_reap) = tokio::sync::mpsc::channel(reap::QUEUED);
    let outbox = Arc::new(Outbox::start(opened.sink().clone(), url.clone())?);
    let mut consumers: Vec<Arc<dyn Consumer>> = vec![
        {
            let (tokens, registry) = (tokens.clone(), registry.clone());
            tap("facts", move |output| {
                tokens.learn(&output.facts);
                registry.learn(&output.facts);
            })
        },
        {
            let live = live.clone();
            tap("live", move |output| live.apply(output))
        },
        {
            let outcomes = outcomes.clone();
            tap("outcomes", move |output| {
                for outcome in &output.outcomes {
                    // Nobody may be waiting.
                    let _ = outcomes.send(outcome.clone());
                }
            })
        },
        outbox.clone(),
        {
            let ready = ready.clone();
            tap("reaper", move |output| {
                if !output.reaped.is_empty() && ready.done.load(Ordering::Acquire) {
                    // What finds no room is named again.
                    let _ = reaped.try_send(output.clone());
                }
            })
        },
    ];
    consumers.extend(postgres.clone().map(|postgres| postgres as Arc<dyn Consumer>));
    consumers.extend(lake.clone().map(|lake| Arc::new(lake) as Arc<dyn Consumer>));
    let mut pipeline = opened.start(consumers).await?;
    let intake = pipeline.intake().clone();
    let sink: Arc<dyn FactSink> = Arc::new(intake.clone());
    let (backlog, sizes) = (pipeline.backlog().clone(), pipeline.sizes().clone());

    standing_facts(config, &sink, &registry, &live).await?;

    // The world.
    let (tell, stop) = Stop::new();
    let mut udp_running = Vec::new();
    let mut start_udp = |what: &Datagrams, sockets: &[crate::config::Socket]| -> Result<Vec<SocketAddr>> {
        let mut addrs = Vec::new();
        for socket in sockets {
            let running = udp::start(what, &socket.listener(), socket.sockets, &sink, &stop, &runtime)?;
            addrs.push(running.addr);
            udp_running.push(running);
        }
        Ok(addrs)
    };
    let netflow = start_udp(&Datagrams::NetFlow, &config.netflow)?;
    let sflow = start_udp(&Datagrams::SFlow, &config.sflow)?;
    let syslog = start_udp(&Datagrams::Syslog, &config.syslog)?;
    let traps = start_udp(&Datagrams::Traps { key: Arc::from(&key[..]) }, &config.traps)?;
    let mut certificates: Vec<Arc<Tls>> = http_tls.clone().into_iter().collect();
    let mut syslog_tcp = Vec::new();
    for socket in &config.syslog {
        let places = of_syslog.clone();
        syslog_tcp.push(tcp::syslog(&socket.listener(), None, places, sink.clone(), stop.clone()).await?);
    }
    let mut syslog_tls = Vec::new();
    for socket in &config.syslog_tls {
        let tls = Tls::read(socket.tls.clone(), &[])?;
        certificates.push(tls.clone());
        let places = of_syslog.clone();
        syslog_tls.push(tcp::syslog(&socket.listener(), Some(tls), places, sink.clone(), stop.clone()).await?);
    }
    let mut ipfix_tcp = Vec::new();
    for socket in &config.netflow {
        ipfix_tcp.push(tcp::ipfix(&socket.listener(), of_ipfix.clone(), sink.clone(), stop.clone()).await?);
    }
    let mut grpc_addrs = Vec::new();
    let staged = backlog.clone();
    let room: stage::Room = Arc::new(move || staged.bytes() < stage::STAGED_BYTES);
    for gateway in &config.grpc {
        let tls = gateway.tls.as_ref().map(|files| Tls::read(files.clone(), grpc::PROTOCOLS)).transpose()?;
        certificates.extend(tls.clone());
        let listener =
            Listener { addr: gateway.addr, tenant: gateway.tenant.clone(), partition: gateway.partition.clone() };
        let (places, room) = (of_grpc.clone(), room.clone());
        grpc_addrs.push(grpc::start(&listener, tls, places, sink.clone(), registry.clone(), room, stop.clone()).await?);
    }
    let durable = Arc::new(Durable::new(pipeline.take_offsets()));
    let (mut nats_running, mut kafka_running) = (Vec::new(), Vec::new());
    for source in &config.sources.nats {
        nats_running.push(nats::start(source.source(), sink.clone(), durable.clone(), stop.clone()).await?);
    }
    for source in &config.sources.kafka {
        kafka_running.push(kafka::start(source.source(), sink.clone(), durable.clone(), stop.clone())?);
    }
    let runs = inventory::Runs::new(sink.clone(), registry.clone(), room.clone());
    for inventory in config.sources.inventories().filter(pull::Inventory::is_automatic) {
        pull::start(inventory, runs.clone(), stop.clone())?;
    }
    let engine =
        Engine::with_limits(live.clone(), key, EngineLimits { memory: memory.queries(), ..EngineLimits::default() });
    let engine = Arc::new(engine?);
    let streams = Arc::new(Streams::new(engine.clone()));
    let plans = Arc::new(Plans::with_bytes(memory.plans()));
    let metrics = {
        let (intake, live, progress) = (intake.stats().clone(), live.clone(), ready.clone());
        let sinks = sinks.clone();
        let tables = lake.as_ref().map(|l| l.tables().clone()).unwrap_or_default();
        let (memory, engine) = (memory.clone(), engine.clone());
        let watched = metrics::Watched {
            intake,
            live,
            sinks,
            tables,
            backlog,
            progress,
            snapshots_fail: pipeline.snapshots_fail().clone(),
            memory,
            postgres: waiting,
            outbox,
            engine,
            plans: plans.clone(),
            sizes,
            places: places.into(),
        };
        let registry = metrics::registry(watched);
        Arc::new(move || metrics::text(&registry))
    };
    let (known, tables, replay) = (registry.clone(), live.clone(), ready.clone());
    let availability: armis::Availability = Arc::new(move |tenant: &str, instance: &str| {
        // While the ledger is read again, the tables show what was.
        if !replay.done.load(Ordering::Acquire) {
            return BTreeMap::new();
        }
        let instances = known.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = instances.namespace(tenant, IdKind::Armis, instance);
        drop(instances);
        let known = tables.view().availability(tenant, IdKind::Armis.name(), &namespace);
        known.into_iter().filter_map(|(id, there)| Some((id.parse().ok()?, there))).collect()
    });
    for (source, what) in config.sources.armis.iter().filter_map(Armis::write_back) {
        let dir = config.data_dir.join("write-back");
        armis::start(source, what, &dir, availability.clone(), runs.clone(), stop.clone())
            .with_context(|| format!("cannot write to {}", dir.display()))?;
    }
    let asked = pull::Asked::new(config.sources.inventories().collect(), stop.clone());
    let known = registry.clone();
    let instances = move || known.instances.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let known = registry.clone();
    let policy = move |tenant: &str| {
        known.policies.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied().unwrap_or_default()
    };
    let known = registry.clone();
    let partial = move |tenant: &str, kind: SourceKind, instance: &str| known.is_partial(tenant, kind, instance);
    let api = Api {
        engine,
        streams,
        tokens,
        sink,
        outcomes,
        records: Arc::new(Records(pipeline.finder())),
        inventories: Arc::new(runs),
        asked: Arc::new(asked),
        instances: Arc::new(instances),
        plans,
        mappings: config.mappings()?,
        partial: Arc::new(partial),
        policy: Arc::new(policy),
        ready: Arc::new(watch::ready(ready.done.clone(), intake.stats().clone())),
        clock: intake.stats().clone(),
        metrics,
    };
    let standing = registry.conditions.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
    let watch = Watch {
        intake: intake.stats().clone(),
        sinks,
        sink: api.sink.clone(),
        disks: std::iter::once(config.data_dir.clone()).chain(lake.is_some().then_some(lake_path)).collect(),
        reserve: config.disk_reserve_mib << 20,
        memory,
        snapshots_fail: pipeline.snapshots_fail().clone(),
    };
    tokio::spawn(watch.run(standing, stop.clone()));
    tokio::spawn(reap::run(to_reap, api.sink.clone()));
    // Every listener is open: who reads the token can use it.
    let first_token = first_token(config, &api, &live).await?;
    door.open(Arc::new(api));
    let parts = Parts {
        tell,
        udp: udp_running,
        nats: nats_running,
        kafka: kafka_running,
        pipeline,
        live,
        registry,
        certificates,
        door,
        http: http_task,
        _dir: dir,
    };
    Ok(Server {
        http: http_addr,
        url,
        netflow,
        sflow,
        syslog,
        syslog_tcp,
        syslog_tls,
        ipfix_tcp,
        traps,
        grpc: grpc_addrs,
        first_token,
        parts,
    })
}

/// Compares the configuration with the standing facts and appends the difference.
async fn standing_facts(config: &Config, sink: &Arc<dyn FactSink>, registry: &Registry, live: &Live) -> Result<()> {
    let facts = registry.changes(config)?;
    if !facts.is_empty() {
        let epoch = append_configured(&**sink, &facts).await?;
        live.reach(epoch).await;
    }
    Ok(())
}

/// Makes the administrator's token where there is none yet and nobody but this host can use it.
async fn first_token(config: &Config, api: &Api, live: &Live) -> Result<Option<String>> {
    if !api.tokens.is_empty() {
        return Ok(None);
    }
    if !config.is_local() {
        tracing::warn!("there is no token yet; make the first with `radarflow token create` on this host");
        return Ok(None);
    }
    let text = new_token();
    let epoch = append_configured(&*api.sink, &[admin_token(&text)]).await?;
    live.reach(epoch).await;
    Ok(Some(text))
}

/// Appends what the configuration says.
async fn append_configured(sink: &dyn FactSink, facts: &[Fact]) -> Result<u64> {
    let origin = Arc::new(Origin {
        kind: Kind::Fact,
        tenant: "default".to_owned(),
        partition: String::new(),
        feed: "configuration".to_owned(),
    });
    let entries = facts.iter().map(|f| entry(None, serde_json::to_vec(f).unwrap_or_default())).collect();
    Ok(sink.append(origin, entries).await?)
}

/// The fact that makes a token an administrator's of the default tenant.
pub(crate) fn admin_token(text: &str) -> Fact {
    token("admin", "default", Role::Admin, Vec::new(), text)
}

/// The fact that makes a token.
pub(crate) fn token(name: &str, tenant: &str, role: Role, partitions: Vec<String>, text: &str) -> Fact {
    let sha256 = hash(text);
    Fact::Token(Token {
        id: sha256[..16].to_owned(),
        name: name.to_owned(),
        sha256,
        tenant: tenant.to_owned(),
        role,
        partitions,
        expires_ms: None,
    })
}

impl Server {
    /// Compares the configuration with the standing facts and appends the difference, and reads certificates again; tells
    /// what is otherwise. Listeners, paths, sources that are asked and limits are as they were at the start.
    pub(crate) async fn reload(&self, config: &Config) -> Result<Vec<String>> {
        let facts = self.parts.registry.changes(config)?;
        let read = self.parts.certificates.iter().map(|tls| tls.again());
        let read = read.collect::<Result<Vec<_>, _>>()?;
        if !facts.is_empty() {
            let epoch = append_configured(self.parts.pipeline.intake(), &facts).await?;
            self.parts.live.reach(epoch).await;
        }
        let mut changes: Vec<String> = facts.iter().map(told).collect();
        for (tls, exchange) in self.parts.certificates.iter().zip(read) {
            if let Some(exchange) = exchange {
                changes.push(format!("certificate {}", tls.files().certificate.display()));
                tls.exchange(exchange);
            }
        }
        Ok(changes)
    }

    /// Makes a token; it works when this returns.
    pub(crate) async fn make_token(&self, name: &str, tenant: &str, role: Role) -> Result<String> {
        let text = new_token();
        let fact = token(name, tenant, role, Vec::new(), &text);
        let origin = Arc::new(Origin {
            kind: Kind::Fact,
            tenant: tenant.to_owned(),
            partition: String::new(),
            feed: "demo".to_owned(),
        });
        let epoch = self.parts.pipeline.intake().append(origin, vec![entry(None, serde_json::to_vec(&fact)?)]).await?;
        self.parts.live.reach(epoch).await;
        Ok(text)
    }

    /// Ends everything in order.
    pub(crate) async fn stop(self) -> Result<()> {
        let parts = self.parts;
        parts.door.stopping();
        let _ = parts.tell.send(true);
        tokio::task::spawn_blocking(move || parts.udp.into_iter().for_each(udp::Running::join)).await?;
        for source in parts.nats {
            source.join().await;
        }
        for source in parts.kafka {
            source.join().await;
        }
        let origin = Arc::new(Origin {
            kind: Kind::Fact,
            tenant: "default".to_owned(),
            partition: String::new(),
            feed: "shutdown".to_owned(),
        });
        let body = serde_json::to_vec(&Fact::Snapshot)?;
        if let Err(error) = parts.pipeline.intake().append(origin, vec![entry(None, body)]).await {
            tracing::warn!(%error, "no snapshot at the end");
        }
        parts.pipeline.stop().await?;
        parts.door.shut();
        let _ = tokio::time::timeout(ANSWERED, parts.http).await;
        Ok(())
    }
}
