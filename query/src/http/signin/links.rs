//! A link sent by mail lets somebody in: once, within fifteen minutes, in the browser that asked for it. A page with a button spends
//! it, since scanners of mail follow links. The answer is the same, and as quick, whether there is such a user or not.

use std::collections::BTreeMap;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use radarflow_proto::ports::BoxFuture;
use radarflow_proto::resource::{Act, Resource};
use radarflow_proto::rows::Table;
use serde_json::json;

use super::{
    From, LINK_COOKIE, MAX_NAME, Shown, Stood, base, came, cookie, done, fields_of, in_words, keep, kept, local,
    onwards, operation, pages, same, sent, step_cookie, tell_failure,
};
use crate::actor::{hash, id_of, new_session};
use crate::http::problem::problem;
use crate::http::resources::encoded;
use crate::http::{Api, Shared};

/// How long a link lets somebody in, microseconds: 15 minutes.
const LINK_US: i64 = 15 * 60 * 1_000_000;
/// Links of a user at once.
const LINKS: usize = 12;
/// The same that one address asked for.
const LINKS_OF_ADDRESS: usize = 3;

/// A message to somebody.
pub struct Mail {
    /// Where it goes.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// What it says.
    pub text: String,
}

/// Sends a message, or says why it was not sent.
pub type SendMail = dyn Fn(Mail) -> BoxFuture<Result<(), String>> + Send + Sync;

/// What a browser keeps until its link comes, and where it wants to then.
#[derive(serde::Serialize, serde::Deserialize)]
struct Browser {
    secret: String,
    next: String,
}

