//! A tenant's desk: what burns, what was stated, and what follows of both for each group of each receiver.
//!
//! It is told what changes, and says what is otherwise. What it says is a function of what it was told and of the clock alone,
//! whatever it was told in which order:
//!
//! ```text
//! said(alert) = addresses(labels) × hold          hold = the first of: suppressed by a person, maintenance, a silence,
//!                                                 an alert that inhibits it, the times of the route
//! ```
//! An alert that is told nothing of is held, not over: who was told that it burns believes it rightly. So it is with who was on call
//! and is no more while it burns: their group keeps the alert, held, until it is over ([`Left`]). That is what a desk remembers.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::cell::Time;
use radarflow_proto::payload::NotifiedAlert;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::{Device, OnCall};
use serde::{Deserialize, Serialize};

use super::matcher::all_match;
use super::policy::{Address, Destination, Hold, Now, Policy};

/// An alert that burns, as whoever tells of it must know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Burning {
    /// What is told of it.
    pub alert: NotifiedAlert,
    /// Its site.
    pub partition: String,
    /// The device it is about.
    pub device_uid: Option<String>,
    /// Somebody does not want it: who, and until when.
    pub suppressed: Option<Hold>,
    /// Somebody took it: it is not told again.
    pub taken: bool,
    /// How often it was escalated.
    pub level: i64,
}

/// What a group is told of an alert.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Who is told, and with what; shared by all of the group.
    pub address: Arc<Address>,
    /// What of.
    pub alert: NotifiedAlert,
    /// Somebody took it.
    pub taken: bool,
    /// Why nothing is told now.
    pub hold: Option<Hold>,
}

/// A receiver's group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupName {
    /// The receiver.
    pub receiver: String,
    /// Names the group.
    pub group: String,
}

/// What is otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// An alert belongs to a group, in this form; and whether another group of the receiver had it, and has it no more.
    Told(GroupName, Arc<Entry>, bool),
    /// An alert belongs to it no more: it is over, or goes elsewhere; and whether another group of the receiver has it.
    Gone(GroupName, String, bool),
    /// Who is on call in a rota, before and after.
    OnCall(Option<Arc<OnCall>>, Option<Arc<OnCall>>),
}

/// Of alerts that burn, the groups that have them though nobody of these is on call any more.
pub type Left = BTreeMap<String, BTreeMap<GroupName, Arc<Address>>>;

/// Why a group has an alert.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Because {
    /// A route leads there, or a level of escalation.
    Routed,
    /// Its receiver is on call.
    OnCall,
    /// It was on call.
    Left,
}

/// A device, ordered by its name.
struct Named(Arc<Device>);

trait ByName {
    fn name(&self) -> (&str, &str);
}

impl ByName for Named {
    fn name(&self) -> (&str, &str) {
        (&self.0.partition, &self.0.uid)
    }
}
impl ByName for (&str, &str) {
    fn name(&self) -> (&str, &str) {
        *self
    }
}
impl<'a> Borrow<dyn ByName + 'a> for Named {
    fn borrow(&self) -> &(dyn ByName + 'a) {
        self
    }
}
impl PartialEq for dyn ByName + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}
impl Eq for dyn ByName + '_ {}
impl PartialOrd for dyn ByName + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for dyn ByName + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(&other.name())
    }
}
impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}
impl Eq for Named {}
impl PartialOrd for Named {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Named {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(&other.name())
    }
}

/// A rule of inhibition, and the values that its alerts share.
type SideKey = (usize, Vec<String>);

/// Who keeps back those that only can be, and those that could keep back others themselves.
type Keepers = (Option<String>, Option<String>);

/// Of one rule of inhibition and one set of values, the alerts on either side.
#[derive(Default)]
struct Sides {
    /// Those that keep others back and cannot be kept back themselves.
    sources: BTreeSet<String>,
    /// Those that could be both.
    both: BTreeSet<String>,
    targets: BTreeSet<String>,
}

