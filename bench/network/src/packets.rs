//! The bytes the network sends: NetFlow v9, IPFIX, sFlow, syslog and traps, as real exporters encode them.

use std::net::Ipv4Addr;

/// What one flow record tells.
#[derive(Clone, Copy, Debug)]
pub struct FlowFields {
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Bytes.
    pub bytes: u32,
    /// Packets.
    pub packets: u32,
}

// src, dst, ports, protocol, flags, bytes, packets, interfaces.
const FIELDS: [(u16, u16); 10] = [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (6, 1), (1, 4), (2, 4), (10, 4), (14, 4)];
const TEMPLATE: u16 = 300;

fn words(out: &mut Vec<u8>, words: &[u16]) {
    out.extend(words.iter().flat_map(|w| w.to_be_bytes()));
}

fn template(set: u16) -> Vec<u8> {
    let mut out = Vec::new();
    words(&mut out, &[set, 8 + 4 * FIELDS.len() as u16, TEMPLATE, FIELDS.len() as u16]);
    for (element, length) in FIELDS {
        words(&mut out, &[element, length]);
    }
    out
}

fn data(flows: &[FlowFields]) -> Vec<u8> {
    let mut out = Vec::new();
    words(&mut out, &[TEMPLATE, 4 + 30 * flows.len() as u16]);
    for f in flows {
        out.extend(f.src.octets());
        out.extend(f.dst.octets());
        words(&mut out, &[f.src_port, f.dst_port]);
        out.extend([6, 0x18]);
        out.extend(f.bytes.to_be_bytes());
        out.extend(f.packets.to_be_bytes());
        out.extend(1u32.to_be_bytes());
        out.extend(2u32.to_be_bytes());
    }
    out
}

/// A NetFlow v9 packet, with the template if asked.
pub fn netflow_v9(flows: &[FlowFields], sequence: u32, now: i64, with_template: bool) -> Vec<u8> {
    let mut out = Vec::new();
    words(&mut out, &[9, flows.len() as u16 + u16::from(with_template)]);
    out.extend([3_600_000u32, now as u32, sequence, 1].iter().flat_map(|n| n.to_be_bytes()));
    if with_template {
        out.extend(template(0));
    }
    out.extend(data(flows));
    out
}

/// An IPFIX message, with the template if asked; `sequence` counts data records.
pub fn ipfix(flows: &[FlowFields], sequence: u32, now: i64, with_template: bool) -> Vec<u8> {
    let mut body = if with_template { template(2) } else { Vec::new() };
    body.extend(data(flows));
    let mut out = Vec::new();
    words(&mut out, &[10, 16 + body.len() as u16]);
    out.extend([now as u32, sequence, 2].iter().flat_map(|n| n.to_be_bytes()));
    out.extend(body);
    out
}

/// An sFlow datagram of one flow sample with a raw header.
pub fn sflow(flow: FlowFields, sequence: u32) -> Vec<u8> {
    let be = |w: &[u32]| w.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    let mut header = vec![0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 8, 0];
    header.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 6, 0, 0]);
    header.extend(flow.src.octets());
    header.extend(flow.dst.octets());
    words(&mut header, &[flow.src_port, flow.dst_port]);
    header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x18, 0, 0]);
    while header.len() % 4 != 0 {
        header.push(0);
    }
    let mut raw = be(&[1, flow.bytes, 4, header.len() as u32]);
    raw.extend(&header);
    let mut body = be(&[sequence, 1, 512, sequence * 512, 0, 1, 2, 1, 1, raw.len() as u32]);
    body.extend(raw);
    let mut out = be(&[5, 1, 0x7f00_0001, 0, sequence, 1000, 1, 1, body.len() as u32]);
    out.extend(body);
    out
}

/// An RFC 5424 line.
pub fn syslog(severity: u8, host: &str, text: &str) -> Vec<u8> {
    format!("<{}>1 - {host} app 1 - - {text}", 16 * 8 + severity).into_bytes()
}

