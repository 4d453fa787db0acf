//! The program from socket to committed lake: how much a second, how much lost; and its answers and restart after.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use radarflow_network::devices::{Device, Network};
use radarflow_network::packets::{self, FlowFields};
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;
const FLOWS: usize = 30;

struct Program {
    child: Child,
    http: String,
    ports: std::collections::HashMap<String, SocketAddr>,
    token: Option<String>,
}

impl Program {
    fn start(dir: &std::path::Path) -> Result<Program> {
        let config = dir.join("radarflow.toml");
        let listeners =
            ["netflow", "sflow", "syslog", "traps", "grpc"].map(|l| format!("[[{l}]]\naddr = \"127.0.0.1:0\"\n"));
        std::fs::write(&config, format!("{}[http]\naddr = \"127.0.0.1:0\"\n", listeners.concat()))?;
        let program = std::env::current_exe()?.with_file_name("radarflow");
        let child = Command::new(program)
            .args(["serve", "--workers", "2", "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(dir.join("data"))
            .stdout(Stdio::piped())
            .spawn()
            .context("the radarflow program must lie beside this one")?;
        let mut started = Program { http: String::new(), ports: Default::default(), token: None, child };
        let stdout = started.child.stdout.take().context("piped")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some((name, addr)) = line.strip_prefix("listening: ").and_then(|l| l.split_once(' ')) {
                started.ports.insert(name.to_owned(), addr.parse()?);
            } else if let Some(token) = line.strip_prefix("admin token: ") {
                started.token = Some(token.to_owned());
            } else if let Some(http) = line.strip_prefix("ready: ") {
                started.http = http.to_owned();
                break;
            }
        }
        Ok(started)
    }

    async fn ask(&self, token: &str, query: &str) -> Result<Value> {
        let request = reqwest::Client::new()
            .post(format!("{}/api/query", self.http))
            .bearer_auth(token)
            .json(&json!({"query": query}));
        Ok(request.send().await?.json().await?)
    }

    /// Waits until the lake has committed what comes no more: until the count stands still; tells it.
    async fn settle(&self, token: &str, query: &str, goal: u64) -> Result<(u64, Instant)> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let n = self.ask(token, query).await?["results"][0]["n"].as_u64().unwrap_or(0);
            if n != last {
                (last, since) = (n, Instant::now());
            }
            if n >= goal || since.elapsed() > Duration::from_secs(10) {
                return Ok((last, since));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a table of the lake has committed every epoch that is complete now.
    async fn committed(&self, table: &str) -> Result<Instant> {
        let goal = self.metric("radarflow_dataflow_epoch").await?;
        while self.metric(&format!("radarflow_lake_table_epoch{{table=\"{table}\"}}")).await? < goal {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Instant::now())
    }

    async fn metric(&self, name: &str) -> Result<u64> {
        let text = reqwest::get(format!("{}/metrics", self.http)).await?.text().await?;
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok());
        line.with_context(|| format!("no metric {name}"))
    }

    fn resident_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run() -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

/// Sends at a steady rate, datagrams a second.
fn send(to: SocketAddr, datagrams: &[Vec<u8>], n: usize, rate: f64) -> Result<Duration> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let started = Instant::now();
    for i in 0..n {
        let due = Duration::from_secs_f64(i as f64 / rate);
        while started.elapsed() < due {
            std::thread::sleep(due.saturating_sub(started.elapsed()).min(Duration::from_millis(1)));
        }
        socket.send_to(&datagrams[i % datagrams.len()], to)?;
    }
    Ok(started.elapsed())
}

async fn measure() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let program = Program::start(dir.path())?;
    let token = program.token.clone().context("a first start prints a token")?;
    let mut network = Network::new(3, 10_000, NOW);

