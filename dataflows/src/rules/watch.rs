//! Which rows are like which rule, on the worker where the rows are: tallied by group and step, so that few numbers go on.
//!
//! Rows of state are kept, by reference: a rule that comes later holds of what is there. Rules are those of the epoch: an epoch's
//! rules count before its rows.

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::RecordBatch;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::{StateRow, Table, state_batch};
use radarflow_reconcile::rules::Rule;
use radarflow_reconcile::rules::Tally;
use radarflow_reconcile::rules::rule::{Contribution, GroupOf};
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OperatorInfo;
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::{Concat, vec::Map};

use super::Stated;
use super::index::Index;
use crate::collection::{Events, Rel};
use crate::keyed::Context;
use crate::output::{DerivedRow, batches_of};

/// Rows of state that are read at once.
const AT_ONCE: usize = 8192;

/// What a worker counted for a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) tenant: String,
    pub(super) rule: String,
    pub(super) group: GroupOf,
    pub(super) part: Part,
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Part {
    /// Of events, by step.
    Steps(BTreeMap<i64, Vec<Tally>>),
    /// Of current state: what comes and what goes.
    Standing(Vec<Tally>),
}

/// What came of an epoch that is not complete.
#[derive(Default)]
struct Waiting {
    stated: Vec<Stated>,
    batches: Vec<(Table, String, RecordBatch)>,
    rows: Vec<(StateRow, isize)>,
}

/// The rules, and the rows of state that are here.
#[derive(Default)]
struct Watch {
    rules: BTreeMap<(String, Table), Index>,
    /// The table of each rule.
    tables: BTreeMap<(String, String), Table>,
    rows: BTreeMap<(String, Table), BTreeSet<StateRow>>,
}

fn tenant_of(row: &StateRow) -> Option<(&str, Table)> {
    Some(match row {
        StateRow::Device(row) => (&row.tenant_id, Table::Device),
        StateRow::Agent(row) => (&row.tenant_id, Table::Agent),
        StateRow::Source(row) => (&row.tenant_id, Table::Source),
        StateRow::Job(row) => (&row.tenant_id, Table::Job),
        StateRow::Command(row) => (&row.tenant_id, Table::Command),
        StateRow::TopologyLink(row) => (&row.tenant_id, Table::TopologyLink),
        StateRow::ServiceState(row) => (&row.tenant_id, Table::ServiceState),
        StateRow::Interface(row) => (&row.tenant_id, Table::Interface),
        _ => return None,
    })
}

fn standing(rule: &Rule, batch: &RecordBatch, rows: &[usize], diffs: &[i64], out: &mut Vec<Counted>) {
    let mut groups = BTreeMap::new();
    rule.standing(batch, rows.iter().map(|row| (*row, diffs[*row])), &mut groups);
    let (tenant, name) = (&rule.tenant, &rule.name);
    out.extend(groups.into_iter().map(|(group, tallies)| {
        let part = Part::Standing(tallies);
        Counted { tenant: tenant.clone(), rule: name.clone(), group, part }
    }));
}

impl Watch {
    /// A rule stands, or stands no more; tells which holds of other rows than before.
    fn state(&mut self, tenant: String, name: String, rule: Option<&Resource>) -> Option<(String, Table, String)> {
        let key = (tenant, name);
        let was = self.tables.remove(&key).and_then(|table| {
            let of = (key.0.clone(), table);
            let index = self.rules.get_mut(&of)?;
            let was = index.remove(&key.1);
            if index.is_empty() {
                self.rules.remove(&of);
            }
            was
        });
        // What was right when it was stated and is not any more is not followed; the row says that it is there.
        let rule = rule.and_then(|rule| Rule::of(rule).ok())?;
        let table = rule.entity.table;
        let anew = rule.span_ms.is_none() && was.is_none_or(|was| was.form != rule.form);
        self.tables.insert(key.clone(), table);
        self.rules.entry((key.0.clone(), table)).or_default().insert(rule);
        anew.then_some((key.0, table, key.1))
    }

