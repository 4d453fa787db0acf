//! Configuration: one TOML file, overridden by `RADARFLOW__SECTION__KEY` in the environment. Unknown keys are errors.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use radarflow_connectors::secret::SecretError;
use radarflow_connectors::sinks::armis::WriteBack;
use radarflow_connectors::sinks::lake::Keep;
use radarflow_connectors::sources::pull::{Common, Inventory, armis, netbox};
use radarflow_connectors::sources::tls::Files;
use radarflow_connectors::sources::udp::MAX_SOCKETS;
use radarflow_connectors::sources::{Listener, kafka, nats, subjects};
use radarflow_proto::fact::{Receiver, ReceiverKind};
use radarflow_proto::record::SourceKind;
use radarflow_reconcile::identity::normalise;
use radarflow_reconcile::mapping::{Mapping, Whose};
use reqwest::Url;
use serde::Deserialize;

/// Everything that can be configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Intake stops where less is free, MiB.
    pub(crate) disk_reserve_mib: u64,
    /// Memory that the process may take, MiB; three quarters of the machine's where nothing is said.
    pub(crate) memory_limit_mib: Option<usize>,
    /// Dataflow workers.
    pub(crate) workers: usize,
    /// The HTTP API.
    pub(crate) http: Http,
    /// gRPC gateways.
    pub(crate) grpc: Vec<Grpc>,
    /// NetFlow and IPFIX.
    pub(crate) netflow: Vec<Socket>,
    /// sFlow.
    pub(crate) sflow: Vec<Socket>,
    /// Syslog, UDP and TCP.
    pub(crate) syslog: Vec<Socket>,
    /// Syslog over TLS.
    pub(crate) syslog_tls: Vec<SecureSocket>,
    /// SNMP notifications.
    pub(crate) traps: Vec<Socket>,
    /// Brokers to read from.
    pub(crate) sources: Sources,
    /// Where outputs go.
    pub(crate) sinks: Sinks,
    /// Who is told.
    pub(crate) receivers: Vec<ReceiverConfig>,
    /// Rules that tell what devices are.
    pub(crate) enrichment: Enrichment,
    /// Files that say what the columns of pushed inventories mean, by name.
    pub(crate) mappings: BTreeMap<String, PathBuf>,
}

impl Config {
    /// The mappings, read.
    pub(crate) fn mappings(&self) -> Result<BTreeMap<String, Mapping>> {
        let read = |(name, path): (&String, &PathBuf)| Ok((name.clone(), mapping(path)?));
        self.mappings.iter().map(read).collect::<Result<_>>().context("[mappings]")
    }
}

/// Reads a mapping file.
pub(crate) fn mapping(path: &Path) -> Result<Mapping> {
    let yaml = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Mapping::read(&yaml).with_context(|| path.display().to_string())
}

/// Rules that tell what devices are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Enrichment {
    /// Files, or folders of them; of rules of one name the last file's counts, before the program's own.
    pub(crate) rules: Vec<PathBuf>,
}

/// The HTTP API.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<Files>,
}

/// One socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Socket {
    pub(crate) addr: SocketAddr,
    /// Sockets that share it for datagrams, a thread each.
    #[serde(default = "one_socket", deserialize_with = "sockets")]
    pub(crate) sockets: usize,
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
    #[serde(default = "default_name")]
    pub(crate) partition: String,
}

/// One socket for syslog with TLS.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecureSocket {
    pub(crate) addr: SocketAddr,
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
    #[serde(default = "default_name")]
    pub(crate) partition: String,
    pub(crate) tls: Files,
}

/// One gRPC gateway. Without a partition the payload's counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grpc {
    pub(crate) addr: SocketAddr,
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
    #[serde(default)]
    pub(crate) partition: String,
    pub(crate) tls: Option<Files>,
}

