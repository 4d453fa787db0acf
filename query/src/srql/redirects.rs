//! Older names of devices: a query that names a device as it was called is about what it is called now, one hop on, and
//! says so.

use radarflow_proto::rows::DeviceRedirect;
use radarflow_reconcile::access::sees;

use crate::actor::Actor;
use crate::srql::ast::{Expr, Key, Literal, Query, Value};
use crate::srql::parse::plain;
use crate::tables::view::View;

/// Follows the redirects of the devices that a query names.
pub(crate) fn follow(query: &mut Query, view: &View, actor: &Actor) {
    let mut warnings = Vec::new();
    of_query(query, &mut |key, literal| {
        let name = plain(&literal.text);
        let own = key.path.last().is_some_and(|last| last.eq_ignore_ascii_case("uid"));
        let redirects = view.rows_where::<DeviceRedirect>(&actor.tenant, "from_uid", &name);
        let redirect = redirects.into_iter().find(|r| sees(&actor.partitions, &r.partition));
        // Who has an address now is not who had it when something happened.
        let Some(redirect) = redirect.filter(|r| own || !r.identifier.starts_with("ip:")) else { return };
        warnings.push(format!("{name} is called {} now", redirect.to_uid));
        *literal = Literal { text: redirect.to_uid, quoted: true, verbatim: true, span: literal.span };
    });
    warnings.dedup();
    query.warnings.append(&mut warnings);
}

fn of_query(query: &mut Query, each: &mut dyn FnMut(&Key, &mut Literal)) {
    of_filter(&mut query.filter, each);
    query.stats.iter_mut().filter_map(|call| call.only.as_mut()).for_each(|only| of_filter(only, each));
}

fn of_filter(expr: &mut Expr, each: &mut dyn FnMut(&Key, &mut Literal)) {
    match expr {
        Expr::And(all) | Expr::Or(all) => all.iter_mut().for_each(|e| of_filter(e, each)),
        Expr::Not(inner) => of_filter(inner, each),
        Expr::Filter(key, value) => of_value(key, value, each),
        Expr::Text(_) => {}
    }
}

fn of_value(key: &Key, value: &mut Value, each: &mut dyn FnMut(&Key, &mut Literal)) {
    match value {
        Value::Is(literal) if names_device(key) && (literal.verbatim || !literal.text.contains(['*', '?', '%'])) => {
            each(key, literal);
        }
        Value::Any(all) | Value::All(all) => all.iter_mut().for_each(|value| of_value(key, value, each)),
        Value::Sub(query, _) => of_query(query, each),
        _ => {}
    }
}

/// Whether a key's values are names of devices.
fn names_device(key: &Key) -> bool {
    key.path.last().is_some_and(|last| {
        let last = last.to_ascii_lowercase();
        matches!(last.as_str(), "uid" | "device_uid" | "device_id") || last.ends_with("_device_uid")
    })
}
