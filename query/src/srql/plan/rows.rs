//! The rows of an entity: those within the span of time, of each key the newest, in an order, by the columns that are shown.

use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr as Df, ExprFunctionExt, ident, lit, when};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::{Nature, Table};

use super::super::ast::{Query, Span};
use super::super::time::Range;
use super::names::Names;
use super::{DEFAULT_LIMIT, Planned, Result, defect, span_of, timestamp};
use crate::error::SrqlError;
use crate::srql::functions::as_text;
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
        if let (Some(field), Some(range)) = (self.entity.time, *range) {
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
            Table::Log | Table::Trap => &["partition", "source_ip"],
            Table::MergeAudit => &["partition", "record"],
            _ => {
                let detail = format!("{} has no key to take the newest row of", self.entity.name);
                return Err(SrqlError::new("latest_not_applicable", span, detail));
            }
        };
        let schema = self.entity.table.schema();
        let key = key.iter().filter(|k| schema.field_with_name(k).is_ok()).map(|k| ident(*k)).collect();
        let time = self.entity.time.unwrap_or(self.entity.sort);
        let newest = row_number()
            .partition_by(key)
            .order_by(vec![ident(time).sort(false, false), ident("row_id").sort(false, false)])
            .build()
            .map_err(defect)?
            .alias("__newest");
        let columns: Vec<Df> = schema.fields().iter().map(|f| ident(f.name())).collect();
        let rows = rows.window(vec![newest]).and_then(|r| r.filter(ident("__newest").eq(lit(1u64))));
        rows.and_then(|r| r.select(columns)).map_err(defect)
    }

    pub(super) fn rows(&self, query: &Query, mut frame: DataFrame) -> Result<Planned> {
        let mut order = Vec::new();
        for sort in &query.sort {
            let (with, column, kind) = self.column(frame, &sort.key)?;
            frame = with;
            if matches!(kind, Kind::List | Kind::Map | Kind::Bytes) {
                let by = format!("__by_{column}");
                frame = frame.with_column(&by, as_text(ident(&column))).map_err(defect)?;
                order.push((by, sort.ascending));
            } else {
                order.push((column, sort.ascending));
            }
        }
        if order.is_empty() {
            order.push((self.entity.sort.to_owned(), false));
        }
        order.extend(self.unique.iter().map(|c| (c.clone(), false)));
        let mut columns = Vec::new();
        for key in &query.fields {
            let (with, column, _) = self.column(frame, key)?;
            frame = with;
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        if columns.is_empty() {
            columns = self.entity.fields.iter().filter(|f| !f.hidden).map(|f| f.name.to_owned()).collect();
        }
        Ok(Planned {
            frame,
            columns,
            order,
            limit: Some(DEFAULT_LIMIT),
            pages: true,
            range: None,
            fill: None,
            warnings: Vec::new(),
        })
    }
}
