//! The last epochs, for whoever follows: all that is kept of epochs, however many follow and however slowly.

use std::collections::VecDeque;
use std::sync::Arc;

use radarflow_proto::ports::EpochOutput;

/// Epochs of which it is known what they changed, for whoever missed them.
pub const RECENT_EPOCHS: usize = 1024;
/// Changes that these have at most, unless the newest alone has more.
pub const RECENT_CHANGES: usize = 10_000;
/// Bytes of event rows that they have at most, likewise.
pub const RECENT_BYTES: usize = 32 << 20;

/// The epochs, the oldest first.
#[derive(Default)]
pub(super) struct Recent {
    epochs: VecDeque<Arc<EpochOutput>>,
    changes: usize,
    bytes: usize,
    /// The newest epoch that is not known any more.
    forgotten: u64,
}

/// What came after an epoch.
pub(crate) enum Next {
    /// The next one.
    Epoch(Arc<EpochOutput>),
    /// It is not known any more.
    Missed,
}

impl Recent {
    /// Nothing is known of what came up to an epoch.
    pub(super) fn since(forgotten: u64) -> Self {
        Recent { forgotten, ..Recent::default() }
    }

    fn size(output: &EpochOutput) -> (usize, usize) {
        (output.changes.len(), output.events.iter().map(|(_, batch)| batch.get_array_memory_size()).sum())
    }

    /// Bytes of event rows, and changes, that are kept.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.bytes, self.changes)
    }

    /// Takes in the newest epoch.
    pub(super) fn push(&mut self, output: Arc<EpochOutput>) {
        let (changes, bytes) = Recent::size(&output);
        self.changes += changes;
        self.bytes += bytes;
        self.epochs.push_back(output);
        // The newest is there in any case: whoever keeps up has it.
        while self.epochs.len() > 1
            && (self.epochs.len() > RECENT_EPOCHS || self.changes > RECENT_CHANGES || self.bytes > RECENT_BYTES)
        {
            let Some(oldest) = self.epochs.pop_front() else { break };
            let (changes, bytes) = Recent::size(&oldest);
            self.changes -= changes;
            self.bytes -= bytes;
            self.forgotten = oldest.epoch;
        }
    }

    /// Whether all epochs after one are known.
    pub(super) fn knows(&self, epoch: u64) -> bool {
        let newest = self.epochs.back().map_or(self.forgotten, |last| last.epoch);
        (self.forgotten..=newest).contains(&epoch)
    }

    /// What came after an epoch.
    pub(super) fn after(&self, epoch: u64) -> Next {
        let next = self.epochs.partition_point(|output| output.epoch <= epoch);
        match self.epochs.get(next) {
            Some(output) if self.knows(epoch) => Next::Epoch(output.clone()),
            _ => Next::Missed,
        }
    }
}
