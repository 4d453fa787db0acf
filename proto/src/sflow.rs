//! sFlow version 5 (sflow.org, "sFlow Version 5", July 2004): datagrams to flows.
//!
//! Flow samples, normal and expanded, with raw headers (decoded by [`crate::packet`]), sampled IPv4 and IPv6, extended
//! switch, router and gateway data. Counter samples are counted. Records of unknown format are skipped by their length,
//! so one does not hide the next.

use std::net::IpAddr;

use thiserror::Error;

use crate::flow::{Flow, SamplingSource};
use crate::packet;
use crate::wire::{Cursor, Truncated};

/// Why a datagram could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SFlowError {
    /// It ends early.
    #[error("{0}")]
    Truncated(#[from] Truncated),
    /// Not version 5.
    #[error("sFlow version {0} is not 5")]
    Version(u32),
    /// The agent's address is of no known family.
    #[error("unknown address type {0}")]
    AddressType(u32),
}

/// What one datagram brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The agent's address: the exporter.
    pub agent: IpAddr,
    /// Which of its sub-agents.
    pub sub_agent: u32,
    /// Datagrams it sent so far.
    pub sequence: u32,
    /// The flows.
    pub flows: Vec<Flow>,
    /// Counter samples seen.
    pub counter_samples: u32,
    /// A sample that could not be read; those before it were.
    pub error: Option<SFlowError>,
}

/// Decodes one datagram.
///
/// # Errors
/// [`SFlowError`] where the header is cut off or its version is not 5. What is wrong with one sample is in
/// [`Decoded::error`], and those before it are decoded.
pub fn decode(bytes: &[u8]) -> Result<Decoded, SFlowError> {
    let mut at = Cursor::new(bytes);
    let version = at.u32()?;
    if version != 5 {
        return Err(SFlowError::Version(version));
    }
    let agent = address(&mut at)?.ok_or(SFlowError::AddressType(0))?;
    let (sub_agent, sequence) = (at.u32()?, at.u32()?);
    at.u32()?;
    let samples = at.u32()?;
    let mut out = Decoded { agent, sub_agent, sequence, flows: Vec::new(), counter_samples: 0, error: None };
    for _ in 0..samples {
        if let Err(error) = sample(&mut at, &mut out) {
            out.error = Some(error);
            break;
        }
    }
    Ok(out)
}

fn sample(at: &mut Cursor<'_>, out: &mut Decoded) -> Result<(), SFlowError> {
    let (format, length) = (at.u32()?, at.u32()? as usize);
    let mut body = at.sub(length)?;
    match format {
        1 | 3 => out.flows.push(flow_sample(&mut body, format == 3)?),
        2 | 4 => out.counter_samples += 1,
        _ => {}
    }
    Ok(())
}

fn flow_sample(at: &mut Cursor<'_>, expanded: bool) -> Result<Flow, SFlowError> {
    at.u32()?;
    at.take(if expanded { 8 } else { 4 })?;
    let rate = at.u32()?;
    at.take(8)?;
    // Interfaces: the compact form packs a format into the upper two bits; 0x3fffffff is "unknown" in both.
    let interface = |at: &mut Cursor<'_>| -> Result<Option<u32>, Truncated> {
        let (format, value) =
            if expanded { (at.u32()?, at.u32()?) } else { at.u32().map(|n| (n >> 30, n & 0x3fff_ffff))? };
        Ok((format == 0 && value != 0x3fff_ffff && value != u32::MAX).then_some(value))
    };
    let mut flow = Flow { packets: 1, ..Flow::default() };
    flow.in_if = interface(at)?;
    flow.out_if = interface(at)?;
    flow.sampling = (rate > 0).then_some((u64::from(rate), SamplingSource::Record));
    for _ in 0..at.u32()? {
        let (format, length) = (at.u32()?, at.u32()? as usize);
        let mut record = at.sub(length)?;
        // XDR pads to four bytes.
        let _ = at.take((4 - length % 4) % 4);
        // A record that ends early tells less; the others still count.
        let _ = flow_record(format, &mut record, &mut flow);
    }
    Ok(flow)
}

