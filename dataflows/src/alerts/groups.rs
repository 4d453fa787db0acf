//! Groups of alerts that a receiver is told of together: when a message is due, and what becomes of it.

use std::collections::BTreeMap;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::fact::Receiver;
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use radarflow_proto::rows::Notification;
use radarflow_reconcile::notify::{Group, group_labels};
use serde::{Deserialize, Serialize};

use crate::keyed::{Clock, Keyed, Machine, Tick};
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
pub(super) enum GroupOut {
    /// A message should be sent until it is settled.
    Due(DueNotification),
    /// A message is settled.
    Settled(String),
    /// Something happened.
    Happened(DerivedRow),
}

/// Groups of notifications.
pub(super) struct Groups;

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

/// That a receiver should (1) or should no longer (-1) be told of an alert, for the group that it belongs to.
pub(super) fn addressed(receiver: Receiver, alert: NotifiedAlert, diff: isize) -> Keyed<GroupKey, GroupEvent> {
    let labels: BTreeMap<String, String> = group_labels(&receiver, &alert.labels);
    let group = Group::new(receiver.clone(), labels.clone()).key();
    let key = GroupKey { tenant: receiver.tenant.clone(), receiver: receiver.name.clone(), group };
    Keyed { key, position: 0, event: GroupEvent::Alert(receiver, labels, alert, diff as i64) }
}
