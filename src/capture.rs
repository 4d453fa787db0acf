//! Reads the UDP payloads of a capture, packet by packet: pcap and pcapng files, of any byte order and precision.
//!
//! | link types | what precedes IP |
//! |---|---|
//! | Ethernet | its header, VLAN tags |
//! | Linux cooked, SLL and SLL2 (`tcpdump -i any`) | their header, VLAN tags |
//! | raw IP, IPv4, IPv6 (tunnels) | nothing |
//! | loopback of BSD and macOS, null | four bytes of protocol family |
//!
//! Fragments are not put together: they are counted, like packets of which not all was captured. What is no UDP is passed
//! over. A capture that ends in the middle of a packet (its writer was killed) gives what it has.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use anyhow::{Context, Result, bail};
use etherparse::{EtherType, SlicedPacket, TransportSlice};
use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// What is read at once.
const READ_BYTES: usize = 256 << 10;
/// Greatest block of a file.
const MAX_BLOCK_BYTES: usize = 64 << 20;
/// Most interfaces of a section.
const MAX_INTERFACES: usize = 65_536;

/// What a capture held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// UDP payloads.
    pub(crate) datagrams: u64,
    /// Fragments of IP packets.
    pub(crate) fragments: u64,
    /// Packets of which not all was captured, or that are malformed.
    pub(crate) damaged: u64,
    /// Packets that cannot be read, by link type.
    pub(crate) unknown_links: BTreeMap<i32, u64>,
    /// Whether the file ends in the middle of a packet.
    pub(crate) cut_off: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} datagrams sent", self.datagrams)?;
        if self.fragments > 0 {
            write!(f, ", {} fragments left out", self.fragments)?;
        }
        if self.damaged > 0 {
            write!(f, ", {} packets left out that are cut short or malformed", self.damaged)?;
        }
        for (link, n) in &self.unknown_links {
            write!(f, ", {n} packets left out of link type {link}, which is not known")?;
        }
        if self.cut_off {
            write!(f, "; the file ends in the middle of a packet")?;
        }
        Ok(())
    }
}

/// What is to be done before the next block is read.
enum Next {
    Take(usize),
    Refill,
    Grow,
}

/// Hands every UDP payload to `each`, with the bytes of the file that were read before it.
pub(crate) fn datagrams(file: impl Read + Send, mut each: impl FnMut(&[u8], u64) -> Result<()>) -> Result<Summary> {
    let mut reader = match create_reader(READ_BYTES, file) {
        Ok(reader) => reader,
        Err(PcapError::Eof) => bail!("the file is empty"),
        Err(PcapError::ReadError) => bail!("the file cannot be read"),
        Err(PcapError::Incomplete(_)) => bail!("the file ends before a capture begins"),
        Err(_) => bail!("this is neither a pcap nor a pcapng file"),
    };
    let mut summary = Summary::default();
    let mut interfaces: Vec<Linktype> = Vec::new();
    let mut capacity = READ_BYTES;
    loop {
        let at = reader.consumed();
        let next = match reader.next() {
            Ok((length, block)) => {
                let packet = match &block {
                    PcapBlockOwned::LegacyHeader(header) => {
                        // The upper bits say how long the check sequence is.
                        interfaces = vec![Linktype(header.network.0 & 0x03ff_ffff)];
                        None
                    }
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                        interfaces.clear();
                        None
                    }
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                        if interfaces.len() == MAX_INTERFACES {
                            bail!("a section of more than {MAX_INTERFACES} interfaces");
                        }
                        interfaces.push(interface.linktype);
                        None
                    }
                    PcapBlockOwned::Legacy(packet) => Some((0, packet.data)),
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => Some((packet.if_id, packet.packet_data())),
                    PcapBlockOwned::NG(Block::SimplePacket(packet)) => Some((0, packet.packet_data())),
                    PcapBlockOwned::NG(_) => None,
                };
                if let Some((interface, data)) = packet {
                    let link = usize::try_from(interface).ok().and_then(|n| interfaces.get(n));
                    let link = link.with_context(|| {
                        format!("byte {at}: a packet of interface {interface}, which the capture does not describe")
                    })?;
                    if let Some(payload) = summary.payload(*link, data) {
                        each(payload, at as u64)?;
                    }
                }
                Next::Take(length)
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::UnexpectedEof) => {
                summary.cut_off = true;
                break;
            }
            Err(PcapError::Incomplete(_)) => Next::Refill,
            Err(PcapError::BufferTooSmall) => Next::Grow,
            Err(_) => bail!("byte {at}: the capture is damaged"),
        };
        match next {
            Next::Take(length) => reader.consume(length),
            Next::Refill => {
                let before = reader.data().len();
                if reader.refill().is_err() {
                    bail!("the file cannot be read on from byte {at}");
                }
                if reader.data().len() == before && !reader.reader_exhausted() {
                    grow(&mut *reader, &mut capacity, at)?;
                }
            }
            Next::Grow => grow(&mut *reader, &mut capacity, at)?,
        }
    }
    Ok(summary)
}

