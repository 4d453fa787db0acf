//! Rules as other systems write them, as rules of ours: stateful rules of ServiceRadar, rule files in the form of Prometheus. What
//! does not map is told of by line, and nothing is left out silently.
//!
//! | ServiceRadar | here |
//! |---|---|
//! | `signal: log`, `event`, `trap`, `flow` | `in:logs`, `in:events`, `in:traps`, `in:flows` |
//! | `match` | the filter; a list is any of |
//! | `group_by`, `threshold`, `window_seconds` | `by …`, `having:"n >= …"`, `time:last_…s` |
//! | `alert.title`, `alert.description`, `alert.severity` | the same |
//! | `cooldown_seconds` | `resolve_for_s`: an alert lasts at least so long after it held |
//!
//! Severity numbers of its logs are those of OpenTelemetry (1 to 24), ours those of syslog (7 to 0; RFC 5424).

use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use serde_saphyr::Spanned;

use super::rule::Rule;
use crate::resources::named;
use crate::yaml;

/// A rule of ours: its name, and its fields as a resource.
pub type Converted = (String, Map<String, Value>);
/// What does not map: the line, and why.
pub type Unmapped = (u64, String);

#[derive(Deserialize)]
struct Prometheus {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Listed {
    rules: Vec<Spanned<Value>>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    rules: Vec<Spanned<Value>>,
}

/// Reads a file.
///
/// # Errors
/// It is no YAML or JSON of either form; the line, and why.
pub fn read(text: &str) -> Result<(Vec<Converted>, Vec<Unmapped>), Unmapped> {
    let (mut rules, mut unmapped) = (Vec::new(), Vec::new());
    // Which form it is must be known first: where it is guessed, lines are lost.
    let form = yaml::read::<Value>(text)?;
    let prometheus = form.get("groups").is_some();
    let written: Vec<Spanned<Value>> = if prometheus {
        yaml::read::<Prometheus>(text)?.groups.into_iter().flat_map(|group| group.rules).collect()
    } else if form.is_object() {
        yaml::read::<Listed>(text)?.rules
    } else {
        yaml::read(text)?
    };
    for rule in written {
        let line = rule.referenced.line();
        let mut notes = Vec::new();
        let converted = match prometheus {
            true => of_prometheus(&rule.value, &mut notes),
            false => stateful(&rule.value, &mut notes),
        };
        match converted.and_then(followed) {
            Ok(converted) => rules.push(converted),
            Err(why) => notes.push(why),
        }
        unmapped.extend(notes.into_iter().map(|note| (line, note)));
    }
    Ok((rules, unmapped))
}

/// The same, if it is a rule that can be followed.
fn followed((name, fields): Converted) -> Result<Converted, String> {
    let kind = named(Table::Rule.name()).ok_or("there are no rules")?;
    let wrong = |field: &str, why: &str| format!("{name}: {field}: {why}");
    let (shown, _) = kind
        .read_all(&fields.clone().into_iter().collect(), true)
        .map_err(|why| wrong(why.field.unwrap_or("rule"), &why.detail))?;
    let resource = Resource::of(Table::Rule, "", &name, shown);
    Rule::of(&resource).map_err(|(field, why)| wrong(field, &why))?;
    Ok((name, fields))
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name)?.as_str()
}

