//! Inventories are asked over HTTP: servers that page, refuse, break off and let tokens end, as the real ones do.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Home, Server};

#[derive(Default)]
struct World {
    /// Devices by id: the host name.
    devices: BTreeMap<u64, String>,
    /// Pages that answer 503, by offset.
    broken: BTreeSet<usize>,
    /// Pages that are not answered at all, by offset.
    silent: BTreeSet<usize>,
    /// Answers 429 to the next request.
    busy: bool,
    /// Requests by path.
    asked: BTreeMap<String, usize>,
    /// Queries with `last_updated__gte`.
    incremental: usize,
    /// The token that is valid, and how many requests it still is.
    token: (u64, usize),
    /// What was written back, in order.
    written: Vec<(u64, bool)>,
    /// What is written back is refused.
    refuses: bool,
}

type Shared = Arc<Mutex<World>>;

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

type Asked = Query<HashMap<String, String>>;

/// NetBox's lists: a token, `limit` and `offset`, and a `next` that names a host only its proxy knows.
async fn netbox_devices(State(world): State<Shared>, headers: HeaderMap, Query(q): Asked) -> Response {
    let offset: usize = q.get("offset").and_then(|v| v.parse().ok()).unwrap_or_default();
    if world.lock().unwrap().silent.contains(&offset) {
        *world.lock().unwrap().asked.entry("silent".into()).or_default() += 1;
        std::future::pending::<()>().await;
    }
    let mut world = world.lock().unwrap();
    *world.asked.entry("devices".into()).or_default() += 1;
    // Both kinds of tokens that there are.
    let said = headers.get("authorization").and_then(|v| v.to_str().ok());
    if !matches!(said, Some("Token hush" | "Bearer nbt_k.hush")) {
        return (StatusCode::FORBIDDEN, r#"{"detail":"Invalid token"}"#).into_response();
    }
    if std::mem::take(&mut world.busy) {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "0")], "slow down").into_response();
    }
    let number = |key: &str, or: usize| q.get(key).and_then(|v| v.parse().ok()).unwrap_or(or);
    let (limit, offset) = (number("limit", 50), number("offset", 0));
    if world.broken.contains(&offset) {
        *world.asked.entry("broken".into()).or_default() += 1;
        return (StatusCode::SERVICE_UNAVAILABLE, "maintenance").into_response();
    }
    assert_eq!(q["ordering"], "id");
    let changed = q.get("last_updated__gte");
    world.incremental += usize::from(changed.is_some());
    let device = |(id, name): (&u64, &String)| {
        json!({
            "id": id, "name": name, "device_type": {"model": "X1", "manufacturer": {"name": "Acme"}},
            "role": {"name": "switch"}, "platform": null, "serial": format!("S{id}"), "asset_tag": null,
            "site": {"name": "Berlin", "slug": "ber"}, "tenant": null, "status": {"value": "active", "label": "Active"},
            "primary_ip": {"id": 1000 + id, "address": format!("10.9.{}.{}/24", id / 200, id % 200 + 1)},
            "primary_ip4": {"id": 1000 + id, "address": format!("10.9.{}.{}/24", id / 200, id % 200 + 1)},
            "primary_ip6": null, "last_updated": "2024-01-01T00:00:00.000000Z",
            "tags": [{"name": "Core", "slug": "core"}],
        })
    };
    let results: Vec<Value> = world.devices.iter().skip(offset).take(limit).map(device).collect();
    let next = (offset + limit < world.devices.len()).then(|| {
        let more = changed.map(|t| format!("&last_updated__gte={}", t.replace('+', "%2B"))).unwrap_or_default();
        format!(
            "http://netbox.internal:8000/api/dcim/devices/?limit={limit}&offset={}&ordering=id{more}",
            offset + limit
        )
    });
    axum::Json(json!({"count": world.devices.len(), "next": next, "previous": null, "results": results}))
        .into_response()
}

async fn netbox_machines() -> Response {
    let machine = json!({
        "id": 1, "name": "vm-one", "primary_ip": {"id": 1, "address": "10.8.0.1/24"}, "status": {"value": "active"},
        "last_updated": "2024-01-01T00:00:00Z", "cluster": {"name": "esx"}, "tags": [],
    });
    axum::Json(json!({"count": 1, "next": null, "results": [machine]})).into_response()
}

