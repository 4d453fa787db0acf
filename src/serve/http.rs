//! HTTP: a door that answers from the first moment on, and the API behind it once everything is ready.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use radarflow_connectors::http as outwards;
use radarflow_connectors::mail::Mailer;
use radarflow_connectors::reach::{self, Reach};
use radarflow_connectors::sealing;
use radarflow_connectors::sources::accept::{self, ConnectionSlots};
use radarflow_connectors::sources::tls::Tls;
use radarflow_connectors::sources::{Stop, inventory, pull};
use radarflow_pipeline::{Pipeline, Replay};
use radarflow_proto::ports::Appender;
use radarflow_proto::record::SourceKind;
use radarflow_query::engine::{Engine, EngineLimits};
use radarflow_query::http::door::Door;
use radarflow_query::http::{self, Api, AskServer, Attempts, Issuers, Question, SendMail};
use radarflow_query::live::streams::Streams;
use radarflow_query::postgres;
use radarflow_query::records::plans::Plans;

use super::clients::Clients;
use super::consumers::Heard;
use super::records::Records;
use super::sinks::Sinks;
use crate::config::{self, Config, Mail};
use crate::memory::{Budget, Rooms};
use crate::{metrics, watch};

/// How long a server of an identity provider may take.
const PROVIDER_WAIT: Duration = Duration::from_secs(10);
/// Bytes of what it says.
const PROVIDER_BYTES: usize = 256 << 10;

/// What is open.
pub(super) struct Http {
    pub(super) addr: SocketAddr,
    pub(super) url: String,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) door: Arc<Door>,
    /// Ends once the door is shut and requests are answered.
    pub(super) answering: tokio::task::JoinHandle<()>,
}

/// Listens. The door says that the program lives, and is not ready.
pub(super) async fn open(config: &config::Http, slots: Arc<ConnectionSlots>) -> Result<Http> {
    let socket = tokio::net::TcpListener::bind(config.addr)
        .await
        .with_context(|| format!("HTTP cannot listen on {}; change [http] addr, or stop what uses it", config.addr))?;
    let addr = socket.local_addr()?;
    let tls = config.tls.as_ref().map(|files| Tls::read(files.clone(), http::PROTOCOLS)).transpose()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    if tls.is_none() && !addr.ip().is_loopback() {
        tracing::warn!(%addr, "HTTP is not encrypted: tokens can be read on their way; configure [http.tls], or let a proxy do it");
    }
    let door = Arc::new(Door::default());
    let connections = accept::connections(socket, tls.clone(), slots);
    let connections = connections
        .map(|connection| connection.map(|io| http::Connection { peer: io.peer().ip(), held: io.more(), io }));
    let answering = tokio::spawn(http::serve(connections, door.clone()));
    Ok(Http { addr, url: format!("{scheme}://{addr}"), tls, door, answering })
}

/// What the API is connected to.
pub(super) struct Connected<'a> {
    pub(super) config: &'a Config,
    /// The secret of this installation.
    pub(super) key: [u8; 32],
    pub(super) memory: &'a Arc<Budget>,
    pub(super) rooms: &'a Rooms,
    pub(super) pipeline: &'a Pipeline,
    pub(super) replay: &'a Arc<Replay>,
    pub(super) sinks: &'a Sinks,
    pub(super) heard: &'a Heard,
    pub(super) appender: &'a Arc<dyn Appender>,
    pub(super) runs: inventory::Runs,
    pub(super) stop: &'a Stop,
    /// Where clients of Postgres are served.
    pub(super) clients: Option<&'a Clients>,
    /// Where gateways listen, in the order of the configuration.
    pub(super) gateways: &'a [SocketAddr],
}

