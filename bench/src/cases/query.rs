//! Questions over HTTP: a million devices in memory, flows in the lake, one client and fifty dashboards; beside DuckDB on
//! the same files.
//!
//! The tables are filled by the epochs that a dataflow would have said; nothing else is left out: the lake's own sink
//! writes the files, the API's own server answers. DuckDB is asked where `RADARFLOW_TEST_PYTHON` names an interpreter
//! that has it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use futures::StreamExt;
use radarflow_connectors::sinks::lake::{Keep, Lake, open_table};
use radarflow_connectors::sources::accept::{self, ConnectionSlots};
use radarflow_connectors::sources::enrolled::Enrolled;
use radarflow_network::devices::Network;
use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::fact::{Fact, IpLink, Role, Token};
use radarflow_proto::frame::{Entry, Origin, Range};
use radarflow_proto::lake::LakeTable;
use radarflow_proto::ports::{
    AppendError, Appender, AskedInventories, BoxFuture, EpochOutput, FindRecords, FoundRecord, Imagine, Imagined,
    InventoryRun, InventoryRuns, Part, ReadError, RecordQuery, RunOf,
};
use radarflow_proto::room::Room;
use radarflow_proto::rows::{BatchBuilder, Change, Device, Flow, FlowBatch, StateRow, Table};
use radarflow_query::actor::{Actor, Principals, hash, new_token};
use radarflow_query::engine::Engine;
use radarflow_query::http::door::Door;
use radarflow_query::http::{self, Api, Attempts, Issuers};
use radarflow_query::live::events::Event;
use radarflow_query::live::streams::Streams;
use radarflow_query::tables::live::Live;
use radarflow_reconcile::identity::sources::Instances;
use radarflow_reconcile::resources::{At, Judges};
use serde_json::{Value, json};

/// "Now", milliseconds.
const NOW: i64 = 1_700_000_000_000;
/// Flows of an epoch.
const BATCH: usize = 100_000;

/// There is nobody to take or find anything: it is only asked.
struct Nobody;

impl Appender for Nobody {
    fn append_all(&self, _: Vec<Part>, _: Vec<Range>) -> BoxFuture<Result<u64, AppendError>> {
        Box::pin(async { Err(AppendError::Closed) })
    }
    fn durable(&self) -> Option<u64> {
        None
    }
    fn offer(&self, _: Arc<Origin>, entries: Vec<Entry>) -> Result<(), Vec<Entry>> {
        Err(entries)
    }
}

impl FindRecords for Nobody {
    fn find(&self, _: RecordQuery) -> BoxFuture<Option<Vec<FoundRecord>>> {
        Box::pin(async { None })
    }
    fn imagine(&self, _: Imagine) -> BoxFuture<Option<Imagined>> {
        Box::pin(async { None })
    }
}

#[async_trait]
impl AskedInventories for Nobody {
    fn run_of(&self, _: &str, _: &str, _: &str) -> Option<RunOf> {
        None
    }
    async fn read(&self, of: &RunOf, _: &mut dyn InventoryRun) -> Result<(), ReadError> {
        Err(ReadError::Source(format!("there is no {}", of.name)))
    }
}

impl InventoryRuns for Nobody {
    fn begin(&self, _: RunOf) -> Box<dyn InventoryRun> {
        unreachable!("nothing is pushed")
    }
}

/// What fills the tables.
struct Filler {
    live: Arc<Live>,
    lake: Lake,
    epoch: u64,
    clock_ms: i64,
    network: Network,
    flow: Flow,
    flows: i64,
}

