//! Memory for what is noted of runs: one budget, of which a tenant may hold as much as is still free.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory for what is noted of runs, and who has how much of it, bytes.
#[derive(Debug)]
pub(super) struct Room {
    bound: usize,
    taken: Mutex<BTreeMap<String, usize>>,
}

impl Room {
    /// A budget, bytes.
    pub(super) fn of(bound: usize) -> Arc<Room> {
        Arc::new(Room { bound, taken: Mutex::default() })
    }

    /// Nothing of it yet, for a run of a tenant.
    pub(super) fn hold(self: &Arc<Self>, tenant: &str) -> Held {
        Held { room: self.clone(), tenant: tenant.to_owned(), bytes: 0 }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> usize {
        self.taken().values().sum()
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes some for a tenant, if that leaves as much to the others as the tenant has.
    fn take(&self, tenant: &str, bytes: usize) -> bool {
        let mut taken = self.taken();
        let free = self.bound.saturating_sub(taken.values().sum());
        let held = taken.get(tenant).copied().unwrap_or(0);
        let fits = held + bytes <= free;
        if fits {
            taken.insert(tenant.to_owned(), held + bytes);
        }
        fits
    }

    fn give_back(&self, tenant: &str, bytes: usize) {
        let mut taken = self.taken();
        let held = taken.get(tenant).map_or(0, |held| held.saturating_sub(bytes));
        if held > 0 {
            taken.insert(tenant.to_owned(), held);
        } else {
            taken.remove(tenant);
        }
    }
}

/// What one run holds of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    room: Arc<Room>,
    tenant: String,
    bytes: usize,
}

impl Held {
    /// Takes more; false where there is no room for it.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let fits = self.room.take(&self.tenant, bytes);
        self.bytes += if fits { bytes } else { 0 };
        fits
    }

    /// Gives back all of it.
    pub(super) fn give_back(&mut self) {
        self.room.give_back(&self.tenant, std::mem::take(&mut self.bytes));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.give_back(&self.tenant, self.bytes);
    }
}