async fn netbox_interfaces(RawQuery(q): RawQuery) -> Response {
    let ids = q.unwrap_or_default();
    let ids = ids.split('&').filter_map(|p| p.strip_prefix("device_id=")?.parse::<u64>().ok());
    let results: Vec<Value> = ids
        .map(
            |id| json!({"device": {"id": id}, "mac_address": format!("0C:EA:14:00:{:02X}:{:02X}", id / 256, id % 256)}),
        )
        .collect();
    axum::Json(json!({"count": results.len(), "next": null, "results": results})).into_response()
}

async fn netbox_addresses(RawQuery(q): RawQuery) -> Response {
    let ids = q.unwrap_or_default();
    let ids = ids.split('&').filter_map(|p| p.strip_prefix("id=")?.parse::<u64>().ok());
    // The primary address of device 7 is a customer's.
    let vrf = |id: u64| if id == 1007 { json!({"id": 3, "name": "customer"}) } else { Value::Null };
    let results: Vec<Value> = ids.map(|id| json!({"id": id, "vrf": vrf(id)})).collect();
    axum::Json(json!({"count": results.len(), "next": null, "results": results})).into_response()
}

fn netbox(world: &Shared) -> Router {
    Router::new()
        .route("/prefix/api/dcim/devices/", get(netbox_devices))
        .route("/prefix/api/virtualization/virtual-machines/", get(netbox_machines))
        .route("/prefix/api/dcim/interfaces/", get(netbox_interfaces))
        .route("/prefix/api/virtualization/interfaces/", get(|| async { StatusCode::FORBIDDEN }))
        .route("/prefix/api/ipam/ip-addresses/", get(netbox_addresses))
        .with_state(world.clone())
}

/// Adds devices by NetBox's ids.
fn put(world: &Shared, ids: impl Iterator<Item = u64>) {
    world.lock().unwrap().devices.extend(ids.map(|id| (id, format!("sw-{id}"))));
}

async fn devices(server: &Server, n: usize) {
    let counted = r#"in:devices discovery_sources:(netbox,armis) stats:"count() as n""#;
    server.until(counted, |rows| rows[0]["n"] == json!(n)).await;
}

