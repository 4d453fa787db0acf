//! What becomes of messages that collectors are known to get wrong: disorder, parts that cannot be used, formats on another's
//! port. How each is decoded is tested where its decoder is; here what rows and ledgers say.

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::Kind;
use radarflow_proto::rows::{Flow, InterfaceCounters, Log, Reject, Source, StateRow, Trap};

use crate::harness::*;

fn input(kind: Kind, peer: &'static str, body: impl Into<bytes::Bytes>) -> Input {
    Input { kind, tenant: "t", partition: "default".into(), peer: Some(peer), body: body.into() }
}

fn words(w: &[u16]) -> Vec<u8> {
    w.iter().flat_map(|n| n.to_be_bytes()).collect()
}

/// A set of one flow, after its template and whatever stands between.
fn ipfix(peer: &'static str, sequence: u32, between: &[u8]) -> Input {
    let template = words(&[2, 20, 256, 3, 8, 4, 12, 4, 1, 4]);
    let data = [words(&[256, 16]), vec![10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 9]].concat();
    let sets = [&template[..], between, &data].concat();
    let head = [words(&[10, 16 + sets.len() as u16]), [1_704_067_200, sequence, 7].map(u32::to_be_bytes).concat()];
    input(Kind::NetFlow, peer, [head.concat(), sets].concat())
}

/// A datagram of one sampled packet.
fn sflow(peer: &'static str, sequence: u32) -> Input {
    let sampled = [80, 6, 0x0a00_0001, 0x0a00_0002, 1, 2, 0, 0];
    let sample = [1, 0, 1, 1000, 0, 0, 1, 2, 1, 3, 32].into_iter().chain(sampled);
    let sample: Vec<u8> = sample.flat_map(u32::to_be_bytes).collect();
    let head = [5, 1, 0x7f00_0001, 0, sequence, 1000, 1, 1, sample.len() as u32].map(u32::to_be_bytes).concat();
    input(Kind::SFlow, peer, [head, sample].concat())
}

/// The ledger of an exporter: received, stored, rejected, lost, rows.
fn ledger(run: &Run, exporter: &str) -> [i64; 5] {
    let of = |row: &StateRow| match row {
        StateRow::Source(source) if source.exporter == exporter => Some((**source).clone()),
        _ => None,
    };
    let Source { received, stored, rejected, lost, rows, .. } =
        run.tables.state.values().find_map(of).unwrap_or_else(|| panic!("no ledger of {exporter}"));
    [received, stored, rejected, lost, rows]
}

#[test]
fn what_comes_late_is_not_lost() {
    let mut run = Run::new(2);
    // In one epoch, and over epochs.
    run.tick([0, 2, 1, 3].map(|n| ipfix("10.0.0.1:4739", n, &[])).into());
    run.tick([0, 2, 1, 3].map(|n| sflow("10.0.0.2:6343", n)).into());
    for n in [0, 2, 1, 3] {
        run.tick_after(2000, vec![ipfix("10.0.0.3:4739", n, &[]), sflow("10.0.0.4:6343", n)]);
        if n == 2 {
            run.tick_after(2000, vec![]);
            assert_eq!((ledger(&run, "10.0.0.3")[3], ledger(&run, "10.0.0.4")[3]), (1, 1), "not there yet");
        }
    }
    // One is lost, and stays so.
    run.tick_after(2000, vec![ipfix("10.0.0.3:4739", 5, &[]), sflow("10.0.0.4:6343", 5)]);
    // An exporter that was silent speaks from another port, and counts anew.
    run.tick_after(2000, vec![ipfix("10.0.0.3:4740", 900, &[])]);
    run.tick_after(2000, vec![]);
    for (exporter, messages, lost) in [("10.0.0.1", 4, 0), ("10.0.0.2", 4, 0), ("10.0.0.3", 6, 1), ("10.0.0.4", 5, 1)] {
        assert_eq!(ledger(&run, exporter), [messages, messages, 0, lost, messages], "{exporter}");
    }
}

#[test]
fn a_message_that_is_used_in_part_is_stored_and_its_part_is_told() {
    let mut run = Run::new(2);
    let reserved = words(&[200, 8, 0, 0]);
    run.tick(vec![ipfix("10.0.0.1:4739", 0, &[&reserved[..], &reserved].concat())]);
    let nothing = [words(&[10, 24]), [1_704_067_200, 0, 7].map(u32::to_be_bytes).concat(), reserved].concat();
    run.tick(vec![input(Kind::NetFlow, "10.0.0.2:4739", nothing)]);
    run.tick_after(2000, vec![]);
    assert_eq!((ledger(&run, "10.0.0.1"), run.rows::<Flow>().len()), ([1, 1, 0, 0, 1], 1));
    let reasons: Vec<String> = run.rows::<Reject>().into_iter().map(|reject| reject.reason).collect();
    assert_eq!(reasons, ["set 200 is reserved; 1 more of its parts cannot be used", "set 200 is reserved"]);
}

