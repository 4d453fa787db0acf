//! Runs the program and talks to it as its users do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Lines};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use radarflow_proto::grpc::agent_gateway_service_client::AgentGatewayServiceClient;
use radarflow_proto::grpc::{GatewayServiceStatus, GatewayStatusRequest};
use serde_json::{Value, json};
use tonic::transport::Channel;

/// The program, running.
pub struct Server {
    child: Child,
    pub http: String,
    pub token: String,
    ports: HashMap<String, SocketAddr>,
    out: Lines<BufReader<ChildStdout>>,
}

/// A data directory and how the program is configured on it.
pub struct Home {
    pub dir: tempfile::TempDir,
    token: Option<String>,
    pub config: String,
}

impl Home {
    pub fn new(more: &str) -> Self {
        let addr = r#"addr = "127.0.0.1:0""#;
        let mut config = "private_addresses = true\n".to_owned();
        for listener in ["netflow", "sflow", "syslog", "traps", "grpc", "otlp"] {
            config.push_str(&format!("[[{listener}]]\n{addr}\n"));
        }
        config.push_str(&format!("[http]\n{addr}\n{more}\n"));
        Home { dir: tempfile::tempdir().unwrap(), token: None, config }
    }

    pub fn lake(&self, table: &str) -> PathBuf {
        self.dir.path().join("data/lake").join(table)
    }

    /// Starts the program and waits until it is ready.
    pub fn start(&mut self) -> Server {
        let config = self.dir.path().join("radarflow.toml");
        std::fs::write(&config, &self.config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_radarflow"))
            .args(["serve", "--migrate", "--workers", "2", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .env_remove("RADARFLOW_TOKEN")
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut ports = HashMap::new();
        let mut http = None;
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in &mut out {
            let line = line.unwrap();
            if let Some(rest) = line.strip_prefix("listening: ") {
                let (name, addr) = rest.split_once(' ').unwrap();
                ports.insert(name.to_owned(), addr.parse().unwrap());
            } else if let Some(token) = line.strip_prefix("admin token: ") {
                self.token = Some(token.to_owned());
            } else if let Some(url) = line.strip_prefix("ready: ") {
                http = Some(url.to_owned());
                break;
            }
        }
        let http = http.expect("the program says ready");
        Server { child, http, token: self.token.clone().expect("the first start prints a token"), ports, out }
    }
}

impl Server {
    pub fn port(&self, name: &str) -> SocketAddr {
        self.ports[name]
    }

    /// The next line that it prints which begins so.
    pub fn printed(&mut self, begins: &str) -> Option<String> {
        self.out.by_ref().map_while(Result::ok).find(|line| line.starts_with(begins))
    }

    /// Runs a command of the program for its administrator, on a terminal of 80 columns.
    pub fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
        command.args(args).env("RADARFLOW_URL", &self.http).env("RADARFLOW_TOKEN", &self.token);
        command.env("COLUMNS", "80").output().unwrap()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        assert!(Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap().success());
    }

    /// SIGTERM; it must leave with 0 within ten seconds.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().unwrap().success());
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < end, "not stopped within ten seconds");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        self.ask(reqwest::Method::POST, path, token, body).await
    }

