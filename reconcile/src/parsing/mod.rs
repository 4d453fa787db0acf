//! Parsing rules: what a log message says, as fields.
//!
//! A rule looks at the messages of some programs and senders. Its pattern is a regular expression, in which `%{IP:client}` stands for a
//! named group of a kind that is known ([`grok`]); what its named groups find becomes attributes. It may say what the severity is, and
//! what the message. Of the rules that match a line the first one counts.
//!
//! What an expression costs is bounded: it looks at [`MAX_LOOKED`] octets of a message, is compiled to [`MAX_EXPRESSION`] bytes, and has
//! few groups, named or not ([`MAX_GROUPS`]), since the engine that finds groups keeps all of them for each of its states. Rules are found by
//! the program that sent the line: one costs those that it is not about nothing.

pub mod grok;

use std::collections::BTreeMap;
use std::net::IpAddr;

use radarflow_proto::resource::Resource;
use radarflow_proto::syslog::SEVERITIES;
use regex::{Regex, RegexBuilder};

use crate::flows::prefixes::{Prefix, Prefixes};
use crate::rules::rule::filled;

/// Octets of a message that are looked at.
pub const MAX_LOOKED: usize = 4096;
/// Memory of an expression, bytes.
pub const MAX_EXPRESSION: usize = 32 << 10;
/// The least that a state of it takes.
const STATE: usize = 32;
/// What an expression takes, with what it remembers while it looks: its automata forwards and backwards, what each of them caches, the
/// places that are visited, and of each state where each group begins and ends, twice.
pub const EXPRESSION_BYTES: usize =
    6 * MAX_EXPRESSION + (256 << 10) + MAX_EXPRESSION / STATE * 2 * (MAX_GROUPS + 1) * 8 * 2;
/// Rules of a tenant.
pub const MAX_RULES: usize = 30;
/// Groups of a rule, named or not.
pub const MAX_GROUPS: usize = 16;
/// Octets of a value, and of all values of a message.
const MAX_VALUE: usize = 4096;
const MAX_VALUES: usize = 2 * MAX_LOOKED;

/// A rule, read.
pub struct ParsingRule {
    /// `NAME@EPOCH`: which rule, in which version.
    pub version: String,
    position: (i64, String),
    /// Programs that it is about, and beginnings of their names; all where there are none.
    programs: Vec<String>,
    beginnings: Vec<String>,
    senders: Option<Prefixes<()>>,
    pattern: Regex,
    /// Groups, and their attributes.
    groups: Vec<(usize, String)>,
    severity: Option<String>,
    body: Option<String>,
}

/// What a rule makes of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// What the groups found.
    pub attributes: BTreeMap<String, String>,
    /// Another severity, 0 (emergency) to 7 (debug).
    pub severity: Option<u8>,
    /// Another message.
    pub body: Option<String>,
}

/// A severity, as people and programs write it.
pub fn severity_of(text: &str) -> Option<u8> {
    let text = text.trim().to_ascii_lowercase();
    let known = |name: &str| SEVERITIES.iter().position(|severity| *severity == name).map(|n| n as u8);
    match text.as_str() {
        "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" => text.parse().ok(),
        "emerg" | "panic" => known("emergency"),
        "crit" | "fatal" => known("critical"),
        "err" | "severe" => known("error"),
        "warn" => known("warning"),
        "information" | "informational" => known("info"),
        "trace" | "verbose" => known("debug"),
        text => known(text),
    }
}

