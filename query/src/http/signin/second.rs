//! The second factor: a code of an authenticator (TOTP, RFC 6238: SHA-1, six digits, thirty seconds, as every authenticator knows
//! it; one step early or late is taken).
//!
//! A code is taken once, whoever asks at the same time: its step is written with the session that it begins, and only if the user
//! stands as they were read. Codes are guessed no more often than passwords: ten times in fifteen minutes a name, from wherever.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use qrcode::QrCode;
use qrcode::render::svg;
use radarflow_proto::resource::{Act, Condition, Operation, Resource};
use radarflow_proto::rows::Table;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use totp_rs::{Builder, Secret, Totp};

use super::{
    From, In, STEP_MS, Shown, Stood, admit, done, elsewhere, fields_of, in_words, keep, kept, local, operation, pages,
    sent, session_cookie, tell_failure, too_many,
};
use crate::actor::Actor;
use crate::actor::passwords::verify;
use crate::http::problem::{denied, problem};
use crate::http::resources::encoded;
use crate::http::{Api, Shared};

/// Bytes of a secret: those of SHA-1, as RFC 4226 (section 4) has it.
const SECRET: usize = 20;
/// What is said of a code that is not right, or was taken before.
const WRONG: &str = "the code is wrong, or was used already: wait for the next one";

/// Whether somebody has one.
pub(super) fn has(user: &Resource) -> bool {
    user.secrets.contains_key("totp")
}

/// Codes of a secret.
fn codes(secret: Vec<u8>) -> Option<Totp> {
    Builder::new().with_secret(secret).with_skew(1).build().ok()
}

/// The secret of a user.
fn secret_of(api: &Api, tenant: &str, user: &Resource) -> Option<Vec<u8>> {
    let sealed = user.secrets.get("totp")?;
    hex::decode((api.unseal)([tenant, Table::User.name(), &user.id, "totp"], sealed)?).ok()
}

/// The step of a code, if it is right and newer than the newest that was taken.
fn step_of(api: &Api, secret: Vec<u8>, newest: Option<u64>, code: &str) -> Option<u64> {
    let seconds = u64::try_from(api.now_ms()).ok()? / 1000;
    let code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    codes(secret)?.check(&code, seconds).filter(|step| newest.is_none_or(|newest| *step > newest))
}

/// What takes a code: the step is written, if the user stands as they were read.
fn taken(user: &Resource, step: u64) -> Operation {
    changed(user, Act::Update { fields: fields_of([("totp_step", json!(step.to_string()))]) })
}

/// A change of a user, if they stand as they were read; they stay whose they are.
fn changed(user: &Resource, act: Act) -> Operation {
    let condition = Condition::Epoch(user.epoch);
    Operation { condition, owner: user.owner.clone(), ..operation(Table::User, &user.id, act) }
}

/// What taking a code of somebody is.
async fn checked(api: &Shared, shown: &Shown, code: &str, from: &From) -> Result<Operation, Response> {
    let key = (shown.tenant.clone(), shown.user.clone(), "code".to_owned());
    let now_ms = api.now_ms();
    if let Some(seconds) = api.attempts.codes.wait(&key, now_ms) {
        return Err(too_many(seconds));
    }
    api.attempts.codes.failed(key.clone(), now_ms);
    let user = api.principals.user(&shown.tenant, &shown.user).filter(|user| !user.flag("disabled"));
    let step = user.as_ref().and_then(|user| {
        let newest = user.secrets.get("totp_step").and_then(|step| step.parse().ok());
        step_of(api, secret_of(api, &shown.tenant, user)?, newest, code)
    });
    let (Some(user), Some(step)) = (user, step) else {
        tell_failure(api, from, &shown.tenant, &shown.user, format!("{}: a wrong code", shown.method));
        return Err(denied(WRONG));
    };
    api.attempts.codes.succeeded(&key);
    Ok(taken(&user, step))
}