/// Brokers to read from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sources {
    pub(crate) nats: Vec<Nats>,
    pub(crate) kafka: Vec<Kafka>,
    pub(crate) netbox: Vec<NetBox>,
    pub(crate) armis: Vec<Armis>,
    /// Sources that say only what they know.
    pub(crate) partial: Vec<Partial>,
}

/// A source whose records are filled from what it said before.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Partial {
    /// `armis/main`, `netbox/main`, `servicenow/emea`.
    #[serde(deserialize_with = "source")]
    pub(crate) name: (String, String),
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
}

impl Partial {
    /// Its tenant, kind and instance, as records have them.
    pub(crate) fn source(&self) -> (String, SourceKind, String) {
        let (name, instance) = &self.name;
        let kind = Whose::named(name).kind;
        let instance = if kind == SourceKind::Integration { format!("{name}.{instance}") } else { instance.clone() };
        (self.tenant.clone(), kind, instance)
    }
}

/// A source by name and instance.
fn source<'de, D: serde::Deserializer<'de>>(from: D) -> Result<(String, String), D::Error> {
    let text = String::deserialize(from)?;
    match text.split_once('/') {
        Some((name, instance)) if !name.is_empty() && !instance.is_empty() && !instance.contains('/') => {
            Ok((name.to_owned(), instance.to_owned()))
        }
        _ => Err(serde::de::Error::custom(format!("{text:?} is no NAME/INSTANCE, as in armis/main"))),
    }
}

/// A NetBox.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetBox {
    #[serde(deserialize_with = "instance")]
    pub(crate) name: String,
    #[serde(deserialize_with = "endpoint")]
    pub(crate) url: Url,
    #[serde(deserialize_with = "secret")]
    pub(crate) token: String,
    /// Site by VRF of the primary address.
    #[serde(default)]
    pub(crate) vrf: BTreeMap<String, String>,
    #[serde(default = "default_true")]
    pub(crate) interfaces: bool,
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
    #[serde(default = "default_name")]
    pub(crate) partition: String,
    #[serde(default = "default_interval")]
    pub(crate) interval_s: u64,
    #[serde(default = "default_full_interval")]
    pub(crate) full_interval_s: u64,
    #[serde(default = "default_pause")]
    pub(crate) pause_ms: u64,
    #[serde(default = "default_true")]
    pub(crate) automatic: bool,
    #[serde(default = "default_netbox_page")]
    pub(crate) page: usize,
}

/// An Armis tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Armis {
    #[serde(deserialize_with = "instance")]
    pub(crate) name: String,
    #[serde(deserialize_with = "endpoint")]
    pub(crate) url: Url,
    #[serde(deserialize_with = "secret")]
    pub(crate) secret_key: String,
    #[serde(default = "default_aql")]
    pub(crate) aql: String,
    /// The custom property that tells whether a device answers; nothing is written without it.
    pub(crate) write_back: Option<String>,
    #[serde(default = "default_write_back")]
    pub(crate) write_back_interval_s: u64,
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
    #[serde(default = "default_name")]
    pub(crate) partition: String,
    #[serde(default = "default_armis_interval")]
    pub(crate) interval_s: u64,
    #[serde(default = "default_pause")]
    pub(crate) pause_ms: u64,
    #[serde(default = "default_true")]
    pub(crate) automatic: bool,
    #[serde(default = "default_armis_page")]
    pub(crate) page: usize,
}

/// A JetStream stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nats {
    #[serde(deserialize_with = "secret")]
    pub(crate) url: String,
    pub(crate) stream: String,
    #[serde(default = "default_durable")]
    pub(crate) durable: String,
    #[serde(default = "default_subjects")]
    pub(crate) subjects: Vec<String>,
    pub(crate) credentials: Option<PathBuf>,
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
    #[serde(default = "default_name")]
    pub(crate) partition: String,
}

/// Topics of a Kafka cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    pub(crate) brokers: String,
    #[serde(default = "default_subjects")]
    pub(crate) topics: Vec<String>,
    #[serde(default = "default_durable")]
    pub(crate) group: String,
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
    #[serde(default = "default_name")]
    pub(crate) partition: String,
    /// Settings of librdkafka.
    #[serde(default, deserialize_with = "secrets")]
    pub(crate) properties: BTreeMap<String, String>,
}

