//! Health as machines: the availability of swept and checked targets, the connection of agents, bursts of bad logs.
//!
//! ```text
//! probes ─► [targets: fold a vantage] ─► (target, vantage, state, since) Δ
//! beats  ─► [agents: silence timer]   ─► agent rows Δ, conditions Δ, health events
//! hits   ─► [bursts: buckets]         ─► conditions Δ
//! ```
//! A probe that changes no state says nothing downstream; neither does a heartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::rows::{Agent, HealthEvent, StateRow};
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::availability::{Fold, State};
use serde::{Deserialize, Serialize};

use crate::alerts::AlertKey;
use crate::keyed::{Machine, Tick};
use crate::output::DerivedRow;
use crate::sizes::Sizes;
use crate::strangers::bucket;

/// An agent silent for this long is disconnected, milliseconds.
pub const AGENT_SILENCE_MS: i64 = 5 * 60 * 1000;
/// A connected agent's row says its newest heartbeat at most this often, milliseconds.
const AGENT_PACE_MS: i64 = 60_000;
/// Vantages one target remembers.
const MAX_VANTAGES: usize = 64;
/// Bad lines within the window that make a burst.
pub const BURST_THRESHOLD: u64 = 100;
/// The window of a burst, milliseconds.
pub const BURST_WINDOW_MS: i64 = 300_000;
const BURST_BUCKET_MS: i64 = 10_000;
/// Senders of a share whose bad lines are counted: 16,384 a tenant.
pub const MAX_LOG_SOURCES: usize = 256;

/// What is probed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TargetKey {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// Address.
    pub ip: IpAddr,
}

/// One look at a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Who looked.
    pub vantage: String,
    /// When.
    pub at: Time,
    /// Whether it answered.
    pub available: bool,
}

/// What one vantage says of a target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seen {
    /// The target.
    pub target: TargetKey,
    /// Who says it.
    pub vantage: String,
    /// What.
    pub state: State,
    /// Since when.
    pub since: Time,
}

/// Availability of targets.
pub struct Targets;

/// Folds by vantage.
#[derive(Serialize, Deserialize)]
pub struct TargetState {
    folds: BTreeMap<String, Fold>,
}

fn said(target: &TargetKey, state: &TargetState) -> Vec<Seen> {
    let known = state.folds.iter().map(|(vantage, fold)| {
        let (state, since) = fold.state();
        Seen { target: target.clone(), vantage: vantage.clone(), state, since }
    });
    known.filter(|s| s.state != State::Unknown).collect()
}

impl Machine for Targets {
    type Key = TargetKey;
    type Event = Probe;
    type State = TargetState;
    type Output = (Seen, isize);
    const NAME: &'static str = "targets";

    fn step(
        &mut self,
        _tick: &Tick,
        key: &TargetKey,
        state: &mut Option<TargetState>,
        events: Vec<Probe>,
        out: &mut Vec<(Seen, isize)>,
    ) {
        let target = state.get_or_insert_with(|| TargetState { folds: BTreeMap::new() });
        let before = said(key, target);
        for probe in events {
            if target.folds.len() < MAX_VANTAGES || target.folds.contains_key(&probe.vantage) {
                target.folds.entry(probe.vantage).or_default().add(probe.at, probe.available);
            }
        }
        let after = said(key, target);
        if before != after {
            out.extend(before.into_iter().map(|s| (s, -1)));
            out.extend(after.into_iter().map(|s| (s, 1)));
        }
    }

    fn due_ms(&self, _state: &TargetState) -> Option<i64> {
        None
    }

    fn restored(&mut self, key: &TargetKey, state: &TargetState, out: &mut Vec<(Seen, isize)>) {
        out.extend(said(key, state).into_iter().map(|s| (s, 1)));
    }
}

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

/// What the agent and burst machines say.
#[derive(Clone, Debug)]
pub enum HealthOut {
    /// A row appears or goes.
    Row(StateRow, isize),
    /// A condition begins or ends to hold.
    Condition(AlertKey, Condition, isize),
    /// Something happened.
    Happened(DerivedRow),
}

/// Agents and their silence.
pub struct Agents;

/// An agent as last said, and its newest sign of life.
#[derive(Serialize, Deserialize)]
pub struct AgentState {
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
            device_uid: None,
            agent_uid: Some(row.agent_id.clone()),
            labels: BTreeMap::from([("agent_id".to_owned(), row.agent_id.clone())]),
        };
        (AlertKey::of_subject(subject), condition)
    }

    /// Says the agent's new state, and what follows from a changed one.
    fn turn(&mut self, to: &str, at: Time, reason: &str, out: &mut Vec<HealthOut>) {
        let old = self.row.clone();
        if old.state == to {
            return;
        }
        self.row.state = to.to_owned();
        self.row.since = at;
        let (key, condition) = self.condition();
        match (old.state.as_str(), to) {
            (_, "disconnected") => out.push(HealthOut::Condition(key, condition, 1)),
            ("disconnected", _) => out.push(HealthOut::Condition(key, condition, -1)),
            _ => {}
        }
        out.push(HealthOut::Happened(DerivedRow::from(HealthEvent {
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
    type Output = HealthOut;
    const NAME: &'static str = "agents";

    fn step(
        &mut self,
        tick: &Tick,
        key: &AgentKey,
        state: &mut Option<AgentState>,
        events: Vec<Beat>,
        out: &mut Vec<HealthOut>,
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
                out.push(HealthOut::Row(StateRow::from(before), -1));
            }
            out.push(HealthOut::Row(StateRow::from(agent.row.clone()), 1));
        }
    }

    fn due_ms(&self, state: &AgentState) -> Option<i64> {
        state.connected().then_some(state.beat_ms + AGENT_SILENCE_MS)
    }

    fn restored(&mut self, _key: &AgentKey, state: &AgentState, out: &mut Vec<HealthOut>) {
        out.push(HealthOut::Row(StateRow::from(state.row.clone()), 1));
        if !state.connected() {
            let (key, condition) = state.condition();
            out.push(HealthOut::Condition(key, condition, 1));
        }
    }
}

/// Whose log lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogSource {
    /// Customer.
    pub tenant: String,
    /// Site.
    pub partition: String,
    /// The sender's address.
    pub ip: IpAddr,
}

/// A share of a tenant's senders of log lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogShare {
    tenant: String,
    bucket: u64,
}

