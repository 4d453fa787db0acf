//! A run: a profile done at once, because somebody asks. What it means for an agent follows from what the agent was told to do last.

use std::collections::BTreeSet;

use radarflow_proto::payload::{AgentJob, RunJob};
use radarflow_proto::resource::Taken;
use serde::Deserialize;
use serde_json::json;

use super::{AgentFacts, Plan, Problem, uuid_of};

/// What our own agent is told.
pub const RUN: &str = "radarflow.run";
/// What ServiceRadar's agent is told.
pub const SWEEP: &str = "sweep.run_group";

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Names it.
    pub id: String,
    /// The profile.
    pub profile: String,
    /// Targets; none for all.
    pub targets: BTreeSet<String>,
    /// Agents; none for all.
    pub agents: BTreeSet<String>,
    /// Until when it must have begun, milliseconds after it was asked.
    pub ttl_ms: i64,
    /// Who asked.
    pub by: String,
    /// When, microseconds since 1970.
    pub at_us: i64,
}

/// Names what a command of somebody has done at once. The same command again is the same run.
pub fn run_id(tenant: &str, command_id: &str, epoch: u64, operation: usize) -> String {
    uuid_of(&format!("run\0{tenant}\0{command_id}\0{epoch}\0{operation}"))
}

impl Run {
    /// Of a step that was taken; `None` where it is another step.
    pub fn of(taken: &Taken) -> Option<Self> {
        let profile = &taken.resource;
        if taken.action != "run" {
            return None;
        }
        let said = radarflow_proto::resource::Resource { fields: taken.fields.clone(), ..(**profile).clone() };
        Some(Run {
            id: run_id(&profile.tenant, &taken.command_id, taken.epoch, taken.operation),
            profile: profile.id.clone(),
            targets: said.texts("targets").into_iter().map(|target| target.trim().to_ascii_lowercase()).collect(),
            agents: said.texts("agents").into_iter().collect(),
            ttl_ms: said.number("ttl_s").unwrap_or(60) * 1000,
            by: taken.by.clone(),
            at_us: taken.at_us,
        })
    }
}

/// What one agent is to do at once, or why it is not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// Names it.
    pub command_id: String,
    /// The agent; empty where there is none.
    pub agent_id: String,
    /// What it is told to do.
    pub command_type: String,
    /// What it is told beside, JSON.
    pub payload: String,
    /// Targets that it has, of those that were asked for.
    pub targets: usize,
    /// Why it is not done.
    pub refused: Option<String>,
}

/// The jobs of an agent, of what it was told.
#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    jobs: Vec<AgentJob>,
}

/// The targets that an agent of ours has of a job.
pub fn targets_of(content: &str, job: &str) -> Vec<String> {
    let content: Content = serde_json::from_str(content).unwrap_or(Content { jobs: Vec::new() });
    content.jobs.into_iter().find(|known| known.job == job).map(|job| job.targets).unwrap_or_default()
}

/// What a run means in a partition, as it is planned there.
pub fn orders(tenant: &str, partition: &str, run: &Run, plan: &Plan, agents: &[AgentFacts]) -> Vec<Order> {
    let mut orders = Vec::new();
    let of_profile = plan.jobs.iter().filter(|job| job.profile == run.profile);
    for job in of_profile.filter(|job| run.agents.is_empty() || run.agents.contains(&job.agent_id)) {
        let order = |command_type: &str, payload: String, targets, refused| Order {
            command_id: command_id(tenant, partition, run, &job.agent_id),
            agent_id: job.agent_id.clone(),
            command_type: command_type.to_owned(),
            payload,
            targets,
            refused,
        };
        let ours = agents.iter().any(|agent| agent.id == job.agent_id && agent.is_ours());
        let command_type = if ours || job.agent_id.is_empty() { RUN } else { SWEEP };
        if let Some(Problem::Unsupported(why) | Problem::Nobody(why)) = &job.problem {
            // Whether it has any of these targets nobody can say: it has none that it could look at.
            if run.targets.is_empty() {
                orders.push(order(command_type, String::new(), job.targets, Some(why.clone())));
            }
            continue;
        }
        if command_type == SWEEP {
            let part = "ServiceRadar's agent sweeps a whole group, not some of its targets";
            let refused = (!run.targets.is_empty()).then(|| part.to_owned());
            let payload = json!({"sweep_group_id": job.job}).to_string();
            orders.push(order(SWEEP, payload, job.targets, refused));
            continue;
        }
        let mut told = RunJob { job: job.job.clone(), targets: Vec::new() };
        let mut targets = job.targets;
        if !run.targets.is_empty() {
            let content = plan.contents.get(&job.agent_id).map(|content| &**content).unwrap_or_default();
            told.targets = targets_of(content, &job.job);
            told.targets.retain(|target| run.targets.contains(target));
            targets = told.targets.len();
        }
        if targets > 0 {
            orders.push(order(RUN, json!(told).to_string(), targets, None));
        }
    }
    orders
}

/// Names a command.
fn command_id(tenant: &str, partition: &str, run: &Run, agent_id: &str) -> String {
    uuid_of(&format!("command\0{tenant}\0{partition}\0{}\0{agent_id}", run.id))
}

/// What is said of a run of which nobody has anything to do.
pub fn nobody(tenant: &str, partition: &str, run: &Run) -> Order {
    let why = match (run.targets.is_empty(), run.agents.is_empty()) {
        (true, true) => "the profile has no targets",
        (false, _) => "no agent that can has any of these targets for this profile",
        (true, false) => "none of these agents has a target of this profile",
    };
    Order {
        command_id: command_id(tenant, partition, run, ""),
        agent_id: String::new(),
        command_type: RUN.to_owned(),
        payload: String::new(),
        targets: 0,
        refused: Some(why.to_owned()),
    }
}
