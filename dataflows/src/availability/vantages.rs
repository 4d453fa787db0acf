//! Vantages that are sick: what they say of their targets says something of themselves.
//!
//! ```text
//! observations Δ ─► [a vantage in one place: how many it sees, how many it lost and when] ─► observations Δ, conditions Δ
//! ```
//! A vantage is sick once more than [`LOST_OF_100`] of a hundred targets that it saw within the last hour were lost to it within
//! [`AT_ONCE_MS`]: it, or what it reaches them through, is gone, and not they. Nothing that it lost counts until it sees half of them
//! again, and no further one for [`SETTLE_MS`], or [`SETTLED_MS`] long: what it finds comes in parts, and what comes last was not lost
//! longest. One alert stands for all of them. It needs [`MIN_TARGETS`]: of a handful all may well be down.
//!
//! What is kept follows from what is said of targets, and is counted again at a restart; only who is sick is in snapshots, because
//! that ends otherwise than it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::Time;
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::availability::{State, Word};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use super::{Observation, TargetKey};
use crate::alerts::{AlertKey, ConditionChange};
use crate::collection::Events;
use crate::keyed::{Context, Restored, StateEntry, Tick, encode, put_state, route, take_state};

/// Of a hundred targets that a vantage saw, so many lost at once make it sick.
pub const LOST_OF_100: usize = 80;
/// Of a hundred that it had, so many it must see again to be well: more than it may have had when it fell sick.
const SEEN_OF_100: u64 = 50;
/// With fewer targets than these no vantage is.
pub const MIN_TARGETS: usize = 10;
/// So long after it saw the last one again it is well, milliseconds of live time.
pub const SETTLE_MS: i64 = 60_000;
/// So long after it saw enough it is, whatever comes and goes.
pub const SETTLED_MS: i64 = 10 * 60_000;
/// Within how long they are lost at once, milliseconds.
pub const AT_ONCE_MS: i64 = 10 * 60_000;
/// How finely that is looked at, milliseconds.
const STEP_MS: i64 = 60_000;

/// Who is sick, in snapshots.
const NAME: &str = "sick";

/// Customer, site and vantage.
type Key = (String, String, String);

/// That a vantage is sick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sick {
    /// Since when, milliseconds since 1970.
    since_ms: i64,
    /// So many of its targets it lost.
    lost: u64,
    /// Of so many.
    of: u64,
    /// Since when it sees enough of them, and when it saw one more again, live time.
    settling_ms: Option<(i64, i64)>,
}

impl Sick {
    /// When it will be well.
    fn well_ms(&self) -> Option<i64> {
        self.settling_ms.map(|(since, last)| (last + SETTLE_MS).min(since + SETTLED_MS))
    }
}

/// As older builds kept it: well as soon as it saw enough.
#[derive(Serialize, Deserialize)]
struct FirstSick {
    since_ms: i64,
    lost: u64,
    of: u64,
}

/// Vantages were well at once.
pub(crate) fn sick_that_settle(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let sick = take_state::<Key, FirstSick>(state, NAME)?;
    let settling = |FirstSick { since_ms, lost, of }| Sick { since_ms, lost, of, settling_ms: None };
    put_state(state, NAME, sick.into_iter().map(|(key, first)| (key, settling(first))));
    Ok(())
}

/// What is said.
#[derive(Clone)]
pub(super) enum Said {
    /// Of a target, by a vantage.
    Observed(Observation, isize),
    /// Of a vantage.
    Condition(ConditionChange),
}

/// What one vantage says of its targets.
#[derive(Default)]
struct Vantage {
    words: BTreeMap<IpAddr, (Word, bool)>,
    up: usize,
    down: usize,
    /// Targets that it lost within the hour, by when.
    lost: BTreeMap<i64, usize>,
    lost_in_all: usize,
    sick: Option<Sick>,
}

impl Vantage {
    fn count(&mut self, (word, seen): (Word, bool), there: bool) {
        let add = |n: &mut usize| *n = if there { *n + 1 } else { *n - 1 };
        match word.state {
            State::Available => add(&mut self.up),
            State::Unavailable => {
                add(&mut self.down);
                if seen {
                    add(&mut self.lost_in_all);
                    let step = word.since.ms().div_euclid(STEP_MS);
                    add(self.lost.entry(step).or_default());
                    self.lost.retain(|at, n| *at != step || *n > 0);
                }
            }
            State::Unknown | State::InsufficientData | State::Doubted => {}
        }
    }

    /// The most that it lost at once.
    fn at_once(&self) -> usize {
        let mut most = 0;
        let (mut within, mut from) = (0, self.lost.iter().peekable());
        for (at, n) in &self.lost {
            within += n;
            while let Some((_, gone)) = from.next_if(|(first, _)| *at - **first > AT_ONCE_MS / STEP_MS) {
                within -= gone;
            }
            most = most.max(within);
        }
        most
    }