/// A literal that is nothing but itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A rule in the form of Prometheus whose expression is a query of ours.
fn of_prometheus(rule: &Value, notes: &mut Vec<String>) -> Result<Converted, String> {
    let name = match (text(rule, "alert"), text(rule, "record")) {
        (Some(name), _) => name,
        (None, Some(record)) => return Err(format!("{record}: recording rules have no counterpart")),
        (None, None) => return Err("a rule has `alert:` and its name".to_owned()),
    };
    let expr = text(rule, "expr").unwrap_or_default().trim();
    if !expr.starts_with("in:") {
        return Err(format!("{name}: PromQL does not map; write its `expr` as SRQL, in:… stats:… having:…"));
    }
    let mut fields = Map::new();
    fields.insert("query".to_owned(), json!(expr));
    for (from, to) in [("for", "for_s"), ("keep_firing_for", "resolve_for_s")] {
        if let Some(said) = rule.get(from) {
            let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
            let us = radarflow_language::time::duration(&said);
            let s = us.map(|us| us / 1_000_000).or_else(|| said.trim().parse().ok());
            fields.insert(to.to_owned(), json!(s.ok_or_else(|| format!("{name}: {from}: {said:?} is no duration"))?));
        }
    }
    let mut labels = Vec::new();
    for (key, value) in rule.get("labels").and_then(Value::as_object).into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match (key.as_str(), severity(&value)) {
            ("severity", Some(severity)) => drop(fields.insert("severity".to_owned(), json!(severity))),
            ("severity", None) => {
                notes.push(format!("{name}: severity {value:?} is none of ours; it is a warning here"));
            }
            _ => labels.push(format!("{key}={value}")),
        }
    }
    for (key, value) in rule.get("annotations").and_then(Value::as_object).into_iter().flatten() {
        let Some(value) = value.as_str() else { continue };
        match key.as_str() {
            "summary" => drop(fields.insert("title".to_owned(), json!(template(value, name, notes)))),
            "description" => drop(fields.insert("description".to_owned(), json!(template(value, name, notes)))),
            "runbook_url" => drop(fields.insert("runbook_url".to_owned(), json!(value))),
            other => notes.push(format!("{name}: the annotation {other} has no counterpart")),
        }
    }
    if !labels.is_empty() {
        fields.insert("labels".to_owned(), json!(labels));
    }
    let known = ["alert", "expr", "for", "keep_firing_for", "labels", "annotations"];
    let others =
        rule.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| !known.contains(&key.as_str()));
    notes.extend(others.map(|key| format!("{name}: {key} has no counterpart")));
    Ok((name.to_owned(), fields))
}

/// `{{ $labels.ip }}` is `{ip}`.
fn template(text: &str, name: &str, notes: &mut Vec<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once("{{") {
        let (inside, after) = inside.split_once("}}").unwrap_or((inside, ""));
        out.push_str(before);
        match inside.trim().strip_prefix("$labels.") {
            Some(label) if label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
                out.push('{');
                out.push_str(label);
                out.push('}');
            }
            _ => notes.push(format!("{name}: {{{{{inside}}}}} has no counterpart in titles; it is left out")),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn severity(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "emergency" | "page" => "emergency",
        "critical" | "fatal" | "error" | "high" => "critical",
        "warning" | "warn" | "medium" => "warning",
        "info" | "informational" | "low" | "none" => "info",
        _ => return None,
    })
}

