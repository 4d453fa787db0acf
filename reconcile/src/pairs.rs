//! Clear pairs: a trap that begins something, and one that ends it.
//!
//! What it is about is where the trap came from, and what its bindings say of `about`: an interface, a fan, a peer. A trap that
//! lacks one of these is about nothing that could end, and begins nothing. `linkDown` and `linkUp` are a pair without being
//! stated ([`builtin`]); one of its name takes its place.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use radarflow_proto::resource::Resource;
use radarflow_proto::snmp::{IF_INDEX, LINK_DOWN, LINK_UP, Trap};

use crate::alert::{Condition, Subject};
use crate::rules::rule::filled as filled_in;

/// Object identifiers of one list.
pub const MAX_OIDS: usize = 64;
/// Bindings that tell what it is about.
pub const MAX_ABOUT: usize = 8;
/// Octets of a title and of a description, filled.
const MAX_TEXT: usize = 1000;
/// Octets of a binding that a name and a label have.
const MAX_VALUE: usize = 128;

/// A clear pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    name: String,
    begins: BTreeSet<String>,
    ends: BTreeSet<String>,
    /// Labels, and the objects whose bindings they are of.
    about: Vec<(String, String)>,
    severity: String,
    title: String,
    description: String,
}

/// The pair of interfaces.
pub fn builtin() -> Pair {
    let texts = |text: &str| BTreeSet::from([text.to_owned()]);
    Pair {
        name: "link-down".to_owned(),
        begins: texts(LINK_DOWN),
        ends: texts(LINK_UP),
        about: vec![("if_index".to_owned(), IF_INDEX.to_owned())],
        severity: "warning".to_owned(),
        title: "Interface {if_index} of {source} is down".to_owned(),
        description: "linkDown trap from {source}, interface {if_index}".to_owned(),
    }
}

fn is_oid(text: &str) -> bool {
    text.contains('.') && text.split('.').all(|arc| arc.parse::<u32>().is_ok())
}

impl Pair {
    /// What a resource says.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn of(resource: &Resource) -> Result<Pair, (&'static str, String)> {
        let oids = |field: &'static str| {
            let oids = resource.texts(field);
            let wrong = oids.iter().find(|oid| !is_oid(oid));
            match wrong {
                Some(wrong) => Err((field, format!("`{wrong}` is no object identifier, as 1.3.6.1.6.3.1.1.5.3 is"))),
                None if oids.is_empty() => Err((field, "one trap at least".to_owned())),
                None => Ok(oids.into_iter().collect::<BTreeSet<_>>()),
            }
        };
        let (begins, ends) = (oids("begins")?, oids("ends")?);
        if let Some(both) = begins.intersection(&ends).next() {
            return Err(("ends", format!("{both} begins it already")));
        }
        let about = |text: &String| {
            let (label, oid) = text.split_once('=').unwrap_or_default();
            let is_label = !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let why = || ("about", format!("`{text}` is no LABEL=OBJECT, as if_index=1.3.6.1.2.1.2.2.1.1 is"));
            (is_label && is_oid(oid)).then(|| (label.to_owned(), oid.to_owned())).ok_or_else(why)
        };
        let about = resource.texts("about").iter().map(about).collect::<Result<Vec<_>, _>>()?;
        let text = |field: &str| resource.text(field).unwrap_or_default().to_owned();
        let title = text("title");
        let title = if title.is_empty() { format!("{} of {{source}}", resource.id) } else { title };
        let name = resource.id.clone();
        Ok(Pair { name, begins, ends, about, severity: text("severity"), title, description: text("description") })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The traps that it is of.
    pub fn traps(&self) -> impl Iterator<Item = &str> {
        self.begins.iter().chain(&self.ends).map(String::as_str)
    }

    /// Whether what one began the other can end.
    pub fn is_like(&self, other: &Pair) -> bool {
        (&self.begins, &self.ends, &self.about) == (&other.begins, &other.ends, &other.about)
    }

    /// What a trap of the pair begins or, without a condition, ends; nothing where it does not say what it is about.
    pub fn told(
        &self,
        tenant: &str,
        partition: &str,
        source: IpAddr,
        trap: &Trap,
    ) -> Option<(Subject, Option<Condition>)> {
        let mut labels = BTreeMap::new();
        let mut entity = source.to_string();
        for (label, object) in &self.about {
            let is_of = |oid: &str| oid.strip_prefix(object.as_str()).is_some_and(|rest| rest.starts_with('.'));
            let (_, value) = trap.varbinds.iter().find(|(oid, _)| is_of(oid) || *oid == object)?;
            let value = value.trim();
            // What is no number is no interface, however it is written.
            let value = match object.as_str() {
                IF_INDEX => value.parse::<u32>().ok()?.to_string(),
                _ => value[..value.floor_char_boundary(MAX_VALUE)].to_owned(),
            };
            entity = format!("{entity}/{value}");
            labels.insert(label.clone(), value);
        }
        let (tenant, partition, rule) = (tenant.to_owned(), partition.to_owned(), self.name.clone());
        let subject = Subject { tenant, partition, rule, entity };
        if !self.begins.contains(&trap.trap_oid) {
            return Some((subject, None));
        }
        let ip = source.to_string();
        let filled = |text: &str| {
            // What a sender says is filled in once, and not looked at again.
            let mut text = filled_in(text, |name| match name {
                "source" => &ip,
                name => labels.get(name).map_or("", String::as_str),
            });
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text
        };
        let condition = Condition {
            rule: subject.rule.clone(),
            severity: self.severity.clone(),
            title: filled(&self.title),
            description: filled(&self.description),
            source_type: "trap".to_owned(),
            source_id: subject.entity.clone(),
            labels: labels.clone().into_iter().chain([("ip".to_owned(), ip.clone())]).collect(),
            ..Condition::default()
        };
        Some((subject, Some(condition)))
    }
}

