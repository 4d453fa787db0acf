//! A span of events that slides, as live queries keep it.
//!
//! A span that slides (`time:last_1h`) leaves its oldest rows behind. They are read again when its beginning reaches them,
//! a slice ([`SLICE`] rows, about) at a time, so that what is kept is the size of the groups and not of the span. A row is
//! counted if it was dated within the span when its epoch came; so what a slice reads is what was counted, if it reads the
//! epochs that were taken in and no more.

use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{PrimitiveArray, RecordBatch};
use arrow_schema::ArrowError;
use datafusion::prelude::DataFrame;
use futures::StreamExt;

use crate::error::{QueryError, failed};
use crate::live::kept::{Asked, broken};
use crate::srql::plan;
use crate::srql::time::Range;
use crate::tables::view::{Names, View};

/// Rows that a span that slides reads at once of what it leaves, about.
const SLICE: usize = 1 << 16;
/// Slices of a span at least; so many before it is known how many rows it has.
const SLICES: i64 = 16;
const FIRST_SLICES: i64 = 1024;
/// Rows of a slice at most: of so many in one instant nothing is kept.
const MAX_SLICE: usize = 1 << 20;

/// A span of events.
pub(super) struct Window {
    /// Its beginning, where it has one; it never goes back.
    pub(super) from: Option<i64>,
    /// The epoch up to which rows are taken in.
    pub(super) epoch: u64,
    /// Rows that it will leave next, by time: those dated before `read`.
    leaving: Option<RecordBatch>,
    /// How many of these it has left.
    left: usize,
    read: i64,
    /// How long a slice is.
    length: i64,
    /// How devices are named, where that is among what is counted.
    pub(super) names: Option<Names>,
}

impl Window {
    /// A span as of a version.
    pub(super) fn new(from: Option<i64>, view: &View, names: Option<Names>) -> Self {
        let (read, now_us) = (from.unwrap_or(i64::MIN), view.clock_ms * 1000);
        let length = from.map_or(i64::MAX, |from| (now_us - from) / FIRST_SLICES).max(1);
        Window { from, epoch: view.epoch, leaving: None, left: 0, read, length, names }
    }

    /// The rows that it will leave next.
    pub(super) fn leaving(&self) -> Option<&RecordBatch> {
        self.leaving.as_ref()
    }

    /// Moves its beginning, and gives the rows that it leaves; false where they are too many.
    pub(super) async fn slide(
        &mut self,
        asked: &Asked,
        view: &View,
        now_us: i64,
        moved: &mut Vec<(RecordBatch, i64)>,
    ) -> Result<bool, QueryError> {
        let range = plan::span(&asked.query, now_us)?.unwrap_or_default();
        // The clock of a replaced program may be behind.
        self.from = range.from.max(self.from);
        if !asked.engine.live().has_events_since(self.from, now_us) {
            return Ok(false);
        }
        let Some(from) = self.from else { return Ok(true) };
        loop {
            if let Some(rows) = &self.leaving {
                let until = times(rows).values().partition_point(|time| *time < from);
                if until > self.left {
                    moved.push((rows.slice(self.left, until - self.left), -1));
                    self.left = until;
                }
            }
            if self.read >= from {
                return Ok(true);
            }
            if !self.read_slice(asked, view, from).await? {
                return Ok(false);
            }
        }
    }

    /// Reads what it will leave next; false where that is too much.
    async fn read_slice(&mut self, asked: &Asked, view: &View, from: i64) -> Result<bool, QueryError> {
        let (read, rows, to) = loop {
            let to = self.read.saturating_add(self.length);
            let part = Some(Range { from: Some(self.read), to: Some(to) });
            let Some(tallied) = asked.engine.tallied(&asked.actor, &asked.query, view, self.epoch, part)? else {
                return Ok(false);
            };
            match asked.engine.on_threads(at_most(MAX_SLICE, tallied.frame)).await? {
                Some((read, rows)) => break (read, rows, to),
                None if self.length > 1 => self.length = self.length / 8 + 1,
                None => return Ok(false),
            }
        };
        let all = read.first().map(|first| concat_batches(&first.schema(), &read)).transpose();
        self.leaving = all.and_then(|rows| rows.as_ref().map(by_time).transpose()).map_err(broken)?;
        (self.left, self.read) = (0, to);
        self.length = if rows < SLICE { self.length.saturating_mul(2) } else { self.length / 2 };
        self.length = self.length.clamp(1, ((view.clock_ms * 1000 - from) / SLICES).max(1));
        Ok(true)
    }

    /// Takes rows into the slice that the span leaves, where they are dated so.
    pub(super) fn late(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        if times(rows).values().iter().all(|time| *time >= self.read) {
            return Ok(());
        }
        let late = times(rows).values().iter().map(|time| Some(*time < self.read)).collect();
        let late = arrow::compute::filter_record_batch(rows, &late)?;
        self.leaving = Some(match &self.leaving {
            // What it has left is counted no more.
            Some(known) => {
                let rest = known.slice(self.left, known.num_rows() - self.left);
                by_time(&concat_batches(&rest.schema(), [&rest, &late])?)?
            }
            None => by_time(&late)?,
        });
        self.left = 0;
        Ok(())
    }
}

/// The rows of a plan, and how many; nothing where they are more than so many.
async fn at_most(most: usize, frame: DataFrame) -> Result<Option<(Vec<RecordBatch>, usize)>, QueryError> {
    let (mut read, mut n) = (Vec::new(), 0);
    let mut rows = frame.execute_stream().await.map_err(failed)?;
    while let Some(batch) = rows.next().await {
        read.push(batch.map_err(failed)?);
        n += read.last().map_or(0, RecordBatch::num_rows);
        if n > most {
            return Ok(None);
        }
    }
    Ok(Some((read, n)))
}

/// When rows are dated: their last column.
fn times(rows: &RecordBatch) -> &PrimitiveArray<TimestampMicrosecondType> {
    rows.column(rows.num_columns() - 1).as_primitive()
}

fn by_time(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let order = sort_to_indices(rows.column(rows.num_columns() - 1), None, None)?;
    take_record_batch(rows, &order)
}