/// A datagram of samples, each with its format.
fn samples(peer: &'static str, samples: &[(u32, Vec<u32>)]) -> Input {
    let mut sent = vec![5, 1, 0x7f00_0001, 0, 7, 1000, samples.len() as u32];
    for (format, sample) in samples {
        sent.extend([*format, sample.len() as u32 * 4]);
        sent.extend(sample);
    }
    input(Kind::SFlow, peer, sent.into_iter().flat_map(u32::to_be_bytes).collect::<Vec<u8>>())
}

#[test]
fn what_agents_count_and_drop_are_rows() {
    let mut run = Run::new(2);
    let counted =
        [1, 7, 1, 1, 88, 7, 6, 0, 1_000_000_000, 1, 1, 0, 5, 11, 12, 13, 14, 15, u32::MAX, 0, 9, 21, 22, 23, 24, 25, 2];
    let dropped = [9, 0, 17, 4, 17, 0, 258, 1, 3, 32, 80, 6, 0x0a00_0001, 0x0a00_0002, 1000, 443, 0x18, 0];
    run.tick(vec![
        samples("10.0.0.1:6343", &[(2, counted.to_vec()), (5, dropped.to_vec())]),
        // Counters of a host are nobody's here, and said to be.
        samples("10.0.0.2:6343", &[(2, vec![1, 7, 1, 2003, 4, 0])]),
    ]);
    run.tick_after(2000, vec![]);
    let counters = run.rows::<InterfaceCounters>();
    let of =
        |c: &InterfaceCounters| (c.if_index, c.if_speed_bps, c.is_admin_up, c.is_oper_up, c.in_bytes, c.out_errors);
    assert_eq!(counters.iter().map(of).collect::<Vec<_>>(), [(7, 1_000_000_000, true, false, 5, Some(25))]);
    assert_eq!((counters[0].in_unknown_protocols, counters[0].sampler_address.to_string()), (None, "127.0.0.1".into()));
    let flows = run.rows::<Flow>();
    let of = |f: &Flow| (f.discard_reason.clone(), f.dst_endpoint_port, f.packets_total, f.sampler_id);
    assert_eq!(flows.iter().map(of).collect::<Vec<_>>(), [(Some("acl".to_owned()), Some(443), 1, Some(17))]);
    assert_eq!((ledger(&run, "10.0.0.1"), ledger(&run, "10.0.0.2")), ([1, 1, 0, 0, 2], [1, 0, 1, 0, 0]));
    let reasons: Vec<String> = run.rows::<Reject>().into_iter().map(|reject| reject.reason).collect();
    assert_eq!(reasons, ["counters of format 0.2003 are not read"]);
}

