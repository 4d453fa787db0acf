//! Who looks at what: from profiles, their members and the agents of a site to what each agent is told.
//!
//! ```text
//! profile ─► members (devices whose rows its condition holds of, a group's, hosts that are named; less exclusions)
//! members × agents of the partition ─► assigned ─► a configuration an agent, a job a profile and agent
//! ```
//! Targets go to agents of their own partition, never another. Of profiles of one kind the one of greatest priority has a
//! target. What an executor cannot do it is not sent, and the job says so:
//!
//! | executor | ping, tcp | http, dns, tls | sweep | cron, pauses | some targets at once |
//! |---|---|---|---|---|---|
//! | ours (`radarflow agent`: it has the capability `probes`) | any address, and names | yes | no | yes | yes |
//! | ServiceRadar's (capability `sweep`) | as a sweep of IPv4 addresses | no | IPv4 | no | no |

pub mod assign;
pub mod explain;
pub mod known;
pub mod profile;
pub mod run;
pub mod timetable;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use radarflow_proto::payload::{AgentJob, DnsLook, HttpLook, Timetable};
use radarflow_proto::rows::Agent;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use self::profile::{Assignment, Kind, MAX_HOSTS, Member, Profile};

/// Targets of one profile in one agent's configuration at most.
pub const MAX_TARGETS: usize = 20_000;
/// Bytes of a configuration at most: agents take messages of 4 MiB.
pub const MAX_CONTENT: usize = 3 << 20;
/// Seconds between heartbeats that agents are asked for.
pub const HEARTBEAT_S: u64 = 30;
/// Says that an agent is ours: it takes `jobs`.
pub const OURS: &str = "probes";
/// Says that an agent is ServiceRadar's, which sweeps.
pub const SWEEPS: &str = "sweep";

/// An agent, as far as what it is told hangs on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentFacts {
    /// Its id.
    pub id: String,
    /// Whether it is heard.
    pub connected: bool,
    /// What it can do.
    pub capabilities: Vec<String>,
}

impl AgentFacts {
    /// Of an agent's row.
    pub fn of(agent: &Agent) -> Self {
        AgentFacts {
            id: agent.agent_id.clone(),
            connected: agent.state == "connected",
            capabilities: agent.capabilities.clone(),
        }
    }

    fn has(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|known| known == capability)
    }

    /// Whether it is ours.
    pub fn is_ours(&self) -> bool {
        self.has(OURS)
    }

    /// Whether it can do what a profile wants, at targets that are IPv4 addresses or at others.
    ///
    /// # Errors
    /// Why not.
    pub fn can(&self, profile: &Profile, v4: bool) -> Result<(), String> {
        let kind = profile.kind;
        if self.is_ours() {
            return match kind.capability() {
                Some(capability) if self.has(capability) => Ok(()),
                Some(capability) => Err(format!("it lacks the capability {capability}")),
                None => Err(format!("radarflow agent does not {}", kind.name())),
            };
        }
        if profile.cron.is_some() || !profile.pause_during.is_empty() {
            return Err("ServiceRadar's agent knows intervals only, no cron expressions and no pauses".to_owned());
        }
        match kind {
            Kind::Ping | Kind::Tcp | Kind::Sweep if !self.has(SWEEPS) => {
                Err(format!("it lacks the capability {SWEEPS}"))
            }
            Kind::Ping | Kind::Tcp | Kind::Sweep if !v4 => {
                Err("ServiceRadar's agent is sent IPv4 addresses only".to_owned())
            }
            Kind::Ping | Kind::Tcp | Kind::Sweep => Ok(()),
            Kind::Http | Kind::Dns | Kind::Tls => Err(format!("ServiceRadar's agent has no {}", kind.name())),
        }
    }
}

/// What one agent does for one profile, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    /// The profile.
    pub profile: String,
    /// Names the job in configurations and results.
    pub job: String,
    /// The agent; empty where there is none.
    pub agent_id: String,
    /// Targets that it has, or that it cannot look at.
    pub targets: usize,
    /// When it is done.
    pub timetable: Timetable,
    /// Why it is not done.
    pub problem: Option<Problem>,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The executor cannot.
    Unsupported(String),
    /// There is nobody; that may change.
    Nobody(String),
    /// The executor cannot look at some of the targets; at the others it does.
    Partly(String),
}

/// What a site's agents have to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// By agent its configuration.
    pub contents: BTreeMap<String, Arc<str>>,
    /// By profile and agent.
    pub jobs: Vec<Planned>,
}

