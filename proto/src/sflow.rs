//! sFlow version 5 (sflow.org, "sFlow Version 5", July 2004; "sFlow Dropped Packet Notification Structures", 2020): datagrams
//! to flows and counters.
//!
//! | samples | become |
//! |---|---|
//! | flow, normal and expanded | a flow each: of the packet's header ([`crate::packet`]), sampled IPv4 and IPv6, and of what the switch, router, gateway, user, MPLS, NAT and VLAN records add |
//! | discarded packets | a flow each, with the reason |
//! | counters, normal and expanded | what each interface counted |
//!
//! Records of other formats are skipped by their length, so one does not hide the next; of flows they are kept under their
//! number.

mod records;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use thiserror::Error;

use crate::flow::{Flow, SamplingSource};
use crate::packet::Tunnels;
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
    /// A sample of a format that is not read.
    #[error("samples of format {0}.{1} are not read")]
    Sample(u32, u32),
    /// A sample of counters, none of which are of an interface.
    #[error("counters of format {0}.{1} are not read")]
    Counters(u32, u32),
}

/// A datagram whose header is read.
#[derive(Clone, Debug)]
pub struct Datagram<'a> {
    /// The agent's address: the exporter.
    pub agent: IpAddr,
    /// Which of its sub-agents.
    pub sub_agent: u32,
    /// Datagrams it sent so far.
    pub sequence: u32,
    samples: u32,
    at: Cursor<'a>,
}

/// What an interface counted since it started (RFC 2863, as sFlow's `if_counters` has it); nothing where it does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// `ifIndex`.
    pub index: u32,
    /// `ifType`.
    pub kind: u32,
    /// `ifSpeed`, bits per second.
    pub speed_bps: u64,
    /// 1 full duplex, 2 half duplex, 3 in, 4 out.
    pub direction: u32,
    /// `ifAdminStatus` is up.
    pub is_admin_up: bool,
    /// `ifOperStatus` is up.
    pub is_oper_up: bool,
    /// `ifInOctets`.
    pub in_bytes: u64,
    /// `ifInUcastPkts`, `ifInMulticastPkts`, `ifInBroadcastPkts`, `ifInDiscards`, `ifInErrors`, `ifInUnknownProtos`.
    pub input: [Option<u32>; 6],
    /// `ifOutOctets`.
    pub out_bytes: u64,
    /// `ifOutUcastPkts`, `ifOutMulticastPkts`, `ifOutBroadcastPkts`, `ifOutDiscards`, `ifOutErrors`.
    pub output: [Option<u32>; 5],
    /// `ifPromiscuousMode`.
    pub is_promiscuous: bool,
}

/// What a sample brought.
#[derive(Debug)]
pub enum Sample<'a> {
    /// A flow of one packet.
    Flow(&'a Flow),
    /// Counters of one interface.
    Counters(&'a InterfaceCounters),
}

/// Takes what samples bring.
pub type SampleSink<'a> = dyn FnMut(Sample<'_>) + 'a;

/// What the samples of a datagram brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Flows that were handed on.
    pub flows: u32,
    /// Interfaces whose counters were handed on.
    pub counters: u32,
    /// What could not be read; the other samples were.
    pub errors: Vec<SFlowError>,
}

impl<'a> Datagram<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`SFlowError`] where it is cut off or its version is not 5.
    pub fn new(bytes: &'a [u8]) -> Result<Self, SFlowError> {
        let mut at = Cursor::new(bytes);
        let version = at.u32()?;
        if version != 5 {
            return Err(SFlowError::Version(version));
        }
        let agent = address(&mut at)?.ok_or(SFlowError::AddressType(0))?;
        let (sub_agent, sequence) = (at.u32()?, at.u32()?);
        at.u32()?;
        let samples = at.u32()?;
        Ok(Datagram { agent, sub_agent, sequence, samples, at })
    }

    /// Decodes the samples, in whose packets those are entered that `tunnels` say; what they bring goes to `out` in their order.
    pub fn decode(mut self, tunnels: Tunnels, out: &mut SampleSink<'_>) -> Decoded {
        let mut told = Decoded::default();
        let mut flow = Flow::default();
        for _ in 0..self.samples {
            let (format, mut body) = match records::next(&mut self.at) {
                Ok(sample) => sample,
                // Where the next would begin is not known.
                Err(error) => {
                    told.errors.push(error.into());
                    break;
                }
            };
            flow.clear();
            flow.domain = Some(self.sub_agent);
            if let Err(error) = sample(format, &mut body, tunnels, &mut flow, &mut told, out) {
                told.errors.push(error);
            }
        }
        told
    }
}

