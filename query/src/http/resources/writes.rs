//! What somebody states of resources. It is judged in the dataflow; the answer comes when it is durable and visible.
//!
//! `If-Match` and `If-None-Match: *` say how a resource must stand; `Idempotency-Key` names a request, which then has one
//! outcome for 24 hours however often it is sent; `Radarflow-Owner` says whose the resources are from now on; `meta.reason`
//! says why, for the audit.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use radarflow_proto::fact::Fact;
use radarflow_proto::resource::{
    Act, Command, Condition, Fields, Judgement, Operation, Principal, Refusal, RefusalCode,
};
use radarflow_proto::rows::Table;
use radarflow_reconcile::jobs::run::run_id;
use radarflow_reconcile::resources::ResourceKind;
use radarflow_reconcile::resources::judge::MAX_OPERATIONS;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::document::{document, encoded, of_resource};
use super::{PREFIX, kind, secrets};
use crate::actor::Actor;
use crate::error::{QueryError, SrqlError};
use crate::http::commands::command_id;
use crate::http::problem::{bad, problem, refuse};
use crate::http::reading::{Sender, typed};
use crate::http::{Api, MAX_BODY, Shared};
use crate::http::{edge, groups};

/// Names a request.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says whose the resources are.
const OWNER: HeaderName = HeaderName::from_static("radarflow-owner");
/// Characters of a reason.
const MAX_REASON: usize = 1000;
/// Bytes of a key or an owner.
const MAX_NAME: usize = 255;
/// How long a judgement is waited for.
const JUDGEMENT_WAIT: Duration = Duration::from_secs(10);
/// Passwords that one request sets: each costs memory and a core.
const MAX_PASSWORDS: usize = 100;
/// Bytes of a request with several operations.
const MAX_OPERATIONS_BODY: usize = 16 << 20;

/// Something to be judged.
pub(in crate::http) struct Ask {
    pub(in crate::http) principal: Principal,
    pub(in crate::http) reason: String,
    pub(in crate::http) operations: Vec<Operation>,
    /// Also where nobody is left then who administers the tenant.
    pub(in crate::http) force: bool,
    /// The asker's name for it, and what is asked, hashed.
    pub(in crate::http) key: Option<(String, String)>,
}

/// Has something judged in a tenant; the answer comes when it is visible.
pub(in crate::http) async fn judged(api: &Api, tenant: &str, ask: Ask) -> Result<Judgement, Response> {
    let Ask { principal, reason, operations, force, key } = ask;
    let (command_id, digest) = match key {
        Some((key, digest)) => (key, Some(digest)),
        None => (command_id(), None),
    };
    let feed = format!("api:{}", principal.name);
    let tenant = tenant.to_owned();
    let command = Command { tenant: tenant.clone(), command_id, digest, principal, reason, force, operations };
    let id = (tenant.clone(), command.command_id.clone(), command.digest.clone());
    let told = api.judgements.of(&id);
    let appended = api.append_as(&tenant, feed, &Fact::Command(Box::new(command))).await;
    let judged = match &appended {
        Ok(_) => tokio::time::timeout(JUDGEMENT_WAIT, told).await.ok().and_then(Result::ok),
        Err(_) => {
            drop(told);
            None
        }
    };
    api.judgements.forget(&id);
    let epoch = appended?;
    match judged {
        Some(judgement) => {
            api.engine.live().reach(epoch).await;
            Ok(judgement)
        }
        None => {
            let detail =
                "the command is durable; its outcome is not known yet: ask again with the same Idempotency-Key";
            Err(problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", detail, json!({"epoch": epoch})))
        }
    }
}

/// Why something is refused, over HTTP.
pub(in crate::http) fn refused(refusal: &Refusal, epoch: u64, operations: bool) -> Response {
    let status = match refusal.code {
        RefusalCode::Forbidden => StatusCode::FORBIDDEN,
        RefusalCode::NotFound => StatusCode::NOT_FOUND,
        RefusalCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        RefusalCode::Invalid | RefusalCode::Immutable | RefusalCode::IdempotencyMismatch => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        RefusalCode::Exists
        | RefusalCode::Owned
        | RefusalCode::Reference
        | RefusalCode::TooMany
        | RefusalCode::Conflict => StatusCode::CONFLICT,
    };
    let mut more = json!({"epoch": epoch});
    let data = match operations {
        true => format!("/atomic:operations/{}/data", refusal.operation),
        false => "/data".to_owned(),
    };
    match refusal.field.as_deref() {
        Some("id") => more["pointer"] = json!(format!("{data}/id")),
        Some(field) => more["pointer"] = json!(format!("{data}/attributes/{field}")),
        None if operations => more["pointer"] = json!(format!("/atomic:operations/{}", refusal.operation)),
        None => {}
    }
    problem(status, refusal.code.name(), &refusal.detail, more)
}

/// A document with one resource.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stated {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    meta: Meta,
    /// Which version of the standard it is.
    #[serde(default, rename = "jsonapi")]
    _jsonapi: Option<Value>,
}

