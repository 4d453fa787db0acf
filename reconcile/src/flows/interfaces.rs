//! Rules that tell what an interface is, by its exporter, its number, and what it is called.

use std::collections::BTreeMap;

use radarflow_proto::flow::tables::{ExporterEntry, Interface, InterfaceRule};
use regex::{Regex, RegexBuilder};

/// Longest regular expression of a rule, compiled, bytes.
const MAX_REGEX: usize = 1 << 20;
/// Bytes of what a rule makes.
const MAX_MADE: usize = 256;

/// What a rule may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    ExporterName,
    ExporterGroup,
    ExporterRole,
    ExporterSite,
    ExporterRegion,
    Index,
    Name,
    Description,
}

/// A rule, ready to be asked.
#[derive(Debug)]
pub(super) struct Matcher {
    rule_id: String,
    when: Vec<(Looked, Vec<Pattern>)>,
    set: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Pattern {
    Number(u32),
    Found(Regex),
}

impl Pattern {
    fn new(looked: Looked, text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("a pattern is empty".to_owned());
        }
        if looked == Looked::Index {
            return text.parse().map(Pattern::Number).map_err(|_| format!("`{text}` is no number of an interface"));
        }
        let inside = text.strip_prefix('/').and_then(|t| t.strip_suffix('/')).filter(|t| !t.is_empty());
        let regex = inside.map_or_else(|| regex::escape(text), str::to_owned);
        let built = RegexBuilder::new(&regex).case_insensitive(true).size_limit(MAX_REGEX).build();
        // Of what it says, the last line says why.
        let why = |e: regex::Error| e.to_string().lines().last().unwrap_or_default().trim().to_owned();
        built.map(Pattern::Found).map_err(|e| format!("`{text}` is no regular expression: {}", why(e)))
    }
}

fn looked(field: &str) -> Option<Looked> {
    Some(match field {
        "exporter_name" => Looked::ExporterName,
        "exporter_group" => Looked::ExporterGroup,
        "exporter_role" => Looked::ExporterRole,
        "exporter_site" => Looked::ExporterSite,
        "exporter_region" => Looked::ExporterRegion,
        "index" => Looked::Index,
        "name" => Looked::Name,
        "description" => Looked::Description,
        _ => return None,
    })
}

fn check_set(field: &str, value: &str) -> Result<(), String> {
    match field {
        "name" | "description" | "provider" | "connectivity" => Ok(()),
        "boundary" if matches!(value, "internal" | "external") => Ok(()),
        "boundary" => Err(format!("`{value}` is no boundary: `internal` and `external` are")),
        "speed_bps" if value.parse::<i64>().is_ok_and(|n| n > 0) => Ok(()),
        "speed_bps" => Err(format!("`{value}` is no number of bits per second")),
        _ => Err(format!("`{field}` is nothing that a rule can set")),
    }
}

impl Matcher {
    pub(super) fn new(rule: &InterfaceRule) -> Result<Self, String> {
        let mut when = Vec::new();
        for (field, patterns) in &rule.when {
            let looked = looked(field).ok_or_else(|| format!("`{field}` is nothing that a rule can look at"))?;
            let patterns = patterns.0.iter().map(|text| Pattern::new(looked, text)).collect::<Result<Vec<_>, _>>()?;
            when.push((looked, patterns));
        }
        rule.set.iter().try_for_each(|(field, value)| check_set(field, value))?;
        Ok(Matcher { rule_id: rule.rule_id.clone(), when, set: rule.set.clone() })
    }

