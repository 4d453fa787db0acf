//! Who an enrolled agent is: its identity is one file of its data directory, which is exchanged whole. The key is made here and
//! leaves this host never; the server is asked for a certificate of it, once with the token of a package, then again over the
//! connection to the gateway when two thirds of the certificate's time are over.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use radarflow_connectors::ledger::DataDir;
use radarflow_connectors::{disk, http};
use radarflow_proto::enrolment::RenewRequest;
use radarflow_proto::enrolment::enrolment_client::EnrolmentClient;
use rcgen::{CertificateParams, KeyPair};
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tonic::transport::Channel;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Agent, Shows};

/// The file.
const FILE: &str = "identity.json";
/// The key for which a certificate was asked, until it is there.
const PENDING: &str = "enrolment.key";
/// What tokens begin with: one that we make, and those of later versions of ServiceRadar.
const PREFIXES: [&str; 2] = ["edgepkg-v2:", "edgepkg-v3:"];
/// Bytes of an answer.
const MAX_ANSWER: usize = 64 << 10;
/// An answer comes within this.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause before what was not renewed is tried again.
const AGAIN: Duration = Duration::from_secs(3600);

/// Who an agent is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// What it is called.
    pub(super) agent_id: String,
    pub(super) partition: String,
    /// Where it connects, `host:port`.
    pub(super) gateway: String,
    /// PEM.
    pub(super) certificate: String,
    /// PEM.
    pub(super) key: String,
    /// Whom it believes, PEM.
    pub(super) authorities: String,
}

