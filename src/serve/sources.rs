//! The world: sockets, gateways, brokers, inventories.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use radarflow_connectors::sources::accept::ConnectionSlots;
use radarflow_connectors::sources::enrolled::Enrolled;
use radarflow_connectors::sources::tls::Tls;
use radarflow_connectors::sources::udp::Datagrams;
use radarflow_connectors::sources::{Durable, Stop, grpc, inventory, kafka, nats, otlp, pull, stage, tcp, udp};
use radarflow_dataflows::worker::Backlog;
use radarflow_proto::offsets::Offsets;
use radarflow_proto::ports::Appender;
use radarflow_proto::room::Room;

use super::snmp::Speakers;
use crate::config::{Config, Socket};
use crate::standing::Registry;

/// What sources are connected to.
pub(super) struct World {
    pub(super) appender: Arc<dyn Appender>,
    pub(super) registry: Arc<Registry>,
    /// What agents are told.
    pub(super) configurations: Arc<grpc::Configurations>,
    pub(super) commands: Arc<grpc::Commands>,
    /// Inventories that people state.
    pub(super) integrations: Arc<pull::stated::Stated>,
    /// Agents that are enrolled.
    pub(super) enrolled: Arc<Enrolled>,
    /// What waits in staged runs.
    pub(super) backlog: Arc<Backlog>,
    /// Memory for what is read of feeds.
    pub(super) room: Arc<Room>,
    pub(super) stop: Stop,
}

/// What is open.
pub(super) struct Sources {
    pub(super) listening: Listening,
    pub(super) certificates: Vec<Arc<Tls>>,
    pub(super) feeds: Feeds,
    /// Runs of inventories, for those that are asked and those that are pushed.
    pub(super) runs: inventory::Runs,
}

/// Addresses that listeners got, in the order of the configuration.
#[derive(Clone, Default)]
pub(crate) struct Listening {
    pub(crate) netflow: Vec<SocketAddr>,
    pub(crate) sflow: Vec<SocketAddr>,
    pub(crate) syslog: Vec<SocketAddr>,
    pub(crate) traps: Vec<SocketAddr>,
    pub(crate) grpc: Vec<SocketAddr>,
    pub(crate) postgres: Vec<SocketAddr>,
    otlp: Vec<SocketAddr>,
    syslog_tcp: Vec<SocketAddr>,
    syslog_tls: Vec<SocketAddr>,
    ipfix_tcp: Vec<SocketAddr>,
}

impl Listening {
    /// Each with what it listens for.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> + '_ {
        let kinds = [
            ("netflow", &self.netflow),
            ("sflow", &self.sflow),
            ("syslog", &self.syslog),
            ("syslog-tcp", &self.syslog_tcp),
            ("syslog-tls", &self.syslog_tls),
            ("ipfix-tcp", &self.ipfix_tcp),
            ("traps", &self.traps),
            ("grpc", &self.grpc),
            ("otlp", &self.otlp),
            ("postgres", &self.postgres),
        ];
        kinds.into_iter().flat_map(|(name, addrs)| addrs.iter().map(move |addr| (name, *addr)))
    }
}

/// Sources that take a while to end.
#[derive(Default)]
pub(super) struct Feeds {
    udp: Vec<udp::UdpSource>,
    nats: Vec<nats::NatsSource>,
    kafka: Vec<kafka::KafkaSource>,
}

impl Feeds {
    /// Waits until they have ended; they were told to.
    pub(super) async fn join(self) -> Result<()> {
        let udp = self.udp;
        tokio::task::spawn_blocking(move || udp.into_iter().for_each(udp::UdpSource::join)).await?;
        for source in self.nats {
            source.join().await;
        }
        for source in self.kafka {
            source.join().await;
        }
        Ok(())
    }
}

