//! `bucket:`: series over time, and what stands in them where nothing was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as Df, cast, ident, lit};
use datafusion::prelude::DataFrame;

use super::super::ast::{Aggregate, Fill, Query, Span};
use super::super::parse::quantile;
use super::super::slices::Slices;
use super::super::time::Range;
use super::groups::largest;
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
        let series = match &bucket.series {
            Some(key) => cast(self.one(key)?.expr, DataType::Utf8),
            None => lit(ScalarValue::Utf8(None)),
        };
        let share = quantile(&bucket.agg);
        let call = Aggregate {
            function: if share.is_some() { "percentile".to_owned() } else { bucket.agg.clone() },
            field: bucket.value_field.clone(),
            quantile: share,
            only: None,
            alias: "value".to_owned(),
            span: bucket.span,
        };
        let value = self.aggregate(&call)?;
        let mut series = (series, "series".to_owned());
        let mut columns = ["timestamp", "series", "value"].map(str::to_owned).to_vec();
        let mut calls = vec![value.clone()];
        let slice = self.slice(width, bucket.span)?;
        if let Some(top) = &query.top {
            if let Some((name, span)) = top.by.as_ref().filter(|(name, _)| top.over.is_none() && name != "value") {
                let detail = format!("a series has a value, no {name:?}; as by:max(value)");
                return Err(SrqlError::new("unknown_column", *span, detail).suggest(Some("value")));
            }
            let over = top.over.map(|over| (over, slice.clone()));
            let best = largest(&frame, std::slice::from_ref(&series), value, top, over)?;
            frame = best.of(frame, &mut [&mut series])?;
            if top.other {
                calls.push(datafusion::functions_aggregate::expr_fn::bool_and(ident("__is_other")).alias("is_other"));
                columns.push("is_other".to_owned());
            }
        }
        let keys = vec![slice.alias("timestamp"), cast(series.0, DataType::Utf8).alias(series.1)];
        let mut frame = frame.aggregate(keys, calls).map_err(defect)?;
        let rated = call.function == "rate" || (query.units.is_some() && call.function == "sum");
        if let Some((_, span)) = query.units.filter(|_| !rated) {
            return Err(SrqlError::new(
                "units_without_sum",
                span,
                "units: needs a sum: agg:sum value_field:bytes_total",
            ));
        }
        if rated {
            let seconds = self.seconds(range, Some((width, "timestamp".to_owned())), bucket.span)?;
            let value = self.per_second(query, &call, ident("value"), seconds)?;
            frame = frame.with_column("value", value).map_err(defect)?;
        }
        // A series is shown oldest first; which end of it a limit keeps is what its order says.
        let newest = query.limit.is_some() && query.sort.first().is_some_and(|s| !s.ascending);
        let order = vec![("timestamp".to_owned(), !newest), ("series".to_owned(), true)];
        let fill = bucket.fill.map(|fill| (fill, self.slices(width)));
        let units = self.unit(query, &call)?.map(|unit| ("value".to_owned(), unit)).into_iter().collect();
        Ok(Planned { fill, series: true, units, ..Planned::new(frame, columns, order) })
    }
}

/// Fills the slices of a span where a series has nothing. Rows are (timestamp, series, value), whatever follows is left
/// out.
///
/// # Errors
/// There would be too many slices.
pub fn fill(
    batches: &[RecordBatch],
    fill: Fill,
    slices: Slices,
    span: Range,
) -> std::result::Result<RecordBatch, String> {
    let mut values: BTreeMap<(Option<String>, i64), Option<f64>> = BTreeMap::new();
    let (mut series, mut times) = (BTreeSet::new(), BTreeSet::new());
    for batch in batches {
        let at = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let names: &StringArray = batch.column(1).as_string();
        let numbers = arrow::compute::cast(batch.column(2), &DataType::Float64).map_err(|e| e.to_string())?;
        let numbers: &Float64Array = numbers.as_primitive();
        for row in 0..batch.num_rows() {
            let name = names.is_valid(row).then(|| names.value(row).to_owned());
            series.insert(name.clone());
            times.insert(at.value(row));
            values.insert((name, at.value(row)), numbers.is_valid(row).then(|| numbers.value(row)));
        }
    }
    let (Some(first), Some(last)) = (times.first().copied(), times.last().copied()) else {
        return Err("there is nothing to fill".to_owned());
    };
    // The span begins in the slice of its first instant, and ends before its end.
    let from = span.from.map_or(first, |from| from.min(first));
    let to = span.to.map_or(last, |to| (to - 1).max(last));
    let mut at = slices.start(from);
    while at <= to {
        times.insert(at);
        if times.len().saturating_mul(series.len()) > MAX_FILLED {
            return Err(format!("filling would make more than {MAX_FILLED} rows; use wider buckets or fewer series"));
        }
        at = slices.end(at);
    }
    let mut before: BTreeMap<&Option<String>, Option<f64>> = BTreeMap::new();
    let (mut at_out, mut names_out, mut values_out) = (Vec::new(), Vec::new(), Vec::new());
    for at in &times {
        for name in &series {
            let value = match values.get(&(name.clone(), *at)) {
                Some(value) => *value,
                None => match fill {
                    Fill::Zero => Some(0.0),
                    Fill::Null => None,
                    Fill::Previous => before.get(name).copied().flatten(),
                },
            };
            before.insert(name, value);
            at_out.push(*at);
            names_out.push(name.clone());
            values_out.push(value);
        }
    }
    let at = TimestampMicrosecondArray::from(at_out).with_timezone("UTC");
    let columns: Vec<ArrayRef> =
        vec![Arc::new(at), Arc::new(StringArray::from(names_out)), Arc::new(Float64Array::from(values_out))];
    let fields: Vec<Field> = ["timestamp", "series", "value"]
        .iter()
        .zip(&columns)
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| e.to_string())
}
