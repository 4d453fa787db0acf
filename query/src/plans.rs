//! Plans: what a run of an inventory would change, told before it is applied; then exactly that, or nothing.
//!
//! ```text
//! items ─► staged, and noted ─► compared with the records that stand ─► plan, under a digest
//! digest ─► compared again: the same? ─► the run ends, as one that somebody looked at
//! ```
//! What a partial source says is compared with what it makes of a record, as far as the record tells: of an item that is
//! older than the record, fields that the record lacks. The digest names the source and every change. Where the records
//! have changed meanwhile there is another plan, under another digest, to be looked at. What is planned waits in the
//! ledger and costs room there: a plan that nobody applies is forgotten after [`KEPT`], and its run with it.
//!
//! What is noted of runs takes memory out of one budget ([`Room`]): a tenant may hold as much of it as is still free, and a
//! run that does not fit is refused. A tenant's plan gives way only to another of the same tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use radarflow_proto::cell::Time;
use radarflow_proto::payload::{Brought, DeviceUpdate};
use radarflow_proto::ports::{AppendError, Ending, InventoryRun, MAX_LISTED, ReadError, RecordQuery, RunOf};
use radarflow_proto::record::Record;
use radarflow_reconcile::access::Action;
use radarflow_reconcile::identity::explain::label;
use radarflow_reconcile::identity::name::{Name, name};
use radarflow_reconcile::identity::sources::{Instances, Received, device_update};
use radarflow_reconcile::partial::Sayings;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::http::{Api, Done, Shared, not_durable, problem, refuse};

/// Plans of one tenant that wait to be applied.
pub const MAX_PLANS: usize = 16;
/// Bytes of what is noted of runs, of all tenants, where nothing else is said.
pub const PLAN_BYTES: usize = 256 << 20;
/// What an item takes beside its texts, bytes, about: its key and place in a map among it.
const ITEM_BYTES: usize = size_of::<Item>() + 128;
/// How long a plan waits. What is staged is given up after fifteen minutes.
pub const KEPT: Duration = Duration::from_secs(600);
/// Records that a plan shows of each kind of change.
const SAMPLES: usize = 10;

/// What an item says.
struct Item {
    /// Names its content, whenever it was said.
    content: Name,
    /// Which of two versions is newer, as the dataflow has it.
    order: (Time, bool, Name),
    shown: Sample,
    /// Of a partial source: what the run said of it.
    sayings: Option<Sayings>,
}

impl Item {
    fn of(record: &Record, sayings: Option<Sayings>) -> Item {
        Item { content: content(record), order: order(record), shown: Sample::of(record), sayings }
    }

    /// What the record would be, with what it said before where its source is partial.
    fn over(&self, old: &Record) -> Option<Item> {
        let mut sayings = self.sayings.clone()?;
        let whole = sayings.say(old.clone());
        Some(Item::of(&whole, None))
    }

    /// That it is gone.
    fn gone(&self) -> bool {
        self.order.1
    }
}

fn order(record: &Record) -> (Time, bool, Name) {
    (record.event_time, record.deleted, name(record))
}

/// Memory for what is noted of runs, and who has how much of it, bytes.
#[derive(Debug)]
struct Room {
    bound: usize,
    taken: Mutex<BTreeMap<String, usize>>,
}

impl Room {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes some for a tenant, if that leaves as much to the others as the tenant has.
    fn take(&self, tenant: &str, bytes: usize) -> bool {
        let mut taken = self.taken();
        let free = self.bound.saturating_sub(taken.values().sum());
        let held = taken.get(tenant).copied().unwrap_or(0);
        let fits = held + bytes <= free;
        if fits {
            taken.insert(tenant.to_owned(), held + bytes);
        }
        fits
    }

    fn give_back(&self, tenant: &str, bytes: usize) {
        let mut taken = self.taken();
        let held = taken.get(tenant).map_or(0, |held| held.saturating_sub(bytes));
        if held > 0 {
            taken.insert(tenant.to_owned(), held);
        } else {
            taken.remove(tenant);
        }
    }
}

/// What one run holds of it, until it is dropped.
#[derive(Debug)]
struct Held {
    room: Arc<Room>,
    tenant: String,
    bytes: usize,
}

impl Held {
    fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.room.take(&self.tenant, bytes);
        self.bytes += if fits { bytes } else { 0 };
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.give_back(&self.tenant, self.bytes);
    }
}

