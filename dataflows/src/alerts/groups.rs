//! Groups of alerts that a receiver is told of together: when a message is due, and what becomes of it.

use std::sync::Arc;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use radarflow_proto::rows::{AlertNotification, Notification};
use radarflow_reconcile::notify::{Group, Notice};
use radarflow_reconcile::routing::Entry;
use serde::{Deserialize, Serialize};

use crate::keyed::{Clock, Machine, Tick};
use crate::output::DerivedRow;

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
    /// An alert belongs to it in this form; and whether another group of the receiver had it.
    Told(Arc<Entry>, bool),
    /// An alert belongs to it no more; and whether another group of the receiver has it.
    Gone(String, bool),
    /// A message arrived or is dead.
    Settled(Settled),
}

/// What became of a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settled {
    /// The message.
    pub id: String,
    /// Whether it arrived.
    pub delivered: bool,
    /// The receiver's answer.
    pub detail: String,
}

/// What the group machine says.
#[derive(Clone, Debug)]
pub(super) enum GroupOut {
    /// A message should be sent until it is settled.
    Due(DueNotification),
    /// A message is settled.
    Settled(String),
    /// A message is dead, and why.
    Dead(DueNotification, String),
    /// A receiver was told of an alert: its tenant and id, and when.
    Told(String, String, i64),
    /// How a group stands with an alert.
    Notice(AlertNotification, isize),
    /// Something happened.
    Happened(DerivedRow),
}

/// Groups of notifications.
pub(super) struct Groups;

/// A row of `notifications`.
pub(super) fn notification(due: &DueNotification, outcome: &str, reason: &str, at: Time) -> DerivedRow {
    DerivedRow::from(Notification {
        tenant_id: due.tenant.clone(),
        partition: partition_of(due),
        row_id: RowId::default(),
        epoch: 0,
        time: at,
        notification_id: due.id.clone(),
        receiver: due.receiver.name.clone(),
        group_key: due.group_key.clone(),
        outcome: outcome.to_owned(),
        status: status(due).to_owned(),
        alert_ids: due.alerts.iter().map(|a| a.id.clone()).collect(),
        reason: reason.to_owned(),
    })
}

/// As rows spell it.
pub(super) fn status(due: &DueNotification) -> &'static str {
    if due.firing() { "firing" } else { "resolved" }
}

/// The site that a message is about.
pub(super) fn partition_of(due: &DueNotification) -> String {
    due.alerts.first().map_or_else(|| "default".to_owned(), site)
}

fn site(alert: &NotifiedAlert) -> String {
    alert.labels.get("partition").cloned().unwrap_or_else(|| "default".to_owned())
}

fn row(group: &Group, alert: &NotifiedAlert, notice: Notice) -> AlertNotification {
    let address = &group.address;
    let (told, told_at, notification_id) = match notice.told {
        Some(told) => (
            Some(if told.burns { "firing" } else { "resolved" }.to_owned()),
            Some(Time::from_ms(told.at_ms)),
            Some(told.message),
        ),
        None => (None, None, None),
    };
    AlertNotification {
        tenant_id: address.receiver.tenant.clone(),
        partition: site(alert),
        alert_id: alert.id.clone(),
        receiver: address.receiver.name.clone(),
        group_key: address.group_key.clone(),
        route: notice.route,
        state: notice.state.name().to_owned(),
        reason: notice.reason,
        until: notice.until_ms.map(Time::from_ms),
        told,
        told_at,
        notification_id,
        epoch: 0,
    }
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
        for event in events {
            match event {
                GroupEvent::Told(entry, elsewhere) => {
                    let group = state.get_or_insert_with(|| Group::new(entry.address.clone()));
                    group.tell(&entry, elsewhere, tick.clock_ms);
                }
                GroupEvent::Gone(id, elsewhere) => {
                    if let Some(group) = state.as_mut() {
                        group.over(&id, elsewhere, tick.clock_ms);
                    }
                }
                GroupEvent::Settled(Settled { id, delivered, detail }) => {
                    let Some(due) = state.as_mut().and_then(|group| group.delivered(&id)) else { continue };
                    let outcome = if delivered { "delivered" } else { "failed" };
                    out.push(GroupOut::Happened(notification(&due, outcome, &detail, now)));
                    out.push(GroupOut::Settled(id));
                    if delivered {
                        let told = |a: &NotifiedAlert| GroupOut::Told(due.tenant.clone(), a.id.clone(), tick.clock_ms);
                        out.extend(due.alerts.iter().map(told));
                    } else {
                        if let Some(group) = state.as_mut() {
                            group.lost(&due, tick.clock_ms);
                        }
                        out.push(GroupOut::Dead(due, detail));
                    }
                }
            }
        }
        let Some(group) = state.as_mut() else { return };
        out.extend(group.readdressed().cloned().map(GroupOut::Due));
        if let Some(due) = group.fire(tick.clock_ms) {
            let due = due.clone();
            out.push(GroupOut::Happened(notification(&due, "due", &due.reason, now)));
            out.push(GroupOut::Due(due));
        }
        for (alert, before, after) in group.notices() {
            out.extend(before.map(|notice| GroupOut::Notice(row(group, &alert, notice), -1)));
            out.extend(after.map(|notice| GroupOut::Notice(row(group, &alert, notice), 1)));
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
        out.extend(state.said().map(|(alert, notice)| GroupOut::Notice(row(state, alert, notice.clone()), 1)));
    }
}
