//! An Alertmanager's configuration, read as it is: what it says as resources, and by line what of it has no meaning here.
//!
//! | there | here |
//! |---|---|
//! | `route` | routes, a node each: `root`, `root.1`, `root.1.2` |
//! | `receivers` | a receiver an integration: `ops`, or `ops-1`, `ops-2` where it has several; one without any is nobody |
//! | `inhibit_rules`, `time_intervals`, `mute_time_intervals` | the same |
//! | `match`, `match_re`, `source_match`, … | matchers |
//!
//! Nothing is left out in silence: a key that is not read is told, with its line.

use std::collections::BTreeMap;
use std::fmt;

use radarflow_proto::resource::Fields;
use radarflow_proto::rows::Table;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};
use serde_saphyr::Spanned;

use super::matcher::{Matcher, quoted};
use super::policy::NOBODY;
use super::times::{Interval, duration_ms};
use crate::yaml;

/// A resource that it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// The kind, as its entity is called.
    pub resource: &'static str,
    /// What it is called.
    pub id: String,
    /// What it says.
    pub fields: Fields,
}

/// Something that has no meaning here, or is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The line.
    pub line: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imported {
    /// The resources: what others refer to comes first.
    pub resources: Vec<Said>,
    /// What has no meaning here, in the order of lines.
    pub unsupported: Vec<Remark>,
}

