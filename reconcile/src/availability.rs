//! Whether a target is up, from what its vantages' probes say.
//!
//! A [`Fold`] takes the results of one (target, vantage) in event-time order. It keeps the last hour of them, at most
//! [`MAX_RESULTS`], so that late and duplicate results count where they belong and any order of arrival gives the same
//! state. One success is up; [`FAILURES`] failures in a row are down; fewer leave the state before them, and are
//! insufficient data where there is none. A look that failed for the prober's own reasons is no result. A target is up if any
//! vantage sees it, down if every vantage that knows says down. Neither unknown nor insufficient data is down.
//!
//! **Ageing.** What a vantage says counts for [`PATIENCE`] of its own intervals after its newest result, then it is
//! unknown. The interval is the median of the last gaps between its results about the target ([`interval_ms`]). Both are
//! measured on the live clock of whoever folds, which stands still while nobody could have heard anything. A result's
//! instant on it is what the clock showed on receipt, less the result's age then: the newest result grows old while the
//! clock runs, and one that comes late is as old as it is.
//!
//! After a gap of [`PATIENCE`] intervals between two results the vantage begins anew, as if its word had aged meanwhile.
//! That is a property of the results alone, so a late result that fills the gap mends it.
//!
//! Whoever folds bounds a result's event time by its receipt: a vantage whose clock is ahead ages like any other. One
//! whose clock is behind by more than its patience says nothing that counts.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::cell::Time;
use serde::{Deserialize, Serialize};

/// Results one fold keeps.
pub const MAX_RESULTS: usize = 64;
/// How far back a fold looks, microseconds.
pub const HORIZON_US: i64 = 3_600_000_000;
/// Failures in a row that make a target down.
pub const FAILURES: usize = 2;
/// Intervals without a result after which a vantage's word counts no more.
pub const PATIENCE: i64 = 2;
/// Gaps between results that an interval is learned from.
pub const GAPS: usize = 8;
/// With fewer gaps than these an interval is not taken to be shorter than [`DEFAULT_INTERVAL_MS`].
pub const MIN_GAPS: usize = 3;
/// The interval of a vantage with a single result, milliseconds: that of an ordinary sweep.
pub const DEFAULT_INTERVAL_MS: i64 = 15 * 60_000;
/// No interval is shorter, milliseconds: agents push what they found every 30 s, whatever its interval.
pub const MIN_INTERVAL_MS: i64 = 60_000;
/// No interval is longer, milliseconds.
pub const MAX_INTERVAL_MS: i64 = 86_400_000;

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
    /// There are results, and too few to say.
    InsufficientData,
    /// The vantage that found it does not count, because it lost nearly all of its targets at once. Only a word is so.
    Doubted,
}

impl State {
    /// As rows spell it.
    pub fn name(self) -> &'static str {
        match self {
            State::Unknown | State::Doubted => "unknown",
            State::Unavailable => "unavailable",
            State::Available => "available",
            State::InsufficientData => "insufficient_data",
        }
    }

    /// True, false, or missing.
    pub fn as_bool(self) -> Option<bool> {
        match self {
            State::Unknown | State::InsufficientData | State::Doubted => None,
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

/// What one vantage says of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Word {
    /// What.
    pub state: State,
    /// Event time of the result that began it; of a silent vantage, when its word ceased to count.
    pub since: Time,
    /// Its word has aged: the state is unknown.
    pub silent: Option<Silent>,
}

/// What a vantage said before it fell silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Silent {
    /// What it said last.
    pub said: State,
    /// Its interval, milliseconds.
    pub interval_ms: i64,
}

/// One result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Look {
    available: bool,
    /// Its instant on the live clock, milliseconds.
    heard_ms: i64,
}

/// What results in event-time order amount to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    state: State,
    since: Time,
    /// Failures in a row at the end, as many as matter.
    failures: usize,
    /// Event time of the first of them.
    failing_since: Time,
    /// Event time of the newest result.
    at: Option<Time>,
    /// Its instant on the live clock, milliseconds.
    heard_ms: i64,
    /// The last gaps between results, milliseconds, the newest first; 0 where there is none.
    gaps: [u32; GAPS],
}

