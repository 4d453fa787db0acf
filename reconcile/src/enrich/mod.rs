//! What devices are, told by what is known of them: rules over SNMP's sysObjectID and sysDescr, names, MACs. And the
//! vendor of a MAC, from the registries of IEEE, where nobody says who made the device.
//!
//! Of the rules that match, the one of greatest priority sets a field (of equal ones, the first by `rule_id`). What a
//! rule reads in polled values is trusted as those are ([`POLLED`]), above inventories; what it reads in names or MACs
//! only fills what nobody says ([`GUESSED`]). The device says which rule set which field.
//!
//! Rules are data: the built-in ones (`builtin.yaml`) and those of files, which replace built-in ones of their `rule_id`
//! ([`file`]).

pub mod file;

use std::collections::BTreeMap;

use radarflow_proto::enrich::Rule;
use radarflow_proto::rows::Device;
use regex::{Regex, RegexBuilder};

use crate::inventory::Described;

/// How far a value read from polled ones is trusted: SNMP says what the device says of itself.
pub const POLLED: u8 = 9;
/// How far any other is.
pub const GUESSED: u8 = 1;
/// The rule that names a vendor by MAC.
pub const OUI: &str = "oui";
/// Longest regular expression of a rule, compiled, bytes.
const MAX_REGEX: usize = 1 << 20;
/// Characters of a polled text that rules look at.
const MAX_TEXT: usize = 4096;

/// The fields that rules set, in the order of [`Described::trust`].
pub const FIELDS: [&str; 4] = ["type", "vendor_name", "model", "os"];

/// Where mappers put what SNMP said, by field of rules.
const POLLED_KEYS: [(&str, &[&str]); 3] = [
    ("sys_object_id", &["sys_object_id", "sysObjectID", "sys_object_oid", "sys_oid"]),
    ("sys_descr", &["sys_descr", "sysDescr"]),
    ("sys_name", &["sys_name", "sysName"]),
];

/// What a rule asks of one field.
#[derive(Clone, Debug)]
enum Pattern {
    /// An object identifier at or under this one.
    Under(String),
    /// A MAC that begins so.
    Prefix(String),
    /// A text in which this is found.
    Found(Regex),
}

impl Pattern {
    fn new(field: &str, text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err(format!("`{field}` has an empty pattern"));
        }
        match field {
            "sys_object_id" => {
                let oid = text.trim_start_matches('.').trim_end_matches(".*").trim_end_matches('.');
                if oid.split('.').any(|arc| arc.parse::<u32>().is_err()) {
                    return Err(format!("`{text}` is no object identifier"));
                }
                Ok(Pattern::Under(oid.to_owned()))
            }
            "mac" => {
                let hex: String = text.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
                if hex.len() > 12 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(format!("`{text}` is no beginning of a MAC"));
                }
                Ok(Pattern::Prefix(hex.to_ascii_uppercase()))
            }
            _ => {
                let inside = text.strip_prefix('/').and_then(|t| t.strip_suffix('/')).filter(|t| !t.is_empty());
                let regex = inside.map_or_else(|| regex::escape(text), str::to_owned);
                let built = RegexBuilder::new(&regex).case_insensitive(true).size_limit(MAX_REGEX).build();
                // Of what it says, the last line says why.
                let why = |e: regex::Error| e.to_string().lines().last().unwrap_or_default().trim().to_owned();
                built.map(Pattern::Found).map_err(|e| format!("`{text}` is no regular expression: {}", why(e)))
            }
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Pattern::Under(oid) => {
                let rest = value.trim_start_matches('.').strip_prefix(oid.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
            Pattern::Prefix(hex) => value.starts_with(hex.as_str()),
            Pattern::Found(regex) => regex.is_match(value),
        }
    }
}

/// The fields that rules may look at.
const READ: [&str; 9] =
    ["sys_object_id", "sys_descr", "sys_name", "hostname", "name", "vendor_name", "model", "os", "mac"];

struct Compiled {
    rule_id: String,
    when: Vec<(String, Vec<Pattern>)>,
    set: BTreeMap<String, String>,
    /// Reads what was polled.
    polled: bool,
}

/// Rules, ready to be asked; those of greatest priority first.
#[derive(Default)]
pub struct Rules(Vec<Compiled>);

/// What is wrong with a rule.
///
/// # Errors
/// What is wrong with it.
pub fn check(rule: &Rule) -> Result<(), String> {
    compile(rule).map(|_| ())
}