/// A run that is read and noted, and will not end before somebody says so.
pub(crate) struct Noted {
    run: Box<dyn InventoryRun>,
    notes: Notes,
}

/// What a run says.
struct Notes {
    of: RunOf,
    instances: Instances,
    /// Whether its source says only what it knows.
    partial: bool,
    /// By the key of its record.
    items: BTreeMap<String, Item>,
    listed: usize,
    rejected: usize,
    /// What it holds.
    held: Held,
    /// More would have to be noted than there is room for.
    is_too_large: bool,
}

impl Noted {
    pub(crate) fn begin(api: &Api, of: RunOf) -> Noted {
        let (run, instances) = (api.inventories.begin(of.clone()), (api.instances)());
        let partial = (api.partial)(&of.tenant, of.kind, &of.speaker());
        let held = Held { room: api.plans.room.clone(), tenant: of.tenant.clone(), bytes: 0 };
        let items = BTreeMap::new();
        let notes = Notes { of, instances, partial, items, listed: 0, rejected: 0, held, is_too_large: false };
        Noted { run, notes }
    }
}

impl Notes {
    fn note(&mut self, update: &DeviceUpdate, now_us: i64) {
        if self.is_too_large {
            return;
        }
        let received = Received { tenant: &self.of.tenant, partition: None, at_us: now_us };
        let Ok(record) = device_update(update, &received, &self.instances) else {
            self.rejected += 1;
            return;
        };
        let key = record.key.key.clone();
        // Of a partial source all of it is kept, else what is shown.
        let takes = match (self.partial, self.items.contains_key(&key)) {
            (true, _) => ITEM_BYTES + 2 * key.len() + weight(&record),
            (false, false) => ITEM_BYTES + 2 * key.len() + shown_weight(&record),
            (false, true) => 0,
        };
        if !self.held.grow(takes) {
            self.forget();
            return;
        }
        if self.partial {
            // Said twice, both count.
            let mut sayings = self.items.remove(&key).and_then(|old| old.sayings).unwrap_or_default();
            let whole = sayings.say(record);
            self.items.insert(key, Item::of(&whole, Some(sayings)));
            return;
        }
        let item = Item::of(&record, None);
        // Said twice, the newest counts.
        let newest = self.items.get(&key).is_none_or(|old| old.order <= item.order);
        if newest {
            self.items.insert(key, item);
        }
    }

    /// It will be refused: nothing of it is kept.
    fn forget(&mut self) {
        self.is_too_large = true;
        self.items.clear();
        self.held.room.give_back(&self.held.tenant, std::mem::take(&mut self.held.bytes));
    }
}

#[async_trait]
impl InventoryRun for Noted {
    async fn page(&mut self, mut items: Vec<DeviceUpdate>) -> Result<(), AppendError> {
        let notes = &mut self.notes;
        notes.listed += items.len();
        if notes.listed >= MAX_LISTED {
            notes.forget();
        }
        if notes.is_too_large {
            return Ok(());
        }
        items.iter_mut().for_each(|update| notes.of.own(update));
        let updates = items.clone();
        // New instances are made known by it.
        self.run.page(items).await?;
        let now_us =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64);
        updates.iter().for_each(|update| notes.note(update, now_us));
        Ok(())
    }

    async fn end(self: Box<Self>, ending: Ending, by: Option<Brought>) -> Result<u64, AppendError> {
        self.run.end(ending, by).await
    }

    async fn discard(self: Box<Self>) -> Result<u64, AppendError> {
        self.run.discard().await
    }
}

/// What is shown of a record takes so many bytes, about.
fn shown_weight(record: &Record) -> usize {
    label(record).len() + record.hostname.as_ref().map_or(0, String::len) + record.ips.len() * 64
}

/// A record takes so many bytes, about.
fn weight(record: &Record) -> usize {
    let ids: usize = record.ids.iter().map(|id| id.namespace.len() + id.value.len() + 64).sum();
    let macs: usize = record.macs.iter().chain(&record.macs_shown).map(|mac| mac.len() + 24).sum();
    let texts = record.attributes.iter().chain(&record.metadata);
    let texts: usize = texts.map(|(key, value)| key.len() + value.len() + 64).sum();
    size_of::<Record>() + ids + macs + texts + shown_weight(record)
}

/// Names what a record says, whenever it says it.
fn content(record: &Record) -> Name {
    name(&Record { event_time: Time::default(), ..record.clone() })
}

