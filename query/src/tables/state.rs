//! A state table of one tenant, as it is kept: segments, and where the row of each key is.
//!
//! An epoch's new rows are a new small segment; segments of like size are merged, so that taking in a change costs the change
//! and its share of a merge, not the table.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::RecordBatch;
use radarflow_proto::rows::{Change, StateRow, Table, state_batch};

use crate::tables::segment::Segment;

/// The table.
#[derive(Default)]
pub(super) struct StateTable {
    segments: Vec<Segment>,
    /// The keys of each segment's rows, gone ones included.
    keys: Vec<Vec<Arc<str>>>,
    /// Where a key's row is.
    index: HashMap<Arc<str>, (usize, usize)>,
}

impl StateTable {
    /// Takes in what changed.
    pub(super) fn apply(&mut self, table: Table, changes: &[&Change]) {
        let (mut new, mut keys) = (Vec::<&StateRow>::new(), Vec::new());
        for change in changes {
            if let Some((segment, row)) = self.index.remove(&change.key) {
                self.segments[segment].bury(row);
            }
            if let Some(after) = &change.after {
                new.push(after);
                keys.push(change.key.clone());
            }
        }
        if !new.is_empty() {
            let batch = state_batch(table, new.iter().copied());
            self.push(table, vec![batch], keys);
        }
        self.merge(table);
    }

    /// Its segments, as a version has them.
    pub(super) fn segments(&self) -> Arc<Vec<Segment>> {
        Arc::new(self.segments.clone())
    }

    fn push(&mut self, table: Table, batches: Vec<RecordBatch>, keys: Vec<Arc<str>>) {
        let segment = Segment::new(&table.schema(), batches).expect("rows of a table have its schema");
        let at = self.segments.len();
        for (row, key) in keys.iter().enumerate() {
            self.index.insert(key.clone(), (at, row));
        }
        self.segments.push(segment);
        self.keys.push(keys);
    }

    /// Merges the last segments while they are of like size: every row is moved a logarithmic number of times. A segment
    /// that is mostly gone is of no size.
    fn merge(&mut self, table: Table) {
        let mut from = self.segments.len().saturating_sub(1);
        let mut rows = self.segments.last().map_or(0, |s| s.live);
        while from > 0 {
            let before = &self.segments[from - 1];
            if before.live > rows * 2 && before.live * 2 >= before.len() {
                break;
            }
            from -= 1;
            rows += before.live;
        }
        if self.segments.len() - from < 2 {
            return;
        }
        let (mut batches, mut alive) = (Vec::new(), Vec::with_capacity(rows));
        for (segment, keys) in self.segments.drain(from..).zip(self.keys.drain(from..)) {
            batches.extend(segment.batches(None).expect("a segment's rows are a batch"));
            alive.extend(keys.into_iter().enumerate().filter(|(row, _)| !segment.is_dead(*row)).map(|(_, key)| key));
        }
        self.push(table, batches, alive);
    }
}
