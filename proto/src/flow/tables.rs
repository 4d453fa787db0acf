//! What operators say of exporters, interfaces, networks and applications: the shape of the configuration and of the fact, and
//! what of it a flow is given. What it means is `reconcile::flows`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::enrich::Patterns;

/// All that is said, of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowTables {
    /// Of exporters: of the prefixes that an exporter is in, the longest counts.
    pub exporters: Vec<ExporterEntry>,
    /// Of interfaces: the first rule that matches counts.
    pub interfaces: Vec<InterfaceRule>,
    /// Of networks: of the prefixes that an address is in, the longest counts.
    pub networks: Vec<NetworkEntry>,
    /// Of applications: the first that has the port counts.
    pub applications: Vec<ApplicationEntry>,
    /// Of autonomous systems.
    pub autonomous_systems: Vec<AsEntry>,
    /// Files that tell where addresses are and whose; of each column the first that has it counts, after the tables.
    pub address_files: Vec<AddressFile>,
}

impl FlowTables {
    /// How much it is, in words.
    pub fn summary(&self) -> String {
        let files: Vec<&str> = self.address_files.iter().map(|file| file.name.as_str()).collect();
        let files = if files.is_empty() { String::new() } else { format!(", {}", files.join(", ")) };
        format!(
            "{} exporters, {} rules about interfaces, {} networks, {} applications, {} autonomous systems{files}",
            self.exporters.len(),
            self.interfaces.len(),
            self.networks.len(),
            self.applications.len(),
            self.autonomous_systems.len()
        )
    }
}

fn default_name() -> String {
    "default".to_owned()
}

/// What an exporter is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExporterEntry {
    /// Customer.
    #[serde(default = "default_name")]
    pub tenant: String,
    /// Site or address space; of all where it is not said.
    #[serde(default)]
    pub partition: Option<String>,
    /// Its address, or a prefix of several.
    pub prefix: String,
    /// Name.
    #[serde(default)]
    pub name: Option<String>,
    /// Group.
    #[serde(default)]
    pub group: Option<String>,
    /// Role: `edge`, `core`, …
    #[serde(default)]
    pub role: Option<String>,
    /// Site.
    #[serde(default)]
    pub site: Option<String>,
    /// Region.
    #[serde(default)]
    pub region: Option<String>,
    /// One in how many packets it looks at, where it does not say so itself.
    #[serde(default)]
    pub sampling_rate: Option<u64>,
    /// Which packets within the packets that it samples are entered, so that the flow is theirs: `vxlan`, `gre`, `ipip`, `mpls`,
    /// `srv6`; all where it is not said.
    #[serde(default)]
    pub decapsulate: Option<Vec<String>>,
}

/// What tells what an interface is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceRule {
    /// Its name, which flows bear that it tells something of.
    pub rule_id: String,
    /// Customer.
    #[serde(default = "default_name")]
    pub tenant: String,
    /// Fields that all must match: `exporter_name`, `exporter_group`, `exporter_role`, `exporter_site`, `exporter_region`,
    /// `index`, `name`, `description`. A text that is contained, or `/a regular expression/`.
    #[serde(default)]
    pub when: BTreeMap<String, Patterns>,
    /// What it is then: `name`, `description`, `speed_bps`, `boundary` (`internal`, `external`), `provider`, `connectivity`.
    /// `$1` is what the first group of the expression matched that matched the description, or else the name.
    pub set: BTreeMap<String, String>,
}

/// What a network is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkEntry {
    /// Customer.
    #[serde(default = "default_name")]
    pub tenant: String,
    /// Site or address space; of all where it is not said.
    #[serde(default)]
    pub partition: Option<String>,
    /// Its prefix.
    pub prefix: String,
    /// Name.
    #[serde(default)]
    pub name: Option<String>,
    /// Role: `servers`, `customers`, …
    #[serde(default)]
    pub role: Option<String>,
    /// Site.
    #[serde(default)]
    pub site: Option<String>,
    /// Region.
    #[serde(default)]
    pub region: Option<String>,
    /// Who has it: a customer of the customer.
    #[serde(default)]
    pub net_tenant: Option<String>,
    /// Country, ISO 3166 alpha-2.
    #[serde(default)]
    pub country: Option<String>,
    /// City.
    #[serde(default)]
    pub city: Option<String>,
}

/// Which application has a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationEntry {
    /// Customer.
    #[serde(default = "default_name")]
    pub tenant: String,
    /// Name.
    pub name: String,
    /// `tcp`, `udp`, `sctp` or a number; TCP and UDP where it is not said.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Ports, `443`, and ranges of them, `8000-8099`.
    pub ports: Vec<String>,
}

/// What an autonomous system is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsEntry {
    /// Number.
    pub number: u32,
    /// Name.
    pub name: String,
}

/// A file of the MaxMind form, by what is in it: the folder [`ADDRESS_FILES`] has it under that name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFile {
    /// What it was called.
    pub name: String,
    /// SHA-256 of its bytes, hex digits.
    pub digest: String,
}

/// The folder of the data directory that keeps address files.
pub const ADDRESS_FILES: &str = "address-files";

/// What address files tell of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Country, ISO 3166 alpha-2.
    pub country: Option<String>,
    /// City.
    pub city: Option<String>,
    /// Number of the autonomous system.
    pub as_number: Option<u32>,
    /// Its name.
    pub as_name: Option<String>,
    /// Which files tell.
    pub files: String,
}

/// What a rule tells of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The rule.
    pub rule_id: String,
    /// Name, where the exporter gives none.
    pub name: Option<String>,
    /// Description, where the exporter gives none.
    pub description: Option<String>,
    /// Speed, bits per second.
    pub speed_bps: Option<i64>,
    /// `internal` or `external`.
    pub boundary: Option<String>,
    /// Who is at the other end.
    pub provider: Option<String>,
    /// How: `transit`, `peering`, …
    pub connectivity: Option<String>,
}

/// What is known of one flow beside what its exporter says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Enriched<'a> {
    /// The exporter.
    pub exporter: Option<&'a ExporterEntry>,
    /// The interface it came in by.
    pub in_if: Option<&'a Interface>,
    /// The interface it left by.
    pub out_if: Option<&'a Interface>,
    /// The source's network.
    pub src_net: Option<&'a NetworkEntry>,
    /// The destination's network.
    pub dst_net: Option<&'a NetworkEntry>,
    /// Where the source is.
    pub src_place: Option<&'a Place>,
    /// Where the destination is.
    pub dst_place: Option<&'a Place>,
    /// Name of the source's autonomous system.
    pub src_as_name: Option<&'a str>,
    /// Name of the destination's autonomous system.
    pub dst_as_name: Option<&'a str>,
    /// The application that has one of its ports.
    pub app: Option<&'a str>,
}

impl Enriched<'_> {
    /// Whether nothing is known of exporter, interfaces and networks.
    pub(super) fn is_nothing(&self) -> bool {
        self.exporter.is_none()
            && self.in_if.is_none()
            && self.out_if.is_none()
            && self.src_net.is_none()
            && self.dst_net.is_none()
            && self.src_place.is_none()
            && self.dst_place.is_none()
    }

    /// The number of an autonomous system: what the exporter says, or else what files say of the address.
    pub fn as_number(said: Option<u32>, place: Option<&Place>) -> Option<u32> {
        said.filter(|number| *number > 0).or(place.and_then(|place| place.as_number)).or(said)
    }
}
