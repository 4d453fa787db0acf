//! The agents' gateway: `monitoring.AgentGatewayService`, all five calls, answered after the frame is durable.
//!
//! With TLS a client certificate is required: `CN=<agent>.<partition>.…` or a SAN `spiffe://<domain>/<type>/<partition>/
//! <id>` names the agent and its partition, and a request that names another agent is refused. Who signs these certificates the
//! configuration says; or the tenant's own authority does, and then only enrolled agents are let in ([`super::enrolled`]), whose
//! certificates are renewed on the same connection. Without TLS the listener must be on loopback, and the payload's partition
//! counts.
//!
//! A stream is checked whole and applied whole: its chunks become durable as they come, staged under their run, and the
//! final one releases them. A stream that breaks, or breaks a rule, is discarded. The same run sent again changes nothing,
//! because records are what their newest version says. What is large is staged in pieces of [`PIECE_BYTES`], so that the
//! dataflow can read it a share at a time; a stream is let in while there is [`StagingSpace`].
//!
//! A message has its memory before it is read, of what all feeds share: an agent that sends much is refused
//! (`RESOURCE_EXHAUSTED`) and the others are not.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::middleware::{Next, from_fn};
use futures::Stream;
use radarflow_proto::body::{Memory, Messages, PATIENCE, Patience, Prompt};
use radarflow_proto::enrolment::enrolment_server::{Enrolment, EnrolmentServer};
use radarflow_proto::enrolment::{RenewRequest, RenewResponse};
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::grpc::agent_gateway_service_server::{AgentGatewayService, AgentGatewayServiceServer};
use radarflow_proto::grpc::control_stream_request::Payload;
use radarflow_proto::grpc::{
    AgentConfigRequest, AgentConfigResponse, AgentHelloRequest, AgentHelloResponse, ControlStreamRequest,
    ControlStreamResponse, GatewayServiceStatus, GatewayStatusChunk, GatewayStatusRequest, GatewayStatusResponse,
};
use radarflow_proto::payload::{AgentPush, ServiceHead, magnitude_us};
use radarflow_proto::ports::{AppendError, Appender, Certified, NewInstances};
use radarflow_proto::resource::Resource;
use radarflow_proto::room::{Room, of_address};
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

use super::accept::{ConnectionSlots, Peer, connections};
use super::configurations::{Configuration, Partitions, called};
use super::control::{AgentName, Held};
use super::enrolled::{Admission, Gate, MAX_REQUEST, Renewal};
use super::stage::{self, PIECE_BYTES, Staging, StagingSpace};
use super::tls::Tls;
use super::{Listener, SourceError, Stop, entry, origin};

pub use super::configurations::{Configurations, HEARTBEAT_SEC};
pub use super::control::{Commands, LIFE};

/// Largest message, bytes.
pub const MAX_MESSAGE: usize = 16 << 20;
/// Services in one request or chunk.
pub const MAX_SERVICES: usize = 5000;
/// Longest service name, bytes.
pub const MAX_NAME: usize = 255;
/// Longest service type or source, bytes.
pub const MAX_TYPE: usize = 64;
/// Chunks of one stream.
pub const MAX_CHUNKS: i32 = 100_000;
/// A stream must be whole within this.
const STREAM_LIMIT: Duration = Duration::from_secs(600);

/// Requests of one connection at a time; an agent holds one open and makes others one by one.
const STREAMS: u32 = 8;
/// Largest head of a request, bytes.
const MAX_HEAD: u32 = 8 << 10;
/// Bytes that a connection may send before they are read.
const WINDOW: u32 = 64 << 10;
/// What a connection takes, bytes: heads, what was not read yet, and the state of its encryption.
pub const CONNECTION_BYTES: usize = STREAMS as usize * MAX_HEAD as usize + WINDOW as usize + (64 << 10);
/// The call whose messages come whenever they do.
const CONTROL: &str = "/monitoring.AgentGatewayService/ControlStream";

/// The protocol that a connection with TLS agrees upon.
pub const PROTOCOLS: &[&[u8]] = &[b"h2"];

