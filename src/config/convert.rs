//! What the parts take, made from what was configured.

use std::sync::Arc;
use std::time::Duration;

use radarflow_connectors::reach::Reach;
use radarflow_connectors::sinks::armis::WriteBack;
use radarflow_connectors::sinks::lake::Keep;
use radarflow_connectors::sources::pull::{Common, Inventory, armis, netbox};
use radarflow_connectors::sources::udp::Share;
use radarflow_connectors::sources::{Listener, kafka, nats};
use radarflow_proto::fact::Receiver;
use radarflow_proto::record::SourceKind;
use radarflow_proto::snmp::usm::UserConfig;
use radarflow_reconcile::flows::prefixes::{Prefix, Prefixes};
use radarflow_reconcile::mapping::Whose;

use super::defaults;
use super::schema::{
    Armis, Config, Enrichment, Grpc, Kafka, LakeConfig, Nats, NetBox, Otlp, Partial, ReceiverConfig, SecureSocket,
    SnmpUser, Socket, Sources,
};

impl Config {
    /// Whether nobody but this host can reach any listener.
    pub(crate) fn is_local(&self) -> bool {
        let sockets = [&self.netflow, &self.sflow, &self.syslog, &self.traps].into_iter().flatten().map(|s| s.addr);
        let others = self.grpc.iter().map(|g| g.addr).chain(self.syslog_tls.iter().map(|s| s.addr));
        let others = others.chain(self.postgres.iter().map(|p| p.addr)).chain(self.otlp.iter().map(|o| o.addr));
        sockets.chain(others).chain([self.http.addr]).all(|addr| addr.ip().is_loopback())
    }

    /// Whether anything differs that only a start takes over.
    pub(crate) fn differs_for_good(&self, began: &Config) -> bool {
        let of_start = |config: &Config| {
            let mut config = config.clone();
            config.receivers.clear();
            config.enrichment = Enrichment::default();
            config.snmp_users.clear();
            config.sources.partial.clear();
            format!("{config:?}")
        };
        of_start(self) != of_start(began)
    }
}

impl Socket {
    pub(crate) fn listener(&self) -> Listener {
        Listener { addr: self.addr, tenant: self.tenant.clone(), partition: self.partition.clone() }
    }

    pub(crate) fn share(&self) -> Share {
        Share { sockets: self.sockets, most_of_sender: self.sender_rate }
    }
}

impl SnmpUser {
    /// What makes the user; who says how and not with what is told so.
    pub(crate) fn user(&self) -> Result<UserConfig<'_>, String> {
        let pair = |how: &'static str, name: &'_ Option<String>, password: &'_ Option<String>| match (name, password) {
            (Some(_), None) => Err(format!("`{how}_password` is missing")),
            (None, Some(_)) => Err(format!("`{how}` is missing: how the password is used")),
            _ => Ok(()),
        };
        pair("auth", &self.auth, &self.auth_password)?;
        pair("privacy", &self.privacy, &self.privacy_password)?;
        let auth = self.auth.as_deref().zip(self.auth_password.as_deref());
        let privacy = self.privacy.as_deref().zip(self.privacy_password.as_deref());
        let config = UserConfig { name: &self.name, engine: self.engine.as_deref(), auth, privacy };
        config.check().map(|()| config)
    }
}

impl SecureSocket {
    pub(crate) fn listener(&self) -> Listener {
        Listener { addr: self.addr, tenant: self.tenant.clone(), partition: self.partition.clone() }
    }
}

impl Otlp {
    pub(crate) fn listener(&self) -> Listener {
        Listener { addr: self.addr, tenant: self.tenant.clone(), partition: self.partition.clone() }
    }
}

impl Grpc {
    pub(crate) fn listener(&self) -> Listener {
        Listener { addr: self.addr, tenant: self.tenant.clone(), partition: self.partition.clone() }
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
            reach: Reach::Anywhere,
            leave_out: left_out(&self.leave_out),
        };
        let (token, vrf) = (self.token.clone(), self.vrf.clone());
        Inventory::NetBox(netbox::Config { common, token, vrf, interfaces: self.interfaces })
    }
}

impl Armis {
    /// What is written back, and where.
    pub(crate) fn write_back(&self) -> Option<(armis::Config, WriteBack)> {
        let every = Duration::from_secs(self.write_back_interval_s.max(1));
        self.write_back.clone().map(|property| (self.config(), WriteBack { property, every }))
    }

    fn source(&self) -> Inventory {
        Inventory::Armis(self.config())
    }

    fn config(&self) -> armis::Config {
        let common = Common {
            name: self.name.clone(),
            url: self.url.clone(),
            tenant: self.tenant.clone(),
            partition: self.partition.clone(),
            every: Duration::from_secs(self.interval_s.max(1)),
            // It cannot tell what changed: every run is a full one.
            full_every: Duration::ZERO,
            pause: Duration::from_millis(self.pause_ms),
            page: self.page.max(1),
            automatic: self.automatic,
            reach: Reach::Anywhere,
            leave_out: left_out(&self.leave_out),
        };
        armis::Config { common, secret_key: self.secret_key.clone(), queries: self.aql.clone() }
    }
}

fn left_out(prefixes: &[Prefix]) -> Arc<Prefixes<()>> {
    Arc::new(Prefixes::new(prefixes.iter().map(|prefix| (*prefix, ())).collect()))
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

impl LakeConfig {
    /// How long it keeps what.
    pub(crate) fn keep(&self) -> Keep {
        let hours = |n: u32| Duration::from_secs(u64::from(n) * 3600);
        Keep {
            events: self.retention_days.map(|days| hours(days * 24)),
            history: self.history_days.map(|days| hours(days * 24)),
            files: hours(self.vacuum_after_hours),
            quiet: Duration::from_secs(self.commit_interval_s),
            ..Keep::default()
        }
    }
}

impl ReceiverConfig {
    /// One that is told at once.
    pub(crate) fn local(name: &str, tenant: &str, url: &str) -> Self {
        ReceiverConfig {
            name: name.to_owned(),
            url: url.to_owned(),
            kind: defaults::receiver_kind(),
            tenant: tenant.to_owned(),
            group_by: defaults::group_by(),
            group_wait_ms: 0,
            group_interval_ms: 1000,
            repeat_interval_ms: defaults::repeat_interval_ms(),
            send_resolved: true,
            headers: Default::default(),
            credential: None,
            signing_key: None,
            template: None,
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
            credential: self.credential.clone(),
            signing_key: self.signing_key.clone(),
            template: self.template.clone(),
            of_host: true,
        }
    }
}
