//! What a sampled packet's first bytes say, from Ethernet to addresses and ports.
//!
//! | between them | source |
//! |---|---|
//! | VLAN tags, backbone tags; LLC and SNAP | IEEE 802.1Q, 802.1ah; 802.2 |
//! | PPPoE sessions | RFC 2516 |
//! | MPLS labels; pseudowires with a control word, or without | RFC 3032; RFC 4385, RFC 4448 |
//! | IP in IP; authentication and extension headers | RFC 2003, RFC 2473; RFC 4302, RFC 8200 |
//! | GRE, with Ethernet, IP, PPP or ERSPAN in it | RFC 2784, RFC 2637 |
//! | VXLAN, Geneve | RFC 7348, RFC 8926 |
//!
//! Headers are cut off by the sampler at any byte, so every layer is optional: what was read stays, what is missing
//! stays missing. Tunnels are entered, and the innermost addresses win, at most [`MAX_LAYERS`] deep; ports are those of the
//! same packet as the addresses.

use std::net::IpAddr;

use crate::flow::{Flow, MAX_LABELS};
use crate::wire::{Cursor, Truncated};

/// Headers entered before giving up.
pub const MAX_LAYERS: usize = 16;

const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and what switches used before it.
const ETHER_VLAN: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
/// 802.1ah: a service instance, and the customer's frame.
const ETHER_BACKBONE: u16 = 0x88e7;
const ETHER_MPLS: [u16; 2] = [0x8847, 0x8848];
const ETHER_PPPOE: u16 = 0x8864;
const ETHER_BRIDGE: u16 = 0x6558;
const ETHER_PPP: u16 = 0x880b;
const ETHER_ERSPAN_2: u16 = 0x88be;
const ETHER_ERSPAN_3: u16 = 0x22eb;
/// Below it the field is a length, and LLC follows.
const LEAST_ETHER_TYPE: u16 = 0x0600;
/// IANA's, and what Linux took before.
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
const GENEVE_PORT: u16 = 6081;

/// The type of a segment routing header.
const SEGMENT_ROUTING: u8 = 4;
/// The protocol number of the authentication header.
const AUTHENTICATION: u8 = 51;

/// Which packets within packets are entered, so that the flow is theirs. Tags and PPP are always: they have no addresses of
/// their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// VXLAN (RFC 7348) and Geneve (RFC 8926).
    pub vxlan: bool,
    /// GRE (RFC 2784), and what is in it.
    pub gre: bool,
    /// IP in IP (RFC 2003, RFC 2473).
    pub ip_in_ip: bool,
    /// Ethernet below MPLS labels (RFC 4448); IP there is the packet itself.
    pub mpls: bool,
    /// IP below a segment routing header (RFC 8754).
    pub srv6: bool,
}

impl Tunnels {
    /// All of them.
    pub const ALL: Tunnels = Tunnels { vxlan: true, gre: true, ip_in_ip: true, mpls: true, srv6: true };
    /// None.
    pub const NONE: Tunnels = Tunnels { vxlan: false, gre: false, ip_in_ip: false, mpls: false, srv6: false };

    /// Those of these names: `vxlan`, `gre`, `ipip`, `mpls`, `srv6`.
    ///
    /// # Errors
    /// The first that is none.
    pub fn named(names: &[String]) -> Result<Self, &str> {
        let mut tunnels = Tunnels::NONE;
        for name in names {
            *(match name.as_str() {
                "vxlan" => &mut tunnels.vxlan,
                "gre" => &mut tunnels.gre,
                "ipip" => &mut tunnels.ip_in_ip,
                "mpls" => &mut tunnels.mpls,
                "srv6" => &mut tunnels.srv6,
                other => return Err(other),
            }) = true;
        }
        Ok(tunnels)
    }
}

/// How far a packet is entered.
#[derive(Clone, Copy)]
struct Depth {
    layers: usize,
    tunnels: Tunnels,
}

impl Depth {
    fn within(self) -> Self {
        Depth { layers: self.layers.saturating_sub(1), ..self }
    }
}

/// Fills `flow` from an Ethernet frame.
pub fn ethernet(bytes: &[u8], tunnels: Tunnels, flow: &mut Flow) {
    let _ = walk_ethernet(&mut Cursor::new(bytes), flow, Depth { layers: MAX_LAYERS, tunnels });
}

