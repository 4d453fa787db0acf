//! `reverse:` and `compare:`: the same aggregates of the same groups or slices, of the opposite direction or of an earlier
//! span, as further columns.
//!
//! ```text
//! groups    :- (keys, aggregates) of the rows
//! beside    :- the same of other rows: src and dst exchanged everywhere in the query; or those of the span before, dated
//!              as if they were of this one, so that slices of time are aligned
//! answer    :- groups, with what beside has of the same keys
//! ```
//! What ranks groups (`top:`) ranks them by the rows themselves: the groups are the same beside.

use arrow_schema::{DataType, TimeUnit};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Expr as Df, JoinType, cast, ident, lit};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::Table;

use super::super::ast::{Aggregate, Expr, GroupKey, Key, Query, Value};
use super::super::time::Range;
use super::groups::{Best, tuple};
use super::names::Names;
use super::{Result, defect, source};
use crate::error::SrqlError;
use crate::tables::catalog::{self, Entity};

/// What the columns of the opposite direction end in.
const REVERSE: &str = "_reverse";
/// What the columns of the span before end in.
const BEFORE: &str = "_before";

/// Whether a query may ask for what it asks for.
pub(super) fn check(query: &Query, entities: &[&'static Entity]) -> Result<()> {
    let spans = query.reverse.into_iter().chain(query.compare.map(|(_, span)| span));
    if let Some(span) = spans.min().filter(|_| query.stats.is_empty() && query.bucket.is_none()) {
        return Err(SrqlError::new("clause_conflict", span, "reverse: and compare: stand beside stats: or bucket:"));
    }
    if let Some(span) = query.reverse.filter(|_| entities.iter().any(|e| e.table != Table::Flow)) {
        return Err(SrqlError::new("clause_not_applicable", span, "reverse: is of flows"));
    }
    if let Some((_, span)) = query.compare.filter(|_| entities.iter().any(|e| e.time.is_none())) {
        return Err(SrqlError::new("clause_not_applicable", span, "compare: is of events"));
    }
    Ok(())
}

/// What groups are, beside which others are asked for.
pub(super) struct Beside<'a> {
    pub(super) query: &'a Query,
    /// Their aggregates.
    pub(super) calls: &'a [Aggregate],
    pub(super) range: Option<Range>,
    pub(super) best: Option<&'a Best>,
    /// The columns that tell them apart.
    pub(super) keys: &'a [String],
}

/// How rows become groups.
type Grouped = fn(&Names<'_>, &Query, DataFrame, Option<Range>, Option<&Best>) -> Result<DataFrame>;

impl Names<'_> {
    /// The groups with what is asked for beside them; the names of the columns that came, and of those they are like.
    pub(super) fn beside(
        &self,
        of: &Beside<'_>,
        mut groups: DataFrame,
        grouped: Grouped,
    ) -> Result<(DataFrame, Vec<(String, String)>)> {
        let Beside { query, calls, range, best, keys } = *of;
        let like = |suffix: &str| {
            let named = |call: &Aggregate| (format!("{}{suffix}", call.alias), call.alias.clone());
            calls.iter().map(named).collect::<Vec<_>>()
        };
        let mut columns = Vec::new();
        if query.reverse.is_some() {
            let (mut within, mut told) = (range, Vec::new());
            let reversed = reversed(query);
            let (names, rows) = source(&reversed, self.tables, self.now_us, &mut within, &mut told)?;
            let other = grouped(&names, &reversed, rows, range, best)?;
            groups = joined(groups, other, keys, calls, REVERSE)?;
            columns.extend(like(REVERSE));
        }
        if let Some((back_us, span)) = query.compare {
            let Some(from) = range.and_then(|r| r.from) else {
                let detail = "compare: needs a span that begins: say time:";
                return Err(SrqlError::new("compare_without_time", span, detail));
            };
            let to = range.and_then(|r| r.to).unwrap_or(self.now_us);
            let earlier = from.checked_sub(back_us).zip(to.checked_sub(back_us));
            let Some((from, to)) = earlier else {
                return Err(SrqlError::new("bad_duration", span, "so long ago is before all time"));
            };
            let (mut within, mut told) = (Some(Range { from: Some(from), to: Some(to) }), Vec::new());
            let (names, mut rows) = source(query, self.tables, self.now_us, &mut within, &mut told)?;
            if let Some(time) = names.entity.time {
                let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
                let later = cast(cast(ident(time), DataType::Int64) + lit(back_us), instant);
                rows = rows.with_column(time, later).map_err(defect)?;
            }
            let other = grouped(&names, query, rows, range, best)?;
            groups = joined(groups, other, keys, calls, BEFORE)?;
            columns.extend(like(BEFORE));
        }
        Ok((groups, columns))
    }
}

