//! Fields that hold codes: a query takes the number or the label, of flags the name of a bit.

use radarflow_proto::flow::protocol_name;
use radarflow_proto::syslog::SEVERITIES;

/// What the numbers of a field mean.
#[derive(Clone, Copy, Debug)]
pub enum Codes {
    /// Each is something.
    Labels(fn(&str) -> Option<i64>, fn() -> Vec<String>),
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

fn place(of: &[&str], label: &str) -> Option<i64> {
    of.iter().position(|known| known.eq_ignore_ascii_case(label)).map(|n| n as i64)
}

fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|label| (*label).to_owned()).collect()
}

fn protocols() -> Vec<String> {
    (0..=255).map(protocol_name).filter(|name| name.parse::<u8>().is_err()).collect()
}

/// The codes of a field, by its name.
pub fn of(field: &str) -> Option<Codes> {
    Some(match field {
        "protocol_num" => Codes::Labels(
            |label| (0..=255u8).find(|n| protocol_name(*n).eq_ignore_ascii_case(label)).map(i64::from),
            protocols,
        ),
        "severity_number" => Codes::Labels(|label| place(&SEVERITIES, label), || texts(&SEVERITIES)),
        "facility" => Codes::Labels(|label| place(&FACILITIES, label), || texts(&FACILITIES)),
        "ether_type" => Codes::Labels(
            |label| ETHER_TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(label)).map(|(_, n)| *n),
            || ETHER_TYPES.iter().map(|(label, _)| (*label).to_owned()).collect(),
        ),
        "tcp_flags" => Codes::Flags(TCP_FLAGS),
        _ => return None,
    })
}

impl Codes {
    /// The number of a label, of flags the bit.
    pub fn number(self, label: &str) -> Option<i64> {
        match self {
            Codes::Labels(number, _) => number(label),
            Codes::Flags(bits) => bits.iter().find(|(name, _)| name.eq_ignore_ascii_case(label)).map(|(_, bit)| *bit),
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
        for field in ["protocol_num", "severity_number", "facility", "ether_type"] {
            let codes = of(field).unwrap();
            assert!(codes.labels().iter().all(|label| codes.number(&label.to_uppercase()).is_some()), "{field}");
        }
        let number = |label| of("protocol_num").unwrap().number(label);
        assert_eq!((number("tcp"), number("none")), (Some(6), None));
        assert_eq!(of("tcp_flags").unwrap().number("SYN"), Some(2));
        assert!(of("bytes_total").is_none());
    }
}
