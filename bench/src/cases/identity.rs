//! The dataflow alone, two workers: the first load of an inventory, an unchanged re-sync, one change, a sync of 10,000; the
//! mix with sweeps, and a bridge's address on every fifth device; and beside it what a program would do that knows no increments: all of it again for each change, by union-find, and as
//! sets in Postgres where `RADARFLOW_TEST_POSTGRES` names one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use radarflow_dataflows::keyed::Restored;
use radarflow_dataflows::output::{Merge, WorkerEpoch};
use radarflow_dataflows::worker::{Start, Workers};
use radarflow_network::devices::{Device, Network};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Entry, Frame, Kind, Origin, Slice};
use radarflow_proto::payload::{AgentPush, ServiceHead};
use radarflow_proto::record::{IdKind, Identifier};
use radarflow_reconcile::identity::ClaimClass;
use radarflow_reconcile::identity::normalise::short_hostname;
use radarflow_reconcile::identity::sources::{Instances, Received, device_update};
use sqlx::{Connection, Executor, PgConnection};

pub(super) const NOW: i64 = 1_700_000_000;
pub(super) const WORKERS: usize = 2;
/// Items of one frame.
const FRAME: usize = 10_000;

/// The dataflow, fed by hand.
pub(super) struct Run {
    pub(super) workers: Workers,
    pub(super) outputs: std::sync::mpsc::Receiver<WorkerEpoch>,
    pub(super) merge: Merge,
    pub(super) epoch: u64,
}

impl Run {
    /// Feeds frames and waits until the last is complete; tells how many changes came out and how long it took.
    pub(super) fn feed(&mut self, frames: Vec<Vec<(Kind, Vec<u8>)>>) -> (usize, Duration) {
        let started = Instant::now();
        let last = self.epoch + frames.len() as u64;
        let (mut changes, mut done) = (0, false);
        for inputs in frames {
            self.epoch += 1;
            let mut slices = Vec::new();
            for (position, (kind, body)) in inputs.into_iter().enumerate() {
                let origin = Origin { kind, tenant: "default".into(), partition: String::new(), feed: "bench".into() };
                let entry = Entry { peer: None, received_us: NOW * 1_000_000, body: body.into() };
                slices.push(Slice { origin, first_position: position as u32, entries: vec![entry] });
            }
            let clock_ms = NOW * 1000 + self.epoch as i64;
            let frame = Frame {
                generation: 1,
                epoch: self.epoch,
                clock_ms,
                gap_ms: 0,
                release_bytes: 4 << 20,
                ranges: vec![],
                slices,
            };
            self.workers.feed(&Arc::new(frame));
            done = self.drain(false, last, &mut changes);
        }
        // The last may be complete before anybody waits for it.
        if !done {
            self.drain(true, last, &mut changes);
        }
        (changes, started.elapsed())
    }

    /// Takes what came out, or all until the last epoch is complete; tells whether it is.
    fn drain(&mut self, wait: bool, last: u64, changes: &mut usize) -> bool {
        loop {
            let said = if wait { self.outputs.recv().ok() } else { self.outputs.try_recv().ok() };
            let Some(said) = said else { return false };
            if let Some(merged) = self.merge.push(said) {
                *changes += merged.output.changes.len();
                if merged.output.epoch >= last {
                    return true;
                }
            }
        }
    }
}

/// Pushes of so many items each, two a frame so that both workers have one.
pub(super) fn frames(items: &[String]) -> Vec<Vec<(Kind, Vec<u8>)>> {
    let service = ServiceHead { name: "s".into(), kind: "sync".into(), source: "results".into(), available: true };
    let push = AgentPush { agent_id: "bench".into(), service: Some(service), ..AgentPush::default() };
    let head = serde_json::to_string(&push).unwrap_or_default();
    let body = |chunk: &[String]| (Kind::Status, format!("{head}\n[{}]", chunk.join(",")).into_bytes());
    items.chunks(FRAME).map(|frame| frame.chunks(frame.len().div_ceil(WORKERS)).map(body).collect()).collect()
}

