//! Datagrams as agents send them, byte by byte.

use super::*;

struct Got {
    flows: Vec<Flow>,
    counters: Vec<InterfaceCounters>,
    errors: Vec<SFlowError>,
}

fn decode(bytes: &[u8]) -> Result<Got, SFlowError> {
    let (mut flows, mut counters) = (Vec::new(), Vec::new());
    let told = Datagram::new(bytes)?.decode(Tunnels::ALL, &mut |sample| match sample {
        Sample::Flow(flow) => flows.push(flow.clone()),
        Sample::Counters(of) => counters.push(of.clone()),
    });
    assert_eq!((told.flows as usize, told.counters as usize), (flows.len(), counters.len()));
    Ok(Got { flows, counters, errors: told.errors })
}

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
    let sent = datagram();
    let header = Datagram::new(&sent).unwrap();
    assert_eq!((header.agent, header.sub_agent, header.sequence), ("127.0.0.9".parse().unwrap(), 0, 42));
    let got = decode(&sent).unwrap();
    let flow = &got.flows[0];
    assert_eq!((flow.src_port, flow.dst_port, flow.protocol), (Some(80), Some(49152), Some(6)));
    assert_eq!((flow.in_if, flow.out_if), (Some(3), None));
    assert_eq!((flow.l2_bytes, flow.sampling), (Some(1500), Some((512, SamplingSource::Record))));
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
    assert_eq!((got.flows.len(), got.errors.is_empty()), (0, false));
    assert!(got.flows.capacity() <= d.len());
}

/// A datagram of one sample.
fn of(format: u32, sample: &[u8]) -> Vec<u8> {
    [words(&[5, 1, 0x7f00_0009, 3, 42, 1000, 1, format, sample.len() as u32]), sample.to_vec()].concat()
}

fn record(format: u32, body: &[u8]) -> Vec<u8> {
    [words(&[format, body.len() as u32]), body.to_vec()].concat()
}

/// The flow of an expanded flow sample of these records.
fn flow_of(records: &[Vec<u8>]) -> Flow {
    let head = words(&[1, 0, 17, 100, 1000, 0, 0, 17, 0, 18, records.len() as u32]);
    let mut got = decode(&of(3, &[head, records.concat()].concat())).unwrap();
    assert_eq!((got.flows.len(), got.errors.as_slice()), (1, &[][..]));
    got.flows.remove(0)
}

#[test]
fn the_extended_records_are_read() {
    let ip = words(&[80, 6, 0x0a00_0001, 0x0a00_0002, 1000, 443, 0x18, 0xb8]);
    let flow = flow_of(&[
        record(3, &ip),
        record(1001, &words(&[100, 0, 200, 0])),
        record(1002, &words(&[1, 0x0a00_00fe, 24, 16])),
        record(
            1003,
            &words(&[
                1,
                0x0a00_00fd,
                65_000,
                65_001,
                65_002,
                2,
                2,
                2,
                65_003,
                65_004,
                1,
                1,
                65_005,
                2,
                0xfde8_0064,
                0xffff_ff01,
                100,
            ]),
        ),
        record(1004, &[words(&[3, 5]), b"alice\0\0\0".to_vec(), words(&[3, 3]), b"bob\0".to_vec()].concat()),
        record(1006, &words(&[1, 0x0a00_00fc, 2, 16 << 12, 17 << 12 | 0x100, 1, 18 << 12])),
        record(1007, &words(&[1, 0xcb00_7101, 1, 0xcb00_7102])),
        record(1020, &words(&[40_000, 8443])),
        // No format that is known: a number, and what cannot be read.
        record(1029, &words(&[5001])),
        record(4413 << 12 | 7, &[0xff; 12]),
        record(1029, &words(&[5002])),
    ]);
    let ip = |text: &str| text.parse::<IpAddr>().ok();
    assert_eq!((flow.in_if, flow.out_if, flow.sampler_id, flow.domain), (Some(17), Some(18), Some(17), Some(3)));
    assert_eq!((flow.bytes, flow.l2_bytes, flow.tos, flow.protocol), (Some(80), None, Some(0xb8), Some(6)));
    assert_eq!((flow.vlan, flow.src_vlan, flow.dst_vlan), (Some(100), Some(100), Some(200)));
    assert_eq!((flow.next_hop, flow.src_prefix, flow.dst_prefix), (ip("10.0.0.254"), Some(24), Some(16)));
    assert_eq!((flow.bgp_next_hop, flow.src_as, flow.dst_as), (ip("10.0.0.253"), Some(65_001), Some(65_005)));
    assert_eq!(
        (&flow.as_path[..], &flow.communities[..]),
        (&[65_003, 65_004, 65_005][..], &[0xfde8_0064, 0xffff_ff01][..])
    );
    assert_eq!((flow.src_user.as_str(), flow.dst_user.as_str()), ("alice", "bob"));
    assert_eq!(flow.labels, [16, 17]);
    assert_eq!((flow.src_nat_ip, flow.dst_nat_ip), (ip("203.0.113.1"), ip("203.0.113.2")));
    assert_eq!((flow.src_nat_port, flow.dst_nat_port), (Some(40_000), Some(8443)));
    let unmapped: Vec<_> = flow.unmapped.iter().collect();
    assert_eq!(unmapped, [("0.1029", "5001"), ("4413.7", "0xffffffffffffffffffffffff"), ("0.1029#2", "5002")]);
    // A destination that the path does not lead away from is in the router's own system.
    let local = flow_of(&[record(1003, &words(&[1, 0x0a00_00fd, 65_000, 65_001, 65_002, 0, 0, 100]))]);
    assert_eq!((local.dst_as, local.as_path.len()), (Some(65_000), 0));
}

