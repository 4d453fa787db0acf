//! People sign in: a page with a form, which works without JavaScript, and the same for programs. A session is a resource; what
//! lets somebody in is in a cookie that scripts cannot read, or is borne as a token is.
//!
//! Who guesses learns nothing: a name that nobody has takes as long as a wrong password and is answered the same; after ten
//! failures of a name from an address within fifteen minutes it is answered no more until these are over. A cookie alone writes
//! nothing: a write also bears the token of its session (`X-CSRF-Token`), or is a form of our own pages. Nobody is led to another
//! host, and nothing that was there before the sign-in is a session after it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hmac::{Hmac, KeyInit, Mac};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::Fact;
use radarflow_proto::resource::{Act, Condition, Fields, Operation, Principal, PrincipalKind};
use radarflow_proto::room::of_address;
use radarflow_proto::rows::Table;
use serde::Deserialize;
use serde_json::json;
use sha2::Sha256;

use crate::actor::passwords::verify;
use crate::actor::{Actor, hash, id_of, new_session};
use crate::http::problem::{denied, problem};
use crate::http::reading::{Sender, typed};
use crate::http::request::body;
use crate::http::resources::{Ask, judged};
use crate::http::{Api, Shared};

/// The cookie of a session: of this host alone, over TLS or loopback, not for scripts.
const COOKIE: &str = "__Host-radarflow";
/// What a write bears beside the cookie.
const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");
/// How long a session lasts, microseconds: 12 hours.
const SESSION_US: i64 = 12 * 3600 * 1_000_000;
/// Sessions of a user at once; the oldest ends.
const SESSIONS: usize = 50;
/// Failures of a name from an address within [`WITHIN_MS`] after which it is answered no more.
const FAILURES: u32 = 10;
/// How long failures count, milliseconds.
const WITHIN_MS: i64 = 15 * 60 * 1000;
/// Names and addresses that are remembered at once; the oldest are forgotten.
const REMEMBERED: usize = 20_000;
/// Failures of a tenant that the audit tells of in a minute.
const TOLD_A_MINUTE: u32 = 60;
/// Bytes of a form.
const MAX_FORM: usize = 16 << 10;
/// Bytes of what a browser says of itself that are kept.
const USER_AGENT: usize = 300;
/// The same answer, whatever was wrong.
const WRONG: &str = "the tenant, the name or the password is wrong";

/// Passwords from one address that are looked at or wait to be.
const WAITING_OF_ADDRESS: usize = 4;
/// The same of all addresses.
const WAITING: usize = 64;

/// Who failed, and how often, by tenant, name and address; and whose passwords are being looked at.
#[derive(Default)]
pub struct Attempts {
    failures: Mutex<BTreeMap<(String, String, String), Failures>>,
    waiting: Mutex<BTreeMap<String, usize>>,
    /// Failures told in the audit, by tenant: the minute, and how many in it. Only tenants that there are have any.
    told: Mutex<BTreeMap<String, (i64, u32)>>,
}

/// A password that is being looked at.
struct Waiting<'a> {
    attempts: &'a Attempts,
    address: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.attempts.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = waiting.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                waiting.remove(&self.address);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    first_ms: i64,
}

impl Attempts {
    /// A place among those whose passwords are looked at, if there is one: each costs memory and a core.
    fn wait_for(&self, address: &str) -> Option<Waiting<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        let own = waiting.get(address).copied().unwrap_or_default();
        if all >= WAITING || own >= WAITING_OF_ADDRESS {
            return None;
        }
        waiting.insert(address.to_owned(), own + 1);
        Some(Waiting { attempts: self, address: address.to_owned() })
    }

    /// How long nothing is answered, seconds; `None` where it is.
    fn wait(&self, key: &(String, String, String), now_ms: i64) -> Option<i64> {
        let known = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = known.get(key).filter(|f| f.count >= FAILURES)?;
        let left = failures.first_ms.saturating_add(WITHIN_MS) - now_ms;
        (left > 0).then_some((left + 999) / 1000)
    }

    /// One more; how many there were.
    fn failed(&self, key: (String, String, String), now_ms: i64) -> u32 {
        let mut known = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED && !known.contains_key(&key) {
            known.retain(|_, failures| failures.first_ms.saturating_add(WITHIN_MS) > now_ms);
            if known.len() >= REMEMBERED {
                let oldest = known.iter().min_by_key(|(_, failures)| failures.first_ms).map(|(key, _)| key.clone());
                if let Some(oldest) = oldest {
                    known.remove(&oldest);
                }
            }
        }
        let failures = known.entry(key).or_insert(Failures { count: 0, first_ms: now_ms });
        if failures.first_ms.saturating_add(WITHIN_MS) <= now_ms {
            *failures = Failures { count: 0, first_ms: now_ms };
        }
        failures.count += 1;
        failures.count
    }

    /// Whether one more failure of a tenant is told in the audit.
    fn is_told(&self, tenant: &str, now_ms: i64) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let of = told.entry(tenant.to_owned()).or_default();
        let minute = now_ms.div_euclid(60_000);
        if of.0 != minute {
            *of = (minute, 0);
        }
        of.1 += 1;
        of.1 <= TOLD_A_MINUTE
    }

    fn succeeded(&self, key: &(String, String, String)) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

