//! Tokens: who makes them, sees them, and revokes them.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Fact, Role, Token};
use radarflow_reconcile::access::Action;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::actor::{TOKENS_TENANT, hash, new_token};
use crate::error::OVER;
use crate::http::Shared;
use crate::http::commands::Done;
use crate::http::problem::{denied, not_found, problem};
use crate::http::request::{body, optional_body};

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// Who will use it.
    name: String,
    /// One's own.
    #[serde(default)]
    tenant: Option<String>,
    /// `viewer`, `operator`, `admin`.
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
    let tenant = new.tenant.unwrap_or_else(|| actor.tenant.clone());
    if tenant != actor.tenant || !actor.partitions.is_empty() {
        let detail = "an unbound administrator makes tokens of their own tenant";
        return Err(problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({})));
    }
    let _turn = api.tokens.turns.take(&tenant).await;
    if api.tokens.all(Some(&tenant)).len() >= TOKENS_TENANT {
        let detail = format!("there are {TOKENS_TENANT} tokens already; revoke some that nobody uses");
        return Err(problem(StatusCode::CONFLICT, "too_many_tokens", &detail, json!({})));
    }
    let text = new_token();
    let sha256 = hash(&text);
    let token = Token {
        id: sha256[..16].to_owned(),
        name: new.name,
        sha256,
        tenant,
        role: new.role,
        partitions: new.partitions,
        expires_ms: new.expires_ms,
    };
    let id = token.id.clone();
    let epoch = api.append(&actor, &Fact::Token(token)).await?;
    api.engine.live().reach(epoch).await;
    Ok((StatusCode::CREATED, axum::Json(Made { id, token: text, epoch })).into_response())
}

/// A token, as far as it is told.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenTold {
    /// Names it.
    id: String,
    /// Who uses it.
    name: String,
    /// `viewer`, `operator`, `admin`.
    #[schema(value_type = String, example = "viewer")]
    role: Role,
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
    let told =
        |Token { id, name, role, partitions, expires_ms, .. }| TokenTold { id, name, role, partitions, expires_ms };
    let tokens = api.tokens.all(Some(&actor.tenant)).into_iter().map(told).collect();
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
    // One after another: the last two administrators do not revoke each other.
    let _turn = api.tokens.turns.take(&actor.tenant).await;
    if actor.grant.has_ended() {
        return Err(denied(OVER));
    }
    let tokens = api.tokens.all(Some(&actor.tenant));
    let Some(token) = tokens.iter().find(|token| token.id == id) else {
        return Err(not_found("there is no such token"));
    };
    if !force && api.tokens.is_last_that_manages(&actor.tenant, &id, api.now_ms()) {
        let detail = "it is the last token that can make or revoke others: make another first, or say force; after that \
                      only `radarflow token create` on the server's host makes one";
        return Err(problem(StatusCode::CONFLICT, "last_admin", detail, json!({})));
    }
    let (tenant, name) = (actor.tenant.clone(), token.name.clone());
    api.done(&actor, &Fact::TokenRevoked { tenant, id, name, actor: actor.as_fact(), reason }).await
}
