//! What operators do with alerts: the steps of their life, one or many at once; why each is told, or is not; what a silence would
//! hide; messages that were not taken.

use std::collections::BTreeMap;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{AlertStatus, Fact};
use radarflow_proto::payload::instant_us;
use radarflow_proto::rows::{Alert, AlertNotification, DeadLetter, Receiver, Table};
use radarflow_reconcile::access::{Action, sees};
use radarflow_reconcile::alert::allowed;
use radarflow_reconcile::resources;
use radarflow_reconcile::routing::Matcher;
use radarflow_reconcile::routing::matcher::all_match;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::engine::encode::json_rows;
use crate::http::commands::command_id;
use crate::http::problem::{not_found, problem, refuse};
use crate::http::request::{Why, body, optional_body};
use crate::http::{Api, Shared};
use crate::tables::view::View;

/// Alerts that are moved at once.
const MAX_STEPS: usize = 1000;
/// Rows of each history that an explanation has.
const TOLD: usize = 200;

/// What a step is called.
const STEPS: &str = "acknowledge, escalate, resolve, suppress, reopen, comment";

/// Where an alert is now.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stepped {
    /// Its status.
    status: String,
    /// Since when.
    epoch: u64,
}

/// Why, and until when.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StepAsked {
    /// For the history of the alert; what a comment says.
    #[schema(max_length = 2000)]
    reason: String,
    /// Until when a suppressed alert is so, RFC 3339.
    until: Option<String>,
}

/// A step of many alerts.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StepsAsked {
    /// acknowledge, escalate, resolve, suppress, reopen or comment.
    step: String,
    /// The alerts.
    ids: Vec<String>,
    /// Or all that are like this.
    filter: Option<AlertFilter>,
    /// For the history of the alerts; what a comment says.
    #[schema(max_length = 2000)]
    reason: String,
    /// Until when suppressed alerts are so, RFC 3339.
    until: Option<String>,
}

/// Alerts that are like this; all that is said must hold.
#[derive(Deserialize, Serialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AlertFilter {
    status: Option<String>,
    severity: Option<String>,
    rule: Option<String>,
    source_id: Option<String>,
    device_uid: Option<String>,
    partition: Option<String>,
    /// What labels must be, each `name="value"`, `!=`, `=~` or `!~`.
    matchers: Vec<String>,
}

/// What became of many steps.
#[derive(Serialize, ToSchema)]
pub(crate) struct SteppedAll {
    /// Since when.
    epoch: u64,
    /// The alerts that are there now.
    done: Vec<String>,
    /// Those that are not, and why.
    refused: BTreeMap<String, String>,
}

/// What a step asks for.
enum Step {
    To(AlertStatus),
    Comment,
}

impl Step {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "acknowledge" => Step::To(AlertStatus::Acknowledged),
            "resolve" => Step::To(AlertStatus::Resolved),
            "escalate" => Step::To(AlertStatus::Escalated),
            "suppress" => Step::To(AlertStatus::Suppressed),
            "reopen" => Step::To(AlertStatus::Pending),
            "comment" => Step::Comment,
            _ => return None,
        })
    }

    fn fact(&self, actor: &Actor, alert_id: String, asked: &StepAsked, until_ms: Option<i64>, command: &str) -> Fact {
        let (tenant, by, command_id) = (actor.tenant.clone(), actor.as_fact(), command.to_owned());
        match self {
            Step::To(to) => {
                let reason = asked.reason.clone();
                Fact::AlertStep { tenant, alert_id, to: *to, until_ms, actor: by, reason, command_id }
            }
            Step::Comment => Fact::AlertComment { tenant, alert_id, actor: by, text: asked.reason.clone(), command_id },
        }
    }

    /// Until when, where that can be said of it.
    #[allow(clippy::result_large_err)]
    fn until_ms(&self, asked: &StepAsked) -> Result<Option<i64>, Response> {
        let wrong =
            |detail: &str| problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail, json!({"pointer": "/until"}));
        if asked.reason.len() > 2000 {
            let detail = "a reason has at most 2000 bytes";
            return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail, json!({"pointer": "/reason"})));
        }
        if matches!(self, Step::Comment) && asked.reason.trim().is_empty() {
            let detail = "a comment says something: `reason`";
            return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail, json!({"pointer": "/reason"})));
        }
        let Some(until) = &asked.until else { return Ok(None) };
        if !matches!(self, Step::To(AlertStatus::Suppressed)) {
            return Err(wrong("only what is suppressed is so until a time"));
        }
        let instant = instant_us(&json!(until)).ok_or_else(|| wrong("it is an instant, RFC 3339"))?;
        Ok(Some(instant / 1000))
    }
}

