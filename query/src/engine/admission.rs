//! Who may ask now, and on what threads. Every tenant has so many places, all together so many; whoever finds none waits,
//! for as long as is decent. Plans run on threads of their own, so that a heavy one keeps no socket waiting; one whose
//! asker has left is ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::Notify;

use crate::engine::cancel::{Work, within};
use crate::error::QueryError;

/// Queries at once.
pub const CONCURRENT: usize = 16;
/// Queries of one tenant at once: the others keep room.
pub const CONCURRENT_TENANT: usize = 8;
/// Queries that may wait for room; more are refused.
pub const WAITING: i64 = 1024;
/// How long one waits.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Stack of the threads that plan and run, bytes: plans are walked by recursion.
const STACK: usize = 32 << 20;

/// The places there are.
#[derive(Default)]
pub(crate) struct Places {
    /// Taken ones, by tenant.
    by_tenant: Mutex<BTreeMap<String, usize>>,
    /// Somebody's place is free again.
    freed: Notify,
    /// Queries under way, all together.
    pub(crate) running: Gauge,
    /// Queries that wait for a place.
    pub(crate) waiting: Gauge,
}

/// A place, until it is dropped.
pub(crate) struct Running(Arc<Places>, String);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.dec();
        let mut taken = self.0.by_tenant();
        if let Some(n) = taken.get_mut(&self.1) {
            *n -= 1;
            if *n == 0 {
                taken.remove(&self.1);
            }
        }
        drop(taken);
        self.0.freed.notify_waiters();
    }
}

/// A query that waits for a place.
struct Waits<'a>(&'a Gauge);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Places {
    fn by_tenant(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> usize {
        self.by_tenant().values().sum()
    }

    fn take(self: &Arc<Self>, tenant: &str) -> Option<Running> {
        let mut taken = self.by_tenant();
        let of_tenant = taken.get(tenant).copied().unwrap_or(0);
        if of_tenant >= CONCURRENT_TENANT || taken.values().sum::<usize>() >= CONCURRENT {
            return None;
        }
        taken.insert(tenant.to_owned(), of_tenant + 1);
        drop(taken);
        self.running.inc();
        Some(Running(self.clone(), tenant.to_owned()))
    }

    /// A place for one of a tenant's questions; waits for it as long as is decent.
    pub(crate) async fn admit(self: &Arc<Self>, tenant: &str) -> Result<Running, QueryError> {
        let _waits = Waits(&self.waiting);
        if self.waiting.inc() >= WAITING {
            return Err(QueryError::Busy);
        }
        let turn = async {
            loop {
                let freed = self.freed.notified();
                tokio::pin!(freed);
                // From here on nobody's leaving is missed.
                freed.as_mut().enable();
                if let Some(running) = self.take(tenant) {
                    return running;
                }
                freed.await;
            }
        };
        tokio::time::timeout(PATIENCE, turn).await.map_err(|_| QueryError::Busy)
    }
}

/// The threads that plans run on.
pub(crate) struct Threads(Option<tokio::runtime::Runtime>);

impl Threads {
    pub(crate) fn start() -> std::io::Result<Self> {
        // Plans give way now and then, not always soon: with a thread for each of their parts none waits for another, and
        // the system shares the processors.
        let parts = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(CONCURRENT * (parts + 1))
            .thread_name("query")
            .thread_stack_size(STACK)
            .enable_all()
            .build()?;
        Ok(Threads(Some(runtime)))
    }

    /// Runs a task as the work of a query; `None` when the process ends.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: Arc<Work>,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<Ended<T>> {
        let left = Arc::downgrade(&work);
        let handle = self.0.as_ref()?.spawn(within(work, task));
        Some(Ended { handle, work: left })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // It may be dropped where nothing may block.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that ends when nobody waits for it, with all that it started.
pub(crate) struct Ended<T> {
    pub(crate) handle: tokio::task::JoinHandle<T>,
    /// The task has it, and all that it started.
    work: Weak<Work>,
}

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        if !self.handle.is_finished() {
            if let Some(work) = self.work.upgrade() {
                work.leave();
            }
            self.handle.abort();
        }
    }
}
