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

/// Before anything that is counted, milliseconds.
const LONG_AGO_MS: i64 = i64::MIN / 4;

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
        /// What was counted when it began, as text, by what it is called.
        began: BTreeMap<String, String>,
        /// Since when it does not hold any more.
        over_ms: Option<i64>,
    },
}

/// A group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Of events, by step.
    steps: BTreeMap<i64, Vec<Tally>>,
    /// What all steps but the newest come to, while these are the oldest and the newest.
    #[serde(skip)]
    closed: Option<(i64, i64, Vec<Tally>)>,
    /// Of current state: said anew after a start.
    #[serde(skip)]
    standing: Vec<Tally>,
    phase: Phase,
    /// By measure.
    seasons: BTreeMap<u8, Season>,
    sampled_ms: i64,
    /// When it was last heard of, live time.
    heard_ms: i64,
    /// Nothing was heard of it since the rule counts other rows.
    unheard: bool,
    /// From when on all that there was is counted, live time.
    from_ms: i64,
    /// How far the clock is ahead of live time: it grows while nobody hears.
    apart_ms: i64,
    /// The form of the rule that counted.
    form: String,
    /// Until when what burns is not over though little was counted since the rule changed, milliseconds.
    settles_ms: i64,
    /// The clock when it was last looked at, milliseconds, and live time.
    looked: (i64, i64),
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
            // Who is new may have said little only because they are new; that they said nothing before is known.
            from_ms: if rule.needs_all() { now.live_ms } else { LONG_AGO_MS },
            apart_ms: now.clock_ms - now.live_ms,
            form: rule.form.clone(),
            ..Group::default()
        }
    }

    /// The rule is another now. What was counted in another form is worth nothing.
    pub fn changed(&mut self, rule: &Rule, now: Now) {
        if self.form != rule.form {
            self.form.clone_from(&rule.form);
            (self.steps, self.closed) = (BTreeMap::new(), None);
            self.standing.clear();
            self.seasons.clear();
            self.unheard = true;
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
        self.unheard &= steps.is_empty();
        let newest = self.closed.as_ref().map(|(_, newest, _)| *newest);
        if steps.keys().any(|step| Some(*step) != newest) {
            self.closed = None;
        }
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
        self.unheard = false;
        if self.standing.is_empty() {
            self.standing = parts;
        } else {
            self.standing.iter_mut().zip(parts).for_each(|(tally, part)| tally.merge(part));
        }
    }

    fn tallies(&mut self, rule: &Rule) -> Vec<Tally> {
        if rule.span_ms.is_none() {
            return if self.standing.is_empty() { rule.nothing() } else { self.standing.clone() };
        }
        let merge = |all: &mut Vec<Tally>, of: &[Tally]| {
            all.iter_mut().zip(of).for_each(|(tally, part)| tally.merge(part.clone()));
        };
        let ends = self.steps.keys().next().copied().zip(self.steps.keys().next_back().copied());
        let Some((oldest, newest)) = ends else { return rule.nothing() };
        if self.closed.as_ref().is_none_or(|(a, b, _)| (*a, *b) != (oldest, newest)) {
            let mut all = rule.nothing();
            self.steps.range(..newest).for_each(|(_, of)| merge(&mut all, of));
            self.closed = Some((oldest, newest, all));
        }
        let mut all = self.closed.as_ref().map(|(.., all)| all.clone()).unwrap_or_default();
        merge(&mut all, &self.steps[&newest]);
        all
    }

    /// Whether no row is counted.
    fn is_empty(tallies: &[Tally]) -> bool {
        matches!(tallies.last(), None | Some(Tally::Count(0)))
    }

    /// Goes on to an epoch, and says what it says then.
    pub fn step(&mut self, rule: &Rule, group: &[Option<String>], now: Now) -> Says {
        self.changed(rule, now);
        self.looked = (now.clock_ms, now.live_ms);
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
        let whole = rule.span_ms.is_none_or(|span| now.live_ms - self.from_ms >= span);
        if whole {
            self.sample(rule, &values, now);
        }
        // Of current state what is not there is nothing. Events may be missing because nobody could hear them, or because they
        // are others than were counted before: what is little is not believed before the span is whole.
        let known = match rule.span_ms {
            None => heard || rule.alone,
            Some(_) if rule.needs_all() => whole && (rule.alone || !self.unheard),
            Some(_) => heard || whole,
        };
        let holds = known && rule.holds(&|column| self.column(rule, column, group, &values, now));
        let unsure = rule.span_ms.is_some() && !known && !self.unheard;
        let waits = now.clock_ms < self.settles_ms || unsure;
        let forgotten = rule.span_ms.is_some() && !rule.alone && now.live_ms - self.heard_ms >= KEEP_MS;
        self.phase = match std::mem::take(&mut self.phase) {
            _ if forgotten => Phase::Quiet,
            Phase::Quiet | Phase::Waiting { .. } if !holds => Phase::Quiet,
            Phase::Quiet => self.wait(rule, &values, now.clock_ms, now.clock_ms),
            Phase::Waiting { since_ms } => self.wait(rule, &values, since_ms, now.clock_ms),
            Phase::Burning { began, .. } if holds || waits => Phase::Burning { began, over_ms: None },
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

    #[allow(clippy::unused_self)]
    fn wait(&self, rule: &Rule, values: &[Value], since_ms: i64, now_ms: i64) -> Phase {
        if now_ms - since_ms < rule.for_ms {
            return Phase::Waiting { since_ms };
        }
        let began = rule.measures.iter().zip(values).map(|(measure, value)| (measure.alias.clone(), value.shown()));
        Phase::Burning { began: began.collect(), over_ms: None }
    }

    /// What it says without going on.
    pub fn says(&self, rule: &Rule, group: &[Option<String>]) -> Says {
        match &self.phase {
            Phase::Burning { began, .. } => Says::Burns(Box::new(rule.says(group, began))),
            _ => Says::Nothing,
        }
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

    fn column(&self, rule: &Rule, column: Column, group: &[Option<String>], values: &[Value], now: Now) -> Value {
        let real = |n: Option<f64>| n.map_or(Value::Missing, |n| Value::Number(super::measure::real(n)));
        let season = |at: usize| self.seasons.get(&(at as u8));
        match column {
            Column::Key(at) => rule.key(at, group),
            Column::Measure(at) => values[at].clone(),
            Column::Expected(at) => real(season(at).and_then(|s| s.expected(now.clock_ms))),
            Column::Deviation(at) => {
                real(season(at).zip(values[at].real()).and_then(|(s, value)| s.deviation(now.clock_ms, value)))
            }
            Column::Forecast(at, ahead) => real(season(at).and_then(|s| s.forecast(now.clock_ms, ahead))),
        }
    }

    /// When to look again though nothing is added, by the clock, milliseconds: a function of what it is, so that a start finds it.
    pub fn due_ms(&self, rule: &Rule) -> Option<i64> {
        let (clock_ms, _) = self.looked;
        let phase = match &self.phase {
            Phase::Waiting { since_ms } => Some(since_ms + rule.for_ms),
            Phase::Burning { over_ms: Some(over), .. } => Some(over + rule.resolve_for_ms),
            _ => None,
        };
        let settles = Some(self.settles_ms);
        let mut all = vec![phase, settles];
        if let Some(span) = rule.span_ms {
            let leaves = |step: &i64| (step + 1) * rule.step_ms() + span;
            let remembers = !rule.rises() || !rule.seasons().is_empty();
            let quiet = self.phase == Phase::Quiet && !remembers;
            all.push(match quiet {
                // Only when all of it is over is there anything to do.
                true => self.steps.keys().next_back().map(leaves),
                false => self.steps.keys().next().map(leaves),
            });
            all.push((!quiet).then_some(self.from_ms + span + self.apart_ms));
            all.push((!rule.seasons().is_empty()).then_some(self.sampled_ms + SAMPLE_MS));
            all.push((!quiet && !rule.alone).then_some(self.heard_ms + KEEP_MS + self.apart_ms));
        }
        all.into_iter().flatten().filter(|at| *at > clock_ms).min()
    }

    /// Whether nothing is left to remember of it.
    pub fn is_over(&self, rule: &Rule) -> bool {
        let counted = !self.steps.is_empty() || !Group::is_empty(&self.standing);
        if counted || self.phase != Phase::Quiet {
            return false;
        }
        // What may hold of nothing, or knows what is usual, is remembered for longer; what has no keys always.
        let keeps = rule.span_ms.is_some() && (rule.alone || !rule.rises() || !rule.seasons().is_empty());
        let (_, live_ms) = self.looked;
        !keeps || (!rule.alone && (self.unheard || live_ms - self.heard_ms >= KEEP_MS))
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