/// Lets the world in. `offsets` are what is durable of feeds with offsets of their own.
pub(super) async fn open(
    config: &Config,
    world: &World,
    offsets: BTreeMap<String, Offsets>,
    speakers: &Speakers,
    [of_grpc, of_syslog, of_ipfix, of_otlp]: [Arc<ConnectionSlots>; 4],
) -> Result<Sources> {
    let World { appender, registry, room: memory, stop, .. } = world;
    let into = tcp::Into { appender: appender.clone(), room: memory.clone() };
    let (mut listening, mut feeds, mut certificates) = (Listening::default(), Feeds::default(), Vec::new());
    let always = |what: Datagrams| move |_: &str| Some(what.clone());
    listening.netflow = world.datagrams(&always(Datagrams::NetFlow), &config.netflow, &mut feeds)?;
    listening.sflow = world.datagrams(&always(Datagrams::SFlow), &config.sflow, &mut feeds)?;
    listening.syslog = world.datagrams(&always(Datagrams::Syslog), &config.syslog, &mut feeds)?;
    listening.traps = world.datagrams(&|tenant| speakers.datagrams(tenant), &config.traps, &mut feeds)?;
    for socket in &config.syslog {
        let (slots, into) = (of_syslog.clone(), into.clone());
        listening.syslog_tcp.push(tcp::syslog(&socket.listener(), None, slots, into, stop.clone()).await?);
    }
    for socket in &config.syslog_tls {
        let tls = Tls::read(socket.tls.clone(), &[])?;
        certificates.push(tls.clone());
        let (slots, into) = (of_syslog.clone(), into.clone());
        listening.syslog_tls.push(tcp::syslog(&socket.listener(), Some(tls), slots, into, stop.clone()).await?);
    }
    for socket in &config.netflow {
        let (slots, into) = (of_ipfix.clone(), into.clone());
        listening.ipfix_tcp.push(tcp::ipfix(&socket.listener(), slots, into, stop.clone()).await?);
    }
    for one in &config.otlp {
        let tls = one.tls.as_ref().map(|files| Tls::read(files.clone(), otlp::PROTOCOLS)).transpose()?;
        certificates.extend(tls.clone());
        let (slots, into) = (of_otlp.clone(), into.clone());
        listening.otlp.push(otlp::start(&one.listener(), tls, slots, into, stop.clone()).await?);
    }
    let staged = world.backlog.clone();
    let space: stage::StagingSpace = Arc::new(move || staged.bytes() < stage::STAGED_BYTES);
    for gateway in &config.grpc {
        let tls = match &gateway.tls {
            Some(files) => Some(Tls::read(files.clone(), grpc::PROTOCOLS)?),
            None if gateway.names.is_empty() => None,
            None => Some(Tls::enrolled(world.enrolled.clone(), &gateway.tenant, &gateway.names, grpc::PROTOCOLS)),
        };
        certificates.extend(tls.clone());
        let (appender, instances, space, room) = (appender.clone(), registry.clone(), space.clone(), memory.clone());
        let (configurations, commands) = (world.configurations.clone(), world.commands.clone());
        let into = grpc::Into { configurations, commands, appender, instances, space, room };
        listening.grpc.push(grpc::start(&gateway.listener(), tls, of_grpc.clone(), into, stop.clone()).await?);
    }
    let durable = Arc::new(Durable::new(offsets));
    for source in &config.sources.nats {
        feeds.nats.push(nats::start(source.source(), appender.clone(), durable.clone(), memory, stop.clone()).await?);
    }
    for source in &config.sources.kafka {
        feeds.kafka.push(kafka::start(source.source(), appender.clone(), durable.clone(), memory, stop.clone())?);
    }
    let runs = inventory::Runs::new(appender.clone(), registry.clone(), space, memory.clone());
    for inventory in config.sources.inventories().filter(pull::Inventory::is_automatic) {
        pull::start(inventory, runs.clone(), stop.clone())?;
    }
    tokio::spawn(world.integrations.clone().run(runs.clone(), stop.clone()));
    Ok(Sources { listening, certificates, feeds, runs })
}

impl World {
    /// Opens sockets; what they bring follows from whose they are.
    fn datagrams(
        &self,
        what: &dyn Fn(&str) -> Option<Datagrams>,
        sockets: &[Socket],
        feeds: &mut Feeds,
    ) -> Result<Vec<SocketAddr>> {
        let runtime = tokio::runtime::Handle::current();
        let mut addrs = Vec::new();
        for socket in sockets {
            let Some(what) = what(&socket.tenant) else { continue };
            let (listener, appender) = (socket.listener(), &self.appender);
            let running = udp::start(&what, &listener, socket.share(), appender, &self.stop, &runtime)?;
            addrs.push(running.addr);
            feeds.udp.push(running);
        }
        Ok(addrs)
    }
}
