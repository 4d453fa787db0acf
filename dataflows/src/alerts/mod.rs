//! From conditions to notifications.
//!
//! ```text
//! traps ─► [clear pairs] ─► conditions (Δ)
//! conditions (Δ) ─► [alerts: life cycle] ─► alert rows Δ, history, firing alerts Δ
//! firing alerts ⋈ receivers (Δ) ─► [groups: wait, pace, repeat] ─► due notifications
//! deliveries (facts) ──────────────────────▲
//! ```
//! A condition is a row of a collection: it holds as long as the row is there. Which receiver is told of which alert is
//! a join, so that a receiver that comes later is told of what burns already, and one that a change of routes deprives
//! of an alert it was told of is told that it is over.

mod groups;
mod key;
mod life;
mod pairs;

use std::collections::BTreeMap;

use radarflow_proto::fact::{OwnCondition, Receiver};
use radarflow_proto::payload::DueNotification;
use radarflow_proto::ports::Outcome;
use radarflow_proto::rows::StateRow;
use radarflow_reconcile::alert::{Condition, Subject};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, changes, collected};
use crate::keyed::{Context, Keyed, machine};
use crate::output::DerivedRow;
pub use groups::{GroupEvent, GroupKey};
use groups::{GroupOut, Groups, addressed};
pub use key::{AlertKey, ConditionChange, Conditions};
pub use life::{AlertEvent, AlertStep, MAX_PAST};
use life::{AlertOut, Alerts};
use pairs::Pairs;
pub(crate) use pairs::pairs_by_share;
pub use pairs::{MAX_PAIRS, MAX_PAIRS_OF_ADDRESS, PAIR_MS, PairEvent, PairShare, PairSubject};

/// What alerts come of.
pub struct Inputs<'scope> {
    /// Conditions, from whatever notices them.
    pub conditions: Conditions<'scope>,
    /// Traps that begin or end a condition.
    pub pairs: Events<'scope, Keyed<PairShare, (PairSubject, PairEvent)>>,
    /// What is wrong with the program itself.
    pub own: Events<'scope, (OwnCondition, isize)>,
    /// Steps that people ask for.
    pub steps: Events<'scope, Keyed<AlertKey, AlertEvent>>,
    /// Who is told.
    pub receivers: Rel<'scope, Receiver>,
    /// What became of notifications.
    pub deliveries: Events<'scope, Keyed<GroupKey, GroupEvent>>,
}

/// What comes of conditions.
pub struct Outputs<'scope> {
    /// Rows of the table of alerts.
    pub rows: Rel<'scope, StateRow>,
    /// Histories of alerts and of notifications.
    pub events: Events<'scope, DerivedRow>,
    /// What became of commands.
    pub outcomes: Events<'scope, Outcome>,
    /// Messages that should be sent until they are settled.
    pub due: Events<'scope, DueNotification>,
    /// Messages that are settled.
    pub settled: Events<'scope, String>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let pairs = machine(inputs.pairs, cx, Pairs(cx.shared_sizes()));
    let own = inputs.own.map(|(condition, diff)| own_condition(condition, diff));
    let conditions = inputs.conditions.concat(pairs).concat(own).map(|(key, condition, diff)| {
        let event = AlertEvent::Condition(condition, diff as i64);
        Keyed { key, position: 0, event }
    });
    let alerts = machine(conditions.concat(inputs.steps), cx, Alerts);
    let firing = collected(alerts.clone(), |out| match out {
        AlertOut::Firing(tenant, alert, diff) => Some(((tenant, alert), diff)),
        _ => None,
    });
    let receivers = inputs.receivers.map(|receiver| (receiver.tenant.clone(), receiver));
    let of_groups = firing.join_map(receivers, |_, alert, receiver| (receiver.clone(), alert.clone())).consolidate();
    let of_groups = changes(of_groups, |(receiver, alert), diff| addressed(receiver, alert, diff));
    let groups = machine(of_groups.concat(inputs.deliveries), cx, Groups);
    let alert_events = alerts.clone().flat_map(|out| match out {
        AlertOut::Happened(row) => Some(row),
        _ => None,
    });
    let group_events = groups.clone().flat_map(|out| match out {
        GroupOut::Happened(row) => Some(row),
        _ => None,
    });
    Outputs {
        rows: collected(alerts.clone(), |out| match out {
            AlertOut::Row(alert, diff) => Some((StateRow::from(alert), diff)),
            _ => None,
        }),
        events: alert_events.concat(group_events),
        outcomes: alerts.flat_map(|out| match out {
            AlertOut::Outcome(outcome) => Some(outcome),
            _ => None,
        }),
        due: groups.clone().flat_map(|out| match out {
            GroupOut::Due(due) => Some(due),
            _ => None,
        }),
        settled: groups.flat_map(|out| match out {
            GroupOut::Settled(id) => Some(id),
            _ => None,
        }),
    }
}

/// A condition of the program itself.
fn own_condition(c: OwnCondition, diff: isize) -> ConditionChange {
    let subject =
        Subject { tenant: c.tenant, partition: "default".to_owned(), rule: c.rule.clone(), entity: c.entity.clone() };
    let condition = Condition {
        rule: c.rule,
        severity: c.severity,
        title: c.title,
        description: c.description,
        source_type: "radarflow".to_owned(),
        source_id: c.entity,
        device_uid: None,
        agent_uid: None,
        labels: BTreeMap::new(),
    };
    (AlertKey::of_subject(subject), condition, diff)
}