#[test]
fn a_header_tells_of_labels_tags_and_fragments() {
    let raw = |protocol: u32, header: &[u8]| {
        let padded = [header, &vec![0; (4 - header.len() % 4) % 4]].concat();
        record(1, &[words(&[protocol, 1500, 4, header.len() as u32]), padded].concat())
    };
    let ip = hex::decode("4500003c1c4620b9 0501b1e6c0a80001c0a800c7".replace(' ', "")).unwrap();
    let frame =
        [&[0; 12][..], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 0x88, 0x47, 0, 1, 0, 64, 0, 2, 0x11, 64], &ip].concat();
    let flow = flow_of(&[raw(1, &frame)]);
    assert_eq!((flow.vlan, flow.src_vlan, flow.customer_vlan), (Some(7), Some(5), Some(7)));
    assert_eq!((&flow.labels[..], flow.header_bytes, flow.l2_bytes), (&[16, 33][..], Some(60), Some(1500)));
    assert_eq!((flow.ttl, flow.fragment_id, flow.fragment_offset), (Some((5, 5)), Some(0x1c46), Some(0xb9)));
    // The same without Ethernet, and within PPP.
    let flow = flow_of(&[raw(13, &frame[22..])]);
    assert_eq!((flow.src_ip, &flow.labels[..]), ("192.168.0.1".parse().ok(), &[16, 33][..]));
    let flow = flow_of(&[raw(7, &[&[0xff, 3, 0, 0x21][..], &ip].concat())]);
    assert_eq!(flow.src_ip, "192.168.0.1".parse().ok());
    // ICMP of IPv6, with a flow label.
    let v6 = [&hex::decode("6b81234500083aff").unwrap()[..], &[0xfe; 32], &[128, 1, 0, 0, 0, 0, 0, 0]].concat();
    let flow = flow_of(&[raw(12, &v6)]);
    assert_eq!((flow.icmp_type, flow.icmp_code, flow.flow_label), (Some(128), Some(1), Some(0x12345)));
    assert_eq!((flow.tos, flow.ttl, flow.header_bytes), (Some(0xb8), Some((255, 255)), Some(48)));
}

#[test]
fn packets_that_were_dropped_are_told_with_their_reason() {
    let ip = record(3, &words(&[80, 6, 0x0a00_0001, 0x0a00_0002, 1000, 443, 0x18, 0]));
    let sample = [words(&[9, 0, 17, 4, 17, 0, 258, 1]), ip.clone()].concat();
    let got = decode(&of(5, &sample)).unwrap();
    let flow = &got.flows[0];
    assert_eq!((flow.discard_reason, flow.packets, flow.sampling), (Some(258), 1, Some((1, SamplingSource::Record))));
    assert_eq!((flow.in_if, flow.out_if, flow.dst_port), (Some(17), Some(0), Some(443)));
    // A flow sample says it in place of the output, in either form.
    let compact = [words(&[1, 17, 100, 1000, 0, 17, 1 << 30 | 258, 1]), ip.clone()].concat();
    let expanded = [words(&[1, 0, 17, 100, 1000, 0, 0, 17, 1, 258, 1]), ip].concat();
    for (format, sample) in [(1, compact), (3, expanded)] {
        let got = decode(&of(format, &sample)).unwrap();
        assert_eq!((got.flows[0].discard_reason, got.flows[0].out_if), (Some(258), None));
    }
}

#[test]
fn counters_of_interfaces_are_told() {
    let all = u32::MAX;
    let body = words(&[7, 6, 2, 0x540b_e400, 1, 3, 1, 5, 11, 12, 13, 14, 15, all, 0, 9, 21, 22, 23, 24, 25, 2]);
    let ethernet = record(2, &[0; 52]);
    let head = |records| words(&[1, 7, records]);
    let sent = of(2, &[head(2), ethernet.clone(), record(1, &body)].concat());
    let got = decode(&sent).unwrap();
    let counters = InterfaceCounters {
        index: 7,
        kind: 6,
        speed_bps: 10_000_000_000,
        direction: 1,
        is_admin_up: true,
        is_oper_up: true,
        in_bytes: (1 << 32) + 5,
        input: [Some(11), Some(12), Some(13), Some(14), Some(15), None],
        out_bytes: 9,
        output: [21, 22, 23, 24, 25].map(Some),
        is_promiscuous: false,
    };
    assert_eq!((got.counters, got.errors), (vec![counters], vec![]));
    // What is not read is told, and nothing else suffers by it.
    let others = [of(2, &[head(1), record(2003, &[0; 8])].concat()), of(4413 << 12 | 1, &[0; 8])];
    let errors: Vec<_> = others.iter().flat_map(|sent| decode(sent).unwrap().errors).collect();
    assert_eq!(errors, [SFlowError::Counters(0, 2003), SFlowError::Sample(4413, 1)]);
    let both = [&words(&[5, 1, 1, 0, 1, 1, 2, 4413 << 12 | 1, 4, 0])[..], &sent[28..]].concat();
    let got = decode(&both).unwrap();
    assert_eq!((got.counters.len(), got.errors.len()), (1, 1));
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
