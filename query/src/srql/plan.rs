//! AST to plan: names and types are resolved against the catalog, then DataFusion's builder is used. Never SQL text.
//!
//! Two-valued logic: every comparison is wrapped in `IS TRUE`, so that a missing value is false and `NOT` above it is
//! classical.

use std::net::IpAddr;

use arrow_schema::DataType;
use chrono_tz::Tz;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::functions_aggregate::expr_fn as agg;
use datafusion::functions_nested::expr_fn as nested;
use datafusion::logical_expr::{Expr as Df, ExprFunctionExt, cast, ident, lit};
use datafusion::prelude::DataFrame;
use radarflow_proto::cell::IpBytes;
use radarflow_proto::rows::Table;

use super::SrqlError;
use super::ast::{Aggregate, Expr, GroupKey, Having, Key, Literal, Op, Query, Value};
use super::parse::{ORDINARY, plain};
use super::time::{self, Range};
use crate::catalog::{self, Entity, Field, Kind};
use crate::functions::{any_like, ip_bytes, ip_mask};

type Result<T> = std::result::Result<T, SrqlError>;

/// Rows and groups without `limit:`.
pub const DEFAULT_LIMIT: usize = 100;
/// Greatest `limit:` of a page.
pub const MAX_LIMIT: usize = 10_000;
/// Span of event queries without `time:`, microseconds.
const DEFAULT_SPAN_US: i64 = 86_400_000_000;

/// What a query becomes.
pub struct Planned {
    /// The plan, not limited yet.
    pub frame: DataFrame,
    /// Columns to show, in order.
    pub columns: Vec<String>,
    /// What it is sorted by: column, ascending. The last makes the order total.
    pub order: Vec<(String, bool)>,
    /// Rows asked for.
    pub limit: Option<usize>,
    /// Whether pages can follow: rows and groups yes, series no.
    pub pages: bool,
    /// The span looked at.
    pub range: Option<Range>,
    /// Changes of meaning a user may not expect.
    pub warnings: Vec<String>,
}

/// The entity a query asks for.
pub fn entity(query: &Query) -> Result<&'static Entity> {
    let (name, span) = &query.entity;
    if catalog::NOT_AVAILABLE.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(SrqlError::new("entity_not_available", *span, format!("{name} is not available here")));
    }
    catalog::find(name).ok_or_else(|| {
        let nearest = catalog::nearest(name, catalog::ENTITIES.iter().map(|e| e.name));
        SrqlError::new("unknown_entity", *span, format!("there is no entity {name:?}")).suggest(nearest)
    })
}

struct Names<'a> {
    entity: &'a Entity,
    zone: Tz,
    now_us: i64,
}

/// A field, or a value in a map field.
struct Target {
    expr: Df,
    kind: Kind,
    field: &'static str,
}

/// Plans a query over the entity's rows. `rows_filter` narrows them before anything else (a cursor's place is applied
/// later, over the result's order).
pub fn plan(query: &Query, rows: DataFrame, now_us: i64, pinned: Option<Range>) -> Result<Planned> {
    let entity = entity(query)?;
    let zone = match &query.tz {
        None => Tz::UTC,
        Some(tz) => plain(&tz.text).parse().map_err(|_| {
            SrqlError::new("unknown_time_zone", tz.span, format!("there is no time zone {:?}", plain(&tz.text)))
        })?,
    };
    let names = Names { entity, zone, now_us };
    let mut warnings = query.warnings.clone();
    let range = match pinned {
        Some(range) => Some(range),
        None => names.range(query, &mut warnings)?,
    };
    let mut filter = names.filter(&query.filter)?;
    if let (Some(field), Some(range)) = (entity.time, range) {
        if let Some(from) = range.from {
            filter = filter.and(ident(field).gt_eq(timestamp(from)));
        }
        if let Some(to) = range.to {
            filter = filter.and(ident(field).lt(timestamp(to)));
        }
    }
    if entity.table == Table::Device && !query.include_deleted {
        filter = filter.and(ident("deleted_at").is_null());
    }
    let frame = rows.filter(filter).map_err(defect)?;
    let limit = match query.limit {
        Some(n) if n > MAX_LIMIT => {
            return Err(SrqlError::new(
                "limit_too_large",
                (0, 0),
                format!("limit:{n} is more than a page may have ({MAX_LIMIT})"),
            ));
        }
        other => other,
    };
    let mut planned = if query.bucket.is_some() {
        names.bucket(query, frame)?
    } else if query.stats.is_empty() {
        names.rows(query, frame)?
    } else {
        names.groups(query, frame)?
    };
    planned.limit = limit.or(planned.limit);
    planned.range = range;
    warnings.append(&mut planned.warnings);
    planned.warnings = warnings;
    Ok(planned)
}