/// What would change.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// Names the plan, and applies it.
    digest: String,
    /// The source: `armis/main`.
    source: String,
    /// Its run.
    run: String,
    /// Whether it lists everything, so that what it lacks goes.
    complete: bool,
    /// Items it lists.
    items: usize,
    /// Records that would be new.
    create: usize,
    /// Records that would say something else.
    update: usize,
    /// Records that would go.
    delete: usize,
    /// Records that would stay as they are.
    unchanged: usize,
    /// Items that would be rejected, each with a row in `rejects`.
    rejected: usize,
    /// Some of the records.
    samples: Samples,
}

/// Some records of each kind of change.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Samples {
    create: Vec<Sample>,
    update: Vec<Sample>,
    delete: Vec<Sample>,
}

/// A record, as a plan shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Sample {
    /// Names it: `armis/main/17`.
    record: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    ips: Vec<String>,
}

impl Sample {
    fn of(record: &Record) -> Sample {
        let ips = record.ips.iter().map(ToString::to_string).collect();
        Sample { record: label(record), hostname: record.hostname.clone(), ips }
    }
}

/// Compares what a run says with the records that stand.
fn plan(noted: &Notes, complete: bool, standing: &[Record]) -> Plan {
    let mut digest = Sha256::new();
    let mut plan = Plan {
        digest: String::new(),
        source: format!("{}/{}", noted.of.name, noted.of.instance),
        run: noted.of.run.clone(),
        complete,
        items: noted.listed,
        create: 0,
        update: 0,
        delete: 0,
        unchanged: 0,
        rejected: noted.rejected,
        samples: Samples::default(),
    };
    digest.update(format!("{}\0{}\0{complete}\0{}\0", noted.of.tenant, plan.source, noted.rejected));
    let standing: BTreeMap<&str, &Record> = standing.iter().map(|record| (record.key.key.as_str(), record)).collect();
    let keys: BTreeSet<&str> = noted.items.keys().map(String::as_str).chain(standing.keys().copied()).collect();
    for key in keys {
        let (item, old) = (noted.items.get(key), standing.get(key));
        let whole = item.zip(old).and_then(|(item, old)| item.over(old));
        // What is older than what is known changes nothing, unless its source is partial.
        let counts = |item: &Item, old: &Record| whole.is_some() || item.order > order(old);
        let item = whole.as_ref().or(item);
        let (change, count, samples) = match (item, old) {
            (Some(item), None) if !item.gone() => ("create", &mut plan.create, Some(&mut plan.samples.create)),
            (Some(item), Some(old)) if item.gone() && counts(item, old) => {
                ("delete", &mut plan.delete, Some(&mut plan.samples.delete))
            }
            (Some(item), Some(old)) if !item.gone() && counts(item, old) && item.content != content(old) => {
                ("update", &mut plan.update, Some(&mut plan.samples.update))
            }
            (None, Some(_)) if complete => ("delete", &mut plan.delete, Some(&mut plan.samples.delete)),
            (Some(_), Some(_)) => ("", &mut plan.unchanged, None),
            _ => continue,
        };
        *count += 1;
        let Some(samples) = samples else { continue };
        let now = item.map(|item| item.content);
        digest.update(format!("{change}\0{key}\0{now:?}\0{:?}\n", old.map(|old| content(old))));
        if samples.len() < SAMPLES {
            samples.extend(item.map(|item| item.shown.clone()).or_else(|| old.map(|old| Sample::of(old))));
        }
    }
    plan.digest = hex::encode(&digest.finalize()[..16]);
    plan
}

struct Waiting {
    noted: Noted,
    complete: bool,
    /// Since what it says is staged. However often it is looked at, it waits no longer: the ledger gives it up.
    since: Instant,
}

/// The plans that wait, by tenant and digest.
pub struct Plans {
    waiting: Mutex<BTreeMap<(String, String), Waiting>>,
    room: Arc<Room>,
    gauge: Gauge,
}

impl Default for Plans {
    fn default() -> Self {
        Plans::with_bytes(PLAN_BYTES)
    }
}

impl Plans {
    /// Plans of which so much is noted at most, bytes.
    pub fn with_bytes(bound: usize) -> Self {
        let room = Arc::new(Room { bound, taken: Mutex::default() });
        Plans { waiting: Mutex::default(), room, gauge: Gauge::default() }
    }

    /// Bytes of what is noted.
    pub fn bytes(&self) -> usize {
        self.room.taken().values().sum()
    }

