//! What the workers say about an epoch, merged into one [`EpochOutput`]: complete, in order, the same for any number of
//! workers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use radarflow_proto::fact::Fact;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::resource::ResourceChange;
use radarflow_proto::rows::Table;

use super::derived::{DerivedRow, number};
use super::{Output, WorkerEpoch};
use crate::keyed::{Restored, StateEntry, encode};

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
            for part in worker.outputs {
                match part {
                    Output::Change(change) => output.changes.push(change),
                    Output::Rows(table, tenant, batch) => rows.entry((table, tenant)).or_default().push(batch),
                    Output::Derived(row) if self.matters(&row) => derived.push(row),
                    Output::Derived(_) => {}
                    Output::Due(due) => output.due.push(*due),
                    Output::Settled(id) => output.settled.push(id),
                    Output::Fact(fact) => output.facts.push(Arc::unwrap_or_clone(fact)),
                    Output::Resource(change) => output.resources.push(change),
                    Output::Judgement(judgement) => output.judgements.push(judgement),
                    Output::Outcome(outcome) => output.outcomes.push(outcome),
                    Output::Configuration(of) => output.configurations.push(of),
                    Output::Command(of) => output.commands.push(of),
                    Output::Reaped(record, partition) => output.reaped.push((record, partition)),
                }
            }
            if let Some(entries) = worker.snapshot {
                snapshot.get_or_insert_with(Vec::new).extend(entries);
            }
        }
        output.facts.sort_by_cached_key(Fact::subject);
        output.due.sort_by(|a, b| a.id.cmp(&b.id));
        output.settled.sort();
        output.outcomes.sort();
        output.configurations.sort();
        output.commands.sort();
        // A tenant is judged on one worker: what happened to one resource stays in the order in which it happened.
        let of = |change: &ResourceChange| {
            let of = change.after.as_ref().or(change.before.as_ref());
            of.map(|of| (of.tenant.clone(), of.resource.clone(), of.id.clone()))
        };
        output.resources.sort_by_cached_key(of);
        output.judgements.sort();
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
