//! Messages as exporters send them: templates, options, both ways of a connection, times, sequences.

use super::*;

const AT: MessageOrigin = (1, 0, 0);

/// What a message brought, its flows included.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) flows: Vec<(Flow, FlowOrigin)>,
    told: Decoded,
}

impl Got {
    pub(super) fn told_errors(&self) -> Vec<NetFlowError> {
        self.told.errors.clone()
    }
}

impl std::ops::Deref for Got {
    type Target = Decoded;
    fn deref(&self) -> &Decoded {
        &self.told
    }
}

pub(super) fn read(exporter: &mut Exporter, bytes: &[u8], at: MessageOrigin) -> Result<Got, NetFlowError> {
    let mut flows = Vec::new();
    let told = exporter.decode(bytes, at, Tunnels::ALL, &mut |flow, origin| flows.push((flow.clone(), origin)))?;
    assert_eq!(told.flows as usize, flows.len());
    Ok(Got { flows, told })
}

fn words(w: &[u16]) -> Vec<u8> {
    w.iter().flat_map(|n| n.to_be_bytes()).collect()
}

fn ipfix(sequence: u32, sets: &[Vec<u8>]) -> Vec<u8> {
    let body: Vec<u8> = sets.concat();
    let mut m = words(&[10, (16 + body.len()) as u16]);
    m.extend(1_700_000_000u32.to_be_bytes());
    m.extend(sequence.to_be_bytes());
    m.extend(9u32.to_be_bytes());
    m.extend(body);
    m
}

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    let mut s = words(&[id, (4 + body.len()) as u16]);
    s.extend(body);
    s
}

fn template() -> Vec<u8> {
    set(2, &words(&[256, 4, 8, 4, 12, 4, 1, 8, 96, 0xffff]))
}

fn data(bytes: u8) -> Vec<u8> {
    set(256, &[10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, bytes, 2, b'h', b'i'])
}

#[test]
fn v5() {
    let mut m = hex::decode("0005000100002710655453000000000000000064000040640a0000010a0000020a0000ff00010002000000050000019000001388000017700050c00000021b060800fde8fdea18100000").unwrap();
    m.truncate(72);
    let mut exporter = Exporter::default();
    let flow = &read(&mut exporter, &m, AT).unwrap().flows[0].0;
    assert_eq!((flow.bytes, flow.packets, flow.src_port), (Some(400), 5, Some(80)));
    assert_eq!(flow.sampling, Some((100, SamplingSource::Header)));
    assert_eq!(flow.end_us.unwrap() - flow.start_us.unwrap(), 1_000_000);
}

#[test]
fn a_set_waits_for_its_template_and_keeps_its_place() {
    let mut exporter = Exporter::default();
    let early = read(&mut exporter, &ipfix(0, &[data(7)]), (5, 3, 0)).unwrap();
    assert_eq!((early.flows.len(), early.held), (0, 1));
    assert_eq!(exporter.waiting(), (1, Some(256)));
    let later = read(&mut exporter, &ipfix(1, &[template(), data(8)]), (6, 0, 0)).unwrap();
    let got: Vec<_> = later.flows.iter().map(|(f, o)| (f.bytes, o.message)).collect();
    assert_eq!(got, [(Some(7), (5, 3, 0)), (Some(8), (6, 0, 0))]);
    assert_eq!(exporter.waiting(), (0, None));
}

#[test]
fn options_tell_the_sampling_rate() {
    let mut exporter = Exporter::default();
    let options_template = set(3, &words(&[300, 2, 1, 302, 2, 305, 4]));
    let mut template305 = options_template;
    template305.truncate(0);
    template305.extend(set(3, &words(&[300, 3, 1, 302, 2, 305, 4, 306, 4])));
    let options = set(300, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 99]);
    read(&mut exporter, &ipfix(0, &[template305, options, template()]), AT).unwrap();
    let flow = read(&mut exporter, &ipfix(1, &[data(3)]), AT).unwrap().flows.remove(0).0;
    assert_eq!(flow.sampling, Some((100, SamplingSource::Options)));
}

#[test]
fn an_ipfix_exporter_tells_its_start_in_options() {
    let mut exporter = Exporter::default();
    let start = 1_699_999_000_000u64.to_be_bytes();
    let options = [set(3, &words(&[300, 2, 1, 143, 4, 160, 8])), set(300, &[&[0, 0, 0, 1], &start[..]].concat())];
    read(&mut exporter, &ipfix(0, &options), AT).unwrap();
    let flow = [set(2, &words(&[257, 2, 8, 4, 21, 4])), set(257, &[1, 1, 1, 1, 0, 0, 0x27, 0x10])];
    let got = read(&mut exporter, &ipfix(1, &flow), AT).unwrap().flows;
    assert_eq!(got[0].0.end_us, Some(1_699_999_010_000_000));
}

