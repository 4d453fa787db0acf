//! Operators link identifiers, take links back, and set how far an address alone links, and how far a run may go.

use reqwest::Method;
use serde_json::json;

use crate::server::{Home, armis, netbox};

#[tokio::test]
async fn links_are_made_taken_back_and_told() {
    let mut home = Home::new("");
    let server = home.start();
    let items = [armis(1, "10.1.0.1", 1), armis(2, "10.1.0.2", 2), netbox("9", "10.1.0.1", "another-name")];
    server.push("runner", "sync", &format!("[{}]", items.join(","))).await.unwrap();
    server.count("devices", 3).await;
    let uid = |rows: &[serde_json::Value]| rows[0]["uid"].as_str().unwrap().to_owned();
    let first = uid(&server.rows("in:devices hostname:host-1").await);
    let second = uid(&server.rows("in:devices hostname:host-2").await);
    let admin = server.token.clone();

    // A viewer may not; one bound to another site sees nothing to link.
    let token = |role: &str, partitions: &[&str]| json!({"name": role, "role": role, "partitions": partitions});
    let (_, made) = server.post("/api/tokens", &admin, &token("viewer", &[])).await;
    let merge = json!({"kind": "must", "a": {"uid": first}, "b": {"uid": second}, "reason": "one chassis"});
    assert_eq!(server.post("/api/links", made["token"].as_str().unwrap(), &merge).await.0, 403);
    let (_, made) = server.post("/api/tokens", &admin, &token("operator", &["elsewhere"])).await;
    let bound = made["token"].as_str().unwrap().to_owned();
    assert_eq!(server.post("/api/links", &bound, &merge).await.0, 404);

    // A merge by hand: the answer comes when it is visible.
    let (status, link) = server.post("/api/links", &admin, &merge).await;
    assert_eq!((status, &link["a"], &link["b"]), (201, &json!("armis:1"), &json!("armis:2")));
    let merged = server.rows("in:devices discovery_sources:armis").await;
    assert_eq!((merged.len(), merged[0]["uid"].as_str()), (1, Some(first.as_str())));
    let told = server.rows("in:merge_audit").await;
    assert_eq!((told.len(), &told[0]["reason"]), (1, &json!("operator")));
    assert_eq!((&told[0]["from_uid"], &told[0]["to_uid"]), (&json!(second), &json!(first)));
    let links = server.rows("in:links").await;
    assert_eq!((links.len(), &links[0]["reason"], &links[0]["kind"]), (1, &json!("one chassis"), &json!("must")));
    // The old name leads to the device: it may be used for the other end of what follows.
    let split = json!({"kind": "cannot", "a": {"uid": second}, "b": {"uid": first}, "reason": ""});
    assert_eq!(server.post("/api/links", &admin, &split).await.0, 400, "both are one device now");

    let path = format!("/api/links/{}", link["link_id"].as_str().unwrap());
    assert_eq!(server.ask(Method::DELETE, &path, &bound, &json!({})).await.0, 404);
    assert_eq!(server.ask(Method::DELETE, &path, &admin, &json!({"reason": "two after all"})).await.0, 200);
    assert_eq!(server.rows("in:devices discovery_sources:armis").await.len(), 2);
    assert!(server.rows("in:links").await.is_empty());
    assert_eq!(server.ask(Method::DELETE, &path, &admin, &json!({})).await.0, 404);
    let audit = server.rows("in:audit action:(link,link_gone)").await;
    assert_eq!(audit.len(), 2);

    // What cannot be linked is said at once.
    let end = |kind: &str, value: &str| json!({"type": kind, "value": value});
    let try_link =
        async |a, b| server.post("/api/links", &admin, &json!({"kind": "must", "a": a, "b": b, "reason": ""})).await.0;
    assert_eq!(try_link(end("mac", "FF:FF:FF:FF:FF:FF"), end("armis", "1")).await, 400);
    assert_eq!(try_link(end("hostname", "h"), end("armis", "1")).await, 400);
    assert_eq!(try_link(end("armis", "1"), end("armis", " 1 ")).await, 400);
    assert_eq!(try_link(json!({"uid": "sr:nobody"}), end("armis", "1")).await, 404);

    // One address in two inventories, under two names: two devices, unless the tenant says that the address suffices.
    assert_eq!(server.rows("in:devices").await.len(), 3);
    let policy = json!({"policy": "immediate", "reason": "addresses are ours"});
    assert_eq!(server.ask(Method::PUT, "/api/identity/ip_link", &bound, &policy).await.0, 403);
    assert_eq!(server.ask(Method::PUT, "/api/identity/ip_link", &admin, &policy).await.0, 200);
    assert_eq!(server.rows("in:devices").await.len(), 2);

    // All of it survives a kill.
    server.kill();
    let server = home.start();
    assert_eq!(server.rows("in:devices").await.len(), 2);
    server.stop();
}