impl Run {
    /// Takes in the result that follows.
    fn take(&mut self, at: Time, Look { available, heard_ms }: Look) {
        // What was found while nobody listened, and came afterwards, is no later than what was heard before: no gap.
        let gap_ms = heard_ms - self.heard_ms;
        if self.at.is_some() && gap_ms > 0 {
            if gap_ms >= self.patience_ms() {
                (self.state, self.failures) = (State::Unknown, 0);
            }
            self.gaps.rotate_right(1);
            self.gaps[0] = gap_ms.min(MAX_INTERVAL_MS) as u32;
        }
        (self.at, self.heard_ms) = (Some(at), heard_ms);
        if available {
            self.failures = 0;
            self.turn(State::Available, at);
        } else {
            if self.failures == 0 {
                self.failing_since = at;
            }
            self.failures = (self.failures + 1).min(FAILURES);
            if self.failures == FAILURES {
                self.turn(State::Unavailable, self.failing_since);
            } else if self.state == State::Unknown {
                self.turn(State::InsufficientData, self.failing_since);
            }
        }
    }

    fn turn(&mut self, to: State, since: Time) {
        if self.state != to {
            (self.state, self.since) = (to, since);
        }
    }

    fn patience_ms(&self) -> i64 {
        PATIENCE * interval_ms(&self.gaps)
    }
}

/// The interval that gaps between results show, milliseconds; 0 is no gap. One gap that is out of the ordinary does not
/// move it. While few are known it errs on the long side.
pub fn interval_ms(gaps: &[u32; GAPS]) -> i64 {
    let mut known = *gaps;
    known.sort_unstable();
    let known = &known[known.partition_point(|gap| *gap == 0)..];
    let interval = match known.last() {
        None => DEFAULT_INTERVAL_MS,
        Some(longest) if known.len() < MIN_GAPS => DEFAULT_INTERVAL_MS.max((*longest).into()),
        Some(_) => known[known.len() / 2].into(),
    };
    interval.clamp(MIN_INTERVAL_MS, MAX_INTERVAL_MS)
}

/// One vantage's results about one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    results: BTreeMap<Time, Look>,
    /// What the results amount to that are no longer kept.
    before: Run,
    /// What all amount to.
    all: Run,
    /// The latest of the results' instants on the live clock, milliseconds.
    heard_ms: i64,
}

impl Fold {
    /// Takes in a result. Of two at one instant the failure counts: a probe that got through once is no proof.
    /// `heard_ms` is its instant on the live clock, milliseconds: what that shows, less the result's age on receipt.
    pub fn add(&mut self, at: Time, heard_ms: i64, available: bool) {
        // What came before the results that are kept has been judged without it.
        if self.before.at.is_some_and(|before| at <= before) {
            return;
        }
        self.heard_ms = if self.all.at.is_some() { self.heard_ms.max(heard_ms) } else { heard_ms };
        let is_next = self.all.at.is_none_or(|newest| at > newest);
        let look = self.results.entry(at).or_insert(Look { available, heard_ms });
        look.available &= available;
        look.heard_ms = look.heard_ms.max(heard_ms);
        if is_next {
            self.all.take(at, *look);
        } else {
            self.all = self.before.clone();
            self.results.iter().for_each(|(at, look)| self.all.take(*at, *look));
        }
        let oldest = self.all.at.unwrap_or(at).0 - HORIZON_US;
        while self.results.len() > MAX_RESULTS || self.results.first_key_value().is_some_and(|(t, _)| t.0 < oldest) {
            if let Some((at, look)) = self.results.pop_first() {
                self.before.take(at, look);
            }
        }
    }

    /// When the vantage's word ceases to count, on the live clock, milliseconds. `None` where it says nothing.
    pub fn silent_from_ms(&self) -> Option<i64> {
        (self.all.state != State::Unknown).then(|| self.heard_ms + self.all.patience_ms())
    }

    /// Whether one of the results that are kept is a success.
    pub fn has_seen(&self) -> bool {
        self.results.values().any(|look| look.available)
    }

    /// The newest result's instant on the live clock, milliseconds.
    pub fn heard_ms(&self) -> i64 {
        self.heard_ms
    }

    /// What this vantage says, when the live clock shows `now_ms`.
    pub fn word(&self, now_ms: i64) -> Word {
        let Run { state, since, .. } = self.all;
        match self.silent_from_ms() {
            None => Word::default(),
            Some(from) if now_ms < from => Word { state, since, silent: None },
            Some(_) => Word {
                state: State::Unknown,
                since: Time::from_ms(self.all.at.unwrap_or_default().ms() + self.all.patience_ms()),
                silent: Some(Silent { said: state, interval_ms: interval_ms(&self.all.gaps) }),
            },
        }
    }
}