/// Lets somebody in who says a code too. What they showed before must still hold, and there must be something to look the code up by.
pub(super) async fn with_code(api: &Shared, shown: &Shown, code: &str, from: &From) -> Result<In, Response> {
    let user = api.principals.user(&shown.tenant, &shown.user);
    let holds = |user: &Resource| shown.stood.as_ref().is_some_and(|stood| stood.digest == Stood::of(user).digest);
    if !user.is_some_and(|user| has(&user) && holds(&user)) {
        return Err(denied("what you showed before holds no more: sign in again"));
    }
    let taken = checked(api, shown, code, from).await?;
    admit(api, shown, vec![taken], from).await
}

/// The code, by a form of ours.
pub(super) async fn form(State(api): State<Shared>, request: Request) -> Response {
    let (_, from, mut said) = match sent(request).await {
        Ok(sent) => sent,
        Err(refused) => return refused,
    };
    let mut take = |name: &str| said.remove(name).unwrap_or_default();
    let (step, code, next) = (take("step"), take("code"), take("next"));
    let Some(shown) = kept::<Shown>(&api, "code", &step) else {
        return pages::refused_page(StatusCode::UNAUTHORIZED, "This took too long: sign in again.");
    };
    match with_code(&api, &shown, &code, &from).await {
        Ok(In { session, .. }) => elsewhere(local(&next), &session_cookie(&session)),
        Err(refused) => {
            let status = refused.status();
            let wrong = if status == StatusCode::UNAUTHORIZED { WRONG } else { in_words(status) };
            pages::code_page(status, Some(wrong), &step, local(&next))
        }
    }
}

/// A secret that somebody may begin to use.
#[derive(Serialize, Deserialize)]
struct Offered {
    tenant: String,
    user: String,
    secret: String,
}

/// What an authenticator reads: the URL that all of them know (`otpauth`), as a picture.
fn picture(offered: &Offered, base32: &str) -> Option<String> {
    let account = encoded(&format!("{}@{}", offered.user, offered.tenant));
    let url = format!("otpauth://totp/Radarflow:{account}?secret={base32}&issuer=Radarflow");
    let code = QrCode::new(url.as_bytes()).ok()?;
    let svg = code.render::<svg::Color<'_>>().min_dimensions(200, 200).build();
    // Within a page it needs no head of its own.
    svg.find("<svg").map(|at| svg[at..].to_owned())
}

fn offer_page(offered: &Offered, status: StatusCode, wrong: Option<&str>, step: &str) -> Response {
    let base32 = hex::decode(&offered.secret).map(|bytes| Secret::from(bytes).to_base32()).unwrap_or_default();
    pages::enrol_page(status, wrong, &base32, &picture(offered, &base32).unwrap_or_default(), step)
}

/// Who is signed in, and sent a form of ours.
async fn signed_in(
    api: &Shared,
    request: Request,
) -> Result<(Actor, From, std::collections::BTreeMap<String, String>), Response> {
    let (headers, from, said) = sent(request).await?;
    let actor = api.actor(&headers)?;
    match actor.user() {
        Some(_) => Ok((actor, from, said)),
        None => Err(problem(StatusCode::CONFLICT, "no_session", "a token has no second factor", json!({}))),
    }
}

/// Offers a secret to who is signed in, and says their password again: a session that was stolen locks nobody out.
pub(super) async fn enrol(State(api): State<Shared>, request: Request) -> Result<Response, Response> {
    let (actor, from, said) = signed_in(&api, request).await?;
    let known = api.principals.user(&actor.tenant, actor.user().unwrap_or_default());
    if let Some(hashed) = known.and_then(|user| user.secrets.get("password").cloned()) {
        let key = from.counted(&actor.tenant, actor.user().unwrap_or_default());
        if let Some(seconds) = api.attempts.passwords.wait(&key, api.now_ms()) {
            return Err(too_many(seconds));
        }
        api.attempts.passwords.failed(key.clone(), api.now_ms());
        let password = said.get("password").cloned().unwrap_or_default();
        if !verify(password, Some(hashed)).await {
            let said = "The password is wrong.";
            return Ok(pages::note(StatusCode::UNAUTHORIZED, "Not set up", said, ("/account", "Account")));
        }
        api.attempts.passwords.succeeded(&key);
    }
    let secret = hex::encode(rand::random::<[u8; SECRET]>());
    let (tenant, user) = (actor.tenant.clone(), actor.user().unwrap_or_default().to_owned());
    let offered = Offered { tenant, user, secret };
    let step = keep(&api, "enrol", STEP_MS, &offered)?;
    Ok(offer_page(&offered, StatusCode::OK, None, &step))
}

