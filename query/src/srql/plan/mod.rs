//! AST to plan: names and types are resolved against the catalog, then DataFusion's builder is used. Never SQL text.
//!
//! | file | plans |
//! |---|---|
//! | [`filter`] | which rows |
//! | [`groups`] | `stats:`, `having:`, `top:` |
//! | [`series`] | `bucket:`, `fill:` |
//! | [`rollup`] | `rollup_stats:` |
//! | this one | entities, joins, subqueries, rows |
//!
//! A field of another entity (`device.F`) is a column of a left join, called by its path; a subquery is a left join with
//! its distinct values and a mark, so that it may stand anywhere in the boolean structure and is two-valued like every
//! comparison.

mod filter;
mod groups;
mod rollup;
pub mod series;

pub use groups::{Tallied, Tally};
pub use rollup::ROLLUPS;

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::DataType;
use chrono_tz::Tz;
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::functions_nested::expr_fn as nested;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    BinaryExpr, Expr as Df, ExprFunctionExt, JoinType, Operator, binary_expr, cast, ident, lit, when,
};
use datafusion::prelude::DataFrame;
use radarflow_proto::lake::LakeTable;
use radarflow_proto::rows::{Nature, Table};

use super::ast::{Expr, Fill, GroupKey, Key, Query, Span, Value};
use super::complete::Values;
use super::parse::plain;
use super::time::{self, Range};
use crate::error::SrqlError;
use crate::srql::functions::as_text;
use crate::tables::catalog::{self, Entity, Field, Kind};
use crate::tables::near;

type Result<T> = std::result::Result<T, SrqlError>;

/// Rows and groups without `limit:`.
pub const DEFAULT_LIMIT: usize = 100;
/// Greatest `limit:` of a page.
pub const MAX_LIMIT: usize = 10_000;
/// A device that was seen within it is yellow at worst, microseconds.
const RECENTLY_US: i64 = 3_600_000_000;
/// Span of event queries without `time:`, microseconds.
const DEFAULT_SPAN_US: i64 = 86_400_000_000;
/// Objects, and the field that says which row of `devices` they are.
const OBJECTS: &[(&str, &str)] = &[
    ("device", "device_uid"),
    ("src_device", "src_device_uid"),
    ("dst_device", "dst_device_uid"),
    ("exporter_device", "exporter_device_uid"),
];

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
    /// What a series shows where nothing was, and how wide its slices are, microseconds.
    pub fill: Option<(Fill, i64)>,
    /// Changes of meaning a user may not expect.
    pub warnings: Vec<String>,
}

/// Where the rows of a table come from.
pub trait Tables {
    /// The rows that the asker may see; with `at:`, as they were then.
    fn rows(&self, table: Table) -> std::result::Result<DataFrame, DataFusionError>;

    /// Who owned addresses when, what is over included; `None` where that is not known.
    fn intervals(&self) -> std::result::Result<Option<DataFrame>, DataFusionError>;
}

/// The entities a query asks for.
pub fn entities(query: &Query) -> Result<Vec<&'static Entity>> {
    query.entities.iter().map(|(name, span)| entity(name, *span)).collect()
}

fn entity(name: &str, span: Span) -> Result<&'static Entity> {
    if catalog::NOT_AVAILABLE.contains(&name.to_ascii_lowercase().as_str()) {
        return Err(SrqlError::new("entity_not_available", span, format!("{name} is not available here")));
    }
    catalog::find(name).ok_or_else(|| {
        SrqlError::new("unknown_entity", span, format!("there is no entity {name:?}")).suggest(near::entity(name))
    })
}

fn zone(query: &Query) -> Result<Tz> {
    let Some(tz) = &query.tz else { return Ok(Tz::UTC) };
    plain(&tz.text).parse().map_err(|_| {
        SrqlError::new("unknown_time_zone", tz.span, format!("there is no time zone {:?}", plain(&tz.text)))
    })
}

