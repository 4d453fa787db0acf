//! A live query over HTTP and on the command line.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::server::{Home, armis};

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
    // The server stops: its streams end, and it does not wait for their clients.
    server.stop();
    assert!(child.wait().await.unwrap().success());
    let wrong = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"))
        .args(["query", "in:devices", "--live", "--url", "http://127.0.0.1:9", "--token", "x"])
        .output();
    assert!(String::from_utf8_lossy(&wrong.await.unwrap().stderr).contains("cannot reach"));
}
