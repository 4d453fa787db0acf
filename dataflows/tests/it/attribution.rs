//! What is stored of an event, with what is learnt later laid over it, is whoever had the address at the event's time.

use std::collections::BTreeMap;

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::frame::Kind;
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::rows::{AttributionCorrection, Log, Row, StateRow, Table};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::*;

/// A log line that says when it was written, milliseconds after T0.
fn line(peer: &'static str, ms: i64) -> Input {
    let (s, ms) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    let at = format!("2024-01-01T{:02}:{:02}:{:02}.{ms:03}Z", s / 3600, s / 60 % 60, s % 60);
    let body = format!("<14>1 {at} - app - - - hello").into();
    Input { kind: Kind::Syslog, tenant: "t", partition: "default".into(), peer: Some(peer), body }
}

/// An item whose event time is a second after T0.
fn since(id: &str, ip: &str, second: i64) -> String {
    armis(id, ip, 86_400 + second, "")
}

fn rows<R: Row>(outputs: &[EpochOutput]) -> Vec<R> {
    let batches = outputs.iter().flat_map(|o| &o.events).filter(|(t, _)| *t == R::TABLE);
    batches.flat_map(|(_, b)| (0..b.num_rows()).map(|i| R::read(b, i)).collect::<Vec<_>>()).collect()
}

/// What a query says of a line: what is stored, or the newest that was learnt after it.
fn told(log: &Log, corrections: &[AttributionCorrection]) -> Option<String> {
    let ip = log.source_ip.map(|ip| ip.to_string()).unwrap_or_default();
    let later = corrections.iter().filter(|c| c.ip == ip && c.epoch > log.epoch && c.valid_from <= log.time);
    match later.max_by_key(|c| c.epoch) {
        Some(c) => {
            assert!(log.time < c.valid_to);
            c.device_uid.clone()
        }
        None => log.device_uid.clone(),
    }
}

/// Owners of an address in the order they became known, each with its beginning, by the versions of its row.
fn owners(outputs: &[EpochOutput], ip: &str) -> Vec<(i64, Option<String>)> {
    let rank = |class: &str| {
        let classes = ["sweep", "alias", "mapper", "stale_agent", "inventory", "agent", "operator", "shared"];
        classes.iter().position(|c| *c == class).expect("a class")
    };
    let mut owners = Vec::new();
    let mut last: Option<(usize, i64)> = None;
    let mut given_up = None;
    for output in outputs {
        let now = output.clock_ms * 1000;
        for change in output.changes.iter().filter(|c| c.table == Table::IpOwnership) {
            let row = |row: &Option<StateRow>| match row {
                Some(StateRow::IpOwnership(o)) if o.ip == ip => Some((**o).clone()),
                _ => None,
            };
            let (before, after) = (row(&change.before), row(&change.after));
            if before.is_none() && after.is_none() {
                continue;
            }
            let weight = after.as_ref().map(|a| (rank(&a.class), a.valid_from.0));
            let uid = |o: &Option<radarflow_proto::rows::IpOwnership>| o.as_ref().and_then(|o| o.device_uid.clone());
            if before.is_none() || after.is_none() || uid(&before) != uid(&after) {
                let from = match (&after, weight) {
                    (Some(a), Some(weight)) if a.class != "shared" => match last {
                        Some(last) if weight <= last => a.valid_from.0.max(given_up.unwrap_or(now)),
                        _ => a.valid_from.0,
                    },
                    _ => now,
                };
                owners.push((from, uid(&after)));
            }
            given_up = after.is_none().then_some(now);
            last = weight.or(last);
        }
    }
    owners
}

