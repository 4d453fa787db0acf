//! The program from socket to committed lake: how much a second, how much lost; and its answers and restart after.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use radarflow_network::devices::{Device, Network};
use radarflow_network::packets::{self, FlowFields};

use crate::cases::program::{Measured, Program, now, send};

const NOW: i64 = 1_700_000_000;
/// Flows of a datagram.
pub(super) const FLOWS: usize = 30;
const COUNT_FLOWS: &str = "in:flows stats:\"count() as n\"";
const COUNT_LOGS: &str = "in:logs stats:\"count() as n\"";
/// Messages by each transport of syslog.
const LOGS: usize = 500_000;

pub(crate) fn run() -> Result<()> {
    for measured in Measured::all()? {
        tokio::runtime::Runtime::new()?.block_on(measure(&measured))?;
    }
    Ok(())
}

/// A datagram that has a template, and one that needs it.
pub(super) fn datagrams() -> [Vec<u8>; 2] {
    let mut network = Network::new(3, 10_000, NOW);
    let mut flow = || {
        let (src, dst) = network.talkers();
        FlowFields { src, dst, src_port: 443, dst_port: 50_000, bytes: 1500, packets: 3 }
    };
    let sample: Vec<FlowFields> = (0..FLOWS).map(|_| flow()).collect();
    [true, false].map(|with_template| packets::netflow_v9(&sample, 0, now(), with_template))
}

async fn measure(measured: &Measured) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let program = measured.start(dir.path(), "")?;
    let token = program.token.clone().context("a first start prints a token")?;
    let name = measured.name;
    flows(name, &program, &token).await?;
    syslog(name, &program, &token).await?;

    let file = dir.path().join("devices.ndjson");
    let records = crate::size("RADARFLOW_BENCH_RECORDS", 200_000);
    let inventory = Network::new(4, records, NOW);
    std::fs::write(&file, inventory.devices.iter().map(Device::armis).collect::<Vec<_>>().join("\n"))?;
    let started = Instant::now();
    program.import(&token, &file)?;
    let (count, at) = program.settle(&token, "in:devices stats:\"count() as n\"", records as u64).await?;
    crate::rate(&format!("{name}inventory, HTTP to answer, records"), count as usize, at.duration_since(started))?;
    answers(name, &program, &token).await?;
    let resident = program.resident_mib();
    drop(program);
    let started = Instant::now();
    drop(measured.start(dir.path(), "")?);
    let what = format!(
        "{:.2} s after kill -9 with {records} records ({resident:.0} MiB resident before)",
        started.elapsed().as_secs_f64()
    );
    crate::figure(&format!("{name}restart"), &what)
}

async fn flows(name: &str, program: &Program, token: &str) -> Result<()> {
    let flows = crate::size("RADARFLOW_BENCH_FLOWS", 2_000_000);
    let [first, packet] = datagrams();
    send(program.ports["netflow"], &[first], 1, 1e6)?;
    for rate in [60_000, 150_000] {
        let n = flows / FLOWS;
        let before = program.count(token, COUNT_FLOWS).await?;
        let (to, sent) = (program.ports["netflow"], [packet.clone()]);
        let started = Instant::now();
        let sent = tokio::task::spawn_blocking(move || send(to, &sent, n, f64::from(rate) / FLOWS as f64)).await??;
        let sent_flows = (n * FLOWS) as u64;
        let (count, at) = program.settle(token, COUNT_FLOWS, before + sent_flows).await?;
        let committed = program.committed("flows").await?;
        let got = count - before;
        let what = format!(
            "{:.0} /s offered, {:.0} /s until visible, {:.0} /s until committed, {} of {sent_flows} lost, {:.0} MiB resident",
            sent_flows as f64 / sent.as_secs_f64(),
            got as f64 / at.duration_since(started).as_secs_f64().max(0.001),
            got as f64 / committed.duration_since(started).as_secs_f64().max(0.001),
            sent_flows.saturating_sub(got),
            program.resident_mib()
        );
        crate::figure(&format!("{name}flows, socket to lake"), &what)?;
    }
    Ok(())
}

async fn syslog(name: &str, program: &Program, token: &str) -> Result<()> {
    let lines: Vec<Vec<u8>> = (0..1000).map(|i| packets::syslog(6, "host", &format!("session {i} opened"))).collect();
    let text: Vec<u8> = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
    let (by_udp, by_tcp) = (program.ports["syslog"], program.ports["syslog-tcp"]);
    let started = Instant::now();
    tokio::task::spawn_blocking(move || send(by_udp, &lines, LOGS, 50_000.0)).await??;
    let before = logs(&format!("{name}syslog UDP, socket to lake"), program, token, 0, started).await?;
    let started = Instant::now();
    tokio::task::spawn_blocking(move || -> Result<()> {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(by_tcp)?;
        for _ in 0..LOGS / 1000 {
            stream.write_all(&text)?;
        }
        Ok(())
    })
    .await??;
    logs(&format!("{name}syslog TCP, socket to lake"), program, token, before, started).await?;
    Ok(())
}

/// Waits for [`LOGS`] messages; tells how many there are.
async fn logs(what: &str, program: &Program, token: &str, before: u64, started: Instant) -> Result<u64> {
    let (count, at) = program.settle(token, COUNT_LOGS, before + LOGS as u64).await?;
    let committed = program.committed("logs").await?;
    let got = count - before;
    let per_second = |at: Instant| got as f64 / at.duration_since(started).as_secs_f64();
    let said = format!(
        "{:.0} /s until visible, {:.0} /s until committed, {} of {LOGS} lost",
        per_second(at),
        per_second(committed),
        (LOGS as u64).saturating_sub(got)
    );
    crate::figure(what, &said)?;
    Ok(count)
}

async fn answers(name: &str, program: &Program, token: &str) -> Result<()> {
    for (what, query) in [
        ("SRQL point query", "in:devices metadata.armis_device_id:4711 limit:1"),
        ("SRQL uid query", "in:devices hostname:server-4711 limit:1"),
        ("SRQL filter, sort, limit", "in:devices type:router ip:10.0.0.0/16 sort:last_seen:desc limit:50"),
        ("SRQL top talkers", "in:flows time:last_1h stats:\"sum(bytes_total) as b by src_endpoint_ip\" limit:10"),
    ] {
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..20 {
            let started = Instant::now();
            program.ask(token, query).await?;
            times.push(started.elapsed());
        }
        times.sort();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        let said = format!("p50 {:.1} ms, p95 {:.1} ms over HTTP", ms(times[10]), ms(times[18]));
        crate::figure(&format!("{name}{what}"), &said)?;
    }
    Ok(())
}