#[tokio::test]
async fn a_run_that_goes_too_far_is_held_until_somebody_decides() {
    let mut home = Home::new("");
    let server = home.start();
    let admin = server.token.clone();
    let brakes = |merges: i64, component: i64| {
        let body = json!({"max_merges": merges, "max_component": component, "reason": "a small site"});
        let (server, admin) = (&server, &admin);
        async move { server.ask(Method::PUT, "/api/identity/brakes", admin, &body).await.0 }
    };
    assert_eq!((brakes(-1, 9).await, brakes(2, 0).await, brakes(2, 9).await), (400, 400, 200));
    let item = |run: &str, n: usize, metadata: &str, second: i64| {
        format!(
            r#"{{"source":"netbox","ip":"10.2.0.{n}","timestamp":{},
                "metadata":{{"netbox_device_id":"{n}"{metadata}}},"sync_meta":{{"sync_run_id":"{run}"}}}}"#,
            1_700_000_000 + second
        )
    };
    let known: Vec<String> = (1..=5).map(|n| armis(n, &format!("10.1.0.{n}"), 1)).collect();
    let apart: Vec<String> = (1..=5).map(|n| item("r1", n, "", 1)).collect();
    let said = [known, apart].concat();
    server.push("runner", "sync", &format!("[{}]", said.join(","))).await.unwrap();
    server.count("devices", 10).await;
    let both: Vec<String> = (1..=5).map(|n| item("r2", n, &format!(r#","armis_device_id":"{n}""#), 2)).collect();
    server.push("runner", "sync", &format!("[{}]", both.join(","))).await.unwrap();
    let held = server.until("in:alerts rule:run-held status:pending", |rows| rows.len() == 1).await;
    assert_eq!(held[0]["title"], "run r2 of netbox/main would merge 5 devices and is held");
    assert_eq!(server.rows("in:devices").await.len(), 10);
    // A record and an identifier of each of five devices would go elsewhere, of one those of the Armis.
    server.metric("radarflow_identity_withheld_changes 22").await;

    // Still held after a kill; who decides about another is told which it is.
    server.kill();
    let server = home.start();
    assert_eq!(server.rows("in:devices").await.len(), 10);
    server.metric("radarflow_identity_withheld_changes 22").await;
    let decide = |run: &'static str, what: &'static str| {
        let (server, admin) = (&server, &admin);
        let path = format!("/api/sources/netbox/main/runs/{run}/{what}");
        async move { server.post(&path, admin, &json!({"reason": "looked at"})).await }
    };
    let (status, refused) = decide("r1", "release").await;
    assert_eq!((status, &refused["detail"]), (409, &json!("run r1 is not held; held: r2")));
    assert_eq!(decide("r2", "release").await.0, 200);
    server.metric("radarflow_identity_withheld_changes 0").await;
    assert_eq!(server.rows("in:devices").await.len(), 5);
    assert_eq!(server.rows("in:alerts rule:run-held status:resolved").await.len(), 1);
    assert_eq!(server.rows("in:merge_audit").await.len(), 5);
    server.stop();
}
