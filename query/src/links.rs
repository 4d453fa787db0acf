//! What operators say of identity: links between identifiers, and how far an address alone links.
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
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::access::Actor;
use crate::http::{Shared, body, optional_body, problem};
use crate::names::End;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLink {
    kind: LinkKind,
    #[serde(default)]
    partition: String,
    a: End,
    b: End,
    reason: String,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Why {
    pub(crate) reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPolicy {
    policy: IpLink,
    reason: String,
}

fn bad(detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, "bad_request", detail, json!({}))
}

pub(crate) fn who(actor: &Actor) -> FactActor {
    FactActor { name: actor.name.clone(), role: actor.role }
}

/// `POST /api/links`
pub(crate) async fn make_link(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Response {
    let actor = match api.allowed(&headers, Action::Link) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let new: NewLink = match body(request).await {
        Ok(new) => new,
        Err(bad) => return bad,
    };
    let Some(partition) = normalise::partition(&new.partition) else {
        return bad("a partition has no : and no /");
    };
    if !sees(&actor.partitions, &partition) {
        return problem(StatusCode::NOT_FOUND, "not_found", "there is no such partition", json!({}));
    }
    let (a, b) = match (new.a.resolve(&api, &actor, &partition), new.b.resolve(&api, &actor, &partition)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(refused), _) | (_, Err(refused)) => return refused,
    };
    if a == b {
        return bad("a link has two ends; these are one identifier");
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
    match api.append(&actor, &Fact::Link(link)).await {
        Ok(epoch) => {
            api.engine.live().reach(epoch).await;
            let made = json!({"link_id": id, "a": shown_a, "b": shown_b, "epoch": epoch});
            (StatusCode::CREATED, axum::Json(made)).into_response()
        }
        Err(refused) => refused,
    }
}

/// `DELETE /api/links/{id}`
pub(crate) async fn remove_link(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let actor = match api.allowed(&headers, Action::Link) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    let why: Why = match optional_body(request).await {
        Ok(why) => why,
        Err(bad) => return bad,
    };
    let links = api.engine.live().view().rows_where::<rows::Link>(&actor.tenant, "link_id", &id);
    if !links.iter().any(|l| sees(&actor.partitions, &l.partition)) {
        return problem(StatusCode::NOT_FOUND, "not_found", "there is no such link", json!({}));
    }
    let gone = Fact::LinkGone { tenant: actor.tenant.clone(), id, actor: who(&actor), reason: why.reason };
    match api.append(&actor, &gone).await {
        Ok(epoch) => {
            api.engine.live().reach(epoch).await;
            axum::Json(json!({"epoch": epoch})).into_response()
        }
        Err(refused) => refused,
    }
}

/// `PUT /api/identity/ip_link`
pub(crate) async fn set_ip_link(State(api): State<Shared>, headers: HeaderMap, request: Request) -> Response {
    let actor = match api.allowed(&headers, Action::SetPolicy) {
        Ok(actor) => actor,
        Err(denied) => return denied,
    };
    if !actor.partitions.is_empty() {
        let detail = "a policy is the whole tenant's; this token is bound to partitions";
        return problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({}));
    }
    let new: NewPolicy = match body(request).await {
        Ok(new) => new,
        Err(bad) => return bad,
    };
    let fact =
        Fact::IpLink { tenant: actor.tenant.clone(), policy: new.policy, actor: who(&actor), reason: new.reason };
    match api.append(&actor, &fact).await {
        Ok(epoch) => {
            api.engine.live().reach(epoch).await;
            axum::Json(json!({"epoch": epoch})).into_response()
        }
        Err(refused) => refused,
    }
}
