//! What could stand where the cursor is: entities, clauses, fields, functions from the catalog; values from the data.

use std::ops::Range;

use serde::Serialize;
use utoipa::ToSchema;

use super::observables::{OBSERVABLE, offered};
use super::parse::OBJECTS;
use super::plan::ROLLUPS;
use super::scope::Scope;
use super::words::{self, CLAUSES, FUNCTIONS};
use crate::srql::words::GROUP;
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

fn fields(entity: Option<&'static Entity>, prefix: &str) -> Vec<Item> {
    let shown = |f: &&Field| !f.name.ends_with("_bin") && f.name.starts_with(prefix);
    let fields = entity.into_iter().flat_map(|e| &e.fields).filter(shown);
    fields.map(|f| item(f.name, "field", format!("{}: {}", f.kind.name(), f.doc))).collect()
}

fn of_these(these: &[impl AsRef<str>], prefix: &str, kind: &'static str) -> Vec<Item> {
    let these = these.iter().map(|w| -> &str { w.as_ref() });
    these
        .filter(|w| w.to_ascii_lowercase().starts_with(&prefix.to_ascii_lowercase()))
        .map(|w| item(w, kind, ""))
        .collect()
}

/// What could stand at `offset`.
pub fn complete(text: &str, offset: usize) -> Completion {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let scope = Scope::at(text, offset);
    let entity = scope.entity();
    let term = text[scope.term..offset].trim_start_matches('!');
    let start = offset - term.len();
    let Some((key, value)) = term.split_once(':') else { return key_at(entity, term, start, offset) };
    let lower = key.to_ascii_lowercase();
    // In lists, and in clauses of several parts, what follows the last comma.
    let last = value.rfind([',', '(', '[', '"', '\'', ' ']).map_or(0, |at| at + 1);
    let prefix = value[last..].trim_start_matches(['!', '~']);
    let replaces = offset - prefix.len()..offset;
    let low = prefix.to_ascii_lowercase();
    let with = |items: Vec<Item>| Completion { replaces: replaces.clone(), items, values: None };
    let clause = words::clause(&lower);
    let items = match clause.unwrap_or_default() {
        "sort" | "order" => match prefix.split_once(':') {
            Some((_, way)) => {
                let items = of_these(&["asc", "desc"], &way.to_ascii_lowercase(), "value");
                return Completion { replaces: offset - way.len()..offset, items, values: None };
            }
            None => return columns(&scope, prefix, offset),
        },
        "fields" | "select" => return columns(&scope, prefix, offset),
        "groupby" | "series" | "value_field" | "value-field" | "field" => return path(entity, prefix, offset),
        "having" => return having(&scope, value, offset),
        "by" => of_these(&scope.columns().1, &low, "value"),
        "in" => catalog::ENTITIES
            .iter()
            .filter(|e| e.name.starts_with(&low))
            .map(|e| item(e.name, "entity", e.table.doc()))
            .collect(),
        "stats" => return stats(entity, value, prefix, offset),
        "tz" => zones(&low),
        "time" | "timeframe" => {
            of_these(&["last_15m", "last_1h", "last_24h", "last_7d", "today", "yesterday"], &low, "value")
        }
        "at" => of_these(&["now-1h", "now-1d", "now-7d", "today", "today-1d"], &low, "value"),
        "latest" | "include_deleted" | "explain" | "stream" | "other" | "reverse" => {
            of_these(&["true", "false"], &low, "value")
        }
        "mode" => of_these(&["stream", "snapshot"], &low, "value"),
        "units" => of_these(&["bps", "Bps", "pps"], prefix, "value"),
        "fill" => of_these(&["0", "null", "previous"], &low, "value"),
        "agg" => of_these(&["count", "sum", "avg", "min", "max", "last", "p95"], &low, "function"),
        "bucket" | "downsample" => of_these(&["auto", "1m", "5m", "15m", "1h", "6h", "1d"], &low, "value"),
        "window" | "time_bucket" => of_these(&["1m", "5m", "15m", "1h", "6h", "1d"], &low, "value"),
        "rollup_stats" => {
            let of = ROLLUPS.iter().filter(|(t, name)| entity.is_some_and(|e| e.table == *t) && name.starts_with(&low));
            of.map(|(_, name)| item(*name, "value", "")).collect()
        }
        _ => Vec::new(),
    };
    if clause.is_some() {
        return with(items);
    }
    let of_groups = lower == GROUP || lower.ends_with(".group");
    // Whoever asks for devices by group is offered the names of groups.
    let values =
        if of_groups { values(catalog::find("device_groups"), "name", prefix) } else { values(entity, key, prefix) };
    let mut done = Completion { replaces, items, values };
    known(&mut done, &low);
    if value.starts_with('(') && "in:".starts_with(&*value[1..].to_ascii_lowercase()) {
        done.items.push(item("in:", "clause", "a subquery, which gives the values"));
    }
    done
}

