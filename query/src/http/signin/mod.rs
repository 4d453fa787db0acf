//! People sign in: a page with a form, which works without JavaScript, and the same for programs. A session is a resource; what
//! lets somebody in is in a cookie that scripts cannot read, or is borne as a token is.
//!
//! Who guesses learns nothing: a name that nobody has takes as long as a wrong password and is answered the same; after ten
//! failures of a name from an address within fifteen minutes it is answered no more until these are over. A cookie alone writes
//! nothing: a write also bears the token of its session (`X-CSRF-Token`), or is a form of our own pages. Nobody is led to another
//! host, and nothing that was there before the sign-in is a session after it.
//!
//! | file | the way in |
//! |---|---|
//! | `mod.rs` | a password; what all ways end in: a session |
//! | [`second`] | a code of an authenticator after that (TOTP, RFC 6238) |
//! | [`oidc`] | an identity provider of the tenant (OpenID Connect) |
//! | [`links`] | a link sent by mail |
//! | [`attempts`] | who failed, and how often |
//! | [`pages`] | what is shown |
//!
//! What is between two steps (a code that is still asked for, somebody who is at a provider) is kept by the browser, sealed: no
//! stranger makes state here.

mod attempts;
pub(super) mod links;
pub(super) mod oidc;
mod pages;
mod second;

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hmac::{Hmac, KeyInit, Mac};
use radarflow_proto::fact::Fact;
use radarflow_proto::resource::{
    Act, Condition, Fields, Operation, Principal, PrincipalKind, Refusal, RefusalCode, Resource,
};
use radarflow_proto::room::of_address;
use radarflow_proto::rows::Table;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

pub use self::attempts::Attempts;
use self::links::SendMail;
use self::pages::{Door, sign_in_page};
use crate::actor::passwords::verify;
use crate::actor::{Actor, hash, id_of, new_session};
use crate::http::problem::{bad, denied, problem};
use crate::http::reading::{Sender, typed};
use crate::http::request::body;
use crate::http::resources::{Ask, judged};
use crate::http::{Api, Shared};

/// The cookie of a session: of this host alone, over TLS or loopback, not for scripts.
const COOKIE: &str = "__Host-radarflow";
/// The cookie of a browser whose user is at a provider.
const STEP_COOKIE: &str = "__Host-radarflow-step";
/// The cookie of a browser that waits for a link.
const LINK_COOKIE: &str = "__Host-radarflow-link";
/// What a write bears beside the cookie.
const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");
/// How long a session lasts, microseconds: 12 hours.
const SESSION_US: i64 = 12 * 3600 * 1_000_000;
/// Sessions of a user at once; the oldest ends.
const SESSIONS: usize = 50;
/// How long somebody may take from one step to the next, milliseconds.
const STEP_MS: i64 = 10 * 60 * 1000;
/// Bytes of a form.
const MAX_FORM: usize = 16 << 10;
/// Bytes of a tenant's or user's name.
const MAX_NAME: usize = 200;
/// Bytes of what a browser says of itself that are kept.
const USER_AGENT: usize = 300;
/// The same answer, whatever was wrong.
const WRONG: &str = "the tenant, the name or the password is wrong";

/// The routes.
pub(super) fn router() -> Router<Shared> {
    Router::new()
        .route("/sign-in", get(page).post(form))
        .route("/sign-in.css", get(style))
        .route("/sign-in/code", post(second::form))
        .route("/sign-in/link", get(links::page).post(links::spend))
        .route("/sign-in/link/send", post(links::send))
        .route("/sign-in/with", get(oidc::begin))
        .route("/sign-in/callback/{tenant}/{provider}", get(oidc::end))
        .route("/sign-out", post(leave))
        .route("/account", get(pages::account))
        .route("/account/second-factor", post(second::enrol))
        .route("/account/second-factor/confirm", post(second::confirm))
        .route("/account/second-factor/remove", post(second::remove))
        .route("/api/v2/sign-in", post(sign_in))
        .route("/api/v2/sign-out", post(sign_out))
}

