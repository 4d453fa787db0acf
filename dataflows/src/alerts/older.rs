//! State of alerts and groups as older builds kept it.
//!
//! | collection | was | is |
//! |---|---|---|
//! | `pairs` | conditions by their alert, the address in the name of the thing | by share of senders |
//! | `pairs`, `alerts` | conditions without measurements, lives without levels and times of suppression | with |
//! | `pairs` | conditions, whoever said them | with what the word was worth |
//! | `groups` | a receiver's, paced as it says | an address', with what holds each alert |

use std::collections::{BTreeMap, VecDeque};

use radarflow_proto::cell::Time;
use radarflow_proto::fact::{AlertStatus, Receiver, ReceiverKind};
use radarflow_proto::payload::{DueNotification, NotifiedAlert};
use radarflow_reconcile::alert::{Condition, Life, Subject};
use radarflow_reconcile::notify::Group;
use radarflow_reconcile::routing::{Address, Pace};
use serde::{Deserialize, Serialize};

use super::groups::{GroupKey, Groups};
use super::key::AlertKey;
use super::life::{AlertState, Alerts};
use super::pairs::{Begun, Held, PairShare, PairSubject, Pairs, Worth};
use crate::keyed::{Machine, Restored, Tick, put_state, take_state};

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct OldCondition {
    rule: String,
    severity: String,
    title: String,
    description: String,
    source_type: String,
    source_id: String,
    device_uid: Option<String>,
    agent_uid: Option<String>,
    labels: BTreeMap<String, String>,
}

