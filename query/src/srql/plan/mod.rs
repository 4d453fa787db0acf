//! AST to plan: names and types are resolved against the catalog, then DataFusion's builder is used. Never SQL text.
//!
//! | file | plans |
//! |---|---|
//! | [`filter`] | which rows; [`operands`]: what a literal is beside a field |
//! | [`groups`] | `stats:`, `top:`; [`having`]: `having:` |
//! | [`beside`] | `reverse:`, `compare:` |
//! | [`series`] | `bucket:`, `fill:` |
//! | [`rollup`] | `rollup_stats:` |
//! | [`names`] | what keys mean |
//! | [`joins`] | the devices that keys speak of, subqueries |
//! | [`tallied`] | groups that are kept by the rows that come and go |
//! | [`union`] | several entities as one |
//! | [`rows`] | which rows of an entity there are, and how they are shown |
//! | [`values`] | what a completion offers |
//! | this one | all of it together |
//!
//! A field of another entity (`device.F`) is a column of a left join, called by its path; a subquery is a left join with
//! its distinct values and a mark, so that it may stand anywhere in the boolean structure and is two-valued like every
//! comparison.

mod beside;
mod filter;
mod groups;
mod having;
mod joins;
mod names;
mod operands;
mod rollup;
mod rows;
pub mod series;
mod tallied;
mod union;
mod values;

pub use filter::MAX_CONDITIONS;
pub use rollup::ROLLUPS;
pub use tallied::{Tallied, Tally, tallied};
pub use values::values;

use std::borrow::Borrow;
use std::collections::BTreeMap;

use chrono_tz::Tz;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr as Df, Operator, binary_expr, lit};
use datafusion::prelude::DataFrame;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::rows::{Nature, Table};

use self::names::Names;
use super::ast::{Expr, Fill, Query, Span, Value};
use super::parse::plain;
use super::slices::Slices;
use super::time::{self, Range};
use crate::error::SrqlError;
use crate::srql::near;
use crate::tables::catalog::Entity;

type Result<T> = std::result::Result<T, SrqlError>;

/// Rows and groups without `limit:`.
pub const DEFAULT_LIMIT: usize = 100;
pub use radarflow_language::words::MAX_LIMIT;
/// Span of event queries without `time:`, microseconds.
const DEFAULT_SPAN_US: i64 = 86_400_000_000;

/// What a query becomes.
#[derive(Clone, Debug)]
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
    /// What a series shows where nothing was, and its slices.
    pub fill: Option<(Fill, Slices)>,
    /// Whether it is a series: shown oldest first, whichever end of it is asked for.
    pub series: bool,
    /// What columns count.
    pub units: BTreeMap<String, &'static str>,
    /// Changes of meaning a user may not expect.
    pub warnings: Vec<String>,
}

impl Planned {
    /// All rows of a plan, some columns of them, in an order.
    fn new(frame: DataFrame, columns: Vec<String>, order: Vec<(String, bool)>) -> Self {
        let (units, warnings) = (BTreeMap::new(), Vec::new());
        let (limit, pages, range, fill, series) = (None, false, None, None, false);
        Planned { frame, columns, order, limit, pages, range, fill, series, units, warnings }
    }
}

/// Where the rows of a table come from.
pub trait Tables {
    /// The rows that the asker may see; with `at:`, as they were then.
    ///
    /// # Errors
    /// Where the table cannot be read.
    fn rows(&self, table: Table) -> std::result::Result<DataFrame, DataFusionError>;

    /// Who owned addresses when, what is over included; `None` where that is not known.
    ///
    /// # Errors
    /// Where the history of addresses cannot be read.
    fn intervals(&self) -> std::result::Result<Option<DataFrame>, DataFusionError>;
}

/// The entities a query asks for.
///
/// # Errors
/// One of them is none, or is not available here.
pub fn entities(query: &Query) -> Result<Vec<&'static Entity>> {
    query.entities.iter().map(|(name, span)| near::meant(name, *span)).collect()
}

fn zone(query: &Query) -> Result<Tz> {
    let Some(tz) = &query.tz else { return Ok(Tz::UTC) };
    plain(&tz.text).parse().map_err(|_| {
        SrqlError::new("unknown_time_zone", tz.span, format!("there is no time zone {:?}", plain(&tz.text)))
    })
}

