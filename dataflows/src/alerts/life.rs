//! The life of alerts: an alert begins with its condition, goes through the steps that people and time take, and ends with
//! its condition.

use std::collections::{BTreeMap, VecDeque};

use radarflow_proto::cell::{RowId, Tags, Time};
use radarflow_proto::fact::AlertStatus;
use radarflow_proto::ports::Outcome;
use radarflow_proto::rows::{Alert, AlertHistory, Event};
use radarflow_reconcile::alert::{Condition, Life};
use radarflow_reconcile::resources::escalation::Escalation;
use radarflow_reconcile::routing::Burning;
use serde::{Deserialize, Serialize};

use super::key::AlertKey;
use crate::keyed::{Clock, Machine, Tick};
use crate::output::DerivedRow;
use crate::records::RETENTION_MS;

/// A step of an alert's life cycle, asked for by a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AlertStep {
    /// The alert.
    pub alert_id: String,
    /// Where to; `None` where somebody only has something to say.
    pub to: Option<AlertStatus>,
    /// Until when, milliseconds since 1970.
    pub until_ms: Option<i64>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Names the command, so that its outcome can be told.
    pub command_id: String,
}

/// What moves an alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum AlertEvent {
    /// The condition began (+1) or ceased (-1) to hold in this form.
    Condition(Condition, i64),
    /// A policy of escalation says this (+1), or no more (-1).
    Escalation(Escalation, i64),
    /// A person asks for a step.
    Step(AlertStep),
}

/// What the alert machine says.
#[derive(Clone, Debug)]
pub(super) enum AlertOut {
    /// A row appears or goes.
    Row(Alert, isize),
    /// An alert of a tenant burns, as receivers are told of it.
    Burning(String, Burning, isize),
    /// Something happened.
    Happened(DerivedRow),
    /// A command was judged.
    Outcome(Outcome),
}

/// The life of alerts.
pub(super) struct Alerts;

/// One condition's alert: the one that is open, or the last that was.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct AlertState {
    pub(super) life: Life,
    /// Multiplicity of the condition in its collection.
    pub(super) holds: BTreeMap<Condition, i64>,
    /// What policies say of it; the first counts.
    pub(super) policies: BTreeMap<Escalation, i64>,
    /// When it ended, milliseconds since 1970.
    pub(super) ended_ms: Option<i64>,
    /// The alerts this condition had before, each with its end: kept for one retention, [`MAX_PAST`] at most.
    pub(super) past: VecDeque<(Life, i64)>,
}

/// Alerts of one condition that stay in the table after a newer one began.
pub const MAX_PAST: usize = 16;

impl AlertState {
    /// The alert, and those before it.
    fn lives(&self) -> impl Iterator<Item = &Life> {
        self.past.iter().map(|(life, _)| life).chain([&self.life])
    }

    fn say(before: Option<&AlertState>, after: Option<&AlertState>, out: &mut Vec<AlertOut>) {
        let rows = |s: Option<&AlertState>| -> BTreeMap<String, Alert> {
            s.into_iter().flat_map(AlertState::lives).map(|life| (life.id(), life.row())).collect()
        };
        let (old, new) = (rows(before), rows(after));
        let gone = old.iter().filter(|(id, row)| new.get(*id) != Some(row));
        let come = new.iter().filter(|(id, row)| old.get(*id) != Some(row));
        out.extend(gone.map(|(_, row)| AlertOut::Row(row.clone(), -1)));
        out.extend(come.map(|(_, row)| AlertOut::Row(row.clone(), 1)));
        let burns = |s: Option<&AlertState>| {
            s.filter(|s| s.life.burns()).map(|s| (s.life.subject.tenant.clone(), s.life.burning()))
        };
        let (old, new) = (burns(before), burns(after));
        if old != new {
            out.extend(old.map(|(t, a)| AlertOut::Burning(t, a, -1)));
            out.extend(new.map(|(t, a)| AlertOut::Burning(t, a, 1)));
        }
    }
}

