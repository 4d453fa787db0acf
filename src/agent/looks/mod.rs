//! A look: at one target, once. What it found is one of three: it is as it should be; it is not; or the agent could not look,
//! and then nobody knows more than before.

mod dns;
mod http;
pub(super) mod icmp;
mod tcp;
mod tls;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use radarflow_proto::payload::{AgentJob, ProbeFound};
use regex::{Regex, RegexBuilder};

pub(super) use http::Clients;

use super::now_us;

/// Longest wait for the address of a name.
const RESOLVE: Duration = Duration::from_secs(5);
/// Between two attempts.
const BETWEEN: Duration = Duration::from_millis(100);

/// A job, made ready.
pub(super) struct Job {
    pub(super) told: AgentJob,
    pattern: Option<Result<Regex, String>>,
}

impl Job {
    pub(super) fn new(told: &AgentJob) -> Self {
        let text = told.http.as_ref().and_then(|http| http.body_pattern.as_deref());
        let size = radarflow_reconcile::jobs::profile::MAX_PATTERN;
        let built = |text| RegexBuilder::new(text).size_limit(size).build().map_err(|e| e.to_string());
        Job { told: AgentJob { ..told.clone() }, pattern: text.map(built) }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.told.timeout_ms.max(1))
    }
}

/// One target, and the port.
pub(super) struct Look {
    pub(super) job: Arc<Job>,
    pub(super) target: Arc<str>,
    pub(super) port: Option<u16>,
}

/// What one attempt found.
#[derive(Debug, Default)]
struct Answer {
    latency: Option<Duration>,
    status_code: Option<u16>,
    certificate_days: Option<i64>,
    /// What was wrong, where something answered.
    wrong: Option<String>,
}

/// Why there was no answer.
#[derive(Debug)]
enum Failure {
    /// Nobody answered, or with a refusal.
    Silent(String),
    /// The agent could not look.
    Own(String),
}

impl Failure {
    /// Of an error of a socket: what this host lacks is its own.
    fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{
            ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut,
            UnexpectedEof,
        };
        match error.kind() {
            ConnectionRefused | ConnectionReset | ConnectionAborted | HostUnreachable | TimedOut | UnexpectedEof => {
                Failure::Silent(error.to_string())
            }
            // Without a route nobody was asked.
            NetworkUnreachable => Failure::Own(error.to_string()),
            _ => Failure::Own(error.to_string()),
        }
    }
}

/// The address of a target: itself, or the first that its name has.
async fn address(target: &str) -> Result<IpAddr, Failure> {
    if let Ok(ip) = target.parse() {
        return Ok(ip);
    }
    let found = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((target, 0))).await;
    let found = found.map_err(|_| Failure::Own(format!("{target} was not resolved in time")))?;
    let found = found.map_err(|error| Failure::Own(format!("{target} cannot be resolved: {error}")))?;
    found.map(|addr| addr.ip()).next().ok_or_else(|| Failure::Own(format!("{target} has no address")))
}

/// Looks.
pub(super) async fn look(look: &Look, clients: &Clients) -> ProbeFound {
    let told = &look.job.told;
    let mut found = ProbeFound {
        job: told.job.clone(),
        profile: told.profile.clone(),
        kind: told.kind.clone(),
        target: look.target.to_string(),
        port: look.port,
        ..ProbeFound::default()
    };
    match address(&look.target).await {
        Ok(ip) => {
            found.ip = Some(ip);
            attempts(look, clients, ip, &mut found).await;
        }
        Err(Failure::Own(why) | Failure::Silent(why)) => found.error = why,
    }
    found.at_us = now_us();
    found
}

/// Asks as often as it was told: of pings all, of anything else until the first answer.
async fn attempts(look: &Look, clients: &Clients, ip: IpAddr, found: &mut ProbeFound) {
    let all = look.job.told.kind == "ping";
    let (mut took, mut answered) = (Duration::ZERO, 0);
    for nth in 0..look.job.told.count.max(1) {
        if nth > 0 {
            tokio::time::sleep(BETWEEN).await;
        }
        match once(look, clients, ip).await {
            Ok(answer) => {
                found.sent += 1;
                answered += 1;
                took += answer.latency.unwrap_or_default();
                found.status_code = answer.status_code.or(found.status_code);
                found.certificate_days = answer.certificate_days.or(found.certificate_days);
                found.ok = Some(answer.wrong.is_none());
                found.error = answer.wrong.unwrap_or_default();
                if !all && found.ok == Some(true) {
                    break;
                }
            }
            Err(Failure::Silent(why)) => {
                found.sent += 1;
                found.lost += 1;
                if found.ok != Some(true) {
                    (found.ok, found.error) = (Some(false), why);
                }
            }
            Err(Failure::Own(why)) if found.ok.is_none() => found.error = why,
            Err(Failure::Own(_)) => {}
        }
    }
    if answered > 0 {
        found.latency_us = u64::try_from((took / answered).as_micros()).ok();
    }
}

async fn once(look: &Look, clients: &Clients, ip: IpAddr) -> Result<Answer, Failure> {
    let began = Instant::now();
    let timeout = look.job.timeout();
    let asked = async {
        match look.job.told.kind.as_str() {
            "ping" => icmp::ping(ip).await,
            "tcp" => tcp::connect(ip, look.port.unwrap_or_default()).await,
            "http" => http::get(look, clients, ip).await,
            "dns" => dns::ask(look, ip).await,
            "tls" => tls::greet(look, ip).await,
            other => Err(Failure::Own(format!("this agent knows no {other}"))),
        }
    };
    let answer = match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Failure::Silent(format!("no answer within {} ms", timeout.as_millis()))),
    };
    Ok(Answer { latency: answer.latency.or(Some(began.elapsed())), ..answer })
}