/// The time that a query asks of, microseconds. It asks of current state then, and of nothing that has a time of its own.
///
/// # Errors
/// It is no instant, or not over yet; or the query asks for what keeps no history.
pub fn at(query: &Query, now_us: i64) -> Result<Option<i64>> {
    let Some(literal) = &query.at else { return Ok(None) };
    let text = plain(&literal.text);
    let at = time::instant(&text, zone(query)?, now_us).and_then(|r| r.from).ok_or_else(|| {
        let detail = format!("{text:?} is no instant; as now-1h, 2024-06-01 or 2024-06-01T10:00");
        SrqlError::new("bad_time", literal.span, detail)
    })?;
    if at > now_us {
        return Err(SrqlError::new("at_in_the_future", literal.span, "at: asks of what was, not of what will be"));
    }
    current(query, literal.span)?;
    Ok(Some(at))
}

/// Nothing in it has a time of its own.
fn current(query: &Query, span: Span) -> Result<()> {
    for entity in entities(query)? {
        if LakeTable::history_of(entity.table).is_none() {
            let detail = match entity.table.nature() {
                Nature::Event => format!("{} are events: time: says which; at: is of current state", entity.name),
                Nature::State => format!("{} keep no history", entity.name),
            };
            return Err(SrqlError::new("at_not_applicable", span, detail));
        }
    }
    let mut below = Vec::new();
    subqueries(&query.filter, &mut below);
    query.stats.iter().filter_map(|call| call.only.as_ref()).for_each(|only| subqueries(only, &mut below));
    below.into_iter().try_for_each(|inner| current(inner, span))
}

fn subqueries<'q>(expr: &'q Expr, into: &mut Vec<&'q Query>) {
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter().for_each(|e| subqueries(e, into)),
        Expr::Not(inner) => subqueries(inner, into),
        Expr::Filter(_, Value::Sub(query, _)) => into.push(query),
        Expr::Filter(..) | Expr::Text(_) => {}
    }
}

/// The span that a query looks at.
fn span_of(entity: &Entity, query: &Query, zone: Tz, now_us: i64, warnings: &mut Vec<String>) -> Result<Option<Range>> {
    let Some(literal) = &query.time else {
        if entity.time.is_none() || is_bounded(entity, &query.filter) {
            return Ok(None);
        }
        warnings.push("no time: given; the last 24 hours were searched".to_owned());
        return Ok(Some(Range { from: Some(now_us - DEFAULT_SPAN_US), to: None }));
    };
    if entity.time.is_none() && entity.lasts.is_none() && entity.seen.is_none() {
        let detail = format!("{} has no time of its own; filter one of its time fields instead", entity.name);
        return Err(SrqlError::new("time_not_applicable", literal.span, detail));
    }
    let text = plain(&literal.text);
    let span = time::span(&text, zone, now_us).ok_or_else(|| {
        let detail = format!("{text:?} is no span of time; as last_24h, today, 2024-06-01 or [a,b]");
        SrqlError::new("bad_time", literal.span, detail)
    })?;
    if span.from.zip(span.to).is_some_and(|(from, to)| from >= to) {
        return Err(SrqlError::new("bad_time", literal.span, format!("{text:?} ends before it begins")));
    }
    Ok(Some(span))
}

/// Fields whose value is that of few rows, whenever they were.
const KEYS: &[&str] = &["row_id", "trace_id", "span_id"];

/// Whether a top-level filter bounds the time field itself, or fixes a key.
fn is_bounded(entity: &Entity, filter: &Expr) -> bool {
    match filter {
        Expr::And(all) => all.iter().any(|e| is_bounded(entity, e)),
        Expr::Filter(key, value) => match entity.locate(&key.path) {
            Some((field, _)) if entity.time == Some(field.name) => says(value, true),
            Some((field, _)) => KEYS.contains(&field.name) && says(value, false),
            None => false,
        },
        _ => false,
    }
}

/// Whether a value is certain ones; or, of what is ordered, is within a range.
fn says(value: &Value, ordered: bool) -> bool {
    match value {
        Value::Is(literal) => literal.verbatim || !literal.text.contains(['*', '?', '%']),
        Value::Any(all) | Value::All(all) => all.iter().all(|value| says(value, ordered)),
        Value::Compare(..) | Value::Range(..) => ordered,
        _ => false,
    }
}

