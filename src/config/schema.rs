//! What a configuration file may say: a struct a section, a field a key. `deploy/radarflow.example.toml` has every key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use radarflow_connectors::sinks::lake::Keep;
use radarflow_connectors::sources::tls::Files;
use radarflow_proto::fact::ReceiverKind;
use radarflow_proto::flow::tables::{ApplicationEntry, AsEntry, ExporterEntry, InterfaceRule, NetworkEntry};
use radarflow_reconcile::flows::prefixes::Prefix;
use reqwest::Url;
use serde::Deserialize;

use super::{defaults, values};

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
    /// How mail is sent; no links to sign in without it.
    pub(crate) mail: Option<Mail>,
    /// Clients that speak the protocol of Postgres.
    pub(crate) postgres: Option<Postgres>,
    /// gRPC gateways.
    pub(crate) grpc: Vec<Grpc>,
    /// The agent inside.
    pub(crate) agent: Agent,
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
    /// OTLP, by gRPC and by HTTP.
    pub(crate) otlp: Vec<Otlp>,
    /// Who may send those of SNMPv3.
    pub(crate) snmp_users: Vec<SnmpUser>,
    /// Brokers and inventories to read from.
    pub(crate) sources: Sources,
    /// Where outputs go.
    pub(crate) sinks: Sinks,
    /// Who is told of alerts.
    pub(crate) receivers: Vec<ReceiverConfig>,
    /// Whether what people state, not this file, may have addresses that not everybody can reach: receivers, identity providers,
    /// integrations.
    pub(crate) private_addresses: bool,
    /// Rules that tell what devices are, and what is known of flows.
    pub(crate) enrichment: Enrichment,
    /// Files that say what the columns of pushed inventories mean, by name.
    pub(crate) mappings: BTreeMap<String, PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let socket = |port| Socket {
            addr: defaults::local(port),
            sockets: 1,
            sender_rate: None,
            tenant: defaults::name(),
            partition: defaults::name(),
        };
        let gateway = Grpc {
            addr: defaults::local(50052),
            tenant: defaults::name(),
            partition: String::new(),
            tls: None,
            names: Vec::new(),
        };
        let otlp = |port| Otlp {
            addr: defaults::local(port),
            tenant: defaults::name(),
            partition: defaults::name(),
            tls: None,
        };
        Config {
            data_dir: PathBuf::from("radarflow-data"),
            disk_reserve_mib: 256,
            memory_limit_mib: None,
            workers: std::thread::available_parallelism().map_or(1, |n| n.get().min(4)),
            http: Http::default(),
            mail: None,
            postgres: None,
            grpc: vec![gateway],
            agent: Agent::default(),
            netflow: vec![socket(2055), socket(4739)],
            sflow: vec![socket(6343)],
            syslog: vec![socket(5514)],
            syslog_tls: Vec::new(),
            traps: vec![socket(1162)],
            otlp: vec![otlp(4317), otlp(4318)],
            snmp_users: Vec::new(),
            sources: Sources::default(),
            sinks: Sinks::default(),
            receivers: Vec::new(),
            private_addresses: false,
            enrichment: Enrichment::default(),
            mappings: BTreeMap::new(),
        }
    }
}

/// `[http]`: the HTTP API.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Its certificates; plain HTTP without them.
    pub(crate) tls: Option<Files>,
    /// How browsers reach it, as identity providers and links sent by mail name it: `https://radar.example.net`. The loopback
    /// address that a browser came to where nothing is said.
    #[serde(deserialize_with = "values::public_url")]
    pub(crate) public_url: Option<String>,
}

impl Default for Http {
    fn default() -> Self {
        Http { addr: defaults::local(8080), tls: None, public_url: None }
    }
}

/// `[mail]`: how links to sign in are sent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mail {
    /// The server: `smtps://user:password@host`, `smtp://host:587?tls=required`, or what names it (`env:`, `file:`).
    pub(crate) smtp: String,
    /// Whom it is from.
    pub(crate) from: String,
}

/// `[postgres]`: SQL over the protocol of Postgres, read-only.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Postgres {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Its certificates, for clients that ask for TLS.
    pub(crate) tls: Option<Files>,
    /// Whether passwords are taken without TLS from other hosts too.
    pub(crate) plaintext: bool,
}

