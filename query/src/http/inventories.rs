//! Inventories that are pushed: one request is one run, taken whole or not at all.
//!
//! Items are device updates, or whatever a named mapping makes device updates of. A JSON document or CSV is read whole
//! ([`MAX_DOCUMENT`]); a JSON item a line is read as it comes, however much there is.

use std::collections::BTreeMap;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query as UrlQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use radarflow_proto::payload::{Brought, DeviceUpdate};
use radarflow_proto::ports::{Ending, InventoryRun, RunOf};
use radarflow_reconcile::access::{Action, sees};
use radarflow_reconcile::identity::normalise;
use radarflow_reconcile::mapping::{Format, Mapping, MappingError, Whose, belong, line, rows};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::actor::{Actor, OVER};
use crate::http::lines::{BadLine, Lines};
use crate::http::plans::{Noted, Plan};
use crate::http::{Shared, bad_query, command_id, denied, not_durable, problem};

/// Largest document that is read whole, bytes.
pub const MAX_DOCUMENT: usize = 64 << 20;
/// Longest line, bytes.
const MAX_LINE: usize = 1 << 20;
/// Items of one page, and bytes of their lines that close it.
const PAGE: usize = 4000;
const PAGE_BYTES: usize = 4 << 20;
/// What sources of other kinds call themselves: nobody may push as one of them.
const RESERVED: [&str; 6] = ["agent", "mapper", "sweep", "operator", "snmp", "integration"];

/// The named mappings.
pub type Mappings = BTreeMap<String, Mapping>;

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
}

fn bad(code: &str, detail: &str) -> Response {
    problem(StatusCode::BAD_REQUEST, code, detail, json!({}))
}

fn unreadable(error: &MappingError) -> Response {
    bad("unreadable", &format!("{error}; nothing of the run was taken"))
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

/// Whose run it is, if the actor may bring it.
#[allow(clippy::result_large_err)]
fn run_of(actor: &Actor, name: &str, instance: &str, how: &How) -> Result<RunOf, Response> {
    let plain = |text: &str| !text.is_empty() && text.len() <= 64 && !text.contains(['.', ':', '/', '\0', '\u{1f}']);
    if !plain(name) || RESERVED.contains(&name) || name != name.to_ascii_lowercase() {
        return Err(bad(
            "bad_source",
            "an inventory is armis, netbox or a type of your own, lower case, without . : /",
        ));
    }
    let Some(instance) = normalise::instance(instance).filter(|i| !i.is_empty() && i.len() <= 255) else {
        return Err(bad("bad_source", "a source instance has a name without : and /"));
    };
    let partition = match (&how.partition, actor.partitions.as_slice()) {
        (Some(said), _) => said.clone(),
        (None, [only]) => only.clone(),
        (None, _) => String::new(),
    };
    let Some(partition) = normalise::partition(&partition) else {
        return Err(bad("bad_partition", "a partition has no : and no /"));
    };
    let bound = !actor.partitions.is_empty();
    if !sees(&actor.partitions, &partition) || (bound && how.complete) {
        let detail = "this token is bound to partitions: name one of them, and no complete run";
        return Err(problem(StatusCode::FORBIDDEN, "forbidden", detail, json!({})));
    }
    let run = how.run.clone().unwrap_or_else(command_id);
    if run.is_empty() || run.len() > 255 || run.contains(|c: char| c == '/' || c.is_control()) {
        return Err(bad("bad_run", "a run's name has 1 to 255 bytes and no /"));
    }
    let (tenant, kind) = (actor.tenant.clone(), Whose::named(name).kind);
    Ok(RunOf { tenant, partition, bound, kind, name: name.to_owned(), instance, run })
}

/// What items are and whose.
struct Reader<'a> {
    mapping: Option<&'a Mapping>,
    whose: Whose,
}

