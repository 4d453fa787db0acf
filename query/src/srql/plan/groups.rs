//! `stats:`: groups, their aggregates, conditions on them, and the largest of them.

use std::collections::BTreeSet;

use arrow_schema::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::functions_aggregate::expr_fn as agg;
use datafusion::logical_expr::{Expr as Df, ExprFunctionExt, ExprSchemable, JoinType, cast, ident, lit, when};
use datafusion::prelude::DataFrame;

use super::super::ast::{Aggregate, GroupKey, Having, Op, Query, Span, Top, Units};
use super::super::time::Range;
use super::filter::{balanced, number};
use super::{DEFAULT_LIMIT, Names, Planned, Result, Target, defect};
use crate::error::SrqlError;
use crate::srql::functions::{as_text, ip_mask, ip_number, ip_text, slice_end};
use crate::tables::catalog::{self, Kind};

/// A field as groups and functions compare it: what has no equality, or no order, of its own as text that has.
fn comparable(target: &Target, ordered: bool) -> Df {
    match target.kind {
        Kind::Map | Kind::Bytes => as_text(target.expr.clone()),
        Kind::List if ordered => as_text(target.expr.clone()),
        _ => target.expr.clone(),
    }
}

impl Names<'_> {
    pub(super) fn aggregate(&self, call: &Aggregate) -> Result<Df> {
        let field = call.field.as_ref().map(|k| self.one(k)).transpose()?;
        let ordered = matches!(call.function.as_str(), "min" | "max" | "group_uniq_array");
        let expr = || field.as_ref().map(|t| comparable(t, ordered));
        let numeric = || -> Result<Df> {
            match &field {
                Some(t) if t.kind == Kind::Number => Ok(t.expr.clone()),
                // A value of a map is text that may be a number.
                Some(t) if t.kind == Kind::Text && t.column.is_none() => {
                    Ok(datafusion::logical_expr::try_cast(t.expr.clone(), DataType::Float64))
                }
                Some(t) => Err(SrqlError::new(
                    "not_a_number",
                    call.span,
                    format!("{} is {}, not a number", t.field, t.kind.name()),
                )),
                None => Err(SrqlError::new("field_missing", call.span, format!("{}() needs a field", call.function))),
            }
        };
        let float = || numeric().map(|e| cast(e, DataType::Float64));
        let any = || {
            expr()
                .ok_or_else(|| SrqlError::new("field_missing", call.span, format!("{}() needs a field", call.function)))
        };
        let computed = match call.function.as_str() {
            "count" => agg::count(expr().unwrap_or_else(|| lit(1i64))),
            "count_distinct" => agg::count_distinct(any()?),
            "sum" | "rate" => agg::sum(numeric()?),
            "avg" => agg::avg(float()?),
            "min" => agg::min(any()?),
            "max" => agg::max(any()?),
            "stddev" => agg::stddev(float()?),
            "median" => agg::median(float()?),
            "percentile" => {
                agg::approx_percentile_cont(float()?.sort(true, false), lit(call.quantile.unwrap_or(0.5)), None)
            }
            "first" | "last" => {
                let by = self.entity.time.unwrap_or(self.entity.sort);
                let order = vec![ident(by).sort(call.function == "first", false)];
                agg::first_value(any()?, order)
            }
            _ => {
                let order = vec![any()?.sort(true, false)];
                agg::array_agg(any()?).distinct().order_by(order).build().map_err(defect)?
            }
        };
        let computed = match &call.only {
            Some(only) => computed.filter(self.filter(only)?).build().map_err(defect)?,
            None => computed,
        };
        Ok(computed.alias(&call.alias))
    }

    /// The expression and name of a group key.
    /// `span` is where errors about time are.
    fn key(&self, key: &GroupKey, span: Span) -> Result<(Df, String)> {
        Ok(match key {
            GroupKey::Field(key, name) => {
                let target = self.one(key)?;
                (comparable(&target, false), name.clone())
            }
            GroupKey::Cidr(key, bits, name) => {
                let target = self.one(key)?;
                if target.kind != Kind::Ip {
                    let detail = format!("{} is {}, not an address", target.field, target.kind.name());
                    return Err(SrqlError::new("not_an_ip", key.span, detail));
                }
                (ip_mask(target.expr, *bits), name.clone())
            }
            GroupKey::Time(width, name) => (self.slice(*width, span)?, name.clone()),
        })
    }

    pub(super) fn groups(&self, query: &Query, mut frame: DataFrame, range: Option<Range>) -> Result<Planned> {
        let mut keys = query.by.iter().map(|key| self.key(key, query.entities[0].1)).collect::<Result<Vec<_>>>()?;
        let mut calls = query.stats.iter().map(|a| self.aggregate(a)).collect::<Result<Vec<_>>>()?;
        if let Some(top) = &query.top {
            let by = match &top.by {
                Some((name, span)) => calls_named(query, name, *span)?,
                None => 0,
            };
            frame = largest(frame, &mut keys, calls[by].clone(), top)?;
            if top.other {
                calls.push(agg::bool_and(ident(IS_OTHER)).alias("is_other"));
                keys.push((ident(IS_OTHER), "__other".to_owned()));
            }
        }
        let width = query.window.map(|(width, _)| width).or_else(|| {
            query.by.iter().find_map(|k| if let GroupKey::Time(width, _) = k { Some(*width) } else { None })
        });
        if let Some((width, span)) = query.window {
            keys.insert(0, (self.slice(width, span)?, "window_start".to_owned()));
        }
        let mut columns: Vec<String> =
            keys.iter().map(|(_, name)| name.clone()).filter(|name| name != "__other").collect();
        let groups = columns.len();
        for (column, n) in columns.iter().zip(0..) {
            if columns[..n].contains(column) || query.stats.iter().any(|a| a.alias == *column) {
                let detail = format!("two columns would be called {column:?}; name one of them with as");
                return Err(SrqlError::new("column_repeated", query.stats[0].span, detail));
            }
        }
        columns.extend(query.stats.iter().map(|a| a.alias.clone()));
        if query.top.as_ref().is_some_and(|t| t.other) {
            columns.push("is_other".to_owned());
        }
        let time = keys.iter().zip(query.window.map(|_| "window_start".to_owned()).into_iter().chain(
            query.by.iter().filter_map(|k| if let GroupKey::Time(_, name) = k { Some(name.clone()) } else { None }),
        ));
        let time = time.map(|(_, name)| name).next();
        frame = self.aggregated(query, frame, keys, calls)?;
        frame = self.rates(query, frame, range, width.zip(time))?;
        of_groups(query, frame, columns, groups)
    }

    /// The groups. Addresses that are stored as bytes, too, are told apart by these.
    fn aggregated(
        &self,
        query: &Query,
        frame: DataFrame,
        keys: Vec<(Df, String)>,
        calls: Vec<Df>,
    ) -> Result<DataFrame> {
        let stored = |expr: &Df| match expr {
            Df::Column(column) if query.top.is_none() => {
                let address = self.entity.field(&column.name).is_some_and(|field| field.kind == Kind::Ip);
                let bytes = format!("{}_bin", column.name);
                (address && frame.schema().has_column_with_unqualified_name(&bytes)).then(|| ident(bytes))
            }
            _ => None,
        };
        let (mut by, mut told, mut numbered) = (Vec::new(), Vec::new(), false);
        for (n, (expr, name)) in keys.into_iter().enumerate() {
            match stored(&expr) {
                Some(bytes) => {
                    let number = format!("__ip{n}");
                    told.push(ip_text(ident(&number)).alias(name));
                    by.push(ip_number(bytes).alias(number));
                    numbered = true;
                }
                None => {
                    told.push(ident(&name));
                    by.push(expr.alias(name));
                }
            }
        }
        let groups = frame.aggregate(by, calls).map_err(defect)?;
        if !numbered {
            return Ok(groups);
        }
        let keys = told.len();
        let rest = groups.schema().fields().iter().skip(keys).map(|field| ident(field.name()));
        let told = told.into_iter().chain(rest).collect::<Vec<_>>();
        groups.select(told).map_err(defect)
    }

    /// Rows as a query that is kept by tallies wants them; nothing where it cannot be.
    pub(super) fn tallied(&self, query: &Query, frame: DataFrame) -> Result<Option<Tallied>> {
        if query.top.is_some() || query.units.is_some() {
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
            let kind = value.get_type(frame.schema()).map_err(defect)?;
            let tally = match call.function.as_str() {
                "count" => Tally::Count,
                "count_distinct" => Tally::Distinct,
                // Sums of floats depend on the order of their terms.
                "sum" if kind == DataType::Int64 => Tally::Sum,
                "avg" if kind == DataType::Int64 => Tally::Avg,
                "min" if !kind.is_floating() => Tally::Min,
                "max" if !kind.is_floating() => Tally::Max,
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

    /// Divides what is asked for by the second: by the seconds of the slice that lie in the range, or of the range.
    fn rates(
        &self,
        query: &Query,
        frame: DataFrame,
        range: Option<Range>,
        slice: Option<(i64, String)>,
    ) -> Result<DataFrame> {
        let rated = |a: &&Aggregate| a.function == "rate" || (query.units.is_some() && a.function == "sum");
        let rated: Vec<&Aggregate> = query.stats.iter().filter(rated).collect();
        if let (Some((_, span)), []) = (query.units, &rated[..]) {
            return Err(SrqlError::new("units_without_sum", span, "units: needs a sum"));
        }
        if rated.is_empty() {
            return Ok(frame);
        }
        let (from, to) = (range.and_then(|r| r.from), range.and_then(|r| r.to).unwrap_or(self.now_us).min(self.now_us));
        let micros = |e: Df| cast(e, DataType::Int64);
        let seconds = match (slice, from) {
            (Some((width, column)), from) => {
                let start = micros(ident(&column));
                let end = micros(slice_end(ident(&column), self.slices(width)));
                let end = when(end.clone().gt(lit(to)), lit(to)).otherwise(end).map_err(defect)?;
                let start = match from {
                    Some(from) => when(start.clone().lt(lit(from)), lit(from)).otherwise(start).map_err(defect)?,
                    None => start,
                };
                cast(end - start, DataType::Float64) / lit(1e6)
            }
            (None, Some(from)) => lit((to - from) as f64 / 1e6),
            (None, None) => {
                let detail = "a rate needs a span that begins: say time:, or window:";
                return Err(SrqlError::new("rate_without_time", rated[0].span, detail));
            }
        };
        let factor = match query.units {
            Some((Units::BitsPerSecond, _)) => 8.0,
            _ => 1.0,
        };
        let rated: BTreeSet<&str> = rated.iter().map(|call| call.alias.as_str()).collect();
        let columns = frame.schema().columns().into_iter().map(|column| {
            let name = column.name.clone();
            match rated.contains(name.as_str()) {
                true => (cast(Df::Column(column), DataType::Float64) * lit(factor) / seconds.clone()).alias(name),
                false => Df::Column(column),
            }
        });
        let columns = columns.collect::<Vec<_>>();
        frame.select(columns).map_err(defect)
    }
}

/// What is shown of groups, and in which order: the first so many columns tell them apart.
pub(super) fn of_groups(query: &Query, mut frame: DataFrame, columns: Vec<String>, groups: usize) -> Result<Planned> {
    if let Some(having) = &query.having {
        let condition = condition(having, frame.schema())?;
        frame = frame.filter(condition).map_err(defect)?;
    }
    let mut order = Vec::new();
    for sort in &query.sort {
        let name = sort.key.path.join("_");
        let Some(column) = columns.iter().find(|c| c.eq_ignore_ascii_case(&name)) else {
            let nearest = catalog::nearest(&name, columns.iter().map(String::as_str)).map(str::to_owned);
            let detail = format!("the groups have no column {name:?}");
            return Err(SrqlError::new("unknown_column", sort.key.span, detail).suggest(nearest.as_deref()));
        };
        order.push((column.clone(), sort.ascending));
    }
    if order.is_empty() {
        order.extend(query.window.map(|_| ("window_start".to_owned(), true)));
        order.extend(query.stats.first().map(|a| (a.alias.clone(), false)));
    }
    let missing: Vec<_> =
        columns[..groups].iter().filter(|c| order.iter().all(|(o, _)| o != *c)).map(|c| (c.clone(), true)).collect();
    order.extend(missing);
    if query.top.as_ref().is_some_and(|t| t.other) {
        order.push(("is_other".to_owned(), true));
    }
    let columns = if query.fields.is_empty() { columns } else { shown(query, &columns)? };
    let limit = Some(DEFAULT_LIMIT);
    Ok(Planned { frame, columns, order, limit, pages: true, range: None, fill: None, warnings: Vec::new() })
}

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

impl Tallied {
    /// The same rows, those that are alike told once: the keys; of each aggregate that keeps its values the value, of each
    /// other how many there are and their sum; how many rows. Whoever has many rows to count counts these.
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

/// The columns of groups that `fields:` names.
fn shown(query: &Query, columns: &[String]) -> Result<Vec<String>> {
    let find = |key: &super::super::ast::Key| {
        let name = key.path.join("_");
        columns.iter().find(|c| c.eq_ignore_ascii_case(&name)).cloned().ok_or_else(|| {
            let nearest = catalog::nearest(&name, columns.iter().map(String::as_str)).map(str::to_owned);
            let detail = format!("the groups have no column {name:?}");
            SrqlError::new("unknown_column", key.span, detail).suggest(nearest.as_deref())
        })
    };
    query.fields.iter().map(find).collect()
}

/// Marks rows of none of the largest groups.
const IS_OTHER: &str = "__is_other";

fn calls_named(query: &Query, name: &str, span: super::super::ast::Span) -> Result<usize> {
    query.stats.iter().position(|a| a.alias.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let nearest = catalog::nearest(name, query.stats.iter().map(|a| a.alias.as_str())).map(str::to_owned);
        SrqlError::new("unknown_column", span, format!("no aggregate is called {name:?}")).suggest(nearest.as_deref())
    })
}

/// Keeps the rows of the largest groups over the whole range; the others are one group without keys, or go.
pub(super) fn largest(frame: DataFrame, keys: &mut [(Df, String)], by: Df, top: &Top) -> Result<DataFrame> {
    // One text that tells key tuples apart, missing values included.
    let parts = keys.iter().map(|(expr, _)| {
        let text = cast(expr.clone(), DataType::Utf8);
        when(text.clone().is_null(), lit("\u{0}")).otherwise(text).map_err(defect)
    });
    let mut tuple: Vec<Df> = vec![lit("\u{1f}")];
    for part in parts {
        tuple.push(part?);
    }
    let tuple = datafusion::functions::string::expr_fn::concat_ws(tuple.remove(0), tuple);
    let frame = frame.with_column("__tuple", tuple).map_err(defect)?;
    let by = by.unalias().alias("__by");
    let best = frame.clone().aggregate(vec![ident("__tuple").alias("__best")], vec![by]).map_err(defect)?;
    let order = vec![ident("__by").sort(false, false), ident("__best").sort(true, false)];
    let best = best.sort(order).and_then(|f| f.limit(0, Some(top.n)));
    let best = best.and_then(|f| f.select(vec![ident("__best")])).map_err(defect)?;
    let on = ident("__tuple").eq(ident("__best"));
    if !top.other {
        return frame.join_on(best, JoinType::LeftSemi, [on]).map_err(defect);
    }
    let frame = frame.join_on(best, JoinType::Left, [on]).map_err(defect)?;
    let frame = frame.with_column(IS_OTHER, ident("__best").is_null()).map_err(defect)?;
    for (expr, _) in keys.iter_mut() {
        let kept = when(ident(IS_OTHER), lit(ScalarValue::Null)).otherwise(expr.clone()).map_err(defect)?;
        *expr = kept;
    }
    Ok(frame)
}

fn condition(having: &Having, schema: &DFSchema) -> Result<Df> {
    Ok(match having {
        Having::And(all) => {
            let all = all.iter().map(|h| condition(h, schema)).collect::<Result<Vec<_>>>()?;
            balanced(all, Df::and).unwrap_or_else(|| lit(true))
        }
        Having::Or(any) => {
            let any = any.iter().map(|h| condition(h, schema)).collect::<Result<Vec<_>>>()?;
            balanced(any, Df::or).unwrap_or_else(|| lit(false))
        }
        Having::Not(inner) => Df::Not(Box::new(condition(inner, schema)?)),
        Having::Compare(column, op, text, span) => {
            let Some(field) = schema.fields().iter().find(|f| f.name().eq_ignore_ascii_case(column)) else {
                let nearest =
                    catalog::nearest(column, schema.fields().iter().map(|f| f.name().as_str())).map(str::to_owned);
                return Err(SrqlError::new("unknown_column", *span, format!("the groups have no column {column:?}"))
                    .suggest(nearest.as_deref()));
            };
            let left = ident(field.name());
            let (left, right) = match (number(text), field.data_type().is_numeric()) {
                (Some(n), true) => (cast(left, DataType::Float64), lit(n)),
                (None, true) => return Err(SrqlError::new("bad_number", *span, format!("{text:?} is no number"))),
                (_, false) => (cast(left, DataType::Utf8), lit(text.as_str())),
            };
            let compared = match op {
                Op::Eq => left.eq(right),
                Op::NotEq => left.not_eq(right),
                Op::Less => left.lt(right),
                Op::LessEq => left.lt_eq(right),
                Op::Greater => left.gt(right),
                Op::GreaterEq => left.gt_eq(right),
            };
            compared.is_true()
        }
    })
}
