//! An identity provider of the tenant signs somebody in: OpenID Connect Core 1.0, the authorization code flow with PKCE (RFC 7636),
//! `state`, `nonce` and `iss` (RFC 9207).
//!
//! ```text
//! browser ─ /sign-in/with ─► provider (its own sign-in) ─► /sign-in/callback ─► token endpoint ─► ID token ─► user, role, session
//! ```
//! What is between the two requests is in a sealed cookie of the browser, so a code of somebody else's browser leads nowhere. The ID
//! token is signed by a key that the provider publishes, with an asymmetric algorithm; `iss`, `aud`, `azp`, `exp`, `iat` and `nonce` are looked
//! at. Who somebody is to the provider is its issuer and their `sub`; a user of this name that is not of this provider is never
//! theirs. What they may do follows from their groups, each time that they sign in.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use radarflow_proto::ports::BoxFuture;
use radarflow_proto::resource::{Act, Condition, Fields, Operation, Resource};
use radarflow_proto::rows::Table;
use radarflow_reconcile::resources::kind::check_id;
use radarflow_reconcile::resources::providers::{may_lead_to, role_of};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{
    Came, From, In, STEP_COOKIE, STEP_MS, Shown, Stood, base, came, cookie, fields_of, in_words, keep, kept, local,
    operation, pages, same, session_cookie, step_cookie, tell_failure,
};
use crate::http::resources::encoded;
use crate::http::{Api, Shared};

/// How long what a provider says of itself is believed, milliseconds.
const BELIEVED_MS: i64 = 10 * 60 * 1000;
/// How soon a key that is not known is looked for again, milliseconds.
const AGAIN_MS: i64 = 60 * 1000;
/// How soon a provider is asked again that did not answer as it should, milliseconds.
const FAILED_MS: i64 = 5 * 1000;
/// Providers of which is remembered what they say of themselves.
const REMEMBERED: usize = 64;
/// How far the clocks of a provider and ours may be apart, seconds.
const LEEWAY_S: i64 = 60;
/// Bytes of a token.
const MAX_TOKEN: usize = 64 << 10;
/// Keys of a provider that are looked at.
const MAX_KEYS: usize = 100;
/// Characters of what a provider says that the log and the audit repeat.
const REPEATED: usize = 300;
/// Codes of a provider that are asked about at once; others wait.
const ASKED_AT_ONCE: usize = 8;
/// Groups of somebody that are looked at.
const MAX_GROUPS: usize = 10_000;
/// The algorithms that only the holder of a private key can sign with.
const SIGNED_BY: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Something that another server is asked.
pub struct Question {
    /// Where.
    pub url: String,
    /// What is posted, as a form; without it, it is fetched.
    pub form: Option<Vec<(&'static str, String)>>,
    /// The header of that name.
    pub authorization: Option<String>,
}

/// Asks another server: its status and what it says, within a time and a size; where it leads elsewhere, that is not followed.
pub type AskServer = dyn Fn(Question) -> BoxFuture<Result<(u16, Vec<u8>), String>> + Send + Sync;

/// What a provider says of itself (OpenID Connect Discovery 1.0, section 3).
#[derive(Clone, Debug, Deserialize)]
struct Discovery {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    /// Whether its answers name it (RFC 9207).
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// A provider as it says of itself, and its keys.
struct Known {
    asked_ms: i64,
    discovery: Discovery,
    keys: JwkSet,
}

/// What is known of a provider: one request asks it at a time, and the others wait for what that one hears.
struct Place {
    /// Who asks about a code.
    codes: tokio::sync::Semaphore,
    known: tokio::sync::Mutex<Option<Result<Arc<Known>, (i64, String)>>>,
}

impl Default for Place {
    fn default() -> Self {
        Place { codes: tokio::sync::Semaphore::new(ASKED_AT_ONCE), known: tokio::sync::Mutex::default() }
    }
}

/// What providers say of themselves, by tenant and issuer.
#[derive(Default)]
pub struct Issuers(Mutex<BTreeMap<(String, String), Arc<Place>>>);

impl Issuers {
    /// The place of a provider. Where there are too many, those go that nobody waits for.
    fn place(&self, tenant: &str, issuer: &str) -> Arc<Place> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant.to_owned(), issuer.to_owned());
        if all.len() >= REMEMBERED && !all.contains_key(&key) {
            all.retain(|_, place| Arc::strong_count(place) > 1);
        }
        all.entry(key).or_default().clone()
    }
}