impl Sides {
    /// The alert that keeps another back.
    fn keeps(&self, is_both: bool) -> Option<&String> {
        let both = if is_both { None } else { self.both.first() };
        self.sources.first().into_iter().chain(both).min()
    }

    fn keepers(&self) -> Keepers {
        (self.keeps(false).cloned(), self.keeps(true).cloned())
    }

    fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.both.is_empty() && self.targets.is_empty()
    }
}

/// All that a tenant's notifications hang on.
#[derive(Default)]
pub struct Desk {
    tenant: String,
    resources: BTreeMap<(String, String), Arc<Resource>>,
    policy: Policy,
    /// The policy is to be read again.
    stale: bool,
    now: Now,
    next_ms: Option<i64>,
    devices: BTreeSet<Named>,
    burning: BTreeMap<String, Arc<Burning>>,
    of_device: BTreeMap<(String, String), BTreeSet<String>>,
    sides: BTreeMap<SideKey, Sides>,
    /// Sides that alerts came to or left since the last turn, with who kept others back before: looked at once a turn.
    moved: BTreeMap<SideKey, Keepers>,
    said: BTreeMap<String, BTreeMap<GroupName, (Arc<Entry>, Because)>>,
    /// Of before this desk was made.
    left: Left,
    /// Addresses as they were said last: alerts of a group share one.
    shared: BTreeMap<GroupName, Arc<Address>>,
    dirty: BTreeSet<String>,
    /// Who is on call, by rota, as it was said last.
    on_call: BTreeMap<String, Arc<OnCall>>,
}

/// Addresses that are kept beyond those that are in use.
const SPARE: usize = 1000;

impl Desk {
    /// An alert burns in this form, or no more.
    pub fn alert(&mut self, id: &str, burning: Option<Burning>) {
        let before = self.burning.get(id).cloned();
        if before.as_deref() == burning.as_ref() {
            return;
        }
        if let Some(before) = before {
            self.side(&before, false);
            if let Some(uid) = &before.device_uid {
                let key = (before.partition.clone(), uid.clone());
                if let Some(of) = self.of_device.get_mut(&key) {
                    of.remove(id);
                    if of.is_empty() {
                        self.of_device.remove(&key);
                    }
                }
            }
            self.burning.remove(id);
        }
        if let Some(burning) = burning {
            self.side(&burning, true);
            if let Some(uid) = &burning.device_uid {
                self.of_device.entry((burning.partition.clone(), uid.clone())).or_default().insert(id.to_owned());
            }
            self.burning.insert(id.to_owned(), Arc::new(burning));
        }
        self.dirty.insert(id.to_owned());
    }

    /// A device is so now, or is no more.
    pub fn device(&mut self, device: Arc<Device>, is: bool) {
        let key = (device.partition.clone(), device.uid.clone());
        let device = Named(device);
        if is {
            self.devices.replace(device);
        } else {
            self.devices.remove(&device);
        }
        if let Some(of) = self.of_device.get(&key) {
            self.dirty.extend(of.iter().cloned());
        }
    }

    /// A resource stands so now, or no more.
    pub fn resource(&mut self, resource: Arc<Resource>, is: bool) {
        let key = (resource.resource.clone(), resource.id.clone());
        self.tenant.clone_from(&resource.tenant);
        if is {
            self.resources.insert(key, resource);
        } else {
            self.resources.remove(&key);
        }
        self.stale = true;
    }

    /// What it must be told when it is made again: [`Desk::resume`].
    pub fn left(&self) -> Left {
        let of = |said: &BTreeMap<GroupName, (Arc<Entry>, Because)>| {
            let left = said.iter().filter(|(_, (_, because))| *because == Because::Left);
            left.map(|(name, (entry, _))| (name.clone(), entry.address.clone())).collect::<BTreeMap<_, _>>()
        };
        let all = self.said.iter().map(|(id, said)| (id.clone(), of(said)));
        all.filter(|(_, left)| !left.is_empty()).collect()
    }

    /// What it was told is told again from here on; this was left.
    pub fn resume(&mut self, left: Left) {
        self.left = left;
    }

