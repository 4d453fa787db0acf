//! `stats:`: groups, their aggregates, conditions on them, and the largest of them.

use std::collections::BTreeMap;

use arrow_schema::DataType;
use datafusion::common::ScalarValue;
use datafusion::functions_aggregate::expr_fn as agg;
use datafusion::logical_expr::{Expr as Df, ExprFunctionExt, JoinType, cast, ident, lit, when};
use datafusion::prelude::DataFrame;

use super::super::ast::{Aggregate, GroupKey, Key, Over, Query, Span, Top, Units};
use super::super::time::Range;
use super::beside::Beside;
use super::having::{self, Condition, column_of, is_field, unknown_column};
use super::names::{Names, Target};
use super::{DEFAULT_LIMIT, Planned, Result, defect};
use crate::error::SrqlError;
use crate::srql::functions::{as_text, ip_mask, ip_number, ip_order, ip_text, slice_end};
use crate::srql::percentile::percentile;
use crate::tables::catalog::{self, Kind};

/// A field as groups and functions compare it: what has no equality, or no order, of its own as text that has.
pub(super) fn comparable(target: &Target, ordered: bool) -> Df {
    match target.kind {
        Kind::Map | Kind::Bytes => as_text(target.expr.clone()),
        Kind::List if ordered => as_text(target.expr.clone()),
        _ => target.expr.clone(),
    }
}

/// The column of the elements of a list.
fn element(key: &Key) -> String {
    format!("__each{}", key.span.0)
}

