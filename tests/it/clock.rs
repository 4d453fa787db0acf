//! The ledger's clock and the wall's, while they disagree: an alert says so, and an administrator decides.

use serde_json::{Value, json};

use crate::server::Home;

const DAY_MS: i64 = 86_400_000;

#[tokio::test]
async fn a_wall_that_disagrees_with_the_boot_is_held_over_a_restart_until_it_is_accepted() {
    let mut home = Home::new("");
    let server = home.start();
    let accept = json!({"held_by_ms": -DAY_MS, "reason": "the wall is right"});
    let ask = async |server: &crate::server::Server| {
        server.ask(reqwest::Method::GET, "/api/clock", &server.token, &json!({})).await.1
    };
    let shown = ask(&server).await;
    assert_eq!((&shown["held"], &shown["held_by_ms"]), (&json!(false), &json!(0)));
    let (status, refused) = server.post("/api/clock/accept", &server.token, &accept).await;
    assert_eq!((status, &refused["code"]), (409, &json!("refused")));
    server.stop();

    // As if the machine had run for a day more: it has, and the wall was set back by one.
    let file = home.dir.path().join("data/clock");
    // Its checksum stands on a line of its own; what has none is of the first release, and read.
    let text = std::fs::read_to_string(&file).unwrap();
    let mut kept: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let monotonic = kept["follower"]["at"]["monotonic_ms"].as_i64().unwrap();
    kept["follower"]["at"]["monotonic_ms"] = json!(monotonic - DAY_MS);
    std::fs::write(&file, kept.to_string()).unwrap();
    let server = home.start();
    server.metric("radarflow_ledger_clock_held 1").await;
    let alerts = server.until("in:alerts rule:clock-step", |rows| rows.len() == 1).await;
    assert_eq!((&alerts[0]["severity"], &alerts[0]["status"]), (&json!("warning"), &json!("pending")));
    assert!(alerts[0]["description"].as_str().unwrap().contains("radarflow clock accept"), "{}", alerts[0]);
    let shown = ask(&server).await;
    assert!((shown["held_by_ms"].as_i64().unwrap() + DAY_MS).abs() < 60_000, "{shown}");
    // Not by those who only look, and not what was not looked at.
    let (_, viewer) = server.post("/api/tokens", &server.token, &json!({"name": "x", "role": "viewer"})).await;
    assert_eq!(server.post("/api/clock/accept", viewer["token"].as_str().unwrap(), &accept).await.0, 403);
    let other = json!({"held_by_ms": DAY_MS, "reason": ""});
    assert_eq!(server.post("/api/clock/accept", &server.token, &other).await.0, 409);
    let (status, done) = server.post("/api/clock/accept", &server.token, &accept).await;
    assert_eq!(status, 200, "{done}");
    server.metric("radarflow_ledger_clock_held 0").await;
    server.until("in:alerts rule:clock-step", |rows| rows[0]["status"] == "resolved").await;
    let audit = server.until("in:audit action:clock_accepted time:last_7d", |rows| rows.len() == 1).await;
    assert_eq!((&audit[0]["subject"], &audit[0]["reason"]), (&json!("clock"), &json!("the wall is right")));
    server.stop();
}