/// Fills `flow` from an IPv4 or IPv6 packet.
pub fn ip(bytes: &[u8], tunnels: Tunnels, flow: &mut Flow) {
    let _ = walk_ip(&mut Cursor::new(bytes), flow, Depth { layers: MAX_LAYERS, tunnels });
}

/// Fills `flow` from a PPP frame.
pub fn ppp(bytes: &[u8], tunnels: Tunnels, flow: &mut Flow) {
    let _ = walk_ppp(&mut Cursor::new(bytes), flow, Depth { layers: MAX_LAYERS, tunnels });
}

/// Fills `flow` from a packet that begins with MPLS labels.
pub fn mpls(bytes: &[u8], tunnels: Tunnels, flow: &mut Flow) {
    let _ = walk_labels(&mut Cursor::new(bytes), flow, Depth { layers: MAX_LAYERS, tunnels });
}

fn mac(at: &mut Cursor<'_>) -> Result<[u8; 6], Truncated> {
    let mut mac = [0; 6];
    mac.copy_from_slice(at.take(6)?);
    Ok(mac)
}

fn walk_ethernet(at: &mut Cursor<'_>, flow: &mut Flow, depth: Depth) -> Result<(), Truncated> {
    flow.dst_mac = Some(mac(at)?);
    flow.src_mac = Some(mac(at)?);
    let ether_type = at.u16()?;
    walk_ether_type(ether_type, at, flow, depth)
}