/// Groups with the aggregates of others that have the same keys.
fn joined(
    groups: DataFrame,
    other: DataFrame,
    keys: &[String],
    calls: &[Aggregate],
    suffix: &str,
) -> Result<DataFrame> {
    let keys: Vec<(Df, String)> = keys.iter().map(|key| (ident(key), key.clone())).collect();
    let (here, there) = (format!("__group{suffix}"), format!("__of{suffix}"));
    let groups = groups.with_column(&here, tuple(&keys)?).map_err(defect)?;
    let mut columns = vec![tuple(&keys)?.alias(&there)];
    columns.extend(calls.iter().map(|call| ident(&call.alias).alias(format!("{}{suffix}", call.alias))));
    let other = other.select(columns).map_err(defect)?;
    let on = ident(&here).eq(ident(&there));
    let mut both = groups.join_on(other, JoinType::Left, [on]).map_err(defect)?;
    // Where there were no rows, none are counted.
    for call in calls.iter().filter(|call| matches!(call.function.as_str(), "count" | "count_distinct")) {
        let column = format!("{}{suffix}", call.alias);
        both = both.with_column(&column, coalesce(vec![ident(&column), lit(0i64)])).map_err(defect)?;
    }
    Ok(both)
}

/// The name of the opposite end.
fn opposite(name: &str) -> String {
    const PAIRS: [(&str, &str); 6] = [
        ("src_", "dst_"),
        ("in_if", "out_if"),
        ("in_vrf", "out_vrf"),
        ("bytes_in", "bytes_out"),
        ("packets_in", "packets_out"),
        ("ingress", "egress"),
    ];
    for (a, b) in PAIRS {
        for (a, b) in [(a, b), (b, a)] {
            if let Some(rest) = name.strip_prefix(a) {
                return format!("{b}{rest}");
            }
        }
    }
    name.to_owned()
}

fn turned(key: &mut Key) {
    let known = catalog::find("flows").and_then(|flows| flows.locate(&key.path));
    match known {
        Some((field, named)) => {
            let path = [opposite(field.name)].into_iter().chain(key.path.drain(named..));
            key.path = path.collect();
        }
        // A field of a device.
        None => key.path[0] = opposite(&key.path[0].to_ascii_lowercase()),
    }
}

/// The same query of the opposite direction.
fn reversed(query: &Query) -> Query {
    fn of_value(value: &mut Value) {
        match value {
            Value::Field(_, key) => turned(key),
            Value::Any(all) | Value::All(all) => all.iter_mut().for_each(of_value),
            _ => {}
        }
    }
    fn of_filter(expr: &mut Expr) {
        match expr {
            Expr::And(all) | Expr::Or(all) => all.iter_mut().for_each(of_filter),
            Expr::Not(inner) => of_filter(inner),
            Expr::Filter(key, value) => {
                turned(key);
                of_value(value);
            }
            Expr::Text(_) => {}
        }
    }
    let mut query = query.clone();
    of_filter(&mut query.filter);
    for call in &mut query.stats {
        call.field.iter_mut().for_each(turned);
        call.only.iter_mut().for_each(of_filter);
    }
    query.by.iter_mut().filter_map(GroupKey::key_mut).for_each(turned);
    if let Some(bucket) = &mut query.bucket {
        bucket.series.iter_mut().chain(&mut bucket.value_field).for_each(turned);
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_an_opposite() {
        for (a, b) in [
            ("src_endpoint_ip", "dst_endpoint_ip"),
            ("src_as_number", "dst_as_number"),
            ("src_device", "dst_device"),
            ("in_if_name", "out_if_name"),
            ("in_vrf_id", "out_vrf_id"),
            ("bytes_in", "bytes_out"),
            ("bytes_total", "bytes_total"),
            ("app", "app"),
        ] {
            assert_eq!((opposite(a).as_str(), opposite(b).as_str()), (b, a));
        }
    }
}
