//! What is remembered of who sends notifications.
//!
//! - The informs of the last [`INFORM_WINDOW_MS`]: one that is sent again, as its answer was late, was there before.
//! - How many there were in this step of time ([`STEP_US`]). A storm is thinned: the first [`WHOLE`] of a step are kept, then every
//!   tenth, from ten times as many on every hundredth, and so on. So a minute of a million a second is less than a hundred thousand
//!   rows, and how large it was can be read of the counters. A sender that passes on what many agents say has a storm an agent, about,
//!   and ten times the room in all. What is refused, what anybody may have sent and what is authentic are counted apart ([`Lane`]):
//!   whoever pretends to be a device thins only what others can pretend, too.

use std::collections::VecDeque;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How long an inform is known to have been there, milliseconds.
pub const INFORM_WINDOW_MS: i64 = 5 * 60_000;
/// Informs of one sender that are known, of anybody's and of authentic ones each.
pub const MAX_INFORMS: usize = 128;
/// A step of the time by which a storm is counted, microseconds.
pub const STEP_US: i64 = 10_000_000;
/// Notifications of one agent in a step that are all kept.
pub const WHOLE: u64 = 1000;
/// The same of one sender, whichever agents it speaks of.
pub const WHOLE_OF_SENDER: u64 = 10 * WHOLE;
/// Counters of the agents that a sender speaks of; some share one.
const AGENTS: usize = 16;

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It cannot be read, or is not believed.
    Refused = 0,
    /// Anybody may have sent it.
    Anybody = 1,
    /// It is authentic.
    Authentic = 2,
}

/// What becomes of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is kept.
    Kept,
    /// It is one of a storm, and is not.
    Shed,
    /// It is an inform that was there before, and was kept or not.
    Again(bool),
}

/// How many there were in the step.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Storm {
    taken: u64,
    of_agents: [u32; AGENTS],
}

/// An inform that was there.
#[derive(Debug, Serialize, Deserialize)]
struct Inform {
    /// Of what it says; the lowest bit tells whether it was kept: there are many of these.
    hash: u64,
    at_ms: i64,
}

impl Inform {
    fn new(hash: u64, at_ms: i64, kept: bool) -> Self {
        Inform { hash: hash & !1 | u64::from(kept), at_ms }
    }

    fn is(&self, hash: u64) -> bool {
        self.hash | 1 == hash | 1
    }

    fn was_kept(&self) -> bool {
        self.hash & 1 == 1
    }
}

/// A sender of notifications.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Notifier {
    /// Which step of time.
    step: i64,
    lanes: [Storm; 3],
    /// Of anybody, and authentic ones: neither drives out the other.
    informs: [VecDeque<Inform>; 2],
}

/// As older builds kept it: one storm, and informs by the hash of what they say, with their time.
#[derive(Debug, Serialize, Deserialize)]
pub struct FirstNotifier {
    step: i64,
    taken: u64,
    informs: VecDeque<(u64, i64)>,
}

impl FirstNotifier {
    /// As it is kept now.
    pub fn converted(self) -> Notifier {
        let informs = self.informs.into_iter().map(|(hash, at_ms)| Inform::new(hash, at_ms, true));
        Notifier { step: self.step, lanes: Default::default(), informs: [informs.collect(), VecDeque::new()] }
    }
}

/// Whether the `n`th is kept, of which the first `whole` are.
fn is_kept(n: u64, whole: u64) -> bool {
    let mut one_in = 1;
    while n > whole.saturating_mul(one_in) {
        one_in = one_in.saturating_mul(10);
    }
    n.is_multiple_of(one_in)
}

