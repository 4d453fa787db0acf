//! Rules over the past: when one would have held, had it stood.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_proto::cell::Time;
use radarflow_proto::resource::{Resource, Shown};
use radarflow_proto::rows::Table;
use radarflow_reconcile::access::Action;
use radarflow_reconcile::resources::named;
use radarflow_reconcile::rules::Rule;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::Shared;
use crate::http::problem::{self, bad};
use crate::http::request::body;
use crate::srql::parse::parse;
use crate::srql::time::duration;

/// The longest past that a rule is tried on, microseconds.
const MAX_SINCE_US: i64 = 92 * 86_400_000_000;

/// A rule, and since when it is tried.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Trial {
    /// The fields of the rule, as `/api/v2/rules` takes them: `query` at least.
    #[schema(value_type = Object)]
    rule: Map<String, Value>,
    /// What it is called.
    #[serde(default)]
    name: Option<String>,
    /// How far back: `7d`, `24h`; a day where nothing is said.
    #[serde(default)]
    since: Option<String>,
}

/// What there would have been.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tried {
    /// From when on it was tried, RFC 3339.
    from: String,
    /// Until when.
    to: String,
    /// Rows that are like its filter.
    rows: u64,
    /// Alerts that there would have been.
    alerts: usize,
    /// How often a group found no room.
    groups_refused: u64,
    /// The first ten thousand of them.
    found: Vec<Alert>,
}

/// An alert that there would have been.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Alert {
    /// When it would have begun, RFC 3339.
    began: String,
    /// When it would have been over; null where it would still be.
    ended: Option<String>,
    /// Its title.
    title: String,
    /// More of it.
    description: String,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// The device it would have been about.
    device_uid: Option<String>,
}

/// Tells when a rule over events would have held, had it stood: over the rows in memory and in the lake, to the second. Nothing is
/// applied, nobody is told.
#[utoipa::path(
    post, path = "/api/rules/test", tag = "alerts", request_body = Trial,
    responses((status = 200, description = "The alerts that there would have been.", body = Tried))
)]
pub(crate) async fn test(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let Trial { rule, name, since } = body(request).await?;
    let refuse = |detail: String| bad(&detail);
    let since_us = match since.as_deref().map(|text| (text, duration(text))) {
        None => 86_400_000_000,
        Some((_, Some(us))) if us <= MAX_SINCE_US => us,
        Some((_, Some(_))) => return Err(refuse("since: a rule is tried on the last 92 days at most".to_owned())),
        Some((text, None)) => return Err(refuse(format!("since: {text:?} is no span of time, as 7d or 24h"))),
    };
    let kind = named(Table::Rule.name()).ok_or_else(|| refuse("there are no rules".to_owned()))?;
    let (fields, _) = kind
        .read_all(&rule.into_iter().collect(), true)
        .map_err(|wrong| refuse(format!("{}: {}", wrong.field.unwrap_or("rule"), wrong.detail)))?;
    let id = name.unwrap_or_else(|| "rule".to_owned());
    let resource = Resource {
        resource: Table::Rule.name().to_owned(),
        tenant: actor.tenant.clone(),
        id,
        fields: Shown(fields),
        secrets: BTreeMap::new(),
        owner: String::new(),
        created_us: 0,
        created_by: String::new(),
        updated_us: 0,
        updated_by: String::new(),
        epoch: 0,
    };
    let rule = Rule::of(&resource).map_err(|(field, why)| refuse(format!("{field}: {why}")))?;
    if rule.span_ms.is_none() {
        let detail = format!(
            "{} are current state, of which no past is tried; ask the query with at: for what held",
            rule.entity.name
        );
        return Err(refuse(detail));
    }
    let asks = parse(resource.text("query").unwrap_or_default()).map_err(|error| refuse(error.to_string()))?;
    let to_us = api.engine.live().view().clock_ms * 1000;
    let from_us = to_us - since_us;
    let tried = api.engine.rehearse(&actor, rule, &asks, (from_us, to_us)).await;
    let tried = tried.map_err(|error| problem::refuse(&error, resource.text("query").unwrap_or_default()))?;
    let instant = |ms: i64| Time::from_ms(ms).to_string();
    let found = tried.found.into_iter().map(|found| Alert {
        began: instant(found.began_ms),
        ended: found.ended_ms.map(instant),
        title: found.says.title,
        description: found.says.description,
        labels: found.says.labels,
        device_uid: found.says.device_uid,
    });
    let answer = Tried {
        from: Time(from_us).to_string(),
        to: Time(to_us).to_string(),
        rows: tried.rows,
        alerts: tried.alerts,
        groups_refused: tried.refused,
        found: found.collect(),
    };
    Ok(axum::Json(answer).into_response())
}
