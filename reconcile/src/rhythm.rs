//! How often a sender speaks, learned from itself; and when it has been quiet for longer than that.
//!
//! What is kept of a sender is its longest pause on each of the last [`DAYS`] days. Its *patience* follows: three times
//! the second longest of these, so that one day that was out of the ordinary, an outage, teaches nothing, and what comes again (a
//! night, a weekend within two weeks) does. While there are fewer than two whole days it is three times the longest. A sender whose patience is
//! over is silent until it speaks again. Before it was heard for [`LEARN_MS`], in
//! [`LEARN_MINUTES`] minutes, nothing is said of it: who speaks once is no sender.
//!
//! All of it is on the live clock, which stands still while nobody could have heard anything: a server that was down calls nobody
//! silent for it.

use serde::{Deserialize, Serialize};

/// Days of which the longest pause is kept: two weekends are in them.
pub const DAYS: usize = 15;
/// A sender is known once it was heard for this long, milliseconds;
pub const LEARN_MS: i64 = 3_600_000;
/// and in so many minutes: who speaks now and then is no sender.
pub const LEARN_MINUTES: u32 = 10;
/// Nobody is silent sooner, milliseconds.
pub const MIN_PATIENCE_MS: i64 = 5 * 60_000;
/// Whoever is quiet for longer is silent, whatever its rhythm, milliseconds: before it is forgotten.
pub const MAX_PATIENCE_MS: i64 = 6 * DAY_MS;
/// So many of its pauses a sender is given.
const FACTOR: i64 = 3;
const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;

/// What a sender's pauses show.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rhythm {
    /// When it was first and last heard, live time.
    heard_ms: Option<(i64, i64)>,
    /// In how many minutes it was heard, as many as matter.
    minutes: u32,
    /// The day of the last pause, and the longest pause of each day from that backwards, milliseconds.
    day: i64,
    longest: [u32; DAYS],
    /// How long it may be quiet, milliseconds.
    patience_ms: Option<i64>,
    /// Since when it is silent, live time.
    silent_ms: Option<i64>,
}

impl Rhythm {
    /// It was heard now. Gives for how long it had been silent, milliseconds, where it was.
    pub fn hear(&mut self, live_ms: i64) -> Option<i64> {
        let Some((first, last)) = self.heard_ms else {
            (self.heard_ms, self.day) = (Some((live_ms, live_ms)), live_ms.div_euclid(DAY_MS));
            self.minutes = 1;
            return None;
        };
        let now = live_ms.max(last);
        if now.div_euclid(MINUTE_MS) > last.div_euclid(MINUTE_MS) {
            self.minutes = (self.minutes + 1).min(LEARN_MINUTES);
        }
        let today = now.div_euclid(DAY_MS);
        // Days without a pause that ended on them had none of their own.
        let days = usize::try_from(today - self.day).unwrap_or(0).min(DAYS);
        self.longest.rotate_right(days);
        self.longest[..days].fill(0);
        self.day = self.day.max(today);
        let pause = u32::try_from(now - last).unwrap_or(u32::MAX);
        let is_longer = pause > self.longest[0];
        self.longest[0] = self.longest[0].max(pause);
        self.heard_ms = Some((first, now));
        if days > 0 || is_longer || self.patience_ms.is_none() {
            self.patience_ms = self.learned_ms(first, now);
        }
        self.silent_ms.take().map(|since| now - since)
    }

    /// The time passes. Gives whether it is silent from now on, and was not.
    pub fn wait(&mut self, live_ms: i64) -> bool {
        let is_over = self.silent_from_ms().is_some_and(|from| from <= live_ms);
        if is_over {
            self.silent_ms = self.heard_ms.map(|(_, last)| last);
        }
        is_over
    }

    /// Whether it was ever heard.
    pub fn is_heard(&self) -> bool {
        self.heard_ms.is_some()
    }

    /// Since when it is silent, live time, if it is.
    pub fn silent_ms(&self) -> Option<i64> {
        self.silent_ms
    }

    /// When it will be silent unless it speaks; `None` where it is, or is not known yet.
    pub fn silent_from_ms(&self) -> Option<i64> {
        let (_, last) = self.heard_ms.filter(|_| self.silent_ms.is_none())?;
        self.patience_ms.map(|patience| last + patience)
    }

    /// How long it may be quiet, milliseconds; `None` while that is learned.
    pub fn patience_ms(&self) -> Option<i64> {
        self.patience_ms
    }

