//! Plans: each tenant's in one place. An epoch computes again the partitions in which something changed that matters: a target
//! that comes or goes, a profile, an agent that is connected, lost, or able to do something else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::ports::AgentConfiguration;
use radarflow_proto::resource::{Resource, ResourceChange, Taken};
use radarflow_proto::rows::{Agent, Device, Table};
use radarflow_reconcile::jobs::known::{Groups, Intervals, Known, planned};
use radarflow_reconcile::jobs::run::{Run, nobody, orders};
use radarflow_reconcile::jobs::{AgentFacts, Member, Plan, Planned};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;

use super::commands::{Asked, CommandEvent};
use super::settle::JobKey;
use crate::collection::{Events, Rel};
use crate::keyed::{Context, Keyed, route};

/// What plans say.
#[derive(Clone)]
pub(super) enum PlanOut {
    /// An agent has another configuration.
    Configuration(AgentConfiguration),
    /// An agent has something else to do for a profile; `None` where it has nothing to do any more.
    Planned(JobKey, Option<Planned>),
    /// An agent is to do something at once, by tenant.
    Asked(Keyed<String, CommandEvent>),
}

/// What plans are made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
enum Part {
    Resource(Arc<Resource>),
    Device(Arc<Device>),
    Agent(Arc<Agent>),
    /// Somebody takes a step of a profile, at a place in the epoch.
    Taken(u64, Arc<Taken>),
}

impl Part {
    fn tenant(&self) -> &str {
        match self {
            Part::Resource(resource) => &resource.tenant,
            Part::Device(device) => &device.tenant_id,
            Part::Agent(agent) => &agent.tenant_id,
            Part::Taken(_, taken) => &taken.resource.tenant,
        }
    }
}

/// A tenant's.
#[derive(Default)]
struct Tenant {
    devices: BTreeMap<(String, String), Arc<Device>>,
    profiles: BTreeMap<String, Known>,
    groups: Groups,
    intervals: Intervals,
    /// By partition.
    agents: BTreeMap<String, BTreeMap<String, AgentFacts>>,
    /// By partition, as last said.
    plans: BTreeMap<String, Plan>,
}

impl Tenant {
    /// Takes in what changed at an epoch; tells which partitions are to be planned again, and what is to be done at once then.
    fn take(&mut self, parts: Vec<(Part, isize)>) -> (BTreeSet<String>, Vec<(u64, Run)>) {
        let mut net: BTreeMap<Part, isize> = BTreeMap::new();
        for (part, diff) in parts {
            *net.entry(part).or_default() += diff;
        }
        let (mut dirty, mut runs) = (BTreeSet::new(), Vec::new());
        let mut agents: BTreeMap<String, BTreeMap<String, AgentFacts>> = BTreeMap::new();
        let (mut anew, mut devices) = (BTreeSet::new(), BTreeMap::new());
        // What goes before what comes: a row that changes goes and comes.
        let (come, go): (Vec<_>, Vec<_>) = net.into_iter().filter(|(_, diff)| *diff != 0).partition(|(_, d)| *d > 0);
        for (part, diff) in go.into_iter().chain(come) {
            match part {
                Part::Agent(agent) => {
                    let of = self.agents.entry(agent.partition.clone()).or_default();
                    agents.entry(agent.partition.clone()).or_insert_with(|| of.clone());
                    if diff > 0 {
                        of.insert(agent.agent_id.clone(), AgentFacts::of(&agent));
                    } else {
                        of.remove(&agent.agent_id);
                    }
                }
                Part::Device(device) => {
                    let key = (device.partition.clone(), device.uid.clone());
                    devices.insert(key, (device, diff > 0));
                }
                Part::Resource(resource) => self.resource(&resource, diff > 0, &mut anew, &mut dirty),
                Part::Taken(position, taken) => runs.extend(Run::of(&taken).map(|run| (position, run))),
            }
        }
        for (key, (device, is)) in devices {
            for (name, known) in &mut self.profiles {
                if !anew.contains(name) && known.member(&self.groups, &device, !is) {
                    dirty.insert(device.partition.clone());
                }
            }
            if is {
                self.devices.insert(key, device);
            } else {
                self.devices.remove(&key);
            }
        }
        for name in anew {
            if let Some(known) = self.profiles.get_mut(&name) {
                for device in self.devices.values() {
                    known.member(&self.groups, device, false);
                }
                dirty.extend(known.partitions().cloned());
            }
        }
        // Most of what agents say of themselves changes nothing of what they are told.
        dirty.extend(agents.into_iter().filter(|(at, was)| self.agents.get(at) != Some(was)).map(|(at, _)| at));
        (dirty, runs)
    }

