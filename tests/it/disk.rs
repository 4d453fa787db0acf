//! A disk or a memory that fills up: senders are refused, an alert tells, questions are answered, and it goes on by itself.

use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;

use crate::brokers::service;
use crate::server::{Home, armis};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn intake_stops_before_the_disk_is_full_and_goes_on_by_itself() {
    let mut home = Home::new("");
    // Others write and delete meanwhile: what is free is asked anew, and the margins are more than they move.
    let free = |home: &Home| {
        let stat = nix::sys::statvfs::statvfs(home.dir.path()).unwrap();
        stat.blocks_available() * stat.fragment_size() / MIB
    };
    let before = free(&home);
    assert!(before > 4096, "the test needs 4 GiB of disk");
    let taken = before / 8;
    // Enough is left now, and would be again with half as much more.
    let reserve = (before - taken / 2) * 2 / 3 - taken;
    home.config = format!("disk_reserve_mib = {reserve}\n{}", home.config);
    let server = home.start();
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.1.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;

    let ballast = std::fs::File::create(home.dir.path().join("ballast")).unwrap();
    let mut size = 0;
    let end = Instant::now() + Duration::from_secs(60);
    while !server.metrics().await.lines().any(|line| line == "radarflow_ledger_disk_short 1") {
        assert!(Instant::now() < end, "{} MiB are free, {reserve} are reserved", free(&home));
        size += (free(&home) + taken / 4).saturating_sub(reserve);
        nix::fcntl::posix_fallocate(&ballast, 0, (size * MIB) as i64).unwrap();
        ballast.write_all_at(&[0], 0).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = server.push("runner", "sync", &format!("[{}]", armis(2, "10.1.0.2", 1))).await.unwrap_err();
    assert!(refused.message().contains("nearly full"), "{refused}");
    let alerts = server.until("in:alerts rule:disk-full", |rows| rows.len() == 1).await;
    assert_eq!((&alerts[0]["severity"], &alerts[0]["status"]), (&json!("critical"), &json!("pending")));
    // It says that it is not ready, and why; what people ask and say is answered and taken.
    let ready = reqwest::get(format!("{}/readyz", server.http)).await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("the disk is nearly full"));
    let (status, _) = server.post("/api/tokens", &server.token, &json!({"name": "x", "role": "viewer"})).await;
    assert_eq!(status, 201);

    drop(ballast);
    std::fs::remove_file(home.dir.path().join("ballast")).unwrap();
    server.metric("radarflow_ledger_disk_short 0").await;
    assert_eq!(reqwest::get(format!("{}/readyz", server.http)).await.unwrap().status(), 200);
    server.until("in:alerts rule:disk-full", |rows| rows[0]["status"] == "resolved").await;
    server.push("runner", "sync", &format!("[{}]", armis(2, "10.1.0.2", 1))).await.unwrap();
    server.count("devices", 2).await;
    server.stop();
}

#[tokio::test]
async fn over_its_memory_the_process_takes_no_more_telemetry_and_keeps_state() {
    let mut home = Home::new("");
    let (brokers, topic) = (service("RADARFLOW_TEST_KAFKA"), format!("p{}.logs.syslog", rand::random::<u32>()));
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    let source = format!("[[sources.kafka]]\nbrokers = {brokers:?}\ntopics = [{topic:?}]\ngroup = {topic:?}\n");
    home.config = format!("memory_limit_mib = 64\n{}{source}", home.config);
    let server = home.start();
    server.metric("radarflow_memory_short 1").await;
    let alerts = server.until("in:alerts rule:memory-full", |rows| rows.len() == 1).await;
    assert_eq!(alerts[0]["severity"], "critical");
    // What cannot wait is shed and counted.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(b"<13>Oct 11 22:14:15 host app: too much", server.port("syslog")).unwrap();
    let shed = |rows: &[serde_json::Value]| rows.iter().any(|row| row["shed"] == 1 && row["received"] == 1);
    server.until("in:sources source:syslog%", shed).await;
    // What can wait waits; state and what people say goes on.
    let mut waits = std::net::TcpStream::connect(server.port("syslog-tcp")).unwrap();
    waits.write_all(b"<13>Oct 11 22:14:15 host app: patient\n").unwrap();
    let message = r#"{"version":"1.1","host":"h","short_message":"pulled","_remote_addr":"default:10.9.0.1"}"#;
    producer.send(FutureRecord::to(&topic).payload(message).key("k"), Duration::from_secs(20)).await.unwrap();
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.1.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;
    assert_eq!(server.rows("in:logs time:last_1d").await.len(), 0);

    let metrics = server.metrics().await;
    let value = |name: &str| -> i64 {
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.trim().parse().unwrap()
    };
    let pools = ["state", "live", "fresh", "queries", "queues", "clients"];
    let held: i64 = pools.iter().map(|pool| value(&format!("radarflow_memory_pool_bytes{{pool=\"{pool}\"}}"))).sum();
    assert!(held > 64 << 20 && value("radarflow_memory_pool_bytes{pool=\"live\"}") > 0);
    let share: i64 =
        pools.iter().map(|pool| value(&format!("radarflow_memory_pool_share_bytes{{pool=\"{pool}\"}}"))).sum();
    assert!(share <= 64 << 20 && share > 63 << 20);
    assert_eq!(value("radarflow_dataflow_machine_keys{machine=\"identity_records\"}"), 1);
    assert!(value("radarflow_dataflow_arrangement_batches{part=\"alerts\"}") > 0);
    assert_eq!(value("radarflow_dataflow_machine_keys{machine=\"records\"}"), 1);
    // What waits does not keep it from ending.
    server.stop();

    home.config = home.config.replace("= 64", "= 4096");
    let server = home.start();
    server.until("in:alerts rule:memory-full", |rows| rows[0]["status"] == "resolved").await;
    socket.send_to(b"<13>Oct 11 22:14:15 host app: now", server.port("syslog")).unwrap();
    for said in ["now", "pulled"] {
        server.until(&format!("in:logs time:last_1d \"{said}\""), |rows| rows.len() == 1).await;
    }
    server.stop();
}
