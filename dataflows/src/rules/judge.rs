//! Groups of rules: what was counted of each, and whether the rule holds of it.
//!
//! A group is kept by the worker of its tenant and share. An epoch steps the groups that something was counted for, those whose rule
//! changed, and those whose time has come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use radarflow_reconcile::alert::Condition;
use radarflow_reconcile::rules::group::Now;
use radarflow_reconcile::rules::rule::GroupOf;
use radarflow_reconcile::rules::{Group, Rule, Says};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OperatorInfo;
use timely::dataflow::operators::generic::operator::Operator;

use super::Stated;
use super::watch::{Counted, Part};
use crate::alerts::{AlertKey, ConditionChange, Conditions};
use crate::collection::Events;
use crate::keyed::{Context, StateEntry, Tick, encode, route};
use crate::strangers::BUCKETS;

/// Groups of rules about events of a tenant's share: 131,072 a tenant. What one more counts is not counted, and is metered as
/// evicted.
pub const MAX_GROUPS_OF_SHARE: usize = 2048;

/// Those of them that one rule may have: a quarter.
const MAX_GROUPS_OF_RULE: usize = MAX_GROUPS_OF_SHARE / 4;

/// Bytes that the groups of a tenant's share take, about: 128 MiB a tenant. While it is more, nothing is counted there.
pub const MAX_BYTES_OF_SHARE: usize = 2 << 20;

/// Groups in snapshots.
const GROUPS: &str = "rule_groups";

/// A tenant, a rule of it, a group of that.
type Key = (String, String, GroupOf);

