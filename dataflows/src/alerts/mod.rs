//! From conditions to notifications.
//!
//! ```text
//! traps, resources ─► [clear pairs] ─► conditions (Δ) ⋈ policies of escalation
//! conditions (Δ) ─► [alerts: life cycle] ─► alert rows Δ, history, burning alerts Δ
//! burning alerts, devices, resources (Δ) ─► [desks: a tenant in one place] ─► who is told, and what is held (Δ)
//! who is told (Δ) ─► [groups: wait, pace, repeat] ─► due notifications, how each alert stands (Δ)
//! deliveries (facts) ──────────▲───────────────────┴─► [letters] ─► due again
//! ```
//! A condition is a row of a collection: it holds as long as the row is there. Who is told of what follows from what burns and
//! from what stands: a receiver that comes later is told of what burns already, and one that a change of routes deprives
//! of an alert it was told of is told that it is over.

mod desks;
mod groups;
mod key;
mod letters;
mod life;
mod older;
mod pairs;
mod tolls;
mod traps;

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::fact::OwnCondition;
use radarflow_proto::payload::DueNotification;
use radarflow_proto::ports::Outcome;
use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::{Alert, Device, StateRow, Table};
use radarflow_reconcile::alert::{Condition, Subject, labels};
use radarflow_reconcile::resources::escalation::Policy;
use radarflow_reconcile::resources::told;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

use crate::collection::{Events, Rel, changes, collected};
use crate::keyed::{Context, Keyed, machine};
use crate::output::DerivedRow;
pub(crate) use desks::desks_that_remember;
pub use groups::{GroupEvent, GroupKey, Settled};
use groups::{GroupOut, Groups};
pub use key::{AlertKey, ConditionChange, Conditions};
pub use letters::{LETTER_BYTES, LETTER_MS, LetterEvent, LetterKey, MAX_LETTERS};
use letters::{LetterOut, Letters};
pub use life::{AlertEvent, AlertStep, MAX_PAST};
use life::{AlertOut, Alerts};
pub(crate) use older::{
    alerts_with_levels, groups_of_addresses, pairs_by_share, pairs_with_measurements, pairs_with_worth,
};
use pairs::Pairs;
pub use pairs::{MAX_PAIRS, MAX_PAIRS_OF_ADDRESS, PAIR_MS, Worth};
use tolls::{Toll, TollEvent, Tolls};
pub use traps::Notice;

/// What alerts come of.
pub struct Inputs<'scope> {
    /// Conditions, from whatever notices them.
    pub conditions: Conditions<'scope>,
    /// Traps, which may begin or end a condition.
    pub notices: Events<'scope, Notice>,
    /// What is wrong with the program itself.
    pub own: Events<'scope, (OwnCondition, isize)>,
    /// Steps that people ask for.
    pub steps: Events<'scope, Keyed<AlertKey, AlertEvent>>,
    /// What became of resources: receivers, routes and what else says who is told.
    pub resources: Events<'scope, ResourceChange>,
    /// Devices, as they are shown.
    pub devices: Rel<'scope, Arc<Device>>,
    /// What became of notifications.
    pub deliveries: Events<'scope, Keyed<GroupKey, GroupEvent>>,
    /// Messages that are to be sent again.
    pub replays: Events<'scope, Keyed<LetterKey, LetterEvent>>,
}

/// What comes of conditions.
pub struct Outputs<'scope> {
    /// Rows of the tables of alerts, of how they are told, and of dead letters.
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
    let pairs = machine(traps::told(cx, inputs.notices, inputs.resources.clone()), cx, Pairs(cx.shared_sizes()));
    let own = inputs.own.map(|(condition, diff)| own_condition(condition, diff));
    let conditions = inputs.conditions.concat(pairs).concat(own);
    let escalations = escalations(conditions.clone(), inputs.resources.clone());
    let conditions = conditions.map(|(key, condition, diff)| {
        let event = AlertEvent::Condition(condition, diff as i64);
        Keyed { key, position: 0, event }
    });
    let alerts = machine(conditions.concat(escalations).concat(inputs.steps), cx, Alerts);
    let burning = collected(alerts.clone(), |out| match out {
        AlertOut::Burning(tenant, burning, diff) => Some(((tenant, burning), diff)),
        _ => None,
    });
    let addresses = inputs.resources.clone();
    let desks = desks::build(cx, inputs.resources, inputs.devices, burning);
    let groups = machine(desks.groups.concat(inputs.deliveries.clone()), cx, Groups);
    let dead = groups.clone().flat_map(|out| match out {
        GroupOut::Dead(due, detail) => {
            let key = LetterKey { tenant: due.tenant.clone(), receiver: due.receiver.name.clone() };
            Some(Keyed { key, position: 0, event: LetterEvent::Dead(due, detail) })
        }
        _ => None,
    });
    let settled = inputs.deliveries.flat_map(|Keyed { key, position, event }| match event {
        GroupEvent::Settled(settled) => {
            let key = LetterKey { tenant: key.tenant, receiver: key.receiver };
            Some(Keyed { key, position, event: LetterEvent::Settled(settled) })
        }
        _ => None,
    });
    let addresses = addresses.flat_map(|ResourceChange { before, after }| {
        let of = after.as_ref().or(before.as_ref()).filter(|of| of.resource == Table::Receiver.name())?;
        let key = LetterKey { tenant: of.tenant.clone(), receiver: of.id.clone() };
        let now = after.as_deref().and_then(told::receiver);
        Some(Keyed { key, position: 0, event: LetterEvent::Address(now) })
    });
    let letters = machine(dead.concat(settled).concat(addresses).concat(inputs.replays), cx, Letters);

    let of_alerts = alerts.clone().flat_map(|out| match out {
        AlertOut::Happened(row) => Some(row),
        _ => None,
    });
    let of_groups = groups.clone().flat_map(|out| match out {
        GroupOut::Happened(row) => Some(row),
        _ => None,
    });
    let of_letters = letters.clone().flat_map(|out| match out {
        LetterOut::Happened(row) => Some(row),
        _ => None,
    });
    let outcomes = alerts.clone().flat_map(|out| match out {
        AlertOut::Outcome(outcome) => Some(outcome),
        _ => None,
    });
    let due = groups.clone().flat_map(|out| match out {
        GroupOut::Due(due) => Some(due),
        _ => None,
    });
    let settled = groups.clone().flat_map(|out| match out {
        GroupOut::Settled(id) => Some(id),
        _ => None,
    });
    let notices = collected(groups.clone(), |out| match out {
        GroupOut::Notice(row, diff) => Some((StateRow::from(row), diff)),
        _ => None,
    });
    let dead_letters = collected(letters.clone(), |out| match out {
        LetterOut::Row(row, diff) => Some((StateRow::from(row), diff)),
        _ => None,
    });
    Outputs {
        rows: counted(cx, alerts, groups).concat(notices).concat(dead_letters).concat(desks.on_call),
        events: of_alerts.concat(of_groups).concat(of_letters),
        outcomes: outcomes.concat(letters.clone().flat_map(|out| match out {
            LetterOut::Outcome(outcome) => Some(outcome),
            _ => None,
        })),
        due: due.concat(letters.clone().flat_map(|out| match out {
            LetterOut::Due(due) => Some(due),
            _ => None,
        })),
        settled: settled.concat(letters.flat_map(|out| match out {
            LetterOut::Settled(id) => Some(id),
            _ => None,
        })),
    }
}