/// A resource as somebody states it.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    attributes: Map<String, Value>,
    /// What an answer says beside is taken back as it was said.
    #[serde(default, rename = "links")]
    _links: Option<Value>,
    #[serde(default, rename = "meta")]
    _meta: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    #[serde(default)]
    reason: String,
    /// What an answer says beside.
    #[serde(default, rename = "epoch")]
    _epoch: Option<u64>,
}

impl Meta {
    #[allow(clippy::result_large_err)]
    fn checked(&self) -> Result<(), Response> {
        if self.reason.chars().count() <= MAX_REASON {
            return Ok(());
        }
        let detail = format!("a reason has at most {MAX_REASON} characters");
        Err(pointed(StatusCode::BAD_REQUEST, &detail, "/meta/reason"))
    }
}

/// What the headers of a write say.
struct Headers {
    condition: Condition,
    owner: String,
    key: Option<String>,
}

impl Headers {
    #[allow(clippy::result_large_err)]
    fn read(headers: &HeaderMap) -> Result<Self, Response> {
        let wrong = |header: &HeaderName, detail: &str| {
            problem(StatusCode::BAD_REQUEST, "bad_header", detail, json!({"header": header.as_str()}))
        };
        let name = |header: HeaderName| match headers.get(&header).map(HeaderValue::to_str) {
            None => Ok(None),
            Some(Ok(text)) if (1..=MAX_NAME).contains(&text.len()) => Ok(Some(text.to_owned())),
            Some(_) => Err(wrong(&header, &format!("it is text of 1 to {MAX_NAME} bytes"))),
        };
        let if_match = name(header::IF_MATCH)?;
        let if_none_match = name(header::IF_NONE_MATCH)?;
        let condition = match (if_match.as_deref().map(str::trim), if_none_match.as_deref().map(str::trim)) {
            (None, None) => Condition::Any,
            (None, Some("*")) => Condition::Absent,
            (Some(tag), None) => {
                let epoch =
                    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
                let epoch = epoch.ok_or_else(|| wrong(&header::IF_MATCH, "it is one ETag of this resource"))?;
                Condition::Epoch(epoch)
            }
            _ => return Err(wrong(&header::IF_NONE_MATCH, "writes know If-Match: \"EPOCH\" or If-None-Match: *")),
        };
        Ok(Headers { condition, owner: name(OWNER)?.unwrap_or_default(), key: name(IDEMPOTENCY_KEY)? })
    }
}

/// A request as it was sent: who, what the headers say, and the body.
struct Sent {
    actor: Actor,
    headers: Headers,
    /// The asker's name for it, and what is asked, hashed.
    key: Option<(String, String)>,
    body: Vec<u8>,
}

impl Sent {
    async fn read(api: &Api, request: Request, most: usize) -> Result<Self, Response> {
        let mut actor = api.actor(request.headers())?;
        let sender = request.extensions().get::<Sender>();
        actor.principal.address = sender.map(|sender| sender.0.to_string());
        let headers = Headers::read(request.headers())?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let body = typed(request, most).await?.to_vec();
        let key = headers.key.as_ref().map(|key| {
            let hash = |parts: &[&[u8]]| {
                let mut hash = Sha256::new();
                for part in parts {
                    hash.update((part.len() as u64).to_le_bytes());
                    hash.update(part);
                }
                hex::encode(hash.finalize())
            };
            // Nobody meets another's keys.
            let Principal { kind, id, name, .. } = &actor.principal;
            let kind = [*kind as u8];
            let named = hash(&[b"key", &kind, id.as_bytes(), name.as_bytes(), key.as_bytes()]);
            let asked = hash(&[b"asked", method.as_str().as_bytes(), uri.to_string().as_bytes(), &body]);
            // It may hold a secret that can be guessed: only who has the key can tell.
            let asked = (api.seal)(["", "asked", "", ""], &asked).unwrap_or(asked);
            (named[..32].to_owned(), asked)
        });
        Ok(Sent { actor, headers, key, body })
    }

