//! What waits for Postgres.
//!
//! ```text
//! batch    = by (table, key) the newest change and its epoch; batches of event tables, in order of epochs
//! fold     = whoever takes an epoch, under the lock; no I/O, nothing that grows with what waits but a look-up a key
//! taken    = the writer takes the whole batch at once; what failed is merged under what came since, outside of the lock
//! bound    = bytes of the batch and of what the writer holds; beyond it all of it is let go: the truth has it
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{StateRow, Table};
use tokio::sync::Notify;

use crate::sinks::Applied;

/// What an entry takes beside its key and its row, about.
const ENTRY_BYTES: usize = 128;

/// A change of a key: its epoch, and the row it left.
type Newest = (u64, Option<StateRow>);

/// Changes of some epochs.
#[derive(Default)]
pub(super) struct Batch {
    /// Net change by table and key.
    pub(super) state: BTreeMap<(Table, Arc<str>), Newest>,
    /// Rows of event tables, in order of epochs.
    pub(super) events: Vec<(u64, Table, RecordBatch)>,
    /// What it takes.
    pub(super) bytes: usize,
    /// The newest epoch of it; 0 where there is none.
    pub(super) newest: u64,
}

fn entry_bytes(key: &str, row: Option<&StateRow>) -> usize {
    ENTRY_BYTES + key.len() + row.map_or(0, StateRow::bytes)
}

impl Batch {
    fn fold(&mut self, output: &EpochOutput) {
        self.newest = output.epoch;
        for change in &output.changes {
            self.change((change.table, change.key.clone()), (output.epoch, change.after.clone()));
        }
        for (table, batch) in output.events.iter().filter(|(table, _)| !table.postgres().is_empty()) {
            self.bytes += batch.get_array_memory_size();
            self.events.push((output.epoch, *table, batch.clone()));
        }
    }

    fn change(&mut self, key: (Table, Arc<str>), newest: Newest) {
        self.bytes += entry_bytes(&key.1, newest.1.as_ref());
        let text = key.1.clone();
        if let Some((_, before)) = self.state.insert(key, newest) {
            self.bytes -= entry_bytes(&text, before.as_ref());
        }
    }

