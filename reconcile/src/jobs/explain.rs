//! Why a profile looks at a target, by which agent, and when; or why it does not. It follows from what plans follow from: a function
//! of profiles, devices and agents as they stand.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::fact::Stage;
use radarflow_proto::rows::Device;
use serde_json::Value;

use super::assign::{hash, weight};
use super::known::{Groups, Known, planned};
use super::run::targets_of;
use super::timetable::Schedule;
use super::{AgentFacts, Assignment, Plan, Profile, job_id};
use crate::condition::address;

/// What stands of a tenant.
#[derive(Default)]
pub struct Standing {
    /// By name.
    pub profiles: BTreeMap<String, Known>,
    /// By name.
    pub groups: Groups,
    /// By partition.
    pub agents: BTreeMap<String, Vec<AgentFacts>>,
    /// The devices that are shown.
    pub devices: Vec<Device>,
}

/// An agent and a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentWhy {
    /// The agent.
    pub agent_id: String,
    /// Whether it looks.
    pub looks: bool,
    /// Why, or why not.
    pub why: String,
}

/// A target in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The partition.
    pub partition: String,
    /// What agents are told.
    pub target: String,
    /// Whether the profile is about it.
    pub is_member: bool,
    /// Why, or why not.
    pub because: String,
    /// Its agents there, each with its reason.
    pub agents: Vec<AgentWhy>,
    /// When it is looked at next, milliseconds since 1970.
    pub next_ms: Option<i64>,
}

/// Devices of one name that are explained: each takes a plan of its partition.
const MAX_FOUND: usize = 10;

impl Standing {
    /// Finds the members of all profiles.
    pub fn find_members(&mut self) {
        for known in self.profiles.values_mut() {
            known.forget_members();
            for device in &self.devices {
                known.member(&self.groups, device, false);
            }
        }
    }

    /// What is planned in a partition.
    pub fn plan(&self, tenant: &str, partition: &str) -> Plan {
        planned(tenant, partition, &self.profiles, &self.groups, self.agents(partition))
    }

    fn agents(&self, partition: &str) -> &[AgentFacts] {
        self.agents.get(partition).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every partition that there is something of.
    pub fn partitions(&self) -> BTreeSet<String> {
        let of_profiles = self.profiles.values().flat_map(|known| known.partitions().cloned());
        of_profiles.chain(self.agents.keys().cloned()).collect()
    }

    /// Why a profile looks at something, or does not, in each partition where there is anything of that name: the uid of a device, its
    /// address, its name, or a host that the profile names. `None` where there is no such profile.
    pub fn explain(&self, tenant: &str, profile: &str, asked: &str, now_ms: i64) -> Option<Vec<Why>> {
        let known = self.profiles.get(profile)?;
        let asked = asked.trim();
        let plain = address(asked).map_or_else(|| asked.to_ascii_lowercase(), |ip| ip.to_string());
        let of_device = |device: &&Device| {
            device.uid == asked
                || device.ip.as_deref().and_then(address).is_some_and(|ip| ip.to_string() == plain)
                || device.ip_addresses.contains(&plain)
                || device.hostname.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(asked))
        };
        let mut all: Vec<Why> = self
            .devices
            .iter()
            .filter(of_device)
            .take(MAX_FOUND)
            .map(|device| self.of_device(tenant, known, device, &plain))
            .collect();
        if let Ok(of) = &known.profile
            && let Some(site) = &of.site
            && of.hosts.contains(&plain)
        {
            let is_member = of.own_hosts().any(|host| *host == plain);
            let because = match is_member {
                true => "the profile names it".to_owned(),
                false => "the profile names it, and excludes it".to_owned(),
            };
            all.push(self.of_target(tenant, of, site, &plain, is_member, because));
        }
        if all.is_empty() {
            let because = match (&known.profile, known.problem(&self.groups)) {
                (_, Some(why)) => format!("the profile cannot be followed: {why}"),
                (Ok(of), None) if of.hosts.contains(&plain) => "the profile names it, and no site".to_owned(),
                _ => "there is no device of that uid, address or name, and the profile does not name it".to_owned(),
            };
            let (partition, target) = (known.home.clone(), plain);
            all.push(Why { partition, target, is_member: false, because, agents: Vec::new(), next_ms: None });
        }
        if let Ok(of) = &known.profile {
            for why in all.iter_mut().filter(|why| why.agents.iter().any(|agent| agent.looks)) {
                why.next_ms = next_ms(tenant, of, &why.target, now_ms);
            }
        }
        Some(all)
    }