/// Why somebody is not let in: what they are told, and what the audit is told beside.
struct Refused {
    status: StatusCode,
    said: String,
    why: String,
}

fn refused<T>(status: StatusCode, said: &str, why: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { status, said: said.to_owned(), why: repeated(&why.into()) })
}

/// What others say, as it may be repeated.
fn repeated(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REPEATED).collect()
}

/// The provider does not do what it should: who signs in can do nothing about it.
fn broken<T>(why: impl Into<String>) -> Result<T, Refused> {
    refused(StatusCode::BAD_GATEWAY, "The identity provider did not answer as it should: tell your administrator.", why)
}

/// Somebody who is at a provider.
#[derive(Serialize, Deserialize)]
struct Away {
    tenant: String,
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    next: String,
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

async fn fetched<T: serde::de::DeserializeOwned>(
    api: &Api,
    url: &str,
    authorization: Option<String>,
) -> Result<T, Refused> {
    let question = Question { url: url.to_owned(), form: None, authorization };
    let (status, said) = match (api.ask_server)(question).await {
        Ok(answered) => answered,
        Err(error) => return broken(format!("{url}: {error}")),
    };
    if status != 200 {
        return broken(format!("{url} answered {status}"));
    }
    serde_json::from_slice(&said).or_else(|error| broken(format!("{url}: {error}")))
}

/// What a provider says of itself; asked again where a key is not known.
async fn known(api: &Api, provider: &Resource, key: Option<&str>) -> Result<Arc<Known>, Refused> {
    let issuer = provider.text("issuer").unwrap_or_default();
    let place = api.issuers.place(&provider.tenant, issuer);
    let mut known = place.known.lock().await;
    let now_ms = api.now_ms();
    match &*known {
        Some(Ok(known)) => {
            let missing = key.is_some_and(|key| known.keys.find(key).is_none());
            let age = now_ms - known.asked_ms;
            if age < AGAIN_MS || age < BELIEVED_MS && !missing {
                return Ok(known.clone());
            }
        }
        Some(Err((asked_ms, why))) if now_ms - asked_ms < FAILED_MS => return broken(why.clone()),
        _ => {}
    }
    let asked = asked(api, issuer, now_ms).await;
    *known = Some(asked.as_ref().map(Arc::clone).map_err(|refused| (api.now_ms(), refused.why.clone())));
    asked
}

async fn asked(api: &Api, issuer: &str, now_ms: i64) -> Result<Arc<Known>, Refused> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let discovery: Discovery = fetched(api, &url, None).await?;
    if discovery.issuer != issuer {
        return broken(format!("{url} says that its issuer is {:?}", discovery.issuer));
    }
    let endpoints = [&discovery.authorization_endpoint, &discovery.token_endpoint, &discovery.jwks_uri];
    if let Some(other) = endpoints.into_iter().chain(&discovery.userinfo_endpoint).find(|to| !may_lead_to(issuer, to)) {
        return broken(format!("{url} leads to {other:?}, which is not an https URL"));
    }
    let keys: Value = fetched(api, &discovery.jwks_uri, None).await?;
    // A key of a kind that is not known here leaves the others.
    let keys = keys.get("keys").and_then(Value::as_array).cloned().unwrap_or_default();
    let keys = keys.into_iter().take(MAX_KEYS).filter_map(|key| serde_json::from_value::<Jwk>(key).ok()).collect();
    Ok(Arc::new(Known { asked_ms: now_ms, discovery, keys: JwkSet { keys } }))
}

