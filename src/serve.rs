//! Wiring: sources → ledger → dataflow → sinks and queries, in one process, from start to a clean end.
//!
//! Start: take the data directory, open the ledger, load the newest usable snapshot, replay what follows, then let the
//! world in. End: stop the sources, close the last frame, let every sink finish, snapshot, leave.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrow_array::RecordBatch;
use radarflow_connectors::ledger::intake::{self, Intake, Progress};
use radarflow_connectors::ledger::snapshot::Snapshots;
use radarflow_connectors::ledger::{self, DataDir};
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
use radarflow_dataflows::decode::durable_offsets;
use radarflow_dataflows::decode::runs::Staging;
use radarflow_dataflows::identity::imagine::imagine;
use radarflow_dataflows::output::{Merge, Merged};
use radarflow_dataflows::worker::{Start, Workers};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{Fact, Role, Token};
use radarflow_proto::frame::{Frame, Kind, Origin};
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::{BoxFuture, FactSink, FindRecords, FoundRecord, Imagine, Imagined, Wanted};
use radarflow_proto::record::{IdKind, RecordKey, SourceKind};
use radarflow_proto::rows::Table;
use radarflow_query::access::{Tokens, hash, new_token};
use radarflow_query::door::Door;
use radarflow_query::engine::{Engine, EngineLimits};
use radarflow_query::http::{self, Api};
use radarflow_query::live::Live;
use radarflow_query::plans::Plans;
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
    intake: Intake,
    running: intake::Running,
    collector: std::thread::JoinHandle<()>,
    feed: Arc<Mutex<Option<Workers>>>,
    lake: Option<Lake>,
    live: Arc<Live>,
    registry: Arc<Registry>,
    certificates: Vec<Arc<Tls>>,
    reached: Arc<AtomicU64>,
    snapshots: Arc<Mutex<Snapshots>>,
    applied: Arc<dyn Fn() -> u64 + Send + Sync>,
    door: Arc<Door>,
    http: tokio::task::JoinHandle<()>,
    _dir: DataDir,
}

/// Finds records in the dataflow.
struct Finder(Arc<Mutex<Option<Workers>>>);

/// How long requests under way may take once everything else has ended.
const ANSWERED: Duration = Duration::from_secs(1);

/// How long the dataflow may take to find records: it answers between epochs.
const FIND_WAIT: Duration = Duration::from_secs(10);

