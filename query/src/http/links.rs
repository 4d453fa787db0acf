//! What operators say of identity: links between identifiers, how far an address alone links, and how far a run may go.
//!
//! A merge by hand is a link `must`, an unmerge a link `cannot`; both hold, whatever sources say, until they are taken
//! back. An end is an identifier, or the uid of a device, which stands for the identifier that names it best.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::fact::{Actor as FactActor, Fact, IpLink, Link, LinkKind};
use radarflow_proto::rows;
use radarflow_reconcile::access::{Action, sees};
use radarflow_reconcile::identity::name::seed;
use radarflow_reconcile::identity::normalise;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::http::{Done, Shared, body, optional_body, problem};
use crate::tables::names::End;

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

/// Why it is done.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Why {
    /// For the audit.
    pub(crate) reason: String,
}

/// How far an address alone links.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPolicy {
    /// `corroborated`, `immediate`, `off`.
    #[schema(value_type = String, example = "corroborated")]
    policy: IpLink,
    /// For the audit.
    reason: String,
}

/// How far one run of a source may go before somebody is asked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewBrakes {
    /// Devices that may become part of others.
    #[schema(example = 100, maximum = 1_000_000)]
    max_merges: u32,
    /// Records that it may put into one device.
    #[schema(example = 256, minimum = 1, maximum = 1_000_000)]
    max_component: u32,
    /// For the audit.
    reason: String,
}

/// A brake beyond this is none.
const MOST_BRAKES: u32 = 1_000_000;

fn bad(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_request", detail, json!({}))
}

/// States a fact; the answer comes when it is visible.
async fn done(api: &Shared, actor: &Actor, fact: &Fact) -> Result<Response, Response> {
    let epoch = api.append(actor, fact).await?;
    api.engine.live().reach(epoch).await;
    Ok(axum::Json(Done { epoch }).into_response())
}

pub(crate) fn who(actor: &Actor) -> FactActor {
    FactActor { name: actor.name.clone(), role: actor.role }
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
        return Err(problem(StatusCode::NOT_FOUND, "not_found", "there is no such partition", json!({})));
    }
    let (a, b) = (new.a.resolve(&api, &actor, &partition)?, new.b.resolve(&api, &actor, &partition)?);
    if a == b {
        return Err(bad("a link has two ends; these are one identifier"));
    }
    // One link for two identifiers: what is said last replaces what was said before.
    let (a, b) = if a < b { (a, b) } else { (b, a) };
    let id = hex::encode(&Sha256::digest(format!("{partition}\u{1f}{}\u{1f}{}", seed(&a), seed(&b)))[..8]);
    let (shown_a, shown_b) = (seed(&a), seed(&b));
    let link = Link {
        tenant: actor.tenant.clone(),
        partition,
        id: id.clone(),
        kind: new.kind,
        a,
        b,
        actor: who(&actor),
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
        return Err(problem(StatusCode::NOT_FOUND, "not_found", "there is no such link", json!({})));
    }
    let gone = Fact::LinkGone { tenant: actor.tenant.clone(), id, actor: who(&actor), reason: why.reason };
    done(&api, &actor, &gone).await
}

/// Says how far an address alone links.
#[utoipa::path(
    put, path = "/api/identity/ip_link", tag = "identity", request_body = NewPolicy,
    responses((status = 200, description = "It holds.", body = Done))
)]
pub(crate) async fn set_ip_link(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::SetPolicy)?;
    actor.whole("a policy")?;
    let new: NewPolicy = body(request).await?;
    let fact =
        Fact::IpLink { tenant: actor.tenant.clone(), policy: new.policy, actor: who(&actor), reason: new.reason };
    done(&api, &actor, &fact).await
}

/// Says how far one run of a source may go before it is held.
#[utoipa::path(
    put, path = "/api/identity/brakes", tag = "identity", request_body = NewBrakes,
    responses((status = 200, description = "It holds.", body = Done))
)]
pub(crate) async fn set_brakes(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::SetPolicy)?;
    actor.whole("a policy")?;
    let NewBrakes { max_merges, max_component, reason } = body(request).await?;
    if max_component == 0 || max_component.max(max_merges) > MOST_BRAKES {
        return Err(bad("`max_component` is 1 or more, neither more than 1,000,000"));
    }
    let fact = Fact::Brakes { tenant: actor.tenant.clone(), max_merges, max_component, actor: who(&actor), reason };
    done(&api, &actor, &fact).await
}
