//! Agents are who their certificate says, in the tenant and partition of their certificate, or they are nobody; the API and
//! syslog are encrypted where they have certificates.

use std::io::Write;
use std::process::{Command, Stdio};

use radarflow_proto::grpc::AgentHelloRequest;
use radarflow_proto::grpc::agent_gateway_service_client::AgentGatewayServiceClient;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use crate::server::{Home, Server, status};

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key.
    fn sign(&self, name: &str, san: Option<SanType>) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.extend(san);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

async fn connect(
    server: &Server,
    ca: &Ca,
    identity: Option<(String, String)>,
) -> Result<AgentGatewayServiceClient<Channel>, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca.pem)).domain_name("gateway.test");
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Channel::from_shared(format!("https://{}", server.port("grpc"))).unwrap().tls_config(tls)?;
    Ok(AgentGatewayServiceClient::new(endpoint.connect().await?))
}

fn hello(agent: &str, partition: &str) -> AgentHelloRequest {
    AgentHelloRequest { agent_id: agent.into(), partition: partition.into(), ..Default::default() }
}

/// A server whose gateway has a certificate of one authority; the files are named as in the test.
fn gateway(home: &mut Home, ca: &Ca) -> Server {
    write(home, ca);
    let grpc = "[[grpc]]\naddr = \"127.0.0.1:0\"\n";
    let path = |name: &str| home.dir.path().join(name).display().to_string();
    let (certificate, key, ca) = (path("gateway.pem"), path("gateway.key"), path("ca.pem"));
    let tls = format!("tls = {{ certificate = {certificate:?}, key = {key:?}, client_ca = {ca:?} }}\n");
    home.config = home.config.replace(grpc, &format!("{grpc}tenant = \"default\"\n{tls}"));
    home.start()
}

/// Writes a gateway's certificate and its authority.
fn write(home: &Home, ca: &Ca) {
    let (certificate, key) = ca.sign("gateway", Some(SanType::DnsName("gateway.test".try_into().unwrap())));
    for (name, text) in [("gateway.pem", &certificate), ("gateway.key", &key), ("ca.pem", &ca.pem)] {
        std::fs::write(home.dir.path().join(name), text).unwrap();
    }
}

#[tokio::test]
async fn certificates_are_exchanged_while_the_gateway_listens() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let mut home = Home::new("");
    let mut server = gateway(&mut home, &old);
    let agent = |ca: &Ca| Some(ca.sign("agent-7.dc9.serviceradar.local", None));
    let mut connected = connect(&server, &old, agent(&old)).await.unwrap();
    connected.hello(hello("agent-7", "dc9")).await.unwrap();

    write(&home, &new);
    server.hang_up();
    let exchanged = server.printed("  certificate ").unwrap();
    assert!(exchanged.ends_with("gateway.pem"), "{exchanged}");
    connect(&server, &new, agent(&new)).await.unwrap().hello(hello("agent-7", "dc9")).await.unwrap();
    // Who is connected stays; who comes with the old ones is refused.
    connected.hello(hello("agent-7", "dc9")).await.unwrap();
    let refused = match connect(&server, &new, agent(&old)).await {
        Ok(mut stranger) => stranger.hello(hello("agent-7", "dc9")).await.is_err(),
        Err(_) => true,
    };
    assert!(refused && connect(&server, &old, agent(&old)).await.is_err());
    server.stop();
}

