//! The demonstration: a server on a temporary directory and a simulated network in two tenants with the same addresses,
//! which sends real bytes to its real sockets: gRPC syncs and sweeps, NetFlow v9, IPFIX, sFlow, syslog, traps. Devices
//! swap addresses, a router dies and comes back; what its own webhook receiver is told is printed as it comes. The agent inside
//! really looks: at the server's own listener.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use radarflow_network::devices::{Device, Network};
use radarflow_network::packets::{self, FlowFields};
use radarflow_proto::fact::Role;
use radarflow_proto::grpc::agent_gateway_service_client::AgentGatewayServiceClient;
use radarflow_proto::grpc::{GatewayServiceStatus, GatewayStatusRequest};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::cli::At;
use crate::config::{self, Config};
use crate::serve::{self, Listening, Server};
use crate::{api, table};

const TENANTS: [&str; 2] = ["acme", "globex"];
/// Items of one push.
const CHUNK: usize = 500;

/// Runs until Ctrl-C, or for so many seconds.
pub(crate) async fn run(devices: usize, speed: f64, seconds: Option<u64>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let hook = receiver().await?;
    let mut config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let socket = |tenant: &&str| config::Socket {
        addr: any,
        sockets: 1,
        sender_rate: None,
        tenant: (*tenant).to_owned(),
        partition: "default".to_owned(),
    };
    config.http.addr = any;
    for sockets in [&mut config.netflow, &mut config.sflow, &mut config.syslog, &mut config.traps] {
        *sockets = TENANTS.iter().map(socket).collect();
    }
    config.grpc = TENANTS
        .iter()
        .map(|t| config::Grpc {
            addr: any,
            tenant: (*t).to_owned(),
            partition: String::new(),
            tls: None,
            names: Vec::new(),
        })
        .collect();
    config.otlp = TENANTS
        .iter()
        .map(|t| config::Otlp { addr: any, tenant: (*t).to_owned(), partition: "default".to_owned(), tls: None })
        .collect();
    config.receivers = TENANTS.iter().map(|t| config::ReceiverConfig::local(&format!("{t}-ops"), t, &hook)).collect();
    config.agent.enabled = true;
    let server = serve::start(&config, false).await?;
    let mut tokens = Vec::new();
    for tenant in TENANTS {
        tokens.push(server.make_token("demo", tenant, Role::Admin).await?);
    }
    say(&format!("a simulated network of {devices} devices sends to {}", server.http))?;
    where_it_is(server.http, &tokens)?;
    look_at_itself(server.http, &tokens[0]).await?;
    let world = tokio::spawn(simulate(server.listening.clone(), devices / TENANTS.len(), speed.clamp(0.1, 100.0)));
    let watch = watch(&server, &tokens, seconds, speed.clamp(0.1, 100.0));
    tokio::select! {
        result = watch => result?,
        _ = tokio::signal::ctrl_c() => {}
    }
    if world.is_finished() {
        // The network never ends by itself.
        world.await??;
    } else {
        world.abort();
    }
    server.stop().await
}