/// Plans a query. `pinned` is the span that an earlier page looked at.
///
/// # Errors
/// The first mistake in the query, or what DataFusion says of the plan.
pub fn plan(query: &Query, tables: &dyn Tables, now_us: i64, pinned: Option<Range>) -> Result<Planned> {
    let entities = entities(query)?;
    let mut warnings = query.warnings.clone();
    let mut range = pinned;
    let (names, frame) = source(query, tables, now_us, &mut range, &mut warnings)?;
    let limit = match query.limit {
        Some(n) if n > MAX_LIMIT => {
            let detail = format!("limit:{n} is more than a page may have ({MAX_LIMIT})");
            return Err(SrqlError::new("limit_too_large", (0, 0), detail));
        }
        other => other,
    };
    if let Some((_, span)) = query.units {
        if query.stats.is_empty() && query.bucket.is_none() {
            return Err(SrqlError::new("units_without_sum", span, "units: needs a sum"));
        }
        if entities.iter().any(|e| e.table != Table::Flow) {
            return Err(SrqlError::new("clause_not_applicable", span, "units: are of flows"));
        }
    }
    if let Some(span) = query.include_deleted.filter(|_| entities.iter().all(|e| e.table != Table::Device)) {
        return Err(SrqlError::new("clause_not_applicable", span, "include_deleted: is of devices"));
    }
    beside::check(query, &entities)?;
    let mut planned = if let Some(rollup) = &query.rollup {
        names.rollup(query, rollup, frame)?
    } else if query.bucket.is_some() {
        names.bucket(query, frame, range)?
    } else if query.stats.is_empty() {
        names.rows(query, frame)?
    } else {
        names.groups(query, frame, range)?
    };
    planned.limit = limit.or(planned.limit);
    planned.range = range;
    warnings.append(&mut planned.warnings);
    planned.warnings = warnings;
    Ok(planned)
}

/// The rows of a query, and what names mean in it.
fn source<'a>(
    query: &Query,
    tables: &'a dyn Tables,
    now_us: i64,
    range: &mut Option<Range>,
    warnings: &mut Vec<String>,
) -> Result<(Names<'a>, DataFrame)> {
    let (entities, zone) = (entities(query)?, zone(query)?);
    let of_one = |entity: &Entity| Names::of(entity, zone, now_us, tables);
    let (mut names, mut frame) = match entities[..] {
        [one] => {
            let names = of_one(one);
            let frame = names.bounded(query, range, warnings)?;
            (names, frame)
        }
        _ => {
            let union = union::union(query, &entities)?;
            let (texts, mut marks) = (union::texts(query), BTreeMap::new());
            let mut whole: Option<DataFrame> = None;
            for entity in &entities {
                let rows = of_one(entity).bounded(query, range, warnings)?;
                let mut columns = union.columns(entity);
                // A text is looked for in all text fields of each, whichever are shown.
                for (n, text) in texts.iter().enumerate() {
                    let mark = format!("__text{n}");
                    columns.push(filter::contains(entity, text).alias(&mark));
                    marks.insert((Vec::new(), text.span), mark);
                }
                let rows = rows.select(columns).map_err(defect)?;
                whole = Some(match whole {
                    Some(before) => before.union(rows).map_err(defect)?,
                    None => rows,
                });
            }
            let parts = entities.clone();
            let names = Names { unique: union.unique, parts, marks, ..of_one(&union.entity) };
            for text in texts {
                names.count(entities.iter().map(|entity| filter::texts(entity).count()).sum(), text.span)?;
            }
            (names, whole.ok_or_else(|| SrqlError::new("entity_missing", (0, 0), "no entity"))?)
        }
    };
    frame = names.objects(query, frame)?;
    frame = names.subqueries(&query.filter, frame)?;
    for call in &query.stats {
        if let Some(only) = &call.only {
            frame = names.subqueries(only, frame)?;
        }
    }
    frame = frame.filter(bare(names.filter(&query.filter)?)).map_err(defect)?;
    frame = names.unnested(query, frame)?;
    Ok((names, frame))
}

/// The span that a query of one entity looks at, where it looks at one.
///
/// # Errors
/// It is no span, or the entity has no time.
pub fn span(query: &Query, now_us: i64) -> Result<Option<Range>> {
    let [one] = entities(query)?[..] else { return Ok(None) };
    span_of(one, query, zone(query)?, now_us, &mut Vec::new())
}

/// What a query says of its groups: rows of its keys and aggregates.
///
/// # Errors
/// A name is none of their columns.
pub fn of_groups(query: &Query, groups: DataFrame, keys: &[String]) -> Result<Planned> {
    let columns = keys.iter().cloned().chain(query.stats.iter().map(|a| a.alias.clone())).collect();
    let planned = groups::of_groups(query, &[], groups, columns, keys.len())?;
    Ok(Planned { limit: query.limit, ..planned })
}

/// The same condition for a filter, which leaves out what is missing as it does what is false: files and indexes know
/// comparisons, not whether they are true.
fn bare(condition: Df) -> Df {
    match condition {
        Df::IsTrue(inner) => bare(*inner),
        Df::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            binary_expr(bare(*left), op, bare(*right))
        }
        other => other,
    }
}

fn defect(error: impl Borrow<DataFusionError>) -> SrqlError {
    SrqlError::new("cannot_plan", (0, 0), error.borrow().strip_backtrace())
}

fn timestamp(us: i64) -> Df {
    lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
}