    /// Makes its metric known.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("plans_waiting", "Plans of inventory runs that wait to be applied", self.gauge.clone());
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<(String, String), Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a plan. One of the same source gives way to it, those that waited too long do, and where its tenant has as many
    /// as may be the oldest of these.
    fn keep(self: &Arc<Self>, digest: &str, plan: Waiting) {
        let tenant = plan.noted.notes.of.tenant.clone();
        let source = |noted: &Noted| {
            let of = &noted.notes.of;
            (of.tenant.clone(), of.name.clone(), of.instance.clone())
        };
        let mut waiting = self.waiting();
        forget(&mut waiting, |_, old| source(&old.noted) == source(&plan.noted) || old.since.elapsed() >= KEPT);
        let own = waiting.iter().filter(|((of, _), _)| *of == tenant);
        let mut own: Vec<_> = own.map(|(key, old)| (old.since, key.clone())).collect();
        own.sort();
        let over = (own.len() + 1).saturating_sub(MAX_PLANS);
        let over: BTreeSet<(String, String)> = own.into_iter().take(over).map(|(_, key)| key).collect();
        forget(&mut waiting, |key, _| over.contains(key));
        let until = plan.since + KEPT;
        waiting.insert((tenant, digest.to_owned()), plan);
        self.gauge.set(waiting.len() as i64);
        drop(waiting);
        // Nobody may ask for it any more.
        let plans = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(until.into()).await;
            if let Some(plans) = plans.upgrade() {
                plans.expire(Instant::now());
            }
        });
    }

    /// Forgets those that waited too long.
    fn expire(&self, now: Instant) {
        let mut waiting = self.waiting();
        forget(&mut waiting, |_, old| now.saturating_duration_since(old.since) >= KEPT);
        self.gauge.set(waiting.len() as i64);
    }

    fn take(&self, tenant: &str, digest: &str, now: Instant) -> Option<Waiting> {
        let mut waiting = self.waiting();
        let taken = waiting.remove(&(tenant.to_owned(), digest.to_owned()));
        self.gauge.set(waiting.len() as i64);
        drop(waiting);
        let taken = taken?;
        if now.saturating_duration_since(taken.since) < KEPT {
            return Some(taken);
        }
        tokio::spawn(Box::new(taken.noted).discard());
        None
    }
}

/// Forgets some plans.
fn forget(waiting: &mut BTreeMap<(String, String), Waiting>, gone: impl Fn(&(String, String), &Waiting) -> bool) {
    let gone: Vec<(String, String)> =
        waiting.iter().filter(|(key, old)| gone(key, old)).map(|(k, _)| k.clone()).collect();
    for old in gone.iter().filter_map(|key| waiting.remove(key)) {
        // What is left of it would be given up by itself, later.
        tokio::spawn(Box::new(old.noted).discard());
    }
}

fn too_large(what: &str) -> Response {
    let detail = format!("{what} {MAX_LISTED} items or more: too many to plan");
    problem(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &detail, json!({}))
}

/// There is no room to note it: other plans of the tenant hold it, or other tenants'.
fn no_room() -> Response {
    let detail = format!(
        "there is no memory left to plan so much; apply or forget plans that wait (they are forgotten after {} s), or plan \
         less at once",
        KEPT.as_secs()
    );
    problem(StatusCode::PAYLOAD_TOO_LARGE, "memory_limit", &detail, json!({}))
}

impl Api {
    /// Plans what was noted, or forgets it and says why not.
    pub(crate) async fn planned(&self, noted: Noted, complete: bool) -> Result<Plan, Response> {
        if noted.notes.listed >= MAX_LISTED {
            let _ = Box::new(noted).discard().await;
            return Err(too_large("it lists"));
        }
        if noted.notes.is_too_large {
            let _ = Box::new(noted).discard().await;
            return Err(no_room());
        }
        let since = Instant::now();
        match self.compared(&noted.notes, complete).await {
            Ok(plan) => {
                self.plans.keep(&plan.digest, Waiting { noted, complete, since });
                Ok(plan)
            }
            Err(refused) => {
                let _ = Box::new(noted).discard().await;
                Err(refused)
            }
        }
    }

