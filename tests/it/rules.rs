//! Rules from the outside: stated by file, told of by webhook, tried on the past, refused with their place; after kill -9 they go on.

use std::process::Command;
use std::sync::{Arc, Mutex};

use chrono::Utc;
use serde_json::{Value, json};

use crate::server::{Home, Server, netbox};

/// A log line of now, as RFC 5424 has it.
fn line(severity: u8, text: &str) -> Vec<u8> {
    format!("<{}>1 {} web-1 app - - - {text}", 8 + severity, Utc::now().to_rfc3339()).into_bytes()
}

fn radarflow(server: &Server, args: &[&str]) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
    command.args(args).env("RADARFLOW_URL", &server.http).env("RADARFLOW_TOKEN", &server.token);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Those of a rule that are not over.
fn open(rows: &[Value]) -> usize {
    rows.iter().filter(|row| row["status"] != "resolved").count()
}

/// A receiver of webhooks: the titles that it was told burn, and are over.
async fn listener() -> (String, Arc<Mutex<Vec<(String, String)>>>) {
    let told: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let log = told.clone();
    let hook = axum::routing::post(move |body: String| async move {
        let message: Value = serde_json::from_str(&body).unwrap();
        for alert in message["alerts"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            log.lock().unwrap().push((text(&alert["annotations"]["summary"]), text(&alert["status"])));
        }
        "ok"
    });
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", socket.local_addr().unwrap());
    let app = axum::Router::new().route("/hook", hook);
    tokio::spawn(async move { axum::serve(socket, app).await });
    (url, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_stated_by_file_told_of_and_tried_on_the_past() {
    let (url, told) = listener().await;
    let receiver = "kind = \"alertmanager\"\ngroup_wait_ms = 0\ngroup_interval_ms = 100\n";
    let mut home = Home::new(&format!("[[receivers]]\nname = \"ops\"\nurl = \"{url}\"\n{receiver}"));
    let server = home.start();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rules = file(
        "rules.yaml",
        r#"
kind: rule
name: errors
query: >-
  in:logs severity_number:<=3 time:last_10s
  stats:"count() as n by source_ip" having:"n >= 3"
severity: critical
title: "{source_ip} logs {n} errors"
labels: [team=net]
---
kind: rule
name: edge
query: in:devices metadata.role:edge fields:display_name
title: "{display_name} is at the edge"
"#,
    );
    let (ok, _, said) = radarflow(&server, &["apply", "-f", &rules]);
    assert!(ok, "{said}");
    server.until("in:rules", |rows| rows.len() == 2).await;

    // Two lines are too few; the third tells, and a line that is not so bad does not count.
    server.send("syslog", &[line(3, "one"), line(2, "two"), line(6, "fine")]);
    server.count("logs", 3).await;
    assert_eq!(server.rows("in:alerts rule:errors").await.len(), 0);
    server.send("syslog", &[line(3, "three")]);
    let alert = server.until("in:alerts rule:errors", |rows| open(rows) == 1).await[0].clone();
    assert_eq!(alert["title"], "127.0.0.1 logs 3 errors");
    assert_eq!((&alert["severity"], &alert["labels"]["team"]), (&json!("critical"), &json!("net")));

    // State: what comes to be so, and what is no more.
    let edge = netbox("7", "10.0.0.7", "edge-7").replacen("\"metadata\":{", "\"metadata\":{\"role\":\"edge\",", 1);
    server.push("runner", "sync", &format!("[{edge}]")).await.unwrap();
    let alert = server.until("in:alerts rule:edge", |rows| open(rows) == 1).await[0].clone();
    assert_eq!(alert["title"], "edge-7 is at the edge");
    assert!(alert["device_uid"].is_string(), "{alert}");

    // Killed, it goes on where it was; the lines leave the span, and it is over. Both were told.
    server.kill();
    let server = home.start();
    assert_eq!(open(&server.rows("in:alerts rule:edge").await), 1);
    server.until("in:alerts rule:errors", |rows| rows.len() == 1 && open(rows) == 0).await;
    let title = "127.0.0.1 logs 3 errors".to_owned();
    let heard = |status: &str| told.lock().unwrap().contains(&(title.clone(), status.to_owned()));
    crate::sinks::until("both were told", || {
        let both = heard("firing") && heard("resolved");
        async move { both }
    })
    .await;

    // On the past the same rule says the same, and another says more.
    let (ok, shown, said) = radarflow(&server, &["rules", "test", &rules, "--since", "1h"]);
    assert!(ok && said.contains("edge: not tried") && said.contains("current state"), "{shown} {said}");
    assert!(shown.contains("errors: 1 alerts") && shown.contains("127.0.0.1 logs 3 errors"), "{shown}");
    let one =
        "kind: rule\nname: any\nquery: 'in:logs time:last_10s stats:\"count() as n by severity\" having:\"n >= 1\"'\n";
    let (ok, shown, said) = radarflow(&server, &["rules", "test", &file("one.yaml", one), "--since", "1h", "--json"]);
    assert!(ok, "{said}");
    let tried: Value = serde_json::from_str(&shown).unwrap();
    let tried = &tried[0]["tried"];
    assert_eq!((&tried["rows"], &tried["alerts"]), (&json!(4), &json!(3)), "{tried}");
    // Three groups that begin and end: each is told of alone, and its end.
    let ops = &tried["told"]["receivers"][0];
    assert_eq!((&ops["receiver"], &ops["alerts"]), (&json!("ops"), &json!(3)), "{tried}");
    let silence =
        "---\nkind: silence\nname: quiet\nmatchers: ['alertname=any']\nends_at: 2099-01-01T00:00:00Z\ncomment: x\n";
    let quiet = file("quiet.yaml", &format!("{one}{silence}"));
    let (ok, shown, said) = radarflow(&server, &["rules", "test", &quiet, "--since", "1h", "--json"]);
    assert!(ok, "{said}");
    let silenced: Value = serde_json::from_str(&shown).unwrap();
    let told_of = &silenced[0]["tried"]["told"];
    assert_eq!((&told_of["untold_in_all"], &told_of["messages"]), (&json!(3), &json!([])), "{told_of}");
    assert_eq!(told_of["untold"][0]["why"], "silenced by quiet of admin", "{told_of}");
    // The alerts that there were: what was told is what would have been told.
    let (ok, shown, said) =
        radarflow(&server, &["routing", "test", &quiet, "--since", "1h", "--without", "silences/quiet", "--json"]);
    assert!(ok, "{said}");
    let rehearsed: Value = serde_json::from_str(&shown).unwrap();
    let ops = &rehearsed["receivers"][0];
    assert!(ops["really"].as_u64() > Some(0) && ops["messages"].as_u64() > Some(0), "{rehearsed}");
    let labels: Vec<&str> =
        tried["found"].as_array().unwrap().iter().map(|f| f["labels"]["severity"].as_str().unwrap()).collect();
    assert!(labels.contains(&"error") && labels.contains(&"critical") && labels.contains(&"info"), "{labels:?}");

    // Without its rule nothing burns.
    let (ok, _, said) = radarflow(&server, &["delete", "rules", "edge"]);
    assert!(ok, "{said}");
    server.until("in:alerts rule:edge", |rows| open(rows) == 0).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_cannot_be_followed_is_refused_where_it_is_wrong() {
    let mut home = Home::new("");
    let server = home.start();
    let state = async |query: &str| {
        let body = json!({"data": {"type": "rules", "id": "r", "attributes": {"query": query}}});
        server.post("/api/v2/rules", &server.token, &body).await
    };
    for (query, why) in [
        ("in:logs severty:error time:last_5m stats:count() having:\"count>1\"", "line 1, column 9"),
        ("in:logs\n time:last_5m stats:count() having:\"m>1\"", "line 2, column"),
        ("in:alerts status:pending", "would speak of itself"),
        ("", "it must be said"),
    ] {
        let (status, said) = state(query).await;
        assert_eq!(status, 422, "{query}: {said}");
        let detail = said["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(why), "{query}: {detail}");
        let pointer = &said["errors"][0]["source"]["pointer"];
        assert_eq!(pointer, "/data/attributes/query", "{said}");
    }
    let test = |body: Value| {
        let server = &server;
        async move { server.post("/api/rules/test", &server.token, &body).await }
    };
    for (body, why) in [
        (json!({"rule": {"query": "in:logs time:last_5m stats:count()"}}), "say when it holds"),
        (json!({"rule": {"query": "in:devices type:x"}}), "current state"),
        (json!({"rule": {"query": "in:logs"}, "since": "soon"}), "no span of time"),
        (json!({"rule": {"query": "in:logs"}, "since": "400d"}), "92 days"),
        (json!({"rule": {"query": "in:logs", "severity": "bad"}}), "severity: it is one of"),
    ] {
        let (status, said) = test(body.clone()).await;
        assert!(status == 400 && said["detail"].as_str().unwrap().contains(why), "{body}: {said}");
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_other_systems_are_converted_and_what_is_not_is_told_of() {
    let mut home = Home::new("");
    let server = home.start();
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("stateful.yaml");
    let text = "- name: link-flaps\n  signal: trap\n  match: {trap_name: [linkDown, linkUp]}\n  group_by: [source_ip]\n  \
                threshold: 10\n- name: gone\n  match: {subject_prefix: x}\n";
    std::fs::write(&foreign, text).unwrap();
    let (ok, written, said) = radarflow(&server, &["rules", "convert", foreign.to_str().unwrap()]);
    assert!(ok && said.contains("stateful.yaml:6: gone: match.subject_prefix"), "{said}");
    let ours = dir.path().join("rules.yaml");
    std::fs::write(&ours, written).unwrap();
    let (ok, _, said) = radarflow(&server, &["apply", "-f", ours.to_str().unwrap()]);
    assert!(ok, "{said}");
    let rule = &server.rows("in:rules").await[0];
    assert_eq!(rule["name"], "link-flaps");
    let query = "in:traps trap_name:('linkDown','linkUp') time:last_600s stats:\"count() as n by source_ip\" having:\"n >= 10\"";
    assert_eq!(rule["query"], query);
    server.stop();
}
