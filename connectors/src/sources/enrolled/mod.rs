//! Enrolled agents: the authorities of tenants, the certificates that these sign, and who is let in.
//!
//! ```text
//! certificate_authorities, edge_packages (resources) ─► [Enrolled] ─┬─► a gateway's own certificate, made when it is needed
//!                                                                   ├─► who is let in: a certificate of a package that stands
//!                                                                   └─► connections that nothing lets in any more: cut at once
//! ```
//! An agent is let in while three things hold: an authority of its tenant that stands signed its certificate, the certificate is
//! not over, and it is, by its hash, that of a package that is not revoked. They hold for each call and as long as a connection lasts,
//! not at its beginning alone. So nobody waits for a list of revocations, and whoever has an authority's key, and not the ledger, lets
//! nobody in. Who an agent is its package says.
//!
//! **Authorities follow each other.** A tenant's next one is made when a tenth of the time of the last is left. It signs agents'
//! certificates at once, and agents believe both as soon as they renew; gateways show a certificate of the eldest as long as that lasts.
//!
//! A gateway's certificate is never on disk: it is made at a handshake, and again when two thirds of its time are over
//! or the authority is another.
//!
//! | file | says |
//! |---|---|
//! | `mod` | who is let in, and how an agent renews |
//! | `making` | authorities and certificates |
//! | `gate` | what a gateway shows, and whom TLS lets in |

mod gate;
mod making;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::Ed25519KeyPair;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::ports::{AppendError, Appender, Authorities, Certified};
use radarflow_proto::resource::{
    Act, Command, Condition, Operation, Principal, PrincipalKind, Resource, ResourceChange,
};
use radarflow_proto::rows::Table;
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

pub(super) use self::gate::Gate;
pub use self::making::MAX_REQUEST;
use super::now_us;
use crate::sealing::{Keyring, context};

/// How long it is waited until what was stated stands.
const STANDS_WITHIN: Duration = Duration::from_secs(10);
/// A package's certificate is renewed at most this often.
const RENEWED_EACH: Duration = Duration::from_secs(60);
/// So often a package is stated anew that somebody else changes meanwhile.
const TRIES: usize = 3;
/// How often a connection looks whether its certificate is over, at least: clocks are set.
const LOOKS: Duration = Duration::from_secs(3600);

/// What a connection lives until.
pub(super) type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The authorities and packages that stand.
pub struct Enrolled {
    keys: Arc<Keyring>,
    signer: Ed25519KeyPair,
    of: RwLock<BTreeMap<String, Tenant>>,
    /// The tenants of packages.
    packages: RwLock<HashMap<String, String>>,
    changed: watch::Sender<u64>,
    /// When certificates of packages were renewed last.
    renewed: Mutex<HashMap<String, Instant>>,
}

#[derive(Default)]
struct Tenant {
    authorities: BTreeMap<String, Arc<Authority>>,
    packages: BTreeMap<String, Arc<Resource>>,
    /// The packages of certificates that let somebody in, by their SHA-256.
    certificates: HashMap<String, String>,
}

/// An authority.
struct Authority {
    resource: Arc<Resource>,
    der: CertificateDer<'static>,
    not_after_us: i64,
    /// Verifies what it signed.
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authority {
    fn of(resource: &Arc<Resource>) -> Result<Self, String> {
        let pem = resource.text("certificate").unwrap_or_default();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        let mut roots = RootCertStore::empty();
        roots.add(der.clone()).map_err(|error| error.to_string())?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|error| error.to_string())?;
        let not_after_us = resource.number("not_after").unwrap_or_default();
        Ok(Authority { resource: resource.clone(), der, not_after_us, verifier })
    }
}

/// What let a connection in.
#[derive(Debug)]
pub struct Admission {
    tenant: String,
    /// SHA-256 of the certificate.
    fingerprint: String,
    /// The authority that signed it, and the epoch of that.
    authority: (String, u64),
    not_after_us: i64,
}

impl Tenant {
    /// The one that signs agents' certificates: that which was made last.
    fn newest(&self) -> Option<&Arc<Authority>> {
        self.authorities.values().max_by_key(|authority| (authority.resource.created_us, authority.resource.epoch))
    }

    /// The one that signs gateways': the eldest that lasts as long as that, which all agents know.
    fn eldest(&self, now_us: i64) -> Option<&Arc<Authority>> {
        let lasts = |authority: &&Arc<Authority>| authority.not_after_us > now_us + micros(gate::LASTS);
        let eldest = self.authorities.values().filter(lasts);
        eldest.min_by_key(|authority| (authority.resource.created_us, authority.resource.epoch)).or(self.newest())
    }

    fn believed(&self) -> String {
        self.authorities.values().filter_map(|authority| authority.resource.text("certificate")).collect()
    }

    fn index(&mut self) {
        self.certificates.clear();
        for package in self.packages.values().filter(|package| package.number("revoked_at").is_none()) {
            for known in ["fingerprint", "previous_fingerprint"].into_iter().filter_map(|field| package.text(field)) {
                self.certificates.insert(known.to_owned(), package.id.clone());
            }
        }
    }

