//! The records of a flow sample: what each adds to the flow.

use std::net::IpAddr;

use super::{SFlowError, address};
use crate::flow::{Flow, MAX_LABELS};
use crate::packet::{self, Tunnels};
use crate::wire::{Cursor, Truncated};

/// What is decided once all records are read, so that their order does not matter.
#[derive(Default)]
struct Said {
    /// The VLANs that the switch took it in and sent it out by.
    switched: Option<(u32, u32)>,
}

/// The next record: its format and what it holds. XDR pads it to four bytes.
pub(super) fn next<'a>(at: &mut Cursor<'a>) -> Result<(u32, Cursor<'a>), Truncated> {
    let (format, length) = (at.u32()?, at.u32()? as usize);
    let record = at.sub(length)?;
    let _ = at.take((4 - length % 4) % 4);
    Ok((format, record))
}

/// Reads the records of a sample into its flow.
pub(super) fn read(at: &mut Cursor<'_>, tunnels: Tunnels, flow: &mut Flow) -> Result<(), SFlowError> {
    let mut said = Said::default();
    for _ in 0..at.u32()? {
        let (format, mut record) = next(at)?;
        // A record that ends early tells less; the others still count.
        let _ = flow_record(format, &mut record, tunnels, flow, &mut said);
    }
    if let Some((src, dst)) = said.switched {
        let vlan = |id: u32| u16::try_from(id).ok().filter(|id| (1..0x0fff).contains(id));
        flow.vlan = vlan(src).or(flow.vlan).or(vlan(dst));
        flow.src_vlan = vlan(src).or(flow.src_vlan);
        flow.dst_vlan = vlan(dst);
    }
    Ok(())
}

fn flow_record(
    format: u32,
    at: &mut Cursor<'_>,
    tunnels: Tunnels,
    flow: &mut Flow,
    said: &mut Said,
) -> Result<(), SFlowError> {
    match format {
        1 => {
            let protocol = at.u32()?;
            flow.l2_bytes = Some(at.u32()?.into());
            at.u32()?;
            let n = at.u32()? as usize;
            let header = at.take(n.min(at.remaining()))?;
            match protocol {
                1 => packet::ethernet(header, tunnels, flow),
                7 | 14 => packet::ppp(header, tunnels, flow),
                11 | 12 => packet::ip(header, tunnels, flow),
                13 => packet::mpls(header, tunnels, flow),
                _ => {}
            }
        }
        2 => {
            let bytes = u64::from(at.u32()?);
            flow.l2_bytes = flow.l2_bytes.or(Some(bytes));
            flow.src_mac = Some(mac(at)?);
            flow.dst_mac = Some(mac(at)?);
            flow.ether_type = Some(at.u32()? as u16);
        }
        3 | 4 => sampled_ip(at, format == 4, flow)?,
        1001 => {
            let src = at.u32()?;
            at.u32()?;
            said.switched = Some((src, at.u32()?));
        }
        1002 => {
            flow.next_hop = address(at)?;
            flow.src_prefix = Some(at.u32()? as u8);
            flow.dst_prefix = Some(at.u32()? as u8);
        }
        1003 => gateway(at, flow)?,
        1004 => {
            at.u32()?;
            text(at, &mut flow.src_user)?;
            at.u32()?;
            text(at, &mut flow.dst_user)?;
        }
        1006 => {
            address(at)?;
            // The stack it came in with; where it had none, the one it left with.
            for _ in 0..2 {
                let is_first = flow.labels.is_empty();
                for _ in 0..at.u32()? {
                    let entry = at.u32()?;
                    if is_first && flow.labels.len() < MAX_LABELS {
                        flow.labels.push(entry >> 12);
                    }
                }
            }
        }
        1007 => (flow.src_nat_ip, flow.dst_nat_ip) = (address(at)?, address(at)?),
        1020 => (flow.src_nat_port, flow.dst_nat_port) = (Some(at.u32()? as u16), Some(at.u32()? as u16)),
        1012 => {
            // Tags that were taken off before the header was sampled, the outermost first.
            for n in 0..at.u32()? {
                let id = Some(at.u32()? as u16 & 0x0fff);
                match n {
                    0 => flow.src_vlan = id,
                    1 => flow.customer_vlan = id,
                    _ => {}
                }
            }
        }
        _ => flow.unmapped.push_next(format >> 12, (format & 0xfff) as u16, at.rest()),
    }
    Ok(())
}

fn sampled_ip(at: &mut Cursor<'_>, is_v6: bool, flow: &mut Flow) -> Result<(), Truncated> {
    flow.bytes = Some(at.u32()?.into());
    flow.protocol = Some(at.u32()? as u8);
    let mut ip = || -> Result<IpAddr, Truncated> {
        if !is_v6 {
            return at.u32().map(|n| IpAddr::from(n.to_be_bytes()));
        }
        let mut octets = [0; 16];
        octets.copy_from_slice(at.take(16)?);
        Ok(octets.into())
    };
    flow.src_ip = Some(ip()?);
    flow.dst_ip = Some(ip()?);
    flow.src_port = Some(at.u32()? as u16);
    flow.dst_port = Some(at.u32()? as u16);
    flow.tcp_flags = Some(at.u32()? as u16);
    flow.tos = Some(at.u32()? as u8);
    Ok(())
}

fn gateway(at: &mut Cursor<'_>, flow: &mut Flow) -> Result<(), SFlowError> {
    flow.bgp_next_hop = address(at)?;
    let own = at.u32()?;
    flow.src_as = Some(at.u32()?);
    at.u32()?;
    flow.as_path.clear();
    flow.communities.clear();
    for _ in 0..at.u32()? {
        at.u32()?;
        for _ in 0..at.u32()? {
            flow.as_path.push(at.u32()?);
        }
    }
    // The destination is the last AS of the last segment of the path; where there is none, it is in the router's own.
    flow.dst_as = Some(flow.as_path.last().copied().unwrap_or(own));
    for _ in 0..at.u32()? {
        flow.communities.push(at.u32()?);
    }
    Ok(())
}

fn mac(at: &mut Cursor<'_>) -> Result<[u8; 6], Truncated> {
    let mut mac = [0; 6];
    mac.copy_from_slice(at.take(6)?);
    at.take(2)?;
    Ok(mac)
}

/// XDR: a length, and that many bytes padded to four.
fn text(at: &mut Cursor<'_>, out: &mut String) -> Result<(), Truncated> {
    let n = at.u32()? as usize;
    let bytes = at.take(n)?;
    let _ = at.take((4 - n % 4) % 4);
    crate::flow::text(out, bytes);
    Ok(())
}
