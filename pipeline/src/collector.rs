//! The collector: puts together what the workers say of an epoch and hands it, whole and in order, to every consumer.
//!
//! It waits for nobody but the workers. What it tells the rest by [`Event`]s comes after the consumers have the epoch.

use std::sync::Arc;

use radarflow_dataflows::output::{Merge, Merged, WorkerEpoch};

use crate::consumers::Consumer;
use crate::decide::Event;
use crate::snapshots::HandedIn;

/// Puts epochs together.
pub struct Collector {
    merge: Merge,
    consumers: Arc<[Arc<dyn Consumer>]>,
    handed_in: Arc<HandedIn>,
    /// The last epoch of the log that is read again; `None` once it has been.
    last: Option<u64>,
}

impl Collector {
    /// Begins with the epochs after a start; the log that is read again ends with `last`.
    pub fn new(merge: Merge, consumers: Arc<[Arc<dyn Consumer>]>, handed_in: Arc<HandedIn>, last: u64) -> Collector {
        Collector { merge, consumers, handed_in, last: Some(last) }
    }

    /// Takes in what one worker says; tells what happened when that completes an epoch.
    pub fn take(&mut self, said: WorkerEpoch) -> Vec<Event> {
        let tick = said.tick;
        let Some(Merged { output, snapshot }) = self.merge.push(said) else { return Vec::new() };
        let output = Arc::new(output);
        for consumer in self.consumers.iter() {
            consumer.take(&output);
        }
        if self.last.is_some_and(|last| output.epoch >= last) {
            self.last = None;
            self.consumers.iter().for_each(|consumer| consumer.caught_up());
        }
        let mut events = vec![Event::Reached(output.epoch)];
        if let Some(entries) = snapshot {
            self.handed_in.add(tick, entries);
            events.push(Event::StateHandedIn(output.epoch));
        }
        events
    }
}
