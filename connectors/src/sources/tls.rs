//! TLS of a listener, which may ask for a client's certificate; its own may be exchanged while it listens.
//!
//! A connection keeps the certificates it began with, the next one gets those that were read last.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use super::SourceError;
use super::enrolled::{Enrolled, Gate};

/// Files of a listener's certificates, PEM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// The listener's chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs clients' certificates; without it clients need none.
    pub client_ca: Option<PathBuf>,
}

impl Files {
    /// What connections are accepted with, speaking one of these protocols.
    fn config(&self, protocols: &[&[u8]]) -> Result<ServerConfig, SourceError> {
        let clients = match &self.client_ca {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for ca in certificates(path)? {
                    roots.add(ca).map_err(|e| wrong(path, e))?;
                }
                WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|e| wrong(path, e))?
            }
        };
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| wrong(&self.key, e))?;
        let chain = certificates(&self.certificate)?;
        let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key);
        let mut config = config.map_err(|e| wrong(&self.certificate, e))?;
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Ok(config)
    }

    /// What is written in them.
    fn text(&self) -> Vec<Option<Vec<u8>>> {
        let all = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        all.map(|path| std::fs::read(path?).ok()).into()
    }
}

fn wrong(path: &Path, why: impl std::fmt::Display) -> SourceError {
    SourceError::Tls(format!("{}: {why}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| wrong(path, e))?;
    let all: Vec<_> = read.collect::<Result<_, _>>().map_err(|e| wrong(path, e))?;
    if all.is_empty() {
        return Err(wrong(path, "there is no certificate in it"));
    }
    Ok(all)
}

/// Certificates in use.
#[derive(Debug)]
pub struct Tls {
    whence: Whence,
    protocols: &'static [&'static [u8]],
    used: RwLock<Used>,
}

/// Where certificates come from.
#[derive(Debug)]
enum Whence {
    Files(Files),
    /// The authority of a tenant, for its agents.
    Gate(Gate),
}

#[derive(Debug)]
struct Used {
    text: Vec<Option<Vec<u8>>>,
    config: Arc<ServerConfig>,
}

/// Certificates that were read again and are not in use yet.
#[derive(Debug)]
pub struct Exchange(Used);

impl Tls {
    /// Reads the files, for connections that speak one of these protocols (their ALPN names).
    ///
    /// # Errors
    /// [`SourceError`] where a file cannot be read, or certificate and key are no pair.
    pub fn read(files: Files, protocols: &'static [&'static [u8]]) -> Result<Arc<Tls>, SourceError> {
        let used = Used { text: files.text(), config: Arc::new(files.config(protocols)?) };
        Ok(Arc::new(Tls { whence: Whence::Files(files), protocols, used: RwLock::new(used) }))
    }

    /// For the enrolled agents of a tenant, who call this host by these names.
    pub fn enrolled(
        enrolled: Arc<Enrolled>,
        tenant: &str,
        names: &[String],
        protocols: &'static [&'static [u8]],
    ) -> Arc<Tls> {
        let gate = Gate::new(enrolled, tenant.to_owned(), names.to_vec());
        let mut config = gate.config();
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        let used = Used { text: Vec::new(), config: Arc::new(config) };
        Arc::new(Tls { whence: Whence::Gate(gate), protocols, used: RwLock::new(used) })
    }

    /// The files that they are in, if they are in files.
    pub fn files(&self) -> Option<&Files> {
        match &self.whence {
            Whence::Files(files) => Some(files),
            Whence::Gate(_) => None,
        }
    }

    /// Whether who connects must show a certificate.
    pub(super) fn asks_clients(&self) -> bool {
        self.files().is_none_or(|files| files.client_ca.is_some())
    }

    pub(super) fn gate(&self) -> Option<&Gate> {
        match &self.whence {
            Whence::Files(_) => None,
            Whence::Gate(gate) => Some(gate),
        }
    }

    /// Reads the files again; nothing where they say what they said.
    ///
    /// # Errors
    /// [`SourceError`] as for [`Tls::read`]; what was read before stays in use.
    pub fn again(&self) -> Result<Option<Exchange>, SourceError> {
        let Whence::Files(files) = &self.whence else { return Ok(None) };
        let text = files.text();
        if self.used.read().unwrap_or_else(PoisonError::into_inner).text == text {
            return Ok(None);
        }
        let config = Arc::new(files.config(self.protocols)?);
        Ok(Some(Exchange(Used { text, config })))
    }

    /// Connections from now on get these.
    pub fn exchange(&self, Exchange(used): Exchange) {
        *self.used.write().unwrap_or_else(PoisonError::into_inner) = used;
    }

    /// What the next connection is accepted with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.used.read().unwrap_or_else(PoisonError::into_inner).config.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(files: &Files, name: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new([name.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        std::fs::write(&files.certificate, &certificate).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files.client_ca.iter().for_each(|path| std::fs::write(path, &certificate).unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_named_and_changes_nothing() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key, client_ca] = ["c.pem", "k.pem", "ca.pem"].map(|name| dir.path().join(name));
        let ca = client_ca.clone();
        let files = Files { certificate, key, client_ca: Some(client_ca) };
        assert!(Tls::read(files.clone(), &[b"h2"]).unwrap_err().to_string().contains("pem"));
        write(&files, "one.test");
        let tls = Tls::read(files.clone(), &[b"h2"]).unwrap();
        assert!(tls.again().unwrap().is_none());
        let before = tls.used.read().unwrap().config.clone();

        for (path, text) in [(&files.certificate, "nothing"), (&files.key, ""), (&ca, "")] {
            write(&files, "two.test");
            std::fs::write(path, text).unwrap();
            let error = tls.again().unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        assert!(Arc::ptr_eq(&before, &tls.used.read().unwrap().config));

        write(&files, "two.test");
        tls.exchange(tls.again().unwrap().unwrap());
        assert!(tls.again().unwrap().is_none() && !Arc::ptr_eq(&before, &tls.used.read().unwrap().config));
    }
}