/// Where what agents say goes, and the memory that it has until it is durable.
#[derive(Clone)]
pub struct Into {
    /// What they are told.
    pub configurations: Arc<Configurations>,
    /// What they are to do at once.
    pub commands: Arc<Commands>,
    /// The ledger.
    pub appender: Arc<dyn Appender>,
    /// Who makes instances known.
    pub instances: Arc<dyn NewInstances>,
    /// Whether more may be staged.
    pub space: StagingSpace,
    /// The memory of feeds.
    pub room: Arc<Room>,
}

/// Starts the gateway; the returned address is the one it got.
///
/// # Errors
/// [`SourceError`] where the address cannot be bound.
pub async fn start(
    listener: &Listener,
    tls: Option<Arc<Tls>>,
    slots: Arc<ConnectionSlots>,
    Into { configurations, commands, appender, instances, space, room }: Into,
    stop: Stop,
) -> Result<SocketAddr, SourceError> {
    if tls.is_none() && !listener.addr.ip().is_loopback() {
        return Err(SourceError::Tls(format!(
            "the gRPC listener {} is not on loopback and has no certificates; configure [grpc.tls]",
            listener.addr
        )));
    }
    // Without it anybody could be any agent.
    if tls.as_ref().is_some_and(|tls| !tls.asks_clients()) {
        return Err(SourceError::Tls(format!(
            "agents of the gRPC listener {} are known by their certificates; configure client_ca in [grpc.tls]",
            listener.addr
        )));
    }
    let bind = |source| SourceError::Bind { what: "gRPC", addr: listener.addr, source };
    let socket = tokio::net::TcpListener::bind(listener.addr).await.map_err(bind)?;
    let addr = socket.local_addr().map_err(bind)?;
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let secure = tls.is_some();
    let origin = origin(Kind::Status, "grpc", &Listener { addr, ..listener.clone() });
    let (gateway_id, stopped) = ("radarflow".to_owned(), stop.clone());
    let partitions = Partitions::default();
    let gate = tls.as_ref().and_then(|tls| tls.gate().cloned());
    let renewals = gate.clone().map(|gate| EnrolmentServer::new(Renewals { gate, appender: appender.clone() }));
    let gateway = Gateway {
        gate,
        configurations,
        commands,
        partitions,
        appender,
        instances,
        space,
        origin,
        secure,
        gateway_id,
        stop: stopped,
    };
    let service = AgentGatewayServiceServer::new(gateway).max_decoding_message_size(MAX_MESSAGE);
    let mut stopped = stop;
    let tenant: Arc<str> = listener.tenant.as_str().into();
    let bounded = from_fn(move |request: HttpRequest, next: Next| {
        let peer = request.extensions().get::<Peer>().map_or_else(String::new, |peer| of_address(peer.addr.ip()));
        let memory = Memory::new(room.hold_for(&tenant, &peer));
        // Whoever answers has what it reads until it has answered.
        let whose = memory.clone();
        async move {
            let waits = request.uri().path() == CONTROL;
            let answer = next.run(request.map(|body| within(body, memory, waits))).await;
            drop(whose);
            answer
        }
    });
    let mut server = server;
    let routes = Routes::new(service);
    let routes = match renewals {
        Some(renewals) => routes.add_service(renewals.max_decoding_message_size(2 * MAX_REQUEST)),
        None => routes,
    };
    let server = server.add_routes(Routes::from(routes.into_axum_router().layer(bounded)));
    tokio::spawn(async move {
        let told = async move { stopped.told().await };
        if let Err(error) = server.serve_with_incoming_shutdown(connections(socket, tls, slots), told).await {
            tracing::error!(%error, "the gRPC listener ended");
        }
    });
    Ok(addr)
}

/// A request's body, whose messages have their memory.
fn within(body: Body, memory: Memory, waits: bool) -> Body {
    // However long it says nothing.
    let forever = Duration::from_secs(u64::from(u32::MAX));
    let patience = if waits { Patience { piece: forever, grace: forever, ..PATIENCE } } else { PATIENCE };
    Body::new(Messages::new(Prompt::new(body, patience), memory))
}

struct Gateway {
    /// Who is enrolled, where only these are let in.
    gate: Option<Gate>,
    configurations: Arc<Configurations>,
    commands: Arc<Commands>,
    partitions: Partitions,
    appender: Arc<dyn Appender>,
    instances: Arc<dyn NewInstances>,
    space: StagingSpace,
    origin: Arc<Origin>,
    secure: bool,
    gateway_id: String,
    stop: Stop,
}

