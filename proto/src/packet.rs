//! What a sampled packet's first bytes say: Ethernet through VLAN, QinQ, MPLS, GRE and VXLAN to addresses and ports.
//!
//! Headers are cut off by the sampler at any byte, so every layer is optional: what was read stays, what is missing
//! stays missing. Tunnels are entered, and the innermost addresses win, at most [`MAX_LAYERS`] deep.

use std::net::IpAddr;

use crate::flow::Flow;
use crate::wire::{Cursor, Truncated};

/// Headers entered before giving up.
pub const MAX_LAYERS: usize = 16;

const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
const ETHER_VLAN: u16 = 0x8100;
const ETHER_QINQ: u16 = 0x88a8;
const ETHER_MPLS: u16 = 0x8847;
const ETHER_BRIDGE: u16 = 0x6558;
const VXLAN_PORT: u16 = 4789;

/// Fills `flow` from an Ethernet frame.
pub fn ethernet(bytes: &[u8], flow: &mut Flow) {
    let _ = walk_ethernet(&mut Cursor::new(bytes), flow, MAX_LAYERS);
}

/// Fills `flow` from an IPv4 or IPv6 packet.
pub fn ip(bytes: &[u8], flow: &mut Flow) {
    let _ = walk_ip(&mut Cursor::new(bytes), flow, MAX_LAYERS);
}

fn mac(at: &mut Cursor<'_>) -> Result<[u8; 6], Truncated> {
    let mut mac = [0; 6];
    mac.copy_from_slice(at.take(6)?);
    Ok(mac)
}

fn walk_ethernet(at: &mut Cursor<'_>, flow: &mut Flow, layers: usize) -> Result<(), Truncated> {
    flow.dst_mac = Some(mac(at)?);
    flow.src_mac = Some(mac(at)?);
    let ether_type = at.u16()?;
    walk_ether_type(ether_type, at, flow, layers)
}

fn walk_ether_type(mut ether_type: u16, at: &mut Cursor<'_>, flow: &mut Flow, layers: usize) -> Result<(), Truncated> {
    for _ in 0..layers {
        flow.ether_type = Some(ether_type);
        match ether_type {
            ETHER_VLAN | ETHER_QINQ => {
                flow.vlan = Some(at.u16()? & 0x0fff);
                ether_type = at.u16()?;
            }
            ETHER_MPLS => {
                while at.u32()? & 0x100 == 0 {}
                return walk_ip(at, flow, layers - 1);
            }
            ETHER_IPV4 | ETHER_IPV6 => return walk_ip(at, flow, layers - 1),
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn walk_ip(at: &mut Cursor<'_>, flow: &mut Flow, layers: usize) -> Result<(), Truncated> {
    let Some(first) = at.rest().first() else { return Ok(()) };
    let protocol = match first >> 4 {
        4 => {
            let header = usize::from(first & 15) * 4;
            let mut ip = at.sub(header.max(20))?;
            ip.u8()?;
            flow.tos = Some(ip.u8()?);
            ip.take(4)?;
            let fragment = ip.u16()? & 0x1fff;
            ip.u8()?;
            let protocol = ip.u8()?;
            ip.u16()?;
            flow.src_ip = Some(IpAddr::from(ip.u32()?.to_be_bytes()));
            flow.dst_ip = Some(IpAddr::from(ip.u32()?.to_be_bytes()));
            flow.protocol = Some(protocol);
            flow.ether_type = Some(ETHER_IPV4);
            if fragment != 0 {
                return Ok(());
            }
            protocol
        }
        6 => {
            let word = at.u32()?;
            flow.tos = Some((word >> 20) as u8);
            at.u16()?;
            let mut next = at.u8()?;
            at.u8()?;
            let mut address = || -> Result<IpAddr, Truncated> {
                let mut octets = [0; 16];
                octets.copy_from_slice(at.take(16)?);
                Ok(octets.into())
            };
            flow.src_ip = Some(address()?);
            flow.dst_ip = Some(address()?);
            flow.ether_type = Some(ETHER_IPV6);
            flow.protocol = Some(next);
            // Hop-by-hop, routing, destination options; a fragment's header is eight bytes.
            for _ in 0..MAX_LAYERS {
                match next {
                    0 | 43 | 60 => {
                        next = at.u8()?;
                        let n = usize::from(at.u8()?);
                        at.take(6 + n * 8)?;
                    }
                    44 => {
                        next = at.u8()?;
                        at.u8()?;
                        let offset = at.u16()? >> 3;
                        at.u32()?;
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
    if layers == 0 {
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
            if flow.dst_port == Some(VXLAN_PORT) {
                at.take(8)?;
                return walk_ethernet(at, flow, layers - 1);
            }
        }
        132 | 136 => ports(at, flow)?,
        1 | 58 => {
            let (kind, code) = (at.u8()?, at.u8()?);
            flow.src_port = Some(0);
            flow.dst_port = Some(u16::from(kind) << 8 | u16::from(code));
        }
        4 | 41 => return walk_ip(at, flow, layers - 1),
        47 => {
            let flags = at.u16()?;
            let ether_type = at.u16()?;
            // Checksum, key, sequence: four bytes each where their bits are set.
            for bit in [0x8000, 0x2000, 0x1000] {
                if flags & bit != 0 {
                    at.take(4)?;
                }
            }
            return match ether_type {
                ETHER_BRIDGE => walk_ethernet(at, flow, layers - 1),
                other => walk_ether_type(other, at, flow, layers - 1),
            };
        }
        _ => {}
    }
    Ok(())
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
        ethernet(bytes, &mut flow);
        assert_eq!(flow.src_ip, "192.168.0.1".parse().ok());
        assert_eq!((flow.src_port, flow.dst_port, flow.tcp_flags), (Some(443), Some(50000), Some(0x12)));
        assert_eq!(flow.vlan, vlan);
        for n in 0..bytes.len() {
            ethernet(&bytes[..n], &mut Flow::default());
        }
    }

    #[test]
    fn every_encapsulation_ends_at_the_same_ports() {
        let macs = [0u8; 12];
        let ip = tcp_in_ipv4();
        let plain = [&macs[..], &[8, 0], &ip].concat();
        check(&plain, None);
        check(&[&macs[..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 0], &ip].concat(), Some(7));
        check(&[&macs[..], &[0x88, 0x47, 0, 1, 0, 64, 0, 2, 0x11, 64], &ip].concat(), None);
        let gre = [
            &hex::decode("45000000000000004 02f0000".replace(' ', "")).unwrap()[..],
            &[1, 1, 1, 1, 2, 2, 2, 2],
            &[0, 0, 8, 0],
            &ip,
        ]
        .concat();
        check(&[&macs[..], &[8, 0], &gre].concat(), None);
        let outer = [
            &hex::decode("4500000000000000401100000101010102020202").unwrap()[..],
            &[0xff, 0xff, 0x12, 0xb5, 0, 0, 0, 0],
            &[8, 0, 0, 0, 0, 0, 1, 0],
            &plain,
        ]
        .concat();
        check(&[&macs[..], &[8, 0], &outer].concat(), None);
    }
}
