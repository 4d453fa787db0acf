//! What a tenant states about who is told, read from its resources: routes, receivers, silences, inhibition, times, maintenance.
//!
//! What cannot be read is left out here: it is refused where it is stated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::fact::Receiver;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::{Device, Table};
use serde::{Deserialize, Serialize};

use super::desk::Burning;
use super::matcher::{Labels, Matcher, all_match, quoted, spelled};
use super::oncall::{Duty, ONCALL, Person, Rota};
use super::times::Interval;
use crate::condition::Condition;
use crate::resources::told;

/// Nodes from the first to a leaf.
pub const MAX_DEPTH: usize = 16;
/// `group_by` of all labels.
pub const ALL_LABELS: &str = "...";
/// The receiver that is nobody.
pub const NOBODY: &str = "-";
/// What alerts are matched by beside their labels, once they were escalated.
pub const ESCALATION: &str = "escalation";

const WAIT_MS: i64 = 30_000;
const INTERVAL_MS: i64 = 300_000;
const REPEAT_MS: i64 = 4 * 3_600_000;

/// How a group is paced, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pace {
    /// How long a new group waits for company.
    pub wait_ms: i64,
    /// Least time between messages about a group that changed.
    pub interval_ms: i64,
    /// Time after which an unchanged firing group is told again.
    pub repeat_ms: i64,
}

impl Pace {
    /// As a receiver says it that no route names.
    pub fn of(receiver: &Receiver) -> Self {
        Pace {
            wait_ms: receiver.group_wait_ms,
            interval_ms: receiver.group_interval_ms,
            repeat_ms: receiver.repeat_interval_ms,
        }
    }
}

/// Whom an alert goes to, and with which others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// Who is told.
    pub receiver: Receiver,
    /// How the group is paced.
    pub pace: Pace,
    /// The nodes that lead there, by name; empty where no route takes the alert.
    pub route: String,
    /// Names the group, as Alertmanager spells it.
    pub group_key: String,
    /// Labels that make the group.
    pub labels: Labels,
}

/// A node of the tree, with what it has of those above it.
struct Node {
    matchers: Vec<Matcher>,
    receivers: Vec<String>,
    group_by: Vec<String>,
    pace: Pace,
    goes_on: bool,
    mute: Vec<String>,
    active: Vec<String>,
    /// Names from the first node on, and matchers likewise.
    path: String,
    key: String,
    /// In order.
    below: Vec<String>,
}

struct Silence {
    name: String,
    matchers: Vec<Matcher>,
    starts_ms: i64,
    ends_ms: i64,
    by: String,
}

struct Window {
    name: String,
    condition: Option<Condition>,
    partitions: BTreeSet<String>,
    starts_ms: i64,
    ends_ms: i64,
    intervals: Vec<String>,
}

/// A rule by which some alerts keep others back.
pub struct Inhibition {
    /// Its name.
    pub name: String,
    /// Those that keep others back.
    pub source: Vec<Matcher>,
    /// Those that are kept back.
    pub target: Vec<Matcher>,
    equal: Vec<String>,
}

impl Inhibition {
    /// The values that both must share.
    pub fn key(&self, labels: &Labels) -> Vec<String> {
        self.equal.iter().map(|name| labels.get(name).cloned().unwrap_or_default()).collect()
    }
}

/// All of it.
#[derive(Default)]
pub struct Policy {
    nodes: BTreeMap<String, Node>,
    first: Vec<String>,
    receivers: BTreeMap<String, Receiver>,
    /// Receivers that no route names: they are told of what no route takes.
    unnamed: BTreeSet<String>,
    silences: Vec<Silence>,
    /// By a label that they ask to be one value; those that ask for none by nothing.
    by_value: BTreeMap<(String, String), Vec<usize>>,
    by_nothing: Vec<usize>,
    intervals: BTreeMap<String, Interval>,
    windows: Vec<Window>,
    /// Rules of inhibition.
    pub inhibitions: Vec<Inhibition>,
    rotas: BTreeMap<String, Rota>,
    /// In order.
    escalations: Vec<Escalated>,
}

/// Who is told of what nobody takes, beside those that routes name.
struct Escalated {
    name: String,
    matchers: Vec<Matcher>,
    /// By level, from the first on.
    receivers: Vec<String>,
}

/// Kinds that it is read of.
pub const READ: [Table; 9] = [
    Table::Receiver,
    Table::Route,
    Table::Silence,
    Table::InhibitRule,
    Table::TimeInterval,
    Table::MaintenanceWindow,
    Table::EscalationPolicy,
    Table::Rota,
    Table::RotaOverride,
];

