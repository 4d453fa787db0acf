//! Several entities as one: the fields that all of them have, and those that the query names.

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as Df, cast, ident, lit};

use super::super::ast::Query;
use super::Result;
use super::names::{keys, unique};
use crate::error::SrqlError;
use crate::tables::catalog::{Entity, Field, Kind};

/// Several entities as one.
pub(super) struct Union {
    pub(super) entity: Entity,
    pub(super) unique: Vec<String>,
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

pub(super) fn union(query: &Query, entities: &[&'static Entity]) -> Result<Union> {
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
    pub(super) fn columns(&self, entity: &Entity) -> Vec<Df> {
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
