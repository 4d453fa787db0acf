//! Sinks: one file a target. Each takes whole epochs in order, writes in its own time, and stores its frontier with what
//! it wrote. [`Applied`] tells how far a sink is, for snapshots and metrics.

pub mod lake;
pub mod postgres;
pub mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The epoch up to which a sink has nothing uncommitted.
#[derive(Clone, Debug, Default)]
pub struct Applied(Arc<AtomicU64>);

impl Applied {
    /// How far it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Nothing at or before `epoch` is uncommitted.
    pub fn set(&self, epoch: u64) {
        self.0.fetch_max(epoch, Ordering::AcqRel);
    }
}