    fn learned_ms(&self, first: i64, last: i64) -> Option<i64> {
        if last - first < LEARN_MS || self.minutes < LEARN_MINUTES {
            return None;
        }
        let mut pauses = self.longest;
        pauses.sort_unstable();
        // The day of the first word is none of the whole days, nor is today.
        let whole = last.div_euclid(DAY_MS) - first.div_euclid(DAY_MS) - 1;
        let nth = if whole >= 2 { DAYS - 2 } else { DAYS - 1 };
        Some((FACTOR * i64::from(pauses[nth])).clamp(MIN_PATIENCE_MS, MAX_PATIENCE_MS))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    /// Hears it each so often from one instant to another; gives when it was called silent.
    fn speak(rhythm: &mut Rhythm, from: i64, to: i64, each: i64) -> Vec<i64> {
        let mut silent = Vec::new();
        let mut at = from;
        while at < to {
            silent.extend(wait(rhythm, at));
            rhythm.hear(at);
            at += each;
        }
        silent
    }

    /// Lets it be quiet until an instant; gives when it was called silent.
    fn wait(rhythm: &mut Rhythm, until: i64) -> Option<i64> {
        let from = rhythm.silent_from_ms().filter(|from| *from <= until)?;
        rhythm.wait(from).then_some(from)
    }

    #[test]
    fn a_sender_is_known_after_an_hour_and_silent_after_its_own_patience() {
        let mut rhythm = Rhythm::default();
        assert_eq!(rhythm.patience_ms(), None);
        speak(&mut rhythm, 0, HOUR - 1, MINUTE);
        assert_eq!((rhythm.patience_ms(), wait(&mut rhythm, 100 * HOUR)), (None, None));
        let mut rhythm = Rhythm::default();
        assert!(speak(&mut rhythm, 0, 2 * HOUR, MINUTE).is_empty());
        assert_eq!(rhythm.patience_ms(), Some(MIN_PATIENCE_MS));
        let last = 2 * HOUR - MINUTE;
        assert_eq!(wait(&mut rhythm, last + MIN_PATIENCE_MS - 1), None);
        assert_eq!(wait(&mut rhythm, last + HOUR), Some(last + MIN_PATIENCE_MS));
        // It is silent once, and speaks again.
        assert!(rhythm.silent_ms().is_some() && wait(&mut rhythm, last + 2 * HOUR).is_none());
        assert_eq!(rhythm.hear(last + 3 * HOUR), Some(3 * HOUR));
        assert!(rhythm.silent_ms().is_none());
    }

    #[test]
    fn who_speaks_each_hour_is_given_three() {
        let mut rhythm = Rhythm::default();
        assert!(speak(&mut rhythm, 0, 10 * DAY_MS, HOUR).is_empty());
        assert_eq!(rhythm.patience_ms(), Some(3 * HOUR));
    }

    #[test]
    fn an_outage_teaches_nothing_and_nights_do() {
        let mut rhythm = Rhythm::default();
        // Quiet from 20:00 to 6:00, every day.
        let day = |rhythm: &mut Rhythm, n: i64| speak(rhythm, n * DAY_MS + 6 * HOUR, n * DAY_MS + 20 * HOUR, MINUTE);
        assert_eq!(day(&mut rhythm, 0).len(), 0);
        assert_eq!(day(&mut rhythm, 1).len(), 1, "the first night is out of the ordinary");
        for n in 2..20 {
            assert_eq!(day(&mut rhythm, n).len(), 0, "night {n}");
        }
        // A day of an outage: it is told, and the next one as soon.
        let patience = rhythm.patience_ms();
        for outage in [21, 40] {
            assert_eq!(day(&mut rhythm, outage).len(), 1);
            for n in outage + 1..outage + 18 {
                assert_eq!(day(&mut rhythm, n).len(), 0, "night {n}");
            }
            assert_eq!(rhythm.patience_ms(), patience);
        }
    }

    #[test]
    fn weekends_are_known_when_two_were() {
        let mut rhythm = Rhythm::default();
        let mut told = Vec::new();
        for n in (0..56).filter(|n| n % 7 < 5) {
            told.extend(speak(&mut rhythm, n * DAY_MS, n * DAY_MS + 20 * HOUR, MINUTE));
        }
        assert!(told.iter().all(|at| *at < 14 * DAY_MS), "{told:?}");
    }

    proptest! {
        /// However it speaks: nobody is silent before the least, nor later than the greatest patience.
        #[test]
        fn patience_is_bounded(pauses in prop::collection::vec(0_i64..3 * DAY_MS, 1..200)) {
            let (mut rhythm, mut at) = (Rhythm::default(), 0);
            for pause in pauses {
                at += pause;
                prop_assert_eq!(rhythm.hear(at), None);
                if let Some(patience) = rhythm.patience_ms() {
                    prop_assert!((MIN_PATIENCE_MS..=MAX_PATIENCE_MS).contains(&patience));
                    prop_assert_eq!(rhythm.silent_from_ms(), Some(at + patience));
                }
            }
        }

        /// Who keeps to one pace is never called silent.
        #[test]
        fn an_even_pace_is_never_silent(pace in 1_i64..3 * HOUR, days in 1_i64..30) {
            let mut rhythm = Rhythm::default();
            let pace = pace.max(days * DAY_MS / 5000);
            prop_assert_eq!(speak(&mut rhythm, 0, days * DAY_MS, pace), Vec::<i64>::new());
        }
    }
}
