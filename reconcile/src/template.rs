//! What a message says whose receiver has its own words: a template that makes JSON.
//!
//! It sees what [`context`] says and nothing else: no files, no other templates, no environment. It has so many steps, and what it
//! makes so many bytes. Nothing in it makes a text of texts (`*`, `+`, `~`, `set`, macros): what it makes in between has no bound that
//! can be set. It is checked when it is stated, on a message that burns and on one that is over.

use std::fmt;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use radarflow_proto::payload::DueNotification;
use serde_json::{Value, json};

/// Bytes of a template.
pub const MAX_TEMPLATE: usize = 20_000;
/// Bytes of what it makes.
pub const MAX_MADE: usize = 256 << 10;
/// Steps that it may take, and more of them for each alert.
const FUEL: u64 = 20_000;
const FUEL_OF_ALERT: u64 = 500;
/// Bytes of what `join` makes.
const MAX_JOINED: usize = 64 << 10;
/// Statements that it may have.
const STATEMENTS: [&str; 6] = ["for", "endfor", "if", "elif", "else", "endif"];

/// What it makes of a message.
///
/// # Errors
/// What is wrong with the template, or that what it makes is no JSON.
pub fn render(template: &str, context: &Value) -> Result<Value, String> {
    refuse_makers(template)?;
    let mut environment = Environment::empty();
    let alerts = context["alerts"].as_array().map_or(0, Vec::len) as u64;
    environment.set_fuel(Some(FUEL + FUEL_OF_ALERT * alerts));
    environment.set_recursion_limit(50);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|_| AutoEscape::Json);
    environment.add_filter("tojson", minijinja::filters::tojson);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("upper", minijinja::filters::upper);
    environment.add_filter("lower", minijinja::filters::lower);
    environment.add_filter("default", minijinja::filters::default);
    environment.add_filter("join", join);
    environment.add_filter("first", minijinja::filters::first);
    environment.add_filter("items", minijinja::filters::items);
    environment.add_filter("safe", minijinja::filters::safe);
    let compiled = environment.template_from_str(template).map_err(|error| told(&error))?;
    let mut made = Made::default();
    compiled.render_captured_to(context, &mut made).map_err(|error| match made.full {
        true => format!("it makes more than {MAX_MADE} bytes"),
        false => told(&error),
    })?;
    let text = String::from_utf8(made.bytes).map_err(|_| "it makes no text".to_owned())?;
    serde_json::from_str(&text).map_err(|error| format!("it does not make JSON: {error}"))
}

/// Refuses what makes a text of texts: a few of these in a row come to more than any memory.
fn refuse_makers(template: &str) -> Result<(), String> {
    let mut rest = template;
    while let Some(at) = rest.find("{{").into_iter().chain(rest.find("{%")).chain(rest.find("{#")).min() {
        let (kind, inside) = (&rest[at..at + 2], &rest[at + 2..]);
        if kind == "{#" {
            rest = inside.split_once("#}").map_or("", |(_, after)| after);
            continue;
        }
        let end = if kind == "{{" { "}}" } else { "%}" };
        let (mut quote, mut escaped, mut ends) = (None, false, inside.len());
        for (n, c) in inside.char_indices() {
            match quote {
                Some(_) if escaped => escaped = false,
                Some(_) if c == '\\' => escaped = true,
                Some(open) if c == open => quote = None,
                Some(_) => {}
                None if inside[n..].starts_with(end) => {
                    ends = n;
                    break;
                }
                None if matches!(c, '"' | '\'') => quote = Some(c),
                None if matches!(c, '*' | '~' | '+') => {
                    return Err(format!("`{c}` is not had here: texts stand one after the other"));
                }
                None => {}
            }
        }
        let word = inside.trim_start_matches(['-', '+']).split_whitespace().next().unwrap_or_default();
        let word = word.trim_end_matches(['-', '%', '}']);
        if kind == "{%" && !STATEMENTS.contains(&word) {
            return Err(format!("`{word}` is not had here; these are: {}", STATEMENTS.join(", ")));
        }
        rest = &inside[ends..];
    }
    Ok(())
}

/// Joins texts, of which there may be many, and long ones.
// A filter is handed its values.
#[allow(clippy::needless_pass_by_value)]
fn join(values: minijinja::Value, by: Option<String>) -> Result<String, minijinja::Error> {
    let by = by.unwrap_or_default();
    let mut joined = String::new();
    for (n, value) in values.try_iter()?.enumerate() {
        if n > 0 {
            joined.push_str(&by);
        }
        joined.push_str(&value.to_string());
        if joined.len() > MAX_JOINED {
            let detail = format!("join makes more than {MAX_JOINED} bytes");
            return Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, detail));
        }
    }
    Ok(joined)
}

