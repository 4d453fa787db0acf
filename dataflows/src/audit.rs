//! The audit: what was stated, and what became of it, in one chain a tenant.
//!
//! ```text
//! facts, runs (decoder) ─┐
//!                        ├─► [a tenant's in one place, in the order of the ledger] ─► rows, each with the hash of the one before
//! commands (resources) ──┘
//! ```
//! What the hash is over: [`radarflow_proto::audit`]. The end of each chain is snapshotted; a chain begins with the first row that
//! a version made which knows of chains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use radarflow_proto::audit::hash;
use radarflow_proto::cell::RowId;
use radarflow_proto::rows::Audit;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use crate::collection::Events;
use crate::keyed::{Context, Keyed, StateEntry, encode, route};
use crate::output::DerivedRow;

/// The ends of chains in snapshots, by tenant.
const CHAINS: &str = "audit";

/// Where the chain of a tenant ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    /// Its last row.
    sequence: i64,
    /// The hash of that.
    hash: String,
}

impl End {
    /// Adds a row.
    fn chain(&mut self, row: &mut Audit, epoch: u64) {
        self.sequence += 1;
        (row.row_id, row.epoch) = (RowId::new(0, 0, 0), epoch as i64);
        row.sequence = Some(self.sequence);
        row.previous = (self.sequence > 1).then(|| std::mem::take(&mut self.hash));
        self.hash = hash(row);
        row.hash = Some(self.hash.clone());
    }
}

/// What the audit is made of: rows, by tenant, at their positions in the ledger.
pub struct Inputs<'scope> {
    /// What is to be told.
    pub told: Events<'scope, Keyed<String, Box<Audit>>>,
}

/// Builds it.
pub fn build<'scope>(cx: &Context, inputs: Inputs<'scope>) -> Events<'scope, DerivedRow> {
    let cx = cx.clone();
    let pact = Exchange::new(|row: &Keyed<String, Box<Audit>>| route(&row.key));
    inputs.told.unary_frontier(pact, "Audit", move |capability, _| {
        let kept = cx.sizes().machine(CHAINS, cx.index);
        let mut capability = Some(capability.delayed(&cx.restored));
        let mut stash: BTreeMap<u64, Vec<Keyed<String, Box<Audit>>>> = BTreeMap::new();
        let mut ends: BTreeMap<String, End> =
            cx.restore_where(CHAINS, |tenant: &String| route(tenant)).into_iter().collect();
        let mut changed: BTreeSet<String> = BTreeSet::new();
        let mut next = cx.restored + 1;
        move |(input, frontier), output| {
            input.for_each(|time, data| {
                let epoch = *time.least().expect("rows are stamped with an epoch");
                stash.entry(epoch).or_default().append(data);
            });
            let Some(upper) = frontier.frontier().first().copied() else {
                capability = None;
                return;
            };
            let Some(held) = capability.as_mut() else { return };
            while next < upper {
                if let Some(mut rows) = stash.remove(&next) {
                    // Of one position are the operations of a command, numbered by their row ids.
                    rows.sort_by(|a, b| (a.position, &a.event).cmp(&(b.position, &b.event)));
                    held.downgrade(&next);
                    let mut session = output.session(held);
                    for Keyed { key, event: mut row, .. } in rows {
                        ends.entry(key.clone()).or_default().chain(&mut row, next);
                        changed.insert(key);
                        session.give(DerivedRow::Audit(row));
                    }
                }
                if cx.wants_snapshot(next) {
                    let entry = |tenant: String| StateEntry {
                        collection: CHAINS,
                        key: encode(&tenant),
                        value: ends.get(&tenant).map(encode::<End>),
                    };
                    cx.save(next, std::mem::take(&mut changed).into_iter().map(entry).collect());
                }
                next += 1;
            }
            held.downgrade(&upper.max(cx.restored));
            kept.store(ends.len() as i64, Ordering::Relaxed);
        }
    })
}
