//! The lake as the spine sees it: rows wait, and are committed with the epoch of the newest; what was committed before is
//! dropped. (The lake itself is simulated in `lake.rs`.)

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use radarflow_pipeline::consumers::Consumer;
use radarflow_proto::ports::EpochOutput;

use crate::truth::{Truth, row_ids};

pub struct Lake {
    truth: Arc<Mutex<Truth>>,
    waiting: Mutex<Vec<Arc<EpochOutput>>>,
    applied: AtomicU64,
    newest: AtomicU64,
    /// Epochs that may wait.
    bound: usize,
}

impl Lake {
    pub fn new(truth: Arc<Mutex<Truth>>, bound: usize) -> Lake {
        let (applied, newest) = (AtomicU64::new(0), AtomicU64::new(0));
        Lake { truth, waiting: Mutex::default(), applied, newest, bound }
    }

    fn report(&self) {
        let first = self.waiting.lock().unwrap().first().map(|output| output.epoch);
        let applied = first.map_or(self.newest.load(Ordering::Relaxed), |first| first - 1);
        self.applied.fetch_max(applied, Ordering::Relaxed);
    }

    /// Commits the oldest of what waits.
    pub fn commit(&self, epochs: usize) {
        let (mut waiting, mut truth) = (self.waiting.lock().unwrap(), self.truth.lock().unwrap());
        let taken = epochs.min(waiting.len());
        for output in waiting.drain(..taken).collect::<Vec<_>>() {
            for id in row_ids(&output) {
                let before = truth.lake.insert(id, output.epoch);
                assert_eq!(before, None, "row {id:?} is there twice: of epochs {before:?} and {}", output.epoch);
            }
            truth.committed = output.epoch;
        }
        drop((truth, waiting));
        self.report();
    }
}

impl Consumer for Lake {
    fn name(&self) -> &'static str {
        "lake"
    }

    fn take(&self, output: &Arc<EpochOutput>) {
        self.newest.store(output.epoch, Ordering::Relaxed);
        if output.epoch > self.truth.lock().unwrap().committed {
            self.waiting.lock().unwrap().push(output.clone());
        }
        self.report();
    }

    fn applied(&self) -> Option<u64> {
        Some(self.applied.load(Ordering::Relaxed))
    }

    fn is_full(&self) -> bool {
        self.waiting.lock().unwrap().len() >= self.bound
    }
}
