//! One group of a rule: what was counted of it when, and since when the rule holds of it.
//!
//! ```text
//!              holds                   held for_s
//!   quiet ────────────► waiting ──────────────────► burning ─┐ does not hold for resolve_for_s
//!     ▲  ◄──────────────── does not hold                     │
//!     └──────────────────────────────────────────────────────┘
//! ```
//! Time alone moves it too: steps leave the span, and it says when to look again. Where nothing is counted, that may be because
//! nobody could hear: while the process was down no silence is heard.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::having::Column;
use super::measure::{Tally, Value};
use super::rule::{Rule, Saying};
use super::season::Season;

/// How often what is usual is sampled, milliseconds.
const SAMPLE_MS: i64 = 60_000;
/// A group that may hold of nothing is remembered for so long after it was last heard of, milliseconds of live time.
const KEEP_MS: i64 = 7 * 86_400_000;

/// Where it stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
enum Phase {
    /// The rule does not hold.
    #[default]
    Quiet,
    /// It holds, not long enough yet.
    Waiting { since_ms: i64 },
    /// There is an alert.
    Burning {
        /// What was counted when it began, as text.
        began: Vec<String>,
        /// Since when it does not hold any more.
        over_ms: Option<i64>,
    },
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Of events, by step.
    steps: BTreeMap<i64, Vec<Tally>>,
    /// Of current state: said anew after a start.
    #[serde(skip)]
    standing: Vec<Tally>,
    phase: Phase,
    /// By measure.
    seasons: BTreeMap<u8, Season>,
    sampled_ms: i64,
    /// When it was last heard of, live time.
    heard_ms: i64,
    /// From when on silence counts, live time.
    from_ms: i64,
    /// How far the clock is ahead of live time: it grows while nobody hears.
    apart_ms: i64,
    /// The form of the rule that counted.
    form: String,
    /// Until when what burns is not over though little was counted since the rule changed, milliseconds.
    settles_ms: i64,
}

/// The clocks of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Milliseconds since 1970.
    pub clock_ms: i64,
    /// The same without the time that the process was down.
    pub live_ms: i64,
}

/// What a group says.
#[derive(Clone, Debug, PartialEq)]
pub enum Says {
    /// There is no alert.
    Nothing,
    /// There is one, which says this.
    Burns(Box<Saying>),
}

impl Group {
    /// A group that was never heard of.
    pub fn new(rule: &Rule, now: Now) -> Self {
        Group {
            heard_ms: now.live_ms,
            from_ms: now.live_ms,
            apart_ms: now.clock_ms - now.live_ms,
            form: rule.form.clone(),
            ..Group::default()
        }
    }

    /// The rule is another now. What was counted in another form is worth nothing.
    pub fn changed(&mut self, rule: &Rule, now: Now) {
        if self.form != rule.form {
            self.form.clone_from(&rule.form);
            self.steps.clear();
            self.standing.clear();
            self.seasons.clear();
            self.from_ms = now.live_ms;
            self.settles_ms = now.clock_ms + rule.span_ms.unwrap_or(0);
            if let Phase::Waiting { .. } = self.phase {
                self.phase = Phase::Quiet;
            }
        }
    }

    /// Takes in what rows of events add.
    pub fn add(&mut self, steps: BTreeMap<i64, Vec<Tally>>, now: Now) {
        self.heard_ms = now.live_ms;
        for (step, parts) in steps {
            match self.steps.get_mut(&step) {
                Some(tallies) => tallies.iter_mut().zip(parts).for_each(|(tally, part)| tally.merge(part)),
                None => drop(self.steps.insert(step, parts)),
            }
        }
    }

    /// Takes in what rows of current state add and take away.
    pub fn stand(&mut self, parts: Vec<Tally>, now: Now) {
        self.heard_ms = now.live_ms;
        if self.standing.is_empty() {
            self.standing = parts;
        } else {
            self.standing.iter_mut().zip(parts).for_each(|(tally, part)| tally.merge(part));
        }
    }

    fn tallies(&self, rule: &Rule) -> Vec<Tally> {
        if rule.span_ms.is_none() {
            return if self.standing.is_empty() { rule.nothing() } else { self.standing.clone() };
        }
        let mut all = rule.nothing();
        for tallies in self.steps.values() {
            all.iter_mut().zip(tallies).for_each(|(tally, part)| tally.merge(part.clone()));
        }
        all
    }

    /// Whether no row is counted.
    fn is_empty(tallies: &[Tally]) -> bool {
        matches!(tallies.last(), None | Some(Tally::Count(0)))
    }

    /// Goes on to an epoch, and says what it says then.
    pub fn step(&mut self, rule: &Rule, group: &[Option<String>], now: Now) -> Says {
        if let Some(span) = rule.span_ms {
            let step = rule.step_ms();
            // A step counts as long as any of it is within the span.
            self.steps.retain(|at, _| (at + 1) * step > now.clock_ms - span);
        }
        let apart = now.clock_ms - now.live_ms;
        if apart != self.apart_ms {
            (self.apart_ms, self.from_ms) = (apart, now.live_ms);
        }
        let tallies = self.tallies(rule);
        let span_ms = rule.span_ms.unwrap_or(1000);
        let values: Vec<Value> =
            rule.measures.iter().zip(&tallies).map(|(measure, tally)| measure.value(tally, span_ms)).collect();
        let heard = !Group::is_empty(&tallies);
        self.sample(rule, &values, now);
        // Of current state what is not there is nothing; events may be missing because nobody could hear them.
        let silent = match rule.span_ms {
            Some(span) => now.live_ms - self.from_ms >= span,
            None => rule.keys.is_empty(),
        };
        let known = heard || silent;
        let holds = known && rule.holds(&|column| self.column(column, group, &values, now));
        let settles = now.clock_ms < self.settles_ms;
        self.phase = match std::mem::take(&mut self.phase) {
            Phase::Quiet | Phase::Waiting { .. } if !holds => Phase::Quiet,
            Phase::Quiet => self.wait(rule, &values, now.clock_ms, now.clock_ms),
            Phase::Waiting { since_ms } => self.wait(rule, &values, since_ms, now.clock_ms),
            Phase::Burning { began, .. } if holds || settles => Phase::Burning { began, over_ms: None },
            Phase::Burning { began, over_ms } => {
                let over = over_ms.unwrap_or(now.clock_ms);
                match now.clock_ms - over >= rule.resolve_for_ms {
                    true => Phase::Quiet,
                    false => Phase::Burning { began, over_ms: Some(over) },
                }
            }
        };
        self.says(rule, group)
    }