impl ParsingRule {
    /// What a resource says.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn read(rule: &Resource) -> Result<ParsingRule, (&'static str, String)> {
        let text = |field: &str| rule.text(field).filter(|text| !text.is_empty()).map(str::to_owned);
        let expression = grok::expanded(&text("pattern").unwrap_or_default()).map_err(|why| ("pattern", why))?;
        let pattern = RegexBuilder::new(&expression)
            .size_limit(MAX_EXPRESSION)
            .dfa_size_limit(MAX_EXPRESSION)
            .build()
            .map_err(|error| ("pattern", error.to_string()))?;
        let named = pattern.capture_names().enumerate().filter_map(|(n, name)| Some((n, name?.to_owned())));
        let groups: Vec<(usize, String)> = named.collect();
        if groups.is_empty() {
            return Err(("pattern", "it names no group: `%{IP:client}`, or `(?P<client>…)`".to_owned()));
        }
        if pattern.captures_len() > MAX_GROUPS + 1 {
            let why = format!("it has at most {MAX_GROUPS} groups; those that need no name are written (?:…)");
            return Err(("pattern", why));
        }
        let is_known = |name: &str| groups.iter().any(|(_, group)| group == name);
        for field in ["severity", "body"] {
            let said = text(field).unwrap_or_default();
            let mut unknown = None;
            filled(&said, |name| {
                if !is_known(name) {
                    unknown.get_or_insert_with(|| name.to_owned());
                }
                ""
            });
            if let Some(unknown) = unknown {
                return Err((field, format!("the pattern has no group `{unknown}`")));
            }
        }
        if let Some(fixed) = text("severity").filter(|said| !said.contains('{') && severity_of(said).is_none()) {
            return Err(("severity", format!("`{fixed}` is no severity: {}", SEVERITIES.join(", "))));
        }
        let senders = rule.texts("senders");
        let senders = senders.iter().map(|text| Ok((text.parse::<Prefix>()?, ()))).collect::<Result<Vec<_>, String>>();
        let senders = senders.map_err(|why| ("senders", why))?;
        let (mut programs, mut beginnings) = (Vec::new(), Vec::new());
        for program in rule.texts("programs") {
            match program.strip_suffix('*') {
                Some(beginning) => beginnings.push(beginning.to_owned()),
                None => programs.push(program),
            }
        }
        Ok(ParsingRule {
            version: format!("{}@{}", rule.id, rule.epoch),
            position: (rule.number("position").unwrap_or_default(), rule.id.clone()),
            programs,
            beginnings,
            senders: (!senders.is_empty()).then(|| Prefixes::new(senders)),
            pattern,
            groups,
            severity: text("severity"),
            body: text("body"),
        })
    }

    fn is_of_any_program(&self) -> bool {
        self.programs.is_empty() && self.beginnings.is_empty()
    }

    /// Whether it is about what a program of that name and sender says.
    pub fn is_about(&self, program: &str, sender: Option<IpAddr>) -> bool {
        let of_program = self.is_of_any_program()
            || self.programs.iter().any(|name| name == program)
            || self.beginnings.iter().any(|beginning| program.starts_with(beginning));
        let of_sender = |senders: &Prefixes<()>| sender.is_some_and(|ip| senders.find(ip).is_some());
        of_program && self.senders.as_ref().is_none_or(of_sender)
    }

    /// What it makes of a message; `None` where it does not match.
    pub fn parse(&self, body: &str) -> Option<Parsed> {
        let looked = &body[..body.floor_char_boundary(MAX_LOOKED)];
        let found = self.pattern.captures(looked)?;
        let mut room = MAX_VALUES;
        let mut attributes = BTreeMap::new();
        for (n, name) in &self.groups {
            let Some(value) = found.get(*n).map(|found| found.as_str()) else { continue };
            let value = &value[..value.floor_char_boundary(MAX_VALUE.min(room))];
            room -= value.len();
            attributes.insert(name.clone(), value.to_owned());
        }
        let mut room = MAX_VALUE;
        let mut said = |text: &String| {
            filled(text, |name| {
                let value = attributes.get(name).map_or("", String::as_str);
                let value = &value[..value.floor_char_boundary(room)];
                room -= value.len();
                value
            })
        };
        let severity = self.severity.as_ref().and_then(|text| severity_of(&said(text)));
        let body = self.body.as_ref().map(said);
        Some(Parsed { severity, body, attributes })
    }
}

/// The rules of a tenant.
#[derive(Default)]
pub struct ParsingRules {
    of: BTreeMap<(i64, String), ParsingRule>,
    positions: BTreeMap<String, (i64, String)>,
    /// By program, those that name it; the others may be about any.
    by_program: BTreeMap<String, Vec<(i64, String)>>,
    others: Vec<(i64, String)>,
}

impl ParsingRules {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// A rule stands in this form, or no more. One that is switched off, or cannot be read, is none.
    pub fn state(&mut self, name: &str, rule: Option<&Resource>) {
        if let Some(position) = self.positions.remove(name) {
            self.of.remove(&position);
        }
        let rule = rule.filter(|rule| rule.flag("enabled")).and_then(|rule| ParsingRule::read(rule).ok());
        if let Some(rule) = rule {
            self.positions.insert(name.to_owned(), rule.position.clone());
            self.of.insert(rule.position.clone(), rule);
        }
        self.by_program.clear();
        self.others.clear();
        for (position, rule) in &self.of {
            if !rule.beginnings.is_empty() || rule.programs.is_empty() {
                self.others.push(position.clone());
                continue;
            }
            for program in &rule.programs {
                self.by_program.entry(program.clone()).or_default().push(position.clone());
            }
        }
    }

