//! Memory for one purpose: so many bytes, taken before they are filled, and given back when nobody needs them any more.
//!
//! ```text
//! of a tenant : held <= free               it leaves as much to the others as it has
//! of a sender : held <= (free - tenant) / 2    so does a sender to those of its tenant
//! ```
//! Alone a tenant has half of it at most, and a sender a quarter. Whoever is greedy is refused, or waits, and whoever comes
//! then finds room; as bytes are given back, all move towards equal shares. What is refused is counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::Notify;

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoRoom {
    /// It is more than any sender can have: it would be refused again.
    #[error("it takes more memory than there is for one request")]
    Never,
    /// Whoever asks has too much already.
    #[error("too much is under way for this sender or its tenant; try again later")]
    Own,
    /// Others have it.
    #[error("too much is under way; try again later")]
    Others,
}

/// Memory for one purpose, and who has how much of it, bytes.
#[derive(Debug)]
pub struct Room {
    bound: usize,
    taken: Mutex<Taken>,
    freed: Notify,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    tenants: BTreeMap<Arc<str>, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    bytes: usize,
    senders: BTreeMap<Arc<str>, usize>,
}

impl Room {
    /// So many bytes.
    pub fn of(bound: usize) -> Arc<Room> {
        Arc::new(Room { bound, taken: Mutex::default(), freed: Notify::new(), refused: AtomicU64::new(0) })
    }

    /// All of it, bytes.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.taken().bytes
    }

    /// How often something was refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Nothing of it yet, for a tenant that has no senders to tell apart.
    pub fn hold(self: &Arc<Self>, tenant: &str) -> Held {
        Held { room: self.clone(), tenant: tenant.into(), sender: None, bytes: 0 }
    }

    /// Nothing of it yet, for one of the senders of a tenant.
    pub fn hold_for(self: &Arc<Self>, tenant: &str, sender: &str) -> Held {
        Held { room: self.clone(), tenant: tenant.into(), sender: Some(sender.into()), bytes: 0 }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, tenant: &Arc<str>, sender: Option<&Arc<str>>, bytes: usize) -> Result<(), NoRoom> {
        if bytes == 0 {
            return Ok(());
        }
        let mut taken = self.taken();
        let of_tenant = taken.tenants.get(tenant).map_or(0, |tenant| tenant.bytes);
        let known = taken.tenants.get(tenant).zip(sender);
        let of_sender = known.and_then(|(tenant, sender)| tenant.senders.get(sender).copied()).unwrap_or(0);
        let fits = |all: usize, of_tenant: usize, of_sender: usize| {
            let left = self.bound.checked_sub(all.saturating_add(bytes));
            let left = left.and_then(|left| left.checked_sub(of_tenant + bytes));
            left.is_some_and(|left| sender.is_none() || of_sender + bytes <= left / 2)
        };
        if fits(taken.bytes, of_tenant, of_sender) {
            taken.bytes += bytes;
            let tenant = taken.tenants.entry(tenant.clone()).or_default();
            tenant.bytes += bytes;
            if let Some(sender) = sender {
                *tenant.senders.entry(sender.clone()).or_default() += bytes;
            }
            return Ok(());
        }
        Err(match () {
            () if !fits(0, 0, 0) => NoRoom::Never,
            // Were the others gone, it would not fit either.
            () if !fits(of_tenant, of_tenant, of_sender) => NoRoom::Own,
            () => NoRoom::Others,
        })
    }

    fn give_back(&self, tenant: &Arc<str>, sender: Option<&Arc<str>>, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut taken = self.taken();
        taken.bytes = taken.bytes.saturating_sub(bytes);
        if let Some(of) = taken.tenants.get_mut(tenant) {
            of.bytes = of.bytes.saturating_sub(bytes);
            if let Some(sender) = sender
                && let Some(held) = of.senders.get_mut(sender)
            {
                *held = held.saturating_sub(bytes);
                if *held == 0 {
                    of.senders.remove(sender);
                }
            }
            if of.bytes == 0 {
                taken.tenants.remove(tenant);
            }
        }
        drop(taken);
        self.freed.notify_waiters();
    }
}

/// What somebody has of it, until it is dropped.
#[derive(Debug)]
pub struct Held {
    room: Arc<Room>,
    tenant: Arc<str>,
    sender: Option<Arc<str>>,
    bytes: usize,
}

impl Held {
    /// Bytes that it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The most that it can have, bytes: where nobody else has anything.
    pub fn most(&self) -> usize {
        self.room.bound / if self.sender.is_some() { 4 } else { 2 }
    }

    /// Nothing yet, for the same sender.
    pub fn another(&self) -> Held {
        Held { room: self.room.clone(), tenant: self.tenant.clone(), sender: self.sender.clone(), bytes: 0 }
    }