impl LogShare {
    /// The share that a sender belongs to.
    pub fn of(source: &LogSource) -> Self {
        LogShare { tenant: source.tenant.clone(), bucket: bucket(&source.partition, source.ip) }
    }
}

/// Bursts of bad log lines, by sender.
pub struct Bursts(pub Arc<Sizes>);

/// Counts by sender, at most [`MAX_LOG_SOURCES`].
#[derive(Default, Serialize, Deserialize)]
pub struct BurstShare {
    sources: BTreeMap<LogSource, BurstState>,
}

/// Counts by bucket of time.
#[derive(Default, Serialize, Deserialize)]
struct BurstState {
    buckets: BTreeMap<i64, u64>,
    burning: bool,
}

impl BurstState {
    fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// Who goes first, where there are too many.
    fn rank(&self) -> (bool, u64, Option<i64>) {
        (self.burning, self.count(), self.buckets.last_key_value().map(|(bucket, _)| *bucket))
    }

    /// Forgets what is older than the window; says whether anything was.
    fn trim(&mut self, live_ms: i64) -> bool {
        let oldest = (live_ms - BURST_WINDOW_MS).div_euclid(BURST_BUCKET_MS);
        let is_old = self.buckets.first_key_value().is_some_and(|(bucket, _)| *bucket <= oldest);
        if is_old {
            self.buckets = self.buckets.split_off(&(oldest + 1));
        }
        is_old
    }

    fn turn(&mut self, key: &LogSource, out: &mut Vec<HealthOut>) {
        let burning = self.count() >= BURST_THRESHOLD;
        if burning != self.burning {
            self.burning = burning;
            let (key, condition) = burst(key);
            out.push(HealthOut::Condition(key, condition, if burning { 1 } else { -1 }));
        }
    }
}

fn burst(key: &LogSource) -> (AlertKey, Condition) {
    let subject = Subject {
        tenant: key.tenant.clone(),
        partition: key.partition.clone(),
        rule: "log-burst".to_owned(),
        entity: key.ip.to_string(),
    };
    let condition = Condition {
        rule: subject.rule.clone(),
        severity: "warning".to_owned(),
        title: format!("{} logs many errors", key.ip),
        description: format!(
            "{BURST_THRESHOLD} or more messages of severity error or worse within {} s",
            BURST_WINDOW_MS / 1000
        ),
        source_type: "log".to_owned(),
        source_id: key.ip.to_string(),
        device_uid: None,
        agent_uid: None,
        labels: BTreeMap::from([("ip".to_owned(), key.ip.to_string())]),
    };
    (AlertKey::of_subject(subject), condition)
}

impl Machine for Bursts {
    type Key = LogShare;
    type Event = LogSource;
    type State = BurstShare;
    type Output = HealthOut;
    const NAME: &'static str = "bursts";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &LogShare,
        state: &mut Option<BurstShare>,
        events: Vec<LogSource>,
        out: &mut Vec<HealthOut>,
    ) {
        let share = state.get_or_insert_default();
        let mut counted = BTreeSet::new();
        for source in events {
            let burst = share.sources.entry(source.clone()).or_default();
            *burst.buckets.entry(tick.live_ms.div_euclid(BURST_BUCKET_MS)).or_default() += 1;
            counted.insert(source);
        }
        for (source, burst) in &mut share.sources {
            if burst.trim(tick.live_ms) || counted.contains(source) {
                burst.turn(source, out);
            }
        }
        share.sources.retain(|_, burst| !burst.buckets.is_empty());
        let excess = share.excess();
        self.0.evicted().fetch_add(excess.len() as u64, Ordering::Relaxed);
        for source in excess {
            if let Some(mut burst) = share.sources.remove(&source) {
                burst.buckets.clear();
                burst.turn(&source, out);
            }
        }
        if share.sources.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, share: &BurstShare) -> Option<i64> {
        let oldest = share.sources.values().filter_map(|burst| burst.buckets.first_key_value()).map(|(b, _)| *b).min();
        oldest.map(|bucket| (bucket + 1) * BURST_BUCKET_MS + BURST_WINDOW_MS)
    }

    fn restored(&mut self, _key: &LogShare, share: &BurstShare, out: &mut Vec<HealthOut>) {
        for (source, _) in share.sources.iter().filter(|(_, burst)| burst.burning) {
            let (key, condition) = burst(source);
            out.push(HealthOut::Condition(key, condition, 1));
        }
    }
}

impl BurstShare {
    /// Who is one too many: those with the fewest lines.
    fn excess(&self) -> Vec<LogSource> {
        let Some(excess @ 1..) = self.sources.len().checked_sub(MAX_LOG_SOURCES) else { return Vec::new() };
        let mut ranked: Vec<_> = self.sources.iter().map(|(source, burst)| (burst.rank(), source)).collect();
        ranked.sort_unstable();
        ranked.into_iter().take(excess).map(|(_, source)| source.clone()).collect()
    }
}
