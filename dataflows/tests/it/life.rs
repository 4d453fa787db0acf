//! Alerts from the decisive input to the notification, and agents from heartbeat to silence.

use std::collections::BTreeMap;

use radarflow_proto::fact::{Actor, AlertStatus, Fact, Receiver, ReceiverKind, Role};
use radarflow_proto::rows::{Alert, AlertHistory, HealthEvent, StateRow, Trap};
use radarflow_proto::snmp::usm::Level;

use crate::harness::*;

fn receiver() -> Fact {
    Fact::Receiver(Receiver {
        tenant: "t".into(),
        name: "ops".into(),
        url: "http://127.0.0.1:1".into(),
        kind: ReceiverKind::Alertmanager,
        group_by: vec!["alertname".into()],
        group_wait_ms: 0,
        group_interval_ms: 1000,
        repeat_interval_ms: 3_600_000,
        send_resolved: true,
        headers: BTreeMap::new(),
        credential: None,
        signing_key: None,
        template: None,
        of_host: true,
    })
}

fn alerts(run: &Run) -> Vec<&Alert> {
    run.tables.state.values().filter_map(|r| if let StateRow::Alert(a) = r { Some(&**a) } else { None }).collect()
}

fn due(run: &Run) -> Vec<(String, Vec<(String, bool)>)> {
    let due = run.outputs_seen.iter().flat_map(|o| &o.due);
    due.map(|d| {
        (d.id.clone(), d.alerts.iter().map(|a| (a.labels["source_id"].clone(), a.ends_at_ms.is_none())).collect())
    })
    .collect()
}

fn settle(run: &Run, id: &str) -> Input {
    let due = run.outputs_seen.iter().flat_map(|o| &o.due).find(|d| d.id == id).expect("it is due");
    fact(&Fact::Delivery {
        tenant: "t".into(),
        receiver: "ops".into(),
        group_key: due.group_key.clone(),
        notification_id: id.into(),
        delivered: true,
        detail: "200 OK".into(),
    })
}

#[test]
fn a_device_goes_and_comes_back_and_the_receiver_is_told_both() {
    let mut run = Run::new(2);
    run.tick([instances(), vec![fact(&receiver())]].concat());
    run.tick(vec![sync(&[armis("X", "10.0.0.1", 1, "")])]);
    run.tick(vec![fresh_sweep("v", 10, &[("10.0.0.1", true)])]);
    run.tick(vec![fresh_sweep("v", 20, &[("10.0.0.1", false)])]);
    assert!(alerts(&run).is_empty(), "one failure is no outage");
    run.tick(vec![fresh_sweep("v", 30, &[("10.0.0.1", false)])]);
    assert_eq!(alerts(&run)[0].status, "pending");
    let uid = run.tables.uids()[0].clone();
    let told = due(&run);
    assert_eq!(told[0].1, [(uid.clone(), true)]);
    run.tick(vec![settle(&run, &told[0].0)]);
    run.tick(vec![fresh_sweep("v", 40, &[("10.0.0.1", true)])]);
    assert_eq!((alerts(&run)[0].status.as_str(), alerts(&run)[0].resolved_by.as_deref()), ("resolved", Some("system")));
    assert_eq!(due(&run).len(), 1, "the group is paced");
    run.tick_after(1000, vec![]);
    assert_eq!(due(&run)[1].1, [(uid, false)]);
    assert_eq!(run.rows::<AlertHistory>().len(), 2);
}

