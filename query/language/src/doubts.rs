//! Doubts: what a query may say, and its asker hardly means. The answer is what was asked; the doubt is a warning beside it.

use crate::ast::{Expr, Key, Literal, Query, Value};
use crate::catalog::{self, Entity, Field, Kind};
use crate::codes;
use crate::parse::{CURLY, ORDINARY, plain};

/// Doubts that are told of one query.
const MAX_DOUBTS: usize = 10;

/// What is doubtful about a query.
pub fn of(query: &Query) -> Vec<String> {
    let mut doubts = Vec::new();
    walk(query, &mut doubts);
    doubts
}

fn walk(query: &Query, doubts: &mut Vec<String>) {
    let entities: Vec<&'static Entity> = query.entities.iter().filter_map(|(name, _)| catalog::find(name)).collect();
    expr(&query.filter, &entities, doubts);
    query.stats.iter().filter_map(|call| call.only.as_ref()).for_each(|only| expr(only, &entities, doubts));
}

fn expr(it: &Expr, entities: &[&'static Entity], doubts: &mut Vec<String>) {
    if doubts.len() >= MAX_DOUBTS {
        return;
    }
    match it {
        Expr::And(all) | Expr::Or(all) => all.iter().for_each(|e| expr(e, entities, doubts)),
        Expr::Not(inner) => expr(inner, entities, doubts),
        Expr::Filter(_, Value::Sub(query, _)) => walk(query, doubts),
        Expr::Filter(key, value) => {
            let of = Of { written: key.path.join("."), field: field(key, entities) };
            let mut found = |doubt| {
                if doubts.len() < MAX_DOUBTS && !doubts.contains(&doubt) {
                    doubts.push(doubt);
                }
            };
            of.value(value, &mut found);
        }
        Expr::Text(_) => {}
    }
}

/// The field that is compared.
struct Of {
    /// As it is written.
    written: String,
    /// Itself, and the values that it is said to have, if it is one.
    field: Option<(&'static Field, Vec<&'static str>)>,
}

fn field(key: &Key, entities: &[&'static Entity]) -> Option<(&'static Field, Vec<&'static str>)> {
    let devices = catalog::find("devices").filter(|_| crate::parse::OBJECTS.contains(&key.path[0].as_str()));
    let field = match (devices, &key.path[..]) {
        (Some(devices), [_, name]) => devices.field(name),
        (None, [name]) => entities.iter().find_map(|e| e.field(name)),
        _ => None,
    }?;
    let closed = field.kind == Kind::Text && !field.doc.contains('…');
    Some((field, if closed { values(field.doc) } else { Vec::new() }))
}

/// The values that the description of a field names, where it names several.
fn values(doc: &'static str) -> Vec<&'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named: Vec<&str> = doc.split('`').skip(1).step_by(2).filter(|v| !v.is_empty() && v.chars().all(word)).collect();
    if named.len() > 1 { named } else { Vec::new() }
}

impl Of {
    fn value(&self, value: &Value, found: &mut impl FnMut(String)) {
        match value {
            Value::Is(literal) => self.literal(literal, false, found),
            Value::Any(items) | Value::All(items) => {
                if let [Value::Is(one)] = &items[..]
                    && !one.quoted
                    && one.text.contains(char::is_whitespace)
                {
                    let (key, text) = (&self.written, plain(&one.text));
                    let list = text.split_whitespace().collect::<Vec<_>>().join(",");
                    found(format!("{key}:({text}) is one value with a blank in it; a list has commas, {key}:({list})"));
                }
                for item in items {
                    if let Value::Is(literal) = item {
                        self.literal(literal, true, found);
                    }
                }
            }
            _ => {}
        }
    }

    fn literal(&self, literal: &Literal, listed: bool, found: &mut impl FnMut(String)) {
        let (key, text) = (&self.written, plain(&literal.text));
        let kind = self.field.as_ref().map(|(field, _)| field.kind);
        let texts = matches!(kind, None | Some(Kind::Text | Kind::List));
        if literal.quoted {
            if texts && !literal.verbatim && !literal.text.contains([ORDINARY, '%']) && literal.text.contains('*') {
                let near = text.replace('*', "%");
                found(format!("in quotes * is an ordinary character; {key}:\"{near}\" takes any run there"));
            }
        } else if text.starts_with(CURLY) || text.ends_with(CURLY) {
            let near = text.trim_matches(CURLY);
            found(format!("curly quotes are ordinary characters; straight ones quote: {key}:\"{near}\""));
        } else if let Some(near) = text.strip_prefix('=') {
            let near = near.trim_start_matches('=');
            found(format!("{key}:{text} looks for a text that begins with '='; equals is {key}:{near}"));
        } else if texts && !literal.text.contains(ORDINARY) {
            if !listed && let Some(list) = several(&text, ',') {
                found(format!("{key}:{text} is one value with a comma in it; a list is {key}:({list})"));
            } else if let Some(list) = several(&text, '|') {
                found(format!("{key}:{text} is one value with a '|' in it; a list is {key}:({list})"));
            } else if text.contains(".*") {
                found(format!("{key}:{text} is no regular expression: the dot means itself; one is {key}:/{text}/"));
            }
        }
        let Some((field, known)) = &self.field else { return };
        // Of codes other forms are meant, too.
        let is_code = codes::labels_of(field.name, &text).is_some();
        if known.is_empty() || is_code || known.contains(&text.as_str()) || text.contains(['*', '%', '?']) {
            return;
        }
        let same = known.iter().find(|v| v.eq_ignore_ascii_case(&text));
        let begins = |v: &&&str| text.len() > 2 && v.get(..text.len()).is_some_and(|v| v.eq_ignore_ascii_case(&text));
        if let Some(near) = same.or_else(|| known.iter().find(begins)) {
            found(format!("{key} is never {text:?}; did you mean {key}:{near}? Its values are {}", known.join(", ")));
        }
    }
}

/// The parts of what looks like a list, each of which is something.
fn several(text: &str, by: char) -> Option<String> {
    let parts: Vec<&str> = text.split(by).filter(|part| !part.is_empty()).collect();
    (parts.len() > 1).then(|| parts.join(","))
}

#[cfg(test)]
mod tests {
    use crate::parse::parse;

    #[test]
    fn what_is_hardly_meant_is_doubted() {
        for (query, near) in [
            ("in:devices availability:Available", "availability:available"),
            ("in:logs device.lifecycle:MANAGED", "device.lifecycle:managed"),
            ("in:flows app:dns,ssh", "app:(dns,ssh)"),
            ("in:flows app:(dns ssh)", "app:(dns,ssh)"),
            ("in:flows app:dns|ssh", "app:(dns,ssh)"),
            ("in:flows app:=dns", "app:dns"),
            ("in:devices hostname:“core”", "hostname:\"core\""),
            ("in:devices hostname:\"core*\"", "hostname:\"core%\""),
            ("in:logs body:link.*down", "body:/link.*down/"),
            ("in:logs device_uid:(in:devices lifecycle:MANAGED)", "lifecycle:managed"),
            ("in:devices stats:count_if(availability:Available)", "availability:available"),
        ] {
            let warnings = parse(query).unwrap_or_else(|e| panic!("{query}: {e:?}")).warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(near), "{query}: {warnings:?}");
        }
    }

    #[test]
    fn what_may_be_meant_is_not() {
        for query in [
            "in:logs level:error severity:err* body:\"a, b\" body:'a*b' body:\"100%\" body:a\\,b",
            "in:logs level:WARN severity:(Error,fatal) level:err stats:count_if(level:ERROR)",
            "in:devices type:Router lifecycle:~MANAGED vendor_name:(Access,Dell) hostname:core*",
            "in:flows app:(dns,ssh) src_ip:10.0.0.1-10.0.0.9 time:[2024-01-01,2024-01-02]",
            "in:flows community:65000:100 bytes_total:5..10",
        ] {
            let warnings = parse(query).unwrap().warnings;
            assert!(warnings.is_empty(), "{query}: {warnings:?}");
        }
    }
}
