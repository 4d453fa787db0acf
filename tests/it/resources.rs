//! Resources, from the outside: over HTTP as JSON:API has it, by the command line, as files, and through kills.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::server::{Home, Server};

const MEDIA_TYPE: &str = "application/vnd.api+json";

/// Sends a document, with headers.
async fn send(
    server: &Server,
    token: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Response {
    let mut request = reqwest::Client::new().request(method, format!("{}{path}", server.http)).bearer_auth(token);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !body.is_null() {
        request = request.header("Content-Type", MEDIA_TYPE).body(body.to_string());
    }
    request.send().await.unwrap()
}

/// The same as the administrator: status and document, which is one of JSON:API.
async fn ask(server: &Server, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let response = send(server, &server.token, method, path, headers, body).await;
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], MEDIA_TYPE, "{path}");
    let document: Value = response.json().await.unwrap();
    let errors = document["errors"].as_array();
    assert_eq!(errors.is_some(), status >= 400, "{path}: {document}");
    for error in errors.into_iter().flatten() {
        assert_eq!(error["status"], status.to_string(), "{document}");
        assert!(error["code"].is_string() && error["detail"].is_string(), "{document}");
    }
    (status, document)
}

#[allow(clippy::needless_pass_by_value, reason = "it is made where it is handed over")]
fn data(kind: &str, id: &str, attributes: Value) -> Value {
    json!({"data": {"type": kind, "id": id, "attributes": attributes}})
}

async fn create(server: &Server, kind: &str, id: &str, attributes: Value) -> Value {
    let (status, made) = ask(server, Method::POST, &format!("/api/v2/{kind}"), &[], &data(kind, id, attributes)).await;
    assert_eq!(status, 201, "{made}");
    made
}

