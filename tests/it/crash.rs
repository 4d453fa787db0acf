//! Killed at random: nothing acknowledged is lost, nothing is doubled.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::server::{Home, Server, armis, notification};

fn inform(server: &Server, n: u16) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket.send_to(&notification(true, 1, n), server.port("traps")).unwrap();
    socket.recv(&mut [0; 512]).is_ok()
}

/// What devices are, apart from when.
fn devices(rows: &[Value]) -> BTreeMap<String, String> {
    let essence = |r: &Value| format!("{} {} {}", r["ip_addresses"], r["hostname"], r["first_seen_time"]);
    rows.iter().map(|r| (r["uid"].as_str().unwrap().to_owned(), essence(r))).collect()
}

async fn workload(rng: &mut StdRng, home: &mut Home, kills: usize) -> (BTreeMap<String, String>, Vec<u16>) {
    let mut server = Some(home.start());
    let mut acknowledged = Vec::new();
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
            if inform(&running, n) {
                acknowledged.push(n);
            }
            server = Some(running);
        }
    }
    let server = server.unwrap();
    let items = server.until("in:devices limit:1000", |r| r.len() == 20).await;
    let traps = server.until("in:traps limit:1000 fields:varbinds", |r| r.len() >= acknowledged.len()).await;
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