/// Where outputs go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sinks {
    pub(crate) postgres: Option<PostgresConfig>,
    pub(crate) lake: LakeConfig,
}

/// The Postgres sink.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostgresConfig {
    #[serde(deserialize_with = "secret")]
    pub(crate) url: String,
}

/// The lake.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LakeConfig {
    pub(crate) enabled: bool,
    /// `<data_dir>/lake` where nothing is said.
    pub(crate) path: Option<PathBuf>,
    /// Days that rows of event tables are kept; for ever where nothing is said.
    pub(crate) retention_days: Option<u32>,
    /// Days of which it is kept what state tables held, beside those back to a checkpoint before; for ever where nothing is said.
    pub(crate) history_days: Option<u32>,
    /// Hours that files are kept which newer versions of a table do not have; one at least.
    pub(crate) vacuum_after_hours: u32,
}

impl LakeConfig {
    /// How long it keeps what.
    pub(crate) fn keep(&self) -> Keep {
        let hours = |n: u32| Duration::from_secs(u64::from(n) * 3600);
        Keep {
            events: self.retention_days.map(|days| hours(days * 24)),
            history: self.history_days.map(|days| hours(days * 24)),
            files: hours(self.vacuum_after_hours),
            ..Keep::default()
        }
    }
}

/// A receiver of notifications.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiverConfig {
    pub(crate) name: String,
    pub(crate) url: String,
    #[serde(default = "default_kind")]
    pub(crate) kind: ReceiverKind,
    #[serde(default = "default_name")]
    pub(crate) tenant: String,
    #[serde(default = "default_group_by")]
    pub(crate) group_by: Vec<String>,
    #[serde(default = "default_group_wait")]
    pub(crate) group_wait_ms: i64,
    #[serde(default = "default_group_interval")]
    pub(crate) group_interval_ms: i64,
    #[serde(default = "default_repeat_interval")]
    pub(crate) repeat_interval_ms: i64,
    #[serde(default = "default_true")]
    pub(crate) send_resolved: bool,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
}

fn default_name() -> String {
    "default".to_owned()
}
/// A value, or where it is found.
fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    radarflow_connectors::secret::resolve(&text).map_err(serde::de::Error::custom)
}

/// Values, or where they are found.
fn secrets<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let named = BTreeMap::<String, String>::deserialize(from)?;
    let resolve = |(key, text): (String, String)| Ok((key, radarflow_connectors::secret::resolve(&text)?));
    named.into_iter().map(resolve).collect::<Result<_, _>>().map_err(|e: SecretError| serde::de::Error::custom(e))
}