/// Takes an alert a step on, or says something of it.
#[utoipa::path(
    post, path = "/api/alerts/{id}/{step}", tag = "alerts", request_body(content = Option<StepAsked>),
    params(
        ("id" = String, Path, description = "The alert."),
        ("step" = String, Path, description = "acknowledge, escalate, resolve, suppress, reopen, comment"),
    ),
    responses((status = 200, description = "Where it is now.", body = Stepped))
)]
pub(crate) async fn step_alert(
    State(api): State<Shared>,
    Path((id, step)): Path<(String, String)>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::StepAlert)?;
    let step = Step::named(&step).ok_or_else(|| not_found(&format!("steps are {STEPS}")))?;
    let asked: StepAsked = optional_body(request).await?;
    let until_ms = step.until_ms(&asked)?;
    seen(&api.engine.live().view(), &actor, &id)?;
    let command = command_id();
    let fact = step.fact(&actor, id.clone(), &asked, until_ms, &command);
    let epoch = api.command(&actor, &fact, &command).await?;
    let status = match step {
        Step::To(to) => to.name().to_owned(),
        Step::Comment => seen(&api.engine.live().view(), &actor, &id)?.status,
    };
    Ok(axum::Json(Stepped { status, epoch }).into_response())
}

/// The alert, if the actor may see it: one bound to partitions sees no other's alerts, and moves none.
#[allow(clippy::result_large_err)]
fn seen(view: &View, actor: &Actor, id: &str) -> Result<Alert, Response> {
    let alerts = view.rows_where::<Alert>(&actor.tenant, "id", id);
    let alert = alerts.into_iter().find(|a| sees(&actor.partitions, &a.partition));
    alert.ok_or_else(|| not_found("there is no such alert"))
}

/// Takes many alerts a step on, all in one frame.
#[utoipa::path(
    post, path = "/api/v2/alerts/steps", tag = "alerts", request_body = StepsAsked,
    responses((status = 200, description = "Which are there now, and which are not.", body = SteppedAll))
)]
pub(crate) async fn step_alerts(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::StepAlert)?;
    let StepsAsked { step, ids, filter, reason, until } = body(request).await?;
    let invalid = |pointer: &str, detail: &str| {
        problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail, json!({"pointer": pointer}))
    };
    let step = Step::named(&step).ok_or_else(|| invalid("/step", &format!("steps are {STEPS}")))?;
    let asked = StepAsked { reason, until };
    let until_ms = step.until_ms(&asked)?;
    let view = api.engine.live().view();
    let mut refused = BTreeMap::new();
    let mut chosen: Vec<String> = match (ids.is_empty(), filter) {
        (false, None) => ids,
        (true, Some(filter)) if filter.says_nothing() => {
            return Err(invalid("/filter", "it is like every alert there is; say what they are like"));
        }
        (true, Some(filter)) => filter.find(&view, &actor)?.into_iter().map(|alert| alert.id).collect(),
        _ => return Err(invalid("/ids", "say which alerts: `ids`, or a `filter`")),
    };
    chosen.sort();
    chosen.dedup();
    if chosen.len() > MAX_STEPS {
        let detail = format!("these are {} alerts; at most {MAX_STEPS} are moved at once", chosen.len());
        return Err(invalid("/filter", &detail));
    }
    chosen.retain(|id| match seen(&view, &actor, id) {
        // What is suppressed would seem to be so until the time that is said now.
        Ok(alert) if matches!(&step, Step::To(to @ AlertStatus::Suppressed) if alert.status == to.name()) => {
            refused.insert(id.clone(), "it is suppressed already; reopen it first".to_owned());
            false
        }
        Ok(_) => true,
        Err(_) => {
            refused.insert(id.clone(), "there is no such alert".to_owned());
            false
        }
    });
    let mut epoch = view.epoch;
    if !chosen.is_empty() {
        let command = command_id();
        let fact = |id: &String| step.fact(&actor, id.clone(), &asked, until_ms, &command);
        epoch = api.append_facts(&actor, &chosen.iter().map(fact).collect::<Vec<_>>()).await?;
        api.visible(epoch).await?;
    }
    let view = api.engine.live().view();
    let mut done = Vec::new();
    for id in chosen {
        let status = seen(&view, &actor, &id).map(|alert| alert.status).unwrap_or_default();
        match &step {
            Step::To(to) if status != to.name() => {
                let known = [
                    AlertStatus::Pending,
                    AlertStatus::Acknowledged,
                    AlertStatus::Escalated,
                    AlertStatus::Resolved,
                    AlertStatus::Suppressed,
                ];
                let at = known.into_iter().find(|of| of.name() == status);
                let may: Vec<&str> = at.map(allowed).unwrap_or_default().iter().map(|to| to.name()).collect();
                refused.insert(id, format!("it is {status}; allowed: {}", may.join(", ")));
            }
            _ => done.push(id),
        }
    }
    Ok(axum::Json(SteppedAll { epoch, done, refused }).into_response())
}

