//! How people get in beside a password, from the outside: identity providers, links sent by mail, codes of an authenticator. Real
//! servers answer: a provider and a mail server of others, and a provider of our own that lies.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::{IntoResponse, Response as Answer};
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, Response, Url};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret};

use crate::server::{Home, Server};

/// What a browser does: cookies, forms, and nothing by itself.
#[derive(Clone)]
struct Browser {
    client: reqwest::Client,
    base: String,
    cookies: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Browser {
    fn new(server: &Server) -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Browser { client, base: server.http.clone(), cookies: Arc::default() }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Response {
        let cookies =
            self.cookies.lock().unwrap().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        let response = request.header("Cookie", cookies.join("; ")).send().await.unwrap();
        for cookie in response.headers().get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            let Some((name, value)) = cookie.split(';').next().unwrap().split_once('=') else { continue };
            assert!(["Path=/", "Secure", "HttpOnly", "SameSite="].iter().all(|part| cookie.contains(part)), "{cookie}");
            let mut cookies = self.cookies.lock().unwrap();
            match value {
                "" => drop(cookies.remove(name)),
                value => drop(cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        response
    }

    /// A page of ours: its status and text.
    async fn page(&self, path: &str) -> (u16, String) {
        let response = self.send(self.client.get(format!("{}{path}", self.base))).await;
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// A form of ours.
    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        let request = self.client.post(format!("{}{path}", self.base)).header("Origin", &self.base);
        let response =
            self.send(request.header("Content-Type", "application/x-www-form-urlencoded").body(encoded(fields))).await;
        (response.status().as_u16(), response.text().await.unwrap())
    }

    fn cookie(&self, name: &str) -> Option<String> {
        self.cookies.lock().unwrap().get(name).cloned()
    }

    fn set(&self, name: &str, value: Option<String>) {
        let mut cookies = self.cookies.lock().unwrap();
        match value {
            Some(value) => drop(cookies.insert(name.to_owned(), value)),
            None => drop(cookies.remove(name)),
        }
    }

    /// Who is signed in.
    async fn who(&self) -> Option<String> {
        let (status, page) = self.page("/account").await;
        (status == 200).then(|| between(&page, "<dt>User</dt><dd>", "</dd>").to_owned())
    }

    async fn role(&self) -> String {
        between(&self.page("/account").await.1, "<dt>Role</dt><dd>", "</dd>").to_owned()
    }
}

const SESSION: &str = "__Host-radarflow";
const STEP: &str = "__Host-radarflow-step";
const LINK: &str = "__Host-radarflow-link";

fn encoded(fields: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://x/").unwrap();
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

fn between<'a>(text: &'a str, begins: &str, ends: &str) -> &'a str {
    let rest = text.split_once(begins).unwrap_or_else(|| panic!("{begins} is not in {text}")).1;
    rest.split_once(ends).unwrap().0
}

async fn state(server: &Server, method: Method, path: &str, kind: &str, id: &str, attributes: Value) -> (u16, Value) {
    let body = json!({"data": {"type": kind, "id": id, "attributes": attributes}});
    let url = format!("{}/api/v2/{path}", server.http);
    let mut request = reqwest::Client::new().request(method.clone(), url).bearer_auth(&server.token);
    if method != Method::DELETE {
        request = request.header("Content-Type", "application/vnd.api+json").body(body.to_string());
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

async fn create(server: &Server, kind: &str, id: &str, attributes: Value) {
    let (status, made) = state(server, Method::POST, kind, kind, id, attributes).await;
    assert_eq!(status, 201, "{made}");
}

/// The reasons why people were not let in, as the audit tells them.
async fn reasons(server: &Server, n: usize) -> Vec<String> {
    let rows = server.until("in:audit action:sign_in_failed sort:epoch:asc limit:100", |rows| rows.len() >= n).await;
    rows.iter()
        .map(|row| format!("{} {}", row["subject"].as_str().unwrap(), row["reason"].as_str().unwrap_or("-")))
        .collect()
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The code of a secret, so many steps from now. Not at the end of a step: what follows must happen within it.
async fn code(base32: &str, steps: i64) -> String {
    while now_s() % 30 > 20 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let totp = Builder::new().with_secret(Secret::try_from_base32(base32).unwrap()).build().unwrap();
    totp.generate(now_s().checked_add_signed(steps * 30).unwrap()).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_of_an_authenticator_is_asked_for_and_taken_once() {
    const PASSWORD: &str = "correct horse battery";
    let mut home = Home::new("");
    let server = home.start();
    create(&server, "users", "ann", json!({"role": "viewer", "password": PASSWORD})).await;
    let browser = Browser::new(&server);
    let first = [("tenant", "default"), ("user", "ann"), ("password", PASSWORD), ("next", "/account")];
    assert_eq!(browser.form("/sign-in", &first).await.0, 303);
    assert_eq!(browser.who().await.as_deref(), Some("ann"));

    // Nothing is asked for before a code has shown that the authenticator knows the secret.
    assert_eq!(browser.form("/account/second-factor", &[("password", "x")]).await.0, 401);
    let (_, page) = browser.form("/account/second-factor", &[("password", PASSWORD)]).await;
    assert!(page.contains("<svg") && !page.contains("<script"), "{page}");
    let secret = between(&page, "<code>", "</code>").to_owned();
    let offered = between(&page, "name=\"step\" value=\"", "\"").to_owned();
    let confirm = |code: String| {
        let (browser, offered) = (browser.clone(), offered.clone());
        async move { browser.form("/account/second-factor/confirm", &[("step", &offered), ("code", &code)]).await.0 }
    };
    assert_eq!(confirm("000000".into()).await, 422);
    assert_eq!(confirm(code(&secret, -1).await).await, 303);
    assert_eq!(confirm(code(&secret, 0).await).await, 409, "there is one already");
    let user = &server.rows("in:users name:ann").await[0];
    assert_eq!(user["second_factor"], true);

    // From now on the password alone lets nobody in: by the form, by the API, by the command line.
    let other = Browser::new(&server);
    let (status, page) = other.form("/sign-in", &first).await;
    assert_eq!((status, other.cookie(SESSION)), (200, None));
    let step = between(&page, "name=\"step\" value=\"", "\"").to_owned();
    let sign_in = |code: Option<String>| {
        let body = json!({"user": "ann", "password": PASSWORD, "code": code});
        let (http, client) = (server.http.clone(), reqwest::Client::new());
        async move {
            let answer = client.post(format!("{http}/api/v2/sign-in")).json(&body).send().await.unwrap();
            let status = answer.status().as_u16();
            (status, answer.json::<Value>().await.unwrap())
        }
    };
    let (status, needed) = sign_in(None).await;
    assert_eq!((status, &needed["code"]), (401, &json!("second_factor_needed")), "{needed}");
    // A step that somebody made up, or that is for something else, leads nowhere.
    for made_up in ["", "x", &offered] {
        assert_eq!(other.form("/sign-in/code", &[("step", made_up), ("code", &code(&secret, 0).await)]).await.0, 401);
    }
    assert_eq!(other.form("/sign-in/code", &[("step", &step), ("code", "000000")]).await.0, 401);
    let right = code(&secret, 0).await;
    assert_eq!(
        other.form("/sign-in/code", &[("step", &step), ("code", &right), ("next", "//evil.example")]).await.0,
        303
    );
    assert_eq!(other.who().await.as_deref(), Some("ann"));
    // The same code is taken no second time, and of many at once one is let in.
    assert_eq!(sign_in(Some(right)).await.0, 401);
    let next = code(&secret, 1).await;
    let many = futures::future::join_all((0..4).map(|_| sign_in(Some(next.clone())))).await;
    let statuses: Vec<u16> = many.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{many:?}");
    assert!(statuses.iter().all(|status| matches!(status, 201 | 401)), "{many:?}");

    // What was shown before holds no more once the password is another, or the second factor is gone.
    let (_, page) = Browser::new(&server).form("/sign-in", &first).await;
    let step = between(&page, "name=\"step\" value=\"", "\"").to_owned();

    // A stolen session takes it away neither by the API nor without a code; an administrator does, and all sessions end.
    let session = browser.cookie(SESSION).unwrap();
    let act = |token: String| {
        let url = format!("{}/api/v2/users/ann/actions/reset_second_factor", server.http);
        reqwest::Client::new()
            .post(url)
            .bearer_auth(token)
            .header("Content-Type", "application/vnd.api+json")
            .body("{}")
            .send()
    };
    assert_eq!(act(session).await.unwrap().status(), 403);
    assert_eq!(browser.form("/account/second-factor/remove", &[("code", "123456")]).await.0, 401);
    assert!(act(server.token.clone()).await.unwrap().status().is_success());
    assert_eq!((browser.who().await, other.who().await), (None, None));
    assert_eq!(other.form("/sign-in/code", &[("step", &step), ("code", "000000")]).await.0, 401);
    assert_eq!(sign_in(None).await.0, 201);
    assert!(reasons(&server, 2).await.iter().any(|reason| reason == "ann password: a wrong code"));
    // Nothing that was written tells the secret.
    let bytes = hex::encode(Secret::try_from_base32(&secret).unwrap().as_ref());
    server.stop();
    let mut written = Vec::new();
    crate::resources::written(home.dir.path(), &mut written);
    for text in [secret, bytes] {
        assert!(!written.windows(text.len()).any(|window| window == text.as_bytes()), "the secret is on disk");
    }
}

/// A server of others, in Python.
struct Python(Child);

impl Python {
    fn run(args: &[&str]) -> Self {
        let python = std::env::var("RADARFLOW_TEST_PYTHON").unwrap();
        let mut command = Command::new(python);
        command.arg("-u").args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Python(command.spawn().unwrap())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until somebody listens.
async fn listens(port: u16) {
    let end = Instant::now() + Duration::from_secs(60);
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(Instant::now() < end, "nobody listens on {port}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_provider_signs_people_in() {
    let port = free_port();
    let _provider = Python::run(&["-m", "oidc_provider_mock", "--port", &port.to_string(), "--require-nonce", "true"]);
    listens(port).await;
    let issuer = format!("http://localhost:{port}");
    let client = reqwest::Client::new();
    let known = async |sub: &str, claims: Value| {
        let url = format!("{issuer}/users/{sub}");
        let answer = client.put(url).json(&claims).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    };
    known("1", json!({"preferred_username": "ann", "email": "ann@example.net", "name": "Ann", "groups": ["noc"]}))
        .await;
    known("2", json!({"preferred_username": "bob", "groups": ["guests"]})).await;
    let mut home = Home::new("");
    let server = home.start();
    let mut provider = json!({
        "issuer": issuer, "client_id": "radarflow", "client_secret": "hush-hush", "roles": ["noc=operator", "admins=admin"],
    });
    create(&server, "identity_providers", "corp", provider.clone()).await;
    let row = &server.rows("in:identity_providers name:corp").await[0];
    assert!(row["has_client_secret"] == true && !row.to_string().contains("hush"), "{row}");

    /// Goes to the provider as a browser does, says who one is there, and comes back.
    async fn there_and_back(browser: &Browser, sub: &str) -> (u16, String) {
        let (status, page) = browser.page("/sign-in?tenant=default&next=/account").await;
        assert_eq!(status, 200);
        let link = between(&page, "class=\"button\" href=\"", "\"").replace("&amp;", "&");
        let url = format!("{}{link}", browser.base);
        let away = browser.send(browser.client.get(url)).await;
        assert_eq!(away.status(), 303);
        let there = away.headers()["location"].to_str().unwrap().to_owned();
        let form = browser.client.post(&there).header("Content-Type", "application/x-www-form-urlencoded");
        let back = form.body(encoded(&[("sub", sub)])).send().await.unwrap();
        let back = back.headers()["location"].to_str().unwrap().to_owned();
        let url = Url::parse(&back).unwrap();
        browser.page(&format!("{}?{}", url.path(), url.query().unwrap())).await
    }

    let browser = Browser::new(&server);
    let (status, page) = there_and_back(&browser, "1").await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("0;url=/account"), "{page}");
    assert_eq!((browser.who().await.as_deref(), browser.role().await.as_str()), (Some("ann"), "operator"));
    assert!(browser.cookie(STEP).is_none());
    let ann = &server.rows("in:users name:ann").await[0];
    assert_eq!(
        (&ann["email"], &ann["display_name"], &ann["provider"]),
        (&json!("ann@example.net"), &json!("Ann"), &json!("corp"))
    );
    let session = &server.rows("in:sessions user:ann").await[0];
    assert_eq!(session["method"], "oidc:corp");
    // Who is in no group that has a role is not let in, and no user is made of them.
    let bob = Browser::new(&server);
    let (status, page) = there_and_back(&bob, "2").await;
    assert_eq!((status, bob.cookie(SESSION)), (403, None), "{page}");
    assert!(server.rows("in:users name:bob").await.is_empty());
    // What somebody may do is what their groups say when they sign in.
    known("1", json!({"preferred_username": "ann", "groups": ["admins"]})).await;
    assert_eq!(there_and_back(&browser, "1").await.0, 200);
    assert_eq!(browser.role().await, "admin");
    // A name that somebody else has there now is not theirs; nor is a user of this name who was here before.
    known("3", json!({"preferred_username": "ann", "groups": ["noc"]})).await;
    let third = Browser::new(&server);
    assert_eq!(there_and_back(&third, "3").await.0, 403);
    create(&server, "users", "dan", json!({"role": "admin", "password": "correct horse battery"})).await;
    known("4", json!({"preferred_username": "dan", "groups": ["noc"]})).await;
    assert_eq!(there_and_back(&third, "4").await.0, 403);
    // An administrator may say that they are; and may keep somebody out.
    let theirs = json!({"provider": "corp", "password": null});
    assert_eq!(state(&server, Method::PATCH, "users/dan", "users", "dan", json!({"provider": "corp"})).await.0, 422);
    assert_eq!(state(&server, Method::PATCH, "users/dan", "users", "dan", theirs).await.0, 200);
    assert_eq!(there_and_back(&third, "4").await.0, 200);
    assert_eq!((third.who().await.as_deref(), third.role().await.as_str()), (Some("dan"), "operator"));
    assert_eq!(state(&server, Method::PATCH, "users/dan", "users", "dan", json!({"disabled": true})).await.0, 200);
    assert_eq!((third.who().await, there_and_back(&third, "4").await.0), (None, 403));
    // Roles that a provider gives are not above who states it, exist, and stay while it gives them.
    provider["roles"] = json!(["noc=nobody"]);
    let (status, refused) =
        state(&server, Method::POST, "identity_providers", "identity_providers", "other", provider).await;
    assert_eq!(
        (status, &refused["errors"][0]["source"]["pointer"]),
        (409, &json!("/data/attributes/roles")),
        "{refused}"
    );
    assert_eq!(reasons(&server, 4).await.len(), 4);
    let mut written = Vec::new();
    server.stop();
    crate::resources::written(home.dir.path(), &mut written);
    assert!(!written.windows(9).any(|window| window == b"hush-hush"), "the client secret is on disk");
}

/// What a provider that lies says.
#[derive(Clone)]
struct Liar {
    key: Arc<EncodingKey>,
    published: Arc<Value>,
    issuer: String,
    /// Makes the next token of the nonce that was asked for.
    lie: Arc<Mutex<Box<dyn Fn(&Liar, &str) -> String + Send>>>,
    nonce: Arc<Mutex<String>>,
    codes: Arc<Mutex<Vec<String>>>,
    discovery: Arc<Mutex<Value>>,
}

fn key() -> EncodingKey {
    let pair = rcgen::KeyPair::generate().unwrap();
    EncodingKey::from_ec_der(&pair.serialize_der())
}

impl Liar {
    fn claims(&self, nonce: &str) -> Value {
        json!({
            "iss": self.issuer, "aud": "radarflow", "sub": "7", "nonce": nonce, "exp": now_s() + 300, "iat": now_s(),
            "preferred_username": "eve", "groups": "noc",
        })
    }

    fn token(&self, claims: &Value) -> String {
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// Listens.
    async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", socket.local_addr().unwrap());
        let key = key();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some("one".to_owned());
        let discovery = json!({
            "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"), "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
        });
        let liar = Liar {
            key: Arc::new(key),
            published: Arc::new(json!({"keys": [jwk, {"kty": "of-tomorrow"}]})),
            issuer,
            lie: Arc::new(Mutex::new(Box::new(|_, _| String::new()))),
            nonce: Arc::default(),
            codes: Arc::default(),
            discovery: Arc::new(Mutex::new(discovery)),
        };
        let discovery = |State(liar): State<Liar>| async move { Json(liar.discovery.lock().unwrap().clone()) };
        let keys = |State(liar): State<Liar>| async move { Json((*liar.published).clone()) };
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/token", post(tokens))
            .with_state(liar.clone());
        tokio::spawn(async move { axum::serve(socket, routes).await.unwrap() });
        liar
    }

    fn says(&self, lie: impl Fn(&Liar, &str) -> String + Send + 'static) {
        *self.lie.lock().unwrap() = Box::new(lie);
    }
}

/// Gives a token for a code, once, and only to whom it was asked by (PKCE is looked at by the provider of others above).
async fn tokens(State(liar): State<Liar>, asked: String) -> Answer {
    let asked = Url::parse(&format!("http://x/?{asked}")).unwrap();
    let code = asked.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
    let mut codes = liar.codes.lock().unwrap();
    let Some(at) = codes.iter().position(|known| *known == code) else {
        return (axum::http::StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_grant"}))).into_response();
    };
    codes.remove(at);
    let token = (liar.lie.lock().unwrap())(&liar, &liar.nonce.lock().unwrap());
    Json(json!({"access_token": "a", "token_type": "Bearer", "id_token": token})).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_right_lets_nobody_in() {
    let liar = Liar::start().await;
    let mut home = Home::new("");
    let server = home.start();
    let provider = json!({"issuer": liar.issuer, "client_id": "radarflow", "roles": ["noc=viewer"]});
    for name in ["liar", "liar-0", "liar-1", "liar-2", "guessed"] {
        create(&server, "identity_providers", name, provider.clone()).await;
    }
    let browser = Browser::new(&server);
    let begin_at = async |browser: &Browser, provider: &str, next: &str| {
        let url = format!("{}/sign-in/with?tenant=default&provider={provider}&next={next}", server.http);
        let away = browser.send(browser.client.get(url)).await;
        assert_eq!(away.status(), 303, "{}", away.text().await.unwrap());
        let there = Url::parse(away.headers()["location"].to_str().unwrap()).unwrap();
        let asked: BTreeMap<String, String> = there.query_pairs().into_owned().collect();
        for (name, value) in [("response_type", "code"), ("code_challenge_method", "S256"), ("client_id", "radarflow")]
        {
            assert_eq!(asked[name], value);
        }
        *liar.nonce.lock().unwrap() = asked["nonce"].clone();
        liar.codes.lock().unwrap().push("c".to_owned());
        asked["state"].clone()
    };
    let begin = async |browser: &Browser, next: &str| begin_at(browser, "liar", next).await;
    let back_at = |provider: &str, state: &str| format!("/sign-in/callback/default/{provider}?code=c&state={state}");
    let back = |state: &str| back_at("liar", state);
    let changed = |claim: &'static str, value: Value| {
        move |liar: &Liar, nonce: &str| {
            let mut claims = liar.claims(nonce);
            claims[claim] = value.clone();
            liar.token(&claims)
        }
    };
    type Lie = Box<dyn Fn(&Liar, &str) -> String + Send>;
    let unsigned = |liar: &Liar, nonce: &str| {
        let token = liar.token(&liar.claims(nonce));
        let body = token.split('.').nth(1).unwrap();
        // {"alg":"none","typ":"JWT"}
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}.")
    };
    let shared = |liar: &Liar, nonce: &str| {
        // Signed with what everybody knows, as if that were a secret.
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::HS256) };
        let public = EncodingKey::from_secret(liar.published.to_string().as_bytes());
        jsonwebtoken::encode(&header, &liar.claims(nonce), &public).unwrap()
    };
    let stranger = |kid: &'static str| {
        move |liar: &Liar, nonce: &str| {
            let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
            jsonwebtoken::encode(&header, &liar.claims(nonce), &key()).unwrap()
        }
    };
    let lies: Vec<(&str, Lie)> = vec![
        ("nothing", Box::new(|_, _| String::new())),
        ("large", Box::new(changed("more", json!("a".repeat(100_000))))),
        ("unsigned", Box::new(unsigned)),
        ("a shared secret", Box::new(shared)),
        ("a key that is not published", Box::new(stranger("two"))),
        ("another key of the same name", Box::new(stranger("one"))),
        ("another issuer", Box::new(changed("iss", json!("https://id.example")))),
        ("another client", Box::new(changed("aud", json!("other")))),
        ("several clients", Box::new(changed("aud", json!(["other", "radarflow"])))),
        ("of another client", Box::new(changed("azp", json!("other")))),
        ("over", Box::new(changed("exp", json!(now_s() - 120)))),
        ("without end", Box::new(changed("exp", Value::Null))),
        ("of the future", Box::new(changed("iat", json!(now_s() + 600)))),
        ("another nonce", Box::new(changed("nonce", json!("n")))),
        ("no nonce", Box::new(changed("nonce", Value::Null))),
        ("nobody", Box::new(changed("sub", Value::Null))),
        ("nobody at all", Box::new(changed("sub", json!("")))),
        ("no name", Box::new(changed("preferred_username", Value::Null))),
        ("a name that is none", Box::new(changed("preferred_username", json!("*")))),
    ];
    let told = lies.len();
    for (nth, (what, lie)) in lies.into_iter().enumerate() {
        let name = format!("liar-{}", nth / 8);
        let state = begin_at(&browser, &name, "/account").await;
        liar.says(lie);
        let (status, page) = browser.page(&back_at(&name, &state)).await;
        assert!(matches!(status, 401 | 403 | 502), "{what}: {status} {page}");
        assert!(browser.cookie(SESSION).is_none() && browser.who().await.is_none(), "{what}");
        liar.codes.lock().unwrap().clear();
    }
    assert!(reasons(&server, told).await.len() >= told);
    liar.says(|liar, nonce| liar.token(&liar.claims(nonce)));
    // Another state, another browser, another issuer in the answer, a refusal: nobody is let in.
    let state = begin(&browser, "/account").await;
    for path in [
        back("x"),
        "/sign-in/callback/default/liar?code=c".to_owned(),
        back_at("liar-0", &state),
        format!("{}&iss=https://id.example", back(&state)),
    ] {
        let step = browser.cookie(STEP);
        assert_eq!(browser.page(&path).await.0, 401, "{path}");
        browser.set(STEP, step);
    }
    let (status, page) = browser
        .page(&format!("/sign-in/callback/default/liar?error=access_denied&error_description=%3Cb%3E&state={state}"))
        .await;
    assert!(status == 401 && !page.contains("<b>"), "{page}");
    let state = begin(&browser, "/account").await;
    assert_eq!(Browser::new(&server).page(&back(&state)).await.0, 401, "the code of another's browser");
    // What is right lets in, once, and leads to this host alone.
    let state = begin(&browser, "//evil.example").await;
    let step = browser.cookie(STEP);
    let (status, page) = browser.page(&back(&state)).await;
    assert!(status == 200 && page.contains("0;url=/account") && !page.contains("evil"), "{page}");
    assert_eq!(browser.who().await.as_deref(), Some("eve"));
    let other = Browser::new(&server);
    other.set(STEP, step);
    liar.codes.lock().unwrap().clear();
    assert_eq!(other.page(&back(&state)).await.0, 401, "a code is used once");
    // Codes are guessed no more often than passwords.
    liar.codes.lock().unwrap().clear();
    for nth in 0..12 {
        let state = begin_at(&browser, "guessed", "/account").await;
        let (status, _) = browser.page(&back_at("guessed", &state).replace("code=c", "code=x")).await;
        assert_eq!(status, if nth < 10 { 401 } else { 429 }, "{nth}");
    }
    // What a provider says of itself may lead to no other place, nor be of somebody else.
    for (name, value) in [("token_endpoint", "http://169.254.169.254/token"), ("issuer", "https://id.example")] {
        let right = liar.discovery.lock().unwrap().clone();
        liar.discovery.lock().unwrap()[name] = json!(value);
        let id = format!("by-{name}");
        let provider =
            json!({"issuer": format!("{}/", liar.issuer), "client_id": "radarflow", "default_role": "viewer"});
        create(&server, "identity_providers", &id, provider).await;
        if name == "token_endpoint" {
            liar.discovery.lock().unwrap()["issuer"] = json!(format!("{}/", liar.issuer));
        }
        assert_eq!(browser.page(&format!("/sign-in/with?tenant=default&provider={id}")).await.0, 502, "{name}");
        *liar.discovery.lock().unwrap() = right;
    }
    // Nobody chooses by a header where a provider sends people back to.
    let request = browser.client.get(format!("{}/sign-in/with?tenant=default&provider=liar", server.http));
    assert_eq!(browser.send(request.header("Host", "evil.example")).await.status(), 400);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_sent_by_mail_lets_somebody_in_once() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut smtp = Python::run(&["-m", "aiosmtpd", "-n", "-l", &listen, "-c", "aiosmtpd.handlers.Debugging", "stdout"]);
    let (told, mails) = std::sync::mpsc::channel();
    let out = smtp.0.stdout.take().unwrap();
    std::thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(told.send(line)));
    });
    listens(port).await;
    let mail = format!("[mail]\nsmtp = \"smtp://{listen}\"\nfrom = \"Radarflow <radarflow@example.net>\"\n");
    let mut home = Home::new(&mail);
    let server = home.start();
    create(&server, "users", "ann", json!({"role": "viewer", "email": "ann@example.net"})).await;
    create(&server, "users", "cut", json!({"role": "viewer", "email": "cut@example.net", "disabled": true})).await;
    create(&server, "users", "mute", json!({"role": "viewer"})).await;
    let ask = async |browser: &Browser, user: &str| {
        browser.form("/sign-in/link/send", &[("tenant", "default"), ("user", user), ("next", "/account")]).await
    };
    // The answer tells nothing of who there is.
    let stranger = Browser::new(&server);
    let first = ask(&stranger, "nobody").await;
    assert_eq!(first.0, 202);
    for user in ["cut", "mute"] {
        assert_eq!(ask(&stranger, user).await, first);
    }
    let browser = Browser::new(&server);
    assert_eq!(ask(&browser, "ann").await, first);
    // Lines of a mail are folded (quoted-printable).
    let letter = async || {
        let end = Instant::now() + Duration::from_secs(30);
        let mut text = String::new();
        while !text.contains("END MESSAGE") {
            match mails.try_recv() {
                Ok(line) => text.push_str(&format!("{line}\n")),
                Err(_) => {
                    assert!(Instant::now() < end, "no mail came: {text}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        text.replace("=\n", "").replace("=3D", "=")
    };
    let text = letter().await;
    assert!(text.contains("To: ann@example.net") && text.contains("From: Radarflow <radarflow@example.net>"), "{text}");
    let path = format!("/sign-in/link?{}", between(&text, "/sign-in/link?", "\n").trim());
    let link = between(&format!("{path}\n"), "link=", "\n").to_owned();
    // To look at it spends nothing; another browser does not get in with it.
    let (status, page) = browser.page(&path).await;
    assert!(status == 200 && page.contains("<button"), "{page}");
    let spend = async |browser: &Browser, link: &str| {
        browser.form("/sign-in/link", &[("tenant", "default"), ("link", link)]).await.0
    };
    assert_eq!((spend(&stranger, &link).await, spend(&Browser::new(&server), &link).await), (401, 401));
    assert_eq!(spend(&browser, "rfs_x").await, 401);
    let step = browser.cookie(LINK);
    let twice = futures::future::join_all((0..6).map(|_| spend(&browser, &link))).await;
    assert_eq!(twice.iter().filter(|status| **status == 303).count(), 1, "{twice:?}");
    assert_eq!(browser.who().await.as_deref(), Some("ann"));
    assert_eq!(server.rows("in:sessions user:ann").await[0]["method"], "link");
    browser.set(LINK, step);
    assert_eq!(spend(&browser, &link).await, 401, "it was used");
    // So many are sent to somebody, and no more while these hold.
    for nth in 1..=3 {
        assert_eq!(ask(&Browser::new(&server), "ann").await.0, 202);
        server.until("in:sign_in_links user:ann", |rows| rows.len() == nth).await;
    }
    create(&server, "users", "eve", json!({"role": "viewer", "email": "eve@example.net"})).await;
    for user in ["ann", "ann", "eve"] {
        assert_eq!(ask(&Browser::new(&server), user).await.0, 202);
    }
    server.until("in:sign_in_links user:eve", |rows| rows.len() == 1).await;
    assert_eq!(server.rows("in:sign_in_links user:ann").await.len(), 3);
    // They end with the address, and whom a provider signs in gets none.
    let moved = json!({"email": "ann@example.com"});
    assert_eq!(state(&server, Method::PATCH, "users/ann", "users", "ann", moved).await.0, 200);
    server.until("in:sign_in_links user:ann", <[Value]>::is_empty).await;
    // The links are on no disk: the mail has them, and nothing else.
    let mut written = Vec::new();
    server.stop();
    crate::resources::written(home.dir.path(), &mut written);
    assert!(!written.windows(link.len()).any(|window| window == link.as_bytes()), "the link is on disk");
}

/// Runs `radarflow audit verify`: whether it holds, and what it says.
fn verify(server: &Server, more: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_radarflow"))
        .args(["audit", "verify"])
        .args(more)
        .env("RADARFLOW_URL", &server.http)
        .env("RADARFLOW_TOKEN", &server.token)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.success(), said)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_the_audit_afterwards_is_seen() {
    let mut home = Home::new("");
    let server = home.start();
    for name in ["ann", "bob", "eve"] {
        create(&server, "users", name, json!({"role": "viewer", "display_name": "Zoë 💡 \"quoted\""})).await;
    }
    server.until("in:audit action:'users:create'", |rows| rows.len() == 3).await;
    let (holds, said) = verify(&server, &[]);
    assert!(holds && said.contains("the chain holds"), "{said}");
    let head = said.trim().rsplit("head: ").next().unwrap().to_owned();
    // It goes on over a restart, and what was its end is within it then.
    server.stop();
    let server = home.start();
    create(&server, "users", "dan", json!({"role": "viewer"})).await;
    server.until("in:audit action:'users:create'", |rows| rows.len() == 4).await;
    let (holds, said) = verify(&server, &["--head", &head]);
    assert!(holds, "{said}");
    assert!(!verify(&server, &["--head", &"0".repeat(64)]).0);
    let sequence = server.rows("in:audit subject:bob").await[0]["sequence"].as_i64().unwrap();
    server.stop();
    // Somebody takes a row out of the lake, with a tool of theirs.
    let script = "import sys, deltalake; deltalake.DeltaTable(sys.argv[1]).delete(f'sequence = {sys.argv[2]}')";
    let python = std::env::var("RADARFLOW_TEST_PYTHON").unwrap();
    let output =
        Command::new(python).args(["-c", script]).arg(home.lake("audit")).arg(sequence.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let server = home.start();
    let (holds, said) = verify(&server, &[]);
    assert!(!holds && said.contains(&format!("row {sequence} is gone")), "{said}");
    server.stop();
}
