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

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How a sink is: the epoch up to which it has nothing uncommitted, and whether its target answers.
#[derive(Clone, Debug, Default)]
pub struct Applied(Arc<State>);

#[derive(Debug, Default)]
struct State {
    epoch: AtomicU64,
    up: AtomicBool,
    why: Mutex<String>,
}

impl Applied {
    /// How far it is.
    pub fn get(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// Nothing at or before `epoch` is uncommitted, or what is will be made good.
    pub fn set(&self, epoch: u64) {
        self.0.epoch.fetch_max(epoch, Ordering::AcqRel);
    }

    /// Whether its target took what it was given last.
    pub fn up(&self) -> bool {
        self.0.up.load(Ordering::Relaxed)
    }

    /// Its target answered, or did not.
    pub fn is_up(&self, up: bool) {
        self.0.up.store(up, Ordering::Relaxed);
    }

    /// Its target did not take what it was given, and this is why.
    pub fn failed(&self, why: String) {
        self.is_up(false);
        *self.0.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why its target took nothing the last time that it did not.
    pub fn why(&self) -> String {
        self.0.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
