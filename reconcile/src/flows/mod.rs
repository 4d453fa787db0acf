//! What is known of a flow beside what its exporter says: exporter, interfaces, networks, applications, autonomous systems.
//!
//! | of | known by | counts |
//! |---|---|---|
//! | an exporter, a network | prefixes | the longest of the partition, else the longest of all partitions |
//! | an interface | rules over its exporter, number, name and description | the first that matches |
//! | an application | protocol and port, the destination's before the source's | the first that has it |
//! | an autonomous system | its number | |
//! | where an address is, and whose | files of the MaxMind form ([`places`]) | the tables', then the first file's |
//!
//! What an exporter itself says of names, descriptions and applications counts more.
//!
//! Bounds: [`MAX_ENTRIES`] of each kind, [`MAX_PORTS`] ports; a prefix costs at most two places in a list that is searched by
//! halves ([`prefixes`]).

pub mod file;
mod interfaces;
pub mod places;
pub mod prefixes;

use std::collections::BTreeMap;
use std::net::IpAddr;

use radarflow_proto::flow::tables::{ApplicationEntry, ExporterEntry, FlowTables, Interface, NetworkEntry};
use radarflow_proto::packet::Tunnels;

use interfaces::Matcher;
use prefixes::{Prefix, Prefixes};

/// Entries of one kind.
pub const MAX_ENTRIES: usize = 100_000;
/// Ports of applications, ranges counted by what is in them.
pub const MAX_PORTS: usize = 200_000;

/// What of one kind is known by prefix: of all partitions, and of some.
struct Scoped<T> {
    general: Prefixes<T>,
    of_partition: BTreeMap<String, Prefixes<T>>,
}

impl<T: Clone> Scoped<T> {
    /// Of entries, each with its partition and prefix; of one prefix the last counts.
    fn new<'a>(entries: impl Iterator<Item = (&'a T, Option<&'a String>, &'a str)>) -> Self
    where
        T: 'a,
    {
        let mut by_partition: BTreeMap<Option<&String>, Vec<(Prefix, T)>> = BTreeMap::new();
        for (entry, partition, prefix) in entries {
            if let Ok(prefix) = prefix.parse() {
                by_partition.entry(partition).or_default().push((prefix, entry.clone()));
            }
        }
        let general = Prefixes::new(by_partition.remove(&None).unwrap_or_default());
        let of = |(partition, entries): (Option<&String>, _)| Some((partition?.clone(), Prefixes::new(entries)));
        Scoped { general, of_partition: by_partition.into_iter().filter_map(of).collect() }
    }

    fn find(&self, partition: &str, ip: IpAddr) -> Option<&T> {
        let own = self.of_partition.get(partition).and_then(|own| own.find(ip));
        own.or_else(|| self.general.find(ip))
    }
}

/// What is known of one tenant's flows.
struct Known {
    exporters: Scoped<ExporterEntry>,
    networks: Scoped<NetworkEntry>,
    interfaces: Vec<Matcher>,
    /// By protocol and port.
    applications: BTreeMap<(u8, u16), String>,
}

impl Default for Known {
    fn default() -> Self {
        Known {
            exporters: Scoped::new(std::iter::empty()),
            networks: Scoped::new(std::iter::empty()),
            interfaces: Vec::new(),
            applications: BTreeMap::new(),
        }
    }
}

/// What is known of flows, ready to be asked.
#[derive(Default)]
pub struct Knowledge {
    tenants: BTreeMap<String, Known>,
    /// Of tenants of which nothing is said.
    nothing: Known,
    as_names: BTreeMap<u32, String>,
}

/// What is known of the flows of one tenant and partition.
#[derive(Clone, Copy)]
pub struct View<'a> {
    known: &'a Known,
    as_names: &'a BTreeMap<u32, String>,
    partition: &'a str,
}

