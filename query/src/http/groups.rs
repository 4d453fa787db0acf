//! What operators say of groups of devices: which there are, and what is in them.

use std::collections::BTreeSet;

use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_proto::resource::{Act, Condition, Fields, Operation};
use radarflow_proto::rows::Table;
use radarflow_reconcile::access::Action;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::error::QueryError;
use crate::http::commands::Done;
use crate::http::problem::{bad, refuse};
use crate::http::request::{Why, body, optional_body};
use crate::http::resources::{Ask, judged, refused};
use crate::http::{Api, Shared};
use crate::srql::groups::{check, members, placed};

/// Devices that a group lists at most.
const MAX_MEMBERS: usize = 10_000;

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
    match &new.condition {
        Some(_) if !new.members.is_empty() => return Err(bad("a group has a condition or members, not both")),
        Some(condition) => planned(&api, &actor, condition).map_err(|error| refuse(&error, condition))?,
        None if new.members.len() > MAX_MEMBERS => {
            return Err(bad(&format!("a group lists {MAX_MEMBERS} devices at most; a condition has no bound")));
        }
        None => {}
    }
    let members: BTreeSet<String> = new.members.into_iter().collect();
    let fields: Fields = [
        ("condition", json!(new.condition)),
        ("members", json!(members)),
        ("description", json!(new.description)),
        ("reason", json!(new.reason)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    done(&api, actor, name, Act::Put { fields }, new.reason).await
}

/// Whether a condition is one of devices, and can be asked.
pub(in crate::http) fn planned(api: &Api, actor: &Actor, condition: &str) -> Result<(), QueryError> {
    let refused = |error: QueryError| match error {
        QueryError::Language(error) => placed(error, condition).into(),
        error => error,
    };
    check(condition).map_err(|error| refused(error.into()))?;
    let query = members(condition).map_err(|error| refused(error.into()))?;
    api.engine.plan(actor, &query, &api.engine.live().view()).map_err(refused)?;
    Ok(())
}

/// Has it judged; the answer comes when it is visible.
async fn done(api: &Api, actor: Actor, id: String, act: Act, reason: String) -> Result<Response, Response> {
    let resource = Table::DeviceGroup.name().to_owned();
    let operation = Operation { resource, id, act, condition: Condition::Any, owner: String::new() };
    let ask = Ask { principal: actor.principal, reason, operations: vec![operation], force: false, key: None };
    let judgement = judged(api, &actor.tenant, ask).await?;
    match judgement.outcome {
        Ok(_) => Ok(axum::Json(Done { epoch: judgement.epoch }).into_response()),
        Err(refusal) => Err(refused(&refusal, judgement.epoch, false)),
    }
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
    done(&api, actor, name, Act::Delete, why.reason).await
}