/// A provider that lets people in.
fn provider(api: &Api, tenant: &str, name: &str) -> Result<Arc<Resource>, Refused> {
    let providers = api.principals.providers(tenant);
    match providers.into_iter().find(|provider| provider.id == name) {
        Some(provider) => Ok(provider),
        None => refused(StatusCode::NOT_FOUND, "There is no such identity provider here.", ""),
    }
}

fn page_of(refused: &Refused) -> Response {
    pages::refused_page(refused.status, &refused.said)
}

/// Where a provider is to send somebody back to: each to a place of its own, so that what one answers is never taken for what
/// another did.
fn callback(base: &str, provider: &Resource) -> String {
    format!("{base}/sign-in/callback/{}/{}", encoded(&provider.tenant), encoded(&provider.id))
}

/// Sends somebody to a provider.
pub(super) async fn begin(
    State(api): State<Shared>,
    headers: HeaderMap,
    Query(asked): Query<BTreeMap<String, String>>,
) -> Response {
    let said = |name: &str| asked.get(name).cloned().unwrap_or_default();
    // Only pages of ours send somebody there: another site would have them signed in where it likes.
    if !super::of_ours(&headers) {
        return super::elsewhere("/sign-in", "");
    }
    let base = match base(&api, &headers) {
        Ok(base) => base,
        Err(refused) => return refused,
    };
    // A cookie holds it: what is longer than a path of ours is none.
    let next = local(&said("next")).to_owned();
    let (tenant, provider) = (said("tenant"), said("provider"));
    let away = Away { tenant, provider, state: random(), nonce: random(), verifier: random(), next };
    let to = async {
        let provider = self::provider(&api, &away.tenant, &away.provider)?;
        let known = known(&api, &provider, None).await?;
        Ok::<_, Refused>(authorization_url(&known.discovery, &provider, &away, &base))
    };
    match to.await {
        Ok(to) => match keep(&api, "oidc", STEP_MS, &away) {
            Ok(sealed) => super::elsewhere(&to, &step_cookie(STEP_COOKIE, &sealed, STEP_MS)),
            Err(refused) => refused,
        },
        Err(refused) => {
            if !refused.why.is_empty() {
                let Away { tenant, provider, .. } = &away;
                tracing::warn!(tenant, provider, error = refused.why, "nobody can sign in there");
            }
            page_of(&refused)
        }
    }
}

/// The address of the provider's own sign-in.
fn authorization_url(discovery: &Discovery, provider: &Resource, away: &Away, base: &str) -> String {
    let mut scopes = provider.texts("scopes");
    if scopes.is_empty() {
        scopes = vec!["profile".to_owned(), "email".to_owned()];
    }
    scopes.retain(|scope| scope != "openid");
    scopes.insert(0, "openid".to_owned());
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(away.verifier.as_bytes()));
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", provider.text("client_id").unwrap_or_default())
        .append_pair("redirect_uri", &callback(base, provider))
        .append_pair("scope", &scopes.join(" "))
        .append_pair("state", &away.state)
        .append_pair("nonce", &away.nonce)
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256")
        .finish();
    let endpoint = &discovery.authorization_endpoint;
    let sign = if endpoint.contains('?') { '&' } else { '?' };
    format!("{endpoint}{sign}{query}")
}

