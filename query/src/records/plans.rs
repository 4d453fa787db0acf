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
//! What is noted of runs takes memory out of one [`Room`] ([`PLAN_BYTES`]); a run that does not fit is refused. A tenant's plan gives way only to another of the same tenant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use radarflow_proto::payload::Brought;
use radarflow_proto::ports::{Ending, InventoryRun, MAX_LISTED, RecordQuery, RunOf};
use radarflow_proto::record::Record;
use radarflow_proto::room::{Held, Room};

use crate::actor::Actor;
use crate::records::notes::{Noted, Notes};
use crate::records::plan::{Plan, plan};
use crate::records::{Finder, Refused, held};

/// Plans of one tenant that wait to be applied.
pub const MAX_PLANS: usize = 16;
/// Bytes of what is noted of runs, of all tenants, where nothing else is said.
pub const PLAN_BYTES: usize = 256 << 20;
/// How long a plan waits. What is staged is given up after fifteen minutes.
pub const KEPT: Duration = Duration::from_secs(600);

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
        Plans { waiting: Mutex::default(), room: Room::of(bound), gauge: Gauge::default() }
    }

    /// Bytes of what is noted.
    pub fn bytes(&self) -> usize {
        self.room.bytes()
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

    /// Room for what is noted of a run.
    pub(super) fn hold(&self, tenant: &str) -> Held {
        self.room.hold(tenant)
    }

    /// Plans what was noted, or forgets it and says why not.
    pub(crate) async fn planned(
        self: &Arc<Self>,
        finder: &Finder<'_>,
        noted: Noted,
        complete: bool,
    ) -> Result<Plan, Refused> {
        let since = Instant::now();
        let compared = match &noted.notes {
            notes if notes.listed >= MAX_LISTED => Err(Refused::TooMany("it lists")),
            notes if notes.is_too_large => Err(Refused::NoRoom),
            notes => compared(finder, notes, complete).await,
        };
        match compared {
            Ok(plan) => {
                self.keep(&plan.digest, Waiting { noted, complete, since });
                Ok(plan)
            }
            Err(refused) => {
                let _ = Box::new(noted).discard().await;
                Err(refused)
            }
        }
    }

    /// Applies a plan if it still is one: exactly what it said, or nothing. Gives the epoch since which it is read,
    /// and the run.
    pub(crate) async fn apply(
        self: &Arc<Self>,
        finder: &Finder<'_>,
        actor: &Actor,
        digest: String,
    ) -> Result<(u64, RunOf), Refused> {
        let Some(waiting) = self.take(&actor.tenant, &digest, Instant::now()) else {
            let detail =
                format!("no plan {digest} waits; one that is not applied is forgotten after {} s", KEPT.as_secs());
            return Err(Refused::NotFound(detail));
        };
        let of = waiting.noted.notes.of.clone();
        let source = of.source();
        let held = held::held(&finder.engine.live().view(), &actor.tenant, Some(&source));
        if let Some(held) = held.into_iter().find(|held| held.rule == held::IDENTITY) {
            self.keep(&digest, waiting);
            return Err(Refused::Held(held));
        }
        // Nobody else can apply it meanwhile.
        match compared(finder, &waiting.noted.notes, waiting.complete).await {
            Ok(plan) if plan.digest == digest => {}
            Ok(plan) => {
                self.keep(&plan.digest, waiting);
                return Err(Refused::Outdated(Box::new(plan)));
            }
            Err(refused) => {
                self.keep(&digest, waiting);
                return Err(refused);
            }
        }
        let ending = if waiting.complete { Ending::Approved } else { Ending::Part };
        let by = Brought { actor: actor.name.clone(), plan: Some(digest) };
        Ok((Box::new(waiting.noted).end(ending, Some(by)).await?, of))
    }

    /// Forgets a plan, and its run with it.
    pub(crate) async fn forget(&self, tenant: &str, digest: &str) -> Result<(), Refused> {
        let waiting = self.take(tenant, digest, Instant::now());
        let waiting = waiting.ok_or_else(|| Refused::NotFound(format!("no plan {digest} waits")))?;
        Box::new(waiting.noted).discard().await?;
        Ok(())
    }
}

/// What a run would change now.
async fn compared(finder: &Finder<'_>, noted: &Notes, complete: bool) -> Result<Plan, Refused> {
    let (tenant, kind, instance) = (noted.of.tenant.clone(), noted.of.kind, noted.of.speaker());
    let found = finder.find(&noted.of.tenant, RecordQuery::Listed { tenant, kind, instance }).await?;
    if found.len() >= MAX_LISTED {
        return Err(Refused::TooMany("the source has"));
    }
    let standing: Vec<Record> = found.into_iter().map(|found| found.record).collect();
    Ok(plan(noted, complete, &standing))
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use radarflow_proto::payload::DeviceUpdate;
    use radarflow_proto::ports::AppendError;
    use radarflow_proto::record::SourceKind;
    use radarflow_reconcile::identity::sources::Instances;
    use serde_json::json;

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
        let held = plans.hold(tenant);
        let (instances, items) = (Instances::default(), BTreeMap::new());
        Notes { of, instances, partial: false, items, listed: 0, rejected: 0, held, is_too_large: false }
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
