//! From conditions to notifications.
//!
//! ```text
//! conditions (Δ) ─► [alerts: life cycle] ─► alert rows Δ, history, firing alerts Δ
//! firing alerts ⋈ receivers (Δ) ─► [groups: wait, pace, repeat] ─► due notifications
//! deliveries (facts) ──────────────────────▲
//! ```
//! A condition is a row of a collection: it holds as long as the row is there. Which receiver is told of which alert is
//! a join, so that a receiver that comes later is told of what burns already, and one that a change of routes deprives
//! of an alert it was told of is told that it is over.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::fact::{AlertStatus, Fact, Receiver};
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use radarflow_proto::ports::Outcome;
use radarflow_proto::rows::{Alert, AlertHistory, Event, Notification};
use radarflow_reconcile::alert::{Condition, Life, Subject};
use radarflow_reconcile::notify::Group;
use serde::{Deserialize, Serialize};

use crate::keyed::{Clock, Machine, Restored, Tick};
use crate::output::DerivedRow;
use crate::records::RETENTION_MS;
use crate::sizes::Sizes;
use crate::strangers::bucket;
use crate::upgrade;

/// Which alert: the condition's name. `subject` is missing where only an alert's id is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AlertKey {
    /// Customer.
    pub tenant: String,
    /// Names the condition.
    pub fingerprint: String,
    /// What it is about.
    pub subject: Option<Subject>,
}

impl AlertKey {
    /// Of what it is about.
    pub fn of_subject(subject: Subject) -> Self {
        AlertKey { tenant: subject.tenant.clone(), fingerprint: subject.fingerprint(), subject: Some(subject) }
    }

    /// Of an alert's id, which begins with the fingerprint.
    pub fn of_alert(tenant: &str, alert_id: &str) -> Self {
        let fingerprint = alert_id.split('-').next().unwrap_or_default().to_owned();
        AlertKey { tenant: tenant.to_owned(), fingerprint, subject: None }
    }

    fn name(&self) -> (&str, &str) {
        (&self.tenant, &self.fingerprint)
    }
}

impl PartialEq for AlertKey {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}
impl Eq for AlertKey {}
impl PartialOrd for AlertKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for AlertKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name().cmp(&other.name())
    }
}
impl std::hash::Hash for AlertKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

/// A trap of a clear pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PairEvent {
    /// It begins.
    Begin(Condition),
    /// It ends.
    End,
}

/// Conditions of a share that traps began: 32,768 a tenant. Nothing proves who sent a trap, so what one more begins is not
/// taken in while there are so many; the trap itself is in `traps`.
pub const MAX_PAIRS: usize = 512;
/// Conditions that traps about one address began.
pub const MAX_PAIRS_OF_ADDRESS: usize = 256;
/// What a trap began is over when none has said it again for so long, milliseconds of live time.
pub const PAIR_MS: i64 = 7 * 86_400_000;

/// A share of a tenant's senders of traps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PairShare {
    tenant: String,
    bucket: u64,
}

/// What a trap is about: an address, and something there.
pub type PairSubject = (IpAddr, Subject);

impl PairShare {
    /// The share that it belongs to.
    pub fn of((source, subject): &PairSubject) -> Self {
        PairShare { tenant: subject.tenant.clone(), bucket: bucket(&subject.partition, *source) }
    }
}

/// Clear pairs: what one trap began and another ends.
pub struct Pairs(pub Arc<Sizes>);

/// What was begun, and when it was last said.
#[derive(Default, Serialize, Deserialize)]
pub struct Begun {
    conditions: BTreeMap<PairSubject, (Condition, i64)>,
}

impl Begun {
    fn has_room(&self, subject: &PairSubject) -> bool {
        let of_address = || self.conditions.keys().filter(|(source, _)| *source == subject.0).count();
        self.conditions.contains_key(subject)
            || (self.conditions.len() < MAX_PAIRS && of_address() < MAX_PAIRS_OF_ADDRESS)
    }
}

impl Machine for Pairs {
    type Key = PairShare;
    type Event = (PairSubject, PairEvent);
    type State = Begun;
    type Output = (AlertKey, Condition, isize);
    const NAME: &'static str = "pairs";

