//! What may have been meant by a name that does not exist: the nearest that does, in our words or others'.

use crate::catalog::{self, ALIASES, ENTITIES, Entity, nearest};
use crate::error::{Span, SrqlError};
use crate::observables;
use crate::words::CLAUSES;
use crate::words::GROUP;

/// What others call entities.
const ELSEWHERE: &[(&str, &[&str])] = &[
    ("devices", &["host", "hosts", "node", "nodes", "asset", "assets", "machines", "endpoints", "inventory"]),
    ("flows", &["netflow", "ipfix", "sflow", "connections", "traffic"]),
    ("logs", &["syslog", "messages"]),
    ("alerts", &["alarm", "alarms", "incidents"]),
    ("traps", &["snmp_traps", "snmptrap"]),
];

/// Observables by what a field of that sort would be called.
const OBSERVABLES: &[(&str, &str)] = &[
    ("ip", "observable.ip"),
    ("address", "observable.ip"),
    ("mac", "observable.mac"),
    ("hostname", "observable.hostname"),
    ("host", "observable.hostname"),
    ("port", "observable.port"),
    ("device", "observable.device"),
];

/// The entity that may be meant.
pub fn entity(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let elsewhere = ELSEWHERE.iter().find(|(_, names)| names.contains(&lower.as_str())).map(|(entity, _)| *entity);
    elsewhere.or_else(|| nearest(name, ENTITIES.iter().map(|e| e.name)))
}

impl Entity {
    /// Names of its fields, other names of them too.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        let own = self.fields.iter().filter(|f| !f.name.ends_with("_bin")).map(|f| f.name);
        let has =
            |of: &str, field: &str| (of.is_empty() || of == self.name) && self.fields.iter().any(|f| f.name == field);
        own.chain(ALIASES.iter().filter(move |(of, _, field)| has(of, field)).map(|(_, alias, _)| *alias))
    }

    /// The field that may be meant.
    pub fn nearest(&self, name: &str) -> Option<&'static str> {
        nearest(name, self.names()).or_else(|| self.part(name))
    }

    /// The key of a term that may be meant: a field, an observable, or a clause.
    pub fn nearest_key(&self, name: &str) -> Option<&'static str> {
        if name.eq_ignore_ascii_case(GROUP) && self.fields.iter().any(|f| f.name.ends_with("device_uid")) {
            return Some("device.group");
        }
        let observable = OBSERVABLES.iter().find(|(of, _)| name.eq_ignore_ascii_case(of));
        let observable = observable.filter(|(_, key)| observables::has(&key["observable.".len()..], self));
        let clauses = CLAUSES.iter().map(|(clause, _)| *clause);
        observable
            .map(|(_, key)| *key)
            .or_else(|| nearest(name, self.names().chain(clauses)))
            .or_else(|| self.part(name))
    }

    /// The field that has the name as one of its words, if it is the only one.
    fn part(&self, name: &str) -> Option<&'static str> {
        let name = name.to_ascii_lowercase();
        let mut having = self.names().filter(|n| name.len() > 2 && n.split('_').any(|word| word == name));
        having.next().filter(|_| having.next().is_none())
    }
}

/// The entity of a name, or why there is none.
///
/// # Errors
/// There is no such entity, or it is not to be had.
pub fn meant(name: &str, span: Span) -> Result<&'static Entity, SrqlError> {
    catalog::find(name).ok_or_else(|| {
        let lower = name.to_ascii_lowercase();
        let is = |pattern: &&str| match pattern.strip_suffix('*') {
            Some(beginning) => lower.starts_with(beginning),
            None => lower == *pattern,
        };
        if catalog::NOT_BUILT.iter().any(is) {
            return SrqlError::new("entity_not_available", span, format!("{name} are not collected yet"));
        }
        if catalog::NOT_AVAILABLE.iter().any(is) {
            return SrqlError::new("entity_not_available", span, format!("{name} is not available here"));
        }
        SrqlError::new("unknown_entity", span, format!("there is no entity {name:?}")).suggest(entity(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::find;

    #[test]
    fn what_was_meant_is_found() {
        let key = |entity: &str, name: &str| find(entity).unwrap().nearest_key(name);
        for (of, name, near) in [
            ("flows", "dst_prt", Some("dst_port")),
            ("flows", "byts", Some("bytes")),
            ("flows", "ip", Some("observable.ip")),
            ("flows", "port", Some("observable.port")),
            ("devices", "hostnam", Some("hostname")),
            ("devices", "limt", Some("limit")),
            ("devices", "vendr", Some("vendor")),
            ("logs", "group", Some("device.group")),
            ("devices", "qqqq", None),
        ] {
            assert_eq!(key(of, name), near, "{of} {name}");
        }
        assert_eq!(find("devices").unwrap().nearest("enriched"), Some("enriched_by"));
        assert_eq!((entity("hosts"), entity("flow"), entity("zzz")), (Some("devices"), Some("flows"), None));
    }
}