/// A node of YAML: a scalar is text.
enum Node {
    Nothing,
    Text(String),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("YAML")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Nothing)
            }
            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Nothing)
            }
            fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
                Node::deserialize(from)
            }
            fn visit_bool<E>(self, is: bool) -> Result<Node, E> {
                Ok(Node::Text(is.to_string()))
            }
            fn visit_i64<E>(self, n: i64) -> Result<Node, E> {
                Ok(Node::Text(n.to_string()))
            }
            fn visit_u64<E>(self, n: u64) -> Result<Node, E> {
                Ok(Node::Text(n.to_string()))
            }
            fn visit_f64<E>(self, n: f64) -> Result<Node, E> {
                Ok(Node::Text(n.to_string()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Node, E> {
                Ok(Node::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(node) = from.next_element()? {
                    list.push(node);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Node, A::Error> {
                let mut map = Vec::new();
                while let Some(pair) = from.next_entry()? {
                    map.push(pair);
                }
                Ok(Node::Map(map))
            }
        }
        from.deserialize_any(Any)
    }
}

/// A map whose keys are taken one after another; those that are left are told.
struct Keys<'a> {
    line: u64,
    of: BTreeMap<&'a str, (u64, &'a Spanned<Node>)>,
}

struct Reader {
    out: Imported,
    /// By name of the receiver, ours.
    receivers: BTreeMap<String, Vec<String>>,
    intervals: BTreeMap<String, u64>,
}

type Wrong = Remark;

fn wrong(line: u64, what: impl Into<String>) -> Wrong {
    Remark { line, what: what.into() }
}

fn line(node: &Spanned<Node>) -> u64 {
    node.referenced.line()
}

impl<'a> Keys<'a> {
    fn of(node: &'a Spanned<Node>, what: &str) -> Result<Self, Wrong> {
        let mut of = BTreeMap::new();
        match &node.value {
            Node::Map(pairs) => {
                for (key, value) in pairs {
                    of.insert(key.value.as_str(), (key.referenced.line(), value));
                }
            }
            Node::Nothing => {}
            _ => return Err(wrong(line(node), format!("{what} is a map"))),
        }
        Ok(Keys { line: line(node), of })
    }

    fn take(&mut self, key: &str) -> Option<&'a Spanned<Node>> {
        self.of.remove(key).map(|(_, node)| node)
    }

    fn text(&mut self, key: &str) -> Result<Option<(u64, &'a str)>, Wrong> {
        match self.take(key).map(|node| (line(node), &node.value)) {
            Some((at, Node::Text(text))) => Ok(Some((at, text))),
            Some((_, Node::Nothing)) | None => Ok(None),
            Some((at, _)) => Err(wrong(at, format!("{key} is text"))),
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<&'a Spanned<Node>>, Wrong> {
        match self.take(key).map(|node| (line(node), &node.value)) {
            Some((_, Node::List(list))) => Ok(list.iter().collect()),
            Some((_, Node::Nothing)) | None => Ok(Vec::new()),
            Some((at, _)) => Err(wrong(at, format!("{key} is a list"))),
        }
    }

    fn texts(&mut self, key: &str) -> Result<Vec<(u64, String)>, Wrong> {
        let text = |node: &Spanned<Node>| match &node.value {
            Node::Text(text) => Ok((line(node), text.clone())),
            _ => Err(wrong(line(node), format!("{key} is a list of texts"))),
        };
        self.list(key)?.into_iter().map(text).collect()
    }

    fn flag(&mut self, key: &str, or: bool) -> Result<bool, Wrong> {
        match self.text(key)? {
            None => Ok(or),
            Some((_, "true")) => Ok(true),
            Some((_, "false")) => Ok(false),
            Some((at, _)) => Err(wrong(at, format!("{key} is true or false"))),
        }
    }

    fn duration(&mut self, key: &str) -> Result<Option<i64>, Wrong> {
        let said = self.text(key)?;
        said.map(|(at, text)| duration_ms(text).map_err(|why| wrong(at, format!("{key}: {why}")))).transpose()
    }

    /// Matchers, as they are written now and as they were.
    fn matchers(&mut self, new: &str, equal: &str, like: &str) -> Result<Vec<String>, Wrong> {
        let mut out = Vec::new();
        for (key, operator) in [(equal, "="), (like, "=~")] {
            let Some(node) = self.take(key) else { continue };
            let keys = Keys::of(node, key)?;
            for (name, (at, value)) in keys.of {
                let Node::Text(value) = &value.value else { return Err(wrong(at, format!("{key} has texts"))) };
                // As Alertmanager has it in the names of groups.
                let value = if operator == "=~" { format!("^(?:{value})$") } else { value.clone() };
                out.push((at, format!("{name}{operator}{}", quoted(&value))));
            }
        }
        for (at, text) in self.texts(new)? {
            out.extend(split(&text).into_iter().map(|text| (at, text)));
        }
        for (at, text) in &out {
            Matcher::read(text).map_err(|why| wrong(*at, why))?;
        }
        Ok(out.into_iter().map(|(_, text)| text).collect())
    }
}

/// One text may have several matchers, in braces, with commas between them.
fn split(text: &str) -> Vec<String> {
    let inner = text.trim();
    let inner = inner.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(inner);
    let (mut out, mut one, mut within, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in inner.chars() {
        match c {
            '"' if !escaped => within = !within,
            ',' if !within => {
                out.push(std::mem::take(&mut one));
                continue;
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
        one.push(c);
    }
    out.push(one);
    out.into_iter().map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

impl Reader {
    fn say(&mut self, table: Table, id: &str, fields: Value) {
        let fields = match fields {
            Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
            _ => Fields::new(),
        };
        self.out.resources.push(Said { resource: table.name(), id: id.to_owned(), fields });
    }

    /// Tells what of a map was not read.
    fn rest(&mut self, keys: Keys<'_>, of: &str) {
        for (key, (at, _)) in keys.of {
            self.out.unsupported.push(wrong(at, format!("{of}: {key} has no meaning here")));
        }
    }

    fn interval(&mut self, node: &Spanned<Node>) -> Result<(), Wrong> {
        let mut keys = Keys::of(node, "a time interval")?;
        let (at, name) = keys.text("name")?.ok_or_else(|| wrong(keys.line, "a time interval has a name"))?;
        let mut periods = Vec::new();
        for period in keys.list("time_intervals")? {
            let mut parts = Keys::of(period, "a time interval")?;
            let mut text: Vec<String> = Vec::new();
            let mut times = Vec::new();
            for time in parts.list("times")? {
                let mut time = Keys::of(time, "times")?;
                let mut of = |key: &str| -> Result<String, Wrong> {
                    let at = time.line;
                    time.text(key)?
                        .map(|(_, text)| text.to_owned())
                        .ok_or_else(|| wrong(at, format!("times have a {key}")))
                };
                times.push(format!("{}-{}", of("start_time")?, of("end_time")?));
                self.rest(time, "times");
            }
            text.extend((!times.is_empty()).then(|| format!("times={}", times.join(","))));
            for key in ["weekdays", "days_of_month", "months", "years"] {
                let ranges = parts.texts(key)?;
                let ranges: Vec<String> = ranges.into_iter().map(|(_, t)| t.replace(' ', "")).collect();
                text.extend((!ranges.is_empty()).then(|| format!("{key}={}", ranges.join(","))));
            }
            text.extend(parts.text("location")?.map(|(_, zone)| format!("location={zone}")));
            let text = text.join(" ");
            Interval::read(&[&text]).map_err(|why| wrong(line(period), why))?;
            periods.push(text);
            self.rest(parts, "time_intervals");
        }
        self.rest(keys, "time_intervals");
        if self.intervals.insert(name.to_owned(), at).is_some() {
            return Err(wrong(at, format!("there are two time intervals {name}")));
        }
        self.say(Table::TimeInterval, name, json!({"periods": periods}));
        Ok(())
    }

    fn receiver(&mut self, node: &Spanned<Node>, globals: &BTreeMap<String, String>) -> Result<(), Wrong> {
        let mut keys = Keys::of(node, "a receiver")?;
        let (at, name) = keys.text("name")?.ok_or_else(|| wrong(keys.line, "a receiver has a name"))?;
        let mut found: Vec<Value> = Vec::new();
        for (key, kind) in [
            ("webhook_configs", "alertmanager"),
            ("slack_configs", "slack"),
            ("discord_configs", "discord"),
            ("msteams_configs", "teams"),
            ("msteamsv2_configs", "teams"),
            ("pagerduty_configs", "pagerduty"),
            ("opsgenie_configs", "opsgenie"),
            ("email_configs", "email"),
        ] {
            for one in keys.list(key)? {
                found.extend(self.integration(one, key, kind, globals)?);
            }
        }
        self.rest(keys, &format!("receiver {name}"));
        let several = found.len() > 1;
        let mut names = Vec::new();
        for (nth, fields) in found.into_iter().enumerate() {
            let id = if several { format!("{name}-{}", nth + 1) } else { name.to_owned() };
            self.say(Table::Receiver, &id, fields);
            names.push(id);
        }
        if self.receivers.insert(name.to_owned(), names).is_some() {
            return Err(wrong(at, format!("there are two receivers {name}")));
        }
        Ok(())
    }

    /// One way in which a receiver is told; none where it cannot be had here.
    fn integration(
        &mut self,
        node: &Spanned<Node>,
        key: &str,
        kind: &str,
        globals: &BTreeMap<String, String>,
    ) -> Result<Option<Value>, Wrong> {
        let mut keys = Keys::of(node, key)?;
        let at = keys.line;
        let text = |keys: &mut Keys<'_>, name: &str, global: &str| -> Result<Option<String>, Wrong> {
            let own = keys.text(name)?.map(|(_, text)| text.to_owned());
            let file = keys.text(&format!("{name}_file"))?.map(|(_, path)| format!("file:{path}"));
            Ok(own.or(file).or_else(|| globals.get(global).cloned()))
        };
        let (mut headers, mut credential) = (Vec::new(), None);
        let target = match kind {
            "alertmanager" => text(&mut keys, "url", "")?,
            "slack" => text(&mut keys, "api_url", "slack_api_url")?,
            "discord" | "teams" => text(&mut keys, "webhook_url", "")?,
            "pagerduty" => {
                credential = text(&mut keys, "routing_key", "")?;
                let default = "https://events.pagerduty.com/v2/enqueue".to_owned();
                text(&mut keys, "url", "pagerduty_url")?.or(Some(default))
            }
            "opsgenie" => {
                credential = text(&mut keys, "api_key", "opsgenie_api_key")?;
                let default = "https://api.opsgenie.com".to_owned();
                text(&mut keys, "api_url", "opsgenie_api_url")?.or(Some(default))
            }
            _ => text(&mut keys, "to", "")?.map(|to| format!("mailto:{to}")),
        };
        // As Alertmanager has it: these are told that it is over unless they say otherwise, those are not.
        let sends = !matches!(kind, "slack" | "email");
        let send_resolved = keys.flag("send_resolved", sends)?;
        if let Some(http) = keys.take("http_config") {
            let mut http = Keys::of(http, "http_config")?;
            if let Some(authorization) = http.take("authorization") {
                let mut of = Keys::of(authorization, "authorization")?;
                let scheme = of.text("type")?.map_or("Bearer", |(_, scheme)| scheme);
                headers.extend(of.text("credentials")?.map(|(_, value)| format!("Authorization: {scheme} {value}")));
                self.rest(of, "authorization");
            }
            headers.extend(http.text("bearer_token")?.map(|(_, value)| format!("Authorization: Bearer {value}")));
            self.rest(http, "http_config");
        }
        self.rest(keys, key);
        let Some(target) = target else {
            self.out.unsupported.push(wrong(at, format!("{key}: it is not said where messages go")));
            return Ok(None);
        };
        if matches!(kind, "pagerduty" | "opsgenie") && credential.is_none() {
            self.out
                .unsupported
                .push(wrong(at, format!("{key}: there is no key (service_key is of events, version 1)")));
            return Ok(None);
        }
        Ok(Some(json!({
            "kind": kind,
            "target": target,
            "send_resolved": send_resolved,
            "headers": Some(headers).filter(|headers| !headers.is_empty()),
            "credential": credential,
        })))
    }

    fn route(&mut self, node: &Spanned<Node>, id: &str, parent: Option<&str>, position: usize) -> Result<(), Wrong> {
        let mut keys = Keys::of(node, "a route")?;
        let matchers = keys.matchers("matchers", "match", "match_re")?;
        if parent.is_none() && !matchers.is_empty() {
            return Err(wrong(keys.line, "the first route matches everything"));
        }
        let receivers = match keys.text("receiver")? {
            Some((at, name)) => {
                let known =
                    self.receivers.get(name).ok_or_else(|| wrong(at, format!("there is no receiver {name}")))?;
                if known.is_empty() { vec![NOBODY.to_owned()] } else { known.clone() }
            }
            None if parent.is_none() => return Err(wrong(keys.line, "the first route has a receiver")),
            None => Vec::new(),
        };
        let intervals = |keys: &mut Keys<'_>, key: &str| -> Result<Vec<String>, Wrong> {
            let names = keys.texts(key)?;
            match names.iter().find(|(_, name)| !self.intervals.contains_key(name)) {
                Some((at, name)) => Err(wrong(*at, format!("there is no time interval {name}"))),
                None => Ok(names.into_iter().map(|(_, name)| name).collect()),
            }
        };
        let fields = json!({
            "parent": parent,
            "position": position,
            "matchers": matchers,
            "receivers": receivers,
            "group_by": keys.texts("group_by")?.into_iter().map(|(_, name)| name).collect::<Vec<_>>(),
            "group_wait_ms": keys.duration("group_wait")?,
            "group_interval_ms": keys.duration("group_interval")?,
            "repeat_interval_ms": keys.duration("repeat_interval")?,
            "continue": keys.flag("continue", false)?,
            "mute_time_intervals": intervals(&mut keys, "mute_time_intervals")?,
            "active_time_intervals": intervals(&mut keys, "active_time_intervals")?,
        });
        self.say(Table::Route, id, fields);
        for (nth, below) in keys.list("routes")?.into_iter().enumerate() {
            self.route(below, &format!("{id}.{}", nth + 1), Some(id), nth + 1)?;
        }
        self.rest(keys, "route");
        Ok(())
    }

    fn inhibition(&mut self, node: &Spanned<Node>, nth: usize) -> Result<(), Wrong> {
        let mut keys = Keys::of(node, "an inhibit rule")?;
        let name = keys.text("name")?.map_or_else(|| format!("inhibit-{nth}"), |(_, name)| name.to_owned());
        let fields = json!({
            "source_matchers": keys.matchers("source_matchers", "source_match", "source_match_re")?,
            "target_matchers": keys.matchers("target_matchers", "target_match", "target_match_re")?,
            "equal": keys.texts("equal")?.into_iter().map(|(_, name)| name).collect::<Vec<_>>(),
        });
        self.say(Table::InhibitRule, &name, fields);
        self.rest(keys, "inhibit_rules");
        Ok(())
    }
}

/// Reads an Alertmanager's configuration.
///
/// # Errors
/// What is wrong with it, by line: Alertmanager would not take it either.
pub fn read(text: &str) -> Result<Imported, Remark> {
    let document: Spanned<Node> = yaml::read(text).map_err(|(line, what)| Remark { line, what })?;
    let mut reader = Reader { out: Imported::default(), receivers: BTreeMap::new(), intervals: BTreeMap::new() };
    let mut keys = Keys::of(&document, "the configuration")?;
    let mut globals = BTreeMap::new();
    if let Some(global) = keys.take("global") {
        let mut global = Keys::of(global, "global")?;
        for name in ["slack_api_url", "pagerduty_url", "opsgenie_api_url", "opsgenie_api_key"] {
            globals.extend(global.text(name)?.map(|(_, text)| (name.to_owned(), text.to_owned())));
            let file = global.text(&format!("{name}_file"))?;
            globals.extend(file.map(|(_, path)| (name.to_owned(), format!("file:{path}"))));
        }
        reader.rest(global, "global");
    }
    for key in ["time_intervals", "mute_time_intervals"] {
        for interval in keys.list(key)? {
            reader.interval(interval)?;
        }
    }
    for receiver in keys.list("receivers")? {
        reader.receiver(receiver, &globals)?;
    }
    for (nth, rule) in keys.list("inhibit_rules")?.into_iter().enumerate() {
        reader.inhibition(rule, nth + 1)?;
    }
    let route = keys.take("route").ok_or_else(|| wrong(keys.line.max(1), "there is no route"))?;
    reader.route(route, "root", None, 0)?;
    reader.rest(keys, "the configuration");
    reader.out.unsupported.sort();
    Ok(reader.out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"global:
  resolve_timeout: 5m
  slack_api_url: https://hooks.slack.example/x
templates: ['*.tmpl']
route:
  receiver: ops
  group_by: [alertname, cluster]
  group_wait: 30s
  repeat_interval: 12h
  routes:
    - match:
        severity: critical
      match_re:
        site: berlin|paris
      receiver: pager
      continue: true
      mute_time_intervals: [weekends]
      routes:
        - matchers: ['team="a,b"', '{db=~"p.+", x!="1"}']
          group_by: ['...']
    - receiver: 'null'
      matchers: [severity=none]
receivers:
  - name: ops
    webhook_configs:
      - url: http://127.0.0.1:9/hook
        max_alerts: 5
    slack_configs:
      - channel: '#ops'
  - name: pager
    pagerduty_configs:
      - routing_key_file: /run/key
  - name: 'null'
  - name: odd
    victorops_configs:
      - api_key: x
inhibit_rules:
  - source_match: {severity: critical}
    target_match: {severity: warning}
    equal: [alertname]
time_intervals:
  - name: weekends
    time_intervals:
      - weekdays: ['saturday:sunday', 'monday']
        times:
          - start_time: 09:00
            end_time: '17:00'
        location: Europe/Berlin
"#;

    #[test]
    fn all_of_it_is_read_or_told_by_line() {
        let read = read(WHOLE).unwrap();
        let ids: Vec<String> = read.resources.iter().map(|said| format!("{} {}", said.resource, said.id)).collect();
        let expected = [
            "time_intervals weekends",
            "receivers ops-1",
            "receivers ops-2",
            "receivers pager",
            "inhibit_rules inhibit-1",
            "routes root",
            "routes root.1",
            "routes root.1.1",
            "routes root.2",
        ];
        assert_eq!(ids, expected);
        let of = |id: &str| json!(read.resources.iter().find(|said| said.id == id).unwrap().fields);
        assert_eq!(
            of("weekends")["periods"],
            json!(["times=09:00-17:00 weekdays=saturday:sunday,monday location=Europe/Berlin"])
        );
        assert_eq!(of("root")["receivers"], json!(["ops-1", "ops-2"]));
        assert_eq!(of("root.1")["matchers"], json!([r#"severity="critical""#, r#"site=~"^(?:berlin|paris)$""#]));
        assert_eq!(of("root.1.1")["matchers"], json!([r#"team="a,b""#, r#"db=~"p.+""#, r#"x!="1""#]));
        assert_eq!((&of("root.1.1")["receivers"], &of("root.2")["receivers"]), (&json!([]), &json!(["-"])));
        assert_eq!(of("pager")["credential"], "file:/run/key");
        assert_eq!((&of("ops-1")["send_resolved"], &of("ops-2")["send_resolved"]), (&json!(true), &json!(false)));
        let remarks: Vec<String> = read.unsupported.iter().map(ToString::to_string).collect();
        let expected = [
            "line 2: global: resolve_timeout has no meaning here",
            "line 4: the configuration: templates has no meaning here",
            "line 27: webhook_configs: max_alerts has no meaning here",
            "line 29: slack_configs: channel has no meaning here",
            "line 35: receiver odd: victorops_configs has no meaning here",
        ];
        assert_eq!(remarks, expected);
    }

    #[test]
    fn what_alertmanager_would_not_take_is_refused_by_line() {
        for (text, why) in [
            ("route: [", "line"),
            ("receivers: []", "line 1: there is no route"),
            ("route:\n  receiver: x\n", "line 2: there is no receiver x"),
            (
                "receivers:\n- name: x\nroute:\n  receiver: x\n  group_wait: soon\n",
                "line 5: group_wait: `soon` is no length",
            ),
            (
                "receivers:\n- name: x\nroute:\n  receiver: x\n  routes:\n  - matchers: ['a=~(']\n",
                "line 6: `(` is no regular",
            ),
            ("receivers:\n- name: x\n- name: x\nroute:\n  receiver: x\n", "line 3: there are two receivers x"),
            (
                "receivers:\n- name: x\nroute:\n  receiver: x\n  mute_time_intervals: [y]\n",
                "line 5: there is no time interval y",
            ),
        ] {
            let wrong = read(text).unwrap_err().to_string();
            assert!(wrong.starts_with(why), "{text}: {wrong}");
        }
    }
}
