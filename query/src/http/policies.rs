//! What administrators say of identity as a whole: how far an address alone links, how far one run may go.

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use radarflow_proto::fact::{Fact, IpLink};
use radarflow_reconcile::access::Action;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::Shared;
use crate::http::commands::Done;
use crate::http::problem::bad;
use crate::http::request::body;

/// A brake beyond this is none.
const MOST_BRAKES: u32 = 1_000_000;

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
        Fact::IpLink { tenant: actor.tenant.clone(), policy: new.policy, actor: actor.as_fact(), reason: new.reason };
    api.done(&actor, &fact).await
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
    let fact = Fact::Brakes { tenant: actor.tenant.clone(), max_merges, max_component, actor: actor.as_fact(), reason };
    api.done(&actor, &fact).await
}
