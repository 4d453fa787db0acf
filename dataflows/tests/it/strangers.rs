//! What strangers can make permanent: nothing. Senders whose address proves nothing come and go within bounds, and the
//! names of rows are unique whatever order messages come in.

use std::collections::BTreeMap;

use radarflow_dataflows::alerts::{MAX_PAIRS, MAX_PAIRS_OF_ADDRESS};
use radarflow_dataflows::decode::senders::{MAX_BYTES, MAX_SENDERS};
use radarflow_dataflows::health::MAX_LOG_SOURCES;
use radarflow_dataflows::strangers::{BUCKETS, bucket, bucket_of_text};
use radarflow_dataflows::worker::Start;
use radarflow_proto::cell::RowId;
use radarflow_proto::frame::Kind;
use radarflow_proto::rows::{Flow, Source, StateRow};
use radarflow_proto::snmp::usm::Level;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::*;

const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

fn words(w: &[u16]) -> Vec<u8> {
    w.iter().flat_map(|n| n.to_be_bytes()).collect()
}

fn input(kind: Kind, tenant: &'static str, peer: &str, body: Vec<u8>) -> Input {
    let peer = Some(&*peer.to_owned().leak());
    Input { kind, tenant, partition: "default".into(), peer, body: body.into() }
}

fn set(id: u16, body: &[u8]) -> Vec<u8> {
    [words(&[id, 4 + body.len() as u16]), body.to_vec()].concat()
}

/// A template of source, destination and bytes.
fn template(id: u16) -> Vec<u8> {
    set(0, &words(&[id, 3, 8, 4, 12, 4, 1, 4]))
}

/// A set of so many flows.
fn flows(id: u16, n: u8) -> Vec<u8> {
    set(id, &(0..n).flat_map(|n| [10, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, n]).collect::<Vec<_>>())
}

fn v9(tenant: &'static str, ip: &str, sets: &[Vec<u8>]) -> Input {
    v9_of(tenant, ip, 0, sets)
}

fn v9_of(tenant: &'static str, ip: &str, id: u32, sets: &[Vec<u8>]) -> Input {
    let head = [words(&[9, sets.len() as u16]), vec![0; 12], id.to_be_bytes().into()].concat();
    input(Kind::NetFlow, tenant, &format!("{ip}:2055"), [head, sets.concat()].concat())
}

fn spoofed(n: u32) -> String {
    std::net::Ipv4Addr::from(0xc000_0000 + n).to_string()
}

fn syslog(ip: &str) -> Input {
    input(Kind::Syslog, "t", &format!("{ip}:514"), b"<14>1 - - - - - - hello".to_vec())
}

fn junk(ip: &str) -> Input {
    input(Kind::Trap, "t", &format!("{ip}:161"), b"no trap".to_vec())
}

fn ledgers(run: &Run) -> Vec<Source> {
    let of = |row: &StateRow| if let StateRow::Source(source) = row { Some((**source).clone()) } else { None };
    run.tables.state.values().filter_map(of).collect()
}

/// What all ledgers say together: received, and stored, rejected and shed.
fn sums(run: &Run) -> (i64, i64) {
    let ledgers = ledgers(run);
    let received = ledgers.iter().map(|l| l.received).sum();
    (received, ledgers.iter().map(|l| l.stored + l.rejected + l.shed).sum())
}

fn kept(run: &Run, collection: &str) -> usize {
    run.snapshot.get(collection).map_or(0, Vec::len)
}

#[test]
fn every_row_has_a_name_of_its_own_whenever_templates_come() {
    for seed in 0..30 {
        let mut rng = StdRng::seed_from_u64(seed);
        let script: Vec<Vec<Input>> = (0..8)
            .map(|_| {
                let messages = 0..rng.random_range(1..5);
                messages
                    .map(|_| {
                        let sets: Vec<_> = (0..rng.random_range(1..7))
                            .map(|_| {
                                let id = 300 + rng.random_range(0..3);
                                if rng.random_range(0..4) == 0 {
                                    template(id)
                                } else {
                                    flows(id, rng.random_range(1..4))
                                }
                            })
                            .collect();
                        v9("t", ["10.9.0.1", "10.9.0.2", "10.9.0.3"][rng.random_range(0..3)], &sets)
                    })
                    .collect()
            })
            .collect();
        let named = [1, 2].map(|workers| {
            let mut run = Run::new(workers);
            for inputs in &script {
                run.tick(inputs.clone());
            }
            let mut named: BTreeMap<RowId, Flow> = BTreeMap::new();
            for row in run.rows::<Flow>() {
                let old = named.insert(row.row_id, row);
                assert_eq!(old, None, "seed {seed}, {workers} workers: two rows of one name");
            }
            named
        });
        assert_eq!(named[0], named[1], "seed {seed}");
        assert!(!named[0].is_empty());
    }
}

