//! Plans: each tenant's in one place. An epoch computes again the partitions in which something changed that matters: a target
//! that comes or goes, a profile, an agent that is connected, lost, or able to do something else.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::ports::AgentConfiguration;
use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::{Agent, Device, Table};
use radarflow_reconcile::jobs::{AgentFacts, Member, Plan, Planned, Problem, Profile, job_id, plan};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;

use super::settle::JobKey;
use crate::collection::{Events, Rel};
use crate::keyed::{Context, route};

/// What plans say.
#[derive(Clone)]
pub(super) enum PlanOut {
    /// An agent has another configuration.
    Configuration(AgentConfiguration),
    /// An agent has something else to do for a profile; `None` where it has nothing to do any more.
    Planned(JobKey, Option<Planned>),
}

/// What plans are made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
enum Part {
    Resource(Arc<Resource>),
    Device(Arc<Device>),
    Agent(Arc<Agent>),
}

impl Part {
    fn tenant(&self) -> &str {
        match self {
            Part::Resource(resource) => &resource.tenant,
            Part::Device(device) => &device.tenant_id,
            Part::Agent(agent) => &agent.tenant_id,
        }
    }
}

/// A profile and what it is about.
struct Known {
    /// The profile, or why it cannot be followed.
    profile: Result<Profile, String>,
    /// Where it is told that it cannot be followed.
    home: String,
    /// By partition its devices: what agents are told of each, by uid.
    members: BTreeMap<String, BTreeMap<String, String>>,
}

impl Known {
    fn of(resource: &Resource) -> Self {
        let profile = Profile::of(resource).map_err(|(field, why)| format!("{field}: {why}"));
        let home = resource.text("site").unwrap_or("default").to_owned();
        Known { profile, home, members: BTreeMap::new() }
    }

    /// Takes in a device as it is; tells whether anything changed.
    fn member(&mut self, groups: &Groups, device: &Device, gone: bool) -> bool {
        let Ok(profile) = &self.profile else { return false };
        let group = profile.device_group.as_ref().and_then(|name| groups.get(name)?.as_ref().ok());
        let target = if gone { None } else { profile.member(device, group) };
        let of = self.members.entry(device.partition.clone()).or_default();
        match target {
            Some(target) if of.get(&device.uid) == Some(&target) => false,
            Some(target) => {
                of.insert(device.uid.clone(), target);
                true
            }
            None => of.remove(&device.uid).is_some(),
        }
    }

    /// Why it cannot be followed.
    fn problem(&self, groups: &Groups) -> Option<String> {
        let profile = match &self.profile {
            Ok(profile) => profile,
            Err(why) => return Some(why.clone()),
        };
        let name = profile.device_group.as_ref()?;
        match groups.get(name) {
            Some(Ok(_)) => None,
            Some(Err(why)) => Some(format!("the condition of {name} cannot be followed: {why}")),
            None => Some(format!("there is no device group {name}")),
        }
    }

    /// What is looked at in a partition.
    fn targets(&self, partition: &str) -> BTreeSet<String> {
        let Ok(profile) = &self.profile else { return BTreeSet::new() };
        let devices = self.members.get(partition).into_iter().flat_map(|of| of.values());
        let hosts = (profile.site.as_deref() == Some(partition)).then(|| profile.own_hosts()).into_iter().flatten();
        devices.chain(hosts).cloned().collect()
    }

    /// Where it is planned.
    fn partitions(&self) -> impl Iterator<Item = &String> {
        self.members.keys().chain([&self.home])
    }
}

/// By name, or why a group cannot be followed.
type Groups = BTreeMap<String, Result<Member, String>>;

/// A tenant's.
#[derive(Default)]
struct Tenant {
    devices: BTreeMap<(String, String), Arc<Device>>,
    profiles: BTreeMap<String, Known>,
    groups: Groups,
    /// By partition.
    agents: BTreeMap<String, BTreeMap<String, AgentFacts>>,
    /// By partition, as last said.
    plans: BTreeMap<String, Plan>,
}