    /// Adds what came later.
    pub(super) fn merge(&mut self, later: Batch) {
        if self.newest == 0 {
            *self = later;
            return;
        }
        self.newest = self.newest.max(later.newest);
        let events: usize = later.events.iter().map(|(.., batch)| batch.get_array_memory_size()).sum();
        self.bytes += events;
        self.events.extend(later.events);
        for (key, newest) in later.state {
            self.change(key, newest);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Changes are kept and written.
    Follow,
    /// Changes are not kept: the truth has them, and the database is resynchronised.
    LetGo,
    /// The sink is no more.
    Stopped,
}

struct Inner {
    mode: Mode,
    batch: Batch,
    /// Bytes that the writer holds.
    held: usize,
    /// The newest epoch that was taken.
    newest: u64,
    /// The database has everything up to here.
    written: u64,
    closed: bool,
}

/// What there is to do.
pub(super) enum Work {
    /// Changes.
    Write(Batch),
    /// The database is to be filled from the truth.
    Resync,
}

pub(super) struct Waiting {
    inner: Mutex<Inner>,
    changed: Notify,
    bound: usize,
    bytes: Arc<AtomicUsize>,
    applied: Applied,
}

impl Waiting {
    pub(super) fn new(bound: usize) -> Waiting {
        let batch = Batch::default();
        Waiting {
            inner: Mutex::new(Inner { mode: Mode::Follow, batch, held: 0, newest: 0, written: 0, closed: false }),
            changed: Notify::new(),
            bound,
            bytes: Arc::default(),
            applied: Applied::default(),
        }
    }

    pub(super) fn bytes(&self) -> &Arc<AtomicUsize> {
        &self.bytes
    }

    pub(super) fn applied(&self) -> &Applied {
        &self.applied
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, inner: &Inner) {
        self.bytes.store(inner.batch.bytes + inner.held, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Takes an epoch.
    pub(super) fn take(&self, output: &EpochOutput) {
        // What is let go is freed, and told of, after the lock.
        let mut gone = None;
        let mut inner = self.lock();
        inner.newest = inner.newest.max(output.epoch);
        if inner.mode != Mode::Follow {
            // All of it is in the truth.
            self.applied.set(output.epoch);
        } else if output.epoch > inner.written {
            inner.batch.fold(output);
            if inner.batch.bytes + inner.held > self.bound {
                gone = Some(self.give_up(&mut inner, Mode::LetGo));
            }
        }
        self.tell(&inner);
        drop(inner);
        if gone.is_some() {
            tracing::warn!("Postgres has missed much; it is resynchronised when it is back");
        }
    }

    fn give_up(&self, inner: &mut Inner, mode: Mode) -> Batch {
        inner.mode = mode;
        self.applied.set(inner.newest);
        std::mem::take(&mut inner.batch)
    }

    /// Gives up what waits, and what comes: the truth has it.
    pub(super) fn let_go(&self) {
        let mut inner = self.lock();
        let gone = self.give_up(&mut inner, Mode::LetGo);
        inner.held = 0;
        self.tell(&inner);
        drop(inner);
        drop(gone);
    }

    /// The sink ends. What comes must not wait for one that is no more.
    pub(super) fn stop(&self) {
        let mut inner = self.lock();
        let gone = self.give_up(&mut inner, Mode::Stopped);
        inner.held = 0;
        self.tell(&inner);
        drop(inner);
        drop(gone);
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        self.tell(&inner);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits until there is something to do beside what the writer holds, which counts as waiting until
    /// [`Waiting::written`] says otherwise. `None`: nothing will come any more.
    pub(super) async fn work(&self, held: bool) -> Option<Work> {
        loop {
            {
                let mut inner = self.lock();
                if inner.mode == Mode::LetGo {
                    inner.held = 0;
                    return Some(Work::Resync);
                }
                if held || inner.batch.newest > 0 {
                    let batch = std::mem::take(&mut inner.batch);
                    inner.held += batch.bytes;
                    return Some(Work::Write(batch));
                }
                if inner.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// What the writer held is in the database, up to an epoch.
    pub(super) fn written(&self, epoch: u64) {
        let mut inner = self.lock();
        inner.held = 0;
        inner.written = inner.written.max(epoch);
        self.applied.set(epoch);
        self.tell(&inner);
    }

    /// A resynchronisation begins: what comes from now on is kept. The truth must be at this epoch, at least, to have what
    /// was let go.
    pub(super) fn begin_resync(&self) -> u64 {
        let mut inner = self.lock();
        inner.mode = Mode::Follow;
        inner.newest
    }
}

#[cfg(test)]
mod tests {
    use radarflow_proto::rows::{Change, DeviceGroup};

    use super::*;

    fn group(name: &str, epoch: u64, description: &str) -> StateRow {
        DeviceGroup {
            tenant_id: "t".into(),
            partition: "p".into(),
            name: name.into(),
            condition: None,
            members: Vec::new(),
            description: description.into(),
            actor: String::new(),
            reason: String::new(),
            owner: None,
            epoch: epoch as i64,
        }
        .into()
    }

    fn epoch(epoch: u64, names: &[&str], text: &str) -> EpochOutput {
        let change = |name: &&str| Change::new(None, Some(group(name, epoch, text))).unwrap();
        EpochOutput { epoch, changes: names.iter().map(change).collect(), ..EpochOutput::default() }
    }

    async fn batch(waiting: &Waiting, held: bool) -> Batch {
        match waiting.work(held).await {
            Some(Work::Write(batch)) => batch,
            _ => panic!("changes wait"),
        }
    }

    #[tokio::test]
    async fn what_failed_is_merged_under_what_came_later_and_nothing_is_claimed_before_it_is_written() {
        let waiting = Waiting::new(1 << 20);
        waiting.take(&epoch(1, &["a", "b"], "old"));
        let mut held = batch(&waiting, false).await;
        let before = waiting.bytes().load(Ordering::Relaxed);
        assert!(before > 0 && before == held.bytes);
        waiting.take(&epoch(2, &["b", "c"], "new"));
        held.merge(batch(&waiting, true).await);
        let descriptions: Vec<_> = held
            .state
            .values()
            .map(|(epoch, row)| match row {
                Some(StateRow::DeviceGroup(row)) => (*epoch, row.description.clone()),
                _ => panic!("a group"),
            })
            .collect();
        assert_eq!(descriptions, [(1, "old".into()), (2, "new".into()), (2, "new".into())]);
        let bytes: usize = held.state.iter().map(|((_, key), (_, row))| entry_bytes(key, row.as_ref())).sum();
        assert_eq!(held.bytes, bytes);
        assert_eq!((held.newest, waiting.applied().get()), (2, 0));
        waiting.written(2);
        assert_eq!((waiting.bytes().load(Ordering::Relaxed), waiting.applied().get()), (0, 2));
        // Said again.
        waiting.take(&epoch(2, &["b"], "new"));
        assert_eq!(waiting.bytes().load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_the_writer_holds_counts_and_large_rows_count_as_large() {
        let waiting = Waiting::new(100_000);
        waiting.take(&epoch(1, &["a"], &"x".repeat(60_000)));
        let _held = batch(&waiting, false).await;
        // A key that changes again and again takes no more than once.
        for n in 2..100 {
            waiting.take(&epoch(n, &["b"], &"x".repeat(30_000)));
        }
        assert_eq!(waiting.applied().get(), 0, "it fits");
        waiting.take(&epoch(100, &["c"], &"x".repeat(30_000)));
        assert_eq!(waiting.applied().get(), 100, "it does not: the truth has it");
        assert!(matches!(waiting.work(true).await, Some(Work::Resync)));
        assert_eq!(waiting.begin_resync(), 100);
        waiting.take(&epoch(101, &["d"], "kept again"));
        assert_eq!((batch(&waiting, false).await.newest, waiting.applied().get()), (101, 100));
    }
}
