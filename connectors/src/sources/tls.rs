//! TLS of a listener that asks for a client's certificate; its own may be exchanged while it listens.
//!
//! A connection keeps the certificates it began with, the next one gets those that were read last. Handshakes are bounded
//! in number and time, so that who connects and says nothing keeps nobody else waiting for long.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

use super::SourceError;

/// Handshakes at a time.
const HANDSHAKES: usize = 256;
/// Time that one may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Files of a listener's certificates, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The listener's chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs clients' certificates.
    pub client_ca: PathBuf,
}

impl Files {
    /// What connections are accepted with, speaking one protocol.
    fn config(&self, protocol: &[u8]) -> Result<ServerConfig, SourceError> {
        let mut roots = RootCertStore::empty();
        for ca in certificates(&self.client_ca)? {
            roots.add(ca).map_err(|e| wrong(&self.client_ca, e))?;
        }
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        let clients = clients.map_err(|e| wrong(&self.client_ca, e))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| wrong(&self.key, e))?;
        let chain = certificates(&self.certificate)?;
        let config = ServerConfig::builder().with_client_cert_verifier(clients).with_single_cert(chain, key);
        let mut config = config.map_err(|e| wrong(&self.certificate, e))?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }

    /// What is written in them.
    fn text(&self) -> Vec<Option<Vec<u8>>> {
        [&self.certificate, &self.key, &self.client_ca].map(|path| std::fs::read(path).ok()).into()
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
    files: Files,
    protocol: &'static [u8],
    used: RwLock<Used>,
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
    /// Reads the files, for connections that speak one protocol (its ALPN name).
    pub fn read(files: Files, protocol: &'static [u8]) -> Result<Arc<Tls>, SourceError> {
        let used = Used { text: files.text(), config: Arc::new(files.config(protocol)?) };
        Ok(Arc::new(Tls { files, protocol, used: RwLock::new(used) }))
    }

    /// Where they are.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Reads the files again; nothing where they say what they said.
    pub fn again(&self) -> Result<Option<Exchange>, SourceError> {
        let text = self.files.text();
        if self.used.read().unwrap_or_else(PoisonError::into_inner).text == text {
            return Ok(None);
        }
        let config = Arc::new(self.files.config(self.protocol)?);
        Ok(Some(Exchange(Used { text, config })))
    }

    /// Connections from now on get these.
    pub fn exchange(&self, Exchange(used): Exchange) {
        *self.used.write().unwrap_or_else(PoisonError::into_inner) = used;
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.used.read().unwrap_or_else(PoisonError::into_inner).config.clone())
    }

    /// Connections whose handshake succeeded, as long as somebody takes them.
    pub(super) fn accept(
        self: Arc<Self>,
        socket: TcpListener,
    ) -> ReceiverStream<Result<TlsStream<TcpStream>, std::io::Error>> {
        let (made, connections) = mpsc::channel(HANDSHAKES);
        let room = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = socket.accept() => accepted,
                    () = made.closed() => return,
                };
                let (stream, peer) = match accepted {
                    Ok(accepted) => accepted,
                    // The process has too many files open, say: others may close theirs.
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let Ok(permit) = room.clone().acquire_owned().await else { return };
                let (made, acceptor) = (made.clone(), self.acceptor());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let _ = made.send(Ok(stream)).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                    }
                    drop(permit);
                });
            }
        });
        ReceiverStream::new(connections)
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
        std::fs::write(&files.client_ca, &certificate).unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_named_and_changes_nothing() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let [certificate, key, client_ca] = ["c.pem", "k.pem", "ca.pem"].map(|name| dir.path().join(name));
        let files = Files { certificate, key, client_ca };
        assert!(Tls::read(files.clone(), b"h2").unwrap_err().to_string().contains("pem"));
        write(&files, "one.test");
        let tls = Tls::read(files.clone(), b"h2").unwrap();
        assert!(tls.again().unwrap().is_none());
        let before = tls.used.read().unwrap().config.clone();

        for (path, text) in [(&files.certificate, "nothing"), (&files.key, ""), (&files.client_ca, "")] {
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