fn history(life: &Life, old: Option<AlertStatus>, at: Time, actor: &str, reason: &str, out: &mut Vec<AlertOut>) {
    let (tenant_id, partition) = (life.subject.tenant.clone(), life.subject.partition.clone());
    out.push(AlertOut::Happened(DerivedRow::from(AlertHistory {
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
    out.push(AlertOut::Happened(DerivedRow::from(Event {
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
        attributes: Tags(life.row().labels.0),
    })));
}

impl Machine for Alerts {
    type Key = AlertKey;
    type Event = AlertEvent;
    type State = AlertState;
    type Output = AlertOut;
    const NAME: &'static str = "alerts";
    const CLOCK: Clock = Clock::Wall;

    fn step(
        &mut self,
        tick: &Tick,
        key: &AlertKey,
        state: &mut Option<AlertState>,
        events: Vec<AlertEvent>,
        out: &mut Vec<AlertOut>,
    ) {
        let now = Time::from_ms(tick.clock_ms);
        let before = state.clone();
        let is_timer = events.is_empty();
        let mut holds = state.as_ref().map(|s| s.holds.clone()).unwrap_or_default();
        let mut policies = state.as_ref().map(|s| s.policies.clone()).unwrap_or_default();
        let mut steps = Vec::new();
        for event in events {
            match event {
                AlertEvent::Condition(condition, diff) => {
                    let n = holds.entry(condition).or_default();
                    *n += diff;
                }
                AlertEvent::Escalation(policy, diff) => *policies.entry(policy).or_default() += diff,
                AlertEvent::Step(step) => steps.push(step),
            }
        }
        holds.retain(|_, n| *n > 0);
        policies.retain(|_, n| *n > 0);
        let holding = holds.last_key_value().map(|(c, _)| c.clone());
        match (state.as_mut(), holding) {
            (Some(s), Some(condition)) if s.life.active || s.life.burns() => s.life.confirm(condition),
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
                    let (holds, policies) = (BTreeMap::new(), BTreeMap::new());
                    *state = Some(AlertState { life, holds, policies, ended_ms: None, past });
                }
            }
            (Some(s), None) if s.life.active => {
                if let Some(old) = s.life.over(now) {
                    history(&s.life, Some(old), now, "system", "condition over", out);
                }
            }
            _ => {}
        }
        if let Some(s) = state.as_mut() {
            s.holds = holds;
            s.life.levels = policies.first_key_value().map(|(policy, _)| policy.levels.clone());
            s.policies = policies;
        }
        for asked in steps {
            step(state.as_mut(), asked, now, out);
        }
        if let Some(s) = state.as_mut() {
            let over = !s.life.active && !s.life.burns();
            s.ended_ms = over.then(|| s.ended_ms.unwrap_or(tick.clock_ms));
        }
        if is_timer && let Some(s) = state.as_mut() {
            while let Some((old, why)) = s.life.wait(now) {
                history(&s.life, Some(old), now, "system", &why, out);
            }
            s.past.retain(|(_, ended)| ended + RETENTION_MS > tick.clock_ms);
            if s.past.is_empty() && s.ended_ms.is_some_and(|at| at + RETENTION_MS <= tick.clock_ms) {
                *state = None;
            }
        }
        AlertState::say(before.as_ref(), state.as_ref(), out);
    }

    fn due_ms(&self, state: &AlertState) -> Option<i64> {
        let over = state.past.iter().map(|(_, ended)| *ended).chain(state.ended_ms).min();
        [state.life.due_ms(), over.map(|at| at + RETENTION_MS)].into_iter().flatten().min()
    }

    fn restored(&mut self, _key: &AlertKey, state: &AlertState, out: &mut Vec<AlertOut>) {
        AlertState::say(None, Some(state), out);
    }
}

fn step(state: Option<&mut AlertState>, asked: AlertStep, now: Time, out: &mut Vec<AlertOut>) {
    let AlertStep { alert_id, to, until_ms, actor, reason, command_id } = asked;
    let refused = match (state, to) {
        (Some(s), Some(_)) if until_ms.is_some_and(|until| until <= now.ms()) && s.life.id() == alert_id => {
            Some("what is suppressed until a time is so until a time to come".to_owned())
        }
        (Some(s), Some(to)) if s.life.id() == alert_id => {
            let old = s.life.status;
            match s.life.step(to, until_ms.map(Time::from_ms), now, &actor) {
                Ok(()) => {
                    history(&s.life, Some(old), now, &actor, &reason, out);
                    None
                }
                Err(refused) => Some(refused.to_string()),
            }
        }
        // Something can be said of those that are over, too.
        (Some(s), None) if s.lives().any(|life| life.id() == alert_id) => {
            if let Some(life) = s.lives().find(|life| life.id() == alert_id) {
                history(life, Some(life.status), now, &actor, &reason, out);
            }
            None
        }
        _ => Some(format!("there is no alert {alert_id:?}, or its condition has returned as another alert")),
    };
    out.push(AlertOut::Outcome(Outcome { command_id, refused }));
}