fn tlv(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    if body.len() < 128 {
        out.push(body.len() as u8);
    } else {
        out.push(0x82);
        out.extend((body.len() as u16).to_be_bytes());
    }
    out.extend(body);
    out
}

/// A v1 trap: `linkDown` or `linkUp` of an interface, speaking for `agent`.
pub fn link_trap(agent: Ipv4Addr, interface: u8, up: bool) -> Vec<u8> {
    let binding = tlv(0x30, &[tlv(6, &[0x2b, 6, 1, 2, 1, 2, 2, 1, 1, interface]), tlv(2, &[interface])].concat());
    let pdu = [
        tlv(6, &[0x2b, 6, 1, 4, 1, 9]),
        tlv(0x40, &agent.octets()),
        tlv(2, &[if up { 3 } else { 2 }]),
        tlv(2, &[0]),
        tlv(0x43, &[1]),
        tlv(0x30, &binding),
    ]
    .concat();
    tlv(0x30, &[tlv(2, &[0]), tlv(4, b"public"), tlv(0xa4, &pdu)].concat())
}

/// A v2c inform of `coldStart`; its answer has the same request id.
pub fn cold_start_inform(request_id: u32) -> Vec<u8> {
    let time = tlv(0x30, &[tlv(6, &[0x2b, 6, 1, 2, 1, 1, 3, 0]), tlv(0x43, &[1])].concat());
    let cold_start = tlv(6, &[0x2b, 6, 1, 6, 3, 1, 1, 5, 1]);
    let kind = tlv(0x30, &[tlv(6, &[0x2b, 6, 1, 6, 3, 1, 1, 4, 1, 0]), cold_start].concat());
    // Positive: its highest bit is not set.
    let request_id = tlv(2, &(request_id & 0x7fff_ffff).to_be_bytes());
    let pdu = [request_id, tlv(2, &[0]), tlv(2, &[0]), tlv(0x30, &[time, kind].concat())].concat();
    tlv(0x30, &[tlv(2, &[1]), tlv(4, b"public"), tlv(0xa6, &pdu)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use radarflow_proto::netflow::Exporter;
    use radarflow_proto::packet::Tunnels;
    use radarflow_proto::sflow::{Datagram, Sample};
    use radarflow_proto::snmp;

    #[test]
    fn the_decoders_read_what_the_network_sends() {
        let flow = FlowFields {
            src: [10, 0, 0, 1].into(),
            dst: [10, 0, 0, 2].into(),
            src_port: 1,
            dst_port: 2,
            bytes: 3,
            packets: 4,
        };
        let mut exporter = Exporter::default();
        let got = exporter
            .decode(&netflow_v9(&[flow; 30], 1, 1_700_000_000, true), (1, 0, 0), Tunnels::ALL, &mut |_, _| {})
            .unwrap();
        assert_eq!((got.flows, got.errors.len()), (30, 0));
        let mut exporter = Exporter::default();
        let got = exporter
            .decode(&ipfix(&[flow; 7], 0, 1_700_000_000, true), (1, 0, 0), Tunnels::ALL, &mut |_, _| {})
            .unwrap();
        assert_eq!((got.flows, got.errors.len()), (7, 0));
        let mut sampled = Vec::new();
        Datagram::new(&sflow(flow, 1)).unwrap().decode(Tunnels::ALL, &mut |sample| match sample {
            Sample::Flow(flow) => sampled.push((flow.src_port, flow.dst_ip)),
            Sample::Counters(_) => {}
        });
        assert_eq!(sampled, [(Some(1), Some([10, 0, 0, 2].into()))]);
        let trap = snmp::parse(&link_trap([10, 0, 0, 9].into(), 3, false)).unwrap();
        assert_eq!((trap.trap_oid.as_str(), trap.agent_address), (snmp::LINK_DOWN, Some([10, 0, 0, 9].into())));
        let inform = cold_start_inform(0xffff_0102);
        assert_eq!(snmp::parse(&inform).unwrap().trap_oid, "1.3.6.1.6.3.1.1.5.1");
        assert!(snmp::inform_response(&inform).unwrap().is_some_and(|answer| answer != inform));
    }
}