fn defect(error: impl std::borrow::Borrow<datafusion::error::DataFusionError>) -> SrqlError {
    SrqlError::new("cannot_plan", (0, 0), error.borrow().strip_backtrace())
}

fn timestamp(us: i64) -> Df {
    lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
}

impl Names<'_> {
    fn range(&self, query: &Query, warnings: &mut Vec<String>) -> Result<Option<Range>> {
        let Some(literal) = &query.time else {
            if self.entity.time.is_none() || self.bounds_time(&query.filter) {
                return Ok(None);
            }
            warnings.push("no time: given; the last 24 hours were searched".to_owned());
            return Ok(Some(Range { from: Some(self.now_us - DEFAULT_SPAN_US), to: None }));
        };
        if self.entity.time.is_none() {
            let detail = format!("{} has no time of its own; filter one of its time fields instead", self.entity.name);
            return Err(SrqlError::new("time_not_applicable", literal.span, detail));
        }
        let text = plain(&literal.text);
        time::span(&text, self.zone, self.now_us).map(Some).ok_or_else(|| {
            SrqlError::new(
                "bad_time",
                literal.span,
                format!("{text:?} is no span of time; as last_24h, today, 2024-06-01 or [a,b]"),
            )
        })
    }

    /// Whether a top-level filter bounds the time field itself.
    fn bounds_time(&self, filter: &Expr) -> bool {
        match filter {
            Expr::And(all) => all.iter().any(|e| self.bounds_time(e)),
            Expr::Filter(key, _) => {
                key.path.len() == 1 && self.entity.time.is_some_and(|t| key.path[0].eq_ignore_ascii_case(t))
            }
            _ => false,
        }
    }

    fn field(&self, key: &Key) -> Result<&'static Field> {
        let name = &key.path[0];
        catalog::find(self.entity.name).and_then(|e| e.field(name)).ok_or_else(|| {
            let detail = format!("{} has no field {name:?}", self.entity.name);
            SrqlError::new("unknown_field", key.span, detail).suggest(self.entity.nearest(name))
        })
    }

    fn target(&self, key: &Key) -> Result<Target> {
        let field = self.field(key)?;
        let expr = ident(field.name);
        if key.path.len() == 1 {
            return Ok(Target { expr, kind: field.kind, field: field.name });
        }
        if field.kind != Kind::Map {
            let detail = format!("{} is {}; it has no parts", field.name, field.kind.name());
            return Err(SrqlError::new("not_a_map", key.span, detail));
        }
        let inner = key.path[1..].join(".");
        let value = nested::array_element(nested::map_extract(expr, lit(inner)), lit(1i64));
        Ok(Target { expr: value, kind: Kind::Text, field: field.name })
    }

    fn filter(&self, expr: &Expr) -> Result<Df> {
        Ok(match expr {
            Expr::And(all) => {
                let all = all.iter().map(|e| self.filter(e)).collect::<Result<Vec<_>>>()?;
                all.into_iter().reduce(Df::and).unwrap_or_else(|| lit(true))
            }
            Expr::Or(any) => {
                let any = any.iter().map(|e| self.filter(e)).collect::<Result<Vec<_>>>()?;
                any.into_iter().reduce(Df::or).unwrap_or_else(|| lit(false))
            }
            Expr::Not(inner) => Df::Not(Box::new(self.filter(inner)?)),
            Expr::Text(literal) => {
                let pattern = format!("%{}%", like(literal));
                let texts = self.entity.fields.iter().filter(|f| matches!(f.kind, Kind::Text | Kind::Ip | Kind::Mac));
                let any = texts.map(|f| ident(f.name).ilike(lit(pattern.as_str())).is_true());
                any.reduce(Df::or).unwrap_or_else(|| lit(false))
            }
            Expr::Filter(key, value) => {
                let target = self.target(key)?;
                self.leaf(&target, value)?
            }
        })
    }

    fn leaf(&self, target: &Target, value: &Value) -> Result<Df> {
        let column = || target.expr.clone();
        let present = || match target.kind {
            Kind::List => nested::cardinality(column()).gt(lit(0i64)).is_true(),
            Kind::Map => nested::array_length(nested::map_keys(column())).gt(lit(0i64)).is_true(),
            _ => column().is_not_null(),
        };
        match value {
            Value::Null => Ok(match target.kind {
                Kind::List | Kind::Map => Df::Not(Box::new(present())),
                _ => column().is_null(),
            }),
            Value::Present => Ok(present()),
            Value::Any(items) => {
                let any = items.iter().map(|item| self.leaf(target, item)).collect::<Result<Vec<_>>>()?;
                Ok(any.into_iter().reduce(Df::or).unwrap_or_else(|| lit(false)))
            }
            Value::Is(literal) => self.is(target, literal),
            Value::Fold(literal) => {
                let exact = Literal { quoted: true, verbatim: true, ..literal.clone() };
                match target.kind {
                    Kind::List => {
                        Ok(any_like(column(), &format!("(?i)^{}$", regex::escape(&plain(&literal.text)))).is_true())
                    }
                    Kind::Text | Kind::Ip | Kind::Mac => Ok(column().ilike(lit(like(&exact))).is_true()),
                    _ => self.is(target, &exact),
                }
            }
            Value::Compare(op, literal) => self.compare(target, *op, literal),
            Value::Range(from, to) => {
                let from = from.as_ref().map(|l| self.compare(target, Op::GreaterEq, l)).transpose()?;
                let to = to.as_ref().map(|l| self.compare(target, Op::LessEq, l)).transpose()?;
                Ok(from.into_iter().chain(to).reduce(Df::and).unwrap_or_else(|| lit(true)))
            }
            Value::Regex(pattern, fold, span) => {
                regex::RegexBuilder::new(pattern)
                    .size_limit(1 << 20)
                    .build()
                    .map_err(|e| SrqlError::new("bad_regex", *span, e.to_string()))?;
                let pattern = if *fold { format!("(?i){pattern}") } else { pattern.clone() };
                match target.kind {
                    Kind::Text | Kind::Ip | Kind::Mac => {
                        Ok(datafusion::functions::regex::expr_fn::regexp_like(column(), lit(pattern), None).is_true())
                    }
                    Kind::List => Ok(any_like(column(), &pattern).is_true()),
                    other => Err(SrqlError::new(
                        "regex_not_applicable",
                        *span,
                        format!("{} is {}; a regular expression matches text", target.field, other.name()),
                    )),
                }
            }
        }
    }

    fn is(&self, target: &Target, literal: &Literal) -> Result<Df> {
        let column = || target.expr.clone();
        let text = plain(&literal.text);
        let wrong = |code, wanted: &str| {
            Err(SrqlError::new(
                code,
                literal.span,
                format!("{:?} is no {wanted}; {} is {}", text, target.field, target.kind.name()),
            ))
        };
        if text.is_empty() && literal.quoted && matches!(target.kind, Kind::Text | Kind::Ip | Kind::Mac) {
            return Ok(column().is_null().or(column().eq(lit(""))));
        }
        if has_wildcard(literal) {
            return match target.kind {
                Kind::Text | Kind::Ip => Ok(column().ilike(lit(like(literal))).is_true()),
                Kind::Mac => Ok(column().ilike(lit(like(literal).replace([':', '-', '.'], ""))).is_true()),
                Kind::Number => Ok(cast(column(), DataType::Utf8).ilike(lit(like(literal))).is_true()),
                Kind::List => Ok(any_like(column(), &wildcard_regex(literal)).is_true()),
                _ => wrong("wildcard_not_applicable", "value of this type"),
            };
        }
        match target.kind {
            Kind::Text => Ok(column().eq(lit(text)).is_true()),
            Kind::Mac => Ok(column().eq(lit(text.replace([':', '-', '.'], "").to_ascii_uppercase())).is_true()),
            Kind::Ip => match ip_range(&text) {
                Some((low, high)) if low == high => Ok(column().eq(lit(low.to_string())).is_true()),
                Some((low, high)) => Ok(self.ip_bytes(target).between(bytes(low), bytes(high)).is_true()),
                None => wrong("bad_ip", "address, network or address range"),
            },
            Kind::Number => match number(&text) {
                Some(n) => Ok(cast(column(), DataType::Float64).eq(lit(n)).is_true()),
                None => wrong("bad_number", "number"),
            },
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(column().is_true()),
                "false" | "no" | "0" => Ok(column().is_false()),
                _ => wrong("bad_boolean", "true or false"),
            },
            Kind::Time => match time::instant(&text, self.zone, self.now_us) {
                Some(Range { from: Some(from), to: Some(to) }) => {
                    Ok(column().gt_eq(timestamp(from)).and(column().lt(timestamp(to))).is_true())
                }
                _ => wrong("bad_time", "instant or date"),
            },
            Kind::List => Ok(nested::array_has(column(), lit(text)).is_true()),
            Kind::Map => Ok(nested::array_has(nested::map_keys(column()), lit(text)).is_true()),
            Kind::Bytes => wrong("bytes_not_comparable", "value"),
        }
    }

    fn ip_bytes(&self, target: &Target) -> Df {
        let stored = format!("{}_bin", target.field);
        match self.entity.fields.iter().find(|f| f.name == stored) {
            Some(field) => ident(field.name),
            None => ip_bytes(target.expr.clone()),
        }
    }

    fn compare(&self, target: &Target, op: Op, literal: &Literal) -> Result<Df> {
        let text = plain(&literal.text);
        let wrong = |wanted: &str| {
            Err(SrqlError::new(
                "bad_operand",
                literal.span,
                format!("{:?} is no {wanted}; {} is {}", text, target.field, target.kind.name()),
            ))
        };
        let apply = |left: Df, right: Df| match op {
            Op::Less => left.lt(right),
            Op::LessEq => left.lt_eq(right),
            Op::Greater => left.gt(right),
            Op::GreaterEq => left.gt_eq(right),
            Op::Eq => left.eq(right),
            Op::NotEq => left.not_eq(right),
        };
        let compared = match target.kind {
            Kind::Number => match number(&text) {
                Some(n) => apply(cast(target.expr.clone(), DataType::Float64), lit(n)),
                None => return wrong("number"),
            },
            Kind::Text => match number(&text) {
                // On a map's values the comparison holds where the value is a number.
                Some(n) => apply(datafusion::logical_expr::try_cast(target.expr.clone(), DataType::Float64), lit(n)),
                None => return wrong("number"),
            },
            Kind::Ip => match ip_range(&text) {
                Some((low, high)) => {
                    let bound = if matches!(op, Op::Greater | Op::LessEq) { high } else { low };
                    apply(self.ip_bytes(target), bytes(bound))
                }
                None => return wrong("address"),
            },
            Kind::Time => match time::instant(&text, self.zone, self.now_us) {
                // A date is its whole day: after it, from its end on.
                Some(Range { from: Some(from), to: Some(to) }) => match op {
                    Op::Greater => target.expr.clone().gt_eq(timestamp(to)),
                    Op::LessEq => target.expr.clone().lt(timestamp(to)),
                    _ => apply(target.expr.clone(), timestamp(from)),
                },
                _ => return wrong("instant or date"),
            },
            other => {
                return Err(SrqlError::new(
                    "not_ordered",
                    literal.span,
                    format!("{} is {}; it has no order to compare by", target.field, other.name()),
                ));
            }
        };
        Ok(compared.is_true())
    }

    fn unique(&self) -> Vec<String> {
        let row_id = self.entity.fields.iter().find(|f| f.name == "row_id").map(|f| vec![f.name.to_owned()]);
        row_id.unwrap_or_else(|| self.entity.table.key().iter().map(|k| (*k).to_owned()).collect())
    }

    fn rows(&self, query: &Query, frame: DataFrame) -> Result<Planned> {
        let mut order = Vec::new();
        for sort in &query.sort {
            let target = self.target(&sort.key)?;
            if matches!(target.kind, Kind::List | Kind::Map | Kind::Bytes) {
                let detail = format!("{} is {}; it has no order to sort by", target.field, target.kind.name());
                return Err(SrqlError::new("not_ordered", sort.key.span, detail));
            }
            order.push((target.field.to_owned(), sort.ascending));
        }
        if order.is_empty() {
            order.push((self.entity.sort.to_owned(), false));
        }
        order.extend(self.unique().into_iter().map(|c| (c, false)));
        let columns = if query.fields.is_empty() {
            self.entity.fields.iter().filter(|f| !f.hidden).map(|f| f.name.to_owned()).collect()
        } else {
            query.fields.iter().map(|k| self.field(k).map(|f| f.name.to_owned())).collect::<Result<Vec<_>>>()?
        };
        Ok(Planned {
            frame,
            columns,
            order,
            limit: Some(DEFAULT_LIMIT),
            pages: true,
            range: None,
            warnings: Vec::new(),
        })
    }

    fn aggregate(&self, call: &Aggregate) -> Result<Df> {
        let field = call.field.as_ref().map(|k| self.target(k)).transpose()?;
        let expr = || field.as_ref().map(|t| t.expr.clone());
        let numeric = || -> Result<Df> {
            match &field {
                Some(t) if t.kind == Kind::Number => Ok(t.expr.clone()),
                Some(t) if t.kind == Kind::Text => {
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
            "sum" => agg::sum(numeric()?),
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
            _ => agg::array_agg(any()?).distinct().build().map_err(defect)?,
        };
        Ok(computed.alias(&call.alias))
    }

    fn groups(&self, query: &Query, frame: DataFrame) -> Result<Planned> {
        let mut keys = Vec::new();
        let mut columns = Vec::new();
        for key in &query.by {
            let (expr, name) = match key {
                GroupKey::Field(key, name) => {
                    let target = self.target(key)?;
                    if matches!(target.kind, Kind::Map | Kind::Bytes) {
                        return Err(SrqlError::new(
                            "not_groupable",
                            key.span,
                            format!("{} is {}; it makes no groups", target.field, target.kind.name()),
                        ));
                    }
                    (target.expr, name)
                }
                GroupKey::Cidr(key, bits, name) => {
                    let target = self.target(key)?;
                    if target.kind != Kind::Ip {
                        return Err(SrqlError::new(
                            "not_an_ip",
                            key.span,
                            format!("{} is {}, not an address", target.field, target.kind.name()),
                        ));
                    }
                    (ip_mask(target.expr, *bits), name)
                }
                GroupKey::Time(width, name) => (self.slice(*width)?, name),
            };
            columns.push(name.clone());
            keys.push(expr.alias(name));
        }
        let aggregates = query.stats.iter().map(|a| self.aggregate(a)).collect::<Result<Vec<_>>>()?;
        columns.extend(query.stats.iter().map(|a| a.alias.clone()));
        let mut frame = frame.aggregate(keys, aggregates).map_err(defect)?;
        if let Some(having) = &query.having {
            let condition = condition(having, frame.schema())?;
            frame = frame.filter(condition).map_err(defect)?;
        }
        let mut order = Vec::new();
        for sort in &query.sort {
            let name = sort.key.path.join("_");
            let Some(column) = columns.iter().find(|c| c.eq_ignore_ascii_case(&name)) else {
                let nearest = catalog::nearest(&name, columns.iter().map(String::as_str)).map(str::to_owned);
                return Err(SrqlError::new(
                    "unknown_column",
                    sort.key.span,
                    format!("the groups have no column {name:?}"),
                )
                .suggest(nearest.as_deref()));
            };
            order.push((column.clone(), sort.ascending));
        }
        if order.is_empty() {
            order.extend(query.stats.first().map(|a| (a.alias.clone(), false)));
        }
        let missing: Vec<_> = columns[..query.by.len()]
            .iter()
            .filter(|c| order.iter().all(|(o, _)| o != *c))
            .map(|c| (c.clone(), true))
            .collect();
        order.extend(missing);
        Ok(Planned {
            frame,
            columns,
            order,
            limit: Some(DEFAULT_LIMIT),
            pages: true,
            range: None,
            warnings: Vec::new(),
        })
    }

    /// The start of the slice of time a row is in.
    fn slice(&self, width_us: i64) -> Result<Df> {
        let time = self.entity.time.unwrap_or(self.entity.sort);
        let width = lit(ScalarValue::IntervalMonthDayNano(Some(arrow::datatypes::IntervalMonthDayNano::new(
            0,
            0,
            width_us * 1000,
        ))));
        Ok(datafusion::functions::expr_fn::date_bin(width, ident(time), timestamp(0)))
    }

    fn bucket(&self, query: &Query, frame: DataFrame) -> Result<Planned> {
        let Some(bucket) = &query.bucket else {
            return Err(SrqlError::new("bucket_missing", (0, 0), "bucket: is missing"));
        };
        if self.entity.time.is_none() {
            return Err(SrqlError::new(
                "time_not_applicable",
                bucket.span,
                format!("{} has no time to make buckets of", self.entity.name),
            ));
        }
        if !query.stats.is_empty() {
            return Err(SrqlError::new("clause_conflict", bucket.span, "bucket: and stats: cannot stand together"));
        }
        let series = match &bucket.series {
            Some(key) => cast(self.target(key)?.expr, DataType::Utf8),
            None => lit(ScalarValue::Utf8(None)),
        };
        let call = Aggregate {
            function: bucket.agg.clone(),
            field: bucket.value_field.clone(),
            quantile: None,
            alias: "value".to_owned(),
            span: bucket.span,
        };
        let keys = vec![self.slice(bucket.width_us)?.alias("timestamp"), series.alias("series")];
        let frame = frame.aggregate(keys, vec![self.aggregate(&call)?]).map_err(defect)?;
        let columns = ["timestamp", "series", "value"].map(str::to_owned).to_vec();
        let newest_first = query.sort.first().is_some_and(|s| s.key.path[0] == "timestamp" && !s.ascending);
        let order = vec![("timestamp".to_owned(), !newest_first), ("series".to_owned(), true)];
        Ok(Planned { frame, columns, order, limit: None, pages: false, range: None, warnings: Vec::new() })
    }
}

fn condition(having: &Having, schema: &DFSchema) -> Result<Df> {
    Ok(match having {
        Having::And(all) => {
            let all = all.iter().map(|h| condition(h, schema)).collect::<Result<Vec<_>>>()?;
            all.into_iter().reduce(Df::and).unwrap_or_else(|| lit(true))
        }
        Having::Or(any) => {
            let any = any.iter().map(|h| condition(h, schema)).collect::<Result<Vec<_>>>()?;
            any.into_iter().reduce(Df::or).unwrap_or_else(|| lit(false))
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

/// A number, with `k M G T P` and `Ki Mi Gi Ti Pi`.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(n) = text.parse::<f64>() {
        return n.is_finite().then_some(n);
    }
    let (digits, binary) = match text.strip_suffix('i') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let unit = digits.chars().last()?;
    let power = match unit {
        'k' | 'K' => 1,
        'M' => 2,
        'G' => 3,
        'T' => 4,
        'P' => 5,
        _ => return None,
    };
    let n: f64 = digits[..digits.len() - 1].parse().ok()?;
    Some(n * if binary { 1024f64 } else { 1000f64 }.powi(power))
}

/// An address, a network or a range `A-B`: its first and last address.
fn ip_range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Some((a, b)) = text.split_once('-') {
        return Some((a.trim().parse().ok()?, b.trim().parse().ok()?));
    }
    if text.contains('/') {
        let net: ipnet::IpNet = text.parse().ok()?;
        return Some((net.network(), net.broadcast()));
    }
    let ip: IpAddr = text.parse().ok()?;
    Some((ip.to_canonical(), ip.to_canonical()))
}

fn bytes(ip: IpAddr) -> Df {
    lit(ScalarValue::Binary(Some(IpBytes::from(ip).0.to_vec())))
}

fn each(literal: &Literal, mut ordinary: impl FnMut(char), mut wildcard: impl FnMut(char)) {
    let mut chars = literal.text.chars();
    while let Some(c) = chars.next() {
        match c {
            ORDINARY => {
                if let Some(c) = chars.next() {
                    ordinary(c);
                }
            }
            '%' if !literal.verbatim => wildcard('%'),
            '*' if !literal.quoted => wildcard('%'),
            '?' if !literal.quoted => wildcard('?'),
            c => ordinary(c),
        }
    }
}

fn has_wildcard(literal: &Literal) -> bool {
    let mut any = false;
    each(literal, |_| {}, |_| any = true);
    any
}

/// The literal as a LIKE pattern.
fn like(literal: &Literal) -> String {
    let out = std::cell::RefCell::new(String::new());
    each(
        literal,
        |c| {
            let mut out = out.borrow_mut();
            if matches!(c, '%' | '_' | '\\') {
                out.push('\\');
            }
            out.push(c);
        },
        |w| out.borrow_mut().push(if w == '%' { '%' } else { '_' }),
    );
    out.into_inner()
}

/// The literal as a regular expression over the whole text.
fn wildcard_regex(literal: &Literal) -> String {
    let out = std::cell::RefCell::new("(?is)^".to_owned());
    each(
        literal,
        |c| out.borrow_mut().push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        |w| out.borrow_mut().push_str(if w == '%' { ".*" } else { "." }),
    );
    out.borrow_mut().push('$');
    out.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(number("1.5Mi"), Some(1_572_864.0));
        assert_eq!(number("2k"), Some(2000.0));
        assert_eq!(number("x"), None);
        let (a, b) = ip_range("10.1.2.3/8").unwrap();
        assert_eq!((a.to_string(), b.to_string()), ("10.0.0.0".into(), "10.255.255.255".into()));
        assert!(ip_range("10.0.0.1-10.0.0.9").is_some() && ip_range("10.0.0").is_none());
    }
}
