//! `bucket:`: series over time, and what stands in them where nothing was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::compute::{concat, concat_batches, take};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn::bool_and;
use datafusion::logical_expr::{Expr as Df, cast, ident, lit};
use datafusion::prelude::DataFrame;

use super::super::ast::{Aggregate, Bucket, Fill, Query, Span};
use super::super::parse::quantile;
use super::super::slices::Slices;
use super::super::time::Range;
use super::beside::Beside;
use super::groups::{Best, IS_OTHER, OTHER, largest};
use super::names::Names;
use super::{Planned, Result, defect};
use crate::error::SrqlError;
use crate::srql::functions::slice_start;
use crate::tables::catalog::Kind;

/// Slices that `bucket:auto` makes of a span, about.
const AUTO_SLICES: i64 = 120;
/// Rows that filling may make.
pub const MAX_FILLED: usize = 100_000;
/// Widths that people read easily, seconds.
const NICE: &[i64] = &[1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800];

impl Names<'_> {
    /// The start of the slice of time a row is in: in the time zone of the query, so that a day begins at its midnight.
    pub(super) fn slice(&self, width_us: i64, span: Span) -> Result<Df> {
        let time = self.entity.time.unwrap_or(self.entity.sort);
        if self.entity.field(time).is_none_or(|f| f.kind != Kind::Time) {
            let detail = format!("{} has no time to make slices of", self.entity.name);
            return Err(SrqlError::new("time_not_applicable", span, detail));
        }
        Ok(slice_start(ident(time), self.slices(width_us)))
    }

    /// Slices of time as the query's zone has them.
    pub(super) fn slices(&self, width_us: i64) -> Slices {
        Slices::new(width_us, self.zone)
    }

    pub(super) fn bucket(&self, query: &Query, mut frame: DataFrame, range: Option<Range>) -> Result<Planned> {
        let Some(bucket) = &query.bucket else {
            return Err(SrqlError::new("bucket_missing", (0, 0), "bucket: is missing"));
        };
        if self.entity.time.is_none() {
            let detail = format!("{} has no time to make buckets of", self.entity.name);
            return Err(SrqlError::new("time_not_applicable", bucket.span, detail));
        }
        let other = [("stats", !query.stats.is_empty()), ("fields", !query.fields.is_empty())];
        if let Some((clause, _)) = other.into_iter().find(|(_, stands)| *stands) {
            let detail = format!("bucket: and {clause}: cannot stand together");
            return Err(SrqlError::new("clause_conflict", bucket.span, detail));
        }
        let is_time = |name: &str| name == "timestamp" || self.entity.field(name).map(|f| f.name) == self.entity.time;
        if let Some(sort) = query.sort.iter().find(|s| s.key.path.len() > 1 || !is_time(&s.key.path[0])) {
            let detail = "a series is sorted by timestamp";
            return Err(SrqlError::new("unknown_column", sort.key.span, detail).suggest(Some("timestamp")));
        }
        let width = match bucket.width_us {
            Some(width) => width,
            None => {
                let to = range.and_then(|r| r.to).unwrap_or(self.now_us);
                let span = range.and_then(|r| r.from).map_or(86_400_000_000, |from| to.saturating_sub(from));
                let wanted = span / 1_000_000 / AUTO_SLICES;
                NICE.iter().copied().find(|s| *s >= wanted).unwrap_or(NICE[NICE.len() - 1]) * 1_000_000
            }
        };
        let call = value_of(bucket);
        let mut best = None;
        if let Some(top) = &query.top {
            if let Some((name, span)) = top.by.as_ref().filter(|(name, _)| top.over.is_none() && name != "value") {
                let detail = format!("a series has a value, no {name:?}; as by:max(value)");
                return Err(SrqlError::new("unknown_column", *span, detail).suggest(Some("value")));
            }
            let over = top.over.map(|over| Ok((over, self.slice(width, bucket.span)?))).transpose()?;
            let series = (self.series(bucket)?, "series".to_owned());
            best = Some(largest(&frame, &[series], self.aggregate(&call)?, top, over)?);
        }
        let (rated, is_other) = (is_rated(query, &call), best.as_ref().is_some_and(|best| best.other));
        if let Some((_, span)) = query.units.filter(|_| !rated) {
            return Err(SrqlError::new(
                "units_without_sum",
                span,
                "units: needs a sum: agg:sum value_field:bytes_total",
            ));
        }
        let sliced = Query { bucket: Some(Bucket { width_us: Some(width), ..bucket.clone() }), ..query.clone() };
        frame = self.sliced(&sliced, frame, range, best.as_ref())?;
        let keys = ["timestamp", "series"].into_iter().chain(is_other.then_some(OTHER)).map(str::to_owned);
        let (keys, calls) = (keys.collect::<Vec<_>>(), [call]);
        let beside = Beside { query: &sliced, calls: &calls, range, best: best.as_ref(), keys: &keys };
        let (frame, more) =
            self.beside(&beside, frame, |names, query, rows, range, best| names.sliced(query, rows, range, best))?;
        let mut columns = ["timestamp", "series", "value"].map(str::to_owned).to_vec();
        columns.extend(more.into_iter().map(|(column, _)| column));
        let unit = self.unit(query, &calls[0])?;
        let units = unit.into_iter().flat_map(|unit| columns[2..].iter().map(move |column| (column.clone(), unit)));
        let units = units.collect();
        columns.extend(is_other.then(|| "is_other".to_owned()));
        // A series is shown oldest first; which end of it a limit keeps is what its order says.
        let newest = query.limit.is_some() && query.sort.first().is_some_and(|s| !s.ascending);
        let mut order = vec![("timestamp".to_owned(), !newest), ("series".to_owned(), true)];
        order.extend(is_other.then(|| ("is_other".to_owned(), true)));
        let fill = bucket.fill.map(|fill| (fill, self.slices(width)));
        Ok(Planned { fill, series: true, units, ..Planned::new(frame, columns, order) })
    }

    /// What tells series apart.
    fn series(&self, bucket: &Bucket) -> Result<Df> {
        Ok(match &bucket.series {
            Some(key) => cast(self.one(key)?.expr, DataType::Utf8),
            None => lit(ScalarValue::Utf8(None)),
        })
    }

    /// Rows in slices, a value of each series; of series that are none of the largest, one.
    fn sliced(
        &self,
        query: &Query,
        mut frame: DataFrame,
        range: Option<Range>,
        best: Option<&Best>,
    ) -> Result<DataFrame> {
        let Some((bucket, width)) = query.bucket.as_ref().and_then(|bucket| Some((bucket, bucket.width_us?))) else {
            return Ok(frame);
        };
        let call = value_of(bucket);
        let mut calls = vec![self.aggregate(&call)?];
        let mut series = (self.series(bucket)?, "series".to_owned());
        let mut others = None;
        if let Some(best) = best {
            frame = best.of(frame, &mut [&mut series])?;
            if best.other {
                calls.push(bool_and(ident(IS_OTHER)).alias("is_other"));
                others = Some(ident(IS_OTHER).alias(OTHER));
            }
        }
        let slice = self.slice(width, bucket.span)?.alias("timestamp");
        let keys = [slice, cast(series.0, DataType::Utf8).alias(series.1)].into_iter().chain(others);
        frame = frame.aggregate(keys.collect(), calls).map_err(defect)?;
        if is_rated(query, &call) {
            let seconds = self.seconds(range, Some((width, "timestamp".to_owned())), bucket.span)?;
            let value = self.per_second(query, &call, ident("value"), seconds)?;
            frame = frame.with_column("value", value).map_err(defect)?;
        }
        Ok(frame)
    }
}

