//! The audit of identity: every time a record moves from one device to another.
//!
//! ```text
//! moved(r, u, v)(e) :- r was in the device called u before e, and is in the one called v from e on
//! ```
//! A record that appears or leaves has moved nowhere; nor has one whose device is only called otherwise, but that is told
//! as well, because whoever stored the old name has to know.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::cell::{RowId, Time};
use radarflow_proto::rows::MergeAudit;
use radarflow_reconcile::identity::name::{Name, identifier_uid, seed};
use radarflow_reconcile::identity::top;
use serde::{Deserialize, Serialize};

use crate::collection::{Events, Rel, changes};
use crate::identity::How;
use crate::keyed::{Context, Keyed, Machine, Tick, machine};
use crate::output::DerivedRow;
use crate::records::Live;

/// What is audited.
pub struct Inputs<'scope> {
    /// By record, why it is in its device, and what that is called.
    pub placed: Rel<'scope, (Live, How, Arc<str>)>,
}

/// The audit.
pub struct Outputs<'scope> {
    /// Rows of `merges`.
    pub events: Events<'scope, DerivedRow>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let moves = changes(inputs.placed, |(live, how, uid), diff| Keyed {
        key: live.key,
        position: 0,
        event: Moved { live, how, uid, diff: diff as i64 },
    });
    Outputs { events: machine(moves, cx, Merges) }
}

/// A record came into a device (1), or left it (-1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Moved {
    live: Live,
    /// What put it there.
    how: How,
    /// What the device is called.
    uid: Arc<str>,
    diff: i64,
}

/// Sees records move.
struct Merges;

impl Machine for Merges {
    type Key = Name;
    type Event = Moved;
    type State = ();
    type Output = DerivedRow;
    const NAME: &'static str = "merges";

    fn step(&mut self, tick: &Tick, _: &Name, _: &mut Option<()>, events: Vec<Moved>, out: &mut Vec<DerivedRow>) {
        let mut by_uid: BTreeMap<Arc<str>, (i64, Moved)> = BTreeMap::new();
        for event in events {
            let slot = by_uid.entry(event.uid.clone()).or_insert_with(|| (0, event.clone()));
            slot.0 += event.diff;
            // Of what is said of one device the newest counts: what came, before what left.
            if (event.diff, &event) > (slot.1.diff, &slot.1) {
                slot.1 = event;
            }
        }
        let from = by_uid.values().find(|(n, _)| *n < 0).map(|(_, moved)| moved);
        let to = by_uid.values().find(|(n, _)| *n > 0).map(|(_, moved)| moved);
        if let (Some(from), Some(to)) = (from, to) {
            out.push(DerivedRow::from(row(tick, from, to)));
        }
    }

    fn due_ms(&self, (): &()) -> Option<i64> {
        None
    }

    fn restored(&mut self, _: &Name, (): &(), _: &mut Vec<DerivedRow>) {}
}

fn row(tick: &Tick, from: &Moved, to: &Moved) -> MergeAudit {
    let record = to.live.record();
    // A record that is called by its own identifier again was let go by what held it elsewhere.
    let own = top(&record).map(|id| identifier_uid(&record.partition, id));
    let alone = to.how == How::Itself || own.is_some_and(|own| *own == *to.uid);
    let reason = if alone { How::Itself } else { to.how };
    let key = &record.key;
    let macs = record.macs.iter().map(|m| format!("mac:{m}"));
    MergeAudit {
        tenant_id: key.tenant.clone(),
        partition: record.partition.clone(),
        row_id: RowId::default(),
        epoch: 0,
        time: Time::from_ms(tick.clock_ms),
        record: format!("{}/{}/{}", key.kind.name(), key.instance, key.key),
        from_uid: from.uid.to_string(),
        to_uid: to.uid.to_string(),
        reason: reason.name().to_owned(),
        witnesses: record
            .ids
            .iter()
            .map(seed)
            .chain(macs)
            .chain(record.ips.iter().map(|ip| format!("ip:{ip}")))
            .collect(),
        device_uid: Some(to.uid.to_string()),
    }
}
