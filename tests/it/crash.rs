//! Killed at random: nothing acknowledged is lost, nothing is doubled.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::server::{Home, Server, armis, notification};

/// Says it until it is acknowledged, as every sender does: a datagram may be lost, and an answer may come late.
fn inform(server: &Server, n: u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let acknowledged = (0..10).any(|_| {
        socket.send_to(&notification(true, 1, n), server.port("traps")).unwrap();
        socket.recv(&mut [0; 512]).is_ok()
    });
    assert!(acknowledged, "inform {n}");
}

/// What devices are, apart from when.
fn devices(rows: &[Value]) -> BTreeMap<String, String> {
    let essence = |r: &Value| format!("{} {} {}", r["ip_addresses"], r["hostname"], r["first_seen_time"]);
    rows.iter().map(|r| (r["uid"].as_str().unwrap().to_owned(), essence(r))).collect()
}

async fn workload(rng: &mut StdRng, home: &mut Home, kills: usize) -> (BTreeMap<String, String>, Vec<u16>) {
    let mut server = Some(home.start());
    let mut steps: Vec<bool> = (0..kills).map(|_| true).collect();
    steps.extend((0..20).map(|_| false));
    for i in (1..steps.len()).rev() {
        steps.swap(i, rng.random_range(0..=i));
    }
    let mut n = 0u16;
    for kill in steps {
        let running = server.take().unwrap();
        if kill {
            // Under way while it dies: it may or may not have made it, and is said again.
            let said = batch(n);
            let push = running.push("runner", "sync", &said);
            let _ = tokio::time::timeout(Duration::from_millis(rng.random_range(0..150)), push).await;
            running.kill();
            server = Some(home.start());
        } else {
            n += 1;
            running.push("runner", "sync", &batch(n)).await.unwrap();
            inform(&running, n);
            server = Some(running);
        }
    }
    let server = server.unwrap();
    let items = server.until("in:devices limit:1000", |r| r.len() == 20).await;
    let traps = server.until("in:traps limit:1000 fields:varbinds", |r| r.len() >= usize::from(n)).await;
    let mut seen: Vec<u16> =
        traps.iter().map(|t| t["varbinds"]["1.3.6.1.2.1.2.2.1.1.3"].as_str().unwrap().parse().unwrap()).collect();
    seen.sort_unstable();
    server.stop();
    (devices(&items), seen)
}

/// Step `n` moves two of twenty devices; all twenty are said at every step.
fn batch(n: u16) -> String {
    let ip = |i: u16| format!("10.0.{}.{}", (n + i) % 3, i % 7);
    let items: Vec<_> = (0..20).map(|i| armis(i.into(), &ip(i), if i % 10 == n % 10 { n.into() } else { 0 })).collect();
    format!("[{}]", items.join(","))
}

#[tokio::test]
async fn a_workload_killed_at_random_points_ends_as_an_undisturbed_one() {
    let mut kills = 0;
    for seed in 0..3u64 {
        eprintln!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let disturbed = workload(&mut rng, &mut Home::new(""), 10).await;
        kills += 10;
        let undisturbed = workload(&mut rng, &mut Home::new(""), 0).await;
        assert_eq!(disturbed.0, undisturbed.0, "seed {seed}");
        assert_eq!(disturbed.1, (1..=20).collect::<Vec<u16>>(), "each inform once, seed {seed}");
    }
    assert!(kills >= 30);
}

/// A NetFlow v5 message of one flow whose ports name it.
pub(crate) fn flow(n: u32) -> Vec<u8> {
    let mut m = [5u16, 1].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    m.extend([100_000u32, 1_704_067_200, 0, n].iter().flat_map(|n| n.to_be_bytes()));
    m.extend([0, 0, 0, 0]);
    m.extend([10, 0, 0, 1, 10, 0, 1, 1, 0, 0, 0, 0, 0, 1, 0, 2]);
    m.extend([5u32, 1000, 99_000, 99_900].iter().flat_map(|n| n.to_be_bytes()));
    m.extend(n.to_be_bytes());
    m.extend([0, 0x18, 6, 0, 0, 1, 0, 2, 24, 24, 0, 0]);
    m
}