    /// What a run would change now.
    async fn compared(&self, noted: &Notes, complete: bool) -> Result<Plan, Response> {
        // Finding reads every device: it counts among the questions a tenant may ask at once.
        let _running = self.engine.admit(&noted.of.tenant).await.map_err(|e| refuse(&e, ""))?;
        let (tenant, kind, instance) = (noted.of.tenant.clone(), noted.of.kind, noted.of.speaker());
        let found = self.records.find(RecordQuery::Listed { tenant, kind, instance }).await.ok_or_else(|| {
            problem(StatusCode::SERVICE_UNAVAILABLE, "catching_up", "the dataflow is busy; ask again later", json!({}))
        })?;
        if found.len() >= MAX_LISTED {
            return Err(too_large("the source has"));
        }
        let standing: Vec<Record> = found.into_iter().map(|found| found.record).collect();
        Ok(plan(noted, complete, &standing))
    }
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
        return Err(problem(StatusCode::NOT_FOUND, "not_found", &detail, json!({})));
    };
    let mut noted = Noted::begin(&api, of.clone());
    if let Err(error) = api.asked.read(&of, &mut noted).await {
        let _ = Box::new(noted).discard().await;
        return Err(match error {
            ReadError::Append(error) => not_durable(&error),
            ReadError::Source(detail) => problem(StatusCode::BAD_GATEWAY, "source_unreadable", &detail, json!({})),
        });
    }
    Ok(axum::Json(api.planned(noted, true).await?).into_response())
}

