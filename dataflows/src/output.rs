//! What the workers say about an epoch, merged into one [`EpochOutput`]: complete, in order, the same for any number
//! of workers.
//!
//! Rows that the dataflow itself makes (health events, alert history, notifications) have no input position; they are
//! sorted by content and numbered here, so that their `row_id` is a function of the ledger too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use radarflow_proto::cell::RowId;
use radarflow_proto::fact::Fact;
use radarflow_proto::payload::DueNotification;
use radarflow_proto::ports::{EpochOutput, Outcome};
use radarflow_proto::record::RecordKey;
use radarflow_proto::rows::{
    AlertHistory, AttributionCorrection, BatchBuilder, Change, Event, HealthEvent, MergeAudit, Notification, Row,
    StateRow, Table,
};
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::operator::Operator;
use timely::dataflow::operators::vec::Map;

use crate::keyed::{Context, Restored, StateEntry, Tick, encode, route};

macro_rules! derived {
    ($($row:ident $batch:ident),* $(,)?) => {
        /// A row of an event table that the dataflow itself makes; its `row_id` and `epoch` are set here.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum DerivedRow { $( $row(Box<$row>), )* }

        $(
            impl From<$row> for DerivedRow {
                fn from(row: $row) -> Self {
                    DerivedRow::$row(row.into())
                }
            }
        )*

        impl DerivedRow {
            fn tenant(&self) -> &str {
                match self { $( DerivedRow::$row(row) => &row.tenant_id, )* }
            }
        }

        /// Derived rows of one tenant.
        #[derive(Default)]
        struct Batches { $( $batch: <$row as Row>::Batch, )* }

        impl Batches {
            fn push(&mut self, row: DerivedRow, row_id: RowId, epoch: u64) {
                match row {
                    $( DerivedRow::$row(mut row) => {
                        (row.row_id, row.epoch) = (row_id, epoch as i64);
                        self.$batch.push(&row);
                    } )*
                }
            }

            fn finish(mut self) -> impl Iterator<Item = (Table, RecordBatch)> {
                [$( (<$row as Row>::TABLE, self.$batch.finish()), )*].into_iter().filter(|(_, batch)| batch.num_rows() > 0)
            }
        }
    };
}

derived! {
    HealthEvent health,
    AlertHistory history,
    Event events,
    Notification notifications,
    MergeAudit merges,
    AttributionCorrection corrections,
}

/// One thing a worker says at an epoch.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Said {
    Change(Change),
    Rows(Table, String, RecordBatch),
    Derived(DerivedRow),
    Due(Box<DueNotification>),
    Settled(String),
    Fact(Box<Fact>),
    Outcome(Outcome),
    Reaped(RecordKey, String),
}

/// Everything one worker says about one epoch.
#[derive(Debug)]
pub struct WorkerEpoch {
    /// Which worker.
    pub worker: usize,
    /// The epoch and its clock.
    pub tick: Tick,
    /// What it says.
    pub said: Vec<Said>,
    /// State for the snapshot after this epoch; `None` where none was asked for.
    pub snapshot: Option<Vec<StateEntry>>,
}

/// Sends what a worker says, epoch by epoch, as each completes. The stream it returns carries nothing; its frontier
/// tells which epochs were sent.
pub fn send<'scope>(
    said: Stream<'scope, u64, Vec<Said>>,
    cx: &Context,
    to: SyncSender<WorkerEpoch>,
) -> Stream<'scope, u64, Vec<()>> {
    let cx = cx.clone();
    said.unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "Output", move |capability, _| {
        let mut capability = Some(capability);
        let mut stash: BTreeMap<u64, Vec<Said>> = BTreeMap::new();
        let mut next = cx.restored;
        move |(input, frontier), _output| {
            input.for_each(|time, data| {
                let epoch = *time.least().expect("output is stamped with an epoch");
                stash.entry(epoch).or_default().append(data);
            });
            let Some(upper) = frontier.frontier().first().copied() else {
                capability = None;
                return;
            };
            while next < upper {
                // What was restored is said at the snapshot's epoch, whose frame is not read again.
                let tick = cx.tick(next).unwrap_or(Tick { epoch: next, clock_ms: 0, live_ms: 0 });
                let snapshot = cx.wants_snapshot(next).then(|| cx.saved(next));
                let said = stash.remove(&next).unwrap_or_default();
                // The receiver is gone only when the process is ending.
                let _ = to.send(WorkerEpoch { worker: cx.index, tick, said, snapshot });
                next += 1;
            }
            if let Some(held) = capability.as_mut() {
                held.downgrade(&upper);
            }
        }
    })
}

/// Merges the workers' epochs.
pub struct Merge {
    workers: usize,
    waiting: BTreeMap<u64, Vec<WorkerEpoch>>,
    /// By tenant: time of the newest event that was attributed, microseconds; and whether the last snapshot lacks it.
    newest: BTreeMap<String, (i64, bool)>,
}

/// Collection of a snapshot: by tenant, time of the newest event that was attributed.
const NEWEST: &str = "newest_attributed";

/// One complete epoch.
#[derive(Debug)]
pub struct Merged {
    /// For the sinks.
    pub output: EpochOutput,
    /// For the snapshot writer, where it was asked for.
    pub snapshot: Option<Vec<StateEntry>>,
}