    /// When the clock alone may make something otherwise, milliseconds since 1970.
    pub fn due_ms(&self) -> Option<i64> {
        self.next_ms
    }

    /// Puts an alert on the sides of every rule that it is on, or takes it away.
    fn side(&mut self, burning: &Burning, there: bool) {
        let (id, labels) = (&burning.alert.id, &burning.alert.labels);
        for (nth, rule) in self.policy.inhibitions.iter().enumerate() {
            let (source, target) = (all_match(&rule.source, labels), all_match(&rule.target, labels));
            if !source && !target {
                continue;
            }
            let key = (nth, rule.key(labels));
            let sides = self.sides.entry(key.clone()).or_default();
            if !self.moved.contains_key(&key) {
                self.moved.insert(key.clone(), sides.keepers());
            }
            for (side, is) in [
                (&mut sides.sources, source && !target),
                (&mut sides.both, source && target),
                (&mut sides.targets, target),
            ] {
                match (is, there) {
                    (true, true) => drop(side.insert(id.clone())),
                    (true, false) => drop(side.remove(id)),
                    _ => {}
                }
            }
            if sides.is_empty() {
                self.sides.remove(&key);
            }
        }
    }

    /// Says what is otherwise at an instant. It must be called at every epoch at which something was told, or that is due.
    pub fn turn(&mut self, now_ms: i64) -> Vec<Said> {
        let looked = self.stale || self.next_ms.is_some_and(|at| at <= now_ms);
        if std::mem::take(&mut self.stale) {
            self.policy = Policy::of(self.resources.values());
            self.sides.clear();
            let burning: Vec<Arc<Burning>> = self.burning.values().cloned().collect();
            for burning in &burning {
                self.side(burning, true);
            }
            self.dirty.extend(self.burning.keys().cloned());
            (self.now, self.next_ms) = self.policy.at(now_ms);
        } else if self.next_ms.is_some_and(|at| at <= now_ms) {
            let (now, next_ms) = self.policy.at(now_ms);
            if now != self.now {
                self.dirty.extend(self.burning.keys().cloned());
            }
            (self.now, self.next_ms) = (now, next_ms);
        }
        for (key, before) in std::mem::take(&mut self.moved) {
            if let Some(sides) = self.sides.get(&key).filter(|sides| sides.keepers() != before) {
                self.dirty.extend(sides.targets.iter().cloned());
            }
        }
        let mut out = if looked { self.say_on_call() } else { Vec::new() };
        for id in std::mem::take(&mut self.dirty) {
            let mut after: BTreeMap<GroupName, (Arc<Entry>, Because)> = BTreeMap::new();
            let before = self.said.remove(&id).unwrap_or_default();
            let left = self.left.remove(&id).unwrap_or_default();
            if let Some(burning) = self.burning.get(&id).cloned() {
                for (address, hold, because) in self.addressed(&burning) {
                    let name = GroupName { receiver: address.receiver.name.clone(), group: address.group_key.clone() };
                    let address = match self.shared.get(&name).filter(|known| ***known == address) {
                        Some(known) => known.clone(),
                        None => {
                            let address = Arc::new(address);
                            self.shared.insert(name.clone(), address.clone());
                            address
                        }
                    };
                    let (alert, taken) = (burning.alert.clone(), burning.taken);
                    after.insert(name, (Arc::new(Entry { address, alert, taken, hold }), because));
                }
                let were = before.iter().filter(|(_, (_, because))| *because != Because::Routed);
                let were = were.map(|(name, (entry, _))| (name.clone(), entry.address.clone()));
                for (name, address) in were.chain(left) {
                    // Where the receiver has it otherwise, it moves.
                    if !after.keys().any(|other| other.receiver == name.receiver) {
                        let hold = Some(Hold { why: "not on call any more".to_owned(), until_ms: None });
                        let (alert, taken) = (burning.alert.clone(), burning.taken);
                        let entry = Arc::new(Entry { address, alert, taken, hold });
                        after.insert(name, (entry, Because::Left));
                    }
                }
            }
            let gone: Vec<&GroupName> = before.keys().filter(|name| !after.contains_key(name)).collect();
            for name in &gone {
                let elsewhere = after.keys().any(|other| other.receiver == name.receiver);
                out.push(Said::Gone((*name).clone(), id.clone(), elsewhere));
            }
            // Those that stay owe the end that the one that left may have owed.
            for (name, (entry, _)) in &after {
                let left = gone.iter().any(|other| other.receiver == name.receiver);
                if left || before.get(name).is_none_or(|(known, _)| known != entry) {
                    out.push(Said::Told(name.clone(), entry.clone(), left));
                }
            }
            if !after.is_empty() {
                self.said.insert(id, after);
            }
        }
        if self.shared.len() > 2 * self.said.len() + SPARE {
            self.shared.clear();
        }
        out
    }