    /// Whether it may be judged at all: what takes work or room is not begun for who may not have it done. What is one's own
    /// the judge knows best.
    #[allow(clippy::result_large_err)]
    fn may(&self, kind: &ResourceKind, verb: &str, id: Option<&str>) -> Result<(), Response> {
        let actor = &self.actor;
        let user = actor.user().is_some_and(|user| kind.table == Table::User && id == Some(user));
        let own = user || (actor.user().is_some() && kind.table == Table::Session && verb == "delete");
        let allowed = kind.permission(verb).is_some_and(|permission| actor.has(&permission));
        let detail = match allowed && actor.partitions.is_empty() {
            _ if own => return Ok(()),
            true => return Ok(()),
            false if allowed => format!("{} are the whole tenant's; you are bound to partitions", kind.name()),
            false => format!("your role does not allow to {verb} {}", kind.name()),
        };
        Err(problem(StatusCode::FORBIDDEN, "forbidden", &detail, json!({})))
    }

    #[allow(clippy::result_large_err)]
    fn document(&self) -> Result<Stated, Response> {
        if self.body.is_empty() {
            return Ok(Stated { data: None, meta: Meta::default(), _jsonapi: None });
        }
        let stated: Stated = serde_json::from_slice(&self.body).map_err(|error| bad(&error.to_string()))?;
        stated.meta.checked()?;
        Ok(stated)
    }

    /// Has what it states judged.
    async fn judged(self, api: &Api, reason: String, operations: Vec<Operation>) -> Result<Judgement, Response> {
        let Sent { actor, key, .. } = self;
        judged(api, &actor.tenant, Ask { principal: actor.principal, reason, operations, force: false, key }).await
    }

    /// The resource that a document states.
    #[allow(clippy::result_large_err)]
    fn data(&self, kind: &ResourceKind) -> Result<(Data, String), Response> {
        let Stated { data, meta, .. } = self.document()?;
        let data = data.ok_or_else(|| pointed(StatusCode::BAD_REQUEST, "a document has data", "/data"))?;
        if data.kind != kind.name() {
            let detail = format!("the type here is {}", kind.name());
            return Err(pointed(StatusCode::CONFLICT, &detail, "/data/type"));
        }
        Ok((data, meta.reason))
    }
}

fn pointed(status: StatusCode, detail: &str, pointer: &str) -> Response {
    problem(status, "bad_document", detail, json!({"pointer": pointer}))
}

/// What people set of what they state: what an answer says and nobody sets is taken as it is read, so that what was read can be
/// sent back.
fn settable(kind: &ResourceKind, attributes: Map<String, Value>) -> (Fields, Option<String>) {
    let columns = kind.table.columns();
    let mut id = None;
    let mut fields = Fields::new();
    for (name, value) in attributes {
        if name == kind.id {
            id = value.as_str().map(str::to_owned);
        } else if kind.field(&name).is_some_and(|field| field.server) {
            // It is told, and set by nobody.
        } else if kind.field(&name).is_some() || !columns.iter().any(|column| column.name == name) {
            fields.insert(name, value);
        } else if matches!(name.as_str(), "tenant_id" | "partition") {
            // They are no attributes of anything; whoever names one is told.
            fields.insert(name, value);
        }
    }
    (fields, id)
}

/// Whether fields are what they may be, whatever stands: without that it does not matter how the resource must stand (RFC 9110,
/// section 13.2.1), which is judged later.
#[allow(clippy::result_large_err)]
fn within(kind: &ResourceKind, fields: &Fields, at: &str) -> Result<(), Response> {
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        if let Some(Err(detail)) = kind.field(name).map(|field| field.read(value)) {
            let more = json!({"pointer": format!("{at}/data/attributes/{name}")});
            return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid", &detail, more));
        }
    }
    Ok(())
}

