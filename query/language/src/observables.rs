//! `observable.T:V`: an observable of that type and value, wherever in the row it stands. It is the same as naming every
//! field of that type, and is turned into that; `observable:T value:V` is another way to write it.

use crate::ast::{Expr, Key, Literal, Query, Value};
use crate::catalog::{self, Entity, Field, Kind};
use crate::error::SrqlError;
use crate::parse::plain;

/// The word.
pub const OBSERVABLE: &str = "observable";

/// A type: its name, others of it, what it is, and which fields are of it.
struct Type {
    names: &'static [&'static str],
    doc: &'static str,
    is: fn(&Field) -> bool,
}

const TYPES: &[Type] = &[
    Type {
        names: &["ip", "ip_address"],
        doc: "an address, whoever's",
        is: |f| f.kind == Kind::Ip || f.name == "ip_addresses",
    },
    Type {
        names: &["mac", "mac_address"],
        doc: "a MAC, whoever's",
        is: |f| f.kind == Kind::Mac || f.name == "mac_addresses",
    },
    Type {
        names: &["hostname", "host"],
        doc: "a host name",
        is: |f| matches!(f.name, "hostname" | "host") || f.name.ends_with("_hostname"),
    },
    Type { names: &["port"], doc: "a port", is: |f| f.name.ends_with("_port") },
    Type {
        names: &["device", "resource_uid"],
        doc: "a device, by uid",
        is: |f| f.name == "device_uid" || f.name.ends_with("_device_uid"),
    },
];

fn named(name: &str) -> Option<&'static Type> {
    TYPES.iter().find(|t| t.names.iter().any(|n| n.eq_ignore_ascii_case(name)))
}

/// Whether an entity has fields of a type.
pub fn has(name: &str, entity: &Entity) -> bool {
    named(name).is_some_and(|of| entity.fields.iter().any(of.is))
}

/// Types that begin like this: the name and what it is.
pub fn offered(prefix: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    TYPES.iter().filter(move |t| t.names[0].starts_with(prefix)).map(|t| (t.names[0], t.doc))
}

/// Replaces observables by the fields they may stand in.
///
/// # Errors
/// There is no such type, or the entity has no field of it.
pub fn expand(query: &mut Query) -> Result<(), SrqlError> {
    // What the query asks for is resolved where it is planned; an unknown entity has no fields.
    let entities: Vec<&Entity> = query.entities.iter().filter_map(|(name, _)| catalog::find(name)).collect();
    expr(&mut query.filter, &entities)?;
    query.stats.iter_mut().filter_map(|call| call.only.as_mut()).try_for_each(|only| expr(only, &entities))
}

fn is(key: &Key, word: &str) -> bool {
    key.path.len() == 1 && key.path[0].eq_ignore_ascii_case(word)
}

fn expr(it: &mut Expr, entities: &[&Entity]) -> Result<(), SrqlError> {
    match it {
        Expr::And(all) => {
            let typed = all.iter().position(|e| matches!(e, Expr::Filter(key, Value::Is(_)) if is(key, OBSERVABLE)));
            let valued = all.iter().position(|e| matches!(e, Expr::Filter(key, _) if is(key, "value")));
            if let (Some(typed), Some(valued)) = (typed, valued)
                && let Expr::Filter(_, value) = all.remove(valued)
                && let Expr::Filter(key, Value::Is(name)) = &all[typed - usize::from(valued < typed)]
            {
                all[typed - usize::from(valued < typed)] = fields(key, &said(name), &value, entities)?;
            }
            all.iter_mut().try_for_each(|e| expr(e, entities))
        }
        Expr::Or(all) => all.iter_mut().try_for_each(|e| expr(e, entities)),
        Expr::Not(inner) => expr(inner, entities),
        Expr::Filter(key, Value::Is(name)) if is(key, OBSERVABLE) => {
            *it = fields(key, &said(name), &Value::Present, entities)?;
            Ok(())
        }
        Expr::Filter(key, value) if key.path.len() == 2 && key.path[0].eq_ignore_ascii_case(OBSERVABLE) => {
            *it = fields(key, &key.path[1], value, entities)?;
            Ok(())
        }
        // Subqueries are queries of their own.
        Expr::Filter(..) | Expr::Text(_) => Ok(()),
    }
}

fn said(name: &Literal) -> String {
    plain(&name.text)
}

fn fields(key: &Key, name: &str, value: &Value, entities: &[&Entity]) -> Result<Expr, SrqlError> {
    let types = || TYPES.iter().map(|t| t.names[0]);
    let Some(of) = named(name) else {
        let detail = format!("there is no type of observables {name:?}");
        let mut error = SrqlError::new("unknown_observable", key.span, detail).suggest(catalog::nearest(name, types()));
        error.expected = types().map(str::to_owned).collect();
        return Err(error);
    };
    let mut found: Vec<&str> = Vec::new();
    for field in entities.iter().flat_map(|e| &e.fields).filter(|f| (of.is)(f)) {
        if !found.contains(&field.name) {
            found.push(field.name);
        }
    }
    if found.is_empty() && !entities.is_empty() {
        let detail = format!("{} has no field that holds {}", entities[0].name, of.doc);
        return Err(SrqlError::new("unknown_observable", key.span, detail));
    }
    let one = |name: &str| Expr::Filter(Key { path: vec![name.to_owned()], span: key.span }, value.clone());
    Ok(Expr::Or(found.into_iter().map(one).collect()))
}