/// Policies of escalation that are kept read.
const READ_AT_ONCE: usize = 1000;

/// What policies of escalation say of each condition.
fn escalations<'scope>(
    conditions: Conditions<'scope>,
    resources: Events<'scope, ResourceChange>,
) -> Events<'scope, Keyed<AlertKey, AlertEvent>> {
    let policies = collected(
        resources.flat_map(|ResourceChange { before, after }| {
            let changes = before.map(|before| (before, -1)).into_iter().chain(after.map(|after| (after, 1)));
            changes.filter(|(of, _)| of.resource == Table::EscalationPolicy.name()).collect::<Vec<_>>()
        }),
        |(policy, diff)| Some(((policy.tenant.clone(), policy), diff)),
    );
    let conditions =
        collected(conditions, |(key, condition, diff)| Some(((key.tenant.clone(), (key, condition)), diff)));
    // Read once, not at every condition.
    let mut read: BTreeMap<Arc<Resource>, Option<Policy>> = BTreeMap::new();
    let said = conditions.join_map(policies, move |_, (key, condition), resource| {
        if !read.contains_key(resource) {
            if read.len() >= READ_AT_ONCE {
                read.clear();
            }
            read.insert(resource.clone(), Policy::read(resource));
        }
        let labels = key.subject.as_ref().map(|subject| labels(subject, condition));
        let policy = read.get(resource).and_then(Option::as_ref);
        (key.clone(), labels.and_then(|labels| policy?.of(&labels)))
    });
    let said = said.flat_map(|(key, said)| said.map(|said| (key, said)));
    changes(said, |(key, said), diff| {
        let event = AlertEvent::Escalation(said, diff as i64);
        Keyed { key, position: 0, event }
    })
}

/// A row of an alert, or how often it was told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Counted {
    Row(Arc<Alert>),
    Toll(Toll),
}

/// Rows of alerts, with how often receivers were told.
fn counted<'scope>(
    cx: &Context,
    alerts: Events<'scope, AlertOut>,
    groups: Events<'scope, GroupOut>,
) -> Rel<'scope, StateRow> {
    let rows = alerts.clone().flat_map(|out| match out {
        AlertOut::Row(alert, diff) => {
            let key = (alert.tenant_id, alert.id);
            Some(Keyed { key, position: 0, event: TollEvent::Row(diff as i64) })
        }
        _ => None,
    });
    let told = groups.flat_map(|out| match out {
        GroupOut::Told(tenant, alert, at_ms) => {
            Some(Keyed { key: (tenant, alert), position: 0, event: TollEvent::Told(at_ms) })
        }
        _ => None,
    });
    let tolls =
        collected(machine(rows.concat(told), cx, Tolls), |(key, toll, diff)| Some(((key, Counted::Toll(toll)), diff)));
    let rows = collected(alerts, |out| match out {
        AlertOut::Row(alert, diff) => {
            Some((((alert.tenant_id.clone(), alert.id.clone()), Counted::Row(alert.into())), diff))
        }
        _ => None,
    });
    let rows = rows.concat(tolls).reduce_named("Tolls", |_, said, out| {
        let row = said.iter().find_map(|(of, _)| if let Counted::Row(row) = of { Some(row) } else { None });
        let toll = said.iter().find_map(|(of, _)| if let Counted::Toll(toll) = of { Some(toll) } else { None });
        let Some(row) = row else { return };
        let mut row = row.clone();
        if let Some(toll) = toll {
            let row = Arc::make_mut(&mut row);
            (row.notification_count, row.last_notification_at) = (toll.count, Some(toll.last));
        }
        out.push((row, 1));
    });
    rows.map(|(_, row)| StateRow::Alert(row))
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
        ..Condition::default()
    };
    (AlertKey::of_subject(subject), condition, diff)
}
