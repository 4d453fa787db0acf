//! Who is told of alerts, as operators do it: the command line, receivers that are real sockets, and the real Alertmanager beside
//! ours on the same configuration and the same alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};

use crate::server::{Home, Server, notification};

/// What a listener was sent: path, headers, body.
type Sent = (String, HeaderMap, Bytes);

/// A receiver of whatever is sent to it.
#[derive(Clone)]
struct Listener {
    url: String,
    sent: Arc<Mutex<Vec<Sent>>>,
    answers: Arc<AtomicU16>,
}

impl Listener {
    async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let listener = Listener { url, sent: Arc::default(), answers: Arc::new(AtomicU16::new(200)) };
        let take = |State(this): State<Listener>, uri: Uri, headers: HeaderMap, body: Bytes| async move {
            this.sent.lock().unwrap().push((uri.path().to_owned(), headers, body));
            StatusCode::from_u16(this.answers.load(Ordering::Relaxed)).unwrap()
        };
        let app = axum::Router::new().fallback(take).with_state(listener.clone());
        tokio::spawn(async move { axum::serve(socket, app).await });
        listener
    }

    fn of(&self, path: &str) -> Vec<(HeaderMap, Bytes)> {
        let sent = self.sent.lock().unwrap();
        sent.iter().filter(|(at, ..)| at == path).map(|(_, headers, body)| (headers.clone(), body.clone())).collect()
    }

    /// Messages to a path, as JSON.
    fn messages(&self, path: &str) -> Vec<Value> {
        self.of(path).iter().map(|(_, body)| serde_json::from_slice(body).unwrap()).collect()
    }
}