    /// What a run means for each agent, as it is planned now.
    fn run(&self, tenant: &str, position: u64, run: &Run, out: &mut Vec<PlanOut>) {
        let mut all = Vec::new();
        for (partition, plan) in &self.plans {
            let agents: Vec<AgentFacts> =
                self.agents.get(partition).into_iter().flat_map(|of| of.values().cloned()).collect();
            let orders = orders(tenant, partition, run, plan, &agents);
            all.extend(orders.into_iter().map(|order| (partition.as_str(), order)));
        }
        if all.is_empty() {
            let home = self.profiles.get(&run.profile).map_or("default", |known| known.home.as_str());
            all.push((home, nobody(tenant, home, run)));
        }
        out.extend(all.into_iter().map(|(partition, order)| {
            let event = CommandEvent::Asked(Asked::new(partition, run, order).into());
            PlanOut::Asked(Keyed { key: tenant.to_owned(), position, event })
        }));
    }

    fn resource(
        &mut self,
        resource: &Arc<Resource>,
        is: bool,
        anew: &mut BTreeSet<String>,
        dirty: &mut BTreeSet<String>,
    ) {
        if resource.resource == Table::TimeInterval.name() {
            if is {
                self.intervals.insert(resource.id.clone(), resource.texts("periods"));
            } else {
                self.intervals.remove(&resource.id);
            }
            for known in self.profiles.values_mut() {
                if known.pause(&resource.id, &self.intervals) {
                    dirty.extend(known.partitions().cloned());
                }
            }
            return;
        }
        if resource.resource == Table::DeviceGroup.name() {
            if is {
                self.groups.insert(resource.id.clone(), Member::of(resource));
            } else {
                self.groups.remove(&resource.id);
            }
            let of =
                |known: &Known| known.profile.as_ref().is_ok_and(|p| p.device_group.as_ref() == Some(&resource.id));
            for (name, known) in self.profiles.iter_mut().filter(|(_, known)| of(known)) {
                dirty.extend(known.partitions().cloned());
                known.forget_members();
                anew.insert(name.clone());
            }
            return;
        }
        if let Some(known) = self.profiles.remove(&resource.id) {
            dirty.extend(known.partitions().cloned());
        }
        anew.remove(&resource.id);
        if is {
            self.profiles.insert(resource.id.clone(), Known::of(resource, &self.intervals));
            anew.insert(resource.id.clone());
        }
    }