#[test]
fn a_flood_of_spoofed_headers_drives_out_no_exporter_that_is_proven_and_locks_out_none_that_comes_later() {
    let mut run = Run::new(2);
    run.tick(vec![v9("t", "10.0.0.1", &[template(300), flows(300, 1)])]);
    for flood in (0..20_000).collect::<Vec<_>>().chunks(5_000) {
        run.tick(flood.iter().map(|n| v9("t", &spoofed(*n), &[])).collect());
    }
    let rows = |run: &mut Run, ip: &str, tenant, sets: &[Vec<u8>]| {
        let before = run.rows::<Flow>().len();
        run.tick(vec![v9(tenant, ip, sets)]);
        run.rows::<Flow>().len() - before
    };
    assert_eq!(rows(&mut run, "10.0.0.1", "t", &[flows(300, 2)]), 2, "who was there before");
    assert_eq!(rows(&mut run, "10.0.0.2", "u", &[template(300), flows(300, 3)]), 3, "another tenant's");
    assert_eq!(rows(&mut run, "10.0.0.2", "t", &[template(300), flows(300, 4)]), 4, "who comes later");
    assert_eq!(rows(&mut run, "10.0.0.2", "t", &[flows(300, 5)]), 5, "and stays");
    // They were quiet for ten minutes.
    run.tick_after(10 * MINUTE_MS, vec![]);
    let snapshot = || fact(&radarflow_proto::fact::Fact::Snapshot);
    run.tick(vec![snapshot()]);
    assert_eq!(kept(&run, "exporters"), 3);
    run.tick_after(7 * DAY_MS, vec![snapshot()]);
    assert_eq!(kept(&run, "exporters"), 0);
}

#[test]
fn ledgers_of_spoofed_senders_are_bounded_end_and_balance_with_what_was_sent() {
    let mut run = Run::new(2);
    run.tick(vec![syslog("10.0.0.1"), junk("10.0.0.1")]);
    run.tick_after(2 * MINUTE_MS, vec![syslog("10.0.0.1")]);
    let mut sent = 3;
    for flood in (0..20_000).collect::<Vec<_>>().chunks(5_000) {
        run.tick(flood.iter().flat_map(|n| [syslog(&spoofed(*n)), junk(&spoofed(n + 100_000))]).collect());
        sent += 10_000;
    }
    run.tick_after(2000, vec![]);
    assert_eq!(sums(&run), (sent, sent));
    assert!(ledgers(&run).len() <= 16_385, "{} ledgers", ledgers(&run).len());
    let is_there = |run: &Run| ledgers(run).iter().any(|l| l.exporter == "10.0.0.1");
    assert!(is_there(&run), "who was there before has its ledger");
    run.tick_after(10 * MINUTE_MS, vec![]);
    run.tick_after(2000, vec![]);
    let unproven = ledgers(&run).iter().filter(|l| l.rows == 0 && !l.exporter.is_empty()).count();
    assert_eq!((unproven, sums(&run), is_there(&run)), (0, (sent, sent), true));
    run.tick_after(7 * DAY_MS, vec![]);
    run.tick_after(2000, vec![]);
    assert_eq!(ledgers(&run).iter().map(|l| l.exporter.as_str()).collect::<Vec<_>>(), [""]);
    assert_eq!(sums(&run), (sent, sent));
}

#[test]
fn sets_that_waited_too_long_are_given_up_and_told_as_lost_however_quiet_their_exporter_is() {
    let mut run = Run::new(2);
    run.tick(vec![v9("t", "10.0.0.1", &[template(301), flows(301, 1), flows(300, 1), flows(300, 1)])]);
    run.tick_after(20 * MINUTE_MS, vec![v9("t", "10.0.0.1", &[flows(300, 1)])]);
    run.tick_after(2000, vec![]);
    let waiting = |run: &Run| ledgers(run).iter().map(|l| (l.waiting_sets, l.lost)).collect::<Vec<_>>();
    assert_eq!(waiting(&run), [(3, 0)]);
    run.tick_after(10 * MINUTE_MS, vec![]);
    run.tick_after(2000, vec![]);
    assert_eq!(waiting(&run), [(1, 2)]);
    // An exporter that is forgotten loses what waited in it.
    run.tick(vec![v9("t", "10.0.0.2", &[flows(300, 1)])]);
    run.tick_after(10 * MINUTE_MS, vec![]);
    run.tick_after(2000, vec![]);
    // Its ledger has ended too: nothing of it ever became a row. The feed counts it.
    let of = ledgers(&run).into_iter().map(|l| (l.exporter, l.waiting_sets, l.lost)).collect::<Vec<_>>();
    assert_eq!(of, [(String::new(), 0, 1), ("10.0.0.1".to_owned(), 1, 2)]);
    run.tick(vec![v9("t", "10.0.0.1", &[template(300)])]);
    assert_eq!(run.rows::<Flow>().len(), 2);
}

