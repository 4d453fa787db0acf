//! Profiles to results, from the outside: real agents, real sockets. Things die and come back, and the devices, the health and
//! the alerts follow.

use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::server::{Home, Server, netbox};

/// An address of this host that devices may have: those of loopback are nobody's. Nothing is sent to ask for it.
fn own_address() -> IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("198.51.100.1:9").expect("this host has an address beside loopback");
    socket.local_addr().unwrap().ip()
}

/// Something that answers on a port until it is dropped.
struct Answering(SocketAddr, JoinHandle<()>);

impl Answering {
    async fn on(addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let answer = async move {
            while let Ok((socket, _)) = listener.accept().await {
                drop(socket);
            }
        };
        Answering(addr, tokio::spawn(answer))
    }

    async fn die(self) -> SocketAddr {
        self.1.abort();
        let _ = self.1.await;
        self.0
    }
}

/// `radarflow agent`, which is killed when it is dropped.
struct Agent(Child);

impl Agent {
    fn start(server: &Server, id: &str, partition: &str) -> Self {
        let gateway = format!("http://{}", server.port("grpc"));
        let child = Command::new(env!("CARGO_BIN_EXE_radarflow"))
            .args(["agent", "--gateway", &gateway, "--id", id, "--partition", partition])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Agent(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn state(server: &Server, method: Method, name: &str, attributes: &Value) -> (u16, Value) {
    let path = match method {
        Method::POST => "/api/v2/profiles".to_owned(),
        _ => format!("/api/v2/profiles/{name}"),
    };
    let body = json!({"data": {"type": "profiles", "id": name, "attributes": attributes}});
    let request = reqwest::Client::new().request(method, format!("{}{path}", server.http));
    let request = request.bearer_auth(&server.token).header("Content-Type", "application/vnd.api+json");
    let response = request.body(body.to_string()).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

async fn profile(server: &Server, name: &str, attributes: Value) {
    let (status, made) = state(server, Method::POST, name, &attributes).await;
    assert_eq!(status, 201, "{made}");
}

async fn devices(server: &Server, items: &[String]) {
    server.push("runner", "sync", &format!("[{}]", items.join(","))).await.unwrap();
}

fn is(rows: &[Value], field: &str, value: &Value) -> bool {
    rows.len() == 1 && rows[0][field] == *value
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_is_seen_to_die_and_to_come_back_by_the_agent_inside() {
    let mut home = Home::new("[agent]\nenabled = true\n");
    let server = home.start();
    let own = own_address();
    let service = Answering::on((own, 0).into()).await;
    devices(&server, &[netbox("1", &own.to_string(), "web-1"), netbox("2", "198.51.100.3", "db-1")]).await;
    server.count("devices", 2).await;
    let port = service.0.port().to_string();
    let tcp =
        json!({"kind": "tcp", "condition": "hostname:web-*", "ports": [port], "interval_s": 1, "timeout_ms": 500});
    profile(&server, "web", tcp).await;

    // A device of the condition is looked at; the other is not.
    server.until("in:devices hostname:web-1", |rows| is(rows, "availability", &json!("available"))).await;
    let probe = &server.until("in:probes profile:web limit:1", |rows| rows.len() == 1).await[0];
    assert_eq!(
        (&probe["target"], &probe["is_ok"], &probe["agent_id"]),
        (&json!(own.to_string()), &json!(true), &json!("local"))
    );
    assert_eq!((&probe["kind"], &probe["port"].to_string()), (&json!("tcp"), &port));
    assert!(probe["latency_us"].as_i64().unwrap() > 0 && probe["device_uid"].is_string(), "{probe}");
    server.until("in:jobs profile:web", |rows| is(rows, "state", &json!("done"))).await;
    assert!(server.rows("in:probes target:198.51.100.3").await.is_empty());

    // It dies: two failures in a row, and the alert; it comes back, and the alert is over.
    let addr = service.die().await;
    server.until("in:devices hostname:web-1", |rows| is(rows, "availability", &json!("unavailable"))).await;
    server.until("in:alerts rule:device-offline", |rows| is(rows, "status", &json!("pending"))).await;
    let negative = server.rows("in:probes profile:web is_ok:false limit:1").await;
    assert!(negative[0]["error"].as_str().unwrap().contains("refused"), "{negative:?}");
    let _service = Answering::on(addr).await;
    server.until("in:devices hostname:web-1", |rows| is(rows, "availability", &json!("available"))).await;
    server.until("in:alerts rule:device-offline", |rows| is(rows, "status", &json!("resolved"))).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn membership_follows_devices_and_agents_have_only_targets_of_their_partition() {
    let mut home = Home::new("");
    let server = home.start();
    let item = |id: &str, ip: &str, host: &str, partition: &str| {
        let mut item: Value = serde_json::from_str(&netbox(id, ip, host)).unwrap();
        item["partition"] = json!(partition);
        item.to_string()
    };
    let own = own_address();
    let _service = Answering::on((own, 0).into()).await;
    let port = _service.0.port().to_string();
    devices(&server, &[item("1", &own.to_string(), "a-1", "dc1"), item("2", "198.51.100.5", "b-1", "dc2")]).await;
    let look = json!({"kind": "tcp", "condition": "hostname:(a-*,b-*)", "ports": [port], "interval_s": 1,
        "timeout_ms": 500});
    profile(&server, "look", look).await;

    // Without an agent the job says what is missing.
    let nobody = server.until("in:jobs profile:look partition:dc1", |rows| rows.len() == 1).await;
    assert_eq!(nobody[0]["reason"], "no agent in partition dc1 with capability tcp", "{nobody:?}");
    let _one = Agent::start(&server, "one", "dc1");
    server.until("in:devices hostname:a-1", |rows| is(rows, "availability", &json!("available"))).await;
    let jobs = server.until("in:jobs profile:look partition:dc1", |rows| is(rows, "state", &json!("done"))).await;
    assert_eq!((&jobs[0]["agent_id"], &jobs[0]["targets"]), (&json!("one"), &json!(1)));
    assert!(server.rows("in:probes target:198.51.100.5").await.is_empty(), "what is dc2's is dc2's");

    // One that begins to match is looked at; one that is decommissioned is not any more.
    devices(&server, &[item("3", "198.51.100.6", "a-2", "dc1")]).await;
    server.until("in:jobs profile:look partition:dc1", |rows| is(rows, "targets", &json!(2))).await;
    server.until("in:probes target:198.51.100.6 limit:1", |rows| rows.len() == 1).await;
    let uid = server.rows("in:devices hostname:a-2").await[0]["uid"].as_str().unwrap().to_owned();
    for act in ["manage", "decommission"] {
        let (status, told) =
            server.post(&format!("/api/devices/{uid}/{act}"), &server.token, &json!({"reason": "x"})).await;
        assert_eq!(status, 200, "{told}");
    }
    server.until("in:jobs profile:look partition:dc1", |rows| is(rows, "targets", &json!(1))).await;

    // What is changed is done otherwise, what is deleted is not done any more.
    let (status, told) = state(&server, Method::PATCH, "look", &json!({"enabled": false})).await;
    assert_eq!(status, 200, "{told}");
    server.until("in:jobs", <[Value]>::is_empty).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_look_finds_what_is_there() {
    use axum::{Router, http::StatusCode, routing::get};
    let mut home = Home::new("[agent]\nenabled = true\nid = \"inside\"\n");
    let server = home.start();
    let web = Router::new()
        .route("/health", get(|| async { "all is well" }))
        .route("/broken", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "no") }));
    let listener = TcpListener::bind("127.0.0.7:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    tokio::spawn(async move { axum::serve(listener, web).await });
    // A name server that knows nothing, and says so.
    let names = tokio::net::UdpSocket::bind("127.0.0.7:0").await.unwrap();
    let names_port = names.local_addr().unwrap().port().to_string();
    tokio::spawn(async move {
        let mut packet = [0; 512];
        while let Ok((n, from)) = names.recv_from(&mut packet).await {
            (packet[2], packet[3]) = (0x81, 0x83);
            let _ = names.send_to(&packet[..n], from).await;
        }
    });
    let base = |more: Value| {
        let mut all = json!({"hosts": ["127.0.0.7"], "site": "default", "interval_s": 1, "timeout_ms": 900});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    profile(&server, "up", base(json!({"kind": "ping", "attempts": 2, "hosts": ["127.0.0.7", "::1"]}))).await;
    let well =
        json!({"kind": "http", "ports": [port], "url_path": "/health", "body_pattern": "(?i)ALL is", "priority": 2});
    profile(&server, "well", base(well)).await;
    profile(
        &server,
        "broken",
        base(json!({"kind": "http", "ports": [port], "url_path": "/broken", "hosts": ["localhost"]})),
    )
    .await;
    profile(&server, "names", base(json!({"kind": "dns", "ports": [names_port], "query_name": "core.example"}))).await;
    // Certificates of this moment are for a long time.
    let certificate = rcgen::generate_simple_self_signed(vec!["box.example".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.into())
        .unwrap();
    let secure = TcpListener::bind("127.0.0.7:0").await.unwrap();
    let secure_port = secure.local_addr().unwrap().port().to_string();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    tokio::spawn(async move {
        while let Ok((socket, _)) = secure.accept().await {
            let _ = acceptor.accept(socket).await;
        }
    });
    profile(&server, "secure", base(json!({"kind": "tls", "ports": [secure_port]}))).await;
    let one = async |profile: &str| {
        let rows = server.until(&format!("in:probes profile:{profile} limit:1"), |rows| rows.len() == 1).await;
        rows[0].clone()
    };
    let well = one("well").await;
    assert_eq!(
        (&well["is_ok"], &well["status_code"], &well["agent_id"]),
        (&json!(true), &json!(200), &json!("inside")),
        "{well}"
    );
    let secure = one("secure").await;
    assert_eq!(secure["is_ok"], true, "{secure}");
    assert!(secure["certificate_days"].as_i64().unwrap() > 300, "{secure}");
    let names = one("names").await;
    assert_eq!((&names["is_ok"], &names["error"]), (&json!(false), &json!("no such name")), "{names}");
    let broken = one("broken").await;
    assert_eq!(broken["is_ok"], false, "127.0.0.1 has nothing there: {broken}");
    let up = one("up").await;
    assert_eq!((&up["is_ok"], &up["sent"], &up["lost"]), (&json!(true), &json!(2), &json!(0)), "{up}");
    server.until("in:probes profile:up target:\"::1\" is_ok:true limit:1", |rows| rows.len() == 1).await;

    // What cannot be followed is refused where it is said.
    for (attributes, field) in [
        (json!({"kind": "mtr", "condition": "type:router"}), "kind"),
        (json!({"kind": "ping", "condition": "is_available:false"}), "condition"),
        (json!({"kind": "ping", "condition": "hostname:("}), "condition"),
        (json!({"kind": "tcp", "condition": "type:router"}), "ports"),
    ] {
        let (status, told) = state(&server, Method::POST, "bad", &attributes).await;
        let pointer = format!("/data/attributes/{field}");
        assert_eq!((status, &told["errors"][0]["source"]["pointer"]), (422, &json!(pointer)), "{told}");
    }
    server.stop();
}

/// Takes a step of a profile; named, it is done once.
async fn act(server: &Server, name: &str, action: &str, key: Option<&str>, attributes: Value) -> (u16, Value) {
    let body = json!({"data": {"type": "profiles", "attributes": attributes}});
    let path = format!("{}/api/v2/profiles/{name}/actions/{action}", server.http);
    let request = reqwest::Client::new().post(path).bearer_auth(&server.token);
    let request = request.header("Content-Type", "application/vnd.api+json").body(body.to_string());
    let request = key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key));
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_now_is_done_once_whoever_is_away_or_restarted() {
    let mut home = Home::new("");
    let gateway = format!("[[grpc]]\naddr = \"127.0.0.1:{}\"", lasting_port(1));
    home.config = home.config.replace("[[grpc]]\naddr = \"127.0.0.1:0\"", &gateway);
    let server = home.start();
    let service = Answering::on("127.0.0.9:0".parse().unwrap()).await;
    let port = service.0.port().to_string();
    let look = json!({"kind": "tcp", "hosts": ["127.0.0.9", "127.0.0.10"], "site": "default", "ports": [port],
        "interval_s": 86400, "assignment": "listed", "agents": ["one"]});
    profile(&server, "look", look).await;
    let agent = Agent::start(&server, "one", "default");
    server.until("in:jobs profile:look agent_id:one", |rows| rows.len() == 1).await;

    // One target, now: its result is there when the command is over.
    let (status, told) = act(&server, "look", "run", Some("key"), json!({"targets": ["127.0.0.9"]})).await;
    assert_eq!(status, 200, "{told}");
    let run = told["meta"]["run_id"].as_str().unwrap().to_owned();
    let over = |rows: &[Value]| rows.len() == 1 && rows[0]["finished_at"].is_string();
    let of_run = format!("in:commands run_id:{run}");
    let done = server.until(&of_run, over).await;
    assert_eq!((&done[0]["state"], &done[0]["targets"]), (&json!("finished"), &json!(1)), "{done:?}");
    let result = |row: &Value| -> Value { serde_json::from_str(row["result"].as_str().unwrap()).unwrap() };
    assert_eq!(result(&done[0]), json!({"looks": 1, "ok": 1, "negative": 0, "unknown": 0}));
    let found = server.rows("in:probes profile:look").await;
    assert_eq!((found.len(), &found[0]["is_ok"]), (1, &json!(true)), "{found:?}");
    let (_, again) = act(&server, "look", "run", Some("key"), json!({"targets": ["127.0.0.9"]})).await;
    assert_eq!(again["meta"]["run_id"], *run);
    let (status, other) = act(&server, "look", "run", Some("key"), json!({})).await;
    assert_eq!((status, &other["errors"][0]["code"]), (422, &json!("idempotency_mismatch")), "{other}");

    // The agent is away, and the server dies: it waits, and is done once when both are back.
    drop(agent);
    let (status, told) = act(&server, "look", "run", None, json!({"ttl_s": 600})).await;
    assert_eq!(status, 200, "{told}");
    let of_run = format!("in:commands run_id:{}", told["meta"]["run_id"].as_str().unwrap());
    assert_eq!(server.rows(&of_run).await[0]["state"], "queued");
    server.kill();
    let server = home.start();
    server.until(&of_run, |rows| is(rows, "state", &json!("queued"))).await;
    let agent = Agent::start(&server, "one", "default");
    let done = server.until(&of_run, over).await;
    assert_eq!((&done[0]["state"], &done[0]["targets"]), (&json!("finished"), &json!(2)), "{done:?}");
    assert_eq!(result(&done[0]), json!({"looks": 2, "ok": 1, "negative": 1, "unknown": 0}));
    assert_eq!(server.rows("in:probes profile:look").await.len(), 3);

    // Two people at once, on an agent that is there: one command each.
    let ask = || act(&server, "look", "run", None, json!({"targets": ["127.0.0.10"]}));
    let (one, two) = tokio::join!(ask(), ask());
    assert_ne!(one.1["meta"]["run_id"], two.1["meta"]["run_id"]);
    let finished = "in:commands state:finished";
    server.until(finished, |rows| rows.len() == 4).await;
    assert_eq!(server.rows("in:probes profile:look").await.len(), 5);

    // Who is not there gets nothing that was withdrawn, and what it may not do nobody has it do.
    drop(agent);
    act(&server, "look", "run", None, json!({"ttl_s": 600})).await;
    let (status, told) = act(&server, "look", "cancel", None, json!({})).await;
    assert_eq!(status, 200, "{told}");
    server.until("in:commands state:cancelled", |rows| rows.len() == 1).await;
    let (status, told) = act(&server, "look", "run", None, json!({"target": "127.0.0.9"})).await;
    assert_eq!(status, 422, "{told}");
    let (status, told) = act(&server, "nothing", "run", None, json!({})).await;
    assert_eq!(status, 404, "{told}");
    let (status, told) = state(&server, Method::PATCH, "look", &json!({"enabled": false})).await;
    assert_eq!(status, 200, "{told}");
    let (status, told) = act(&server, "look", "run", None, json!({})).await;
    assert_eq!(status, 409, "{told}");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_profile_comes_to_is_told_before_and_why() {
    let mut home = Home::new("[agent]\nenabled = true\n");
    let server = home.start();
    let own = own_address().to_string();
    devices(&server, &[netbox("1", &own, "web-1"), netbox("2", "198.51.100.3", "db-1")]).await;
    server.count("devices", 2).await;
    server.until("in:agents agent_id:local", |rows| is(rows, "state", &json!("connected"))).await;
    let fields = json!({"kind": "tcp", "condition": "hostname:web-*", "ports": ["9"], "cron": "30 2 * * *",
        "time_zone": "Europe/Berlin"});
    let preview = |body: Value| {
        let server = &server;
        async move { server.post("/api/profiles/preview", &server.token, &body).await }
    };
    let (status, told) = preview(json!({"name": "web", "profile": fields, "runs": 2})).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!(told["next"].as_array().unwrap().len(), 2);
    let site = &told["partitions"][0];
    assert_eq!(
        (&site["partition"], &site["new"], &site["agents"][0]["agent_id"]),
        (&json!("default"), &json!([own]), &json!("local"))
    );
    assert!(server.rows("in:profiles").await.is_empty(), "nothing is stated");
    profile(&server, "web", fields).await;
    let (_, wider) =
        preview(json!({"name": "web", "profile": {"kind": "tcp", "condition": "hostname:db-*", "ports": ["9"]}})).await;
    assert_eq!(
        (&wider["partitions"][0]["new"], &wider["partitions"][0]["gone"]),
        (&json!(["198.51.100.3"]), &json!([own]))
    );
    for (wrong, pointer) in [
        (json!({"kind": "tcp", "condition": "", "ports": ["9"], "cron": "61 * * * *"}), "/profile/cron"),
        (
            json!({"kind": "tcp", "condition": "", "ports": ["9"], "cron": "1 * * * *", "time_zone": "Here"}),
            "/profile/time_zone",
        ),
    ] {
        let (status, told) = preview(json!({"name": "x", "profile": wrong})).await;
        assert_eq!((status, &told["pointer"]), (422, &json!(pointer)), "{told}");
    }
    let explain = |target: &str| {
        let path = format!("/api/profiles/web/explain?target={target}");
        let server = &server;
        async move { server.ask(Method::GET, &path, &server.token, &json!({})).await }
    };
    let (status, why) = explain("web-1").await;
    assert_eq!(status, 200, "{why}");
    let found = &why["found"][0];
    assert_eq!((&found["is_member"], &found["target"]), (&json!(true), &json!(own)), "{why}");
    let agent = |id: &str| found["agents"].as_array().unwrap().iter().find(|agent| agent["agent_id"] == id).unwrap();
    assert_eq!((&agent("local")["looks"], &agent("local")["job"]), (&json!(true), &json!("due")), "{why}");
    // Whoever only pushes inventories looks at nothing, and why is said.
    assert_eq!((&agent("runner")["looks"], agent("runner")["because"].is_string()), (&json!(false), true), "{why}");
    assert!(found["next"].is_string(), "{why}");
    let (_, why) = explain("198.51.100.3").await;
    assert_eq!(why["found"][0]["is_member"], false);
    assert!(why["found"][0]["because"].as_str().unwrap().contains("not like"), "{why}");
    let (_, why) = explain("203.0.113.1").await;
    assert!(why["found"][0]["because"].as_str().unwrap().contains("no device"), "{why}");
    // A time interval that a profile pauses by stays.
    let apply = |server: &Server, kind: &str, id: &str, attributes: Value| {
        let body = json!({"data": {"type": kind, "id": id, "attributes": attributes}});
        let request = reqwest::Client::new().post(format!("{}/api/v2/{kind}", server.http));
        request
            .bearer_auth(&server.token)
            .header("Content-Type", "application/vnd.api+json")
            .body(body.to_string())
            .send()
    };
    assert_eq!(
        apply(&server, "time_intervals", "always", json!({"periods": ["times=00:00-24:00"]})).await.unwrap().status(),
        201
    );
    let (status, told) = state(&server, Method::PATCH, "web", &json!({"pause_during": ["always"]})).await;
    assert_eq!(status, 200, "{told}");
    let (_, never) = preview(json!({"name": "web"})).await;
    assert_eq!(never["next"], json!([]), "{never}");
    let (status, told) = act(&server, "web", "run", None, json!({})).await;
    assert_eq!((status, told["errors"][0]["detail"].as_str().unwrap().contains("pauses now")), (409, true), "{told}");
    let (status, told) = act(&server, "web", "run", None, json!({"force": true})).await;
    assert_eq!(status, 200, "{told}");
    let gone = server.ask(Method::DELETE, "/api/v2/time_intervals/always", &server.token, &json!({})).await;
    assert_eq!(gone.0, 409, "{gone:?}");
    server.stop();
}

/// A port that nobody is given for a connection of his own (these begin with 32768), and that is free.
/// Each test says another number: they run side by side.
fn lasting_port(test: u16) -> u16 {
    let first = 20_000 + (std::process::id() % 10_000) as u16 + 100 * test;
    (first..32_000).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_goes_on_without_its_gateway_and_delivers_afterwards() {
    let mut home = Home::new("");
    let gateway = format!("[[grpc]]\naddr = \"127.0.0.1:{}\"", lasting_port(0));
    home.config = home.config.replace("[[grpc]]\naddr = \"127.0.0.1:0\"", &gateway);
    let server = home.start();
    let service = Answering::on("127.0.0.8:0".parse().unwrap()).await;
    let port = service.0.port().to_string();
    let look = json!({"kind": "tcp", "hosts": ["127.0.0.8"], "site": "default", "ports": [port], "interval_s": 1,
        "timeout_ms": 500});
    profile(&server, "look", look).await;
    let _agent = Agent::start(&server, "one", "default");
    server.until("in:probes profile:look limit:1", |rows| rows.len() == 1).await;
    server.kill();
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let server = home.start();
    // Slots of meanwhile are told.
    let gap = "in:probes profile:look sort:time:asc limit:1000";
    server.until(gap, |rows| rows.len() >= 6).await;
    let rows = server.rows(gap).await;
    let at_us =
        |row: &Value| chrono::DateTime::parse_from_rfc3339(row["time"].as_str().unwrap()).unwrap().timestamp_micros();
    let mut looks: Vec<i64> = rows.iter().map(at_us).collect();
    // What was durable when the gateway died, and not acknowledged, comes again.
    looks.dedup();
    let slots = (looks[looks.len() - 1] - looks[0] + 500_000) / 1_000_000 + 1;
    // A host that is busy for a second skips a slot.
    assert!((slots - 1..=slots).contains(&(looks.len() as i64)), "a look a second: {looks:?}");
    server.stop();
}
