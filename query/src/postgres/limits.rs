//! How many may be connected, and how often somebody may come with a wrong password.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use radarflow_proto::room::{self, Held, Room};

use crate::postgres::refusal::{OUT_OF_MEMORY, Refusal, TOO_MANY_CONNECTIONS};

/// Sessions of all tenants together.
pub const SESSIONS: usize = 1024;
/// Sessions of one tenant: the others keep room.
pub const SESSIONS_TENANT: usize = 256;
/// Sessions of one address.
pub const SESSIONS_ADDRESS: usize = 256;
/// Connections of one address that have not shown who they are.
pub const STARTING_ADDRESS: usize = 64;
/// Wrong passwords of one address that are answered at once.
pub const WRONG_AT_ONCE: u32 = 10;
/// What a connection takes until it is known who it is, bytes: what it says of itself, its encryption.
pub const CONNECTION_BYTES: usize = 48 << 10;
/// What a session takes beside what it was asked, bytes: what is gathered for the client, settings, its tasks.
const SESSION_BYTES: usize = 192 << 10;
/// What a parsed text takes, as so many times its length: an expression of two characters is hundreds of bytes.
const PARSED: usize = 160;
/// What a message takes beside its text, bytes.
const MESSAGE_COST: usize = 256;
/// For how long wrong passwords are remembered.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// Addresses whose wrong passwords are remembered.
const ADDRESSES: usize = 4096;
/// Longest time until a wrong password is answered.
const SLOWEST: Duration = Duration::from_secs(5);

/// Who is connected.
pub(crate) struct Limits {
    room: Arc<Room>,
    all: Counts<()>,
    by_tenant: Counts<String>,
    by_address: Counts<IpAddr>,
    starting: Counts<IpAddr>,
    wrong: Mutex<HashMap<IpAddr, (u32, Instant)>>,
    pub(crate) metrics: Metrics,
}

/// What the sessions did.
#[derive(Default)]
pub(crate) struct Metrics {
    sessions: Gauge,
    /// By outcome: `ok`, `rejected` (the password), `refused` (anything else).
    logins: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) statements: Counter,
    pub(crate) cancelled: Counter,
}

impl Metrics {
    pub(crate) fn login(&self, outcome: &'static str) {
        self.logins.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Sessions of Postgres clients; 1024 in all, 256 a tenant or an address";
        registry.register("postgres_client_sessions", help, self.sessions.clone());
        let help = "Log-ins of Postgres clients, by outcome";
        registry.register("postgres_client_logins", help, self.logins.clone());
        registry.register("postgres_client_statements", "Statements of Postgres clients", self.statements.clone());
        let help = "Statements that Postgres clients cancelled";
        registry.register("postgres_client_cancelled_statements", help, self.cancelled.clone());
    }
}

/// So many of each.
struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Counts(Arc::default())
    }
}

/// One of those that are counted, until it is dropped.
struct Counted<K: Eq + Hash>(Arc<Mutex<HashMap<K, usize>>>, K);

impl<K: Eq + Hash + Clone> Counts<K> {
    fn take(&self, key: K, most: usize) -> Option<Counted<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted(self.0.clone(), key))
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

