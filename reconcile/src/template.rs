//! What a message says whose receiver has its own words: a template that makes JSON.
//!
//! It sees what [`context`] says and nothing else: no files, no other templates, no environment. It has so many steps, and what it
//! makes so many bytes. It is checked when it is stated, on a message that burns and on one that is over.

use std::fmt;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use radarflow_proto::payload::DueNotification;
use serde_json::{Value, json};

/// Bytes of a template.
pub const MAX_TEMPLATE: usize = 20_000;
/// Bytes of what it makes.
pub const MAX_MADE: usize = 256 << 10;
/// Steps that it may take.
const FUEL: u64 = 500_000;

/// What it makes of a message.
///
/// # Errors
/// What is wrong with the template, or that what it makes is no JSON.
pub fn render(template: &str, context: &Value) -> Result<Value, String> {
    let mut environment = Environment::empty();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(50);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|_| AutoEscape::Json);
    environment.add_filter("tojson", minijinja::filters::tojson);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("upper", minijinja::filters::upper);
    environment.add_filter("lower", minijinja::filters::lower);
    environment.add_filter("default", minijinja::filters::default);
    environment.add_filter("join", minijinja::filters::join);
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
            (r#"[{% for a in "x" * 1000000 %}{% for b in "x" * 1000000 %}1,{% endfor %}{% endfor %}1]"#, ""),
            (r#""{% for a in range(100000) %}{{ alerts }}{% endfor %}""#, ""),
        ] {
            let wrong = check(template).unwrap_err();
            assert!(wrong.contains(why), "{template}: {wrong}");
        }
    }
}
