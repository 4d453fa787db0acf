//! A live query over HTTP and on the command line.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::server::{Home, armis};

/// What a span of time leaves is read where it is by then, in memory or in the lake.
#[tokio::test]
async fn groups_of_a_span_empty_as_it_slides_past() {
    let mut home = Home::new("");
    let server = home.start();
    let query = r#"in:logs time:last_8s stats:"count() as n by severity" stream:true"#;
    let url = format!("{}/api/query/stream", server.http);
    let request = reqwest::Client::new().get(url).query(&[("q", query)]).bearer_auth(&server.token);
    let mut response = request.send().await.unwrap();
    let (mut text, mut rows, mut told) = (String::new(), BTreeMap::<String, i64>::new(), 0);
    let mut most = 0;
    let mut read = async |until: &mut dyn FnMut(&BTreeMap<String, i64>) -> bool| {
        while !until(&rows) {
            let chunk = tokio::time::timeout(Duration::from_secs(30), response.chunk()).await.expect("it goes on");
            text.push_str(std::str::from_utf8(&chunk.unwrap().expect("it goes on")).unwrap());
            while let Some(end) = text.find("\n\n") {
                let event: String = text.drain(..end + 2).collect();
                let data = event.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or("{}");
                let data: Value = serde_json::from_str(data).unwrap();
                for (key, sign) in [("added", 1), ("removed", -1)] {
                    for row in data[key].as_array().into_iter().flatten() {
                        *rows.entry(row["severity"].as_str().unwrap().to_owned()).or_default() +=
                            sign * row["n"].as_i64().unwrap();
                        told += 1;
                    }
                }
                rows.retain(|_, n| *n != 0);
                most = most.max(rows.values().sum());
            }
        }
    };
    for n in 0..40 {
        let priority = if n % 4 == 0 { 11 } else { 14 };
        server.send("syslog", &[format!("<{priority}>1 - host app - - - line {n}").into_bytes()]);
    }
    let whole = BTreeMap::from([("error".to_owned(), 10), ("info".to_owned(), 30)]);
    read(&mut |rows| *rows == whole).await;
    // Nothing more comes. All of it goes, by the clock alone.
    read(&mut BTreeMap::is_empty).await;
    assert!(most == 40 && told >= 4, "{most} {told}");
    assert_eq!(server.rows("in:logs time:last_1h stats:count()").await[0]["count"], 40);
    server.stop();
}

#[tokio::test]
async fn a_live_query_tells_what_comes_and_goes() {
    let mut home = Home::new("");
    let server = home.start();
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.1.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"));
    command.args(["query", "in:devices fields:hostname,ip", "--live"]).kill_on_drop(true).stdout(Stdio::piped());
    command.env("RADARFLOW_URL", &server.http).env("RADARFLOW_TOKEN", &server.token);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async |wanted: &str| loop {
        let line = lines.next_line().await.unwrap().expect("the stream goes on");
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == wanted {
            return event;
        }
    };
    let snapshot = next("snapshot").await;
    assert_eq!((&snapshot["rows"][0]["hostname"], &snapshot["last"]), (&"host-1".into(), &true.into()));
    // It moves; another comes.
    let items = format!("[{},{}]", armis(1, "10.1.0.9", 2), armis(2, "10.1.0.2", 2));
    server.push("runner", "sync", &items).await.unwrap();
    let change = next("change").await;
    let ips = |key: &str| {
        let mut ips: Vec<_> = change[key].as_array().unwrap().iter().map(|r| r["ip"].as_str().unwrap()).collect();
        ips.sort_unstable();
        ips
    };
    assert_eq!((ips("removed"), ips("added")), (vec!["10.1.0.1"], vec!["10.1.0.2", "10.1.0.9"]));
    assert!(next("frontier").await["epoch"].as_u64() >= change["epoch"].as_u64());
    // Who reads no further hears nothing of it.
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"));
    command.args(["query", "in:devices", "--live"]).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("RADARFLOW_URL", &server.http).env("RADARFLOW_TOKEN", &server.token);
    let mut left = command.spawn().unwrap();
    let mut first = BufReader::new(left.stdout.take().unwrap()).lines();
    assert!(first.next_line().await.unwrap().is_some());
    drop(first);
    let left = left.wait_with_output().await.unwrap();
    assert_eq!((left.status.code(), String::from_utf8_lossy(&left.stderr).as_ref()), (Some(0), ""));
    // The server stops: its streams end, and it does not wait for their clients.
    server.stop();
    assert!(child.wait().await.unwrap().success());
    let wrong = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"))
        .args(["query", "in:devices", "--live", "--url", "http://127.0.0.1:9", "--token", "x"])
        .output();
    assert!(String::from_utf8_lossy(&wrong.await.unwrap().stderr).contains("cannot reach"));
}
