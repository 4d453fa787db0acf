//! Inventories that are pushed: one request is one run, taken whole or not at all.
//!
//! Items are device updates, or whatever a named mapping makes device updates of. A JSON document or CSV is read whole
//! ([`MAX_DOCUMENT`]); a JSON item a line is read as it comes, however much there is.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as UrlQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use radarflow_proto::payload::Brought;
use radarflow_proto::ports::{Ending, InventoryRun, Outcome, RunOf};
use radarflow_proto::room::Held;
use radarflow_reconcile::access::Action;
use radarflow_reconcile::mapping::{Format, Whose};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::broadcast;
use utoipa::{IntoParams, ToSchema};

use crate::actor::Actor;
use crate::http::commands::{command_id, outcome};
use crate::http::lines::{BadLine, Lines};
use crate::http::problem::{bad_query, not_durable, problem};
use crate::http::reading::{Unread, memory, whole};
use crate::http::{Api, Shared};
use crate::records::Refused;
use crate::records::held::{self, HeldRun};
use crate::records::inventory::{Asked, Finding, Intake, MAX_ITEM, Reader, Taken, run_of};
use crate::records::plan::Plan;

/// Largest document that is read whole, bytes.
const MAX_DOCUMENT: usize = 64 << 20;
/// What a byte of it takes: the buffer it is read into, which doubles, and where its items stand.
const DOCUMENT_FACTOR: usize = 3;
/// How long what becomes of a run is waited for at most, seconds.
const MAX_WAIT_S: u64 = 600;

/// How a run is taken.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct How {
    /// Everything there is: what it lacks is withdrawn.
    #[serde(default)]
    complete: bool,
    /// Nothing is applied: the answer is a plan of what would change, to be applied by its digest.
    #[serde(default)]
    plan: bool,
    /// Names the run; one is made up without it.
    run: Option<String>,
    /// Site of items that name none.
    partition: Option<String>,
    /// A mapping of the configuration.
    mapping: Option<String>,
    /// Seconds to wait for what becomes of the run: whether it is applied, or held; 600 at most. Without it the answer comes
    /// once the run is durable.
    #[param(maximum = 600)]
    wait: Option<u64>,
}

fn bad(code: &str, detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, code, detail, json!({}))
}

#[allow(clippy::result_large_err)]
fn format(headers: &HeaderMap) -> Result<Format, Response> {
    let said = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    match said.split(';').next().unwrap_or_default().trim() {
        "application/json" => Ok(Format::Json),
        "application/x-ndjson" | "application/jsonl" | "application/jsonlines" => Ok(Format::Lines),
        "text/csv" => Ok(Format::Csv),
        other => Err(problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported",
            &format!("{other} is none of application/json, application/x-ndjson, text/csv"),
            json!({}),
        )),
    }
}

/// A run that was taken.
#[derive(Serialize, ToSchema)]
pub(crate) struct RunTaken {
    /// Its name.
    run: String,
    /// So many items.
    items: usize,
    /// Whether it listed everything.
    complete: bool,
    /// The epoch it was released at.
    epoch: u64,
    /// What its items were read with doubts about.
    findings: Vec<Finding>,
    #[serde(flatten)]
    became: Became,
}

/// What became of a run.
#[derive(Serialize, ToSchema)]
pub(crate) struct Became {
    /// `applied`; `held`, until somebody releases or rejects it; `reading`, while its items are still being read.
    state: RunState,
    /// Runs of the source that are held; an earlier one, too, holds what later ones say of the same devices.
    held: Vec<HeldRun>,
}

/// How far a run is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunState {
    /// Its items are still being read.
    Reading,
    /// It waits for somebody.
    Held,
    /// It is visible.
    Applied,
}

impl Api {
    /// Waits for the end of a run that was released.
    pub(crate) async fn became(
        &self,
        outcomes: &mut broadcast::Receiver<Outcome>,
        of: &RunOf,
        within: Duration,
    ) -> Became {
        let ended = outcome(outcomes, &of.command_id(), within).await.is_some();
        let held = held::held(&self.engine.live().view(), &of.tenant, Some(&of.source()));
        let state = match (ended, held.iter().any(|held| held.run == of.run)) {
            (_, true) => RunState::Held,
            (true, false) => RunState::Applied,
            (false, false) => RunState::Reading,
        };
        Became { state, held }
    }
}