/// What the vantages together say: up if any sees it, down if those that know all say down. A vantage may speak of
/// several addresses of one target.
pub fn combine<'a>(words: impl IntoIterator<Item = (&'a str, &'a Word)>) -> Availability {
    let mut up: Option<(Time, &str)> = None;
    let mut down: Option<(Time, &str)> = None;
    let mut downs: BTreeSet<&str> = BTreeSet::new();
    let mut silent: Option<(Time, &str, Silent)> = None;
    let mut lost: Option<(Time, &str, Silent)> = None;
    let mut too_few: Option<(Time, &str)> = None;
    let mut doubted: Option<(Time, &str)> = None;
    for (vantage, word) in words {
        let said = (word.since, vantage);
        match (word.state, word.silent) {
            (State::Available, _) => up = Some(up.map_or(said, |first| first.min(said))),
            (State::Unavailable, _) => {
                downs.insert(vantage);
                down = down.max(Some(said));
            }
            (State::InsufficientData, _) => too_few = Some(too_few.map_or(said, |first| first.min(said))),
            (State::Doubted, _) => doubted = doubted.max(Some(said)),
            (State::Unknown, Some(how)) => {
                let fell = Some((word.since, vantage, how));
                silent = silent.max(fell);
                if how.said == State::Available {
                    lost = lost.max(fell);
                }
            }
            (State::Unknown, None) => {}
        }
    }
    // Up since the first that sees it.
    if let Some((since, vantage)) = up {
        return Availability { state: State::Available, since, reason: format!("answers {vantage}") };
    }
    // Down since the last that lost it, or that saw it and fell silent.
    if let Some((since, vantage)) = down {
        let seen = match downs.len() {
            1 => format!("{FAILURES} failures in a row seen from {vantage}"),
            n => format!("{FAILURES} failures in a row seen from {n} vantages, {vantage} the last"),
        };
        return match lost.filter(|(fell, ..)| *fell > since) {
            Some((fell, who, how)) => Availability {
                state: State::Unavailable,
                since: fell,
                reason: format!("{seen}; {}", no_result(&format!("{who}, which saw it,"), how)),
            },
            None => Availability { state: State::Unavailable, since, reason: seen },
        };
    }
    if let Some((since, vantage)) = too_few {
        let reason = format!("fewer than {FAILURES} failures in a row seen from {vantage}, and no answer before");
        return Availability { state: State::InsufficientData, since, reason };
    }
    if let Some((since, vantage)) = doubted {
        let reason = format!("{vantage} is sick: it lost nearly all of its targets at once");
        return Availability { state: State::Unknown, since, reason };
    }
    match silent {
        Some((since, vantage, how)) => Availability { state: State::Unknown, since, reason: no_result(vantage, how) },
        None => Availability::default(),
    }
}

/// That a vantage is silent, in words that stay true.
fn no_result(vantage: &str, how: Silent) -> String {
    let (patience, interval) = (span(PATIENCE * how.interval_ms), span(how.interval_ms));
    format!("no result from {vantage} for {patience} (interval {interval})")
}

