//! Devices behind others: one alert about the one before, none of those behind, and each told of once it can be seen; in whatever
//! order it is learnt, on any number of workers, out of any snapshot.

use std::collections::{BTreeMap, BTreeSet};

use radarflow_dataflows::health::{FLAP_QUIET_MS, FLAPS, RETURN_MS};
use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::Fact;
use radarflow_proto::rows::{HealthEvent, StateRow};
use serde_json::json;

use crate::harness::*;
use crate::resources::{command, put};

const MINUTE: i64 = 60_000;

fn dependency(id: &str, parent: &str, children: &str) -> Input {
    command("t", id, None, vec![put("dependencies", "d", json!({"parent": parent, "children": children}))])
}

/// A minute later each of these was looked at twice.
fn looks(now: i64, looks: &[(&str, bool)]) -> Vec<Input> {
    let each = |(ip, up): &(&str, bool)| [now - 1000, now].map(|at| check("agent-7", at, ip, Some(*up)));
    looks.iter().flat_map(each).collect()
}

/// The addresses of devices whose alerts burn, by rule.
fn burning(run: &Run, rule: &str) -> BTreeSet<String> {
    let of = |row: &StateRow| match row {
        StateRow::Alert(a) if a.status != "resolved" && a.rule == rule => {
            let uid = a.device_uid.clone().unwrap();
            Some(run.tables.device(&uid).ip.clone().unwrap_or_default())
        }
        _ => None,
    };
    run.tables.state.values().filter_map(of).collect()
}

fn set(ips: &[&str]) -> BTreeSet<String> {
    ips.iter().map(|ip| (*ip).to_owned()).collect()
}

fn items() -> Input {
    let leaf = r#","role":"leaf""#;
    let core = r#","role":"core""#;
    sync(&[
        netbox("1", "10.0.0.1", 1, core),
        netbox("2", "10.0.0.2", 1, leaf),
        netbox("3", "10.0.0.3", 1, leaf),
        netbox("4", "10.0.0.4", 1, ""),
    ])
}

#[test]
fn what_is_behind_a_device_that_is_down_is_not_told_of_whatever_is_learnt_first() {
    let declared = |id| dependency(id, "metadata.role:core", "metadata.role:leaf");
    let up: Vec<(&str, bool)> = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(|ip| (ip, true)).into();
    for (workers, first) in [(1, "declared"), (2, "children"), (3, "parent"), (2, "late")] {
        let mut run = Run::new(workers);
        run.tick([instances(), vec![items()]].concat());
        if first != "late" {
            run.tick(vec![declared("a")]);
        }
        // Each minute all of them are looked at.
        let mut now_up: BTreeMap<String, bool> = up.iter().map(|(ip, up)| ((*ip).to_owned(), *up)).collect();
        let mut minute = |run: &mut Run, of: &[(&str, bool)]| {
            now_up.extend(of.iter().map(|(ip, up)| ((*ip).to_owned(), *up)));
            let all: Vec<(&str, bool)> = now_up.iter().map(|(ip, up)| (ip.as_str(), *up)).collect();
            run.tick_after(MINUTE, looks(run.clock_ms + MINUTE, &all));
        };
        minute(&mut run, &up);
        assert_eq!(burning(&run, "device-offline"), set(&[]));
        let (parent, children) =
            ([("10.0.0.1", false)], [("10.0.0.2", false), ("10.0.0.3", false), ("10.0.0.4", false)]);
        if first == "parent" {
            minute(&mut run, &parent);
            minute(&mut run, &children);
        } else {
            minute(&mut run, &children);
            minute(&mut run, &parent);
        }
        if first == "late" {
            assert_eq!(burning(&run, "device-offline").len(), 4);
            run.tick(vec![declared("a")]);
        }
        assert_eq!(burning(&run, "device-offline"), set(&["10.0.0.1", "10.0.0.4"]), "{first}");
        let behind = |run: &Run| -> BTreeSet<String> {
            let events = run.rows::<HealthEvent>().into_iter().filter(|e| e.new_state == "unreachable");
            events.map(|e| e.reason).collect()
        };
        let core = run.tables.owner("default", "10.0.0.1").unwrap().device_uid.unwrap();
        let name = run.tables.device(&core).display_name.clone();
        assert_eq!(behind(&run), BTreeSet::from([format!("behind {name} ({core}), which is unavailable")]));
        // A restart knows it, and says nothing twice.
        run.tick(vec![fact(&Fact::Snapshot)]);
        let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
        let mut run = Run::from(3, start, run.clock_ms);
        run.tick(vec![]);
        assert_eq!(burning(&run, "device-offline"), set(&["10.0.0.1", "10.0.0.4"]));
        assert_eq!(run.rows::<HealthEvent>().len(), 0);
        // The one before returns: those that did not are told of now.
        minute(&mut run, &[("10.0.0.1", true), ("10.0.0.2", true)]);
        for n in 1..RETURN_MS / MINUTE {
            assert_eq!(burning(&run, "device-offline"), set(&["10.0.0.4"]), "{n} minutes: it may return, too");
            minute(&mut run, &[]);
        }
        minute(&mut run, &[]);
        assert_eq!(burning(&run, "device-offline"), set(&["10.0.0.3", "10.0.0.4"]));
        minute(&mut run, &[("10.0.0.1", false), ("10.0.0.3", false)]);
        assert_eq!(burning(&run, "device-offline"), set(&["10.0.0.1", "10.0.0.4"]));
        // It was wrong.
        run.tick(vec![dependency("b", "metadata.role:core", "ip:10.9.9.9")]);
        (0..=RETURN_MS / MINUTE).for_each(|_| minute(&mut run, &[]));
        assert_eq!(burning(&run, "device-offline"), set(&["10.0.0.1", "10.0.0.3", "10.0.0.4"]));
    }
}

#[test]
fn a_device_that_comes_and_goes_is_one_alert_until_it_is_quiet() {
    let mut run = Run::new(2);
    run.tick([instances(), vec![items()]].concat());
    let minute = |run: &mut Run, up: bool| {
        let now = run.clock_ms + MINUTE;
        run.tick_after(MINUTE, looks(now, &[("10.0.0.1", up)]));
    };
    minute(&mut run, true);
    for n in 0..FLAPS {
        assert_eq!(burning(&run, "device-flapping"), set(&[]), "after {n}");
        minute(&mut run, n % 2 == 1);
    }
    assert_eq!(burning(&run, "device-flapping"), set(&["10.0.0.1"]));
    minute(&mut run, false);
    assert_eq!(burning(&run, "device-offline"), set(&[]), "not each time by itself");
    run.tick(vec![fact(&Fact::Snapshot)]);
    let start = Start { epoch: run.epoch, state: run.snapshot.clone(), ..Start::default() };
    let mut run = Run::from(1, start, run.clock_ms);
    for n in 1..FLAP_QUIET_MS / MINUTE {
        minute(&mut run, false);
        let flapping = burning(&run, "device-flapping");
        assert_eq!(
            (flapping, burning(&run, "device-offline")),
            (set(&["10.0.0.1"]), set(&[])),
            "quiet for {n} minutes"
        );
    }
    minute(&mut run, false);
    assert_eq!(burning(&run, "device-flapping"), set(&[]));
    assert_eq!(burning(&run, "device-offline"), set(&["10.0.0.1"]), "it stayed down");
}
