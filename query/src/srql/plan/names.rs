//! What keys mean in a query: a field, a value below a map, a field of the device that a row is of.

use std::cell::Cell;
use std::collections::BTreeMap;

use arrow_schema::DataType;
use chrono_tz::Tz;
use datafusion::functions_nested::expr_fn as nested;
use datafusion::logical_expr::{Expr as Df, ident, lit};
use radarflow_proto::rows::Table;

use super::super::ast::{Expr, GroupKey, Key, Query, Span, Value};
use super::super::meant;
use super::{Result, Tables};
use crate::error::SrqlError;
use crate::tables::catalog::{self, Entity, Field, Kind};

/// Objects, and the field that says which row of `devices` they are.
pub(super) const OBJECTS: &[(&str, &str)] = &[
    ("device", "device_uid"),
    ("src_device", "src_device_uid"),
    ("dst_device", "dst_device_uid"),
    ("exporter_device", "exporter_device_uid"),
];

/// What names mean in a query.
pub(super) struct Names<'a> {
    /// The entity; a union's has the fields of all.
    pub(super) entity: Entity,
    /// Of a union the entities it is of.
    pub(super) parts: Vec<&'static Entity>,
    /// What makes a row one.
    pub(super) unique: Vec<String>,
    pub(super) zone: Tz,
    pub(super) now_us: i64,
    pub(super) tables: &'a dyn Tables,
    /// The mark of each subquery, by its place; of a union that of each text that is looked for, without a path.
    pub(super) marks: BTreeMap<(Vec<String>, Span), String>,
    /// Comparisons so far.
    pub(super) conditions: Cell<usize>,
}

/// A field, or a value in a map field.
pub(super) struct Target {
    pub(super) expr: Df,
    pub(super) kind: Kind,
    /// As errors call it.
    pub(super) field: String,
    /// Its column, where it is one.
    pub(super) column: Option<String>,
    /// The type of its values.
    pub(super) data_type: DataType,
}

impl Target {
    /// Its field's own name.
    pub(super) fn own(&self) -> &str {
        self.field.rsplit('.').next().unwrap_or(&self.field)
    }
}

