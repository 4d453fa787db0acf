//! A restart from a snapshot equals no restart, and a replay gives the same bytes.

use radarflow_dataflows::worker::Start;
use radarflow_proto::fact::{DeviceAct, Fact, Stage};
use radarflow_proto::ports::EpochOutput;
use radarflow_proto::record::{IdKind, Identifier};

use crate::harness::*;
use crate::lifecycle::step;
use crate::telemetry::some_of_each;

fn netflow_v9(template: bool, n: u32) -> Input {
    let words = |w: &[u16]| w.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    let mut sets = Vec::new();
    if template {
        sets.extend(words(&[0, 20, 300, 3, 8, 4, 12, 4, 1, 4]));
    }
    sets.extend(words(&[300, 16]));
    sets.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    sets.extend(n.to_be_bytes());
    let mut m = words(&[9, 1]);
    m.extend([0u32, 1_704_067_200, n, 7].iter().flat_map(|n| n.to_be_bytes()));
    m.extend(sets);
    Input {
        kind: radarflow_proto::frame::Kind::NetFlow,
        tenant: "t",
        partition: "default".into(),
        peer: Some("10.0.0.9:2055"),
        body: m.into(),
    }
}

fn script() -> Vec<Vec<Input>> {
    let mut script = vec![instances()];
    script.push(vec![sync(&[armis("X", "10.0.0.1", 1, ""), netbox("N", "10.0.0.2", 2, r#","armis_device_id":"X""#)])]);
    // Staged runs of two tenants: with items that cannot be used, released in the frame of their last chunk, given up.
    let run = |run: &str, tenant, n: u32| {
        let item = |i: u32| armis(&format!("{run}{i}"), &format!("10.3.{n}.{i}"), 1, "");
        staged(run, n, tenant, &[item(1), "{}".to_owned(), item(2), r#"{"source":7}"#.to_owned()])
    };
    script.push((0..6).map(|n| run("z", "t", n)).chain([run("lost", "t", 0)]).collect());
    script.push(vec![run("a", "u", 0), release("a", "u", true), release("z", "t", true), release("lost", "t", false)]);
    script.push(vec![netflow_v9(false, 1), status("agent-1", "status", "", "")]);
    script.push(vec![fresh_sweep("v", 3, &[("10.0.0.1", true), ("10.0.0.7", true)])]);
    script.push(vec![netflow_v9(true, 2), fresh_sweep("v", 4, &[("10.0.0.1", false)])]);
    script.push(vec![netflow_v9(false, 3), fresh_sweep("v", 5, &[("10.0.0.1", false)])]);
    script.push(vec![sync(&[armis("X", "10.0.0.3", 6, ""), netbox("N", "10.0.0.2", 7, "")])]);
    let anchor = || Identifier { kind: IdKind::Armis, namespace: String::new(), value: "X".into() };
    script.push(vec![step(anchor(), Stage::Identified, DeviceAct::Manage, "c")]);
    script.push(vec![step(anchor(), Stage::Managed, DeviceAct::Delete, "d")]);
    script.push(some_of_each(1));
    script.push([some_of_each(3), some_of_each(2), some_of_each(4)].concat());
    script.push(vec![]);
    script.push(vec![sync(&[armis("X", "10.0.0.3", 6, "")])]);
    script.push(vec![sync(&[netbox("N", "10.0.0.2", 8, r#","_deleted":"true""#)])]);
    script.push(vec![fresh_sweep("v", 9, &[("10.0.0.3", true)]), netflow_v9(false, 4)]);
    script.extend((0..5).map(|_| vec![]));
    script
}

#[test]
fn a_replay_on_other_workers_says_the_same() {
    let outputs = |workers, at_once| {
        let mut run = Run::new(workers);
        if at_once {
            run.burst(script());
        } else {
            script().into_iter().for_each(|inputs| {
                run.tick(inputs);
            });
        }
        let mut said = Vec::new();
        for output in &run.outputs_seen {
            let EpochOutput { epoch, changes, due, outcomes, facts, .. } = output;
            said.push(format!("{epoch} {changes:?} {due:?} {outcomes:?} {facts:?}"));
            let mut rows: Vec<String> = Vec::new();
            for (table, batch) in &output.events {
                for i in 0..batch.num_rows() {
                    rows.push(format!("{table:?} {:?}", batch.slice(i, 1).columns()));
                }
            }
            rows.sort();
            said.extend(rows);
        }
        said
    };
    let once = outputs(1, false);
    for workers in [1, 2, 4] {
        assert_eq!(once, outputs(workers, false), "{workers} workers");
        assert_eq!(once, outputs(workers, true), "{workers} workers, all epochs at once");
    }
}

#[test]
fn a_restart_at_every_epoch_equals_no_restart() {
    let script = script();
    let mut whole = Run::new(2);
    for inputs in &script {
        whole.tick(inputs.clone());
    }
    for cut in 1..script.len() {
        let mut before = Run::new(2);
        for (i, inputs) in script[..cut].iter().enumerate() {
            let mut inputs = inputs.clone();
            if i + 1 == cut {
                inputs.push(fact(&Fact::Snapshot));
            }
            before.tick(inputs);
        }
        let start = Start { epoch: before.epoch, gap_ms: 0, state: before.snapshot.clone(), ..Default::default() };
        let events = before.tables.events.clone();
        let clock = before.clock_ms;
        let mut after = Run::from(3, start, clock);
        assert_eq!(after.tables.state, before.tables.state, "restored at {cut}");
        for inputs in &script[cut..] {
            after.tick(inputs.clone());
        }
        for (table, n) in events {
            *after.tables.events.entry(table).or_default() += n;
        }
        assert_eq!(after.tables.state, whole.tables.state, "cut at {cut}");
        assert_eq!(after.tables.events, whole.tables.events, "cut at {cut}");
    }
}