/// An aggregate of the rows where a condition holds. Its order and whether it is of different values stay as they are.
fn only_where(call: Df, condition: Df) -> Df {
    let Df::AggregateFunction(mut call) = call else { return call };
    call.params.filter = Some(Box::new(condition));
    Df::AggregateFunction(call)
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
        // What is missing is left out: of lists and maps, what is empty.
        let keeps_missing = matches!(call.function.as_str(), "first" | "last" | "group_uniq_array");
        let may_be_empty = |target: &&Target| matches!(target.kind, Kind::List | Kind::Map);
        let there = field.as_ref().filter(|target| keeps_missing || may_be_empty(target)).map(Target::present);
        let computed = match call.function.as_str() {
            "count" => agg::count(match &field {
                Some(t) if !matches!(t.kind, Kind::List | Kind::Map) => comparable(t, false),
                _ => lit(1i64),
            }),
            "count_distinct" => agg::count_distinct(any()?),
            "sum" | "rate" => agg::sum(numeric()?),
            "avg" => agg::avg(float()?),
            // Addresses are in the order of what they are, not of how they are written.
            "min" | "max" if field.as_ref().is_some_and(|target| target.kind == Kind::Ip) => {
                let order = ip_order(any()?).sort(call.function == "min", false);
                agg::first_value(any()?, vec![order])
            }
            "min" => agg::min(any()?),
            "max" => agg::max(any()?),
            "stddev" => agg::stddev(float()?),
            "median" => agg::median(float()?),
            "percentile" => percentile(float()?, call.quantile.unwrap_or(0.5)),
            "first" | "last" => {
                let first = call.function == "first";
                let by = self.entity.time.unwrap_or(self.entity.sort);
                // Of rows of one instant the one is meant that is listed first.
                let order = [by].into_iter().chain(self.unique.iter().map(String::as_str));
                agg::first_value(any()?, order.map(|column| ident(column).sort(first, false)).collect())
            }
            _ => {
                let order = vec![any()?.sort(true, false)];
                agg::array_agg(any()?).distinct().order_by(order).build().map_err(defect)?
            }
        };
        let only = call.only.as_ref().map(|only| self.filter(only)).transpose()?;
        let computed = match only.into_iter().chain(there).reduce(Df::and) {
            Some(only) => only_where(computed, only),
            None => computed,
        };
        Ok(computed.alias(&call.alias))
    }

    /// The name of the field that an aggregate is of.
    fn own(&self, call: &Aggregate) -> Result<String> {
        let target = call.field.as_ref().map(|key| self.one(key)).transpose()?;
        Ok(target.map(|target| target.own().to_owned()).unwrap_or_default())
    }

    /// The expression and name of a group key.
    /// `span` is where errors about time are.
    pub(super) fn key(&self, key: &GroupKey, span: Span) -> Result<(Df, String)> {
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
            GroupKey::Each(key, name) => (ident(element(key)), name.clone()),
            GroupKey::Time(width, name) => (self.slice(*width, span)?, name.clone()),
        })
    }

    /// Rows as often as a list that they are grouped by the elements of has some; once where it has none.
    pub(super) fn unnested(&self, query: &Query, mut frame: DataFrame) -> Result<DataFrame> {
        for key in &query.by {
            let GroupKey::Each(key, _) = key else { continue };
            let target = self.one(key)?;
            if target.kind != Kind::List {
                let detail = format!("{} is {}, not a list", target.field, target.kind.name());
                return Err(SrqlError::new("not_a_list", key.span, detail));
            }
            let (column, there) = (element(key), target.present());
            let elements = when(there, target.expr).end().map_err(defect)?;
            let with = frame.with_column(&column, elements);
            frame = with.and_then(|frame| frame.unnest_columns(&[&column])).map_err(defect)?;
        }
        Ok(frame)
    }

    pub(super) fn groups(&self, query: &Query, frame: DataFrame, range: Option<Range>) -> Result<Planned> {
        let hidden = having::hidden(query);
        let mut whole = query.clone();
        whole.stats.extend(hidden.iter().cloned());
        let (keys, _) = self.keys(&whole)?;
        let mut columns: Vec<String> = keys.iter().map(|key| key.name.clone()).collect();
        let groups = columns.len();
        for (column, n) in columns.iter().zip(0..) {
            if columns[..n].contains(column) || query.stats.iter().any(|a| a.alias == *column) {
                let detail = format!("two columns would be called {column:?}; name one of them with as");
                return Err(SrqlError::new("column_repeated", query.stats[0].span, detail));
            }
        }
        let best = self.best(&whole, &frame)?;
        let mut units = BTreeMap::new();
        for call in &query.stats {
            units.extend(self.unit(query, call)?.map(|unit| (call.alias.clone(), unit)));
        }
        let frame = self.grouped(&whole, frame, range, best.as_ref())?;
        let told = best.iter().filter(|best| best.other).map(|_| OTHER.to_owned());
        let told: Vec<String> = columns.iter().cloned().chain(told).collect();
        let beside = Beside { query: &whole, calls: &whole.stats, range, best: best.as_ref(), keys: &told };
        let (frame, more) =
            self.beside(&beside, frame, |names, query, rows, range, best| names.grouped(query, rows, range, best))?;
        columns.extend(query.stats.iter().map(|a| a.alias.clone()));
        for (column, alias) in more.into_iter().filter(|(column, _)| !column.starts_with("__")) {
            let unit = units.get(&alias).copied();
            units.extend(unit.map(|unit| (column.clone(), unit)));
            columns.push(column);
        }
        if best.is_some_and(|best| best.other) {
            columns.push("is_other".to_owned());
        }
        let planned = of_groups(query, &hidden, frame, columns, groups)?;
        Ok(Planned { units, ..planned })
    }

    /// What tells groups apart, and how wide slices of time are if they do, microseconds, and what these are called.
    fn keys(&self, query: &Query) -> Result<(Vec<Group>, Option<(i64, String)>)> {
        let mut keys = Vec::new();
        let mut slice = None;
        if let Some((width, span)) = query.window {
            keys.push(Group { expr: self.slice(width, span)?, name: "window_start".to_owned(), is_time: true });
            slice = Some((width, "window_start".to_owned()));
        }
        for key in &query.by {
            let (expr, name) = self.key(key, query.entities[0].1)?;
            let is_time = matches!(key, GroupKey::Time(..));
            if let (GroupKey::Time(width, name), None) = (key, &slice) {
                slice = Some((*width, name.clone()));
            }
            keys.push(Group { expr, name, is_time });
        }
        Ok((keys, slice))
    }

    /// The largest groups over the whole range, whatever slices of time there are, if they are asked for.
    fn best(&self, query: &Query, frame: &DataFrame) -> Result<Option<Best>> {
        let Some(top) = &query.top else { return Ok(None) };
        let (keys, _) = self.keys(query)?;
        let slice = keys.iter().find(|key| key.is_time).map(|key| key.expr.clone());
        let (by, over) = ranked_by(query, top)?;
        let by = self.aggregate(&query.stats[by])?;
        let keys: Vec<(Df, String)> =
            keys.into_iter().filter(|key| !key.is_time).map(|key| (key.expr, key.name)).collect();
        largest(frame, &keys, by, top, over.zip(slice)).map(Some)
    }

    /// Rows in groups; of those that are none of the largest, one.
    pub(super) fn grouped(
        &self,
        query: &Query,
        mut frame: DataFrame,
        range: Option<Range>,
        best: Option<&Best>,
    ) -> Result<DataFrame> {
        let (keys, slice) = self.keys(query)?;
        let mut calls = query.stats.iter().map(|a| self.aggregate(a)).collect::<Result<Vec<_>>>()?;
        let is_time: Vec<bool> = keys.iter().map(|key| key.is_time).collect();
        let mut keys: Vec<(Df, String)> = keys.into_iter().map(|key| (key.expr, key.name)).collect();
        if let Some(best) = best {
            let mut tuples: Vec<&mut (Df, String)> =
                keys.iter_mut().zip(&is_time).filter(|(_, is_time)| !**is_time).map(|(key, _)| key).collect();
            frame = best.of(frame, &mut tuples)?;
            if best.other {
                calls.push(agg::bool_and(ident(IS_OTHER)).alias("is_other"));
                keys.push((ident(IS_OTHER), OTHER.to_owned()));
            }
        }
        frame = self.aggregated(query, frame, keys, calls)?;
        self.rates(query, frame, range, slice)
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
        let Some(first) = rated.first() else { return Ok(frame) };
        let seconds = self.seconds(range, slice, first.span)?;
        let mut rates = BTreeMap::new();
        for call in rated {
            rates.insert(&call.alias, self.per_second(query, call, ident(&call.alias), seconds.clone())?);
        }
        // All at once: each time that a column is added all others are told anew.
        let columns = frame.schema().columns().into_iter().map(|column| match rates.remove(&column.name) {
            Some(rate) => rate.alias(column.name),
            None => Df::Column(column),
        });
        let columns = columns.collect::<Vec<_>>();
        frame.select(columns).map_err(defect)
    }

    /// How many seconds a group has: of its slice of time those that lie in the range, or all of the range.
    pub(super) fn seconds(&self, range: Option<Range>, slice: Option<(i64, String)>, span: Span) -> Result<Df> {
        let (from, to) = (range.and_then(|r| r.from), range.and_then(|r| r.to).unwrap_or(self.now_us).min(self.now_us));
        let micros = |e: Df| cast(e, DataType::Int64);
        Ok(match (slice, from) {
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
                return Err(SrqlError::new("rate_without_time", span, detail));
            }
        })
    }

    /// A sum by the second, in what is asked for: bytes as bits, packets as packets.
    pub(super) fn per_second(&self, query: &Query, call: &Aggregate, sum: Df, seconds: Df) -> Result<Df> {
        let is_bytes = catalog::unit(&self.own(call)?) == Some("bytes");
        let factor = match query.units {
            Some((Units::BitsPerSecond, _)) if is_bytes => 8.0,
            Some((Units::PacketsPerSecond, span)) if is_bytes && call.function == "sum" => {
                let detail = format!("units:pps are packets; {} sums bytes", call.alias);
                return Err(SrqlError::new("units_of_bytes", span, detail).suggest(Some("bps")));
            }
            _ => 1.0,
        };
        let rate = cast(sum, DataType::Float64) * lit(factor) / seconds.clone();
        when(seconds.gt(lit(0.0)), rate).end().map_err(defect)
    }

    /// What an aggregate counts.
    pub(super) fn unit(&self, query: &Query, call: &Aggregate) -> Result<Option<&'static str>> {
        if matches!(call.function.as_str(), "count" | "count_distinct" | "group_uniq_array") {
            return Ok(None);
        }
        let unit = catalog::unit(&self.own(call)?);
        let rated = call.function == "rate" || (query.units.is_some() && call.function == "sum");
        Ok(match (unit, query.units) {
            (Some("bytes"), Some((Units::BitsPerSecond, _))) if rated => Some("bits/s"),
            (Some("bytes"), _) if rated => Some("bytes/s"),
            (Some("packets"), _) if rated => Some("packets/s"),
            (_, _) if rated => None,
            (unit, _) => unit,
        })
    }
}