impl Tenant {
    /// Takes in what changed at an epoch; tells which partitions are to be planned again.
    fn take(&mut self, parts: Vec<(Part, isize)>) -> BTreeSet<String> {
        let mut net: BTreeMap<Part, isize> = BTreeMap::new();
        for (part, diff) in parts {
            *net.entry(part).or_default() += diff;
        }
        let mut dirty = BTreeSet::new();
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
                        of.insert(agent.agent_id.clone(), facts(&agent));
                    } else {
                        of.remove(&agent.agent_id);
                    }
                }
                Part::Device(device) => {
                    let key = (device.partition.clone(), device.uid.clone());
                    devices.insert(key, (device, diff > 0));
                }
                Part::Resource(resource) => self.resource(&resource, diff > 0, &mut anew, &mut dirty),
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
        dirty
    }

    fn resource(
        &mut self,
        resource: &Arc<Resource>,
        is: bool,
        anew: &mut BTreeSet<String>,
        dirty: &mut BTreeSet<String>,
    ) {
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
                known.members.clear();
                anew.insert(name.clone());
            }
            return;
        }
        if let Some(known) = self.profiles.remove(&resource.id) {
            dirty.extend(known.partitions().cloned());
        }
        anew.remove(&resource.id);
        if is {
            self.profiles.insert(resource.id.clone(), Known::of(resource));
            anew.insert(resource.id.clone());
        }
    }

    /// Plans a partition again; says what is otherwise.
    fn plan(&mut self, tenant: &str, partition: &str, out: &mut Vec<PlanOut>) {
        let targets: Vec<(&Profile, BTreeSet<String>)> = self
            .profiles
            .values()
            .filter_map(|known| Some((known.profile.as_ref().ok()?, known.targets(partition))))
            .filter(|(_, targets)| !targets.is_empty())
            .collect();
        let profiles: Vec<(&Profile, &BTreeSet<String>)> = targets.iter().map(|(p, targets)| (*p, targets)).collect();
        let agents: Vec<AgentFacts> =
            self.agents.get(partition).into_iter().flat_map(|of| of.values().cloned()).collect();
        let mut new = plan(tenant, partition, &profiles, &agents);
        for (name, known) in self.profiles.iter().filter(|(_, known)| known.home == partition) {
            let interval_s = known.profile.as_ref().map_or(60, |profile| profile.interval_s);
            let (profile, agent_id) = (name.clone(), String::new());
            new.jobs.extend(known.problem(&self.groups).map(|why| Planned {
                job: job_id(tenant, name),
                profile,
                agent_id,
                targets: 0,
                interval_s,
                problem: Some(Problem::Unsupported(why)),
            }));
        }
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

fn facts(agent: &Agent) -> AgentFacts {
    AgentFacts {
        id: agent.agent_id.clone(),
        connected: agent.state == "connected",
        capabilities: agent.capabilities.clone(),
    }
}

/// Builds it.
pub(super) fn build<'scope>(
    cx: &Context,
    resources: Events<'scope, ResourceChange>,
    devices: Rel<'scope, Arc<Device>>,
    agents: Rel<'scope, Arc<Agent>>,
) -> Stream<'scope, u64, Vec<PlanOut>> {
    let read = [Table::Profile.name(), Table::DeviceGroup.name()];
    let resources = crate::collection::collected(
        resources.flat_map(move |ResourceChange { before, after }| {
            let changes = before.map(|before| (before, -1)).into_iter().chain(after.map(|after| (after, 1)));
            changes.filter(|(resource, _)| read.contains(&resource.resource.as_str())).collect::<Vec<_>>()
        }),
        |(resource, diff)| Some((Part::Resource(resource), diff)),
    );
    let parts = resources.concat(devices.map(Part::Device)).concat(agents.map(Part::Agent));
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
                    for partition in tenant.take(parts) {
                        tenant.plan(&name, &partition, &mut out);
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
