//! Sinks: one file a target. Each takes whole epochs in order, writes in its own time, and stores its frontier with what
//! it wrote. [`Applied`] tells how far a sink is, for snapshots and metrics.

pub mod armis;
mod checkpoint;
mod compact;
pub mod lake;
pub mod postgres;
mod store;
mod upkeep;
pub mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a sink is: the epoch up to which it has nothing uncommitted, and whether its target answers.
#[derive(Clone, Debug, Default)]
pub struct Applied(Arc<(AtomicU64, AtomicBool)>);

impl Applied {
    /// How far it is.
    pub fn get(&self) -> u64 {
        self.0.0.load(Ordering::Acquire)
    }

    /// Nothing at or before `epoch` is uncommitted, or what is will be made good.
    pub fn set(&self, epoch: u64) {
        self.0.0.fetch_max(epoch, Ordering::AcqRel);
    }

    /// Whether its target took what it was given last.
    pub fn up(&self) -> bool {
        self.0.1.load(Ordering::Relaxed)
    }

    /// Its target answered, or did not.
    pub fn is_up(&self, up: bool) {
        self.0.1.store(up, Ordering::Relaxed);
    }
}