impl<'a> Names<'a> {
    pub(super) fn of(entity: &Entity, zone: Tz, now_us: i64, tables: &'a dyn Tables) -> Names<'a> {
        let (unique, parts, marks) = (unique(entity), Vec::new(), BTreeMap::new());
        Names { entity: entity.clone(), parts, unique, zone, now_us, tables, marks, conditions: Cell::new(0) }
    }
}

impl Names<'_> {
    /// The objects a key may mean: several where any of them counts, none where it is a field.
    pub(super) fn object(&self, key: &Key) -> Vec<&'static str> {
        let first = key.path[0].to_ascii_lowercase();
        if key.path.len() < 2 || self.entity.field(&first).is_some() {
            return Vec::new();
        }
        let has = |uid: &str| self.entity.fields.iter().any(|f| f.name == uid);
        // Rows of a union have their devices where their entities have them.
        let several = first == "device" && self.parts.len() > 1;
        let one = OBJECTS.iter().find(|(object, uid)| !several && *object == first && has(uid));
        match one {
            Some((object, _)) => vec![*object],
            None if first == "device" => {
                OBJECTS.iter().filter(|(_, uid)| has(uid)).map(|(object, _)| *object).collect()
            }
            None => Vec::new(),
        }
    }

    /// What a key means: a value, or where an object may be several, a value of each.
    pub(super) fn targets(&self, key: &Key) -> Result<Vec<Target>> {
        let objects = self.object(key);
        if objects.is_empty() {
            return self.value(&self.entity, "", key).map(|t| vec![t]);
        }
        let devices = catalog::find("devices").expect("there are devices");
        let inner = Key { path: key.path[1..].to_vec(), span: key.span };
        objects.iter().map(|object| self.value(devices, &format!("{object}."), &inner)).collect()
    }

    /// What a key means where it must mean one thing.
    pub(super) fn one(&self, key: &Key) -> Result<Target> {
        let mut targets = self.targets(key)?;
        if targets.len() > 1 {
            let detail = "say which device: src_device, dst_device or exporter_device";
            return Err(SrqlError::new("ambiguous_field", key.span, detail));
        }
        targets.pop().ok_or_else(|| SrqlError::new("unknown_field", key.span, "there is no such field"))
    }

    fn value(&self, entity: &Entity, prefix: &str, key: &Key) -> Result<Target> {
        // A union has its fields under the names that any of its entities has for them.
        let of_parts = || {
            let parts = self.parts.iter().filter(|_| prefix.is_empty());
            let found = parts.filter_map(|part| part.locate(&key.path));
            let own = |(field, n): (&Field, usize)| Some((entity.fields.iter().find(|f| f.name == field.name)?, n));
            found.filter_map(own).next()
        };
        let Some((field, named)) = entity.locate(&key.path).or_else(of_parts) else {
            return Err(self.unknown(entity, key));
        };
        let column = format!("{prefix}{}", field.name);
        if named == key.path.len() {
            let tables = [entity.table].into_iter().chain(self.parts.iter().map(|part| part.table));
            let data_type = tables.flat_map(Table::columns).find(|c| c.name == field.name).map(|c| c.data_type);
            let data_type = data_type.unwrap_or(DataType::Utf8);
            let (expr, kind, field) = (ident(&column), field.kind, column.clone());
            return Ok(Target { expr, kind, field, column: Some(column), data_type });
        }
        if field.kind != Kind::Map {
            let detail = format!("{} is {}; it has no parts", field.name, field.kind.name());
            return Err(SrqlError::new("not_a_map", key.span, detail));
        }
        let inner = key.path[named..].join(".");
        let expr = nested::array_element(nested::map_extract(ident(&column), lit(inner.as_str())), lit(1i64));
        let (kind, field) = (Kind::Text, format!("{column}.{inner}"));
        Ok(Target { expr, kind, field, column: None, data_type: DataType::Utf8 })
    }

    /// Why there is no such field.
    fn unknown(&self, entity: &Entity, key: &Key) -> SrqlError {
        let name = key.path.join(".");
        let entities: Vec<&Entity> = [entity].into_iter().chain(self.parts.iter().copied()).collect();
        if let Some(fields) = entities.iter().find_map(|entity| meant::either(entity, &key.path[0])) {
            let detail = format!("{name} is any of several fields; say which: {}", fields.join(", "));
            return SrqlError::new("ambiguous_field", key.span, detail).suggest(fields.first().copied());
        }
        if entities.iter().any(|entity| catalog::not_collected(entity.name, &key.path)) {
            let detail = format!("{name} of {} is not collected yet", entity.name);
            return SrqlError::new("not_collected", key.span, detail);
        }
        let name = &key.path[0];
        let detail = format!("{} has no field {name:?}", entity.name);
        // Of a device's fields clauses are none.
        let whole = entity.name == self.entity.name;
        let near = entities.iter().filter(|_| whole).find_map(|entity| entity.nearest_key(name));
        SrqlError::new("unknown_field", key.span, detail).suggest(near.or_else(|| entity.nearest(name)))
    }
}

/// Every key of a query, those of its subqueries left out.
pub(super) fn keys<'q>(query: &'q Query, each: &mut dyn FnMut(&'q Key)) {
    fn of_filter<'q>(expr: &'q Expr, each: &mut dyn FnMut(&'q Key)) {
        match expr {
            Expr::And(all) | Expr::Or(all) => all.iter().for_each(|e| of_filter(e, each)),
            Expr::Not(inner) => of_filter(inner, each),
            Expr::Filter(key, value) => {
                each(key);
                of_value(value, each);
            }
            Expr::Text(_) => {}
        }
    }
    fn of_value<'q>(value: &'q Value, each: &mut dyn FnMut(&'q Key)) {
        match value {
            Value::Field(_, key) => each(key),
            Value::Any(all) | Value::All(all) => all.iter().for_each(|value| of_value(value, each)),
            _ => {}
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
    query.by.iter().filter_map(GroupKey::key).for_each(&mut *each);
    if let Some(bucket) = &query.bucket {
        bucket.series.iter().chain(&bucket.value_field).for_each(&mut *each);
    }
}

/// The columns that make a row one.
pub(super) fn unique(entity: &Entity) -> Vec<String> {
    let row_id = entity.fields.iter().find(|f| f.name == "row_id").map(|f| vec![f.name.to_owned()]);
    // Of what lasts there are several a key, each begun by a version of its own.
    let begun = entity.lasts.map(|_| "epoch");
    row_id.unwrap_or_else(|| entity.table.key().iter().copied().chain(begun).map(str::to_owned).collect())
}