/// The values of a field that are known without the data.
fn known(done: &mut Completion, low: &str) {
    let Some(wanted) = &done.values else { return };
    let field = wanted.field;
    if field.name == catalog::STATUS_COLOR {
        done.items = of_these(&["green", "yellow", "red"], low, "value");
        done.values = None;
    } else if field.kind == Kind::Bool {
        done.items = of_these(&["true", "false"], low, "value");
    } else if let Some(codes) = codes::of(field.name).filter(|_| field.kind == Kind::Number) {
        done.items = of_these(&codes.labels(), low, "value");
    }
    let of_data = matches!(field.kind, Kind::Text | Kind::Ip | Kind::Mac | Kind::List | Kind::Map);
    done.values = done.values.take().filter(|_| of_data);
}

/// A field, or a field of an object.
fn path(entity: Option<&'static Entity>, typed: &str, offset: usize) -> Completion {
    let start = offset - typed.len();
    if typed.contains('.') {
        return key_at(entity, typed, start, offset);
    }
    Completion { replaces: start..offset, items: fields(entity, &typed.to_ascii_lowercase()), values: None }
}

/// A column: of the groups where there are any, of the entity otherwise.
fn columns(scope: &Scope<'_>, typed: &str, offset: usize) -> Completion {
    let (keys, calls) = scope.columns();
    if calls.is_empty() && keys.is_empty() {
        return path(scope.entity(), typed, offset);
    }
    let all: Vec<String> = keys.into_iter().chain(calls).collect();
    let items = of_these(&all, &typed.to_ascii_lowercase(), "value");
    Completion { replaces: offset - typed.len()..offset, items, values: None }
}

/// A part of a condition on groups: a column, or what goes on with the condition.
fn having(scope: &Scope<'_>, value: &str, offset: usize) -> Completion {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let word = |text: &str| text.trim_end_matches(inside).len();
    let quoted = value.starts_with(['"', '\'']);
    let condition = &value[usize::from(quoted)..];
    let typed = &condition[word(condition)..];
    let before = condition[..condition.len() - typed.len()].trim_end();
    let last = &before[word(before)..];
    let items =
        if before.is_empty() || before.ends_with('(') || ["and", "or", "not"].contains(&&*last.to_ascii_lowercase()) {
            let (keys, calls) = scope.columns();
            let columns: Vec<String> = calls.into_iter().chain(keys).chain(["not".to_owned()]).collect();
            of_these(&columns, typed, "value")
        } else if quoted && !before.ends_with(['<', '>', '=']) {
            of_these(&["and", "or"], typed, "value")
        } else {
            Vec::new()
        };
    Completion { replaces: offset - typed.len()..offset, items, values: None }
}

/// A part of `stats:`: a function, a field, a key, or a term of the filter of a call.
fn stats(entity: Option<&'static Entity>, value: &str, prefix: &str, offset: usize) -> Completion {
    // The call that is open still.
    let mut open = Vec::new();
    for (at, c) in value.char_indices() {
        match c {
            '(' => open.push(at),
            ')' => {
                open.pop();
            }
            _ => {}
        }
    }
    let low = prefix.to_ascii_lowercase();
    let call = open.first().map(|at| value[..*at].to_ascii_lowercase());
    if call.is_some_and(|call| call.ends_with("_if")) {
        return match prefix.split_once(':') {
            Some((key, typed)) => {
                let values = values(entity, key, typed);
                let mut done = Completion { replaces: offset - typed.len()..offset, items: Vec::new(), values };
                known(&mut done, &typed.to_ascii_lowercase());
                done
            }
            None => path(entity, prefix, offset),
        };
    }
    if prefix.contains('.') {
        return path(entity, prefix, offset);
    }
    let keys = value.to_ascii_lowercase().contains(" by ");
    let functions = FUNCTIONS.iter().filter(|(name, _)| !keys && open.is_empty() && name.starts_with(&low));
    let mut items: Vec<Item> = functions.map(|(name, doc)| item(*name, "function", *doc)).collect();
    items.extend(fields(entity, &low));
    Completion { replaces: offset - prefix.len()..offset, items, values: None }
}

/// Types of observables that begin like this.
fn observables(prefix: &str) -> Vec<Item> {
    let item = |(name, doc): (&str, &str)| Item { text: name.to_owned(), kind: "field", detail: doc.to_owned() };
    offered(prefix).map(item).collect()
}

/// Time zones that are offered at once.
const ZONES: usize = 50;