/// A key of groups.
struct Group {
    expr: Df,
    name: String,
    /// Whether it is a slice of time.
    is_time: bool,
}

/// What is shown of groups, and in which order: the first so many columns tell them apart.
pub(super) fn of_groups(
    query: &Query,
    hidden: &[Aggregate],
    mut frame: DataFrame,
    columns: Vec<String>,
    groups: usize,
) -> Result<Planned> {
    if let Some(having) = &query.having {
        let condition = Condition { query, hidden, schema: frame.schema() }.of(having)?;
        frame = frame.filter(condition).map_err(defect)?;
    }
    let mut order = Vec::new();
    let mut warnings = Vec::new();
    for sort in &query.sort {
        let name = sort.key.path.join(".");
        match column_of(query, &name, &columns) {
            // Addresses sort as what they are.
            Some(column) if having::holds_addresses(query, column) => {
                let by = format!("__by_{column}");
                frame = frame.with_column(&by, ip_order(ident(column))).map_err(defect)?;
                order.push((by, sort.ascending));
            }
            Some(column) => order.push((column.clone(), sort.ascending)),
            // Query builders sort whatever they ask for.
            None if groups == 0 && is_field(query, &sort.key) => {
                warnings.push(format!("sort:{name} was ignored: it is of rows, and the answer is one row of numbers"));
            }
            None => return Err(unknown_column(query, &name, sort.key.span, &columns)),
        }
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
    Ok(Planned { limit: Some(DEFAULT_LIMIT), pages: true, warnings, ..Planned::new(frame, columns, order) })
}

/// The columns of groups that `fields:` names.
fn shown(query: &Query, columns: &[String]) -> Result<Vec<String>> {
    let find = |key: &Key| {
        let name = key.path.join(".");
        let column = column_of(query, &name, columns).cloned();
        column.ok_or_else(|| unknown_column(query, &name, key.span, columns))
    };
    query.fields.iter().map(find).collect()
}

/// Marks rows of none of the largest groups.
pub(super) const IS_OTHER: &str = "__is_other";
/// Tells the group of these rows from the others.
pub(super) const OTHER: &str = "__other";

/// Which aggregate groups are ranked by, and how its slices are, if by these.
fn ranked_by(query: &Query, top: &Top) -> Result<(usize, Option<Over>)> {
    let sliced = query.window.is_some() || query.by.iter().any(|key| matches!(key, GroupKey::Time(..)));
    let Some((name, span)) = &top.by else { return Ok((0, None)) };
    let found = query.stats.iter().position(|a| a.alias.eq_ignore_ascii_case(name));
    let is_call = span.1 - span.0 > name.len();
    match (found, top.over) {
        // An aggregate that is called max.
        (Some(found), Some(_)) if !is_call => Ok((found, None)),
        (found, Some(over)) if is_call == found.is_some() => {
            if !sliced {
                let detail = "by: max, avg and last are over slices of time: say window:";
                return Err(SrqlError::new("top_without_slices", *span, detail));
            }
            Ok((found.unwrap_or(0), Some(over)))
        }
        (Some(found), _) => Ok((found, None)),
        (None, _) => {
            let aliases = query.stats.iter().map(|a| a.alias.as_str());
            let nearest = catalog::nearest(name, aliases).map(str::to_owned);
            let error = SrqlError::new("unknown_column", *span, format!("no aggregate is called {name:?}"));
            Err(error.suggest(nearest.as_deref()))
        }
    }
}

/// The largest groups, as one column of their tuples.
pub(super) struct Best {
    tuples: DataFrame,
    /// Whether the rest is a group of its own.
    pub(super) other: bool,
}

/// One text that tells key tuples apart, missing values included.
pub(super) fn tuple(keys: &[(Df, String)]) -> Result<Df> {
    let mut parts: Vec<Df> = Vec::new();
    for (expr, _) in keys {
        let text = cast(expr.clone(), DataType::Utf8);
        parts.push(when(text.clone().is_null(), lit("\u{0}")).otherwise(text).map_err(defect)?);
    }
    if parts.is_empty() {
        return Ok(lit(""));
    }
    Ok(datafusion::functions::string::expr_fn::concat_ws(lit("\u{1f}"), parts))
}

/// The largest groups: by an aggregate over the whole range, or over its values in slices of time.
pub(super) fn largest(
    frame: &DataFrame,
    keys: &[(Df, String)],
    by: Df,
    top: &Top,
    over: Option<(Over, Df)>,
) -> Result<Best> {
    let by = by.unalias().alias("__by");
    let key = tuple(keys)?.alias("__best");
    let best = match over {
        None => frame.clone().aggregate(vec![key], vec![by]).map_err(defect)?,
        Some((over, slice)) => {
            let slices = frame.clone().aggregate(vec![key, slice.alias("__slice")], vec![by]).map_err(defect)?;
            let of_slices = match over {
                Over::Max => agg::max(ident("__by")),
                Over::Avg => agg::avg(cast(ident("__by"), DataType::Float64)),
                Over::Last => agg::first_value(ident("__by"), vec![ident("__slice").sort(false, false)]),
            };
            let ranked = slices.aggregate(vec![ident("__best")], vec![of_slices.alias("__ranked")]).map_err(defect)?;
            ranked.select(vec![ident("__best"), ident("__ranked").alias("__by")]).map_err(defect)?
        }
    };
    let order = vec![ident("__by").sort(false, false), ident("__best").sort(true, false)];
    let best = best.sort(order).and_then(|f| f.limit(0, Some(top.n)));
    let tuples = best.and_then(|f| f.select(vec![ident("__best")])).map_err(defect)?;
    Ok(Best { tuples, other: top.other })
}

impl Best {
    /// The rows of the largest groups; the others are one group without keys, or go.
    pub(super) fn of(&self, frame: DataFrame, keys: &mut [&mut (Df, String)]) -> Result<DataFrame> {
        let told: Vec<(Df, String)> = keys.iter().map(|key| (**key).clone()).collect();
        let frame = frame.with_column("__tuple", tuple(&told)?).map_err(defect)?;
        let (best, on) = (self.tuples.clone(), ident("__tuple").eq(ident("__best")));
        if !self.other {
            return frame.join_on(best, JoinType::LeftSemi, [on]).map_err(defect);
        }
        let frame = frame.join_on(best, JoinType::Left, [on]).map_err(defect)?;
        let frame = frame.with_column(IS_OTHER, ident("__best").is_null()).map_err(defect)?;
        for key in keys.iter_mut() {
            key.0 = when(ident(IS_OTHER), lit(ScalarValue::Null)).otherwise(key.0.clone()).map_err(defect)?;
        }
        Ok(frame)
    }
}