impl Identity {
    /// That of a data directory; nothing where no agent was enrolled in it.
    pub(super) fn read(dir: &Path) -> Result<Option<Identity>> {
        let file = dir.join(FILE);
        match std::fs::read(&file) {
            Ok(bytes) => {
                let read = serde_json::from_slice(&bytes);
                read.map(Some).with_context(|| format!("{} is no identity of an agent", file.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| file.display().to_string()),
        }
    }

    /// Keeps it where nobody else reads it; durable when this returns.
    fn keep(&self, dir: &Path) -> Result<()> {
        let file = dir.join(FILE);
        disk::os()
            .keep_secret(&file, &serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    /// Takes over a certificate of a key.
    fn takes(&mut self, key: &KeyPair, certificate: String, authorities: String) -> Result<()> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).context("the server's certificate")?;
        let (_, read) = X509Certificate::from_der(&der).context("the server's certificate")?;
        let own = read.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
        ensure!(own, "the server's certificate is of another key");
        ensure!(CertificateDer::from_pem_slice(authorities.as_bytes()).is_ok(), "the server names no authority");
        (self.certificate, self.authorities, self.key) = (certificate, authorities, key.serialize_pem());
        Ok(())
    }

    /// When it is renewed: two thirds of its certificate's time are over then.
    fn renewed_at(&self) -> Option<SystemTime> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        let [begins, ends] = [certificate.validity().not_before, certificate.validity().not_after]
            .map(|at| u64::try_from(at.timestamp()).unwrap_or_default());
        Some(UNIX_EPOCH + Duration::from_secs(begins + ends.saturating_sub(begins) / 3 * 2))
    }
}

/// A key, and a request for a certificate of it.
fn request(key: KeyPair) -> Result<(KeyPair, String)> {
    let request = CertificateParams::default().serialize_request(&key)?.pem()?;
    Ok((key, request))
}

/// `radarflow agent enroll`.
#[derive(Args)]
pub(crate) struct Enroll {
    /// The token of the package, as `radarflow edge create` printed it; `-` reads it from standard input.
    token: String,
    /// The server's API, where the token does not say it.
    #[arg(long, env = "RADARFLOW_URL")]
    url: Option<String>,
    /// Where the agent keeps who it is, and results while the gateway is away.
    #[arg(long)]
    data_dir: PathBuf,
    /// Also where an agent was enrolled before.
    #[arg(long)]
    force: bool,
}

/// What a token says.
#[derive(Deserialize)]
struct Token {
    pkg: String,
    dl: String,
    #[serde(default)]
    api: Option<String>,
}

impl Token {
    fn read(text: &str) -> Result<Token> {
        let said = PREFIXES.iter().find_map(|prefix| text.trim().strip_prefix(prefix));
        let said = said.and_then(|said| said.split_once('.'));
        let said = said.and_then(|(said, _)| URL_SAFE_NO_PAD.decode(said).ok());
        let token = said.and_then(|said| serde_json::from_slice(&said).ok());
        token.context("this is no token of an edge package: it begins with edgepkg-v2: and has a dot in it")
    }
}

/// Whether a token says where the server is.
pub(crate) fn says_url(token: &str) -> bool {
    Token::read(token).is_ok_and(|token| token.api.is_some())
}

impl Enroll {
    /// The key: that for which an answer was lost, or another, which is kept before anybody is asked.
    fn key(dir: &Path) -> Result<KeyPair> {
        let file = dir.join(PENDING);
        match std::fs::read_to_string(&file) {
            Ok(pem) => {
                if let Ok(key) = KeyPair::from_pem(&pem) {
                    return Ok(key);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| file.display().to_string()),
        }
        let key = KeyPair::generate().context("no key can be made")?;
        let kept = disk::os().keep_secret(&file, key.serialize_pem().as_bytes());
        kept.with_context(|| format!("{} cannot be written", file.display()))?;
        Ok(key)
    }

    pub(crate) async fn run(self) -> Result<String> {
        let mut text = self.token;
        if text == "-" {
            text.clear();
            std::io::stdin().take(16 << 10).read_to_string(&mut text)?;
        }
        let token = Token::read(&text)?;
        let url = self.url.or(token.api).unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
        let mut address = Url::parse(&url).with_context(|| format!("{url} is no URL"))?;
        let local = matches!(address.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        ensure!(
            address.scheme() == "https" || local,
            "{url} is on another host: say https://, or the token can be read"
        );
        address
            .path_segments_mut()
            .map_err(|()| anyhow::anyhow!("{url} is no URL of a server"))?
            .pop_if_empty()
            .extend(["api", "edge-packages", &token.pkg, "enroll"]);
        // Nobody else uses it meanwhile: an agent that runs would go on as who it was.
        let _held = DataDir::take(&self.data_dir)?;
        if let Some(before) = Identity::read(&self.data_dir)?.filter(|_| !self.force) {
            let dir = self.data_dir.display();
            bail!("agent {} was enrolled in {dir} already; --force puts another in its place", before.agent_id);
        }
        let (key, request) = request(Enroll::key(&self.data_dir)?)?;
        // What the token lets somebody have is for that server alone.
        let client = http::client(|client| client.timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()))?;
        let asked = client.post(address).header("x-serviceradar-download-token", &token.dl);
        let mut answer =
            asked.json(&json!({"request": request})).send().await.with_context(|| format!("{url} does not answer"))?;
        let mut said = Vec::new();
        while let Some(piece) = answer.chunk().await.with_context(|| format!("{url} broke off"))? {
            ensure!(said.len() + piece.len() <= MAX_ANSWER, "{url} answers more than an identity has");
            said.extend_from_slice(&piece);
        }
        let status = answer.status();
        let said: Value = serde_json::from_slice(&said).unwrap_or_default();
        let said = crate::api::good(status, said)?;
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let mut identity = Identity {
            agent_id: text("agent_id"),
            partition: text("partition"),
            gateway: text("gateway"),
            certificate: String::new(),
            key: String::new(),
            authorities: String::new(),
        };
        ensure!(!identity.agent_id.is_empty() && !identity.gateway.is_empty(), "{url} answers no identity");
        identity.takes(&key, text("certificate"), text("authorities"))?;
        identity.keep(&self.data_dir)?;
        let _ = std::fs::remove_file(self.data_dir.join(PENDING));
        let Identity { agent_id, partition, gateway, .. } = &identity;
        let dir = self.data_dir.display();
        Ok(format!(
            "enrolled as {agent_id} of partition {partition}; its gateway is {gateway}\nstart it: radarflow agent --data-dir {dir}"
        ))
    }
}

/// Waits until the certificate is to be renewed: it is time, or somebody wants it.
pub(super) async fn due(agent: &Agent) {
    let Shows::Identity(identity) = &agent.settings.shows else { return std::future::pending().await };
    let at = identity.lock().unwrap_or_else(PoisonError::into_inner).renewed_at();
    let asked = *agent.renewed.lock().unwrap_or_else(PoisonError::into_inner);
    // The clock may be set meanwhile: it is looked at again and again.
    let timely = async {
        loop {
            let now = SystemTime::now();
            let waits = at.and_then(|at| at.duration_since(now).ok()).unwrap_or_default();
            let again = asked.map_or(Duration::ZERO, |asked: std::time::Instant| AGAIN.saturating_sub(asked.elapsed()));
            match waits.max(again) {
                Duration::ZERO => return,
                waits => tokio::time::sleep(waits.min(AGAIN)).await,
            }
        }
    };
    tokio::select! {
        () = timely => {}
        () = agent.renew.notified() => {}
    }
}

/// Renews the certificate over a connection.
pub(super) async fn renew(agent: &Arc<Agent>, channel: &Channel) -> Result<()> {
    let Shows::Identity(identity) = &agent.settings.shows else { return Ok(()) };
    *agent.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::time::Instant::now());
    let dir = agent.settings.data_dir.as_deref().context("an enrolled agent has a data directory")?;
    let (key, request) = request(KeyPair::generate().context("no key can be made")?)?;
    let mut client = EnrolmentClient::new(channel.clone());
    let answer = tokio::time::timeout(PATIENCE, client.renew(RenewRequest { request })).await;
    let answer = answer.context("Renew was not answered")?.context("Renew was refused")?.into_inner();
    let mut renewed = locked(identity).clone();
    renewed.takes(&key, answer.certificate, answer.authorities)?;
    renewed.keep(dir)?;
    *locked(identity) = renewed;
    tracing::info!(agent = agent.settings.id, "the certificate is renewed");
    Ok(())
}

fn locked(identity: &Mutex<Identity>) -> std::sync::MutexGuard<'_, Identity> {
    identity.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rcgen::date_time_ymd;

