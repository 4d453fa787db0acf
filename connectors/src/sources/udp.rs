//! Datagrams: NetFlow, IPFIX, sFlow, syslog and traps. A thread a socket, big receive buffers, many datagrams a system
//! call (`recvmmsg`), batches to the ledger.
//!
//! Several sockets may share an address (`SO_REUSEPORT`). The kernel gives each to one of them by who sends it, so that what
//! an exporter sends from one port stays in order.
//!
//! A message of GELF that comes in chunks is one input ([`gelf`]); one whose chunks do not all come is shed.
//!
//! A datagram cannot be acknowledged. What is beyond a sender's allowance, and what the queue before the ledger has no room for,
//! is shed, and counted in the ledger of its sender ([`senders`]); what the kernel dropped is read from it, and counted in the
//! feed's. An SNMP inform *is* acknowledged: it is answered after its frame is durable, and not at all when it is not, so that the
//! sender tries again. Of those that wait for that a socket holds [`UNANSWERED_BYTES`]; beyond it informs are shed. What SNMPv3
//! asks before an inform, and is told where something is wrong, is answered at once ([`snmp::usm`]).

mod senders;

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, setsockopt, sockopt};
use nix::sys::stat::fstat;
use radarflow_proto::frame::{Entry, Kind, Origin};
use radarflow_proto::gelf::{self, Chunks, Taken};
use radarflow_proto::payload::FeedCounters;
use radarflow_proto::ports::Appender;
use radarflow_proto::snmp;
use radarflow_proto::snmp::usm::{Received as Opened, Usm};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Semaphore;

pub use self::senders::SENDERS_BYTES;
use self::senders::{Senders, in_turns};
use super::{Listener, SourceError, Stop, entry, now_us, origin};

/// Receive buffer asked of the kernel, bytes.
const RECEIVE_BUFFER: usize = 32 << 20;
/// Sockets that may share an address.
pub const MAX_SOCKETS: usize = 64;
/// Datagrams handed over at once.
const BATCH: usize = 1024;
/// Datagrams read by one system call.
const AT_ONCE: usize = 64;
/// Room for one: IP has no larger ones.
const DATAGRAM: usize = 1 << 16;
/// Bytes that are kept of what is no SNMP message: a community may stand behind the version, as of the sixth.
const UNREADABLE: usize = 4;
/// What a socket reads at once, bytes.
pub const SOCKET_BYTES: usize = AT_ONCE * DATAGRAM;
/// Bytes of informs of one socket that wait to be durable.
pub const UNANSWERED_BYTES: usize = 4 << 20;
/// What an inform that waits takes beside its bytes.
const UNANSWERED: usize = 1024;
/// How often losses are told to the ledger.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long a read waits before looking whether to stop.
const READ_WAIT: Duration = Duration::from_millis(50);

/// How often a batch that the ledger has no room for is halved before it is given up.
const HALVED: u32 = 4;

/// How notifications are read.
#[derive(Clone)]
pub struct Notifications {
    /// Secret of this installation: it hashes communities.
    pub key: Arc<[u8]>,
    /// The users of SNMPv3.
    pub usm: Arc<Usm>,
    /// When our engine was started.
    pub started: Instant,
}

/// What a socket brings.
#[derive(Clone)]
pub enum Datagrams {
    /// NetFlow v5, v9, IPFIX.
    NetFlow,
    /// sFlow v5.
    SFlow,
    /// Syslog.
    Syslog,
    /// SNMP notifications.
    Traps(Notifications),
}

impl Datagrams {
    fn name(&self) -> &'static str {
        match self {
            Datagrams::NetFlow => "netflow",
            Datagrams::SFlow => "sflow",
            Datagrams::Syslog => "syslog",
            Datagrams::Traps(_) => "traps",
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Datagrams::NetFlow => Kind::NetFlow,
            Datagrams::SFlow => Kind::SFlow,
            Datagrams::Syslog => Kind::Syslog,
            Datagrams::Traps(_) => Kind::Trap,
        }
    }
}