/// Who calls.
#[derive(Clone, Debug, Default)]
struct Caller {
    /// From the certificate: the agent and its partition. `None` without TLS.
    certified: Option<(String, String)>,
    /// What lets it in, and what it was enrolled by, where only enrolled agents are let in.
    admitted: Option<(Arc<Admission>, Arc<Resource>)>,
    peer: Option<SocketAddr>,
}

impl Caller {
    fn check(&self, agent_id: &str) -> Result<(), Status> {
        if agent_id.trim().is_empty() {
            return Err(Status::invalid_argument("agent_id is required"));
        }
        if agent_id.len() > MAX_NAME || agent_id.chars().any(char::is_control) {
            return Err(Status::invalid_argument(format!(
                "agent_id must be at most {MAX_NAME} bytes without control characters"
            )));
        }
        match &self.certified {
            Some((certified, _)) if certified != agent_id => {
                Err(Status::permission_denied(format!("the certificate is {certified}'s, the request says {agent_id}")))
            }
            _ => Ok(()),
        }
    }
}

/// What lets an enrolled agent in, and its package.
fn admitted<T>(gate: &Gate, request: &Request<T>) -> Result<(Arc<Admission>, Arc<Resource>), Status> {
    let admission = request.extensions().get::<Peer>().and_then(|peer| peer.admission.clone());
    let package =
        admission.and_then(|admission| gate.enrolled().stands(&admission).map(|package| (admission, package)));
    package.ok_or_else(|| Status::unauthenticated("this certificate is not that of an enrolled agent, or was revoked"))
}

/// Renews the certificates of enrolled agents.
struct Renewals {
    gate: Gate,
    appender: Arc<dyn Appender>,
}

#[tonic::async_trait]
impl Enrolment for Renewals {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        let (admission, package) = admitted(&self.gate, &request)?;
        let asked = &request.get_ref().request;
        let made = self.gate.enrolled().renew(&self.appender, &admission, package, asked).await;
        match made {
            Ok(Certified { certificate, authorities, .. }) => {
                Ok(Response::new(RenewResponse { certificate, authorities }))
            }
            Err(Renewal::Refused(why)) => Err(Status::invalid_argument(why)),
            Err(Renewal::Later(why)) => Err(Status::unavailable(why)),
        }
    }
}

/// The agent and partition that a certificate names.
fn certified(der: &[u8]) -> Option<(String, String)> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            if let GeneralName::URI(uri) = name
                && let Some(path) = uri.strip_prefix("spiffe://")
            {
                let mut parts = path.split('/').skip(2);
                if let (Some(partition), Some(id)) = (parts.next(), parts.next()) {
                    return Some((id.to_owned(), partition.to_owned()));
                }
            }
        }
    }
    let cn = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    let mut parts = cn.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(agent), Some(partition), Some(_)) => Some((agent.to_owned(), partition.to_owned())),
        _ => None,
    }
}

fn refused(error: &AppendError) -> Status {
    match error {
        AppendError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        AppendError::Storage(_) | AppendError::Closed => Status::unavailable(error.to_string()),
    }
}

/// Why a service status is refused; `None` when it is fine.
fn bad_service(service: &GatewayServiceStatus) -> Option<String> {
    let control = |s: &str| s.chars().any(char::is_control);
    if service.service_name.is_empty() {
        return Some("service_name is required".to_owned());
    }
    for (what, text, most) in [
        ("service_name", &service.service_name, MAX_NAME),
        ("service_type", &service.service_type, MAX_TYPE),
        ("source", &service.source, MAX_TYPE),
    ] {
        if text.len() > most || control(text) {
            return Some(format!("{what} must be at most {most} bytes without control characters"));
        }
    }
    None
}

/// The payload's address of the agent and what it says of itself.
struct AgentHead<'a> {
    agent_id: &'a str,
    gateway_id: &'a str,
    timestamp: i64,
    partition: &'a str,
    source_ip: &'a str,
    version: &'a str,
    hostname: &'a str,
    os: &'a str,
    arch: &'a str,
}

