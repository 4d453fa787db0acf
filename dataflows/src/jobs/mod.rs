//! Who looks at what, and how it goes.
//!
//! ```text
//! profiles, groups ─┐
//! devices ──────────┼─► [plans: a tenant in one place] ─┬─► configuration(agent), whenever it is another
//! agents ───────────┘                                   └─► planned(profile, agent) Δ ─┐
//! results of probes, counted a job ────────────────────────────────────────────────────┴─► [jobs] ─► rows Δ, conditions Δ
//! ```
//! What is planned is a function of its inputs alone ([`radarflow_reconcile::jobs`]) and is recomputed at a restart. How a job
//! goes is a machine: its results are remembered as counts, bounded a profile and agent and not a target.

mod plans;
mod settle;

use std::sync::Arc;

use radarflow_proto::ports::AgentConfiguration;
use radarflow_proto::resource::ResourceChange;
use radarflow_proto::rows::{Agent, Device, StateRow};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::alerts::Conditions;
use crate::collection::{Events, Rel, collected};
use crate::keyed::{Context, Keyed, machine};
use crate::output::DerivedRow;
use plans::PlanOut;
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
}

/// What comes of them.
pub struct Outputs<'scope> {
    /// Configurations that are others now.
    pub configurations: Events<'scope, AgentConfiguration>,
    /// Rows of the table of jobs.
    pub rows: Rel<'scope, StateRow>,
    /// Jobs that are missed.
    pub conditions: Conditions<'scope>,
    /// Health events.
    pub events: Events<'scope, DerivedRow>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let plans = plans::build(cx, inputs.resources, inputs.devices, inputs.agents);
    let planned = plans.clone().flat_map(|out| match out {
        PlanOut::Planned(key, planned) => {
            Some(Keyed { key, position: 0, event: JobEvent::Planned(planned.map(Into::into)) })
        }
        PlanOut::Configuration(_) => None,
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
            PlanOut::Planned(..) => None,
        }),
        rows: collected(jobs, |out| match out {
            JobOut::Row(row, diff) => Some((row, diff)),
            _ => None,
        }),
        conditions,
        events,
    }
}