/// Makes room for a larger block.
fn grow(reader: &mut dyn PcapReaderIterator, capacity: &mut usize, at: usize) -> Result<()> {
    if *capacity >= MAX_BLOCK_BYTES {
        bail!("byte {at}: a block of more than {MAX_BLOCK_BYTES} bytes; the capture is damaged");
    }
    *capacity *= 2;
    reader.grow(*capacity);
    Ok(())
}

impl Summary {
    /// The UDP payload of a packet, if it is all there.
    fn payload<'p>(&mut self, link: Linktype, packet: &'p [u8]) -> Option<&'p [u8]> {
        let sliced = match link {
            Linktype::ETHERNET => SlicedPacket::from_ethernet(packet).ok(),
            Linktype::LINUX_SLL => cooked(packet, 14, 16),
            Linktype::LINUX_SLL2 => cooked(packet, 0, 20),
            // 12 and 14 are what BSDs write for raw IP.
            Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12 | 14) => SlicedPacket::from_ip(packet).ok(),
            // The version of IP says the same as the family, which is in the byte order of the host.
            Linktype::NULL | Linktype::LOOP => packet.get(4..).and_then(|ip| SlicedPacket::from_ip(ip).ok()),
            Linktype(unknown) => {
                *self.unknown_links.entry(unknown).or_default() += 1;
                return None;
            }
        };
        let Some(sliced) = sliced else {
            self.damaged += 1;
            return None;
        };
        if sliced.is_ip_payload_fragmented() {
            self.fragments += 1;
            return None;
        }
        let Some(TransportSlice::Udp(udp)) = sliced.transport else { return None };
        self.datagrams += 1;
        Some(udp.payload())
    }
}