fn sample(
    format: u32,
    at: &mut Cursor<'_>,
    tunnels: Tunnels,
    flow: &mut Flow,
    told: &mut Decoded,
    out: &mut SampleSink<'_>,
) -> Result<(), SFlowError> {
    match format {
        1 | 3 => flow_sample(at, format == 3, tunnels, flow)?,
        5 => discarded(at, tunnels, flow)?,
        2 | 4 => return counters_sample(at, format == 4, told, out),
        _ => return Err(SFlowError::Sample(format >> 12, format & 0xfff)),
    }
    told.flows += 1;
    out(Sample::Flow(flow));
    Ok(())
}

fn flow_sample(at: &mut Cursor<'_>, expanded: bool, tunnels: Tunnels, flow: &mut Flow) -> Result<(), SFlowError> {
    at.u32()?;
    let source = if expanded { at.u32()? << 24 | at.u32()? & 0x00ff_ffff } else { at.u32()? };
    let rate = at.u32()?;
    at.take(8)?;
    // Interfaces: the compact form packs a format into the upper two bits.
    let interface = |at: &mut Cursor<'_>| -> Result<(u32, u32), Truncated> {
        if expanded { Ok((at.u32()?, at.u32()?)) } else { at.u32().map(|n| (n >> 30, n & 0x3fff_ffff)) }
    };
    let (input, output) = (interface(at)?, interface(at)?);
    flow.packets = 1;
    flow.sampler_id = Some(u64::from(source));
    (flow.in_if, flow.out_if) = (index(input), index(output));
    // The output of a packet that was dropped is the reason.
    flow.discard_reason = (output.0 == 1).then_some(output.1);
    flow.sampling = (rate > 0).then_some((u64::from(rate), SamplingSource::Record));
    records::read(at, tunnels, flow)
}

/// A packet that was dropped: all of them are told of, unless there are too many.
fn discarded(at: &mut Cursor<'_>, tunnels: Tunnels, flow: &mut Flow) -> Result<(), SFlowError> {
    at.u32()?;
    let source = at.u32()? << 24 | at.u32()? & 0x00ff_ffff;
    // Those that were too many.
    at.u32()?;
    let (input, output, reason) = (at.u32()?, at.u32()?, at.u32()?);
    flow.packets = 1;
    flow.sampler_id = Some(u64::from(source));
    (flow.in_if, flow.out_if) = (index((0, input)), index((0, output)));
    flow.discard_reason = Some(reason);
    // Each is told of: no rate that is known otherwise is theirs.
    flow.sampling = Some((1, SamplingSource::Record));
    records::read(at, tunnels, flow)
}

/// An interface; all ones are "unknown" in either form.
fn index((format, value): (u32, u32)) -> Option<u32> {
    (format == 0 && value != 0x3fff_ffff && value != u32::MAX).then_some(value)
}

fn counters_sample(
    at: &mut Cursor<'_>,
    expanded: bool,
    told: &mut Decoded,
    out: &mut SampleSink<'_>,
) -> Result<(), SFlowError> {
    at.take(if expanded { 12 } else { 8 })?;
    let (mut read, mut other) = (false, None);
    for _ in 0..at.u32()? {
        let (format, mut record) = records::next(at)?;
        match format {
            1 => {
                let counters = if_counters(&mut record)?;
                told.counters += 1;
                read = true;
                out(Sample::Counters(&counters));
            }
            _ => other = Some(format),
        }
    }
    match other.filter(|_| !read) {
        Some(format) => Err(SFlowError::Counters(format >> 12, format & 0xfff)),
        None => Ok(()),
    }
}

fn if_counters(at: &mut Cursor<'_>) -> Result<InterfaceCounters, Truncated> {
    let mut counters =
        InterfaceCounters { index: at.u32()?, kind: at.u32()?, speed_bps: at.u64()?, ..Default::default() };
    counters.direction = at.u32()?;
    let status = at.u32()?;
    (counters.is_admin_up, counters.is_oper_up) = (status & 1 != 0, status & 2 != 0);
    // All ones: it is not counted.
    let counter = |at: &mut Cursor<'_>| at.u32().map(|n| Some(n).filter(|n| *n != u32::MAX));
    counters.in_bytes = at.u64()?;
    for slot in &mut counters.input {
        *slot = counter(at)?;
    }
    counters.out_bytes = at.u64()?;
    for slot in &mut counters.output {
        *slot = counter(at)?;
    }
    counters.is_promiscuous = at.u32()? == 1;
    Ok(counters)
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