impl Filler {
    fn say(&mut self, mut output: EpochOutput) {
        self.epoch += 1;
        (output.epoch, output.clock_ms) = (self.epoch, self.clock_ms);
        let output = Arc::new(output);
        self.live.apply(&output);
        self.lake.take(&output);
        while self.lake.is_full() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn devices(&mut self) -> Result<()> {
        let base: Device = serde_json::from_value(json!({
            "tenant_id": "default", "partition": "default", "uid": "", "display_name": "", "ip_addresses": [],
            "mac_addresses": [], "discovery_sources": ["armis"], "availability": "available", "is_available": true,
            "first_seen_time": 0, "last_seen_time": 0, "lifecycle": "identified",
            "metadata": {"rack": "r1", "role": "any"}, "enriched_by": {}, "epoch": 1,
        }))?;
        let rows: Vec<Device> = self
            .network
            .devices
            .iter()
            .map(|d| Device {
                uid: format!("sr:{:032x}", (d.n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
                display_name: format!("{}-{}", d.kind, d.n),
                hostname: Some(format!("{}-{}", d.kind, d.n)),
                ip: Some(d.ip.to_string()),
                ip_addresses: vec![d.ip.to_string()],
                mac: d.macs.first().cloned(),
                mac_addresses: d.macs.clone(),
                r#type: Some(d.kind.to_owned()),
                vendor_name: Some(d.vendor.to_owned()),
                last_seen_time: Time(NOW * 1000 - (d.n as i64 * 7919) % 86_400_000 * 1000),
                ..base.clone()
            })
            .collect();
        for part in rows.chunks(20_000) {
            let changes = part.iter().filter_map(|d| Change::new(None, Some(StateRow::from(d.clone())))).collect();
            self.say(EpochOutput { changes, ..EpochOutput::default() });
        }
        Ok(())
    }

    /// So many flows of a span, said as long before now as its ends are.
    fn flows(&mut self, n: usize, ago: std::ops::Range<Duration>) {
        let (newest_us, span_us) =
            (self.clock_ms * 1000 - ago.start.as_micros() as i64, (ago.end - ago.start).as_micros() as i64);
        let mut batch = FlowBatch::default();
        for i in 0..n {
            let (src, dst) = self.network.talkers();
            self.flows += 1;
            let row = &mut self.flow;
            row.row_id = RowId::new(self.epoch + 1, 0, i as u32);
            row.epoch = (self.epoch + 1) as i64;
            row.time = Time(newest_us - span_us + (i as i64 * span_us) / n as i64);
            // A few talk much, as they do.
            let src = if self.flows % 3 == 0 {
                std::net::Ipv4Addr::from(0x0a00_0000 + (self.flows % 1000) as u32)
            } else {
                src
            };
            let (src, dst) = (std::net::IpAddr::from(src), std::net::IpAddr::from(dst));
            (row.src_endpoint_ip, row.dst_endpoint_ip) = (Some(src), Some(dst));
            (row.src_endpoint_ip_bin, row.dst_endpoint_ip_bin) = (Some(src.into()), Some(dst.into()));
            row.bytes_total = 1000 + self.flows * 7919 % 90_000;
            row.packets_total = 1 + self.flows % 60;
            batch.push(row);
        }
        self.say(EpochOutput { events: vec![(Table::Flow, batch.finish())], ..EpochOutput::default() });
    }
}

/// A part of a span of time before now; the first part is the oldest.
fn part_of(ago: std::ops::Range<Duration>, part: usize, parts: usize) -> std::ops::Range<Duration> {
    let (step, left) = ((ago.end - ago.start) / parts as u32, (parts - part) as u32);
    ago.start + step * (left - 1)..ago.start + step * left
}

/// The files of the lake's flows.
async fn files(lake: &Path) -> Result<Vec<String>> {
    let table = open_table(lake, LakeTable::Events(Table::Flow)).await?;
    Ok(table.get_file_uris()?.map(|f| f.trim_start_matches("file://").to_owned()).collect())
}

/// Waits until nothing more is merged; how many files there are then.
async fn merged(lake: &Path) -> Result<usize> {
    let (mut known, mut since) = (files(lake).await?, Instant::now());
    while since.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = files(lake).await?;
        if now != known {
            (known, since) = (now, Instant::now());
        }
    }
    Ok(known.len())
}

struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.token).json(body);
        let answer: Value = request.send().await?.json().await?;
        anyhow::ensure!(answer["code"].is_null(), "{body}: {answer}");
        Ok(answer)
    }

    async fn query(&self, query: &str) -> Result<Value> {
        self.post("/api/query", &json!({"query": query})).await
    }

    /// How long asking takes, milliseconds, in order.
    async fn times(&self, path: &str, body: impl Fn(usize) -> Value, n: usize) -> Result<Vec<f64>> {
        let mut times = Vec::new();
        for i in 0..n {
            let body = body(i);
            let started = Instant::now();
            self.post(path, &body).await?;
            times.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

fn told(times: &[f64]) -> String {
    let at = |q: f64| times[((times.len() as f64 * q) as usize).min(times.len() - 1)];
    format!("p50 {:.2} ms, p99 {:.2} ms of {} over HTTP", at(0.5), at(0.99), times.len())
}

const TOP: &str = r#"in:flows time:last_1h stats:"sum(bytes_total) as b by src_endpoint_ip" sort:b:desc limit:10"#;

pub(crate) fn run() -> Result<()> {
    let devices = crate::size("RADARFLOW_BENCH_DEVICES", 1_000_000);
    let flows = crate::size("RADARFLOW_BENCH_LAKE_FLOWS", 20_000_000);
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let live = Arc::new(Live::new(Some(dir.path().to_owned()), 0));
    let on_commit = {
        let live = live.clone();
        Arc::new(move |table: LakeTable, epoch| -> BoxFuture<()> {
            let live = live.clone();
            Box::pin(async move {
                // What cannot be read is missed in the counts below.
                let _ = live.committed(table, epoch).await;
            })
        })
    };
    let lake = runtime.block_on(Lake::start(
        &radarflow_connectors::disk::os(),
        dir.path(),
        0,
        Keep::default(),
        512 << 20,
        on_commit,
    ))?;
    let flow: Flow = serde_json::from_value(json!({
        "tenant_id": "default", "partition": "default", "row_id": 0, "epoch": 0, "time": 0, "received_at": NOW * 1000,
        "bytes_total": 0, "packets_total": 0, "bytes_raw": 0, "packets_raw": 0, "sampling_source": "unknown",
        "sampler_address": "10.0.0.1", "flow_type": "netflow_v9",
        "dst_endpoint_port": 443, "protocol_num": 6, "protocol_name": "tcp", "app": "https",
    }))?;
    let network = Network::new(9, devices, NOW / 1000);
    let mut filler = Filler { live: live.clone(), lake, epoch: 0, clock_ms: NOW, network, flow, flows: 0 };
    let started = Instant::now();
    filler.devices()?;
    crate::rate("query: devices into live tables and history", devices, started.elapsed())?;
    let started = Instant::now();
    // Half of them, ten million at most, in the last hour; the others in the day before it.
    let recent = (flows / 2).min(10_000_000);
    let hour = Duration::from_secs(3600);
    let (parts, recent) = (flows / BATCH, recent / BATCH);
    for part in 0..parts - recent {
        filler.flows(BATCH, part_of(hour..24 * hour, part, parts - recent));
    }
    for part in 0..recent {
        filler.flows(BATCH, part_of(Duration::ZERO..hour, part, recent));
    }
    runtime.block_on(filler.lake.flush());
    crate::rate("query: flows into the lake", flows, started.elapsed())?;
    let (started, before) = (Instant::now(), runtime.block_on(files(dir.path()))?.len());
    let after = runtime.block_on(merged(dir.path()))?;
    let said =
        format!("{before} files at the last commit, {after} after {:.0} s more", started.elapsed().as_secs_f64());
    crate::figure("query: compaction", &said)?;

    let principals = Arc::new(Principals::default());
    let token = new_token();
    let made = Fact::Token(Token {
        id: "bench".into(),
        name: "bench".into(),
        sha256: hash(&token),
        tenant: "default".into(),
        role: Role::Viewer,
        partitions: Vec::new(),
        expires_ms: None,
    });
    principals.learn(&Judges::default().state(At { epoch: 1, now_us: 0 }, &made));
    let engine = Engine::new(live.clone(), [1; 32])?;
    let engine = Arc::new(engine);
    let streams = Arc::new(Streams::new(engine.clone()));
    let (read, followed) = (engine.clone(), streams.clone());
    let api = Arc::new(Api {
        engine,
        streams,
        principals,
        judgements: Arc::default(),
        attempts: Attempts::default(),
        seal: Arc::new(|_, _| None),
        unseal: Arc::new(|_, _| None),
        public_url: None,
        mail: None,
        ask_server: Arc::new(|_| Box::pin(async { Err("nobody is asked".to_owned()) })),
        issuers: Issuers::default(),
        authorities: Arc::new(Enrolled::new(Arc::default(), &[1; 32])),
        gateways: Arc::new(|_, _| Err("nobody is enrolled".to_owned())),
        sink: Arc::new(Nobody),
        outcomes: tokio::sync::broadcast::channel(1).0,
        records: Arc::new(Nobody),
        inventories: Arc::new(Nobody),
        asked: Arc::new(Nobody),
        instances: Arc::new(Instances::default),
        plans: Arc::default(),
        mappings: Default::default(),
        partial: Arc::new(|_, _, _| false),
        policy: Arc::new(|_| IpLink::default()),
        clock: Arc::new(radarflow_connectors::ledger::intake::IntakeStats::default()),
        ready: Arc::new(|| Ok(())),
        room: Room::of(1 << 30),
        strangers: Room::of(1 << 20),
        flush: Arc::new(|| Box::pin(async { None })),
        metrics: Arc::new(String::new),
    });
    runtime.block_on(async move {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", socket.local_addr()?);
        let slots = ConnectionSlots::new("http", Room::of(1 << 30), http::CONNECTION_BYTES);
        let connections = accept::connections(socket, None, slots);
        let connections = connections
            .map(|connection| connection.map(|io| http::Connection { peer: io.peer().ip(), held: io.more(), io }));
        let door = Arc::new(Door::default());
        door.open(api);
        tokio::spawn(http::serve(connections, door));
        let client = Arc::new(Client { http: reqwest::Client::new(), url, token });
        ask(&client, devices).await?;
        for query in LIVE {
            follow(&read, &followed, &mut filler, query).await?;
        }
        duckdb(dir.path(), &client).await?;
        for query in LIVE_FLOWS {
            follow_flows(&followed, &client, &mut filler, query).await?;
        }
        dashboards(client, filler).await
    })
}

const LIVE: [&str; 3] = [
    "in:devices type:router is_available:false",
    r#"in:devices stats:"count() as n by vendor_name,type""#,
    r#"in:devices stats:"count_distinct(hostname) as names, max(last_seen_time) as newest by vendor_name""#,
];

/// How long after its epoch a change of one device is told to who follows a query.
async fn follow(engine: &Arc<Engine>, streams: &Streams, filler: &mut Filler, query: &str) -> Result<()> {
    let actor = Actor::of_role("bench", "default", Role::Viewer);
    let started = Instant::now();
    let mut events = streams.start(&actor, query, None)?;
    while !matches!(events.recv().await.context("a snapshot")?, Event::Snapshot { last: true, .. }) {}
    let first = started.elapsed();
    let mut device = engine.live().view().rows_where::<Device>("default", "hostname", "router-3").pop();
    if device.is_none() {
        device = engine.live().view().rows_where::<Device>("default", "uid", &format!("sr:{:032x}", 0)).pop();
    }
    let mut device = device.context("there is a device")?;
    let mut times = Vec::new();
    for n in 0..30 {
        let before = device.clone();
        (device.is_available, device.r#type) = (Some(n % 2 == 1), Some("router".into()));
        device.vendor_name = Some(["Cisco", "Juniper"][n % 2].to_owned());
        let change = Change::new(Some(StateRow::from(before)), Some(StateRow::from(device.clone())));
        let said = Instant::now();
        let output = EpochOutput { changes: change.into_iter().collect(), ..EpochOutput::default() };
        tokio::task::block_in_place(|| filler.say(output));
        while !matches!(events.recv().await.context("a change")?, Event::Change { .. }) {}
        times.push(said.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    times.sort_by(f64::total_cmp);
    let said = format!(
        "p50 {:.1} ms, greatest {:.1} ms; snapshot {:.0} ms",
        times[15],
        times[29],
        first.as_secs_f64() * 1000.0
    );
    crate::figure(&format!("query: change of a device told to `{query}`"), &said)
}

async fn ask(client: &Client, devices: usize) -> Result<()> {
    let uid = |n: usize| {
        let n = (n * 7919 % devices) as u128;
        format!("sr:{:032x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    };
    let found = client.query(&format!("in:devices uid:{}", uid(3))).await?;
    anyhow::ensure!(found["results"].as_array().is_some_and(|r| r.len() == 1), "{found}");
    let query = |text: String| json!({"query": text});
    let point = client.times("/api/query", |i| query(format!("in:devices uid:{}", uid(i))), 300).await?;
    crate::figure("query: point query by uid", &told(&point))?;
    let named = client
        .times("/api/query", |i| query(format!("in:devices hostname:server-{} limit:1", i * 7919 % devices)), 100)
        .await?;
    crate::figure("query: one by host name", &told(&named))?;
    let filter = "in:devices type:router ip:10.0.0.0/10 sort:last_seen:desc limit:50";
    let filter = client.times("/api/query", |_| query(filter.into()), 60).await?;
    crate::figure("query: filter, sort, limit", &told(&filter))?;
    let groups = r#"in:devices stats:"count() as n by vendor_name,type" limit:20"#;
    let groups = client.times("/api/query", |_| query(groups.into()), 40).await?;
    crate::figure("query: groups of devices", &told(&groups))?;
    let talker = |i: usize| std::net::Ipv4Addr::from(0x0a00_0000 + (i * 7919 % devices) as u32);
    let of_one = |i| query(format!("in:flows time:last_24h src_endpoint_ip:{} sort:time:desc limit:50", talker(i)));
    let of_one = client.times("/api/query", of_one, 40).await?;
    crate::figure("query: flows of one address, of a day", &told(&of_one))?;
    let valid = client.times("/api/query/validate", |_| query(TOP.into()), 200).await?;
    crate::figure("query: validation", &told(&valid))?;
    for typed in ["in:devices vend", "in:devices vendor_name:", "in:devices hostname:server-1", "in:flows app:h"] {
        let complete =
            client.times("/api/query/complete", |_| json!({"query": typed, "cursor_offset": typed.len()}), 40).await?;
        crate::figure(&format!("query: completion of `{typed}`"), &told(&complete))?;
    }
    let then = client.times("/api/query", |i| query(format!("in:devices uid:{} at:now", uid(i))), 5).await?;
    crate::figure("query: one of a million devices, from history", &told(&then))
}

const LIVE_FLOWS: [&str; 2] = [
    r#"in:flows time:last_1h stats:"sum(bytes_total) as b, count() as n by app,dst_endpoint_port""#,
    r#"in:flows time:last_1h stats:"sum(bytes_total) as b by src_endpoint_ip:24" sort:b:desc limit:10"#,
];

/// How long after its epoch the groups of an hour of flows are told to who follows them, while time goes on: five thousand
/// come in a tenth of a second, and those of the tenth that the hour leaves go.
async fn follow_flows(streams: &Streams, client: &Client, filler: &mut Filler, query: &str) -> Result<()> {
    let asked = client.times("/api/query", |_| json!({"query": query}), 5).await?;
    let actor = Actor::of_role("bench", "default", Role::Viewer);
    let started = Instant::now();
    let mut events = streams.start(&actor, query, None)?;
    while !matches!(events.recv().await.context("a snapshot")?, Event::Snapshot { last: true, .. }) {}
    let first = started.elapsed();
    let mut times = Vec::new();
    for _ in 0..100 {
        filler.clock_ms += 100;
        let said = Instant::now();
        tokio::task::block_in_place(|| filler.flows(5000, Duration::ZERO..Duration::from_millis(100)));
        loop {
            match events.recv().await.context("a change")? {
                Event::Change { epoch, .. } if epoch >= filler.epoch => break,
                _ => {}
            }
        }
        times.push(said.elapsed().as_secs_f64() * 1000.0);
        tokio::time::sleep(Duration::from_millis(100).saturating_sub(said.elapsed())).await;
    }
    times.sort_by(f64::total_cmp);
    let said = format!(
        "p50 {:.1} ms, greatest {:.1} ms after an epoch of 5,000; snapshot {:.0} ms; asked again {:.0} ms",
        times[50],
        times[99],
        first.as_secs_f64() * 1000.0,
        asked[2]
    );
    crate::figure(&format!("query: `{query}` kept while an hour slides"), &said)
}

const DUCKDB: &str = "
import sys, time, duckdb
files, since = sys.argv[2:], sys.argv[1]
duckdb.sql('set threads = 2')
def ask():
    started = time.perf_counter()
    rows = duckdb.sql(f\"select src_endpoint_ip, sum(bytes_total) b from read_parquet({files!r}) where time >= timestamptz '{since}' group by 1 order by b desc, 1 limit 10\").fetchall()
    return time.perf_counter() - started, rows
ask()
took = sorted(ask()[0] for _ in range(7))
print(took[3] * 1000)
print(int(ask()[1][0][1]))
";

async fn duckdb(lake: &Path, client: &Client) -> Result<()> {
    let ours = client.times("/api/query", |_| json!({"query": TOP}), 7).await?;
    let answer = client.query(TOP).await?;
    let ours = ours[3];
    let Ok(python) = std::env::var("RADARFLOW_TEST_PYTHON") else {
        return crate::figure("query: top ten talkers of the last hour", &format!("p50 {ours:.0} ms; no DuckDB here"));
    };
    let files = files(lake).await?;
    let since = Time((NOW - 3_600_000) * 1000).to_string();
    let output = std::process::Command::new(python).args(["-c", DUCKDB, &since]).args(&files).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut lines = said.lines();
    let theirs: f64 = lines
        .next()
        .and_then(|l| l.parse().ok())
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let top: i64 = lines.next().and_then(|l| l.parse().ok()).context("DuckDB says its greatest sum")?;
    anyhow::ensure!(answer["results"][0]["b"] == top, "{answer}: DuckDB says {top}");
    crate::figure(
        "query: top ten talkers of the last hour",
        &format!(
            "p50 {ours:.0} ms over HTTP; DuckDB on the same {} files {theirs:.0} ms: {:.2} times",
            files.len(),
            ours / theirs
        ),
    )
}

/// Fifty dashboards of ten queries each, every fifteen seconds, while flows arrive.
async fn dashboards(client: Arc<Client>, mut filler: Filler) -> Result<()> {
    let queries = [
        "in:devices stats:\"count() as n by availability\"",
        "in:devices is_available:false sort:last_seen:desc limit:20",
        "in:devices type:router limit:20",
        "in:devices stats:\"count() as n by vendor_name\" limit:10",
        "in:alerts status:pending limit:20",
        "in:devices rollup_stats:inventory_summary",
        "in:flows time:last_5m stats:\"sum(bytes_total) as b by app\" limit:10",
        "in:flows time:last_5m bucket:1m agg:sum value_field:bytes_total",
        "in:devices hostname:server-1% limit:20",
        "in:identities stats:\"count() as n by identifier_type\"",
    ];
    let stop = Arc::new(AtomicBool::new(false));
    let arriving = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut arrived = 0;
            while !stop.load(Ordering::Acquire) {
                let started = Instant::now();
                filler.flows(5000, Duration::ZERO..Duration::from_millis(100));
                arrived += 5000;
                std::thread::sleep(Duration::from_millis(100).saturating_sub(started.elapsed()));
            }
            arrived
        })
    };
    let (started, span) = (Instant::now(), Duration::from_secs(30));
    let mut all = Vec::new();
    for n in 0..50u64 {
        let client = client.clone();
        all.push(tokio::spawn(async move {
            let mut times = Vec::new();
            // They were opened at different times.
            let mut due = Duration::from_millis(n * 300);
            while due < span {
                tokio::time::sleep(due.saturating_sub(started.elapsed())).await;
                for query in queries {
                    let asked = Instant::now();
                    let answer = client.post("/api/query", &json!({"query": query})).await;
                    times.push((asked.elapsed().as_secs_f64() * 1000.0, answer.is_ok(), query));
                }
                due += Duration::from_secs(15);
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in all {
        times.extend(task.await?);
    }
    stop.store(true, Ordering::Release);
    let took = started.elapsed();
    let arrived = arriving.join().map_err(|_| anyhow::anyhow!("flows stopped"))?;
    let refused = times.iter().filter(|(_, ok, _)| !ok).count();
    for query in queries {
        let mut of: Vec<f64> = times.iter().filter(|(.., q)| *q == query).map(|(t, ..)| *t).collect();
        of.sort_by(f64::total_cmp);
        crate::figure(&format!("query: on a dashboard, `{query}`"), &told(&of))?;
    }
    let mut all: Vec<f64> = times.iter().map(|(t, ..)| *t).collect();
    all.sort_by(f64::total_cmp);
    let what =
        format!("{}, {refused} refused, {:.0} flows/s arriving", told(&all), f64::from(arrived) / took.as_secs_f64());
    crate::figure("query: fifty dashboards", &what)
}