impl Reader<'_> {
    fn update(&self, item: &Value) -> Result<DeviceUpdate, serde_json::Error> {
        if let Some(mapping) = self.mapping {
            return Ok(mapping.update(item, &self.whose));
        }
        // A list would be read as the fields in their order.
        if !item.is_object() {
            return Err(serde::de::Error::custom("an item is an object"));
        }
        let mut update: DeviceUpdate = serde::Deserialize::deserialize(item)?;
        belong(&mut update, &self.whose);
        Ok(update)
    }

    fn updates(&self, items: &[Value], first: usize) -> Result<Vec<DeviceUpdate>, MappingError> {
        let update = |(n, item): (usize, &Value)| {
            self.update(item).map_err(|e| MappingError::Item { number: first + n, reason: e.to_string() })
        };
        items.iter().enumerate().map(update).collect()
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
    let format = format(&headers)?;
    let of = run_of(&actor, &name, &instance, &how)?;
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
        let mut noted = Noted::begin(&api, of);
        if let Err(refused) = read(&mut noted, &reader, format, request, &actor).await {
            let _ = Box::new(noted).discard().await;
            return Err(refused);
        }
        let plan = api.planned(noted, how.complete).await?;
        return Ok((StatusCode::ACCEPTED, axum::Json(plan)).into_response());
    }
    let id = of.run.clone();
    let mut run = api.inventories.begin(of);
    let items = match read(&mut *run, &reader, format, request, &actor).await {
        Ok(items) => items,
        Err(refused) => {
            // What was staged would be forgotten by itself, later.
            let _ = run.discard().await;
            return Err(refused);
        }
    };
    let ending = if how.complete { Ending::Whole } else { Ending::Part };
    let by = Brought { actor: actor.name.clone(), plan: None };
    let epoch = run.end(ending, Some(by)).await.map_err(|e| not_durable(&e))?;
    Ok(axum::Json(RunTaken { run: id, items, complete: how.complete, epoch }).into_response())
}

/// Reads the items of a request into a run, as long as whoever brings them may; counts them.
async fn read(
    run: &mut dyn InventoryRun,
    reader: &Reader<'_>,
    format: Format,
    request: Request,
    actor: &Actor,
) -> Result<usize, Response> {
    let read = async {
        match format {
            Format::Lines => lines(run, reader, request.into_body()).await,
            _ => document(run, reader, format, request.into_body()).await,
        }
    };
    tokio::select! {
        biased;
        () = actor.grant.ended() => Err(denied(OVER)),
        read = read => read,
    }
}

/// Takes a document whole.
async fn document(
    run: &mut dyn InventoryRun,
    reader: &Reader<'_>,
    format: Format,
    body: axum::body::Body,
) -> Result<usize, Response> {
    let bytes = axum::body::to_bytes(body, MAX_DOCUMENT).await.map_err(|_| {
        let detail =
            format!("a document has at most {MAX_DOCUMENT} bytes; send one item a line (application/x-ndjson)");
        problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail, json!({}))
    })?;
    let updates = match reader.mapping {
        Some(mapping) => mapping.document(format, &bytes, &reader.whose),
        None => rows(format, &bytes, None).and_then(|items| reader.updates(&items, 1)),
    };
    let mut updates = updates.map_err(|e| unreadable(&e))?;
    let items = updates.len();
    while !updates.is_empty() {
        let rest = updates.split_off(updates.len().min(PAGE));
        run.page(updates).await.map_err(|e| not_durable(&e))?;
        updates = rest;
    }
    Ok(items)
}

/// Takes an item a line, as they come.
async fn lines(run: &mut dyn InventoryRun, reader: &Reader<'_>, body: axum::body::Body) -> Result<usize, Response> {
    let mut lines = Lines::new(body, MAX_LINE);
    let (mut page, mut bytes, mut items) = (Vec::<DeviceUpdate>::new(), 0, 0);
    loop {
        let next = lines.next().await.map_err(|error| match error {
            BadLine::Broken => bad("broken_off", "the request broke off; nothing of the run was taken"),
            BadLine::TooLong(n) => bad("too_large", &format!("line {n} has more than {MAX_LINE} bytes")),
        })?;
        let ended = next.is_none();
        if let Some((number, text)) = next
            && let Some(item) = line(number, text).map_err(|e| unreadable(&e))?
        {
            page.extend(reader.updates(std::slice::from_ref(&item), items + 1).map_err(|e| unreadable(&e))?);
            bytes += text.len();
            items += 1;
        }
        if page.len() >= PAGE || bytes >= PAGE_BYTES || (ended && !page.is_empty()) {
            bytes = 0;
            run.page(std::mem::take(&mut page)).await.map_err(|e| not_durable(&e))?;
        }
        if ended {
            return Ok(items);
        }
    }
}