#[test]
fn who_is_learnt_late_to_have_had_an_address_is_given_what_was_stored_before() {
    let mut run = Run::new(2);
    run.tick(instances());
    run.tick_after(1000, vec![sync(&[since("A", "10.0.0.1", 1)])]);
    let a = run.tables.uids()[0].clone();
    run.tick_after(99_000, vec![line("10.0.0.1:514", 30_000), line("10.0.0.1:514", 90_000)]);
    assert!(run.rows::<AttributionCorrection>().is_empty(), "there was nothing stored to be corrected");
    // At 110 it is learnt that B had the address since 60.
    run.tick_after(10_000, vec![sync(&[since("B", "10.0.0.1", 60)])]);
    let b = run.tables.owner("default", "10.0.0.1").unwrap().device_uid.unwrap();
    assert_ne!(a, b);
    // These come late, and find who had it.
    run.tick_after(1000, vec![line("10.0.0.1:514", 31_000), line("10.0.0.1:514", 91_000)]);
    let corrections = run.rows::<AttributionCorrection>();
    let [correction] = &corrections[..] else { panic!("{corrections:?}") };
    assert_eq!(correction.valid_from.0, T0 * 1000 + 60_000_000);
    let logs = run.rows::<Log>();
    let stored: Vec<_> = logs.iter().map(|l| l.device_uid.clone().unwrap()).collect();
    assert_eq!(stored, [&a, &a, &a, &b].map(Clone::clone));
    let told: Vec<_> = logs.iter().map(|l| told(l, &corrections).unwrap()).collect();
    assert_eq!(told, [&a, &b, &a, &b].map(Clone::clone));
    // Whoever comes after the horizon is given to who had it then.
    run.tick_after(3_700_000, vec![line("10.0.0.1:514", 31_000)]);
    assert_eq!(run.rows::<Log>()[4].device_uid, Some(b));
}

const PEERS: [&str; 3] = ["10.0.0.1:514", "10.0.0.2:514", "10.0.0.3:514"];

#[test]
fn what_is_stored_and_what_is_learnt_later_are_the_intervals_of_ownership() {
    let traces = std::env::var("RADARFLOW_TRACES").ok().and_then(|n| n.parse().ok()).unwrap_or(3000) / 50;
    let first = std::env::var("RADARFLOW_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (mut corrected, mut lines) = (0, 0);
    for seed in first..first + traces {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut run = Run::new(1 + seed as usize % 3);
        let mut outputs = Vec::new();
        run.tick(instances());
        for step in 0..40 {
            let now_s = (run.clock_ms - T0) / 1000;
            let mut inputs = Vec::new();
            for _ in 0..rng.random_range(0..3) {
                let peer = PEERS[rng.random_range(0..3)];
                let ip = peer.split(':').next().unwrap();
                let id = ["A", "B", "C", "D"][rng.random_range(0..4)];
                let second = (now_s - rng.random_range(0..600)).max(0);
                inputs.push(match rng.random_range(0..10) {
                    0..5 => sync(&[since(id, ip, second)]),
                    5 => sync(&[netbox(id, ip, 86_400 + second, "")]),
                    6 => sync(&[armis(id, ip, 86_400 + second, r#","_deleted":"true""#)]),
                    7 => sweep("v", "default", 86_400 + second, &[(ip, true)]),
                    _ => line(peer, run.clock_ms - T0 - rng.random_range(0..900_000)),
                });
            }
            let peer = PEERS[rng.random_range(0..3)];
            inputs.push(line(peer, run.clock_ms - T0 - rng.random_range(0..60_000)));
            if step == 20 && seed % 2 == 0 {
                // What was known lately is known after a restart.
                inputs.push(fact(&Fact::Snapshot));
                run.tick_after(30_000, inputs);
                let start = Start { epoch: run.epoch, gap_ms: 0, state: run.snapshot.clone(), ..Default::default() };
                let (clock, workers) = (run.clock_ms, 1 + rng.random_range(0..3usize));
                outputs.append(&mut run.outputs_seen);
                run = Run::from(workers, start, clock);
                // What it says again is nothing new.
                run.outputs_seen.clear();
                continue;
            }
            run.tick_after(rng.random_range(1_000..60_000), inputs);
        }
        outputs.append(&mut run.outputs_seen);
        let corrections = rows::<AttributionCorrection>(&outputs);
        let known: BTreeMap<String, _> =
            PEERS.map(|peer| peer.split(':').next().unwrap()).map(|ip| (ip.to_owned(), owners(&outputs, ip))).into();
        for log in rows::<Log>(&outputs) {
            let had = &known[&log.source_ip.unwrap().to_string()];
            let right = had.iter().rfind(|(from, _)| *from <= log.time.0).and_then(|(_, uid)| uid.clone());
            let told = told(&log, &corrections);
            assert_eq!(told, right, "seed {seed}: {:?} at {:?}, stored {:?}", log.source_ip, log.time, log.device_uid);
            corrected += usize::from(told != log.device_uid);
            lines += 1;
        }
    }
    assert!(corrected * 20 > lines, "of {lines} lines {corrected} were corrected");
}
