//! From every socket to every answer, counted exactly; garbage changes nothing but counters; tenants stay apart.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use radarflow_proto::grpc::{AgentConfigRequest, AgentHelloRequest, GatewayStatusChunk};
use serde_json::{Value, json};

use crate::server::{Home, armis, lake_count, notification, status};

pub(crate) fn netflow_v5(n: u16) -> Vec<u8> {
    let mut m = [5u16, 30].iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    m.extend([100_000u32, 1_704_067_200, 0, u32::from(n) * 30].iter().flat_map(|n| n.to_be_bytes()));
    m.extend([0, 0, 0x40, 10]);
    for i in 0..30u8 {
        m.extend([10, 0, 0, i, 10, 0, 1, i, 0, 0, 0, 0, 0, 1, 0, 2]);
        m.extend([5u32, 1000, 99_000, 99_900].iter().flat_map(|n| n.to_be_bytes()));
        m.extend([0, 80, 0xc0, 0, 0, 0x18, 6, 0, 0, 1, 0, 2, 24, 24, 0, 0]);
    }
    m
}

#[tokio::test]
async fn every_protocol_is_counted_exactly_in_answers_and_in_the_lake() {
    let mut home = Home::new("");
    let server = home.start();
    server.send("netflow", &(0..100).map(netflow_v5).collect::<Vec<_>>());
    server.send(
        "syslog",
        &(0..500).map(|i| format!("<14>Jan  1 00:00:00 h app: udp {i}").into_bytes()).collect::<Vec<_>>(),
    );
    let mut tcp = TcpStream::connect(server.port("syslog-tcp")).unwrap();
    for i in 0..500 {
        let line = format!("<14>1 - h app - - - tcp {i}");
        if i % 2 == 0 {
            writeln!(tcp, "{line}").unwrap();
        } else {
            write!(tcp, "{} {line}", line.len()).unwrap();
        }
    }
    drop(tcp);
    server.send("traps", &(0..50).map(|i| notification(false, 1, i)).collect::<Vec<_>>());
    let inform = UdpSocket::bind("127.0.0.1:0").unwrap();
    inform.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    inform.send_to(&notification(true, 1, 77), server.port("traps")).unwrap();
    let mut answer = [0; 512];
    let n = inform.recv(&mut answer).expect("an inform is answered");
    assert!(answer[..n].contains(&0xa2));
    let items: Vec<_> = (0..200).map(|i| armis(i, &format!("10.1.0.{i}"), 1)).collect();
    server.push("runner", "sync", &format!("[{}]", items.join(","))).await.unwrap();

    server.count("flows", 3000).await;
    server.count("logs", 1000).await;
    server.count("traps", 51).await;
    server.count("devices", 200).await;
    let sums = server.rows("in:flows stats:\"sum(bytes_total) as b, sum(bytes_raw) as r by sampling_source\"").await;
    assert_eq!(sums, [json!({"sampling_source": "header", "b": 30_000_000, "r": 3_000_000})]);
    assert!(!serde_json::to_string(&server.rows("in:traps limit:100").await).unwrap().contains("secret"));
    server.stop();
    assert_eq!(lake_count(&home.lake("flows")).await, 3000);
    assert_eq!(lake_count(&home.lake("logs")).await, 1000);
    assert_eq!(lake_count(&home.lake("traps")).await, 51);

    // After a restart the same answers, from the lake and the snapshot.
    let server = home.start();
    server.count("flows", 3000).await;
    server.count("devices", 200).await;
    let rows = server.rows("in:devices hostname:host-7").await;
    assert_eq!(rows[0]["ip"], "10.1.0.7");
    server.stop();
}