    /// Takes more.
    ///
    /// # Errors
    /// There is no room for it; it has what it had.
    pub fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let taken = self.room.take(&self.tenant, self.sender.as_ref(), bytes);
        match taken {
            Ok(()) => self.bytes += bytes,
            Err(_) => {
                self.room.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        taken
    }

    /// Takes more as soon as there is room.
    ///
    /// # Errors
    /// There will never be ([`NoRoom::Never`]).
    pub async fn wait(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let room = self.room.clone();
        loop {
            let freed = room.freed.notified();
            tokio::pin!(freed);
            // From here on nothing that is given back is missed.
            freed.as_mut().enable();
            match room.take(&self.tenant, self.sender.as_ref(), bytes) {
                Ok(()) => {
                    self.bytes += bytes;
                    return Ok(());
                }
                Err(NoRoom::Never) => {
                    room.refused.fetch_add(1, Ordering::Relaxed);
                    return Err(NoRoom::Never);
                }
                Err(_) => freed.await,
            }
        }
    }

    /// Gives back so much of it.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.room.give_back(&self.tenant, self.sender.as_ref(), bytes);
    }

    /// Gives back all of it.
    pub fn give_back(&mut self) {
        self.shrink(self.bytes);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Names a sender of which nothing but its address is known: of IPv6 the network, as a host has as many addresses as it
/// likes.
pub fn of_address(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const ALL: usize = 1 << 20;

    /// As much as there is for it, a byte at a time of a thousandth.
    fn fill(held: &mut Held) -> usize {
        while held.grow(ALL / 1024).is_ok() {}
        held.bytes()
    }

    #[test]
    fn who_is_greedy_leaves_room_to_others() {
        let room = Room::of(ALL);
        let mut greedy = room.hold("t");
        assert_eq!(fill(&mut greedy), ALL / 2);
        assert_eq!(greedy.grow(1024), Err(NoRoom::Own));
        let mut other = room.hold("u");
        assert_eq!(fill(&mut other), ALL / 4);
        assert_eq!(room.hold("v").grow(ALL / 4), Err(NoRoom::Others));
        assert_eq!(room.hold("v").grow(ALL / 2 + 1), Err(NoRoom::Never));
        // One step is no way around it, and what is given back is there at once.
        drop((greedy, other));
        assert_eq!((room.bytes(), room.taken().tenants.len()), (0, 0));
        assert_eq!(room.hold("t").grow(ALL / 2 + 1), Err(NoRoom::Never));
        assert!(room.hold("t").grow(ALL / 2).is_ok());
        assert!(room.refused() > 4);
    }

    #[test]
    fn a_sender_leaves_room_to_those_of_its_tenant() {
        let room = Room::of(ALL);
        let mut greedy = room.hold_for("t", "a");
        assert_eq!(fill(&mut greedy), ALL / 4);
        let mut other = room.hold_for("t", "b");
        let other = fill(&mut other);
        assert!(other >= ALL / 16, "{other}");
        assert!(room.hold_for("u", "a").grow(ALL / 16).is_ok(), "of another tenant it is another");
        assert_eq!(room.hold_for("t", "c").grow(ALL / 4 + 1), Err(NoRoom::Never));
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_what_never_fits_is_said() {
        let room = Room::of(ALL);
        let mut first = room.hold("t");
        first.grow(ALL / 2).unwrap();
        let mut second = room.hold("t");
        assert_eq!(second.wait(ALL).await, Err(NoRoom::Never));
        let give_back = async {
            tokio::task::yield_now().await;
            first.shrink(1024);
            first.give_back();
        };
        let waits = second.wait(ALL / 2);
        let both = async { tokio::join!(waits, give_back) };
        let (waited, ()) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        assert_eq!((waited, room.bytes()), (Ok(()), ALL / 2));
    }

    #[test]
    fn an_address_is_a_sender_and_a_network_of_ipv6_is_one() {
        let of = |text: &str| of_address(text.parse().unwrap());
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::2:0:0:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
    }

    proptest! {
        #[test]
        fn it_balances_and_holds_its_bound(
            steps in prop::collection::vec((0u8..3, 0u8..3, any::<bool>(), 1usize..ALL / 3), 1..200),
        ) {
            let room = Room::of(ALL);
            let mut held: BTreeMap<(u8, u8), Held> = BTreeMap::new();
            for (tenant, sender, grows, bytes) in steps {
                let one = held
                    .entry((tenant, sender))
                    .or_insert_with(|| room.hold_for(&tenant.to_string(), &sender.to_string()));
                if grows {
                    let _ = one.grow(bytes);
                } else {
                    one.shrink(bytes);
                }
                let sum: usize = held.values().map(Held::bytes).sum();
                prop_assert_eq!(sum, room.bytes());
                prop_assert!(sum <= ALL);
                let of = |t: u8| held.iter().filter(|((of, _), _)| *of == t).map(|(_, h)| h.bytes()).sum::<usize>();
                prop_assert!((0..3).all(|t| of(t) <= ALL / 2));
                prop_assert!(held.values().all(|h| h.bytes() <= ALL / 4));
            }
            held.clear();
            prop_assert_eq!((room.bytes(), room.taken().tenants.len()), (0, 0));
        }
    }
}