    fn step(
        &mut self,
        tick: &Tick,
        _key: &PairShare,
        state: &mut Option<Begun>,
        events: Vec<(PairSubject, PairEvent)>,
        out: &mut Vec<(AlertKey, Condition, isize)>,
    ) {
        let begun = state.get_or_insert_default();
        let mut before: BTreeMap<PairSubject, Option<Condition>> = BTreeMap::new();
        let over = begun.conditions.iter().filter(|(_, (_, said))| said + PAIR_MS <= tick.live_ms);
        let over: Vec<_> = over.map(|(subject, _)| (subject.clone(), PairEvent::End)).collect();
        for (subject, event) in over.into_iter().chain(events) {
            let old = match event {
                PairEvent::Begin(_) if !begun.has_room(&subject) => {
                    self.0.evicted().fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                PairEvent::Begin(condition) => begun.conditions.insert(subject.clone(), (condition, tick.live_ms)),
                PairEvent::End => begun.conditions.remove(&subject),
            };
            before.entry(subject).or_insert(old.map(|(condition, _)| condition));
        }
        for (subject, before) in before {
            let after = begun.conditions.get(&subject).map(|(condition, _)| condition.clone());
            if before != after {
                let key = AlertKey::of_subject(subject.1);
                out.extend(before.map(|c| (key.clone(), c, -1)));
                out.extend(after.map(|c| (key, c, 1)));
            }
        }
        if begun.conditions.is_empty() {
            *state = None;
        }
    }

    fn due_ms(&self, begun: &Begun) -> Option<i64> {
        begun.conditions.values().map(|(_, said)| said + PAIR_MS).min()
    }

    fn restored(&mut self, _key: &PairShare, begun: &Begun, out: &mut Vec<(AlertKey, Condition, isize)>) {
        let said = begun.conditions.iter();
        out.extend(said.map(|((_, s), (c, _))| (AlertKey::of_subject(s.clone()), c.clone(), 1)));
    }
}

/// What moves an alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LifeEvent {
    /// The condition began (+1) or ceased (-1) to hold in this form.
    Condition(Condition, i64),
    /// A person asks for a step: a [`Fact::AlertStep`].
    Step(Fact),
}

/// What the alert machine says.
#[derive(Clone, Debug)]
pub enum LifeOut {
    /// A row appears or goes.
    Row(Alert, isize),
    /// An alert burns, as receivers are told of it.
    Firing(String, NotifiedAlert, isize),
    /// Something happened.
    Happened(DerivedRow),
    /// A command was judged.
    Outcome(Outcome),
}

/// The life of alerts.
pub struct Lives;

/// One condition's alert: the one that is open, or the last that was.
#[derive(Clone, Serialize, Deserialize)]
pub struct LifeState {
    life: Life,
    /// Multiplicity of the condition in its collection.
    holds: BTreeMap<Condition, i64>,
    /// When it ended, milliseconds since 1970.
    ended_ms: Option<i64>,
    /// The alerts this condition had before, each with its end: kept for one retention, [`MAX_PAST`] at most.
    past: VecDeque<(Life, i64)>,
}

/// Alerts of one condition that stay in the table after a newer one began.
pub const MAX_PAST: usize = 16;

fn notified(life: &Life) -> NotifiedAlert {
    let row = life.row();
    NotifiedAlert {
        id: row.id,
        fingerprint: row.fingerprint,
        labels: row.labels.0,
        annotations: row.annotations.0,
        starts_at_ms: life.began.ms(),
        ends_at_ms: None,
    }
}

