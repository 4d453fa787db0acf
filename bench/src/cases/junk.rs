//! What one worthless identifier costs: very many records that share a MAC, or that are known by one address alone, beside
//! as many ordinary ones. What somebody else changes meanwhile must take no longer.

use std::time::{Duration, Instant};

use radarflow_dataflows::keyed::Restored;
use radarflow_dataflows::output::Merge;
use radarflow_dataflows::worker::{Start, Workers};

use super::identity::{NOW, Run, WORKERS, frames, resident_mib};

/// An Armis item: its number, address, MAC and second.
fn armis(n: usize, ip: &str, mac: &str, second: i64) -> String {
    format!(
        r#"{{"agent_id":"a","source":"armis","ip":"{ip}","mac":"{mac}","hostname":"h{n}","timestamp":{},
            "metadata":{{"armis_device_id":"{n}"}},"sync_meta":{{"sync_service_id":"armis-main"}}}}"#,
        NOW - 3600 + second
    )
}

/// An item without any identifier of its own.
fn nameless(n: usize, ip: &str, second: i64) -> String {
    format!(
        r#"{{"agent_id":"a","source":"unifi","ip":"{ip}","hostname":"h{n}","timestamp":{},"metadata":{{}},
            "sync_meta":{{"sync_service_id":"unifi-main"}}}}"#,
        NOW - 3600 + second
    )
}

fn own_ip(n: usize) -> String {
    std::net::Ipv4Addr::from(0x0a00_0001 + n as u32).to_string()
}

/// Loads items, then lets one of them change, and somebody who has nothing to do with them.
fn measure(what: &str, count: usize, item: impl Fn(usize, i64) -> String) -> anyhow::Result<()> {
    let (workers, outputs) = Workers::start(WORKERS, Start::default());
    let mut run = Run { workers, outputs, merge: Merge::new(WORKERS, &Restored::new()), epoch: 0 };
    run.feed(frames(&[armis(count + 1, "10.255.255.1", "0CEA15000001", 0)]));
    let before = resident_mib();
    let items: Vec<String> = (0..count).map(|n| item(n, 0)).collect();
    let (changes, loaded) = run.feed(frames(&items));
    let bytes = (resident_mib() - before) * 1024.0 * 1024.0 / count as f64;
    drop(items);
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1000.0
    };
    let mut others: Vec<Duration> = (0..20)
        .map(|i| run.feed(frames(&[armis(count + 1, &format!("10.255.255.{}", 2 + i), "0CEA15000001", 1 + i)])).1)
        .collect();
    let mut own: Vec<Duration> = (0..5).map(|i| run.feed(frames(&[item(7 + i as usize, 10 + i)])).1).collect();
    crate::figure(
        &format!("identity, {count} records {what}"),
        &format!(
            "{:.0} records/s, {bytes:.0} bytes a record, {changes} row changes; one change of somebody else {:.1} ms, of \
             one of them {:.1} ms",
            count as f64 / loaded.as_secs_f64(),
            median(&mut others),
            median(&mut own),
        ),
    )?;
    let stopping = Instant::now();
    run.workers.stop();
    anyhow::ensure!(stopping.elapsed() < Duration::from_secs(60), "the workers do not end");
    Ok(())
}

pub(crate) fn run() -> anyhow::Result<()> {
    let records = crate::size("RADARFLOW_BENCH_RECORDS", 200_000);
    measure("with nothing in common", records, |n, second| armis(n, &own_ip(n), &format!("0CEA14{n:06X}"), second))?;
    measure("with one MAC", records, |n, second| armis(n, &own_ip(n), "0CEA14FFFFFF", second))?;
    measure("with one address", records, |n, second| armis(n, "10.9.9.9", &format!("0CEA14{n:06X}"), second))?;
    measure("known by one address alone", records, |n, second| nameless(n, "10.9.9.9", second))
}