#[tokio::test]
async fn netbox_is_listed_and_what_it_lacks_is_withdrawn() {
    let world = Shared::default();
    put(&world, 1..=300);
    world.lock().unwrap().busy = true;
    let url = serve(netbox(&world)).await;
    let mut home = Home::new(&format!(
        "[[sources.netbox]]\nname = \"dc1\"\nurl = \"{url}/prefix\"\ntoken = \"hush\"\npage = 40\ninterval_s = 1\n\
         full_interval_s = 0\npause_ms = 1\nvrf = {{ customer = \"site-b\" }}\n"
    ));
    let server = home.start();
    // Seven pages and a half, a refusal for being too fast, a virtual machine.
    devices(&server, 301).await;
    let one = server.rows("in:devices hostname:sw-5").await;
    assert_eq!(
        (&one[0]["vendor_name"], &one[0]["model"], &one[0]["type"]),
        (&json!("Acme"), &json!("X1"), &json!("switch"))
    );
    assert_eq!((&one[0]["ip"], &one[0]["partition"]), (&json!("10.9.0.6"), &json!("default")));
    assert_eq!(one[0]["metadata"]["tags"], "core");
    let customer = server.rows("in:devices hostname:sw-7").await;
    assert_eq!(customer[0]["partition"], "site-b", "the VRF of the primary address is a site");
    assert_eq!(server.rows("in:devices hostname:vm-one").await[0]["type"], "virtual machine");
    let ids = server.rows("in:identities identifier_type:netbox identifier_value:vm*").await;
    assert_eq!((ids.len(), &ids[0]["identifier_value"]), (1, &json!("vm:1")));

    // Page 3 fails: nothing goes, somebody is told, and told again when it is over.
    let gone = |world: &Shared, ids: &[u64]| ids.iter().for_each(|id| drop(world.lock().unwrap().devices.remove(id)));
    world.lock().unwrap().broken.insert(80);
    let alert = server.until("in:alerts rule:sync-failed status:pending", |rows| rows.len() == 1).await;
    assert_eq!(alert[0]["title"], "netbox/dc1 cannot be read");
    assert!(alert[0]["description"].as_str().unwrap().contains("503"), "{alert:?}");
    // No run is under way that was past that page; this is what the next ones do not see to its end.
    let failed = || world.lock().unwrap().asked.get("broken").copied().unwrap_or_default();
    gone(&world, &[300]);
    let before = failed();
    let again = async {
        while failed() < before + 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("it is asked again");
    devices(&server, 301).await;
    world.lock().unwrap().broken.clear();
    server.until("in:alerts rule:sync-failed status:resolved", |rows| rows.len() == 1).await;
    devices(&server, 300).await;
    assert!(server.rows("in:devices hostname:sw-300").await.is_empty());

    // A third is missing: held, until somebody says that it is right.
    gone(&world, &(1..=100).collect::<Vec<_>>());
    gone(&world, &(101..=110).collect::<Vec<_>>());
    let held = server.until("in:alerts rule:brake-held status:pending", |rows| rows.len() == 1).await;
    assert_eq!(held[0]["title"], "a listing of netbox/dc1 lacks 110 of 300 items and is held");
    devices(&server, 300).await;
    let mut released = 0;
    while released != 200 {
        // The next run takes the place of the one before: whoever decides about that is told.
        let held = server.until("in:alerts rule:brake-held status:pending", |rows| rows.len() == 1).await;
        let run = held[0]["labels"]["run"].as_str().unwrap().to_owned();
        let path = format!("/api/sources/netbox/dc1/runs/{run}/release");
        released = server.post(&path, &server.token.clone(), &json!({"reason": "moved out"})).await.0;
        assert!(released == 200 || released == 409, "{released}");
    }
    devices(&server, 190).await;
    assert_eq!(server.rows("in:audit action:run_decision").await[0]["reason"], "moved out");
    let sources = server.rows("in:sources source:netbox*").await;
    assert_eq!(sources[0]["rejected"], 0);
    server.stop();
}

/// What the command says, and whether it succeeded.
async fn sync(server: &Server, args: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"));
    let at = ["--url", &server.http, "--token", &server.token];
    let done = command.arg("sync").args(args).args(at).output().await.unwrap();
    (done.status.success(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
}

#[tokio::test]
async fn a_listing_is_looked_at_before_it_is_applied() {
    let world = Shared::default();
    put(&world, 1..=300);
    let url = serve(netbox(&world)).await;
    let mut home = Home::new(&format!(
        "[[sources.netbox]]\nname = \"dc1\"\nurl = \"{url}/prefix\"\ntoken = \"hush\"\npage = 100\npause_ms = 1\n\
         automatic = false\ninterfaces = false\n"
    ));
    let server = home.start();
    let plan = async || {
        let (done, said) = sync(&server, &["plan", "netbox/dc1"]).await;
        assert!(done, "{said}");
        let digest = said.trim().rsplit(' ').next().unwrap().to_owned();
        (said, digest)
    };
    let (said, digest) = plan().await;
    assert!(said.starts_with("netbox/dc1 lists 301 items: 301 new, 0 changed, 0 as they are, 0 gone"), "{said}");
    assert!(said.contains("+ netbox/dc1/1  sw-1 10.9.0.2\n") && said.contains("+ 291 more"), "{said}");
    assert!(server.rows("in:devices").await.is_empty(), "nothing is applied, and nothing is read by itself");
    let (done, said) = sync(&server, &["apply", &digest]).await;
    assert!(done && said.contains(" is applied"), "{said}");
    devices(&server, 301).await;
    let (_, said) = sync(&server, &["apply", &digest]).await;
    assert!(said.contains("no plan"), "it is applied once: {said}");
    let (said, digest) = plan().await;
    assert!(said.contains("0 new, 0 changed, 301 as they are, 0 gone"), "{said}");
    assert_eq!(plan().await.1, digest, "the same changes are the same plan");

    // More goes than the brake would let pass: somebody has looked at it.
    (1..=110).for_each(|id| drop(world.lock().unwrap().devices.remove(&id)));
    put(&world, 301..=302);
    let (said, digest) = plan().await;
    assert!(said.contains("193 items: 2 new, 0 changed, 191 as they are, 110 gone"), "{said}");
    assert!(said.contains("- netbox/dc1/1  sw-1") && said.contains("+ netbox/dc1/301  sw-301"), "{said}");
    assert!(sync(&server, &["apply", &digest]).await.0);
    devices(&server, 193).await;
    assert!(server.rows("in:alerts rule:brake-held").await.is_empty());

    // A listing that breaks off is none; one that is forgotten was none; and not everybody may.
    world.lock().unwrap().broken.insert(100);
    let (done, said) = sync(&server, &["plan", "netbox/dc1"]).await;
    assert!(!done && said.contains("503"), "{said}");
    world.lock().unwrap().broken.clear();
    let (_, digest) = plan().await;
    server.metric("radarflow_plans_waiting 1").await;
    assert!(sync(&server, &["forget", &digest]).await.0);
    assert!(!sync(&server, &["apply", &digest]).await.0);
    assert!(sync(&server, &["plan", "netbox/dc2"]).await.1.contains("no inventory netbox/dc2"));
    let bound = json!({"name": "x", "role": "operator", "partitions": ["default"]});
    let (_, made) = server.post("/api/tokens", &server.token, &bound).await;
    let refused = server.post("/api/inventories/netbox/dc1/plan", made["token"].as_str().unwrap(), &json!({})).await;
    assert_eq!(refused.0, 403);
    server.stop();
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_listing_loses_and_withdraws_nothing() {
    let world = Shared::default();
    put(&world, 1..=200);
    let url = serve(netbox(&world)).await;
    let mut home = Home::new(&format!(
        "[[sources.netbox]]\nname = \"dc1\"\nurl = \"{url}/prefix\"\ntoken = \"nbt_k.hush\"\npage = 40\ninterval_s = 1\n\
         full_interval_s = 0\npause_ms = 1\ninterfaces = false\n"
    ));
    let server = home.start();
    devices(&server, 201).await;
    // The next listing lacks some and has others; it is killed when half of it is durable.
    put(&world, 201..=220);
    (1..=10).for_each(|id| drop(world.lock().unwrap().devices.remove(&id)));
    world.lock().unwrap().silent.insert(120);
    while !world.lock().unwrap().asked.contains_key("silent") {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.kill();
    let server = home.start();
    // Half a listing is none: what it said is not there, and what it did not say is.
    assert_eq!(server.rows(r#"in:devices stats:"count() as n""#).await[0]["n"], json!(201));
    world.lock().unwrap().silent.clear();
    devices(&server, 211).await;
    server.stop();
}

#[tokio::test]
async fn between_full_runs_only_changes_are_asked_for() {
    let world = Shared::default();
    put(&world, 1..=30);
    let url = serve(netbox(&world)).await;
    let mut home = Home::new(&format!(
        "[[sources.netbox]]\nname = \"dc1\"\nurl = \"{url}/prefix/\"\ntoken = \"hush\"\ninterval_s = 1\ninterfaces = false\n"
    ));
    let server = home.start();
    devices(&server, 31).await;
    // What such a run does not list is not gone.
    put(&world, 31..=32);
    world.lock().unwrap().devices.remove(&1);
    devices(&server, 33).await;
    assert!(world.lock().unwrap().incremental > 0);
    server.stop();
}

/// Armis: a secret buys a token for a few requests; pages by `from` and `next`.
async fn armis_token(State(world): State<Shared>, body: String) -> Response {
    let mut world = world.lock().unwrap();
    if body != "secret_key=s%26cret" {
        return (StatusCode::UNAUTHORIZED, "{}").into_response();
    }
    world.token = (world.token.0 + 1, 3);
    axum::Json(json!({"data": {"access_token": format!("t{}", world.token.0)}, "success": true})).into_response()
}

async fn armis_search(State(world): State<Shared>, headers: HeaderMap, Query(q): Asked) -> Response {
    let mut world = world.lock().unwrap();
    let (token, left) = world.token;
    let said = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if said != format!("Bearer t{token}") || left == 0 {
        return (StatusCode::UNAUTHORIZED, r#"{"message":"Invalid access token."}"#).into_response();
    }
    world.token.1 -= 1;
    let (from, length): (usize, usize) = (q["from"].parse().unwrap(), q["length"].parse().unwrap());
    let device = |(id, name): (&u64, &String)| {
        json!({
            "id": id, "name": name, "ipAddress": format!("10.7.0.{id}, 10.7.1.{id}"), "type": "IP Cameras",
            "macAddress": format!("0C:EA:14:01:00:{id:02X},0E:EA:14:01:00:{id:02X}"), "category": "Imaging",
            "manufacturer": "Axis", "model": "P33", "operatingSystem": "Linux", "operatingSystemVersion": "5.4",
            "riskLevel": 4, "boundaries": "Corp", "tags": ["a", "b"], "site": {"name": "HQ"},
            "lastSeen": "2024-01-01T00:00:00.123456+00:00", "visibility": "Full",
        })
    };
    let results: Vec<Value> = world.devices.iter().skip(from).take(length).map(device).collect();
    let next = from + results.len();
    let next = (next < world.devices.len()).then_some(next);
    let total = world.devices.len();
    let data = json!({"count": results.len(), "next": next, "prev": null, "results": results, "total": total});
    axum::Json(json!({"data": data, "success": true})).into_response()
}

#[tokio::test]
async fn armis_is_searched_with_tokens_that_end() {
    let world = Shared::default();
    put(&world, 1..=50);
    let router = Router::new()
        .route("/tenant-a/api/v1/access_token/", post(armis_token))
        .route("/tenant-a/api/v1/search/", get(armis_search))
        .with_state(world.clone());
    let url = serve(router).await;
    let mut home = Home::new(&format!(
        "[[sources.armis]]\nname = \"main\"\nurl = \"{url}/tenant-a\"\nsecret_key = \"s&cret\"\npage = 7\ninterval_s = 1\npause_ms = 1\n"
    ));
    let server = home.start();
    devices(&server, 50).await;
    assert!(world.lock().unwrap().token.0 > 2, "eight pages need three tokens");
    let one = server.rows("in:devices hostname:sw-5").await;
    assert_eq!((&one[0]["type"], &one[0]["os"]), (&json!("IP Cameras"), &json!("Linux 5.4")));
    assert_eq!((&one[0]["mac"], &one[0]["ip"]), (&json!("0CEA14010005"), &json!("10.7.0.5")));
    assert_eq!(one[0]["metadata"]["tags"], "a,b");
    // Run after run lists the same: nothing changes. One goes, and is gone.
    let epoch = one[0]["epoch"].clone();
    let token = world.lock().unwrap().token.0;
    while world.lock().unwrap().token.0 < token + 6 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(server.rows("in:devices hostname:sw-5").await[0]["epoch"], epoch);
    world.lock().unwrap().devices.remove(&9);
    devices(&server, 49).await;
    server.stop();
}

/// Armis' custom properties, many devices at once.
async fn armis_properties(
    State(world): State<Shared>,
    headers: HeaderMap,
    axum::Json(body): axum::Json<Vec<Value>>,
) -> Response {
    let mut world = world.lock().unwrap();
    let (token, left) = world.token;
    let said = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    if said != format!("Bearer t{token}") || left == 0 {
        return (StatusCode::UNAUTHORIZED, r#"{"message":"Invalid access token."}"#).into_response();
    }
    world.token.1 -= 1;
    if world.refuses {
        return (StatusCode::BAD_REQUEST, r#"{"message":"no such property"}"#).into_response();
    }
    assert!(body.len() <= 500, "{} devices at once", body.len());
    for device in &body {
        let properties = device["customProperties"].as_object().unwrap();
        assert_eq!(properties.len(), 1);
        world.written.push((device["id"].as_u64().unwrap(), properties["Answers"].as_bool().unwrap()));
    }
    (StatusCode::ACCEPTED, axum::Json(json!({"data": {}, "success": true}))).into_response()
}

#[tokio::test]
async fn armis_is_told_which_devices_answer() {
    let world = Shared::default();
    put(&world, 1..=20);
    let router = Router::new()
        .route("/api/v1/access_token/", post(armis_token))
        .route("/api/v1/search/", get(armis_search))
        .route("/api/v1/devices/custom-properties/_bulk/", post(armis_properties))
        .with_state(world.clone());
    let url = serve(router).await;
    let mut home = Home::new(&format!(
        "[[sources.armis]]\nname = \"main\"\nurl = \"{url}\"\nsecret_key = \"s&cret\"\npause_ms = 1\n\
         write_back = \"Answers\"\nwrite_back_interval_s = 1\n"
    ));
    let server = home.start();
    devices(&server, 20).await;
    let sweep = async |server: &Server, hosts: &[(u64, bool)]| {
        let host = |(n, up): &(u64, bool)| json!({"host": format!("10.7.0.{n}"), "available": up});
        let hosts: Vec<Value> = hosts.iter().map(host).collect();
        server.push("scanner", "sweep", &json!({"hosts": hosts}).to_string()).await.unwrap();
    };
    let written = async |n: usize| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while world.lock().unwrap().written.len() < n {
            assert!(std::time::Instant::now() < end, "{:?}", world.lock().unwrap().written);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        world.lock().unwrap().written.clone()
    };
    // Whoever answers is told; of whom nothing is known nothing is.
    sweep(&server, &[(1, true), (2, true), (3, true)]).await;
    assert_eq!(written(3).await, [(1, true), (2, true), (3, true)]);

    // What Armis refuses is told to somebody, and again to Armis.
    world.lock().unwrap().refuses = true;
    for _ in 0..3 {
        sweep(&server, &[(2, false)]).await;
    }
    server.until("in:devices hostname:sw-2", |rows| rows[0]["is_available"] == json!(false)).await;
    let alert = server.until("in:alerts rule:write-back-failed status:pending", |rows| rows.len() == 1).await;
    assert!(alert[0]["description"].as_str().unwrap().contains("no such property"), "{alert:?}");
    world.lock().unwrap().refuses = false;
    assert_eq!(written(4).await[3..], [(2, false)]);
    server.until("in:alerts rule:write-back-failed status:resolved", |rows| rows.len() == 1).await;

    // After a start nothing is told again but what changes.
    server.stop();
    let server = home.start();
    devices(&server, 20).await;
    sweep(&server, &[(4, true)]).await;
    assert_eq!(written(5).await[4..], [(4, true)]);
    server.stop();
}

#[tokio::test]
async fn a_wrong_secret_is_said_at_once() {
    let world = Shared::default();
    let url = serve(netbox(&world)).await;
    let home = Home::new("");
    let file = home.dir.path().join("wrong.toml");
    let config = format!("[[sources.netbox]]\nname = \"dc1\"\nurl = \"{url}/prefix\"\ntoken = \"guess\"\n");
    std::fs::write(&file, config).unwrap();
    let check = async |file: &std::path::Path| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_radarflow"));
        let done = command.arg("check-config").arg("--config").arg(file).output().await.unwrap();
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, said) = check(&file).await;
    assert!(code != Some(0) && said.contains("403") && said.contains("Invalid token"), "{said}");
    std::fs::write(&file, "[[sources.armis]]\nname = \"a:b\"\nurl = \"https://x\"\nsecret_key = \"k\"\n").unwrap();
    let (_, said) = check(&file).await;
    assert!(said.contains("a source's name has no : and no /"), "{said}");
}

/// States an integration, or changes it.
async fn integration(server: &Server, method: Method, attributes: &Value) -> (u16, Value) {
    let path = if method == Method::POST { "/api/v2/integrations" } else { "/api/v2/integrations/dc1" };
    let body = json!({"data": {"type": "integrations", "id": "dc1", "attributes": attributes}});
    server.ask(method, path, &server.token, &body).await
}

#[tokio::test]
async fn an_inventory_that_people_state_is_asked_as_one_of_the_file_is() {
    let world = Shared::default();
    put(&world, 1..=100);
    let url = serve(netbox(&world)).await;
    let mut home = Home::new("");
    let server = home.start();
    let stated = json!({"inventory": "netbox", "endpoint": format!("{url}/prefix"), "credential": "hush",
        "page_size": 40, "interfaces": false});
    let (status, told) = integration(&server, Method::POST, &stated).await;
    assert_eq!(status, 201, "{told}");
    assert!(!told.to_string().contains("hush"), "{told}");
    devices(&server, 101).await;
    let row = server.rows("in:integrations").await;
    assert_eq!((&row[0]["name"], &row[0]["interval_s"]), (&json!("dc1"), &json!(3600)), "{row:?}");
    assert!(!json!(row).to_string().contains("hush"));
    assert!(sync(&server, &["plan", "netbox/dc1"]).await.1.contains("101 items: 0 new"));

    // What is left out is gone with the next run, which comes at once.
    let (status, told) = integration(&server, Method::PATCH, &json!({"leave_out": ["10.9.0.6", "10.9.0.8/30"]})).await;
    assert_eq!(status, 200, "{told}");
    devices(&server, 96).await;

    // Another place is not told the token of this one; what cannot be read is an alert until it can.
    let (status, told) = integration(&server, Method::PATCH, &json!({"endpoint": url})).await;
    assert_eq!(
        (status, told["errors"][0]["source"]["pointer"].as_str()),
        (422, Some("/data/attributes/credential")),
        "{told}"
    );
    integration(&server, Method::PATCH, &json!({"credential": "wrong"})).await;
    let alert = server.until("in:alerts rule:sync-failed status:pending", |rows| rows.len() == 1).await;
    assert!(alert[0]["description"].as_str().unwrap().contains("403"), "{alert:?}");
    integration(&server, Method::PATCH, &json!({"credential": "hush"})).await;
    server.until("in:alerts rule:sync-failed status:resolved", |rows| rows.len() == 1).await;

    // It is asked again after a start, and no more once it is gone; what it said stays.
    server.kill();
    let asked = || world.lock().unwrap().asked["devices"];
    let before = asked();
    let server = home.start();
    let again = async {
        while asked() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), again).await.expect("it is asked again");
    integration(&server, Method::PATCH, &json!({"credential": "wrong"})).await;
    server.until("in:alerts rule:sync-failed status:pending", |rows| rows.len() == 1).await;
    let gone = server.ask(Method::DELETE, "/api/v2/integrations/dc1", &server.token, &json!({})).await;
    assert!((200..300).contains(&gone.0), "{gone:?}");
    server.until("in:alerts rule:sync-failed status:pending", |rows| rows.is_empty()).await;
    assert!(sync(&server, &["plan", "netbox/dc1"]).await.1.contains("no inventory netbox/dc1"));
    devices(&server, 96).await;
    server.stop();
}

#[tokio::test]
async fn people_state_no_inventory_that_only_the_host_reaches_unless_it_says_so() {
    let world = Shared::default();
    let url = serve(netbox(&world)).await;
    let mut home = Home::new("");
    home.config = home.config.replace("private_addresses = true", "private_addresses = false");
    let server = home.start();
    for (attempt, url) in [url.clone(), url.replace("127.0.0.1", "localhost")].into_iter().enumerate() {
        let stated = json!({"inventory": "netbox", "endpoint": url, "credential": "hush"});
        let (status, told) = integration(&server, Method::POST, &stated).await;
        assert!(status < 300, "{told}");
        // By its address, and by its name.
        let why = ["is no public address", "has private addresses only"][attempt];
        let is = |row: &Value| {
            let said = row["description"].as_str().unwrap();
            said.contains(why) && said.contains("private_addresses = true")
        };
        let failed = "in:alerts rule:sync-failed";
        server.until(failed, |rows| rows.iter().any(is)).await;
        let gone = server.ask(Method::DELETE, "/api/v2/integrations/dc1", &server.token, &json!({})).await;
        assert_eq!(gone.0, 200);
        server.until(&format!("{failed} status:pending"), |rows| rows.is_empty()).await;
    }
    assert!(world.lock().unwrap().asked.is_empty(), "nobody was asked");
    server.stop();
}
