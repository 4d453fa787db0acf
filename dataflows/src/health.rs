//! Health as machines: the availability of swept and checked targets, the connection of agents, bursts of bad logs.
//!
//! ```text
//! probes  ─► [targets: fold a vantage] ─► (target, vantage, word) Δ
//! devices ─► [availabilities]          ─► health events
//! beats   ─► [agents: silence timer]   ─► agent rows Δ, conditions Δ, health events
//! hits    ─► [bursts: buckets]         ─► conditions Δ
//! ```
//! A probe that changes no state says nothing downstream; neither does a heartbeat.
//!
//! Whatever is said ages by the live clock: a vantage's word after two of its own intervals, an agent's connection after
//! [`AGENT_SILENCE_MS`]. Nothing needs a next input to age.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::rows::{Agent, Device, HealthEvent, StateRow};
use radarflow_reconcile::alert::{Condition, Subject};
use radarflow_reconcile::availability::{FAILURES, Fold, State, Word};
use radarflow_reconcile::identity::name::name;
use serde::{Deserialize, Serialize};

use crate::alerts::AlertKey;
use crate::keyed::{Machine, Restored, Tick};
use crate::output::DerivedRow;
use crate::records::Name;
use crate::sizes::Sizes;
use crate::strangers::bucket;
use crate::upgrade;

/// An agent silent for this long is disconnected, milliseconds.
pub const AGENT_SILENCE_MS: i64 = 5 * 60 * 1000;
/// A connected agent's row says its newest heartbeat at most this often, milliseconds.
const AGENT_PACE_MS: i64 = 60_000;
/// Vantages one target remembers.
const MAX_VANTAGES: usize = 64;
/// A vantage that gave no result for this long is forgotten, milliseconds; its word has aged long before.
const FORGET_MS: i64 = 7 * 86_400_000;
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

/// One look at a target that told something.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// Who looked.
    pub vantage: String,
    /// When, by the looker's clock, but not later than receipt.
    pub at: Time,
    /// When it came in.
    pub received: Time,
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
    pub word: Word,
}

/// Availability of targets.
pub struct Targets;

/// Folds by vantage.
#[derive(Serialize, Deserialize)]
pub struct TargetState {
    vantages: BTreeMap<String, Vantage>,
}

/// One vantage's results, and whether its word has aged.
#[derive(Default, Serialize, Deserialize)]
struct Vantage {
    fold: Fold,
    /// What was said when it fell silent, until it is heard again: what comes late meanwhile does not change that.
    silent: Option<Word>,
}

impl Vantage {
    fn word(&self) -> Word {
        self.silent.unwrap_or_else(|| self.fold.word(i64::MIN))
    }

    /// Lets the word age, or count again.
    fn age(&mut self, live_ms: i64) {
        let word = self.fold.word(live_ms);
        self.silent = word.silent.and(self.silent.or(Some(word)));
    }

    fn forgotten_ms(&self) -> i64 {
        self.fold.heard_ms() + FORGET_MS
    }

    /// When it ages next, or is forgotten.
    fn due_ms(&self) -> i64 {
        let aging = self.fold.silent_from_ms().filter(|_| self.silent.is_none());
        aging.map_or(self.forgotten_ms(), |aging| aging.min(self.forgotten_ms()))
    }
}

impl TargetState {
    /// The fold of a vantage. Where there are too many, one that says nothing, the longest silent, makes room; `None`
    /// if all have a word.
    fn fold(&mut self, vantage: String) -> Option<&mut Fold> {
        if self.vantages.len() >= MAX_VANTAGES && !self.vantages.contains_key(&vantage) {
            let mute = self.vantages.iter().filter(|(_, v)| v.word().state == State::Unknown);
            let mute = mute.min_by_key(|(_, v)| v.fold.heard_ms())?.0.clone();
            self.vantages.remove(&mute);
        }
        Some(&mut self.vantages.entry(vantage).or_default().fold)
    }

    /// What the vantages say that say anything.
    fn words(&self) -> BTreeMap<String, Word> {
        let words = self.vantages.iter().map(|(vantage, v)| (vantage, v.word()));
        words.filter(|(_, word)| *word != Word::default()).map(|(vantage, word)| (vantage.clone(), word)).collect()
    }
}

impl Machine for Targets {
    type Key = TargetKey;
    type Event = Probe;
    type State = TargetState;
    type Output = (Seen, isize);
    const NAME: &'static str = "targets";

    fn step(
        &mut self,
        tick: &Tick,
        key: &TargetKey,
        state: &mut Option<TargetState>,
        events: Vec<Probe>,
        out: &mut Vec<(Seen, isize)>,
    ) {
        let target = state.get_or_insert_with(|| TargetState { vantages: BTreeMap::new() });
        let before = target.words();
        for Probe { vantage, at, received, available } in events {
            if let Some(fold) = target.fold(vantage) {
                let age_ms = (received.ms() - at.ms()).max(0);
                // The wall clock that stamped the receipt may be ahead of the ledger's.
                fold.add(at.min(Time::from_ms(tick.clock_ms)), tick.live_ms - age_ms, available);
            }
        }
        target.vantages.retain(|_, vantage| tick.live_ms < vantage.forgotten_ms());
        target.vantages.values_mut().for_each(|vantage| vantage.age(tick.live_ms));
        let after = target.words();
        let seen =
            |(vantage, word): (&String, &Word)| Seen { target: key.clone(), vantage: vantage.clone(), word: *word };
        out.extend(before.iter().filter(|(v, word)| after.get(*v) != Some(word)).map(|said| (seen(said), -1)));
        out.extend(after.iter().filter(|(v, word)| before.get(*v) != Some(word)).map(|said| (seen(said), 1)));
        if target.vantages.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, state: &TargetState) -> Option<i64> {
        state.vantages.values().map(Vantage::due_ms).min()
    }

