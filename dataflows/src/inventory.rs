//! Devices: one row a component, from its records, its name, its addresses and what its vantages say, under the rules that
//! tell what devices are.
//!
//! ```text
//! device(c)(e) :- enrich(described(c)(e), rules(e))
//! described(c) :- fold of { uid(c), record(c, r)*, owned(c, ip)*, seen(owner(ip) = c, vantage, word)*, life(c)? }
//! ```
//! A device without records is none. Two parts of one epoch give one change of the row, because they meet in one place.
//! No row is kept: what a device was is described from what it was made of, before that changes; and when the rules
//! change, every device is described under the old ones and the new.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use radarflow_proto::enrich::Rule;
use radarflow_proto::record::Record;
use radarflow_proto::rows::Device;
use radarflow_reconcile::availability::{Word, combine};
use radarflow_reconcile::enrich::Rules;
use radarflow_reconcile::identity::assertions::{Scope, ip_name};
use radarflow_reconcile::identity::name::Name;
use radarflow_reconcile::inventory::{MAX_DESCRIBING, Parts, RecordSummary, confidence, describe};
use radarflow_reconcile::lifecycle::Life;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::{Broadcast, Map};

use crate::availability::Observation;
use crate::collection::Rel;
use crate::identity::{Component, Owners};
use crate::keyed::{Context, route};
use crate::records::Live;

/// What devices are made of.
pub struct Inputs<'scope> {
    /// Which records make which device.
    pub placements: Rel<'scope, (Component, Live)>,
    /// What devices are called.
    pub names: Rel<'scope, (Component, Arc<str>)>,
    /// Which addresses a device owns.
    pub addresses: Rel<'scope, (Component, IpAddr)>,
    /// Who owns an address that was looked at.
    pub owners: Owners<'scope>,
    /// What vantages say of targets.
    pub observations: Rel<'scope, Observation>,
    /// What operators made of devices.
    pub lives: Rel<'scope, (Component, Arc<Life>)>,
    /// The rules, all of them, whenever they are stated.
    pub rules: Rel<'scope, Arc<[Rule]>>,
}

/// What is known of devices.
pub struct Outputs<'scope> {
    /// Devices under the rules.
    pub devices: Rel<'scope, Arc<Device>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Part {
    Uid(Arc<str>),
    Record(Live),
    Owned(IpAddr),
    Seen(String, Word),
    Life(Arc<Life>),
}

/// What a device is made of; each list in order.
#[derive(Default)]
struct Made {
    uid: Option<Arc<str>>,
    records: Vec<Live>,
    owned: Vec<IpAddr>,
    words: Vec<(String, Word)>,
    life: Option<Arc<Life>>,
}

/// Puts a value into a list in order, or takes it out.
fn change<T: Ord>(list: &mut Vec<T>, value: T, diff: isize) {
    match (list.binary_search(&value), diff > 0) {
        (Err(at), true) => list.insert(at, value),
        (Ok(at), false) => drop(list.remove(at)),
        _ => {}
    }
}

impl Made {
    /// Takes in parts that change: what goes before what comes.
    fn take(&mut self, parts: Vec<(Part, isize)>) {
        let mut net: BTreeMap<Part, isize> = BTreeMap::new();
        for (part, diff) in parts {
            *net.entry(part).or_default() += diff;
        }
        let changed = net.into_iter().filter(|(_, diff)| *diff != 0);
        let (come, go): (Vec<_>, Vec<_>) = changed.partition(|(_, diff)| *diff > 0);
        for (part, diff) in go.into_iter().chain(come) {
            match part {
                Part::Uid(uid) if diff > 0 => self.uid = Some(uid),
                Part::Uid(uid) => drop(self.uid.take_if(|known| *known == uid)),
                Part::Life(life) if diff > 0 => self.life = Some(life),
                Part::Life(life) => drop(self.life.take_if(|known| *known == life)),
                Part::Record(live) => change(&mut self.records, live, diff),
                Part::Owned(ip) => change(&mut self.owned, ip, diff),
                Part::Seen(vantage, word) => change(&mut self.words, (vantage, word), diff),
            }
        }
    }

    fn is_nothing(&self) -> bool {
        let lists = self.records.is_empty() && self.owned.is_empty() && self.words.is_empty();
        lists && self.uid.is_none() && self.life.is_none()
    }

