//! Rules about devices, as a relation: whenever they change, every device is as if it had always been so.

use radarflow_proto::enrich::{Patterns, Rule};
use radarflow_proto::fact::Fact;
use radarflow_proto::rows::Device;

use crate::harness::*;

fn rule(rule_id: &str, priority: i32, descr: &str, kind: &str) -> Rule {
    Rule {
        priority,
        when: [("sys_descr".to_owned(), Patterns(vec![descr.to_owned()]))].into(),
        set: [("type".to_owned(), kind.to_owned())].into(),
        ..Rule::named(rule_id)
    }
}

fn rules(rules: Vec<Rule>) -> Input {
    fact(&Fact::EnrichmentRules { rules })
}

fn polled(n: usize, descr: &str, second: i64) -> Input {
    let metadata = format!(r#""identity_mac_kind":"primary","sys_descr":"{descr}""#);
    sync(&[item("mapper", &metadata, &format!("10.1.{}.{}", n / 200, n % 200 + 1), second)])
}

/// What the devices are, and who says so.
fn said(tables: &Tables) -> Vec<(String, Option<String>, Option<String>)> {
    let by = |d: &Device| d.enriched_by.0.get("type").cloned();
    tables.devices().into_iter().map(|d| (d.uid.clone(), d.r#type.clone(), by(d))).collect()
}

#[test]
fn editing_a_rule_reclassifies_every_device_at_once() {
    for workers in [1, 2] {
        let mut run = Run::new(workers);
        run.tick((0..300).map(|n| polled(n, if n % 3 == 0 { "a Gizmo" } else { "a Widget" }, 0)).collect());
        assert!(said(&run.tables).iter().all(|(_, kind, by)| kind.is_none() && by.is_none()));
        run.tick(vec![rules(vec![rule("w", 1, "widget", "router"), rule("g", 1, "gizmo", "switch")])]);
        let count = |run: &Run, kind: &str, by: &str| {
            let is = |d: &&(String, Option<String>, Option<String>)| {
                d.1.as_deref() == Some(kind) && d.2.as_deref() == Some(by)
            };
            said(&run.tables).iter().filter(is).count()
        };
        assert_eq!((count(&run, "router", "w"), count(&run, "switch", "g")), (200, 100));
        // One epoch changes both, and only what the edit touches.
        run.tick(vec![rules(vec![rule("w", 1, "widget", "router"), rule("g2", 1, "gizmo", "firewall")])]);
        assert_eq!((count(&run, "router", "w"), count(&run, "firewall", "g2")), (200, 100));
        assert_eq!(run.outputs_seen.last().unwrap().changes.len(), 100);
        // What comes and goes in the epoch of an edit is under the new rules.
        let now =
            vec![polled(400, "a Widget", 5), polled(0, "a Widget now", 9), rules(vec![rule("w", 1, "widget", "ap")])];
        run.tick(now);
        assert_eq!((count(&run, "ap", "w"), said(&run.tables).iter().filter(|d| d.1.is_none()).count()), (202, 99));
        run.tick(vec![rules(vec![])]);
        assert!(said(&run.tables).iter().all(|(_, kind, by)| kind.is_none() && by.is_none()));
    }
}

#[test]
fn however_rules_and_devices_interleave_the_end_is_the_same() {
    let last =
        || rules(vec![rule("a", 2, "widget", "router"), rule("b", 1, "wid", "switch"), rule("c", 1, "giz", "ups")]);
    let devices: Vec<Input> = (0..40).map(|n| polled(n, ["a Widget", "a Gizmo", "wide"][n % 3], n as i64)).collect();
    let mut expected = Run::new(1);
    expected.tick(vec![last()]);
    expected.tick(devices.clone());
    for seed in 0..6 {
        let mut run = Run::new(1 + seed % 2);
        let mut epochs: Vec<Vec<Input>> = devices.chunks(7).map(<[Input]>::to_vec).collect();
        for (n, kind) in ["x", "y", "z"].iter().enumerate() {
            let at = (seed * 5 + n * 2) % epochs.len();
            epochs[at].push(rules(vec![rule("a", 1, "w", kind)]));
        }
        epochs.push(vec![last()]);
        // Some epochs the workers see together, some alone.
        let alone = epochs.split_off(1 + seed);
        run.burst(epochs);
        alone.into_iter().for_each(|epoch| drop(run.tick(epoch).clone()));
        assert_eq!(said(&run.tables), said(&expected.tables), "seed {seed}");
    }
}
