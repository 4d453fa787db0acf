//! Fields that hold codes: a query takes the number or the label, of flags the name of a bit. Labels are taken in any
//! case and in their common forms (`warn`, `err`, `fatal`), whether the table holds the number or the label.

use radarflow_proto::flow::names;
use radarflow_proto::syslog::SEVERITIES;

/// What the numbers of a field mean.
#[derive(Clone, Copy, Debug)]
pub enum Codes {
    /// Each is something; a label may be several.
    Labels(fn(&str) -> Vec<i64>, fn() -> Vec<String>),
    /// Each bit is something.
    Flags(&'static [(&'static str, i64)]),
}

/// TCP flags (RFC 9293 section 3.1).
const TCP_FLAGS: &[(&str, i64)] =
    &[("fin", 1), ("syn", 2), ("rst", 4), ("psh", 8), ("ack", 16), ("urg", 32), ("ece", 64), ("cwr", 128)];

/// Syslog facilities, by number (RFC 5424 section 6.2.1).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Ethernet types (IEEE 802 numbers).
const ETHER_TYPES: &[(&str, i64)] = &[("ipv4", 0x0800), ("arp", 0x0806), ("ipv6", 0x86dd), ("mpls", 0x8847)];

/// Severities of OCSF.
const OCSF_SEVERITIES: &[(&str, i64)] = &[
    ("unknown", 0),
    ("informational", 1),
    ("info", 1),
    ("low", 2),
    ("notice", 2),
    ("medium", 3),
    ("warning", 3),
    ("warn", 3),
    ("high", 4),
    ("error", 4),
    ("err", 4),
    ("critical", 5),
    ("crit", 5),
    ("fatal", 6),
    ("other", 99),
];

/// Kinds of spans (OpenTelemetry).
const SPAN_KINDS: [&str; 6] = ["unspecified", "internal", "server", "client", "producer", "consumer"];

/// Other forms of the severities of syslog. OpenTelemetry's `fatal` is every one worse than an error.
const SEVERITY_FORMS: &[(&str, &[&str])] = &[
    ("emerg", &["emergency"]),
    ("panic", &["emergency"]),
    ("crit", &["critical"]),
    ("fatal", &["emergency", "alert", "critical"]),
    ("err", &["error"]),
    ("warn", &["warning"]),
    ("information", &["info"]),
    ("informational", &["info"]),
    ("trace", &["debug"]),
];

/// Other forms of the names of protocols.
const PROTOCOL_FORMS: &[(&str, &str)] = &[("icmp6", "ipv6-icmp"), ("icmpv6", "ipv6-icmp"), ("ipv6icmp", "ipv6-icmp")];

fn protocol_name(number: u8) -> String {
    names::protocol(number).into_owned()
}

fn place(of: &[&str], label: &str) -> Option<i64> {
    of.iter().position(|known| known.eq_ignore_ascii_case(label)).map(|n| n as i64)
}

fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|label| (*label).to_owned()).collect()
}

fn numbers(of: &[(&str, i64)], label: &str) -> Vec<i64> {
    of.iter().filter(|(known, _)| known.eq_ignore_ascii_case(label)).map(|(_, n)| *n).collect()
}

fn protocols() -> Vec<String> {
    (0..=255).map(protocol_name).filter(|name| name.parse::<u8>().is_err()).collect()
}

fn protocol(label: &str) -> Vec<i64> {
    let form =
        PROTOCOL_FORMS.iter().find(|(form, _)| form.eq_ignore_ascii_case(label)).map_or(label, |(_, name)| *name);
    (0..=255u8).filter(|n| protocol_name(*n).eq_ignore_ascii_case(form)).map(i64::from).collect()
}

/// The severities that a word means.
fn severities(word: &str) -> Vec<String> {
    if let Some((_, meant)) = SEVERITY_FORMS.iter().find(|(form, _)| form.eq_ignore_ascii_case(word)) {
        return texts(meant);
    }
    SEVERITIES.iter().filter(|known| known.eq_ignore_ascii_case(word)).map(|s| (*s).to_owned()).collect()
}