/// A stateful rule of ServiceRadar.
fn stateful(rule: &Value, notes: &mut Vec<String>) -> Result<Converted, String> {
    let name = text(rule, "name").ok_or("a rule has a name")?;
    let number = |key: &str, default: i64| match rule.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value.as_i64().ok_or_else(|| format!("{name}: {key} is a whole number")),
    };
    let entity = match text(rule, "signal").unwrap_or("log") {
        "log" => "logs",
        "event" => "events",
        "trap" => "traps",
        "flow" => "flows",
        other => return Err(format!("{name}: signal {other} has no counterpart")),
    };
    let mut terms = Vec::new();
    let matches = match rule.get("match") {
        None | Some(Value::Null) => None,
        Some(matches) => Some(matches.as_object().ok_or_else(|| format!("{name}: match is names and values"))?),
    };
    for (key, value) in matches.into_iter().flatten() {
        matched(entity, key, value, &mut terms).map_err(|why| format!("{name}: match.{key}: {why}"))?;
    }
    let by: Vec<Value> = match rule.get("group_by") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(keys)) => keys.clone(),
        Some(one) => vec![one.clone()],
    };
    let by = by.iter().map(|key| key.as_str().map(|key| field(entity, key)));
    let by: Vec<String> = by.collect::<Option<_>>().ok_or_else(|| format!("{name}: group_by is a list of names"))?;
    let (threshold, window) = (number("threshold", 5)?, number("window_seconds", 600)?);
    let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(", ")) };
    let filter = if terms.is_empty() { String::new() } else { format!(" {}", terms.join(" ")) };
    let query =
        format!("in:{entity}{filter} time:last_{window}s stats:\"count() as n{by}\" having:\"n >= {threshold}\"");
    let mut fields = Map::new();
    fields.insert("query".to_owned(), json!(query));
    match rule.get("enabled") {
        None | Some(Value::Null | Value::Bool(true)) => {}
        Some(Value::Bool(false)) => drop(fields.insert("enabled".to_owned(), json!(false))),
        Some(_) => return Err(format!("{name}: enabled is true or false")),
    }
    let cooldown = number("cooldown_seconds", 300)?;
    if cooldown > 0 {
        fields.insert("resolve_for_s".to_owned(), json!(cooldown));
    }
    let alert = rule.get("alert").cloned().unwrap_or_default();
    for part in ["title", "description"] {
        if let Some(said) = text(&alert, part) {
            fields.insert(part.to_owned(), json!(said.replace('{', "(").replace('}', ")")));
        }
    }
    match text(&alert, "severity").map(|word| (word, severity(word))) {
        Some((_, Some(severity))) => drop(fields.insert("severity".to_owned(), json!(severity))),
        Some((word, None)) => notes.push(format!("{name}: severity {word:?} is none of ours; it is a warning here")),
        None => {}
    }
    if rule.get("renotify_seconds").is_some() {
        notes.push(format!("{name}: renotify_seconds is repeat_interval of the receiver or route here"));
    }
    let known = [
        "name",
        "enabled",
        "signal",
        "match",
        "group_by",
        "threshold",
        "window_seconds",
        "cooldown_seconds",
        "renotify_seconds",
        "alert",
        "description",
    ];
    let others =
        rule.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| !known.contains(&key.as_str()));
    notes.extend(others.map(|key| format!("{name}: {key} has no counterpart")));
    Ok((name.to_owned(), fields))
}

/// A dotted path as a field of ours.
fn field(entity: &str, key: &str) -> String {
    let map = if entity == "traps" { "varbinds" } else { "attributes" };
    match key {
        "source" | "source_ip" | "host_ip" => "source_ip".to_owned(),
        "host" | "hostname" => "hostname".to_owned(),
        "service" | "service_name" => "service_name".to_owned(),
        "device_id" | "device_uid" => "device_uid".to_owned(),
        other => match other.strip_prefix("attributes.").or_else(|| other.strip_prefix("resource_attributes.")) {
            Some(rest) => format!("{map}.`{rest}`"),
            None => other.to_owned(),
        },
    }
}

/// One of a list, or the one.
fn any(value: &Value, write: impl Fn(&str) -> String) -> Result<String, String> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(write(text)),
        Value::Number(number) => Ok(write(&number.to_string())),
        Value::Bool(flag) => Ok(write(&flag.to_string())),
        _ => Err("it is a text, a number or a list of them".to_owned()),
    };
    match value {
        Value::Array(several) => Ok(format!("({})", several.iter().map(one).collect::<Result<Vec<_>, _>>()?.join(","))),
        value => one(value),
    }
}

/// A severity of OpenTelemetry, 1 (trace) to 24 (fatal), as one of syslog.
pub fn syslog(otel: i64) -> i64 {
    match otel {
        ..=8 => 7,
        9..=10 => 6,
        11..=12 => 5,
        13..=16 => 4,
        17..=20 => 3,
        21..=22 => 2,
        23 => 1,
        _ => 0,
    }
}