/// Sends a link.
pub(super) async fn send(State(api): State<Shared>, request: Request) -> Response {
    let (headers, from, mut said) = match sent(request).await {
        Ok(sent) => sent,
        Err(refused) => return refused,
    };
    let mut take = |name: &str| said.remove(name).unwrap_or_default();
    let (tenant, user, next) = (take("tenant"), take("user"), take("next"));
    let Some(mail) = api.mail.clone() else {
        return problem(StatusCode::NOT_FOUND, "no_mail", "this server sends no mail", json!({}));
    };
    let base = match base(&api, &headers) {
        Ok(base) => base,
        Err(refused) => return refused,
    };
    let browser = Browser { secret: new_session(), next: local(&next).to_owned() };
    let (held, keeps) = (hash(&browser.secret), keep(&api, "link", LINK_US / 1000, &browser));
    let keeps = match keeps {
        Ok(keeps) => keeps,
        Err(refused) => return refused,
    };
    // Whoever asks too often is told the same, and nothing is sent.
    let key = from.counted(&tenant, &user);
    let often = api.attempts.links.wait(&key, api.now_ms()).is_some();
    if !often && tenant.len() <= MAX_NAME && user.len() <= MAX_NAME {
        api.attempts.links.failed(key, api.now_ms());
        tokio::spawn(async move {
            if let Err(error) = sent_to(&api, &*mail, &base, (tenant, user), held, &from).await {
                tracing::warn!(error, "a link to sign in was not sent");
            }
        });
    }
    let said = "If there is such a user and they have an address of mail, a link is on its way. It lets you in within \
                fifteen minutes, in this browser.";
    let mut response =
        pages::note(StatusCode::ACCEPTED, "Look into your mail", said, ("/sign-in", "Sign in otherwise"));
    if let Ok(value) = step_cookie(LINK_COOKIE, &keeps, LINK_US / 1000).parse() {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

/// Whether a link lets a user in: whom a provider signs in, only that does.
fn lets_in(user: &Resource) -> bool {
    !user.flag("disabled") && user.text("provider").is_none()
}

/// States a link and sends it, if there is somebody to send it to.
async fn sent_to(
    api: &Shared,
    mail: &super::SendMail,
    base: &str,
    (tenant, user): (String, String),
    browser: String,
    from: &From,
) -> Result<(), String> {
    let Some(known) = api.principals.user(&tenant, &user).filter(|known| lets_in(known)) else { return Ok(()) };
    let Some(to) = known.text("email").filter(|to| !to.is_empty()).map(str::to_owned) else { return Ok(()) };
    let held = api.principals.links(&tenant, &user);
    let own = held.iter().filter(|link| link.text("address") == from.address().as_deref()).count();
    if held.len() >= LINKS || own >= LINKS_OF_ADDRESS {
        return Ok(());
    }
    let link = new_session();
    let sha256 = hash(&link);
    let id = id_of(&sha256).to_owned();
    let fields = fields_of([
        ("user", json!(user)),
        ("address", json!(from.address())),
        ("expires_at", json!(api.now_ms().saturating_mul(1000).saturating_add(LINK_US))),
        ("sha256", json!(sha256)),
        ("browser", json!(browser)),
    ]);
    let shown = Shown { tenant: tenant.clone(), user, method: "link".to_owned(), stood: None };
    let stated = done(api, &shown, vec![operation(Table::SignInLink, &id, Act::Create { fields })], from).await;
    stated.map_err(|refused| format!("it cannot be stated: {}", refused.status()))?;
    let url = format!("{base}/sign-in/link?tenant={}&link={link}", encoded(&tenant));
    let text = format!(
        "Somebody, most likely you, wants to sign in to Radarflow as {}.\n\nThis link lets you in within fifteen minutes, once, \
         in the browser that asked for it:\n\n{url}\n\nIf it was not you, do nothing: nobody else can use it.\n",
        shown.user
    );
    mail(Mail { to, subject: "Sign in to Radarflow".to_owned(), text }).await
}

/// The page that a link leads to: only its button spends it.
pub(super) async fn page(Query(asked): Query<BTreeMap<String, String>>) -> Response {
    let said = |name: &str| pages::text(asked.get(name).map(String::as_str).unwrap_or_default());
    let main = format!(
        "<h1>Sign in to Radarflow</h1><p>You asked for this link a moment ago.</p><form method=\"post\" \
         action=\"/sign-in/link\"><input type=\"hidden\" name=\"tenant\" value=\"{}\"><input type=\"hidden\" name=\"link\" \
         value=\"{}\"><button autofocus>Sign in</button></form>",
        said("tenant"),
        said("link")
    );
    pages::html(StatusCode::OK, "Sign in", &main)
}

/// What the browser keeps, if it asked for a link.
fn browser(api: &Api, headers: &HeaderMap) -> Option<Browser> {
    kept(api, "link", &cookie(headers, LINK_COOKIE)?)
}

/// Spends a link.
pub(super) async fn spend(State(api): State<Shared>, request: Request) -> Response {
    let (headers, from, mut said) = match sent(request).await {
        Ok(sent) => sent,
        Err(refused) => return refused,
    };
    let mut take = |name: &str| said.remove(name).unwrap_or_default();
    let (tenant, link) = (take("tenant"), take("link"));
    const WRONG: &str = "This link was used, is over, or was asked for in another browser: ask for another.";
    let known = api.principals.link(&tenant, &hash(&link));
    let browser = browser(&api, &headers);
    let (known, browser) = match (known, browser) {
        (Some(known), Some(browser))
            if known.secrets.get("browser").is_some_and(|held| same(held, &hash(&browser.secret)))
                && known.number("expires_at").is_some_and(|at| at > api.now_ms().saturating_mul(1000)) =>
        {
            (known, browser)
        }
        (known, _) => {
            let user = known.and_then(|known| known.text("user").map(str::to_owned)).unwrap_or_default();
            tell_failure(&api, &from, &tenant, &user, "link: used, over, or of another browser".to_owned());
            return pages::refused_page(StatusCode::UNAUTHORIZED, WRONG);
        }
    };
    let user = known.text("user").unwrap_or_default().to_owned();
    let Some(stands) = api.principals.user(&tenant, &user).filter(|user| lets_in(user)) else {
        return pages::refused_page(StatusCode::UNAUTHORIZED, WRONG);
    };
    let shown = Shown { tenant, user, method: "link".to_owned(), stood: Some(Stood::of(&stands)) };
    let spent = operation(Table::SignInLink, &known.id, Act::Delete);
    let came = came(&api, shown, vec![spent], &from).await;
    match onwards(&api, came, &browser.next) {
        Ok(response) => response,
        Err(refused) if refused.status() == StatusCode::UNAUTHORIZED => {
            pages::refused_page(StatusCode::UNAUTHORIZED, WRONG)
        }
        Err(refused) => pages::refused_page(refused.status(), in_words(refused.status())),
    }
}
