//! The connection to the gateway: Hello, the configuration, a control stream that brings it when it changes, and results.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use radarflow_connectors::sources::Stop;
use radarflow_connectors::sources::grpc::LIFE;
use radarflow_proto::grpc::agent_gateway_service_client::AgentGatewayServiceClient;
use radarflow_proto::grpc::control_stream_request::Payload as Up;
use radarflow_proto::grpc::control_stream_response::Payload as Down;
use radarflow_proto::grpc::{
    AgentConfigRequest, AgentConfigResponse, AgentHelloRequest, ConfigAck, ControlStreamHello, ControlStreamRequest,
    GatewayServiceStatus, GatewayStatusRequest,
};
use radarflow_proto::payload::{AgentJob, ProbeResults};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Agent, Told, enrolment, now_us, runs};

/// Results of one push at most.
const BATCH: usize = 1000;
/// Batches that are read from disk at a time.
const AT_ONCE: usize = 64;
/// How long results wait for others.
const GATHER: Duration = Duration::from_millis(200);
/// A call is answered within this, or the connection is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages that wait for the control stream.
const UP: usize = 16;
/// The version that gateways are told.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The configuration, as far as it is read.
#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    jobs: Vec<AgentJob>,
}

type Client = AgentGatewayServiceClient<Channel>;

