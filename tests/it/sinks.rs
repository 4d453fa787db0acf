//! Postgres as it is read by others, and webhooks as they arrive, also when we die in between.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::Row;

use crate::server::{Home, armis, lake_count};

/// A database of its own on the test services' Postgres.
pub(crate) async fn database() -> String {
    let base =
        std::env::var("RADARFLOW_TEST_POSTGRES").expect("run deploy/test.sh, or eval \"$(deploy/services.sh up)\"");
    let name = format!("t{}", rand::random::<u64>());
    let admin = sqlx::PgPool::connect(&format!("{base}/postgres")).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&admin).await.unwrap();
    format!("{base}/{name}")
}

pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut right: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(30);
    while !right().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn devices(pool: &sqlx::PgPool) -> Vec<(String, Option<String>)> {
    let rows = sqlx::query("SELECT uid, ip FROM radarflow.ocsf_devices ORDER BY uid")
        .fetch_all(pool)
        .await
        .unwrap_or_default();
    rows.into_iter().map(|r| (r.get(0), r.get(1))).collect()
}

#[tokio::test]
async fn postgres_follows_exactly_and_is_repaired_when_it_is_new() {
    let url = database().await;
    let with = |url: &str| format!("[sinks.postgres]\nurl = \"{url}\"\n");
    let mut home = Home::new(&with(&url));
    let server = home.start();
    let items = |second: i64, n: usize| {
        format!(
            "[{}]",
            (0..n).map(|i| armis(i, &format!("10.0.0.{}", i + second as usize), second)).collect::<Vec<_>>().join(",")
        )
    };
    server.push("r", "sync", &items(1, 20)).await.unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    until("twenty devices", || async { devices(&pool).await.len() == 20 }).await;
    server.kill();
    let server = home.start();
    server.push("r", "sync", &items(5, 20)).await.unwrap();
    let answer =
        server.until("in:devices limit:100", |r| r.iter().filter(|d| d["ip"] == "10.0.0.24").count() == 1).await;
    let mut expected: Vec<(String, Option<String>)> =
        answer.iter().map(|r| (r["uid"].as_str().unwrap().to_owned(), r["ip"].as_str().map(str::to_owned))).collect();
    expected.sort();
    until("the moves", || async { devices(&pool).await == expected }).await;

    // Readers see their tenant or nothing.
    for sql in [
        "CREATE ROLE reader_x LOGIN",
        "GRANT USAGE ON SCHEMA radarflow TO reader_x",
        "GRANT SELECT ON ALL TABLES IN SCHEMA radarflow TO reader_x",
        "REVOKE ALL ON radarflow.reader_tenants FROM reader_x",
    ] {
        // The role is the cluster's: another run may have made it.
        let _ = sqlx::query(sql).execute(&pool).await;
    }
    let reader = sqlx::PgPool::connect(&url.replace("postgres@", "reader_x@")).await.unwrap();
    assert_eq!(devices(&reader).await.len(), 0);
    sqlx::query("INSERT INTO radarflow.reader_tenants VALUES ('reader_x', 'default')").execute(&pool).await.unwrap();
    assert_eq!(devices(&reader).await.len(), 20);
    sqlx::query("UPDATE radarflow.reader_tenants SET tenant_id = 'other'").execute(&pool).await.unwrap();
    assert_eq!(devices(&reader).await.len(), 0);
    server.stop();

    // Another, empty database is filled from what is known.
    let fresh = database().await;
    home.config = home.config.replace(&url, &fresh);
    let server = home.start();
    let pool = sqlx::PgPool::connect(&fresh).await.unwrap();
    until("the new database is filled", || async { devices(&pool).await == expected }).await;
    server.stop();
}

/// Alertmanager's webhook message, version 4, as its documentation has it: nothing more, nothing less, nothing of
/// another type.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code)]
struct WebhookMessage {
    version: String,
    group_key: String,
    truncated_alerts: u64,
    status: Status,
    receiver: String,
    group_labels: BTreeMap<String, String>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    external_url: String,
    alerts: Vec<WebhookAlert>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(dead_code)]
struct WebhookAlert {
    status: Status,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    fingerprint: String,
}

#[derive(serde::Deserialize, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

