//! Who looks at what, and how it goes.
//!
//! ```text
//! profiles, groups ─┐
//! devices ──────────┼─► [plans: a tenant in one place] ─┬─► configuration(agent), whenever it is another
//! agents ───────────┘                                   └─► planned(profile, agent) Δ ─┐
//! results of probes, counted a job ────────────────────────────────────────────────────┴─► [jobs] ─► rows Δ, conditions Δ
//!
//! a run that is asked for ─► [plans] ─► a command an agent ─┐
//! connections of agents, and what they say by them ─────────┴─► [commands: a tenant's in one place] ─► rows Δ, to the gateway
//! ```
//! What is planned is a function of its inputs alone ([`radarflow_reconcile::jobs`]) and is recomputed at a restart. How a job
//! goes is a machine: its results are remembered as counts, bounded a profile and agent and not a target.

mod commands;
mod plans;
mod settle;

use std::sync::Arc;

use radarflow_proto::ports::{AgentCommand, AgentConfiguration};
use radarflow_proto::resource::{ResourceChange, Taken};
use radarflow_proto::rows::{Agent, Device, StateRow, Table};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::alerts::Conditions;
use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, machine};
use crate::output::DerivedRow;
pub use commands::{COMMAND_BYTES, CommandEvent, MAX_COMMANDS, MAX_OPEN, RESULT_MS, Word};
use commands::{CommandOut, Commands};
use plans::PlanOut;
pub(crate) use settle::jobs_with_timetables;
pub use settle::{GRACE_MS, JobEvent, JobKey, Tally};
use settle::{JobOut, Jobs};

/// What jobs are made of.
pub struct Inputs<'scope> {
    /// What became of resources: profiles and groups of devices are read of them.
    pub resources: Events<'scope, ResourceChange>,
    /// Devices, as they are shown.
    pub devices: Rel<'scope, Arc<Device>>,
    /// Agents, as they are shown.
    pub agents: Rel<'scope, Arc<Agent>>,
    /// What agents found, counted by job.
    pub results: Events<'scope, Keyed<JobKey, JobEvent>>,
    /// Steps of resources that were taken: runs and their end are read of them.
    pub taken: Events<'scope, (u64, Arc<Taken>)>,
    /// What gateways and agents say of commands, by tenant.
    pub words: Events<'scope, Keyed<String, CommandEvent>>,
}

/// What comes of them.
pub struct Outputs<'scope> {
    /// Configurations that are others now.
    pub configurations: Events<'scope, AgentConfiguration>,
    /// What the gateway has to know of commands.
    pub commands: Events<'scope, AgentCommand>,
    /// Rows of the tables of jobs and commands.
    pub rows: Rel<'scope, StateRow>,
    /// Jobs that are missed.
    pub conditions: Conditions<'scope>,
    /// Health events.
    pub events: Events<'scope, DerivedRow>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let profiles = inputs.taken.flat_map(|(at, taken)| {
        let is = taken.resource.resource == Table::Profile.name();
        is.then_some((at, taken))
    });
    let plans = plans::build(cx, inputs.resources, inputs.devices, inputs.agents, profiles.clone());
    let ends = profiles.flat_map(|(position, taken)| {
        let event = CommandEvent::cancelled(&taken)?;
        Some(Keyed { key: taken.resource.tenant.clone(), position, event })
    });
    let asked = plans.clone().flat_map(|out| match out {
        PlanOut::Asked(command) => Some(command),
        _ => None,
    });
    let commands = machine(asked.concat(ends).concat(inputs.words), cx, Commands);
    let planned = plans.clone().flat_map(|out| match out {
        PlanOut::Planned(key, planned) => {
            Some(Keyed { key, position: 0, event: JobEvent::Planned(planned.map(Into::into)) })
        }
        _ => None,
    });
    // What is planned at an epoch holds for its results, those of the frame's first entry too.
    let results = inputs.results.map(|found| Keyed { position: found.position + 1, ..found });
    let jobs = machine(planned.concat(results), cx, Jobs);
    let conditions = jobs.clone().flat_map(|out| match out {
        JobOut::Condition(change) => Some(change),
        _ => None,
    });
    let events = jobs.clone().flat_map(|out| match out {
        JobOut::Happened(row) => Some(row),
        _ => None,
    });
    Outputs {
        configurations: plans.flat_map(|out| match out {
            PlanOut::Configuration(configuration) => Some(configuration),
            _ => None,
        }),
        rows: collected(jobs, |out| match out {
            JobOut::Row(row, diff) => Some((row, diff)),
            _ => None,
        })
        .concat(collected(commands.clone(), |out| match out {
            CommandOut::Row(row, diff) => Some((row, diff)),
            CommandOut::Turn(_) => None,
        })),
        commands: commands.flat_map(|out| match out {
            CommandOut::Turn(turn) => Some(turn),
            CommandOut::Row(..) => None,
        }),
        conditions,
        events,
    }
}