/// The value of a cookie.
fn cookie(headers: &HeaderMap, of: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut named = all.flat_map(|cookies| cookies.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    named.find(|(name, _)| *name == of).map(|(_, value)| value.to_owned())
}

/// What a write bears beside the cookie: it follows from what the cookie holds, and does not tell it.
fn csrf(session: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(session.as_bytes()).expect("a key of any length");
    mac.update(b"csrf");
    hex::encode(mac.finalize().into_bytes())
}

/// Whether two texts are equal, in a time that does not tell where they differ.
pub(in crate::http) fn same(a: &str, b: &str) -> bool {
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
    let Some(session) = cookie(headers, COOKIE) else { return next.run(request).await };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    // Forms of our own pages, which look at where they come from.
    let own = ["/sign-in", "/sign-out", "/account"].iter().any(|path| {
        request.uri().path().strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
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
    /// The code of an authenticator, where one is asked for.
    #[serde(default)]
    code: Option<String>,
}

fn first_tenant() -> String {
    "default".to_owned()
}

/// Where somebody comes from.
#[derive(Clone)]
pub(in crate::http) struct From {
    address: Option<IpAddr>,
    user_agent: Option<String>,
}

impl From {
    /// Who does something of its own accord.
    pub(in crate::http) fn nowhere() -> Self {
        From { address: None, user_agent: None }
    }

    pub(in crate::http) fn of(request: &Request) -> Self {
        let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        let cut = |agent: &str| agent.chars().filter(|c| !c.is_control()).take(USER_AGENT / 4).collect();
        From { address: request.extensions().get::<Sender>().map(|sender| sender.0), user_agent: agent.map(cut) }
    }

    pub(in crate::http) fn address(&self) -> Option<String> {
        self.address.map(|address| address.to_string())
    }

    /// What failures are counted by.
    fn counted(&self, tenant: &str, user: &str) -> (String, String, String) {
        (tenant.to_owned(), user.to_owned(), self.address.map_or_else(String::new, of_address))
    }
}

/// Somebody of whom a first step has shown who they are.
#[derive(Clone, Serialize, Deserialize)]
struct Shown {
    tenant: String,
    user: String,
    /// How, as sessions call it.
    method: String,
    /// How the user stood then; nothing of one who is made with it.
    stood: Option<Stood>,
}

/// How a user stands, as far as it lets them in: by what they showed, nobody gets in after it has changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stood {
    /// Of the user's row.
    epoch: u64,
    /// A digest of password, second factor, provider, and of when they were made.
    digest: String,
}

impl Stood {
    fn of(user: &Resource) -> Self {
        let secret = |name: &str| user.secrets.get(name).map(String::as_str).unwrap_or_default();
        let text = |name: &str| user.text(name).unwrap_or_default();
        let all = [secret("password"), secret("totp"), text("provider"), text("subject"), text("email")];
        Stood { epoch: user.epoch, digest: hash(&format!("{} {}", user.created_us, all.join("\0"))) }
    }
}

/// Somebody who is in.
struct In {
    session: String,
    id: String,
    epoch: u64,
}

/// What comes of a first step.
enum Came {
    /// They are in.
    In(In),
    /// They have a second factor, and it is asked for.
    Asked(Shown),
}

/// Something that a browser keeps for us from one step to the next, sealed, for one purpose and a while.
#[derive(Serialize, Deserialize)]
struct Kept<T> {
    until_ms: i64,
    of: T,
}

/// Seals it.
#[allow(clippy::result_large_err)]
fn keep<T: Serialize>(api: &Api, purpose: &str, for_ms: i64, of: T) -> Result<String, Response> {
    let kept = Kept { until_ms: api.now_ms().saturating_add(for_ms), of };
    let text = serde_json::to_string(&kept).unwrap_or_default();
    (api.seal)(["", "sign-in", "", purpose], &text)
        .ok_or_else(|| problem(StatusCode::SERVICE_UNAVAILABLE, "no_key", "there is no key to seal with", json!({})))
}

/// What was sealed for the purpose, while it lasts.
fn kept<T: DeserializeOwned>(api: &Api, purpose: &str, sealed: &str) -> Option<T> {
    let text = (api.unseal)(["", "sign-in", "", purpose], sealed)?;
    let kept: Kept<T> = serde_json::from_str(&text).ok()?;
    (kept.until_ms > api.now_ms()).then_some(kept.of)
}

/// Nothing is answered for a while.
fn too_many(seconds: i64) -> Response {
    let detail = format!("too many failures; try again in {seconds} s");
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", &detail, json!({}));
    if let Ok(seconds) = HeaderValue::from_str(&seconds.to_string()) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// Tells a failure in the audit: so many a minute, of tenants that there are. Nobody waits for it.
pub(in crate::http) fn tell_failure(api: &Shared, from: &From, tenant: &str, user: &str, reason: String) {
    if api.principals.knows(tenant) && api.attempts.is_told(tenant, api.now_ms()) {
        let user = user.chars().take(MAX_NAME).collect();
        let fact = Fact::SignInFailed { tenant: tenant.to_owned(), user, address: from.address(), reason };
        let (api, tenant) = (api.clone(), tenant.to_owned());
        tokio::spawn(async move { api.append_as(&tenant, "sign-in".to_owned(), &fact).await.map_err(drop) });
    }
}

/// The first step by a password.
async fn by_password(api: &Shared, asks: Credentials, from: &From) -> Result<Came, Response> {
    let Credentials { tenant, user, password, code } = asks;
    let now_ms = api.now_ms();
    if tenant.len() > MAX_NAME || user.len() > MAX_NAME {
        return Err(denied(WRONG));
    }
    let key = from.counted(&tenant, &user);
    if let Some(seconds) = api.attempts.passwords.wait(&key, now_ms) {
        return Err(too_many(seconds));
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
    api.attempts.passwords.failed(key.clone(), now_ms);
    if !verify(password, hashed).await {
        tell_failure(api, from, &tenant, &user, String::new());
        return Err(denied(WRONG));
    }
    api.attempts.passwords.succeeded(&key);
    let shown = Shown { tenant, user, method: "password".to_owned(), stood: known.as_deref().map(Stood::of) };
    match code {
        Some(code) if known.as_deref().is_some_and(second::has) => {
            second::with_code(api, &shown, &code, from).await.map(Came::In)
        }
        _ => came(api, shown, Vec::new(), from).await,
    }
}

/// What comes of a first step: they are in, unless they have a second factor. What is said beside is done with it, or none of it.
async fn came(api: &Shared, shown: Shown, beside: Vec<Operation>, from: &From) -> Result<Came, Response> {
    let user = api.principals.user(&shown.tenant, &shown.user);
    if user.is_some_and(|user| second::has(&user)) {
        if !beside.is_empty() {
            done(api, &shown, beside, from).await?;
        }
        return Ok(Came::Asked(shown));
    }
    admit(api, &shown, beside, from).await.map(Came::In)
}

fn operation(table: Table, id: &str, act: Act) -> Operation {
    Operation {
        resource: table.name().to_owned(),
        id: id.to_owned(),
        act,
        condition: Condition::Any,
        owner: String::new(),
    }
}

fn fields_of<const N: usize>(fields: [(&str, Value); N]) -> Fields {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Has the program do something for somebody: its epoch, or why not.
async fn stated(
    api: &Api,
    shown: &Shown,
    operations: Vec<Operation>,
    from: &From,
) -> Result<Result<u64, Refusal>, Response> {
    let (kind, name) = (PrincipalKind::System, shown.user.clone());
    let principal = Principal { kind, id: String::new(), name, address: from.address() };
    let ask = Ask { principal, reason: String::new(), operations, force: false, key: None };
    let judgement = judged(api, &shown.tenant, ask).await?;
    Ok(judgement.outcome.map(|_| judgement.epoch))
}

/// What was refused: somebody else did first what is done once, or what somebody showed holds no more.
fn refused(refusal: &Refusal) -> Response {
    let taken = matches!(refusal.code, RefusalCode::PreconditionFailed | RefusalCode::NotFound);
    let status = if taken { StatusCode::UNAUTHORIZED } else { StatusCode::CONFLICT };
    problem(status, refusal.code.name(), &refusal.detail, json!({}))
}

async fn done(api: &Api, shown: &Shown, operations: Vec<Operation>, from: &From) -> Result<u64, Response> {
    stated(api, shown, operations, from).await?.map_err(|refusal| refused(&refusal))
}

/// Begins a session; what is said beside is done with it, or neither.
async fn admit(api: &Api, shown: &Shown, beside: Vec<Operation>, from: &From) -> Result<In, Response> {
    let session = new_session();
    let sha256 = hash(&session);
    let id = id_of(&sha256).to_owned();
    // What changes the user beside says itself how they must stand.
    let changed = beside.iter().any(|operation| operation.resource == Table::User.name());
    let stood = shown.stood.as_ref().filter(|_| !changed).map(|stood| stood.epoch.to_string());
    let fields = fields_of([
        ("user", json!(shown.user)),
        ("method", json!(shown.method)),
        ("address", json!(from.address())),
        ("user_agent", json!(from.user_agent)),
        ("expires_at", json!(api.now_ms().saturating_mul(1000).saturating_add(SESSION_US))),
        ("sha256", json!(sha256)),
        ("user_epoch", json!(stood)),
    ]);
    let mut again = true;
    loop {
        let mut operations = beside.clone();
        operations.push(operation(Table::Session, &id, Act::Create { fields: fields.clone() }));
        let needed = operations.len();
        let held = api.principals.sessions(&shown.tenant, &shown.user);
        let over = held.len().saturating_sub(SESSIONS - 1);
        operations.extend(held[..over].iter().map(|oldest| operation(Table::Session, &oldest.id, Act::Delete)));
        match stated(api, shown, operations, from).await? {
            Ok(epoch) => return Ok(In { session, id, epoch }),
            // An old session that ended meanwhile needs not be ended.
            Err(refusal) if refusal.operation >= needed && again => again = false,
            Err(refusal) => return Err(refused(&refusal)),
        }
    }
}

/// Ends the session of a request.
async fn end(api: &Api, actor: &Actor) -> Result<u64, Response> {
    let operations = vec![operation(Table::Session, &actor.principal.id, Act::Delete)];
    let ask = Ask { principal: actor.principal.clone(), reason: String::new(), operations, force: false, key: None };
    Ok(judged(api, &actor.tenant, ask).await?.epoch)
}

/// Signs a program in for somebody: `{"tenant", "user", "password", "code"}`; the answer has what the session is borne by. The
/// code is that of their authenticator; without it where they have one the answer is 401, `second_factor_needed`.
async fn sign_in(State(api): State<Shared>, request: Request) -> Result<Response, Response> {
    let from = From::of(&request);
    let asks: Credentials = body(request).await?;
    let Came::In(In { session, id, epoch }) = by_password(&api, asks, &from).await? else {
        let detail = "they have a second factor: say the code of their authenticator too, as `code`";
        return Err(problem(StatusCode::UNAUTHORIZED, "second_factor_needed", detail, json!({})));
    };
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

/// A path of this host, and of no other.
fn local(next: &str) -> &str {
    let plain = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains(|c: char| c.is_control() || c == '\\')
        && next.len() <= 1000;
    if plain { next } else { "/account" }
}

/// The page with the form.
async fn page(State(api): State<Shared>, Query(asked): Query<BTreeMap<String, String>>) -> Response {
    let said = |name: &str| asked.get(name).map(String::as_str);
    let door =
        Door { tenant: said("tenant").unwrap_or("default"), user: "", next: local(said("next").unwrap_or("/account")) };
    sign_in_page(&api, StatusCode::OK, None, &door)
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

/// A form of ours as it was sent: where it comes from, and its fields.
async fn sent(request: Request) -> Result<(HeaderMap, From, BTreeMap<String, String>), Response> {
    if !of_ours(request.headers()) {
        return Err(problem(StatusCode::FORBIDDEN, "csrf", "the form comes from another site", json!({})));
    }
    let (headers, from) = (request.headers().clone(), From::of(&request));
    Ok((headers, from, fields(request).await?))
}

fn session_cookie(session: &str) -> String {
    let seconds = SESSION_US / 1_000_000;
    format!("{COOKIE}={session}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={seconds}")
}

/// The cookie of a browser between two steps; of nothing it goes. Who comes back from another site brings it.
fn step_cookie(name: &str, value: &str, for_ms: i64) -> String {
    let seconds = if value.is_empty() { 0 } else { for_ms / 1000 };
    format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}")
}

/// Where somebody goes after a first step, by a form of this site.
#[allow(clippy::result_large_err)]
fn onwards(api: &Api, came: Result<Came, Response>, next: &str) -> Result<Response, Response> {
    match came? {
        Came::In(In { session, .. }) => Ok(elsewhere(local(next), &session_cookie(&session))),
        Came::Asked(shown) => {
            let step = keep(api, "code", STEP_MS, shown)?;
            Ok(pages::code_page(StatusCode::OK, None, &step, local(next)))
        }
    }
}

/// Why somebody is not let in, in words of a page.
fn in_words(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => WRONG,
        StatusCode::TOO_MANY_REQUESTS => "Too many failures: wait a quarter of an hour.",
        _ => "This cannot be done now: try again.",
    }
}

/// The form as it was sent.
async fn form(State(api): State<Shared>, request: Request) -> Response {
    let (_, from, mut said) = match sent(request).await {
        Ok(sent) => sent,
        Err(refused) => return refused,
    };
    let mut take = |name: &str| said.remove(name).unwrap_or_default();
    let (tenant, user, password, next) = (take("tenant"), take("user"), take("password"), take("next"));
    let asks = Credentials { tenant: tenant.clone(), user: user.clone(), password, code: None };
    let came = by_password(&api, asks, &from).await;
    match onwards(&api, came, &next) {
        Ok(response) => response,
        Err(refused) => {
            let status = refused.status();
            let door = Door { tenant: &tenant, user: &user, next: local(&next) };
            sign_in_page(&api, status, Some(in_words(status)), &door)
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

/// How browsers reach this server: what the configuration says, or the loopback address that they came to.
#[allow(clippy::result_large_err)]
fn base(api: &Api, headers: &HeaderMap) -> Result<String, Response> {
    if let Some(url) = &api.public_url {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let url = format!("http://{host}");
    if radarflow_reconcile::resources::providers::may_be_asked(&url) {
        return Ok(url);
    }
    Err(bad("the server does not know how it is reached: set `public_url` below `[http]` in its configuration"))
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
        let found = |of: &[(&str, &str)]| cookie(&headers(of), COOKIE);
        assert_eq!(found(&[("cookie", "a=b; __Host-radarflow=rfs_x; c=d")]).as_deref(), Some("rfs_x"));
        assert_eq!(found(&[("cookie", "x__Host-radarflow=y")]), None);
        assert!(same("a", "a") && !same("a", "b") && !same("a", "aa"));
        assert_ne!(csrf("a"), csrf("b"));
    }
}