/// Running sockets of one address.
pub struct UdpSource {
    /// The address they got.
    pub addr: SocketAddr,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl UdpSource {
    /// Waits until they have ended.
    pub fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// How many sockets share an address, and what each of their senders may send.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Sockets.
    pub sockets: usize,
    /// Datagrams of one sender a second; as many as it likes where nothing is said.
    pub most_of_sender: Option<u32>,
}

/// Starts the sockets of one address. `runtime` answers informs.
///
/// # Errors
/// [`SourceError`] where the address cannot be bound or a thread cannot be started.
pub fn start(
    what: &Datagrams,
    listener: &Listener,
    share: Share,
    appender: &Arc<dyn Appender>,
    stop: &Stop,
    runtime: &tokio::runtime::Handle,
) -> Result<UdpSource, SourceError> {
    let (name, asked) = (what.name(), listener.addr);
    let bind = |source| SourceError::Bind { what: name, addr: asked, source };
    let sockets = share.sockets.clamp(1, MAX_SOCKETS);
    let mut opened: Vec<UdpSocket> = Vec::with_capacity(sockets);
    // An address that is to be shared is shared with nobody else: whoever has it already is found by asking for it alone.
    let alone = open(listener.addr, false).map_err(bind)?;
    let addr = alone.local_addr().map_err(bind)?;
    if sockets == 1 {
        opened.push(alone);
    } else {
        drop(alone);
        for _ in 0..sockets {
            opened.push(open(addr, true).map_err(bind)?);
        }
    }
    let listener = Listener { addr, ..listener.clone() };
    let reader = |socket: UdpSocket| {
        let mut reader = Reader::new(what.clone(), &listener, appender.clone(), runtime.clone(), socket);
        reader.senders = Senders::new(share.most_of_sender);
        let stop = stop.clone();
        std::thread::Builder::new().name(format!("udp-{name}")).spawn(move || reader.run(&stop))
    };
    let threads = opened.into_iter().map(reader).collect::<Result<_, _>>().map_err(bind)?;
    Ok(UdpSource { addr, threads })
}

fn open(addr: SocketAddr, shared: bool) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        setsockopt(&socket.as_fd(), sockopt::ReusePort, &true)?;
    }
    // As root the limit of the system does not apply.
    if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    socket.bind(&addr.into())?;
    socket.set_read_timeout(Some(READ_WAIT))?;
    Ok(socket.into())
}

/// Room for what one system call reads.
struct Received {
    room: Vec<u8>,
    headers: MultiHeaders<SockaddrStorage>,
    /// How long each datagram is, and who sent it.
    read: Vec<(usize, SocketAddr)>,
}

impl Received {
    fn new() -> Self {
        let headers = MultiHeaders::preallocate(AT_ONCE, None);
        Received { room: vec![0; SOCKET_BYTES], headers, read: Vec::with_capacity(AT_ONCE) }
    }

    /// Reads what there is. Waits for the first unless told not to.
    fn read(&mut self, socket: &UdpSocket, flags: MsgFlags) -> nix::Result<()> {
        self.read.clear();
        let mut slices: Vec<_> = self.room.chunks_exact_mut(DATAGRAM).map(|room| [IoSliceMut::new(room)]).collect();
        let results = recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None)?;
        self.read.extend(results.map(|said| (said.bytes, said.address.as_ref().map_or(NOBODY, address))));
        Ok(())
    }

    fn datagrams(&self) -> impl Iterator<Item = (&[u8], SocketAddr)> {
        self.room.chunks_exact(DATAGRAM).zip(&self.read).map(|(room, (n, peer))| (&room[..*n], *peer))
    }
}

/// Who sent what bears no address: nobody does that over IP.
const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));

fn address(from: &SockaddrStorage) -> SocketAddr {
    let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    v4.or_else(|| from.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6)))).unwrap_or(NOBODY)
}

struct Reader {
    what: Datagrams,
    origin: Arc<Origin>,
    counters: Arc<Origin>,
    appender: Arc<dyn Appender>,
    runtime: tokio::runtime::Handle,
    /// The socket: answers go out by it too.
    socket: Arc<UdpSocket>,
    /// Room for informs that wait to be durable, bytes.
    unanswered: Arc<Semaphore>,
    senders: Senders,
    kernel_drops: u64,
    /// Names the socket in the kernel's table.
    inode: u64,
    /// Messages of GELF that wait for their chunks, since the socket was opened.
    chunks: Chunks,
    opened: Instant,
}