/// How each tenant is reached, as another terminal takes it.
fn where_it_is(http: SocketAddr, tokens: &[String]) -> Result<()> {
    for (tenant, token) in TENANTS.iter().zip(tokens) {
        say(&format!("  {tenant}: export RADARFLOW_URL=http://{http} RADARFLOW_TOKEN={token}"))?;
    }
    Ok(())
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// A webhook receiver that prints what it is told; its URL.
async fn receiver() -> Result<String> {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", socket.local_addr()?);
    let told = |body: String| async move {
        let payload: Value = serde_json::from_str(&body).unwrap_or_default();
        for alert in payload["alerts"].as_array().into_iter().flatten() {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let line = format!(
                "webhook {}: {:8} {}",
                text(&payload["receiver"]),
                text(&alert["status"]),
                text(&alert["annotations"]["summary"])
            );
            let _ = say(&line);
        }
        "ok"
    };
    let app = axum::Router::new().route("/", axum::routing::post(told));
    tokio::spawn(async move { axum::serve(socket, app).await });
    Ok(url)
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}

async fn push(agent: &mut AgentGatewayServiceClient<Channel>, kind: &str, message: String) -> Result<()> {
    let service = GatewayServiceStatus {
        service_name: kind.to_owned(),
        available: true,
        message: message.into_bytes().into(),
        service_type: kind.to_owned(),
        source: "results".to_owned(),
        ..GatewayServiceStatus::default()
    };
    let request = GatewayStatusRequest {
        services: vec![service],
        agent_id: "demo-agent".to_owned(),
        ..GatewayStatusRequest::default()
    };
    agent.push_status(request).await?;
    Ok(())
}

async fn sync(agent: &mut AgentGatewayServiceClient<Channel>, items: Vec<String>) -> Result<()> {
    for chunk in items.chunks(CHUNK) {
        push(agent, "sync", format!("[{}]", chunk.join(","))).await?;
    }
    Ok(())
}

async fn sweep(agent: &mut AgentGatewayServiceClient<Channel>, devices: &[Device], dead: Option<usize>) -> Result<()> {
    let at = now();
    let hosts: Vec<String> = devices.iter().map(|d| d.swept(Some(d.n) != dead, at)).collect();
    push(agent, "sweep", format!(r#"{{"hosts":[{}]}}"#, hosts.join(","))).await
}

/// The network lives: a tick is a tenth of a second of its time.
async fn simulate(to: Listening, devices: usize, speed: f64) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut agents = Vec::new();
    let mut networks: Vec<Network> =
        (0..TENANTS.len()).map(|seed| Network::new(seed as u64, devices.max(3), now())).collect();
    for (addr, network) in to.grpc.iter().zip(&networks) {
        let channel = Channel::from_shared(format!("http://{addr}"))?.connect().await?;
        let mut agent = AgentGatewayServiceClient::new(channel);
        sync(&mut agent, network.devices.iter().map(Device::armis).collect()).await?;
        sync(&mut agent, network.devices.iter().filter(|d| d.in_netbox).map(Device::netbox).collect()).await?;
        agents.push(agent);
    }
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(0.1 / speed));
    for tick in 0u64.. {
        let sequence = tick as u32;
        ticks.tick().await;
        for (t, network) in networks.iter_mut().enumerate() {
            let mut flow = || {
                let (src, dst) = network.talkers();
                let bytes = 64 + network.below(100_000);
                FlowFields {
                    src,
                    dst,
                    src_port: 443,
                    dst_port: 1024 + network.below(60_000) as u16,
                    bytes,
                    packets: 1 + bytes / 1000,
                }
            };
            let flows: Vec<FlowFields> = (0..30).map(|_| flow()).collect();
            socket.send_to(&packets::netflow_v9(&flows, sequence, now(), tick % 50 == 0), to.netflow[t])?;
            socket.send_to(&packets::ipfix(&flows[..10], sequence * 10, now(), tick % 50 == 0), to.netflow[t])?;
            socket.send_to(&packets::sflow(flow(), sequence), to.sflow[t])?;
            let host = network.below(devices as u32);
            let severity = if network.below(20) == 0 { 3 } else { 6 };
            socket.send_to(
                &packets::syslog(severity, &format!("host-{host}"), &format!("session {sequence} opened")),
                to.syslog[t],
            )?;
            let router = network.devices[0].clone();
            // Of each minute the router is dead from second 8 to second 20.
            let second = tick / 10 % 60;
            let dead = (8..20).contains(&second);
            if tick % 10 == 0 && (second == 8 || second == 20) {
                socket.send_to(&packets::link_trap(router.ip, 1, second == 20), to.traps[t])?;
            }
            if tick % 20 == 0 {
                sweep(&mut agents[t], &network.devices, dead.then_some(0)).await?;
            }
            if tick % 50 == 25 {
                let (a, b) = network.swap(now());
                // Both inventories hear of it: what one of them calls a device at another's address would be a device of its own.
                let said = |n: usize| {
                    let device = &network.devices[n];
                    [Some(device.armis()), device.in_netbox.then(|| device.netbox())]
                };
                let items = [a, b].into_iter().flat_map(said).flatten().collect();
                sync(&mut agents[t], items).await?;
            }
        }
    }
    Ok(())
}

/// Has the agent inside look at the server's own listener.
async fn look_at_itself(http: SocketAddr, token: &str) -> Result<()> {
    let at = At { url: format!("http://{http}"), token: Some(token.to_owned()) };
    let attributes = json!({"kind": "tcp", "hosts": [http.ip().to_string()], "site": "default",
        "ports": [http.port().to_string()], "interval_s": 5});
    let profile = json!({"data": {"type": "profiles", "id": "itself", "attributes": attributes}});
    let request = api::request(&at, Method::POST, &["api", "v2", "profiles"])?.json(&profile);
    api::answer(&at, request).await.context("the profile of the demo's own agent").map(|_| ())
}

async fn ask(http: SocketAddr, token: &str, query: &str) -> Result<Value> {
    let at = At { url: format!("http://{http}"), token: Some(token.to_owned()) };
    let request = api::request(&at, Method::POST, &["api", "query"])?.json(&json!({"query": query}));
    api::answer(&at, request).await.context("the demo's own server")
}

/// Prints counters every second, and three answers once there is something to tell.
async fn watch(server: &Server, tokens: &[String], seconds: Option<u64>, speed: f64) -> Result<()> {
    let started = Instant::now();
    let (mut told, mut rows) = (false, 0);
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        let mut line = format!("{:4} s", started.elapsed().as_secs());
        for entity in ["devices", "flows", "logs", "traps", "probes", "alerts"] {
            let mut count = 0;
            for token in tokens {
                let answer = ask(server.http, token, &format!("in:{entity} stats:count()")).await?;
                count += answer["results"][0]["count"].as_u64().unwrap_or(0);
            }
            line.push_str(&format!("  {entity} {count}"));
        }
        say(&line)?;
        // They scroll away otherwise.
        rows += 1;
        if rows % 20 == 0 {
            where_it_is(server.http, tokens)?;
        }
        if !told && started.elapsed().as_secs_f64() > 12.0 / speed.min(2.0) {
            told = true;
            for query in [
                "in:devices type:router is_available:false fields:display_name,ip,vendor_name,availability_reason",
                "in:flows time:last_1h stats:\"sum(bytes_total) as bytes, count() as flows by src_endpoint_ip\" limit:5",
                "in:alerts fields:title,severity,status,triggered_at limit:5",
            ] {
                let answer = ask(server.http, &tokens[0], query).await?;
                let rows = answer["results"].as_array().cloned().unwrap_or_default();
                say(&format!(
                    "\n{}> {query}\n{}\n",
                    TENANTS[0],
                    table::render(&rows, crate::query::brief(query).as_deref())
                ))?;
            }
        }
        if seconds.is_some_and(|s| started.elapsed().as_secs() >= s) {
            return Ok(());
        }
    }
}
