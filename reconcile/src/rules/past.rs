//! When a rule over events would have held, had it stood: rows of the past, in the order of their times, through the same groups.
//!
//! It is right to the second: within one, all rows count before anybody looks.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use radarflow_language::cells::Cells;

use super::group::{Group, Now, Says};
use super::rule::{Contribution, GroupOf, Rule, Saying};

/// Groups that are followed at once; what one more counts is not counted.
pub const MAX_GROUPS: usize = 100_000;
/// Looks at groups, all together: more is too much to ask.
pub const MAX_STEPS: u64 = 20_000_000;
/// Alerts that are told of; of more the number.
pub const MAX_FOUND: usize = 10_000;

/// An alert that there would have been.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// When it would have begun, milliseconds since 1970.
    pub began_ms: i64,
    /// When it would have been over; nothing where it would still be.
    pub ended_ms: Option<i64>,
    /// What it would have said.
    pub says: Saying,
}

/// A rule over the past.
pub struct Past {
    rule: Rule,
    groups: BTreeMap<GroupOf, (Group, Option<(i64, Box<Saying>)>)>,
    timers: BTreeSet<(i64, GroupOf)>,
    due: BTreeMap<GroupOf, i64>,
    now_ms: i64,
    found: Vec<Found>,
    /// Alerts in all.
    alerts: usize,
    /// Rows that were like it, or found no room.
    refused: u64,
    /// How often a group was looked at.
    steps: u64,
}

impl Past {
    /// A rule that stands from a time on, milliseconds since 1970.
    pub fn new(rule: Rule, from_ms: i64) -> Self {
        let mut past = Past {
            rule,
            groups: BTreeMap::new(),
            timers: BTreeSet::new(),
            due: BTreeMap::new(),
            now_ms: from_ms,
            found: Vec::new(),
            alerts: 0,
            refused: 0,
            steps: 0,
        };
        if past.rule.alone {
            past.add(BTreeMap::from([(past.rule.of_partition("default"), BTreeMap::new())]));
        }
        past
    }

    /// Takes in rows in the order of their times.
    pub fn rows(&mut self, batch: &RecordBatch) {
        let times = Cells::of(batch, self.rule.entity.time.unwrap_or("time"));
        let second = |row: usize| times.time(row).map_or(0, |us| us.div_euclid(1_000_000));
        let mut from = 0;
        while from < batch.num_rows() {
            let at = second(from);
            let to = (from + 1..batch.num_rows()).find(|row| second(*row) != at).unwrap_or(batch.num_rows());
            self.until(at * 1000 + 999);
            let mut counted = Contribution::new();
            self.rule.events(batch, from..to, self.now_ms, &mut counted);
            self.add(counted);
            from = to;
        }
    }

    /// Whether more was asked than is done.
    pub fn is_too_much(&self) -> bool {
        self.steps >= MAX_STEPS
    }

    /// Goes on to a time: what is due before it happens first.
    fn until(&mut self, to_ms: i64) {
        while let Some((at, group)) = self.timers.first().filter(|(at, _)| *at <= to_ms).cloned() {
            if self.steps >= MAX_STEPS {
                break;
            }
            self.now_ms = self.now_ms.max(at);
            self.step(&group);
        }
        self.now_ms = self.now_ms.max(to_ms);
    }

    fn add(&mut self, counted: Contribution) {
        let now = Now { clock_ms: self.now_ms, live_ms: self.now_ms };
        for (group, steps) in counted {
            if !self.groups.contains_key(&group) && self.groups.len() >= MAX_GROUPS {
                self.refused += 1;
                continue;
            }
            let (of, _) = self.groups.entry(group.clone()).or_insert_with(|| (Group::new(&self.rule, now), None));
            of.add(steps, now);
            self.step(&group);
        }
    }

    fn step(&mut self, group: &GroupOf) {
        self.steps += 1;
        let now = Now { clock_ms: self.now_ms, live_ms: self.now_ms };
        if let Some(due) = self.due.remove(group) {
            self.timers.remove(&(due, group.clone()));
        }
        let Some((of, burns)) = self.groups.get_mut(group) else { return };
        match (of.step(&self.rule, group, now), &burns) {
            (Says::Burns(says), None) => *burns = Some((now.clock_ms, says)),
            (Says::Nothing, Some(_)) => {
                let ended = burns.take().map(|(began_ms, says)| (began_ms, *says));
                let ended = ended.map(|(began_ms, says)| Found { began_ms, ended_ms: Some(now.clock_ms), says });
                self.alerts += 1;
                if self.found.len() < MAX_FOUND {
                    self.found.extend(ended);
                }
            }
            _ => {}
        }
        if of.is_over(&self.rule) {
            self.groups.remove(group);
        } else if let Some(due) = of.due_ms(&self.rule) {
            self.timers.insert((due, group.clone()));
            self.due.insert(group.clone(), due);
        }
    }

    /// What there would have been until a time: the alerts, in the order in which they began; how many in all; and how often a group
    /// found no room.
    pub fn end(mut self, to_ms: i64) -> (Vec<Found>, usize, u64) {
        self.until(to_ms);
        let still = std::mem::take(&mut self.groups).into_values().filter_map(|(_, burns)| burns);
        let still: Vec<Found> = still.map(|(began_ms, says)| Found { began_ms, ended_ms: None, says: *says }).collect();
        self.alerts += still.len();
        self.found.extend(still);
        self.found.sort_by(|a, b| (a.began_ms, &a.says.entity).cmp(&(b.began_ms, &b.says.entity)));
        self.found.truncate(MAX_FOUND);
        (self.found, self.alerts, self.refused)
    }
}
