//! Health as machines: the connection of agents, the availability of devices, bursts of bad logs.
//!
//! ```text
//! beats    ─► [agents: silence timer]   ─► agent rows Δ, conditions Δ, health events
//! words    ─► [services: silence timer] ─► service rows Δ, health events
//! devices, behind ─► [transitions]      ─► health events ─► [flapping: come and go] ─► conditions Δ
//! devices  ─► those offline that stand behind none and do not come and go ─► conditions Δ
//! log hits ─► [bursts: buckets of time] ─► conditions Δ
//! ```
//! A heartbeat that changes no state says nothing downstream. An agent's connection ages by the live clock, after
//! [`AGENT_SILENCE_MS`]; nothing needs a next input to age. What is said of targets is [`crate::availability`].

mod agents;
mod bursts;
mod devices;
mod services;

use std::sync::Arc;

use radarflow_proto::rows::{Agent, Device, StateRow};
use radarflow_reconcile::identity::name::name;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::alerts::{AlertKey, Conditions};
use crate::collection::{Events, Rel, changes, collected};
use crate::keyed::{Context, Keyed, machine};
use crate::output::DerivedRow;
use crate::reach::Behind;
pub use agents::{AGENT_SILENCE_MS, AgentKey, Beat};
use agents::{AgentOut, Agents};
use bursts::Bursts;
pub(crate) use bursts::bursts_by_share;
pub use bursts::{BURST_THRESHOLD, BURST_WINDOW_MS, LogShare, LogSource, MAX_LOG_SOURCES};
use devices::{DeviceAvailability, Flapped, Flapping, Hidden, Transition, Transitions};
pub use devices::{FLAP_QUIET_MS, FLAP_WINDOW_MS, FLAPS, RETURN_MS};
pub use services::{MAX_SERVICES_OF_AGENT, SERVICE_SILENCE_MS, ServiceSaid};
use services::{ServiceOut, Services};

/// What health is read of.
pub struct Inputs<'scope> {
    /// Heartbeats, by agent.
    pub beats: Events<'scope, Keyed<AgentKey, Beat>>,
    /// Log lines that count towards a burst.
    pub log_hits: Events<'scope, Keyed<LogShare, LogSource>>,
    /// What agents say of services.
    pub services: Events<'scope, Keyed<AgentKey, ServiceSaid>>,
}

/// What is said of health.
pub struct Outputs<'scope> {
    /// Rows of the tables of agents and services.
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
    let services = machine(inputs.services, cx, Services(cx.shared_sizes()));
    let of_services = services.clone().flat_map(|out| match out {
        ServiceOut::Happened(row) => Some(row),
        ServiceOut::Row(..) => None,
    });
    let service_rows = collected(services, |out| match out {
        ServiceOut::Row(row, diff) => Some((row, diff)),
        ServiceOut::Happened(_) => None,
    });
    let silent = agents.clone().flat_map(|out| match out {
        AgentOut::Condition(change) => Some(change),
        _ => None,
    });
    let events = agents.clone().flat_map(|out| match out {
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
        })
        .concat(service_rows),
        conditions: silent.concat(bursts),
        events: events.concat(of_services),
    }
}

/// What the health of devices is read of.
pub struct DeviceInputs<'scope> {
    /// Devices, as they are shown.
    pub devices: Rel<'scope, Arc<Device>>,
    /// Which of those that are down stand behind others that are.
    pub behind: Rel<'scope, Behind>,
}

/// What is said of the health of devices.
pub struct DeviceOutputs<'scope> {
    /// Conditions.
    pub conditions: Conditions<'scope>,
    /// Health events.
    pub events: Events<'scope, DerivedRow>,
}

/// Builds that of devices.
pub fn of_devices<'scope>(cx: &Context, inputs: DeviceInputs<'scope>) -> DeviceOutputs<'scope> {
    let words = inputs.devices.clone().flat_map(|device| DeviceAvailability::of(&device)).consolidate();
    // Few are down, and fewer stand behind others: only they meet.
    let key = |word: &DeviceAvailability| (word.tenant.clone(), word.partition.clone(), word.uid.clone());
    let down = words.clone().filter(DeviceAvailability::is_down).map(move |word| (key(&word), word));
    let behind = inputs.behind;
    let reached = behind.clone().map(|(device, _)| device);
    let moved = changes(reached.clone().consolidate(), |device, diff| {
        let key = name(&device);
        Keyed { key, position: 0, event: (device, diff as i64) }
    });
    let hidden = collected(machine(moved, cx, Hidden), Some);
    let unreachable = down.clone().join_map(behind, |_, word, root| word.clone().behind(root));
    let unavailable = down.antijoin(reached).map(|(_, word)| word);
    let words = words.filter(|word| !word.is_down()).concat(unreachable).concat(unavailable).consolidate();
    let words = changes(words, |word, diff| Keyed { key: word.device(), position: 0, event: (word, diff as i64) });
    let transitions = machine(words, cx, Transitions);
    let crossings = transitions.clone().flat_map(|out| match out {
        Transition::Crossed(crossing) => Some(Keyed { key: crossing.device(), position: 0, event: crossing }),
        Transition::Happened(_) => None,
    });
    let flapped = machine(crossings, cx, Flapping);
    let flapping = collected(flapped.clone(), |flapped| Some((flapped.device, flapped.diff)));
    let flaps = flapped
        .map(|Flapped { condition: (subject, condition), diff, .. }| (AlertKey::of_subject(subject), condition, diff));
    let offline = inputs.devices.flat_map(|device| {
        let key = (device.tenant_id.clone(), device.partition.clone(), device.uid.clone());
        devices::offline(&device).map(|offline| (key, offline))
    });
    let offline = offline.consolidate().antijoin(hidden.concat(flapping).distinct());
    let offline = changes(offline.consolidate(), |(_, (subject, condition)), diff| {
        (AlertKey::of_subject(subject), condition, diff)
    });
    DeviceOutputs {
        conditions: offline.concat(flaps),
        events: transitions.flat_map(|out| match out {
            Transition::Happened(row) => Some(row),
            Transition::Crossed(_) => None,
        }),
    }
}
