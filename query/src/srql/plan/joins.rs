//! What a query joins: the rows of `devices` that its keys speak of, and its subqueries: each is a left join with its
//! distinct values and a mark. The values must be of a type that the field outside can have: a subquery that could match
//! nothing is a mistake, and said to be one.

use std::collections::BTreeSet;

use arrow_schema::DataType;
use datafusion::logical_expr::{Expr as Df, JoinType, cast, ident, lit};
use datafusion::prelude::DataFrame;
use radarflow_proto::rows::Table;

use super::super::ast::{Expr, GroupKey, Key, Query, Span, Value};
use super::names::{Names, OBJECTS, Target, keys};
use super::{Result, defect, entities, plan};
use crate::error::SrqlError;
use crate::tables::catalog::{self, Field, Kind};

/// Addresses that an entity has, that of itself first.
const ADDRESSES: &[&str] = &["ip", "source_ip"];

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
                let n = self.marks.len();
                let mut marks = Vec::new();
                // Any of them, where the key means several.
                for (i, target) in self.targets(key)?.into_iter().enumerate() {
                    let mark = format!("__in{n}_{i}");
                    frame = self.marked(frame, query, target, &mark, key.span, *span)?;
                    marks.push(mark);
                }
                let mark = match &marks[..] {
                    [one] => one.clone(),
                    several => {
                        let any = several.iter().map(|mark| ident(mark).is_true()).reduce(Df::or);
                        frame = frame
                            .with_column(&format!("__in{n}"), any.unwrap_or_else(|| lit(false)))
                            .map_err(defect)?;
                        format!("__in{n}")
                    }
                };
                self.marks.insert((key.path.clone(), *span), mark);
            }
            Expr::Filter(..) | Expr::Text(_) => {}
        }
        Ok(frame)
    }

    /// The rows, marked where a field has a value that a subquery gives.
    fn marked(
        &self,
        frame: DataFrame,
        query: &Query,
        target: Target,
        mark: &str,
        outside: Span,
        span: Span,
    ) -> Result<DataFrame> {
        if matches!(target.kind, Kind::List | Kind::Map | Kind::Bytes) {
            let detail = format!("{} is {}; a subquery gives single values", target.field, target.kind.name());
            return Err(SrqlError::new("not_comparable", outside, detail));
        }
        let (key, value) = (format!("{mark}_key"), format!("{mark}_value"));
        let given = self.given(query, &target, span)?;
        let given = given.select(vec![cast(ident("__given"), DataType::Utf8).alias(&value)]);
        let given = given.and_then(|g| g.filter(ident(&value).is_not_null())).and_then(DataFrame::distinct);
        let given = given.and_then(|g| g.with_column(mark, lit(true))).map_err(defect)?;
        let frame = frame.with_column(&key, cast(target.expr, DataType::Utf8)).map_err(defect)?;
        let on = ident(&key).eq(ident(&value));
        frame.join_on(given, JoinType::Left, [on]).map_err(defect)
    }

    /// The values that a subquery gives, as `__given`: its only field, else that of the field outside or of its type, else
    /// the device.
    fn given(&self, query: &Query, target: &Target, span: Span) -> Result<DataFrame> {
        let mut inner = query.clone();
        let (name, kind) = match (&query.fields[..], &query.stats[..]) {
            ([], []) => {
                let natural = natural(query, target, span)?;
                inner.fields = vec![Key { path: vec![natural.name.to_owned()], span }];
                (natural.name.to_owned(), natural.kind)
            }
            ([field], []) => (field.path.join("."), kind_of(query, field)?),
            (_, [_, ..]) if !query.by.is_empty() || query.window.is_some() => of_groups(query)?,
            _ => return Err(SrqlError::new("one_column", span, "a subquery gives one column: say fields:<field>")),
        };
        if !fits(target.kind, &name, kind) {
            let held = if kind == Kind::Bytes { "no single value" } else { kind.name() };
            let detail = format!(
                "{name} of the subquery is {held}, {} is {}: they are never equal; say fields:",
                target.field,
                target.kind.name()
            );
            return Err(SrqlError::new("not_comparable", span, detail));
        }
        let planned = plan(&inner, self.tables, self.now_us, None)?;
        let column = planned.columns[0].clone();
        let mut frame = planned.frame;
        if let Some(limit) = query.limit {
            let order = planned.order.iter().map(|(c, ascending)| ident(c).sort(*ascending, false)).collect();
            frame = frame.sort(order).and_then(|f| f.limit(0, Some(limit))).map_err(defect)?;
        }
        let frame = frame.select(vec![ident(column).alias("__given")]).map_err(defect)?;
        if kind == Kind::List { frame.unnest_columns(&["__given"]).map_err(defect) } else { Ok(frame) }
    }
}

