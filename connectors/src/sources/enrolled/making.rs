//! Keys and certificates: of authorities, of agents, of gateways. What is made lets nobody in until it is stated.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aws_lc_rs::signature::KeyPair as _;
use radarflow_proto::ports::{Authorities, Certified, NewAuthority};
use radarflow_proto::resource::Resource;
use radarflow_proto::rows::Table;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{Enrolled, micros};
use crate::sealing::context;
use crate::sources::now_us;

/// How long an authority lasts.
const AUTHORITY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long the certificate of an agent lasts that renews it.
pub(super) const RENEWED: Duration = Duration::from_secs(90 * 86_400);
/// The same of one that cannot, and has a key that was made here.
const STANDING: Duration = Duration::from_secs(365 * 86_400);
/// Certificates begin before they are made: clocks differ.
pub(super) const EARLIER: Duration = Duration::from_secs(3600);
/// Bytes of a request for a certificate.
pub const MAX_REQUEST: usize = 16 << 10;

/// A certificate that holds from an hour ago on, and no longer than what signs it.
pub(super) fn lasting(
    names: &[String],
    lasts: Duration,
    most_us: i64,
) -> Result<(CertificateParams, i64, String), String> {
    let mut params = CertificateParams::new(names).map_err(|error| error.to_string())?;
    params.distinguished_name = DistinguishedName::new();
    let at = |us: i64| OffsetDateTime::from_unix_timestamp(us / 1_000_000).map_err(|error| error.to_string());
    let now_us = now_us();
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
        let enough = now_us() + micros(AUTHORITY) / 10;
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
