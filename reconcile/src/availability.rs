//! Whether a target is up, from what its vantages' probes say.
//!
//! A [`Fold`] keeps the last hour of results of one (target, vantage), at most [`MAX_RESULTS`], in event-time order, so
//! that late and duplicate results count where they belong and any order of arrival gives the same state. One success
//! is up; [`FAILURES`] failures in a row are down; fewer leave the state before them. A target is up if any vantage
//! sees it, down if every vantage that knows says down. Unknown is not down.

use std::collections::BTreeMap;

use radarflow_proto::cell::Time;
use serde::{Deserialize, Serialize};

/// Results one fold keeps.
pub const MAX_RESULTS: usize = 64;
/// How far back a fold looks, microseconds.
pub const HORIZON_US: i64 = 3_600_000_000;
/// Failures in a row that make a target down.
pub const FAILURES: usize = 2;

/// What is known about a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Nobody looked, or not often enough.
    #[default]
    Unknown,
    /// It does not answer.
    Unavailable,
    /// It answers.
    Available,
}

impl State {
    /// As rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Unavailable => "unavailable",
            State::Available => "available",
        }
    }

    /// True, false, or missing.
    pub fn as_bool(self) -> Option<bool> {
        match self {
            State::Unknown => None,
            State::Unavailable => Some(false),
            State::Available => Some(true),
        }
    }
}

/// A state, since when, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Availability {
    /// What it is.
    pub state: State,
    /// Event time of the result that began it.
    pub since: Time,
    /// The deciding probe, in words.
    pub reason: String,
}

/// One vantage's results about one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    results: BTreeMap<Time, bool>,
    /// What held before the oldest result that is kept.
    before: State,
    before_since: Time,
}

impl Fold {
    /// Takes in a result. Of two at one instant the failure counts: a probe that got through once is no proof.
    pub fn add(&mut self, at: Time, available: bool) {
        let newest = self.results.last_key_value().map_or(at, |(t, _)| (*t).max(at));
        if at.0 < newest.0 - HORIZON_US {
            return;
        }
        self.results.entry(at).and_modify(|seen| *seen &= available).or_insert(available);
        while self.results.len() > MAX_RESULTS
            || self.results.first_key_value().is_some_and(|(t, _)| t.0 < newest.0 - HORIZON_US)
        {
            let next = self.state_after(1);
            self.before = next.0;
            self.before_since = next.1;
            self.results.pop_first();
        }
    }

    /// State after the first `n` results.
    fn state_after(&self, n: usize) -> (State, Time) {
        let (mut state, mut since) = (self.before, self.before_since);
        let mut failures = 0;
        let mut first_failure = Time(0);
        for (at, available) in self.results.iter().take(n) {
            if *available {
                failures = 0;
                if state != State::Available {
                    (state, since) = (State::Available, *at);
                }
            } else {
                if failures == 0 {
                    first_failure = *at;
                }
                failures += 1;
                if failures >= FAILURES && state != State::Unavailable {
                    (state, since) = (State::Unavailable, first_failure);
                }
            }
        }
        (state, since)
    }

    /// What this vantage says.
    pub fn state(&self) -> (State, Time) {
        self.state_after(usize::MAX)
    }
}

/// What the vantages together say: up if any sees it, down if those that know all say down.
pub fn combine<'a>(vantages: impl IntoIterator<Item = (&'a str, State, Time)>) -> Availability {
    let mut best: Option<(State, std::cmp::Reverse<Time>, &str)> = None;
    let mut downs = 0;
    for (vantage, state, since) in vantages {
        downs += usize::from(state == State::Unavailable);
        // Up since the first that sees it; down since the last that lost it.
        let since = if state == State::Unavailable { Time(-since.0) } else { since };
        let candidate = (state, std::cmp::Reverse(since), vantage);
        if best.as_ref().is_none_or(|b| candidate > *b) {
            best = Some(candidate);
        }
    }
    match best {
        None | Some((State::Unknown, ..)) => Availability::default(),
        Some((State::Available, since, vantage)) => {
            Availability { state: State::Available, since: since.0, reason: format!("answers {vantage}") }
        }
        Some((State::Unavailable, since, vantage)) => Availability {
            state: State::Unavailable,
            since: Time(-since.0.0),
            reason: match downs {
                1 => format!("{FAILURES} failures in a row seen from {vantage}"),
                n => format!("{FAILURES} failures in a row seen from {n} vantages, {vantage} the last"),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fold(results: &[(i64, bool)]) -> (State, Time) {
        let mut fold = Fold::default();
        for (at, up) in results {
            fold.add(Time(*at), *up);
        }
        fold.state()
    }

    #[test]
    fn two_failures_in_a_row_are_down_and_late_results_count_where_they_belong() {
        assert_eq!(fold(&[]).0, State::Unknown);
        assert_eq!(fold(&[(1, false)]).0, State::Unknown);
        assert_eq!(fold(&[(1, true), (2, false)]), (State::Available, Time(1)));
        assert_eq!(fold(&[(1, true), (2, false), (3, false)]), (State::Unavailable, Time(2)));
        assert_eq!(fold(&[(1, true), (3, false), (4, false), (2, false)]), (State::Unavailable, Time(2)));
        assert_eq!(fold(&[(2, false), (3, false), (1, true), (4, true)]), (State::Available, Time(4)));
    }

    #[test]
    fn any_vantage_that_sees_it_decides() {
        let up = combine([
            ("a", State::Unavailable, Time(5)),
            ("b", State::Available, Time(3)),
            ("c", State::Unknown, Time(0)),
        ]);
        assert_eq!((up.state, up.since), (State::Available, Time(3)));
        let down = combine([("a", State::Unavailable, Time(5)), ("b", State::Unavailable, Time(9))]);
        assert_eq!((down.state, down.since), (State::Unavailable, Time(9)));
        assert_eq!(combine([("a", State::Unknown, Time(1))]).state, State::Unknown);
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(mut results in prop::collection::vec((0i64..1000, any::<bool>()), 0..40), seed: u64) {
            let once = fold(&results);
            let again = results.clone();
            results.extend(again);
            let n = results.len().max(1) as u64;
            for i in 0..results.len() {
                let j = (seed.wrapping_mul(i as u64 + 1) % n) as usize;
                results.swap(i, j);
            }
            prop_assert_eq!(fold(&results), once);
        }
    }
}