/// Names a job: the same for every agent, whatever else the profile says.
pub fn job_id(tenant: &str, profile: &str) -> String {
    uuid_of(&format!("{tenant}\0{profile}"))
}

/// A uuid that follows from a text.
fn uuid_of(text: &str) -> String {
    let digest = Sha256::digest(text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// What an agent does for a profile.
struct Share<'a> {
    profile: &'a Profile,
    targets: Vec<&'a str>,
}

/// Plans a partition: its profiles with their targets there, and its agents. A target is named by what agents are told.
pub fn plan(tenant: &str, partition: &str, profiles: &[(&Profile, &BTreeSet<String>)], agents: &[AgentFacts]) -> Plan {
    let mut plan = Plan::default();
    let mut shares: BTreeMap<&str, Vec<Share<'_>>> = agents.iter().map(|a| (a.id.as_str(), Vec::new())).collect();
    let mut order: Vec<&(&Profile, &BTreeSet<String>)> = profiles.iter().filter(|(p, _)| p.enabled).collect();
    order.sort_by_key(|(profile, _)| (-profile.priority, &profile.name));
    let mut claimed: BTreeMap<Kind, BTreeSet<&str>> = BTreeMap::new();
    for (profile, members) in order {
        let claimed = claimed.entry(profile.kind).or_default();
        let own: Vec<&str> = members.iter().map(String::as_str).filter(|target| claimed.insert(target)).collect();
        if !own.is_empty() {
            share(tenant, partition, profile, &own, agents, &mut shares, &mut plan.jobs);
        }
    }
    for agent in agents {
        let shares = shares.remove(agent.id.as_str()).unwrap_or_default();
        let content = content(tenant, agent, shares, &mut plan.jobs);
        plan.contents.insert(agent.id.clone(), content.into());
    }
    plan.jobs.sort();
    plan
}

/// Shares a profile's targets among the agents that it wants.
fn share<'a>(
    tenant: &str,
    partition: &str,
    profile: &'a Profile,
    targets: &[&'a str],
    agents: &[AgentFacts],
    shares: &mut BTreeMap<&str, Vec<Share<'a>>>,
    jobs: &mut Vec<Planned>,
) {
    let (v4, other): (Vec<&str>, Vec<&str>) =
        targets.iter().partition(|target| target.parse::<std::net::Ipv4Addr>().is_ok());
    let mut of: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
    let mut cannot: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    let mut nobody: (usize, String) = (0, String::new());
    for (is_v4, targets) in [(true, v4), (false, other)] {
        if targets.is_empty() {
            continue;
        }
        let mut able = Vec::new();
        for agent in agents {
            let wanted = match profile.assignment {
                Assignment::Listed => profile.agents.contains(&agent.id),
                Assignment::All => true,
                Assignment::Auto => agent.connected,
            };
            match agent.can(profile, is_v4) {
                _ if !wanted => {}
                Ok(()) => able.push(agent),
                // Whoever is chosen by what it can is no trouble where others can.
                Err(reason) => {
                    let told = cannot.entry(&agent.id).or_insert((0, reason));
                    told.0 += targets.len();
                }
            }
        }
        if able.is_empty() && profile.assignment == Assignment::Listed && !cannot.is_empty() {
            continue;
        }
        if able.is_empty() {
            let capability = profile.kind.capability().unwrap_or(SWEEPS);
            nobody =
                (nobody.0 + targets.len(), format!("no agent in partition {partition} with capability {capability}"));
            continue;
        }
        if profile.assignment == Assignment::Auto {
            cannot.clear();
            let hashes: Vec<u64> = targets.iter().map(|target| assign::hash(target)).collect();
            let agents: Vec<u64> = able.iter().map(|agent| assign::hash(&agent.id)).collect();
            let assigned = assign::assign(&hashes, &agents, MAX_TARGETS);
            for (target, agent) in targets.iter().zip(&assigned) {
                match agent {
                    Some(agent) => of.entry(&able[*agent].id).or_default().push(target),
                    None => nobody = (nobody.0 + 1, format!("an agent takes {MAX_TARGETS} targets at most")),
                }
            }
        } else {
            for agent in able {
                let own = of.entry(&agent.id).or_default();
                let room = MAX_TARGETS.saturating_sub(own.len()).min(targets.len());
                own.extend(&targets[..room]);
                if room < targets.len() {
                    let reason = format!("an agent takes {MAX_TARGETS} targets at most");
                    cannot.insert(&agent.id, (targets.len() - room, reason));
                }
            }
        }
    }
    let (job, timetable) = (job_id(tenant, &profile.name), profile.timetable());
    let planned = |agent_id: &str, targets, problem| Planned {
        profile: profile.name.clone(),
        job: job.clone(),
        agent_id: agent_id.to_owned(),
        targets,
        timetable: timetable.clone(),
        problem,
    };
    if nobody.0 > 0 {
        jobs.push(planned("", nobody.0, Some(Problem::Nobody(nobody.1))));
    }
    for (agent, (targets, reason)) in &cannot {
        if !of.contains_key(agent) && profile.assignment == Assignment::Listed {
            jobs.push(planned(agent, *targets, Some(Problem::Unsupported(reason.clone()))));
        }
    }
    for (agent, mut targets) in of {
        targets.sort_unstable();
        let left = cannot.get(agent).map(|(left, why)| Problem::Partly(format!("{left} targets are left out: {why}")));
        jobs.push(planned(agent, targets.len(), left));
        if let Some(shares) = shares.get_mut(agent) {
            shares.push(Share { profile, targets });
        }
    }
}

/// What an agent is told. What would make it too long is left out, the least important first, and told.
fn content(tenant: &str, agent: &AgentFacts, mut shares: Vec<Share<'_>>, jobs: &mut [Planned]) -> String {
    loop {
        let text = if agent.is_ours() { ours(tenant, &shares) } else { serviceradar(tenant, agent, &shares) };
        if text.len() <= MAX_CONTENT {
            return text;
        }
        let Some(dropped) = shares.pop() else { return text };
        let of = |job: &&mut Planned| job.agent_id == agent.id && job.profile == dropped.profile.name;
        if let Some(job) = jobs.iter_mut().find(of) {
            let reason = format!("its configuration would be longer than {MAX_CONTENT} bytes");
            job.problem = Some(Problem::Unsupported(reason));
        }
    }
}

fn ours(tenant: &str, shares: &[Share<'_>]) -> String {
    let jobs: Vec<AgentJob> = shares
        .iter()
        .map(|Share { profile, targets }| AgentJob {
            job: job_id(tenant, &profile.name),
            profile: profile.name.clone(),
            kind: profile.kind.name().to_owned(),
            timetable: profile.timetable(),
            timeout_ms: profile.timeout_ms.unsigned_abs(),
            count: profile.attempts,
            ports: profile.ports.clone(),
            http: (profile.kind == Kind::Http).then(|| HttpLook {
                tls: profile.tls,
                path: profile.url_path.clone(),
                expected: profile.expected.clone(),
                body_pattern: profile.body_pattern.clone(),
                redirects: profile.redirects,
            }),
            dns: (profile.kind == Kind::Dns).then(|| DnsLook {
                name: profile.query_name.clone().unwrap_or_default(),
                record_type: profile.record_type.clone(),
            }),
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        })
        .collect();
    json!({"heartbeat_interval_sec": HEARTBEAT_S, "jobs": jobs}).to_string()
}

/// Everything as sweeps, which is what that agent can do rightly. It sees changes by `config_hash`; without groups it has to
/// be told so, because what is not named stays.
fn serviceradar(tenant: &str, agent: &AgentFacts, shares: &[Share<'_>]) -> String {
    if !agent.has(SWEEPS) {
        return json!({"heartbeat_interval_sec": HEARTBEAT_S}).to_string();
    }
    let group = |Share { profile, targets }: &Share<'_>| {
        let modes: &[&str] = match profile.kind {
            Kind::Tcp => &["tcp"],
            Kind::Sweep if !profile.ports.is_empty() => &["icmp", "tcp"],
            _ => &["icmp"],
        };
        let targets: Vec<String> = targets.iter().map(|target| format!("{target}/32")).collect();
        let id = job_id(tenant, &profile.name);
        json!({
            "id": id, "sweep_group_id": id, "targets": targets, "ports": profile.ports, "modes": modes,
            "schedule": {"type": "interval", "interval": format!("{}s", profile.interval_s)},
            "settings": {"concurrency": 50, "timeout": format!("{}ms", profile.timeout_ms)},
        })
    };
    let groups: Vec<Value> = shares.iter().map(group).collect();
    let hash = hex::encode(Sha256::digest(json!(groups).to_string()));
    json!({
        "heartbeat_interval_sec": HEARTBEAT_S,
        "agent_id": agent.id,
        "sweep": {"config_hash": hash, "groups": groups},
    })
    .to_string()
}

#[cfg(test)]
mod tests;
