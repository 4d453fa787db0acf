//! Does what [`Spine`] says, but for the end, which is its caller's. It never waits: what takes time is an order to others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use radarflow_connectors::ledger::intake::IntakeStats;

use crate::consumers::Consumer;
use crate::decide::{Action, Event, Spine};
use crate::snapshots::Order;

/// What a driver moves.
pub struct Outside {
    /// Intake looks there whether it is to stop.
    pub stats: Arc<IntakeStats>,
    /// Intake lets frames go up to here.
    pub trim: Arc<AtomicU64>,
    /// Whether snapshots fail.
    pub snapshots_fail: Arc<AtomicBool>,
    /// Who writes snapshots.
    pub orders: Sender<Order>,
}

/// What is left to whoever drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Have every consumer commit what it has.
    Finish,
    /// All is done that can be done.
    End,
}

/// A spine and what it moves.
pub struct Driver {
    spine: Spine,
    consumers: Arc<[Arc<dyn Consumer>]>,
    outside: Outside,
}

impl Driver {
    /// Begins at an epoch.
    pub fn new(start: u64, consumers: Arc<[Arc<dyn Consumer>]>, outside: Outside) -> Driver {
        let kept = consumers.iter().filter(|c| c.applied().is_some()).map(|c| c.name());
        Driver { spine: Spine::new(start, kept), consumers, outside }
    }

    /// What is known of the way of an epoch.
    pub fn spine(&self) -> &Spine {
        &self.spine
    }

    /// Looks at the clock and at how consumers are.
    pub fn look(&mut self, now_ms: i64) -> Vec<End> {
        let mut ends = self.happened(Event::Time(now_ms));
        for consumer in self.consumers.clone().iter() {
            if let Some(applied) = consumer.applied() {
                let (name, full) = (consumer.name(), consumer.is_full());
                ends.extend(self.happened(Event::Consumer { name, applied, full }));
            }
        }
        ends
    }

    /// Does what follows from what happened.
    pub fn happened(&mut self, event: Event) -> Vec<End> {
        self.spine.happened(event).into_iter().filter_map(|action| self.does(action)).collect()
    }

    fn does(&self, action: Action) -> Option<End> {
        let Outside { stats, trim, snapshots_fail, orders } = &self.outside;
        match action {
            // Who writes snapshots may have ended, with everything else.
            Action::WriteSnapshot => drop(orders.send(Order::Write)),
            Action::Retire(applied) => drop(orders.send(Order::Retire(applied))),
            Action::TrimLedger(epoch) => {
                trim.fetch_max(epoch, Ordering::AcqRel);
            }
            Action::PauseIntake(name) => {
                tracing::error!(consumer = name, "it has no room; intake stops until it has");
                stats.record_full.store(true, Ordering::Relaxed);
            }
            Action::ResumeIntake(name) => {
                tracing::info!(consumer = name, "it has room again; intake goes on");
                stats.record_full.store(false, Ordering::Relaxed);
            }
            Action::SnapshotsFail(fail) => snapshots_fail.store(fail, Ordering::Relaxed),
            Action::Finish => return Some(End::Finish),
            Action::End => return Some(End::End),
        }
        None
    }
}