/// What is to be done, and what is told once of it.
struct Made {
    operation: Operation,
    told: Option<Told>,
}

/// What is told once, of a resource.
struct Told {
    id: String,
    name: &'static str,
    value: String,
}

impl Api {
    /// An operation that makes something.
    async fn making(
        &self,
        actor: &Actor,
        kind: &ResourceKind,
        data: Data,
        headers: &Headers,
        at: &str,
    ) -> Result<Made, Response> {
        let (mut fields, named) = settable(kind, data.attributes);
        within(kind, &fields, at)?;
        let id = data.id.or(named);
        let (id, told) = match kind.table {
            // Whoever makes a token does not choose it.
            Table::ApiToken => {
                let (id, token) = secrets::token(&mut fields);
                (id.clone(), Some(Told { id, name: "token", value: token }))
            }
            // Nor an edge package, of which only a hash of what lets it be downloaded is stated.
            Table::EdgePackage => {
                let (id, token) = edge::package(self, &mut fields);
                (id.clone(), Some(Told { id, name: "token", value: token }))
            }
            _ => (id.unwrap_or_default(), None),
        };
        let of = secrets::Of { tenant: &actor.tenant, kind, id: &id };
        secrets::kept(self, &of, &mut fields).await?;
        self.checked(actor, kind, &fields)?;
        let condition = headers.condition;
        let operation = operation(kind, id, Act::Create { fields }, condition, &headers.owner);
        Ok(Made { operation, told })
    }

    /// What only the language knows: whether a condition is one.
    #[allow(clippy::result_large_err)]
    fn checked(&self, actor: &Actor, kind: &ResourceKind, fields: &Fields) -> Result<(), Response> {
        if !matches!(kind.table, Table::DeviceGroup | Table::Profile) {
            return Ok(());
        }
        let Some(condition) = fields.get("condition").and_then(Value::as_str) else { return Ok(()) };
        let refused = |error: SrqlError| {
            let (line, column) = error.position(condition);
            let more = json!({"pointer": "/data/attributes/condition", "line": line, "column": column,
                "expected": error.expected, "did_you_mean": error.did_you_mean});
            problem(StatusCode::UNPROCESSABLE_ENTITY, error.code, &error.to_string(), more)
        };
        match groups::planned(self, actor, condition) {
            Ok(()) => Ok(()),
            Err(QueryError::Language(error)) => Err(refused(error)),
            Err(error) => Err(refuse(&error, condition)),
        }
    }
}

fn operation(kind: &ResourceKind, id: String, act: Act, condition: Condition, owner: &str) -> Operation {
    Operation { resource: kind.name().to_owned(), id, act, condition, owner: owner.to_owned() }
}

/// What one operation came to.
#[allow(clippy::result_large_err)]
fn answered(
    kind: &ResourceKind,
    judgement: &Judgement,
    made: StatusCode,
    told: Option<Told>,
) -> Result<Response, Response> {
    let outcome = judgement.outcome.as_ref().map_err(|refusal| refused(refusal, judgement.epoch, false))?;
    let mut meta = json!({"epoch": judgement.epoch});
    let Some(Some(resource)) = outcome.first() else { return Ok(document(StatusCode::OK, &json!({"meta": meta}))) };
    // What was made the first time is not what was made again for the same key.
    if let Some(Told { name, value, .. }) = told.filter(|told| told.id == resource.id) {
        meta[name] = json!(value);
    }
    let data = of_resource(kind, resource);
    let mut response = document(made, &json!({"data": data, "meta": meta}));
    let set = |response: &mut Response, name: HeaderName, value: String| {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    };
    set(&mut response, header::ETAG, format!("\"{}\"", resource.epoch));
    if made == StatusCode::CREATED {
        set(&mut response, header::LOCATION, format!("{PREFIX}/{}/{}", kind.name(), encoded(&resource.id)));
    }
    Ok(response)
}

/// Makes a resource.
pub(super) async fn create(
    State(api): State<Shared>,
    Extension(kind): Extension<&'static ResourceKind>,
    request: Request,
) -> Result<Response, Response> {
    let sent = Sent::read(&api, request, MAX_BODY).await?;
    sent.may(kind, "create", None)?;
    let (data, reason) = sent.data(kind)?;
    let Made { operation, told } = api.making(&sent.actor, kind, data, &sent.headers, "").await?;
    let judgement = sent.judged(&api, reason, vec![operation]).await?;
    answered(kind, &judgement, StatusCode::CREATED, told)
}

