//! Tokens are taken back: at once, for good, and with everything that they let in.

use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::{Home, Server, armis};

const WAIT: Duration = Duration::from_secs(20);

fn radarflow(home: &Home, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_radarflow"));
    command.arg("token").args(args).arg("--data-dir").arg(home.dir.path().join("data"));
    command.env_remove("RADARFLOW_TOKEN").env_remove("RADARFLOW_URL").output().unwrap()
}

/// What a command that must succeed prints.
fn said(home: &Home, args: &[&str]) -> String {
    let output = radarflow(home, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn make(server: &Server, body: Value) -> (String, String) {
    let (status, made) = server.post("/api/tokens", &server.token, &body).await;
    assert_eq!(status, 201, "{made}");
    (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
}

async fn revoke(server: &Server, by: &str, id: &str, body: &Value) -> (u16, Value) {
    server.ask(Method::DELETE, &format!("/api/tokens/{id}"), by, body).await
}

async fn asks(server: &Server, token: &str) -> u16 {
    server.post("/api/query", token, &json!({"query": "in:devices"})).await.0
}

/// A live query over server-sent events, and what was read of it.
async fn follow(server: &Server, token: &str) -> (reqwest::Response, String) {
    let url = format!("{}/api/query/stream?q=in:devices", server.http);
    let mut response = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("event: snapshot") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    (response, text)
}

/// What comes until it ends.
async fn rest((mut response, mut text): (reqwest::Response, String)) -> String {
    let all = async {
        while let Some(chunk) = response.chunk().await.unwrap() {
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        text
    };
    tokio::time::timeout(WAIT, all).await.expect("the stream ends")
}

#[tokio::test]
async fn a_revoked_token_lets_nobody_in_and_what_it_let_in_ends() {
    let mut home = Home::new("");
    let server = home.start();
    server.push("runner", "sync", &format!("[{}]", armis(1, "10.1.0.1", 1))).await.unwrap();
    server.count("devices", 1).await;
    let (id, token) = make(&server, json!({"name": "lost", "role": "operator"})).await;
    let (bound_id, bound) = make(&server, json!({"name": "bound", "role": "admin", "partitions": ["x"]})).await;

    // It is listed by its id, and never by what lets anybody in.
    let (status, listed) = server.ask(Method::GET, "/api/tokens", &server.token, &json!(null)).await;
    assert_eq!(status, 200);
    let lost = json!({"id": id, "name": "lost", "role": "operator", "partitions": [], "expires_ms": null});
    assert!(listed["tokens"].as_array().unwrap().contains(&lost), "{listed}");
    let text = listed.to_string();
    assert!(!text.contains("rf_") && !text.contains("sha256"), "{text}");
    for nobody in [&token, &bound] {
        assert_eq!(server.ask(Method::GET, "/api/tokens", nobody, &json!(null)).await.0, 403);
        assert_eq!(revoke(&server, nobody, &bound_id, &json!({})).await.0, 403);
    }
    assert_eq!(revoke(&server, &server.token, "0000000000000000", &json!({})).await.0, 404);

    let events = follow(&server, &token).await;
    let mut socket = tokio::net::TcpStream::connect(server.http.strip_prefix("http://").unwrap()).await.unwrap();
    let upgrade = format!(
        "GET /api/query/stream?q=in:devices HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("snapshot") {
        assert!(socket.read_buf(&mut heard).await.unwrap() > 0);
    }
    // An upload under way: its end never comes.
    let (sender, body) = tokio::sync::mpsc::channel::<Result<String, std::io::Error>>(4);
    let body = futures::stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
    let upload = reqwest::Client::new().post(format!("{}/api/inventories/lab/main", server.http)).bearer_auth(&token);
    let upload = upload.header("content-type", "application/x-ndjson").body(reqwest::Body::wrap_stream(body));
    let upload = tokio::spawn(upload.send());
    let item = json!({"ip": "10.9.0.1", "hostname": "never", "metadata": {"integration_id": "1"}});
    sender.send(Ok(format!("{item}\n"))).await.unwrap();

    let (status, done) = revoke(&server, &server.token, &id, &json!({"reason": "the laptop was lost"})).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(asks(&server, &token).await, 401);
    let ended = rest(events).await;
    assert!(ended.contains("event: error") && ended.contains("revoked"), "{ended}");
    tokio::time::timeout(WAIT, socket.read_to_end(&mut heard)).await.expect("it ends").unwrap();
    assert!(String::from_utf8_lossy(&heard).contains("revoked"));
    let refused = tokio::time::timeout(WAIT, upload).await.expect("it ends").unwrap();
    assert!(refused.is_err() || refused.unwrap().status() == 401);
    drop(sender);
    let audit = server.until(&format!("in:audit action:'tokens:delete' subject:'{id}'"), |rows| rows.len() == 1).await;
    let row = &audit[0];
    assert_eq!((&row["actor"], &row["subject"]), (&json!("admin"), &json!(id)), "{row}");
    assert!(
        row["detail"].as_str().unwrap().contains("\"lost\"") && !row["detail"].as_str().unwrap().contains("sha256\":"),
        "{row}"
    );
    assert_eq!(row["reason"], "the laptop was lost");
    assert_eq!(revoke(&server, &server.token, &id, &json!({})).await.0, 404, "it is no token any more");

    // Replayed, and out of a snapshot, it is as it was.
    server.kill();
    let server = home.start();
    assert_eq!((asks(&server, &token).await, asks(&server, &bound).await), (401, 200));
    server.stop();
    let server = home.start();
    assert_eq!((asks(&server, &token).await, asks(&server, &bound).await), (401, 200));
    assert_eq!(server.rows("in:devices hostname:never").await.len(), 0);
    server.stop();
}

#[tokio::test]
async fn a_token_that_expires_ends_what_it_let_in() {
    let mut home = Home::new("");
    let server = home.start();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let (_, token) = make(&server, json!({"name": "n", "role": "viewer", "expires_ms": now_ms + 4000})).await;
    let ended = rest(follow(&server, &token).await).await;
    assert!(ended.contains("event: error") && ended.contains("expired"), "{ended}");
    assert_eq!(asks(&server, &token).await, 401);
    server.stop();
}

#[tokio::test]
async fn tokens_are_listed_and_revoked_by_command_with_a_server_and_without() {
    let mut home = Home::new("");
    let server = home.start();
    let (id, token) = make(&server, json!({"name": "grafana", "role": "viewer"})).await;
    let (http, admin) = (server.http.clone(), server.token.clone());
    let at = ["--url", &http, "--token", &admin];
    let listed = said(&home, &[&["list"][..], &at].concat());
    assert!(listed.contains(&id) && listed.contains("grafana"), "{listed}");
    said(&home, &[&["revoke", &id, "--reason", "done"][..], &at].concat());
    assert_eq!(asks(&server, &token).await, 401);

    // The last that makes others stays, unless it is meant.
    let (_, listed) = server.ask(Method::GET, "/api/tokens", &admin, &json!(null)).await;
    let own = listed["tokens"][0]["id"].as_str().unwrap().to_owned();
    let (status, refused) = revoke(&server, &admin, &own, &json!({})).await;
    assert_eq!((status, &refused["code"]), (409, &json!("last_admin")), "{refused}");
    let no = radarflow(&home, &[&["revoke", &own][..], &at].concat());
    assert!(!no.status.success() && String::from_utf8_lossy(&no.stderr).contains("force"));
    server.stop();

    // On the host without a server: another tenant's, which the first cannot reach.
    let other = said(&home, &["create", "--name", "theirs", "--role", "admin", "--tenant", "other"]);
    let listed = said(&home, &["list"]);
    assert!(listed.contains("other") && listed.contains("theirs") && listed.contains(&own), "{listed}");
    let theirs = listed.lines().find(|line| line.contains("theirs")).unwrap();
    let theirs = theirs.split_whitespace().find(|word| word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit()));
    let theirs = theirs.unwrap().to_owned();
    let server = home.start();
    assert_eq!(asks(&server, &other).await, 200);
    assert_eq!(revoke(&server, &admin, &theirs, &json!({"force": true})).await.0, 404);
    assert_eq!(asks(&server, &other).await, 200);
    let (_, listed) = server.ask(Method::GET, "/api/tokens", &admin, &json!(null)).await;
    assert!(!listed.to_string().contains("theirs"), "{listed}");
    // Meant, it goes.
    assert_eq!(revoke(&server, &admin, &own, &json!({"force": true})).await.0, 200);
    assert_eq!(asks(&server, &admin).await, 401);
    server.stop();

    assert!(said(&home, &["revoke", &theirs]).contains("theirs of other"));
    let wrong = radarflow(&home, &["revoke", &theirs]);
    assert!(!wrong.status.success() && String::from_utf8_lossy(&wrong.stderr).contains("there is no token"));
    let again = said(&home, &["create", "--name", "again", "--role", "admin"]);
    let server = home.start();
    assert_eq!((asks(&server, &other).await, asks(&server, &again).await), (401, 200));
    server.stop();
}