/// The time that a query asks of, microseconds. It asks of current state then, and of nothing that has a time of its own.
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
        if entity.time.is_none() || bounds_time(entity, &query.filter) {
            return Ok(None);
        }
        warnings.push("no time: given; the last 24 hours were searched".to_owned());
        return Ok(Some(Range { from: Some(now_us - DEFAULT_SPAN_US), to: None }));
    };
    if entity.time.is_none() && entity.lasts.is_none() {
        let detail = format!("{} has no time of its own; filter one of its time fields instead", entity.name);
        return Err(SrqlError::new("time_not_applicable", literal.span, detail));
    }
    let text = plain(&literal.text);
    time::span(&text, zone, now_us).map(Some).ok_or_else(|| {
        SrqlError::new(
            "bad_time",
            literal.span,
            format!("{text:?} is no span of time; as last_24h, today, 2024-06-01 or [a,b]"),
        )
    })
}

/// Whether a top-level filter bounds the time field itself.
fn bounds_time(entity: &Entity, filter: &Expr) -> bool {
    match filter {
        Expr::And(all) => all.iter().any(|e| bounds_time(entity, e)),
        Expr::Filter(key, _) => key.path.len() == 1 && entity.time.is_some_and(|t| key.path[0].eq_ignore_ascii_case(t)),
        _ => false,
    }
}

/// What names mean in a query.
struct Names<'a> {
    /// The entity; a union's has the fields of all.
    entity: Entity,
    /// What makes a row one.
    unique: Vec<String>,
    zone: Tz,
    now_us: i64,
    tables: &'a dyn Tables,
    /// The mark of each subquery, by its place.
    marks: BTreeMap<(Vec<String>, Span), String>,
}

/// A field, or a value in a map field.
struct Target {
    expr: Df,
    kind: Kind,
    /// As errors call it.
    field: String,
    /// Its column, where it is one.
    column: Option<String>,
}

impl Target {
    /// Its field's own name.
    fn own(&self) -> &str {
        self.field.rsplit('.').next().unwrap_or(&self.field)
    }
}