/// Bytes up to a bound.
#[derive(Default)]
struct Made {
    bytes: Vec<u8>,
    full: bool,
}

impl std::io::Write for Made {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_MADE {
            self.full = true;
            return Err(std::io::Error::other("full"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn told(error: &minijinja::Error) -> String {
    struct At(Option<usize>);
    impl fmt::Display for At {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.map_or(Ok(()), |line| write!(f, "line {line}: "))
        }
    }
    format!("{}{}", At(error.line()), error.detail().map_or_else(|| error.kind().to_string(), str::to_owned))
}

/// What a template sees of a message, beside `external_url`.
pub fn context(due: &DueNotification, external_url: &str) -> Value {
    let alerts: Vec<Value> = due
        .alerts
        .iter()
        .map(|alert| {
            json!({
                "id": alert.id,
                "status": if alert.ends_at_ms.is_none() { "firing" } else { "resolved" },
                "labels": alert.labels,
                "annotations": alert.annotations,
                "starts_at_ms": alert.starts_at_ms,
                "ends_at_ms": alert.ends_at_ms,
                "fingerprint": alert.fingerprint,
            })
        })
        .collect();
    json!({
        "id": due.id,
        "status": if due.firing() { "firing" } else { "resolved" },
        "receiver": due.receiver.name,
        "group_key": due.group_key,
        "group_labels": due.group_labels,
        "reason": due.reason,
        "external_url": external_url,
        "alerts": alerts,
    })
}

/// Whether a template makes JSON, of a message that burns and of one that is over.
///
/// # Errors
/// What is wrong with it.
pub fn check(template: &str) -> Result<(), String> {
    let of = |ends: Value| {
        let labels = json!({"alertname": "device-offline", "severity": "critical", "device": "a \"b\"\n"});
        let alert = json!({
            "id": "0-1", "status": if ends.is_null() { "firing" } else { "resolved" }, "labels": labels,
            "annotations": {"summary": "a \"b\" is offline", "description": "c\\d"},
            "starts_at_ms": 0, "ends_at_ms": ends, "fingerprint": "0",
        });
        let status = alert["status"].clone();
        json!({
            "id": "x-1", "status": status, "receiver": "x", "group_key": "{}:{}", "group_labels": {},
            "reason": "new group", "external_url": "http://localhost", "alerts": [alert],
        })
    };
    render(template, &of(Value::Null))?;
    render(template, &of(json!(1))).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_makes_json_of_whatever_labels_say() {
        let template = r#"{"text": {{ alerts[0].annotations.summary }}, "n": {{ alerts|length }},
            "all": [{% for a in alerts %}{{ a.labels.device }}{% if not loop.last %},{% endif %}{% endfor %}]}"#;
        check(template).unwrap();
        check(r#"{"a+b*c~d": {{ "x + y" }}{%- if alerts|length > 1 -%}, "more": {{ alerts|length }}{%- endif -%}}"#)
            .unwrap();
        let context = json!({"alerts": [{"annotations": {"summary": "\"}"}, "labels": {"device": "x"}}]});
        assert_eq!(render(template, &context).unwrap(), json!({"text": "\"}", "n": 1, "all": ["x"]}));
    }

    #[test]
    fn what_makes_no_json_or_has_no_end_is_refused() {
        for (template, why) in [
            ("hello", "does not make JSON"),
            ("{{ alerts", "line 1"),
            ("{{ alerts[0].annotations.summary.nothing.there }}", "line 1"),
            ("{% include 'x' %}", "include"),
            ("{{ 1|nosuch }}", "nosuch"),
            (r#"{% if (("x"*100000000) ~ "x")|length %}{}{% endif %}"#, "`*` is not had here"),
            (r#"{% if alerts ~ alerts %}{}{% endif %}"#, "`~` is not had here"),
            ("{% set x %}{{ alerts }}{{ alerts }}{% endset %}{}", "`set` is not had here"),
            ("{%- macro m() %}{% endmacro %}{}", "`macro` is not had here"),
            (r#"[{% for a in "x" * 1000000 %}{% for b in "x" * 1000000 %}1,{% endfor %}{% endfor %}1]"#, ""),
            (r#""{% for a in range(100000) %}{{ alerts }}{% endfor %}""#, ""),
        ] {
            let wrong = check(template).unwrap_err();
            assert!(wrong.contains(why), "{template}: {wrong}");
        }
    }
}
