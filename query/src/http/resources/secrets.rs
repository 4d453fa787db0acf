//! What is hashed or sealed before it is stated: passwords and tokens, receivers' URLs and headers. What stands is never what was said.

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use radarflow_proto::resource::Fields;
use radarflow_proto::rows::Table;
use radarflow_reconcile::resources::{ResourceKind, told};
use serde_json::{Value, json};

use crate::actor::{hash, id_of, new_token, passwords};
use crate::http::Api;
use crate::http::problem::problem;

/// Makes an API token: its id and the token; what is stated of it is put among the fields.
pub(super) fn token(fields: &mut Fields) -> (String, String) {
    let token = new_token();
    let sha256 = hash(&token);
    let id = id_of(&sha256).to_owned();
    fields.insert("sha256".to_owned(), json!(sha256));
    (id, token)
}

/// The resource that secrets are of.
pub(super) struct Of<'a> {
    pub(super) tenant: &'a str,
    pub(super) kind: &'a ResourceKind,
    pub(super) id: &'a str,
}

fn invalid(field: &str, detail: &str) -> Response {
    let more = json!({"pointer": format!("/data/attributes/{field}")});
    problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail, more)
}

/// Hashes or seals what must not be stated as it was said.
pub(super) async fn kept(api: &Api, of: &Of<'_>, fields: &mut Fields) -> Result<(), Response> {
    match of.kind.table {
        Table::User => user(api, of, fields).await,
        Table::Receiver => receiver(api, of, fields),
        // Of what lets somebody in its hash is stated.
        Table::ApiToken | Table::EdgePackage => Ok(()),
        _ => {
            let secrets = of.kind.fields.iter().filter(|field| field.secret.is_some());
            texts(api, of, fields, secrets.map(|field| field.name))
        }
    }
}

async fn user(api: &Api, of: &Of<'_>, fields: &mut Fields) -> Result<(), Response> {
    let Some(password) = fields.get("password").filter(|password| !password.is_null()) else { return Ok(()) };
    let Some(password) = password.as_str().map(str::to_owned) else { return Err(invalid("password", "it is text")) };
    if let Some(detail) = passwords::weak(&password) {
        return Err(invalid("password", &detail));
    }
    // Said again it stays what it was: each hash of it is another.
    let kept = api.principals.user(of.tenant, of.id).and_then(|user| user.secrets.get("password").cloned());
    if let Some(kept) = kept
        && passwords::verify(password.clone(), Some(kept.clone())).await
    {
        fields.insert("password".to_owned(), json!(kept));
        return Ok(());
    }
    let failed = || problem(StatusCode::SERVICE_UNAVAILABLE, "busy", "the password cannot be hashed now", json!({}));
    let hash = passwords::hashed(password).await.ok_or_else(failed)?;
    fields.insert("password".to_owned(), json!(hash));
    Ok(())
}

/// Seals a secret of a resource.
#[allow(clippy::result_large_err)]
fn sealed(api: &Api, of: &Of<'_>, field: &str, text: &str) -> Result<String, Response> {
    let failed =
        || problem(StatusCode::SERVICE_UNAVAILABLE, "no_key", "there is no key to seal secrets with", json!({}));
    (api.seal)([of.tenant, of.kind.name(), of.id, field], text).ok_or_else(failed)
}

/// Seals secrets that are text. An empty one is none.
#[allow(clippy::result_large_err)]
fn texts<'a>(
    api: &Api,
    of: &Of<'_>,
    fields: &mut Fields,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), Response> {
    for field in names {
        let Some(secret) = fields.get(field).filter(|secret| !secret.is_null()) else { continue };
        let secret = secret.as_str().filter(|secret| secret.len() <= 2000);
        let secret = secret.ok_or_else(|| invalid(field, "it is text of at most 2000 bytes"))?;
        let secret = if secret.is_empty() { Value::Null } else { json!(sealed(api, of, field, secret)?) };
        fields.insert(field.to_owned(), secret);
    }
    Ok(())
}

#[allow(clippy::result_large_err)]
fn receiver(api: &Api, of: &Of<'_>, fields: &mut Fields) -> Result<(), Response> {
    let sealed = |field: &str, text: &str| sealed(api, of, field, text);
    texts(api, of, fields, ["credential", "signing_key"])?;
    if let Some(target) = fields.get("target").filter(|target| !target.is_null()) {
        let url = target.as_str().filter(|url| url.len() <= 2000);
        let known = ["http://", "https://", "mailto:"];
        let url = url.filter(|url| known.iter().any(|begins| url.starts_with(begins)));
        let wrong = "it is an http or https URL, or `mailto:` and addresses, of at most 2000 bytes";
        let url = url.ok_or_else(|| invalid("target", wrong))?.to_owned();
        fields.insert("url".to_owned(), json!(told::shown(&url)));
        fields.insert("target".to_owned(), json!(sealed("target", &url)?));
        // What was meant for one place is not sent to another.
        for field in ["headers", "credential", "signing_key"] {
            fields.entry(field.to_owned()).or_insert(Value::Null);
        }
    }
    if let Some(headers) = fields.get("headers").filter(|headers| !headers.is_null()) {
        let wrong = || invalid("headers", "they are texts of at most 4000 bytes, each `Name: value`");
        let mut kept = Vec::new();
        for header in headers.as_array().ok_or_else(wrong)? {
            let header = header.as_str().filter(|header| header.len() <= 4000).ok_or_else(wrong)?;
            let (name, value) = header.split_once(':').ok_or_else(wrong)?;
            let (name, value) = (name.trim(), value.trim());
            if HeaderName::from_bytes(name.as_bytes()).is_err() || HeaderValue::from_str(value).is_err() {
                return Err(wrong());
            }
            kept.push(json!(format!("{name}: {}", sealed(&format!("headers/{name}"), value)?)));
        }
        fields.insert("headers".to_owned(), Value::Array(kept));
    }
    Ok(())
}