/// The routes.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/sign-in", get(page).post(form))
        .route("/sign-in.css", get(style))
        .route("/sign-out", post(leave))
        .route("/account", get(account))
        .route("/api/v2/sign-in", post(sign_in))
        .route("/api/v2/sign-out", post(sign_out))
}

/// The value of the session's cookie.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut named = all.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    named.find(|(name, _)| *name == COOKIE).map(|(_, value)| value.to_owned())
}

/// What a write bears beside the cookie: it follows from what the cookie holds, and does not tell it.
fn csrf(session: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(session.as_bytes()).expect("a key of any length");
    mac.update(b"csrf");
    hex::encode(mac.finalize().into_bytes())
}

/// Whether two texts are equal, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    let key: [u8; 32] = rand::random();
    let digest = |text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key of any length");
        mac.update(text.as_bytes());
        mac
    };
    digest(a).verify(&digest(b).finalize().into_bytes()).is_ok()
}

/// Whether a request comes from a page of ours, as the browser says.
fn of_ours(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(header::ORIGIN) else { return true };
    let host = text(header::HOST).unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, of)| of.eq_ignore_ascii_case(host))
}

/// A cookie lets in like a token: to read by itself, to write with what its pages know.
pub(super) async fn cookies(mut request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(header::AUTHORIZATION) {
        return next.run(request).await;
    }
    let Some(session) = cookie(headers) else { return next.run(request).await };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let own = matches!(request.uri().path(), "/sign-in" | "/sign-out");
    let token = headers.get(CSRF).and_then(|value| value.to_str().ok());
    if !reads && !own && !token.is_some_and(|token| same(token, &csrf(&session))) {
        let detail = "a session in a cookie writes with the header X-CSRF-Token; programs send Authorization: Bearer";
        return problem(StatusCode::FORBIDDEN, "csrf", detail, json!({}));
    }
    if let Ok(bearer) = HeaderValue::from_str(&format!("Bearer {session}")) {
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    next.run(request).await
}

/// Who wants to sign in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    #[serde(default = "first_tenant")]
    tenant: String,
    user: String,
    password: String,
}

fn first_tenant() -> String {
    "default".to_owned()
}

/// Where somebody comes from.
struct From {
    address: Option<IpAddr>,
    user_agent: Option<String>,
}

impl From {
    fn of(request: &Request) -> Self {
        let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let cut = |agent: &str| agent.chars().filter(|c| !c.is_control()).take(USER_AGENT / 4).collect();
        From { address: request.extensions().get::<Sender>().map(|sender| sender.0), user_agent: agent.map(cut) }
    }
}