fn walk_ether_type(mut ether_type: u16, at: &mut Cursor<'_>, flow: &mut Flow, depth: Depth) -> Result<(), Truncated> {
    for _ in 0..depth.layers {
        // That of the packet whose addresses are known: what is in it may be of no kind that is read.
        if flow.src_ip.is_none() {
            flow.ether_type = Some(ether_type);
        }
        match ether_type {
            kind if ETHER_VLAN.contains(&kind) => {
                vlan(at.u16()? & 0x0fff, flow);
                ether_type = at.u16()?;
            }
            kind if ETHER_MPLS.contains(&kind) => return walk_labels(at, flow, depth.within()),
            kind if kind < LEAST_ETHER_TYPE => match at.take(3)? {
                // SNAP: an organisation, and an Ethernet type.
                [0xaa, 0xaa, 3] => {
                    at.take(3)?;
                    ether_type = at.u16()?;
                }
                _ => return Ok(()),
            },
            ETHER_BACKBONE => {
                at.take(4)?;
                return walk_ethernet(at, flow, depth.within());
            }
            ETHER_PPPOE => {
                at.take(6)?;
                return walk_ppp(at, flow, depth.within());
            }
            ETHER_PPP => return walk_ppp(at, flow, depth.within()),
            ETHER_BRIDGE => return walk_ethernet(at, flow, depth.within()),
            ETHER_ERSPAN_2 => {
                at.take(8)?;
                return walk_ethernet(at, flow, depth.within());
            }
            ETHER_ERSPAN_3 => {
                at.take(8)?;
                // The last bit says whether a platform's own header follows.
                let follows = at.u32()? & 1 != 0;
                at.take(if follows { 8 } else { 0 })?;
                return walk_ethernet(at, flow, depth.within());
            }
            ETHER_IPV4 | ETHER_IPV6 => return walk_ip(at, flow, depth.within()),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// A tag: the innermost is the flow's; of the outermost frame, the first is the one it came in by, the second the customer's.
fn vlan(id: u16, flow: &mut Flow) {
    if flow.src_ip.is_none() {
        match flow.src_vlan {
            None => flow.src_vlan = Some(id),
            Some(_) => flow.customer_vlan = flow.customer_vlan.or(Some(id)),
        }
    }
    flow.vlan = Some(id);
}

/// The label stack of the outermost packet that has one.
fn walk_labels(at: &mut Cursor<'_>, flow: &mut Flow, depth: Depth) -> Result<(), Truncated> {
    let is_first = flow.labels.is_empty();
    loop {
        let entry = at.u32()?;
        if is_first && flow.labels.len() < MAX_LABELS {
            flow.labels.push(entry >> 12);
        }
        if entry & 0x100 != 0 {
            return walk_label(at, flow, depth);
        }
    }
}

/// What follows the last label: IP, or a pseudowire's frame. Its first four bits tell (RFC 4928).
fn walk_label(at: &mut Cursor<'_>, flow: &mut Flow, depth: Depth) -> Result<(), Truncated> {
    match at.rest().first().map(|first| first >> 4) {
        Some(4 | 6) => walk_ip(at, flow, depth),
        _ if !depth.tunnels.mpls => Ok(()),
        Some(0) => {
            at.take(4)?;
            walk_ethernet(at, flow, depth)
        }
        // An associated channel (RFC 5586): no user's packet.
        Some(1) | None => Ok(()),
        Some(_) => walk_ethernet(at, flow, depth),
    }
}

/// After a PPP header: its protocol, which may be compressed to a byte (RFC 1661 section 6.5), and an address and control
/// field before it.
fn walk_ppp(at: &mut Cursor<'_>, flow: &mut Flow, depth: Depth) -> Result<(), Truncated> {
    if at.rest().starts_with(&[0xff, 3]) {
        at.take(2)?;
    }
    let first = at.u8()?;
    let protocol = if first & 1 == 0 { u16::from(first) << 8 | u16::from(at.u8()?) } else { u16::from(first) };
    match protocol {
        0x21 | 0x57 => walk_ip(at, flow, depth),
        _ => Ok(()),
    }
}

/// From here on the packet is another: what was told of the one around it does not count.
fn addresses(flow: &mut Flow, src: IpAddr, dst: IpAddr, ether_type: u16) {
    (flow.src_ip, flow.dst_ip, flow.ether_type) = (Some(src), Some(dst), Some(ether_type));
    (flow.src_port, flow.dst_port, flow.tcp_flags) = (None, None, None);
    (flow.icmp_type, flow.icmp_code) = (None, None);
    (flow.fragment_id, flow.fragment_offset, flow.flow_label) = (None, None, None);
}

/// The length of the outermost packet: those that it carries are within it.
fn length(flow: &mut Flow, bytes: u32) {
    // What is segmented later says nothing.
    flow.header_bytes = flow.header_bytes.or(Some(bytes).filter(|bytes| *bytes > 0));
}

fn walk_ip(at: &mut Cursor<'_>, flow: &mut Flow, depth: Depth) -> Result<(), Truncated> {
    let Some(first) = at.rest().first() else { return Ok(()) };
    // By a segment routing header.
    let mut is_routed = false;
    let protocol = match first >> 4 {
        4 => {
            let header = usize::from(first & 15) * 4;
            let mut ip = at.sub(header.max(20))?;
            ip.u8()?;
            let tos = ip.u8()?;
            let (bytes, id) = (ip.u16()?, ip.u16()?);
            let fragment = ip.u16()?;
            let ttl = ip.u8()?;
            let mut protocol = ip.u8()?;
            ip.u16()?;
            let (src, dst) = (ip.u32()?.to_be_bytes(), ip.u32()?.to_be_bytes());
            addresses(flow, src.into(), dst.into(), ETHER_IPV4);
            (flow.tos, flow.protocol, flow.ttl) = (Some(tos), Some(protocol), Some((ttl, ttl)));
            length(flow, u32::from(bytes));
            // More of it follows, or came before.
            let (is_fragment, fragment) = (fragment & 0x3fff != 0, fragment & 0x1fff);
            if is_fragment {
                (flow.fragment_id, flow.fragment_offset) = (Some(u32::from(id)), Some(fragment));
            }
            if protocol == AUTHENTICATION && fragment == 0 {
                protocol = authentication(at)?;
                flow.protocol = Some(protocol);
            }
            if fragment != 0 {
                return Ok(());
            }
            protocol
        }
        6 => {
            let word = at.u32()?;
            let bytes = at.u16()?;
            let mut next = at.u8()?;
            let ttl = at.u8()?;
            let mut address = || -> Result<IpAddr, Truncated> {
                let mut octets = [0; 16];
                octets.copy_from_slice(at.take(16)?);
                Ok(octets.into())
            };
            let (src, dst) = (address()?, address()?);
            addresses(flow, src, dst, ETHER_IPV6);
            (flow.tos, flow.protocol, flow.ttl) = (Some((word >> 20) as u8), Some(next), Some((ttl, ttl)));
            flow.flow_label = Some(word & 0x000f_ffff).filter(|label| *label > 0);
            // A jumbogram's length stands elsewhere.
            length(flow, if bytes == 0 { 0 } else { u32::from(bytes) + 40 });
            // Hop-by-hop, routing, destination options, mobility, HIP, Shim6; a fragment's header is eight bytes.
            for _ in 0..MAX_LAYERS {
                match next {
                    AUTHENTICATION => next = authentication(at)?,
                    0 | 43 | 60 | 135 | 139 | 140 => {
                        let is_routing = next == 43;
                        next = at.u8()?;
                        let n = usize::from(at.u8()?);
                        let header = at.take(6 + n * 8)?;
                        is_routed |= is_routing && header[0] == SEGMENT_ROUTING;
                    }
                    44 => {
                        next = at.u8()?;
                        at.u8()?;
                        let offset = at.u16()? >> 3;
                        (flow.fragment_id, flow.fragment_offset) = (Some(at.u32()?), Some(offset));
                        if offset != 0 {
                            flow.protocol = Some(next);
                            return Ok(());
                        }
                    }
                    _ => break,
                }
            }
            flow.protocol = Some(next);
            next
        }
        _ => return Ok(()),
    };
    if depth.layers == 0 {
        return Ok(());
    }
    match protocol {
        6 => {
            ports(at, flow)?;
            at.take(8)?;
            flow.tcp_flags = Some(at.u16()? & 0x01ff);
        }
        17 => {
            ports(at, flow)?;
            at.take(4)?;
            match flow.dst_port {
                // The flag says that it has a network's number.
                Some(port)
                    if depth.tunnels.vxlan
                        && VXLAN_PORTS.contains(&port)
                        && at.rest().first().is_some_and(|flags| flags & 8 != 0) =>
                {
                    at.take(8)?;
                    return walk_ethernet(at, flow, depth.within());
                }
                Some(GENEVE_PORT) if depth.tunnels.vxlan => {
                    let words = usize::from(at.u8()? & 0x3f);
                    at.u8()?;
                    let ether_type = at.u16()?;
                    at.take(4 + words * 4)?;
                    return walk_ether_type(ether_type, at, flow, depth.within());
                }
                _ => {}
            }
        }
        132 | 136 => ports(at, flow)?,
        1 | 58 => {
            let (kind, code) = (at.u8()?, at.u8()?);
            flow.src_port = Some(0);
            flow.dst_port = Some(u16::from(kind) << 8 | u16::from(code));
            (flow.icmp_type, flow.icmp_code) = (Some(kind), Some(code));
        }
        4 | 41 if is_routed && depth.tunnels.srv6 || !is_routed && depth.tunnels.ip_in_ip => {
            return walk_ip(at, flow, depth.within());
        }
        47 if depth.tunnels.gre => {
            let flags = at.u16()?;
            let ether_type = at.u16()?;
            // Checksum, key, sequence, and PPTP's acknowledgement: four bytes each where their bits are set.
            for bit in [0x8000, 0x2000, 0x1000, 0x0080] {
                if flags & bit != 0 {
                    at.take(4)?;
                }
            }
            // ERSPAN of type I has neither a sequence nor a header.
            if ether_type == ETHER_ERSPAN_2 && flags & 0x1000 == 0 {
                return walk_ethernet(at, flow, depth.within());
            }
            return walk_ether_type(ether_type, at, flow, depth.within());
        }
        _ => {}
    }
    Ok(())
}

/// RFC 4302: what follows, and how long it is in words of four bytes, less two.
fn authentication(at: &mut Cursor<'_>) -> Result<u8, Truncated> {
    let (next, words) = (at.u8()?, usize::from(at.u8()?));
    at.take(words * 4 + 6)?;
    Ok(next)
}

fn ports(at: &mut Cursor<'_>, flow: &mut Flow) -> Result<(), Truncated> {
    flow.src_port = Some(at.u16()?);
    flow.dst_port = Some(at.u16()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp_in_ipv4() -> Vec<u8> {
        let mut p = hex::decode("4500003c1c4640004006b1e6c0a80001c0a800c7").unwrap();
        p.extend(hex::decode("01bbc350000000000000000050120000").unwrap());
        p
    }

    fn check(bytes: &[u8], vlan: Option<u16>) {
        let mut flow = Flow::default();
        ethernet(bytes, Tunnels::ALL, &mut flow);
        assert_eq!(flow.src_ip, "192.168.0.1".parse().ok());
        assert_eq!((flow.src_port, flow.dst_port, flow.tcp_flags), (Some(443), Some(50000), Some(0x12)));
        assert_eq!(flow.vlan, vlan);
        for n in 0..bytes.len() {
            ethernet(&bytes[..n], Tunnels::ALL, &mut Flow::default());
        }
    }

    #[test]
    fn every_encapsulation_ends_at_the_same_ports() {
        let macs = [0u8; 12];
        let ip = tcp_in_ipv4();
        let plain = [&macs[..], &[8, 0], &ip].concat();
        check(&plain, None);
        check(&[&macs[..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 0], &ip].concat(), Some(7));
        check(&[&macs[..], &[0x91, 0, 0, 5, 0x81, 0, 0, 7, 8, 0], &ip].concat(), Some(7));
        let labels = [0x88, 0x47, 0, 1, 0, 64, 0, 2, 0x11, 64];
        check(&[&macs[..], &labels, &ip].concat(), None);
        check(&[&macs[..], &[0x88, 0x48, 0, 2, 0x11, 64], &ip].concat(), None);
        // Pseudowires: with a control word, and without.
        check(&[&macs[..], &labels, &[0, 0, 0, 1], &plain].concat(), None);
        check(&[&macs[..], &labels, &[0xee; 12], &[8, 0], &ip].concat(), None);
        check(&[&macs[..], &[0x88, 0x64, 0x11, 0, 0, 1, 0, 62, 0, 0x21], &ip].concat(), None);
        check(&[&macs[..], &[0, 68, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ip].concat(), None);
        check(&[&macs[..], &[0x88, 0xe7, 0, 0, 0, 1], &plain].concat(), None);
        let gre = [
            &hex::decode("45000000000000004 02f0000".replace(' ', "")).unwrap()[..],
            &[1, 1, 1, 1, 2, 2, 2, 2],
            &[0, 0, 8, 0],
            &ip,
        ]
        .concat();
        check(&[&macs[..], &[8, 0], &gre].concat(), None);
        let around = |protocol: u8, inner: &[&[u8]]| {
            let mut outer = hex::decode("4500000000000000400001010101010102020202").unwrap();
            outer[9] = protocol;
            [&macs[..], &[8, 0], &outer, &inner.concat()].concat()
        };
        let udp = |port: u16| [&[0xff, 0xff][..], &port.to_be_bytes(), &[0, 0, 0, 0]].concat();
        for port in [4789, 8472] {
            check(&around(17, &[&udp(port), &[8, 0, 0, 0, 0, 0, 1, 0], &plain]), None);
        }
        check(&around(17, &[&udp(6081), &[2, 0, 0x65, 0x58, 0, 0, 1, 0], &[0; 8], &plain]), None);
        check(&around(17, &[&udp(6081), &[0, 0, 8, 0, 0, 0, 1, 0], &ip]), None);
        // GRE: PPP with sequence and acknowledgement, ERSPAN of three types.
        check(&around(47, &[&[0x30, 0x81, 0x88, 0x0b, 0, 9, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 3, 0x21], &ip]), None);
        check(&around(47, &[&[0, 0, 0x88, 0xbe], &plain]), None);
        check(&around(47, &[&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1], &[0; 8], &plain]), None);
        check(&around(47, &[&[0x10, 0, 0x22, 0xeb, 0, 0, 0, 1], &[0; 12], &plain]), None);
        // IP in IP behind an authentication header, of both versions.
        check(&around(51, &[&[4, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], &[0; 12], &ip]), None);
        let v6 = [&hex::decode("600000000000003c").unwrap()[..], &[0xfe; 32], &[0, 0, 0, 0, 0, 0, 0, 0]].concat();
        let mut hop_by_hop = v6.clone();
        hop_by_hop[40] = 4;
        check(&[&macs[..], &[0x86, 0xdd], &hop_by_hop, &ip].concat(), None);
        let mut authenticated = v6;
        (authenticated[6], authenticated[40], authenticated[41]) = (51, 4, 1);
        check(&[&macs[..], &[0x86, 0xdd], &authenticated, &[0; 4], &ip].concat(), None);
    }

    #[test]
    fn what_is_read_is_of_one_packet() {
        let outer = hex::decode("450000000000000040110101010101010202020200350035000000000800000000000100").unwrap();
        let vxlan = |inner: &[u8]| {
            let mut bytes = outer.clone();
            bytes[22..24].copy_from_slice(&4789u16.to_be_bytes());
            [&bytes, inner].concat()
        };
        let mut flow = Flow::default();
        ip(&vxlan(&[&[0u8; 12][..], &[8, 0], &tcp_in_ipv4()[..20]].concat()), Tunnels::ALL, &mut flow);
        assert_eq!((flow.src_ip, flow.src_port, flow.protocol), ("192.168.0.1".parse().ok(), None, Some(6)));
        // An IPv6 packet that is cut within its addresses tells none.
        let cut = [&[0u8; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64], &[0xfe; 20]].concat();
        let mut flow = Flow::default();
        ip(&vxlan(&cut), Tunnels::ALL, &mut flow);
        assert_eq!((flow.src_ip, flow.dst_ip), ("1.1.1.1".parse().ok(), "2.2.2.2".parse().ok()));
        // What a tunnel has in it and nobody reads does not change of what kind the packet is.
        let mut gre = outer[..20].to_vec();
        gre[9] = 47;
        let mut flow = Flow::default();
        ip(&[&gre[..], &[0, 0, 0x12, 0x34, 1, 2, 3]].concat(), Tunnels::ALL, &mut flow);
        assert_eq!((flow.ether_type, flow.protocol), (Some(ETHER_IPV4), Some(47)));
    }

    #[test]
    fn tunnels_are_entered_that_are_to_be() {
        let ip_in = tcp_in_ipv4();
        let outer = |protocol: u8, inner: &[&[u8]]| {
            let mut outer = hex::decode("4500000000000000400001010101010102020202").unwrap();
            outer[9] = protocol;
            [&outer[..], &inner.concat()].concat()
        };
        let frame = [&[0; 12][..], &[8, 0], &ip_in].concat();
        let vxlan = [0xff, 0xff, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 1, 0];
        let geneve = [0xff, 0xff, 0x17, 0xc1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0];
        // Next is IPv4; a segment routing header of one segment.
        let routed = [
            &hex::decode("6000000000002b40").unwrap()[..],
            &[0xfe; 32],
            &[4, 2, 4, 0, 0, 0, 0, 0],
            &[0xfe; 16],
            &ip_in,
        ];
        let carried = [
            ("vxlan", outer(17, &[&vxlan, &frame])),
            ("vxlan", outer(17, &[&geneve, &ip_in])),
            ("gre", outer(47, &[&[0, 0, 8, 0], &ip_in])),
            ("ipip", outer(4, &[&ip_in])),
            ("srv6", routed.concat()),
        ];
        let inner: IpAddr = "192.168.0.1".parse().unwrap();
        let names = ["vxlan", "gre", "ipip", "mpls", "srv6"].map(str::to_owned);
        for (name, bytes) in &carried {
            for only in &names {
                let mut flow = Flow::default();
                ip(bytes, Tunnels::named(std::slice::from_ref(only)).unwrap(), &mut flow);
                assert_eq!(flow.src_ip == Some(inner), only == name, "{name} with {only}");
                assert!(flow.src_ip.is_some(), "{name} with {only}");
            }
        }
        // Below labels a frame is another's, a packet is the packet itself.
        for (below, is_entered) in [(&[&[0, 0, 0, 1][..], &frame].concat(), false), (&ip_in, true)] {
            let mut flow = Flow::default();
            mpls(&[&[0, 2, 0x11, 64][..], below].concat(), Tunnels::NONE, &mut flow);
            assert_eq!((flow.src_ip == Some(inner), flow.labels.len()), (is_entered, 1));
        }
        assert_eq!(Tunnels::named(&["vxlan".to_owned(), "ipsec".to_owned()]), Err("ipsec"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(noise: Vec<u8>, kind in 0usize..20) {
            let kinds = [0x8100u16, 0x88a8, 0x8847, 0x8864, 0x88e7, 0x0800, 0x86dd, 0x6558, 0x880b, 0x22eb, 0x0040];
            let bytes = [&[0u8; 12][..], &kinds[kind % kinds.len()].to_be_bytes(), &noise].concat();
            ethernet(&bytes, Tunnels::ALL, &mut Flow::default());
            ip(&noise, Tunnels::ALL, &mut Flow::default());
        }
    }
}
