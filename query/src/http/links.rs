//! Links between identifiers, made and taken back by operators.
//!
//! A merge by hand is a link `must`, an unmerge a link `cannot`; both hold, whatever sources say, until they are taken
//! back. An end is an identifier, or the uid of a device, which stands for the identifier that names it best.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Fact, Link, LinkKind};
use radarflow_proto::rows;
use radarflow_reconcile::access::{Action, sees};
use radarflow_reconcile::identity::name::seed;
use radarflow_reconcile::identity::normalise;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::Shared;
use crate::http::commands::Done;
use crate::http::problem::{bad, not_found};
use crate::http::request::{Why, body, optional_body};
use crate::records::end::{End, linked};

/// A link to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLink {
    /// `must` be one device, `cannot` be one.
    #[schema(value_type = String, example = "cannot")]
    kind: LinkKind,
    /// The site of both.
    #[serde(default)]
    partition: String,
    /// One end.
    a: End,
    /// The other.
    b: End,
    /// For the audit.
    reason: String,
}

/// A link that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeLink {
    /// Names it.
    link_id: String,
    /// The identifier at one end.
    a: String,
    /// The identifier at the other.
    b: String,
    /// Since when it holds.
    epoch: u64,
}

/// Says that two identifiers name one device, or that they never do.
#[utoipa::path(
    post, path = "/api/links", tag = "identity", request_body = NewLink,
    responses((status = 201, description = "The link.", body = MadeLink))
)]
pub(crate) async fn make_link(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Link)?;
    let new: NewLink = body(request).await?;
    let partition = normalise::partition(&new.partition).ok_or_else(|| bad("a partition has no : and no /"))?;
    if !sees(&actor.partitions, &partition) {
        return Err(not_found("there is no such partition"));
    }
    let view = api.engine.live().view();
    let (a, b) = (new.a.resolve(&view, &actor, &partition)?, new.b.resolve(&view, &actor, &partition)?);
    let (id, a, b) = linked(&partition, a, b)?;
    let (shown_a, shown_b) = (seed(&a), seed(&b));
    let link = Link {
        tenant: actor.tenant.clone(),
        partition,
        id: id.clone(),
        kind: new.kind,
        a,
        b,
        actor: actor.as_fact(),
        reason: new.reason,
    };
    let epoch = api.append(&actor, &Fact::Link(link)).await?;
    api.engine.live().reach(epoch).await;
    Ok((StatusCode::CREATED, axum::Json(MadeLink { link_id: id, a: shown_a, b: shown_b, epoch })).into_response())
}

/// Takes a link back.
#[utoipa::path(
    delete, path = "/api/links/{id}", tag = "identity", request_body(content = Option<Why>),
    params(("id" = String, Path, description = "The link.")),
    responses((status = 200, description = "It is gone.", body = Done))
)]
pub(crate) async fn remove_link(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Link)?;
    let why: Why = optional_body(request).await?;
    let links = api.engine.live().view().rows_where::<rows::Link>(&actor.tenant, "link_id", &id);
    if !links.iter().any(|l| sees(&actor.partitions, &l.partition)) {
        return Err(not_found("there is no such link"));
    }
    let gone = Fact::LinkGone { tenant: actor.tenant.clone(), id, actor: actor.as_fact(), reason: why.reason };
    api.done(&actor, &gone).await
}