impl Default for Postgres {
    fn default() -> Self {
        Postgres { addr: defaults::local(5433), tls: None, plaintext: false }
    }
}

/// `[[netflow]]`, `[[sflow]]`, `[[syslog]]`, `[[traps]]`: one address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Socket {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Sockets that share it for datagrams, a thread each.
    #[serde(default = "defaults::sockets", deserialize_with = "values::sockets")]
    pub(crate) sockets: usize,
    /// Datagrams a second that are taken of one sender; the rest are shed, and counted as its own.
    #[serde(default, deserialize_with = "values::sender_rate")]
    pub(crate) sender_rate: Option<u32>,
    /// Whom its input belongs to.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// The site of its input.
    #[serde(default = "defaults::name")]
    pub(crate) partition: String,
}

/// `[[snmp_users]]`: somebody who may send notifications of SNMPv3, and be answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SnmpUser {
    /// Its name.
    pub(crate) name: String,
    /// Whose listeners take it.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// At which engine alone, hex digits; at all where nothing is said.
    pub(crate) engine: Option<String>,
    /// How it authenticates.
    pub(crate) auth: Option<String>,
    /// With which password.
    #[serde(default, deserialize_with = "values::some_secret")]
    pub(crate) auth_password: Option<String>,
    /// How it encrypts.
    pub(crate) privacy: Option<String>,
    /// With which password.
    #[serde(default, deserialize_with = "values::some_secret")]
    pub(crate) privacy_password: Option<String>,
}

/// `[[syslog_tls]]`: one address for syslog over TLS.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecureSocket {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Whom its input belongs to.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// The site of its input.
    #[serde(default = "defaults::name")]
    pub(crate) partition: String,
    /// Its certificates.
    pub(crate) tls: Files,
}

/// `[[otlp]]`: one address for OTLP; each takes gRPC and HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Otlp {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Whom its input belongs to.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// The site of its input.
    #[serde(default = "defaults::name")]
    pub(crate) partition: String,
    /// Its certificates; plaintext without them.
    pub(crate) tls: Option<Files>,
}

/// `[[grpc]]`: one gateway for agents.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grpc {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// Whom its input belongs to.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// The site of its input; the payload's counts where nothing is said.
    #[serde(default)]
    pub(crate) partition: String,
    /// Its certificates; needed beyond loopback, or `names`.
    pub(crate) tls: Option<Files>,
    /// It is for enrolled agents, who call it so (names of hosts, addresses): the tenant's own authority signs its certificate
    /// and theirs.
    #[serde(default)]
    pub(crate) names: Vec<String>,
}

impl Grpc {
    /// Whether everybody on this host may speak to it.
    pub(crate) fn is_open(&self) -> bool {
        self.tls.is_none() && self.names.is_empty()
    }
}

/// `[agent]`: the agent inside, which does what profiles say from this host.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Agent {
    /// Whether there is one.
    pub(crate) enabled: bool,
    /// What it is called.
    pub(crate) id: String,
}

impl Default for Agent {
    fn default() -> Self {
        Agent { enabled: false, id: "local".to_owned() }
    }
}

/// `[sources]`: what is read from elsewhere.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sources {
    /// JetStream streams.
    pub(crate) nats: Vec<Nats>,
    /// Kafka clusters.
    pub(crate) kafka: Vec<Kafka>,
    /// NetBoxes.
    pub(crate) netbox: Vec<NetBox>,
    /// Armis tenants.
    pub(crate) armis: Vec<Armis>,
    /// Sources that say only what they know.
    pub(crate) partial: Vec<Partial>,
}

/// `[[sources.partial]]`: a source whose records are filled from what it said before.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Partial {
    /// `armis/main`, `netbox/main`, `servicenow/emea`.
    #[serde(deserialize_with = "values::source")]
    pub(crate) name: (String, String),
    /// Whose it is.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
}

