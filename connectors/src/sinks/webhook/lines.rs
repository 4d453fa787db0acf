//! What is due, and what goes next.
//!
//! ```text
//! line     = messages of one receiver of a tenant, the oldest first
//! places   = [`IN_FLIGHT`]; a tenant has [`PER_TENANT`] at most, a receiver [`PER_RECEIVER`]
//! turn     = by tenant, then by receiver: whoever has gone goes after all others
//! failing  = a receiver that did not take what it got last: one message at a time, after a pause that grows; all such
//!            receivers together have [`PROBES`] places, those of a tenant [`TENANT_PROBES`]
//! bounds   = bytes of a receiver, of a tenant, of all; beyond them the newest of the longest line is refused
//! anew     = a message that is said again with another address goes there: what waits at once, what is under way once that
//!            attempt failed
//! ```
//! It is told the time and does nothing by itself.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use radarflow_proto::fact::Receiver;
use radarflow_proto::payload::DueNotification;
use tokio::time::Instant;

/// Messages under way at once.
pub const IN_FLIGHT: usize = 64;
/// Messages of one tenant under way at once.
pub const PER_TENANT: usize = 16;
/// Messages to one receiver under way at once.
pub const PER_RECEIVER: usize = 4;
/// Messages under way at once to receivers that failed last.
pub const PROBES: usize = 16;
/// The same of one tenant: what is left is for those that answer.
pub const TENANT_PROBES: usize = 4;
/// Bytes of messages that wait, of all tenants, where nothing else is said; and one message a receiver, however large.
pub const ALL_BYTES: usize = 32 << 20;
/// A tenant has one part of them in so many.
const TENANT_SHARE: usize = 4;
/// A receiver likewise.
const RECEIVER_SHARE: usize = 8;
/// Bytes of a tenant's messages that wait, likewise.
pub const TENANT_BYTES: usize = ALL_BYTES / TENANT_SHARE;
/// Bytes of a receiver's messages that wait, likewise.
pub const RECEIVER_BYTES: usize = ALL_BYTES / RECEIVER_SHARE;
/// Attempts at one message before it is a dead letter.
pub const ATTEMPTS: u32 = 60;
/// After so long a message to a receiver that fails is a dead letter, tried or not.
pub const LIFE: Duration = Duration::from_secs(3600);
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A message that waits or is under way.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) due: DueNotification,
    bytes: usize,
    attempts: u32,
    since: Instant,
    /// Requests of it that were taken.
    pub(super) done: usize,
    /// Why one of them was refused.
    pub(super) refused: Option<String>,
    /// Addresses of mail that have it.
    pub(super) mailed: Vec<String>,
}

/// A receiver is another when its address is: it must not be judged by what the old one did.
type ReceiverKey = (String, String);
/// Names a message: receivers of two tenants may be called alike.
type MessageKey = (String, String, String);

fn key_of(due: &DueNotification) -> MessageKey {
    (due.id.clone(), due.tenant.clone(), due.group_key.clone())
}

fn receiver_of(due: &DueNotification) -> ReceiverKey {
    (due.receiver.name.clone(), due.receiver.url.clone())
}

/// Names all of an address: where, and with which keys.
fn address_of(receiver: &Receiver) -> u64 {
    let mut hasher = DefaultHasher::new();
    receiver.hash(&mut hasher);
    hasher.finish()
}

#[derive(Default)]
struct Line {
    /// In order, to be sent as soon as there is a place.
    ready: VecDeque<Message>,
    /// Tried, to be tried again.
    later: BTreeMap<(Instant, u64), Message>,
    under_way: usize,
    bytes: usize,
    /// Attempts that failed since one did not.
    failures: u32,
    /// It is left alone until then.
    resting: Option<Instant>,
}

impl Line {
    fn waiting(&self) -> usize {
        self.ready.len() + self.later.len()
    }

    /// Whether nothing would be lost with it.
    fn is_idle(&self, now: Instant) -> bool {
        self.waiting() == 0 && self.under_way == 0 && self.resting.is_none_or(|until| until <= now)
    }

    /// When it has something to send, places aside.
    fn due_at(&self) -> Option<Instant> {
        let again = self.later.keys().next().map(|(at, _)| *at);
        let first = self.ready.front().map(|message| message.since).into_iter().chain(again).min()?;
        Some(self.resting.map_or(first, |until| until.max(first)))
    }

