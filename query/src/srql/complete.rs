//! What could stand where the cursor is: entities, clauses, fields, functions from the catalog; values from the data.

use std::ops::Range;

use serde::Serialize;
use utoipa::ToSchema;

use super::observables::{self, OBSERVABLE};
use super::parse::OBJECTS;
use super::plan::ROLLUPS;
use super::words::{self, CLAUSES, FUNCTIONS};
use crate::srql::groups::GROUP;
use crate::tables::catalog::{self, Entity, Field, Kind};
use crate::tables::codes;

/// Something that could stand there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Item {
    /// The text that replaces what was typed.
    pub text: String,
    /// `entity`, `clause`, `field`, `function`, `value`.
    pub kind: &'static str,
    /// What it is.
    pub detail: String,
}

/// Values of a field that begin like this are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values {
    /// The entity.
    pub entity: &'static Entity,
    /// The field; with `key`, a value below the map.
    pub field: &'static Field,
    /// The key below a map; empty where the keys themselves are wanted.
    pub key: Option<String>,
    /// How they begin.
    pub prefix: String,
}

/// What could stand at a place of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Bytes that an item replaces.
    pub replaces: Range<usize>,
    /// What the catalog knows.
    pub items: Vec<Item>,
    /// What the data knows.
    pub values: Option<Values>,
}

fn item(text: impl Into<String>, kind: &'static str, detail: impl Into<String>) -> Item {
    Item { text: text.into(), kind, detail: detail.into() }
}

/// The entity that a query asks for first.
fn entity(text: &str) -> Option<&'static Entity> {
    let lower = text.to_ascii_lowercase();
    let at = lower
        .match_indices("in:")
        .map(|(at, _)| at)
        .find(|at| *at == 0 || lower.as_bytes().get(at - 1).is_some_and(|b| b.is_ascii_whitespace()))?;
    let name = lower[at + 3..].trim_start_matches('(');
    catalog::find(name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next()?)
}

fn fields(entity: Option<&'static Entity>, prefix: &str) -> Vec<Item> {
    let shown = |f: &&Field| !f.name.ends_with("_bin") && f.name.starts_with(prefix);
    let fields = entity.into_iter().flat_map(|e| &e.fields).filter(shown);
    fields.map(|f| item(f.name, "field", format!("{}: {}", f.kind.name(), f.doc))).collect()
}

fn of_these(these: &[&str], prefix: &str, kind: &'static str) -> Vec<Item> {
    these.iter().filter(|w| w.starts_with(prefix)).map(|w| item(*w, kind, "")).collect()
}