/// A span of time in words.
fn span(ms: i64) -> String {
    match ms / 1000 {
        s @ ..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} minutes", s / 60),
        s => format!("{} hours", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE_MS: i64 = 60_000;

    /// Results at milliseconds, each heard at once.
    fn folded(results: &[(i64, bool)]) -> Fold {
        let mut fold = Fold::default();
        for (ms, up) in results {
            fold.add(Time::from_ms(*ms), *ms, *up);
        }
        fold
    }

    /// What they amount to at once.
    fn said(results: &[(i64, bool)]) -> (State, i64) {
        let word = folded(results).word(i64::MIN);
        (word.state, word.since.ms())
    }

    #[test]
    fn two_failures_in_a_row_are_down_and_late_results_count_where_they_belong() {
        assert_eq!(said(&[]).0, State::Unknown);
        assert_eq!(said(&[(1, false)]), (State::InsufficientData, 1));
        assert_eq!(said(&[(2, false), (1, true)]), (State::Available, 1), "a late result decides");
        assert_eq!(said(&[(1, true), (2, false)]), (State::Available, 1));
        assert_eq!(said(&[(1, true), (2, false), (3, false)]), (State::Unavailable, 2));
        assert_eq!(said(&[(1, true), (3, false), (4, false), (2, false)]), (State::Unavailable, 2));
        assert_eq!(said(&[(2, false), (3, false), (1, true), (4, true)]), (State::Available, 4));
    }

    #[test]
    fn what_is_no_longer_kept_still_counts() {
        // Down for longer than a fold looks back: since the first failure, at every result.
        let mut fold = folded(&[(0, true)]);
        for n in 1..500 {
            let at = n * MINUTE_MS;
            fold.add(Time::from_ms(at), at, false);
            if n > 1 {
                let word = fold.word(at);
                assert_eq!((word.state, word.since.ms()), (State::Unavailable, MINUTE_MS), "{n}");
            }
        }
        // Looks a fold's horizon apart count one after another.
        let hour = HORIZON_US / 1000;
        let rare = folded(&[(0, true), (hour, true), (2 * hour, true), (3 * hour + 1, false), (4 * hour + 2, false)]);
        assert_eq!(rare.word(4 * hour + 3).state, State::Unavailable);
        // One that is older than what was judged already changes nothing.
        let mut full = folded(&(0..80).map(|n| (n * MINUTE_MS, n < 10)).collect::<Vec<_>>());
        let before = full.clone();
        full.add(Time::from_ms(12 * MINUTE_MS + 1), 0, true);
        assert_eq!(full, before);
    }

    #[test]
    fn intervals_are_learned_and_bounded() {
        let gaps = |known: &[u32]| {
            let mut gaps = [0; GAPS];
            gaps[..known.len()].copy_from_slice(known);
            interval_ms(&gaps)
        };
        assert_eq!(gaps(&[]), DEFAULT_INTERVAL_MS);
        assert_eq!(gaps(&[60_000, 60_000]), DEFAULT_INTERVAL_MS);
        assert_eq!(gaps(&[3_600_000]), 3_600_000, "a rare look is believed at once");
        assert_eq!(gaps(&[90_000, 90_000, 90_000]), 90_000);
        assert_eq!(gaps(&[90_000, 3_600_000, 90_000, 91_000]), 91_000, "one outage is no interval");
        assert_eq!(gaps(&[1, 1, 1, 1]), MIN_INTERVAL_MS);
        assert_eq!(gaps(&[u32::MAX; GAPS]), MAX_INTERVAL_MS);
    }

    #[test]
    fn a_word_ages_after_two_intervals_and_a_single_result_ages_too() {
        let every_minute = folded(&[(0, true), (MINUTE_MS, true), (2 * MINUTE_MS, true), (3 * MINUTE_MS, true)]);
        assert_eq!(every_minute.silent_from_ms(), Some(5 * MINUTE_MS));
        assert_eq!(every_minute.word(5 * MINUTE_MS - 1).state, State::Available);
        let aged = every_minute.word(5 * MINUTE_MS);
        assert_eq!((aged.state, aged.since.ms()), (State::Unknown, 5 * MINUTE_MS));
        assert_eq!(aged.silent, Some(Silent { said: State::Available, interval_ms: MINUTE_MS }));
        assert_eq!(combine([("agent-7", &aged)]).reason, "no result from agent-7 for 2 minutes (interval 60 s)");
        assert_eq!(folded(&[(0, true)]).silent_from_ms(), Some(PATIENCE * DEFAULT_INTERVAL_MS));
        // What was old on receipt is old; too little to say ages too.
        let mut late = Fold::default();
        late.add(Time::from_ms(0), -PATIENCE * DEFAULT_INTERVAL_MS, true);
        assert_eq!(late.word(0).state, State::Unknown);
        assert_eq!(folded(&[(0, false)]).silent_from_ms(), Some(PATIENCE * DEFAULT_INTERVAL_MS));
        assert_eq!(folded(&[]).silent_from_ms(), None);
    }

    #[test]
    fn a_vantage_that_returns_begins_anew() {
        let mut fold = folded(&(0..10).map(|n| (n * MINUTE_MS, true)).collect::<Vec<_>>());
        let back = 30 * MINUTE_MS;
        fold.add(Time::from_ms(back), back, false);
        assert_eq!(
            fold.word(back).state,
            State::InsufficientData,
            "one failure is too little, and what was said has aged"
        );
        fold.add(Time::from_ms(back + 1), back + 1, true);
        assert_eq!((fold.word(back + 1).state, fold.word(back + 1).since.ms()), (State::Available, back + 1));
        let stopped = {
            // The folder was down for an hour: its clock stood still.
            let mut fold = folded(&(0..10).map(|n| (n * MINUTE_MS, true)).collect::<Vec<_>>());
            fold.add(Time::from_ms(70 * MINUTE_MS), 10 * MINUTE_MS, false);
            fold.word(10 * MINUTE_MS)
        };
        assert_eq!((stopped.state, stopped.since.ms()), (State::Available, 0));
        // Late results that fill the gap mend it: it was up all the time but for one failure.
        (10..30).for_each(|n| fold.add(Time::from_ms(n * MINUTE_MS), n * MINUTE_MS, true));
        assert_eq!((fold.word(back + 1).state, fold.word(back + 1).since.ms()), (State::Available, 0));
    }

    #[test]
    fn any_vantage_that_sees_it_decides_and_silent_ones_do_not() {
        let word = |state, since| Word { state, since: Time(since), silent: None };
        let silent = |said, since| Word {
            state: State::Unknown,
            since: Time(since),
            silent: Some(Silent { said, interval_ms: MINUTE_MS }),
        };
        let of = |words: &[(&str, Word)]| {
            let all = combine(words.iter().map(|(v, w)| (*v, w)));
            (all.state, all.since.0, all.reason)
        };
        let (down, up) = (word(State::Unavailable, 5), word(State::Available, 3));
        assert_eq!(of(&[("a", down), ("b", up), ("c", Word::default())]).0, State::Available);
        let two = of(&[("a", down), ("b", word(State::Unavailable, 9))]);
        assert_eq!((two.0, two.1), (State::Unavailable, 9));
        assert_eq!(of(&[("a", Word::default())]), (State::Unknown, 0, String::new()));
        let few = word(State::InsufficientData, 4);
        assert_eq!(of(&[("a", down), ("b", few)]).0, State::Unavailable);
        let doubted = of(&[("a", word(State::Doubted, 6)), ("b", silent(State::Available, 7))]);
        let reason = "a is sick: it lost nearly all of its targets at once";
        assert_eq!(doubted, (State::Unknown, 6, reason.to_owned()));
        assert_eq!(of(&[("a", word(State::Doubted, 6)), ("b", down)]).0, State::Unavailable);
        let reason = "fewer than 2 failures in a row seen from b, and no answer before";
        let unsure = of(&[("a", silent(State::Available, 7)), ("b", few)]);
        assert_eq!(unsure, (State::InsufficientData, 4, reason.to_owned()));
        let left = of(&[("a", silent(State::Available, 7)), ("b", down)]);
        let reason = "2 failures in a row seen from b; no result from a, which saw it, for 2 minutes (interval 60 s)";
        assert_eq!(left, (State::Unavailable, 7, reason.to_owned()));
        assert_eq!(of(&[("a", silent(State::Unavailable, 7)), ("b", down)]).1, 5, "it was down already");
        let nobody = of(&[("a", silent(State::Available, 7)), ("b", silent(State::Unavailable, 8))]);
        assert_eq!((nobody.0, nobody.1), (State::Unknown, 8));
    }

    /// Results at whole half minutes, dense and sparse, of one instant too; few enough that all are kept or judged.
    fn results() -> impl Strategy<Value = Vec<(i64, bool)>> {
        let step = prop_oneof![4 => 0i64..4, 1 => 4i64..20];
        prop::collection::vec((step, any::<bool>()), 0..40).prop_map(|steps| {
            let mut at = 0;
            steps
                .into_iter()
                .map(|(step, up)| {
                    at += step * MINUTE_MS / 2;
                    (at, up)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(results in results(), shuffle: u64) {
            // Within the horizon of a fold: what is older is judged when it goes.
            let newest = results.last().map_or(0, |(at, _)| *at);
            let mut results: Vec<_> = results.into_iter().filter(|(at, _)| *at >= newest - HORIZON_US / 1000).collect();
            let once = folded(&results);
            let again = results.clone();
            results.extend(again);
            let n = results.len().max(1) as u64;
            for i in 0..results.len() {
                let j = (shuffle.wrapping_mul(i as u64 + 1) % n) as usize;
                results.swap(i, j);
            }
            prop_assert_eq!(folded(&results), once);
        }

        #[test]
        fn ageing_is_monotone(results in results(), mut times in prop::collection::vec(0i64..100_000_000, 2)) {
            let fold = folded(&results);
            times.sort_unstable();
            let (early, late) = (fold.word(times[0]), fold.word(times[1]));
            // What is silent stays so and says the same; what counts changes by ageing only.
            if early.silent.is_some() || early.state == State::Unknown {
                prop_assert_eq!(&early, &late);
            } else {
                prop_assert!(late == early || late.silent.is_some_and(|s| s.said == early.state));
            }
            // Everything said ages, in bounded time.
            let end = fold.heard_ms() + PATIENCE * MAX_INTERVAL_MS;
            prop_assert_eq!(fold.word(end).state, State::Unknown);
        }
    }
}