#[tokio::test]
async fn killed_under_load_nothing_acknowledged_is_lost_and_nothing_is_doubled() {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    let url = crate::sinks::database().await;
    let mut home = Home::new(&format!("[sinks.postgres]\nurl = \"{url}\"\n"));
    let mut rng = StdRng::seed_from_u64(9);
    let (flows, lines) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut pushed = 0usize;
    for _ in 0..5 {
        let server = home.start();
        let stop = Arc::new(AtomicBool::new(false));
        let (netflow, syslog) = (server.port("netflow"), server.port("syslog-tcp"));
        let senders = [
            std::thread::spawn({
                let (stop, flows) = (stop.clone(), flows.clone());
                move || {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        for _ in 0..50 {
                            let _ = socket.send_to(&flow(flows.fetch_add(1, Ordering::Relaxed)), netflow);
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }),
            std::thread::spawn({
                let (stop, lines) = (stop.clone(), lines.clone());
                move || {
                    let mut stream = std::net::TcpStream::connect(syslog).unwrap();
                    while !stop.load(Ordering::Relaxed) {
                        let n = lines.fetch_add(1, Ordering::Relaxed);
                        if writeln!(stream, "<14>1 - h app - - - line {n}").is_err() {
                            return;
                        }
                    }
                }
            }),
        ];
        // Syncs of a hundred, so that some are large enough to be staged, until it is killed in the middle of one.
        let until = tokio::time::Instant::now() + Duration::from_millis(rng.random_range(1500..3500));
        loop {
            let size = if pushed.is_multiple_of(3) { 4000 } else { 100 };
            let items: Vec<_> = (pushed..pushed + size)
                .map(|i| armis(i, &format!("10.{}.{}.{}", i >> 16, i >> 8 & 255, i & 255), 1))
                .collect();
            let items = format!("[{}]", items.join(","));
            let push = server.push("runner", "sync", &items);
            match tokio::time::timeout_at(until, push).await {
                Ok(acknowledged) => {
                    acknowledged.unwrap();
                    pushed += size;
                }
                Err(_) => break,
            }
        }
        server.kill();
        stop.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|s| s.join().unwrap());
    }
    let server = home.start();
    let n = |rows: &[Value]| rows[0]["n"].as_u64().unwrap_or(0) as usize;
    // Uploads that were durable are read to their end, a share a frame.
    server.metric("radarflow_dataflow_staged_bytes 0").await;
    server.until("in:devices stats:\"count() as n\"", |r| n(r) >= pushed).await;
    server.metric("radarflow_dataflow_lag_epochs 0").await;
    let devices = n(&server.rows("in:devices stats:\"count() as n\"").await);
    // What was under way when it died may be there, whole or not at all.
    assert!(devices <= pushed + 5 * 4000, "{devices} of {pushed}");
    for entity in ["flows", "logs"] {
        let rows = server.rows(&format!("in:{entity} stats:\"count() as n, count_distinct(row_id) as ids\"")).await;
        assert_eq!(rows[0]["n"], rows[0]["ids"], "{entity}");
        let sent = if entity == "flows" { &flows } else { &lines }.load(Ordering::Relaxed);
        assert!(rows[0]["n"].as_u64().unwrap() <= u64::from(sent), "{entity}");
        assert!(rows[0]["n"].as_u64().unwrap() > 0, "{entity}");
    }
    let bodies = server.rows("in:logs stats:\"count() as n, count_distinct(body) as ids\"").await;
    assert_eq!(bodies[0]["n"], bodies[0]["ids"], "no line twice");
    // Postgres has the same devices and addresses; its frontier is past them.
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    crate::sinks::until("Postgres has every device", || async {
        let count: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM radarflow.ocsf_devices), (SELECT count(*) FROM radarflow.ip_ownership)",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        eprintln!("{devices} devices, of {pushed} acknowledged; Postgres has {count:?}");
        count == (devices as i64, devices as i64)
    })
    .await;
    let counts = (
        n(&server.rows("in:flows stats:\"count() as n\"").await),
        n(&server.rows("in:logs stats:\"count() as n\"").await),
    );
    server.stop();
    let lake =
        (crate::server::lake_count(&home.lake("flows")).await, crate::server::lake_count(&home.lake("logs")).await);
    assert_eq!(lake, counts);
    assert_eq!(crate::server::lake_count(&home.lake("devices_history")).await, devices, "each device has one version");
}