/// Changes a resource: what is named is what it says from now on.
pub(super) async fn update(
    State(api): State<Shared>,
    Extension(kind): Extension<&'static ResourceKind>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let sent = Sent::read(&api, request, MAX_BODY).await?;
    sent.may(kind, "update", Some(&id))?;
    let (data, reason) = sent.data(kind)?;
    if data.id.as_ref().is_some_and(|said| *said != id) {
        return Err(pointed(StatusCode::CONFLICT, "the id of a resource never changes", "/data/id"));
    }
    let (mut fields, named) = settable(kind, data.attributes);
    if named.is_some_and(|named| named != id) {
        let pointer = format!("/data/attributes/{}", kind.id);
        return Err(pointed(StatusCode::CONFLICT, "the id of a resource never changes", &pointer));
    }
    within(kind, &fields, "")?;
    let of = secrets::Of { tenant: &sent.actor.tenant, kind, id: &id };
    secrets::kept(&api, &of, &mut fields).await?;
    api.checked(&sent.actor, kind, &fields)?;
    let operation = operation(kind, id, Act::Update { fields }, sent.headers.condition, &sent.headers.owner);
    let judgement = sent.judged(&api, reason, vec![operation]).await?;
    answered(kind, &judgement, StatusCode::OK, None)
}

/// Ends a resource.
pub(super) async fn delete(
    State(api): State<Shared>,
    Extension(kind): Extension<&'static ResourceKind>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Response> {
    let sent = Sent::read(&api, request, MAX_BODY).await?;
    sent.may(kind, "delete", Some(&id))?;
    let reason = sent.document()?.meta.reason;
    let operation = operation(kind, id, Act::Delete, sent.headers.condition, &sent.headers.owner);
    let judgement = sent.judged(&api, reason, vec![operation]).await?;
    answered(kind, &judgement, StatusCode::OK, None)
}

/// Takes one of the steps of a resource.
pub(super) async fn act(
    State(api): State<Shared>,
    Extension(kind): Extension<&'static ResourceKind>,
    Path((id, action)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Response> {
    let sent = Sent::read(&api, request, MAX_BODY).await?;
    sent.may(kind, &action, Some(&id))?;
    let Stated { data, meta, .. } = sent.document()?;
    if data.as_ref().is_some_and(|data| !data.kind.is_empty() && data.kind != kind.name()) {
        let detail = format!("the type here is {}", kind.name());
        return Err(pointed(StatusCode::CONFLICT, &detail, "/data/type"));
    }
    let fields = data.map(|data| data.attributes.into_iter().collect()).unwrap_or_default();
    // As for the fields of a resource: what is wrong however it stands is told first.
    if let Some(Err(wrong)) = kind.actions.iter().find(|known| known.name == action).map(|known| known.read(&fields)) {
        let more = wrong.field.map_or_else(|| json!({}), |f| json!({"pointer": format!("/data/attributes/{f}")}));
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, wrong.code.name(), &wrong.detail, more));
    }
    let runs = kind.table == Table::Profile && action == "run";
    let operation =
        operation(kind, id.clone(), Act::Do { action, fields }, sent.headers.condition, &sent.headers.owner);
    let tenant = sent.actor.tenant.clone();
    let judgement = sent.judged(&api, meta.reason, vec![operation]).await?;
    // Asked again with the same key, it is the same run.
    let value = || run_id(&tenant, &judgement.command_id, judgement.epoch, 0);
    let told = runs.then(|| Told { id, name: "run_id", value: value() });
    answered(kind, &judgement, StatusCode::OK, told)
}