    fn of_device(&self, tenant: &str, known: &Known, device: &Device, plain: &str) -> Why {
        let no = |because: String| Why {
            partition: device.partition.clone(),
            target: plain.to_owned(),
            is_member: false,
            because,
            agents: Vec::new(),
            next_ms: None,
        };
        let of = match &known.profile {
            Ok(of) => of,
            Err(why) => return no(format!("the profile cannot be followed: {why}")),
        };
        let name = &device.display_name;
        let group = of.device_group.as_ref().and_then(|name| self.groups.get(name)?.as_ref().ok());
        if let Some(target) = of.member(device, group) {
            let because = match (&of.device_group, &of.condition) {
                (Some(group), _) => format!("device {name} is in {group}"),
                _ => format!("device {name} is like the profile's condition"),
            };
            let because = match target == plain || plain == device.uid {
                true => because,
                false => format!("{because}; it is looked at by the address that it shows, {target}"),
            };
            return self.of_target(tenant, of, &device.partition, &target, true, because);
        }
        if !of.covers(&device.partition) {
            return no(format!("the profile is about {} only", of.site.as_deref().unwrap_or_default()));
        }
        if device.deleted_at.is_some() || device.lifecycle == Stage::Decommissioned.name() {
            return no(format!(
                "device {name} is {}",
                if device.deleted_at.is_some() { "deleted" } else { "decommissioned" }
            ));
        }
        let Some(ip) = device.ip.as_deref().and_then(address) else {
            return no(format!("device {name} has no address"));
        };
        let like = match (&of.condition, group) {
            (Some(condition), _) => condition.holds(device),
            (None, Some(group)) => group.holds(device),
            _ => false,
        };
        no(match (like, known.problem(&self.groups)) {
            (_, Some(why)) => format!("the profile cannot be followed: {why}"),
            (true, None) => format!("the profile excludes device {name}, {ip}"),
            (false, None) if of.device_group.is_some() => format!("device {name} is not in the profile's group"),
            (false, None) if of.condition.is_some() => format!("device {name} is not like the profile's condition"),
            (false, None) => "the profile names hosts and no devices".to_owned(),
        })
    }

