//! Who may ask now. Every tenant has so many places, all together so many; whoever finds none waits in turn, for as long as is
//! decent.
//!
//! ```text
//! queue (who may wait) ─► places of the tenant ─► places of all ─► running
//! ```
//! Places are given in the order they were asked for. Those of the tenant come first: a tenant that has all of its own waits
//! for itself, and stands in nobody's way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::error::QueryError;

/// Queries at once.
pub const CONCURRENT: usize = 16;
/// Queries of one tenant at once: the others keep room.
pub const CONCURRENT_TENANT: usize = 8;
/// Queries that may wait for room; more are refused.
pub const WAITING: usize = 1024;
/// How long one waits.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The places there are.
pub(crate) struct Places {
    queue: Semaphore,
    all: Arc<Semaphore>,
    /// Of tenants that have some, or wait for some.
    by_tenant: Mutex<BTreeMap<String, Weak<Semaphore>>>,
    /// Queries under way, all together.
    pub(crate) running: Gauge,
    /// Queries that wait for a place.
    pub(crate) waiting: Gauge,
}

impl Default for Places {
    fn default() -> Self {
        let (queue, all) = (Semaphore::new(WAITING), Arc::new(Semaphore::new(CONCURRENT)));
        let (by_tenant, running, waiting) = (Mutex::default(), Gauge::default(), Gauge::default());
        Places { queue, all, by_tenant, running, waiting }
    }
}

/// A place, until it is dropped.
pub(crate) struct Running {
    _places: [OwnedSemaphorePermit; 2],
    _counted: Counted,
}

/// Something that a gauge counts until it is dropped.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Places {
    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        CONCURRENT - self.all.available_permits()
    }

    /// The places of a tenant. Those of tenants that neither have nor want any are forgotten.
    fn of(&self, tenant: &str) -> Arc<Semaphore> {
        let mut by_tenant = self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_tenant.get(tenant).and_then(Weak::upgrade) {
            return known;
        }
        by_tenant.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(CONCURRENT_TENANT));
        by_tenant.insert(tenant.to_owned(), Arc::downgrade(&places));
        places
    }

    /// A place for one of a tenant's questions; waits for it as long as is decent.
    pub(crate) async fn admit(&self, tenant: &str) -> Result<Running, QueryError> {
        let _turn = self.queue.try_acquire().map_err(|_| QueryError::Busy)?;
        let _waits = Counted::new(&self.waiting);
        let places = async {
            let own = self.of(tenant).acquire_owned().await?;
            Ok::<_, AcquireError>([own, self.all.clone().acquire_owned().await?])
        };
        // They are never closed.
        let places = tokio::time::timeout(PATIENCE, places).await.ok().and_then(Result::ok);
        Ok(Running { _places: places.ok_or(QueryError::Busy)?, _counted: Counted::new(&self.running) })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::join_all;

    use super::*;

    /// Places that are free now.
    async fn take(places: &Places, tenant: &str, n: usize) -> Vec<Running> {
        join_all((0..n).map(|_| places.admit(tenant))).await.into_iter().collect::<Result<_, _>>().unwrap()
    }

    #[tokio::test]
    async fn a_tenant_has_so_many_and_all_together_so_many() {
        let places = Places::default();
        let mut of_t = take(&places, "t", CONCURRENT_TENANT).await;
        let mut waits = Box::pin(places.admit("t"));
        assert!((&mut waits).now_or_never().is_none(), "it has all of its own");
        let _of_u = take(&places, "u", CONCURRENT - CONCURRENT_TENANT).await;
        assert_eq!((places.taken(), places.running.get(), places.waiting.get()), (CONCURRENT, CONCURRENT as i64, 1));
        let mut other = Box::pin(places.admit("v"));
        assert!((&mut other).now_or_never().is_none(), "there is none left for anybody");
        of_t.pop();
        // Whoever waited for any place came first; whoever waits for one of a tenant's own did not stand in the way.
        let admitted = (&mut other).now_or_never();
        assert!(admitted.is_some() && (&mut waits).now_or_never().is_none());
        drop(admitted);
        assert!((&mut waits).now_or_never().is_some());
    }

    #[tokio::test]
    async fn places_are_given_in_turn() {
        let places = Places::default();
        let mut taken = take(&places, "t", CONCURRENT_TENANT).await;
        let (mut first, mut second) = (Box::pin(places.admit("t")), Box::pin(places.admit("t")));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        taken.pop();
        assert!((&mut second).now_or_never().is_none(), "it is the turn of the first");
        assert!((&mut first).now_or_never().is_some());
    }

    #[tokio::test]
    async fn so_many_may_wait_and_who_leaves_gives_back_all_of_it() {
        let places = Places::default();
        let taken = take(&places, "t", CONCURRENT_TENANT).await;
        let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(places.admit("t"))).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        assert_eq!(places.waiting.get(), WAITING as i64);
        assert!(matches!(places.admit("u").await, Err(QueryError::Busy)));
        drop(waiting);
        assert_eq!(places.waiting.get(), 0);
        drop(taken);
        let again = take(&places, "t", CONCURRENT_TENANT).await;
        assert_eq!((places.taken(), places.running.get()), (CONCURRENT_TENANT, CONCURRENT_TENANT as i64));
        drop(again);
        // Nothing is kept of tenants that are gone.
        drop(take(&places, "u", 1).await);
        assert_eq!((places.taken(), places.by_tenant.lock().unwrap().len()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let places = Places::default();
        let _taken = take(&places, "t", CONCURRENT_TENANT).await;
        let began = tokio::time::Instant::now();
        assert!(matches!(places.admit("t").await, Err(QueryError::Busy)));
        assert_eq!(began.elapsed(), PATIENCE);
    }
}