    /// What is to be tried again now, or what has waited longest.
    fn next(&mut self, now: Instant) -> Option<Message> {
        match self.later.first_entry().filter(|entry| entry.key().0 <= now) {
            Some(entry) => Some(entry.remove()),
            None => self.ready.pop_front(),
        }
    }

    /// Messages under way to a receiver that fails.
    fn probes(&self) -> usize {
        if self.failures > 0 { self.under_way } else { 0 }
    }

    fn newest(&mut self) -> Option<Message> {
        self.ready.pop_back().or_else(|| Some(self.later.pop_last()?.1))
    }
}

#[derive(Default)]
struct Tenant {
    lines: BTreeMap<ReceiverKey, Line>,
    /// Who went last.
    last: ReceiverKey,
    under_way: usize,
    bytes: usize,
}

/// All lines.
pub(super) struct Lines {
    /// Bytes that may wait.
    pub(super) most: usize,
    tenants: BTreeMap<String, Tenant>,
    /// Who went last.
    last: String,
    /// Messages that wait or are under way, and what names the address of each.
    known: BTreeMap<MessageKey, u64>,
    /// Messages under way that were said again with another address.
    anew: BTreeMap<MessageKey, DueNotification>,
    under_way: usize,
    probes: usize,
    bytes: usize,
    tried: u64,
}

/// What a message takes, about.
fn bytes_of(due: &DueNotification) -> usize {
    const PLACE: usize = 64;
    let map = |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| PLACE + k.len() + v.len()).sum::<usize>();
    let alerts = due.alerts.iter().map(|alert| {
        let texts = alert.id.len() + alert.fingerprint.len() + map(&alert.labels) + map(&alert.annotations);
        size_of_val(alert) + texts
    });
    let receiver = &due.receiver;
    // What names it is kept twice.
    let names = [&due.id, &due.tenant, &due.group_key, &due.id, &due.tenant, &due.group_key];
    let texts = [&due.reason, &receiver.tenant, &receiver.name, &receiver.url];
    size_of::<Message>()
        + names.into_iter().chain(texts).map(String::len).sum::<usize>()
        + map(&due.group_labels)
        + map(&receiver.headers)
        + alerts.sum::<usize>()
}

/// All of a map's keys, beginning after one.
fn after<'a, K: Ord + Clone, V>(map: &'a BTreeMap<K, V>, last: &'a K) -> impl Iterator<Item = &'a K> {
    let later = map.range((Excluded(last.clone()), Unbounded)).map(|(key, _)| key);
    later.chain(map.range(..=last.clone()).map(|(key, _)| key))
}

impl Default for Lines {
    fn default() -> Self {
        Lines {
            most: ALL_BYTES,
            tenants: BTreeMap::new(),
            last: String::new(),
            known: BTreeMap::new(),
            anew: BTreeMap::new(),
            under_way: 0,
            probes: 0,
            bytes: 0,
            tried: 0,
        }
    }
}

impl Lines {
    /// Bytes that wait or are under way.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a message; gives those that there is no room for. One that is known already is taken where its address is another.
    pub(super) fn push(&mut self, due: DueNotification, now: Instant) -> Vec<Message> {
        let (key, address) = (key_of(&due), address_of(&due.receiver));
        match self.known.insert(key.clone(), address) {
            Some(known) if known == address => return Vec::new(),
            Some(_) if !self.forget(&key) => {
                self.anew.insert(key, due);
                return Vec::new();
            }
            // What waited is forgotten.
            Some(_) => drop(self.known.insert(key, address)),
            None => {}
        }
        let bytes = bytes_of(&due);
        let message = Message { bytes, due, attempts: 0, since: now, done: 0, refused: None, mailed: Vec::new() };
        let name = message.due.tenant.clone();
        let tenant = self.tenants.entry(name.clone()).or_default();
        let receiver = receiver_of(&message.due);
        let line = tenant.lines.entry(receiver.clone()).or_default();
        line.bytes += message.bytes;
        tenant.bytes += message.bytes;
        self.bytes += message.bytes;
        line.ready.push_back(message);
        let mut refused = Vec::new();
        while self.line(&name, &receiver).is_some_and(|line| line.bytes > self.most / RECEIVER_SHARE) {
            if !self.refuse(&name, Some(&receiver), &mut refused) {
                break;
            }
        }
        while self.tenants[&name].bytes > self.most / TENANT_SHARE {
            if !self.refuse(&name, None, &mut refused) {
                break;
            }
        }
        while self.bytes > self.most {
            let mut largest: Vec<(usize, String)> =
                self.tenants.iter().map(|(name, tenant)| (tenant.bytes, name.clone())).collect();
            largest.sort();
            if !largest.iter().rev().any(|(_, name)| self.refuse(name, None, &mut refused)) {
                break;
            }
        }
        refused
    }