/// What could stand at `offset`.
pub fn complete(text: &str, offset: usize) -> Completion {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let entity = entity(text);
    let before = &text[..offset];
    // The term that is being typed: from the last blank or bracket outside of quotes.
    let mut start = 0;
    let mut quote = None;
    for (at, c) in before.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None if c.is_whitespace() || (c == '(' && !before[..at].ends_with(':')) => start = at + c.len_utf8(),
            None => {}
        }
    }
    let term = before[start..].trim_start_matches('!');
    let start = offset - term.len();
    let Some((key, value)) = term.split_once(':') else { return key_at(entity, term, start, offset) };
    let lower = key.to_ascii_lowercase();
    // In lists, and in clauses of several parts, what follows the last comma.
    let last = value.rfind([',', '(', '[', '"', ' ']).map_or(0, |at| at + 1);
    let prefix = value[last..].trim_start_matches(['!', '~']);
    let replaces = offset - prefix.len()..offset;
    let low = prefix.to_ascii_lowercase();
    let items = match lower.as_str() {
        "in" => catalog::ENTITIES
            .iter()
            .filter(|e| e.name.starts_with(&low))
            .map(|e| item(e.name, "entity", e.table.doc()))
            .collect(),
        "sort" | "order" | "fields" | "select" | "groupby" | "series" | "value_field" => fields(entity, &low),
        "stats" if value.contains(" by ") => fields(entity, &low),
        "stats" => {
            let functions = FUNCTIONS.iter().filter(|(name, _)| name.starts_with(&low));
            let functions = functions.map(|(name, doc)| item(*name, "function", *doc));
            functions.chain(fields(entity, &low)).collect()
        }
        "time" | "timeframe" => {
            of_these(&["last_15m", "last_1h", "last_24h", "last_7d", "today", "yesterday"], &low, "value")
        }
        "latest" | "include_deleted" | "explain" | "stream" | "other" | "reverse" => {
            of_these(&["true", "false"], &low, "value")
        }
        "units" => of_these(&["bps", "Bps", "pps"], prefix, "value"),
        "fill" => of_these(&["0", "null", "previous"], &low, "value"),
        "agg" => of_these(&["count", "sum", "avg", "min", "max", "last", "p95"], &low, "function"),
        "bucket" | "downsample" | "window" | "time_bucket" => {
            of_these(&["1m", "5m", "15m", "1h", "6h", "1d"], &low, "value")
        }
        "rollup_stats" => {
            let of = ROLLUPS.iter().filter(|(t, name)| entity.is_some_and(|e| e.table == *t) && name.starts_with(&low));
            of.map(|(_, name)| item(*name, "value", "")).collect()
        }
        _ => Vec::new(),
    };
    let of_groups = lower == GROUP || lower.ends_with(".group");
    let values = match words::clause(&lower) {
        Some(_) => None,
        // Whoever asks for devices by group is offered the names of groups.
        None if of_groups => values(catalog::find("device_groups"), "name", prefix),
        None => values(entity, key, prefix),
    };
    let colors = values.as_ref().filter(|v| v.field.name == catalog::STATUS_COLOR);
    let colors = colors.map(|_| of_these(&["green", "yellow", "red"], &low, "value"));
    let booleans =
        values.as_ref().filter(|v| v.field.kind == Kind::Bool).map(|_| of_these(&["true", "false"], &low, "value"));
    let labels = values.as_ref().filter(|v| v.field.kind == Kind::Number).and_then(|v| codes::of(v.field.name));
    let labels = labels.map(|codes| {
        let like = codes.labels().into_iter().filter(|label| label.starts_with(&low));
        like.map(|label| item(label, "value", "")).collect()
    });
    let values = values
        .filter(|_| colors.is_none())
        .filter(|v| matches!(v.field.kind, Kind::Text | Kind::Ip | Kind::Mac | Kind::List | Kind::Map));
    Completion { replaces, items: booleans.or(colors).or(labels).unwrap_or(items), values }
}

fn values(entity: Option<&'static Entity>, key: &str, prefix: &str) -> Option<Values> {
    let mut path = key.splitn(2, '.');
    let (first, rest) = (path.next()?.to_ascii_lowercase(), path.next());
    let of = |entity: &'static Entity, name: &str, key: Option<String>| {
        let field = entity.field(name)?;
        (key.is_none() || field.kind == Kind::Map).then(|| Values { entity, field, key, prefix: prefix.to_owned() })
    };
    match (OBJECTS.contains(&&*first), rest) {
        (true, Some(rest)) => {
            let mut below = rest.splitn(2, '.');
            of(catalog::find("devices")?, below.next()?, below.next().map(str::to_owned))
        }
        _ => of(entity?, &first, rest.map(str::to_owned)),
    }
}

/// A value as a query writes it.
pub fn written(value: &str, of: &Values) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/' | '@');
    let key = of.key.is_none() && of.field.kind == Kind::Map;
    match (!value.is_empty() && value.chars().all(plain), key) {
        (true, true) if value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => format!("{value}:"),
        (_, true) => format!("`{value}`:"),
        (true, false) if !value.contains("..") => value.to_owned(),
        _ => format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
    }
}