/// The base of an API.
fn endpoint<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Url, D::Error> {
    let text = String::deserialize(from)?;
    let url = Url::parse(&text).map_err(|e| serde::de::Error::custom(format!("url {text:?}: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || !url.username().is_empty() {
        return Err(serde::de::Error::custom(format!("url {text:?}: http(s), no user and no query are expected")));
    }
    Ok(url)
}

/// Names a source instance.
fn instance<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let name = normalise::instance(&text).filter(|name| !name.is_empty());
    name.ok_or_else(|| serde::de::Error::custom(format!("name {text:?}: a source's name has no : and no /")))
}

fn default_interval() -> u64 {
    300
}
fn default_full_interval() -> u64 {
    86_400
}
fn default_write_back() -> u64 {
    60
}

fn default_armis_interval() -> u64 {
    3600
}
fn default_pause() -> u64 {
    1000
}
fn default_netbox_page() -> usize {
    250
}
fn default_armis_page() -> usize {
    1000
}
fn default_aql() -> String {
    "in:devices".to_owned()
}
fn default_durable() -> String {
    "radarflow".to_owned()
}
fn default_subjects() -> Vec<String> {
    subjects::DEFAULT.iter().map(|s| (*s).to_owned()).collect()
}
fn default_kind() -> ReceiverKind {
    ReceiverKind::Alertmanager
}
fn default_group_by() -> Vec<String> {
    vec!["alertname".to_owned()]
}
fn default_group_wait() -> i64 {
    30_000
}
fn default_group_interval() -> i64 {
    300_000
}
fn default_repeat_interval() -> i64 {
    4 * 3_600_000
}
fn default_true() -> bool {
    true
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn one_socket() -> usize {
    1
}

fn sockets<'de, D: serde::Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let n = usize::deserialize(from)?;
    if (1..=MAX_SOCKETS).contains(&n) {
        return Ok(n);
    }
    Err(serde::de::Error::custom(format!("{n} sockets cannot share an address; 1 to {MAX_SOCKETS} can")))
}

fn socket(port: u16) -> Socket {
    Socket { addr: local(port), sockets: 1, tenant: default_name(), partition: default_name() }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: PathBuf::from("radarflow-data"),
            disk_reserve_mib: 256,
            memory_limit_mib: None,
            workers: std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
            http: Http::default(),
            grpc: vec![Grpc { addr: local(50052), tenant: default_name(), partition: String::new(), tls: None }],
            netflow: vec![socket(2055), socket(4739)],
            sflow: vec![socket(6343)],
            syslog: vec![socket(5514)],
            syslog_tls: Vec::new(),
            traps: vec![socket(1162)],
            sources: Sources::default(),
            sinks: Sinks::default(),
            receivers: Vec::new(),
            enrichment: Enrichment::default(),
            mappings: BTreeMap::new(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http { addr: local(8080), tls: None }
    }
}

impl Default for LakeConfig {
    fn default() -> Self {
        let vacuum_after_hours = (Keep::default().files.as_secs() / 3600) as u32;
        LakeConfig { enabled: true, path: None, retention_days: None, history_days: None, vacuum_after_hours }
    }
}

impl Socket {
    pub(crate) fn listener(&self) -> Listener {
        Listener { addr: self.addr, tenant: self.tenant.clone(), partition: self.partition.clone() }
    }
}

impl SecureSocket {
    pub(crate) fn listener(&self) -> Listener {
        Listener { addr: self.addr, tenant: self.tenant.clone(), partition: self.partition.clone() }
    }
}

impl Config {
    /// Whether nobody but this host can reach any listener.
    pub(crate) fn is_local(&self) -> bool {
        let sockets = [&self.netflow, &self.sflow, &self.syslog, &self.traps].into_iter().flatten().map(|s| s.addr);
        let others = self.grpc.iter().map(|g| g.addr).chain(self.syslog_tls.iter().map(|s| s.addr));
        sockets.chain(others).chain([self.http.addr]).all(|addr| addr.ip().is_loopback())
    }
}

impl Nats {
    pub(crate) fn source(&self) -> nats::Config {
        nats::Config {
            url: self.url.clone(),
            stream: self.stream.clone(),
            durable: self.durable.clone(),
            subjects: self.subjects.clone(),
            credentials: self.credentials.clone(),
            tenant: self.tenant.clone(),
            partition: self.partition.clone(),
        }
    }
}

impl Sources {
    /// The inventories that are asked.
    pub(crate) fn inventories(&self) -> impl Iterator<Item = Inventory> + '_ {
        self.netbox.iter().map(NetBox::source).chain(self.armis.iter().map(Armis::source))
    }
}

impl NetBox {
    fn source(&self) -> Inventory {
        let common = Common {
            name: self.name.clone(),
            url: self.url.clone(),
            tenant: self.tenant.clone(),
            partition: self.partition.clone(),
            every: Duration::from_secs(self.interval_s.max(1)),
            full_every: Duration::from_secs(self.full_interval_s),
            pause: Duration::from_millis(self.pause_ms),
            page: self.page.max(1),
            automatic: self.automatic,
        };
        let (token, vrf) = (self.token.clone(), self.vrf.clone());
        Inventory::NetBox(netbox::Config { common, token, vrf, interfaces: self.interfaces })
    }
}