/// Applies a plan, if it still is one: exactly what it said, or nothing.
#[utoipa::path(
    post, path = "/api/plans/{digest}/apply", tag = "inventories",
    params(("digest" = String, Path, description = "The plan.")),
    responses((status = 200, description = "Since when it is applied.", body = Done))
)]
pub(crate) async fn apply_plan(
    State(api): State<Shared>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let actor = api.allowed(&headers, Action::Import)?;
    actor.whole("a plan")?;
    let Some(waiting) = api.plans.take(&actor.tenant, &digest, Instant::now()) else {
        let detail = format!("no plan {digest} waits; one that is not applied is forgotten after {} s", KEPT.as_secs());
        return Err(problem(StatusCode::NOT_FOUND, "not_found", &detail, json!({})));
    };
    // Nobody else can apply it meanwhile.
    match api.compared(&waiting.noted.notes, waiting.complete).await {
        Ok(plan) if plan.digest == digest => {}
        Ok(plan) => {
            api.plans.keep(&plan.digest, waiting);
            let detail = format!("what stands has changed since; what would change now is plan {}", plan.digest);
            return Err(problem(StatusCode::CONFLICT, "plan_outdated", &detail, json!({"plan": plan})));
        }
        Err(refused) => {
            api.plans.keep(&digest, waiting);
            return Err(refused);
        }
    }
    let ending = if waiting.complete { Ending::Approved } else { Ending::Part };
    let by = Brought { actor: actor.name.clone(), plan: Some(digest) };
    let epoch = Box::new(waiting.noted).end(ending, Some(by)).await.map_err(|e| not_durable(&e))?;
    Ok(axum::Json(Done { epoch }).into_response())
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
    match api.plans.take(&actor.tenant, &digest, Instant::now()) {
        Some(waiting) => {
            Box::new(waiting.noted).discard().await.map_err(|e| not_durable(&e))?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        None => Err(problem(StatusCode::NOT_FOUND, "not_found", &format!("no plan {digest} waits"), json!({}))),
    }
}

#[cfg(test)]
mod tests {
    use radarflow_proto::record::SourceKind;

    use super::*;

    struct Nothing;

    #[async_trait]
    impl InventoryRun for Nothing {
        async fn page(&mut self, _: Vec<DeviceUpdate>) -> Result<(), AppendError> {
            Ok(())
        }
        async fn end(self: Box<Self>, _: Ending, _: Option<Brought>) -> Result<u64, AppendError> {
            Ok(1)
        }
        async fn discard(self: Box<Self>) -> Result<u64, AppendError> {
            Ok(1)
        }
    }

    fn notes(plans: &Plans, tenant: &str, instance: &str) -> Notes {
        let of = RunOf {
            tenant: tenant.into(),
            partition: "default".into(),
            bound: false,
            kind: SourceKind::NetBox,
            name: "netbox".into(),
            instance: instance.into(),
            run: "1".into(),
        };
        Notes {
            of,
            instances: Instances::default(),
            partial: false,
            items: BTreeMap::new(),
            listed: 0,
            rejected: 0,
            held: Held { room: plans.room.clone(), tenant: tenant.into(), bytes: 0 },
            is_too_large: false,
        }
    }

    fn noted(plans: &Plans, tenant: &str, instance: &str) -> Noted {
        Noted { run: Box::new(Nothing), notes: notes(plans, tenant, instance) }
    }

    fn waiting(plans: &Plans, tenant: &str, instance: &str, since: Instant) -> Waiting {
        Waiting { noted: noted(plans, tenant, instance), complete: true, since }
    }

    fn item(n: usize) -> DeviceUpdate {
        serde_json::from_value(
            json!({"source": "netbox", "ip": "10.0.0.1", "hostname": format!("h{n}"), "timestamp": 5,
            "metadata": {"netbox_device_id": n.to_string()}, "sync_meta": {"sync_service_id": "dc1"}}),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_plan_waits_no_longer_than_its_run_is_staged() {
        let (plans, now) = (Arc::new(Plans::default()), Instant::now());
        plans.keep("a", waiting(&plans, "t", "dc1", now));
        // Looked at again, it is as old as it was.
        let again = plans.take("t", "a", now + KEPT / 2).unwrap();
        plans.keep("a", again);
        assert!(plans.take("t", "a", now + KEPT).is_none());
        // Another of its source takes its place; and nobody else sees it.
        plans.keep("a", waiting(&plans, "t", "dc1", now));
        plans.keep("b", waiting(&plans, "t", "dc1", now));
        assert!(plans.take("t", "a", now).is_none() && plans.take("u", "b", now).is_none());
        assert!(plans.take("t", "b", now).is_some());
        // Where nobody asks any more it goes all the same, and what it held.
        plans.keep("a", waiting(&plans, "t", "dc1", now));
        plans.expire(now + KEPT);
        assert_eq!((plans.waiting().len(), plans.gauge.get()), (0, 0));
    }

    #[tokio::test]
    async fn a_plan_gives_way_only_to_one_of_its_tenant() {
        let (plans, now) = (Arc::new(Plans::default()), Instant::now());
        plans.keep("first", waiting(&plans, "u", "dc1", now));
        let since = |n: usize| now + Duration::from_millis(n as u64);
        for n in 0..MAX_PLANS + 3 {
            plans.keep(&n.to_string(), waiting(&plans, "t", &n.to_string(), since(n)));
        }
        assert_eq!(plans.waiting().len(), MAX_PLANS + 1);
        assert!(plans.take("u", "first", now).is_some(), "another tenant's is the oldest, and stays");
        let left = |n: usize| plans.take("t", &n.to_string(), now).is_some();
        assert!(!left(2) && left(3), "the oldest of its own go");
    }

    #[tokio::test]
    async fn what_is_noted_takes_memory_and_leaves_as_much_to_others() {
        let bound = 1 << 20;
        let plans = Arc::new(Plans::with_bytes(bound));
        let page: Vec<DeviceUpdate> = (0..100).map(item).collect();
        let mut greedy = noted(&plans, "t", "dc1");
        while !greedy.notes.is_too_large {
            assert!(greedy.notes.listed < MAX_LISTED);
            let next = (0..100).map(|n| item(greedy.notes.listed + n)).collect();
            greedy.page(next).await.unwrap();
            assert!(plans.bytes() <= bound / 2, "{}", plans.bytes());
        }
        assert!(greedy.notes.listed > 100 && greedy.notes.items.is_empty());
        assert_eq!(plans.bytes(), 0, "what is refused holds nothing");
        // Plans that wait hold what they took; somebody else still has room, and it comes back with them.
        let mut kept = 0;
        loop {
            let mut noted = noted(&plans, "t", &kept.to_string());
            noted.page(page.clone()).await.unwrap();
            if noted.notes.is_too_large || kept == MAX_PLANS {
                break;
            }
            let (complete, since) = (true, Instant::now());
            plans.keep(&kept.to_string(), Waiting { noted, complete, since });
            kept += 1;
        }
        assert!(plans.bytes() > 0);
        let mut other = noted(&plans, "u", "dc1");
        other.page(page.clone()).await.unwrap();
        assert!(!other.notes.is_too_large && other.notes.items.len() == 100);
        drop((greedy, other));
        plans.expire(Instant::now() + KEPT);
        while plans.bytes() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_partial_source_said_takes_memory_whenever_it_is_said() {
        let plans = Plans::default();
        let mut noted = noted(&plans, "t", "dc1");
        noted.notes.partial = true;
        noted.page(vec![item(1)]).await.unwrap();
        let once = plans.bytes();
        noted.page(vec![item(1)]).await.unwrap();
        assert!(once > 0 && plans.bytes() > once);
    }
}
