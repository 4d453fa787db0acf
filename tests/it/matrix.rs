//! Every route, asked by everybody who should learn nothing from it: other tenants' roles, tokens that are revoked or expired or
//! bound to another partition, strangers. The routes are those of the API's own description, so that none is forgotten.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{Home, Server};

/// In everything that one tenant has, and nowhere else.
const PLANTED: &str = "planted";

/// Something that a schema allows.
fn example(document: &Value, schema: &Value) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        return example(document, document.pointer(name.strip_prefix('#').unwrap()).unwrap());
    }
    for known in ["example", "default", "const"] {
        if !schema[known].is_null() {
            return schema[known].clone();
        }
    }
    if let Some(first) = schema["enum"].as_array().and_then(|words| words.first()) {
        return first.clone();
    }
    for of in ["oneOf", "anyOf", "allOf"] {
        let choices = schema[of].as_array().into_iter().flatten();
        if let Some(first) =
            choices.filter(|choice| choice["type"] != "null").map(|choice| example(document, choice)).next()
        {
            return first;
        }
    }
    let kind = schema["type"].as_str().or(schema["type"][0].as_str()).unwrap_or("object");
    match kind {
        "string" => json!("x"),
        "integer" | "number" => json!(1),
        "boolean" => json!(true),
        "array" => json!([]),
        _ => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let filled = required.map(|name| (name.to_owned(), example(document, &schema["properties"][name])));
            Value::Object(filled.collect())
        }
    }
}

/// A call that the description knows.
struct Call {
    method: Method,
    path: String,
    body: Option<(String, String)>,
    /// Whether it names something of the tenant that has everything.
    names: bool,
}

/// Every call, with the parameters of paths filled in.
fn calls(document: &Value, values: &BTreeMap<&str, String>) -> Vec<Call> {
    let mut calls = Vec::new();
    for (template, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else { continue };
            if !operation.is_object() {
                continue;
            }
            let mut path = template.clone();
            let names = template.contains('{');
            while let Some((before, rest)) = path.clone().split_once('{') {
                let (name, after) = rest.split_once('}').unwrap();
                let scoped = format!("{template} {name}");
                let value = values.get(scoped.as_str()).or_else(|| values.get(name));
                let value = value.unwrap_or_else(|| panic!("{template}: say here what its {name} is"));
                path = format!("{before}{value}{after}");
            }
            let content = operation["requestBody"]["content"].as_object().and_then(|content| content.iter().next());
            let body = content.map(|(kind, of)| {
                let example = example(document, &of["schema"]);
                (kind.clone(), example.as_str().map_or_else(|| example.to_string(), str::to_owned))
            });
            if template == "/api/query/stream" {
                path.push_str("?q=in:devices");
            }
            calls.push(Call { method, path, body, names });
        }
    }
    calls
}

