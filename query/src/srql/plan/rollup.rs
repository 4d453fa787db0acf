//! `rollup_stats:`: the numbers that dashboards show of an entity, in one row with one column, `payload`.

use arrow_schema::DataType;
use datafusion::functions::core::expr_fn::{named_struct, nullif};
use datafusion::functions_aggregate::expr_fn as agg;
use datafusion::logical_expr::{Expr as Df, ExprFunctionExt, cast, ident, lit};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::Table;

use super::super::ast::{Query, Span};
use super::names::Names;
use super::{Planned, Result, defect};
use crate::error::SrqlError;
use crate::srql::percentile::percentile;

/// The roll-ups there are: entity, name.
pub const ROLLUPS: &[(Table, &str)] = &[
    (Table::Device, "inventory_summary"),
    (Table::Log, "severity"),
    (Table::OtelTrace, "summary"),
    (Table::OtelMetric, "summary"),
    (Table::Flow, "traffic"),
    (Table::Alert, "states"),
    (Table::ServiceState, "availability"),
];

fn count(only: Option<Df>) -> Result<Df> {
    let all = agg::count(lit(1i64));
    match only {
        Some(only) => all.filter(only.is_true()).build().map_err(defect),
        None => Ok(all),
    }
}

fn sum(column: &str) -> Df {
    datafusion::functions::core::expr_fn::coalesce(vec![agg::sum(ident(column)), lit(0i64)])
}

/// How many of some rows are such, percent; 0 where there is none.
fn percent(such: Df, of: Df) -> Result<Df> {
    let (such, of) = (count(Some(such))?, count(Some(of))?);
    let share = cast(such, DataType::Float64) * lit(100.0) / nullif(cast(of, DataType::Float64), lit(0.0));
    Ok(datafusion::functions::core::expr_fn::coalesce(vec![share, lit(0.0)]))
}

/// A number with a fraction, zero where there is none.
fn real(expr: Df) -> Df {
    datafusion::functions::core::expr_fn::coalesce(vec![expr, lit(0.0)])
}

impl Names<'_> {
    pub(super) fn rollup(&self, query: &Query, (name, span): &(String, Span), frame: DataFrame) -> Result<Planned> {
        if !query.stats.is_empty() || query.bucket.is_some() || !query.sort.is_empty() || !query.fields.is_empty() {
            let detail = "rollup_stats: stands alone, with filters and time:";
            return Err(SrqlError::new("clause_conflict", *span, detail));
        }
        let of_entity = ROLLUPS.iter().find(|(table, known)| {
            *table == self.entity.table && self.entity.name == table.name() && known.eq_ignore_ascii_case(name)
        });
        let Some((table, _)) = of_entity else {
            let here = ROLLUPS.iter().find(|(table, _)| *table == self.entity.table).map(|(_, name)| *name);
            let detail = format!("{} has no roll-up {name:?}", self.entity.name);
            return Err(SrqlError::new("unknown_rollup", *span, detail).suggest(here));
        };
        let is = |column: &str, value: &str| Some(ident(column).eq(lit(value)));
        let numbers: Vec<(&str, Df)> = match table {
            Table::Device => vec![
                ("total", count(None)?),
                ("available", count(Some(ident("is_available").is_true()))?),
                ("unavailable", count(Some(ident("is_available").is_false()))?),
                ("unknown", count(Some(ident("is_available").is_null()))?),
                ("managed", count(is("lifecycle", "managed"))?),
                ("decommissioned", count(is("lifecycle", "decommissioned"))?),
                ("by_type", agg::count_distinct(ident("type"))),
                ("by_vendor", agg::count_distinct(ident("vendor_name"))),
            ],
            Table::Log => {
                let mut numbers = vec![("total", count(None)?)];
                for (name, from, to) in
                    [("fatal", 0, 2), ("error", 3, 3), ("warning", 4, 4), ("info", 5, 6), ("debug", 7, 7)]
                {
                    let within = ident("severity_number").between(lit(from), lit(to));
                    numbers.push((name, count(Some(within))?));
                }
                numbers
            }
            Table::OtelTrace => {
                let error = || ident("status_code").eq(lit(2i64));
                vec![
                    ("total", count(None)?),
                    ("errors", count(Some(error()))?),
                    ("traces", agg::count_distinct(ident("trace_id"))),
                    ("services", agg::count_distinct(ident("service_name"))),
                    ("avg_duration_ms", real(agg::avg(ident("duration_ms")))),
                    ("p95_duration_ms", real(percentile(ident("duration_ms"), 0.95))),
                    ("max_duration_ms", real(agg::max(ident("duration_ms")))),
                ]
            }
            Table::OtelMetric => vec![
                ("total", count(None)?),
                ("metrics", agg::count_distinct(ident("metric_name"))),
                ("services", agg::count_distinct(ident("service_name"))),
            ],
            Table::Flow => vec![
                ("total", count(None)?),
                ("bytes_total", sum("bytes_total")),
                ("packets_total", sum("packets_total")),
                ("sources", agg::count_distinct(ident("src_endpoint_ip"))),
                ("destinations", agg::count_distinct(ident("dst_endpoint_ip"))),
                ("exporters", agg::count_distinct(ident("sampler_address"))),
            ],
            Table::ServiceState => vec![
                ("total", count(None)?),
                ("available", count(Some(ident("available").is_true()))?),
                ("unavailable", count(Some(ident("available").is_false()))?),
                ("unknown", count(Some(ident("available").is_null()))?),
                ("availability_pct", percent(ident("available").is_true(), ident("available").is_not_null())?),
            ],
            _ => {
                let mut numbers = vec![("total", count(None)?)];
                for state in ["pending", "acknowledged", "escalated", "resolved", "suppressed"] {
                    numbers.push((state, count(is("status", state))?));
                }
                numbers
            }
        };
        let names: Vec<&str> = numbers.iter().map(|(name, _)| *name).collect();
        let calls = numbers.into_iter().map(|(name, call)| call.alias(name)).collect();
        let frame = frame.aggregate(vec![], calls).map_err(defect)?;
        let parts = names.iter().flat_map(|name| [lit(*name), ident(*name)]).collect();
        let frame = frame.select(vec![named_struct(parts).alias("payload")]).map_err(defect)?;
        Ok(Planned::new(frame, vec!["payload".to_owned()], Vec::new()))
    }
}