impl LifeState {
    fn say(before: Option<&LifeState>, after: Option<&LifeState>, out: &mut Vec<LifeOut>) {
        let rows = |s: Option<&LifeState>| -> BTreeMap<String, Alert> {
            let lives = s.into_iter().flat_map(|s| s.past.iter().map(|(life, _)| life).chain([&s.life]));
            lives.map(|life| (life.id(), life.row())).collect()
        };
        let (old, new) = (rows(before), rows(after));
        let gone = old.iter().filter(|(id, row)| new.get(*id) != Some(row));
        let come = new.iter().filter(|(id, row)| old.get(*id) != Some(row));
        out.extend(gone.map(|(_, row)| LifeOut::Row(row.clone(), -1)));
        out.extend(come.map(|(_, row)| LifeOut::Row(row.clone(), 1)));
        let firing = |s: Option<&LifeState>| {
            s.filter(|s| s.life.firing()).map(|s| (s.life.subject.tenant.clone(), notified(&s.life)))
        };
        let (old, new) = (firing(before), firing(after));
        if old != new {
            out.extend(old.map(|(t, a)| LifeOut::Firing(t, a, -1)));
            out.extend(new.map(|(t, a)| LifeOut::Firing(t, a, 1)));
        }
    }
}

fn history(life: &Life, old: Option<AlertStatus>, at: Time, actor: &str, reason: &str, out: &mut Vec<LifeOut>) {
    let (tenant_id, partition) = (life.subject.tenant.clone(), life.subject.partition.clone());
    out.push(LifeOut::Happened(DerivedRow::from(AlertHistory {
        tenant_id: tenant_id.clone(),
        partition: partition.clone(),
        row_id: RowId::default(),
        epoch: 0,
        time: at,
        alert_id: life.id(),
        old_status: old.map(|s| s.name().to_owned()),
        new_status: life.status.name().to_owned(),
        actor: actor.to_owned(),
        reason: reason.to_owned(),
        device_uid: life.condition.device_uid.clone(),
    })));
    // OCSF 1.x: class 2004, Detection Finding.
    out.push(LifeOut::Happened(DerivedRow::from(Event {
        tenant_id,
        partition,
        row_id: RowId::default(),
        epoch: 0,
        time: at,
        class_uid: 2004,
        activity_name: match life.status {
            AlertStatus::Resolved => "Close",
            _ if old.is_none() => "Create",
            _ => "Update",
        }
        .to_owned(),
        severity_id: match life.condition.severity.as_str() {
            "emergency" => 6,
            "critical" => 5,
            "warning" => 3,
            _ => 1,
        },
        message: format!("{}: {}", life.condition.title, life.status.name()),
        entity_type: "alert".to_owned(),
        entity_id: life.id(),
        device_uid: life.condition.device_uid.clone(),
        attributes: radarflow_proto::cell::Tags(life.row().labels.0),
    })));
}

impl Machine for Lives {
    type Key = AlertKey;
    type Event = LifeEvent;
    type State = LifeState;
    type Output = LifeOut;
    const NAME: &'static str = "alerts";
    const CLOCK: Clock = Clock::Wall;

    fn step(
        &mut self,
        tick: &Tick,
        key: &AlertKey,
        state: &mut Option<LifeState>,
        events: Vec<LifeEvent>,
        out: &mut Vec<LifeOut>,
    ) {
        let now = Time::from_ms(tick.clock_ms);
        let before = state.clone();
        let is_timer = events.is_empty();
        let mut holds = state.as_ref().map(|s| s.holds.clone()).unwrap_or_default();
        let mut steps = Vec::new();
        for event in events {
            match event {
                LifeEvent::Condition(condition, diff) => {
                    let n = holds.entry(condition).or_default();
                    *n += diff;
                }
                LifeEvent::Step(fact) => steps.push(fact),
            }
        }
        holds.retain(|_, n| *n > 0);
        let holding = holds.last_key_value().map(|(c, _)| c.clone());
        match (state.as_mut(), holding) {
            (Some(s), Some(condition)) if s.life.active => s.life.confirm(condition),
            (_, Some(condition)) => {
                if let Some(subject) = &key.subject {
                    let life = Life::begin(subject.clone(), condition, now);
                    history(&life, None, now, "system", "condition began", out);
                    let mut past = VecDeque::new();
                    if let Some(old) = state.take() {
                        past = old.past;
                        past.push_back((old.life, old.ended_ms.unwrap_or(tick.clock_ms)));
                        if past.len() > MAX_PAST {
                            past.pop_front();
                        }
                    }
                    *state = Some(LifeState { life, holds: BTreeMap::new(), ended_ms: None, past });
                }
            }
            (Some(s), None) if s.life.active => {
                s.life.active = false;
                s.ended_ms = Some(tick.clock_ms);
                let old = s.life.status;
                if s.life.step(AlertStatus::Resolved, now, "system").is_ok() {
                    history(&s.life, Some(old), now, "system", "condition over", out);
                }
            }
            _ => {}
        }
        if let Some(s) = state.as_mut() {
            s.holds = holds;
        }
        for fact in steps {
            step(state.as_mut(), fact, now, out);
        }
        if is_timer && let Some(s) = state.as_mut() {
            if s.life.due_ms().is_some_and(|due| due <= tick.clock_ms) {
                let old = s.life.status;
                if s.life.step(AlertStatus::Escalated, now, "system").is_ok() {
                    history(&s.life, Some(old), now, "system", "nobody took it", out);
                }
            }
            s.past.retain(|(_, ended)| ended + RETENTION_MS > tick.clock_ms);
            if s.past.is_empty() && s.ended_ms.is_some_and(|at| at + RETENTION_MS <= tick.clock_ms) {
                *state = None;
            }
        }
        LifeState::say(before.as_ref(), state.as_ref(), out);
    }