/// Time zones by their name, or by the name of their place.
fn zones(low: &str) -> Vec<Item> {
    let like = |name: &&str| {
        let name = name.to_ascii_lowercase();
        name.starts_with(low) || name.rsplit('/').next().is_some_and(|place| place.starts_with(low))
    };
    let names = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    names.filter(like).take(ZONES).map(|name| item(name, "value", "")).collect()
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
            return Completion { replaces, items: observables(rest), values: None };
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
        assert_eq!(at(r#"in:flows stats:"count() by ap|"#).1, ["app", "app_id"]);
        assert_eq!(at("in:flows stats:me|").1, ["median"]);
        assert_eq!(at(r#"in:flows stats:"count_if(ap|"#).1, ["app", "app_id"]);
        assert_eq!(at(r#"in:flows stats:"sum_if(bytes_total, app:d|"#).2, values("flows.app", None, "d"));
        assert_eq!(at("in:flows time:last_1|").1, ["last_15m", "last_1h"]);
        assert_eq!(at("in:devices rollup_stats:|").1, ["inventory_summary"]);
        assert_eq!(at("in:devices group:co|").2, values("device_groups.name", None, "co"));
        assert_eq!(at("in:flows !dst_device.group:(a,co|").2, values("device_groups.name", None, "co"));
        assert_eq!(at("in:flows observable.i|").1, ["ip"]);
        assert_eq!(at("in:flows tcp_flags:(syn,a|").1, ["ack"]);
        assert_eq!(at("in:flows protocol_num:tc|").1, ["tcp"]);
        assert!(at("|").1.contains(&"in:".to_owned()));
        assert_eq!(at("in:devices vendor:(Cisco, De|").2, values("devices.vendor_name", None, "De"));
        assert_eq!(at("in:flows device:(ven|").1, ["vendor_name"]);
        assert_eq!(at("in:flows device:(vendor_name:Ci|").2, values("devices.vendor_name", None, "Ci"));
    }

    #[test]
    fn clauses_are_completed_by_what_the_query_says() {
        let groups = r#"in:flows stats:"sum(bytes_total) as bytes, count() as n by app, src_ip as source" window:5m "#;
        let of = |rest: &str| at(&format!("{groups}{rest}")).1;
        assert_eq!(of("having:|"), ["bytes", "n", "window_start", "app", "source", "not"]);
        assert_eq!(of("having:\"b|"), ["bytes"]);
        assert_eq!(of("having:\"bytes>5 |"), ["and", "or"]);
        assert_eq!(of("having:\"bytes>5 a|"), ["and"]);
        assert_eq!(of("having:\"bytes>5 and (s|"), ["source"]);
        assert_eq!(of("having:\"bytes>|"), [""; 0]);
        assert_eq!(of("top:5 by:b|"), ["bytes"]);
        assert_eq!(of("sort:by|"), ["bytes"]);
        assert_eq!(of("sort:bytes:|"), ["asc", "desc"]);
        assert_eq!(of("sort:bytes:desc,a|"), ["app"]);
        assert_eq!(of("fields:so|"), ["source"]);
        // What follows the cursor counts, too.
        assert_eq!(at("in:flows sort:| stats:count()").1, ["count"]);
        assert_eq!(at("in:devices sort:host|").1, ["hostname"]);
        assert_eq!(at("in:devices sort:hostname:d|"), ("d".into(), vec!["desc".into()], None));
        assert_eq!(at("in:logs sort:device.ven|").1, ["vendor_name"]);
        assert_eq!(at("in:flows tz:europe/ber|").1, ["Europe/Berlin"]);
        assert!(at("in:flows tz:Ber|").1.contains(&"Europe/Berlin".to_owned()));
        assert_eq!(at("in:flows mode:s|").1, ["stream", "snapshot"]);
    }

    #[test]
    fn a_subquery_is_completed_as_a_query() {
        assert_eq!(at("in:devices uid:(in:fl|").1, ["flows"]);
        assert_eq!(at("in:devices uid:(in:logs serv|").1, ["service_name", "service_version", "service_instance"]);
        assert_eq!(at("in:devices uid:(in:flows app:d|) limit:5").2, values("flows.app", None, "d"));
        assert_eq!(at("in:devices uid:(in:flows fields:src_device_u|").1, ["src_device_uid"]);
        assert_eq!(
            at(r#"in:devices uid:(in:flows stats:"count() as n by src_device_uid" having:|"#).1,
            ["n", "src_device_uid", "not"]
        );
        // Behind it the query around it goes on.
        assert_eq!(at("in:devices uid:(in:flows app:dns) host|").1, ["hostname"]);
        assert_eq!(at("in:devices (uid:(in:flows app:dns) OR ven|").1, ["vendor_name"]);
        assert_eq!(at("in:devices uid:(i|").1.last().unwrap(), "in:");
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