    fn line(&self, tenant: &str, receiver: &ReceiverKey) -> Option<&Line> {
        self.tenants.get(tenant)?.lines.get(receiver)
    }

    /// Refuses the newest message of a receiver, or of the one with most; never the only one.
    fn refuse(&mut self, tenant: &str, receiver: Option<&ReceiverKey>, refused: &mut Vec<Message>) -> bool {
        let Some(tenant) = self.tenants.get_mut(tenant) else { return false };
        let several = tenant
            .lines
            .iter_mut()
            .filter(|(key, line)| line.waiting() > 1 && receiver.is_none_or(|receiver| receiver == *key));
        let Some((_, line)) = several.max_by_key(|(_, line)| line.bytes) else { return false };
        let Some(message) = line.newest() else { return false };
        line.bytes -= message.bytes;
        tenant.bytes -= message.bytes;
        self.bytes -= message.bytes;
        self.known.remove(&key_of(&message.due));
        refused.push(message);
        true
    }

    /// Forgets a message of that name that waits.
    pub(super) fn settled(&mut self, id: &str) {
        let from = (id.to_owned(), String::new(), String::new());
        let of = self.known.range(from..).map(|(key, _)| key).take_while(|key| key.0 == id);
        for key in of.cloned().collect::<Vec<_>>() {
            self.forget(&key);
        }
    }

    /// Forgets a message that waits; tells whether it did.
    fn forget(&mut self, key: &MessageKey) -> bool {
        let Some(tenant) = self.tenants.get_mut(&key.1) else { return false };
        let is = |message: &Message| message.due.id == key.0 && message.due.group_key == key.2;
        let found = tenant.lines.values_mut().find_map(|line| {
            let message = match line.ready.iter().position(is) {
                Some(place) => line.ready.remove(place),
                None => line.later.extract_if(.., |_, message| is(message)).next().map(|(_, message)| message),
            }?;
            line.bytes -= message.bytes;
            Some(message.bytes)
        });
        let Some(bytes) = found else { return false };
        tenant.bytes -= bytes;
        self.bytes -= bytes;
        self.known.remove(key);
        true
    }

    /// Takes back what was said again of a message under way, with another address.
    pub(super) fn readdressed(&mut self, message: &Message) -> Option<DueNotification> {
        self.anew.remove(&key_of(&message.due))
    }

    /// The next message to be sent, if there is one and a place for it.
    pub(super) fn next(&mut self, now: Instant) -> Option<Message> {
        if self.under_way >= IN_FLIGHT {
            return None;
        }
        let of_tenant = |tenant: &Tenant| {
            if tenant.under_way >= PER_TENANT {
                return None;
            }
            let probes: usize = tenant.lines.values().map(Line::probes).sum();
            let probe = self.probes < PROBES && probes < TENANT_PROBES;
            let ready = |line: &Line| {
                let places = if line.failures == 0 { PER_RECEIVER } else { usize::from(probe) };
                line.under_way < places && line.due_at().is_some_and(|at| at <= now)
            };
            after(&tenant.lines, &tenant.last).find(|key| ready(&tenant.lines[*key])).cloned()
        };
        let (name, receiver) =
            after(&self.tenants, &self.last).find_map(|name| Some((name.clone(), of_tenant(&self.tenants[name])?)))?;
        let tenant = self.tenants.get_mut(&name)?;
        let line = tenant.lines.get_mut(&receiver)?;
        let message = line.next(now)?;
        line.under_way += 1;
        tenant.under_way += 1;
        self.under_way += 1;
        self.probes += usize::from(line.failures > 0);
        tenant.last = receiver;
        self.last = name;
        Some(message)
    }

