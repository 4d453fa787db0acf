//! When a group of alerts is told to a receiver: grouping as Alertmanager does it, as a pure state machine.
//!
//! A new group waits `group_wait` for company. After a message, a changed group waits `group_interval`; an unchanged
//! one that still burns is told again after `repeat_interval`. At most one message of a group is under way; what happens
//! meanwhile goes into the next.
//!
//! *Sent implies resolved*: an alert that a receiver was told burns is told over, once, whatever happened in between;
//! one whose firing was never sent, or that is new and already over, is told only if the receiver was told of it.

use std::collections::BTreeMap;

use radarflow_proto::fact::Receiver;
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use serde::{Deserialize, Serialize};

/// Alerts one message tells of; the rest are in the next.
pub const MAX_ALERTS: usize = 1000;

/// What a group knows about one alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    alert: NotifiedAlert,
    /// What the receiver was told last, or is being told: that it burns (true) or that it is over.
    told: Option<bool>,
}

/// One receiver's group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Whom to tell.
    pub receiver: Receiver,
    /// Labels that make the group.
    pub labels: BTreeMap<String, String>,
    members: BTreeMap<String, Member>,
    /// When the first untold change came.
    changed_ms: Option<i64>,
    /// When the last message was made.
    sent_ms: Option<i64>,
    /// The message under way.
    pending: Option<DueNotification>,
    /// Messages made so far.
    sequence: u64,
}

impl Group {
    /// An empty group.
    pub fn new(receiver: Receiver, labels: BTreeMap<String, String>) -> Self {
        Group {
            receiver,
            labels,
            members: BTreeMap::new(),
            changed_ms: None,
            sent_ms: None,
            pending: None,
            sequence: 0,
        }
    }

    /// Names the group, as Alertmanager spells it.
    pub fn key(&self) -> String {
        let labels: Vec<String> = self.labels.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        format!("{{}}/{{receiver={:?}}}:{{{}}}", self.receiver.name, labels.join(", "))
    }

    /// An alert began, changed or ended.
    pub fn update(&mut self, alert: NotifiedAlert, now_ms: i64) {
        match self.members.get_mut(&alert.id) {
            Some(member) => member.alert = alert,
            None => {
                self.members.insert(alert.id.clone(), Member { alert, told: None });
            }
        }
        self.forget();
        if self.untold() {
            self.changed_ms.get_or_insert(now_ms);
        } else {
            self.changed_ms = None;
        }
    }

    /// Drops what is over unless the receiver still believes that it burns.
    fn forget(&mut self) {
        let send_resolved = self.receiver.send_resolved;
        self.members.retain(|_, m| m.alert.ends_at_ms.is_none() || (send_resolved && m.told == Some(true)));
    }

    /// Whether the receiver believes something that is not so. What is over and kept is believed to burn.
    fn untold(&self) -> bool {
        self.members.values().any(|m| m.told != Some(m.alert.ends_at_ms.is_none()))
    }

    /// When time alone would make a message, milliseconds since 1970.
    pub fn due_ms(&self) -> Option<i64> {
        if self.pending.is_some() {
            return None;
        }
        let changed = self.changed_ms.map(|at| match self.sent_ms {
            None => at + self.receiver.group_wait_ms,
            Some(sent) => at.max(sent + self.receiver.group_interval_ms),
        });
        let burning = self.members.values().any(|m| m.alert.ends_at_ms.is_none());
        let repeat = self.sent_ms.filter(|_| burning).map(|sent| sent + self.receiver.repeat_interval_ms);
        [changed, repeat].into_iter().flatten().min()
    }

    /// Makes the message that is due, if any; it stays pending until [`Group::delivered`].
    pub fn fire(&mut self, now_ms: i64) -> Option<&DueNotification> {
        if self.due_ms().is_none_or(|due| due > now_ms) {
            return None;
        }
        let reason = match (self.sent_ms, self.changed_ms) {
            (None, _) => "new group",
            (_, Some(_)) => "group changed",
            _ => "repeat",
        };
        // News first: what does not fit is old and waits for the next message.
        let mut members: Vec<&mut Member> = self.members.values_mut().collect();
        members.sort_by_key(|m| m.told == Some(m.alert.ends_at_ms.is_none()));
        let mut alerts = Vec::new();
        for member in members.into_iter().take(MAX_ALERTS) {
            member.told = Some(member.alert.ends_at_ms.is_none());
            alerts.push(member.alert.clone());
        }
        self.forget();
        self.changed_ms = self.untold().then_some(now_ms);
        if alerts.is_empty() {
            return None;
        }
        self.sequence += 1;
        self.sent_ms = Some(now_ms);
        let first = alerts.iter().map(|a| a.fingerprint.as_str()).next().unwrap_or_default();
        self.pending = Some(DueNotification {
            id: format!("{}-{}-{first}-{now_ms}", self.receiver.name, self.sequence),
            tenant: self.receiver.tenant.clone(),
            receiver: self.receiver.clone(),
            group_key: self.key(),
            group_labels: self.labels.clone(),
            alerts,
            reason: reason.to_owned(),
        });
        self.pending.as_ref()
    }

