//! Agents at other places: enrolled by a token, once; let in by their certificates, which are renewed on the way; kept out at
//! once when they are revoked. The authority is the tenant's own, and nobody makes a file for it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use flate2::read::GzDecoder;
use radarflow_proto::grpc::AgentHelloRequest;
use radarflow_proto::grpc::agent_gateway_service_client::AgentGatewayServiceClient;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::server::{Home, Server};

/// A server whose gateway is for enrolled agents.
pub(crate) fn home() -> Home {
    let mut home = Home::new("");
    let grpc = "[[grpc]]\naddr = \"127.0.0.1:0\"\n";
    home.config = home.config.replace(grpc, &format!("{grpc}tenant = \"default\"\nnames = [\"127.0.0.1\"]\n"));
    home
}

/// What a command prints that succeeds.
#[track_caller]
fn said(server: &Server, args: &[&str]) -> String {
    let output = server.command(args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What a command says that fails.
#[track_caller]
fn refused(server: &Server, args: &[&str]) -> String {
    let output = server.command(args);
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The id and the token of a package.
fn package(server: &Server, agent: &str) -> (String, String) {
    let said = said(server, &["edge", "create", "--agent", agent, "--site", "dc7"]);
    let after = |begins: &str| said.lines().find_map(|line| line.strip_prefix(begins)).unwrap().to_owned();
    (after("package "), after("token: "))
}

/// An agent of a data directory, killed when it is dropped.
struct Agent(Child);

impl Agent {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
        command.args(["agent", "--data-dir"]).arg(dir).stdin(Stdio::null());
        Agent(command.env_remove("RADARFLOW_AGENT").env_remove("RADARFLOW_GATEWAY").spawn().unwrap())
    }

    fn hang_up(&self) {
        assert!(Command::new("kill").args(["-HUP", &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the package as it is wanted, and gives its row.
async fn stands(server: &Server, id: &str, is: impl Fn(&Value) -> bool) -> Value {
    let query = format!("in:edge_packages package_id:{id}");
    server.until(&query, |rows| rows.len() == 1 && is(&rows[0])).await.remove(0)
}

async fn until_state(server: &Server, agent: &str, state: &str) {
    let query = format!("in:agents agent_id:{agent} partition:dc7");
    server.until(&query, |rows| rows.len() == 1 && rows[0]["state"] == state).await;
}

#[tokio::test]
async fn an_agent_is_enrolled_once_renews_its_certificate_and_is_out_when_it_is_revoked() {
    let mut home = home();
    let server = home.start();
    let (id, token) = package(&server, "edge-1");
    assert_eq!(stands(&server, &id, |_| true).await["status"], "created");
    // Another package of the same agent would be another agent.
    let again = refused(&server, &["edge", "create", "--agent", "edge-1", "--site", "dc7"]);
    assert!(again.contains("has package") && again.contains(&id), "{again}");

    let dir = home.dir.path().join("edge-1");
    let data_dir = dir.to_str().unwrap();
    let enroll = ["agent", "enroll", &token, "--data-dir", data_dir];
    let enrolled = said(&server, &enroll);
    assert!(enrolled.contains("enrolled as edge-1 of partition dc7"), "{enrolled}");
    let package = stands(&server, &id, |package| package["status"] == "downloaded").await;
    assert!(package["expires_at"].is_null() && package["certificate_expires_at"].is_string(), "{package}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(dir.join("identity.json")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    // Whose answer was lost asks again with the key that it kept.
    let lost: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("identity.json")).unwrap()).unwrap();
    std::fs::write(dir.join("enrolment.key"), lost["key"].as_str().unwrap()).unwrap();
    std::fs::remove_file(dir.join("identity.json")).unwrap();
    said(&server, &enroll);
    let package = stands(&server, &id, |now| now["fingerprint"] != package["fingerprint"]).await;
    let serial = package["serial"].as_str().unwrap().to_owned();
    assert!(!dir.join("enrolment.key").exists());

    // The token is spent, for whoever has it, and somebody is told so.
    let other = home.dir.path().join("other");
    let spent = refused(&server, &["agent", "enroll", &token, "--data-dir", other.to_str().unwrap()]);
    assert!(spent.contains("downloaded already"), "{spent}");
    assert!(refused(&server, &enroll).contains("enrolled in"));
    server
        .until("in:audit subject:edge-1", |rows| rows.iter().any(|row| row.to_string().contains("downloaded already")))
        .await;

    let first = std::fs::read_to_string(dir.join("identity.json")).unwrap();
    let agent = Agent::start(&dir);
    until_state(&server, "edge-1", "connected").await;
    stands(&server, &id, |package| package["status"] == "installed").await;
    // Renewed while it runs: the agent comes again with the new one.
    agent.hang_up();
    let renewed = stands(&server, &id, |package| package["serial"] != json!(serial)).await;
    assert!(renewed["fingerprint"] != package["fingerprint"], "{renewed}");
    // Once it has used that, the one before lets nobody in.
    stands(&server, &id, |package| package["previous_fingerprint"].is_null()).await;
    let before: Value = serde_json::from_str(&first).unwrap();
    let text = |name: &str| before[name].as_str().unwrap();
    let old = greet(&server, "edge-1", text("certificate"), text("key"), text("authorities")).await;
    assert!(old.is_err(), "{old:?}");
    let identity = std::fs::read_to_string(dir.join("identity.json")).unwrap();
    server.metric("radarflow_connections{listener=\"grpc\"} 1").await;

    // After a restart it is known all the same.
    server.stop();
    let server = home.start();
    drop(agent);
    // Its gateway is at another port now, which tests alone do.
    let port = server.port("grpc").port();
    let at = serde_json::from_str::<Value>(&identity).unwrap()["gateway"].as_str().unwrap().to_owned();
    std::fs::write(dir.join("identity.json"), identity.replace(&at, &format!("127.0.0.1:{port}"))).unwrap();
    let agent = Agent::start(&dir);
    server.metric("radarflow_connections{listener=\"grpc\"} 1").await;
    until_state(&server, "edge-1", "connected").await;

    let revoked = said(&server, &["edge", "revoke", &id, "--reason", "lost"]);
    assert!(revoked.contains("edge-1"), "{revoked}");
    server.metric("radarflow_connections{listener=\"grpc\"} 0").await;
    let package = stands(&server, &id, |package| package["status"] == "revoked").await;
    assert_eq!((&package["revoked_because"], package["revoked_at"].is_string()), (&json!("lost"), true), "{package}");
    let hello = hello(&server, &dir).await;
    assert!(hello.is_err(), "{hello:?}");
    drop(agent);
    server.stop();

    // And after another.
    let server = home.start();
    let port = server.port("grpc").port();
    let identity = std::fs::read_to_string(dir.join("identity.json")).unwrap();
    let at = serde_json::from_str::<Value>(&identity).unwrap()["gateway"].as_str().unwrap().to_owned();
    std::fs::write(dir.join("identity.json"), identity.replace(&at, &format!("127.0.0.1:{port}"))).unwrap();
    assert!(self::hello(&server, &dir).await.is_err());
    // Its name is free for another.
    let (_, token) = self::package(&server, "edge-1");
    said(&server, &["agent", "enroll", &token, "--data-dir", data_dir, "--force"]);
    self::hello(&server, &dir).await.unwrap();
    server.stop();
}

/// Says hello with the identity of a data directory.
async fn hello(server: &Server, dir: &Path) -> Result<bool, String> {
    let identity: Value = serde_json::from_slice(&std::fs::read(dir.join("identity.json")).unwrap()).unwrap();
    let text = |name: &str| identity[name].as_str().unwrap().to_owned();
    greet(server, &text("agent_id"), &text("certificate"), &text("key"), &text("authorities")).await
}

async fn greet(server: &Server, agent: &str, certificate: &str, key: &str, authorities: &str) -> Result<bool, String> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authorities))
        .identity(Identity::from_pem(certificate, key));
    let endpoint = Channel::from_shared(format!("https://{}", server.port("grpc"))).unwrap().tls_config(tls).unwrap();
    let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
    let request = AgentHelloRequest { agent_id: agent.to_owned(), ..AgentHelloRequest::default() };
    let hello = AgentGatewayServiceClient::new(channel).hello(request).await;
    hello.map(|hello| hello.into_inner().accepted).map_err(|status| format!("{status:?}"))
}

#[tokio::test]
async fn an_archive_is_what_serviceradars_command_line_expects_and_is_given_once() {
    let mut home = home();
    let server = home.start();
    let (id, token) = package(&server, "edge-2");
    // As that reads it: a payload, and a signature of just these bytes.
    use base64::Engine as _;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (payload, signature) = token.strip_prefix("edgepkg-v2:").unwrap().split_once('.').unwrap();
    let (payload, signature) = (text.decode(payload).unwrap(), text.decode(signature).unwrap());
    let key = said(&server, &["edge", "public-key"]);
    let key = base64::engine::general_purpose::STANDARD.decode(key.trim()).unwrap();
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key);
    key.verify(&payload, &signature).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(payload["pkg"], json!(id));
    let secret = payload["dl"].as_str().unwrap();

    let http = reqwest::Client::new();
    let url = |id: &str| format!("{}/api/edge-packages/{id}/bundle", server.http);
    let ask = async |id: &str, token: &str| {
        http.post(url(id)).header("X-ServiceRadar-Download-Token", token).send().await.unwrap()
    };
    // Neither another token nor another package, and no state of theirs.
    let other = self::package(&server, "edge-3").0;
    for (id, token) in [(id.as_str(), "rf_wrong"), (&other, secret), ("nothing", secret), (&id, "")] {
        assert_eq!(ask(id, token).await.status(), StatusCode::UNAUTHORIZED, "{id} {token}");
    }
    assert_eq!(stands(&server, &id, |_| true).await["status"], "created");
    // Of several at once one gets it.
    let answers = futures::future::join_all((0..4).map(|_| ask(&id, secret))).await;
    let mut given = Vec::new();
    for answer in answers {
        match answer.status() {
            StatusCode::OK => given.push(answer.bytes().await.unwrap()),
            status => assert_eq!(status, StatusCode::CONFLICT),
        }
    }
    assert_eq!(given.len(), 1);
    assert_eq!(ask(&id, secret).await.status(), StatusCode::CONFLICT);

    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(GzDecoder::new(&given[0][..]));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let (folder, name) = path.split_once('/').unwrap();
        assert_eq!(folder, format!("edge-package-{}", &id[..8]));
        files.insert(name.to_owned(), text);
    }
    let file = |name: &str| files.get(name).unwrap_or_else(|| panic!("{name}: {:?}", files.keys())).as_str();
    let configuration: Value = serde_json::from_str(file("config/config.json")).unwrap();
    let gateway = format!("127.0.0.1:{}", server.port("grpc").port());
    assert_eq!((&configuration["agent_id"], &configuration["partition"]), (&json!("edge-2"), &json!("dc7")));
    assert_eq!(
        (&configuration["gateway_addr"], &configuration["gateway_security"]["mode"]),
        (&json!(gateway), &json!("mtls"))
    );
    let (certificate, key) = (file("certs/component.pem"), file("certs/component-key.pem"));
    let authorities = file("certs/ca-chain.pem");
    assert!(greet(&server, "edge-2", certificate, key, authorities).await.unwrap());
    // It is that agent and no other.
    let posing = greet(&server, "edge-3", certificate, key, authorities).await.unwrap_err();
    assert!(posing.contains("PermissionDenied"), "{posing}");
    let shell = Command::new("sh").arg("-n").stdin(Stdio::piped()).spawn().and_then(|mut shell| {
        std::io::Write::write_all(shell.stdin.as_mut().unwrap(), file("install.sh").as_bytes())?;
        shell.wait()
    });
    assert!(shell.unwrap().success());
    // Nothing that is kept or told has what lets anybody in.
    let rows = server.rows("in:edge_packages").await;
    let authorities = server.rows("in:certificate_authorities").await;
    let told = format!("{rows:?}{authorities:?}");
    assert!(authorities.len() == 1 && !told.contains(secret) && !told.contains("PRIVATE KEY"), "{told}");
    server.stop();
    let kept = walk(&home.dir.path().join("data"));
    for wanted in [secret, "PRIVATE KEY"] {
        let found: Vec<_> =
            kept.iter().filter(|(_, bytes)| memchr(bytes, wanted.as_bytes())).map(|(path, _)| path).collect();
        assert!(found.is_empty(), "{wanted}: {found:?}");
    }
}

fn memchr(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Every file below a folder.
fn walk(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap())),
        }
    }
    files
}