/// Lets somebody in: what their session is borne by, and its id.
async fn let_in(api: &Shared, asks: Credentials, from: From) -> Result<(String, String, u64), Response> {
    let Credentials { tenant, user, password } = asks;
    let address = from.address.map(|address| address.to_string());
    let now_ms = api.now_ms();
    let key = (tenant.clone(), user.clone(), from.address.map_or_else(String::new, of_address));
    if tenant.len() > 200 || user.len() > 200 {
        return Err(denied(WRONG));
    }
    if let Some(seconds) = api.attempts.wait(&key, now_ms) {
        let detail = format!("too many failures; try again in {seconds} s");
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", &detail, json!({}));
        if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        return Err(response);
    }
    let Some(_waiting) = api.attempts.wait_for(&key.2) else {
        let detail = "too many are signing in; try again";
        let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "busy", detail, json!({}));
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return Err(response);
    };
    let known = api.principals.user(&tenant, &user).filter(|known| !known.flag("disabled"));
    let hashed = known.as_ref().and_then(|known| known.secrets.get("password").cloned());
    // It counts before it is looked at: many at once are no more guesses than one after another.
    api.attempts.failed(key.clone(), now_ms);
    if !verify(password, hashed).await {
        // An attacker's are told of in the audit, so many a minute; of tenants that there are. The answer does not wait for it.
        if api.principals.knows(&tenant) && api.attempts.is_told(&tenant, now_ms) {
            let fact = Fact::SignInFailed { tenant: tenant.clone(), user: user.clone(), address };
            let api = api.clone();
            tokio::spawn(async move { api.append_as(&tenant, "sign-in".to_owned(), &fact).await.map_err(drop) });
        }
        return Err(denied(WRONG));
    }
    api.attempts.succeeded(&key);
    let session = new_session();
    let sha256 = hash(&session);
    let id = id_of(&sha256).to_owned();
    let fields: Fields = [
        ("user", json!(user)),
        ("method", json!("password")),
        ("address", json!(address)),
        ("user_agent", json!(from.user_agent)),
        ("expires_at", json!(now_ms.saturating_mul(1000).saturating_add(SESSION_US))),
        ("sha256", json!(sha256)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let operation = |id: &str, act| Operation {
        resource: Table::Session.name().to_owned(),
        id: id.to_owned(),
        act,
        condition: Condition::Any,
        owner: String::new(),
    };
    let mut operations = vec![operation(&id, Act::Create { fields })];
    let held = api.principals.sessions(&tenant, &user);
    let over = held.len().saturating_sub(SESSIONS - 1);
    operations.extend(held[..over].iter().map(|oldest| operation(&oldest.id, Act::Delete)));
    let principal = Principal { kind: PrincipalKind::System, id: String::new(), name: user, address };
    let ask = Ask { principal, reason: String::new(), operations, force: false, key: None };
    let judgement = judged(api, &tenant, ask).await?;
    match judgement.outcome {
        Ok(_) => Ok((session, id, judgement.epoch)),
        Err(refusal) => Err(problem(StatusCode::CONFLICT, refusal.code.name(), &refusal.detail, json!({}))),
    }
}

/// Ends the session of a request.
async fn end(api: &Api, actor: &Actor) -> Result<u64, Response> {
    let operation = Operation {
        resource: Table::Session.name().to_owned(),
        id: actor.principal.id.clone(),
        act: Act::Delete,
        condition: Condition::Any,
        owner: String::new(),
    };
    let principal = actor.principal.clone();
    let ask = Ask { principal, reason: String::new(), operations: vec![operation], force: false, key: None };
    Ok(judged(api, &actor.tenant, ask).await?.epoch)
}

/// Signs a program in for somebody: `{"tenant", "user", "password"}`; the answer has what the session is borne by.
async fn sign_in(State(api): State<Shared>, request: Request) -> Result<Response, Response> {
    let from = From::of(&request);
    let asks: Credentials = body(request).await?;
    let (session, id, epoch) = let_in(&api, asks, from).await?;
    let body = json!({"data": {"type": "sessions", "id": id}, "meta": {"token": session, "epoch": epoch}});
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response())
}

/// Ends the session that asks.
async fn sign_out(State(api): State<Shared>, request: Request) -> Result<Response, Response> {
    let actor = api.actor(request.headers())?;
    if actor.user().is_none() {
        return Err(problem(StatusCode::CONFLICT, "no_session", "a token is revoked, not signed out", json!({})));
    }
    let epoch = end(&api, &actor).await?;
    Ok(axum::Json(json!({"meta": {"epoch": epoch}})).into_response())
}

/// A page: nothing but its own style, in nobody's frame, kept nowhere.
fn html(status: StatusCode, title: &str, main: &str) -> Response {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title} · Radarflow</title><link rel=\"stylesheet\" \
         href=\"/sign-in.css\"></head><body><main>{main}</main></body></html>\n"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, page).into_response()
}