impl AgentHead<'_> {
    fn push(&self, service: Option<ServiceHead>) -> AgentPush {
        AgentPush {
            agent_id: self.agent_id.to_owned(),
            gateway_id: self.gateway_id.to_owned(),
            timestamp_us: magnitude_us(self.timestamp).unwrap_or(0),
            source_ip: self.source_ip.to_owned(),
            version: self.version.to_owned(),
            hostname: self.hostname.to_owned(),
            os: self.os.to_owned(),
            arch: self.arch.to_owned(),
            capabilities: Vec::new(),
            service,
            control: None,
        }
    }
}

impl Gateway {
    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let other = request.extensions().get::<Peer>();
        let peer = other.map(|other| other.addr);
        if !self.secure {
            return Ok(Caller { peer, ..Caller::default() });
        }
        // Who an enrolled agent is its package says.
        if let Some(gate) = &self.gate {
            let (admission, package) = admitted(gate, request)?;
            let text = |field| package.text(field).unwrap_or_default().to_owned();
            let certified = Some((text("agent_id"), text("site")));
            return Ok(Caller { certified, admitted: Some((admission, package)), peer });
        }
        let certificate = other.and_then(|other| other.certificate.as_ref());
        let certificate = certificate.ok_or_else(|| Status::unauthenticated("a client certificate is required"))?;
        let named = certified(certificate).ok_or_else(|| {
            Status::unauthenticated(
                "the certificate names no agent: CN=<agent>.<partition>.<domain> or a spiffe:// SAN",
            )
        })?;
        Ok(Caller { certified: Some(named), admitted: None, peer })
    }

    /// The origin of a caller's inputs: the certificate's partition, else what the payload says, else left to each item.
    fn origin(&self, caller: &Caller, said: &str, kind: Kind) -> Result<Arc<Origin>, Status> {
        if said.contains([':', '/', '\0']) {
            return Err(Status::invalid_argument(format!("invalid partition {said:?}")));
        }
        let partition = match &caller.certified {
            Some((_, partition)) => partition.clone(),
            None if self.origin.partition.is_empty() => said.trim().to_owned(),
            None => self.origin.partition.clone(),
        };
        Ok(Arc::new(Origin { kind, partition, ..(*self.origin).clone() }))
    }

    /// What a caller is told. Where neither certificate nor listener has a partition it is the one that the agent says.
    fn told(&self, caller: &Caller, said: &str, agent_id: &str) -> Option<Arc<Configuration>> {
        let own = caller.certified.as_ref().map(|(_, partition)| partition.as_str());
        let partition = own.or(Some(&self.origin.partition)).filter(|p| !p.is_empty()).or(Some(said.trim()));
        let known = self.partitions.of(agent_id);
        let partition = partition.filter(|p| !p.is_empty()).or(known.as_deref());
        self.configurations.of(&self.origin.tenant, partition, agent_id)
    }

    /// Makes durable what a sync payload needs to be read.
    async fn announce(&self, services: &[GatewayServiceStatus]) -> Result<(), Status> {
        let syncs = services.iter().filter(|s| s.source == "results" && s.service_type == "sync");
        let payloads: Vec<&[u8]> = syncs.map(|s| &s.message[..]).collect();
        self.instances.announce(&self.appender, &self.origin, &payloads).await.map_err(|e| refused(&e))
    }

    /// The entries of a request's services, and why some were refused.
    fn entries(
        &self,
        services: &[GatewayServiceStatus],
        said: &AgentHead<'_>,
        peer: Option<SocketAddr>,
    ) -> (Vec<Entry>, Vec<String>) {
        let (mut entries, mut bad) = (Vec::new(), Vec::new());
        for service in services {
            if let Some(reason) = bad_service(service) {
                bad.push(reason);
                continue;
            }
            let head = ServiceHead {
                name: service.service_name.clone(),
                kind: service.service_type.clone(),
                source: service.source.clone(),
                available: service.available,
            };
            let push = said.push(Some(head));
            match pieces(service) {
                Some(pieces) => entries.extend(pieces.iter().map(|piece| entry(peer, push.with(piece)))),
                None => entries.push(entry(peer, push.with(&service.message))),
            }
        }
        (entries, bad)
    }

    /// Makes a large request durable: a run of its own, staged and released in one frame.
    async fn append_large(
        &self,
        origin: &Arc<Origin>,
        entries: &[Entry],
        peer: Option<SocketAddr>,
    ) -> Result<(), Status> {
        stage::wait(&self.space).await;
        let staging = Staging::new(self.appender.clone(), origin, peer);
        staging.whole(entries).await.map(drop).map_err(|e| refused(&e))
    }

    /// Takes in a stream under a run of its own; on any error the run is discarded.
    async fn stream(&self, caller: &Caller, chunks: Streaming<GatewayStatusChunk>) -> Result<(), Status> {
        let mut staging = None;
        let result = self.stage(caller, chunks, &mut staging).await;
        // Nothing was staged if no chunk was good.
        let Some(staging) = staging else { return result };
        let ended = staging.end(result.is_ok(), None).await.map_err(|e| refused(&e));
        result.and(ended.map(|_| ()))
    }

    async fn stage(
        &self,
        caller: &Caller,
        mut chunks: Streaming<GatewayStatusChunk>,
        staging: &mut Option<Staging>,
    ) -> Result<(), Status> {
        let mut order = Order::default();
        let (mut good, mut bad) = (0, Vec::new());
        stage::wait(&self.space).await;
        while let Some(chunk) = chunks.message().await? {
            caller.check(&chunk.agent_id)?;
            order.check(&chunk).map_err(Status::invalid_argument)?;
            let target = self.origin(caller, &chunk.partition, Kind::Staged)?;
            self.announce(&chunk.services).await?;
            let said = AgentHead {
                agent_id: &chunk.agent_id,
                gateway_id: &chunk.gateway_id,
                timestamp: chunk.timestamp,
                partition: &chunk.partition,
                source_ip: &chunk.source_ip,
                version: &chunk.version,
                hostname: &chunk.hostname,
                os: &chunk.os,
                arch: &chunk.arch,
            };
            let (entries, refusals) = self.entries(&chunk.services, &said, caller.peer);
            good += entries.len();
            bad.extend(refusals);
            let staging = staging.get_or_insert_with(|| Staging::new(self.appender.clone(), &target, caller.peer));
            staging.push(&entries).await.map_err(|e| refused(&e))?;
        }
        order.finish().map_err(Status::invalid_argument)?;
        if good == 0 && !bad.is_empty() {
            return Err(Status::invalid_argument(bad.join("; ")));
        }
        Ok(())
    }

    async fn beat(&self, caller: &Caller, said: &AgentHead<'_>, capabilities: &[String]) -> Result<(), Status> {
        let push = AgentPush { capabilities: capabilities.to_vec(), ..said.push(None) };
        let origin = self.origin(caller, said.partition, Kind::Status)?;
        self.appender
            .append(origin, vec![entry(caller.peer, push.with(b""))])
            .await
            .map(|_| ())
            .map_err(|e| refused(&e))
    }
}