pub(super) fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// What the comparisons read of a record.
fn read(items: &[String]) -> anyhow::Result<Vec<radarflow_proto::record::Record>> {
    let at = Received { tenant: "default", partition: None, at_us: NOW * 1_000_000 };
    let instances = Instances::default();
    items.iter().map(|item| Ok(device_update(&serde_json::from_str(item)?, &at, &instances)?)).collect()
}

/// The same as [`from_scratch`], as sets: labels that spread along edges until none changes. Tells how many devices there
/// are, and how long it took with the records already there.
async fn as_sets(server: &str, items: &[String]) -> anyhow::Result<(usize, Duration)> {
    let name = format!("sets{}", std::process::id());
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    let mut db = PgConnection::connect(&format!("{server}/{name}")).await?;
    db.execute(
        "CREATE TABLE record (r int PRIMARY KEY, class int, at bigint);
         CREATE TABLE identifier (r int, id text); CREATE TABLE address (r int, ip inet, host text);",
    )
    .await?;
    let (mut records, mut ids, mut addresses) = (String::new(), String::new(), String::new());
    for (r, record) in read(items)?.iter().enumerate() {
        let class = ClaimClass::of(record.key.kind) as i32;
        let _ = writeln!(records, "{r}\t{class}\t{}", record.event_time.0);
        for id in &record.ids {
            let _ = writeln!(ids, "{r}\t{}/{}/{}", id.kind.name(), id.namespace, id.value);
        }
        for ip in &record.ips {
            let host = record.hostname.as_deref().map_or("\\N", short_hostname);
            let _ = writeln!(addresses, "{r}\t{ip}\t{host}");
        }
    }
    for (table, rows) in [("record", records), ("identifier", ids), ("address", addresses)] {
        let mut copy = db.copy_in_raw(&format!("COPY {table} FROM STDIN")).await?;
        copy.send(rows.into_bytes()).await?;
        copy.finish().await?;
    }
    db.execute("ANALYZE").await?;
    let started = Instant::now();
    db.execute(
        "CREATE TABLE edge AS
             SELECT a.r AS x, b.r AS y FROM (SELECT id, min(r) AS r FROM identifier GROUP BY id) a
                 JOIN identifier b USING (id) WHERE a.r <> b.r
             UNION SELECT a.r, b.r FROM (SELECT ip, host, min(r) AS r FROM address WHERE host IS NOT NULL GROUP BY ip, host) a
                 JOIN address b USING (ip, host) WHERE a.r <> b.r;
         INSERT INTO edge SELECT y, x FROM edge;
         CREATE INDEX ON edge (x);
         CREATE TABLE label AS SELECT r, r AS l FROM record;
         CREATE UNIQUE INDEX ON label (r);
         ANALYZE edge; ANALYZE label;",
    )
    .await?;
    loop {
        let spread =
            "UPDATE label SET l = m.l FROM (SELECT e.y AS r, min(label.l) AS l FROM edge e JOIN label ON label.r = e.x
                      GROUP BY 1) m WHERE label.r = m.r AND m.l < label.l";
        if db.execute(spread).await?.rows_affected() == 0 {
            break;
        }
    }
    db.execute(
        "CREATE TABLE owner AS SELECT DISTINCT ON (ip) ip, l FROM address JOIN record USING (r) JOIN label USING (r)
         ORDER BY ip, class DESC, at DESC",
    )
    .await?;
    let took = started.elapsed();
    let (devices,): (i64,) = sqlx::query_as("SELECT count(DISTINCT l) FROM label").fetch_one(&mut db).await?;
    drop(db);
    admin.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {name}"))).await?;
    Ok((devices as usize, took))
}