/// A text within a page.
fn text(value: &str) -> String {
    value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// A path of this host, and of no other.
fn local(next: &str) -> &str {
    let plain = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(|c: char| c.is_control() || c == '\\')
        && next.len() <= 1000;
    if plain { next } else { "/account" }
}

fn sign_in_page(status: StatusCode, wrong: Option<&str>, tenant: &str, user: &str, next: &str) -> Response {
    let wrong =
        wrong.map_or_else(String::new, |wrong| format!("<p class=\"wrong\" role=\"alert\">{}</p>", text(wrong)));
    let main = format!(
        "<h1>Sign in to Radarflow</h1>{wrong}<form method=\"post\" action=\"/sign-in\"><input type=\"hidden\" name=\"next\" \
         value=\"{}\"><label for=\"user\">User</label><input id=\"user\" name=\"user\" value=\"{}\" \
         autocomplete=\"username\" autocapitalize=\"none\" required autofocus><label for=\"password\">Password</label><input \
         id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required><label \
         for=\"tenant\">Tenant</label><input id=\"tenant\" name=\"tenant\" value=\"{}\" autocomplete=\"organization\" \
         required><button>Sign in</button></form>",
        text(next),
        text(user),
        text(tenant)
    );
    html(status, "Sign in", &main)
}

/// The page with the form.
async fn page(Query(asked): Query<BTreeMap<String, String>>) -> Response {
    let said = |name: &str| asked.get(name).map(String::as_str);
    sign_in_page(
        StatusCode::OK,
        None,
        said("tenant").unwrap_or("default"),
        "",
        local(said("next").unwrap_or("/account")),
    )
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, include_str!("signin.css")).into_response()
}

/// The fields of a form.
async fn fields(request: Request) -> Result<BTreeMap<String, String>, Response> {
    let bytes = typed(request, MAX_FORM).await?;
    Ok(form_urlencoded::parse(&bytes).into_owned().collect())
}

