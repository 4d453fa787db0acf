//! What is remembered of who sends notifications.
//!
//! - The informs of the last [`INFORM_WINDOW_MS`]: one that is sent again, as its answer was late, was there before.
//! - How many there were in this step of time ([`STEP_US`]). A storm is thinned: the first [`WHOLE`] of a step are kept, then every
//!   tenth, from ten times as many on every hundredth, and so on. So a minute of a million a second is less than a hundred thousand
//!   rows, and how large it was can be read of the counters.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How long an inform is known to have been there, milliseconds.
pub const INFORM_WINDOW_MS: i64 = 5 * 60_000;
/// Informs of one sender that are known.
pub const MAX_INFORMS: usize = 256;
/// A step of the time by which a storm is counted, microseconds.
pub const STEP_US: i64 = 10_000_000;
/// Notifications of one sender in a step that are all kept.
pub const WHOLE: u64 = 1000;

/// A sender of notifications.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Notifier {
    /// Which step of time, and how many there were in it.
    step: i64,
    taken: u64,
    /// By the hash of what they say, and when they were first there.
    informs: VecDeque<(u64, i64)>,
}

impl Notifier {
    /// What it takes, about.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.informs.len() * size_of::<(u64, i64)>()
    }

    /// Whether the next one, received at an instant, is kept.
    pub fn keeps(&mut self, received_us: i64) -> bool {
        let step = received_us.div_euclid(STEP_US);
        if step != self.step {
            (self.step, self.taken) = (step, 0);
        }
        self.taken += 1;
        let mut one_in = 1;
        while self.taken > WHOLE.saturating_mul(one_in) {
            one_in = one_in.saturating_mul(10);
        }
        self.taken.is_multiple_of(one_in)
    }

    /// Whether an inform was there before.
    pub fn knows(&mut self, body: &[u8], now_ms: i64) -> bool {
        while self.informs.front().is_some_and(|(_, at)| now_ms - at > INFORM_WINDOW_MS) {
            self.informs.pop_front();
        }
        let digest = Sha256::digest(body);
        let hash = digest.iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte));
        if self.informs.iter().any(|(known, _)| *known == hash) {
            return true;
        }
        if self.informs.len() >= MAX_INFORMS {
            self.informs.pop_front();
        }
        self.informs.push_back((hash, now_ms));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_thinned_by_how_large_it_is_and_the_next_step_begins_anew() {
        let mut notifier = Notifier::default();
        let mut kept = |count: u64, at_us: i64| (0..count).filter(|_| notifier.keeps(at_us)).count();
        assert_eq!((kept(1000, 5), kept(9000, 6), kept(90_000, 7), kept(900_000, 8)), (1000, 900, 900, 900));
        assert_eq!((kept(10, STEP_US), kept(10, STEP_US - 1)), (10, 10));
    }

    #[test]
    fn an_inform_is_known_for_a_while() {
        let mut notifier = Notifier::default();
        assert!(!notifier.knows(b"a", 0) && notifier.knows(b"a", INFORM_WINDOW_MS));
        assert!(!notifier.knows(b"a", INFORM_WINDOW_MS + 1) && notifier.knows(b"a", INFORM_WINDOW_MS + 2));
        for n in 0..MAX_INFORMS {
            assert!(!notifier.knows(&n.to_be_bytes(), INFORM_WINDOW_MS + 3));
        }
        assert!(notifier.informs.len() == MAX_INFORMS && !notifier.knows(b"a", INFORM_WINDOW_MS + 4));
    }
}