#[tokio::test]
async fn an_agent_is_who_its_certificate_says() {
    let (ca, other_ca) = (Ca::new("agents"), Ca::new("somebody"));
    let mut home = Home::new("");
    let server = gateway(&mut home, &ca);

    let named = ca.sign("agent-7.dc9.serviceradar.local", None);
    let mut agent = connect(&server, &ca, Some(named)).await.unwrap();
    assert!(agent.hello(hello("agent-7", "elsewhere")).await.unwrap().into_inner().accepted);
    let refused = agent.hello(hello("agent-8", "dc9")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    let sweep = r#"{"hosts":[{"host":"10.0.0.1","available":true}]}"#;
    let mut push = status("agent-7", "sweep", sweep);
    push.partition = "elsewhere".into();
    push.services[0].partition = "elsewhere".into();
    agent.push_status(push).await.unwrap();
    server.until("in:devices partition:dc9", |r| r.len() == 1).await;
    server.until("in:agents agent_id:agent-7 partition:dc9", |r| r.len() == 1).await;
    assert_eq!(server.rows("in:devices partition:elsewhere").await.len(), 0);

    let spiffe = SanType::URI("spiffe://trust.test/agent/dc5/agent-5".try_into().unwrap());
    let mut agent = connect(&server, &ca, Some(ca.sign("anything", Some(spiffe)))).await.unwrap();
    assert!(agent.hello(hello("agent-5", "")).await.unwrap().into_inner().accepted);
    server.until("in:agents agent_id:agent-5 partition:dc5", |r| r.len() == 1).await;

    // No certificate, one of another authority, one that names nobody: nothing is served.
    for identity in [None, Some(other_ca.sign("agent-7.dc9.serviceradar.local", None)), Some(ca.sign("nobody", None))] {
        let served = match connect(&server, &ca, identity).await {
            Ok(mut agent) => agent.hello(hello("agent-7", "dc9")).await.is_ok(),
            Err(_) => false,
        };
        assert!(!served);
    }
    // And not in plaintext.
    assert!(server.push("agent-7", "sweep", sweep).await.is_err());
    server.stop();
}

/// What openssl says to a listener.
fn say(server: &Server, ca: &std::path::Path, messages: &[u8]) {
    let mut openssl = Command::new("openssl")
        .args([
            "s_client",
            "-quiet",
            "-no_ign_eof",
            "-verify_return_error",
            "-verify_hostname",
            "gateway.test",
            "-connect",
        ])
        .args([&server.port("syslog-tls").to_string(), "-CAfile", &ca.display().to_string()])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(messages).unwrap();
    openssl.wait().unwrap();
}

#[tokio::test]
async fn the_api_and_syslog_are_encrypted_where_they_have_certificates() {
    let ca = Ca::new("ours");
    let mut home = Home::new("");
    write(&home, &ca);
    let path = |name: &str| home.dir.path().join(name);
    let tls = format!("tls = {{ certificate = {:?}, key = {:?} }}\n", path("gateway.pem"), path("gateway.key"));
    let authority = path("ca.pem");
    let addr = "addr = \"127.0.0.1:0\"\n";
    home.config = home.config.replace(&format!("[http]\n{addr}"), &format!("[http]\n{addr}{tls}"));
    home.config.push_str(&format!("[[syslog_tls]]\n{addr}{tls}"));
    let mut server = home.start();
    let port = server.http.strip_prefix("https://127.0.0.1:").expect("it says that it is encrypted").to_owned();

    // RFC 5425 counts octets, and some senders do not.
    say(&server, &authority, b"34 <13>1 - host app - - - counted one<13>Oct 11 22:14:15 host app: by line\n");
    let url = format!("https://gateway.test:{port}");
    let token = server.token.clone();
    let client = |ca: &Ca| {
        let root = reqwest::Certificate::from_pem(ca.pem.as_bytes()).unwrap();
        let to = std::net::SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        reqwest::Client::builder().tls_certs_only([root]).resolve("gateway.test", to).build().unwrap()
    };
    let ask = |client: reqwest::Client| {
        let query = serde_json::json!({"query": "in:logs sort:time:asc"});
        client.post(format!("{url}/api/query")).bearer_auth(&token).json(&query).send()
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let logs = loop {
        let answer: serde_json::Value = ask(client(&ca)).await.unwrap().json().await.unwrap();
        let logs = answer["results"].as_array().unwrap().clone();
        if logs.len() == 2 {
            break logs;
        }
        assert!(std::time::Instant::now() < end, "{logs:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let bodies: Vec<_> = logs.iter().map(|log| log["body"].as_str().unwrap()).collect();
    assert!(bodies.contains(&"counted one") && bodies.contains(&"by line"), "{bodies:?}");
    let version = ask(client(&ca)).await.unwrap().version();
    assert_eq!(version, reqwest::Version::HTTP_2);

    // Nobody else's certificates are taken for ours, and nothing is served in plaintext.
    assert!(ask(client(&Ca::new("another"))).await.is_err());
    assert!(reqwest::get(format!("http://127.0.0.1:{port}/healthz")).await.is_err());

    // The program's own commands.
    let by_address = Ca::new("by address");
    let (certificate, key) = by_address.sign("radarflow", Some(SanType::IpAddress([127, 0, 0, 1].into())));
    for (name, text) in [("gateway.pem", &certificate), ("gateway.key", &key), ("ca.pem", &by_address.pem)] {
        std::fs::write(home.dir.path().join(name), text).unwrap();
    }
    server.hang_up();
    assert!(server.printed("  certificate ").is_some());
    let mut query = Command::new(env!("CARGO_BIN_EXE_radarflow"));
    let query = query.args(["query", "in:logs stats:count()", "--url", &server.http, "--token", &server.token]);
    let found = query.env("SSL_CERT_FILE", &authority).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    assert!(String::from_utf8_lossy(&found.stdout).contains('2'), "{found:?}");
    server.stop();
}