/// A packet with a header of Linux's own, which has the type of Ethernet that follows at a place.
fn cooked(packet: &[u8], protocol_at: usize, payload_at: usize) -> Option<SlicedPacket<'_>> {
    let protocol = packet.get(protocol_at..protocol_at + 2)?.try_into().ok()?;
    SlicedPacket::from_ether_type(EtherType(u16::from_be_bytes(protocol)), packet.get(payload_at..)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn udp(payload: &[u8]) -> Vec<u8> {
        let ports = [9u16, 2055, 8 + payload.len() as u16, 0];
        [&ports.map(u16::to_be_bytes).concat()[..], payload].concat()
    }

    fn v4(payload: &[u8]) -> Vec<u8> {
        let length = (28 + payload.len() as u16).to_be_bytes();
        let header = [&[0x45, 0][..], &length, &[0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]].concat();
        [header, udp(payload)].concat()
    }

    fn v6(payload: &[u8]) -> Vec<u8> {
        let length = (8 + payload.len() as u16).to_be_bytes();
        [&[0x60, 0, 0, 0][..], &length, &[17, 64], &[1; 16], &[2; 16], &udp(payload)].concat()
    }

    /// An Ethernet frame, padded to the least that there is.
    fn ethernet(tags: &[[u8; 4]], ip: &[u8]) -> Vec<u8> {
        let protocol = if ip[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        let mut frame = [&[1; 6][..], &[2; 6], &tags.concat(), &protocol, ip].concat();
        frame.resize(frame.len().max(60), 0);
        frame
    }

    /// Tags of a customer's VLAN, and of its provider's around it.
    const TAGS: [[u8; 4]; 2] = [[0x88, 0xa8, 0, 8], [0x81, 0, 0, 7]];

    /// What precedes IP, by link type, and whether IPv6 follows.
    fn framed(link: i32, six: bool, payload: &[u8]) -> Vec<u8> {
        let (ip, protocol) = if six { (v6(payload), [0x86, 0xdd]) } else { (v4(payload), [8, 0]) };
        let before = match link {
            // The family of IPv6 differs from system to system; its byte order, too.
            0 => vec![if six { 30 } else { 2 }, 0, 0, 0],
            108 => vec![0, 0, 0, if six { 24 } else { 2 }],
            113 => [&[0, 0, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0], &protocol[..]].concat(),
            276 => [&protocol[..], &[0, 0, 0, 0, 0, 1, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0]].concat(),
            _ => Vec::new(),
        };
        [before, ip].concat()
    }

    #[derive(Clone, Copy)]
    struct Order {
        big: bool,
        nanoseconds: bool,
    }

    impl Order {
        const ALL: [Order; 4] = [
            Order { big: false, nanoseconds: false },
            Order { big: false, nanoseconds: true },
            Order { big: true, nanoseconds: false },
            Order { big: true, nanoseconds: true },
        ];

        fn n(self, n: u32) -> [u8; 4] {
            if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
        }

        fn short(self, n: u16) -> [u8; 2] {
            if self.big { n.to_be_bytes() } else { n.to_le_bytes() }
        }

        fn pcap(self, link: i32, packets: &[Vec<u8>]) -> Vec<u8> {
            let mut file = self.n(if self.nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 }).to_vec();
            file.extend([self.short(2), self.short(4)].concat());
            file.extend([0, 0, 65_535, link as u32].map(|n| self.n(n)).concat());
            for packet in packets {
                let length = packet.len() as u32;
                file.extend([1, 2, length, length].map(|n| self.n(n)).concat());
                file.extend(packet);
            }
            file
        }

        fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
            let padded = body.len().div_ceil(4) * 4;
            let length = self.n(padded as u32 + 12);
            let mut block = [&self.n(kind)[..], &length, body].concat();
            block.resize(padded + 8, 0);
            block.extend(length);
            block
        }

        fn section(self) -> Vec<u8> {
            let version = [self.short(1), self.short(0)].concat();
            self.block(0x0a0d_0d0a, &[&self.n(0x1a2b_3c4d)[..], &version, &[0xff; 8]].concat())
        }

        fn interface(self, link: u16) -> Vec<u8> {
            self.block(1, &[&self.short(link)[..], &[0; 2], &self.n(0)].concat())
        }

        fn packet(self, interface: u32, packet: &[u8]) -> Vec<u8> {
            let length = packet.len() as u32;
            let head = [interface, 0, 0, length, length].map(|n| self.n(n)).concat();
            self.block(6, &[&head[..], packet].concat())
        }

        fn simple(self, packet: &[u8]) -> Vec<u8> {
            self.block(3, &[&self.n(packet.len() as u32)[..], packet].concat())
        }
    }

    fn read(file: &[u8]) -> Result<(Vec<Vec<u8>>, Summary)> {
        let mut payloads = Vec::new();
        let summary = datagrams(file, |payload, _| {
            payloads.push(payload.to_vec());
            Ok(())
        })?;
        assert_eq!(summary.datagrams as usize, payloads.len());
        Ok((payloads, summary))
    }

    fn whole(n: u64) -> Summary {
        Summary { datagrams: n, ..Summary::default() }
    }

    #[test]
    fn datagrams_of_every_link_type_in_every_byte_order() {
        for order in Order::ALL {
            for link in [0, 12, 14, 101, 108, 113, 228, 229, 276] {
                let packets = [framed(link, false, b"four"), framed(link, true, b"six!x")];
                let (payloads, summary) = read(&order.pcap(link, &packets)).unwrap();
                assert_eq!((payloads, summary), (vec![b"four".to_vec(), b"six!x".to_vec()], whole(2)), "{link}");
            }
            let frames = [ethernet(&[], &v4(b"a")), ethernet(&TAGS[1..], &v6(b"bc")), ethernet(&TAGS, &v4(b""))];
            let (payloads, summary) = read(&order.pcap(1, &frames)).unwrap();
            assert_eq!((payloads, summary), (vec![b"a".to_vec(), b"bc".to_vec(), vec![]], whole(3)));
            // The length of the check sequence stands above the link type.
            assert_eq!(read(&order.pcap(1 | 0x2400_0000, &frames)).unwrap().1, whole(3));
        }
    }

    #[test]
    fn sections_interfaces_and_blocks_of_pcapng() {
        let mut file = Vec::new();
        for order in Order::ALL {
            file.extend(order.section());
            file.extend([order.interface(1), order.interface(276)].concat());
            // A block of names, which says nothing of packets, and one that is larger than what is read at once.
            file.extend([order.block(4, &[0; 8]), order.block(0x0bad, &vec![0; 3 * READ_BYTES])].concat());
            file.extend(order.packet(1, &framed(276, true, b"cooked")));
            file.extend(order.simple(&ethernet(&[], &v4(b"simple"))));
            file.extend(order.packet(0, &ethernet(&TAGS, &v6(b"tagged"))));
        }
        let (payloads, summary) = read(&file).unwrap();
        assert_eq!(summary, whole(12));
        assert_eq!(payloads.chunks(3).next().unwrap(), [b"cooked", b"simple", b"tagged"]);
        assert!(payloads.chunks(3).all(|of| *of == payloads[..3]));
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let order = Order::ALL[0];
        let mut more = v4(b"the first part");
        more[6] = 0x20;
        let mut last = v4(b"the last part");
        last[7] = 1;
        // A fragment header before UDP: more follow.
        let mut six = v6(b"x");
        six.splice(40..40, [17, 0, 0, 1, 0, 0, 0, 7]);
        (six[5], six[6]) = (six[5] + 8, 44);
        let whole = v4(b"whole");
        let mut tcp = v4(&[0; 40]);
        tcp[9] = 6;
        tcp[32] = 0x50;
        let packets = [more, last, six, whole[..whole.len() - 1].to_vec(), vec![], vec![0x20; 30], tcp, whole.clone()];
        let (payloads, summary) = read(&order.pcap(101, &packets)).unwrap();
        let left_out = Summary { datagrams: 1, fragments: 3, damaged: 3, ..Summary::default() };
        assert_eq!((payloads, &summary), (vec![b"whole".to_vec()], &left_out));
        assert_eq!(
            summary.to_string(),
            "1 datagrams sent, 3 fragments left out, 3 packets left out that are cut short or malformed"
        );
        let (_, summary) = read(&order.pcap(127, &[whole.clone(), whole.clone()])).unwrap();
        assert_eq!(summary.unknown_links, BTreeMap::from([(127, 2)]));
        // Its writer was killed.
        let file = order.pcap(101, &[whole.clone(), whole]);
        for cut in [1, 10, 34] {
            let (payloads, summary) = read(&file[..file.len() - cut]).unwrap();
            assert!(payloads.len() == 1 && summary.cut_off, "{cut}: {summary:?}");
        }
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        let order = Order::ALL[0];
        let undescribed = [order.section(), order.interface(1), order.packet(1, b"x")].concat();
        let huge =
            [order.section(), [order.n(6), order.n(0x7fff_fff0)].concat(), vec![0; 2 * MAX_BLOCK_BYTES]].concat();
        for (file, said) in [
            (b"".to_vec(), "empty"),
            (b"\xd4\xc3".to_vec(), "before a capture begins"),
            (b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n".to_vec(), "neither a pcap nor a pcapng"),
            (undescribed, "byte 48: a packet of interface 1"),
            (huge, "byte 28: a block of more than"),
        ] {
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(said), "{error:?} does not say {said:?}");
        }
        let refused = datagrams(&order.pcap(101, &[v4(b"x")])[..], |_, _| bail!("no route"));
        assert_eq!(refused.unwrap_err().to_string(), "no route");
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_counted(at in 0usize..400, byte: u8, cut in 0usize..400, ng: bool) {
            let order = Order::ALL[usize::from(byte % 4)];
            let packets = [ethernet(&TAGS, &v4(b"abc")), ethernet(&[], &v6(b"def"))];
            let mut file = if ng {
                [order.section(), order.interface(1), order.packet(0, &packets[0]), order.simple(&packets[1])].concat()
            } else {
                order.pcap(1, &packets)
            };
            if let Some(place) = file.get_mut(at) {
                *place = byte;
            }
            file.truncate(cut);
            let _ = read(&file);
        }
    }

    /// Where `tcpdump` is installed and may listen, what it writes is read.
    #[test]
    fn what_tcpdump_writes_is_read() {
        use std::io::{BufRead, BufReader};
        let dir = tempfile::tempdir().unwrap();
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = receiver.local_addr().unwrap();
        for device in ["lo", "any"] {
            let file = dir.path().join(device);
            let mut tcpdump = std::process::Command::new("tcpdump");
            // It could not write the file as anybody else.
            tcpdump
                .args(["-Z", "root", "-i", device, "-U", "-c", "2", "-w"])
                .arg(&file)
                .arg(format!("udp dst port {}", to.port()));
            let Ok(mut tcpdump) = tcpdump.stderr(std::process::Stdio::piped()).spawn() else { return };
            let mut lines = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
            if !lines.any(|line| line.unwrap_or_default().contains("listening on")) {
                tcpdump.wait().unwrap();
                return;
            }
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for payload in [b"one", b"two"] {
                sender.send_to(payload, to).unwrap();
            }
            assert!(tcpdump.wait().unwrap().success());
            let (payloads, summary) = read(&std::fs::read(&file).unwrap()).unwrap();
            assert_eq!((payloads, summary), (vec![b"one".to_vec(), b"two".to_vec()], whole(2)), "{device}");
        }
    }
}
