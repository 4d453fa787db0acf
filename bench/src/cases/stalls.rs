//! Whether one part of the program waits for another.
//!
//! - While snapshots are written: how long an append takes to be durable. SNMP informs are answered once they are, so one
//!   is sent after the other, while an inventory is brought in and after it.
//! - While a reader of the database holds the table of devices (`LOCK TABLE`): whether flows, answers and the lake are
//!   later than without, under 50,000 flows a second. `RADARFLOW_TEST_POSTGRES` names the server.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use radarflow_network::devices::{Device, Network};
use radarflow_network::packets;
use sqlx::{Connection, Executor, PgConnection};

use crate::cases::ingest::{FLOWS, datagrams};
use crate::cases::program::{Measured, Program, data, send};

const NOW: i64 = 1_700_000_000;
/// Flows a second while the database is locked.
const RATE: usize = 50_000;
/// How long the database is locked.
const LOCKED: Duration = Duration::from_secs(60);
/// Files of a snapshot are looked at so often.
const LOOK: Duration = Duration::from_millis(20);
/// A snapshot is under way as long as its files change at least so often.
const STILL: Duration = Duration::from_millis(300);

pub(crate) fn run() -> Result<()> {
    for measured in Measured::all()? {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(snapshots(&measured))?;
        runtime.block_on(locked(&measured))?;
    }
    Ok(())
}

/// Something that goes on beside, until it is asked for.
struct Beside<T> {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<T>,
}

impl<T: Send + 'static> Beside<T> {
    fn start(run: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        Beside { stop, thread: std::thread::spawn(move || run(&told)) }
    }

    fn end(self) -> Result<T> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("what ran beside panicked"))
    }
}

/// When an inform was sent, and how long it took to be durable.
type Append = (Instant, Duration);

fn appends(to: SocketAddr, stop: &AtomicBool) -> Result<Vec<Append>> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut answer = [0; 512];
    let mut appends = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let sent = Instant::now();
        socket.send(&packets::cold_start_inform(n))?;
        socket.recv(&mut answer).context("an inform is answered")?;
        appends.push((sent, sent.elapsed()));
    }
    Ok(appends)
}

/// The newest change of a file below, and how much there is.
fn newest(dir: &Path) -> (SystemTime, u64) {
    let (mut newest, mut bytes) = (SystemTime::UNIX_EPOCH, 0);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(data) = entry.metadata() else { continue };
        let (at, has) = if data.is_dir() { self::newest(&entry.path()) } else { (SystemTime::UNIX_EPOCH, data.len()) };
        newest = newest.max(data.modified().unwrap_or(newest)).max(at);
        bytes += has;
    }
    (newest, bytes)
}

/// From when to when files of snapshots changed, and how much there was after it.
fn writes(dir: &Path, stop: &AtomicBool) -> Vec<(Instant, Instant, u64)> {
    let mut last = newest(dir);
    let mut spans: Vec<(Instant, Instant, u64)> = Vec::new();
    while !stop.load(Ordering::Acquire) {
        std::thread::sleep(LOOK);
        let (is, now) = (newest(dir), Instant::now());
        if is != last {
            last = is;
            match spans.last_mut().filter(|(_, end, _)| now - *end < STILL) {
                Some(span) => (span.1, span.2) = (now, is.1),
                None => spans.push((now - LOOK, now, is.1)),
            }
        }
    }
    spans
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let of = |q: f64| times.get((times.len() as f64 * q) as usize).or(times.last()).copied().unwrap_or_default();
    let ms = |q| of(q).as_secs_f64() * 1000.0;
    format!("p50 {:.1} ms, p99 {:.1} ms, greatest {:.1} ms of {}", ms(0.5), ms(0.99), ms(1.0), times.len())
}

fn inventory(dir: &Path, records: usize) -> Result<PathBuf> {
    let file = dir.join("devices.ndjson");
    let network = Network::new(4, records, NOW);
    std::fs::write(&file, network.devices.iter().map(Device::armis).collect::<Vec<_>>().join("\n"))?;
    Ok(file)
}

