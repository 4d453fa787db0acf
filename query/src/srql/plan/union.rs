//! Several entities as one: the fields that all of them have, and those that the query names.

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as Df, cast, ident, lit};

use super::super::ast::{Expr, Literal, Query};
use super::Result;
use super::names::{OBJECTS, keys, unique};
use crate::error::SrqlError;
use crate::tables::catalog::{Entity, Field, Kind};

/// Several entities as one.
pub(super) struct Union {
    pub(super) entity: Entity,
    pub(super) unique: Vec<String>,
    /// The type of each field's column.
    types: BTreeMap<&'static str, DataType>,
}

/// The texts that a query looks for in any field.
pub(super) fn texts(query: &Query) -> Vec<&Literal> {
    fn of<'q>(expr: &'q Expr, into: &mut Vec<&'q Literal>) {
        match expr {
            Expr::And(all) | Expr::Or(all) => all.iter().for_each(|e| of(e, into)),
            Expr::Not(inner) => of(inner, into),
            Expr::Text(literal) => into.push(literal),
            Expr::Filter(..) => {}
        }
    }
    let mut texts = Vec::new();
    of(&query.filter, &mut texts);
    query.stats.iter().filter_map(|call| call.only.as_ref()).for_each(|only| of(only, &mut texts));
    texts
}

/// The fields that a query names, by their paths.
fn named(query: &Query) -> BTreeSet<&[String]> {
    let mut names = BTreeSet::new();
    keys(query, &mut |key| {
        names.insert(&key.path[..]);
    });
    names
}

pub(super) fn union(query: &Query, entities: &[&'static Entity]) -> Result<Union> {
    let span = (query.entities[0].1.0, query.entities[query.entities.len() - 1].1.1);
    let named = named(query);
    // What is joined needs the device that it is of.
    let joins = |uid: &str| {
        let objects = OBJECTS.iter().filter(|(_, of)| *of == uid).map(|(object, _)| *object);
        let joined = |path: &&[String], object: &str| {
            let first = path[0].to_ascii_lowercase();
            path.len() > 1 && (first == object || first == "device")
        };
        objects.into_iter().any(|object| named.iter().any(|path| joined(path, object)))
    };
    let mut fields =
        vec![Field { name: "entity", doc: "Which entity the row is of.", kind: Kind::Text, hidden: false }];
    for entity in entities {
        for field in entity.fields.iter().filter(|f| !f.hidden) {
            let shared = entities.iter().all(|e| e.fields.iter().any(|f| f.name == field.name));
            let wanted = named.iter().any(|path| entity.locate(path).is_some_and(|(f, _)| f.name == field.name));
            let shown = shared || wanted || field.name == "row_id" || entity.time == Some(field.name);
            let kept = shown || joins(field.name);
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
                None if kept => fields.push(Field { hidden: !shown, ..field.clone() }),
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
    Ok(Union {
        entity: Entity { name: "the union", table, fields, time, seen: None, lasts: None, sort },
        unique,
        types,
    })
}

impl Union {
    /// An entity's rows as the union has them.
    pub(super) fn columns(&self, entity: &Entity) -> Vec<Df> {
        let schema = entity.table.schema();
        let column = |field: &Field| {
            if field.name == "entity" {
                return lit(entity.name).alias("entity");
            }
            let own = if field.name == "time" { entity.time.unwrap_or("time") } else { field.name };
            // Under another name: the device of a device is itself.
            let other = || entity.field(field.name).filter(|f| f.kind == field.kind);
            match (schema.field_with_name(own), other()) {
                (Ok(_), _) => ident(own).alias(field.name),
                (Err(_), Some(other)) => ident(other.name).alias(field.name),
                (Err(_), None) => {
                    let data_type = self.types.get(field.name).cloned().unwrap_or(DataType::Utf8);
                    cast(lit(ScalarValue::Null), data_type).alias(field.name)
                }
            }
        };
        self.entity.fields.iter().map(column).collect()
    }
}