/// A large array of device updates as several; `None` where it is small, or something else.
fn pieces(service: &GatewayServiceStatus) -> Option<Vec<Vec<u8>>> {
    if service.message.len() <= PIECE_BYTES || service.source != "results" || service.service_type != "sync" {
        return None;
    }
    stage::split_array(&service.message)
}

/// The rules that the chunks of one stream keep.
#[derive(Debug, Default)]
struct Order {
    first: Option<(String, i32)>,
    next: i32,
    finished: bool,
}

impl Order {
    fn check(&mut self, chunk: &GatewayStatusChunk) -> Result<(), String> {
        if self.finished {
            return Err("a chunk after the final one".to_owned());
        }
        let (agent, total) = self.first.get_or_insert_with(|| (chunk.agent_id.clone(), chunk.total_chunks));
        if *agent != chunk.agent_id || *total != chunk.total_chunks {
            return Err("agent_id and total_chunks must not change within a stream".to_owned());
        }
        if !(1..=MAX_CHUNKS).contains(&chunk.total_chunks) || chunk.chunk_index != self.next {
            return Err(format!(
                "chunk {} of {}: chunks are numbered from 0 without gaps, {} was expected",
                chunk.chunk_index, chunk.total_chunks, self.next
            ));
        }
        if chunk.is_final != (chunk.chunk_index + 1 == chunk.total_chunks) {
            return Err("is_final must be set on exactly the last chunk".to_owned());
        }
        if chunk.services.len() > MAX_SERVICES {
            return Err(format!("{} services, {MAX_SERVICES} at most", chunk.services.len()));
        }
        self.next += 1;
        self.finished = chunk.is_final;
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        if self.finished {
            Ok(())
        } else {
            Err(format!("the stream ended before its final chunk, after {}", self.next))
        }
    }
}