async fn snapshots(measured: &Measured) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let records = crate::size("RADARFLOW_BENCH_RECORDS", 200_000);
    let file = inventory(dir.path(), records)?;
    let program = measured.start(dir.path(), "")?;
    let token = program.token.clone().context("a first start prints a token")?;
    let to = program.ports["traps"];
    let of_appends = Beside::start(move |stop| appends(to, stop));
    let watched = data(dir.path()).join("snapshots");
    let of_writes = Beside::start(move |stop| writes(&watched, stop));
    let began = Instant::now();
    program.import(&token, &file)?;
    let (_, loaded) = program.settle(&token, "in:devices stats:\"count() as n\"", records as u64).await?;
    // One more of all that changed since the last, and one that there is little for.
    for _ in 0..2 {
        let asked = reqwest::Client::new().post(format!("{}/api/snapshot", program.http)).bearer_auth(&token);
        asked.send().await?.error_for_status()?;
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    let (appends, writes) = (of_appends.end()??, of_writes.end()?);
    let within = |(sent, took): &&Append| writes.iter().any(|(from, to, _)| *sent <= *to && *sent + *took >= *from);
    let largest = writes.iter().map(|(.., bytes)| *bytes).max().unwrap_or(0);
    let took: Duration = writes.iter().map(|(from, to, _)| *to - *from).sum();
    crate::figure(
        &format!("{}snapshots of {records} records", measured.name),
        &format!(
            "{} written in {:.1} s, {} MiB on disk; loaded after {:.1} s",
            writes.len(),
            took.as_secs_f64(),
            largest >> 20,
            (loaded - began).as_secs_f64()
        ),
    )?;
    for (when, during) in [("while it is brought in", true), ("after it", false)] {
        let of_then = appends.iter().filter(|(sent, _)| (*sent < loaded) == during);
        let (with, without): (Vec<_>, Vec<_>) = of_then.partition(within);
        for (what, some) in [("beside a snapshot", with), ("without", without)] {
            let said = percentiles(some.iter().map(|(_, took)| *took).collect());
            crate::figure(&format!("{}appends {when}, {what}", measured.name), &said)?;
        }
    }
    Ok(())
}

/// How well the program does: when flows are visible, how late the lake is, how long answers and appends take.
async fn phase(what: &str, program: &Program, token: &str, changed: &Path) -> Result<()> {
    const COUNT: &str = "in:flows time:last_5m stats:\"count() as n\"";
    let [first, packet] = datagrams();
    let (to, traps) = (program.ports["netflow"], program.ports["traps"]);
    send(to, &[first], 1, 1e6)?;
    let before = program.count(token, COUNT).await?;
    let n = RATE * LOCKED.as_secs() as usize / FLOWS;
    let sending =
        tokio::task::spawn_blocking(move || send(to, &[packet], n, RATE as f64 / FLOWS as f64).map(|_| Instant::now()));
    let of_appends = Beside::start(move |stop| appends(traps, stop));
    let (mut answers, mut behind) = (Vec::new(), Vec::new());
    let mut turns = 0;
    while !sending.is_finished() {
        if turns % 20 == 0 {
            program.import(token, changed)?;
        }
        turns += 1;
        let asked = Instant::now();
        program.count(token, "in:devices type:router stats:\"count() as n\"").await?;
        answers.push(asked.elapsed());
        let epoch = program.metric("radarflow_dataflow_epoch").await?;
        behind.push(epoch.saturating_sub(program.metric("radarflow_lake_table_epoch{table=\"flows\"}").await?));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent = sending.await??;
    let goal = before + (n * FLOWS) as u64;
    let (count, at) = program.settle(token, COUNT, goal).await?;
    behind.sort_unstable();
    let appends = of_appends.end()??.into_iter().map(|(_, took)| took).collect();
    crate::figure(
        what,
        &format!(
            "{} of {} flows lost, all visible {:.2} s after the last was sent; lake {} epochs behind at the median, {} at most; answers {}; appends {}",
            goal.saturating_sub(count),
            n * FLOWS,
            at.saturating_duration_since(sent).as_secs_f64(),
            behind.get(behind.len() / 2).copied().unwrap_or(0),
            behind.last().copied().unwrap_or(0),
            percentiles(answers),
            percentiles(appends),
        ),
    )
}

async fn locked(measured: &Measured) -> Result<()> {
    let Ok(server) = std::env::var("RADARFLOW_TEST_POSTGRES") else {
        return crate::figure("locked database", "left out: RADARFLOW_TEST_POSTGRES names no server");
    };
    let dir = tempfile::tempdir()?;
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
    let which = if measured.name.is_empty() { "" } else { "_beside" };
    let name = format!("stalls{}{which}", std::process::id());
    admin.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
    let sink = format!("[sinks.postgres]\nurl = \"{server}/{name}\"\n");
    let program = measured.start(dir.path(), &sink)?;
    let token = program.token.clone().context("a first start prints a token")?;
    let file = inventory(dir.path(), 1000)?;
    phase(&format!("{}beside a database", measured.name), &program, &token, &file).await?;
    let mut reader = PgConnection::connect(&format!("{server}/{name}")).await?;
    let mut held = reader.begin().await?;
    held.execute("LOCK TABLE radarflow.ocsf_devices IN ACCESS EXCLUSIVE MODE").await?;
    phase(&format!("{}beside a locked database", measured.name), &program, &token, &file).await?;
    held.rollback().await?;
    drop(program);
    reader.close().await?;
    admin.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await?;
    Ok(())
}