impl Knowledge {
    /// Of tables; what of them is wrong ([`check`]) is left out.
    pub fn new(tables: &FlowTables) -> Self {
        let mut tenants: BTreeMap<String, Known> = BTreeMap::new();
        let named = tables.exporters.iter().map(|e| &e.tenant);
        let named = named.chain(tables.networks.iter().map(|n| &n.tenant));
        let named = named.chain(tables.interfaces.iter().map(|i| &i.tenant));
        let named = named.chain(tables.applications.iter().map(|a| &a.tenant));
        for tenant in named {
            if tenants.contains_key(tenant) {
                continue;
            }
            let exporters = tables.exporters.iter().filter(|e| e.tenant == *tenant);
            let networks = tables.networks.iter().filter(|n| n.tenant == *tenant);
            let interfaces = tables.interfaces.iter().filter(|i| i.tenant == *tenant);
            let applications = tables.applications.iter().filter(|a| a.tenant == *tenant);
            let known = Known {
                exporters: Scoped::new(exporters.map(|e| (e, e.partition.as_ref(), e.prefix.as_str()))),
                networks: Scoped::new(networks.map(|n| (n, n.partition.as_ref(), n.prefix.as_str()))),
                interfaces: interfaces.filter_map(|rule| Matcher::new(rule).ok()).collect(),
                applications: ports(applications),
            };
            tenants.insert(tenant.clone(), known);
        }
        let as_names = tables.autonomous_systems.iter().map(|a| (a.number, a.name.clone())).collect();
        Knowledge { tenants, nothing: Known::default(), as_names }
    }

    /// What is known of the flows of a tenant and partition, if anything is, `always` also where nothing is. Autonomous systems
    /// have the same names for all.
    pub fn of<'a>(&'a self, tenant: &str, partition: &'a str, always: bool) -> Option<View<'a>> {
        let none = (always || !self.as_names.is_empty()).then_some(&self.nothing);
        let known = self.tenants.get(tenant).or(none)?;
        Some(View { known, as_names: &self.as_names, partition })
    }
}

impl<'a> View<'a> {
    /// What an exporter is.
    pub fn exporter(&self, ip: IpAddr) -> Option<&'a ExporterEntry> {
        self.known.exporters.find(self.partition, ip)
    }

    /// What network an address is in.
    pub fn network(&self, ip: IpAddr) -> Option<&'a NetworkEntry> {
        self.known.networks.find(self.partition, ip)
    }

    /// What an autonomous system is called.
    pub fn as_name(&self, number: u32) -> Option<&'a str> {
        self.as_names.get(&number).map(String::as_str)
    }

    /// What application has a port.
    pub fn application(&self, protocol: u8, src_port: Option<u16>, dst_port: Option<u16>) -> Option<&'a str> {
        let ports = [dst_port, src_port].into_iter().flatten();
        let mut found = ports.filter_map(|port| self.known.applications.get(&(protocol, port)));
        found.next().map(String::as_str)
    }

    /// Whether anything is said of interfaces.
    pub fn knows_interfaces(&self) -> bool {
        !self.known.interfaces.is_empty()
    }

    /// What an interface is.
    pub fn interface(
        &self,
        exporter: Option<&ExporterEntry>,
        index: u32,
        name: &str,
        description: &str,
    ) -> Option<Interface> {
        self.known.interfaces.iter().find_map(|matcher| matcher.told(exporter, index, name, description))
    }
}

/// Protocols that an entry means.
fn protocols(entry: &ApplicationEntry) -> Result<Vec<u8>, String> {
    Ok(match entry.protocol.as_deref() {
        None => vec![6, 17],
        Some("tcp") => vec![6],
        Some("udp") => vec![17],
        Some("sctp") => vec![132],
        Some(number) => vec![number.parse().map_err(|_| format!("`{number}` is no protocol"))?],
    })
}

fn port_range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err(format!("`{text}` is no port, nor a range of ports")),
    }
}

fn ports<'a>(entries: impl Iterator<Item = &'a ApplicationEntry>) -> BTreeMap<(u8, u16), String> {
    let mut found = BTreeMap::new();
    for entry in entries {
        for protocol in protocols(entry).unwrap_or_default() {
            for port in entry.ports.iter().filter_map(|text| port_range(text).ok()).flatten() {
                if found.len() < MAX_PORTS {
                    found.entry((protocol, port)).or_insert_with(|| entry.name.clone());
                }
            }
        }
    }
    found
}

