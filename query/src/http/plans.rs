//! Plans of what inventories would change: made, applied, forgotten.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::ports::{InventoryRun, ReadError, RunOf};
use radarflow_reconcile::access::Action;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::http::inventories::Became;
use crate::http::problem::{not_durable, not_found, problem};
use crate::http::{Api, Shared};
use crate::records::notes::Noted;
use crate::records::plan::Plan;

impl Api {
    /// Begins a run that is noted, to be planned.
    pub(crate) fn noted(&self, of: RunOf) -> Noted {
        let partial = (self.partial)(&of.tenant, of.kind, &of.speaker());
        Noted::begin(self.inventories.begin(of.clone()), of, (self.instances)(), partial, &self.plans)
    }
}

/// How long it is waited for that a plan is read.
const PLAN_WAIT: Duration = Duration::from_secs(60);

/// What became of a plan.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlanApplied {
    /// The epoch it was released at.
    epoch: u64,
    /// Whose run it is: `netbox/main`, as it was imported.
    source: String,
    /// Its run.
    run: String,
    #[serde(flatten)]
    became: Became,
}

/// Asks an inventory of the configuration for everything it lists, and tells what would change.
#[utoipa::path(
    post, path = "/api/inventories/{name}/{instance}/plan", tag = "inventories",
    params(
        ("name" = String, Path, description = "armis, netbox"),
        ("instance" = String, Path, description = "Which of them."),
    ),
    responses((status = 200, description = "What would change.", body = Plan))
)]
pub(crate) async fn plan_inventory(
    State(api): State<Shared>,
    Path((name, instance)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Import)?;
    actor.whole("an inventory of the configuration")?;
    let Some(of) = api.asked.run_of(&actor.tenant, &name, &instance) else {
        let detail = format!("the configuration has no inventory {name}/{instance} under [sources]");
        return Err(not_found(&detail));
    };
    let mut noted = api.noted(of.clone());
    if let Err(error) = api.asked.read(&of, &mut noted).await {
        let _ = Box::new(noted).discard().await;
        return Err(match error {
            ReadError::Append(error) => not_durable(&error),
            ReadError::Source(detail) => problem(StatusCode::BAD_GATEWAY, "source_unreadable", &detail, json!({})),
        });
    }
    Ok(axum::Json(api.plans.planned(&api.finder(), noted, true).await?).into_response())
}

/// Applies a plan, if it still is one: exactly what it said, or nothing.
#[utoipa::path(
    post, path = "/api/plans/{digest}/apply", tag = "inventories",
    params(("digest" = String, Path, description = "The plan.")),
    responses((status = 200, description = "What became of it.", body = PlanApplied))
)]
pub(crate) async fn apply_plan(
    State(api): State<Shared>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Import)?;
    actor.whole("a plan")?;
    let mut outcomes = api.outcomes.subscribe();
    let (epoch, of) = api.plans.apply(&api.finder(), &actor, digest).await?;
    let became = api.became(&mut outcomes, &of, PLAN_WAIT).await;
    let source = format!("{}/{}", of.name, of.instance);
    Ok(axum::Json(PlanApplied { epoch, source, run: of.run, became }).into_response())
}

/// Forgets a plan.
#[utoipa::path(
    delete, path = "/api/plans/{digest}", tag = "inventories",
    params(("digest" = String, Path, description = "The plan.")),
    responses((status = 204, description = "It is forgotten."))
)]
pub(crate) async fn forget_plan(
    State(api): State<Shared>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Import)?;
    actor.whole("a plan")?;
    api.plans.forget(&actor.tenant, &digest).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