/// A key that is being typed.
fn key_at(entity: Option<&'static Entity>, typed: &str, start: usize, offset: usize) -> Completion {
    let low = typed.to_ascii_lowercase();
    if let Some((object, rest)) = low.split_once('.') {
        let replaces = start + object.len() + 1..offset;
        if object == OBSERVABLE {
            return Completion { replaces, items: observables::offered(rest), values: None };
        }
        if OBJECTS.contains(&object) {
            return Completion { replaces, items: fields(catalog::find("devices"), rest), values: None };
        }
        // The keys of a map.
        let values = entity.and_then(|e| {
            let field = e.field(object).filter(|f| f.kind == Kind::Map)?;
            Some(Values { entity: e, field, key: None, prefix: typed[object.len() + 1..].to_owned() })
        });
        return Completion { replaces, items: Vec::new(), values };
    }
    let mut items = fields(entity, &low);
    if let Some(entity) = entity {
        let has = |object: &&&str| entity.fields.iter().any(|f| f.name == format!("{object}_uid"));
        let objects = OBJECTS.iter().filter(has).filter(|o| o.starts_with(&low));
        items.extend(objects.map(|o| item(format!("{o}."), "field", "the device")));
    }
    let clauses = CLAUSES.iter().filter(|(name, _)| name.starts_with(&low));
    items.extend(clauses.map(|(name, doc)| item(format!("{name}:"), "clause", *doc)));
    Completion { replaces: start..offset, items, values: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Completes at the bar.
    fn at(text: &str) -> (String, Vec<String>, Option<(String, Option<String>, String)>) {
        let offset = text.find('|').unwrap();
        let text = text.replace('|', "");
        let done = complete(&text, offset);
        let items = done.items.iter().map(|i| i.text.clone()).collect();
        let values = done.values.map(|v| (format!("{}.{}", v.entity.name, v.field.name), v.key, v.prefix));
        (text[done.replaces].to_owned(), items, values)
    }

    fn values(of: &str, key: Option<&str>, prefix: &str) -> Option<(String, Option<String>, String)> {
        Some((of.to_owned(), key.map(str::to_owned), prefix.to_owned()))
    }

    #[test]
    fn what_stands_before_the_cursor_decides() {
        assert_eq!(at("in:dev|").1, ["devices", "device_redirects", "device_groups"]);
        assert_eq!(at("in:devices host|"), ("host".into(), vec!["hostname".into()], None));
        assert!(at("in:devices li|").1.contains(&"limit:".to_owned()));
        assert_eq!(at("in:devices hostname:we|").2, values("devices.hostname", None, "we"));
        assert_eq!(at("in:devices !vendor:(Cisco,De|").2, values("devices.vendor_name", None, "De"));
        assert_eq!(at("in:devices metadata.ra|").2, values("devices.metadata", None, "ra"));
        assert_eq!(at("in:devices metadata.rack:r|").2, values("devices.metadata", Some("rack"), "r"));
        assert_eq!(at("in:logs device.ven|"), ("ven".into(), vec!["vendor_name".into()], None));
        assert_eq!(at("in:logs device.vendor_name:C|").2, values("devices.vendor_name", None, "C"));
        assert_eq!(at("in:devices is_available:t|").1, ["true"]);
        assert_eq!(
            (at("in:devices status_color:y|").1, at("in:devices status_color:y|").2),
            (vec!["yellow".into()], None)
        );
        assert_eq!(at("in:flows sort:bytes_t|").1, ["bytes_total"]);
        assert_eq!(at(r#"in:flows stats:"count() by ap|"#).1, ["app"]);
        assert_eq!(at("in:flows stats:me|").1, ["median"]);
        assert_eq!(at("in:flows time:last_1|").1, ["last_15m", "last_1h"]);
        assert_eq!(at("in:devices rollup_stats:|").1, ["inventory_summary"]);
        assert_eq!(at("in:devices group:co|").2, values("device_groups.name", None, "co"));
        assert_eq!(at("in:flows !dst_device.group:(a,co|").2, values("device_groups.name", None, "co"));
        assert_eq!(at("in:flows observable.i|").1, ["ip"]);
        assert_eq!(at("in:flows tcp_flags:(syn,a|").1, ["ack"]);
        assert_eq!(at("in:flows protocol_num:tc|").1, ["tcp"]);
        assert!(at("|").1.contains(&"in:".to_owned()));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", tail in "(in:devices )?[!(\\[\"'.:, a-z_]{0,20}", offset in 0usize..60) {
            let _ = complete(&text, offset);
            let done = complete(&tail, offset);
            proptest::prop_assert!(done.replaces.end <= tail.len());
        }
    }
}