    fn stands(&self, admission: &Admission) -> Option<&Arc<Resource>> {
        let (id, epoch) = &admission.authority;
        self.authorities.get(id).filter(|authority| authority.resource.epoch == *epoch)?;
        self.packages.get(self.certificates.get(&admission.fingerprint)?)
    }
}

fn micros(of: Duration) -> i64 {
    of.as_micros() as i64
}

impl Enrolled {
    /// None yet. Authorities' keys are sealed by `keys`; what signs tokens follows from `secret`.
    pub fn new(keys: Arc<Keyring>, secret: &[u8; 32]) -> Self {
        let seed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"tokens of edge packages");
        let signer = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).expect("32 bytes are a seed of Ed25519");
        let (of, packages, renewed) = (RwLock::default(), RwLock::default(), Mutex::default());
        Enrolled { keys, signer, of, packages, changed: watch::channel(0).0, renewed }
    }

    /// Takes in what an epoch says.
    pub fn learn(&self, changes: &[ResourceChange]) {
        let concerns = |change: &&ResourceChange| {
            let resource = change.after.as_ref().or(change.before.as_ref());
            let names = [Table::CertificateAuthority.name(), Table::EdgePackage.name()];
            resource.is_some_and(|resource| names.contains(&resource.resource.as_str()))
        };
        if !changes.iter().any(|change| concerns(&change)) {
            return;
        }
        let (mut of, mut packages) = (write(&self.of), write(&self.packages));
        for ResourceChange { before, after } in changes.iter().filter(concerns) {
            let Some(resource) = after.as_ref().or(before.as_ref()) else { continue };
            let tenant = of.entry(resource.tenant.clone()).or_default();
            if resource.resource == Table::EdgePackage.name() {
                match after {
                    Some(after) => {
                        packages.insert(after.id.clone(), after.tenant.clone());
                        tenant.packages.insert(after.id.clone(), after.clone());
                    }
                    None => {
                        packages.remove(&resource.id);
                        tenant.packages.remove(&resource.id);
                    }
                }
                continue;
            }
            tenant.authorities.remove(&resource.id);
            match after.as_ref().map(Authority::of) {
                Some(Ok(authority)) => drop(tenant.authorities.insert(resource.id.clone(), Arc::new(authority))),
                Some(Err(error)) => tracing::error!(error, id = resource.id, "an authority cannot be believed"),
                None => {}
            }
        }
        of.values_mut().for_each(Tenant::index);
        drop((of, packages));
        self.changed.send_modify(|n| *n += 1);
    }

    /// Something of a tenant.
    fn with<T>(&self, tenant: &str, of: impl FnOnce(&Tenant) -> Option<T>) -> Option<T> {
        self.of.read().unwrap_or_else(PoisonError::into_inner).get(tenant).and_then(of)
    }

    /// What a certificate is let in by.
    ///
    /// # Errors
    /// Nothing lets it in.
    pub(super) fn admit(
        &self,
        tenant: &str,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Admission, rustls::Error> {
        let authorities: Vec<_> =
            self.with(tenant, |of| Some(of.authorities.values().cloned().collect())).unwrap_or_default();
        let mut refused = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for authority in authorities {
            match authority.verifier.verify_client_cert(certificate, between, now) {
                Ok(_) => {
                    let (_, read) = X509Certificate::from_der(certificate)
                        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
                    let admission = Admission {
                        tenant: tenant.to_owned(),
                        fingerprint: hex::encode(Sha256::digest(certificate)),
                        authority: (authority.resource.id.clone(), authority.resource.epoch),
                        not_after_us: read.validity().not_after.timestamp() * 1_000_000,
                    };
                    return match self.stands(&admission) {
                        Some(_) => Ok(admission),
                        None => Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)),
                    };
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// The package that lets somebody in, as long as it does.
    pub(super) fn stands(&self, admission: &Admission) -> Option<Arc<Resource>> {
        let package = self.with(&admission.tenant, |of| of.stands(admission).cloned())?;
        (now_us() < admission.not_after_us).then_some(package)
    }

    /// Waits until nothing lets somebody in any more.
    pub(super) fn cut(self: &Arc<Self>, admission: Arc<Admission>) -> Cut {
        let enrolled = self.clone();
        let mut changed = self.changed.subscribe();
        Box::pin(async move {
            while enrolled.stands(&admission).is_some() {
                let left = u64::try_from(admission.not_after_us - now_us()).unwrap_or(0);
                tokio::select! {
                    told = changed.changed() => if told.is_err() { return },
                    () = tokio::time::sleep(Duration::from_micros(left).min(LOOKS)) => {}
                }
            }
        })
    }

    /// An authority's key.
    fn issuer(&self, authority: &Authority) -> Result<Issuer<'static, KeyPair>, String> {
        let of = &authority.resource;
        let sealed = of.secrets.get("key").map_or("", String::as_str);
        let key = self.keys.unseal(&context(&of.tenant, &of.resource, &of.id, "key"), sealed);
        let key = key.map_err(|error| format!("the key of the certificate authority cannot be read: {error}"))?;
        let key = KeyPair::from_pem(&key).map_err(|error| error.to_string())?;
        Issuer::from_ca_cert_der(&authority.der, key).map_err(|error| error.to_string())
    }

    /// Gives an enrolled agent another certificate; returns when it is let in with it. That which it shows lets it in as well, so
    /// that an answer which is lost locks nobody out.
    pub(super) async fn renew(
        self: &Arc<Self>,
        appender: &Arc<dyn Appender>,
        admission: &Admission,
        package: Arc<Resource>,
        request: &str,
    ) -> Result<Certified, Renewal> {
        {
            let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
            renewed.retain(|_, at| at.elapsed() < RENEWED_EACH);
            if renewed.contains_key(&package.id) {
                return Err(Renewal::Later("its certificate was renewed less than a minute ago".to_owned()));
            }
            renewed.insert(package.id.clone(), Instant::now());
        }
        let text = |field| package.text(field).unwrap_or_default();
        let made = self.certify(&package.tenant, text("agent_id"), text("site"), Some(request));
        let made = made.map_err(Renewal::Refused)?;
        let mut package = package.clone();
        for _ in 0..TRIES {
            let fields = [
                ("serial", json!(made.serial)),
                ("fingerprint", json!(made.fingerprint)),
                ("previous_fingerprint", json!(admission.fingerprint)),
                ("certificate_expires_at", json!(made.not_after_us)),
            ];
            let mut changed = self.changed.subscribe();
            self.state(appender, &package, fields, "the agent renews its certificate").await?;
            let moved = async {
                loop {
                    let now = self.package(&package.id).filter(|now| now.number("revoked_at").is_none());
                    match now {
                        None => return None,
                        Some(now) if now.epoch != package.epoch => return Some(now),
                        Some(_) if changed.changed().await.is_err() => return None,
                        Some(_) => {}
                    }
                }
            };
            match tokio::time::timeout(STANDS_WITHIN, moved).await {
                Ok(Some(now)) if now.text("fingerprint") == Some(&made.fingerprint) => return Ok(made),
                // Somebody else changed it first.
                Ok(Some(now)) => package = now,
                Ok(None) => return Err(Renewal::Refused("it was revoked".to_owned())),
                Err(_) => break,
            }
        }
        Err(Renewal::Later("the package was changed meanwhile".to_owned()))
    }

    /// The agent of a package says hello by a certificate: by its first, it is installed; by its newest, that before lets nobody in
    /// any more.
    pub(super) async fn greeted(&self, appender: &Arc<dyn Appender>, admission: &Admission, package: &Resource) {
        let is_newest = package.text("fingerprint") == Some(&admission.fingerprint);
        let ends_previous = is_newest && package.text("previous_fingerprint").is_some();
        if package.number("installed_at").is_some() && !ends_previous {
            return;
        }
        let installed_us = package.number("installed_at").unwrap_or_else(now_us);
        let previous = package.text("previous_fingerprint").filter(|_| !is_newest);
        let fields = [("installed_at", json!(installed_us)), ("previous_fingerprint", json!(previous))];
        if let Err(Renewal::Later(error) | Renewal::Refused(error)) =
            self.state(appender, package, fields, "the agent connects").await
        {
            tracing::warn!(%error, package = package.id, "that an agent has connected is not stated");
        }
    }

    /// States something of a package as it stands.
    async fn state<const N: usize>(
        &self,
        appender: &Arc<dyn Appender>,
        package: &Resource,
        fields: [(&str, Value); N],
        reason: &str,
    ) -> Result<(), Renewal> {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let operation = Operation {
            resource: package.resource.clone(),
            id: package.id.clone(),
            act: Act::Update { fields },
            condition: Condition::Epoch(package.epoch),
            owner: package.owner.clone(),
        };
        let command = Command {
            tenant: package.tenant.clone(),
            command_id: format!("{:032x}", rand::random::<u128>()),
            digest: None,
            principal: Principal::of_host(PrincipalKind::System, "gateway"),
            reason: reason.to_owned(),
            force: false,
            operations: vec![operation],
        };
        let (kind, tenant, feed) = (Kind::Fact, package.tenant.clone(), "gateway".to_owned());
        let origin = Arc::new(Origin { kind, tenant, partition: String::new(), feed });
        let body = serde_json::to_vec(&Fact::Command(Box::new(command))).unwrap_or_default().into();
        let entry = Entry { peer: None, received_us: now_us(), body };
        appender.append(origin, vec![entry]).await?;
        Ok(())
    }
}

/// Why a certificate is not renewed.
#[derive(Debug)]
pub(super) enum Renewal {
    /// The request is wrong.
    Refused(String),
    /// It may succeed later.
    Later(String),
}

impl From<AppendError> for Renewal {
    fn from(error: AppendError) -> Self {
        Renewal::Later(error.to_string())
    }
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