#[cfg(test)]
mod tests {
    use radarflow_proto::resource::Shown;
    use serde_json::json;

    use super::*;

    fn stated(fields: &serde_json::Value) -> Result<Pair, (&'static str, String)> {
        Pair::of(&Resource {
            resource: "clear_pairs".into(),
            tenant: "t".into(),
            id: "fan".into(),
            fields: Shown(fields.as_object().unwrap().clone().into_iter().collect()),
            secrets: BTreeMap::new(),
            owner: String::new(),
            created_us: 0,
            created_by: String::new(),
            updated_us: 0,
            updated_by: String::new(),
            epoch: 1,
        })
    }

    fn trap(oid: &str, bindings: &[(&str, &str)]) -> Trap {
        let varbinds = bindings.iter().map(|(oid, value)| ((*oid).to_owned(), (*value).to_owned())).collect();
        Trap {
            version: 2,
            inform: false,
            request_id: 0,
            community: vec![],
            said_by: None,
            uptime: None,
            trap_oid: oid.to_owned(),
            agent_address: None,
            varbinds,
        }
    }

    #[test]
    fn what_is_about_one_thing_is_ended_by_what_is_about_the_same() {
        let pair = stated(&json!({"begins": ["1.3.6.1.4.1.9.1"], "ends": ["1.3.6.1.4.1.9.2"], "severity": "critical",
            "about": ["shelf=1.3.6.1.4.1.9.7", "fan=1.3.6.1.4.1.9.8"], "title": "Fan {fan} of {source}"}))
        .unwrap();
        let source = "10.0.0.1".parse().unwrap();
        let of = |oid: &str, bindings: &[(&str, &str)]| pair.told("t", "p", source, &trap(oid, bindings));
        let both = [("1.3.6.1.4.1.9.8.3", " 3 "), ("1.3.6.1.4.1.9.7.1", "1"), ("1.3.6.1.4.1.9.80.1", "x")];
        let (subject, condition) = of("1.3.6.1.4.1.9.1", &both).unwrap();
        let condition = condition.unwrap();
        assert_eq!((subject.entity.as_str(), condition.title.as_str()), ("10.0.0.1/1/3", "Fan 3 of 10.0.0.1"));
        assert_eq!((condition.severity.as_str(), condition.labels["shelf"].as_str()), ("critical", "1"));
        assert_eq!(of("1.3.6.1.4.1.9.2", &both), Some((subject, None)));
        assert_eq!(of("1.3.6.1.4.1.9.1", &both[..1]), None);
    }

    #[test]
    fn braces_that_a_sender_says_mean_nothing() {
        let about: Vec<String> = (0..8u8).map(|n| format!("{}=1.3.{n}", char::from(b'a' + n))).collect();
        let pair = stated(&json!({"begins": ["1.4"], "ends": ["1.5"], "about": about, "title": "{a} at {source}"}));
        let values: Vec<(String, String)> =
            (0..8u8).map(|n| (format!("1.3.{n}.1"), format!("{{{}}}", char::from(b'b' + n)).repeat(42))).collect();
        let bindings: Vec<(&str, &str)> = values.iter().map(|(oid, value)| (oid.as_str(), value.as_str())).collect();
        let source = "10.0.0.1".parse().unwrap();
        let (_, condition) = pair.unwrap().told("t", "p", source, &trap("1.4", &bindings)).unwrap();
        assert_eq!(condition.unwrap().title, format!("{} at 10.0.0.1", "{b}".repeat(42)));
    }

    #[test]
    fn what_is_no_number_is_no_interface() {
        let source = "10.0.0.1".parse().unwrap();
        let of = |index: &str| {
            builtin()
                .told("t", "p", source, &trap(LINK_DOWN, &[("1.3.6.1.2.1.2.2.1.1.3", index)]))
                .map(|told| told.0.entity)
        };
        assert_eq!((of(" 03 ").as_deref(), of("three"), of("-1")), (Some("10.0.0.1/3"), None, None));
    }

    #[test]
    fn what_is_wrong_is_told_by_field() {
        let wrong = |fields: serde_json::Value| stated(&fields).unwrap_err();
        assert_eq!(wrong(json!({"ends": ["1.2"]})).0, "begins");
        assert_eq!(wrong(json!({"begins": ["linkDown"], "ends": ["1.2"]})).0, "begins");
        assert_eq!(wrong(json!({"begins": ["1.2"], "ends": ["1.2"]})), ("ends", "1.2 begins it already".to_owned()));
        assert_eq!(wrong(json!({"begins": ["1.2"], "ends": ["1.3"], "about": ["1.2"]})).0, "about");
    }
}