/// The codes of a field, by its name.
pub fn of(field: &str) -> Option<Codes> {
    Some(match field {
        "protocol_num" => Codes::Labels(protocol, protocols),
        "severity_number" => Codes::Labels(
            |label| severities(label).iter().filter_map(|word| place(&SEVERITIES, word)).collect(),
            || texts(&SEVERITIES),
        ),
        "severity_id" => Codes::Labels(
            |label| numbers(OCSF_SEVERITIES, label),
            || texts(&["unknown", "informational", "low", "medium", "high", "critical", "fatal", "other"]),
        ),
        "facility" => Codes::Labels(|label| place(&FACILITIES, label).into_iter().collect(), || texts(&FACILITIES)),
        "ether_type" => Codes::Labels(
            |label| numbers(ETHER_TYPES, label),
            || ETHER_TYPES.iter().map(|(label, _)| (*label).to_owned()).collect(),
        ),
        "span_kind" | "root_span_kind" => {
            Codes::Labels(|label| place(&SPAN_KINDS, label).into_iter().collect(), || texts(&SPAN_KINDS))
        }
        "tcp_flags" => Codes::Flags(TCP_FLAGS),
        _ => return None,
    })
}

/// The labels that a field of text holds where a query says a number, or a label in another form; nothing where the text
/// is neither.
pub fn labels_of(field: &str, text: &str) -> Option<Vec<String>> {
    let labels = match field {
        "severity" => match text.parse::<usize>() {
            Ok(n) => SEVERITIES.get(n).map(|s| (*s).to_owned()).into_iter().collect(),
            Err(_) => severities(text),
        },
        "protocol_name" => match text.parse::<u8>() {
            Ok(n) => vec![protocol_name(n)],
            Err(_) => protocol(text).into_iter().filter_map(|n| u8::try_from(n).ok()).map(protocol_name).collect(),
        },
        _ => return None,
    };
    (!labels.is_empty()).then_some(labels)
}

impl Codes {
    /// The numbers of a label, of flags the bit.
    pub fn numbers(self, label: &str) -> Vec<i64> {
        match self {
            Codes::Labels(of, _) => of(label),
            Codes::Flags(bits) => numbers(bits, label),
        }
    }

    /// Every label.
    pub fn labels(self) -> Vec<String> {
        match self {
            Codes::Labels(_, all) => all(),
            Codes::Flags(bits) => bits.iter().map(|(name, _)| (*name).to_owned()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_its_number() {
        for field in
            ["protocol_num", "severity_number", "severity_id", "facility", "ether_type", "span_kind", "tcp_flags"]
        {
            let codes = of(field).unwrap();
            assert!(codes.labels().iter().all(|label| codes.numbers(&label.to_uppercase()).len() == 1), "{field}");
        }
        let protocols = |label| of("protocol_num").unwrap().numbers(label);
        assert_eq!((protocols("tcp"), protocols("ICMPv6"), protocols("none")), (vec![6], vec![58], vec![]));
        assert_eq!(of("tcp_flags").unwrap().numbers("SYN"), [2]);
        assert!(of("bytes_total").is_none());
    }

    #[test]
    fn common_forms_are_the_words_they_stand_for() {
        let severity = |text| labels_of("severity", text);
        assert_eq!(severity("WARN"), Some(vec!["warning".to_owned()]));
        assert_eq!(severity("3"), Some(vec!["error".to_owned()]));
        assert_eq!(severity("fatal").unwrap().len(), 3);
        assert_eq!((severity("9"), severity("worse")), (None, None));
        assert_eq!(labels_of("protocol_name", "17"), Some(vec!["udp".to_owned()]));
        assert_eq!(labels_of("protocol_name", "TCP"), Some(vec!["tcp".to_owned()]));
        assert_eq!(labels_of("app", "tcp"), None);
        assert_eq!(of("severity_number").unwrap().numbers("fatal"), [0, 1, 2]);
    }
}