#[tokio::test]
async fn pages_repeat_and_lose_nothing_while_rows_arrive() {
    let mut home = Home::new("");
    let server = home.start();
    let lines = |from: usize| {
        (from..from + 50).map(|i| format!("<14>Jan  1 00:00:00 h app: line {i}").into_bytes()).collect::<Vec<_>>()
    };
    server.send("syslog", &lines(0));
    server.count("logs", 50).await;
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let (status, page) = server
            .post(
                "/api/query",
                &server.token,
                &json!({"query": "in:logs sort:severity_number:asc limit:7", "cursor": cursor}),
            )
            .await;
        assert_eq!(status, 200, "{page}");
        seen.extend(page["results"].as_array().unwrap().iter().map(|r| r["body"].as_str().unwrap().to_owned()));
        cursor = page["pagination"]["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
        server.send("syslog", &lines(1000 + seen.len() * 100));
        server
            .until("in:logs stats:count()", |r| r[0]["count"].as_u64() >= Some(50 + seen.len() as u64 / 7 * 50))
            .await;
    }
    seen.sort();
    let mut expected: Vec<_> = (0..50).map(|i| format!("line {i}")).collect();
    expected.sort();
    assert_eq!(seen, expected);
    let forged = server.post("/api/query", &server.token, &json!({"query": "in:logs", "cursor": "AAAA"})).await;
    assert_eq!((forged.0, forged.1["code"].as_str()), (400, Some("bad_cursor")));
}

#[tokio::test]
async fn mistakes_say_where_and_what_instead() {
    let mut home = Home::new("");
    let server = home.start();
    for (query, code, column) in [
        ("in:devics", "unknown_entity", 4),
        ("in:devices hostnam:x", "unknown_field", 12),
        ("in:devices ip:10.0.0", "bad_ip", 15),
        ("in:devices (a:1", "bracket_open", 12),
        ("in:logs time:soon", "bad_time", 14),
        ("in:device_graph", "entity_not_available", 4),
        ("in:devices limit:99999", "limit_too_large", 18),
    ] {
        let (status, problem) = server.post("/api/query", &server.token, &json!({"query": query})).await;
        assert_eq!(
            (status, problem["code"].as_str(), problem["column"].as_u64()),
            (400, Some(code), Some(column)),
            "{query}: {problem}"
        );
    }
    assert_eq!(server.post("/api/query", "rf_nobody", &json!({"query": "in:devices"})).await.0, 401);
}

#[tokio::test]
async fn the_language_on_real_rows() {
    let mut home = Home::new("");
    let server = home.start();
    let items: Vec<_> = (0..30).map(|i| armis(i, &format!("10.1.{}.{i}", i / 10), i as i64)).collect();
    server.push("runner", "sync", &format!("[{}]", items.join(","))).await.unwrap();
    server.count("devices", 30).await;
    for (query, n) in [
        ("in:devices ip:10.1.1.0/24", 10),
        ("in:devices ip:10.1.1.15-10.1.2.21", 7),
        ("in:devices hostname:host-1*", 11),
        ("in:devices hostname:HOST-1", 0),
        ("in:devices hostname:~HOST-1", 1),
        ("in:devices !hostname:host-1%", 19),
        ("in:devices hostname:(host-1,host-2,host-2?)", 12),
        ("in:devices hostname:/^host-[12]$/", 2),
        ("in:devices NOT (hostname:host-1 OR hostname:host-2) ip:10.1.0.0/24", 8),
        ("in:devices discovery_sources:(armis)", 30),
        ("in:devices !discovery_sources:arm*", 0),
        ("in:devices metadata.armis_device_id:7", 1),
        ("in:devices metadata.armis_device_id:>=25", 5),
        ("in:devices metadata:armis_device_id", 30),
        ("in:devices is_available:null", 30),
        ("in:devices model:*", 0),
        ("in:devices last_seen:>=2023-11-14 last_seen:<2023-11-15", 30),
        ("in:devices \"ost-29\"", 1),
        ("in:ip_ownership device_uid:* class:inventory", 30),
        ("in:identities identifier_type:armis state:held", 30),
    ] {
        assert_eq!(server.rows(query).await.len(), n, "{query}");
    }
    // The same answer as a Parquet file.
    let ask = json!({"query": "in:devices fields:uid,metadata,last_seen", "format": "parquet"});
    let request = reqwest::Client::new().post(format!("{}/api/query", server.http)).bearer_auth(&server.token);
    let file = request.json(&ask).send().await.unwrap().bytes().await.unwrap();
    let reader = datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let rows: usize = reader.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum();
    assert_eq!(rows, 30);
    let top = server.rows("in:devices sort:hostname:asc limit:2 fields:hostname").await;
    assert_eq!(top, [json!({"hostname": "host-0"}), json!({"hostname": "host-1"})]);
    let groups = server.rows("in:devices stats:\"count() as n by ip:24\" having:\"n>=10\" sort:ip:asc").await;
    assert_eq!(groups[1], json!({"ip": "10.1.1.0/24", "n": 10}));
}

