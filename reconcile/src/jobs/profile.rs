//! A profile as it is read of its resource, and which devices and hosts are its members.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use radarflow_proto::fact::Stage;
use radarflow_proto::payload::Timetable;
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Device;
use regex::RegexBuilder;

use super::timetable;
use crate::condition::{Condition, address, network, within};

/// Addresses that the networks of one profile have at most.
pub const MAX_HOSTS: usize = 65_536;
/// Bytes of a pattern, compiled, at most.
pub const MAX_PATTERN: usize = 1 << 20;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ICMP echoes.
    Ping,
    /// Connections.
    Tcp,
    /// Requests.
    Http,
    /// Questions.
    Dns,
    /// Handshakes.
    Tls,
    /// ServiceRadar's sweeps.
    Sweep,
}

/// Their names.
pub const KINDS: &[&str] = &["ping", "tcp", "http", "dns", "tls", "sweep"];

impl Kind {
    /// Of a name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Kind::Ping, Kind::Tcp, Kind::Http, Kind::Dns, Kind::Tls, Kind::Sweep];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// As profiles spell it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ping => "ping",
            Kind::Tcp => "tcp",
            Kind::Http => "http",
            Kind::Dns => "dns",
            Kind::Tls => "tls",
            Kind::Sweep => "sweep",
        }
    }

    /// What our agent says that can do it; `None` where it cannot.
    pub fn capability(self) -> Option<&'static str> {
        match self {
            Kind::Ping => Some("icmp"),
            Kind::Tcp => Some("tcp"),
            Kind::Http => Some("http"),
            Kind::Dns => Some("dns"),
            Kind::Tls => Some("tls"),
            Kind::Sweep => None,
        }
    }
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// One connected agent a target.
    Auto,
    /// Every agent that can.
    All,
    /// Those that are listed.
    Listed,
}

/// A profile, read.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Profile {
    pub name: String,
    pub kind: Kind,
    pub enabled: bool,
    pub priority: i64,
    pub site: Option<String>,
    pub condition: Option<Condition>,
    pub device_group: Option<String>,
    pub hosts: Vec<String>,
    pub exclude: Vec<String>,
    pub interval_s: i64,
    pub cron: Option<String>,
    pub time_zone: String,
    pub pause_during: Vec<String>,
    /// The periods of the intervals in which it pauses: whoever knows these sets them.
    pub pauses: Vec<String>,
    pub assignment: Assignment,
    pub agents: Vec<String>,
    pub timeout_ms: i64,
    pub attempts: u32,
    pub ports: Vec<u16>,
    pub tls: bool,
    pub url_path: String,
    pub expected: Vec<(u16, u16)>,
    pub body_pattern: Option<String>,
    pub redirects: u32,
    pub query_name: Option<String>,
    pub record_type: String,
}

/// What a group is, read.
#[derive(Clone, Debug)]
pub enum Member {
    /// Whatever a condition holds of.
    Like(Condition),
    /// These, by uid.
    Listed(BTreeSet<String>),
}

impl Member {
    /// Of a group of devices.
    ///
    /// # Errors
    /// What of its condition one row cannot answer.
    pub fn of(group: &Resource) -> Result<Self, String> {
        match group.text("condition") {
            Some(condition) => Condition::read(condition).map(Member::Like),
            None => Ok(Member::Listed(group.texts("members").into_iter().collect())),
        }
    }

    /// Whether a device is in it.
    pub fn holds(&self, device: &Device) -> bool {
        match self {
            Member::Like(condition) => condition.holds(device),
            Member::Listed(uids) => uids.contains(&device.uid),
        }
    }
}