#[test]
fn loss_is_counted_reordering_is_not_loss() {
    let mut exporter = Exporter::default();
    for sequence in [0, 1, 5, 3, 6] {
        read(&mut exporter, &ipfix(sequence, &[template(), data(1)]), AT).unwrap();
    }
    assert_eq!(exporter.lost(), 2);
}

/// The flows of messages in hex, of one exporter.
fn flows(messages: &[&str]) -> Vec<Flow> {
    let mut exporter = Exporter::default();
    let decoded = messages.iter().flat_map(|m| read(&mut exporter, &hex::decode(m).unwrap(), AT).unwrap().flows);
    decoded.map(|(flow, _)| flow).collect()
}

#[test]
fn what_waits_or_is_overtaken_is_not_lost() {
    // Sets that wait count in the sequence, and are not counted again when their template comes.
    let mut exporter = Exporter::default();
    let three = || set(256, &[data(1)[4..].to_vec(), data(2)[4..].to_vec(), data(3)[4..].to_vec()].concat());
    for message in [ipfix(100, &[three()]), ipfix(103, &[three()]), ipfix(106, &[template(), data(4)])] {
        read(&mut exporter, &message, AT).unwrap();
    }
    for sequence in [107, 109, 108, 110] {
        read(&mut exporter, &ipfix(sequence, &[data(1)]), AT).unwrap();
    }
    assert_eq!(exporter.lost(), 0);
    read(&mut exporter, &ipfix(113, &[data(1)]), AT).unwrap();
    assert_eq!(exporter.lost(), 2);
    // Another session counts anew.
    exporter.begin_session();
    read(&mut exporter, &ipfix(5, &[data(1)]), AT).unwrap();
    assert_eq!((exporter.lost(), exporter.waiting()), (2, (0, None)));
}

#[test]
fn up_times_wrap_and_run_ahead() {
    let template = "000900020036ee806b08b8c40000000100000007000000280100000800080004000c000400070002000b00020004000100010004001600040015000401000020c0000211c633641b0001000106000000010036ea980036ef20000000";
    let wrapped =
        "00090001000003e86b08b8c4000000020000000701000020c0000211c633641b000100020600000002fffff060000001f4000000";
    let v5 = "000500010036ee806b08b8c4000000000000000000000000c0000211c633641b000000000001000200000001000000030036ea980036ef2000010003001006000000000000000000";
    let export_us = 0x6b08_b8c4 * 1_000_000;
    let times: Vec<_> = flows(&[template, wrapped, v5]).iter().map(|f| (f.start_us, f.end_us)).collect();
    let at = |start_ms: i64, end_ms: i64| (Some(export_us + start_ms * 1000), Some(export_us + end_ms * 1000));
    assert_eq!(times, [at(-1000, 160), at(-5000, -500), at(-1000, 160)]);
}

#[test]
fn a_connections_two_ways_are_two_flows() {
    let asa = "000900020036ee806b08b9f00000000100000007000000300104000a00080004000c000400070002000b00020004000100e9000100e7000400e80004012a0004012b000401040024c000020bc6336415c73801bb060500000bb800011170000000140000003c0000";
    let got: Vec<_> = flows(&[asa]).iter().map(|f| (f.src_port, f.dst_port, f.bytes, f.packets)).collect();
    assert_eq!(got, [(Some(51_000), Some(443), Some(3000), 20), (Some(443), Some(51_000), Some(70_000), 60)]);
    // Nothing came back.
    let mut exporter = Exporter::default();
    let fields = set(2, &words(&[257, 5, 8, 4, 12, 4, 231, 4, 232, 4, 299, 4]));
    let one_way = set(257, &[&[1, 1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 9][..], &[0; 8]].concat());
    assert_eq!(read(&mut exporter, &ipfix(0, &[fields, one_way]), AT).unwrap().flows.len(), 1);
}

#[test]
fn what_fields_mean_does_not_depend_on_their_order() {
    // ICMP type and code beside TCP ports are nothing; in a record of ICMP they are in place of ports.
    let tcp = "000900020036ee806b08c70a0000000000000000000000280100000800080004000c000400070002000b0002000400010020000200010004000200040100001cc0000201c63364029c4001bb060000000003e80000000200";
    let got = flows(&[tcp]);
    assert_eq!((got[0].dst_port, got[0].ether_type), (Some(443), Some(0x0800)));
    for fields in [[32u16, 2, 7, 2, 11, 2, 4, 1], [4, 1, 7, 2, 11, 2, 32, 2], [11, 2, 32, 2, 4, 1, 7, 2]] {
        let template = set(2, &[words(&[257, 6, 8, 4, 12, 4]), words(&fields)].concat());
        let body: Vec<u8> = fields
            .chunks(2)
            .flat_map(|f| match f[0] {
                32 => vec![3, 1],
                4 => vec![1],
                _ => vec![0, 0],
            })
            .collect();
        let data = set(257, &[&[1, 1, 1, 1, 2, 2, 2, 2][..], &body].concat());
        let got = read(&mut Exporter::default(), &ipfix(0, &[template, data]), AT).unwrap().flows.remove(0).0;
        assert_eq!((got.src_port, got.dst_port), (Some(0), Some(0x0301)), "{fields:?}");
    }
    // Deltas count, wherever totals stand.
    for fields in [[1u16, 4, 85, 4], [85, 4, 1, 4]] {
        let template = set(2, &[words(&[257, 4, 8, 4, 12, 4]), words(&fields)].concat());
        let bytes = if fields[0] == 1 { [0, 0, 0, 5, 0, 0, 9, 9] } else { [0, 0, 9, 9, 0, 0, 0, 5] };
        let data = set(257, &[&[1, 1, 1, 1, 2, 2, 2, 2][..], &bytes].concat());
        assert_eq!(read(&mut Exporter::default(), &ipfix(0, &[template, data]), AT).unwrap().flows[0].0.bytes, Some(5));
    }
}