/// What of a policy hangs on the clock, and until when it is so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Silences that hold.
    silences: BTreeSet<usize>,
    /// Windows that hold, and until when.
    windows: BTreeMap<usize, Option<i64>>,
    /// Time intervals: whether they hold, and until when that is so.
    intervals: BTreeMap<String, (bool, Option<i64>)>,
    /// Who is on call, by rota.
    duties: BTreeMap<String, Duty>,
}

/// Where an alert goes.
pub struct Destination<'a> {
    /// Whom to.
    pub address: Address,
    /// Time intervals in which it is not told, and in which alone it is.
    mute: &'a [String],
    active: &'a [String],
    /// They are told because they are on call.
    pub on_call: bool,
    /// Somebody took it: nobody is called for it.
    taken: Option<Hold>,
}

impl Destination<'_> {
    /// Why nothing is told there, whatever is told elsewhere.
    pub fn hold(&self, now: &Now) -> Option<Hold> {
        self.taken.clone().or_else(|| Policy::muted(now, self.mute, self.active))
    }
}

/// Why an alert is not told now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hold {
    /// In words.
    pub why: String,
    /// Until when, where it ends by the clock, milliseconds since 1970.
    pub until_ms: Option<i64>,
}

fn ms(resource: &Resource, field: &str) -> Option<i64> {
    resource.number(field).map(|us| us.div_euclid(1000))
}

impl Policy {
    /// Reads it.
    pub fn of<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> Self {
        let mut policy = Policy::default();
        let (mut overrides, mut escalations) = (Vec::new(), Vec::new());
        let mut routes: BTreeMap<Option<String>, Vec<&Arc<Resource>>> = BTreeMap::new();
        for resource in resources {
            match resource.resource.as_str() {
                name if name == Table::Receiver.name() => {
                    policy.receivers.extend(told::receiver(resource).map(|r| (r.name.clone(), r)));
                }
                name if name == Table::Route.name() => {
                    routes.entry(resource.text("parent").map(str::to_owned)).or_default().push(resource);
                }
                name if name == Table::Silence.name() => policy.silence(resource),
                name if name == Table::InhibitRule.name() => policy.inhibition(resource),
                name if name == Table::TimeInterval.name() => {
                    let read = Interval::read(&resource.texts("periods"));
                    policy.intervals.extend(read.ok().map(|interval| (resource.id.clone(), interval)));
                }
                name if name == Table::MaintenanceWindow.name() => policy.window(resource),
                name if name == Table::EscalationPolicy.name() => escalations.push(resource),
                name if name == Table::Rota.name() => {
                    policy.rotas.extend(Rota::read(resource).ok().map(|rota| (resource.id.clone(), rota)));
                }
                name if name == Table::RotaOverride.name() => overrides.push(resource),
                _ => {}
            }
        }
        for over in overrides {
            if let Some(rota) = over.text("rota").and_then(|rota| policy.rotas.get_mut(rota)) {
                rota.take(over);
            }
        }
        escalations.sort_by_key(|of| (of.number("position").unwrap_or_default(), of.id.clone()));
        for of in escalations {
            let Ok(matchers) = Matcher::read_all(&of.texts("matchers")) else { continue };
            policy.escalations.push(Escalated { name: of.id.clone(), matchers, receivers: of.texts("receivers") });
        }
        policy.first = policy.grow(&mut routes, None, 0);
        let of_routes = policy.nodes.values().flat_map(|node| &node.receivers);
        let of_levels = policy.escalations.iter().flat_map(|of| &of.receivers);
        let named: BTreeSet<&str> = of_routes.chain(of_levels).map(String::as_str).collect();
        // Whoever is on call somewhere is told by name only where somebody says so.
        let rotas = named.iter().filter_map(|name| policy.rotas.get(name.strip_prefix(ONCALL)?));
        let named: BTreeSet<&str> = rotas.flat_map(Rota::receivers).chain(named.iter().copied()).collect();
        let unnamed = policy.receivers.keys().filter(|name| !named.contains(name.as_str())).cloned().collect();
        policy.unnamed = unnamed;
        policy
    }

    /// Names of rotas.
    pub fn rotas(&self) -> impl Iterator<Item = &str> {
        self.rotas.keys().map(String::as_str)
    }

