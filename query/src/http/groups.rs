//! What operators say of groups of devices: which there are, and what is in them.

use std::collections::BTreeSet;

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use radarflow_proto::fact::{DeviceGroup as Stated, Fact};
use radarflow_proto::rows::DeviceGroup;
use radarflow_reconcile::access::Action;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::QueryError;
use crate::http::Shared;
use crate::http::commands::Done;
use crate::http::problem::{bad, not_found, refuse};
use crate::http::request::{Why, body, optional_body};
use crate::srql::groups::{check, members, placed};

/// Devices that a group lists at most.
const MAX_MEMBERS: usize = 10_000;
/// Groups of a tenant at most.
const MAX_GROUPS: usize = 1000;

/// What a group is: a condition, or members.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewGroup {
    /// Terms of the language; whatever they hold of is in the group.
    #[schema(example = "type:router OR hostname:core*")]
    condition: Option<String>,
    /// Devices, by any of their names.
    #[serde(default)]
    members: Vec<String>,
    /// What it is for.
    #[serde(default)]
    description: String,
    /// For the audit.
    reason: String,
}

/// Makes a group of devices, or makes it another.
#[utoipa::path(
    put, path = "/api/device-groups/{name}", tag = "devices", request_body = NewGroup,
    params(("name" = String, Path, description = "The group.")),
    responses((status = 200, description = "It is what was said.", body = Done))
)]
pub(crate) async fn put_group(
    State(api): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Link)?;
    actor.whole("a group")?;
    if name.trim() != name || name.is_empty() || name.len() > 64 || name.contains(|c: char| c.is_control() || c == '*')
    {
        return Err(bad("a group's name has 1 to 64 bytes, no * and no blanks around it"));
    }
    let new: NewGroup = body(request).await?;
    let view = api.engine.live().view();
    match &new.condition {
        Some(_) if !new.members.is_empty() => return Err(bad("a group has a condition or members, not both")),
        Some(condition) => {
            let refused = |e: QueryError| match e {
                QueryError::Language(e) => refuse(&placed(e, condition).into(), condition),
                e => refuse(&e, condition),
            };
            check(condition).map_err(|e| refused(e.into()))?;
            let query = members(condition).map_err(|e| refused(e.into()))?;
            api.engine.plan(&actor, &query, &view).map_err(refused)?;
        }
        None if new.members.len() > MAX_MEMBERS => {
            return Err(bad(&format!("a group lists {MAX_MEMBERS} devices at most; a condition has no bound")));
        }
        None => {}
    }
    let groups = view.rows::<DeviceGroup>(&actor.tenant);
    if groups.len() >= MAX_GROUPS && !groups.iter().any(|g| g.name == name) {
        return Err(bad(&format!("a tenant has {MAX_GROUPS} groups at most")));
    }
    let members: BTreeSet<String> = new.members.into_iter().collect();
    let fact = Fact::DeviceGroup(Stated {
        tenant: actor.tenant.clone(),
        name,
        condition: new.condition,
        members: members.into_iter().collect(),
        description: new.description,
        actor: actor.as_fact(),
        reason: new.reason,
    });
    api.done(&actor, &fact).await
}

/// Removes a group of devices; they stay.
#[utoipa::path(
    delete, path = "/api/device-groups/{name}", tag = "devices", request_body(content = Option<Why>),
    params(("name" = String, Path, description = "The group.")),
    responses((status = 200, description = "It is gone.", body = Done))
)]
pub(crate) async fn remove_group(
    State(api): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Link)?;
    actor.whole("a group")?;
    let why: Why = optional_body(request).await?;
    let view = api.engine.live().view();
    if !view.rows::<DeviceGroup>(&actor.tenant).iter().any(|g| g.name == name) {
        return Err(not_found(&format!("there is no group {name}")));
    }
    let gone = Fact::DeviceGroupGone { tenant: actor.tenant.clone(), name, actor: actor.as_fact(), reason: why.reason };
    api.done(&actor, &gone).await
}