    fn step(&mut self, waiting: Waiting, clock_ms: Option<i64>, out: &mut Vec<Counted>) {
        let Waiting { stated, batches, rows } = waiting;
        let anew: BTreeSet<_> = stated
            .into_iter()
            .filter_map(|Stated { tenant, name, rule }| self.state(tenant, name, rule.as_deref()))
            .collect();
        for (tenant, table, name) in anew {
            let of = (tenant, table);
            let (Some(rule), Some(rows)) = (self.rules.get(&of).and_then(|index| index.get(&name)), self.rows.get(&of))
            else {
                continue;
            };
            let rows: Vec<&StateRow> = rows.iter().collect();
            for rows in rows.chunks(AT_ONCE) {
                let batch = state_batch(table, rows.iter().copied());
                let (all, diffs): (Vec<usize>, Vec<i64>) = (0..rows.len()).map(|row| (row, 1)).unzip();
                standing(rule, &batch, &all, &diffs, out);
            }
        }
        let mut net: BTreeMap<(String, Table), BTreeMap<StateRow, i64>> = BTreeMap::new();
        for (row, diff) in rows {
            if let Some((tenant, table)) = tenant_of(&row) {
                let of = net.entry((tenant.to_owned(), table)).or_default();
                *of.entry(row).or_default() += diff as i64;
            }
        }
        for (of, rows) in net {
            let changed: Vec<(StateRow, i64)> = rows.into_iter().filter(|(_, diff)| *diff != 0).collect();
            if let Some(index) = self.rules.get(&of) {
                for rows in changed.chunks(AT_ONCE) {
                    let batch = state_batch(of.1, rows.iter().map(|(row, _)| row));
                    let diffs: Vec<i64> = rows.iter().map(|(_, diff)| *diff).collect();
                    for (rule, rows) in index.candidates(&batch) {
                        standing(rule, &batch, &rows, &diffs, out);
                    }
                }
            }
            let kept = self.rows.entry(of).or_default();
            for (row, diff) in changed {
                if diff > 0 {
                    kept.insert(row);
                } else {
                    kept.remove(&row);
                }
            }
        }
        let Some(clock_ms) = clock_ms else { return };
        let mut counted: BTreeMap<(String, String), Contribution> = BTreeMap::new();
        for (table, tenant, batch) in batches {
            let Some(index) = self.rules.get(&(tenant.clone(), table)) else { continue };
            for (rule, rows) in index.candidates(&batch) {
                let into = counted.entry((tenant.clone(), rule.name.clone())).or_default();
                rule.events(&batch, rows.into_iter(), clock_ms, into);
            }
        }
        for ((tenant, rule), groups) in counted {
            out.extend(groups.into_iter().map(|(group, steps)| {
                let part = Part::Steps(steps);
                Counted { tenant: tenant.clone(), rule: rule.clone(), group, part }
            }));
        }
    }
}

/// One of the things that are watched.
#[derive(Clone)]
enum Seen {
    Batch(Table, String, RecordBatch),
    Row(StateRow, u64, isize),
    Happened(DerivedRow),
}

/// Counts rows for the groups of the rules that they are like.
pub(super) fn watch<'scope>(
    cx: &Context,
    stated: Events<'scope, Stated>,
    batches: Events<'scope, (Table, String, RecordBatch)>,
    events: Events<'scope, DerivedRow>,
    state: Rel<'scope, StateRow>,
) -> Events<'scope, Counted> {
    let seen = batches
        .map(|(table, tenant, batch)| Seen::Batch(table, tenant, batch))
        .concat(events.map(Seen::Happened))
        .concat(state.inner.map(|(row, epoch, diff)| Seen::Row(row, epoch, diff)));
    let cx = cx.clone();
    seen.binary_frontier(stated, Pipeline, Pipeline, "WatchRules", move |capability, _: OperatorInfo| {
        let mut capability = Some(capability.delayed(&cx.restored));
        let mut watch = Watch::default();
        let mut waiting: BTreeMap<u64, Waiting> = BTreeMap::new();
        let mut happened: BTreeMap<u64, Vec<DerivedRow>> = BTreeMap::new();
        let mut out = Vec::new();
        move |(seen, of_seen), (stated, of_stated), output| {
            seen.for_each(|time, data| {
                let at = *time.least().expect("what is seen has an epoch");
                for seen in data.drain(..) {
                    match seen {
                        Seen::Batch(table, tenant, batch) => {
                            waiting.entry(at).or_default().batches.push((table, tenant, batch));
                        }
                        Seen::Row(row, epoch, diff) => waiting.entry(epoch).or_default().rows.push((row, diff)),
                        Seen::Happened(row) => happened.entry(at).or_default().push(row),
                    }
                }
            });
            stated.for_each(|time, data| {
                let at = *time.least().expect("what is stated has an epoch");
                waiting.entry(at).or_default().stated.append(data);
            });
            let upper = of_seen.frontier().iter().chain(of_stated.frontier().iter()).min().copied();
            let Some(held) = capability.as_mut() else { return };
            for (epoch, mut rows) in std::mem::take(&mut happened) {
                if upper.is_none_or(|upper| epoch < upper) {
                    rows.sort();
                    waiting.entry(epoch).or_default().batches.extend(batches_of(rows));
                } else {
                    happened.insert(epoch, rows);
                }
            }
            while let Some(entry) = waiting.first_entry().filter(|e| upper.is_none_or(|upper| *e.key() < upper)) {
                let (epoch, of) = entry.remove_entry();
                watch.step(of, cx.tick(epoch).map(|tick| tick.clock_ms), &mut out);
                held.downgrade(&epoch.max(*held.time()));
                output.session(held).give_iterator(out.drain(..));
            }
            match upper {
                Some(upper) => held.downgrade(&upper.max(cx.restored)),
                None => capability = None,
            }
        }
    })
}