/// Somebody comes back.
pub(super) async fn end(
    State(api): State<Shared>,
    Path((tenant, name)): Path<(String, String)>,
    Query(asked): Query<BTreeMap<String, String>>,
    request: axum::extract::Request,
) -> Response {
    let from = From::of(&request);
    let headers = request.headers().clone();
    let base = match base(&api, &headers) {
        Ok(base) => base,
        Err(refused) => return refused,
    };
    let away = cookie(&headers, STEP_COOKIE).and_then(|sealed| kept::<Away>(&api, "oidc", &sealed));
    let Some(away) = away.filter(|away| away.tenant == tenant && away.provider == name) else {
        return pages::refused_page(
            StatusCode::UNAUTHORIZED,
            "This took too long, or began in another browser: sign in again.",
        );
    };
    let came = came_back(&api, &away, &asked, &base, &from).await;
    let mut response = match came {
        Ok(Came::In(In { session, .. })) => {
            let mut response = pages::on(local(&away.next));
            if let Ok(value) = session_cookie(&session).parse() {
                response.headers_mut().append(header::SET_COOKIE, value);
            }
            response
        }
        Ok(Came::Asked(shown)) => match keep(&api, "code", STEP_MS, shown) {
            Ok(step) => pages::code_page(StatusCode::OK, None, &step, local(&away.next)),
            Err(refused) => return refused,
        },
        Err((refused, user)) => {
            if !refused.why.is_empty() {
                tracing::warn!(tenant = away.tenant, provider = away.provider, error = refused.why, "not signed in");
            }
            let why = format!(
                "oidc:{}: {}",
                away.provider,
                if refused.why.is_empty() { &refused.said } else { &refused.why }
            );
            tell_failure(&api, &from, &away.tenant, &user, why);
            page_of(&refused)
        }
    };
    if let Ok(value) = step_cookie(STEP_COOKIE, "", 0).parse() {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
    response
}

/// What comes of it; of a refusal also whom it concerns, as far as that is known.
async fn came_back(
    api: &Shared,
    away: &Away,
    asked: &BTreeMap<String, String>,
    base: &str,
    from: &From,
) -> Result<Came, (Refused, String)> {
    let nobody = |refused: Refused| (refused, String::new());
    let provider = provider(api, &away.tenant, &away.provider).map_err(nobody)?;
    let claims = claims_of(api, &provider, away, asked, base, from).await.map_err(nobody)?;
    // It may have been changed or taken away while it was asked.
    let now = self::provider(api, &away.tenant, &away.provider).map_err(nobody)?;
    if now.epoch != provider.epoch {
        return refused(StatusCode::UNAUTHORIZED, "The identity provider was changed: sign in again.", "")
            .map_err(nobody);
    }
    let (user, stood, stated) = user_of(api, &provider, &claims)?;
    let shown = Shown { tenant: away.tenant.clone(), user, method: format!("oidc:{}", provider.id), stood };
    let user = shown.user.clone();
    let said = |response: Response| {
        let status = response.status();
        let said = in_words(status).to_owned();
        (Refused { status, said, why: format!("the session was refused with {status}") }, user)
    };
    came(api, shown, stated, from).await.map_err(said)
}

/// The claims of who came back.
async fn claims_of(
    api: &Api,
    provider: &Resource,
    away: &Away,
    asked: &BTreeMap<String, String>,
    base: &str,
    from: &From,
) -> Result<Map<String, Value>, Refused> {
    const STRANGE: &str = "The answer of the identity provider is not to what was asked: sign in again.";
    if !asked.get("state").is_some_and(|state| same(state, &away.state)) {
        return refused(StatusCode::UNAUTHORIZED, STRANGE, "another state");
    }
    let issuer = provider.text("issuer").unwrap_or_default();
    let known = known(api, provider, None).await?;
    let named = known.discovery.authorization_response_iss_parameter_supported;
    if asked.get("iss").is_some_and(|iss| iss != issuer) || named && !asked.contains_key("iss") {
        return refused(StatusCode::UNAUTHORIZED, STRANGE, "another issuer answered");
    }
    if let Some(error) = asked.get("error") {
        let more = asked.get("error_description").map(String::as_str).unwrap_or_default();
        return refused(
            StatusCode::UNAUTHORIZED,
            "The identity provider did not sign you in.",
            format!("{error} {more}"),
        );
    }
    let Some(code) = asked.get("code") else { return refused(StatusCode::UNAUTHORIZED, STRANGE, "no code") };
    // Who only brings made-up codes has the provider asked no more often than passwords are looked at.
    let key = from.counted(&away.tenant, &away.provider);
    if api.attempts.providers.wait(&key, api.now_ms()).is_some() {
        return refused(StatusCode::TOO_MANY_REQUESTS, in_words(StatusCode::TOO_MANY_REQUESTS), "");
    }
    let question = token_question(api, provider, &known.discovery, away, code, base)?;
    let place = api.issuers.place(&provider.tenant, issuer);
    let answered = async {
        let _asking = place.codes.acquire().await.map_err(|error| error.to_string())?;
        (api.ask_server)(question).await
    };
    let (status, said) = match answered.await {
        Ok(answered) => answered,
        Err(error) => return broken(format!("{}: {error}", known.discovery.token_endpoint)),
    };
    match status {
        200 => api.attempts.providers.succeeded(&key),
        _ => drop(api.attempts.providers.failed(key, api.now_ms())),
    }
    let said: Value = serde_json::from_slice(&said).unwrap_or_default();
    if status != 200 {
        let error = said["error"].as_str().unwrap_or_default();
        let why = format!("{} answered {status} {error}", known.discovery.token_endpoint);
        return match error {
            "invalid_grant" => refused(StatusCode::UNAUTHORIZED, STRANGE, why),
            _ => broken(why),
        };
    }
    let Some(token) = said["id_token"].as_str() else { return broken("there is no ID token in its answer") };
    let mut claims = verified(api, provider, token, &away.nonce).await?;
    // What the token leaves out the provider may tell whoever bears the access token (section 5.3).
    let wanted = ["user_claim", "groups_claim"].map(|field| provider.text(field).unwrap_or_default().to_owned());
    if wanted.iter().any(|claim| !claims.contains_key(claim))
        && let Some(url) = &known.discovery.userinfo_endpoint
        && let Some(access) = said["access_token"].as_str().filter(|t| t.len() <= MAX_TOKEN && t.is_ascii())
        && let Ok(more) = fetched::<Map<String, Value>>(api, url, Some(format!("Bearer {access}"))).await
        && more.get("sub") == claims.get("sub")
    {
        for (name, value) in more {
            claims.entry(name).or_insert(value);
        }
    }
    Ok(claims)
}

/// What the token endpoint is asked.
fn token_question(
    api: &Api,
    provider: &Resource,
    discovery: &Discovery,
    away: &Away,
    code: &str,
    base: &str,
) -> Result<Question, Refused> {
    let client = provider.text("client_id").unwrap_or_default();
    let mut form = vec![
        ("grant_type", "authorization_code".to_owned()),
        ("code", code.to_owned()),
        ("redirect_uri", callback(base, provider)),
        ("code_verifier", away.verifier.clone()),
    ];
    let mut authorization = None;
    match provider.secrets.get("client_secret") {
        None => form.push(("client_id", client.to_owned())),
        Some(sealed) => {
            let context = [provider.tenant.as_str(), Table::IdentityProvider.name(), &provider.id, "client_secret"];
            let Some(secret) = (api.unseal)(context, sealed) else {
                return broken("the client secret cannot be unsealed: is its key in sealing.keys?");
            };
            let methods = &discovery.token_endpoint_auth_methods_supported;
            let has = |method: &str| methods.iter().any(|m| m == method);
            if has("client_secret_post") && !has("client_secret_basic") {
                form.extend([("client_id", client.to_owned()), ("client_secret", secret)]);
            } else {
                // Encoded as forms are, then joined (RFC 6749, section 2.3.1).
                let as_form = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", as_form(client), as_form(&secret));
                authorization = Some(format!("Basic {}", STANDARD.encode(pair)));
            }
        }
    }
    Ok(Question { url: discovery.token_endpoint.clone(), form: Some(form), authorization })
}

/// The claims of an ID token (section 3.1.3.7).
async fn verified(api: &Api, provider: &Resource, token: &str, nonce: &str) -> Result<Map<String, Value>, Refused> {
    const WRONG: &str = "The identity provider's token is not right: sign in again.";
    let wrong = |why: &str| refused(StatusCode::UNAUTHORIZED, WRONG, format!("its ID token: {why}"));
    if token.len() > MAX_TOKEN {
        return wrong("it is too large");
    }
    let Ok(header) = decode_header(token) else { return wrong("it is no JWT, or of an algorithm that is not known") };
    if !SIGNED_BY.contains(&header.alg) {
        return wrong("it is not signed by a private key");
    }
    let known = known(api, provider, header.kid.as_deref()).await?;
    let fits = |key: &&Jwk| {
        let of_alg = key.common.key_algorithm.is_none_or(|alg| alg.to_string() == format!("{:?}", header.alg));
        of_alg && !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption))
    };
    let key = match &header.kid {
        Some(kid) => known.keys.find(kid).filter(|key| fits(key)),
        None => {
            let mut fitting = known.keys.keys.iter().filter(fits);
            fitting.next().filter(|_| fitting.next().is_none())
        }
    };
    let Some(key) = key else { return wrong("it is signed by a key that the provider does not publish") };
    let Ok(key) = DecodingKey::from_jwk(key) else { return wrong("its key cannot be read") };
    let client = provider.text("client_id").unwrap_or_default();
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&[client]);
    validation.set_issuer(&[provider.text("issuer").unwrap_or_default()]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // By our own clock, below.
    validation.validate_exp = false;
    let claims = match decode::<Map<String, Value>>(token, &key, &validation) {
        Ok(decoded) => decoded.claims,
        Err(error) => return wrong(&error.to_string()),
    };
    let (now_s, number) =
        (api.now_ms() / 1000, |claim: &str| claims.get(claim).and_then(Value::as_f64).map(|n| n as i64));
    if number("exp").is_none_or(|exp| exp.saturating_add(LEEWAY_S) <= now_s) {
        return wrong("it is over");
    }
    if ["iat", "nbf"].iter().any(|claim| number(claim).is_some_and(|at| at.saturating_sub(LEEWAY_S) > now_s)) {
        return wrong("it is of the future: are the clocks right?");
    }
    let several = claims.get("aud").and_then(Value::as_array).is_some_and(|aud| aud.len() > 1);
    match claims.get("azp").and_then(Value::as_str) {
        Some(azp) if azp != client => return wrong("it is for another client (azp)"),
        None if several => return wrong("it is for several clients, and does not say which asked (azp)"),
        _ => {}
    }
    if !claims.get("nonce").and_then(Value::as_str).is_some_and(|said| same(said, nonce)) {
        return wrong("another nonce: it was made for another sign-in");
    }
    if claims.get("sub").and_then(Value::as_str).is_none_or(str::is_empty) {
        return wrong("it is about nobody (sub)");
    }
    Ok(claims)
}

