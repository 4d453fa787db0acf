//! A request: the status, the time until the first byte of the answer, a pattern in its body, and when the certificate ends.
//!
//! Certificates are not verified: devices are asked by their addresses, and have names. What is told is when they end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use reqwest::redirect::Policy;
use reqwest::tls::TlsInfo;
use reqwest::{Client, Response};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Answer, Failure, Look};

/// Bytes of a body that are looked at.
const MAX_BODY: usize = 64 << 10;
/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// Clients by how many redirects they follow. None keeps a connection: each look opens its own.
#[derive(Default)]
pub(in crate::agent) struct Clients(Mutex<BTreeMap<u32, Client>>);

/// Follows so many redirects, to the same host: what a device answers sends nobody elsewhere.
fn following(redirects: u32) -> Policy {
    Policy::custom(move |attempt| {
        let first = attempt.previous().first().and_then(|url| url.host_str().map(str::to_owned));
        let same = first.as_deref() == attempt.url().host_str();
        if same && attempt.previous().len() <= redirects as usize { attempt.follow() } else { attempt.stop() }
    })
}

/// A client; of a host by name it asks the address that was found.
fn built(redirects: u32, host: Option<(&str, IpAddr)>) -> Result<Client, Failure> {
    let mut client = Client::builder()
        .redirect(following(redirects))
        .pool_max_idle_per_host(0)
        .no_proxy()
        .tls_danger_accept_invalid_certs(true)
        .tls_info(true)
        .user_agent(concat!("radarflow/", env!("CARGO_PKG_VERSION")));
    if let Some((name, ip)) = host {
        // The port is that of the URL.
        client = client.resolve(name, (ip, 0).into());
    }
    client.build().map_err(|error| Failure::Own(error.to_string()))
}

impl Clients {
    fn following(&self, redirects: u32) -> Result<Client, Failure> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&redirects) {
            return Ok(client.clone());
        }
        let client = built(redirects, None)?;
        clients.insert(redirects, client.clone());
        Ok(client)
    }
}

/// Days until a certificate ends.
pub(super) fn days_left(der: &[u8]) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Some((certificate.validity().not_after.timestamp() - super::now_us() / 1_000_000).div_euclid(DAY_S))
}

fn failed(error: &reqwest::Error) -> Failure {
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && let Failure::Own(why) = Failure::of(io)
            && io.raw_os_error().is_some()
        {
            return Failure::Own(why);
        }
        said = cause.to_string();
        source = cause.source();
    }
    Failure::Silent(said)
}

pub(super) async fn get(look: &Look, clients: &Clients, ip: IpAddr) -> Result<Answer, Failure> {
    let Some(http) = &look.job.told.http else { return Err(Failure::Own("nothing is asked".to_owned())) };
    let client = match look.target.parse::<IpAddr>() {
        Ok(_) => clients.following(http.redirects)?,
        Err(_) => built(http.redirects, Some((&look.target, ip)))?,
    };
    let scheme = if http.tls { "https" } else { "http" };
    let host = match look.target.parse::<IpAddr>() {
        Ok(_) if ip.is_ipv6() => format!("[{ip}]"),
        Ok(_) => ip.to_string(),
        Err(_) => look.target.to_string(),
    };
    let port = look.port.map(|port| format!(":{port}")).unwrap_or_default();
    let began = Instant::now();
    let response = client.get(format!("{scheme}://{host}{port}{}", http.path)).send().await.map_err(|e| failed(&e))?;
    let mut answer = Answer { latency: Some(began.elapsed()), ..Answer::default() };
    let status = response.status().as_u16();
    answer.status_code = Some(status);
    answer.certificate_days =
        response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate).and_then(days_left);
    if !http.expected.iter().any(|(from, to)| (*from..=*to).contains(&status)) {
        answer.wrong = Some(format!("status {status}"));
    } else if let Some(pattern) = &look.job.pattern {
        let pattern = pattern.as_ref().map_err(|why| Failure::Own(why.clone()))?;
        let body = body(response).await?;
        if !pattern.is_match(&String::from_utf8_lossy(&body)) {
            answer.wrong = Some("the body does not have the pattern".to_owned());
        }
    }
    Ok(answer)
}

/// The beginning of a body.
async fn body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while body.len() < MAX_BODY {
        match response.chunk().await.map_err(|error| failed(&error))? {
            Some(chunk) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY - body.len())]),
            None => break,
        }
    }
    Ok(body)
}