/// Devices by strong identifiers, by address and host name, and the owner of every address, from scratch: less than the
/// definition asks for, on one thread. Tells how many devices there are.
fn from_scratch(items: &[String]) -> anyhow::Result<usize> {
    fn root(parents: &mut [usize], mut x: usize) -> usize {
        while parents[x] != x {
            parents[x] = parents[parents[x]];
            x = parents[x];
        }
        x
    }
    let mut parents: Vec<usize> = (0..items.len()).collect();
    let mut by_id: HashMap<Identifier, usize> = HashMap::new();
    let mut by_place: HashMap<(IpAddr, String), usize> = HashMap::new();
    let mut owners: HashMap<IpAddr, (ClaimClass, Time, usize)> = HashMap::new();
    for (n, record) in read(items)?.into_iter().enumerate() {
        for id in record.ids {
            let other = *by_id.entry(id).or_insert(n);
            let (a, b) = (root(&mut parents, n), root(&mut parents, other));
            parents[a.max(b)] = a.min(b);
        }
        let class = ClaimClass::of(record.key.kind);
        for ip in record.ips {
            if let Some(host) = &record.hostname {
                let other = *by_place.entry((ip, short_hostname(host).to_owned())).or_insert(n);
                let (a, b) = (root(&mut parents, n), root(&mut parents, other));
                parents[a.max(b)] = a.min(b);
            }
            let owner = owners.entry(ip).or_insert((class, record.event_time, n));
            *owner = (*owner).max((class, record.event_time, n));
        }
    }
    Ok((0..items.len()).filter(|n| root(&mut parents, *n) == *n).count())
}

/// A dataflow that knows the sources.
fn started() -> Run {
    let (workers, outputs) = Workers::start(WORKERS, Start::default());
    let mut run = Run { workers, outputs, merge: Merge::new(WORKERS, &Restored::new()), epoch: 0 };
    let instance = |kind, instance: &str| {
        let fact = Fact::Instance { tenant: "default".into(), kind, instance: instance.into(), legacy: true };
        (Kind::Fact, serde_json::to_vec(&fact).unwrap_or_default())
    };
    run.feed(vec![vec![instance(IdKind::Armis, "armis-main"), instance(IdKind::NetBox, "netbox-main")]]);
    run
}

/// Pushes of what sweeps found.
fn sweeps(network: &Network) -> Vec<Vec<(Kind, Vec<u8>)>> {
    let service = ServiceHead { name: "s".into(), kind: "sweep".into(), source: "results".into(), available: true };
    let push = AgentPush { agent_id: "bench".into(), service: Some(service), ..AgentPush::default() };
    let head = serde_json::to_string(&push).unwrap_or_default();
    let hosts: Vec<String> = network.devices.iter().map(|device| device.swept(true, NOW)).collect();
    let body = |hosts: &[String]| (Kind::Status, format!("{head}\n{{\"hosts\":[{}]}}", hosts.join(",")).into_bytes());
    hosts.chunks(FRAME).map(|frame| frame.chunks(frame.len().div_ceil(WORKERS)).map(body).collect()).collect()
}

/// The mix of a site that is swept: an address each, known to two inventories and to sweeps.
fn swept(devices: usize) -> anyhow::Result<()> {
    let network = Network::new(3, devices, NOW);
    let mut run = started();
    let armis = network.devices.iter().map(Device::armis);
    let items: Vec<String> = armis.chain(network.devices.iter().filter(|d| d.in_netbox).map(Device::netbox)).collect();
    let before = resident_mib();
    let (_, loaded) = run.feed(frames(&items));
    let (_, swept) = run.feed(sweeps(&network));
    let records = items.len() + network.devices.len();
    crate::rate("identity, with sweeps, first load, records", records, loaded + swept)?;
    let grown = (resident_mib() - before) * 1024.0 * 1024.0 / records as f64;
    crate::figure("identity, with sweeps, memory", &format!("{grown:.0} bytes a record"))?;
    run.workers.stop();
    Ok(())
}