impl Armis {
    /// What is written back, and where.
    pub(crate) fn write_back(&self) -> Option<(armis::Config, WriteBack)> {
        let every = Duration::from_secs(self.write_back_interval_s.max(1));
        let Inventory::Armis(config) = self.source() else { return None };
        self.write_back.clone().map(|property| (config, WriteBack { property, every }))
    }

    fn source(&self) -> Inventory {
        let every = Duration::from_secs(self.interval_s.max(1));
        let common = Common {
            name: self.name.clone(),
            url: self.url.clone(),
            tenant: self.tenant.clone(),
            partition: self.partition.clone(),
            every,
            // It cannot tell what changed: every run is a full one.
            full_every: Duration::ZERO,
            pause: Duration::from_millis(self.pause_ms),
            page: self.page.max(1),
            automatic: self.automatic,
        };
        Inventory::Armis(armis::Config { common, secret_key: self.secret_key.clone(), aql: self.aql.clone() })
    }
}

impl Kafka {
    pub(crate) fn source(&self) -> kafka::Config {
        kafka::Config {
            brokers: self.brokers.clone(),
            topics: self.topics.clone(),
            group: self.group.clone(),
            properties: self.properties.clone(),
            tenant: self.tenant.clone(),
            partition: self.partition.clone(),
        }
    }
}

impl ReceiverConfig {
    /// One that is told at once.
    pub(crate) fn local(name: &str, tenant: &str, url: &str) -> Self {
        ReceiverConfig {
            name: name.to_owned(),
            url: url.to_owned(),
            kind: default_kind(),
            tenant: tenant.to_owned(),
            group_by: default_group_by(),
            group_wait_ms: 0,
            group_interval_ms: 1000,
            repeat_interval_ms: default_repeat_interval(),
            send_resolved: true,
            headers: Default::default(),
        }
    }

    pub(crate) fn receiver(&self) -> Receiver {
        Receiver {
            tenant: self.tenant.clone(),
            name: self.name.clone(),
            url: self.url.clone(),
            kind: self.kind,
            group_by: self.group_by.clone(),
            group_wait_ms: self.group_wait_ms,
            group_interval_ms: self.group_interval_ms,
            repeat_interval_ms: self.repeat_interval_ms,
            send_resolved: self.send_resolved,
            headers: self.headers.clone(),
        }
    }
}

impl Config {
    /// Whether anything differs that only a start takes over.
    pub(crate) fn differs_for_good(&self, began: &Config) -> bool {
        let of_start = |config: &Config| {
            let mut config = config.clone();
            config.receivers.clear();
            config.enrichment.rules.clear();
            config.sources.partial.clear();
            format!("{config:?}")
        };
        of_start(self) != of_start(began)
    }
}

/// Reads the file, if one is named, and the environment.
pub(crate) fn load(file: Option<&Path>) -> Result<Config> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
        None => String::new(),
    };
    parse(&text, std::env::vars())
        .with_context(|| file.map_or_else(|| "in the environment".to_owned(), |f| format!("in {}", f.display())))
}

fn parse(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Config> {
    let mut table: toml::Table = toml::from_str(text)?;
    for (name, value) in environment {
        let Some(path) = name.strip_prefix("RADARFLOW__") else { continue };
        let path: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        set(&mut table, &path, &value).with_context(|| format!("environment variable {name}"))?;
    }
    let config: Config = match table.try_into() {
        Ok(config) => config,
        Err(error) => bail!("{}", explain(&error.to_string())),
    };
    let mut names = BTreeSet::new();
    let netbox = config.sources.netbox.iter().map(|n| ("netbox", &n.tenant, &n.name));
    for name in netbox.chain(config.sources.armis.iter().map(|a| ("armis", &a.tenant, &a.name))) {
        if !names.insert(name) {
            bail!("two [[sources.{}]] of tenant {} are called {:?}", name.0, name.1, name.2);
        }
    }
    drop(names);
    Ok(config)
}

fn set(table: &mut toml::Table, path: &[String], value: &str) -> Result<()> {
    let [key, rest @ ..] = path else { return Ok(()) };
    if rest.is_empty() {
        // A value that reads as TOML is one; anything else is text.
        let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
        table.insert(key.clone(), parsed.unwrap_or_else(|| toml::Value::String(value.to_owned())));
        return Ok(());
    }
    match table.entry(key.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new())) {
        toml::Value::Table(inner) => set(inner, rest, value),
        _ => bail!("{key} is not a section"),
    }
}