/// Several operations (<https://jsonapi.org/ext/atomic/>).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operations {
    #[serde(rename = "atomic:operations")]
    operations: Vec<OneOf>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OneOf {
    op: String,
    #[serde(default, rename = "ref")]
    of: Option<Ref>,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    meta: OfOne,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ref {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfOne {
    /// The epoch at which the resource was last changed; 0 where there must be none.
    #[serde(default)]
    if_match: Option<u64>,
}

/// Several operations in one frame: all are done, or none.
pub(super) async fn operations(State(api): State<Shared>, request: Request) -> Result<Response, Response> {
    let sent = Sent::read(&api, request, MAX_OPERATIONS_BODY).await?;
    let Operations { operations: asked, meta } =
        serde_json::from_slice(&sent.body).map_err(|error| bad(&error.to_string()))?;
    meta.checked()?;
    if asked.is_empty() || asked.len() > MAX_OPERATIONS {
        let detail = format!("a request has 1 to {MAX_OPERATIONS} operations");
        return Err(pointed(StatusCode::UNPROCESSABLE_ENTITY, &detail, "/atomic:operations"));
    }
    let mut passwords = 0;
    let (mut operations, mut kinds, mut once) = (Vec::with_capacity(asked.len()), Vec::new(), Vec::new());
    for (nth, OneOf { op, of, data, meta }) in asked.into_iter().enumerate() {
        let at = |more: &str| format!("/atomic:operations/{nth}{more}");
        let named = of.as_ref().map(|of| of.kind.as_str()).or(data.as_ref().map(|data| data.kind.as_str()));
        let name = named.ok_or_else(|| pointed(StatusCode::BAD_REQUEST, "an operation says of which type", &at("")))?;
        let kind = kind(name)?;
        let verb = match op.as_str() {
            "add" => "create",
            "remove" => "delete",
            _ => "update",
        };
        let named = of.as_ref().map(|of| of.id.as_str()).or(data.as_ref().and_then(|data| data.id.as_deref()));
        sent.may(kind, verb, named)?;
        let id = of.map(|of| of.id).or_else(|| data.as_ref().and_then(|data| data.id.clone()));
        let headers = Headers {
            condition: match meta.if_match {
                None => Condition::Any,
                Some(0) => Condition::Absent,
                Some(epoch) => Condition::Epoch(epoch),
            },
            owner: sent.headers.owner.clone(),
            key: None,
        };
        let made = match op.as_str() {
            "add" => api.making(&sent.actor, kind, data.unwrap_or_default(), &headers, &at("")).await?,
            "update" => {
                let (mut fields, _) = settable(kind, data.unwrap_or_default().attributes);
                within(kind, &fields, &at(""))?;
                let id = id.ok_or_else(|| pointed(StatusCode::BAD_REQUEST, "an update says of which id", &at("")))?;
                let of = secrets::Of { tenant: &sent.actor.tenant, kind, id: &id };
                secrets::kept(&api, &of, &mut fields).await?;
                api.checked(&sent.actor, kind, &fields)?;
                let operation = operation(kind, id, Act::Update { fields }, headers.condition, &headers.owner);
                Made { operation, told: None }
            }
            "remove" => {
                let id =
                    id.ok_or_else(|| pointed(StatusCode::BAD_REQUEST, "a removal says of which id", &at("/ref")))?;
                Made { operation: operation(kind, id, Act::Delete, headers.condition, &headers.owner), told: None }
            }
            _ => return Err(pointed(StatusCode::BAD_REQUEST, "op is add, update or remove", &at("/op"))),
        };
        let fields = match &made.operation.act {
            Act::Create { fields } | Act::Update { fields } => fields.get("password"),
            _ => None,
        };
        passwords += usize::from(fields.is_some_and(|password| !password.is_null()));
        if passwords > MAX_PASSWORDS {
            let detail = format!("a request sets at most {MAX_PASSWORDS} passwords");
            return Err(pointed(StatusCode::UNPROCESSABLE_ENTITY, &detail, &at("")));
        }
        operations.push(made.operation);
        once.push(made.told);
        kinds.push(kind);
    }
    let judgement = sent.judged(&api, meta.reason, operations).await?;
    let outcome = judgement.outcome.as_ref().map_err(|refusal| refused(refusal, judgement.epoch, true))?;
    let results = outcome.iter().zip(kinds).zip(once).map(|((resource, kind), told)| match resource {
        Some(resource) => {
            let mut result = json!({"data": of_resource(kind, resource)});
            if let Some(Told { name, value, .. }) = told.filter(|told| told.id == resource.id) {
                result["meta"] = json!({name: value});
            }
            result
        }
        None => json!({}),
    });
    let results: Vec<Value> = results.collect();
    Ok(document(StatusCode::OK, &json!({"atomic:results": results, "meta": {"epoch": judgement.epoch}})))
}
