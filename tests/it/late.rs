//! What is learnt after events were stored, and what devices say of their neighbours, over restarts.

use std::net::UdpSocket;

use serde_json::{Value, json};

use crate::crash::flow;
use crate::server::{Home, Server, armis};

async fn sources(server: &Server) -> Vec<Value> {
    server.rows("in:flows time:last_24h fields:src_device_uid sort:row_id:asc").await
}

#[tokio::test]
async fn flows_are_of_the_device_that_is_learnt_late_to_have_their_address() {
    let url = crate::sinks::database().await;
    let mut home = Home::new(&format!("[sinks.postgres]\nurl = \"{url}\"\n"));
    let server = home.start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&flow(0), server.port("netflow")).unwrap();
    server.until("in:flows time:last_24h", |rows| rows.len() == 1).await;
    assert_eq!(sources(&server).await[0]["src_device_uid"], Value::Null);
    // It had the address long before.
    server.push("runner", "sync", &format!("[{},{}]", armis(1, "10.0.0.1", 1), armis(2, "10.0.0.2", 1))).await.unwrap();
    let owner = server.until("in:ip_ownership ip:10.0.0.1", |rows| rows.len() == 1).await;
    let uid = owner[0]["device_uid"].clone();
    let known = |rows: &[Value]| rows.iter().all(|row| row["src_device_uid"] == uid);
    server.until("in:flows time:last_24h fields:src_device_uid", |rows| rows.len() == 1 && known(rows)).await;
    let found = server.rows(&format!("in:flows time:last_24h src_device_uid:{}", uid.as_str().unwrap())).await;
    assert_eq!(found.len(), 1);
    let links = json!([{"local_device_ip": "10.0.0.1", "local_if_index": 3, "protocol": "lldp",
        "neighbor_chassis_id": "00:11:22:33:44:55", "neighbor_port_id": "Gi0/1", "neighbor_mgmt_addr": "10.0.0.2"}]);
    server.push("mapper", "mapper_topology", &links.to_string()).await.unwrap();
    let query = "in:topology_links device.ip:10.0.0.1 neighbor_mac:001122334455 neighbor_ip:10.0.0.0/24";
    let link = server.until(query, |rows| rows.len() == 1 && rows[0]["neighbor_device_uid"].is_string()).await;
    assert_eq!((&link[0]["device_uid"], &link[0]["local_if_index"]), (&uid, &json!(3)));

    // Killed, then stopped: the same from the ledger, and from the lake.
    server.kill();
    let server = home.start();
    server.until("in:flows time:last_24h fields:src_device_uid", |rows| rows.len() == 1 && known(rows)).await;
    socket.send_to(&flow(1), server.port("netflow")).unwrap();
    server.until("in:flows time:last_24h", |rows| rows.len() == 2).await;
    server.stop();
    // One of each address: which of them have events is not remembered.
    assert_eq!(crate::server::lake_count(&home.lake("attribution_corrections")).await, 2);
    let server = home.start();
    let rows = server.until("in:flows time:last_24h fields:src_device_uid", |rows| rows.len() == 2).await;
    assert!(known(&rows), "{rows:?}");
    assert_eq!(server.rows(query).await.len(), 1);
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    crate::sinks::until("Postgres knows the link", || async {
        let sql = "SELECT device_uid, neighbor_device_uid FROM radarflow.topology_links WHERE neighbor_ip = '10.0.0.2'";
        let row: Option<(String, String)> = sqlx::query_as(sql).fetch_optional(&pool).await.unwrap();
        row.is_some_and(|(device, neighbor)| json!(device) == uid && json!(neighbor) == link[0]["neighbor_device_uid"])
    })
    .await;
    server.stop();
}