    fn restored(&mut self, key: &TargetKey, state: &TargetState, out: &mut Vec<(Seen, isize)>) {
        let words = state.words().into_iter();
        out.extend(words.map(|(vantage, word)| (Seen { target: key.clone(), vantage, word }, 1)));
    }
}

/// What is said of a device's availability, by whoever looks at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeviceWord {
    tenant: String,
    partition: String,
    uid: String,
    state: String,
    reason: String,
}

impl DeviceWord {
    /// Of a device; `None` where nobody ever looked.
    pub fn of(device: &Device) -> Option<Self> {
        device.availability_since?;
        Some(DeviceWord {
            tenant: device.tenant_id.clone(),
            partition: device.partition.clone(),
            uid: device.uid.clone(),
            state: device.availability.clone(),
            reason: device.availability_reason.clone().unwrap_or_default(),
        })
    }

    /// Names the device.
    pub fn device(&self) -> Name {
        name(&(&self.tenant, &self.partition, &self.uid))
    }
}

/// The history of devices' availability: an event a transition.
pub struct Availabilities;

/// A device's availability as last told.
#[derive(Serialize, Deserialize)]
pub struct Told {
    state: String,
    /// When it was told.
    at: Time,
}

impl Machine for Availabilities {
    type Key = Name;
    type Event = (DeviceWord, i64);
    type State = Told;
    type Output = HealthOut;
    const NAME: &'static str = "availabilities";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &Name,
        state: &mut Option<Told>,
        events: Vec<(DeviceWord, i64)>,
        out: &mut Vec<HealthOut>,
    ) {
        let mut net: BTreeMap<DeviceWord, i64> = BTreeMap::new();
        for (word, diff) in events {
            *net.entry(word).or_default() += diff;
        }
        if net.values().all(|diff| *diff == 0) {
            return;
        }
        // A device that is gone, or has another name, has no transition.
        let Some((word, _)) = net.into_iter().find(|(_, diff)| *diff > 0) else {
            *state = None;
            return;
        };
        let unknown = || State::Unknown.name().to_owned();
        let old_state = state.as_ref().map_or_else(unknown, |told| told.state.clone());
        if old_state == word.state {
            state.get_or_insert(Told { state: word.state, at: Time::from_ms(tick.clock_ms) });
            return;
        }
        let at = Time::from_ms(tick.clock_ms);
        let duration_seconds = state.as_ref().map(|told| (at.0 - told.at.0) / 1_000_000);
        *state = Some(Told { state: word.state.clone(), at });
        out.push(HealthOut::Happened(DerivedRow::from(HealthEvent {
            tenant_id: word.tenant,
            partition: word.partition,
            row_id: RowId::default(),
            epoch: 0,
            entity_type: "device".to_owned(),
            entity_id: word.uid.clone(),
            old_state,
            new_state: word.state,
            reason: word.reason,
            duration_seconds,
            recorded_at: at,
            device_uid: Some(word.uid),
        })));
    }

    fn due_ms(&self, _state: &Told) -> Option<i64> {
        None
    }

    fn restored(&mut self, _key: &Name, _state: &Told, _out: &mut Vec<HealthOut>) {}
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

/// The first release kept bursts a source each.
pub(crate) fn bursts_by_share(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let mut shares: BTreeMap<LogShare, BurstShare> = BTreeMap::new();
    for (source, burst) in upgrade::take::<LogSource, BurstState>(state, Bursts::NAME)? {
        shares.entry(LogShare::of(&source)).or_default().sources.insert(source, burst);
    }
    upgrade::put(state, Bursts::NAME, shares);
    Ok(())
}

/// What the first release kept of a target.
#[derive(Deserialize)]
struct FirstTarget {
    folds: BTreeMap<String, FirstFold>,
}

/// The results of one vantage, oldest first, and what held before them.
#[derive(Deserialize)]
struct FirstFold {
    results: BTreeMap<Time, bool>,
    before: State,
    before_since: Time,
}

/// In the first release the word of a vantage did not age: it does from now on, by what is known of its rhythm.
pub(crate) fn vantages_that_age(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let converted = |FirstFold { results, before, before_since }: FirstFold| {
        let mut vantage = Vantage::default();
        let mut add = |at: Time, available| {
            let at = at.min(Time::from_ms(tick.clock_ms));
            vantage.fold.add(at, tick.live_ms - (tick.clock_ms - at.ms()), available);
        };
        let oldest = results.keys().next().copied().unwrap_or(before_since);
        match before {
            State::Unknown => {}
            State::Available => add(Time(oldest.0 - 1), true),
            // As many failures in a row as make it so.
            State::Unavailable => (1..=FAILURES as i64).rev().for_each(|n| add(Time(oldest.0 - n), false)),
        }
        results.into_iter().for_each(|(at, available)| add(at, available));
        vantage
    };
    let targets = upgrade::take::<TargetKey, FirstTarget>(state, Targets::NAME)?;
    let targets = targets.into_iter().map(|(key, FirstTarget { folds })| {
        let vantages = folds.into_iter().map(|(name, fold)| (name, converted(fold))).collect();
        (key, TargetState { vantages })
    });
    upgrade::put(state, Targets::NAME, targets);
    Ok(())
}
