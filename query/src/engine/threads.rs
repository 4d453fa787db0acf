//! The threads that plans run on, apart from those of sockets: a heavy one keeps no socket waiting, and one whose asker has
//! left is ended.

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use crate::engine::admission::CONCURRENT;

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
    pub(crate) fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> Option<Ended<T>> {
        Some(Ended(self.0.as_ref()?.spawn(task)))
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

/// A task that ends when nobody waits for it.
pub(crate) struct Ended<T>(pub(crate) JoinHandle<T>);

impl<T> Drop for Ended<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
