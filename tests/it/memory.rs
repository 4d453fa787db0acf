//! Memory: every bound has a metric, and whoever takes too much is refused while nobody else notices.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::{Home, Server, armis};

/// A client from another address of this host.
fn from(last: u8) -> reqwest::Client {
    reqwest::Client::builder().local_address(std::net::IpAddr::from(Ipv4Addr::new(127, 0, 0, last))).build().unwrap()
}

/// The lines of metrics that begin so.
async fn metrics(server: &Server, begins: &str) -> Vec<String> {
    let text = from(9).get(format!("{}/metrics", server.http)).send().await.unwrap().text().await.unwrap();
    text.lines().filter(|line| line.starts_with(begins)).map(str::to_owned).collect()
}

async fn counted(server: &Server, name: &str) -> u64 {
    let lines = metrics(server, name).await;
    lines.iter().filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[tokio::test]
async fn every_bound_has_a_metric() {
    let docs = Command::new(env!("CARGO_BIN_EXE_radarflow")).args(["docs", "memory"]).output().unwrap();
    let docs = String::from_utf8(docs.stdout).unwrap();
    let names = docs.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once("| ")).map(|(_, name)| name);
    let names: Vec<&str> = names.filter(|name| name.starts_with("radarflow_")).collect();
    assert!(names.len() > 20, "{docs}");
    let server = Home::new("").start();
    server.send("syslog", &[b"<13>Oct 11 22:14:15 host app: a source".to_vec()]);
    server.count("logs", 1).await;
    for name in names {
        assert!(!metrics(&server, name).await.is_empty(), "{name} is no metric");
    }
    server.stop();
}

/// Begins to send a document of so many bytes and does not go on.
fn half_a_document(server: &Server, token: &str, bytes: usize) -> TcpStream {
    let addr = server.http.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(addr).unwrap();
    let head = format!(
        "POST /api/inventories/lab/main HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n["
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

async fn until(what: &str, mut right: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !right().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn bodies_take_their_share_of_memory_and_no_more() {
    let mut home = Home::new("");
    home.config = format!("memory_limit_mib = 1024\n{}", home.config);
    let server = home.start();
    let mut tokens = Vec::new();
    for name in ["greedy", "modest"] {
        let (status, made) = server.post("/api/tokens", &server.token, &json!({"name": name, "role": "admin"})).await;
        assert_eq!(status, 201, "{made}");
        tokens.push(made["token"].as_str().unwrap().to_owned());
    }
    let [greedy, modest] = &tokens[..] else { unreachable!("two") };
    // What was said of their length holds, though nothing came of it.
    let held = |server| counted(server, "radarflow_room_bytes{room=\"requests\"}");
    let first = half_a_document(&server, greedy, 2_500_000);
    until("the first has its memory", async || held(&server).await >= 2_500_000).await;
    let item = format!("[{}]", armis(1, "10.1.0.1", 1));
    let mut second = half_a_document(&server, greedy, 2_500_000);
    let mut said = [0; 12];
    second.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 429");
    assert!(counted(&server, "radarflow_room_refused_total{room=\"requests\"}").await > 0);
    let push = async |token: &str, body: String| {
        let request = from(8).post(format!("{}/api/inventories/armis/main", server.http)).bearer_auth(token);
        request.header("content-type", "application/json").body(body).send().await.unwrap().status().as_u16()
    };
    // Who asks for little, and who is somebody else, is answered.
    assert_eq!(push(modest, item.clone()).await, 200);
    server.count("devices", 1).await;
    // More than anybody can have is told so at once.
    let mut never = half_a_document(&server, modest, 60_000_000);
    never.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 413");
    // What ends gives back what it had.
    drop((first, second, never));
    until("nothing is held", async || held(&server).await < 10_000).await;
    let many: Vec<String> = (0..5000).map(|n| armis(n, &format!("10.2.{}.{}", n / 250, n % 250), 1)).collect();
    assert_eq!(push(greedy, format!("[{}]", many.join(","))).await, 200);
    server.count("devices", 5000).await;
    server.stop();
}

#[tokio::test]
async fn a_message_that_finds_no_memory_is_refused_before_it_is_read() {
    let mut home = Home::new("");
    home.config = format!("memory_limit_mib = 1024\n{}", home.config);
    let server = home.start();
    let large = format!("[{}]", vec![armis(1, &"x".repeat(1000), 1); 8000].join(","));
    let refused = server.push("agent", "sync", &large).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    assert!(counted(&server, "radarflow_room_refused_total{room=\"feeds\"}").await > 0);
    server.push("agent", "sync", &format!("[{}]", armis(1, "10.1.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;
    server.stop();
}

#[tokio::test]
async fn an_address_that_opens_connections_without_end_leaves_some_to_others() {
    let mut home = Home::new("");
    home.config = format!("memory_limit_mib = 512\n{}", home.config);
    let server = home.start();
    for listener in ["http", "syslog-tcp", "grpc"] {
        let addr = match listener {
            "http" => server.http.strip_prefix("http://").unwrap().to_owned(),
            _ => server.port(listener).to_string(),
        };
        let kind = listener.trim_end_matches("-tcp");
        let open: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&addr).unwrap()).collect();
        let refused = format!("radarflow_connections_refused_total{{listener=\"{kind}\"}}");
        let taken = format!("radarflow_connections{{listener=\"{kind}\"}}");
        until("all were looked at", async || counted(&server, &refused).await + counted(&server, &taken).await >= 400)
            .await;
        let kept = counted(&server, &taken).await;
        assert!((5..350).contains(&kept), "{listener}: {kept}");
        // Those that were closed know it.
        let closed = open.iter().filter(|stream| {
            stream.set_nonblocking(true).unwrap();
            !matches!({ *stream }.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        });
        assert!(closed.count() as u64 >= 400 - kept - 5, "{listener}");
        // From another address there is room, and from this one when they are gone.
        let others = from(7).get(format!("{}/healthz", server.http)).send().await.unwrap();
        assert_eq!(others.status(), 200);
        drop(open);
        until("they are gone", async || counted(&server, &taken).await < 5).await;
    }
    assert_eq!(server.rows("in:devices").await.len(), 0);
    server.stop();
}