    fn of_target(
        &self,
        tenant: &str,
        of: &Profile,
        partition: &str,
        target: &str,
        is_member: bool,
        because: String,
    ) -> Why {
        let mut why = Why {
            partition: partition.to_owned(),
            target: target.to_owned(),
            is_member,
            because,
            agents: Vec::new(),
            next_ms: None,
        };
        if !is_member {
            return why;
        }
        if !of.enabled {
            why.because = format!("{}; but the profile is not enabled", why.because);
            return why;
        }
        let before = self.profiles.values().filter_map(|known| Some((known.profile.as_ref().ok()?, known)));
        let first = before
            .filter(|(other, known)| {
                other.enabled
                    && other.kind == of.kind
                    && (-other.priority, &other.name) < (-of.priority, &of.name)
                    && known.targets(partition).contains(target)
            })
            .min_by_key(|(other, _)| (-other.priority, other.name.clone()));
        if let Some((other, _)) = first {
            why.because = format!(
                "{}; but profile {} of the same kind has it: its priority is {}, this one's {}",
                why.because, other.name, other.priority, of.priority
            );
            return why;
        }
        let plan = self.plan(tenant, partition);
        let job = job_id(tenant, &of.name);
        let v4 = target.parse::<std::net::Ipv4Addr>().is_ok();
        let agents = self.agents(partition);
        let mut order: Vec<&AgentFacts> = agents.iter().collect();
        order.sort_by_key(|agent| std::cmp::Reverse(weight(hash(target), hash(&agent.id))));
        let mut able = 0;
        for agent in order {
            let content = plan.contents.get(&agent.id).map(|content| &**content).unwrap_or_default();
            let looks = has(content, &job, target);
            let can = agent.can(of, v4);
            let listed = of.assignment != Assignment::Listed || of.agents.contains(&agent.id);
            able += usize::from(can.is_ok() && listed && agent.connected);
            let said = match (&can, of.assignment) {
                (_, Assignment::Listed) if !listed => "the profile does not list it".to_owned(),
                (Err(why), _) => why.clone(),
                (Ok(()), Assignment::Auto) if !agent.connected => "it is not connected".to_owned(),
                (Ok(()), Assignment::Auto) if looks && able == 1 => {
                    "of those that can, the target weighs most here".to_owned()
                }
                (Ok(()), Assignment::Auto) if looks => {
                    "of those that can and had room, the target weighs most here".to_owned()
                }
                (Ok(()), Assignment::Auto) => "another has it".to_owned(),
                (Ok(()), Assignment::All) if looks => "every agent that can looks".to_owned(),
                (Ok(()), Assignment::Listed) if looks => "the profile lists it".to_owned(),
                (Ok(()), _) => "its configuration has no room for it".to_owned(),
            };
            let said = match looks && !agent.connected {
                true => format!("{said}; it is not connected now, and goes on with what it was told last"),
                false => said,
            };
            why.agents.push(AgentWhy { agent_id: agent.id.clone(), looks, why: said });
        }
        if !why.agents.iter().any(|agent| agent.looks) {
            let nobody = plan.jobs.iter().find(|job| job.profile == of.name && job.agent_id.is_empty());
            let said = match nobody.and_then(|job| job.problem.as_ref()) {
                Some(super::Problem::Nobody(why) | super::Problem::Unsupported(why) | super::Problem::Partly(why)) => {
                    why.clone()
                }
                None => "nobody looks".to_owned(),
            };
            why.because = format!("{}; but {said}", why.because);
        }
        why
    }
}

/// Whether an agent was told to look at a target for a job.
fn has(content: &str, job: &str, target: &str) -> bool {
    if targets_of(content, job).iter().any(|told| told == target) {
        return true;
    }
    let content: Value = serde_json::from_str(content).unwrap_or_default();
    let groups = content["sweep"]["groups"].as_array().into_iter().flatten();
    let network = format!("{target}/32");
    groups
        .filter(|group| group["id"] == job)
        .flat_map(|group| group["targets"].as_array().into_iter().flatten())
        .any(|told| told.as_str() == Some(&network))
}

/// When our agent looks at a target next: where in an interval, the hash of the look says.
fn next_ms(tenant: &str, of: &Profile, target: &str, now_ms: i64) -> Option<i64> {
    let schedule = Schedule::read(&of.timetable()).ok()?;
    let ports: Vec<u16> = if of.ports.is_empty() { vec![0] } else { of.ports.clone() };
    let job = job_id(tenant, &of.name);
    ports.iter().filter_map(|port| schedule.next_ms(phase_ms(&schedule, &job, target, *port), now_ms)).min()
}

/// Where in its interval a look is, milliseconds; a port of 0 is none.
pub fn phase_ms(schedule: &Schedule, job: &str, target: &str, port: u16) -> i64 {
    let interval_ms = schedule.interval_ms().unwrap_or(1).unsigned_abs();
    (hash(&format!("{job}/{target}/{port}")) % interval_ms.max(1)) as i64
}