impl FindRecords for Finder {
    fn find(&self, wanted: Wanted) -> BoxFuture<Option<Vec<FoundRecord>>> {
        let feed = self.0.clone();
        Box::pin(async move {
            let found = tokio::task::spawn_blocking(move || {
                let asked = feed.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|w| w.find(wanted));
                let (workers, answers) = asked?;
                let until = Instant::now() + FIND_WAIT;
                let mut found = Vec::new();
                for _ in 0..workers {
                    found.extend(answers.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?);
                }
                Some(found)
            });
            found.await.ok().flatten()
        })
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
    let ledger::Opened { segments, snapshots, start } = tokio::task::block_in_place(|| ledger::open(&dir))?;
    let generation = segments.generation();
    let mut offsets = BTreeMap::new();
    let (start_epoch, begin) = match &start {
        Some(manifest) => {
            let state = tokio::task::block_in_place(|| snapshots.load(manifest))?;
            offsets = durable_offsets(&state);
            (manifest.epoch, Start { epoch: manifest.epoch, gap_ms: manifest.gap_ms, state, ..Start::default() })
        }
        None => (0, Start::default()),
    };
    let begin = Start { staging: Staging { memory_bytes: memory.staged(), folder: Some(dir.path("")) }, ..begin };
    let snapshots = Arc::new(Mutex::new(snapshots));

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
        Some(Lake::start(&lake_path, start_epoch, config.sinks.lake.keep(), memory.of(Pool::Fresh), on_commit).await?)
    } else {
        None
    };
    let postgres = match &config.sinks.postgres {
        Some(p) => {
            if migrate {
                postgres::migrate(&p.url).await?;
            }
            let truth = Arc::new(LiveTruth(live.clone()));
            Some(Postgres::start(&p.url, generation, start_epoch, memory.postgres(), truth)?)
        }
        None => None,
    };
    let sinks: Vec<(&'static str, Applied)> = lake
        .iter()
        .map(|l| ("lake", l.applied().clone()))
        .chain(postgres.iter().map(|p| ("postgres", p.applied().clone())))
        .collect();
    let waiting = postgres.as_ref().map(|p| p.waiting().clone()).unwrap_or_default();
    let applied: Arc<dyn Fn() -> u64 + Send + Sync> = {
        let sinks = sinks.clone();
        Arc::new(move || sinks.iter().map(|(_, s)| s.get()).min().unwrap_or(u64::MAX))
    };

    // The dataflow, and what listens to it.
    let tokens = Arc::new(Tokens::default());
    let registry = Arc::new(Registry::default());
    let (outcomes, _) = broadcast::channel(1024);
    let reached = Arc::new(AtomicU64::new(0));
    let mut merge = Merge::new(config.workers.max(1), &begin.state);
    let (workers, outputs) = Workers::start(config.workers, begin);
    let (backlog, sizes) = (workers.backlog().clone(), workers.sizes().clone());
    let feed = Arc::new(Mutex::new(Some(workers)));
    let (outbox_tx, outbox_rx) = std::sync::mpsc::sync_channel::<Outbox>(1);
    let caught_up = Arc::new(AtomicBool::new(false));
    let (pace, progress) = tokio::sync::watch::channel(Progress::default());
    let last_epoch = segments.next_epoch() - 1;
    door.replaying(start_epoch, reached.clone(), last_epoch);
    let (reaped, to_reap) = tokio::sync::mpsc::channel(reap::QUEUED);
    let collector = {
        let (live, lake, tokens, registry, outcomes) =
            (live.clone(), lake.clone(), tokens.clone(), registry.clone(), outcomes.clone());
        let (reached, snapshots, caught_up) = (reached.clone(), snapshots.clone(), caught_up.clone());
        let backlog = backlog.clone();
        std::thread::Builder::new().name("collector".to_owned()).spawn(move || {
            let Ok(outbox) = outbox_rx.recv() else { return };
            while let Ok(said) = outputs.recv() {
                let tick = said.tick;
                let Some(Merged { output, snapshot }) = merge.push(said) else { continue };
                let output = Arc::new(output);
                tokens.learn(&output.facts);
                registry.learn(&output.facts);
                live.apply(&output);
                for outcome in &output.outcomes {
                    // Nobody may be waiting.
                    let _ = outcomes.send(outcome.clone());
                }
                outbox.apply_blocking(&output);
                if !output.reaped.is_empty() && caught_up.load(Ordering::Acquire) {
                    // What finds no room is named again.
                    let _ = reaped.try_send(output.clone());
                }
                if let Some(postgres) = &postgres {
                    postgres.apply_blocking(output.clone());
                }
                if let Some(lake) = &lake {
                    lake.apply_blocking(output.clone());
                }
                if let Some(entries) = snapshot {
                    let entries = entries.into_iter().map(|e| (e.collection.to_owned(), e.key, e.value)).collect();
                    let mut snapshots = snapshots.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(error) =
                        snapshots.publish(tick.epoch, tick.clock_ms, tick.clock_ms - tick.live_ms, entries)
                    {
                        tracing::error!(%error, "a snapshot could not be written");
                    }
                }
                reached.store(output.epoch, Ordering::Release);
                pace.send_replace(Progress { epoch: output.epoch, released: backlog.released() });
                if output.epoch >= last_epoch && !caught_up.swap(true, Ordering::AcqRel) {
                    outbox.go_blocking();
                }
            }
        })?
    };

    // Replay, then intake.
    let deliver = {
        let feed = feed.clone();
        move |frame: Arc<Frame>| {
            if let Some(workers) = &*feed.lock().unwrap_or_else(PoisonError::into_inner) {
                workers.feed(&frame);
            }
        }
    };
    let replayed = {
        let deliver = deliver.clone();
        tokio::task::spawn_blocking(move || {
            let result = segments.replay(start_epoch, |frame| {
                for range in &frame.ranges {
                    offsets.entry(range.feed.clone()).or_default().insert(range.from, range.to);
                }
                deliver(Arc::new(frame));
            });
            (segments, offsets, result)
        })
    };
    // The outbox needs intake, intake needs the replayed log, the replay needs the collector: the collector's first
    // message waits for the outbox, so intake's handles are made before frames flow back.
    let (late_sink, late) = LateSink::pair();
    let outbox = Outbox::start(late_sink.clone(), url.clone())?;
    outbox_tx.send(outbox).ok();
    let (segments, offsets, result) = replayed.await?;
    result?;
    let retire = {
        let (snapshots, applied, reached) = (snapshots.clone(), applied.clone(), reached.clone());
        move || {
            let applied = applied().min(reached.load(Ordering::Acquire));
            let mut snapshots = snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            snapshots.retire(applied).unwrap_or_else(|error| {
                tracing::warn!(%error, "old snapshots could not be removed");
                None
            })
        }
    };
    let (intake, running) = intake::start(segments, progress, deliver, retire, memory.intake());
    let sink: Arc<dyn FactSink> = Arc::new(intake.clone());
    late.set(sink.clone());
    while reached.load(Ordering::Acquire) < last_epoch {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    let first_token = standing_facts(config, &sink, &tokens, &registry, &live).await?;

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
    let durable = Arc::new(Durable::new(offsets));
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
    let engine = Arc::new(engine.map_err(|e| anyhow::anyhow!("{e:?}"))?);
    let plans = Arc::new(Plans::with_bytes(memory.plans()));
    let metrics = {
        let (intake, live, reached) = (intake.stats().clone(), live.clone(), reached.clone());
        let sinks = sinks.clone();
        let tables = lake.as_ref().map(|l| l.tables().clone()).unwrap_or_default();
        let (memory, engine) = (memory.clone(), engine.clone());
        let watched = metrics::Watched {
            intake,
            live,
            sinks,
            tables,
            backlog,
            reached,
            memory,
            postgres: waiting,
            engine,
            plans: plans.clone(),
            sizes,
            places: places.into(),
        };
        let registry = metrics::registry(watched);
        Arc::new(move || metrics::text(&registry))
    };
    let (known, tables, ready) = (registry.clone(), live.clone(), caught_up.clone());
    let availability: armis::Availability = Arc::new(move |tenant: &str, instance: &str| {
        // While the ledger is read again, the tables show what was.
        if !ready.load(Ordering::Acquire) {
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
        tokens,
        sink,
        outcomes,
        records: Arc::new(Finder(feed.clone())),
        inventories: Arc::new(runs),
        asked: Arc::new(asked),
        instances: Arc::new(instances),
        plans,
        mappings: config.mappings()?,
        partial: Arc::new(partial),
        policy: Arc::new(policy),
        ready: Arc::new(watch::ready(caught_up, intake.stats().clone())),
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
    };
    tokio::spawn(watch.run(standing, stop.clone()));
    tokio::spawn(reap::run(to_reap, api.sink.clone()));
    door.open(Arc::new(api));
    let parts = Parts {
        tell,
        udp: udp_running,
        nats: nats_running,
        kafka: kafka_running,
        intake,
        running,
        collector,
        feed,
        lake,
        live,
        registry,
        certificates,
        reached,
        snapshots,
        applied,
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

/// Compares the configuration with the standing facts and appends the difference; makes the first token.
async fn standing_facts(
    config: &Config,
    sink: &Arc<dyn FactSink>,
    tokens: &Tokens,
    registry: &Registry,
    live: &Live,
) -> Result<Option<String>> {
    let mut facts = registry.changes(config)?;
    let mut first = None;
    if tokens.is_empty() {
        if config.is_local() {
            let text = new_token();
            facts.push(admin_token(&text));
            first = Some(text);
        } else {
            tracing::warn!("there is no token yet; make the first with `radarflow token create` on this host");
        }
    }
    if facts.is_empty() {
        return Ok(None);
    }
    let epoch = append_configured(&**sink, &facts).await?;
    live.reach(epoch).await;
    Ok(first)
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
            let epoch = append_configured(&self.parts.intake, &facts).await?;
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
        let epoch = self.parts.intake.append(origin, vec![entry(None, serde_json::to_vec(&fact)?)]).await?;
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
        if let Err(error) = parts.intake.append(origin, vec![entry(None, body)]).await {
            tracing::warn!(%error, "no snapshot at the end");
        }
        drop(parts.intake);
        let Some(log) = tokio::task::spawn_blocking(move || parts.running.stop()).await? else {
            bail!("the ledger's thread failed")
        };
        let last = log.next_epoch() - 1;
        while parts.reached.load(Ordering::Acquire) < last {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if let Some(lake) = &parts.lake {
            lake.flush().await;
        }
        let applied = (parts.applied)().min(last);
        if let Err(error) = parts.snapshots.lock().unwrap_or_else(PoisonError::into_inner).retire(applied) {
            tracing::warn!(%error, "old snapshots could not be removed");
        }
        let workers = parts.feed.lock().unwrap_or_else(PoisonError::into_inner).take();
        tokio::task::spawn_blocking(move || {
            if let Some(workers) = workers {
                workers.stop();
            }
            let _ = parts.collector.join();
        })
        .await?;
        parts.door.shut();
        let _ = tokio::time::timeout(ANSWERED, parts.http).await;
        Ok(())
    }
}

/// A sink that is there before intake is: what needs it early waits.
struct LateSink(tokio::sync::watch::Receiver<Option<Arc<dyn FactSink>>>);

/// Fills a [`LateSink`].
struct Late(tokio::sync::watch::Sender<Option<Arc<dyn FactSink>>>);

impl LateSink {
    fn pair() -> (Arc<dyn FactSink>, Late) {
        let (set, get) = tokio::sync::watch::channel(None);
        (Arc::new(LateSink(get)), Late(set))
    }
}

impl Late {
    fn set(&self, sink: Arc<dyn FactSink>) {
        self.0.send_replace(Some(sink));
    }
}

impl FactSink for LateSink {
    fn append_all(
        &self,
        parts: Vec<radarflow_proto::ports::Part>,
        ranges: Vec<radarflow_proto::frame::Range>,
    ) -> radarflow_proto::ports::BoxFuture<Result<u64, radarflow_proto::ports::AppendError>> {
        let mut get = self.0.clone();
        Box::pin(async move {
            let sink = get.wait_for(Option::is_some).await.ok().and_then(|s| s.clone());
            match sink {
                Some(sink) => sink.append_all(parts, ranges).await,
                None => Err(radarflow_proto::ports::AppendError::Closed),
            }
        })
    }

    fn offer(
        &self,
        origin: Arc<Origin>,
        entries: Vec<radarflow_proto::frame::Entry>,
    ) -> Result<(), Vec<radarflow_proto::frame::Entry>> {
        match &*self.0.borrow() {
            Some(sink) => sink.offer(origin, entries),
            None => Err(entries),
        }
    }
}
