//! The rows of an entity: those within the span of time, of each key the newest, in an order, by the columns that are shown.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::functions_aggregate::expr_fn::first_value;
use datafusion::logical_expr::{Expr as Df, JoinType, ident, lit, when};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::{Nature, Table};

use super::super::ast::{Query, Span};
use super::super::time::Range;
use super::names::{Names, Target};
use super::{DEFAULT_LIMIT, Planned, Result, defect, span_of, timestamp};
use crate::error::SrqlError;
use crate::srql::functions::{as_text, ip_order};
use crate::tables::catalog::{self, Kind};

/// A device that was seen within it is yellow at worst, microseconds.
const RECENTLY_US: i64 = 3_600_000_000;

impl Names<'_> {
    /// The rows of a table, with what is computed of them.
    pub(super) fn all(&self, table: Table) -> Result<DataFrame> {
        let rows = self.tables.rows(table).map_err(defect)?;
        if table != Table::Device {
            return Ok(rows);
        }
        let recent = ident("last_seen_time").gt_eq(timestamp(self.now_us - RECENTLY_US));
        let mut color = when(ident("is_available").is_true(), lit("green")).when(recent, lit("yellow"));
        rows.with_column(catalog::STATUS_COLOR, color.otherwise(lit("red")).map_err(defect)?).map_err(defect)
    }

    /// The rows within the span of time, less what is hidden; of each key the newest, if that is asked for.
    pub(super) fn bounded(
        &self,
        query: &Query,
        range: &mut Option<Range>,
        warnings: &mut Vec<String>,
    ) -> Result<DataFrame> {
        let mut rows = match (&query.time, self.entity.lasts) {
            (Some(said), Some(_)) => self.tables.intervals().map_err(defect)?.ok_or_else(|| {
                let detail = "what was before is kept in the lake, which is switched off, or the query is a live one";
                SrqlError::new("no_history", said.span, detail)
            })?,
            _ => self.all(self.entity.table)?,
        };
        if range.is_none() || (self.entity.time.is_none() && query.time.is_some()) {
            *range = span_of(&self.entity, query, self.zone, self.now_us, warnings)?;
        }
        // What is now was seen in that span.
        let seen = self.entity.seen.filter(|_| query.time.is_some());
        if let (Some(field), Some(range)) = (self.entity.time.or(seen), *range) {
            let from = range.from.map(|us| ident(field).gt_eq(timestamp(us)));
            let to = range.to.map(|us| ident(field).lt(timestamp(us)));
            if let Some(within) = from.into_iter().chain(to).reduce(Df::and) {
                rows = rows.filter(within).map_err(defect)?;
            }
        }
        if let (Some((field, until)), Some(range)) = (self.entity.lasts, *range) {
            let to = range.to.map(|us| ident(field).lt(timestamp(us)));
            let from = range.from.map(|us| ident(until).is_null().or(ident(until).gt(timestamp(us))));
            if let Some(within) = from.into_iter().chain(to).reduce(Df::and) {
                rows = rows.filter(within).map_err(defect)?;
            }
        }
        if self.entity.table == Table::Device && query.include_deleted.is_none() {
            rows = rows.filter(ident("deleted_at").is_null()).map_err(defect)?;
        }
        match query.latest {
            Some(span) if self.entity.table.nature() == Nature::Event => self.latest(rows, span),
            _ => Ok(rows),
        }
    }

    /// Of each key the newest row.
    fn latest(&self, rows: DataFrame, span: Span) -> Result<DataFrame> {
        let key: &[&str] = match self.entity.table {
            Table::HealthEvent => &["partition", "entity_type", "entity_id"],
            Table::AlertHistory => &["alert_id"],
            Table::Notification => &["receiver", "group_key"],
            Table::Flow => &["partition", "sampler_address", "src_endpoint_ip", "dst_endpoint_ip"],
            Table::InterfaceCounters => &["partition", "sampler_address", "observation_domain", "if_index"],
            Table::Log | Table::Trap => &["partition", "source_ip"],
            Table::OtelTrace => &["partition", "trace_id", "span_id", "span_kind"],
            Table::OtelMetric => &["partition", "service_name", "service_instance", "metric_name", "attributes"],
            Table::Probe => &["partition", "agent_id", "profile", "target", "port"],
            Table::CpuMetric => &["partition", "agent_id", "core_id", "cluster"],
            Table::MemoryMetric => &["partition", "agent_id"],
            Table::DiskMetric => &["partition", "agent_id", "mount_point"],
            Table::ProcessMetric => &["partition", "agent_id", "pid"],
            Table::TimeseriesMetric => &[
                "partition",
                "agent_id",
                "target",
                "target_device_ip",
                "metric_name",
                "oid",
                "if_index",
                "interface_uid",
            ],
            Table::MtrTrace => &["partition", "agent_id", "target"],
            Table::MtrHop => &["partition", "agent_id", "target", "hop_number"],
            Table::PluginResult => &["partition", "agent_id", "service_name"],
            Table::MergeAudit => &["partition", "record"],
            _ => {
                let detail = format!("{} has no key to take the newest row of", self.entity.name);
                return Err(SrqlError::new("latest_not_applicable", span, detail));
            }
        };
        let schema = self.entity.table.schema();
        let key = key.iter().filter(|k| schema.field_with_name(k).is_ok()).map(|k| ident(*k)).collect();
        let time = self.entity.time.unwrap_or(self.entity.sort);
        // The newest is found by what tells rows apart; only then are rows read whole.
        let order = vec![ident(time).sort(false, false), ident("row_id").sort(false, false)];
        let newest = first_value(ident("row_id"), order).alias("__newest");
        let newest = rows.clone().aggregate(key, vec![newest]).and_then(|r| r.select(vec![ident("__newest")]));
        let on = [ident("row_id").eq(ident("__newest"))];
        newest.and_then(|newest| rows.join_on(newest, JoinType::LeftSemi, on)).map_err(defect)
    }

    pub(super) fn rows(&self, query: &Query, frame: DataFrame) -> Result<Planned> {
        let mut made = Made::default();
        let mut order = Vec::new();
        for sort in &query.sort {
            let target = self.one(&sort.key)?;
            let by = match target.kind {
                Kind::List | Kind::Map | Kind::Bytes => Some(as_text(target.expr.clone())),
                Kind::Ip => Some(ip_order(target.expr.clone())),
                _ => None,
            };
            let column = match by {
                Some(by) => made.column(format!("__by_{}", target.field), by),
                None => made.of(target),
            };
            order.push((column, sort.ascending));
        }
        if order.is_empty() {
            order.push((self.entity.sort.to_owned(), false));
        }
        order.extend(self.unique.iter().map(|c| (c.clone(), false)));
        let (mut columns, mut seen): (Vec<String>, BTreeSet<String>) = Default::default();
        let mut units = BTreeMap::new();
        for key in &query.fields {
            let target = self.one(key)?;
            // A column comes back as it was asked for.
            let shown = key.path.join(".");
            units.extend(catalog::unit(&target.field).map(|unit| (shown.clone(), unit)));
            if !seen.insert(shown.clone()) {
                continue;
            }
            columns.push(shown.clone());
            if target.column.as_deref() != Some(&shown) {
                made.column(shown, target.expr);
            }
        }
        let frame = made.with(frame)?;
        if columns.is_empty() {
            columns = self.entity.fields.iter().filter(|f| !f.hidden).map(|f| f.name.to_owned()).collect();
            units.extend(columns.iter().filter_map(|column| Some((column.clone(), catalog::unit(column)?))));
        }
        let planned = Planned::new(frame, columns, order);
        Ok(Planned { limit: Some(DEFAULT_LIMIT), pages: true, units, ..planned })
    }
}

/// Columns that are made for a query: all at once, since each time that one is added all others are told anew.
#[derive(Default)]
struct Made {
    names: BTreeSet<String>,
    columns: Vec<Df>,
}

impl Made {
    fn column(&mut self, name: String, expr: Df) -> String {
        if self.names.insert(name.clone()) {
            self.columns.push(expr.alias(&name));
        }
        name
    }

    /// The column of a target, made if it is none yet.
    fn of(&mut self, target: Target) -> String {
        match target.column {
            Some(column) => column,
            None => self.column(target.field, target.expr),
        }
    }

    fn with(self, frame: DataFrame) -> Result<DataFrame> {
        if self.columns.is_empty() {
            return Ok(frame);
        }
        let there = frame.schema().columns().into_iter().map(Df::Column);
        let columns = there.chain(self.columns).collect::<Vec<_>>();
        frame.select(columns).map_err(defect)
    }
}