    /// The row, if there is such a device.
    fn row(&self, rules: &Rules) -> Option<Device> {
        let uid = self.uid.as_ref().filter(|uid| !uid.is_empty())?;
        let mut known = RecordSummary::default();
        for says in self.records.iter().map(|live| &live.says) {
            known.add(says.kind, says.at, !says.ids.is_empty() || !says.macs.is_empty());
        }
        let mut lives: Vec<&Live> = self.records.iter().collect();
        if lives.len() > MAX_DESCRIBING {
            let rank = |live: &Live| std::cmp::Reverse((confidence(live.says.kind), live.says.at, live.key));
            lives.select_nth_unstable_by_key(MAX_DESCRIBING, |live| rank(live));
            lives.truncate(MAX_DESCRIBING);
        }
        let records: Vec<Record> = lives.into_iter().map(|live| live.record()).collect();
        let words = self.words.iter().map(|(vantage, word)| (vantage.as_str(), word));
        let described = describe(&Parts {
            uid,
            records: records.iter().collect(),
            known,
            owned: self.owned.iter().copied().collect(),
            availability: (!self.words.is_empty()).then(|| combine(words)),
            life: self.life.as_deref().cloned().unwrap_or_default(),
        });
        described.map(|described| rules.enrich(described))
    }
}

/// Names the address that was looked at.
fn address(observation: &Observation) -> Name {
    let target = &observation.target;
    ip_name(Scope::of(&target.tenant, &target.partition).name, target.ip)
}

/// Devices by component.
#[derive(Default)]
struct Inventory {
    devices: BTreeMap<Component, Made>,
    rules: Rules,
}

impl Inventory {
    /// Takes in the parts and the rules of an epoch; tells of each device that changes what it was and is.
    fn step(
        &mut self,
        parts: BTreeMap<Component, Vec<(Part, isize)>>,
        rules: Option<Rules>,
        mut each: impl FnMut(Option<Device>, Option<Device>),
    ) {
        let new = rules.as_ref().unwrap_or(&self.rules);
        if rules.is_some() {
            let others = self.devices.iter().filter(|(component, _)| !parts.contains_key(*component));
            others.for_each(|(_, made)| each(made.row(&self.rules), made.row(new)));
        }
        for (component, parts) in parts {
            let made = self.devices.entry(component).or_default();
            let was = made.row(&self.rules);
            made.take(parts);
            each(was, made.row(new));
            if made.is_nothing() {
                self.devices.remove(&component);
            }
        }
        self.rules = rules.unwrap_or_else(|| std::mem::take(&mut self.rules));
    }
}

/// What came of an epoch that is not complete.
#[derive(Default)]
struct Waiting {
    parts: BTreeMap<Component, Vec<(Part, isize)>>,
    rules: Option<Vec<Rule>>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let by_target = inputs.observations.map(|o| (address(&o), Part::Seen(o.vantage, o.word)));
    let parts = inputs
        .placements
        .map(|(c, v)| (c, Part::Record(v)))
        .concat(inputs.names.map(|(c, uid)| (c, Part::Uid(uid))))
        .concat(inputs.addresses.map(|(c, ip)| (c, Part::Owned(ip))))
        .concat(inputs.owners.by_device(by_target))
        .concat(inputs.lives.map(|(c, life)| (c, Part::Life(life))));
    // The newest rules, everywhere: those that they take the place of are known.
    let rules = inputs.rules.inner.flat_map(|(rules, epoch, diff)| (diff > 0).then(|| (rules.to_vec(), epoch)));
    let first = cx.restored;
    let by_component = Exchange::new(|((component, _), _, _): &((Component, Part), u64, isize)| route(component));
    let out =
        parts.inner.binary_frontier(rules.broadcast(), by_component, Pipeline, "Devices", move |capability, _| {
            let mut capability = Some(capability.delayed(&first));
            let mut inventory = Inventory::default();
            let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
            move |(parts, of_parts), (edited, of_edits), output| {
                parts.for_each(|_, data| {
                    for ((component, part), epoch, diff) in data.drain(..) {
                        waiting.entry(epoch).or_default().parts.entry(component).or_default().push((part, diff));
                    }
                });
                edited.for_each(|_, data| {
                    for (rules, epoch) in data.drain(..) {
                        waiting.entry(epoch).or_default().rules = Some(rules);
                    }
                });
                let upper = of_parts.frontier().iter().chain(of_edits.frontier().iter()).min().copied();
                let Some(held) = capability.as_mut() else { return };
                while let Some(entry) = waiting.first_entry().filter(|e| upper.is_none_or(|upper| *e.key() < upper)) {
                    let (epoch, Waiting { parts, rules }) = entry.remove_entry();
                    held.downgrade(&epoch);
                    let mut session = output.session(held);
                    inventory.step(parts, rules.map(|rules| Rules::new(&rules)), |was, is| {
                        if was != is {
                            session.give_iterator(was.map(|was| (Arc::new(was), epoch, -1)).into_iter());
                            session.give_iterator(is.map(|is| (Arc::new(is), epoch, 1)).into_iter());
                        }
                    });
                }
                match upper {
                    Some(upper) => held.downgrade(&upper.max(first)),
                    None => capability = None,
                }
            }
        });
    Outputs { devices: out.as_collection() }
}