#[test]
fn a_packet_report_is_of_one_packet() {
    let sampled = "000a00646b08b9f000000000000000070002001801000004000a0004000e000401380002013bffff0100003c000000050000000605782a02000000000102000000000208004500001c0001000040110000c000020fc63364199c40119400080000000000";
    let got = flows(&[sampled]);
    assert_eq!((got[0].packets, got[0].l2_bytes, got[0].dst_port), (1, Some(1400), Some(4500)));
}

#[test]
fn parts_that_cannot_be_used_are_told() {
    let reserved = |id| set(id, &[0; 8]);
    let part = read(&mut Exporter::default(), &ipfix(0, &[template(), reserved(200), data(1)]), AT).unwrap();
    assert_eq!((part.flows.len(), part.templates, part.errors.as_slice()), (1, 1, &[NetFlowError::Reserved(200)][..]));
    let short = read(&mut Exporter::default(), &ipfix(0, &[template(), set(256, &[1, 2])]), AT).unwrap();
    assert!(matches!(short.errors[..], [NetFlowError::Template { id: 256, .. }]), "{:?}", short.errors);
    let mut nothing = ipfix(0, &[]);
    nothing[3] = 4;
    assert!(matches!(read(&mut Exporter::default(), &nothing, AT), Err(NetFlowError::SetLength { .. })));
    let v5 = "0005000100002710655453000000000000000064000040640a0000010a0000020a0000ff00010002000000050000019000001388000017700050c00000021b060800fde8fdea18100000";
    let v5 = [hex::decode(v5).unwrap(), vec![1, 2, 3]].concat();
    let got = read(&mut Exporter::default(), &v5, AT).unwrap();
    assert_eq!((got.flows.len(), got.errors.len()), (1, 1));
}

#[test]
fn reverse_counts_make_a_second_flow() {
    let mut exporter = Exporter::default();
    let mut fields = words(&[257, 4, 8, 4, 12, 4, 1, 1]);
    fields.extend(words(&[0x8001, 1]));
    fields.extend(elements::REVERSE_PEN.to_be_bytes());
    let got = read(&mut exporter, &ipfix(0, &[set(2, &fields), set(257, &[1, 1, 1, 1, 2, 2, 2, 2, 10, 20])]), AT)
        .unwrap()
        .flows;
    assert_eq!((got[0].0.bytes, got[1].0.bytes), (Some(10), Some(20)));
    assert_eq!(got[0].0.src_ip, got[1].0.dst_ip);
}

#[test]
fn state_survives_a_snapshot() {
    let mut exporter = Exporter::default();
    read(&mut exporter, &ipfix(0, &[template(), set(400, &[1, 2, 3])]), AT).unwrap();
    let text = serde_json::to_string(&exporter.held.first()).unwrap();
    assert_eq!(serde_json::from_str::<Option<held::HeldSet>>(&text).unwrap().as_ref(), exporter.held.first());
    // A template is compiled again.
    let text = serde_json::to_string(&exporter.templates).unwrap();
    exporter.templates = serde_json::from_str(&text).unwrap();
    assert_eq!(read(&mut exporter, &ipfix(1, &[data(7)]), AT).unwrap().flows[0].0.bytes, Some(7));
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(noise: Vec<u8>, cut in 0usize..200, flip in 0usize..200, bit in 0u8..8) {
        let mut exporter = Exporter::default();
        let _ = read(&mut exporter, &noise, AT);
        let mut m = ipfix(0, &[template(), data(1), template()]);
        m.truncate(cut);
        if let Some(b) = m.get_mut(flip) { *b ^= 1 << bit; }
        let _ = read(&mut exporter, &m, AT);
        for version in [5u16, 9, 10] {
            let mut m = version.to_be_bytes().to_vec();
            m.extend(&noise);
            let _ = read(&mut exporter, &m, AT);
            let _ = domain(&m);
        }
    }
}