impl Reader {
    fn new(
        what: Datagrams,
        listener: &Listener,
        appender: Arc<dyn Appender>,
        runtime: tokio::runtime::Handle,
        socket: UdpSocket,
    ) -> Self {
        let origin = origin(what.kind(), what.name(), listener);
        let counters = Arc::new(Origin { kind: Kind::Counters, ..(*origin).clone() });
        let inode = fstat(&socket).map_or(0, |stat| stat.st_ino);
        let (socket, unanswered) = (Arc::new(socket), Arc::new(Semaphore::new(UNANSWERED_BYTES)));
        let kernel_drops = kernel_drops(inode);
        Reader {
            what,
            origin,
            counters,
            appender,
            runtime,
            socket,
            unanswered,
            senders: Senders::default(),
            kernel_drops,
            inode,
            chunks: Chunks::default(),
            opened: Instant::now(),
        }
    }

    fn run(&mut self, stop: &Stop) {
        let socket = self.socket.clone();
        let mut received = Received::new();
        let mut batch = Vec::with_capacity(BATCH);
        let mut next_count = Instant::now() + COUNT_EVERY;
        while !stop.is_told() {
            // The first is waited for; whatever waits in the kernel comes along.
            let mut read = received.read(&socket, MsgFlags::MSG_WAITFORONE);
            while read.is_ok() {
                for (bytes, peer) in received.datagrams() {
                    self.take(bytes, peer, &mut batch);
                }
                if received.read.len() < AT_ONCE || batch.len() >= BATCH {
                    break;
                }
                read = received.read(&socket, MsgFlags::MSG_DONTWAIT);
            }
            self.hand_over(&mut batch);
            match read {
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => {}
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

    fn take(&mut self, bytes: &[u8], peer: SocketAddr, batch: &mut Vec<Entry>) {
        if !self.senders.admit(peer.ip().to_canonical(), now_us) {
            return;
        }
        if matches!(self.what, Datagrams::Syslog) && gelf::is_chunk(bytes) {
            match self.chunks.take(peer, bytes, since(self.opened)) {
                Ok(Taken::Waits) => {}
                Ok(Taken::Whole(message)) => batch.push(entry(Some(peer), message)),
                // What it is is told where it is read.
                Err(_) => batch.push(entry(Some(peer), Bytes::copy_from_slice(bytes))),
            }
            return;
        }
        let Datagrams::Traps(Notifications { key, usm, started }) = &self.what else {
            batch.push(entry(Some(peer), Bytes::copy_from_slice(bytes)));
            return;
        };
        if Usm::is_meant(bytes) {
            let opened = usm.receive(bytes, u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
            return self.take_opened(opened, peer, batch);
        }
        // Nothing that bears a community goes on. Where one begins cannot be told of what is cut short: the beginning of
        // it has none.
        let kept = match snmp::redact(bytes, key) {
            Ok(kept) => kept,
            Err(_) => bytes[..bytes.len().min(UNREADABLE)].to_vec(),
        };
        match snmp::inform_response(bytes) {
            Ok(Some(answer)) => self.answer(answer, entry(Some(peer), kept), peer, batch),
            _ => batch.push(entry(Some(peer), kept)),
        }
    }

    fn take_opened(&mut self, opened: Opened, peer: SocketAddr, batch: &mut Vec<Entry>) {
        let report = match opened {
            Opened::Notification { kept, answer: Some(answer) } => {
                return self.answer(answer, entry(Some(peer), kept), peer, batch);
            }
            Opened::Notification { kept, answer: None } => {
                batch.push(entry(Some(peer), kept));
                None
            }
            Opened::Refused { kept, report } => {
                batch.push(entry(Some(peer), kept));
                report
            }
            Opened::Question { report } => Some(report),
        };
        if let Some(report) = report {
            let _ = self.socket.send_to(&report, peer);
        }
    }

    /// Answers an inform once it is durable.
    fn answer(&mut self, answer: Vec<u8>, inform: Entry, peer: SocketAddr, batch: &mut Vec<Entry>) {
        // What came before it goes before it.
        self.hand_over(batch);
        let takes = inform.body.len() + answer.len() + UNANSWERED;
        let Ok(room) = self.unanswered.clone().try_acquire_many_owned(takes as u32) else {
            self.senders.shed(Some(peer.ip()), 1);
            return;
        };
        let appended = self.appender.append(self.origin.clone(), vec![inform]);
        let socket = self.socket.clone();
        self.runtime.spawn(async move {
            let _room = room;
            if appended.await.is_ok() {
                let _ = socket.send_to(&answer, peer);
            }
        });
    }

    fn hand_over(&mut self, batch: &mut Vec<Entry>) {
        if batch.is_empty() {
            return;
        }
        let Err(refused) = self.appender.offer(self.origin.clone(), std::mem::take(batch)) else { return };
        // There is no room for all of it: a part may fit, and nobody's is the larger one.
        let mut left = in_turns(refused);
        for _ in 0..HALVED {
            let given_up = left.split_off(left.len() / 2);
            given_up.iter().for_each(|entry| self.senders.shed(entry.peer.map(|peer| peer.ip()), 1));
            if left.is_empty() {
                return;
            }
            match self.appender.offer(self.origin.clone(), left) {
                Ok(()) => return,
                Err(refused) => left = refused,
            }
        }
        left.iter().for_each(|entry| self.senders.shed(entry.peer.map(|peer| peer.ip()), 1));
    }

    /// Tells the ledger what was lost, if anything was: of the feed, and of its senders.
    fn count(&mut self) {
        let drops = kernel_drops(self.inode);
        let new_drops = drops.saturating_sub(self.kernel_drops);
        for (ip, lost) in self.chunks.expire(since(self.opened)) {
            self.senders.shed(Some(ip.to_canonical()), lost);
        }
        let mut counted = Vec::new();
        let mut of = |ip: Option<IpAddr>, counters: FeedCounters| {
            let body = serde_json::to_vec(&counters).unwrap_or_default();
            counted.push(entry(ip.map(|ip| SocketAddr::new(ip, 0)), body));
        };
        let shed = self.senders.take_shed();
        shed.iter().for_each(|(ip, shed)| of(*ip, FeedCounters { shed: *shed, kernel_drops: 0 }));
        if new_drops > 0 {
            of(None, FeedCounters { shed: 0, kernel_drops: new_drops });
        }
        if counted.is_empty() {
            return;
        }
        if self.appender.offer(self.counters.clone(), counted).is_ok() {
            self.kernel_drops = drops;
        } else {
            shed.into_iter().for_each(|(ip, n)| self.senders.shed(ip, n));
        }
    }
}

/// Milliseconds since then.
fn since(then: Instant) -> i64 {
    i64::try_from(then.elapsed().as_millis()).unwrap_or(i64::MAX)
}

/// Datagrams that the kernel dropped at a socket, from `/proc/net/udp` and `udp6`; 0 where there is none.
fn kernel_drops(inode: u64) -> u64 {
    ["/proc/net/udp", "/proc/net/udp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().skip(1).filter_map(|line| drops_of(line, inode)).collect::<Vec<_>>())
        .sum()
}

fn drops_of(line: &str, inode: u64) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let of: u64 = fields.get(9)?.parse().ok()?;
    (of == inode).then(|| fields.last()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_kernels_table() {
        let line = " 1234: 0100007F:0807 00000000:0000 07 00000000:00000000 00:00000000 00000000  0 0 12345 2 ffff 17";
        assert_eq!(drops_of(line, 12345), Some(17));
        assert_eq!(drops_of(line, 2055), None);
    }

    fn tlv(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = match u8::try_from(body.len()).ok().filter(|n| *n < 128) {
            Some(n) => vec![n],
            None => [&[0x82u8][..], &(body.len() as u16).to_be_bytes()].concat(),
        };
        [&[tag][..], &length, body].concat()
    }

    /// A v2c inform with `n` as its request id, and padding.
    fn inform(n: u16, padding: usize) -> Vec<u8> {
        let binding = |oid: &[u8], value: Vec<u8>| tlv(0x30, &[tlv(6, oid), value].concat());
        let bindings = [
            binding(&[0x2b, 6, 1, 2, 1, 1, 3, 0], tlv(0x43, &[1])),
            binding(&[0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0], tlv(6, &[0x2b, 6, 1, 6, 3, 1, 1, 5, 1])),
            binding(&[0x2b, 6, 1, 2, 1, 1, 5, 0], tlv(4, &vec![b'x'; padding])),
        ]
        .concat();
        let id = tlv(2, &[0, (n >> 8) as u8, n as u8]);
        let pdu = [id, tlv(2, &[0]), tlv(2, &[0]), tlv(0x30, &bindings)].concat();
        tlv(0x30, &[tlv(2, &[1]), tlv(4, b"public"), tlv(0xa6, &pdu)].concat())
    }

    /// How often a socket is open in this process.
    fn handles(inode: u64) -> usize {
        let wanted = format!("socket:[{inode}]");
        let open =
            std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        open.filter(|target| target.to_string_lossy() == wanted).count()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn informs_that_wait_are_bounded_and_share_the_socket() {
        use crate::ledger::clock::Timekeeping;
        use crate::ledger::intake::{self, Bounds, Progress};
        use crate::ledger::segments::Segments;

        let dir = tempfile::tempdir().unwrap();
        // The dataflow does not get on: one frame is closed, and no other before it does.
        let (progress, paced) = tokio::sync::watch::channel(Progress::default());
        let bounds = Bounds { in_flight: 0, ..Bounds::default() };
        let log = Segments::open(crate::disk::os(), dir.path(), 0).unwrap();
        let clock = Arc::new(crate::clock::SystemClock);
        let time = Timekeeping::new(crate::disk::os(), clock, dir.path().join("clock"));
        let (intake, running) = intake::start(log, paced, |_| {}, || None, bounds, time);
        let appender: Arc<dyn Appender> = Arc::new(intake.clone());
        let first = appender.append(
            Arc::new(Origin { kind: Kind::Syslog, tenant: "t".into(), partition: "p".into(), feed: "f".into() }),
            vec![entry(None, Bytes::from_static(b"x"))],
        );
        first.await.unwrap();

        let socket = open("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let (addr, inode) = (socket.local_addr().unwrap(), fstat(&socket).unwrap().st_ino);
        let listener = Listener { addr, tenant: "t".into(), partition: "p".into() };
        let usm = Arc::new(Usm::new(Arc::new(snmp::usm::Engine::new(vec![1; 5], 1, 0)), Vec::new()));
        let what = Datagrams::Traps(Notifications { key: Arc::from(&[1u8; 32][..]), usm, started: Instant::now() });
        let mut reader = Reader::new(what, &listener, appender, tokio::runtime::Handle::current(), socket);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let peer = client.local_addr().unwrap();
        let mut batch = Vec::new();
        for n in 0..1000 {
            reader.take(&inform(n, 10), peer, &mut batch);
        }
        assert_eq!((handles(inode), reader.senders.take_shed(), batch.len()), (1, vec![], 0));
        // Larger ones take more of the room, until there is none.
        while reader.senders.take_shed().is_empty() {
            reader.take(&inform(1, 8000), peer, &mut batch);
        }
        assert_eq!(handles(inode), 1);
        assert!(reader.unanswered.available_permits() < 20_000);
        // Those that had room are answered when they are durable, and give it back.
        progress.send_replace(Progress { epoch: u64::MAX - 1, released: false });
        let mut answer = [0; 16 << 10];
        client.recv(&mut answer).expect("an inform is answered");
        while reader.unanswered.available_permits() < UNANSWERED_BYTES {
            tokio::task::yield_now().await;
        }
        drop((reader, intake));
        tokio::task::spawn_blocking(|| running.stop()).await.unwrap().unwrap();
    }
}