#[test]
fn formats_on_anothers_port() {
    let mut run = Run::new(1);
    let gelf = r#"{"version":"1.1","host":"web-1","short_message":"started","level":4,"_app_name":"shop"}"#;
    run.tick(vec![input(Kind::Syslog, "10.0.0.1:514", gelf), input(Kind::Syslog, "10.0.0.1:514", r#"{"a":1}"#)]);
    let logs = run.rows::<Log>();
    let of = |log: &Log| (log.hostname.clone(), log.body.clone(), log.parse_status.clone(), log.source_ip.is_some());
    let told: Vec<_> = logs.iter().map(of).collect();
    assert_eq!(
        told,
        [
            (Some("web-1".to_owned()), "started".to_owned(), "gelf".to_owned(), true),
            (None, r#"{"a":1}"#.to_owned(), "no_priority".to_owned(), true),
        ]
    );
    // SNMPv3 as the release before kept it: nobody had opened it.
    run.tick(vec![input(Kind::Trap, "10.0.0.1:161", vec![0x30, 8, 2, 1, 3, 0x30, 3, 2, 1, 7])]);
    assert_eq!(run.rows::<Reject>()[0].reason, "a message of v3 that nobody opened");
}

/// As the release before interfaces had names kept it: a template, what an application is called, a sampler, and a set that
/// waits for template 400.
const SECOND_EXPORTER: &str = concat!(
    "0180020000040804000c04005f04000102000e02ac020101025f040060040008ad02010102ae020100220200030801010164",
    "01d0808068046874747004010090038081c8ac0600080a0000010a0000026303040ad00f019003000168000000"
);

#[test]
fn what_an_earlier_release_kept_of_an_exporter_is_known_still() {
    let digits = SECOND_EXPORTER.as_bytes().chunks(2);
    let bytes: Vec<u8> =
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    let kept: radarflow_proto::netflow::SecondExporter = postcard::from_bytes(&bytes).unwrap();
    let mut exporter = kept.converted();
    assert_eq!(exporter.waiting(), (1, Some(400)));
    let template = words(&[2, 16, 400, 2, 8, 4, 12, 4]);
    let data = [words(&[256, 18]), vec![10, 0, 0, 3, 10, 0, 0, 4, 13, 0, 0, 80, 1, 0]].concat();
    let sets = [template, data].concat();
    let head = [words(&[10, 16 + sets.len() as u16]), [1_704_067_200, 3, 7].map(u32::to_be_bytes).concat()];
    let mut flows = Vec::new();
    let mut take = |flow: &radarflow_proto::flow::Flow, origin: radarflow_proto::netflow::FlowOrigin| {
        flows.push((origin.message, flow.src_ip.unwrap().to_string(), flow.app.clone(), flow.sampling.map(|s| s.0)));
    };
    let message = [head.concat(), sets].concat();
    exporter.decode(&message, (9, 0, 0), radarflow_proto::packet::Tunnels::ALL, &mut take).unwrap();
    let of = |message, ip: &str, app: &str| (message, ip.to_owned(), app.to_owned(), Some(100));
    assert_eq!(flows, [of((3, 4, 5), "10.0.0.1", ""), of((9, 0, 0), "10.0.0.3", "http")]);
}

const SOMETHING: &[u8] = &[0x2b, 6, 1, 4, 1, 9];

/// Received, stored, shed and rows of a sender.
fn balance(run: &Run, exporter: &str) -> [i64; 4] {
    let of = |row: &StateRow| match row {
        StateRow::Source(source) if source.exporter == exporter => Some((**source).clone()),
        _ => None,
    };
    let found = run.tables.state.values().find_map(of).unwrap_or_else(|| panic!("no ledger of {exporter}"));
    [found.received, found.stored, found.shed, found.rows]
}

#[test]
fn an_inform_that_is_sent_again_is_one_row() {
    let mut run = Run::new(2);
    let inform = |peer, id| notification(peer, 0xa6, id, SOMETHING, 3, None);
    run.tick(vec![inform("10.0.0.1:1000", 1), inform("10.0.0.1:1001", 1), inform("10.0.0.2:1000", 1)]);
    run.tick_after(2000, vec![inform("10.0.0.1:1000", 1), inform("10.0.0.1:1000", 2)]);
    // It is known over a restart, and not for ever.
    run.tick(vec![fact(&Fact::Snapshot)]);
    let start = Start { epoch: run.epoch, gap_ms: 0, state: run.snapshot.clone(), ..Default::default() };
    let mut run = Run::from(3, start, run.clock_ms);
    run.tick_after(2000, vec![inform("10.0.0.1:1000", 2)]);
    run.tick_after(2000, vec![]);
    assert_eq!((balance(&run, "10.0.0.1"), balance(&run, "10.0.0.2")), ([5, 5, 0, 2], [1, 1, 0, 1]));
    run.tick_after(400_000, vec![]);
    run.tick_after(2000, vec![inform("10.0.0.1:1000", 2)]);
    run.tick_after(2000, vec![]);
    assert_eq!(balance(&run, "10.0.0.1"), [6, 6, 0, 3]);
}

#[test]
fn a_storm_is_thinned_and_its_conditions_are_right_all_the_same() {
    let mut run = Run::new(2);
    let storm = (0..1_099).map(|n| notification("10.0.0.1:1000", 0xa7, n, SOMETHING, 3, None));
    let down = notification("10.0.0.1:1000", 0xa7, 7, LINK_DOWN, 3, None);
    let quiet = notification("10.0.0.2:1000", 0xa7, 1, SOMETHING, 3, None);
    let mut all: Vec<Input> = storm.chain([down, quiet]).collect();
    all.swap(1_095, 1_099);
    run.tick(all);
    run.tick_after(2000, vec![]);
    assert_eq!(balance(&run, "10.0.0.1"), [1_100, 1_010, 90, 1_010]);
    assert_eq!(balance(&run, "10.0.0.2"), [1, 1, 0, 1]);
    let traps = run.rows::<Trap>();
    assert!(traps.iter().all(|trap| trap.trap_oid != "1.3.6.1.6.3.1.1.5.3"), "it was not kept");
    let of = |row: &StateRow| matches!(row, StateRow::Alert(alert) if alert.rule == "link-down");
    assert_eq!(run.tables.state.values().filter(|row| of(row)).count(), 1);
}

#[test]
fn what_is_shed_before_the_ledger_is_its_senders() {
    let mut run = Run::new(2);
    let shed = |peer, n: u64| Input { peer, ..input(Kind::Counters, "", format!("{{\"shed\":{n}}}")) };
    run.tick(vec![shed(Some("10.0.0.1:0"), 7), shed(None, 2), shed(Some("10.0.0.1:0"), 1)]);
    run.tick_after(2000, vec![]);
    assert_eq!((balance(&run, "10.0.0.1"), balance(&run, "")), ([8, 0, 8, 0], [2, 0, 2, 0]));
}

#[test]
fn a_message_of_v3_that_is_refused_is_a_reject_as_it_came() {
    let mut run = Run::new(2);
    let refused = radarflow_proto::snmp::refused("no user `eve` of engine 80", b"as it came");
    run.tick(vec![input(Kind::Trap, "10.0.0.1:1000", refused)]);
    run.tick_after(2000, vec![]);
    let rejects = run.rows::<Reject>();
    assert_eq!((rejects[0].reason.as_str(), &rejects[0].bytes[..]), ("no user `eve` of engine 80", &b"as it came"[..]));
    assert_eq!(balance(&run, "10.0.0.1"), [1, 0, 0, 0]);
}