/// The share that a group is in: FNV-1a, so that it is the same in every build.
fn share(rule: &str, group: &[Option<String>]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |bytes: &[u8]| {
        for byte in bytes.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    take(rule.as_bytes());
    group.iter().for_each(|value| take(value.as_deref().unwrap_or("\u{0}").as_bytes()));
    (hash ^ (hash >> 32)) % BUCKETS
}

/// Whose a group is.
fn owner(tenant: &str, rule: &str, group: &[Option<String>]) -> u64 {
    route(&(tenant, share(rule, group)))
}

/// A group, and what it says.
struct Slot {
    group: Group,
    says: Says,
    due: Option<i64>,
    /// Bytes that it was last seen to take.
    bytes: usize,
}

/// What a share has.
#[derive(Default)]
struct Share {
    groups: usize,
    /// How many of them each rule has.
    rules: BTreeMap<String, usize>,
    bytes: usize,
}

/// The groups of one worker.
#[derive(Default)]
struct Judge {
    rules: BTreeMap<(String, String), Rule>,
    groups: BTreeMap<(String, String), BTreeMap<GroupOf, Slot>>,
    /// By tenant and share.
    shares: BTreeMap<(String, u64), Share>,
    timers: BTreeSet<(i64, Key)>,
    dirty: BTreeSet<Key>,
}

fn condition(rule: &Rule, says: &Says) -> Option<(AlertKey, Condition)> {
    let Says::Burns(says) = says else { return None };
    let (subject, condition) = says.condition(rule);
    Some((AlertKey::of_subject(subject), condition))
}

/// What a group said before and says now, as changes.
fn told(before: Option<(AlertKey, Condition)>, after: Option<(AlertKey, Condition)>, out: &mut Vec<ConditionChange>) {
    let same = match (&before, &after) {
        (Some((a, said)), Some((b, says))) => a == b && said == says,
        (a, b) => a.is_none() && b.is_none(),
    };
    if !same {
        out.extend(before.map(|(key, condition)| (key, condition, -1)));
        out.extend(after.map(|(key, condition)| (key, condition, 1)));
    }
}

impl Judge {
    fn restore(cx: &Context) -> Self {
        let mut judge = Judge::default();
        let restored: BTreeMap<Key, Group> =
            cx.restore_where(GROUPS, |(tenant, rule, group): &Key| owner(tenant, rule, group));
        for ((tenant, rule, group), state) in restored {
            let of_share = judge.shares.entry((tenant.clone(), share(&rule, &group))).or_default();
            let bytes = state.bytes();
            of_share.groups += 1;
            *of_share.rules.entry(rule.clone()).or_default() += 1;
            of_share.bytes += bytes;
            let slot = Slot { group: state, says: Says::Nothing, due: None, bytes };
            judge.groups.entry((tenant, rule)).or_default().insert(group, slot);
        }
        judge
    }

    /// The group, if there is one or room for one. Current state is as large as the network is: its groups always have room.
    fn slot(&mut self, key: &(String, String), group: &GroupOf, now: Now) -> Option<&mut Slot> {
        let rule = self.rules.get(key)?;
        let of_rule = self.groups.entry(key.clone()).or_default();
        if !of_rule.contains_key(group) {
            let place = share(&key.1, group);
            let of_share = self.shares.entry((key.0.clone(), place)).or_default();
            let by_rule = of_share.rules.entry(key.1.clone()).or_default();
            let full = of_share.groups >= MAX_GROUPS_OF_SHARE || *by_rule >= MAX_GROUPS_OF_RULE;
            if full && rule.span_ms.is_some() {
                return None;
            }
            *by_rule += 1;
            of_share.groups += 1;
            let slot = Slot { group: Group::new(rule, now), says: Says::Nothing, due: None, bytes: 0 };
            of_rule.insert(group.clone(), slot);
        }
        of_rule.get_mut(group)
    }

    fn forget(&mut self, key: &(String, String), group: &GroupOf) -> Option<Slot> {
        let of_rule = self.groups.get_mut(key)?;
        let slot = of_rule.remove(group)?;
        if of_rule.is_empty() {
            self.groups.remove(key);
        }
        if let Some(due) = slot.due {
            self.timers.remove(&(due, (key.0.clone(), key.1.clone(), group.clone())));
        }
        let share = (key.0.clone(), share(&key.1, group));
        if let Some(of_share) = self.shares.get_mut(&share) {
            of_share.groups -= 1;
            of_share.bytes -= slot.bytes;
            if let Some(by_rule) = of_share.rules.get_mut(&key.1) {
                *by_rule -= 1;
                if *by_rule == 0 {
                    of_share.rules.remove(&key.1);
                }
            }
            if of_share.groups == 0 {
                self.shares.remove(&share);
            }
        }
        Some(slot)
    }

    /// Takes in the rules of an epoch; tells which groups are to be stepped.
    fn state(
        &mut self,
        stated: Vec<Stated>,
        mine: &dyn Fn(u64) -> bool,
        now: Now,
        out: &mut Vec<ConditionChange>,
    ) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for Stated { tenant, name, rule } in stated {
            let key = (tenant, name);
            let was = self.rules.remove(&key);
            let rule = rule.and_then(|rule| Rule::of(&rule).ok());
            let groups: Vec<GroupOf> = self.groups.get(&key).into_iter().flat_map(|of| of.keys().cloned()).collect();
            let Some(rule) = rule else {
                for group in groups {
                    if let (Some(slot), Some(was)) = (self.forget(&key, &group), &was) {
                        told(condition(was, &slot.says), None, out);
                    }
                    self.dirty.insert((key.0.clone(), key.1.clone(), group));
                }
                continue;
            };
            // What it said it says in the words of the rule that stands now. Groups that are told apart otherwise are others; those that
            // do not burn are not known of where other rows are counted.
            let regroups = was.as_ref().is_some_and(|was| !was.groups_as(&rule));
            let recounts = was.as_ref().is_some_and(|was| was.form != rule.form);
            for group in groups {
                let burns = |slot: &Slot| slot.group.burns();
                let slot = self.groups.get(&key).and_then(|of| of.get(&group));
                if regroups || (recounts && !rule.alone && !slot.is_some_and(burns)) {
                    if let (Some(slot), Some(was)) = (self.forget(&key, &group), &was) {
                        told(condition(was, &slot.says), None, out);
                    }
                    self.dirty.insert((key.0.clone(), key.1.clone(), group));
                    continue;
                }
                if let Some(slot) = self.groups.get_mut(&key).and_then(|of| of.get_mut(&group)) {
                    let before = was.as_ref().and_then(|was| condition(was, &slot.says));
                    slot.group.changed(&rule, now);
                    slot.says = slot.group.says(&rule, &group);
                    told(before, condition(&rule, &slot.says), out);
                }
                touched.insert((key.0.clone(), key.1.clone(), group));
            }
            // Without keys there is a group in the partition that everything is in where nothing is said.
            let alone = rule.alone.then(|| rule.of_partition("default"));
            self.rules.insert(key.clone(), rule);
            if let Some(group) = alone.filter(|group| mine(owner(&key.0, &key.1, group)))
                && self.slot(&key, &group, now).is_some()
            {
                touched.insert((key.0, key.1, group));
            }
        }
        touched
    }

    /// Takes in what was counted; tells of which groups, and how much found no room.
    fn count(&mut self, counted: Vec<Counted>, now: Now) -> (BTreeSet<Key>, u64) {
        let mut merged: BTreeMap<Key, Vec<Part>> = BTreeMap::new();
        for Counted { tenant, rule, group, part } in counted {
            merged.entry((tenant, rule, group)).or_default().push(part);
        }
        let (mut touched, mut refused) = (BTreeSet::new(), 0);
        for ((tenant, rule, group), parts) in merged {
            let key = (tenant, rule);
            if !self.rules.contains_key(&key) {
                continue;
            }
            // What a share takes was seen when its groups were last stepped: the same whoever counted what of this epoch.
            let full = |share: &Share| share.bytes > MAX_BYTES_OF_SHARE;
            let full = self.shares.get(&(key.0.clone(), share(&key.1, &group))).is_some_and(full);
            let events = matches!(parts[0], Part::Steps(_));
            let Some(slot) = (!full || !events).then(|| self.slot(&key, &group, now)).flatten() else {
                refused += 1;
                continue;
            };
            for part in parts {
                match part {
                    Part::Steps(steps) => slot.group.add(steps, now),
                    Part::Standing(tallies) => slot.group.stand(tallies, now),
                }
            }
            touched.insert((key.0, key.1, group));
        }
        (touched, refused)
    }

    fn due(&mut self, clock_ms: i64) -> BTreeSet<Key> {
        let mut due = BTreeSet::new();
        while self.timers.first().is_some_and(|(at, _)| *at <= clock_ms) {
            let (_, key) = self.timers.pop_first().expect("there is a first timer");
            due.insert(key);
        }
        due
    }

    fn step(&mut self, touched: BTreeSet<Key>, now: Now, out: &mut Vec<ConditionChange>) {
        for (tenant, name, group) in touched {
            let key = (tenant, name);
            let Some(rule) = self.rules.get(&key) else { continue };
            let Some(slot) = self.groups.get_mut(&key).and_then(|of| of.get_mut(&group)) else { continue };
            let before = condition(rule, &slot.says);
            slot.says = slot.group.step(rule, &group, now);
            told(before, condition(rule, &slot.says), out);
            let bytes = slot.group.bytes();
            if let Some(of_share) = self.shares.get_mut(&(key.0.clone(), share(&key.1, &group))) {
                of_share.bytes = of_share.bytes + bytes - slot.bytes;
            }
            slot.bytes = bytes;
            let over = slot.group.is_over(rule);
            let due = slot.group.due_ms(rule);
            let of = (key.0.clone(), key.1.clone(), group.clone());
            if slot.due != due {
                if let Some(old) = slot.due {
                    self.timers.remove(&(old, of.clone()));
                }
                self.timers.extend(due.map(|due| (due, of.clone())));
                slot.due = due;
            } else if let Some(due) = due {
                // Its timer may have been taken out to step it.
                self.timers.insert((due, of.clone()));
            }
            if over {
                self.forget(&key, &group);
            }
            self.dirty.insert(of);
        }
    }

    fn snapshot(&mut self) -> Vec<StateEntry> {
        let entry = |key: Key| {
            let slot = self.groups.get(&(key.0.clone(), key.1.clone())).and_then(|of| of.get(&key.2));
            StateEntry { collection: GROUPS, value: slot.map(|slot| encode(&slot.group)), key: encode(&key) }
        };
        std::mem::take(&mut self.dirty).into_iter().map(entry).collect()
    }

    /// What is said again after a start: the rules stand, and current state is counted again.
    fn begin(&mut self, stated: Vec<Stated>, counted: Vec<Counted>) -> Vec<ConditionChange> {
        let never = Now { clock_ms: 0, live_ms: 0 };
        let mut out = Vec::new();
        for Stated { tenant, name, rule } in stated {
            if let Some(rule) = rule.and_then(|rule| Rule::of(&rule).ok()) {
                self.rules.insert((tenant, name), rule);
            }
        }
        self.count(counted, never);
        for (key, groups) in &mut self.groups {
            let Some(rule) = self.rules.get(key) else { continue };
            for (group, slot) in groups {
                slot.says = slot.group.says(rule, group);
                told(None, condition(rule, &slot.says), &mut out);
                slot.due = slot.group.due_ms(rule);
                let of = (key.0.clone(), key.1.clone(), group.clone());
                self.timers.extend(slot.due.map(|due| (due, of)));
            }
        }
        out
    }
}

