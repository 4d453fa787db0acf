//! The values of a field that a completion offers: the most frequent ones that begin as they are typed.

use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_nested::expr_fn as nested;
use datafusion::logical_expr::{ident, lit};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::Table;

use super::super::complete::Values;
use super::{Result, defect, timestamp};
use crate::tables::catalog::Kind;

/// Events that are looked at for a completion.
const SAMPLE: usize = 100_000;

/// Values that a completion offers.
const VALUES: usize = 20;

/// Events of so long are looked at for them, microseconds.
const RECENT_US: i64 = 15 * 60_000_000;

/// The most frequent values that begin as wanted, with their counts.
///
/// # Errors
/// What DataFusion says of the plan: the field is not one of these rows.
pub fn values(wanted: &Values, mut rows: DataFrame, now_us: i64) -> Result<DataFrame> {
    if let Some(time) = wanted.entity.time {
        let recent = rows.filter(ident(time).gt_eq(timestamp(now_us - RECENT_US)));
        rows = recent.and_then(|rows| rows.limit(0, Some(SAMPLE))).map_err(defect)?;
    }
    if wanted.entity.table == Table::Device {
        rows = rows.filter(ident("deleted_at").is_null()).map_err(defect)?;
    }
    let column = ident(wanted.field.name);
    let value = match (wanted.field.kind, &wanted.key) {
        (Kind::Map, Some(key)) => nested::array_element(nested::map_extract(column, lit(key.as_str())), lit(1i64)),
        (Kind::Map, None) => nested::map_keys(column),
        _ => column,
    };
    let several = wanted.field.kind == Kind::List || (wanted.field.kind == Kind::Map && wanted.key.is_none());
    let mut frame = rows.select(vec![value.alias("value")]).map_err(defect)?;
    if several {
        frame = frame.unnest_columns(&["value"]).map_err(defect)?;
    }
    let mut pattern = String::new();
    for c in wanted.prefix.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    let frame = frame.filter(ident("value").ilike(lit(pattern))).map_err(defect)?;
    let count = count(lit(1i64)).alias("count");
    let frame = frame.aggregate(vec![ident("value")], vec![count]).map_err(defect)?;
    let order = vec![ident("count").sort(false, false), ident("value").sort(true, false)];
    frame.sort(order).and_then(|f| f.limit(0, Some(VALUES))).map_err(defect)
}