impl From<OldCondition> for Condition {
    fn from(old: OldCondition) -> Self {
        let OldCondition { rule, severity, title, description, source_type, source_id, device_uid, agent_uid, labels } =
            old;
        let measured = None;
        Condition {
            rule,
            severity,
            title,
            description,
            source_type,
            source_id,
            device_uid,
            agent_uid,
            labels,
            measured,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OldLife {
    subject: Subject,
    condition: OldCondition,
    status: AlertStatus,
    active: bool,
    began: Time,
    acknowledged: Option<(Time, String)>,
    escalated: Option<Time>,
    resolved: Option<(Time, String)>,
    occurrences: i64,
}

impl From<OldLife> for Life {
    fn from(old: OldLife) -> Self {
        Life {
            acknowledged: old.acknowledged,
            escalated: old.escalated,
            level: i64::from(old.escalated.is_some()),
            resolved: old.resolved,
            // Who did not want it is in its history; it holds as long as the condition.
            suppressed: (old.status == AlertStatus::Suppressed).then(|| ("a person".to_owned(), None)),
            occurrences: old.occurrences,
            status: old.status,
            active: old.active,
            ..Life::begin(old.subject, old.condition.into(), old.began)
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OldAlert {
    life: OldLife,
    holds: BTreeMap<OldCondition, i64>,
    ended_ms: Option<i64>,
    past: VecDeque<(OldLife, i64)>,
}

/// Lives of alerts had no levels, and conditions no measurements.
pub(crate) fn alerts_with_levels(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let alerts = take_state::<AlertKey, OldAlert>(state, Alerts::NAME)?;
    let new = alerts.into_iter().map(|(key, old)| {
        let holds = old.holds.into_iter().map(|(condition, n)| (condition.into(), n)).collect();
        let past = old.past.into_iter().map(|(life, ended)| (life.into(), ended)).collect();
        (key, AlertState { life: old.life.into(), holds, policies: BTreeMap::new(), ended_ms: old.ended_ms, past })
    });
    put_state(state, Alerts::NAME, new);
    Ok(())
}

/// What traps of a share began, and when it was last said.
#[derive(Serialize, Deserialize)]
struct OldBegun<C> {
    conditions: BTreeMap<PairSubject, (C, i64)>,
}

impl<C> Default for OldBegun<C> {
    fn default() -> Self {
        OldBegun { conditions: BTreeMap::new() }
    }
}

impl<C> OldBegun<C> {
    fn map<D>(self, of: impl Fn(C, i64) -> D) -> BTreeMap<PairSubject, D> {
        self.conditions.into_iter().map(|(subject, (condition, said_ms))| (subject, of(condition, said_ms))).collect()
    }
}

/// The first release kept conditions by their alert; the address was in the name of the thing.
pub(crate) fn pairs_by_share(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let mut shares: BTreeMap<PairShare, OldBegun<OldCondition>> = BTreeMap::new();
    for (_, (subject, condition)) in take_state::<AlertKey, (Subject, OldCondition)>(state, Pairs::NAME)? {
        let address = subject.entity.split('/').next().and_then(|ip| ip.parse().ok());
        let subject = (address.ok_or_else(|| format!("{} names no address", subject.entity))?, subject);
        let begun = shares.entry(PairShare::of(&subject)).or_default();
        begun.conditions.insert(subject, (condition, tick.live_ms));
    }
    put_state(state, Pairs::NAME, shares);
    Ok(())
}

/// What traps began had no measurements.
pub(crate) fn pairs_with_measurements(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let shares = take_state::<PairShare, OldBegun<OldCondition>>(state, Pairs::NAME)?;
    let measured = |begun: OldBegun<OldCondition>| OldBegun {
        conditions: begun.map(|condition, said_ms| (Condition::from(condition), said_ms)),
    };
    put_state(state, Pairs::NAME, shares.into_iter().map(|(share, begun)| (share, measured(begun))));
    Ok(())
}

/// Nobody asked what the word of a trap was worth: it is taken to have been anybody's.
pub(crate) fn pairs_with_worth(state: &mut Restored, _: &Tick) -> Result<(), String> {
    let shares = take_state::<PairShare, OldBegun<Condition>>(state, Pairs::NAME)?;
    let held = |condition, said_ms| Held { condition, said_ms, worth: Worth::default() };
    put_state(
        state,
        Pairs::NAME,
        shares.into_iter().map(|(share, begun)| (share, Begun { conditions: begun.map(held) })),
    );
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct OldReceiver {
    tenant: String,
    name: String,
    url: String,
    kind: ReceiverKind,
    group_by: Vec<String>,
    group_wait_ms: i64,
    group_interval_ms: i64,
    repeat_interval_ms: i64,
    send_resolved: bool,
    headers: BTreeMap<String, String>,
}

impl From<OldReceiver> for Receiver {
    fn from(old: OldReceiver) -> Self {
        Receiver {
            group_by: old.group_by,
            group_wait_ms: old.group_wait_ms,
            group_interval_ms: old.group_interval_ms,
            repeat_interval_ms: old.repeat_interval_ms,
            send_resolved: old.send_resolved,
            headers: old.headers,
            ..Receiver::new(&old.tenant, &old.name, old.kind, &old.url)
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OldDue {
    id: String,
    tenant: String,
    receiver: OldReceiver,
    group_key: String,
    group_labels: BTreeMap<String, String>,
    alerts: Vec<NotifiedAlert>,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct OldMember {
    alert: NotifiedAlert,
    told: Option<bool>,
}

#[derive(Serialize, Deserialize)]
struct OldGroup {
    receiver: OldReceiver,
    labels: BTreeMap<String, String>,
    members: BTreeMap<String, OldMember>,
    changed_ms: Option<i64>,
    sent_ms: Option<i64>,
    pending: Option<OldDue>,
    sequence: u64,
}

/// Groups were a receiver's, and knew of nothing that holds an alert.
pub(crate) fn groups_of_addresses(state: &mut Restored, tick: &Tick) -> Result<(), String> {
    let groups = take_state::<GroupKey, OldGroup>(state, Groups::NAME)?;
    let new = groups.into_iter().map(|(key, old)| {
        let receiver = Receiver::from(old.receiver);
        let address = Address {
            pace: Pace::of(&receiver),
            receiver,
            route: String::new(),
            group_key: key.group.clone(),
            labels: old.labels,
        };
        let pending = old.pending.map(|due| DueNotification {
            id: due.id,
            tenant: due.tenant,
            receiver: due.receiver.into(),
            group_key: due.group_key,
            group_labels: due.group_labels,
            alerts: due.alerts,
            reason: due.reason,
            at_ms: old.sent_ms.unwrap_or(tick.clock_ms),
        });
        let members = old.members.into_values().map(|member| (member.alert, member.told)).collect();
        let group = Group::resumed(address.into(), members, (old.changed_ms, old.sent_ms), pending, old.sequence);
        (key, group)
    });
    put_state(state, Groups::NAME, new);
    Ok(())
}