    use super::*;

    #[test]
    fn tokens_are_read_and_others_are_told() {
        let said = URL_SAFE_NO_PAD.encode(r#"{"pkg":"p","dl":"d","api":"https://radar.test"}"#);
        let token = Token::read(&format!(" edgepkg-v2:{said}.c2ln\n")).unwrap();
        assert_eq!(
            (token.pkg.as_str(), token.dl.as_str(), token.api.as_deref()),
            ("p", "d", Some("https://radar.test"))
        );
        for other in ["", "rf_x", &format!("edgepkg-v2:{said}"), "edgepkg-v2:e30.x", "edgepkg-v2:%.x"] {
            assert!(Token::read(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_certificate_is_of_the_key_that_asked_and_is_renewed_after_two_thirds_of_its_time() {
        let signed = |key: &KeyPair| {
            let mut params = CertificateParams::default();
            (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 1, 31));
            params.self_signed(key).unwrap().pem()
        };
        let (key, _) = request(KeyPair::generate().unwrap()).unwrap();
        let text = String::new;
        let mut identity = Identity {
            agent_id: text(),
            partition: text(),
            gateway: text(),
            certificate: text(),
            key: text(),
            authorities: text(),
        };
        let other = signed(&KeyPair::generate().unwrap());
        assert!(identity.takes(&key, other, signed(&key)).is_err() && identity.key.is_empty());
        assert!(identity.takes(&key, signed(&key), text()).is_err());
        identity.takes(&key, signed(&key), signed(&key)).unwrap();
        let at = identity.renewed_at().unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(at as i64, date_time_ymd(2026, 1, 21).unix_timestamp());

        let dir = tempfile::tempdir().unwrap();
        assert!(Identity::read(dir.path()).unwrap().is_none());
        identity.keep(dir.path()).unwrap();
        assert_eq!(Identity::read(dir.path()).unwrap().unwrap().key, identity.key);
        std::fs::write(dir.path().join(FILE), "{}").unwrap();
        assert!(Identity::read(dir.path()).is_err());
    }
}