/// A container bridge's address on every fifth device: more claim it than may own it.
fn bridged(devices: usize) -> anyhow::Result<()> {
    let mut network = Network::new(4, devices, NOW);
    let mut run = started();
    let item = |device: &Device| {
        let own = format!(r#""ip":"{}""#, device.ip);
        device.armis().replacen(&own, &format!(r#""ip":"{},172.17.0.1""#, device.ip), 1)
    };
    let of = |(n, device): (usize, &Device)| if n.is_multiple_of(5) { item(device) } else { device.armis() };
    let items: Vec<String> = network.devices.iter().enumerate().map(of).collect();
    let (_, loaded) = run.feed(frames(&items));
    crate::rate("identity, a bridge address on 20 %, first load, records", items.len(), loaded)?;
    let mut times: Vec<Duration> = (0..100)
        .map(|i| {
            let (a, _) = network.swap(NOW + i);
            run.feed(frames(&[item(&network.devices[a])])).1
        })
        .collect();
    times.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    let said = format!("p50 {:.2} ms, p99 {:.2} ms", ms(times[50]), ms(times[98]));
    crate::figure("identity, a bridge address on 20 %, one change of such a device", &said)?;
    run.workers.stop();
    Ok(())
}

pub(crate) fn run() -> anyhow::Result<()> {
    let records = crate::size("RADARFLOW_BENCH_RECORDS", 200_000);
    let mut network = Network::new(2, records * 10 / 16, NOW);
    let mut run = started();
    let all = |network: &Network| -> Vec<String> {
        let armis = network.devices.iter().map(Device::armis);
        armis.chain(network.devices.iter().filter(|d| d.in_netbox).map(Device::netbox)).collect()
    };
    let items = all(&network);
    let before = resident_mib();
    let (changes, loaded) = run.feed(frames(&items));
    crate::rate("identity, first load, records", items.len(), loaded)?;
    let grown = resident_mib() - before;
    let per_record = grown * 1024.0 * 1024.0 / items.len() as f64;
    crate::figure(
        "identity, memory of the dataflow",
        &format!("{grown:.0} MiB, {per_record:.0} bytes a record, {changes} row changes"),
    )?;
    let (changes, again) = run.feed(frames(&items));
    let share = again.as_secs_f64() / loaded.as_secs_f64();
    crate::figure(
        "identity, unchanged re-sync",
        &format!("{:.3} s, {share:.2} of the load, {changes} row changes", again.as_secs_f64()),
    )?;
    let mut times: Vec<Duration> = (0..200)
        .map(|i| {
            let (a, _) = network.swap(NOW + i);
            run.feed(frames(&[network.devices[a].armis()])).1
        })
        .collect();
    times.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1000.0;
    crate::figure("identity, one change", &format!("p50 {:.2} ms, p99 {:.2} ms", ms(times[100]), ms(times[198])))?;
    for i in 0..5000 {
        network.swap(NOW + 1000 + i);
    }
    let moved: Vec<String> = network.devices.iter().filter(|d| d.changed >= NOW + 1000).map(Device::armis).collect();
    let (changes, took) = run.feed(frames(&moved));
    let what = format!("{:.3} s for {} records, {changes} row changes", took.as_secs_f64(), moved.len());
    crate::figure("identity, a sync of changed records", &what)?;
    run.workers.stop();
    let started = Instant::now();
    let devices = from_scratch(&items)?;
    let again = started.elapsed();
    crate::figure(
        "identity, from scratch by union-find, one thread",
        &format!(
            "{:.3} s for {devices} devices: {:.0} times one change, {:.2} of the sync of {}",
            again.as_secs_f64(),
            again.as_secs_f64() / times[100].as_secs_f64(),
            again.as_secs_f64() / took.as_secs_f64(),
            moved.len()
        ),
    )?;
    swept(records * 10 / 26)?;
    bridged(records)?;
    let Ok(server) = std::env::var("RADARFLOW_TEST_POSTGRES") else {
        return crate::figure("identity, from scratch as sets", "left out: RADARFLOW_TEST_POSTGRES names no server");
    };
    let (same, sets) = tokio::runtime::Runtime::new()?.block_on(as_sets(&server, &items))?;
    anyhow::ensure!(same == devices, "union-find finds {devices} devices, Postgres {same}");
    crate::figure(
        "identity, from scratch as sets in Postgres",
        &format!(
            "{:.3} s for {same} devices: {:.0} times one change, {:.2} of the sync of {}, {:.2} of the first load",
            sets.as_secs_f64(),
            sets.as_secs_f64() / times[100].as_secs_f64(),
            sets.as_secs_f64() / took.as_secs_f64(),
            moved.len(),
            sets.as_secs_f64() / loaded.as_secs_f64(),
        ),
    )
}