#[tokio::test]
async fn a_resource_is_made_read_changed_and_ended() {
    let mut home = Home::new("");
    let server = home.start();
    let made = create(&server, "device_groups", "core/a b", json!({"condition": "type:router"})).await;
    let path = made["data"]["links"]["self"].as_str().unwrap().to_owned();
    assert_eq!(path, "/api/v2/device_groups/core%2Fa%20b");

    // It is read as it was answered, under its tag; by the query language, too.
    let response = send(&server, &server.token, Method::GET, &path, &[], &Value::Null).await;
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let read: Value = response.json().await.unwrap();
    assert_eq!(read["data"], made["data"]);
    assert_eq!(tag, format!("\"{}\"", made["meta"]["epoch"]));
    let same = send(&server, &server.token, Method::GET, &path, &[("If-None-Match", &tag)], &Value::Null).await;
    assert_eq!(same.status(), 304);
    let rows = server.rows("in:device_groups fields:name,condition").await;
    assert_eq!(rows, [json!({"name": "core/a b", "condition": "type:router"})]);

    // What is named changes; null is the default; the tag of before is over.
    let change = json!({"data": {"type": "device_groups", "attributes": {"description": "the core"}}});
    let (status, changed) = ask(&server, Method::PATCH, &path, &[("If-Match", &tag)], &change).await;
    assert_eq!((status, &changed["data"]["attributes"]["condition"]), (200, &json!("type:router")));
    let (status, late) = ask(&server, Method::PATCH, &path, &[("If-Match", &tag)], &change).await;
    assert_eq!((status, &late["errors"][0]["code"]), (412, &json!("precondition_failed")));
    assert!(late["errors"][0]["detail"].as_str().unwrap().contains("admin"), "{late}");
    let back =
        json!({"data": {"type": "device_groups", "attributes": {"description": null}}, "meta": {"reason": "tidy"}});
    let (_, back) = ask(&server, Method::PATCH, &path, &[], &back).await;
    assert_eq!(back["data"]["attributes"]["description"], "");
    // What was read can be sent back: it changes nothing.
    let (status, again) = ask(&server, Method::PATCH, &path, &[], &json!({"data": back["data"]})).await;
    assert_eq!((status, &again["data"]), (200, &back["data"]));

    // Mistakes are told with their place.
    let wrong = [
        (
            Method::POST,
            "/api/v2/users",
            data("users", "x", json!({"role": "viewer", "disabled": "no"})),
            422,
            "/data/attributes/disabled",
        ),
        (Method::POST, "/api/v2/users", data("users", "x", json!({"role": "nobody"})), 409, "/data/attributes/role"),
        (Method::POST, "/api/v2/users", data("users", "*", json!({"role": "viewer"})), 422, "/data/id"),
        (Method::POST, "/api/v2/users", data("roles", "x", json!({})), 409, "/data/type"),
        (
            Method::POST,
            "/api/v2/users",
            data("users", "x", json!({"role": "viewer", "password": "short"})),
            422,
            "/data/attributes/password",
        ),
        (
            Method::POST,
            "/api/v2/device_groups",
            data("device_groups", "x", json!({"condition": "hostname:("})),
            422,
            "/data/attributes/condition",
        ),
        (Method::PATCH, path.as_str(), data("device_groups", "other", json!({})), 409, "/data/id"),
    ];
    for (method, path, body, status, pointer) in wrong {
        let (was, told) = ask(&server, method, path, &[], &body).await;
        assert_eq!((was, &told["errors"][0]["source"]["pointer"]), (status, &json!(pointer)), "{body}: {told}");
    }
    // The tenant is no field of anything.
    let moved = json!({"data": {"type": "device_groups", "attributes": {"tenant_id": "other"}}});
    let (status, refused) = ask(&server, Method::PATCH, &path, &[], &moved).await;
    assert_eq!(status, 422, "{refused}");
    for (method, path, status) in [
        (Method::GET, "/api/v2/nothing", 404),
        (Method::GET, "/api/v2/users/nobody", 404),
        (Method::DELETE, "/api/v2/users/nobody", 404),
        (Method::POST, "/api/v2/device_groups/core%2Fa%20b/actions/explode", 403),
        (Method::GET, "/api/v2/users?filter[nothing]=x", 400),
        (Method::GET, "/api/v2/users?page[size]=0", 400),
    ] {
        assert_eq!(ask(&server, method, path, &[], &Value::Null).await.0, status, "{path}");
    }
    let text = reqwest::Client::new().post(format!("{}/api/v2/users", server.http)).bearer_auth(&server.token);
    assert_eq!(text.header("Content-Type", "text/plain").body("x").send().await.unwrap().status(), 415);

    let (status, gone) = ask(&server, Method::DELETE, &path, &[], &Value::Null).await;
    assert_eq!(status, 200, "{gone}");
    assert_eq!(ask(&server, Method::GET, &path, &[], &Value::Null).await.0, 404);
    // The audit has all of it: who, what, why, before and after, and what was refused.
    let acts = server.until("in:audit subject:'core/a b' sort:epoch:asc", |rows| rows.len() >= 7).await;
    let told: Vec<(&str, bool)> = acts
        .iter()
        .map(|row| (row["action"].as_str().unwrap(), row["detail"].as_str().unwrap().contains("refused")))
        .collect();
    assert_eq!(told[0], ("device_groups:create", false));
    assert!(
        told.contains(&("device_groups:update", true)) && told.last() == Some(&("device_groups:delete", false)),
        "{told:?}"
    );
    assert!(acts.iter().any(|row| row["reason"] == "tidy"), "{acts:?}");
    let changed = acts.iter().find(|row| row["detail"].as_str().unwrap().contains("the core")).unwrap();
    let detail: Value = serde_json::from_str(changed["detail"].as_str().unwrap()).unwrap();
    assert_eq!(detail["outcome"]["after"], json!({"description": "the core"}), "{detail}");
    server.stop();
}