/// `[[sources.netbox]]`: a NetBox that is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetBox {
    /// The source instance.
    #[serde(deserialize_with = "values::instance")]
    pub(crate) name: String,
    /// The base of its API.
    #[serde(deserialize_with = "values::endpoint")]
    pub(crate) url: Url,
    /// An API token that may read.
    #[serde(deserialize_with = "values::secret")]
    pub(crate) token: String,
    /// Site by VRF of the primary address.
    #[serde(default)]
    pub(crate) vrf: BTreeMap<String, String>,
    /// Whether interfaces are asked for their MACs.
    #[serde(default = "defaults::yes")]
    pub(crate) interfaces: bool,
    /// Whom its devices belong to.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// The site of devices whose VRF names none.
    #[serde(default = "defaults::name")]
    pub(crate) partition: String,
    /// How often it is asked what changed.
    #[serde(default = "defaults::netbox_interval_s")]
    pub(crate) interval_s: u64,
    /// How often it is asked for everything.
    #[serde(default = "defaults::netbox_full_interval_s")]
    pub(crate) full_interval_s: u64,
    /// The first pause after a failure; the next are longer.
    #[serde(default = "defaults::pause_ms")]
    pub(crate) pause_ms: u64,
    /// Whether it is asked by itself, or only for a plan.
    #[serde(default = "defaults::yes")]
    pub(crate) automatic: bool,
    /// Items of a page.
    #[serde(default = "defaults::netbox_page")]
    pub(crate) page: usize,
    /// Networks whose addresses are left out; what has no other is left out itself.
    #[serde(default, deserialize_with = "values::prefixes")]
    pub(crate) leave_out: Vec<Prefix>,
}

/// `[[sources.armis]]`: an Armis tenant that is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Armis {
    /// The source instance.
    #[serde(deserialize_with = "values::instance")]
    pub(crate) name: String,
    /// The base of its API.
    #[serde(deserialize_with = "values::endpoint")]
    pub(crate) url: Url,
    /// The secret of its API.
    #[serde(deserialize_with = "values::secret")]
    pub(crate) secret_key: String,
    /// Which devices are asked for: a search, or several.
    #[serde(default = "defaults::aql", deserialize_with = "values::one_or_more")]
    pub(crate) aql: Vec<String>,
    /// The custom property that tells whether a device answers; nothing is written without it.
    pub(crate) write_back: Option<String>,
    /// How often it is written.
    #[serde(default = "defaults::write_back_interval_s")]
    pub(crate) write_back_interval_s: u64,
    /// Whom its devices belong to.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// The site of its devices.
    #[serde(default = "defaults::name")]
    pub(crate) partition: String,
    /// How often it is asked, for everything each time.
    #[serde(default = "defaults::armis_interval_s")]
    pub(crate) interval_s: u64,
    /// The first pause after a failure; the next are longer.
    #[serde(default = "defaults::pause_ms")]
    pub(crate) pause_ms: u64,
    /// Whether it is asked by itself, or only for a plan.
    #[serde(default = "defaults::yes")]
    pub(crate) automatic: bool,
    /// Items of a page.
    #[serde(default = "defaults::armis_page")]
    pub(crate) page: usize,
    /// Networks whose addresses are left out; what has no other is left out itself.
    #[serde(default, deserialize_with = "values::prefixes")]
    pub(crate) leave_out: Vec<Prefix>,
}

/// `[[sources.nats]]`: a JetStream stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nats {
    /// Its server.
    #[serde(deserialize_with = "values::secret")]
    pub(crate) url: String,
    /// The stream.
    pub(crate) stream: String,
    /// Begins the names of the consumers.
    #[serde(default = "defaults::consumer")]
    pub(crate) durable: String,
    /// What is read of it.
    #[serde(default = "defaults::subjects")]
    pub(crate) subjects: Vec<String>,
    /// The file of its credentials.
    pub(crate) credentials: Option<PathBuf>,
    /// Whom its input belongs to.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// The site of its input.
    #[serde(default = "defaults::name")]
    pub(crate) partition: String,
}

/// `[[sources.kafka]]`: topics of a Kafka cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    /// Its servers, with commas between them.
    pub(crate) brokers: String,
    /// What is read.
    #[serde(default = "defaults::subjects")]
    pub(crate) topics: Vec<String>,
    /// The consumer group.
    #[serde(default = "defaults::consumer")]
    pub(crate) group: String,
    /// Whom its input belongs to.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// The site of its input.
    #[serde(default = "defaults::name")]
    pub(crate) partition: String,
    /// Settings of librdkafka.
    #[serde(default, deserialize_with = "values::secrets")]
    pub(crate) properties: BTreeMap<String, String>,
}