    /// What the first rule that matches makes of a line, and which that is.
    pub fn parse(&self, program: &str, sender: Option<IpAddr>, body: &str) -> Option<(&ParsingRule, Parsed)> {
        // Both lists are in order: the first of either is the first of both.
        let mut named = self.by_program.get(program).into_iter().flatten().peekable();
        let mut others = self.others.iter().peekable();
        loop {
            let next = match (named.peek(), others.peek()) {
                (Some(a), Some(b)) if a < b => named.next(),
                (_, Some(_)) => others.next(),
                (Some(_), None) => named.next(),
                (None, None) => return None,
            };
            let rule = next.and_then(|position| self.of.get(position)).filter(|rule| rule.is_about(program, sender));
            if let Some((rule, parsed)) = rule.and_then(|rule| Some((rule, rule.parse(body)?))) {
                return Some((rule, parsed));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use radarflow_proto::resource::Shown;
    use serde_json::{Value, json};

    use super::*;

    fn resource(name: &str, fields: &Value) -> Resource {
        let mut said = json!({"enabled": true, "position": 0});
        said.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Resource {
            resource: "parsing_rules".into(),
            tenant: "t".into(),
            id: name.into(),
            fields: Shown(said.as_object().unwrap().clone().into_iter().collect()),
            secrets: BTreeMap::new(),
            owner: String::new(),
            created_us: 0,
            created_by: String::new(),
            updated_us: 0,
            updated_by: String::new(),
            epoch: 7,
        }
    }

    fn rules(of: &[(&str, Value)]) -> ParsingRules {
        let mut rules = ParsingRules::default();
        for (name, fields) in of {
            rules.state(name, Some(&resource(name, fields)));
        }
        rules
    }

    const SSHD: &str = r"^Failed password for (?:invalid user )?%{NOTSPACE:user} from %{IP:client} port %{INT:port}";

    #[test]
    fn groups_become_attributes_and_the_rule_says_severity_and_message() {
        let fields = json!({"programs": ["sshd"], "pattern": SSHD, "severity": "warning",
            "body": "login of {user} from {client} failed"});
        let rules = rules(&[("sshd-failed", fields)]);
        let line = "Failed password for invalid user admin from 192.0.2.7 port 4711 ssh2";
        let (rule, parsed) = rules.parse("sshd", None, line).unwrap();
        let of = |name: &str| parsed.attributes[name].as_str();
        assert_eq!((of("user"), of("client"), of("port")), ("admin", "192.0.2.7", "4711"));
        assert_eq!((parsed.severity, parsed.body.as_deref()), (Some(4), Some("login of admin from 192.0.2.7 failed")));
        assert_eq!(rule.version, "sshd-failed@7");
        assert!(rules.parse("cron", None, line).is_none() && rules.parse("sshd", None, "Accepted").is_none());
    }

    #[test]
    fn the_first_that_matches_counts_whichever_list_it_is_in() {
        let of = |position: i64, programs: &[&str], pattern: &str| json!({"position": position, "programs": programs, "pattern": pattern});
        let rules = rules(&[
            ("d", of(4, &["app"], "(?P<d>.)")),
            ("c", of(3, &["ap*"], "(?P<c>x)")),
            ("b", of(2, &["app"], "(?P<b>y)")),
            ("a", of(1, &[], "(?P<a>z)")),
        ]);
        let which = |program: &str, body: &str| {
            rules.parse(program, None, body).map(|(rule, _)| rule.version.chars().next().unwrap())
        };
        assert_eq!(
            ["z", "zy", "yx", "x", "w"].map(|body| which("app", body)),
            [Some('a'), Some('a'), Some('b'), Some('c'), Some('d')]
        );
        assert_eq!(["z", "y", "x"].map(|body| which("apt", body)), [Some('a'), None, Some('c')]);
    }

    #[test]
    fn a_rule_is_about_some_senders_and_one_that_goes_is_gone() {
        let mut rules = rules(&[("a", json!({"senders": ["10.0.0.0/8"], "pattern": "(?P<a>x)"}))]);
        let found = |rules: &ParsingRules, ip: &str| rules.parse("", Some(ip.parse().unwrap()), "x").is_some();
        assert!(found(&rules, "10.1.1.1") && !found(&rules, "192.0.2.1") && rules.parse("", None, "x").is_none());
        rules.state("a", Some(&resource("a", &json!({"enabled": false, "pattern": "(?P<a>x)"}))));
        assert!(rules.is_empty() && !found(&rules, "10.1.1.1"));
    }

    #[test]
    fn severities_are_words_and_numbers_and_may_be_what_a_group_found() {
        let rules = rules(&[("a", json!({"pattern": r"^\[%{WORD:level}\]", "severity": "{level}"}))]);
        let of = |body: &str| rules.parse("", None, body).unwrap().1.severity;
        assert_eq!(["[WARN]", "[fatal]", "[7]", "[loud]"].map(of), [Some(4), Some(2), Some(7), None]);
    }

    #[test]
    fn what_is_looked_at_is_bounded_and_nothing_takes_longer_than_it_is_long() {
        let rules = rules(&[("a", json!({"pattern": "(?P<a>z)"}))]);
        assert!(rules.parse("", None, &format!("{}z", "ä".repeat(MAX_LOOKED))).is_none());
        // Groups within groups say no more than so much together.
        let nested = (0..12).fold("(?s:.*)".to_owned(), |inner, n| format!("(?P<g{n}>{inner})"));
        let nested = self::rules(&[("a", json!({"pattern": nested, "body": "{g11}{g10}{g9}"}))]);
        let (_, parsed) = nested.parse("", None, &"x".repeat(100_000)).unwrap();
        assert_eq!(parsed.attributes.values().map(String::len).sum::<usize>(), MAX_VALUES);
        assert_eq!((parsed.attributes.len(), parsed.body.map(|body| body.len())), (12, Some(MAX_VALUE)));
        // Neither groups nor states are without bound, whatever they are called.
        for hostile in [format!("(?P<a>x){}.*", "()".repeat(1300)), r"(?P<a>(?:\w{50}){50})".to_owned()] {
            let read = ParsingRule::read(&resource("a", &json!({"pattern": hostile})));
            assert_eq!(read.err().map(|(field, _)| field), Some("pattern"), "{hostile:.40}");
        }
    }

    #[test]
    fn the_patterns_of_every_day_fit() {
        for pattern in [
            SSHD,
            r#"^%{IPORHOST:client} \S+ %{NOTSPACE:user} \[[^\]]+\] "%{WORD:method} %{NOTSPACE:path} HTTP/%{NUMBER:version}" %{INT:status} (?:%{INT:bytes}|-)"#,
            r"^%{TIMESTAMP_ISO8601:at} %{LOGLEVEL:level} \[%{DATA:thread}\] %{HOSTNAME:host} %{GREEDYDATA:text}$",
            r"Deny %{WORD:protocol} src %{WORD:src_zone}:%{IP:src}/%{INT:src_port} dst %{WORD:dst_zone}:%{IP:dst}/%{INT:dst_port}",
            r"lease %{IP:address} to %{MAC:mac}(?: \(%{HOSTNAME:name}\))?",
        ] {
            assert!(ParsingRule::read(&resource("a", &json!({"pattern": pattern}))).is_ok(), "{pattern}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_field() {
        let wrong = |fields: Value| ParsingRule::read(&resource("a", &fields)).err().unwrap();
        assert_eq!(wrong(json!({"pattern": "x"})).0, "pattern");
        assert_eq!(wrong(json!({"pattern": "(?P<a>"})).0, "pattern");
        assert_eq!(wrong(json!({"pattern": "(?P<a>\\w{1000}){1000}"})).0, "pattern");
        assert!(wrong(json!({"pattern": "%{IPS:a}"})).1.contains("IP"));
        assert_eq!(
            wrong(json!({"pattern": "(?P<a>x)", "body": "{b}"})),
            ("body", "the pattern has no group `b`".to_owned())
        );
        assert_eq!(wrong(json!({"pattern": "(?P<a>x)", "severity": "loud"})).0, "severity");
        assert_eq!(wrong(json!({"pattern": "(?P<a>x)", "senders": ["10/8"]})).0, "senders");
    }
}
