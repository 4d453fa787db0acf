//! Operators move devices along their life, delete and restore them.

use serde_json::{Value, json};

use crate::server::{Home, armis};

#[tokio::test]
async fn devices_are_moved_deleted_and_restored() {
    let mut home = Home::new("");
    let server = home.start();
    let items = format!("[{},{}]", armis(1, "10.1.0.1", 1), armis(2, "10.1.0.2", 2));
    server.push("runner", "sync", &items).await.unwrap();
    server.count("devices", 2).await;
    let admin = server.token.clone();
    let uid = server.rows("in:devices hostname:host-1").await[0]["uid"].as_str().unwrap().to_owned();
    let path = |act: &str| format!("/api/devices/{uid}/{act}");
    let why = json!({"reason": "sold"});

    // Who may.
    let token = |role: &str, partitions: &[&str]| json!({"name": role, "role": role, "partitions": partitions});
    let (_, made) = server.post("/api/tokens", &admin, &token("viewer", &[])).await;
    assert_eq!(server.post(&path("delete"), made["token"].as_str().unwrap(), &why).await.0, 403);
    let (_, made) = server.post("/api/tokens", &admin, &token("operator", &["elsewhere"])).await;
    assert_eq!(server.post(&path("delete"), made["token"].as_str().unwrap(), &why).await.0, 404);

    // What may be.
    let ask = async |act: &str| server.post(&path(act), &admin, &why).await;
    let (status, refused) = ask("decommission").await;
    assert_eq!((status, &refused["allowed"]), (409, &json!(["manage", "delete"])));
    let (status, managed) = ask("manage").await;
    assert_eq!((status, &managed["lifecycle"]), (200, &json!("managed")));
    assert_eq!(ask("decommission").await.1["lifecycle"], "decommissioned");
    assert_eq!(server.rows("in:devices lifecycle:decommissioned").await.len(), 1);
    assert_eq!(ask("explode").await.0, 404);
    assert_eq!(server.post(&path("manage"), &admin, &json!({})).await.0, 400, "a step has a reason");
    assert_eq!(server.post("/api/devices/sr:nobody/delete", &admin, &why).await.0, 404);

    // Deleted devices are not shown unless asked for.
    let (status, deleted) = ask("delete").await;
    assert!(status == 200 && deleted["deleted_at"].is_string(), "{deleted}");
    let devices = async || server.rows("in:devices").await.len();
    assert_eq!(devices().await, 1);
    let hidden = server.rows("in:devices include_deleted:true hostname:host-1").await;
    assert_eq!((&hidden[0]["deleted_by"], &hidden[0]["deleted_reason"]), (&json!("admin"), &json!("sold")));
    assert_eq!(ask("delete").await.1["allowed"], json!(["manage", "restore"]));
    assert_eq!(ask("restore").await.1["deleted_at"], Value::Null);
    assert_eq!(devices().await, 2);
    assert_eq!(ask("delete").await.0, 200);

    // It survives a kill; the next sync brings it back, with the stage it had.
    server.kill();
    let server = home.start();
    assert_eq!(server.rows("in:devices").await.len(), 1);
    server.push("runner", "sync", &items).await.unwrap();
    let back = server.until("in:devices hostname:host-1", |rows| rows.len() == 1).await;
    assert_eq!((&back[0]["uid"], &back[0]["lifecycle"]), (&json!(uid), &json!("decommissioned")));
    let audit = server.rows("in:audit action:device_step sort:time:asc").await;
    assert_eq!(audit.len(), 5, "what the API refuses is no act");
    assert_eq!((&audit[0]["subject"], &audit[0]["reason"]), (&json!(uid), &json!("sold")));
    server.stop();
}