    let flows = crate::size("RADARFLOW_BENCH_FLOWS", 2_000_000);
    let mut sample: Vec<FlowFields> = Vec::new();
    for _ in 0..FLOWS {
        let (src, dst) = network.talkers();
        sample.push(FlowFields { src, dst, src_port: 443, dst_port: 50_000, bytes: 1500, packets: 3 });
    }
    send(program.ports["netflow"], &[packets::netflow_v9(&sample, 0, now(), true)], 1, 1e6)?;
    let packet = [packets::netflow_v9(&sample, 0, now(), false)];
    for rate in [60_000, 150_000] {
        let n = flows / FLOWS;
        let before =
            program.ask(&token, "in:flows stats:\"count() as n\"").await?["results"][0]["n"].as_u64().unwrap_or(0);
        let to = program.ports["netflow"];
        let sent_packet = packet.clone();
        let started = Instant::now();
        let sent = tokio::task::spawn_blocking(move || send(to, &sent_packet, n, rate as f64 / FLOWS as f64)).await??;
        let goal = before + (n * FLOWS) as u64;
        let (count, at) = program.settle(&token, "in:flows stats:\"count() as n\"", goal).await?;
        let committed = program.committed("flows").await?;
        let got = count - before;
        let lost = (n * FLOWS) as u64 - got.min((n * FLOWS) as u64);
        let offered = (n * FLOWS) as f64 / sent.as_secs_f64();
        let what = format!(
            "{:.0} /s offered, {:.0} /s until visible, {:.0} /s until committed, {lost} of {} lost, {:.0} MiB resident",
            offered,
            got as f64 / at.duration_since(started).as_secs_f64().max(0.001),
            got as f64 / committed.duration_since(started).as_secs_f64().max(0.001),
            n * FLOWS,
            program.resident_mib()
        );
        crate::figure("flows, socket to lake", &what)?;
    }
    let lines: Vec<Vec<u8>> = (0..1000).map(|i| packets::syslog(6, "host", &format!("session {i} opened"))).collect();
    let (n, to) = (500_000, program.ports["syslog"]);
    let started = Instant::now();
    tokio::task::spawn_blocking(move || send(to, &lines, n, 50_000.0)).await??;
    let (count, at) = program.settle(&token, "in:logs stats:\"count() as n\"", n as u64).await?;
    let committed = program.committed("logs").await?;
    let per_second = |at: Instant, count: u64| count as f64 / at.duration_since(started).as_secs_f64();
    crate::figure(
        "syslog UDP, socket to lake",
        &format!(
            "{:.0} /s until visible, {:.0} /s until committed, {} of {n} lost",
            per_second(at, count),
            per_second(committed, count),
            n as u64 - count
        ),
    )?;

    let text: Vec<u8> = (0..1000)
        .flat_map(|i| [packets::syslog(6, "host", &format!("session {i} opened")), vec![b'\n']].concat())
        .collect();
    let to = program.ports["syslog-tcp"];
    let started = Instant::now();
    tokio::task::spawn_blocking(move || -> Result<()> {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(to)?;
        for _ in 0..n / 1000 {
            stream.write_all(&text)?;
        }
        Ok(())
    })
    .await??;
    let (both, at) = program.settle(&token, "in:logs stats:\"count() as n\"", count + n as u64).await?;
    let got = both - count;
    let committed = program.committed("logs").await?;
    let per_second = |at: Instant| got as f64 / at.duration_since(started).as_secs_f64();
    crate::figure(
        "syslog TCP, socket to lake",
        &format!(
            "{:.0} /s until visible, {:.0} /s until committed, {} of {n} lost",
            per_second(at),
            per_second(committed),
            n as u64 - got
        ),
    )?;

    let file = dir.path().join("devices.ndjson");
    let records = crate::size("RADARFLOW_BENCH_RECORDS", 200_000);
    let inventory = Network::new(4, records, NOW);
    std::fs::write(&file, inventory.devices.iter().map(Device::armis).collect::<Vec<_>>().join("\n"))?;
    let started = Instant::now();
    let imported = Command::new(std::env::current_exe()?.with_file_name("radarflow"))
        .args(["import", "--source", "armis/main", "--token", &token, "--url"])
        .arg(&program.http)
        .arg(&file)
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(imported.success());
    let (count, at) = program.settle(&token, "in:devices stats:\"count() as n\"", records as u64).await?;
    crate::rate("inventory, HTTP to answer, records", count as usize, at.duration_since(started))?;
    for (what, query) in [
        ("SRQL point query", "in:devices metadata.armis_device_id:4711 limit:1"),
        ("SRQL uid query", "in:devices hostname:server-4711 limit:1"),
        ("SRQL filter, sort, limit", "in:devices type:router ip:10.0.0.0/16 sort:last_seen:desc limit:50"),
        ("SRQL top talkers", "in:flows time:last_1h stats:\"sum(bytes_total) as b by src_endpoint_ip\" limit:10"),
    ] {
        let mut times = Vec::new();
        for _ in 0..20 {
            let started = Instant::now();
            program.ask(&token, query).await?;
            times.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        times.sort_by(f64::total_cmp);
        crate::figure(what, &format!("p50 {:.1} ms, p95 {:.1} ms over HTTP", times[10], times[18]))?;
    }
    let resident = program.resident_mib();
    drop(program);
    let started = Instant::now();
    let program = Program::start(dir.path())?;
    let what = format!(
        "{:.2} s after kill -9 with {records} records ({resident:.0} MiB resident before)",
        started.elapsed().as_secs_f64()
    );
    crate::figure("restart", &what)?;
    drop(program);
    Ok(())
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(NOW, |d| d.as_secs() as i64)
}
