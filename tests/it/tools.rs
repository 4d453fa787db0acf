//! The tools that operators have, talking to us: exporters, loggers, trap senders, a gRPC client of another language,
//! readers of the lake, Alertmanager. Each says a known number of things; all of them are counted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Home, Server};

fn run(command: &mut Command) -> Output {
    let output =
        command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; `deploy/services.sh install` brings it"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A tool that Debian may put where only root looks.
fn tool(name: &str) -> PathBuf {
    let sbin = Path::new("/usr/sbin").join(name);
    if sbin.exists() { sbin } else { PathBuf::from(name) }
}

pub(crate) fn python(script: &str, args: &[&str]) -> String {
    let python = std::env::var("RADARFLOW_TEST_PYTHON").expect("eval \"$(deploy/services.sh up)\" names it");
    // The readers' own threads sometimes abort an interpreter that ends in the ordinary way, with all work done.
    let script = format!("{script}\nimport os, sys\nsys.stdout.flush()\nos._exit(0)\n");
    let output = run(Command::new(python).args(["-c", &script]).args(args));
    String::from_utf8(output.stdout).unwrap()
}

/// A capture of `flows` UDP flows with `packets` packets each, 100 bytes a packet from the IP header on.
fn capture(path: &Path, flows: u8, packets: u32) {
    let mut out = Vec::new();
    out.extend(0xa1b2_c3d4u32.to_le_bytes());
    out.extend([2u16, 4].iter().flat_map(|n| n.to_le_bytes()));
    out.extend([0u32, 0, 65_535, 1].iter().flat_map(|n| n.to_le_bytes()));
    for packet in 0..packets {
        for flow in 0..flows {
            let ip = [
                &[0x45u8, 0, 0, 100, 0, packet as u8, 0, 0, 64, 17, 0, 0][..],
                &[10, 50, 0, flow, 10, 60, 0, 1],
                &[0x13, flow, 0, 53, 0, 80, 0, 0],
                &[0; 72],
            ]
            .concat();
            let frame = [&[2u8, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &ip].concat();
            out.extend([1_700_000_000 + packet, 1000 * u32::from(flow)].iter().flat_map(|n| n.to_le_bytes()));
            out.extend([frame.len() as u32, frame.len() as u32].iter().flat_map(|n| n.to_le_bytes()));
            out.extend(frame);
        }
    }
    std::fs::write(path, out).unwrap();
}

#[tokio::test]
async fn softflowd_exports_and_all_readers_count_the_same() {
    let mut home = Home::new("");
    let server = home.start();
    let pcap = home.dir.path().join("net.pcap");
    capture(&pcap, 12, 5);
    for version in ["5", "9", "10"] {
        let to = server.port("netflow").to_string();
        let control = home.dir.path().join(format!("ctl{version}"));
        run(Command::new(tool("softflowd"))
            .args(["-d", "-n", &to, "-v", version, "-p"])
            .arg(home.dir.path().join("pid"))
            .arg("-c")
            .arg(control)
            .arg("-r")
            .arg(&pcap));
    }
    server.count("flows", 36).await;
    // IPFIX over TCP: another exporter, as it has another address.
    run(Command::new(tool("softflowd"))
        .args(["-d", "-n", &server.port("ipfix-tcp").to_string(), "-v", "10", "-P", "tcp", "-p"])
        .arg(home.dir.path().join("pid"))
        .arg("-c")
        .arg(home.dir.path().join("ctl-tcp"))
        .arg("-r")
        .arg(&pcap));
    server.count("flows", 48).await;
    let sums = "in:flows stats:\"count() as n, sum(bytes_raw) as b, sum(packets_raw) as p by flow_type\" \
                sort:flow_type:asc";
    let rows = server.rows(sums).await;
    let of = |v: &str, n: u64| json!({"flow_type": v, "n": 12 * n, "b": 6000 * n, "p": 60 * n});
    assert_eq!(rows, [of("ipfix", 2), of("netflow_v5", 1), of("netflow_v9", 1)]);
    server.stop();
    let script = "
import sys, json, duckdb, deltalake
table = deltalake.DeltaTable(sys.argv[1])
files = [u.removeprefix('file://') for u in table.file_uris()]
n, b, p = duckdb.sql(f'select count(*), sum(bytes_raw), sum(packets_raw) from read_parquet({files!r})').fetchall()[0]
print(json.dumps([int(n), int(b), int(p), table.to_pyarrow_table().num_rows]))
";
    let read: Value = serde_json::from_str(&python(script, &[home.lake("flows").to_str().unwrap()])).unwrap();
    assert_eq!(read, json!([48, 24_000, 240, 48]));
}

#[tokio::test]
async fn logger_and_net_snmp_are_understood() {
    let mut home = Home::new("");
    let server = home.start();
    let lines = home.dir.path().join("lines");
    std::fs::write(&lines, (0..40).map(|i| format!("line {i}\n")).collect::<String>()).unwrap();
    let (udp, tcp) = (server.port("syslog").port().to_string(), server.port("syslog-tcp").port().to_string());
    for (port, transport, format) in [
        (&udp, "--udp", "--rfc3164"),
        (&udp, "--udp", "--rfc5424"),
        (&tcp, "--tcp", "--rfc5424"),
        (&tcp, "--tcp", "--rfc3164"),
    ] {
        run(Command::new("logger")
            .args(["--server", "127.0.0.1", "--port", port, transport, format, "-p", "local3.warning", "-t", "probe"])
            .args(["--socket-errors=on", "-f"])
            .arg(&lines));
    }
    run(Command::new("logger")
        .args(["--server", "127.0.0.1", "--port", &tcp, "--tcp", "--octet-count", "--rfc5424", "-t", "probe", "-f"])
        .arg(&lines));
    server.count("logs", 200).await;
    let by = server.rows("in:logs severity:warning service_name:probe stats:\"count() as n by facility\"").await;
    assert_eq!(by, [json!({"facility": 19, "n": 160})]);
    assert_eq!(server.rows("in:logs body:\"line 39\"").await.len(), 5);

    let to = server.port("traps").to_string();
    let mibs = |c: &mut Command| run(c.env("MIBS", "").env("SNMP_PERSISTENT_DIR", home.dir.path()));
    mibs(Command::new("snmptrap").args(["-v1", "-c", "hush", &to, ".1.3.6.1.4.1.8072.9", "10.7.7.7", "2", "0", "99"]));
    mibs(Command::new("snmptrap").args(["-v2c", "-c", "hush", &to, "99", ".1.3.6.1.6.3.1.1.5.3"]));
    // It waits for the acknowledgement and fails without one.
    mibs(Command::new("snmpinform").args(["-v2c", "-c", "hush", &to, "99", ".1.3.6.1.6.3.1.1.5.4"]));
    server.count("traps", 3).await;
    let traps = serde_json::to_string(&server.rows("in:traps").await).unwrap();
    // Link down by its generic number, of the agent that the v1 message names.
    assert!(traps.contains("10.7.7.7") && traps.contains("1.3.6.1.6.3.1.1.5.3") && !traps.contains("hush"), "{traps}");
    server.stop();
}

/// net-snmp as a sender of v3: its traps are under its own engine, its informs under ours, which it asks for.
#[tokio::test]
async fn net_snmp_speaks_v3_to_us() {
    const USERS: [(&str, &str, &str); 6] = [
        ("open", "", ""),
        ("md5", "md5", ""),
        ("sha1des", "sha1", "des"),
        ("sha1aes", "sha1", "aes128"),
        ("sha256aes", "sha256", "aes128"),
        ("sha512aes256", "sha512", "aes256"),
    ];
    let mut home = Home::new("");
    for (name, auth, privacy) in USERS {
        let said = |how: &str, what: &str| match what {
            "" => String::new(),
            what => format!("{how} = \"{what}\"\n{how}_password = \"{how}-of-{name}\"\n"),
        };
        home.config.push_str(&format!("[[snmp_users]]\nname = \"{name}\"\n"));
        home.config.push_str(&(said("auth", auth) + &said("privacy", privacy)));
    }
    let server = home.start();
    let persistent = home.dir.path().to_owned();
    let command = |server: &Server, program: &str, user: (&str, &str, &str), password: &str| {
        let (name, auth, privacy) = user;
        let level = ["noAuthNoPriv", "authNoPriv", "authPriv"]
            [usize::from(!auth.is_empty()) + usize::from(!privacy.is_empty())];
        let mut command = Command::new(program);
        command.env("MIBS", "").env("SNMP_PERSISTENT_DIR", &persistent);
        command.args(["-v3", "-r", "1", "-t", "10", "-u", name, "-l", level, "-n", "vrf-a"]);
        if program == "snmptrap" {
            command.args(["-e", "0x80001f880472747231"]);
        }
        let named = |name: &str| match name {
            "sha1" => "SHA".to_owned(),
            "aes128" => "AES".to_owned(),
            other => other.to_uppercase().replace("SHA", "SHA-").replace("AES", "AES-"),
        };
        for (how, key, what) in [("auth", ["-a", "-A"], auth), ("privacy", ["-x", "-X"], privacy)] {
            if !what.is_empty() {
                command.args([key[0], &named(what), key[1], &format!("{how}{password}-of-{name}")]);
            }
        }
        command.args([
            &server.port("traps").to_string(),
            "99",
            ".1.3.6.1.6.3.1.1.5.3",
            ".1.3.6.1.2.1.2.2.1.1.3",
            "i",
            "3",
        ]);
        command
    };
    let sent = 2 * USERS.len() as u64;
    for user in USERS {
        run(&mut command(&server, "snmptrap", user, ""));
        run(&mut command(&server, "snmpinform", user, ""));
    }
    server.count("traps", sent).await;
    let rows = server.rows("in:traps sort:user_name:asc,inform:asc").await;
    for row in rows {
        let (name, auth, privacy) = *USERS.iter().find(|(name, ..)| row["user_name"] == *name).unwrap();
        let level = if auth.is_empty() {
            "noAuthNoPriv"
        } else if privacy.is_empty() {
            "authNoPriv"
        } else {
            "authPriv"
        };
        assert_eq!(
            (&row["version"], &row["security_level"], &row["context_name"]),
            (&json!("v3"), &json!(level), &json!("vrf-a"))
        );
        assert_eq!(
            (&row["trap_name"], &row["varbinds"]["1.3.6.1.2.1.2.2.1.1.3"]),
            (&json!("linkDown"), &json!("3")),
            "{name}"
        );
        let engine = row["engine_id"].as_str().unwrap();
        assert_eq!(engine == "80001f880472747231", row["inform"] == false, "{name}: {engine}");
    }
    // Who does not know the password is not answered as if he did, and it is told why.
    let refused = command(&server, "snmpinform", USERS[3], "-not").output().unwrap();
    assert!(!refused.status.success());
    run(&mut command(&server, "snmptrap", USERS[3], "-not"));
    let rejects = server.until("in:rejects sort:time:asc", |rows| rows.len() >= 2).await;
    assert!(
        rejects
            .iter()
            .all(|row| row["reason"].as_str().unwrap().starts_with("the digest is not that of user `sha1aes`"))
    );
    server.count("traps", sent).await;
    // A start later our time is another: a sender that knew it is told so, and goes on.
    server.stop();
    let server = home.start();
    run(&mut command(&server, "snmpinform", USERS[4], ""));
    server.count("traps", sent + 1).await;
    server.stop();
}

#[tokio::test]
async fn a_python_client_made_from_the_proto_file_is_served() {
    let mut home = Home::new("");
    let server = home.start();
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/proto/monitoring.proto");
    let script = "
import sys, os, json, importlib, grpc
from grpc_tools import protoc
proto, out, addr = sys.argv[1:4]
assert protoc.main(['', '-I' + os.path.dirname(proto), '--python_out=' + out, '--grpc_python_out=' + out, proto]) == 0
sys.path.insert(0, out)
pb, stub = importlib.import_module('monitoring_pb2'), importlib.import_module('monitoring_pb2_grpc')
agent = stub.AgentGatewayServiceStub(grpc.insecure_channel(addr))
assert agent.Hello(pb.AgentHelloRequest(agent_id='py-1', hostname='box')).accepted
def chunk(i, n):
    hosts = [dict(host=f'10.70.{i}.{k}', available=True, last_seen=1700000000) for k in range(10)]
    service = pb.GatewayServiceStatus(service_name='sweep', available=True, service_type='sweep', source='results',
                                      message=json.dumps(dict(hosts=hosts)).encode())
    return pb.GatewayStatusChunk(services=[service], agent_id='py-1', chunk_index=i, total_chunks=n, is_final=i + 1 == n)
assert agent.StreamStatus(iter([chunk(i, 3) for i in range(3)])).received
try:
    agent.StreamStatus(iter([chunk(0, 3), chunk(2, 3)]))
    raise SystemExit('a hole in the chunks was accepted')
except grpc.RpcError as refused:
    assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT, refused
";
    let out = home.dir.path().to_str().unwrap();
    python(script, &[proto.to_str().unwrap(), out, &server.port("grpc").to_string()]);
    // Thirty hosts, and the agent itself.
    server.count("devices", 31).await;
    server.until("in:agents agent_id:py-1 state:connected", |r| r.len() == 1).await;
    server.stop();
}

struct Alertmanager(Child);

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn alertmanager(dir: &Path) -> (Alertmanager, String) {
    let config = dir.join("alertmanager.yml");
    std::fs::write(&config, "route: {receiver: none}\nreceivers: [{name: none}]\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new(tool("prometheus-alertmanager"))
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", dir.join("am").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .arg("--cluster.listen-address=")
        .stderr(Stdio::null())
        .spawn()
        .expect("prometheus-alertmanager; `deploy/services.sh install` brings it");
    let url = format!("http://127.0.0.1:{port}");
    let end = Instant::now() + Duration::from_secs(20);
    while reqwest::get(format!("{url}/-/ready")).await.is_err() {
        assert!(Instant::now() < end, "alertmanager does not start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    (Alertmanager(child), url)
}

async fn alerts_of(url: &str) -> Vec<Value> {
    reqwest::get(format!("{url}/api/v2/alerts")).await.unwrap().json().await.unwrap()
}

async fn until_alerts(url: &str, right: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let alerts = alerts_of(url).await;
        if right(&alerts) {
            return alerts;
        }
        assert!(Instant::now() < end, "{alerts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn sweep(host: &str, up: bool) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    format!(r#"{{"hosts":[{{"host":"{host}","available":{up},"last_seen":{now}}}]}}"#)
}

async fn goes_down(server: &Server, host: &str) {
    server.push("v", "sweep", &sweep(host, true)).await.unwrap();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        server.push("v", "sweep", &sweep(host, false)).await.unwrap();
    }
}

#[tokio::test]
async fn alertmanager_takes_firing_and_resolved_also_with_a_kill_between() {
    let mut home = Home::new("");
    let (_alertmanager, url) = alertmanager(home.dir.path()).await;
    home.config.push_str(&format!(
        "[[receivers]]\nname = \"am\"\nurl = \"{url}\"\nkind = \"alertmanager_api\"\n\
         group_wait_ms = 0\ngroup_interval_ms = 200\n"
    ));
    let server = home.start();
    goes_down(&server, "10.0.0.9").await;
    let firing = until_alerts(&url, |a| a.len() == 1).await;
    assert_eq!(firing[0]["labels"]["alertname"], "device-offline");
    assert_eq!(firing[0]["status"]["state"], "active");
    server.kill();
    let server = home.start();
    server.push("v", "sweep", &sweep("10.0.0.9", true)).await.unwrap();
    until_alerts(&url, |a| a.is_empty()).await;
    server.stop();
}