fn hash_of(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

impl Notifier {
    /// What it takes, about.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.informs.iter().map(VecDeque::len).sum::<usize>() * size_of::<Inform>()
    }

    /// The next one, received at an instant, about an agent other than the sender.
    pub fn hear(&mut self, lane: Lane, agent: Option<IpAddr>, received_us: i64) -> Heard {
        let step = received_us.div_euclid(STEP_US);
        if step != self.step {
            (self.step, self.lanes) = (step, Default::default());
        }
        let storm = &mut self.lanes[lane as usize];
        let octets = agent.map_or(0, |agent| match agent {
            IpAddr::V4(ip) => hash_of(&ip.octets()),
            IpAddr::V6(ip) => hash_of(&ip.octets()),
        });
        let of_agent = &mut storm.of_agents[octets as usize % AGENTS];
        *of_agent = of_agent.saturating_add(1);
        if !is_kept((*of_agent).into(), WHOLE) {
            return Heard::Shed;
        }
        // Of what the agents' rooms leave.
        storm.taken += 1;
        if is_kept(storm.taken, WHOLE_OF_SENDER) { Heard::Kept } else { Heard::Shed }
    }

    /// The same of an inform, that may have been there before.
    pub fn hear_inform(
        &mut self,
        body: &[u8],
        lane: Lane,
        agent: Option<IpAddr>,
        received_us: i64,
        now_ms: i64,
    ) -> Heard {
        let informs = &mut self.informs[usize::from(lane == Lane::Authentic)];
        while informs.front().is_some_and(|inform| now_ms - inform.at_ms > INFORM_WINDOW_MS) {
            informs.pop_front();
        }
        let hash = hash_of(body);
        if let Some(known) = informs.iter().find(|inform| inform.is(hash)) {
            return Heard::Again(known.was_kept());
        }
        if informs.len() >= MAX_INFORMS {
            informs.pop_front();
        }
        let heard = self.hear(lane, agent, received_us);
        self.informs[usize::from(lane == Lane::Authentic)].push_back(Inform::new(hash, now_ms, heard == Heard::Kept));
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_thinned_by_how_large_it_is_and_the_next_step_begins_anew() {
        let mut notifier = Notifier::default();
        let mut kept = |count: u64, at_us: i64| {
            (0..count).filter(|_| notifier.hear(Lane::Anybody, None, at_us) == Heard::Kept).count()
        };
        assert_eq!((kept(1000, 5), kept(9000, 6), kept(90_000, 7), kept(900_000, 8)), (1000, 900, 900, 900));
        assert_eq!((kept(10, STEP_US), kept(10, STEP_US - 1)), (10, 10));
    }

    #[test]
    fn what_is_worth_less_thins_nothing_that_is_worth_more() {
        let mut notifier = Notifier::default();
        let mut kept = |lane: Lane| (0..10_000).filter(|_| notifier.hear(lane, None, 0) == Heard::Kept).count();
        assert_eq!([Lane::Refused, Lane::Anybody, Lane::Authentic].map(&mut kept), [1900; 3]);
    }

    #[test]
    fn a_sender_that_speaks_of_many_agents_has_a_storm_an_agent_and_one_in_all() {
        let mut notifier = Notifier::default();
        let mut kept = |agent: u8, count: u64| {
            let agent = Some(IpAddr::from([10, 0, 0, agent]));
            (0..count).filter(|_| notifier.hear(Lane::Anybody, agent, 0) == Heard::Kept).count()
        };
        assert_eq!((kept(1, 5000), kept(2, 1000)), (1400, 1000));
        // However they take turns, none is left out.
        let mut in_turn = Notifier::default();
        let mut of = [0; 20];
        for n in 0..40_000usize {
            let agent = Some(IpAddr::from([10, 0, 0, (n % 20) as u8]));
            of[n % 20] += usize::from(in_turn.hear(Lane::Anybody, agent, 0) == Heard::Kept);
        }
        assert!(of.iter().all(|kept| *kept >= 200), "{of:?}");
        // Whatever addresses are invented, the sender's own room bounds them.
        let all: usize = (0..=255).map(|agent| kept(agent, 1000)).sum();
        assert!(all < 20_000, "{all}");
    }

    #[test]
    fn an_inform_is_known_for_a_while_with_what_became_of_it() {
        let mut notifier = Notifier::default();
        let mut hear =
            |body: &[u8], now_ms: i64| notifier.hear_inform(body, Lane::Anybody, None, now_ms * STEP_US, now_ms);
        assert_eq!((hear(b"a", 0), hear(b"a", INFORM_WINDOW_MS)), (Heard::Kept, Heard::Again(true)));
        let after = INFORM_WINDOW_MS + 1;
        assert_eq!((hear(b"a", after), hear(b"a", after + 1)), (Heard::Kept, Heard::Again(true)));
        for n in 0..MAX_INFORMS {
            assert_eq!(hear(&n.to_be_bytes(), after + 2), Heard::Kept);
        }
        assert_eq!(hear(b"a", after + 3), Heard::Kept);
        assert_eq!(notifier.informs[0].len(), MAX_INFORMS);
        assert_eq!(notifier.hear_inform(b"a", Lane::Authentic, None, 0, 0), Heard::Kept);
        for n in 0..2 * MAX_INFORMS {
            notifier.hear_inform(&n.to_be_bytes(), Lane::Anybody, None, 0, 0);
        }
        assert_eq!(notifier.hear_inform(b"a", Lane::Authentic, None, 0, 0), Heard::Again(true));
        let mut shed = Notifier::default();
        let of = |n: u64| n.to_be_bytes();
        let heard: Vec<_> = (0..=WHOLE).map(|n| shed.hear_inform(&of(n), Lane::Anybody, None, 0, 0)).collect();
        assert_eq!(heard[WHOLE as usize], Heard::Shed);
        assert_eq!(shed.hear_inform(&of(WHOLE), Lane::Anybody, None, 0, 1), Heard::Again(false));
    }
}