async fn until(what: &str, right: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !right() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[track_caller]
fn said(server: &Server, args: &[&str]) -> String {
    let output = server.command(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let fits = text.lines().all(|line| line.chars().count() <= 80);
    assert!(fits || args[0] == "apply", "{args:?}: {text}");
    text.trim().to_owned()
}

fn link(server: &Server, down: bool, index: u16) {
    server.send("traps", &[notification(false, if down { 3 } else { 4 }, index)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_taken_silenced_suppressed_and_explained_by_the_command_line() {
    let hook = Listener::start().await;
    let mut home = Home::new(&format!(
        "[[receivers]]\nname = \"ops\"\nurl = \"{}/ops\"\nkind = \"alertmanager\"\ngroup_wait_ms = 0\n\
         group_interval_ms = 100\nsigning_key = \"hush\"\n",
        hook.url
    ));
    let server = home.start();
    link(&server, true, 1);
    until("it is told", || !hook.messages("/ops").is_empty()).await;
    let rows = server.until("in:alerts notification_count:>0", |rows| rows.len() == 1).await;
    let id = rows[0]["id"].as_str().unwrap().to_owned();
    // It is signed, says why it is sent, and its link leads somewhere.
    let (headers, body) = hook.of("/ops").remove(0);
    let key = hmac_of(b"hush", &body);
    assert_eq!(headers["radarflow-signature"], format!("sha256={key}"));
    assert_eq!(headers["radarflow-reason"], "new group");
    let generator = hook.messages("/ops")[0]["alerts"][0]["generatorURL"].as_str().unwrap().to_owned();
    let explained = reqwest::Client::new().get(generator).bearer_auth(&server.token).send().await.unwrap();
    assert_eq!(explained.status(), 200);
    let explained: Value = explained.json().await.unwrap();
    assert_eq!(explained["receivers"][0]["state"], "told");
    assert_eq!(explained["notifications"][0]["outcome"], "delivered");

    assert!(said(&server, &["alerts", "list"]).contains("Interface"));
    assert!(said(&server, &["alerts", "show", &id]).contains("notification_count"));
    assert_eq!(said(&server, &["alerts", "ack", &id, "--reason", "mine"]), id);
    let refused = server.command(&["alerts", "ack", &id]);
    assert!(refused.status.success(), "who acknowledges twice has what they want");
    said(&server, &["alerts", "comment", &id, "--reason", "looking at the cable"]);
    let text = said(&server, &["alerts", "explain", &id]);
    assert!(text.contains("acknowledged: it is not told again") && text.contains("looking at the"), "{text}");

    // Suppressed it is not over; its end is told.
    said(&server, &["alerts", "suppress", &id, "--for", "1h"]);
    let text = said(&server, &["alerts", "explain", &id]);
    assert!(text.contains("ops: held, suppressed by"), "{text}");
    link(&server, false, 1);
    until("its end is told", || hook.messages("/ops").iter().any(|m| m["status"] == "resolved")).await;
    assert!(hook.messages("/ops").iter().filter(|m| m["status"] == "resolved").count() == 1);

    // A silence, looked at before it is made, hides what begins after it.
    link(&server, true, 2);
    server.until("in:alerts status:pending", |rows| rows.len() == 1).await;
    let preview = said(&server, &["silence", "add", "if_index=2", "--comment", "new cable", "--preview"]);
    assert!(preview.starts_with("it would hide 1 alerts now"), "{preview}");
    said(&server, &["silence", "add", "if_index=~\"3|4\"", "--comment", "new cable", "--name", "cable"]);
    assert!(said(&server, &["silence", "list"]).contains("cable"));
    link(&server, true, 3);
    let held = server.until("in:alert_notifications state:held", |rows| rows.len() == 1).await;
    assert!(held[0]["reason"].as_str().unwrap().starts_with("silenced by cable"), "{held:?}");
    said(&server, &["silence", "expire", "cable"]);
    let third = |m: &Value| m["alerts"].to_string().contains(r#""if_index":"3""#);
    until("it is told after it", || hook.messages("/ops").iter().any(third)).await;

    // Many at once.
    let (status, all) = server
        .post("/api/v2/alerts/steps", &server.token, &json!({"step": "resolve", "filter": {"rule": "link-down"}}))
        .await;
    assert_eq!((status, all["done"].as_array().map(Vec::len)), (200, Some(3)), "{all}");
    let (status, wrong) =
        server.post("/api/v2/alerts/steps", &server.token, &json!({"step": "resolve", "ids": ["nobody"]})).await;
    assert_eq!((status, wrong["refused"]["nobody"].as_str()), (200, Some("there is no such alert")));
    server.stop();
}

/// HMAC-SHA256, in hex, by its definition.
fn hmac_of(key: &[u8], body: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let pad = |with: u8| -> Vec<u8> {
        let mut block = key.to_vec();
        block.resize(64, 0);
        block.iter().map(|byte| byte ^ with).collect()
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(body).finalize();
    hex::encode(Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_refuses_is_an_alert_and_gets_what_it_refused_when_somebody_asks() {
    let (hook, other) = (Listener::start().await, Listener::start().await);
    hook.answers.store(400, Ordering::Relaxed);
    let receiver = |name: &str, url: &str| {
        format!(
            "[[receivers]]\nname = \"{name}\"\nurl = \"{url}/x\"\nkind = \"slack\"\ngroup_wait_ms = 0\n\
             group_by = [\"alertname\"]\ngroup_interval_ms = 3600000\n"
        )
    };
    let mut home = Home::new(&(receiver("bad", &hook.url) + &receiver("good", &other.url)));
    let server = home.start();
    link(&server, true, 1);
    let failing = server.until("in:alerts rule:receiver-failing", |rows| rows.len() == 1).await;
    assert_eq!((failing[0]["source_id"].as_str(), failing[0]["status"].as_str()), (Some("bad"), Some("pending")));
    let told = |message: &Value| message.to_string().contains("receiver bad");
    until("the other is told", || other.messages("/x").iter().any(told)).await;
    // Of the link and of itself; what is lost is told again an hour later, so that there is no third.
    let letters = server.until("in:dead_letters receiver:bad", |rows| rows.len() == 2).await;
    assert!(letters[0]["reason"].as_str().unwrap().starts_with("400"), "{letters:?}");
    hook.answers.store(200, Ordering::Relaxed);
    let before = hook.of("/x").len();
    assert!(said(&server, &["receivers", "replay", "bad"]).contains("are sent to bad again"));
    server.count("dead_letters", 0).await;
    assert!(hook.of("/x").len() > before);
    let keys = |sent: Vec<(HeaderMap, Bytes)>| -> BTreeSet<String> {
        sent.iter().map(|(headers, _)| headers["idempotency-key"].to_str().unwrap().to_owned()).collect()
    };
    let sent = hook.of("/x");
    assert!(keys(sent[..before].to_vec()).is_subset(&keys(sent[before..].to_vec())), "under the same keys");
    server.until("in:alerts rule:receiver-failing", |rows| rows[0]["status"] == "resolved").await;
    server.stop();
}

struct Alertmanager(Child);

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tool(name: &str) -> String {
    let paths = std::env::var("PATH").unwrap_or_default();
    let known = paths.split(':').chain(["/usr/sbin", "/usr/bin"]).map(|dir| Path::new(dir).join(name));
    known.into_iter().find(|path| path.exists()).map_or(name.to_owned(), |path| path.display().to_string())
}

async fn alertmanager(dir: &Path, config: &str) -> (Alertmanager, String) {
    let file = dir.join("theirs.yml");
    std::fs::write(&file, config).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new(tool("prometheus-alertmanager"))
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", dir.join("am").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus-alertmanager; `deploy/services.sh install` brings it");
    let (alertmanager, url) = (Alertmanager(child), format!("http://127.0.0.1:{port}"));
    let end = Instant::now() + Duration::from_secs(20);
    while reqwest::get(format!("{url}/-/ready")).await.is_err() {
        assert!(Instant::now() < end, "alertmanager does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (alertmanager, url)
}

/// `BASE` is where messages go: another path for each of the two.
const CONFIG: &str = r#"
global:
  resolve_timeout: 10m
route:
  receiver: rest
  group_by: [alertname]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1h
  routes:
    - matchers: ['alertname="link-down"', 'if_index=~"[0-4]"']
      receiver: low
      continue: true
    - match_re:
        if_index: "4|5|6"
      receiver: middle
      group_by: ['...']
      routes:
        - matchers: [if_index="6"]
          receiver: 'null'
    - match:
        alertname: link-down
      receiver: links
      mute_time_intervals: [never]
      group_by: [alertname, ip]
    - receiver: muted
      matchers: [alertname!=""]
      mute_time_intervals: [always]
receivers:
  - name: rest
    webhook_configs: [{url: 'BASE/rest'}]
  - name: low
    webhook_configs: [{url: 'BASE/low'}]
  - name: middle
    webhook_configs: [{url: 'BASE/middle'}]
  - name: links
    webhook_configs: [{url: 'BASE/links'}]
  - name: muted
    webhook_configs: [{url: 'BASE/muted'}]
  - name: 'null'
inhibit_rules:
  - source_matchers: [if_index="1"]
    target_matchers: [if_index=~"7|8"]
    equal: [alertname, ip]
time_intervals:
  - name: always
    time_intervals: [{times: [{start_time: '00:00', end_time: '24:00'}]}]
  - name: never
    time_intervals: [{years: ['1999']}]
"#;

/// What a receiver was told in the end of each alert of each of its groups, by the interface the alert is about.
type Told = BTreeMap<(String, String), BTreeMap<String, String>>;

fn told(hook: &Listener, base: &str) -> Told {
    let mut told = Told::new();
    for (path, _, body) in hook.sent.lock().unwrap().iter() {
        if !path.starts_with(base) {
            continue;
        }
        let message: Value = serde_json::from_slice(body).unwrap();
        let of = |value: &Value| value.as_str().unwrap().to_owned();
        let group = told.entry((of(&message["receiver"]), of(&message["groupKey"]))).or_default();
        for alert in message["alerts"].as_array().unwrap() {
            group.insert(of(&alert["labels"]["if_index"]), of(&alert["status"]));
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alertmanagers_configuration_does_here_what_it_does_there() {
    let hook = Listener::start().await;
    let mut home = Home::new("");
    let (_theirs, url) = alertmanager(home.dir.path(), &CONFIG.replace("BASE", &format!("{}/theirs", hook.url))).await;
    let server = home.start();
    let ours = home.dir.path().join("ours.yml");
    std::fs::write(&ours, CONFIG.replace("BASE", &format!("{}/ours", hook.url))).unwrap();
    let converted = server.command(&["alertmanager", "convert", ours.to_str().unwrap()]);
    let remarks = String::from_utf8(converted.stderr).unwrap();
    assert!(remarks.contains("line 3: global: resolve_timeout has no meaning here"), "{remarks}");
    assert_eq!(remarks.lines().count(), 1, "{remarks}");
    let resources = home.dir.path().join("routing.yaml");
    std::fs::write(&resources, converted.stdout).unwrap();
    said(&server, &["apply", "-f", resources.to_str().unwrap(), "--owner", "alertmanager"]);

    // The same alerts to both.
    let client = reqwest::Client::new();
    let hand_over = async |burning: usize, over: usize| {
        let rows = server
            .until("in:alerts rule:link-down sort:triggered_at:asc", |rows| {
                let done = rows.iter().filter(|row| row["status"] == "resolved").count();
                (rows.len() - done, done) == (burning, over)
            })
            .await;
        let alerts: Vec<Value> = rows
            .iter()
            .map(|row| {
                let ends = row["resolved_at"].as_str().unwrap_or("2099-01-01T00:00:00Z");
                let (labels, annotations) = (&row["labels"], &row["annotations"]);
                json!({"labels": labels, "annotations": annotations, "startsAt": row["triggered_at"], "endsAt": ends})
            })
            .collect();
        let sent = client.post(format!("{url}/api/v2/alerts")).json(&alerts).send().await.unwrap();
        assert_eq!(sent.status(), 200, "{:?}", sent.text().await);
    };
    let same = async |what: &str, right: &dyn Fn(&Told) -> bool| {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let (ours, theirs) = (told(&hook, "/ours"), told(&hook, "/theirs"));
            if ours == theirs && right(&ours) {
                return ours;
            }
            assert!(Instant::now() < end, "{what}\nours: {ours:#?}\ntheirs: {theirs:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // The one that holds others back is first.
    link(&server, true, 1);
    hand_over(1, 0).await;
    same("the first is told", &|told| told.values().flatten().filter(|(_, status)| *status == "firing").count() == 2)
        .await;
    for index in 2..=9 {
        link(&server, true, index);
    }
    hand_over(9, 0).await;
    let all = same("all are told", &|told| told.values().map(BTreeMap::len).sum::<usize>() == 10).await;
    let receivers: BTreeSet<&str> = all.keys().map(|(receiver, _)| receiver.as_str()).collect();
    assert_eq!(receivers, BTreeSet::from(["links", "low", "middle"]));
    // What held others back is over: they are told.
    link(&server, false, 1);
    hand_over(8, 1).await;
    same("those held back are told", &|told| told.values().map(BTreeMap::len).sum::<usize>() == 12).await;
    for index in 2..=9 {
        link(&server, false, index);
    }
    hand_over(0, 9).await;
    let over = |told: &Told| told.values().flatten().all(|(_, status)| status == "resolved");
    same("all are told that it is over", &over).await;
    server.stop();
}
