//! The agent: `radarflow agent`, and the one inside of `radarflow serve` (`[agent]`), which is the same over the same gateway.
//!
//! ```text
//! gateway ─► configuration (GetConfig, control stream) ─► [schedule: slots by interval and a hash] ─► looks
//!         ◄── results, in batches ◄── [waiting: bounded, the oldest go first] ◄──────────────────────┘
//! ```
//! It does what it was told last, whether the gateway is there or not. What it finds bears the time when the look ended, and
//! waits until the gateway has said that it is durable. A look that fails for reasons of its own says that it does not know.
//!
//! | file | says |
//! |---|---|
//! | `link` | the connection: Hello, configuration, results |
//! | `schedule` | which look is due when |
//! | `runs` | what somebody wants looked at now |
//! | `looks` | what a look is: `ping`, `tcp`, `http`, `dns`, `tls` |
//! | `waiting`, `spool` | results that wait: in memory, on disk |

mod link;
mod looks;
mod runs;
mod schedule;
mod spool;
mod waiting;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use radarflow_connectors::disk;
use radarflow_connectors::ledger::DataDir;
use radarflow_connectors::sources::Stop;
use radarflow_proto::payload::AgentJob;
use tokio::sync::{Semaphore, watch};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use self::looks::Clients;
use self::runs::{MAX_RUNS, Words};
use self::spool::Spool;
use self::waiting::Waiting;
pub(crate) use self::waiting::{FOUND_BYTES, MAX_WAITING};

/// The folder of results that wait, in the agent's data directory.
const SPOOL: &str = "spool";
/// Bytes that wait on disk at most.
const MAX_SPOOL: u64 = 512 << 20;
/// Looks at a time; each has a socket.
const AT_ONCE: usize = 500;
/// The longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How often what is found is put on disk while the gateway is away.
const ASIDE: Duration = Duration::from_secs(1);
/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// What an agent is told on the command line.
#[derive(Args, Clone, Debug)]
pub(crate) struct Settings {
    /// The gateway: http://… on this host, https://… with certificates.
    #[arg(long, env = "RADARFLOW_GATEWAY", default_value = "http://127.0.0.1:50052")]
    pub(crate) gateway: String,
    /// What the agent is called.
    #[arg(long, env = "RADARFLOW_AGENT")]
    pub(crate) id: String,
    /// Its partition, where neither its certificate nor the listener says.
    #[arg(long, default_value = "default")]
    pub(crate) partition: String,
    /// The authority that signs the gateway's certificate.
    #[arg(long)]
    pub(crate) ca: Option<PathBuf>,
    /// Its own certificate; it names the agent.
    #[arg(long, requires = "key")]
    pub(crate) certificate: Option<PathBuf>,
    /// The key of its certificate.
    #[arg(long, requires = "certificate")]
    pub(crate) key: Option<PathBuf>,
    /// The name in the gateway's certificate, where it is not that of the address.
    #[arg(long)]
    pub(crate) server_name: Option<String>,
    /// Where results wait while the gateway is away. Without it they wait in memory.
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
}

impl Settings {
    /// How the gateway is reached.
    fn endpoint(&self) -> Result<Endpoint> {
        let mut endpoint = Endpoint::from_shared(self.gateway.clone())
            .with_context(|| format!("{} is no address of a gateway", self.gateway))?
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        if !self.gateway.starts_with("https://") {
            if self.certificate.is_some() || self.ca.is_some() {
                bail!("certificates are for https://, and the gateway is {}", self.gateway);
            }
            let url = reqwest::Url::parse(&self.gateway)?;
            if !matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
                bail!("{} is not on this host: say https:// and the certificates of the agent", self.gateway);
            }
            return Ok(endpoint);
        }
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
        let mut tls = ClientTlsConfig::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        if let Some(name) = &self.server_name {
            tls = tls.domain_name(name.clone());
        }
        endpoint = endpoint.tls_config(tls).context("the certificates cannot be used")?;
        Ok(endpoint)
    }
}

/// What the parts of an agent share.
struct Agent {
    settings: Settings,
    endpoint: Endpoint,
    /// What it can do here.
    capabilities: Vec<String>,
    /// What it was told last.
    told: watch::Sender<Told>,
    /// Names this process: what it was commanded it tells the result of, by whichever connection.
    life: String,
    /// Places of looks.
    places: Arc<Semaphore>,
    clients: Arc<Clients>,
    /// Places of runs.
    runs: Arc<Semaphore>,
    /// What it says of commands.
    words: Words,
    waiting: Waiting,
    /// Results that wait on disk.
    spool: Option<Mutex<Spool>>,
}

/// What an agent was told.
#[derive(Clone, Debug, Default)]
struct Told {
    version: String,
    jobs: Arc<Vec<AgentJob>>,
}

/// Runs an agent until it is told to stop.
///
/// # Errors
/// Where what it was told on the command line cannot be used.
pub(crate) async fn run(settings: Settings, stop: Stop) -> Result<()> {
    let endpoint = settings.endpoint()?;
    let mut capabilities: Vec<String> = ["probes", "tcp", "http", "dns", "tls"].map(str::to_owned).to_vec();
    match looks::icmp::permitted() {
        Ok(()) => capabilities.push("icmp".to_owned()),
        Err(error) => {
            let lacks = "net.ipv4.ping_group_range does not have its group, and it lacks CAP_NET_RAW";
            tracing::warn!(%error, lacks, "this agent cannot ping");
        }
    }
    let (told, _) = watch::channel(Told::default());
    // Held as long as the agent runs: two of them do not share what waits.
    let dir = settings.data_dir.as_deref().map(DataDir::take).transpose()?;
    let spool = dir
        .as_ref()
        .map(|dir| Spool::open_or_begin(disk::os(), &dir.path(SPOOL), MAX_SPOOL))
        .transpose()?
        .map(Mutex::new);
    let agent = Arc::new(Agent {
        settings,
        endpoint,
        capabilities,
        told,
        life: format!("{:032x}", rand::random::<u128>()),
        places: Arc::new(Semaphore::new(AT_ONCE)),
        clients: Arc::default(),
        runs: Arc::new(Semaphore::new(MAX_RUNS)),
        words: Words::default(),
        waiting: Waiting::default(),
        spool,
    });
    let looking = tokio::spawn(schedule::run(agent.clone(), stop.clone()));
    let mut pause = FIRST_PAUSE;
    let mut told = stop.clone();
    while !stop.is_told() {
        let began = tokio::time::Instant::now();
        if let Err(error) = link::hold(&agent, stop.clone()).await {
            if began.elapsed() > MAX_PAUSE {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(error = format!("{error:#}"), again_in = ?pause, "the gateway is not there");
            // What is found meanwhile does not wait in memory.
            let until = tokio::time::Instant::now() + pause;
            while tokio::time::Instant::now() < until && !stop.is_told() {
                agent.put_aside();
                tokio::select! {
                    () = tokio::time::sleep_until(until.min(tokio::time::Instant::now() + ASIDE)) => {}
                    () = told.told() => {}
                }
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
    looking.abort();
    agent.put_aside();
    Ok(())
}

impl Agent {
    /// Puts on disk what waits in memory, while the gateway is away. What the disk does not take waits on in memory.
    fn put_aside(&self) {
        let Some(spool) = &self.spool else { return };
        let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let results = self.waiting.take(spool::RESULTS);
            if results.is_empty() {
                return;
            }
            if let Err((results, error)) = spool.push(results) {
                tracing::warn!(%error, "results cannot be put on disk");
                self.waiting.back(results);
                return;
            }
        }
    }
}

/// Microseconds since 1970.
fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
