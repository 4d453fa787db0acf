//! Terms that stand for others, and are turned into them: either end of a flow, what is deleted, some rows of an entity.
//!
//! ```text
//! ip:X        on flows     src_endpoint_ip:X OR dst_endpoint_ip:X
//! device_id:X on flows     the same of its source, its destination and its exporter
//! deleted:true on devices  deleted_at:*, and include_deleted:true
//! in:snmp_metrics          in:timeseries_metrics metric_type:snmp
//! ```

use crate::ast::{Expr, Key, Literal, Query, Value};
use crate::catalog::{self, Entity, KINDS, NESTED};
use crate::parse::plain;

/// Names of several fields of flows, any of which may be meant.
const EITHER: &[(&[&str], &[&str])] = &[
    (&["ip", "endpoint_ip", "cidr", "subnet"], &["src_endpoint_ip", "dst_endpoint_ip"]),
    (&["port", "endpoint_port"], &["src_endpoint_port", "dst_endpoint_port"]),
    (&["device_id", "device_uid"], &["src_device_uid", "dst_device_uid", "exporter_device_uid"]),
    (&["device_addr", "device_address"], &["src_endpoint_ip", "dst_endpoint_ip", "sampler_address"]),
];

/// The fields of an entity that a name stands for, where it stands for several.
pub fn either(entity: &Entity, name: &str) -> Option<&'static [&'static str]> {
    let of = EITHER.iter().find(|(names, _)| names.iter().any(|n| n.eq_ignore_ascii_case(name)));
    let is_field = entity.fields.iter().any(|f| f.name.eq_ignore_ascii_case(name));
    of.filter(|_| entity.name == "flows" && !is_field).map(|(_, fields)| *fields)
}

/// Replaces them.
pub fn expand(query: &mut Query) {
    kinds(query);
    // An unknown entity is told of where the query is planned.
    let entities: Vec<&Entity> = query.entities.iter().filter_map(|(name, _)| catalog::find(name)).collect();
    let mut deleted = None;
    expr(&mut query.filter, &entities, &mut deleted);
    for only in query.stats.iter_mut().filter_map(|call| call.only.as_mut()) {
        expr(only, &entities, &mut deleted);
    }
    query.include_deleted = query.include_deleted.or(deleted);
}

/// Names of entities that mean some of the rows of one.
fn kinds(query: &mut Query) {
    let kind = |name: &str| KINDS.iter().find(|(kind, ..)| kind.eq_ignore_ascii_case(name));
    let mut only = Vec::new();
    for (name, span) in &mut query.entities {
        if let (Some((_, field, value)), [entity]) = (kind(name), catalog::meant(name)) {
            only.push((*entity, *field, *value, *span));
            *name = (*entity).to_owned();
        }
    }
    for (entity, field, value, span) in only {
        let mut same = 0;
        query.entities.retain(|(name, _)| {
            let is_same = name.eq_ignore_ascii_case(entity);
            same += usize::from(is_same);
            !is_same || same == 1
        });
        if same > 1 {
            // All of them are asked for beside.
            continue;
        }
        let key = || Key { path: vec![field.to_owned()], span };
        let literal = Literal { text: value.to_owned(), quoted: true, verbatim: true, span };
        let is = Expr::Filter(key(), Value::Is(literal));
        // Of several entities the others have no such field.
        let is = if query.entities.len() > 1 { Expr::Or(vec![is, Expr::Filter(key(), Value::Null)]) } else { is };
        let filter = std::mem::replace(&mut query.filter, Expr::And(Vec::new()));
        query.filter = Expr::And(vec![is, filter]);
    }
}

fn expr(it: &mut Expr, entities: &[&Entity], deleted: &mut Option<crate::ast::Span>) {
    match it {
        Expr::And(all) | Expr::Or(all) => all.iter_mut().for_each(|e| expr(e, entities, deleted)),
        Expr::Not(inner) => expr(inner, entities, deleted),
        Expr::Filter(key, value) => {
            if let Some(new) = ends(key, value, entities) {
                *it = new;
            } else if let Some((new, own)) = of_deleted(key, value, entities) {
                *deleted = deleted.or(own.then_some(key.span));
                *it = new;
            }
        }
        Expr::Text(_) => {}
    }
}

/// Any end of a flow; of other entities beside them the field of that name.
fn ends(key: &Key, value: &Value, entities: &[&Entity]) -> Option<Expr> {
    let name = match &key.path[..] {
        [name] => name,
        [outer, name] if NESTED.contains(&outer.to_ascii_lowercase().as_str()) => {
            // `src_endpoint.ip` is one end.
            let one = format!("{outer}_{name}");
            if entities.iter().any(|entity| entity.field(&one).is_some()) {
                return None;
            }
            name
        }
        _ => return None,
    };
    let fields = entities.iter().find_map(|entity| either(entity, name))?;
    let field = |name: &str| Expr::Filter(Key { path: vec![name.to_owned()], span: key.span }, value.clone());
    let mut any: Vec<Expr> = fields.iter().map(|name| field(name)).collect();
    if entities.iter().any(|entity| either(entity, name).is_none() && entity.field(name).is_some()) {
        any.push(field(name));
    }
    Some(Expr::Or(any))
}

/// Whether a device is deleted; and whether the row is the device.
fn of_deleted(key: &Key, value: &Value, entities: &[&Entity]) -> Option<(Expr, bool)> {
    let (last, before) = key.path.split_last()?;
    let own = before.is_empty() && entities.iter().any(|e| e.name == "devices" && e.field("deleted").is_none());
    let joined = before.len() == 1 && crate::parse::OBJECTS.contains(&before[0].to_ascii_lowercase().as_str());
    if !last.eq_ignore_ascii_case("deleted") || !(own || joined) {
        return None;
    }
    let Value::Is(literal) = value else { return None };
    let value = match plain(&literal.text).to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Value::Present,
        "false" | "no" | "0" => Value::Null,
        _ => return None,
    };
    let path = before.iter().cloned().chain(["deleted_at".to_owned()]).collect();
    Some((Expr::Filter(Key { path, span: key.span }, value), own))
}