    /// Plans a partition again; says what is otherwise.
    fn plan(&mut self, tenant: &str, partition: &str, out: &mut Vec<PlanOut>) {
        let agents: Vec<AgentFacts> =
            self.agents.get(partition).into_iter().flat_map(|of| of.values().cloned()).collect();
        let new = planned(tenant, partition, &self.profiles, &self.groups, &agents);
        let old = self.plans.get(partition);
        let none = BTreeMap::new();
        let was = old.map_or(&none, |old| &old.contents);
        let configuration = |agent_id: &String, content: Option<&Arc<str>>| {
            PlanOut::Configuration(AgentConfiguration {
                tenant: tenant.to_owned(),
                partition: partition.to_owned(),
                agent_id: agent_id.clone(),
                content: content.cloned(),
            })
        };
        out.extend(was.keys().filter(|id| !new.contents.contains_key(*id)).map(|id| configuration(id, None)));
        let others = new.contents.iter().filter(|(id, content)| was.get(*id) != Some(*content));
        out.extend(others.map(|(id, content)| configuration(id, Some(content))));
        let by_key = |plan: &Plan| -> BTreeMap<JobKey, Planned> {
            let key = |job: &Planned| JobKey {
                tenant: tenant.to_owned(),
                partition: partition.to_owned(),
                job: job.job.clone(),
                agent_id: job.agent_id.clone(),
            };
            plan.jobs.iter().map(|job| (key(job), job.clone())).collect()
        };
        let (before, after) = (old.map(by_key).unwrap_or_default(), by_key(&new));
        out.extend(
            before.keys().filter(|key| !after.contains_key(*key)).map(|key| PlanOut::Planned(key.clone(), None)),
        );
        let others = after.into_iter().filter(|(key, planned)| before.get(key) != Some(planned));
        out.extend(others.map(|(key, planned)| PlanOut::Planned(key, Some(planned))));
        if new.contents.is_empty() && new.jobs.is_empty() {
            self.plans.remove(partition);
        } else {
            self.plans.insert(partition.to_owned(), new);
        }
    }
}

/// Builds it.
pub(super) fn build<'scope>(
    cx: &Context,
    resources: Events<'scope, ResourceChange>,
    devices: Rel<'scope, Arc<Device>>,
    agents: Rel<'scope, Arc<Agent>>,
    taken: Events<'scope, (u64, Arc<Taken>)>,
) -> Stream<'scope, u64, Vec<PlanOut>> {
    let read = [Table::Profile.name(), Table::DeviceGroup.name(), Table::TimeInterval.name()];
    let resources = crate::collection::collected(
        resources.flat_map(move |ResourceChange { before, after }| {
            let changes = before.map(|before| (before, -1)).into_iter().chain(after.map(|after| (after, 1)));
            changes.filter(|(resource, _)| read.contains(&resource.resource.as_str())).collect::<Vec<_>>()
        }),
        |(resource, diff)| Some((Part::Resource(resource), diff)),
    );
    let taken = crate::collection::collected(taken, |(position, taken)| Some((Part::Taken(position, taken), 1)));
    let parts = resources.concat(devices.map(Part::Device)).concat(agents.map(Part::Agent)).concat(taken);
    let first = cx.restored;
    let by_tenant = Exchange::new(|(part, _, _): &(Part, u64, isize)| route(part.tenant()));
    parts.inner.unary_frontier(by_tenant, "Plans", move |capability, _| {
        let mut capability = Some(capability.delayed(&first));
        let mut tenants: BTreeMap<String, Tenant> = BTreeMap::new();
        let mut waiting: BTreeMap<u64, BTreeMap<String, Vec<(Part, isize)>>> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|_, data| {
                for (part, epoch, diff) in data.drain(..) {
                    let of = waiting.entry(epoch).or_default();
                    of.entry(part.tenant().to_owned()).or_default().push((part, diff));
                }
            });
            let upper = frontier.frontier().first().copied();
            let Some(held) = capability.as_mut() else { return };
            while let Some(entry) = waiting.first_entry().filter(|e| upper.is_none_or(|upper| *e.key() < upper)) {
                let (epoch, parts) = entry.remove_entry();
                held.downgrade(&epoch.max(first));
                let mut out = Vec::new();
                for (name, parts) in parts {
                    let tenant = tenants.entry(name.clone()).or_default();
                    let (dirty, runs) = tenant.take(parts);
                    for partition in dirty {
                        tenant.plan(&name, &partition, &mut out);
                    }
                    for (position, run) in runs {
                        tenant.run(&name, position, &run, &mut out);
                    }
                }
                output.session(held).give_iterator(out.into_iter());
            }
            match upper {
                Some(upper) => held.downgrade(&upper.max(first)),
                None => capability = None,
            }
        }
    })
}