/// Ports as profiles write them.
///
/// # Errors
/// The first that is none.
pub fn ports(texts: &[String]) -> Result<Vec<u16>, String> {
    let port = |text: &String| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{text}` is no port from 1 to 65535")),
    };
    texts.iter().map(port).collect()
}

/// Status codes as profiles write them: `200-399,401`.
///
/// # Errors
/// What is none.
pub fn statuses(text: &str) -> Result<Vec<(u16, u16)>, String> {
    let code = |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..=599).contains(code));
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let found = code(from).zip(code(to)).filter(|(from, to)| from <= to);
        found.ok_or_else(|| format!("`{part}` is no status code and no range of them, as in 200-399,401"))
    };
    text.split(',').map(range).collect()
}

/// Checks a pattern of bodies.
///
/// # Errors
/// Why it is none.
pub fn pattern(text: &str) -> Result<(), String> {
    let built = RegexBuilder::new(text).size_limit(MAX_PATTERN).build();
    built.map(|_| ()).map_err(|e| e.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

/// The name of a host: letters, digits, hyphens, dots and underscores.
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// The addresses of a network, unless there are more than so many.
fn addresses(ip: IpAddr, bits: u8, most: usize) -> Option<Vec<IpAddr>> {
    let width = if ip.is_ipv4() { 32 } else { 128 };
    let host_bits = u32::from(width - bits);
    if host_bits >= 32 || (1usize << host_bits) > most {
        return None;
    }
    let hosts = 0..(1u64 << host_bits);
    Some(match ip {
        IpAddr::V4(ip) => {
            let first = u32::from(ip) & u32::MAX.checked_shl(host_bits).unwrap_or(0);
            // A network and its broadcast address are nobody's, where it has room for others.
            let skip = if host_bits >= 2 { hosts.start + 1..hosts.end - 1 } else { hosts };
            skip.map(|n| Ipv4Addr::from(first | n as u32).into()).collect()
        }
        IpAddr::V6(ip) => {
            let first = u128::from(ip) & u128::MAX.checked_shl(host_bits).unwrap_or(0);
            hosts.map(|n| Ipv6Addr::from(first | u128::from(n)).into()).collect()
        }
    })
}

/// What hosts name: addresses and names, networks as their addresses.
///
/// # Errors
/// What is none of these, or too much.
pub fn hosts(texts: &[String]) -> Result<Vec<String>, String> {
    let mut found = BTreeSet::new();
    for text in texts {
        match (address(text), network(text)) {
            (Some(ip), _) => drop(found.insert(ip.to_string())),
            (_, Some((ip, bits))) => match addresses(ip, bits, MAX_HOSTS) {
                Some(ips) => found.extend(ips.iter().map(ToString::to_string)),
                None => return Err(format!("`{text}` has more than {MAX_HOSTS} addresses")),
            },
            _ if is_name(text) => drop(found.insert(text.to_ascii_lowercase())),
            _ => return Err(format!("`{text}` is no address, no network and no name of a host")),
        }
        if found.len() > MAX_HOSTS {
            return Err(format!("the hosts are more than {MAX_HOSTS} addresses"));
        }
    }
    Ok(found.into_iter().collect())
}

impl Profile {
    /// Reads a resource.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn of(resource: &Resource) -> Result<Self, (&'static str, String)> {
        let at = |field| move |why: String| (field, why);
        let text = |field: &str| resource.text(field).map(str::to_owned);
        let number = |field: &str, or: i64| resource.number(field).unwrap_or(or);
        let kind = Kind::named(resource.text("kind").unwrap_or_default());
        let kind = kind.ok_or_else(|| ("kind", format!("it is one of {}", KINDS.join(", "))))?;
        let condition = resource.text("condition").map(Condition::read).transpose().map_err(at("condition"))?;
        let profile = Profile {
            name: resource.id.clone(),
            kind,
            enabled: resource.flag("enabled"),
            priority: number("priority", 0),
            site: text("site"),
            condition,
            device_group: text("device_group"),
            hosts: hosts(&resource.texts("hosts")).map_err(at("hosts"))?,
            exclude: resource.texts("exclude"),
            interval_s: number("interval_s", 60).max(1),
            cron: text("cron").filter(|cron| !cron.is_empty()),
            time_zone: text("time_zone").unwrap_or_else(|| "UTC".to_owned()),
            pause_during: resource.texts("pause_during"),
            pauses: Vec::new(),
            assignment: match resource.text("assignment") {
                Some("all") => Assignment::All,
                Some("listed") => Assignment::Listed,
                _ => Assignment::Auto,
            },
            agents: resource.texts("agents"),
            timeout_ms: number("timeout_ms", 2000),
            attempts: number("attempts", 1).clamp(1, 100) as u32,
            ports: ports(&resource.texts("ports")).map_err(at("ports"))?,
            tls: resource.flag("tls"),
            url_path: text("url_path").unwrap_or_else(|| "/".to_owned()),
            expected: statuses(resource.text("expected_status").unwrap_or("200-399")).map_err(at("expected_status"))?,
            body_pattern: text("body_pattern"),
            redirects: number("redirects", 0).clamp(0, 10) as u32,
            query_name: text("query_name"),
            record_type: text("record_type").unwrap_or_else(|| "A".to_owned()),
        };
        if let Some(pattern_of) = &profile.body_pattern {
            pattern(pattern_of).map_err(at("body_pattern"))?;
        }
        if !profile.url_path.starts_with('/')
            || profile.url_path.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(("url_path", "it begins with / and has no blanks".to_owned()));
        }
        if let Some(cron) = &profile.cron {
            timetable::calendar(cron).map_err(at("cron"))?;
        }
        timetable::zone(&profile.time_zone).map_err(at("time_zone"))?;
        if profile.cron.is_none() && profile.timeout_ms > profile.interval_s * 1000 {
            return Err(("timeout_ms", "a look takes no longer than the interval".to_owned()));
        }
        if profile.query_name.as_deref().is_some_and(|name| !is_name(name.trim_end_matches('.'))) {
            return Err(("query_name", "it is the name of a host".to_owned()));
        }
        let needs_ports = matches!(profile.kind, Kind::Tcp | Kind::Tls) && profile.ports.is_empty();
        let needs_name = profile.kind == Kind::Dns && profile.query_name.is_none();
        let nothing = profile.condition.is_none() && profile.device_group.is_none() && profile.hosts.is_empty();
        let wrong = [
            (needs_ports, "ports", "a profile of kind tcp or tls has ports"),
            (needs_name, "query_name", "a profile of kind dns asks for a name"),
            (nothing, "condition", "it says what is looked at: by condition, device_group or hosts"),
            (
                profile.condition.is_some() && profile.device_group.is_some(),
                "device_group",
                "it has a condition or a device_group, not both",
            ),
            (
                !profile.hosts.is_empty() && profile.site.is_none(),
                "site",
                "hosts are looked at from a partition: say which",
            ),
            (
                (profile.assignment == Assignment::Listed) == profile.agents.is_empty(),
                "agents",
                "agents are named where the assignment is listed, and nowhere else",
            ),
        ];
        match wrong.into_iter().find(|(is, ..)| *is) {
            Some((_, field, why)) => Err((field, why.to_owned())),
            None => Ok(profile),
        }
    }

    /// When it is done.
    pub fn timetable(&self) -> Timetable {
        Timetable {
            interval_s: self.interval_s.unsigned_abs(),
            cron: self.cron.clone(),
            time_zone: if self.cron.is_some() { self.time_zone.clone() } else { String::new() },
            pauses: self.pauses.clone(),
        }
    }

    /// Whether it is about a partition.
    pub fn covers(&self, partition: &str) -> bool {
        self.site.as_deref().is_none_or(|site| site == partition)
    }

    /// What agents are told of a device that it is about; `None` where it is not.
    pub fn member(&self, device: &Device, group: Option<&Member>) -> Option<String> {
        let looked_after = device.deleted_at.is_none() && device.lifecycle != Stage::Decommissioned.name();
        if !looked_after || !self.covers(&device.partition) {
            return None;
        }
        let is = match (&self.condition, group) {
            (Some(condition), _) => condition.holds(device),
            (None, Some(group)) if self.device_group.is_some() => group.holds(device),
            _ => false,
        };
        let ip = address(device.ip.as_deref()?)?;
        (is && !self.exclude.contains(&device.uid) && !self.excludes(&ip.to_string())).then(|| ip.to_string())
    }

    /// The hosts that it names, less those that it leaves out.
    pub fn own_hosts(&self) -> impl Iterator<Item = &String> {
        self.hosts.iter().filter(|host| !self.excludes(host))
    }

    fn excludes(&self, target: &str) -> bool {
        let ip = address(target);
        self.exclude.iter().any(|out| match (ip, address(out), network(out)) {
            (Some(ip), Some(other), _) => ip == other,
            (Some(ip), _, Some((net, bits))) => within(ip, net, bits),
            _ => out.eq_ignore_ascii_case(target),
        })
    }
}
