//! Routes, silences and times over the past: who would have been told of the alerts that there were, or would have been, and how often;
//! beside how often they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use radarflow_proto::cell::Time;
use radarflow_proto::fact::{AlertStatus, ReceiverKind};
use radarflow_proto::payload::NotifiedAlert;
use radarflow_proto::resource::{Fields, Resource};
use radarflow_proto::rows::{Alert, Device, Table};
use radarflow_reconcile::access::Action;
use radarflow_reconcile::resources::{ResourceKind, named};
use radarflow_reconcile::routing::policy::READ;
use radarflow_reconcile::routing::rehearse::{Change, Rehearsed, rehearse};
use radarflow_reconcile::routing::{Burning, Hold};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::actor::Actor;
use crate::engine::encode::json_rows;
use crate::http::problem::{bad, problem, refuse};
use crate::http::request::body;
use crate::http::{Api, Shared};
use crate::srql::time::duration;
use crate::tables::view::View;

/// The longest past that is gone through, microseconds: alerts that are over are kept for so long.
const MAX_SINCE_US: i64 = 30 * 86_400_000_000;
/// Messages that are told of one by one.
const MAX_TOLD: usize = 1000;
/// Alerts that nobody is told of, told of one by one.
const MAX_UNTOLD: usize = 100;
/// A group is told again no sooner, milliseconds.
const LEAST_REPEAT_MS: i64 = 60_000;
/// Resources that are stated for a rehearsal.
const MAX_STATED: usize = 2000;

/// A resource as it would be.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stated {
    /// Its kind: `routes`, `silences`, `inhibit_rules`, `time_intervals`, `maintenance_windows`, `receivers`,
    /// `escalation_policies`, `rotas`, `rota_overrides`.
    kind: String,
    /// Its name.
    name: String,
    /// Its fields, as `/api/v2` takes them; without any it is as if it did not stand.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    fields: Option<Map<String, Value>>,
}

/// Resources as they would be, and since when.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoutingTrial {
    /// Those that would be otherwise; the others are as they stand.
    #[serde(default)]
    resources: Vec<Stated>,
    /// How far back: `7d`, `24h`; a day where nothing is said.
    #[serde(default)]
    since: Option<String>,
}

/// How often a receiver would have been told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Told {
    /// The receiver.
    receiver: String,
    /// Messages.
    messages: u64,
    /// Of these, such that tell that something burns.
    firing: u64,
    /// Alerts in them, each once.
    alerts: usize,
    /// Messages that it really was sent in that time.
    really: u64,
}

/// A message that there would have been.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Message {
    /// When, RFC 3339.
    at: String,
    /// Who would have been told.
    receiver: String,
    /// Why then.
    reason: String,
    /// Alerts that it tells burn.
    firing: Vec<String>,
    /// Alerts that it tells are over.
    resolved: Vec<String>,
}

/// An alert that nobody would have been told of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Untold {
    /// Its id.
    alert: String,
    /// Its title.
    title: String,
    /// Why.
    why: String,
}

/// Who would have been told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rehearsal {
    /// From when on, RFC 3339.
    from: String,
    /// Until when.
    to: String,
    /// Alerts that burnt in that time.
    alerts: usize,
    /// How often each receiver.
    receivers: Vec<Told>,
    /// The first thousand messages.
    messages: Vec<Message>,
    /// The first hundred alerts that began in that time and that nobody would have been told of.
    untold: Vec<Untold>,
    /// How many these are.
    untold_in_all: usize,
    /// There was more than is gone through: what is told ends before its time.
    cut: bool,
}

/// Tells who would have been told of the alerts that there were, and how often, had these routes, silences and times stood. Alerts are
/// taken with the times at which they began, were acknowledged, escalated and over. Nothing is applied, nobody is told.
#[utoipa::path(
    post, path = "/api/v2/routing-test", tag = "alerts", request_body = RoutingTrial,
    responses((status = 200, description = "Who would have been told, beside who was.", body = Rehearsal))
)]
pub(crate) async fn test(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    if !actor.partitions.is_empty() {
        let detail = "who is told is the whole tenant's, and you are bound to partitions";
        return Err(problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({})));
    }
    let RoutingTrial { resources, since } = body(request).await?;
    let since_us = since_us(since.as_deref(), MAX_SINCE_US)?;
    let view = api.engine.live().view();
    let to_us = view.clock_ms * 1000;
    let mut alerts = view.rows::<Alert>(&actor.tenant);
    let from = Time(to_us - since_us);
    alerts.retain(|alert| alert.status != AlertStatus::Resolved.name() || alert.resolved_at.is_none_or(|at| at > from));
    let happened = alerts.iter().flat_map(changes).collect();
    let titles = alerts.into_iter().map(|alert| (alert.id, alert.title)).collect();
    let answer = told(&api, &actor, &resources, happened, titles, (from.0, to_us)).await?;
    Ok(axum::Json(answer).into_response())
}