/// A call's answer, in time.
async fn within<T>(what: &str, call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T> {
    let answer = tokio::time::timeout(PATIENCE, call).await.with_context(|| format!("{what} was not answered"))?;
    Ok(answer.with_context(|| format!("{what} was refused"))?.into_inner())
}

impl Agent {
    /// Takes over what it is told; tells its version.
    fn take(&self, config: &AgentConfigResponse) {
        if config.not_modified {
            return;
        }
        match serde_json::from_slice::<Content>(&config.config_json) {
            Ok(content) => {
                let looks: usize = content.jobs.iter().map(|job| job.targets.len()).sum();
                tracing::info!(version = config.config_version, jobs = content.jobs.len(), looks, "configured");
                let told = Told { version: config.config_version.clone(), jobs: Arc::new(content.jobs) };
                self.told.send_replace(told);
            }
            // What it did before goes on; the version it holds says so.
            Err(error) => tracing::error!(%error, "the configuration cannot be read"),
        }
    }

    fn version(&self) -> String {
        self.told.borrow().version.clone()
    }

    async fn ask(&self, client: &mut Client) -> Result<Duration> {
        let request = AgentConfigRequest { agent_id: self.settings.id.clone(), config_version: self.version() };
        let config = within("GetConfig", client.get_config(request)).await?;
        self.take(&config);
        Ok(Duration::from_secs(config.config_poll_interval_sec.clamp(30, 86_400) as u64))
    }

    async fn push(&self, client: &mut Client, results: ProbeResults) -> Result<()> {
        let services = match results.results.is_empty() {
            true => Vec::new(),
            false => vec![GatewayServiceStatus {
                service_name: "probes".to_owned(),
                available: true,
                message: serde_json::to_vec(&results)?.into(),
                service_type: "probes".to_owned(),
                source: "results".to_owned(),
                ..GatewayServiceStatus::default()
            }],
        };
        let request = GatewayStatusRequest {
            services,
            agent_id: self.settings.id.clone(),
            partition: self.settings.partition.clone(),
            timestamp: now_us() / 1_000_000,
            version: VERSION.to_owned(),
            ..GatewayStatusRequest::default()
        };
        within("PushStatus", client.push_status(request)).await.map(|_| ())
    }

    /// Delivers results that wait in memory, a batch of them.
    async fn flush(&self, client: &mut Client) -> Result<()> {
        let lost = self.waiting.lost();
        if lost > 0 {
            tracing::warn!(lost, "results were lost: more waited than there is room for");
        }
        let results = ProbeResults { results: self.waiting.take(BATCH), lost };
        if let Err(error) = self.push(client, results.clone()).await {
            self.waiting.back(results.results);
            return Err(error);
        }
        self.waiting.told(lost);
        Ok(())
    }
}

/// Delivers what waits on disk, in order. What was delivered is not delivered again.
async fn deliver(agent: &Arc<Agent>, client: &mut Client) -> Result<()> {
    let Some(spool) = &agent.spool else { return Ok(()) };
    let with = || spool.lock().unwrap_or_else(PoisonError::into_inner);
    let mut delivered = 0;
    loop {
        let (lost, batches) = {
            let mut spool = with();
            let batches = spool.next(AT_ONCE).or_else(|error| {
                tracing::error!(%error, "results that waited on disk cannot be read; they are given up");
                spool.give_up().map(|()| Vec::new())
            })?;
            (spool.lost(), batches)
        };
        if batches.is_empty() {
            if delivered > 0 {
                tracing::info!(delivered, "what waited on disk is delivered");
            }
            return Ok(());
        }
        let mut lost = lost;
        for (place, results) in batches {
            delivered += results.len();
            agent.push(client, ProbeResults { results, lost }).await?;
            let mut spool = with();
            spool.told(std::mem::take(&mut lost));
            spool.delivered(place)?;
        }
    }
}

/// Connects, and holds the connection until it breaks or the agent is told to stop.
///
/// # Errors
/// Why it broke.
pub(super) async fn hold(agent: &Arc<Agent>, mut stop: Stop) -> Result<()> {
    let endpoint = agent.settings.endpoint()?;
    let channel = endpoint.connect().await.with_context(|| format!("{} does not answer", agent.settings.gateway))?;
    let mut client = AgentGatewayServiceClient::new(channel.clone());
    let hello = AgentHelloRequest {
        agent_id: agent.settings.id.clone(),
        version: VERSION.to_owned(),
        capabilities: agent.capabilities.clone(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        partition: agent.settings.partition.clone(),
        config_version: agent.version(),
        ..AgentHelloRequest::default()
    };
    let welcome = within("Hello", client.hello(hello.clone())).await?;
    if !welcome.accepted {
        bail!("the gateway does not accept {}: {}", agent.settings.id, welcome.message);
    }
    let heartbeat = Duration::from_secs(welcome.heartbeat_interval_sec.clamp(1, 3600) as u64);
    tracing::info!(gateway = agent.settings.gateway, agent = agent.settings.id, "connected");
    let poll = agent.ask(&mut client).await?;
    let (up, requests) = mpsc::channel(UP);
    let say = |payload| ControlStreamRequest { payload: Some(payload) };
    let first = ControlStreamHello {
        agent_id: hello.agent_id,
        partition: hello.partition,
        capabilities: hello.capabilities,
        config_version: agent.version(),
        version: hello.version,
        os: hello.os,
        arch: hello.arch,
        labels: [(LIFE.to_owned(), agent.life.clone())].into(),
        ..ControlStreamHello::default()
    };
    agent.words.again();
    up.send(say(Up::Hello(first))).await?;
    let mut down = within("ControlStream", client.control_stream(ReceiverStream::new(requests))).await?;
    tokio::select! {
        delivered = deliver(agent, &mut client) => delivered?,
        () = stop.told() => return Ok(()),
    }
    let mut polls = tokio::time::interval(poll);
    polls.reset();
    let mut beats = tokio::time::interval(heartbeat);
    beats.reset();
    loop {
        tokio::select! {
            message = down.message() => {
                let message = message.context("the control stream broke")?.context("the gateway ended the control stream")?;
                match message.payload {
                    Some(Down::Config(config)) => {
                        agent.take(&config);
                        let ack = ConfigAck { config_version: agent.version(), timestamp: now_us() / 1_000_000 };
                        up.send(say(Up::ConfigAck(ack))).await?;
                    }
                    Some(Down::Command(command)) => runs::begin(agent, command),
                    None => {}
                }
            }
            _ = polls.tick() => drop(agent.ask(&mut client).await?),
            _ = beats.tick() => agent.push(&mut client, ProbeResults::default()).await?,
            () = agent.waiting.some() => {
                tokio::time::sleep(GATHER).await;
                agent.flush(&mut client).await?;
                beats.reset();
            }
            (number, word) = agent.words.next() => {
                // Whoever reads that a run is done finds what it found.
                if let Up::CommandResult(_) = &word {
                    for _ in 0..agent.waiting.len().div_ceil(BATCH) {
                        agent.flush(&mut client).await?;
                    }
                }
                up.send(say(word)).await?;
                agent.words.told(number);
            }
            () = enrolment::due(agent) => match enrolment::renew(agent, &channel).await {
                // The next connection shows it.
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the certificate is not renewed"),
            },
            () = stop.told() => return Ok(()),
        }
    }
}
