//! What a query joins: the rows of `devices` that its keys speak of, and the values of its subqueries.

use std::collections::BTreeSet;

use arrow_schema::DataType;
use datafusion::logical_expr::{JoinType, cast, ident, lit};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::Table;

use super::super::ast::{Expr, Key, Query, Span, Value};
use super::names::{Names, OBJECTS, Target, keys};
use super::{Result, defect, entities, plan};
use crate::error::SrqlError;
use crate::tables::catalog::{self, Kind};

impl Names<'_> {
    /// Joins the rows of `devices` that keys speak of.
    pub(super) fn objects(&self, query: &Query, mut frame: DataFrame) -> Result<DataFrame> {
        let mut wanted: BTreeSet<&'static str> = BTreeSet::new();
        keys(query, &mut |key| wanted.extend(self.object(key)));
        for (object, uid) in OBJECTS.iter().filter(|(object, _)| wanted.contains(object)) {
            let devices = self.all(Table::Device)?;
            let fields = catalog::find("devices").into_iter().flat_map(|e| &e.fields);
            let renamed = fields.map(|f| ident(f.name).alias(format!("{object}.{}", f.name)));
            let devices = devices.select(renamed.collect::<Vec<_>>()).map_err(defect)?;
            let on = ident(*uid).eq(ident(format!("{object}.uid")));
            frame = frame.join_on(devices, JoinType::Left, [on]).map_err(defect)?;
        }
        Ok(frame)
    }

    /// Joins the values of subqueries, each with a mark.
    pub(super) fn subqueries(&mut self, expr: &Expr, mut frame: DataFrame) -> Result<DataFrame> {
        match expr {
            Expr::And(all) | Expr::Or(all) => {
                for e in all {
                    frame = self.subqueries(e, frame)?;
                }
            }
            Expr::Not(inner) => frame = self.subqueries(inner, frame)?,
            Expr::Filter(key, Value::Sub(query, span)) => {
                let target = self.one(key)?;
                if matches!(target.kind, Kind::List | Kind::Map | Kind::Bytes) {
                    let detail = format!("{} is {}; a subquery gives single values", target.field, target.kind.name());
                    return Err(SrqlError::new("not_comparable", key.span, detail));
                }
                let (n, of) = (self.marks.len(), (key.path.clone(), *span));
                let (key, value, mark) = (format!("__key{n}"), format!("__value{n}"), format!("__in{n}"));
                let given = self.given(query, &target, *span)?;
                let given = given.select(vec![cast(ident("__given"), DataType::Utf8).alias(&value)]);
                let given = given.and_then(|g| g.filter(ident(&value).is_not_null())).and_then(DataFrame::distinct);
                let given = given.and_then(|g| g.with_column(&mark, lit(true))).map_err(defect)?;
                frame = frame.with_column(&key, cast(target.expr, DataType::Utf8)).map_err(defect)?;
                let on = ident(&key).eq(ident(&value));
                frame = frame.join_on(given, JoinType::Left, [on]).map_err(defect)?;
                self.marks.insert(of, mark);
            }
            Expr::Filter(..) | Expr::Text(_) => {}
        }
        Ok(frame)
    }

    /// The values that a subquery gives, as `__given`: its only field, else that of the field outside, else the device.
    fn given(&self, query: &Query, target: &Target, span: Span) -> Result<DataFrame> {
        let mut inner = query.clone();
        let column = match (&query.fields[..], &query.stats[..]) {
            ([], []) => {
                let entity = entities(query)?[0];
                let has = |name: &str| entity.fields.iter().any(|f| f.name == name);
                let outside = target.column.as_deref().filter(|c| has(c));
                let device = ["device_uid", "uid"].into_iter().find(|c| has(c));
                let Some(column) = outside.or(device) else {
                    let detail = format!("{} has neither {} nor a device; say fields:", entity.name, target.field);
                    return Err(SrqlError::new("field_missing", span, detail));
                };
                inner.fields = vec![Key { path: vec![column.to_owned()], span }];
                None
            }
            ([_], []) => None,
            (_, [_, ..]) if !query.by.is_empty() => None,
            _ => return Err(SrqlError::new("one_column", span, "a subquery gives one column: say fields:<field>")),
        };
        let planned = plan(&inner, self.tables, self.now_us, None)?;
        let column = column.unwrap_or_else(|| planned.columns[0].clone());
        let mut frame = planned.frame;
        if let Some(limit) = query.limit {
            let order = planned.order.iter().map(|(c, ascending)| ident(c).sort(*ascending, false)).collect();
            frame = frame.sort(order).and_then(|f| f.limit(0, Some(limit))).map_err(defect)?;
        }
        frame.select(vec![ident(column).alias("__given")]).map_err(defect)
    }
}
