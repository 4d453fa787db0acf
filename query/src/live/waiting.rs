//! What may wait for clients: so many streams of a tenant, and so many bytes of their events. Of the bytes that all tenants
//! share a tenant has as many as are still free.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bytes of events that may wait for a client, about.
pub const STREAM_BYTES: usize = 4 << 20;
/// Bytes of events that may wait for all clients of a tenant, about.
pub const TENANT_BYTES: usize = 64 << 20;
/// Bytes of events that may wait for all clients where nothing else is said, about.
pub const ALL_BYTES: usize = 256 << 20;
/// Streams of one tenant.
pub const STREAMS_TENANT: usize = 64;

/// What tenants have of streams.
pub(super) struct Tenants {
    /// Bytes of events that may wait for all clients.
    bound: usize,
    by_tenant: Mutex<BTreeMap<String, OfTenant>>,
    /// A client took something.
    freed: Notify,
}

#[derive(Default)]
pub(super) struct OfTenant {
    pub(super) streams: usize,
    pub(super) bytes: usize,
}

impl Tenants {
    /// None yet, who share so many bytes.
    pub(super) fn of(bound: usize) -> Arc<Self> {
        Arc::new(Tenants { bound, by_tenant: Mutex::default(), freed: Notify::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<String, OfTenant>> {
        self.by_tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back what a stream had.
    fn give_back(&self, tenant: &str, streams: usize, bytes: usize) {
        let mut by_tenant = self.lock();
        if let Some(of) = by_tenant.get_mut(tenant) {
            of.streams = of.streams.saturating_sub(streams);
            of.bytes = of.bytes.saturating_sub(bytes);
            if of.streams == 0 && of.bytes == 0 {
                by_tenant.remove(tenant);
            }
        }
    }
}

/// One stream, for as long as it runs.
pub(super) struct Running {
    tenants: Arc<Tenants>,
    tenant: String,
    /// Bytes of events that wait for its client.
    waiting: Arc<AtomicUsize>,
}

impl Running {
    /// A place among the streams of a tenant, if there is one.
    pub(super) fn admit(tenants: &Arc<Tenants>, tenant: &str) -> Option<Running> {
        let mut by_tenant = tenants.lock();
        let of = by_tenant.entry(tenant.to_owned()).or_default();
        if of.streams >= STREAMS_TENANT {
            return None;
        }
        of.streams += 1;
        drop(by_tenant);
        Some(Running { tenants: tenants.clone(), tenant: tenant.to_owned(), waiting: Arc::default() })
    }

    /// Room for an event to wait in. Where nothing else waits there is room for any.
    pub(super) fn room(&self, bytes: usize) -> Option<Room> {
        let mut by_tenant = self.tenants.lock();
        let all: usize = by_tenant.values().map(|of| of.bytes).sum();
        let most = TENANT_BYTES.min(self.tenants.bound.saturating_sub(all));
        let of = by_tenant.entry(self.tenant.clone()).or_default();
        let fits = |held: usize, most: usize| held == 0 || held + bytes <= most;
        if !fits(self.waiting.load(Ordering::Relaxed), STREAM_BYTES) || !fits(of.bytes, most) {
            return None;
        }
        of.bytes += bytes;
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        drop(by_tenant);
        let (tenants, tenant, waiting) = (self.tenants.clone(), self.tenant.clone(), self.waiting.clone());
        Some(Room { tenants, tenant, waiting, bytes })
    }

    /// Waits for it.
    pub(super) async fn wait_for_room(&self, bytes: usize) -> Room {
        loop {
            let freed = self.tenants.freed.notified();
            tokio::pin!(freed);
            // From here on nothing that is taken is missed.
            freed.as_mut().enable();
            if let Some(room) = self.room(bytes) {
                return room;
            }
            freed.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tenants.give_back(&self.tenant, 1, 0);
    }
}

/// What an event takes while it waits.
pub(crate) struct Room {
    tenants: Arc<Tenants>,
    tenant: String,
    waiting: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.bytes, Ordering::Relaxed);
        self.tenants.give_back(&self.tenant, 0, self.bytes);
        self.tenants.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_for_a_stream_and_a_tenant_and_others_have_their_own() {
        let tenants = Tenants::of(1 << 30);
        let running = |tenant: &str| Running::admit(&tenants, tenant).unwrap();
        let one = running("t");
        let (part, most) = (STREAM_BYTES / 4, STREAM_BYTES);
        let mut waits: Vec<Room> = (0..4).map(|_| one.room(part).unwrap()).collect();
        assert!(one.room(1).is_none());
        assert!(running("t").room(2 * most).is_some(), "what is larger waits alone");
        // What is taken makes room, at once for whoever waits for it.
        let waiting = async { one.wait_for_room(part).await };
        let taken = async {
            tokio::task::yield_now().await;
            waits.pop();
        };
        let (room, ()) =
            tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(waiting, taken) }).await.unwrap();
        waits.push(room);
        // All streams of the tenant together have so much, and another tenant's have as much.
        let more: Vec<Running> = (1..STREAMS_TENANT).map(|_| running("t")).collect();
        waits.extend(more.iter().filter_map(|stream| stream.room(most)));
        let held: usize = tenants.lock()["t"].bytes;
        assert!(held <= TENANT_BYTES && held + most > TENANT_BYTES, "{held}");
        let other = running("u");
        assert!(other.room(most).is_some());
        // Of what all share whoever comes later finds some, and an event that waits alone always.
        let little = Tenants::of(most);
        let [greedy, late] = ["t", "u"].map(|tenant| Running::admit(&little, tenant).unwrap());
        let few: Vec<Room> = std::iter::from_fn(|| greedy.room(part / 2)).collect();
        assert_eq!(few.len(), 4);
        assert!(late.room(part).is_some() && late.room(most).is_some());
        // Nothing is left of those that are gone.
        drop((one, more, other));
        assert_eq!(tenants.lock().len(), 1);
        drop(waits);
        assert!(tenants.lock().is_empty());
    }
}
