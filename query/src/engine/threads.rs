//! The threads that plans run on, apart from those of sockets: a heavy one keeps no socket waiting, and one whose asker has
//! left is ended.

use std::sync::{Arc, Weak};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::engine::admission::CONCURRENT;
use crate::engine::cancel::{Work, within};

/// Stack of the threads that plan and run, bytes: plans are walked by recursion.
const STACK: usize = 32 << 20;

/// The threads that plans run on.
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// Starts them.
    pub(crate) fn start() -> std::io::Result<Self> {
        // Plans give way now and then, not always soon: with a thread for each of their parts none waits for another, and
        // the system shares the processors.
        let parts = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(CONCURRENT * (parts + 1))
            .thread_name("query")
            .thread_stack_size(STACK)
            .enable_all()
            .build()?;
        Ok(Threads(Some(runtime)))
    }

    /// Runs a task on them; nothing when the process ends.
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
    pub(crate) handle: JoinHandle<T>,
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