/// What came of an epoch that is not complete.
#[derive(Default)]
struct Waiting {
    stated: Vec<Stated>,
    counted: Vec<Counted>,
}

/// Judges groups, epoch by epoch.
pub(super) fn judge<'scope>(
    cx: &Context,
    stated: Events<'scope, Stated>,
    counted: Events<'scope, Counted>,
) -> Conditions<'scope> {
    let cx = cx.clone();
    let by_group = Exchange::new(|c: &Counted| owner(&c.tenant, &c.rule, &c.group));
    counted.binary_frontier(stated, by_group, Pipeline, "JudgeRules", move |capability, _: OperatorInfo| {
        let gauge = cx.sizes().machine(GROUPS, cx.index);
        let mut capability = Some(capability.delayed(&cx.restored));
        let mut judge = Judge::restore(&cx);
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        let mut next = cx.restored;
        move |(counted, of_counted), (stated, of_stated), output| {
            counted.for_each(|time, data| {
                let at = *time.least().expect("what is counted has an epoch");
                waiting.entry(at.max(cx.restored)).or_default().counted.append(data);
            });
            stated.for_each(|time, data| {
                let at = *time.least().expect("what is stated has an epoch");
                waiting.entry(at.max(cx.restored)).or_default().stated.append(data);
            });
            let upper = of_counted.frontier().iter().chain(of_stated.frontier().iter()).min().copied();
            let Some(upper) = upper else {
                capability = None;
                return;
            };
            let Some(held) = capability.as_mut() else { return };
            let mine = |owner: u64| owner % cx.peers as u64 == cx.index as u64;
            while next < upper {
                let Waiting { stated, counted } = waiting.remove(&next).unwrap_or_default();
                held.downgrade(&next);
                let mut out = Vec::new();
                match cx.tick(next).filter(|_| next > cx.restored) {
                    None => out = judge.begin(stated, counted),
                    Some(Tick { clock_ms, live_ms, .. }) => {
                        let now = Now { clock_ms, live_ms };
                        let mut touched = judge.state(stated, &mine, now, &mut out);
                        let (of_counted, refused) = judge.count(counted, now);
                        touched.extend(of_counted);
                        touched.extend(judge.due(clock_ms));
                        judge.step(touched, now, &mut out);
                        cx.sizes().evicted().fetch_add(refused, Ordering::Relaxed);
                    }
                }
                output.session(held).give_iterator(out.into_iter());
                if cx.wants_snapshot(next) {
                    cx.save(next, judge.snapshot());
                }
                next += 1;
            }
            held.downgrade(&upper.max(cx.restored));
            gauge.store(judge.shares.values().map(|share| share.groups).sum::<usize>() as i64, Ordering::Relaxed);
        }
    })
}
