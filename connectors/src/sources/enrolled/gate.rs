//! What a gateway for enrolled agents shows, and whom it lets in: a certificate of the tenant's authority, and those that
//! [`Enrolled::admit`] admits. A session is never resumed, because then nobody would show a certificate.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, ServerConfig, SignatureScheme};

use super::making::{EARLIER, lasting};
use super::{Admission, Authority, Enrolled, micros};
use crate::sources::now_us;

/// How long a gateway's lasts.
pub(super) const LASTS: Duration = Duration::from_secs(30 * 86_400);

/// What a gateway for enrolled agents shows, and whom it lets in.
#[derive(Clone)]
pub(in crate::sources) struct Gate {
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
    pub(in crate::sources) fn new(enrolled: Arc<Enrolled>, tenant: String, names: Vec<String>) -> Self {
        Gate { enrolled, tenant, names, shown: Arc::default() }
    }

    pub(in crate::sources) fn enrolled(&self) -> &Arc<Enrolled> {
        &self.enrolled
    }

    /// What the chain that somebody showed is let in by.
    pub(in crate::sources) fn admit(&self, chain: &[CertificateDer<'_>]) -> Option<Admission> {
        let (certificate, between) = chain.split_first()?;
        self.enrolled.admit(&self.tenant, certificate, between, UnixTime::now()).ok()
    }

    /// What connections are accepted with.
    pub(in crate::sources) fn config(&self) -> ServerConfig {
        let gate = Arc::new(self.clone());
        let mut config =
            ServerConfig::builder().with_client_cert_verifier(gate.clone()).with_cert_resolver(gate.clone());
        // Who comes again is looked at again: a session that is resumed shows no certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config
    }

    pub(super) fn own(&self) -> Result<Arc<CertifiedKey>, String> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let now_us = now_us();
        let none = || format!("tenant {} has no certificate authority", self.tenant);
        let eldest = self.enrolled.with(&self.tenant, |of| of.eldest(now_us).cloned()).ok_or_else(none)?;
        // Whatever becomes of the clock, it has begun and is not over.
        let lasts = |own: &&Own| (own.made_us - micros(EARLIER)..own.made_us + micros(LASTS) / 3 * 2).contains(&now_us);
        if let Some(own) = shown.as_ref().filter(|own| Arc::ptr_eq(&own.authority, &eldest)).filter(lasts) {
            return Ok(own.key.clone());
        }
        let issuer = self.enrolled.issuer(&eldest)?;
        let (mut params, ..) = lasting(&self.names, LASTS, eldest.not_after_us)?;
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