/// Plans a query. `pinned` is the span that an earlier page looked at.
pub fn plan(query: &Query, tables: &dyn Tables, now_us: i64, pinned: Option<Range>) -> Result<Planned> {
    let entities = entities(query)?;
    let zone = zone(query)?;
    let mut warnings = query.warnings.clone();
    let of_one = |entity: &Entity| Names {
        unique: unique(entity),
        entity: entity.clone(),
        zone,
        now_us,
        tables,
        marks: BTreeMap::new(),
    };
    let mut range = pinned;
    let (mut names, mut frame) = match entities[..] {
        [one] => {
            let names = of_one(one);
            let frame = names.bounded(query, &mut range, &mut warnings)?;
            (names, frame)
        }
        _ => {
            let union = union(query, &entities)?;
            let mut whole: Option<DataFrame> = None;
            for entity in &entities {
                let rows = of_one(entity).bounded(query, &mut range, &mut warnings)?;
                let rows = rows.select(union.columns(entity)).map_err(defect)?;
                whole = Some(match whole {
                    Some(before) => before.union(rows).map_err(defect)?,
                    None => rows,
                });
            }
            let names = Names { unique: union.unique, ..of_one(&union.entity) };
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
    let limit = match query.limit {
        Some(n) if n > MAX_LIMIT => {
            let detail = format!("limit:{n} is more than a page may have ({MAX_LIMIT})");
            return Err(SrqlError::new("limit_too_large", (0, 0), detail));
        }
        other => other,
    };
    if let Some((_, span)) = query.units {
        if query.stats.is_empty() {
            return Err(SrqlError::new("units_without_sum", span, "units: needs a sum"));
        }
        if entities.iter().any(|e| e.table != Table::Flow) {
            return Err(SrqlError::new("clause_not_applicable", span, "units: are of flows"));
        }
    }
    if let Some(span) = query.include_deleted.filter(|_| entities.iter().all(|e| e.table != Table::Device)) {
        return Err(SrqlError::new("clause_not_applicable", span, "include_deleted: is of devices"));
    }
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

/// The span that a query of one entity looks at, where it looks at one.
pub fn span(query: &Query, now_us: i64) -> Result<Option<Range>> {
    let [one] = entities(query)?[..] else { return Ok(None) };
    span_of(one, query, zone(query)?, now_us, &mut Vec::new())
}

/// The rows that a query of groups counts, if what it says of them can be kept by the rows that come and go: groups of one
/// entity's rows, each judged by itself; those of a part of its span, if one is given.
pub fn tallied(query: &Query, tables: &dyn Tables, now_us: i64, part: Option<Range>) -> Result<Option<Tallied>> {
    let [one] = entities(query)?[..] else { return Ok(None) };
    let names =
        Names { unique: unique(one), entity: one.clone(), zone: zone(query)?, now_us, tables, marks: BTreeMap::new() };
    let rows = names.bounded(query, &mut part.clone(), &mut Vec::new())?;
    let filter = bare(names.filter(&query.filter)?);
    let read: Vec<String> = filter.column_refs().into_iter().map(|column| column.name.clone()).collect();
    let tallied = names.tallied(query, rows.filter(filter).map_err(defect)?)?;
    Ok(tallied.map(|mut tallied| {
        tallied.reads.extend(read);
        tallied
    }))
}

/// What a query says of its groups: rows of its keys and aggregates.
pub fn of_groups(query: &Query, groups: DataFrame, keys: &[String]) -> Result<Planned> {
    let columns = keys.iter().cloned().chain(query.stats.iter().map(|a| a.alias.clone())).collect();
    let planned = groups::of_groups(query, groups, columns, keys.len())?;
    Ok(Planned { limit: query.limit, ..planned })
}

/// Events that are looked at for a completion.
const SAMPLE: usize = 100_000;
/// Values that a completion offers.
const VALUES: usize = 20;
/// Events of so long are looked at for them, microseconds.
const RECENT_US: i64 = 15 * 60_000_000;

/// The most frequent values that begin as wanted, with their counts.
pub fn values(wanted: &Values, mut rows: DataFrame, now_us: i64) -> Result<DataFrame> {
    if let Some(time) = wanted.entity.time {
        let recent = rows.filter(ident(time).gt_eq(timestamp(now_us - RECENT_US)));
        rows = recent.and_then(|rows| rows.limit(0, Some(SAMPLE))).map_err(defect)?;
    }
    if wanted.entity.table == Table::Device {
        rows = rows.filter(ident("deleted_at").is_null()).map_err(defect)?;
    }
    let column = ident(wanted.field.name);
    let value = match (wanted.field.kind, &wanted.key) {
        (Kind::Map, Some(key)) => nested::array_element(nested::map_extract(column, lit(key.as_str())), lit(1i64)),
        (Kind::Map, None) => nested::map_keys(column),
        _ => column,
    };
    let several = wanted.field.kind == Kind::List || (wanted.field.kind == Kind::Map && wanted.key.is_none());
    let mut frame = rows.select(vec![value.alias("value")]).map_err(defect)?;
    if several {
        frame = frame.unnest_columns(&["value"]).map_err(defect)?;
    }
    let mut pattern = String::new();
    for c in wanted.prefix.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    let frame = frame.filter(ident("value").ilike(lit(pattern))).map_err(defect)?;
    let count = datafusion::functions_aggregate::expr_fn::count(lit(1i64)).alias("count");
    let frame = frame.aggregate(vec![ident("value")], vec![count]).map_err(defect)?;
    let order = vec![ident("count").sort(false, false), ident("value").sort(true, false)];
    frame.sort(order).and_then(|f| f.limit(0, Some(VALUES))).map_err(defect)
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

fn defect(error: impl std::borrow::Borrow<DataFusionError>) -> SrqlError {
    SrqlError::new("cannot_plan", (0, 0), error.borrow().strip_backtrace())
}

fn timestamp(us: i64) -> Df {
    lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
}

/// The columns that make a row one.
fn unique(entity: &Entity) -> Vec<String> {
    let row_id = entity.fields.iter().find(|f| f.name == "row_id").map(|f| vec![f.name.to_owned()]);
    // Of what lasts there are several a key, each begun by a version of its own.
    let begun = entity.lasts.map(|_| "epoch");
    row_id.unwrap_or_else(|| entity.table.key().iter().copied().chain(begun).map(str::to_owned).collect())
}

/// Several entities as one.
struct Union {
    entity: Entity,
    unique: Vec<String>,
    /// The type of each field's column.
    types: BTreeMap<&'static str, DataType>,
}

/// The fields that a query names, by their first segment.
fn named(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    keys(query, &mut |key| {
        names.insert(key.path[0].to_ascii_lowercase());
    });
    names
}

/// Every key of a query, those of its subqueries left out.
fn keys<'q>(query: &'q Query, each: &mut dyn FnMut(&'q Key)) {
    fn of_filter<'q>(expr: &'q Expr, each: &mut dyn FnMut(&'q Key)) {
        match expr {
            Expr::And(all) | Expr::Or(all) => all.iter().for_each(|e| of_filter(e, each)),
            Expr::Not(inner) => of_filter(inner, each),
            Expr::Filter(key, _) => each(key),
            Expr::Text(_) => {}
        }
    }
    of_filter(&query.filter, each);
    query.sort.iter().for_each(|s| each(&s.key));
    query.fields.iter().for_each(&mut *each);
    for call in &query.stats {
        call.field.iter().for_each(&mut *each);
        if let Some(only) = &call.only {
            of_filter(only, each);
        }
    }
    for group in &query.by {
        match group {
            GroupKey::Field(key, _) | GroupKey::Cidr(key, ..) => each(key),
            GroupKey::Time(..) => {}
        }
    }
    if let Some(bucket) = &query.bucket {
        bucket.series.iter().chain(&bucket.value_field).for_each(&mut *each);
    }
}

fn union(query: &Query, entities: &[&'static Entity]) -> Result<Union> {
    let span = (query.entities[0].1.0, query.entities[query.entities.len() - 1].1.1);
    let named = named(query);
    let mut fields =
        vec![Field { name: "entity", doc: "Which entity the row is of.", kind: Kind::Text, hidden: false }];
    for entity in entities {
        for field in entity.fields.iter().filter(|f| !f.hidden) {
            let shared = entities.iter().all(|e| e.fields.iter().any(|f| f.name == field.name));
            let wanted = named.iter().any(|name| entity.field(name).is_some_and(|f| f.name == field.name));
            let kept = shared || wanted || field.name == "row_id" || entity.time == Some(field.name);
            match fields.iter().find(|f| f.name == field.name) {
                Some(known) if known.kind != field.kind && (shared || wanted) => {
                    let detail = format!(
                        "{} is {} in one of these entities and {} in another",
                        field.name,
                        known.kind.name(),
                        field.kind.name()
                    );
                    return Err(SrqlError::new("type_conflict", span, detail));
                }
                Some(_) => {}
                None if kept => fields.push(field.clone()),
                None => {}
            }
        }
    }
    let time = entities.iter().all(|e| e.time.is_some()).then_some("time");
    if time.is_some() && !fields.iter().any(|f| f.name == "time") {
        fields.push(Field { name: "time", doc: "When it happened.", kind: Kind::Time, hidden: false });
    }
    let mut unique = vec!["entity".to_owned()];
    for entity in entities {
        for column in self::unique(entity) {
            if let Some(field) = entity.fields.iter().find(|f| f.name == column).cloned()
                && !fields.iter().any(|f| f.name == field.name)
            {
                fields.push(Field { hidden: true, ..field });
            }
            if !unique.contains(&column) {
                unique.push(column);
            }
        }
    }
    let sort = time.unwrap_or("entity");
    let table = entities[0].table;
    let mut types = BTreeMap::new();
    for entity in entities {
        for column in entity.table.columns() {
            types.entry(column.name).or_insert(column.data_type);
        }
    }
    Ok(Union { entity: Entity { name: "the union", table, fields, time, lasts: None, sort }, unique, types })
}

impl Union {
    /// An entity's rows as the union has them.
    fn columns(&self, entity: &Entity) -> Vec<Df> {
        let schema = entity.table.schema();
        let column = |field: &Field| {
            if field.name == "entity" {
                return lit(entity.name).alias("entity");
            }
            let own = if field.name == "time" { entity.time.unwrap_or("time") } else { field.name };
            match schema.field_with_name(own) {
                Ok(_) => ident(own).alias(field.name),
                Err(_) => {
                    let data_type = self.types.get(field.name).cloned().unwrap_or(DataType::Utf8);
                    cast(lit(ScalarValue::Null), data_type).alias(field.name)
                }
            }
        };
        self.entity.fields.iter().map(column).collect()
    }
}

impl Names<'_> {
    /// The rows of a table, with what is computed of them.
    fn all(&self, table: Table) -> Result<DataFrame> {
        let rows = self.tables.rows(table).map_err(defect)?;
        if table != Table::Device {
            return Ok(rows);
        }
        let recent = ident("last_seen_time").gt_eq(timestamp(self.now_us - RECENTLY_US));
        let mut color = when(ident("is_available").is_true(), lit("green")).when(recent, lit("yellow"));
        rows.with_column(catalog::STATUS_COLOR, color.otherwise(lit("red")).map_err(defect)?).map_err(defect)
    }

    /// The rows within the span of time, less what is hidden; of each key the newest, if that is asked for.
    fn bounded(&self, query: &Query, range: &mut Option<Range>, warnings: &mut Vec<String>) -> Result<DataFrame> {
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

    /// The objects a key may mean: several where any of them counts, none where it is a field.
    fn object(&self, key: &Key) -> Vec<&'static str> {
        let first = key.path[0].to_ascii_lowercase();
        if key.path.len() < 2 || self.entity.field(&first).is_some() {
            return Vec::new();
        }
        let has = |uid: &str| self.entity.fields.iter().any(|f| f.name == uid);
        let one = OBJECTS.iter().find(|(object, uid)| *object == first && has(uid));
        match one {
            Some((object, _)) => vec![*object],
            None if first == "device" => {
                OBJECTS.iter().filter(|(_, uid)| has(uid)).map(|(object, _)| *object).collect()
            }
            None => Vec::new(),
        }
    }

    /// Joins the rows of `devices` that keys speak of.
    fn objects(&self, query: &Query, mut frame: DataFrame) -> Result<DataFrame> {
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
    fn subqueries(&mut self, expr: &Expr, mut frame: DataFrame) -> Result<DataFrame> {
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

    /// What a key means: a value, or where an object may be several, a value of each.
    fn targets(&self, key: &Key) -> Result<Vec<Target>> {
        let objects = self.object(key);
        if objects.is_empty() {
            return self.value(&self.entity, "", key).map(|t| vec![t]);
        }
        let devices = catalog::find("devices").expect("there are devices");
        let inner = Key { path: key.path[1..].to_vec(), span: key.span };
        objects.iter().map(|object| self.value(devices, &format!("{object}."), &inner)).collect()
    }

    /// What a key means where it must mean one thing.
    fn one(&self, key: &Key) -> Result<Target> {
        let mut targets = self.targets(key)?;
        if targets.len() > 1 {
            let detail = "say which device: src_device, dst_device or exporter_device";
            return Err(SrqlError::new("ambiguous_field", key.span, detail));
        }
        targets.pop().ok_or_else(|| SrqlError::new("unknown_field", key.span, "there is no such field"))
    }

    fn value(&self, entity: &Entity, prefix: &str, key: &Key) -> Result<Target> {
        let name = &key.path[0];
        let field = entity.field(name).ok_or_else(|| {
            let detail = format!("{} has no field {name:?}", entity.name);
            let near = if prefix.is_empty() { entity.nearest_key(name) } else { entity.nearest(name) };
            SrqlError::new("unknown_field", key.span, detail).suggest(near)
        })?;
        let column = format!("{prefix}{}", field.name);
        if key.path.len() == 1 {
            return Ok(Target { expr: ident(&column), kind: field.kind, field: column.clone(), column: Some(column) });
        }
        if field.kind != Kind::Map {
            let detail = format!("{} is {}; it has no parts", field.name, field.kind.name());
            return Err(SrqlError::new("not_a_map", key.span, detail));
        }
        let inner = key.path[1..].join(".");
        let value = nested::array_element(nested::map_extract(ident(&column), lit(inner.as_str())), lit(1i64));
        Ok(Target { expr: value, kind: Kind::Text, field: format!("{column}.{inner}"), column: None })
    }

    /// A column for a key, made if it is none yet.
    fn column(&self, frame: DataFrame, key: &Key) -> Result<(DataFrame, String, Kind)> {
        let target = self.one(key)?;
        match target.column {
            Some(column) => Ok((frame, column, target.kind)),
            None => {
                let frame = frame.with_column(&target.field, target.expr).map_err(defect)?;
                Ok((frame, target.field, target.kind))
            }
        }
    }

    fn rows(&self, query: &Query, mut frame: DataFrame) -> Result<Planned> {
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
