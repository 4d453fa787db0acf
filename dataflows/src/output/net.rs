//! The net change of each row of state at each epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use radarflow_proto::rows::{Change, StateRow, Table};
use serde::{Deserialize, Serialize};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;

use crate::collection::Events;
use crate::keyed::{Context, route};

/// A row of a state table, on its way to the worker that nets its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Update {
    table: Table,
    key: Arc<str>,
    row: StateRow,
    epoch: u64,
    diff: isize,
}

/// The net change of each key at each epoch, in the order of tables and keys. A row that is said and unsaid, by whatever
/// relations, is no change.
pub(super) fn net<'scope>(
    rows: Stream<'scope, u64, Vec<(StateRow, u64, isize)>>,
    cx: &Context,
) -> Events<'scope, Change> {
    let updates = rows.map(|(row, epoch, diff)| Update { table: row.table(), key: row.key().into(), row, epoch, diff });
    let first = cx.restored;
    let pact = Exchange::new(|u: &Update| route(&u.key));
    updates.unary_frontier(pact, "Net", move |capability, _| {
        let mut capability = Some(capability.delayed(&first));
        let mut stash: BTreeMap<u64, Vec<Update>> = BTreeMap::new();
        move |(input, frontier), output| {
            input.for_each(|_, data| {
                for update in data.drain(..) {
                    stash.entry(update.epoch).or_default().push(update);
                }
            });
            let Some(upper) = frontier.frontier().first().copied() else {
                capability = None;
                return;
            };
            let Some(held) = capability.as_mut() else { return };
            while let Some(entry) = stash.first_entry().filter(|e| *e.key() < upper) {
                let (epoch, updates) = entry.remove_entry();
                held.downgrade(&epoch);
                output.session(held).give_iterator(changes(updates, epoch).into_iter());
            }
            held.downgrade(&upper.max(first));
        }
    })
}

fn changes(mut updates: Vec<Update>, epoch: u64) -> Vec<Change> {
    updates.sort_unstable_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
    let mut updates = updates.into_iter().peekable();
    let mut changes = Vec::with_capacity(updates.len());
    while let Some(Update { table, key, row, diff, .. }) = updates.next() {
        // A key has few rows in an epoch.
        let mut net = vec![(row, diff)];
        while let Some(Update { row, diff, .. }) = updates.next_if(|u| u.table == table && u.key == key) {
            match net.iter_mut().find(|(known, _)| *known == row) {
                Some((_, n)) => *n += diff,
                None => net.push((row, diff)),
            }
        }
        let mut change = Change { table, key, before: None, after: None };
        for (row, diff) in net {
            match diff {
                0 => {}
                // What bears its epoch already was changed then, whenever it is told.
                1.. if row.epoch() != 0 => change.after = Some(row),
                1.. => change.after = Some(row.at(epoch)),
                _ => change.before = Some(row),
            }
        }
        if change.before.is_some() || change.after.is_some() {
            changes.push(change);
        }
    }
    changes
}