/// Takes an inventory: one request is one run, taken whole or not at all.
#[utoipa::path(
    post, path = "/api/inventories/{name}/{instance}", tag = "inventories",
    params(
        ("name" = String, Path, description = "armis, netbox, or a type of your own."),
        ("instance" = String, Path, description = "Which of them."),
        How,
    ),
    request_body(content(
        (Vec<serde_json::Map<String, Value>> = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"),
    ), description = "Items: device updates, or what a mapping of the configuration reads."),
    responses(
        (status = 200, description = "The run.", body = RunTaken),
        (status = 202, description = "Nothing is applied: a plan of what would change.", body = Plan),
    )
)]
pub(crate) async fn push(
    State(api): State<Shared>,
    Path((name, instance)): Path<(String, String)>,
    how: Result<UrlQuery<How>, QueryRejection>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Import)?;
    let UrlQuery(how) = how.map_err(|e| bad_query(&e))?;
    let wait = how.wait.unwrap_or_default();
    if wait > MAX_WAIT_S {
        return Err(bad("bad_request", &format!("wait: {MAX_WAIT_S} seconds at most")));
    }
    let format = format(&headers)?;
    let run = how.run.unwrap_or_else(command_id);
    let of = run_of(&actor, &name, &instance, Asked { complete: how.complete, run, partition: how.partition })?;
    let mapping = match &how.mapping {
        None => None,
        Some(name) => Some(api.mappings.get(name).ok_or_else(|| {
            let known: Vec<&str> = api.mappings.keys().map(String::as_str).collect();
            bad("no_mapping", &format!("there is no mapping {name}; there are: {}", known.join(", ")))
        })?),
    };
    if format == Format::Csv && mapping.is_none() {
        return Err(bad(
            "no_mapping",
            "what the columns of CSV mean is told by a mapping of the configuration: ?mapping=…",
        ));
    }
    let reader = Reader { mapping, whose: Whose::named(&name) };
    if how.plan {
        actor.whole("a plan")?;
        let mut noted = api.noted(of);
        let taken = match read(&mut noted, &reader, format, request, &actor).await {
            Ok(taken) => taken,
            Err(refused) => {
                let _ = Box::new(noted).discard().await;
                return Err(refused);
            }
        };
        let mut plan = api.plans.planned(&api.finder(), noted, how.complete).await?;
        plan.findings = taken.findings;
        return Ok((StatusCode::ACCEPTED, axum::Json(plan)).into_response());
    }
    let mut outcomes = api.outcomes.subscribe();
    let mut run = api.inventories.begin(of.clone());
    let Taken { items, findings } = match read(&mut *run, &reader, format, request, &actor).await {
        Ok(taken) => taken,
        Err(refused) => {
            // What was staged would be forgotten by itself, later.
            let _ = run.discard().await;
            return Err(refused);
        }
    };
    let ending = if how.complete { Ending::Whole } else { Ending::Part };
    let by = Brought { actor: actor.name.clone(), plan: None };
    let epoch = run.end(ending, Some(by)).await.map_err(|e| not_durable(&e))?;
    let became = api.became(&mut outcomes, &of, Duration::from_secs(wait)).await;
    Ok(axum::Json(RunTaken { run: of.run, items, complete: how.complete, epoch, findings, became }).into_response())
}

/// Reads the items of a request into a run, as long as whoever brings them may.
async fn read(
    run: &mut dyn InventoryRun,
    reader: &Reader<'_>,
    format: Format,
    request: Request,
    actor: &Actor,
) -> Result<Taken, Response> {
    let held = memory(&request)?.another();
    let intake = Intake::new(run, reader, held.another());
    let read = async {
        match format {
            Format::Lines => lines(intake, request.into_body(), held).await,
            _ => document(intake, format, request).await,
        }
    };
    tokio::select! {
        biased;
        () = actor.grant.ended() => Err(Refused::Ended.into()),
        read = read => read,
    }
}

/// Takes a document whole.
async fn document(intake: Intake<'_>, format: Format, request: Request) -> Result<Taken, Response> {
    let bytes = whole(request, MAX_DOCUMENT, DOCUMENT_FACTOR).await.map_err(|unread| match unread {
        Unread::TooLarge => {
            let detail =
                format!("a document has at most {MAX_DOCUMENT} bytes; send one item a line (application/x-ndjson)");
            problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail, json!({}))
        }
        unread => broken(unread),
    })?;
    Ok(intake.document(format, &bytes).await?)
}

/// The body of a run did not come.
fn broken(unread: Unread) -> Response {
    match unread {
        Unread::Broken => bad("broken_off", "the request broke off; nothing of the run was taken"),
        unread => unread.told(MAX_DOCUMENT),
    }
}

/// Takes an item a line, as they come.
async fn lines(mut intake: Intake<'_>, body: Body, held: Held) -> Result<Taken, Response> {
    let mut lines = Lines::new(body, MAX_ITEM, held);
    loop {
        let next = lines.next().await.map_err(|error| match error {
            BadLine::Unread(unread) => broken(unread),
            BadLine::TooLong(n) => bad("too_large", &format!("line {n} has more than {MAX_ITEM} bytes")),
        })?;
        let Some((number, text)) = next else { return Ok(intake.end().await?) };
        intake.line(number, text).await?;
    }
}
