//! A handshake: whether the other side speaks TLS, and when its certificate ends. Like `http`, it verifies nothing else: devices
//! are asked by their addresses, and have names.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::http::days_left;
use super::{Answer, Failure, Look};

/// Takes any certificate; who has it must have its key.
#[derive(Debug)]
struct Any(CryptoProvider);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

static CONNECTOR: LazyLock<TlsConnector> = LazyLock::new(|| {
    let verifier = Arc::new(Any(aws_lc_rs::default_provider()));
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
});

pub(super) async fn greet(look: &Look, ip: IpAddr) -> Result<Answer, Failure> {
    let socket = TcpStream::connect((ip, look.port.unwrap_or(443))).await.map_err(|error| Failure::of(&error))?;
    let name = ServerName::try_from(look.target.to_string()).unwrap_or_else(|_| ServerName::IpAddress(ip.into()));
    // Whatever is wrong with the handshake is the other side's.
    let stream = CONNECTOR.connect(name, socket).await.map_err(|error| Failure::Silent(error.to_string()))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    let certificate_days = certificate.and_then(|certificate| days_left(certificate));
    let wrong =
        certificate_days.filter(|days| *days < 0).map(|days| format!("the certificate ended {} days ago", -days));
    Ok(Answer { certificate_days, wrong, ..Answer::default() })
}
