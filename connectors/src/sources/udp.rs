//! Datagrams: NetFlow, IPFIX, sFlow, syslog and traps. A thread a socket, big receive buffers, batches to the ledger.
//!
//! A datagram cannot be acknowledged. What the queue before the ledger has no room for is shed, what the kernel dropped
//! is read from it; both are counted in the feed's loss ledger. An SNMP inform *is* acknowledged: it is answered after
//! its frame is durable, and not at all when it is not, so that the sender tries again.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::socket::{setsockopt, sockopt};
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::payload::FeedCounters;
use radarflow_proto::ports::FactSink;
use radarflow_proto::snmp;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Listener, SourceError, Stop, entry, origin};

/// Receive buffer asked of the kernel, bytes.
const RECEIVE_BUFFER: usize = 32 << 20;
/// Datagrams handed over at once.
const BATCH: usize = 1024;
/// How often losses are told to the ledger.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long a read waits before looking whether to stop.
const READ_WAIT: Duration = Duration::from_millis(50);

/// What a socket brings.
#[derive(Clone, Debug)]
pub enum Datagrams {
    /// NetFlow v5, v9, IPFIX.
    NetFlow,
    /// sFlow v5.
    SFlow,
    /// Syslog.
    Syslog,
    /// SNMP notifications; the key hashes communities.
    Traps {
        /// Secret of this installation.
        key: Arc<[u8]>,
    },
}

impl Datagrams {
    fn name(&self) -> &'static str {
        match self {
            Datagrams::NetFlow => "netflow",
            Datagrams::SFlow => "sflow",
            Datagrams::Syslog => "syslog",
            Datagrams::Traps { .. } => "traps",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Datagrams::NetFlow => Kind::NetFlow,
            Datagrams::SFlow => Kind::SFlow,
            Datagrams::Syslog => Kind::Syslog,
            Datagrams::Traps { .. } => Kind::Trap,
        }
    }
}

/// A running socket.
pub struct Running {
    /// The address it got.
    pub addr: SocketAddr,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    /// Waits until it has ended.
    pub fn join(self) {
        let _ = self.thread.join();
    }
}

/// Starts a socket. `runtime` answers informs.
pub fn start(
    what: Datagrams,
    listener: &Listener,
    sink: Arc<dyn FactSink>,
    stop: Stop,
    runtime: &tokio::runtime::Handle,
) -> Result<Running, SourceError> {
    let (name, asked) = (what.name(), listener.addr);
    let bind = |source| SourceError::Bind { what: name, addr: asked, source };
    let socket = open(listener.addr).map_err(bind)?;
    let addr = socket.local_addr().map_err(bind)?;
    let listener = Listener { addr, ..listener.clone() };
    let runtime = runtime.clone();
    let thread = std::thread::Builder::new()
        .name(format!("udp-{name}"))
        .spawn(move || Reader::new(what, &listener, sink, runtime).run(&socket, &stop))
        .map_err(bind)?;
    Ok(Running { addr, thread })
}

fn open(addr: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // As root the limit of the system does not apply.
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.bind(&addr.into())?;
    socket.set_read_timeout(Some(READ_WAIT))?;
    Ok(socket.into())
}

struct Reader {
    what: Datagrams,
    origin: Arc<Origin>,
    counters: Arc<Origin>,
    sink: Arc<dyn FactSink>,
    runtime: tokio::runtime::Handle,
    shed: u64,
    kernel_drops: u64,
    port: u16,
}

impl Reader {
    fn new(what: Datagrams, listener: &Listener, sink: Arc<dyn FactSink>, runtime: tokio::runtime::Handle) -> Self {
        let origin = origin(what.kind(), what.name(), listener);
        let counters = Arc::new(Origin { kind: Kind::Counters, ..(*origin).clone() });
        let port = listener.addr.port();
        let kernel_drops = kernel_drops(port);
        Reader { what, origin, counters, sink, runtime, shed: 0, kernel_drops, port }
    }

    fn run(&mut self, socket: &UdpSocket, stop: &Stop) {
        let mut buffer = vec![0u8; 65_536];
        let mut batch = Vec::with_capacity(BATCH);
        let mut next_count = Instant::now() + COUNT_EVERY;
        while !stop.is_told() {
            match socket.recv_from(&mut buffer) {
                Ok((n, peer)) => {
                    self.take(socket, &buffer[..n], peer, &mut batch);
                    // Whatever waits in the kernel comes along.
                    let _ = socket.set_nonblocking(true);
                    while batch.len() < BATCH {
                        match socket.recv_from(&mut buffer) {
                            Ok((n, peer)) => self.take(socket, &buffer[..n], peer, &mut batch),
                            Err(_) => break,
                        }
                    }
                    let _ = socket.set_nonblocking(false);
                    self.hand_over(&mut batch);
                }
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                // An ICMP error of an answer we sent; the socket is fine.
                Err(error) => tracing::debug!(%error, feed = self.origin.feed, "read"),
            }
            if Instant::now() >= next_count {
                next_count = Instant::now() + COUNT_EVERY;
                self.count();
            }
        }
        self.count();
    }

    fn take(&mut self, socket: &UdpSocket, bytes: &[u8], peer: SocketAddr, batch: &mut Vec<Entry>) {
        let Datagrams::Traps { key } = &self.what else {
            batch.push(entry(Some(peer), Bytes::copy_from_slice(bytes)));
            return;
        };
        // Nothing that bears a community goes on; what is no SNMP message bears none that could be told.
        let kept = match snmp::redact(bytes, key) {
            Ok(kept) => kept,
            Err(_) => bytes[..bytes.len().min(16)].to_vec(),
        };
        match snmp::inform_response(bytes) {
            Ok(Some(answer)) => match socket.try_clone() {
                Ok(socket) => {
                    let appended = self.sink.append(self.origin.clone(), vec![entry(Some(peer), kept)]);
                    self.runtime.spawn(async move {
                        if appended.await.is_ok() {
                            let _ = socket.send_to(&answer, peer);
                        }
                    });
                }
                Err(_) => self.shed += 1,
            },
            _ => batch.push(entry(Some(peer), kept)),
        }
    }

    fn hand_over(&mut self, batch: &mut Vec<Entry>) {
        if batch.is_empty() {
            return;
        }
        if let Err(refused) = self.sink.offer(self.origin.clone(), std::mem::take(batch)) {
            self.shed += refused.len() as u64;
        }
    }

    /// Tells the ledger what was lost, if anything was.
    fn count(&mut self) {
        let drops = kernel_drops(self.port);
        let new_drops = drops.saturating_sub(self.kernel_drops);
        if self.shed == 0 && new_drops == 0 {
            return;
        }
        let counters = FeedCounters { shed: self.shed, kernel_drops: new_drops };
        let body = serde_json::to_vec(&counters).unwrap_or_default();
        if self.sink.offer(self.counters.clone(), vec![entry(None, body)]).is_ok() {
            self.shed = 0;
            self.kernel_drops = drops;
        }
    }
}

/// Datagrams that the kernel dropped at sockets of this port, from `/proc/net/udp` and `udp6`; 0 where there is none.
fn kernel_drops(port: u16) -> u64 {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().skip(1).filter_map(|line| drops_of(line, port)).collect::<Vec<_>>())
        .sum()
}

fn drops_of(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
    (local == port).then(|| fields.last()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_kernels_table() {
        let line = " 1234: 0100007F:0807 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 12345 2 ffff 17";
        assert_eq!(drops_of(line, 2055), Some(17));
        assert_eq!(drops_of(line, 2056), None);
    }
}