impl Merge {
    /// Merges what so many workers say that were started with some state.
    pub fn new(workers: usize, state: &Restored) -> Self {
        let newest = state.get(NEWEST).into_iter().flatten().map(|(tenant, time)| {
            let tenant = postcard::from_bytes(tenant).expect("a snapshot's key reads back");
            (tenant, (postcard::from_bytes(time).expect("a snapshot's state reads back"), false))
        });
        Merge { workers, waiting: BTreeMap::new(), newest: newest.collect() }
    }

    /// Takes in one worker's epoch; gives the epoch when it is the last worker's.
    pub fn push(&mut self, epoch: WorkerEpoch) -> Option<Merged> {
        let n = epoch.tick.epoch;
        let waiting = self.waiting.entry(n).or_default();
        waiting.push(epoch);
        if waiting.len() < self.workers {
            return None;
        }
        let mut all = self.waiting.remove(&n)?;
        all.sort_by_key(|e| e.worker);
        Some(self.merge(all))
    }

    /// Whether something stored before could have been attributed otherwise.
    fn matters(&self, row: &DerivedRow) -> bool {
        match row {
            DerivedRow::AttributionCorrection(c) => {
                self.newest.get(&c.tenant_id).is_some_and(|(at, _)| *at >= c.valid_from.0)
            }
            _ => true,
        }
    }

    /// Keeps in mind how new the events are.
    fn attributed(&mut self, events: &[(Table, RecordBatch)]) {
        for (table, batch) in events {
            if !table.attributed().is_empty() && batch.num_rows() > 0 {
                let column = |name| batch.column_by_name(name).expect("what is attributed has a tenant and a time");
                let times = column("time").as_primitive::<TimestampMicrosecondType>().values();
                let newest = times.iter().copied().max().unwrap_or(i64::MIN);
                let tenant = column("tenant_id").as_string::<i32>().value(0);
                let known = self.newest.entry(tenant.to_owned()).or_insert((i64::MIN, false));
                if newest > known.0 {
                    *known = (newest, true);
                }
            }
        }
    }

    fn snapshot(&mut self) -> impl Iterator<Item = StateEntry> {
        let dirty = self.newest.iter_mut().filter(|(_, (_, dirty))| *dirty);
        dirty.map(|(tenant, (at, dirty))| {
            *dirty = false;
            StateEntry { collection: NEWEST, key: encode(tenant), value: Some(encode(at)) }
        })
    }

    fn merge(&mut self, workers: Vec<WorkerEpoch>) -> Merged {
        let tick = workers[0].tick;
        let mut output = EpochOutput { epoch: tick.epoch, clock_ms: tick.clock_ms, ..EpochOutput::default() };
        let mut rows: BTreeMap<(Table, String), Vec<RecordBatch>> = BTreeMap::new();
        let mut derived = Vec::new();
        let mut snapshot = None;
        for worker in workers {
            for said in worker.said {
                match said {
                    Said::Change(change) => output.changes.push(change),
                    Said::Rows(table, tenant, batch) => rows.entry((table, tenant)).or_default().push(batch),
                    Said::Derived(row) if self.matters(&row) => derived.push(row),
                    Said::Derived(_) => {}
                    Said::Due(due) => output.due.push(*due),
                    Said::Settled(id) => output.settled.push(id),
                    Said::Fact(fact) => output.facts.push(*fact),
                    Said::Outcome(outcome) => output.outcomes.push(outcome),
                    Said::Reaped(record, partition) => output.reaped.push((record, partition)),
                }
            }
            if let Some(entries) = worker.snapshot {
                snapshot.get_or_insert_with(Vec::new).extend(entries);
            }
        }
        output.due.sort_by(|a, b| a.id.cmp(&b.id));
        output.settled.sort();
        output.outcomes.sort();
        output.reaped.sort();
        // Every worker has its keys in order: this merges.
        output.changes.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        for ((table, _), batches) in rows {
            output.events.extend(batches.into_iter().map(|batch| (table, batch)));
        }
        derived.sort();
        self.attributed(&output.events);
        number(derived, tick.epoch, &mut output.events);
        if let Some(entries) = &mut snapshot {
            entries.extend(self.snapshot());
        }
        Merged { output, snapshot }
    }
}

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
pub fn net<'scope>(
    rows: Stream<'scope, u64, Vec<(StateRow, u64, isize)>>,
    cx: &Context,
) -> Stream<'scope, u64, Vec<Change>> {
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

/// Numbers derived rows in their order and makes batches of them, one a table and tenant.
fn number(rows: Vec<DerivedRow>, epoch: u64, out: &mut Vec<(Table, RecordBatch)>) {
    let mut by_tenant: BTreeMap<String, Batches> = BTreeMap::new();
    for (index, row) in rows.into_iter().enumerate() {
        let row_id = RowId::new(epoch, u32::MAX >> 1, index as u32);
        by_tenant.entry(row.tenant().to_owned()).or_default().push(row, row_id, epoch);
    }
    out.extend(by_tenant.into_values().flat_map(Batches::finish));
}