#[tonic::async_trait]
impl AgentGatewayService for Gateway {
    async fn hello(&self, request: Request<AgentHelloRequest>) -> Result<Response<AgentHelloResponse>, Status> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        caller.check(&r.agent_id)?;
        let said = AgentHead {
            agent_id: &r.agent_id,
            gateway_id: &self.gateway_id,
            timestamp: 0,
            partition: &r.partition,
            source_ip: "",
            version: &r.version,
            hostname: &r.hostname,
            os: &r.os,
            arch: &r.arch,
        };
        self.beat(&caller, &said, &r.capabilities).await?;
        if let (Some(gate), Some((admission, package))) = (&self.gate, &caller.admitted) {
            gate.enrolled().greeted(&self.appender, admission, package).await;
        }
        self.partitions.say(&r.agent_id, &r.partition);
        let version = self.told(&caller, &r.partition, &r.agent_id).map(|told| told.version.clone());
        Ok(Response::new(AgentHelloResponse {
            accepted: true,
            agent_id: r.agent_id,
            message: "welcome".to_owned(),
            gateway_id: self.gateway_id.clone(),
            server_time: super::now_us() / 1_000_000,
            heartbeat_interval_sec: HEARTBEAT_SEC,
            config_outdated: version.is_none_or(|version| r.config_version != version),
        }))
    }

    async fn get_config(&self, request: Request<AgentConfigRequest>) -> Result<Response<AgentConfigResponse>, Status> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        caller.check(&r.agent_id)?;
        // Of whom nobody knows which of several it is, it goes on as it does.
        let told = self.told(&caller, "", &r.agent_id).filter(|told| r.config_version != told.version);
        Ok(Response::new(told.map_or_else(
            || {
                let config_version = r.config_version.clone();
                AgentConfigResponse { not_modified: true, config_version, ..AgentConfigResponse::default() }
            },
            |told| told.response(),
        )))
    }

    async fn push_status(
        &self,
        request: Request<GatewayStatusRequest>,
    ) -> Result<Response<GatewayStatusResponse>, Status> {
        let caller = self.caller(&request)?;
        let r = request.into_inner();
        caller.check(&r.agent_id)?;
        if r.services.len() > MAX_SERVICES {
            return Err(Status::invalid_argument(format!("{} services, {MAX_SERVICES} at most", r.services.len())));
        }
        let said = AgentHead {
            agent_id: &r.agent_id,
            gateway_id: &r.gateway_id,
            timestamp: r.timestamp,
            partition: &r.partition,
            source_ip: &r.source_ip,
            version: &r.version,
            hostname: &r.hostname,
            os: &r.os,
            arch: &r.arch,
        };
        let (entries, bad) = self.entries(&r.services, &said, caller.peer);
        if entries.is_empty() {
            return match bad.is_empty() {
                true => self
                    .beat(&caller, &said, &[])
                    .await
                    .map(|()| Response::new(GatewayStatusResponse { received: true })),
                // An error would end the connection of ServiceRadar's agent, and what it had to say with it.
                false => {
                    let reason: String = bad.join("; ").chars().take(MAX_TYPE).collect();
                    let head = ServiceHead { kind: reason, source: "refused".to_owned(), ..ServiceHead::default() };
                    let origin = self.origin(&caller, &r.partition, Kind::Status)?;
                    let entry = entry(caller.peer, said.push(Some(head)).with(b""));
                    self.appender.append(origin, vec![entry]).await.map_err(|e| refused(&e))?;
                    Ok(Response::new(GatewayStatusResponse { received: true }))
                }
            };
        }
        self.announce(&r.services).await?;
        let origin = self.origin(&caller, &r.partition, Kind::Status)?;
        if entries.iter().map(|e| e.body.len()).sum::<usize>() > 2 * PIECE_BYTES {
            self.append_large(&origin, &entries, caller.peer).await?;
        } else {
            self.appender.append(origin, entries).await.map_err(|e| refused(&e))?;
        }
        Ok(Response::new(GatewayStatusResponse { received: true }))
    }

    async fn stream_status(
        &self,
        request: Request<Streaming<GatewayStatusChunk>>,
    ) -> Result<Response<GatewayStatusResponse>, Status> {
        let caller = self.caller(&request)?;
        match tokio::time::timeout(STREAM_LIMIT, self.stream(&caller, request.into_inner())).await {
            Ok(Ok(())) => Ok(Response::new(GatewayStatusResponse { received: true })),
            Ok(Err(status)) => Err(status),
            Err(_) => {
                Err(Status::new(Code::DeadlineExceeded, "the stream was not finished in time; nothing was applied"))
            }
        }
    }

    type ControlStreamStream = Pin<Box<dyn Stream<Item = Result<ControlStreamResponse, Status>> + Send>>;

    async fn control_stream(
        &self,
        request: Request<Streaming<ControlStreamRequest>>,
    ) -> Result<Response<Self::ControlStreamStream>, Status> {
        let caller = self.caller(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming.message().await?.and_then(|m| m.payload);
        let Some(Payload::Hello(hello)) = first else {
            return Err(Status::failed_precondition("the first message must be hello"));
        };
        caller.check(&hello.agent_id)?;
        let said = AgentHead {
            agent_id: &hello.agent_id,
            gateway_id: &self.gateway_id,
            timestamp: 0,
            partition: &hello.partition,
            source_ip: "",
            version: &hello.version,
            hostname: &hello.hostname,
            os: &hello.os,
            arch: &hello.arch,
        };
        self.beat(&caller, &said, &hello.capabilities).await?;
        let alive =
            AgentPush { agent_id: hello.agent_id.clone(), gateway_id: self.gateway_id.clone(), ..AgentPush::default() };
        let origin = self.origin(&caller, &hello.partition, Kind::Status)?;
        self.partitions.say(&hello.agent_id, &hello.partition);
        let held = Held {
            agent: AgentName {
                tenant: self.origin.tenant.clone(),
                // As the rows of agents have it: nothing said is `default`.
                partition: if origin.partition.is_empty() { "default".to_owned() } else { origin.partition.clone() },
                id: called(&hello.agent_id).to_owned(),
            },
            configurations: self.configurations.clone(),
            commands: self.commands.clone(),
            appender: self.appender.clone(),
            origin,
            peer: caller.peer,
            alive,
            version: hello.config_version,
            life: hello.labels.get(LIFE).filter(|life| life.len() <= MAX_TYPE).cloned(),
            stop: self.stop.clone(),
        };
        Ok(Response::new(held.stream(incoming)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(index: i32, total: i32, is_final: bool) -> GatewayStatusChunk {
        GatewayStatusChunk {
            agent_id: "a".into(),
            chunk_index: index,
            total_chunks: total,
            is_final,
            ..Default::default()
        }
    }

    #[test]
    fn chunks_are_contiguous_constant_and_final_exactly_once() {
        let check = |chunks: &[GatewayStatusChunk]| {
            let mut order = Order::default();
            chunks.iter().try_for_each(|c| order.check(c)).and_then(|()| order.finish())
        };
        assert!(check(&[chunk(0, 2, false), chunk(1, 2, true)]).is_ok());
        let other = GatewayStatusChunk { agent_id: "b".into(), ..chunk(1, 2, true) };
        for bad in [
            vec![chunk(0, 2, false)],
            vec![chunk(1, 2, true)],
            vec![chunk(0, 2, false), chunk(0, 2, false)],
            vec![chunk(0, 2, true)],
            vec![chunk(0, 2, false), chunk(1, 3, true)],
            vec![chunk(0, 2, false), other],
            vec![chunk(0, 1, true), chunk(1, 1, true)],
            vec![chunk(0, 0, true)],
            vec![],
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn certificates_name_agents() {
        let named = |cn: &str, san: Option<&str>| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, cn);
            params.subject_alt_names.extend(san.map(|s| rcgen::SanType::URI(s.try_into().unwrap())));
            let key = rcgen::KeyPair::generate().unwrap();
            certified(params.self_signed(&key).unwrap().der())
        };
        let a = Some(("agent-1".to_owned(), "dc1".to_owned()));
        assert_eq!(named("agent-1.dc1.serviceradar.local", None), a);
        assert_eq!(named("x", Some("spiffe://trust/agent/dc1/agent-1")), a);
        assert_eq!(named("agent-1", None), None);
    }
}