    fn wait(&self, rule: &Rule, values: &[Value], since_ms: i64, now_ms: i64) -> Phase {
        match now_ms - since_ms >= rule.for_ms {
            true => Phase::Burning { began: values.iter().map(Value::shown).collect(), over_ms: None },
            false => Phase::Waiting { since_ms },
        }
    }

    /// What it says without going on.
    pub fn says(&self, rule: &Rule, group: &[Option<String>]) -> Says {
        let Phase::Burning { began, .. } = &self.phase else { return Says::Nothing };
        let mut values = began.clone();
        values.resize(rule.measures.len(), String::new());
        Says::Burns(Box::new(rule.says(group, &values)))
    }

    fn sample(&mut self, rule: &Rule, values: &[Value], now: Now) {
        let seasons = rule.seasons();
        if seasons.is_empty() || now.clock_ms - self.sampled_ms < SAMPLE_MS {
            return;
        }
        self.sampled_ms = now.clock_ms;
        for (at, ahead) in seasons {
            if let Some(value) = values[*at].real() {
                self.seasons.entry(*at as u8).or_default().sample(now.clock_ms, value, *ahead);
            }
        }
    }

    fn column(&self, column: Column, group: &[Option<String>], values: &[Value], now: Now) -> Value {
        let real = |n: Option<f64>| n.map_or(Value::Missing, |n| Value::Number(super::measure::real(n)));
        let season = |at: usize| self.seasons.get(&(at as u8));
        match column {
            Column::Key(at) => group[at].as_deref().map_or(Value::Missing, Value::of_text),
            Column::Measure(at) => values[at].clone(),
            Column::Expected(at) => real(season(at).and_then(|s| s.expected(now.clock_ms))),
            Column::Deviation(at) => {
                real(season(at).zip(values[at].real()).and_then(|(s, value)| s.deviation(now.clock_ms, value)))
            }
            Column::Forecast(at, ahead) => real(season(at).and_then(|s| s.forecast(now.clock_ms, ahead))),
        }
    }

    /// When to look again though nothing is added, by the clock, milliseconds.
    pub fn due_ms(&self, rule: &Rule, now: Now) -> Option<i64> {
        let phase = match &self.phase {
            Phase::Waiting { since_ms } => Some(since_ms + rule.for_ms),
            Phase::Burning { over_ms: Some(over), .. } => Some(over + rule.resolve_for_ms),
            _ => None,
        };
        let settles = (self.settles_ms > now.clock_ms).then_some(self.settles_ms);
        let span = rule.span_ms?.max(1000);
        let leaves = |step: &i64| (step + 1) * rule.step_ms() + span;
        let quiet = self.phase == Phase::Quiet && rule.rises() && rule.seasons().is_empty();
        let leaves = match quiet {
            // Only when all of it is over is there anything to do.
            true => self.steps.keys().next_back().map(leaves),
            false => self.steps.keys().next().map(leaves),
        };
        let silent = self.from_ms + span + self.apart_ms;
        let silent = (silent > now.clock_ms && !rule.rises()).then_some(silent);
        let sample = (!rule.seasons().is_empty()).then_some(self.sampled_ms + SAMPLE_MS);
        let forgotten =
            (!rule.rises() && self.phase == Phase::Quiet).then_some(self.heard_ms + KEEP_MS + self.apart_ms);
        [phase, settles, leaves, silent, sample, forgotten].into_iter().flatten().filter(|at| *at > now.clock_ms).min()
    }

    /// Whether nothing is left to remember of it.
    pub fn is_over(&self, rule: &Rule, now: Now) -> bool {
        let counted = !self.steps.is_empty() || !Group::is_empty(&self.standing);
        if counted || self.phase != Phase::Quiet {
            return false;
        }
        // What may hold of nothing, or knows what is usual, is remembered for longer; what has no keys always.
        let keeps = rule.span_ms.is_some() && (!rule.rises() || !rule.seasons().is_empty());
        !keeps || (!rule.keys.is_empty() && now.live_ms - self.heard_ms >= KEEP_MS)
    }

    /// Bytes that it takes, about.
    pub fn bytes(&self) -> usize {
        let tallies = self.steps.values().chain([&self.standing]);
        let tallies: usize = tallies.map(|of| 48 + of.iter().map(Tally::bytes).sum::<usize>()).sum();
        size_of::<Group>() + tallies + self.seasons.values().map(Season::bytes).sum::<usize>()
    }

    /// Whether there is an alert.
    pub fn burns(&self) -> bool {
        matches!(self.phase, Phase::Burning { .. })
    }
}
