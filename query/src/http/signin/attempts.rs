//! Who failed to sign in, and how often; whose passwords are being looked at. Strangers make entries here: all are bounded, and end.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Failures of a name from an address within [`WITHIN_MS`] after which it is answered no more.
const FAILURES: u32 = 10;
/// How long failures count, milliseconds.
const WITHIN_MS: i64 = 15 * 60 * 1000;
/// Names and addresses that are remembered at once; the oldest are forgotten.
const REMEMBERED: usize = 20_000;
/// Failures of a tenant that the audit tells of in a minute.
const TOLD_A_MINUTE: u32 = 60;
/// Passwords from one address that are looked at or wait to be.
const WAITING_OF_ADDRESS: usize = 4;
/// The same of all addresses.
const WAITING: usize = 64;

/// Who failed, and how often; and whose passwords are being looked at.
#[derive(Default)]
pub struct Attempts {
    /// By password.
    pub(super) passwords: Failures,
    /// By the code of an authenticator.
    pub(super) codes: Failures,
    /// By what a provider was to be asked.
    pub(super) providers: Failures,
    /// Links that were asked for.
    pub(super) links: Failures,
    waiting: Mutex<BTreeMap<String, usize>>,
    /// Failures told in the audit, by tenant: the minute, and how many in it. Only tenants that there are have any.
    told: Mutex<BTreeMap<String, (i64, u32)>>,
}

/// What failures are counted by: tenant, name, and where they come from.
pub(super) type Key = (String, String, String);

/// Failures of one way in. What strangers do of one is not forgotten for what they do of another.
#[derive(Default)]
pub(super) struct Failures(Mutex<BTreeMap<Key, Count>>);

/// A password that is being looked at.
pub(super) struct Waiting<'a> {
    attempts: &'a Attempts,
    address: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.attempts.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = waiting.get_mut(&self.address) {
            *n -= 1;
            if *n == 0 {
                waiting.remove(&self.address);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Count {
    count: u32,
    first_ms: i64,
}

impl Attempts {
    /// A place among those whose passwords are looked at, if there is one: each costs memory and a core.
    pub(super) fn wait_for(&self, address: &str) -> Option<Waiting<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        let own = waiting.get(address).copied().unwrap_or_default();
        if all >= WAITING || own >= WAITING_OF_ADDRESS {
            return None;
        }
        waiting.insert(address.to_owned(), own + 1);
        Some(Waiting { attempts: self, address: address.to_owned() })
    }

    /// Whether one more failure of a tenant is told in the audit.
    pub(super) fn is_told(&self, tenant: &str, now_ms: i64) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let of = told.entry(tenant.to_owned()).or_default();
        let minute = now_ms.div_euclid(60_000);
        if of.0 != minute {
            *of = (minute, 0);
        }
        of.1 += 1;
        of.1 <= TOLD_A_MINUTE
    }
}

impl Failures {
    /// How long nothing is answered, seconds; `None` where it is.
    pub(super) fn wait(&self, key: &Key, now_ms: i64) -> Option<i64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = known.get(key).filter(|f| f.count >= FAILURES)?;
        let left = failures.first_ms.saturating_add(WITHIN_MS) - now_ms;
        (left > 0).then_some((left + 999) / 1000)
    }

    /// One more; how many there were.
    pub(super) fn failed(&self, key: Key, now_ms: i64) -> u32 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED && !known.contains_key(&key) {
            known.retain(|_, failures| failures.first_ms.saturating_add(WITHIN_MS) > now_ms);
            if known.len() >= REMEMBERED {
                let oldest = known.iter().min_by_key(|(_, failures)| failures.first_ms).map(|(key, _)| key.clone());
                if let Some(oldest) = oldest {
                    known.remove(&oldest);
                }
            }
        }
        let failures = known.entry(key).or_insert(Count { count: 0, first_ms: now_ms });
        if failures.first_ms.saturating_add(WITHIN_MS) <= now_ms {
            *failures = Count { count: 0, first_ms: now_ms };
        }
        failures.count += 1;
        failures.count
    }

    pub(super) fn succeeded(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_name_and_address_and_end() {
        let attempts = Attempts::default();
        let key = |name: &str, address: &str| ("t".to_owned(), name.to_owned(), address.to_owned());
        for n in 1..=FAILURES {
            assert_eq!(attempts.passwords.wait(&key("ann", "a"), 1000), None);
            assert_eq!(attempts.passwords.failed(key("ann", "a"), 1000), n);
        }
        assert_eq!(attempts.passwords.wait(&key("ann", "a"), 1000), Some(WITHIN_MS / 1000));
        assert_eq!(attempts.passwords.wait(&key("ann", "b"), 1000), None);
        assert_eq!(attempts.passwords.wait(&key("bob", "a"), 1000), None);
        assert_eq!(attempts.passwords.wait(&key("ann", "a"), 1000 + WITHIN_MS), None);
        assert_eq!(attempts.passwords.failed(key("ann", "a"), 1000 + WITHIN_MS), 1);
        attempts.passwords.succeeded(&key("ann", "a"));
        // However many strangers try, no more are remembered.
        for n in 0..REMEMBERED + 10 {
            attempts.passwords.failed(key(&n.to_string(), "a"), n as i64);
        }
        assert_eq!(attempts.passwords.0.lock().unwrap().len(), REMEMBERED);

        // One address has few places, and leaves room for others.
        let own: Vec<_> = (0..WAITING_OF_ADDRESS).map(|_| attempts.wait_for("a").unwrap()).collect();
        assert!(attempts.wait_for("a").is_none() && attempts.wait_for("b").is_some());
        drop(own);
        assert!(attempts.wait_for("a").is_some());
        assert!(attempts.waiting.lock().unwrap().is_empty());
        let all: Vec<_> = (0..WAITING).map(|n| attempts.wait_for(&n.to_string()).unwrap()).collect();
        assert!(attempts.wait_for("more").is_none());
        drop(all);
    }
}