/// The aggregate that is the value of a series.
fn value_of(bucket: &Bucket) -> Aggregate {
    let share = quantile(&bucket.agg);
    Aggregate {
        function: if share.is_some() { "percentile".to_owned() } else { bucket.agg.clone() },
        field: bucket.value_field.clone(),
        quantile: share,
        only: None,
        alias: "value".to_owned(),
        span: bucket.span,
    }
}

/// Whether an aggregate is by the second.
fn is_rated(query: &Query, call: &Aggregate) -> bool {
    call.function == "rate" || (query.units.is_some() && call.function == "sum")
}

/// Fills the slices of a span where a series has nothing. Rows are (timestamp, series, values…, and perhaps is_other);
/// values stay of their type.
///
/// # Errors
/// There would be too many slices.
pub fn fill(
    batches: &[RecordBatch],
    fill: Fill,
    slices: Slices,
    span: Range,
) -> std::result::Result<RecordBatch, String> {
    let Some(schema) = batches.first().map(RecordBatch::schema) else { return Err(NOTHING.to_owned()) };
    let rows = concat_batches(&schema, batches).map_err(|e| e.to_string())?;
    let others = schema.index_of("is_other").ok();
    let at = rows.column(0).as_primitive::<TimestampMicrosecondType>();
    let names: &StringArray = rows.column(1).as_string();
    let mut there: BTreeMap<(&Series<'_>, i64), u64> = BTreeMap::new();
    let told: Vec<Series<'_>> = (0..rows.num_rows())
        .map(|row| {
            let is_other = others.is_some_and(|n| rows.column(n).as_boolean().value(row));
            (names.is_valid(row).then(|| names.value(row)), is_other)
        })
        .collect();
    let mut times: BTreeSet<i64> = at.values().iter().copied().collect();
    for ((row, series), time) in (0u64..).zip(&told).zip(at.values()) {
        there.insert((series, *time), row);
    }
    let series: BTreeSet<&Series<'_>> = told.iter().collect();
    let (Some(first), Some(last)) = (times.first().copied(), times.last().copied()) else {
        return Err(NOTHING.to_owned());
    };
    // The span begins in the slice of its first instant, and ends before its end.
    let from = span.from.map_or(first, |from| from.min(first));
    let to = span.to.map_or(last, |to| (to - 1).max(last));
    let mut start = slices.start(from);
    while start <= to {
        times.insert(start);
        if times.len().saturating_mul(series.len()) > MAX_FILLED {
            return Err(format!("filling would make more than {MAX_FILLED} rows; use wider buckets or fewer series"));
        }
        start = slices.end(start);
    }
    // Where each row's values are: in the rows, or in the row behind them, which has noughts.
    let nought = Some(rows.num_rows() as u64);
    let mut before: BTreeMap<&Series<'_>, u64> = BTreeMap::new();
    let (mut at_out, mut series_out, mut from_out) = (Vec::new(), Vec::new(), Vec::new());
    for time in &times {
        for one in &series {
            let row = match there.get(&(*one, *time)) {
                Some(row) => {
                    before.insert(one, *row);
                    Some(*row)
                }
                None => match fill {
                    Fill::Zero => nought,
                    Fill::Null => None,
                    Fill::Previous => before.get(one).copied(),
                },
            };
            at_out.push(*time);
            series_out.push(*one);
            from_out.push(row);
        }
    }
    let from_out = UInt64Array::from(from_out);
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (n, field) in schema.fields().iter().enumerate() {
        columns.push(match n {
            0 => Arc::new(TimestampMicrosecondArray::from(at_out.clone()).with_data_type(field.data_type().clone())),
            1 => Arc::new(series_out.iter().map(|(name, _)| *name).collect::<StringArray>()),
            n if Some(n) == others => Arc::new(series_out.iter().map(|(_, is)| Some(*is)).collect::<BooleanArray>()),
            n => {
                // Of what has no nought there is nothing.
                let zero =
                    ScalarValue::new_zero(field.data_type()).or_else(|_| ScalarValue::try_new_null(field.data_type()));
                let zero = zero.and_then(|zero| zero.to_array()).map_err(|e| e.to_string())?;
                let values = concat(&[rows.column(n).as_ref(), &zero]).map_err(|e| e.to_string())?;
                take(&values, &from_out, None).map_err(|e| e.to_string())?
            }
        });
    }
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| e.to_string())
}

/// What is refused where no row is.
const NOTHING: &str = "there is nothing to fill";

/// The name of a series, and whether it is of all that are none of the largest.
type Series<'a> = (Option<&'a str>, bool);