#[test]
fn steps_are_judged_where_they_stand_and_refusals_say_what_is_allowed() {
    let mut run = Run::new(1);
    run.tick(instances());
    run.tick(vec![sync(&[armis("X", "10.0.0.1", 1, "")]), fresh_sweep("v", 2, &[("10.0.0.1", false)])]);
    run.tick(vec![fresh_sweep("v", 3, &[("10.0.0.1", false)])]);
    let id = alerts(&run)[0].id.clone();
    let step = |to, command: &str| {
        fact(&Fact::AlertStep {
            tenant: "t".into(),
            alert_id: id.clone(),
            to,
            until_ms: None,
            actor: Actor { name: "ann".into(), role: Role::Operator },
            reason: "looking".into(),
            command_id: command.into(),
        })
    };
    run.tick(vec![step(AlertStatus::Acknowledged, "c1")]);
    run.tick(vec![step(AlertStatus::Acknowledged, "c2")]);
    let outcomes: Vec<_> = run.outputs_seen.iter().flat_map(|o| o.outcomes.clone()).collect();
    assert_eq!((outcomes[0].command_id.as_str(), &outcomes[0].refused), ("c1", &None));
    assert!(outcomes[1].refused.as_ref().unwrap().contains("allowed: resolved, escalated, suppressed"));
    assert_eq!(alerts(&run)[0].acknowledged_by.as_deref(), Some("ann"));
}

#[test]
fn a_pending_critical_alert_escalates_by_itself() {
    let mut run = Run::new(1);
    run.tick(instances());
    run.tick(vec![sync(&[armis("X", "10.0.0.1", 1, "")]), fresh_sweep("v", 2, &[("10.0.0.1", false)])]);
    run.tick(vec![fresh_sweep("v", 3, &[("10.0.0.1", false)])]);
    // Its vantage goes on to see that it does not answer: what nobody looks at is not down for long.
    let later = run.clock_ms + 20 * 60_000;
    run.tick_after(20 * 60_000, vec![check("v", later, "10.0.0.1", Some(false))]);
    run.tick_after(11 * 60_000, vec![]);
    let device = alerts(&run).into_iter().find(|a| a.rule == "device-offline").expect("it is offline");
    assert_eq!(device.status, "escalated");
}