/// The user of who came back, how they stand, and what is stated of them.
fn user_of(
    api: &Api,
    provider: &Resource,
    claims: &Map<String, Value>,
) -> Result<(String, Option<Stood>, Vec<Operation>), (Refused, String)> {
    let text = |claim: &str| claims.get(claim).and_then(Value::as_str).filter(|text| !text.is_empty());
    let refuse = |status, said: &str, why: String, user: &str| {
        Err((Refused { status, said: said.to_owned(), why: repeated(&why) }, user.to_owned()))
    };
    let claim = provider.text("user_claim").unwrap_or_default();
    let Some(name) = text(claim) else {
        let why = format!("the provider says no {claim}: see user_claim and scopes of {}", provider.id);
        let said = "The identity provider does not say what you are called here: tell your administrator.";
        return refuse(StatusCode::FORBIDDEN, said, why, "");
    };
    if claim == "email"
        && !matches!(claims.get("email_verified"), Some(Value::Bool(true)))
        && text("email_verified") != Some("true")
    {
        let said = "The identity provider has not verified your address of mail.";
        return refuse(StatusCode::FORBIDDEN, said, String::new(), name);
    }
    let subject = format!("{} {}", provider.text("issuer").unwrap_or_default(), text("sub").unwrap_or_default());
    // Who they are is their subject: a name may have become another's.
    let known = api.principals.user_of_subject(&provider.tenant, &provider.id, &subject);
    let known = known.or_else(|| api.principals.user(&provider.tenant, name));
    let user = known.as_ref().map_or_else(|| name.to_owned(), |user| user.id.clone());
    if let Some(known) = &known {
        if known.text("provider") != Some(&provider.id) {
            let said = "A user of your name is here who does not sign in with this provider: tell your administrator.";
            let why = format!("user {user} is not of this provider: an administrator may set their field provider");
            return refuse(StatusCode::FORBIDDEN, said, why, &user);
        }
        if known.text("subject").is_some_and(|of| of != subject) {
            let said = "Your name was somebody else's before: tell your administrator.";
            let why = format!("user {user} is another subject of the provider: delete that user first");
            return refuse(StatusCode::FORBIDDEN, said, why, &user);
        }
        if known.flag("disabled") {
            return refuse(
                StatusCode::FORBIDDEN,
                "You are kept from signing in here.",
                "the user is disabled".to_owned(),
                &user,
            );
        }
    } else if !provider.flag("create_users") {
        let said = "You are not known here: ask your administrator to make you a user.";
        return refuse(StatusCode::FORBIDDEN, said, "there is no such user, and none is made".to_owned(), &user);
    } else if let Err(wrong) = check_id(name) {
        return refuse(StatusCode::FORBIDDEN, "Your name cannot be a user's here.", wrong, "");
    }
    let groups: Vec<String> = match claims.get(provider.text("groups_claim").unwrap_or_default()) {
        Some(Value::Array(groups)) => {
            groups.iter().take(MAX_GROUPS).filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(Value::String(group)) => vec![group.clone()],
        _ => Vec::new(),
    };
    // What a set of files says of somebody is changed there.
    let owned = known.as_ref().filter(|known| !known.owner.is_empty());
    if let Some(known) = owned {
        let fields = fields_of([("subject", json!(subject))]);
        return Ok((user.clone(), Some(Stood::of(known)), changed(known, fields)));
    }
    let Some(role) = role_of(provider, &groups) else {
        let said = "None of your groups may sign in here: ask your administrator.";
        return refuse(StatusCode::FORBIDDEN, said, format!("in none of the groups: {}", shortened(&groups)), &user);
    };
    let said = Said {
        role,
        name: text("name").map(|name| name.chars().filter(|c| !c.is_control()).take(50).collect()),
        email: text("email").map(str::to_owned),
    };
    let stood = known.as_deref().map(Stood::of);
    Ok((user.clone(), stood, stated(provider, known.as_deref(), &user, &subject, said)))
}

fn shortened(groups: &[String]) -> String {
    let text = groups.join(", ");
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What a provider says of somebody.
struct Said {
    role: String,
    name: Option<String>,
    email: Option<String>,
}

/// What is stated of somebody, where it is not stated yet.
fn stated(provider: &Resource, known: Option<&Resource>, user: &str, subject: &str, said: Said) -> Vec<Operation> {
    let mut fields = fields_of([("role", json!(said.role)), ("subject", json!(subject))]);
    let email = said.email.filter(|email| email.len() <= 254 && radarflow_reconcile::resources::is_mail(email));
    for (name, value) in [("display_name", said.name), ("email", email)] {
        if let Some(value) = value {
            fields.insert(name.to_owned(), json!(value));
        }
    }
    match known {
        Some(known) => changed(known, fields),
        None => {
            fields.insert("provider".to_owned(), json!(provider.id));
            vec![operation(Table::User, user, Act::Create { fields })]
        }
    }
}

/// What a user is to say from now on, if they stand as they were read; nothing where they say it already.
fn changed(user: &Resource, mut fields: Fields) -> Vec<Operation> {
    fields.retain(|name, value| user.fields.0.get(name) != Some(value));
    if fields.is_empty() {
        return Vec::new();
    }
    let (condition, owner) = (Condition::Epoch(user.epoch), user.owner.clone());
    vec![Operation { condition, owner, ..operation(Table::User, &user.id, Act::Update { fields }) }]
}
