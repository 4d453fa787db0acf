//! Streams of messages over TCP: syslog, octet-counted or by line (RFC 6587), and IPFIX (RFC 7011). A connection reads on
//! while what it read before becomes durable, [`OUTSTANDING`] appends at most: a slow ledger slows its senders. Where a
//! stream does not tell any more where its messages begin, the connection is closed.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::framing::{Framing, IpfixFramer};
use radarflow_proto::ports::Appender;
use radarflow_proto::syslog::Framer;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::accept::{Connection, ConnectionSlots, connections};
use super::tls::Tls;
use super::{Listener, SourceError, Stop, entry, origin};

/// Appends of one connection that may be under way.
pub const OUTSTANDING: usize = 16;
const READ: usize = 256 << 10;
/// A message that may be whole waits so long for what follows it.
const PAUSE: Duration = Duration::from_millis(500);

/// Listens for syslog, with TLS as RFC 5425 has it; the returned address is the one it got.
///
/// # Errors
/// [`SourceError`] where the address cannot be bound.
pub async fn syslog(
    listener: &Listener,
    tls: Option<Arc<Tls>>,
    slots: Arc<ConnectionSlots>,
    appender: Arc<dyn Appender>,
    stop: Stop,
) -> Result<std::net::SocketAddr, SourceError> {
    start::<Framer>(Kind::Syslog, "syslog", listener, (tls, slots), appender, stop).await
}

/// Listens for IPFIX; the returned address is the one it got.
///
/// # Errors
/// [`SourceError`] where the address cannot be bound.
pub async fn ipfix(
    listener: &Listener,
    slots: Arc<ConnectionSlots>,
    appender: Arc<dyn Appender>,
    stop: Stop,
) -> Result<std::net::SocketAddr, SourceError> {
    start::<IpfixFramer>(Kind::NetFlow, "netflow", listener, (None, slots), appender, stop).await
}

async fn start<F: Framing + 'static>(
    kind: Kind,
    what: &'static str,
    listener: &Listener,
    (tls, slots): (Option<Arc<Tls>>, Arc<ConnectionSlots>),
    appender: Arc<dyn Appender>,
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
                let (origin, appender, stop) = (origin.clone(), appender.clone(), stop.clone());
                tokio::spawn(read(F::default(), stream, origin, appender, stop));
            }
        }
    });
    Ok(addr)
}

async fn read(
    mut framer: impl Framing,
    mut stream: Connection,
    origin: Arc<Origin>,
    appender: Arc<dyn Appender>,
    mut stop: Stop,
) {
    let peer = stream.peer();
    let mut buffer = vec![0u8; READ];
    let mut appends = FuturesUnordered::new();
    let append = |messages: Vec<Vec<u8>>| {
        let entries: Vec<Entry> = messages.into_iter().map(|m| entry(Some(peer), m)).collect();
        appender.append(origin.clone(), entries)
    };
    loop {
        tokio::select! {
            biased;
            Some(result) = appends.next(), if !appends.is_empty() => {
                if let Err(error) = result {
                    // The sender learns by the closed connection that what follows was not taken.
                    tracing::warn!(%error, %peer, feed = origin.feed, "connection closed");
                    return;
                }
            }
            n = stream.read(&mut buffer), if appends.len() < OUTSTANDING => {
                let n = n.unwrap_or(0);
                let mut messages = framer.push(&buffer[..n]);
                if n == 0 {
                    messages.extend(framer.finish());
                }
                if !messages.is_empty() {
                    appends.push(append(messages));
                }
                if framer.is_lost() {
                    tracing::warn!(%peer, feed = origin.feed, "no message where one should begin: connection closed");
                    break;
                }
                if n == 0 {
                    break;
                }
            }
            () = tokio::time::sleep(PAUSE), if framer.waits() && appends.len() < OUTSTANDING => {
                appends.push(append(framer.pause()));
            }
            () = stop.told() => break,
        }
    }
    while appends.next().await.is_some() {}
}