#[tokio::test]
async fn firing_and_resolved_both_arrive_also_with_a_kill_between() {
    let received: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let log = received.clone();
    let app = axum::Router::new().route(
        "/hook",
        axum::routing::post(move |headers: axum::http::HeaderMap, body: String| async move {
            let key = headers["idempotency-key"].to_str().unwrap().to_owned();
            log.lock().unwrap().push((key, serde_json::from_str(&body).unwrap()));
            "ok"
        }),
    );
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", socket.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(socket, app).await });
    let mut home = Home::new(&format!(
        "[[receivers]]\nname = \"ops\"\nurl = \"{url}\"\nkind = \"alertmanager\"\ngroup_wait_ms = 0\ngroup_interval_ms = 200\n"
    ));
    let server = home.start();
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let sweep = |up: bool| format!(r#"{{"hosts":[{{"host":"10.0.0.1","available":{up},"last_seen":{}}}]}}"#, now());
    server.push("v", "sweep", &sweep(true)).await.unwrap();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        server.push("v", "sweep", &sweep(false)).await.unwrap();
    }
    let arrived = |status: &str| {
        let status = status.to_owned();
        let received = received.clone();
        move || {
            let there = received.lock().unwrap().iter().any(|(_, p)| p["status"] == status.as_str());
            async move { there }
        }
    };
    until("firing arrives", arrived("firing")).await;
    server.kill();
    let server = home.start();
    server.push("v", "sweep", &sweep(true)).await.unwrap();
    until("resolved arrives", arrived("resolved")).await;
    let messages = received.lock().unwrap().clone();
    for (_, payload) in &messages {
        let message: WebhookMessage =
            serde_json::from_value(payload.clone()).unwrap_or_else(|e| panic!("{e}: {payload}"));
        assert!(!message.alerts.is_empty() && message.alerts.iter().all(|a| a.fingerprint.len() == 16), "{payload}");
    }
    let firing: Vec<_> = messages.iter().filter(|(_, p)| p["status"] == "firing").collect();
    assert!(firing.iter().all(|(key, _)| *key == firing[0].0), "a duplicate bears the same key: {firing:?}");
    assert!(firing.len() <= 2);
    let payload = &firing[0].1;
    assert_eq!((payload["version"].as_str(), payload["receiver"].as_str()), (Some("4"), Some("ops")));
    assert_eq!(payload["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
    let alert = &server.rows("in:alerts rule:device-offline").await[0];
    assert_eq!((alert["status"].as_str(), alert["resolved_by"].as_str()), (Some("resolved"), Some("system")));
    let refused = server
        .post(
            &format!("/api/alerts/{}/acknowledge", alert["id"].as_str().unwrap()),
            &server.token,
            &serde_json::json!({}),
        )
        .await;
    assert_eq!(refused.0, 409);
    assert!(refused.1["detail"].as_str().unwrap().contains("allowed: pending"));
    server.stop();
}

#[tokio::test]
async fn a_sink_that_is_down_holds_no_other_and_misses_nothing() {
    let url = database().await;
    let mut home = Home::new(&format!("[sinks.postgres]\nurl = \"{url}\"\n"));
    let server = home.start();
    let lines = |from: usize| {
        (from..from + 50).map(|i| format!("<14>Jan  1 00:00:00 h app: line {i}").into_bytes()).collect::<Vec<_>>()
    };
    server.send("syslog", &lines(0));
    server.count("logs", 50).await;
    // The lake's log of commits is no folder any more.
    let log = home.lake("logs").join("_delta_log");
    let aside = home.lake("logs").join("aside");
    std::fs::rename(&log, &aside).unwrap();
    std::fs::write(&log, b"in the way").unwrap();
    server.send("syslog", &lines(100));
    server.metric("radarflow_sink_up{sink=\"lake\"} 0").await;
    // Answers and Postgres go on.
    server.count("logs", 100).await;
    server.push("r", "sync", &format!("[{}]", armis(1, "10.0.0.1", 1))).await.unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    until("Postgres has the device", || async { devices(&pool).await.len() == 1 }).await;
    std::fs::remove_file(&log).unwrap();
    std::fs::rename(&aside, &log).unwrap();
    server.metric("radarflow_sink_up{sink=\"lake\"} 1").await;
    server.count("logs", 100).await;
    server.stop();
    assert_eq!(crate::server::lake_count(&home.lake("logs")).await, 100);
}

#[tokio::test]
async fn a_lake_that_an_older_version_made_is_grown() {
    let mut home = Home::new("");
    home.start().stop();
    // The table as it was before a column was declared.
    let log = home.lake("devices_history").join("_delta_log/00000000000000000000.json");
    let lines = std::fs::read_to_string(&log).unwrap();
    let older = |line: &str| {
        let mut action: Value = serde_json::from_str(line).unwrap();
        if let Some(schema) = action.pointer_mut("/metaData/schemaString") {
            let mut fields: Value = serde_json::from_str(schema.as_str().unwrap()).unwrap();
            fields["fields"].as_array_mut().unwrap().retain(|f| f["name"] != "enriched_by");
            *schema = fields.to_string().into();
        }
        action.to_string()
    };
    let older: Vec<String> = lines.lines().map(older).collect();
    let named = |text: &str| text.matches("enriched_by").count();
    assert!(named(&older.concat()) < named(&lines), "the schema is the older one");
    std::fs::write(&log, older.join("\n")).unwrap();

    let server = home.start();
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.1.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;
    server.stop();
    let path = home.lake("devices_history");
    assert_eq!(lake_count(&path).await, 1);
    let url = deltalake::table::builder::ensure_table_uri(path.to_string_lossy()).unwrap();
    let table = deltalake::DeltaTable::try_from_url(url).await.unwrap();
    let context = datafusion::prelude::SessionContext::new();
    let rows = context.read_table(radarflow_lake::files(&table).unwrap()).unwrap();
    let rows = rows.select_columns(&["hostname", "enriched_by", "gone"]).unwrap().collect().await.unwrap();
    assert_eq!(rows.iter().map(arrow_array::RecordBatch::num_rows).sum::<usize>(), 1);
    // And again, with nothing to add.
    home.start().stop();
    assert_eq!(lake_count(&path).await, 1);
}