fn flow_record(format: u32, at: &mut Cursor<'_>, flow: &mut Flow) -> Result<(), SFlowError> {
    match format {
        1 => {
            let protocol = at.u32()?;
            flow.l2_bytes = u64::from(at.u32()?);
            at.u32()?;
            let n = at.u32()? as usize;
            let header = at.take(n.min(at.remaining()))?;
            match protocol {
                1 => packet::ethernet(header, flow),
                11 | 12 => packet::ip(header, flow),
                _ => {}
            }
        }
        2 => {
            flow.l2_bytes = u64::from(at.u32()?);
            let mut mac = [0; 6];
            mac.copy_from_slice(at.take(6)?);
            flow.src_mac = Some(mac);
            at.take(2)?;
            mac.copy_from_slice(at.take(6)?);
            flow.dst_mac = Some(mac);
            at.take(2)?;
            flow.ether_type = Some(at.u32()? as u16);
        }
        3 | 4 => {
            flow.bytes = u64::from(at.u32()?);
            flow.protocol = Some(at.u32()? as u8);
            let mut ip = || -> Result<IpAddr, Truncated> {
                if format == 3 {
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
        }
        1001 => {
            let vlan = at.u32()?;
            flow.vlan = u16::try_from(vlan).ok().filter(|v| *v > 0).or(flow.vlan);
        }
        1002 => flow.next_hop = address(at)?,
        1003 => {
            flow.next_hop = address(at)?.or(flow.next_hop);
            at.u32()?;
            flow.src_as = Some(at.u32()?);
            at.u32()?;
            // The destination is the last AS of the last segment of the path.
            for _ in 0..at.u32()? {
                at.u32()?;
                for _ in 0..at.u32()? {
                    flow.dst_as = Some(at.u32()?);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn address(at: &mut Cursor<'_>) -> Result<Option<IpAddr>, SFlowError> {
    match at.u32()? {
        0 => Ok(None),
        1 => Ok(Some(IpAddr::from(at.u32()?.to_be_bytes()))),
        2 => {
            let mut octets = [0; 16];
            octets.copy_from_slice(at.take(16)?);
            Ok(Some(octets.into()))
        }
        other => Err(SFlowError::AddressType(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(w: &[u32]) -> Vec<u8> {
        w.iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    fn datagram() -> Vec<u8> {
        let mut header = hex::decode("0000000000020000000000010800").unwrap();
        header.extend(hex::decode("4500003c1c4640004006b1e60a0000010a000002").unwrap());
        header.extend([0, 80, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18]);
        while !header.len().is_multiple_of(4) {
            header.push(0);
        }
        let mut raw = words(&[1, 1500, 4, header.len() as u32]);
        raw.extend(&header);
        let mut body = words(&[7, 1, 512, 0, 0, 3, 0x3fff_ffff, 2, 9999, 4, 0, 1, raw.len() as u32]);
        body.extend(raw);
        let mut d = words(&[5, 1, 0x7f00_0009, 0, 42, 1000, 2, 2, 4, 0, 1, body.len() as u32]);
        d.extend(body);
        d
    }

    #[test]
    fn a_raw_header_becomes_a_flow() {
        let got = decode(&datagram()).unwrap();
        assert_eq!((got.agent, got.sequence, got.counter_samples), ("127.0.0.9".parse().unwrap(), 42, 1));
        let flow = &got.flows[0];
        assert_eq!((flow.src_port, flow.dst_port, flow.protocol), (Some(80), Some(49152), Some(6)));
        assert_eq!((flow.in_if, flow.out_if), (Some(3), None));
        assert_eq!((flow.l2_bytes, flow.sampling), (1500, Some((512, SamplingSource::Record))));
    }

    #[test]
    fn counts_that_are_more_than_there_is_cost_no_more_than_there_is() {
        let all = u32::MAX;
        // Samples, records of a sample, segments of an AS path, ASes of a segment.
        let path = words(&[1, 0x0a00_0001, 1, 2, 3, all, 2, all, 65_001]);
        let mut body = words(&[7, 1, 512, 0, 0, 3, 4, all, 1003, path.len() as u32]);
        body.extend(path);
        let mut d = words(&[5, 1, 0x7f00_0009, 0, 42, 1000, all, 1, body.len() as u32]);
        d.extend(body);
        let got = decode(&d).unwrap();
        assert_eq!((got.flows.len(), got.error.is_some()), (0, true));
        assert!(got.flows.capacity() <= d.len());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(noise: Vec<u8>, cut in 0usize..220, flip in 0usize..220, bit in 0u8..8) {
            let _ = decode(&noise);
            let mut d = datagram();
            d.truncate(cut);
            if let Some(b) = d.get_mut(flip) { *b ^= 1 << bit; }
            let _ = decode(&d);
            for claimed in [noise.clone(), words(&[5, 1, 1, 0, 0, 0, u32::MAX])] {
                let d = [claimed, noise.clone()].concat();
                // A flow sample has forty bytes at least.
                assert!(decode(&d).is_ok_and(|got| got.flows.len() * 40 <= d.len()) || decode(&d).is_err());
            }
        }
    }
}