/// Takes it where a code of it is said.
pub(super) async fn confirm(State(api): State<Shared>, request: Request) -> Result<Response, Response> {
    let (actor, from, mut said) = signed_in(&api, request).await?;
    let mut take = |name: &str| said.remove(name).unwrap_or_default();
    let (step, code) = (take("step"), take("code"));
    let offered = kept::<Offered>(&api, "enrol", &step);
    let Some(offered) = offered.filter(|of| of.tenant == actor.tenant && Some(of.user.as_str()) == actor.user()) else {
        let said = "This took too long: set it up again.";
        return Ok(pages::note(StatusCode::CONFLICT, "Not set up", said, ("/account", "Account")));
    };
    let user = api.principals.user(&offered.tenant, &offered.user);
    let Some(user) = user.filter(|user| !has(user)) else {
        let said = "There is an authenticator already: remove that first.";
        return Ok(pages::note(StatusCode::CONFLICT, "Not set up", said, ("/account", "Account")));
    };
    let secret = hex::decode(&offered.secret).unwrap_or_default();
    let Some(at) = step_of(&api, secret, None, &code) else {
        let wrong = Some("The code is wrong: say the one that is shown now.");
        return Ok(offer_page(&offered, StatusCode::UNPROCESSABLE_ENTITY, wrong, &step));
    };
    let context = [offered.tenant.as_str(), Table::User.name(), &offered.user, "totp"];
    let Some(sealed) = (api.seal)(context, &offered.secret) else {
        return Err(problem(StatusCode::SERVICE_UNAVAILABLE, "no_key", "there is no key to seal with", json!({})));
    };
    let fields = fields_of([("totp", json!(sealed)), ("totp_step", json!(at.to_string()))]);
    let begun = changed(&user, Act::Update { fields });
    let (method, stood) = ("second factor".to_owned(), None);
    let shown = Shown { tenant: offered.tenant, user: offered.user, method, stood };
    done(&api, &shown, vec![begun], &from).await?;
    Ok(elsewhere("/account", ""))
}

/// Removes it where a code of it is said.
pub(super) async fn remove(State(api): State<Shared>, request: Request) -> Result<Response, Response> {
    let (actor, from, said) = signed_in(&api, request).await?;
    let (tenant, user) = (actor.tenant.clone(), actor.user().unwrap_or_default().to_owned());
    let shown = Shown { tenant, user, method: "second factor".to_owned(), stood: None };
    let code = said.get("code").map(String::as_str).unwrap_or_default();
    match checked(&api, &shown, code, &from).await {
        Ok(mut operation) => {
            operation.act = Act::Update { fields: fields_of([("totp", Value::Null), ("totp_step", Value::Null)]) };
            done(&api, &shown, vec![operation], &from).await?;
            Ok(elsewhere("/account", ""))
        }
        Err(refused) => {
            let status = refused.status();
            let said = if status == StatusCode::UNAUTHORIZED { WRONG } else { in_words(status) };
            Ok(pages::note(status, "Not removed", said, ("/account", "Account")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_6238() {
        // Appendix B, SHA-1, the last six of its eight digits.
        let codes = codes(b"12345678901234567890".to_vec()).unwrap();
        for (seconds, code) in [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")] {
            assert_eq!(codes.generate(seconds).to_string(), code);
            assert_eq!(codes.check(code, seconds + 30), Some(seconds / 30));
            assert_eq!(codes.check(code, seconds + 60), None);
        }
    }

    #[test]
    fn an_authenticator_reads_the_picture() {
        let offered = Offered { tenant: "t".into(), user: "ann".into(), secret: hex::encode([7; SECRET]) };
        let svg = picture(&offered, "GEZDGNBVGY3TQOJQ").unwrap();
        assert!(svg.starts_with("<svg") && !svg.contains("<script"), "{svg}");
    }
}