    /// Whether it is sick now, which it was or was not, having seen one again or not.
    fn judge(&self, tick: &Tick, regained: bool) -> Option<Sick> {
        match &self.sick {
            Some(_) if self.down == 0 => None,
            Some(sick) => {
                let sees_few = (self.up as u64) * 100 < sick.of * SEEN_OF_100;
                let (since, last) = sick.settling_ms.unwrap_or((tick.live_ms, tick.live_ms));
                let settling = (since, if regained { tick.live_ms } else { last });
                let sick = Sick { settling_ms: (!sees_few).then_some(settling), ..sick.clone() };
                Some(sick).filter(|sick| sick.well_ms().is_none_or(|well| well > tick.live_ms))
            }
            None => {
                let (lost, of) = (self.at_once(), self.up + self.lost_in_all);
                let is = of >= MIN_TARGETS && lost * 100 > of * LOST_OF_100;
                let since_ms = tick.clock_ms;
                is.then_some(Sick { since_ms, lost: lost as u64, of: of as u64, settling_ms: None })
            }
        }
    }

    fn shown(word: Word, sick: Option<&Sick>) -> Word {
        match (sick, word.state) {
            (Some(sick), State::Unavailable | State::InsufficientData) => {
                Word { state: State::Doubted, since: Time::from_ms(sick.since_ms), silent: None }
            }
            _ => word,
        }
    }
}

fn observed((tenant, partition, vantage): &Key, ip: IpAddr, word: Word) -> Observation {
    let target = TargetKey { tenant: tenant.clone(), partition: partition.clone(), ip };
    Observation { target, vantage: vantage.clone(), word }
}

fn condition((tenant, partition, vantage): &Key, sick: &Sick, diff: isize) -> Said {
    let subject = Subject {
        tenant: tenant.clone(),
        partition: partition.clone(),
        rule: "vantage-sick".to_owned(),
        entity: vantage.clone(),
    };
    let condition = Condition {
        rule: subject.rule.clone(),
        severity: "critical".to_owned(),
        title: format!("{vantage} lost {} of {} targets at once", sick.lost, sick.of),
        description:
            "it, or what it reaches them through, is gone: what it says of those it lost does not count until it sees \
                      some of them again"
                .to_owned(),
        source_type: "agent".to_owned(),
        source_id: vantage.clone(),
        agent_uid: Some(vantage.clone()),
        ..Condition::default()
    };
    Said::Condition((AlertKey::of_subject(subject), condition, diff))
}

/// The vantages that a worker has.
#[derive(Default)]
struct Vantages {
    of: BTreeMap<Key, Vantage>,
    /// Those that will be well, by when.
    settling: BTreeSet<(i64, Key)>,
    /// Those that fell sick or are well again since the last snapshot.
    dirty: BTreeSet<Key>,
}

/// What changes of a target of a vantage.
type Changes = BTreeMap<IpAddr, BTreeMap<(Word, bool), isize>>;

impl Vantages {
    /// What an epoch changes.
    fn step(&mut self, changes: BTreeMap<Key, Changes>, tick: Option<&Tick>, out: &mut Vec<Said>) {
        let due = tick.map_or(0, |tick| self.settling.iter().take_while(|(due, _)| *due <= tick.live_ms).count());
        let due: Vec<Key> = self.settling.iter().take(due).map(|(_, key)| key.clone()).collect();
        let quiet = due.into_iter().filter(|key| !changes.contains_key(key)).map(|key| (key, Changes::new()));
        let quiet: Vec<_> = quiet.collect();
        for (key, changes) in changes.into_iter().chain(quiet) {
            self.turn(&key, changes, tick, out);
        }
    }

    /// A vantage that is sick, as it was known before.
    fn resume(&mut self, key: Key, sick: Sick) {
        self.settling.extend(sick.well_ms().map(|due| (due, key.clone())));
        self.of.entry(key).or_default().sick = Some(sick);
    }