/// A connection that has not shown who it is, until it is dropped.
pub(crate) struct Starting(#[expect(dead_code, reason = "it counts")] Counted<IpAddr>);

/// A session, until it is dropped.
pub(crate) struct Session {
    _counted: (Counted<()>, Counted<String>, Counted<IpAddr>),
    held: Held,
    gauge: Gauge,
}

impl Session {
    /// For what the session is asked, nothing yet.
    pub(crate) fn room(&self) -> Asked {
        Asked(self.held.another())
    }
}

/// Memory for what a session was asked: a message as long as it waits, and what it became as long as that is kept.
pub(crate) struct Asked(Held);

impl Asked {
    /// For a message of so many bytes.
    pub(crate) fn message(&self, letter: u8, len: usize) -> Result<Asked, Refusal> {
        let times = if matches!(letter, b'P' | b'Q') { PARSED } else { 2 };
        self.of(MESSAGE_COST + times * len)
    }

    /// For so many bytes.
    pub(crate) fn of(&self, bytes: usize) -> Result<Asked, Refusal> {
        let mut held = self.0.another();
        held.grow(bytes).map_err(|no| Refusal::new(OUT_OF_MEMORY, no.to_string()))?;
        Ok(Asked(held))
    }

    /// For the same once more, and so many bytes.
    pub(crate) fn again(&self, more: usize) -> Result<Asked, Refusal> {
        self.of(self.0.bytes() + more)
    }

    /// For what takes none.
    pub(crate) fn nothing(&self) -> Asked {
        Asked(self.0.another())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

impl Limits {
    /// With memory of a room.
    pub(crate) fn new(room: Arc<Room>) -> Limits {
        Limits {
            room,
            all: Counts::default(),
            by_tenant: Counts::default(),
            by_address: Counts::default(),
            starting: Counts::default(),
            wrong: Mutex::default(),
            metrics: Metrics::default(),
        }
    }

    /// A connection of an address begins.
    pub(crate) fn start(&self, address: IpAddr) -> Result<Starting, Refusal> {
        let counted = self.starting.take(bucket(address), STARTING_ADDRESS);
        counted
            .map(Starting)
            .ok_or_else(|| full("connections of this address that have not logged in", STARTING_ADDRESS))
    }

    /// A session of a tenant begins.
    pub(crate) fn session(&self, tenant: &str, address: IpAddr) -> Result<Session, Refusal> {
        let all = self.all.take((), SESSIONS).ok_or_else(|| full("sessions", SESSIONS))?;
        let of_tenant = self.by_tenant.take(tenant.to_owned(), SESSIONS_TENANT);
        let of_tenant = of_tenant.ok_or_else(|| full("sessions of this tenant", SESSIONS_TENANT))?;
        let of_address = self.by_address.take(bucket(address), SESSIONS_ADDRESS);
        let of_address = of_address.ok_or_else(|| full("sessions of this address", SESSIONS_ADDRESS))?;
        let mut held = self.room.hold_for(tenant, &room::of_address(address));
        held.grow(SESSION_BYTES).map_err(|no| Refusal::new(OUT_OF_MEMORY, no.to_string()))?;
        self.metrics.sessions.inc();
        Ok(Session { _counted: (all, of_tenant, of_address), held, gauge: self.metrics.sessions.clone() })
    }

    /// A password was wrong: how long its answer waits.
    pub(crate) fn wrong(&self, address: IpAddr, now: Instant) -> Duration {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        let address = bucket(address);
        if wrong.len() >= ADDRESSES && !wrong.contains_key(&address) {
            wrong.retain(|_, (_, since)| now.duration_since(*since) < REMEMBERED);
            if wrong.len() >= ADDRESSES {
                return SLOWEST;
            }
        }
        let (count, since) = wrong.entry(address).or_insert((0, now));
        if now.duration_since(*since) >= REMEMBERED {
            (*count, *since) = (0, now);
        }
        *count = count.saturating_add(1);
        match count.checked_sub(WRONG_AT_ONCE + 1) {
            None => Duration::ZERO,
            Some(over) => Duration::from_millis(100).saturating_mul(1 << over.min(10)).min(SLOWEST),
        }
    }
}

/// What counts as one address: of IPv6 what a site has.
fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 64)).into()),
        v4 => v4,
    }
}

fn full(what: &str, most: usize) -> Refusal {
    Refusal::new(TOO_MANY_CONNECTIONS, format!("there are {most} {what} at most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_tenant_and_an_address_have_so_many_and_leave_room() {
        let limits = Limits::new(Room::of(4 << 30));
        let of_t: Vec<_> = (0..SESSIONS_TENANT).map(|n| limits.session("t", address((n % 2) as u8)).unwrap()).collect();
        assert!(limits.session("t", address(9)).err().unwrap().detail.contains("tenant"));
        let of_u: Vec<_> = (0..SESSIONS_ADDRESS).map_while(|_| limits.session("u", address(3)).ok()).collect();
        assert_eq!(of_u.len(), SESSIONS_ADDRESS);
        assert!(limits.session("v", address(3)).err().unwrap().detail.contains("address"));
        assert_eq!(limits.metrics.sessions.get(), (SESSIONS_TENANT + SESSIONS_ADDRESS) as i64);
        drop((of_t, of_u));
        assert!(limits.session("t", address(3)).is_ok());
        assert!(limits.by_tenant.0.lock().unwrap().is_empty(), "who left is forgotten");
        assert_eq!(limits.room.bytes(), 0);
    }

    #[test]
    fn what_is_asked_has_its_memory_until_it_is_forgotten() {
        let limits = Limits::new(Room::of(64 << 20));
        let session = limits.session("t", address(1)).unwrap();
        let kept: Vec<Asked> = (0..100).map_while(|_| session.room().message(b'P', 16 << 10).ok()).collect();
        assert!(!kept.is_empty() && kept.len() < 16, "{}", kept.len());
        assert_eq!(kept[0].again(0).err().unwrap().code, OUT_OF_MEMORY);
        assert!(limits.session("u", address(2)).is_ok(), "others keep room");
        drop(kept);
        assert!(session.room().message(b'Q', 16 << 10).is_ok());
    }

    #[test]
    fn who_guesses_waits_longer_and_longer_and_nobody_else_does() {
        let (limits, now) = (Limits::new(Room::of(1 << 20)), Instant::now());
        let waits: Vec<Duration> = (0..20).map(|_| limits.wrong(address(1), now)).collect();
        assert!(waits[..10].iter().all(Duration::is_zero) && waits[10..].is_sorted());
        assert_eq!((waits[10], waits[19]), (Duration::from_millis(100), SLOWEST));
        assert_eq!(limits.wrong(address(2), now), Duration::ZERO);
        assert_eq!(limits.wrong(address(1), now + REMEMBERED), Duration::ZERO);
        for n in 0..ADDRESSES as u32 + 10 {
            limits.wrong(IpAddr::from(n.to_be_bytes()), now);
        }
        assert!(limits.wrong.lock().unwrap().len() <= ADDRESSES);
    }
}