fn compile(rule: &Rule) -> Result<Compiled, String> {
    if rule.rule_id.trim().is_empty() {
        return Err("it has no `rule_id`".to_owned());
    }
    if rule.when.is_empty() {
        return Err("`when` is empty: it would match every device".to_owned());
    }
    if rule.set.is_empty() {
        return Err("`set` is empty".to_owned());
    }
    if let Some(field) = rule.set.keys().find(|f| !FIELDS.contains(&f.as_str())) {
        return Err(format!("`set` knows no `{field}`; it knows {}", FIELDS.join(", ")));
    }
    let mut when = Vec::new();
    for (field, patterns) in &rule.when {
        if !READ.contains(&field.as_str()) {
            return Err(format!("`when` knows no `{field}`; it knows {}", READ.join(", ")));
        }
        if patterns.0.is_empty() {
            return Err(format!("`{field}` has no pattern"));
        }
        let patterns = patterns.0.iter().map(|p| Pattern::new(field, p)).collect::<Result<_, _>>()?;
        when.push((field.clone(), patterns));
    }
    let polled = rule.when.keys().any(|f| f.starts_with("sys_"));
    Ok(Compiled { rule_id: rule.rule_id.clone(), when, set: rule.set.clone(), polled })
}

impl Rules {
    /// Compiles rules; those that do not compile are left out, for whoever made the facts has been told of them.
    pub fn new(rules: &[Rule]) -> Self {
        let mut rules: Vec<&Rule> = rules.iter().filter(|r| r.enabled).collect();
        rules.sort_by(|a, b| (-a.priority, &a.rule_id).cmp(&(-b.priority, &b.rule_id)));
        Rules(rules.into_iter().filter_map(|rule| compile(rule).ok()).collect())
    }