    /// What a vantage says otherwise; the tick is missing where all is said again.
    fn turn(&mut self, key: &Key, changes: Changes, tick: Option<&Tick>, out: &mut Vec<Said>) {
        let vantage = self.of.entry(key.clone()).or_default();
        let was = vantage.sick.clone();
        let mut before: BTreeMap<IpAddr, Option<Word>> = BTreeMap::new();
        let mut regained = false;
        for (ip, net) in changes {
            let gone = net.iter().find(|(_, diff)| **diff < 0).map(|(said, _)| *said);
            let come = net.iter().find(|(_, diff)| **diff > 0).map(|(said, _)| *said);
            if let Some(gone) = gone {
                vantage.count(gone, false);
                vantage.words.remove(&ip);
            }
            let is_up = |said: &(Word, bool)| said.0.state == State::Available;
            regained |= come.as_ref().is_some_and(is_up) && !gone.as_ref().is_some_and(is_up);
            if let Some(come) = come {
                vantage.count(come, true);
                vantage.words.insert(ip, come);
            }
            before.insert(ip, gone.map(|(word, _)| word));
        }
        if let Some(tick) = tick {
            vantage.sick = vantage.judge(tick, regained);
        }
        let is = vantage.sick.clone();
        if was != is {
            let due = |sick: &Option<Sick>| Some((sick.as_ref()?.well_ms()?, key.clone()));
            due(&was).map(|due| self.settling.remove(&due));
            self.settling.extend(due(&is));
            self.dirty.insert(key.clone());
        }
        if was.is_some() != is.is_some() {
            out.extend(was.iter().map(|sick| condition(key, sick, -1)));
            out.extend(is.iter().map(|sick| condition(key, sick, 1)));
            for (ip, (word, _)) in &vantage.words {
                before.entry(*ip).or_insert(Some(*word));
            }
        }
        for (ip, old) in before {
            let old = old.map(|word| Vantage::shown(word, was.as_ref()));
            let new = vantage.words.get(&ip).map(|(word, _)| Vantage::shown(*word, is.as_ref()));
            if old != new {
                out.extend(old.map(|word| Said::Observed(observed(key, ip, word), -1)));
                out.extend(new.map(|word| Said::Observed(observed(key, ip, word), 1)));
            }
        }
        if vantage.words.is_empty() && vantage.sick.is_none() {
            self.of.remove(key);
        }
    }
}

/// Builds it: what vantages say that are not sick. Of each observation it is told whether the vantage saw the target within the hour.
pub(super) fn build<'scope>(
    cx: &Context,
    observations: Events<'scope, (Observation, bool, isize)>,
) -> Events<'scope, Said> {
    let cx = cx.clone();
    let first = cx.restored;
    let key = |observation: &Observation| {
        let TargetKey { tenant, partition, .. } = &observation.target;
        (tenant.clone(), partition.clone(), observation.vantage.clone())
    };
    let by_vantage = Exchange::new(move |(said, _, _): &(Observation, bool, isize)| route(&key(said)));
    observations.unary_frontier(by_vantage, "Vantages", move |capability, _| {
        let keys = cx.sizes().machine(NAME, cx.index);
        let mut capability = Some(capability.delayed(&first));
        let mut vantages = Vantages::default();
        let mut again: Vec<Said> = Vec::new();
        let restored: BTreeMap<Key, Sick> = cx.restore_where(NAME, |key: &Key| route(key));
        for (key, sick) in restored {
            again.push(condition(&key, &sick, 1));
            vantages.resume(key, sick);
        }
        let mut waiting: BTreeMap<u64, BTreeMap<Key, Changes>> = BTreeMap::new();
        let mut next = first;
        move |(input, frontier), output| {
            input.for_each(|time, data| {
                let epoch = *time.least().expect("events are stamped with an epoch");
                let of = waiting.entry(epoch.max(first)).or_default();
                for (said, seen, diff) in data.drain(..) {
                    let net = of.entry(key(&said)).or_default().entry(said.target.ip).or_default();
                    *net.entry((said.word, seen)).or_default() += diff;
                }
            });
            let Some(upper) = frontier.frontier().first().copied() else {
                capability = None;
                return;
            };
            let Some(held) = capability.as_mut() else { return };
            while next < upper {
                // What stood at the snapshot is said again, and was judged.
                let tick = (next > first).then(|| cx.tick(next).expect("every epoch is announced before its data"));
                let mut out = std::mem::take(&mut again);
                vantages.step(waiting.remove(&next).unwrap_or_default(), tick.as_ref(), &mut out);
                held.downgrade(&next);
                output.session(held).give_iterator(out.into_iter());
                if tick.is_some() && cx.wants_snapshot(next) {
                    let dirty = std::mem::take(&mut vantages.dirty);
                    let entry = |key: &Key| StateEntry {
                        collection: NAME,
                        key: encode(key),
                        value: vantages.of.get(key).and_then(|vantage| vantage.sick.as_ref()).map(encode),
                    };
                    cx.save(next, dirty.iter().map(entry).collect());
                }
                next += 1;
            }
            held.downgrade(&upper.max(first));
            keys.store(
                vantages.of.values().map(|vantage| vantage.words.len()).sum::<usize>() as i64,
                Ordering::Relaxed,
            );
        }
    })
}