    fn due_ms(&self, state: &LifeState) -> Option<i64> {
        let over = state.past.iter().map(|(_, ended)| *ended).chain(state.ended_ms).min();
        [state.life.due_ms(), over.map(|at| at + RETENTION_MS)].into_iter().flatten().min()
    }

    fn restored(&mut self, _key: &AlertKey, state: &LifeState, out: &mut Vec<LifeOut>) {
        LifeState::say(None, Some(state), out);
    }
}

fn step(state: Option<&mut LifeState>, fact: Fact, now: Time, out: &mut Vec<LifeOut>) {
    let Fact::AlertStep { alert_id, to, actor, reason, command_id, .. } = fact else { return };
    let refused = match state {
        Some(s) if s.life.id() == alert_id => {
            let old = s.life.status;
            match s.life.step(to, now, &actor.name) {
                Ok(()) => {
                    history(&s.life, Some(old), now, &actor.name, &reason, out);
                    None
                }
                Err(refused) => Some(refused.to_string()),
            }
        }
        _ => Some(format!("there is no alert {alert_id:?}, or its condition has returned as another alert")),
    };
    out.push(LifeOut::Outcome(Outcome { command_id, refused }));
}

/// Which receiver's group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupKey {
    /// Customer.
    pub tenant: String,
    /// The receiver.
    pub receiver: String,
    /// The group's name.
    pub group: String,
}

/// What moves a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum GroupEvent {
    /// The receiver should (+1) or should no longer (-1) be told that the alert burns.
    Alert(Receiver, BTreeMap<String, String>, NotifiedAlert, i64),
    /// A message arrived or is dead.
    Settled {
        /// The message.
        id: String,
        /// Whether it arrived.
        delivered: bool,
        /// The receiver's answer.
        detail: String,
    },
}

/// What the group machine says.
#[derive(Clone, Debug)]
pub enum GroupOut {
    /// A message should be sent until it is settled.
    Due(DueNotification),
    /// A message is settled.
    Settled(String),
    /// Something happened.
    Happened(DerivedRow),
}

/// Groups of notifications.
pub struct Groups;

fn notification(due: &DueNotification, partition: &str, outcome: &str, reason: &str, at: Time) -> GroupOut {
    GroupOut::Happened(DerivedRow::from(Notification {
        tenant_id: due.tenant.clone(),
        partition: partition.to_owned(),
        row_id: RowId::default(),
        epoch: 0,
        time: at,
        notification_id: due.id.clone(),
        receiver: due.receiver.name.clone(),
        group_key: due.group_key.clone(),
        outcome: outcome.to_owned(),
        status: if due.firing() { "firing" } else { "resolved" }.to_owned(),
        alert_ids: due.alerts.iter().map(|a| a.id.clone()).collect(),
        reason: reason.to_owned(),
    }))
}

fn partition_of(due: &DueNotification) -> String {
    let mut partitions = due.alerts.iter().filter_map(|a| a.labels.get("partition"));
    partitions.next().cloned().unwrap_or_else(|| "default".to_owned())
}

