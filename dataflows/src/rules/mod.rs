//! Rules: what people want to be told of, kept right as rows come and go.
//!
//! ```text
//! rules ────────────────┬──────────────────────────────────┐ to every worker
//! rows of events ───────┤                                  │
//! rows of state (Δ) ─► [watch: which rows are like which   │
//!                       rule, tallied by group]            │
//!                               │ by group                 │
//!                               └─────────────────► [judge: having, for, resolve_for] ─► conditions (Δ)
//! ```
//! Rows stay where they are; only what a rule counts of them goes to the group that counts it. What a rule is and how a group
//! goes on is [`radarflow_reconcile::rules`].
//!
//! Nobody has to prove anything to make a group: whoever sends logs may name a thousand senders. So groups are bounded by tenant
//! and share ([`MAX_GROUPS_OF_SHARE`]), what is one too many is not counted, and what is not heard of any more is forgotten.

mod index;
mod judge;
mod watch;

use std::sync::Arc;

use arrow_array::RecordBatch;
use radarflow_proto::resource::{Resource, ResourceChange};
use radarflow_proto::rows::{Device, StateRow, Table};
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::{Broadcast, Map};

use crate::alerts::Conditions;
use crate::collection::{Events, Rel};
use crate::keyed::Context;
use crate::output::DerivedRow;
pub use judge::{MAX_BYTES_OF_SHARE, MAX_GROUPS_OF_SHARE};

/// What rules look at, and the rules.
pub struct Inputs<'scope> {
    /// What became of resources.
    pub resources: Events<'scope, ResourceChange>,
    /// Devices as they are shown.
    pub devices: Rel<'scope, Arc<Device>>,
    /// Other rows of state that rules follow.
    pub rows: Rel<'scope, StateRow>,
    /// Rows of events that inputs made.
    pub batches: Events<'scope, (Table, String, RecordBatch)>,
    /// Rows of events that the dataflow made.
    pub events: Events<'scope, DerivedRow>,
}

/// What comes of them.
pub struct Outputs<'scope> {
    /// What alerts come of.
    pub conditions: Conditions<'scope>,
}

/// A rule that stands, or stands no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Stated {
    tenant: String,
    name: String,
    rule: Option<Arc<Resource>>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Outputs<'scope> {
    let stated = inputs.resources.flat_map(|ResourceChange { before, after }| {
        let of = after.as_ref().or(before.as_ref())?;
        if of.resource != Table::Rule.name() {
            return None;
        }
        let (tenant, name) = (of.tenant.clone(), of.id.clone());
        Some(Stated { tenant, name, rule: after.filter(|rule| rule.flag("enabled")) })
    });
    let stated = stated.broadcast();
    let state = inputs.devices.map(StateRow::Device).concat(inputs.rows);
    let counted = watch::watch(cx, stated.clone(), inputs.batches, inputs.events, state);
    Outputs { conditions: judge::judge(cx, stated, counted) }
}
