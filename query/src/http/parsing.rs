//! What a parsing rule would make of the newest log messages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use radarflow_proto::syslog::SEVERITIES;
use radarflow_reconcile::access::Action;
use radarflow_reconcile::parsing::ParsingRule;
use radarflow_reconcile::resources::named;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::engine::encode::json_rows;
use crate::http::Shared;
use crate::http::problem::{bad, refuse};
use crate::http::request::body;

/// Messages that are looked at, and the most that are.
const LINES: usize = 500;
const MAX_LINES: usize = 2000;
/// Messages that are told of one by one.
const TOLD: usize = 20;
/// How long they are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Rules that are tried at a time, and how long one waits for its turn.
static TURNS: Semaphore = Semaphore::const_new(1);
const TURN: Duration = Duration::from_secs(10);

/// A rule, and how many messages it is tried on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParsingTrial {
    /// The fields of the rule, as `/api/v2/parsing_rules` takes them: `pattern` at least.
    #[schema(value_type = Object)]
    rule: Map<String, Value>,
    /// How many of the newest messages; a thousand where nothing is said.
    #[serde(default)]
    lines: Option<usize>,
}

/// What it would make of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParsingTried {
    /// Messages that were looked at; fewer than there are where it took too long. Those whose text a rule made are left out.
    lines: usize,
    /// Those that are of its programs and senders.
    about: usize,
    /// Those of these that match.
    matched: usize,
    /// The first of those that match.
    found: Vec<ParsedLine>,
    /// The first of those that it is about and that do not.
    unmatched: Vec<String>,
}

/// A message, and what the rule makes of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ParsedLine {
    /// The message.
    body: String,
    /// What its groups found.
    attributes: BTreeMap<String, String>,
    /// The severity there would be; null where it stays.
    severity: Option<&'static str>,
    /// The message there would be; null where it stays.
    parsed_body: Option<String>,
}

/// Tells what a parsing rule would make of the newest log messages. Nothing is stated.
#[utoipa::path(
    post, path = "/api/parsing-rules/preview", tag = "logs", request_body = ParsingTrial,
    responses((status = 200, description = "What it would make of them.", body = ParsingTried))
)]
pub(crate) async fn preview(
    State(api): State<Shared>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Query)?;
    let ParsingTrial { rule, lines } = body(request).await?;
    let lines = lines.unwrap_or(LINES).clamp(1, MAX_LINES);
    let kind = named(Table::ParsingRule.name()).ok_or_else(|| bad("there are no parsing rules"))?;
    let (fields, _) = kind
        .read_all(&rule.into_iter().collect(), true)
        .map_err(|wrong| bad(&format!("{}: {}", wrong.field.unwrap_or("rule"), wrong.detail)))?;
    let resource = Resource::of(Table::ParsingRule, &actor.tenant, "preview", fields);
    let rule = ParsingRule::read(&resource).map_err(|(field, why)| bad(&format!("{field}: {why}")))?;
    let fields = "service_name,source_ip,body,parsed_by,raw";
    let query = format!("in:logs time:last_7d fields:{fields} sort:time:desc limit:{lines}");
    let turn = tokio::time::timeout(TURN, TURNS.acquire()).await;
    let turn = turn.ok().and_then(Result::ok).ok_or_else(|| bad("others are being tried: try again in a moment"))?;
    let answer = api.engine.query(&actor, &query, None, Some(lines)).await.map_err(|error| refuse(&error, &query))?;
    let rows = json_rows(&answer.batches).map_err(|error| refuse(&error, &query))?;
    drop(answer);
    // Its turn lasts as long as it is looked at, whoever is still waiting.
    let tried = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        tried(&rule, &rows)
    });
    let tried = tried.await;
    Ok(axum::Json(tried.map_err(|_| bad("it could not be tried"))?).into_response())
}

fn tried(rule: &ParsingRule, rows: &[u8]) -> ParsingTried {
    let rows: Vec<Map<String, Value>> = serde_json::from_slice(rows).unwrap_or_default();
    let mut tried = ParsingTried { lines: 0, about: 0, matched: 0, found: Vec::new(), unmatched: Vec::new() };
    let began = Instant::now();
    for row in rows {
        let is_there = |name: &str| row.get(name).is_some_and(|value| !value.is_null());
        if is_there("parsed_by") && is_there("raw") {
            continue;
        }
        if began.elapsed() > LOOK {
            break;
        }
        tried.lines += 1;
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
        let sender: Option<IpAddr> = text("source_ip").parse().ok();
        if !rule.is_about(text("service_name"), sender) {
            continue;
        }
        tried.about += 1;
        let body = text("body").to_owned();
        match rule.parse(&body) {
            Some(parsed) => {
                tried.matched += 1;
                if tried.found.len() < TOLD {
                    let severity = parsed.severity.and_then(|n| SEVERITIES.get(usize::from(n)).copied());
                    let (attributes, parsed_body) = (parsed.attributes, parsed.body);
                    tried.found.push(ParsedLine { body, attributes, severity, parsed_body });
                }
            }
            None if tried.unmatched.len() < TOLD => tried.unmatched.push(body),
            None => {}
        }
    }
    tried
}