#[test]
fn an_agent_falls_silent_and_speaks_again() {
    let mut run = Run::new(2);
    let beat = || status("agent-1", "status", "", "");
    run.tick(vec![beat()]);
    run.tick_after(299_000, vec![]);
    assert!(alerts(&run).is_empty());
    run.tick_after(2_000, vec![]);
    assert_eq!((alerts(&run)[0].rule.as_str(), alerts(&run)[0].status.as_str()), ("agent-offline", "pending"));
    run.tick(vec![beat()]);
    assert_eq!(alerts(&run)[0].status, "resolved");
    let states: Vec<_> = run.rows::<HealthEvent>().into_iter().map(|e| (e.old_state, e.new_state)).collect();
    let expected = [("unknown", "connected"), ("connected", "disconnected"), ("disconnected", "connected")];
    assert_eq!(states, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

fn link_trap(down: bool) -> Input {
    about_interface(if down { LINK_DOWN } else { LINK_UP }, 3)
}

fn about_interface(trap: &[u8], index: u8) -> Input {
    notification("10.0.0.1:50000", 0xa7, 1, trap, index, None)
}

#[test]
fn a_trap_begins_a_condition_and_its_pair_ends_it() {
    let mut run = Run::new(2);
    run.tick(instances());
    run.tick(vec![sync(&[armis("X", "10.0.0.1", 1, "")])]);
    run.tick(vec![link_trap(true)]);
    assert_eq!((alerts(&run)[0].rule.as_str(), alerts(&run)[0].source_id.as_str()), ("link-down", "10.0.0.1/3"));
    run.tick(vec![link_trap(false)]);
    assert_eq!(alerts(&run)[0].status, "resolved");
    let traps = run.rows::<Trap>();
    assert_eq!((traps.len(), traps[0].trap_name.as_deref()), (2, Some("linkDown")));
    assert_eq!(traps[0].device_uid, Some(run.tables.uids()[0].clone()), "attributed by ownership");
}

#[test]
fn what_an_authentic_trap_began_only_another_ends() {
    let mut run = Run::new(2);
    let said = |trap: &[u8], level| notification("10.0.0.1:161", 0xa7, 1, trap, 3, level);
    let authentic = Some(Level::AuthNoPriv);
    let burns = |run: &Run| alerts(run).iter().any(|alert| alert.status == "pending");
    for (began, ended, burns_on) in [
        (None, None, false),
        (None, authentic, false),
        (authentic, None, true),
        (authentic, Some(Level::NoAuthNoPriv), true),
        (authentic, authentic, false),
    ] {
        run.tick(vec![said(LINK_DOWN, began)]);
        // What anybody says again changes nothing of what is known.
        run.tick(vec![said(LINK_DOWN, None)]);
        run.tick(vec![said(LINK_UP, ended)]);
        assert_eq!(burns(&run), burns_on, "{began:?} {ended:?}");
        run.tick(vec![said(LINK_UP, authentic)]);
        assert!(!burns(&run));
    }
}

#[test]
fn pairs_are_resources_and_nothing_is_left_of_one_that_is_gone() {
    use crate::resources::{command, gone, put};
    for workers in [1, 3] {
        let mut run = Run::new(workers);
        let about = |oid: &[u8]| about_interface(oid, 3);
        let (fails, works) = ([0x2b, 6, 1, 4, 1, 9, 1], [0x2b, 6, 1, 4, 1, 9, 2]);
        run.tick(vec![about(&fails)]);
        assert!(alerts(&run).is_empty());
        let fields = serde_json::json!({"begins": ["1.3.6.1.4.1.9.1"], "ends": ["1.3.6.1.4.1.9.2"],
            "about": ["fan=1.3.6.1.2.1.2.2.1.1"], "severity": "critical", "title": "Fan {fan} of {source}"});
        // An epoch's pairs count before its traps, wherever they stand.
        run.tick(vec![about(&fails), command("t", "1", None, vec![put("clear_pairs", "fan", fields)])]);
        let found = alerts(&run);
        assert_eq!((found[0].rule.as_str(), found[0].title.as_str()), ("fan", "Fan 3 of 10.0.0.1"));
        assert_eq!((found[0].severity.as_str(), found[0].status.as_str()), ("critical", "pending"));
        run.tick(vec![about(&works)]);
        assert_eq!(alerts(&run)[0].status, "resolved");
        // It is the same after a restart; and over when nothing can end it any more.
        run.tick(vec![about(&fails), link_trap(true), fact(&radarflow_proto::fact::Fact::Snapshot)]);
        let start = radarflow_dataflows::worker::Start {
            epoch: run.epoch,
            gap_ms: 0,
            state: run.snapshot.clone(),
            ..Default::default()
        };
        let mut run = Run::from(2, start, run.clock_ms);
        let burning = |run: &Run| alerts(run).iter().filter(|alert| alert.status == "pending").count();
        assert_eq!(burning(&run), 2);
        run.tick(vec![command("t", "2", None, vec![gone("clear_pairs", "fan")])]);
        assert_eq!(burning(&run), 1);
        // The pair that is there without being stated can be switched off.
        let off =
            serde_json::json!({"begins": ["1.3.6.1.6.3.1.1.5.3"], "ends": ["1.3.6.1.6.3.1.1.5.4"], "enabled": false});
        run.tick(vec![command("t", "3", None, vec![put("clear_pairs", "link-down", off)])]);
        assert_eq!(burning(&run), 0);
        run.tick(vec![link_trap(true)]);
        assert_eq!(burning(&run), 0);
    }
}

#[test]
fn a_burst_of_errors_is_one_alert_that_ends_by_time() {
    let mut run = Run::new(2);
    let line = |i: usize| Input {
        kind: radarflow_proto::frame::Kind::Syslog,
        tenant: "t",
        partition: "default".into(),
        peer: Some("10.0.0.9:514"),
        body: format!("<11>Jan  1 00:00:00 h app: failure {i}").into(),
    };
    run.tick((0..99).map(line).collect());
    assert!(alerts(&run).is_empty());
    run.tick(vec![line(99)]);
    assert_eq!(alerts(&run)[0].rule, "log-burst");
    run.tick_after(311_000, vec![]);
    assert_eq!(alerts(&run)[0].status, "resolved");
}