#[tokio::test]
async fn agents_speak_their_own_protocol() {
    let mut home = Home::new("");
    let server = home.start();
    let mut agent = server.grpc().await;
    let hello = AgentHelloRequest {
        agent_id: "agent-1".into(),
        hostname: "box".into(),
        partition: "dc1".into(),
        ..Default::default()
    };
    let welcome = agent.hello(hello).await.unwrap().into_inner();
    assert!(welcome.accepted && welcome.config_outdated);
    let config = agent
        .get_config(AgentConfigRequest { agent_id: "agent-1".into(), config_version: String::new() })
        .await
        .unwrap()
        .into_inner();
    assert!(config.config_version.starts_with('v') && config.config_version.len() == 65);
    let same = AgentConfigRequest { agent_id: "agent-1".into(), config_version: config.config_version };
    assert!(agent.get_config(same).await.unwrap().into_inner().not_modified);
    server.until("in:agents agent_id:agent-1 state:connected partition:dc1", |r| r.len() == 1).await;

    // A stream is applied whole or not at all.
    let chunk = |index: i32, total: i32, id: usize| GatewayStatusChunk {
        services: status("a", "sync", &format!("[{}]", armis(id, "", 1))).services,
        agent_id: "agent-1".into(),
        chunk_index: index,
        total_chunks: total,
        is_final: index + 1 == total,
        ..Default::default()
    };
    let broken = vec![chunk(0, 3, 1), chunk(2, 3, 2)];
    let refused = agent.stream_status(tokio_stream_of(broken)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    agent.stream_status(tokio_stream_of(vec![chunk(0, 2, 3), chunk(1, 2, 4)])).await.unwrap();
    server.until("in:identities identifier_type:armis", |r| r.len() == 2).await;
    let ids =
        server.rows("in:identities identifier_type:armis sort:identifier_value:asc fields:identifier_value").await;
    assert_eq!(ids, [json!({"identifier_value": "3"}), json!({"identifier_value": "4"})]);

    // One bad service is refused alone; of nothing but bad ones there is a row, since an error would end the agent's connection.
    let mut mixed = status("agent-1", "sync", "[]");
    mixed.services[0].service_name.clear();
    assert!(agent.push_status(mixed).await.unwrap().into_inner().received);
    server.until("in:rejects reason:*service_name*", |r| r.len() == 1).await;
}

fn tokio_stream_of<T: Send + 'static>(
    items: Vec<T>,
) -> impl tonic::codegen::tokio_stream::Stream<Item = T> + Send + 'static {
    tonic::codegen::tokio_stream::iter(items)
}

#[tokio::test]
async fn garbage_on_every_port_changes_nothing_but_counters() {
    let mut home = Home::new("");
    let server = home.start();
    let mut noise: Vec<Vec<u8>> = Vec::new();
    let mut seed = 7u64;
    for i in 0..200usize {
        let mut bytes = Vec::new();
        for _ in 0..(i * 7) % 1400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((seed >> 33) as u8);
        }
        noise.push(bytes);
    }
    noise.push(vec![0xff; 65_000]);
    noise.extend((0..60).map(|n| netflow_v5(1)[..n * 20].to_vec()));
    noise.extend((0..40).map(|n| notification(false, 3, 1)[..n].to_vec()));
    for port in ["netflow", "sflow", "syslog", "traps"] {
        server.send(port, &noise);
    }
    for port in ["syslog-tcp", "ipfix-tcp", "grpc"] {
        for bytes in &noise[..60] {
            let mut half_open = TcpStream::connect(server.port(port)).unwrap();
            let _ = half_open.write_all(bytes);
        }
    }
    server.send("netflow", &[netflow_v5(9)]);
    server.until("in:flows src_endpoint_ip:10.0.0.29", |r| !r.is_empty()).await;
    server.until("in:rejects stats:\"count() as n\"", |r| r[0]["n"].as_u64() > Some(500)).await;
    for row in server.rows("in:sources").await {
        let n = |c: &str| row[c].as_i64().unwrap();
        assert_eq!(n("received"), n("stored") + n("rejected") + n("shed"), "{row}");
    }
    assert_eq!(server.rows("in:devices").await.len(), 0);
    server.stop();
}

