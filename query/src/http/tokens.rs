//! Tokens: who makes them, sees them, and revokes them. They are resources; these are the paths that were there before.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::Role;
use radarflow_proto::resource::{Act, Condition, Fields, Operation, RefusalCode};
use radarflow_proto::rows::Table;
use radarflow_reconcile::access::Action;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::actor::{Actor, hash, id_of, new_token};
use crate::error::OVER;
use crate::http::commands::Done;
use crate::http::problem::{denied, problem};
use crate::http::request::{body, optional_body};
use crate::http::resources::{Ask, judged, refused};
use crate::http::{Api, Shared};

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Who will use it.
    name: String,
    /// One's own.
    #[serde(default)]
    tenant: Option<String>,
    /// `viewer`, `helpdesk`, `operator`, `admin`.
    #[schema(value_type = String, example = "viewer")]
    role: Role,
    /// The only partitions it may see; none for all.
    #[serde(default)]
    partitions: Vec<String>,
    /// When it ends, milliseconds since 1970.
    #[serde(default)]
    expires_ms: Option<i64>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct Made {
    /// Names it in the audit.
    id: String,
    /// The token; it is shown once.
    token: String,
    /// When it became visible.
    epoch: u64,
}

fn operation(id: &str, act: Act) -> Operation {
    let (resource, id) = (Table::ApiToken.name().to_owned(), id.to_owned());
    Operation { resource, id, act, condition: Condition::Any, owner: String::new() }
}

/// Has it judged; refused it is with the codes that these paths always had.
async fn done(api: &Api, actor: &Actor, reason: String, force: bool, of: Operation) -> Result<u64, Response> {
    let ask = Ask { principal: actor.principal.clone(), reason, operations: vec![of], force, key: None };
    let judgement = judged(api, &actor.tenant, ask).await?;
    match judgement.outcome {
        Ok(_) => Ok(judgement.epoch),
        Err(refusal) if refusal.code == RefusalCode::TooMany => {
            Err(problem(StatusCode::CONFLICT, "too_many_tokens", &refusal.detail, json!({})))
        }
        Err(refusal) if refusal.code == RefusalCode::Conflict => {
            let detail = "it is the last token that can make or revoke others: make another first, or say force; after that \
                          only `radarflow token create` on the server's host makes one";
            Err(problem(StatusCode::CONFLICT, "last_admin", detail, json!({})))
        }
        // Who was let in by what is over meanwhile is told that.
        Err(refusal) if refusal.code == RefusalCode::Forbidden && actor.grant.has_ended() => Err(denied(OVER)),
        Err(refusal) => Err(refused(&refusal, judgement.epoch, false)),
    }
}

/// Makes a token, of the tenant of the token that makes it. Who is let in by it is told what their role and partitions allow,
/// until it expires or is revoked. A tenant has 10,000 at most, expired ones among them.
#[utoipa::path(
    post, path = "/api/tokens", tag = "administration", request_body = NewToken,
    responses((status = 201, description = "The token.", body = Made))
)]
pub(crate) async fn make_token(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::ManageTokens)?;
    let new: NewToken = body(request).await?;
    if new.tenant.is_some_and(|tenant| tenant != actor.tenant) || !actor.partitions.is_empty() {
        let detail = "an unbound administrator makes tokens of their own tenant";
        return Err(problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({})));
    }
    let text = new_token();
    let sha256 = hash(&text);
    let id = id_of(&sha256).to_owned();
    let fields: Fields = [
        ("name", json!(new.name)),
        ("role", json!(new.role.name())),
        ("partitions", json!(new.partitions)),
        ("expires_at", json!(new.expires_ms.map(|ms| ms.saturating_mul(1000)))),
        ("sha256", json!(sha256)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    let create = operation(&id, Act::Create { fields });
    let epoch = done(&api, &actor, String::new(), false, create).await?;
    Ok((StatusCode::CREATED, axum::Json(Made { id, token: text, epoch })).into_response())
}

/// A token, as far as it is told.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenTold {
    /// Names it.
    id: String,
    /// Who uses it.
    name: String,
    /// `viewer`, `helpdesk`, `operator`, `admin`, or a custom role.
    #[schema(example = "viewer")]
    role: String,
    /// The only partitions it may see; none for all.
    partitions: Vec<String>,
    /// When it ends, milliseconds since 1970.
    expires_ms: Option<i64>,
}

/// The tokens of a tenant.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokensTold {
    /// By name.
    tokens: Vec<TokenTold>,
}

/// Lists the tokens of the tenant, expired ones among them; never what lets anybody in.
#[utoipa::path(
    get, path = "/api/tokens", tag = "administration",
    responses((status = 200, description = "The tokens.", body = TokensTold))
)]
pub(crate) async fn list_tokens(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::ManageTokens)?;
    actor.whole("the list of tokens")?;
    let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let told = api.principals.tokens(&actor.tenant);
    let mut tokens: Vec<TokenTold> = told
        .iter()
        .map(|token| TokenTold {
            id: token.id.clone(),
            name: text(token.text("name")),
            role: text(token.text("role")),
            partitions: token.texts("partitions"),
            expires_ms: token.number("expires_at").map(|us| us / 1000),
        })
        .collect();
    tokens.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(axum::Json(TokensTold { tokens }).into_response())
}

/// How a token is revoked.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Revocation {
    /// For the audit.
    reason: String,
    /// Also where it is the last that could make or revoke others. After it that is done on the server's host alone.
    force: bool,
}

/// Revokes a token of the tenant. When this answers it lets nobody in any more, and whatever it let in has ended: queries,
/// exports, live queries, uploads. It cannot be taken back. The last token that could make others is refused (409,
/// `last_admin`) without `force`.
#[utoipa::path(
    delete, path = "/api/tokens/{id}", tag = "administration", request_body(content = Option<Revocation>),
    params(("id" = String, Path, description = "The token, by its id.")),
    responses((status = 200, description = "It is revoked.", body = Done))
)]
pub(crate) async fn revoke_token(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::ManageTokens)?;
    actor.whole("a token")?;
    let Revocation { reason, force } = optional_body(request).await?;
    if actor.grant.has_ended() {
        return Err(denied(OVER));
    }
    let epoch = done(&api, &actor, reason, force, operation(&id, Act::Delete)).await?;
    Ok(axum::Json::<Value>(json!({"epoch": epoch})).into_response())
}