    /// When there may be something to send that is not to be sent now.
    pub(super) fn wakes(&self, now: Instant) -> Option<Instant> {
        let lines = self.tenants.values().flat_map(|tenant| tenant.lines.values());
        lines.filter_map(Line::due_at).filter(|at| *at > now).min()
    }

    /// Takes the place back that a message had.
    fn back(&mut self, message: &Message) -> Option<(&mut Tenant, ReceiverKey)> {
        let receiver = receiver_of(&message.due);
        let tenant = self.tenants.get_mut(&message.due.tenant)?;
        let line = tenant.lines.get_mut(&receiver)?;
        line.under_way -= 1;
        tenant.under_way -= 1;
        self.under_way -= 1;
        Some((tenant, receiver))
    }

    fn count_probes(&mut self) {
        let lines = self.tenants.values().flat_map(|tenant| tenant.lines.values());
        self.probes = lines.map(Line::probes).sum();
    }

    /// A message's receiver answered: it is delivered or refused, and its receiver is well.
    pub(super) fn answered(&mut self, message: &Message, now: Instant) {
        self.known.remove(&key_of(&message.due));
        self.bytes -= message.bytes;
        if let Some((tenant, receiver)) = self.back(message) {
            tenant.bytes -= message.bytes;
            if let Some(line) = tenant.lines.get_mut(&receiver) {
                line.bytes -= message.bytes;
                (line.failures, line.resting) = (0, None);
            }
            tenant.lines.retain(|_, line| !line.is_idle(now));
        }
        self.tenants.retain(|_, tenant| !tenant.lines.is_empty());
        self.count_probes();
    }

    /// A message's receiver did not take it; it may have said when to come again. Gives the messages to it that are
    /// dead letters now.
    pub(super) fn failed(&mut self, mut message: Message, asked: Option<Duration>, now: Instant) -> Vec<Message> {
        message.attempts += 1;
        self.tried += 1;
        let (tried, mut dead, mut freed) = (self.tried, Vec::new(), 0);
        if let Some((tenant, receiver)) = self.back(&message)
            && let Some(line) = tenant.lines.get_mut(&receiver)
        {
            // What was under way together fails together: once.
            if line.failures == 0 || line.under_way == 0 {
                line.failures = line.failures.saturating_add(1);
            }
            // Whoever asks for less time than is waited anyhow is not asked more often for it.
            let asked = asked.unwrap_or_default();
            line.resting = Some(now + asked.max(wait(line.failures, &message.due.id)));
            let again = now + asked.max(wait(message.attempts, &message.due.id));
            let is_dead = |message: &Message| message.attempts >= ATTEMPTS || now > message.since + LIFE;
            line.later.insert((again, tried), message);
            while line.ready.front().is_some_and(is_dead) {
                dead.extend(line.ready.pop_front());
            }
            dead.extend(line.later.extract_if(.., |_, message| is_dead(message)).map(|(_, message)| message));
            freed = dead.iter().map(|message| message.bytes).sum();
            line.bytes -= freed;
            tenant.bytes -= freed;
        }
        self.bytes -= freed;
        dead.iter().for_each(|message| {
            self.known.remove(&key_of(&message.due));
        });
        self.count_probes();
        dead
    }
}