#[tokio::test]
async fn a_tenant_and_a_partition_see_their_own() {
    let mut home = Home::new("[[syslog]]\naddr = \"127.0.0.2:0\"\ntenant = \"stranger\"\n");
    // The listener of the other tenant is the second of its kind.
    home.config = home.config.replacen(
        "[[syslog]]\naddr = \"127.0.0.1:0\"",
        "[[syslog]]\naddr = \"127.0.0.1:0\"\npartition = \"dc1\"",
        1,
    );
    let server = home.start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // `port` keeps the last of a kind: the other tenant's.
    socket.send_to(b"<14>Jan  1 00:00:00 h a: secret of stranger", server.port("syslog")).unwrap();
    server.push("a", "sweep", r#"{"hosts":[{"host":"10.0.0.1","available":true}]}"#).await.unwrap();
    server.count("devices", 1).await;
    let server = &server;
    let token = |body: serde_json::Value| async move { server.post("/api/tokens", &server.token, &body).await };
    let (status, made) = token(json!({"name": "bound", "role": "viewer", "partitions": ["dc1"]})).await;
    assert_eq!(status, 201, "{made}");
    let bound = made["token"].as_str().unwrap().to_owned();
    assert_eq!(token(json!({"name": "x", "role": "viewer", "tenant": "stranger"})).await.0, 403);
    for entity in [
        "devices",
        "ip_ownership",
        "identities",
        "flows",
        "logs",
        "traps",
        "alerts",
        "events",
        "sources",
        "rejects",
        "agents",
    ] {
        assert_eq!(server.rows_as(&bound, &format!("in:{entity}")).await.len(), 0, "{entity}");
        let all = server.rows(&format!("in:{entity}")).await;
        assert!(!serde_json::to_string(&all).unwrap().contains("stranger"), "{entity}: {all:?}");
    }
    let audit = json!({"query": "in:audit"});
    assert_eq!(server.post("/api/query", &bound, &audit).await.0, 403);
    assert!(!server.post("/api/query", &server.token, &audit).await.1.to_string().contains("stranger"));
    assert_eq!(server.post("/api/tokens", &bound, &json!({"name": "x", "role": "admin"})).await.0, 403);
}

/// Several sockets share an address, and it with nobody else; every sender's lines come once, in order.
#[tokio::test]
async fn sockets_that_share_an_address_lose_and_repeat_nothing() {
    let mut home = Home::new("");
    home.config = home.config.replacen("[[syslog]]\n", "[[syslog]]\nsockets = 3\n", 1);
    let server = home.start();
    let addr = server.port("syslog");
    let senders: Vec<UdpSocket> = (0..24).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for line in 0..100 {
        for (n, sender) in senders.iter().enumerate() {
            sender.send_to(format!("<14>1 - host{n} app - - - {line}").as_bytes(), addr).unwrap();
        }
    }
    let count = |rows: &[Value]| rows[0]["n"] == 2400;
    server.until(r#"in:logs time:last_1h stats:"count() as n""#, count).await;
    let of_one = server.rows("in:logs time:last_1h hostname:host7 sort:row_id:asc limit:1000").await;
    let said: Vec<&str> = of_one.iter().map(|row| row["body"].as_str().unwrap()).collect();
    assert_eq!(said, (0..100).map(|line| line.to_string()).collect::<Vec<_>>());
    let balanced = |rows: &[Value]| rows.iter().filter_map(|row| row["stored"].as_i64()).sum::<i64>() == 2400;
    server.until("in:sources source:syslog%", balanced).await;

    // Nobody else gets the address.
    let config = format!("[[syslog]]\naddr = \"{addr}\"\nsockets = 3\n[http]\naddr = \"127.0.0.1:0\"\n");
    let other = Home::new("");
    let file = other.dir.path().join("other.toml");
    std::fs::write(&file, config).unwrap();
    let program = env!("CARGO_BIN_EXE_radarflow");
    let data = other.dir.path().join("data");
    let refused = std::process::Command::new(program)
        .args(["serve", "--config", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("cannot listen on"), "{said}");
    server.stop();
}