/// Addresses that share a bucket.
fn neighbours(n: usize) -> Vec<String> {
    let here = |ip: &String| bucket("default", ip.parse().unwrap()) == 0;
    (0..).map(spoofed).filter(here).take(n).collect()
}

/// Exporters that send for a while, and a flood of their bucket: of headers, of flows, of sets without templates, of
/// domains of one address.
fn flood() -> Vec<Vec<Input>> {
    let senders = neighbours(3 * MAX_SENDERS);
    let (first, others) = senders.split_at(20);
    let of_first = |sets: &[Vec<u8>]| first.iter().map(|ip| v9("t", ip, sets)).collect::<Vec<_>>();
    let mut script = vec![of_first(&[template(300), flows(300, 1)])];
    script.extend((0..40).map(|_| of_first(&[flows(300, 1), flows(301, 1)])));
    for part in others.chunks(100) {
        let waiting = [flows(302, 200), flows(302, 200), flows(303, 200), flows(303, 200)];
        for sets in [&[][..], &[template(300), flows(300, 1)], &waiting] {
            script.push(part.iter().map(|ip| v9("t", ip, sets)).collect());
        }
    }
    script.push((1..200).map(|id| v9_of("t", &first[0], id, &[template(300), flows(300, 1)])).collect());
    script.push(of_first(&[flows(300, 1)]));
    script
}

#[test]
fn who_makes_place_in_a_flood_is_the_same_on_any_number_of_workers_and_after_a_restart() {
    let script = flood();
    let said = |run: &Run| {
        let mut rows: Vec<_> = run.rows::<Flow>().iter().map(|r| (r.row_id, r.sampler_address)).collect();
        rows.sort_unstable();
        (rows, run.tables.state.clone())
    };
    let mut whole = Run::new(1);
    for inputs in script.iter().chain([&vec![], &vec![]]) {
        whole.tick_after(1000, inputs.clone());
    }
    // Who was there before the flood has still its templates.
    let last = whole.outputs_seen.iter().rev().nth(2).unwrap();
    assert_eq!(last.events.iter().map(|(_, rows)| rows.num_rows()).sum::<usize>(), 20);
    for cut in [3, 50, script.len() - 1] {
        let mut before = Run::new(2);
        for (i, inputs) in script[..cut].iter().enumerate() {
            let mut inputs = inputs.clone();
            if i + 1 == cut {
                inputs.push(fact(&radarflow_proto::fact::Fact::Snapshot));
            }
            before.tick_after(1000, inputs);
        }
        assert!(kept(&before, "exporters") <= MAX_SENDERS);
        let bytes: usize = before.snapshot["exporters"].iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(bytes <= MAX_BYTES, "{bytes} bytes");
        let start = Start { epoch: before.epoch, gap_ms: 0, state: before.snapshot.clone(), ..Default::default() };
        let mut after = Run::from(3, start, before.clock_ms);
        for inputs in script[cut..].iter().chain([&vec![], &vec![]]) {
            after.tick_after(1000, inputs.clone());
        }
        after.outputs_seen.extend(std::mem::take(&mut before.outputs_seen));
        assert_eq!(said(&after), said(&whole), "cut at {cut}");
    }
}

#[test]
fn the_addresses_of_a_network_are_in_all_buckets_alike() {
    let alike = |buckets: Vec<u64>| {
        let mean = buckets.len() / BUCKETS as usize;
        let of = |bucket| buckets.iter().filter(|b| **b == bucket).count();
        (0..BUCKETS).all(|bucket| (mean / 2..=mean * 2).contains(&of(bucket)))
    };
    let ips: Vec<String> = (0..4096).map(spoofed).collect();
    assert!(alike(ips.iter().map(|ip| bucket("default", ip.parse().unwrap())).collect()));
    assert!(alike(ips.iter().map(|ip| bucket("default", format!("2001:db8::{ip}").parse().unwrap())).collect()));
    assert!(alike(ips.iter().map(|ip| bucket_of_text(ip)).collect()));
}