impl Connected<'_> {
    /// The API, and what serves clients of Postgres; `slots` are those of all listeners, for metrics.
    pub(super) fn api(self, slots: &[Arc<ConnectionSlots>]) -> Result<(Api, Option<Arc<postgres::Server>>)> {
        let limits = EngineLimits { memory: self.memory.queries(), ..EngineLimits::default() };
        let engine = Engine::with_limits(self.sinks.live.clone(), self.key, limits);
        let engine = Arc::new(engine?);
        let plans = Arc::new(Plans::with_bytes(self.memory.plans()));
        let intake = self.pipeline.intake().stats();
        let streams = Arc::new(Streams::new(engine.clone()).within(self.memory.followers()));
        let mut metrics = metrics::registry(metrics::Watched {
            intake: intake.clone(),
            live: self.sinks.live.clone(),
            sinks: self.sinks.applied(),
            tables: self.sinks.tables(),
            backlog: self.pipeline.backlog().clone(),
            progress: self.replay.clone(),
            snapshots_fail: self.pipeline.snapshots_fail().clone(),
            memory: self.memory.clone(),
            postgres: self.sinks.waiting(),
            outbox: self.sinks.outbox.clone(),
            engine: engine.clone(),
            plans: plans.clone(),
            sizes: self.pipeline.sizes().clone(),
            slots: slots.to_vec(),
            rooms: self.rooms.clone(),
            lake: self.sinks.lake.clone(),
            streams: streams.clone(),
        });
        let clients = self
            .clients
            .map(|clients| clients.server(&engine, &self.heard.principals, &self.rooms.requests))
            .transpose()?;
        clients.iter().for_each(|clients| clients.register(&mut metrics));
        let registry = &self.heard.registry;
        let (instances, policies, partial) = (registry.clone(), registry.clone(), registry.clone());
        let api = Api {
            streams,
            engine,
            principals: self.heard.principals.clone(),
            sink: self.appender.clone(),
            outcomes: self.heard.outcomes.clone(),
            judgements: self.heard.judgements.clone(),
            attempts: Attempts::default(),
            seal: {
                let keys = self.sinks.keys.clone();
                Arc::new(move |[tenant, resource, id, field]: [&str; 4], text: &str| {
                    keys.seal(&sealing::context(tenant, resource, id, field), text).ok()
                })
            },
            unseal: {
                let keys = self.sinks.keys.clone();
                Arc::new(move |[tenant, resource, id, field]: [&str; 4], sealed: &str| {
                    keys.unseal(&sealing::context(tenant, resource, id, field), sealed).ok()
                })
            },
            public_url: self.config.http.public_url.clone(),
            mail: self.config.mail.as_ref().map(send_mail).transpose()?,
            ask_server: ask_server(Reach::of(self.config.private_addresses))?,
            issuers: Issuers::default(),
            authorities: self.heard.enrolled.clone(),
            gateways: {
                let gateways = gateways(self.config, self.gateways);
                Arc::new(move |tenant: &str, said: Option<&str>| {
                    gateway(gateways.get(tenant).map_or(&[], Vec::as_slice), said)
                })
            },
            records: Arc::new(Records(self.pipeline.finder())),
            inventories: Arc::new(self.runs),
            asked: Arc::new(pull::Asked::new(
                self.config.sources.inventories().collect(),
                self.heard.integrations.clone(),
                self.rooms.feeds.clone(),
                self.stop.clone(),
            )),
            instances: Arc::new(move || instances.instances().clone()),
            plans,
            mappings: self.config.mappings()?,
            partial: Arc::new(move |tenant: &str, kind: SourceKind, instance: &str| {
                partial.is_partial(tenant, kind, instance)
            }),
            policy: Arc::new(move |tenant: &str| policies.policy(tenant)),
            room: self.rooms.requests.clone(),
            strangers: self.rooms.strangers.clone(),
            ready: Arc::new(watch::ready(self.replay.done.clone(), intake.clone())),
            clock: intake.clone(),
            flush: {
                let lake = self.sinks.lake.clone();
                Arc::new(move || {
                    let lake = lake.clone();
                    Box::pin(async move {
                        let lake = lake?;
                        lake.flush().await;
                        Some(lake.applied().get())
                    })
                })
            },
            metrics: Arc::new(move || metrics::text(&metrics)),
        };
        Ok((api, clients))
    }
}

/// A gateway for enrolled agents: what these may call it, and where it is.
struct Gateway {
    names: Vec<String>,
    addr: String,
}

/// Those of each tenant.
fn gateways(config: &Config, listening: &[SocketAddr]) -> BTreeMap<String, Vec<Gateway>> {
    let mut gateways: BTreeMap<String, Vec<Gateway>> = BTreeMap::new();
    for (gateway, addr) in config.grpc.iter().zip(listening) {
        if let Some(name) = gateway.names.first() {
            let host = if name.contains(':') { format!("[{name}]") } else { name.clone() };
            let of = Gateway { names: gateway.names.clone(), addr: format!("{host}:{}", addr.port()) };
            gateways.entry(gateway.tenant.clone()).or_default().push(of);
        }
    }
    gateways
}

/// Where an agent connects: there, if a gateway's certificate has that name, or where the first name of the first says.
fn gateway(gateways: &[Gateway], said: Option<&str>) -> Result<String, String> {
    let Some(first) = gateways.first() else {
        return Err("no [[grpc]] listener of this tenant has names: nothing would let the agent in".to_owned());
    };
    let Some(said) = said else { return Ok(first.addr.clone()) };
    let host = said.rsplit_once(':').map_or(said, |(host, _)| host).trim_matches(['[', ']']);
    let names: Vec<&str> = gateways.iter().flat_map(|gateway| &gateway.names).map(String::as_str).collect();
    match names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        true => Ok(said.to_owned()),
        false => Err(format!(
            "the gateway of the package is {said}, and the certificates of [[grpc]] listeners have the names {}",
            names.join(", ")
        )),
    }
}

/// Sends mail through the server of the configuration.
fn send_mail(said: &Mail) -> Result<Arc<SendMail>> {
    let mailer = Arc::new(Mailer::new(&said.smtp, &said.from)?);
    Ok(Arc::new(move |mail: http::Mail| {
        let mailer = mailer.clone();
        Box::pin(
            async move { mailer.send(&mail.to, &mail.subject, mail.text).await.map_err(|error| error.to_string()) },
        )
    }))
}

/// Asks servers of identity providers.
fn ask_server(reach: Reach) -> Result<Arc<AskServer>> {
    let none = reqwest::redirect::Policy::none;
    let client = match reach {
        Reach::Anywhere => outwards::client(|client| client.timeout(PROVIDER_WAIT).redirect(none()))?,
        Reach::Public => reach::client(|client| client.timeout(PROVIDER_WAIT).redirect(none()))?,
    };
    Ok(Arc::new(move |question: Question| {
        let client = client.clone();
        Box::pin(async move {
            let Question { url, form, authorization } = question;
            if let Some(why) = reach::private_host(&url).filter(|_| reach == Reach::Public) {
                return Err(format!("{why}: the configuration file allows it with private_addresses = true"));
            }
            outwards::ask(&client, &url, form.as_deref(), authorization.as_deref(), PROVIDER_BYTES).await
        })
    }))
}
