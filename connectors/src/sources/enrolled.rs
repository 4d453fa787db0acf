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

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::ports::{AppendError, Appender, Authorities, Certified, NewAuthority};
use radarflow_proto::resource::{
    Act, Command, Condition, Operation, Principal, PrincipalKind, Resource, ResourceChange,
};
use radarflow_proto::rows::Table;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::sealing::{Keyring, context};

/// How long an authority lasts.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long the certificate of an agent lasts that renews it.
const RENEWED: Duration = Duration::from_secs(90 * 86_400);
/// The same of one that cannot, and has a key that was made here.
const STANDING: Duration = Duration::from_secs(365 * 86_400);
/// How long a gateway's lasts.
const GATEWAY: Duration = Duration::from_secs(30 * 86_400);
/// Certificates begin before they are made: clocks differ.
const EARLIER: Duration = Duration::from_secs(3600);
/// Bytes of a request for a certificate.
pub const MAX_REQUEST: usize = 16 << 10;
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
        let lasts = |authority: &&Arc<Authority>| authority.not_after_us > now_us + micros(GATEWAY);
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
        (super::now_us() < admission.not_after_us).then_some(package)
    }

    /// Waits until nothing lets somebody in any more.
    pub(super) fn cut(self: &Arc<Self>, admission: Arc<Admission>) -> Cut {
        let enrolled = self.clone();
        let mut changed = self.changed.subscribe();
        Box::pin(async move {
            while enrolled.stands(&admission).is_some() {
                let left = u64::try_from(admission.not_after_us - super::now_us()).unwrap_or(0);
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
        let installed_us = package.number("installed_at").unwrap_or_else(super::now_us);
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
        let entry = Entry { peer: None, received_us: super::now_us(), body };
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

/// A certificate that holds from an hour ago on, and no longer than what signs it.
fn lasting(names: &[String], lasts: Duration, most_us: i64) -> Result<(CertificateParams, i64, String), String> {
    let mut params = CertificateParams::new(names).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    let at = |us: i64| OffsetDateTime::from_unix_timestamp(us / 1_000_000).map_err(|error| error.to_string());
    let now_us = super::now_us();
    let not_after_us = (now_us + micros(lasts)).min(most_us) / 1_000_000 * 1_000_000;
    (params.not_before, params.not_after) = (at(now_us - micros(EARLIER))?, at(not_after_us)?);
    let mut bytes: [u8; 16] = rand::random();
    // Positive, and as many bytes as there are.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&bytes));
    Ok((params, not_after_us, hex::encode(bytes)))
}

impl Authorities for Enrolled {
    fn has(&self, tenant: &str) -> bool {
        let enough = super::now_us() + micros(AUTHORITY) / 10;
        self.with(tenant, |of| of.newest().filter(|newest| newest.not_after_us > enough).map(|_| ())).is_some()
    }

    fn make(&self, tenant: &str, id: &str) -> Result<NewAuthority, String> {
        let (mut params, not_after_us, _) = lasting(&[], AUTHORITY, i64::MAX)?;
        let name = format!("Radarflow agents of {tenant}");
        params.distinguished_name.push(DnType::CommonName, name.chars().take(64).collect::<String>());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
        let context = context(tenant, Table::CertificateAuthority.name(), id, "key");
        let sealed_key = self.keys.seal(&context, &key.serialize_pem()).map_err(|error| error.to_string())?;
        let fingerprint = hex::encode(Sha256::digest(certificate.der()));
        Ok(NewAuthority { certificate: certificate.pem(), sealed_key, fingerprint, not_after_us })
    }

    fn certify(&self, tenant: &str, agent_id: &str, site: &str, request: Option<&str>) -> Result<Certified, String> {
        let none = || format!("tenant {tenant} has no certificate authority");
        let authority = self.with(tenant, |of| of.newest().cloned()).ok_or_else(none)?;
        let issuer = self.issuer(&authority)?;
        let lasts = if request.is_some() { RENEWED } else { STANDING };
        let (mut params, not_after_us, serial) = lasting(&[], lasts, authority.not_after_us)?;
        // The name that ServiceRadar's gateway reads as well; it has at most 64 characters.
        let name = format!("{agent_id}.{site}.serviceradar");
        if name.len() <= 64 {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        let uri = format!("spiffe://radarflow/agent/{site}/{agent_id}");
        params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(|_| "its name is not ASCII".to_owned())?));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let (certificate, public_key, key) = match request {
            Some(request) if request.len() > MAX_REQUEST => {
                return Err(format!("a certificate signing request has at most {MAX_REQUEST} bytes"));
            }
            Some(request) => {
                let mut asked = CertificateSigningRequestParams::from_pem(request)
                    .map_err(|error| format!("this is no certificate signing request (PKCS #10, PEM): {error}"))?;
                // Only its key counts.
                asked.params = params;
                let certificate = asked.signed_by(&issuer).map_err(|error| error.to_string())?;
                (certificate, asked.public_key.der_bytes().to_vec(), None)
            }
            None => {
                let key = KeyPair::generate().map_err(|error| error.to_string())?;
                let certificate = params.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
                (certificate, key.public_key_raw().to_vec(), Some(key.serialize_pem()))
            }
        };
        let fingerprint = hex::encode(Sha256::digest(certificate.der()));
        let of_key = hex::encode(Sha256::digest(&public_key));
        let authorities = self.with(tenant, |of| Some(of.believed())).unwrap_or_default();
        Ok(Certified { certificate: certificate.pem(), key, authorities, serial, fingerprint, of_key, not_after_us })
    }

    fn package(&self, id: &str) -> Option<Arc<Resource>> {
        let tenant = self.packages.read().unwrap_or_else(PoisonError::into_inner).get(id)?.clone();
        self.with(&tenant, |of| of.packages.get(id).cloned())
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.signer.sign(text).as_ref().to_vec()
    }

    fn public_key(&self) -> Vec<u8> {
        self.signer.public_key().as_ref().to_vec()
    }
}

/// What a gateway for enrolled agents shows, and whom it lets in.
#[derive(Clone)]
pub(super) struct Gate {
    enrolled: Arc<Enrolled>,
    tenant: String,
    /// Its names, as agents call it.
    names: Vec<String>,
    shown: Arc<Mutex<Option<Own>>>,
}

/// A gateway's own certificate.
struct Own {
    key: Arc<CertifiedKey>,
    /// The authority that signed it.
    authority: Arc<Authority>,
    /// When it was made, microseconds since 1970.
    made_us: i64,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("tenant", &self.tenant).field("names", &self.names).finish()
    }
}

impl Gate {
    pub(super) fn new(enrolled: Arc<Enrolled>, tenant: String, names: Vec<String>) -> Self {
        Gate { enrolled, tenant, names, shown: Arc::default() }
    }

    pub(super) fn enrolled(&self) -> &Arc<Enrolled> {
        &self.enrolled
    }

    /// What the chain that somebody showed is let in by.
    pub(super) fn admit(&self, chain: &[CertificateDer<'_>]) -> Option<Admission> {
        let (certificate, between) = chain.split_first()?;
        self.enrolled.admit(&self.tenant, certificate, between, UnixTime::now()).ok()
    }

    /// What connections are accepted with.
    pub(super) fn config(&self) -> ServerConfig {
        let gate = Arc::new(self.clone());
        let mut config =
            ServerConfig::builder().with_client_cert_verifier(gate.clone()).with_cert_resolver(gate.clone());
        // Who comes again is looked at again: a session that is resumed shows no certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }

    fn own(&self) -> Result<Arc<CertifiedKey>, String> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now_us = super::now_us();
        let none = || format!("tenant {} has no certificate authority", self.tenant);
        let eldest = self.enrolled.with(&self.tenant, |of| of.eldest(now_us).cloned()).ok_or_else(none)?;
        // Whatever becomes of the clock, it has begun and is not over.
        let lasts =
            |own: &&Own| (own.made_us - micros(EARLIER)..own.made_us + micros(GATEWAY) / 3 * 2).contains(&now_us);
        if let Some(own) = shown.as_ref().filter(|own| Arc::ptr_eq(&own.authority, &eldest)).filter(lasts) {
            return Ok(own.key.clone());
        }
        let issuer = self.enrolled.issuer(&eldest)?;
        let (mut params, ..) = lasting(&self.names, GATEWAY, eldest.not_after_us)?;
        params.distinguished_name.push(DnType::CommonName, "gateway.serviceradar");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let certificate = params.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
        let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
        let signing = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|error| error.to_string())?;
        let key = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing));
        *shown = Some(Own { key: key.clone(), authority: eldest, made_us: now_us });
        Ok(key)
    }
}

