//! Profiles as they stand, each with the devices it is about; and what follows for a partition.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Device;

use super::{AgentFacts, Member, Plan, Planned, Problem, Profile, job_id, plan};

/// A profile and what it is about.
pub struct Known {
    /// The profile, or why it cannot be followed.
    pub profile: Result<Profile, String>,
    /// Where it is told that it cannot be followed.
    pub home: String,
    /// By partition its devices: what agents are told of each, by uid.
    members: BTreeMap<String, BTreeMap<String, String>>,
}

impl Known {
    /// Reads a profile that stands.
    pub fn of(resource: &Resource, intervals: &Intervals) -> Self {
        let mut profile = Profile::of(resource).map_err(|(field, why)| format!("{field}: {why}"));
        if let Ok(profile) = &mut profile {
            profile.pauses = pauses(profile, intervals);
        }
        let home = resource.text("site").unwrap_or("default").to_owned();
        Known { profile, home, members: BTreeMap::new() }
    }

    /// Takes in a device as it is; tells whether anything changed.
    pub fn member(&mut self, groups: &Groups, device: &Device, gone: bool) -> bool {
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

    /// Its members are to be found anew.
    pub fn forget_members(&mut self) {
        self.members.clear();
    }

    /// A time interval is another; tells whether it pauses by it.
    pub fn pause(&mut self, interval: &str, intervals: &Intervals) -> bool {
        let Ok(profile) = &mut self.profile else { return false };
        let is = profile.pause_during.iter().any(|name| name == interval);
        if is {
            profile.pauses = pauses(profile, intervals);
        }
        is
    }

    /// Why it cannot be followed.
    pub fn problem(&self, groups: &Groups) -> Option<String> {
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
    pub fn targets(&self, partition: &str) -> BTreeSet<String> {
        let Ok(profile) = &self.profile else { return BTreeSet::new() };
        let devices = self.members.get(partition).into_iter().flat_map(|of| of.values());
        let hosts = (profile.site.as_deref() == Some(partition)).then(|| profile.own_hosts()).into_iter().flatten();
        devices.chain(hosts).cloned().collect()
    }

    /// Where it is planned.
    pub fn partitions(&self) -> impl Iterator<Item = &String> {
        self.members.keys().chain([&self.home])
    }
}

/// By name, or why a group cannot be followed.
pub type Groups = BTreeMap<String, Result<Member, String>>;
/// By name the periods of time intervals.
pub type Intervals = BTreeMap<String, Vec<String>>;

/// Periods in which a profile pauses: agents have them all, and each look at a calendar goes through them.
pub const MAX_PAUSES: usize = 100;

/// The periods in which a profile pauses; of more than it may have, by a time interval that became longer, the first.
fn pauses(profile: &Profile, intervals: &Intervals) -> Vec<String> {
    let of = |name: &String| intervals.get(name).cloned().unwrap_or_default();
    profile.pause_during.iter().flat_map(of).take(MAX_PAUSES).collect()
}

/// Plans a partition: what its agents are told, and what each profile comes to there.
pub fn planned(
    tenant: &str,
    partition: &str,
    profiles: &BTreeMap<String, Known>,
    groups: &Groups,
    agents: &[AgentFacts],
) -> Plan {
    let targets: Vec<(&Profile, BTreeSet<String>)> = profiles
        .values()
        .filter_map(|known| Some((known.profile.as_ref().ok()?, known.targets(partition))))
        .filter(|(_, targets)| !targets.is_empty())
        .collect();
    let followed: Vec<(&Profile, &BTreeSet<String>)> = targets.iter().map(|(p, targets)| (*p, targets)).collect();
    let mut new = plan(tenant, partition, &followed, agents);
    for (name, known) in profiles.iter().filter(|(_, known)| known.home == partition) {
        let timetable = known.profile.as_ref().map(Profile::timetable).unwrap_or_default();
        let (profile, agent_id) = (name.clone(), String::new());
        new.jobs.extend(known.problem(groups).map(|why| Planned {
            job: job_id(tenant, name),
            profile,
            agent_id,
            targets: 0,
            timetable: timetable.clone(),
            problem: Some(Problem::Unsupported(why)),
        }));
    }
    new
}
