//! Snapshots, written by nobody who has anything else to do.
//!
//! Workers hand state in with the epoch it is of ([`HandedIn::add`]: no more than a push), a thread of its own merges it,
//! writes it and lets old snapshots go. What was handed in is dropped when the snapshot that has it is durable, and not
//! before: where that fails it is written with what comes next.

use std::sync::{Mutex, PoisonError};

use radarflow_connectors::ledger::LedgerError;
use radarflow_connectors::ledger::snapshot::{Changed, Snapshots};
use radarflow_dataflows::keyed::{StateEntry, Tick};

use crate::decide::Event;

/// State of several epochs that is merged where it waits, so that it takes no more room than the state itself.
const EPOCHS_WAITING: usize = 4;

/// State that is in no snapshot yet.
#[derive(Default)]
pub struct HandedIn(Mutex<Vec<(Tick, Vec<StateEntry>)>>);

impl HandedIn {
    /// Hands in the state that changed up to an epoch.
    pub fn add(&self, tick: Tick, entries: Vec<StateEntry>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((tick, entries));
        if waiting.len() > EPOCHS_WAITING {
            let newest = waiting.last().map_or(tick, |(tick, _)| *tick);
            let mut merged = std::collections::BTreeMap::new();
            for entry in waiting.drain(..).flat_map(|(_, entries)| entries) {
                merged.insert((entry.collection, entry.key), entry.value);
            }
            let merged = merged.into_iter().map(|((collection, key), value)| StateEntry { collection, key, value });
            waiting.push((newest, merged.collect()));
        }
    }

    fn take(&self) -> Vec<(Tick, Vec<StateEntry>)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is to be done with snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Write one of all that was handed in.
    Write,
    /// Take those up to this epoch for usable, and let older ones go.
    Retire(u64),
}

/// Writes snapshots.
pub struct Writer {
    snapshots: Snapshots,
    /// What no durable snapshot has, and the clock of its newest epoch.
    pending: Changed,
    newest: Option<Tick>,
}

impl Writer {
    /// Goes on from the snapshots of a data directory.
    pub fn new(snapshots: Snapshots) -> Writer {
        Writer { snapshots, pending: Changed::new(), newest: None }
    }

    /// Does it, and tells what came of it.
    pub fn obey(&mut self, order: Order, handed_in: &HandedIn) -> Event {
        match order {
            Order::Write => match self.write(handed_in) {
                Ok(Some(epoch)) => Event::SnapshotWritten(epoch),
                Ok(None) => Event::NothingToWrite,
                Err(error) => {
                    tracing::error!(%error, "a snapshot could not be written; it is tried again");
                    Event::SnapshotFailed
                }
            },
            Order::Retire(applied) => Event::Retired(self.retire(applied).unwrap_or_else(|error| {
                tracing::warn!(%error, "old snapshots could not be removed");
                None
            })),
        }
    }

    /// Writes a snapshot of all that was handed in; gives its epoch, `None` where there was nothing.
    ///
    /// # Errors
    /// The disk refuses; what was handed in is kept, for the next time.
    pub fn write(&mut self, handed_in: &HandedIn) -> Result<Option<u64>, LedgerError> {
        for (tick, entries) in handed_in.take() {
            self.newest = Some(tick);
            for StateEntry { collection, key, value } in entries {
                self.pending.insert((collection.to_owned(), key), value);
            }
        }
        let Some(tick) = self.newest else { return Ok(None) };
        self.snapshots.publish(tick.epoch, tick.clock_ms, tick.clock_ms - tick.live_ms, &self.pending)?;
        self.pending.clear();
        self.newest = None;
        Ok(Some(tick.epoch))
    }

    /// Takes snapshots up to an epoch for usable and lets old ones go; gives the epoch up to which frames are not needed.
    ///
    /// # Errors
    /// The disk refuses; what could not be removed goes the next time.
    pub fn retire(&mut self, applied: u64) -> Result<Option<u64>, LedgerError> {
        self.snapshots.retire(applied)
    }
}
