//! The availability of swept and checked targets: what each vantage says of one.
//!
//! ```text
//! probe results ─► [targets: fold a vantage] ─► [vantages: who is sick] ─► observation(target, vantage, word) Δ, conditions Δ
//! ```
//! A result that changes no state says nothing downstream. A vantage's word ages by the live clock, after two of its own
//! intervals; nothing needs a next input to age.

mod vantages;

use std::collections::BTreeMap;
use std::net::IpAddr;

use radarflow_proto::cell::Time;
use radarflow_reconcile::availability::{FAILURES, Fold, State, Word};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::Map;

use self::vantages::Said;
use crate::alerts::Conditions;
use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, Machine, Restored, Tick, machine, put_state, take_state};

/// Vantages one target remembers.
const MAX_VANTAGES: usize = 64;
/// A vantage that gave no result for this long is forgotten, milliseconds; its word has aged long before.
const FORGET_MS: i64 = 7 * 86_400_000;

/// What availability is made of.
pub struct Inputs<'scope> {
    /// Results of probes, by target.
    pub probes: Events<'scope, Keyed<TargetKey, ProbeResult>>,
}

/// What is known of availability.
pub struct Outputs<'scope> {
    /// What vantages say of targets.
    pub observations: Rel<'scope, Observation>,
    /// Vantages that are sick.
    pub conditions: Conditions<'scope>,
}

pub(crate) use self::vantages::sick_that_settle;
pub use self::vantages::{AT_ONCE_MS, LOST_OF_100, MIN_TARGETS, SETTLE_MS, SETTLED_MS};

/// Builds the relation.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let said = vantages::build(cx, machine(inputs.probes, cx, Targets));
    Outputs {
        observations: collected(said.clone(), |said| match said {
            Said::Observed(observation, diff) => Some((observation, diff)),
            Said::Condition(_) => None,
        }),
        conditions: said.flat_map(|said| match said {
            Said::Condition(change) => Some(change),
            Said::Observed(..) => None,
        }),
    }
}

/// What is probed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetKey {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// Address.
    pub ip: IpAddr,
}

/// One probe of a target that told something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProbeResult {
    /// Who looked.
    pub vantage: String,
    /// When, by the looker's clock, but not later than receipt.
    pub at: Time,
    /// When it came in.
    pub received: Time,
    /// Whether it answered.
    pub available: bool,
}

/// What one vantage says of a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Observation {
    /// The target.
    pub target: TargetKey,
    /// Who says it.
    pub vantage: String,
    /// What.
    pub word: Word,
}

/// Availability of targets.
struct Targets;

/// Folds by vantage.
#[derive(Serialize, Deserialize)]
struct TargetState {
    vantages: BTreeMap<String, Vantage>,
}

/// One vantage's results, and whether its word has aged.
#[derive(Default, Serialize, Deserialize)]
struct Vantage {
    fold: Fold,
    /// What was said when it fell silent, until it is heard again: what comes late meanwhile does not change that.
    silent: Option<Word>,
}

impl Vantage {
    fn word(&self) -> Word {
        self.silent.unwrap_or_else(|| self.fold.word(i64::MIN))
    }

    /// Lets the word age, or count again.
    fn age(&mut self, live_ms: i64) {
        let word = self.fold.word(live_ms);
        self.silent = word.silent.and(self.silent.or(Some(word)));
    }

    fn forgotten_ms(&self) -> i64 {
        self.fold.heard_ms() + FORGET_MS
    }

    /// When it ages next, or is forgotten.
    fn due_ms(&self) -> i64 {
        let aging = self.fold.silent_from_ms().filter(|_| self.silent.is_none());
        aging.map_or(self.forgotten_ms(), |aging| aging.min(self.forgotten_ms()))
    }
}

impl TargetState {
    /// The fold of a vantage. Where there are too many, one that says nothing, the longest silent, makes room; `None`
    /// if all have a word.
    fn fold(&mut self, vantage: String) -> Option<&mut Fold> {
        if self.vantages.len() >= MAX_VANTAGES && !self.vantages.contains_key(&vantage) {
            let mute = self.vantages.iter().filter(|(_, v)| v.word().state == State::Unknown);
            let mute = mute.min_by_key(|(_, v)| v.fold.heard_ms())?.0.clone();
            self.vantages.remove(&mute);
        }
        Some(&mut self.vantages.entry(vantage).or_default().fold)
    }