/// Adds the nearest known key to an "unknown field" error.
fn explain(error: &str) -> String {
    // The section it is in stands on a line of its own.
    let said = error.lines().find(|line| line.contains("unknown field")).unwrap_or(error);
    let names: Vec<&str> = said.split('`').skip(1).step_by(2).collect();
    if !error.contains("unknown field") || names.len() < 2 {
        return error.to_owned();
    }
    let nearest = names[1..]
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(names[0], a).total_cmp(&strsim::jaro_winkler(names[0], b)));
    match nearest {
        Some(nearest) => format!("{}; did you mean `{nearest}`?", error.trim()),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> impl Iterator<Item = (String, String)> {
        std::iter::empty()
    }

    #[test]
    fn nothing_configured_works_and_unknown_keys_do_not() {
        assert_eq!(parse("", none()).unwrap().http.addr.port(), 8080);
        let error = parse("[htpp]\naddr = \"127.0.0.1:1\"", none()).unwrap_err().to_string();
        assert!(error.contains("did you mean `http`?"), "{error}");
    }

    #[test]
    fn the_example_is_what_it_says() {
        let example = parse(include_str!("../deploy/radarflow.example.toml"), none()).unwrap();
        let default = Config::default();
        assert_eq!(example.http.addr, default.http.addr);
        assert_eq!(example.disk_reserve_mib, default.disk_reserve_mib);
        let ports = |sockets: &[Socket]| sockets.iter().map(|s| (s.addr, s.partition.clone())).collect::<Vec<_>>();
        for (said, is) in [
            (&example.netflow, &default.netflow),
            (&example.sflow, &default.sflow),
            (&example.syslog, &default.syslog),
            (&example.traps, &default.traps),
        ] {
            assert_eq!(ports(said), ports(is));
        }
        assert_eq!(example.sources.nats[0].subjects, default_subjects());
        assert_eq!(example.sources.kafka[0].topics, default_subjects());
        let (netbox, armis) = (&example.sources.netbox[0], &example.sources.armis[0]);
        assert_eq!((netbox.interval_s, netbox.full_interval_s), (default_interval(), default_full_interval()));
        assert_eq!((netbox.page, netbox.pause_ms), (default_netbox_page(), default_pause()));
        assert_eq!((armis.interval_s, armis.page), (default_armis_interval(), default_armis_page()));
        assert_eq!((armis.aql.as_str(), armis.pause_ms), (default_aql().as_str(), default_pause()));
        assert_eq!(example.sinks.lake.vacuum_after_hours, default.sinks.lake.vacuum_after_hours);
        let receiver = &example.receivers[0];
        assert_eq!(
            (receiver.group_wait_ms, receiver.group_interval_ms, receiver.repeat_interval_ms),
            (default_group_wait(), default_group_interval(), default_repeat_interval())
        );
    }

    #[test]
    fn the_environment_overrides() {
        let env =
            [("RADARFLOW__SINKS__POSTGRES__URL", "postgres://x"), ("RADARFLOW__WORKERS", "3"), ("RADARFLOW_URL", "y")];
        let config = parse("workers = 1", env.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter()).unwrap();
        assert_eq!(config.sinks.postgres.unwrap().url, "postgres://x");
        assert_eq!(config.workers, 3);
    }
}