/// `[sinks]`: where outputs go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sinks {
    /// A Postgres database.
    pub(crate) postgres: Option<PostgresConfig>,
    /// The lake.
    pub(crate) lake: LakeConfig,
}

/// `[sinks.postgres]`: a database that holds the state tables and recent events.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PostgresConfig {
    /// The database.
    #[serde(deserialize_with = "values::secret")]
    pub(crate) url: String,
}

/// `[sinks.lake]`: Delta tables of everything.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LakeConfig {
    /// Whether there is one.
    pub(crate) enabled: bool,
    /// `<data_dir>/lake` where nothing is said.
    pub(crate) path: Option<PathBuf>,
    /// Days that rows of event tables are kept; for ever where nothing is said.
    pub(crate) retention_days: Option<u32>,
    /// Days of which it is kept what state tables held, beside those back to a checkpoint before; for ever where nothing is
    /// said.
    pub(crate) history_days: Option<u32>,
    /// Hours that files are kept which newer versions of a table do not have; one at least.
    pub(crate) vacuum_after_hours: u32,
    /// Seconds after which what changed is in the lake at the latest; event tables commit every five seconds at least.
    #[serde(deserialize_with = "values::seconds")]
    pub(crate) commit_interval_s: u64,
}

impl Default for LakeConfig {
    fn default() -> Self {
        let vacuum_after_hours = (Keep::default().files.as_secs() / 3600) as u32;
        let commit_interval_s = Keep::default().quiet.as_secs();
        let (retention_days, history_days) = (None, None);
        LakeConfig { enabled: true, path: None, retention_days, history_days, vacuum_after_hours, commit_interval_s }
    }
}

/// `[[receivers]]`: a receiver of notifications.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiverConfig {
    /// Names it within its tenant.
    pub(crate) name: String,
    /// Where it is told.
    pub(crate) url: String,
    /// What it understands.
    #[serde(default = "defaults::receiver_kind")]
    pub(crate) kind: ReceiverKind,
    /// Whose alerts it is told of.
    #[serde(default = "defaults::name")]
    pub(crate) tenant: String,
    /// Labels whose alerts are told of together.
    #[serde(default = "defaults::group_by")]
    pub(crate) group_by: Vec<String>,
    /// How long a new group waits for company.
    #[serde(default = "defaults::group_wait_ms")]
    pub(crate) group_wait_ms: i64,
    /// Least time between messages about a group that changed.
    #[serde(default = "defaults::group_interval_ms")]
    pub(crate) group_interval_ms: i64,
    /// An unchanged group that fires is told of again after so long.
    #[serde(default = "defaults::repeat_interval_ms")]
    pub(crate) repeat_interval_ms: i64,
    /// Whether it is told that alerts are over.
    #[serde(default = "defaults::yes")]
    pub(crate) send_resolved: bool,
    /// Headers of its messages; their values may say where they are found, which is read when they are sent.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The key that PagerDuty or Opsgenie knows us by, or where it is found.
    #[serde(default)]
    pub(crate) credential: Option<String>,
    /// The key that messages are signed with, or where it is found.
    #[serde(default)]
    pub(crate) signing_key: Option<String>,
    /// What a message of kind `template` says.
    #[serde(default)]
    pub(crate) template: Option<String>,
}

/// `[enrichment]`: rules that tell what devices are, and what is known of flows.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Enrichment {
    /// Files, or folders of them; of rules of one name the last file's counts, before the program's own.
    pub(crate) rules: Vec<PathBuf>,
    /// What exporters of flows are.
    pub(crate) exporters: Vec<ExporterEntry>,
    /// Rules that tell what interfaces are; the first that matches counts.
    pub(crate) interfaces: Vec<InterfaceRule>,
    /// What networks are.
    pub(crate) networks: Vec<NetworkEntry>,
    /// The same in CSV files, whose first line has the names of the fields.
    pub(crate) network_files: Vec<PathBuf>,
    /// Which applications have which ports.
    pub(crate) applications: Vec<ApplicationEntry>,
    /// What autonomous systems are called.
    pub(crate) autonomous_systems: Vec<AsEntry>,
    /// Files of the MaxMind form that tell where addresses are, and whose.
    pub(crate) address_files: Vec<PathBuf>,
}