/// The field whose values a subquery gives where it does not say which.
fn natural(query: &Query, target: &Target, span: Span) -> Result<&'static Field> {
    let entity = entities(query)?[0];
    let has = |name: &str| entity.fields.iter().find(|f| f.name == name);
    let own = target.column.as_ref().map(|_| target.own());
    let same = own.and_then(has).filter(|field| fits(target.kind, field.name, field.kind));
    let of_kind = || entity.fields.iter().filter(|f| f.kind == target.kind && !f.hidden);
    let by_type = || match target.kind {
        Kind::Ip => ADDRESSES.iter().find_map(|name| has(name)).filter(|f| f.kind == Kind::Ip),
        Kind::Mac => has("mac"),
        Kind::Text => ["device_uid", "uid"].into_iter().find_map(has),
        _ => None,
    };
    let only = || match target.kind {
        Kind::Ip | Kind::Mac if of_kind().count() == 1 => of_kind().next(),
        _ => None,
    };
    same.or_else(by_type).or_else(only).ok_or_else(|| {
        let detail = match target.kind {
            Kind::Text => format!("{} has neither {} nor a device; say fields:", entity.name, target.field),
            kind => format!("{} has no {} that {} could be; say fields:", entity.name, kind.name(), target.field),
        };
        SrqlError::new("field_missing", span, detail)
    })
}

/// What a field of a subquery holds.
fn kind_of(query: &Query, key: &Key) -> Result<Kind> {
    let joined = key.path.len() > 1 && OBJECTS.iter().any(|(object, _)| key.path[0].eq_ignore_ascii_case(object));
    let devices = catalog::find("devices").filter(|_| joined).map(|devices| (devices, &key.path[1..]));
    let own = entities(query)?.into_iter().map(|entity| (entity, &key.path[..]));
    // What there is not is told of where the subquery is planned.
    let found = own.chain(devices).find_map(|(entity, path)| {
        let (field, named) = entity.locate(path)?;
        Some(if named < path.len() { Kind::Text } else { field.kind })
    });
    Ok(found.unwrap_or(Kind::Text))
}

/// The column that groups give, and what it holds: the first that is shown.
fn of_groups(query: &Query) -> Result<(String, Kind)> {
    let wanted = query.fields.first().map(|key| key.path.join("."));
    let is = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(name));
    if query.window.is_some() && is("window_start") {
        return Ok(("window_start".to_owned(), Kind::Time));
    }
    for key in &query.by {
        match key {
            GroupKey::Field(key, name) if is(name) => return Ok((name.clone(), kind_of(query, key)?)),
            // A network is no address.
            GroupKey::Cidr(_, _, name) if is(name) => return Ok((name.clone(), Kind::Bytes)),
            GroupKey::Each(key, name) if is(name) => return Ok((name.clone(), elements_of(query, key))),
            GroupKey::Time(_, name) if is(name) => return Ok((name.clone(), Kind::Time)),
            _ => {}
        }
    }
    Ok((wanted.unwrap_or_default(), Kind::Number))
}

/// What the elements of a list are.
fn elements_of(query: &Query, key: &Key) -> Kind {
    let entities = entities(query).unwrap_or_default();
    let field = entities.iter().find_map(|entity| entity.locate(&key.path)).map_or("", |(field, _)| field.name);
    match field {
        name if name.ends_with("ip_addresses") => Kind::Ip,
        name if name.ends_with("mac_addresses") => Kind::Mac,
        _ => Kind::Text,
    }
}

/// Whether a field of one kind can have values of another.
fn fits(outside: Kind, name: &str, inside: Kind) -> bool {
    let names_device = name == "uid" || name.ends_with("_uid");
    match (outside, inside) {
        (Kind::Text, Kind::Bytes) => true,
        (a, b) if a == b => true,
        (Kind::Text, Kind::Ip | Kind::Mac | Kind::Number | Kind::List) => true,
        (Kind::Ip | Kind::Mac | Kind::Number, Kind::Text) => !names_device,
        (Kind::Ip | Kind::Mac, Kind::List) => true,
        _ => false,
    }
}
