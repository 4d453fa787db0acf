//! Rules over the past: when one would have held, had it stood.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_proto::cell::Time;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use radarflow_reconcile::access::Action;
use radarflow_reconcile::alert::Life;
use radarflow_reconcile::resources::named;
use radarflow_reconcile::routing::rehearse::Change;
use radarflow_reconcile::rules::Rule;
use radarflow_reconcile::rules::past::Found;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::Shared;
use crate::http::problem::{self, bad};
use crate::http::request::body;
use crate::http::routing::{self, Rehearsal, Stated, since_us};
use crate::srql::parse::parse;

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
    /// Routes, silences and times that would be otherwise, for who would have been told.
    #[serde(default)]
    resources: Vec<Stated>,
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
    /// Who would have been told of these, if nothing else had burnt. Not for those who are bound to partitions.
    told: Option<Rehearsal>,
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
    let Trial { rule, name, since, resources } = body(request).await?;
    let refuse = |detail: String| bad(&detail);
    let since_us = since_us(since.as_deref(), MAX_SINCE_US)?;
    let kind = named(Table::Rule.name()).ok_or_else(|| refuse("there are no rules".to_owned()))?;
    let (fields, _) = kind
        .read_all(&rule.into_iter().collect(), true)
        .map_err(|wrong| refuse(format!("{}: {}", wrong.field.unwrap_or("rule"), wrong.detail)))?;
    let id = name.unwrap_or_else(|| "rule".to_owned());
    let resource = Resource::of(Table::Rule, &actor.tenant, &id, fields);
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
    let tried = api.engine.rehearse(&actor, rule.clone(), &asks, (from_us, to_us)).await;
    let tried = tried.map_err(|error| problem::refuse(&error, resource.text("query").unwrap_or_default()))?;
    let told = match actor.partitions.is_empty() {
        true => {
            let lives: Vec<(Life, Option<i64>)> = tried.found.iter().map(|found| life(&rule, found)).collect();
            let happened = lives.iter().flat_map(|(life, ended_ms)| changes(life, *ended_ms)).collect();
            let titles = lives.iter().map(|(life, _)| (life.id(), life.condition.title.clone())).collect();
            Some(routing::told(&api, &actor, &resources, happened, titles, (from_us, to_us)).await?)
        }
        false => None,
    };
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
        told,
    };
    Ok(axum::Json(answer).into_response())
}

/// The alert that there would have been, and when it would have been over.
fn life(rule: &Rule, found: &Found) -> (Life, Option<i64>) {
    let (subject, condition) = found.says.condition(rule);
    (Life::begin(subject, condition, Time::from_ms(found.began_ms)), found.ended_ms)
}

/// What would have become of it; nobody takes it, and time escalates it.
fn changes(life: &Life, ended_ms: Option<i64>) -> Vec<Change> {
    let change = |life: &Life, at_ms| Change { at_ms, id: life.id(), burning: Some(life.burning()) };
    let mut life = life.clone();
    let mut changes = vec![change(&life, life.began.ms())];
    while let Some(due) = life.due_ms().filter(|due| ended_ms.is_none_or(|ended| *due < ended)) {
        if life.wait(Time::from_ms(due)).is_none() {
            break;
        }
        changes.push(change(&life, due));
    }
    changes.extend(ended_ms.map(|at_ms| Change { at_ms, id: life.id(), burning: None }));
    changes
}
