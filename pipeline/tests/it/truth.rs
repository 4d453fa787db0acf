//! What became true, and must stay so, whatever process says it; and what an undisturbed run makes of the same frames.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::Decimal128Type;
use radarflow_dataflows::output::Merge;
use radarflow_dataflows::worker::{Start, Workers};
use radarflow_pipeline::consumers::Consumer;
use radarflow_proto::frame::Frame;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{StateRow, Table};

/// State tables, as outputs make them; that a row was said again changes nothing.
pub type Tables = BTreeMap<(Table, String), StateRow>;

#[derive(Default)]
pub struct Truth {
    /// Frames that were handed to the workers.
    pub frames: BTreeMap<u64, Arc<Frame>>,
    /// Rows of events that epochs made.
    pub events: BTreeMap<u64, Vec<(Table, RecordBatch)>>,
    /// Flows that must be there once their epoch is complete, and the exporter that counted them.
    pub expected: BTreeMap<u64, Vec<(usize, i128)>>,
    /// Exporters whose template has come.
    pub told: BTreeSet<usize>,
    /// Bytes that addresses have sent to exporters' sockets.
    pub sent: BTreeMap<IpAddr, u64>,
    /// Notifications that were due, by what names them: where to.
    pub due: BTreeMap<String, String>,
    /// Notifications of which the ledger knows what became: whether they were delivered.
    pub settled: BTreeMap<String, bool>,
    /// Rows that the lake has, and the epoch of its newest commit.
    pub lake: BTreeMap<(Table, i128), u64>,
    pub committed: u64,
}

pub fn apply(tables: &mut Tables, output: &EpochOutput) {
    for change in &output.changes {
        let key = (change.table, change.key.to_string());
        match &change.after {
            Some(after) => tables.insert(key, after.clone().at(0)),
            None => tables.remove(&key),
        };
    }
}

/// The names of a batch's rows.
pub fn ids(table: Table, batch: &RecordBatch) -> impl Iterator<Item = (Table, i128)> + use<> {
    let ids = batch.column_by_name("row_id").expect("every event has one");
    let ids = ids.as_primitive::<Decimal128Type>().clone();
    (0..ids.len()).map(move |row| (table, ids.value(row)))
}

pub fn row_ids(output: &EpochOutput) -> impl Iterator<Item = (Table, i128)> + '_ {
    output.events.iter().flat_map(|(table, batch)| ids(*table, batch))
}

/// The live tables: what a process says.
#[derive(Default)]
pub struct Live(Mutex<(u64, Tables)>);

impl Live {
    /// All of them, and the epoch that they are at.
    pub fn state(&self) -> (u64, Tables) {
        self.0.lock().unwrap().clone()
    }
}

impl Consumer for Live {
    fn name(&self) -> &'static str {
        "live"
    }

    fn take(&self, output: &Arc<EpochOutput>) {
        let mut live = self.0.lock().unwrap();
        live.0 = output.epoch;
        apply(&mut live.1, output);
    }
}

/// The tables and rows that an undisturbed run of these frames makes, from the state that the first life began with.
pub fn undisturbed(start: Start, frames: &BTreeMap<u64, Arc<Frame>>) -> (Tables, BTreeSet<(Table, i128)>) {
    let mut merge = Merge::new(1, &start.state);
    let last = frames.keys().next_back().copied().unwrap_or(start.epoch);
    let (workers, outputs) = Workers::start(1, start);
    let (mut tables, mut rows) = (Tables::new(), BTreeSet::new());
    std::thread::scope(|scope| {
        // Many at a time, so that workers do not begin anew for each.
        scope.spawn(|| frames.values().for_each(|frame| workers.feed(frame)));
        loop {
            let Some(merged) = merge.push(outputs.recv().unwrap()) else { continue };
            apply(&mut tables, &merged.output);
            for id in row_ids(&merged.output) {
                assert!(rows.insert(id), "row {id:?} is there twice");
            }
            if merged.output.epoch >= last {
                break;
            }
        }
    });
    workers.stop();
    (tables, rows)
}
