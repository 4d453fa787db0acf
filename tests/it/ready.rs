//! From its first moment to its last the process says whether it lives and whether it is ready.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use radarflow_connectors::ledger::segments::Segments;
use radarflow_proto::frame::{Entry, Frame, Kind, Origin, Slice};
use serde_json::Value;

use crate::server::Home;

const FRAMES: u64 = 120;
const LINES: usize = 500;

/// A ledger that takes a while to be read again.
fn fill(path: &std::path::Path) {
    let mut log = Segments::open(radarflow_connectors::disk::os(), path, 0).unwrap();
    for epoch in 1..=FRAMES {
        let line = |n: usize| Entry {
            peer: "127.0.0.1:9".parse().ok(),
            received_us: 1_700_000_000_000_000 + n as i64,
            body: format!("<14>1 - host app - - - line {n}").into_bytes().into(),
        };
        let (tenant, partition, feed) = ("default".to_owned(), "default".to_owned(), "syslog:a".to_owned());
        let slice = Slice {
            origin: Origin { kind: Kind::Syslog, tenant, partition, feed },
            first_position: 0,
            entries: (0..LINES).map(line).collect(),
        };
        let frame = Frame {
            generation: log.generation(),
            epoch,
            clock_ms: 1_700_000_000_000 + epoch as i64 * 100,
            gap_ms: 0,
            release_bytes: 0,
            ranges: vec![],
            slices: vec![slice],
        };
        log.append(&frame).unwrap();
    }
}

/// What is said at a path, and how soon; nothing where nobody listens.
async fn ask(client: &reqwest::Client, url: &str, path: &str) -> Option<(u16, bool, String)> {
    let asked = Instant::now();
    let response = client.get(format!("{url}{path}")).send().await.ok()?;
    let (status, again) = (response.status().as_u16(), response.headers().contains_key("retry-after"));
    let said = response.text().await.ok()?;
    assert!(asked.elapsed() < Duration::from_secs(5), "{path} took {:?}", asked.elapsed());
    Some((status, again, said))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_how_far_it_is_while_it_starts_and_that_it_stops() {
    let mut home = Home::new("");
    fill(&home.dir.path().join("data/ledger"));
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    home.config = home.config.replace("[http]\naddr = \"127.0.0.1:0\"", &format!("[http]\naddr = \"{addr}\""));
    let (url, client) = (format!("http://{addr}"), reqwest::Client::new());
    let is_up = Arc::new(AtomicBool::new(false));
    let starting = {
        let is_up = is_up.clone();
        tokio::task::spawn_blocking(move || {
            let server = home.start();
            is_up.store(true, Ordering::Release);
            (home, server)
        })
    };
    let (mut reasons, mut refused) = (Vec::<String>::new(), 0);
    while !is_up.load(Ordering::Acquire) {
        let Some((status, _, said)) = ask(&client, &url, "/healthz").await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        assert_eq!((status, said.as_str()), (200, "ok\n"));
        assert_eq!(ask(&client, &url, "/metrics").await.unwrap().0, 200);
        if let Some((503, again, said)) = ask(&client, &url, "/readyz").await {
            let problem: Value = serde_json::from_str(&said).unwrap();
            assert!(again && problem["code"] == "not_ready", "{said}");
            reasons.push(problem["detail"].as_str().unwrap().to_owned());
        }
        if let Some((503, again, said)) = ask(&client, &url, "/api/catalog").await {
            assert!(again && said.contains("not_ready"), "{said}");
            refused += 1;
        }
    }
    let (_home, server) = starting.await.unwrap();
    let replaying = |why: &String| why.starts_with("replaying epoch ") && why.ends_with(&format!(" of {FRAMES}"));
    assert!(reasons.iter().any(replaying) && refused > 0, "{reasons:?}");
    assert_eq!(ask(&client, &url, "/readyz").await.unwrap(), (200, false, "ready\n".to_owned()));
    assert_eq!(ask(&client, &url, "/api/catalog").await.unwrap().0, 401);

    let stopping = tokio::task::spawn_blocking(move || server.stop());
    let mut stops = 0;
    while !stopping.is_finished() {
        match ask(&client, &url, "/readyz").await {
            Some((503, _, said)) => {
                assert!(said.contains("stopping"), "{said}");
                stops += 1;
            }
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
    stopping.await.unwrap();
    assert!(stops > 0, "it was not heard to stop");
}
