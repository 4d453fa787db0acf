//! What each sender of a socket may send, and what was shed of whom: nobody takes another's place.
//!
//! A sender has an *allowance*: so many datagrams a second, and as many at once. Whoever was quiet for a second has all of it, and
//! so has whoever is not known: forgetting the quiet ones changes nothing, and only those that sent within the last second are
//! remembered. Beyond [`MAX_SENDERS`] of them newcomers share one allowance. Addresses can be forged; whoever sends all the time
//! keeps his own.
//!
//! Where the ledger has no room for all, everybody's first comes before anybody's second ([`in_turns`]).

use std::collections::HashMap;
use std::net::IpAddr;

use radarflow_proto::frame::Entry;

/// Senders of a socket that are known by address.
pub(super) const MAX_SENDERS: usize = 16_384;
/// What a socket remembers of them, and of what was shed of whom, about.
pub const SENDERS_BYTES: usize = (MAX_SENDERS + MAX_TOLD) * 96;
/// Senders of which it is told apart, at once, what was shed of them; of others it is the feed's.
const MAX_TOLD: usize = 1024;
/// A second, in the microseconds that entries are received at.
const SECOND_US: i64 = 1_000_000;

/// What a sender has left: parts of a millionth of a datagram, so that a second at any rate is whole.
struct Left {
    parts: u64,
    at_us: i64,
}

/// The senders of one socket.
#[derive(Default)]
pub(super) struct Senders {
    /// Datagrams a second of one sender.
    most: Option<u32>,
    left: HashMap<IpAddr, Left>,
    /// What those share for whom there is no place.
    others: Option<Left>,
    swept_us: i64,
    shed: HashMap<Option<IpAddr>, u64>,
}

impl Senders {
    /// Each may send so many a second; as many as it likes where nothing is said.
    pub(super) fn new(most: Option<u32>) -> Self {
        Senders { most, ..Senders::default() }
    }

    /// Whether a datagram of a sender is within its allowance. What is not is counted.
    pub(super) fn admit(&mut self, ip: IpAddr, now_us: impl FnOnce() -> i64) -> bool {
        let Some(most) = self.most else { return true };
        let now_us = now_us();
        if now_us.abs_diff(self.swept_us) >= SECOND_US as u64 {
            self.swept_us = now_us;
            self.left.retain(|_, left| now_us - left.at_us < SECOND_US);
        }
        let whole = u64::from(most) * SECOND_US as u64;
        let all = || Left { parts: whole, at_us: now_us };
        let left = if self.left.len() < MAX_SENDERS || self.left.contains_key(&ip) {
            self.left.entry(ip).or_insert_with(all)
        } else {
            self.others.get_or_insert_with(all)
        };
        let since = now_us.saturating_sub(left.at_us).clamp(0, SECOND_US) as u64;
        (left.parts, left.at_us) = ((left.parts + since * u64::from(most)).min(whole), now_us);
        let rest = left.parts.checked_sub(SECOND_US as u64);
        if let Some(rest) = rest {
            left.parts = rest;
        } else {
            self.shed(Some(ip), 1);
        }
        rest.is_some()
    }

    /// Counts what is given up of a sender.
    pub(super) fn shed(&mut self, ip: Option<IpAddr>, datagrams: u64) {
        let ip = ip.filter(|ip| self.shed.len() < MAX_TOLD || self.shed.contains_key(&Some(*ip)));
        *self.shed.entry(ip).or_default() += datagrams;
    }

    /// What was shed since it was last taken, by sender.
    pub(super) fn take_shed(&mut self) -> Vec<(Option<IpAddr>, u64)> {
        self.shed.drain().collect()
    }
}

/// The first of each sender, then the second of each, and so on; a sender's own stay in order.
pub(super) fn in_turns(entries: Vec<Entry>) -> Vec<Entry> {
    let mut taken: HashMap<Option<IpAddr>, u32> = HashMap::new();
    let turn = |entry: Entry| {
        let turn = taken.entry(entry.peer.map(|peer| peer.ip())).or_default();
        *turn += 1;
        (*turn, entry)
    };
    let mut turns: Vec<(u32, Entry)> = entries.into_iter().map(turn).collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    #[test]
    fn a_sender_has_its_allowance_whatever_others_send() {
        let mut senders = Senders::new(Some(10));
        let mut admitted = |of: u32, at_ms: i64| senders.admit(ip(of), || 1_000_000_000 + at_ms * 1000);
        let loud = (0..500).filter(|n| admitted(1, *n)).count();
        // As many at once, and ten a second.
        assert_eq!(loud, 10 + 4);
        assert!((0..10).all(|_| admitted(2, 500)) && !admitted(2, 500));
        assert!(admitted(1, 500) && !admitted(1, 500) && admitted(1, 600) && !admitted(1, 600));
        // Who was quiet has all of it.
        assert_eq!((0..20).filter(|_| admitted(1, 5000)).count(), 10);
        let mut shed = senders.take_shed();
        shed.sort();
        assert_eq!(shed, [(Some(ip(1)), 486 + 2 + 10), (Some(ip(2)), 1)]);
        assert!(senders.take_shed().is_empty());
        assert!((0..1000).all(|_| Senders::new(None).admit(ip(1), || 0)));
    }

    #[test]
    fn forged_senders_take_nobodys_place_and_no_memory() {
        let mut senders = Senders::new(Some(5));
        let at = 1_000_000_000;
        assert!(senders.admit(ip(1), || at));
        let forged = (100..200_000u32).filter(|n| senders.admit(ip(*n), || at)).count();
        assert_eq!(forged, MAX_SENDERS - 1 + 5);
        assert!(senders.left.len() == MAX_SENDERS && senders.shed.len() <= MAX_TOLD + 1);
        assert!((0..4).all(|_| senders.admit(ip(1), || at)));
        assert_eq!(senders.take_shed().iter().map(|(_, n)| n).sum::<u64>(), 199_900 - forged as u64);
        // A second later they are forgotten.
        assert!(senders.admit(ip(300_000), || at + SECOND_US));
        assert_eq!(senders.left.len(), 1);
    }

    #[test]
    fn everybodys_first_comes_before_anybodys_second() {
        let of = |n: u32, body: &'static str| {
            let peer = Some(std::net::SocketAddr::new(ip(n), 9));
            Entry { peer, received_us: 0, body: bytes::Bytes::from_static(body.as_bytes()) }
        };
        let turned = in_turns(vec![of(1, "a1"), of(1, "a2"), of(1, "a3"), of(2, "b1"), of(3, "c1"), of(2, "b2")]);
        let bodies: Vec<&[u8]> = turned.iter().map(|entry| &entry.body[..]).collect();
        assert_eq!(bodies, ["a1", "b1", "c1", "a2", "b2", "a3"].map(str::as_bytes));
    }
}