    /// Where an alert goes, and what holds it back there.
    fn addressed(&self, burning: &Burning) -> Vec<(Address, Option<Hold>, Because)> {
        let hold = self.hold(burning);
        let held = |destination: Destination<'_>| {
            let hold = hold.clone().or_else(|| destination.hold(&self.now));
            let because = if destination.on_call { Because::OnCall } else { Because::Routed };
            (destination.address, hold, because)
        };
        self.policy.destinations(&self.now, burning).into_iter().map(held).collect()
    }

    /// Who is on call otherwise than it was said.
    fn say_on_call(&mut self) -> Vec<Said> {
        let mut after: BTreeMap<String, Arc<OnCall>> = BTreeMap::new();
        for rota in self.policy.rotas() {
            let Some((now, next)) = self.policy.on_call(&self.now, rota) else { continue };
            let instant = |ms: i64| Time::from_ms(ms);
            let row = OnCall {
                tenant_id: self.tenant.clone(),
                partition: "default".to_owned(),
                rota: rota.to_owned(),
                person: now.person.as_ref().map(|person| person.name.clone()),
                receiver: now.person.as_ref().map(|person| person.receiver.clone()),
                since: now.since_ms.map(instant),
                until: now.until_ms.map(instant),
                rota_override: now.by.clone(),
                next_at: next.as_ref().map(|(_, at_ms)| instant(*at_ms)),
                next_person: next.map(|(person, _)| person.name),
                epoch: 0,
            };
            after.insert(rota.to_owned(), row.into());
        }
        let before = std::mem::replace(&mut self.on_call, after);
        let rotas: BTreeSet<&String> = before.keys().chain(self.on_call.keys()).collect();
        let said = rotas.into_iter().map(|rota| (before.get(rota).cloned(), self.on_call.get(rota).cloned()));
        said.filter(|(before, after)| before != after).map(|(before, after)| Said::OnCall(before, after)).collect()
    }

    /// Why nothing is told of an alert, whoever would be told.
    fn hold(&self, burning: &Burning) -> Option<Hold> {
        let labels = &burning.alert.labels;
        let device = || {
            let uid = burning.device_uid.as_deref().filter(|_| self.policy.asks_devices())?;
            let name: (&str, &str) = (&burning.partition, uid);
            self.devices.get(&name as &dyn ByName).map(|named| &*named.0)
        };
        let maintained = || self.policy.maintained(&self.now, &burning.partition, device());
        let silenced = || self.policy.silenced(&self.now, labels);
        burning.suppressed.clone().or_else(maintained).or_else(silenced).or_else(|| self.inhibited(burning))
    }

    fn inhibited(&self, burning: &Burning) -> Option<Hold> {
        let labels = &burning.alert.labels;
        self.policy.inhibitions.iter().enumerate().find_map(|(nth, rule)| {
            if !all_match(&rule.target, labels) {
                return None;
            }
            let by = self.sides.get(&(nth, rule.key(labels)))?.keeps(all_match(&rule.source, labels))?;
            Some(Hold { why: format!("inhibited by alert {by}: {}", rule.name), until_ms: None })
        })
    }
}