/// A span of time that somebody asks for, microseconds; a day where nothing is said.
#[allow(clippy::result_large_err)]
pub(super) fn since_us(said: Option<&str>, most: i64) -> Result<i64, Response> {
    match said.map(|text| (text, duration(text))) {
        None => Ok(86_400_000_000),
        Some((_, Some(us))) if us <= most => Ok(us),
        Some(_) if said.and_then(duration).is_some() => {
            Err(bad(&format!("since: {} days at most", most / 86_400_000_000)))
        }
        Some((text, _)) => Err(bad(&format!("since: {text:?} is no span of time, as 7d or 24h"))),
    }
}

/// What became of an alert, as its row tells.
fn changes(alert: &Alert) -> Vec<Change> {
    let burning = |taken, level, suppressed| Burning {
        alert: NotifiedAlert {
            id: alert.id.clone(),
            fingerprint: alert.fingerprint.clone(),
            labels: alert.labels.0.clone(),
            annotations: BTreeMap::new(),
            starts_at_ms: alert.triggered_at.ms(),
            ends_at_ms: None,
        },
        partition: alert.partition.clone(),
        device_uid: alert.device_uid.clone(),
        suppressed,
        taken,
        level,
    };
    let mut steps = vec![(alert.triggered_at, Some(burning(false, 0, None)))];
    let taken = alert.acknowledged_at.is_some_and(|at| alert.escalated_at.is_none_or(|escalated| escalated <= at));
    steps.extend(alert.escalated_at.map(|at| (at, Some(burning(false, alert.escalation_level, None)))));
    steps.extend(alert.acknowledged_at.map(|at| (at, Some(burning(taken, alert.escalation_level, None)))));
    if let Some(by) = &alert.suppressed_by {
        let hold = Hold { why: format!("suppressed by {by}"), until_ms: alert.suppressed_until.map(Time::ms) };
        let last = steps.iter().map(|(at, _)| *at).max().unwrap_or(alert.triggered_at);
        steps.push((last, Some(burning(false, alert.escalation_level, Some(hold)))));
    }
    if alert.status == AlertStatus::Resolved.name() {
        steps.extend(alert.resolved_at.map(|at| (at, None)));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps.into_iter().map(|(at, burning)| Change { at_ms: at.ms(), id: alert.id.clone(), burning }).collect()
}

/// Goes through what happened to alerts, whose titles are given by their ids.
pub(super) async fn told(
    api: &Api,
    actor: &Actor,
    stated: &[Stated],
    mut happened: Vec<Change>,
    titles: BTreeMap<String, String>,
    (from_us, to_us): (i64, i64),
) -> Result<Rehearsal, Response> {
    let view = api.engine.live().view();
    let resources = standing(&view, actor, stated)?;
    happened.sort_by(|a, b| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
    let uids: BTreeSet<&str> =
        happened.iter().filter_map(|change| change.burning.as_ref()?.device_uid.as_deref()).collect();
    let devices: Vec<Arc<Device>> =
        view.rows_where_any::<Device>(&actor.tenant, "uid", &uids).into_iter().map(Arc::new).collect();
    let alerts = titles.len();
    let span = (from_us.div_euclid(1000), to_us.div_euclid(1000));
    let gone_through = async move { Ok(rehearse(&resources, devices, happened, span)) };
    let found = api.engine.on_threads(gone_through).await.map_err(|error| refuse(&error, ""))?;
    let really = really(api, actor, (from_us, to_us)).await?;
    let Rehearsed { messages, receivers, untold, too_much } = found;
    let names: BTreeSet<&String> = receivers.keys().chain(really.keys()).collect();
    let tally = |name: &String| {
        let tally = receivers.get(name).cloned().unwrap_or_default();
        Told {
            receiver: name.clone(),
            messages: tally.messages,
            firing: tally.firing,
            alerts: tally.alerts.len(),
            really: really.get(name).copied().unwrap_or(0),
        }
    };
    let told = names.into_iter().map(tally).collect();
    let messages = messages.into_iter().take(MAX_TOLD).map(|message| {
        let (firing, resolved): (Vec<_>, Vec<_>) = message.alerts.into_iter().partition(|(_, burns)| *burns);
        let ids = |alerts: Vec<(String, bool)>| alerts.into_iter().map(|(id, _)| id).collect();
        Message {
            at: Time::from_ms(message.at_ms).to_string(),
            receiver: message.receiver,
            reason: message.reason,
            firing: ids(firing),
            resolved: ids(resolved),
        }
    });
    let untold_in_all = untold.len();
    let nobody = untold.into_iter().take(MAX_UNTOLD).map(|(id, why)| Untold {
        title: titles.get(&id).cloned().unwrap_or_default(),
        alert: id,
        why: why.unwrap_or_else(|| "no receiver is reached, or it was over before it was told".to_owned()),
    });
    Ok(Rehearsal {
        from: Time(from_us).to_string(),
        to: Time(to_us).to_string(),
        alerts,
        receivers: told,
        messages: messages.collect(),
        untold: nobody.collect(),
        untold_in_all,
        cut: too_much,
    })
}

/// How many messages each receiver was really sent.
async fn really(api: &Api, actor: &Actor, (from_us, to_us): (i64, i64)) -> Result<BTreeMap<String, u64>, Response> {
    let query = format!(
        "in:notifications outcome:delivered time:[{},{}] stats:\"count() as messages by receiver\" limit:1000",
        Time(from_us),
        Time(to_us)
    );
    let answer = api.engine.query(actor, &query, None, Some(1000)).await.map_err(|error| refuse(&error, &query))?;
    let rows = json_rows(&answer.batches).map_err(|error| refuse(&error, &query))?;
    let rows: Vec<Value> = serde_json::from_slice(&rows).unwrap_or_default();
    let of = |row: &Value| Some((row["receiver"].as_str()?.to_owned(), row["messages"].as_u64()?));
    Ok(rows.iter().filter_map(of).collect())
}

/// The resources that say who is told, with those that are stated in the place of theirs.
#[allow(clippy::result_large_err)]
fn standing(view: &View, actor: &Actor, stated: &[Stated]) -> Result<Vec<Arc<Resource>>, Response> {
    if stated.len() > MAX_STATED {
        return Err(bad(&format!("{MAX_STATED} resources at most")));
    }
    let mut found: BTreeMap<(&'static str, String), Arc<Resource>> = BTreeMap::new();
    for kind in READ.iter().filter_map(|table| named(table.name())) {
        if !kind.permission("read").is_some_and(|permission| actor.has(&permission)) {
            let detail = format!("your role does not allow to read {}", kind.name());
            return Err(problem(StatusCode::FORBIDDEN, "forbidden", &detail, json!({})));
        }
        let columns: Vec<&str> = kind.table.columns().iter().map(|column| column.name).collect();
        let rows = json_rows(&view.columns(&actor.tenant, kind.table, &columns)).unwrap_or_default();
        let rows: Vec<Map<String, Value>> = serde_json::from_slice(&rows).unwrap_or_default();
        for row in rows {
            let (id, by) = (text(&row, kind.id), text(&row, "created_by"));
            let said = row.into_iter().filter(|(name, value)| !value.is_null() && kind.field(name).is_some()).collect();
            if let Ok(resource) = resource(actor, kind, &id, &by, said) {
                found.insert((kind.name(), id), resource);
            }
        }
    }
    for Stated { kind, name, fields } in stated {
        let kind = READ.iter().filter_map(|table| named(table.name())).find(|of| of.name() == kind);
        let Some(kind) = kind else {
            let kinds: Vec<&str> = READ.iter().copied().map(Table::name).collect();
            return Err(bad(&format!("{name}: its kind is one of {}", kinds.join(", "))));
        };
        let key = (kind.name(), name.clone());
        match fields {
            None => drop(found.remove(&key)),
            Some(fields) => {
                let said = fields.clone().into_iter().collect();
                let wrong = |why: String| bad(&format!("{} {name}: {why}", kind.singular));
                drop(found.insert(key, resource(actor, kind, name, &actor.name, said).map_err(wrong)?));
            }
        }
    }
    Ok(found.into_values().collect())
}

fn text(row: &Map<String, Value>, name: &str) -> String {
    row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A resource that says this. Nobody is sent anything: a receiver needs no address.
fn resource(
    actor: &Actor,
    kind: &'static ResourceKind,
    id: &str,
    by: &str,
    mut said: Fields,
) -> Result<Arc<Resource>, String> {
    let needed = kind.fields.iter().filter(|field| field.secret.is_some() && field.required);
    let mut secrets = BTreeMap::new();
    for field in needed {
        said.entry(field.name.to_owned()).or_insert_with(|| "http://nobody".into());
        secrets.insert(field.name.to_owned(), "http://nobody".to_owned());
    }
    let (mut fields, _) = kind
        .read_all(&said, true)
        .map_err(|wrong| wrong.field.map_or(wrong.detail.clone(), |field| format!("{field}: {}", wrong.detail)))?;
    if kind.table == Table::Receiver {
        // What only keeps an Alertmanager from forgetting is not told of; and whatever repeats, time goes on.
        fields.insert("kind".to_owned(), ReceiverKind::Alertmanager.name().into());
        let repeat = fields.get("repeat_interval_ms").and_then(Value::as_i64).unwrap_or_default();
        fields.insert("repeat_interval_ms".to_owned(), repeat.max(LEAST_REPEAT_MS).into());
    }
    Ok(Arc::new(Resource { secrets, created_by: by.to_owned(), ..Resource::of(kind.table, &actor.tenant, id, fields) }))
}