    /// What the vantages say that say anything, and whether they saw it within the hour.
    fn words(&self) -> BTreeMap<String, (Word, bool)> {
        let words = self.vantages.iter().map(|(vantage, v)| (vantage, v.word(), v.fold.has_seen()));
        let said = words.filter(|(_, word, _)| *word != Word::default());
        said.map(|(vantage, word, seen)| (vantage.clone(), (word, seen))).collect()
    }
}

impl Machine for Targets {
    type Key = TargetKey;
    type Event = ProbeResult;
    type State = TargetState;
    type Output = (Observation, bool, isize);
    const NAME: &'static str = "targets";

    fn step(
        &mut self,
        tick: &Tick,
        key: &TargetKey,
        state: &mut Option<TargetState>,
        events: Vec<ProbeResult>,
        out: &mut Vec<(Observation, bool, isize)>,
    ) {
        let target = state.get_or_insert_with(|| TargetState { vantages: BTreeMap::new() });
        let before = target.words();
        for ProbeResult { vantage, at, received, available } in events {
            if let Some(fold) = target.fold(vantage) {
                let age_ms = (received.ms() - at.ms()).max(0);
                // The wall clock that stamped the receipt may be ahead of the ledger's.
                fold.add(at.min(Time::from_ms(tick.clock_ms)), tick.live_ms - age_ms, available);
            }
        }
        target.vantages.retain(|_, vantage| tick.live_ms < vantage.forgotten_ms());
        target.vantages.values_mut().for_each(|vantage| vantage.age(tick.live_ms));
        let after = target.words();
        let observed = |(vantage, (word, seen)): (&String, &(Word, bool)), diff| {
            (Observation { target: key.clone(), vantage: vantage.clone(), word: *word }, *seen, diff)
        };
        out.extend(before.iter().filter(|(v, said)| after.get(*v) != Some(said)).map(|said| observed(said, -1)));
        out.extend(after.iter().filter(|(v, said)| before.get(*v) != Some(said)).map(|said| observed(said, 1)));
        if target.vantages.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, state: &TargetState) -> Option<i64> {
        state.vantages.values().map(Vantage::due_ms).min()
    }

    fn restored(&mut self, key: &TargetKey, state: &TargetState, out: &mut Vec<(Observation, bool, isize)>) {
        let words = state.words().into_iter();
        out.extend(words.map(|(vantage, (word, seen))| (Observation { target: key.clone(), vantage, word }, seen, 1)));
    }
}

/// What the first release kept of a target.
#[derive(Deserialize)]
struct FirstTarget {
    folds: BTreeMap<String, FirstFold>,
}

/// The results of one vantage, oldest first, and what held before them.
#[derive(Deserialize)]
struct FirstFold {
    results: BTreeMap<Time, bool>,
    before: State,
    before_since: Time,
}

/// In the first release the word of a vantage did not age: it does from now on, by what is known of its rhythm.
pub(crate) fn vantages_that_age(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let converted = |FirstFold { results, before, before_since }: FirstFold| {
        let mut vantage = Vantage::default();
        let mut add = |at: Time, available| {
            let at = at.min(Time::from_ms(tick.clock_ms));
            vantage.fold.add(at, tick.live_ms - (tick.clock_ms - at.ms()), available);
        };
        let oldest = results.keys().next().copied().unwrap_or(before_since);
        match before {
            State::Unknown | State::InsufficientData | State::Doubted => {}
            State::Available => add(Time(oldest.0 - 1), true),
            // As many failures in a row as make it so.
            State::Unavailable => (1..=FAILURES as i64).rev().for_each(|n| add(Time(oldest.0 - n), false)),
        }
        results.into_iter().for_each(|(at, available)| add(at, available));
        vantage
    };
    let targets = take_state::<TargetKey, FirstTarget>(state, Targets::NAME)?;
    let targets = targets.into_iter().map(|(key, FirstTarget { folds })| {
        let vantages = folds.into_iter().map(|(name, fold)| (name, converted(fold))).collect();
        (key, TargetState { vantages })
    });
    put_state(state, Targets::NAME, targets);
    Ok(())
}