/// What is wrong with tables.
///
/// # Errors
/// The first thing that is, in words.
pub fn check(tables: &FlowTables) -> Result<(), String> {
    let counts =
        [tables.exporters.len(), tables.networks.len(), tables.interfaces.len(), tables.autonomous_systems.len()];
    if let Some(many) = counts.into_iter().find(|n| *n > MAX_ENTRIES) {
        return Err(format!("{many} entries of one kind; {MAX_ENTRIES} are the most"));
    }
    let prefixes = tables.exporters.iter().map(|e| ("exporters", &e.prefix));
    for (kind, prefix) in prefixes.chain(tables.networks.iter().map(|n| ("networks", &n.prefix))) {
        prefix.parse::<Prefix>().map_err(|why| format!("{kind}: {why}"))?;
    }
    for names in tables.exporters.iter().filter_map(|e| e.decapsulate.as_ref()) {
        Tunnels::named(names)
            .map_err(|name| format!("exporters: `{name}` is no tunnel: vxlan, gre, ipip, mpls, srv6"))?;
    }
    for rule in &tables.interfaces {
        Matcher::new(rule).map_err(|why| format!("interfaces: {}: {why}", rule.rule_id))?;
    }
    let mut most = MAX_PORTS;
    for entry in &tables.applications {
        let of = |why| format!("applications: {}: {why}", entry.name);
        let protocols = protocols(entry).map_err(of)?.len();
        for text in &entry.ports {
            let range = port_range(text).map_err(of)?;
            let taken = range.len() * protocols;
            most = most.checked_sub(taken).ok_or_else(|| of(format!("all have more than {MAX_PORTS} ports")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(partition: Option<&str>, prefix: &str, name: &str) -> NetworkEntry {
        NetworkEntry {
            tenant: "t".to_owned(),
            partition: partition.map(str::to_owned),
            prefix: prefix.to_owned(),
            name: Some(name.to_owned()),
            ..NetworkEntry::default()
        }
    }

    #[test]
    fn a_partitions_own_networks_come_first() {
        let networks = vec![
            network(None, "10.0.0.0/8", "ten"),
            network(None, "10.1.0.0/16", "ten-one"),
            network(Some("lab"), "10.0.0.0/8", "lab"),
        ];
        let knowledge = Knowledge::new(&FlowTables { networks, ..FlowTables::default() });
        let name = |partition: &str, ip: &str| {
            let view = knowledge.of("t", partition, false).unwrap();
            view.network(ip.parse().unwrap()).and_then(|n| n.name.clone())
        };
        assert_eq!(name("p", "10.1.2.3").as_deref(), Some("ten-one"));
        assert_eq!(name("p", "10.2.2.3").as_deref(), Some("ten"));
        assert_eq!(name("lab", "10.1.2.3").as_deref(), Some("lab"));
        assert_eq!(name("p", "11.0.0.1"), None);
        assert!(knowledge.of("u", "p", false).is_none());
    }

    #[test]
    fn a_port_names_an_application_the_destinations_first() {
        let application = |name: &str, protocol: Option<&str>, ports: &[&str]| ApplicationEntry {
            tenant: "t".to_owned(),
            name: name.to_owned(),
            protocol: protocol.map(str::to_owned),
            ports: ports.iter().map(|port| (*port).to_owned()).collect(),
        };
        let applications = vec![
            application("dns", None, &["53"]),
            application("quic", Some("udp"), &["443"]),
            application("web", None, &["80", "443", "8000-8099"]),
        ];
        let tables = FlowTables { applications, ..FlowTables::default() };
        assert_eq!(check(&tables), Ok(()));
        let knowledge = Knowledge::new(&tables);
        let view = knowledge.of("t", "p", false).unwrap();
        assert_eq!(view.application(17, Some(50_000), Some(443)), Some("quic"));
        assert_eq!(view.application(6, Some(50_000), Some(443)), Some("web"));
        assert_eq!(view.application(6, Some(8099), Some(50_000)), Some("web"));
        assert_eq!(view.application(6, Some(53), Some(80)), Some("web"));
        assert_eq!(view.application(132, Some(53), Some(80)), None);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let tables = |toml: fn(&mut FlowTables)| {
            let mut tables = FlowTables::default();
            toml(&mut tables);
            check(&tables).unwrap_err()
        };
        let wrong = tables(|t| t.networks.push(network(None, "10.0.0.1/8", "x")));
        assert_eq!(wrong, "networks: `10.0.0.1/8` has bits beyond its length: 10.0.0.0/8 is the prefix");
        let wrong = tables(|t| {
            let decapsulate = Some(vec!["ipsec".to_owned()]);
            t.exporters.push(ExporterEntry { prefix: "10.0.0.1".into(), decapsulate, ..Default::default() });
        });
        assert_eq!(wrong, "exporters: `ipsec` is no tunnel: vxlan, gre, ipip, mpls, srv6");
        let wrong = tables(|t| {
            t.applications.push(ApplicationEntry { name: "x".into(), ports: vec!["9-1".into()], ..Default::default() });
        });
        assert_eq!(wrong, "applications: x: `9-1` is no port, nor a range of ports");
        let wrong = tables(|t| {
            let ports = vec!["0-65535".to_owned(); 2];
            t.applications.push(ApplicationEntry { name: "x".into(), ports, ..Default::default() });
        });
        assert_eq!(wrong, "applications: x: all have more than 200000 ports");
    }
}