impl ResolvesServerCert for Gate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.own().inspect_err(|error| tracing::warn!(error, tenant = self.tenant, "a gateway has no certificate")).ok()
    }
}

impl ClientCertVerifier for Gate {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.enrolled.admit(&self.tenant, certificate, between, now).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::client::Resumption;
    use rustls::{ClientConfig, ClientConnection, ServerConnection};

    use super::*;
    use crate::disk;

    fn change(resource: &Arc<Resource>) -> ResourceChange {
        ResourceChange { before: None, after: Some(resource.clone()) }
    }

    fn resource(tenant: &str, table: Table, id: &str, fields: Value, secrets: &[(&str, &str)]) -> Arc<Resource> {
        let fields = serde_json::from_value(fields).unwrap();
        let secrets = secrets.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Arc::new(Resource {
            resource: table.name().to_owned(),
            tenant: tenant.to_owned(),
            id: id.to_owned(),
            fields: radarflow_proto::resource::Shown(fields),
            secrets,
            owner: String::new(),
            created_us: 1,
            created_by: "test".to_owned(),
            updated_us: 1,
            updated_by: "test".to_owned(),
            epoch: 1,
        })
    }

    /// Tenants `t` and `u`, each with an authority.
    fn enrolled() -> Arc<Enrolled> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open(&*disk::os(), &dir.path().join("sealing.keys")).unwrap();
        let enrolled = Arc::new(Enrolled::new(Arc::new(keys), &[7; 32]));
        for tenant in ["t", "u"] {
            assert!(!enrolled.has(tenant) && enrolled.certify(tenant, "a", "s", None).is_err());
            enrolled.learn(&[change(&authority(&enrolled, tenant, "agents", 1))]);
            assert!(enrolled.has(tenant));
        }
        enrolled
    }

    /// An authority that was made at an instant.
    fn authority(enrolled: &Enrolled, tenant: &str, id: &str, created_us: i64) -> Arc<Resource> {
        let made = enrolled.make(tenant, id).unwrap();
        assert!(!made.sealed_key.contains("PRIVATE"));
        let fields = json!({"certificate": made.certificate, "not_after": made.not_after_us});
        let key = [("key", made.sealed_key.as_str())];
        let made = resource(tenant, Table::CertificateAuthority, id, fields, &key);
        Arc::new(Resource { created_us, ..Resource::clone(&made) })
    }

    fn package(tenant: &str, fingerprint: &str, revoked: Option<i64>) -> Arc<Resource> {
        let fields = json!({"agent_id": "a", "site": "s", "fingerprint": fingerprint, "revoked_at": revoked});
        resource(tenant, Table::EdgePackage, "p", fields, &[])
    }

    fn gate(enrolled: &Arc<Enrolled>, tenant: &str) -> ServerConfig {
        Gate::new(enrolled.clone(), tenant.to_owned(), vec!["gateway.test".to_owned(), "127.0.0.1".to_owned()]).config()
    }

    /// How an agent reaches a gateway.
    fn client(made: &Certified) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(made.authorities.as_bytes()).unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(made.key.as_ref().unwrap().as_bytes()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut client = builder.with_client_auth_cert(vec![certificate], key).unwrap();
        client.resumption = Resumption::in_memory_sessions(8);
        client
    }

    /// Whether both agree; and whether they did it without showing certificates again.
    fn shake(server: &ServerConfig, client: &Arc<ClientConfig>, name: &str) -> Result<bool, rustls::Error> {
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(client.clone(), name)?;
        let mut server = ServerConnection::new(Arc::new(server.clone()))?;
        for _ in 0..10 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &wire[..]).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &wire[..]).unwrap();
            client.process_new_packets()?;
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok(server.handshake_kind() == Some(rustls::HandshakeKind::Resumed))
    }

    #[test]
    fn only_what_stands_in_a_package_of_the_tenant_is_let_in() {
        let enrolled = enrolled();
        let server = gate(&enrolled, "t");
        let made = enrolled.certify("t", "a", "s", None).unwrap();
        let agent = Arc::new(client(&made));
        // Signed by the authority, and in no package: whoever has its key alone lets nobody in.
        assert!(shake(&server, &agent, "gateway.test").is_err());
        // In that of another tenant as little.
        enrolled.learn(&[change(&package("u", &made.fingerprint, None))]);
        assert!(shake(&server, &agent, "gateway.test").is_err());
        enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
        for name in ["gateway.test", "127.0.0.1"] {
            assert_eq!(shake(&server, &agent, name), Ok(false));
        }
        // Who comes again shows its certificate again.
        assert_eq!(shake(&server, &agent, "gateway.test"), Ok(false));
        assert!(shake(&server, &agent, "another.test").is_err());
        // The gateway of the other tenant neither believes it nor is believed.
        assert!(shake(&gate(&enrolled, "u"), &agent, "gateway.test").is_err());
        // A gateway's own certificate is no agent's.
        let own = Gate::new(enrolled.clone(), "t".to_owned(), vec!["x".to_owned()]).own().unwrap();
        assert!(enrolled.admit("t", &own.cert[0], &[], UnixTime::now()).is_err());

        enrolled.learn(&[change(&package("t", &made.fingerprint, Some(1)))]);
        assert!(shake(&server, &agent, "gateway.test").is_err());
        // Nor where the package or the authority is gone.
        let stands = package("t", &made.fingerprint, None);
        enrolled.learn(&[change(&stands)]);
        assert!(shake(&server, &agent, "gateway.test").is_ok());
        enrolled.learn(&[ResourceChange { before: Some(stands.clone()), after: None }]);
        assert!(shake(&server, &agent, "gateway.test").is_err() && enrolled.package("p").is_none());
    }

    #[test]
    fn only_the_key_of_a_request_counts() {
        let enrolled = enrolled();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["gateway.test".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "admin.other.serviceradar");
        let request = params.serialize_request(&key).unwrap().pem().unwrap();
        let made = enrolled.certify("t", "a", "s", Some(&request)).unwrap();
        let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        let (_, read) = X509Certificate::from_der(&der).unwrap();
        assert!(!read.is_ca() && made.key.is_none());
        assert_eq!(read.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
        assert_eq!(read.subject().iter_common_name().next().unwrap().as_str().unwrap(), "a.s.serviceradar");
        let names = format!("{:?}", read.subject_alternative_name().unwrap().unwrap().value.general_names);
        assert!(names.contains("spiffe://radarflow/agent/s/a") && !names.contains("gateway.test"), "{names}");
        let usage = read.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        assert_eq!(hex::encode(read.raw_serial()), made.serial);
        // A request that its key did not sign, and what is none.
        let broken = request.replacen("MII", "MIJ", 1);
        for bad in [broken.as_str(), "", "hello", &request.repeat(100)] {
            assert!(enrolled.certify("t", "a", "s", Some(bad)).is_err());
        }
    }

    #[tokio::test]
    async fn a_connection_lives_as_long_as_its_certificate_lets_it_in() {
        let enrolled = enrolled();
        let made = enrolled.certify("t", "a", "s", None).unwrap();
        let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
        enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
        let admission = Arc::new(enrolled.admit("t", &der, &[], UnixTime::now()).unwrap());
        let cut = tokio::spawn(enrolled.cut(admission.clone()));
        // What does not concern it does not end it; a renewal keeps what was before.
        enrolled.learn(&[change(&package("u", "00", None))]);
        let fields =
            json!({"agent_id": "a", "site": "s", "fingerprint": "99", "previous_fingerprint": made.fingerprint});
        enrolled.learn(&[change(&resource("t", Table::EdgePackage, "p", fields, &[]))]);
        tokio::task::yield_now().await;
        assert!(!cut.is_finished() && enrolled.stands(&admission).is_some());
        enrolled.learn(&[change(&package("t", &made.fingerprint, Some(1)))]);
        cut.await.unwrap();
        // Nor without its authority, though another has come, nor when it is over.
        enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
        let cut = tokio::spawn(enrolled.cut(admission.clone()));
        enrolled.learn(&[change(&authority(&enrolled, "t", "next", 2))]);
        tokio::task::yield_now().await;
        assert!(!cut.is_finished() && enrolled.stands(&admission).is_some());
        let gone = authority(&enrolled, "t", "agents", 1);
        enrolled.learn(&[ResourceChange { before: Some(gone), after: None }]);
        cut.await.unwrap();
        assert!(enrolled.stands(&admission).is_none() && enrolled.admit("t", &der, &[], UnixTime::now()).is_err());
        let over = Admission { not_after_us: super::super::now_us() - 1, ..Arc::into_inner(admission).unwrap() };
        enrolled.cut(Arc::new(over)).await;
    }

    #[test]
    fn who_has_the_key_of_an_authority_alone_is_nobody() {
        let enrolled = enrolled();
        let made = enrolled.certify("t", "a", "s", None).unwrap();
        enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
        // The same serial number, of another agent.
        let authority = enrolled.with("t", |of| of.newest().cloned()).unwrap();
        let issuer = enrolled.issuer(&authority).unwrap();
        let (mut params, ..) = lasting(&[], RENEWED, i64::MAX).unwrap();
        params.serial_number = Some(SerialNumber::from_slice(&hex::decode(&made.serial).unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.push(SanType::URI("spiffe://radarflow/agent/s/other".try_into().unwrap()));
        let forged = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let refused = enrolled.admit("t", forged.der(), &[], UnixTime::now()).unwrap_err();
        assert_eq!(refused, rustls::Error::InvalidCertificate(CertificateError::Revoked));
    }

    #[test]
    fn authorities_follow_each_other_and_agents_know_both() {
        let enrolled = enrolled();
        let own = |names: &str| {
            let gate = Gate::new(enrolled.clone(), "t".to_owned(), vec![names.to_owned()]);
            gate.own().unwrap().cert[0].clone()
        };
        let old = enrolled.certify("t", "a", "s", None).unwrap();
        enrolled.learn(&[change(&package("t", &old.fingerprint, None))]);
        enrolled.learn(&[change(&authority(&enrolled, "t", "next", 2))]);
        // Who knows the eldest alone believes the gateway still; who comes now is signed by the newest, and knows both.
        let server = gate(&enrolled, "t");
        assert_eq!(shake(&server, &Arc::new(client(&old)), "gateway.test"), Ok(false));
        let new = enrolled.certify("t", "a", "s", None).unwrap();
        assert_eq!(new.authorities.matches("BEGIN CERTIFICATE").count(), 2);
        let admitted = |made: &Certified| {
            let der = CertificateDer::from_pem_slice(made.certificate.as_bytes()).unwrap();
            enrolled.learn(&[change(&package("t", &made.fingerprint, None))]);
            enrolled.admit("t", &der, &[], UnixTime::now()).unwrap().authority.0
        };
        assert_eq!((admitted(&old).as_str(), admitted(&new).as_str()), ("agents", "next"));
        assert_ne!(own("x"), own("y"));
    }

    #[test]
    fn tokens_are_signed_by_what_follows_from_the_secret() {
        let enrolled = enrolled();
        let again = Enrolled::new(Arc::default(), &[7; 32]);
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, again.public_key());
        key.verify(b"said", &enrolled.sign(b"said")).unwrap();
        assert!(key.verify(b"other", &enrolled.sign(b"said")).is_err());
        let other = Enrolled::new(Arc::default(), &[8; 32]);
        assert_ne!(other.public_key(), again.public_key());
    }
}