impl AlertFilter {
    fn says_nothing(&self) -> bool {
        let said = [&self.status, &self.severity, &self.rule, &self.source_id, &self.device_uid, &self.partition];
        self.matchers.is_empty() && said.iter().all(|said| said.is_none())
    }

    #[allow(clippy::result_large_err)]
    fn find(&self, view: &View, actor: &Actor) -> Result<Vec<Alert>, Response> {
        let matchers = matchers(&self.matchers)?;
        let like = |said: &Option<String>, is: Option<&str>| said.as_deref().is_none_or(|said| is == Some(said));
        // All that are of a tenant: of what is over, none moves.
        let alerts = match &self.status {
            Some(status) => view.rows_where::<Alert>(&actor.tenant, "status", status),
            None => view.rows_where::<Alert>(&actor.tenant, "tenant_id", &actor.tenant),
        };
        let found = alerts.into_iter().filter(|alert| {
            sees(&actor.partitions, &alert.partition)
                && like(&self.severity, Some(&alert.severity))
                && like(&self.rule, Some(&alert.rule))
                && like(&self.source_id, Some(&alert.source_id))
                && like(&self.device_uid, alert.device_uid.as_deref())
                && like(&self.partition, Some(&alert.partition))
                && all_match(&matchers, &alert.labels.0)
        });
        Ok(found.collect())
    }
}

#[allow(clippy::result_large_err)]
fn matchers(texts: &[String]) -> Result<Vec<Matcher>, Response> {
    let wrong =
        |detail: String| problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &detail, json!({"pointer": "/matchers"}));
    if texts.len() > radarflow_reconcile::routing::matcher::MAX_MATCHERS {
        return Err(wrong("there are too many matchers".to_owned()));
    }
    Matcher::read_all(texts).map_err(wrong)
}

fn instant(at: Option<Time>) -> Value {
    at.map_or(Value::Null, |at| Value::String(at.to_string()))
}

/// Tells of an alert who is told and who is not, and why: as it stands at one epoch, and what was sent before.
#[utoipa::path(
    get, path = "/api/v2/alerts/{id}/explain", tag = "alerts",
    params(("id" = String, Path, description = "The alert.")),
    responses((status = 200, description = "Where it stands with each receiver, what was sent, and its history.", body = serde_json::Map<String, Value>))
)]
pub(crate) async fn explain_alert(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let view = api.engine.live().view();
    let alert = seen(&view, &actor, &id)?;
    let mut stands = view.rows_where::<AlertNotification>(&actor.tenant, "alert_id", &id);
    stands.sort_by(|a, b| (&a.receiver, &a.group_key).cmp(&(&b.receiver, &b.group_key)));
    let receivers: Vec<Value> = stands
        .iter()
        .map(|row| {
            json!({
                "receiver": row.receiver,
                "route": row.route,
                "group_key": row.group_key,
                "state": row.state,
                "reason": row.reason,
                "until": instant(row.until),
                "told": row.told,
                "told_at": instant(row.told_at),
                "notification_id": row.notification_id,
            })
        })
        .collect();
    let status = &alert.status;
    let summary = match (status.as_str(), stands.len()) {
        ("resolved", 0) => "it is over: nobody is told of it any more, and nobody believes that it burns".to_owned(),
        ("resolved", n) => format!("it is over; receivers that are still to be told: {n}"),
        (_, 0) => {
            "no route takes it, and every receiver is named by a route or there is none: nobody is told".to_owned()
        }
        (_, n) => {
            let held = stands.iter().filter(|row| row.state == "held").count();
            format!("groups that it is told in: {n}; of these it is held in {held} now")
        }
    };
    // Both histories are those of the same epoch, if it can still be read.
    let quoted = id.replace(['\\', '\''], "");
    let told = api.told(&actor, &format!("in:notifications alert_ids:'{quoted}' sort:time:desc,row_id:asc")).await?;
    let history = api.told(&actor, &format!("in:alert_history alert_id:'{quoted}' sort:time:desc,row_id:asc")).await?;
    let until = |rows: Vec<Value>| -> Vec<Value> {
        rows.into_iter().filter(|row| row["epoch"].as_u64().is_none_or(|epoch| epoch <= view.epoch)).collect()
    };
    Ok(axum::Json(json!({
        "epoch": view.epoch,
        "alert": {
            "id": alert.id,
            "fingerprint": alert.fingerprint,
            "title": alert.title,
            "severity": alert.severity,
            "status": alert.status,
            "labels": alert.labels.0,
            "triggered_at": alert.triggered_at.to_string(),
            "escalation_level": alert.escalation_level,
            "suppressed_until": instant(alert.suppressed_until),
            "notification_count": alert.notification_count,
            "last_notification_at": instant(alert.last_notification_at),
        },
        "summary": summary,
        "receivers": receivers,
        "notifications": until(told),
        "history": until(history),
    }))
    .into_response())
}