#[tokio::test]
async fn pages_filters_and_operations() {
    let mut home = Home::new("");
    let server = home.start();
    let add = |n: usize| {
        let condition = format!("hostname:h{n}");
        json!({"op": "add", "data": {"type": "device_groups", "id": format!("g{n:03}"), "attributes": {"condition": condition}}})
    };
    let body = json!({"atomic:operations": (0..250).map(add).collect::<Vec<_>>()});
    let (status, done) = ask(&server, Method::POST, "/api/v2/operations", &[], &body).await;
    assert_eq!((status, done["atomic:results"].as_array().unwrap().len()), (200, 250));
    // One of them is wrong: none is done, and it is told which.
    let body = json!({"atomic:operations": [add(300), add(0)]});
    let (status, refused) = ask(&server, Method::POST, "/api/v2/operations", &[], &body).await;
    assert_eq!(
        (status, &refused["errors"][0]["source"]["pointer"]),
        (409, &json!("/atomic:operations/1")),
        "{refused}"
    );
    assert_eq!(ask(&server, Method::GET, "/api/v2/device_groups/g300", &[], &Value::Null).await.0, 404);

    let (mut path, mut seen) =
        ("/api/v2/device_groups?page[size]=100&sort=-name&fields[device_groups]=condition".to_owned(), Vec::new());
    loop {
        let (status, page) = ask(&server, Method::GET, &path, &[], &Value::Null).await;
        assert_eq!(status, 200, "{page}");
        for resource in page["data"].as_array().unwrap() {
            assert_eq!(resource["attributes"].as_object().unwrap().len(), 1, "{resource}");
            seen.push(resource["id"].as_str().unwrap().to_owned());
        }
        match page["links"]["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    let all: Vec<String> = (0..250).rev().map(|n| format!("g{n:03}")).collect();
    assert_eq!(seen, all);
    for (filter, expected) in [
        ("filter[name]=g007", vec!["g007"]),
        ("filter[id][in]=g001,g002", vec!["g001", "g002"]),
        ("filter[name][like]=g24*&filter[condition][ne]=hostname:h240&page[size]=2", vec!["g241", "g242"]),
        ("filter[srql]=name:g1 OR condition:'hostname:h249'", vec!["g249"]),
        ("filter[epoch][gt]=1&filter[name]=g003", vec!["g003"]),
    ] {
        let (_, page) = ask(&server, Method::GET, &format!("/api/v2/device_groups?{filter}"), &[], &Value::Null).await;
        let ids: Vec<&str> = page["data"]
            .as_array()
            .unwrap_or_else(|| panic!("{filter}: {page}"))
            .iter()
            .map(|r| r["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, expected, "{filter}");
    }
    // What a write has returned is waited for; what none can have returned is not.
    let epoch = create(&server, "device_groups", "last", json!({"condition": "hostname:h"})).await["meta"]["epoch"]
        .as_u64()
        .unwrap();
    for path in ["/api/v2/device_groups", "/api/v2/device_groups/last"] {
        let at = |epoch: u64| format!("{path}?min_epoch={epoch}");
        assert_eq!(ask(&server, Method::GET, &at(epoch), &[], &Value::Null).await.0, 200);
        let (status, refused) = ask(&server, Method::GET, &at(epoch + 500), &[], &Value::Null).await;
        assert_eq!((status, &refused["errors"][0]["code"]), (400, &json!("no_such_epoch")), "{refused}");
    }
    server.stop();
}

/// Everything that was written below a folder.
pub(crate) fn written(folder: &Path, out: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            written(&path, out);
        } else {
            out.extend(std::fs::read(path).unwrap());
        }
    }
}

#[tokio::test]
async fn people_sign_in_and_nothing_tells_their_secrets() {
    let mut home = Home::new("");
    let server = home.start();
    let password = "plantedsecret correct horse";
    let user = json!({"role": "operator", "password": password, "email": "ann@example.net"});
    let made = create(&server, "users", "ann", user).await;
    assert_eq!(made["data"]["attributes"]["has_password"], true);
    create(&server, "users", "nopass", json!({"role": "viewer"})).await;

    let sign_in = async |tenant: &str, user: &str, password: &str| {
        let body = json!({"tenant": tenant, "user": user, "password": password});
        server.post("/api/v2/sign-in", "", &body).await
    };
    let (status, session) = sign_in("default", "ann", password).await;
    assert_eq!(status, 201, "{session}");
    let session = session["meta"]["token"].as_str().unwrap().to_owned();
    // She may what her role allows, and what is her own.
    assert_eq!(server.post("/api/query", &session, &json!({"query": "in:devices"})).await.0, 200);
    for entity in ["users", "tokens", "sessions", "roles", "audit"] {
        let (status, refused) = server.post("/api/query", &session, &json!({"query": format!("in:{entity}")})).await;
        assert_eq!((status, &refused["code"]), (403, &json!("forbidden")), "{refused}");
        let within = json!({"query": format!("in:devices hostname:(in:{entity} fields:created_by)")});
        assert_ne!(server.post("/api/query", &session, &within).await.0, 200, "{entity}");
        let (status, _) = server.post("/api/sql", &session, &json!({"sql": format!("SELECT * FROM {entity}")})).await;
        assert_eq!(status, 400, "{entity}");
        if entity != "audit" {
            let path = format!("/api/v2/{entity}");
            assert_eq!(send(&server, &session, Method::GET, &path, &[], &Value::Null).await.status(), 403);
        }
    }
    let (_, viewer) = server.post("/api/tokens", &server.token, &json!({"name": "v", "role": "viewer"})).await;
    let viewer = viewer["token"].as_str().unwrap();
    for path in ["/api/v2/users", "/api/v2/users/ann", "/api/v2/users?filter[srql]=name:(in:sessions fields:user)"] {
        assert_eq!(send(&server, viewer, Method::GET, path, &[], &Value::Null).await.status(), 403, "{path}");
    }
    let own = send(&server, &session, Method::GET, "/api/v2/users/ann", &[], &Value::Null).await;
    assert_eq!(own.status(), 200);
    let above = json!({"data": {"type": "users", "attributes": {"role": "admin"}}});
    assert_eq!(send(&server, &session, Method::PATCH, "/api/v2/users/ann", &[], &above).await.status(), 403);

    // A name that nobody has, one without a password, another tenant: the same answer.
    let wrong: Vec<_> =
        [("default", "ann", "x"), ("default", "nobody", "x"), ("default", "nopass", ""), ("other", "ann", password)]
            .into();
    let mut said = BTreeSet::new();
    for (tenant, user, password) in wrong {
        let (status, told) = sign_in(tenant, user, password).await;
        assert_eq!(status, 401);
        said.insert(told.to_string());
    }
    assert_eq!(said.len(), 1, "{said:?}");
    let told = server.until("in:audit action:sign_in_failed", |rows| rows.len() == 3).await;
    assert!(told.iter().all(|row| row["detail"].as_str().unwrap().contains("127.0.0.1")), "{told:?}");

    // A role that changes ends what it let in for; who is disabled signs in no more.
    let disabled = json!({"data": {"type": "users", "attributes": {"disabled": true}}});
    assert_eq!(ask(&server, Method::PATCH, "/api/v2/users/ann", &[], &disabled).await.0, 200);
    assert_eq!(server.post("/api/query", &session, &json!({"query": "in:devices"})).await.0, 401);
    assert_eq!(sign_in("default", "ann", password).await.0, 401);
    let enabled = json!({"data": {"type": "users", "attributes": {"disabled": false}}});
    assert_eq!(ask(&server, Method::PATCH, "/api/v2/users/ann", &[], &enabled).await.0, 200);
    // What ended stays so.
    assert_eq!(server.post("/api/query", &session, &json!({"query": "in:devices"})).await.0, 401);
    let (status, session) = sign_in("default", "ann", password).await;
    assert_eq!(status, 201, "{session}");
    let session = session["meta"]["token"].as_str().unwrap().to_owned();

    // A session outlives the process, and ends when its owner says so.
    server.kill();
    let server = home.start();
    assert_eq!(server.post("/api/query", &session, &json!({"query": "in:devices"})).await.0, 200);
    let (status, out) = server.post("/api/v2/sign-out", &session, &json!({})).await;
    assert_eq!(status, 200, "{out}");
    assert_eq!(server.post("/api/query", &session, &json!({"query": "in:devices"})).await.0, 401);

    // Guessing ends for a while; another name is not concerned.
    let mut answers = Vec::new();
    for _ in 0..12 {
        let body = json!({"tenant": "default", "user": "ann", "password": "guess"});
        answers.push(server.post("/api/v2/sign-in", "", &body).await.0);
    }
    assert_eq!((&answers[..10], &answers[10..]), (&[401; 10][..], &[429, 429][..]));

    let receiver = json!({"target": "http://127.0.0.1:9/x?k=plantedsecret", "headers": ["X-Key: plantedsecret"]});
    let made = create(&server, "receivers", "ops", receiver).await;
    assert_eq!(made["data"]["attributes"]["url"], "http://127.0.0.1:9");
    assert!(!made.to_string().contains("plantedsecret"));
    let epoch = made["meta"]["epoch"].as_u64().unwrap();
    server.until(&format!("in:audit subject:ops epoch:>={epoch}"), |rows| !rows.is_empty()).await;
    // Said again it is no change, though it is sealed.
    let again = json!({"data": {"type": "receivers", "attributes": {"target": "http://127.0.0.1:9/x?k=plantedsecret",
        "headers": ["X-Key: plantedsecret"]}}});
    let (_, same) = ask(&server, Method::PATCH, "/api/v2/receivers/ops", &[], &again).await;
    assert_eq!(same["data"], made["data"]);
    // Another place is not sent what was meant for the first.
    let moved = json!({"data": {"type": "receivers", "attributes": {"target": "http://127.0.0.2:9/"}}});
    let (_, moved) = ask(&server, Method::PATCH, "/api/v2/receivers/ops", &[], &moved).await;
    assert_eq!(moved["data"]["attributes"]["header_names"], json!([]));
    assert_eq!(server.post("/api/snapshot", &server.token, &json!({})).await.0, 200);
    let metrics = reqwest::get(format!("{}/metrics", server.http)).await.unwrap().text().await.unwrap();
    assert!(!metrics.contains("plantedsecret"));
    server.stop();
    // Out of a snapshot it has the tag that it had.
    let server = home.start();
    let (_, read) = ask(&server, Method::GET, "/api/v2/receivers/ops", &[], &Value::Null).await;
    assert_eq!(read["data"], moved["data"]);
    let tag = format!("\"{}\"", moved["data"]["meta"]["epoch"]);
    let change = json!({"data": {"type": "receivers", "attributes": {"send_resolved": false}}});
    let (status, told) = ask(&server, Method::PATCH, "/api/v2/receivers/ops", &[("If-Match", &tag)], &change).await;
    assert_eq!(status, 200, "{told}");
    server.stop();
    let mut all = Vec::new();
    written(home.dir.path(), &mut all);
    let planted = b"plantedsecret";
    assert!(!all.windows(planted.len()).any(|window| window == planted), "a secret was written");
}

#[tokio::test]
async fn a_browser_signs_in_by_a_form_and_writes_only_from_our_pages() {
    let mut home = Home::new("");
    let server = home.start();
    create(&server, "users", "ann", json!({"role": "operator", "password": "correct horse battery"})).await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = |path: &str| format!("{}{path}", server.http);
    let page = client.get(url("/sign-in?next=//evil.example")).send().await.unwrap();
    for header in ["content-security-policy", "x-content-type-options", "x-frame-options"] {
        assert!(page.headers().contains_key(header), "{header}");
    }
    let text = page.text().await.unwrap();
    assert!(!text.contains("evil.example") && !text.contains("<script"), "{text}");
    let post = |origin: &'static str, body: &'static str, next: &'static str| {
        client
            .post(url("/sign-in"))
            .header("Origin", if origin.is_empty() { server.http.clone() } else { origin.to_owned() })
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(format!("tenant=default&user=ann&{body}&next={next}"))
            .send()
    };
    assert_eq!(post("http://evil.example", "password=correct+horse+battery", "/").await.unwrap().status(), 403);
    let wrong = post("", "password=x", "/").await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert!(wrong.headers().get("set-cookie").is_none());
    let right = post("", "password=correct+horse+battery", "https%3A%2F%2Fevil.example").await.unwrap();
    assert_eq!((right.status().as_u16(), right.headers()["location"].to_str().unwrap()), (303, "/account"));
    let cookie = right.headers()["set-cookie"].to_str().unwrap();
    for part in ["__Host-radarflow=rfs_", "Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let with = |request: reqwest::RequestBuilder| request.header("Cookie", cookie.clone()).send();
    let account = with(client.get(url("/account"))).await.unwrap().text().await.unwrap();
    assert!(account.contains("ann") && account.contains("this one"), "{account}");
    assert_eq!(with(client.get(url("/api/catalog"))).await.unwrap().status(), 200);
    // The cookie alone writes nothing.
    let group = data("device_groups", "g", json!({"condition": "type:router"}));
    let write = || client.post(url("/api/v2/device_groups")).header("Content-Type", MEDIA_TYPE).body(group.to_string());
    assert_eq!(with(write()).await.unwrap().status(), 403);
    assert_eq!(with(write().header("X-CSRF-Token", "00")).await.unwrap().status(), 403);
    let out = with(client.post(url("/sign-out")).header("Origin", server.http.clone())).await.unwrap();
    assert_eq!(out.status(), 303);
    assert_eq!(with(client.get(url("/api/catalog"))).await.unwrap().status(), 401, "the session is over");
    server.stop();
}

/// Runs the program against a server; its configuration folder is in the home.
fn radarflow(home: &Home, server: &Server, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_radarflow"))
        .args(args)
        .env("RADARFLOW_URL", &server.http)
        .env("RADARFLOW_TOKEN", &server.token)
        .env("XDG_CONFIG_HOME", home.dir.path())
        .output()
        .unwrap()
}

fn said(home: &Home, server: &Server, args: &[&str]) -> String {
    let output = radarflow(home, server, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn refused(home: &Home, server: &Server, args: &[&str]) -> String {
    let output = radarflow(home, server, args);
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_applied_and_what_was_read_changes_nothing() {
    let mut home = Home::new("");
    let server = home.start();
    let folder = home.dir.path().join("resources");
    std::fs::create_dir(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    write(
        "groups.yaml",
        "kind: device_group\nname: core\ncondition: type:router\n---\nkind: device_group\nname: edge\ncondition: type:switch\n",
    );
    write(
        "people.yaml",
        "kind: user\nname: ann\nrole: noc\n---\nkind: role\nname: noc\npermissions: [data:read, 'alerts:*', 'device_groups:read', 'receivers:read']\n",
    );
    let path = folder.to_str().unwrap();
    let all = ["-f", path, "--owner", "git", "--prune"];
    let with = |command: &'static str| -> Vec<&str> { std::iter::once(command).chain(all).collect() };

    let plan = said(&home, &server, &with("diff"));
    assert!(plan.contains("+ device_group core") && plan.contains("+ user ann"), "{plan}");
    let digest = plan.lines().last().unwrap().strip_prefix("digest: ").unwrap();
    let wrong: Vec<&str> = with("apply").into_iter().chain(["--digest", "00"]).collect();
    assert!(refused(&home, &server, &wrong).contains("no longer what was shown"));
    let right: Vec<&str> = with("apply").into_iter().chain(["--digest", digest]).collect();
    assert!(said(&home, &server, &right).contains("4 added"));
    assert_eq!(said(&home, &server, &with("apply")), "nothing to do");

    // What is read back and applied changes nothing.
    let yaml = said(&home, &server, &["get", "device_groups", "-o", "yaml"]);
    let read = home.dir.path().join("read.yaml");
    std::fs::write(&read, format!("{yaml}\n")).unwrap();
    let read = read.to_str().unwrap();
    assert_eq!(said(&home, &server, &["apply", "-f", read, "--owner", "git"]), "nothing to do");

    // What files own is changed there; drift cannot happen, and what others own is not taken.
    assert!(refused(&home, &server, &["delete", "device_group", "core"]).contains("belongs to git"));
    assert!(refused(&home, &server, &["apply", "-f", read, "--owner", "others"]).contains("belongs to git"));
    write("groups.yaml", "kind: device_group\nname: core\ncondition: type:firewall\n");
    let plan = said(&home, &server, &with("diff"));
    assert!(plan.contains("\"type:router\" → \"type:firewall\"") && plan.contains("- device_group edge"), "{plan}");
    assert!(said(&home, &server, &with("apply")).contains("0 added, 1 changed, 1 deleted"));
    write("groups.yaml", "kind: device_group\nname: core\ncondition: 'hostname:('\n");
    assert!(refused(&home, &server, &with("apply")).contains("nothing was applied"));

    // By hand.
    let token = said(&home, &server, &["create", "token", "name=grafana", "role=viewer"]);
    assert!(token.starts_with("rf_"), "{token}");
    assert_eq!(server.post("/api/query", &token, &json!({"query": "in:devices"})).await.0, 200);
    let table = said(&home, &server, &["get", "tokens", "--filter", "name:grafana"]);
    assert!(table.contains("grafana") && !table.contains("rf_"), "{table}");
    said(&home, &server, &["create", "user", "bob", "role=viewer", "password=correct horse battery"]);
    assert!(refused(&home, &server, &["create", "user", "bob", "role=viewer"]).contains("exists already"));
    assert!(refused(&home, &server, &["create", "user", "x", "rolle=viewer"]).contains("no field rolle"));
    let described = said(&home, &server, &["describe", "user", "bob"]);
    assert!(described.contains("role: viewer") && described.contains("users:create"), "{described}");
    assert!(said(&home, &server, &["describe", "users"]).contains("users:create"));
    assert_eq!(said(&home, &server, &["delete", "user", "bob"]), "user bob is gone");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_by_the_command_line_and_the_host_lets_one_in() {
    let mut home = Home::new("");
    let server = home.start();
    server.stop();
    let (data, folder) = (home.dir.path().join("data"), home.dir.path().to_owned());
    let run = |args: &[&str], input: &str, url: Option<&str>| {
        use std::io::Write;
        use std::process::Stdio;
        let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
        command.args(args).env_remove("RADARFLOW_TOKEN").env("XDG_CONFIG_HOME", &folder);
        command.envs(url.map(|url| ("RADARFLOW_URL", url)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(told).unwrap())
    };
    let reset = ["user", "reset", "ann", "--data-dir", data.to_str().unwrap()];
    assert!(run(&reset, "correct horse battery\n", None).1.contains("say --role"));
    let admin: Vec<&str> = reset.into_iter().chain(["--role", "admin"]).collect();
    assert!(run(&admin, "short\n", None).1.contains("characters"));
    let (ok, told) = run(&admin, "correct horse battery\n", None);
    assert!(ok, "{told}");
    let server = home.start();
    let url = server.http.clone();
    assert!(run(&reset, "correct horse battery\n", None).1.contains("a server runs"));
    assert!(!run(&["login", "--user", "ann"], "wrong\n", Some(&url)).0);
    let (ok, told) = run(&["login", "--user", "ann"], "correct horse battery\n", Some(&url));
    assert!(ok, "{told}");
    let kept = home.dir.path().join("radarflow/session.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (ok, told) = run(&["get", "users"], "", Some(&url));
    assert!(ok && told.contains("ann"), "{told}");
    assert!(run(&["logout"], "", Some(&url)).0);
    assert!(!kept.exists());
    assert!(run(&["get", "users"], "", Some(&url)).1.contains("radarflow login"));
    server.stop();
}

/// Clients that each add one to what they read, under the tag that they read it at; the process is killed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost_whoever_writes_beside_and_whenever_the_process_dies() {
    const CLIENTS: usize = 12;
    const GROUPS: usize = 6;
    let mut home = Home::new("");
    let mut server = home.start();
    for n in 0..GROUPS {
        create(&server, "device_groups", &format!("g{n}"), json!({"condition": "type:router", "description": "0"}))
            .await;
    }
    let added: Arc<Vec<AtomicU64>> = Arc::new((0..GROUPS).map(|_| AtomicU64::new(0)).collect());
    let keys = Arc::new(AtomicU64::new(0));
    for round in 0..3 {
        let (http, token) = (server.http.clone(), server.token.clone());
        let clients = (0..CLIENTS).map(|client| {
            let (http, token, added, keys) = (http.clone(), token.clone(), added.clone(), keys.clone());
            tokio::spawn(async move {
                let client_http = reqwest::Client::new();
                let mut unknown = Vec::new();
                for n in 0.. {
                    let group = (client + n) % GROUPS;
                    let url = format!("{http}/api/v2/device_groups/g{group}");
                    let Ok(read) = client_http.get(&url).bearer_auth(&token).send().await else { break };
                    let Some(tag) = read.headers().get("etag").cloned() else { break };
                    let Ok(read) = read.json::<Value>().await else { break };
                    let Some(before) = read["data"]["attributes"]["description"].as_str() else { break };
                    let next = (before.parse::<u64>().unwrap() + 1).to_string();
                    let change = json!({"data": {"type": "device_groups", "attributes": {"description": next}}});
                    let key = format!("key-{}", keys.fetch_add(1, Ordering::Relaxed));
                    let request = client_http.patch(&url).bearer_auth(&token).header("If-Match", tag.clone());
                    let request = request.header("Idempotency-Key", &key).header("Content-Type", MEDIA_TYPE);
                    match request.body(change.to_string()).send().await {
                        Ok(answer) if answer.status() == 200 => drop(added[group].fetch_add(1, Ordering::Relaxed)),
                        Ok(answer) if answer.status() == 412 => {}
                        // It may have been done or not: whoever has its key finds out.
                        _ => {
                            unknown.push((group, tag, change, key));
                            break;
                        }
                    }
                }
                unknown
            })
        });
        let clients: Vec<_> = clients.collect();
        // So many are done that some are under way.
        let done = || added.iter().map(|n| n.load(Ordering::Relaxed)).sum::<u64>();
        while done() < 30 * (round + 1) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        server.kill();
        server = home.start();
        for client in clients {
            for (group, tag, change, key) in client.await.unwrap() {
                let (path, tag) = (format!("/api/v2/device_groups/g{group}"), tag.to_str().unwrap().to_owned());
                let headers = [("If-Match", tag.as_str()), ("Idempotency-Key", key.as_str())];
                let (first, told) = ask(&server, Method::PATCH, &path, &headers, &change).await;
                let (second, again) = ask(&server, Method::PATCH, &path, &headers, &change).await;
                assert_eq!((first, &told), (second, &again), "one outcome");
                match first {
                    200 => drop(added[group].fetch_add(1, Ordering::Relaxed)),
                    412 => {}
                    other => panic!("{other}: {told}"),
                }
            }
        }
    }
    for (n, added) in added.iter().enumerate() {
        let (_, read) = ask(&server, Method::GET, &format!("/api/v2/device_groups/g{n}"), &[], &Value::Null).await;
        assert_eq!(read["data"]["attributes"]["description"], added.load(Ordering::Relaxed).to_string(), "g{n}");
    }
    server.stop();
}
