//! Health as machines: the connection of agents, the availability of devices, bursts of bad logs.
//!
//! ```text
//! beats    ─► [agents: silence timer]   ─► agent rows Δ, conditions Δ, health events
//! devices  ─► [transitions]             ─► health events, and the offline ones ─► conditions Δ
//! log hits ─► [bursts: buckets of time] ─► conditions Δ
//! ```
//! A heartbeat that changes no state says nothing downstream. An agent's connection ages by the live clock, after
//! [`AGENT_SILENCE_MS`]; nothing needs a next input to age. What is said of targets is [`crate::availability`].

mod agents;
mod bursts;
mod devices;

use std::sync::Arc;

use radarflow_proto::rows::{Agent, Device, StateRow};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::alerts::{AlertKey, Conditions};
use crate::collection::{Events, Rel, changes, collected};
use crate::keyed::{Context, Keyed, machine};
use crate::output::DerivedRow;
pub use agents::{AGENT_SILENCE_MS, AgentKey, Beat};
use agents::{AgentOut, Agents};
use bursts::Bursts;
pub(crate) use bursts::bursts_by_share;
pub use bursts::{BURST_THRESHOLD, BURST_WINDOW_MS, LogShare, LogSource, MAX_LOG_SOURCES};
use devices::{DeviceAvailability, Transitions};

/// What health is read of.
pub struct Inputs<'scope> {
    /// Heartbeats, by agent.
    pub beats: Events<'scope, Keyed<AgentKey, Beat>>,
    /// Log lines that count towards a burst.
    pub log_hits: Events<'scope, Keyed<LogShare, LogSource>>,
    /// Devices, as they are shown.
    pub devices: Rel<'scope, Arc<Device>>,
}

/// What is said of health.
pub struct Outputs<'scope> {
    /// Rows of the table of agents.
    pub rows: Rel<'scope, StateRow>,
    /// The same, as agents.
    pub agents: Rel<'scope, Arc<Agent>>,
    /// Conditions.
    pub conditions: Conditions<'scope>,
    /// Health events.
    pub events: Events<'scope, DerivedRow>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let agents = machine(inputs.beats, cx, Agents);
    let bursts = machine(inputs.log_hits, cx, Bursts(cx.shared_sizes()));
    let words = inputs.devices.clone().flat_map(|device| DeviceAvailability::of(&device)).consolidate();
    let words = changes(words, |word, diff| Keyed { key: word.device(), position: 0, event: (word, diff as i64) });
    let transitions = machine(words, cx, Transitions);
    let offline = inputs.devices.flat_map(|device| devices::offline(&device)).consolidate();
    let offline = changes(offline, |(subject, condition), diff| (AlertKey::of_subject(subject), condition, diff));
    let silent = agents.clone().flat_map(|out| match out {
        AgentOut::Condition(change) => Some(change),
        _ => None,
    });
    let agent_events = agents.clone().flat_map(|out| match out {
        AgentOut::Happened(row) => Some(row),
        _ => None,
    });
    Outputs {
        agents: collected(agents.clone(), |out| match out {
            AgentOut::Row(StateRow::Agent(agent), diff) => Some((agent, diff)),
            _ => None,
        }),
        rows: collected(agents, |out| match out {
            AgentOut::Row(row, diff) => Some((row, diff)),
            _ => None,
        }),
        conditions: offline.concat(silent).concat(bursts),
        events: agent_events.concat(transitions),
    }
}