/// Status, headers and as much of the body as comes by itself.
async fn answer(server: &Server, call: &Call, token: Option<&str>) -> (u16, String) {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut request = client.request(call.method.clone(), format!("{}{}", server.http, call.path));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some((kind, body)) = &call.body {
        request = request.header("Content-Type", kind).body(body.clone());
    }
    let mut response = request.send().await.unwrap();
    let mut said = format!("{:?}\n", response.headers());
    // A stream goes on: what it says first is enough.
    let whole = !call.path.contains("/stream");
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(Duration::from_secs(20), response.chunk()).await {
        said.push_str(&String::from_utf8_lossy(&chunk));
        if !whole {
            break;
        }
    }
    (response.status().as_u16(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_anything_of_what_is_not_theirs() {
    let mut home = Home::new("");
    let server = home.start();
    server.stop();
    let make = |home: &Home, name: &str, tenant: &str, role: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
        command.args(["token", "create", "--name", name, "--tenant", tenant, "--role", role]).args(more);
        command.arg("--data-dir").arg(home.dir.path().join("data")).env_remove("RADARFLOW_TOKEN");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let mut askers: Vec<(&str, String)> =
        ["viewer", "helpdesk", "operator", "admin"].map(|role| (role, make(&home, role, "other", role, &[]))).into();
    askers.push(("bound", make(&home, "bound", "default", "admin", &["--partition", "elsewhere"])));
    let server = home.start();
    let admin = server.token.clone();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let token = async |name: &str, expires_ms: Option<i64>| {
        let body = json!({"name": name, "role": "admin", "expires_ms": expires_ms});
        let (status, made) = server.post("/api/tokens", &admin, &body).await;
        assert_eq!(status, 201, "{made}");
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    };
    let (revoked_id, revoked) = token("revoked", None).await;
    server.ask(Method::DELETE, &format!("/api/tokens/{revoked_id}"), &admin, &json!({})).await;
    askers.push(("revoked", revoked));
    askers.push(("expired", token("expired", Some(now_ms - 1000)).await.1));

    // What there is to be learnt.
    let item = json!({"ip": "10.7.7.7", "hostname": format!("{PLANTED}-host"), "timestamp": 1_700_000_000,
        "metadata": {"integration_id": format!("{PLANTED}-7")}});
    let pushed = reqwest::Client::new().post(format!("{}/api/inventories/{PLANTED}lab/main", server.http));
    let pushed = pushed.bearer_auth(&admin).header("content-type", "application/x-ndjson").body(format!("{item}\n"));
    assert!(pushed.send().await.unwrap().status().is_success());
    server.count("devices", 1).await;
    let uid = server.rows("in:devices fields:uid").await[0]["uid"].as_str().unwrap().to_owned();
    let span = json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": PLANTED});
    let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    let to = format!("http://{}/v1/traces", server.port("otlp"));
    assert!(reqwest::Client::new().post(to).json(&spans).send().await.unwrap().status().is_success());
    server.count("trace_summaries", 1).await;
    let (token_id, _) = token(&format!("{PLANTED}-token"), None).await;
    let named = format!("{PLANTED}-thing");
    for (kind, attributes) in [
        ("dependencies", json!({"parent": "hostname:core", "children": format!("hostname:{PLANTED}*")})),
        ("clear_pairs", json!({"begins": ["1.3.6.1.4.1.9.1"], "ends": ["1.3.6.1.4.1.9.2"], "description": PLANTED})),
        ("device_groups", json!({"condition": format!("hostname:{PLANTED}*")})),
        ("identity_providers", json!({"issuer": "https://id.example", "client_id": PLANTED})),
        ("profiles", json!({"kind": "ping", "condition": format!("hostname:{PLANTED}*"), "description": PLANTED})),
        ("receivers", json!({"target": format!("http://127.0.0.1:9/{PLANTED}")})),
        ("roles", json!({"permissions": ["data:read"], "description": PLANTED})),
        ("rules", json!({"query": format!("in:devices hostname:{PLANTED}*"), "description": PLANTED})),
        ("routes", json!({"receivers": [named], "matchers": [format!("device={PLANTED}")]})),
        (
            "silences",
            json!({"matchers": [format!("device={PLANTED}")], "ends_at": "2099-01-01T00:00:00Z", "comment": PLANTED}),
        ),
        (
            "inhibit_rules",
            json!({"source_matchers": [format!("a={PLANTED}")], "target_matchers": [format!("b={PLANTED}")]}),
        ),
        ("time_intervals", json!({"periods": ["weekdays=monday"]})),
        ("maintenance_windows", json!({"condition": format!("hostname:{PLANTED}*"), "time_intervals": [named]})),
        ("escalation_policies", json!({"matchers": [format!("device={PLANTED}")], "levels": ["30m"]})),
        ("parsing_rules", json!({"pattern": format!("(?P<{PLANTED}>x)"), "body": format!("{PLANTED} {{{PLANTED}}}")})),
        (
            "integrations",
            json!({"inventory": "netbox", "endpoint": format!("https://{PLANTED}.example"), "credential": PLANTED,
                "enabled": false}),
        ),
        ("rotas", json!({"people": [format!("{PLANTED}={named}")], "starts_at": "2026-01-05T08:00:00Z"})),
        (
            "rota_overrides",
            json!({"rota": named, "person": PLANTED, "starts_at": "2026-01-06T08:00:00Z", "ends_at": "2099-01-01T00:00:00Z"}),
        ),
        ("users", json!({"role": "viewer", "display_name": PLANTED, "password": format!("{PLANTED} password")})),
    ] {
        let body = json!({"data": {"type": kind, "id": named, "attributes": attributes}});
        let (status, made) = server.post(&format!("/api/v2/{kind}"), &admin, &body).await;
        assert_eq!(status, 201, "{made}");
    }
    // Its id is the program's.
    let package = json!({"name": PLANTED, "agent_id": PLANTED, "notes": PLANTED});
    let body = json!({"data": {"type": "edge_packages", "attributes": package}});
    let (status, package) = server.post("/api/v2/edge_packages", &admin, &body).await;
    assert_eq!(status, 201, "{package}");
    let package = package["data"]["id"].as_str().unwrap().to_owned();
    let body = json!({"user": named, "password": format!("{PLANTED} password")});
    let (status, session) = server.post("/api/v2/sign-in", "", &body).await;
    assert_eq!(status, 201, "{session}");
    let session = session["data"]["id"].as_str().unwrap().to_owned();

    let document: Value =
        reqwest::get(format!("{}/api/openapi.json", server.http)).await.unwrap().json().await.unwrap();
    let values: BTreeMap<&str, String> = BTreeMap::from([
        ("uid", uid.clone()),
        ("id", named.clone()),
        ("name", named.clone()),
        ("/api/inventories/{name}/{instance} name", format!("{PLANTED}lab")),
        ("/api/inventories/{name}/{instance}/plan name", format!("{PLANTED}lab")),
        ("instance", "main".to_owned()),
        ("run", "1".to_owned()),
        ("kind", "integration".to_owned()),
        ("digest", "0".repeat(32)),
        ("act", "manage".to_owned()),
        ("step", "acknowledge".to_owned()),
        ("decision", "release".to_owned()),
        ("other", uid),
        ("/api/tokens/{id} id", token_id.clone()),
        ("/api/v2/tokens/{id} id", token_id),
        ("/api/v2/sessions/{id} id", session),
        ("/api/v2/edge_packages/{id} id", package.clone()),
        ("/api/v2/edge_packages/{id}/actions/revoke id", package.clone()),
        ("/api/edge-packages/{id}/bundle id", package.clone()),
        ("/api/edge-packages/{id}/enroll id", package.clone()),
    ]);
    let calls = calls(&document, &values);
    assert!(calls.len() > 50, "{}", calls.len());
    let open = ["/healthz", "/readyz", "/metrics"];
    for call in &calls {
        let told = format!("{} {}", call.method, call.path);
        for (who, token) in &askers {
            let (status, said) = answer(&server, call, Some(token)).await;
            // What was asked may be said again: a name in a path is no news.
            let news = said.replace(&named, "").replace(&format!("{PLANTED}lab"), "");
            assert!(!news.contains(PLANTED), "{who}: {told}: {status} {said}");
            assert!(status < 500, "{who}: {told}: {status} {said}");
            let gone = matches!(*who, "revoked" | "expired");
            assert!(!gone || status == 401 || open.contains(&call.path.as_str()), "{who}: {told}: {status} {said}");
            // What another tenant has is not there, whatever is asked of it; nor is it there for who is bound elsewhere.
            // What these make is of whoever asks.
            let takes = ["/api/inventories", "/api/device-groups/"].iter().any(|path| call.path.starts_with(path));
            if call.names && !takes {
                assert!((400..500).contains(&status), "{who}: {told}: {status} {said}");
            }
        }
        let (status, said) = answer(&server, call, None).await;
        assert!(!said.contains("hostname") || status == 401, "{told}: {said}");
        if !open.contains(&call.path.as_str()) {
            assert_eq!(status, 401, "a stranger: {told}: {said}");
        }
    }
    // All of it is there, as it was.
    server.count("devices", 1).await;
    let kinds = [
        "clear_pairs",
        "dependencies",
        "device_groups",
        "escalation_policies",
        "identity_providers",
        "inhibit_rules",
        "integrations",
        "maintenance_windows",
        "parsing_rules",
        "profiles",
        "receivers",
        "roles",
        "rota_overrides",
        "rotas",
        "routes",
        "rules",
        "silences",
        "time_intervals",
        "users",
    ];
    for kind in kinds {
        let (status, read) = server.ask(Method::GET, &format!("/api/v2/{kind}/{named}"), &admin, &json!(null)).await;
        assert_eq!(status, 200, "{read}");
    }
    let path = format!("/api/v2/edge_packages/{package}");
    let (_, read) = server.ask(Method::GET, &path, &admin, &json!(null)).await;
    assert_eq!(read["data"]["attributes"]["status"], "created", "{read}");
    let others =
        server.rows("in:audit actor:(viewer,helpdesk,operator,admin) subject:planted* action:!'tokens:*'").await;
    assert!(others.iter().all(|row| row["actor"] == "admin"), "{others:?}");
    server.stop();
}