    /// Who is on call in a rota, and who is next.
    pub fn on_call<'a>(&self, now: &'a Now, rota: &str) -> Option<(&'a Duty, Option<(Person, i64)>)> {
        let duty = now.duties.get(rota)?;
        Some((duty, self.rotas.get(rota)?.next(duty, &self.intervals)))
    }

    /// Takes in the nodes below one; gives their names in order.
    fn grow(
        &mut self,
        routes: &mut BTreeMap<Option<String>, Vec<&Arc<Resource>>>,
        above: Option<&str>,
        depth: usize,
    ) -> Vec<String> {
        let mut below = routes.remove(&above.map(str::to_owned)).unwrap_or_default();
        if depth >= MAX_DEPTH {
            return Vec::new();
        }
        below.sort_by_key(|resource| (resource.number("position").unwrap_or_default(), resource.id.clone()));
        let mut names = Vec::new();
        for resource in below {
            let Ok(matchers) = Matcher::read_all(&resource.texts("matchers")) else { continue };
            let upper = above.and_then(|name| self.nodes.get(name));
            let or = |said: Vec<String>, upper: Option<&Vec<String>>| match said.is_empty() {
                true => upper.cloned().unwrap_or_default(),
                false => said,
            };
            let paced = |field, upper: Option<i64>, or: i64| resource.number(field).or(upper).unwrap_or(or);
            let pace = upper.map(|node| node.pace);
            let joined = |upper: Option<&String>, own: &str| match upper {
                Some(upper) => format!("{upper}/{own}"),
                None => own.to_owned(),
            };
            let node = Node {
                receivers: or(resource.texts("receivers"), upper.map(|node| &node.receivers)),
                group_by: or(resource.texts("group_by"), upper.map(|node| &node.group_by)),
                pace: Pace {
                    wait_ms: paced("group_wait_ms", pace.map(|p| p.wait_ms), WAIT_MS),
                    interval_ms: paced("group_interval_ms", pace.map(|p| p.interval_ms), INTERVAL_MS),
                    repeat_ms: paced("repeat_interval_ms", pace.map(|p| p.repeat_ms), REPEAT_MS),
                },
                goes_on: resource.flag("continue"),
                mute: resource.texts("mute_time_intervals"),
                active: resource.texts("active_time_intervals"),
                path: joined(upper.map(|node| &node.path), &resource.id),
                key: joined(upper.map(|node| &node.key), &spelled(&matchers)),
                below: Vec::new(),
                matchers,
            };
            self.nodes.insert(resource.id.clone(), node);
            let below = self.grow(routes, Some(&resource.id), depth + 1);
            if let Some(node) = self.nodes.get_mut(&resource.id) {
                node.below = below;
            }
            names.push(resource.id.clone());
        }
        names
    }

    fn silence(&mut self, resource: &Resource) {
        let (Ok(matchers), Some(ends_ms)) = (Matcher::read_all(&resource.texts("matchers")), ms(resource, "ends_at"))
        else {
            return;
        };
        let nth = self.silences.len();
        match matchers.iter().find_map(Matcher::exact) {
            Some((label, value)) => {
                self.by_value.entry((label.to_owned(), value.to_owned())).or_default().push(nth);
            }
            None => self.by_nothing.push(nth),
        }
        let starts_ms = ms(resource, "starts_at").unwrap_or(i64::MIN);
        let (name, by) = (resource.id.clone(), resource.created_by.clone());
        self.silences.push(Silence { name, matchers, starts_ms, ends_ms, by });
    }

    fn inhibition(&mut self, resource: &Resource) {
        let read = |field| Matcher::read_all(&resource.texts(field));
        if let (Ok(source), Ok(target)) = (read("source_matchers"), read("target_matchers")) {
            let (name, equal) = (resource.id.clone(), resource.texts("equal"));
            self.inhibitions.push(Inhibition { name, source, target, equal });
        }
    }

    fn window(&mut self, resource: &Resource) {
        let condition = match resource.text("condition").map(Condition::read) {
            Some(Ok(condition)) => Some(condition),
            Some(Err(_)) => return,
            None => None,
        };
        self.windows.push(Window {
            name: resource.id.clone(),
            condition,
            partitions: resource.texts("partitions").into_iter().collect(),
            starts_ms: ms(resource, "starts_at").unwrap_or(i64::MIN),
            ends_ms: ms(resource, "ends_at").unwrap_or(i64::MAX),
            intervals: resource.texts("time_intervals"),
        });
    }

    /// Whether anything hangs on what a device is.
    pub fn asks_devices(&self) -> bool {
        self.windows.iter().any(|window| window.condition.is_some())
    }

    /// What hangs on the clock, at an instant; and when that is next to be looked at again.
    pub fn at(&self, now_ms: i64) -> (Now, Option<i64>) {
        let mut now = Now::default();
        let mut next: Option<i64> = None;
        let mut soon = |at: Option<i64>| {
            if let Some(at) = at.filter(|at| *at > now_ms && *at < i64::MAX) {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        };
        for (name, interval) in &self.intervals {
            let change = interval.next_change_ms(now_ms);
            now.intervals.insert(name.clone(), (interval.holds(now_ms), change));
            soon(change);
        }
        let span = |starts: i64, ends: i64| starts <= now_ms && now_ms < ends;
        for (nth, silence) in self.silences.iter().enumerate() {
            if span(silence.starts_ms, silence.ends_ms) {
                now.silences.insert(nth);
            }
            soon(Some(silence.starts_ms));
            soon(Some(silence.ends_ms));
        }
        for (nth, window) in self.windows.iter().enumerate() {
            soon(Some(window.starts_ms));
            soon(Some(window.ends_ms));
            let held: Vec<_> = window
                .intervals
                .iter()
                .filter_map(|name| now.intervals.get(name))
                .filter(|(holds, _)| *holds)
                .collect();
            if span(window.starts_ms, window.ends_ms) && (window.intervals.is_empty() || !held.is_empty()) {
                let ends = Some(window.ends_ms).filter(|ends| *ends < i64::MAX);
                let over = held.iter().filter_map(|(_, until)| *until).max();
                now.windows.insert(nth, ends.into_iter().chain(over).min());
            }
        }
        for (name, rota) in &self.rotas {
            let duty = rota.duty(now_ms, &self.intervals);
            soon(duty.until_ms);
            now.duties.insert(name.clone(), duty);
        }
        (now, next)
    }

    /// Where an alert goes; in the order of the tree, each group once. What no route takes goes to the receivers that no route
    /// names, at their own pace: so a first route takes nothing from anybody else.
    pub fn destinations(&self, now: &Now, burning: &Burning) -> Vec<Destination<'_>> {
        let (labels, level) = (&burning.alert.labels, burning.level);
        let mut found: Vec<Destination<'_>> = Vec::new();
        let mut matched = labels.clone();
        if level > 0 {
            matched.insert(ESCALATION.to_owned(), level.to_string());
        }
        let mut leaves = Vec::new();
        if !self.leaves(&self.first, &matched, &mut leaves) {
            for receiver in self.unnamed.iter().filter_map(|name| self.receivers.get(name)) {
                let key = format!("{{}}/{{receiver={}}}", quoted(&receiver.name));
                let address = address(receiver, Pace::of(receiver), "", &key, &receiver.group_by, labels);
                found.push(Destination { address, mute: &[], active: &[], on_call: false, taken: None });
            }
        }
        for node in leaves {
            for (receiver, on_call) in node.receivers.iter().filter_map(|name| self.reached(now, name)) {
                let taken = taken(burning, on_call);
                let address = address(receiver, node.pace, &node.path, &node.key, &node.group_by, labels);
                let (mute, active) = (node.mute.as_slice(), node.active.as_slice());
                once(&mut found, Destination { address, mute, active, on_call, taken });
            }
        }
        let of_level = self.escalations.iter().find(|of| all_match(&of.matchers, labels)).filter(|_| level > 0);
        if let Some(Escalated { name, receivers, .. }) = of_level {
            let upto = usize::try_from(level).unwrap_or(usize::MAX).min(receivers.len());
            for (receiver, on_call) in receivers[..upto].iter().filter_map(|name| self.reached(now, name)) {
                let taken = taken(burning, on_call);
                let route = format!("escalation_policies/{name}");
                let key = format!("{{}}/{{escalation_policy={}}}", quoted(name));
                let address = address(receiver, Pace::of(receiver), &route, &key, &receiver.group_by, labels);
                once(&mut found, Destination { address, mute: &[], active: &[], on_call, taken });
            }
        }
        found
    }

    /// Whom a name leads to: a receiver, or whoever is on call; and which of both.
    fn reached<'a>(&'a self, now: &Now, name: &str) -> Option<(&'a Receiver, bool)> {
        let Some(rota) = name.strip_prefix(ONCALL) else {
            return self.receivers.get(name).map(|receiver| (receiver, false));
        };
        let person = now.duties.get(rota)?.person.as_ref()?;
        self.receivers.get(&person.receiver).map(|receiver| (receiver, true))
    }

    /// The nodes that take an alert.
    fn leaves<'a>(&'a self, names: &[String], labels: &Labels, out: &mut Vec<&'a Node>) -> bool {
        let mut taken = false;
        for node in names.iter().filter_map(|name| self.nodes.get(name)) {
            if !all_match(&node.matchers, labels) {
                continue;
            }
            taken = true;
            if !self.leaves(&node.below, labels, out) {
                out.push(node);
            }
            if !node.goes_on {
                break;
            }
        }
        taken
    }

    /// The silence that an alert is held by.
    pub fn silenced(&self, now: &Now, labels: &Labels) -> Option<Hold> {
        let by_value = labels.iter().filter_map(|(k, v)| self.by_value.get(&(k.clone(), v.clone()))).flatten();
        let mut of: Vec<usize> = by_value.chain(&self.by_nothing).copied().collect();
        of.sort_unstable();
        let holds = |nth: &usize| now.silences.contains(nth) && all_match(&self.silences[*nth].matchers, labels);
        let silence = &self.silences[of.into_iter().find(holds)?];
        let why = format!("silenced by {} of {}", silence.name, silence.by);
        Some(Hold { why, until_ms: Some(silence.ends_ms) })
    }

    /// The maintenance window that an alert is held by, of the partition, and of the device where it is about one.
    pub fn maintained(&self, now: &Now, partition: &str, device: Option<&Device>) -> Option<Hold> {
        let covers = |window: &Window| {
            let site = window.partitions.is_empty() || window.partitions.contains(partition);
            site && window.condition.as_ref().is_none_or(|c| device.is_some_and(|device| c.holds(device)))
        };
        let (nth, until_ms) = now.windows.iter().find(|(nth, _)| covers(&self.windows[**nth]))?;
        Some(Hold { why: format!("maintenance: {}", self.windows[*nth].name), until_ms: *until_ms })
    }

    /// The time interval that a route is muted by.
    pub fn muted(now: &Now, mute: &[String], active: &[String]) -> Option<Hold> {
        let of = |names: &[String]| -> Vec<(String, bool, Option<i64>)> {
            let known = |name: &String| now.intervals.get(name).map(|(holds, until)| (name.clone(), *holds, *until));
            names.iter().filter_map(known).collect()
        };
        if let Some((name, _, until_ms)) = of(mute).into_iter().find(|(_, holds, _)| *holds) {
            return Some(Hold { why: format!("muted: it is {name}"), until_ms });
        }
        let active = of(active);
        if active.is_empty() || active.iter().any(|(_, holds, _)| *holds) {
            return None;
        }
        let names: Vec<&str> = active.iter().map(|(name, _, _)| name.as_str()).collect();
        let until_ms = active.iter().filter_map(|(_, _, until)| *until).min();
        Some(Hold { why: format!("muted: it is not {}", names.join(" or ")), until_ms })
    }
}