impl Api {
    /// The newest rows of a query.
    async fn told(&self, actor: &Actor, query: &str) -> Result<Vec<Value>, Response> {
        let answer = self.engine.query(actor, query, None, Some(TOLD)).await.map_err(|e| refuse(&e, query))?;
        let rows = json_rows(&answer.batches).map_err(|e| refuse(&e, query))?;
        Ok(serde_json::from_slice(&rows).unwrap_or_default())
    }
}

/// What a silence would say.
#[derive(Deserialize, Default, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SilencePreview {
    /// What labels must be, each `name="value"`, `!=`, `=~` or `!~`; all must hold.
    matchers: Vec<String>,
}

/// Tells which alerts a silence would hide now.
#[utoipa::path(
    post, path = "/api/v2/silence-preview", tag = "alerts", request_body = SilencePreview,
    responses((status = 200, description = "The alerts that burn and match.", body = serde_json::Map<String, Value>))
)]
pub(crate) async fn preview_silence(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let asked: SilencePreview = body(request).await?;
    if asked.matchers.is_empty() {
        let detail = "a silence has at least one matcher";
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail, json!({"pointer": "/matchers"})));
    }
    let view = api.engine.live().view();
    let mut found = AlertFilter { matchers: asked.matchers, ..AlertFilter::default() }.find(&view, &actor)?;
    found.retain(|alert| alert.status != AlertStatus::Resolved.name());
    let count = found.len();
    found.truncate(TOLD);
    let alerts: Vec<Value> = found
        .into_iter()
        .map(
            |a| json!({"id": a.id, "severity": a.severity, "status": a.status, "title": a.title, "labels": a.labels.0}),
        )
        .collect();
    Ok(axum::Json(json!({"epoch": view.epoch, "count": count, "alerts": alerts})).into_response())
}

/// Has messages sent again that a receiver did not take.
#[utoipa::path(
    post, path = "/api/v2/receivers/{id}/replay", tag = "alerts", request_body(content = Option<Why>),
    params(("id" = String, Path, description = "The receiver.")),
    responses((status = 200, description = "How many are sent again.", body = serde_json::Map<String, Value>))
)]
pub(crate) async fn replay(
    State(api): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.actor(&headers)?;
    let kind = resources::of_table(Table::Receiver);
    let permission = kind.and_then(|kind| kind.permission("update"));
    if !permission.is_some_and(|permission| actor.has(&permission)) || !actor.partitions.is_empty() {
        let detail = "your role does not allow to update receivers";
        return Err(problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({})));
    }
    let why: Why = optional_body(request).await?;
    let view = api.engine.live().view();
    let letters = view.rows_where::<DeadLetter>(&actor.tenant, "receiver", &id).len();
    if letters == 0 && view.rows_where::<Receiver>(&actor.tenant, "name", &id).is_empty() {
        return Err(not_found("there is no such receiver"));
    }
    let command = command_id();
    let fact = Fact::Replay {
        tenant: actor.tenant.clone(),
        receiver: id,
        actor: actor.as_fact(),
        reason: why.reason,
        command_id: command.clone(),
    };
    let epoch = api.command(&actor, &fact, &command).await?;
    Ok(axum::Json(json!({"epoch": epoch, "replayed": letters})).into_response())
}