fn elsewhere(to: &str, cookie: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    for (name, value) in [(header::LOCATION, to), (header::SET_COOKIE, cookie), (header::CACHE_CONTROL, "no-store")] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The form as it was sent.
async fn form(State(api): State<Shared>, request: Request) -> Response {
    let from = From::of(&request);
    if !of_ours(request.headers()) {
        return problem(StatusCode::FORBIDDEN, "csrf", "the form comes from another site", json!({}));
    }
    let mut said = match fields(request).await {
        Ok(said) => said,
        Err(refused) => return refused,
    };
    let mut take = |name: &str| said.remove(name).unwrap_or_default();
    let (tenant, user, password, next) = (take("tenant"), take("user"), take("password"), take("next"));
    let asks = Credentials { tenant: tenant.clone(), user: user.clone(), password };
    match let_in(&api, asks, from).await {
        Ok((session, ..)) => {
            let seconds = SESSION_US / 1_000_000;
            let cookie = format!("{COOKIE}={session}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}");
            elsewhere(local(&next), &cookie)
        }
        Err(refused) => {
            let status = refused.status();
            let wrong = match status {
                StatusCode::UNAUTHORIZED => WRONG,
                StatusCode::TOO_MANY_REQUESTS => "Too many failures: wait a quarter of an hour.",
                _ => "This cannot be done now: try again.",
            };
            sign_in_page(status, Some(wrong), &tenant, &user, local(&next))
        }
    }
}

/// Signs out by a form of our own.
async fn leave(State(api): State<Shared>, request: Request) -> Response {
    if !of_ours(request.headers()) {
        return problem(StatusCode::FORBIDDEN, "csrf", "the form comes from another site", json!({}));
    }
    if let Ok(actor) = api.actor(request.headers())
        && actor.user().is_some()
        && let Err(refused) = end(&api, &actor).await
    {
        return refused;
    }
    elsewhere("/sign-in", &format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0"))
}

/// Who is signed in, and where.
async fn account(State(api): State<Shared>, headers: HeaderMap) -> Response {
    let Ok(actor) = api.actor(&headers) else { return elsewhere("/sign-in?next=/account", "") };
    let Some(user) = actor.user().and_then(|user| api.principals.user(&actor.tenant, user)) else {
        return elsewhere("/sign-in?next=/account", "");
    };
    let row = |name: &str, value: &str| format!("<dt>{name}</dt><dd>{}</dd>", text(value));
    let shown = |field: &str| user.text(field).filter(|said| !said.is_empty()).unwrap_or("–").to_owned();
    let mut main = format!(
        "<h1>{}</h1><dl>{}{}{}{}</dl><h1>Sessions</h1><ul>",
        text(user.text("display_name").filter(|name| !name.is_empty()).unwrap_or(&user.id)),
        row("User", &user.id),
        row("Tenant", &actor.tenant),
        row("Role", &shown("role")),
        row("Mail", &shown("email")),
    );
    for session in api.principals.sessions(&actor.tenant, &user.id) {
        let this = if session.id == actor.principal.id { " (this one)" } else { "" };
        let _ = write!(
            main,
            "<li>since {} from {}{this}<br><small>{}</small></li>",
            Time(session.created_us),
            text(session.text("address").unwrap_or("?")),
            text(session.text("user_agent").unwrap_or(""))
        );
    }
    main.push_str("</ul><form method=\"post\" action=\"/sign-out\"><button>Sign out</button></form>");
    html(StatusCode::OK, "Account", &main)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        of.iter().map(pair).collect()
    }

    #[test]
    fn nobody_is_led_to_another_host() {
        for (next, to) in [
            ("/account", "/account"),
            ("/a?b=c", "/a?b=c"),
            ("//evil.example", "/account"),
            ("/\\evil.example", "/account"),
            ("https://evil.example", "/account"),
            ("/a\r\nSet-Cookie: x", "/account"),
            ("", "/account"),
        ] {
            assert_eq!(local(next), to, "{next}");
        }
    }

    #[test]
    fn forms_of_other_sites_are_told_from_ours() {
        for (of, ours) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://host:1"), ("host", "host:1")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "http://host:1"), ("host", "host:1")], true),
            (&[("origin", "http://evil.example"), ("host", "host:1")], false),
            (&[("origin", "null"), ("host", "host:1")], false),
            (&[("host", "host:1")], true),
        ] {
            assert_eq!(of_ours(&headers(of)), ours, "{of:?}");
        }
    }

    #[test]
    fn cookies_are_found_among_others() {
        let found = |of: &[(&str, &str)]| cookie(&headers(of));
        assert_eq!(found(&[("cookie", "a=b; __Host-radarflow=rfs_x; c=d")]).as_deref(), Some("rfs_x"));
        assert_eq!(found(&[("cookie", "x__Host-radarflow=y")]), None);
        assert!(same("a", "a") && !same("a", "b") && !same("a", "aa"));
        assert_ne!(csrf("a"), csrf("b"));
    }

    #[test]
    fn failures_are_counted_by_name_and_address_and_end() {
        let attempts = Attempts::default();
        let key = |name: &str, address: &str| ("t".to_owned(), name.to_owned(), address.to_owned());
        for n in 1..=FAILURES {
            assert_eq!(attempts.wait(&key("ann", "a"), 1000), None);
            assert_eq!(attempts.failed(key("ann", "a"), 1000), n);
        }
        assert_eq!(attempts.wait(&key("ann", "a"), 1000), Some(WITHIN_MS / 1000));
        assert_eq!(attempts.wait(&key("ann", "b"), 1000), None);
        assert_eq!(attempts.wait(&key("bob", "a"), 1000), None);
        assert_eq!(attempts.wait(&key("ann", "a"), 1000 + WITHIN_MS), None);
        assert_eq!(attempts.failed(key("ann", "a"), 1000 + WITHIN_MS), 1);
        attempts.succeeded(&key("ann", "a"));
        // However many strangers try, no more are remembered.
        for n in 0..REMEMBERED + 10 {
            attempts.failed(key(&n.to_string(), "a"), n as i64);
        }
        assert_eq!(attempts.failures.lock().unwrap().len(), REMEMBERED);

        // One address has few places, and leaves room for others.
        let own: Vec<_> = (0..WAITING_OF_ADDRESS).map(|_| attempts.wait_for("a").unwrap()).collect();
        assert!(attempts.wait_for("a").is_none() && attempts.wait_for("b").is_some());
        drop(own);
        assert!(attempts.wait_for("a").is_some());
        assert!(attempts.waiting.lock().unwrap().is_empty());
        let all: Vec<_> = (0..WAITING).map(|n| attempts.wait_for(&n.to_string()).unwrap()).collect();
        assert!(attempts.wait_for("more").is_none());
        drop(all);
    }
}
