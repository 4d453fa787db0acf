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
//! | `enrolment` | who it is: the certificate that it gets for a token, and renews |
//! | `link` | the connection: Hello, configuration, results |
//! | `schedule` | which look is due when |
//! | `runs` | what somebody wants looked at now |
//! | `looks` | what a look is: `ping`, `tcp`, `http`, `dns`, `tls` |
//! | `waiting`, `spool` | results that wait: in memory, on disk |

mod enrolment;
mod link;
mod looks;
mod runs;
mod schedule;
mod spool;
mod waiting;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use radarflow_connectors::disk;
use radarflow_connectors::ledger::DataDir;
use radarflow_connectors::sources::Stop;
use radarflow_proto::payload::AgentJob;
use tokio::sync::{Notify, Semaphore, watch};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use self::enrolment::Identity;
pub(crate) use self::enrolment::{Enroll, says_url};
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

/// `radarflow agent`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AgentCommand {
    #[command(subcommand)]
    pub(crate) step: Option<Step>,
    #[command(flatten)]
    pub(crate) said: Said,
}

/// What is done in place of running it.
#[derive(Subcommand)]
pub(crate) enum Step {
    /// Enrol: get a certificate for a key that never leaves this host, with the token of an edge package.
    #[command(after_help = "Example: radarflow agent enroll - --data-dir /var/lib/radarflow-agent < token")]
    Enroll(Enroll),
}

/// What an agent is told on the command line.
#[derive(Args)]
pub(crate) struct Said {
    /// The gateway: http://… on this host, https://… with certificates. Of an agent that is enrolled its package says it.
    #[arg(long, env = "RADARFLOW_GATEWAY")]
    gateway: Option<String>,
    /// What the agent is called. Of one that is enrolled its package says it.
    #[arg(long, env = "RADARFLOW_AGENT")]
    id: Option<String>,
    /// Its partition, where neither its certificate nor the listener says.
    #[arg(long, default_value = "default")]
    partition: String,
    /// The authority that signs the gateway's certificate.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Its own certificate; it names the agent.
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// The key of its certificate.
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
    /// The name in the gateway's certificate, where it is not that of the address.
    #[arg(long)]
    server_name: Option<String>,
    /// Where results wait while the gateway is away, and where the identity of an enrolled agent is. Without it they wait in
    /// memory.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// The gateway of an agent that is told none.
const GATEWAY: &str = "http://127.0.0.1:50052";

impl Said {
    /// What was said, or what the agent was enrolled as.
    pub(crate) fn settings(self) -> Result<Settings> {
        let Said { gateway, id, partition, ca, certificate, key, server_name, data_dir } = self;
        let identity = data_dir.as_deref().map(Identity::read).transpose()?.flatten();
        match (id, identity) {
            (Some(id), _) => Ok(Settings {
                gateway: gateway.unwrap_or_else(|| GATEWAY.to_owned()),
                id,
                partition,
                shows: match (ca, certificate, server_name) {
                    (None, None, None) => Shows::Nothing,
                    (ca, certificate, server_name) => Shows::Files { ca, certificate, key, server_name },
                },
                data_dir,
            }),
            (None, Some(identity)) => Ok(Settings {
                gateway: gateway.unwrap_or_else(|| format!("https://{}", identity.gateway)),
                id: identity.agent_id.clone(),
                partition: identity.partition.clone(),
                shows: Shows::Identity(Arc::new(Mutex::new(identity))),
                data_dir,
            }),
            (None, None) => bail!(
                "nothing says which agent this is: enrol it (`radarflow agent enroll TOKEN --data-dir DIR`, then \
                 `radarflow agent --data-dir DIR`), or say --id"
            ),
        }
    }
}

/// How an agent runs.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The gateway.
    pub(crate) gateway: String,
    /// What the agent is called.
    pub(crate) id: String,
    /// Its partition, where neither its certificate nor the listener says.
    pub(crate) partition: String,
    /// What it shows the gateway.
    pub(crate) shows: Shows,
    /// Where results wait while the gateway is away. Without it they wait in memory.
    pub(crate) data_dir: Option<PathBuf>,
}

/// What an agent shows a gateway, and by what it knows it.
#[derive(Clone)]
pub(crate) enum Shows {
    /// Nothing: it is on the same host.
    Nothing,
    /// What files say; they are read for each connection.
    Files { ca: Option<PathBuf>, certificate: Option<PathBuf>, key: Option<PathBuf>, server_name: Option<String> },
    /// What it was enrolled as.
    Identity(Arc<Mutex<Identity>>),
}

impl Settings {
    /// How the gateway is reached.
    fn endpoint(&self) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.gateway.clone())
            .with_context(|| format!("{} is no address of a gateway", self.gateway))?
            .connect_timeout(Duration::from_secs(10))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true);
        if !self.gateway.starts_with("https://") {
            if !matches!(self.shows, Shows::Nothing) {
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
        match &self.shows {
            Shows::Nothing => {}
            Shows::Files { ca, certificate, key, server_name } => {
                if let Some(ca) = ca {
                    tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
                }
                if let (Some(certificate), Some(key)) = (certificate, key) {
                    tls = tls.identity(tonic::transport::Identity::from_pem(read(certificate)?, read(key)?));
                }
                if let Some(name) = server_name {
                    tls = tls.domain_name(name.clone());
                }
            }
            Shows::Identity(identity) => {
                let identity = identity.lock().unwrap_or_else(PoisonError::into_inner);
                tls = tls
                    .ca_certificate(Certificate::from_pem(&identity.authorities))
                    .identity(tonic::transport::Identity::from_pem(&identity.certificate, &identity.key));
            }
        }
        endpoint.tls_config(tls).context("the certificates cannot be used")
    }
}

/// What the parts of an agent share.
struct Agent {
    settings: Settings,
    /// Somebody wants its certificate renewed now.
    renew: Arc<Notify>,
    /// When it was tried last.
    renewed: Mutex<Option<Instant>>,
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

/// Runs an agent until it is told to stop; its certificate is renewed in time, and when `renew` says so.
///
/// # Errors
/// Where what it was told on the command line cannot be used.
pub(crate) async fn run(settings: Settings, renew: Arc<Notify>, stop: Stop) -> Result<()> {
    // What cannot be used is told before anything begins.
    settings.endpoint()?;
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
        renew,
        renewed: Mutex::default(),
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