impl Machine for Groups {
    type Key = GroupKey;
    type Event = GroupEvent;
    type State = Group;
    type Output = GroupOut;
    const NAME: &'static str = "groups";
    const CLOCK: Clock = Clock::Wall;

    fn step(
        &mut self,
        tick: &Tick,
        _key: &GroupKey,
        state: &mut Option<Group>,
        events: Vec<GroupEvent>,
        out: &mut Vec<GroupOut>,
    ) {
        let now = Time::from_ms(tick.clock_ms);
        let mut net: BTreeMap<String, (i64, NotifiedAlert)> = BTreeMap::new();
        for event in events {
            match event {
                GroupEvent::Alert(receiver, labels, alert, diff) => {
                    let group = state.get_or_insert_with(|| Group::new(receiver.clone(), labels));
                    if diff > 0 {
                        group.receiver = receiver;
                    }
                    let slot = net.entry(alert.id.clone()).or_insert_with(|| (0, alert.clone()));
                    slot.0 += diff;
                    if diff > 0 {
                        slot.1 = alert;
                    }
                }
                GroupEvent::Settled { id, delivered, detail } => {
                    if let Some(group) = state.as_mut() {
                        let due = group.pending().cloned();
                        if group.delivered(&id)
                            && let Some(due) = due
                        {
                            let outcome = if delivered { "delivered" } else { "failed" };
                            out.push(notification(&due, &partition_of(&due), outcome, &detail, now));
                            out.push(GroupOut::Settled(id));
                        }
                    }
                }
            }
        }
        let Some(group) = state.as_mut() else { return };
        for (_, (diff, mut alert)) in net {
            if diff < 0 {
                alert.ends_at_ms = Some(tick.clock_ms);
            }
            group.update(alert, tick.clock_ms);
        }
        if let Some(due) = group.fire(tick.clock_ms) {
            let due = due.clone();
            out.push(notification(&due, &partition_of(&due), "due", &due.reason, now));
            out.push(GroupOut::Due(due));
        }
        if group.is_over() {
            *state = None;
        }
    }

    fn due_ms(&self, state: &Group) -> Option<i64> {
        state.due_ms()
    }

    fn restored(&mut self, _key: &GroupKey, state: &Group, out: &mut Vec<GroupOut>) {
        out.extend(state.pending().cloned().map(GroupOut::Due));
    }
}

/// Standing facts: the newest a subject.
pub struct Facts;

impl Machine for Facts {
    type Key = String;
    type Event = String;
    type State = String;
    type Output = (String, isize);
    const NAME: &'static str = FACTS;

    fn step(
        &mut self,
        _tick: &Tick,
        _key: &String,
        state: &mut Option<String>,
        events: Vec<String>,
        out: &mut Vec<(String, isize)>,
    ) {
        let before = state.take();
        let after = events.into_iter().last().or_else(|| before.clone());
        if before != after {
            out.extend(before.map(|b| (b, -1)));
            out.extend(after.clone().map(|a| (a, 1)));
        }
        *state = after;
    }

    fn due_ms(&self, _state: &String) -> Option<i64> {
        None
    }

    fn restored(&mut self, _key: &String, state: &String, out: &mut Vec<(String, isize)>) {
        out.push((state.clone(), 1));
    }
}

/// The collection of standing facts in snapshots.
pub const FACTS: &str = "facts";

/// The first release kept conditions by their alert; the address was in the name of the thing.
pub(crate) fn pairs_by_share(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let mut shares: BTreeMap<PairShare, Begun> = BTreeMap::new();
    for (_, (subject, condition)) in upgrade::take::<AlertKey, (Subject, Condition)>(state, Pairs::NAME)? {
        let address = subject.entity.split('/').next().and_then(|ip| ip.parse().ok());
        let subject = (address.ok_or_else(|| format!("{} names no address", subject.entity))?, subject);
        let begun = shares.entry(PairShare::of(&subject)).or_default();
        begun.conditions.insert(subject, (condition, tick.live_ms));
    }
    upgrade::put(state, Pairs::NAME, shares);
    Ok(())
}