/// The pause after so many failures, and up to a quarter more by the name of the message, so that what failed together
/// does not come again together.
fn wait(failures: u32, id: &str) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << (failures.saturating_sub(1)).min(16)).min(LONGEST_WAIT);
    let share = crc32c::crc32c_append(failures, id.as_bytes()) % 256;
    wait + wait * share / 1024
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use radarflow_proto::fact::ReceiverKind;

    use super::*;

    fn due(tenant: &str, receiver: &str, n: usize, text: usize) -> DueNotification {
        DueNotification {
            id: format!("{receiver}-{n:06}"),
            tenant: tenant.into(),
            receiver: Receiver {
                tenant: tenant.into(),
                name: receiver.into(),
                url: format!("http://{receiver}"),
                kind: ReceiverKind::Alertmanager,
                group_by: vec![],
                group_wait_ms: 0,
                group_interval_ms: 0,
                repeat_interval_ms: 0,
                send_resolved: true,
                headers: BTreeMap::new(),
                credential: None,
                signing_key: None,
                template: None,
                of_host: false,
            },
            group_key: format!("g{n}"),
            group_labels: BTreeMap::new(),
            alerts: vec![],
            reason: "x".repeat(text),
            at_ms: 0,
        }
    }

    fn all(lines: &mut Lines, now: Instant) -> Vec<Message> {
        std::iter::from_fn(|| lines.next(now)).collect()
    }

    fn of(messages: &[Message], tenant: &str) -> usize {
        messages.iter().filter(|message| message.due.tenant == tenant).count()
    }

    #[test]
    fn places_are_shared_by_tenant_then_by_receiver() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        for n in 0..100 {
            for receiver in 0..30 {
                assert!(lines.push(due("many", &format!("r{receiver}"), n, 10), now).is_empty());
            }
        }
        for n in 0..100 {
            lines.push(due("one", "ops", n, 10), now);
            lines.push(due("two", "ops", n, 10), now);
        }
        let sent = all(&mut lines, now);
        assert_eq!((of(&sent, "many"), of(&sent, "one"), of(&sent, "two")), (PER_TENANT, PER_RECEIVER, PER_RECEIVER));
        let receivers: BTreeSet<_> =
            sent.iter().filter(|m| m.due.tenant == "many").map(|m| &m.due.receiver.name).collect();
        assert_eq!(receivers.len(), PER_TENANT, "each receiver once before any twice");
        // Who came late is next when a place is free.
        let before = sent.len();
        lines.push(due("late", "ops", 0, 10), now);
        assert_eq!(of(&all(&mut lines, now), "late"), 1);
        assert!(before < IN_FLIGHT);
    }

    #[test]
    fn a_receiver_that_fails_has_one_place_and_ever_longer_pauses_until_it_answers() {
        let (mut lines, mut now) = (Lines::default(), Instant::now());
        for n in 0..100 {
            lines.push(due("t", "ops", n, 10), now);
        }
        let sent = all(&mut lines, now);
        assert_eq!(sent.len(), PER_RECEIVER);
        for message in sent {
            assert!(lines.failed(message, None, now).is_empty());
        }
        let mut pauses = Vec::new();
        for _ in 0..20 {
            assert!(lines.next(now).is_none());
            let wakes = lines.wakes(now).unwrap();
            pauses.push(wakes - now);
            now = wakes;
            let [probe] = <[Message; 1]>::try_from(all(&mut lines, now)).unwrap();
            lines.failed(probe, None, now);
        }
        assert!(pauses[0] >= FIRST_WAIT && *pauses.last().unwrap() >= LONGEST_WAIT, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_WAIT * 5 / 4));
        now = lines.wakes(now).unwrap();
        let probe = lines.next(now).unwrap();
        lines.answered(&probe, now);
        assert_eq!(all(&mut lines, now).len(), PER_RECEIVER, "all places again");
        // What it asks for is what it gets.
        let (mut lines, now) = (Lines::default(), Instant::now());
        lines.push(due("t", "ops", 0, 10), now);
        let message = lines.next(now).unwrap();
        lines.failed(message, Some(Duration::from_secs(7)), now);
        assert_eq!(lines.wakes(now), Some(now + Duration::from_secs(7)));
    }

    #[test]
    fn receivers_that_fail_leave_places_to_those_that_answer() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        for tenant in 0..20 {
            for receiver in 0..10 {
                for n in 0..3 {
                    lines.push(due(&format!("t{tenant}"), &format!("dead{receiver}"), n, 10), now);
                }
            }
        }
        // Every receiver failed once.
        let mut now = now;
        loop {
            let sent = all(&mut lines, now);
            if sent.is_empty() {
                break;
            }
            for message in sent {
                lines.failed(message, None, now);
            }
        }
        now += LONGEST_WAIT;
        let sent = all(&mut lines, now);
        assert_eq!(sent.len(), PROBES);
        assert!((0..20).all(|tenant| of(&sent, &format!("t{tenant}")) <= TENANT_PROBES));
        lines.push(due("new", "ops", 0, 10), now);
        assert_eq!(of(&all(&mut lines, now), "new"), 1);
    }

    #[test]
    fn what_is_too_much_is_refused_newest_first_where_there_is_most_and_never_lost_from_sight() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let mut refused = Vec::new();
        for n in 0..10_000 {
            refused.extend(lines.push(due("a", "dead", n, 2000), now));
        }
        assert!(lines.bytes() <= RECEIVER_BYTES);
        let kept = lines.known.len();
        assert_eq!(kept + refused.len(), 10_000);
        assert_eq!(refused[0].due.id, format!("dead-{kept:06}"), "the oldest are kept");
        // A tenant's many receivers are one tenant, and many tenants one program.
        for tenant in 0..10 {
            for receiver in 0..10 {
                for n in 0..1000 {
                    refused.extend(lines.push(due(&format!("t{tenant}"), &format!("r{receiver}"), n, 2000), now));
                }
            }
            assert!(lines.tenants[&format!("t{tenant}")].bytes <= TENANT_BYTES);
        }
        assert!(lines.bytes() <= ALL_BYTES);
        let mut little = Lines { most: ALL_BYTES / 16, ..Lines::default() };
        for n in 0..64 {
            little.push(due("t", "ops", n, RECEIVER_BYTES / 64), now);
            assert!(little.bytes() <= RECEIVER_BYTES / 16);
        }
        assert!(little.bytes() > RECEIVER_BYTES / 32);
        // Who has little is not touched by those who have much, nor is one that is large and alone.
        for n in 0..10 {
            assert!(lines.push(due("small", "ops", n, 2000), now).iter().all(|m| m.due.tenant != "small"));
        }
        assert!(lines.push(due("large", "ops", 0, 2 * RECEIVER_BYTES), now).iter().all(|m| m.due.tenant != "large"));
        // Said again.
        let bytes = lines.bytes();
        assert!(lines.push(due("small", "ops", 3, 2000), now).is_empty());
        assert_eq!(lines.bytes(), bytes);
        lines.settled("ops-000003");
        assert!(lines.bytes() < bytes);
    }

    #[test]
    fn what_nobody_takes_for_long_is_dead_and_leaves_nothing_behind() {
        let (mut lines, mut now) = (Lines::default(), Instant::now());
        for n in 0..100 {
            lines.push(due("t", "ops", n, 10), now);
        }
        let mut dead = 0;
        let begun = now;
        while dead < 100 {
            match lines.next(now) {
                Some(message) => dead += lines.failed(message, None, now).len(),
                None => now = lines.wakes(now).unwrap(),
            }
        }
        assert!(now > begun + LIFE && now < begun + 2 * LIFE);
        assert_eq!((lines.bytes(), lines.known.len(), lines.under_way, lines.probes), (0, 0, 0, 0));
        lines.push(due("t", "ops", 0, 10), now);
        now = lines.wakes(now).unwrap_or(now);
        let message = lines.next(now).unwrap();
        lines.answered(&message, now);
        assert!(lines.tenants.is_empty() && lines.bytes() == 0);
    }

    #[test]
    fn what_is_said_again_with_another_address_goes_there() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let moved = |n| {
            let mut due = due("t", "ops", n, 10);
            due.receiver.url = "http://elsewhere".to_owned();
            due
        };
        lines.push(due("t", "ops", 0, 10), now);
        lines.push(due("t", "ops", 1, 10), now);
        // One is under way, the other failed and waits.
        let [first, second] = <[Message; 2]>::try_from(all(&mut lines, now)).unwrap();
        lines.failed(second, None, now);
        lines.push(moved(0), now);
        lines.push(moved(1), now);
        let sent = all(&mut lines, now);
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].due.id.as_str(), sent[0].due.receiver.url.as_str()), ("ops-000001", "http://elsewhere"));
        lines.answered(&sent[0], now);
        let again = lines.readdressed(&first).unwrap();
        lines.answered(&first, now);
        lines.push(again, now);
        let sent = all(&mut lines, now);
        assert_eq!(sent[0].due.receiver.url, "http://elsewhere");
        lines.answered(&sent[0], now);
        assert_eq!((lines.bytes(), lines.known.len(), lines.anew.len(), lines.under_way), (0, 0, 0, 0));
    }
}
