//! Connections of a listener: so many at a time, in plaintext or with TLS, gone when their other end is.
//!
//! Who connects has a slot as long as the connection lasts; without one it waits to be accepted. A connection has memory,
//! too, of a [`Room`] in which kinds of listeners and the addresses that connect leave place to each other; without that it is
//! closed. A connection whose other end has vanished (a host without power says no goodbye) is found by probes and closed. Handshakes are bounded in number
//! and time, so that who connects and says nothing keeps nobody else waiting for long.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use radarflow_proto::room::{Held, Room, of_address};
use rustls::pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::enrolled::{Admission, Cut};
use super::tls::Tls;

/// Connections of one kind of listener at once; more wait to be accepted.
pub const CONNECTIONS: usize = 4096;
/// Handshakes of one listener at a time.
const HANDSHAKES: usize = 256;
/// Time that one may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A silent connection is probed after this time, and closed after so many probes without answer.
const PROBES: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// Slots for the connections of one kind of listener.
#[derive(Debug)]
pub struct ConnectionSlots {
    what: &'static str,
    free: Arc<Semaphore>,
    room: Arc<Room>,
    /// What one takes of it.
    bytes: usize,
    /// Connections that were accepted and are there.
    there: AtomicUsize,
    refused: AtomicU64,
}

/// The slot of a connection that was accepted.
struct Slot {
    of: Arc<ConnectionSlots>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.there.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectionSlots {
    /// All of them, of connections that take so many bytes of a room each.
    pub fn new(what: &'static str, room: Arc<Room>, bytes: usize) -> Arc<ConnectionSlots> {
        let free = Arc::new(Semaphore::new(CONNECTIONS));
        Arc::new(ConnectionSlots { what, free, room, bytes, there: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    /// The kind of listener.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// How many connections there are. That for which a listener waits is none yet.
    pub fn taken(&self) -> usize {
        self.there.load(Ordering::Relaxed)
    }

    fn slot(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Slot {
        self.there.fetch_add(1, Ordering::Relaxed);
        Slot { of: self.clone(), _permit: permit }
    }

    /// How many were closed because there was no memory for them.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Memory for a connection from an address.
    fn memory(&self, peer: SocketAddr) -> Option<Held> {
        let mut held = self.room.hold_for(self.what, &of_address(peer.ip()));
        if let Err(no) = held.grow(self.bytes) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, listener = self.what, %no, "a connection was closed");
            return None;
        }
        Some(held)
    }
}

/// One connection.
pub struct Connection {
    io: Io,
    peer: SocketAddr,
    held: Held,
    /// It is closed when this is over.
    cut: Option<Cut>,
    is_cut: bool,
    admission: Option<Arc<Admission>>,
    _slot: Slot,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// Its certificate, where it was asked for one.
    pub certificate: Option<CertificateDer<'static>>,
    /// What lets it in, where only enrolled agents are.
    pub admission: Option<Arc<Admission>>,
}

impl Connection {
    /// The address of the other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// For more of the memory for connections, none of it yet.
    pub fn more(&self) -> Held {
        self.held.another()
    }
}

impl Connection {
    /// Agrees upon TLS with who connected without it.
    ///
    /// # Errors
    /// The handshake fails or takes too long, or there is TLS already.
    pub async fn secured(self, tls: &Tls) -> io::Result<Connection> {
        let Connection { io, peer, held, cut, is_cut, admission, _slot } = self;
        let Io::Plain(stream) = io else { return Err(io::ErrorKind::InvalidInput.into()) };
        let stream = tokio::time::timeout(HANDSHAKE_LIMIT, tls.acceptor().accept(stream)).await??;
        Ok(Connection { io: Io::Secure(stream.into()), peer, held, cut, is_cut, admission, _slot })
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let certificate = match &self.io {
            Io::Plain(_) => None,
            Io::Secure(stream) => chain(stream).first(),
        };
        let certificate = certificate.map(|c| c.clone().into_owned());
        Peer { addr: self.peer, certificate, admission: self.admission.clone() }
    }
}

/// The certificate that the other end shows, and those between it and an authority.
fn chain(stream: &TlsStream<TcpStream>) -> &[CertificateDer<'static>] {
    stream.get_ref().1.peer_certificates().unwrap_or_default()
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(cut) = &mut self.cut
            && cut.as_mut().poll(cx).is_ready()
        {
            (self.cut, self.is_cut) = (None, true);
        }
        if self.is_cut {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Secure(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Secure(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Secure(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Secure(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Secure(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Secure(stream) => stream.is_write_vectored(),
        }
    }
}

fn tune(stream: &TcpStream) {
    let (idle, between, most) = PROBES;
    let probes = TcpKeepalive::new().with_time(idle).with_interval(between).with_retries(most);
    // A connection that cannot be tuned works all the same.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
}

/// Connections to a listener, those with TLS once their handshake is done, as long as somebody takes them.
pub fn connections(
    socket: TcpListener,
    tls: Option<Arc<Tls>>,
    slots: Arc<ConnectionSlots>,
) -> ReceiverStream<io::Result<Connection>> {
    let (made, connections) = mpsc::channel(1);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        loop {
            let slot = tokio::select! {
                slot = slots.free.clone().acquire_owned() => slot,
                () = made.closed() => return,
            };
            let Ok(slot) = slot else { return };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = made.closed() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                // The process has too many files open, say: others may close theirs.
                Err(error) => {
                    tracing::warn!(%error, listener = slots.what, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let slot = slots.slot(slot);
            tune(&stream);
            let Some(held) = slots.memory(peer) else { continue };
            let Some(tls) = &tls else {
                let _ = made
                    .send(Ok(Connection {
                        io: Io::Plain(stream),
                        peer,
                        held,
                        cut: None,
                        is_cut: false,
                        admission: None,
                        _slot: slot,
                    }))
                    .await;
                continue;
            };
            let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
            let (made, acceptor, gate) = (made.clone(), tls.acceptor(), tls.gate().cloned());
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        drop(permit);
                        // What let it in during the handshake may be over already.
                        let admission = gate.as_ref().map(|gate| gate.admit(chain(&stream)).map(Arc::new));
                        let Some(admission) = admission.map_or(Some(None), |admitted| admitted.map(Some)) else {
                            return;
                        };
                        let cut = gate.zip(admission.clone());
                        let cut = cut.map(|(gate, admission)| gate.enrolled().cut(admission));
                        let io = Io::Secure(stream.into());
                        let _ = made
                            .send(Ok(Connection { io, peer, held, cut, is_cut: false, admission, _slot: slot }))
                            .await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}
