//! What keys mean in a query: a field, a value below a map, a field of the device that a row is of.

use std::collections::BTreeMap;

use chrono_tz::Tz;
use datafusion::functions_nested::expr_fn as nested;
use datafusion::logical_expr::{Expr as Df, ident, lit};
use datafusion::prelude::DataFrame;

use super::super::ast::{Expr, GroupKey, Key, Query, Span};
use super::{Result, Tables, defect};
use crate::error::SrqlError;
use crate::tables::catalog::{self, Entity, Kind};

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
    /// What makes a row one.
    pub(super) unique: Vec<String>,
    pub(super) zone: Tz,
    pub(super) now_us: i64,
    pub(super) tables: &'a dyn Tables,
    /// The mark of each subquery, by its place.
    pub(super) marks: BTreeMap<(Vec<String>, Span), String>,
}

/// A field, or a value in a map field.
pub(super) struct Target {
    pub(super) expr: Df,
    pub(super) kind: Kind,
    /// As errors call it.
    pub(super) field: String,
    /// Its column, where it is one.
    pub(super) column: Option<String>,
}

impl Target {
    /// Its field's own name.
    pub(super) fn own(&self) -> &str {
        self.field.rsplit('.').next().unwrap_or(&self.field)
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
        let one = OBJECTS.iter().find(|(object, uid)| *object == first && has(uid));
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
        let name = &key.path[0];
        let field = entity.field(name).ok_or_else(|| {
            let detail = format!("{} has no field {name:?}", entity.name);
            SrqlError::new("unknown_field", key.span, detail).suggest(entity.nearest(name))
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
    pub(super) fn column(&self, frame: DataFrame, key: &Key) -> Result<(DataFrame, String, Kind)> {
        let target = self.one(key)?;
        match target.column {
            Some(column) => Ok((frame, column, target.kind)),
            None => {
                let frame = frame.with_column(&target.field, target.expr).map_err(defect)?;
                Ok((frame, target.field, target.kind))
            }
        }
    }
}

/// Every key of a query, those of its subqueries left out.
pub(super) fn keys<'q>(query: &'q Query, each: &mut dyn FnMut(&'q Key)) {
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

/// The columns that make a row one.
pub(super) fn unique(entity: &Entity) -> Vec<String> {
    let row_id = entity.fields.iter().find(|f| f.name == "row_id").map(|f| vec![f.name.to_owned()]);
    // Of what lasts there are several a key, each begun by a version of its own.
    let begun = entity.lasts.map(|_| "epoch");
    row_id.unwrap_or_else(|| entity.table.key().iter().copied().chain(begun).map(str::to_owned).collect())
}
