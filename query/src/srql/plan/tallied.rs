//! Groups that can be kept by the rows that come and go: what is counted of each row, and how each aggregate is kept.

use std::collections::BTreeSet;

use arrow_schema::DataType;
use datafusion::functions_aggregate::expr_fn as agg;
use datafusion::logical_expr::{Expr as Df, ExprSchemable, ident, lit, when};
use datafusion::prelude::DataFrame;

use super::super::ast::{GroupKey, Query};
use super::super::time::Range;
use super::groups::comparable;
use super::having;
use super::names::Names;
use super::{Result, Tables, bare, defect, entities, zone};
use crate::tables::catalog::Kind;

/// How an aggregate is kept by the rows that come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// How many values.
    Count,
    /// How many different ones.
    Distinct,
    /// Their sum; of integers.
    Sum,
    /// Their mean; of integers.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

/// A query whose groups can be kept by the rows that come and go.
pub struct Tallied {
    /// The rows that it counts: `__key0`, … and `__value0`, …, which is missing where its aggregate leaves the row out; of
    /// events when they are dated, `__time`.
    pub frame: DataFrame,
    /// Names of the keys.
    pub keys: Vec<String>,
    /// The aggregates.
    pub tallies: Vec<Tally>,
    /// Their names.
    pub aliases: Vec<String>,
    /// Columns that it reads.
    pub reads: BTreeSet<String>,
}

/// The rows that a query of groups counts, if what it says of them can be kept by the rows that come and go: groups of one
/// entity's rows, each judged by itself; those of a part of its span, if one is given.
///
/// # Errors
/// The first mistake in the query, or what DataFusion says of the plan.
pub fn tallied(query: &Query, tables: &dyn Tables, now_us: i64, part: Option<Range>) -> Result<Option<Tallied>> {
    let [one] = entities(query)?[..] else { return Ok(None) };
    let names = Names::of(one, zone(query)?, now_us, tables);
    let rows = names.bounded(query, &mut part.clone(), &mut Vec::new())?;
    let filter = bare(names.filter(&query.filter)?);
    let read: Vec<String> = filter.column_refs().into_iter().map(|column| column.name.clone()).collect();
    let tallied = names.tallied(query, rows.filter(filter).map_err(defect)?)?;
    Ok(tallied.map(|mut tallied| {
        tallied.reads.extend(read);
        tallied
    }))
}

impl Names<'_> {
    /// Rows as a query that is kept by tallies wants them; nothing where it cannot be.
    fn tallied(&self, query: &Query, frame: DataFrame) -> Result<Option<Tallied>> {
        let beside = query.reverse.is_some() || query.compare.is_some() || !having::hidden(query).is_empty();
        let by_element = query.by.iter().any(|key| matches!(key, GroupKey::Each(..)));
        if beside || by_element || query.top.is_some() || query.units.is_some() {
            return Ok(None);
        }
        let (mut select, mut keys, mut tallies) = (Vec::new(), Vec::new(), Vec::new());
        let slice = query.window.map(|(width, span)| Ok((self.slice(width, span)?, "window_start".to_owned())));
        let by = query.by.iter().map(|key| self.key(key, query.entities[0].1));
        for key in slice.into_iter().chain(by) {
            let (expr, name) = key?;
            select.push(expr.alias(format!("__key{}", keys.len())));
            keys.push(name);
        }
        for (n, call) in query.stats.iter().enumerate() {
            let field = call.field.as_ref().map(|k| self.one(k)).transpose()?;
            let ordered = matches!(call.function.as_str(), "min" | "max");
            let value = field.as_ref().map_or(lit(1i64), |t| comparable(t, ordered));
            let value = match field.as_ref().filter(|t| matches!(t.kind, Kind::List | Kind::Map)) {
                Some(target) => when(target.present(), value).end().map_err(defect)?,
                None => value,
            };
            let kind = value.get_type(frame.schema()).map_err(defect)?;
            let addresses = field.as_ref().is_some_and(|target| target.kind == Kind::Ip);
            let tally = match call.function.as_str() {
                "count" => Tally::Count,
                "count_distinct" => Tally::Distinct,
                // Sums of floats depend on the order of their terms.
                "sum" if kind == DataType::Int64 => Tally::Sum,
                "avg" if kind == DataType::Int64 => Tally::Avg,
                "min" if !kind.is_floating() && !addresses => Tally::Min,
                "max" if !kind.is_floating() && !addresses => Tally::Max,
                _ => return Ok(None),
            };
            let value = match &call.only {
                Some(only) => when(self.filter(only)?, value).end().map_err(defect)?,
                None => value,
            };
            select.push(value.alias(format!("__value{n}")));
            tallies.push(tally);
        }
        let aliases = query.stats.iter().map(|a| a.alias.clone()).collect();
        let reads = select.iter().flat_map(Df::column_refs).map(|column| column.name.clone()).collect();
        select.extend(self.entity.time.map(|time| ident(time).alias("__time")));
        let frame = frame.select(select).map_err(defect)?;
        Ok(Some(Tallied { frame, keys, tallies, aliases, reads }))
    }
}

impl Tallied {
    /// The same rows, those that are alike told once: the keys; of each aggregate that keeps its values the value, of each
    /// other how many there are and their sum; how many rows. Whoever has many rows to count counts these.
    ///
    /// # Errors
    /// What DataFusion says of the plan.
    pub fn alike(&self) -> Result<DataFrame> {
        let n = self.keys.len();
        let mut by: Vec<Df> = (0..n).map(|n| ident(format!("__key{n}"))).collect();
        let mut calls = Vec::new();
        let mut columns = by.clone();
        for (n, tally) in self.tallies.iter().enumerate() {
            let value = ident(format!("__value{n}"));
            if tally.keeps_values() {
                by.push(value.clone());
                columns.push(value);
                continue;
            }
            let (count, sum) = (format!("__count{n}"), format!("__sum{n}"));
            calls.push(agg::count(value.clone()).alias(&count));
            // What is only counted has no sum.
            let sum_of = if *tally == Tally::Count { lit(0i64) } else { value };
            calls.push(agg::sum(sum_of).alias(&sum));
            columns.extend([ident(count), ident(sum)]);
        }
        calls.push(agg::count(lit(1i64)).alias("__rows"));
        columns.push(ident("__rows"));
        self.frame.clone().aggregate(by, calls).and_then(|f| f.select(columns)).map_err(defect)
    }
}

impl Tally {
    /// Whether it is told from its values, and not from their number and sum.
    pub fn keeps_values(self) -> bool {
        matches!(self, Tally::Distinct | Tally::Min | Tally::Max)
    }
}
