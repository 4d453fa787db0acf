//! Streams of messages over TCP: syslog, octet-counted or by line (RFC 6587), and IPFIX (RFC 7011). A connection reads on
//! while what it read before becomes durable, [`OUTSTANDING`] appends at most: a slow ledger slows its senders. What is read
//! has its memory before messages are made of it, of a [`Room`] that all feeds share; where there is none a connection waits.
//! Where a stream does not tell any more where its messages begin, the connection is closed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::framing::{Framing, IpfixFramer};
use radarflow_proto::ports::Appender;
use radarflow_proto::room::{Held, NoRoom, Room, of_address};
use radarflow_proto::syslog::{self, Framer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::accept::{Connection, ConnectionSlots, connections};
use super::tls::Tls;
use super::{Listener, SourceError, Stop, entry, origin};

/// Appends of one connection that may be under way.
pub const OUTSTANDING: usize = 64;
/// Bytes that are read at once.
const READ: usize = 64 << 10;
/// A message that may be whole waits so long for what follows it.
const PAUSE: Duration = Duration::from_millis(500);
/// What a message takes beside its bytes until it is durable: its place in lists that double, and the least that is
/// allocated.
const MESSAGE: usize = 2 * size_of::<Entry>() + 32;
/// What a connection takes, bytes: what is read, a message that is not whole, and the state of its encryption.
pub const CONNECTION_BYTES: usize = READ + syslog::MAX_MESSAGE + (64 << 10);

/// Where what is read goes, and the memory that it has until it is durable.
#[derive(Clone)]
pub struct Into {
    /// The ledger.
    pub appender: Arc<dyn Appender>,
    /// The memory of feeds.
    pub room: Arc<Room>,
}

/// Listens for syslog, with TLS as RFC 5425 has it; the returned address is the one it got.
///
/// # Errors
/// [`SourceError`] where the address cannot be bound.
pub async fn syslog(
    listener: &Listener,
    tls: Option<Arc<Tls>>,
    slots: Arc<ConnectionSlots>,
    into: Into,
    stop: Stop,
) -> Result<std::net::SocketAddr, SourceError> {
    start::<Framer>(Kind::Syslog, "syslog", listener, (tls, slots), into, stop).await
}

/// Listens for IPFIX; the returned address is the one it got.
///
/// # Errors
/// [`SourceError`] where the address cannot be bound.
pub async fn ipfix(
    listener: &Listener,
    slots: Arc<ConnectionSlots>,
    into: Into,
    stop: Stop,
) -> Result<std::net::SocketAddr, SourceError> {
    start::<IpfixFramer>(Kind::NetFlow, "netflow", listener, (None, slots), into, stop).await
}

async fn start<F: Framing + 'static>(
    kind: Kind,
    what: &'static str,
    listener: &Listener,
    (tls, slots): (Option<Arc<Tls>>, Arc<ConnectionSlots>),
    into: Into,
    stop: Stop,
) -> Result<std::net::SocketAddr, SourceError> {
    let bind = |source| SourceError::Bind { what, addr: listener.addr, source };
    let socket = TcpListener::bind(listener.addr).await.map_err(bind)?;
    let addr = socket.local_addr().map_err(bind)?;
    let origin = origin(kind, what, &Listener { addr, ..listener.clone() });
    let mut made = connections(socket, tls, slots);
    let mut stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = made.next() => next,
                () = stopped.told() => return,
            };
            let Some(connection) = next else { return };
            if let Ok(stream) = connection {
                let (origin, into, stop) = (origin.clone(), into.clone(), stop.clone());
                tokio::spawn(read(F::default(), stream, origin, into, stop));
            }
        }
    });
    Ok(addr)
}

async fn read(
    mut framer: impl Framing,
    mut stream: Connection,
    origin: Arc<Origin>,
    Into { appender, room }: Into,
    mut stop: Stop,
) {
    let peer = stream.peer();
    let nothing = room.hold_for(&origin.tenant, &of_address(peer.ip()));
    // Where there is little memory less is read at once.
    let mut buffer = vec![0u8; (nothing.most() / MESSAGE).clamp(1, READ)];
    // What was read and waits for memory.
    let mut waits: Option<(Came, Held)> = None;
    let mut appends = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(result) = appends.next(), if !appends.is_empty() => {
                if let Err(error) = result {
                    // The sender learns by the closed connection that what follows was not taken.
                    tracing::warn!(%error, %peer, feed = origin.feed, "connection closed");
                    break;
                }
            }
            n = stream.read(&mut buffer), if waits.is_none() && appends.len() < OUTSTANDING => {
                let came = Some(n.unwrap_or(0)).filter(|n| *n > 0).map_or(Came::End, Came::Bytes);
                waits = Some((came, nothing.another()));
            }
            () = tokio::time::sleep(PAUSE), if framer.waits() && waits.is_none() && appends.len() < OUTSTANDING => {
                waits = Some((Came::Nothing, nothing.another()));
            }
            taken = memory(&mut waits), if waits.is_some() => {
                if let Err(no) = taken {
                    tracing::warn!(%peer, feed = origin.feed, %no, "connection closed");
                    break;
                }
                let Some((came, mut held)) = waits.take() else { continue };
                let messages = match came {
                    Came::Bytes(n) => framer.push(&buffer[..n]),
                    Came::Nothing => framer.pause(),
                    Came::End => framer.finish(),
                };
                if !messages.is_empty() {
                    let entries: Vec<Entry> = messages.into_iter().map(|m| entry(Some(peer), m)).collect();
                    let takes = entries.iter().map(|entry| entry.body.len() + MESSAGE).sum();
                    held.shrink(held.bytes().saturating_sub(takes));
                    let appended = appender.append(origin.clone(), entries);
                    appends.push(async move {
                        let _held = held;
                        appended.await
                    });
                }
                if framer.is_lost() {
                    tracing::warn!(%peer, feed = origin.feed, "no message where one should begin: connection closed");
                    break;
                }
                if came == Came::End {
                    break;
                }
            }
            () = stop.told() => break,
        }
    }
    while appends.next().await.is_some() {}
}

/// What a connection brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    Bytes(usize),
    /// Nothing for a while.
    Nothing,
    /// Its end.
    End,
}

/// Waits for the memory of what was read: every byte of it may be half a message. The beginning of one message that is known
/// already is part of what a connection takes.
async fn memory(waits: &mut Option<(Came, Held)>) -> Result<(), NoRoom> {
    match waits {
        Some((Came::Bytes(n), held)) => held.wait(*n * MESSAGE / 2 + *n).await,
        Some(_) => Ok(()),
        None => std::future::pending().await,
    }
}