/// What keeps from calling somebody for what somebody took.
fn taken(burning: &Burning, on_call: bool) -> Option<Hold> {
    (on_call && burning.taken).then(|| Hold { why: "somebody took it".to_owned(), until_ms: None })
}

/// Adds a destination; where there is one of its receiver and group, the one that is told more counts.
fn once<'a>(found: &mut Vec<Destination<'a>>, destination: Destination<'a>) {
    let name = |of: &Destination<'_>| (of.address.receiver.name.clone(), of.address.group_key.clone());
    match found.iter_mut().find(|other| name(other) == name(&destination)) {
        Some(other) if other.taken.is_some() && destination.taken.is_none() => *other = destination,
        Some(_) => {}
        None => found.push(destination),
    }
}

fn address(receiver: &Receiver, pace: Pace, route: &str, key: &str, group_by: &[String], labels: &Labels) -> Address {
    let by: Labels = match group_by.iter().any(|name| name == ALL_LABELS) {
        true => labels.clone(),
        false => group_by.iter().filter_map(|name| Some((name.clone(), labels.get(name)?.clone()))).collect(),
    };
    let spelled: Vec<String> = by.iter().map(|(k, v)| format!("{k}={}", quoted(v))).collect();
    Address {
        receiver: receiver.clone(),
        pace,
        route: route.to_owned(),
        group_key: format!("{key}:{{{}}}", spelled.join(", ")),
        labels: by,
    }
}