    /// What it tells of an interface, if it matches.
    pub(super) fn told(
        &self,
        exporter: Option<&ExporterEntry>,
        index: u32,
        name: &str,
        description: &str,
    ) -> Option<Interface> {
        let of_exporter = |field: fn(&ExporterEntry) -> &Option<String>| exporter.and_then(|e| field(e).as_deref());
        // What the expressions matched that matched the description, and the name.
        let (mut of_description, mut of_name) = (None, None);
        for (looked, patterns) in &self.when {
            let text = match looked {
                Looked::ExporterName => of_exporter(|e| &e.name),
                Looked::ExporterGroup => of_exporter(|e| &e.group),
                Looked::ExporterRole => of_exporter(|e| &e.role),
                Looked::ExporterSite => of_exporter(|e| &e.site),
                Looked::ExporterRegion => of_exporter(|e| &e.region),
                Looked::Index => None,
                Looked::Name => Some(name),
                Looked::Description => Some(description),
            };
            let matched = patterns.iter().find_map(|pattern| match pattern {
                Pattern::Number(n) => (*n == index).then_some(None),
                Pattern::Found(regex) => regex.captures(text?).map(Some),
            })?;
            match looked {
                Looked::Description => of_description = matched,
                Looked::Name => of_name = matched,
                _ => {}
            }
        }
        let captures = of_description.or(of_name);
        let set = |field: &str| {
            let value = self.set.get(field)?;
            let mut made = String::new();
            match &captures {
                Some(captures) => captures.expand(value, &mut made),
                None => made.push_str(value),
            }
            made.truncate(made.floor_char_boundary(MAX_MADE));
            let made = made.trim();
            (!made.is_empty()).then(|| made.to_owned())
        };
        Some(Interface {
            rule_id: self.rule_id.clone(),
            name: set("name"),
            description: set("description"),
            speed_bps: set("speed_bps").and_then(|text| text.parse().ok()),
            boundary: set("boundary"),
            provider: set("provider"),
            connectivity: set("connectivity"),
        })
    }
}

#[cfg(test)]
mod tests {
    use radarflow_proto::enrich::Patterns;

    use super::*;

    fn rule(when: &[(&str, &[&str])], set: &[(&str, &str)]) -> InterfaceRule {
        let patterns = |of: &[&str]| Patterns(of.iter().map(|text| (*text).to_owned()).collect());
        InterfaceRule {
            rule_id: "r".to_owned(),
            tenant: "t".to_owned(),
            when: when.iter().map(|(field, of)| ((*field).to_owned(), patterns(of))).collect(),
            set: set.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn a_rule_tells_what_it_finds_in_a_description() {
        let set =
            [("boundary", "external"), ("provider", "$1"), ("connectivity", "transit"), ("speed_bps", "10000000000")];
        let when: [(&str, &[&str]); 2] = [("description", &["/^transit: (\\S+)/"]), ("exporter_role", &["edge"])];
        let matcher = Matcher::new(&rule(&when, &set)).unwrap();
        let edge = ExporterEntry { role: Some("edge".to_owned()), ..ExporterEntry::default() };
        let told = matcher.told(Some(&edge), 5, "ge-0/0/5", "Transit: Example #4711").unwrap();
        assert_eq!((told.provider.as_deref(), told.connectivity.as_deref()), (Some("Example"), Some("transit")));
        assert_eq!(
            (told.boundary.as_deref(), told.speed_bps, told.name),
            (Some("external"), Some(10_000_000_000), None)
        );
        // Every field must match, and somebody must be known to match by.
        assert_eq!(matcher.told(Some(&edge), 5, "ge-0/0/5", "core"), None);
        assert_eq!(matcher.told(None, 5, "ge-0/0/5", "Transit: Example"), None);
    }

    #[test]
    fn numbers_and_names_match_too() {
        let when: [(&str, &[&str]); 1] = [("index", &["7", "8"])];
        let matcher = Matcher::new(&rule(&when, &[("name", "uplink $1")])).unwrap();
        assert_eq!(matcher.told(None, 8, "", "").unwrap().name.as_deref(), Some("uplink $1"));
        assert_eq!(matcher.told(None, 9, "", ""), None);
        let when: [(&str, &[&str]); 1] = [("name", &["/^ge-(\\d+)/"])];
        let matcher = Matcher::new(&rule(&when, &[("name", "slot $1")])).unwrap();
        assert_eq!(matcher.told(None, 8, "ge-3/0", "").unwrap().name.as_deref(), Some("slot 3"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let wrong = |when: &[(&str, &[&str])], set: &[(&str, &str)]| Matcher::new(&rule(when, set)).unwrap_err();
        assert_eq!(wrong(&[("colour", &["red"])], &[]), "`colour` is nothing that a rule can look at");
        assert_eq!(wrong(&[("index", &["x"])], &[]), "`x` is no number of an interface");
        assert_eq!(wrong(&[], &[("boundary", "outer")]), "`outer` is no boundary: `internal` and `external` are");
        assert_eq!(wrong(&[], &[("speed_bps", "fast")]), "`fast` is no number of bits per second");
        assert_eq!(wrong(&[], &[("colour", "red")]), "`colour` is nothing that a rule can set");
        assert!(wrong(&[("name", &["/(/"])], &[]).starts_with("`/(/` is no regular expression: "));
    }
}
