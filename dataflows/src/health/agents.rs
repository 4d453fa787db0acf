//! Agents: connected as long as they are heard.

use std::collections::BTreeMap;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::rows::{Agent, HealthEvent, StateRow};
use radarflow_reconcile::alert::{Condition, Subject};
use serde::{Deserialize, Serialize};

use crate::alerts::{AlertKey, ConditionChange};
use crate::keyed::{Machine, Tick};
use crate::output::DerivedRow;

/// An agent silent for this long is disconnected, milliseconds.
pub const AGENT_SILENCE_MS: i64 = 5 * 60 * 1000;
/// A connected agent's row says its newest heartbeat at most this often, milliseconds.
const AGENT_PACE_MS: i64 = 60_000;

/// Which agent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentKey {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// Its id.
    pub agent_id: String,
}

/// A sign of life.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Beat {
    pub at: Time,
    pub version: Option<String>,
    pub hostname: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub capabilities: Vec<String>,
}

/// What is said of agents.
#[derive(Clone, Debug)]
pub(super) enum AgentOut {
    /// A row appears or goes.
    Row(StateRow, isize),
    /// A condition begins or ceases to hold.
    Condition(ConditionChange),
    /// Something happened.
    Happened(DerivedRow),
}

/// Agents and their silence.
pub(super) struct Agents;

/// An agent as last said, and its newest sign of life.
#[derive(Serialize, Deserialize)]
pub(super) struct AgentState {
    row: Agent,
    /// Live clock of the newest heartbeat, milliseconds.
    beat_ms: i64,
    last_seen: Time,
}

impl AgentState {
    fn connected(&self) -> bool {
        self.row.state == "connected"
    }

    fn condition(&self) -> (AlertKey, Condition) {
        let row = &self.row;
        let subject = Subject {
            tenant: row.tenant_id.clone(),
            partition: row.partition.clone(),
            rule: "agent-offline".to_owned(),
            entity: row.agent_id.clone(),
        };
        let condition = Condition {
            rule: subject.rule.clone(),
            severity: "critical".to_owned(),
            title: format!("Agent {} is offline", row.agent_id),
            description: format!("no heartbeat for {} minutes", AGENT_SILENCE_MS / 60_000),
            source_type: "agent".to_owned(),
            source_id: row.agent_id.clone(),
            agent_uid: Some(row.agent_id.clone()),
            labels: BTreeMap::from([("agent_id".to_owned(), row.agent_id.clone())]),
            ..Condition::default()
        };
        (AlertKey::of_subject(subject), condition)
    }

    /// Says the agent's new state, and what follows from a changed one.
    fn turn(&mut self, to: &str, at: Time, reason: &str, out: &mut Vec<AgentOut>) {
        let old = self.row.clone();
        if old.state == to {
            return;
        }
        self.row.state = to.to_owned();
        self.row.since = at;
        let (key, condition) = self.condition();
        match (old.state.as_str(), to) {
            (_, "disconnected") => out.push(AgentOut::Condition((key, condition, 1))),
            ("disconnected", _) => out.push(AgentOut::Condition((key, condition, -1))),
            _ => {}
        }
        out.push(AgentOut::Happened(DerivedRow::from(HealthEvent {
            tenant_id: old.tenant_id.clone(),
            partition: old.partition.clone(),
            row_id: RowId::default(),
            epoch: 0,
            entity_type: "agent".to_owned(),
            entity_id: old.agent_id.clone(),
            duration_seconds: (!old.state.is_empty()).then(|| (at.0 - old.since.0) / 1_000_000),
            old_state: if old.state.is_empty() { "unknown".to_owned() } else { old.state },
            new_state: to.to_owned(),
            reason: reason.to_owned(),
            recorded_at: at,
            device_uid: None,
        })));
    }
}

impl Machine for Agents {
    type Key = AgentKey;
    type Event = Beat;
    type State = AgentState;
    type Output = AgentOut;
    const NAME: &'static str = "agents";

    fn step(
        &mut self,
        tick: &Tick,
        key: &AgentKey,
        state: &mut Option<AgentState>,
        events: Vec<Beat>,
        out: &mut Vec<AgentOut>,
    ) {
        let is_new = state.is_none();
        let agent = state.get_or_insert_with(|| AgentState {
            row: Agent {
                tenant_id: key.tenant.clone(),
                partition: key.partition.clone(),
                agent_id: key.agent_id.clone(),
                state: String::new(),
                since: Time::from_ms(tick.clock_ms),
                last_seen: Time::default(),
                version: None,
                hostname: None,
                os: None,
                arch: None,
                capabilities: Vec::new(),
                epoch: 0,
            },
            beat_ms: tick.live_ms,
            last_seen: Time::default(),
        });
        let before = agent.row.clone();
        let now = Time::from_ms(tick.clock_ms);
        if events.is_empty() {
            if tick.live_ms >= agent.beat_ms + AGENT_SILENCE_MS {
                agent.row.last_seen = agent.last_seen;
                agent.turn("disconnected", now, "no heartbeat", out);
            }
        } else {
            for beat in events {
                agent.last_seen = agent.last_seen.max(beat.at);
                let row = &mut agent.row;
                for (field, said) in [
                    (&mut row.version, beat.version),
                    (&mut row.hostname, beat.hostname),
                    (&mut row.os, beat.os),
                    (&mut row.arch, beat.arch),
                ] {
                    if said.is_some() {
                        *field = said;
                    }
                }
                if !beat.capabilities.is_empty() {
                    row.capabilities = beat.capabilities;
                }
            }
            agent.beat_ms = tick.live_ms;
            agent.turn("connected", now, "heartbeat", out);
            if agent.row != before || agent.last_seen.0 - agent.row.last_seen.0 >= AGENT_PACE_MS * 1000 {
                agent.row.last_seen = agent.last_seen;
            }
        }
        if agent.row != before {
            if !is_new {
                out.push(AgentOut::Row(StateRow::from(before), -1));
            }
            out.push(AgentOut::Row(StateRow::from(agent.row.clone()), 1));
        }
    }

    fn due_ms(&self, state: &AgentState) -> Option<i64> {
        state.connected().then_some(state.beat_ms + AGENT_SILENCE_MS)
    }

    fn restored(&mut self, _key: &AgentKey, state: &AgentState, out: &mut Vec<AgentOut>) {
        out.push(AgentOut::Row(StateRow::from(state.row.clone()), 1));
        if !state.connected() {
            let (key, condition) = state.condition();
            out.push(AgentOut::Condition((key, condition, 1)));
        }
    }
}