fn error_line(ip: &str) -> Input {
    input(Kind::Syslog, "t", &format!("{ip}:514"), b"<11>1 - - - - - - wrong".to_vec())
}

#[test]
fn a_burst_is_noticed_among_many_strangers_of_whom_few_are_kept() {
    let mut run = Run::new(2);
    let strangers = neighbours(2 * MAX_LOG_SOURCES + 1);
    for lines in strangers[1..].chunks(10) {
        run.tick(lines.iter().chain([&strangers[0], &strangers[0]]).map(|ip| error_line(ip)).collect());
    }
    let firing = run.tables.state.values().filter(|row| matches!(row, StateRow::Alert(a) if a.status != "resolved"));
    assert_eq!(firing.count(), 1);
    run.tick(vec![fact(&radarflow_proto::fact::Fact::Snapshot)]);
    let bytes: usize = run.snapshot["bursts"].iter().map(|(_, value)| value.len()).sum();
    assert!(bytes <= MAX_LOG_SOURCES * 64, "{bytes} bytes");
    run.tick_after(10 * MINUTE_MS, vec![]);
    run.tick(vec![fact(&radarflow_proto::fact::Fact::Snapshot)]);
    assert_eq!(kept(&run, "bursts"), 0);
}

/// A `linkDown`, or `linkUp`, of an interface.
fn link(ip: &str, interface: &str, is_up: bool) -> Input {
    let oid = if is_up { "1.3.6.1.6.3.1.1.5.4" } else { "1.3.6.1.6.3.1.1.5.3" };
    let body = format!(
        r#"{{"source":"{ip}","trap_oid":"{oid}","varbinds":[{{"oid":"1.3.6.1.2.1.2.2.1.1.1","value":"INTEGER: {interface}"}}]}}"#
    );
    input(Kind::TrapJson, "t", &format!("{ip}:162"), body.into())
}

#[test]
fn a_flood_of_invented_senders_does_not_keep_the_link_of_a_known_one_out() {
    let mut run = Run::new(2);
    let all = neighbours(MAX_PAIRS + 3);
    let (known, strangers) = all.split_at(3);
    let down = |ip: &str, level| notification(format!("{ip}:161").leak(), 0xa7, 1, LINK_DOWN, 3, level);
    let is_down = |run: &Run, ip: &str| {
        let is = |row: &StateRow| matches!(row, StateRow::Alert(a) if a.status != "resolved" && a.source_id == format!("{ip}/3"));
        run.tables.state.values().any(is)
    };
    let up = |ip: &str| notification(format!("{ip}:161").leak(), 0xa7, 1, LINK_UP, 3, None);
    run.tick(vec![up(&known[0])]);
    run.tick_after(MINUTE_MS, vec![up(&known[0])]);
    for ips in strangers.chunks(200) {
        run.tick(ips.iter().map(|ip| down(ip, None)).collect());
    }
    assert!(strangers.iter().all(|ip| is_down(&run, ip)));
    run.tick(vec![down(&known[0], None), down(&known[1], None), down(&known[2], Some(Level::AuthPriv))]);
    assert_eq!([0, 1, 2].map(|n| is_down(&run, &known[n])), [true, false, true]);
    assert_eq!(strangers.iter().filter(|ip| is_down(&run, ip)).count(), MAX_PAIRS - 2);
}

#[test]
fn links_that_strangers_say_are_down_are_bounded_and_come_to_an_end() {
    let mut run = Run::new(2);
    let strangers = neighbours(2 * MAX_PAIRS);
    let down = |run: &Run| {
        let firing =
            run.tables.state.values().filter(|row| matches!(row, StateRow::Alert(a) if a.status != "resolved"));
        firing.count()
    };
    run.tick(vec![link(&strangers[0], "1", false), link(&strangers[0], &"9".repeat(50_000), false)]);
    assert_eq!(down(&run), 1, "what is no number is no interface");
    run.tick((1..1000).map(|n| link(&strangers[0], &n.to_string(), false)).collect());
    assert_eq!(down(&run), MAX_PAIRS_OF_ADDRESS);
    for ips in strangers.chunks(200) {
        run.tick(ips.iter().map(|ip| link(ip, "1", false)).collect());
    }
    assert_eq!(down(&run), MAX_PAIRS);
    run.tick(vec![link(&strangers[0], "1", true), link(&strangers[0], "5000", false)]);
    assert_eq!(down(&run), MAX_PAIRS, "what ends makes room");
    run.tick_after(7 * DAY_MS, vec![link(&strangers[0], "5000", false)]);
    run.tick(vec![]);
    assert_eq!(down(&run), 1);
}