    pub async fn ask(&self, method: reqwest::Method, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.http);
        let request = reqwest::Client::new().request(method, url).bearer_auth(token).json(body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub async fn rows_as(&self, token: &str, query: &str) -> Vec<Value> {
        let (status, answer) = self.post("/api/query", token, &json!({"query": query})).await;
        assert_eq!(status, 200, "{query}: {answer}");
        answer["results"].as_array().unwrap().clone()
    }

    pub async fn rows(&self, query: &str) -> Vec<Value> {
        self.rows_as(&self.token, query).await
    }

    /// Asks until the answer is as it should be. The ledger's epochs go on meanwhile; nothing is waited for by luck.
    pub async fn until(&self, query: &str, right: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let rows = self.rows(query).await;
            if right(&rows) {
                return rows;
            }
            assert!(Instant::now() < end, "{query}: {rows:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn count(&self, entity: &str, n: u64) {
        self.until(&format!("in:{entity} stats:count()"), |rows| {
            rows.first().is_some_and(|r| r["count"] == n) || (n == 0 && rows.is_empty())
        })
        .await;
    }

    pub async fn metrics(&self) -> String {
        reqwest::get(format!("{}/metrics", self.http)).await.unwrap().text().await.unwrap()
    }

    /// Waits until a metric's line is there.
    pub async fn metric(&self, line: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let text = self.metrics().await;
            if text.lines().any(|l| l == line) {
                return;
            }
            assert!(Instant::now() < end, "{line} is not among\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn grpc(&self) -> AgentGatewayServiceClient<Channel> {
        let endpoint = Channel::from_shared(format!("http://{}", self.port("grpc"))).unwrap();
        AgentGatewayServiceClient::new(endpoint.connect().await.unwrap())
    }

    /// Pushes results; returns when they are durable.
    pub async fn push(&self, agent: &str, kind: &str, message: &str) -> Result<(), tonic::Status> {
        self.grpc().await.push_status(status(agent, kind, message)).await.map(|_| ())
    }

    pub fn send(&self, port: &str, datagrams: &[Vec<u8>]) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for datagram in datagrams {
            socket.send_to(datagram, self.port(port)).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn status(agent: &str, kind: &str, message: &str) -> GatewayStatusRequest {
    GatewayStatusRequest {
        services: vec![GatewayServiceStatus {
            service_name: kind.into(),
            available: true,
            message: message.as_bytes().to_vec().into(),
            service_type: kind.into(),
            source: "results".into(),
            ..Default::default()
        }],
        agent_id: agent.into(),
        ..Default::default()
    }
}

/// A NetBox item.
pub fn netbox(id: &str, ip: &str, host: &str) -> String {
    format!(
        r#"{{"source":"netbox","ip":"{ip}","hostname":"{host}","timestamp":1700000000,"metadata":{{"netbox_device_id":"{id}"}},"sync_meta":{{"sync_service_id":"n1"}}}}"#
    )
}

/// An Armis item.
pub fn armis(id: usize, ip: &str, second: i64) -> String {
    format!(
        r#"{{"source":"armis","ip":"{ip}","hostname":"host-{id}","timestamp":{},"metadata":{{"armis_device_id":"{id}"}},"sync_meta":{{"sync_service_id":"a1"}}}}"#,
        1_700_000_000 + second
    )
}

fn tlv(tag: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[tag, body.len() as u8], body].concat()
}

/// A v2c notification, inform or trap, with `n` as request id and as the value of ifIndex.
pub fn notification(inform: bool, trap: u8, n: u16) -> Vec<u8> {
    let binding = |oid: &[u8], value: Vec<u8>| tlv(0x30, &[tlv(6, oid), value].concat());
    let number = tlv(2, &[0, (n >> 8) as u8, n as u8]);
    let bindings = [
        binding(&[0x2b, 6, 1, 2, 1, 1, 3, 0], tlv(0x43, &[1])),
        binding(&[0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0], tlv(6, &[0x2b, 6, 1, 6, 3, 1, 1, 5, trap])),
        binding(&[0x2b, 6, 1, 2, 1, 2, 2, 1, 1, 3], number.clone()),
    ]
    .concat();
    let pdu = [number, tlv(2, &[0]), tlv(2, &[0]), tlv(0x30, &bindings)].concat();
    let tag = if inform { 0xa6 } else { 0xa7 };
    tlv(0x30, &[tlv(2, &[1]), tlv(4, b"secret"), tlv(tag, &pdu)].concat())
}

/// Rows of a lake table, read from its files alone.
pub async fn lake_count(path: &Path) -> usize {
    use datafusion::prelude::SessionContext;
    let url = deltalake::table::builder::ensure_table_uri(path.to_string_lossy()).unwrap();
    let table = deltalake::DeltaTable::try_from_url(url).await.unwrap();
    if table.version().is_none() || table.get_file_uris().unwrap().next().is_none() {
        return 0;
    }
    let provider = radarflow_lake::files(&table).unwrap();
    SessionContext::new().read_table(provider).unwrap().count().await.unwrap()
}