    /// The device's row with what the rules say of it.
    pub fn enrich(&self, described: Described) -> Device {
        let Described { mut device, trust } = described;
        let mut by: BTreeMap<String, String> = BTreeMap::new();
        let mut set: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        let polled = |field: &str| -> Option<&str> {
            let (_, keys) = POLLED_KEYS.iter().find(|(name, _)| *name == field)?;
            keys.iter().find_map(|key| device.metadata.0.get(*key)).map(String::as_str)
        };
        let has_polled = POLLED_KEYS.iter().any(|(field, _)| polled(field).is_some());
        let value = |field: &str| -> Option<&str> {
            match field {
                "hostname" => device.hostname.as_deref(),
                "name" => device.name.as_deref(),
                "vendor_name" => device.vendor_name.as_deref(),
                "model" => device.model.as_deref(),
                "os" => device.os.as_deref(),
                "mac" => device.mac.as_deref(),
                _ => polled(field),
            }
        };
        for rule in self.0.iter().filter(|rule| has_polled || !rule.polled) {
            let matches = rule.when.iter().all(|(field, patterns)| {
                let value = value(field).map(|v| cut(v, MAX_TEXT));
                value.is_some_and(|value| patterns.iter().any(|p| p.matches(value)))
            });
            if !matches {
                continue;
            }
            for (n, field) in FIELDS.iter().enumerate() {
                let trusted = if rule.polled { POLLED } else { GUESSED };
                if let Some(value) = rule.set.get(*field).filter(|_| trusted > trust[n]) {
                    set.entry(field).or_insert((value, &rule.rule_id));
                }
            }
        }
        let vendor = device.mac.as_deref().filter(|_| device.vendor_name.is_none()).and_then(oui);
        let fields = [
            ("type", &mut device.r#type),
            ("vendor_name", &mut device.vendor_name),
            ("model", &mut device.model),
            ("os", &mut device.os),
        ];
        for (field, slot) in fields {
            if let Some((value, rule)) = set.get(field) {
                *slot = Some((*value).to_owned());
                by.insert(field.to_owned(), (*rule).to_owned());
            }
        }
        if device.vendor_name.is_none()
            && let Some(vendor) = vendor
        {
            device.vendor_name = Some(vendor.to_owned());
            by.insert("vendor_name".to_owned(), OUI.to_owned());
        }
        device.enriched_by.0 = by;
        device
    }
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// Who made a device of that MAC (twelve upper-case hex digits). Of a local one nobody knows.
pub fn oui(mac: &str) -> Option<&'static str> {
    let local = u8::from_str_radix(mac.get(..2)?, 16).ok()? & 2 != 0;
    if local { None } else { oui_data::lookup(mac).map(|found| found.organization()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Parts, describe};
    use radarflow_proto::cell::Time;
    use radarflow_proto::record::{Record, RecordKey, SourceKind};

    fn record(kind: SourceKind, macs: &[&str], attributes: &[(&str, &str)], metadata: &[(&str, &str)]) -> Record {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Record {
            key: RecordKey { tenant: "t".into(), kind, instance: "i".into(), partition: None, key: "k".into() },
            partition: "default".into(),
            event_time: Time(1),
            deleted: false,
            ids: vec![],
            macs: macs.iter().map(|m| (*m).to_owned()).collect(),
            macs_shown: vec![],
            ips: vec![],
            hostname: Some("core-sw1".into()),
            attributes: map(attributes),
            metadata: map(metadata),
            dropped: vec![],
        }
    }

    fn enriched(rules: &Rules, records: &[Record]) -> Device {
        let parts = Parts::of("sr:x", records.iter().collect());
        rules.enrich(describe(&parts).unwrap())
    }

    fn rules(yaml: &str) -> Rules {
        let (rules, bad) = file::read("test.yaml", yaml);
        assert!(bad.is_empty(), "{bad:?}");
        Rules::new(&rules)
    }

    #[test]
    fn the_built_in_rules_are_valid_and_know_common_devices() {
        let rules = Rules::new(&file::builtin());
        let polled = |oid: &str, descr: &str| {
            let said = [("sys_object_id", oid), ("sys_descr", descr)];
            let device = enriched(&rules, &[record(SourceKind::Mapper, &[], &[], &said)]);
            (device.vendor_name.unwrap_or_default(), device.r#type.unwrap_or_default(), device.os.unwrap_or_default())
        };
        let is = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            polled(
                "1.3.6.1.4.1.9.1.1208",
                "Cisco IOS Software, C2960X Software (C2960X-UNIVERSALK9-M), Version 15.2(2)E7"
            ),
            is("Cisco", "switch", "IOS")
        );
        assert_eq!(
            polled(".1.3.6.1.4.1.2636.1.1.1.2.29", "Juniper Networks, Inc. mx240 internet router, kernel JUNOS 18.4R2"),
            is("Juniper Networks", "router", "Junos")
        );
        assert_eq!(polled("1.3.6.1.4.1.14988.1", "RouterOS CCR1009-7G-1C-1S+"), is("MikroTik", "router", "RouterOS"));
        assert_eq!(polled("1.3.6.1.4.1.12356.101.1.641", "").0, "Fortinet");
        assert_eq!(polled("1.3.6.1.4.1.8072.3.2.10", "Linux farm01 6.1.0-13-amd64 #1 SMP").2, "Linux");
        // Ninety is not nine.
        assert_eq!(polled("1.3.6.1.4.1.90.1", ""), is("", "", ""));
    }

    #[test]
    fn greatest_priority_wins_and_the_device_says_who() {
        let rules = rules(
            "rules:\n  - rule_id: b\n    priority: 5\n    when: {sys_descr: widget}\n    set: {type: router, os: B}\n  \
             - rule_id: a\n    priority: 5\n    when: {sys_descr: [nothing, /WID.ET/]}\n    set: {type: switch}\n  \
             - rule_id: off\n    priority: 9\n    enabled: false\n    when: {sys_descr: widget}\n    set: {type: toaster}\n",
        );
        let said = record(SourceKind::Mapper, &[], &[("type", "printer")], &[("sysDescr", "a Widget")]);
        let device = enriched(&rules, &[said]);
        assert_eq!((device.r#type.as_deref(), device.os.as_deref()), (Some("switch"), Some("B")));
        let by: Vec<_> = device.enriched_by.0.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(by, [("os", "b"), ("type", "a")]);
    }

    #[test]
    fn what_nobody_polled_only_fills_gaps() {
        let rules = rules("rules:\n  - {rule_id: n, when: {hostname: /^core-/}, set: {type: switch, model: M}}\n");
        let device = enriched(&rules, &[record(SourceKind::Armis, &[], &[("type", "server")], &[])]);
        assert_eq!((device.r#type.as_deref(), device.model.as_deref()), (Some("server"), Some("M")));
    }

    #[test]
    fn a_mac_names_the_vendor_where_nobody_does() {
        let rules = Rules::default();
        let of = |mac: &str, vendor: &[(&str, &str)]| {
            let device = enriched(&rules, &[record(SourceKind::Armis, &[mac], vendor, &[])]);
            (device.vendor_name, device.enriched_by.0.get("vendor_name").cloned())
        };
        assert_eq!(of("50A6D8000001", &[]), (Some("Apple, Inc.".to_owned()), Some("oui".to_owned())));
        assert_eq!(of("50A6D8000001", &[("vendor_name", "Dell")]), (Some("Dell".to_owned()), None));
        // The same bytes with the local bit belong to nobody.
        assert_eq!(of("52A6D8000001", &[]), (None, None));
    }
}