fn matched(entity: &str, key: &str, value: &Value, terms: &mut Vec<String>) -> Result<(), String> {
    let number = || value.as_i64().ok_or("it is a whole number");
    let attributes = |terms: &mut Vec<String>| -> Result<(), String> {
        let pairs = value.as_object().ok_or("it is names and values")?;
        for (name, value) in pairs {
            terms.push(format!("{}:{}", field(entity, &format!("attributes.{name}")), any(value, quoted)?));
        }
        Ok(())
    };
    match key {
        "always" if *value == json!(true) => {}
        "always" => return Err("it is true, or left out".to_owned()),
        "subject_prefix" => return Err("messages have no subject here".to_owned()),
        "service_name" => terms.push(format!("service_name:{}", any(value, quoted)?)),
        // The greater the number there, the less here.
        "severity_number_min" => terms.push(format!("severity_number:<={}", syslog(number()?))),
        "severity_number_max" => terms.push(format!("severity_number:>={}", syslog(number()?))),
        "severity_text" => terms.push(format!("severity:{}", any(value, |text| quoted(&text.to_lowercase()))?)),
        "body_contains" => {
            let body = if entity == "events" { "message" } else { "body" };
            let escaped = |text: &str| {
                let plain: String = text
                    .chars()
                    .flat_map(|c| {
                        let escape = !c.is_alphanumeric();
                        escape.then_some('\\').into_iter().chain([c])
                    })
                    .collect();
                format!("%{plain}%")
            };
            terms.push(format!("{body}:{}", any(value, escaped)?));
        }
        "attribute_equals" | "resource_attribute_equals" => attributes(terms)?,
        "event_type" => terms.push(format!("activity_name:{}", any(value, quoted)?)),
        other => terms.push(format!("{}:{}", field(entity, other), any(value, quoted)?)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_serviceradar_are_queries() {
        let (rules, unmapped) = read(
            r#"
- name: errors
  signal: log
  match: {severity_number_min: 17, body_contains: "link (down)", service_name: [a, "b'c"]}
  group_by: [source_ip, attributes.k8s.pod]
  threshold: 3
  window_seconds: 120
  alert: {title: Many errors, severity: Error}
- name: gone
  match: {subject_prefix: logs.}
- name: all
  match: {always: true}
  cooldown_seconds: 0
  priority: 5
"#,
        )
        .unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(
            rules[0].1["query"],
            "in:logs severity_number:<=3 body:%link\\ \\(down\\)% service_name:('a','b\\'c') time:last_120s \
             stats:\"count() as n by source_ip, attributes.`k8s.pod`\" having:\"n >= 3\""
        );
        assert_eq!(rules[0].1["severity"], "critical");
        assert_eq!(rules[0].1["resolve_for_s"], 300);
        assert_eq!(rules[1].1["query"], "in:logs time:last_600s stats:\"count() as n\" having:\"n >= 5\"");
        assert_eq!(unmapped.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [9, 11]);
        for (name, fields) in rules {
            let resource = crate::rules::tests::stated(&name, &Value::Object(fields));
            crate::rules::Rule::of(&resource).unwrap_or_else(|why| panic!("{name}: {why:?}"));
        }
    }

    #[test]
    fn rule_files_in_the_form_of_prometheus_are_read_where_they_ask_srql() {
        let (rules, unmapped) = read(
            r#"
groups:
  - name: g
    rules:
      - alert: Quiet
        expr: in:logs time:last_5m stats:"count() as n by source_ip" having:"n = 0"
        for: 10m
        labels: {severity: page, team: net}
        annotations:
          summary: "{{ $labels.source_ip }} is quiet, {{ $value }}"
          dashboard: x
      - alert: Up
        expr: up == 0
      - record: a:b
        expr: sum(a)
"#,
        )
        .unwrap();
        assert_eq!(rules.len(), 1);
        let fields = &rules[0].1;
        assert_eq!((&fields["for_s"], &fields["severity"]), (&json!(600), &json!("emergency")));
        assert_eq!((&fields["title"], &fields["labels"]), (&json!("{source_ip} is quiet, "), &json!(["team=net"])));
        assert_eq!(unmapped.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [5, 5, 12, 14]);
        assert!(unmapped[2].1.contains("PromQL"), "{unmapped:?}");
    }
}