    /// The message under way.
    pub fn pending(&self) -> Option<&DueNotification> {
        self.pending.as_ref()
    }

    /// The message of that id arrived, or is dead. `false` if no such message is under way.
    pub fn delivered(&mut self, id: &str) -> bool {
        let mine = self.pending.as_ref().is_some_and(|p| p.id == id);
        if mine {
            self.pending = None;
        }
        mine
    }

    /// Whether nothing is left to remember.
    pub fn is_over(&self) -> bool {
        self.members.is_empty() && self.pending.is_none()
    }
}

/// The labels that make an alert's group for a receiver.
pub fn group_labels(receiver: &Receiver, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    receiver.group_by.iter().filter_map(|name| Some((name.clone(), labels.get(name)?.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use radarflow_proto::fact::ReceiverKind;

    fn receiver() -> Receiver {
        Receiver {
            tenant: "t".into(),
            name: "ops".into(),
            url: String::new(),
            kind: ReceiverKind::Alertmanager,
            group_by: vec![],
            group_wait_ms: 30,
            group_interval_ms: 300,
            repeat_interval_ms: 4000,
            send_resolved: true,
            headers: BTreeMap::new(),
        }
    }

    fn alert(id: &str, ends: Option<i64>) -> NotifiedAlert {
        NotifiedAlert {
            id: id.into(),
            fingerprint: id.into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            starts_at_ms: 0,
            ends_at_ms: ends,
        }
    }

    fn ids(due: Option<&DueNotification>) -> Vec<(String, bool)> {
        due.map(|d| d.alerts.iter().map(|a| (a.id.clone(), a.ends_at_ms.is_none())).collect()).unwrap_or_default()
    }

    #[test]
    fn a_group_waits_then_paces_then_repeats() {
        let mut group = Group::new(receiver(), BTreeMap::new());
        group.update(alert("a", None), 0);
        group.update(alert("b", None), 10);
        assert_eq!(group.due_ms(), Some(30));
        assert!(group.fire(29).is_none());
        assert_eq!(ids(group.fire(30)), [("a".into(), true), ("b".into(), true)]);
        group.update(alert("a", Some(40)), 40);
        assert_eq!(group.due_ms(), None, "one message at a time");
        let id = group.pending().unwrap().id.clone();
        assert!(!group.delivered("other") && group.delivered(&id));
        assert_eq!(group.due_ms(), Some(330));
        assert_eq!(ids(group.fire(330)), [("a".into(), false), ("b".into(), true)]);
        let id = group.pending().unwrap().id.clone();
        group.delivered(&id);
        assert_eq!(group.due_ms(), Some(4330));
        assert_eq!(group.fire(4330).unwrap().reason, "repeat");
    }

    #[test]
    fn what_came_and_went_untold_is_not_told() {
        let mut group = Group::new(receiver(), BTreeMap::new());
        group.update(alert("a", None), 0);
        group.update(alert("a", Some(5)), 5);
        assert!(group.due_ms().is_none() && group.is_over());
    }

    proptest! {
        /// Whatever happens in whatever order: when all is over and delivered, each alert told burning was told over
        /// afterwards, and nothing is remembered.
        #[test]
        fn sent_implies_resolved(steps in prop::collection::vec((0u8..4, 0u8..3, 1i64..500), 0..80)) {
            let mut group = Group::new(receiver(), BTreeMap::new());
            let mut now = 0;
            let mut told: BTreeMap<String, bool> = BTreeMap::new();
            let mut deliver = |group: &mut Group| if let Some(due) = group.pending().cloned() {
                for a in &due.alerts { told.insert(a.id.clone(), a.ends_at_ms.is_none()); }
                assert!(group.delivered(&due.id));
            };
            for (what, which, dt) in steps {
                now += dt;
                match what {
                    0 => group.update(alert(&which.to_string(), None), now),
                    1 => group.update(alert(&which.to_string(), Some(now)), now),
                    2 => { group.fire(now); }
                    _ => deliver(&mut group),
                }
            }
            for which in 0..3 { group.update(alert(&which.to_string(), Some(now)), now); }
            for _ in 0..8 {
                deliver(&mut group);
                if let Some(due) = group.due_ms() { now = now.max(due); group.fire(now); }
            }
            prop_assert!(group.is_over());
            prop_assert!(told.values().all(|firing| !firing), "{told:?}");
        }
    }
}
