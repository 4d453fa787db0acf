//! How much the dataflow keeps: updates and batches of its arrangements, keys of its machines. Read by metrics.
//!
//! Differential tells of every batch that an arrangement gets, merges and drops, by the identifier of its operator.
//! Operators are numbered as they are made, so whoever makes a part of the dataflow says where it begins
//! ([`Marks::part`]), and what comes after belongs to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use timely::dataflow::Scope;
use timely::worker::Worker;

/// The arrangements of one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Updates they hold.
    pub updates: i64,
    /// Batches they hold, empty ones included.
    pub batches: i64,
}

#[derive(Debug, Default)]
struct Counts {
    updates: AtomicI64,
    batches: AtomicI64,
}

/// What all workers keep.
#[derive(Debug, Default)]
pub struct Sizes {
    parts: Mutex<BTreeMap<&'static str, Arc<Counts>>>,
    /// Keys, a gauge a machine and worker.
    machines: Mutex<BTreeMap<(&'static str, usize), Arc<AtomicI64>>>,
    /// Changes of identity that the brakes keep from being published.
    withheld: Arc<AtomicI64>,
    /// Senders that made place for others or found none.
    evicted: AtomicU64,
    /// Rows of identity that checks found to be wrong.
    mended: AtomicU64,
    /// Spans that came when their trace was forgotten.
    late_spans: AtomicU64,
}

impl Sizes {
    /// By part of the dataflow.
    pub fn parts(&self) -> Vec<(&'static str, Size)> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |n: &AtomicI64| n.load(Ordering::Relaxed);
        parts.iter().map(|(part, h)| (*part, Size { updates: read(&h.updates), batches: read(&h.batches) })).collect()
    }

    /// Keys that have state, by machine.
    pub fn machines(&self) -> Vec<(&'static str, i64)> {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: BTreeMap<&'static str, i64> = BTreeMap::new();
        for ((machine, _), of_worker) in &*machines {
            *keys.entry(machine).or_default() += of_worker.load(Ordering::Relaxed);
        }
        keys.into_iter().collect()
    }

    /// What a worker says of one of its machines.
    pub fn machine(&self, name: &'static str, worker: usize) -> Arc<AtomicI64> {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.entry((name, worker)).or_default().clone()
    }

    /// Changes of identity that the brakes keep from being published.
    pub fn withheld(&self) -> &Arc<AtomicI64> {
        &self.withheld
    }

    /// Senders that made place for others or found none, in what decoders remember, in ledgers, counts and conditions.
    pub fn evicted(&self) -> &AtomicU64 {
        &self.evicted
    }

    /// Spans that came when their trace was forgotten: no summary has them.
    pub fn late_spans(&self) -> &AtomicU64 {
        &self.late_spans
    }

    /// Rows of identity that checks found to be wrong, and mended.
    pub fn mended(&self) -> &AtomicU64 {
        &self.mended
    }

    fn part(&self, name: &'static str) -> Arc<Counts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().clone()
    }
}

/// Where the parts of one worker's dataflow begin.
#[derive(Clone)]
pub struct Marks {
    begins: Rc<RefCell<Vec<(usize, Arc<Counts>)>>>,
    sizes: Arc<Sizes>,
}

impl Marks {
    /// Listens to the arrangements that a worker makes from now on.
    pub fn listen(worker: &Worker, sizes: Arc<Sizes>) -> Marks {
        let marks = Marks { begins: Rc::default(), sizes };
        let begins = marks.begins.clone();
        if let Some(mut register) = worker.log_register() {
            register.insert::<DifferentialEventBuilder, _>("differential/arrange", move |_, events| {
                for (_, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                    tell(&begins.borrow(), &event);
                }
            });
        }
        marks
    }

    /// What is made from now on belongs to a part.
    pub fn part<T: timely::progress::Timestamp>(&self, scope: Scope<'_, T>, name: &'static str) {
        self.begins.borrow_mut().push((scope.worker().peek_identifier(), self.sizes.part(name)));
    }
}

fn tell(begins: &[(usize, Arc<Counts>)], event: &DifferentialEvent) {
    let (operator, updates, batches) = match event {
        DifferentialEvent::Batch(batch) => (batch.operator, batch.length as i64, 1),
        DifferentialEvent::Merge(merge) => match merge.complete {
            Some(length) => (merge.operator, length as i64 - merge.length1 as i64 - merge.length2 as i64, -1),
            None => return,
        },
        DifferentialEvent::Drop(drop) => (drop.operator, -(drop.length as i64), -1),
        _ => return,
    };
    let after = begins.partition_point(|(begin, _)| *begin <= operator);
    if let Some((_, held)) = after.checked_sub(1).map(|at| &begins[at]) {
        held.updates.fetch_add(updates, Ordering::Relaxed);
        held.batches.fetch_add(batches, Ordering::Relaxed);
    }
}
