//! Records byte by byte as the RFCs lay them out, and what each element becomes.

use super::tests::read;
use super::*;

const AT: MessageOrigin = (1, 0, 0);

fn words(w: &[u16]) -> Vec<u8> {
    w.iter().flat_map(|n| n.to_be_bytes()).collect()
}

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    [&words(&[id, 4 + body.len() as u16]), body].concat()
}

fn ipfix(sets: &[Vec<u8>]) -> Vec<u8> {
    let body = sets.concat();
    [words(&[10, 16 + body.len() as u16]), vec![0x65, 0x53, 0xf1, 0, 0, 0, 0, 0, 0, 0, 0, 9], body].concat()
}

fn v9(count: u16, sets: &[Vec<u8>]) -> Vec<u8> {
    [words(&[9, count]), vec![0, 0, 0x10, 0, 0x65, 0x53, 0xf1, 0, 0, 0, 0, 0, 0, 0, 0, 8], sets.concat()].concat()
}

/// A field as it is told and what a record has in it.
type Field<'a> = (u16, &'a [u8]);

/// A template of IANA's elements and a set of one record of it.
fn sets_of(template_set: u16, fields: &[Field<'_>]) -> Vec<Vec<u8>> {
    let specs: Vec<u16> = fields.iter().flat_map(|(element, value)| [*element, value.len() as u16]).collect();
    let template = words(&[&[300, fields.len() as u16][..], &specs].concat());
    let record: Vec<u8> = fields.iter().flat_map(|(_, value)| value.to_vec()).collect();
    vec![set(template_set, &template), set(300, &record)]
}

fn flow_of(fields: &[Field<'_>]) -> Flow {
    let got = read(&mut Exporter::default(), &ipfix(&sets_of(2, fields)), AT).unwrap();
    assert_eq!((got.flows.len(), got.errors.as_slice()), (1, &[][..]));
    let flow = got.flows[0].0.clone();
    // v9 numbers them alike.
    let got = read(&mut Exporter::default(), &v9(2, &sets_of(0, fields)), AT).unwrap();
    assert_eq!((&got.flows[0].0, got.errors.as_slice()), (&Flow { domain: Some(8), ..flow.clone() }, &[][..]));
    flow
}

fn ip(text: &str) -> Option<std::net::IpAddr> {
    text.parse().ok()
}

const SRC: Field<'_> = (8, &[10, 0, 0, 1]);
const DST: Field<'_> = (12, &[10, 0, 0, 2]);

#[test]
fn routing_and_layer_two() {
    let flow = flow_of(&[
        SRC,
        DST,
        (9, &[0]),
        (13, &[24]),
        // The other family is filled with zeros.
        (29, &[0]),
        (30, &[0]),
        (15, &[10, 0, 0, 254]),
        (18, &[10, 0, 0, 253]),
        (16, &[0xfd, 0xe8]),
        (17, &[0xfa, 0x56, 0xea, 0]),
        (58, &[0, 100]),
        (59, &[0x20, 200]),
        (245, &[0, 7]),
        (56, &[0, 1, 2, 3, 4, 5]),
        (80, &[6, 7, 8, 9, 10, 11]),
        (70, &[0, 1, 0]),
        (71, &[0, 2, 0x11]),
        (72, &[0, 0, 0]),
        (234, &[0, 0, 0, 3]),
        (235, &[0, 0, 0, 4]),
        (1, &[0, 0, 3, 0xe8]),
        (2, &[10]),
        (352, &[0, 0, 4, 0x74]),
    ]);
    assert_eq!((flow.src_prefix, flow.dst_prefix), (Some(0), Some(24)));
    assert_eq!((flow.next_hop, flow.bgp_next_hop), (ip("10.0.0.254"), ip("10.0.0.253")));
    assert_eq!((flow.src_as, flow.dst_as), (Some(65_000), Some(4_200_000_000)));
    assert_eq!(
        (flow.vlan, flow.src_vlan, flow.dst_vlan, flow.customer_vlan),
        (Some(100), Some(100), Some(200), Some(7))
    );
    assert_eq!((flow.src_mac, flow.dst_mac), (Some([0, 1, 2, 3, 4, 5]), Some([6, 7, 8, 9, 10, 11])));
    assert_eq!((&flow.labels[..], flow.in_vrf, flow.out_vrf), (&[16, 33][..], Some(3), Some(4)));
    assert_eq!((flow.bytes, flow.l2_bytes, flow.packets, flow.domain), (Some(1000), Some(1140), 10, Some(9)));
}

#[test]
fn headers_of_ipv6() {
    let flow = flow_of(&[
        (27, &[0xfd; 16]),
        (28, &[0xfe; 16]),
        (9, &[0]),
        (29, &[64]),
        (30, &[48]),
        (31, &[0, 1, 0x23, 0x45]),
        (62, &[0xfc; 16]),
        (63, &[0xfb; 16]),
        (281, &[0xfa; 16]),
        (282, &[0xf9; 16]),
        (4, &[58]),
        (139, &[128, 3]),
        (195, &[46]),
        (52, &[3]),
        (53, &[64]),
        (54, &[0, 0, 0x1c, 0x46]),
        (88, &[0, 0xb9]),
        (89, &[0x82]),
        (136, &[2]),
        (148, &[0xff; 8]),
    ]);
    let of = |byte: u8| Some(std::net::IpAddr::from([byte; 16]));
    assert_eq!((flow.src_prefix, flow.dst_prefix, flow.flow_label), (Some(64), Some(48), Some(0x12345)));
    assert_eq!((flow.next_hop, flow.bgp_next_hop), (of(0xfc), of(0xfb)));
    assert_eq!((flow.src_nat_ip, flow.dst_nat_ip), (of(0xfa), of(0xf9)));
    assert_eq!((flow.icmp_type, flow.icmp_code, flow.dst_port), (Some(128), Some(3), Some(0x8003)));
    assert_eq!((flow.tos, flow.ttl, flow.ether_type), (Some(46 << 2), Some((3, 64)), Some(0x86dd)));
    assert_eq!((flow.fragment_id, flow.fragment_offset), (Some(0x1c46), Some(0xb9)));
    assert_eq!((flow.forwarding_status, flow.end_reason, flow.flow_id), (Some(0x82), Some(2), Some(u64::MAX)));
    assert!(flow.unmapped.is_empty());
}

#[test]
fn events_of_translators_and_firewalls() {
    // RFC 8158: a session is created.
    let observed_ms = 1_700_000_000_123u64.to_be_bytes();
    let flow = flow_of(&[
        (323, &observed_ms),
        SRC,
        (225, &[203, 0, 113, 1]),
        (4, &[17]),
        (7, &[0x9c, 0x40]),
        (227, &[0xc3, 0x50]),
        DST,
        (226, &[198, 51, 100, 1]),
        (11, &[0, 53]),
        (228, &[0x14, 0xe9]),
        (230, &[4]),
        (233, &[3]),
        (371, b"alice\0\0\0"),
    ]);
    assert_eq!((flow.src_nat_ip, flow.dst_nat_ip), (ip("203.0.113.1"), ip("198.51.100.1")));
    assert_eq!((flow.src_nat_port, flow.dst_nat_port), (Some(50_000), Some(5353)));
    assert_eq!((flow.nat_event, flow.firewall_event, flow.src_user.as_str()), (Some(4), Some(3), "alice"));
    assert_eq!((flow.end_us, flow.bytes), (Some(1_700_000_000_123_000), None));
    // As ASA and PAN-OS number theirs in v9.
    let fields: [Field<'_>; 6] =
        [SRC, DST, (40005, &[1]), (40000, b"bob\0"), (56701, b"ssl\0"), (33002, &[0x03, 0xe9])];
    let got = read(&mut Exporter::default(), &v9(2, &sets_of(0, &fields)), AT).unwrap();
    let flow = &got.flows[0].0;
    assert_eq!((flow.firewall_event, flow.src_user.as_str(), flow.app.as_str()), (Some(1), "bob", "ssl"));
    assert_eq!(flow.unmapped.iter().collect::<Vec<_>>(), [("0.33002", "1001")]);
}

#[test]
fn what_is_not_known_is_kept() {
    // Two enterprises' elements, one of them twice, a variable text, and structured data, which is skipped.
    let template = [
        words(&[300, 8, 8, 4, 12, 4, 0x8001, 2]),
        9u32.to_be_bytes().to_vec(),
        words(&[0x8001, 2]),
        9u32.to_be_bytes().to_vec(),
        words(&[0x8000 | 1234, 0xffff]),
        35_632u32.to_be_bytes().to_vec(),
        words(&[500, 12, 292, 0xffff, 210, 1]),
    ];
    let record = [&[10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 8, 4][..], b"http", &[0xff; 12], &[3, 1, 2, 3], &[0]].concat();
    let got = read(&mut Exporter::default(), &ipfix(&[set(2, &template.concat()), set(300, &record)]), AT).unwrap();
    let unmapped: Vec<_> = got.flows[0].0.unmapped.iter().collect();
    let digits = "0xffffffffffffffffffffffff";
    assert_eq!(unmapped, [("9.1", "7"), ("9.1#2", "8"), ("35632.1234", "http"), ("0.500", digits)]);
}

#[test]
fn options_name_what_flows_have_numbers_of() {
    let name = |text: &str| [text.as_bytes(), &vec![0; 8 - text.len()]].concat();
    let flow: [Field<'_>; 7] =
        [SRC, DST, (10, &[0, 5]), (14, &[0, 6]), (234, &[0, 0, 0, 3]), (48, &[2]), (95, &[13, 0, 0, 80])];
    // IPFIX: what a name is of is the scope.
    let mut exporter = Exporter::default();
    for (n, (scope, length, element)) in
        [(10u16, 2u16, 82u16), (10, 2, 83), (234, 4, 236), (302, 1, 335), (95, 4, 96)].into_iter().enumerate()
    {
        let id = 400 + n as u16;
        let template = words(&[id, 2, 1, scope, length, element, 8]);
        let of = [vec![0, 5], vec![0, 5], vec![0, 0, 0, 3], vec![2], vec![13, 0, 0, 80]];
        let named = ["ge-0/0/5", "uplink", "blue", "edge", "http"];
        let sets = [set(3, &template), set(id, &[of[n].clone(), name(named[n])].concat())];
        let got = read(&mut exporter, &ipfix(&sets), AT).unwrap();
        assert_eq!((got.records, got.errors.as_slice()), (1, &[][..]));
    }
    let told = read(&mut exporter, &ipfix(&sets_of(2, &flow)), AT).unwrap().flows.remove(0).0;
    assert_eq!((told.in_if_name.as_str(), told.in_if_description.as_str()), ("ge-0/0/5", "uplink"));
    assert_eq!((told.out_if_name.as_str(), told.in_vrf_name.as_str()), ("", "blue"));
    assert_eq!((told.sampler_name.as_str(), told.app.as_str(), told.app_id), ("edge", "http", Some((13, 80))));
    // v9: the scope is the interface, or the system, and then the number is an option.
    let mut exporter = Exporter::default();
    let interface = [
        set(1, &words(&[400, 4, 8, 2, 2, 82, 8, 83, 8])),
        set(400, &[vec![0, 5], name("Gi0/5"), name("uplink")].concat()),
    ];
    let system = [
        set(1, &words(&[401, 4, 8, 1, 4, 10, 2, 82, 8])),
        set(401, &[vec![1, 1, 1, 1, 0, 6], name("Gi0/6")].concat()),
        set(1, &words(&[402, 4, 8, 1, 4, 95, 4, 94, 8])),
        set(402, &[vec![1, 1, 1, 1, 13, 0, 0, 80], name("web")].concat()),
    ];
    read(&mut exporter, &v9(6, &[interface.concat(), system.concat()]), AT).unwrap();
    let told = read(&mut exporter, &v9(2, &sets_of(0, &flow)), AT).unwrap().flows.remove(0).0;
    assert_eq!((told.in_if_name.as_str(), told.in_if_description.as_str()), ("Gi0/5", "uplink"));
    assert_eq!((told.out_if_name.as_str(), told.app.as_str()), ("Gi0/6", "web"));
    // What the record says itself counts.
    let itself: [Field<'_>; 5] = [SRC, DST, (10, &[0, 5]), (82, b"lo0\0"), (96, b"dns\0")];
    let told = read(&mut exporter, &v9(2, &sets_of(0, &itself)), AT).unwrap().flows.remove(0).0;
    assert_eq!((told.in_if_name.as_str(), told.app.as_str()), ("lo0", "dns"));
}

#[test]
fn the_count_of_a_header_is_held_against_what_is_there() {
    let sets = sets_of(0, &[SRC, DST]);
    let errors = |message: &[u8]| {
        let got = read(&mut Exporter::default(), message, AT).unwrap();
        assert_eq!(got.flows.len(), 1);
        got.told_errors()
    };
    assert_eq!(errors(&v9(2, &sets)), []);
    assert_eq!(errors(&v9(7, &sets)), [NetFlowError::Missing { said: 7, read: 2 }]);
    // After its records, zeros are padding; anything else is told, and is no set.
    assert_eq!(errors(&[v9(2, &sets), vec![0; 12]].concat()), []);
    assert_eq!(errors(&[v9(2, &sets), vec![0xff; 12]].concat()), [NetFlowError::Trailing { bytes: 12 }]);
    // Before them it is a set whose length is wrong.
    assert_eq!(
        errors(&[v9(3, &sets), vec![0xff; 12]].concat()),
        [NetFlowError::SetLength { set: 0xffff, length: 0xffff }]
    );
    // v5: what is there is not lost.
    let record = [
        &[10, 0, 0, 1, 10, 0, 0, 2, 10, 0, 0, 254, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 90][..],
        &[0; 8],
        &[3, 1, 3, 1, 0, 0, 1, 0, 0, 1, 0, 2, 24, 16, 0, 0],
    ]
    .concat();
    let v5 =
        [words(&[5, 2]), vec![0, 0, 0x10, 0, 0x65, 0x53, 0xf1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0], record].concat();
    let got = read(&mut Exporter::default(), &v5, AT).unwrap();
    assert_eq!(got.told_errors(), [NetFlowError::Missing { said: 2, read: 1 }]);
    let flow = &got.flows[0].0;
    assert_eq!((flow.src_prefix, flow.dst_prefix, flow.next_hop), (Some(24), Some(16), ip("10.0.0.254")));
    assert_eq!((flow.icmp_type, flow.icmp_code, flow.domain), (Some(3), Some(1), Some(0x102)));
}

#[test]
fn records_of_no_flow_are_told_and_counted() {
    let mut exporter = Exporter::default();
    let sets = sets_of(2, &[(4, &[6]), (7, &[0, 0, 0, 0, 0, 0, 0, 80])]);
    let got = read(&mut exporter, &ipfix(&sets), AT).unwrap();
    assert!(matches!(got.told_errors()[..], [NetFlowError::Records { id: 300, .. }]), "{got:?}");
    // The next message bears 1, after one record; bearing 3 it says that two are lost.
    let mut next = ipfix(&sets);
    next[11] = 3;
    read(&mut exporter, &next, AT).unwrap();
    assert_eq!(exporter.lost(), 2);
}
